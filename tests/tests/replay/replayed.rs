//! What is replayed: the same digest for the same input, other settings and components, windows, a folder in use.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tapeline_tests::program;

use super::{
    EXIT_FAILED, EXIT_WRONG, Result, TRADES, check,
    place::{Place, errors, halves},
    up::{NO_SOURCE, Up},
};

pub(super) fn the_same_input_gives_the_same_digest_however_it_is_cut() -> Result {
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

pub(super) fn standard_input_is_replayed_from_the_journal() -> Result {
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

pub(super) fn other_settings_and_other_components_give_another_digest() -> Result {
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

pub(super) fn kept_components_are_found_by_their_digest() -> Result {
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

pub(super) fn windows_are_parts_of_the_whole() -> Result {
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

pub(super) fn the_data_folder_is_as_it_was() -> Result {
    let place = Place::with_run(&[])?;
    let before = files(&place.path("data"))?;
    place.replay(&[])?;
    place.replay(&["--from", "2024-08-08T00:02:00Z"])?;
    place.backtest("0.05..0.5", "3")?;
    let alarm = place.alarms()?.pop().ok_or("no alarms")?;
    check(place.explain(&alarm, &place.pipeline)?.status.success(), "not explained")?;
    check(files(&place.path("data"))? == before, "the data folder has changed")
}

pub(super) fn a_running_pipeline_is_replayed_and_goes_on() -> Result {
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

pub(super) fn what_cannot_be_replayed_is_named() -> Result {
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
