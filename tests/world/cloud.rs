//! A real OpenStack as tests use it: instances of their own, gone when the test ends, and the command that switches its hosts off.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use openstack_client::{Cloud, CloudConfig, Limits, Server, ServerId, ServerRow, Session, Surroundings, VmState};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// How long Nova may take for a step of an instance's life.
const STEP: Duration = Duration::from_secs(60);

/// The cloud that OS_CLOUD and OS_CLIENT_CONFIG_FILE name.
pub fn connect() -> Cloud {
    let around = Surroundings::of_this_process();
    let named = ["OS_CLOUD", "OS_CLIENT_CONFIG_FILE"].iter().all(|name| around.variables.contains_key(*name));
    assert!(
        named,
        "these tests need a running OpenStack: set OS_CLOUD and OS_CLIENT_CONFIG_FILE to it, or start one with `make demo` and run them through `minicloud exec`"
    );
    let config = CloudConfig::load(None, &around).unwrap_or_else(|e| panic!("{}", openstack_client::chain(&e)));
    Cloud::new(config, Limits::default()).unwrap_or_else(|e| panic!("{}", openstack_client::chain(&e)))
}

/// Switches a host of the minicloud on or off, as its command line does.
pub fn switch_host(host: &str, to: &str) -> Result<()> {
    let program = std::env::var("MINICLOUD").context("these tests need MINICLOUD, the command that switches hosts")?;
    let status = Command::new(&program)
        .args(["host", host, to])
        .status()
        .with_context(|| format!("{program} does not start"))?;
    ensure!(status.success(), "{program} host {host} {to} ended with {status}");
    Ok(())
}

/// What an instance is to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootFrom {
    Image,
    Volume,
}

/// Boots an instance on a host, lets the test look at it, and deletes it whatever the test found.
pub async fn with_server(
    cloud: &Cloud,
    host: &str,
    from: BootFrom,
    test: impl AsyncFnOnce(Server) -> Result<()>,
) -> Result<()> {
    let id = boot(cloud, host, from).await?;
    let found = match wait_for(cloud, id, VmState::Active).await {
        Ok(server) => test(server).await,
        Err(late) => Err(late),
    };
    let deleted = delete(cloud, id).await;
    found.and(deleted)
}

/// Creates an instance on a host, tagged and with metadata, as administrators place one.
async fn boot(cloud: &Cloud, host: &str, from: BootFrom) -> Result<ServerId> {
    let flavor = id_of(cloud, "compute", "/flavors", "flavors", "m1.tiny").await?;
    let mut server = json!({
        "name": format!("test-{}", Uuid::new_v4().simple()), "flavorRef": flavor, "networks": "none",
        "metadata": {"HA_Enabled": "True"}, "tags": ["client-cloud"], "host": host, // 2.74
    });
    match from {
        BootFrom::Image => {
            server["imageRef"] = id_of(cloud, "image", "/v2/images", "images", "minicloud").await?.into()
        }
        BootFrom::Volume => {
            server["block_device_mapping_v2"] = json!([{
                "boot_index": 0, "uuid": bootable_volume(cloud).await?, "source_type": "volume",
                "destination_type": "volume", "delete_on_termination": true,
            }]);
        }
    }
    let answer = request(cloud, Method::POST, "compute", "/servers", Some(json!({"server": server}))).await?;
    Ok(answer["server"]["id"].as_str().context("a new server has an id")?.parse()?)
}

async fn bootable_volume(cloud: &Cloud) -> Result<String> {
    let made = request(cloud, Method::POST, "volumev3", "/volumes", Some(json!({"volume": {"size": 1}}))).await?;
    let id = made["volume"]["id"].as_str().context("a new volume has an id")?.to_owned();
    until(&format!("volume {id} is available"), async || {
        let volume = request(cloud, Method::GET, "volumev3", &format!("/volumes/{id}"), None).await?;
        Ok((volume["volume"]["status"] == "available").then_some(()))
    })
    .await?;
    let bootable = json!({"os-set_bootable": {"bootable": true}});
    request(cloud, Method::POST, "volumev3", &format!("/volumes/{id}/action"), Some(bootable)).await?;
    Ok(id)
}

async fn delete(cloud: &Cloud, id: ServerId) -> Result<()> {
    request(cloud, Method::DELETE, "compute", &format!("/servers/{id}"), None).await?;
    until(&format!("server {id} is gone"), async || match cloud.server(id).await {
        Err(openstack_client::Error::NotFound { .. }) => Ok(Some(())),
        Err(other) => Err(other.into()),
        Ok(_) => Ok(None),
    })
    .await
}

/// Waits until the instance is in this state and nothing is being done to it.
pub async fn wait_for(cloud: &Cloud, id: ServerId, state: VmState) -> Result<Server> {
    until(&format!("server {id} is {state}"), async || match cloud.server(id).await? {
        ServerRow::Known(server) if server.vm_state == VmState::Error && state != VmState::Error => {
            bail!("server {id} is in error")
        }
        ServerRow::Known(server) if server.vm_state == state && server.task_state.is_none() => Ok(Some(*server)),
        ServerRow::Known(_) | ServerRow::NoData { .. } | ServerRow::Unreadable { .. } => Ok(None),
    })
    .await
}

/// Looks until there is something to see, at most [`STEP`] long.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let seen = async {
        loop {
            if let Some(seen) = look().await? {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(STEP, seen)
        .await
        .with_context(|| format!("waited {} s in vain until {what}", STEP.as_secs()))?
}

async fn id_of(cloud: &Cloud, service: &'static str, path: &str, list: &str, name: &str) -> Result<String> {
    let answer = request(cloud, Method::GET, service, path, None).await?;
    let found = answer[list].as_array().and_then(|things| things.iter().find(|thing| thing["name"] == name));
    Ok(found
        .and_then(|thing| thing["id"].as_str())
        .with_context(|| format!("the cloud has no {name} among its {list}"))?
        .to_owned())
}

/// A call that Tandem itself never makes, with the token of the client's session. The newest microversion that boots on a named host is 2.74.
pub async fn request(cloud: &Cloud, method: Method, service: &str, path: &str, body: Option<Value>) -> Result<Value> {
    let session: &Session = cloud.session();
    let http = session.client().inner();
    let mut url = session.client().get_endpoint(service, session.endpoint_filters()).await?;
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    let mut builder = http.request(method.clone(), url.clone());
    if service == "compute" {
        builder = builder.header("openstack-api-version", "compute 2.74");
    }
    if let Some(body) = &body {
        builder = builder.json(body);
    }
    let answer = session.auth_type().authenticate(http, builder).await?.send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{method} {url} was answered with {status}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
}
