//! What a person orders, and what is refused.

use axum::http::StatusCode;
use failover::{Decision, Gate};
use serde_json::json;
use tandem_ha::store::incident_uuid;

use super::cloud::{self, Cloud, sentence};

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
