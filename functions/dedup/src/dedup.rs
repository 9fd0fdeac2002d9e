//! The stage: what identifies an event, and what becomes of it.

use tapeline_sdk::{Event, Events, Fate, IdRef, Kind, Kinds, Row, SettingError, Stage};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    Policy, Seen, Settings,
    chunk::{Basis, split},
    seen::Key,
};

/// Ids are forgotten in steps of `keep` divided by this: the more steps, the less is remembered beyond `keep`, and the
/// more often memory is swept.
const STEPS: i64 = 8;
const NO_ID: &str =
    "no id; policy \"time\" takes events without ids that have one price per update, \"value\" any other";

/// Drops what was sent before.
pub struct Dedup {
    policy: Policy,
    watermark: i64,
    /// Events before this time are late.
    horizon: i64,
    steps: Steps,
    scratch: Vec<u8>,
}

impl Stage for Dedup {
    const NAME: &'static str = "dedup";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = Seen;
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        Ok(Self {
            policy: settings.policy,
            watermark: i64::MIN,
            horizon: i64::MIN,
            steps: Steps::new(settings.keep_ns()?),
            scratch: Vec::new(),
        })
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade, Kind::Quote])
    }

    #[inline]
    fn on_event(&mut self, event: Event<'_>, seen: &mut Seen, _: &mut Events) -> Fate {
        let Some((basis, key)) = self.key_of(&event) else { return Fate::Reject(NO_ID.to_owned()) };
        let time = event.time();
        if time < self.horizon {
            return Fate::Late;
        }
        seen.sweep(self.watermark);
        let expires_at = self.steps.expires_at(time);
        if seen.insert(&event, basis, key, expires_at, self.watermark) { Fate::Forward } else { Fate::Duplicate }
    }

    fn on_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
        self.horizon = watermark.saturating_sub(self.steps.keep);
    }
}

impl Dedup {
    /// What identifies the event within its symbol, source and kind; `None` when it has no id and needs one.
    #[inline]
    fn key_of(&mut self, event: &Event<'_>) -> Option<(Basis, Key)> {
        match (self.policy, event.id()) {
            (Policy::Id, IdRef::Number(id)) => Some((Basis::Number, Key::Number(id))),
            (Policy::Id, IdRef::Text(id)) => Some((Basis::Text, Key::Hash(split(xxh3_128(id.as_bytes()))))),
            (Policy::Id, IdRef::Absent) => None,
            (Policy::Time, _) => Some((Basis::Time, Key::Number(event.time().cast_unsigned()))),
            (Policy::Value, id) => {
                self.scratch.clear();
                value_of(event, id, &mut self.scratch);
                Some((Basis::Value, Key::Hash(split(xxh3_128(&self.scratch)))))
            }
        }
    }
}

/// When an event is forgotten: the cached step of `keep / 8` in which the last event lay, and when that expires.
struct Steps {
    keep: i64,
    step: i64,
    start: i64,
    end: i64,
    expires_at: i64,
}

impl Steps {
    fn new(keep: i64) -> Self {
        Self { keep, step: (keep / STEPS).max(1), start: 0, end: 0, expires_at: 0 }
    }

    /// The watermark at which an event of this time is forgotten: more than `time + keep`, the same for all times of a
    /// step, so that ids which came together are forgotten together.
    #[inline]
    fn expires_at(&mut self, time: i64) -> i64 {
        if time < self.start || time >= self.end {
            self.turn_to(time);
        }
        self.expires_at
    }

    #[cold]
    fn turn_to(&mut self, time: i64) {
        self.start = time.div_euclid(self.step).saturating_mul(self.step);
        self.end = self.start.saturating_add(self.step);
        self.expires_at = self.end.saturating_add(self.keep);
    }
}

/// Writes what policy `value` looks at, so that equal bytes mean equal values.
fn value_of(event: &Event<'_>, id: IdRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&event.time().to_le_bytes());
    match id {
        IdRef::Absent => out.push(0),
        IdRef::Number(id) => {
            out.push(1);
            out.extend_from_slice(&id.to_le_bytes());
        }
        IdRef::Text(id) => {
            out.push(2);
            put_text(id, out);
        }
    }
    match event.row() {
        Row::Trade(trade) => {
            put_numbers(&[trade.price, trade.size, trade.notional], out);
            put_text(trade.currency.map_or("", |currency| event.text(currency)), out);
            put_text(trade.conditions, out);
        }
        Row::Quote(quote) => put_numbers(&[quote.bid, quote.bid_size, quote.ask, quote.ask_size], out),
        _ => {}
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_numbers(numbers: &[f64], out: &mut Vec<u8>) {
    for number in numbers {
        // 0 and -0 are one value, and so are all NaN.
        let bits = if number.is_nan() { f64::NAN.to_bits() } else { (number + 0.0).to_bits() };
        out.extend_from_slice(&bits.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
