//! `tapeline up`: runs a pipeline until it is told to stop.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use tokio::{net::TcpListener, sync::oneshot, task};

use super::{DataFolder, Globals, chained::Chained, exit::Exit, output};
use crate::{
    error::{Context as _, Error, Kind, Result},
    metrics::Metrics,
    pipeline::{Chain, Components, Invoker, Live, LiveOptions, spec::Pipeline},
    store::{SqliteStore, StateStore as _},
    trigger::http::{Api, ApiParts, Readiness, serve},
};

/// The file in the data folder that says where the pipeline can be reached.
pub(super) const ADDRESS_FILE: &str = "address";
/// How often it is looked whether the pipeline has failed.
const LOOK: Duration = Duration::from_millis(200);

/// Run a pipeline with its source and HTTP until Ctrl-C
#[derive(Args)]
#[command(after_help = "\
Writes the address of the status page to standard output and into DIR/address. Ctrl-C or SIGTERM finishes what was taken
and stops. A second one stops at once, with exit code 1; what was not finished is taken up by the next `up` or `run`.

Examples:
  tapeline up pipelines/bitcoin-trades.toml
  tapeline up pipelines/stock-alarm.toml --listen 0.0.0.0:7070 --data /srv/stocks
  tapeline up pipelines/bitcoin-trades.toml --no-source --listen 127.0.0.1:0
  tapeline up pipelines/bitcoin-trades.toml --nats nats://broker:4222 --stages dedup,enrich,aggregate,alarm")]
pub(super) struct Up {
    /// The pipeline file
    pipeline: PathBuf,
    /// Where HTTP is served; port 0 is any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    #[command(flatten)]
    data: DataFolder,
    /// Do not start the pipeline's source: take only what comes by HTTP
    #[arg(long)]
    no_source: bool,
    #[command(flatten)]
    chained: Chained,
}

/// The pipeline until it is drained.
type Running = Arc<Mutex<Option<Live>>>;

impl Up {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let pipeline = Pipeline::load(&self.pipeline)?;
        let components = globals.load_components(&pipeline)?;
        let chained = self.chained.connect(&self.data.path)?;
        let (broker, _server) = chained.map_or((None, None), |(broker, server)| (Some(broker), server));
        let chain = broker.map(|broker| Chain::new(pipeline.clone(), components.clone(), broker)).transpose()?;
        if let Some(chain) = &chain
            && !self.chained.has_ends(&pipeline)?
        {
            return self.work(chain);
        }
        let store = SqliteStore::open(&self.data.path)?;
        let runtime = tokio::runtime::Runtime::new().doing(|| "start threads".to_owned())?;
        let exit = runtime.block_on(self.serve(pipeline, components, store, chain));
        // Whoever has asked twice does not wait for what is under way.
        runtime.shutdown_background();
        exit
    }

    /// Runs stages between the first and the last for a pipeline whose ends are on another host.
    fn work(&self, chain: &Chain) -> Result<Exit> {
        let workers = chain.start(&self.chained.stages)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut out = output::lock();
        writeln!(out, "working on {}", self.chained.stages.join(", "))?;
        out.flush()?;
        drop(out);
        runtime.block_on(async {
            let mut signals = Signals::new()?;
            tokio::select! {
                () = signals.next() => {}
                () = stopped(chain) => {}
            }
            Ok::<_, Error>(())
        })?;
        workers.stop().map(|()| Exit::Fine)
    }

    async fn serve(
        &self,
        pipeline: Pipeline,
        components: Components,
        store: SqliteStore,
        chain: Option<Chain>,
    ) -> Result<Exit> {
        let mut signals = Signals::new()?;
        let listener = TcpListener::bind(self.listen).await.doing(|| format!("listen on {}", self.listen))?;
        let address = page_address(listener.local_addr()?);
        // A chain waits for its broker.
        let (running, api) = task::block_in_place(|| self.start(pipeline, components, store, chain))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, Arc::new(api), async {
            // A sender that is gone says the same.
            let _ = stopped.await;
        }));
        let _file = AddressFile::write(&self.data.path, &address)?;
        announce(&address)?;
        tokio::select! {
            () = signals.next() => tracing::info!("stopping"),
            () = failed(&running) => {}
        }
        let exit = tokio::select! {
            drained = drain(&running) => drained.map(|()| Exit::Fine),
            () = signals.next() => return Ok(Exit::Failed),
        };
        // Only now, so that whoever watches has seen the last events.
        drop(stop);
        tokio::select! {
            _ = server => exit,
            () = signals.next() => exit,
        }
    }

    fn start(
        &self,
        pipeline: Pipeline,
        components: Components,
        store: SqliteStore,
        chain: Option<Chain>,
    ) -> Result<(Running, Api)> {
        let metrics = Metrics::new();
        metrics.start_at(store.progress()?.watermark);
        let name = pipeline.name.clone();
        let invokers = components.stages.iter().cloned().map(Invoker::new).collect();
        let live = Live::start(LiveOptions {
            pipeline,
            components,
            data: self.data.path.clone(),
            store,
            observer: Box::new(metrics.clone()),
            with_source: !self.no_source,
            chain: chain.map(|chain| (chain, self.chained.stages.clone())),
        })?;
        let (intake, hub) = (Box::new(live.ingest()), live.hub());
        let running: Running = Arc::new(Mutex::new(Some(live)));
        let readiness = {
            let running = Arc::clone(&running);
            Box::new(move || readiness(&running))
        };
        let folder = self.data.path.clone();
        let api = Api::new(ApiParts { pipeline: name, invokers, intake, hub, folder, metrics, readiness });
        Ok((running, api))
    }
}

fn readiness(running: &Running) -> Readiness {
    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(live) = &*running else {
        return Readiness { not_ready: Some("the pipeline stops".to_owned()), waiting: 0 };
    };
    let not_ready = match live.stopped() {
        Some(Some(error)) => Some(format!("the pipeline has failed to {error}")),
        Some(None) => Some("the pipeline stops".to_owned()),
        None if live.is_ready() => None,
        None => Some("the pipeline has not caught up with its journal yet".to_owned()),
    };
    Readiness { not_ready, waiting: live.waiting() }
}

/// Is done when the pipeline has stopped by itself, which it does only when it fails.
async fn failed(running: &Running) {
    let is_stopped = || {
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_none_or(|live| live.stopped().is_some())
    };
    while !is_stopped() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Is done when a worker has failed.
async fn stopped(chain: &Chain) {
    while !chain.is_stopping() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Lets the pipeline finish what it has taken.
async fn drain(running: &Running) -> Result<()> {
    let live = running.lock().unwrap_or_else(PoisonError::into_inner).take();
    let drained = task::spawn_blocking(|| live.map_or(Ok(()), Live::drain)).await;
    drained.map_err(|error| Error::caused(Kind::Internal, "finish what was taken", error))?
}

/// The address of the page, as somebody on this machine can use it.
fn page_address(mut bound: SocketAddr) -> String {
    if bound.ip().is_unspecified() {
        bound.set_ip(if bound.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{bound}")
}

fn announce(address: &str) -> Result<()> {
    let mut out = output::lock();
    writeln!(out, "listening on {address}")?;
    Ok(out.flush()?)
}

/// Says in the data folder where the pipeline can be reached, as long as it can.
struct AddressFile(PathBuf);

impl AddressFile {
    fn write(data: &Path, address: &str) -> Result<Self> {
        let path = data.join(ADDRESS_FILE);
        fs::write(&path, format!("{address}\n")).doing(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // If it stays, whoever uses it finds nobody there.
        let _ = fs::remove_file(&self.0);
    }
}

/// What asks a program to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Is done when the program has been asked once more.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    const fn new() -> Result<Self> {
        Ok(Self {})
    }

    /// Is done when the program has been asked once more.
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_be_used_from_this_machine() {
        let page = |text: &str| page_address(text.parse().unwrap());
        assert_eq!(page("127.0.0.1:7070"), "http://127.0.0.1:7070");
        assert_eq!(page("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(page("[::]:80"), "http://[::1]:80");
    }

    #[test]
    fn an_address_is_there_as_long_as_it_is_of_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADDRESS_FILE);
        let file = AddressFile::write(folder.path(), "http://127.0.0.1:7070").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "http://127.0.0.1:7070\n");
        drop(file);
        assert!(!path.exists());
    }
}
