//! What is let in: bodies within their limits, parameters that are known.

use std::time::Duration;

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tapeline_invoke::admit;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

pub use tapeline_invoke::admit::BODY_BYTES_MAX;

use super::problem::{Problem, What};

/// Bytes of all bodies that are being read or worked on. Their answers and events take a few times as much.
const BODIES_BYTES_MAX: usize = 128 << 20;
/// How long a body may take to come: 8 MiB in it are 2 Mbit/s.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// Room is given in units of this many bytes, since a semaphore counts in 32 bits.
const ROOM_UNIT: usize = 1 << 10;

/// Room for bodies.
pub(super) struct BodyRoom(Semaphore);

/// A body, with the room that it takes.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _room: SemaphorePermit<'a>,
}

impl Default for BodyRoom {
    fn default() -> Self {
        Self(Semaphore::new(BODIES_BYTES_MAX / ROOM_UNIT))
    }
}

impl BodyRoom {
    /// Reads a body, once there is room for it.
    pub(super) async fn read(&self, request: Request) -> Result<Body<'_>, Problem> {
        check_content(request.headers())?;
        let announced = request.body().size_hint().upper().map_or(BODY_BYTES_MAX, |upper| upper as usize);
        if announced > BODY_BYTES_MAX {
            return Err(too_large());
        }
        let units = (announced / ROOM_UNIT + 1) as u32;
        let room = timeout(BODY_TIME_MAX, self.0.acquire_many(units)).await;
        let busy = || Problem::new(What::Busy, "other bodies take all the room that there is for bodies");
        let room = room.map_err(|_| busy())?.map_err(|_| busy())?;
        let slow = || Problem::new(What::SlowBody, format!("the body was not there after {BODY_TIME_MAX:?}"));
        let bytes = timeout(BODY_TIME_MAX, Bytes::from_request(request, &())).await.map_err(|_| slow())?;
        let bytes = bytes.map_err(|error| match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::new(What::BadBody, error.body_text()),
        })?;
        Ok(Body { bytes, _room: room })
    }
}

fn too_large() -> Problem {
    Problem::new(What::BodyTooLarge, admit::too_large())
}

fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    // What is no text is no content that we know.
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let checked = admit::check_content(text(header::CONTENT_TYPE), text(header::CONTENT_ENCODING));
    checked.map_err(|detail| Problem::new(What::WrongContent, detail))
}

/// Parameters behind the question mark. One that is not known is an error.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(value)| Self(value)).map_err(|error| Problem::new(What::BadParameter, error.body_text()))
    }
}

/// A parameter that is a time.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let time = text.map(tapeline_events::parse_time).transpose();
    let time = time.map_err(|error| Problem::new(What::BadParameter, format!("{name}: {error}")))?;
    Ok(time.map(|(ns, _)| ns))
}

/// A parameter that says how many there may be.
pub(super) fn limit(given: Option<u64>, default: u64, max: u64) -> Result<u64, Problem> {
    let limit = given.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(What::BadParameter, format!("limit: {limit} instead of 1 to {max}")))
}
