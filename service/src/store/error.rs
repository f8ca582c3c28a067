//! What can be wrong with the record, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

/// Each sentence names the file and the remedy; the cause is its source.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the database {path} cannot be: there is no directory {directory}; create it, or set [store] path",
        path = path.display(),
        directory = directory.display()
    )]
    NoDirectory { path: PathBuf, directory: PathBuf },
    #[error(
        "the database {path} is in use by another tandem-ha{holder} (it holds {lock}): stop that one first, or give this one a [store] path of its own",
        path = path.display(),
        lock = lock.display(),
        holder = holder.map_or_else(String::new, |pid| format!(", pid {pid}"))
    )]
    InUse { path: PathBuf, lock: PathBuf, holder: Option<u32> },
    #[error(
        "the database {path} cannot be written: it is read-only for this user, or its filesystem is; it, {path}.lock and their directory must be writable",
        path = path.display()
    )]
    ReadOnly {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the disk under the database {path} is full: free some space there", path = path.display())]
    Full {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "{path} is not a database of tandem-ha ({what}): set [store] path to another file, or move this one away",
        path = path.display()
    )]
    NotOurs { path: PathBuf, what: String },
    #[error(
        "the database {path} was written by a newer tandem-ha (its record has form {version}, this one knows up to {known}): run that version, or set [store] path to a new file",
        path = path.display()
    )]
    Newer { path: PathBuf, version: i64, known: i64 },
    #[error(
        "the database {path} was made by another build of tandem-ha (form {version} of its record differs): run that build, or set [store] path to a new file",
        path = path.display()
    )]
    AnotherBuild { path: PathBuf, version: i64 },
    #[error(
        "the database {path} is locked by another program: close what has it open for writing (`fuser {path}` says who)",
        path = path.display()
    )]
    Locked {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error(
        "the database {path} is damaged: stop tandem-ha, keep a copy, and restore it or move it away (a new one starts disarmed)",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: sqlx::Error,
    },
    #[error("the database {path} was moved or removed while in use: put it back, or start tandem-ha again", path = path.display())]
    Gone { path: PathBuf },
    #[error(
        "the disk under the database {path} fails: see the kernel's log, and that {path} and its -wal and -shm can be read and written",
        path = path.display()
    )]
    Disk {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the database {path} holds {value} in {column}, which no tandem-ha writes there: correct it with sqlite3 while tandem-ha is stopped",
        path = path.display()
    )]
    Garbled { path: PathBuf, column: String, value: String },
    #[error("could not {what} in the database {path}: this is a mistake in tandem-ha, please report it", path = path.display())]
    Other {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// SQLite's result codes (sqlite.org/rescode.html).
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
    pub(super) const READONLY_DBMOVED: i32 = 1032;
    /// The -shm file could not be made larger.
    pub(super) const IOERR_SHMSIZE: i32 = 4874;
}

impl StoreError {
    pub(super) fn of(path: &Path, what: &'static str, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        if let sqlx::Error::ColumnDecode { index: column, source } = source {
            return Self::Garbled { path, column, value: source.to_string() };
        }
        let extended = code_of(&source).unwrap_or_default();
        match (extended & 0xff, extended) {
            (_, code::READONLY_DBMOVED) => Self::Gone { path },
            (_, code::IOERR_SHMSIZE) | (code::FULL, _) => Self::Full { path, source: source.into() },
            (code::BUSY | code::LOCKED, _) => Self::Locked { path, source },
            (code::READONLY, _) => Self::ReadOnly { path, source: source.into() },
            (code::CORRUPT, _) => Self::Damaged { path, source },
            (code::NOTADB, _) => Self::NotOurs { path, what: "it is no SQLite database".to_owned() },
            (code::IOERR | code::CANTOPEN, _) => Self::Disk { path, source: source.into() },
            _ => Self::Other { path, what, source: source.into() },
        }
    }

    pub(super) fn of_migration(path: &Path, known: i64, error: MigrateError) -> Self {
        let what = "bring the record up to date";
        match error {
            MigrateError::VersionMissing(version) => Self::Newer { path: path.to_owned(), version, known },
            MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => {
                Self::AnotherBuild { path: path.to_owned(), version }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::of(path, what, error),
            other => Self::Other { path: path.to_owned(), what, source: other.into() },
        }
    }

    pub(super) fn of_file(path: &Path, what: &'static str, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path, source: error.into() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source: error.into() },
            io::ErrorKind::IsADirectory => Self::NotOurs { path, what: "it is a directory".to_owned() },
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                let directory = path.parent().unwrap_or(&path).to_owned();
                Self::NoDirectory { path, directory }
            }
            io::ErrorKind::Other => Self::Other { path, what, source: error.into() },
            _ => Self::Disk { path, source: error.into() },
        }
    }
}

fn code_of(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}
