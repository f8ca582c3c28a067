//! Whether the volume serves again once faults have ended.
//!
//! `Property::eventually` does not see cycles, so this asks more: from the state at hand, one fixed order of steps, without any fault, is
//! played, and within a bounded number of them some Primary must be able to answer whatever it is asked. A state from which this fails is
//! a counterexample, with the path to it.

use crate::actions::Action;
use crate::state::{Change, Part, State};
use crate::volume::{Faults, Volume};

/// Far above the longest way back that the searches have met.
const STEPS: usize = 120;

impl Volume {
    pub(crate) fn serves_again(&self, state: &State) -> bool {
        !self.has_a_trusted_disk(state) || self.serves_in_time(state)
    }

    /// Without a disk that the record counts, the volume is held, and rightly.
    fn has_a_trusted_disk(&self, s: &State) -> bool {
        let in_sync = s.register.members_in_sync();
        let is_there = |node: usize| s.nodes[node].disk == s.register.in_sync[node];
        in_sync.iter().any(|node| is_there(node) && !s.nodes[node].lost) || in_sync.iter().all(is_there)
    }

    fn serves_in_time(&self, state: &State) -> bool {
        let calm =
            Self { faults: Faults { rolled_back: self.faults.rolled_back, ..Faults::NONE }, generations: 15, ..*self };
        let states = std::iter::successors(Some(*state), |state| calm.calm_step(state));
        states.take(STEPS).any(|state| calm.serves(&state))
    }

    /// Some Primary has the record in force, everybody along, every lease, and nothing unanswered.
    fn serves(&self, s: &State) -> bool {
        s.late.iter().all(crate::state::Record::is_none)
            && (0..self.nodes).any(|node| {
                let it = &s.nodes[node];
                let is_in_force = it.part == Part::Primary && it.record == s.register && it.change == Change::None;
                let is_whole = it.view.is_within(it.along) && it.view.is_within(it.lease);
                let hear = it.view.iter().all(|peer| self.hears(s, node, peer));
                let is_done = it.write == [0; 2] && it.pending == [0; 2] && it.read.0 == 0;
                is_in_force && is_whole && hear && is_done && !it.stopped
            })
    }

    /// The first of these that is possible. A drop, and a promotion, come last: with time, what is only slow has come.
    fn calm_step(&self, s: &State) -> Option<State> {
        let mut actions = Vec::with_capacity(64);
        self.candidates(s, &mut actions);
        let mut ranked: Vec<_> = actions.into_iter().filter_map(|action| Some((rank(&action)?, action))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().find_map(|(_, action)| self.after(s, action).filter(|next| next != s))
    }
}

fn rank(action: &Action) -> Option<u8> {
    Some(match action {
        Action::ExecuteLate { .. } => 0,
        Action::Start { .. } | Action::Connect { .. } => 1,
        Action::Settle { .. } | Action::Execute { .. } | Action::Repeat { .. } => 2,
        Action::Complete { .. } | Action::Receive { .. } => 3,
        Action::HangUp { .. } | Action::Learn { .. } => 4,
        Action::Meet { .. } | Action::Serve { .. } => 5,
        Action::Beat { .. } => 6,
        Action::Answer { .. } | Action::Acknowledge { .. } => 7,
        Action::Copy { .. } => 8,
        Action::Reclaim { .. } => 9,
        Action::Drop { .. } => 10,
        Action::Stand { .. } => 11,
        Action::GraceEnds { .. } => 12,
        Action::GraceEndsEarly { .. }
        | Action::LateAnswer { .. }
        | Action::Add { .. }
        | Action::HandOver { .. }
        | Action::GoOn { .. }
        | Action::Abandon { .. }
        | Action::Write { .. }
        | Action::Read { .. }
        | Action::Load { .. }
        | Action::Flush { .. }
        | Action::Barrier { .. }
        | Action::Land { .. }
        | Action::Crash { .. }
        | Action::LosePower { .. }
        | Action::Cut { .. }
        | Action::TimeOut { .. }
        | Action::Replace { .. }
        | Action::RollBack { .. }
        | Action::Fence { .. } => return None,
    })
}
