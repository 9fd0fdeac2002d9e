//! The functions' HTTP as a runtime of the conformance suite.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use tapeline_aws_tests::{function, stack::Stack};
use tapeline_harness::conformance::{Answer, Base, Call, Case, Runtime};

use crate::{SharedStack, made};

/// AWS Lambda takes 6 MB for a call: JSON with the headers, and with the body in base64.
const BODY_BYTES_MAX: usize = 4_400_000;

/// Calls stages through the stack's HTTP API. What the API has no route for, and stages with other settings, are asked of
/// functions of the same package with addresses of their own.
pub(crate) struct Functions {
    stack: Arc<SharedStack>,
    /// By the stage and its settings; the first is the HTTP API.
    bases: Mutex<BTreeMap<Place, Arc<Base>>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Api,
    Function(Option<(String, String)>),
}

impl Functions {
    pub(crate) fn new(stack: Arc<SharedStack>) -> Self {
        Self { stack, bases: Mutex::default() }
    }

    fn base(&self, place: &Place) -> Result<Arc<Base>> {
        // Others wait meanwhile, so that no function is made twice.
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = bases.get(place) {
            return Ok(Arc::clone(base));
        }
        let stack = made(&self.stack)?;
        let url = match place {
            Place::Api => stack.url()?,
            Place::Function(changed) => make(stack, bases.len(), changed.as_ref())?,
        };
        let base = Arc::new(Base::new(&url, Some(&stack.token()?)));
        bases.insert(place.clone(), Arc::clone(&base));
        Ok(base)
    }

    fn place(&self, case: &Case, call: &Call) -> Result<Place> {
        if case.settings.is_some() {
            return Ok(Place::Function(Some((case.stage.clone(), case.settings_json()?))));
        }
        let has_route = call.method == "POST" && made(&self.stack)?.stages.contains(&case.stage);
        Ok(if has_route { Place::Api } else { Place::Function(None) })
    }
}

impl Runtime for Functions {
    fn name(&self) -> &str {
        "functions"
    }

    fn leaves_out(&self, case: &Case) -> Option<&'static str> {
        let is_large = case.calls.iter().any(|call| call.body().len() > BODY_BYTES_MAX);
        is_large.then_some("AWS Lambda takes no body of this size")
    }

    fn call(&self, case: &Case, call: &Call) -> Result<Answer> {
        // Its settings are in the function, not in what is asked.
        let plain = Case { settings: None, ..case.clone() };
        self.base(&self.place(case, call)?)?.call(&plain, call)
    }
}

fn make(stack: &Stack, number: usize, changed: Option<&(String, String)>) -> Result<String> {
    let changed = changed.map(|(stage, settings)| anyhow::Ok((stage.as_str(), serde_json::from_str(settings)?)));
    let url = function::with_settings(stack, &format!("conformance-{number}"), changed.transpose()?);
    url.context("make a function beside the stack")
}
