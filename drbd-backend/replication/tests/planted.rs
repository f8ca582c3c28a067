//! Faults planted in the core: each is caught by the simulator, for the right reason, in a seed that the right core survives.

use crate::sim::bend::Bend;
use crate::sim::seeds::play;

/// Each fault, a seed that catches it, and what the judge says then.
const CAUGHT: &[(Bend, u64, &str)] = &[
    (Bend::AcknowledgesBeforeThePeer, 1, "is answered, and node"),
    (Bend::AcknowledgesFromMemory, 1, "is answered, and node"),
    (Bend::LeaseLongerThanGrace, 833, "against it"),
    (Bend::GraceForgotten, 519, "against it"),
    (Bend::ActivityLogNotKept, 4, "which is UpToDate"),
    (Bend::BitmapsKeptEmpty, 1691, "which is UpToDate"),
    (Bend::BitClearedWithoutData, 1, "which is UpToDate"),
    (Bend::BitClearedBeforeTheFlush, 4655, "which is UpToDate"),
    (Bend::OldDiskIdTrusted, 95, "which is UpToDate"),
    (Bend::RolledBackDiskTrusted, 51, "which is UpToDate"),
    (Bend::SuspicionOverlooked, 5, "goes on with"),
    (Bend::SuspectClearedByRestart, 191, "goes on with"),
    (Bend::AddedWithoutBeingCounted, 15, "is answered, and node"),
    (Bend::UnknownTakenForDone, 34, "and the record is"),
    (Bend::TakeoverWithoutEqualising, 121, "which is UpToDate"),
    (Bend::CommittedTooEarly, 121, "which is UpToDate"),
    (Bend::FailedFlushTriedAgain, 31, "against it"),
    (Bend::FailedWriteOverlooked, 1770, "is answered, and node"),
    (Bend::FullDiskTakenForWritten, 45, "is answered, and node"),
    (Bend::ReadErrorTakenForZeroes, 17, "reads 0 from"),
    (Bend::FlushThatIsNone, 1, "would come back with"),
    (Bend::FlushOfOneDiskOnly, 1, "would come back with"),
    (Bend::AttachmentsNotChecked, 74, "whose attachment was revoked"),
    (Bend::RevokeNotReplicated, 5175, "whose attachment was revoked"),
];

/// Those that only a day on purpose catches: `stories/serving.rs` and `stories/changes.rs` tell each of these twice.
const CAUGHT_BY_STORIES: &[Bend] =
    &[Bend::LeaseFromArrival, Bend::LateFenceBelieved, Bend::HandsOverWhileServing, Bend::RevokeAnsweredEarly];

/// `FIND=1` looks for a seed for each that has none yet.
#[test]
fn every_planted_fault_is_caught() {
    let find = std::env::var_os("FIND").is_some();
    let is_known = |bend: &Bend| CAUGHT.iter().any(|(caught, ..)| caught == bend) || CAUGHT_BY_STORIES.contains(bend);
    assert!(Bend::PLANTED.iter().all(is_known));
    let mut missed = String::new();
    for (bend, seed, what) in CAUGHT {
        if find {
            let most = std::env::var("FIND").ok().and_then(|most| most.parse().ok()).unwrap_or(3_000);
            let is_good = |seed: &u64| catches(*bend, *seed, what) && play(*seed, Bend::None).is_well();
            let found = if *seed == 0 { (1..most).find(is_good).unwrap_or_default() } else { *seed };
            println!("    (Bend::{bend:?}, {}, \"{what}\"),", found);
            continue;
        }
        if !catches(*bend, *seed, what) {
            missed
                .push_str(&format!("{bend:?} is not caught in seed {seed}; FIND=1 looks for another, if it says 0\n"));
        }
        let well = play(*seed, Bend::None);
        assert!(well.is_well(), "seed {seed} without a fault: {:?}", well.violations);
    }
    assert!(missed.is_empty(), "{missed}");
}

fn catches(bend: Bend, seed: u64, what: &str) -> bool {
    play(seed, bend).violations.iter().any(|broken| broken.what.contains(what))
}
