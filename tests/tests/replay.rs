//! Replays, backtests and explanations by the program, on a simulated market; one of each on the recorded market, reported
//! as ignored, by name, where the recordings are not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use tapeline::{pipeline::replay, store::SqliteStore};
use tapeline_tests::{
    live::{LiveHost, component},
    program, recordings,
};
use tempfile::TempDir;

type Result<T = ()> = std::result::Result<T, Failed>;
type Test = fn() -> Result;

/// Trades of the simulated market: four minutes of them.
const TRADES: &str = "10000";
const EXIT_FAILED: i32 = 1;
const EXIT_WRONG: i32 = 2;
const EXIT_DEAD_LETTERS: i32 = 3;
/// How long a live pipeline may take to work off what a test sends; it takes some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let tests: &[(&str, Test)] = &[
        (
            "the_same_input_gives_the_same_digest_however_it_is_cut",
            the_same_input_gives_the_same_digest_however_it_is_cut,
        ),
        ("standard_input_is_replayed_from_the_journal", standard_input_is_replayed_from_the_journal),
        (
            "other_settings_and_other_components_give_another_digest",
            other_settings_and_other_components_give_another_digest,
        ),
        ("kept_components_are_found_by_their_digest", kept_components_are_found_by_their_digest),
        ("windows_are_parts_of_the_whole", windows_are_parts_of_the_whole),
        ("the_data_folder_is_as_it_was", the_data_folder_is_as_it_was),
        ("a_running_pipeline_is_replayed_and_goes_on", a_running_pipeline_is_replayed_and_goes_on),
        ("what_cannot_be_replayed_is_named", what_cannot_be_replayed_is_named),
        (
            "a_backtest_counts_the_rows_and_falls_with_the_tolerance",
            a_backtest_counts_the_rows_and_falls_with_the_tolerance,
        ),
        ("an_alarm_is_explained_and_comes_out_again", an_alarm_is_explained_and_comes_out_again),
        ("alarms_that_cannot_be_explained", alarms_that_cannot_be_explained),
        ("an_alarm_is_explained_with_what_ran_then", an_alarm_is_explained_with_what_ran_then),
        ("a_version_that_was_rolled_back_is_explained", a_version_that_was_rolled_back_is_explained),
        ("what_ran_has_the_settings_that_it_ran_with", what_ran_has_the_settings_that_it_ran_with),
        ("a_stage_that_traps_is_survived_by_all_three", a_stage_that_traps_is_survived_by_all_three),
    ];
    let mut trials: Vec<Trial> = tests.iter().map(|(name, test)| Trial::test(*name, test)).collect();
    let folder = recordings::folder();
    let is_ignored = folder.is_none();
    let on_recordings =
        move || folder.map_or_else(|| Err("no recordings".into()), |folder| the_recorded_market(&folder));
    trials.push(Trial::test("the_recorded_market", on_recordings).with_ignored_flag(is_ignored));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn check(is_right: bool, what: impl Into<String>) -> Result {
    if is_right { Ok(()) } else { Err(what.into().into()) }
}

/// A folder with a recording, and what is made in it.
struct Place {
    folder: TempDir,
    pipeline: PathBuf,
}

impl Place {
    fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let recording = program::output(&["simulate", "--trades", TRADES, "--rate", "40"])?;
        fs::write(folder.path().join("market.ndjson"), recording)?;
        Ok(Self { folder, pipeline: program::bitcoin_pipeline() })
    }

    /// A place where the recording has been run, with some of its pipeline replaced.
    fn with_run(edits: &[(&str, &str)]) -> Result<Self> {
        let mut place = Self::new()?;
        place.pipeline = place.edited("own.toml", edits)?;
        let (market, data) = (place.path("market.ndjson"), place.path("data"));
        let run = program::run(&place.pipeline, &[&market], &data)?;
        check(run.code == 0 || run.code == EXIT_DEAD_LETTERS, format!("exit code {}: {}", run.code, run.errors))?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn edited(&self, name: &str, edits: &[(&str, &str)]) -> Result<PathBuf> {
        let mut text = fs::read_to_string(program::bitcoin_pipeline())?;
        for (from, to) in edits {
            check(text.contains(from), format!("{from:?} is not in the pipeline file"))?;
            text = text.replace(from, to);
        }
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs a command on the data folder.
    fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        let mut command = Command::new(program::path());
        command.args(arguments).arg("--data").arg(self.path("data")).arg("--components").arg(program::components());
        Ok(command.current_dir(self.folder.path()).stdin(Stdio::null()).output()?)
    }

    /// Runs a command that has to succeed, and gives its output.
    fn text<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<String> {
        let output = self.run(arguments)?;
        check(output.status.success(), format!("{}: {}", output.status, errors(&output)))?;
        Ok(String::from_utf8(output.stdout)?)
    }

    fn replay_of(&self, pipeline: &Path, arguments: &[&str]) -> Result<Value> {
        let mut all: Vec<&OsStr> = ["replay", "--format", "json"].map(OsStr::new).into();
        all.push(pipeline.as_ref());
        all.extend(arguments.iter().map(OsStr::new));
        Ok(serde_json::from_str(&self.text(&all)?)?)
    }

    fn replay(&self, arguments: &[&str]) -> Result<Value> {
        self.replay_of(&self.pipeline, arguments)
    }

    /// The digest of what is stored.
    fn stored(&self) -> Result<String> {
        Ok(replay::Output::of(&SqliteStore::open_reader(&self.path("data"))?)?.digest)
    }

    fn alarms(&self) -> Result<Vec<String>> {
        let text = self.text(&["query", "alarms", "--format", "csv"])?;
        Ok(text.lines().skip(1).map(str::to_owned).collect())
    }

    fn explain(&self, alarm: &str, pipeline: &Path) -> Result<Output> {
        self.run(&[
            OsStr::new("explain"),
            OsStr::new(alarm),
            pipeline.as_ref(),
            OsStr::new("--format"),
            OsStr::new("json"),
        ])
    }

    /// The alarms that a backtest counts: total by tolerance, and by tolerance, symbol and window.
    fn backtest(&self, tolerance: &str, steps: &str) -> Result<Counts> {
        let pipeline = self.pipeline.to_str().ok_or("a temporary folder has a name")?;
        let arguments = ["backtest", "alarm", pipeline, "--tolerance", tolerance, "--steps", steps, "--format", "json"];
        let rows: Vec<Value> = serde_json::from_str(&self.text(&arguments)?)?;
        let mut counts = Counts::default();
        for row in rows {
            let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
            let number = |column: &str| row[column].as_u64().unwrap_or(u64::MAX);
            let tolerance = row["tolerance"].to_string();
            if counts.totals.last().is_none_or(|(last, _)| *last != tolerance) {
                counts.totals.push((tolerance.clone(), number("total")));
            }
            counts.each.insert((tolerance, text("symbol"), text("window")), number("alarms"));
        }
        Ok(counts)
    }
}

#[derive(Default)]
struct Counts {
    totals: Vec<(String, u64)>,
    each: BTreeMap<(String, String, String), u64>,
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn the_same_input_gives_the_same_digest_however_it_is_cut() -> Result {
    let place = Place::with_run(&[])?;
    let stored = place.stored()?;
    let first = place.replay(&[])?;
    check(first["digest"] == stored, format!("{first} instead of {stored}"))?;
    check(place.replay(&[])? == first, "another answer for the same replay")?;
    let small = place.edited("small.toml", &[("records = 20000", "records = 37")])?;
    check(place.replay_of(&small, &[])?["digest"] == stored, "the commits show in the digest")?;
    // What is written into a folder can be looked at, and has the same digest there.
    let out = place.path("out");
    let named = ["--out", out.to_str().ok_or("a temporary folder has a name")?];
    check(place.replay(&named)?["digest"] == stored, "the folder shows in the digest")?;
    check(program::tables(&out)? == program::tables(&place.path("data"))?, "other rows")?;
    check(program::objects(&out)? == program::objects(&place.path("data"))?, "other objects")?;
    program::check_ledger(&out)?;
    let refused =
        place.run(&[&[OsStr::new("replay"), place.pipeline.as_ref()], &named.map(OsStr::new)[..]].concat())?;
    let said = errors(&refused);
    check(refused.status.code() == Some(EXIT_WRONG) && said.contains("not empty"), said)
}

fn standard_input_is_replayed_from_the_journal() -> Result {
    let place = Place::new()?;
    let mut run = Command::new(program::path());
    run.args(program::run_arguments(&place.pipeline, &[Path::new("-")], &place.path("data")));
    let run = run.stdin(fs::File::open(place.path("market.ndjson"))?).output()?;
    check(run.status.success(), errors(&run))?;
    let replayed = place.replay(&[])?;
    check(replayed["digest"] == place.stored()?, format!("{replayed}"))?;
    check(
        replayed["files"] == serde_json::json!([]) && replayed["journal_records"] == replayed["records_in"],
        format!("{replayed}"),
    )
}

fn other_settings_and_other_components_give_another_digest() -> Result {
    let place = Place::with_run(&[])?;
    let usual = place.replay(&[])?;
    let tolerant = place.edited("tolerant.toml", &[("absolute = 0.05", "absolute = 0.5")])?;
    // What ran is run with what it ran with, unless the file's settings are asked for.
    let same = place.replay_of(&tolerant, &[])?;
    check(same["digest"] == usual["digest"] && same["stages"][4]["settings_differ"] == true, format!("{same}"))?;
    let alarm = format!("alarm={}", program::components().join("alarm.wasm").display());
    let other = place.replay_of(&tolerant, &["--file-settings"])?;
    check(place.replay_of(&tolerant, &["--stage", &alarm])?["digest"] == other["digest"], "the file has its own")?;
    check(other["digest"] != usual["digest"], "the tolerance does not show")?;
    check(other["rows"]["alarms"].as_u64() < usual["rows"]["alarms"].as_u64(), format!("{other}"))?;
    check(other["rows"]["trades"] == usual["rows"]["trades"], format!("{other}"))?;
    let component = program::components().join("dedup.wasm");
    let given = format!("enrich={}", component.display());
    let other = place.replay(&["--stage", &given])?;
    check(other["digest"] != usual["digest"], "the component does not show")?;
    let stage = |replayed: &Value, at: usize, what: &str| replayed["stages"][at][what].clone();
    check(stage(&other, 2, "taken") == "given" && stage(&usual, 2, "taken") == "kept", format!("{other}"))?;
    check(stage(&other, 2, "component") == stage(&usual, 1, "component"), "another digest for the same component")?;
    check(place.stored()? == usual["digest"], "what is stored has changed")
}

fn kept_components_are_found_by_their_digest() -> Result {
    let place = Place::with_run(&[])?;
    let usual = place.replay(&[])?;
    // A run keeps what it ran.
    check(usual["stages"][1]["taken"] == "kept", format!("{usual}"))?;
    let digest = usual["stages"][1]["component"].as_str().unwrap_or_default().to_owned();
    let beginning = format!("enrich=sha256:{}", &digest[..10]);
    let by_digest = place.replay(&["--stage", &beginning])?;
    let by_file =
        place.replay(&["--stage", &format!("enrich={}", program::components().join("dedup.wasm").display())])?;
    check(by_digest == by_file, format!("{by_digest} instead of {by_file}"))?;
    // It runs wherever the pipeline file's component is.
    let moved = place.edited("moved.toml", &[("name = \"dedup\"\n", "name = \"dedup\"\ncomponent = \"enrich\"\n")])?;
    check(place.replay_of(&moved, &[])?["digest"] == usual["digest"], "the kept component did not run")?;
    // Once it is pruned, the pipeline file's does, and by its digest it is not found.
    let store = rusqlite::Connection::open(place.path("data/tapeline.sqlite"))?;
    store.execute("DELETE FROM tapeline_components WHERE digest = ?1", [&digest])?;
    drop(store);
    let arguments = [OsStr::new("replay"), place.pipeline.as_ref(), OsStr::new("--stage"), OsStr::new(&beginning)];
    let missing = place.run(&arguments)?;
    check(missing.status.code() == Some(EXIT_WRONG) && errors(&missing).contains(&digest[..10]), errors(&missing))?;
    let pruned = place.replay(&[])?;
    check(pruned["stages"][1]["taken"] == "pipeline-file", format!("{pruned}"))?;
    check(pruned["digest"] == usual["digest"], "it is the same component")
}

fn windows_are_parts_of_the_whole() -> Result {
    let place = Place::with_run(&[])?;
    let (whole, middle) = (place.replay(&[])?, "2024-08-08T00:02:00Z");
    let (first, second) = (place.replay(&["--to", middle])?, place.replay(&["--from", middle])?);
    let count = |replayed: &Value, of: &str| replayed["rows"][of].as_u64().unwrap_or_default();
    let both = count(&first, "trades") + count(&second, "trades");
    check(
        both == count(&whole, "trades") && count(&first, "trades") > 0 && count(&second, "trades") > 0,
        format!("{both}"),
    )?;
    let trades = TRADES.parse::<u64>()?;
    let outside = |replayed: &Value| replayed["outside_window"].as_u64().unwrap_or_default();
    check(outside(&whole) == 0 && outside(&first) + outside(&second) >= trades, format!("{first} {second}"))?;
    check(place.replay(&["--from", middle])? == second, "another answer for the same window")?;
    let out = place.path("out");
    let named = ["--out", out.to_str().ok_or("a temporary folder has a name")?];
    place.replay(&[&["--from", middle, "--to", "2024-08-08T00:03:00Z"][..], &named].concat())?;
    let rows = program::query(&out, &["trades"])?;
    let is_inside = |time: &str| ("2024-08-08T00:02:00.000Z".."2024-08-08T00:03:00.000Z").contains(&time);
    check(!rows.is_empty() && rows.iter().all(|row| is_inside(&row["time"])), "a trade from outside of the window")?;
    let ledger = program::output(&["ledger", "--data", named[1], "--format", "csv"])?;
    check(ledger.contains("outside-window"), ledger)?;
    let nowhere = place.run(&["replay", "x.toml", "--from", middle, "--to", middle])?;
    check(nowhere.status.code() == Some(EXIT_WRONG), errors(&nowhere))
}

/// All files of the data folder, but for those that SQLite makes beside a database that is read.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            match path.extension().and_then(OsStr::to_str) {
                _ if path.is_dir() => open.push(path),
                Some("sqlite-shm") => {}
                Some("sqlite-wal") if path.metadata()?.len() == 0 => {}
                _ => drop(files.insert(path.clone(), fs::read(&path)?)),
            }
        }
    }
    Ok(files)
}

fn the_data_folder_is_as_it_was() -> Result {
    let place = Place::with_run(&[])?;
    let before = files(&place.path("data"))?;
    place.replay(&[])?;
    place.replay(&["--from", "2024-08-08T00:02:00Z"])?;
    place.backtest("0.05..0.5", "3")?;
    let alarm = place.alarms()?.pop().ok_or("no alarms")?;
    check(place.explain(&alarm, &place.pipeline)?.status.success(), "not explained")?;
    check(files(&place.path("data"))? == before, "the data folder has changed")
}

/// A live pipeline that is stopped with the test at the latest.
struct Up {
    child: Child,
    address: String,
}

impl Up {
    fn start(place: &Place, pipeline: &Path) -> Result<Self> {
        let mut command = Command::new(program::path());
        command.arg("up").arg(pipeline).arg("--listen").arg("127.0.0.1:0").arg("--data").arg(place.path("data"));
        command.arg("--components").arg(program::components());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let up = Self { child, address };
        check(!up.address.is_empty(), line)?;
        Ok(up)
    }

    /// Sends frames, and waits until so many trades are rows.
    fn send(&self, place: &Place, frames: &[&str], trades: usize) -> Result {
        let url = format!("{}/pipelines/bitcoin-trades/events?format=binance", self.address);
        ureq::post(&url).send(frames.join("\n"))?;
        let started = Instant::now();
        let data = place.path("data");
        // There is no table before the first commit.
        while program::query(&data, &["trades"]).map_or(0, |rows| rows.len()) < trades {
            check(started.elapsed() < PATIENCE, "the trades do not become rows")?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn stop(mut self) -> Result {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let status = self.child.wait()?;
        check(status.success(), format!("{status}"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // It fails when the process has ended, as it should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The frames of the trades of the recording, without repeats, in two halves, with how many trades each has.
fn halves(market: &str) -> (Vec<&str>, Vec<&str>) {
    let mut seen = BTreeSet::new();
    let frames = market.lines().filter_map(|line| line.split_once(' ').map(|(_, frame)| frame));
    let trades: Vec<&str> = frames.filter(|frame| frame.contains("\"trade\"") && seen.insert(*frame)).collect();
    let (first, second) = trades.split_at(trades.len() / 2);
    (first.to_vec(), second.to_vec())
}

const NO_SOURCE: &[(&str, &str)] = &[
    ("type = \"simulator\"", "type = \"none\""),
    ("seed = 1\n", ""),
    ("symbols = [\"BTCUSDT\", \"ETHUSDT\"]", ""),
    ("rate = 50", ""),
    ("noise = 0.33", ""),
];

fn a_running_pipeline_is_replayed_and_goes_on() -> Result {
    let place = Place::new()?;
    let quiet = place.edited("quiet.toml", NO_SOURCE)?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, second) = halves(&market);
    let up = Up::start(&place, &quiet)?;
    up.send(&place, &first, first.len())?;
    let window = ["--to", "2024-08-08T00:01:00Z"];
    let (whole, early) = (place.replay_of(&quiet, &[])?, place.replay_of(&quiet, &window)?);
    check(whole["rows"]["trades"] == first.len(), format!("{whole}"))?;
    up.send(&place, &second, first.len() + second.len())?;
    check(place.replay_of(&quiet, &window)?["digest"] == early["digest"], "what came later shows in the window")?;
    let whole = place.replay_of(&quiet, &[])?;
    check(whole["rows"]["trades"] == first.len() + second.len(), format!("{whole}"))?;
    // Of what ran before, nothing is different: the alarms, which do not wait for the end, are the stored ones.
    let count = place.alarms()?.len();
    check(whole["rows"]["alarms"] == count, format!("{count} stored, {whole}"))?;
    up.stop()?;
    // What was drained has been committed as it was, and the idle clock's watermarks are part of the input.
    check(place.replay_of(&quiet, &[])?["rows"]["alarms"] == count, "other alarms")
}

fn what_cannot_be_replayed_is_named() -> Result {
    let place = Place::with_run(&[])?;
    let market = place.path("market.ndjson");
    let refused = |arguments: &[&str], words: &[&str], code: i32| -> Result {
        let pipeline = place.pipeline.to_str().ok_or("a temporary folder has a name")?;
        let output = place.run(&[&["replay", pipeline], arguments].concat())?;
        let said = errors(&output);
        let is_named = words.iter().all(|word| said.contains(word)) && said.lines().count() <= 3;
        check(output.status.code() == Some(code) && is_named, format!("{:?}: {said}", output.status))
    };
    refused(&["--stage", "alert=x.wasm"], &["\"alert\"", "fetch, dedup"], EXIT_WRONG)?;
    refused(&["--stage", "alarm=missing.wasm"], &["missing.wasm"], EXIT_WRONG)?;
    refused(&["--stage", "alarm=01234567"], &["01234567", "the data folder keeps", "(alarm)"], EXIT_WRONG)?;
    refused(
        &["--stage", &format!("alarm={}", program::components().join("dedup.wasm").display())],
        &["dedup.wasm as stage alarm", "settings.absolute: 0.05 is not known to it: unknown field"],
        EXIT_WRONG,
    )?;
    refused(&["--stage", "alarm=feb"], &["feb", "8 letters"], EXIT_WRONG)?;
    refused(
        &["--stage", &format!("alarm={}", program::components().join("fetch.wasm").display())],
        &["alarm"],
        EXIT_WRONG,
    )?;
    let name = market.to_str().ok_or("a temporary folder has a name")?;
    let whole = fs::read(&market)?;
    fs::write(&market, [&whole[..], b"\n"].concat())?;
    refused(&[], &[name, "sha256:"], EXIT_FAILED)?;
    fs::remove_file(&market)?;
    refused(&[], &[name, "sha256:"], EXIT_WRONG)?;
    fs::write(&market, whole)?;
    check(place.replay(&[])?["digest"] == place.stored()?, "the file is there again")
}

fn a_backtest_counts_the_rows_and_falls_with_the_tolerance() -> Result {
    let place = Place::with_run(&[])?;
    let alarms = place.alarms()?;
    let counts = place.backtest("0..0.2", "5")?;
    let tolerances: Vec<&str> = counts.totals.iter().map(|(tolerance, _)| tolerance.as_str()).collect();
    check(tolerances == ["0", "0.05", "0.1", "0.15", "0.2"], format!("{tolerances:?}"))?;
    check(counts.totals[1].1 == alarms.len() as u64, format!("{} rows, {:?}", alarms.len(), counts.totals))?;
    check(counts.totals.is_sorted_by(|a, b| a.1 >= b.1), format!("{:?}", counts.totals))?;
    check(counts.totals[0].1 > counts.totals[4].1, format!("{:?}", counts.totals))?;
    for ((tolerance, symbol, window), count) in &counts.each {
        let begins = format!("{symbol},{window},");
        let rows = alarms.iter().filter(|alarm| alarm.starts_with(&begins)).count() as u64;
        check(tolerance != "0.05" || rows == *count, format!("{symbol} {window}: {rows} rows, {count} counted"))?;
    }
    check(place.backtest("0.05", "10")?.totals == counts.totals[1..2], "another count by itself")?;
    for (stage, words) in [("dedup", &["dedup", "absolute"][..]), ("alert", &["alert", "alarm"]), ("fetch", &["fetch"])]
    {
        let pipeline = place.pipeline.to_str().ok_or("a temporary folder has a name")?;
        let output = place.run(&["backtest", stage, pipeline, "--tolerance", "0..1"])?;
        let said = errors(&output);
        let is_named = words.iter().all(|word| said.contains(word));
        check(output.status.code() == Some(EXIT_WRONG) && is_named, said)?;
    }
    Ok(())
}

fn an_alarm_is_explained_and_comes_out_again() -> Result {
    let place = Place::with_run(&[])?;
    let alarms = place.alarms()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    for alarm in [alarms.first(), alarms.get(alarms.len() / 2), alarms.last()].into_iter().flatten() {
        let output = place.explain(alarm, &place.pipeline)?;
        check(output.status.success(), errors(&output))?;
        let explained: Value = serde_json::from_slice(&output.stdout)?;
        check(explained["is_same"] == true, format!("{explained}"))?;
        check(explained["notes"] == serde_json::json!([]), format!("{explained}"))?;
        let fields: Vec<&str> = alarm.split(',').collect();
        let id = fields[3].parse::<u64>()?;
        check(explained["row"]["trade_id"] == id && explained["row"]["symbol"] == fields[0], format!("{explained}"))?;
        check(explained["event"]["id"] == id && explained["event"]["kind"] == "average", format!("{explained}"))?;
        check(explained["again"]["kind"] == "alarm" && explained["again"]["id"] == id, format!("{explained}"))?;
        check(explained["state"][0]["key"] == fields[0], format!("{explained}"))?;
        // The record is where it says, and is that trade's.
        let raw = &explained["raw"];
        let place_of = raw["place"].as_str().unwrap_or_default();
        let byte = place_of.rsplit_once("byte ").ok_or("no byte")?.1.parse::<usize>()?;
        let line = market.get(byte..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let text = raw["text"].as_str().unwrap_or_default();
        check(line.ends_with(text) && text.contains(&format!("\"t\":{id},")), format!("{raw} is not {line}"))?;
    }
    let short = alarms[0].split(',').take(3).collect::<Vec<_>>().join(",");
    let text = place.text(&[OsStr::new("explain"), OsStr::new(&short), place.pipeline.as_ref()])?;
    check(text.contains("the same alarm came out again") && text.contains("sha256:"), text)
}

fn alarms_that_cannot_be_explained() -> Result {
    let place = Place::with_run(&[])?;
    let alarm = place.alarms()?.pop().ok_or("no alarms")?;
    let other_window = alarm.replace(&format!(",{},", alarm.split(',').nth(1).unwrap_or_default()), ",7m,");
    let no_id = alarm.split(',').take(3).chain(["abc"]).collect::<Vec<_>>().join(",");
    for (unknown, word) in [
        ("BINANCE:BTCUSDT,5m,2020-01-01T00:00:00Z,1", "2020-01-01"),
        (&*other_window, "7m"),
        ("BINANCE:BTCUSDT,5m", "SYMBOL,WINDOW,TIME"),
        ("BINANCE:BTCUSDT,5m,2020-01-01T00:00:00Z,abc", "the id of a trade of BINANCE:BTCUSDT looks like "),
        ("BINANCE:BTCUSDT,5m,2020-01-01T00:00:00Z", &*format!("--data {}", place.path("data").display())),
        (&*no_id, "there is one of trade "),
    ] {
        let output = place.explain(unknown, &place.pipeline)?;
        check(output.status.code() == Some(EXIT_WRONG) && errors(&output).contains(word), errors(&output))?;
    }
    // A row that is not what the stages give any more is told from what they do give.
    let store = rusqlite::Connection::open(place.path("data/tapeline.sqlite"))?;
    store.execute("UPDATE alarms SET deviation = deviation + 1", [])?;
    drop(store);
    let output = place.explain(&alarm, &place.pipeline)?;
    let explained: Value = serde_json::from_slice(&output.stdout)?;
    check(output.status.code() == Some(EXIT_FAILED) && explained["is_same"] == false, format!("{explained}"))?;
    check(explained["notes"].to_string().contains("jobs"), format!("{explained}"))?;
    let differences = explained["differences"].to_string();
    check(differences.contains("deviation") && !differences.contains("average"), differences)
}

fn an_alarm_is_explained_with_what_ran_then() -> Result {
    let place = Place::new()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, second) = halves(&market);
    let before = place.edited("before.toml", NO_SOURCE)?;
    let after = place.edited("after.toml", &[NO_SOURCE, &[("absolute = 0.05", "absolute = 0.02")]].concat())?;
    let up = Up::start(&place, &before)?;
    up.send(&place, &first, first.len())?;
    up.stop()?;
    let early = place.alarms()?.len();
    let up = Up::start(&place, &after)?;
    up.send(&place, &second, first.len() + second.len())?;
    up.stop()?;
    let alarms = place.alarms()?;
    check(alarms.len() > early && early > 0, format!("{early} of {}", alarms.len()))?;
    for tolerance in [0.05, 0.02] {
        let of_then: Vec<&String> = alarms.iter().filter(|alarm| alarm.ends_with(&format!(",{tolerance}"))).collect();
        let alarm = of_then.last().ok_or("no alarm of a tolerance")?;
        // Whichever pipeline file is named: settings are those that ran.
        for pipeline in [&before, &after] {
            let output = place.explain(alarm, pipeline)?;
            check(output.status.success(), errors(&output))?;
            let explained: Value = serde_json::from_slice(&output.stdout)?;
            let settings = &explained["stages"][4]["settings"]["absolute"];
            check(*settings == tolerance && explained["is_same"] == true, format!("{explained}"))?;
            check(explained["raw"]["place"].to_string().contains("journal record"), format!("{explained}"))?;
        }
    }
    Ok(())
}

/// The JSON of an explanation that found the same alarm.
fn explained(place: &Place, alarm: &str) -> Result<Value> {
    let output = place.explain(alarm, &place.pipeline)?;
    check(output.status.success(), format!("{alarm}: {}{}", errors(&output), String::from_utf8_lossy(&output.stdout)))?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What is new among the alarms.
fn new_alarms(place: &Place, known: &mut BTreeSet<String>) -> Result<Vec<String>> {
    let new: Vec<String> = place.alarms()?.into_iter().filter(|alarm| known.insert(alarm.clone())).collect();
    check(!new.is_empty(), "no new alarms")?;
    Ok(new)
}

fn a_version_that_was_rolled_back_is_explained() -> Result {
    let place = Place::new()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, rest) = halves(&market);
    let (second, third) = rest.split_at(rest.len() / 2);
    let mut known = BTreeSet::new();
    let host = LiveHost::start(&place.pipeline, &place.path("data"), &[])?;
    let mut send = |frames: &[&str]| -> Result<Vec<String>> {
        host.send("bitcoin-trades", frames)?;
        host.wait_until_done()?;
        new_alarms(&place, &mut known)
    };
    let before = send(&first)?;
    // It keeps what it has seen, which enrich does not, and which enrich does not take.
    let other = host.push_version("enrich", "", &component("dedup")?)?;
    host.wait_until_live("enrich", other)?;
    let meanwhile = send(second)?;
    host.post("/stages/enrich/rollback")?;
    host.wait_until_live("enrich", 1)?;
    let after = send(third)?;
    host.stop()?;
    let digest_of = |alarm: &str| -> Result<Value> {
        let explained = explained(&place, alarm)?;
        check(explained["notes"] == serde_json::json!([]), format!("{explained}"))?;
        Ok(explained["stages"][2]["component"].clone())
    };
    let (first, last) = (digest_of(&before[0])?, after.last().ok_or("no alarms")?);
    check(digest_of(&meanwhile[meanwhile.len() - 1])? != first, "the version that was rolled back did not run")?;
    check(digest_of(last)? == first, "the version before did not come back")?;
    // Data of before it was noted says that it is only likely.
    let database = place.path("data/tapeline.sqlite");
    let store = rusqlite::Connection::open(&database)?;
    store.execute("UPDATE tapeline_ran SET has_own_state = NULL", [])?;
    let explained_last = explained(&place, last)?;
    check(explained_last["notes"].to_string().contains("only likely"), format!("{explained_last}"))?;
    // What cannot be repeated is told, and what does not depend on it is explained.
    store.execute("UPDATE tapeline_ran SET has_own_state = 0", [])?;
    drop(store);
    let explained_last = explained(&place, last)?;
    check(explained_last["notes"].to_string().contains("cannot be repeated"), format!("{explained_last}"))?;
    check(explained(&place, &meanwhile[0])?["notes"] == serde_json::json!([]), "it was before that")
}

fn what_ran_has_the_settings_that_it_ran_with() -> Result {
    let place = Place::new()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, second) = halves(&market);
    let mut known = BTreeSet::new();
    let host = LiveHost::start(&place.pipeline, &place.path("data"), &[])?;
    let mut send = |frames: &[&str]| -> Result<Vec<String>> {
        host.send("bitcoin-trades", frames)?;
        host.wait_until_done()?;
        new_alarms(&place, &mut known)
    };
    let before = send(&first)?;
    let settings = "settings=%7B%22fault%22:%22reject%22,%22every%22:1000000000000,%22remainder%22:0%7D";
    let (status, pushed) = host.push("enrich", settings, &component("test/faulty")?)?;
    let version = pushed["version"].as_u64().ok_or_else(|| format!("{status} {pushed}"))?;
    let (status, approved) = host.post(&format!("/stages/enrich/approve?version={version}"))?;
    check(status == 200, format!("{status} {approved}"))?;
    host.wait_until_live("enrich", version)?;
    let after = send(&second)?;
    host.stop()?;
    let replayed = place.replay(&[])?;
    let enrich = &replayed["stages"][2];
    check(enrich["settings"]["fault"] == "reject" && enrich["settings_differ"] == true, format!("{enrich}"))?;
    check(replayed["rows"]["alarms"].as_u64() > Some(0), format!("{replayed}"))?;
    let digest = enrich["component"].as_str().unwrap_or_default();
    check(place.replay(&["--stage", &format!("enrich={digest}")])?["digest"] == replayed["digest"], "by its digest")?;
    check(place.backtest("0.05", "1")?.totals[0].1 > 0, "no alarms in the backtest")?;
    for (alarm, fault) in [(&before[0], Value::Null), (&after[after.len() - 1], Value::from("reject"))] {
        let explained = explained(&place, alarm)?;
        check(explained["stages"][2]["settings"]["fault"] == fault, format!("{explained}"))?;
    }
    // A file runs with the pipeline file's settings, and so does all if that is asked for.
    let file = program::components().join("enrich.wasm");
    place.replay(&["--stage", &format!("enrich={}", file.display())])?;
    let refused = place.run(&[OsStr::new("replay"), place.pipeline.as_ref(), OsStr::new("--file-settings")])?;
    let said = errors(&refused);
    check(refused.status.code() == Some(EXIT_WRONG) && said.contains("settings: missing field `fault`"), said)
}

fn a_stage_that_traps_is_survived_by_all_three() -> Result {
    let faulty = program::components().join("test/faulty.wasm");
    let stage = format!(
        "[[stages]]\nname = \"faulty\"\ncomponent = {:?}\n[stages.settings]\nfault = \"trap\"\nevery = 500\nremainder = 7\n\n[[stages]]\nname = \"aggregate\"",
        faulty.display().to_string()
    );
    let place = Place::with_run(&[("[[stages]]\nname = \"aggregate\"", &stage)])?;
    let replayed = place.replay(&[])?;
    check(replayed["digest"] == place.stored()?, format!("{replayed}"))?;
    check(replayed["dead"].as_u64() > Some(10), format!("{replayed}"))?;
    let alarms = place.alarms()?;
    let counts = place.backtest("0.05..0.1", "2")?;
    check(counts.totals[0].1 == alarms.len() as u64, format!("{} rows, {:?}", alarms.len(), counts.totals))?;
    let alarm = alarms.get(alarms.len() / 3).ok_or("no alarms")?;
    let output = place.explain(alarm, &place.pipeline)?;
    check(output.status.success(), format!("{}{}", errors(&output), String::from_utf8_lossy(&output.stdout)))
}

fn the_recorded_market(folder: &Path) -> Result {
    let place = Place { folder: TempDir::new()?, pipeline: program::bitcoin_pipeline() };
    let recorded = recordings::bitcoin(folder);
    let run = program::run(&place.pipeline, &[&recorded[0], &recorded[1]], &place.path("data"))?;
    check(run.code == 0, run.errors)?;
    let replayed = place.replay(&[])?;
    check(replayed["digest"] == place.stored()? && replayed["records_in"] == 99_574, format!("{replayed}"))?;
    let counts = place.backtest("0.05..0.5", "2")?;
    for (tolerance, expected) in [("0.05", [309, 118, 76]), ("0.5", [18, 2, 0])] {
        for (window, expected) in ["5m", "10m", "15m"].into_iter().zip(expected) {
            let key = (tolerance.to_owned(), "BINANCE:BTCUSDT".to_owned(), window.to_owned());
            let found = counts.each.get(&key).copied();
            check(found == Some(expected), format!("{tolerance} {window}: {found:?} instead of {expected}"))?;
        }
    }
    let alarms = place.alarms()?;
    for alarm in [alarms.first(), alarms.last()].into_iter().flatten() {
        let output = place.explain(alarm, &place.pipeline)?;
        check(output.status.success(), errors(&output))?;
    }
    Ok(())
}
