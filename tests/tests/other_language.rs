//! The stage alarm in JavaScript (`examples/alarm-js`) in the place of the one in Rust: nobody can tell from what comes
//! out, nor from what is kept. Reported as ignored, by name, where there is no Node.js to build it with.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_tests::{
    live::{self, LiveHost},
    program,
};
use tempfile::TempDir;

const PIPELINE: &str = r#"
name = "two-languages"

[source]
format = "binance"

[watermark]
delay = "0s"

[commit]
records = 3000

[[stages]]
name = "fetch"

[[stages]]
name = "aggregate"
[stages.settings]
windows = ["1m", "5m", "15m"]

[[stages]]
name = "alarm"
component = "COMPONENT"
[stages.settings]
SETTINGS

[[stages]]
name = "write"
"#;

/// Trades in each half of an input: enough for some hundred alarms under each of the settings.
const TRADES: &str = "4000";

/// An interpreter takes seconds to compile: once, and not by all tests at the same time.
static COMPILED: Once = Once::new();

/// Who raises alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    JavaScript,
}

/// Settings of the stage, and how many trades there are in a second.
struct Case {
    name: &'static str,
    settings: &'static str,
    rate: &'static str,
}

const CASES: [Case; 4] = [
    Case { name: "absolute", settings: "absolute = 0.05", rate: "50" },
    Case { name: "relative", settings: "relative = 0.000001\ncooldown = '2s'\nwindows = ['5m', '15m']", rate: "50" },
    // So few that some come behind the watermark, and symbols are forgotten between them.
    Case { name: "forgetful", settings: "absolute = 0\nkeep = '50s'", rate: "0.05" },
    Case { name: "cool", settings: "absolute = 0.001\nkeep = '2s'\ncooldown = '1m 30s'", rate: "2" },
];

fn main() {
    let is_built = javascript().is_file();
    let trials = CASES.iter().flat_map(|case| {
        let same = Trial::test(format!("{}::gives_the_same_bytes", case.name), || gives_the_same_bytes(case));
        let state = Trial::test(format!("{}::goes_on_from_the_others_state", case.name), || {
            goes_on_from_the_others_state(case)
        });
        [same, state]
    });
    let mut trials: Vec<_> = trials.collect();
    trials.push(Trial::test("what_cannot_be_set_is_refused_by_name", what_cannot_be_set_is_refused_by_name));
    trials.push(Trial::test("it_is_swapped_in_and_out_while_data_flows", it_is_swapped_in_and_out_while_data_flows));
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(!is_built));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// Where `cargo xtask test` puts the component.
fn javascript() -> PathBuf {
    program::components().join("test/alarm-js.wasm")
}

fn gives_the_same_bytes(case: &Case) -> Result<(), Failed> {
    use Language::{JavaScript, Rust};
    let place = Place::new(case)?;
    let rust = place.run(&[(Rust, "first"), (Rust, "second")])?;
    check(rust.alarms.lines().count() > 20, "there are too few alarms to compare")?;
    check_same(&rust, &place.run(&[(JavaScript, "first"), (JavaScript, "second")])?)
}

fn goes_on_from_the_others_state(case: &Case) -> Result<(), Failed> {
    use Language::{JavaScript, Rust};
    let place = Place::new(case)?;
    let rust = place.run(&[(Rust, "first"), (Rust, "second")])?;
    check_same(&rust, &place.run(&[(Rust, "first"), (JavaScript, "second")])?)?;
    check_same(&rust, &place.run(&[(JavaScript, "first"), (Rust, "second")])?)
}

fn what_cannot_be_set_is_refused_by_name() -> Result<(), Failed> {
    for (settings, key) in [
        ("absolute = -0.5", "settings.absolute: -0.5 instead of"),
        ("colour = 2", "settings.colour: 2 "),
        ("absolute = 1\nwindows = ['1m', '0s']", "settings.windows[1]: \"0s\" instead of"),
        ("relative = 1\nkeep = 'soon'", "settings.keep: \"soon\" instead of"),
    ] {
        let case = Case { name: "refused", settings, rate: "50" };
        let place = Place::new(&case)?;
        for language in [Language::Rust, Language::JavaScript] {
            let run = program::run(&place.pipeline(language)?, &[&place.input("first")], &place.folder("data"))?;
            check(run.code == 2 && run.errors.contains(key), format!("{language:?}: {} {}", run.code, run.errors))?;
        }
    }
    Ok(())
}

/// The live pipeline is in Rust, then in JavaScript, then in Rust again, and its state goes along.
fn it_is_swapped_in_and_out_while_data_flows() -> Result<(), Failed> {
    let place = Place::new(&CASES[0])?;
    let [undisturbed, swapped] = [false, true].map(|swaps| place.run_live(swaps));
    let (undisturbed, swapped) = (undisturbed?, swapped?);
    check(undisturbed.alarms.lines().count() > 20, "there are too few alarms to compare")?;
    check_same(&undisturbed, &swapped)
}

/// What a job leaves behind.
struct Left {
    alarms: String,
    averages: String,
    ledger: String,
}

/// A folder with a recording in two halves, and what is made of it.
struct Place<'a> {
    folder: TempDir,
    case: &'a Case,
}

impl<'a> Place<'a> {
    fn new(case: &'a Case) -> Result<Self, Failed> {
        let place = Self { folder: TempDir::new()?, case };
        let options = ["simulate", "--symbols", "BTCUSDT,ETHUSDT,SOLUSDT", "--trades", TRADES, "--rate", case.rate];
        let market = program::output(&options)?;
        let lines: Vec<&str> = market.split_inclusive('\n').collect();
        let (first, second) = lines.split_at(lines.len() / 2);
        fs::write(place.input("first"), first.concat())?;
        fs::write(place.input("second"), second.concat())?;
        Ok(place)
    }

    /// Runs the parts of the recording, each with an alarm stage of its own, on one data folder.
    fn run(&self, parts: &[(Language, &str)]) -> Result<Left, Failed> {
        let data = self.folder("data");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        for (language, part) in parts {
            let run = program::run(&self.pipeline(*language)?, &[&self.input(part)], &data)?;
            check(run.code == 0, format!("{language:?}, {part}: exit code {}: {}", run.code, run.errors))?;
        }
        Self::left(&data)
    }

    /// Sends the recording into a live pipeline, whose stage is swapped after a third of it and after two thirds, or not.
    fn run_live(&self, swaps: bool) -> Result<Left, Failed> {
        let data = self.folder(if swaps { "swapped" } else { "undisturbed" });
        let path = self.pipeline(Language::Rust)?;
        // Not by the clock, which is ahead of the market.
        let text = fs::read_to_string(&path)?.replace("delay = \"0s\"", "delay = \"0s\"\nidle = \"24h\"");
        fs::write(&path, format!("{text}\n[swap]\nprobation = 500\n"))?;
        let host = LiveHost::start(&path, &data, &[])?;
        let market = fs::read_to_string(self.input("first"))? + &fs::read_to_string(self.input("second"))?;
        let frames: Vec<&str> =
            market.lines().map(|line| line.split_once(' ').map_or(line, |(_, frame)| frame)).collect();
        for (part, frames) in frames.chunks(frames.len().div_ceil(3)).enumerate() {
            if swaps && part > 0 {
                let bytes = if part == 1 { fs::read(javascript())? } else { live::component("alarm")? };
                let version = host.push_version("alarm", "", &bytes)?;
                host.wait_until_live("alarm", version)?;
            }
            for chunk in frames.chunks(200) {
                host.send("two-languages", chunk)?;
            }
            host.wait_until_done()?;
        }
        if swaps {
            let log = host.status("alarm")?["deployment"]["log"].to_string();
            check(!log.contains("rolled-back"), format!("it was taken back: {log}"))?;
        }
        host.stop()?;
        Self::left(&data)
    }

    fn left(data: &Path) -> Result<Left, Failed> {
        program::check_ledger(data)?;
        let read = |what: &[&str]| {
            let folder = data.to_string_lossy();
            program::output(&[what, &["--data", &folder, "--format", "csv"]].concat())
        };
        Ok(Left {
            alarms: read(&["query", "alarms"])?,
            averages: read(&["query", "averages"])?,
            ledger: read(&["ledger"])?,
        })
    }

    fn pipeline(&self, language: Language) -> Result<PathBuf, Failed> {
        let component = match language {
            Language::Rust => program::components().join("alarm.wasm"),
            Language::JavaScript => javascript(),
        };
        let text = PIPELINE.replace("COMPONENT", &fs::canonicalize(component)?.to_string_lossy());
        let path = self.folder("pipeline.toml");
        fs::write(&path, text.replace("SETTINGS", self.case.settings))?;
        if language == Language::JavaScript {
            // What is wrong with it, the run says.
            COMPILED.call_once(|| drop(program::output(&["check", &path.to_string_lossy()])));
        }
        Ok(path)
    }

    fn input(&self, part: &str) -> PathBuf {
        self.folder(&format!("{part}.ndjson"))
    }

    fn folder(&self, name: &str) -> PathBuf {
        Path::join(self.folder.path(), name)
    }
}

fn check_same(rust: &Left, other: &Left) -> Result<(), Failed> {
    check(rust.averages == other.averages, "the averages differ")?;
    check(rust.alarms == other.alarms, first_difference(&rust.alarms, &other.alarms))?;
    check(rust.ledger == other.ledger, first_difference(&rust.ledger, &other.ledger))
}

fn first_difference(rust: &str, other: &str) -> String {
    let found = rust.lines().zip(other.lines()).find(|(rust, other)| rust != other);
    found.map_or_else(
        || format!("{} lines with Rust, {} with the other", rust.lines().count(), other.lines().count()),
        |(rust, other)| format!("with Rust\n  {rust}\nand with the other\n  {other}"),
    )
}

fn check(is_right: bool, what: impl Into<String>) -> Result<(), Failed> {
    if is_right { Ok(()) } else { Err(what.into().into()) }
}
