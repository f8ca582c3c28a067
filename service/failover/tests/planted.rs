//! Faults planted in the core: each is caught by the simulator, for the right reason, in a seed that the right core survives.

use crate::sim::bend::Bend;
use crate::sim::seeds::play;

/// Each fault, a seed that catches it, and what the judge says then.
const CAUGHT: &[(Bend, u64, &str)] = &[
    (Bend::NoReceiptCheck, 0, "has no receipt"),
    (Bend::StaleReceipt, 0, "a stale receipt"),
    (Bend::OneReceiptForAllHosts, 0, "has no receipt"),
    (Bend::SecondPostAfterALostAnswer, 0, "a second time"),
    (Bend::DisableBeforeForceDown, 0, "is disabled before it is forced down"),
    (Bend::ActsAfterTheLease, 0, "leads no more"),
    (Bend::BlindTakenForSeeing, 0, "blind, and yet"),
    (Bend::MassFailureGateDropped, 0, "are switched off within"),
    (Bend::MaintenanceGateDropped, 0, "is under maintenance"),
    (Bend::SilenceCountedFromTheStart, 0, "is to be switched off"),
    (Bend::LiveMigrationsForgotten, 0, "without a receipt"),
    (Bend::EvacuationsForgotten, 0, "a second time"),
    (Bend::DisarmedIgnored, 0, "disarmed, and yet"),
    (Bend::UnboundBmcBelieved, 0, "has a receipt and is on"),
    (Bend::OneSilentNetworkIsEnough, 0, "lives and is to be switched off"),
    (Bend::DestinationNotFenced, 0, "without a receipt"),
    (Bend::OptOutIgnored, 0, "against its owner's will"),
    (Bend::LocalDiskIgnored, 0, "loses its disk"),
    (Bend::InstanceOverlooked, 0, "it has no move"),
    (Bend::NothingEverNamed, 0, "loses its disk"),
    (Bend::HoldTextsTick, 0, "never ends to decide"),
    (Bend::OthersDisablesUndone, 0, "somebody else had disabled"),
    (Bend::NeverTakenBack, 0, "though its host is well"),
];

#[test]
fn every_planted_fault_is_caught() {
    let find = std::env::var_os("FIND").is_some();
    assert_eq!(CAUGHT.len(), Bend::PLANTED.len());
    for (bend, seed, what) in CAUGHT {
        if find {
            let seeds: Vec<u64> = (1..2_000).filter(|seed| catches(*bend, *seed, what)).take(1).collect();
            println!("    (Bend::{bend:?}, {}, \"{what}\"),", seeds.first().copied().unwrap_or_default());
            continue;
        }
        assert!(catches(*bend, *seed, what), "{bend:?} is not caught in seed {seed}; FIND=1 looks for another");
        let well = play(*seed, Bend::None, false).violations;
        assert!(well.is_empty(), "seed {seed} without a fault: {well:?}");
    }
}

fn catches(bend: Bend, seed: u64, what: &str) -> bool {
    play(seed, bend, false).violations.iter().any(|(_, said)| said.contains(what))
}
