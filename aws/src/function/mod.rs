//! A function: messages of a partition in, one after the other; each done as a whole and committed, or not at all.
//!
//! What a message gives out is committed along with the state ([`Outbox`]) and sent, and written, after that. A message is
//! done when both have happened. So whoever comes after a crash, or at the same time, either does what was never committed,
//! in its own way, or sends once more what was, word for word.

mod blame;
mod undone;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared, join_all};
use tapeline_runtime::{Component, Fault};
use tapeline_state::{Next, Root, Scope, StateError};

pub use undone::Undone;

use blame::Blamed;

use crate::{
    cached::Cached,
    chain::{self, Outcome, Stopped},
    clients::Clients,
    components::{ComponentError, Components},
    delivery::Delivery,
    dynamo::DynamoBucket,
    layout::{layout, limits},
    message::{Numbered, Raw},
    metrics::Happened,
    outbox::Outbox,
    position::{Position, Runs},
    settings::Settings,
    sink::{Queue, SinkError},
    stage::Stage,
    work::Work,
};

/// Times that a message is begun again because somebody else has committed.
const TRIES_MAX: usize = 32;

/// A message as SQS gives it.
#[derive(Clone, Debug)]
pub struct Received {
    /// What SQS calls it.
    pub id: String,
    /// Its number in its group, by SQS.
    pub sequence: Option<u128>,
    /// When it was sent, ns since the epoch.
    pub sent: i64,
    /// What it says.
    pub body: String,
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
    /// What is worth telling, and has not been told.
    pub(crate) happened: Happened,
    state: Arc<Cached<DynamoBucket>>,
    components: Components,
    stages: Vec<Stage>,
    delivery: Arc<Delivery>,
    /// What was committed last in each partition, as far as is known here, and sent.
    known: BTreeMap<u32, Root<Position>>,
}

/// Where work begins.
struct Begun {
    /// What was committed last.
    root: Root<Position>,
    /// What that gave out, if that may not have been sent yet. It is sent before anything else is committed.
    unsent: Option<Outbox>,
}

/// The delivery of what a commit before has given out.
type Left = Shared<LocalBoxFuture<'static, Result<(), SinkError>>>;

/// A message and what it asks for.
struct Job<'a> {
    partition: u32,
    producer: String,
    number: u128,
    work: Work,
    /// It is said by the clock, and is so only if no event has been done that was sent after this time, ns since the epoch.
    quiet_since: Option<i64>,
    message: &'a Received,
    /// By when it must be done.
    until: Instant,
}

impl Function {
    /// A function of these settings, with the components of a package.
    ///
    /// # Errors
    /// When the package is none.
    pub fn new(settings: Settings, clients: Clients, package: &Path) -> Result<Self, ComponentError> {
        let components = Components::open(package, clients.s3.clone(), settings.components_bucket.clone())?;
        let state = DynamoBucket::new(clients.dynamodb.clone(), settings.state_table.clone());
        Ok(Self {
            state: Arc::new(Cached::new(state)),
            components,
            stages: settings.stages.iter().cloned().map(Stage::new).collect(),
            entrance: Queue::new(clients.sqs.clone(), settings.in_queue.clone()),
            delivery: Arc::new(Delivery::new(&settings, &clients)),
            known: BTreeMap::new(),
            happened: Happened::default(),
            settings,
            clients,
        })
    }

    /// The state of a partition.
    pub fn scope(&self, partition: u32) -> Scope<'_, Cached<DynamoBucket>, Position> {
        scope(&self.state, &self.settings, partition)
    }

    /// The store of the state.
    pub(crate) const fn state(&self) -> &Arc<Cached<DynamoBucket>> {
        &self.state
    }

    /// The stage of this name, with the component that it is to run.
    ///
    /// # Errors
    /// When there is no such component.
    pub(crate) async fn stage(&mut self, name: &str) -> Result<Option<(&mut Stage, Component)>, ComponentError> {
        let Some(at) = self.stages.iter().position(|stage| stage.settings.name == name) else { return Ok(None) };
        let component = self.settings.stages.get(at).map_or("", |stage| &stage.component);
        let digest = match self.components.wanted(name, component).await? {
            Some(digest) => digest,
            None => self.components.packaged_digest(component)?,
        };
        let component = self.components.load(&digest, component).await?;
        Ok(self.stages.get_mut(at).map(|stage| (stage, component)))
    }

    /// Does a message of a partition, if it has not been done. There is time until `until`.
    ///
    /// # Errors
    /// When it is not done; then none behind it may be.
    pub async fn take(&mut self, partition: u32, message: &Received, until: Instant) -> Result<Done, Undone> {
        // What a new process must know is asked for while the records are stored, and made ready while the state is awaited.
        let known = self.known.remove(&partition);
        let begun = async {
            match known {
                Some(root) => Ok(Begun { root, unsent: None }),
                None => futures_util::join!(self.begin(partition), self.ask()).0,
            }
        };
        let (job, begun) = futures_util::join!(self.job(partition, message, until), begun);
        let (job, mut begun) = match (job, begun) {
            (Ok(job), begun) => (job, Some(begun)),
            // What was committed is sent, whatever this message is.
            (Err(error), Ok(Begun { unsent, .. })) => {
                self.delivery.deliver_left(partition, unsent).await?;
                return Err(error);
            }
            (Err(error), Err(_)) => return Err(error),
        };
        let received = job.work.received();
        let mut tries = 0;
        // Whether some of it was committed here.
        let mut is_ours = false;
        loop {
            let begun = match (begun.take(), self.known.remove(&partition)) {
                (Some(begun), _) => begun,
                (None, Some(root)) => Ok(Begun { root, unsent: None }),
                (None, None) => self.begin(partition).await,
            };
            let Begun { root: before, unsent } = match begun {
                Err(Undone::State(StateError::Conflict)) if tries < TRIES_MAX => {
                    tries += 1;
                    continue;
                }
                begun => begun?,
            };
            let delivery = Arc::clone(&self.delivery);
            let left = async move { delivery.deliver_left(partition, unsent).await }.boxed_local().shared();
            if job.number <= before.meta.last_of(&job.producer) {
                left.await?;
                self.known.insert(partition, before);
                return Ok(Done { received: received.filter(|_| is_ours) });
            }
            // What was committed is sent while the stages work, and whether they can or not.
            let (sent, stepped) = futures_util::join!(left.clone(), self.step(&before, &left, &job));
            sent?;
            match stepped {
                Ok(after) => {
                    is_ours = true;
                    self.happened.add(Happened::of_commit(&before.meta, &after.meta));
                    match self.deliver(partition, after).await {
                        // Somebody has committed since, who has delivered it.
                        Err(Undone::State(StateError::Conflict)) => tries += 1,
                        delivered => {
                            self.known.insert(partition, delivered?);
                            tries = 0;
                        }
                    }
                }
                Err(Undone::State(StateError::Conflict)) if tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// What was committed last in a partition. Boxed: it would be compiled once for each caller.
    fn begin(&self, partition: u32) -> LocalBoxFuture<'_, Result<Begun, Undone>> {
        self.begin_last(partition).boxed_local()
    }

    async fn begin_last(&self, partition: u32) -> Result<Begun, Undone> {
        let last = self.scope(partition).begin().await?;
        let deployed = self.layout();
        // Before anything goes out in the name of others.
        if !last.meta.layout.is_empty() && last.meta.layout != deployed {
            return Err(Undone::Layout { stored: last.meta.layout, deployed });
        }
        let unsent = Outbox::of_commit(&self.scope(partition), &last).await?;
        if unsent.as_ref().is_some_and(Outbox::tells) {
            return Ok(Begun { root: self.deliver(partition, last).await?, unsent: None });
        }
        Ok(Begun { root: last, unsent })
    }

    /// Asks what the stages are to run, if that was not asked lately, and makes it ready: whoever needs it finds it so then,
    /// or is told what is wrong with it.
    async fn ask(&self) {
        let asked = self.settings.stages.iter().map(|stage| async {
            if let Ok(Some(digest)) = self.components.wanted(&stage.name, &stage.component).await {
                let _ = self.components.load(&digest, &stage.component).await;
            }
        });
        join_all(asked).await;
    }

    /// What a message asks for. Of the first function, what it brings is stored as it came.
    async fn job<'a>(&self, partition: u32, message: &'a Received, until: Instant) -> Result<Job<'a>, Undone> {
        let Some(entrance) = &self.settings.entrance else {
            let Numbered { producer, number, hop } = Numbered::decode(&message.body)?;
            let work = Work::of_hop(hop).map_err(|breach| StateError::Corrupt(breach.to_string()))?;
            let number = u128::from(number);
            return Ok(Job { partition, producer, number, work, quiet_since: None, message, until });
        };
        let number = message.sequence.ok_or(Undone::Unnumbered)?;
        // What begins as one of ours and is none is a record that no fetcher knows: it ends in the dead letters.
        let unreadable = |_| Raw::Records {
            format: entrance.format.clone(),
            received: None,
            body: message.body.clone().into_bytes(),
        };
        let raw = Raw::decode(&message.body, &entrance.format).unwrap_or_else(unreadable);
        if let Raw::Records { format, received, body } = &raw {
            let came = (format.as_str(), received.unwrap_or(message.sent));
            self.delivery.store_raw(self.settings.name(), number, body, came).await?;
        }
        let quiet_since = match &raw {
            Raw::Mark { quiet_since, .. } => *quiet_since,
            Raw::Records { .. } => None,
        };
        let work = Work::of_raw(raw, message.sent);
        Ok(Job { partition, producer: String::new(), number, work, quiet_since, message, until })
    }

    /// Does what is left of a message, or a part of it, or finds out how it can be done. Gives what is committed then; nothing
    /// is before `left` is.
    async fn step(&mut self, before: &Root<Position>, left: &Left, job: &Job<'_>) -> Result<Root<Position>, Undone> {
        if self.settings.entrance.is_none() && job.number != before.meta.last_of(&job.producer) + 1 {
            // What is known here may be behind what others have done.
            let last = self.scope(job.partition).begin().await?;
            if last.id() != before.id() {
                return Err(StateError::Conflict.into());
            }
            let expected = before.meta.last_of(&job.producer) + 1;
            return Err(Undone::Gap { producer: job.producer.clone(), found: job.number, expected });
        }
        let (runs, components) = self.components(&before.meta).await?;
        if runs != before.meta.runs {
            left.clone().await?;
            for (stage, runs) in &runs {
                tracing::info!(stage, digest = runs.digest, partition = job.partition, "version");
            }
            let meta = Position { runs, layout: self.layout(), ..before.meta.clone() };
            return self.decide(job.partition, before, meta).await;
        }
        let mut partial = before.meta.partial_of(&job.producer, job.number);
        let from = partial.done as usize;
        let to = match partial.span as usize {
            0 => job.work.len(),
            span => job.work.len().min(from + span),
        };
        let is_over = job.quiet_since.is_some_and(|since| before.meta.sent > since);
        let part = if is_over { Work::nothing() } else { job.work.part(from..to) };
        let aside = std::mem::take(&mut partial.aside);
        let ran = self.run(before, job, &components, &part, &aside).await?;
        left.clone().await?;
        let outcome = match ran {
            Ok(outcome) => outcome,
            Err(blamed) => return self.blame(before, job, &components, &part, blamed).await,
        };
        let mut meta = before.meta.clone();
        meta.partial = if to == job.work.len() {
            meta.last.insert(job.producer.clone(), job.number);
            None
        } else {
            partial.done = u32::try_from(to).unwrap_or(u32::MAX);
            // What is behind the one that was to blame may be good.
            partial.span = if to - from == 1 { 0 } else { partial.span };
            Some(partial)
        };
        if part.received().is_some() {
            meta.sent = job.message.sent;
        }
        meta.runs.values_mut().for_each(|runs| runs.take(part.len() as u64));
        match self.commit(job.partition, before, meta, outcome).await {
            // One record alone may be too much for the store, too; all that a root names is no fault of a record.
            Err(Undone::State(StateError::Full { area, bytes, max })) => {
                let at = self.stages.iter().position(|stage| stage.settings.name == area);
                let Some(at) = at.filter(|at| !aside.keys().any(|aside| *aside as usize == *at)) else {
                    return Err(StateError::Full { area, bytes, max }.into());
                };
                let fault = Fault::State(format!("{area} would have {bytes} bytes; it may have {max}"));
                self.narrow(before, job, &part, at, &fault).await
            }
            committed => committed,
        }
    }

    /// Gives work to the stages; with fresh instances again when one fails, since what it did before may be to blame.
    async fn run(
        &mut self,
        before: &Root<Position>,
        job: &Job<'_>,
        components: &[Component],
        part: &Work,
        aside: &BTreeMap<u32, String>,
    ) -> Result<Result<Outcome, Blamed>, Undone> {
        let scope = scope(&self.state, &self.settings, job.partition);
        let place = chain::Place {
            scope: &scope,
            before,
            partition: job.partition,
            partitions: self.settings.partitions,
            entrance: self.settings.entrance.as_ref(),
            aside,
        };
        let needed: Duration = self.settings.stages.iter().map(|stage| stage.limits.call_time_max).sum();
        let mut is_fresh = self.stages.iter().all(|stage| !stage.is_kept());
        loop {
            if job.until.saturating_duration_since(Instant::now()) < needed {
                return Err(Undone::NoTime);
            }
            match chain::run(&mut self.stages, components, &place, part.clone()).await {
                Ok(outcome) => return Ok(Ok(outcome)),
                Err(Stopped::State(error)) => return Err(error.into()),
                Err(Stopped::Start { at, fault }) => return Ok(Err(Blamed { at, fault, is_start: true })),
                Err(Stopped::Stage { at, fault }) if is_fresh => {
                    let is_start = matches!(fault, Fault::Settings(_) | Fault::State(_));
                    return Ok(Err(Blamed { at, fault, is_start }));
                }
                Err(Stopped::Stage { .. }) => {
                    is_fresh = true;
                    self.stages.iter_mut().for_each(Stage::forget);
                }
            }
        }
    }

    /// What each stage is to run from now on, and that, made ready.
    async fn components(&mut self, position: &Position) -> Result<(BTreeMap<String, Runs>, Vec<Component>), Undone> {
        let mut runs = BTreeMap::new();
        let mut components = Vec::with_capacity(self.settings.stages.len());
        for stage in &self.settings.stages {
            let running = position.runs.get(&stage.name).cloned().unwrap_or_default();
            let wanted = self.components.wanted(&stage.name, &stage.component).await?;
            let next = wanted.and_then(|wanted| running.towards(&wanted));
            let mut choices: Vec<Runs> = next.into_iter().collect();
            if !running.digest.is_empty() {
                choices.push(running);
            }
            // What ran may have come with a package that is no more, and what was pushed may be for another engine.
            let packaged = self.components.packaged_digest(&stage.component)?.to_string();
            choices.push(Runs { digest: packaged, ..Runs::default() });
            let mut found = None;
            for choice in choices {
                match self.components.load(&choice.digest, &stage.component).await {
                    Ok(component) => {
                        found = Some((choice, component));
                        break;
                    }
                    Err(error @ ComponentError::Unavailable(_)) => return Err(error.into()),
                    Err(error) => tracing::error!(stage = stage.name, %error, "it cannot be run"),
                }
            }
            let unfit = || ComponentError::Unfit(format!("there is no component for stage {}", stage.name));
            let (choice, component) = found.ok_or_else(unfit)?;
            runs.insert(stage.name.clone(), choice);
            components.push(component);
        }
        Ok((runs, components))
    }

    /// Commits a decision, or what is known now: no work is done with it.
    async fn decide(&self, partition: u32, before: &Root<Position>, meta: Position) -> Result<Root<Position>, Undone> {
        let next = Next { meta: Some(meta), ..Next::default() };
        Ok(self.scope(partition).commit(before, next).await?)
    }

    /// Commits what came of work.
    async fn commit(
        &self,
        partition: u32,
        before: &Root<Position>,
        mut meta: Position,
        outcome: Outcome,
    ) -> Result<Root<Position>, Undone> {
        self.delivery.check(&outcome)?;
        let Outcome { out, rows, appends, alarms, aside, ledger, changes, times } = outcome;
        meta.layout = self.layout();
        meta.steps += 1;
        meta.dead += ledger.iter().map(|line| line.counts.dead).sum::<u64>();
        if let Some((newest, watermark)) = times {
            (meta.newest, meta.watermark) = (newest, watermark);
        }
        let mut outbox = Outbox { step: meta.steps, rows, appends, alarms, aside, ledger, ..Outbox::default() };
        for (to, hop) in out.into_iter().filter(|_| self.delivery.goes_on()) {
            let number = meta.given.entry(to).or_default();
            *number += 1;
            outbox.out.entry(to).or_default().push((*number, hop));
        }
        let next = Next { meta: Some(meta), changes, outbox: outbox.pieces()?, ..Next::default() };
        Ok(self.scope(partition).commit(before, next).await?)
    }

    /// Sends and writes what a commit gave out, and gives what is committed then: whom alarms are told cannot know that they
    /// were told before, so that it is noted at once.
    async fn deliver(&self, partition: u32, root: Root<Position>) -> Result<Root<Position>, Undone> {
        let scope = self.scope(partition);
        let Some(outbox) = Outbox::of_commit(&scope, &root).await? else { return Ok(root) };
        let tells = outbox.tells();
        self.delivery.deliver(partition, outbox).await?;
        if !tells {
            return Ok(root);
        }
        let meta = Position { told: root.meta.steps, ..root.meta.clone() };
        self.decide(partition, &root, meta).await
    }

    /// The stages that share the function, and the partitions of the pipeline.
    fn layout(&self) -> String {
        layout(&self.settings.stage_names(), self.settings.partitions)
    }
}

/// The state of a partition.
fn scope<'a>(
    state: &'a Cached<DynamoBucket>,
    settings: &Settings,
    partition: u32,
) -> Scope<'a, Cached<DynamoBucket>, Position> {
    let scope = Scope::of_segment(state, &settings.pipeline, settings.name(), partition);
    scope.with_limits(limits(settings.stages.len()))
}
