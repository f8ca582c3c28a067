//! tandem-ha is killed, asked to end, put to sleep.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use system_tests::http::Fault;
use tokio::time::sleep;

use crate::story::{DOOMED, NETWORKS, Story};
use crate::timeline;

/// What the log says when the incident has just come so far.
const POINTS: &[&str] = &[
    "suspected: ",
    "confirmed: ",
    "fencing: ",
    "switch the power of cmp1 off by Redfish",
    "fenced: the BMC of cmp1 says Off",
    "force the compute service of cmp1 down",
    "forced down: ",
    "disable the compute service of cmp1",
    "evacuating: ",
    "evacuate; fenced: cmp1",
    "its migration is ",
    " moved",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_before_the_end_it_finishes_when_started_again_and_does_nothing_twice() {
    join_all(POINTS.iter().map(|point| killed_at(point))).await;
}

/// In haste: a POST that was recorded and never sent is repeated only after a long look.
async fn killed_at(point: &str) {
    let mut story = Story::prepared().await;
    story.start_hasty(4);
    story.sees_all_well().await;
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says(point).await;
    story.kill();
    story.start_hasty(4);
    story.is_recovered_by_one_try().await;
    let incident = story.incident().await;
    let told = timeline(&incident);
    assert!(told.iter().any(|line| line.starts_with("tandem-ha has started; ")), "{point}: {told:#?}");
    assert!(told.iter().any(|line| line.starts_with("recovered: 4 of 4")), "{point}: {told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_the_hosts_return_it_takes_it_back_when_started_again() {
    let points = [
        "recovered: ",
        "host returned: ",
        "lift forced_down of cmp1",
        "reintegrating: ",
        "enable the compute service of cmp1",
    ];
    join_all(points.map(async |point| {
        let mut story = Story::begun().await;
        story.dies();
        story.says("recovered: ").await;
        if point != "recovered: " {
            story.comes_back().await;
            story.says(point).await;
        }
        story.kill();
        story.starts_again().await;
        story.takes_it_back().await;
        assert_eq!(story.evacuations(), 4, "{point}");
        story.nothing_forbidden();
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_host_that_has_rebooted_gets_its_guests_back_it_goes_on_and_fences_nothing() {
    join_all([false, true].map(async |asked| {
        let mut story = Story::begun().await;
        sleep(Duration::from_secs(1)).await; // for as long as it must have watched to have seen a boot happen
        story.machine(DOOMED).reboots().await;
        story.says("restarting guests: ").await;
        if asked {
            story.all_restarts_are_accepted().await;
        }
        story.kill();
        story.starts_again().await;
        story.comes_to("closed").await;
        assert_eq!(story.incident().await["outcome"], "rebooted", "{asked}");
        for instance in &story.instances {
            assert_eq!(story.evacuations_of(*instance), 1, "{asked}: how often {instance} was started");
        }
        assert!(story.fake.facts().migrations.is_empty(), "{asked}");
        assert_eq!(story.bmc().power_offs(), 0, "{asked}");
        story.nothing_forbidden();
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_nova_has_the_evacuation_and_has_not_answered_it_is_not_sent_again() {
    let mut story = Story::begun().await;
    story.fake.http.fail(Method::POST, "/action", usize::MAX, Fault::NeverAnswers);
    story.dies();
    story.until("all evacuations are sent", || story.evacuations() == 4).await;
    story.kill();
    story.fake.http.heal();
    story.starts_again().await;
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_evacuation_reached_nova_it_is_sent_again_after_a_long_look() {
    let mut story = Story::prepared().await;
    story.start_hasty(4);
    story.sees_all_well().await;
    story.fake.http.fail(Method::POST, "/action", usize::MAX, Fault::Lost);
    story.dies();
    story.until("all evacuations are sent", || story.evacuations() == 4).await;
    story.kill();
    story.fake.http.heal();
    story.start_hasty(4);
    story.is_recovered().await;
    assert_eq!(story.evacuations(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_it_ends_within_seconds_and_the_next_one_finishes() {
    join_all(["fencing: ", "evacuate; fenced: cmp1"].map(async |point| {
        let mut story = Story::begun().await;
        story.dies();
        story.says(point).await;
        let took = story.stop().await;
        assert!(took < Duration::from_secs(7), "{point}: it took {took:?}");
        story.starts_again().await;
        story.is_recovered_by_one_try().await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_end_while_nothing_answers_it_ends_within_seconds() {
    let mut story = Story::begun().await;
    story.dies();
    story.fake.http.fail(Method::POST, "/action", usize::MAX, Fault::NeverAnswers);
    story.until("an evacuation is sent", || story.evacuations() > 0).await;
    story.breaks(&Fault::NeverAnswers);
    let took = story.stop().await;
    assert!(took < Duration::from_secs(8), "it took {took:?}");
    story.fake.http.heal();
    story.starts_again().await;
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_slept_fences_nobody_when_it_wakes() {
    let story = Story::begun().await;
    story.signal(Signal::STOP);
    sleep(Duration::from_secs(5)).await; // longer than silence_s
    story.signal(Signal::CONT);
    story.says("our watch was broken: silence counts from now").await;
    sleep(Duration::from_secs(2)).await; // in which it could have been switched off
    assert_eq!(story.count("confirmed"), 0);
    story.nothing_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_slept_through_a_death_sees_it_when_it_wakes() {
    let story = Story::begun().await;
    story.signal(Signal::STOP);
    story.machine(DOOMED).cut_off(&NETWORKS);
    sleep(Duration::from_secs(5)).await;
    story.signal(Signal::CONT);
    story.is_recovered_by_one_try().await;
}
