//! Leases, reads, fences: who may answer, and what.

use replication::Durability::Flush;
use replication::Nodes;

use crate::sim::bend::Bend;
use crate::sim::misfortune::{What, Who};
use crate::sim::story::{kept, kept_but_for, nodes};

/// The old Primary resumes with answers in its socket that it has not read.
#[test]
fn a_delayed_heartbeat_answer_renews_no_lease() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::LeaseFromArrival, "stands against it", &plan, |it| {
        it.writes(0, 1);
        // Answers are on their way back, and slow; they wait in the socket of a process that stands still.
        it.cuts_one_way(1, 0, 100);
        it.runs(95);
        it.stands_still(0, 900);
        it.runs(15);
        it.cuts_one_way(1, 0, 3_000);
        it.until("node 1: Primary; ");
        it.writes(1, 1);
        it.runs(300);
        it.serves_here_while_there_is_written(1, 0);
    });
}

#[test]
fn a_lease_has_run_out_before_anybody_else_is_promoted() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::LeaseLongerThanGrace, "stands against it", &plan, |it| {
        it.writes(0, 1);
        it.cuts(0, 1, 5_000);
        it.serves_here_while_there_is_written(1, 0);
    });
}

#[test]
fn a_process_that_stood_still_between_the_disk_and_the_answer_answers_nothing_old() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.befalls(What::SlowDisk { who: Who::Node(0), length: 200, times: 100 });
        let read = it.begins_read(0, 1);
        it.stands_still(0, 1_100);
        it.until("node 1: Primary; ");
        it.writes(1, 1);
        it.waits_for(read);
        it.runs(500);
    });
}

#[test]
fn a_peer_that_was_started_anew_has_not_forgotten_the_lease_it_gave() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::GraceForgotten, "stands against it", &plan, |it| {
        it.writes(0, 1);
        it.runs(85);
        it.cuts(0, 1, 5_000);
        it.kills(1);
        it.starts(1);
        it.serves_here_while_there_is_written(1, 0);
    });
}

#[test]
fn a_late_fence_is_not_taken_for_one_of_the_next_boot() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::LateFenceBelieved, "stands against it", &plan, |it| {
        it.writes(0, 1);
        let boot = replication::BootId(it.world.nodes[0].boot);
        it.cuts_power(0);
        it.until("node 1: Primary; ");
        it.starts(0);
        it.until("node 0 is UpToDate");
        it.ordered(1, replication::Order::HandOver(it.world.place(0)));
        it.until("node 0: Primary; ");
        it.runs(100);
        // The word of the fence comes now, and node 0 serves in its next boot.
        it.cuts(0, 1, 5_000);
        it.world.hear_of_fence(1, it.world.place(0), boot);
        it.serves_here_while_there_is_written(1, 0);
    });
}

#[test]
fn a_fence_spares_the_wait_for_a_lease() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.runs(500);
        let began = it.world.since_morning();
        it.world.fence(0);
        it.until("node 1: Primary; ");
        assert!(it.world.since_morning() - began < 300, "it took {} ms", it.world.since_morning() - began);
        it.reads(1, 1);
        it.starts(0);
    });
}

/// A read must not show what a peer lacks: that peer may be the next to serve.
#[test]
fn what_a_read_has_shown_is_on_every_replica() {
    kept(&nodes(2, Flush), |it| {
        it.writes(0, 1);
        it.cuts_one_way(0, 1, 5_000);
        let write = it.begins_write(0, 1);
        let read = it.begins_read(0, 1);
        it.runs(50);
        it.still_waits(write);
        it.still_waits(read);
        it.kills(0);
        it.until("Primary; ");
        it.reads(1, 1);
        it.starts(0);
    });
}

#[test]
fn a_write_is_answered_once_every_replica_has_it() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::AcknowledgesBeforeThePeer, "is answered, and node", &plan, |it| {
        it.cuts_one_way(0, 1, 300);
        let write = it.begins_write(0, 1);
        it.runs(50);
        it.still_waits(write);
        it.waits_for(write);
    });
}

#[test]
fn an_answer_from_memory_alone_is_none() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::AcknowledgesFromMemory, "is answered, and node", &plan, |it| {
        it.befalls(What::SlowDisk { who: Who::Node(1), length: 400, times: 20 });
        it.writes(0, 1);
    });
}

#[test]
fn a_revoke_waits_for_what_was_begun() {
    let plan = nodes(2, Flush);
    kept_but_for(Bend::RevokeAnsweredEarly, "whose attachment was revoked", &plan, |it| {
        it.attaches(5, 0);
        it.writes(0, 1); // its extent is hot: the next one begins at once
        it.cuts_one_way(0, 1, 200);
        let write = it.begins_write_of(5, 0, 1);
        it.world.revoke(5);
        it.runs(50);
        it.still_waits(write);
        assert!(
            it.world.judge.is_lost() || it.world.bend != Bend::None || !it.world.orders.is_empty(),
            "it waits, too"
        );
        it.waits_for(write);
        it.runs(20);
        it.begins_write_of(5, 0, 1);
        it.runs(20);
        assert!(it.world.orders.is_empty() && it.world.judge.refused_revoked == 1);
    });
}

/// The peer knows of the fence first, and renews no lease before the Primary has taken it in; a read of that very host waits for the lease.
#[test]
fn a_fenced_host_is_not_waited_for_by_its_own_fence() {
    kept(&nodes(2, Flush), |it| {
        it.attaches(5, 0);
        let number = it.world.clients[5].admitted.map_or(0, |(number, _)| number);
        it.world.host_fences = (1, vec![number]);
        it.world.hear_of_fences(1);
        it.until("frozen: node 1 missing");
        it.runs(300);
        let (read, write) = (it.begins_read_of(5, 0, 1), it.begins_write_of(5, 0, 2));
        it.runs(50);
        it.still_waits(read);
        it.world.hear_of_fences(0);
        it.waits_for(read);
        it.waits_for(write);
        it.writes(0, 3);
        assert!(it.is_in_sync(1));
    });
}

/// The document that gave it is lost with the node that had it, and the next one must not give the same number again.
#[test]
fn a_client_of_a_lost_document_is_not_taken_for_another_one() {
    kept(&nodes(2, Flush), |it| {
        it.kills(0);
        it.until("node 1: Primary; ");
        it.attaches(5, 1);
        it.kills(1);
        it.starts(0);
        it.runs(100);
        let destroyed = Nodes::NONE.with(it.world.place(1));
        it.world.force(0, destroyed);
        it.until("node 0: Primary; ");
        it.attaches(6, 0);
        it.begins_write_of(5, 0, 1);
        it.until("Revoked");
        it.starts(1);
    });
}

/// For whoever looks at the volume and sees it stand still.
#[test]
fn a_replica_says_what_it_waits_for() {
    kept(&nodes(3, Flush), |it| {
        it.writes(0, 1);
        assert_eq!((it.why(0), it.why(1)), (None, None));
        it.befalls(What::ArbiterAway { length: 1_000 });
        it.kills(0);
        it.runs(20);
        assert!(it.why(1).is_some_and(|why| why.starts_with("waits out the grace of 0.")), "{:?}", it.why(1));
        it.until("promoting: ");
        assert!([it.why(1), it.why(2)].contains(&Some("promoting: waits for the disk and the arbiter".into())));
        it.starts(0);
        it.runs(20);
        assert_eq!(it.why(0).as_deref(), Some("waits for the arbiter"));
        it.until("Primary; ");
        let primary = it.primary().unwrap_or_default();
        assert_eq!(it.why(primary), None);
        it.kills(3 - primary);
        it.runs(10);
        assert_eq!(it.why(primary), Some(format!("frozen: node {} missing", 3 - primary)));
        it.until("dropped");
        it.runs(10);
        assert_eq!(it.why(primary), None);
        it.starts(3 - primary);
    });
}
