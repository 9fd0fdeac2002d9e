//! Six functions, whatever goes wrong, store what one process stores, and nothing twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use rand_chacha::rand_core::RngCore as _;
use tapeline_aws_tests::{
    alarms::Alarms,
    lambda::{
        faults::{Faults, Told, random},
        mapping::Mapping,
        pipeline::{Pipeline, Plan},
    },
    stack::{Account, package},
};
use tokio::time::timeout;

use crate::job::Job;

/// Another seed for nightly tests; the same one gives the same faults, as far as time allows.
const SEED: &str = "TAPELINE_CHAOS_SEED";
const SEED_USUAL: u64 = 7;
/// It takes less than half a minute on a machine that does nothing else.
const PATIENCE: Duration = Duration::from_secs(300);
/// Two, so that groups overtake each other; the symbols are in both.
const PARTITIONS: u32 = 2;

/// Runs a job through functions.
#[expect(clippy::print_stdout, reason = "whoever looks for a fault needs the seed, and what has happened")]
pub(crate) fn run(account: &Arc<Account>, job: &Job, name: &str, faults: Faults) -> Result<()> {
    let seed = std::env::var(SEED).map_or(Ok(SEED_USUAL), |text| text.parse().context(SEED))?;
    let plan = Plan::of_file(name, &job.file, PARTITIONS, package())?;
    let pipeline = Pipeline::make(account, &plan)?;
    let alarms = Alarms::follow(&pipeline.stack)?;
    let told = Arc::new(Told::default());
    let started = Instant::now();
    let checked = account
        .runtime
        .block_on(through(job, &pipeline, faults, &told, seed))
        .and_then(|()| job.check(&pipeline, &alarms))
        .and_then(|()| {
            let missing = told.missing(&faults);
            ensure!(missing.is_none(), "nothing was {missing:?}");
            Ok(())
        });
    println!("{name}: {SEED}={seed}: {told}; {:.1} s", started.elapsed().as_secs_f64());
    checked.with_context(|| format!("{name}, {SEED}={seed}: {told}\n{}", pipeline.log()))
}

async fn through(job: &Job, pipeline: &Pipeline, faults: Faults, told: &Arc<Told>, seed: u64) -> Result<()> {
    let aws = &pipeline.stack.account.aws;
    let client = aws_sdk_sqs::Client::new(&aws.sdk());
    job.feed(&client, pipeline.queues.first().context("a queue")?).await?;
    let ended: Vec<AtomicBool> = (0..=pipeline.functions.len()).map(|at| AtomicBool::new(at == 0)).collect();
    let functions = pipeline.queues.iter().cloned().zip(pipeline.functions.iter().cloned());
    let mappings = functions.zip(ended.windows(2)).enumerate().map(|(at, (function, ended))| {
        let seed = random(seed, at as u64).next_u64();
        let mapping = Mapping::new(client.clone(), function, aws.port(), (faults, Arc::clone(told)), seed);
        async move {
            mapping.run(&ended[0]).await?;
            ended[1].store(true, Ordering::Release);
            anyhow::Ok(())
        }
    });
    timeout(PATIENCE, try_join_all(mappings)).await.context("it does not end")?.map(drop)
}
