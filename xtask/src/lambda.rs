//! `cargo xtask lambda`: the package of the functions on AWS Lambda: the program and the components, compiled ahead of time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::workspace::{HostProfile, Workspace};
use crate::{build, process};

/// The program's crate, and its tests. They are built by themselves, because cargo would give them the compiler that the
/// host asks for; and always together, so that what is tested is what is packed.
pub(crate) const PACKAGES: [&str; 2] = ["tapeline-aws", "tapeline-aws-tests"];
/// The same as cargo is told it.
pub(crate) const SELECTION: [&str; 6] = ["--package", PACKAGES[0], "--package", PACKAGES[1], "--profile", "lambda"];
/// What Lambda starts.
const PROGRAM: &str = "bootstrap";
/// What people operate pipelines with, through `tapeline`. It is no part of the package.
const OPERATOR: &str = "tapeline-aws";

/// What functions run on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// Intel and AMD.
    #[value(name = "x86_64")]
    X86_64,
    /// Graviton.
    #[value(name = "arm64")]
    Arm64,
}

impl Architecture {
    const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Whether this machine is one.
    const fn is_here(self) -> bool {
        match self {
            Self::X86_64 => cfg!(all(target_os = "linux", target_arch = "x86_64")),
            Self::Arm64 => cfg!(all(target_os = "linux", target_arch = "aarch64")),
        }
    }
}

/// Builds all that is needed, then the package.
///
/// # Errors
/// When something does not compile.
pub(crate) fn run(workspace: &Workspace, architecture: Architecture) -> Result<ExitCode> {
    build::run(workspace, HostProfile::Release)?;
    let program = build_program(workspace, architecture)?;
    let package = pack(workspace, architecture, &program)?;
    eprintln!("built {}", workspace.display(&package));
    Ok(ExitCode::SUCCESS)
}

/// Puts the package together of what is built: `target/lambda/<architecture>`.
///
/// # Errors
/// When the components cannot be compiled, or a file cannot be written.
pub(crate) fn pack(workspace: &Workspace, architecture: Architecture, program: &Path) -> Result<PathBuf> {
    let package = workspace.target().join("lambda").join(architecture.name());
    if package.exists() {
        fs::remove_dir_all(&package).with_context(|| format!("emptying {}", package.display()))?;
    }
    fs::create_dir_all(&package).with_context(|| format!("making {}", package.display()))?;
    let placed = package.join(PROGRAM);
    fs::copy(program, &placed).with_context(|| format!("writing {}", placed.display()))?;
    let mut compile = workspace.command(workspace.program(HostProfile::Release));
    compile.args(["compile", "--architecture", architecture.name(), "--into"]).arg(package.join("components"));
    compile.args(workspace.stages().iter().map(|stage| workspace.components().join(format!("{stage}.wasm"))));
    for compiled in process::read(&mut compile)?.lines() {
        unseal(Path::new(compiled))?;
    }
    Ok(package)
}

/// Bytes of the digest in front of compiled code.
const SEAL_BYTES: usize = 32;

/// Takes the digest away from compiled code: beside the program it is not checked, so that it need not be read as a whole
/// whenever one starts, but is mapped.
fn unseal(compiled: &Path) -> Result<()> {
    let sealed = fs::read(compiled).with_context(|| format!("reading {}", compiled.display()))?;
    let code = sealed.get(SEAL_BYTES..).with_context(|| format!("{} is empty", compiled.display()))?;
    fs::write(compiled, code).with_context(|| format!("writing {}", compiled.display()))
}

/// Builds the program of the functions, and for this machine the one that pushes to them: components can be compiled for
/// machines of the same kind alone.
///
/// # Errors
/// When it does not compile.
fn build_program(workspace: &Workspace, architecture: Architecture) -> Result<PathBuf> {
    let mut program = workspace.cargo("build");
    program.args(SELECTION).args(["--bin", PROGRAM]);
    if architecture.is_here() {
        process::run(program.args(["--bin", OPERATOR]))?;
        return Ok(self::program(workspace));
    }
    let target = architecture.target();
    if process::run(program.args(["--target", target])).is_err() {
        bail!(
            "{PROGRAM} does not compile for {target}: `rustup target add {target}` brings Rust's part, and a C compiler and \
             linker for it must be there too (Debian: gcc-aarch64-linux-gnu, with \
             CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc); or do it on such a machine"
        );
    }
    Ok(workspace.target().join(target).join("lambda").join(PROGRAM))
}

/// The program as it is built for this machine.
pub(crate) fn program(workspace: &Workspace) -> PathBuf {
    workspace.target().join("lambda").join(PROGRAM)
}
