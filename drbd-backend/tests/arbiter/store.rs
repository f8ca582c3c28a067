//! The embedded arbiter's store: what survives kill -9, and what it refuses to start on.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use replication::{Record, VolumeId};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tandem_node::arbiter::{Change, Failure, Outcome, Store, StoreError};
use tokio::sync::mpsc;

use super::process::Process;
use super::{LIMITS, World, a_record, a_volume, created, promoted, record_of, until};

/// What one client knows of its volume.
#[derive(Debug, Clone)]
struct Known {
    volume: VolumeId,
    /// Answered as done.
    acknowledged: Record,
    /// Proposed, and not answered.
    perhaps: Option<Record>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_any_moment_loses_no_answered_swap() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut world = World::embedded().await?;
    let mut all = Vec::new();
    for _ in 0..4 {
        let (volume, acknowledged) = created(&*world.register()?).await?;
        all.push(Known { volume, acknowledged, perhaps: None });
    }
    let mut open = 0;
    for round in 0..40 {
        let (done, mut heard) = mpsc::channel(1);
        let mut clients = Vec::new();
        for known in all.drain(..) {
            let register = world.register()?;
            let done = done.clone();
            clients.push(tokio::spawn(async move { swap_until_it_dies(&*register, known, done).await }));
        }
        for _ in 0..dice.u32(1..40) {
            heard.recv().await.context("all clients have ended")?;
        }
        let World::Embedded(process) = &mut world else { bail!("it is the embedded one") };
        process.kill()?;
        drop(heard);
        for client in clients {
            all.push(client.await??);
        }
        process.restart().await?;
        let register = world.register()?;
        for known in &mut all {
            let now = record_of(&*register, known.volume).await?;
            let allowed = now == known.acknowledged || Some(&now) == known.perhaps.as_ref();
            ensure!(allowed, "seed {seed}, round {round}: {now} after {known:?}");
            open += u32::from(known.perhaps.is_some());
            *known = Known { acknowledged: now, perhaps: None, ..known.clone() };
        }
    }
    ensure!(open > 20, "seed {seed}: only {open} swaps were on their way when it was killed");
    Ok(())
}

async fn swap_until_it_dies(
    register: &dyn tandem_node::arbiter::Register,
    mut known: Known,
    done: mpsc::Sender<()>,
) -> Result<Known> {
    loop {
        let proposed = promoted(&known.acknowledged, 0, fastrand::u64(..));
        match register.swap(known.volume, &known.acknowledged, &proposed).await {
            Outcome::Done => known.acknowledged = proposed,
            Outcome::Unknown(_) => return Ok(Known { perhaps: Some(proposed), ..known }),
            Outcome::NotDone(Failure::Unreachable { .. }) => return Ok(known),
            outcome => bail!("{outcome:?}"),
        }
        let _ = done.send(()).await;
    }
}

/// A store with some volumes in it.
async fn filled(directory: &Path) -> Result<Vec<(VolumeId, Record)>> {
    let store = Store::open(directory).await?;
    let mut all = Vec::new();
    for _ in 0..20 {
        let (volume, record) = (a_volume(), a_record());
        store.change(volume, &Change::Create { record: record.clone() }).await?;
        let proposed = promoted(&record, 1, 1);
        store.change(volume, &Change::Swap { expected: record, proposed: proposed.clone() }).await?;
        all.push((volume, proposed));
    }
    all.sort_by_key(|(volume, _)| *volume);
    Ok(all)
}

#[tokio::test]
async fn no_flipped_bit_changes_what_is_read() -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir()?;
    let all = filled(directory.path()).await?;
    let incarnation = Store::open(directory.path()).await?.incarnation();
    let whole = fs::read(directory.path().join("register.sqlite"))?;
    let mut refused = 0;
    for _ in 0..300 {
        let mut torn = whole.clone();
        // Half of the flips hit the header and what is written at the end of each page.
        let at = if dice.bool() { dice.usize(..torn.len()) } else { dice.usize(..200) };
        torn[at] ^= 1 << dice.u8(..8);
        let other = tempfile::tempdir()?;
        fs::write(other.path().join("register.sqlite"), torn)?;
        match Store::open(other.path()).await {
            Ok(store) => {
                assert_eq!(store.list(None, 500).await?, all, "seed {seed}, byte {at}");
                assert_eq!(store.incarnation(), incarnation, "seed {seed}, byte {at}");
            }
            Err(_) => refused += 1,
        }
    }
    ensure!(refused > 50, "seed {seed}: only {refused} of 300 were noticed");
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_the_remedy() -> Result<()> {
    let directory = tempfile::tempdir()?;
    filled(directory.path()).await?;
    let file = directory.path().join("register.sqlite");
    let whole = fs::read(&file)?;
    // Everywhere: old copies lie about in free space.
    let mut flipped = whole.clone();
    for at in 0..whole.len() {
        if whole[at..].starts_with(b"\"epoch\":") {
            flipped[at + 1] = b'E';
        }
    }
    let torn = [whole[..whole.len() / 2].to_vec(), b"garbage".repeat(1000), flipped];
    for bytes in torn {
        fs::write(&file, bytes)?;
        let refused = Store::open(directory.path()).await.err().context("it was opened")?;
        ensure!(matches!(refused, StoreError::Damaged { .. }), "{refused:?}");
        ensure!(refused.to_string().contains("tandem arbiter rebuild"), "{refused}");
    }
    fs::write(&file, &whole)?;
    Store::open(directory.path()).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_not_ours_or_is_newer_is_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("register.sqlite");
    let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let mut other = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE guests (name TEXT)").execute(&mut other).await?;
    other.close().await?;
    let before = fs::read(&file)?;
    ensure!(matches!(Store::open(directory.path()).await, Err(StoreError::NotOurs { .. })));
    assert_eq!(fs::read(&file)?, before);

    fs::remove_file(&file)?;
    filled(directory.path()).await?;
    let mut newer = SqliteConnection::connect_with(&options).await?;
    sqlx::query("PRAGMA user_version = 2").execute(&mut newer).await?;
    newer.close().await?;
    ensure!(matches!(Store::open(directory.path()).await, Err(StoreError::Newer { form: 2, .. })));

    let missing = directory.path().join("missing");
    ensure!(matches!(Store::open(&missing).await, Err(StoreError::NoDirectory { .. })));
    Ok(())
}

#[tokio::test]
async fn one_store_has_one_arbiter() -> Result<()> {
    let process = Process::start().await?;
    match Store::open(process.directory()).await {
        Err(error @ StoreError::InUse { holder: Some(_), .. }) => ensure!(error.to_string().contains("pid")),
        other => bail!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn the_incarnation_stays_with_the_store() -> Result<()> {
    let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = Store::open(one.path()).await?.incarnation();
    assert_eq!(Store::open(one.path()).await?.incarnation(), first);
    assert_ne!(Store::open(two.path()).await?.incarnation(), first);
    fs::remove_file(one.path().join("register.sqlite"))?;
    assert_ne!(Store::open(one.path()).await?.incarnation(), first, "what was wiped is another arbiter");
    Ok(())
}

#[tokio::test]
async fn an_arbiter_whose_file_was_taken_away_says_done_no_more_and_ends() -> Result<()> {
    let world = World::embedded().await?;
    let register = world.register_at(&world.addresses(), LIMITS)?;
    let (volume, record) = created(&*register).await?;
    let World::Embedded(process) = &world else { bail!("it is the embedded one") };
    fs::rename(process.directory().join("register.sqlite"), process.directory().join("kept"))?;
    let outcome = register.swap(volume, &record, &promoted(&record, 0, 1)).await;
    ensure!(matches!(outcome, Outcome::Unknown(Failure::Unsettled { .. })), "{outcome:?}");
    let gone = async || matches!(register.read(volume).await, Err(Failure::Unreachable { .. }));
    until("it has ended", gone).await
}
