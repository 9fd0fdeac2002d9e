//! What is kept for a symbol, and how it is saved: part 0 is the head, then come the chunks of trades, then open bars.

use serde::{Deserialize, Serialize};
use tapeline_sdk::{State, StateError, StateParts};

use crate::{
    bars::{self, Bars},
    journal::Journal,
    settings::Plan,
    windows::{Tick, WindowSum, Windows},
};

/// Number of the part that holds the head.
const HEAD: u64 = 0;
/// Version of the layout of all parts.
const VERSION: u32 = 1;

/// What is kept for a symbol.
#[derive(Debug)]
pub struct SymbolState {
    pub(crate) bars: Bars,
    windows: Windows,
    journal: Journal,
    newest: i64,
    /// As in the settings under which the state was made or resumed; timers need them before settings are known.
    lateness: i64,
    keep: i64,
    window_max: i64,
    /// Sums of the windows, from loading until the settings are known.
    loaded: Option<Loaded>,
    is_resumed: bool,
    is_changed: bool,
}

#[derive(Debug)]
struct Loaded {
    time: i64,
    sums: Vec<WindowSum>,
}

/// All that is saved of a symbol but its trades and bars.
#[derive(Serialize, Deserialize)]
struct Head {
    newest: i64,
    lateness: i64,
    keep: i64,
    chunk: u64,
    opened_count: u64,
    final_until: i64,
    time: i64,
    sums: Vec<WindowSum>,
}

impl Default for SymbolState {
    fn default() -> Self {
        Self {
            bars: Bars::default(),
            windows: Windows::default(),
            journal: Journal::default(),
            newest: i64::MIN,
            lateness: 0,
            keep: 0,
            window_max: 0,
            loaded: None,
            is_resumed: false,
            is_changed: false,
        }
    }
}

impl SymbolState {
    /// Takes the settings over. Must be called before anything else that changes the state.
    #[inline]
    pub(crate) fn resume(&mut self, plan: &Plan) {
        if !self.is_resumed {
            self.resume_first(plan);
        }
    }

    /// Notes that there was a trade that counts.
    #[inline]
    pub(crate) fn touch(&mut self, time: i64) {
        self.newest = self.newest.max(time);
        self.is_changed = true;
    }

    /// Notes that a bar became final.
    pub(crate) fn changed(&mut self) {
        self.is_changed = true;
    }

    /// Slides the windows to a trade. Trades before `time_min` are late from now on.
    #[inline]
    pub(crate) fn slide(&mut self, tick: Tick, time_min: i64) -> &Windows {
        self.windows.take(tick);
        let forgotten = time_min.min(tick.time).saturating_sub(self.window_max);
        self.windows.forget(forgotten);
        self.journal.push(tick, forgotten);
        &self.windows
    }

    #[cold]
    fn resume_first(&mut self, plan: &Plan) {
        self.is_resumed = true;
        self.lateness = plan.lateness;
        self.keep = plan.keep();
        self.window_max = plan.window_max();
        self.bars.set_lengths(&plan.bars);
        let loaded = self.loaded.take().unwrap_or(Loaded { time: i64::MIN, sums: Vec::new() });
        if plan.windows.is_empty() && !loaded.sums.is_empty() {
            self.windows = Windows::default();
            self.journal.clear();
        } else {
            self.windows.resume(loaded.time, &plan.windows, &loaded.sums);
        }
    }

    fn head(&self) -> Head {
        Head {
            newest: self.newest,
            lateness: self.lateness,
            keep: self.keep,
            chunk: self.journal.number(),
            opened_count: self.bars.opened_count(),
            final_until: self.bars.final_until(),
            time: self.windows.time(),
            sums: self.windows.sums(),
        }
    }

    fn load_head(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let head: Head = postcard::from_bytes(bytes).map_err(|error| StateError::Corrupt(error.to_string()))?;
        self.newest = head.newest;
        self.lateness = head.lateness;
        self.keep = head.keep;
        self.journal.resume(head.chunk);
        self.bars.resume(head.opened_count, head.final_until);
        self.loaded = Some(Loaded { time: head.time, sums: head.sums });
        Ok(())
    }
}

impl State for SymbolState {
    const VERSION: u32 = VERSION;

    fn save(&mut self, parts: &mut StateParts) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        // Serializing into memory fails only for types without a fixed length, which the head has not.
        if let Ok(bytes) = postcard::to_allocvec(&self.head()) {
            parts.save(HEAD, bytes, self.expires_at());
        }
        self.journal.save(self.keep, parts);
        self.bars.save(parts);
    }

    fn load(&mut self, part: u64, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        if part == HEAD {
            return self.load_head(bytes);
        }
        match (part < bars::FIRST_PART, &self.loaded) {
            (true, Some(_)) => {
                self.journal.load(part, bytes)?.into_iter().for_each(|tick| self.windows.put_back(tick));
                Ok(())
            }
            // A host that lets parts expire may have deleted the head, which is the last to expire, before a chunk.
            (true, None) => {
                self.journal.delete(part);
                Ok(())
            }
            (false, Some(_)) => self.bars.load(part, bytes),
            (false, None) => Err(StateError::Corrupt("an open bar without a head".to_owned())),
        }
    }

    #[inline]
    fn wake_at(&self) -> Option<i64> {
        self.bars.end_min().map(|end| end.saturating_add(self.lateness))
    }

    #[inline]
    fn expires_at(&self) -> Option<i64> {
        Some(self.newest.saturating_add(self.keep))
    }
}
