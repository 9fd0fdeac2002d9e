//! Sessions: the state of a stage between calls, in memory, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rustc_hash::FxHashMap;
use tapeline_invoke::admit::{self, SESSION_BYTES_MAX, SESSION_IDLE_MIN, SESSIONS_MAX, check_session};

use super::InvokeError;
use crate::contract::Entry;

/// What an entry takes besides its key and value.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// The sessions of a stage.
#[derive(Default)]
pub(super) struct Sessions {
    by_name: Mutex<FxHashMap<String, Session>>,
}

struct Session {
    state: Arc<tokio::sync::Mutex<SessionState>>,
    last_call: Instant,
}

/// The state of a session after its last call.
pub(super) struct SessionState {
    /// In the order of keys and parts.
    entries: Vec<Entry>,
    watermark: i64,
    bytes: usize,
}

/// What a call changes.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) entries: Vec<Entry>,
    /// The newest watermark that the stage was told; `i64::MIN` for none.
    pub(super) watermark: i64,
}

impl Sessions {
    /// The session of this name; a new one without state if there is none. To be locked for as long as a call takes.
    ///
    /// # Errors
    /// `TooMany` when there is no room for another one; `BadSession` for a name that none can have.
    pub(super) fn find(&self, name: &str, now: Instant) -> Result<Arc<tokio::sync::Mutex<SessionState>>, InvokeError> {
        check_session(name).map_err(InvokeError::BadSession)?;
        let mut sessions = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get_mut(name) {
            session.last_call = now;
            return Ok(Arc::clone(&session.state));
        }
        make_room(&mut sessions, now)?;
        let session = Session { state: Arc::default(), last_call: now };
        let state = Arc::clone(&session.state);
        sessions.insert(name.to_owned(), session);
        Ok(state)
    }
}

fn make_room(sessions: &mut FxHashMap<String, Session>, now: Instant) -> Result<(), InvokeError> {
    if sessions.len() < SESSIONS_MAX {
        return Ok(());
    }
    // One that only the map knows of is not being called.
    let is_idle = |session: &Session| {
        Arc::strong_count(&session.state) == 1 && now.duration_since(session.last_call) >= SESSION_IDLE_MIN
    };
    let idle = sessions.iter().filter(|(_, session)| is_idle(session));
    match idle.min_by_key(|(_, session)| session.last_call).map(|(name, _)| name.clone()) {
        Some(name) => {
            sessions.remove(&name);
            Ok(())
        }
        None => Err(InvokeError::TooMany(admit::too_many_sessions())),
    }
}

impl Default for SessionState {
    fn default() -> Self {
        Self { entries: Vec::new(), watermark: i64::MIN, bytes: 0 }
    }
}

impl SessionState {
    /// The state as `restore` takes it.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The watermark that the stage has been told.
    pub(super) const fn watermark(&self) -> i64 {
        self.watermark
    }

    /// What the state takes in memory.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what a call changed.
    ///
    /// # Errors
    /// `TooMany` when the state would become too large; it stays as it was.
    pub(super) fn apply(&mut self, changes: Changes) -> Result<(), InvokeError> {
        let by_key = |entry: Entry| ((entry.key.clone(), entry.part), entry);
        let entries: BTreeMap<(String, u64), Entry> = changes.entries.into_iter().map(by_key).collect();
        let replaced: Vec<usize> = entries.values().filter_map(|entry| self.place_of(entry)).collect();
        let given_up: usize = replaced.iter().filter_map(|at| self.entries.get(*at)).map(size).sum();
        let new = entries.into_values().filter(|entry| entry.value.is_some());
        let new: Vec<Entry> = new.collect();
        let bytes = self.bytes - given_up + new.iter().map(size).sum::<usize>();
        if bytes > SESSION_BYTES_MAX {
            return Err(InvokeError::TooMany(admit::session_too_large(bytes as u64)));
        }
        for at in replaced {
            self.entries[at].value = None;
        }
        self.entries.retain(|entry| entry.value.is_some());
        self.entries.extend(new);
        self.entries.sort_by(|a, b| order(a).cmp(&order(b)));
        self.bytes = bytes;
        self.watermark = self.watermark.max(changes.watermark);
        Ok(())
    }

    fn place_of(&self, entry: &Entry) -> Option<usize> {
        self.entries.binary_search_by(|known| order(known).cmp(&order(entry))).ok()
    }
}

fn order(entry: &Entry) -> (&str, u64) {
    (&entry.key, entry.part)
}

fn size(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.key.len() + entry.value.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, part: u64, value: Option<usize>) -> Entry {
        let value = value.map(|length| vec![0; length]);
        Entry { key: key.to_owned(), part, version: 1, value, wake_at: None, expires_at: None }
    }

    fn changes(entries: Vec<Entry>, watermark: i64) -> Changes {
        Changes { entries, watermark }
    }

    fn shape(state: &SessionState) -> Vec<(&str, u64, usize)> {
        state.entries().iter().map(|entry| (&*entry.key, entry.part, entry.value.as_ref().unwrap().len())).collect()
    }

    #[test]
    fn a_state_takes_changes_in_order() {
        let mut state = SessionState::default();
        state.apply(changes(vec![entry("b", 1, Some(3)), entry("a", 2, Some(1)), entry("a", 1, Some(2))], 7)).unwrap();
        assert_eq!(shape(&state), [("a", 1, 2), ("a", 2, 1), ("b", 1, 3)]);
        let late = vec![entry("a", 2, None), entry("c", 0, None), entry("a", 1, Some(5)), entry("b", 0, Some(1))];
        state.apply(changes(late, 3)).unwrap();
        assert_eq!(shape(&state), [("a", 1, 5), ("b", 0, 1), ("b", 1, 3)]);
        assert_eq!(state.watermark(), 7);
        assert_eq!(state.bytes(), state.entries().iter().map(size).sum::<usize>());
    }

    #[test]
    fn a_state_that_is_too_large_stays_as_it_was() {
        let mut state = SessionState::default();
        state.apply(changes(vec![entry("a", 1, Some(10))], 1)).unwrap();
        let too_much = vec![entry("a", 1, Some(1)), entry("b", 1, Some(SESSION_BYTES_MAX))];
        assert!(matches!(state.apply(changes(too_much, 2)), Err(InvokeError::TooMany(_))));
        assert_eq!((shape(&state), state.watermark()), (vec![("a", 1, 10)], 1));
    }

    #[test]
    fn only_idle_sessions_are_forgotten() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let held = sessions.find("0", now).unwrap();
        for number in 1..SESSIONS_MAX {
            sessions.find(&number.to_string(), now).unwrap();
        }
        let soon = now + SESSION_IDLE_MIN / 2;
        sessions.find("5", soon).unwrap();
        assert!(matches!(sessions.find("one more", soon), Err(InvokeError::TooMany(_))));
        sessions.find("one more", now + SESSION_IDLE_MIN).unwrap();
        let known = sessions.by_name.lock().unwrap();
        assert!(known.contains_key("0") && known.contains_key("5") && known.contains_key("one more"));
        assert_eq!(known.len(), SESSIONS_MAX);
        drop(held);
    }

    #[test]
    fn a_session_has_a_name() {
        assert!(Sessions::default().find("", Instant::now()).is_err());
        assert!(Sessions::default().find(&"x".repeat(129), Instant::now()).is_err());
    }
}
