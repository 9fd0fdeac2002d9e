//! An application: its components compiled once, to be started as often as a test likes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{self, Poll};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use http::{Request, Response};
use wasmtime::component::{GuestTaskId, Linker};
use wasmtime::{Config, Engine, OptLevel, Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    HandlerState, Instance, ProxyHandler, ProxyPre, ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use crate::compose::compose;
use crate::host::{Grants, Host, Neighbours};
use crate::key_value::KeyValue;
use crate::manifest::{Component, Manifest, Template, Trigger};
use crate::server::{SpinServer, failed};

/// A manifest's components, composed and compiled.
pub struct SpinApp {
    manifest: Manifest,
    engine: Engine,
    compiled: BTreeMap<String, ServicePre<Host>>,
}

/// How long an instance of a component is kept, and by how many requests it is used at a time.
///
/// When all instances have as much to do as they may, there is another one. A trap ends the instance at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// After so many requests there is a fresh one.
    pub requests: usize,
    /// So many requests may be under way in it. With more than one, a component is entered again while it waits.
    pub at_once: usize,
}

impl Reuse {
    /// A fresh instance for each request.
    pub const FRESH: Self = Self { requests: 1, at_once: 1 };

    /// What Spin does without settings.
    pub const SPIN: Self = Self { requests: 128, at_once: 16 };

    /// One instance for so many requests, one after the other.
    #[must_use]
    pub const fn kept_for(requests: usize) -> Self {
        Self { requests, at_once: 1 }
    }
}

impl SpinApp {
    /// Composes and compiles each component that a trigger names. Seconds for a component, in a test that is not
    /// optimised tens of them.
    ///
    /// # Errors
    /// When a component cannot be composed, imports what Spin does not have, or does not export
    /// `wasi:http/handler@0.3.0`.
    pub fn compile(manifest: Manifest) -> Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        // A test compiles more than it computes.
        config.cranelift_opt_level(OptLevel::None);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        Host::add_to_linker(&mut linker)?;
        let compile = |(id, component): (&str, &Component)| {
            let place = || format!("[component.{id}]");
            let composed = compose(id, component).with_context(place)?;
            let compiled = wasmtime::component::Component::new(&engine, composed);
            let compiled = compiled.and_then(|component| ServicePre::new(linker.instantiate_pre(&component)?));
            Ok((id.to_owned(), compiled.map_err(anyhow::Error::from).with_context(place)?))
        };
        let compiled = manifest.triggered().map(compile).collect::<Result<_>>()?;
        Ok(Self { manifest, engine, compiled })
    }

    /// Serves the application on a free port of 127.0.0.1, until what it gives is dropped.
    ///
    /// # Errors
    /// When a required variable has no value, a value is given to an unknown one, a component asks for a key-value label
    /// that is not there, or an outbound host is none once its variables are filled in.
    pub fn start(&self, variables: &BTreeMap<String, String>, store: &KeyValue, reuse: Reuse) -> Result<SpinServer> {
        let values = self.manifest.values(variables)?;
        let mut granted = BTreeMap::new();
        for (id, component) in self.manifest.triggered() {
            let grants = grants(component, &values, store).with_context(|| format!("[component.{id}]"))?;
            granted.insert(id, Arc::new(grants));
        }
        SpinServer::start(Arc::new_cyclic(|running| self.run(granted, reuse, running)))
    }

    fn run(&self, granted: BTreeMap<&str, Arc<Grants>>, reuse: Reuse, running: &Weak<Running>) -> Running {
        let neighbours: Arc<dyn Neighbours> = Arc::new(Application(running.clone()));
        let stopping = Arc::new(AtomicBool::new(false));
        let service = |(id, grants): (&str, Arc<Grants>)| {
            let service = Service {
                id: id.to_owned(),
                engine: self.engine.clone(),
                pre: ProxyPre::P3(self.compiled.get(id)?.clone()),
                grants,
                neighbours: Arc::clone(&neighbours),
                reuse,
                made: AtomicUsize::new(0),
                stopping: Arc::clone(&stopping),
            };
            Some((id.to_owned(), ProxyHandler::new(service)))
        };
        let services = granted.into_iter().filter_map(service).collect();
        Running { triggers: self.manifest.triggers().to_vec(), services, stopping }
    }
}

fn grants(component: &Component, values: &BTreeMap<String, String>, store: &KeyValue) -> Result<Grants> {
    let labels = store.labels();
    if let Some(unknown) = component.key_value_labels.iter().find(|label| !labels.contains(label)) {
        let there = labels.join(", ");
        bail!("key_value_stores: no store is set up for the label `{unknown}`, expected one of {there}");
    }
    let host = |template: &Template| template.fill(values).parse().context("allowed_outbound_hosts");
    Ok(Grants {
        variables: component.variables.iter().map(|(name, text)| (name.clone(), text.fill(values))).collect(),
        labels: component.key_value_labels.clone(),
        hosts: component.outbound_hosts.iter().map(host).collect::<Result<_>>()?,
        key_value: store.clone(),
    })
}

/// An application that takes requests.
pub(crate) struct Running {
    triggers: Vec<Trigger>,
    services: BTreeMap<String, ProxyHandler<Service>>,
    stopping: Arc<AtomicBool>,
}

impl Running {
    /// Says that instances end from now on because the server does.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Finds the trigger that answers a path.
    pub(crate) fn route(&self, path: &str) -> Option<&Trigger> {
        let fit = |trigger: &&Trigger| trigger.route.as_ref().and_then(|route| route.fit(path));
        self.triggers.iter().filter(|trigger| fit(trigger).is_some()).max_by_key(fit)
    }

    /// Has a component answer.
    ///
    /// # Errors
    /// When there is none of this name, it traps, or its answer is an error code.
    pub(crate) async fn handle(&self, component: &str, request: Request<WasiBody>) -> Result<Response<WasiBody>> {
        let service = self.services.get(component).with_context(|| format!("there is no component `{component}`"))?;
        Ok(service.handle((), request).await?)
    }

    /// How many instances of a component were made.
    pub(crate) fn instances(&self, component: &str) -> Option<usize> {
        Some(self.services.get(component)?.state().made.load(Ordering::Relaxed))
    }
}

/// What components see of the application that they are part of.
struct Application(Weak<Running>);

impl Neighbours for Application {
    fn ask(
        &self,
        component: &str,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Result<Response<WasiBody>, Error>> {
        let running = self.0.upgrade().filter(|running| running.services.contains_key(component));
        let Some(running) = running else {
            return future::ready(Err(Error::DestinationNotFound)).boxed();
        };
        let component = component.to_owned();
        // Spin answers with a 500 here too, so that the caller does not see how its neighbour ended.
        async move { Ok(running.handle(&component, request).await.unwrap_or_else(|_| failed())) }.boxed()
    }
}

/// A component that takes requests.
struct Service {
    id: String,
    engine: Engine,
    pre: ProxyPre<Host>,
    grants: Arc<Grants>,
    neighbours: Arc<dyn Neighbours>,
    reuse: Reuse,
    made: AtomicUsize,
    stopping: Arc<AtomicBool>,
}

impl HandlerState for Service {
    type StoreData = Host;
    type WorkerExpiration = Lasting;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Lasting, Worker>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let host = Host::new(Arc::clone(&self.grants), Arc::clone(&self.neighbours));
        let mut store = Store::new(&self.engine, host);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        let state = Worker { id: self.id.clone(), reuse: self.reuse, stopping: Arc::clone(&self.stopping) };
        Ok(Instance { store, proxy, view: Host::http, expiration: Lasting, state })
    }
}

/// An instance lasts until it has had its requests, or the server stops.
struct Lasting;

impl WorkerExpiration for Lasting {
    fn poll(self: Pin<&mut Self>, _: &mut task::Context<'_>, _: WorkerStatus, _: Instant) -> Poll<()> {
        Poll::Pending
    }
}

/// Decides which requests an instance takes.
struct Worker {
    id: String,
    reuse: Reuse,
    stopping: Arc<AtomicBool>,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = ();

    fn should_accept_request(&self, under_way: usize, taken: usize) -> ShouldAccept {
        if taken >= self.reuse.requests {
            ShouldAccept::Never
        } else if under_way >= self.reuse.at_once {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _: StoreContextMut<'_, Host>,
        (): (),
        _: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        Box::pin(future::pending())
    }

    fn drop(&self, _: Store<Host>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result
            && !self.stopping.load(Ordering::Relaxed)
        {
            eprintln!("the component {} ended: {error:?}", self.id);
        }
    }
}
