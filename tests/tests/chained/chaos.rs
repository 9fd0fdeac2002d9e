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
    proxy::Proxy,
};

use super::job::{BETWEEN, Job, bitcoin};

/// How long disturbances go on, in seconds, and from which seed; for nightly tests.
const SECONDS: &str = "TAPELINE_CHAOS_SECONDS";
pub(super) const SEED: &str = "TAPELINE_CHAOS_SEED";

fn number_of(variable: &str, default: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

/// The seed of a schedule.
pub(super) fn seed() -> Result<u64> {
    number_of(SEED, 7)
}

/// Longer than every timeout of readers, pins and hosts.
const OUTAGE: Duration = Duration::from_millis(4_500);
/// How long a job may take that is disturbed.
const ROUND_MAX: Duration = Duration::from_secs(180);

/// The broker, and what can be done to it.
trait Disturbed {
    /// The address for the ends of the chain, and those for the hosts between them.
    fn urls(&self) -> (String, [String; 2]);

    /// What `nats` in the pipeline file says.
    fn settings(&self) -> &'static str;

    /// Whether all that can be done to it has been done.
    fn is_done(&self) -> bool;

    /// Does something to the broker, or to the way to it.
    fn disturb(&mut self, random: &mut ChaCha8Rng) -> Result<()>;
}

/// One server, that each host between the ends has a way of its own to.
struct Alone {
    server: NatsServer,
    proxies: [Proxy; 2],
    is_cut: bool,
    is_restarted: bool,
}

impl Disturbed for Alone {
    fn urls(&self) -> (String, [String; 2]) {
        let [first, second] = &self.proxies;
        (self.server.url(), [first.url(), second.url()])
    }

    fn settings(&self) -> &'static str {
        "partitions = 2\nstream_mib = 64"
    }

    fn is_done(&self) -> bool {
        self.is_cut && self.is_restarted
    }

    fn disturb(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let at = (random.next_u32() % 2) as usize;
        if random.next_u32().is_multiple_of(2) {
            self.is_cut = true;
            self.proxies[at].cut(true);
            thread::sleep(OUTAGE);
            self.proxies[at].cut(false);
            return Ok(());
        }
        self.is_restarted = true;
        self.server.kill_and_restart(Duration::from_millis(u64::from(random.next_u32() % 1_000)))
    }
}

/// Three servers with three copies of everything.
struct Cluster {
    servers: [NatsServer; 3],
    /// How often one was killed.
    kills: usize,
}

impl Disturbed for Cluster {
    fn urls(&self) -> (String, [String; 2]) {
        let urls: Vec<String> = self.servers.iter().map(NatsServer::url).collect();
        let turned = |by: usize| (0..3).map(|at| urls[(at + by) % 3].as_str()).collect::<Vec<_>>().join(",");
        (turned(0), [turned(1), turned(2)])
    }

    fn settings(&self) -> &'static str {
        "partitions = 2\nstream_mib = 64\nreplicas = 3"
    }

    fn is_done(&self) -> bool {
        self.kills >= self.servers.len()
    }

    fn disturb(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let at = self.kills % 3;
        self.kills += 1;
        self.servers[at].kill_and_restart(Duration::from_millis(u64::from(random.next_u32() % 2_000)))?;
        // One at a time: two that are away at once may keep what nobody else has.
        self.servers[at].wait_until_whole()
    }
}

pub(super) fn kills_pauses_cuts_and_broker_restarts_leave_no_trace() -> Result<()> {
    rounds("alone", 60, |folder| {
        let server = NatsServer::start(folder)?;
        let proxies = [Proxy::start(server.port())?, Proxy::start(server.port())?];
        Ok(Alone { server, proxies, is_cut: false, is_restarted: false })
    })
}

pub(super) fn a_cluster_loses_one_server_after_the_other_and_nothing_else() -> Result<()> {
    rounds("cluster", 1, |folder| Ok(Cluster { servers: NatsServer::start_cluster(folder)?, kills: 0 }))
}

fn rounds<B: Disturbed>(name: &str, seconds: u64, start: impl FnOnce(&Path) -> Result<B>) -> Result<()> {
    let seed = seed()?;
    let time = Duration::from_secs(number_of(SECONDS, seconds)?);
    println!("{SEED}={seed} {SECONDS}={}", time.as_secs());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let job = Job::new(60_000, &program::bitcoin_pipeline())?;
    let mut broker = start(&job.data("nats"))?;
    let started = Instant::now();
    let mut round = 0;
    while started.elapsed() < time || !broker.is_done() {
        round += 1;
        let name = format!("{name}-{round}");
        // Commits of a few thousand events are one message each, larger ones atomic batches: every other round has each.
        let records = if round % 2 == 1 { "records = 500" } else { "records = 20000" };
        let text = bitcoin()?.replace("records = 20000", records);
        let pipeline = job.pipeline(&text, &name, broker.settings())?;
        disturb(&job, &name, &pipeline, &mut broker, &mut random)
            .with_context(|| format!("round {round}, seed {seed}"))?;
        forget(&broker.urls().0, &name);
    }
    println!("{round} rounds");
    Ok(())
}

/// Removes the streams of a round: the server sets room aside for each.
fn forget(urls: &str, name: &str) {
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return };
    runtime.block_on(async {
        let Ok(client) = async_nats::connect(urls.split(',').next().unwrap_or(urls)).await else { return };
        let jetstream = async_nats::jetstream::new(client);
        for stage in ["fetch", "dedup", "enrich", "aggregate", "alarm", "dead_letters"] {
            // One that stays takes room, and nothing else.
            let _ = jetstream.delete_stream(format!("tapeline_{name}_{stage}")).await;
        }
        let _ = jetstream.delete_key_value(format!("tapeline_{name}")).await;
        let _ = jetstream.delete_object_store(format!("tapeline_{name}_components")).await;
    });
}

/// Runs a job to its end while hosts and the broker are killed, stopped and cut off.
fn disturb(job: &Job, name: &str, pipeline: &Path, broker: &mut impl Disturbed, random: &mut ChaCha8Rng) -> Result<()> {
    let (url, urls) = broker.urls();
    let data = job.data(name);
    let start_host = |at: usize| Host::work(pipeline, BETWEEN, &urls[at], &job.data(&format!("{name}-host-{at}")));
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
        match random.next_u32() % 7 {
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
                thread::sleep(OUTAGE);
                hosts[at].freeze(false)?;
            }
            4 | 5 => broker.disturb(random)?,
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
