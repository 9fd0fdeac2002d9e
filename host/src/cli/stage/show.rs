//! What is known of versions, for people.

use std::io::Write as _;

use tapeline_events::{Unit, format_time};

use super::super::{
    exit::Exit,
    output::{self, visible},
    rows::Format,
};
use crate::{
    error::Result,
    pipeline::StageStatus,
    registry::{Version, What},
    store::Value,
};

/// Entries of the log that are shown.
const LOG_SHOWN: usize = 20;

pub(super) fn list(stages: &serde_json::Value) -> Result<Exit> {
    let mut out = output::lock();
    let mut rows = Format::or_usual(None).writer(&mut out);
    let columns = ["stage", "version", "component", "semver", "state", "by", "since", "standing", "digest"];
    rows.columns(&columns.map(str::to_owned))?;
    for stage in stages.as_array().into_iter().flatten() {
        let text = |name: &str| stage[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| stage[name].as_i64().unwrap_or_default();
        let mut standing = Vec::new();
        if stage["on_probation"] == true {
            standing.push("on probation".to_owned());
        }
        if let Some(candidate) = stage["candidate"].as_u64() {
            standing.push(format!("compared with {candidate}"));
        }
        standing.extend(stage["pending"].as_array().into_iter().flatten().map(|version| format!("{version} waits")));
        rows.row(&[
            Value::Text(text("stage")),
            Value::Integer(number("version")),
            Value::Text(visible(&text("name"))),
            Value::Text(visible(&text("semver"))),
            Value::Integer(number("state_version")),
            Value::Text(visible(&text("by"))),
            Value::Text(time(number("at"))),
            Value::Text(standing.join(", ")),
            Value::Text(short(&text("digest"))),
        ])?;
    }
    rows.finish()?;
    drop(rows);
    out.flush()?;
    Ok(Exit::Fine)
}

pub(super) fn versions(status: &StageStatus) -> Result<Exit> {
    let mut out = output::lock();
    let mut rows = Format::or_usual(None).writer(&mut out);
    let columns = ["version", "standing", "component", "semver", "state", "bytes", "by", "at", "why", "digest"];
    rows.columns(&columns.map(str::to_owned))?;
    for version in &status.deployment.versions {
        rows.row(&[
            Value::Integer(version.number as i64),
            Value::Text(standing(status, version.number).to_owned()),
            Value::Text(visible(&version.name)),
            Value::Text(visible(&version.semver)),
            Value::Integer(i64::from(version.state_version)),
            Value::Integer(version.bytes as i64),
            Value::Text(visible(&version.by)),
            Value::Text(time(version.at)),
            Value::Text(visible(&version.why)),
            Value::Text(short(&version.digest)),
        ])?;
    }
    rows.finish()?;
    drop(rows);
    out.flush()?;
    Ok(Exit::Fine)
}

pub(super) fn stage(status: &StageStatus) -> Result<Exit> {
    let mut out = output::lock();
    let deployment = &status.deployment;
    writeln!(out, "stage {}", status.stage)?;
    if let Some(live) = deployment.live_version() {
        writeln!(out, "live: {}", described(live))?;
    }
    if let Some((before, rule)) = deployment.before {
        writeln!(
            out,
            "  on probation: {} records, of which it may refuse {} more than version {before}, which stands by",
            rule.records, rule.dead_max
        )?;
    }
    if let Some((candidate, rule)) = deployment.shadow {
        if let Some(candidate) = deployment.version(candidate) {
            writeln!(out, "candidate: {}", described(candidate))?;
        }
        let promoted =
            rule.promote_after.map_or_else(|| "by hand".to_owned(), |records| format!("after {records} records"));
        let thrown_out = match rule.differences_max {
            u64::MAX => "by hand".to_owned(),
            differences => format!("beyond {differences} differences"),
        };
        writeln!(out, "  promoted {promoted}, thrown out {thrown_out}")?;
        if let Some(comparison) = &status.comparison {
            writeln!(out, "  {} records compared, {} differences", comparison.records, comparison.differences)?;
        }
    }
    for pending in &deployment.pending {
        writeln!(out, "waits for approval: version {}, which wants more than the live one has:", pending.version)?;
        for want in &pending.wants {
            writeln!(out, "  {}", visible(want))?;
        }
    }
    for (worker, report) in &status.workers {
        writeln!(out, "worker {worker} on {}: version {} since {}", report.host, report.live, time(report.since))?;
    }
    writeln!(out, "log:")?;
    let skipped = deployment.log.len().saturating_sub(LOG_SHOWN);
    for logged in deployment.log.iter().skip(skipped) {
        let why = if logged.why.is_empty() { String::new() } else { format!(": {}", visible(&logged.why)) };
        let (at, what) = (time(logged.at), what(logged.what));
        writeln!(out, "  {at} version {} {what} by {}{why}", logged.version, visible(&logged.by))?;
    }
    out.flush()?;
    Ok(Exit::Fine)
}

pub(super) fn diff(status: &StageStatus) -> Result<Exit> {
    let mut out = output::lock();
    let Some((candidate, comparison)) =
        status.deployment.shadow.map(|(candidate, _)| candidate).zip(status.comparison.as_ref())
    else {
        writeln!(out, "no candidate runs beside stage {}", status.stage)?;
        let last = status.deployment.log.iter().rev().find(|logged| logged.what == What::ThrownOut);
        if let Some(last) = last {
            writeln!(out, "version {} was thrown out by {}: {}", last.version, visible(&last.by), visible(&last.why))?;
            for report in status
                .workers
                .values()
                .filter(|report| report.candidate.is_some_and(|(version, _)| version == last.version))
            {
                write_comparison(&mut out, &report.comparison)?;
            }
        }
        out.flush()?;
        return Ok(Exit::Fine);
    };
    writeln!(out, "stage {}: version {candidate} compared with version {}", status.stage, status.deployment.live)?;
    write_comparison(&mut out, comparison)?;
    out.flush()?;
    Ok(if comparison.differences == 0 { Exit::Fine } else { Exit::Failed })
}

fn write_comparison(out: &mut output::Output, comparison: &crate::segment::Comparison) -> Result<()> {
    writeln!(out, "{} records compared, {} differences", comparison.records, comparison.differences)?;
    for (symbol, count) in &comparison.by_symbol {
        let symbol = if symbol.is_empty() { "(no symbol)" } else { symbol };
        writeln!(out, "  {}: {count}", visible(symbol))?;
    }
    for difference in &comparison.first {
        writeln!(out, "\n{}", visible(&difference.record))?;
        difference.live.iter().try_for_each(|line| writeln!(out, "  live      {}", visible(line)))?;
        difference.candidate.iter().try_for_each(|line| writeln!(out, "  candidate {}", visible(line)))?;
    }
    Ok(())
}

fn described(version: &Version) -> String {
    let Version { number, name, semver, state_version, bytes, by, at, why, digest, .. } = version;
    let (name, semver, by, at) = (visible(name), visible(semver), visible(by), time(*at));
    let why = if why.is_empty() { String::new() } else { format!(": {}", visible(why)) };
    format!(
        "version {number}, {name} {semver}, state version {state_version}, {bytes} bytes, by {by} at {at}{why}\n  sha256 {digest}"
    )
}

fn standing(status: &StageStatus, number: u64) -> &'static str {
    let deployment = &status.deployment;
    match number {
        number if number == deployment.live && deployment.before.is_some() => "live, on probation",
        number if number == deployment.live => "live",
        number if deployment.before.is_some_and(|(before, _)| before == number) => "stands by",
        number if deployment.shadow.is_some_and(|(shadow, _)| shadow == number) => "candidate",
        number if deployment.pending.iter().any(|pending| pending.version == number) => "waits",
        _ => "",
    }
}

const fn what(what: What) -> &'static str {
    match what {
        What::Uploaded => "came in",
        What::Waits => "waits for approval",
        What::Approved => "approved",
        What::Live => "live",
        What::Proven => "has proven itself",
        What::RolledBack => "taken back",
        What::Shadow => "runs beside",
        What::Promoted => "promoted",
        What::ThrownOut => "thrown out",
        What::Pruned => "forgotten",
    }
}

fn time(ns: i64) -> String {
    format_time(ns, Unit::Seconds)
}

fn short(digest: &str) -> String {
    digest.get(..12).unwrap_or(digest).to_owned()
}
