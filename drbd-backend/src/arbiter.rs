//! The arbiter: a register with compare-and-swap that holds one small record per volume, and the list of fenced hosts.
//!
//! ```text
//!                            ┌── Embedded ── JSON over HTTP, mutual TLS ── serve() ── Store (one SQLite file)
//!  tandem-node ── Register ──┤
//!                            └── Etcd ────── etcd's JSON gateway ───────── usually three etcd
//! ```
//!
//! Who may serve a volume is decided here and nowhere else, so the difference between "surely not done" and "perhaps" is the heart
//! of this module ([`Outcome`]). Nothing is ever sent twice on the quiet: a change that may have reached an arbiter and was not
//! answered is [`Outcome::Unknown`], and it is for the caller to settle it (rule 2 of `docs/replication.md`).

mod caller;
mod embedded;
mod etcd;
mod fences;
mod form;
mod http;
mod listen;
mod server;
mod store;

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use replication::{Generation, Incarnation, Record, VolumeId};
use serde::{Deserialize, Serialize};

pub use embedded::Embedded;
pub use etcd::{Etcd, EtcdSettings};
pub use fences::{Fence, Fences, FencesOutcome};
pub use form::{Misform, record_from_json, record_to_json};
pub use http::{Limits, SettingsError};
pub use server::{Arbiter, ArbiterConfig, ArbiterError, serve};
pub use store::{Store, StoreError};

/// One change of one volume's record. Each compares the whole of what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// The volume is created. Nothing may be there.
    Create {
        #[serde(with = "form::record")]
        record: Record,
    },
    /// The compare-and-swap of the replication protocol: the generation rises by one.
    Swap {
        #[serde(with = "form::record")]
        expected: Record,
        #[serde(with = "form::record")]
        proposed: Record,
    },
    /// The volume is deleted.
    Remove {
        #[serde(with = "form::record")]
        expected: Record,
    },
    /// An operator puts the record back after the arbiter was lost or restored; `expected` is what is there, if anything.
    Rebuild {
        #[serde(with = "form::optional")]
        expected: Option<Record>,
        #[serde(with = "form::record")]
        proposed: Record,
    },
}

impl Change {
    /// What must be there.
    #[must_use]
    pub fn expected(&self) -> Option<&Record> {
        match self {
            Self::Create { .. } => None,
            Self::Swap { expected, .. } | Self::Remove { expected } => Some(expected),
            Self::Rebuild { expected, .. } => expected.as_ref(),
        }
    }

    /// What is there afterwards.
    #[must_use]
    pub fn proposed(&self) -> Option<&Record> {
        match self {
            Self::Create { record } => Some(record),
            Self::Swap { proposed, .. } | Self::Rebuild { proposed, .. } => Some(proposed),
            Self::Remove { .. } => None,
        }
    }

    /// Why no arbiter may do this, whatever it holds.
    fn misfit(&self) -> Option<&'static str> {
        match self {
            Self::Create { record } => {
                (record.generation != Generation(1)).then_some("the record of a new volume has generation 1")
            }
            Self::Swap { expected, proposed } => (expected.generation.0.checked_add(1) != Some(proposed.generation.0))
                .then_some("every change of a record raises its generation by one"),
            Self::Remove { .. } => None,
            Self::Rebuild { expected, proposed } => expected
                .as_ref()
                .is_some_and(|expected| proposed.generation <= expected.generation)
                .then_some("a rebuilt record has a higher generation than the one it replaces"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { record } => write!(f, "create ({record})"),
            Self::Swap { expected, proposed } => write!(f, "swap generation {} for ({proposed})", expected.generation),
            Self::Remove { expected } => write!(f, "remove ({expected})"),
            Self::Rebuild { proposed, .. } => write!(f, "rebuild as ({proposed})"),
        }
    }
}

/// How a change ended.
///
/// | what happened | outcome |
/// |---|---|
/// | the arbiter says: done, and it is durable | `Done` |
/// | the arbiter says: something else is there | `Refused`, `Missing` |
/// | no connection came about, or the arbiter says that it did not even try | `NotDone` |
/// | anything else: no answer in time, a connection that broke, a server's error, an answer that makes no sense | `Unknown` |
///
/// What is not `Unknown` is final: this very request is not carried out later either.
#[derive(Debug)]
pub enum Outcome {
    /// The record is the proposed one.
    Done,
    /// It was another one than expected, namely this.
    Refused(Box<Record>),
    /// There is no record of this volume.
    Missing,
    /// Surely not done, now or later.
    NotDone(Failure),
    /// It may have been done, may be done later, or never.
    Unknown(Failure),
}

/// Why the arbiter was of no help.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent.
    #[error(
        "cannot connect to the arbiter at {arbiter}: see that it runs, and that its name, port and certificates are right"
    )]
    Unreachable {
        arbiter: String,
        #[source]
        source: reqwest::Error,
    },
    /// Something may have been sent.
    #[error("the arbiter at {arbiter} did not answer")]
    NoAnswer {
        arbiter: String,
        #[source]
        source: reqwest::Error,
    },
    /// It understood, and will not.
    #[error("the arbiter at {arbiter} declines: {why}")]
    Declined { arbiter: String, why: String },
    /// It tried and could not, or it is no arbiter.
    #[error("the arbiter at {arbiter} gave an answer that settles nothing: {why}")]
    Unsettled { arbiter: String, why: String },
    /// What it holds is not ours, or is of a newer version.
    #[error(
        "what the arbiter at {arbiter} holds under {key} cannot be understood; it may be of a newer version of Tandem"
    )]
    Misformed {
        arbiter: String,
        key: String,
        #[source]
        source: Misform,
    },
    /// The caller asks for what is never done.
    #[error("this change is not sent to the arbiter: {why}")]
    Misfit { why: &'static str },
    /// Others were quicker each time.
    #[error("what the arbiter holds was changed by others at each of {attempts} attempts: try again")]
    Contended { attempts: u32 },
}

/// A register with compare-and-swap, linearizable: an answer shows every change that was answered before it was asked.
#[async_trait]
pub trait Register: fmt::Debug + Send + Sync {
    /// The record of this volume, if there is one, and which arbiter says so.
    async fn read(&self, volume: VolumeId) -> Result<(Incarnation, Option<Record>), Failure>;

    /// Every record. Not one moment: each record is as it was some time during the call.
    async fn list(&self) -> Result<(Incarnation, BTreeMap<VolumeId, Record>), Failure>;

    /// Sent at most once to at most one server. What `swap`, `create`, `remove` and `rebuild` come down to.
    async fn change(&self, volume: VolumeId, change: &Change) -> Outcome;

    async fn fences(&self) -> Result<Fences, Failure>;

    /// Replaces the whole list if its version is still this one, and raises the version by one.
    async fn change_fences(&self, expected_version: u64, list: &[Fence]) -> FencesOutcome;

    async fn swap(&self, volume: VolumeId, expected: &Record, proposed: &Record) -> Outcome {
        self.change(volume, &Change::Swap { expected: expected.clone(), proposed: proposed.clone() }).await
    }

    /// Done also if this very record is there already. `Missing` is not among its outcomes.
    async fn create(&self, volume: VolumeId, record: &Record) -> Outcome {
        match self.change(volume, &Change::Create { record: record.clone() }).await {
            Outcome::Refused(there) if *there == *record => Outcome::Done,
            outcome => outcome,
        }
    }

    async fn remove(&self, volume: VolumeId, expected: &Record) -> Outcome {
        self.change(volume, &Change::Remove { expected: expected.clone() }).await
    }

    /// For an operator who confirmed it, after every member has reported what it knows.
    async fn rebuild(&self, volume: VolumeId, expected: Option<&Record>, proposed: &Record) -> Outcome {
        self.change(volume, &Change::Rebuild { expected: expected.cloned(), proposed: proposed.clone() }).await
    }

    /// Adds a fence; the version from which on it stands. One that covers it already is enough.
    async fn fence(&self, fence: Fence) -> Result<u64, Failure> {
        fences::settle(self, |list| fences::with(list, &fence)).await
    }

    /// Takes every fence of this host away; the version from which on it has none.
    async fn lift(&self, host: &str) -> Result<u64, Failure> {
        fences::settle(self, |list| fences::without(list, host)).await
    }
}
