//! Promises of the record: nothing is lost, nothing is half written, and what is wrong with the file is said with its remedy.

#[path = "store/bad_days.rs"]
mod bad_days;
#[path = "store/ledgers.rs"]
mod ledgers;
#[path = "store/round_trip.rs"]
mod round_trip;

use std::path::PathBuf;

use failover::{Act, Decision, EntryKind, Gate, Host, IncidentId, InstanceId, Ledger, MoveState, Outcome, Phase, Time};
use sqlx::{ConnectOptions, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tandem_ha::store::{Recorded, Store, Which, incident_uuid};
use tempfile::TempDir;

/// A moment in 2026.
const NOW: Time = Time(1_795_000_000_123);

fn host(number: u128) -> Host {
    Host { service: number, name: format!("cmp{number}").into() }
}

fn outage(number: u128, outage: u32) -> IncidentId {
    IncidentId { host: host(number), outage }
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ha.sqlite");
    (directory, path)
}

/// As anybody may open the file with sqlite3.
async fn by_hand(path: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

fn opened(id: &IncidentId) -> Decision {
    Decision::Open { id: id.clone(), why: "nothing is heard of it on mgmt".into() }
}

/// Applies and records, as the conductor does.
async fn decide(store: &Store, at: Time, ledger: &mut Ledger, decisions: &[Decision]) {
    let before = ledger.clone();
    for decision in decisions {
        ledger.apply(at, decision);
    }
    let entries: Vec<_> = decisions.iter().filter_map(Decision::entry).collect();
    store.record(at, &before, ledger, &entries).await.unwrap();
}

#[tokio::test]
async fn a_new_record_is_empty_and_disarmed() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.load(Time(0)).await.unwrap(), Ledger::default());
}

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    let arm = Decision::Arm { armed: true, by: "root".into(), why: "ready".into() };
    decide(&store, NOW, &mut ledger, &[arm, opened(&id), Decision::Act(Act::ForceDown { id: id.clone() })]).await;
    drop(store); // as a kill would
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.load(NOW).await.unwrap(), ledger);
}

#[tokio::test]
async fn the_timeline_tells_an_incident_in_order() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let (one, other) = (outage(1, 1), outage(2, 1));
    decide(&store, NOW, &mut ledger, &[opened(&one), opened(&other)]).await;
    let instance = InstanceId(7);
    let plan = Decision::Plan { id: one.clone(), instance, name: "vm7".into() };
    decide(&store, Time(NOW.0 + 5), &mut ledger, &[plan]).await;
    let entry = |at, kind, instance, text: &str| Recorded { at, kind, instance, text: text.to_owned() };
    let story = [
        entry(NOW, EntryKind::Evidence, None, "suspected: nothing is heard of it on mgmt"),
        entry(Time(NOW.0 + 5), EntryKind::Move, Some(instance), "to be moved"),
    ];
    assert_eq!(store.timeline(&one).await.unwrap(), story);
    assert_eq!(store.timeline(&other).await.unwrap().len(), 1);
    assert_eq!(store.timeline(&outage(9, 9)).await.unwrap(), []);
}

#[tokio::test]
async fn incidents_are_found_by_state_host_and_id_the_newest_first() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    for (minute, id) in [outage(1, 1), outage(2, 1), outage(1, 2)].iter().enumerate() {
        let at = Time(NOW.0 + minute as u64 * 60_000);
        decide(&store, at, &mut ledger, &[opened(id)]).await;
        if minute == 0 {
            let why = "cmp1 answers again".into();
            let close = Decision::Close { id: id.clone(), outcome: Outcome::Cancelled, why };
            decide(&store, at, &mut ledger, &[close]).await;
        }
    }
    let found = async |which, host: Option<&str>, limit| {
        let found = store.incidents(which, host, limit).await.unwrap();
        found.iter().map(|incident| incident.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found(Which::All, None, 100).await, ["cmp1/2", "cmp2/1", "cmp1/1"]);
    assert_eq!(found(Which::All, None, 1).await, ["cmp1/2"]);
    assert_eq!(found(Which::Open, None, 100).await, ["cmp1/2", "cmp2/1"]);
    assert_eq!(found(Which::Closed, None, 100).await, ["cmp1/1"]);
    assert_eq!(found(Which::All, Some("cmp1"), 100).await, ["cmp1/2", "cmp1/1"]);
    assert_eq!(found(Which::All, Some("cmp1' OR 1=1 --"), 100).await, [""; 0]);
    let id = outage(1, 1);
    assert_eq!(store.incident(incident_uuid(&id)).await.unwrap().as_ref(), ledger.incidents.get(&id));
    assert_eq!(store.incident(incident_uuid(&outage(1, 9))).await.unwrap(), None);
}

#[tokio::test]
async fn closed_incidents_are_loaded_for_as_long_as_they_are_asked_for() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    let close = Decision::Close { id: id.clone(), outcome: Outcome::Cancelled, why: "it answers".into() };
    decide(&store, NOW, &mut ledger, &[opened(&id), close]).await;
    assert_eq!(store.load(NOW).await.unwrap().incidents.len(), 1);
    let later = store.load(Time(NOW.0 + 1)).await.unwrap();
    assert_eq!(later.incidents.len(), 0);
    assert_eq!(later.hosts[&id.host].outages, 1, "the next outage must not take the number of a forgotten one");
}

#[tokio::test]
async fn an_incident_that_is_forgotten_in_memory_stays_in_the_record() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    let close = Decision::Close { id: id.clone(), outcome: Outcome::Cancelled, why: "it answers".into() };
    decide(&store, NOW, &mut ledger, &[opened(&id), close]).await;
    let before = ledger.clone();
    ledger.forget_before(Time(NOW.0 + 1));
    store.record(NOW, &before, &ledger, &[]).await.unwrap();
    assert!(store.incident(incident_uuid(&id)).await.unwrap().is_some());
}

#[tokio::test]
async fn only_rows_that_changed_are_written() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    let plan = |number| Decision::Plan { id: id.clone(), instance: InstanceId(number), name: "vm".into() };
    decide(&store, NOW, &mut ledger, &[opened(&id), plan(1), plan(2), plan(3)]).await;
    let mut spy = by_hand(&path).await;
    let watch = "CREATE TABLE touched (what TEXT);
        CREATE TRIGGER a AFTER INSERT ON moves BEGIN INSERT INTO touched VALUES ('move ' || new.instance); END;
        CREATE TRIGGER b AFTER UPDATE ON moves BEGIN INSERT INTO touched VALUES ('move ' || new.instance); END;
        CREATE TRIGGER c AFTER UPDATE ON incidents BEGIN INSERT INTO touched VALUES ('incident'); END;
        CREATE TRIGGER d AFTER UPDATE ON hosts BEGIN INSERT INTO touched VALUES ('host'); END;";
    sqlx::raw_sql(watch).execute(&mut spy).await.unwrap();
    let moved = Decision::Move { id: id.clone(), instance: InstanceId(2), state: MoveState::Moved };
    decide(&store, NOW, &mut ledger, &[moved]).await;
    let touched: Vec<String> = sqlx::query_scalar("SELECT what FROM touched").fetch_all(&mut spy).await.unwrap();
    assert_eq!(touched, [format!("move {}", InstanceId(2))]);
}

#[tokio::test]
async fn a_release_takes_the_instances_that_were_left_out_of_the_record_until_they_are_planned_again() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let mut ledger = Ledger::default();
    let id = outage(1, 1);
    let instance = InstanceId(1);
    let named = MoveState::Named { why: "its root disk is local".into() };
    let before = [
        opened(&id),
        Decision::Plan { id: id.clone(), instance, name: "vm".into() },
        Decision::Move { id: id.clone(), instance, state: named },
        Decision::Phase { id: id.clone(), to: Phase::PartlyRecovered, why: "settled".into() },
    ];
    decide(&store, NOW, &mut ledger, &before).await;
    let gates = [Gate::NotFlapping].into();
    let release = Decision::Release { id: id.clone(), gates, by: "uid 0 (root), pid 1".into(), why: "copied".into() };
    decide(&store, NOW, &mut ledger, &[release]).await;
    let loaded = store.load(NOW).await.unwrap();
    assert_eq!(loaded, ledger);
    assert!(loaded.incidents[&id].moves.is_empty());
}

#[tokio::test]
async fn the_tables_can_be_read_by_a_person() {
    let (_directory, path) = place();
    let store = Store::open(&path).await.unwrap();
    let id = outage(1, 1);
    let mut ledger = Ledger::default();
    let hold = Decision::Hold { id: id.clone(), gate: Gate::NotEverybody, why: "3 of 5 hosts".into() };
    let plan = Decision::Plan { id: id.clone(), instance: InstanceId(0xabc), name: "vm1".into() };
    decide(&store, NOW, &mut ledger, &[opened(&id), hold, plan]).await;
    let sql = "SELECT host || ' ' || phase || ', held by ' || hold_gate || ' since ' || hold_since || ': ' || name || ' ' || state AS line
        FROM incidents JOIN moves ON incident = id";
    let row = sqlx::query(sql).fetch_one(&mut by_hand(&path).await).await.unwrap();
    let line: String = row.get("line");
    assert_eq!(line, "cmp1 suspected, held by mass failure since 2026-11-18T11:06:40.123000Z: vm1 waiting");
}

#[tokio::test]
async fn every_migration_of_the_folder_is_in_the_binary() {
    let (_directory, path) = place();
    let _store = Store::open(&path).await.unwrap();
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&mut by_hand(&path).await).await.unwrap();
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    assert_eq!(
        applied,
        i64::try_from(folder.count()).unwrap(),
        "cargo does not notice a new file there: touch src/store/open.rs"
    );
}

#[test]
fn an_outage_has_the_same_id_whoever_works_it_out() {
    assert_eq!(incident_uuid(&outage(1, 1)).to_string(), "b671397a-8a0e-59e9-be3a-88caf958470d");
    assert_ne!(incident_uuid(&outage(1, 1)), incident_uuid(&outage(1, 2)));
    assert_ne!(incident_uuid(&outage(1, 1)), incident_uuid(&outage(2, 1)));
}
