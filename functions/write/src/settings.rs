//! Settings of the stage.

use serde::Deserialize;
use tapeline_sdk::{Kind, SettingError, Span};

/// So that times, which end in the year 2262, and `sample` can be added.
const SAMPLE_MAX: Span = Span(366 * 86_400_000_000_000);
const SECOND: Span = Span(1_000_000_000);

/// A table that the stage can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableName {
    /// A row for each trade.
    Trades,
    /// A row for each bar, the last one that came.
    Bars,
    /// A row for the first average of each step of `sample`.
    Averages,
    /// A row for each alarm.
    Alarms,
    /// A row for each notice.
    Notices,
}

/// Objects that the stage can fill, one for each symbol and day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectName {
    /// A line for each trade.
    Trades,
    /// A line for each final bar.
    Bars,
}

/// Settings of the stage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Tables to fill; all but the notices by default.
    pub tables: Vec<TableName>,
    /// Objects to fill; all by default.
    pub objects: Vec<ObjectName>,
    /// Of the averages of a symbol and window, the first in each step of event time of this length is a row; `1s` by
    /// default. With `0s` each is one.
    pub sample: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tables: vec![TableName::Trades, TableName::Bars, TableName::Averages, TableName::Alarms],
            objects: vec![ObjectName::Trades, ObjectName::Bars],
            sample: SECOND,
        }
    }
}

impl Settings {
    /// `sample`, ns.
    ///
    /// # Errors
    /// When it is out of range.
    pub(crate) fn sample_ns(&self) -> Result<i64, SettingError> {
        let sample = i64::try_from(self.sample.0).ok().filter(|_| self.sample <= SAMPLE_MAX);
        sample.ok_or_else(|| SettingError::new("sample", "a duration of at most 366 days"))
    }
}

impl TableName {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Trades => Kind::Trade,
            Self::Bars => Kind::Bar,
            Self::Averages => Kind::Average,
            Self::Alarms => Kind::Alarm,
            Self::Notices => Kind::Notice,
        }
    }
}

impl ObjectName {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Trades => Kind::Trade,
            Self::Bars => Kind::Bar,
        }
    }
}
