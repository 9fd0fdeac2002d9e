//! Hosts and brokers that are killed and stopped, on a schedule that a seed repeats.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tapeline_tests::{
    cluster::{Host, NatsServer},
    program,
};

use super::job::{BETWEEN, Job, bitcoin};

/// How long disturbances go on, in seconds, and from which seed; for nightly tests.
const SECONDS: &str = "TAPELINE_CHAOS_SECONDS";
const SEED: &str = "TAPELINE_CHAOS_SEED";

fn number_of(variable: &str, default: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

pub(super) fn kills_pauses_and_broker_restarts_leave_no_trace() -> Result<()> {
    let seed = number_of(SEED, 7)?;
    let time = Duration::from_secs(number_of(SECONDS, 60)?);
    println!("{SEED}={seed} {SECONDS}={}", time.as_secs());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let job = Job::new(60_000, &program::bitcoin_pipeline())?;
    let mut server = NatsServer::start(&job.data("nats"))?;
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < time {
        round += 1;
        let name = format!("round-{round}");
        let pipeline = job.pipeline(&bitcoin()?, &name, "partitions = 2\nstream_mib = 64")?;
        disturb(&job, &name, &pipeline, &mut server, &mut random)
            .with_context(|| format!("round {round}, seed {seed}"))?;
    }
    println!("{round} rounds");
    Ok(())
}

/// Runs a job to its end while hosts and the broker are killed and stopped.
fn disturb(job: &Job, name: &str, pipeline: &Path, server: &mut NatsServer, random: &mut ChaCha8Rng) -> Result<()> {
    /// Longer than every timeout of readers and pins.
    const FREEZE: Duration = Duration::from_millis(4_500);
    const ROUND_MAX: Duration = Duration::from_secs(180);
    let url = server.url();
    let data = job.data(name);
    let start_host = |at: usize| Host::work(pipeline, BETWEEN, &url, &job.data(&format!("{name}-host-{at}")));
    let start_ends = || Host::spawn(&job.arguments(pipeline, &data, &url, "fetch,write"), &data);
    let mut hosts = [start_host(0)?, start_host(1)?];
    let mut ends = start_ends()?;
    let started = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(50 + u64::from(random.next_u32() % 400)));
        match ends.exit_code()? {
            Some(0 | 3) => break,
            // A broker that is not there when a process starts ends it; whoever runs it starts it again.
            Some(_) => ends = start_ends()?,
            None => {}
        }
        ensure!(started.elapsed() < ROUND_MAX, "it does not end: {}", ends.errors());
        let at = (random.next_u32() % 2) as usize;
        match random.next_u32() % 6 {
            0 | 1 => {
                hosts[at].kill()?;
                hosts[at] = start_host(at)?;
            }
            2 => {
                ends.kill()?;
                ends = start_ends()?;
            }
            3 => {
                hosts[at].freeze(true)?;
                thread::sleep(FREEZE);
                hosts[at].freeze(false)?;
            }
            4 => server.kill_and_restart(Duration::from_millis(u64::from(random.next_u32() % 1_000)))?,
            _ => {}
        }
        for (at, host) in hosts.iter_mut().enumerate() {
            if host.exit_code()?.is_some() {
                *host = start_host(at)?;
            }
        }
    }
    job.expected.check(&data)
}
