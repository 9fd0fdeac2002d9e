//! Sends what functions could not take back to the queues it came from. SQS does it by itself, once it is asked.

use std::time::{Duration, Instant};

use aws_sdk_sqs::{
    operation::start_message_move_task::StartMessageMoveTaskError,
    types::{ListMessageMoveTasksResultEntry, QueueAttributeName},
};

use super::{Account, OperateError, Segment, Stack};

/// How often it is looked how far SQS is.
const LOOK: Duration = Duration::from_millis(500);
/// As many of the last tasks of a queue as SQS tells.
const TASKS: i32 = 10;
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
    /// When that was begun, ms since the epoch; before all times when there was none.
    last_begun: i64,
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
    /// One that SQS has taken, and does not tell of yet.
    fn taken() -> Self {
        Self { status: RUNNING.to_owned(), moved: 0, of: None, reason: None }
    }

    /// Whether SQS is at it.
    pub fn is_running(&self) -> bool {
        self.status == RUNNING
    }

    /// Whether all of it was done.
    pub fn is_done(&self) -> bool {
        self.status == COMPLETED
    }
}

impl From<&Task> for Redriven {
    fn from(task: &Task) -> Self {
        Self {
            status: task.status().unwrap_or_default().to_owned(),
            moved: task.approximate_number_of_messages_moved(),
            of: task.approximate_number_of_messages_to_move(),
            reason: task.failure_reason().map(str::to_owned),
        }
    }
}

/// One of the redrives of a queue, as SQS tells of it.
type Task = ListMessageMoveTasksResultEntry;

/// Which of the redrives of a queue is meant. SQS tells of the handle only while one is running, and may tell of one that was
/// begun a moment ago only later.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    /// The one that was begun then, ms since the epoch.
    Of(i64),
    /// The one that we have begun: of this handle, or the first that was begun after what there was.
    Ours { handle: Option<String>, after: i64 },
}

impl Meant {
    fn find<'t>(&self, tasks: &'t [Task]) -> Option<&'t Task> {
        match self {
            Self::Of(begun) => tasks.iter().find(|task| task.started_timestamp() == *begun),
            Self::Ours { handle, after } => {
                let is_running = |task: &&Task| handle.is_some() && task.task_handle() == handle.as_deref();
                let has_ended = |task: &&Task| task.task_handle().is_none() && task.started_timestamp() > *after;
                let ended = || tasks.iter().filter(has_ended).min_by_key(|task| task.started_timestamp());
                tasks.iter().find(is_running).or_else(ended)
            }
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
    let tasks = tasks(account, &source, &doing()).await?;
    let last = newest(&tasks);
    Ok(Waiting {
        function: segment.name(),
        messages,
        last: last.map(Redriven::from),
        source,
        last_begun: last.map_or(i64::MIN, Task::started_timestamp),
    })
}

/// The last redrives of a queue.
async fn tasks(account: &Account, source: &str, doing: &str) -> Result<Vec<Task>, OperateError> {
    let asked = account.sqs.list_message_move_tasks().source_arn(source).max_results(TASKS).send().await;
    Ok(asked.map_err(|error| OperateError::refused(doing, &error))?.results.unwrap_or_default())
}

fn newest(tasks: &[Task]) -> Option<&Task> {
    tasks.iter().max_by_key(|task| task.started_timestamp())
}

/// Lets SQS send back what is in a dead-letter queue, and waits for so long until it has; when SQS is at it already, it is
/// only waited for.
///
/// # Errors
/// When SQS does not begin.
pub async fn redrive(account: &Account, waiting: &Waiting, wait: Duration) -> Result<Redriven, OperateError> {
    let doing = format!("redrive the dead letters of {}", waiting.function);
    let meant = match waiting.last.as_ref().is_some_and(Redriven::is_running) {
        true => Meant::Of(waiting.last_begun),
        false => start(account, waiting, &doing).await?,
    };
    let begun = Instant::now();
    loop {
        let tasks = tasks(account, &waiting.source, &doing).await?;
        let found = meant.find(&tasks).map_or_else(Redriven::taken, Redriven::from);
        let left = wait.saturating_sub(begun.elapsed());
        if !found.is_running() || left.is_zero() {
            return Ok(found);
        }
        tokio::time::sleep(LOOK.min(left)).await;
    }
}

async fn start(account: &Account, waiting: &Waiting, doing: &str) -> Result<Meant, OperateError> {
    let error = match account.sqs.start_message_move_task().source_arn(&waiting.source).send().await {
        Ok(begun) => return Ok(Meant::Ours { handle: begun.task_handle, after: waiting.last_begun }),
        Err(error) => error,
    };
    // Somebody else was quicker: there may be one at a time.
    let may_run = error.as_service_error().is_some_and(StartMessageMoveTaskError::is_unsupported_operation);
    if may_run {
        let tasks = tasks(account, &waiting.source, doing).await?;
        if let Some(running) = newest(&tasks).filter(|task| Redriven::from(*task).is_running()) {
            return Ok(Meant::Of(running.started_timestamp()));
        }
    }
    Err(OperateError::refused(doing, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(begun: i64, handle: Option<&str>) -> Task {
        let status = if handle.is_some() { RUNNING } else { COMPLETED };
        let task = Task::builder().started_timestamp(begun).status(status);
        task.set_task_handle(handle.map(str::to_owned)).build()
    }

    #[test]
    fn what_was_begun_is_told_from_what_was_before_and_after() {
        let ours = Meant::Ours { handle: Some("ours".to_owned()), after: 5 };
        let begun = |tasks: &[Task]| ours.find(tasks).map(Task::started_timestamp);
        // SQS does not tell of it yet.
        assert_eq!(begun(&[]), None);
        assert_eq!(begun(&[task(5, None), task(3, None)]), None);
        assert_eq!(begun(&[task(7, Some("ours")), task(5, None)]), Some(7));
        assert_eq!(begun(&[task(7, None), task(5, None)]), Some(7));
        // Somebody has begun another one.
        assert_eq!(begun(&[task(9, Some("theirs")), task(7, None), task(5, None)]), Some(7));
        assert_eq!(begun(&[task(9, Some("theirs")), task(5, None)]), None);
        let found = Meant::Of(7);
        assert_eq!(found.find(&[task(9, None), task(7, None)]).map(Task::started_timestamp), Some(7));
        assert_eq!(newest(&[task(3, None), task(9, None), task(7, None)]).map(Task::started_timestamp), Some(9));
    }
}
