//! The database file: opening it, its version, and the tables that are always there.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::{Context, Error, Kind, Result};

/// The database's name in the data folder.
pub(super) const FILE: &str = "tapeline.sqlite";
/// Version of the tables below. A change to them raises it.
const VERSION: i64 = 4;
/// The oldest version that can be read as it is; a writer brings it up to date.
const READABLE_VERSION: i64 = 3;
/// `TAPE`: tells our database from another program's.
const APPLICATION_ID: i64 = 0x5441_5045;
/// How long a handle waits for another one's transaction. The longest is a commit, which takes less than a second
/// unless the disk stalls.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements that are kept prepared: some twenty of our own, and one for each table that is written.
const STATEMENTS_MAX: usize = 64;
/// Bytes of the database in memory. Rows arrive for all symbols at once: the pages they go to should stay here.
const CACHE_KIB: i64 = 64 * 1024;
/// Pages of the write-ahead log before they are moved to the database, 32 MiB. A page that is written by many commits
/// is moved once.
const CHECKPOINT_PAGES: i64 = 8 * 1024;

const TABLES: &str = "
    CREATE TABLE tapeline_commit (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        number INTEGER NOT NULL,
        progress TEXT
    );
    INSERT INTO tapeline_commit VALUES (1, 0, NULL);
    CREATE TABLE tapeline_journal (
        first INTEGER PRIMARY KEY,
        last INTEGER NOT NULL,
        is_processed INTEGER NOT NULL,
        bytes_unpacked INTEGER,
        records BLOB NOT NULL
    );
    CREATE TABLE tapeline_state (
        stage TEXT NOT NULL,
        key TEXT NOT NULL,
        part INTEGER NOT NULL,
        version INTEGER NOT NULL,
        value BLOB NOT NULL,
        wake_at INTEGER,
        expires_at INTEGER,
        PRIMARY KEY (stage, key, part)
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_tables (
        name TEXT PRIMARY KEY,
        key_columns INTEGER NOT NULL,
        columns TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_objects (
        path TEXT PRIMARY KEY,
        length INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_intents (
        path TEXT PRIMARY KEY
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_ledger (
        stage_index INTEGER NOT NULL,
        stage TEXT NOT NULL,
        symbol TEXT NOT NULL,
        day INTEGER NOT NULL,
        entered INTEGER NOT NULL,
        out INTEGER NOT NULL,
        duplicate INTEGER NOT NULL,
        late INTEGER NOT NULL,
        dead INTEGER NOT NULL,
        derived INTEGER NOT NULL,
        PRIMARY KEY (stage_index, stage, symbol, day)
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_ledger_dropped (
        stage_index INTEGER NOT NULL,
        stage TEXT NOT NULL,
        symbol TEXT NOT NULL,
        day INTEGER NOT NULL,
        rule TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (stage_index, stage, symbol, day, rule)
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_dead_letters (
        id INTEGER PRIMARY KEY,
        is_late INTEGER NOT NULL,
        is_redriven INTEGER NOT NULL,
        stage TEXT NOT NULL,
        component TEXT NOT NULL,
        symbol TEXT NOT NULL,
        time INTEGER,
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,
        format TEXT NOT NULL,
        received INTEGER,
        payload BLOB NOT NULL,
        partition INTEGER
    );
";

/// What version 3 added: which files were read, which components ran, and those that were uploaded.
const TABLES_OF_VERSION_3: &str = "
    CREATE TABLE tapeline_inputs (
        number INTEGER PRIMARY KEY,
        digest TEXT NOT NULL,
        path TEXT NOT NULL,
        format TEXT NOT NULL,
        journal_sequence INTEGER NOT NULL
    );
    CREATE TABLE tapeline_ran (
        number INTEGER PRIMARY KEY,
        stage TEXT NOT NULL,
        digest TEXT NOT NULL,
        settings TEXT NOT NULL,
        journal_sequence INTEGER NOT NULL,
        inputs TEXT NOT NULL
    );
    CREATE TABLE tapeline_components (
        digest TEXT PRIMARY KEY,
        bytes BLOB NOT NULL
    );
    CREATE TABLE tapeline_deployments (
        stage TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE tapeline_reports (
        stage TEXT NOT NULL,
        worker TEXT NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (stage, worker)
    ) WITHOUT ROWID;
";

/// What version 4 added: whether a version that ran had stood by, and went on with its own state.
const COLUMNS_OF_VERSION_4: &str = "ALTER TABLE tapeline_ran ADD COLUMN has_own_state INTEGER;";

/// Opens the database to write to it, and makes it if there is none.
pub(super) fn create(path: &Path) -> Result<Connection> {
    let create = || -> Result<_> {
        let conn = Connection::open_with_flags(
            path,
            flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE),
        )?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let version = version(&conn)?;
        conn.pragma_update(None, "journal_mode", "wal")?;
        match version {
            0 => create_tables(&conn)?,
            version => bring_up_to_date(&conn, version)?,
        }
        configure(&conn)?;
        Ok(conn)
    };
    create().doing(|| format!("open {}", path.display()))
}

/// Opens a database that is there, to write to it.
pub(super) fn open(path: &Path) -> Result<Connection> {
    open_existing(path, OpenFlags::SQLITE_OPEN_READ_WRITE, VERSION)
}

/// Opens a database that is there, to read from it.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    open_existing(path, OpenFlags::SQLITE_OPEN_READ_ONLY, READABLE_VERSION)
}

/// Begins a transaction that may write, which one handle at a time can be in.
pub(super) fn begin(conn: &Connection) -> Result<Transaction<'_>> {
    Ok(Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?)
}

fn open_existing(path: &Path, access: OpenFlags, oldest: i64) -> Result<Connection> {
    let none = || Error::not_found(format!("find a pipeline's data: there is no {}", path.display()));
    if !path.exists() {
        return Err(none());
    }
    let open = || -> Result<_> {
        let conn = Connection::open_with_flags(path, flags(access))?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let version = version(&conn)?;
        configure(&conn)?;
        Ok((conn, version))
    };
    match open().doing(|| format!("open {}", path.display()))? {
        // Its first opener has not made the tables yet.
        (_, 0) => Err(none()),
        (_, older) if older < oldest => Err(Error::invalid(format!(
            "read data of an older tapeline (version {older} of the store; this one knows {VERSION}): run its pipeline once"
        ))),
        (conn, _) => Ok(conn),
    }
}

/// A handle is never used by two threads at a time, so it needs no lock of its own.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// The version of the tables; 0 when there are none yet.
fn version(conn: &Connection) -> Result<i64> {
    let read = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let version = read("PRAGMA user_version")?;
    let is_ours = read("PRAGMA application_id")? == APPLICATION_ID;
    if !is_ours && read("SELECT count(*) FROM sqlite_schema")? > 0 {
        return Err(Error::new(Kind::Corrupt, "find a pipeline's data: this is another program's database"));
    }
    if version > VERSION {
        let message =
            format!("read data of a newer tapeline (version {version} of the store; this one knows {VERSION})");
        return Err(Error::invalid(message));
    }
    Ok(version)
}

fn create_tables(conn: &Connection) -> Result<()> {
    let transaction = begin(conn)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(TABLES_OF_VERSION_3)?;
    transaction.execute_batch(COLUMNS_OF_VERSION_4)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

fn bring_up_to_date(conn: &Connection, version: i64) -> Result<()> {
    let steps: [fn(&Connection) -> Result<()>; 3] = [add_partitions, add_components, add_own_state];
    let done = usize::try_from(version - 1).unwrap_or_default();
    steps.iter().skip(done).try_for_each(|step| step(conn))
}

/// From version 1 to 2: dead letters know their partition.
fn add_partitions(conn: &Connection) -> Result<()> {
    let transaction = begin(conn)?;
    transaction.execute_batch("ALTER TABLE tapeline_dead_letters ADD COLUMN partition INTEGER")?;
    transaction.pragma_update(None, "user_version", 2)?;
    Ok(transaction.commit()?)
}

/// From version 2 to 3: what has run is known, and components are kept.
fn add_components(conn: &Connection) -> Result<()> {
    let transaction = begin(conn)?;
    transaction.execute_batch(TABLES_OF_VERSION_3)?;
    transaction.pragma_update(None, "user_version", 3)?;
    Ok(transaction.commit()?)
}

/// From version 3 to 4: whether a version went on with its own state is known.
fn add_own_state(conn: &Connection) -> Result<()> {
    let transaction = begin(conn)?;
    transaction.execute_batch(COLUMNS_OF_VERSION_4)?;
    transaction.pragma_update(None, "user_version", 4)?;
    Ok(transaction.commit()?)
}

fn configure(conn: &Connection) -> Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_the_first_version_is_brought_up_to_date_by_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let conn = create(&path).unwrap();
        conn.execute_batch(
            "ALTER TABLE tapeline_dead_letters DROP COLUMN partition;
             DROP TABLE tapeline_inputs; DROP TABLE tapeline_ran; DROP TABLE tapeline_components;
             DROP TABLE tapeline_deployments; DROP TABLE tapeline_reports;
             INSERT INTO tapeline_dead_letters VALUES (7, 0, 0, 's', 'c', '', NULL, 'r', 'o', 'events', NULL, x'00');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(conn);
        assert_eq!(open_reader(&path).unwrap_err().kind(), Kind::Invalid);
        create(&path).unwrap();
        let conn = open_reader(&path).unwrap();
        let letter = conn.query_row("SELECT id, partition FROM tapeline_dead_letters", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<u32>>(1)?))
        });
        assert_eq!(letter.unwrap(), (7, None));
    }

    #[test]
    fn data_of_the_third_version_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let conn = create(&path).unwrap();
        conn.execute_batch(
            "ALTER TABLE tapeline_ran DROP COLUMN has_own_state;
             INSERT INTO tapeline_ran VALUES (1, 's', 'd', '{}', 0, '[]');
             PRAGMA user_version = 3;",
        )
        .unwrap();
        drop(conn);
        assert_eq!(open(&path).unwrap_err().kind(), Kind::Invalid);
        let ran = |conn: &Connection| super::super::history::ran(conn).unwrap();
        let before = ran(&open_reader(&path).unwrap());
        assert_eq!((before.len(), before[0].has_own_state), (1, None));
        assert_eq!(ran(&create(&path).unwrap()), before);
    }
}
