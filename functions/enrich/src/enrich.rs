//! The stage: names an instrument once, then looks it up.

use rustc_hash::FxHashMap;
use tapeline_sdk::{Event, Events, Fate, Kind, Kinds, Name, Quote, SettingError, Stage, Trade};

use crate::Settings;

/// Minor currency units as vendors write them, their major units, and how many make one.
const MINOR_UNITS: [(&str, &str, f64); 4] =
    [("GBp", "GBP", 100.0), ("GBX", "GBP", 100.0), ("ILA", "ILS", 100.0), ("ZAc", "ZAR", 100.0)];

/// Decimals that exchanges quote in minor units, and more: six.
const MICROS: f64 = 1e6;
/// All integers below it are binary64.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Between venue and symbol.
const SEPARATOR: char = ':';

/// Gives trades and quotes their canonical form.
///
/// What it keeps depends on settings and names alone, so it is no state: it is made again when it is needed.
pub struct Enrich {
    settings: Settings,
    /// By source and symbol.
    instruments: FxHashMap<(Name, Name), Canonical>,
    /// By symbol, the source that it last came from: most have one, and an index costs less than a hash.
    recent: Vec<Option<(Name, Canonical)>>,
    currencies: FxHashMap<Name, Money>,
}

/// An instrument as it goes out.
#[derive(Clone, Copy)]
struct Canonical {
    symbol: Name,
    /// What prices are in where the event does not say.
    money: Option<Money>,
}

/// A currency as it goes out.
#[derive(Clone, Copy)]
struct Money {
    currency: Name,
    /// How many of the units that came in make one.
    per_major: f64,
}

impl Stage for Enrich {
    const NAME: &'static str = "enrich";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = ();
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        settings.check()?;
        Ok(Self { settings, instruments: FxHashMap::default(), recent: Vec::new(), currencies: FxHashMap::default() })
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade, Kind::Quote])
    }

    fn gives(&self) -> Kinds {
        self.takes()
    }

    #[inline]
    fn on_event(&mut self, event: Event<'_>, (): &mut (), out: &mut Events) -> Fate {
        if let Some(trade) = event.trade() {
            self.take_trade(&event, trade, out);
        } else if let Some(quote) = event.quote() {
            self.take_quote(&event, quote, out);
        } else {
            return Fate::Forward;
        }
        Fate::Replaced
    }
}

impl Enrich {
    #[inline]
    fn take_trade(&mut self, event: &Event<'_>, mut trade: Trade<'_>, out: &mut Events) {
        let canonical = self.canonical(event, out);
        let money = match trade.currency {
            Some(currency) => Some(self.money(event, currency, out)),
            None => canonical.money,
        };
        if let Some(Money { currency, per_major }) = money {
            trade.currency = Some(currency);
            trade.price = in_major(trade.price, per_major);
        }
        let mut envelope = event.envelope();
        envelope.symbol = canonical.symbol;
        trade.notional = notional(trade.price, trade.size);
        trade.lag = envelope.received.and_then(|received| received.checked_sub(envelope.time));
        out.emit(&envelope, trade);
    }

    #[inline]
    fn take_quote(&mut self, event: &Event<'_>, mut quote: Quote, out: &mut Events) {
        let canonical = self.canonical(event, out);
        if let Some(Money { per_major, .. }) = canonical.money {
            quote.bid = in_major(quote.bid, per_major);
            quote.ask = in_major(quote.ask, per_major);
        }
        let mut envelope = event.envelope();
        envelope.symbol = canonical.symbol;
        out.emit(&envelope, quote);
    }

    #[inline]
    fn canonical(&mut self, event: &Event<'_>, out: &mut Events) -> Canonical {
        let (source, symbol) = (event.source(), event.symbol());
        match self.recent.get(symbol.0 as usize) {
            Some(Some((recent, canonical))) if *recent == source => *canonical,
            _ => self.look_up((source, symbol), event, out),
        }
    }

    fn look_up(&mut self, key: (Name, Name), event: &Event<'_>, out: &mut Events) -> Canonical {
        let canonical = match self.instruments.get(&key) {
            Some(canonical) => *canonical,
            None => self.name(key, event, out),
        };
        let (source, symbol) = key;
        if symbol.0 != Name::NONE {
            let at = symbol.0 as usize;
            self.recent.resize(self.recent.len().max(at + 1), None);
            if let Some(slot) = self.recent.get_mut(at) {
                *slot = Some((source, canonical));
            }
        }
        canonical
    }

    #[cold]
    fn name(&mut self, key: (Name, Name), event: &Event<'_>, out: &mut Events) -> Canonical {
        let (source, symbol) = (event.text(key.0), event.text(key.1));
        let money = self.settings.instrument(source, symbol).and_then(|instrument| instrument.currency.as_deref());
        let money = money.map(|currency| resolve_money(event, currency, out));
        let symbol = out.intern(event.names(), &canonical_symbol(&self.settings, source, symbol));
        let canonical = Canonical { symbol, money };
        self.instruments.insert(key, canonical);
        canonical
    }

    #[inline]
    fn money(&mut self, event: &Event<'_>, currency: Name, out: &mut Events) -> Money {
        let resolve = || resolve_money(event, event.text(currency), out);
        *self.currencies.entry(currency).or_insert_with(resolve)
    }
}

/// `VENUE:SYMBOL`. A symbol with a colon has its venue already: it stays, but for what the settings say of it. Without
/// any venue the symbol stands alone.
fn canonical_symbol(settings: &Settings, source: &str, symbol: &str) -> String {
    let (own_venue, own_symbol) = match symbol.split_once(SEPARATOR) {
        Some((venue, rest)) => (Some(venue), rest),
        None => (None, symbol),
    };
    let known = settings.instrument(source, symbol);
    let known_symbol = known.and_then(|known| known.symbol.as_deref()).unwrap_or(own_symbol);
    let known_venue = known.and_then(|known| known.venue.as_deref()).or(own_venue);
    match known_venue.or_else(|| settings.venues.get(source).map(String::as_str)) {
        Some(venue) => format!("{venue}{SEPARATOR}{known_symbol}"),
        None if source.is_empty() => known_symbol.to_owned(),
        None => format!("{}{SEPARATOR}{known_symbol}", source.to_ascii_uppercase()),
    }
}

fn resolve_money(event: &Event<'_>, currency: &str, out: &mut Events) -> Money {
    let minor = MINOR_UNITS.iter().find(|(minor, _, _)| *minor == currency);
    let (currency, per_major) = minor.map_or((currency, 1.0), |(_, major, per_major)| (*major, *per_major));
    Money { currency: out.intern(event.names(), currency), per_major }
}

/// The number nearest to the decimal that a price is in major units: 77.1 in pence is 0.771 and not the
/// 0.7709999999999999 that a division gives, as 77.1 is no binary number.
#[inline]
fn in_major(price: f64, per_major: f64) -> f64 {
    let micros = (price * MICROS).round_ties_even();
    if per_major == 1.0 {
        price
    } else if micros.abs() < INTEGER_MAX && micros / MICROS == price {
        // Both sides are exact, so the quotient is rounded once.
        micros / (MICROS * per_major)
    } else {
        price / per_major
    }
}

/// Price x size; none without a size, or beyond what a number can hold.
#[inline]
fn notional(price: f64, size: f64) -> f64 {
    let notional = price * size;
    if notional.is_finite() { notional } else { f64::NAN }
}

#[cfg(test)]
mod tests;
