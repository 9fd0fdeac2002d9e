//! Bad input and bad stages: the rest flows, the culprit is a dead letter that says why, the ledger balances.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tapeline_tests::{
    bench::chain,
    program::{self, Run},
};
use tempfile::TempDir;

const TRADES: u64 = 5_000;

/// A recording of the simulator, its lines.
fn market(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join("market.txt");
    chain::write_market(&path, TRADES)?;
    Ok(fs::read_to_string(path)?.lines().map(ToOwned::to_owned).collect())
}

fn run_lines(folder: &Path, pipeline: &Path, lines: &[String]) -> Result<(PathBuf, Run)> {
    let input = folder.join("input.txt");
    fs::write(&input, lines.join("\n"))?;
    let data = folder.join("data");
    let run = program::run(pipeline, &[&input], &data)?;
    Ok((data, run))
}

/// Reasons of the dead letters, in order.
fn dead_letters(data: &Path) -> Result<Vec<serde_json::Value>> {
    let folder = data.to_str().context("a temporary folder has a name")?;
    let text = program::output(&["dead-letters", "list", "--data", folder, "--format", "json"])?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn bad_frames_are_dead_letters_and_the_rest_flows() -> Result<()> {
    let folder = TempDir::new()?;
    let mut lines = market(folder.path())?;
    let (clean_data, clean) = run_lines(folder.path(), &program::bitcoin_pipeline(), &lines)?;
    ensure!(clean.code == 0, "{}", clean.errors);
    let clean_tables = program::tables(&clean_data)?;
    let whole = lines[10].clone();
    let bad = [
        whole[..whole.len() / 2].to_owned(),
        whole.replace("\"p\":\"", "\"p\":\"1e999"),
        whole.replace("\"p\":\"", "\"p\":17,\"x\":\""),
        "1700000000000000000 \u{fffd}\u{0} no json".to_owned(),
    ];
    for (at, line) in bad.iter().enumerate() {
        lines.insert(100 * (at + 1), line.clone());
    }
    let other = TempDir::new()?;
    let (data, run) = run_lines(other.path(), &program::bitcoin_pipeline(), &lines)?;
    ensure!(run.code == 3, "exit code {}: {}", run.code, run.errors);
    let dead = dead_letters(&data)?;
    ensure!(dead.len() == bad.len(), "{dead:?}");
    for letter in &dead {
        ensure!(
            letter["stage"] == "fetch" && letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{letter}"
        );
        ensure!(letter["origin"].as_str().is_some_and(|origin| origin.starts_with("sha256:")), "{letter}");
    }
    ensure!(program::tables(&data)? == clean_tables, "the rest does not flow");
    program::check_ledger(&data)
}

#[test]
fn an_empty_file_is_a_job_without_events() -> Result<()> {
    let folder = TempDir::new()?;
    let (data, run) = run_lines(folder.path(), &program::bitcoin_pipeline(), &[])?;
    ensure!(run.code == 0 && run.summary["events_in"] == 0, "{} {}", run.summary, run.errors);
    program::check_ledger(&data)
}

#[test]
fn a_line_of_a_hundred_megabytes_is_one_dead_letter() -> Result<()> {
    let folder = TempDir::new()?;
    let lines = market(folder.path())?;
    let input = folder.path().join("long.txt");
    let mut file = std::io::BufWriter::new(fs::File::create(&input)?);
    for (at, line) in lines.iter().enumerate() {
        if at == 1_000 {
            let block = vec![b'x'; 1 << 20];
            (0..100).try_for_each(|_| file.write_all(&block))?;
            file.write_all(b"\n")?;
        }
        writeln!(file, "{line}")?;
    }
    drop(file);
    let data = folder.path().join("data");
    let run = program::run(&program::bitcoin_pipeline(), &[&input], &data)?;
    ensure!(run.code == 3, "exit code {}: {}", run.code, run.errors);
    let dead = dead_letters(&data)?;
    ensure!(dead.len() == 1, "{} dead letters", dead.len());
    let reason = dead[0]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("104857600 bytes"), "{reason}");
    let trades = program::query(&data, &["trades"])?;
    ensure!(trades.len() as u64 + run.summary["duplicates"].as_u64().unwrap_or(0) >= TRADES, "{} trades", trades.len());
    program::check_ledger(&data)
}

#[test]
fn a_file_that_is_cut_off_says_so_and_gives_what_it_has() -> Result<()> {
    let folder = TempDir::new()?;
    let lines = market(folder.path())?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(lines.join("\n").as_bytes())?;
    let whole = encoder.finish()?;
    let input = folder.path().join("cut.gz");
    fs::write(&input, &whole[..whole.len() / 2])?;
    let data = folder.path().join("data");
    let run = program::run(&program::bitcoin_pipeline(), &[&input], &data)?;
    ensure!(run.code == 3, "exit code {}: {}", run.code, run.errors);
    ensure!(run.summary["events_in"].as_u64() > Some(TRADES / 4), "{}", run.summary);
    let dead = dead_letters(&data)?;
    ensure!(dead.iter().any(|letter| letter["reason"].as_str().is_some_and(|r| r.contains("cut.gz"))), "{dead:?}");
    program::check_ledger(&data)
}

/// The pipeline with a stage behind dedup that fails on some trades.
fn faulty_pipeline(folder: &Path, fault: &str, every: u64, limits: &str) -> Result<PathBuf> {
    let component = program::components().join("test/faulty.wasm").canonicalize();
    let component = component.context("find the component faulty: `cargo xtask build` makes it")?;
    let stage = format!(
        "[[stages]]\nname = \"faulty\"\ncomponent = {component:?}\n{limits}\n[stages.settings]\nfault = \"{fault}\"\nevery = {every}\nremainder = 7\n\n[[stages]]\nname = \"enrich\""
    );
    program::edited_pipeline(folder, "[[stages]]\nname = \"enrich\"", &stage)
}

/// A stage that fails on some trades must leave what one that refuses the same trades leaves.
fn check_fault(fault: &str, every: u64, limits: &str, says: &str) -> Result<()> {
    let folder = TempDir::new()?;
    let lines = market(folder.path())?;
    let refusing = faulty_pipeline(folder.path(), "reject", every, limits)?;
    let (expected_data, expected) = run_lines(folder.path(), &refusing, &lines)?;
    let other = TempDir::new()?;
    let failing = faulty_pipeline(other.path(), fault, every, limits)?;
    let (data, run) = run_lines(other.path(), &failing, &lines)?;
    ensure!(run.code == 3, "exit code {}: {}", run.code, run.errors);
    let (dead, refused) = (dead_letters(&data)?, dead_letters(&expected_data)?);
    ensure!(!dead.is_empty() && dead.len() == refused.len(), "{} dead letters, not {}", dead.len(), refused.len());
    for letter in &dead {
        ensure!(letter["stage"] == "faulty", "{letter}");
        ensure!(letter["reason"].as_str().is_some_and(|reason| reason.contains(says)), "{letter}");
    }
    ensure!(program::tables(&data)? == program::tables(&expected_data)?, "the tables differ");
    ensure!(program::objects(&data)? == program::objects(&expected_data)?, "the objects differ");
    for count in ["events_in", "events_out", "duplicates", "dead", "dropped"] {
        ensure!(run.summary[count] == expected.summary[count], "{count}: {} {}", run.summary, expected.summary);
    }
    program::check_ledger(&data)
}

#[test]
fn a_stage_that_traps_on_one_record_in_a_thousand() -> Result<()> {
    check_fault("trap", 1_000, "", "is too much")
}

#[test]
fn a_stage_that_loops() -> Result<()> {
    check_fault("loop", 2_500, "time_per_batch = \"300ms\"", "took longer than")
}

#[test]
fn a_stage_that_allocates_without_end() -> Result<()> {
    check_fault("allocate", 2_500, "memory_mib = 32", "bytes of memory")
}
