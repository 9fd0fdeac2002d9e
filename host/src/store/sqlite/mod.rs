//! All of a pipeline in one SQLite file, with its objects in a folder beside it.
//!
//! One handle commits: it holds a lock on the data folder, and each commit checks that no other came between. Handles
//! beside it append to the journal or read, in this process or another. This file opens stores and says what a commit
//! is; each kind of data has a file of its own.

mod appends;
mod catalog;
mod dead_letters;
mod history;
mod journal;
mod kept;
mod ledger;
mod query;
mod registry;
mod schema;
mod state;
mod tables;

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

pub use kept::StoredObject;
use rusqlite::{Connection, params};

use self::{
    appends::{Keeper, Plan},
    journal::Standing,
};
use super::{
    Commit, Counts, DeadLetter, InputFile, JournalEntry, JournalRecord, LedgerKey, Progress, Query, Ran, RowSink,
    Snapshot, StateStore, Store,
};
use crate::{
    contract::Entry,
    error::{Context, Error, Kind, Result},
    objects::{FolderObjects, Objects},
};

pub use self::registry::SqliteRegistry;

/// The file in the data folder that says, by its lock, that a pipeline runs on it.
const LOCK: &str = "lock";
/// The file in the data folder that tells it from any other.
const IDENTITY: &str = "identity";
/// The folder of objects in the data folder.
const OBJECTS: &str = "objects";

/// Keeps a pipeline's data in `tapeline.sqlite` and `objects/` in one folder.
pub struct SqliteStore {
    conn: Connection,
    database: PathBuf,
    /// What it takes to commit; absent in handles that only read or append.
    owner: Option<Owner>,
}

/// The one that may commit.
struct Owner {
    /// Number of the last opening or commit. Another one in the store means that somebody else has taken it over.
    number: i64,
    objects: Keeper,
    /// Held as long as this lives.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the store in a folder for a pipeline to run on it, and makes it if need be. Objects that an interrupted
    /// commit left too long are cut off.
    ///
    /// # Errors
    /// `Conflict` when another process runs a pipeline on it; `Invalid` when a newer version made it; `Corrupt` when
    /// what is there is damaged or of another program.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).doing(|| format!("make the data folder {}", folder.display()))?;
        let lock = lock(folder)?;
        Self::own(folder, Some(lock), Box::new(FolderObjects::new(folder.join(OBJECTS))))
    }

    /// Opens a store that is there beside the handle that commits to it, to append to its journal and to read.
    ///
    /// # Errors
    /// `NotFound` when there is no store; otherwise as [`Self::open`], but for the conflict.
    pub fn open_second(folder: &Path) -> Result<Self> {
        let database = folder.join(schema::FILE);
        Ok(Self { conn: schema::open(&database)?, database, owner: None })
    }

    /// Another handle on the same store, as [`Self::open_second`] gives one.
    ///
    /// # Errors
    /// As there.
    pub fn second(&self) -> Result<Self> {
        Ok(Self { conn: schema::open(&self.database)?, database: self.database.clone(), owner: None })
    }

    /// Tells this store from any other, for as long as it is there.
    ///
    /// # Errors
    /// When it cannot be read or kept.
    pub fn identity(&self) -> Result<String> {
        let path = self.database.with_file_name(IDENTITY);
        let place = || format!("read or write {}", path.display());
        if !path.try_exists().doing(place)? {
            let made: String = self.conn.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))?;
            // Under another name first, so that nobody ever reads half of it.
            let partial = path.with_extension("partial");
            fs::write(&partial, made).and_then(|()| fs::rename(&partial, &path)).doing(place)?;
        }
        fs::read_to_string(&path).doing(place)
    }

    /// Opens a store that is there to read from it only.
    ///
    /// # Errors
    /// As [`Self::open_second`].
    pub fn open_reader(folder: &Path) -> Result<Self> {
        let database = folder.join(schema::FILE);
        Ok(Self { conn: schema::open_reader(&database)?, database, owner: None })
    }

    /// Bytes of the database on the disk, its write-ahead log included.
    pub fn database_bytes(&self) -> u64 {
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        bytes(&self.database) + bytes(&self.database.with_extension("sqlite-wal"))
    }

    fn own(folder: &Path, lock: Option<File>, objects: Box<dyn Objects>) -> Result<Self> {
        let database = folder.join(schema::FILE);
        let conn = schema::create(&database)?;
        // First: from here on a former owner cannot commit, so the objects are ours.
        let number = take_over(&conn)?;
        let objects =
            Keeper::open(&conn, objects).doing(|| "look through the objects of the last commit".to_owned())?;
        Ok(Self { conn, database, owner: Some(Owner { number, objects, _lock: lock }) })
    }
}

impl Owner {
    fn commit(&mut self, conn: &Connection, mut commit: Commit) -> Result<u64> {
        if !commit.out.is_empty() {
            return Err(Error::invalid("commit what goes on to another segment: nothing carries it from here"));
        }
        let plan = Plan::of(&commit.appends)?;
        self.objects.intend(conn, &plan)?;
        let transaction = schema::begin(conn)?;
        journal::append(&transaction, &commit.journal, Standing::Processed)?;
        commit.progress.journal_sequence = journal::pass_processed(&transaction, commit.progress.journal_sequence)?;
        history::note(&transaction, &commit)?;
        follow(&transaction, self.number, &commit.progress)?;
        for (stage, entries) in &commit.state {
            state::change(&transaction, stage, entries)?;
        }
        tables::put(&transaction, &commit.rows)?;
        ledger::add(&transaction, &commit.ledger)?;
        dead_letters::add(&transaction, &commit.dead_letters)?;
        let tails = plan.tails(&transaction)?;
        // Last, so that nothing but the commit itself can fail behind it. When that does, whether it is on the disk is
        // not known before the store is opened again: the objects are left as they are until then, or until the next
        // append to them.
        self.objects.append(&transaction, &tails)?;
        transaction.commit()?;
        self.number += 1;
        Ok(commit.progress.journal_sequence)
    }
}

impl StateStore for SqliteStore {
    fn progress(&self) -> Result<Progress> {
        let mut statement = self.conn.prepare_cached("SELECT progress FROM tapeline_commit")?;
        let progress: Option<String> = statement.query_row([], |row| row.get(0))?;
        let Some(progress) = progress else { return Ok(Progress::default()) };
        serde_json::from_str(&progress)
            .map_err(|error| Error::caused(Kind::Corrupt, "read the pipeline's progress", error))
    }

    fn state(&self, stage: &str) -> Result<Vec<Entry>> {
        state::read(&self.conn, stage).doing(|| format!("read the state of stage {stage:?}"))
    }

    fn snapshot(&self, stage: &str) -> Result<Snapshot> {
        let (conn, stage) = (schema::open_reader(&self.database)?, stage.to_owned());
        // A transaction sees what there is when it first reads.
        conn.execute_batch("BEGIN")?;
        conn.query_row("SELECT number FROM tapeline_commit", [], |_| Ok(()))?;
        Ok(Box::new(move || state::read(&conn, &stage).doing(|| format!("read the state of stage {stage:?}"))))
    }

    fn commit(&mut self, commit: Commit) -> Result<u64> {
        let owner = self.owner.as_mut();
        let owner = owner.ok_or_else(|| Error::invalid("commit with a handle that is not the pipeline's own"))?;
        owner.commit(&self.conn, commit).doing(|| "commit".to_owned())
    }
}

impl Store for SqliteStore {
    fn append_journal(&mut self, records: &[JournalRecord]) -> Result<u64> {
        let append = || {
            let transaction = schema::begin(&self.conn)?;
            let last = journal::append(&transaction, records, Standing::Waiting)?;
            transaction.commit()?;
            Ok::<_, Error>(last)
        };
        append().doing(|| format!("append {} records to the journal", records.len()))
    }

    fn read_journal(&self, after: u64, records_max: usize, bytes_max: usize) -> Result<Vec<JournalEntry>> {
        journal::read(&self.conn, after, records_max, bytes_max)
    }

    fn journal_end(&self) -> Result<u64> {
        journal::end(&self.conn)
    }

    fn query(&self, query: &Query, sink: &mut dyn RowSink) -> Result<()> {
        query::run(&self.conn, query, sink)
    }

    fn tables(&self) -> Result<Vec<String>> {
        catalog::names(&self.conn)
    }

    fn ledger(&self) -> Result<Vec<(LedgerKey, Counts)>> {
        // Counts and what rules dropped are two tables, to be read as of one moment.
        let transaction = self.conn.unchecked_transaction()?;
        ledger::read(&transaction)
    }

    fn dead_letters(&self, from: u64, limit: u64) -> Result<Vec<DeadLetter>> {
        dead_letters::read(&self.conn, from, limit)
    }

    fn inputs_ever(&self) -> Result<Vec<(InputFile, u64)>> {
        history::inputs(&self.conn)
    }

    fn ran(&self) -> Result<Vec<Ran>> {
        history::ran(&self.conn)
    }

    fn redrive(&mut self, ids: &[u64]) -> Result<u64> {
        let transaction = schema::begin(&self.conn)?;
        let count = dead_letters::redrive(&transaction, ids)?;
        transaction.commit()?;
        Ok(count)
    }
}

fn lock(folder: &Path) -> Result<File> {
    let place = || format!("lock the data folder {}", folder.display());
    let file = File::options().write(true).create(true).truncate(false).open(folder.join(LOCK)).doing(place)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("{}: it is in use by another tapeline process", place());
            Err(Error::new(Kind::Conflict, message))
        }
        Err(TryLockError::Error(error)) => Err(error).doing(place),
    }
}

/// Makes whoever committed until now unable to, and gives the number of this opening.
fn take_over(conn: &Connection) -> Result<i64> {
    let transaction = schema::begin(conn)?;
    transaction.execute("UPDATE tapeline_commit SET number = number + 1", [])?;
    let number = transaction.query_row("SELECT number FROM tapeline_commit", [], |row| row.get(0))?;
    transaction.commit()?;
    Ok(number)
}

/// Makes this the commit behind number `last`, within the caller's transaction.
///
/// # Errors
/// `Conflict` when something else is.
fn follow(conn: &Connection, last: i64, progress: &Progress) -> Result<()> {
    let progress = serde_json::to_string(progress)
        .map_err(|error| Error::caused(Kind::Internal, "write the pipeline's progress", error))?;
    let mut next =
        conn.prepare_cached("UPDATE tapeline_commit SET number = ?1 + 1, progress = ?2 WHERE number = ?1")?;
    match next.execute(params![last, progress])? {
        0 => Err(Error::new(Kind::Conflict, "be the only writer: another process has taken this data folder over")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use tempfile::tempdir;

    use super::{
        super::testsuite::{Backend, laws},
        *,
    };
    use crate::{
        contract::Append,
        objects::{ObjectPath, Tail},
    };

    struct Sqlite;

    impl Backend for Sqlite {
        type Store = SqliteStore;

        fn open(&self, folder: &Path) -> Result<SqliteStore> {
            SqliteStore::open(folder)
        }

        fn open_rival(&self, folder: &Path) -> Result<SqliteStore> {
            SqliteStore::own(folder, None, Box::new(FolderObjects::new(folder.join(OBJECTS))))
        }

        fn open_second(&self, folder: &Path) -> Result<SqliteStore> {
            SqliteStore::open_second(folder)
        }

        fn object(&self, folder: &Path, path: &str) -> Option<Vec<u8>> {
            fs::read(folder.join(OBJECTS).join(path)).ok()
        }

        fn lengthen(&self, folder: &Path, path: &str, bytes: &[u8]) {
            let path = folder.join(OBJECTS).join(path);
            OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
        }
    }

    laws!(Sqlite);

    fn kind<T>(result: Result<T>) -> Option<Kind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn a_folder_belongs_to_one_pipeline_at_a_time() {
        let folder = tempdir().unwrap();
        let store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(kind(SqliteStore::open(folder.path())), Some(Kind::Conflict));
        assert_eq!(kind(SqliteStore::open_second(folder.path())), None);
        drop(store);
        assert_eq!(kind(SqliteStore::open(folder.path())), None);
    }

    #[test]
    fn a_reader_reads_while_a_pipeline_runs_and_changes_nothing() {
        let folder = tempdir().unwrap();
        assert_eq!(kind(SqliteStore::open_reader(folder.path())), Some(Kind::NotFound));
        assert_eq!(kind(SqliteStore::open_second(folder.path())), Some(Kind::NotFound));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let mut reader = SqliteStore::open_reader(folder.path()).unwrap();
        store.commit(Commit { progress: Progress { newest: 7, ..Progress::default() }, ..Commit::default() }).unwrap();
        assert_eq!(reader.progress().unwrap().newest, 7);
        assert!(reader.commit(Commit::default()).is_err());
        let record = JournalRecord { format: String::new(), stage: None, received: None, bytes: Vec::new() };
        assert!(reader.append_journal(&[record]).is_err());
        assert!(store.database_bytes() > 0);
        drop(store);
        assert_eq!(SqliteStore::open_reader(folder.path()).unwrap().progress().unwrap().newest, 7);
    }

    #[test]
    fn what_is_no_store_of_ours_is_refused() {
        for (text, expected) in [("no database", Kind::Corrupt), (&*"no database ".repeat(1000), Kind::Corrupt)] {
            let folder = tempdir().unwrap();
            fs::write(folder.path().join(schema::FILE), text).unwrap();
            assert_eq!(kind(SqliteStore::open(folder.path())), Some(expected));
            assert_eq!(kind(SqliteStore::open_reader(folder.path())), Some(expected));
        }
        let folder = tempdir().unwrap();
        let other = Connection::open(folder.path().join(schema::FILE)).unwrap();
        other.execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert_eq!(kind(SqliteStore::open(folder.path())), Some(Kind::Corrupt));
        let folder = tempdir().unwrap();
        drop(SqliteStore::open(folder.path()).unwrap());
        let newer = Connection::open(folder.path().join(schema::FILE)).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        assert_eq!(kind(SqliteStore::open(folder.path())), Some(Kind::Invalid));
        assert_eq!(kind(SqliteStore::open_reader(folder.path())), Some(Kind::Invalid));
    }

    /// Writes half of what it should and does nothing more, as if the power went.
    struct Interrupted {
        objects: FolderObjects,
        is_off: bool,
    }

    impl Objects for Interrupted {
        fn append(&mut self, tails: &[Tail<'_>]) -> Result<()> {
            let half = |tail: &Tail<'_>| {
                let part: &[u8] = tail.parts.concat().leak();
                Tail { path: tail.path.clone(), at: tail.at, parts: vec![&part[..part.len() / 2]] }
            };
            self.objects.append(&tails.iter().map(half).collect::<Vec<_>>())?;
            self.is_off = true;
            Err(Error::new(Kind::Unavailable, "go on without power"))
        }

        fn cut(&mut self, path: &ObjectPath, length: u64) -> Result<()> {
            if self.is_off {
                return Err(Error::new(Kind::Unavailable, "go on without power"));
            }
            self.objects.cut(path, length)
        }
    }

    #[test]
    fn an_interrupted_commit_leaves_no_trace_once_the_store_is_open_again() {
        let folder = tempdir().unwrap();
        let appends = |text: &str| Commit {
            appends: [("a", text), ("b/c", text)]
                .map(|(path, bytes)| Append { path: path.to_owned(), header: b"head\n".to_vec(), bytes: bytes.into() })
                .into(),
            ..Commit::default()
        };
        let objects = || ["a", "b/c"].map(|path| Sqlite.object(folder.path(), path));
        let interrupt = |text: &str| {
            let objects = FolderObjects::new(folder.path().join(OBJECTS));
            let objects = Box::new(Interrupted { objects, is_off: false });
            let mut store = SqliteStore::own(folder.path(), None, objects).unwrap();
            store.commit(appends(text)).unwrap_err();
        };
        interrupt("one\n");
        assert_eq!(objects(), [Some(b"head".to_vec()), Some(b"head".to_vec())]);
        let mut store = SqliteStore::open(folder.path()).unwrap();
        assert_eq!(objects(), [None, None]);
        store.commit(appends("one\n")).unwrap();
        drop(store);
        interrupt("two, and more\n");
        drop(SqliteStore::open(folder.path()).unwrap());
        assert_eq!(objects(), [Some(b"head\none\n".to_vec()), Some(b"head\none\n".to_vec())]);
    }
}
