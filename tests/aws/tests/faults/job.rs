//! A market with repeated, late and broken frames, what one process makes of it, and whether functions have made the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_sqs::Client;
use serde_json::Value;
use tapeline_aws::{
    Position,
    message::{ENTRANCE_GROUP, Raw},
};
use tapeline_aws_tests::{
    alarms::Alarms,
    lambda::pipeline::Pipeline,
    ledger,
    stored::{self, Tables},
};
use tapeline_harness::program;
use tempfile::TempDir;

/// With the frames that are none, a bit more than 3,000 frames.
const TRADES: &str = "2000";
/// Some minutes of a market, so that some bars are closed by the watermark and some by the end.
const RATE: &str = "15";
const SYMBOLS: &str = "BTCUSDT,ETHUSDT,SOLUSDT";
/// Frames of a message.
const FRAMES: usize = 60;
/// Each so-manieth frame comes again so many frames later: as a repeat.
const REPEATED: (usize, usize) = (37, 25);
/// Each so-manieth frame comes so many frames later: too late for its bars.
const LATE: (usize, usize) = (211, 400);
/// Each so-manieth frame is cut off.
const BROKEN: usize = 503;

const TABLES: [&str; 4] = ["trades", "bars", "averages", "alarms"];

/// A market, and what one process makes of it.
pub(crate) struct Job {
    frames: Vec<String>,
    /// Of the pipeline of the main job.
    pub(crate) file: PathBuf,
    tables: Tables,
    objects: BTreeMap<String, Vec<u8>>,
    dead_letters: usize,
    data: PathBuf,
    _folder: TempDir,
}

impl Job {
    /// Runs a market through one process.
    pub(crate) fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let (market, data) = (folder.path().join("market.txt"), folder.path().join("data"));
        let frames = frames()?;
        fs::write(&market, frames.join("\n"))?;
        let file = program::bitcoin_pipeline();
        let run = program::run(&file, &[&market], &data)?;
        ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
        let place = data.to_str().context("a temporary folder has a name")?;
        let letters = program::output(&["dead-letters", "list", "--data", place, "--format", "csv"])?;
        let (tables, objects) = (stored::embedded_tables(&data, &TABLES)?, program::objects(&data)?);
        let dead_letters = letters.lines().count().saturating_sub(1);
        let counted = program::output(&["ledger", "--data", place, "--format", "json"])?;
        let counted: Vec<Value> = serde_json::from_str(&counted)?;
        let has = |count: &str| counted.iter().any(|line| line[count].as_u64() > Some(0));
        ensure!(
            tables.values().all(|rows| !rows.is_empty()) && !objects.is_empty() && dead_letters > 0,
            "it stores too little"
        );
        ensure!(has("duplicate") && has("late"), "nothing is repeated, or late");
        Ok(Self { frames, file, tables, objects, dead_letters, data, _folder: folder })
    }

    /// Sends the frames into the first queue, and that none come any more.
    pub(crate) async fn feed(&self, client: &Client, queue: &str) -> Result<()> {
        let records = self.frames.chunks(FRAMES).map(|frames| Raw::Records {
            format: "binance".to_owned(),
            received: None,
            body: frames.join("\n").into_bytes(),
        });
        for (at, raw) in records.chain([Raw::Mark { mark: i64::MAX, quiet_since: None }]).enumerate() {
            let send = client.send_message().queue_url(queue).message_group_id(ENTRANCE_GROUP);
            send.message_deduplication_id(at.to_string()).message_body(raw.encode()).send().await?;
        }
        Ok(())
    }

    /// Compares all that a pipeline has stored and told.
    pub(crate) fn check(&self, pipeline: &Pipeline, told: &Alarms<'_>) -> Result<()> {
        let stack = &pipeline.stack;
        stored::compare(&self.tables, &stored::tables(stack)?)?;
        let objects = stored::objects(stack)?;
        ensure!(objects.keys().eq(self.objects.keys()), "other files: {:?}", objects.keys());
        let other = objects.iter().find(|(path, bytes)| self.objects.get(*path) != Some(bytes));
        ensure!(other.is_none(), "the file {:?} is another one", other.map(|(path, _)| path));
        let dead = stored::dead_letters(stack)?.len();
        ensure!(dead == self.dead_letters, "{dead} dead letters instead of {}", self.dead_letters);
        // A topic cannot be asked what it has: alarms are told once at least.
        let (lines, wanted) = (told.lines()?, self.tables["alarms"].len());
        let (alarms, all) = (lines.iter().collect::<BTreeSet<_>>().len(), lines.len());
        ensure!(alarms == wanted, "{alarms} alarms were told, {all} times, instead of {wanted}");
        ledger::compare(&ledger::embedded(stack, &self.data)?, &ledger::deployed(stack)?)?;
        Self::check_positions(pipeline)
    }

    /// Compares how far each function has come.
    fn check_positions(pipeline: &Pipeline) -> Result<()> {
        let mut given = None;
        for (at, stage) in pipeline.stack.stages.iter().enumerate() {
            let partitions = if at == 0 { 1 } else { pipeline.partitions };
            let mut last = BTreeMap::new();
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            for partition in 0..partitions {
                let position: Position = stored::position_in(&pipeline.stack, &pipeline.name, stage, partition)?;
                ensure!(position.partial.is_none(), "{stage}, partition {partition}: half done");
                // Each has one producer: the function before it.
                ensure!(position.last.len() == 1, "{stage}, partition {partition}: {:?}", position.last);
                last.insert(partition, u64::try_from(position.last.into_values().sum::<u128>())?);
                position.given.into_iter().for_each(|(to, count)| *next.entry(to).or_default() += count);
            }
            ensure!(given.is_none_or(|given| given == last), "{stage} has not taken what it was given: {last:?}");
            given = Some(next);
        }
        Ok(())
    }
}

fn frames() -> Result<Vec<String>> {
    let lines = program::output(&["simulate", "--trades", TRADES, "--rate", RATE, "--symbols", SYMBOLS])?;
    // Without the receive times in front: functions have a clock of their own.
    let frames = lines.lines().map(|line| line.split_once(' ').map_or(line, |(_, frame)| frame));
    let mut placed: Vec<(usize, String)> = Vec::new();
    for (at, frame) in frames.enumerate() {
        let is = |every: usize| at % every == every - 1;
        let place = if is(LATE.0) { at + LATE.1 } else { at };
        if is(REPEATED.0) {
            placed.push((place + REPEATED.1, frame.to_owned()));
        }
        let length = if is(BROKEN) { frame.len() / 2 } else { frame.len() };
        placed.push((place, frame.chars().take(length).collect()));
    }
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, frame)| frame).collect())
}
