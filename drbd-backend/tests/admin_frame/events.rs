//! Events: one stream has what the replicas of all nodes say.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use replication::Order;
use serde_json::Value;

use crate::world::{PATIENCE, World};

/// The events that the stream has until `enough` is satisfied.
async fn read(events: &mut reqwest::Response, mut enough: impl FnMut(&[Value]) -> bool) -> Result<Vec<Value>> {
    let (mut text, mut seen) = (String::new(), Vec::new());
    let reading = async {
        while !enough(&seen) {
            text.push_str(std::str::from_utf8(&events.chunk().await?.context("the stream ended")?)?);
            while let Some((block, rest)) = text.split_once("\n\n") {
                if let Some(data) = block.strip_prefix("event: said\ndata: ") {
                    seen.push(serde_json::from_str(data)?);
                }
                text = rest.to_owned();
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await.with_context(|| format!("not enough: {seen:?}"))??;
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_replicas_tells_what_others_say() -> Result<()> {
    let world = World::new(3).await?;
    let mut events = world.machines[2].client.get(world.machines[2].url("/v1/events")).send().await?;
    let own = world.volume("db-1", 2).await?;
    let uuid = uuid::Uuid::from_u128(own.0).to_string();
    // The stream may have joined the others only now; from here on nothing is missed.
    for number in 0.. {
        world.machines[number % 2].node.order(own, Order::TrustArbiter).await.ok();
        let volume = world.volume(&format!("v{number}"), 2).await?;
        let of_it = |event: &&Value| event["volume"] == uuid::Uuid::from_u128(volume.0).to_string();
        let seen = read(&mut events, |seen| {
            seen.iter()
                .filter(of_it)
                .any(|event| event["text"].as_str().is_some_and(|text| text.starts_with("Primary")))
        })
        .await?;
        let nodes: BTreeSet<&str> = seen.iter().filter(of_it).filter_map(|event| event["node"].as_str()).collect();
        if nodes == ["cmp0", "cmp1"].into() {
            ensure!(seen.iter().filter(of_it).all(|event| event["name"] == format!("v{number}")), "{seen:?}");
            break;
        }
    }
    let path = format!("/v1/events?volume={uuid}");
    let mut of_one = world.machines[0].client.get(world.machines[0].url(&path)).send().await?;
    ensure!(of_one.chunk().await?.is_some());
    world.volume("other", 2).await?;
    ensure!(world.machines[0].node.order(own, Order::Demote).await.is_ok());
    let seen = read(&mut of_one, |seen| {
        seen.iter().any(|event| event["text"].as_str().is_some_and(|text| text.starts_with("demoted")))
    })
    .await?;
    ensure!(seen.iter().all(|event| event["volume"] == uuid.as_str() && event["name"] == "db-1"), "{seen:?}");
    Ok(())
}
