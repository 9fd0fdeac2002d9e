//! Records that were kept aside, and putting them back into the journal.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::journal::{self, Standing};
use crate::{
    bus::Entrance,
    error::{Error, Result},
    store::{Aside, DeadLetter, JournalRecord},
};

/// Letters that are in memory while they are put back.
const REDRIVE_AT_ONCE: usize = 1000;
/// Format of events as lines, which can enter at any stage.
const EVENTS: &str = "events";
/// The stage that reads raw frames.
const FETCH: &str = "fetch";

/// Stores new letters and numbers them.
pub(super) fn add(conn: &Connection, letters: &[DeadLetter]) -> Result<()> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO tapeline_dead_letters
         VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for letter in letters {
        statement.execute(params![
            letter.aside == Aside::Late,
            letter.is_redriven,
            letter.stage,
            letter.component,
            letter.symbol,
            letter.time,
            letter.reason,
            letter.origin,
            letter.format,
            letter.received,
            letter.payload,
            letter.partition,
        ])?;
    }
    Ok(())
}

/// Letters from number `from` on.
pub(super) fn read(conn: &Connection, from: u64, limit: u64) -> Result<Vec<DeadLetter>> {
    let mut statement =
        conn.prepare_cached("SELECT * FROM tapeline_dead_letters WHERE id >= ?1 ORDER BY id LIMIT ?2")?;
    let bounds = [from, limit].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let letters = statement.query_map(bounds, letter)?;
    Ok(letters.collect::<rusqlite::Result<_>>()?)
}

/// Puts letters back into the journal within the caller's transaction. Gives how many.
pub(super) fn redrive(conn: &Connection, ids: &[u64]) -> Result<u64> {
    let mut count = 0;
    for ids in ids.chunks(REDRIVE_AT_ONCE) {
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            records.extend(take(conn, *id)?);
        }
        journal::append(conn, &records, Standing::Waiting)?;
        count += records.len() as u64;
    }
    Ok(count)
}

/// Marks a letter and gives its record; `None` when it was marked before.
fn take(conn: &Connection, id: u64) -> Result<Option<JournalRecord>> {
    let key = i64::try_from(id).unwrap_or(i64::MAX);
    let mut mark = conn.prepare_cached("UPDATE tapeline_dead_letters SET is_redriven = 1 WHERE id = ?1")?;
    let mut read = conn.prepare_cached("SELECT * FROM tapeline_dead_letters WHERE id = ?1")?;
    let found = read.query_row([key], letter).optional()?;
    let Some(letter) = found else { return Err(Error::not_found(format!("find dead letter {id}"))) };
    if letter.is_redriven {
        return Ok(None);
    }
    mark.execute([key])?;
    Ok(Some(record(letter)))
}

/// A raw frame, and what fetch refused, enters at the start; an event where it was refused.
fn record(letter: DeadLetter) -> JournalRecord {
    let is_first = letter.format != EVENTS || letter.stage == FETCH;
    let enters = Entrance { stage: letter.stage, partition: letter.partition };
    let stage = (!is_first).then(|| enters.to_string());
    JournalRecord { format: letter.format, stage, received: letter.received, bytes: letter.payload }
}

fn letter(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.get(0).map(i64::cast_unsigned)?,
        aside: if row.get(1)? { Aside::Late } else { Aside::Dead },
        is_redriven: row.get(2)?,
        stage: row.get(3)?,
        component: row.get(4)?,
        symbol: row.get(5)?,
        time: row.get(6)?,
        reason: row.get(7)?,
        origin: row.get(8)?,
        format: row.get(9)?,
        received: row.get(10)?,
        payload: row.get(11)?,
        partition: row.get(12)?,
    })
}
