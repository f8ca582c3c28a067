//! The database is read-only, full, locked, too new, or somebody else's: nothing is done that is not recorded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::sleep;

use crate::story::Story;

async fn opened(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.expect("it is a database")
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.expect(sql);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_ends_it_with_1_and_the_reason() {
    tokio::join!(read_only(), full_from_the_start(), newer(), in_use(), locked_from_the_start(), no_database());
}

async fn ends_with_1_and_says(mut story: Story, words: &str) {
    let status = story.ended().await;
    assert_eq!(status.code(), Some(1), "{}", story.log());
    assert!(story.log().contains(words), "{words:?} is not in {}", story.log());
    story.nothing_done();
}

async fn read_only() {
    let mut story = Story::prepared().await;
    story.start_on_a_small_disk("mount -o remount,ro \"$DISK\"");
    ends_with_1_and_says(story, "cannot be written: it is read-only for this user, or its filesystem is").await;
}

async fn full_from_the_start() {
    let mut story = Story::prepared().await;
    story.start_on_a_small_disk("{ cat /dev/zero > \"$DISK/filler\" 2>/dev/null || true; }");
    ends_with_1_and_says(story, "is full: free some space there").await;
}

async fn newer() {
    let mut story = Story::prepared().await;
    let mut database = opened(&story.database()).await;
    run(
        &mut database,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'of tomorrow', 1, x'00', 0)",
    )
    .await;
    database.close().await.expect("it was open");
    story.start();
    ends_with_1_and_says(story, "was written by a newer tandem-ha").await;
}

async fn in_use() {
    let mut story = Story::begun().await;
    let first = story.pid();
    let (status, said) = story.a_second_one().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("is in use by another tandem-ha, pid {first}")), "{said}");
    story.dies(); // and the first goes on
    story.is_recovered_by_one_try().await;
    story.stop().await;
}

async fn locked_from_the_start() {
    let mut story = Story::prepared().await;
    let mut database = opened(&story.database()).await;
    run(&mut database, "BEGIN IMMEDIATE").await;
    story.start();
    ends_with_1_and_says(story, "is locked by another program").await;
}

async fn no_database() {
    let mut story = Story::prepared().await;
    fs::write(story.database(), "a letter to somebody, longer than the head of a database: ".repeat(20)).expect("ours");
    story.start();
    ends_with_1_and_says(story, "is not a database of tandem-ha").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_amid_an_incident_stops_every_act_until_there_is_room() {
    let mut story = Story::prepared().await;
    story.reconfigure("in_flight = 4", "in_flight = 1");
    story.start_on_a_small_disk("true");
    story.sees_all_well().await;
    let filler = story.path_in_its_eyes("db/filler");
    story.dies();
    story.until("an evacuation is sent", || story.evacuations() > 0).await;
    fill(&filler);
    story.says("nothing is done that is not recorded").await;
    let sent = story.evacuations();
    assert!(sent < 4, "too late to see anything");
    sleep(Duration::from_secs(3)).await; // in which the others would long have been sent
    assert_eq!(story.evacuations(), sent, "an act that is not recorded");
    fs::remove_file(&filler).expect("it was written");
    story.says("the database can be written again").await;
    story.is_recovered_by_one_try().await;
}

/// In small pieces at the end, so that no room is left at all.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("its disk is there");
    for piece in [65_536, 4096] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_somebody_locks_amid_an_incident_stops_every_act_until_it_is_free() {
    let story = Story::begun().await;
    let mut database = opened(&story.database()).await;
    run(&mut database, "BEGIN IMMEDIATE").await;
    story.dies();
    story.says("nothing is done that is not recorded").await;
    sleep(Duration::from_secs(3)).await; // in which it would have been fenced and evacuated
    story.nothing_done();
    run(&mut database, "ROLLBACK").await;
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_taken_away_amid_an_incident_stops_every_act() {
    let story = Story::begun().await;
    fs::rename(story.database(), story.path("db/elsewhere")).expect("it is there");
    story.dies();
    story.says("was moved or removed while in use").await;
    sleep(Duration::from_secs(3)).await;
    story.nothing_done();
    fs::rename(story.path("db/elsewhere"), story.database()).expect("it is there");
    story.is_recovered_by_one_try().await;
}
