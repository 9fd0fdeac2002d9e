//! What the CDK synthesizes of a pipeline: the template of its stack, and what that needs besides.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::stack::{Account, Stack, stages, text};

/// How the file of a template ends, behind the name of its stack.
const TEMPLATE: &str = ".template.json";
/// How the CDK names the function that empties buckets when a stack goes, and its role.
const EMPTYING: &str = "CustomS3AutoDeleteObjects";
/// What calls it.
const EMPTIED: &str = "Custom::S3AutoDeleteObjects";

/// A stack that is not deployed yet.
pub struct Assembly {
    account: Arc<Account>,
    folder: TempDir,
    name: String,
    stages: Vec<String>,
    template: Value,
}

impl Assembly {
    /// Synthesizes the stack of a pipeline.
    ///
    /// # Errors
    /// When that cannot be done; says what the CDK said.
    pub fn synthesize(account: &Arc<Account>, pipeline: &Path, context: &[&str]) -> Result<Self> {
        let (stages, folder) = (stages(pipeline)?, TempDir::new()?);
        let pipeline = format!("pipeline={}", pipeline.display());
        let mut arguments = vec!["synth", "--quiet", "--output", text(folder.path())?, "-c", &pipeline];
        arguments.extend(context.iter().flat_map(|setting| ["-c", setting]));
        account.run_cdk(&arguments)?;
        let files = fs::read_dir(folder.path())?.filter_map(Result::ok).map(|file| file.file_name());
        let mut names = files.filter_map(|file| Some(file.to_str()?.strip_suffix(TEMPLATE)?.to_owned()));
        let name = names.next().context("the template of a stack")?;
        let template = serde_json::from_slice(&fs::read(folder.path().join(format!("{name}{TEMPLATE}")))?)?;
        Ok(Self { account: Arc::clone(account), folder, name, stages, template })
    }

    /// The same without what empties buckets when the stack goes, which the local AWS cannot run: it has no client of S3 for
    /// functions in Node.js.
    ///
    /// # Errors
    /// When the template is none, or cannot be written.
    pub fn without_emptying(mut self) -> Result<Self> {
        let resources = self.template["Resources"].as_object_mut().context("resources")?;
        resources.retain(|id, resource| !id.starts_with(EMPTYING) && resource["Type"] != EMPTIED);
        for policy in resources.values_mut().filter(|resource| resource["Type"] == "AWS::S3::BucketPolicy") {
            let statements = policy["Properties"]["PolicyDocument"]["Statement"].as_array_mut();
            statements.context("statements")?.retain(|statement| !statement.to_string().contains(EMPTYING));
        }
        let file = self.folder.path().join(format!("{}{TEMPLATE}", self.name));
        fs::write(file, serde_json::to_vec(&self.template)?)?;
        Ok(self)
    }

    /// Deploys it.
    ///
    /// # Errors
    /// When that cannot be done; says what the CDK said.
    pub fn deploy(self) -> Result<Stack> {
        let Self { account, folder, name, stages, template } = self;
        let written = TempDir::new()?;
        let file = written.path().join("outputs.json");
        let arguments =
            ["deploy", "--require-approval", "never", "--progress", "events", "--app", text(folder.path())?];
        account.run_cdk(&[&arguments[..], &["--outputs-file", text(&file)?]].concat())?;
        let mut stacks: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&fs::read(file)?)?;
        let outputs = stacks.remove(&name).context("the outputs of a stack")?;
        Ok(Stack { account, name, stages, outputs, template, assembly: Some(folder) })
    }
}
