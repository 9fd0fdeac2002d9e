//! One function at its limits: a message that is missing, one that is none, a record that a stage fails on, a deadline.

use std::{collections::BTreeSet, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::types::MessageSystemAttributeName;
use serde_json::{Value, json};
use tapeline_aws::{
    Position,
    message::{ENTRANCE_GROUP, Numbered},
};
use tapeline_aws_tests::{
    components::package_with,
    lambda::{
        faults::{Faults, Told, random},
        instance::{Instance, NoAnswer},
        mapping,
        pipeline::{Pipeline, Plan},
        way::Way,
    },
    ledger,
    stack::{Account, package},
    stored,
};
use tapeline_invoke::{Counts, Hop, batch, names::Names};
use tempfile::TempDir;

/// Time of a call.
const CALL: Duration = Duration::from_secs(30);
/// What a stage may take where it never comes back; others take a hundredth of it.
const TIME_PER_BATCH: &str = "150ms";
/// Of a stage that is to have little.
const MEMORY_MIB: u64 = 4;
/// Names that do not all fit into it, and bytes of each.
const LONG_NAMES: u64 = 60;
const LONG_NAME_BYTES: usize = 50_000;
/// Who gives out what the functions are called with.
const PRODUCER: &str = "before";

/// A function of one stage between two queues, that is called by hand.
struct Single {
    pipeline: Pipeline,
    process: Instance,
}

impl Single {
    fn start(account: &Arc<Account>, plan: &Plan<'_>) -> Result<Self> {
        let pipeline = Pipeline::make(account, plan)?;
        let function = pipeline.functions.first().context("a function")?;
        let process = account.runtime.block_on(async {
            let way = Way::open(account.aws.port(), Faults::default(), random(0, 0), Arc::new(Told::default())).await?;
            Instance::start(function, way).await
        })?;
        Ok(Self { pipeline, process })
    }

    /// Calls it with messages; those that it has done.
    fn give(&mut self, records: &[Value], time: Duration) -> Result<BTreeSet<String>> {
        let event = json!({ "Records": records });
        let answer = self.pipeline.stack.account.runtime.block_on(self.process.call(&event, time));
        mapping::done(&event, &answer.with_context(|| self.pipeline.log())?)
    }

    fn position(&self, partition: u32) -> Result<Position> {
        let stage = self.pipeline.stack.stages.first().context("a stage")?;
        stored::position_in(&self.pipeline.stack, &self.pipeline.name, stage, partition)
    }

    /// What a stage has counted.
    fn counts(&self, stage: &str) -> Result<Counts> {
        Ok(ledger::of_stage(&ledger::deployed(&self.pipeline.stack)?, stage))
    }

    /// The ids of the trades that it has given out to a group. Its messages have numbers without gaps.
    fn given(&self, group: &str) -> Result<Vec<u64>> {
        let account = &self.pipeline.stack.account;
        let client = aws_sdk_sqs::Client::new(&account.aws.sdk());
        let queue = self.pipeline.queues.last().context("a queue")?;
        let mut ids = Vec::new();
        let mut number = 0;
        loop {
            let receive = client.receive_message().queue_url(queue).max_number_of_messages(10).visibility_timeout(2);
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let messages = account.runtime.block_on(receive.send())?.messages.unwrap_or_default();
            if messages.is_empty() {
                return Ok(ids);
            }
            for message in messages {
                let attributes = message.attributes().context("attributes of a message")?;
                if attributes.get(&MessageSystemAttributeName::MessageGroupId).is_some_and(|found| found == group) {
                    let numbered = Numbered::decode(message.body().unwrap_or_default())?;
                    number += 1;
                    ensure!(numbered.number == number, "message {} instead of {number}", numbered.number);
                    ids.extend(trade_ids(numbered.hop)?);
                }
                let delete = client.delete_message().queue_url(queue).set_receipt_handle(message.receipt_handle);
                account.runtime.block_on(delete.send())?;
            }
        }
    }
}

pub(crate) fn what_is_missing_stops_its_group_and_no_other(account: &Arc<Account>) -> Result<()> {
    let mut function = Single::start(account, &plan("gap", "dedup", &json!({}), package(), 2))?;
    let sent = [hop(0, 1, 1..3)?, hop(1, 1, 1..3)?, hop(0, 3, 5..7)?, hop(1, 2, 3..5)?, hop(0, 4, 7..9)?];
    let done = function.give(&sent, CALL)?;
    ensure!(done == ids(["0-1", "1-1", "1-2"]), "{done:?} were done");
    let last = |partition| Ok::<_, anyhow::Error>(function.position(partition)?.last_of(PRODUCER));
    ensure!((last(0)?, last(1)?) == (1, 2), "it went too far");
    // The one that came too early, and the one behind it.
    let not_done = function.pipeline.told("MessagesNotDone")?;
    ensure!(not_done == 2, "CloudWatch was told of {not_done} messages that are not done");
    let rest = [hop(0, 2, 3..5)?, sent[2].clone(), sent[4].clone()];
    ensure!(function.give(&rest, CALL)?.len() == 3, "what was missing came, and it does not go on");
    // All of it again does nothing.
    ensure!(function.give(&sent, CALL)?.len() == 5, "what was done is not done any more");
    let counts = function.counts("dedup")?;
    // Of both partitions.
    ensure!((counts.entered, counts.duplicate) == (12, 0), "{counts:?}");
    let given = function.given("0")?;
    ensure!(given == (1..9).collect::<Vec<_>>(), "{given:?} were given out");
    Ok(())
}

pub(crate) fn what_is_none_of_ours_fails(account: &Arc<Account>) -> Result<()> {
    let mut function = Single::start(account, &plan("alien", "dedup", &json!({}), package(), 2))?;
    let sent = [record("0", "hello", "hello", 1), hop(0, 1, 1..3)?, hop(1, 1, 1..3)?, record("7", "seven", "x", 1)];
    let done = function.give(&sent, CALL)?;
    // What is behind it in its group waits for it.
    ensure!(done == ids(["1-1"]), "{done:?} were done");
    let runtime = &account.runtime;
    let other = runtime.block_on(function.process.call(&json!({ "hello": 1 }), CALL));
    ensure!(matches!(&other, Err(NoAnswer::Failed(said)) if said.contains("is none of a queue")), "{other:?}");
    ensure!(function.give(&[hop(0, 1, 1..3)?], CALL)?.len() == 1, "it does not go on");

    let watermark = json!({ "delay": "2s", "every": "1s", "max_future": "10s" });
    let first = Plan { watermark: Some(watermark), ..plan("entrance", "fetch", &json!({}), package(), 1) };
    let mut function = Single::start(account, &first)?;
    let between = Numbered { producer: PRODUCER.to_owned(), number: 1, hop: Hop::default() }.encode();
    let text = r#"{"stream":"btcusdt@bookTicker","data":{}}"#;
    // What is no message of ours is what a vendor sends; what begins as one is a record that nobody can read.
    let sent = [("damaged", "tapeline-raw:?"), ("between", &between), ("text", text)];
    let sent: Vec<Value> =
        (1..).zip(sent).map(|(sequence, (id, body))| record(ENTRANCE_GROUP, id, body, sequence)).collect();
    ensure!(function.give(&sent, CALL)?.len() == 3, "a record was not taken");
    let letters = stored::dead_letters(&function.pipeline.stack)?;
    ensure!(letters.len() == 2 && letters[0]["record"] == "tapeline-raw:?", "{letters:?}");
    // Of a queue that is no FIFO queue.
    let mut unnumbered = record(ENTRANCE_GROUP, "text", text, 4);
    unnumbered["attributes"].as_object_mut().context("attributes")?.remove("SequenceNumber");
    ensure!(function.give(&[unnumbered], CALL)?.is_empty(), "what has no number was taken");
    Ok(())
}

pub(crate) fn a_record_that_a_stage_fails_on_is_put_aside(account: &Arc<Account>) -> Result<()> {
    let folder = TempDir::new()?;
    let package = package_with(folder.path(), &["test/faulty"])?;
    let settings = json!({ "fault": "trap", "every": 20, "remainder": 7 });
    let mut function = Single::start(account, &plan("poison", "faulty", &settings, package, 1))?;
    ensure!(function.give(&[hop(0, 1, 0..40)?, hop(0, 2, 40..60)?], CALL)?.len() == 2, "it does not go on");
    let bad = |id: &u64| id % 20 == 7;
    check_aside(&function, (0..60).partition(|id| !bad(id)))
}

pub(crate) fn what_an_instance_did_before_harms_no_record(account: &Arc<Account>) -> Result<()> {
    let mut plan = plan("memory", "enrich", &json!({}), package(), 1);
    plan.stages[0]["memory_mib"] = MEMORY_MIB.into();
    let mut function = Single::start(account, &plan)?;
    // An instance keeps names, until there is no room for another one: then a new instance has it.
    for number in 1..=LONG_NAMES {
        let source = format!("{number:0LONG_NAME_BYTES$}");
        let done = function.give(&[hop_from(&source, 0, number, number..number + 1)?], CALL)?.len();
        ensure!(done == 1, "message {number} was not done\n{}", function.pipeline.log());
    }
    let counts = function.counts("enrich")?;
    ensure!((counts.out, counts.dead) == (LONG_NAMES, 0), "{counts:?}");
    Ok(())
}

pub(crate) fn a_record_that_takes_too_long_is_put_aside(account: &Arc<Account>) -> Result<()> {
    let folder = TempDir::new()?;
    let package = package_with(folder.path(), &["test/faulty"])?;
    let settings = json!({ "fault": "loop", "every": 20, "remainder": 7 });
    let mut function = Single::start(account, &plan("deadline", "faulty", &settings, package, 1))?;
    // There is no time for a stage in a call that ends in half a second.
    ensure!(function.give(&[hop(0, 1, 0..3)?], Duration::from_millis(500))?.is_empty(), "it was done in no time");
    ensure!(function.position(0)?.last.is_empty(), "something was done in no time");
    ensure!(function.give(&[hop(0, 1, 0..3)?], CALL)?.len() == 1, "it does not go on");
    ensure!(function.give(&[hop(0, 2, 3..16)?], CALL)?.len() == 1, "it does not go on");
    check_aside(&function, ((0..16).filter(|id| *id != 7).collect(), vec![7]))
}

/// Checks what a function has given out, and what it has put aside.
fn check_aside(function: &Single, (good, bad): (Vec<u64>, Vec<u64>)) -> Result<()> {
    let (given, position) = (function.given("0")?, function.position(0)?);
    ensure!(given == good, "{given:?} were given out");
    let counts = function.counts("faulty")?;
    let wanted = ((good.len() + bad.len()) as u64, good.len() as u64, bad.len() as u64);
    ensure!((counts.entered, counts.out, counts.dead) == wanted, "{counts:?} instead of {wanted:?}");
    ensure!(position.partial.is_none(), "a message is half done");
    let letters = stored::dead_letters(&function.pipeline.stack)?;
    let letters = letters.iter().map(|letter| {
        let event: Value = serde_json::from_str(&letter["event"])?;
        event["id"].as_u64().context("the id of a trade")
    });
    let aside = letters.collect::<Result<BTreeSet<u64>>>()?;
    let count = bad.len() as u64;
    ensure!(aside == bad.into_iter().collect(), "{aside:?} were put aside");
    let told = (function.pipeline.told("RecordsPutAside")?, function.pipeline.told("RecordsDead")?);
    ensure!(told == (count, count), "CloudWatch was told of {told:?} records instead of {count}");
    Ok(())
}

/// A pipeline of one stage.
fn plan<'a>(name: &'a str, stage: &str, settings: &Value, package: PathBuf, partitions: u32) -> Plan<'a> {
    let time = if settings["fault"] == "loop" { TIME_PER_BATCH } else { "5s" };
    let stages = vec![json!({ "name": stage, "settings": settings, "time_per_batch": time })];
    Plan { name, stages, watermark: None, partitions, package }
}

/// A message of a partition, with trades.
fn hop(partition: u32, number: u64, trades: Range<u64>) -> Result<Value> {
    hop_from("x", partition, number, trades)
}

/// A message of a partition, with trades of a source.
fn hop_from(source: &str, partition: u32, number: u64, trades: Range<u64>) -> Result<Value> {
    let line = |id: u64| {
        let event = json!({
            "kind": "trade", "symbol": "S", "source": source, "time": "2024-08-09T00:00:00Z", "id": id, "price": 1.5,
        });
        event.to_string()
    };
    let lines: Vec<String> = trades.map(line).collect();
    let mut names = Names::default();
    let events = batch::from_lines(lines.iter().map(String::as_bytes), Some(1), &mut names);
    let events = events.map_err(|(line, error)| anyhow::anyhow!("line {line}: {error}"))?;
    let body = Numbered { producer: PRODUCER.to_owned(), number, hop: Hop::pack(events, &names) }.encode();
    Ok(record(&partition.to_string(), &format!("{partition}-{number}"), &body, 1))
}

fn record(group: &str, id: &str, body: &str, sequence: u32) -> Value {
    json!({
        "messageId": id,
        "body": body,
        "attributes": {
            "MessageGroupId": group,
            "SequenceNumber": format!("{sequence:020}"),
            "SentTimestamp": "1700000000000",
            "ApproximateReceiveCount": "1",
        },
        "eventSource": "aws:sqs",
    })
}

fn trade_ids(hop: Hop) -> Result<Vec<u64>> {
    let mut names = Names::default();
    let events = hop.unpack(&mut names)?;
    let ids = batch::elements(&events).filter_map(|element| match element {
        batch::Element::Event { group, at } => Some(batch::to_line(&events.groups[group], at, &names)),
        batch::Element::Mark(_) => None,
    });
    let id = |line: String| {
        let event: Value = serde_json::from_str(&line)?;
        event["id"].as_u64().context("the id of a trade")
    };
    ids.map(id).collect()
}

fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.into_iter().map(str::to_owned).collect()
}
