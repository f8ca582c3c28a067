//! Who was away comes back, and ends up equal.

use replication::Durability::Flush;
use replication::Order;

use crate::sim::bend::Bend;
use crate::sim::misfortune::{What, Who};
use crate::sim::story::{kept, kept_but_for, nodes};

/// LINBIT/drbd#145: the survivor of a lost quorum comes back with a bitmap that is not empty.
#[test]
fn a_clean_rejoin_with_marks_on_both_sides_ends_equal() {
    kept(&nodes(3, Flush), |it| {
        it.writes(0, 1);
        it.kills(1);
        it.kills(2);
        it.until("dropped");
        it.writes(0, 2);
        it.ordered(0, Order::ShutDown);
        it.until("exits");
        it.starts(1);
        it.starts(2);
        it.runs(1_500);
        assert_eq!(it.world.judge.record.in_sync().len(), 1);
        it.starts(0);
        it.until("is UpToDate");
        it.until("is UpToDate");
        (1..3).for_each(|block| it.reads(0, block));
    });
}

/// LINBIT/drbd#40: a target that was cut off in the middle waits for its source for ever.
#[test]
fn the_target_of_a_resync_is_not_bound_to_its_source() {
    kept(&nodes(3, Flush), |it| {
        it.kills(2);
        it.until("dropped node 2");
        (0..6).for_each(|block| it.writes(0, block));
        it.starts(2);
        it.until("resync of node 2");
        it.kills(0);
        it.until("Primary; ");
        it.until("node 2 is UpToDate");
        it.starts(0);
    });
}

#[test]
fn the_survivor_of_a_lost_primary_is_not_promoted_stale() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.cuts(0, 1, 9_000);
        it.resets(0, 1);
        it.until("dropped node 1");
        it.writes(0, 1);
        it.kills(0);
        it.runs(3_000);
        assert_eq!(it.primary(), Some(0));
        it.starts(0);
    });
}

#[test]
fn a_third_replica_is_owed_the_same_by_the_next_primary() {
    kept(&nodes(3, Flush), |it| {
        it.kills(2);
        it.until("dropped node 2");
        it.writes(0, 1);
        // Everybody's process is started anew in between.
        it.ordered(1, Order::ShutDown);
        it.until("exits");
        it.until("dropped node 1");
        it.starts(1);
        it.until("node 1 is UpToDate");
        it.writes(0, 2);
        it.ordered(1, Order::ShutDown);
        it.until("exits");
        it.starts(1);
        it.until("node 1: the arbiter says");
        it.kills(0);
        it.runs(2_000);
        it.starts(0);
        it.starts(2);
        it.until("node 2 is UpToDate");
    });
}

#[test]
fn a_replica_that_left_under_the_former_primary_gets_what_it_missed() {
    kept(&nodes(3, Flush), |it| {
        it.kills(2);
        it.until("dropped node 2");
        (0..4).for_each(|block| it.writes(0, block));
        it.kills(0);
        it.until("Primary; ");
        it.starts(2);
        it.until("resync of node 2");
        it.until("node 2 is UpToDate");
        it.starts(0);
    });
}

#[test]
fn two_replicas_come_back_at_once_under_load() {
    kept(&nodes(3, Flush), |it| {
        it.kills(1);
        it.kills(2);
        it.until("dropped");
        (0..6).for_each(|block| it.writes(0, block));
        it.starts(1);
        it.starts(2);
        for block in (0..6).cycle().take(40) {
            it.writes(0, block);
        }
        it.runs(1_000);
        assert_eq!(it.world.judge.record.in_sync().len(), 3);
    });
}

#[test]
fn no_write_passes_the_resync_of_its_block() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::BitClearedWithoutData, "which is UpToDate", &plan, |it| {
        it.kills(1);
        it.until("dropped node 1");
        (0..6).for_each(|block| it.writes(0, block));
        it.starts(1);
        it.until("resync of node 1");
        for block in (0..6).cycle().take(12) {
            it.writes(0, block);
        }
        it.until("node 1 is UpToDate");
    });
}

#[test]
fn a_bit_is_cleared_only_once_the_target_has_flushed() {
    let plan = nodes(2, Flush);
    kept(&plan, |it| {
        it.kills(1);
        it.until("dropped node 1");
        (0..6).for_each(|block| it.writes(0, block));
        it.starts(1);
        it.until("node 1 is UpToDate");
        it.cuts_power_and_all_of_the_cache(1);
        it.starts(1);
        it.until("dropped node 1");
        it.until("node 1 is UpToDate");
    });
}

/// Nobody was told of the write; one of the two Secondaries has it.
#[test]
fn an_unacknowledged_write_on_one_of_two_is_on_both_or_none_after_the_takeover() {
    let plan = nodes(3, Flush);
    kept_but_for(Bend::TakeoverWithoutEqualising, "which is UpToDate", &plan, |it| {
        it.writes(0, 1);
        it.cuts_one_way(0, 2, 5_000);
        let write = it.begins_write(0, 1);
        it.runs(20);
        it.still_waits(write);
        it.kills(0);
        it.until("Primary; ");
        let primary = it.primary().expect("somebody serves");
        it.reads(primary, 1);
        it.starts(0);
    });
}

#[test]
fn a_slow_old_write_does_not_land_over_a_newer_one() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::SlowDisk { who: Who::Node(1), length: 900, times: 4_000 });
        it.begins_write(0, 1);
        it.runs(10);
        it.kills(0);
        it.until("Primary; ");
        it.writes(1, 1);
        it.runs(1_500);
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn nothing_of_an_old_connection_lands_after_the_addition() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::SlowDisk { who: Who::Node(1), length: 900, times: 4_000 });
        let write = it.begins_write(0, 1);
        it.runs(10);
        it.cuts(0, 1, 300);
        it.resets(0, 1);
        it.until("dropped node 1");
        it.waits_for(write);
        it.writes(0, 1);
        it.until("node 1 is UpToDate");
        it.runs(1_500);
    });
}

/// `drbdadm invalidate`: it is refused where nobody could be copied from, survives a restart, and what was thrown away serves nobody.
#[test]
fn an_invalidated_replica_is_dropped_and_gets_everything() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.orders_invalidation(0);
        it.until("the order is refused: NoSource");
        it.orders_invalidation(1);
        it.until("node 1: invalidated");
        it.until("node 1: the order is carried out");
        it.kills(1);
        it.until("dropped node 1");
        it.starts(1);
        it.until("resync of node 1: 6 blocks, all");
        it.until("node 1 is UpToDate");
        it.kills(0);
        it.runs(50);
        it.orders_invalidation(1);
        it.until("the order is refused: NoSource");
        it.until("node 1: Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn an_invalidated_replica_is_not_promoted_though_it_stands_in_sync() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::ArbiterAway { length: 300 });
        it.orders_invalidation(1);
        it.until("node 1: the order is carried out");
        it.kills(0);
        it.runs(2_000);
        assert!(it.is_in_sync(1) && !it.serves(1));
        it.starts(0);
        it.until("node 0: Primary; ");
        it.until("node 1 is UpToDate");
    });
}

/// The barrier that ends its resync is under way.
#[test]
fn an_invalidation_is_not_undone_by_the_end_of_a_resync() {
    for wait_us in 0..40 {
        kept(&nodes(2, Flush), |it| {
            it.kills(1);
            it.until("dropped node 1");
            it.writes(0, 1);
            it.starts(1);
            it.until("resync of node 1");
            it.passes(100 * wait_us);
            it.orders_invalidation(1);
            it.until("the order is ");
            it.until("node 1 is UpToDate");
        });
    }
}
