//! Stacks that are destroyed: nothing of them is left, or only the data that was to be kept.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use anyhow::{Result, ensure};
use tapeline_aws_tests::{
    assembly::Assembly,
    function,
    stack::{Account, Stack, package},
};
use tempfile::TempDir;

const STAGES: &str = "[[stages]]\nname = \"fetch\"\n[[stages]]\nname = \"write\"\n";
/// With all kinds of things that a stack can have.
const CONTEXT: [&str; 4] =
    ["authorization=token", "schedule=rate(1 minute)", "alarms_email=ops@example.com", "concurrency=unreserved"];
/// What a stack of two functions has.
const ALL: [(&str, usize); 6] =
    [("buckets", 2), ("functions", 2), ("queues", 4), ("secrets", 1), ("tables", 4), ("topics", 1)];
const DATA: [&str; 3] = ["buckets", "queues", "tables"];

pub(crate) fn nothing_is_left_of_a_stack_that_is_destroyed(account: &Arc<Account>) -> Result<()> {
    let stack = synthesize(account, "destroyed", &[])?.without_emptying()?.deploy()?;
    let there = all(&stack)?;
    ensure!(counts(&there) == ALL.into(), "{there:?}");
    stack.destroy()?;
    let left = all(&stack)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

pub(crate) fn data_that_is_to_be_kept_is_left(account: &Arc<Account>) -> Result<()> {
    let stack = synthesize(account, "kept", &["keep=true"])?.deploy()?;
    let mut data = all(&stack)?;
    ensure!(counts(&data) == ALL.into(), "{data:?}");
    stack.destroy()?;
    data.retain(|kind, _| DATA.contains(kind));
    let left = all(&stack)?;
    ensure!(left == data, "{left:?} instead of {data:?}");
    Ok(())
}

fn synthesize(account: &Arc<Account>, name: &str, more: &[&str]) -> Result<Assembly> {
    let folder = TempDir::new()?;
    let package = format!("package={}", package().display());
    Assembly::synthesize(account, &file(folder.path(), name, "")?, &[&CONTEXT[..], &[&package], more].concat())
}

/// Writes the file of a pipeline of two stages.
pub(crate) fn file(folder: &Path, name: &str, aws: &str) -> Result<std::path::PathBuf> {
    let path = folder.join("pipeline.toml");
    fs::write(&path, format!("name = \"{name}\"\n[aws]\n{aws}\n{STAGES}"))?;
    Ok(path)
}

/// Names by kind: what CloudFormation has made for a stack begins with the name of that.
pub(crate) type Names = BTreeMap<&'static str, Vec<String>>;

fn counts(names: &Names) -> BTreeMap<&'static str, usize> {
    names.iter().map(|(kind, names)| (*kind, names.len())).collect()
}

/// What the account has of a stack, whether there is that stack or not.
pub(crate) fn all(stack: &Stack) -> Result<Names> {
    let (aws, sdk) = (&stack.account.aws, stack.account.aws.sdk());
    let functions = function::names(aws)?;
    let found = stack.account.runtime.block_on(async {
        let tables = aws_sdk_dynamodb::Client::new(&sdk).list_tables().send().await?.table_names.unwrap_or_default();
        let buckets = aws_sdk_s3::Client::from_conf(aws.s3()).list_buckets().send().await?.buckets.unwrap_or_default();
        let queues = aws_sdk_sqs::Client::new(&sdk).list_queues().send().await?.queue_urls.unwrap_or_default();
        let topics = aws_sdk_sns::Client::new(&sdk).list_topics().send().await?.topics.unwrap_or_default();
        let secrets = aws_sdk_secretsmanager::Client::new(&sdk).list_secrets().send().await?.secret_list;
        anyhow::Ok([
            ("tables", tables),
            ("buckets", buckets.into_iter().filter_map(|bucket| bucket.name).collect()),
            ("queues", queues),
            ("functions", functions),
            ("topics", topics.into_iter().filter_map(|topic| topic.topic_arn).collect()),
            ("secrets", secrets.unwrap_or_default().into_iter().filter_map(|secret| secret.name).collect()),
        ])
    })?;
    let prefix = format!("{}-", stack.name);
    let is_of_stack = |name: &String| name.rsplit(['/', ':']).next().is_some_and(|name| name.starts_with(&prefix));
    let of_stack = found.map(|(kind, names)| (kind, names.into_iter().filter(is_of_stack).collect::<Vec<_>>()));
    Ok(of_stack.into_iter().filter(|(_, names)| !names.is_empty()).collect())
}
