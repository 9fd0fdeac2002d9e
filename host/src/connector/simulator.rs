//! A market that never was, for trying and for measuring: it speaks Binance's combined streams.
//!
//! The seed and the number of frames decide everything but the times, which the caller gives: the same seed gives the
//! same bytes on every machine. All numbers are integers for that reason. It has what real feeds have: other messages
//! between the trades, trades of one millisecond, trades that come late, and trades that come twice.

mod frame;
mod market;
#[cfg(test)]
mod tests;

use std::io::Write;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};

use self::{
    frame::Text,
    market::{Chance, Market},
};
use crate::error::{Context, Error, Kind, Result};

/// Symbols that can be simulated: as many as Binance lets one connection have streams.
const SYMBOLS_MAX: usize = 1024;
/// Letters of a symbol. They need no escaping in JSON.
const SYMBOL_BYTES_MAX: usize = 20;
/// Trades in a second: above it, a microsecond and less is between two.
const RATE_MAX: f64 = 1_000_000.0;
/// Share of frames that are no trades. With more, trades would hardly come.
const NOISE_MAX: f64 = 0.9;
/// One in so many trades is sent twice.
const REPEATED_ONE_IN: u32 = 2_000;
/// One in so many trades comes late.
const DELAYED_ONE_IN: u32 = 1_000;
/// One in so many trades has symbol and time of the one before: an order that met several others.
const SWEEP_ONE_IN: u32 = 10;
/// No trade is stamped further back than this; a watermark that stays two seconds behind loses none.
const BACK_MS_MAX: i64 = 300;
/// What a frame takes from the venue to a receiver far away, ns.
const LATENCY_NS: i64 = 5_000_000;

/// What to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatorSettings {
    /// Same seed, same market.
    pub seed: u64,
    /// Different ones, each 1 to 20 of A-Z and 0-9.
    pub symbols: Vec<String>,
    /// Trades in a second, all symbols together; for whoever calls for frames, not for [`Simulator`].
    pub rate: f64,
    /// Share of the frames that are no trades, 0 to 0.9.
    pub noise: f64,
}

impl Default for SimulatorSettings {
    /// Two symbols that everybody knows, lively but not too fast to be read; every third frame is no trade.
    fn default() -> Self {
        Self { seed: 1, symbols: vec!["BTCUSDT".to_owned(), "ETHUSDT".to_owned()], rate: 50.0, noise: 0.33 }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value} instead of {expected}")]
pub struct WrongSetting {
    /// Which: `symbols[1]`.
    pub key: String,
    /// What was found.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl From<WrongSetting> for Error {
    fn from(wrong: WrongSetting) -> Self {
        Self::invalid(wrong.to_string())
    }
}

impl SimulatorSettings {
    /// Checks all of them.
    ///
    /// # Errors
    /// At the first that cannot be used.
    pub fn check(&self) -> Result<(), WrongSetting> {
        let wrong =
            |key: &str, value: String, expected: String| Err(WrongSetting { key: key.to_owned(), value, expected });
        if !(1..=SYMBOLS_MAX).contains(&self.symbols.len()) {
            return wrong("symbols", format!("{} symbols", self.symbols.len()), format!("1 to {SYMBOLS_MAX} symbols"));
        }
        for (at, symbol) in self.symbols.iter().enumerate() {
            let is_allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            if !(1..=SYMBOL_BYTES_MAX).contains(&symbol.len()) || !symbol.bytes().all(is_allowed) {
                let expected = format!("1 to {SYMBOL_BYTES_MAX} of A-Z and 0-9");
                return wrong(&format!("symbols[{at}]"), format!("{symbol:?}"), expected);
            }
            if self.symbols.iter().take(at).any(|earlier| earlier == symbol) {
                let expected = "a symbol that is not there yet".to_owned();
                return wrong(&format!("symbols[{at}]"), format!("{symbol:?}"), expected);
            }
        }
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return wrong("rate", self.rate.to_string(), format!("more than 0, at most {RATE_MAX}"));
        }
        if !(0.0..=NOISE_MAX).contains(&self.noise) {
            return wrong("noise", self.noise.to_string(), format!("0 to {NOISE_MAX}"));
        }
        Ok(())
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A trade.
    Trade,
    /// The trade before, once more.
    Repeated,
    /// The best bid and offer.
    BookTicker,
    /// Changes of the order book.
    Depth,
}

/// A frame as the vendor would send it. Its text is valid until the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What is in it.
    pub kind: FrameKind,
    /// JSON.
    pub text: &'a str,
}

/// A trade as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trade {
    /// Position in the settings.
    symbol: usize,
    id: u64,
    price_ticks: u64,
    size_e5: u64,
    time_ms: i64,
    is_buyer_maker: bool,
}

/// All that the next frames depend on, besides the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    /// Random words that have been used.
    words: u64,
    markets: Vec<Market>,
    last: Option<Trade>,
    /// The last trade is to be sent once more.
    is_repeat_due: bool,
}

/// The simulator. Same settings and times, same frames.
#[derive(Debug)]
pub struct Simulator {
    chance: Chance,
    /// Of 2^32 draws, so many are no trades.
    noise: u64,
    markets: Vec<Market>,
    last: Option<Trade>,
    is_repeat_due: bool,
    text: Text,
}

impl Simulator {
    /// A simulator at its beginning.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: &SimulatorSettings) -> Result<Self> {
        settings.check()?;
        let rng = ChaCha8Rng::seed_from_u64(settings.seed);
        Ok(Self {
            noise: (settings.noise * (1_u64 << 32) as f64) as u64,
            markets: settings.symbols.iter().map(|symbol| Market::new(symbol, rng.clone())).collect(),
            chance: Chance(rng),
            last: None,
            is_repeat_due: false,
            text: Text::default(),
        })
    }

    /// A simulator that goes on where another one with the same seed was. Symbols that are new begin; those that the
    /// settings no longer name are forgotten.
    ///
    /// # Errors
    /// When a setting cannot be used or the cursor is none.
    pub fn resume(settings: &SimulatorSettings, cursor: &str) -> Result<Self> {
        let mut simulator = Self::new(settings)?;
        let cursor: Cursor = serde_json::from_str(cursor)
            .map_err(|error| Error::caused(Kind::Corrupt, "read the simulator's cursor", error))?;
        let is_same = cursor.markets.iter().map(Market::symbol).eq(settings.symbols.iter().map(String::as_str));
        if is_same {
            simulator.last = cursor.last.filter(|trade| trade.symbol < settings.symbols.len());
            simulator.is_repeat_due = cursor.is_repeat_due;
        }
        for market in &mut simulator.markets {
            if let Some(known) = cursor.markets.iter().find(|known| known.symbol() == market.symbol()) {
                *market = known.clone();
            }
        }
        simulator.chance.0.set_word_pos(u128::from(cursor.words));
        Ok(simulator)
    }

    /// What [`Simulator::resume`] needs to go on behind the last frame.
    pub fn cursor(&self) -> String {
        let cursor = Cursor {
            // A machine that draws a billion words a second takes 584 years to use them up.
            words: self.chance.0.get_word_pos() as u64,
            markets: self.markets.clone(),
            last: self.last,
            is_repeat_due: self.is_repeat_due,
        };
        serde_json::to_string(&cursor).expect("numbers and names that are text are JSON")
    }

    /// The next frame, sent at a time.
    pub fn next_frame(&mut self, event_time_ms: i64) -> Frame<'_> {
        let kind = self.write_next(event_time_ms);
        Frame { kind, text: self.text.as_str() }
    }

    fn write_next(&mut self, now_ms: i64) -> FrameKind {
        if std::mem::take(&mut self.is_repeat_due)
            && let Some(trade) = self.last
        {
            self.write_trade(&trade);
            return FrameKind::Repeated;
        }
        if u64::from(self.chance.word()) < self.noise {
            return self.write_noise(now_ms);
        }
        let trade = self.draw_trade(now_ms);
        self.write_trade(&trade);
        self.last = Some(trade);
        self.is_repeat_due = self.chance.is_one_in(REPEATED_ONE_IN);
        FrameKind::Trade
    }

    fn draw_trade(&mut self, now_ms: i64) -> Trade {
        let chance = &mut self.chance;
        let recent = self.last.filter(|last| (0..=BACK_MS_MAX).contains(&now_ms.saturating_sub(last.time_ms)));
        let (symbol, mut time_ms) = match recent {
            Some(last) if chance.is_one_in(SWEEP_ONE_IN) => (last.symbol, last.time_ms),
            _ => (chance.below(self.markets.len()), now_ms),
        };
        if chance.is_one_in(DELAYED_ONE_IN) {
            time_ms = now_ms.saturating_sub(1 + chance.below(BACK_MS_MAX as usize) as i64);
        }
        self.markets[symbol].trade(symbol, time_ms, chance)
    }

    fn write_trade(&mut self, trade: &Trade) {
        self.text.trade(&self.markets[trade.symbol], trade);
    }

    fn write_noise(&mut self, now_ms: i64) -> FrameKind {
        let at = self.chance.below(self.markets.len());
        let market = &mut self.markets[at];
        let update = market.update(&mut self.chance);
        if self.chance.is_one_in(2) {
            self.text.book_ticker(market, &update);
            return FrameKind::BookTicker;
        }
        self.text.depth(market, &update, now_ms);
        FrameKind::Depth
    }
}

/// Writes a recording, each line `<receive ns> <frame>`, and gives the number of its frames. It has `trades` different
/// trades, one every 1 / rate seconds of event time.
///
/// # Errors
/// When a setting cannot be used, the times do not fit, or `out` fails.
pub fn write_recording(settings: &SimulatorSettings, start_ns: i64, trades: u64, out: &mut dyn Write) -> Result<u64> {
    let mut simulator = Simulator::new(settings)?;
    let step_ns = 1e9 / settings.rate;
    let (mut written, mut frames) = (0, 0);
    let mut line = Vec::new();
    while written < trades {
        let time_ns = at(start_ns, step_ns, written)?;
        let frame = simulator.next_frame(time_ns.div_euclid(1_000_000));
        line.clear();
        writeln!(line, "{} {}", time_ns.saturating_add(LATENCY_NS), frame.text)?;
        written += u64::from(frame.kind == FrameKind::Trade);
        frames += 1;
        out.write_all(&line).doing(|| "write the recording".to_owned())?;
    }
    Ok(frames)
}

fn at(start_ns: i64, step_ns: f64, trades: u64) -> Result<i64> {
    let offset = trades as f64 * step_ns;
    let time = (offset < i64::MAX as f64).then(|| start_ns.checked_add(offset as i64)).flatten();
    time.ok_or_else(|| Error::invalid("simulate trades behind the year 2262"))
}
