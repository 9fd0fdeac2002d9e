//! `tapeline-aws ledger` and `tapeline-aws rows`: what a pipeline has counted and written, as JSON lines. `tapeline` makes
//! tables and CSV of them.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tapeline_aws::operate::{self, Query};
use tapeline_events::parse_time;
use tapeline_invoke::{Counts, LedgerKey};

use crate::{
    find_stores,
    output::{Failure, say},
};

/// Write what became of every record, by stage, symbol and day
#[derive(Args)]
#[command(after_help = "\
A line is a JSON object. `tapeline ledger --aws STACK` writes the same as a table or as CSV, and says whether it balances.

Examples:
  tapeline-aws ledger tapeline-bitcoin-trades
  tapeline-aws ledger tapeline-bitcoin-trades --symbol BTCUSDT | jq .counts")]
pub(crate) struct LedgerCommand {
    /// The stack
    stack: String,
    /// Only this symbol
    #[arg(long)]
    symbol: Option<String>,
}

/// Write the rows of a table
#[derive(Args)]
#[command(after_help = "\
A line is a JSON object, a row. Those of one symbol come in the order of their keys. Without --symbol all rows of all tables are
read, and AWS is paid for that.

Examples:
  tapeline-aws rows tapeline-bitcoin-trades bars --symbol BINANCE:BTCUSDT --limit 20
  tapeline-aws rows tapeline-bitcoin-trades trades --symbol BINANCE:BTCUSDT --from 2024-08-08T12:00:00Z --to 2024-08-08T13:00:00Z")]
pub(crate) struct RowsCommand {
    /// The stack
    stack: String,
    /// Name of the table
    table: String,
    /// Only this symbol
    #[arg(long)]
    symbol: Option<String>,
    /// Only rows of this time and later, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// At most so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// A line of the ledger. `host/src/cli/ledger.rs` reads it.
#[derive(Serialize)]
struct Line<'a> {
    stage_index: u32,
    stage: &'a str,
    symbol: &'a str,
    /// Such as `2024-08-08`; null where it is not known.
    day: Option<String>,
    counts: &'a Counts,
}

impl LedgerCommand {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (account, stores) = find_stores(&self.stack).await?;
        let ledger = operate::ledger(&account, &stores, self.symbol.as_deref()).await?;
        for (LedgerKey { stage_index, stage, symbol, day }, counts) in &ledger {
            let day = day.map(|day| day.to_string());
            say(&tapeline_invoke::json(&Line { stage_index: *stage_index, stage, symbol, day, counts }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl RowsCommand {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let (account, stores) = find_stores(&self.stack).await?;
        let Self { table, symbol, from, to, limit, .. } = self;
        let query = Query { table, symbol, from, to, limit };
        operate::rows(&account, &stores, &query, |row| say(&tapeline_invoke::json(&row))).await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn time(text: &str) -> Result<i64, String> {
    parse_time(text).map(|(ns, _)| ns).map_err(|error| error.to_string())
}
