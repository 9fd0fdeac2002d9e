//! A pipeline of six functions under load, with a trickle of events, at its starts, and when nothing comes.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::Client;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tapeline_aws::message::{ENTRANCE_GROUP, Raw};
use tapeline_harness::program;
use tempfile::TempDir;

use super::hop::{Calls, Hop, Start, Taken};
use crate::{
    lambda::{
        meter::{Counted, Items, Units},
        pipeline::{Pipeline, Plan},
    },
    stack::{Account, package},
};

/// The pipeline's name.
const NAME: &str = "bench";
const FORMAT: &str = "binance";
/// Lines of a request under load: a megabyte.
pub const REQUEST_LINES: usize = 5_000;
/// HTTP APIs count requests in steps of so many bytes.
const STEP_BYTES: u64 = 512 << 10;
/// What Lambda itself logs of a call
/// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-view.html>).
const LAMBDA_LINES: &str = "START RequestId: 79b4f56e-95b1-4643-9700-2807f4e68189 Version: $LATEST\n\
    END RequestId: 79b4f56e-95b1-4643-9700-2807f4e68189\n\
    REPORT RequestId: 79b4f56e-95b1-4643-9700-2807f4e68189\tDuration: 34.78 ms\tBilled Duration: 35 ms\t\
    Memory Size: 512 MB\tMax Memory Used: 48 MB\t\n";

/// A pipeline, each function with one process.
pub struct Chain {
    hops: Vec<Hop>,
    client: Client,
    pipeline: Pipeline,
    logs: [PathBuf; 2],
    sent: u64,
    _folder: TempDir,
}

/// What some events took.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Events.
    pub events: u64,
    /// Requests with them.
    pub requests: Calls,
    /// Steps in which those are counted.
    pub steps: u64,
    /// Messages, of all functions.
    pub taken: Taken,
    /// What the functions asked for.
    pub counted: Counted,
    /// State.
    pub state: Units,
    /// Rows and dead letters.
    pub rows: Units,
    /// The ledger.
    pub ledger: Units,
    /// Bytes of logs, with those by Lambda.
    pub log_bytes: u64,
}

impl Chain {
    /// Makes the pipeline of the main job.
    ///
    /// # Errors
    /// When AWS does not take it.
    pub fn make(account: &Arc<Account>) -> Result<Self> {
        let plan = Plan::of_file(NAME, &program::bitcoin_pipeline(), 1, package())?;
        let mut pipeline = Pipeline::make(account, &plan)?;
        let folder = TempDir::new()?;
        let logs = ["log.txt", "printed.txt"].map(|name| folder.path().join(name));
        for function in &mut pipeline.functions {
            function.log.clone_from(&logs[0]);
            function.printed.clone_from(&logs[1]);
        }
        let (client, items) = (Client::new(&account.aws.sdk()), Arc::new(Items::default()));
        let functions = pipeline.functions.iter().cloned().zip(pipeline.queues.iter().cloned());
        let hops = functions
            .map(|(function, queue)| Hop::new(function, client.clone(), queue, account.aws.port(), Arc::clone(&items)));
        Ok(Self { hops: hops.collect(), client, pipeline, logs, sent: 0, _folder: folder })
    }

    /// The end of what the functions have logged.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(&self.logs[0]).unwrap_or_default();
        let start = log.len().saturating_sub(4_000);
        log.get(log.ceil_char_boundary(start)..).unwrap_or_default().to_owned()
    }

    /// All events in requests and messages that are as full as they get: each function begins when the one before has done
    /// everything.
    ///
    /// # Errors
    /// When one is not done.
    pub async fn load(&mut self, events: &[String]) -> Result<Phase> {
        let mut phase = self.begin()?;
        for (number, lines) in events.chunks(REQUEST_LINES).enumerate() {
            self.post(lines, &format!("load-{number}"), &mut phase).await?;
        }
        self.take_all(&mut phase).await?;
        self.end(phase)
    }

    /// One event after the other, each in a request of its own, through all functions.
    ///
    /// # Errors
    /// When one is not done.
    pub async fn trickle(&mut self, events: &[String]) -> Result<Phase> {
        let mut phase = self.begin()?;
        for (number, line) in events.iter().enumerate() {
            self.post(std::slice::from_ref(line), &format!("trickle-{number}"), &mut phase).await?;
            self.take_all(&mut phase).await?;
        }
        self.end(phase)
    }

    /// One event after the other, each time with a process of each function that was started for it: the names of the
    /// functions and their starts.
    ///
    /// # Errors
    /// When one is not done.
    pub async fn starts(&mut self, events: &[String]) -> Result<Vec<(String, Vec<Start>)>> {
        let names = self.pipeline.stack.stages.iter().map(|stage| (stage.clone(), Vec::new()));
        let mut starts: Vec<(String, Vec<Start>)> = names.collect();
        let entrance = self.pipeline.queues.first().context("a queue")?.clone();
        for line in events {
            let body = line.clone().into_bytes();
            let raw = Raw::Records { format: FORMAT.to_owned(), received: None, body };
            self.sent += 1;
            let send = self.client.send_message().queue_url(&entrance).message_group_id(ENTRANCE_GROUP);
            send.message_deduplication_id(format!("start-{}", self.sent)).message_body(raw.encode()).send().await?;
            for (hop, (_, starts)) in self.hops.iter().zip(&mut starts) {
                starts.extend(hop.take_cold().await?);
            }
        }
        Ok(starts)
    }

    /// Calls the first function as its schedule does, so often.
    ///
    /// # Errors
    /// When it fails.
    pub async fn scheduled(&mut self, count: u32) -> Result<(Calls, Units)> {
        let table = self.pipeline.stack.output("StateTable")?.to_owned();
        let first = self.hops.first_mut().context("a function")?;
        first.counted();
        let mut calls = Calls::default();
        for _ in 0..count {
            calls += &first.call(&json!({ "tapeline": "schedule" })).await?.1;
        }
        Ok((calls, first.counted().of_table(&table)))
    }

    /// The most memory that each function has had, bytes, by its stage.
    ///
    /// # Errors
    /// When a function has no process.
    pub fn peak_bytes(&self) -> Result<Vec<(String, u64)>> {
        let stages = self.pipeline.stack.stages.iter();
        self.hops.iter().zip(stages).map(|(hop, stage)| Ok((stage.clone(), hop.peak_bytes()?))).collect()
    }

    fn begin(&self) -> Result<Phase> {
        self.hops.iter().for_each(|hop| _ = hop.counted());
        Ok(Phase { log_bytes: self.logged()?, ..Phase::default() })
    }

    fn end(&self, mut phase: Phase) -> Result<Phase> {
        self.hops.iter().for_each(|hop| phase.counted.add(&hop.counted()));
        let of_table = |name: &str| Ok::<_, anyhow::Error>(phase.counted.of_table(self.pipeline.stack.output(name)?));
        let (rows, letters) = (of_table("RowsTable")?, of_table("DeadLettersTable")?);
        phase.state = of_table("StateTable")?;
        phase.ledger = of_table("LedgerTable")?;
        phase.rows = Units { read: rows.read + letters.read, written: rows.written + letters.written };
        let calls = phase.requests.count + phase.taken.calls.count;
        phase.log_bytes = self.logged()? - phase.log_bytes + calls * LAMBDA_LINES.len() as u64;
        Ok(phase)
    }

    fn logged(&self) -> Result<u64> {
        // There is none before the first function starts.
        let bytes = |path: &PathBuf| if path.exists() { fs::metadata(path).map(|file| file.len()) } else { Ok(0) };
        Ok(self.logs.iter().map(bytes).sum::<Result<u64, _>>()?)
    }

    async fn post(&mut self, lines: &[String], id: &str, phase: &mut Phase) -> Result<()> {
        let body = lines.join("\n");
        let (answer, calls) = self.hops.first_mut().context("a function")?.call(&request(&body, id)).await?;
        ensure!(answer["statusCode"] == 202, "{answer}");
        phase.events += lines.len() as u64;
        phase.steps += (body.len() as u64).div_ceil(STEP_BYTES).max(1);
        phase.requests += &calls;
        Ok(())
    }

    async fn take_all(&mut self, phase: &mut Phase) -> Result<()> {
        for hop in &mut self.hops {
            let Taken { calls, messages, chunks } = hop.take_all().await?;
            phase.taken.calls += &calls;
            phase.taken.messages += messages;
            phase.taken.chunks += chunks;
        }
        Ok(())
    }
}

/// What an HTTP API makes of a request with events
/// (<https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>).
fn request(body: &str, id: &str) -> Value {
    let path = format!("/pipelines/{NAME}/events");
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": format!("format={FORMAT}"),
        "headers": { "content-type": "application/x-ndjson", "content-length": body.len().to_string(), "idempotency-key": id },
        "queryStringParameters": { "format": FORMAT },
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "api",
            "domainName": "api.execute-api.us-east-1.amazonaws.com",
            "domainPrefix": "api",
            "http": { "method": "POST", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "bench" },
            "requestId": id,
            "routeKey": "$default",
            "stage": "$default",
            "time": "08/Aug/2024:00:00:00 +0000",
            "timeEpoch": 1_723_075_200_000_u64,
        },
        "body": BASE64_STANDARD.encode(body),
        "isBase64Encoded": true,
    })
}
