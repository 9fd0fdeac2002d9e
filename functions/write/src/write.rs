//! The stage: which events become rows, which become lines.

use tapeline_sdk::{Alarm, Average, Bar, Cell, Event, Fate, Kinds, Row, SettingError, Stage, Tables, Trade};

use crate::{
    ObjectName, Settings, Symbol, TableName,
    csv::Line,
    id::Ids,
    objects, tables,
    text::{Numbers, Spans, Times},
};

/// The rule that drops averages which are not rows.
const SAMPLED: &str = "sampled";

/// Turns events into rows and lines.
pub struct Writer {
    takes: Kinds,
    tables: Kinds,
    objects: Kinds,
    /// 0: each average is a row.
    sample: i64,
    watermark: i64,
    ids: Ids,
    spans: Spans,
    print: Printer,
}

/// Makes lines of CSV.
#[derive(Default)]
struct Printer {
    line: Line,
    times: Times,
    prices: Numbers,
    sizes: Numbers,
}

impl Stage for Writer {
    const NAME: &'static str = "write";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Settings = Settings;
    type State = Symbol;
    type Out = Tables;

    fn new(settings: Settings) -> Result<Self, SettingError> {
        let tables: Vec<_> = settings.tables.iter().copied().map(TableName::kind).collect();
        let objects: Vec<_> = settings.objects.iter().copied().map(ObjectName::kind).collect();
        Ok(Self {
            takes: Kinds::of(&[tables.as_slice(), &objects].concat()),
            tables: Kinds::of(&tables),
            objects: Kinds::of(&objects),
            sample: settings.sample_ns()?,
            watermark: i64::MIN,
            ids: Ids::default(),
            spans: Spans::default(),
            print: Printer::default(),
        })
    }

    fn takes(&self) -> Kinds {
        self.takes
    }

    #[inline]
    fn on_event(&mut self, event: Event<'_>, symbol: &mut Symbol, out: &mut Tables) -> Fate {
        symbol.touch(event.time(), self.watermark);
        if let Some(trade) = event.trade() {
            self.on_trade(&event, &trade, symbol, out);
            return Fate::Forward;
        }
        match event.row() {
            Row::Bar(bar) => self.on_bar(&event, &bar, symbol, out),
            Row::Average(average) => return self.on_average(&event, &average, symbol, out),
            Row::Alarm(alarm) => self.on_alarm(&event, &alarm, out),
            Row::Notice(notice) if self.has_table(&event) => tables::notice(out, &event, notice.text),
            _ => {}
        }
        Fate::Forward
    }

    fn on_watermark(&mut self, watermark: i64) {
        self.watermark = watermark;
    }
}

impl Writer {
    #[inline]
    fn on_trade(&mut self, event: &Event<'_>, trade: &Trade<'_>, symbol: &mut Symbol, out: &mut Tables) {
        let id = self.ids.of_trade(event, trade);
        if self.tables.has(event.kind()) {
            tables::trade(out, event, id, trade);
        }
        if self.objects.has(event.kind()) {
            let bytes = symbol.trades.of(&objects::TRADES, event.text(event.symbol()), event.time(), out);
            self.print.trade(event, id, trade, bytes);
        }
    }

    fn on_bar(&mut self, event: &Event<'_>, bar: &Bar, symbol: &mut Symbol, out: &mut Tables) {
        let interval = self.spans.format(bar.interval);
        if self.tables.has(event.kind()) {
            tables::bar(out, event, interval, bar);
        }
        if self.objects.has(event.kind()) && bar.final_ {
            let bytes = symbol.bars.of(&objects::BARS, event.text(event.symbol()), event.time(), out);
            self.print.bar(event, interval, bar, bytes);
        }
    }

    fn on_average(&mut self, event: &Event<'_>, average: &Average, symbol: &mut Symbol, out: &mut Tables) -> Fate {
        if !self.has_table(event) {
            return Fate::Forward;
        }
        if self.sample > 0 && !symbol.sampled.takes(average.window, event.time(), self.sample, self.watermark) {
            return Fate::Drop(SAMPLED);
        }
        tables::average(out, event, self.spans.format(average.window), average);
        Fate::Forward
    }

    fn on_alarm(&mut self, event: &Event<'_>, alarm: &Alarm, out: &mut Tables) {
        if self.has_table(event) {
            let id = self.ids.of_trade_behind(event, alarm.price);
            tables::alarm(out, event, self.spans.format(alarm.window), id, alarm);
        }
    }

    fn has_table(&self, event: &Event<'_>) -> bool {
        self.tables.has(event.kind())
    }
}

impl Printer {
    #[inline]
    fn trade(&mut self, event: &Event<'_>, id: Cell<'_>, trade: &Trade<'_>, out: &mut Vec<u8>) {
        self.line.field(self.times.format(event.time(), event.unit()));
        match id {
            Cell::Integer(id) => self.line.field(itoa::Buffer::new().format(id).as_bytes()),
            Cell::Text(id) => self.line.field(id.as_bytes()),
            _ => self.line.field(b""),
        };
        self.line.field(self.prices.format(trade.price)).field(self.sizes.format(trade.size));
        self.line.field(event.text(event.source()).as_bytes()).end(out);
    }

    fn bar(&mut self, event: &Event<'_>, interval: &str, bar: &Bar, out: &mut Vec<u8>) {
        self.line.field(interval.as_bytes()).field(self.times.format(event.time(), event.unit()));
        self.line.field(itoa::Buffer::new().format(bar.count).as_bytes());
        for number in [bar.average, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.vwap] {
            self.line.field(self.prices.format(number));
        }
        self.line.end(out);
    }
}

#[cfg(test)]
mod tests;
