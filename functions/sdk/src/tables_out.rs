//! Rows and objects that a writer gives out.

use rustc_hash::FxHashMap;
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

/// An object that was opened in a call; saves looking it up by its path for every append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    call: u64,
    at: u32,
}

/// Takes the rows and appends of a call.
#[derive(Default)]
pub struct Tables {
    rows: Vec<(&'static Table, Rows)>,
    appends: Vec<Append>,
    by_path: FxHashMap<String, u32>,
    call: u64,
}

impl Tables {
    /// Puts a row into a table, in place of an earlier one with the same key.
    ///
    /// # Panics
    /// When there are not as many cells as columns.
    #[inline]
    pub fn row(&mut self, table: &'static Table, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), table.columns.len(), "a row of {} has a cell for each column", table.name);
        let at = match self.find(table, cells) {
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

    /// Opens an object for this call. `header` is what a new object begins with.
    pub fn open(&mut self, path: &str, header: &[u8]) -> Object {
        let at = match self.by_path.get(path) {
            Some(at) => *at,
            None => {
                let at = self.appends.len() as u32;
                self.appends.push(Append { path: path.to_owned(), header: header.to_vec(), bytes: Vec::new() });
                self.by_path.insert(path.to_owned(), at);
                at
            }
        };
        Object { call: self.call, at }
    }

    /// Whether the object was opened in this call, not in an earlier one.
    #[inline]
    pub fn is_open(&self, object: Object) -> bool {
        object.call == self.call
    }

    /// The bytes that are put at the end of an object in this call.
    ///
    /// # Panics
    /// When the object was opened in an earlier call.
    #[inline]
    pub fn bytes(&mut self, object: Object) -> &mut Vec<u8> {
        assert!(self.is_open(object), "an object is opened in every call");
        &mut self.appends[object.at as usize].bytes
    }

    /// Opens an object and gives its bytes.
    pub fn object(&mut self, path: &str, header: &[u8]) -> &mut Vec<u8> {
        let object = self.open(path, header);
        self.bytes(object)
    }

    /// The rows of a table that take such cells. Rows with the same key stay in order: none goes before rows in which
    /// its key may be.
    #[inline]
    fn find(&self, table: &'static Table, cells: &[Cell<'_>]) -> Option<usize> {
        for (at, (known, rows)) in
            self.rows.iter().enumerate().rev().filter(|(_, (known, _))| std::ptr::eq(*known, table))
        {
            if takes(rows, cells) {
                return Some(at);
            }
            if may_have_key(rows, &cells[..known.key_columns as usize]) {
                return None;
            }
        }
        None
    }
}

impl Output for Tables {
    type Answer = Written;

    fn begin(&mut self, _: &Names) {
        self.rows.clear();
        self.appends.clear();
        self.by_path.clear();
        self.call += 1;
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

#[inline]
fn takes(rows: &Rows, cells: &[Cell<'_>]) -> bool {
    rows.columns.iter().zip(cells).all(|(column, cell)| match (&column.cells, cell) {
        (Cells::Times((_, unit)), Cell::Time(_, of)) => Unit::from(*unit) == *of,
        (column, cell) => is_same_type(column, *cell),
    })
}

/// Whether a key may be among rows: a time is the same whatever its unit, a text and a number never are.
fn may_have_key(rows: &Rows, key: &[Cell<'_>]) -> bool {
    rows.columns.iter().zip(key).all(|(column, cell)| is_same_type(&column.cells, *cell))
}

#[inline]
fn is_same_type(column: &Cells, cell: Cell<'_>) -> bool {
    matches!(
        (column, cell),
        (Cells::Texts(_), Cell::Text(_))
            | (Cells::Integers(_), Cell::Integer(_))
            | (Cells::Numbers(_), Cell::Number(_))
            | (Cells::Times(_), Cell::Time(..))
            | (Cells::Booleans(_), Cell::Boolean(_))
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    static TABLE: Table = Table { name: "t", key_columns: 2, columns: &["time", "id", "value"] };

    fn rows(cells: &[[Cell<'_>; 3]]) -> Vec<usize> {
        let mut tables = Tables::default();
        for cells in cells {
            tables.row(&TABLE, cells);
        }
        tables.rows.iter().map(|(_, rows)| rows.columns[1].cells_count()).collect()
    }

    impl Column {
        fn cells_count(&self) -> usize {
            match &self.cells {
                Cells::Texts(texts) => texts.count(),
                Cells::Integers(integers) => integers.len(),
                _ => 0,
            }
        }
    }

    #[test]
    fn rows_that_may_have_one_key_stay_in_order() {
        let (ms, s) = (Cell::Time(0, Unit::Milliseconds), Cell::Time(0, Unit::Seconds));
        let (number, text, value) = (Cell::Integer(1), Cell::Text("1"), Cell::Number(1.0));
        assert_eq!(rows(&[[ms, number, value], [ms, text, value], [ms, number, value]]), [2, 1]);
        assert_eq!(rows(&[[ms, number, value], [s, number, value], [ms, number, value]]), [1, 1, 1]);
        assert_eq!(rows(&[[ms, number, value], [s, text, value], [ms, number, value]]), [2, 1]);
    }

    #[test]
    fn an_object_is_opened_once_a_call() {
        let mut tables = Tables::default();
        let object = tables.open("a", b"header");
        tables.bytes(object).push(1);
        tables.object("b", b"").push(2);
        tables.object("a", b"header").push(3);
        assert_eq!(
            tables.appends.iter().map(|append| append.bytes.as_slice()).collect::<Vec<_>>(),
            [&[1, 3][..], &[2]]
        );
        tables.begin(&Names::default());
        assert!(!tables.is_open(object));
    }
}
