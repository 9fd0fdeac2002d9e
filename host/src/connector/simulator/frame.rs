//! The text of frames, as Binance writes them
//! (<https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams>).

use super::{
    Trade,
    market::{Market, Update},
};

/// Ticks in one unit of price, and 10^-5 in one unit of size, with the zeros up to the eight digits of Binance.
const PRICE: Decimal = Decimal { digits: 2, zeros: "000000" };
const SIZE: Decimal = Decimal { digits: 5, zeros: "000" };

struct Decimal {
    digits: usize,
    zeros: &'static str,
}

/// A frame, written piece by piece: a formatter takes three times as long, and a benchmark wants millions of them.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes a trade.
    pub(super) fn trade(&mut self, market: &Market, trade: &Trade) {
        self.begin(market, "trade").event("trade", market, trade.time_ms);
        self.put(",\"t\":").number(trade.id);
        self.put(",\"p\":").decimal(trade.price_ticks, &PRICE);
        self.put(",\"q\":").decimal(trade.size_e5, &SIZE);
        self.put(",\"T\":").time(trade.time_ms);
        self.put(",\"m\":").put(if trade.is_buyer_maker { "true" } else { "false" }).put(",\"M\":true}}");
    }

    /// Writes the best bid and offer.
    pub(super) fn book_ticker(&mut self, market: &Market, update: &Update) {
        self.begin(market, "bookTicker").put("{\"u\":").number(update.id_last).symbol(market);
        self.put(",\"b\":").decimal(update.bid_ticks, &PRICE).put(",\"B\":").decimal(update.bid_size_e5, &SIZE);
        self.put(",\"a\":").decimal(update.ask_ticks, &PRICE).put(",\"A\":").decimal(update.ask_size_e5, &SIZE);
        self.put("}}");
    }

    /// Writes a change of the order book.
    pub(super) fn depth(&mut self, market: &Market, update: &Update, time_ms: i64) {
        self.begin(market, "depth").event("depthUpdate", market, time_ms);
        self.put(",\"U\":").number(update.id_first).put(",\"u\":").number(update.id_last);
        self.put(",\"b\":[[").decimal(update.bid_ticks, &PRICE).put(",").decimal(update.bid_size_e5, &SIZE);
        self.put("]],\"a\":[[").decimal(update.ask_ticks, &PRICE).put(",").decimal(update.ask_size_e5, &SIZE);
        self.put("]]}}");
    }

    fn begin(&mut self, market: &Market, stream: &str) -> &mut Self {
        self.0.clear();
        self.put("{\"stream\":\"");
        let start = self.0.len();
        self.put(market.symbol());
        if let Some(symbol) = self.0.get_mut(start..) {
            symbol.make_ascii_lowercase();
        }
        self.put("@").put(stream).put("\",\"data\":")
    }

    fn event(&mut self, event: &str, market: &Market, time_ms: i64) -> &mut Self {
        self.put("{\"e\":\"").put(event).put("\",\"E\":").time(time_ms).symbol(market)
    }

    fn symbol(&mut self, market: &Market) -> &mut Self {
        self.put(",\"s\":\"").put(market.symbol()).put("\"")
    }

    fn put(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    fn time(&mut self, ms: i64) -> &mut Self {
        if ms < 0 {
            self.put("-");
        }
        self.number(ms.unsigned_abs())
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.digits(number, 1)
    }

    fn decimal(&mut self, number: u64, decimal: &Decimal) -> &mut Self {
        let one = 10_u64.pow(decimal.digits as u32);
        self.put("\"").number(number / one).put(".").digits(number % one, decimal.digits);
        self.put(decimal.zeros).put("\"")
    }

    /// Writes a number with at least so many digits.
    fn digits(&mut self, mut number: u64, least: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while number > 0 || digits.len() - start < least {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.put(std::str::from_utf8(&digits[start..]).expect("digits are UTF-8"))
    }
}
