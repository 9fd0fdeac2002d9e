//! The id under which a row is found: the vendor's, or one made from the values.

use std::fmt::Write;

use tapeline_sdk::{Cell, Event, IdRef, Trade};
use xxhash_rust::xxh3::xxh3_64;

/// What an id that was made here begins with.
const MADE: char = '~';

/// Makes cells of ids, with memory for those that are texts.
#[derive(Default)]
pub(crate) struct Ids {
    text: String,
    bytes: Vec<u8>,
}

impl Ids {
    /// The id of a trade. Without the vendor's it is a hash of time, price, size, source and conditions.
    #[inline]
    pub(crate) fn of_trade<'a>(&'a mut self, event: &Event<'a>, trade: &Trade<'_>) -> Cell<'a> {
        match event.id() {
            IdRef::Number(id) => self.of_number(id),
            IdRef::Text(id) => Cell::Text(id),
            IdRef::Absent => self.make(event, &[trade.price, trade.size], trade.conditions),
        }
    }

    /// The id of the trade that an event tells of. Without the vendor's it is a hash of time, price and source, which is
    /// all that the event knows of its trade, and differs from the trade's own.
    pub(crate) fn of_trade_behind<'a>(&'a mut self, event: &Event<'a>, price: f64) -> Cell<'a> {
        match event.id() {
            IdRef::Number(id) => self.of_number(id),
            IdRef::Text(id) => Cell::Text(id),
            IdRef::Absent => self.make(event, &[price], ""),
        }
    }

    #[inline]
    fn of_number(&mut self, id: u64) -> Cell<'_> {
        match i64::try_from(id) {
            Ok(id) => Cell::Integer(id),
            Err(_) => {
                self.text.clear();
                self.text.push_str(itoa::Buffer::new().format(id));
                Cell::Text(&self.text)
            }
        }
    }

    fn make(&mut self, event: &Event<'_>, numbers: &[f64], conditions: &str) -> Cell<'_> {
        let source = event.text(event.source());
        self.bytes.clear();
        self.bytes.extend_from_slice(&event.time().to_le_bytes());
        for number in numbers {
            // Which of the many NaN a number is may change at the boundary of a component.
            let bits = if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() };
            self.bytes.extend_from_slice(&bits.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(source.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(source.as_bytes());
        self.bytes.extend_from_slice(conditions.as_bytes());
        self.text.clear();
        // Writing to a string does not fail.
        let _ = write!(self.text, "{MADE}{:016x}", xxh3_64(&self.bytes));
        Cell::Text(&self.text)
    }
}
