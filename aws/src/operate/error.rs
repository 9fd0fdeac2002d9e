//! Why something could not be done, for people.

use std::{error::Error, fmt::Debug};

use aws_sdk_cloudformation::error::{ProvideErrorMetadata, SdkError};

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
    /// All that is known of it, in one line.
    pub fn told(&self) -> String {
        chain(self)
    }

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
        _ => chain(error),
    }
}

/// An error with all that is behind it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some repeat the cause in the text of the effect.
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let said = OperateError::service("read a", "read b: no answer");
        assert_eq!(chain(&said), "read a: read b: no answer");
        let reason = Reason("no answer".to_owned());
        let repeated = OperateError::Service { doing: "read a: no answer".to_owned(), reason };
        assert_eq!(chain(&repeated), "read a: no answer");
    }
}
