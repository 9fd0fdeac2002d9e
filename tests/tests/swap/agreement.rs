//! Several who change a stage at once, and hosts that die meanwhile: all end in one version.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use tapeline_tests::live::{component, runs_everywhere, variant};

use super::job::{Job, MAIN, NAME};

#[test]
fn two_uploads_at_once_end_in_one_version() -> Result<()> {
    let job = Job::new(MAIN, 5_000)?;
    let host = job.start("at-once")?;
    let bytes = component("alarm")?;
    let versions: Vec<Vec<u8>> = (0..4).map(|at| variant(&bytes, &format!("v{at}"))).collect();
    for chunk in job.lines().chunks(500) {
        let all = thread::scope(|scope| {
            let pushes: Vec<_> =
                versions.iter().map(|bytes| scope.spawn(|| host.push_version("alarm", "", bytes))).collect();
            host.send(NAME, chunk)?;
            pushes.into_iter().map(|push| push.join().expect("no panic")).collect::<Result<Vec<u64>>>()
        })?;
        let status = host.wait_for("alarm", "one runs", |status| {
            status["deployment"]["live"].as_u64().is_some_and(|live| runs_everywhere(status, live))
        })?;
        ensure!(all.iter().any(|version| status["deployment"]["live"] == *version), "{all:?}: {status}");
    }
    let status = host.status("alarm")?;
    ensure!(status["deployment"]["versions"].as_array().map(Vec::len) == Some(5), "the same again is no other version");
    job.finish(host)
}

#[test]
fn uploads_while_a_host_is_killed_end_in_one_version() -> Result<()> {
    const ROUNDS: usize = 12;
    let job = Job::new(MAIN, 30_000)?;
    let lines = job.lines();
    let bytes = component("dedup")?;
    let versions = [variant(&bytes, "two"), bytes];
    let data = "killed";
    let mut was_live = Vec::new();
    for (round, chunk) in lines.chunks(lines.len().div_ceil(ROUNDS)).enumerate() {
        let host = job.start(data)?;
        host.send(NAME, chunk)?;
        let pushed = thread::scope(|scope| {
            let push = scope.spawn(|| host.push_version("dedup", "", &versions[round % 2]));
            // At different moments: before it is looked at, while it is, while it is taken up.
            thread::sleep(Duration::from_millis(7 * round as u64));
            let pid = nix::unistd::Pid::from_raw(host.id().cast_signed());
            let killed = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            (push.join().expect("no panic"), killed)
        });
        pushed.1?;
        host.kill();
        let host = job.start(data)?;
        let status = host.wait_for("dedup", "one runs", |status| {
            status["deployment"]["live"].as_u64().is_some_and(|live| runs_everywhere(status, live))
        })?;
        if let Ok(version) = pushed.0 {
            ensure!(status["deployment"]["live"] == version, "it was told that {version} is live: {status}");
        }
        was_live.push(status["deployment"]["live"].as_u64());
        host.wait_until_done()?;
        host.stop()?;
    }
    was_live.dedup();
    ensure!(was_live.len() > 1, "no upload was in time: {was_live:?}");
    job.finish(job.start(data)?)
}
