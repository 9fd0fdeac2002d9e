//! One event of a batch, as a row over its columns.

use tapeline_events::{Alarm, Average, Bar, Envelope, IdRef, Kind, Name, Quote, Row, Trade, Unit};

use crate::{
    bindings::events::{Columns, Group},
    names::Names,
};

/// An event that a stage is called with. Fields are read from the columns when they are asked for.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    group: &'a Group,
    names: &'a Names,
    at: usize,
}

impl<'a> Event<'a> {
    pub(crate) const fn new(group: &'a Group, names: &'a Names, at: usize) -> Self {
        Self { group, names, at }
    }

    /// The event's kind.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.group.columns.kind()
    }

    /// The instrument.
    #[inline]
    pub fn symbol(&self) -> Name {
        self.names.of_number(self.group.symbol[self.at])
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Name {
        self.names.of_number(self.group.source)
    }

    /// The names of this instance.
    pub fn names(&self) -> &'a Names {
        self.names
    }

    /// The text of a name of this instance.
    pub fn text(&self, name: Name) -> &'a str {
        self.names.text(name)
    }

    /// Event time, ns since the epoch, UTC.
    #[inline]
    pub fn time(&self) -> i64 {
        self.group.time[self.at]
    }

    /// How precise the event time came in.
    #[inline]
    pub fn unit(&self) -> Unit {
        self.group.unit.into()
    }

    /// When it was received, by the receiver's clock.
    #[inline]
    pub fn received(&self) -> Option<i64> {
        self.group.received_at(self.at)
    }

    /// The vendor's id.
    #[inline]
    pub fn id(&self) -> IdRef<'a> {
        self.group.id_at(self.at)
    }

    /// All that the event has in common with others.
    #[inline]
    pub fn envelope(&self) -> Envelope<'a> {
        Envelope {
            symbol: self.symbol(),
            source: self.source(),
            time: self.time(),
            unit: self.unit(),
            received: self.received(),
            id: self.id(),
        }
    }

    /// The event without its envelope. Names in it are this instance's.
    pub fn row(&self) -> Row<'a> {
        let mut row = self.group.columns.row(self.at);
        match &mut row {
            Row::Trade(trade) => trade.currency = trade.currency.map(|name| self.names.of_number(name.0)),
            Row::OptionQuote(quote) => quote.underlying = self.names.of_number(quote.underlying.0),
            Row::Dividend(dividend) => dividend.currency = self.names.of_number(dividend.currency.0),
            Row::Prediction(prediction) => prediction.model = self.names.of_number(prediction.model.0),
            _ => {}
        }
        row
    }

    /// The trade, if it is one.
    #[inline]
    pub fn trade(&self) -> Option<Trade<'a>> {
        let Columns::Trades(trades) = &self.group.columns else { return None };
        let mut trade = trades.row(self.at);
        trade.currency = trade.currency.map(|name| self.names.of_number(name.0));
        Some(trade)
    }

    /// The quote, if it is one.
    #[inline]
    pub fn quote(&self) -> Option<Quote> {
        let Columns::Quotes(quotes) = &self.group.columns else { return None };
        Some(quotes.row(self.at))
    }

    /// The bar, if it is one.
    #[inline]
    pub fn bar(&self) -> Option<Bar> {
        let Columns::Bars(bars) = &self.group.columns else { return None };
        Some(bars.row(self.at))
    }

    /// The window average, if it is one.
    #[inline]
    pub fn average(&self) -> Option<Average> {
        let Columns::Averages(averages) = &self.group.columns else { return None };
        Some(averages.row(self.at))
    }

    /// The alarm, if it is one.
    #[inline]
    pub fn alarm(&self) -> Option<Alarm> {
        let Columns::Alarms(alarms) = &self.group.columns else { return None };
        Some(alarms.row(self.at))
    }
}
