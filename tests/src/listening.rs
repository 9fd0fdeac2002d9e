//! Servers that tests and benchmarks start.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A server that says on its first line where it listens; stopped when this is dropped.
pub struct Listening {
    child: Child,
    /// `127.0.0.1:4711`.
    pub address: String,
}

impl Listening {
    /// Starts a server whose output, or errors, are piped, and waits for its first line.
    ///
    /// # Errors
    /// When it cannot be started, or its first line names no address.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.spawn()?;
        let said: Box<dyn Read> = match (child.stdout.take(), child.stderr.take()) {
            (Some(output), _) => Box::new(output),
            (None, Some(errors)) => Box::new(errors),
            (None, None) => anyhow::bail!("nothing of the server is piped"),
        };
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let mut server = Self { child, address: String::new() };
        let (_, address) = line.trim().rsplit_once("http://").with_context(|| format!("an address in {line:?}"))?;
        address.trim_end_matches('/').clone_into(&mut server.address);
        Ok(server)
    }
}

impl Listening {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It is gone already when this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
