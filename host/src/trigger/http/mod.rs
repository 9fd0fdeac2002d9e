//! The HTTP interface of a pipeline: call a stage, send events, read tables, watch subjects, see how it is.
//!
//! `openapi.json` describes it; a test holds the two together. Errors are problem documents. Nothing here waits without
//! a limit, and nothing here knows what is in an event.

mod admin;
mod admit;
mod events;
mod openapi;
mod problem;
mod serve;
mod stages;
mod status;
mod store;
mod subjects;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, pin::Pin, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{get, post, put},
};
use tokio::sync::watch;

use self::{
    admin::UploadRoom,
    admit::BodyRoom,
    problem::{Problem, What},
    store::Reader,
};
pub use tapeline_invoke::AdminToken;

pub use self::{
    admin::{Admin, TOKEN_VARIABLE, token_of_environment},
    admit::BODY_BYTES_MAX,
    serve::serve,
};
use crate::{
    metrics::{InvocationMetrics, Metrics},
    pipeline::{Hub, Ingest, IngestError, Invoker, Rollout},
    runtime::COMPONENT_BYTES_MAX,
    store::JournalRecord,
};

/// Takes records that came by HTTP into a pipeline.
pub trait Intake: Send + Sync {
    /// Stores records; gives the number of the last one once it is durable.
    fn append(&self, records: Vec<JournalRecord>) -> Appending<'_>;
}

/// Records on their way into the journal.
pub type Appending<'a> = Pin<Box<dyn Future<Output = Result<u64, IngestError>> + Send + 'a>>;

impl Intake for Ingest {
    fn append(&self, records: Vec<JournalRecord>) -> Appending<'_> {
        Box::pin(Self::append(self, records))
    }
}

/// Takes nothing: the first stage of the pipeline runs on another host.
pub struct Elsewhere;

impl Intake for Elsewhere {
    fn append(&self, _: Vec<JournalRecord>) -> Appending<'_> {
        Box::pin(async { Err(IngestError::Elsewhere) })
    }
}

/// How a pipeline is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not ready: it has not caught up, stops, or has failed. `None` when it is.
    pub not_ready: Option<String>,
    /// Journal records that wait to be processed.
    pub waiting: u64,
}

/// What the interface is about.
pub struct ApiParts {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Calls each of its stages, in the order of the data.
    pub invokers: Vec<Invoker>,
    /// Takes events.
    pub intake: Box<dyn Intake>,
    /// The subjects that can be watched.
    pub hub: Hub,
    /// The data folder.
    pub folder: PathBuf,
    /// The stack on AWS that has the tables, where they are not in the folder.
    pub stack: Option<String>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Says how the pipeline is. Called for each question; must not wait.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// Which versions of its stages run.
    pub rollout: Option<Rollout>,
    /// Who may change that; nobody may when absent.
    pub admin: Option<Admin>,
}

/// The interface of one pipeline.
pub struct Api {
    pipeline: String,
    stages: BTreeMap<String, Stage>,
    intake: Box<dyn Intake>,
    hub: Hub,
    reader: Reader,
    metrics: Metrics,
    readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    body_room: BodyRoom,
    upload_room: UploadRoom,
    rollout: Option<Rollout>,
    admin: Option<Admin>,
    folder: PathBuf,
    /// Says when answers without an end must end.
    stopping: watch::Sender<bool>,
}

struct Stage {
    invoker: Invoker,
    metrics: InvocationMetrics,
}

impl Api {
    /// An interface to these parts.
    pub fn new(parts: ApiParts) -> Self {
        let stage = |invoker: Invoker| {
            let metrics = parts.metrics.invocations(invoker.name());
            (invoker.name().to_owned(), Stage { invoker, metrics })
        };
        Self {
            stages: parts.invokers.into_iter().map(stage).collect(),
            pipeline: parts.pipeline,
            intake: parts.intake,
            hub: parts.hub,
            reader: Reader::new(parts.folder.clone(), parts.stack),
            folder: parts.folder,
            upload_room: UploadRoom::default(),
            rollout: parts.rollout,
            admin: parts.admin,
            metrics: parts.metrics,
            readiness: parts.readiness,
            body_room: BodyRoom::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Ends answers that have no end of their own.
    fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// The routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(status::page))
        .route("/stages", get(admin::list))
        .route("/stages/{stage}", get(admin::show))
        .route("/stages/{stage}/invoke", post(stages::invoke))
        .route("/stages/{stage}/component", put(admin::push).layer(DefaultBodyLimit::max(COMPONENT_BYTES_MAX as usize)))
        .route("/stages/{stage}/approve", post(admin::approve))
        .route("/stages/{stage}/promote", post(admin::promote))
        .route("/stages/{stage}/discard", post(admin::discard))
        .route("/stages/{stage}/rollback", post(admin::roll_back))
        .route("/stages/{stage}/prune", post(admin::prune))
        .route("/pipelines/{name}/events", post(events::append))
        .route("/tables", get(tables::list))
        .route("/tables/{table}", get(tables::query))
        .route("/subjects/{subject}", get(subjects::watch))
        .route("/ledger", get(store::ledger))
        .route("/dead-letters", get(store::dead_letters))
        .route("/dead-letters/redrive", post(admin::redrive))
        .route("/healthz", get(status::health))
        .route("/readyz", get(status::readiness))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::document))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(problem::complete))
        .with_state(api)
}

async fn unknown_route(uri: Uri) -> Problem {
    Problem::new(What::UnknownRoute, format!("there is no {}; /openapi.json says what there is", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(What::WrongMethod, tapeline_invoke::admit::wrong_method(uri.path(), method.as_str()))
}
