//! The library in this process: no HTTP, no pipeline, one stage.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use tapeline::{
    pipeline::{InvokeError, InvokeOptions, Invoked, Invoker, WasmStage},
    runtime::{CompiledCache, Engine, Limits},
};

use super::{Answer, Call, Case, Counts, NDJSON, PROBLEM_JSON, Runtime};
use crate::program;

/// Calls the components of the stages themselves.
pub struct Embedded {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
    /// By stage and settings.
    invokers: Mutex<BTreeMap<(String, String), Arc<Invoker>>>,
}

/// A problem document, as the HTTP interface writes it.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: String,
    instance: String,
}

impl Embedded {
    /// Loads no component yet.
    ///
    /// # Errors
    /// When no engine or no threads can be had.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
        Ok(Self { engine: Engine::new(CompiledCache::of_user())?, runtime, invokers: Mutex::default() })
    }

    /// What calls the stage of a case; made if there is none.
    fn invoker(&self, case: &Case) -> Result<Arc<Invoker>> {
        let settings = case.settings_json()?;
        let key = (case.stage.clone(), settings.clone());
        // Others wait meanwhile, so that each component is loaded once, and sessions are found again.
        let mut invokers = self.invokers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(invoker) = invokers.get(&key) {
            return Ok(Arc::clone(invoker));
        }
        let component = self.engine.load(&program::components().join(format!("{}.wasm", case.stage)))?;
        let stage = WasmStage::new(&case.stage, component, &settings, Limits::default());
        let invoker = Arc::new(Invoker::new(stage));
        invokers.insert(key, Arc::clone(&invoker));
        Ok(invoker)
    }
}

impl Runtime for Embedded {
    fn name(&self) -> &str {
        "embedded"
    }

    fn leaves_out(&self, case: &Case) -> Option<&'static str> {
        case.http.then_some("it is about HTTP")
    }

    fn call(&self, case: &Case, call: &Call) -> Result<Answer> {
        ensure!(call.method == "POST", "there is no method {} without HTTP", call.method);
        let mut options = InvokeOptions::default();
        for (name, value) in call.parameters()? {
            match name {
                "format" => options.format = Some(value.to_owned()),
                "session" => options.session = Some(value.to_owned()),
                _ => bail!("there is no parameter {name} without HTTP"),
            }
        }
        let invoker = self.invoker(case)?;
        match self.runtime.block_on(invoker.invoke(&call.body(), &options)) {
            Ok(invoked) => Ok(answer(invoked)),
            Err(error) => problem(error, &case.stage),
        }
    }
}

fn answer(invoked: Invoked) -> Answer {
    let Invoked { lines, counts } = invoked;
    let counts = Counts {
        entered: counts.entered,
        out: counts.out,
        duplicate: counts.duplicate,
        late: counts.late,
        dropped: counts.dropped.values().sum(),
        dead: counts.dead,
    };
    Answer { status: 200, content_type: NDJSON.to_owned(), counts: Some(counts), body: lines }
}

/// The document that the HTTP interface makes of an error.
fn problem(error: InvokeError, stage: &str) -> Result<Answer> {
    let (kind, title, status) = match &error {
        InvokeError::BadBody { .. } => ("/problems/bad-body", "The body cannot be read", 400),
        InvokeError::BadSession(_) => ("/problems/bad-parameter", "A parameter is wrong", 400),
        InvokeError::Fault(_) => ("/problems/stage-fault", "The stage failed", 422),
        // They say how busy this process is, not what was sent.
        InvokeError::TooMany(_) | InvokeError::Busy => return Err(error.into()),
    };
    let instance = format!("/stages/{stage}/invoke");
    let document = Problem { r#type: kind, title, status, detail: error.to_string(), instance };
    let body = serde_json::to_vec(&document)?;
    Ok(Answer { status, content_type: PROBLEM_JSON.to_owned(), counts: None, body })
}
