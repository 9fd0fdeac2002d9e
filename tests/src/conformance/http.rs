//! The HTTP interface of real processes of `tapeline up`, one for all cases with the same settings.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Answer, Base, Call, Case, Runtime};
use crate::live::{LiveHost, TOKEN};

/// Starts processes as they are needed, and stops them when it is dropped.
#[derive(Default)]
pub struct Http {
    /// By the text of their pipeline files.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
}

struct Process {
    base: Base,
    _host: LiveHost,
    _folder: TempDir,
}

impl Http {
    /// The process that runs this pipeline; started if there is none.
    fn process(&self, pipeline: String) -> Result<Arc<Process>> {
        // Others wait meanwhile, so that none is started twice.
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = processes.get(&pipeline) {
            return Ok(Arc::clone(process));
        }
        let process = Arc::new(Process::start(&pipeline)?);
        processes.insert(pipeline, Arc::clone(&process));
        Ok(process)
    }
}

impl Runtime for Http {
    fn name(&self) -> &str {
        "http"
    }

    fn leaves_out(&self, _: &Case) -> Option<&'static str> {
        None
    }

    fn call(&self, case: &Case, call: &Call) -> Result<Answer> {
        self.process(case.pipeline()?)?.base.call(case, call)
    }
}

impl Process {
    fn start(pipeline: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let path = folder.path().join("pipeline.toml");
        fs::write(&path, pipeline)?;
        let host = LiveHost::start(&path, &folder.path().join("data"), &[]).context("start tapeline up")?;
        Ok(Self { base: Base::new(&host.url(), Some(TOKEN)), _host: host, _folder: folder })
    }
}
