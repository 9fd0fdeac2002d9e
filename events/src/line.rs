//! Events as JSON lines: the one text schema, for files, HTTP, `invoke` and `tail`.
//!
//! A line is one flat object: `kind`, the envelope, and the fields of the kind as `wit/events.wit` names them.
//! `{"kind":"trade","symbol":"BTCUSDT","time":"2024-08-08T23:54:15.342Z","source":"binance","id":3735683259,
//! "price":61837.63,"size":0.02}`. A field without a value is left out. `{"kind":"watermark","time":...}` is a mark.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Day, Envelope, IdRef, Kind, Name, Number, Row, Span, TimeError, Unit, format_time, parse_time};

/// What a line's `kind` says when it is a watermark mark.
const WATERMARK: &str = "watermark";

/// The vendor's id of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id<'a> {
    /// An unsigned integer.
    Number(u64),
    /// Any other id.
    Text(#[serde(borrow)] Cow<'a, str>),
}

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not a JSON object of the schema.
    #[error("not an event line: {0}")]
    Json(#[from] serde_json::Error),
    /// No kind of that name.
    #[error(
        "kind: {0:?} is none of trade, quote, bar, option-quote, dividend, split, rate, average, alarm, prediction, gap, notice, watermark"
    )]
    Kind(String),
    /// A time that is not RFC 3339.
    #[error("{0}: {1}")]
    Time(&'static str, #[source] TimeError),
    /// A field that this kind of event must have.
    #[error("{0}: missing; every {1} has one")]
    Missing(String, &'static str),
    /// A field that this kind of event does not have.
    #[error("{0}: no field of a {1}")]
    Foreign(String, &'static str),
}

macro_rules! line {
    ($($field:ident $text:literal: $type:ty,)*) => {
        /// One event as text; which fields it has depends on its kind.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Line<'a> {
            /// Singular name of the kind, or `watermark`.
            #[serde(borrow)]
            pub kind: Cow<'a, str>,
            /// The instrument, as the source or as enrich names it.
            #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
            pub symbol: Cow<'a, str>,
            /// Event time, RFC 3339 in UTC.
            #[serde(borrow)]
            pub time: Cow<'a, str>,
            /// When it was received, RFC 3339 in UTC.
            #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
            pub received: Option<Cow<'a, str>>,
            /// Who sent it.
            #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
            pub source: Cow<'a, str>,
            /// The vendor's id.
            #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
            pub id: Option<Id<'a>>,
            $(
                #[doc = concat!("`", $text, "`, as in `wit/events.wit`.")]
                #[serde(rename = $text, default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl Line<'_> {
            /// The first of the fields that has a value.
            fn first_field(&self) -> Option<&'static str> {
                $(if self.$field.is_some() { return Some($text); })*
                None
            }
        }
    };
}

line! {
    price "price": Number,
    size "size": Number,
    currency "currency": Cow<'a, str>,
    notional "notional": Number,
    lag "lag": i64,
    conditions "conditions": Cow<'a, str>,
    bid "bid": Number,
    bid_size "bid-size": Number,
    ask "ask": Number,
    ask_size "ask-size": Number,
    interval "interval": Span,
    window "window": Span,
    count "count": u64,
    previous "previous": Number,
    average "average": Number,
    deviation "deviation": Number,
    tolerance "tolerance": Number,
    relative "relative": bool,
    open "open": Number,
    high "high": Number,
    low "low": Number,
    close "close": Number,
    volume "volume": Number,
    vwap "vwap": Number,
    final_ "final": bool,
    underlying "underlying": Cow<'a, str>,
    expiry "expiry": Day,
    strike "strike": Number,
    call "call": bool,
    last "last": Number,
    open_interest "open-interest": Number,
    implied_volatility "implied-volatility": Number,
    amount "amount": Number,
    numerator "numerator": Number,
    denominator "denominator": Number,
    horizon "horizon": Span,
    value "value": Number,
    model "model": Cow<'a, str>,
    first_id "first-id": u64,
    last_id "last-id": u64,
    text "text": Cow<'a, str>,
}

/// What a line is.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// An event.
    Event(Envelope<'a>, Row<'a>),
    /// A watermark, ns since the epoch.
    Watermark(i64),
}

impl<'a> Line<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// When it is not a JSON object, or has a field that no event has.
    pub fn parse(text: &'a [u8]) -> Result<Self, LineError> {
        Ok(serde_json::from_slice(text)?)
    }

    /// The line of a watermark mark.
    pub fn watermark(time: i64) -> Self {
        let time = format_time(time, Unit::Nanoseconds);
        Self { kind: WATERMARK.into(), time: time.into(), ..Self::default() }
    }

    /// The event that the line tells of; `intern` numbers its names.
    ///
    /// # Errors
    /// When the kind is unknown, lacks a field or has one of another kind, or a time is no time.
    pub fn entry(&self, intern: &mut dyn FnMut(&str) -> Name) -> Result<Entry<'_>, LineError> {
        let (time, unit) = parse_time(&self.time).map_err(|error| LineError::Time("time", error))?;
        if self.kind == WATERMARK {
            return Ok(Entry::Watermark(time));
        }
        let kind = Kind::ALL.iter().copied().find(|kind| kind.as_str() == self.kind);
        let kind = kind.ok_or_else(|| LineError::Kind(self.kind.chars().take(40).collect()))?;
        if self.symbol.is_empty() {
            return Err(LineError::Missing("symbol".to_owned(), kind.as_str()));
        }
        let received = self.received.as_deref().map(parse_time).transpose();
        let received = received.map_err(|error| LineError::Time("received", error))?;
        self.check_fields(kind)?;
        let envelope = Envelope {
            symbol: intern(&self.symbol),
            source: intern(&self.source),
            time,
            unit,
            received: received.map(|(ns, _)| ns),
            id: match &self.id {
                None => IdRef::Absent,
                Some(Id::Number(id)) => IdRef::Number(*id),
                Some(Id::Text(id)) => IdRef::Text(id),
            },
        };
        Ok(Entry::Event(envelope, self.row(kind, intern)?))
    }

    /// The line of an event.
    pub fn of<'n: 'a>(event: &Envelope<'a>, row: &Row<'a>, names: &dyn Fn(Name) -> &'n str) -> Self {
        let mut line = Self {
            kind: row.kind().as_str().into(),
            symbol: names(event.symbol).into(),
            time: format_time(event.time, event.unit).into(),
            received: event.received.map(|ns| format_time(ns, Unit::Nanoseconds).into()),
            source: names(event.source).into(),
            id: match event.id {
                IdRef::Absent => None,
                IdRef::Number(id) => Some(Id::Number(id)),
                IdRef::Text(id) => Some(Id::Text(id.into())),
            },
            ..Self::default()
        };
        line.fill(row, names);
        line
    }

    fn check_fields(&self, kind: Kind) -> Result<(), LineError> {
        let foreign = self.without(kind);
        match foreign.first_field() {
            Some(field) => Err(LineError::Foreign(field.to_owned(), kind.as_str())),
            None => Ok(()),
        }
    }
}

macro_rules! conversions {
    ([] $($row:ident $life:tt $columns:ident $text:literal { $($field:ident: $type:ident,)* })*) => {
        impl<'a> Line<'a> {
            fn row(&self, kind: Kind, intern: &mut dyn FnMut(&str) -> Name) -> Result<Row<'_>, LineError> {
                let _ = &intern;
                Ok(match kind {
                    $(Kind::$row => Row::$row(crate::$row {
                        $($field: read!($type self.$field, stringify!($field), $text, intern),)*
                    }),)*
                })
            }

            fn without(&self, kind: Kind) -> Self {
                let mut rest = self.clone();
                match kind { $(Kind::$row => { $(rest.$field = None;)* })* }
                rest
            }

            fn fill<'n: 'a>(&mut self, row: &Row<'a>, names: &dyn Fn(Name) -> &'n str) {
                match row { $(Row::$row(row) => { $(self.$field = show!($type row.$field, names);)* })* }
            }
        }
    };
}

macro_rules! read {
    (maybe $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $v.map_or(f64::NAN, |number| number.0)
    };
    (opt_num $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $v.map_or(f64::NAN, |number| number.0)
    };
    (opt_int $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $v
    };
    (opt_name $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $v.as_deref().map(&mut *$intern)
    };
    (opt_text $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $v.as_deref().unwrap_or("")
    };
    (num $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v, $name, $kind)?.0
    };
    (span $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v, $name, $kind)?.0
    };
    (day $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v, $name, $kind)?.0
    };
    (count $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v, $name, $kind)?
    };
    (flag $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v, $name, $kind)?
    };
    (name $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        $intern(required($v.as_deref(), $name, $kind)?)
    };
    (text $v:expr, $name:expr, $kind:expr, $intern:ident) => {
        required($v.as_deref(), $name, $kind)?
    };
}

macro_rules! show {
    (maybe $v:expr, $names:ident) => {
        Some(Number($v)).filter(|number| !number.0.is_nan())
    };
    (opt_num $v:expr, $names:ident) => {
        Some(Number($v)).filter(|number| !number.0.is_nan())
    };
    (num $v:expr, $names:ident) => {
        Some(Number($v))
    };
    (opt_int $v:expr, $names:ident) => {
        $v
    };
    (count $v:expr, $names:ident) => {
        Some($v)
    };
    (flag $v:expr, $names:ident) => {
        Some($v)
    };
    (span $v:expr, $names:ident) => {
        Some(Span($v))
    };
    (day $v:expr, $names:ident) => {
        Some(Day($v))
    };
    (name $v:expr, $names:ident) => {
        Some(Cow::Borrowed($names($v)))
    };
    (opt_name $v:expr, $names:ident) => {
        $v.map(|name| Cow::Borrowed($names(name)))
    };
    (text $v:expr, $names:ident) => {
        Some(Cow::Borrowed($v))
    };
    (opt_text $v:expr, $names:ident) => {
        Some(Cow::Borrowed($v)).filter(|text| !text.is_empty())
    };
}

fn required<T>(value: Option<T>, field: &str, kind: &'static str) -> Result<T, LineError> {
    value.ok_or_else(|| LineError::Missing(field.trim_end_matches('_').replace('_', "-"), kind))
}

crate::for_each_kind!(conversions []);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        let line = Line::parse(text.as_bytes()).unwrap();
        let mut names = Vec::new();
        let entry = line.entry(&mut |name| {
            names.push(name.to_owned());
            Name(names.len() as u32 - 1)
        });
        match entry.unwrap() {
            Entry::Event(event, row) => {
                serde_json::to_string(&Line::of(&event, &row, &|name| names[name.0 as usize].as_str())).unwrap()
            }
            Entry::Watermark(time) => serde_json::to_string(&Line::watermark(time)).unwrap(),
        }
    }

    #[test]
    fn a_line_of_every_kind_is_read_back() {
        let envelope = r#""symbol":"X","time":"2024-08-08T23:54:15.342Z","source":"s""#;
        for (kind, fields) in [
            ("trade", r#""id":7,"price":61837.63,"size":0.02"#),
            ("trade", r#""id":"a-1","price":1.5,"currency":"GBp","lag":-12,"conditions":"1,8""#),
            ("quote", r#""bid":1,"ask":2.5"#),
            (
                "bar",
                r#""interval":"1m","count":2,"average":1.5,"open":1,"high":2,"low":1,"close":2,"volume":3,"vwap":1.6,"final":true"#,
            ),
            ("option-quote", r#""bid":1,"underlying":"AAPL","expiry":"2014-06-20","strike":90,"call":false"#),
            ("dividend", r#""currency":"USD","amount":0.25"#),
            ("split", r#""numerator":7,"denominator":1"#),
            ("rate", r#""value":0.05"#),
            ("average", r#""price":1,"window":"5m","count":1,"average":1"#),
            (
                "alarm",
                r#""price":1,"window":"5m","previous":1,"average":2,"deviation":1,"tolerance":0.5,"relative":false"#,
            ),
            ("prediction", r#""horizon":"1h","value":2,"model":"m""#),
            ("gap", r#""first-id":1,"last-id":3"#),
            ("notice", r#""text":"no access""#),
        ] {
            let text = format!(r#"{{"kind":"{kind}",{envelope},{fields}}}"#);
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(value(&round_trip(&text)), value(&text));
        }
        let mark = r#"{"kind":"watermark","time":"2024-08-08T23:54:15.342000000Z"}"#;
        assert_eq!(round_trip(mark), mark);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        let envelope = r#""symbol":"X","time":"2024-08-08T23:54:15.342Z""#;
        for (line, says) in [
            (format!(r#"{{"kind":"trade",{envelope}}}"#), "price: missing; every trade has one"),
            (format!(r#"{{"kind":"trade",{envelope},"price":1,"bid":2}}"#), "bid: no field of a trade"),
            (format!(r#"{{"kind":"deal",{envelope}}}"#), "kind: \"deal\" is none of trade"),
            (r#"{"kind":"trade","symbol":"","time":"2024-08-08T23:54:15Z","price":1}"#.to_owned(), "symbol: missing"),
            (r#"{"kind":"trade","symbol":"X","time":"noon","price":1}"#.to_owned(), "time"),
        ] {
            let line = Line::parse(line.as_bytes()).unwrap();
            let error = line.entry(&mut |_| Name(0)).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error:?} does not begin with {says:?}");
        }
        assert!(Line::parse(br#"{"kind":"trade","colour":1}"#).unwrap_err().to_string().contains("colour"));
    }
}
