//! Many clients at once, over connections that lose and delay things, to arbiters that are killed meanwhile: in the end the count fits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use replication::{Record, VolumeId};
use tandem_node::arbiter::{Limits, Outcome, Register};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::proxy::{Mode, Proxy};
use super::{PATIENCE, World, created, promoted, record_of, until};

const CLIENTS: u8 = 8;
/// Proposals of each client.
const PROPOSALS: u64 = 60;
/// Shorter than the proxy's longest delay: so some requests come late.
const LIMITS: Limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_millis(500) };

/// What one client did and saw.
#[derive(Debug, Default)]
struct Diary {
    /// Proposals from a generation that were done, and those that nobody knows of.
    done: Vec<Record>,
    unknown: Vec<Record>,
    surely_not: u64,
    refused: u64,
    /// Every record that it was shown.
    seen: Vec<Record>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_swaps_from_one_generation_succeed_at_the_embedded_arbiter() -> Result<()> {
    let world = World::embedded().await?;
    judged(world, async |world| {
        let World::Embedded(process) = world else { anyhow::bail!("it is the embedded one") };
        process.kill()?;
        process.restart().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_swaps_from_one_generation_succeed_at_etcd() -> Result<()> {
    let world = World::etcd().await?;
    let mut member = 0;
    judged(world, async |world| {
        let World::Etcd(etcds) = world else { anyhow::bail!("it is etcd") };
        etcds.kill(member)?;
        etcds.start_one(member)?;
        member = (member + 1) % 3;
        etcds.until_all_answer().await
    })
    .await
}

async fn judged(mut world: World, mut kill_one: impl AsyncFnMut(&mut World) -> Result<()>) -> Result<()> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (volume, first) = created(&*world.register()?).await?;
    let mut proxies = Vec::new();
    for (number, address) in world.addresses().into_iter().enumerate() {
        let proxy = Proxy::to(address, seed.wrapping_add(number as u64)).await?;
        proxy.set(Mode::Chaos);
        proxies.push(proxy);
    }
    let through: Vec<String> = proxies.iter().map(Proxy::address).collect();
    let tags = Arc::new(AtomicU64::new(10));
    let mut clients = JoinSet::new();
    for place in 0..CLIENTS {
        let (register, tags) = (world.register_at(&through, LIMITS)?, tags.clone());
        clients.spawn(async move { proposes(&*register, volume, place, &tags).await });
    }
    let all = tokio::spawn(async move { clients.join_all().await.into_iter().collect::<Result<Vec<Diary>>>() });
    let mut kills = 0;
    while !all.is_finished() {
        let before = tags.load(Ordering::SeqCst);
        kill_one(&mut world).await?;
        kills += 1;
        // Some work between two kills.
        until("clients go on", async || all.is_finished() || tags.load(Ordering::SeqCst) > before + 60).await?;
    }
    let diaries = timeout(PATIENCE, all).await???;
    let faults = proxies.iter().map(Proxy::faults).sum::<u64>();
    // What was late has arrived by then, or is lost for good.
    until("the proxies are quiet", async || proxies.iter().all(|proxy| proxy.open() == 0)).await?;
    let last = record_of(&*world.register()?, volume).await?;
    let told = judge(&first, &last, &diaries).with_context(|| format!("seed {seed}"))?;
    println!("{told}, {faults} faults, {kills} kills");
    ensure!(faults > 20 && kills > 0, "seed {seed}: {faults} faults, {kills} kills");
    Ok(())
}

async fn proposes(register: &dyn Register, volume: VolumeId, place: u8, tags: &AtomicU64) -> Result<Diary> {
    let mut diary = Diary::default();
    let mut known: Option<Record> = None;
    for _ in 0..PROPOSALS {
        let record = match known.take() {
            Some(record) => record,
            None => found(register, volume).await?,
        };
        diary.seen.push(record.clone());
        let proposed = promoted(&record, place, tags.fetch_add(1, Ordering::SeqCst));
        match register.swap(volume, &record, &proposed).await {
            Outcome::Done => {
                diary.done.push(proposed.clone());
                known = Some(proposed);
            }
            Outcome::Refused(there) => {
                // It was proposed once: to find it there means that something sent it twice.
                ensure!(*there != proposed, "its own proposal refused it: {there}");
                diary.refused += 1;
                known = Some(*there);
            }
            Outcome::Unknown(_) => diary.unknown.push(proposed),
            Outcome::NotDone(_) => diary.surely_not += 1,
            Outcome::Missing => anyhow::bail!("the record has vanished"),
        }
    }
    Ok(diary)
}

async fn found(register: &dyn Register, volume: VolumeId) -> Result<Record> {
    let reading = async {
        let mut pause = interval(Duration::from_millis(20));
        loop {
            if let Ok((_, Some(record))) = register.read(volume).await {
                return record;
            }
            pause.tick().await;
        }
    };
    timeout(PATIENCE, reading).await.context("the record was not read")
}

fn judge(first: &Record, last: &Record, diaries: &[Diary]) -> Result<String> {
    let mut history: BTreeMap<u64, Record> = BTreeMap::from([(first.generation.0, first.clone())]);
    let seen = diaries.iter().flat_map(|diary| diary.seen.iter().chain(&diary.done)).chain([last]);
    for record in seen {
        let known = history.entry(record.generation.0).or_insert_with(|| record.clone());
        ensure!(known == record, "two records of one generation: {known:?} and {record:?}");
    }
    let done: BTreeMap<u64, &Record> =
        diaries.iter().flat_map(|diary| &diary.done).map(|record| (record.generation.0, record)).collect();
    let count = diaries.iter().map(|diary| diary.done.len()).sum::<usize>();
    ensure!(count == done.len(), "two swaps from one generation were done");
    let perhaps: Vec<&Record> = diaries.iter().flat_map(|diary| &diary.unknown).collect();
    for generation in first.generation.0 + 1..=last.generation.0 {
        let unknown = perhaps.iter().filter(|record| record.generation.0 == generation);
        let maker = match history.get(&generation) {
            _ if done.contains_key(&generation) => true,
            Some(record) => unknown.clone().any(|unknown| *unknown == record),
            None => unknown.clone().count() > 0,
        };
        ensure!(maker, "nobody made generation {generation}");
    }
    ensure!(done.keys().all(|generation| *generation <= last.generation.0), "a swap that was done is lost");
    let changes = last.generation.0 - first.generation.0;
    let (least, most) = (done.len() as u64, (done.len() + perhaps.len()) as u64);
    ensure!((least..=most).contains(&changes), "{changes} changes, {least} done, {most} at most");
    ensure!(least > 20, "only {least} were done");
    let refused = diaries.iter().map(|diary| diary.refused).sum::<u64>();
    let surely_not = diaries.iter().map(|diary| diary.surely_not).sum::<u64>();
    let unknown = perhaps.len();
    Ok(format!("{changes} changes: {least} done, {unknown} unknown, {refused} refused, {surely_not} not sent"))
}
