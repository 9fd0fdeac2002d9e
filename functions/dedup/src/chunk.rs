//! A saved part of the state: a head that says whose ids they are, and up to 1,024 ids in the order in which they came.
//!
//! Numbers are saved as the difference to the one before, zigzag and LEB128, so that an id which counts up takes a byte;
//! hashes as 16 bytes, big-endian.

use serde::{Deserialize, Serialize};
use tapeline_sdk::StateError;

/// Ids in a part. A commit writes the part that is being filled anew: at most 16 KiB of hashes, or 1 to 10 KiB of numbers.
const COUNT_MAX: usize = 1024;
/// Longest LEB128 of 64 bits.
const VARINT_MAX: usize = 10;

/// A 128-bit hash, high half first.
pub(crate) type Hash = [u64; 2];

/// What the ids of a part are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Basis {
    /// The vendor's ids that are numbers.
    Number,
    /// Hashes of the vendor's other ids.
    Text,
    /// Event times.
    Time,
    /// Hashes of whole values.
    Value,
}

/// Whose ids a part has, and until when they are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head<'a> {
    pub(crate) source: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) basis: Basis,
    pub(crate) expires_at: i64,
}

/// A part that is being filled.
pub(crate) struct Chunk {
    pub(crate) number: u64,
    pub(crate) expires_at: i64,
    pub(crate) is_changed: bool,
    bytes: Vec<u8>,
    count: usize,
    /// The number before the next one.
    last: u64,
}

impl Chunk {
    pub(crate) fn new(number: u64, head: &Head<'_>) -> Self {
        // Serializing into memory fails only for types without a fixed length, which a head is not.
        let bytes = postcard::to_allocvec(head).unwrap_or_default();
        Self { number, expires_at: head.expires_at, is_changed: true, bytes, count: 0, last: 0 }
    }

    #[inline]
    pub(crate) fn push_number(&mut self, id: u64) {
        let difference = id.wrapping_sub(self.last).cast_signed();
        let mut buffer = [0; VARINT_MAX];
        if let Ok(varint) = postcard::to_slice(&difference, &mut buffer) {
            self.bytes.extend_from_slice(varint);
        }
        self.last = id;
        self.pushed();
    }

    pub(crate) fn push_hash(&mut self, [high, low]: Hash) {
        self.bytes.extend_from_slice(&high.to_be_bytes());
        self.bytes.extend_from_slice(&low.to_be_bytes());
        self.pushed();
    }

    #[inline]
    fn pushed(&mut self) {
        self.count += 1;
        self.is_changed = true;
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.count >= COUNT_MAX
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads a saved part: whose ids they are, the ids, and the part to go on filling.
    ///
    /// # Errors
    /// When the bytes are not a part's.
    pub(crate) fn load(number: u64, bytes: &[u8]) -> Result<(Head<'_>, Ids, Self), StateError> {
        let corrupt = |error: postcard::Error| StateError::Corrupt(format!("part {number}: {error}"));
        let (head, rest) = postcard::take_from_bytes::<Head<'_>>(bytes).map_err(corrupt)?;
        let ids = if head.basis.is_numeric() { numbers(rest) } else { hashes(rest) }.map_err(corrupt)?;
        let (count, last) = match &ids {
            Ids::Numbers(numbers) => (numbers.len(), numbers.last().copied().unwrap_or(0)),
            Ids::Hashes(hashes) => (hashes.len(), 0),
        };
        let chunk = Self { number, expires_at: head.expires_at, is_changed: false, bytes: bytes.to_vec(), count, last };
        Ok((head, ids, chunk))
    }
}

/// The ids of a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ids {
    Numbers(Vec<u64>),
    Hashes(Vec<Hash>),
}

impl Basis {
    /// Whether the ids are numbers, else they are hashes.
    pub(crate) const fn is_numeric(self) -> bool {
        matches!(self, Self::Number | Self::Time)
    }
}

fn numbers(mut bytes: &[u8]) -> Result<Ids, postcard::Error> {
    let (mut ids, mut last) = (Vec::new(), 0_u64);
    while !bytes.is_empty() {
        let (difference, rest) = postcard::take_from_bytes::<i64>(bytes)?;
        last = last.wrapping_add_signed(difference);
        ids.push(last);
        bytes = rest;
    }
    Ok(Ids::Numbers(ids))
}

fn hashes(bytes: &[u8]) -> Result<Ids, postcard::Error> {
    let (hashes, rest) = bytes.as_chunks::<{ size_of::<Hash>() }>();
    if !rest.is_empty() {
        return Err(postcard::Error::DeserializeUnexpectedEnd);
    }
    Ok(Ids::Hashes(hashes.iter().map(|hash| split(u128::from_be_bytes(*hash))).collect()))
}

/// A hash as two words.
pub(crate) const fn split(hash: u128) -> Hash {
    [(hash >> u64::BITS) as u64, hash as u64]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(basis: Basis) -> Head<'static> {
        Head { source: "binance", kind: "trade", basis, expires_at: i64::MIN }
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(ids in proptest::collection::vec(any::<u64>(), 0..50), more in any::<u64>()) {
            let mut chunk = Chunk::new(7, &head(Basis::Number));
            ids.iter().for_each(|id| chunk.push_number(*id));
            let (read, numbers, mut again) = Chunk::load(7, chunk.bytes()).unwrap();
            prop_assert_eq!((read, numbers), (head(Basis::Number), Ids::Numbers(ids)));
            chunk.push_number(more);
            again.push_number(more);
            prop_assert_eq!(chunk.into_bytes(), again.into_bytes());
        }

        #[test]
        fn hashes_are_read_back(ids in proptest::collection::vec(any::<u128>().prop_map(split), 0..50)) {
            let mut chunk = Chunk::new(7, &head(Basis::Value));
            ids.iter().for_each(|id| chunk.push_hash(*id));
            let (read, hashes, _) = Chunk::load(7, chunk.bytes()).unwrap();
            prop_assert_eq!((read, hashes), (head(Basis::Value), Ids::Hashes(ids)));
        }

        #[test]
        fn other_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Chunk::load(0, &bytes);
        }
    }

    #[test]
    fn a_part_that_is_cut_off_is_corrupt() {
        let mut chunk = Chunk::new(7, &head(Basis::Value));
        chunk.push_hash([1, 2]);
        let bytes = chunk.into_bytes();
        let error = Chunk::load(7, &bytes[..bytes.len() - 1]).err().unwrap();
        assert!(matches!(error, StateError::Corrupt(reason) if reason.starts_with("part 7: ")));
    }
}
