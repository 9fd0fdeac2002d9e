//! Rows and objects that a writer gives out.

use tapeline_events::{TextColumn, Unit};

use crate::{
    bindings::{
        events::{Batch, Input, Texts, TimeUnit},
        writer::exports::tapeline::pipeline::write::{Append, Cells, Column, Rows, Written},
    },
    names::Names,
    stage::{Fates, Output},
};

/// A table that a writer fills.
#[derive(Debug)]
pub struct Table {
    /// Its name: `trades`.
    pub name: &'static str,
    /// How many columns, from the first, are the primary key.
    pub key_columns: u32,
    /// The columns' names, in order.
    pub columns: &'static [&'static str],
}

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// A text.
    Text(&'a str),
    /// An integer; ids above `i64::MAX` do not occur at any vendor.
    Integer(i64),
    /// A binary64; `NaN` is no value.
    Number(f64),
    /// ns since the epoch, printed with the digits of the unit.
    Time(i64, Unit),
    /// True or false.
    Boolean(bool),
}

/// Takes the rows and appends of a call.
#[derive(Default)]
pub struct Tables {
    rows: Vec<(&'static Table, Rows)>,
    appends: Vec<Append>,
}

impl Tables {
    /// Puts a row into a table, in place of an earlier one with the same key.
    ///
    /// # Panics
    /// When there are not as many cells as columns.
    pub fn row(&mut self, table: &'static Table, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), table.columns.len(), "a row of {} has a cell for each column", table.name);
        let at = match self.rows.iter().rposition(|(known, rows)| std::ptr::eq(*known, table) && takes(rows, cells)) {
            Some(at) => at,
            None => {
                self.rows.push((table, empty_rows(table, cells)));
                self.rows.len() - 1
            }
        };
        for (column, cell) in self.rows[at].1.columns.iter_mut().zip(cells) {
            push(&mut column.cells, *cell);
        }
    }

    /// The bytes that are put at the end of an object in this call. `header` is what a new object begins with.
    pub fn object(&mut self, path: &str, header: &[u8]) -> &mut Vec<u8> {
        let at = self.appends.iter().rposition(|append| append.path == path).unwrap_or_else(|| {
            self.appends.push(Append { path: path.to_owned(), header: header.to_vec(), bytes: Vec::new() });
            self.appends.len() - 1
        });
        &mut self.appends[at].bytes
    }
}

impl Output for Tables {
    type Answer = Written;

    fn begin(&mut self, _: &Names) {
        self.rows.clear();
        self.appends.clear();
    }

    fn at(&mut self, _: usize, _: &Batch) {}

    fn finish(&mut self, _: &mut Names, _: &Input, fates: Fates) -> Written {
        Written {
            rules: fates.rules(),
            fates: fates.codes,
            rejects: fates.rejects,
            rows: std::mem::take(&mut self.rows).into_iter().map(|(_, rows)| rows).collect(),
            appends: std::mem::take(&mut self.appends),
        }
    }
}

fn takes(rows: &Rows, cells: &[Cell<'_>]) -> bool {
    rows.columns.iter().zip(cells).all(|(column, cell)| match (&column.cells, cell) {
        (Cells::Texts(_), Cell::Text(_))
        | (Cells::Integers(_), Cell::Integer(_))
        | (Cells::Numbers(_), Cell::Number(_))
        | (Cells::Booleans(_), Cell::Boolean(_)) => true,
        (Cells::Times((_, unit)), Cell::Time(_, of)) => Unit::from(*unit) == *of,
        _ => false,
    })
}

fn empty_rows(table: &Table, cells: &[Cell<'_>]) -> Rows {
    let column = |(name, cell): (&&str, &Cell<'_>)| Column { name: name.to_string(), cells: empty_cells(*cell) };
    Rows {
        table: table.name.to_owned(),
        key_columns: table.key_columns,
        columns: table.columns.iter().zip(cells).map(column).collect(),
    }
}

fn empty_cells(cell: Cell<'_>) -> Cells {
    match cell {
        Cell::Text(_) => Cells::Texts(Texts { ends: Vec::new(), bytes: Vec::new() }),
        Cell::Integer(_) => Cells::Integers(Vec::new()),
        Cell::Number(_) => Cells::Numbers(Vec::new()),
        Cell::Time(_, unit) => Cells::Times((Vec::new(), TimeUnit::from(unit))),
        Cell::Boolean(_) => Cells::Booleans(Vec::new()),
    }
}

#[inline]
fn push(cells: &mut Cells, cell: Cell<'_>) {
    match (cells, cell) {
        (Cells::Texts(cells), Cell::Text(text)) => cells.push_text(text),
        (Cells::Integers(cells), Cell::Integer(value)) => cells.push(value),
        (Cells::Numbers(cells), Cell::Number(value)) => cells.push(value),
        (Cells::Times((cells, _)), Cell::Time(ns, _)) => cells.push(ns),
        (Cells::Booleans(cells), Cell::Boolean(value)) => cells.push(u8::from(value)),
        _ => debug_assert!(false, "a cell of another type"),
    }
}
