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

/// Tries to start a server.
const STARTS_MAX: usize = 3;
/// How long a server may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a server may take to catch up with the others.
const WHOLE_TIME_MAX: Duration = Duration::from_secs(60);

/// A server with JetStream, on a free port of this machine.
pub struct NatsServer {
    child: Child,
    port: u16,
    /// Port of its monitoring.
    monitor: u16,
    arguments: Vec<OsString>,
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
        // A port that was free may be somebody's by now.
        for _ in 0..STARTS_MAX - 1 {
            if let Ok(server) = Self::start_with(store, free_port()?, &[]) {
                return Ok(server);
            }
        }
        Self::start_with(store, free_port()?, &[])
    }

    /// Starts a server on a port, with more arguments.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_with(store: &Path, port: u16, arguments: &[&str]) -> Result<Self> {
        let mut all: Vec<OsString> = ["--addr", "127.0.0.1", "--jetstream", "--port"].map(OsString::from).into();
        let monitor = free_port()?;
        all.extend([port.to_string().into(), "--store_dir".into(), store.into()]);
        all.extend(["--http_port".into(), monitor.to_string().into()]);
        all.extend(arguments.iter().map(OsString::from));
        let mut server = Self { child: spawn_server(&all)?, port, monitor, arguments: all };
        server.wait_until_it_listens()?;
        Ok(server)
    }

    /// Three servers that are one cluster.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start_cluster(folder: &Path) -> Result<[Self; 3]> {
        let routes = [free_port()?, free_port()?, free_port()?];
        let all = routes.map(|port| format!("nats://127.0.0.1:{port}"));
        let start = |at: usize| {
            let name = format!("server-{at}");
            let arguments =
                ["--server_name", &name, "--cluster_name", "c", "--cluster", &all[at], "--routes", &all.join(",")];
            Self::start_with(&folder.join(&name), free_port()?, &arguments)
        };
        let servers = [start(0)?, start(1)?, start(2)?];
        servers.iter().try_for_each(Self::wait_until_whole)?;
        Ok(servers)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where its monitoring is.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Waits until it has all that the other servers of its cluster have.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_until_whole(&self) -> Result<()> {
        let started = Instant::now();
        while ureq::get(format!("{}/healthz", self.monitor_url())).call().is_err() {
            if started.elapsed() > WHOLE_TIME_MAX {
                bail!("nats-server {} does not catch up with its cluster", self.port);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Kills it with -9 and starts it again on what it has stored.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kill_and_restart(&mut self, pause: Duration) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        thread::sleep(pause);
        self.child = spawn_server(&self.arguments)?;
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

/// A port that nobody listens on at present.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn spawn_server(arguments: &[OsString]) -> Result<Child> {
    let mut server = Command::new("nats-server");
    server.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
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
