//! What became of every record, as the functions have counted it.

use std::collections::BTreeMap;

use tapeline_invoke::{Counts, LedgerKey, WATERMARK_STAGE};

use super::{Account, OperateError, Stores};
use crate::sink::Ledger;

/// The ledger of a stack: of all symbols, or of one; in the order of the data. While events flow it is that of some moments.
///
/// # Errors
/// When the table does not answer, or has something else in it.
pub async fn ledger(
    account: &Account,
    stores: &Stores,
    symbol: Option<&str>,
) -> Result<BTreeMap<LedgerKey, Counts>, OperateError> {
    let mut stages = stores.stages.clone();
    // Our own step stands behind the first stage.
    stages.insert(stages.len().min(1), WATERMARK_STAGE.to_owned());
    let table = Ledger::new(account.dynamodb.clone(), stores.ledger_table.clone());
    let read = table.read(&stages, symbol).await;
    read.map_err(|error| {
        OperateError::service(format!("read the ledger in table {}", stores.ledger_table), error.to_string())
    })
}
