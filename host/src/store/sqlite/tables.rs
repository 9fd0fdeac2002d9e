//! Rows into tables. This is where a pipeline spends most of a commit.

use std::collections::BTreeMap;

use rusqlite::{
    CachedStatement, Connection, ErrorCode,
    types::{ToSqlOutput, ValueRef},
};
use rustc_hash::FxHashMap;
use tapeline_events::Unit;

use super::catalog::Layout;
use crate::{
    contract::{Cells, Rows, Texts},
    error::{Error, Kind, Result},
};

/// Rows that are sorted at a time. Each takes some 200 bytes until it is put: more would not stay in the processor's cache.
const ROWS_AT_ONCE: usize = 16 * 1024;

/// Rows that one statement puts: it takes a fifth less time than one statement for each. More bring nothing, and SQLite
/// has a limit of 32,766 parameters.
const ROWS_PER_STATEMENT: usize = 32;

/// Puts rows into their tables, in place of those with the same key, within the caller's transaction. Of rows with one
/// key the last stays.
///
/// # Errors
/// `Invalid` when they do not fit.
pub(super) fn put(conn: &Connection, rows: &[Rows]) -> Result<()> {
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    for rows in rows {
        tables.entry(&rows.table).or_default().push(rows);
    }
    tables.values().try_for_each(|runs| put_runs(conn, runs))
}

/// How many digits times of a unit print with.
pub(super) const fn digits(unit: Unit) -> i64 {
    match unit {
        Unit::Seconds => 0,
        Unit::Milliseconds => 3,
        Unit::Microseconds => 6,
        Unit::Nanoseconds => 9,
    }
}

/// The unit that prints with so many digits; all of them when that is not known.
pub(super) const fn unit(digits: Option<i64>) -> Unit {
    match digits {
        Some(0) => Unit::Seconds,
        Some(3) => Unit::Milliseconds,
        Some(6) => Unit::Microseconds,
        _ => Unit::Nanoseconds,
    }
}

/// Puts runs of rows into the one table that they are for.
fn put_runs(conn: &Connection, runs: &[&Rows]) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let layout = Layout::for_rows(conn, first)?;
    let mut insert = Insert {
        many: conn.prepare_cached(&layout.insert_sql(ROWS_PER_STATEMENT))?,
        one: conn.prepare_cached(&layout.insert_sql(1))?,
        layout: &layout,
    };
    let mut waiting = Waiting { groups: FxHashMap::default(), count: 0 };
    for rows in runs {
        layout.check(rows)?;
        for at in 0..check_cells(rows)? {
            waiting.push(rows, at);
            if waiting.count == ROWS_AT_ONCE {
                waiting.put(&mut insert)?;
            }
        }
    }
    waiting.put(&mut insert)
}

/// Rows that wait to be put, those of one first key (most often a symbol) together: they go to the same pages, which
/// halves the time that it takes. Rows with one key stay in order.
struct Waiting<'a> {
    /// By first key: the parameters of each row, one row behind the other.
    groups: FxHashMap<&'a [u8], Vec<ValueRef<'a>>>,
    count: usize,
}

impl<'a> Waiting<'a> {
    #[inline]
    fn push(&mut self, rows: &'a Rows, at: usize) {
        let key = match rows.columns.first().map(|column| &column.cells) {
            Some(Cells::Texts(texts)) => text(texts, at),
            _ => b"",
        };
        let group = self.groups.entry(key).or_default();
        group.extend(rows.columns.iter().map(|column| cell(&column.cells, at)));
        group.extend(rows.columns.iter().filter_map(|column| match &column.cells {
            Cells::Times((_, unit)) => Some(ValueRef::Integer(digits((*unit).into()))),
            _ => None,
        }));
        self.count += 1;
    }

    fn put(&mut self, insert: &mut Insert<'_>) -> Result<()> {
        let mut groups: Vec<_> = self.groups.iter_mut().collect();
        groups.sort_unstable_by_key(|(key, _)| **key);
        for (_, group) in groups {
            insert.put(group)?;
            group.clear();
        }
        self.count = 0;
        Ok(())
    }
}

/// The statements that put rows into a table.
struct Insert<'a> {
    many: CachedStatement<'a>,
    one: CachedStatement<'a>,
    layout: &'a Layout,
}

impl Insert<'_> {
    /// Puts rows, given as their parameters one behind the other.
    fn put(&mut self, parameters: &[ValueRef<'_>]) -> Result<()> {
        let width = self.layout.width();
        let mut pieces = parameters.chunks_exact(width * ROWS_PER_STATEMENT);
        for piece in &mut pieces {
            execute(&mut self.many, self.layout, piece)?;
        }
        pieces.remainder().chunks_exact(width).try_for_each(|row| execute(&mut self.one, self.layout, row))
    }
}

fn execute(statement: &mut CachedStatement<'_>, layout: &Layout, parameters: &[ValueRef<'_>]) -> Result<()> {
    for (parameter, value) in (1..).zip(parameters) {
        statement.raw_bind_parameter(parameter, ToSqlOutput::Borrowed(*value))?;
    }
    statement.raw_execute().map_err(|error| not_put(layout, error))?;
    Ok(())
}

/// A value as it is bound, without a copy. SQLite takes `NaN` for NULL.
#[inline]
#[expect(clippy::indexing_slicing, reason = "check_cells saw to it that all columns have a cell there")]
fn cell(cells: &Cells, at: usize) -> ValueRef<'_> {
    match cells {
        Cells::Texts(texts) => ValueRef::Text(text(texts, at)),
        Cells::Integers(cells) | Cells::Times((cells, _)) => ValueRef::Integer(cells[at]),
        Cells::Numbers(cells) => ValueRef::Real(cells[at]),
        Cells::Booleans(cells) => ValueRef::Integer(i64::from(cells[at] != 0)),
    }
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "check_cells saw to it that the texts are sound")]
fn text(texts: &Texts, at: usize) -> &[u8] {
    let start = if at == 0 { 0 } else { texts.ends[at - 1] as usize };
    &texts.bytes[start..texts.ends[at] as usize]
}

/// Whether all columns have the same number of cells, and which.
fn check_cells(rows: &Rows) -> Result<usize> {
    let count = rows.columns.first().map_or(0, |column| len(&column.cells));
    for column in &rows.columns {
        let is_sound = !matches!(&column.cells, Cells::Texts(texts) if !texts.is_sound());
        if !is_sound || len(&column.cells) != count {
            let (name, table) = (&column.name, &rows.table);
            return Err(Error::invalid(format!("read the {count} cells of column {name:?} for table {table:?}")));
        }
    }
    Ok(count)
}

const fn len(cells: &Cells) -> usize {
    match cells {
        Cells::Texts(texts) => texts.ends.len(),
        Cells::Integers(cells) | Cells::Times((cells, _)) => cells.len(),
        Cells::Numbers(cells) => cells.len(),
        Cells::Booleans(cells) => cells.len(),
    }
}

#[cold]
fn not_put(layout: &Layout, error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        let message = format!("put a row into table {:?} that has no value in a key column", layout.name);
        return Error::caused(Kind::Invalid, message, error);
    }
    error.into()
}
