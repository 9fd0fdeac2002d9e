//! One simulated instrument: a random walk in integers.

use rand_chacha::{ChaCha8Rng, rand_core::RngCore};
use serde::{Deserialize, Serialize};

use super::Trade;

/// A tick, 0.01, in units of 10^-8.
pub(super) const TICK_E8: u64 = 1_000_000;
/// Prices stay within 1 and 1,000,000, in units of 10^-8: at 1, a step is still a hundredth of a tick.
const PRICE_E8_RANGE: (u64, u64) = (100_000_000, 100_000_000_000_000);
/// Largest step of a price, in millionths of it; with steps that are spread evenly, the typical one is 1/10,000.
const STEP_MILLIONTHS: i64 = 173;
/// Prices at which a chart looks familiar, in ticks.
const START_TICKS: [(&str, u64); 3] = [("BTCUSDT", 6_000_000), ("ETHUSDT", 300_000), ("SOLUSDT", 15_000)];
/// Ticks between bid and ask, at most.
const SPREAD_TICKS_MAX: usize = 4;

/// The simulator's only source of chance.
#[derive(Debug)]
pub(super) struct Chance(pub(super) ChaCha8Rng);

impl Chance {
    pub(super) fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Less than `bound`. Off by one in millions from evenly spread, which nobody sees in a market.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u64::from(self.word()) * bound as u64) >> 32) as usize
    }

    pub(super) fn is_one_in(&mut self, count: u32) -> bool {
        self.word() < u32::MAX / count
    }

    /// In 10^-5 units, 0.00001 to 167.77216; small ones are as frequent as in a real market.
    fn size_e5(&mut self) -> u64 {
        let shift = 8 + self.below(16);
        1 + u64::from(self.word() >> shift)
    }
}

/// One instrument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Market {
    symbol: String,
    price_e8: u64,
    last_trade_id: u64,
    last_update_id: u64,
}

/// A change of the order book.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    pub(super) id_first: u64,
    pub(super) id_last: u64,
    pub(super) bid_ticks: u64,
    pub(super) bid_size_e5: u64,
    pub(super) ask_ticks: u64,
    pub(super) ask_size_e5: u64,
}

impl Market {
    /// An instrument at its first price, which depends on seed and symbol but not on the other symbols.
    pub(super) fn new(symbol: &str, mut rng: ChaCha8Rng) -> Self {
        rng.set_stream(symbol.bytes().fold(1, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))));
        let drawn = 1_000 + Chance(rng).below(99_000) as u64;
        let ticks = START_TICKS.iter().find(|(known, _)| *known == symbol).map_or(drawn, |(_, ticks)| *ticks);
        Self { symbol: symbol.to_owned(), price_e8: ticks * TICK_E8, last_trade_id: 0, last_update_id: 0 }
    }

    pub(super) fn symbol(&self) -> &str {
        &self.symbol
    }

    /// The next trade, after a step of the price.
    pub(super) fn trade(&mut self, symbol: usize, time_ms: i64, chance: &mut Chance) -> Trade {
        self.step(chance);
        self.last_trade_id += 1;
        Trade {
            symbol,
            id: self.last_trade_id,
            price_ticks: self.price_ticks(),
            size_e5: chance.size_e5(),
            time_ms,
            is_buyer_maker: chance.is_one_in(2),
        }
    }

    /// The next change of the order book, around the price.
    pub(super) fn update(&mut self, chance: &mut Chance) -> Update {
        let id_first = self.last_update_id + 1;
        self.last_update_id += 1 + chance.below(8) as u64;
        let bid_ticks = self.price_ticks().saturating_sub(chance.below(SPREAD_TICKS_MAX) as u64);
        Update {
            id_first,
            id_last: self.last_update_id,
            bid_ticks,
            bid_size_e5: chance.size_e5(),
            ask_ticks: bid_ticks + 1 + chance.below(SPREAD_TICKS_MAX) as u64,
            ask_size_e5: chance.size_e5(),
        }
    }

    fn step(&mut self, chance: &mut Chance) {
        let draw = chance.word() as i32;
        let drawn = ((i128::from(self.price_e8) * i128::from(draw)) >> 31) as i64;
        let step = drawn * STEP_MILLIONTHS / 1_000_000;
        let (least, most) = PRICE_E8_RANGE;
        self.price_e8 = self.price_e8.saturating_add_signed(step).clamp(least, most);
    }

    fn price_ticks(&self) -> u64 {
        (self.price_e8 + TICK_E8 / 2) / TICK_E8
    }
}
