//! Replicas whose files are damaged, held by others, or not to be believed: over REST, with nodes that end and begin again.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use replication::{Record, VolumeId};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tandem_node::arbiter::Register;
use uuid::Uuid;

use crate::volumes::{both_are_in_sync, code, create, message, post, replica, until_shown, wish};
use crate::world::{World, place, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_not_believed_is_copied_anew() -> Result<()> {
    let world = World::new(3).await?;
    create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    let (status, body) = post(&world.machines[2], "db-1/resync", json!({ "node": "cmp0" })).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "refused", "the Primary has the data: {status} {body}");
    let before = world.machines[0].get("/v1/volumes/db-1").await?["generation"].as_u64().context("generation")?;
    let (status, body) = post(&world.machines[2], "db-1/resync", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::OK, "{status} {body}");
    until_shown(&world.machines[2], "db-1", "it was dropped, copied and added", |volume| {
        volume["generation"].as_u64().is_some_and(|now| now >= before + 2)
            && replica(volume, "cmp1")["disk"] == "UpToDate"
    })
    .await?;
    both_are_in_sync(&world.machines[0], "db-1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_thrown_away_only_once_the_record_does_not_count_on_it() -> Result<()> {
    let mut world = World::new(2).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    let data = world.pool(1).join(format!("{}.data", volume["uuid"].as_str().context("uuid")?));
    let record = async |world: &World| -> Result<Record> {
        let id = VolumeId(volume["uuid"].as_str().context("uuid")?.parse::<Uuid>()?.as_u128());
        world.register()?.read(id).await?.1.context("a record")
    };
    let old = record(&world).await?.disk(place(1));
    ensure!(old.is_some());
    let kept = world.folder.path().join("second-name");
    std::fs::hard_link(&data, &kept)?;
    world.stop_the_arbiter().await?;
    let (status, body) = post(&world.machines[0], "db-1/resync", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && code(&body) == "unreachable", "{status} {body}");
    ensure!(std::fs::metadata(&kept)?.nlink() == 2, "the file is the one that was there");
    world.resume_the_arbiter().await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    let (status, body) = post(&world.machines[0], "db-1/resync", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::OK, "{status} {body}");
    ensure!(std::fs::metadata(&kept)?.nlink() == 1, "now it is another");
    ensure!(record(&world).await?.disk(place(1)) != old, "the Primary had gone on without it");
    both_are_in_sync(&world.machines[0], "db-1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_fail_one_replica_which_is_made_again() -> Result<()> {
    let mut world = World::new(2).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    create(&world.machines[0], &wish("db-2", &["cmp1"])).await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    world.machines.remove(1).end().await?;
    let data = world.pool(1).join(format!("{}.data", volume["uuid"].as_str().context("uuid")?));
    std::fs::OpenOptions::new().write(true).open(&data)?.set_len(4096)?;
    world.machines.push(world.start_again(1).await?);
    // Until the last life has let go, it is that which stands in the way.
    let failed = until_shown(&world.machines[0], "db-1", "the other one serves, and what is wrong is said", |volume| {
        let why = volume["why"].as_str().unwrap_or_default();
        let goes_on = volume["serving"] == true && replica(volume, "cmp1")["in_sync"] == false;
        goes_on && why.contains("cmp1: ") && why.contains("4096 bytes")
    })
    .await?;
    ensure!(replica(&failed, "cmp1")["disk"] == "Failed" && replica(&failed, "cmp1")["reached"] == true, "{failed}");
    until_shown(&world.machines[0], "db-2", "the other volume serves", |volume| volume["serving"] == true).await?;
    let (status, body) = post(&world.machines[0], "db-1/resync", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::OK, "{status} {body}");
    both_are_in_sync(&world.machines[1], "db-1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_definition_fails_one_replica_and_can_be_deleted() -> Result<()> {
    let mut world = World::new(2).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    create(&world.machines[0], &wish("db-2", &["cmp1"])).await?;
    world.machines.remove(1).end().await?;
    let file = world.pool(1).join(format!("{}.json", volume["uuid"].as_str().context("uuid")?));
    std::fs::write(&file, "{")?;
    world.machines.push(world.start_again(1).await?);
    for key in ["db-1", volume["uuid"].as_str().context("uuid")?] {
        let shown = world.machines[1].get(&format!("/v1/volumes/{key}")).await?;
        ensure!(replica(&shown, "cmp1")["disk"] == "Failed", "{shown}");
        ensure!(shown["why"].as_str().is_some_and(|why| why.contains("is damaged")), "{shown}");
    }
    until_shown(&world.machines[0], "db-2", "the other volume serves", |volume| volume["serving"] == true).await?;
    until_shown(&world.machines[0], "db-1", "the peer goes on", |volume| volume["serving"] == true).await?;
    let (status, body) = world.machines[1].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    ensure!(!file.exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_with_damaged_files_a_volume_is_shown_as_failed() -> Result<()> {
    let mut world = World::new(1).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0"])).await?;
    world.machines.remove(0).end().await?;
    let uuid = volume["uuid"].as_str().context("uuid")?;
    std::fs::remove_file(world.pool(0).join(format!("{uuid}.meta")))?;
    let machine = world.start_again(0).await?;
    until_shown(&machine, "db-1", "what is wrong is said", |volume| {
        volume["state"] == "failed" && volume["why"].as_str().is_some_and(|why| why.contains("there is no"))
    })
    .await?;
    let (status, body) = post(&machine, "db-1/promote", json!({})).await?;
    ensure!(status == StatusCode::CONFLICT, "{status} {body}");
    std::fs::write(world.pool(0).join(format!("{uuid}.json")), "")?;
    machine.end().await?;
    let machine = world.start_again(0).await?;
    let listed = machine.get("/v1/volumes").await?;
    let shown = &listed["volumes"][0];
    ensure!(shown["state"] == "failed" && shown["uuid"] == uuid && shown["size_bytes"].is_null(), "{listed}");
    let (status, body) = machine.call(Method::DELETE, &format!("/v1/volumes/{uuid}"), None).await?;
    ensure!(status == StatusCode::CONFLICT && message(&body).contains("is damaged"), "{status} {body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_predecessor_still_holds_are_opened_once_it_lets_go() -> Result<()> {
    let mut world = World::new(1).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0"])).await?;
    world.machines.remove(0).end().await?;
    let data = world.pool(0).join(format!("{}.data", volume["uuid"].as_str().context("uuid")?));
    let held = std::fs::File::open(&data)?;
    until("the last life lets go", async || held.try_lock().is_ok()).await?;
    let machine = world.start_again(0).await?;
    let shown = machine.get("/v1/volumes/db-1").await?;
    ensure!(shown["serving"] == false && shown["why"].as_str().is_some_and(|why| why.contains("in use")), "{shown}");
    drop(held);
    until_shown(&machine, "db-1", "it serves again, and nothing is wrong", |volume| {
        volume["serving"] == true && volume["why"].is_null()
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn force_primary_asks_for_the_name_and_for_the_living() -> Result<()> {
    let mut world = World::new(2).await?;
    create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    let force =
        |name: &str, destroyed: &[&str]| json!({ "node": "cmp1", "name": name, "destroyed": destroyed, "by": "alice" });
    for (body, wanted, words) in [
        (force("db-2", &[]), StatusCode::BAD_REQUEST, "typed as"),
        (force("db-1", &[]), StatusCode::CONFLICT, "cmp0 is Primary"),
        (force("db-1", &["cmp0"]), StatusCode::CONFLICT, "it answers"),
        (force("db-1", &["cmp1"]), StatusCode::BAD_REQUEST, "none of the other"),
    ] {
        let (status, body) = post(&world.machines[0], "db-1/force-primary", body).await?;
        ensure!(status == wanted && message(&body).contains(words), "{status} {body}");
    }
    // The Primary goes on without cmp1, and is lost then: what it wrote alone is on no other disk.
    world.machines.remove(1).end().await?;
    until_shown(&world.machines[0], "db-1", "it goes on alone", |volume| {
        volume["serving"] == true && replica(volume, "cmp1")["in_sync"] == false
    })
    .await?;
    world.machines.remove(0).end().await?;
    let survivor = world.start_again(1).await?;
    let waits = survivor.get("/v1/volumes/db-1").await?;
    ensure!(waits["serving"] == false && waits["why"].as_str().is_some_and(|why| why.contains("cmp1: ")), "{waits}");
    let mut said = survivor.node.said();
    until_shown(&survivor, "db-1", "it knows that it lacks writes", |volume| {
        replica(volume, "cmp1")["disk"] == "Outdated"
    })
    .await?;
    let (status, body) = post(&survivor, "db-1/promote", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "refused", "{status} {body}");
    let (status, body) = post(&survivor, "db-1/force-primary", force("db-1", &[])).await?;
    ensure!(
        status == StatusCode::CONFLICT && code(&body) == "held" && message(&body).contains("cmp0"),
        "{status} {body}"
    );
    let (status, forced) = post(&survivor, "db-1/force-primary", force("db-1", &["cmp0"])).await?;
    ensure!(status == StatusCode::OK && forced["primary"] == "cmp1", "{status} {forced}");
    until("it is on record who did that", async || {
        let mut texts = std::iter::from_fn(|| said.try_recv().ok());
        texts.any(|said| said.text.contains("tandem://admin/local (alice) forces cmp1") && said.text.contains("cmp0"))
    })
    .await
}
