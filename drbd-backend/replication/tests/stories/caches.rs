//! What a cache held when the power went: suspects, flushes, total outages.

use replication::Durability::{Flush, Write};

use crate::sim::bend::Bend;
use crate::sim::misfortune::{What, Who};
use crate::sim::story::{Scene, kept, kept_but_for, nodes};

/// It was back before it was missed, and the Primary dies: nothing that it lost may be served.
fn a_peer_loses_its_cache_and_is_back_before_it_is_missed(it: &mut Scene) {
    it.writes(0, 1);
    it.cuts_power_and_all_of_the_cache(1);
    it.starts(1);
    it.runs(15);
    it.kills(0);
    it.runs(1_500);
    assert!(it.primary() == Some(0) || it.world.judge.is_lost(), "a suspect is not promoted alone");
    it.starts(0);
    it.until("is UpToDate");
    it.reads(0, 1);
}

#[test]
fn a_suspect_is_not_promoted() {
    let plan = nodes(2, Flush);
    kept_but_for(
        Bend::SuspicionOverlooked,
        "goes on with",
        &plan,
        a_peer_loses_its_cache_and_is_back_before_it_is_missed,
    );
}

#[test]
fn the_suspect_mark_outlives_a_second_restart() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::SuspectClearedByRestart, "goes on with", &plan, |it| {
        it.writes(0, 1);
        it.cuts_power_and_all_of_the_cache(1);
        it.starts(1);
        it.runs(15);
        it.kills(1);
        it.kills(0);
        it.starts(1);
        it.runs(1_500);
        it.starts(0);
    });
}

#[test]
fn a_flush_is_not_answered_over_a_peers_lost_cache() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.cuts_power_and_all_of_the_cache(1);
        it.starts(1);
        it.until("node 1 was started anew");
        it.befalls(What::SlowDisk { who: Who::Node(1), length: 300, times: 300 });
        it.flushes(0);
        assert!(!it.is_in_sync(1), "it was dropped first");
        it.cuts_power_and_all_of_the_cache(0);
        it.runs(800);
        it.starts(0);
        it.until("Primary; ");
        it.reads(0, 1);
    });
}

#[test]
fn what_a_flush_covered_survives_the_power_loss_of_all() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::FlushThatIsNone, "would come back with", &plan, |it| {
        it.writes(0, 1);
        it.flushes(0);
        it.writes(0, 2);
        [0, 1].into_iter().for_each(|node| it.cuts_power_and_all_of_the_cache(node));
        [0, 1].into_iter().for_each(|node| it.starts(node));
        it.until("all in-sync disks lost power together");
        it.until("Primary; ");
        it.reads(0, 1);
        it.reads(0, 2);
    });
}

#[test]
fn a_flush_reaches_every_disk() {
    let plan = nodes(3, Flush);
    kept_but_for(Bend::FlushOfOneDiskOnly, "would come back with", &plan, |it| {
        it.writes(0, 1);
        it.flushes(0);
        it.kills(0);
        [1, 2].into_iter().for_each(|node| it.cuts_power_and_all_of_the_cache(node));
        [0, 1, 2].into_iter().for_each(|node| it.starts(node));
        it.until("Primary; ");
    });
}

#[test]
fn with_durability_write_nothing_is_lost_with_the_power_of_all() {
    kept(&nodes(2, Write), |it| {
        it.writes(0, 1);
        it.writes(0, 2);
        [0, 1].into_iter().for_each(|node| it.cuts_power_and_all_of_the_cache(node));
        [0, 1].into_iter().for_each(|node| it.starts(node));
        it.until("Primary; ");
        it.reads(0, 1);
        it.reads(0, 2);
    });
}

#[test]
fn after_a_total_outage_one_that_kept_its_memory_is_promoted() {
    kept(&nodes(3, Flush), |it| {
        it.writes(0, 1);
        it.kills(2);
        [0, 1].into_iter().for_each(|node| it.cuts_power_and_all_of_the_cache(node));
        [0, 1, 2].into_iter().for_each(|node| it.starts(node));
        it.until("Primary; ");
        assert_eq!(it.primary(), Some(2));
        it.reads(2, 1);
    });
}

#[test]
fn a_total_outage_waits_for_all_who_were_in_sync() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.flushes(0);
        [0, 1].into_iter().for_each(|node| it.cuts_power(node));
        it.starts(0);
        it.runs(3_000);
        assert!(!it.serves(0), "the other one may know more");
        it.starts(1);
        it.until("all in-sync disks lost power together");
    });
}

#[test]
fn the_proposer_of_a_drop_has_flushed_before_it_loses_power() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::FlushThatIsNone, "goes on with", &plan, |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterLate { length: 2_000 });
        it.cuts(0, 1, 9_000);
        it.resets(0, 1);
        it.runs(250);
        // The proposal is on its way.
        it.cuts_power_and_all_of_the_cache(0);
        it.runs(2_000);
        it.starts(0);
    });
}
