//! Disks that fail, fill up, forget, or come back as another one.

use replication::Durability::Flush;

use crate::sim::bend::Bend;
use crate::sim::misfortune::{What, Who};
use crate::sim::story::{kept, kept_but_for, nodes};
use crate::sim::world::Plan;

#[test]
fn a_flush_that_failed_once_is_not_tried_again() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::FailedFlushTriedAgain, "", &plan, |it| {
        (0..6).for_each(|block| it.writes(0, block));
        it.befalls(What::FlushError { who: Who::Node(1) });
        it.flushes(0);
        it.runs(500);
        it.kills(0);
        it.runs(1_500);
        it.starts(0);
    });
}

#[test]
fn a_write_that_failed_is_not_answered_for() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::FailedWriteOverlooked, "", &plan, |it| {
        for block in 0..6 {
            it.befalls(What::WriteError { who: Who::Node(1) });
            it.writes(0, block);
            it.runs(50);
            if !it.is_in_sync(1) {
                it.kills(1);
                it.starts(1);
                it.until("node 1 is UpToDate");
            }
        }
    });
}

#[test]
fn a_primary_whose_disk_fails_is_followed_at_once() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::WriteError { who: Who::Node(0) });
        let write = it.begins_write(0, 2);
        it.until("Failed");
        it.until("Primary; ");
        assert!(it.is_answered(write));
        it.reads(1, 1);
    });
}

#[test]
fn an_activity_log_that_cannot_be_written_admits_no_write() {
    kept(&nodes(2, Flush), |it| {
        it.befalls(What::MetadataError { who: Who::Node(0) });
        let write = it.begins_write(0, 1);
        it.until("Failed");
        it.waits_for(write);
        assert_eq!(it.world.judge.acknowledged, 0);
        it.until("Primary; ");
        it.writes(1, 1);
    });
}

#[test]
fn after_a_crash_what_the_activity_log_names_is_made_equal() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::ActivityLogNotKept, "which is UpToDate", &plan, |it| {
        it.writes(0, 1);
        it.cuts(0, 1, 9_000);
        it.begins_write(0, 2);
        it.runs(20);
        // Only its own disk has it.
        it.kills(0);
        it.until("Primary; ");
        it.writes(1, 3);
        it.starts(0);
        it.world.heal_network();
        it.until("node 0 is UpToDate");
    });
}

#[test]
fn blocks_that_cannot_be_read_come_from_a_peer_and_are_written_anew() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::ReadErrorTakenForZeroes, "reads 0 from", &plan, |it| {
        it.writes(0, 1);
        it.befalls(What::ReadError { who: Who::Node(0), block: 1 });
        it.reads(0, 1);
        it.until("were fetched from a peer");
        it.kills(1);
        it.until("dropped node 1");
        it.reads(0, 1);
        it.starts(1);
    });
}

#[test]
fn a_part_of_a_block_leaves_the_rest_of_it() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        let part = it.begins_part(0, 1);
        it.waits_for(part);
        it.reads(0, 1);
        it.kills(0);
        it.until("Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn zeroes_are_zeroes_on_every_replica() {
    kept(&nodes(3, Flush), |it| {
        (0..4).for_each(|block| it.writes(0, block));
        let zeroes = it.begins_zeroing(0, 1, 2);
        it.waits_for(zeroes);
        it.reads(0, 1);
        it.kills(0);
        it.until("Primary; ");
        let primary = it.primary().expect("somebody serves");
        (0..4).for_each(|block| it.reads(primary, block));
        it.starts(0);
    });
}

#[test]
fn writes_wait_while_the_pool_is_full() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::FullDiskTakenForWritten, "is answered, and node", &plan, |it| {
        it.writes(0, 1);
        it.befalls(What::Full { who: Who::Node(1), length: 700 });
        let write = it.begins_write(0, 1);
        it.runs(400);
        it.still_waits(write);
        it.waits_for(write);
    });
}

#[test]
fn a_primary_whose_pool_is_full_hands_over() {
    kept(&nodes(2, Flush), |it| {
        it.befalls(What::Full { who: Who::Node(0), length: 900 });
        it.begins_write(0, 1);
        it.until("handing over to node 1");
        it.until("Primary; ");
        it.writes(1, 2);
    });
}

#[test]
fn an_exchanged_disk_is_a_stranger() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::OldDiskIdTrusted, "", &plan, |it| {
        it.writes(0, 1);
        it.befalls(What::Exchanged { who: Who::Node(1), down: 20 });
        it.until("resync of node 1: 6 blocks, all");
        it.until("node 1 is UpToDate");
        it.kills(0);
        it.until("Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn a_disk_that_was_rolled_back_gets_everything() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept_but_for(Bend::RolledBackDiskTrusted, "", &plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(200);
        it.befalls(What::RolledBack { who: Who::Node(1), down: 20 });
        it.until("resync of node 1: 6 blocks, all");
        it.until("node 1 is UpToDate");
        it.kills(0);
        it.until("Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

/// Its peer is there, but has promised itself to a promotion of its own that the arbiter has not settled.
#[test]
fn a_primary_that_was_rolled_back_hears_it_from_a_candidate() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(200);
        it.befalls(What::ArbiterAwayFrom { who: Who::Node(1), length: 1_500 });
        it.befalls(What::RolledBack { who: Who::Node(0), down: 600 });
        it.until("node 1: promoting: ");
        it.until("the disk of node 0 was rolled back");
        it.until("node 1: Primary; ");
        it.reads(1, 1);
        it.until("resync of node 0: 6 blocks, all");
    });
}

/// It has asked the arbiter already when its peer comes and tells it.
#[test]
fn a_promotion_from_a_disk_that_was_rolled_back_is_not_made_use_of() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(200);
        it.stands_still(1, 900);
        it.befalls(What::RolledBack { who: Who::Node(0), down: 20 });
        it.befalls(What::ArbiterAwayFrom { who: Who::Node(1), length: 3_000 });
        it.runs(300);
        it.befalls(What::ArbiterAwayFrom { who: Who::Node(0), length: 900 });
        it.until("node 0: promoting: ");
        it.until("the disk of node 0 was rolled back");
        it.until("node 1: Primary; ");
        it.reads(1, 1);
    });
}

/// The only disk in sync was rolled back, and nobody can tell. What the other one has was written after the copy was made: its marks fit another history.
#[test]
fn a_peer_of_another_history_gets_everything() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(200);
        it.kills(1);
        it.until("dropped node 1");
        it.cuts_power(0);
        let copy = it.world.copies[0].clone();
        it.world.exchange_disk(0, copy);
        it.starts(0);
        it.until("Primary; ");
        for _ in 0..4 {
            it.writes(0, 2);
            it.until("barrier ");
        }
        it.starts(1);
        it.until("resync of node 1: 6 blocks, all, since it has lived through another history than this disk");
    });
}

/// It was the only one that knew, and had not written it down.
#[test]
fn what_all_have_confirmed_is_known_after_a_restart() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(50);
        it.kills(0);
        it.starts(0);
        it.cuts_power(1);
        let copy = it.world.copies[1].clone();
        it.world.exchange_disk(1, copy);
        it.starts(1);
        it.until("the disk of node 1 was rolled back");
        it.until("Primary; ");
        it.reads(0, 1);
    });
}

/// It had got some of what it was owed, and stored a barrier over it, and the bits were cleared.
#[test]
fn a_target_that_is_rolled_back_during_its_resync_gets_everything() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.kills(1);
        it.until("dropped node 1");
        (0..6).for_each(|block| it.writes(0, block));
        it.runs(200);
        let copy = it.world.nodes[1].disk.clone();
        it.world.nodes[0].disk.unreadable = 1 << 5; // so it does not end
        it.starts(1);
        it.until("resync of node 1: 6 blocks, what it missed");
        it.until("barrier");
        it.runs(50);
        it.cuts_power(1);
        it.world.exchange_disk(1, copy);
        it.starts(1);
        it.until("resync of node 1: 6 blocks, all, since its disk was rolled back");
        it.world.nodes[0].disk.unreadable = 0;
    });
}

/// All were held, and learn the record at the same moment: those that know get to say so before anybody stands.
#[test]
fn a_disk_that_was_rolled_back_while_all_were_held_is_told_so_in_time() {
    let plan = Plan { barrier_every_ms: 100, ..nodes(2, Flush) };
    kept(&plan, |it| {
        it.writes(0, 1);
        it.until("barrier 2 stored");
        it.runs(200);
        it.befalls(What::ArbiterAway { length: 2_000 });
        it.kills(1);
        it.starts(1);
        it.cuts_power(0);
        let copy = it.world.copies[0].clone();
        it.world.exchange_disk(0, copy);
        it.starts(0);
        it.until("the disk of node 0 was rolled back");
        it.until("node 1: Primary; ");
        it.reads(1, 1);
    });
}

/// Neither its data nor that it failed could be written, the first time.
#[test]
fn a_disk_that_failed_does_not_look_good_after_a_restart() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::FlushError { who: Who::Node(1) });
        it.befalls(What::MetadataError { who: Who::Node(1) });
        it.begins_flush(0);
        it.until("node 1: Failed");
        it.runs(300);
        it.kills(1);
        it.starts(1);
        it.until("resync of node 1: 6 blocks, all");
    });
}

/// No client reads the block, only the resync of the third node does.
#[test]
fn a_block_that_a_resync_cannot_read_is_fetched_from_a_peer() {
    kept(&nodes(3, Flush), |it| {
        it.kills(2);
        it.until("dropped node 2");
        (0..6).for_each(|block| it.writes(0, block));
        it.world.nodes[0].disk.unreadable = 1 << 3;
        it.starts(2);
        it.until("written anew");
        it.until("node 2 is UpToDate");
    });
}

#[test]
fn a_volume_is_not_promoted_from_a_disk_that_lacks_writes() {
    kept(&nodes(2, Flush), |it| {
        it.kills(1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.kills(0);
        it.starts(1);
        it.runs(100);
        it.ordered(1, replication::Order::Promote);
        it.until("the order is refused: NotInSync");
        it.runs(2_000);
        assert_eq!(it.primary(), Some(0));
        it.starts(0);
    });
}
