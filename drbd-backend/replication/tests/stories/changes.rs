//! Changes of the record whose outcome is late, lost, or not the one that was hoped for.

use replication::Durability::Flush;
use replication::Order;

use crate::sim::bend::Bend;
use crate::sim::misfortune::{What, Who};
use crate::sim::story::{kept, kept_but_for, nodes};

/// A drop is on its way and its answer never comes; the peer is back meanwhile.
#[test]
fn a_late_drop_finds_no_write_that_only_the_dropped_one_has() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::UnknownTakenForDone, "is answered, and node", &plan, |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterLate { length: 2_500 });
        it.cuts(0, 1, 400);
        it.resets(0, 1);
        it.until("frozen: node 1 missing");
        it.runs(200);
        let write = it.begins_write(0, 1);
        it.runs(600);
        it.still_waits(write);
        it.waits_for(write);
        it.runs(2_000);
        it.writes(0, 2);
    });
}

/// A Secondary's promotion is on its way; its process is started anew, and serves the old Primary again.
#[test]
fn a_late_promotion_finds_nobody_who_answers_the_old_generation() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterLate { length: 900 });
        it.cuts(0, 1, 900);
        it.until("node 1: promoting");
        it.runs(30);
        it.kills(1);
        it.starts(1);
        it.runs(100);
        let write = it.begins_write(0, 1);
        it.runs(3_000);
        assert!(it.is_answered(write));
    });
}

#[test]
fn the_promise_of_a_promotion_is_kept_across_a_restart() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        // The Primary stands still for long enough; the arbiter is late for the one who wants to follow it.
        it.befalls(What::ArbiterLate { length: 700 });
        it.stands_still(0, 520);
        it.until("node 1: promoting");
        it.runs(30);
        it.kills(1);
        it.starts(1);
        it.until("node 1: the arbiter says: generation 2");
        for _ in 0..120 {
            if it.serves(0) && it.world.open.is_empty() {
                it.begins_write(0, 1);
            }
            it.runs(20);
        }
    });
}

#[test]
fn a_target_whose_addition_is_not_settled_is_counted() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::AddedWithoutBeingCounted, "", &plan, |it| {
        it.kills(1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.starts(1);
        it.until("resync of node 1");
        // The addition is done; nobody hears of it, and the target is cut off.
        it.befalls(What::ArbiterLosesAnswers { length: 4_000 });
        it.until("arbiter: generation 4");
        it.cuts(0, 1, 9_000);
        let write = it.begins_write(0, 2);
        it.runs(300);
        it.kills(0);
        it.until("node 1: promoted");
        it.until("Primary; ");
        assert!(it.is_answered(write));
        it.reads(1, 2);
        it.starts(0);
    });
}

#[test]
fn the_end_of_a_resync_is_not_missed_on_one_side() {
    kept(&nodes(2, Flush), |it| {
        it.kills(1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.starts(1);
        it.until("arbiter: generation 4");
        it.resets(0, 1);
        it.writes(0, 1);
        it.kills(0);
        it.until("Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn a_disconnect_is_not_taken_for_an_outdated_peer() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterAway { length: 1_500 });
        it.cuts(0, 1, 9_000);
        it.resets(0, 1);
        let write = it.begins_write(0, 1);
        it.runs(1_200);
        it.still_waits(write);
        it.until("arbiter: generation 3");
        it.waits_for(write);
    });
}

#[test]
fn a_process_that_starts_while_another_is_promoted_learns_who_won() {
    kept(&nodes(3, Flush), |it| {
        it.writes(0, 1);
        it.kills(0);
        it.until("promoting");
        it.starts(0);
        it.until("Primary; ");
        let primary = it.primary().expect("somebody won");
        assert_ne!(primary, 0);
        it.writes(primary, 1);
    });
}

#[test]
fn a_replica_answers_nothing_before_the_arbiter_has_spoken() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterAwayFrom { who: Who::Node(1), length: 1_500 });
        it.kills(1);
        it.starts(1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.kills(0);
        it.runs(3_000);
        assert_eq!(it.primary(), Some(0));
        it.starts(0);
    });
}

#[test]
fn an_arbiter_restored_from_yesterday_is_not_believed() {
    kept(&nodes(2, Flush), |it| {
        it.kills(1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.befalls(What::ArbiterRestored { back: 1, is_known: true });
        it.kills(0);
        it.starts(1);
        it.starts(0);
        it.until("held: the arbiter");
        it.runs(2_000);
        assert!(!it.serves(0) && !it.serves(1), "not before an operator has looked");
    });
}

#[test]
fn a_wiped_arbiter_holds_what_is_started_anew() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterWiped);
        it.writes(0, 2);
        it.kills(1);
        it.starts(1);
        it.until("held: the arbiter has no record");
    });
}

#[test]
fn a_role_is_handed_over_without_two_who_serve() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::HandsOverWhileServing, "", &plan, |it| {
        it.writes(0, 1);
        it.runs(60);
        it.cuts_one_way(1, 0, 700);
        it.ordered(0, Order::HandOver(it.world.place(1)));
        it.serves_here_while_there_is_written(1, 0);
    });
}

/// Two documents of one version: the first was never answered, the second was, and both nodes must have it.
#[test]
fn a_document_that_was_never_answered_is_not_taken_for_the_one_that_was() {
    kept(&nodes(2, Flush), |it| {
        it.cuts(0, 1, 2_000);
        it.world.clients[5].attachment = Some(50);
        it.world.attach(5, 0, 50);
        it.until("node 1: Primary; ");
        it.until("node 0 is UpToDate");
        it.runs(20);
        it.attaches(6, 1);
        it.kills(1);
        it.until("node 0: Primary; ");
        let before = it.world.judge.acknowledged;
        let write = it.begins_write_of(6, 0, 1);
        it.waits_for(write);
        assert!(it.world.judge.acknowledged > before);
        it.starts(1);
    });
}

/// The Primary has dropped a peer and dies before it says so; this one hears it from the arbiter while it writes its last things.
#[test]
fn nothing_is_written_after_what_is_written_last() {
    for wait in 390..410 {
        kept(&nodes(3, Flush), |it| {
            it.writes(0, 1);
            it.kills(2);
            it.until("arbiter: generation 3");
            it.kills(0);
            it.runs(wait);
            it.befalls(What::SlowDisk { who: Who::Node(1), length: 400, times: 100 });
            it.ordered(1, Order::ShutDown);
            it.until("exits");
            it.starts(1);
            it.starts(0);
            it.starts(2);
        });
    }
}
