//! What comes of work until it is committed.

use std::collections::BTreeMap;

use tapeline_events::{Name, TextColumn};

use crate::{
    batch::{self, Element},
    bus::{Entrance, Message, TraceContext},
    contract::{Append, Batch, Cells, Rows},
    names::Names,
    segment::{StageWorker, Tally, WATERMARK_STAGE},
    store::{CheckWritten, Commit, Counts, DeadLetter, LedgerKey},
};

/// Where the records of a piece of work are stored.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The journal, or a file by its digest: `journal`, `sha256:...`.
    pub source: String,
    /// For each record its number in the journal, or its byte in the file.
    pub positions: Vec<u64>,
}

impl Origin {
    /// Where the record at `at` is.
    pub fn of(&self, at: usize) -> String {
        self.positions.get(at).map_or_else(|| self.source.clone(), |position| format!("{} {position}", self.source))
    }

    /// Where all the records are: an event cannot always be traced to one of them.
    pub fn whole(&self) -> String {
        match (self.positions.first(), self.positions.last()) {
            (Some(first), Some(last)) if first != last => format!("{} {first} to {last}", self.source),
            _ => self.of(0),
        }
    }
}

/// Lets somebody watch what stages give out.
pub trait Tap: Send {
    /// Whether anybody watches this stage at present.
    fn is_watched(&self, stage: &str) -> bool;
}

/// Nobody watches.
pub struct NoTap;

impl Tap for NoTap {
    fn is_watched(&self, _: &str) -> bool {
        false
    }
}

/// What a watched stage gave out.
pub struct Tapped {
    /// The stage.
    pub stage: String,
    /// Events as JSON lines.
    pub lines: Vec<String>,
}

/// Lines kept for watchers of a stage between two commits; what is beyond is not shown.
const TAPPED_LINES_MAX: usize = 10_000;

/// Events of a message before the next one is begun: a message costs as much as some hundred events.
const JOINED_EVENTS_MAX: usize = 4_096;

/// Gathers what is to be committed.
pub struct Outcome {
    pub(super) rows: Vec<Rows>,
    pub(super) appends: Vec<Append>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) tally: Tally,
    pub(super) origin: Origin,
    /// Format of the frames at hand.
    pub(super) format: String,
    check: CheckWritten,
    tap: Box<dyn Tap>,
    tapped: Vec<Tapped>,
    bytes: usize,
    /// What goes on to the next segment, with where it enters if that is not the next stage.
    out: Vec<(Option<Entrance>, Batch)>,
    /// What segments before have counted.
    ledger: BTreeMap<LedgerKey, Counts>,
    /// The step of a trace that the newest message belongs to.
    pub(super) trace: Option<TraceContext>,
}

impl Outcome {
    /// Nothing yet, for a store that takes what keeps to `check`.
    pub(super) fn new(tap: Box<dyn Tap>, check: CheckWritten) -> Self {
        Self {
            check,
            rows: Vec::new(),
            appends: Vec::new(),
            dead_letters: Vec::new(),
            tally: Tally::default(),
            origin: Origin::default(),
            format: String::new(),
            tap,
            tapped: Vec::new(),
            bytes: 0,
            out: Vec::new(),
            ledger: BTreeMap::new(),
            trace: None,
        }
    }

    /// Takes what is left behind the last stage, or what is for a stage behind it.
    pub(super) fn give_out(&mut self, enters: Option<&Entrance>, batches: impl Iterator<Item = Batch>) {
        for batch in batches {
            self.bytes += batch::byte_count(&batch);
            let goes_along = |(of, last): &mut (Option<Entrance>, Batch)| {
                of.as_ref() == enters && batch::event_count(last) < JOINED_EVENTS_MAX
            };
            let enters = enters.cloned();
            match self.out.pop_if(goes_along) {
                None => self.out.push((enters, batch)),
                Some((_, last)) => match batch::join(last, batch) {
                    Ok(joined) => self.out.push((enters, joined)),
                    Err(apart) => self.out.extend([(enters.clone(), apart.0), (enters, apart.1)]),
                },
            }
        }
    }

    pub(super) fn out_count(&self) -> usize {
        self.out.len()
    }

    /// Takes what a segment before has counted and kept aside.
    pub(super) fn pass_on(&mut self, ledger: &[(LedgerKey, Counts)], dead_letters: &[DeadLetter]) {
        for (key, counts) in ledger {
            self.ledger.entry(key.clone()).or_default().add(counts);
        }
        self.dead_letters.extend_from_slice(dead_letters);
    }

    /// Takes what the writer gave.
    ///
    /// # Errors
    /// Says why the store could not take it.
    pub(super) fn write(&mut self, rows: Vec<Rows>, appends: Vec<Append>) -> Result<(), String> {
        (self.check)(&rows, &appends)?;
        self.bytes += appends.iter().map(|append| append.bytes.len()).sum::<usize>();
        self.bytes +=
            rows.iter().flat_map(|rows| &rows.columns).map(|column| cells_bytes(&column.cells)).sum::<usize>();
        self.rows.extend(rows);
        self.appends.extend(appends);
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.dead_letters.iter().map(|letter| letter.payload.len() + letter.reason.len()).sum::<usize>()
    }

    pub(super) fn tap(&mut self, stage: &str, batch: &Batch, names: &Names) {
        if !self.tap.is_watched(stage) {
            return;
        }
        let at = self.tapped.iter().position(|tapped| tapped.stage == stage).unwrap_or_else(|| {
            self.tapped.push(Tapped { stage: stage.to_owned(), lines: Vec::new() });
            self.tapped.len() - 1
        });
        let lines = &mut self.tapped[at].lines;
        let room = TAPPED_LINES_MAX.saturating_sub(lines.len());
        let events = batch::elements(batch).filter_map(|element| match element {
            Element::Event { group, at } => Some(batch::to_line(&batch.groups[group], at, names)),
            Element::Mark(_) => None,
        });
        lines.extend(events.take(room));
    }

    pub(super) fn take(&mut self, stages: &[StageWorker], first: usize, names: &Names) -> (Commit, Vec<Tapped>) {
        // The ledger reads in the order of the data: the host's own step stands behind the first stage.
        let position = |at| if at == 0 { 0 } else { at + 1 };
        let mut order: Vec<(usize, &str)> =
            stages.iter().enumerate().map(|(at, stage)| (position(first + at), stage.name())).collect();
        order.push((1, WATERMARK_STAGE));
        let mut ledger = self.tally.take(&order, names);
        for (key, counts) in std::mem::take(&mut self.ledger) {
            ledger.entry(key).or_default().add(&counts);
        }
        let commit = Commit {
            rows: std::mem::take(&mut self.rows),
            appends: std::mem::take(&mut self.appends),
            dead_letters: std::mem::take(&mut self.dead_letters),
            ledger,
            out: std::mem::take(&mut self.out)
                .into_iter()
                .map(|(enters, batch)| Message { enters, ..Message::pack(batch, names) })
                .collect(),
            trace: self.trace.take(),
            ..Commit::default()
        };
        self.bytes = 0;
        (commit, std::mem::take(&mut self.tapped))
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.appends.clear();
        self.dead_letters.clear();
        self.tally.clear();
        self.tapped.clear();
        self.bytes = 0;
        self.out.clear();
        self.ledger.clear();
        self.trace = None;
    }
}

fn cells_bytes(cells: &Cells) -> usize {
    match cells {
        Cells::Texts(texts) => texts.bytes.len() + texts.count() * size_of::<u32>(),
        Cells::Integers(cells) | Cells::Times((cells, _)) => cells.len() * size_of::<i64>(),
        Cells::Numbers(cells) => cells.len() * size_of::<f64>(),
        Cells::Booleans(cells) => cells.len(),
    }
}

/// The text of a name that may be unknown.
pub(super) fn symbol_text(names: &Names, symbol: Option<u32>) -> String {
    symbol.map_or_else(String::new, |symbol| names.text(Name(symbol)).to_owned())
}
