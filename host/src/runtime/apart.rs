//! Compiles a component that nobody has vouched for, in a process of its own with limits on time and memory: a compiler
//! can be attacked with what it compiles.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Context as _, Error, Kind, Result};

/// The command of the program that compiles its standard input; see [`compile_here`].
pub(crate) const COMMAND: &str = "compile-component";
/// Exit code of a component that cannot be compiled; the reason is on standard error.
pub(crate) const REFUSED: u8 = 3;
/// How often it is looked whether the compiler is done.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of a reason.
const REASON_BYTES_MAX: u64 = 16 << 10;
/// Bytes of compiled code. Compiled, a component of 64 MiB has some three times as much.
const COMPILED_BYTES_MAX: u64 = 512 << 20;

/// What the compiler may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileLimits {
    /// Time, by the clock; of the processors' time twice as much.
    pub time_max: Duration,
    /// Bytes of address space.
    pub memory_bytes_max: u64,
}

impl Default for CompileLimits {
    /// A minute and two gibibytes: a component with an interpreter in it takes a third of that.
    fn default() -> Self {
        Self { time_max: Duration::from_secs(60), memory_bytes_max: 2 << 30 }
    }
}

/// Compiles in a process of `program`, which is this one.
///
/// # Errors
/// `Invalid` when the bytes are no component, or the compiler needs more than it may have.
pub(super) fn compile(program: &Path, bytes: &[u8], limits: &CompileLimits) -> Result<Vec<u8>> {
    let place = || format!("start the compiler {}", program.display());
    let mut child = Command::new(program)
        .arg(COMMAND)
        .args(["--memory-bytes", &limits.memory_bytes_max.to_string()])
        .args(["--cpu-seconds", &(2 * limits.time_max.as_secs().max(1)).to_string()])
        // It needs nothing of what is there, and there may be secrets in it.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(place)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let done = thread::scope(|scope| {
        scope.spawn(move || {
            // One that has ended does not read all.
            let _ = stdin.map(|mut stdin| stdin.write_all(bytes));
        });
        let compiled = scope.spawn(move || read(stdout, COMPILED_BYTES_MAX + 1));
        let reason = scope.spawn(move || read(stderr, REASON_BYTES_MAX));
        let ended = wait(&mut child, limits.time_max);
        let compiled = compiled.join().unwrap_or_default();
        (ended, compiled, reason.join().unwrap_or_default())
    });
    let (ended, compiled, reason) = done;
    let status = match ended.doing(|| "wait for the compiler".to_owned())? {
        Some(status) => status,
        None => {
            let limit = humantime::format_duration(limits.time_max);
            return Err(Error::invalid(format!("compile the component: it took longer than {limit}")));
        }
    };
    if status.success() && compiled.len() as u64 <= COMPILED_BYTES_MAX {
        return Ok(compiled);
    }
    let reason = String::from_utf8_lossy(&reason).trim().to_owned();
    if status.code() == Some(i32::from(REFUSED)) {
        return Err(Error::invalid(format!("compile the component: {reason}")));
    }
    let memory = limits.memory_bytes_max >> 20;
    Err(Error::invalid(format!(
        "compile the component: the compiler ended with {status}; it may use {memory} MiB and {} of the processors' time",
        humantime::format_duration(2 * limits.time_max)
    )))
}

fn read(from: Option<impl Read>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What cannot be read is missed below.
        let _ = from.take(bytes_max).read_to_end(&mut bytes);
    }
    bytes
}

/// Waits for the process, and ends it when it takes too long.
fn wait(child: &mut Child, time_max: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > time_max {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// The compiler's side: compiles bytes for this very engine.
///
/// # Errors
/// `Invalid` when they are no component.
pub(crate) fn compile_here(bytes: &[u8]) -> Result<Vec<u8>> {
    let engine = tapeline_runtime::Engine::bare()?;
    let compiled = engine.precompile_component(bytes);
    compiled.map_err(|error| Error::caused(Kind::Invalid, "compile component", error))
}
