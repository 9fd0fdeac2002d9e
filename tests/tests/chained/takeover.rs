//! Who works on a partition.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    program,
};

use super::job::{BETWEEN, Job, PATIENCE, bitcoin, written};

pub(super) fn a_standby_takes_over_within_five_seconds() -> Result<()> {
    const TAKEOVER_MAX: Duration = Duration::from_secs(5);
    let job = Job::new(400_000, &program::bitcoin_pipeline())?;
    let server = NatsServer::start(&job.data("nats"))?;
    let pipeline = job.pipeline(&bitcoin()?, "takeover", "")?;
    let data = job.data("ends");
    let mut owner = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("owner"))?;
    let mut ends = Host::spawn(&job.arguments(&pipeline, &data, &server.url(), "fetch,write"), &data)?;
    let started = Instant::now();
    while written(&data) == 0 {
        ensure!(started.elapsed() < PATIENCE, "nothing is written: {}", ends.errors());
        thread::sleep(Duration::from_millis(5));
    }
    let standby = Host::work(&pipeline, BETWEEN, &server.url(), &job.data("standby"))?;
    owner.kill()?;
    thread::sleep(Duration::from_millis(100));
    let (killed, before) = (Instant::now(), written(&data));
    ensure!(ends.exit_code()?.is_none(), "the job was over before its host was killed");
    while written(&data) == before && ends.exit_code()?.is_none() {
        ensure!(killed.elapsed() < TAKEOVER_MAX, "no takeover: {}", standby.errors());
        thread::sleep(Duration::from_millis(10));
    }
    while ends.exit_code()?.is_none() {
        ensure!(killed.elapsed() < PATIENCE, "it does not end: {} {}", ends.errors(), standby.errors());
        thread::sleep(Duration::from_millis(20));
    }
    job.expected.check(&data)
}
