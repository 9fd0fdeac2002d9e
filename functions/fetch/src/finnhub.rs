//! Finnhub: the websocket's trades (<https://finnhub.io/docs/api/websocket-trades>).
//!
//! A frame holds any number of trades. They are read in one pass into a buffer that is kept, and emitted once the whole
//! frame was read. When that fails the frame is read again, trade by trade, so that a bad one is refused alone.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeSeed};
use serde_json::value::RawValue;
use tapeline_sdk::{Decoded, Name, Part};

use crate::{
    finnhub::{
        buffer::Buffer,
        read::{ReadMessage, ReadTrade},
    },
    record::{EMPTY, OTHER, day, malformed, missing, notice},
};

mod buffer;
mod read;

const SOURCE: &str = "finnhub";
const EXPECTED: &str = "a Finnhub message such as {\"type\":\"trade\",\"data\":[...]}";
const EXPECTED_TRADE: &str =
    "a Finnhub trade such as {\"s\":\"AAPL\",\"p\":164.06,\"t\":1680286537580,\"v\":5,\"c\":[\"1\"]}";

/// Decodes messages of Finnhub.
#[derive(Default)]
pub(crate) struct Finnhub {
    source: Option<Name>,
    buffer: Buffer,
}

impl Finnhub {
    /// Decodes one message.
    pub(crate) fn decode(&mut self, text: &str, received: Option<i64>, out: &mut Decoded) {
        let source = *self.source.get_or_insert_with(|| out.intern(SOURCE));
        self.buffer.clear();
        match read_all(text, &mut self.buffer) {
            Ok(is_trade) if is_trade && !self.buffer.trades.is_empty() => self.buffer.emit(source, received, out),
            _ => self.decode_slowly(text, source, received, out),
        }
    }

    #[cold]
    fn decode_slowly(&mut self, text: &str, source: Name, received: Option<i64>, out: &mut Decoded) {
        let message = match serde_json::from_str::<Message<'_>>(text) {
            Ok(message) => message,
            Err(error) => return out.reject(Part::Whole, None, malformed(EXPECTED, error)),
        };
        match (message.kind.as_ref(), message.data) {
            ("trade", Some(data)) => self.decode_each(data, source, received, out),
            ("trade", None) => out.reject(Part::Whole, None, missing("data", "a list of trades")),
            ("ping", _) => out.drop("ping", None, day(received)),
            ("error", _) => notice(source, received, message.msg.as_deref().unwrap_or("error"), out),
            _ => out.drop(OTHER, None, day(received)),
        }
    }

    fn decode_each(&mut self, data: &RawValue, source: Name, received: Option<i64>, out: &mut Decoded) {
        let trades = match serde_json::from_str::<Vec<&RawValue>>(data.get()) {
            Ok(trades) => trades,
            Err(error) => return out.reject(Part::Whole, None, malformed(EXPECTED, format_args!("data: {error}"))),
        };
        if trades.is_empty() {
            return out.drop(EMPTY, None, day(received));
        }
        for trade in trades {
            self.buffer.clear();
            match read_one(trade.get(), &mut self.buffer) {
                Ok(()) => self.buffer.emit(source, received, out),
                Err(error) => {
                    let symbol = symbol_of(trade).map(|symbol| out.intern(&symbol));
                    out.reject(Part::Record(trade.get()), symbol, malformed(EXPECTED_TRADE, error));
                }
            }
        }
    }
}

/// A message whose records are read later, or not at all.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<Cow<'a, str>>,
}

/// Whether the frame is one of trades, which are in the buffer then.
fn read_all(text: &str, buffer: &mut Buffer) -> serde_json::Result<bool> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let is_trade = ReadMessage(buffer).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(is_trade)
}

fn read_one(text: &str, buffer: &mut Buffer) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ReadTrade(buffer).deserialize(&mut deserializer)?;
    deserializer.end()
}

fn symbol_of(trade: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Symbol<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
    }
    serde_json::from_str::<Symbol<'_>>(trade.get()).ok().map(|symbol| symbol.s).filter(|symbol| !symbol.is_empty())
}
