//! Versions of stages come and go on hosts that share a chain.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tapeline_tests::{
    cluster::NatsServer,
    live::{LiveHost, component, runs_everywhere, variant},
    program,
};

use super::job::{BETWEEN, Job, bitcoin};

const ENDS: &str = "fetch,write";

/// A chain on a server of its own, and the market that is sent into it.
struct Chain {
    job: Job,
    server: NatsServer,
    pipeline: PathBuf,
    name: &'static str,
}

impl Chain {
    fn new(name: &'static str, trades: u64) -> Result<Self> {
        // Never by the clock, which is years ahead of the market.
        let text =
            bitcoin()?.replace("idle = \"5s\"", "idle = \"24h\"").replace("every = \"200ms\"", "every = \"10ms\"");
        let text = text.replace("probation = 10000", "probation = 300");
        let plain = tempfile::NamedTempFile::with_suffix(".toml")?;
        std::fs::write(plain.path(), &text)?;
        let job = Job::new(trades, plain.path())?;
        let server = NatsServer::start(&job.data("nats"))?;
        let pipeline = job.pipeline(&text, name, "partitions = 2\nstream_mib = 128")?;
        Ok(Self { job, server, pipeline, name })
    }

    fn start(&self, folder: &str, stages: &str) -> Result<LiveHost> {
        let more = ["--nats", &self.server.url(), "--stages", stages];
        LiveHost::start(&self.pipeline, &self.job.data(folder), &more)
    }

    /// The market's frames, without their receive times: a live pipeline has its own clock.
    fn lines(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.job.market)?;
        Ok(text.lines().map(|line| line.split_once(' ').map_or(line, |(_, frame)| frame).to_owned()).collect())
    }

    fn send(&self, host: &LiveHost, lines: &[String]) -> Result<()> {
        host.send(self.name, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Stops the ends, lets the watermark pass everything, and compares what is stored.
    fn finish(&self, ends: LiveHost) -> Result<()> {
        let data = ends.data.clone();
        ends.stop()?;
        let nothing = self.job.data("nothing.txt");
        std::fs::write(&nothing, "")?;
        let mut arguments = program::run_arguments(&self.pipeline, &[&nothing], &data);
        arguments.extend(["--nats", &self.server.url(), "--stages", ENDS].map(Into::into));
        let run = program::run_with(&arguments)?;
        ensure!(run.code == 0 || run.code == 3, "exit code {}: {}", run.code, run.errors);
        self.job.expected.check_data(&data)?;
        program::check_ledger(&data)
    }
}

fn signal(host: &LiveHost, signal: Signal) -> Result<()> {
    Ok(kill(Pid::from_raw(host.id().cast_signed()), signal)?)
}

pub(super) fn a_thousand_swaps_on_two_hosts_change_nothing() -> Result<()> {
    const SWAPS: u64 = 1_000;
    const CHUNK: usize = 100;
    let chain = Chain::new("thousand", 100_000)?;
    let (first, second) = (chain.start("first", BETWEEN)?, chain.start("second", BETWEEN)?);
    let ends = chain.start("ends", ENDS)?;
    let lines = chain.lines()?;
    let done = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| -> Result<()> {
            for (at, chunk) in lines.chunks(CHUNK).enumerate() {
                while ((at * CHUNK) as u64) * SWAPS > (done.load(Ordering::Acquire) + 5) * lines.len() as u64 {
                    thread::sleep(Duration::from_millis(1));
                }
                chain.send(&ends, chunk)?;
            }
            Ok(())
        });
        let swap_all = || -> Result<()> {
            let pairs = BETWEEN.split(',').map(|stage| {
                let bytes = component(stage)?;
                Ok((stage, [variant(&bytes, "two"), bytes]))
            });
            let pairs = pairs.collect::<Result<Vec<_>>>()?;
            for at in 0..SWAPS as usize {
                let (stage, versions) = &pairs[at % pairs.len()];
                let round = at / pairs.len();
                // From any host.
                let asked = [&ends, &first, &second][at % 3];
                let version = if round < 2 || round % 4 < 2 {
                    asked.push_version(stage, "", &versions[round % 2])?
                } else {
                    let (status, answer) =
                        asked.post(&format!("/stages/{stage}/rollback?version={}", 2 - round % 2))?;
                    ensure!(status == 200, "{status} {answer}");
                    answer["version"].as_u64().context("a version")?
                };
                ends.wait_until_live(stage, version)?;
                done.store(at as u64 + 1, Ordering::Release);
            }
            Ok(())
        };
        let swapped = swap_all();
        done.store(SWAPS, Ordering::Release);
        sender.join().expect("the sender does not panic")?;
        swapped
    })?;
    let swaps: f64 =
        [&first, &second].into_iter().map(|host| counted(host, "tapeline_swaps_total{")).sum::<Result<f64>>()?;
    // Each in both partitions. One is made again, and counted again, when a partition begins anew or changes hands in the
    // middle of it, as on a machine with too much to do.
    let expected = 2 * SWAPS..=2 * SWAPS + SWAPS / 50;
    ensure!(expected.contains(&(swaps as u64)), "{swaps} swaps");
    ensure!(counted(&first, "tapeline_rollbacks_total{")? + counted(&second, "tapeline_rollbacks_total{")? == 0.0);
    chain.finish(ends)
}

fn counted(host: &LiveHost, name: &str) -> Result<f64> {
    let metrics = host.get("/metrics")?.1;
    let metrics = metrics.as_str().context("text")?;
    let of_name = metrics.lines().filter(|line| line.starts_with(name));
    Ok(of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

pub(super) fn a_host_that_was_away_comes_back_to_what_was_decided() -> Result<()> {
    let chain = Chain::new("away", 60_000)?;
    let (first, second) = (chain.start("first", BETWEEN)?, chain.start("second", BETWEEN)?);
    let ends = chain.start("ends", ENDS)?;
    let lines = chain.lines()?;
    let parts: Vec<&[String]> = lines.chunks(lines.len().div_ceil(4)).collect();
    chain.send(&ends, parts[0])?;
    let bytes = component("aggregate")?;
    ends.wait_for("aggregate", "all run", |status| runs_everywhere(status, 1))?;
    signal(&first, Signal::SIGSTOP)?;
    let version = ends.push_version("aggregate", "", &variant(&bytes, "while-away"))?;
    chain.send(&ends, parts[1])?;
    ends.wait_until_live("aggregate", version)?;
    signal(&first, Signal::SIGCONT)?;
    chain.send(&ends, parts[2])?;
    // Now the one that was away is the only one.
    second.kill();
    chain.send(&ends, parts[3])?;
    let began = std::time::Instant::now();
    while counted(&first, "tapeline_partition_owned{")? < 8.0 {
        ensure!(began.elapsed() < Duration::from_secs(30), "it does not take the partitions over");
        thread::sleep(Duration::from_millis(100));
    }
    first.wait_until_live("aggregate", version)?;
    ends.wait_until_live("aggregate", version)?;
    chain.finish(ends)
}

pub(super) fn uploads_while_hosts_are_killed_end_in_one_version() -> Result<()> {
    const ROUNDS: usize = 6;
    let chain = Chain::new("killed", 30_000)?;
    let second = chain.start("second", BETWEEN)?;
    let ends = chain.start("ends", ENDS)?;
    let lines = chain.lines()?;
    let bytes = component("dedup")?;
    let versions = [variant(&bytes, "two"), bytes];
    let mut taken = 0;
    for (round, chunk) in lines.chunks(lines.len().div_ceil(ROUNDS)).enumerate() {
        let first = chain.start("first", BETWEEN)?;
        chain.send(&ends, chunk)?;
        let pushed = thread::scope(|scope| {
            // To the one that is killed.
            let push = scope.spawn(|| first.push_version("dedup", "", &versions[round % 2]));
            thread::sleep(Duration::from_millis(15 * round as u64));
            let killed = signal(&first, Signal::SIGKILL);
            (push.join().expect("no panic"), killed)
        });
        pushed.1?;
        first.kill();
        if let Ok(version) = pushed.0 {
            // Whoever was told so was told the truth.
            ends.wait_until_live("dedup", version)?;
            taken += 1;
        }
        ends.wait_for("dedup", "one version runs", |status| {
            status["deployment"]["live"].as_u64().is_some_and(|live| runs_everywhere(status, live))
        })?;
    }
    ensure!(taken > 0, "no upload was in time");
    // The host that was there all the time is killed too, and another one goes on.
    second.kill();
    let _third = chain.start("third", BETWEEN)?;
    chain.finish(ends)
}
