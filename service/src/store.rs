//! The record of tandem-ha in one SQLite file: written before anything is done, read when it starts again. All SQL is here.
//!
//! One process at a time: a lock on `PATH.lock`, held until the last [`Store`] is dropped, stands in for a leader's lease. Others may read the
//! file with sqlite3 meanwhile.

mod error;
mod open;
mod read;
mod words;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failover::{Entry, EntryKind, Incident, IncidentId, InstanceId, Ledger, Time};
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;
use uuid::Uuid;

pub use error::StoreError;
pub(crate) use words::{receipt_kind, rfc3339};

/// Clones share one record.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Device and inode of the file, to notice when another one stands in its place: SQLite would go on writing to what nobody finds again.
    file: (u64, u64),
    writer: Mutex<Writer>,
    readers: SqlitePool,
    _lock: File,
}

/// The one connection that writes. Transactions are our own statements: SQLite ends one by itself when the disk is full, and sqlx, which
/// counts them, would not begin another.
#[derive(Debug)]
struct Writer {
    connection: SqliteConnection,
    /// A transaction was begun and not ended: whoever began it was interrupted.
    begun: bool,
}

/// One line of an incident's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub at: Time,
    pub kind: EntryKind,
    pub instance: Option<InstanceId>,
    pub text: String,
}

/// Which incidents are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Which {
    Open,
    Closed,
    #[default]
    All,
}

/// The incident's id in the API: the same for the same outage, whoever works it out.
pub fn incident_uuid(id: &IncidentId) -> Uuid {
    Uuid::new_v5(&Uuid::from_u128(id.host.service), format!("outage {}", id.outage).as_bytes())
}

impl Store {
    /// Opens the record, or makes a new one, which is disarmed. Refused while another tandem-ha has it open.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        open::open(path).await.map(|inner| Self(Arc::new(inner)))
    }

    /// All hosts, the open incidents, and those closed at `closed_since` or later. The lease is not kept here.
    pub async fn load(&self, closed_since: Time) -> Result<Ledger, StoreError> {
        let connection = self.0.readers.acquire().await;
        let loaded = match connection {
            Ok(mut connection) => read::ledger(&mut connection, closed_since).await,
            Err(error) => Err(error),
        };
        loaded.map_err(|error| self.failed("read the record", error))
    }

    /// Writes what differs between two ledgers, and the sentences about it, all or nothing. `before` must be what was recorded last.
    ///
    /// An incident that `after` has forgotten stays in the record.
    pub async fn record(&self, at: Time, before: &Ledger, after: &Ledger, entries: &[Entry]) -> Result<(), StoreError> {
        if before == after && entries.is_empty() {
            return Ok(());
        }
        self.see_that_it_is_there()?;
        let mut writer = self.0.writer.lock().await;
        let recorded = writer.record(at, before, after, entries).await;
        recorded.map_err(|error| self.failed("write a decision", error))
    }

    /// The story of an incident, from its beginning.
    pub async fn timeline(&self, id: &IncidentId) -> Result<Vec<Recorded>, StoreError> {
        let rows = read::timeline(&self.0.readers, incident_uuid(id)).await;
        rows.map_err(|error| self.failed("read a timeline", error))
    }

    /// Newest first, at most `limit`, of all hosts or of those with this name.
    pub async fn incidents(&self, which: Which, host: Option<&str>, limit: u32) -> Result<Vec<Incident>, StoreError> {
        let rows = read::incidents(&self.0.readers, which, host, limit).await;
        rows.map_err(|error| self.failed("read the incidents", error))
    }

    pub async fn incident(&self, id: Uuid) -> Result<Option<Incident>, StoreError> {
        let row = read::incident(&self.0.readers, id).await;
        row.map_err(|error| self.failed("read an incident", error))
    }

    /// Folds the write-ahead log into the file. For an orderly end; a kill loses nothing either.
    pub async fn close(self) {
        self.0.readers.close().await;
        if let Ok(inner) = Arc::try_unwrap(self.0) {
            let _ = inner.writer.into_inner().connection.close().await;
        }
    }

    fn see_that_it_is_there(&self) -> Result<(), StoreError> {
        match open::identity(&self.0.path) {
            Ok(file) if file == self.0.file => Ok(()),
            Ok(_) | Err(_) => Err(StoreError::Gone { path: self.0.path.clone() }),
        }
    }

    fn failed(&self, what: &'static str, error: sqlx::Error) -> StoreError {
        StoreError::of(&self.0.path, what, error)
    }
}

impl Writer {
    async fn record(
        &mut self,
        at: Time,
        before: &Ledger,
        after: &Ledger,
        entries: &[Entry],
    ) -> Result<(), sqlx::Error> {
        if self.begun {
            self.roll_back().await;
        }
        self.begun = true;
        let written = self.transaction(at, before, after, entries).await;
        match &written {
            Ok(()) => self.begun = false,
            Err(_) => self.roll_back().await,
        }
        written
    }

    async fn transaction(
        &mut self,
        at: Time,
        before: &Ledger,
        after: &Ledger,
        entries: &[Entry],
    ) -> Result<(), sqlx::Error> {
        let connection = &mut self.connection;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        write::difference(connection, at, before, after).await?;
        for entry in entries {
            write::entry(connection, at, entry).await?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        Ok(())
    }

    /// Fails where SQLite has done it already.
    async fn roll_back(&mut self) {
        let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
        self.begun = false;
    }
}
