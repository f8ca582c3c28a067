//! Who gets in, what they may do, and what strangers get.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tandem_node::admin::{ListenError, Listeners};
use tandem_node::identity::Authority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::world::{Machine, World, client_of, credentials};

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or("no code")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_in_the_clear_beyond_loopback() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("node.sock");
    let refused = Listeners::bind("0.0.0.0:0".parse()?, None, &socket).await;
    ensure!(matches!(refused, Err(ListenError::InTheClear { .. })), "{refused:?}");
    ensure!(!socket.exists());
    let (authority, _) = Authority::generate(30, Utc::now())?;
    let ours = credentials(&authority, folder.path(), "tandem://node/a")?;
    Listeners::bind("0.0.0.0:0".parse()?, Some(&ours), &socket).await?;
    Ok(())
}

async fn over_the_socket(machine: &Machine, request: &str) -> Result<String> {
    let mut stream = UnixStream::connect(&machine.socket).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_is_the_owners_alone_and_goes_with_the_process() -> Result<()> {
    let mut world = World::new(1).await?;
    let machine = world.machines.remove(0);
    let mode = std::fs::metadata(&machine.socket)?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    let answer =
        over_the_socket(&machine, "GET /healthcheck HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").await?;
    ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"ok":true}"#), "{answer}");
    let taken = Listeners::bind("127.0.0.1:0".parse()?, None, &machine.socket).await;
    ensure!(matches!(taken, Err(ListenError::InUse { .. })), "{taken:?}");
    let socket = machine.socket.clone();
    machine.end().await?;
    ensure!(!socket.exists());
    drop(std::os::unix::net::UnixListener::bind(&socket)?); // as a killed process leaves it
    ensure!(socket.exists());
    Listeners::bind("127.0.0.1:0".parse()?, None, &socket).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_is_not_served_on_loopback() -> Result<()> {
    let world = World::new(1).await?;
    let machine = &world.machines[0];
    for (header, value) in [("host", "evil.example:15870"), ("origin", "http://evil.example")] {
        let answer = machine.client.get(machine.url("/healthcheck")).header(header, value).send().await?;
        ensure!(answer.status() == StatusCode::FORBIDDEN, "{header}: {}", answer.status());
        ensure!(code(&answer.json().await?) == "forbidden");
    }
    let answer = machine.client.get(machine.url("/healthcheck")).header("host", "localhost:1").send().await?;
    ensure!(answer.status() == StatusCode::OK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_may_do_what_its_kind_may() -> Result<()> {
    let world = World::with_certificates(2).await?;
    let machine = &world.machines[0];
    let body = || Some(json!({ "why": "it fell silent" }));
    for (identity, status) in [
        ("tandem://cinder/c", StatusCode::FORBIDDEN),
        ("tandem://node/cmp1", StatusCode::FORBIDDEN),
        ("tandem://ha/h", StatusCode::OK),
        ("tandem://admin/alice", StatusCode::OK),
    ] {
        let client = world.client(identity, machine)?;
        let (got, answer) = machine.call_as(&client, Method::GET, "/v1/fences", None).await?;
        ensure!(got == StatusCode::OK, "{identity}: {answer}");
        let (got, answer) = machine.call_as(&client, Method::PUT, "/v1/fences/cmp9", body()).await?;
        ensure!(got == status, "{identity}: {answer}");
        if status == StatusCode::FORBIDDEN {
            ensure!(answer["error"]["message"] == format!("{identity} may not fence a host, or lift that"), "{answer}");
        }
    }
    let listed = machine.get("/v1/fences").await?;
    ensure!(listed["fences"][0]["by"] == "tandem://ha/h", "the first word stands: {listed}");
    let rebuild = Some(json!({ "confirm": true }));
    let ha = world.client("tandem://ha/h", machine)?;
    let (got, answer) = machine.call_as(&ha, Method::POST, "/v1/arbiter/rebuild", rebuild).await?;
    ensure!(got == StatusCode::FORBIDDEN, "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_our_ca_does_not_know_is_not_spoken_to() -> Result<()> {
    let world = World::with_certificates(1).await?;
    let machine = &world.machines[0];
    let (other, _) = Authority::generate(30, Utc::now())?;
    let stranger = credentials(&other, &world.folder.path().join("cmp0").join("pool"), "tandem://admin/eve")?;
    ensure!(client_of(&stranger, "cmp0")?.get(machine.url("/v1/fences")).send().await.is_err());
    // One that believes whoever answers, and shows nothing.
    let ca = reqwest::Certificate::from_pem(world.authority.as_ref().context("certificates")?.pem().as_bytes())?;
    let nobody = Client::builder().no_proxy().add_root_certificate(ca).build()?;
    ensure!(nobody.get(machine.url("/healthcheck")).send().await.is_err());
    let plain = Client::builder().no_proxy().build()?;
    ensure!(plain.get(format!("http://{}/healthcheck", machine.rest)).send().await.is_err());
    ensure!(machine.get("/healthcheck").await? == json!({ "ok": true }), "and goes on");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_passes_on_only_what_the_one_it_speaks_for_may() -> Result<()> {
    let world = World::with_certificates(2).await?;
    let machine = &world.machines[0];
    let node = world.client("tandem://node/cmp1", machine)?;
    let put = |who: &'static str| {
        let request = node.put(machine.url("/v1/fences/cmp9")).header("tandem-local", "1").header("tandem-for", who);
        request.json(&json!({ "why": "it fell silent" })).send()
    };
    ensure!(put("tandem://cinder/c").await?.status() == StatusCode::FORBIDDEN);
    ensure!(put("tandem://ha/h").await?.status() == StatusCode::OK);
    let cinder = world.client("tandem://cinder/c", machine)?;
    let posing = cinder
        .delete(machine.url("/v1/fences/cmp9"))
        .header("tandem-local", "1")
        .header("tandem-for", "tandem://admin/a");
    ensure!(posing.send().await?.status() == StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_request_is_said_in_one_form() -> Result<()> {
    let world = World::new(1).await?;
    let machine = &world.machines[0];
    let put = |body: String| {
        machine.client.put(machine.url("/v1/fences/cmp9")).header("content-type", "application/json").body(body)
    };
    for (request, status, kind) in [
        (machine.client.get(machine.url("/v2")), 404, "not_found"),
        (machine.client.patch(machine.url("/v1/fences")), 405, "invalid"),
        (put("{".into()), 400, "invalid"),
        (put(r#"{"why": 1}"#.into()), 400, "invalid"),
        (put(r#"{"why": "x", "wy": "x"}"#.into()), 400, "invalid"),
        (put("x".repeat(2 << 20)), 413, "invalid"),
        (machine.client.put(machine.url("/v1/fences/cmp9")).body("{}"), 415, "invalid"),
        (machine.client.put(machine.url("/v1/fences/c%20d")).json(&json!({ "why": "x" })), 400, "invalid"),
        (machine.client.get(machine.url("/v1/events?volum=x")), 400, "invalid"),
        (machine.client.get(machine.url("/v1/nodes/%ff/dead")), 400, "invalid"),
        (machine.client.get(machine.url("/v1/nodes/cmp9/dead")), 404, "not_found"),
    ] {
        let answer = request.send().await?;
        let (got, allow) = (answer.status().as_u16(), answer.headers().get("allow").cloned());
        let body: Value = answer.json().await.with_context(|| format!("{status} {kind}"))?;
        ensure!(got == status && code(&body) == kind, "{got} {body}, not {status} {kind}");
        ensure!((got == 405) == allow.is_some_and(|allow| allow == "GET,HEAD"), "{got}");
        ensure!(body["error"].as_object().is_some_and(|error| error.contains_key("remedy")), "{body}");
    }
    ensure!(machine.get("/v1/fences").await?["version"] == 0, "nothing was done");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_does_not_wait_for_those_who_listen_for_ever() -> Result<()> {
    let mut world = World::new(1).await?;
    let machine = world.machines.remove(0);
    let mut events = machine.client.get(machine.url("/v1/events")).send().await?;
    ensure!(events.chunk().await?.is_some_and(|bytes| bytes.starts_with(b": from now on")));
    let began = std::time::Instant::now();
    machine.end().await?;
    ensure!(began.elapsed().as_secs() < 4, "cut only after {:?}", began.elapsed());
    ensure!(events.chunk().await?.is_none(), "and whole");
    Ok(())
}
