//! The embedded arbiter's memory: one SQLite file whose every change is on the disk before it is answered.
//!
//! ```text
//! DIRECTORY/lock             held by the process that serves; its pid
//! DIRECTORY/register.sqlite  table register: key -> value (JSON), checksum (SHA-256 of both)
//!     incarnation            random, drawn at the first start
//!     fences                 version and list
//!     volumes/UUID           the record
//! ```
//!
//! A rollback journal rather than a write-ahead log: between two changes the one file is the whole truth, and damage to it shows.
//! Damage to a write-ahead log would quietly bring back yesterday's records.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use replication::{Incarnation, Record, VolumeId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteQueryResult;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use super::form::{Misform, record_from_json, record_to_json};
use super::{Change, Fence};

mod open;

const VOLUMES: &str = "volumes/";
const FENCES: &str = "fences";
const INCARNATION: &str = "incarnation";

/// What is wrong with the store, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the arbiter's directory {directory} is not there: create it, writable for this user alone", directory = directory.display())]
    NoDirectory { directory: PathBuf },
    #[error(
        "the arbiter's directory {directory} is in use by another arbiter{holder}: stop that one first, or use a directory of its own",
        directory = directory.display(),
        holder = holder.map_or_else(String::new, |pid| format!(", pid {pid}"))
    )]
    InUse { directory: PathBuf, holder: Option<u32> },
    #[error("{path} is not an arbiter's store: move it away, or use another directory", path = path.display())]
    NotOurs { path: PathBuf },
    #[error("{path} was written by a newer version of Tandem (form {form}): run that version", path = path.display())]
    Newer { path: PathBuf, form: i64 },
    #[error(
        "the arbiter's store {path} is damaged ({what}): keep a copy, move it away, start again with an empty store, and confirm each volume with `tandem arbiter rebuild`; never restore an old copy",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    #[error("the arbiter's store {path} was moved, removed or replaced while in use: put it back, and start again", path = path.display())]
    Gone { path: PathBuf },
    #[error(
        "could not {action} the arbiter's store {path}: see that its directory can be written, that its disk is not full, and the kernel's log",
        path = path.display()
    )]
    Disk {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the arbiter's store {path} failed before and answers nothing more: start the arbiter again", path = path.display())]
    Stopped { path: PathBuf },
}

/// How a change of a record ended in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// On the disk.
    Done,
    Refused(Box<Record>),
    Missing,
}

/// Records and fences in one file. After the first error it answers nothing more: what then is on the disk only a restart shows.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    incarnation: Incarnation,
    file: Mutex<File>,
    stopped: AtomicBool,
    /// Held as long as the store is open.
    _lock: std::fs::File,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    connection: SqliteConnection,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct FenceDocument {
    pub(super) version: u64,
    pub(super) list: Vec<Fence>,
}

impl Store {
    /// Opens the store in this directory, or makes it, under a new incarnation.
    ///
    /// Everything in it is read and checked first. Errors: [`StoreError`], each with its remedy.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        open::open(directory).await
    }

    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub async fn read(&self, volume: VolumeId) -> Result<Option<Record>, StoreError> {
        let mut file = self.enter().await?;
        let read = file.record(&key_of(volume)).await;
        self.leave(read)
    }

    /// Up to `limit` records in the order of their ids, from after this one.
    pub async fn list(&self, after: Option<VolumeId>, limit: u32) -> Result<Vec<(VolumeId, Record)>, StoreError> {
        let mut file = self.enter().await?;
        let listed = file.list(after, limit).await;
        self.leave(listed)
    }

    /// Compares the whole record, and changes it. Whether the change is one that may be made is for the caller to judge.
    ///
    /// After an error it may have been made or not; the store has stopped.
    pub async fn change(&self, volume: VolumeId, change: &Change) -> Result<Changed, StoreError> {
        let mut file = self.enter().await?;
        let changed = file.change(volume, change).await;
        self.leave(changed)
    }

    pub(super) async fn fences(&self) -> Result<FenceDocument, StoreError> {
        let mut file = self.enter().await?;
        let read = file.fences().await;
        self.leave(read.map(|(_, document)| document))
    }

    /// The document that is there instead, if its version is another one.
    pub(super) async fn change_fences(
        &self,
        expected_version: u64,
        list: Vec<Fence>,
    ) -> Result<Result<(), FenceDocument>, StoreError> {
        let mut file = self.enter().await?;
        let changed = file.change_fences(expected_version, list).await;
        self.leave(changed)
    }

    async fn enter(&self) -> Result<MutexGuard<'_, File>, StoreError> {
        let file = self.file.lock().await;
        match self.stopped.load(Ordering::Acquire) {
            false => Ok(file),
            true => Err(StoreError::Stopped { path: self.path.clone() }),
        }
    }

    fn leave<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.stopped.store(true, Ordering::Release);
        }
        result
    }
}

impl File {
    async fn change(&mut self, volume: VolumeId, change: &Change) -> Result<Changed, StoreError> {
        let key = key_of(volume);
        let stored = self.value(&key).await?;
        let there = stored.as_deref().map(|text| self.understood(&key, record_from_json(text))).transpose()?;
        match there {
            None if change.expected().is_some() => return Ok(Changed::Missing),
            Some(there) if change.expected() != Some(&there) => return Ok(Changed::Refused(Box::new(there))),
            None | Some(_) => {}
        }
        self.replace(&key, stored, change.proposed().map(record_to_json)).await?;
        Ok(Changed::Done)
    }

    async fn change_fences(
        &mut self,
        expected_version: u64,
        list: Vec<Fence>,
    ) -> Result<Result<(), FenceDocument>, StoreError> {
        let (stored, there) = self.fences().await?;
        if there.version != expected_version {
            return Ok(Err(there));
        }
        let document = FenceDocument { version: expected_version + 1, list };
        let text = serde_json::to_string(&document).expect("texts and numbers can be written as JSON");
        self.replace(FENCES, stored, Some(text)).await?;
        Ok(Ok(()))
    }

    async fn record(&mut self, key: &str) -> Result<Option<Record>, StoreError> {
        let stored = self.value(key).await?;
        stored.map(|text| self.understood(key, record_from_json(&text))).transpose()
    }

    async fn fences(&mut self) -> Result<(Option<String>, FenceDocument), StoreError> {
        let stored = self.value(FENCES).await?;
        let Some(text) = &stored else { return Ok((None, FenceDocument::default())) };
        let document = self.understood(FENCES, serde_json::from_str(text).map_err(Misform::from))?;
        Ok((stored, document))
    }

    async fn list(&mut self, after: Option<VolumeId>, limit: u32) -> Result<Vec<(VolumeId, Record)>, StoreError> {
        let sql = "SELECT key, value, checksum FROM register WHERE key > ?1 AND key < 'volumes0' ORDER BY key LIMIT ?2";
        let after = after.map_or_else(|| VOLUMES.to_owned(), key_of);
        let rows = sqlx::query_as(sql).bind(after).bind(limit).fetch_all(&mut self.connection).await;
        let rows: Vec<(String, String, Vec<u8>)> = rows.map_err(|error| self.failed("read", error))?;
        rows.into_iter().map(|(key, value, checksum)| self.listed(&key, &value, &checksum)).collect()
    }

    fn listed(&self, key: &str, value: &str, checksum: &[u8]) -> Result<(VolumeId, Record), StoreError> {
        self.checked(key, value, checksum)?;
        let id = key.strip_prefix(VOLUMES).and_then(|id| Uuid::try_parse(id).ok());
        let id = id.ok_or_else(|| self.damaged(format!("the key {key} names no volume"), None))?;
        Ok((VolumeId(id.as_u128()), self.understood(key, record_from_json(value))?))
    }

    async fn value(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT value, checksum FROM register WHERE key = ?1";
        let row = sqlx::query_as(sql).bind(key).fetch_optional(&mut self.connection).await;
        let row: Option<(String, Vec<u8>)> = row.map_err(|error| self.failed("read", error))?;
        let Some((value, checksum)) = row else { return Ok(None) };
        self.checked(key, &value, &checksum)?;
        Ok(Some(value))
    }

    /// One statement, so one transaction; it compares once more, though nobody else may write this file.
    async fn replace(&mut self, key: &str, was: Option<String>, now: Option<String>) -> Result<(), StoreError> {
        let written = match (was, now) {
            (None, None) => return Ok(()),
            (None, Some(now)) => self.insert(key, &now).await,
            (Some(was), Some(now)) => self.update(key, &was, &now).await,
            (Some(was), None) => self.delete(key, &was).await,
        };
        let rows = written.map_err(|error| self.failed("write", error))?.rows_affected();
        // Looked at after the write: what went into a file that has lost its name must not be called done.
        if open::identity(&self.path).ok() != Some(self.identity) {
            return Err(StoreError::Gone { path: self.path.clone() });
        }
        match rows {
            1 => Ok(()),
            _ => Err(self.damaged(format!("another program has changed {key}"), None)),
        }
    }

    async fn insert(&mut self, key: &str, now: &str) -> Result<SqliteQueryResult, sqlx::Error> {
        let sql = "INSERT INTO register (key, value, checksum) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(key).bind(now).bind(checksum_of(key, now)).execute(&mut self.connection).await
    }

    async fn update(&mut self, key: &str, was: &str, now: &str) -> Result<SqliteQueryResult, sqlx::Error> {
        let sql = "UPDATE register SET value = ?3, checksum = ?4 WHERE key = ?1 AND value = ?2";
        let query = sqlx::query(sql).bind(key).bind(was).bind(now).bind(checksum_of(key, now));
        query.execute(&mut self.connection).await
    }

    async fn delete(&mut self, key: &str, was: &str) -> Result<SqliteQueryResult, sqlx::Error> {
        let sql = "DELETE FROM register WHERE key = ?1 AND value = ?2";
        sqlx::query(sql).bind(key).bind(was).execute(&mut self.connection).await
    }

    /// SQLite has no checksums of its own: a flipped bit in a value would pass.
    fn checked(&self, key: &str, value: &str, checksum: &[u8]) -> Result<(), StoreError> {
        match checksum == checksum_of(key, value) {
            true => Ok(()),
            false => Err(self.damaged(format!("the checksum of {key} is wrong"), None)),
        }
    }

    fn understood<T>(&self, key: &str, parsed: Result<T, Misform>) -> Result<T, StoreError> {
        parsed.map_err(|error| self.damaged(format!("{key} cannot be understood"), Some(error.into())))
    }

    fn damaged(&self, what: String, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what, source }
    }

    fn failed(&self, action: &'static str, error: sqlx::Error) -> StoreError {
        open::failed(&self.path, action, error)
    }
}

fn key_of(volume: VolumeId) -> String {
    format!("{VOLUMES}{volume}")
}

fn checksum_of(key: &str, value: &str) -> Vec<u8> {
    Sha256::new().chain_update(key).chain_update([0]).chain_update(value).finalize().to_vec()
}
