//! `spin:key-value`: Spin's own interface of its stores.

use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::generated::spin::key_value::key_value::{self, Error};
use super::{Host, OpenError, OpenStore, refused};

/// Keys as they come, and then whether those were all.
type Keys = (StreamReader<String>, FutureReader<Result<(), Error>>);

impl key_value::Host for Host {}

impl key_value::HostStore for Host {
    fn drop(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.close_store(store)
    }
}

impl<T: 'static> key_value::HostStoreWithStore<T> for HasSelf<Host> {
    async fn open(host: &Accessor<T, Self>, label: String) -> wasmtime::Result<Result<Resource<OpenStore>, Error>> {
        let opened = host.with(|mut host| host.get().open_store(&label))?;
        Ok(opened.map_err(|error| match error {
            OpenError::Denied => Error::AccessDenied,
            OpenError::TableFull => Error::StoreTableFull,
        }))
    }

    async fn get(
        host: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        host.with(|mut host| {
            let (stores, label) = host.get().store(&store)?;
            Ok(Ok(stores.get(&label, &key)))
        })
    }

    async fn set(
        host: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), Error>> {
        host.with(|mut host| {
            let (stores, label) = host.get().store(&store)?;
            refused(stores.set(&label, key, value), Error::Other)
        })
    }

    async fn delete(
        host: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<(), Error>> {
        host.with(|mut host| {
            let (stores, label) = host.get().store(&store)?;
            refused(stores.delete(&label, &key), Error::Other)
        })
    }

    async fn exists(
        host: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> wasmtime::Result<Result<bool, Error>> {
        host.with(|mut host| {
            let (stores, label) = host.get().store(&store)?;
            Ok(Ok(stores.get(&label, &key).is_some()))
        })
    }

    async fn get_keys(host: &Accessor<T, Self>, store: Resource<OpenStore>) -> wasmtime::Result<Keys> {
        host.with(|mut host| keys(&mut host, &store))
    }
}

fn keys<T: 'static>(host: &mut Access<'_, T, HasSelf<Host>>, store: &Resource<OpenStore>) -> wasmtime::Result<Keys> {
    let (stores, label) = host.get().store(store)?;
    let keys = stores.keys(&label);
    let stream = StreamReader::new(&mut *host, keys)?;
    let end = FutureReader::new(&mut *host, async { wasmtime::error::Ok(Ok(())) })?;
    Ok((stream, end))
}
