//! Answers that are kept, for those who did not get theirs and ask again.
//!
//! Whoever gives a request a key of its own (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header-07) is given the
//! answer of the first such request, if it was committed: its rows come again although its records would be duplicates.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Meta, Scope,
    bucket::{Bucket, StateError},
    tree::{Page, Root},
};

/// Bytes of the answers that a scope keeps, and so of one: less than Spin hands to a component at once (128 MiB).
pub const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// A request that has a key.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Given by whoever asks: 1 to 128 bytes.
    pub key: &'a str,
    /// What was asked for, besides the body.
    pub parameters: &'a str,
    /// What was sent.
    pub body: &'a [u8],
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    New,
    /// Another one had its key.
    OtherRequest,
    /// It was answered so.
    Answered(Vec<u8>),
}

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    key: String,
    digest: [u8; 32],
    page: Page,
    bytes: u64,
}

impl Kept {
    pub(super) fn new(request: Request<'_>, page: Page, bytes: u64) -> Self {
        Self { key: request.key.to_owned(), digest: digest(request), page, bytes }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn page(&self) -> Page {
        self.page
    }

    pub(super) const fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

impl<B: Bucket, M: Meta> Scope<'_, B, M> {
    /// What is known of a request when `root` is the last.
    ///
    /// # Errors
    /// `Conflict` when that is no longer the last.
    pub async fn known(&self, root: &Root<M>, request: Request<'_>) -> Result<Known, StateError> {
        let Some(kept) = root.answers.iter().find(|kept| kept.key == request.key) else { return Ok(Known::New) };
        if kept.digest != digest(request) {
            return Ok(Known::OtherRequest);
        }
        let key = self.page_key(kept.page);
        match self.get(&key).await? {
            Some(answer) => Ok(Known::Answered(answer)),
            None => Err(self.missing(root.id, key).await),
        }
    }
}

fn digest(request: Request<'_>) -> [u8; 32] {
    let digest = Sha256::new().chain_update(request.parameters).chain_update([0]).chain_update(request.body);
    digest.finalize().into()
}
