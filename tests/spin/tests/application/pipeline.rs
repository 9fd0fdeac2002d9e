//! Whole pipelines: what they write, what a restart and a kill leave, and who is faster.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path, thread};

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use tapeline_spin_tests::{Failure, KeyValue, Manifest, Reuse, SpinApp, SpinServer};
use tapeline_tests::{program, recordings};
use tempfile::TempDir;

use crate::application::{self, Answered, ask, root, start};

const EVENTS: &str = "/pipelines/bitcoin-trades/events?format=binance";
/// Bytes of the bodies that a recording is sent in.
const BODY_BYTES: usize = 4 << 20;
/// The key columns of each table.
const KEYS: [(&str, &[&str]); 4] = [
    ("trades", &["symbol", "time", "id"]),
    ("bars", &["symbol", "interval", "start"]),
    ("averages", &["symbol", "window", "time"]),
    ("alarms", &["symbol", "window", "time", "trade_id"]),
];

/// Rows by table and key.
type Tables = BTreeMap<String, BTreeMap<Vec<String>, BTreeMap<String, String>>>;

/// A market of some symbols, in bodies.
struct Market {
    folder: TempDir,
    lines: Vec<String>,
}

impl Market {
    fn new(trades: u64, symbols: &str) -> Result<Self> {
        let arguments = ["simulate", "--trades", &trades.to_string(), "--rate", "20", "--symbols", symbols];
        let lines = program::output(&arguments)?.lines().map(str::to_owned).collect();
        Ok(Self { folder: TempDir::new()?, lines })
    }

    fn bodies(&self, count: usize) -> Vec<String> {
        let lines = self.lines.len().div_ceil(count);
        self.lines.chunks(lines).map(|lines| lines.join("\n")).collect()
    }

    /// What the host writes of it in one process.
    fn expected(&self) -> Result<Tables> {
        let input = self.folder.path().join("market.txt");
        fs::write(&input, self.lines.join("\n"))?;
        stored_by_the_host(&self.folder.path().join("data"), &[&input])
    }
}

fn stored_by_the_host(data: &Path, inputs: &[&Path]) -> Result<Tables> {
    let run = program::run(&program::bitcoin_pipeline(), inputs, data)?;
    ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
    let mut tables = Tables::new();
    for (table, keys) in KEYS {
        for row in program::query(data, &[table, "--limit", "1000000"])? {
            let key = keys.iter().map(|column| row[*column].clone()).collect();
            tables.entry(table.to_owned()).or_default().insert(key, row);
        }
    }
    Ok(tables)
}

/// Puts the rows of an answer into tables, as whoever asked would.
fn upsert(tables: &mut Tables, answer: &Answered) -> Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for line in answer.body.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["kind"] != "row" {
            continue;
        }
        let table = line["table"].as_str().context("a table has a name")?;
        let (_, keys) = KEYS.iter().find(|(name, _)| *name == table).context("a table that is known")?;
        let row = line["row"].as_object().context("a row")?;
        let row: BTreeMap<String, String> = row.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let key = keys.iter().map(|column| row[*column].clone()).collect();
        tables.entry(table.to_owned()).or_default().insert(key, row);
    }
    Ok(())
}

fn post(server: &SpinServer, body: &str) -> Result<Answered> {
    ask(&server.url(EVENTS), "POST", &[("content-type", "application/x-ndjson")], body.as_bytes())
}

fn post_well(server: &SpinServer, body: &str) -> Result<Answered> {
    let answer = post(server, body)?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    let sum = |names: &[&str]| names.iter().map(|name| answer.counts[*name]).sum::<u64>();
    let left = sum(&["out", "duplicate", "late", "dropped", "dead"]);
    ensure!(sum(&["in", "derived"]) == left, "{:?} does not balance", answer.counts);
    Ok(answer)
}

/// All but the bars that the end of all data makes final: here nothing ends.
fn compare(found: &Tables, expected: &Tables, open_bars: usize) -> Result<()> {
    for table in ["trades", "averages", "alarms"] {
        let (found, expected) = (&found[table], &expected[table]);
        ensure!(found.len() == expected.len(), "{table}: {} rows, not {}", found.len(), expected.len());
        for (key, row) in expected {
            ensure!(found.get(key) == Some(row), "{table} {key:?}: {:?}, not {row:?}", found.get(key));
        }
    }
    let (found, expected) = (&found["bars"], &expected["bars"]);
    ensure!(found.len() == expected.len(), "bars: {} rows, not {}", found.len(), expected.len());
    let mut open = 0;
    for (key, row) in expected {
        let found = found.get(key).context("a bar that is there")?;
        if found["final"] == "false" {
            open += 1;
            continue;
        }
        ensure!(found == row, "bars {key:?}: {found:?}, not {row:?}");
    }
    ensure!(open <= open_bars, "{open} bars are not final");
    Ok(())
}

pub(crate) fn a_pipeline_writes_what_the_host_writes() -> Result<()> {
    let market = Market::new(4_000, "BTCUSDT,ETHUSDT,SOLUSDT")?;
    let expected = market.expected()?;
    // In one piece, in pieces, and with a restart behind each and no instance kept.
    for (bodies, reuse) in [(1, Reuse::SPIN), (9, Reuse::SPIN), (5, Reuse::FRESH)] {
        let (store, mut found) = (KeyValue::new(), Tables::new());
        let mut server = start(&store, reuse)?;
        for body in market.bodies(bodies) {
            upsert(&mut found, &post_well(&server, &body)?)?;
            if reuse.requests == 1 {
                drop(server);
                server = start(&store, reuse)?;
            }
        }
        compare(&found, &expected, 3).with_context(|| format!("{bodies} bodies"))?;
        // What comes again is known.
        let trades = expected["trades"].len() as u64;
        let again: u64 = market
            .bodies(2)
            .iter()
            .map(|body| Ok(post_well(&server, body)?.counts["duplicate"]))
            .sum::<Result<u64>>()?;
        ensure!(again >= trades, "{again} duplicates of {trades} trades");
    }
    Ok(())
}

pub(crate) fn the_recorded_market() -> Result<()> {
    let folder = recordings::folder().context("the recordings")?;
    let data = TempDir::new()?;
    let inputs = recordings::bitcoin(&folder);
    let expected = stored_by_the_host(&data.path().join("data"), &inputs.each_ref().map(|path| path.as_path()))?;
    let (store, mut found) = (KeyValue::new(), Tables::new());
    let mut server = start(&store, Reuse::SPIN)?;
    for half in &inputs {
        let mut text = String::new();
        MultiGzDecoder::new(fs::File::open(half)?).read_to_string(&mut text)?;
        for body in bodies_of(&text) {
            upsert(&mut found, &post_well(&server, &body)?)?;
        }
        drop(server);
        server = start(&store, Reuse::SPIN)?;
    }
    // The last minute, and the one before it, whose lateness is not over.
    compare(&found, &expected, 2)
}

fn bodies_of(text: &str) -> Vec<String> {
    let mut bodies = vec![String::new()];
    for line in text.lines() {
        if bodies.last().is_none_or(|body| body.len() + line.len() >= BODY_BYTES) {
            bodies.push(String::new());
        }
        if let Some(body) = bodies.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    bodies
}

pub(crate) fn a_killed_request_leaves_nothing_behind() -> Result<()> {
    let market = Market::new(1_200, "BTCUSDT,ETHUSDT")?;
    let bodies = market.bodies(8);
    let last = |answers: Vec<Answered>| answers.into_iter().next_back().map(|answer| (answer.counts, answer.body));
    let undisturbed = start(&KeyValue::new(), Reuse::SPIN)?;
    let expected: Vec<Answered> = bodies.iter().map(|body| post_well(&undisturbed, body)).collect::<Result<_>>()?;
    for failure in [Failure::Error, Failure::Kill] {
        let store = KeyValue::new();
        let server = start(&store, Reuse::SPIN)?;
        let (mut answers, mut killed) = (Vec::new(), 0);
        for (number, body) in bodies.iter().enumerate() {
            let is_last = number + 1 == bodies.len();
            // Each at another write: while old pages are deleted, while new ones are written, and at the commit.
            for writes in 0..if is_last { 0 } else { 3 * number as u64 + 2 } {
                store.fail_after(writes, failure);
                let answer = post(&server, body)?;
                store.heal();
                ensure!(matches!(answer.status, 200 | 422 | 500 | 503), "{} {}", answer.status, answer.body);
                killed += usize::from(answer.status != 200);
            }
            answers.push(post_well(&server, body)?);
        }
        ensure!(killed > 5, "{killed} were killed");
        ensure!(
            last(answers) == expected.last().map(|answer| (answer.counts.clone(), answer.body.clone())),
            "{failure:?}"
        );
    }
    Ok(())
}

pub(crate) fn requests_at_once_come_one_after_the_other() -> Result<()> {
    const THREADS: usize = 4;
    let trade = |thread: usize, id: usize| {
        format!(
            "{{\"kind\":\"trade\",\"symbol\":\"S{thread}\",\"time\":\"2024-08-08T12:00:00.{id:03}Z\",\"source\":\"s\",\"id\":{id},\"price\":1}}"
        )
    };
    let server = start(&KeyValue::new(), Reuse::SPIN)?;
    let url = server.url("/pipelines/bitcoin-trades/events");
    let taken: Vec<Result<u64>> = thread::scope(|scope| {
        let send = |thread: usize| {
            let url = &url;
            move || {
                let mut taken = 0;
                for id in 1..=10 {
                    // One that was too slow is told to come again.
                    let answer = loop {
                        let answer = ask(url, "POST", &[], trade(thread, id).as_bytes())?;
                        if answer.status != 503 {
                            break answer;
                        }
                    };
                    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
                    taken += answer.counts["out"];
                    ensure!(answer.counts["duplicate"] == 0, "a request that was not stored left something behind");
                }
                Ok(taken)
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(send(thread))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    ensure!(taken.len() == THREADS, "a thread has panicked");
    for taken in taken {
        ensure!(taken? >= 10, "trades are missing");
    }
    let all: Vec<String> = (0..THREADS).flat_map(|thread| (1..=10).map(move |id| trade(thread, id))).collect();
    let again = ask(&url, "POST", &[], all.join("\n").as_bytes())?;
    ensure!(again.counts["duplicate"] == all.len() as u64, "{:?}", again.counts);
    Ok(())
}

/// A request whose answer was lost is sent again, and answered as it was the first time.
pub(crate) fn a_request_with_a_key_is_answered_again() -> Result<()> {
    let market = Market::new(600, "BTCUSDT,ETHUSDT")?;
    let [first, second] = <[String; 2]>::try_from(market.bodies(2)).ok().context("two bodies")?;
    let store = KeyValue::new();
    let send = |server: &SpinServer, key: &str, body: &str| {
        ask(&server.url(EVENTS), "POST", &[("idempotency-key", key)], body.as_bytes())
    };
    let server = start(&store, Reuse::SPIN)?;
    let one = send(&server, "one", &first)?;
    let two = send(&server, "two", &second)?;
    ensure!(one.status == 200 && two.status == 200 && one.counts["out"] > 0, "{} {}", one.status, two.status);
    let before = store.entries("default");
    drop(server);
    let server = start(&store, Reuse::FRESH)?;
    for (key, body, answer) in [("one", &first, &one), ("two", &second, &two)] {
        let again = send(&server, key, body)?;
        ensure!((again.status, &again.body, &again.counts) == (200, &answer.body, &answer.counts), "{}", again.body);
    }
    ensure!(store.entries("default") == before, "a request that was known has changed something");
    let other = send(&server, "one", &second)?;
    ensure!(other.status == 400 && other.body.contains("idempotency-key"), "{} {}", other.status, other.body);
    let url = server.url("/pipelines/bitcoin-trades/events?format=events");
    let other = ask(&url, "POST", &[("idempotency-key", "one")], first.as_bytes())?;
    ensure!(other.status == 400 && other.body.contains("idempotency-key"), "{} {}", other.status, other.body);
    let long = send(&server, &"x".repeat(129), &first)?;
    ensure!(long.status == 400 && long.body.contains("bad-parameter"), "{} {}", long.status, long.body);
    // Without a key, and with another, they are duplicates.
    for key in [None, Some("three")] {
        let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", *key)).collect();
        let again = ask(&server.url(EVENTS), "POST", &headers, first.as_bytes())?;
        ensure!(again.counts["duplicate"] > 0 && !again.body.contains(r#""table":"trades""#), "{}", again.body);
    }
    Ok(())
}

/// Stages in an order that loses what was sent are told of, and nothing is stored.
pub(crate) fn the_order_of_stages_is_checked() -> Result<()> {
    let trade = r#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let orders = [
        "fetch,dedup",
        "dedup,write",
        "fetch,write,dedup",
        "fetch,fetch,write",
        "fetch,dedup,dedup,write",
        "fetch,,write",
    ];
    for order in orders {
        let stages = |text: String| text.replace("fetch,dedup,enrich,aggregate,alarm,write", order);
        let store = KeyValue::new();
        let server = compile(stages)?.start(&BTreeMap::new(), &store, Reuse::SPIN)?;
        let answer = ask(&server.url("/pipelines/bitcoin-trades/events"), "POST", &[], trade.as_bytes())?;
        let is_told = answer.body.contains("/problems/internal") && answer.body.contains("stages");
        ensure!(answer.status == 500 && is_told, "{order}: {} {}", answer.status, answer.body);
        ensure!(store.entries("default").len() <= 1, "{order}: something is stored");
    }
    Ok(())
}

/// The application with another file in the place of one.
fn with_component(stage: &str, file: &str, settings: &str) -> Result<SpinApp> {
    let components = program::components();
    compile(|text| {
        let text = text.replace(&format!("target/components/{stage}.wasm"), &components.join(file).to_string_lossy());
        let is_settings = |line: &str| line.starts_with(&format!("{stage}_settings = "));
        let edited = text.lines().map(|line| match is_settings(line) && !settings.is_empty() {
            true => format!("{stage}_settings = {{ default = '{settings}' }}"),
            false => line.to_owned(),
        });
        edited.collect::<Vec<_>>().join("\n")
    })
}

/// The application with an edited manifest.
fn compile(edit: impl FnOnce(String) -> String) -> Result<SpinApp> {
    let text = edit(fs::read_to_string(root().join("spin.toml"))?);
    let text = text.replace("\"target/components", &format!("\"{}", program::components().display()));
    let folder = TempDir::new()?;
    let path = folder.path().join("spin.toml");
    fs::write(&path, text)?;
    SpinApp::compile(Manifest::load(&path)?)
}

pub(crate) fn a_stage_that_traps_stores_nothing() -> Result<()> {
    let app = with_component("alarm", "test/faulty.wasm", r#"{"fault":"trap","every":1000000000,"remainder":7}"#)?;
    let store = KeyValue::new();
    let server = app.start(&BTreeMap::new(), &store, Reuse::SPIN)?;
    let url = server.url("/pipelines/bitcoin-trades/events");
    let trade = |id: u64| {
        format!(
            "{{\"kind\":\"trade\",\"symbol\":\"X\",\"time\":\"2024-08-08T12:00:0{id}Z\",\"source\":\"s\",\"id\":{id},\"price\":1}}"
        )
    };
    ensure!(ask(&url, "POST", &[], trade(1).as_bytes())?.status == 200, "a good one is taken");
    let before = store.entries("default");
    let bad = ask(&url, "POST", &[], [trade(2), trade(7)].join("\n").as_bytes())?;
    ensure!(bad.status == 422 && bad.body.contains("stage alarm"), "{} {}", bad.status, bad.body);
    ensure!(store.entries("default") == before, "something is stored");
    let good = ask(&url, "POST", &[], trade(2).as_bytes())?;
    ensure!(good.status == 200 && good.counts["duplicate"] == 0, "{} {:?}", good.status, good.counts);
    Ok(())
}

/// What a call without a session has left in a kept instance is none of a pipeline's, nor of a session's.
pub(crate) fn a_call_leaves_nothing_to_the_next() -> Result<()> {
    let store = KeyValue::new();
    let server = start(&store, Reuse::kept_for(100))?;
    let trade = r#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let stages = ["dedup", "aggregate", "write"];
    for stage in stages {
        let answer = ask(&server.url(&format!("/stages/{stage}/invoke")), "POST", &[], trade.as_bytes())?;
        ensure!(answer.status == 200, "{stage}: {} {}", answer.status, answer.body);
    }
    let events = server.url("/pipelines/bitcoin-trades/events");
    let nothing = ask(&events, "POST", &[], b"no event")?;
    ensure!(nothing.status == 200 && nothing.counts["dead"] == 1, "{} {}", nothing.status, nothing.body);
    let stored: Vec<String> = store.entries("default").into_iter().map(|(key, _)| key).collect();
    ensure!(stored.is_empty(), "the state of another call is committed: {stored:?}");
    let first = ask(&events, "POST", &[], trade.as_bytes())?;
    ensure!(first.counts["duplicate"] == 0 && first.counts["out"] > 0, "{:?}", first.counts);
    Ok(())
}

/// A stage that is written by the contract, not with the SDK, and whose instance is given its settings again and again.
pub(crate) fn a_stage_in_another_language_begins_anew() -> Result<()> {
    const NAMES: usize = 10_001;
    let settings = r#"{"absolute":0.01}"#;
    let trade = |symbol: &str, id: usize, price: f64| {
        format!(
            "{{\"kind\":\"trade\",\"symbol\":\"{symbol}\",\"time\":\"2024-08-08T12:00:{:02}Z\",\"source\":\"s\",\"id\":{id},\"price\":{price}}}",
            id % 60
        )
    };
    let averages: Vec<String> = (0..NAMES)
        .map(|at| {
            format!(
                "{{\"kind\":\"average\",\"symbol\":\"S{at}\",\"time\":\"2024-08-08T12:00:00Z\",\"source\":\"s\",\"price\":1,\"window\":\"5m\",\"count\":1,\"average\":1}}"
            )
        })
        .collect();
    let mut answers = Vec::new();
    for file in ["alarm.wasm", "test/alarm-js.wasm"] {
        let server = with_component("alarm", file, settings)?.start(&BTreeMap::new(), &KeyValue::new(), Reuse::SPIN)?;
        let url = server.url("/pipelines/bitcoin-trades/events");
        let mut rows = Vec::new();
        for (id, symbol) in ["X", "Y", "Z", "Y", "X", "Z"].into_iter().enumerate() {
            // In between, it is called with what cannot be read, and with more names than are kept.
            let bad = ask(&server.url("/stages/alarm/invoke"), "POST", &[], b"no event")?;
            ensure!(bad.status == 400, "{} {}", bad.status, bad.body);
            if id % 2 == 1 {
                let many = ask(&server.url("/stages/alarm/invoke"), "POST", &[], averages.join("\n").as_bytes())?;
                ensure!(many.status == 200 && many.counts["out"] == NAMES as u64, "{} {:?}", many.status, many.counts);
            }
            let answer = ask(&url, "POST", &[], trade(symbol, id + 1, (id + 1) as f64).as_bytes())?;
            ensure!(answer.status == 200, "{file}: {} {}", answer.status, answer.body);
            rows.push(answer.body);
        }
        answers.push(rows);
    }
    ensure!(answers[0] == answers[1], "{:?} is not {:?}", answers[1], answers[0]);
    ensure!(answers[0].iter().any(|rows| rows.contains("\"table\":\"alarms\"")), "there is no alarm: {:?}", answers[0]);
    Ok(())
}

/// What was set up wrongly is not the fault of whoever sends.
pub(crate) fn a_fault_of_the_settings_is_told_as_one() -> Result<()> {
    let trade = r#"{"kind":"trade","symbol":"X","time":"2024-08-08T12:00:01Z","source":"s","id":1,"price":1.5}"#;
    let unfit = BTreeMap::from([("alarm_settings".to_owned(), r#"{"absolute":-1}"#.to_owned())]);
    let server = application::app()?.start(&unfit, &KeyValue::new(), Reuse::SPIN)?;
    for path in ["/pipelines/bitcoin-trades/events", "/stages/alarm/invoke"] {
        let answer = ask(&server.url(path), "POST", &[], trade.as_bytes())?;
        let is_told = answer.body.contains("/problems/internal") && answer.body.contains("setting absolute");
        ensure!(answer.status == 500 && is_told, "{path}: {} {}", answer.status, answer.body);
    }
    Ok(())
}

pub(crate) fn one_stage_is_swapped_by_a_file_name() -> Result<()> {
    let app = with_component("alarm", "enrich.wasm", "{}")?;
    let server = app.start(&BTreeMap::new(), &KeyValue::new(), Reuse::SPIN)?;
    let market = Market::new(400, "BTCUSDT")?;
    let mut found = Tables::new();
    upsert(&mut found, &post_well(&server, &market.bodies(1)[0])?)?;
    let expected = market.expected()?;
    ensure!(found["trades"].len() == expected["trades"].len(), "the others are as before");
    ensure!(!expected["alarms"].is_empty() && !found.contains_key("alarms"), "there are alarms without the stage");
    Ok(())
}
