//! The pipeline's table of names, and how an instance's numbers map to it.

use rustc_hash::FxHashMap;
use tapeline_events::Name;

use crate::contract::{Batch, COINED, Columns};

/// Names that a pipeline can have: symbols, sources, currencies. Above it, new names share the last one, `(too many
/// names)`; four million is some hundred megabytes in the host and in each instance.
pub const NAMES_MAX: usize = 4_000_000;
const TOO_MANY: &str = "(too many names)";

/// The texts behind the numbers in batches, the same for all stages of a pipeline in a process.
#[derive(Default)]
pub struct Names {
    texts: Vec<Box<str>>,
    by_text: FxHashMap<Box<str>, u32>,
}

impl Names {
    /// The text of a name; empty for a number that no name has.
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", AsRef::as_ref)
    }

    /// The name of a text, new if need be.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(number) = self.by_text.get(text) {
            return Name(*number);
        }
        if self.texts.len() >= NAMES_MAX && text != TOO_MANY {
            return self.intern(TOO_MANY);
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.into());
        self.by_text.insert(text.into(), number);
        Name(number)
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is no name yet.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// What an instance was told, and what it coined.
#[derive(Default)]
pub struct Told {
    count: usize,
    /// The pipeline's number of each name that the instance coined.
    coined: Vec<u32>,
}

impl Told {
    /// The names that the instance has not been told yet. It counts them as told.
    pub fn untold(&mut self, names: &Names) -> Vec<String> {
        let untold = names.texts[self.count.min(names.texts.len())..].iter().map(ToString::to_string).collect();
        self.count = names.texts.len();
        untold
    }

    /// Takes the names that the instance coined with its answer.
    pub fn coin(&mut self, coined: &[String], names: &mut Names) {
        for text in coined {
            self.coined.push(names.intern(text).0);
        }
    }

    /// The pipeline's number for a number in an instance's answer.
    pub fn resolve(&self, number: u32) -> u32 {
        if number < COINED || number == Name::NONE {
            return number;
        }
        self.coined.get((number - COINED) as usize).copied().unwrap_or(Name::NONE)
    }

    /// Puts the pipeline's numbers in place of the instance's.
    pub fn resolve_batch(&self, batch: &mut Batch) {
        if self.coined.is_empty() {
            return;
        }
        let resolve_all = |column: &mut [u32]| column.iter_mut().for_each(|number| *number = self.resolve(*number));
        for group in &mut batch.groups {
            group.source = self.resolve(group.source);
            resolve_all(&mut group.symbol);
            match &mut group.columns {
                Columns::Trades(trades) => resolve_all(&mut trades.currency),
                Columns::OptionQuotes(quotes) => resolve_all(&mut quotes.underlying),
                Columns::Dividends(dividends) => resolve_all(&mut dividends.currency),
                Columns::Predictions(predictions) => resolve_all(&mut predictions.model),
                _ => {}
            }
        }
    }
}
