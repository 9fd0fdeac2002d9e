//! `tapeline stage new`: the beginning of a stage, which builds and passes its tests.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{exit::Exit, output};
use crate::error::{Context as _, Error, Result};

/// The files of a stage. They are a stage themselves, named `my-stage`.
const TEMPLATES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("stage_new/Cargo.toml")),
    ("README.md", include_str!("stage_new/README.md")),
    ("src/lib.rs", include_str!("stage_new/src/lib.rs")),
];
const TEMPLATE_NAME: &str = "my-stage";
const TEMPLATE_TYPE: &str = "MyStage";

/// Letters of a name: it is in subjects, metrics and paths.
const NAME_LENGTH_MAX: usize = 60;

/// What cargo does not take as the name of a package: keywords of Rust, and what it has itself.
const RESERVED: &str = "abstract alloc as async await become box break build const continue core crate deps do dyn else \
    enum examples extern false final fn for gen if impl in incremental let loop macro match mod move mut override priv \
    proc-macro pub ref return self static std struct super test trait true try type typeof unsafe unsized use virtual \
    where while yield";
/// Types that the template has beside that of the stage.
const USED_TYPES: [&str; 10] =
    ["Event", "Events", "Fate", "Kind", "Kinds", "Saved", "SettingError", "Settings", "Stage", "SymbolState"];

/// Make a stage of your own, in a clone of Tapeline
#[derive(Args)]
#[command(after_help = "\
Makes the folder functions/NAME: a page of Rust with tests, to be changed into what you need. Run it anywhere inside of a
clone of Tapeline's repository; functions/README.md says how to go on.

Examples:
  tapeline stage new my-stage && cargo test -p my-stage && cargo xtask build my-stage")]
pub(super) struct New {
    /// Name of the stage: of a-z, 0-9 and -, beginning with a letter, at most 60
    name: String,
}

impl New {
    pub(super) fn run(self) -> Result<Exit> {
        let here = std::env::current_dir().doing(|| "find the current folder".to_owned())?;
        let functions = find_functions(&here)?;
        let folder = functions.join(&self.name);
        create(&self.name, &folder)?;
        let name = &self.name;
        let mut out = output::lock();
        writeln!(out, "made {}", folder.display())?;
        writeln!(out, "\n  cargo test -p {name}           # its tests")?;
        writeln!(out, "  cargo xtask build {name}       # target/components/{name}.wasm")?;
        writeln!(out, "\n{} says how to go on", functions.join("README.md").display())?;
        out.flush()?;
        Ok(Exit::Fine)
    }
}

/// Makes a stage of this name in a folder that is not there yet, beside the other stages of a clone.
pub(super) fn create(name: &str, folder: &Path) -> Result<()> {
    check_name(name)?;
    check_free(name, folder)?;
    // Built beside, and put in place as a whole: half a package would keep cargo from building anything.
    let unfinished = folder.with_file_name(format!(".{name}.unfinished"));
    let made = write_files(name, &unfinished).and_then(|()| fs::rename(&unfinished, folder));
    if made.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    made.doing(|| format!("make {}", folder.display()))
}

/// The folder of stages of the clone around a folder.
fn find_functions(here: &Path) -> Result<PathBuf> {
    let around = here.ancestors().map(|folder| folder.join("functions"));
    around.into_iter().find(|functions| functions.join("sdk/Cargo.toml").is_file()).ok_or_else(|| {
        Error::not_found(format!(
            "{} is not inside of a clone of Tapeline: no folder above it has functions/sdk",
            here.display()
        ))
    })
}

fn check_name(name: &str) -> Result<()> {
    let is_right = (1..=NAME_LENGTH_MAX).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && !name.ends_with('-');
    if !is_right {
        return Err(Error::invalid(format!(
            "{name:?} cannot be the name of a stage: it must be 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and -, begin with a \
             letter and not end with -"
        )));
    }
    if RESERVED.split_ascii_whitespace().any(|word| word == name) {
        return Err(Error::invalid(format!("{name:?} cannot be the name of a stage: Rust uses it for something else")));
    }
    Ok(())
}

/// A name is taken by a folder, or by any package of the lock file: `cargo test -p NAME` must mean the stage.
fn check_free(name: &str, folder: &Path) -> Result<()> {
    if folder.exists() {
        return Err(Error::invalid(format!("{} is there already: take another name", folder.display())));
    }
    let lock = folder.parent().and_then(Path::parent).map(|root| root.join("Cargo.lock"));
    let packages = lock.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    if packages.lines().any(|line| line == format!("name = \"{name}\"")) {
        return Err(Error::invalid(format!("{name:?} is the name of a package in Cargo.lock: take another name")));
    }
    Ok(())
}

fn write_files(name: &str, folder: &Path) -> std::io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (path, text) in TEMPLATES {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text.replace(TEMPLATE_NAME, name).replace(TEMPLATE_TYPE, &type_name(name)))?;
    }
    Ok(())
}

/// The name of the type: `large-trades` is `LargeTrades`.
fn type_name(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let named: String = name.split('-').filter(|part| !part.is_empty()).map(word).collect();
    let is_used = USED_TYPES.contains(&named.as_str());
    if is_used { named + "Stage" } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    /// A clone in miniature.
    fn clone() -> tempfile::TempDir {
        let clone = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(clone.path().join("functions/sdk/src")).unwrap();
        fs::write(clone.path().join("functions/sdk/Cargo.toml"), "").unwrap();
        fs::write(clone.path().join("Cargo.lock"), "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n").unwrap();
        clone
    }

    #[test]
    fn a_stage_is_made_under_its_name() {
        let clone = clone();
        let functions = find_functions(&clone.path().join("functions/sdk/src")).unwrap();
        let folder = functions.join("large-trades");
        create("large-trades", &folder).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert!(read("Cargo.toml").contains("name = \"large-trades\""));
        assert!(read("src/lib.rs").contains("export_stage!(LargeTrades)"));
        assert!(read("README.md").starts_with("# large-trades\n"));
        for (file, _) in TEMPLATES {
            assert!(!read(file).contains(TEMPLATE_NAME) && !read(file).contains(TEMPLATE_TYPE), "{file}");
        }
        let made: Vec<_> = fs::read_dir(&functions).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(made.len(), 2, "{made:?}");
        assert_eq!(create("large-trades", &folder).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_name_that_cannot_be_used_is_refused() {
        let clone = clone();
        let long = "x".repeat(NAME_LENGTH_MAX + 1);
        for name in ["", "Large", "a_b", "-a", "a-", "7up", "../up", "a/b", "match", "test", "serde", "sdk", &long] {
            let folder = clone.path().join("functions").join(name);
            assert_eq!(create(name, &folder).unwrap_err().kind(), Kind::Invalid, "{name}");
        }
    }

    #[test]
    fn it_says_when_there_is_no_clone() {
        let elsewhere = tempfile::TempDir::new().unwrap();
        let error = find_functions(elsewhere.path()).unwrap_err();
        assert!(error.kind() == Kind::NotFound && error.to_string().contains("functions/sdk"), "{error}");
    }

    #[test]
    fn a_type_is_named_by_the_words_of_the_name() {
        let names = ["dedup", "large-trades", "a--1", "events"].map(type_name);
        assert_eq!(names, ["Dedup", "LargeTrades", "A1", "EventsStage"]);
    }
}
