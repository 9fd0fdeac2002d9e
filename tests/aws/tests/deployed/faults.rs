//! Whatever happens to functions, their rows are those of one process.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tapeline_aws_tests::{
    poller::{Delivery, deliver},
    stack::{Account, Stack, package},
    stored,
};
use tapeline_tests::program;
use tempfile::TempDir;

use crate::market::Market;

const TABLES: [&str; 4] = ["trades", "bars", "averages", "alarms"];
/// Of each part, with symbols of its own.
const TRADES: u64 = 3_000;
/// Lines sent at once, so that there are many batches.
const LINES: usize = 500;
/// Between two kills, at most: a message is done in less.
const KILL_MS_MAX: u64 = 4_000;

pub(crate) fn batches_that_come_twice_or_at_once_and_killed_functions_leave_no_trace(
    account: &Arc<Account>,
) -> Result<()> {
    let folder = TempDir::new()?;
    let market = Market::new(folder.path(), &[(TRADES, "BTCUSDT"), (TRADES, "ETHUSDT"), (TRADES, "SOLUSDT")])?;
    let (tables, rest) = market.embedded(&program::bitcoin_pipeline(), &folder.path().join("data"), &TABLES)?;
    let pipeline = named(folder.path(), "faults")?;
    let stack = Stack::deploy(account, &pipeline, &package(), &["authorization=token"])?;
    let lines = market.lines();
    let part = |symbol: &'static str| lines.iter().copied().filter(move |line| line.contains(symbol));
    let send = |symbol| -> Result<()> {
        let lines: Vec<&str> = part(symbol).collect();
        lines.chunks(LINES).try_for_each(|lines| stack.send("faults", "binance", lines))?;
        stack.wait_until_done()
    };
    deliver(&stack, Delivery::Twice, || send("btcusdt"))?;
    deliver(&stack, Delivery::AtOnce, || send("ethusdt"))?;
    deliver(&stack, Delivery::Once, || killing(&stack, || send("solusdt")))?;
    stack.end()?;
    stack.wait_until_done()?;
    stored::compare(&tables, &stored::tables(&stack)?)?;
    let (objects, dead) = (stored::objects(&stack)?, stored::dead_letters(&stack)?.len());
    ensure!(objects == rest.objects, "other files: {:?}", objects.keys());
    ensure!(dead == rest.dead_letters, "{dead} dead letters instead of {}", rest.dead_letters);
    Ok(())
}

/// The pipeline of the main job under another name.
fn named(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join("pipeline.toml");
    let text = fs::read_to_string(program::bitcoin_pipeline())?;
    fs::write(&path, text.replacen("name = \"bitcoin-trades\"", &format!("name = \"{name}\""), 1))?;
    Ok(path)
}

/// Kills functions of a stack at random moments while something is done.
fn killing<T>(stack: &Stack, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (random, mut kills) = (RandomState::new(), 0_u64);
            while !is_over.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(random.hash_one(kills) % KILL_MS_MAX));
                let instances = stack.instances()?;
                let chosen = random.hash_one((kills, "which")) as usize % instances.len().max(1);
                // It may have ended by itself meanwhile.
                let _ = instances.get(chosen).map(|id| kill(Pid::from_raw(*id), Signal::SIGKILL));
                kills += 1;
            }
            anyhow::Ok(kills)
        });
        let done = work();
        is_over.store(true, Ordering::Release);
        let kills = killer.join().expect("the killer does not panic")?;
        ensure!(kills > 0, "nothing was killed");
        done
    })
}
