//! BMCs that are dead, slow, lying, or another machine's.

use std::time::Duration;

use reqwest::Method;
use system_tests::bmc::Says;
use system_tests::http::Fault;
use tokio::time::sleep;
use uuid::Uuid;

use crate::story::{DOOMED, NETWORKS, Story};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_bmc_holds_the_incident_and_says_so() {
    let story = Story::begun().await;
    for method in [Method::GET, Method::POST] {
        story.bmc().http.fail(method, "", usize::MAX, Fault::NeverAnswers);
    }
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says("held by fence: the BMC at").await;
    story.says("if cmp1 is certainly off: tandem fence cmp1 --manual --reason ...").await;
    assert!(story.log().contains("did not answer what the power is within 1 s"), "the hold says why");
    story.nothing_moved();
    story.bmc().http.heal();
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_bmc_is_waited_for() {
    let story = Story::begun().await;
    for method in [Method::GET, Method::POST] {
        story.bmc().http.fail(method, "", usize::MAX, Fault::Slow(Duration::from_millis(600)));
    }
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.is_recovered_by_one_try().await;
    assert!(!story.machine(DOOMED).is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_obeys_and_does_nothing_proves_nothing() {
    let story = Story::begun().await;
    story.bmc().says(Says::AlwaysOn);
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says("held by fence: its BMC did not switch it off: its power is still on").await;
    assert_eq!(story.evacuations(), 0);
    assert_eq!(story.fake.http.seen(&Method::PUT, "/os-services").len(), 0);
    story.nothing_forbidden();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_that_says_off_while_its_host_is_heard_is_not_believed() {
    let story = Story::begun().await;
    story.bmc().says(Says::AlwaysOff);
    story.machine(DOOMED).cut_off(&["mgmt"]); // something to look closely for
    story.says("held by BMC contradicts: its BMC says Off, but it is heard on storage").await;
    story.nothing_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_of_another_machine_is_never_told_to_switch_off() {
    let mut story = Story::prepared().await;
    story.bmc().names(Some(Uuid::new_v4()));
    story.start();
    story.others_are_bound_and_all_are_heard().await;
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says("held by fence: its BMC controls another machine (System UUID").await;
    sleep(Duration::from_secs(1)).await; // more than a fence would take now
    story.nothing_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_whose_address_another_machine_takes_over_loses_its_bond() {
    let story = Story::begun().await;
    // The BMC of a machine that is off, at the address of ours: it must not pass for ours.
    story.bmc().names(Some(Uuid::new_v4()));
    story.bmc().says(Says::AlwaysOff);
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says("its BMC controls another machine").await;
    story.says("held by fence").await;
    story.nothing_done();
    assert!(story.machine(DOOMED).is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_switched_on_amid_the_evacuation_is_switched_off_again() {
    let mut story = Story::prepared().await;
    story.reconfigure("in_flight = 4", "in_flight = 1");
    story.start();
    story.sees_all_well().await;
    story.dies();
    story.until("an evacuation is sent", || story.evacuations() > 0).await;
    // By hand, at the machine: its kernel never comes so far as to be heard.
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.fake.facts().hosts[0].runs = false; // its guests do not start by themselves: resume_guests_state_on_host_boot
    story.machine(DOOMED).power_on();
    story.says("the fence is void: its power is on again").await;
    story.is_recovered().await;
    assert!(story.bmc().power_offs() >= 1);
    assert!(!story.machine(DOOMED).is_on());
}
