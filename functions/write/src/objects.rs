//! Objects: for each symbol and day one CSV file of trades and one of final bars.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tapeline_sdk::{Day, Object, Tables};

/// What stays in a path: letters, digits and these. All else, and bytes outside of ASCII, is percent-encoded, so that a
/// symbol is one segment of a path and readable in it.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
const DAY_NS: i64 = 86_400_000_000_000;

/// A family of objects.
pub(crate) struct Files {
    name: &'static str,
    header: &'static [u8],
}

/// `trades/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/trades.csv`
pub(crate) static TRADES: Files = Files { name: "trades", header: b"time,id,price,size,source\n" };
/// `bars/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/bars.csv`
pub(crate) static BARS: Files =
    Files { name: "bars", header: b"interval,start,count,average,open,high,low,close,volume,vwap\n" };

/// The object of one symbol that was appended to last.
#[derive(Default)]
pub(crate) struct File {
    /// Its day, `start..end`, ns.
    start: i64,
    end: i64,
    path: String,
    object: Option<Object>,
}

impl File {
    /// The bytes that are put at the end of the object for the day in which `time` lies.
    #[inline]
    pub(crate) fn of<'a>(&mut self, files: &Files, symbol: &str, time: i64, out: &'a mut Tables) -> &'a mut Vec<u8> {
        if time < self.start || time >= self.end {
            self.turn_to(files, symbol, time);
        }
        let object = match self.object {
            Some(object) if out.is_open(object) => object,
            _ => *self.object.insert(out.open(&self.path, files.header)),
        };
        out.bytes(object)
    }

    #[cold]
    fn turn_to(&mut self, files: &Files, symbol: &str, time: i64) {
        let day = Day::of(time);
        self.start = i64::from(day.0).saturating_mul(DAY_NS);
        self.end = self.start.saturating_add(DAY_NS);
        let symbol = utf8_percent_encode(symbol, ENCODED);
        let name = files.name;
        self.path = format!("{name}/date={day}/symbol={symbol}/{name}.csv");
        self.object = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_day_and_the_encoded_symbol() {
        let mut file = File::default();
        for (symbol, time, path) in [
            ("BINANCE:BTCUSDT", 1_723_161_255, "trades/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/trades.csv"),
            ("BTC/USD", -1, "trades/date=1969-12-31/symbol=BTC%2FUSD/trades.csv"),
            ("..", 0, "trades/date=1970-01-01/symbol=../trades.csv"),
            ("a,\"b\" %é-_.", 86_400, "trades/date=1970-01-02/symbol=a%2C%22b%22%20%25%C3%A9-_./trades.csv"),
        ] {
            file.turn_to(&TRADES, symbol, time * 1_000_000_000);
            assert_eq!(file.path, path);
        }
    }
}
