//! `tapeline query`: rows of a table.

use std::io::Write as _;

use clap::Args;

use super::{DataFolder, exit::Exit, output, parse_time_arg, rows::Format};
use crate::{
    error::{Error, Result},
    store::{Query, SqliteStore, Store as _},
};

/// Write the rows of a table, while a pipeline runs or not
#[derive(Args)]
#[command(after_help = "\
Without --format it is a table on a terminal, and CSV otherwise.

Examples:
  tapeline query averages --symbol BINANCE:BTCUSDT --limit 20
  tapeline query trades --from 2024-08-08 --to 2024-08-09T12:00:00Z --format csv > trades.csv
  tapeline query alarms --format json | jq '.[].deviation'")]
pub(super) struct QueryCommand {
    /// Name of the table
    table: String,
    #[command(flatten)]
    data: DataFolder,
    /// Only this symbol
    #[arg(long)]
    symbol: Option<String>,
    /// Only rows of this time and later: a day, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    from: Option<i64>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time_arg)]
    to: Option<i64>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How to write them
    #[arg(long)]
    format: Option<Format>,
}

impl QueryCommand {
    pub(super) fn run(self) -> Result<Exit> {
        let store = SqliteStore::open_reader(&self.data.path)?;
        check_table(&self.table, &store.tables()?)?;
        let Self { table, symbol, from, to, limit, .. } = self;
        let mut out = output::lock();
        let mut rows = Format::or_usual(self.format).writer(&mut out);
        store.query(&Query { table, symbol, from, to, limit }, &mut *rows)?;
        rows.finish()?;
        drop(rows);
        out.flush()?;
        Ok(Exit::Fine)
    }
}

fn check_table(table: &str, tables: &[String]) -> Result<()> {
    if tables.iter().any(|known| known == table) {
        return Ok(());
    }
    let known =
        if tables.is_empty() { "there is none yet".to_owned() } else { format!("there are {}", tables.join(", ")) };
    Err(Error::not_found(format!("find table {table:?}: {known}")))
}
