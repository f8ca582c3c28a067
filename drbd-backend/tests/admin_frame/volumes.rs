//! Volumes, over REST alone: made, found, moved, attached, copied anew and deleted, asked of whichever node.

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tandem_node::arbiter::Register;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::world::{Machine, World, until};

const SIZE: u64 = 1 << 20;

pub(crate) fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or("no code")
}

pub(crate) fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or("no message")
}

/// What the volume's replica on this node is.
pub(crate) fn replica<'a>(volume: &'a Value, node: &str) -> &'a Value {
    let replicas = volume["replicas"].as_array().expect("replicas");
    replicas.iter().find(|replica| replica["node"] == node).expect("it has one there")
}

pub(crate) fn wish(name: &str, nodes: &[&str]) -> Value {
    json!({ "uuid": Uuid::new_v4(), "name": name, "size_bytes": SIZE, "replicas": nodes, "promote": nodes[0] })
}

pub(crate) async fn create(machine: &Machine, wish: &Value) -> Result<Value> {
    let (status, volume) = machine.call(Method::POST, "/v1/volumes", Some(wish.clone())).await?;
    ensure!(status == StatusCode::CREATED, "{status} {volume}");
    Ok(volume)
}

pub(crate) async fn post(machine: &Machine, path: &str, body: Value) -> Result<(StatusCode, Value)> {
    machine.call(Method::POST, &format!("/v1/volumes/{path}"), Some(body)).await
}

pub(crate) async fn until_shown(
    machine: &Machine,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let path = format!("/v1/volumes/{name}");
    until(what, async || machine.get(&path).await.is_ok_and(|volume| is_so(&volume))).await?;
    machine.get(&path).await
}

pub(crate) async fn both_are_in_sync(machine: &Machine, name: &str) -> Result<()> {
    until_shown(machine, name, "it serves, with both replicas up to date", |volume| {
        let replicas = volume["replicas"].as_array().expect("replicas");
        let well = replicas
            .iter()
            .all(|it| it["disk"] == "UpToDate" && !it["connected"].as_array().expect("names").is_empty());
        well && volume["serving"] == true
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_made_once_however_often_and_of_whomever_it_is_asked() -> Result<()> {
    let world = World::new(3).await?;
    let wish = wish("db-1", &["cmp0", "cmp1"]);
    let made = create(&world.machines[2], &wish).await?;
    ensure!(made["primary"] == "cmp0" && made["serving"] == true && made["state"] == "ready", "{made}");
    ensure!(made["uuid"] == wish["uuid"] && made["size_bytes"] == SIZE && made["durability"] == "flush", "{made}");
    for machine in &world.machines {
        let (status, again) = machine.call(Method::POST, "/v1/volumes", Some(wish.clone())).await?;
        ensure!(status == StatusCode::OK && again["created_at"] == made["created_at"], "{status} {again}");
        for key in ["db-1", wish["uuid"].as_str().context("uuid")?] {
            let shown = machine.get(&format!("/v1/volumes/{key}")).await?;
            ensure!(shown["uuid"] == made["uuid"] && shown["primary"] == "cmp0", "{shown}");
        }
        let listed = machine.get("/v1/volumes?name=db-1").await?;
        ensure!(listed["volumes"].as_array().is_some_and(|all| all.len() == 1), "{listed}");
    }
    for (key, value) in [
        ("size_bytes", json!(2 * SIZE)),
        ("durability", json!("write")),
        ("name", json!("db-2")),
        ("replicas", json!(["cmp0", "cmp2"])),
        ("uuid", json!(Uuid::new_v4())),
    ] {
        let mut other = wish.clone();
        other[key] = value;
        let (status, body) = world.machines[1].call(Method::POST, "/v1/volumes", Some(other)).await?;
        ensure!(status == StatusCode::CONFLICT && code(&body) == "conflict", "{key}: {status} {body}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_made_is_refused_with_what_could() -> Result<()> {
    let world = World::new(2).await?;
    let machine = &world.machines[0];
    let good = json!({ "name": "db-1", "size_bytes": SIZE, "replicas": 2 });
    for (key, value, wanted, words) in [
        ("size_bytes", json!(SIZE + 1), "invalid", "1048576 is the nearest"),
        ("size_bytes", json!(0), "invalid", "4096 is the nearest"),
        ("size_bytes", json!(65_u64 << 40), "invalid", "70368744177664 is the nearest"),
        ("size_bytes", json!(64_u64 << 40), "refused", "bytes free"),
        ("size_bytes", json!(-1), "invalid", "size_bytes"),
        ("name", json!("a/b"), "invalid", "no name"),
        ("name", json!("6b0e3f6c-0000-4000-8000-000000000001"), "invalid", "UUID"),
        ("replicas", json!(3), "invalid", "there are 2"),
        ("replicas", json!(0), "invalid", "1 to 3"),
        ("replicas", json!(["cmp0", "cmp9"]), "invalid", "no node \"cmp9\""),
        ("replicas", json!(["cmp0", "cmp0"]), "invalid", "twice"),
        ("replicas", json!("two"), "invalid", "replicas"),
        ("pool", json!("fast"), "invalid", "no pool \"fast\""),
        ("durability", json!("never"), "invalid", "never"),
        ("colour", json!("red"), "invalid", "colour"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let (status, body) = machine.call(Method::POST, "/v1/volumes", Some(bad)).await?;
        let wanted_status = if wanted == "invalid" { StatusCode::BAD_REQUEST } else { StatusCode::CONFLICT };
        ensure!(
            status == wanted_status && code(&body) == wanted && message(&body).contains(words),
            "{key}: {status} {body}"
        );
    }
    ensure!(machine.get("/v1/volumes").await?["volumes"] == json!([]), "nothing is left behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_stopped_half_way_goes_on_where_it_is_asked_again() -> Result<()> {
    let mut world = World::new(2).await?;
    world.stop_the_arbiter().await?;
    let wish = wish("db-1", &["cmp0", "cmp1"]);
    let (status, body) = world.machines[0].call(Method::POST, "/v1/volumes", Some(wish.clone())).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && code(&body) == "unreachable", "{status} {body}");
    ensure!(body["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("goes on")), "{body}");
    let shown = world.machines[1].get("/v1/volumes/db-1").await?;
    ensure!(shown["state"] == "creating" && shown["serving"] == false, "{shown}");
    let (status, body) = post(&world.machines[1], "db-1/promote", json!({})).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "held", "{status} {body}");
    world.lose_the_arbiter().await?;
    let made = create(&world.machines[1], &wish).await?;
    ensure!(made["serving"] == true && made["created_at"] == shown["created_at"], "{made}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_moves_by_hand_over_and_comes_to_rest() -> Result<()> {
    let world = World::new(3).await?;
    create(&world.machines[2], &wish("db-1", &["cmp0", "cmp1"])).await?;
    both_are_in_sync(&world.machines[2], "db-1").await?;
    let (status, moved) = post(&world.machines[2], "db-1/promote", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::OK && moved["primary"] == "cmp1" && moved["serving"] == true, "{status} {moved}");
    ensure!(replica(&moved, "cmp1")["role"] == "Primary", "{moved}");
    let (status, same) = post(&world.machines[0], "db-1/promote", json!({})).await?;
    ensure!(status == StatusCode::OK && same["generation"] == moved["generation"], "nothing moves: {status} {same}");
    let (status, body) = post(&world.machines[0], "db-1/promote", json!({ "node": "cmp2" })).await?;
    ensure!(status == StatusCode::BAD_REQUEST && message(&body).contains("no replica"), "{status} {body}");
    let (status, resting) = post(&world.machines[0], "db-1/demote", json!({})).await?;
    ensure!(
        status == StatusCode::OK && resting["primary"].is_null() && resting["serving"] == false,
        "{status} {resting}"
    );
    ensure!(resting["why"].as_str().is_some_and(|why| why.contains("nobody is Primary")), "{resting}");
    let (status, again) = post(&world.machines[2], "db-1/demote", json!({})).await?;
    ensure!(status == StatusCode::OK && again["generation"] == resting["generation"], "{status} {again}");
    let (status, back) = post(&world.machines[1], "db-1/promote", json!({})).await?;
    ensure!(
        status == StatusCode::OK && back["primary"] == "cmp1",
        "the node that is asked, if it can: {status} {back}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_are_given_once_and_revoked_for_good() -> Result<()> {
    let world = World::new(3).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    let id = Uuid::new_v4();
    let path = format!("/v1/volumes/db-1/attachments/{id}");
    let host = json!({ "host": "cmp7", "read_only": true });
    let (status, given) = world.machines[2].call(Method::PUT, &path, Some(host.clone())).await?;
    ensure!(status == StatusCode::OK && given["id"] == json!(id) && given["host"] == "cmp7", "{status} {given}");
    let uuid = volume["uuid"].as_str().context("uuid")?;
    ensure!(given["export"] == format!("{uuid}/{id}") && given["read_only"] == true && given["initiator"].is_null());
    let (status, again) = world.machines[1].call(Method::PUT, &path, Some(host.clone())).await?;
    ensure!(status == StatusCode::OK && again == given, "{status} {again}");
    let (status, body) = world.machines[1].call(Method::PUT, &path, Some(json!({ "host": "cmp8" }))).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "conflict", "{status} {body}");
    let (status, body) = world.machines[1].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "in_use" && message(&body).contains("cmp7"), "{body}");
    for _ in 0..2 {
        let (status, body) = world.machines[2].call(Method::DELETE, &path, None).await?;
        ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    }
    let listed = world.machines[1].get("/v1/volumes/db-1/attachments").await?;
    ensure!(listed["attachments"][0]["revoked"] == true, "{listed}");
    let (status, body) = world.machines[0].call(Method::PUT, &path, Some(host)).await?;
    ensure!(status == StatusCode::CONFLICT && message(&body).contains("was revoked"), "{status} {body}");
    post(&world.machines[0], "db-1/demote", json!({})).await?;
    let other = format!("/v1/volumes/db-1/attachments/{}", Uuid::new_v4());
    let (status, body) = world.machines[0].call(Method::PUT, &other, Some(json!({ "host": "cmp7" }))).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "held", "nobody serves: {status} {body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_host_is_not_attached() -> Result<()> {
    let world = World::new(1).await?;
    create(&world.machines[0], &wish("db-1", &["cmp0"])).await?;
    let fenced = world.machines[0].call(Method::PUT, "/v1/fences/cmp7", Some(json!({ "why": "it hangs" }))).await?;
    ensure!(fenced.0 == StatusCode::OK, "{fenced:?}");
    let path = format!("/v1/volumes/db-1/attachments/{}", Uuid::new_v4());
    let (status, body) = world.machines[0].call(Method::PUT, &path, Some(json!({ "host": "cmp7" }))).await?;
    ensure!(status == StatusCode::CONFLICT && code(&body) == "refused", "{status} {body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_named_and_what_its_peers_know_is_shown() -> Result<()> {
    let mut world = World::new(3).await?;
    create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    create(&world.machines[0], &wish("db-2", &["cmp1"])).await?;
    both_are_in_sync(&world.machines[0], "db-1").await?;
    let (dead, _) = (world.machines.remove(1), world.machines[0].get("/v1/nodes/cmp1").await?);
    dead.end().await?;
    let asked = &world.machines[1];
    let listed = asked.get("/v1/volumes").await?;
    ensure!(listed["unreachable"] == json!(["cmp1"]), "{listed}");
    ensure!(listed["volumes"].as_array().is_some_and(|all| all.len() == 1), "what only it knows is missing: {listed}");
    let volume = until_shown(asked, "db-1", "the Primary goes on without it", |volume| {
        volume["serving"] == true && replica(volume, "cmp1")["in_sync"] == false
    })
    .await?;
    let lost = replica(&volume, "cmp1");
    ensure!(lost["reached"] == false && lost["role"] == "Unknown" && lost["disk"] == "Outdated", "{volume}");
    ensure!(volume["primary"] == "cmp0" && replica(&volume, "cmp0")["connected"] == json!([]), "{volume}");
    let nodes = asked.get("/v1/nodes").await?;
    let node = &nodes["nodes"][1];
    ensure!(node["name"] == "cmp1" && node["reached"] == false && node["why"].is_string(), "{nodes}");
    ensure!(nodes["nodes"][0]["reached"] == true && nodes["nodes"][0]["volumes"] == 1, "{nodes}");
    ensure!(asked.get("/v1/pools").await?["unreachable"] == json!(["cmp1"]));
    let (status, body) = asked.call(Method::GET, "/v1/volumes/db-2", None).await?;
    let remedy = body["error"]["remedy"].as_str().unwrap_or_default();
    ensure!(status == StatusCode::NOT_FOUND && remedy.contains("cmp1"), "{status} {body}");
    let (status, body) = asked.call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(
        status == StatusCode::CONFLICT && code(&body) == "held" && message(&body).contains("cmp1"),
        "{status} {body}"
    );
    let (status, body) = post(asked, "db-1/promote", json!({ "node": "cmp1" })).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE && code(&body) == "unreachable", "{status} {body}");
    Ok(())
}

/// A client over NBD that has the export open, and does nothing (the protocol document, "Baseline" and NBD_OPT_EXPORT_NAME).
async fn nbd_client(machine: &Machine, export: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(machine.node.nbd_address()).await?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).await?;
    ensure!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "{greeting:?}");
    let mut hello = 3_u32.to_be_bytes().to_vec(); // fixed newstyle, no zeroes
    hello.extend(b"IHAVEOPT");
    hello.extend(1_u32.to_be_bytes());
    hello.extend(u32::try_from(export.len())?.to_be_bytes());
    hello.extend(export.as_bytes());
    stream.write_all(&hello).await?;
    let mut export = [0; 10];
    stream.read_exact(&mut export).await?;
    ensure!(export[..8] == SIZE.to_be_bytes(), "{export:?}");
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_open_is_not_deleted() -> Result<()> {
    let world = World::new(2).await?;
    let volume = create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    let client = nbd_client(&world.machines[0], volume["uuid"].as_str().context("uuid")?).await?;
    // Its handshake has ended; that it is counted follows at once.
    until("it is counted", async || {
        let shown = world.machines[1].get("/v1/volumes/db-1").await;
        shown.is_ok_and(|shown| replica(&shown, "cmp0")["clients"] == 1)
    })
    .await?;
    let (status, body) = world.machines[1].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(
        status == StatusCode::CONFLICT && code(&body) == "in_use" && message(&body).contains("cmp0"),
        "{status} {body}"
    );
    let shown = world.machines[1].get("/v1/volumes/db-1").await?;
    ensure!(shown["serving"] == true && shown["state"] == "ready", "it serves on: {shown}");
    ensure!(replica(&shown, "cmp0")["clients"] == 1 && replica(&shown, "cmp1")["clients"] == 0, "{shown}");
    drop(client);
    until("it is free to be deleted", async || {
        let deleted = world.machines[1].call(Method::DELETE, "/v1/volumes/db-1", None).await;
        deleted.is_ok_and(|(status, _)| status == StatusCode::NO_CONTENT)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_volume_leaves_nothing_and_its_name_is_free() -> Result<()> {
    let world = World::new(3).await?;
    let first = wish("db-1", &["cmp0", "cmp1"]);
    create(&world.machines[0], &first).await?;
    let (status, body) = world.machines[2].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    for number in 0..2 {
        let left: Vec<_> = std::fs::read_dir(world.pool(number))?.collect::<Result<_, _>>()?;
        ensure!(left.is_empty(), "{left:?}");
    }
    ensure!(world.register()?.list().await?.1.is_empty(), "nor at the arbiter");
    let (status, body) = world.machines[0].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::NOT_FOUND, "{status} {body}");
    create(&world.machines[1], &first).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_stopped_half_way_is_asked_for_again() -> Result<()> {
    let mut world = World::new(2).await?;
    create(&world.machines[0], &wish("db-1", &["cmp0", "cmp1"])).await?;
    post(&world.machines[0], "db-1/demote", json!({})).await?;
    world.stop_the_arbiter().await?;
    let (status, body) = world.machines[0].call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::SERVICE_UNAVAILABLE, "{status} {body}");
    let shown = world.machines[1].get("/v1/volumes/db-1").await?;
    ensure!(shown["state"] == "deleting", "{shown}");
    world.machines.remove(1).end().await?;
    world.lose_the_arbiter().await?;
    let again = world.start_again(1).await?;
    ensure!(again.get("/v1/volumes/db-1").await?["state"] == "deleting", "it stays so over a restart");
    let (status, body) = again.call(Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    ensure!(std::fs::read_dir(world.pool(1))?.count() == 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_create_it_at_once_make_one_volume_or_none_that_cannot_be_deleted() -> Result<()> {
    let world = World::new(3).await?;
    for _ in 0..8 {
        let wish = json!({ "uuid": Uuid::new_v4(), "name": "db-1", "size_bytes": SIZE, "replicas": 2 });
        let asked = world.machines.iter().map(|machine| machine.call(Method::POST, "/v1/volumes", Some(wish.clone())));
        for answer in futures::future::join_all(asked).await {
            let (status, body) = answer?;
            let is_done = status == StatusCode::CREATED || status == StatusCode::OK;
            ensure!(is_done || ["conflict", "held"].contains(&code(&body)), "{status} {body}");
        }
        // Each place where somebody put it is found, and cleared, by asking again.
        until("nothing is left of it", async || {
            let path = format!("/v1/volumes/{}", wish["uuid"].as_str().expect("a uuid"));
            let deleted = world.machines[0].call(Method::DELETE, &path, None).await;
            deleted.is_ok_and(|(status, _)| status == StatusCode::NOT_FOUND)
        })
        .await?;
    }
    for number in 0..3 {
        ensure!(std::fs::read_dir(world.pool(number))?.count() == 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_creation_are_asked_by_nodes_alone() -> Result<()> {
    let world = World::new(1).await?;
    let path = format!("/v1/volumes/{}/definition", Uuid::new_v4());
    let (status, body) = world.machines[0].call(Method::DELETE, &path, None).await?;
    ensure!(status == StatusCode::FORBIDDEN && code(&body) == "forbidden", "{status} {body}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_who_may_create_may_have_it_promoted_but_promotes_nothing_else() -> Result<()> {
    let world = World::with_certificates(2).await?;
    let machine = &world.machines[0];
    let cinder = world.client("tandem://cinder/c1", machine)?;
    let made = wish("db-1", &["cmp1", "cmp0"]);
    let (status, body) = machine.call_as(&cinder, Method::POST, "/v1/volumes", Some(made)).await?;
    ensure!(status == StatusCode::CREATED && body["primary"] == "cmp1", "{status} {body}");
    let promote = Some(json!({ "node": "cmp0" }));
    let (status, body) = machine.call_as(&cinder, Method::POST, "/v1/volumes/db-1/promote", promote).await?;
    ensure!(status == StatusCode::FORBIDDEN, "{status} {body}");
    let path = format!("/v1/volumes/db-1/attachments/{}", Uuid::new_v4());
    let (status, body) = machine.call_as(&cinder, Method::PUT, &path, Some(json!({ "host": "cmp5" }))).await?;
    ensure!(status == StatusCode::OK, "{status} {body}");
    let (status, body) = machine.call_as(&cinder, Method::DELETE, &path, None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    let (status, body) = machine.call_as(&cinder, Method::DELETE, "/v1/volumes/db-1", None).await?;
    ensure!(status == StatusCode::NO_CONTENT, "{status} {body}");
    Ok(())
}
