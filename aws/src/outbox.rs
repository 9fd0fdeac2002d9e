//! What a commit gives out: stored with it, and sent and written once it has happened, by whoever comes first.
//!
//! So nothing goes out that is not committed, and all of it does, however often somebody dies between the two. Doing it
//! again does no harm: messages and parts of files have numbers, rows know what wrote them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use tapeline_invoke::{
    Hop,
    contract::{Append, Rows},
};
use tapeline_state::{Bucket, Meta, Root, Scope, StateError};

use crate::sink::Line;

/// Bytes of a piece, in which it is stored: an item of DynamoDB has 400 KB.
const PIECE_BYTES_MAX: usize = 380_000;
/// Bytes of an outbox: what one call of the stages gives out, in messages of at most 190 KB each.
const BYTES_MAX: u64 = 256 << 20;
/// How it is written.
const VERSION: u8 = 2;

/// What a commit gives out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outbox {
    /// The commit of work that it is of.
    pub(crate) step: u64,
    /// Messages by partition, each with its number.
    pub(crate) out: BTreeMap<u32, Vec<(u64, Hop)>>,
    /// Rows of the writer.
    pub(crate) rows: Vec<Rows>,
    /// Its appends.
    pub(crate) appends: Vec<Append>,
    /// JSON lines of alarms.
    pub(crate) alarms: Vec<String>,
    /// JSON lines of records that are late or dead, by the stage that put them aside.
    pub(crate) aside: Vec<(String, Vec<u8>)>,
    /// What is added to the ledger.
    pub(crate) ledger: Vec<Line>,
}

impl Outbox {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
            && self.rows.is_empty()
            && self.appends.is_empty()
            && self.alarms.is_empty()
            && self.aside.is_empty()
            && self.ledger.is_empty()
    }

    /// Whether somebody is told something who cannot know that it was told before.
    pub(crate) const fn tells(&self) -> bool {
        !self.alarms.is_empty()
    }

    /// In pieces; none if there is nothing in it.
    ///
    /// # Errors
    /// When there is too much in it.
    pub(crate) fn pieces(&self) -> Result<Vec<Vec<u8>>, StateError> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let unfit = |error: &dyn std::fmt::Display| StateError::Corrupt(format!("outbox: {error}"));
        let bytes = postcard::to_allocvec(self).map_err(|error| unfit(&error))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(StateError::Full { area: "outbox".to_owned(), bytes: bytes.len() as u64, max: BYTES_MAX });
        }
        let mut gzip = GzEncoder::new(vec![VERSION], Compression::fast());
        let packed = gzip.write_all(&bytes).and_then(|()| gzip.finish()).map_err(|error| unfit(&error))?;
        Ok(packed.chunks(PIECE_BYTES_MAX).map(<[u8]>::to_vec).collect())
    }

    /// What a commit gave out; `None` if it gave out nothing.
    ///
    /// # Errors
    /// `Conflict` when others have committed since: then it was sent. `Corrupt` when it cannot be read.
    pub(crate) async fn of_commit<B: Bucket, M: Meta>(
        scope: &Scope<'_, B, M>,
        root: &Root<M>,
    ) -> Result<Option<Self>, StateError> {
        if !root.has_outbox() {
            return Ok(None);
        }
        let corrupt = || StateError::Corrupt(format!("{}: outbox", scope.name()));
        Self::of_pieces(&scope.outbox(root).await?).ok_or_else(corrupt).map(Some)
    }

    /// What was in these pieces; `None` if that cannot be read.
    fn of_pieces(pieces: &[Vec<u8>]) -> Option<Self> {
        if pieces.is_empty() {
            return Some(Self::default());
        }
        let (packed, mut bytes) = (pieces.concat(), Vec::new());
        let packed = packed.strip_prefix(&[VERSION])?;
        GzDecoder::new(packed).take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        postcard::from_bytes(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_comes_out_as_it_was() {
        // What does not become smaller, so that there are several pieces.
        let noise = (0..600_000_u32).map(|at| format!("{:x}", at.wrapping_mul(0x9e37_79b9) ^ (at >> 3)));
        let alarms = vec![noise.collect::<String>()];
        let outbox = Outbox { step: 7, alarms, ..Outbox::default() };
        let pieces = outbox.pieces().unwrap();
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        assert_eq!(Outbox::of_pieces(&pieces), Some(outbox));
        assert_eq!(Outbox::of_pieces(&pieces[1..]), None);
        assert_eq!(Outbox::default().pieces(), Ok(Vec::new()));
        assert_eq!(Outbox::of_pieces(&[]), Some(Outbox::default()));
    }
}
