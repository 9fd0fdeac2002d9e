//! Cases as they are stored: a folder with `case.toml`, the bodies to send and the bodies to expect.
//!
//! ```toml
//! about = "What must hold."
//! stage = "dedup"
//! http = true                      # it is about HTTP itself; default: false
//!
//! [settings]                       # of the stage; default: those of pipelines/bitcoin-trades.toml
//! keep = "1m"
//!
//! [[calls]]                        # one after the other
//! method = "PUT"                   # default: POST
//! query = "session={run}"          # {run} is another word in each run; default: none
//! content_type = "text/plain"      # default: application/x-ndjson
//! content_encoding = "gzip"        # default: none
//! input = "input.ndjson"
//! input_repeat = 1000              # how often the input makes the body; default: 1
//! status = 400                     # default: 200
//! output = "output.ndjson"         # all bytes of the answer; of a problem document without the line's end
//! counts = { in = 2, out = 1, duplicate = 1 }   # where the status is 200; what is left out is 0
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Counts, NDJSON};
use crate::program;

/// Stands for a word that no other run has.
const RUN: &str = "{run}";
const OK: u16 = 200;

/// What must hold for one stage.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of its folder.
    pub name: String,
    /// What must hold, for people.
    pub about: String,
    /// The stage that is called.
    pub stage: String,
    /// Settings of the stage; absent for those of the pipeline of the main job.
    pub settings: Option<Table>,
    /// Whether it is about HTTP itself: methods, content types, sizes, routes.
    pub http: bool,
    /// Calls, one after the other.
    pub calls: Vec<Call>,
}

/// One call of a stage.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method of HTTP.
    pub method: String,
    /// What comes behind the question mark; empty for nothing. Letters, digits, `-`, `_`, `.`, `~`, `=` and `&` alone.
    pub query: String,
    /// What the body is said to be.
    pub content_type: String,
    /// How the body is said to be encoded.
    pub content_encoding: Option<String>,
    input: Vec<u8>,
    input_repeat: usize,
    /// What must be answered.
    pub expected: Expected,
}

/// What a call must answer.
#[derive(Clone, Debug)]
pub struct Expected {
    /// As in HTTP.
    pub status: u16,
    /// What became of the events; absent when something was wrong.
    pub counts: Option<Counts>,
    /// Name of the file that the body is from.
    pub file: String,
    /// All bytes.
    pub body: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    about: String,
    stage: String,
    #[serde(default)]
    http: bool,
    settings: Option<Table>,
    calls: Vec<RawCall>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCall {
    method: Option<String>,
    query: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    input: String,
    input_repeat: Option<usize>,
    status: Option<u16>,
    output: String,
    counts: Option<Counts>,
}

impl Case {
    /// All cases, by name.
    ///
    /// # Errors
    /// When one cannot be read; says which, and what is wrong with it.
    pub fn load_all() -> Result<Vec<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance");
        let entries = fs::read_dir(&root).with_context(|| format!("read {}", root.display()))?;
        let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let mut folders: Vec<PathBuf> = paths.into_iter().filter(|path| path.is_dir()).collect();
        folders.sort();
        ensure!(!folders.is_empty(), "there are no cases in {}", root.display());
        folders.iter().map(|folder| Self::load(folder)).collect()
    }

    /// The case of a folder.
    ///
    /// # Errors
    /// When it cannot be read, or has a file that no call uses.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::read(folder).with_context(|| format!("read case {}", folder.display()))
    }

    /// The settings of its stage, a JSON object.
    ///
    /// # Errors
    /// When it has none, and the pipeline of the main job has no such stage.
    pub fn settings_json(&self) -> Result<String> {
        let settings = match &self.settings {
            Some(settings) => settings.clone(),
            None => pipeline_settings()?.remove(&self.stage).with_context(|| format!("no stage {:?}", self.stage))?,
        };
        Ok(serde_json::to_string(&settings)?)
    }

    /// The pipeline of the main job with the settings of this case, as TOML.
    ///
    /// # Errors
    /// When it has settings, and the pipeline of the main job has no such stage.
    pub fn pipeline(&self) -> Result<String> {
        let mut pipeline = main_pipeline()?;
        if let Some(settings) = &self.settings {
            let stages = pipeline.get_mut("stages").and_then(Value::as_array_mut).context("stages of the pipeline")?;
            let mut tables = stages.iter_mut().filter_map(Value::as_table_mut);
            let stage = tables.find(|stage| stage_name(stage) == Some(&self.stage));
            let stage = stage.with_context(|| format!("no stage {:?} in the pipeline", self.stage))?;
            stage.insert("settings".to_owned(), Value::Table(settings.clone()));
        }
        Ok(toml::to_string(&pipeline)?)
    }

    fn read(folder: &Path) -> Result<Self> {
        let text = fs::read_to_string(folder.join("case.toml")).context("case.toml")?;
        let raw: RawCase = toml::from_str(&text).context("case.toml")?;
        ensure!(!raw.calls.is_empty(), "case.toml: it has no calls");
        check_files(folder, &raw.calls)?;
        let calls = raw.calls.into_iter().enumerate();
        let calls = calls.map(|(at, call)| call.read(folder).with_context(|| format!("call {}", at + 1)));
        Ok(Self {
            name: folder.file_name().context("a folder has a name")?.to_string_lossy().into_owned(),
            about: raw.about,
            stage: raw.stage,
            settings: raw.settings,
            http: raw.http,
            calls: calls.collect::<Result<_>>()?,
        })
    }
}

impl Call {
    /// What is sent.
    pub fn body(&self) -> Vec<u8> {
        self.input.repeat(self.input_repeat)
    }

    /// The parameters of the query, in its order.
    ///
    /// # Errors
    /// When one has no value.
    pub fn parameters(&self) -> Result<Vec<(&str, &str)>> {
        let parts = self.query.split('&').filter(|part| !part.is_empty());
        parts.map(|part| part.split_once('=').with_context(|| format!("no value in {part:?}"))).collect()
    }

    /// The same call in the run of this name.
    pub(super) fn of_run(&self, run: &str) -> Self {
        Self { query: self.query.replace(RUN, run), ..self.clone() }
    }
}

impl RawCall {
    fn read(self, folder: &Path) -> Result<Call> {
        let query = self.query.unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~=&".contains(&byte);
        ensure!(query.replace(RUN, "").bytes().all(is_plain), "query {query:?} has letters that must be encoded");
        let status = self.status.unwrap_or(OK);
        match &self.counts {
            None => ensure!(status != OK, "an answer with status {OK} has counts"),
            Some(counts) => {
                ensure!(status == OK, "an answer with status {status} has no counts");
                ensure!(counts.balances(), "the counts do not add up: {counts}");
            }
        }
        let mut body = read_file(folder, &self.output)?;
        if status != OK && body.pop() != Some(b'\n') {
            bail!("{}: its last line has no end", self.output);
        }
        Ok(Call {
            method: self.method.unwrap_or_else(|| "POST".to_owned()),
            query,
            content_type: self.content_type.unwrap_or_else(|| NDJSON.to_owned()),
            content_encoding: self.content_encoding,
            input: read_file(folder, &self.input)?,
            input_repeat: self.input_repeat.unwrap_or(1),
            expected: Expected { status, counts: self.counts, file: self.output, body },
        })
    }
}

/// The settings of each stage in the pipeline of the main job, by name.
///
/// # Errors
/// When the pipeline file cannot be read.
pub fn pipeline_settings() -> Result<BTreeMap<String, Table>> {
    let pipeline = main_pipeline()?;
    let stages = pipeline.get("stages").and_then(Value::as_array).context("stages of the pipeline")?;
    let settings = |stage: &Table| {
        let settings = stage.get("settings").and_then(Value::as_table).cloned().unwrap_or_default();
        Some((stage_name(stage)?.to_owned(), settings))
    };
    Ok(stages.iter().filter_map(Value::as_table).filter_map(settings).collect())
}

fn main_pipeline() -> Result<Table> {
    let path = program::bitcoin_pipeline();
    let read = || anyhow::Ok(toml::from_str(&fs::read_to_string(&path)?)?);
    read().with_context(|| format!("read {}", path.display()))
}

fn stage_name(stage: &Table) -> Option<&str> {
    stage.get("name").and_then(Value::as_str)
}

/// Whether the folder has no files but those of its calls.
fn check_files(folder: &Path, calls: &[RawCall]) -> Result<()> {
    let used = calls.iter().flat_map(|call| [call.input.as_str(), call.output.as_str()]);
    let used: BTreeSet<&str> = used.chain(["case.toml"]).collect();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        ensure!(used.contains(&*name.to_string_lossy()), "no call uses {}", name.display());
    }
    Ok(())
}

fn read_file(folder: &Path, name: &str) -> Result<Vec<u8>> {
    fs::read(folder.join(name)).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(case: &str, files: &[(&str, &str)]) -> Result<Case, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("case.toml", case)].iter().chain(files) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Case::load(folder.path()).map_err(|error| format!("{error:#}"))
    }

    const HEAD: &str = "about = 'a'\nstage = 'dedup'\n[[calls]]\ninput = 'in'\noutput = 'out'\n";

    #[test]
    fn all_cases_can_be_read() {
        let cases = Case::load_all().unwrap();
        assert!(cases.len() >= 30);
        cases.iter().for_each(|case| assert!(case.pipeline().unwrap().contains("fetch"), "{}", case.name));
    }

    #[test]
    fn what_is_wrong_with_a_case_is_named() {
        let files = [("in", "x"), ("out", "y\n")];
        let good = load(&format!("{HEAD}counts = {{ in = 1, out = 1 }}\ninput_repeat = 3\n"), &files).unwrap();
        assert_eq!((good.calls[0].body(), good.calls[0].expected.body.as_slice()), (b"xxx".to_vec(), &b"y\n"[..]));
        assert!(good.settings_json().unwrap().contains("\"policy\":\"id\""));
        for (more, says) in [
            ("", "status 200 has counts"),
            ("counts = { in = 2, out = 1 }", "do not add up: in 2, out 1"),
            ("status = 400\ncounts = { in = 1, out = 1 }", "status 400 has no counts"),
            ("counts = { inn = 2 }", "unknown field `inn`"),
            ("status = 400\nquery = 'a b'", "must be encoded"),
        ] {
            let error = load(&format!("{HEAD}{more}\n"), &files).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let bad = format!("{HEAD}status = 400\n");
        assert!(load(&bad, &files[..1]).unwrap_err().contains("out"));
        assert!(load(&bad, &[files[0], ("out", "y")]).unwrap_err().contains("no end"));
        assert!(load(&bad, &[files[0], files[1], ("old", "")]).unwrap_err().contains("no call uses old"));
    }
}
