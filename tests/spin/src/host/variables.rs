//! `spin:variables`: the values that the manifest gives a component.

use wasmtime::component::{Accessor, HasSelf};

use super::Host;
use super::generated::spin::variables::variables::{self, Error};

impl variables::Host for Host {}

impl<T: 'static> variables::HostWithStore<T> for HasSelf<Host> {
    async fn get(host: &Accessor<T, Self>, name: String) -> wasmtime::Result<Result<String, Error>> {
        let value = host.with(|mut host| host.get().grants.variables.get(&name).cloned());
        Ok(value.ok_or_else(|| Error::Undefined(format!("no variable for \"{name}\""))))
    }
}
