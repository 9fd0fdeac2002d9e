//! Tables: their columns, and the rows of events.

use tapeline_sdk::{Alarm, Average, Bar, Cell, Event, Number, Table, Tables, Trade};

/// One row for each trade.
static TRADES: Table =
    Table { name: "trades", key_columns: 3, columns: &["symbol", "time", "id", "price", "size", "source"] };

/// One row for each bar; a provisional one is replaced.
static BARS: Table = Table {
    name: "bars",
    key_columns: 3,
    columns: &[
        "symbol", "interval", "start", "count", "average", "open", "high", "low", "close", "volume", "vwap", "final",
    ],
};

/// One row for each average that is not left out. Of two at one time the later replaces the earlier, which `sample`
/// prevents unless it is 0.
static AVERAGES: Table =
    Table { name: "averages", key_columns: 3, columns: &["symbol", "window", "time", "average", "count"] };

/// One row for each alarm.
static ALARMS: Table = Table {
    name: "alarms",
    key_columns: 4,
    columns: &["symbol", "window", "time", "trade_id", "previous", "average", "deviation", "tolerance"],
};

/// One row for each notice.
static NOTICES: Table = Table { name: "notices", key_columns: 3, columns: &["symbol", "time", "text", "source"] };

#[inline]
pub(crate) fn trade(out: &mut Tables, event: &Event<'_>, id: Cell<'_>, trade: &Trade<'_>) {
    out.row(
        &TRADES,
        &[
            symbol(event),
            time(event),
            id,
            Cell::Number(trade.price),
            Cell::Number(trade.size),
            Cell::Text(event.text(event.source())),
        ],
    );
}

pub(crate) fn bar(out: &mut Tables, event: &Event<'_>, interval: &str, bar: &Bar) {
    out.row(
        &BARS,
        &[
            symbol(event),
            Cell::Text(interval),
            time(event),
            count(bar.count),
            rounded(bar.average),
            Cell::Number(bar.open),
            Cell::Number(bar.high),
            Cell::Number(bar.low),
            Cell::Number(bar.close),
            rounded(bar.volume),
            rounded(bar.vwap),
            Cell::Boolean(bar.final_),
        ],
    );
}

pub(crate) fn average(out: &mut Tables, event: &Event<'_>, window: &str, average: &Average) {
    out.row(
        &AVERAGES,
        &[symbol(event), Cell::Text(window), time(event), rounded(average.average), count(average.count)],
    );
}

pub(crate) fn alarm(out: &mut Tables, event: &Event<'_>, window: &str, id: Cell<'_>, alarm: &Alarm) {
    out.row(
        &ALARMS,
        &[
            symbol(event),
            Cell::Text(window),
            time(event),
            id,
            rounded(alarm.previous),
            rounded(alarm.average),
            rounded(alarm.deviation),
            Cell::Number(alarm.tolerance),
        ],
    );
}

pub(crate) fn notice(out: &mut Tables, event: &Event<'_>, text: &str) {
    out.row(&NOTICES, &[symbol(event), time(event), Cell::Text(text), Cell::Text(event.text(event.source()))]);
}

#[inline]
fn symbol<'a>(event: &Event<'a>) -> Cell<'a> {
    Cell::Text(event.text(event.symbol()))
}

#[inline]
fn time<'a>(event: &Event<'a>) -> Cell<'a> {
    Cell::Time(event.time(), event.unit())
}

/// A number that was computed: its last digits are noise.
fn rounded<'a>(number: f64) -> Cell<'a> {
    Cell::Number(Number(number).rounded())
}

fn count<'a>(count: u64) -> Cell<'a> {
    Cell::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}
