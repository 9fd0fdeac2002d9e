//! Sends what functions could not take back to the queues it came from. SQS does it by itself, once it is asked.

use std::time::{Duration, Instant};

use aws_sdk_sqs::{
    operation::start_message_move_task::StartMessageMoveTaskError,
    types::{ListMessageMoveTasksResultEntry, QueueAttributeName},
};

use super::{Account, OperateError, Segment, Stack};

/// How often it is looked how far SQS is.
const LOOK: Duration = Duration::from_millis(500);
/// Of the tasks of a queue the last one is looked at.
const TASKS: i32 = 1;
const RUNNING: &str = "RUNNING";
const COMPLETED: &str = "COMPLETED";

/// The dead-letter queue of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The function: the names of its stages.
    pub function: String,
    /// Messages in it, about.
    pub messages: u64,
    /// What became of the last redrive that was begun; `None` when there was none in the last weeks.
    pub last: Option<Redriven>,
    source: String,
}

/// How far a redrive has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// `RUNNING`, `COMPLETED`, `FAILED`, …, as SQS calls it.
    pub status: String,
    /// Messages that were moved, about.
    pub moved: i64,
    /// Messages that there were; `None` when SQS does not say.
    pub of: Option<i64>,
    /// Why it failed.
    pub reason: Option<String>,
}

impl Redriven {
    /// Whether SQS is at it.
    pub fn is_running(&self) -> bool {
        self.status == RUNNING
    }

    /// Whether all of it was done.
    pub fn is_done(&self) -> bool {
        self.status == COMPLETED
    }
}

impl From<&ListMessageMoveTasksResultEntry> for Redriven {
    fn from(task: &ListMessageMoveTasksResultEntry) -> Self {
        Self {
            status: task.status().unwrap_or_default().to_owned(),
            moved: task.approximate_number_of_messages_moved(),
            of: task.approximate_number_of_messages_to_move(),
            reason: task.failure_reason().map(str::to_owned),
        }
    }
}

/// Looks into the dead-letter queues of a stack: all of them, or that of one function, which is known by its name or by that
/// of one of its stages.
///
/// # Errors
/// `Wrong` when there is no such function.
pub async fn waiting(account: &Account, stack: &Stack, function: Option<&str>) -> Result<Vec<Waiting>, OperateError> {
    let is_meant = |segment: &&Segment| {
        function.is_none_or(|name| segment.name() == name || segment.stages.iter().any(|stage| stage == name))
    };
    let mut found = Vec::new();
    for segment in stack.segments.iter().filter(is_meant) {
        found.push(look(account, segment).await?);
    }
    if found.is_empty() {
        let known = stack.segments.iter().map(Segment::name).collect::<Vec<_>>().join(", ");
        let name = function.unwrap_or_default();
        return Err(OperateError::wrong(format!("find function {name} in stack {}: there are {known}", stack.name)));
    }
    Ok(found)
}

async fn look(account: &Account, segment: &Segment) -> Result<Waiting, OperateError> {
    let doing = || format!("look into the dead-letter queue of {}", segment.name());
    let ask = account.sqs.get_queue_attributes().queue_url(&segment.dead_letter_queue);
    let asked = ask.attribute_names(QueueAttributeName::All).send().await;
    let attributes = asked.map_err(|error| OperateError::refused(doing(), &error))?.attributes.unwrap_or_default();
    let source = attributes.get(&QueueAttributeName::QueueArn).cloned();
    let source = source.ok_or_else(|| OperateError::service(doing(), "SQS does not say its name"))?;
    let counts = attributes.iter().filter(|(name, _)| name.as_str().starts_with("ApproximateNumberOfMessages"));
    let messages = counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum();
    let last = last(account, &source, &doing()).await?;
    Ok(Waiting { function: segment.name(), messages, last, source })
}

/// What became of the last redrive of a queue.
async fn last(account: &Account, source: &str, doing: &str) -> Result<Option<Redriven>, OperateError> {
    let asked = account.sqs.list_message_move_tasks().source_arn(source).max_results(TASKS).send().await;
    let tasks = asked.map_err(|error| OperateError::refused(doing, &error))?;
    Ok(tasks.results().first().map(Redriven::from))
}

/// Lets SQS send back what is in a dead-letter queue, and waits for so long until it has; when SQS is at it already, it is
/// only waited for.
///
/// # Errors
/// When SQS does not begin.
pub async fn redrive(account: &Account, waiting: &Waiting, wait: Duration) -> Result<Redriven, OperateError> {
    let doing = format!("redrive the dead letters of {}", waiting.function);
    if !waiting.last.as_ref().is_some_and(Redriven::is_running) {
        start(account, waiting, &doing).await?;
    }
    let begun = Instant::now();
    loop {
        let last = last(account, &waiting.source, &doing).await?;
        let last = last.ok_or_else(|| OperateError::service(&doing, "SQS does not know that it was asked to"))?;
        let left = wait.saturating_sub(begun.elapsed());
        if !last.is_running() || left.is_zero() {
            return Ok(last);
        }
        tokio::time::sleep(LOOK.min(left)).await;
    }
}

async fn start(account: &Account, waiting: &Waiting, doing: &str) -> Result<(), OperateError> {
    let begun = account.sqs.start_message_move_task().source_arn(&waiting.source).send().await;
    let Err(error) = begun else { return Ok(()) };
    // Somebody else was quicker: there may be one at a time.
    let may_run = error.as_service_error().is_some_and(StartMessageMoveTaskError::is_unsupported_operation);
    if may_run && last(account, &waiting.source, doing).await?.is_some_and(|last| last.is_running()) {
        return Ok(());
    }
    Err(OperateError::refused(doing, &error))
}
