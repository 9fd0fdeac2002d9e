//! Compiles components for functions on AWS Lambda, which have no compiler.

use std::{fmt, sync::Arc};

use tapeline_runtime::{compiled_name, digest, seal};

use super::cache::engines;
use crate::error::{Error, Kind, Result};

/// What functions run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Intel and AMD.
    X86_64,
    /// Graviton.
    Arm64,
}

impl Architecture {
    /// That of this machine, the only one that components are compiled for on it.
    ///
    /// # Errors
    /// `Invalid` when no function runs on machines such as this one.
    pub fn here() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Arm64),
            other => Err(Error::invalid(format!("compile for functions on {other}: do it on x86_64 or aarch64"))),
        }
    }

    /// What compilers call it. Compiled for no more than every processor of this kind has.
    const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// As AWS and `tapeline compile` call it.
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        })
    }
}

/// Compiles components for functions.
pub struct FunctionCompiler {
    engine: wasmtime::Engine,
    engines: String,
}

/// A component as functions load it.
pub struct Compiled {
    /// What its file is called.
    pub name: String,
    /// SHA-256 of the component, in hex.
    pub digest: Arc<str>,
    /// What is in the file.
    pub bytes: Vec<u8>,
}

impl FunctionCompiler {
    /// A compiler for functions of this architecture.
    ///
    /// # Errors
    /// When this program cannot compile for it.
    pub fn new(architecture: Architecture) -> Result<Self> {
        let mut config = tapeline_runtime::Engine::config();
        // A function says of a trap what it was, not at which instruction. The map of those is a ninth of what is compiled,
        // and more of what is packed.
        config.generate_address_map(false);
        let unfit = |error| Error::caused(Kind::Internal, format!("compile for {}", architecture.target()), error);
        config.target(architecture.target()).map_err(unfit)?;
        let foreign = |error| {
            let here = std::env::consts::ARCH;
            let message = format!("compile for {} on {here}: do it on a machine of that kind", architecture.target());
            Error::caused(Kind::Invalid, message, error)
        };
        let engine = wasmtime::Engine::new(&config).map_err(foreign)?;
        Ok(Self { engines: engines(&engine), engine })
    }

    /// Which engines run what it compiles; part of the files' names.
    pub fn engines(&self) -> &str {
        &self.engines
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// `Invalid` when it is none.
    pub fn compile(&self, component: &[u8]) -> Result<Compiled> {
        let compiled = self.engine.precompile_component(component);
        let compiled = compiled.map_err(|error| Error::caused(Kind::Invalid, "compile component", error))?;
        let digest: Arc<str> = digest(component).into();
        let bytes = [&seal(&compiled)[..], &compiled].concat();
        Ok(Compiled { name: compiled_name(&digest, &self.engines), digest, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a component with nothing in it.
    const NOTHING: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn a_component_is_compiled_for_machines_of_this_kind() {
        let both = [Architecture::X86_64, Architecture::Arm64].map(FunctionCompiler::new);
        let here = both.iter().filter_map(|compiler| compiler.as_ref().ok()).collect::<Vec<_>>();
        let [compiler] = here[..] else { panic!("it compiles for {} kinds of machines", here.len()) };
        let compiled = compiler.compile(NOTHING).unwrap();
        assert_eq!(compiled.name, format!("{}-{}.cwasm", compiled.digest, compiler.engines()));
        assert!(compiler.compile(b"no component").is_err_and(|error| error.kind() == Kind::Invalid));
        let error = both.iter().find_map(|compiler| compiler.as_ref().err()).unwrap().to_string();
        assert!(error.contains("do it on a machine of that kind"), "{error}");
    }
}
