//! The options of commands that may chain a pipeline by NATS, and a server of our own.

use std::path::{Path, PathBuf};

use clap::Args;

use super::local_server::LocalServer;
use crate::{
    bus::nats::Broker,
    error::{Error, Result},
    pipeline::spec::Pipeline,
};

/// What stands for a server of our own.
const LOCAL: &str = "local";
/// Folder of the server's store in the data folder.
const STORE: &str = "nats";

/// How to say to a server who one is.
#[derive(Args)]
pub(super) struct Credentials {
    /// File with the credentials for the NATS server, as `nsc` writes it
    #[arg(long = "nats-creds", value_name = "FILE", env = "TAPELINE_NATS_CREDS")]
    file: Option<PathBuf>,
}

impl Credentials {
    /// A connection to the server at an address.
    ///
    /// # Errors
    /// As [`Broker::connect`].
    pub(super) fn connect(&self, url: &str) -> Result<Broker> {
        Broker::connect(url, self.file.as_deref())
    }
}

/// A server that is asked.
#[derive(Args)]
pub(super) struct Server {
    /// The NATS server
    #[arg(
        long,
        value_name = "URL",
        env = "TAPELINE_NATS",
        hide_env_values = true,
        default_value = "nats://127.0.0.1:4222"
    )]
    nats: String,
    #[command(flatten)]
    credentials: Credentials,
}

impl Server {
    /// A connection to it.
    ///
    /// # Errors
    /// As [`Broker::connect`].
    pub(super) fn connect(&self) -> Result<Broker> {
        self.credentials.connect(&self.nats)
    }
}

/// How a pipeline is chained, if it is.
#[derive(Args)]
pub(super) struct Chained {
    /// Chain the stages by this NATS server, such as nats://127.0.0.1:4222, or by several of a cluster, with commas;
    /// `local` starts one of our own
    #[arg(long, value_name = "URL", env = "TAPELINE_NATS", hide_env_values = true)]
    nats: Option<String>,
    /// Stages to run here; the first and the last one together, or neither, unless hosts share a store [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "nats")]
    pub(super) stages: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
}

impl Chained {
    /// Whether the first stage runs here, and with it the last one, unless hosts share its store: so if no stages are named,
    /// or these are among them.
    ///
    /// # Errors
    /// `NotFound` for a stage that is not there; `Invalid` when only one of the ends is named that belong together, or some
    /// of fused stages.
    pub(super) fn has_ends(&self, pipeline: &Pipeline, is_shared: bool) -> Result<bool> {
        let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
        if let Some(unknown) = self.stages.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(Error::not_found(format!(
                "find stage {unknown:?} of --stages: there are {}",
                names.join(", ")
            )));
        }
        for segment in &pipeline.nats.segments {
            let of_segment = names.get(segment.clone()).unwrap_or_default();
            let is_given = |name: &&&str| self.stages.iter().any(|stage| stage == **name);
            let given = of_segment.iter().filter(is_given).count();
            if given != 0 && given != of_segment.len() {
                let all = of_segment.join(",");
                return Err(Error::invalid(format!(
                    "divide fused stages: --stages names {all} together, or none of them"
                )));
            }
        }
        let is_named = |name: Option<&&str>| name.is_some_and(|name| self.stages.iter().any(|stage| stage == name));
        match (self.stages.is_empty(), is_named(names.first()), is_named(names.last())) {
            (true, ..) | (false, true, true) => Ok(true),
            (false, false, false) => Ok(false),
            (false, has_first, _) if is_shared => Ok(has_first),
            _ => Err(Error::invalid(
                "divide the ends of a chain: the first and the last stage run on one host, unless --aws names a store for all",
            )),
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
                Ok(Some((Broker::connect(&server.url(), None)?, Some(server))))
            }
            Some(url) => Ok(Some((self.credentials.connect(url)?, None))),
        }
    }
}
