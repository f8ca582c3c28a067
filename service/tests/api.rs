//! Promises of the API: what it answers, to whom, and that whatever is wrong is said as JSON, in a sentence.

#[path = "api/cloud.rs"]
mod cloud;
#[path = "api/doors.rs"]
mod doors;
#[path = "api/orders.rs"]
mod orders;

use axum::http::StatusCode;
use failover::{Decision, Gate, InstanceId, MigrationId, MoveState, NovaSeen, Outcome, Phase, Power, Time};
use serde_json::{Value, json};
use tandem_ha::store::incident_uuid;

use cloud::{Cloud, NOW, dead, host, odd, sentence, well};

#[tokio::test]
async fn the_root_says_what_it_is() {
    let cloud = Cloud::new().await;
    let root = cloud.get("/").await;
    assert_eq!(root, json!({ "name": "tandem-ha", "version": env!("CARGO_PKG_VERSION"), "apis": ["/v2"] }));
}

#[tokio::test]
async fn healthcheck_is_blind_when_the_gate_would_hold() {
    let cloud = Cloud::new().await;
    assert_eq!(cloud.get("/healthcheck").await, json!({ "status": "ok" }));
    cloud.change(|board| board.seen.view.nova_answered = Some(Time(NOW.0 - 60_000)));
    let blind = json!({ "status": "blind", "why": "Nova does not answer us" });
    assert_eq!(cloud.ask("GET", "/healthcheck", "").await, (StatusCode::SERVICE_UNAVAILABLE, blind));
    cloud.change(|board| {
        board.seen.view.nova_answered = None;
        board.seen.hosts.clear();
    });
    let blind = json!({ "status": "blind", "why": "Nova has not answered yet" });
    assert_eq!(cloud.ask("GET", "/healthcheck", "").await, (StatusCode::SERVICE_UNAVAILABLE, blind));
}

#[tokio::test]
async fn hosts_are_shown_with_all_that_is_known_of_them() {
    let cloud = Cloud::new().await;
    cloud
        .decide(&[Decision::Prove { host: dead(), network: "storage".into(), kind: failover::ChannelKind::Tcp }])
        .await;
    let id = cloud.outage().await;
    let answer = cloud.get("/v2/hosts").await;
    assert_eq!(answer["armed"], json!(false));
    assert_eq!(answer["view"], json!({ "sees": true, "why": null, "nova_answered_at": "2026-11-18T11:06:39.123000Z" }));
    let expected = json!([
        {
            "name": "cmp1", "id": "00000000-0000-0000-0000-000000000001", "standing": "well",
            "why": "heard on mgmt and storage", "incident": null,
            "nova": { "state": "up", "status": "enabled", "disabled_reason": null, "forced_down": false,
                "reported_at": "2026-11-18T11:06:38.123000Z" },
            "channels": [
                { "network": "mgmt", "kind": "heartbeat", "alive": true, "last_at": "2026-11-18T11:06:39.623000Z", "proven": true },
                { "network": "storage", "kind": "tcp", "alive": true, "last_at": "2026-11-18T11:06:39.623000Z", "proven": true },
            ],
            "power": { "state": "on", "bound": false, "read_at": "2026-11-18T11:06:39.123000Z", "why": null },
            "boot_id": "00000000-0000-0000-0000-00000000000b",
        },
        {
            "name": "cmp2", "id": "00000000-0000-0000-0000-000000000002", "standing": "suspected",
            "why": "nothing is heard of it on mgmt", "incident": incident_uuid(&id).to_string(),
            "nova": { "state": "down", "status": "disabled", "disabled_reason": "tandem: cmp2 failed, outage 1",
                "forced_down": true, "reported_at": null },
            "channels": [
                { "network": "mgmt", "kind": "heartbeat", "alive": false, "last_at": "2026-11-18T11:05:40.123000Z", "proven": true },
                { "network": "storage", "kind": "tcp", "alive": false, "last_at": null, "proven": true },
            ],
            "power": { "state": "unknown", "bound": false, "read_at": null, "why": "its BMC does not answer" },
            "boot_id": null,
        },
        {
            "name": "odd näme/3", "id": "00000000-0000-0000-0000-000000000003", "standing": "no data",
            "why": "Nova's cell of it does not answer", "incident": null,
            "nova": { "state": "no data", "status": null, "disabled_reason": null, "forced_down": null, "reported_at": null },
            "channels": [], "power": { "state": "none", "bound": false, "read_at": null, "why": null }, "boot_id": null,
        },
    ]);
    assert_eq!(answer["hosts"], expected);
}

#[tokio::test]
async fn a_host_that_nova_lists_no_more_is_shown_while_its_incident_is_open() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    cloud.change(|board| board.seen.hosts.clear());
    let shown = &cloud.get("/v2/hosts").await["hosts"];
    assert_eq!(shown[0]["name"], "cmp2");
    assert_eq!(shown[0]["standing"], "no data");
    let gone = "Nova no longer lists this compute service";
    cloud.decide(&[Decision::Hold { id, gate: Gate::Evidence, why: gone.into() }]).await;
    let shown = &cloud.get("/v2/hosts").await["hosts"];
    assert_eq!(shown[0]["standing"], "held");
    assert_eq!(shown[0]["why"], format!("evidence: {gone}"));
}

#[tokio::test]
async fn an_incident_is_told_from_its_beginning_to_its_end() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let instance = InstanceId(0xa);
    let moved = |state| Decision::Move { id: id.clone(), instance, state };
    let verdict = failover::Verdict { gate: Gate::WeSee, passed: true, why: "Nova answers".into() };
    let receipt = failover::FenceReceipt {
        id: id.clone(),
        kind: failover::Proof::PowerOff { epoch: NOW },
        read_at: NOW,
        void: None,
    };
    let story = [
        Decision::Gates { id: id.clone(), verdicts: vec![verdict] },
        Decision::Receipt { id: id.clone(), receipt },
        Decision::Plan { id: id.clone(), instance, name: "vm1".into() },
        moved(MoveState::Accepted),
        Decision::Follow {
            id: id.clone(),
            instance,
            migration: MigrationId(0xd),
            status: "done".into(),
            to: Some(well()),
        },
        moved(MoveState::Moved),
        Decision::Close { id: id.clone(), outcome: Outcome::Recovered, why: "it takes instances again".into() },
    ];
    cloud.decide(&story).await;
    let key = incident_uuid(&id).to_string();
    let mut answer = cloud.get(&format!("/v2/incidents/{key}")).await;
    let at = "2026-11-18T11:06:40.123000Z";
    let timeline = answer["incident"]["timeline"].take();
    let expected = json!({ "incident": {
        "id": key, "host": "cmp2", "outage": 1, "kind": "outage", "phase": "closed", "outcome": "recovered", "hold": null,
        "opened_at": at, "closed_at": at, "why": "nothing is heard of it on mgmt",
        "instances": { "total": 1, "moved": 1, "moving": 0, "waiting": 0, "named": 0 },
        "gates": [{ "gate": "we can see", "passed": true, "why": "Nova answers" }],
        "receipts": [{ "kind": "redfish", "by": "the BMC of cmp2", "why": "it says Off", "power_epoch": at, "read_at": at, "void": null }],
        "moves": [{
            "instance": "00000000-0000-0000-0000-00000000000a", "name": "vm1", "state": "moved", "attempt": 0, "to": "cmp1",
            "migration": "00000000-0000-0000-0000-00000000000d", "migration_status": "done", "request_id": null, "why": null,
            "intended_at": null, "ended_at": at,
        }],
        "restarts": [],
        "timeline": null,
    }});
    assert_eq!(answer, expected);
    let texts: Vec<&str> = timeline.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
    let told = [
        "suspected: nothing is heard of it on mgmt",
        "we can see passed (Nova answers)",
        "fenced: the BMC of cmp2 says Off",
        "to be moved",
        "Nova took the evacuation",
        "its migration is done, to cmp1",
        "moved",
        "closed (recovered): it takes instances again",
    ];
    assert_eq!(texts, told);
    let first = json!({ "at": at, "kind": "evidence", "instance": null, "text": told[0] });
    assert_eq!(timeline[0], first);
    assert_eq!(timeline[3]["instance"], "00000000-0000-0000-0000-00000000000a");
}

#[tokio::test]
async fn incidents_are_listed_as_they_are_asked_for() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let of_another = failover::IncidentId { host: odd(), outage: 1 };
    let reboot = failover::Kind::Reboot(failover::BootId(5));
    let more = [
        Decision::Open { id: of_another.clone(), why: "it has booted by itself".into() },
        Decision::Kind { id: of_another.clone(), kind: reboot, why: "a new boot".into() },
        Decision::Close { id: of_another, outcome: Outcome::Rebooted, why: "its guests run".into() },
        Decision::Hold { id, gate: Gate::NotEverybody, why: "2 of 3 hosts are in trouble".into() },
    ];
    cloud.decide(&more).await;
    let hosts = async |query: &str| {
        let answer = cloud.get(&format!("/v2/incidents{query}")).await;
        let incidents = answer["incidents"].as_array().unwrap().clone();
        incidents.iter().map(|incident| incident["host"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(hosts("").await.len(), 2);
    assert_eq!(hosts("?state=all&limit=1").await.len(), 1);
    assert_eq!(hosts("?state=open").await, ["cmp2"]);
    assert_eq!(hosts("?state=closed").await, ["odd näme/3"]);
    assert_eq!(hosts("?host=odd+n%C3%A4me%2F3").await, ["odd näme/3"]);
    assert_eq!(hosts("?host=nobody").await, [""; 0]);
    let open = cloud.get("/v2/incidents?state=open").await;
    let hold =
        json!({ "gate": "mass failure", "why": "2 of 3 hosts are in trouble", "since": "2026-11-18T11:06:40.123000Z" });
    assert_eq!(open["incidents"][0]["hold"], hold);
    assert_eq!(open["incidents"][0]["timeline"], Value::Null, "a summary is short");
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused() {
    let cloud = Cloud::new().await;
    for (query, part) in [
        ("state=ajar", "open, closed or all"),
        ("limit=0", "from 1 to 1000"),
        ("limit=-1", "from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("limit=many", "from 1 to 1000"),
        ("limit=", "from 1 to 1000"),
        ("stat=open", "\"stat\" is not known"),
        ("state=open&state=all", "state is given twice"),
    ] {
        let (status, answer) = cloud.ask("GET", &format!("/v2/incidents?{query}"), "").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(sentence(&answer).contains(part), "{query}: {answer}");
    }
}

#[tokio::test]
async fn a_plan_says_gate_by_gate_what_would_be_done() {
    let cloud = Cloud::new().await;
    cloud.decide(&[Decision::Arm { armed: true, by: "root".into(), why: "ready".into() }]).await;
    let answer = cloud.get("/v2/plan/cmp1").await;
    let plan = &answer["plan"];
    assert_eq!(plan["host"], "cmp1");
    assert_eq!(plan["held"], true, "cmp2 is silent and cmp1 would be the second of three: {plan}");
    assert_eq!(plan["gates"][0], json!({ "gate": "armed", "passed": true, "why": "armed" }));
    assert_eq!(plan["fence"][1], json!({ "method": "manual", "ready": true, "why": "a person" }));
    let instances = json!([
        { "instance": "00000000-0000-0000-0000-00000000000a", "name": "vm1", "would": "evacuate", "why": null },
        { "instance": "00000000-0000-0000-0000-00000000000e", "name": "vm2", "would": "leave", "why": plan["instances"][1]["why"] },
    ]);
    assert_eq!(plan["instances"], instances);
    assert!(plan["instances"][1]["why"].is_string(), "{plan}");
}

#[tokio::test]
async fn a_plan_without_the_instances_is_no_plan() {
    let cloud = Cloud::new().await;
    let (status, answer) = cloud.ask("GET", "/v2/plan/odd%20n%C3%A4me%2F3", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let why = "the instances of odd näme/3 could not be looked up: its cell does not answer";
    assert_eq!(sentence(&answer), why);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let cloud = Cloud::new().await;
    for (path, part) in [
        ("/nothing", "there is nothing at /nothing"),
        ("/v2", "there is nothing at /v2"),
        ("/v2/hosts/", "there is nothing at"),
        ("/v1/notifications", "there is nothing at"),
        ("/v2/plan/cmp9", "no host \"cmp9\""),
        ("/v2/plan/%00", "no host \"\\0\""),
        ("/v2/plan/..%2F..%2Fetc", "no host"),
        ("/v2/incidents/1", "its id is a UUID"),
        ("/v2/incidents/%F0%9F%92%A5", "its id is a UUID"),
        ("/v2/incidents/00000000-0000-0000-0000-000000000000", "there is no incident 0000"),
    ] {
        let (status, answer) = cloud.ask("GET", path, "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer["error"]["title"], "Not Found");
        assert!(sentence(&answer).contains(part), "{path}: {answer}");
    }
    let (status, answer) = cloud.ask("GET", "/v2/plan/%FF", "").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    sentence(&answer);
}

#[tokio::test]
async fn two_services_of_one_name_are_told_apart_by_their_uuids() {
    let cloud = Cloud::new().await;
    cloud.change(|board| {
        let seen = board.seen.hosts[&well()].clone();
        board.seen.hosts.insert(host(0x77, "cmp1"), seen);
    });
    let (status, answer) = cloud.ask("GET", "/v2/plan/cmp1", "").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(sentence(&answer).contains("name one by its uuid"), "{answer}");
    let answer = cloud.get("/v2/plan/00000000-0000-0000-0000-000000000001").await;
    assert_eq!(answer["plan"]["host"], "cmp1");
}

#[tokio::test]
async fn a_method_that_is_not_taken_is_told_which_are() {
    let cloud = Cloud::new().await;
    let id = "00000000-0000-0000-0000-000000000000";
    for (method, path, allowed) in [
        ("POST", "/", "GET,HEAD"),
        ("DELETE", "/v2/hosts", "GET,HEAD"),
        ("PUT", "/v2/plan/cmp1", "GET,HEAD"),
        ("PATCH", &format!("/v2/incidents/{id}"), "GET,HEAD"),
        ("GET", "/v2/arm", "POST"),
        ("GET", &format!("/v2/incidents/{id}/release"), "POST"),
        ("BREW", "/v2/hosts/cmp1/fence", "POST"),
    ] {
        for door in [&cloud.control, &cloud.read_only] {
            let (status, headers, answer) = cloud::ask(door, method, path, "").await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(headers["allow"], allowed, "{method} {path}");
            assert!(sentence(&answer).contains(method), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_said_and_the_hosts_are_shown_all_the_same() {
    let cloud = Cloud::new().await;
    cloud.outage().await;
    cloud.by_hand("UPDATE incidents SET phase = 'on fire'").await;
    let (status, answer) = cloud.ask("GET", "/v2/incidents", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(sentence(&answer).contains("\"on fire\" in incidents.phase"), "{answer}");
    assert_eq!(cloud.get("/v2/hosts").await["hosts"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn phases_and_powers_have_the_words_of_the_contract() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    cloud.decide(&[Decision::Phase { id: id.clone(), to: Phase::ForcedDown, why: "done".into() }]).await;
    let incident = cloud.get(&format!("/v2/incidents/{}", incident_uuid(&id))).await;
    assert_eq!(incident["incident"]["phase"], "forced down");
    for (reading, word) in [
        (Power::Absent, "none"),
        (Power::On { at: NOW }, "on"),
        (Power::Off { since: NOW, at: NOW }, "off"),
        (Power::Unknown { why: "slow".into(), since: NOW }, "unknown"),
    ] {
        cloud.change(|board| board.seen.hosts.get_mut(&well()).unwrap().power.reading = reading.clone());
        assert_eq!(cloud.get("/v2/hosts").await["hosts"][0]["power"]["state"], word);
    }
    cloud.change(|board| board.seen.hosts.get_mut(&well()).unwrap().nova = NovaSeen::NoData);
    assert_eq!(cloud.get("/v2/hosts").await["hosts"][0]["nova"]["state"], "no data");
}
