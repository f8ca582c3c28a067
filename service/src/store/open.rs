//! Opening the record: the lock first, then whether the file is ours, then its form.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::Mutex;

use super::{Inner, StoreError, Writer};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// "Tndm", as the first migration sets it.
const APPLICATION_ID: i64 = 1_416_520_813;

/// How long another program may hold the file. Longer, and the conductor would seem to have slept.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn open(path: &Path) -> Result<Inner, StoreError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(StoreError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
    }
    let lock = take_lock(path)?;
    create(path)?;
    let file = identity(path).map_err(|error| StoreError::of_file(path, "look at the file", error))?;
    let mut connection = connect(path).await?;
    see_that_it_is_ours(path, &mut connection).await?;
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let migrated = MIGRATIONS.run(&mut connection).await;
    migrated.map_err(|error| StoreError::of_migration(path, known, error))?;
    sign(&mut connection).await.map_err(|error| StoreError::of(path, "write to the record", error))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(2)
        .idle_timeout(Duration::from_secs(60))
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(options(path).read_only(true));
    let writer = Mutex::new(Writer { connection, begun: false });
    Ok(Inner { path: path.to_owned(), file, writer, readers, _lock: lock })
}

/// Whoever holds the lock writes its pid into the file, for whoever is refused.
fn take_lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let failed = |error| StoreError::of_file(path, "lock the file", error);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
    let mut lock = opened.map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { path: path.to_owned(), holder: holder(&mut lock), lock: name });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let signed = lock.set_len(0).and_then(|()| lock.seek(SeekFrom::Start(0)));
    signed.and_then(|_| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
    Ok(lock)
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// SQLite would give a new file the mode of the umask, and open one that cannot be written without a word.
fn create(path: &Path) -> Result<(), StoreError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map(drop).map_err(|error| StoreError::of_file(path, "open the file", error))
}

/// Which file stands there: its device and inode.
pub(super) fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let file = std::fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).foreign_keys(true).busy_timeout(PATIENCE).disable_statement_logging()
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = options(path).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    options.connect().await.map_err(|error| StoreError::of(path, "begin to write", error))
}

/// The migrations of sqlx would add our tables to anybody's database.
async fn see_that_it_is_ours(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let asked: Result<(i64, i64), sqlx::Error> = async {
        let id = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
        let foreign = "SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE '\\_sqlx\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        Ok((id, sqlx::query_scalar(foreign).fetch_one(&mut *connection).await?))
    }
    .await;
    match asked.map_err(|error| StoreError::of(path, "look into the file", error))? {
        (APPLICATION_ID, _) | (0, 0) => Ok(()),
        _ => Err(StoreError::NotOurs { path: path.to_owned(), what: "it is a database of another program".to_owned() }),
    }
}

/// Proves that the file can be written, before anything depends on it.
async fn sign(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let sql =
        "INSERT INTO settings (key, value) VALUES ('written_by', ?1) ON CONFLICT DO UPDATE SET value = excluded.value";
    let version = concat!("tandem-ha ", env!("CARGO_PKG_VERSION"));
    sqlx::query(sql).bind(version).execute(connection).await?;
    Ok(())
}
