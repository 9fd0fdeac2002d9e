//! Rows into tables. This is where a pipeline spends most of a commit.

use rusqlite::{
    CachedStatement, Connection, ErrorCode, ToSql,
    types::{ToSqlOutput, ValueRef},
};
use tapeline_events::Unit;

use super::catalog::Layout;
use crate::{
    contract::{Cells, Rows, Texts},
    error::{Error, Kind, Result},
};

/// Puts rows into their table, in place of those with the same key, within the caller's transaction.
///
/// # Errors
/// `Invalid` when they do not fit.
pub(super) fn put(conn: &Connection, rows: &Rows) -> Result<()> {
    let count = check_cells(rows)?;
    let layout = Layout::for_rows(conn, rows)?;
    let mut statement = conn.prepare_cached(&layout.insert_sql())?;
    bind_digits(&mut statement, rows)?;
    for at in 0..count {
        for (parameter, column) in (1..).zip(&rows.columns) {
            statement.raw_bind_parameter(parameter, Cell { cells: &column.cells, at })?;
        }
        statement.raw_execute().map_err(|error| not_put(rows, error))?;
    }
    Ok(())
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

/// The digits are the same for all rows of a call: what is bound stays bound.
fn bind_digits(statement: &mut CachedStatement<'_>, rows: &Rows) -> Result<()> {
    let times = rows.columns.iter().filter_map(|column| match &column.cells {
        Cells::Times((_, unit)) => Some(*unit),
        _ => None,
    });
    for (parameter, unit) in (rows.columns.len() + 1..).zip(times) {
        statement.raw_bind_parameter(parameter, digits(unit.into()))?;
    }
    Ok(())
}

/// One cell, bound without a copy of ours.
struct Cell<'a> {
    cells: &'a Cells,
    at: usize,
}

impl ToSql for Cell<'_> {
    /// The place is inside of all columns: [`check_cells`] saw to it. `NaN` is bound as NULL, by SQLite.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "as the doc says")]
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.cells {
            Cells::Texts(texts) => ValueRef::Text(text(texts, self.at)),
            Cells::Integers(cells) | Cells::Times((cells, _)) => ValueRef::Integer(cells[self.at]),
            Cells::Numbers(cells) => ValueRef::Real(cells[self.at]),
            Cells::Booleans(cells) => ValueRef::Integer(i64::from(cells[self.at] != 0)),
        }))
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
fn not_put(rows: &Rows, error: rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        let message = format!("put a row into table {:?} that has no value in a key column", rows.table);
        return Error::caused(Kind::Invalid, message, error);
    }
    error.into()
}
