//! Where things lie: the root, the target directory, the members. Every path of the other modules comes from here.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// How the host program is compiled.
#[derive(Clone, Copy)]
pub(crate) enum HostProfile {
    /// Optimised: `target/release`.
    Release,
    /// Not optimised: `target/debug`.
    Debug,
}

/// The workspace this program was called in, as cargo sees it.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    stages: Vec<String>,
    test_guests: Vec<String>,
}

impl Workspace {
    /// Asks cargo about the workspace around the current directory. Costs about 50 ms.
    ///
    /// # Errors
    /// When there is none or it has a fault.
    pub(crate) fn load() -> Result<Self> {
        let mut metadata = Command::new(cargo_program());
        let text = process::read(metadata.args(["metadata", "--format-version=1", "--no-deps"]))?;
        Self::from_metadata(&text).context("reading the output of `cargo metadata`")
    }

    fn from_metadata(text: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(text)?;
        let root = PathBuf::from(text_at(&metadata, "/workspace_root")?);
        let target = PathBuf::from(text_at(&metadata, "/target_directory")?);
        let packages = metadata.pointer("/packages").and_then(Value::as_array).context("no packages")?;
        let stages = components_in(&root.join("functions"), packages)?;
        let test_guests = components_in(&root.join("tests").join("guests"), packages)?;
        Ok(Self { root, target, stages, test_guests })
    }

    /// Names the packages of stages in `functions`, in order.
    pub(crate) fn stages(&self) -> &[String] {
        &self.stages
    }

    /// Names the packages in `tests/guests`, in order.
    pub(crate) fn test_guests(&self) -> &[String] {
        &self.test_guests
    }

    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the components of the stages go; those of the test guests go to `test` in it.
    pub(crate) fn components(&self) -> PathBuf {
        self.target.join("components")
    }

    /// The target directory of the guests. It is their own, because their compiler may not be the host's, and two
    /// compilers in one directory rebuild each other's build scripts.
    pub(crate) fn guest_target(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// Where builds and tools go.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The program `tapeline`.
    pub(crate) fn program(&self, profile: HostProfile) -> PathBuf {
        let folder = match profile {
            HostProfile::Release => "release",
            HostProfile::Debug => "debug",
        };
        self.target.join(folder).join("tapeline").with_extension(env::consts::EXE_EXTENSION)
    }

    /// Starts a cargo command line, to be run in the root and to build into our target directory.
    pub(crate) fn cargo(&self, task: &str) -> Command {
        let mut command = self.command(cargo_program());
        command.arg(task).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Starts the command line of any program, to be run in the root.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        command
    }

    /// Writes a path as one would type it in the root.
    pub(crate) fn display<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// Names the cargo that started us, so that every step uses the same toolchain.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Names the packages in a folder, not deeper, that become components, in order.
fn components_in(folder: &Path, packages: &[Value]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in packages {
        let place = Path::new(text_at(package, "/manifest_path")?).parent();
        if place.and_then(Path::parent) == Some(folder) && is_component(package) {
            names.push(text_at(package, "/name")?.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Tells whether a package says of itself that it is loaded, and not only linked: `crate-type = ["cdylib", "rlib"]`.
fn is_component(package: &Value) -> bool {
    let targets = package.pointer("/targets").and_then(Value::as_array);
    let kinds = targets.into_iter().flatten().filter_map(|target| target.pointer("/kind")?.as_array());
    kinds.flatten().any(|kind| kind == "cdylib")
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "workspace_root": "/code", "target_directory": "/elsewhere",
        "packages": [
            { "name": "spin-forever", "manifest_path": "/code/tests/guests/spin-forever/Cargo.toml", "targets": [{ "kind": ["cdylib", "rlib"] }] },
            { "name": "dedup", "manifest_path": "/code/functions/dedup/Cargo.toml", "targets": [{ "kind": ["cdylib", "rlib"] }] },
            { "name": "alarm", "manifest_path": "/code/functions/alarm/Cargo.toml", "targets": [{ "kind": ["cdylib", "rlib"] }] },
            { "name": "front", "manifest_path": "/code/functions/spin/fronts/stage/Cargo.toml", "targets": [{ "kind": ["cdylib"] }] },
            { "name": "tapeline-sdk", "manifest_path": "/code/functions/sdk/Cargo.toml", "targets": [{ "kind": ["lib"] }] },
            { "name": "echo", "manifest_path": "/code/tests/guests/echo/Cargo.toml", "targets": [{ "kind": ["cdylib", "rlib"] }] }
        ]
    }"#;

    #[test]
    fn everything_built_is_below_the_target_directory() {
        let workspace = Workspace::from_metadata(METADATA).unwrap();
        assert_eq!(workspace.components(), Path::new("/elsewhere/components"));
        assert_eq!(workspace.guest_target(), Path::new("/elsewhere/guests"));
        assert!(workspace.program(HostProfile::Release).starts_with("/elsewhere/release"));
        assert!(workspace.program(HostProfile::Debug).starts_with("/elsewhere/debug"));
    }

    #[test]
    fn stages_and_test_guests_are_told_by_their_folder() {
        let workspace = Workspace::from_metadata(METADATA).unwrap();
        assert_eq!(workspace.stages(), ["alarm", "dedup"], "the SDK is no component, and the front of Spin no stage");
        assert_eq!(workspace.test_guests(), ["echo", "spin-forever"]);
    }

    #[test]
    fn metadata_without_a_root_is_refused() {
        let refused = Workspace::from_metadata("{}");
        assert!(refused.is_err_and(|error| error.to_string() == "no text at /workspace_root"));
    }
}
