//! The stage: finds the decoder of a format, and refuses what no decoder can read.

use tapeline_sdk::{Decoded, Decoder, Frame, Kinds, Part, SettingError};

use crate::{
    Settings,
    binance::Binance,
    events,
    finnhub::Finnhub,
    record::{EMPTY, day, shorten},
};

/// Formats and what to call them in a reason.
const FORMATS: &str = "binance, finnhub, events";

/// Decodes the messages of vendors.
#[derive(Default)]
pub struct Fetch {
    binance: Binance,
    finnhub: Finnhub,
}

impl Decoder for Fetch {
    const NAME: &'static str = "fetch";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;

    fn new(Settings {}: Settings) -> Result<Self, SettingError> {
        Ok(Self::default())
    }

    fn gives(&self) -> Kinds {
        Kinds::ALL
    }

    #[inline]
    fn decode(&mut self, format: &str, frame: Frame<'_>, out: &mut Decoded) {
        match format {
            "binance" => with_text(frame, out, |text, out| self.binance.decode(text, frame.received, out)),
            "finnhub" => with_text(frame, out, |text, out| self.finnhub.decode(text, frame.received, out)),
            "events" => with_text(frame, out, |text, out| events::decode(text, frame.received, out)),
            _ => out.reject(Part::Whole, None, unknown_format(format)),
        }
    }
}

/// Calls a decoder with the frame's text. The check of the whole frame lets the decoder skip that of each string, and
/// finds what is wrong in parts that the decoder passes over.
#[inline]
fn with_text(frame: Frame<'_>, out: &mut Decoded, decode: impl FnOnce(&str, &mut Decoded)) {
    match simdutf8::compat::from_utf8(frame.bytes) {
        Ok(text) if text.trim_ascii().is_empty() => out.drop(EMPTY, None, day(frame.received)),
        Ok(text) => decode(text, out),
        Err(error) => {
            out.reject(Part::Whole, None, format!("not UTF-8 from byte {}, expected JSON", error.valid_up_to()));
        }
    }
}

fn unknown_format(format: &str) -> String {
    format!("format: found {:?}, expected one of {FORMATS}", shorten(format))
}

#[cfg(test)]
mod tests;
