//! The client's calls against a real OpenStack: the one that OS_CLOUD and OS_CLIENT_CONFIG_FILE name.
//!
//! Each test boots what it looks at and deletes it; none counts what others may have left. Run one at a time:
//! `cargo nextest run -p system-tests --features minicloud --test client-cloud --test-threads 1`.

use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use openstack_client::{
    ApplicationCredential, Cloud, CloudConfig, ComputeService, Credentials, Error, Limits, MigrationFilter,
    MigrationKind, MigrationStatus, PowerState, Secret, Server, ServerId, ServerRow, Service, ServiceId, ServiceState,
    ServiceStatus, TokenScope, VmState,
};
use reqwest::Method;
use serde_json::json;
use system_tests::cloud::{BootFrom, connect, request, switch_host, until, wait_for, with_server};

const HOSTS: [&str; 3] = ["cmp1", "cmp2", "cmp3"];

async fn service(cloud: &Cloud, host: &str) -> Result<Service> {
    match cloud.compute_service(host).await? {
        Some(ComputeService::Seen(service)) => Ok(service),
        other => anyhow::bail!("Nova says of {host}: {other:?}"),
    }
}

async fn in_state(cloud: &Cloud, host: &str, state: ServiceState) -> Result<Service> {
    until(&format!("{host} is {state}"), async || {
        Ok(Some(service(cloud, host).await?).filter(|service| service.state == state))
    })
    .await
}

async fn evacuation(cloud: &Cloud, server: ServerId, status: MigrationStatus) -> Result<()> {
    let filter =
        MigrationFilter { server: Some(server), kind: Some(MigrationKind::Evacuation), ..MigrationFilter::default() };
    until(&format!("the evacuation of {server} is {status}"), async || {
        let all: Vec<_> = cloud.migrations(&filter).try_collect().await?;
        Ok(all.iter().any(|migration| migration.status == status).then_some(()))
    })
    .await
}

#[tokio::test]
async fn every_compute_service_is_listed_up_and_with_its_uuid() -> Result<()> {
    let cloud = connect();
    let services = cloud.compute_services().await?;
    for host in HOSTS {
        ensure!(services.iter().any(|service| service.host() == host), "{host} is missing among {services:?}");
        let service = in_state(&cloud, host, ServiceState::Up).await?;
        ensure!(service.updated_at.is_some() && !service.forced_down, "{service:?}");
    }
    ensure!(cloud.compute_service("no-such-host").await?.is_none(), "Nova knows every host");
    Ok(())
}

#[tokio::test]
async fn a_service_is_disabled_with_its_reason_and_enabled_again() -> Result<()> {
    let cloud = connect();
    let id = service(&cloud, "cmp3").await?.id;
    let reason = "a test of Tandem";
    let disabled = cloud.disable(id, reason).await;
    let enabled = cloud.enable(id).await?;
    ensure!(disabled?.status == ServiceStatus::Disabled { reason: Some(reason.to_owned()) }, "not disabled");
    ensure!(enabled.status == ServiceStatus::Enabled, "not enabled");
    Ok(())
}

#[tokio::test]
async fn a_service_is_forced_down_and_up_again() -> Result<()> {
    let cloud = connect();
    let id = service(&cloud, "cmp3").await?.id;
    let down = cloud.force_down(id).await;
    let up = cloud.clear_forced_down(id).await?;
    let down = down?;
    ensure!(down.forced_down && down.state == ServiceState::Down, "{down:?}");
    ensure!(!up.forced_down, "{up:?}");
    in_state(&cloud, "cmp3", ServiceState::Up).await.map(drop)
}

#[tokio::test]
async fn an_instance_is_listed_on_its_host_with_what_policy_needs() -> Result<()> {
    let cloud = connect();
    with_server(&cloud, "cmp1", BootFrom::Image, async |server: Server| {
        let listed: Vec<_> = cloud.servers_of_host("cmp1").try_collect().await?;
        let listed = listed.into_iter().find(|row| row.id() == Some(server.id));
        let Some(ServerRow::Known(listed)) = listed else { anyhow::bail!("{} is not on cmp1: {listed:?}", server.id) };
        ensure!(
            listed.host.as_deref() == Some("cmp1")
                && listed.task_state.is_none()
                && listed.power_state == PowerState::Running,
            "{listed:?}"
        );
        ensure!(listed.metadata["HA_Enabled"] == "True" && listed.tags == ["client-cloud"], "{listed:?}");
        ensure!(listed.launched_at.is_some() && !listed.locked && listed.flavor.name == "m1.tiny", "{listed:?}");
        ensure!(matches!(listed.root, openstack_client::Root::Image(_)) && listed.volumes.is_empty(), "{listed:?}");
        ensure!(
            listed.server_groups.is_none() && server.server_groups == Some(Vec::new()),
            "groups are told by a look at one server only"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_instance_on_a_volume_is_told_with_its_volume_and_its_lock() -> Result<()> {
    let cloud = connect();
    with_server(&cloud, "cmp1", BootFrom::Volume, async |server: Server| {
        ensure!(matches!(server.root, openstack_client::Root::Volume), "{server:?}");
        ensure!(server.volumes.len() == 1 && server.volumes[0].delete_on_termination, "{server:?}");
        let path = format!("/servers/{}/action", server.id);
        request(&cloud, Method::POST, "compute", &path, Some(json!({"lock": {"locked_reason": "a test"}}))).await?;
        let ServerRow::Known(locked) = cloud.server(server.id).await? else { anyhow::bail!("its cell is down") };
        ensure!(locked.locked && locked.locked_reason.as_deref() == Some("a test"), "{locked:?}");
        request(&cloud, Method::POST, "compute", &path, Some(json!({"unlock": null}))).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn every_page_of_a_host_is_read() -> Result<()> {
    let cloud = connect();
    let small = Cloud::new(
        cloud.config().clone(),
        openstack_client::Limits { page: NonZeroU32::MIN, ..cloud.limits().clone() },
    )?;
    with_server(&cloud, "cmp2", BootFrom::Image, async |first: Server| {
        with_server(&cloud, "cmp2", BootFrom::Image, async |second: Server| {
            let rows: Vec<_> = small.servers_of_host("cmp2").try_collect().await?;
            ensure!(
                [first.id, second.id].iter().all(|id| rows.iter().any(|row| row.id() == Some(*id))),
                "a page is missing: {rows:?}"
            );
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_instance_is_stopped_started_and_rebooted() -> Result<()> {
    let cloud = connect();
    with_server(&cloud, "cmp1", BootFrom::Image, async |server: Server| {
        cloud.stop(server.id).await?;
        wait_for(&cloud, server.id, VmState::Stopped).await?;
        cloud.start(server.id).await?;
        wait_for(&cloud, server.id, VmState::Active).await?;
        let request = cloud.hard_reboot(server.id).await?;
        wait_for(&cloud, server.id, VmState::Active).await?;
        let action = cloud.instance_action(server.id, &request).await?;
        ensure!(
            action.action == "reboot" && action.request_id == request,
            "the id that a call returns is that of its action: {action:?}"
        );
        ensure!(cloud.instance_actions(server.id).await?.len() >= 4, "create, stop, start, reboot");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_instance_whose_host_is_up_is_not_evacuated() -> Result<()> {
    let cloud = connect();
    with_server(&cloud, "cmp1", BootFrom::Image, async |server: Server| {
        let refused = cloud.evacuate(server.id, None).await;
        ensure!(matches!(&refused, Err(Error::Refused { status, .. }) if status.as_u16() == 400), "{refused:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_server_that_does_not_exist_is_not_found() -> Result<()> {
    let missing = connect().server(ServerId(uuid::Uuid::new_v4())).await;
    ensure!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn every_compute_node_has_its_capacity_in_placement() -> Result<()> {
    let cloud = connect();
    let nodes: Vec<_> = cloud.hypervisors().try_collect().await?;
    for host in HOSTS {
        let node = nodes
            .iter()
            .find(|node| node.service.host == host)
            .with_context(|| format!("{host} has no node among {nodes:?}"))?;
        let (has, used) = (cloud.inventories(node.id).await?, cloud.usages(node.id).await?);
        ensure!(has.of["VCPU"].capacity() >= used.of.get("VCPU").copied().unwrap_or(0), "{has:?} {used:?}");
        ensure!(!cloud.traits(node.id).await?.names.is_empty(), "{host} has no traits");
    }
    Ok(())
}

#[tokio::test]
async fn groups_and_aggregates_are_read() -> Result<()> {
    let cloud = connect();
    cloud.server_groups().await?;
    cloud.aggregates().await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_rejected_by_keystone_with_a_remedy() -> Result<()> {
    let mut config = connect().config().clone();
    let Credentials::Password { password, .. } = &mut config.credentials else { anyhow::bail!("not a password") };
    *password = Secret::new("not-it");
    let rejected = Cloud::new(config, Limits::default())?.authenticate().await.expect_err("it is wrong");
    ensure!(matches!(rejected, Error::Rejected { .. }), "{rejected:?}");
    let told = rejected.to_string();
    ensure!(told.contains("the password of user admin (domain Default)") && told.contains("check them in"), "{told}");
    Ok(())
}

#[tokio::test]
async fn an_application_credential_serves_as_well_as_a_password() -> Result<()> {
    let cloud = connect();
    let bearer = cloud.validate(&our_token(&cloud).await?).await?.context("our token is live")?;
    let path = format!("/users/{}/application_credentials", bearer.user.id);
    let asked = json!({"application_credential": {"name": uuid::Uuid::new_v4(), "roles": [{"name": "admin"}]}});
    let made = request(&cloud, Method::POST, "identity", &path, Some(asked)).await?["application_credential"].take();
    let [id, secret] = ["id", "secret"].map(|key| made[key].as_str().unwrap_or_default().to_owned());
    let credential = ApplicationCredential::Id(id.clone());
    let credentials = Credentials::ApplicationCredential { credential, secret: Secret::new(secret) };
    let config = CloudConfig { credentials, ..cloud.config().clone() };
    let listed = Cloud::new(config, Limits::default())?.compute_services().await;
    request(&cloud, Method::DELETE, "identity", &format!("{path}/{id}"), None).await?;
    ensure!(listed?.len() >= HOSTS.len(), "the same services are seen");
    Ok(())
}

#[tokio::test]
async fn our_own_token_is_an_administrators_and_a_made_up_one_is_nobodys() -> Result<()> {
    let cloud = connect();
    let bearer = cloud.validate(&our_token(&cloud).await?).await?.context("our token is live")?;
    ensure!(bearer.roles.iter().any(|role| role.name == "admin"), "{bearer:?}");
    ensure!(matches!(&bearer.scope, TokenScope::Project(project) if project.name == "admin"), "{bearer:?}");
    ensure!(cloud.validate(&Secret::new("gAAAAA-made-up")).await?.is_none(), "Keystone knows a made-up token");
    Ok(())
}

async fn our_token(cloud: &Cloud) -> Result<Secret> {
    let session = cloud.session();
    let http = session.client().inner();
    let request = http.get(cloud.config().auth_url.clone());
    let signed = session.auth_type().authenticate(http, request).await?.build()?;
    Ok(Secret::new(signed.headers()["x-auth-token"].to_str()?))
}

/// The host is switched on again whatever happens in between; what else was changed about it is put back as far as Nova lets us.
#[tokio::test]
async fn a_dead_hosts_instance_is_evacuated_and_the_host_comes_back() -> Result<()> {
    const DEAD: &str = "cmp3";
    let cloud = connect();
    let id = service(&cloud, DEAD).await?.id;
    with_server(&cloud, DEAD, BootFrom::Image, async |server: Server| {
        switch_host(DEAD, "off")?;
        let moved = evacuate_from_dead_host(&cloud, &server, DEAD).await;
        let refused = cloud.clear_forced_down(id).await;
        switch_host(DEAD, "on")?;
        let back = bring_back(&cloud, id, DEAD).await;
        moved.and(back)?;
        ensure!(
            matches!(&refused, Err(Error::Refused { status, .. }) if status.as_u16() == 400),
            "forced_down was cleared before the host completed its evacuations: {refused:?}"
        );
        evacuation(&cloud, server.id, MigrationStatus::Completed).await
    })
    .await
}

/// Nova lets forced_down go as soon as the host's nova-compute has completed its evacuations.
async fn bring_back(cloud: &Cloud, id: ServiceId, host: &str) -> Result<()> {
    until(&format!("forced_down of {host} can be cleared"), async || match cloud.clear_forced_down(id).await {
        Ok(_) => Ok(Some(())),
        Err(Error::Refused { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    })
    .await?;
    in_state(cloud, host, ServiceState::Up).await.map(drop)
}

async fn evacuate_from_dead_host(cloud: &Cloud, server: &Server, dead: &str) -> Result<()> {
    let id = service(cloud, dead).await?.id;
    cloud.force_down(id).await?;
    let request = cloud.evacuate(server.id, None).await?;
    evacuation(cloud, server.id, MigrationStatus::Done).await?;
    let moved = wait_for(cloud, server.id, VmState::Active).await?;
    ensure!(moved.host.as_deref().is_some_and(|host| host != dead), "it is still there: {moved:?}");
    let action = cloud.instance_action(server.id, &request).await?;
    ensure!(action.action == "evacuate" && !action.events.is_empty(), "{action:?}");
    Ok(())
}
