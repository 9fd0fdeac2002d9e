//! The registry in the data folder's database, on a connection of its own.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::schema;
use crate::{
    error::{Context as _, Error, Kind, Result},
    registry::{Deployment, Registry, Revised},
    runtime::digest,
};

/// Deployments and components beside a pipeline's data. One process at a time runs a pipeline on it, so that nobody else
/// changes them.
pub struct SqliteRegistry {
    conn: Mutex<Connection>,
}

impl SqliteRegistry {
    /// The registry of a data folder that has a store.
    ///
    /// # Errors
    /// `NotFound` when there is no store; otherwise when it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { conn: Mutex::new(schema::open(&folder.join(schema::FILE))?) })
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for SqliteRegistry {
    fn deployment(&self, stage: &str) -> Result<Option<Revised<Deployment>>> {
        let place = || format!("read the deployment of stage {stage}");
        let conn = self.conn();
        let mut read = conn.prepare_cached("SELECT revision, document FROM tapeline_deployments WHERE stage = ?1")?;
        let found = read.query_row([stage], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).optional();
        let Some((revision, document)) = found.doing(place)? else { return Ok(None) };
        let document = serde_json::from_str(&document).map_err(|error| Error::caused(Kind::Corrupt, place(), error))?;
        Ok(Some((revision as u64, document)))
    }

    fn put_deployment(&self, stage: &str, revision: u64, deployment: &Deployment) -> Result<u64> {
        let place = || format!("change the deployment of stage {stage}");
        let document =
            serde_json::to_string(deployment).map_err(|error| Error::caused(Kind::Internal, place(), error))?;
        let conn = self.conn();
        let put = match revision {
            0 => {
                "INSERT INTO tapeline_deployments SELECT ?1, ?2 + 1, ?3
                  WHERE NOT EXISTS (SELECT 1 FROM tapeline_deployments WHERE stage = ?1)"
            }
            _ => "UPDATE tapeline_deployments SET revision = ?2 + 1, document = ?3 WHERE stage = ?1 AND revision = ?2",
        };
        match conn.prepare_cached(put)?.execute(params![stage, revision as i64, document]).doing(place)? {
            0 => Err(Error::new(Kind::Conflict, format!("{}: it has changed", place()))),
            _ => Ok(revision + 1),
        }
    }

    fn put_component(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let conn = self.conn();
        let put = conn.execute("INSERT OR IGNORE INTO tapeline_components VALUES (?1, ?2)", params![digest, bytes]);
        put.map(drop).doing(|| format!("keep component {digest}"))
    }

    fn component(&self, wanted: &str) -> Result<Vec<u8>> {
        let place = || format!("read component {wanted}");
        let conn = self.conn();
        let mut read = conn.prepare_cached("SELECT bytes FROM tapeline_components WHERE digest = ?1")?;
        let bytes: Option<Vec<u8>> = read.query_row([wanted], |row| row.get(0)).optional().doing(place)?;
        let bytes = bytes.ok_or_else(|| Error::not_found(format!("{}: it is not kept", place())))?;
        if digest(&bytes) != wanted {
            return Err(Error::new(Kind::Corrupt, format!("{}: its bytes have changed", place())));
        }
        Ok(bytes)
    }

    fn remove_component(&self, digest: &str) -> Result<()> {
        let conn = self.conn();
        let removed = conn.execute("DELETE FROM tapeline_components WHERE digest = ?1", [digest]);
        removed.map(drop).doing(|| format!("remove component {digest}"))
    }

    fn put_report(&self, stage: &str, worker: &str, report: &str) -> Result<()> {
        let conn = self.conn();
        let put = "INSERT OR REPLACE INTO tapeline_reports VALUES (?1, ?2, ?3)";
        let put = conn.prepare_cached(put)?.execute(params![stage, worker, report]);
        put.map(drop).doing(|| format!("keep the report of {worker} on stage {stage}"))
    }

    fn reports(&self, stage: &str) -> Result<Vec<(String, String)>> {
        let conn = self.conn();
        let mut read =
            conn.prepare_cached("SELECT worker, document FROM tapeline_reports WHERE stage = ?1 ORDER BY worker")?;
        let rows = read.query_map([stage], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn has_news(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SqliteStore;

    #[test]
    fn there_is_no_registry_without_a_store() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SqliteRegistry::open(folder.path()).err().map(|error| error.kind()), Some(Kind::NotFound));
    }

    #[test]
    fn a_component_that_has_changed_is_not_given() {
        let folder = tempfile::tempdir().unwrap();
        let _store = SqliteStore::open(folder.path()).unwrap();
        let registry = SqliteRegistry::open(folder.path()).unwrap();
        registry.put_component("0123", b"other bytes").unwrap();
        assert_eq!(registry.component("0123").unwrap_err().kind(), Kind::Corrupt);
    }
}
