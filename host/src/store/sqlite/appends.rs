//! Bytes at the end of objects: what is committed of each one, and which may have more than that.
//!
//! An object is lengthened before the transaction that says so is committed. Its path is stored first, as an intent, and
//! stays: so the paths of an interrupted commit are among the intents, whenever it was interrupted. When the store is
//! opened next, what is behind the committed length of each of them is cut off. A path costs one small transaction when
//! it is first touched, not one with every commit.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::schema;
use crate::{
    contract::Append,
    error::Result,
    objects::{ObjectPath, Objects, Tail},
};

/// Intents before they are looked through and forgotten: so many files are looked at in a tenth of a second.
const INTENTS_MAX: usize = 10_000;

/// The appends of a commit by object.
#[derive(Default)]
pub(super) struct Plan<'a> {
    objects: BTreeMap<ObjectPath, Parts<'a>>,
}

struct Parts<'a> {
    header: &'a [u8],
    bytes: Vec<&'a [u8]>,
}

impl<'a> Plan<'a> {
    /// Groups appends by their object, in order.
    ///
    /// # Errors
    /// `Invalid` when a path is not sound.
    pub(super) fn of(appends: &'a [Append]) -> Result<Self> {
        let mut plan = Self::default();
        for append in appends {
            let path = ObjectPath::parse(&append.path)?;
            let parts = plan.objects.entry(path).or_insert(Parts { header: &append.header, bytes: Vec::new() });
            parts.bytes.push(&append.bytes);
        }
        Ok(plan)
    }

    /// What comes behind the committed part of each object. Objects to which nothing comes are left out.
    pub(super) fn tails(self, conn: &Connection) -> Result<Vec<Tail<'a>>> {
        let mut tails = Vec::with_capacity(self.objects.len());
        for (path, Parts { header, bytes }) in self.objects {
            let at = length(conn, &path)?;
            let header = (at == 0).then_some(header);
            let tail = Tail { path, at, parts: header.into_iter().chain(bytes).collect() };
            if tail.end() > at {
                tails.push(tail);
            }
        }
        Ok(tails)
    }
}

/// The objects of a store, and which of them have been touched since it was opened.
pub(super) struct Keeper {
    objects: Box<dyn Objects>,
    intents: BTreeSet<ObjectPath>,
}

impl Keeper {
    /// Takes the objects over from whoever had them last, and cuts off what was not committed.
    pub(super) fn open(conn: &Connection, objects: Box<dyn Objects>) -> Result<Self> {
        let mut statement = conn.prepare("SELECT path FROM tapeline_intents")?;
        let paths = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        let intents = paths.iter().map(|path| ObjectPath::parse(path)).collect::<Result<_>>()?;
        let mut keeper = Self { objects, intents };
        keeper.settle(conn)?;
        Ok(keeper)
    }

    /// Stores that the objects of a plan will be touched. To be called outside of a transaction, before [`Self::append`].
    pub(super) fn intend(&mut self, conn: &Connection, plan: &Plan<'_>) -> Result<()> {
        let is_new = |keeper: &Self, path: &&ObjectPath| !keeper.intents.contains(*path);
        if !plan.objects.keys().any(|path| is_new(self, &path)) {
            return Ok(());
        }
        if self.intents.len() + plan.objects.len() > INTENTS_MAX {
            self.settle(conn)?;
        }
        let new: Vec<_> = plan.objects.keys().filter(|path| is_new(self, path)).cloned().collect();
        let transaction = schema::begin(conn)?;
        let mut statement = transaction.prepare_cached("INSERT OR IGNORE INTO tapeline_intents VALUES (?1)")?;
        for path in &new {
            statement.execute([path.as_str()])?;
        }
        drop(statement);
        transaction.commit()?;
        self.intents.extend(new);
        Ok(())
    }

    /// Puts tails in place, and their lengths into the caller's transaction. When it fails, it cuts them off again.
    pub(super) fn append(&mut self, conn: &Connection, tails: &[Tail<'_>]) -> Result<()> {
        let appended = self.objects.append(tails).and_then(|()| store_lengths(conn, tails));
        if appended.is_err() {
            for tail in tails {
                if let Err(error) = self.objects.cut(&tail.path, tail.at) {
                    // It is cut off before the next append, or when the store is opened.
                    tracing::warn!(path = %tail.path, %error, "object keeps bytes that were not committed");
                }
            }
        }
        appended
    }

    /// Cuts off what is not committed, and forgets the intents.
    fn settle(&mut self, conn: &Connection) -> Result<()> {
        for path in &self.intents {
            self.objects.cut(path, length(conn, path)?)?;
        }
        if !self.intents.is_empty() {
            conn.execute("DELETE FROM tapeline_intents", [])?;
            self.intents.clear();
        }
        Ok(())
    }
}

/// How many bytes of an object are committed.
fn length(conn: &Connection, path: &ObjectPath) -> Result<u64> {
    let mut statement = conn.prepare_cached("SELECT length FROM tapeline_objects WHERE path = ?1")?;
    let length: Option<i64> = statement.query_row([path.as_str()], |row| row.get(0)).optional()?;
    Ok(length.map_or(0, i64::cast_unsigned))
}

fn store_lengths(conn: &Connection, tails: &[Tail<'_>]) -> Result<()> {
    let mut statement = conn.prepare_cached("INSERT OR REPLACE INTO tapeline_objects VALUES (?1, ?2)")?;
    for tail in tails {
        statement.execute(params![tail.path.as_str(), tail.end().cast_signed()])?;
    }
    Ok(())
}
