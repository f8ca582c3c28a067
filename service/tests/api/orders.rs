//! What a person orders, and what is refused.

use axum::http::StatusCode;
use failover::{Decision, Gate, IncidentId, InstanceId, Kind, Outcome, RestartState};
use serde_json::json;
use tandem_ha::store::incident_uuid;

use super::cloud::{self, Cloud, dead, odd, sentence};

const BY: &str = "uid 4000000000, pid 42";

#[tokio::test]
async fn arm_and_disarm_say_how_it_stands_then() {
    let cloud = Cloud::new().await;
    assert_eq!(cloud.ask("POST", "/v2/arm", "{}").await, (StatusCode::OK, json!({ "armed": true })));
    assert_eq!(cloud.get("/v2/hosts").await["armed"], true);
    let disarmed = cloud.ask("POST", "/v2/disarm", r#"{"reason":"new switches tonight"}"#).await;
    assert_eq!(disarmed, (StatusCode::OK, json!({ "armed": false })));
    assert_eq!(cloud.ask("POST", "/v2/arm", "").await, (StatusCode::OK, json!({ "armed": true })), "no body will do");
}

#[tokio::test]
async fn a_release_is_recorded_with_who_and_why() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let path = format!("/v2/incidents/{}/release", incident_uuid(&id));
    let body = r#"{"reason":" both were switched off by me "}"#;
    let (status, answer) = cloud.ask("POST", &path, body).await;
    assert_eq!((status, sentence(&answer)), (StatusCode::CONFLICT, "nothing holds it"));
    let hold = Decision::Hold { id: id.clone(), gate: Gate::NotEverybody, why: "2 of 3 hosts are in trouble".into() };
    cloud.decide(&[hold]).await;
    let (status, answer) = cloud.ask("POST", &path, body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["incident"]["hold"], json!(null));
    let last = answer["incident"]["timeline"].as_array().unwrap().last().unwrap().clone();
    let text = format!("released by {BY}: both were switched off by me");
    assert_eq!((&last["kind"], &last["text"]), (&json!("operator"), &json!(text)));
}

#[tokio::test]
async fn the_last_order_to_arm_or_disarm_is_shown_with_who_gave_it() {
    let cloud = Cloud::new().await;
    let shown = async || cloud.get("/v2/hosts").await["armed_by"].clone();
    assert_eq!(shown().await, json!(null), "nobody has said anything yet");
    let at = "2026-11-18T11:06:40.123000Z";
    cloud.ask("POST", "/v2/arm", "").await;
    assert_eq!(shown().await, json!({ "by": BY, "why": "armed", "at": at }));
    cloud.ask("POST", "/v2/disarm", r#"{"reason":"new switches tonight"}"#).await;
    assert_eq!(shown().await, json!({ "by": BY, "why": "new switches tonight", "at": at }));
}

#[tokio::test]
async fn an_incident_is_found_by_its_id_its_host_and_as_the_log_names_it() {
    let cloud = Cloud::new().await;
    let first = cloud.outage().await;
    let close = Decision::Close { id: first.clone(), outcome: Outcome::Recovered, why: "it is back".into() };
    cloud.decide(&[close]).await;
    let id_at = async |name: &str| cloud.get(&format!("/v2/incidents/{name}")).await["incident"]["id"].clone();
    let key = json!(incident_uuid(&first));
    assert_eq!(id_at("cmp2").await, key, "the newest where none is open");
    let open = async |host: failover::Host, outage| {
        let id = IncidentId { host, outage };
        cloud.decide(&[Decision::Open { id: id.clone(), why: "silent".into() }]).await;
        id
    };
    let second = open(dead(), 2).await;
    let odd = open(odd(), 7).await;
    for (name, id) in [
        ("cmp2", &second),
        ("cmp2%2F2", &second),
        ("cmp2%2F1", &first),
        ("odd%20n%C3%A4me%2F3", &odd),
        ("odd%20n%C3%A4me%2F3%2F7", &odd),
    ] {
        assert_eq!(id_at(name).await, json!(incident_uuid(id)), "{name}");
    }
    for name in ["cmp1", "cmp2%2F3", "cmp2%2F", "%2F1", "cmp2%2F-1", "cmp2%2F99999999999999999999", "CMP2", "%25"] {
        let (status, answer) = cloud.ask("GET", &format!("/v2/incidents/{name}"), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{name}: {answer}");
        assert!(sentence(&answer).contains("HOST and HOST/OUTAGE will do"), "{answer}");
    }
}

#[tokio::test]
async fn a_release_takes_the_names_that_holds_have() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    for name in ["cmp2", "cmp2%2F1"] {
        cloud.decide(&[Decision::Hold { id: id.clone(), gate: Gate::NotFlapping, why: "too often".into() }]).await;
        let (status, answer) = cloud.ask("POST", &format!("/v2/incidents/{name}/release"), r#"{"reason":"r"}"#).await;
        assert_eq!(status, StatusCode::OK, "{name}: {answer}");
        assert_eq!(answer["incident"]["id"], json!(incident_uuid(&id)));
        assert_eq!(answer["incident"]["hold"], json!(null));
    }
}

#[tokio::test]
async fn of_two_open_incidents_of_one_name_none_is_guessed() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let anew = IncidentId { host: cloud::host(0x77, "cmp2"), outage: 1 };
    cloud.decide(&[Decision::Open { id: anew.clone(), why: "silent".into() }]).await;
    for name in ["cmp2", "cmp2%2F1"] {
        let (status, answer) = cloud.ask("POST", &format!("/v2/incidents/{name}/release"), r#"{"reason":"r"}"#).await;
        assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        for id in [&id, &anew] {
            assert!(sentence(&answer).contains(&incident_uuid(id).to_string()), "{answer}");
        }
    }
    let close = Decision::Close { id, outcome: Outcome::Cancelled, why: "deleted".into() };
    cloud.decide(&[close]).await;
    assert_eq!(cloud.get("/v2/incidents/cmp2").await["incident"]["id"], json!(incident_uuid(&anew)));
}

#[tokio::test]
async fn guests_that_did_not_start_after_a_reboot_are_counted_and_told() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let kind = Kind::Reboot(failover::BootId(5));
    let restart = |instance, name: &str, state| Decision::Restart {
        id: id.clone(),
        instance: InstanceId(instance),
        name: name.into(),
        state,
    };
    let story = [
        Decision::Kind { id: id.clone(), kind, why: "it has booted by itself".into() },
        restart(1, "vm1", RestartState::Running),
        restart(2, "vm2", RestartState::Asked),
        restart(3, "vm3", RestartState::Waiting { not_before: cloud::NOW }),
        restart(4, "vm4", RestartState::Named { why: "it did not start".into() }),
    ];
    cloud.decide(&story).await;
    let counts = json!({ "total": 4, "moved": 0, "moving": 0, "waiting": 1, "named": 1, "asked": 1, "running": 1 });
    let list = cloud.get("/v2/incidents").await;
    assert_eq!(list["incidents"][0]["instances"], counts);
    let whole = cloud.get("/v2/incidents/cmp2").await;
    assert_eq!(whole["incident"]["instances"], counts);
    let last = json!({
        "instance": InstanceId(4).to_string(), "name": "vm4", "state": "named", "attempt": 0, "request_id": null,
        "why": "it did not start", "asked_at": null,
    });
    assert_eq!(whole["incident"]["restarts"][3], last);
}

#[tokio::test]
async fn a_list_says_whether_there_are_more() {
    let cloud = Cloud::new().await;
    let more = async |query: &str| cloud.get(&format!("/v2/incidents{query}")).await["more"].clone();
    cloud.outage().await;
    assert_eq!(more("?limit=1").await, json!(false));
    let id = IncidentId { host: odd(), outage: 1 };
    cloud.decide(&[Decision::Open { id, why: "silent".into() }]).await;
    assert_eq!(more("?limit=1").await, json!(true));
    assert_eq!(more("?limit=2").await, json!(false));
    assert_eq!(more("?limit=1000").await, json!(false));
    assert_eq!(cloud.get("/v2/incidents?limit=1").await["incidents"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_nobody_can_overrule_is_not_released() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    cloud.decide(&[Decision::Hold { id: id.clone(), gate: Gate::WeSee, why: "Nova does not answer us".into() }]).await;
    let path = format!("/v2/incidents/{}/release", incident_uuid(&id));
    let (status, answer) = cloud.ask("POST", &path, r#"{"reason":"go on"}"#).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(sentence(&answer), "we can see: nobody can overrule that (Nova does not answer us)");
}

#[tokio::test]
async fn a_fence_by_hand_is_recorded_with_who_says_so() {
    let cloud = Cloud::new().await;
    let body = r#"{"method":"manual","reason":"pulled the plug"}"#;
    let (status, answer) = cloud.ask("POST", "/v2/hosts/cmp2/fence", body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(sentence(&answer).contains("no open incident"), "{answer}");
    cloud.outage().await;
    let (status, answer) = cloud.ask("POST", "/v2/hosts/cmp2/fence", body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let receipt = json!({
        "kind": "manual", "by": BY, "why": "pulled the plug", "power_epoch": null,
        "read_at": "2026-11-18T11:06:40.123000Z", "void": null,
    });
    assert_eq!(answer["incident"]["receipts"], json!([receipt]));
}

#[tokio::test]
async fn a_host_that_lives_is_not_fenced_by_word_of_mouth() {
    let cloud = Cloud::new().await;
    let body = r#"{"method":"manual","reason":"pulled the plug"}"#;
    let (status, answer) = cloud.ask("POST", "/v2/hosts/cmp1/fence", body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(sentence(&answer), "cmp1 is alive: it is heard on mgmt and storage");
    let (status, answer) = cloud.ask("POST", "/v2/hosts/cmp9/fence", body).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
}

#[tokio::test]
async fn the_port_that_only_reads_says_where_orders_go_whatever_they_are() {
    let cloud = Cloud::new().await;
    let id = incident_uuid(&cloud.outage().await);
    for path in ["/v2/arm", "/v2/disarm", &format!("/v2/incidents/{id}/release"), "/v2/hosts/nobody/fence"] {
        for body in ["", "{}", "not JSON", r#"{"reason":"r"}"#] {
            let (status, _, answer) = cloud::ask(&cloud.read_only, "POST", path, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
            assert!(sentence(&answer).contains("the control socket /run/tandem/ha.sock"), "{answer}");
        }
    }
    assert_eq!(cloud.get("/v2/hosts").await["armed"], false);
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_and_nothing_is_done() {
    let cloud = Cloud::new().await;
    let id = incident_uuid(&cloud.outage().await);
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(1001));
    let huge = format!(r#"{{"reason":"{}"}}"#, "x".repeat(70_000));
    let release = format!("/v2/incidents/{id}/release");
    let fence = "/v2/hosts/cmp2/fence";
    for (path, body, code, part) in [
        ("/v2/arm", "{", 400, "cannot be understood"),
        ("/v2/arm", "[]x", 400, "cannot be understood"),
        ("/v2/arm", r#"{"force":true}"#, 400, "unknown field `force`"),
        ("/v2/disarm", "{}", 400, "missing field `reason`"),
        ("/v2/disarm", "", 400, "missing field `reason`"),
        ("/v2/disarm", r#"{"reason":7}"#, 400, "expected a string"),
        ("/v2/disarm", r#"{"reason":"  "}"#, 400, "say why"),
        ("/v2/disarm", r#"{"reason":"a\nb"}"#, 400, "control characters"),
        ("/v2/disarm", r#"{"reason":"a","reason":"b"}"#, 400, "duplicate field"),
        ("/v2/disarm", &long, 400, "at most 1000"),
        ("/v2/disarm", &huge, 413, "length limit"),
        (&release, "null", 400, "cannot be understood"),
        (&release, "\u{fffd}", 400, "cannot be understood"),
        ("/v2/incidents/1/release", r#"{"reason":"r"}"#, 404, "its id is a UUID"),
        (
            "/v2/incidents/00000000-0000-0000-0000-000000000000/release",
            r#"{"reason":"r"}"#,
            404,
            "there is no incident",
        ),
        (fence, r#"{"reason":"r"}"#, 400, "missing field `method`"),
        (fence, r#"{"method":"redfish","reason":"r"}"#, 400, "method: manual, not \"redfish\""),
        (fence, r#"{"method":"manual","reason":""}"#, 400, "say why"),
    ] {
        let (status, answer) = cloud.ask("POST", path, body).await;
        assert_eq!(status.as_u16(), code, "{path} {body}: {answer}");
        assert!(sentence(&answer).contains(part), "{path} {body}: {answer}");
    }
    assert_eq!(cloud.get("/v2/hosts").await["armed"], false);
    assert_eq!(cloud.get(&format!("/v2/incidents/{id}")).await["incident"]["timeline"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_order_at_the_end_of_the_day_is_told_that_it_came_too_late() {
    let cloud = Cloud::new().await;
    cloud.end_conductor();
    let (status, answer) = cloud.ask("POST", "/v2/arm", "{}").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(sentence(&answer), "tandem-ha is shutting down");
}

#[tokio::test]
async fn who_cannot_be_named_gives_no_orders() {
    let cloud = Cloud::new().await;
    let nameless = tandem_ha::api::router(cloud.desk.clone(), cloud.store.clone(), tandem_ha::api::Door::Control);
    let (status, _, answer) = cloud::ask(&nameless, "POST", "/v2/arm", "{}").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
}
