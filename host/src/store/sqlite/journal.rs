//! The journal: raw records in blocks, numbered without gaps.
//!
//! A block is one row: records one behind the other, each as format, stage, receive time and bytes, with lengths in
//! front; compressed when that pays.

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    error::{Context, Error, Kind, Result},
    store::{JournalEntry, JournalRecord},
};

/// Bytes after which a block is full. Reading from the middle of one unpacks what is before it: that takes 0.3 ms.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one record. A frame of any feed is below 1 MiB; SQLite takes values of up to 1 GB.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the texts around a record: its format and its stage.
const NAME_BYTES_MAX: usize = 255;
/// Bytes from which on a block is compressed: below, it would save less than a page.
const PACK_BYTES_MIN: usize = 1024;
/// The fastest level: JSON shrinks to a fifth, at 300 MB a second.
const PACK_LEVEL: i32 = 1;
/// Bytes of a block before it is compressed: one that is nearly full, the largest record, and what is around it. A wrong
/// number in the file must not take all memory.
const UNPACKED_BYTES_MAX: usize = BLOCK_BYTES_MAX + RECORD_BYTES_MAX + 4 * NAME_BYTES_MAX;
/// The length of a text that is not there.
const ABSENT: u32 = u32::MAX;

/// Whether records still have to be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Processed,
}

/// Puts records at the end, within the caller's transaction, and gives the number of the last record.
pub(super) fn append(conn: &Connection, records: &[JournalRecord], standing: Standing) -> Result<u64> {
    let mut end = end(conn)?;
    let mut block = Vec::new();
    let mut first = end + 1;
    for record in records {
        encode(record, &mut block)?;
        end += 1;
        if block.len() >= BLOCK_BYTES_MAX {
            insert(conn, first..=end, &block, standing)?;
            block.clear();
            first = end + 1;
        }
    }
    if !block.is_empty() {
        insert(conn, first..=end, &block, standing)?;
    }
    Ok(end)
}

/// Number of the last record; 0 when there is none.
pub(super) fn end(conn: &Connection) -> Result<u64> {
    let mut statement = conn.prepare_cached("SELECT last FROM tapeline_journal ORDER BY first DESC LIMIT 1")?;
    let last: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(last.map_or(0, i64::cast_unsigned))
}

/// Moves a position over the records directly behind it that are processed already.
pub(super) fn pass_processed(conn: &Connection, mut sequence: u64) -> Result<u64> {
    let mut statement = conn.prepare_cached("SELECT last FROM tapeline_journal WHERE first = ?1 AND is_processed")?;
    while let Some(last) = statement.query_row([as_key(sequence + 1)], |row| row.get::<_, i64>(0)).optional()? {
        sequence = last.cast_unsigned();
    }
    Ok(sequence)
}

/// Records behind `after`, at least one if there is one.
pub(super) fn read(conn: &Connection, after: u64, records_max: usize, bytes_max: usize) -> Result<Vec<JournalEntry>> {
    let mut statement = conn.prepare_cached(
        "SELECT first, last, is_processed, bytes_unpacked, records FROM tapeline_journal
         WHERE first >= (SELECT coalesce(max(first), 0) FROM tapeline_journal WHERE first <= ?1) ORDER BY first",
    )?;
    let mut blocks = statement.query([as_key(after.saturating_add(1))])?;
    let mut page = Page { entries: Vec::new(), bytes: 0, records_max, bytes_max };
    while let Some(row) = blocks.next()? {
        let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
        let packed = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        let block = Block { first: first.cast_unsigned(), last: last.cast_unsigned(), is_processed: row.get(2)? };
        let is_full = unpack(row.get(3)?, packed)
            .and_then(|bytes| block.read(&bytes, after, &mut page))
            .doing(|| format!("read journal records {first} to {last}"))?;
        if is_full {
            break;
        }
    }
    Ok(page.entries)
}

struct Block {
    first: u64,
    last: u64,
    is_processed: bool,
}

/// The records that a call gives out, and how many they may be.
struct Page {
    entries: Vec<JournalEntry>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

impl Page {
    fn has_room(&self, bytes: usize) -> bool {
        self.entries.is_empty() || (self.entries.len() < self.records_max && self.bytes + bytes <= self.bytes_max)
    }
}

impl Block {
    /// Puts the records behind `after` into the page. Gives whether it is full.
    fn read(&self, mut bytes: &[u8], after: u64, page: &mut Page) -> Result<bool> {
        for sequence in self.first..=self.last {
            let record = Encoded::take(&mut bytes).ok_or_else(corrupt)?;
            if sequence <= after {
                continue;
            }
            if !page.has_room(record.bytes.len()) {
                return Ok(true);
            }
            page.bytes += record.bytes.len();
            let record = record.decode().ok_or_else(corrupt)?;
            page.entries.push(JournalEntry { sequence, is_processed: self.is_processed, record });
        }
        if bytes.is_empty() { Ok(false) } else { Err(corrupt()) }
    }
}

fn insert(conn: &Connection, numbers: std::ops::RangeInclusive<u64>, block: &[u8], standing: Standing) -> Result<()> {
    let packed = if block.len() < PACK_BYTES_MIN { None } else { Some(zstd::bulk::compress(block, PACK_LEVEL)?) };
    let unpacked = packed.is_some().then_some(block.len() as i64);
    let is_processed = standing == Standing::Processed;
    let records = packed.as_deref().unwrap_or(block);
    conn.prepare_cached("INSERT INTO tapeline_journal VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        as_key(*numbers.start()),
        as_key(*numbers.end()),
        is_processed,
        unpacked,
        records
    ])?;
    Ok(())
}

fn unpack(bytes_unpacked: Option<i64>, packed: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>> {
    let Some(length) = bytes_unpacked else { return Ok(packed.into()) };
    let length = usize::try_from(length).ok().filter(|length| *length <= UNPACKED_BYTES_MAX);
    let block = zstd::bulk::decompress(packed, length.ok_or_else(corrupt)?)
        .map_err(|error| Error::caused(Kind::Corrupt, "unpack them", error))?;
    Ok(block.into())
}

fn corrupt() -> Error {
    Error::new(Kind::Corrupt, "find in them what was stored")
}

fn encode(record: &JournalRecord, block: &mut Vec<u8>) -> Result<()> {
    if record.bytes.len() > RECORD_BYTES_MAX {
        let (bytes, max) = (record.bytes.len(), RECORD_BYTES_MAX);
        return Err(Error::invalid(format!("store a record of {bytes} bytes; {max} are the most")));
    }
    let stage = record.stage.as_deref().unwrap_or_default();
    if record.format.len().max(stage.len()) > NAME_BYTES_MAX {
        return Err(Error::invalid("store a record whose format or stage has a name of more than 255 bytes"));
    }
    put(block, record.format.as_bytes());
    match &record.stage {
        Some(stage) => put(block, stage.as_bytes()),
        None => block.extend_from_slice(&ABSENT.to_le_bytes()),
    }
    block.extend_from_slice(&record.received.unwrap_or(i64::MIN).to_le_bytes());
    put(block, &record.bytes);
    Ok(())
}

fn put(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    block.extend_from_slice(bytes);
}

/// A record as it lies in a block.
struct Encoded<'a> {
    format: &'a [u8],
    stage: Option<&'a [u8]>,
    received: i64,
    bytes: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn take(block: &mut &'a [u8]) -> Option<Self> {
        Some(Self {
            format: take(block)??,
            stage: take(block)?,
            received: i64::from_le_bytes(*block.split_off(..8)?.first_chunk()?),
            bytes: take(block)??,
        })
    }

    fn decode(&self) -> Option<JournalRecord> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let stage = match self.stage {
            Some(stage) => Some(text(stage)?),
            None => None,
        };
        let received = (self.received != i64::MIN).then_some(self.received);
        Some(JournalRecord { format: text(self.format)?, stage, received, bytes: self.bytes.to_vec() })
    }
}

/// Takes bytes with their length in front; the inner `None` says that they are absent.
fn take<'a>(block: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = u32::from_le_bytes(*block.split_off(..4)?.first_chunk()?);
    if length == ABSENT {
        return Some(None);
    }
    block.split_off(..length as usize).map(Some)
}

/// A number as SQLite keeps it. No journal has 2^63 records.
fn as_key(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(format: &str, stage: Option<&str>, received: Option<i64>, bytes: &[u8]) -> JournalRecord {
        JournalRecord { format: format.to_owned(), stage: stage.map(str::to_owned), received, bytes: bytes.to_vec() }
    }

    #[test]
    fn records_are_read_back() {
        let records = [
            record("binance", None, Some(-1), b"{}"),
            record("events", Some("alarm"), None, b""),
            record("", Some(""), Some(i64::MAX), &[0, 255]),
        ];
        let mut block = Vec::new();
        records.iter().for_each(|record| encode(record, &mut block).unwrap());
        let mut rest = block.as_slice();
        for record in records {
            assert_eq!(Encoded::take(&mut rest).unwrap().decode(), Some(record));
        }
        assert!(rest.is_empty());
        for end in 0..block.len() {
            let mut rest = &block[..end];
            while Encoded::take(&mut rest).is_some() {}
        }
    }

    #[test]
    fn a_wrong_length_is_corrupt() {
        assert_eq!(unpack(Some(i64::MAX), b"x").unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(unpack(Some(5), b"x").unwrap_err().kind(), Kind::Corrupt);
    }
}
