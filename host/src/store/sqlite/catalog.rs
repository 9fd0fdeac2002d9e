//! The catalog of tables: what columns they have, and whether rows fit.

use rusqlite::{Connection, OptionalExtension, params};

use crate::{
    contract::{Cells, Rows},
    error::{Context, Error, Kind, Result},
};

/// Letters of a name: what fits a heading.
const NAME_BYTES_MAX: usize = 60;
/// Columns of a table. SQLite allows 2,000, and a column of times takes two.
const COLUMNS_MAX: usize = 500;
/// What our own tables and SQLite's begin with.
const RESERVED: [&str; 2] = ["tapeline_", "sqlite_"];
/// What the column beside a column of times ends with: it has the number of digits that each time prints with.
const DIGITS: &str = "_digits";

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    /// Texts and integers: ids are the one or the other, from one vendor to the next.
    Any,
    Number,
    Time,
    Boolean,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) takes: Type,
}

/// A table's name, key and columns. Its names are checked: they can stand in SQL between double quotes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: String,
    key_columns: u32,
    pub(super) columns: Vec<Column>,
}

/// Names of the tables, in order.
pub(super) fn names(conn: &Connection) -> Result<Vec<String>> {
    let mut statement = conn.prepare_cached("SELECT name FROM tapeline_tables ORDER BY name")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

impl Layout {
    /// The layout of a table; `None` when there is no such table.
    pub(super) fn find(conn: &Connection, name: &str) -> Result<Option<Self>> {
        let mut statement = conn.prepare_cached("SELECT key_columns, columns FROM tapeline_tables WHERE name = ?1")?;
        let found = statement.query_row([name], |row| Ok((row.get(0)?, row.get::<_, String>(1)?))).optional()?;
        let Some((key_columns, columns)) = found else { return Ok(None) };
        let columns = serde_json::from_str(&columns)
            .map_err(|error| Error::caused(Kind::Corrupt, format!("read the columns of table {name}"), error))?;
        Ok(Some(Self { name: name.to_owned(), key_columns, columns }))
    }

    /// The layout of the table that rows go to, which is made if need be.
    ///
    /// # Errors
    /// `Invalid` when there cannot be such a table.
    pub(super) fn for_rows(conn: &Connection, rows: &Rows) -> Result<Self> {
        match Self::find(conn, &rows.table)? {
            Some(layout) => Ok(layout),
            None => Self::create(conn, rows).doing(|| format!("make table {:?}", rows.table)),
        }
    }

    /// Whether rows have these columns, in this order.
    ///
    /// # Errors
    /// `Invalid` when they do not; it says where they differ.
    pub(super) fn check(&self, rows: &Rows) -> Result<()> {
        if self.key_columns != rows.key_columns || self.columns.len() != rows.columns.len() {
            let (key, all) = (rows.key_columns, rows.columns.len());
            return Err(self.misfit(&format!("{all} columns, {key} of them the key")));
        }
        let mut pairs = self.columns.iter().zip(&rows.columns);
        match pairs.find(|(column, given)| column.name != given.name || column.takes != Type::of(&given.cells)) {
            Some((column, given)) => {
                let (of, takes) = (Type::of(&given.cells), column.takes);
                Err(self.misfit(&format!("column {:?} ({of:?}) for {:?} ({takes:?})", given.name, column.name)))
            }
            None => Ok(()),
        }
    }

    /// Parameters of a row: its columns, then the digits of the columns of times.
    pub(super) fn width(&self) -> usize {
        self.columns.len() + self.times().count()
    }

    /// SQL that puts so many rows in place.
    pub(super) fn insert_sql(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.width()].join(","));
        format!("INSERT OR REPLACE INTO {} VALUES {}", quote(&self.name), vec![row; rows].join(","))
    }

    /// SQL of all columns in the order of [`Self::width`], with conditions, in the order of the key.
    pub(super) fn select_sql(&self, conditions: &[String]) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| quote(&column.name)).chain(self.digits()).collect();
        let conditions = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
        let (columns, table, key) = (columns.join(","), quote(&self.name), self.key());
        format!("SELECT {columns} FROM {table} WHERE {conditions} ORDER BY {key}")
    }

    /// The columns of times, in order.
    pub(super) fn times(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.takes == Type::Time)
    }

    fn key(&self) -> String {
        let key = self.columns.iter().take(self.key_columns as usize);
        key.map(|column| quote(&column.name)).collect::<Vec<_>>().join(",")
    }

    fn digits(&self) -> impl Iterator<Item = String> {
        self.times().map(|column| quote(&digits_of(&column.name)))
    }

    fn create(conn: &Connection, rows: &Rows) -> Result<Self> {
        let layout = Self::of(rows)?;
        conn.execute_batch(&layout.create_sql())?;
        let columns = serde_json::to_string(&layout.columns)
            .map_err(|error| Error::caused(Kind::Internal, "write the columns", error))?;
        conn.prepare_cached("INSERT INTO tapeline_tables VALUES (?1, ?2, ?3)")?.execute(params![
            layout.name,
            layout.key_columns,
            columns
        ])?;
        Ok(layout)
    }

    /// The layout that rows ask for.
    fn of(rows: &Rows) -> Result<Self> {
        check_name(&rows.table)?;
        if RESERVED.iter().any(|reserved| rows.table.starts_with(reserved)) {
            return Err(Error::invalid(format!("use a name that begins with {}", RESERVED.join(" or "))));
        }
        let key_columns = rows.key_columns;
        if key_columns == 0 || key_columns as usize > rows.columns.len() || rows.columns.len() > COLUMNS_MAX {
            let message =
                format!("use {key_columns} of {} columns as key; at most {COLUMNS_MAX} columns", rows.columns.len());
            return Err(Error::invalid(message));
        }
        let column =
            |column: &crate::contract::Column| Column { name: column.name.clone(), takes: Type::of(&column.cells) };
        let layout = Self { name: rows.table.clone(), key_columns, columns: rows.columns.iter().map(column).collect() };
        layout.check_columns().map(|()| layout)
    }

    fn check_columns(&self) -> Result<()> {
        self.columns.iter().try_for_each(|column| check_name(&column.name))?;
        let mut names: Vec<_> = self.columns.iter().map(|column| quote(&column.name)).chain(self.digits()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(Error::invalid(format!("use the column name {} twice", pair.concat()))),
            None => Ok(()),
        }
    }

    fn create_sql(&self) -> String {
        let columns = self.columns.iter().enumerate().map(|(at, column)| {
            let need = if at < self.key_columns as usize { " NOT NULL" } else { "" };
            format!("{}{}{need},", quote(&column.name), column.takes.sql())
        });
        let columns: String = columns.chain(self.digits().map(|name| format!("{name} INTEGER,"))).collect();
        format!("CREATE TABLE {} ({columns} PRIMARY KEY ({})) WITHOUT ROWID", quote(&self.name), self.key())
    }

    fn misfit(&self, given: &str) -> Error {
        let (table, key, all) = (&self.name, self.key_columns, self.columns.len());
        Error::invalid(format!(
            "put rows into table {table:?} of {all} columns, {key} of them the key: they have {given}"
        ))
    }
}

impl Type {
    const fn of(cells: &Cells) -> Self {
        match cells {
            Cells::Texts(_) | Cells::Integers(_) => Self::Any,
            Cells::Numbers(_) => Self::Number,
            Cells::Times(_) => Self::Time,
            Cells::Booleans(_) => Self::Boolean,
        }
    }

    /// The type in SQL, after a space. Without one SQLite keeps texts and integers as they come.
    const fn sql(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Number => " REAL",
            Self::Time | Self::Boolean => " INTEGER",
        }
    }
}

/// A checked name between the quotes that SQL has for names.
pub(super) fn quote(name: &str) -> String {
    format!("\"{name}\"")
}

fn digits_of(name: &str) -> String {
    format!("{name}{DIGITS}")
}

/// SQL tells no upper from lower case, and other characters would have to be escaped.
fn check_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let is_start = bytes.next().is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'_'));
    if is_start && name.len() <= NAME_BYTES_MAX && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        return Ok(());
    }
    let message = format!("use the name {name:?}; names are of a-z, 0-9 and _, at most {NAME_BYTES_MAX} of them");
    Err(Error::invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        for name in ["trades", "_", "a1_b", &"x".repeat(60)] {
            check_name(name).unwrap();
        }
        for name in ["", "1a", "Trades", "a b", "a\"b", "a;", "ü", "a\0", &"x".repeat(61)] {
            assert_eq!(check_name(name).unwrap_err().kind(), Kind::Invalid, "{name:?}");
        }
    }
}
