//! The places of a stack that hosts of our own share: one that has no functions.

use super::{Account, OperateError, outputs::Outputs};

/// Where a stack keeps what hosts share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStores {
    /// The pipeline's name.
    pub pipeline: String,
    /// The table of the state.
    pub state_table: String,
    /// The table of rows.
    pub rows_table: String,
    /// The table of what was put aside.
    pub dead_letters_table: String,
    /// The table of the ledger.
    pub ledger_table: String,
    /// The bucket of files.
    pub objects_bucket: String,
    /// Rows may go after so many seconds, if ever.
    pub rows_expire: Option<u64>,
}

impl SharedStores {
    /// Finds those of a pipeline by the name of their stack.
    ///
    /// # Errors
    /// `Wrong` when there is no such stack, it is of another pipeline, or it has functions: they write to the same tables,
    /// and neither knows what the other one has done.
    pub async fn find(account: &Account, stack: &str, pipeline: &str) -> Result<Self, OperateError> {
        Self::of(&Outputs::find(account, stack).await?, pipeline)
    }

    fn of(outputs: &Outputs, pipeline: &str) -> Result<Self, OperateError> {
        let unfit = |what: &str| OperateError::wrong(format!("use stack {}: {what}", outputs.stack));
        let of = outputs.text("PipelineName")?;
        if of != pipeline {
            return Err(unfit(&format!("it is of pipeline {of}, not of {pipeline}")));
        }
        if outputs.has_functions() {
            return Err(unfit(
                "its functions write to its tables; hosts need a stack that is deployed with functions = false below [aws]",
            ));
        }
        Ok(Self {
            pipeline: of,
            state_table: outputs.text("StateTable")?,
            rows_table: outputs.text("RowsTable")?,
            dead_letters_table: outputs.text("DeadLettersTable")?,
            ledger_table: outputs.text("LedgerTable")?,
            objects_bucket: outputs.text("ObjectsBucket")?,
            rows_expire: outputs.has("RowsExpire").then(|| outputs.json("RowsExpire")).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn they_are_those_of_a_stack_without_functions() {
        let names = ["StateTable", "RowsTable", "DeadLettersTable", "LedgerTable", "ObjectsBucket"];
        let named = names.map(|name| (name.to_owned(), name.to_lowercase()));
        let more =
            [("PipelineName", "p"), ("Functions", "false")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let outputs: BTreeMap<String, String> = named.into_iter().chain(more).collect();
        let of = |outputs: BTreeMap<String, String>| SharedStores::of(&Outputs::new("s", outputs), "p");
        let stores = of(outputs.clone()).unwrap();
        assert_eq!((stores.rows_table.as_str(), stores.rows_expire), ("rowstable", None));
        let with = |key: &str, value: &str| {
            of(outputs.clone().into_iter().chain([(key.to_owned(), value.to_owned())]).collect())
        };
        assert_eq!(with("RowsExpire", "86400").unwrap().rows_expire, Some(86_400));
        let wrong = |found: Result<SharedStores, OperateError>| found.unwrap_err().to_string();
        assert!(wrong(with("RowsExpire", "a day")).contains("RowsExpire"));
        assert!(wrong(with("Functions", "true")).contains("functions = false"));
        assert!(wrong(with("PipelineName", "q")).contains("of pipeline q, not of p"));
        let mut missing = outputs.clone();
        missing.remove("LedgerTable");
        assert!(wrong(of(missing)).contains("LedgerTable"));
    }
}
