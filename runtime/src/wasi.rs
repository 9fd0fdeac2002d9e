//! What `std` drags into a component, answered with constants: no clock, no randomness, no environment, no files.
//!
//! A stage depends on its settings, state and input alone. Standard error is kept, since it says why a stage panicked.

use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView, p2::pipe::MemoryOutputPipe,
    random::Deterministic,
};

use crate::instance::{Guard, Limits};

/// What a stage may say on standard error in its life; a panic message is shorter. Writing beyond it traps.
const STDERR_BYTES_MAX: usize = 64 * 1024;

/// What belongs to one instance on the host's side.
pub(crate) struct HostState {
    wasi: WasiCtx,
    table: ResourceTable,
    stderr: MemoryOutputPipe,
    pub(crate) guard: Guard,
}

impl HostState {
    pub(crate) fn new(limits: &Limits) -> Self {
        let stderr = MemoryOutputPipe::new(STDERR_BYTES_MAX);
        let wasi = WasiCtx::builder()
            .stderr(stderr.clone())
            .wall_clock(Standstill)
            .monotonic_clock(Standstill)
            .secure_random(Deterministic::new(vec![0]))
            .insecure_random(Deterministic::new(vec![0]))
            .insecure_random_seed(0)
            .build();
        Self { wasi, table: ResourceTable::new(), stderr, guard: Guard::new(limits) }
    }

    /// What the stage said on standard error.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.contents()).trim().to_owned()
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A clock that stands at the epoch.
struct Standstill;

impl HostWallClock for Standstill {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Standstill {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}
