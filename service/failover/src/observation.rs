//! What was seen of the world, by one look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::names::{BootId, GroupId, Host, InstanceId, MigrationId, SystemId, Time};

/// Everything that is known now about the cloud. Times are ours: when we heard or read, never what a clock elsewhere said.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    pub view: View,
    pub hosts: BTreeMap<Host, HostSeen>,
    /// What is on hosts with an open incident, and moving away from them.
    pub instances: BTreeMap<Host, InstancesSeen>,
}

/// How well we see.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// When Nova last answered the list of compute services. That call needs Keystone, too.
    pub nova_answered: Option<Time>,
    /// Since when we watch without a break: the start of this process, or the last time that it was asleep or its clock jumped.
    pub unbroken_since: Time,
    /// What broke it, if it was not the start.
    pub broken_by: Option<Arc<str>>,
}

/// A compute host.
#[derive(Debug, Clone)]
pub struct HostSeen {
    /// The aggregates and the availability zone that it is in, and its segment.
    pub groups: Vec<Arc<str>>,
    pub nova: NovaSeen,
    pub channels: Vec<Channel>,
    /// What its heartbeats said of the kernel and the machine that sends them.
    pub boot: Option<BootSeen>,
    pub power: PowerSeen,
    /// Whether the scheduler may choose it: Placement carries no COMPUTE_STATUS_DISABLED. Looked up only while a host is taken back.
    pub schedulable: Option<bool>,
}

/// What Nova says of the compute service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NovaSeen {
    /// Its cell does not answer, or Nova has not been asked yet: neither up nor down.
    NoData,
    Listed(ServiceSeen),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSeen {
    /// Up: Nova heard from it within its service_down_time. Always false while it is forced down.
    pub up: bool,
    pub forced_down: bool,
    /// The reason given, if it is disabled.
    pub disabled: Option<Arc<str>>,
    /// When we last noticed that `updated_at` had advanced without an edit of ours.
    pub reported: Option<Time>,
    /// At how many polls it has advanced since the last edit of ours. Somebody else's edit advances it once; a living service goes on.
    pub reports: u32,
    /// When we had asked for what showed the advance before the last, if no edit of ours came between: an answer that took long tells of the past.
    pub reported_before: Option<Time>,
}

/// One way to hear a host.
#[derive(Debug, Clone)]
pub struct Channel {
    pub network: Arc<str>,
    pub kind: ChannelKind,
    /// When it was last heard on this channel by this process.
    pub last: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChannelKind {
    Heartbeat,
    /// A TCP connection to a port of it.
    Tcp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootSeen {
    pub id: BootId,
    /// When this boot was first heard.
    pub heard: Time,
    pub system: Option<SystemId>,
}

/// What the BMC says.
#[derive(Debug, Clone, Default)]
pub struct PowerSeen {
    pub reading: Power,
    /// The machine that the BMC says it controls.
    pub system: Option<SystemId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Power {
    /// No BMC is configured.
    #[default]
    Absent,
    /// There is one, and it has told nothing that can be used.
    Unknown {
        why: Arc<str>,
        since: Time,
    },
    On {
        at: Time,
    },
    /// `since` is the first reading of an unbroken series of Off readings: the *power epoch*. `at` is the last one.
    Off {
        since: Time,
        at: Time,
    },
}

/// Instances of one host.
#[derive(Debug, Clone, Default)]
pub struct InstancesSeen {
    /// Instances that Nova says are on the host; none while its cell does not answer.
    pub listing: Option<Arc<Listing>>,
    /// Migrations that have the host as source or destination.
    pub migrations: Option<Arc<Migrations>>,
    /// Single looks at instances that may have left it.
    pub looks: BTreeMap<InstanceId, Look>,
}

/// `at` is when the list was asked for: what happened later may be missing.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub at: Time,
    pub instances: BTreeMap<InstanceId, InstanceSeen>,
}

#[derive(Debug, Clone, Default)]
pub struct Migrations {
    pub at: Time,
    pub rows: Vec<MigrationSeen>,
}

/// Where an instance was when it was looked at alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub at: Time,
    /// None: it has been deleted.
    pub found: Option<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub host: Option<Host>,
    pub state: VmState,
}

/// An instance on a host with an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    pub name: Arc<str>,
    pub state: VmState,
    pub task: Task,
    /// What the hypervisor said last: whether the guest runs.
    pub running: bool,
    /// It ran at least once; Nova refuses to evacuate what never did.
    pub launched: bool,
    /// The root disk is a volume.
    pub boots_from_volume: bool,
    /// What its owner says (metadata, tag, flavor): yes, no, or nothing.
    pub wish: Option<bool>,
    /// What its owner says of an image-backed root disk: it may be built anew from the image.
    pub expendable_root: bool,
    /// Another service owns it and replaces it itself (an Octavia amphora): whose it is.
    pub owned_by: Option<Arc<str>>,
    /// Higher comes first.
    pub priority: i32,
    pub created: Time,
    /// The anti-affinity groups that it belongs to.
    pub apart: BTreeSet<GroupId>,
}

/// Nova's `vm_state`, as far as evacuation depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmState {
    Active,
    Stopped,
    Error,
    /// One that Nova does not evacuate: paused, suspended, rescued, resized, ...
    Other(Arc<str>),
}

/// Nova's `task_state`, as far as evacuation depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    None,
    /// One that only its own host carries out, so that the fence ends it: rebooting, powering-off, ...
    OnItsHost(Arc<str>),
    /// One that others take part in: migrating, rebuilding, resize_prep, ...
    Elsewhere(Arc<str>),
    /// Its owner wants it gone.
    Deleting,
}

/// A migration record of Nova.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationSeen {
    pub id: MigrationId,
    pub instance: InstanceId,
    pub evacuation: bool,
    pub status: Arc<str>,
    pub stage: Stage,
    pub source: Option<Host>,
    /// None until the scheduler has chosen.
    pub destination: Option<Host>,
}

/// How far a migration has come, of Nova's many words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It may still do something; also every word that we do not know.
    Unfinished,
    /// `done`, `completed`, `confirmed`, `finished` of an evacuation: it is on its destination.
    Done,
    /// `error`, `failed`, `cancelled`, `reverted`: it is where it was.
    Failed,
}
