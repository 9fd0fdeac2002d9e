//! A set of numeric ids, 64 in a block: what a vendor counts up takes less than a byte an id.

use rustc_hash::FxHashMap;

const BITS: u32 = u64::BITS.trailing_zeros();
/// No id lies in it: a block's number has 58 bits.
const NO_BLOCK: u64 = u64::MAX;
const EMPTY: Block = Block { mask: 0, expires_at: i64::MIN };
/// A map that is emptier than one in this many is made smaller after a sweep.
const SPARE_MAX: usize = 4;

/// Ids by block. All ids of a block are remembered until the newest of them is forgotten.
pub(crate) struct Blocks {
    others: FxHashMap<u64, Block>,
    /// Number of the block that was touched last. It lies in `last`, and `others` may have an older version of it.
    at: u64,
    last: Block,
}

#[derive(Clone, Copy)]
struct Block {
    mask: u64,
    expires_at: i64,
}

/// What became of an id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It was in the set.
    Known,
    /// It is new. It is remembered until `expires_at`, and from now on so are the ids `moved` of its block.
    New { expires_at: i64, moved: Moved },
}

/// Ids of a block, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    first: u64,
    mask: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { others: FxHashMap::default(), at: NO_BLOCK, last: EMPTY }
    }
}

impl Blocks {
    /// Puts an id in that is to be remembered until `expires_at` or longer. Ids that have expired count for nothing.
    #[inline]
    pub(crate) fn insert(&mut self, id: u64, expires_at: i64, watermark: i64) -> Inserted {
        let block = self.block_of(id);
        if block.expires_at <= watermark {
            *block = EMPTY;
        }
        let bit = bit_of(id);
        if block.mask & bit != 0 {
            return Inserted::Known;
        }
        let is_moved = expires_at > block.expires_at;
        let moved = Moved { first: id >> BITS << BITS, mask: if is_moved { block.mask } else { 0 } };
        block.expires_at = block.expires_at.max(expires_at);
        block.mask |= bit;
        Inserted::New { expires_at: block.expires_at, moved }
    }

    /// Puts an id in as it was saved. Where a block was saved under several times, all of it is under the latest.
    pub(crate) fn load(&mut self, id: u64, expires_at: i64) {
        let block = self.block_of(id);
        if expires_at > block.expires_at {
            *block = Block { mask: 0, expires_at };
        }
        if expires_at == block.expires_at {
            block.mask |= bit_of(id);
        }
    }

    /// Frees what has expired.
    pub(crate) fn sweep(&mut self, watermark: i64) {
        self.turn_to(NO_BLOCK);
        self.others.retain(|_, block| block.expires_at > watermark);
        if self.others.capacity() / SPARE_MAX > self.others.len() {
            self.others.shrink_to_fit();
        }
    }

    #[inline]
    fn block_of(&mut self, id: u64) -> &mut Block {
        if id >> BITS != self.at {
            self.turn_to(id >> BITS);
        }
        &mut self.last
    }

    fn turn_to(&mut self, number: u64) {
        if self.at != NO_BLOCK {
            self.others.insert(self.at, self.last);
        }
        self.at = number;
        self.last = self.others.get(&number).copied().unwrap_or(EMPTY);
    }

    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        // A table has a power of two of slots, of which 7 in 8 can be filled, and a byte beside each.
        self.others.capacity() * 8 / 7 * (size_of::<(u64, Block)>() + 1)
    }
}

#[inline]
const fn bit_of(id: u64) -> u64 {
    1 << (id % u64::BITS as u64)
}

impl Iterator for Moved {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        if self.mask == 0 {
            return None;
        }
        let bit = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        Some(self.first + u64::from(bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 0;

    fn moved(inserted: Inserted) -> (i64, Vec<u64>) {
        match inserted {
            Inserted::New { expires_at, moved } => (expires_at, moved.collect()),
            Inserted::Known => panic!("known"),
        }
    }

    #[test]
    fn an_id_is_new_once() {
        let mut blocks = Blocks::default();
        for id in [0, 63, 64, u64::MAX, u64::MAX - 1, u64::MAX - 64, 1 << 63] {
            assert_ne!(blocks.insert(id, 10, NOW), Inserted::Known, "{id}");
        }
        for id in [1 << 63, u64::MAX, u64::MAX - 64, u64::MAX - 1, 64, 63, 0] {
            assert_eq!(blocks.insert(id, 20, NOW), Inserted::Known, "{id}");
        }
    }

    #[test]
    fn a_block_moves_to_the_latest_time_and_dies_as_a_whole() {
        let mut blocks = Blocks::default();
        assert_eq!(moved(blocks.insert(1, 10, NOW)), (10, vec![]));
        assert_eq!(moved(blocks.insert(2, 20, NOW)), (20, vec![1]));
        assert_eq!(moved(blocks.insert(3, 10, NOW)), (20, vec![]));
        assert_eq!(blocks.insert(1, 20, 19), Inserted::Known);
        assert_eq!(moved(blocks.insert(1, 30, 20)), (30, vec![]));
        blocks.sweep(29);
        assert_eq!(blocks.insert(1, 30, 29), Inserted::Known);
        blocks.sweep(30);
        assert_eq!(blocks.others.len(), 0);
    }

    #[test]
    fn what_was_saved_under_an_earlier_time_does_not_come_back() {
        let mut blocks = Blocks::default();
        blocks.load(1, 10);
        blocks.load(2, 30);
        blocks.load(3, 10);
        assert_eq!(blocks.insert(2, 30, NOW), Inserted::Known);
        assert_eq!(moved(blocks.insert(1, 30, NOW)), (30, vec![]));
        assert_eq!(moved(blocks.insert(3, 30, NOW)), (30, vec![]));
    }
}
