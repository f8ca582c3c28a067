//! The membership rules as a model: small worlds are searched to their end, and every part of a rule is missed when it is left out.
//! `make model` searches larger ones.

mod actions;
mod clients;
mod data;
#[expect(dead_code, reason = "figures, and what takes minutes, are the command's")]
mod dropped;
mod faults;
mod links;
mod liveness;
mod membership;
#[expect(dead_code, reason = "figures, and what takes minutes, are the command's")]
mod search;
#[expect(dead_code, reason = "figures, and what takes minutes, are the command's")]
mod settings;
mod state;
mod symmetry;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use dropped::{Dropped, Shows};
use search::Verdict;
use settings::{CRASH, SHORT, Setting};
use state::State;
use stateright::Model;
use volume::Volume;

/// Far above what any of them takes.
const LIMIT: Duration = Duration::from_secs(110);

macro_rules! every_promise_is_kept {
    ($($name:ident: $setting:ident,)*) => {
        const SEARCHED: &[&Setting] = &[$(&settings::$setting),*];

        $(
            #[test]
            fn $name() {
                assert_eq!(settings::$setting.search(LIMIT).verdict, Verdict::Exhausted);
            }
        )*
    };
}

every_promise_is_kept! {
    without_a_fault_every_promise_is_kept: CALM,
    reads_take_time_and_every_promise_is_kept: SLOW_READS,
    the_arbiter_does_not_answer_and_every_promise_is_kept: TIME_OUT,
    a_connection_breaks_and_every_promise_is_kept: CUT,
    a_process_dies_and_every_promise_is_kept: CRASH,
    a_host_loses_power_and_every_promise_is_kept: POWER_LOSS,
    a_host_is_fenced_and_every_promise_is_kept: FENCE,
    peer_and_arbiter_are_away_and_every_promise_is_kept: CUT_TIME_OUT,
    a_disk_is_replaced_and_every_promise_is_kept: REPLACED,
    a_disk_is_an_old_copy_and_every_promise_is_kept: ROLLED_BACK,
    a_planned_hand_over_keeps_every_promise: HAND_OVER,
    hosts_lose_power_twice_and_what_was_flushed_is_kept: FLUSH,
    hosts_lose_power_twice_and_with_durability_write_nothing_is_lost: WRITE,
    a_process_dies_a_host_loses_power_and_every_promise_is_kept: CRASH_POWER_LOSS,
    any_one_fault_and_a_hand_over_keep_every_promise: ONE_FAULT,
    clocks_leave_their_bound_and_nothing_is_lost: CLOCKS,
    faults_end_and_the_volume_serves_again: SERVES_AGAIN,
    a_fence_and_a_hand_over_keep_every_promise: FENCE_HAND_OVER,
    three_nodes_without_a_fault_keep_every_promise: THREE_CALM,
    a_fence_of_one_of_three_keeps_every_promise: THREE_FENCE,
    a_process_of_one_of_three_dies_and_every_promise_is_kept: THREE_CRASH,
}

#[test]
fn every_short_setting_is_searched() {
    let names = |settings: &[&Setting]| settings.iter().map(|it| it.name).collect::<Vec<_>>();
    assert_eq!(names(SEARCHED), names(&SHORT.iter().collect::<Vec<_>>()));
}

/// A third of them, so that no test takes long.
fn unneeded(third: usize) -> Vec<Dropped> {
    let parts = Dropped::ALL.chunks(Dropped::ALL.len().div_ceil(3)).nth(third).expect("there are three");
    let is_missed = |part: &Dropped| match part.shows() {
        Shows::Caught(setting) => matches!(setting.search_without(*part, LIMIT).verdict, Verdict::Broken { .. }),
        Shows::Implied(_) => true, // `make model SETTING=dropped` searches for that
    };
    parts.iter().copied().filter(|part| !is_missed(part)).collect()
}

#[test]
fn every_part_of_rules_1_to_5_is_missed_when_it_is_left_out() {
    assert_eq!(unneeded(0), []);
}

#[test]
fn every_part_of_rules_5_to_9_is_missed_when_it_is_left_out() {
    assert_eq!(unneeded(1), []);
}

#[test]
fn every_part_of_rules_10_to_13_and_of_hand_overs_is_missed_when_it_is_left_out() {
    assert_eq!(unneeded(2), []);
}

/// The search follows one state of those with the same hash.
#[test]
fn states_that_differ_only_in_names_have_the_same_future() {
    let volume = CRASH.volume;
    let mut known: BTreeMap<u64, State> = BTreeMap::new();
    let mut waiting = volume.init_states();
    let mut renamed = 0;
    while let Some(state) = waiting.pop() {
        for next in followers(&volume, &state) {
            match known.get(&hash_of(&next)) {
                None => {
                    known.insert(hash_of(&next), next);
                    waiting.push(next);
                }
                Some(known) if *known == next => {}
                Some(known) => {
                    renamed += 1;
                    assert_eq!(future(&volume, known), future(&volume, &next), "{known:#?} {next:#?}");
                }
            }
        }
    }
    assert!(renamed > 0);
}

fn followers(volume: &Volume, state: &State) -> Vec<State> {
    let mut actions = Vec::new();
    volume.actions(state, &mut actions);
    actions.into_iter().filter_map(|action| volume.next_state(state, action)).collect()
}

fn future(volume: &Volume, state: &State) -> BTreeSet<u64> {
    followers(volume, state).iter().map(hash_of).collect()
}

fn hash_of(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}
