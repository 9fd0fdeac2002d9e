//! What this machine has, and which ways to the target are to be tried for it, in which order.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{DEBIAN_LIBC, DEBIAN_RUSTC, DEBIAN_STD, TARGET};
use crate::process;

/// The oldest compiler that our guests build with, as in the root's `Cargo.toml`.
const RUSTC_MINOR_MIN: u32 = 95;

/// What decides the way.
pub(super) struct Facts {
    /// The folder of the toolchain's own linkers.
    toolchain_tools: PathBuf,
    target: Presence,
    rustup: Rustup,
    debian: Debian,
}

/// One way to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    UseInstalled,
    AddWithRustup,
    UseDebian,
    InstallDebian,
}

#[derive(Clone, Copy)]
enum Presence {
    Installed,
    Missing,
}

#[derive(Clone, Copy)]
enum Rustup {
    MayInstall,
    /// There is no rustup, or it was forbidden to install anything.
    Unusable,
}

#[derive(Clone, Copy)]
enum Debian {
    Ready,
    /// The packages are missing; there is apt-get and we are root.
    Installable,
    Unusable,
}

impl Facts {
    /// Looks at the machine. Changes nothing.
    ///
    /// # Errors
    /// When the Rust compiler cannot be asked.
    pub(super) fn gather() -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let printed = process::read(Command::new(rustc).args(["--print", "sysroot", "--print", "host-tuple"]))?;
        let (sysroot, host) = printed.split_once('\n').context("rustc does not print its host")?;
        let libraries = Path::new(sysroot.trim_end()).join("lib").join("rustlib");
        Ok(Self {
            target: target_in(&libraries),
            toolchain_tools: libraries.join(host).join("bin"),
            rustup: rustup(),
            debian: debian(),
        })
    }

    /// Names the ways worth trying, the best first.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        if let Presence::Installed = self.target {
            return vec![Attempt::UseInstalled];
        }
        let rustup = match self.rustup {
            Rustup::MayInstall => Some(Attempt::AddWithRustup),
            Rustup::Unusable => None,
        };
        let debian = match self.debian {
            Debian::Ready => Some(Attempt::UseDebian),
            Debian::Installable => Some(Attempt::InstallDebian),
            Debian::Unusable => None,
        };
        rustup.into_iter().chain(debian).collect()
    }

    /// The folder of the toolchain's own linkers.
    pub(super) fn toolchain_tools(&self) -> &PathBuf {
        &self.toolchain_tools
    }
}

impl Attempt {
    /// Names the way in a sentence on its failure.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UseInstalled => "the toolchain's own target",
            Self::AddWithRustup => "`rustup target add`",
            Self::UseDebian => "Debian's compiler",
            Self::InstallDebian => "installing Debian's compiler",
        }
    }

    /// Says that the way was taken.
    pub(super) fn taken(self) -> &'static str {
        match self {
            Self::UseInstalled => "using the target installed in the toolchain",
            Self::AddWithRustup => "using the target that rustup just added to the toolchain",
            Self::UseDebian => "using Debian's compiler (rustc-web), with std built from source",
            Self::InstallDebian => "using Debian's compiler (rustc-web), just installed, with std built from source",
        }
    }
}

/// Tells whether Debian's packages are there and new enough.
pub(super) fn debian_is_ready() -> bool {
    let files = [DEBIAN_STD, DEBIAN_LIBC].iter().all(|path| Path::new(path).exists());
    files && Path::new(DEBIAN_RUSTC).exists() && debian_rustc_is_new_enough()
}

fn debian_rustc_is_new_enough() -> bool {
    let version = process::read(Command::new(DEBIAN_RUSTC).arg("--version"));
    version.ok().as_deref().and_then(minor_version).is_some_and(|minor| minor >= RUSTC_MINOR_MIN)
}

fn minor_version(version: &str) -> Option<u32> {
    let number = version.strip_prefix("rustc 1.")?;
    number.split('.').next()?.parse().ok()
}

fn target_in(libraries: &Path) -> Presence {
    if libraries.join(TARGET).join("lib").is_dir() { Presence::Installed } else { Presence::Missing }
}

fn rustup() -> Rustup {
    let forbidden = env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0");
    if !forbidden && process::succeeds(Command::new("rustup").arg("--version")) {
        Rustup::MayInstall
    } else {
        Rustup::Unusable
    }
}

fn debian() -> Debian {
    if debian_is_ready() {
        Debian::Ready
    } else if is_root() && process::succeeds(Command::new("apt-get").arg("--version")) {
        Debian::Installable
    } else {
        Debian::Unusable
    }
}

fn is_root() -> bool {
    process::read(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(target: Presence, rustup: Rustup, debian: Debian) -> Vec<Attempt> {
        Facts { toolchain_tools: PathBuf::new(), target, rustup, debian }.attempts()
    }

    #[test]
    fn an_installed_target_needs_nothing_else() {
        let found = attempts(Presence::Installed, Rustup::MayInstall, Debian::Ready);
        assert_eq!(found, [Attempt::UseInstalled]);
    }

    #[test]
    fn rustup_goes_before_debian_and_debian_helps_when_rustup_fails() {
        let ready = attempts(Presence::Missing, Rustup::MayInstall, Debian::Ready);
        assert_eq!(ready, [Attempt::AddWithRustup, Attempt::UseDebian]);
        let installable = attempts(Presence::Missing, Rustup::MayInstall, Debian::Installable);
        assert_eq!(installable, [Attempt::AddWithRustup, Attempt::InstallDebian]);
    }

    #[test]
    fn a_rustup_that_may_not_install_is_left_alone() {
        assert_eq!(attempts(Presence::Missing, Rustup::Unusable, Debian::Ready), [Attempt::UseDebian]);
        assert_eq!(attempts(Presence::Missing, Rustup::Unusable, Debian::Installable), [Attempt::InstallDebian]);
        assert_eq!(attempts(Presence::Missing, Rustup::Unusable, Debian::Unusable), []);
    }

    #[test]
    fn compilers_are_compared_by_minor_version() {
        assert_eq!(minor_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Some(96));
        assert_eq!(minor_version("rustc 1.63.0"), Some(63));
        assert_eq!(minor_version("gcc 12"), None);
    }
}
