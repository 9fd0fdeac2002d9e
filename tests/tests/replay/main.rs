//! Replays, backtests and explanations by the program, on a simulated market; one of each on the recorded market, reported
//! as ignored, by name, where the recordings are not there.

mod explained;
mod place;
mod replayed;
mod up;

use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use tapeline_tests::{program, recordings};
use tempfile::TempDir;

use self::place::{Place, errors};

type Result<T = ()> = std::result::Result<T, Failed>;
type Test = fn() -> Result;

/// Trades of the simulated market: four minutes of them.
const TRADES: &str = "10000";
const EXIT_FAILED: i32 = 1;
const EXIT_WRONG: i32 = 2;
const EXIT_DEAD_LETTERS: i32 = 3;

fn main() {
    let tests: &[(&str, Test)] = &[
        (
            "the_same_input_gives_the_same_digest_however_it_is_cut",
            replayed::the_same_input_gives_the_same_digest_however_it_is_cut,
        ),
        ("standard_input_is_replayed_from_the_journal", replayed::standard_input_is_replayed_from_the_journal),
        (
            "other_settings_and_other_components_give_another_digest",
            replayed::other_settings_and_other_components_give_another_digest,
        ),
        ("kept_components_are_found_by_their_digest", replayed::kept_components_are_found_by_their_digest),
        ("windows_are_parts_of_the_whole", replayed::windows_are_parts_of_the_whole),
        ("the_data_folder_is_as_it_was", replayed::the_data_folder_is_as_it_was),
        ("a_running_pipeline_is_replayed_and_goes_on", replayed::a_running_pipeline_is_replayed_and_goes_on),
        ("what_cannot_be_replayed_is_named", replayed::what_cannot_be_replayed_is_named),
        (
            "a_backtest_counts_the_rows_and_falls_with_the_tolerance",
            a_backtest_counts_the_rows_and_falls_with_the_tolerance,
        ),
        ("an_alarm_is_explained_and_comes_out_again", explained::an_alarm_is_explained_and_comes_out_again),
        ("alarms_that_cannot_be_explained", explained::alarms_that_cannot_be_explained),
        ("an_alarm_is_explained_with_what_ran_then", explained::an_alarm_is_explained_with_what_ran_then),
        ("a_version_that_was_rolled_back_is_explained", explained::a_version_that_was_rolled_back_is_explained),
        ("what_ran_has_the_settings_that_it_ran_with", explained::what_ran_has_the_settings_that_it_ran_with),
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
