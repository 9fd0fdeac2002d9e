//! What people do with a stack from their own machine, by the program `tapeline-aws`.

use std::{fs, sync::Arc, thread};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tapeline_aws::operate::{self, Change, Pointed, Pointer};
use tapeline_aws_tests::{
    components::{Compiled, package_with},
    message_moves::{Goes, MessageMoves},
    operator::{self, Run},
    stack::{Account, Stack},
    stored,
};
use tempfile::TempDir;

/// Each test has a stage of its own: `pushed`, `contested`, and the others, which nobody touches.
const PIPELINE: &str = r#"
name = "operated"
[source]
format = "binance"
[[stages]]
name = "fetch"
[[stages]]
name = "pushed"
component = "faulty"
[stages.settings]
fault = "trap"
every = 1000000000000
remainder = 1
[[stages]]
name = "contested"
component = "faulty"
[stages.settings]
fault = "trap"
every = 1000000000000
remainder = 1
[[stages]]
name = "write"
[stages.settings]
tables = ["trades"]
objects = []
"#;
const TRADE: &str = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":12345,"p":"16.5","q":"100","T":1672515782136,"m":true}}"#;
/// Wrong usage, or what is not there.
const WRONG: i32 = 2;
/// It failed, or somebody else was first.
const FAILED: i32 = 1;

pub(crate) fn deploy(account: &Arc<Account>) -> Result<Stack> {
    let folder = TempDir::new()?;
    let pipeline = folder.path().join("pipeline.toml");
    fs::write(&pipeline, PIPELINE)?;
    Stack::deploy(account, &pipeline, &package_with(folder.path(), &["test/faulty"])?, &["authorization=token"])
}

/// Runs the program on a stack.
pub(crate) fn run(stack: &Stack, arguments: &[&str]) -> Result<Run> {
    operator::run(&stack.account.aws.endpoint(), arguments)
}

/// What `stage list` says of a stage.
pub(crate) fn listed(stack: &Stack, stage: &str) -> Result<Value> {
    let run = run(stack, &["stage", "list", &stack.name, "--format", "json"])?;
    ensure!(run.code == 0, "{run:?}");
    let stages: Vec<Value> = serde_json::from_str(&run.said)?;
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["stage"].as_str()).collect();
    ensure!(names == stack.stages, "{names:?}");
    stages.into_iter().find(|listed| listed["stage"] == stage).with_context(|| format!("no stage {stage}"))
}

pub(crate) fn a_stage_is_pushed_listed_and_taken_back(stack: &Stack) -> Result<()> {
    let (stage, name) = ("pushed", stack.name.as_str());
    let (one, other) = (Compiled::new("test/migrating")?, Compiled::new("test/faulty")?);
    let rollback = |more: &[&str]| run(stack, &[&["stage", "rollback", name, stage], more].concat());
    let at = |to: &str| {
        let listed = listed(stack, stage)?;
        ensure!(listed["to"] == to, "{listed} instead of {to}");
        anyhow::Ok(listed)
    };

    let listed = at("deployed")?;
    ensure!(listed["since"].is_null() && listed["before"].is_null(), "{listed}");
    let run = rollback(&[])?;
    ensure!(run.code == WRONG && run.errors.contains("was never pointed elsewhere"), "{run:?}");

    let run = one.try_push(stack, stage)?;
    let short = &one.digest()[..12];
    ensure!(run.code == 0 && run.said.contains(&format!("pushed: from what was deployed to {short}")), "{run:?}");
    let listed = at(one.digest())?;
    ensure!(listed["before"] == "deployed" && listed["by"] == "tester" && listed["since"].is_string(), "{listed}");
    let run = one.try_push(stack, stage)?;
    ensure!(run.code == 0 && run.said.contains(&format!("pushed: was pointed to {short} already")), "{run:?}");

    other.push(stack, stage)?;
    ensure!(at(other.digest())?["before"] == one.digest(), "what was before");
    let run = rollback(&["--why", "zu viele Alarme – ä"])?;
    ensure!(run.code == 0 && run.said.contains(&format!(" to {short}, from the next batch on")), "{run:?}");
    ensure!(at(one.digest())?["why"] == "zu viele Alarme – ä", "why");
    // The same once more goes forth again.
    ensure!(rollback(&[])?.code == 0, "forth");
    at(other.digest())?;
    ensure!(rollback(&["--to", "deployed"])?.code == 0, "away from all");
    at("deployed")?;
    ensure!(rollback(&["--to", short])?.code == 0, "to a digest");
    at(one.digest())?;
    for (to, says) in [("0000000000", "none was pushed whose digest begins so"), ("latest", "\"deployed\"")] {
        let run = rollback(&["--to", to])?;
        ensure!(run.code == WRONG && run.errors.contains(says), "{to}: {run:?}");
    }
    ensure!(rollback(&["--to", "deployed"])?.code == 0, "away from all");
    Ok(())
}

pub(crate) fn of_those_who_push_at_once_one_is_told(stack: &Stack) -> Result<()> {
    let stage = "contested";
    let account = operate::Account::of(&stack.account.aws.sdk())?;
    let digest = |letter: &str| Pointed::To(letter.repeat(64));
    let change = |by: &str| Change { by: by.to_owned(), why: String::new() };
    stack.account.runtime.block_on(async {
        let found = operate::Stack::find(&account, &stack.name).await?;
        // At first there is no pointer, then there is one.
        for (first, second) in [("a", "b"), ("c", "d")] {
            let seen = Pointer::read(&account, &found, stage).await?;
            seen.turn(&account, &found, &digest(first), &change("Ann")).await?;
            let refused = seen.turn(&account, &found, &digest(second), &change("Bob")).await;
            let error = refused.err().context("the second was not refused")?.to_string();
            ensure!(error.contains("meanwhile it was moved to") && error.contains("by Ann"), "{error}");
            let now = Pointer::read(&account, &found, stage).await?;
            ensure!(now.to == digest(first) && now.by == "Ann", "{now:?}");
            // Who asks again for what has happened is told that it has.
            seen.turn(&account, &found, &digest(first), &change("Ann")).await?;
        }
        anyhow::Ok(())
    })?;
    let components = [Compiled::new("test/migrating")?, Compiled::new("test/faulty")?];
    let runs: Vec<Run> = thread::scope(|scope| {
        let pushes: Vec<_> =
            (0..6).map(|at| &components[at % 2]).map(|one| scope.spawn(|| one.try_push(stack, stage))).collect();
        let joined =
            pushes.into_iter().map(|push| push.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<_>>()
    })?;
    let is_told = |run: &Run| run.code == FAILED && run.errors.contains("meanwhile it was moved to");
    ensure!(runs.iter().all(|run| run.code == 0 || is_told(run)) && runs.iter().any(|run| run.code == 0), "{runs:?}");
    let listed = listed(stack, stage)?;
    ensure!(components.iter().any(|one| listed["to"] == one.digest()), "{listed}");
    let run = run(stack, &["stage", "rollback", &stack.name, stage, "--to", "deployed"])?;
    ensure!(run.code == 0, "{run:?}");
    Ok(())
}

pub(crate) fn what_does_not_fit_is_refused_and_changes_nothing(stack: &Stack) -> Result<()> {
    let (folder, faulty) = (TempDir::new()?, Compiled::new("test/faulty")?);
    let (writer, alarm) = (Compiled::new("write")?, Compiled::new("alarm")?);
    let (name, code) = faulty.file();
    let damaged = [code, b"!"].concat();
    let foreign = format!("{}-0123.cwasm", faulty.digest());
    let pushed = |stack_name: &str, stage: &str, (file, bytes): (&str, &[u8]), architecture: &str| {
        let path = folder.path().join(file);
        fs::write(&path, bytes)?;
        let path = path.to_str().context("a path of text")?;
        let arguments = ["stage", "push", stack_name, stage, "--compiled", path, "--architecture", architecture];
        run(stack, &arguments)
    };
    let own = stack.name.as_str();
    for (stack_name, stage, file, architecture, says) in [
        ("tapeline-other", "write", (name, code), "x86_64", "there is none of the name"),
        (own, "dedup", (name, code), "x86_64", "its stages are fetch, pushed, contested, write"),
        (own, "write", (name, code), "arm64", "compiled for arm64, and the functions run on x86_64"),
        (own, "write", (&foreign, code), "x86_64", "was compiled for engines 0123, and the functions have"),
        (own, "write", ("faulty.wasm", code), "x86_64", "its name is not DIGEST-ENGINES.cwasm"),
        (own, "write", (name, &damaged), "x86_64", "its file is damaged"),
        (own, "write", (name, code), "x86_64", "it is of world stage, and the last stage is of world writer"),
        (own, "fetch", writer.file(), "x86_64", "it is of world writer, and the first stage is of world fetcher"),
        (own, "contested", alarm.file(), "x86_64", "it does not start with the stage's settings"),
    ] {
        let run = pushed(stack_name, stage, file, architecture)?;
        ensure!(run.code == WRONG && run.errors.contains(says) && run.said.is_empty(), "{says}: {run:?}");
    }
    for stage in ["fetch", "write"] {
        ensure!(listed(stack, stage)?["since"].is_null(), "{stage} was touched");
    }
    let (bucket, client) = (stack.output("ComponentsBucket")?, aws_sdk_s3::Client::from_conf(stack.account.aws.s3()));
    let ask = client.head_object().bucket(bucket).key(writer.file().0).send();
    ensure!(stack.account.runtime.block_on(ask).is_err(), "what was refused was uploaded");
    Ok(())
}

pub(crate) fn nobody_without_credentials_or_a_region_gets_far(stack: &Stack) -> Result<()> {
    let endpoint = stack.account.aws.endpoint();
    for (lacks, says) in [
        (&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"][..], "find credentials of an AWS account"),
        (&["AWS_REGION"], "set AWS_REGION"),
    ] {
        let mut command = operator::command(&endpoint, &["stage", "list", &stack.name]);
        lacks.iter().for_each(|variable| _ = command.env_remove(variable));
        // Nor does the machine know any.
        let output = command.env("AWS_EC2_METADATA_DISABLED", "true").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(WRONG) && said.contains(says), "{says}: {said}");
    }
    Ok(())
}

pub(crate) fn what_failed_is_sent_again(stack: &Stack) -> Result<()> {
    let moves = MessageMoves::open(stack)?;
    let redrive = |more: &[&str]| operator::run(&moves.endpoint, &[&["redrive", &stack.name], more].concat());
    let run = redrive(&[])?;
    ensure!(run.code == 0 && run.said.contains("fetch: nothing in its dead-letter queue"), "{run:?}");
    let run = redrive(&["--function", "dedup"])?;
    ensure!(run.code == WRONG && run.errors.contains("there are fetch, pushed, contested, write"), "{run:?}");

    // As SQS puts it there after a thousand tries.
    let queues = aws_sdk_sqs::Client::new(&stack.account.aws.sdk());
    let send = queues.send_message().queue_url(stack.output_of("DeadLetterQueue", "fetch")?).message_body(TRADE);
    let send = send.message_group_id("0").message_deduplication_id("failed").send();
    stack.account.runtime.block_on(send)?;

    let run = redrive(&["--dry-run"])?;
    ensure!(run.code == 0 && run.said.contains("fetch: 1 message in its dead-letter queue\n"), "{run:?}");
    moves.let_it_go(Goes::Wrong);
    let run = redrive(&["--function", "fetch"])?;
    ensure!(
        run.code == FAILED && run.said.contains("failed, 0 moved: AWS.SimpleQueueService.NonExistentQueue"),
        "{run:?}"
    );
    moves.let_it_go(Goes::OnAndOn);
    for says in ["queue; running, 0 moved", "queue; SQS was at it already; running, 0 moved"] {
        let run = redrive(&["--wait", "0s"])?;
        ensure!(run.code == 0 && run.said.contains(says), "{run:?}");
    }
    drop(moves);

    // What is told is of the one that was begun, not of the one before, which SQS may name as the last for a while.
    let moves = MessageMoves::open(stack)?;
    let redrive = || operator::run(&moves.endpoint, &["redrive", &stack.name, "--function", "fetch"]);
    moves.let_it_go(Goes::Wrong);
    let run = redrive()?;
    ensure!(run.code == FAILED && run.said.contains("failed, 0 moved"), "{run:?}");
    moves.let_it_go(Goes::Through);
    let run = redrive()?;
    ensure!(
        run.code == 0 && run.said.contains("fetch: 1 message in its dead-letter queue; completed, 1 of 1 moved"),
        "{run:?}"
    );
    stack.end()?;
    stack.wait_until_done()?;
    let trades = stored::tables(stack)?.remove("trades").unwrap_or_default();
    ensure!(trades.len() == 1, "{trades:?}");
    Ok(())
}
