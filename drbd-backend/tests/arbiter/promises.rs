//! What both kinds promise when nothing goes wrong.

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use replication::{BootId, Generation};
use tandem_node::arbiter::{
    Embedded, Failure, Fence, FencesOutcome, Outcome, Register, SettingsError, record_from_json, record_to_json,
};

use super::{LIMITS, World, a_record, a_volume, created, node, promoted, record_of};

#[tokio::test]
async fn the_embedded_arbiter_compares_and_swaps() -> Result<()> {
    let world = World::embedded().await?;
    compares_and_swaps(&*world.register()?).await
}

#[tokio::test]
async fn etcd_compares_and_swaps() -> Result<()> {
    let world = World::etcd().await?;
    compares_and_swaps(&*world.register()?).await
}

async fn compares_and_swaps(register: &dyn Register) -> Result<()> {
    let (volume, first) = created(register).await?;
    let second = promoted(&first, 0, 7);
    ensure!(matches!(register.swap(volume, &first, &second).await, Outcome::Done));
    ensure!(
        matches!(register.swap(volume, &first, &promoted(&first, 1, 8)).await, Outcome::Refused(there) if *there == second)
    );
    // The very same one is refused too: who proposed it must see that it is there already.
    ensure!(matches!(register.swap(volume, &first, &second).await, Outcome::Refused(there) if *there == second));
    let mut other = second.clone();
    other.remove(node(1));
    ensure!(matches!(register.swap(volume, &other, &promoted(&other, 1, 9)).await, Outcome::Refused(_)));
    ensure!(matches!(register.swap(a_volume(), &first, &second).await, Outcome::Missing));
    assert_eq!(record_of(register, volume).await?, second);

    let skips = promoted(&promoted(&second, 0, 9), 0, 9);
    ensure!(matches!(register.swap(volume, &second, &skips).await, Outcome::NotDone(Failure::Misfit { .. })));
    ensure!(matches!(register.create(volume, &first).await, Outcome::Refused(there) if *there == second));
    ensure!(matches!(register.create(a_volume(), &second).await, Outcome::NotDone(Failure::Misfit { .. })));

    let mut dropped = second.next();
    dropped.remove(node(1));
    ensure!(matches!(register.swap(volume, &second, &dropped).await, Outcome::Done));
    assert_eq!(record_of(register, volume).await?.left(node(1)), Some(Generation(3)));

    ensure!(matches!(register.remove(volume, &second).await, Outcome::Refused(there) if *there == dropped));
    ensure!(matches!(register.remove(volume, &dropped).await, Outcome::Done));
    ensure!(matches!(register.remove(volume, &dropped).await, Outcome::Missing));
    assert_eq!(register.read(volume).await?.1, None);
    ensure!(matches!(register.swap(volume, &dropped, &dropped.next()).await, Outcome::Missing), "nothing is revived");

    ensure!(matches!(register.rebuild(volume, None, &dropped).await, Outcome::Done));
    ensure!(matches!(register.rebuild(volume, None, &dropped).await, Outcome::Refused(_)));
    let later = promoted(&promoted(&dropped, 0, 1), 0, 2);
    ensure!(matches!(register.rebuild(volume, Some(&later), &dropped).await, Outcome::NotDone(Failure::Misfit { .. })));
    ensure!(matches!(register.rebuild(volume, Some(&dropped), &later).await, Outcome::Done));
    assert_eq!(record_of(register, volume).await?, later);
    Ok(())
}

#[tokio::test]
async fn the_embedded_arbiter_creates_once_and_lists_all() -> Result<()> {
    let world = World::embedded().await?;
    creates_and_lists(&*world.register()?).await
}

#[tokio::test]
async fn etcd_creates_once_and_lists_all() -> Result<()> {
    let world = World::etcd().await?;
    creates_and_lists(&*world.register()?).await
}

async fn creates_and_lists(register: &dyn Register) -> Result<()> {
    let (incarnation, none) = register.list().await?;
    ensure!(none.is_empty());
    let mut all = std::collections::BTreeMap::new();
    // More than one page.
    for _ in 0..520 {
        let (volume, record) = created(register).await?;
        all.insert(volume, record);
    }
    let (volume, record) = all.first_key_value().expect("there are many");
    ensure!(matches!(register.create(*volume, record).await, Outcome::Done), "created twice, by one who did not hear");
    ensure!(matches!(register.create(*volume, &a_record()).await, Outcome::Refused(there) if *there == *record));
    let (same, listed) = register.list().await?;
    assert_eq!(listed, all);
    assert_eq!(same, incarnation);
    assert_eq!(register.read(a_volume()).await?, (incarnation, None));
    Ok(())
}

#[tokio::test]
async fn the_embedded_arbiter_keeps_the_list_of_fenced_hosts() -> Result<()> {
    let world = World::embedded().await?;
    keeps_fences(&*world.register()?).await
}

#[tokio::test]
async fn etcd_keeps_the_list_of_fenced_hosts() -> Result<()> {
    let world = World::etcd().await?;
    keeps_fences(&*world.register()?).await
}

fn a_fence(host: &str, boot: Option<u128>) -> Result<Fence> {
    Ok(Fence {
        host: host.to_owned(),
        boot: boot.map(BootId),
        by: "tandem-ha a".to_owned(),
        at: DateTime::parse_from_rfc3339("2026-11-23T01:02:03.000456Z")?.with_timezone(&Utc),
        reason: "it fell silent".to_owned(),
    })
}

async fn keeps_fences(register: &dyn Register) -> Result<()> {
    let nobody = register.fences().await?;
    assert_eq!((nobody.version, nobody.list.len()), (0, 0));
    assert_eq!(register.lift("compute-1").await?, 0, "who is not fenced needs no change");

    let one_boot = a_fence("compute-1", Some(5))?;
    assert_eq!(register.fence(one_boot.clone()).await?, 1);
    assert_eq!(register.fence(one_boot.clone()).await?, 1, "it stands already");
    assert_eq!(register.fence(a_fence("compute-1", Some(6))?).await?, 2);
    let any_boot = a_fence("compute-1", None)?;
    assert_eq!(register.fence(any_boot.clone()).await?, 3);
    assert_eq!(register.fence(one_boot.clone()).await?, 3, "the wider fence covers it");
    let other = a_fence("compute-2", None)?;
    assert_eq!(register.fence(other.clone()).await?, 4);
    assert_eq!(register.fences().await?.list, [any_boot, other.clone()]);
    assert_eq!(register.lift("compute-1").await?, 5);

    let now = register.fences().await?;
    assert_eq!((now.version, &now.list), (5, &vec![other]));
    assert_eq!(now.incarnation, register.read(a_volume()).await?.0);
    match register.change_fences(4, &[one_boot]).await {
        FencesOutcome::Refused(there) => assert_eq!(there, now),
        outcome => anyhow::bail!("a change of an older list: {outcome:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn fences_of_many_at_once_all_stand() -> Result<()> {
    for world in [World::embedded().await?, World::etcd().await?] {
        let fencing = (0..8).map(|number| {
            let register = world.register();
            tokio::spawn(async move {
                register?.fence(a_fence(&format!("compute-{number}"), None)?).await.map_err(Into::into)
            })
        });
        let fencing: Vec<tokio::task::JoinHandle<Result<u64>>> = fencing.collect();
        let mut versions = Vec::new();
        for fenced in fencing {
            versions.push(fenced.await??);
        }
        versions.sort_unstable();
        assert_eq!(versions, (1..=8).collect::<Vec<_>>(), "each raised the version");
        assert_eq!(world.register()?.fences().await?.list.len(), 8);
    }
    Ok(())
}

#[test]
fn a_record_reads_as_it_was_written() -> Result<()> {
    let mut record = promoted(&a_record(), 7, u64::MAX);
    record.remove(node(1));
    assert_eq!(record_from_json(&record_to_json(&record))?, record);
    let golden = r#"{"generation":2,"primary":1,"members":[0,1],"in_sync":{"1":"00000000-0000-0000-0000-0000000000ff"},"left":{"0":2},"epoch":3}"#;
    let record = record_from_json(golden)?;
    assert_eq!(record_to_json(&record), golden);
    assert_eq!((record.primary, record.absent().len()), (Some(node(1)), 1));
    let bad = [
        ("\"primary\":1", "\"primary\":8"),
        ("[0,1]", "[0,9]"),
        ("{\"1\":", "{\"8\":"),
        ("\"epoch\":3", "\"epoch\":3,\"x\":1"),
    ];
    for (good, bad) in bad {
        ensure!(record_from_json(&golden.replace(good, bad)).is_err(), "{bad}");
    }
    Ok(())
}

#[test]
fn an_address_that_cannot_be_is_told_at_once() {
    let cannot = |url: &str| Embedded::new(url, None, LIMITS).expect_err("it must not be taken");
    assert!(matches!(cannot("arbiter:15872"), SettingsError::NotAnAddress { .. }));
    assert!(matches!(cannot("https://arbiter:15872/v1"), SettingsError::NotAnAddress { .. }));
    assert!(matches!(cannot("http://arbiter:15872"), SettingsError::InTheClear { .. }));
    assert!(matches!(cannot("http://10.0.0.1:15872"), SettingsError::InTheClear { .. }));
    assert!(Embedded::new("http://[::1]:15872", None, LIMITS).is_ok());
}
