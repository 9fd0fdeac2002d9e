//! A function: messages of a partition in, one after the other; each done as a whole and committed, or not at all.
//!
//! What a message gives out is sent, and written, before its commit, under numbers and names that depend on the message
//! and on what was committed before it alone. So whoever does it again, after a crash or at the same time, sends and
//! writes the same; of several, one commits. What could come out differently is decided by a commit of its own, before
//! anything is sent: which version of a stage runs, and which record is put aside because a stage fails on it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tapeline_runtime::{Component, Fault};
use tapeline_state::{Next, Root, Scope, StateError};

use crate::{
    cached::Cached,
    chain::{self, Outcome, Stopped, add_counts},
    clients::Clients,
    components::{ComponentError, Components},
    dynamo::DynamoBucket,
    message::{Numbered, Raw, Unreadable},
    position::{Position, Runs},
    settings::Settings,
    sink::{DeadLetters, Objects, Part, Queue, Rows, SinkError, Topic},
    stage::Stage,
    work::Work,
};

/// Times that a message is begun again because somebody else has committed.
const TRIES_MAX: usize = 32;
/// Receives of a message after which even a deadline that others have kept is held against the stage.
const RECEIVES_MANY: u32 = 4;

/// A message as SQS gives it.
#[derive(Clone, Debug)]
pub struct Received {
    /// What SQS calls it.
    pub id: String,
    /// Its number in its group, by SQS.
    pub sequence: u128,
    /// When it was sent, ns since the epoch.
    pub sent: i64,
    /// How often it was received.
    pub receives: u32,
    /// What it says.
    pub body: String,
}

/// Why a message is not done. It comes again.
#[derive(Debug, thiserror::Error)]
pub enum Undone {
    /// It is none of ours, or one before it is missing.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// One before it is missing.
    #[error("message {found} came, where {expected} is due: what is between is in the dead-letter queue, or lost")]
    Gap {
        /// The number that it has.
        found: u64,
        /// The number that it should have.
        expected: u128,
    },
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A component.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A service.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The stage itself cannot work, whatever it is given.
    #[error("stage {stage}: {fault}")]
    Stage {
        /// Its name.
        stage: String,
        /// Why.
        fault: Fault,
    },
    /// A stage took too long, and somebody else has begun with the same: that one may have sent what came of it.
    #[error("a stage took too long, and another call has begun with the same: it may have kept the deadline")]
    Contested,
    /// There is no time left in this call.
    #[error("there is no time left in this call; what is done of it is committed")]
    NoTime,
}

/// What became of a message that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// When the newest of its events was received, ns since the epoch; none where there was no event, or it had been done
    /// before.
    pub received: Option<i64>,
}

/// A function of a pipeline.
pub struct Function {
    /// What it was told.
    pub settings: Settings,
    /// The services.
    pub clients: Clients,
    /// The queue into it.
    pub entrance: Queue,
    state: Arc<Cached<DynamoBucket>>,
    components: Components,
    stages: Vec<Stage>,
    out: Option<Queue>,
    rows: Option<Rows>,
    objects: Option<Objects>,
    topic: Option<Topic>,
    dead_letters: DeadLetters,
}

impl Function {
    /// A function of these settings, with the components of a package.
    ///
    /// # Errors
    /// When the package is none.
    pub fn new(settings: Settings, clients: Clients, package: &Path) -> Result<Self, ComponentError> {
        let components = Components::open(package, clients.s3.clone(), settings.components_bucket.clone())?;
        let state = DynamoBucket::new(clients.dynamodb.clone(), settings.state_table.clone());
        let queue = |url: &String| Queue::new(clients.sqs.clone(), url.clone());
        let rows = |table: &String| Rows::new(clients.dynamodb.clone(), table.clone(), settings.rows_expire);
        let topic = |arn: &String| Topic::new(clients.sns.clone(), arn.clone(), &settings.pipeline);
        Ok(Self {
            state: Arc::new(Cached::new(state)),
            components,
            stages: settings.stages.iter().cloned().map(Stage::new).collect(),
            entrance: queue(&settings.in_queue),
            out: settings.out_queue.as_ref().map(queue),
            rows: settings.rows_table.as_ref().map(rows),
            objects: settings.objects_bucket.as_ref().map(|name| Objects::new(clients.s3.clone(), name.clone())),
            topic: settings.alarms_topic.as_ref().map(topic),
            dead_letters: DeadLetters::new(clients.dynamodb.clone(), settings.dead_letters_table.clone()),
            settings,
            clients,
        })
    }

    /// The state of a partition.
    pub fn scope(&self, partition: u32) -> Scope<'_, Cached<DynamoBucket>, Position> {
        Scope::of_segment(&self.state, &self.settings.pipeline, self.settings.name(), partition)
    }

    /// The store of the state.
    pub const fn state(&self) -> &Arc<Cached<DynamoBucket>> {
        &self.state
    }

    /// The stage of this name with the component that it is to run.
    ///
    /// # Errors
    /// When there is no such component.
    pub async fn stage(&mut self, name: &str) -> Result<Option<(&mut Stage, Component)>, ComponentError> {
        let Some(at) = self.stages.iter().position(|stage| stage.settings.name == name) else { return Ok(None) };
        let component = self.settings.stages.get(at).map_or("", |stage| &stage.component);
        let digest = self.components.wanted(name, component).await?;
        let component = self.components.load(&digest, component).await?;
        Ok(self.stages.get_mut(at).map(|stage| (stage, component)))
    }

    /// Does a message of a partition, if it has not been done. There is time until `until`.
    ///
    /// # Errors
    /// When it is not done; then none behind it may be.
    pub async fn take(&mut self, partition: u32, message: &Received, until: Instant) -> Result<Done, Undone> {
        let is_first = self.settings.entrance.is_some();
        let (number, work) = match &self.settings.entrance {
            Some(entrance) => {
                let raw = Raw::decode(&message.body, &entrance.format)?;
                (message.sequence, Work::of_raw(raw, message.sent))
            }
            None => {
                let Numbered { number, hop } = Numbered::decode(&message.body)?;
                let work = Work::of_hop(hop).map_err(|breach| StateError::Corrupt(breach.to_string()))?;
                (u128::from(number), work)
            }
        };
        let mut tries = 0;
        let mut is_stored = false;
        loop {
            let before = self.scope(partition).begin().await?;
            if number <= before.meta.last {
                return Ok(Done::default());
            }
            if !is_first && number != before.meta.last + 1 {
                let found = u64::try_from(number).unwrap_or(u64::MAX);
                return Err(Undone::Gap { found, expected: before.meta.last + 1 });
            }
            if let (Work::Records { format, received, records }, Some(objects), false) =
                (&work, &self.objects, is_stored || before.meta.done > 0)
            {
                objects.put_raw(self.settings.name(), number, records, (format, *received)).await?;
                is_stored = true;
            }
            match self.step(partition, &before, number, &work, message, until).await {
                Ok(true) => return Ok(Done { received: work.received() }),
                Ok(false) => tries = 0,
                Err(Undone::State(StateError::Conflict)) if tries < TRIES_MAX => tries += 1,
                // Whoever has begun with it may have done it by now; else there is nothing to wait for here.
                Err(Undone::Contested) if tries == 0 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Does a part of a message, or finds out how it can be done; commits that. Whether all of it is done now.
    async fn step(
        &mut self,
        partition: u32,
        before: &Root<Position>,
        number: u128,
        work: &Work,
        message: &Received,
        until: Instant,
    ) -> Result<bool, Undone> {
        let Some(components) = self.components(partition, before).await? else { return Ok(false) };
        let from = before.meta.done as usize;
        let to = match before.meta.span as usize {
            0 => work.len(),
            span => work.len().min(from + span),
        };
        if until.saturating_duration_since(Instant::now()) < self.time_needed() {
            return Err(Undone::NoTime);
        }
        let part = work.part(from..to);
        let scope = Scope::of_segment(&*self.state, &self.settings.pipeline, self.settings.name(), partition);
        let place = chain::Place {
            scope: &scope,
            before,
            partition,
            partitions: self.settings.partitions,
            entrance: self.settings.entrance.as_ref(),
        };
        let mut must_be_first = false;
        let outcome = match chain::run(&mut self.stages, &components, &place, part.clone()).await {
            Ok(outcome) => outcome,
            Err(Stopped::State(error)) => return Err(error.into()),
            // It is no longer there: the next try begins with a new one.
            Err(Stopped::Stage { at, .. }) if self.stages.get(at).is_some_and(Stage::was_used) => return Ok(false),
            Err(Stopped::Stage { at, fault }) => {
                // Another try may keep a deadline: then what it has sent must not be contradicted.
                must_be_first = matches!(fault, Fault::Deadline(_)) && message.receives < RECEIVES_MANY;
                let blamed = self.blame(partition, before, (at, &fault), &part, must_be_first).await?;
                let Some(outcome) = blamed else { return Ok(false) };
                outcome
            }
        };
        let is_done = to == work.len();
        let mut meta = before.meta.clone();
        if is_done {
            (meta.last, meta.done, meta.span) = (number, 0, 0);
        } else {
            meta.done = u32::try_from(to).unwrap_or(u32::MAX);
            // What is behind the one that was to blame may be good.
            meta.span = if to - from == 1 { 0 } else { meta.span };
        }
        if part.received().is_some() {
            meta.sent = message.sent;
        }
        let place = Part { partition, number, from: before.meta.done };
        meta.runs.values_mut().for_each(|runs| runs.take(part.len() as u64));
        self.commit(before, meta, outcome, place, must_be_first).await?;
        Ok(is_done)
    }

    /// What each stage runs, if that is what it is to run; else commits that it is from now on.
    async fn components(&mut self, partition: u32, before: &Root<Position>) -> Result<Option<Vec<Component>>, Undone> {
        let mut runs = before.meta.runs.clone();
        let mut components = Vec::with_capacity(self.stages.len());
        for stage in &self.settings.stages {
            let running = runs.entry(stage.name.clone()).or_default();
            let wanted = self.components.wanted(&stage.name, &stage.component).await?;
            if let Some(next) = running.towards(&wanted) {
                // What is not there, or is damaged, leaves the one that runs where it is.
                match self.components.load(&next.digest, &stage.component).await {
                    Ok(_) => *running = next,
                    Err(error) if running.digest.is_empty() => return Err(error.into()),
                    Err(error) => tracing::error!(stage = stage.name, %error, "what is wanted cannot be run"),
                }
            }
            match self.components.load(&running.digest, &stage.component).await {
                Ok(component) => components.push(component),
                // It came with a package that is no more.
                Err(error) => {
                    tracing::warn!(stage = stage.name, %error, "what ran is gone");
                    let next = Runs { digest: wanted.to_string(), ..Runs::default() };
                    components.push(self.components.load(&wanted, &stage.component).await?);
                    *running = next;
                }
            }
        }
        if runs == before.meta.runs {
            return Ok(Some(components));
        }
        for (stage, runs) in &runs {
            tracing::info!(stage, digest = runs.digest, partition, "version");
        }
        let meta = Position { runs, ..before.meta.clone() };
        self.decide(partition, before, meta, false).await?;
        Ok(None)
    }

    /// A stage has failed. A new version is taken back; else a smaller part is tried; or what is to blame is put aside,
    /// which gives an outcome.
    async fn blame(
        &self,
        partition: u32,
        before: &Root<Position>,
        (at, fault): (usize, &Fault),
        part: &Work,
        must_be_first: bool,
    ) -> Result<Option<Outcome>, Undone> {
        let stage = self.settings.stages.get(at).map(|stage| stage.name.clone()).unwrap_or_default();
        let mut meta = before.meta.clone();
        if let Some(back) = meta.runs.get(&stage).and_then(Runs::rolled_back) {
            tracing::error!(stage, %fault, refused = back.refused, digest = back.digest, "rolled back");
            meta.runs.insert(stage, back);
            self.decide(partition, before, meta, must_be_first).await?;
            return Ok(None);
        }
        if matches!(fault, Fault::Settings(_) | Fault::State(_)) {
            return Err(Undone::Stage { stage, fault: fault.clone() });
        }
        if part.len() > 1 {
            tracing::warn!(stage, %fault, records = part.len(), "a stage has failed; half of it is tried");
            meta.span = u32::try_from(part.len() / 2).unwrap_or(u32::MAX);
            self.decide(partition, before, meta, must_be_first).await?;
            return Ok(None);
        }
        tracing::error!(stage, %fault, "a record is put aside");
        Ok(Some(chain::put_aside(&self.stages, at, part, fault)))
    }

    /// Commits a decision: no work is done with it.
    async fn decide(
        &self,
        partition: u32,
        before: &Root<Position>,
        meta: Position,
        must_be_first: bool,
    ) -> Result<(), Undone> {
        let scope = self.scope(partition);
        let next = Next { meta: Some(meta), ..Next::default() };
        let Some(attempt) = scope.prepare(before, next).await? else { return Ok(()) };
        if must_be_first && !attempt.is_first() {
            return Err(Undone::Contested);
        }
        Ok(scope.finish(attempt).await?)
    }

    /// Sends and writes what came of work, and commits it.
    async fn commit(
        &self,
        before: &Root<Position>,
        mut meta: Position,
        outcome: Outcome,
        part: Part,
        must_be_first: bool,
    ) -> Result<(), Undone> {
        let Outcome { out, rows, appends, alarms, aside, counts, changes, times } = outcome;
        add_counts(&mut meta.counts, counts);
        if let Some((newest, watermark)) = times {
            (meta.newest, meta.watermark) = (newest, watermark);
        }
        let mut groups: BTreeMap<u32, Vec<(String, String)>> = BTreeMap::new();
        for (to, hop) in out {
            let number = meta.given.entry(to).or_default();
            *number += 1;
            let body = Numbered { number: *number, hop }.encode();
            groups.entry(to).or_default().push((format!("{to}-{number}"), body));
        }
        let scope = self.scope(part.partition);
        let next = Next { meta: Some(meta), changes, ..Next::default() };
        // From here on others know that it may have been sent.
        let Some(attempt) = scope.prepare(before, next).await? else { return Ok(()) };
        if must_be_first && !attempt.is_first() {
            return Err(Undone::Contested);
        }
        let sent = async {
            match &self.out {
                Some(queue) => queue.send(groups.into_iter().map(|(to, sent)| (to.to_string(), sent)).collect()).await,
                None => Ok(()),
            }
        };
        let written = async {
            match &self.rows {
                Some(table) => table.put(&rows, part).await,
                None => Ok(()),
            }
        };
        let appended = async {
            match self.objects.as_ref().filter(|_| !appends.is_empty()) {
                Some(objects) => objects.put(&appends, part).await,
                None => Ok(()),
            }
        };
        let told = async {
            match &self.topic {
                Some(topic) => topic.tell(&alarms).await,
                None => Ok(()),
            }
        };
        let kept = self.dead_letters.put(&aside, part);
        futures_util::try_join!(sent, written, appended, told, kept)?;
        Ok(scope.finish(attempt).await?)
    }

    /// What a call of all stages may take, at least.
    fn time_needed(&self) -> Duration {
        self.settings.stages.iter().map(|stage| stage.limits.call_time_max).sum()
    }
}
