//! Nova: compute services, servers, migrations, instance actions, server groups, aggregates, hypervisors.
//!
//! Field by field from Nova's API reference and its microversion history; a name that differs from ours stands in the `rename` beside it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Link, Page, Row, has_next, maybe_time, rows, time, uuid_ids, words};
use crate::error::RequestId;

uuid_ids! {
    /// A compute service.
    ServiceId,
    /// A server, which is what the API calls an instance.
    ServerId,
    /// A hypervisor, and the resource provider in Placement that stands for the same compute node.
    HypervisorId,
}

// ---- compute services ----

#[derive(Debug, Deserialize)]
pub(crate) struct Services {
    #[serde(deserialize_with = "rows")]
    pub(crate) services: Vec<ComputeService>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UpdatedService {
    pub(crate) service: Service,
}

/// A row of the list of compute services.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawService")]
pub enum ComputeService {
    Seen(Service),
    /// Its cell does not answer (since 2.69 Nova lists such rows without `state`): not down, but *no data*.
    NoData {
        host: String,
    },
}

/// A compute service as its cell's database has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawService")]
pub struct Service {
    pub id: ServiceId,
    pub host: String,
    pub zone: Option<String>,
    pub state: ServiceState,
    pub status: ServiceStatus,
    pub forced_down: bool,
    /// Moves with each report of the service, and also when an administrator edits the row: not a heartbeat.
    pub updated_at: Option<DateTime<Utc>>,
}

words! {
    /// Whether Nova has heard from the service within its `service_down_time`; `down` also while it is forced down.
    ServiceState {
        Up = "up",
        Down = "down",
    }
}

/// Whether the scheduler may choose the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceStatus {
    Enabled,
    Disabled { reason: Option<String> },
}

impl ComputeService {
    pub fn host(&self) -> &str {
        match self {
            Self::Seen(service) => &service.host,
            Self::NoData { host } => host,
        }
    }
}

impl Row for ComputeService {
    fn unreadable(row: &RawValue, why: String) -> Option<Self> {
        #[derive(Deserialize)]
        struct Host {
            host: String,
        }
        let host = serde_json::from_str::<Host>(row.get()).ok()?.host;
        tracing::warn!(host, why, "a compute service that cannot be read counts as no data");
        Some(Self::NoData { host })
    }
}

#[derive(Deserialize)]
struct RawService {
    id: Option<ServiceId>,
    host: String,
    zone: Option<String>,
    state: Option<ServiceState>,
    status: String,
    disabled_reason: Option<String>,
    forced_down: Option<bool>,
    #[serde(default, deserialize_with = "maybe_time")]
    updated_at: Option<DateTime<Utc>>,
}

impl From<RawService> for ComputeService {
    fn from(raw: RawService) -> Self {
        let host = raw.host.clone();
        Service::try_from(raw).map_or(Self::NoData { host }, Self::Seen)
    }
}

impl TryFrom<RawService> for Service {
    type Error = &'static str;

    fn try_from(raw: RawService) -> Result<Self, &'static str> {
        let (Some(id), Some(state)) = (raw.id, raw.state) else { return Err("a compute service without id or state") };
        let status = match raw.status.as_str() {
            "enabled" => ServiceStatus::Enabled,
            "disabled" => ServiceStatus::Disabled { reason: raw.disabled_reason },
            _ => return Err("a compute service that is neither enabled nor disabled"),
        };
        let (forced_down, updated_at) = (raw.forced_down.unwrap_or(false), raw.updated_at);
        Ok(Self { id, host: raw.host, zone: raw.zone, state, status, forced_down, updated_at })
    }
}

// ---- servers ----

#[derive(Debug, Deserialize)]
pub(crate) struct Servers {
    #[serde(deserialize_with = "rows")]
    servers: Vec<ServerRow>,
    #[serde(default)]
    servers_links: Vec<Link>,
}

impl Page for Servers {
    type Item = ServerRow;

    fn has_next(&self) -> bool {
        has_next(&self.servers_links)
    }

    fn into_items(self) -> Vec<ServerRow> {
        self.servers
    }

    fn marker(row: &ServerRow) -> Option<String> {
        row.id().map(|id| id.to_string())
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneServer {
    pub(crate) server: ServerRow,
}

/// A server as a list or a look at one gives it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RawServer")]
pub enum ServerRow {
    Known(Box<Server>),
    /// Its cell does not answer: the API's own database knows little more than that it exists (2.69).
    NoData {
        id: ServerId,
    },
    /// Nova said something of it that we do not understand. In a list only: one such row must not hide the others.
    Unreadable {
        id: Option<ServerId>,
        why: String,
    },
}

impl ServerRow {
    /// None if not even that can be read.
    pub fn id(&self) -> Option<ServerId> {
        match self {
            Self::Known(server) => Some(server.id),
            Self::NoData { id } => Some(*id),
            Self::Unreadable { id, .. } => *id,
        }
    }
}

impl Row for ServerRow {
    fn unreadable(row: &RawValue, why: String) -> Option<Self> {
        #[derive(Deserialize)]
        struct Id {
            id: ServerId,
        }
        let id = serde_json::from_str::<Id>(row.get()).ok().map(|row| row.id);
        Some(Self::Unreadable { id, why })
    }
}

/// An instance, with what it takes to decide about its evacuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub id: ServerId,
    pub name: String,
    pub project_id: String,
    pub user_id: String,
    /// ACTIVE, SHUTOFF, ERROR, ...: what the API makes of vm_state and task_state for its users.
    pub status: String,
    pub vm_state: VmState,
    pub task_state: Option<TaskState>,
    pub power_state: PowerState,
    /// The host that it is on; changes last in an evacuation.
    pub host: Option<String>,
    pub hypervisor_hostname: Option<String>,
    pub availability_zone: Option<String>,
    pub root: Root,
    pub root_device: Option<String>,
    pub volumes: Vec<AttachedVolume>,
    pub metadata: BTreeMap<String, String>,
    pub tags: Vec<String>,
    pub flavor: Flavor,
    pub locked: bool,
    /// Since 2.73, where the cloud has it.
    pub locked_reason: Option<String>,
    pub created_at: DateTime<Utc>,
    /// Unset until it ran for the first time; without it Nova refuses to evacuate.
    pub launched_at: Option<DateTime<Utc>>,
    /// The ids of its server groups; only a look at one server tells, a list does not (2.71).
    pub server_groups: Option<Vec<Uuid>>,
}

/// What an instance boots from. Nova's API cannot tell whether an image's disk is on shared storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    Image(String),
    /// `image` is the empty string: the root disk is a volume.
    Volume,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AttachedVolume {
    pub id: Uuid,
    #[serde(default)]
    pub delete_on_termination: bool,
}

/// A flavor as it was when the instance was created or last resized.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Flavor {
    #[serde(rename = "original_name")]
    pub name: String,
    pub vcpus: u32,
    #[serde(rename = "ram")]
    pub ram_mib: u64,
    #[serde(rename = "disk")]
    pub disk_gib: u64,
    #[serde(rename = "ephemeral")]
    pub ephemeral_gib: u64,
    #[serde(rename = "swap")]
    pub swap_mib: u64,
    #[serde(default)]
    pub extra_specs: BTreeMap<String, String>,
}

words! {
    /// Where an instance is in its life (`OS-EXT-STS:vm_state`).
    VmState {
        Active = "active",
        Building = "building",
        Paused = "paused",
        Suspended = "suspended",
        Stopped = "stopped",
        Rescued = "rescued",
        Resized = "resized",
        SoftDeleted = "soft-delete",
        Deleted = "deleted",
        Error = "error",
        Shelved = "shelved",
        ShelvedOffloaded = "shelved_offloaded",
    }
}

words! {
    /// What Nova is doing to an instance (`OS-EXT-STS:task_state`).
    TaskState {
        Scheduling = "scheduling",
        BlockDeviceMapping = "block_device_mapping",
        Networking = "networking",
        Spawning = "spawning",
        Rebuilding = "rebuilding",
        RebuildingBlockDevices = "rebuild_block_device_mapping",
        RebuildSpawning = "rebuild_spawning",
        Migrating = "migrating",
        PreparingResize = "resize_prep",
        ResizeMigrating = "resize_migrating",
        ResizeMigrated = "resize_migrated",
        ResizeFinishing = "resize_finish",
        ResizeReverting = "resize_reverting",
        ResizeConfirming = "resize_confirming",
        Rebooting = "rebooting",
        RebootPending = "reboot_pending",
        RebootStarted = "reboot_started",
        RebootingHard = "rebooting_hard",
        RebootPendingHard = "reboot_pending_hard",
        RebootStartedHard = "reboot_started_hard",
        PoweringOn = "powering-on",
        PoweringOff = "powering-off",
        Deleting = "deleting",
    }
}

/// What the hypervisor said last about the guest (`OS-EXT-STS:power_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    NoState,
    Running,
    Paused,
    Shutdown,
    Crashed,
    Suspended,
    Other(i64),
}

impl From<i64> for PowerState {
    fn from(number: i64) -> Self {
        match number {
            0 => Self::NoState,
            1 => Self::Running,
            3 => Self::Paused,
            4 => Self::Shutdown,
            6 => Self::Crashed,
            7 => Self::Suspended,
            other => Self::Other(other),
        }
    }
}

/// Of two shapes: a server of a down cell has `status` UNKNOWN and no vm_state. All is optional, so that a look at the parsed row tells them
/// apart: trying one shape after the other would cost each row a second parse.
#[derive(Deserialize)]
struct RawServer {
    id: ServerId,
    status: String,
    name: Option<String>,
    tenant_id: Option<String>,
    user_id: Option<String>,
    #[serde(rename = "OS-EXT-STS:vm_state")]
    vm_state: Option<VmState>,
    #[serde(rename = "OS-EXT-STS:task_state")]
    task_state: Option<TaskState>,
    /// Null until a hypervisor has spoken of it.
    #[serde(rename = "OS-EXT-STS:power_state")]
    power_state: Option<i64>,
    #[serde(rename = "OS-EXT-SRV-ATTR:host")]
    host: Option<String>,
    #[serde(rename = "OS-EXT-SRV-ATTR:hypervisor_hostname")]
    hypervisor_hostname: Option<String>,
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    availability_zone: Option<String>,
    #[serde(rename = "OS-EXT-SRV-ATTR:root_device_name")]
    root_device: Option<String>,
    #[serde(default, deserialize_with = "root")]
    image: Option<Root>,
    #[serde(default, rename = "os-extended-volumes:volumes_attached")]
    volumes: Vec<AttachedVolume>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    tags: Vec<String>,
    flavor: Option<Flavor>,
    #[serde(default)]
    locked: bool,
    locked_reason: Option<String>,
    #[serde(default, deserialize_with = "maybe_time")]
    created: Option<DateTime<Utc>>,
    #[serde(default, rename = "OS-SRV-USG:launched_at", deserialize_with = "maybe_time")]
    launched_at: Option<DateTime<Utc>>,
    server_groups: Option<Vec<Uuid>>,
}

impl TryFrom<RawServer> for ServerRow {
    type Error = &'static str;

    fn try_from(raw: RawServer) -> Result<Self, &'static str> {
        if raw.vm_state.is_none() && raw.status == "UNKNOWN" {
            return Ok(Self::NoData { id: raw.id });
        }
        let server = Server {
            id: raw.id,
            name: raw.name.ok_or("a server without name")?,
            project_id: raw.tenant_id.ok_or("a server without tenant_id")?,
            user_id: raw.user_id.ok_or("a server without user_id")?,
            status: raw.status,
            vm_state: raw.vm_state.ok_or("a server without vm_state; has the user the role admin?")?,
            task_state: raw.task_state,
            power_state: raw.power_state.map_or(PowerState::NoState, PowerState::from),
            host: raw.host,
            hypervisor_hostname: raw.hypervisor_hostname,
            availability_zone: raw.availability_zone.filter(|zone| !zone.is_empty()),
            root: raw.image.ok_or("a server without image")?,
            root_device: raw.root_device,
            volumes: raw.volumes,
            metadata: raw.metadata,
            tags: raw.tags,
            flavor: raw.flavor.ok_or("a server without flavor")?,
            locked: raw.locked,
            locked_reason: raw.locked_reason,
            created_at: raw.created.ok_or("a server without created")?,
            launched_at: raw.launched_at,
            server_groups: raw.server_groups,
        };
        Ok(Self::Known(Box::new(server)))
    }
}

/// `""`, or `{"id": ...}`.
fn root<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Root>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Image {
        Image { id: String },
        Empty(#[expect(dead_code, reason = "only its shape matters")] String),
    }
    Ok(Some(match Image::deserialize(from)? {
        Image::Image { id } => Root::Image(id),
        Image::Empty(_) => Root::Volume,
    }))
}

// ---- migrations ----

#[derive(Debug, Deserialize)]
pub(crate) struct Migrations {
    migrations: Vec<Migration>,
    #[serde(default)]
    migrations_links: Vec<Link>,
}

impl Page for Migrations {
    type Item = Migration;

    fn has_next(&self) -> bool {
        has_next(&self.migrations_links)
    }

    fn into_items(self) -> Vec<Migration> {
        self.migrations
    }

    fn marker(migration: &Migration) -> Option<String> {
        Some(migration.uuid.to_string())
    }
}

/// A move of an instance from one host to another, also an evacuation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Migration {
    pub id: u64,
    pub uuid: Uuid,
    #[serde(rename = "instance_uuid")]
    pub server: ServerId,
    #[serde(rename = "migration_type")]
    pub kind: MigrationKind,
    pub status: MigrationStatus,
    #[serde(rename = "source_compute")]
    pub source: Option<String>,
    /// Unset until the scheduler has chosen.
    #[serde(rename = "dest_compute")]
    pub destination: Option<String>,
    #[serde(deserialize_with = "time")]
    pub created_at: DateTime<Utc>,
    #[serde(default, deserialize_with = "maybe_time")]
    pub updated_at: Option<DateTime<Utc>>,
}

words! {
    MigrationKind {
        Evacuation = "evacuation",
        LiveMigration = "live-migration",
        Migration = "migration",
        Resize = "resize",
    }
}

words! {
    /// How far a migration has come. An evacuation goes `accepted`, `pre-migrating`, `done`, and `completed` when its source host is back;
    /// or it ends as `error` (no host found) or `failed` (on the destination).
    MigrationStatus {
        Accepted = "accepted",
        Queued = "queued",
        Preparing = "preparing",
        PreMigrating = "pre-migrating",
        Migrating = "migrating",
        PostMigrating = "post-migrating",
        Running = "running",
        Finished = "finished",
        Done = "done",
        Completed = "completed",
        Confirming = "confirming",
        Confirmed = "confirmed",
        Reverting = "reverting",
        Reverted = "reverted",
        Cancelled = "cancelled",
        Error = "error",
        Failed = "failed",
    }
}

// ---- instance actions ----

#[derive(Debug, Deserialize)]
pub(crate) struct InstanceActions {
    #[serde(rename = "instanceActions")]
    pub(crate) actions: Vec<InstanceAction>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneInstanceAction {
    #[serde(rename = "instanceAction")]
    pub(crate) action: InstanceAction,
}

/// Something that was done to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceAction {
    /// evacuate, reboot, live-migration, ...
    pub action: String,
    pub request_id: RequestId,
    #[serde(deserialize_with = "time")]
    pub start_time: DateTime<Utc>,
    #[serde(default, deserialize_with = "maybe_time")]
    pub updated_at: Option<DateTime<Utc>>,
    /// What Nova says went wrong.
    pub message: Option<String>,
    /// Its steps; only a look at one action tells them.
    #[serde(default)]
    pub events: Vec<InstanceEvent>,
}

/// A step of an action, such as `compute_rebuild_instance`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceEvent {
    pub event: String,
    /// Unset while it runs; then Success or Error.
    pub result: Option<String>,
    #[serde(deserialize_with = "time")]
    pub start_time: DateTime<Utc>,
    #[serde(default, deserialize_with = "maybe_time")]
    pub finish_time: Option<DateTime<Utc>>,
    pub host: Option<String>,
    /// What went wrong, since 2.84.
    pub details: Option<String>,
}

// ---- server groups, aggregates, hypervisors ----

#[derive(Debug, Deserialize)]
pub(crate) struct ServerGroups {
    pub(crate) server_groups: Vec<ServerGroup>,
}

/// Instances that shall be together or apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ServerGroup {
    pub id: Uuid,
    pub name: String,
    pub policy: GroupPolicy,
    pub members: Vec<ServerId>,
    pub project_id: Option<String>,
    #[serde(default)]
    pub rules: GroupRules,
}

words! {
    GroupPolicy {
        Affinity = "affinity",
        AntiAffinity = "anti-affinity",
        SoftAffinity = "soft-affinity",
        SoftAntiAffinity = "soft-anti-affinity",
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct GroupRules {
    /// How many members of an anti-affinity group one host may carry; Nova takes 1 when it is unset.
    pub max_server_per_host: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Aggregates {
    pub(crate) aggregates: Vec<Aggregate>,
}

/// Hosts that belong together, perhaps as an availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Aggregate {
    pub id: u64,
    pub uuid: Uuid,
    pub name: String,
    pub availability_zone: Option<String>,
    pub hosts: Vec<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Hypervisors {
    hypervisors: Vec<Hypervisor>,
    #[serde(default)]
    hypervisors_links: Vec<Link>,
}

impl Page for Hypervisors {
    type Item = Hypervisor;

    fn has_next(&self) -> bool {
        has_next(&self.hypervisors_links)
    }

    fn into_items(self) -> Vec<Hypervisor> {
        self.hypervisors
    }

    fn marker(hypervisor: &Hypervisor) -> Option<String> {
        Some(hypervisor.id.to_string())
    }
}

/// A compute node. Its capacity stands in Placement, under the same id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Hypervisor {
    pub id: HypervisorId,
    #[serde(rename = "hypervisor_hostname")]
    pub hostname: String,
    /// QEMU, ironic, fake, ...
    #[serde(rename = "hypervisor_type")]
    pub kind: String,
    pub state: ServiceState,
    pub service: HypervisorService,
}

/// The compute service that a hypervisor belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HypervisorService {
    pub id: ServiceId,
    pub host: String,
}
