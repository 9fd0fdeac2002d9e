//! `tapeline compile`: components ahead of time, for functions on AWS Lambda.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{exit::Exit, output};
use crate::{
    error::{Context as _, Error, Result},
    runtime::{self, COMPONENT_BYTES_MAX, Compiled, FunctionCompiler},
};

/// In the folder: which engines run what is in it.
const ENGINES: &str = "engines";

/// Compile components for functions on AWS Lambda
#[derive(Args)]
#[command(after_help = "\
For the architecture of this machine: the compiler of another one is not in this program.

Examples:
  tapeline compile --into compiled my-alarm.wasm
  tapeline compile --into target/lambda/x86_64/components target/components/*.wasm")]
pub(super) struct Compile {
    /// What the functions run on
    #[arg(long, default_value = "x86_64")]
    architecture: Architecture,
    /// Folder to write into: DIR/<component>/<digest>-<engines>.cwasm, in the place of what it has of these components
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Files of components
    #[arg(required = true, value_name = "WASM")]
    components: Vec<PathBuf>,
}

/// What functions run on.
#[derive(Clone, Copy, ValueEnum)]
enum Architecture {
    /// Intel and AMD
    #[value(name = "x86_64")]
    X86_64,
    /// Graviton
    #[value(name = "arm64")]
    Arm64,
}

impl From<Architecture> for runtime::Architecture {
    fn from(architecture: Architecture) -> Self {
        match architecture {
            Architecture::X86_64 => Self::X86_64,
            Architecture::Arm64 => Self::Arm64,
        }
    }
}

impl Compile {
    pub(super) fn run(self) -> Result<Exit> {
        let compiler = FunctionCompiler::new(self.architecture.into())?;
        let mut out = output::lock();
        for path in &self.components {
            let name = path.file_stem();
            let name = name.ok_or_else(|| Error::invalid(format!("compile {}: no file", path.display())))?;
            let compiled = compile(&compiler, path)?;
            let folder = self.into.join(name);
            if folder.exists() {
                fs::remove_dir_all(&folder).doing(|| format!("empty {}", folder.display()))?;
            }
            let file = folder.join(&compiled.name);
            let write = || fs::create_dir_all(&folder).and_then(|()| fs::write(&file, &compiled.bytes));
            write().doing(|| format!("write {}", file.display()))?;
            writeln!(out, "{}", file.display()).doing(|| "write what was compiled".to_owned())?;
        }
        let file = self.into.join(ENGINES);
        fs::write(&file, compiler.engines()).doing(|| format!("write {}", file.display()))?;
        out.flush().doing(|| "write what was compiled".to_owned())?;
        Ok(Exit::Fine)
    }
}

/// Compiles the component in a file.
///
/// # Errors
/// When it cannot be read, or is none.
pub(super) fn compile(compiler: &FunctionCompiler, path: &Path) -> Result<Compiled> {
    let place = || format!("compile {}", path.display());
    let size = fs::metadata(path).doing(place)?.len();
    if size > COMPONENT_BYTES_MAX {
        return Err(Error::invalid(format!("{}: {size} bytes, at most {COMPONENT_BYTES_MAX}", place())));
    }
    compiler.compile(&fs::read(path).doing(place)?).doing(place)
}
