//! Why something could not be done, for people.

use std::{error::Error, fmt::Debug};

use aws_sdk_cloudformation::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why something could not be done. The texts read on after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// What was given is wrong or is not there: trying again gives the same.
    #[error("{0}")]
    Wrong(String),
    /// Somebody else was first.
    #[error("{0}")]
    Conflict(String),
    /// AWS does not do it.
    #[error("{doing}")]
    Service {
        /// What was being done.
        doing: String,
        /// What AWS says.
        #[source]
        reason: Reason,
    },
}

/// What a service, or the way to it, says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Reason(pub String);

impl OperateError {
    /// What was given is wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(message.into())
    }

    /// AWS does not do it, for a reason that is known.
    pub(super) fn service(doing: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Service { doing: doing.into(), reason: Reason(reason.into()) }
    }

    /// AWS does not do it, for the reason that its client tells.
    pub(super) fn refused<E, R>(doing: impl Into<String>, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: Debug,
    {
        Self::service(doing, reason(error))
    }
}

/// What a service says in its own words, or why it could not be asked.
fn reason<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug,
{
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        // It did not answer, or not as a service does.
        _ => DisplayErrorContext(error).to_string(),
    }
}
