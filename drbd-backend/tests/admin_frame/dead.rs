//! A known fence: told once, known everywhere, believed only of the dead.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, until};

fn said(boot: Uuid) -> Option<Value> {
    Some(json!({ "boot_id": boot, "why": "its power is off" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_living_are_not_declared_dead() -> Result<()> {
    let world = World::new(2).await?;
    let [one, other] = &world.machines[..] else { unreachable!("two") };
    for (asked, of) in [(one, one), (one, other)] {
        let (status, body) = asked.call(Method::PUT, &format!("/v1/nodes/{}/dead", of.name), said(of.boot)).await?;
        ensure!(status == StatusCode::CONFLICT && body["error"]["code"] == "refused", "{status} {body}");
    }
    let (status, _) = one.call(Method::PUT, "/v1/nodes/cmp9/dead", said(one.boot)).await?;
    ensure!(status == StatusCode::NOT_FOUND);
    let (status, _) = one.call(Method::GET, "/v1/nodes/cmp1/dead", None).await?;
    ensure!(status == StatusCode::NOT_FOUND);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_lapses_when_the_node_is_heard_with_another_boot() -> Result<()> {
    let world = World::new(2).await?;
    let (status, body) = world.machines[0].call(Method::PUT, "/v1/nodes/cmp1/dead", said(Uuid::new_v4())).await?;
    ensure!(status == StatusCode::OK && body["by"] == "tandem://admin/local", "{body}");
    until("lapsed", async || {
        let shown = world.machines[0].call(Method::GET, "/v1/nodes/cmp1/dead", None).await;
        shown.is_ok_and(|(status, _)| status == StatusCode::NOT_FOUND)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_does_not_wait_for_a_node_that_is_known_to_be_dead() -> Result<()> {
    let mut world = World::new(3).await?;
    let volume = world.volume("db-1", 2).await?;
    until("connected", async || {
        world.machines[1].look(volume).await.is_ok_and(|seen| seen.status.peers.iter().all(|peer| peer.connected))
    })
    .await?;
    let first = world.machines.remove(0);
    let boot = first.boot;
    let node = first.node.clone();
    first.end().await?;
    let [successor, bystander] = &world.machines[..] else { unreachable!("two") };
    let killed = Instant::now();
    drop(node);
    let (status, body) = bystander.call(Method::PUT, "/v1/nodes/cmp0/dead", said(boot)).await?;
    ensure!(status == StatusCode::OK, "{body}");
    until("promoted", async || successor.is_primary(volume).await).await?;
    let took = killed.elapsed();
    ensure!(took < Duration::from_millis(1500), "the grace of 2.3 s was waited for: {took:?}");
    for machine in [successor, bystander] {
        let shown = machine.get("/v1/nodes/cmp0/dead").await?;
        ensure!(shown["boot_id"] == boot.to_string() && shown["why"] == "its power is off", "{shown}");
    }
    let (status, _) = successor.call(Method::DELETE, "/v1/nodes/cmp0/dead", None).await?;
    ensure!(status == StatusCode::NO_CONTENT);
    let (status, _) = bystander.call(Method::GET, "/v1/nodes/cmp0/dead", None).await?;
    ensure!(status == StatusCode::NOT_FOUND, "it was taken back everywhere");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_word_it_is_stays_known_where_it_is_passed_on() -> Result<()> {
    let mut world = World::with_certificates(3).await?;
    let gone = world.machines.remove(2);
    let boot = gone.boot;
    gone.end().await?;
    let [told, other] = &world.machines[..] else { unreachable!("two") };
    let ha = world.client("tandem://ha/h", told)?;
    let (status, body) = told.call_as(&ha, Method::PUT, "/v1/nodes/cmp2/dead", said(boot)).await?;
    ensure!(status == StatusCode::OK && body["by"] == "tandem://ha/h", "{body}");
    let shown = other.get("/v1/nodes/cmp2/dead").await?;
    ensure!(shown["by"] == "tandem://ha/h", "{shown}");
    Ok(())
}
