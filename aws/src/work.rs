//! What a message asks for, whole or in part.

use std::{ops::Range, sync::Arc};

use tapeline_invoke::{
    Hop,
    batch::{self, Breach},
    contract::Batch,
    names::Names,
};

use crate::message::{self, Raw};

/// What a message asks for.
#[derive(Clone)]
pub(crate) enum Work {
    /// Records, for a fetcher.
    Records {
        /// How to read them.
        format: String,
        /// When they were received, ns since the epoch.
        received: i64,
        /// Each without its line's end.
        records: Vec<Vec<u8>>,
    },
    /// Events and marks, with the names that they have.
    Events {
        /// The events.
        events: Batch,
        /// Their names.
        names: NamesOf,
    },
}

/// The texts of names, by number.
pub(crate) type NamesOf = Arc<Names>;

impl Work {
    /// What entered the pipeline, which SQS was given at `sent`, ns since the epoch.
    pub(crate) fn of_raw(raw: Raw, sent: i64) -> Self {
        match raw {
            Raw::Records { format, received, body } => {
                let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                let records = lines.filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
                Self::Records { format, received: received.unwrap_or(sent), records }
            }
            Raw::Mark(mark) => {
                let mut events = batch::empty();
                batch::replace_marks(&mut events, vec![mark]);
                Self::Events { events, names: NamesOf::default() }
            }
        }
    }

    /// What another function gave out.
    ///
    /// # Errors
    /// When it is no batch.
    pub(crate) fn of_hop(hop: Hop) -> Result<Self, Breach> {
        let mut names = Names::default();
        let events = hop.unpack(&mut names)?;
        batch::check(&events)?;
        Ok(Self::Events { events, names: NamesOf::new(names) })
    }

    /// Number of its records, or events and marks.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Records { records, .. } => records.len(),
            Self::Events { events, .. } => message::elements(events),
        }
    }

    /// A part of it.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        match self {
            Self::Records { format, received, records } => {
                let records = records.get(range).unwrap_or_default().to_vec();
                Self::Records { format: format.clone(), received: *received, records }
            }
            Self::Events { events, names } => {
                Self::Events { events: batch::slice(events, range), names: NamesOf::clone(names) }
            }
        }
    }

    /// When the newest of its events was received, ns since the epoch.
    pub(crate) fn received(&self) -> Option<i64> {
        match self {
            Self::Records { received, records, .. } => (!records.is_empty()).then_some(*received),
            Self::Events { events, .. } => {
                let received = |group: &tapeline_invoke::contract::Group| {
                    (0..group.len()).rev().find_map(|at| group.received_at(at))
                };
                events.groups.iter().filter_map(received).max()
            }
        }
    }
}
