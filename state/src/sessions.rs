//! Sessions with a stage: as many, and as large, as in our own host (`tapeline_invoke::admit`).

use tapeline_invoke::admit::{self, SESSION_BYTES_MAX, SESSION_IDLE_MIN, SESSIONS_MAX};

use super::{Area, Bucket, Changes, Limits, Next, Root, Scope, StateError, tree::Room};

/// A session as it is at a call's beginning.
pub struct Session {
    before: Root<()>,
    name: String,
    area: Area,
    forgotten: Option<String>,
    called: u64,
}

/// Why a call with a session does not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is no room for the session, or for its state.
    #[error("{0}")]
    TooMany(String),
    /// There is no state.
    #[error(transparent)]
    State(StateError),
}

impl From<StateError> for SessionError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Full { bytes, .. } => Self::TooMany(admit::session_too_large(bytes)),
            error => Self::State(error),
        }
    }
}

impl<'a, B: Bucket> Scope<'a, B, ()> {
    /// The sessions with a stage; an area is a session.
    pub fn of_sessions(bucket: &'a B, stage: &str) -> Self {
        let name = format!("tapeline/sessions/{}", super::encode_name(stage));
        let limits = Limits { area_bytes: SESSION_BYTES_MAX as u64, ..Limits::default() };
        Self::named(bucket, &name).with_limits(limits)
    }

    /// The session of this name, which may be a new one. It is called `now`, seconds since the epoch.
    ///
    /// # Errors
    /// `TooMany` when there is no room for another one.
    pub async fn open(&self, name: &str, now: u64) -> Result<Session, SessionError> {
        let before = self.begin().await?;
        let forgotten = match before.room_for(name, SESSIONS_MAX, now.saturating_sub(SESSION_IDLE_MIN.as_secs())) {
            Room::Free => None,
            Room::InPlaceOf(other) => Some(other),
            Room::None => return Err(SessionError::TooMany(admit::too_many_sessions())),
        };
        let area = before.areas.get(name).cloned().unwrap_or_default();
        Ok(Session { before, name: name.to_owned(), area, forgotten, called: now })
    }

    /// Takes what a call has changed; the area that it names and the time of the call are the session's.
    ///
    /// # Errors
    /// `Conflict` when another one was faster; `TooMany` when the state would become too large.
    pub async fn close(&self, session: &Session, changes: Changes) -> Result<(), SessionError> {
        let changes = vec![Changes { area: session.name.clone(), called: session.called, ..changes }];
        let next = Next { changes, forgotten: session.forgotten.clone(), ..Next::default() };
        Ok(self.commit(&session.before, next).await.map(drop)?)
    }
}

impl Session {
    /// The root that it begins from.
    pub const fn root(&self) -> u64 {
        self.before.id
    }

    /// Its state.
    pub const fn area(&self) -> &Area {
        &self.area
    }
}
