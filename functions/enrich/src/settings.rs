//! Settings of enrich.

use std::collections::BTreeMap;

use serde::Deserialize;
use tapeline_sdk::SettingError;

/// What instruments and venues are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is known of an instrument, by its symbol as the source writes it, or by `source:symbol`, which comes first.
    pub names: BTreeMap<String, Instrument>,
    /// Venue of a source. The default is the source in upper case.
    pub venues: BTreeMap<String, String>,
}

/// What is known of an instrument; what is left out stays as it is without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Instrument {
    /// The symbol behind the venue.
    pub symbol: Option<String>,
    /// The venue before the symbol.
    pub venue: Option<String>,
    /// What its prices are in where the event does not say; `GBp` makes both trades and quotes pounds.
    pub currency: Option<String>,
}

impl Settings {
    /// Checks what a type cannot.
    ///
    /// # Errors
    /// At the first text that is empty, or venue with a colon.
    pub fn check(&self) -> Result<(), SettingError> {
        for (source, venue) in &self.venues {
            check_venue(&format!("venues.{source}"), venue)?;
        }
        for (symbol, instrument) in &self.names {
            let key = |field| format!("names.{symbol}.{field}");
            check_text(&key("symbol"), instrument.symbol.as_deref())?;
            check_text(&key("currency"), instrument.currency.as_deref())?;
            instrument.venue.as_deref().map_or(Ok(()), |venue| check_venue(&key("venue"), venue))?;
        }
        Ok(())
    }

    /// What the settings know of a symbol of a source.
    pub(crate) fn instrument(&self, source: &str, symbol: &str) -> Option<&Instrument> {
        self.names.get(&format!("{source}:{symbol}")).or_else(|| self.names.get(symbol))
    }
}

fn check_text(key: &str, text: Option<&str>) -> Result<(), SettingError> {
    if text == Some("") { Err(wrong(key, "", "a text that is not empty")) } else { Ok(()) }
}

/// A colon ends the venue in a canonical symbol.
fn check_venue(key: &str, venue: &str) -> Result<(), SettingError> {
    if venue.is_empty() || venue.contains(':') {
        return Err(wrong(key, venue, "a venue that is not empty and has no colon"));
    }
    Ok(())
}

/// With its value: symbols may hold dots, which the SDK takes for steps of a path when it looks a value up.
fn wrong(key: &str, value: &str, expected: &str) -> SettingError {
    SettingError { key: key.to_owned(), value: format!("{value:?}"), expected: expected.to_owned() }
}
