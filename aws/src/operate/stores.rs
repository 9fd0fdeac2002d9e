//! What of a stack can be read, whether it has functions or hosts of our own work on its tables.

use super::{Account, OperateError, outputs::Outputs};

/// The tables of a stack that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stores {
    /// The names of all stages, in the order of the data.
    pub stages: Vec<String>,
    /// The table of the ledger.
    pub ledger_table: String,
    /// The table of rows.
    pub rows_table: String,
}

impl Stores {
    /// Finds those of a stack by its name.
    ///
    /// # Errors
    /// `Wrong` when there is none, or it is none of a pipeline.
    pub async fn find(account: &Account, stack: &str) -> Result<Self, OperateError> {
        Self::of(&Outputs::find(account, stack).await?)
    }

    fn of(outputs: &Outputs) -> Result<Self, OperateError> {
        let stages = match outputs.has_functions() {
            true => outputs.json::<Vec<Vec<String>>>("Segments")?.into_iter().flatten().collect(),
            false => outputs.json("Stages")?,
        };
        Ok(Self { stages, ledger_table: outputs.text("LedgerTable")?, rows_table: outputs.text("RowsTable")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(more: &[(&str, &str)]) -> Outputs {
        let tables = [("LedgerTable", "ledger"), ("RowsTable", "rows")];
        let pairs = tables.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Outputs::new("s", pairs.collect())
    }

    #[test]
    fn both_kinds_of_stacks_have_them() {
        let expected = |stages: [&str; 3]| Stores {
            stages: stages.map(str::to_owned).into(),
            ledger_table: "ledger".to_owned(),
            rows_table: "rows".to_owned(),
        };
        let functions = outputs(&[("Segments", r#"[["fetch"],["dedup","write"]]"#)]);
        assert_eq!(Stores::of(&functions).unwrap(), expected(["fetch", "dedup", "write"]));
        let hosts = [("Functions", "false"), ("Segments", "[]"), ("Stages", r#"["fetch","dedup","write"]"#)];
        assert_eq!(Stores::of(&outputs(&hosts)).unwrap(), expected(["fetch", "dedup", "write"]));
    }

    #[test]
    fn what_is_missing_is_told() {
        let error = Stores::of(&outputs(&[("Functions", "false"), ("Segments", "[]")])).unwrap_err().to_string();
        assert!(error.starts_with("use stack s: it has no output Stages; "), "{error}");
        let error = Stores::of(&outputs(&[])).unwrap_err().to_string();
        assert!(error.starts_with("use stack s: it has no output Segments; "), "{error}");
    }
}
