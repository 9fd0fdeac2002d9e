//! What a component finds around it: WASI, and Spin's interfaces.

mod key_value;
mod outbound;
mod variables;
mod wasi_keyvalue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::key_value::{KeyValue, Refusal};
use crate::manifest::AllowedHost;
pub(crate) use outbound::{Neighbours, Outbound};

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "tapeline:spin-tests/host",
        imports: { default: trappable },
        with: {
            "spin:key-value/key-value.store": super::OpenStore,
            "wasi:keyvalue/store.bucket": super::OpenStore,
            "wasi:keyvalue/atomics.cas": super::wasi_keyvalue::CompareAndSwap,
        },
    });
}

/// How many stores, and how many swaps, an instance may have open. As many as Spin allows: who forgets to close them is
/// found out here too.
const OPEN_MAX: usize = 256;

/// What the manifest grants a component.
pub(crate) struct Grants {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) hosts: Vec<AllowedHost>,
    pub(crate) key_value: KeyValue,
}

/// What belongs to one instance.
pub(crate) struct Host {
    grants: Arc<Grants>,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
    stores_open: usize,
    swaps_open: usize,
}

/// A store that a component has opened, by either interface.
#[expect(unreachable_pub, reason = "generated code exports it again, inside of this module")]
pub struct OpenStore {
    label: Arc<str>,
}

/// Why a store was not opened.
enum OpenError {
    Denied,
    TableFull,
}

impl Host {
    pub(crate) fn new(grants: Arc<Grants>, neighbours: Arc<dyn Neighbours>) -> Self {
        let outbound = Outbound::new(Arc::clone(&grants), neighbours);
        // What a component that panics has to say is worth more than a tidy output.
        let wasi = WasiCtxBuilder::new().inherit_stderr().build();
        let http = WasiHttpCtx::new();
        Self { grants, table: ResourceTable::new(), wasi, http, outbound, stores_open: 0, swaps_open: 0 }
    }

    /// Makes all interfaces known.
    pub(crate) fn add_to_linker(linker: &mut Linker<Self>) -> wasmtime::Result<()> {
        wasmtime_wasi::p2::add_to_linker_async(linker)?;
        wasmtime_wasi::p3::add_to_linker(linker)?;
        wasmtime_wasi_http::p3::add_to_linker(linker)?;
        generated::Host_::add_to_linker::<_, HasSelf<Self>>(linker, |host| host)
    }

    fn open_store(&mut self, label: &str) -> wasmtime::Result<Result<Resource<OpenStore>, OpenError>> {
        if !self.grants.labels.contains(label) {
            return Ok(Err(OpenError::Denied));
        }
        if self.stores_open == OPEN_MAX {
            return Ok(Err(OpenError::TableFull));
        }
        self.stores_open += 1;
        Ok(Ok(self.table.push(OpenStore { label: label.into() })?))
    }

    fn close_store(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.stores_open -= 1;
        self.table.delete(store)?;
        Ok(())
    }

    /// The stores, and the label that a handle is for.
    fn store(&self, store: &Resource<OpenStore>) -> wasmtime::Result<(&KeyValue, Arc<str>)> {
        Ok((&self.grants.key_value, Arc::clone(&self.table.get(store)?.label)))
    }
}

/// Makes of a refusal an error of an interface, or the end of the instance.
fn refused<T, E>(result: Result<T, Refusal>, error: impl Fn(String) -> E) -> wasmtime::Result<Result<T, E>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Refusal::Error(text)) => Ok(Err(error(text))),
        Err(Refusal::Kill) => Err(wasmtime::format_err!("killed by the test at a write to the key-value store")),
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
