//! What tandem-ha promises on bad days, held against the daemon itself in a cloud where every fault can be had exactly.
//!
//! Stories that differ only in their fault are told at the same time, within one test.

mod database;
mod fences;
mod kills;
mod openstack;
mod orders;
mod story;

use serde_json::Value;
use story::{DOOMED, Story};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_bmc_says_off_is_evacuated_each_instance_once_and_taken_back() {
    let story = Story::begun().await;
    story.dies();
    story.is_recovered_by_one_try().await;
    story.takes_it_back().await;
    assert_eq!(story.bmc().power_offs(), 0, "it was off already");

    let incident = story.incident().await;
    assert_eq!((&incident["phase"], &incident["outcome"]), (&"closed".into(), &"recovered".into()));
    let told = timeline(&incident);
    let order = [
        "suspected: ",
        "fencing: ",
        "fenced: the BMC",
        "force the compute service of cmp1 down",
        "disable the compute service of cmp1",
        "evacuate; fenced: cmp1",
        "moved",
        "closed (recovered)",
    ];
    let mut from = 0;
    for words in order {
        let at = told[from..].iter().position(|line| line.contains(words));
        from += at.unwrap_or_else(|| panic!("{words:?} is missing after line {from} of {told:#?}"));
    }
    assert_eq!(incident["moves"].as_array().map(Vec::len), Some(4));
    for moving in incident["moves"].as_array().into_iter().flatten() {
        assert_eq!((&moving["state"], &moving["attempt"]), (&"moved".into(), &1.into()));
        assert!(moving["request_id"].as_str().is_some_and(|id| id.starts_with("req-")), "{moving}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_falls_silent_is_switched_off_before_anything_moves() {
    let story = Story::begun().await;
    story.machine(DOOMED).cut_off(&story::NETWORKS);
    story.is_recovered_by_one_try().await;
    assert_eq!(story.bmc().power_offs(), 1);
    assert!(!story.machine(DOOMED).is_on());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent_on_one_network_is_left_alone() {
    let story = Story::begun().await;
    story.machine(DOOMED).cut_off(&["mgmt"]); // and Nova says down, too
    tokio::time::sleep(std::time::Duration::from_secs(5)).await; // longer than silence_s
    assert_eq!(story.count("fencing"), 0);
    story.nothing_done();
}

/// The sentences of an incident's timeline.
fn timeline(incident: &Value) -> Vec<String> {
    let lines = incident["timeline"].as_array().cloned().unwrap_or_default();
    lines.iter().map(|line| line["text"].as_str().unwrap_or_default().to_owned()).collect()
}
