//! The registry of a chain on its broker: a key-value bucket of documents, an object store of components.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_nats::jetstream::{
    kv::{self, UpdateErrorKind},
    object_store::{self, ObjectStore},
    stream::StorageType,
};
use futures_util::StreamExt as _;
use tokio::{io::AsyncReadExt as _, task::JoinHandle};

use super::{ANSWER_TIME_MAX, Broker, unavailable};
use crate::{
    error::{Context as _, Error, Kind, Result},
    registry::{Deployment, Registry, Revised},
    runtime::{COMPONENT_BYTES_MAX, digest},
};

/// Bytes of all documents: a deployment has some hundred kilobytes at most.
const DOCUMENTS_BYTES_MAX: i64 = 64 << 20;
/// Bytes of a document.
const DOCUMENT_BYTES_MAX: i32 = 900_000;
/// How long a component may take to come or to be stored: 64 MiB in it are 2 MiB a second.
const TRANSFER_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Deployments and components of a pipeline, for all its hosts.
pub struct NatsRegistry {
    broker: Broker,
    documents: kv::Store,
    components: ObjectStore,
    has_news: Arc<AtomicBool>,
    watching: JoinHandle<()>,
}

impl NatsRegistry {
    /// The registry of a pipeline; made when it is not there.
    ///
    /// # Errors
    /// When the broker refuses it.
    pub fn open(broker: &Broker, pipeline: &str, replicas: usize, components_bytes_max: i64) -> Result<Self> {
        let bucket = format!("tapeline_{pipeline}");
        let documents = kv::Config {
            bucket: bucket.clone(),
            max_value_size: DOCUMENT_BYTES_MAX,
            max_bytes: DOCUMENTS_BYTES_MAX,
            history: 1,
            storage: StorageType::File,
            num_replicas: replicas,
            ..kv::Config::default()
        };
        let components = object_store::Config {
            bucket: format!("{bucket}_components"),
            max_bytes: components_bytes_max,
            storage: StorageType::File,
            num_replicas: replicas,
            ..object_store::Config::default()
        };
        let made = broker.wait(async {
            let documents = broker.jetstream.create_key_value(documents).await?;
            let components = broker.jetstream.create_object_store(components).await?;
            // What is published is told at once to whoever listens; what is missed is looked for now and then.
            let news = broker.client().subscribe(format!("$KV.{}.deployment.>", documents.name)).await?;
            Ok::<_, async_nats::Error>((documents, components, news))
        });
        let (documents, components, mut news) =
            made.map_err(|error| unavailable(format!("make the registry {bucket}"), error))?;
        let has_news = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&has_news);
        let watching = broker.spawn(async move {
            while news.next().await.is_some() {
                noted.store(true, Ordering::Release);
            }
        });
        Ok(Self { broker: broker.clone(), documents, components, has_news, watching })
    }

    /// Waits for an answer, not for ever.
    fn ask<T, E: Into<async_nats::Error>>(
        &self,
        what: impl Fn() -> String,
        limit: std::time::Duration,
        question: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T> {
        let answer = self.broker.wait(async { tokio::time::timeout(limit, question).await });
        answer.map_err(|late| unavailable(what(), late))?.map_err(|error| unavailable(what(), error.into()))
    }
}

impl Drop for NatsRegistry {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Whether a document is not larger than the broker takes.
fn check_size(document: &[u8]) -> Result<()> {
    let (found, most) = (document.len(), DOCUMENT_BYTES_MAX);
    if found <= most as usize {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "keep a document of {found} bytes, {most} at most; `tapeline stage prune` makes it smaller"
    )))
}

/// The key of a document. Neither stages nor hosts have a dot in their name.
fn deployment_key(stage: &str) -> String {
    format!("deployment.{stage}")
}

/// A worker as part of a key.
fn worker_key(worker: &str) -> String {
    worker.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' }).collect()
}

impl Registry for NatsRegistry {
    fn deployment(&self, stage: &str) -> Result<Option<Revised<Deployment>>> {
        let place = || format!("read the deployment of stage {stage}");
        let entry = self.ask(place, ANSWER_TIME_MAX, self.documents.entry(deployment_key(stage)))?;
        let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else { return Ok(None) };
        let document =
            serde_json::from_slice(&entry.value).map_err(|error| Error::caused(Kind::Corrupt, place(), error))?;
        Ok(Some((entry.revision, document)))
    }

    fn put_deployment(&self, stage: &str, revision: u64, deployment: &Deployment) -> Result<u64> {
        let place = || format!("change the deployment of stage {stage}");
        let document = serde_json::to_vec(deployment).map_err(|error| Error::caused(Kind::Internal, place(), error))?;
        check_size(&document).doing(place)?;
        let put = self.documents.update(deployment_key(stage), document.into(), revision);
        let put = self.broker.wait(async { tokio::time::timeout(ANSWER_TIME_MAX, put).await });
        match put.map_err(|late| unavailable(place(), late))? {
            Ok(revision) => Ok(revision),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                Err(Error::caused(Kind::Conflict, format!("{}: it has changed", place()), error))
            }
            Err(error) => Err(unavailable(place(), error)),
        }
    }

    fn put_component(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let place = || format!("keep component {digest}");
        // A get would make a consumer.
        let known =
            self.broker.wait(async { tokio::time::timeout(ANSWER_TIME_MAX, self.components.info(digest)).await });
        if matches!(known, Ok(Ok(info)) if !info.deleted && info.size == bytes.len()) {
            return Ok(());
        }
        let mut bytes = bytes;
        self.ask(place, TRANSFER_TIME_MAX, self.components.put(digest, &mut bytes)).map(drop)
    }

    fn component(&self, wanted: &str) -> Result<Vec<u8>> {
        let place = || format!("read component {wanted}");
        let read = async {
            let object = match self.components.get(wanted).await {
                Ok(object) => object,
                Err(error) if error.kind() == object_store::GetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(async_nats::Error::from(error)),
            };
            let mut bytes = Vec::new();
            object.take(COMPONENT_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
            Ok(Some(bytes))
        };
        let bytes = self.ask(place, TRANSFER_TIME_MAX, read)?;
        let bytes = bytes.ok_or_else(|| Error::not_found(format!("{}: it is not kept", place())))?;
        if digest(&bytes) != wanted {
            return Err(Error::new(Kind::Corrupt, format!("{}: its bytes have changed", place())));
        }
        Ok(bytes)
    }

    fn remove_component(&self, digest: &str) -> Result<()> {
        let place = || format!("remove component {digest}");
        let remove = async {
            match self.components.delete(digest).await {
                Err(error) if error.kind() != object_store::DeleteErrorKind::NotFound => {
                    Err(async_nats::Error::from(error))
                }
                _ => Ok(()),
            }
        };
        self.ask(place, ANSWER_TIME_MAX, remove)
    }

    fn put_report(&self, stage: &str, worker: &str, report: &str) -> Result<()> {
        let place = || format!("keep the report of {worker} on stage {stage}");
        let key = format!("report.{stage}.{}", worker_key(worker));
        let document =
            serde_json::to_vec(&(worker, report)).map_err(|error| Error::caused(Kind::Internal, place(), error))?;
        check_size(&document).doing(place)?;
        self.ask(place, ANSWER_TIME_MAX, self.documents.put(key, document.into())).map(drop)
    }

    fn reports(&self, stage: &str) -> Result<Vec<(String, String)>> {
        let place = || format!("read the reports on stage {stage}");
        let prefix = format!("report.{stage}.");
        let read = async {
            let mut reports = Vec::new();
            // Asked of the stream: to list keys the client would make a consumer each time, of which there is a limit.
            let subjects = format!("{}{prefix}>", self.documents.prefix);
            let mut subjects = self.documents.stream.info_with_subjects(subjects).await?;
            while let Some(subject) = subjects.next().await {
                let subject = subject?.0;
                let key = subject.strip_prefix(&self.documents.prefix).unwrap_or_default();
                if let Some(document) = self.documents.get(key).await? {
                    reports.push(serde_json::from_slice::<(String, String)>(&document)?);
                }
            }
            Ok::<_, async_nats::Error>(reports)
        };
        let mut reports = self.ask(place, ANSWER_TIME_MAX, read)?;
        reports.sort();
        Ok(reports)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn has_news(&self) -> bool {
        self.has_news.swap(false, Ordering::AcqRel)
    }
}
