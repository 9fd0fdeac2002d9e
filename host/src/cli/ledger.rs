//! `tapeline ledger`: what became of every event, by stage, symbol and day.

use std::io::Write as _;

use clap::Args;
use serde::Deserialize;
use tapeline_events::Day;

use super::{DataFolder, aws::AwsProgram, exit::Exit, output, rows::Format};
use crate::{
    error::Result,
    store::{Counts, LedgerKey, RowSink, SqliteStore, Store as _, Value},
};

const COLUMNS: [&str; 12] =
    ["stage", "symbol", "day", "in", "out", "duplicate", "late", "dropped", "dead", "derived", "rules", "balances"];

/// Write what became of every event, by stage, symbol and day
#[derive(Args)]
#[command(after_help = "\
Every record that enters a stage is counted in one place: in = out + duplicate + late + dropped + dead. The column
`rules` says what was dropped by which rule; `derived` counts what a stage made, such as averages. The exit code is 1
when a line does not balance.

Examples:
  tapeline ledger
  tapeline ledger --symbol BTCUSDT --format json
  tapeline ledger --aws tapeline-bitcoin-trades
  tapeline ledger --data /srv/btc --format csv > /dev/null && echo balanced")]
pub(super) struct Ledger {
    #[command(flatten)]
    data: DataFolder,
    /// Name of a pipeline's stack on AWS, instead of a folder: tapeline-PIPELINE
    #[arg(long, value_name = "STACK", conflicts_with = "path")]
    aws: Option<String>,
    /// Only this symbol
    #[arg(long)]
    symbol: Option<String>,
    /// How to write it [default: table on a terminal, csv otherwise]
    #[arg(long)]
    format: Option<Format>,
}

impl Ledger {
    pub(super) fn run(self) -> Result<Exit> {
        let ledger = match &self.aws {
            None => self.of_data()?,
            Some(stack) => match self.of_stack(stack)? {
                (Exit::Fine, ledger) => ledger,
                (failed, _) => return Ok(failed),
            },
        };
        let mut out = output::lock();
        let mut rows = Format::or_usual(self.format).writer(&mut out);
        write_ledger(&ledger, &mut *rows)?;
        rows.finish()?;
        drop(rows);
        out.flush()?;
        let is_balanced = ledger.iter().all(|(_, counts)| counts.balances());
        Ok(if is_balanced { Exit::Fine } else { Exit::Failed })
    }
}

impl Ledger {
    fn of_data(&self) -> Result<Vec<(LedgerKey, Counts)>> {
        let mut ledger = SqliteStore::open_reader(&self.data.path)?.ledger()?;
        if let Some(symbol) = &self.symbol {
            ledger.retain(|(key, _)| key.symbol == *symbol);
        }
        Ok(ledger)
    }

    fn of_stack(&self, stack: &str) -> Result<(Exit, Vec<(LedgerKey, Counts)>)> {
        let mut line = vec!["ledger".to_owned(), stack.to_owned()];
        line.extend(self.symbol.iter().map(|symbol| format!("--symbol={symbol}")));
        let mut ledger = Vec::new();
        let exit = AwsProgram::find()?.lines(&line, |line: Line| {
            ledger.push(line.into_counts());
            Ok(())
        })?;
        Ok((exit, ledger))
    }
}

/// As `tapeline-aws` writes it: `aws/src/cli/read.rs`.
#[derive(Deserialize)]
struct Line {
    stage_index: u32,
    stage: String,
    symbol: String,
    day: Option<String>,
    counts: Counts,
}

impl Line {
    fn into_counts(self) -> (LedgerKey, Counts) {
        let Self { stage_index, stage, symbol, day, counts } = self;
        (LedgerKey { stage_index, stage, symbol, day: day.as_deref().and_then(Day::parse) }, counts)
    }
}

fn write_ledger(ledger: &[(LedgerKey, Counts)], rows: &mut dyn RowSink) -> Result<()> {
    rows.columns(&COLUMNS.map(str::to_owned))?;
    ledger.iter().try_for_each(|(key, counts)| rows.row(&line(key, counts)))
}

fn line(key: &LedgerKey, counts: &Counts) -> [Value; COLUMNS.len()] {
    let rules: Vec<String> = counts.dropped.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    [
        Value::Text(key.stage.clone()),
        Value::Text(key.symbol.clone()),
        key.day.map_or(Value::Null, |day| Value::Text(day.to_string())),
        count(counts.entered),
        count(counts.out),
        count(counts.duplicate),
        count(counts.late),
        count(counts.dropped.values().sum()),
        count(counts.dead),
        count(counts.derived),
        Value::Text(rules.join(", ")),
        Value::Boolean(counts.balances()),
    ]
}

fn count(count: u64) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_rules_and_whether_it_balances() {
        let dropped = [("depth".to_owned(), 2), ("ping".to_owned(), 1)].into();
        let mut counts = Counts { entered: 5, out: 2, dropped, ..Counts::default() };
        let key = LedgerKey { stage_index: 0, stage: "fetch".to_owned(), symbol: "A".to_owned(), day: Some(Day(0)) };
        let mut out = Vec::new();
        let mut rows = Format::Csv.writer(&mut out);
        write_ledger(&[(key.clone(), counts.clone())], &mut *rows).unwrap();
        counts.dead = 1;
        rows.row(&line(&LedgerKey { day: None, ..key }, &counts)).unwrap();
        rows.finish().unwrap();
        drop(rows);
        let expected = "\
            stage,symbol,day,in,out,duplicate,late,dropped,dead,derived,rules,balances\n\
            fetch,A,1970-01-01,5,2,0,0,3,0,0,\"depth 2, ping 1\",true\n\
            fetch,A,,5,2,0,0,3,1,0,\"depth 2, ping 1\",false\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
