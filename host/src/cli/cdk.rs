//! The CDK app of the clone, which `deploy` and `destroy` hand over to: where it is, its packages, its command lines.

use std::{
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{self, Path, PathBuf},
    process::Command,
};

use clap::Args;

use super::exit::Exit;
use crate::{
    error::{Context as _, Error, Kind, Result},
    pipeline::spec::Pipeline,
    trigger::http::TOKEN_VARIABLE,
};

/// The app's folder in a clone, and the file that makes it one.
const APP: &str = "infra/cdk";
const APP_FILE: &str = "cdk.json";
/// In the app's folder: what npm has installed, and when.
const INSTALLED: &str = "node_modules/.package-lock.json";
/// In the app's folder: what is to be installed.
const LOCK: &str = "package-lock.json";

/// The oldest Node.js that the CDK runs on.
const NODE_MAJOR_MIN: u32 = 20;
const NODE: &str = "Node.js 20 or later";
const NODE_PLACE: &str = "https://nodejs.org/en/download has it";

/// What both commands are told.
#[derive(Args)]
pub(super) struct CdkArgs {
    /// The pipeline file [default: the CDK app's, bitcoin-trades]
    pub(super) pipeline: Option<PathBuf>,
    /// Folder of the CDK app [default: infra/cdk of the clone around this folder, the pipeline file or the program]
    #[arg(long = "cdk", value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What the CDK is told besides; paths count from the folder of the CDK app
    #[arg(last = true, value_name = "ARGUMENTS")]
    more: Vec<OsString>,
}

impl CdkArgs {
    /// The app, for a pipeline file that is valid as far as can be told without its components.
    ///
    /// # Errors
    /// As [`Pipeline::load`]; `NotFound` when there is no app.
    pub(super) fn find(&self) -> Result<CdkApp> {
        if let Some(pipeline) = &self.pipeline {
            Pipeline::load(pipeline)?;
        }
        match &self.folder {
            Some(folder) => CdkApp::of(folder),
            None => CdkApp::around(&self.places()),
        }
    }

    /// Whether the stack has functions, as far as is said here: the app has the last word.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub(super) fn has_functions(&self) -> Result<bool> {
        if let Some(told) = self.more.iter().rev().find_map(|told| told.to_str()?.strip_prefix("functions=")) {
            return Ok(told != "false");
        }
        let Some(pipeline) = &self.pipeline else { return Ok(true) };
        let told = Pipeline::load(pipeline)?.aws.get("functions").and_then(toml::Value::as_bool);
        Ok(told != Some(false))
    }

    /// What `cdk` is told: a command of it, where the files are, and what it is told besides.
    ///
    /// # Errors
    /// When the current folder is not there.
    pub(super) fn line(&self, command: &str, package: Option<&Path>) -> Result<Vec<OsString>> {
        let mut line = self.line_without_more(command, package)?;
        line.extend(self.more.iter().cloned());
        Ok(line)
    }

    /// [`CdkArgs::line`] without what is only for the command that was asked for.
    ///
    /// # Errors
    /// As [`CdkArgs::line`].
    pub(super) fn line_without_more(&self, command: &str, package: Option<&Path>) -> Result<Vec<OsString>> {
        let mut line = vec![OsString::from(command)];
        for (key, path) in [("pipeline", self.pipeline.as_deref()), ("package", package)] {
            let Some(path) = path else { continue };
            // The app looks for files from its own folder.
            let path = path::absolute(path).doing(|| format!("find {}", path.display()))?;
            let mut context = OsString::from(format!("{key}="));
            context.push(path);
            line.extend(["-c".into(), context]);
        }
        Ok(line)
    }

    /// Where a clone may be around.
    fn places(&self) -> Vec<PathBuf> {
        let pipeline = self.pipeline.as_deref().and_then(|path| path::absolute(path).ok());
        let places = [std::env::current_dir().ok(), pipeline, std::env::current_exe().ok()];
        places.into_iter().flatten().collect()
    }
}

/// A CDK app.
#[derive(Debug)]
pub(super) struct CdkApp {
    folder: PathBuf,
}

impl CdkApp {
    fn of(folder: &Path) -> Result<Self> {
        let folder = fs::canonicalize(folder).doing(|| format!("find the CDK app {}", folder.display()))?;
        if !folder.join(APP_FILE).is_file() {
            return Err(Error::not_found(format!("find a CDK app in {}: it has no {APP_FILE}", folder.display())));
        }
        Ok(Self { folder })
    }

    /// The app of the clone around one of these places.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn around(places: &[PathBuf]) -> Result<Self> {
        let mut folders = places.iter().flat_map(|place| place.ancestors()).map(|above| above.join(APP));
        let folder = folders.find(|folder| folder.join(APP_FILE).is_file());
        folder.map(|folder| Self { folder }).ok_or_else(|| {
            let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            Error::not_found(format!(
                "find {APP} above any of {}: it comes with the source of Tapeline; --cdk says where it is",
                places.join(", ")
            ))
        })
    }

    /// The folder in which the packages of the functions are built, one for each architecture.
    pub(super) fn packages(&self) -> PathBuf {
        self.folder.ancestors().nth(2).unwrap_or(&self.folder).join("target/lambda")
    }

    /// What stands for a package where nothing of it is used.
    pub(super) fn stand_in_package(&self) -> PathBuf {
        self.folder.join("test/package")
    }

    /// Sees to it that `cdk` can be run.
    ///
    /// # Errors
    /// `NotFound` or `Invalid` for Node.js; `Unavailable` when packages cannot be had.
    pub(super) fn set_up(&self) -> Result<()> {
        let version = self.command("node").arg("--version").output().map_err(|error| not_started("node", error))?;
        check_node(String::from_utf8_lossy(&version.stdout).trim())?;
        if self.is_installed() {
            return Ok(());
        }
        let folder = self.folder.display();
        eprintln!("installing the packages of {folder}: 400 MB, nearly all of it the CDK");
        let mut install = self.command("npm");
        let install = install.args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
        let status = install.status().map_err(|error| not_started("npm", error))?;
        if !status.success() {
            let message = format!("install the packages of {folder}: `npm ci` ended with {status}");
            return Err(Error::new(Kind::Unavailable, message));
        }
        Ok(())
    }

    /// Runs `cdk`, which asks and tells by itself.
    ///
    /// # Errors
    /// When it cannot be started. What it fails with it has told.
    pub(super) fn run(&self, line: &[OsString]) -> Result<Exit> {
        let status = self.command("npx").arg("cdk").args(line).status().map_err(|error| not_started("npx", error))?;
        Ok(if status.success() { Exit::Fine } else { Exit::Failed })
    }

    /// Whether npm has installed what the lock file says. It notes each time when it did.
    fn is_installed(&self) -> bool {
        let time = |file: &str| fs::metadata(self.folder.join(file)).and_then(|found| found.modified()).ok();
        time(INSTALLED).is_some_and(|installed| time(LOCK).is_none_or(|lock| lock <= installed))
    }

    /// A program of Node.js in the app's folder; the token of our host is none of its business.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).env_remove(TOKEN_VARIABLE);
        command
    }
}

fn not_started(program: &str, error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        let of_node = if program == "node" { "" } else { " with npm" };
        return Error::not_found(format!("find {program} on the path: {NODE}{of_node} is needed; {NODE_PLACE}"));
    }
    Error::caused(Kind::Unavailable, format!("start {program}"), error)
}

/// Takes `v20.20.2`.
fn check_node(version: &str) -> Result<()> {
    let major = version.strip_prefix('v').and_then(|text| text.split('.').next()?.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR_MIN) {
        return Err(Error::invalid(format!("use node {version:?} of the path: {NODE} is needed; {NODE_PLACE}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A clone in miniature, with an app.
    fn clone() -> tempfile::TempDir {
        let clone = tempfile::TempDir::new().unwrap();
        fs::create_dir_all(clone.path().join("infra/cdk/node_modules")).unwrap();
        fs::create_dir_all(clone.path().join("pipelines/mine")).unwrap();
        fs::write(clone.path().join("infra/cdk/cdk.json"), "{}").unwrap();
        clone
    }

    fn arguments(pipeline: Option<&str>, more: &[&str]) -> CdkArgs {
        let more = more.iter().map(OsString::from).collect();
        CdkArgs { pipeline: pipeline.map(PathBuf::from), folder: None, more }
    }

    #[test]
    fn the_app_is_found_around_any_of_the_places() {
        let clone = clone();
        let places = [PathBuf::from("/nowhere/at/all"), clone.path().join("pipelines/mine/x.toml")];
        assert_eq!(CdkApp::around(&places).unwrap().folder, clone.path().join("infra/cdk"));
        let error = CdkApp::around(&places[..1]).unwrap_err();
        assert!(error.kind() == Kind::NotFound && error.to_string().contains("/nowhere/at/all"), "{error}");
        assert!(error.to_string().contains("--cdk"), "{error}");
        assert_eq!(CdkApp::of(clone.path()).unwrap_err().kind(), Kind::NotFound);
        let app = CdkApp::of(&clone.path().join("pipelines/../infra/cdk")).unwrap();
        assert_eq!(app.packages(), fs::canonicalize(clone.path()).unwrap().join("target/lambda"));
    }

    #[test]
    fn a_line_has_the_files_from_here_and_what_else_is_told() {
        let here = std::env::current_dir().unwrap();
        let line = arguments(Some("x.toml"), &["--require-approval", "never"]);
        let line = line.line("deploy", Some(Path::new("/built"))).unwrap();
        let pipeline = format!("pipeline={}", here.join("x.toml").display());
        assert_eq!(line, ["deploy", "-c", &pipeline, "-c", "package=/built", "--require-approval", "never"]);
        let line = arguments(None, &["--force"]);
        assert_eq!(line.line("destroy", None).unwrap(), ["destroy", "--force"]);
        assert_eq!(line.line_without_more("bootstrap", None).unwrap(), ["bootstrap"]);
    }

    #[test]
    fn a_stack_may_be_without_functions() {
        let folder = tempfile::TempDir::new().unwrap();
        let pipeline = folder.path().join("x.toml");
        let has = |aws: &str, more: &[&str]| {
            let stages = "[[stages]]\nname = \"fetch\"\n[[stages]]\nname = \"write\"";
            fs::write(&pipeline, format!("name = \"x\"\n[aws]\n{aws}\n{stages}")).unwrap();
            arguments(pipeline.to_str(), more).has_functions().unwrap()
        };
        assert!(has("", &[]) && has("functions = true", &[]) && !has("functions = false", &[]));
        assert!(!has("", &["-c", "functions=false"]) && has("functions = false", &["-c", "functions=true"]));
        assert!(arguments(None, &[]).has_functions().unwrap());
    }

    #[test]
    fn node_must_be_new_enough() {
        assert!(check_node("v20.20.2").is_ok() && check_node("v24.0.0").is_ok());
        for version in ["v18.19.1", "", "20.1.0", "vx"] {
            let error = check_node(version).unwrap_err();
            assert!(error.to_string().contains("Node.js 20 or later is needed; https://nodejs.org"), "{error}");
        }
        let error = not_started("npx", ErrorKind::NotFound.into());
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("find npx on the path: Node.js 20 or later with npm is needed"), "{error}");
    }

    #[test]
    fn packages_are_those_of_the_lock_file() {
        let clone = clone();
        let app = CdkApp::of(&clone.path().join(APP)).unwrap();
        let write = |file: &str, seconds: u64| {
            let file = fs::File::create(app.folder.join(file)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        write(LOCK, 2);
        assert!(!app.is_installed());
        write(INSTALLED, 1);
        assert!(!app.is_installed());
        write(INSTALLED, 2);
        assert!(app.is_installed());
    }
}
