//! Functions beside those of a stack, made of the same package, which answer under an address of their own.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use ureq::http::{Method, Request};

use crate::{
    local_aws::LocalAws,
    stack::{Stack, agent},
};

const STAGES: &str = "TAPELINE_STAGES";
const OUT_QUEUE_URL: &str = "TAPELINE_OUT_QUEUE_URL";

/// Makes a function with all stages of a stack, one of them with settings of its own, and gives its address.
///
/// # Errors
/// When the stack has no such stage, or the function cannot be made.
pub fn with_settings(stack: &Stack, name: &str, changed: Option<(&str, Value)>) -> Result<String> {
    let aws = &stack.account.aws;
    let functions = stack.stages.iter().map(|stage| configuration(aws, stack.output_of("Function", stage)?));
    let functions = functions.collect::<Result<Vec<Value>>>()?;
    let mut variables = Map::new();
    let mut stages = Vec::new();
    for function in &functions {
        let given = function["Environment"]["Variables"].as_object().context("variables of a function")?;
        let some: Vec<Value> = serde_json::from_str(given[STAGES].as_str().context("stages of a function")?)?;
        stages.extend(some);
        variables.extend(given.clone());
    }
    if let Some((stage, settings)) = changed {
        let found = stages.iter_mut().find(|found| found["name"] == stage);
        found.with_context(|| format!("no stage {stage}"))?["settings"] = settings;
    }
    variables.insert(STAGES.to_owned(), serde_json::to_string(&stages)?.into());
    variables.remove(OUT_QUEUE_URL);
    let (bucket, key) = stack.package()?;
    let like = functions.first().context("a function")?;
    let wanted = json!({
        "FunctionName": name,
        "Code": { "S3Bucket": bucket, "S3Key": key },
        "Environment": { "Variables": variables },
        "Runtime": like["Runtime"], "Architectures": like["Architectures"], "Handler": like["Handler"],
        "Role": like["Role"], "Timeout": like["Timeout"], "MemorySize": like["MemorySize"],
    });
    ask(aws, Method::POST, "/2015-03-31/functions", Some(&wanted))?;
    let made =
        ask(aws, Method::POST, &format!("/2021-10-31/functions/{name}/url"), Some(&json!({ "AuthType": "NONE" })))?;
    let url = made["FunctionUrl"].as_str().context("the address of a function")?;
    let id = url.split("://").nth(1).and_then(|host| host.split('.').next()).context("the name of an address")?;
    Ok(format!("{}/_aws/lambda-url/{id}", aws.endpoint()))
}

/// The names of all functions.
///
/// # Errors
/// When they cannot be asked for.
pub fn names(aws: &LocalAws) -> Result<Vec<String>> {
    let found = ask(aws, Method::GET, "/2015-03-31/functions", None)?;
    let functions = found["Functions"].as_array().context("functions")?;
    Ok(functions.iter().filter_map(|function| function["FunctionName"].as_str()).map(str::to_owned).collect())
}

fn configuration(aws: &LocalAws, function: &str) -> Result<Value> {
    ask(aws, Method::GET, &format!("/2015-03-31/functions/{function}/configuration"), None)
}

/// What a function answers to an event; `None` when the call failed.
///
/// # Errors
/// When AWS Lambda does not answer.
pub fn invoke(aws: &LocalAws, function: &str, event: &Value) -> Result<Option<Value>> {
    let url = format!("{}/2015-03-31/functions/{function}/invocations", aws.endpoint());
    let mut answer = agent().post(&url).content_type("application/json").send(serde_json::to_vec(event)?)?;
    let (is_fine, is_failed) = (answer.status().is_success(), answer.headers().contains_key("x-amz-function-error"));
    let said = answer.body_mut().read_to_string()?;
    if !is_fine || is_failed {
        return Ok(None);
    }
    serde_json::from_str(&said).map(Some).with_context(|| format!("{function}: {said}"))
}

/// Whether AWS Lambda calls a function with what is in its queue.
///
/// # Errors
/// When that cannot be changed.
pub fn set_mappings(aws: &LocalAws, function: &str, is_enabled: bool) -> Result<()> {
    let found = ask(aws, Method::GET, &format!("/2015-03-31/event-source-mappings/?FunctionName={function}"), None)?;
    for mapping in found["EventSourceMappings"].as_array().context("mappings")? {
        let path = format!("/2015-03-31/event-source-mappings/{}", mapping["UUID"].as_str().context("a mapping")?);
        ask(aws, Method::PUT, &path, Some(&json!({ "Enabled": is_enabled })))?;
    }
    Ok(())
}

/// Asks AWS Lambda, without its client, which would take a minute to compile.
fn ask(aws: &LocalAws, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
    let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    let request = Request::builder().method(method).uri(format!("{}{path}", aws.endpoint()));
    let mut answer = agent().run(request.header("content-type", "application/json").body(body)?)?;
    let (status, said) = (answer.status(), answer.body_mut().read_to_string()?);
    ensure!(status.is_success(), "{path}: {status}: {said}");
    serde_json::from_str(&said).with_context(|| format!("{path}: {said}"))
}
