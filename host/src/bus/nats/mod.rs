//! NATS JetStream: streams, state and position, and ordered reading.

mod batch;
mod committer;
mod dead_letters;
mod doctor;
mod entries;
mod follow;
mod inbox;
mod members;
mod position;
mod registry;
mod state;

use std::{collections::HashMap, future::Future, path::Path, sync::Arc, time::Duration};

use async_nats::{
    ServerAddr,
    jetstream::{
        self,
        consumer::{AckPolicy, PriorityPolicy, PullConsumer, pull},
        stream::{self, DiscardPolicy, RetentionPolicy, Stream},
    },
};
use tokio::{runtime::Runtime, task::JoinHandle};

pub use self::{
    dead_letters::DeadLetterStream,
    doctor::{Examination, Finding, MAX_PAYLOAD_MIN, VERSION_MIN, Verdict},
    follow::{Followed, Follower},
    inbox::{Inbox, Received},
    members::Members,
    registry::NatsRegistry,
    state::{NatsState, Outputs},
};
use crate::{
    bus::{TRACEPARENT, TraceContext},
    error::{Error, Kind, Result},
};

/// How long the first connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// After so long without a sign of life the broker gives a message to another reader. Readers give one every second.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// After so long without a pull the broker lets another reader take a partition over.
const PIN_TIME: Duration = Duration::from_millis(1_500);
/// How long the broker may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Where a stream says for how many partitions it was made.
const PARTITIONS: &str = "tapeline-partitions";
/// Times that this is noted while others change the stream.
const CLAIMS_MAX: usize = 8;
/// Where what is read of a stream is written.
const TABLES: &str = "tapeline-tables";
/// The one priority group of a consumer.
const GROUP: &str = "owner";
/// Messages that a reader may have and has not finished. Each is at most [`MESSAGE_BYTES_MAX`].
const UNFINISHED_MAX: i64 = 64;
/// Messages that a subscription holds, each at most [`MESSAGE_BYTES_MAX`]; readers pull fewer, and a follower that is
/// too slow misses some.
const SUBSCRIPTION_MESSAGES_MAX: usize = 256;
/// Bytes of the stream of dead letters.
/// What a server says that cannot set aside what a stream may hold (`JSStorageResourcesExceededErr`).
const NO_ROOM_TO_SET_ASIDE: &str = "error code 10047";
const DEAD_LETTERS_BYTES_MAX: i64 = dead_letters::BYTES_MAX;
/// Bytes of a message; brokers take 1 MiB unless told otherwise, headers included.
pub(crate) const MESSAGE_BYTES_MAX: usize = 900_000;

/// A connection to a broker. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Broker {
    runtime: Arc<Runtime>,
    jetstream: jetstream::Context,
}

/// How streams are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Into how many parts symbols are divided. Kept with the stream, since it must not change.
    pub partitions: u32,
    /// Copies of a stream, on as many servers.
    pub replicas: usize,
    /// Bytes of a stream. One that is full takes nothing more until it is read.
    pub bytes_max: i64,
}

/// What a segment of a pipeline gives out, to the one behind it.
#[derive(Clone, Debug)]
pub struct Hop {
    /// The pipeline.
    pub pipeline: String,
    /// The last stage of the segment.
    pub stage: String,
}

impl Hop {
    /// Name of the stream. Names of pipelines and stages have no `_`.
    pub fn stream(&self) -> String {
        format!("tapeline_{}_{}", self.pipeline, self.stage)
    }

    /// Subject of what is given out to a partition.
    pub fn data(&self, partition: u32) -> String {
        self.name(&partition.to_string())
    }

    /// Subjects of what is given out to all partitions.
    pub fn all(&self) -> String {
        self.name("*")
    }

    /// Subject of a producer's position, whose last message is the present one.
    fn position(&self, producer: &str) -> String {
        self.name(&format!("{producer}.position"))
    }

    /// Subject of a producer's state: a snapshot, and what has changed since.
    fn state(&self, producer: &str) -> String {
        self.name(&format!("{producer}.state"))
    }

    fn subjects(&self) -> Vec<String> {
        vec![self.all(), self.position("*"), self.state("*")]
    }

    fn name(&self, last: &str) -> String {
        format!("{}.{}.{last}", self.pipeline, self.stage)
    }
}

/// What a stream is noted to be, without what the broker notes itself.
fn metadata_of(stream: Stream) -> HashMap<String, String> {
    let ours = |(name, _): &(String, String)| name.starts_with("tapeline-");
    stream.cached_info().config.metadata.clone().into_iter().filter(ours).collect()
}

impl Broker {
    /// Connects to a broker, by its address or those of several servers of its cluster, with commas. The file, if there is one, has the credentials: a JWT and the key that belongs to it.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached; `Invalid` for what is no address, and when the file cannot
    /// be read or holds no credentials.
    pub fn connect(url: &str, credentials: Option<&Path>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let options = async_nats::ConnectOptions::new().name("tapeline").connection_timeout(CONNECT_TIME_MAX);
        let options = options.subscription_capacity(SUBSCRIPTION_MESSAGES_MAX);
        let options = match credentials {
            None => options,
            Some(file) => runtime.block_on(options.credentials_file(file)).map_err(|error| {
                Error::caused(Kind::Invalid, format!("read NATS credentials from {}", file.display()), error)
            })?,
        };
        let addresses: std::result::Result<Vec<ServerAddr>, _> = url.split(',').map(|one| one.trim().parse()).collect();
        // They may hold a password: neither is repeated.
        let addresses = addresses.map_err(|_| {
            Error::invalid(
                "read the address of the NATS server: it is such as nats://broker:4222, or several with commas",
            )
        })?;
        let connecting = options.connect(addresses);
        let client = runtime
            .block_on(connecting)
            .map_err(|error| Error::caused(Kind::Unavailable, "connect to the NATS server", error))?;
        let jetstream = {
            let _inside = runtime.enter();
            jetstream::new(client)
        };
        Ok(Self { runtime: Arc::new(runtime), jetstream })
    }

    /// Makes the stream of a hop, or brings one that is there in order.
    ///
    /// # Errors
    /// `Conflict` when the stream was made for another number of partitions; otherwise when the broker refuses it.
    pub fn ensure(&self, hop: &Hop, settings: StreamSettings) -> Result<()> {
        let partitions = settings.partitions.to_string();
        let mut metadata = self.wait(self.stream(hop)).map_or_else(|_| HashMap::new(), metadata_of);
        if let Some(known) = metadata.get(PARTITIONS)
            && *known != partitions
        {
            let message = format!("divide symbols into {partitions} partitions: stream {} has {known}", hop.stream());
            return Err(Error::new(Kind::Conflict, message));
        }
        metadata.insert(PARTITIONS.to_owned(), partitions);
        let config = stream::Config {
            name: hop.stream(),
            subjects: hop.subjects(),
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            storage: stream::StorageType::File,
            max_bytes: settings.bytes_max,
            num_replicas: settings.replicas,
            allow_atomic_publish: true,
            allow_rollup: true,
            allow_direct: true,
            metadata,
            ..stream::Config::default()
        };
        let made = self.wait(self.jetstream.create_or_update_stream(config));
        made.map(drop).map_err(|error| unavailable(format!("make the stream {}", hop.stream()), error))
    }

    /// Reads a partition of a hop for the stage behind it, once no other reader does.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub fn inbox(&self, hop: &Hop, reader: &str, partition: u32) -> Result<Inbox> {
        let name = format!("{reader}-{partition}");
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: hop.data(partition),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: UNFINISHED_MAX,
            priority_policy: PriorityPolicy::PinnedClient,
            priority_groups: vec![GROUP.to_owned()],
            priority_timeout: PIN_TIME,
            ..pull::Config::default()
        };
        let made = self.wait(async {
            let stream = self.stream(hop).await?;
            let consumer: PullConsumer = stream.create_consumer(config).await?;
            Ok::<_, async_nats::Error>(consumer)
        });
        let consumer = made.map_err(|error| unavailable(format!("make the consumer {name}"), error))?;
        Ok(Inbox::new(self.clone(), consumer))
    }

    /// The client under JetStream.
    fn client(&self) -> async_nats::Client {
        self.jetstream.client()
    }

    /// Notes with the stream of a hop where what is read of it is written, so that nobody writes it elsewhere: what one has
    /// read the other would miss.
    ///
    /// # Errors
    /// `Conflict` when it is written elsewhere; otherwise when the broker refuses it.
    pub fn claim(&self, hop: &Hop, tables: &str) -> Result<()> {
        let failed = |error: async_nats::Error| {
            unavailable(format!("note with stream {} where its tables are", hop.stream()), error)
        };
        // Others may note something at the same time, and the last one stays: it is looked at once more.
        for _ in 0..CLAIMS_MAX {
            let stream = self.wait(self.stream(hop)).map_err(|error| failed(error.into()))?;
            let mut config = stream.cached_info().config.clone();
            config.metadata = metadata_of(stream);
            match config.metadata.get(TABLES) {
                Some(known) if known == tables => return Ok(()),
                Some(known) => {
                    let message = format!("write the tables of this chain into {tables}: they are in {known}");
                    return Err(Error::new(Kind::Conflict, message));
                }
                None => _ = config.metadata.insert(TABLES.to_owned(), tables.to_owned()),
            }
            self.wait(self.jetstream.update_stream(config)).map_err(|error| failed(error.into()))?;
        }
        Err(unavailable(
            format!("note with stream {} where its tables are", hop.stream()),
            "others change it all the time",
        ))
    }

    async fn stream(&self, hop: &Hop) -> std::result::Result<Stream, jetstream::context::GetStreamError> {
        self.jetstream.get_stream(hop.stream()).await
    }

    /// Does what may as well not be heard, such as acknowledging; not for ever, since a client that is not connected
    /// queues only so much.
    fn say(&self, work: impl Future<Output = ()>) {
        // Whoever has not heard asks again.
        let _ = self.wait(async { tokio::time::timeout(ANSWER_TIME_MAX, work).await });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// The trace that a message belongs to, if its headers say.
fn trace_of(headers: Option<&async_nats::HeaderMap>) -> Option<TraceContext> {
    TraceContext::parse(headers?.get(TRACEPARENT)?.as_str())
}

fn unavailable(mut what: String, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    // The client wraps the server's answer differently for streams, buckets and object stores; its text has the code.
    if error.to_string().contains(NO_ROOM_TO_SET_ASIDE) {
        what.push_str(
            ": the server has too little storage left to set aside for it; give JetStream more (max_file_store), or \
             lower nats.stream_mib or swap.components_mib",
        );
    }
    Error::caused(Kind::Unavailable, what, error)
}
