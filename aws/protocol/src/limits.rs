//! What AWS takes of a writer's rows and files, which a host must know before it commits them.

use tapeline_events::TextColumn as _;
use tapeline_invoke::{
    contract::{Append, Cells, Rows},
    row_count,
};

/// Where what entered a pipeline on AWS lies, beside the files of its writer.
pub const RAW_OBJECTS: &str = "raw/";
/// Bytes of a row, of 400 KB that an item of DynamoDB may have: its keys are in it once more.
const ROW_BYTES_MAX: usize = 380_000;
/// Bytes of a column's name.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a value other than a text: as a text, with what DynamoDB adds.
const VALUE_BYTES: usize = 40;

/// Whether DynamoDB takes such rows.
///
/// # Errors
/// Says why not.
pub fn check_rows(rows: &Rows) -> Result<(), String> {
    let table = &rows.table;
    let (keys, columns) = (rows.key_columns as usize, rows.columns.len());
    if table.is_empty() || !(1..=columns).contains(&keys) {
        return Err(format!(
            "rows of table {table:?} have {keys} key columns of {columns}; a table has a name and a key"
        ));
    }
    if rows.columns.iter().any(|column| column.name.is_empty() || column.name.len() > NAME_BYTES_MAX) {
        return Err(format!("a column of table {table:?} has no name of 1 to {NAME_BYTES_MAX} bytes"));
    }
    for at in 0..row_count(rows).map_err(|breach| breach.to_string())? {
        let bytes: usize = rows.columns.iter().map(|column| column.name.len() + bytes(&column.cells, at)).sum();
        if bytes > ROW_BYTES_MAX {
            return Err(format!("a row of table {table:?} has {bytes} bytes; it may have {ROW_BYTES_MAX}"));
        }
    }
    Ok(())
}

fn bytes(cells: &Cells, at: usize) -> usize {
    match cells {
        Cells::Texts(texts) => texts.text(at).len(),
        _ => VALUE_BYTES,
    }
}

/// Whether there can be a file of this path. What entered the pipeline lies beside the files.
///
/// # Errors
/// Says why not.
pub fn check_append(append: &Append) -> Result<(), String> {
    let path = &append.path;
    tapeline_invoke::check_object_path(path).map_err(|fault| format!("the path of object {path:?} {fault}"))?;
    if path.starts_with(RAW_OBJECTS) {
        Err(format!("the path of object {path:?} begins with {RAW_OBJECTS:?}"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tapeline_invoke::contract::{Column, Texts};

    use super::*;

    fn rows(text: &str) -> Rows {
        let texts = Texts { ends: vec![u32::try_from(text.len()).unwrap()], bytes: text.as_bytes().to_vec() };
        let column = Column { name: "symbol".to_owned(), cells: Cells::Texts(texts) };
        Rows { table: "bars".to_owned(), key_columns: 1, columns: vec![column] }
    }

    #[test]
    fn rows_that_no_item_can_hold_are_refused() {
        assert_eq!(check_rows(&rows("BTC")), Ok(()));
        let mut unnamed = rows("BTC");
        unnamed.columns[0].name.clear();
        assert!(check_rows(&unnamed).is_err());
        let large = check_rows(&rows(&"x".repeat(ROW_BYTES_MAX)));
        assert!(large.is_err_and(|error| error.contains("bytes; it may have")));
        let nameless = Rows { table: String::new(), ..rows("BTC") };
        assert!(check_rows(&nameless).is_err() && check_rows(&Rows { key_columns: 2, ..rows("BTC") }).is_err());
        let mut uneven = rows("BTC");
        uneven.columns.push(Column { name: "n".to_owned(), cells: Cells::Numbers(Vec::new()) });
        assert!(check_rows(&uneven).is_err());
    }

    #[test]
    fn files_lie_beside_what_entered() {
        let append = |path: &str| Append { path: path.to_owned(), header: Vec::new(), bytes: Vec::new() };
        assert_eq!(check_append(&append("trades/a.csv")), Ok(()));
        assert!(check_append(&append("raw/a.csv")).is_err_and(|error| error.contains("raw/")));
        assert!(check_append(&append("../a.csv")).is_err());
    }
}
