//! The conformance suite against the composed components.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tapeline_spin_tests::{KeyValue, Reuse, SpinServer};
use tapeline_tests::conformance::{Answer, Base, Call, Case, Runtime};

use crate::application::{TOKEN, app};

/// Applications with the settings that cases want.
pub(crate) struct Composed {
    name: &'static str,
    reuse: Reuse,
    /// By the variables that they were started with.
    servers: Mutex<BTreeMap<BTreeMap<String, String>, Arc<Server>>>,
}

struct Server {
    base: Base,
    _server: SpinServer,
}

impl Composed {
    pub(crate) fn new(name: &'static str, reuse: Reuse) -> Self {
        Self { name, reuse, servers: Mutex::default() }
    }

    fn server(&self, case: &Case) -> Result<Arc<Server>> {
        let mut variables = BTreeMap::from([("admin_token".to_owned(), TOKEN.to_owned())]);
        if case.settings.is_some() {
            variables.insert(format!("{}_settings", case.stage), case.settings_json()?);
        }
        // Others wait meanwhile, so that none is started twice.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&variables) {
            return Ok(Arc::clone(server));
        }
        let server = app()?.start(&variables, &KeyValue::new(), self.reuse)?;
        let server = Arc::new(Server { base: Base::new(&server.url(""), Some(TOKEN)), _server: server });
        servers.insert(variables, Arc::clone(&server));
        Ok(server)
    }
}

impl Runtime for Composed {
    fn name(&self) -> &str {
        self.name
    }

    fn leaves_out(&self, _: &Case) -> Option<&'static str> {
        None
    }

    fn call(&self, case: &Case, call: &Call) -> Result<Answer> {
        self.server(case)?.base.call(case, call)
    }
}
