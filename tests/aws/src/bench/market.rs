//! What the functions are given: trades as Binance sends them.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
};

use anyhow::{Result, ensure};
use flate2::read::GzDecoder;
use tapeline_harness::{program, recordings};

/// How a message with a trade can be told from others of the stream. Those cost as little as a line of JSON does.
const TRADE: &str = r#""e":"trade""#;
/// The symbols of a made-up market, and its trades a second.
const SYMBOLS: &str = "BTCUSDT,ETHUSDT,SOLUSDT";
const RATE: &str = "50";

/// Trades, in their order.
pub struct Market {
    /// What it is.
    pub name: String,
    /// Each as one line of JSON.
    pub trades: Vec<String>,
}

impl Market {
    /// The recording, where it is there, else a made-up market: so many trades at most, and as many at least as `needed`.
    ///
    /// # Errors
    /// When it cannot be read, or is too short.
    pub fn new(trades_max: usize, needed: usize) -> Result<Self> {
        let (name, lines) = match recordings::folder() {
            Some(folder) => {
                let mut lines = Vec::new();
                for file in recordings::bitcoin(&folder) {
                    let text = BufReader::new(GzDecoder::new(File::open(file)?)).lines();
                    lines.extend(text.collect::<Result<Vec<String>, _>>()?);
                }
                ("the recording of BTCUSDT, 2024-08-08 and -09", lines)
            }
            None => {
                let arguments = ["simulate", "--trades", &trades_max.to_string(), "--rate", RATE, "--symbols", SYMBOLS];
                let lines = program::output(&arguments)?.lines().map(str::to_owned).collect();
                ("a made-up market, since the recordings are not there", lines)
            }
        };
        // Without the receive times in front: functions have a clock of their own.
        let frame = |line: String| line.split_once(' ').map(|(_, frame)| frame.to_owned()).unwrap_or(line);
        let trades = lines.into_iter().map(frame).filter(|frame| frame.contains(TRADE)).take(trades_max);
        let trades: Vec<String> = trades.collect();
        ensure!(trades.len() >= needed, "{} trades in {name} instead of {needed} at least", trades.len());
        Ok(Self { name: name.to_owned(), trades })
    }
}
