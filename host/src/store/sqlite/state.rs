//! State entries of stages.

use rusqlite::{Connection, params};

use crate::{contract::Entry, error::Result};

/// The entries of a stage, by key and part.
pub(super) fn read(conn: &Connection, stage: &str) -> Result<Vec<Entry>> {
    let mut statement = conn.prepare_cached(
        "SELECT key, part, version, value, wake_at, expires_at FROM tapeline_state WHERE stage = ?1 ORDER BY key, part",
    )?;
    let entries = statement.query_map([stage], |row| {
        Ok(Entry {
            key: row.get(0)?,
            part: row.get::<_, i64>(1)?.cast_unsigned(),
            version: row.get(2)?,
            value: Some(row.get(3)?),
            wake_at: row.get(4)?,
            expires_at: row.get(5)?,
        })
    })?;
    let mut entries = entries.collect::<rusqlite::Result<Vec<_>>>()?;
    // Parts from 2^63 on are negative in SQLite, and came first.
    entries.sort_by(|a, b| (&a.key, a.part).cmp(&(&b.key, b.part)));
    Ok(entries)
}

/// Puts changed entries of a stage in place; those without a value are deleted.
pub(super) fn change(conn: &Connection, stage: &str, entries: &[Entry]) -> Result<()> {
    let mut put = conn.prepare_cached("INSERT OR REPLACE INTO tapeline_state VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    let mut delete = conn.prepare_cached("DELETE FROM tapeline_state WHERE stage = ?1 AND key = ?2 AND part = ?3")?;
    for entry in entries {
        let part = entry.part.cast_signed();
        match &entry.value {
            Some(value) => {
                put.execute(params![stage, entry.key, part, entry.version, value, entry.wake_at, entry.expires_at])?
            }
            None => delete.execute(params![stage, entry.key, part])?,
        };
    }
    Ok(())
}
