//! What calls a function: a queue, HTTP, a schedule.

mod http;
mod queue;
mod schedule;
mod token;

use std::{
    env,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use crate::{
    clients::{Clients, Place},
    function::Function,
    settings::Settings,
};

/// Time of a call that is left for what comes after the last message.
const RESERVE: Duration = Duration::from_millis(500);

/// What an event has only if it is of a kind.
#[derive(Deserialize)]
struct Peeked {
    /// Of a queue.
    #[serde(rename = "Records")]
    records: Option<IgnoredAny>,
    /// Of HTTP.
    #[serde(rename = "requestContext")]
    request_context: Option<IgnoredAny>,
    /// Ours.
    tapeline: Option<String>,
}

/// A failure that whoever calls is told.
type Failure = Box<dyn Error + Send + Sync>;

/// Answers calls, as AWS Lambda makes them, until it ends the process.
///
/// # Errors
/// When the environment or the package is not what it should be.
pub fn serve() -> Result<(), Failure> {
    log();
    let lookup = |name: &str| env::var(name).ok();
    let settings = Settings::read(lookup)?;
    let clients = Clients::new(Place::of_function(lookup)?);
    let package = env::var_os("LAMBDA_TASK_ROOT").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let function = Mutex::new(Served { function: Function::new(settings, clients, &package)?, token: None });
        lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async {
            function.lock().await.answer(event).await.inspect_err(|error| tracing::error!(%error, "the call failed"))
        }))
        .await
    })
}

/// Lines on standard output, which CloudWatch keeps.
fn log() {
    let level = env::var("TAPELINE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt().with_max_level(level).with_ansi(false).without_time().with_writer(std::io::stderr).init();
}

/// A function, and what it knows of those who call it.
struct Served {
    function: Function,
    token: Option<token::Known>,
}

impl Served {
    async fn answer(&mut self, event: LambdaEvent<Box<RawValue>>) -> Result<serde_json::Value, Failure> {
        let LambdaEvent { payload, context } = event;
        let until = until(context.deadline);
        let peeked: Peeked = serde_json::from_str(payload.get())?;
        match peeked {
            Peeked { records: Some(_), .. } => {
                let batch = serde_json::from_str(payload.get())?;
                Ok(serde_json::to_value(queue::take(&mut self.function, batch, until).await)?)
            }
            Peeked { request_context: Some(_), .. } => {
                let request = serde_json::from_str(payload.get())?;
                Ok(serde_json::to_value(self.http(request, &context.request_id).await)?)
            }
            Peeked { tapeline: Some(what), .. } if what == "schedule" => {
                schedule::tick(&self.function, &context.request_id).await?;
                Ok(serde_json::Value::Null)
            }
            _ => Err("the event is none of a queue, of HTTP, or of a schedule".into()),
        }
    }
}

/// The end of a call, which Lambda gives in ms since the epoch.
fn until(deadline: u64) -> Instant {
    let end = SystemTime::UNIX_EPOCH + Duration::from_millis(deadline);
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now() + left.saturating_sub(RESERVE)
}

/// Now, ns since the epoch.
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
