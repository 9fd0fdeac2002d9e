//! What a key-value store can do, and how much is asked of it at once.

use serde::{Serialize, de::DeserializeOwned};

/// Keys that are asked for, written or deleted at once: what DynamoDB takes, the strictest of the back ends.
const KEYS_MAX: usize = 25;
/// Bytes that are asked for or written at once, unless one value has more.
const BYTES_MAX: u64 = 4 << 20;

/// A key-value store with compare-and-swap.
pub trait Bucket: Sync {
    /// Bytes that a value may have.
    const VALUE_BYTES_MAX: u64;

    /// The values of these keys, no two of which are the same, in their order.
    ///
    /// # Errors
    /// When the store does not answer.
    fn get_many(&self, keys: &[String]) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, StateError>> + Send;

    /// Puts values in, some of them or all of them if it fails.
    ///
    /// # Errors
    /// When the store does not answer.
    fn set_many(&self, values: &[(String, Vec<u8>)]) -> impl Future<Output = Result<(), StateError>> + Send;

    /// Deletes values, some of them or all of them if it fails. Those that are not there are no error.
    ///
    /// # Errors
    /// When the store does not answer.
    fn delete_many(&self, keys: &[String]) -> impl Future<Output = Result<(), StateError>> + Send;

    /// Adds to a number, at once; an absent one is 0, and is there afterwards. Gives the sum.
    ///
    /// # Errors
    /// When the store does not answer, or something else is there.
    fn increment(&self, key: &str, delta: i64) -> impl Future<Output = Result<i64, StateError>> + Send;

    /// What is committed; nothing where nothing is.
    ///
    /// # Errors
    /// When the store does not answer, or something else is there.
    fn head(&self, key: &str) -> impl Future<Output = Result<Option<Head>, StateError>> + Send;

    /// Puts a head in the place of the one whose number is `expected`, at once; whether that was there. Where there is none,
    /// its number is 0. A store that cannot do so where there is nothing has [`page_beside`] to itself, with the head's
    /// number: nobody else writes there, and it is deleted unless this happens.
    ///
    /// # Errors
    /// When the store does not answer: it may have happened.
    fn swap(&self, key: &str, expected: u64, head: &Head) -> impl Future<Output = Result<bool, StateError>> + Send;
}

/// The key of a page, in the scope whose head has this key.
pub fn page_beside(head: &str, number: u64) -> String {
    let scope = head.rsplit_once('/').map_or("", |(scope, _)| scope);
    format!("{scope}/{number}")
}

/// What is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Above 0, and never that of another commit.
    pub number: u64,
    /// What belongs to it.
    pub root: Vec<u8>,
}

impl Head {
    /// Both as one value: the number in 8 bytes, the lowest first, and the rest.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.number.to_le_bytes(), self.root.as_slice()].concat()
    }

    /// What such a value says; nothing if it is none.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, root) = bytes.split_first_chunk()?;
        Some(Self { number: u64::from_le_bytes(*number), root: root.to_vec() }).filter(|head| head.number > 0)
    }
}

/// Why there is no state, or no commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another commit has happened since. It may be tried again from the beginning.
    #[error("another request has changed the state meanwhile")]
    Conflict,
    /// The store failed.
    #[error("the key-value store: {0}")]
    Store(String),
    /// What is stored is none of ours.
    #[error("the key-value store holds something else, or nothing, at {0}")]
    Corrupt(String),
    /// There is no room for more state.
    #[error("{area:?} would have {bytes} bytes of state; it may have {max}")]
    Full {
        /// The stage or session.
        area: String,
        /// What it would have.
        bytes: u64,
        /// What it may have.
        max: u64,
    },
}

/// Keys with their values.
type Found = Vec<(String, Option<Vec<u8>>)>;

/// The values of these keys, in their order; with each key, what its value has in bytes at most.
pub(super) async fn get_all(bucket: &impl Bucket, mut keys: Vec<(String, u64)>) -> Result<Found, StateError> {
    let mut found = Vec::with_capacity(keys.len());
    while !keys.is_empty() {
        let some = keys.drain(..at_once(keys.iter().map(|(_, bytes)| *bytes)));
        let some: Vec<String> = some.map(|(key, _)| key).collect();
        let values = bucket.get_many(&some).await?;
        found.extend(some.into_iter().zip(values));
    }
    Ok(found)
}

/// Puts values in, in their order.
pub(super) async fn set_all(bucket: &impl Bucket, values: &[(String, Vec<u8>)]) -> Result<(), StateError> {
    let mut rest = values;
    while !rest.is_empty() {
        let (some, others) = rest.split_at(at_once(rest.iter().map(|(_, value)| value.len() as u64)));
        bucket.set_many(some).await?;
        rest = others;
    }
    Ok(())
}

/// Deletes values.
pub(super) async fn delete_all(bucket: &impl Bucket, keys: &[String]) -> Result<(), StateError> {
    for some in keys.chunks(KEYS_MAX) {
        bucket.delete_many(some).await?;
    }
    Ok(())
}

/// How many values of these sizes go at once: one at least, if there is one.
fn at_once(sizes: impl Iterator<Item = u64>) -> usize {
    let sums = sizes.scan(0, |sum, bytes| {
        *sum += bytes;
        Some(*sum)
    });
    sums.take(KEYS_MAX).enumerate().take_while(|(at, sum)| *at == 0 || *sum <= BYTES_MAX).count()
}

/// How pages are written, and what is committed along with them: the first byte of each. Another number for whatever changes
/// of these types, so that a program never takes the pages of another one for its own.
const FORMAT: u8 = 2;

pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Numbers, texts and lists of known length can always be written.
    postcard::to_extend(value, vec![FORMAT]).unwrap_or_default()
}

pub(super) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StateError> {
    let corrupt = |reason: String| StateError::Corrupt(format!("{key}: {reason}"));
    match bytes.split_first() {
        Some((&FORMAT, page)) => postcard::from_bytes(page).map_err(|error| corrupt(error.to_string())),
        Some((other, _)) => Err(corrupt(format!("its format is {other}, and this program writes {FORMAT}"))),
        None => Err(corrupt("it is empty".to_owned())),
    }
}
