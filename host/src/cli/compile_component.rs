//! `tapeline compile-component`: what this program starts to compile what was uploaded. Not for people.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

use clap::Args;
use nix::sys::resource::{Resource, setrlimit};

use crate::{
    error::{Context as _, Error, Kind, Result},
    runtime::{COMPILE_REFUSED, COMPONENT_BYTES_MAX, compile_here},
};

/// Compile standard input to standard output
#[derive(Args)]
pub(super) struct CompileComponent {
    /// Bytes of address space that it may use
    #[arg(long)]
    memory_bytes: u64,
    /// Seconds of the processors' time that it may use
    #[arg(long)]
    cpu_seconds: u64,
}

impl CompileComponent {
    /// Reads, compiles, writes. What is no component is told on standard error.
    pub(super) fn run(&self) -> ExitCode {
        match self.compile() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let mut reason = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    reason = format!("{reason}: {error}");
                    cause = error.source();
                }
                let _ = writeln!(std::io::stderr(), "{reason}");
                ExitCode::from(COMPILE_REFUSED)
            }
        }
    }

    fn compile(&self) -> Result<()> {
        let limit = |resource, value| setrlimit(resource, value, value);
        limit(Resource::RLIMIT_AS, self.memory_bytes)
            .and_then(|()| limit(Resource::RLIMIT_CPU, self.cpu_seconds))
            .and_then(|()| limit(Resource::RLIMIT_CORE, 0))
            .map_err(|error| Error::caused(Kind::Internal, "limit the compiler", error))?;
        let mut bytes = Vec::new();
        let read = std::io::stdin().take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.doing(|| "read the component".to_owned())?;
        let compiled = compile_here(&bytes)?;
        let mut out = std::io::stdout().lock();
        out.write_all(&compiled).and_then(|()| out.flush()).doing(|| "write the compiled component".to_owned())
    }
}
