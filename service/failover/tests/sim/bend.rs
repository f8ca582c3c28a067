//! Planted faults: a core that was built wrong in one place, made from the right one by bending what it is told or what it says.

use failover::{Decision, Ledger, Observation, Policy, Time, decide};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bend {
    None,
}

impl Bend {
    pub fn decide(self, now: Time, seen: &Observation, ledger: &Ledger, policy: &Policy) -> Vec<Decision> {
        match self {
            Self::None => decide(now, seen, ledger, policy),
        }
    }

    pub fn acts_late(self) -> bool {
        false
    }
}
