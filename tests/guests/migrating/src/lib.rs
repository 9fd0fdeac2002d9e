//! A later version of the stage `faulty` that never fails, and keeps its state in another form: it reads the older one,
//! which that stage cannot do with its own.

use serde::{Deserialize, Serialize};
use tapeline_sdk::{Event, Events, Fate, Kind, Kinds, Saved, SettingError, Stage};

/// Drops every thousandth trade of a symbol, as `faulty` does.
pub struct Migrating;

/// Those of `faulty`, of which it needs none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are taken, and not needed")]
pub struct Settings {
    fault: String,
    every: u64,
    remainder: u64,
}

/// Trades of a symbol, in thousands and what is left.
#[derive(Default, Serialize, Deserialize)]
pub struct Count {
    thousands: u64,
    rest: u16,
}

impl Saved for Count {
    const VERSION: u32 = 2;

    fn migrate(version: u32, bytes: &[u8]) -> Option<Self> {
        if version != 1 {
            return None;
        }
        let (count, _) = read_varint(bytes)?;
        Some(Self { thousands: count / 1_000, rest: (count % 1_000) as u16 })
    }
}

/// An unsigned number as postcard writes it (<https://postcard.jamesmunns.com/wire-format#varint-encoded-integers>).
fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

impl Stage for Migrating {
    const NAME: &'static str = "migrating";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = Count;
    type Out = Events;

    fn new(_: Settings) -> Result<Self, SettingError> {
        Ok(Self)
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade])
    }

    fn on_event(&mut self, _: Event<'_>, state: &mut Count, _: &mut Events) -> Fate {
        state.rest += 1;
        if state.rest < 1_000 {
            return Fate::Forward;
        }
        (state.thousands, state.rest) = (state.thousands + 1, 0);
        Fate::Drop("counted")
    }
}

tapeline_sdk::export_stage!(Migrating);
