//! The trades of one frame before they are emitted. It is kept from frame to frame, so that a frame allocates nothing.

use std::ops::Range;

use tapeline_sdk::{Decoded, Envelope, IdRef, Name, Trade, Unit};

/// Trades, and the texts in them one behind the other.
#[derive(Default)]
pub(super) struct Buffer {
    pub(super) text: String,
    pub(super) trades: Vec<Parsed>,
}

/// A trade that can be used; its texts are places in [`Buffer::text`].
pub(super) struct Parsed {
    pub(super) symbol: Range<usize>,
    pub(super) conditions: Range<usize>,
    pub(super) price: f64,
    pub(super) size: f64,
    pub(super) time: i64,
}

impl Buffer {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.trades.clear();
    }

    /// Emits the trades in their order.
    pub(super) fn emit(&self, source: Name, received: Option<i64>, out: &mut Decoded) {
        for Parsed { symbol, conditions, price, size, time } in &self.trades {
            let symbol = out.intern(self.part(symbol));
            let unit = Unit::Milliseconds;
            let envelope = Envelope { symbol, source, time: *time, unit, received, id: IdRef::Absent };
            let conditions = self.part(conditions);
            let (price, size) = (*price, *size);
            out.emit(&envelope, Trade { price, size, currency: None, notional: f64::NAN, lag: None, conditions });
        }
    }

    fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }
}
