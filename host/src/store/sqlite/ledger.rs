//! The ledger: counts by stage, symbol and day, and what rules dropped.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use tapeline_events::Day;

use crate::{
    error::Result,
    store::{Counts, LedgerKey},
};

/// Stands for a day that is not known: before all days, as in a [`LedgerKey`].
const NO_DAY: i64 = i64::MIN;

/// The whole ledger, in the order of its keys.
pub(super) fn read(conn: &Connection) -> Result<Vec<(LedgerKey, Counts)>> {
    let mut ledger = BTreeMap::new();
    let mut statement = conn.prepare_cached("SELECT * FROM tapeline_ledger")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        ledger.insert(key(row)?, counts(row)?);
    }
    let mut statement = conn.prepare_cached("SELECT * FROM tapeline_ledger_dropped")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        ledger.entry(key(row)?).or_default().dropped.insert(row.get(4)?, count(row, 5)?);
    }
    Ok(ledger.into_iter().collect())
}

/// Adds counts to those that are there.
pub(super) fn add(conn: &Connection, ledger: &BTreeMap<LedgerKey, Counts>) -> Result<()> {
    let mut counts_in = conn.prepare_cached(
        "INSERT INTO tapeline_ledger VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT DO UPDATE SET entered = entered + excluded.entered, out = out + excluded.out,
             duplicate = duplicate + excluded.duplicate, late = late + excluded.late, dead = dead + excluded.dead,
             derived = derived + excluded.derived",
    )?;
    let mut dropped_in = conn.prepare_cached(
        "INSERT INTO tapeline_ledger_dropped VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET count = count + excluded.count",
    )?;
    for (key, counts) in ledger {
        let LedgerKey { stage_index, stage, symbol, day } = key;
        let day = day.map_or(NO_DAY, |day| i64::from(day.0));
        let [entered, out, duplicate, late, dead, derived] =
            [counts.entered, counts.out, counts.duplicate, counts.late, counts.dead, counts.derived]
                .map(u64::cast_signed);
        counts_in.execute(params![stage_index, stage, symbol, day, entered, out, duplicate, late, dead, derived])?;
        for (rule, count) in &counts.dropped {
            dropped_in.execute(params![stage_index, stage, symbol, day, rule, count.cast_signed()])?;
        }
    }
    Ok(())
}

fn key(row: &Row<'_>) -> rusqlite::Result<LedgerKey> {
    let day = i32::try_from(row.get::<_, i64>(3)?).ok().map(Day);
    Ok(LedgerKey { stage_index: row.get(0)?, stage: row.get(1)?, symbol: row.get(2)?, day })
}

fn counts(row: &Row<'_>) -> rusqlite::Result<Counts> {
    Ok(Counts {
        entered: count(row, 4)?,
        out: count(row, 5)?,
        duplicate: count(row, 6)?,
        late: count(row, 7)?,
        dead: count(row, 8)?,
        derived: count(row, 9)?,
        dropped: BTreeMap::new(),
    })
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get(at).map(i64::cast_unsigned)
}
