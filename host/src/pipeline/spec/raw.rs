//! A pipeline file as it is written, with its defaults. What a type cannot check is checked in `spec.rs`.

use serde::Deserialize;
use tapeline_events::Span;

const MILLISECOND_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000 * MILLISECOND_NS;

/// A duration. The error for what is not even a text tells how to write one.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct RawSpan(pub(super) Span);

impl TryFrom<toml::Value> for RawSpan {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let wrong = format!("{value} is not a duration such as \"5m\", \"250ms\" or \"1h 30m\"");
        value.try_into().map(Self).map_err(|_: toml::de::Error| wrong)
    }
}

/// A pipeline file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: String,
    #[serde(default)]
    pub(super) source: RawSource,
    #[serde(default)]
    pub(super) watermark: RawWatermark,
    #[serde(default)]
    pub(super) commit: RawCommit,
    #[serde(default)]
    pub(super) nats: RawNats,
    #[serde(default)]
    pub(super) swap: RawSwap,
    /// Of those who deploy to AWS: `infra/cdk` reads and checks what is in it.
    #[serde(default)]
    pub(super) aws: toml::Table,
    #[serde(default)]
    pub(super) stages: Vec<RawStage>,
}

/// `[source]`. The default is no source, and events as JSON lines.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSource {
    /// By default what the source speaks; `events` without a source.
    pub(super) format: Option<String>,
    #[serde(rename = "type")]
    pub(super) source_type: SourceType,
    pub(super) seed: Option<u64>,
    pub(super) symbols: Option<Vec<String>>,
    pub(super) rate: Option<f64>,
    pub(super) noise: Option<f64>,
}

/// `source.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum SourceType {
    /// Nothing but HTTP and files.
    #[default]
    None,
    /// The market simulator.
    Simulator,
}

impl TryFrom<String> for SourceType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "none" => Ok(Self::None),
            "simulator" => Ok(Self::Simulator),
            _ => Err(format!("{text:?} instead of \"none\" or \"simulator\"")),
        }
    }
}

/// `[watermark]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawWatermark {
    pub(super) delay: RawSpan,
    pub(super) every: RawSpan,
    pub(super) max_future: RawSpan,
    pub(super) idle: RawSpan,
}

impl Default for RawWatermark {
    /// Vendors' feeds are out of order by tens of milliseconds, a page looks alive when it moves once a second, clocks
    /// that are kept by NTP differ by far less than ten seconds, and a market that is silent for five is quiet.
    fn default() -> Self {
        Self {
            delay: RawSpan(Span(SECOND_NS)),
            every: RawSpan(Span(SECOND_NS)),
            max_future: RawSpan(Span(10 * SECOND_NS)),
            idle: RawSpan(Span(5 * SECOND_NS)),
        }
    }
}

/// `[commit]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCommit {
    pub(super) every: RawSpan,
    pub(super) records: u64,
}

impl Default for RawCommit {
    /// What a page shows is a fifth of a second old at most; 20,000 events make a sync of the disk, some milliseconds,
    /// cheap for each of them.
    fn default() -> Self {
        Self { every: RawSpan(Span(200 * MILLISECOND_NS)), records: 20_000 }
    }
}

/// `[nats]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawNats {
    pub(super) partitions: u32,
    pub(super) replicas: usize,
    pub(super) stream_mib: u64,
    pub(super) fuse: Vec<Vec<String>>,
}

impl Default for RawNats {
    /// One partition and one copy, which is what one machine is good for. A gibibyte is some ten million events.
    fn default() -> Self {
        Self { partitions: 1, replicas: 1, stream_mib: 256, fuse: Vec::new() }
    }
}

/// `[swap]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawSwap {
    pub(super) probation: u64,
    pub(super) dead_share: f64,
    pub(super) compile_time: RawSpan,
    pub(super) compile_memory_mib: u64,
    pub(super) components_mib: u64,
    pub(super) trusted_keys: Vec<String>,
}

impl Default for RawSwap {
    /// Ten thousand records see most of what a market sends; one in a thousand is more than a sound stage refuses.
    /// Components with an interpreter in them have 40 MB and compile in half a minute.
    fn default() -> Self {
        Self {
            probation: 10_000,
            dead_share: 0.001,
            compile_time: RawSpan(Span(60 * SECOND_NS)),
            compile_memory_mib: 2_048,
            components_mib: 256,
            trusted_keys: Vec::new(),
        }
    }
}

/// `[[stages]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStage {
    pub(super) name: String,
    pub(super) component: Option<String>,
    pub(super) memory_mib: Option<u64>,
    pub(super) time_per_batch: Option<RawSpan>,
    #[serde(default)]
    pub(super) settings: toml::Table,
}
