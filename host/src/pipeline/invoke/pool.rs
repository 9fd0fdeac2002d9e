//! Instances of a stage that are kept between calls.

use std::sync::{Mutex, PoisonError};

use tapeline_invoke::{Asking, CallError, Caller, NoState, StateOf};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    InvokeError, InvokeOptions, Invoked,
    session::{Changes, SessionState},
};
use crate::{
    contract::Input,
    pipeline::WasmStage,
    runtime::{Fault, WasmInstance},
    segment::Blueprint,
};

/// Instances of a stage, and calls of it that are under way. A call waits for nothing, so that more of them than
/// processors only let short calls pass by a long one, which yields every ten milliseconds.
const INSTANCES_MAX: usize = 8;
/// Names that an instance may know and be kept: a name costs some hundred bytes here and in the instance, and a caller
/// may send new ones all the time.
const NAMES_MAX: usize = 10_000;
/// Bytes of body and session that an instance may have taken and be kept. A new instance costs 0.3 ms, which does not
/// show beside what a larger call takes.
pub(super) const KEPT_BYTES_MAX: usize = 1 << 20;

/// The instances of a stage that are not in use.
pub(super) struct Pool {
    stage: Box<dyn Fn() -> WasmStage + Send + Sync>,
    idle: Mutex<Vec<Kept>>,
    permits: Semaphore,
}

/// An instance, with the names that it knows.
pub(super) struct Kept {
    caller: Caller<WasmInstance>,
    version: u64,
}

impl Pool {
    /// `stage` gives what is to be called now.
    pub(super) fn new(stage: Box<dyn Fn() -> WasmStage + Send + Sync>) -> Self {
        Self { stage, idle: Mutex::default(), permits: Semaphore::new(INSTANCES_MAX) }
    }

    /// Waits until one more call may be under way.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the pool never closes its semaphore")
    }

    /// An instance, kept or new.
    pub(super) async fn take(&self) -> Result<Kept, Fault> {
        let stage = (self.stage)();
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| kept.version == stage.version());
            idle.pop()
        };
        match kept {
            Some(kept) => Ok(kept),
            None => Kept::new(&stage).await,
        }
    }

    /// Keeps an instance for the next call, unless it knows too many names.
    pub(super) fn put(&self, mut kept: Kept) {
        if kept.caller.names().len() <= NAMES_MAX {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        }
    }
}

impl Kept {
    async fn new(stage: &WasmStage) -> Result<Self, Fault> {
        let mut instance = stage.instantiate_async().await?;
        let description = instance.describe_async().await?;
        Ok(Self { caller: Caller::new(instance, stage.role(), &description), version: stage.version() })
    }

    /// Calls the instance with the state of a session, or without any.
    pub(super) async fn call(
        &mut self,
        records: &[&[u8]],
        options: &InvokeOptions,
        session: Option<&SessionState>,
    ) -> Result<(Invoked, Changes), InvokeError> {
        let asking = Asking { format: options.format.as_deref(), received: options.received };
        let Some(mut session) = session else {
            let (invoked, _) = self.caller.call(records, asking, None::<&mut NoState>).await?;
            return Ok((invoked, Changes::default()));
        };
        let (invoked, watermark) = self.caller.call(records, asking, Some(&mut session)).await?;
        let entries = self.caller.callee().checkpoint_async().await?;
        Ok((invoked, Changes { entries, watermark }))
    }
}

impl StateOf<WasmInstance> for &SessionState {
    fn watermark(&self) -> i64 {
        SessionState::watermark(self)
    }

    async fn restore(&mut self, instance: &mut WasmInstance, _: &mut Input) -> Result<(), Fault> {
        instance.restore_async(self.entries(), SessionState::watermark(self)).await
    }
}

impl From<CallError<Fault>> for InvokeError {
    fn from(error: CallError<Fault>) -> Self {
        match error {
            CallError::BadBody(error) => Self::BadBody(error),
            CallError::Fault(fault) => Self::Fault(fault),
        }
    }
}
