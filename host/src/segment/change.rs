//! How another version takes a stage's place: what runs beside the live version, and when it is weighed against it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    blueprint::Blueprint,
    companion::{Companion, Key, Purpose, apply, deletion, key_of},
    compare::Comparison,
    plans::{News, Plan, Probation},
    running::{Answer, Running, Shown},
    stage::StageWorker,
    warm_up::{Ready, Step, WarmUp},
};
use crate::{
    batch,
    contract::{Batch, Decoded, Entry, Fate, Frames, Output},
    names::Names,
    runtime::Fault,
    store::StateStore,
};

/// How often it is told how a candidate compares.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// What a prepared version is to be.
enum Aim {
    Live(Option<Probation>),
    Shadow(u64),
}

/// What becomes of a version that must prove itself.
enum Verdict {
    /// It goes on; its answer counts.
    GoOn,
    /// It goes on; the answer of the version before counts this time.
    StandIn,
    /// It has proven itself.
    Proven,
    /// It has failed.
    Failed(String),
}

impl StageWorker {
    /// Whether there is more to do at the next boundary.
    pub(super) const fn is_changing(&self) -> bool {
        !self.is_settled
    }

    /// Whether the version before could go on in the place of this one.
    pub(super) fn has_before(&self) -> bool {
        self.companion.as_ref().is_some_and(|companion| matches!(companion.purpose, Purpose::Before { .. }))
    }

    /// Lets the version before go on, if there is one; whether there is. What was not committed must be done again, unless
    /// both have taken it.
    pub(super) fn step_back(&mut self, reason: String) -> bool {
        match self.companion.take() {
            Some(companion) if matches!(companion.purpose, Purpose::Before { .. }) => {
                self.roll_back(companion, reason);
                true
            }
            other => {
                self.companion = other;
                false
            }
        }
    }

    pub(super) const fn has_others(&self) -> bool {
        self.companion.is_some() || self.warm_up.is_some()
    }

    fn version(&self) -> u64 {
        self.live.blueprint.version()
    }

    /// What has happened since this was last asked.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        self.tell_comparison(TELL_EVERY);
        std::mem::take(&mut self.news)
    }

    /// Takes note that what was taken is committed.
    pub(super) fn committed(&mut self) {
        self.takeover.clear();
        if let Some(companion) = &mut self.companion {
            companion.committed();
        }
    }

    /// Brings what runs beside the live version back to the last commit.
    pub(super) fn rewind_others(&mut self) {
        // It was given what is void now.
        self.warm_up = None;
        self.is_settled = false;
        let watermark = self.watermark;
        self.with_companion(|companion| companion.rewind(watermark));
    }

    /// Collects the changes of what runs beside the live version, whose own these are.
    pub(super) fn collect_beside(&mut self, changes: &[Entry]) {
        self.with_companion(|companion| companion.collect(changes.iter().map(key_of)));
    }

    /// Does something with the companion; when it fails at it, it goes.
    fn with_companion(&mut self, act: impl FnOnce(&mut Companion) -> Result<(), Fault>) {
        let Some(mut companion) = self.companion.take() else { return };
        match act(&mut companion) {
            Ok(()) => self.companion = Some(companion),
            Err(fault) => self.lose(&companion, &fault),
        }
    }

    /// Goes on without the companion, which has failed.
    fn lose(&mut self, companion: &Companion, fault: &Fault) {
        match &companion.purpose {
            Purpose::Shadow { comparison, .. } => self.throw_out(companion.version(), comparison, fault.to_string()),
            Purpose::Before { .. } => {
                let (stage, version) = (self.name(), companion.version());
                tracing::warn!(stage, version, %fault, "the version before cannot go on; nothing stands in any more");
                self.prove();
            }
        }
    }

    /// Weighs an answer of the live version against what runs beside it. Gives what counts.
    pub(super) fn weigh(
        &mut self,
        answered: Result<(Shown, Answer), Fault>,
        batch: Batch,
        names: &mut Names,
    ) -> Result<(Shown, Answer), Fault> {
        let copy = self.warm_up.is_some().then(|| batch.clone());
        let records = batch::event_count(&batch) as u64;
        let is_writer = self.live.blueprint.role() == super::Role::Writer;
        let answered = self.weigh_against(
            answered,
            records,
            names,
            |running, names| running.process(batch, names),
            |live, before| spoiled(&live.1.output, &before.1.output),
            |comparison, live, candidate, names| {
                comparison.compare((&live.0, &live.1), (&candidate.0, &candidate.1), names, is_writer);
            },
        );
        // What the live version could not take never happened.
        if let (Ok(_), Some(batch), Some(warm_up)) = (&answered, copy, &mut self.warm_up) {
            warm_up.feed(batch, names);
        }
        answered
    }

    /// As [`Self::weigh`], of the first stage.
    pub(super) fn weigh_decoded(
        &mut self,
        decoded: Result<Decoded, Fault>,
        frames: &mut Frames,
        names: &mut Names,
    ) -> Result<Decoded, Fault> {
        let records = frames.ends.len() as u64;
        self.weigh_against(
            decoded,
            records,
            names,
            |running, names| running.decode(frames, names),
            |live, before| live.rejects.len().saturating_sub(before.rejects.len()) as u64,
            |comparison, live, candidate, names| comparison.compare_decoded(live, candidate, names),
        )
    }

    fn weigh_against<A>(
        &mut self,
        answered: Result<A, Fault>,
        records: u64,
        names: &mut Names,
        ask: impl FnOnce(&mut Running, &mut Names) -> Result<A, Fault>,
        spoiled: impl FnOnce(&A, &A) -> u64,
        compare: impl FnOnce(&mut Comparison, &A, &A, &Names),
    ) -> Result<A, Fault> {
        let Some(mut companion) = self.companion.take() else { return answered };
        match &mut companion.purpose {
            Purpose::Shadow { comparison, differences_max } => {
                let live = match answered {
                    Ok(live) => live,
                    Err(fault) => {
                        self.companion = Some(companion);
                        return Err(fault);
                    }
                };
                let reason = match ask(&mut companion.running, names) {
                    Err(fault) => Some(fault.to_string()),
                    Ok(theirs) => {
                        compare(comparison, &live, &theirs, names);
                        let differences = comparison.differences;
                        (differences > *differences_max)
                            .then(|| format!("{differences} differences; {differences_max} are allowed"))
                    }
                };
                let has_drifted = companion.has_drifted();
                let drifted =
                    || "it was compared for so long that it cannot take the live one's place any more".to_owned();
                match reason.or_else(|| has_drifted.then(drifted)) {
                    Some(reason) => {
                        let Purpose::Shadow { comparison, .. } = &companion.purpose else { return Ok(live) };
                        self.throw_out(companion.version(), comparison, reason);
                    }
                    None => self.companion = Some(companion),
                }
                Ok(live)
            }
            Purpose::Before { left } => {
                let before = ask(&mut companion.running, names);
                let verdict = match (&answered, &before) {
                    (Err(fault), Ok(_)) => Verdict::Failed(fault.to_string()),
                    (Ok(_), Err(_)) => Verdict::Proven,
                    (Err(_), Err(_)) => {
                        // The record is to blame. It is looked for, and the version before must be well then.
                        self.companion = Some(companion);
                        let watermark = self.watermark;
                        self.with_companion(|companion| companion.revive(watermark));
                        return answered;
                    }
                    (Ok(live), Ok(before)) => judge(left, records, spoiled(live, before)),
                };
                match verdict {
                    Verdict::GoOn => self.companion = Some(companion),
                    Verdict::Proven => self.prove(),
                    Verdict::StandIn => {
                        self.companion = Some(companion);
                        return before;
                    }
                    Verdict::Failed(reason) => {
                        self.roll_back(companion, reason);
                        return before;
                    }
                }
                answered
            }
        }
    }

    fn throw_out(&mut self, version: u64, comparison: &Comparison, reason: String) {
        let reason = super::short(reason);
        let (stage, reason_text) = (self.name(), reason.as_str());
        tracing::warn!(stage, version, reason = reason_text, "a candidate is thrown out");
        self.news.push(News::Compared { version, comparison: comparison.clone() });
        self.news.push(News::ThrownOut { version, reason });
        self.unfit = Some(version);
    }

    fn prove(&mut self) {
        self.live.trust();
        self.news.push(News::Proven { version: self.version() });
    }

    fn roll_back(&mut self, companion: Companion, reason: String) {
        let (version, reason) = (self.version(), super::short(reason));
        let (stage, reason_text) = (self.name(), reason.as_str());
        tracing::warn!(stage, version, reason = reason_text, "a new version has failed; the one before goes on");
        self.put_in_place(companion);
        self.unfit = Some(version);
        self.news.push(News::RolledBack { version, to: self.version(), reason });
    }

    /// Makes a companion the live version, with its own state.
    fn put_in_place(&mut self, companion: Companion) {
        self.has_own_state = matches!(companion.purpose, Purpose::Before { .. });
        let (running, takeover, since) = companion.into_live();
        self.live = running;
        self.live.trust();
        self.pending.clone_from(&takeover);
        self.pending.extend(since);
        self.takeover = takeover;
        (self.is_noted, self.is_settled) = (false, false);
        self.warm_up = None;
    }

    /// Brings the stage to what it is to run, as far as that can be done now.
    pub(super) fn follow(&mut self, plan: &Plan, store: &dyn StateStore, names: &mut Names) {
        if !std::mem::replace(&mut self.has_told, true) {
            self.news.push(News::Runs { version: self.version() });
        }
        let wanted = plan.live.version();
        let shadow = plan.shadow.as_ref().map(|shadow| shadow.blueprint.version());
        if self.unfit.is_some_and(|unfit| unfit != wanted && Some(unfit) != shadow) {
            self.unfit = None;
        }
        self.review_companion(plan);
        match (&plan.shadow, &self.companion) {
            _ if self.version() != wanted => self.prepare(&plan.live, Aim::Live(plan.probation), store, names),
            (Some(shadow), None) => {
                self.prepare(&shadow.blueprint, Aim::Shadow(shadow.differences_max), store, names);
            }
            _ => self.warm_up = None,
        }
        let has_shadow = shadow.is_none()
            || shadow == self.unfit
            || self.companion.as_ref().is_some_and(|companion| Some(companion.version()) == shadow);
        let is_live = self.version() == wanted || self.unfit == Some(wanted);
        self.is_settled = is_live && has_shadow && self.warm_up.is_none();
    }

    /// Lets the companion take over, stay or go.
    fn review_companion(&mut self, plan: &Plan) {
        let Some(mut companion) = self.companion.take() else { return };
        let (wanted, began) = (plan.live.version(), Instant::now());
        if companion.version() == wanted && self.version() != wanted {
            self.put_in_place(companion);
            self.news.push(News::Live { version: wanted, pause: began.elapsed() });
            return;
        }
        let stays = match &mut companion.purpose {
            Purpose::Before { .. } => plan.probation.is_some() || self.version() != wanted,
            Purpose::Shadow { differences_max, .. } => match &plan.shadow {
                Some(shadow) if shadow.blueprint.version() == companion.running.blueprint.version() => {
                    *differences_max = shadow.differences_max;
                    true
                }
                _ => false,
            },
        };
        if stays {
            self.companion = Some(companion);
        } else {
            self.live.trust();
        }
    }

    fn prepare(&mut self, blueprint: &Arc<dyn Blueprint>, aim: Aim, store: &dyn StateStore, names: &mut Names) {
        let (version, is_shadow) = (blueprint.version(), matches!(aim, Aim::Shadow(_)));
        if self.unfit == Some(version) {
            self.warm_up = None;
            return;
        }
        let began = Instant::now();
        let stage = self.live.blueprint.name();
        let step = match &mut self.warm_up {
            Some(warm_up) if warm_up.is_of(version, is_shadow) => warm_up.step(stage, self.watermark, store, names),
            _ => {
                self.warm_up = Some(WarmUp::start(Arc::clone(blueprint), is_shadow));
                return;
            }
        };
        if matches!(step, Step::Wait) {
            return;
        }
        self.warm_up = None;
        match step {
            Step::Wait => {}
            Step::TryAgain(error) => {
                let stage = self.name();
                tracing::warn!(stage, version, %error, "a version could not be prepared; trying again");
                self.warm_up = Some(WarmUp::start(Arc::clone(blueprint), is_shadow));
            }
            Step::Failed(fault) if is_shadow => self.throw_out(version, &Comparison::default(), fault.to_string()),
            Step::Failed(fault) => {
                let stage = self.name();
                tracing::warn!(stage, version, %fault, "a version does not start with the state that there is");
                self.unfit = Some(version);
                self.news.push(News::NotStarted { version, reason: super::short(fault.to_string()) });
            }
            Step::Ready(ready) => match aim {
                Aim::Live(probation) => self.swap(*ready, probation, began),
                Aim::Shadow(differences_max) => self.run_beside(*ready, differences_max),
            },
        }
    }

    fn swap(&mut self, ready: Ready, probation: Option<Probation>, began: Instant) {
        let Ready { mut running, started_from: mut entries, changes } = ready;
        std::mem::swap(&mut self.live, &mut running);
        (self.is_noted, self.has_own_state) = (false, false);
        // The store has what the version before has made of these; this one has made its own of them, which it tells only
        // where it differs from what it was given.
        let own = |key: &Key| (key.clone(), entries.get(key).cloned().unwrap_or_else(|| deletion(key)));
        self.takeover = changes.keys().map(own).collect();
        self.pending.clone_from(&self.takeover);
        let is_stood_by = self.has_before();
        match (probation, &mut self.companion) {
            // The one before the one before has proven itself, and stands by still.
            (Some(probation), Some(companion)) if is_stood_by => {
                companion.purpose = Purpose::Before { left: probation };
                put_away((running, entries));
            }
            (Some(left), _) => {
                let touched: Vec<Key> = changes.keys().cloned().collect();
                apply(&mut entries, changes);
                running.trust();
                self.companion = Some(Companion::new(running, Purpose::Before { left }, entries, touched));
            }
            (None, _) => {
                self.live.trust();
                put_away((running, entries, self.companion.take()));
            }
        }
        let (version, pause) = (self.version(), began.elapsed());
        self.news.push(News::Live { version, pause });
        if self.companion.is_none() {
            self.news.push(News::Proven { version });
        }
    }

    fn run_beside(&mut self, ready: Ready, differences_max: u64) {
        let Ready { running, started_from, changes } = ready;
        let purpose = Purpose::Shadow { comparison: Comparison::default(), differences_max };
        self.companion = Some(Companion::new(running, purpose, started_from, changes.into_keys()));
        // What it has made of its state until here belongs to the last commit.
        self.with_companion(|companion| {
            companion.collect([])?;
            companion.committed();
            Ok(())
        });
        self.told.1 = u64::MAX;
        self.tell_comparison(Duration::ZERO);
    }

    fn tell_comparison(&mut self, every: Duration) {
        let Some(Companion { purpose: Purpose::Shadow { comparison, .. }, running, .. }) = &self.companion else {
            return;
        };
        if comparison.records != self.told.1 && self.told.0.elapsed() >= every {
            self.told = (Instant::now(), comparison.records);
            let (version, comparison) = (running.blueprint.version(), comparison.clone());
            self.news.push(News::Compared { version, comparison });
        }
    }
}

/// Lets go of what takes long to let go of, on another thread.
fn put_away<T: Send + 'static>(what: T) {
    thread::spawn(move || drop(what));
}

/// Events that one version refuses and the other does not.
fn spoiled(live: &Output, before: &Output) -> u64 {
    let is_refused = |fate: Option<&u8>| fate == Some(&Fate::REJECT);
    if live.fates.len() != before.fates.len() && !before.fates.is_empty() {
        return live.rejects.len().saturating_sub(before.rejects.len()) as u64;
    }
    let refused = live.fates.iter().enumerate().filter(|(_, fate)| is_refused(Some(fate)));
    refused.filter(|(at, _)| !is_refused(before.fates.get(*at))).count() as u64
}

fn judge(left: &mut Probation, records: u64, spoiled: u64) -> Verdict {
    if spoiled > left.dead_max {
        return Verdict::Failed(format!("it refuses records that the version before takes: {spoiled} more at once"));
    }
    left.dead_max -= spoiled;
    left.records = left.records.saturating_sub(records);
    match (spoiled, left.records) {
        (0, 0) => Verdict::Proven,
        (0, _) => Verdict::GoOn,
        _ => Verdict::StandIn,
    }
}
