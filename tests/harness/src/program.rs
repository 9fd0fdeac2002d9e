//! The program `tapeline` as a user runs it, and what it leaves behind.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// Rows as a query gives them: column to text.
pub type Rows = Vec<BTreeMap<String, String>>;

/// What a run said.
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Its summary, as JSON.
    pub summary: serde_json::Value,
    /// What it wrote to standard error.
    pub errors: String,
}

/// Starts a process whose output nobody reads.
pub trait SpawnQuietly {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    fn spawn_quietly(&mut self) -> io::Result<Child>;
}

impl SpawnQuietly for Command {
    fn spawn_quietly(&mut self) -> io::Result<Child> {
        self.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }
}

/// The program, which lies two folders above the test that is running, or, where that is built in another way, is what
/// users run.
///
/// # Panics
/// When it has not been built; says how to.
pub fn path() -> PathBuf {
    let places = ["tapeline", "../release/tapeline"].map(|place| target().join(place));
    let [path, _] = &places;
    let path = places.iter().find(|path| path.exists()).unwrap_or(path).clone();
    assert!(path.exists(), "{} is missing: `cargo xtask build` makes it", path.display());
    path
}

/// The folder of built components.
///
/// # Panics
/// When they have not been built; says how to.
pub fn components() -> PathBuf {
    let folder = target().join("../components");
    assert!(folder.join("fetch.wasm").exists(), "{} is missing: `cargo xtask build` makes it", folder.display());
    folder
}

fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().expect("a program lies in a folder");
    if folder.ends_with("deps") { folder.parent().unwrap_or(folder).to_owned() } else { folder.to_owned() }
}

/// The pipeline of the main job.
pub fn bitcoin_pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/bitcoin-trades.toml")
}

/// The pipeline of the main job with one text replaced, in a folder.
///
/// # Errors
/// When the text is not there.
pub fn edited_pipeline(folder: &Path, from: &str, to: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(bitcoin_pipeline())?;
    ensure!(text.contains(from), "{from:?} is not in the pipeline file");
    let path = folder.join("pipeline.toml");
    fs::write(&path, text.replace(from, to))?;
    Ok(path)
}

/// The arguments of `tapeline run`.
pub fn run_arguments(pipeline: &Path, inputs: &[&Path], data: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["run".into(), pipeline.into(), "--data".into(), data.into()];
    arguments.extend(["--components".into(), components().into(), "--summary".into(), "json".into()]);
    for input in inputs {
        arguments.extend(["--input".into(), (*input).into()]);
    }
    arguments
}

/// Runs files through a pipeline.
///
/// # Errors
/// When the program cannot be started.
pub fn run(pipeline: &Path, inputs: &[&Path], data: &Path) -> Result<Run> {
    run_with(&run_arguments(pipeline, inputs, data))
}

/// Runs the program with the arguments of a run.
///
/// # Errors
/// When the program cannot be started.
pub fn run_with(arguments: &[OsString]) -> Result<Run> {
    let output = Command::new(path()).args(arguments).stdin(Stdio::null()).output()?;
    let summary = serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Run { code: output.status.code().unwrap_or(-1), summary, errors })
}

/// Runs the program and gives its standard output.
///
/// # Errors
/// When it does not exit with 0; says what it wrote.
pub fn output(arguments: &[&str]) -> Result<String> {
    let output = Command::new(path()).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{arguments:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// All rows of a table, by `tapeline query`.
///
/// # Errors
/// When the query fails.
pub fn query(data: &Path, arguments: &[&str]) -> Result<Rows> {
    let data = data.to_str().context("a temporary folder has a name")?;
    let text = output(&[&["query"], arguments, &["--data", data, "--format", "json"]].concat())?;
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(&text)?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(rows.into_iter().map(|row| row.into_iter().map(|(name, value)| (name, text(value))).collect()).collect())
}

/// The four tables as text, by name.
///
/// # Errors
/// When a query fails.
pub fn tables(data: &Path) -> Result<BTreeMap<String, String>> {
    let folder = data.to_str().context("a temporary folder has a name")?;
    let read = |table: &str| Ok((table.to_owned(), output(&["query", table, "--data", folder, "--format", "csv"])?));
    ["trades", "bars", "averages", "alarms"].into_iter().map(read).collect()
}

/// The objects, by path.
///
/// # Errors
/// When they cannot be read.
pub fn objects(data: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let root = data.join("objects");
    let mut objects = BTreeMap::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
                objects.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(objects)
}

/// Empties a data folder.
///
/// # Errors
/// When it cannot be emptied.
pub fn clear(data: &Path) -> Result<()> {
    fs::remove_dir_all(data)?;
    Ok(fs::create_dir_all(data)?)
}

/// Whether the ledger balances, for every stage, symbol and day.
///
/// # Errors
/// When it does not; says where.
pub fn check_ledger(data: &Path) -> Result<()> {
    let folder = data.to_str().context("a temporary folder has a name")?;
    output(&["ledger", "--data", folder]).map(drop)
}
