//! Calls one stage by itself: a body of events in, its answer out, nothing stored.
//!
//! Every call finds the stage without state, or with the state of its session, so that the answer depends on the
//! session and the body alone. Instances are kept between calls; which of them answers cannot be seen. Knows nothing of
//! HTTP, and nothing of the pipeline that the stage is part of: the two share compiled code and no data.

mod pool;
mod session;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use tapeline_invoke::Invoked;
use tapeline_invoke::body::{BadBody, EVENTS, records};

use self::{
    pool::Pool,
    session::{SessionState, Sessions},
};
use super::{Rollout, WasmStage};
use crate::{runtime::Fault, segment::Blueprint};

/// How long a call waits for an instance, or for its session. A client that waited for longer has most likely gone.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Calls one stage. Any number of calls may be under way.
pub struct Invoker {
    name: Arc<str>,
    pool: Pool,
    sessions: Sessions,
}

/// How to call a stage.
#[derive(Clone, Debug, Default)]
pub struct InvokeOptions {
    /// How to read frames, for a fetcher: `events` when absent. Other stages take events only.
    pub format: Option<String>,
    /// Name of the session whose state the stage goes on with; absent for a call that leaves nothing behind.
    pub session: Option<String>,
    /// Receive time of records that do not say when they were received, ns since the epoch.
    pub received: Option<i64>,
}

/// Why a stage was not called, or did not answer. The session is then as it was before.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvokeError {
    /// The body is no series of events.
    #[error("{0}")]
    BadBody(#[from] BadBody),
    /// The stage failed. The next call finds it well again.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// No session can have this name.
    #[error("{0}")]
    BadSession(String),
    /// There is no room for the session, or for its state.
    #[error("{0}")]
    TooMany(String),
    /// All instances, or the session, were in use for longer than a call waits.
    #[error("no instance became free in {}", humantime::format_duration(WAIT_MAX))]
    Busy,
}

impl Invoker {
    /// Calls this stage; makes no instance yet.
    pub fn new(stage: WasmStage) -> Self {
        let name = stage.name().into();
        Self { name, pool: Pool::new(Box::new(move || stage.clone())), sessions: Sessions::default() }
    }

    /// Calls the version of a stage that is live.
    pub fn of_live(rollout: Rollout, stage: WasmStage) -> Self {
        let name: Arc<str> = stage.name().into();
        let live = move || rollout.live_of(stage.name()).map_or_else(|| stage.clone(), |live| WasmStage::clone(&live));
        Self { name, pool: Pool::new(Box::new(live)), sessions: Sessions::default() }
    }

    /// Name of the stage.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Calls the stage with a body: lines, or a JSON array. For a fetcher they are frames, with or without their
    /// receive time in front; for all others events and watermarks. Dropping the future ends the call without a trace.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, body: &[u8], options: &InvokeOptions) -> Result<Invoked, InvokeError> {
        let Some(name) = &options.session else {
            return self.call(body, options, None).await.map(|(invoked, _)| invoked);
        };
        let session = self.sessions.find(name, Instant::now())?;
        let mut state = patiently(session.lock()).await?;
        let (invoked, changes) = self.call(body, options, Some(&state)).await?;
        state.apply(changes)?;
        Ok(invoked)
    }

    async fn call(
        &self,
        body: &[u8],
        options: &InvokeOptions,
        session: Option<&SessionState>,
    ) -> Result<(Invoked, session::Changes), InvokeError> {
        let records = records(body, options.format.as_deref().unwrap_or(EVENTS))?;
        let permit = patiently(self.pool.permit()).await?;
        let mut kept = self.pool.take().await?;
        let answer = kept.call(&records, options, session).await;
        // What has failed is of no further use; a body that could not be read has not reached it.
        if matches!(answer, Ok(_) | Err(InvokeError::BadBody(_))) && !is_large(body, session) {
            self.pool.put(kept);
        }
        drop(permit);
        answer
    }
}

/// An instance never gives memory back: it is kept only if what it took was little.
fn is_large(body: &[u8], session: Option<&SessionState>) -> bool {
    body.len() + session.map_or(0, SessionState::bytes) > pool::KEPT_BYTES_MAX
}

async fn patiently<T>(wait: impl Future<Output = T>) -> Result<T, InvokeError> {
    tokio::time::timeout(WAIT_MAX, wait).await.map_err(|_| InvokeError::Busy)
}
