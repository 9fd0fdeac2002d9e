//! Alarms that are explained, with the versions and settings that ran then.

use std::{collections::BTreeSet, ffi::OsStr, fs};

use serde_json::Value;
use tapeline_tests::{
    live::{LiveHost, component},
    program,
};

use super::{
    EXIT_FAILED, EXIT_WRONG, Result, check,
    place::{Place, errors, halves},
    up::{NO_SOURCE, Up},
};

pub(super) fn an_alarm_is_explained_and_comes_out_again() -> Result {
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

pub(super) fn alarms_that_cannot_be_explained() -> Result {
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

pub(super) fn an_alarm_is_explained_with_what_ran_then() -> Result {
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

/// The alarms that these frames have brought.
fn alarms_of(place: &Place, host: &LiveHost, frames: &[&str], known: &mut BTreeSet<String>) -> Result<Vec<String>> {
    host.send("bitcoin-trades", frames)?;
    host.wait_until_done()?;
    let new: Vec<String> = place.alarms()?.into_iter().filter(|alarm| known.insert(alarm.clone())).collect();
    check(!new.is_empty(), "no new alarms")?;
    Ok(new)
}

pub(super) fn a_version_that_was_rolled_back_is_explained() -> Result {
    let place = Place::new()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, rest) = halves(&market);
    let (second, third) = rest.split_at(rest.len() / 2);
    let mut known = BTreeSet::new();
    let host = LiveHost::start(&place.pipeline, &place.path("data"), &[])?;
    let mut send = |frames: &[&str]| alarms_of(&place, &host, frames, &mut known);
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

pub(super) fn what_ran_has_the_settings_that_it_ran_with() -> Result {
    let place = Place::new()?;
    let market = fs::read_to_string(place.path("market.ndjson"))?;
    let (first, second) = halves(&market);
    let mut known = BTreeSet::new();
    let host = LiveHost::start(&place.pipeline, &place.path("data"), &[])?;
    let mut send = |frames: &[&str]| alarms_of(&place, &host, frames, &mut known);
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
