//! What a node says of its own replicas, to the node that asks it on somebody's behalf.

use std::time::Duration;

use futures::future::join_all;
use replication::{BLOCK_BYTES, DiskState, Node as Place, Nodes, PeerStatus, Role, Time, VolumeId, Why};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::State;
use crate::catalog::{Definition, Entry, story};
use crate::disk::boottime_ns;
use crate::engine::{Seen, VolumeError};
use crate::export::iscsi::target_name;

/// All of a node's, or those of one volume.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Reports {
    pub(super) replicas: Vec<Report>,
}

/// One volume on one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) uuid: Uuid,
    /// None: its file there cannot be read.
    pub(super) definition: Option<Definition>,
    /// Why it is not served there.
    pub(super) trouble: Option<String>,
    /// None: it is not open.
    pub(super) replica: Option<ReplicaReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ReplicaReport {
    pub(super) role: RoleWord,
    pub(super) disk: DiskWord,
    pub(super) suspect: bool,
    pub(super) serving: bool,
    /// What stands in the way, where it neither serves nor is led by a Primary.
    pub(super) why: Option<String>,
    pub(super) full: bool,
    /// Of the record as it knows it, as are the next three.
    pub(super) generation: u64,
    pub(super) epoch: u64,
    pub(super) primary: Option<u8>,
    pub(super) in_sync: Vec<u8>,
    /// The version of its control document.
    pub(super) control: u64,
    pub(super) attachments: Vec<Attachment>,
    pub(super) peers: Vec<PeerReport>,
    pub(super) clients: usize,
    pub(super) requests: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PeerReport {
    pub(super) place: u8,
    pub(super) connected: bool,
    pub(super) disk: DiskWord,
    pub(super) missing_bytes: u64,
    pub(super) resync: Option<ResyncReport>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ResyncReport {
    pub(super) left_bytes: u64,
    pub(super) total_bytes: u64,
    /// Since it began.
    pub(super) lasted_ms: u64,
}

/// A host's right to use the volume, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub(super) id: Uuid,
    pub(super) host: String,
    pub(super) initiator: Option<String>,
    pub(super) read_only: bool,
    pub(super) epoch: u64,
    pub(super) revoked: bool,
    /// Its name over NBD.
    pub(super) export: String,
    /// Its target's name over iSCSI, if an initiator is named.
    #[serde(default)]
    pub(super) target: Option<String>,
    /// Only in the answer to whoever attaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chap: Option<Chap>,
}

/// What an initiator proves itself with, and the target where the initiator asks for that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chap {
    pub(super) user: String,
    pub(super) secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target_user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) target_secret: Option<String>,
}

impl std::fmt::Debug for Chap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chap").field("user", &self.user).finish_non_exhaustive()
    }
}

/// DRBD's words for roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RoleWord {
    Primary,
    Secondary,
    Promoting,
    Unknown,
}

/// DRBD's words for disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum DiskWord {
    UpToDate,
    Outdated,
    Inconsistent,
    Failed,
    Diskless,
    Unknown,
}

impl From<Role> for RoleWord {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => Self::Primary,
            Role::Secondary => Self::Secondary,
            Role::Promoting => Self::Promoting,
            Role::Unknown => Self::Unknown,
        }
    }
}

impl From<DiskState> for DiskWord {
    fn from(disk: DiskState) -> Self {
        match disk {
            DiskState::UpToDate => Self::UpToDate,
            DiskState::Outdated => Self::Outdated,
            DiskState::Inconsistent => Self::Inconsistent,
            DiskState::Failed => Self::Failed,
            DiskState::Unknown => Self::Unknown,
        }
    }
}

/// Of all volumes of this node, or of the one that is called so.
pub(super) async fn own(state: &State, key: Option<&str>) -> Reports {
    let entries = state.catalog().entries().into_iter().filter(|entry| key.is_none_or(|key| is_called(entry, key)));
    Reports { replicas: join_all(entries.map(|entry| report(state, entry))).await }
}

pub(super) fn is_called(entry: &Entry, key: &str) -> bool {
    let name = entry.definition.as_ref().map(|definition| definition.name.as_str());
    name == Some(key) || key.parse() == Ok(entry.uuid)
}

async fn report(state: &State, entry: Entry) -> Report {
    let Entry { uuid, definition, trouble, pool: _ } = entry;
    let seen = state.node().look(replication::VolumeId(uuid.as_u128())).await;
    let replica = seen.map(|seen| ReplicaReport::of(uuid, definition.as_ref(), &seen));
    Report { uuid, definition, trouble, replica }
}

impl ReplicaReport {
    fn of(uuid: Uuid, definition: Option<&Definition>, seen: &Seen) -> Self {
        let Seen { status, control, clients, .. } = seen;
        Self {
            role: status.role.into(),
            disk: status.disk.into(),
            suspect: status.suspect,
            serving: status.serving,
            why: status.why.as_ref().map(|why| in_words(why, definition)),
            full: status.full,
            generation: status.record.generation.0,
            epoch: status.record.epoch,
            primary: status.record.primary.map(Place::place),
            in_sync: places(status.record.in_sync()),
            control: control.version,
            attachments: control.attachments.iter().map(|it| Attachment::of(uuid, it)).collect(),
            peers: status.peers.iter().map(PeerReport::of).collect(),
            clients: *clients,
            requests: status.requests,
        }
    }

    pub(super) fn is_primary(&self) -> bool {
        self.role == RoleWord::Primary
    }
}

/// The replica knows its peers by their places; people know them by name.
fn in_words(why: &Why, definition: Option<&Definition>) -> String {
    let name = |place: Place| definition.map_or_else(|| place.to_string(), |definition| definition.name_of(place));
    let names = |nodes: &Nodes| nodes.iter().map(name).collect::<Vec<_>>().join(", ");
    match why {
        Why::PrimaryAway(node) => format!("{} is Primary and away, and nobody takes over unasked", name(*node)),
        Why::Frozen(nodes) => format!("frozen: {} missing", names(nodes)),
        Why::NoLease(nodes) => format!("waits for {} to answer a heartbeat", names(nodes)),
        Why::WaitsForTheArbiter
        | Why::Held(_)
        | Why::DiskFailed
        | Why::Blank
        | Why::Suspect
        | Why::NotInSync
        | Why::NobodyIsPrimary
        | Why::Grace(_)
        | Why::Promoting
        | Why::TakingOver
        | Why::Unsettled
        | Why::HandingOver
        | Why::Full
        | Why::ShuttingDown => why.to_string(),
    }
}

fn places(nodes: Nodes) -> Vec<u8> {
    nodes.iter().map(Place::place).collect()
}

impl PeerReport {
    fn of(peer: &PeerStatus) -> Self {
        Self {
            place: peer.node.place(),
            connected: peer.connected,
            disk: peer.disk.into(),
            missing_bytes: bytes(peer.missing_blocks),
            resync: peer.resync.map(|(left, total, began)| ResyncReport {
                left_bytes: bytes(left),
                total_bytes: bytes(total),
                lasted_ms: milliseconds(Time(boottime_ns()).since(began)),
            }),
        }
    }
}

impl Attachment {
    pub(super) fn of(volume: Uuid, it: &replication::Attachment) -> Self {
        let id = Uuid::from_u128(it.id);
        Self {
            id,
            host: it.host.clone(),
            initiator: (!it.initiator.is_empty()).then(|| it.initiator.clone()),
            read_only: it.read_only,
            epoch: it.epoch,
            revoked: it.revoked,
            export: format!("{volume}/{id}"),
            target: (!it.initiator.is_empty()).then(|| target_name(VolumeId(volume.as_u128()))),
            chap: None,
        }
    }

    /// With its secrets.
    pub(super) fn with_secrets(volume: Uuid, it: &replication::Attachment) -> Self {
        Self { chap: it.chap.as_ref().map(Chap::of), ..Self::of(volume, it) }
    }
}

impl Chap {
    pub(super) fn of(chap: &replication::Chap) -> Self {
        let (target_user, target_secret) = chap.target.clone().map(|(user, secret)| (user, secret.0)).unzip();
        Self { user: chap.user.clone(), secret: chap.secret.0.clone(), target_user, target_secret }
    }
}

fn bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(u64::from(BLOCK_BYTES))
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Why a volume does not open, with its causes.
pub(super) fn trouble(error: &VolumeError) -> String {
    story(error)
}
