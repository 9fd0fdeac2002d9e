//! The trades of a symbol as they are saved: chunks in the order of arrival that, once full, are never written again.

use std::{cmp::Reverse, collections::BinaryHeap};

use tapeline_sdk::{StateError, StateParts};

use crate::windows::Tick;

/// Trades in a chunk. A commit writes the last chunk anew, at most 4 KiB.
const CHUNK_LEN: usize = 256;
/// Bytes of a trade: time and price, little-endian.
const TICK_LEN: usize = 16;
/// Number of the first chunk, which is also the number of its part; part 0 is the head.
const FIRST: u64 = 1;

/// Chunks, of which only what changed is held here.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The chunk that is being filled.
    last: Chunk,
    is_last_changed: bool,
    /// Full, and not saved as such yet.
    unsaved: Vec<Chunk>,
    /// Newest time and number of each full chunk. Out of order, a later chunk may be over earlier.
    full: BinaryHeap<Reverse<(i64, u64)>>,
    deleted: Vec<u64>,
}

#[derive(Debug)]
struct Chunk {
    number: u64,
    newest: i64,
    ticks: Vec<Tick>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            last: Chunk::new(FIRST),
            is_last_changed: false,
            unsaved: Vec::new(),
            full: BinaryHeap::new(),
            deleted: Vec::new(),
        }
    }
}

impl Journal {
    /// Puts a trade at the end. Now and then, deletes the chunks of which nothing is newer than `forgotten`.
    #[inline]
    pub(crate) fn push(&mut self, tick: Tick, forgotten: i64) {
        self.last.push(tick);
        self.is_last_changed = true;
        if self.last.ticks.len() >= CHUNK_LEN {
            self.begin_chunk();
            self.forget(forgotten);
        }
    }

    /// Number of the chunk that is being filled; [`resume`](Self::resume) takes it.
    pub(crate) fn number(&self) -> u64 {
        self.last.number
    }

    /// Saves what changed. A chunk is over `keep` after its newest trade.
    pub(crate) fn save(&mut self, keep: i64, parts: &mut StateParts) {
        self.deleted.drain(..).for_each(|number| parts.delete(number));
        self.unsaved.drain(..).for_each(|chunk| chunk.save(keep, parts));
        if std::mem::take(&mut self.is_last_changed) {
            self.last.save(keep, parts);
        }
    }

    /// Goes on with the chunk of this number.
    pub(crate) fn resume(&mut self, number: u64) {
        self.last = Chunk::new(number);
    }

    /// Takes a saved chunk back; chunks come in ascending order. Gives its trades.
    ///
    /// # Errors
    /// When the bytes are not those of a chunk.
    pub(crate) fn load(&mut self, number: u64, bytes: &[u8]) -> Result<Vec<Tick>, StateError> {
        let (ticks, rest) = bytes.as_chunks::<TICK_LEN>();
        if !rest.is_empty() || ticks.len() > CHUNK_LEN {
            return Err(StateError::Corrupt(format!("a chunk of {} bytes", bytes.len())));
        }
        if number > self.last.number {
            self.delete(number);
            return Ok(Vec::new());
        }
        let mut chunk = Chunk::new(number);
        ticks.iter().for_each(|bytes| chunk.push(read(*bytes)));
        let ticks = chunk.ticks.clone();
        if number == self.last.number {
            self.last = chunk;
        } else {
            self.full.push(Reverse((chunk.newest, number)));
        }
        Ok(ticks)
    }

    /// Deletes a chunk that belongs to nothing.
    pub(crate) fn delete(&mut self, number: u64) {
        self.deleted.push(number);
    }

    /// Deletes all chunks.
    pub(crate) fn clear(&mut self) {
        self.begin_chunk();
        self.forget(i64::MAX);
    }

    #[cold]
    fn begin_chunk(&mut self) {
        let next = Chunk::new(self.last.number + 1);
        let full = std::mem::replace(&mut self.last, next);
        self.full.push(Reverse((full.newest, full.number)));
        self.unsaved.push(full);
        self.is_last_changed = false;
    }

    fn forget(&mut self, time: i64) {
        while let Some(Reverse((newest, number))) = self.full.peek().copied()
            && newest <= time
        {
            self.full.pop();
            self.unsaved.retain(|chunk| chunk.number != number);
            self.deleted.push(number);
        }
    }
}

impl Chunk {
    fn new(number: u64) -> Self {
        Self { number, newest: i64::MIN, ticks: Vec::new() }
    }

    #[inline]
    fn push(&mut self, tick: Tick) {
        self.newest = self.newest.max(tick.time);
        self.ticks.push(tick);
    }

    fn save(&self, keep: i64, parts: &mut StateParts) {
        let mut bytes = Vec::with_capacity(self.ticks.len() * TICK_LEN);
        for tick in &self.ticks {
            bytes.extend_from_slice(&tick.time.to_le_bytes());
            bytes.extend_from_slice(&tick.price.to_le_bytes());
        }
        parts.save(self.number, bytes, Some(self.newest.saturating_add(keep)));
    }
}

fn read([t0, t1, t2, t3, t4, t5, t6, t7, p @ ..]: [u8; TICK_LEN]) -> Tick {
    Tick { time: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]), price: f64::from_le_bytes(p) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_reads_back_bit_by_bit() {
        let tick = Tick { time: -1_723_161_255_342_000_001, price: 61_837.63 };
        let mut bytes = [0; TICK_LEN];
        bytes[..8].copy_from_slice(&tick.time.to_le_bytes());
        bytes[8..].copy_from_slice(&tick.price.to_le_bytes());
        assert_eq!(read(bytes), tick);
    }

    #[test]
    fn full_chunks_go_when_their_newest_trade_is_forgotten() {
        let mut journal = Journal::default();
        for at in 0..3 * CHUNK_LEN as i64 {
            let time = if at == 0 { 700 } else { at };
            journal.push(Tick { time, price: 1.0 }, 600);
        }
        assert_eq!(journal.deleted, [2], "the first holds a trade from ahead");
        assert_eq!(journal.unsaved.iter().map(|chunk| chunk.number).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn bytes_that_are_no_chunk_are_refused() {
        assert!(Journal::default().load(1, &[0; TICK_LEN + 1]).is_err());
        assert!(Journal::default().load(1, &[0; TICK_LEN * (CHUNK_LEN + 1)]).is_err());
        assert_eq!(Journal::default().load(1, &[0; TICK_LEN]).unwrap().len(), 1);
    }
}
