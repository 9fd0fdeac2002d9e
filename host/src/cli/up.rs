//! `tapeline up`: runs a pipeline until it is told to stop.

mod running;
mod signals;

use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use tokio::{net::TcpListener, sync::oneshot, task};

use self::{
    running::{Running, Served},
    signals::Signals,
};
use super::{DataFolder, Globals, aws::AwsProgram, chained::Chained, exit::Exit, output};
use crate::{
    error::{Context as _, Error, Kind, Result},
    metrics::Metrics,
    pipeline::{Chain, LiveOptions, Rollout, Tables, spec::Pipeline},
    store::{AwsSettings, AwsStores, SqliteStore},
    trigger::http::{Api, serve, token_of_environment},
};

/// The file in the data folder that says where the pipeline can be reached.
const ADDRESS_FILE: &str = "address";
/// Where HTTP is served by a host that has the ends of its pipeline.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// Run a pipeline with its source and HTTP until Ctrl-C
#[derive(Args)]
#[command(after_help = "\
Writes the address of the status page to standard output and into DIR/address. Ctrl-C or SIGTERM finishes what was taken
and stops. A second one stops at once, with exit code 1; what was not finished is taken up by the next `up` or `run`.

Examples:
  tapeline up pipelines/bitcoin-trades.toml
  tapeline up pipelines/stock-alarm.toml --listen 0.0.0.0:7070 --data /srv/stocks
  tapeline up pipelines/bitcoin-trades.toml --no-source --listen 127.0.0.1:0
  tapeline up pipelines/bitcoin-trades.toml --nats nats://broker:4222 --stages dedup,enrich,aggregate,alarm
  tapeline up pipelines/bitcoin-trades.toml --nats nats://broker:4222 --aws tapeline-bitcoin-trades --stages write")]
pub(super) struct Up {
    /// The pipeline file
    pipeline: PathBuf,
    /// Where HTTP is served; port 0 is any free one, which is the default for a host of stages between the first and the
    /// last [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    data: DataFolder,
    /// Do not start the pipeline's source: take only what comes by HTTP
    #[arg(long)]
    no_source: bool,
    #[command(flatten)]
    chained: Chained,
    /// Let the last stage write to the tables and the bucket of this stack on AWS, which any number of hosts share; it is
    /// deployed with `functions = false` below [aws]
    #[arg(long, value_name = "STACK", requires = "nats")]
    aws: Option<String>,
}

impl Up {
    pub(super) fn run(self, globals: &Globals) -> Result<Exit> {
        let pipeline = Pipeline::load(&self.pipeline)?;
        let token = token_of_environment()?;
        let engine = globals.engine()?;
        let components = globals.load_components(&engine, &pipeline)?;
        let has_ends = self.chained.has_ends(&pipeline, self.aws.is_some())?;
        let shared = self.aws.as_deref().map(|stack| shared_store(stack, &pipeline)).transpose()?;
        let chained = self.chained.connect(&self.data.path)?;
        let (broker, _server) = chained.map_or((None, None), |(broker, server)| (Some(broker), server));
        let metrics = Metrics::new();
        let folder = &self.data.path;
        // Its lock first, and the registry in it.
        let store = (broker.is_none() || has_ends).then(|| SqliteStore::open(folder)).transpose()?;
        let rollout = match &broker {
            None => Rollout::embedded(&engine, &pipeline, components, folder, &metrics)?,
            Some(broker) => {
                let tables = match &shared {
                    Some(stores) => Tables::Shared(stores.clone()),
                    None if has_ends => Tables::Here(folder.clone()),
                    None => Tables::Elsewhere,
                };
                Rollout::chained(&engine, &pipeline, components, broker, tables, &metrics)?
            }
        };
        let chain = |broker| Chain::new(pipeline.clone(), rollout.clone(), broker, shared, metrics.clone());
        let chain = broker.map(chain).transpose()?;
        let runtime = tokio::runtime::Runtime::new().doing(|| "start threads".to_owned())?;
        let stages = self.chained.stages.clone();
        let exit = match (chain, store) {
            (Some(chain), None) => {
                // Any number of such hosts may be on one machine.
                let listen = self.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                let served = Served { rollout, token, folder: self.data.path.clone(), stack: self.aws, metrics };
                let start = || running::start_work(&pipeline, chain, stages, served);
                runtime.block_on(serve_until_stopped(listen, None, start))
            }
            (None, None) => return Err(Error::new(Kind::Internal, "start: there is neither a store nor a chain")),
            (chain, Some(store)) => {
                let served = Served {
                    rollout: rollout.clone(),
                    token,
                    folder: self.data.path.clone(),
                    stack: self.aws.clone(),
                    metrics: metrics.clone(),
                };
                let options = LiveOptions {
                    store,
                    pipeline,
                    rollout,
                    data: self.data.path.clone(),
                    observer: Box::new(metrics.clone()),
                    with_source: !self.no_source,
                    chain: chain.map(|chain| (chain, stages)),
                };
                let listen = self.listen.unwrap_or(LISTEN);
                let start = || running::start_live(options, served);
                runtime.block_on(serve_until_stopped(listen, Some(&self.data.path), start))
            }
        };
        // Whoever has asked twice does not wait for what is under way.
        runtime.shutdown_background();
        exit
    }
}

/// The store that hosts share, for the last segment of a pipeline.
///
/// # Errors
/// As [`AwsStores::start`]; `NotFound` when the program is not there that keeps it.
fn shared_store(stack: &str, pipeline: &Pipeline) -> Result<AwsStores> {
    let last = pipeline.nats.segments.last().cloned().unwrap_or_default();
    let stages = pipeline.stages.get(last).unwrap_or_default();
    // The token of our host, an address with a password: they are none of its business.
    let ours =
        env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| name.starts_with("TAPELINE_"));
    AwsStores::start(AwsSettings {
        program: AwsProgram::find()?.into_path(),
        stack: stack.to_owned(),
        pipeline: pipeline.name.clone(),
        stages: stages.iter().map(|stage| stage.name.clone()).collect(),
        partitions: pipeline.nats.partitions,
        environment: ours.map(|name| (name, None)).collect(),
    })
}

/// Starts what is to run, and serves it until it is asked to stop or fails. The address is kept in a folder, if one is
/// given.
async fn serve_until_stopped(
    listen: SocketAddr,
    folder: Option<&Path>,
    start: impl FnOnce() -> Result<(Running, Api)>,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(listen).await.doing(|| format!("listen on {listen}"))?;
    let address = page_address(listener.local_addr()?);
    // A chain waits for its broker.
    let (running, api) = task::block_in_place(start)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::new(api), async {
        // A sender that is gone says the same.
        let _ = stopped.await;
    }));
    let _file = folder.map(|folder| AddressFile::write(folder, &address)).transpose()?;
    announce(&address)?;
    tokio::select! {
        () = signals.next() => tracing::info!("stopping"),
        () = running.failed() => {}
    }
    let exit = tokio::select! {
        drained = running.drain() => drained.map(|()| Exit::Fine),
        () = signals.next() => return Ok(Exit::Failed),
    };
    // Only now, so that whoever watches has seen the last events.
    drop(stop);
    tokio::select! {
        _ = server => exit,
        () = signals.next() => exit,
    }
}

/// Where the pipeline that runs on a data folder can be reached.
///
/// # Errors
/// `NotFound` when none runs there.
pub(super) fn address_of(data: &Path) -> Result<String> {
    let path = data.join(ADDRESS_FILE);
    let place = || format!("find a pipeline that runs on {}: start one with tapeline up, or use --at", data.display());
    Ok(fs::read_to_string(path).doing(place)?.trim().to_owned())
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
