//! Faults planted in the core: each is caught by the simulator, for the right reason, in a seed that the right core survives.

use crate::sim::bend::Bend;
use crate::sim::seeds::play;

/// Each fault, a seed that catches it, and what the judge says then.
const CAUGHT: &[(Bend, u64, &str)] = &[
    (Bend::NoReceiptCheck, 1, "has no receipt"),
    (Bend::StaleReceipt, 388, "a stale receipt"),
    (Bend::OneReceiptForAllHosts, 2, "has no receipt"),
    (Bend::SecondPostAfterALostAnswer, 1, "a second time"),
    (Bend::DisableBeforeForceDown, 1, "is disabled before it is forced down"),
    (Bend::ActsAfterTheLease, 11, "leads no more"),
    (Bend::BlindTakenForSeeing, 42, "blind, and yet"),
    (Bend::MassFailureGateDropped, 149, "are switched off within"),
    (Bend::MaintenanceGateDropped, 4, "is under maintenance"),
    (Bend::SilenceCountedFromTheStart, 28, "is to be switched off"),
    (Bend::LiveMigrationsForgotten, 9, "without a receipt"),
    (Bend::EvacuationsForgotten, 25, "a second time"),
    (Bend::DisarmedIgnored, 14, "disarmed, and yet"),
    (Bend::UnboundBmcBelieved, 16, "has a receipt and is on"),
    (Bend::OneSilentNetworkIsEnough, 20, "lives and is to be switched off"),
    (Bend::DestinationNotFenced, 19, "without a receipt"),
    (Bend::OptOutIgnored, 1, "against its owner's will"),
    (Bend::LocalDiskIgnored, 1, "loses its disk"),
    (Bend::InstanceOverlooked, 2, "it has no move"),
    (Bend::NothingEverNamed, 1, "loses its disk"),
    (Bend::HoldTextsTick, 1, "never ends to decide"),
    (Bend::OthersDisablesUndone, 93, "somebody else had disabled"),
    (Bend::NeverTakenBack, 1, "though its host is well"),
    (Bend::ContradictionIgnored, 4, "has a receipt and is on"),
    (Bend::FlappingGateDropped, 5, "was taken back"),
    (Bend::SegmentIgnored, 49, "its segment is disabled"),
    (Bend::ForcedDownIgnored, 320, "(forced down)"),
    (Bend::GuestNotStartedAgain, 2, "is not to be started again"),
    (Bend::RebootsOverlooked, 8, "does not run since"),
    (Bend::HoldsTooMuch, 4, "is held without a reason by mass failure"),
    (Bend::HoldsNeverEnd, 2, "is held without a reason"),
];

/// A few hundred days like those of `make sim`.
#[test]
fn the_core_survives_a_few_hundred_bad_days() {
    for seed in 1..=300 {
        let outcome = play(seed, Bend::None, false);
        assert!(outcome.is_well(), "make sim SEED={seed}: {:?}", outcome.violations);
    }
}

#[test]
fn every_planted_fault_is_caught() {
    let find = std::env::var_os("FIND").is_some();
    assert_eq!(CAUGHT.len(), Bend::PLANTED.len());
    let mut missed = String::new();
    for (bend, seed, what) in CAUGHT {
        if find && *seed != 0 {
            continue; // it has one: 0 asks for another
        }
        if find {
            let seeds: Vec<u64> = (1..4_000).filter(|seed| catches(*bend, *seed, what)).take(1).collect();
            println!("    (Bend::{bend:?}, {}, \"{what}\"),", seeds.first().copied().unwrap_or_default());
            continue;
        }
        if !catches(*bend, *seed, what) {
            missed
                .push_str(&format!("{bend:?} is not caught in seed {seed}; FIND=1 looks for another, if it says 0\n"));
        }
        let well = play(*seed, Bend::None, false);
        assert!(well.is_well(), "seed {seed} without a fault: {:?}", well.violations);
    }
    assert!(missed.is_empty(), "{missed}");
}

fn catches(bend: Bend, seed: u64, what: &str) -> bool {
    play(seed, bend, false).violations.iter().any(|broken| broken.what.contains(what))
}
