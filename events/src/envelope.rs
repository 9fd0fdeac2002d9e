//! What every event has, whatever its kind.

use crate::{Name, Unit};

/// The vendor's id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdRef<'a> {
    /// The vendor gives none.
    Absent,
    /// An unsigned integer.
    Number(u64),
    /// Any other id.
    Text(&'a str),
}

/// What every event has, whatever its kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Envelope<'a> {
    /// The instrument.
    pub symbol: Name,
    /// Who sent it.
    pub source: Name,
    /// Event time, ns since the epoch, UTC.
    pub time: i64,
    /// How precise `time` came in.
    pub unit: Unit,
    /// When it was received, ns since the epoch, by the receiver's clock.
    pub received: Option<i64>,
    /// The vendor's id.
    pub id: IdRef<'a>,
}
