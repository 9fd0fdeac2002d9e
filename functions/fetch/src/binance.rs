//! Binance: spot market streams, single or combined
//! (<https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>).
//!
//! Trades become events, error frames notices; other messages are dropped under their own name. The fields of all
//! messages share one flat namespace, so one pass takes those of a trade as they are, and looks at them only once the
//! event type is known: JSON does not promise an order.

use std::fmt;

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use tapeline_sdk::{Decoded, Envelope, IdRef, Name, Part, Trade, Unit};

use crate::{
    binance::scalar::Scalar,
    record::{OTHER, PRICE, SIZE, TIME, day, is_price, is_size, malformed, notice, shorten, time_of_ms, wrong},
};

mod scalar;

const SOURCE: &str = "binance";
const EXPECTED: &str = "a Binance stream message such as {\"e\":\"trade\",...} or {\"stream\":...,\"data\":...}";

/// Where a stream's name ends that has a symbol of usual length.
const STREAM_BYTES: usize = 48;

/// A trade as it is nearly always sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTrade<'a> {
    e: &'a str,
    #[serde(rename = "E")]
    _event_time: u64,
    s: &'a str,
    t: u64,
    p: &'a str,
    q: &'a str,
    #[serde(rename = "T")]
    time: u64,
    #[serde(rename = "m")]
    _is_buyer_maker: bool,
    #[serde(rename = "M", default)]
    _reserved: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CombinedTrade<'a> {
    #[serde(rename = "stream")]
    _stream: &'a str,
    #[serde(borrow)]
    data: WireTrade<'a>,
}

/// Decodes messages of Binance.
#[derive(Default)]
pub(crate) struct Binance {
    source: Option<Name>,
}

impl Binance {
    /// Decodes a trade, if it looks like one and is one. Whatever is not as it should be is left to the reading of any
    /// message, which says why.
    #[inline]
    fn decode_trade(&mut self, text: &str, received: Option<i64>, out: &mut Decoded) -> bool {
        let parsed = match hint(text.as_bytes()) {
            Hint::Combined => serde_json::from_str::<CombinedTrade<'_>>(text).map(|combined| combined.data),
            Hint::Single => serde_json::from_str::<WireTrade<'_>>(text),
            Hint::Other => return false,
        };
        parsed.is_ok_and(|trade| self.take_trade(&trade, received, out))
    }

    #[inline]
    fn take_trade(&mut self, trade: &WireTrade<'_>, received: Option<i64>, out: &mut Decoded) -> bool {
        let decimal = |text: &str| text.parse::<f64>().ok();
        let (Some(price), Some(size), Some(time)) = (decimal(trade.p), decimal(trade.q), time_of_ms(trade.time)) else {
            return false;
        };
        if trade.e != "trade" || trade.s.is_empty() || !is_price(price) || !is_size(size) {
            return false;
        }
        let source = *self.source.get_or_insert_with(|| out.intern(SOURCE));
        let (symbol, id) = (out.intern(trade.s), IdRef::Number(trade.t));
        let trade = Trade { price, size, currency: None, notional: f64::NAN, lag: None, conditions: "" };
        out.emit(&Envelope { symbol, source, time, unit: Unit::Milliseconds, received, id }, trade);
        true
    }

    /// Decodes one message.
    #[inline]
    pub(crate) fn decode(&mut self, text: &str, received: Option<i64>, out: &mut Decoded) {
        if self.decode_trade(text, received, out) {
            return;
        }
        let source = *self.source.get_or_insert_with(|| out.intern(SOURCE));
        let mut message = Message::default();
        match message.read(text) {
            Ok(()) if message.is_trade() => emit_trade(&message, source, received, out),
            Ok(()) => take_other(&message, source, received, out),
            Err(error) => out.reject(Part::Whole, None, malformed(EXPECTED, error)),
        }
    }
}

/// What a message seems to be.
enum Hint {
    /// A trade of a combined stream.
    Combined,
    /// A trade of a single stream.
    Single,
    /// Something else, or a trade that is not written as usual.
    Other,
}

/// Only a hint which way is worth trying: an error of the parser costs more than a trade.
#[inline]
fn hint(message: &[u8]) -> Hint {
    if message.starts_with(b"{\"e\":\"trade\"") {
        return Hint::Single;
    }
    let Some(stream) = message.strip_prefix(b"{\"stream\":\"") else { return Hint::Other };
    let stream = stream.get(..STREAM_BYTES).unwrap_or(stream);
    let channel = memchr::memchr(b'@', stream).and_then(|at| stream.get(at..));
    if channel.is_some_and(|channel| channel.starts_with(b"@trade\"")) { Hint::Combined } else { Hint::Other }
}

fn emit_trade(message: &Message<'_>, source: Name, received: Option<i64>, out: &mut Decoded) {
    match message.trade() {
        Ok((symbol, id, time, trade)) => {
            let symbol = out.intern(symbol);
            let id = IdRef::Number(id);
            out.emit(&Envelope { symbol, source, time, unit: Unit::Milliseconds, received, id }, trade);
        }
        Err(reason) => {
            let symbol = message.symbol(out);
            out.reject(Part::Whole, symbol, reason);
        }
    }
}

fn take_other(message: &Message<'_>, source: Name, received: Option<i64>, out: &mut Decoded) {
    if let Some(text) = message.error_text() {
        return notice(source, received, &text, out);
    }
    let symbol = message.symbol(out);
    match message.rule() {
        Some(rule) => {
            let sent = || message.event_time.whole().and_then(time_of_ms);
            out.drop(rule, symbol, day(received.or_else(sent)));
        }
        None => {
            let found = if message.event.is_absent() { "nothing".to_owned() } else { message.event.to_string() };
            out.reject(Part::Whole, symbol, wrong("e", found, "the event type as text"));
        }
    }
}

/// What a message may be when it has no event type; bits.
#[derive(Clone, Copy, Default)]
struct Shape(u8);

impl Shape {
    const UPDATE_ID: Self = Self(1);
    const BIDS: Self = Self(2);
    const ASKS: Self = Self(4);
    /// Top of the book: update id, bid and ask.
    const BOOK_TICKER: Self = Self(7);
    const SNAPSHOT: Self = Self(8);
    const ANSWER: Self = Self(16);
    const LIST: Self = Self(32);

    fn has(self, all_of: Self) -> bool {
        self.0 & all_of.0 == all_of.0
    }
}

/// The fields of a frame that matter, with those of its `data` and `error`.
#[derive(Default)]
struct Message<'a> {
    stream: Scalar<'a>,
    event: Scalar<'a>,
    event_time: Scalar<'a>,
    symbol: Scalar<'a>,
    id: Scalar<'a>,
    price: Scalar<'a>,
    size: Scalar<'a>,
    time: Scalar<'a>,
    code: Scalar<'a>,
    text: Scalar<'a>,
    shape: Shape,
}

impl<'a> Message<'a> {
    #[inline]
    fn read(&mut self, text: &'a str) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Fill { message: self, level: Level::Frame }.deserialize(&mut deserializer)?;
        deserializer.end()
    }

    #[inline]
    fn is_trade(&self) -> bool {
        self.event.text() == Some("trade")
    }

    /// Symbol, id, time and the rest of a trade.
    #[inline]
    fn trade(&self) -> Result<(&str, u64, i64, Trade<'static>), String> {
        let symbol = self.symbol.text().filter(|symbol| !symbol.is_empty());
        let symbol = symbol.ok_or_else(|| self.symbol.wrong("s", "the symbol as text"))?;
        let id = self.id.whole().ok_or_else(|| self.id.wrong("t", "the trade id, an unsigned integer"))?;
        let time = self.time.whole().and_then(time_of_ms).ok_or_else(|| self.time.wrong("T", TIME))?;
        let price =
            self.price.decimal().filter(|price| is_price(*price)).ok_or_else(|| self.price.wrong("p", PRICE))?;
        let size = self.size.decimal().filter(|size| is_size(*size)).ok_or_else(|| self.size.wrong("q", SIZE))?;
        Ok((symbol, id, time, Trade { price, size, currency: None, notional: f64::NAN, lag: None, conditions: "" }))
    }

    fn symbol(&self, out: &mut Decoded) -> Option<Name> {
        self.symbol.text().filter(|symbol| !symbol.is_empty()).map(|symbol| out.intern(symbol))
    }

    /// What an error frame says; none for other frames.
    fn error_text(&self) -> Option<String> {
        let text = self.text.text().filter(|_| self.event.is_absent())?;
        Some(if self.code.is_absent() { text.to_owned() } else { format!("{}: {text}", self.code) })
    }

    /// The name under which the message is dropped; none when it is no message of Binance.
    fn rule(&self) -> Option<&'static str> {
        match self.event.text() {
            Some("depthUpdate") => return Some("depth"),
            Some("bookTicker") => return Some("book-ticker"),
            Some("aggTrade") => return Some("agg-trade"),
            Some("kline") => return Some("kline"),
            Some(event) if event.ends_with("Ticker") => return Some("ticker"),
            Some(_) => return Some(OTHER),
            None if !self.event.is_absent() => return None,
            None => {}
        }
        [
            (Shape::SNAPSHOT, "depth-snapshot"),
            (Shape::BOOK_TICKER, "book-ticker"),
            (Shape::ANSWER, "subscription"),
            (Shape::LIST, OTHER),
        ]
        .into_iter()
        .find_map(|(shape, rule)| self.shape.has(shape).then_some(rule))
        .or_else(|| self.stream.text().map(|_| OTHER))
    }

    fn note<'de, A: MapAccess<'de>>(&mut self, shape: Shape, map: &mut A) -> Result<(), A::Error> {
        self.shape.0 |= shape.0;
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// The fields that matter.
#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "stream")]
    Stream,
    #[serde(rename = "data")]
    Data,
    #[serde(rename = "e")]
    Event,
    #[serde(rename = "E")]
    EventTime,
    #[serde(rename = "s")]
    Symbol,
    #[serde(rename = "t")]
    Id,
    #[serde(rename = "p")]
    Price,
    #[serde(rename = "q")]
    Size,
    #[serde(rename = "T")]
    Time,
    #[serde(rename = "u")]
    UpdateId,
    #[serde(rename = "b")]
    Bids,
    #[serde(rename = "a")]
    Asks,
    #[serde(rename = "lastUpdateId")]
    Snapshot,
    #[serde(rename = "result")]
    Answer,
    #[serde(rename = "error")]
    Error,
    #[serde(rename = "code")]
    Code,
    #[serde(rename = "msg")]
    Text,
    #[serde(other)]
    Other,
}

/// Which object of a frame is read.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Frame,
    Data,
    Error,
}

/// Reads one object of a frame into the message.
struct Fill<'m, 'a> {
    message: &'m mut Message<'a>,
    level: Level,
}

impl<'a> Fill<'_, 'a> {
    #[inline]
    fn take<A: MapAccess<'a>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        let message = &mut *self.message;
        match (key, self.level) {
            (Key::Code, _) => message.code.set(map, "code"),
            (Key::Text, _) => message.text.set(map, "msg"),
            (_, Level::Error) => map.next_value::<IgnoredAny>().map(drop),
            (Key::Event, _) => message.event.set(map, "e"),
            (Key::EventTime, _) => message.event_time.set(map, "E"),
            (Key::Symbol, _) => message.symbol.set(map, "s"),
            (Key::Id, _) => message.id.set(map, "t"),
            (Key::Price, _) => message.price.set(map, "p"),
            (Key::Size, _) => message.size.set(map, "q"),
            (Key::Time, _) => message.time.set(map, "T"),
            (Key::UpdateId, _) => message.note(Shape::UPDATE_ID, map),
            (Key::Bids, _) => message.note(Shape::BIDS, map),
            (Key::Asks, _) => message.note(Shape::ASKS, map),
            (Key::Snapshot, _) => message.note(Shape::SNAPSHOT, map),
            (Key::Answer, _) => message.note(Shape::ANSWER, map),
            (Key::Stream, Level::Frame) => message.stream.set(map, "stream"),
            (Key::Data, Level::Frame) => map.next_value_seed(Fill { message, level: Level::Data }),
            (Key::Error, Level::Frame) => map.next_value_seed(Fill { message, level: Level::Error }),
            (Key::Stream | Key::Data | Key::Error | Key::Other, _) => map.next_value::<IgnoredAny>().map(drop),
        }
    }
}

impl<'a> DeserializeSeed<'a> for Fill<'_, 'a> {
    type Value = ();

    #[inline]
    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Fill<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    #[inline]
    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            self.take(key, &mut map)?;
        }
        Ok(())
    }

    /// All tickers of the exchange come as a list; no stream has a list of trades.
    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.message.shape.0 |= Shape::LIST.0;
        Ok(())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if self.level != Level::Error {
            return Err(E::invalid_type(de::Unexpected::Str(&shorten(text)), &self));
        }
        self.message.text = Scalar::Text(text.to_owned().into());
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.level == Level::Error { Ok(()) } else { Err(E::invalid_type(de::Unexpected::Unit, &self)) }
    }
}
