//! A volume as the API shows it: the Primary's word on what is served, each replica's own on itself, and a peer's on one that is not reached.

use chrono::{DateTime, TimeDelta, Utc};
use replication::{Durability, Why};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::report::{Attachment, DiskWord, PeerReport, ReplicaReport, ResyncReport, RoleWord};
use super::survey::{Survey, Whole};
use crate::catalog::{Definition, Phase, ReplicaDefinition};
use crate::identity::rfc3339;

#[derive(Debug, Serialize)]
pub(super) struct Volumes {
    pub(super) volumes: Vec<Volume>,
    pub(super) unreachable: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Volume {
    pub(super) uuid: Uuid,
    pub(super) name: String,
    size_bytes: Option<u64>,
    #[serde(serialize_with = "durability")]
    durability: Option<Durability>,
    #[serde(serialize_with = "microseconds")]
    created_at: Option<DateTime<Utc>>,
    state: StateWord,
    generation: Option<u64>,
    epoch: Option<u64>,
    pub(super) primary: Option<String>,
    pub(super) serving: bool,
    why: Option<String>,
    replicas: Vec<Replica>,
    pub(super) attachments: Vec<Attachment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum StateWord {
    Creating,
    Ready,
    Deleting,
    /// Its files cannot be used on any node that is reached.
    Failed,
}

#[derive(Debug, Serialize)]
struct Replica {
    node: String,
    place: u8,
    pool: String,
    reached: bool,
    role: RoleWord,
    disk: DiskWord,
    /// None: nobody who is reached knows.
    in_sync: Option<bool>,
    suspect: bool,
    full: bool,
    connected: Vec<String>,
    missing_bytes: Option<u64>,
    resync: Option<Resync>,
    clients: usize,
    requests: usize,
}

#[derive(Debug, Serialize)]
struct Resync {
    left_bytes: u64,
    total_bytes: u64,
    #[serde(serialize_with = "microseconds")]
    began_at: Option<DateTime<Utc>>,
    bytes_per_s: Option<u64>,
    eta_s: Option<u64>,
}

fn microseconds<S: Serializer>(at: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error> {
    at.map(rfc3339).serialize(to)
}

fn durability<S: Serializer>(durability: &Option<Durability>, to: S) -> Result<S::Ok, S::Error> {
    match durability {
        Some(durability) => crate::catalog::durability::serialize(durability, to),
        None => to.serialize_none(),
    }
}

impl From<Survey> for Volumes {
    fn from(survey: Survey) -> Self {
        Self {
            volumes: survey.volumes.iter().map(Volume::from).collect(),
            unreachable: survey.silent.into_keys().collect(),
        }
    }
}

impl From<&Whole> for Volume {
    fn from(whole: &Whole) -> Self {
        let authority = whole.authority().map(|(_, replica)| replica);
        let definition = whole.definition.as_ref();
        let replicas = definition.map(|definition| &definition.replicas[..]).unwrap_or_default();
        Self {
            uuid: whole.uuid,
            name: whole.name(),
            size_bytes: definition.map(|definition| definition.size_bytes),
            durability: definition.map(|definition| definition.durability),
            created_at: definition.map(|definition| definition.created_at),
            state: state(whole),
            generation: authority.map(|replica| replica.generation),
            epoch: authority.map(|replica| replica.epoch),
            primary: whole.recorded_primary(),
            serving: whole.primary().is_some_and(|(_, replica)| replica.serving),
            why: why(whole),
            replicas: replicas.iter().map(|replica| Replica::of(whole, replica)).collect(),
            attachments: attachments(whole),
        }
    }
}

/// As the Primary has them, else the replica that has stored most changes.
pub(super) fn attachments(whole: &Whole) -> Vec<Attachment> {
    let told = whole.primary().or_else(|| whole.replicas().max_by_key(|(_, replica)| replica.control));
    told.map(|(_, replica)| replica.attachments.clone()).unwrap_or_default()
}

fn state(whole: &Whole) -> StateWord {
    let is_open = whole.replicas().next().is_some();
    let in_trouble = whole.reports.values().any(|report| report.trouble.is_some());
    match whole.definition.as_ref().map(|definition| definition.state) {
        Some(Phase::Creating) => StateWord::Creating,
        Some(Phase::Deleting) => StateWord::Deleting,
        Some(Phase::Ready) if is_open || !in_trouble => StateWord::Ready,
        Some(Phase::Ready) | None => StateWord::Failed,
    }
}

impl Replica {
    fn of(whole: &Whole, replica: &ReplicaDefinition) -> Self {
        let ReplicaDefinition { node, place, pool, disk_id: _ } = replica;
        let own = whole.replica(node);
        let authority = whole.authority();
        let of_peer = |(_, from): (&str, &ReplicaReport)| from.peers.iter().find(|peer| peer.place == *place).cloned();
        let peer: Option<PeerReport> = authority.filter(|(from, _)| from != node).and_then(of_peer);
        let is_member = |(_, from): (&str, &ReplicaReport)| from.in_sync.contains(place);
        let told_by_primary = whole.primary().is_some();
        Self {
            node: node.clone(),
            place: *place,
            pool: pool.clone(),
            reached: whole.reached.contains(node),
            role: own.map_or(RoleWord::Unknown, |own| own.role),
            disk: own.map_or_else(|| disk_of_closed(whole, node, peer.as_ref()), |own| own.disk),
            in_sync: authority.map(is_member),
            suspect: own.is_some_and(|own| own.suspect),
            full: own.is_some_and(|own| own.full),
            connected: own.map(|own| connected(whole, own)).unwrap_or_default(),
            missing_bytes: peer.as_ref().filter(|_| told_by_primary).map(|peer| peer.missing_bytes),
            resync: peer.and_then(|peer| peer.resync).map(Resync::from),
            clients: own.map_or(0, |own| own.clients),
            requests: own.map_or(0, |own| own.requests),
        }
    }
}

/// Of a replica that says nothing: what a peer says if its node is not reached, else that it cannot be opened or is not there.
fn disk_of_closed(whole: &Whole, node: &str, peer: Option<&PeerReport>) -> DiskWord {
    match whole.reports.get(node) {
        Some(report) if report.trouble.is_some() => DiskWord::Failed,
        Some(_) => DiskWord::Unknown,
        None if whole.reached.contains(node) => DiskWord::Diskless,
        None => peer.map_or(DiskWord::Unknown, |peer| peer.disk),
    }
}

fn connected(whole: &Whole, own: &ReplicaReport) -> Vec<String> {
    own.peers.iter().filter(|peer| peer.connected).map(|peer| whole.node_at(peer.place)).collect()
}

impl From<ResyncReport> for Resync {
    fn from(report: ResyncReport) -> Self {
        let ResyncReport { left_bytes, total_bytes, lasted_ms } = report;
        let done = u128::from(total_bytes.saturating_sub(left_bytes));
        let rate = (done * 1000).checked_div(u128::from(lasted_ms)).and_then(|rate| u64::try_from(rate).ok());
        let rate = rate.filter(|rate| *rate > 0);
        let lasted = TimeDelta::try_milliseconds(i64::try_from(lasted_ms).unwrap_or(0)).unwrap_or_default();
        Self {
            left_bytes,
            total_bytes,
            began_at: Utc::now().checked_sub_signed(lasted),
            bytes_per_s: rate,
            eta_s: rate.map(|rate| left_bytes.div_ceil(rate)),
        }
    }
}

/// What it waits for, or what is wrong with it, in a sentence; None where all is well.
pub(super) fn why(whole: &Whole) -> Option<String> {
    let trouble =
        whole.reports.iter().filter_map(|(node, report)| Some(format!("{node}: {}", report.trouble.as_ref()?)));
    let trouble: Vec<String> = trouble.collect();
    let waiting = whole.definition.as_ref().and_then(|definition| waits_for(whole, definition));
    let all: Vec<String> = waiting.into_iter().chain(trouble).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// A node in sync whose pool is full: its Primary's writes wait for it.
fn full<'a>(whole: &'a Whole, primary: &ReplicaReport) -> Option<&'a str> {
    let counts = |node: &str| whole.place(node).is_some_and(|place| primary.in_sync.contains(&place));
    whole.replicas().find(|(node, replica)| replica.full && counts(node)).map(|(node, _)| node)
}

fn waits_for(whole: &Whole, definition: &Definition) -> Option<String> {
    match definition.state {
        Phase::Creating => return Some("create it again with the same uuid to go on, or delete it".to_owned()),
        Phase::Deleting => return Some("delete it again to go on".to_owned()),
        Phase::Ready => {}
    }
    let Some((node, replica)) = whole.authority() else {
        let missing = whole.missing();
        return Some(match missing.is_empty() {
            true => "it is open on no node".to_owned(),
            false => format!("not reached: {}", missing.join(", ")),
        });
    };
    if replica.serving {
        let own = replica.why.as_ref().map(|why| format!("{node}: {why}"));
        return own.or_else(|| full(whole, replica).map(|node| format!("{node}: {}", Why::Full)));
    }
    // Who is about to serve knows more than who only waits.
    let promoting = whole.replicas().find(|(_, replica)| replica.role == RoleWord::Promoting);
    let (node, replica) = promoting.filter(|_| !replica.is_primary()).unwrap_or((node, replica));
    let away = whole.recorded_primary().filter(|primary| !whole.reached.contains(primary));
    match (&replica.why, away) {
        (Some(why), _) => Some(format!("{node}: {why}")),
        (None, Some(primary)) => Some(format!("its Primary, {primary}, is not reached")),
        (None, None) => Some(format!("{node} is led by a Primary that this node does not reach")),
    }
}
