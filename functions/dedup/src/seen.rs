//! The state of a symbol: what was seen, in memory as sets and saved as a log.

use rustc_hash::FxHashMap;
use tapeline_sdk::{Event, Kind, Name, State, StateError, StateParts};

use crate::{
    blocks::{Blocks, Inserted},
    chunk::{Basis, Chunk, Hash, Head, Ids},
};

/// What identifies an event in its stream.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    Number(u64),
    Hash(Hash),
}

/// What was seen of a symbol.
///
/// It is saved as parts that each belong to a source, a kind and a time at which they expire. A part is written until it
/// has 1,024 ids, and then never again. What a state answers depends on the events and watermarks that came, not on when
/// it was saved, restored or swept, nor on whether a host has deleted what has expired.
#[derive(Default)]
pub struct Seen {
    streams: Vec<Stream>,
    parts: Parts,
}

/// The ids of one source and kind.
struct Stream {
    source: Box<str>,
    /// The source's name in this instance, once it is known.
    name: Option<Name>,
    kind: Kind,
    basis: Basis,
    keys: Keys,
    /// The parts that are being filled, most often one, a few around the time when a new step begins.
    open: Vec<Chunk>,
    /// Which of `open` was written last.
    current: usize,
}

enum Keys {
    Numbers(Blocks),
    /// With the time at which each expires.
    Hashes(FxHashMap<Hash, i64>),
}

/// The parts of all streams.
struct Parts {
    next: u64,
    /// Full, and saved.
    closed: Vec<(u64, i64)>,
    /// Full, and not saved.
    full: Vec<Chunk>,
    /// To be deleted.
    dead: Vec<u64>,
    /// The time at which the last of all parts expires.
    last_expiry: i64,
    /// The time at which the first of all parts expires.
    first_expiry: i64,
}

impl Default for Parts {
    fn default() -> Self {
        Self { next: 0, closed: vec![], full: vec![], dead: vec![], last_expiry: i64::MIN, first_expiry: i64::MAX }
    }
}

impl State for Seen {
    const VERSION: u32 = 1;

    fn save(&mut self, parts: &mut StateParts) {
        for number in self.parts.dead.drain(..) {
            parts.delete(number);
        }
        for chunk in self.parts.full.drain(..) {
            let (number, expires_at) = (chunk.number, chunk.expires_at);
            parts.save(number, chunk.into_bytes(), Some(expires_at));
            self.parts.closed.push((number, expires_at));
        }
        for chunk in self.streams.iter_mut().flat_map(|stream| &mut stream.open) {
            if std::mem::take(&mut chunk.is_changed) {
                parts.save(chunk.number, chunk.bytes().to_vec(), Some(chunk.expires_at));
            }
        }
    }

    fn load(&mut self, part: u64, version: u32, bytes: &[u8]) -> Result<(), StateError> {
        if version != Self::VERSION {
            return Err(StateError::Version(version));
        }
        let (head, ids, chunk) = Chunk::load(part, bytes)?;
        let no_kind = || StateError::Corrupt(format!("part {part}: {:?} is no kind", head.kind));
        let kind = Kind::parse(head.kind).ok_or_else(no_kind)?;
        self.parts.next = self.parts.next.max(part.saturating_add(1));
        self.parts.expects(head.expires_at);
        let at = self.position(|stream| *stream.source == *head.source && stream.kind == kind, head.basis);
        let at = at.unwrap_or_else(|| self.add_stream(Stream::new(head.source, kind, head.basis)));
        if let Some(stream) = self.streams.get_mut(at) {
            stream.keys.load(ids, head.expires_at);
            if chunk.is_full() {
                self.parts.closed.push((part, head.expires_at));
            } else {
                stream.open.push(chunk);
            }
        }
        Ok(())
    }

    /// A state without parts is as good as new at once: that of a symbol of which nothing was taken.
    #[inline]
    fn expires_at(&self) -> Option<i64> {
        Some(self.parts.last_expiry)
    }
}

impl Seen {
    /// Whether the event is new. If so it is remembered until `expires_at`.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        event: &Event<'_>,
        basis: Basis,
        key: Key,
        expires_at: i64,
        watermark: i64,
    ) -> bool {
        let (name, kind) = (Some(event.source()), event.kind());
        let at = match self.position(|stream| stream.name == name && stream.kind == kind, basis) {
            Some(at) => at,
            None => self.find_stream(event, kind, basis),
        };
        let Some(stream) = self.streams.get_mut(at) else { return true };
        stream.insert(key, expires_at, watermark, &mut self.parts)
    }

    /// Frees what has expired, once something has.
    #[inline]
    pub(crate) fn sweep(&mut self, watermark: i64) {
        if self.parts.first_expiry <= watermark {
            self.sweep_all(watermark);
        }
    }

    #[cold]
    fn sweep_all(&mut self, watermark: i64) {
        for stream in &mut self.streams {
            stream.keys.sweep(watermark);
            let dead = stream.open.extract_if(.., |chunk| chunk.expires_at <= watermark);
            self.parts.dead.extend(dead.map(|chunk| chunk.number));
        }
        let dead = self.parts.full.extract_if(.., |chunk| chunk.expires_at <= watermark);
        self.parts.dead.extend(dead.map(|chunk| chunk.number));
        let dead = self.parts.closed.extract_if(.., |(_, expires_at)| *expires_at <= watermark);
        self.parts.dead.extend(dead.map(|(number, _)| number));
        let open = self.streams.iter().flat_map(|stream| &stream.open).chain(&self.parts.full);
        let expiries =
            open.map(|chunk| chunk.expires_at).chain(self.parts.closed.iter().map(|(_, expires_at)| *expires_at));
        self.parts.first_expiry = expiries.min().unwrap_or(i64::MAX);
    }

    #[inline]
    fn position(&self, is_wanted: impl Fn(&Stream) -> bool, basis: Basis) -> Option<usize> {
        self.streams.iter().position(|stream| stream.basis == basis && is_wanted(stream))
    }

    #[cold]
    fn find_stream(&mut self, event: &Event<'_>, kind: Kind, basis: Basis) -> usize {
        let source = event.text(event.source());
        let at = self.position(|stream| *stream.source == *source && stream.kind == kind, basis);
        let at = at.unwrap_or_else(|| self.add_stream(Stream::new(source, kind, basis)));
        if let Some(stream) = self.streams.get_mut(at) {
            stream.name = Some(event.source());
        }
        at
    }

    fn add_stream(&mut self, stream: Stream) -> usize {
        self.streams.push(stream);
        self.streams.len() - 1
    }

    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        let keys = self.streams.iter().map(|stream| match &stream.keys {
            Keys::Numbers(blocks) => blocks.allocated(),
            Keys::Hashes(hashes) => hashes.capacity() * 8 / 7 * (size_of::<(Hash, i64)>() + 1),
        });
        keys.sum()
    }
}

impl Stream {
    fn new(source: &str, kind: Kind, basis: Basis) -> Self {
        let keys =
            if basis.is_numeric() { Keys::Numbers(Blocks::default()) } else { Keys::Hashes(FxHashMap::default()) };
        Self { source: source.into(), name: None, kind, basis, keys, open: Vec::new(), current: 0 }
    }

    #[inline]
    fn insert(&mut self, key: Key, expires_at: i64, watermark: i64, parts: &mut Parts) -> bool {
        match (&mut self.keys, key) {
            (Keys::Numbers(blocks), Key::Number(id)) => match blocks.insert(id, expires_at, watermark) {
                Inserted::Known => false,
                Inserted::New { expires_at, moved } => {
                    // What moved is saved again: a part that expires must not take an id along that is remembered longer.
                    for id in moved.chain([id]) {
                        self.log(expires_at, parts, |chunk| chunk.push_number(id));
                    }
                    true
                }
            },
            (Keys::Hashes(hashes), Key::Hash(hash)) => {
                let known = hashes.entry(hash).or_insert(i64::MIN);
                if *known > watermark {
                    return false;
                }
                *known = expires_at;
                self.log(expires_at, parts, |chunk| chunk.push_hash(hash));
                true
            }
            _ => {
                debug_assert!(false, "a stream has keys of one form");
                true
            }
        }
    }

    #[inline]
    fn log(&mut self, expires_at: i64, parts: &mut Parts, push: impl FnOnce(&mut Chunk)) {
        if self.open.get(self.current).is_none_or(|chunk| chunk.expires_at != expires_at) {
            self.turn_to(expires_at, parts);
        }
        let Some(chunk) = self.open.get_mut(self.current) else { return };
        push(chunk);
        if chunk.is_full() {
            parts.full.push(self.open.swap_remove(self.current));
        }
    }

    #[cold]
    fn turn_to(&mut self, expires_at: i64, parts: &mut Parts) {
        let at = self.open.iter().position(|chunk| chunk.expires_at == expires_at);
        self.current = at.unwrap_or_else(|| {
            let head = Head { source: &self.source, kind: self.kind.as_str(), basis: self.basis, expires_at };
            self.open.push(Chunk::new(parts.next, &head));
            parts.next += 1;
            parts.expects(expires_at);
            self.open.len() - 1
        });
    }
}

impl Keys {
    fn load(&mut self, ids: Ids, expires_at: i64) {
        match (self, ids) {
            (Self::Numbers(blocks), Ids::Numbers(ids)) => ids.into_iter().for_each(|id| blocks.load(id, expires_at)),
            (Self::Hashes(hashes), Ids::Hashes(ids)) => {
                for id in ids {
                    let known = hashes.entry(id).or_insert(expires_at);
                    *known = expires_at.max(*known);
                }
            }
            _ => {}
        }
    }

    fn sweep(&mut self, watermark: i64) {
        match self {
            Self::Numbers(blocks) => blocks.sweep(watermark),
            Self::Hashes(hashes) => hashes.retain(|_, expires_at| *expires_at > watermark),
        }
    }
}

impl Parts {
    fn expects(&mut self, expires_at: i64) {
        self.last_expiry = self.last_expiry.max(expires_at);
        self.first_expiry = self.first_expiry.min(expires_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u64 = 1_000_000;

    fn stream_of(basis: Basis) -> Seen {
        let mut seen = Seen::default();
        seen.add_stream(Stream::new("s", Kind::Trade, basis));
        seen
    }

    #[test]
    fn a_million_ids_that_count_up_take_little_memory() {
        let mut seen = stream_of(Basis::Number);
        for id in 3_735_683_259..3_735_683_259 + COUNT {
            assert!(seen.streams[0].insert(Key::Number(id), 10, 0, &mut seen.parts));
        }
        let saved: usize = seen.parts.full.iter().map(|chunk| chunk.bytes().len()).sum();
        assert!(seen.allocated() < 1_000_000 && saved < 1_100_000, "{} and {saved}", seen.allocated());
        seen.sweep(10);
        assert_eq!(seen.allocated(), 0);
        assert!(seen.parts.full.is_empty());
    }

    #[test]
    fn other_state_versions_and_kinds_are_refused() {
        let mut seen = Seen::default();
        assert_eq!(seen.load(0, 2, &[]), Err(StateError::Version(2)));
        assert!(matches!(seen.load(0, 1, &[1]), Err(StateError::Corrupt(_))));
        let head = Head { source: "s", kind: "deal", basis: Basis::Number, expires_at: 0 };
        let error = seen.load(0, 1, Chunk::new(0, &head).bytes());
        assert_eq!(error, Err(StateError::Corrupt("part 0: \"deal\" is no kind".to_owned())));
    }
}
