//! Errors as problem documents (RFC 9457): what can be wrong, and how it is told. The same words in every runtime.

use serde::Serialize;

/// What problem documents are called.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a client may try again what there was no room for: a pipeline works off 200,000 records in one.
const RETRY_AFTER_SECONDS: &str = "1";

/// What is wrong. The text of `type` stays the same from version to version; programs may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each has its title below")]
pub enum What {
    UnknownRoute,
    WrongMethod,
    BodyTooLarge,
    WrongContent,
    BadParameter,
    BadBody,
    SlowBody,
    UnknownStage,
    UnknownPipeline,
    UnknownTable,
    UnknownSubject,
    StageFault,
    TooManySessions,
    Busy,
    NotReady,
    PipelineFull,
    PipelineStopped,
    AdminOff,
    Unauthorized,
    ComponentRefused,
    UnknownVersion,
    NotNow,
    Unavailable,
    Internal,
}

impl What {
    /// Last part of `type`, then `title` and `status`.
    const fn parts(self) -> (&'static str, &'static str, u16) {
        match self {
            Self::UnknownRoute => ("unknown-route", "There is nothing here", 404),
            Self::WrongMethod => ("wrong-method", "Not with this method", 405),
            Self::BodyTooLarge => ("body-too-large", "The body is too large", 413),
            Self::WrongContent => ("wrong-content", "No content for this", 415),
            Self::BadParameter => ("bad-parameter", "A parameter is wrong", 400),
            Self::BadBody => ("bad-body", "The body cannot be read", 400),
            Self::SlowBody => ("slow-body", "The body did not come", 408),
            Self::UnknownStage => ("unknown-stage", "No such stage", 404),
            Self::UnknownPipeline => ("unknown-pipeline", "No such pipeline", 404),
            Self::UnknownTable => ("unknown-table", "No such table", 404),
            Self::UnknownSubject => ("unknown-subject", "No such subject", 404),
            Self::StageFault => ("stage-fault", "The stage failed", 422),
            Self::TooManySessions => ("too-many-sessions", "No room for it", 429),
            Self::Busy => ("busy", "Too much is under way", 503),
            Self::NotReady => ("not-ready", "Not ready yet", 503),
            Self::PipelineFull => ("pipeline-full", "Too much is waiting", 503),
            Self::PipelineStopped => ("pipeline-stopped", "The pipeline stops", 503),
            Self::AdminOff => ("admin-off", "Administration is off", 403),
            Self::Unauthorized => ("unauthorized", "Who are you?", 401),
            Self::ComponentRefused => ("component-refused", "It is refused", 422),
            Self::UnknownVersion => ("unknown-version", "No such version or stage", 404),
            Self::NotNow => ("not-now", "Not as things stand", 409),
            Self::Unavailable => ("unavailable", "Not at present", 503),
            Self::Internal => ("internal", "A fault of the server", 500),
        }
    }

    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::UnknownRoute,
        Self::WrongMethod,
        Self::BodyTooLarge,
        Self::WrongContent,
        Self::BadParameter,
        Self::BadBody,
        Self::SlowBody,
        Self::UnknownStage,
        Self::UnknownPipeline,
        Self::UnknownTable,
        Self::UnknownSubject,
        Self::StageFault,
        Self::TooManySessions,
        Self::Busy,
        Self::NotReady,
        Self::PipelineFull,
        Self::PipelineStopped,
        Self::AdminOff,
        Self::Unauthorized,
        Self::ComponentRefused,
        Self::UnknownVersion,
        Self::NotNow,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The status of an answer that tells it.
    pub const fn status(self) -> u16 {
        self.parts().2
    }

    /// The headers of an answer that tells it, their names in lower case. That of another method (405) has to say which ones
    /// there are, besides.
    pub fn headers(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let more = match self.status() {
            503 | 429 => Some(("retry-after", RETRY_AFTER_SECONDS)),
            401 => Some(("www-authenticate", "Bearer")),
            _ => None,
        };
        [("content-type", PROBLEM_JSON)].into_iter().chain(more)
    }

    /// The text of `type`: a relative reference.
    pub fn uri(self) -> String {
        format!("/problems/{}", self.parts().0)
    }
}

/// The document.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
}

/// The document of a problem with what was asked at this path.
pub fn document(what: What, detail: &str, path: &str) -> Vec<u8> {
    let (_, title, status) = what.parts();
    // Texts and a number can always be written.
    serde_json::to_vec(&Document { r#type: what.uri(), title, status, detail, instance: path }).unwrap_or_default()
}

/// What a problem document says: its `type`, and the detail. `None` for bytes that are none.
pub fn told(document: &[u8]) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Told {
        r#type: String,
        detail: String,
    }
    serde_json::from_slice::<Told>(document).ok().map(|told| (told.r#type, told.detail))
}
