//! `tapeline backtest`: how many alarms other tolerances would have given.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use tapeline_events::Number;

use super::{DataFolder, Globals, SettingsArgs, WindowArgs, exit::Exit, output, rows::Format};
use crate::{
    error::Result,
    pipeline::replay::{Backtest as Test, STEPS_MAX, Tested, Tolerances},
    store::{RowSink, Value},
};

const COLUMNS: [&str; 5] = ["tolerance", "symbol", "window", "alarms", "total"];

/// Count the alarms that other tolerances would have given on stored data
#[derive(Args)]
#[command(after_help = "\
All that was ever read into the data folder is read again, once, and given to a copy of the stage for each tolerance; the
tolerance is the setting that the stage ran with, absolute or relative. Stages run what ran last, with the settings that it
ran with, if the data folder keeps it, otherwise the pipeline file's. The data folder is only read. `alarms` counts those
of a symbol and window, `total` all of that tolerance.

With --from, stages begin there without state: averages begin empty, so that there may be more alarms just behind it than
there were.

Examples:
  tapeline backtest alarm pipelines/bitcoin-trades.toml --data ./btc --tolerance 0.05..0.5
  tapeline backtest alarm pipelines/bitcoin-trades.toml --data ./btc --tolerance 0..1 --steps 21 --from 2024-08-08
  tapeline backtest alarm pipelines/bitcoin-trades.toml --data ./btc --tolerance 0.05 --format csv")]
pub(super) struct Backtest {
    /// The stage that gives alarms, by its name in the pipeline file
    stage: String,
    /// The pipeline file
    pipeline: PathBuf,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    window: WindowArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    /// The tolerances to try, both ends included; or a single one
    #[arg(long, value_name = "A..B", value_parser = parse_tolerances)]
    tolerance: (f64, f64),
    /// How many of them, evenly spaced; 2 or more for a range
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=STEPS_MAX as u64))]
    steps: u64,
    /// How to write them [default: table on a terminal, csv otherwise]
    #[arg(long)]
    format: Option<Format>,
}

impl Backtest {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let (from, to) = self.tolerance;
        let steps = usize::try_from(self.steps).unwrap_or(usize::MAX);
        let test =
            Test { stage: self.stage, tolerances: Tolerances { from, to, steps }, window: self.window.window()? };
        let tested = self.settings.apply(globals.recorded(&self.pipeline, self.data)?).backtest(&test)?;
        let mut out = output::lock();
        let mut rows = Format::or_usual(self.format).writer(&mut out);
        write_counts(&tested, &mut *rows)?;
        rows.finish()?;
        drop(rows);
        out.flush()?;
        Ok(Exit::Fine)
    }
}

fn parse_tolerances(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let ends = text.split_once("..").unwrap_or((text, text));
    match (number(ends.0), number(ends.1)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => {
            Err("expected A..B, two numbers of which A is not below 0 and B not below A, such as 0.05..0.5".to_owned())
        }
    }
}

fn write_counts(tested: &Tested, rows: &mut dyn RowSink) -> Result<()> {
    let count = |count: u64| Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    rows.columns(&COLUMNS.map(str::to_owned))?;
    for counted in &tested.counts {
        let (tolerance, total) = (Value::Number(Number(counted.tolerance)), count(counted.total));
        if counted.alarms.is_empty() {
            // No tolerance gave any: each is told all the same.
            rows.row(&[tolerance.clone(), Value::Null, Value::Null, count(0), total.clone()])?;
        }
        for (symbol, window, alarms) in &counted.alarms {
            let (symbol, window) = (Value::Text(symbol.clone()), Value::Text(window.to_string()));
            rows.row(&[tolerance.clone(), symbol, window, count(*alarms), total.clone()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tapeline_events::Span;

    use super::*;
    use crate::pipeline::replay::Counted;

    #[test]
    fn tolerances_are_a_range_or_one() {
        assert_eq!(parse_tolerances("0.05..0.5"), Ok((0.05, 0.5)));
        assert_eq!(parse_tolerances("0..1"), Ok((0.0, 1.0)));
        assert_eq!(parse_tolerances("0.05"), Ok((0.05, 0.05)));
        for wrong in ["", "..", "1..", "0.5..0.05", "-1..1", "0..inf", "a..b"] {
            assert!(parse_tolerances(wrong).unwrap_err().contains("0.05..0.5"), "{wrong}");
        }
    }

    #[test]
    fn every_tolerance_has_a_line() {
        let counted = |tolerance, alarms: Vec<_>| Counted { tolerance, total: alarms.len() as u64, alarms };
        let written = |counts| {
            let mut out = Vec::new();
            let mut rows = Format::Csv.writer(&mut out);
            write_counts(&Tested { setting: "absolute", counts, stages: Vec::new() }, &mut *rows).unwrap();
            rows.finish().unwrap();
            drop(rows);
            String::from_utf8(out).unwrap()
        };
        let five = Span(300_000_000_000);
        let some = written(vec![counted(0.1, vec![("A".to_owned(), five, 1)])]);
        assert_eq!(some, "tolerance,symbol,window,alarms,total\n0.1,A,5m,1,1\n");
        let none = written(vec![counted(0.1, Vec::new()), counted(0.2, Vec::new())]);
        assert_eq!(none, "tolerance,symbol,window,alarms,total\n0.1,,,0,0\n0.2,,,0,0\n");
    }
}
