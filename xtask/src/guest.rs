//! Builds the guests, each into a WASM component, and puts the components where the host looks for them.
//!
//! One call of `cargo rustc` per guest, because cargo leaves link-time optimisation out of a library that is built as
//! `rlib` too, and every stage is one, for its native tests. A component is a quarter smaller for it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;
use crate::wasm_target::{TARGET, WasmTarget};
use crate::workspace::Workspace;

/// The profile of the guests in the root's `Cargo.toml`.
const PROFILE: &str = "guest";

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`, so that a path may hold a space.
const FLAG_SEPARATOR: &str = "\u{1f}";

/// Builds the stages, all in `functions`, into `components/<stage>.wasm` and the test guests into `components/test/<name>.wasm`. A component
/// whose bytes did not change keeps its time of change.
///
/// # Errors
/// When no way to the target works, or a guest does not compile.
pub(crate) fn build_all(workspace: &Workspace) -> Result<()> {
    let target = WasmTarget::find()?;
    build_stages(workspace, &target, workspace.stages())?;
    build_fronts(workspace, &target)?;
    for guest in workspace.test_guests() {
        build(workspace, &target, &Guest::of(guest), &workspace.components().join("test"))?;
    }
    Ok(())
}

/// Builds what stands in front of the stages under Spin, into `components/spin/<what>.wasm`.
fn build_fronts(workspace: &Workspace, target: &WasmTarget) -> Result<()> {
    FRONTS.iter().try_for_each(|front| {
        let guest = Guest { package: &format!("{FRONT}{front}"), name: front };
        build(workspace, target, &guest, &workspace.components().join("spin"))
    })
}

/// Builds some of the stages, and nothing else.
///
/// # Errors
/// When one is not a stage of ours, no way to the target works, or a stage does not compile.
pub(crate) fn build_some(workspace: &Workspace, stages: &[String]) -> Result<()> {
    if let Some(unknown) = stages.iter().find(|stage| !workspace.stages().contains(stage)) {
        bail!("there is no stage {unknown} in functions/, only {}", workspace.stages().join(", "));
    }
    build_stages(workspace, &WasmTarget::find()?, stages)
}

fn build_stages(workspace: &Workspace, target: &WasmTarget, stages: &[String]) -> Result<()> {
    stages.iter().try_for_each(|stage| build(workspace, target, &Guest::of(stage), &workspace.components()))
}

/// What the packages of components in front of others are called, before the name of what they can stand in front of.
const FRONT: &str = "spin-";
const FRONTS: [&str; 4] = ["fetcher", "stage", "writer", "pipeline"];

/// A component to be built.
struct Guest<'a> {
    package: &'a str,
    /// What its file is called.
    name: &'a str,
}

impl<'a> Guest<'a> {
    /// The one component of a package, under the name that a pipeline file calls it by.
    fn of(package: &'a str) -> Self {
        Self { package, name: package }
    }
}

fn build(workspace: &Workspace, target: &WasmTarget, guest: &Guest<'_>, folder: &Path) -> Result<()> {
    let Guest { package, name } = *guest;
    let mut command = workspace.cargo("rustc");
    command.args(["--package", package, "--lib", "--crate-type", "cdylib"]);
    command.args(["--profile", PROFILE, "--target", TARGET]);
    command.arg("--target-dir").arg(workspace.guest_target());
    command.args(target.cargo_args());
    command.envs(target.environment()?);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(target).join(FLAG_SEPARATOR));
    process::run(&mut command).with_context(|| format!("building the component {name}"))?;

    let built = workspace.guest_target().join(TARGET).join(PROFILE).join(built_file(package));
    let placed = folder.join(format!("{name}.wasm"));
    if place(&built, &placed)? == Placed::New {
        eprintln!("{name}: new component {}", workspace.display(&placed));
    }
    Ok(())
}

/// How eagerly functions are inlined. A call costs more here than in native code: the engine checks at the entry of each
/// function whether the time of the call is over. Decoding JSON takes an eighth less time than with the default, 225.
const INLINE_THRESHOLD: u32 = 1_000;

/// The compiler's flags: those of the target, vector instructions (WebAssembly 2.0 has them; finding the end of a text
/// is what most of a frame's decoding is), and one that keeps this machine's paths out of a component, so that the same
/// source gives the same digest on the next machine.
fn flags(target: &WasmTarget) -> Vec<String> {
    let mut flags = target.rust_flags();
    flags.push("-Ctarget-feature=+simd128".to_owned());
    flags.push(format!("-Cllvm-args=-inline-threshold={INLINE_THRESHOLD}"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|user| user.join(".cargo")));
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    flags
}

/// The file that cargo makes of a package.
fn built_file(package: &str) -> String {
    format!("{}.wasm", package.replace('-', "_"))
}

#[derive(Debug, PartialEq, Eq)]
enum Placed {
    New,
    Unchanged,
}

fn place(built: &Path, placed: &Path) -> Result<Placed> {
    let bytes = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(placed).is_ok_and(|old| old == bytes) {
        return Ok(Placed::Unchanged);
    }
    replace(placed, &bytes).with_context(|| format!("writing {}", placed.display()))?;
    Ok(Placed::New)
}

/// Writes a whole file at once: a host that runs meanwhile sees the old component or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let unfinished = path.with_extension("wasm.unfinished");
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_file_is_named_as_cargo_names_it() {
        assert_eq!(built_file("dedup"), "dedup.wasm");
        assert_eq!(built_file("spin-forever"), "spin_forever.wasm");
    }

    #[test]
    fn a_component_is_written_only_when_its_bytes_changed() {
        let folder = env::temp_dir().join(format!("xtask-place-{}", std::process::id()));
        let (built, placed) = (folder.join("built.wasm"), folder.join("test").join("placed.wasm"));
        fs::create_dir_all(&folder).unwrap();

        fs::write(&built, "one").unwrap();
        assert_eq!(place(&built, &placed).unwrap(), Placed::New);
        assert_eq!(place(&built, &placed).unwrap(), Placed::Unchanged);
        fs::write(&built, "two").unwrap();
        assert_eq!(place(&built, &placed).unwrap(), Placed::New);
        assert_eq!(fs::read(&placed).unwrap(), b"two");

        fs::remove_dir_all(&folder).unwrap();
    }
}
