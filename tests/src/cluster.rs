//! A NATS server and hosts, as real processes that can be killed, stopped and started again.

use std::{
    ffi::OsString,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::program;

/// How long a server may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(20);

/// A server with JetStream, on a free port of this machine.
pub struct NatsServer {
    child: Child,
    port: u16,
    store: PathBuf,
}

impl NatsServer {
    /// Whether there is a `nats-server` on the path.
    pub fn is_there() -> bool {
        let mut version = Command::new("nats-server");
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts a server that stores in a folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(store: &Path) -> Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut server = Self { child: spawn_server(port, store)?, port, store: store.to_owned() };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it with -9 and starts it again on what it has stored.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kill_and_restart(&mut self, pause: Duration) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        thread::sleep(pause);
        self.child = spawn_server(self.port, &self.store)?;
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("nats-server ended: {status}");
            }
            if started.elapsed() > START_TIME_MAX {
                bail!("nats-server does not listen");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It is gone already when this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_server(port: u16, store: &Path) -> Result<Child> {
    let mut server = Command::new("nats-server");
    server.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"]).arg(store);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    server.spawn().context("start nats-server")
}

/// A process of ours.
pub struct Host {
    child: Child,
    errors: PathBuf,
}

impl Host {
    /// A host for the stages between the ends of a pipeline.
    ///
    /// # Errors
    /// When it does not start.
    pub fn work(pipeline: &Path, stages: &str, url: &str, folder: &Path) -> Result<Self> {
        let arguments: [OsString; 10] = [
            "up".into(),
            pipeline.into(),
            "--data".into(),
            folder.into(),
            "--nats".into(),
            url.into(),
            "--stages".into(),
            stages.into(),
            "--components".into(),
            program::components().into(),
        ];
        Self::spawn(&arguments, folder)
    }

    /// Starts the program; its errors go into a file in the folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(arguments: &[OsString], folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let errors = folder.join("errors.txt");
        let file = std::fs::File::options().create(true).append(true).open(&errors)?;
        let mut command = Command::new(program::path());
        let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn()?;
        Ok(Self { child, errors })
    }

    /// Kills it with -9.
    ///
    /// # Errors
    /// When it is not ours any more.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self, is_frozen: bool) -> Result<()> {
        let signal = if is_frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Its exit code, once it has ended by itself.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn exit_code(&mut self) -> Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(|status| status.code().unwrap_or(-1)))
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It is gone already when this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
