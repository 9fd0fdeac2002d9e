//! Carries what becomes of versions into the registry, and brings what others have decided to this host.

use std::{
    collections::BTreeMap,
    sync::{
        Weak,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use super::{Inner, Rollout, by_rule, merge, now_ns, shadow_began};
use crate::{
    error::{Error, Kind},
    registry::Deployment,
    segment::News,
};

/// How often it is looked whether others have decided something.
const LOOK: Duration = Duration::from_millis(40);
/// How often all is read again, in case that news were missed.
const REREAD: Duration = Duration::from_secs(5);
/// How often a worker's comparison is stored, at most.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Pause after the registry could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Follows until the rollout is gone.
pub(super) fn follow(inner: &Weak<Inner>, reported: &Receiver<(String, Option<u32>, News)>) {
    let mut follower = Follower { stored: BTreeMap::new(), owed: BTreeMap::new(), waiting: Vec::new() };
    let mut reread = Instant::now();
    loop {
        let news = match reported.recv_timeout(LOOK) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        let rollout = Rollout(inner);
        for news in news.into_iter().chain(reported.try_iter()) {
            follower.add(news);
        }
        if let Err(error) = follower.carry_back(&rollout).and_then(|()| follower.store_owed(&rollout)) {
            let error = error_text(&error);
            tracing::warn!(error, "what became of a version could not be stored; trying again");
            std::thread::sleep(RETRY_PAUSE);
        }
        if rollout.0.registry.has_news() || (rollout.0.registry.is_shared() && reread.elapsed() >= REREAD) {
            reread = Instant::now();
            for stage in rollout.stages() {
                rollout.refresh_or_take_back(&stage);
            }
        }
    }
}

struct Follower {
    /// When each worker's comparison was stored last.
    stored: BTreeMap<(String, Option<u32>), Instant>,
    /// Comparisons that are not stored yet, with their candidates.
    owed: BTreeMap<(String, Option<u32>), u64>,
    /// What is not carried back yet, in order.
    waiting: Vec<(String, Option<u32>, News)>,
}

impl Follower {
    /// Notes what is to be carried back. Of comparisons the latest takes the place of those before it.
    fn add(&mut self, (stage, partition, news): (String, Option<u32>, News)) {
        if matches!(news, News::Compared { .. }) {
            self.waiting.retain(|(of, at, waiting)| {
                !(matches!(waiting, News::Compared { .. }) && *of == stage && *at == partition)
            });
        }
        self.waiting.push((stage, partition, news));
    }

    fn carry_back(&mut self, rollout: &Rollout) -> Result<(), Error> {
        while let Some((stage, partition, news)) = self.waiting.first().cloned() {
            match self.carry(rollout, &stage, partition, news) {
                Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                // What cannot be carried back now cannot be later, and must not keep the rest.
                Err(error) => tracing::error!(stage, error = error_text(&error), "what became of a version is lost"),
                Ok(()) => {}
            }
            self.waiting.remove(0);
        }
        Ok(())
    }

    /// Stores comparisons, each now and then, and decides on what they say.
    fn store_owed(&mut self, rollout: &Rollout) -> Result<(), Error> {
        for ((stage, partition), version) in self.owed.clone() {
            if self.store(rollout, &stage, partition, STORE_EVERY)? {
                self.owed.remove(&(stage.clone(), partition));
                rollout.decide_by_rule(&stage, version)?;
            }
        }
        Ok(())
    }

    fn carry(&mut self, rollout: &Rollout, stage: &str, partition: Option<u32>, news: News) -> Result<(), Error> {
        match news {
            News::Runs { version } => {
                rollout.note(stage, partition, |report| {
                    let now = now_ns();
                    (report.begun, report.live, report.since) = (now, version, now);
                });
                self.store(rollout, stage, partition, Duration::ZERO)?;
                // One that begins with the live version has nothing beside it that it could prove itself to.
                rollout.prove(stage, partition, version, "its worker was started again, and nothing could stand by")?;
            }
            News::Live { version, pause } => {
                rollout.0.metrics.swapped(stage, pause);
                rollout.note(stage, partition, |report| (report.live, report.since) = (version, now_ns()));
                self.store(rollout, stage, partition, Duration::ZERO)?;
            }
            News::Proven { version } => {
                rollout.prove(stage, partition, version, "it has taken what it had to take")?;
                self.store(rollout, stage, partition, Duration::ZERO)?;
            }
            News::RolledBack { version, to, reason } => {
                rollout.0.metrics.rolled_back(stage);
                rollout.note(stage, partition, |report| (report.live, report.since) = (to, now_ns()));
                self.store(rollout, stage, partition, Duration::ZERO)?;
                rollout.take_back(stage, version, &reason)?;
            }
            News::NotStarted { version, reason } => rollout.take_back(stage, version, &reason)?,
            News::Compared { version, comparison } => {
                let began = {
                    let known = rollout.known();
                    known.get(stage).map_or(0, |known| shadow_began(&known.deployment, version))
                };
                rollout.note(stage, partition, |report| {
                    report.candidate = Some((version, began));
                    report.comparison = comparison.clone();
                });
                self.owed.insert((stage.to_owned(), partition), version);
            }
            News::ThrownOut { version, reason } => {
                self.store(rollout, stage, partition, Duration::ZERO)?;
                rollout.change(stage, |deployment| {
                    if deployment.shadow.is_some_and(|(shadow, _)| shadow == version) {
                        deployment.throw_out(&by_rule(&reason))?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Stores what a worker has reported, unless that was done just now; whether it is stored.
    fn store(
        &mut self,
        rollout: &Rollout,
        stage: &str,
        partition: Option<u32>,
        every: Duration,
    ) -> Result<bool, Error> {
        let key = (stage.to_owned(), partition);
        if self.stored.get(&key).is_some_and(|at| at.elapsed() < every) {
            return Ok(false);
        }
        let report = rollout.known().get(stage).and_then(|known| known.reports.get(&partition).cloned());
        let text = report.and_then(|report| serde_json::to_string(&report).ok());
        if let Some(text) = text {
            rollout.0.registry.put_report(stage, &Rollout::worker(partition), &text)?;
        }
        self.stored.insert(key, Instant::now());
        Ok(true)
    }
}

impl Rollout {
    fn note(&self, stage: &str, partition: Option<u32>, note: impl FnOnce(&mut super::WorkerReport)) {
        if let Some(known) = self.known().get_mut(stage) {
            let report = known.reports.entry(partition).or_default();
            report.host.clone_from(&self.0.host);
            note(report);
        }
    }

    /// A version has proven itself in a worker; in all once it has in each.
    fn prove(&self, stage: &str, partition: Option<u32>, version: u64, why: &str) -> Result<(), Error> {
        let is_meant = |deployment: &Deployment| deployment.before.is_some() && deployment.live == version;
        if !self.known().get(stage).is_some_and(|known| is_meant(&known.deployment)) {
            return Ok(());
        }
        self.note(stage, partition, |report| report.proven = version);
        if !self.workers(stage)?.values().all(|report| report.proven == version) {
            return Ok(());
        }
        self.change(stage, |deployment| {
            deployment.prove(version, &by_rule(why));
            Ok(())
        })
    }

    /// Takes a version back that has failed, if it still is the live one.
    fn take_back(&self, stage: &str, version: u64, reason: &str) -> Result<(), Error> {
        self.change(stage, |deployment| {
            let to = deployment.before.map(|(before, _)| Ok(before)).unwrap_or_else(|| deployment.previous());
            if let Ok(to) = to {
                deployment.roll_back(version, to, &by_rule(reason));
            }
            Ok(())
        })
    }

    /// Throws the candidate out when all workers together have seen too many differences; promotes it when it has been
    /// compared on enough records.
    fn decide_by_rule(&self, stage: &str, version: u64) -> Result<(), Error> {
        let deployment = self.known().get(stage).map(|known| known.deployment.clone()).unwrap_or_default();
        let Some((_, rule)) = deployment.shadow.filter(|(shadow, _)| *shadow == version) else { return Ok(()) };
        let comparison = merge(&deployment, version, &self.workers(stage)?);
        if comparison.differences > rule.differences_max {
            let (found, allowed) = (comparison.differences, rule.differences_max);
            let why = format!("{found} differences; {allowed} are allowed");
            return self.change(stage, |deployment| {
                if deployment.shadow.is_some_and(|(shadow, _)| shadow == version) {
                    deployment.throw_out(&by_rule(&why))?;
                }
                Ok(())
            });
        }
        if rule.promote_after.is_none_or(|records| comparison.records < records) {
            return Ok(());
        }
        let why = format!("{} records compared, {} differences", comparison.records, comparison.differences);
        self.change(stage, |deployment: &mut Deployment| {
            if deployment.shadow.is_some_and(|(shadow, _)| shadow == version) {
                deployment.promote(&by_rule(&why))?;
            }
            Ok(())
        })
    }

    /// Takes over what was decided. A version that cannot be made ready on this host is taken back for all, since all are
    /// to run the same.
    fn refresh_or_take_back(&self, stage: &str) {
        let Err(error) = self.refresh(stage) else { return };
        let reason = format!("host {} could not make it ready: {}", self.0.host, error_text(&error));
        tracing::warn!(stage, reason, "what was decided cannot be followed");
        if error.kind() == Kind::Unavailable {
            return;
        }
        let Ok(Some((_, deployment))) = self.0.registry.deployment(stage) else { return };
        let taken_back = match deployment.shadow {
            Some((shadow, _)) if !self.is_made(stage, shadow) && self.is_made(stage, deployment.live) => {
                self.change(stage, |deployment| deployment.throw_out(&by_rule(&reason)).map(drop))
            }
            _ => self.take_back(stage, deployment.live, &reason),
        };
        if let Err(error) = taken_back {
            tracing::error!(stage, error = error_text(&error), "and it could not be taken back");
        }
    }

    fn is_made(&self, stage: &str, version: u64) -> bool {
        self.known().get(stage).is_some_and(|known| known.made.contains_key(&version))
    }
}

fn error_text(error: &Error) -> String {
    crate::pipeline::job::error_text(error)
}
