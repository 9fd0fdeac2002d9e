//! One instance of a component, kept alive, with limits on what it uses.

use std::time::Duration;

use futures_util::FutureExt;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};

use crate::{
    engine::{Component, TICK, World},
    wasi::HostState,
};
use tapeline_invoke::contract::{
    Decoded, Description, Entry, Frames, Input, Output, SettingError, StateError, Written, fetcher_world::Fetcher,
    stage_world::Stage, writer_world::Writer,
};
use tapeline_invoke::{Callee, batch::Breach};

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory.
    pub memory_bytes_max: usize,
    /// Time for one call.
    pub call_time_max: Duration,
    /// Elements of a table.
    pub table_elements_max: usize,
}

impl Default for Limits {
    /// 256 MiB, 5 s, 100,000 elements: generous for a stage, harmless for a machine.
    fn default() -> Self {
        Self { memory_bytes_max: 256 << 20, call_time_max: Duration::from_secs(5), table_elements_max: 100_000 }
    }
}

/// Core instances, memories and tables that one component may have: ours have up to 4, 1 and 2.
const CORE_INSTANCES_MAX: usize = 32;

/// Why a call did not come back. The instance is of no further use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// The stage trapped; what it said last, if anything.
    #[error("the stage trapped: {0}")]
    Trap(String),
    /// It took longer than it may.
    #[error("the stage took longer than {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// It asked for more memory than it may have.
    #[error("the stage asked for more than {0} bytes of memory")]
    Memory(usize),
    /// It answered what cannot be.
    #[error("{0}")]
    Breach(String),
    /// It refused its settings.
    #[error("{}: {}", setting_name(&.0.key), setting_text(&.0.value, &.0.expected))]
    Settings(SettingError),
    /// It refused its state.
    #[error("the stage does not take its state: {0}")]
    State(String),
}

fn setting_name(key: &str) -> String {
    if matches!(key, "" | ".") { "settings".to_owned() } else { format!("setting {key}") }
}

/// What is wrong with a setting. Of a name that it does not know, and of one that is missing, a stage tells what its parser
/// said, which is not what would be right.
pub fn setting_text(value: &str, expected: &str) -> String {
    match expected {
        said if said.starts_with("unknown field") => format!("{value} is not known to it: {said}"),
        said if said.starts_with("missing field") => said.to_owned(),
        right => format!("{value} instead of {right}"),
    }
}

impl From<Breach> for Fault {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach.to_string())
    }
}

/// A stage that can be called, compiled or native. Calls take what they are given and hand it back, so that a batch
/// is never copied to be looked at.
pub trait Instance: Send {
    /// As `describe` of the contract.
    ///
    /// # Errors
    /// See [`Fault`], as for all calls.
    fn describe(&mut self) -> Result<Description, Fault>;

    /// As `restore` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault>;

    /// As `checkpoint` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault>;

    /// As `process` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    fn process(&mut self, input: &Input) -> Result<Output, Fault>;

    /// As `decode` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault>;

    /// As `write` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    fn write(&mut self, input: &Input) -> Result<Written, Fault>;

    /// Sets the time that a call may take from now on.
    fn set_call_time_max(&mut self, limit: Duration);
}

/// An instance of a component.
pub struct WasmInstance {
    store: Store<HostState>,
    exports: Exports,
}

enum Exports {
    Fetcher(Fetcher),
    Stage(Stage),
    Writer(Writer),
}

macro_rules! with_store {
    ($exports:expr, $function:ident, $store:expr, ($($argument:expr),*)) => {
        $exports.$function($store, $($argument),*)
    };
}

/// Calls an exported function of the world at hand, or of whichever world has it.
macro_rules! call {
    ($self:ident, $function:ident $arguments:tt in $($world:ident . $interface:ident),+) => {{
        $self.store.data_mut().guard.begin();
        $self.store.set_epoch_deadline(1);
        let answer = match &$self.exports {
            $(Exports::$world(exports) => {
                with_store!(exports.$interface(), $function, &mut $self.store, $arguments).await
            })+
            #[allow(unreachable_patterns, reason = "describe and configure are in all worlds")]
            _ => return Err(Fault::Breach(concat!("no ", stringify!($function), " in this world").to_owned())),
        };
        answer.map_err(|error| $self.fault(&error))
    }};
}

impl WasmInstance {
    /// Makes an instance and gives it its settings, a JSON object.
    ///
    /// # Errors
    /// [`Fault::Settings`] for settings that cannot be used; others when the component does not start.
    pub async fn new(component: &Component, limits: &Limits, settings: &str) -> Result<Self, Fault> {
        let mut store = Store::new(&component.engine, HostState::new(limits));
        store.limiter(|state| &mut state.guard);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            Ok(match context.data_mut().guard.tick() {
                true => UpdateDeadline::Yield(1),
                false => UpdateDeadline::Interrupt,
            })
        });
        let made = match &component.world {
            World::Fetcher(pre) => pre.instantiate_async(&mut store).await.map(Exports::Fetcher),
            World::Stage(pre) => pre.instantiate_async(&mut store).await.map(Exports::Stage),
            World::Writer(pre) => pre.instantiate_async(&mut store).await.map(Exports::Writer),
        };
        let exports = made.map_err(|error| fault_of(&store, &error))?;
        let mut instance = Self { store, exports };
        instance.configure(settings).await?;
        Ok(instance)
    }

    async fn configure(&mut self, settings: &str) -> Result<(), Fault> {
        let answer = call!(self, call_configure(settings) in
            Fetcher.tapeline_pipeline_decode, Stage.tapeline_pipeline_process, Writer.tapeline_pipeline_write)?;
        answer.map_err(Fault::Settings)
    }

    /// As [`Instance::describe`].
    ///
    /// # Errors
    /// See [`Fault`], as for all calls.
    pub async fn describe_async(&mut self) -> Result<Description, Fault> {
        call!(self, call_describe() in
            Fetcher.tapeline_pipeline_decode, Stage.tapeline_pipeline_process, Writer.tapeline_pipeline_write)
    }

    /// As [`Instance::restore`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn restore_async(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        if matches!(self.exports, Exports::Fetcher(_)) {
            return Ok(());
        }
        let answer = call!(self, call_restore(entries, watermark) in
            Stage.tapeline_pipeline_process, Writer.tapeline_pipeline_write)?;
        answer.map_err(|error| match error {
            StateError::Version(version) => Fault::State(format!("it cannot migrate version {version}")),
            StateError::Corrupt(reason) => Fault::State(reason),
        })
    }

    /// As [`Instance::checkpoint`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn checkpoint_async(&mut self) -> Result<Vec<Entry>, Fault> {
        if matches!(self.exports, Exports::Fetcher(_)) {
            return Ok(Vec::new());
        }
        call!(self, call_checkpoint() in Stage.tapeline_pipeline_process, Writer.tapeline_pipeline_write)
    }

    /// As `keys` of the contract.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn keys_async(&mut self, input: &Input) -> Result<Vec<String>, Fault> {
        if matches!(self.exports, Exports::Fetcher(_)) {
            return Ok(Vec::new());
        }
        call!(self, call_keys(input) in Stage.tapeline_pipeline_process, Writer.tapeline_pipeline_write)
    }

    /// As [`Instance::process`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn process_async(&mut self, input: &Input) -> Result<Output, Fault> {
        call!(self, call_process(input) in Stage.tapeline_pipeline_process)
    }

    /// As [`Instance::decode`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn decode_async(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        call!(self, call_decode(frames) in Fetcher.tapeline_pipeline_decode)
    }

    /// As [`Instance::write`].
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn write_async(&mut self, input: &Input) -> Result<Written, Fault> {
        call!(self, call_write(input) in Writer.tapeline_pipeline_write)
    }

    fn fault(&self, error: &wasmtime::Error) -> Fault {
        fault_of(&self.store, error)
    }
}

fn fault_of(store: &Store<HostState>, error: &wasmtime::Error) -> Fault {
    let state = store.data();
    if state.guard.is_memory_refused {
        return Fault::Memory(state.guard.limits.memory_bytes_max);
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Fault::Deadline(state.guard.limits.call_time_max);
    }
    let said = state.said();
    let cause = error.downcast_ref::<Trap>().map_or_else(|| format!("{error:#}"), ToString::to_string);
    Fault::Trap(if said.is_empty() { cause } else { format!("{cause}; it said: {said}") })
}

/// Runs a call on this thread. A stage's calls wait for nothing, so that each is done when it is first polled, unless
/// it yields at the end of an epoch, and then it is polled again.
fn wait<T>(call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    loop {
        if let Some(answer) = call.as_mut().now_or_never() {
            return answer;
        }
    }
}

impl Instance for WasmInstance {
    fn describe(&mut self) -> Result<Description, Fault> {
        wait(self.describe_async())
    }

    fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        wait(self.restore_async(entries, watermark))
    }

    fn checkpoint(&mut self) -> Result<Vec<Entry>, Fault> {
        wait(self.checkpoint_async())
    }

    fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        wait(self.process_async(input))
    }

    fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        wait(self.decode_async(frames))
    }

    fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        wait(self.write_async(input))
    }

    fn set_call_time_max(&mut self, limit: Duration) {
        self.store.data_mut().guard.limits.call_time_max = limit;
    }
}

impl Callee for WasmInstance {
    type Fault = Fault;

    async fn restore(&mut self, entries: &[Entry], watermark: i64) -> Result<(), Fault> {
        self.restore_async(entries, watermark).await
    }

    async fn process(&mut self, input: &Input) -> Result<Output, Fault> {
        self.process_async(input).await
    }

    async fn decode(&mut self, frames: &Frames) -> Result<Decoded, Fault> {
        self.decode_async(frames).await
    }

    async fn write(&mut self, input: &Input) -> Result<Written, Fault> {
        self.write_async(input).await
    }
}

/// Makes an instance on this thread, as [`WasmInstance::new`] does.
///
/// # Errors
/// As there.
pub fn instantiate(component: &Component, limits: &Limits, settings: &str) -> Result<WasmInstance, Fault> {
    wait(WasmInstance::new(component, limits, settings))
}

/// Counts the epochs of a call and the memory of an instance.
pub(crate) struct Guard {
    limits: Limits,
    ticks: u32,
    /// Bytes of all its memories.
    memory_bytes: usize,
    is_memory_refused: bool,
}

impl Guard {
    pub(crate) const fn new(limits: &Limits) -> Self {
        Self { limits: *limits, ticks: 0, memory_bytes: 0, is_memory_refused: false }
    }

    fn begin(&mut self) {
        self.ticks = 0;
        self.is_memory_refused = false;
    }

    /// Whether the call may go on after another epoch.
    fn tick(&mut self) -> bool {
        self.ticks += 1;
        TICK * self.ticks <= self.limits.call_time_max
    }
}

impl ResourceLimiter for Guard {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // A component may have several memories: the limit is for all of them.
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let fits = total <= self.limits.memory_bytes_max && maximum.is_none_or(|maximum| desired <= maximum);
        if fits {
            self.memory_bytes = total;
        }
        self.is_memory_refused |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements_max && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        CORE_INSTANCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_setting_reads_right() {
        let said = |key: &str, value: &str, expected: &str| {
            let (key, value, expected) = (key.to_owned(), value.to_owned(), expected.to_owned());
            Fault::Settings(SettingError { key, value, expected }).to_string()
        };
        assert_eq!(said("absolute", "-1", "0 or above"), "setting absolute: -1 instead of 0 or above");
        assert_eq!(
            said("absolute", "0.05", "unknown field `absolute`, expected `keep`"),
            "setting absolute: 0.05 is not known to it: unknown field `absolute`, expected `keep`"
        );
        assert_eq!(said(".", "{}", "missing field `fault`"), "settings: missing field `fault`");
    }
}
