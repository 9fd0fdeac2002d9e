//! State of a key: what is saved, when it wakes, when it expires.

use serde::{Serialize, de::DeserializeOwned};

/// Saved bytes that cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Written by a version that cannot be migrated.
    Version(u32),
    /// Not what this stage writes.
    Corrupt(String),
}

/// Collects the parts of a key's state that changed.
#[derive(Default)]
pub struct StateParts {
    pub(crate) changed: Vec<Part>,
}

pub(crate) struct Part {
    pub(crate) number: u64,
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) expires_at: Option<i64>,
}

impl StateParts {
    /// Saves a part in place of what was saved under its number. At most 256 KiB. Once the watermark has passed
    /// `expires_at`, if there is one, a host may delete it.
    pub fn save(&mut self, number: u64, bytes: Vec<u8>, expires_at: Option<i64>) {
        self.changed.push(Part { number, bytes: Some(bytes), expires_at });
    }

    /// Deletes a part.
    pub fn delete(&mut self, number: u64) {
        self.changed.push(Part { number, bytes: None, expires_at: None });
    }
}

/// What a stage keeps for a key.
///
/// Most states are one small value and implement [`Saved`]. One that grows is saved in parts, so that a commit writes
/// what is new and not what is old.
pub trait State: Default {
    /// Version of the bytes that [`save`](State::save) writes; 0 for no state.
    const VERSION: u32;

    /// Saves the parts that changed since the last call, or since they were loaded.
    fn save(&mut self, parts: &mut StateParts);

    /// Takes a saved part in. Parts of a key come in ascending order.
    ///
    /// # Errors
    /// When the bytes are of a version that cannot be migrated, or not of this stage.
    fn load(&mut self, part: u64, version: u32, bytes: &[u8]) -> Result<(), StateError>;

    /// Event time at which the stage is woken for this key. Read after every event and wake.
    fn wake_at(&self) -> Option<i64> {
        None
    }

    /// Event time after which the state is as good as new, and is deleted.
    fn expires_at(&self) -> Option<i64> {
        None
    }
}

impl State for () {
    const VERSION: u32 = 0;

    fn save(&mut self, _: &mut StateParts) {}

    fn load(&mut self, _: u64, version: u32, _: &[u8]) -> Result<(), StateError> {
        Err(StateError::Version(version))
    }
}

/// A state that is saved as a whole, in the postcard format (<https://postcard.jamesmunns.com/wire-format>).
pub trait Saved: Serialize + DeserializeOwned + Default {
    /// Version of the type's layout, >= 1; raise it with every change.
    const VERSION: u32 = 1;

    /// Reads the bytes of an older version.
    fn migrate(version: u32, bytes: &[u8]) -> Option<Self> {
        let _ = (version, bytes);
        None
    }

    /// As [`State::wake_at`].
    fn wake_at(&self) -> Option<i64> {
        None
    }

    /// As [`State::expires_at`].
    fn expires_at(&self) -> Option<i64> {
        None
    }
}

impl<T: Saved> State for T {
    const VERSION: u32 = <T as Saved>::VERSION;

    fn save(&mut self, parts: &mut StateParts) {
        // Serializing into memory fails only for types without a fixed length, which postcard does not take.
        if let Ok(bytes) = postcard::to_allocvec(self) {
            parts.save(0, bytes, Saved::expires_at(self));
        }
    }

    fn load(&mut self, _: u64, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        *self = if version == <T as Saved>::VERSION {
            postcard::from_bytes(bytes).map_err(|error| StateError::Corrupt(error.to_string()))?
        } else {
            T::migrate(version, bytes).ok_or(StateError::Version(version))?
        };
        Ok(())
    }

    fn wake_at(&self) -> Option<i64> {
        Saved::wake_at(self)
    }

    fn expires_at(&self) -> Option<i64> {
        Saved::expires_at(self)
    }
}
