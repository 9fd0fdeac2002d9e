//! The pipeline file: which stages, with which settings and limits, fed by what.
//!
//! A file is read as it is written (`raw`), then resolved into a [`Pipeline`] that needs no more checks. Errors name
//! file, line, key, value and what would be right. What a component makes of its settings, and whether the first one is a
//! fetcher and the last one a writer, is not known here.

mod components;
mod document;
mod nats;
mod raw;
mod swap;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use components::find_component;
use document::Document;
use raw::{Raw, RawCommit, RawSource, RawSpan, RawStage, RawWatermark, SourceType};
use tapeline_events::Span;

use crate::{
    connector::SimulatorSettings,
    error::{Error, Result},
    runtime::{CompileLimits, Limits, setting_text},
    segment::WATERMARK_STAGE,
};

/// Stages that a pipeline can have. Each is an instance with its own memory; nobody reads a longer chain.
const STAGES_MAX: usize = 32;
/// Letters of a name: it becomes part of file names and of subjects.
const NAME_BYTES_MAX: usize = 60;
/// Longest duration: whoever wants more has mistaken a unit. Times and durations can be added without a care.
const SPAN_MAX: Span = Span(366 * 86_400_000_000_000);
/// Time limits are kept in steps of ten milliseconds.
const TIME_PER_BATCH_MIN: Span = Span(10_000_000);
/// All that a commit writes is in memory until then: some hundred bytes an event.
const COMMIT_RECORDS_MAX: u64 = 1_000_000;
/// What a 32-bit component can address.
const MEMORY_MIB_MAX: u64 = 4096;
/// What the simulator speaks.
const SIMULATOR_FORMAT: &str = "binance";

/// A pipeline, valid as far as can be told without its components.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// One word: `[a-z0-9-]{1,60}`.
    pub name: String,
    /// How to read files and the source: a format that the first stage knows.
    pub format: String,
    /// What `up` reads besides HTTP.
    pub source: Source,
    /// How event time advances.
    pub watermark: Watermark,
    /// When to commit.
    pub commit: CommitRule,
    /// How it is chained by NATS, when it is.
    pub nats: Nats,
    /// How other versions of its stages are brought in.
    pub swap: Swap,
    /// `[aws]`, as it is written: `infra/cdk` checks it.
    pub aws: toml::Table,
    /// In the order of the data; at least two.
    pub stages: Vec<Stage>,
    document: Document,
}

/// What `up` reads besides HTTP.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Nothing.
    None,
    /// The market simulator.
    Simulator(SimulatorSettings),
}

/// How event time advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// How far the watermark stays behind the newest event time, ns.
    pub delay_ns: i64,
    /// Step of the marks, event time in ns; above 0.
    pub every_ns: i64,
    /// An event that is stamped further ahead than this of its receive time is dead, ns.
    pub max_future_ns: i64,
    /// After so long without an event the watermark of `up` moves on by the clock; above 0.
    pub idle: Duration,
}

/// When to commit: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRule {
    /// At the latest after so long; above 0.
    pub every: Duration,
    /// At the latest after so many events; above 0.
    pub records: u64,
}

/// How a pipeline is chained by NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// Parts into which symbols are divided; each is owned by one host at a time.
    pub partitions: u32,
    /// Copies of each stream, on as many servers.
    pub replicas: usize,
    /// Bytes of each stream.
    pub stream_bytes_max: u64,
    /// For each segment the positions of its stages: neighbours that share a worker, without a hop between them.
    pub segments: Vec<std::ops::Range<usize>>,
}

/// How other versions of stages are brought in.
#[derive(Clone, Debug, PartialEq)]
pub struct Swap {
    /// Records that a new version must take before the one before it is let go; 0 for none.
    pub probation: u64,
    /// The share of them that it may refuse although the version before takes them, 0 to 1.
    pub dead_share: f64,
    /// What compiling an upload may take.
    pub compile: CompileLimits,
    /// Bytes of all uploaded components that are kept on a broker.
    pub components_bytes_max: u64,
    /// Public keys, one of which must have signed an upload; any upload is taken when there is none.
    pub trusted_keys: Vec<String>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// One word, unique in the pipeline: `[a-z0-9-]{1,60}`; not `watermark`.
    pub name: String,
    /// What runs it.
    pub component: ComponentRef,
    /// What it may use.
    pub limits: Limits,
    /// A JSON object, to be handed to the component.
    pub settings: String,
}

/// How a pipeline file refers to a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentRef {
    /// To be looked up in the folder of components.
    Name(String),
    /// A file, relative to the pipeline file.
    Path(PathBuf),
}

impl Pipeline {
    /// Reads a pipeline file.
    ///
    /// # Errors
    /// When it cannot be read, or says something that cannot be; at the first such place.
    pub fn load(path: &Path) -> Result<Self> {
        resolve(Document::load(path)?)
    }

    /// Reads the text of a pipeline file; `path` is for errors and for what is relative to it.
    ///
    /// # Errors
    /// When it says something that cannot be; at the first such place.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        resolve(Document::new(path, text.into())?)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.document.path
    }

    /// The error that a stage's component does not take a setting. `key` is a path in the settings such as
    /// `windows[1]`, empty or `.` for the settings as a whole.
    pub fn setting_error(&self, stage_index: usize, key: &str, value: &str, expected: &str) -> Error {
        let dot = if key.is_empty() || key.starts_with(['.', '[']) { "" } else { "." };
        let key = format!("stages[{stage_index}].settings{dot}{key}");
        self.document.wrong(key.trim_end_matches('.'), &setting_text(value, expected))
    }
}

fn resolve(document: Document) -> Result<Pipeline> {
    let raw: Raw = document.read()?;
    check_name(&document, "name", &raw.name)?;
    let (format, source) = resolve_source(&document, raw.source)?;
    let watermark = resolve_watermark(&document, &raw.watermark)?;
    let commit = resolve_commit(&document, &raw.commit)?;
    let stages = resolve_stages(&document, raw.stages)?;
    let nats = nats::resolve(&document, &raw.nats, &stages)?;
    let swap = swap::resolve(&document, raw.swap)?;
    Ok(Pipeline { name: raw.name, format, source, watermark, commit, nats, swap, aws: raw.aws, stages, document })
}

fn resolve_source(document: &Document, raw: RawSource) -> Result<(String, Source)> {
    if let Some(format) = &raw.format {
        check_name(document, "source.format", format)?;
    }
    match raw.source_type {
        SourceType::None => {
            let set = [("seed", raw.seed.is_some()), ("symbols", raw.symbols.is_some()), ("rate", raw.rate.is_some())];
            let set = set.into_iter().chain([("noise", raw.noise.is_some())]);
            if let Some((key, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
                return Err(document.wrong(&format!("source.{key}"), "only with source.type = \"simulator\""));
            }
            Ok((raw.format.unwrap_or_else(|| "events".to_owned()), Source::None))
        }
        SourceType::Simulator => {
            let format = raw.format.clone().unwrap_or_else(|| SIMULATOR_FORMAT.to_owned());
            if format != SIMULATOR_FORMAT {
                return Err(document.unfit("source.format", "\"binance\", which is what the simulator speaks"));
            }
            Ok((format, Source::Simulator(resolve_simulator(document, raw)?)))
        }
    }
}

fn resolve_simulator(document: &Document, raw: RawSource) -> Result<SimulatorSettings> {
    let default = SimulatorSettings::default();
    let settings = SimulatorSettings {
        seed: raw.seed.unwrap_or(default.seed),
        symbols: raw.symbols.unwrap_or(default.symbols),
        rate: raw.rate.unwrap_or(default.rate),
        noise: raw.noise.unwrap_or(default.noise),
    };
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(wrong) => Err(document.unfit(&format!("source.{}", wrong.key), &wrong.expected)),
    }
}

fn resolve_watermark(document: &Document, raw: &RawWatermark) -> Result<Watermark> {
    let ns = |key, span, least| resolve_span(document, key, span, Span(least));
    Ok(Watermark {
        delay_ns: ns("watermark.delay", raw.delay, 0)?.as_nanos() as i64,
        every_ns: ns("watermark.every", raw.every, 1)?.as_nanos() as i64,
        max_future_ns: ns("watermark.max_future", raw.max_future, 0)?.as_nanos() as i64,
        idle: ns("watermark.idle", raw.idle, 1)?,
    })
}

fn resolve_commit(document: &Document, raw: &RawCommit) -> Result<CommitRule> {
    if !(1..=COMMIT_RECORDS_MAX).contains(&raw.records) {
        return Err(document.unfit("commit.records", &format!("1 to {COMMIT_RECORDS_MAX}")));
    }
    Ok(CommitRule { every: resolve_span(document, "commit.every", raw.every, Span(1))?, records: raw.records })
}

fn resolve_stages(document: &Document, raw: Vec<RawStage>) -> Result<Vec<Stage>> {
    if !(2..=STAGES_MAX).contains(&raw.len()) {
        let found = raw.len();
        return Err(document.wrong("stages", &format!("{found} stages instead of 2 to {STAGES_MAX}")));
    }
    let mut stages: Vec<Stage> = Vec::with_capacity(raw.len());
    for (at, raw) in raw.into_iter().enumerate() {
        let key = format!("stages[{at}]");
        check_name(document, &format!("{key}.name"), &raw.name)?;
        if raw.name == WATERMARK_STAGE {
            return Err(document.unfit(&format!("{key}.name"), "another name: the ledger calls our own step so"));
        }
        if stages.iter().any(|stage| stage.name == raw.name) {
            return Err(document.unfit(&format!("{key}.name"), "a name that no other stage has"));
        }
        stages.push(resolve_stage(document, &key, raw)?);
    }
    Ok(stages)
}

fn resolve_stage(document: &Document, key: &str, raw: RawStage) -> Result<Stage> {
    let mut limits = Limits::default();
    if let Some(memory) = raw.memory_mib {
        if !(1..=MEMORY_MIB_MAX).contains(&memory) {
            return Err(document.unfit(&format!("{key}.memory_mib"), &format!("1 to {MEMORY_MIB_MAX}")));
        }
        limits.memory_bytes_max = (memory << 20) as usize;
    }
    if let Some(span) = raw.time_per_batch {
        limits.call_time_max = resolve_span(document, &format!("{key}.time_per_batch"), span, TIME_PER_BATCH_MIN)?;
    }
    let component = match raw.component {
        Some(text) => resolve_component_ref(document, &format!("{key}.component"), text)?,
        None => ComponentRef::Name(raw.name.clone()),
    };
    let settings = to_json(document, &format!("{key}.settings"), toml::Value::Table(raw.settings))?.to_string();
    Ok(Stage { name: raw.name, component, limits, settings })
}

fn resolve_component_ref(document: &Document, key: &str, text: String) -> Result<ComponentRef> {
    if text.ends_with(".wasm") {
        Ok(ComponentRef::Path(text.into()))
    } else if is_name(&text) {
        Ok(ComponentRef::Name(text))
    } else {
        Err(document.unfit(key, "a name such as \"dedup\" or a path that ends in .wasm"))
    }
}

/// JSON knows neither dates nor infinite numbers, and a component would not see that one was meant.
fn to_json(document: &Document, key: &str, value: toml::Value) -> Result<serde_json::Value> {
    use serde_json::Value;
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| document.unfit(key, "a finite number"))?,
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(_) => return Err(document.unfit(key, "a text: put it in quotes")),
        toml::Value::Array(items) => {
            let item = |(at, item)| to_json(document, &format!("{key}[{at}]"), item);
            Value::Array(items.into_iter().enumerate().map(item).collect::<Result<_>>()?)
        }
        toml::Value::Table(table) => {
            let member = |(name, value): (String, toml::Value)| {
                let json = to_json(document, &format!("{key}.{name}"), value)?;
                Ok((name, json))
            };
            Value::Object(table.into_iter().map(member).collect::<Result<_>>()?)
        }
    })
}

fn resolve_span(document: &Document, key: &str, RawSpan(span): RawSpan, least: Span) -> Result<Duration> {
    if (least..=SPAN_MAX).contains(&span) {
        return Ok(Duration::from_nanos(span.0));
    }
    Err(document.unfit(key, &format!("a duration from {least} to {}d", SPAN_MAX.0 / 86_400_000_000_000)))
}

fn check_name(document: &Document, key: &str, name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(document.unfit(key, &format!("1 to {NAME_BYTES_MAX} of a-z, 0-9 and -")))
}

fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}
