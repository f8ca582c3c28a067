//! The promises, by name: each over random days, and each judged after every event.

use std::sync::OnceLock;

use crate::sim::bend::Bend;
use crate::sim::judge::Promise;
use crate::sim::seeds::{Outcome, Telling, day, play, play_all, play_some, shrink};

/// The days of `make sim-volume SEEDS=20000`.
const SEEDS: u64 = 20_000;

/// Played once, for all promises.
fn outcomes() -> &'static [Outcome] {
    static OUTCOMES: OnceLock<Vec<Outcome>> = OnceLock::new();
    OUTCOMES.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "how fast we are is measured on the real clock")]
        let began = std::time::Instant::now();
        let outcomes = play_all(1, SEEDS);
        println!("{SEEDS} seeds, {} per second", u128::from(SEEDS) * 1_000 / began.elapsed().as_millis().max(1));
        outcomes
    })
}

fn count(of: impl Fn(&Outcome) -> u64) -> u64 {
    outcomes().iter().map(of).sum()
}

fn kept(promise: Promise, tried: u64) {
    for outcome in outcomes() {
        let broken = outcome.violations.iter().find(|broken| broken.promise == promise);
        if let Some(broken) = broken {
            panic!(
                "make sim-volume SEED={} KEEP={:?}: {}",
                outcome.seed,
                shrink(outcome.seed, Bend::None),
                broken.what
            );
        }
    }
    assert!(tried > 100, "only {tried} times in {SEEDS} days came what could have broken it");
}

/// A test for each promise, with how often it was tried. Does not compile as long as one that the judge knows is missing.
macro_rules! promises {
    ($($test:ident: $promise:ident tried $tried:expr;)*) => {
        $(#[test]
        fn $test() {
            kept(Promise::$promise, count($tried));
        })*

        const _: fn(Promise) = |promise| match promise {
            $(Promise::$promise => {})*
        };
    };
}

promises! {
    no_acknowledged_write_is_lost_by_the_failure_of_one: NothingLost tried |it| it.counts.takeovers;
    what_is_durable_survives_the_power_loss_of_all: Durable tried |it| it.lost_caches;
    only_one_node_at_a_time_gets_a_write_acknowledged: OnePrimary tried |it| it.acknowledged;
    replicas_that_are_uptodate_are_equal: Equal tried |it| it.counts.resyncs;
    no_read_is_old_and_none_goes_backwards: NothingOld tried |it| it.checked_reads;
    who_was_revoked_changes_nothing: Revoked tried |it| it.refused_revoked;
    the_core_can_be_carried_out: Shell tried |it| it.events;
    when_all_is_repaired_the_volume_serves: Serves tried |it| u64::from(it.recovered_in_ms > 0);
}

#[test]
fn the_same_seed_is_the_same_day() {
    let telling = Telling { story: true, everything: true };
    for seed in [7, 1_003] {
        let (one, two) = (play_some(seed, Bend::None, None, telling), play_some(seed, Bend::None, None, telling));
        assert!(one.story.len() > 1_000 && one.story == two.story, "seed {seed} is told in two ways");
    }
}

#[test]
fn a_day_can_be_played_without_some_of_its_misfortunes() {
    let (_, all) = day(7);
    let nothing = play_some(7, Bend::None, Some(&[]), Telling::default());
    let everything = play(7, Bend::None);
    let befell = |outcome: &Outcome| outcome.counts.misfortunes.iter().map(|(_, count)| count).sum::<u64>();
    assert!(!all.is_empty() && befell(&nothing) == 0 && befell(&everything) > 0);
}
