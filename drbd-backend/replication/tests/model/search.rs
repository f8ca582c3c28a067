//! Searches one setting with stateright's checker, and says what came of it.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::actions::Action;
use crate::dropped::Dropped;
use crate::settings::{Order, Setting};
use crate::volume::{TIME_IS_UP, Volume};

/// A search in breadth keeps every state that waits, with the path to it; with so many transitions that is about 3 GiB.
const TRANSITIONS_IN_BREADTH: usize = 36_000_000;

#[derive(Debug)]
pub(crate) struct Outcome {
    /// Transitions that were taken.
    pub(crate) states: usize,
    /// Different states, apart from the names of nodes and blocks.
    pub(crate) unique: usize,
    /// The longest path, in steps.
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every state that can be reached was checked.
    Exhausted,
    /// Time or room was up. In breadth, all states that are fewer steps away than the deepest were checked.
    GivenUp,
    Broken {
        promise: &'static str,
        path: Vec<Action>,
    },
}

impl Setting {
    pub(crate) fn search(&self, limit: Duration) -> Outcome {
        run(self.volume, self.order, limit)
    }

    pub(crate) fn search_without(&self, part: Dropped, limit: Duration) -> Outcome {
        run(Volume { dropped: Some(part), ..self.volume }, self.order, limit)
    }
}

fn run(volume: Volume, order: Order, limit: Duration) -> Outcome {
    let began = now();
    let volume = Volume { until: Some(began + limit), ..volume };
    let checker = volume.checker().finish_when(HasDiscoveries::Any);
    match order {
        Order::Breadth => {
            let checker = checker.target_state_count(TRANSITIONS_IN_BREADTH).spawn_bfs().join();
            let is_full = checker.state_count() >= TRANSITIONS_IN_BREADTH;
            outcome(&checker, began, is_full)
        }
        Order::Depth => outcome(&checker.spawn_dfs().join(), began, false),
    }
}

fn outcome(checker: &impl Checker<Volume>, began: Instant, is_full: bool) -> Outcome {
    let mut found = checker.discoveries();
    let is_late = found.remove(TIME_IS_UP).is_some();
    let broken = found.into_iter().map(|(promise, path)| (path.into_actions(), promise));
    let verdict = match broken.min_by_key(|(path, promise)| (path.len(), *promise)) {
        Some((path, promise)) => Verdict::Broken { promise, path },
        None if is_late || is_full => Verdict::GivenUp,
        None => Verdict::Exhausted,
    };
    Outcome {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth() - 1,
        took: now() - began,
        verdict,
    }
}

#[expect(clippy::disallowed_methods, reason = "a search is bounded in time, and measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
