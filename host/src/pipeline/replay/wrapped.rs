//! A stage with native code around each of its instances. To its worker it is the stage itself.

use std::{sync::Arc, time::Duration};

use crate::{
    runtime::{Fault, Instance},
    segment::{Blueprint, Role},
};

/// What is put around an instance.
type Wrap = dyn Fn(Box<dyn Instance>) -> Box<dyn Instance> + Send + Sync;

/// A stage whose instances are wrapped; all else is as before.
pub(super) struct Wrapped {
    inner: Box<dyn Blueprint>,
    wrap: Arc<Wrap>,
}

impl Wrapped {
    /// Wraps a stage.
    pub(super) fn new(
        inner: Box<dyn Blueprint>,
        wrap: impl Fn(Box<dyn Instance>) -> Box<dyn Instance> + Send + Sync + 'static,
    ) -> Self {
        Self { inner, wrap: Arc::new(wrap) }
    }
}

impl Blueprint for Wrapped {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn role(&self) -> Role {
        self.inner.role()
    }

    fn digest(&self) -> &str {
        self.inner.digest()
    }

    fn settings(&self) -> &str {
        self.inner.settings()
    }

    fn call_time_max(&self) -> Duration {
        self.inner.call_time_max()
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, Fault> {
        Ok((self.wrap)(self.inner.instantiate()?))
    }
}
