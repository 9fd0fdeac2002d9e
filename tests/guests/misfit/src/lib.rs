//! A writer that gives out rows of another form than those that its table has: what a new version of a writer may do by
//! mistake, and only a commit finds out.

use serde::Deserialize;
use tapeline_sdk::{Cell, Event, Fate, Kind, Kinds, SettingError, Stage, State, StateError, StateParts, Table, Tables};

/// Writes trades as two columns.
pub struct Misfit;

/// Those of the stage `write`, of which it needs none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are taken, and not needed")]
pub struct Settings {
    tables: Vec<String>,
    objects: Vec<String>,
}

/// Whatever the stage `write` keeps.
#[derive(Default)]
pub struct Anything;

impl State for Anything {
    const VERSION: u32 = 1;

    fn save(&mut self, _: &mut StateParts) {}

    fn load(&mut self, _: u64, _: u32, _: &[u8]) -> Result<(), StateError> {
        Ok(())
    }
}

static TRADES: Table = Table { name: "trades", key_columns: 1, columns: &["symbol", "price"] };

impl Stage for Misfit {
    const NAME: &'static str = "misfit";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = Anything;
    type Out = Tables;

    fn new(_: Settings) -> Result<Self, SettingError> {
        Ok(Self)
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade])
    }

    fn on_event(&mut self, event: Event<'_>, _: &mut Anything, out: &mut Tables) -> Fate {
        out.row(&TRADES, &[Cell::Text(event.text(event.symbol())), Cell::Number(1.0)]);
        Fate::Forward
    }
}

tapeline_sdk::export_writer!(Misfit);
