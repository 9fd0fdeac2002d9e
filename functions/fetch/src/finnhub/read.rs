//! Reads trades into the buffer. A trade that cannot be used is an error: what was read is then worth nothing.

use std::{fmt, ops::Range};

use serde::{
    Deserialize,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::buffer::{Buffer, Parsed};
use crate::record::{PRICE, SIZE, TIME, is_price, is_size, missing, time_of_ms, wrong};

/// Reads a message; gives whether it says that it is one of trades.
pub(super) struct ReadMessage<'b>(pub(super) &'b mut Buffer);

/// Reads a list of trades.
struct ReadTrades<'b>(&'b mut Buffer);

/// Reads one trade.
pub(super) struct ReadTrade<'b>(pub(super) &'b mut Buffer);

/// Reads a list of texts, or null, to the end of a text, joined by commas.
struct ReadConditions<'b>(&'b mut String);

/// Reads a text to the end of another.
struct ReadText<'b>(&'b mut String);

macro_rules! seed {
    ($seed:ident -> $value:ty: $deserialize:ident, $expecting:literal, $($visit:item)+) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.$deserialize(self)
            }
        }

        impl<'de> Visitor<'de> for $seed<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            $($visit)+
        }
    };
}

seed! { ReadMessage -> bool: deserialize_map, "an object",
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut is_trade, mut is_read) = (false, false);
        while let Some(key) = map.next_key()? {
            match key {
                MessageKey::Type => is_trade = map.next_value::<MessageType>()? == MessageType::Trade,
                MessageKey::Data if is_read => return Err(de::Error::duplicate_field("data")),
                MessageKey::Data => {
                    map.next_value_seed(ReadTrades(&mut *self.0))?;
                    is_read = true;
                }
                MessageKey::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(is_trade)
    }
}

seed! { ReadTrades -> (): deserialize_seq, "a list of trades",
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(ReadTrade(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

seed! { ReadTrade -> (): deserialize_map, "an object",
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key()? {
            fields.take(key, &mut map, &mut self.0.text)?;
        }
        self.0.trades.push(fields.resolve().map_err(de::Error::custom)?);
        Ok(())
    }
}

seed! { ReadConditions -> (): deserialize_any, "a list of texts, or null",
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut is_some = false;
        while seq.next_element_seed(ReadText(&mut *self.0))?.is_some() {
            self.0.push(',');
            is_some = true;
        }
        if is_some {
            self.0.pop();
        }
        Ok(())
    }
}

seed! { ReadText -> (): deserialize_str, "a text",
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum MessageType {
    Trade,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum MessageKey {
    Type,
    Data,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier)]
enum TradeKey {
    #[serde(rename = "s")]
    Symbol,
    #[serde(rename = "p")]
    Price,
    #[serde(rename = "t")]
    Time,
    #[serde(rename = "v")]
    Size,
    #[serde(rename = "c")]
    Conditions,
    #[serde(other)]
    Other,
}

/// The fields of a trade as far as they were read.
#[derive(Default)]
struct Fields {
    symbol: Option<Range<usize>>,
    price: Option<f64>,
    time: Option<u64>,
    size: Option<Option<f64>>,
    conditions: Option<Range<usize>>,
}

impl Fields {
    #[inline]
    fn take<'de, A: MapAccess<'de>>(&mut self, key: TradeKey, map: &mut A, text: &mut String) -> Result<(), A::Error> {
        let start = text.len();
        match key {
            TradeKey::Symbol => {
                let read = map.next_value_seed(ReadText(&mut *text));
                once("s", &mut self.symbol, read.map(|()| start..text.len()))
            }
            TradeKey::Conditions => {
                let read = map.next_value_seed(ReadConditions(&mut *text));
                once("c", &mut self.conditions, read.map(|()| start..text.len()))
            }
            TradeKey::Price => once("p", &mut self.price, map.next_value()),
            TradeKey::Time => once("t", &mut self.time, map.next_value()),
            TradeKey::Size => once("v", &mut self.size, map.next_value()),
            TradeKey::Other => map.next_value::<IgnoredAny>().map(drop),
        }
    }

    #[inline]
    fn resolve(self) -> Result<Parsed, String> {
        let symbol = self.symbol.filter(|symbol| !symbol.is_empty());
        let price = self.price.ok_or_else(|| missing("p", PRICE))?;
        let ms = self.time.ok_or_else(|| missing("t", TIME))?;
        let size = self.size.flatten();
        if !is_price(price) {
            return Err(wrong("p", price, PRICE));
        }
        if let Some(size) = size.filter(|size| !is_size(*size)) {
            return Err(wrong("v", size, SIZE));
        }
        Ok(Parsed {
            symbol: symbol.ok_or_else(|| missing("s", "the symbol as text"))?,
            conditions: self.conditions.unwrap_or_default(),
            price,
            // Indices and currencies have no volume.
            size: size.unwrap_or(f64::NAN),
            time: time_of_ms(ms).ok_or_else(|| wrong("t", ms, TIME))?,
        })
    }
}

/// Takes the value of a field that may come once.
#[inline]
fn once<T, E: de::Error>(field: &'static str, slot: &mut Option<T>, value: Result<T, E>) -> Result<(), E> {
    match value {
        Ok(_) if slot.is_some() => Err(E::duplicate_field(field)),
        Ok(value) => {
            *slot = Some(value);
            Ok(())
        }
        Err(error) => Err(E::custom(format_args!("{field}: {error}"))),
    }
}
