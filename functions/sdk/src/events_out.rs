//! The events that a stage emits, gathered into columns.

use tapeline_events::{Envelope, Kind, Name, Row};

use crate::{
    bindings::{
        events::{Batch, Columns, Group, Input},
        stage::exports::tapeline::pipeline::process,
    },
    names::Names,
    stage::{Fates, Output},
};

/// Groups that a batch can have; see `events.batch` in the contract.
const GROUPS_MAX: usize = 253;
/// The next mark, in an order.
pub(crate) const MARK: u8 = 254;
/// The next event of the input, in the order of an output.
pub(crate) const INPUT: u8 = 255;

/// Takes what a stage emits. Emitted events stand behind the event, or the mark, at which they are emitted.
#[derive(Default)]
pub struct Events {
    groups: Groups,
    order: Vec<u8>,
    new_names: NewNames,
}

impl Events {
    /// Emits an event.
    #[inline(always)]
    pub fn emit<'a>(&mut self, envelope: &Envelope<'_>, row: impl Into<Row<'a>>) {
        let group = self.groups.push(envelope, row.into());
        self.order.push(group);
    }

    /// The name of a text, new if need be.
    pub fn intern(&mut self, names: &Names, text: &str) -> Name {
        self.new_names.intern(names, text)
    }
}

impl Output for Events {
    type Answer = process::Output;

    fn begin(&mut self, names: &Names) {
        self.groups.clear();
        self.order.clear();
        self.new_names.begin(names);
    }

    #[inline]
    fn at(&mut self, element: usize, events: &Batch) {
        // Written for every element, and thrown away when nothing was emitted: a byte is cheaper than a branch later.
        self.order.push(if events.order.get(element) == Some(&MARK) { MARK } else { INPUT });
    }

    fn finish(&mut self, names: &mut Names, _: &Input, fates: Fates) -> process::Output {
        self.new_names.merge(names);
        let groups = self.groups.take(names);
        let room = Vec::with_capacity(self.order.len());
        let order = if groups.is_empty() { Vec::new() } else { std::mem::replace(&mut self.order, room) };
        process::Output {
            names: names.take_coined(),
            rules: fates.rules(),
            fates: fates.codes,
            rejects: fates.rejects,
            emitted: Batch { groups, order, marks: Vec::new() },
        }
    }
}

/// Names that a stage makes in a call, while the events still borrow the table.
#[derive(Default)]
pub(crate) struct NewNames {
    base: usize,
    texts: Vec<String>,
}

impl NewNames {
    pub(crate) fn begin(&mut self, names: &Names) {
        self.base = names.len();
    }

    pub(crate) fn intern(&mut self, names: &Names, text: &str) -> Name {
        if let Some(name) = names.find(text) {
            return name;
        }
        let index = self.texts.iter().position(|known| known == text).unwrap_or_else(|| {
            self.texts.push(text.to_owned());
            self.texts.len() - 1
        });
        Name((self.base + index) as u32)
    }

    pub(crate) fn merge(&mut self, names: &mut Names) {
        for text in self.texts.drain(..) {
            names.intern(&text);
        }
    }
}

/// Groups under construction. Until they are taken, names in them are the instance's own.
#[derive(Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
    /// For each kind, the group that took the last event.
    last: [usize; Kind::ALL.len()],
    /// For each kind, the most events that a group of it had when the groups were last taken. A batch is mostly as long
    /// as the one before: columns that have the room from the beginning are not copied while they grow.
    expected: [usize; Kind::ALL.len()],
}

impl Groups {
    /// Puts an event at the end of its group.
    ///
    /// # Panics
    /// When the events of a call need more groups than a batch can have.
    #[inline(always)]
    pub(crate) fn push(&mut self, envelope: &Envelope<'_>, row: Row<'_>) -> u8 {
        self.try_push(envelope, row).expect("at most 253 kinds, sources, units and forms of id in a batch")
    }

    /// Puts an event at the end of its group; none when it needs one more than a batch can have.
    #[inline(always)]
    pub(crate) fn try_push(&mut self, envelope: &Envelope<'_>, row: Row<'_>) -> Option<u8> {
        let kind = row.kind();
        let last = self.last[kind as usize];
        let at = match self.groups.get(last) {
            Some(group) if group.takes(envelope, kind) => last,
            _ => self.find(envelope, kind)?,
        };
        self.groups[at].push(envelope, row);
        Some(at as u8)
    }

    #[cold]
    fn find(&mut self, envelope: &Envelope<'_>, kind: Kind) -> Option<usize> {
        let at = match self.groups.iter().position(|group| group.takes(envelope, kind)) {
            Some(at) => at,
            None if self.groups.len() == GROUPS_MAX => return None,
            None => {
                let mut group = Group::for_events_like(envelope, kind);
                group.reserve(self.expected[kind as usize]);
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        self.last[kind as usize] = at;
        Some(at)
    }

    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.last = [0; Kind::ALL.len()];
    }

    /// The groups with the names as they were put in.
    pub(crate) fn raw(&mut self) -> Vec<Group> {
        std::mem::take(&mut self.groups)
    }

    pub(crate) fn take(&mut self, names: &mut Names) -> Vec<Group> {
        let mut groups = std::mem::take(&mut self.groups);
        self.expected = [0; Kind::ALL.len()];
        for group in &mut groups {
            let expected = &mut self.expected[group.columns.kind() as usize];
            *expected = group.len().max(*expected);
            group.source = names.number(Name(group.source));
            number_all(names, &mut group.symbol);
            match &mut group.columns {
                Columns::Trades(trades) => number_all(names, &mut trades.currency),
                Columns::OptionQuotes(quotes) => number_all(names, &mut quotes.underlying),
                Columns::Dividends(dividends) => number_all(names, &mut dividends.currency),
                Columns::Predictions(predictions) => number_all(names, &mut predictions.model),
                _ => {}
            }
        }
        groups
    }
}

fn number_all(names: &mut Names, column: &mut [u32]) {
    for name in column.iter_mut().filter(|name| **name != Name::NONE) {
        *name = names.number(Name(*name));
    }
}
