//! `cargo xtask spin`: the stages under Spin, with nothing of our host.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use semver::Version;

use crate::workspace::Workspace;
use crate::{guest, process};

/// What runs the application.
const PROGRAM: &str = "spin";
/// The first version with the interfaces of the fronts: `wasi:http/handler@0.3.0`.
const VERSION_MIN: Version = Version::new(4, 1, 0);
/// Where to get it; no registry that a package manager knows has it.
const HOW: &str = "Spin 4.1 or later is needed: https://spinframework.dev/install says how to get it, or \
                   `cargo install --locked --git https://github.com/spinframework/spin spin-cli`";

/// Builds the components, then becomes `spin up` with `spin.toml`.
///
/// # Errors
/// When something does not compile, or there is no `spin`, or an older one.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let found = process::succeeds(Command::new(PROGRAM).arg("--version"));
    if found {
        check_version(&process::read(Command::new(PROGRAM).arg("--version"))?)?;
    }
    let target = workspace.root().join("target/components");
    if workspace.components() != target {
        let built = workspace.components();
        bail!(
            "spin.toml names {}, and cargo builds into {}: unset CARGO_TARGET_DIR",
            target.display(),
            built.display()
        );
    }
    guest::build_all(workspace)?;
    if !found {
        bail!("the components are built, and there is no `{PROGRAM}` on the path to run them. {HOW}");
    }
    let mut program = workspace.command(PROGRAM);
    process::become_program(program.args(["up", "--from", "spin.toml"]).args(args))
}

/// Refuses what is too old by what `spin --version` says, such as `spin 4.1.0 (48f3b5e 2026-06-01)`. A version before its
/// release will do.
fn check_version(said: &str) -> Result<()> {
    let version = said.split_whitespace().nth(1).unwrap_or_default();
    let Ok(version) = Version::parse(version) else {
        bail!("`{PROGRAM} --version` said {said:?}, which has no version")
    };
    if (version.major, version.minor) < (VERSION_MIN.major, VERSION_MIN.minor) {
        bail!("`{PROGRAM}` on the path is version {version}. {HOW}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_spin_is_refused() {
        for fits in ["spin 4.1.0 (48f3b5e 2026-06-01)", "spin 4.1.0-pre0 (x)", "spin 5.0.0"] {
            assert!(check_version(fits).is_ok(), "{fits}");
        }
        for other in ["spin 4.0.3 (x)", "spin 3.9.9", "spin", "spin four"] {
            assert!(check_version(other).is_err(), "{other}");
        }
        assert!(check_version("spin 3.2.1").unwrap_err().to_string().contains("3.2.1"));
    }
}
