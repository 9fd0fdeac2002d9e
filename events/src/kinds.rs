//! The table of event kinds: the one place that knows which fields a kind has and what they are called as text.
//!
//! Everything that must go over all kinds (rows, JSON lines, columns on either side of the boundary) is made from this
//! table by a callback macro, so that a new kind is one entry here and one in `wit/events.wit`.
//!
//! Field types: `num` binary64, `maybe` binary64 or `NaN` for none, `count` u64, `span` u64 nanoseconds (as text `5m`), `flag` 0 or 1,
//! `day` days since 1970-01-01 (as text `2014-06-20`), `name` an interned text, `text`; with `opt_` the column may be
//! absent from a group.

/// Calls `$callback!` with the table of kinds, after the tokens in brackets.
#[macro_export]
macro_rules! for_each_kind {
    ($callback:path [$($extra:tt)*]) => {
        $callback! {
            [$($extra)*]
            Trade ['a] Trades "trade" {
                price: num, size: maybe, currency: opt_name, notional: opt_num, lag: opt_int, conditions: opt_text,
            }
            Quote [] Quotes "quote" { bid: maybe, bid_size: maybe, ask: maybe, ask_size: maybe, }
            Bar [] Bars "bar" {
                interval: span, count: count, average: num, open: num, high: num, low: num, close: num, volume: num,
                vwap: maybe, final_: flag,
            }
            OptionQuote [] OptionQuotes "option-quote" {
                underlying: name, expiry: day, strike: num, call: flag, bid: maybe, bid_size: maybe, ask: maybe,
                ask_size: maybe, last: maybe, volume: maybe, open_interest: maybe, implied_volatility: maybe,
            }
            Dividend [] Dividends "dividend" { amount: num, currency: name, }
            Split [] Splits "split" { numerator: num, denominator: num, }
            Rate [] Rates "rate" { value: num, }
            Average [] Averages "average" { window: span, average: num, count: count, price: num, }
            Alarm [] Alarms "alarm" {
                window: span, previous: num, average: num, deviation: num, tolerance: num, relative: flag, price: num,
            }
            Prediction [] Predictions "prediction" { horizon: span, value: num, model: name, }
            Gap [] Gaps "gap" { first_id: count, last_id: count, }
            Notice ['a] Notices "notice" { text: text, }
        }
    };
}

/// An interned text: a symbol, a source, a currency. Its number is that of `events.name` in `wit/events.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub u32);

impl Name {
    /// What a column holds where an event has no name.
    pub const NONE: u32 = u32::MAX;
}

#[macro_export]
#[doc(hidden)]
macro_rules! row_of {
    ($l:lifetime $row:ident [$own:lifetime]) => { $crate::$row<$l> };
    ($l:lifetime $row:ident []) => { $crate::$row };
}

/// The Rust type of a field in a row.
#[macro_export]
#[doc(hidden)]
macro_rules! row_type {
    ($l:tt num) => { f64 };
    ($l:tt maybe) => { f64 };
    ($l:tt opt_num) => { f64 };
    ($l:tt count) => { u64 };
    ($l:tt span) => { u64 };
    ($l:tt opt_int) => { Option<i64> };
    ($l:tt flag) => { bool };
    ($l:tt day) => { i32 };
    ($l:tt name) => { $crate::Name };
    ($l:tt opt_name) => { Option<$crate::Name> };
    ([$l:lifetime] text) => { &$l str };
    ([$l:lifetime] opt_text) => { &$l str };
}

macro_rules! define_row {
    ([$($life:lifetime)?] $row:ident $doc:expr, $($field:ident: $type:ty,)*) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[expect(missing_docs, reason = "documented once, in wit/events.wit")]
        pub struct $row<$($life)?> { $(pub $field: $type,)* }
    };
}

macro_rules! define {
    ([] $($row:ident $life:tt $columns:ident $text:literal { $($field:ident: $type:ident,)* })*) => {
        /// The kinds of events, in the order of `events.kinds` in `wit/events.wit`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $(
            #[doc = concat!("`", $text, "`")]
            $row,
        )* }

        impl Kind {
            /// All kinds, in order.
            pub const ALL: &[Self] = &[$(Self::$row),*];

            /// The kind's name as text: `option-quote`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$row => $text),* }
            }
        }

        /// An event of any kind without its envelope.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[expect(missing_docs, reason = "the kinds are documented in wit/events.wit")]
        pub enum Row<'a> { $($row($crate::row_of!('a $row $life)),)* }

        impl Row<'_> {
            /// The event's kind.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$row(_) => Kind::$row),* }
            }
        }

        $(
            define_row! { $life $row concat!("One `", $text, "` without its envelope; fields and units as in `wit/events.wit`."),
                $($field: $crate::row_type!($life $type),)* }

            impl<'a> From<$crate::row_of!('a $row $life)> for Row<'a> {
                fn from(row: $crate::row_of!('a $row $life)) -> Self {
                    Self::$row(row)
                }
            }
        )*
    };
}

crate::for_each_kind!(define []);

impl Kind {
    /// The kind of this name, singular as in JSON lines, or plural (`trades`).
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| {
            text == kind.as_str() || text.strip_suffix('s').is_some_and(|singular| singular == kind.as_str())
        })
    }

    /// The kind's bit in a set of kinds.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}
