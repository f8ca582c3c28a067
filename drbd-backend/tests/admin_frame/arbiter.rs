//! The arbiter is lost, and what its replicas remember is put back.

use anyhow::{Result, ensure};
use replication::Order;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tandem_node::arbiter::Register;
use uuid::Uuid;

use crate::world::{World, until};

fn confirmed() -> Option<Value> {
    Some(json!({ "confirm": true }))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_fences_come_back_from_the_replicas() -> Result<()> {
    let mut world = World::new(3).await?;
    let volume = world.volume("db-1", 2).await?;
    let uuid = Uuid::from_u128(volume.0).to_string();
    let (status, body) = world.machines[2].call(Method::PUT, "/v1/fences/cmp7", Some(json!({ "why": "x" }))).await?;
    ensure!(status == StatusCode::OK, "{body}");
    let before = world.register()?.read(volume).await?.1;
    let shown = world.machines[2].get("/v1/arbiter").await?;
    ensure!(shown["reached"] == true && shown["records"] == 1 && shown["kind"] == "embedded", "{shown}");
    world.lose_the_arbiter().await?;
    let lost = world.machines[2].get("/v1/arbiter").await?;
    ensure!(lost["records"] == 0 && lost["incarnation"] != shown["incarnation"], "{lost}");
    let (status, _) =
        world.machines[2].call(Method::POST, "/v1/arbiter/rebuild", Some(json!({ "confirm": false }))).await?;
    ensure!(status == StatusCode::BAD_REQUEST);
    let (status, body) = world.machines[2].call(Method::POST, "/v1/arbiter/rebuild", confirmed()).await?;
    ensure!(status == StatusCode::OK, "{body}");
    ensure!(body["volumes"][0]["uuid"] == uuid && body["volumes"][0]["rebuilt"] == true, "{body}");
    ensure!(world.register()?.read(volume).await?.1 == before, "as it was");
    ensure!(world.machines[0].is_primary(volume).await, "a Primary that serves goes on");
    let fences = world.machines[1].get("/v1/fences").await?;
    ensure!(fences["version"] == 2 && fences["fences"][0]["host"] == "cmp7", "{fences}");
    let (status, again) = world.machines[0].call(Method::POST, "/v1/arbiter/rebuild", confirmed()).await?;
    ensure!(status == StatusCode::OK && again["volumes"][0]["rebuilt"] == false, "asked for twice: {again}");
    // The replicas believe the new arbiter: the role moves, which needs it.
    until("handed over", async || {
        let _ = world.machines[0].node.order(volume, Order::HandOver(crate::world::place(1))).await;
        world.machines[1].is_primary(volume).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_back_before_every_member_has_reported() -> Result<()> {
    let mut world = World::new(3).await?;
    let volume = world.volume("db-1", 2).await?;
    world.lose_the_arbiter().await?;
    let silent = world.machines.remove(1);
    silent.end().await?;
    let (status, body) = world.machines[0].call(Method::POST, "/v1/arbiter/rebuild", confirmed()).await?;
    ensure!(status == StatusCode::CONFLICT && body["error"]["code"] == "held", "{status} {body}");
    let message = body["error"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("db-1") && message.contains("cmp1"), "{message}");
    ensure!(world.register()?.read(volume).await?.1.is_none());
    for (named, code) in [("cmp0", "refused"), ("cmp9", "invalid")] {
        let lie = Some(json!({ "confirm": true, "destroyed": [named] }));
        let (_, body) = world.machines[0].call(Method::POST, "/v1/arbiter/rebuild", lie).await?;
        ensure!(body["error"]["code"] == code, "{named}: {body}");
    }
    ensure!(world.register()?.read(volume).await?.1.is_none());
    let lost = Some(json!({ "confirm": true, "destroyed": ["cmp1"] }));
    let (status, body) = world.machines[0].call(Method::POST, "/v1/arbiter/rebuild", lost).await?;
    ensure!(status == StatusCode::OK && body["volumes"][0]["rebuilt"] == true, "{body}");
    ensure!(world.register()?.read(volume).await?.1.is_some());
    let register = world.register()?;
    until("the survivor goes on alone", async || {
        register
            .read(volume)
            .await
            .is_ok_and(|(_, record)| record.is_some_and(|record| record.in_sync().iter().count() == 1))
    })
    .await?;
    let others = Some(json!({ "confirm": true, "volumes": [Uuid::new_v4()] }));
    let (status, body) = world.machines[0].call(Method::POST, "/v1/arbiter/rebuild", others).await?;
    ensure!(status == StatusCode::OK && body == json!({ "volumes": [] }), "{body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arbiter_that_is_away_is_shown_as_such() -> Result<()> {
    let mut world = World::new(1).await?;
    world.stop_the_arbiter().await?;
    let shown = world.machines[0].get("/v1/arbiter").await?;
    ensure!(shown["reached"] == false && shown["why"].as_str().is_some_and(|why| why.contains("arbiter")), "{shown}");
    let (status, body) = world.machines[0].call(Method::PUT, "/v1/fences/cmp7", Some(json!({ "why": "x" }))).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && body["error"]["code"] == "unreachable", "{status} {body}");
    Ok(())
}
