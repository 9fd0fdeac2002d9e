//! The digest of what a pipeline wrote: the same for the same rows and objects, wherever they are.
//!
//! It is the SHA-256 of these bytes, each line ended by a line feed:
//!
//! 1. the line `tapeline output 1`;
//! 2. for each table, in the order of their names: the line `{"table":NAME,"columns":[NAME,...]}`, then for each row, in
//!    the order of its key, a line with the JSON array of its values, written as `tapeline query --format json` writes
//!    them: numbers with at most 15 significant digits, times as RFC 3339, no spaces;
//! 3. for each object, in the order of their paths: the line `{"object":PATH,"bytes":LENGTH}`, then its bytes as far as
//!    they are committed, then a line feed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write},
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Context as _, Error, Kind, Result},
    runtime::hex,
    store::{Query, RowSink, SqliteStore, Store as _, StoredObject, Value},
};

/// What a pipeline wrote, and its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Output {
    /// SHA-256 in hex.
    pub digest: String,
    /// Rows, by table.
    pub rows: BTreeMap<String, u64>,
    /// Number of objects.
    pub objects: u64,
}

impl Output {
    /// Reads all tables and objects of a data folder. While a pipeline runs on it they are as of different moments.
    ///
    /// # Errors
    /// When they cannot be read; `Corrupt` when an object has fewer bytes than were committed.
    pub fn of(store: &SqliteStore) -> Result<Self> {
        let mut hasher = Hasher(Sha256::new());
        writeln!(hasher, "tapeline output 1")?;
        let mut output = Self::default();
        for table in store.tables()? {
            let mut rows = Rows { table: &table, hasher: &mut hasher, count: 0 };
            store.query(&Query { table: table.clone(), ..Query::default() }, &mut rows)?;
            output.rows.insert(table.clone(), rows.count);
        }
        for object in store.objects()? {
            hash_object(&object, &mut hasher).doing(|| format!("read object {}", object.path))?;
            output.objects += 1;
        }
        output.digest = hex(&hasher.0.finalize());
        Ok(output)
    }
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rows<'a> {
    table: &'a str,
    hasher: &'a mut Hasher,
    count: u64,
}

impl RowSink for Rows<'_> {
    fn columns(&mut self, names: &[String]) -> Result<()> {
        #[derive(serde::Serialize)]
        struct Head<'a> {
            table: &'a str,
            columns: &'a [String],
        }
        line(self.hasher, &Head { table: self.table, columns: names })
    }

    fn row(&mut self, values: &[Value]) -> Result<()> {
        self.count += 1;
        line(self.hasher, &values)
    }
}

fn hash_object(object: &StoredObject, hasher: &mut Hasher) -> Result<()> {
    #[derive(serde::Serialize)]
    struct Head<'a> {
        object: &'a str,
        bytes: u64,
    }
    line(hasher, &Head { object: &object.path, bytes: object.length })?;
    let found = io::copy(&mut File::open(&object.file)?.take(object.length), hasher)?;
    if found < object.length {
        let message = format!("find all of it: {found} bytes of {}", object.length);
        return Err(Error::new(Kind::Corrupt, message));
    }
    Ok(writeln!(hasher)?)
}

fn line(hasher: &mut Hasher, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut *hasher, value).map_err(io::Error::from)?;
    Ok(writeln!(hasher)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::{Append, Cells, Column, Rows as Written, Texts, TimeUnit},
        store::{Commit, StateStore as _},
    };

    fn append(path: &str, bytes: &str) -> Append {
        Append { path: path.to_owned(), header: Vec::new(), bytes: bytes.into() }
    }

    fn row(symbol: &str, time: i64, price: f64) -> Written {
        let texts = Texts { ends: vec![symbol.len() as u32], bytes: symbol.into() };
        let column = |name: &str, cells| Column { name: name.to_owned(), cells };
        Written {
            table: "trades".to_owned(),
            key_columns: 2,
            columns: vec![
                column("symbol", Cells::Texts(texts)),
                column("time", Cells::Times((vec![time], TimeUnit::Milliseconds))),
                column("price", Cells::Numbers(vec![price])),
            ],
        }
    }

    fn written(commits: Vec<Commit>) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        for commit in commits {
            store.commit(commit).unwrap();
        }
        Output::of(&SqliteStore::open_reader(folder.path()).unwrap()).unwrap()
    }

    #[test]
    fn it_is_what_its_definition_says() {
        let rows = vec![row("B", 1_000_000_000, 0.1 + 0.2), row("A", 0, 2.0)];
        let output = written(vec![Commit { rows, appends: vec![append("x/y.csv", "1\n")], ..Commit::default() }]);
        let text = "tapeline output 1\n\
            {\"table\":\"trades\",\"columns\":[\"symbol\",\"time\",\"price\"]}\n\
            [\"A\",\"1970-01-01T00:00:00.000Z\",2]\n\
            [\"B\",\"1970-01-01T00:00:01.000Z\",0.3]\n\
            {\"object\":\"x/y.csv\",\"bytes\":2}\n1\n\n";
        assert_eq!(output.digest, hex(&Sha256::digest(text)));
        assert_eq!((output.rows["trades"], output.objects), (2, 1));
    }

    #[test]
    fn how_it_came_to_be_does_not_show() {
        let rows = |symbols: &[&str]| symbols.iter().map(|symbol| row(symbol, 0, 1.0)).collect::<Vec<_>>();
        let at_once = vec![Commit { rows: rows(&["A", "B"]), appends: vec![append("o", "12")], ..Commit::default() }];
        let in_parts = || {
            let first = Commit { rows: rows(&["B"]), appends: vec![append("o", "1")], ..Commit::default() };
            vec![first, Commit { rows: rows(&["A", "B"]), appends: vec![append("o", "2")], ..Commit::default() }]
        };
        assert_eq!(written(at_once), written(in_parts()));
        let mut longer = in_parts();
        longer.push(Commit { appends: vec![append("p", "")], ..Commit::default() });
        assert_eq!(written(in_parts()).digest, written(longer).digest, "nothing was written");
        let mut other = in_parts();
        other.push(Commit { rows: vec![row("A", 0, 1.5)], ..Commit::default() });
        assert_ne!(written(in_parts()).digest, written(other).digest);
    }

    #[test]
    fn an_object_that_lost_bytes_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        store.commit(Commit { appends: vec![append("o", "1234")], ..Commit::default() }).unwrap();
        let file = store.objects().unwrap().swap_remove(0).file;
        // What is behind the committed part is not looked at.
        std::fs::write(&file, "1234 and more").unwrap();
        Output::of(&store).unwrap();
        std::fs::write(&file, "12").unwrap();
        let error = Output::of(&store).unwrap_err();
        assert!(error.kind() == Kind::Corrupt && error.to_string().contains("object o"), "{error}");
    }
}
