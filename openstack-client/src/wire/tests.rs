//! What the bytes of real services mean to us. Values that differ from one recording to the next are not looked at.

use super::keystone::{AuthAnswer, TokenScope, ValidationAnswer};
use super::nova::*;
use super::placement::{Inventories, Traits, Usages};
use super::*;
use crate::microversion::{Microversion, Offered};

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&recorded(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn message_of(name: &str) -> String {
    error_message(&recorded(name)).unwrap_or_else(|| panic!("{name} has no message"))
}

fn known(row: ServerRow) -> Server {
    match row {
        ServerRow::Known(server) => *server,
        other => panic!("{other:?} is not known"),
    }
}

#[test]
fn every_compute_service_is_read_with_its_state() {
    let services = read::<Services>("os-services.json").services;
    assert!(!services.is_empty());
    for service in services {
        let ComputeService::Seen(service) = service else { panic!("{service:?} has a state") };
        assert!(matches!(service.state, ServiceState::Up | ServiceState::Down));
        assert!(service.updated_at.is_some() && service.zone.is_some());
    }
}

#[test]
fn a_row_of_a_down_cell_is_no_data() {
    let services = read::<Services>("down-cell-services.json").services;
    assert!(services.iter().any(|service| matches!(service, ComputeService::NoData { .. })));
    assert!(services.iter().any(|service| matches!(service, ComputeService::Seen(_))));
}

#[test]
fn an_updated_service_is_read() {
    let service = read::<UpdatedService>("os-services-update.json").service;
    assert!(service.forced_down && service.state == ServiceState::Down);
}

#[test]
fn servers_are_read_with_what_policy_needs() {
    let page: Servers = read("servers-detail.json");
    let more = page.has_next();
    let servers: Vec<_> = page.into_items().into_iter().map(known).collect();
    assert!(!servers.is_empty() && more);
    for server in &servers {
        assert!(server.host.is_some() && server.launched_at.is_some() && server.task_state.is_none());
        assert!(!matches!(server.vm_state, VmState::Other(_)) && !matches!(server.power_state, PowerState::Other(_)));
        assert!(server.flavor.vcpus > 0 && server.flavor.ram_mib > 0);
        assert_eq!(server.server_groups, None, "a list does not tell");
    }
}

#[test]
fn an_instance_on_a_volume_is_told_from_one_on_an_image() {
    let servers: Vec<_> = read::<Servers>("servers-detail.json").into_items().into_iter().map(known).collect();
    let on_volume = servers.iter().find(|server| server.root == Root::Volume).expect("one boots from a volume");
    assert!(!on_volume.volumes.is_empty());
    assert!(servers.iter().any(|server| matches!(server.root, Root::Image(_))));
}

#[test]
fn one_server_tells_its_groups() {
    let server = known(read::<OneServer>("server.json").server);
    assert!(server.server_groups.is_some());
}

#[test]
fn a_server_of_a_down_cell_is_no_data() {
    let rows = read::<Servers>("down-cell-servers-detail.json").into_items();
    assert!(rows.iter().any(|row| matches!(row, ServerRow::NoData { .. })));
    assert!(rows.iter().any(|row| matches!(row, ServerRow::Known(_))));
}

#[test]
fn a_server_seen_without_the_role_admin_is_an_error_with_the_remedy() {
    let row = r#"{"id": "7d4f5c7a-3f0e-4a1c-9d7b-2d7f1f0c5a01", "status": "ACTIVE", "name": "a", "tenant_id": "p", "user_id": "u"}"#;
    let error = serde_json::from_str::<ServerRow>(row).expect_err("vm_state is missing");
    assert!(error.to_string().contains("a server without vm_state; has the user the role admin?"), "{error}");
}

#[test]
fn migrations_are_read_before_and_after_they_have_a_destination() {
    let migrations = read::<Migrations>("os-migrations.json").into_items();
    assert!(!migrations.is_empty());
    for migration in migrations {
        assert_eq!(migration.kind, MigrationKind::Evacuation);
        assert!(!matches!(migration.status, MigrationStatus::Other(_)));
        assert!(migration.source.is_some());
        assert!(migration.destination.is_some() || migration.status == MigrationStatus::Accepted);
    }
}

#[test]
fn instance_actions_are_read_and_one_of_them_with_its_events() {
    let actions = read::<InstanceActions>("os-instance-actions.json").actions;
    assert!(actions.iter().any(|action| action.action == "evacuate" && action.request_id.0.starts_with("req-")));
    let action = read::<OneInstanceAction>("os-instance-action.json").action;
    assert!(action.events.iter().any(|event| event.event == "compute_rebuild_instance"));
    assert!(action.events.iter().all(|event| event.result.is_none() || event.finish_time.is_some()));
}

#[test]
fn groups_aggregates_and_hypervisors_are_read() {
    let groups = read::<ServerGroups>("os-server-groups.json").server_groups;
    assert!(groups.iter().all(|group| !matches!(group.policy, GroupPolicy::Other(_))) && !groups.is_empty());
    let aggregates = read::<Aggregates>("os-aggregates.json").aggregates;
    assert!(aggregates.iter().any(|aggregate| !aggregate.hosts.is_empty()));
    let hypervisors = read::<Hypervisors>("os-hypervisors.json").into_items();
    assert!(hypervisors.iter().all(|hypervisor| !hypervisor.service.host.is_empty()) && !hypervisors.is_empty());
}

#[test]
fn placement_tells_capacity_usage_and_traits() {
    let (has, used) = (read::<Inventories>("placement-inventories.json"), read::<Usages>("placement-usages.json"));
    assert!(["VCPU", "MEMORY_MB", "DISK_GB"].iter().all(|class| has.of[*class].capacity() >= used.of[*class]));
    assert!(!read::<Traits>("placement-traits.json").names.is_empty());
}

#[test]
fn capacity_leaves_out_what_is_reserved_and_rounds_down() {
    let inventory = super::placement::Inventory {
        total: 7,
        reserved: 2,
        allocation_ratio: 1.5,
        min_unit: 1,
        max_unit: 7,
        step_size: 1,
    };
    assert_eq!(inventory.capacity(), 7);
}

#[test]
fn a_new_token_comes_with_its_life_and_the_catalogue() {
    let token = read::<AuthAnswer>("keystone-auth.json").token;
    assert!(token.expires_at > token.issued_at);
    let has = |kind: &str| token.catalog.iter().any(|service| service.kind == kind && !service.endpoints.is_empty());
    assert!(has("compute") && has("placement") && has("identity"));
}

#[test]
fn a_callers_token_is_read_with_user_project_and_roles() {
    let bearer = read::<ValidationAnswer>("keystone-token.json").token;
    assert!(matches!(&bearer.scope, TokenScope::Project(project) if project.name == "admin"));
    assert!(bearer.roles.iter().any(|role| role.name == "admin") && bearer.user.name == "admin");
    assert!(bearer.is_admin_project, "Keystone says nothing of it unless an admin project is configured");
    assert!(bearer.application_credential.is_none());
}

#[test]
fn a_token_of_an_application_credential_brings_its_access_rules() {
    let bearer = read::<ValidationAnswer>("keystone-token-application-credential.json").token;
    let rules = bearer.application_credential.expect("it came from one").access_rules.expect("it has rules");
    assert!(rules.iter().any(|rule| rule.service == "compute" && rule.method == "GET"));
}

#[test]
fn every_service_says_what_went_wrong_in_its_own_shape() {
    assert!(message_of("nova-400-service-in-use.json").contains("is still in use"));
    assert!(message_of("nova-404.json").contains("could not be found"));
    assert_eq!(message_of("keystone-401.json"), "The request you have made requires authentication.");
    assert!(message_of("placement-404.json").starts_with("The resource could not be found. No resource provider"));
    assert_eq!(error_message(b"<html>"), None);
    assert_eq!(error_message(b"[]"), None);
    assert_eq!(error_message(br#"{"error": "text"}"#), None);
}

#[test]
fn both_services_say_which_microversions_they_offer() {
    for name in ["nova-version.json", "placement-version.json"] {
        assert!(matches!(read::<Versions>(name).offered(), Some(Offered::Range { min, max }) if min < max), "{name}");
    }
    let legacy: Versions =
        serde_json::from_str(r#"{"version": {"id": "v2.0", "version": "", "min_version": ""}}"#).expect("JSON");
    assert_eq!(legacy.offered(), Some(Offered::None));
    let nova: Versions =
        serde_json::from_str(r#"{"version": {"version": "2.94", "min_version": "2.1"}}"#).expect("JSON");
    assert_eq!(nova.offered(), Some(Offered::Range { min: Microversion(2, 1), max: Microversion(2, 94) }));
}

#[test]
fn times_with_and_without_zone_are_the_same_time() {
    let spellings = [
        "2026-11-22T14:30:05Z",
        "2026-11-22T14:30:05.000000Z",
        "2026-11-22T14:30:05.000000",
        "2026-11-22T14:30:05",
        "2026-11-22T15:30:05+01:00",
    ];
    let times: Vec<_> = spellings.iter().map(|text| parse_time(text).expect("a time")).collect();
    assert!(times.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(parse_time("yesterday"), None);
}

#[test]
fn a_word_that_nova_adds_is_kept() {
    let state: TaskState = serde_json::from_str("\"levitating\"").expect("a word");
    assert_eq!(state, TaskState::Other("levitating".to_owned()));
    assert_eq!(state.to_string(), "levitating");
}

#[test]
fn a_row_that_cannot_be_read_hides_no_other() {
    let mut page: serde_json::Value = read("servers-detail.json");
    page["servers"][0]["flavor"]["ram"] = "much".into();
    page["servers"][1]["OS-EXT-STS:power_state"] = serde_json::Value::Null;
    let rows = serde_json::from_value::<Servers>(page).expect("a page").into_items();
    let ServerRow::Unreadable { id: Some(_), why } = &rows[0] else { panic!("{:?}", rows[0]) };
    assert!(why.contains("much"), "{why}");
    assert!(matches!(&rows[1], ServerRow::Known(server) if server.power_state == PowerState::NoState));
}

#[test]
fn a_compute_service_that_cannot_be_read_is_no_data() {
    let mut services: serde_json::Value = read("os-services.json");
    services["services"][0]["updated_at"] = "yesterday".into();
    let services = serde_json::from_value::<Services>(services).expect("a list").services;
    assert!(matches!(services[0], ComputeService::NoData { .. }) && matches!(services[1], ComputeService::Seen(_)));
}

#[test]
fn an_answer_that_names_no_version_is_not_the_services() {
    let read = |text| serde_json::from_str::<Versions>(text).expect("an object").offered();
    assert_eq!(read(r#"{"status": "maintenance"}"#), None);
    assert_eq!(read(r#"{"versions": [{"id": "v2.0", "version": "", "min_version": ""}]}"#), Some(Offered::None));
}

mod strangers {
    use proptest::prelude::*;

    use super::*;

    /// Everything that we parse of what services send.
    fn parse_all(bytes: &[u8]) {
        let _ = serde_json::from_slice::<Services>(bytes);
        let _ = serde_json::from_slice::<Servers>(bytes);
        let _ = serde_json::from_slice::<Migrations>(bytes);
        let _ = serde_json::from_slice::<AuthAnswer>(bytes);
        let _ = serde_json::from_slice::<ValidationAnswer>(bytes);
        let _ = serde_json::from_slice::<Inventories>(bytes).map(|has| has.of.values().map(|of| of.capacity()).max());
        let _ = serde_json::from_slice::<Versions>(bytes).map(|versions| versions.offered());
        let _ = error_message(bytes);
    }

    const RECORDINGS: [&str; 7] = [
        "os-services.json",
        "servers-detail.json",
        "os-migrations.json",
        "keystone-auth.json",
        "placement-inventories.json",
        "nova-version.json",
        "nova-404.json",
    ];

    proptest! {
        #[test]
        fn no_bytes_make_us_panic(bytes: Vec<u8>) {
            parse_all(&bytes);
        }

        #[test]
        fn no_bent_answer_makes_us_panic(which in 0..RECORDINGS.len(), at: prop::sample::Index, with: Vec<u8>, cut in 0..20usize) {
            let mut bytes = recorded(RECORDINGS[which]);
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, with);
            parse_all(&bytes);
        }

        #[test]
        fn no_number_overflows_a_capacity(total: u64, reserved: u64, allocation_ratio: f64) {
            let inventory = crate::wire::placement::Inventory {
                total, reserved, allocation_ratio, min_unit: 1, max_unit: u64::MAX, step_size: 1,
            };
            let _ = inventory.capacity();
        }
    }
}
