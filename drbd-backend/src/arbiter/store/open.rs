//! Opening the arbiter's store: the lock first, then whether the file is ours, then every row of it.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use replication::Incarnation;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{FENCES, File, INCARNATION, Store, StoreError, VOLUMES, checksum_of};

/// "Tarb", in SQLite's header.
const APPLICATION_ID: i64 = 1_415_672_418;
/// Of the tables, in SQLite's header.
const FORM: i64 = 1;
/// SQLite looks, before it writes, whether the file still has its name.
const READONLY_DBMOVED: u32 = 1032;
/// How long another program, a backup say, may hold the file. Longer, and the arbiter stops.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn open(directory: &Path) -> Result<Store, StoreError> {
    if !directory.is_dir() {
        return Err(StoreError::NoDirectory { directory: directory.to_owned() });
    }
    let lock = take_lock(directory)?;
    let path = directory.join("register.sqlite");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let identity = opened.and_then(|_| identity(&path)).map_err(|error| disk(&path, "open", error))?;
    let mut connection = connect(&path).await.map_err(|error| failed(&path, "open", error))?;
    match headers(&mut connection).await.map_err(|error| failed(&path, "read", error))? {
        (0, 0, 0) => create(&mut connection).await.map_err(|error| failed(&path, "write", error))?,
        (APPLICATION_ID, FORM, _) => {}
        (APPLICATION_ID, form, _) => return Err(StoreError::Newer { path, form }),
        _ => return Err(StoreError::NotOurs { path }),
    }
    see_that_it_is_whole(&path, &mut connection).await?;
    let mut file = File { path: path.clone(), identity, connection };
    let incarnation = check_every_row(&mut file).await?;
    prove_writable(&mut file, directory).await?;
    Ok(Store { path, incarnation, file: Mutex::new(file), stopped: AtomicBool::new(false), _lock: lock })
}

/// Whoever holds the lock writes its pid into the file, for whoever is refused.
fn take_lock(directory: &Path) -> Result<fs::File, StoreError> {
    let path = directory.join("lock");
    let failed = |error| disk(&path, "lock", error);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut lock = opened.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { directory: directory.to_owned(), holder: holder(&mut lock) });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let signed = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)));
    signed.and_then(|_| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

fn holder(lock: &mut fs::File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Which file stands there: its device and inode.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(PATIENCE).disable_statement_logging();
    // TRUNCATE with FULL syncs the journal, then the file, then the emptied journal, each before the next.
    options.journal_mode(SqliteJournalMode::Truncate).synchronous(SqliteSynchronous::Full).connect().await
}

/// Application id, form, and how many tables there are.
async fn headers(connection: &mut SqliteConnection) -> Result<(i64, i64, i64), sqlx::Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let form = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let tables = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *connection).await?;
    Ok((application, form, tables))
}

/// The first start: table and incarnation come to be together.
async fn create(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut first = connection.begin().await?;
    let table = "CREATE TABLE register (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID";
    sqlx::query(table).execute(&mut *first).await?;
    let incarnation = Uuid::new_v4().to_string();
    let row = "INSERT INTO register (key, value, checksum) VALUES (?1, ?2, ?3)";
    let checksum = checksum_of(INCARNATION, &incarnation);
    sqlx::query(row).bind(INCARNATION).bind(incarnation).bind(checksum).execute(&mut *first).await?;
    sqlx::query(&format!("PRAGMA application_id = {APPLICATION_ID}")).execute(&mut *first).await?;
    sqlx::query(&format!("PRAGMA user_version = {FORM}")).execute(&mut *first).await?;
    first.commit().await
}

async fn see_that_it_is_whole(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let checked = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(connection).await;
    let verdict: String = checked.map_err(|error| failed(path, "read", error))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged { path: path.to_owned(), what: verdict, source: None }),
    }
}

async fn check_every_row(file: &mut File) -> Result<Incarnation, StoreError> {
    let keys = sqlx::query_scalar("SELECT key FROM register").fetch_all(&mut file.connection).await;
    let keys: Vec<String> = keys.map_err(|error| file.failed("read", error))?;
    for key in keys {
        match key.as_str() {
            INCARNATION => {}
            FENCES => _ = file.fences().await?,
            key if key.starts_with(VOLUMES) => _ = file.record(key).await?,
            key => return Err(file.damaged(format!("the key {key} is none of ours"), None)),
        }
    }
    let incarnation = file.value(INCARNATION).await?.and_then(|text| Uuid::try_parse(&text).ok());
    let incarnation = incarnation.ok_or_else(|| file.damaged("it has no incarnation".to_owned(), None))?;
    Ok(Incarnation(incarnation.as_u128()))
}

/// Before anything depends on it. Then the directory is synced, for the name of a file that is new.
async fn prove_writable(file: &mut File, directory: &Path) -> Result<(), StoreError> {
    let sql = "UPDATE register SET value = value WHERE key = ?1";
    let written = sqlx::query(sql).bind(INCARNATION).execute(&mut file.connection).await;
    written.map_err(|error| file.failed("write", error))?;
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| disk(&file.path, "sync the directory of", error))
}

/// SQLite's words for "this is damaged" (SQLITE_CORRUPT, SQLITE_NOTADB, in all their extended forms) and "this was moved" become ours.
pub(super) fn failed(path: &Path, action: &'static str, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    match code.map(|code| (code & 0xff, code)) {
        Some((11 | 26, _)) => {
            let what = "SQLite cannot make sense of it".to_owned();
            StoreError::Damaged { path: path.to_owned(), what, source: Some(error.into()) }
        }
        Some((_, READONLY_DBMOVED)) => StoreError::Gone { path: path.to_owned() },
        Some(_) | None => StoreError::Disk { path: path.to_owned(), action, source: error.into() },
    }
}

fn disk(path: &Path, action: &'static str, error: io::Error) -> StoreError {
    StoreError::Disk { path: path.to_owned(), action, source: error.into() }
}
