//! What may be wrong with the file, its disk and its neighbours: each is told with the path and the remedy, and nothing is half written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use failover::{Decision, Gate, Ledger, Time};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tandem_ha::store::{Store, StoreError};

use super::{NOW, by_hand, decide, opened, outage, place};

/// Where the disk is mounted that a test was given for itself.
const DISK: &str = "TANDEM_TEST_DISK";

async fn refused(path: &Path) -> StoreError {
    let error = Store::open(path).await.expect_err("it must be refused");
    let sentence = error.to_string();
    assert!(sentence.contains(&path.display().to_string()), "the path is missing: {sentence}");
    error
}

#[tokio::test]
async fn a_second_tandem_ha_is_refused_and_told_who_holds_the_record() {
    let (_directory, path) = place();
    let first = Store::open(&path).await.unwrap();
    let error = refused(&path).await;
    let pid = std::process::id();
    assert!(matches!(error, StoreError::InUse { holder: Some(holder), .. } if holder == pid), "{error}");
    assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
    drop(first);
    Store::open(&path).await.expect("the lock ends with its holder");
}

#[tokio::test]
async fn the_lock_of_a_killed_process_holds_nobody_up() {
    let (_directory, path) = place();
    fs::write(path.with_extension("sqlite.lock"), "4711\n").unwrap();
    Store::open(&path).await.unwrap();
    assert_eq!(fs::read_to_string(path.with_extension("sqlite.lock")).unwrap(), format!("{}\n", std::process::id()));
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let (directory, _) = place();
    let missing = directory.path().join("no/such");
    let error = refused(&missing.join("ha.sqlite")).await;
    assert!(matches!(&error, StoreError::NoDirectory { directory, .. } if *directory == missing), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_left_as_it_was() {
    let (_directory, path) = place();
    let text = "these are my notes\n".repeat(300);
    fs::write(&path, &text).unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_directory_is_no_database() {
    let (_directory, path) = place();
    fs::create_dir(&path).unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
}

#[tokio::test]
async fn the_database_of_another_program_is_not_touched() {
    let (_directory, path) = place();
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut other = options.connect().await.unwrap();
    sqlx::query("CREATE TABLE recipes (name TEXT)").execute(&mut other).await.unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut other).await.unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_record_from_a_newer_version_is_refused() {
    let (_directory, path) = place();
    Store::open(&path).await.unwrap().close().await;
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'of the future', 1, x'00', 1)";
    sqlx::query(sql).execute(&mut by_hand(&path).await).await.unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::Newer { version: 9999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_record_from_another_build_is_refused() {
    let (_directory, path) = place();
    Store::open(&path).await.unwrap().close().await;
    let sql = "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1";
    sqlx::query(sql).execute(&mut by_hand(&path).await).await.unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::AnotherBuild { version: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn another_program_that_keeps_the_file_locked_is_told_and_outlasted() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut other = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let (before, mut after) = (Ledger::default(), Ledger::default());
    after.apply(NOW, &opened(&outage(1, 1)));
    let error = store.record(NOW, &before, &after, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
    assert_eq!(store.load(Time(0)).await.unwrap(), before, "it can still be read");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.record(NOW, &before, &after, &[]).await.unwrap();
    assert_eq!(store.load(Time(0)).await.unwrap(), after);
}

#[tokio::test]
async fn a_record_that_is_locked_at_the_start_is_refused() {
    let (_directory, path) = place();
    Store::open(&path).await.unwrap().close().await;
    let mut other = by_hand(&path).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::Locked { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_not_written_to() {
    let (directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let (before, mut after) = (Ledger::default(), Ledger::default());
    after.apply(NOW, &opened(&outage(1, 1)));
    let away = directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    let gone = store.record(NOW, &before, &after, &[]).await.unwrap_err();
    assert!(matches!(gone, StoreError::Gone { .. }), "{gone:?}");
    fs::write(&path, "another").unwrap();
    let gone = store.record(NOW, &before, &after, &[]).await.unwrap_err();
    assert!(matches!(gone, StoreError::Gone { .. }), "{gone:?}");
    fs::rename(&away, &path).unwrap();
    store.record(NOW, &before, &after, &[]).await.expect("it is back");
}

#[tokio::test]
async fn a_word_that_nobody_of_ours_writes_is_named_with_its_place() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    decide(&store, NOW, &mut Ledger::default(), &[opened(&outage(1, 1))]).await;
    let mut hand = by_hand(&path).await;
    for (sql, column) in [
        ("UPDATE incidents SET phase = 'well'", "incidents.phase"),
        ("UPDATE incidents SET phase = 'suspected', opened_at = 'yesterday'", "incidents.opened_at"),
    ] {
        sqlx::query(sql).execute(&mut hand).await.unwrap();
        let error = store.load(Time(0)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Garbled { column: its, .. } if its == column), "{error:?}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    decide(&store, NOW, &mut Ledger::default(), &[opened(&outage(1, 1))]).await;
    store.close().await;
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[4096..end].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = match Store::open(&path).await {
        Err(error) => error,
        Ok(store) => store.load(Time(0)).await.unwrap_err(),
    };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let (directory, path) = place();
    let _store = Store::open(&path).await.unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

/// Runs one of the ignored tests below with a small disk of its own, in its own mount namespace.
fn on_its_own_disk(test: &str) {
    let (directory, _) = place();
    let script = r#"mount -t tmpfs -o size=1m tmpfs "$TANDEM_TEST_DISK" && exec "$0" "$@""#;
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let namespaces = if root { "-m" } else { "-rm" };
    let run = Command::new("unshare")
        .args([namespaces, "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--include-ignored", "--nocapture", test])
        .env(DISK, directory.path())
        .output()
        .expect("unshare (util-linux) gives the test a disk of its own");
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

fn disk() -> PathBuf {
    std::env::var_os(DISK).expect("it is run by another test, which mounts its disk").into()
}

fn mount(options: &str) {
    let status = Command::new("mount").args(["-o", options]).arg(disk()).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_read_only_filesystem_is_told() {
    on_its_own_disk("bad_days::inside_read_only");
}

#[tokio::test]
#[ignore = "run by a_read_only_filesystem_is_told"]
async fn inside_read_only() {
    let path = disk().join("ha.sqlite");
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    decide(&store, NOW, &mut ledger, &[opened(&outage(1, 1))]).await;
    store.close().await;
    mount("remount,ro");
    let error = refused(&path).await;
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    mount("remount,rw");
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.load(Time(0)).await.unwrap(), ledger);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_written_and_goes_on_when_there_is_space() {
    on_its_own_disk("bad_days::inside_full");
}

#[tokio::test]
#[ignore = "run by a_full_disk_is_told_and_nothing_is_half_written_and_goes_on_when_there_is_space"]
async fn inside_full() {
    let path = disk().join("ha.sqlite");
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    decide(&store, NOW, &mut ledger, &[opened(&id)]).await;
    let filler = disk().join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let error = loop {
        let (before, decisions) = (ledger.clone(), [note(&id), note(&id)]);
        let entries: Vec<_> = decisions.iter().filter_map(Decision::entry).collect();
        let written = store.record(NOW, &before, &Ledger { armed: !ledger.armed, ..before.clone() }, &entries).await;
        match written {
            Ok(()) => ledger.armed = !ledger.armed,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(store.load(Time(0)).await.unwrap(), ledger);
    let lines = store.timeline(&id).await.unwrap().len();
    assert_eq!(lines % 2, 1, "the two sentences of one record stand or fall together");
    let again = store.record(NOW, &ledger, &Ledger { armed: !ledger.armed, ..ledger.clone() }, &[]).await;
    assert!(again.is_ok() || matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    if again.is_ok() {
        ledger.armed = !ledger.armed;
    }
    fs::remove_file(&filler).unwrap();
    decide(&store, NOW, &mut ledger, &[note(&id)]).await;
    assert_eq!(store.timeline(&id).await.unwrap().len(), lines + 1);
}

fn note(id: &failover::IncidentId) -> Decision {
    Decision::Hold { id: id.clone(), gate: Gate::Evidence, why: "x".repeat(3000).into() }
}

#[test]
fn a_new_record_on_a_full_disk_is_refused() {
    on_its_own_disk("bad_days::inside_full_from_the_start");
}

#[tokio::test]
#[ignore = "run by a_new_record_on_a_full_disk_is_refused"]
async fn inside_full_from_the_start() {
    let _ = fs::write(disk().join("filler"), vec![0; 2 << 20]);
    let error = refused(&disk().join("ha.sqlite")).await;
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    fs::remove_file(disk().join("filler")).unwrap();
    let store = Store::open(&disk().join("ha.sqlite")).await.expect("a half-made record is made whole");
    assert_eq!(store.load(Time(0)).await.unwrap(), Ledger::default());
    let _ = store;
}
