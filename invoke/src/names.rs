//! The pipeline's table of names, and how an instance's numbers map to it.

use rustc_hash::FxHashMap;
use tapeline_events::Name;

use crate::{
    batch::{self, Breach},
    contract::{Batch, COINED},
};

/// Names that a pipeline can have: symbols, sources, currencies. Above it, new names share the last one, `(too many
/// names)`; four million is some hundred megabytes in the host and in each instance.
pub const NAMES_MAX: usize = 4_000_000;
const TOO_MANY: &str = "(too many names)";

/// The texts behind the numbers in batches, the same for all stages of a pipeline in a process.
pub struct Names {
    texts: Vec<Box<str>>,
    by_text: FxHashMap<Box<str>, u32>,
    max: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self::with_max(NAMES_MAX)
    }
}

impl Names {
    fn with_max(max: usize) -> Self {
        Self { texts: Vec::new(), by_text: FxHashMap::default(), max }
    }

    /// The text of a name; empty for a number that no name has.
    pub fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", AsRef::as_ref)
    }

    /// The name of a text, new if need be.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(number) = self.by_text.get(text) {
            return Name(*number);
        }
        if self.texts.len() >= self.max && text != TOO_MANY {
            return self.intern(TOO_MANY);
        }
        let number = self.texts.len() as u32;
        self.texts.push(text.into());
        self.by_text.insert(text.into(), number);
        Name(number)
    }

    /// Whether a text has a name.
    pub fn is_known(&self, text: &str) -> bool {
        self.by_text.contains_key(text)
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

    /// The pipeline's number for a number in an instance's answer; none when it is neither one that the instance was
    /// told nor one that it coined.
    pub fn resolve(&self, number: u32) -> Option<u32> {
        match number.checked_sub(COINED) {
            None => ((number as usize) < self.count).then_some(number),
            Some(at) => self.coined.get(at as usize).copied(),
        }
    }

    /// Puts the pipeline's numbers in place of the instance's.
    ///
    /// # Errors
    /// When there is a number that [`resolve`](Self::resolve) does not know.
    pub fn resolve_batch(&self, batch: &mut Batch) -> Result<(), Breach> {
        batch::visit_names(batch, |number| {
            // Most are as the instance was told.
            if (*number as usize) >= self.count {
                let unknown = || Breach(format!("{number} is the number of no name"));
                *number = self.resolve(*number).ok_or_else(unknown)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_above_the_limit_share_one() {
        let mut names = Names::with_max(2);
        let (a, b) = (names.intern("A"), names.intern("B"));
        let (c, d) = (names.intern("C"), names.intern("D"));
        assert_eq!((c, names.text(c)), (d, TOO_MANY));
        assert_eq!((names.intern("A"), names.intern("B"), names.len()), (a, b, 3));
    }

    #[test]
    fn a_number_that_nobody_gave_is_a_breach() {
        let mut names = Names::default();
        let line = br#"{"kind":"trade","symbol":"A","source":"s","time":"1970-01-01T00:00:00Z","price":1}"#;
        let told = batch::from_lines(std::iter::once(&line[..]), None, &mut names).unwrap();
        let mut instance = Told::default();
        assert_eq!(instance.untold(&names).len(), 2);
        instance.coin(&["B".to_owned()], &mut names);
        let symbol = |number: u32| {
            let mut batch = told.clone();
            batch.groups[0].symbol[0] = number;
            instance.resolve_batch(&mut batch).map(|()| names.text(Name(batch.groups[0].symbol[0])).to_owned()).ok()
        };
        assert_eq!(symbol(told.groups[0].symbol[0]).as_deref(), Some("A"));
        assert_eq!(symbol(COINED).as_deref(), Some("B"));
        // The pipeline has a third name by now, which this instance was not told.
        assert_eq!([symbol(2), symbol(COINED + 1), symbol(Name::NONE)], [None, None, None]);
    }
}
