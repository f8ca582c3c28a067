//! The promises, by name: each over random clouds and faults, and each judged by the world.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::sim::bend::Bend;
use crate::sim::seeds::{Outcome, play};

/// Other days than those of `the_core_survives_a_few_hundred_bad_days`.
const SEEDS: std::ops::Range<u64> = 100_000..100_120;

fn outcomes() -> &'static [Outcome] {
    static OUTCOMES: OnceLock<Vec<Outcome>> = OnceLock::new();
    OUTCOMES.get_or_init(|| SEEDS.map(|seed| play(seed, Bend::None, false)).collect())
}

/// No seed may break it, in the judge's words; and enough of them must have come to where it could have been broken.
fn kept(words: &[&str], tried: fn(&Outcome) -> bool) {
    for outcome in outcomes() {
        let mut broken = outcome.violations.iter().map(|(_, what)| what);
        let broken = broken.find(|what| words.iter().any(|word| what.contains(word)));
        assert!(broken.is_none(), "make sim SEED={}: {}", outcome.seed, broken.expect("it is some"));
    }
    let tried = outcomes().iter().filter(|outcome| tried(outcome)).count();
    assert!(tried > 20, "only {tried} seeds came to where this could have been broken");
}

#[test]
fn never_two_copies_that_can_write() {
    kept(&["runs on", "is evacuated while it runs"], |it| it.evacuated);
}

#[test]
fn never_evacuate_without_a_receipt_for_every_possible_copy() {
    kept(&["without a receipt", "has no receipt"], |it| it.evacuated);
}

#[test]
fn never_act_on_a_stale_receipt() {
    kept(&["a stale receipt", "has a receipt and is on"], |it| it.evacuated && it.fenced);
}

#[test]
fn never_two_evacuations_of_one_instance_in_flight() {
    kept(&["a second time", "somebody else does so already"], |it| it.evacuated);
}

#[test]
fn never_act_while_blind() {
    kept(&["blind, and yet"], |it| it.fenced);
}

#[test]
fn never_act_while_deposed() {
    kept(&["leads no more"], |it| it.lost_leader && it.fenced);
}

#[test]
fn never_act_while_disarmed() {
    kept(&["disarmed, and yet"], |it| it.fenced);
}

#[test]
fn never_fence_more_than_policy_allows() {
    kept(&["are switched off within", "is under maintenance"], |it| it.fenced && it.held);
}

#[test]
fn never_switch_off_what_lives() {
    kept(&["is to be switched off", "was silent only"], |it| it.fenced);
}

#[test]
fn every_instance_of_a_dead_host_is_moved_or_named() {
    kept(&["which is dead"], |it| it.evacuated);
}

#[test]
fn no_incident_of_a_host_that_is_well_is_forgotten() {
    kept(&["though its host is well"], |it| it.fenced);
}

#[test]
fn never_against_its_owner_and_never_at_the_price_of_its_disk() {
    kept(&["against its owner's will", "loses its disk"], |it| it.evacuated);
}

#[test]
fn never_more_guests_started_at_once_than_policy_allows() {
    kept(&["are started at once"], |it| it.fenced);
}

#[test]
fn deciding_twice_changes_nothing() {
    kept(&["never ends to decide", "over and over"], |it| it.held);
}

#[test]
fn the_same_seed_is_the_same_day() {
    for seed in [7, 100_003] {
        let (one, two) = (play(seed, Bend::None, true), play(seed, Bend::None, true));
        assert!(!one.story.is_empty() && one.story == two.story, "seed {seed} is told in two ways");
    }
}

#[test]
fn every_promise_that_the_judge_knows_is_named_here() {
    let words: BTreeSet<&str> = include_str!("promises.rs").split('"').skip(1).step_by(2).collect();
    for outcome in outcomes() {
        for (_, what) in &outcome.violations {
            assert!(words.iter().any(|word| word.len() > 6 && what.contains(word)), "unknown: {what}");
        }
    }
}
