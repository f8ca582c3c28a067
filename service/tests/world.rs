//! What is heard of the world, put together: whose edit moved `updated_at`, which *down* is believed, how long the BMC has said Off.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use failover::{Host, NovaSeen, Power, ServiceSeen, Time};
use openstack_client::{ComputeService, Service, ServiceId, ServiceState, ServiceStatus};
use tandem_ha::config::Config;
use tandem_ha::world::{NovaAnswer, Reading, World};
use uuid::Uuid;

const CMP1: Uuid = Uuid::from_u128(1);

fn world() -> World {
    world_of("")
}

fn world_of(config: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tandem-ha.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::write(dir.path().join("key"), (0..64).collect::<Vec<u8>>()).unwrap();
    World::new(Arc::new(Config::load(&file, std::iter::empty()).unwrap().config), Time(0), std::iter::empty())
}

fn cmp1() -> Host {
    Host { service: CMP1.as_u128(), name: "cmp1".into() }
}

fn row(state: ServiceState, updated_s: i64) -> ComputeService {
    ComputeService::Seen(Service {
        id: ServiceId(CMP1),
        host: "cmp1".to_owned(),
        zone: Some("nova".to_owned()),
        state,
        status: ServiceStatus::Enabled,
        forced_down: false,
        updated_at: DateTime::<Utc>::from_timestamp(updated_s, 0),
    })
}

/// Nova answers a question asked at once.
fn hear(world: &mut World, at_s: u64, rows: Vec<ComputeService>) -> ServiceSeen {
    let now = Time(at_s * 1000);
    world.nova_answered(now, &NovaAnswer { sent: now, services: rows });
    match &world.seen.hosts[&cmp1()].nova {
        NovaSeen::Listed(service) => service.clone(),
        NovaSeen::NoData => panic!("it was listed"),
    }
}

#[test]
fn a_report_is_noticed_when_updated_at_advances() {
    let mut world = world();
    assert_eq!(hear(&mut world, 1, vec![row(ServiceState::Up, 100)]).reported, None, "the first look shows no advance");
    assert_eq!(hear(&mut world, 3, vec![row(ServiceState::Up, 100)]).reports, 0);
    let seen = hear(&mut world, 5, vec![row(ServiceState::Up, 110)]);
    assert_eq!((seen.reports, seen.reported), (1, Some(Time(5000))));
}

#[test]
fn an_edit_of_ours_is_no_report() {
    let mut world = world();
    hear(&mut world, 1, vec![row(ServiceState::Up, 100)]);
    world.edit_begins(&cmp1());
    assert_eq!(hear(&mut world, 3, vec![row(ServiceState::Up, 101)]).reports, 0, "while it is on its way");
    world.edit_ended(&cmp1(), Time(4000));
    assert_eq!(
        hear(&mut world, 5, vec![row(ServiceState::Up, 104)]).reports,
        0,
        "the first list asked for after it shows it"
    );
    assert_eq!(hear(&mut world, 7, vec![row(ServiceState::Up, 107)]).reports, 1, "what comes later does not");
}

#[test]
fn a_sudden_down_in_the_answer_that_waited_for_a_silent_cell_is_not_believed() {
    let mut world = world();
    let silent = || ComputeService::NoData { host: "other".to_owned() };
    hear(&mut world, 1, vec![row(ServiceState::Up, 100)]);
    hear(&mut world, 11, vec![row(ServiceState::Up, 110)]);
    assert!(hear(&mut world, 13, vec![row(ServiceState::Down, 110), silent()]).up, "it reported two seconds before");
    assert!(!hear(&mut world, 60, vec![row(ServiceState::Down, 110), silent()]).up, "it has not reported for long");
    hear(&mut world, 70, vec![row(ServiceState::Up, 170)]);
    assert!(!hear(&mut world, 72, vec![row(ServiceState::Down, 170)]).up, "no cell is silent: Nova's word counts");
}

#[test]
fn a_row_without_data_is_neither_up_nor_down() {
    let mut world = world();
    hear(&mut world, 1, vec![row(ServiceState::Up, 100)]);
    let services = vec![ComputeService::NoData { host: "cmp1".to_owned() }];
    world.nova_answered(Time(3000), &NovaAnswer { sent: Time(2000), services });
    assert_eq!(world.seen.hosts[&cmp1()].nova, NovaSeen::NoData);
}

#[test]
fn a_troubled_host_is_known_by_its_name_while_its_cell_is_silent_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tandem-ha.toml");
    std::fs::write(&file, "[segments.east]\nhosts = [\"cmp1\"]\nroot_disk = \"shared\"\n").unwrap();
    let config = Arc::new(Config::load(&file, std::iter::empty()).unwrap().config);
    let mut world = World::new(config, Time(0), [cmp1()].iter());
    let services = vec![ComputeService::NoData { host: "cmp1".to_owned() }];
    world.nova_answered(Time(1_000), &NovaAnswer { sent: Time(1_000), services });
    assert_eq!(world.seen.hosts[&cmp1()].nova, NovaSeen::NoData);
    assert!(world.policy.of(&cmp1()).shared_root, "what is settled of it holds");
}

#[test]
fn off_readings_make_an_epoch_that_an_on_or_a_gap_ends() {
    let mut world = world();
    hear(&mut world, 1, vec![row(ServiceState::Up, 100)]);
    let mut read = |at_s: u64, reading| {
        world.power("cmp1", reading, None, (Time(at_s * 1000 - 100), Time(at_s * 1000)));
        world.seen.hosts[&cmp1()].power.reading.clone()
    };
    let off = |since: u64, at: u64| Power::Off { since: Time(since * 1000), at: Time(at * 1000 - 100) };
    assert_eq!(read(2, Reading::Off), off(2, 2));
    assert_eq!(read(3, Reading::Off), off(2, 3));
    assert_eq!(read(4, Reading::On), Power::On { at: Time(3900) });
    assert_eq!(read(5, Reading::Off), off(5, 5));
    assert_eq!(read(6, Reading::Missed("slow".into())), off(5, 5), "one reading is missed");
    assert_eq!(read(7, Reading::Off), off(5, 7));
    assert!(matches!(read(13, Reading::Missed("slow".into())), Power::Unknown { since: Time(13000), .. }));
    assert_eq!(read(14, Reading::Off), off(14, 14), "nobody knows what it was meanwhile");
}

#[test]
fn a_name_that_two_services_share_belongs_to_neither() {
    let mut world = world();
    let mut second = row(ServiceState::Up, 100);
    if let ComputeService::Seen(service) = &mut second {
        service.id = ServiceId(Uuid::from_u128(2));
    }
    hear(&mut world, 1, vec![row(ServiceState::Up, 100), second]);
    assert_eq!(world.host("cmp1"), None);
    assert!(world.heard("cmp1", "mgmt", failover::ChannelKind::Heartbeat, Time(1)).is_none());
}

/// cmp1 and cmp2, which are heard on one network.
fn two_on_mgmt() -> World {
    let network = "[[heartbeat.networks]]\nname = \"mgmt\"\nlisten = \"127.0.0.1:15869\"\n";
    let mut world = world_of(&format!("[heartbeat]\nkey_file = \"key\"\n{network}"));
    let mut second = row(ServiceState::Up, 100);
    if let ComputeService::Seen(service) = &mut second {
        (service.id, service.host) = (ServiceId(Uuid::from_u128(2)), "cmp2".to_owned());
    }
    hear(&mut world, 1, vec![row(ServiceState::Up, 100), second]);
    world
}

fn beat(world: &mut World, name: &str, at_s: u64) -> Time {
    world.heard(name, "mgmt", failover::ChannelKind::Heartbeat, Time(at_s * 1000));
    world.seen.view.unbroken_since
}

#[test]
fn a_network_on_which_nobody_was_heard_breaks_our_watch_when_it_returns() {
    let mut world = two_on_mgmt();
    for at_s in 2..5 {
        assert_eq!([beat(&mut world, "cmp1", at_s), beat(&mut world, "cmp2", at_s)], [Time(0); 2]);
    }
    assert_eq!(beat(&mut world, "cmp1", 12), Time(12_000), "cmp2 has not been silent for long: we were deaf");
}

#[test]
fn a_gap_of_the_only_host_on_a_network_is_its_own() {
    let mut world = two_on_mgmt();
    assert_eq!([beat(&mut world, "cmp1", 2), beat(&mut world, "cmp1", 9)], [Time(0); 2]);
}
