//! Keystone and Nova fail in every way that they can, before and in the midst of an outage.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use system_tests::http::Fault;

use crate::story::{DOOMED, Story};

fn every_fault() -> Vec<Fault> {
    vec![
        Fault::status(500),
        Fault::retry_after(503, 1),
        Fault::status(401),
        Fault::Truncated,
        Fault::WrongJson,
        Fault::Reset,
        Fault::ClosesBeforeAnswer,
        Fault::Lost,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_is_broken_when_a_host_dies_holds_the_incident_until_it_is_well() {
    join_all(every_fault().into_iter().map(broken_before)).await;
}

async fn broken_before(fault: Fault) {
    let story = Story::begun().await;
    story.breaks(&fault);
    story.dies();
    story.says("held by we can see: Nova does not answer us").await;
    assert_eq!(story.evacuations(), 0, "{fault:?}");
    story.fake.http.heal();
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_breaks_amid_an_evacuation_is_waited_for_and_nothing_is_sent_twice() {
    join_all(every_fault().into_iter().map(broken_amid)).await;
}

/// Two of four evacuations are sent, and then nothing is answered any more.
async fn broken_amid(fault: Fault) {
    let mut story = Story::prepared().await;
    story.reconfigure("in_flight = 4", "in_flight = 2");
    story.fake.facts().evacuation_step = Some(Duration::from_secs(4));
    story.start();
    story.sees_all_well().await;
    story.dies();
    story.until("Nova has taken two", || story.fake.facts().migrations.len() == 2).await;
    story.breaks(&fault);
    story.fake.facts().evacuation_step = Some(Duration::from_millis(150)); // of those to come
    story.is_blind().await;
    story.fake.http.heal();
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_delay_an_evacuation_and_no_more() {
    let story = Story::begun().await;
    for (method, part, fault) in [
        (Method::GET, "/servers/detail", Fault::status(500)),
        (Method::GET, "/servers/detail", Fault::WrongJson),
        (Method::GET, "/os-migrations", Fault::Slow(Duration::from_secs(1))),
        (Method::GET, "/os-migrations", Fault::Truncated),
        (Method::GET, "/os-server-groups", Fault::retry_after(503, 1)),
        (Method::PUT, "/os-services", Fault::status(500)),
        (Method::PUT, "/os-services", Fault::ClosesBeforeAnswer),
    ] {
        story.fake.http.fail(method, part, 1, fault);
    }
    story.dies();
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_or_is_revoked_is_replaced() {
    let story = Story::begun().await;
    story.fake.facts().tokens.clear();
    story.dies();
    story.until("it is forced down", || story.fake.facts().hosts[0].forced_down).await;
    story.fake.facts().tokens.clear();
    story.is_recovered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_nothing_is_begun() {
    let mut story = Story::prepared().await;
    story.write_clouds("wrong");
    story.start();
    story.says("Nova does not answer: nothing is begun until it does").await;
    let log = story.log();
    let line = log.lines().find(|line| line.contains("Nova does not answer")).expect("it is there");
    assert!(line.contains("admin") && line.contains("clouds.yaml"), "{line}");
    assert!(!log.contains("wrong\""), "the password is told: {log}");
    story.nothing_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn keystone_that_comes_late_is_waited_for() {
    let mut story = Story::prepared().await;
    story.fake.http.fail(Method::POST, "/auth/tokens", usize::MAX, Fault::status(503));
    story.start();
    story.says("Nova does not answer: nothing is begun until it does").await;
    story.fake.http.heal();
    story.sees_all_well().await;
    story.dies();
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evacuation_whose_answer_is_lost_is_not_sent_again_while_it_runs() {
    join_all([Fault::ClosesBeforeAnswer, Fault::Reset, Fault::Truncated, Fault::NeverAnswers].map(async |fault| {
        let story = Story::begun().await;
        let first = story.instances[0];
        story.fake.http.fail(Method::POST, &format!("/servers/{first}/action"), 1, fault);
        story.dies();
        story.is_recovered_by_one_try().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evacuation_that_was_lost_on_its_way_is_sent_again_after_a_long_look() {
    let mut story = Story::prepared().await;
    story.start_hasty(5);
    story.sees_all_well().await;
    let first = story.instances[0];
    story.fake.http.fail(Method::POST, &format!("/servers/{first}/action"), 1, Fault::Lost);
    story.dies();
    story.is_recovered().await;
    let sent = story.fake.http.seen(&Method::POST, &format!("/servers/{first}/action"));
    assert_eq!(sent.len(), 2);
    assert!(sent[1].at - sent[0].at > Duration::from_secs(5), "{:?}", sent[1].at - sent[0].at);
    assert!(story.log().contains("nothing shows of the evacuation that was asked for"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nova_that_has_no_host_for_an_instance_names_it_and_forgets_none() {
    let mut story = Story::prepared().await;
    story.reconfigure("in_flight = 4", "in_flight = 4, attempts = 1");
    for host in &mut story.fake.facts().hosts {
        host.disabled_reason = (host.name != DOOMED).then(|| "full".to_owned());
    }
    story.fake.facts().hosts[2].disabled_reason = None;
    story.start();
    story.sees_all_well().await;
    story.dies();
    story.until("one is on its way", || story.evacuations() > 0).await;
    story.fake.facts().hosts[2].disabled_reason = Some("full, too".to_owned());
    story.says("instances moved").await;
    let named = story.count("left where it is: 1 attempts failed, the last one: Nova found no host for it");
    let moved = 4 - story.fake.facts().on_host(DOOMED);
    assert_eq!(named + moved, 4, "each is moved or named");
    story.nothing_forbidden();
}
