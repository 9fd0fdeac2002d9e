//! Which files were read and which components ran, so that what came of them can be made again.

use rusqlite::{Connection, params};

use super::super::{Commit, InputFile, Ran, Runs};
use crate::error::{Error, Kind, Result};

/// Notes what is new with a commit, before its progress takes the place of the last one.
pub(super) fn note(conn: &Connection, commit: &Commit) -> Result<()> {
    let progress = &commit.progress;
    // A file that waits behind others is noted when its turn comes: so the journal number says what was read before it.
    for input in progress.inputs.iter().filter(|input| input.offset > 0 || input.is_done) {
        let mut add = conn.prepare_cached(
            "INSERT INTO tapeline_inputs (digest, path, format, journal_sequence)
             SELECT ?1, ?2, ?3, ?4
             WHERE NOT EXISTS (SELECT 1 FROM tapeline_inputs WHERE digest = ?1 AND format = ?3)",
        )?;
        add.execute(params![input.digest, input.path, input.format, progress.journal_sequence as i64])?;
    }
    if commit.ran.is_empty() {
        return Ok(());
    }
    // From where on: what was committed last.
    let before = conn.query_row("SELECT progress FROM tapeline_commit", [], |row| row.get::<_, Option<String>>(0))?;
    let before: super::Progress = match before {
        None => super::Progress::default(),
        Some(text) => serde_json::from_str(&text).map_err(corrupt)?,
    };
    let inputs = serde_json::to_string(&before.inputs).map_err(corrupt)?;
    for Runs { stage, digest, settings, has_own_state } in &commit.ran {
        let mut add = conn.prepare_cached(
            "INSERT INTO tapeline_ran (stage, digest, settings, journal_sequence, inputs, has_own_state)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6
             WHERE NOT EXISTS (
                 SELECT 1 FROM (
                     SELECT digest, settings FROM tapeline_ran WHERE stage = ?1 ORDER BY number DESC LIMIT 1
                 ) WHERE digest = ?2 AND settings = ?3
             )",
        )?;
        add.execute(params![stage, digest, settings, before.journal_sequence as i64, inputs, has_own_state])?;
    }
    Ok(())
}

/// As [`super::Store::inputs_ever`].
pub(super) fn inputs(conn: &Connection) -> Result<Vec<(InputFile, u64)>> {
    let mut read =
        conn.prepare_cached("SELECT digest, path, format, journal_sequence FROM tapeline_inputs ORDER BY number")?;
    let rows = read.query_map([], |row| {
        let (digest, path, format) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((InputFile { digest, path, format, offset: 0, is_done: false }, row.get::<_, i64>(3)? as u64))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// As [`super::Store::ran`].
pub(super) fn ran(conn: &Connection) -> Result<Vec<Ran>> {
    // Data of version 3 does not say it.
    let has_own_state = match conn.column_exists(None, "tapeline_ran", "has_own_state")? {
        true => "has_own_state",
        false => "NULL",
    };
    let mut read = conn.prepare_cached(&format!(
        "SELECT stage, digest, settings, journal_sequence, {has_own_state}, inputs FROM tapeline_ran ORDER BY number"
    ))?;
    let rows = read.query_map([], |row| {
        let (stage, digest, settings) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (journal_sequence, has_own_state) = (row.get::<_, i64>(3)? as u64, row.get(4)?);
        let ran = Ran { stage, digest, settings, has_own_state, journal_sequence, inputs: Vec::new() };
        Ok((ran, row.get::<_, String>(5)?))
    })?;
    rows.map(|row| {
        let (ran, inputs) = row?;
        Ok(Ran { inputs: serde_json::from_str(&inputs).map_err(corrupt)?, ..ran })
    })
    .collect()
}

fn corrupt(error: serde_json::Error) -> Error {
    Error::caused(Kind::Corrupt, "read what has run", error)
}
