//! The stage: takes trades one by one, gives out averages behind each, and bars when they are due.

use tapeline_sdk::{
    Average, Envelope, Event, Events, Fate, IdRef, Kind, Kinds, Name, Names, SettingError, Stage, Trade, Wake,
};

use crate::{
    bars::{OpenBar, Print},
    settings::{Plan, Settings},
    state::SymbolState,
    windows::Tick,
};

/// Largest price and size: one that is no number, or so large that sums and products of it end in infinity, would
/// spoil every later sum of the symbol. No market comes near it.
const MAGNITUDE_MAX: f64 = 1e100;

/// Makes bars and averages of trades.
#[derive(Debug)]
pub struct Aggregate {
    plan: Plan,
    /// Trades before this time are late.
    time_min: i64,
}

impl Stage for Aggregate {
    const NAME: &'static str = "aggregate";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = SymbolState;
    type Out = Events;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        Ok(Self { plan: Plan::try_from(settings)?, time_min: i64::MIN })
    }

    fn takes(&self) -> Kinds {
        Kinds::of(&[Kind::Trade])
    }

    fn gives(&self) -> Kinds {
        Kinds::of(&[Kind::Bar, Kind::Average])
    }

    #[inline]
    fn on_event(&mut self, event: Event<'_>, state: &mut SymbolState, out: &mut Events) -> Fate {
        let Some(trade) = event.trade() else { return Fate::Forward };
        if let Some(reason) = flaw(&trade) {
            return Fate::Reject(reason.to_owned());
        }
        let time = event.time();
        if time < self.time_min || time < state.bars.final_until() {
            return Fate::Late;
        }
        state.resume(&self.plan);
        state.touch(time);
        if !self.plan.windows.is_empty() {
            let windows = state.slide(Tick { time, price: trade.price }, self.time_min);
            let envelope = event.envelope();
            for mean in windows.means() {
                let (window, count) = (mean.length.unsigned_abs(), mean.count as u64);
                out.emit(&envelope, Average { window, average: mean.average, count, price: trade.price });
            }
        }
        if !self.plan.bars.is_empty() {
            let size = if trade.size.is_nan() { 0.0 } else { trade.size };
            let source = event.text(event.source());
            let print = Print { time, price: trade.price, size, unit: event.unit(), source };
            state.bars.take(&print, self.plan.provisional, |bar| {
                give(bar, Finality::Provisional, event.symbol(), event.names(), out);
            });
        }
        Fate::Forward
    }

    fn on_wake(&mut self, wake: Wake<'_>, state: &mut SymbolState, out: &mut Events) {
        state.resume(&self.plan);
        let due = state.bars.end_min().is_some_and(|end| end.saturating_add(self.plan.lateness) <= wake.watermark);
        if due && let Some(bar) = state.bars.take_final() {
            state.changed();
            give(&bar, Finality::Final, wake.key, wake.names(), out);
        }
    }

    fn on_watermark(&mut self, watermark: i64) {
        self.time_min = watermark.saturating_sub(self.plan.lateness);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finality {
    Provisional,
    Final,
}

/// Why a trade cannot be used.
#[inline]
fn flaw(trade: &Trade<'_>) -> Option<&'static str> {
    // No comparison holds for a NaN: as a price it is a flaw, as a size it says that there is none.
    let has_price = trade.price.abs() <= MAGNITUDE_MAX;
    if !has_price {
        Some("price: not a number of at most 1e100")
    } else if trade.size < 0.0 || trade.size > MAGNITUDE_MAX {
        Some("size: not a number in 0 to 1e100")
    } else {
        None
    }
}

#[cold]
fn give(bar: &OpenBar, finality: Finality, symbol: Name, names: &Names, out: &mut Events) {
    let source = out.intern(names, &bar.source);
    let envelope = Envelope { symbol, source, time: bar.start, unit: bar.unit(), received: None, id: IdRef::Absent };
    out.emit(&envelope, bar.row(finality == Finality::Final));
}

#[cfg(test)]
mod tests;
