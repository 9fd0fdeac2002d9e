//! A stage of this function: its instance, and its state as it was committed last.

use std::sync::Arc;

use tapeline_invoke::{
    Caller, StateOf,
    contract::{END, Entry, Input},
};
use tapeline_runtime::{Component, Fault, WasmInstance};
use tapeline_state::{Area, Bucket, Changes, Meta, Scope, StateError};

use crate::settings::StageSettings;

/// Names that an instance may know and be kept.
const NAMES_MAX: usize = 10_000;

/// A stage and the instance that was used last.
pub struct Stage {
    /// What the function was told of it.
    pub settings: StageSettings,
    kept: Option<(Arc<str>, Caller<WasmInstance>)>,
    was_used: bool,
}

impl Stage {
    /// A stage without an instance.
    pub const fn new(settings: StageSettings) -> Self {
        Self { settings, kept: None, was_used: false }
    }

    /// The instance of a component, which is made if it is not there. Whoever takes it gives it back with [`Self::keep`]
    /// if it is good for another call.
    ///
    /// # Errors
    /// When it does not start, or refuses its settings.
    pub async fn take(&mut self, component: &Component) -> Result<Caller<WasmInstance>, Fault> {
        self.was_used = false;
        if let Some((digest, caller)) = self.kept.take()
            && digest == component.digest
        {
            self.was_used = true;
            return Ok(caller);
        }
        let mut instance = WasmInstance::new(component, &self.settings.limits, &self.settings.settings).await?;
        let description = instance.describe_async().await?;
        Ok(Caller::new(instance, component.role(), &description))
    }

    /// Whether the instance that was taken last had been called before: then what it holds since may be why it fails, and
    /// a new one may not.
    pub const fn was_used(&self) -> bool {
        self.was_used
    }

    /// Keeps an instance for the next call, unless it knows too much, or has failed.
    pub fn keep(&mut self, component: &Component, mut caller: Caller<WasmInstance>) {
        if !caller.is_spent() && caller.names().len() <= NAMES_MAX {
            self.kept = Some((Arc::clone(&component.digest), caller));
        }
    }
}

/// The state of a stage as it was committed last, while a call of the stage begins from it.
pub(crate) struct Stored<'a, B, M> {
    scope: &'a Scope<'a, B, M>,
    root: u64,
    area: &'a Area,
    /// The newest mark that the stage was given: the keys whose timers it passes were loaded.
    looked: i64,
    /// Why it could not be loaded.
    failed: Option<StateError>,
}

impl<'a, B: Bucket, M: Meta> Stored<'a, B, M> {
    /// What an area of a root has.
    pub(crate) const fn new(scope: &'a Scope<'a, B, M>, root: u64, area: &'a Area) -> Self {
        Self { scope, root, area, looked: i64::MIN, failed: None }
    }

    /// Why it could not be loaded, if it could not.
    pub(crate) const fn failed(&mut self) -> Option<StateError> {
        self.failed.take()
    }

    /// What a stage has changed of it since; `watermark` is the newest that it was told.
    ///
    /// # Errors
    /// When the stage fails.
    pub(crate) async fn changes(
        &self,
        area: &str,
        caller: &mut Caller<WasmInstance>,
        watermark: i64,
    ) -> Result<Changes, Fault> {
        let entries: Vec<Entry> = caller.callee().checkpoint_async().await?;
        Ok(Changes { area: area.to_owned(), entries, looked: self.looked, watermark, called: 0 })
    }
}

impl<B: Bucket, M: Meta> StateOf<WasmInstance> for Stored<'_, B, M> {
    fn watermark(&self) -> i64 {
        self.area.watermark
    }

    async fn restore(&mut self, instance: &mut WasmInstance, input: &mut Input) -> Result<(), Fault> {
        // The end of all events wakes every key.
        self.looked = input.events.marks.iter().copied().max().unwrap_or(i64::MIN);
        let keys = instance.keys_async(input).await?;
        // It knows them now.
        input.names.clear();
        match self.scope.load(self.root, self.area, keys, self.looked).await {
            Ok(entries) => instance.restore_async(&entries, self.area.watermark).await,
            Err(error) => {
                let reason = error.to_string();
                self.failed = Some(error);
                Err(Fault::State(reason))
            }
        }
    }
}

/// The newest of marks that is a time.
pub(crate) fn newest(marks: &[i64]) -> i64 {
    marks.iter().copied().filter(|mark| *mark != END).max().unwrap_or(i64::MIN)
}
