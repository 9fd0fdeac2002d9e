//! What a stack says of itself, by which everything in it is found.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::{Account, OperateError};

/// `false` where the stack has no functions; one that has some says nothing.
const FUNCTIONS: &str = "Functions";

/// The outputs of a stack.
#[derive(Debug)]
pub(super) struct Outputs {
    /// The stack.
    pub(super) stack: String,
    values: BTreeMap<String, String>,
}

impl Outputs {
    /// Asks for those of a stack.
    ///
    /// # Errors
    /// `Wrong` when there is none of the name.
    pub(super) async fn find(account: &Account, stack: &str) -> Result<Self, OperateError> {
        let region = &account.region;
        let doing = || format!("find stack {stack} in {region}");
        let described = account.stacks.describe_stacks().stack_name(stack).send().await.map_err(|error| match error
            .as_service_error()
            .and_then(|error| error.meta().message())
        {
            Some(said) if said.contains("does not exist") => OperateError::wrong(format!(
                "find stack {stack} in {region}: there is none of the name; the CDK calls the one of a pipeline \
                     tapeline-PIPELINE, and AWS_REGION says where to look"
            )),
            _ => OperateError::refused(doing(), &error),
        })?;
        let found = described.stacks.unwrap_or_default().into_iter().next();
        let outputs = found.and_then(|found| found.outputs).unwrap_or_default();
        let pairs = outputs.into_iter().filter_map(|output| Some((output.output_key?, output.output_value?)));
        Ok(Self::new(stack, pairs.collect()))
    }

    /// Those that are known.
    pub(super) fn new(stack: &str, values: BTreeMap<String, String>) -> Self {
        Self { stack: stack.to_owned(), values }
    }

    /// Whether the stack has functions.
    pub(super) fn has_functions(&self) -> bool {
        self.values.get(FUNCTIONS).is_none_or(|value| value != "false")
    }

    /// Whether there is such an output.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// An output.
    ///
    /// # Errors
    /// `Wrong` when it is missing.
    pub(super) fn text(&self, key: &str) -> Result<String, OperateError> {
        self.values.get(key).cloned().ok_or_else(|| self.unfit(&format!("it has no output {key}")))
    }

    /// An output that is JSON.
    ///
    /// # Errors
    /// `Wrong` when it is missing, or is not what it should be.
    pub(super) fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T, OperateError> {
        let text = self.text(key)?;
        serde_json::from_str(&text).map_err(|error| self.unfit(&format!("its output {key} is {text:?}: {error}")))
    }

    fn unfit(&self, what: &str) -> OperateError {
        OperateError::wrong(format!(
            "use stack {}: {what}; it is of no pipeline, or was deployed by another version of Tapeline",
            self.stack
        ))
    }
}
