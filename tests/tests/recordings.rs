//! The main job on the recorded market, in one process and chained by a broker. Reported as ignored, by name, where the
//! recordings, or for chains `nats-server`, are not there.

use std::{ffi::OsString, path::Path, process::Command};

use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    program::{self, Run, SpawnQuietly as _},
    recordings,
};
use tempfile::TempDir;

type Test = fn(&Path, Place) -> Result<(), Failed>;

/// Where a job runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In one process, without a broker.
    Process,
    /// Chained by a broker, all stages in one process.
    OneHost,
    /// Chained, the ends on one host and the stages between them on two others, which divide partitions.
    ThreeHosts,
}

fn main() {
    use Place::{OneHost, Process, ThreeHosts};
    let tests: &[(&str, Test, &[Place])] = &[
        (
            "all_trades_become_rows_and_bars_are_right",
            all_trades_become_rows_and_bars_are_right,
            &[Process, OneHost, ThreeHosts],
        ),
        ("alarms_are_right_for_both_tolerances", alarms_are_right_for_both_tolerances, &[Process, OneHost, ThreeHosts]),
        (
            "three_times_the_recording_gives_the_same_rows",
            three_times_the_recording_gives_the_same_rows,
            &[Process, OneHost, ThreeHosts],
        ),
        ("fifty_kills_leave_the_same_bytes", fifty_kills_leave_the_same_bytes, &[Process]),
        ("finnhub_frames_flow", finnhub_frames_flow, &[Process, OneHost, ThreeHosts]),
    ];
    let folder = recordings::folder();
    let has_broker = NatsServer::is_there();
    let trials = tests.iter().flat_map(|(name, test, places)| places.iter().map(move |place| (*name, *test, *place)));
    let trials = trials.map(|(name, test, place)| {
        let (kind, is_ignored) = match place {
            Process => ("process", folder.is_none()),
            OneHost => ("one_host", folder.is_none() || !has_broker),
            ThreeHosts => ("three_hosts", folder.is_none() || !has_broker),
        };
        let given = folder.clone();
        let run = move || given.map_or_else(|| Err("no recordings".into()), |folder| test(&folder, place));
        Trial::test(format!("{kind}::{name}"), run).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn check(is_right: bool, what: impl Into<String>) -> Result<(), Failed> {
    if is_right { Ok(()) } else { Err(what.into().into()) }
}

/// Runs the recording, so many times over, on a fresh data folder.
fn run(folder: &Path, times: usize, pipeline: &Path, place: Place) -> Result<(TempDir, Run), Failed> {
    let data = TempDir::new()?;
    let files = recordings::bitcoin(folder);
    let inputs: Vec<_> = (0..times).flat_map(|_| files.iter().map(std::path::PathBuf::as_path)).collect();
    let run = run_at(program::run_arguments(pipeline, &inputs, data.path()), pipeline, place)?;
    Ok((data, run))
}

/// Runs the program with the arguments of a run, with a broker and other hosts if that is where it runs.
fn run_at(mut arguments: Vec<OsString>, pipeline: &Path, place: Place) -> Result<Run, Failed> {
    const BETWEEN: &str = "dedup,enrich,aggregate,alarm";
    if place == Place::Process {
        return Ok(program::run_with(&arguments)?);
    }
    let folder = TempDir::new()?;
    let server = NatsServer::start(&folder.path().join("nats"))?;
    arguments.extend(["--nats".into(), server.url().into()]);
    if place == Place::OneHost {
        return Ok(program::run_with(&arguments)?);
    }
    let start = |name: &str| Host::work(pipeline, BETWEEN, &server.url(), &folder.path().join(name));
    let _hosts = [start("first")?, start("second")?];
    arguments.extend(["--stages".into(), "fetch,write".into()]);
    Ok(program::run_with(&arguments)?)
}

fn all_trades_become_rows_and_bars_are_right(folder: &Path, place: Place) -> Result<(), Failed> {
    let (data, run) = run(folder, 1, &program::bitcoin_pipeline(), place)?;
    check(run.code == 0, format!("exit code {}: {}", run.code, run.errors))?;
    check(run.summary["events_in"] == 99_574, format!("{}", run.summary))?;
    let trades = program::query(data.path(), &["trades"])?;
    check(trades.len() == 19_904, format!("{} trades", trades.len()))?;
    // A key of symbol and time would lose these: trades that have the millisecond of one before them.
    let milliseconds: std::collections::BTreeSet<&str> = trades.iter().map(|trade| trade["time"].as_str()).collect();
    let shared = trades.len() - milliseconds.len();
    check(shared == 12_796, format!("{shared} trades share their millisecond with another"))?;
    let bars = program::query(data.path(), &["bars"])?;
    check(bars.len() == 12, format!("{} bars", bars.len()))?;
    check(bars.iter().all(|bar| bar["final"] == "true"), "a bar is not final")?;
    for (start, values) in [
        (
            "2024-08-08T23:54:00.000Z",
            [
                ("count", "875"),
                ("open", "61837.63"),
                ("high", "61855.37"),
                ("low", "61824"),
                ("close", "61828"),
                ("volume", "12.43238"),
            ]
            .as_slice(),
        ),
        ("2024-08-08T23:58:00.000Z", &[("count", "3216"), ("low", "61583.22"), ("volume", "77.14202")]),
        ("2024-08-09T00:05:00.000Z", &[("count", "253"), ("close", "61602.02")]),
    ] {
        let bar = bars.iter().find(|bar| bar["start"] == start).ok_or_else(|| format!("no bar at {start}"))?;
        for (column, value) in values {
            check(bar[*column] == *value, format!("{start} {column}: {} instead of {value}", bar[*column]))?;
        }
    }
    let average = bars.iter().find(|bar| bar["start"] == "2024-08-08T23:58:00.000Z").map(|bar| bar["average"].clone());
    let average: f64 = average.unwrap_or_default().parse()?;
    check(close(average, 61_653.968_718_905), format!("average {average}"))?;
    program::check_ledger(data.path())?;
    check_objects(data.path())
}

/// The CSV objects hold the same trades and final bars as the tables.
fn check_objects(data: &Path) -> Result<(), Failed> {
    let objects = program::objects(data)?;
    let lines = |dataset: &str| -> usize {
        let of = objects.iter().filter(|(path, _)| path.starts_with(dataset));
        of.map(|(_, bytes)| String::from_utf8_lossy(bytes).lines().count() - 1).sum()
    };
    check(lines("trades/date=") == 19_904, format!("{} trades in objects", lines("trades/date=")))?;
    check(lines("bars/date=") == 12, format!("{} bars in objects", lines("bars/date=")))?;
    let name = "trades/date=2024-08-08/symbol=BINANCE%3ABTCUSDT/trades.csv";
    let object = objects.get(name).ok_or_else(|| format!("no {name} in {:?}", objects.keys()))?;
    let first = String::from_utf8_lossy(object).lines().nth(1).unwrap_or_default().to_owned();
    check(first == "2024-08-08T23:54:15.342Z,3735683259,61837.63,0.02,binance", first)
}

fn close(found: f64, expected: f64) -> bool {
    ((found - expected) / expected).abs() < 1e-9
}

fn alarms_are_right_for_both_tolerances(folder: &Path, place: Place) -> Result<(), Failed> {
    for (tolerance, expected) in [("0.05", [309, 118, 76]), ("0.5", [18, 2, 0])] {
        let files = TempDir::new()?;
        let pipeline = program::edited_pipeline(files.path(), "absolute = 0.05", &format!("absolute = {tolerance}"))?;
        let (data, _) = run(folder, 1, &pipeline, place)?;
        let alarms = program::query(data.path(), &["alarms"])?;
        for (window, expected) in ["5m", "10m", "15m"].into_iter().zip(expected) {
            let found = alarms.iter().filter(|alarm| alarm["window"] == window).count();
            check(found == expected, format!("tolerance {tolerance}, {window}: {found} alarms, not {expected}"))?;
        }
        let explained = alarms.iter().all(|alarm| {
            let number = |column: &str| alarm[column].parse::<f64>().unwrap_or(f64::NAN);
            let deviation = (number("average") - number("previous")).abs();
            number("deviation") > number("tolerance") && (deviation - number("deviation")).abs() < 1e-6
        });
        check(explained, "an alarm does not explain itself")?;
    }
    check_averages(folder, place)
}

/// After the last trade; `sample = "0s"` keeps every average.
fn check_averages(folder: &Path, place: Place) -> Result<(), Failed> {
    let files = TempDir::new()?;
    let pipeline = program::edited_pipeline(files.path(), "sample = \"1s\"", "sample = \"0s\"")?;
    let (data, _) = run(folder, 1, &pipeline, place)?;
    for (window, expected) in [("5m", 61_640.702_596_786), ("10m", 61_670.187_552_072), ("15m", 61_679.146_745_880)] {
        let averages = program::query(data.path(), &["averages"])?;
        let last = averages.iter().filter(|row| row["window"] == window).max_by(|a, b| a["time"].cmp(&b["time"]));
        let last: f64 = last.map(|row| row["average"].clone()).unwrap_or_default().parse()?;
        check(close(last, expected), format!("{window}: {last} instead of {expected}"))?;
    }
    Ok(())
}

fn three_times_the_recording_gives_the_same_rows(folder: &Path, place: Place) -> Result<(), Failed> {
    let (once, _) = run(folder, 1, &program::bitcoin_pipeline(), place)?;
    let (thrice, run) = run(folder, 3, &program::bitcoin_pipeline(), place)?;
    check(run.summary["duplicates"] == 39_808, format!("{}", run.summary))?;
    program::check_ledger(thrice.path())?;
    check(program::tables(once.path())? == program::tables(thrice.path())?, "the rows differ")?;
    check(program::objects(once.path())? == program::objects(thrice.path())?, "the objects differ")
}

fn fifty_kills_leave_the_same_bytes(folder: &Path, place: Place) -> Result<(), Failed> {
    let (undisturbed, _) = run(folder, 1, &program::bitcoin_pipeline(), place)?;
    let files = recordings::bitcoin(folder);
    let inputs: Vec<_> = files.iter().map(std::path::PathBuf::as_path).collect();
    // Many small commits, so that there are many places to be killed at.
    let edited = TempDir::new()?;
    let pipeline = program::edited_pipeline(edited.path(), "records = 20000", "records = 500")?;
    let data = TempDir::new()?;
    let mut killed = 0;
    let mut seed = 1_u64;
    let mut finished = false;
    while killed < 50 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wait = std::time::Duration::from_micros(20_000 + (seed >> 33) % 130_000);
        let mut child = Command::new(program::path())
            .args(program::run_arguments(&pipeline, &inputs, data.path()))
            .spawn_quietly()?;
        std::thread::sleep(wait);
        if child.try_wait()?.is_some() {
            finished = true;
            // It was done before it could be killed: the next ones start afresh, so that fifty kills hit work.
            let same = program::tables(undisturbed.path())? == program::tables(data.path())?
                && program::objects(undisturbed.path())? == program::objects(data.path())?;
            check(same, format!("after {killed} kills the tables or objects differ (seed {seed})"))?;
            program::clear(data.path())?;
            continue;
        }
        child.kill()?;
        child.wait()?;
        killed += 1;
    }
    let last = program::run(&pipeline, &inputs, data.path())?;
    check(last.code == 0, format!("exit code {}: {}", last.code, last.errors))?;
    program::check_ledger(data.path())?;
    check(
        program::tables(undisturbed.path())? == program::tables(data.path())?,
        format!("the rows differ ({finished})"),
    )?;
    check(program::objects(undisturbed.path())? == program::objects(data.path())?, "the objects differ")
}

fn finnhub_frames_flow(folder: &Path, place: Place) -> Result<(), Failed> {
    let files = TempDir::new()?;
    let pipeline = program::edited_pipeline(files.path(), "policy = \"id\"", "policy = \"value\"")?;
    let data = TempDir::new()?;
    let frames = folder.join("finnhub/finnhub_frames_verbatim.jsonl");
    let mut arguments = program::run_arguments(&pipeline, &[&frames], data.path());
    arguments.extend(["--format".into(), "finnhub".into()]);
    let run = run_at(arguments, &pipeline, place)?;
    check(run.code == 0 || run.code == 3, format!("exit code {}: {}", run.code, run.errors))?;
    check(run.summary["dropped"]["ping"] == 1, format!("{}", run.summary))?;
    Ok(program::check_ledger(data.path())?)
}
