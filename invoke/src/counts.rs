//! What is counted of a stage's events, what a component is good for, and the values of its rows.

use std::{collections::BTreeMap, fmt};

use tapeline_events::Day;

/// What the ledger counts of a stage's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Events (for fetch: records) that entered.
    pub entered: u64,
    /// Went on.
    pub out: u64,
    /// Were seen before.
    pub duplicate: u64,
    /// Came after their time was over.
    pub late: u64,
    /// Are in the dead letters.
    pub dead: u64,
    /// Left out, by rule.
    pub dropped: BTreeMap<String, u64>,
    /// New events that the stage made: bars, averages, alarms. Not part of the balance.
    pub derived: u64,
}

impl Counts {
    /// Whether `entered = out + duplicate + late + dropped + dead`.
    pub fn balances(&self) -> bool {
        self.entered == self.out + self.duplicate + self.late + self.dead + self.dropped.values().sum::<u64>()
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        self.entered += other.entered;
        self.out += other.out;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.dead += other.dead;
        self.derived += other.derived;
        for (rule, count) in &other.dropped {
            *self.dropped.entry(rule.clone()).or_default() += count;
        }
    }

    /// What an answer's headers say: their names, in lower case, and values.
    pub fn headers(&self) -> [(&'static str, u64); 6] {
        [
            ("tapeline-in", self.entered),
            ("tapeline-out", self.out),
            ("tapeline-duplicate", self.duplicate),
            ("tapeline-late", self.late),
            ("tapeline-dropped", self.dropped.values().sum()),
            ("tapeline-dead", self.dead),
        ]
    }
}

/// What the ledger counts by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerKey {
    /// Position of the stage in the pipeline, so that a ledger reads in the order of the data.
    pub stage_index: u32,
    /// The stage.
    pub stage: String,
    /// The symbol; empty where it is not known.
    pub symbol: String,
    /// The day of the events in UTC; absent where it is not known.
    pub day: Option<Day>,
}

/// What a component is good for in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the worlds are documented in wit/stage.wit")]
pub enum Role {
    Fetcher,
    Stage,
    Writer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetcher => "fetcher",
            Self::Stage => "stage",
            Self::Writer => "writer",
        })
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer.
    Integer(i64),
    /// A number; prints with at most 15 significant digits.
    Number(tapeline_events::Number),
    /// A text, or a time as RFC 3339.
    Text(String),
}
