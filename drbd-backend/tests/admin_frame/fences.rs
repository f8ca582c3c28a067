//! A fenced host uses no volume any more, and the answer says so only once it is true.

use anyhow::{Result, ensure};
use replication::{Attachment, Change, DiskId, Order, Record, VolumeId};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tandem_node::arbiter::Register;
use uuid::Uuid;

use crate::world::{Machine, World, place, until};

async fn attach(machine: &Machine, volume: VolumeId, host: &str) -> Result<()> {
    let id = Uuid::new_v4().as_u128();
    let (host, initiator) = (host.to_owned(), String::new());
    let wanted = Attachment { client: 0, id, host, initiator, read_only: false, chap: None, epoch: 0, revoked: false };
    let done = machine.node.order(volume, Order::Control(Change::Attach(wanted))).await;
    ensure!(done.is_ok(), "{done:?}");
    Ok(())
}

/// Of this host: attachments in all, and those that it may still use.
async fn attachments(machine: &Machine, volume: VolumeId, host: &str) -> Result<(usize, usize)> {
    let control = machine.look(volume).await?.control;
    let of_host = || control.attachments.iter().filter(|it| it.host == host);
    Ok((of_host().count(), of_host().filter(|it| !it.revoked).count()))
}

fn why() -> Option<serde_json::Value> {
    Some(json!({ "why": "it fell silent" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_is_answered_once_the_primary_has_revoked_the_host() -> Result<()> {
    let world = World::new(3).await?;
    let volume = world.volume("db-1", 2).await?;
    let [primary, secondary, bystander] = &world.machines[..] else { unreachable!("three") };
    attach(primary, volume, "cmp7").await?;
    attach(primary, volume, "cmp8").await?;
    let (status, body) = bystander.call(Method::PUT, "/v1/fences/cmp7", why()).await?;
    ensure!(status == StatusCode::OK, "{body}");
    ensure!(body["version"] == 1 && body["host"] == "cmp7", "{body}");
    ensure!(attachments(primary, volume, "cmp7").await? == (1, 0));
    ensure!(attachments(primary, volume, "cmp8").await? == (1, 1), "others are left alone");
    ensure!(primary.look(volume).await?.control.fences == 1);
    let (status, again) = secondary.call(Method::PUT, "/v1/fences/cmp7", why()).await?;
    ensure!(status == StatusCode::OK && again == body, "asked for twice: {again}");
    let progress = secondary.get("/v1/fences/cmp7").await?;
    ensure!(progress["open"] == json!([]) && progress["fence"]["why"] == "it fell silent", "{progress}");
    let (status, lifted) = secondary.call(Method::DELETE, "/v1/fences/cmp7", None).await?;
    ensure!(status == StatusCode::OK && lifted == json!({ "version": 2, "fences": [] }), "{lifted}");
    ensure!(attachments(primary, volume, "cmp7").await? == (1, 0), "what was revoked stays revoked");
    attach(primary, volume, "cmp7").await?;
    ensure!(attachments(primary, volume, "cmp7").await? == (2, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_that_slips_in_after_the_fence_is_revoked() -> Result<()> {
    let world = World::new(1).await?;
    let volume = world.volume("db-1", 1).await?;
    let machine = &world.machines[0];
    let (status, body) = machine.call(Method::PUT, "/v1/fences/cmp7", why()).await?;
    ensure!(status == StatusCode::OK, "{body}");
    attach(machine, volume, "cmp7").await?;
    until("revoked", async || attachments(machine, volume, "cmp7").await.is_ok_and(|counts| counts == (1, 0))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_nobody_can_speak_for_is_named() -> Result<()> {
    let world = World::new(1).await?;
    let elsewhere = VolumeId(Uuid::new_v4().as_u128());
    let record = Record::of_new_volume([(place(3), DiskId(1))]);
    world.register()?.create(elsewhere, &record).await;
    let (status, body) = world.machines[0].call(Method::PUT, "/v1/fences/cmp7", why()).await?;
    ensure!(status == StatusCode::CONFLICT && body["error"]["code"] == "held", "{status} {body}");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains(&Uuid::from_u128(elsewhere.0).to_string()), "{message}");
    ensure!(world.machines[0].get("/v1/fences").await?["version"] == 1, "the fence stands all the same");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_a_fence_in_that_its_primary_did_not_live_to_see() -> Result<()> {
    let mut world = World::new(2).await?;
    let volume = world.volume("db-1", 2).await?;
    attach(&world.machines[0], volume, "cmp7").await?;
    let first = world.machines.remove(0);
    let node = first.node.clone();
    first.end().await?;
    drop(node);
    let successor = &world.machines[0];
    let (status, body) = successor.call(Method::PUT, "/v1/fences/cmp7", why()).await?;
    ensure!(status == StatusCode::OK, "{body}");
    ensure!(successor.is_primary(volume).await);
    ensure!(attachments(successor, volume, "cmp7").await? == (1, 0));
    Ok(())
}
