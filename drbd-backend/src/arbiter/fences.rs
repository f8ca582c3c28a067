//! The list of fenced hosts: one document with a version, so that a late change can never undo a newer one.

use chrono::{DateTime, Utc};
use replication::{BootId, Incarnation};
use serde::{Deserialize, Serialize};

use super::{Failure, Register, form};

/// How often `fence` and `lift` read the list again because somebody else changed it, or because an answer was lost.
const ATTEMPTS: u32 = 16;

/// A host that may not write any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// Its name in Nova.
    pub host: String,
    /// Only this boot of it; none: whatever boots.
    #[serde(with = "form::boot")]
    pub boot: Option<BootId>,
    /// Who said so.
    pub by: String,
    /// To the microsecond.
    #[serde(with = "form::time")]
    pub at: DateTime<Utc>,
    pub reason: String,
}

impl Fence {
    /// Whether whoever is fenced by `other` is fenced by this.
    fn covers(&self, other: &Self) -> bool {
        self.host == other.host && (self.boot.is_none() || self.boot == other.boot)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fences {
    pub incarnation: Incarnation,
    /// 0 for an arbiter that never fenced; raised by one with every change.
    pub version: u64,
    pub list: Vec<Fence>,
}

/// How a change of the list ended. [`Outcome`](super::Outcome) says which failure is which.
#[derive(Debug)]
pub enum FencesOutcome {
    /// The version is one higher than expected.
    Done,
    /// It was another version, namely this.
    Refused(Fences),
    NotDone(Failure),
    Unknown(Failure),
}

/// The list with this fence in it; none if it changes nothing.
pub(super) fn with(list: &[Fence], fence: &Fence) -> Option<Vec<Fence>> {
    if list.iter().any(|standing| standing.covers(fence)) {
        return None;
    }
    let others = list.iter().filter(|standing| !fence.covers(standing));
    Some(others.chain([fence]).cloned().collect())
}

pub(super) fn without(list: &[Fence], host: &str) -> Option<Vec<Fence>> {
    let rest: Vec<Fence> = list.iter().filter(|fence| fence.host != host).cloned().collect();
    (rest.len() != list.len()).then_some(rest)
}

/// Until the list is as it should be. A lost answer may be asked for again here: the version lets only one of both come true.
pub(super) async fn settle<R, C>(register: &R, change: C) -> Result<u64, Failure>
where
    R: Register + ?Sized,
    C: Fn(&[Fence]) -> Option<Vec<Fence>>,
{
    let mut seen = register.fences().await?;
    let mut last = Failure::Contended { attempts: ATTEMPTS };
    for _ in 0..ATTEMPTS {
        let Some(changed) = change(&seen.list) else { return Ok(seen.version) };
        match register.change_fences(seen.version, &changed).await {
            FencesOutcome::Done => return Ok(seen.version + 1),
            FencesOutcome::Refused(newer) => seen = newer,
            FencesOutcome::NotDone(failure) => return Err(failure),
            FencesOutcome::Unknown(failure) => {
                last = failure;
                seen = register.fences().await?;
            }
        }
    }
    Err(last)
}
