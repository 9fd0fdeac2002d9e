//! What every registry must do, on the one in a data folder and on the one on a real NATS server. The latter is reported
//! as ignored, by name, where there is no `nats-server`.

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tapeline::{
    bus::nats::{Broker, NatsRegistry},
    error::Kind,
    registry::{Deployment, Registry},
    runtime::digest,
    store::{SqliteRegistry, SqliteStore},
};
use tapeline_tests::cluster::NatsServer;
use tempfile::TempDir;

type Law = fn(&dyn Registry, &dyn Registry) -> Result<()>;

fn main() {
    let laws: [(&str, Law); 3] = [
        ("of_two_changes_at_once_one_is_refused", of_two_changes_at_once_one_is_refused),
        ("components_are_kept_as_they_are", components_are_kept_as_they_are),
        ("reports_take_the_place_of_older_ones", reports_take_the_place_of_older_ones),
    ];
    let trials = laws.into_iter().flat_map(|(name, law)| {
        let of = |result: Result<()>| result.map_err(|error| Failed::from(format!("{error:#}")));
        [
            Trial::test(format!("sqlite::{name}"), move || of(on_sqlite(law))),
            Trial::test(format!("nats::{name}"), move || of(on_nats(law))).with_ignored_flag(!NatsServer::is_there()),
        ]
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

/// A law is about two handles of one empty registry.
fn on_sqlite(law: Law) -> Result<()> {
    let folder = TempDir::new()?;
    let _store = SqliteStore::open(folder.path())?;
    law(&SqliteRegistry::open(folder.path())?, &SqliteRegistry::open(folder.path())?)
}

fn on_nats(law: Law) -> Result<()> {
    let folder = TempDir::new()?;
    let server = NatsServer::start(folder.path())?;
    let open = || -> Result<NatsRegistry> {
        let broker = Broker::connect(&server.url(), None)?;
        Ok(NatsRegistry::open(&broker, "laws", 1, 64 << 20)?)
    };
    let (one, other) = (open()?, open()?);
    law(&one, &other)
}

fn deployment(live: u64) -> Deployment {
    Deployment { live, ..Deployment::default() }
}

fn is_conflict<T>(result: tapeline::error::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == Kind::Conflict)
}

fn of_two_changes_at_once_one_is_refused(one: &dyn Registry, other: &dyn Registry) -> Result<()> {
    ensure!(one.deployment("alarm")?.is_none());
    let first = one.put_deployment("alarm", 0, &deployment(1))?;
    ensure!(other.deployment("alarm")? == Some((first, deployment(1))));
    let second = other.put_deployment("alarm", first, &deployment(2))?;
    ensure!(first != second);
    for stale in [0, first] {
        ensure!(is_conflict(one.put_deployment("alarm", stale, &deployment(3))), "revision {stale}");
    }
    ensure!(one.deployment("alarm")? == Some((second, deployment(2))), "a refused change changes nothing");
    ensure!(one.deployment("dedup")?.is_none());
    ensure!(is_conflict(other.put_deployment("dedup", 5, &deployment(1))), "there is none to be replaced");
    Ok(())
}

fn components_are_kept_as_they_are(one: &dyn Registry, other: &dyn Registry) -> Result<()> {
    let is_missing = |registry: &dyn Registry, wanted: &str| {
        registry.component(wanted).is_err_and(|error| error.kind() == Kind::NotFound)
    };
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let wanted = digest(&bytes);
    ensure!(is_missing(one, &wanted));
    one.put_component(&wanted, &bytes)?;
    other.put_component(&wanted, &bytes)?;
    ensure!(other.component(&wanted)? == bytes);
    other.remove_component(&wanted)?;
    other.remove_component(&wanted)?;
    ensure!(is_missing(one, &wanted));
    one.put_component(&wanted, &bytes)?;
    ensure!(other.component(&wanted)? == bytes, "what was removed can come again");
    let other_bytes = digest(b"what these bytes are not");
    one.put_component(&other_bytes, &bytes)?;
    ensure!(one.component(&other_bytes).is_err_and(|error| error.kind() == Kind::Corrupt));
    Ok(())
}

fn reports_take_the_place_of_older_ones(one: &dyn Registry, other: &dyn Registry) -> Result<()> {
    one.put_report("alarm", "host-a 0", "one")?;
    other.put_report("alarm", "host-b 1", "two")?;
    one.put_report("alarm", "host-a 0", "three")?;
    let expected = [("host-a 0", "three"), ("host-b 1", "two")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    ensure!(other.reports("alarm")? == expected);
    ensure!(one.reports("dedup")?.is_empty());
    Ok(())
}
