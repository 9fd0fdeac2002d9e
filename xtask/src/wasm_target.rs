//! Finds a way to compile for `wasm32-wasip2` on this machine: the toolchain's own target, one that rustup adds, or
//! Debian's second Rust compiler with the sources of `std`.
//!
//! It installs nothing that it was not allowed to: `RUSTUP_AUTO_INSTALL=0` keeps it away from rustup, and it calls
//! apt-get only as root.

mod facts;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use facts::{Attempt, Facts};

/// The target of every guest.
pub(crate) const TARGET: &str = "wasm32-wasip2";

const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "wasi-libc"];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";
const DEBIAN_LIBC: &str = "/usr/lib/wasm32-wasi";

const ADVICE: &str = "no way to compile for wasm32-wasip2 was found. Run one of these, then try again:
  rustup target add wasm32-wasip2
  sudo apt-get update && sudo apt-get install -y --no-install-recommends rustc-web rust-web-src wasi-libc   # Debian
The second needs the toolchain of rustup all the same, for its wasm-component-ld.";

/// A way to compile for the target that works on this machine.
pub(crate) enum WasmTarget {
    /// The toolchain's own compiler has the target.
    Toolchain,
    /// Debian's compiler, which builds `std` from source, with the toolchain's linkers.
    Debian {
        /// The folders of wasm-component-ld and wasm-ld.
        linkers: [PathBuf; 2],
    },
}

impl WasmTarget {
    /// Takes the first way that works, and says on stderr which it is. Costs some 100 ms when nothing is to be installed.
    ///
    /// # Errors
    /// When none works; the message is the commands to run.
    pub(crate) fn find() -> Result<Self> {
        let facts = Facts::gather()?;
        for attempt in facts.attempts() {
            match take(attempt, &facts) {
                Ok(target) => {
                    eprintln!("{TARGET}: {}", attempt.taken());
                    return Ok(target);
                }
                Err(error) => eprintln!("{TARGET}: {} did not work: {error:#}", attempt.name()),
            }
        }
        bail!(ADVICE)
    }

    /// What cargo needs to be told on its command line.
    pub(crate) fn cargo_args(&self) -> &'static [&'static str] {
        match self {
            Self::Toolchain => &[],
            Self::Debian { .. } => &["-Z", "build-std=std,panic_abort"],
        }
    }

    /// What the compiler needs to be told.
    pub(crate) fn rust_flags(&self) -> Vec<String> {
        match self {
            Self::Toolchain => Vec::new(),
            Self::Debian { .. } => vec!["-L".to_owned(), DEBIAN_LIBC.to_owned()],
        }
    }

    /// The environment variables that select the compiler and its linkers.
    ///
    /// # Errors
    /// When the path of a linker cannot stand in `PATH`.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let Self::Debian { linkers } = self else {
            return Ok(Vec::new());
        };
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(linkers.iter().cloned());
        let path = env::join_paths(folders).context("adding the linkers to PATH")?;
        Ok(vec![("RUSTC", DEBIAN_RUSTC.into()), ("RUSTC_BOOTSTRAP", "1".into()), ("PATH", path)])
    }
}

fn take(attempt: Attempt, facts: &Facts) -> Result<WasmTarget> {
    match attempt {
        Attempt::UseInstalled => Ok(WasmTarget::Toolchain),
        Attempt::AddWithRustup => {
            process::run(Command::new("rustup").args(["target", "add", TARGET]))?;
            Ok(WasmTarget::Toolchain)
        }
        Attempt::UseDebian => debian(facts),
        Attempt::InstallDebian => {
            install_debian_packages()?;
            if !facts::debian_is_ready() {
                bail!("the Rust compiler of the Debian packages is missing or too old");
            }
            debian(facts)
        }
    }
}

fn install_debian_packages() -> Result<()> {
    process::run(Command::new("apt-get").arg("update"))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(DEBIAN_PACKAGES);
    process::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn debian(facts: &Facts) -> Result<WasmTarget> {
    let tools = facts.toolchain_tools();
    let linkers = [tools.clone(), tools.join("gcc-ld")];
    for (folder, linker) in linkers.iter().zip(["wasm-component-ld", "wasm-ld"]) {
        let program = folder.join(linker).with_extension(env::consts::EXE_EXTENSION);
        if !program.is_file() {
            bail!("{} is missing; a toolchain of rustup has it", program.display());
        }
    }
    Ok(WasmTarget::Debian { linkers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchain_needs_nothing_added() {
        assert!(WasmTarget::Toolchain.cargo_args().is_empty());
        assert!(WasmTarget::Toolchain.rust_flags().is_empty());
        assert!(WasmTarget::Toolchain.environment().unwrap().is_empty());
    }

    #[test]
    fn debians_compiler_finds_the_linkers_last_on_the_path() {
        let target = WasmTarget::Debian { linkers: ["/tools".into(), "/tools/gcc-ld".into()] };
        let environment = target.environment().unwrap();
        let path = environment.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.clone());
        assert!(path.unwrap().to_string_lossy().ends_with(":/tools:/tools/gcc-ld"));
    }

    #[test]
    fn the_advice_names_every_package() {
        assert!(ADVICE.contains(&DEBIAN_PACKAGES.join(" ")));
        assert!(ADVICE.contains(TARGET));
    }
}
