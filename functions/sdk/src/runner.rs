//! Runs a stage over batches: finds states, follows what changed, fires timers, expires.

use tapeline_events::Name;

use crate::{
    Event, Names, SettingError, Stage, State, StateError, StateParts,
    bindings::{
        events::{Batch, Input},
        state::{Description, Entry},
    },
    events_out::MARK,
    settings,
    stage::{Fates, Output, Wake},
    timers::Timers,
};

/// Index of a key without a slot.
const NO_SLOT: u32 = u32::MAX;
/// The mark that says that nothing comes any more. Timers fire, but states stay: another run may go on from them.
const END: i64 = i64::MAX;

/// A stage with its state: what the exported functions of a component call, and native tests as well.
pub struct Runner<S: Stage> {
    stage: S,
    out: S::Out,
    names: Names,
    slots: Vec<Slot<S::State>>,
    free: Vec<u32>,
    /// Slot of each name.
    index: Vec<u32>,
    changed: Vec<u32>,
    deleted: Vec<Entry>,
    timers: Timers,
    watermark: i64,
}

struct Slot<T> {
    key: Name,
    state: T,
    is_changed: bool,
    /// Parts that are saved, ascending.
    parts: Vec<u64>,
}

impl<S: Stage> Runner<S> {
    /// Makes the stage from its settings, a JSON object.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(settings: &str) -> Result<Self, SettingError> {
        Ok(Self {
            stage: settings::parse(settings, S::new)?,
            out: S::Out::default(),
            names: Names::default(),
            slots: Vec::new(),
            free: Vec::new(),
            index: Vec::new(),
            changed: Vec::new(),
            deleted: Vec::new(),
            timers: Timers::default(),
            watermark: i64::MIN,
        })
    }

    /// As `describe` of the contract.
    pub fn describe(&self) -> Description {
        Description {
            name: S::NAME.to_owned(),
            version: S::VERSION.to_owned(),
            takes: self.stage.takes().into(),
            gives: self.stage.gives().into(),
            state_version: S::State::VERSION,
        }
    }

    /// As `restore` of the contract.
    ///
    /// # Errors
    /// When an entry is of another stage, or of a version that cannot be migrated.
    pub fn restore(&mut self, entries: Vec<Entry>, watermark: i64) -> Result<(), StateError> {
        self.slots.clear();
        self.free.clear();
        self.index.clear();
        self.changed.clear();
        self.deleted.clear();
        self.timers.clear();
        self.watermark = watermark;
        self.stage.on_watermark(watermark);
        for entry in entries {
            let Some(bytes) = entry.value else { continue };
            let key = self.names.intern(&entry.key);
            let slot = slot_of(&mut self.slots, &mut self.free, &mut self.index, key);
            let slot = &mut self.slots[slot as usize];
            slot.state.load(entry.part, entry.version, &bytes)?;
            slot.parts.push(entry.part);
        }
        for (at, slot) in self.slots.iter().enumerate() {
            self.timers.schedule(at as u32, next_look(&slot.state));
        }
        Ok(())
    }

    /// As `keys` of the contract.
    pub fn keys(&mut self, input: Input) -> Vec<String> {
        self.names.tell(input.names);
        let mut keys = std::collections::BTreeSet::new();
        for group in &input.events.groups {
            for at in 0..group.len() {
                let key = self.stage.key(&Event::new(group, &self.names, at));
                keys.insert(self.names.text(key).to_owned());
            }
        }
        keys.into_iter().collect()
    }

    /// As `process.process` and `write.write`.
    pub fn process(&mut self, mut input: Input) -> <S::Out as Output>::Answer {
        self.names.tell(std::mem::take(&mut input.names));
        self.out.begin(&self.names);
        let fates = self.take_all(&input.events);
        self.out.finish(&mut self.names, &input, fates)
    }

    /// As `checkpoint` of the contract.
    pub fn checkpoint(&mut self) -> Vec<Entry> {
        let mut entries = std::mem::take(&mut self.deleted);
        for at in std::mem::take(&mut self.changed) {
            let slot = &mut self.slots[at as usize];
            if std::mem::take(&mut slot.is_changed) {
                save(slot, self.names.text(slot.key), &mut entries);
            }
        }
        entries.sort_by(|a, b| (&a.key, a.part).cmp(&(&b.key, b.part)));
        // A key that expired and came again since the last call has a deletion, and then what it is now.
        entries.dedup_by(|later, earlier| {
            let is_same = later.key == earlier.key && later.part == earlier.part;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        entries
    }

    fn take_all(&mut self, events: &Batch) -> Fates {
        let mut fates = Fates::default();
        if events.order.is_empty() {
            let len = events.groups.first().map_or(0, |group| group.len());
            for at in 0..len {
                self.out.at(at, events);
                self.take_event(events, 0, at, at, &mut fates);
            }
            return fates;
        }
        let mut next = [0_usize; 256];
        let mut position = 0;
        for (element, code) in events.order.iter().enumerate() {
            self.out.at(element, events);
            let at = next[*code as usize];
            next[*code as usize] += 1;
            if *code == MARK {
                self.take_mark(events.marks[at]);
            } else {
                self.take_event(events, *code as usize, at, position, &mut fates);
                position += 1;
            }
        }
        fates
    }

    #[inline]
    fn take_event(&mut self, events: &Batch, group: usize, at: usize, position: usize, fates: &mut Fates) {
        let event = Event::new(&events.groups[group], &self.names, at);
        if S::State::VERSION == 0 {
            let mut state = S::State::default();
            fates.push(position, self.stage.on_event(event, &mut state, &mut self.out));
            return;
        }
        let key = self.stage.key(&event);
        let slot_at = slot_of(&mut self.slots, &mut self.free, &mut self.index, key);
        let slot = &mut self.slots[slot_at as usize];
        fates.push(position, self.stage.on_event(event, &mut slot.state, &mut self.out));
        if !slot.is_changed {
            slot.is_changed = true;
            self.changed.push(slot_at);
        }
        self.timers.schedule(slot_at, next_look(&slot.state));
    }

    fn take_mark(&mut self, watermark: i64) {
        if watermark != END {
            self.watermark = self.watermark.max(watermark);
            self.stage.on_watermark(self.watermark);
        }
        loop {
            let looked_at = self.timers.take_due(watermark);
            if looked_at.is_empty() {
                return;
            }
            self.wake(&looked_at, watermark);
            for slot in looked_at {
                self.expire_or_schedule(slot, watermark);
            }
            if watermark == END {
                return;
            }
        }
    }

    fn wake(&mut self, looked_at: &[u32], watermark: i64) {
        let due_at = |slot: &u32| self.slots[*slot as usize].state.wake_at().filter(|at| *at <= watermark);
        let mut due: Vec<_> = looked_at.iter().filter_map(|slot| Some((due_at(slot)?, *slot))).collect();
        let text = |slot: u32| self.names.text(self.slots[slot as usize].key);
        due.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1))));
        for (_, at) in due {
            let slot = &mut self.slots[at as usize];
            while slot.state.wake_at().is_some_and(|at| at <= watermark) {
                let wake = Wake { key: slot.key, watermark, names: &self.names };
                self.stage.on_wake(wake, &mut slot.state, &mut self.out);
            }
            if !std::mem::replace(&mut slot.is_changed, true) {
                self.changed.push(at);
            }
        }
    }

    fn expire_or_schedule(&mut self, at: u32, watermark: i64) {
        let slot = &mut self.slots[at as usize];
        let is_expired = watermark != END && slot.state.expires_at().is_some_and(|at| at <= watermark);
        if !is_expired {
            self.timers.schedule(at, next_look(&slot.state));
            return;
        }
        let key = self.names.text(slot.key);
        for part in slot.parts.drain(..) {
            self.deleted.push(deletion(key, part));
        }
        slot.state = S::State::default();
        slot.is_changed = false;
        self.index[slot.key.0 as usize] = NO_SLOT;
        self.free.push(at);
    }
}

fn slot_of<T: Default>(slots: &mut Vec<Slot<T>>, free: &mut Vec<u32>, index: &mut Vec<u32>, key: Name) -> u32 {
    match index.get(key.0 as usize) {
        Some(slot) if *slot != NO_SLOT => *slot,
        _ => new_slot(slots, free, index, key),
    }
}

#[cold]
fn new_slot<T: Default>(slots: &mut Vec<Slot<T>>, free: &mut Vec<u32>, index: &mut Vec<u32>, key: Name) -> u32 {
    if index.len() <= key.0 as usize {
        index.resize(key.0 as usize + 1, NO_SLOT);
    }
    let slot = Slot { key, state: T::default(), is_changed: false, parts: Vec::new() };
    let at = match free.pop() {
        Some(at) => {
            slots[at as usize] = slot;
            at
        }
        None => {
            slots.push(slot);
            slots.len() as u32 - 1
        }
    };
    index[key.0 as usize] = at;
    at
}

#[inline]
fn next_look<T: State>(state: &T) -> Option<i64> {
    match (state.wake_at(), state.expires_at()) {
        (Some(wake), Some(expiry)) => Some(wake.min(expiry)),
        (wake, expiry) => wake.or(expiry),
    }
}

fn save<T: State>(slot: &mut Slot<T>, key: &str, entries: &mut Vec<Entry>) {
    let mut parts = StateParts::default();
    slot.state.save(&mut parts);
    let wake_at = slot.state.wake_at();
    for part in parts.changed {
        match (slot.parts.binary_search(&part.number), part.bytes.is_some()) {
            (Err(at), true) => slot.parts.insert(at, part.number),
            (Ok(at), false) => {
                slot.parts.remove(at);
            }
            _ => {}
        }
        entries.push(Entry {
            key: key.to_owned(),
            part: part.number,
            version: T::VERSION,
            value: part.bytes,
            wake_at,
            expires_at: part.expires_at,
        });
    }
}

fn deletion(key: &str, part: u64) -> Entry {
    Entry { key: key.to_owned(), part, version: 0, value: None, wake_at: None, expires_at: None }
}
