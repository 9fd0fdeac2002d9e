//! The program `tapeline-aws`, which what is told `--aws STACK` is handed over to: it has AWS' clients, and this program need
//! not be built with them. Here is where it is found, how it is called, and how a component becomes what it pushes.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use clap::Args;
use serde::de::DeserializeOwned;

use super::{cdk::CdkApp, compile, exit::Exit};
use crate::{
    error::{Context as _, Error, Kind, Result},
    runtime::{Architecture, FunctionCompiler},
    trigger::http::TOKEN_VARIABLE,
};

const PROGRAM: &str = "tapeline-aws";
/// From the folder of this program as cargo builds it: where it builds that one.
const BUILT: &str = "../lambda";

/// A stack instead of a host.
#[derive(Args)]
pub(super) struct OnAws {
    /// Name of a pipeline's stack on AWS, instead of a host: tapeline-PIPELINE
    #[arg(long, value_name = "STACK", conflicts_with_all = ["path", "at"])]
    pub(super) aws: Option<String>,
}

/// The program.
#[derive(Debug)]
pub(super) struct AwsProgram {
    path: PathBuf,
}

impl AwsProgram {
    /// Finds it: beside this program, where the clone around this program or this folder builds it, or on the path.
    ///
    /// # Errors
    /// `NotFound`; says what builds it.
    pub(super) fn find() -> Result<Self> {
        let (here, program) = (env::current_dir().ok(), env::current_exe().ok());
        Self::find_around(program.as_deref(), here.as_deref(), env::var_os("PATH").as_deref())
    }

    fn find_around(program: Option<&Path>, here: Option<&Path>, search: Option<&OsStr>) -> Result<Self> {
        let beside = program.and_then(Path::parent);
        let around: Vec<PathBuf> = [program, here].into_iter().flatten().map(Path::to_owned).collect();
        let clone = CdkApp::around(&around).ok().map(|app| app.packages());
        let folders = [beside.map(Path::to_owned), beside.map(|folder| folder.join(BUILT)), clone];
        let folders: Vec<PathBuf> = folders.into_iter().flatten().collect();
        let on_path = search.map(env::split_paths).into_iter().flatten();
        let mut places = folders.iter().cloned().chain(on_path).map(|folder| folder.join(PROGRAM));
        places.find(|place| place.is_file()).map(|path| Self { path }).ok_or_else(|| {
            let folders = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
            Error::not_found(format!(
                "find the program {PROGRAM}: it is neither in {folders} nor on the path; `cargo xtask lambda` builds it"
            ))
        })
    }

    /// Where it is.
    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }

    /// Runs it. It tells by itself what it has done, or why not.
    ///
    /// # Errors
    /// When it cannot be started, or did not come to its end.
    pub(super) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(&self, line: I) -> Result<Exit> {
        let place = || format!("run {}", self.path.display());
        // The token of our host is none of its business.
        let status = Command::new(&self.path).args(line).env_remove(TOKEN_VARIABLE).status().doing(place)?;
        exit(status, place)
    }

    /// Runs it, and gives each line that it writes to `each`.
    ///
    /// # Errors
    /// When it cannot be started, did not come to its end, or writes something else; what `each` fails with.
    pub(super) fn lines<L: DeserializeOwned>(
        &self,
        line: &[String],
        mut each: impl FnMut(L) -> Result<()>,
    ) -> Result<Exit> {
        let place = || format!("run {}", self.path.display());
        let mut command = Command::new(&self.path);
        command.args(line).env_remove(TOKEN_VARIABLE).stdout(Stdio::piped());
        let mut child = command.spawn().doing(place)?;
        let written = child.stdout.take().map(BufReader::new);
        let read = written.into_iter().flat_map(BufRead::lines).try_for_each(|line| {
            let line = line.doing(place)?;
            let unfit = |error| Error::invalid(format!("{}: it writes {line:?}: {error}", place()));
            each(serde_json::from_str(&line).map_err(unfit)?)
        });
        // What it still has to write has no reader any more, so that it ends.
        let status = child.wait().doing(place)?;
        read?;
        exit(status, place)
    }

    /// Compiles a component for machines such as this one, and pushes it.
    ///
    /// # Errors
    /// When it is no component; else as [`AwsProgram::run`].
    pub(super) fn push(&self, stack: &str, stage: &str, component: &Path, why: &str) -> Result<Exit> {
        let architecture = Architecture::here()?;
        let compiled = compile::compile(&FunctionCompiler::new(architecture)?, component)?;
        let folder = tempfile::tempdir().doing(|| "make a folder for what is compiled".to_owned())?;
        let file = folder.path().join(&compiled.name);
        fs::write(&file, &compiled.bytes).doing(|| format!("write {}", file.display()))?;
        let mut line: Vec<OsString> = ["stage", "push", stack, stage, "--compiled"].map(OsString::from).into();
        line.extend([file.into(), format!("--architecture={architecture}").into(), format!("--why={why}").into()]);
        self.run(line)
    }
}

/// What its end means: it has told itself why it failed.
fn exit(status: ExitStatus, place: impl Fn() -> String) -> Result<Exit> {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) => Ok(Exit::Fine),
        Some(code) => Ok(Exit::Told(code)),
        None => Err(Error::new(Kind::Unavailable, format!("{}: {status}", place()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that stands for it: it writes down what it is told and what it is given, and ends with this code.
    fn stand_in(folder: &Path, code: u8) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(PROGRAM);
        let told = folder.join("told").display().to_string();
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{told}'\nprintf '%s\\n' \"${{{TOKEN_VARIABLE}-none}}\" >> '{told}'\n\
             for word; do test -f \"$word\" && wc -c < \"$word\" >> '{told}'; done\nexit {code}\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn told(folder: &Path) -> Vec<String> {
        fs::read_to_string(folder.join("told")).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn the_nearest_one_is_found() {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| root.path().join(path);
        fs::create_dir_all(place("clone/infra/cdk")).unwrap();
        fs::write(place("clone/infra/cdk/cdk.json"), "{}").unwrap();
        let (program, here) = (place("installed/bin/tapeline"), place("clone/pipelines"));
        let search = env::join_paths([place("empty"), place("on-path")]).unwrap();
        let find = || AwsProgram::find_around(Some(&program), Some(&here), Some(&search)).map(|found| found.path);

        let error = find().unwrap_err();
        let text = error.to_string();
        assert!(error.kind() == Kind::NotFound && text.contains("`cargo xtask lambda` builds it"), "{text}");
        assert!(text.contains("installed/bin, ") && text.contains("clone/target/lambda nor on the path"), "{text}");
        // From the last place to the first.
        for folder in ["on-path", "clone/target/lambda", "installed/lambda", "installed/bin"] {
            let made = stand_in(&place(folder), 0);
            fs::create_dir_all(place("installed/bin")).unwrap();
            assert_eq!(find().unwrap().canonicalize().unwrap(), made.canonicalize().unwrap());
        }
    }

    #[test]
    fn what_it_ends_with_is_what_this_program_ends_with() {
        let folder = tempfile::tempdir().unwrap();
        for (code, exit) in [(0, Exit::Fine), (1, Exit::Told(1)), (2, Exit::Told(2))] {
            let program = AwsProgram { path: stand_in(folder.path(), code) };
            assert_eq!(program.run(["stage", "list", "a stack"]).unwrap(), exit);
            assert_eq!(told(folder.path()), ["stage", "list", "a stack", "none"]);
        }
        let error = AwsProgram { path: folder.path().join("gone") }.run(["redrive"]).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }

    #[test]
    fn what_is_pushed_is_compiled_for_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let program = AwsProgram { path: stand_in(folder.path(), 0) };
        let component = folder.path().join("nothing.wasm");
        // The header of a component with nothing in it.
        fs::write(&component, b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(program.push("s", "alarm", &component, "ticket 17").unwrap(), Exit::Fine);
        let told = told(folder.path());
        let [stage, push, stack, name, compiled, file, architecture, why, token, bytes] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!([stage, push, stack, name, compiled], ["stage", "push", "s", "alarm", "--compiled"]);
        let here = Architecture::here().unwrap();
        assert_eq!((architecture, why), (&format!("--architecture={here}"), &"--why=ticket 17".to_owned()));
        let expected = FunctionCompiler::new(here).unwrap().compile(&fs::read(&component).unwrap()).unwrap();
        assert!(file.ends_with(&format!("/{}", expected.name)), "{file}");
        assert_eq!((token.as_str(), bytes), ("none", &expected.bytes.len().to_string()));
        assert!(!Path::new(file).exists(), "it is only there for as long as it is needed");

        fs::write(&component, "no component").unwrap();
        let error = program.push("s", "alarm", &component, "").unwrap_err();
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("nothing.wasm"), "{error}");
    }
}
