//! `tapeline simulate`: a recording of a market that never was.

use std::io::Write as _;

use clap::Args;

use super::{exit::Exit, output, parse_time_arg};
use crate::{
    connector::{SimulatorSettings, write_recording},
    error::Result,
};

/// Write a recording of a simulated market to standard output
#[derive(Args)]
#[command(after_help = "\
It speaks Binance's combined streams. The same options give the same bytes on every machine.

Examples:
  tapeline simulate --trades 100000 > btc.ndjson
  tapeline simulate --trades 1000000 --symbols BTCUSDT,ETHUSDT,SOLUSDT --seed 7 | zstd > market.ndjson.zst
  tapeline simulate --trades 10000 | tapeline run pipelines/bitcoin-trades.toml --input -")]
pub(super) struct Simulate {
    /// Number of trades; other messages and trades that are sent twice come on top
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    trades: u64,
    /// Same seed, same market
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Symbols
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    symbols: Vec<String>,
    /// Trades in a second of event time, all symbols together
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Share of the messages that are no trades
    #[arg(long, value_name = "X")]
    noise: Option<f64>,
    /// Time of the first trade: a day, or RFC 3339
    #[arg(long, value_name = "TIME", default_value = "2024-08-08T00:00:00Z", value_parser = parse_time_arg)]
    start: i64,
}

impl Simulate {
    pub(super) fn run(self) -> Result<Exit> {
        let usual = SimulatorSettings::default();
        let settings = SimulatorSettings {
            seed: self.seed.unwrap_or(usual.seed),
            symbols: if self.symbols.is_empty() { usual.symbols } else { self.symbols },
            rate: self.rate.unwrap_or(usual.rate),
            noise: self.noise.unwrap_or(usual.noise),
        };
        let mut out = output::lock();
        write_recording(&settings, self.start, self.trades, &mut out)?;
        out.flush()?;
        Ok(Exit::Fine)
    }
}
