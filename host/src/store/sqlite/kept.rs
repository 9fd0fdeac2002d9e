//! What a replay asks for: the objects that are committed, and the components that were kept.

use std::{fmt, path::PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::{OBJECTS, SqliteStore};
use crate::error::{Error, Result};

/// Digests that an error lists.
const LISTED_MAX: usize = 10;

/// An object as far as it is committed; its file may be longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its path, relative to the objects.
    pub path: String,
    /// Bytes of it that are committed.
    pub length: u64,
    /// Where it is kept.
    pub file: PathBuf,
}

impl SqliteStore {
    /// All objects, in the order of their paths.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn objects(&self) -> Result<Vec<StoredObject>> {
        let folder = self.database.with_file_name(OBJECTS);
        let mut read = self.conn.prepare_cached("SELECT path, length FROM tapeline_objects ORDER BY path")?;
        let rows = read.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        let object = |(path, length): (String, u64)| StoredObject { file: folder.join(&path), path, length };
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().map(object).collect())
    }

    /// The bytes of a component by its whole digest; `None` when it is not kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn kept_component(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let mut read = self.conn.prepare_cached("SELECT bytes FROM tapeline_components WHERE digest = ?1")?;
        Ok(read.query_row([digest], |row| row.get(0)).optional()?)
    }

    /// The whole digest of the one kept component that a digest begins like this.
    ///
    /// # Errors
    /// `NotFound` when there is none, and `Invalid` when there are several; both list what there is.
    pub fn find_component(&self, beginning: &str) -> Result<String> {
        let all = kept(&self.conn)?;
        let found: Vec<Kept> = all.iter().filter(|kept| kept.digest.starts_with(beginning)).cloned().collect();
        match found.as_slice() {
            [kept] => Ok(kept.digest.clone()),
            [] => Err(Error::not_found(format!("find component sha256:{beginning}: {}", list(&all)))),
            several => Err(Error::invalid(format!("tell which component sha256:{beginning} is: {}", list(several)))),
        }
    }
}

/// A component that is kept.
#[derive(Clone)]
struct Kept {
    digest: String,
    /// Of which stages it is a version.
    stages: Option<String>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, stages } = self;
        match stages {
            Some(stages) => write!(f, "{digest} ({stages})"),
            None => write!(f, "{digest}"),
        }
    }
}

fn kept(conn: &Connection) -> Result<Vec<Kept>> {
    let mut read = conn.prepare_cached(
        "SELECT digest, (
             SELECT group_concat(stage, ', ') FROM (
                 SELECT stage FROM tapeline_ran WHERE digest = kept.digest
                 UNION SELECT stage FROM tapeline_deployments WHERE instr(document, kept.digest) > 0
                 ORDER BY stage
             )
         ) FROM tapeline_components kept ORDER BY digest",
    )?;
    let all = read.query_map([], |row| Ok(Kept { digest: row.get(0)?, stages: row.get(1)? }))?;
    Ok(all.collect::<rusqlite::Result<_>>()?)
}

fn list(digests: &[Kept]) -> String {
    if digests.is_empty() {
        return "the data folder keeps none".to_owned();
    }
    let shown = digests.iter().take(LISTED_MAX).map(Kept::to_string).collect::<Vec<_>>().join(", ");
    match digests.len().saturating_sub(LISTED_MAX) {
        0 => format!("the data folder keeps {shown}"),
        more => format!("the data folder keeps {shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::Append,
        error::Kind,
        store::{Commit, StateStore as _},
    };

    #[test]
    fn components_are_found_by_how_their_digest_begins() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        let missing = store.find_component("aaaa0000").unwrap_err();
        assert_eq!((missing.kind(), missing.to_string().contains("keeps none")), (Kind::NotFound, true), "{missing}");
        for (digest, bytes) in [("aaaa00001", b"one"), ("aaaa00002", b"two"), ("bbbb00000", b"six")] {
            let put = "INSERT INTO tapeline_components VALUES (?1, ?2)";
            store.conn.execute(put, rusqlite::params![digest, bytes]).unwrap();
        }
        assert_eq!(store.find_component("bbbb").unwrap(), "bbbb00000");
        // Of which stages they are is told.
        let ran = "INSERT INTO tapeline_ran VALUES (?1, ?2, 'bbbb00000', '{}', 0, '[]', 0)";
        store.conn.execute(ran, rusqlite::params![1, "enrich"]).unwrap();
        store.conn.execute(ran, rusqlite::params![2, "alarm"]).unwrap();
        let pushed = "INSERT INTO tapeline_deployments VALUES ('dedup', 1, '{\"digest\":\"aaaa00002\"}')";
        store.conn.execute(pushed, []).unwrap();
        let missing = store.find_component("cccc").unwrap_err().to_string();
        assert!(missing.contains("aaaa00001, aaaa00002 (dedup), bbbb00000 (alarm, enrich)"), "{missing}");
        let several = store.find_component("aaaa0000").unwrap_err();
        assert_eq!(several.kind(), Kind::Invalid);
        assert!(several.to_string().contains("aaaa00001, aaaa00002 (dedup)"), "{several}");
        assert!(store.find_component("cccc").unwrap_err().to_string().contains("bbbb00000"));
        assert_eq!(store.kept_component("aaaa00002").unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(store.kept_component("aaaa").unwrap(), None);
    }

    #[test]
    fn objects_are_listed_as_far_as_they_are_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let append = |path: &str| Append { path: path.to_owned(), header: b"head\n".to_vec(), bytes: b"1\n".to_vec() };
        store.commit(Commit { appends: vec![append("b/c"), append("a")], ..Commit::default() }).unwrap();
        let objects = SqliteStore::open_reader(folder.path()).unwrap().objects().unwrap();
        let found: Vec<_> = objects.iter().map(|object| (object.path.as_str(), object.length)).collect();
        assert_eq!(found, [("a", 7), ("b/c", 7)]);
        assert_eq!(std::fs::read(&objects[1].file).unwrap(), b"head\n1\n");
    }
}
