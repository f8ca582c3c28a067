//! Looks at the instances of a host with an incident: who is on it, who moves away, and where those are that have left.
//!
//! Nova does the work of moving them on the same machines that answer us, so each look is asked for only when it tells something new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use failover::{
    GroupId, Host, Incident, InstanceId, InstanceSeen, InstancesSeen, Listing, Look, MigrationId, MigrationSeen,
    Migrations, MoveState, NovaSeen, Phase, Place, Stage, Task, Time, VmState, looks_wanted,
};
use futures::{StreamExt, TryStreamExt, stream};
use openstack_client::{
    Cloud, ComputeService, Error, GroupPolicy, HypervisorId, Migration, MigrationFilter, MigrationKind,
    MigrationStatus, PowerState, Root, Server, ServerId, ServerRow, ServiceId, TaskState, chain,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::sleep;
use uuid::Uuid;

use crate::clock::Clock;
use crate::conductor::Event;
use crate::desk::Board;

const TICK: Duration = Duration::from_millis(150);
const MIGRATIONS_EVERY: Duration = Duration::from_secs(1);
const LISTING_EVERY: Duration = Duration::from_secs(20);
/// While something waits for a newer look.
const LISTING_SOON: Duration = Duration::from_secs(4);
const LISTING_BEFORE_THE_FENCE: Duration = Duration::from_secs(30);
const TRAITS_EVERY: Duration = Duration::from_secs(2);
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);
/// Nova's transactions end a little after the time that they carry.
const OVERLAP: chrono::TimeDelta = chrono::TimeDelta::seconds(20);
const LOOKS_AT_ONCE: usize = 4;
/// A look at one instance that told nothing new, or nothing at all, is not repeated before.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Hosts that are only suspected and looked at at the same time: when a network fails all of them are, and Nova is to bear it.
const SUSPECTS_AT_ONCE: usize = 4;
/// How the names of Octavia's instances begin.
const AMPHORA: &str = "amphora-";
/// Metadata: what an owner may say of one instance.
const PRIORITY: &str = "tandem:priority";
const ROOT_DISK: &str = "tandem:root_disk";

/// How instances are judged while they are read.
#[derive(Debug, Clone)]
pub struct Reader {
    pub cloud: Cloud,
    pub clock: Clock,
    pub metadata_key: Arc<str>,
    /// Suspects take turns; a host whose instances are moved waits for none of them.
    pub turns: Turns,
}

/// Clones share the same turns.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SUSPECTS_AT_ONCE)))
    }
}

impl Turns {
    /// None if its turn has not come.
    fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// One host under watch, until its incident is closed.
#[derive(Debug)]
pub struct Survey {
    reader: Reader,
    host: Host,
    board: watch::Receiver<Arc<Board>>,
    events: mpsc::Sender<Event>,
    seen: InstancesSeen,
    looked: BTreeMap<InstanceId, Time>,
    rows: BTreeMap<MigrationId, (MigrationSeen, DateTime<Utc>)>,
    newest: Option<DateTime<Utc>>,
    node: Option<HypervisorId>,
    traits_read: Option<Time>,
    complained: Option<String>,
}

/// What is worth asking now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Everything,
    Migrations,
    Traits,
    Nothing,
}

impl Survey {
    pub fn new(reader: Reader, host: Host, board: watch::Receiver<Arc<Board>>, events: mpsc::Sender<Event>) -> Self {
        Self {
            reader,
            host,
            board,
            events,
            seen: InstancesSeen::default(),
            looked: BTreeMap::new(),
            rows: BTreeMap::new(),
            newest: None,
            node: None,
            traits_read: None,
            complained: None,
        }
    }

    pub async fn run(mut self) {
        loop {
            let board = self.board.borrow().clone();
            let Some(incident) = board.ledger.open_incident(&self.host) else { return };
            if let Err(error) = self.look(incident, &board).await {
                self.complain(&error);
                sleep(AFTER_AN_ERROR).await;
            }
            sleep(TICK).await;
        }
    }

    fn complain(&mut self, why: &str) {
        if self.complained.as_deref() != Some(why) {
            tracing::warn!(host = %self.host, why, "its instances cannot be looked at");
            self.complained = Some(why.to_owned());
        }
    }

    async fn look(&mut self, incident: &Incident, board: &Board) -> Result<(), String> {
        match self.due(incident) {
            Due::Nothing => {}
            Due::Everything => {
                // Not waited for: meanwhile it may have become one whose instances are moved.
                let turn = incident.phase.is_before_the_fence().then(|| self.reader.turns.take());
                if matches!(turn, Some(None)) {
                    return Ok(());
                }
                self.everything(board).await?;
            }
            Due::Migrations => {
                let at = self.reader.clock.now();
                self.changed_migrations().await.map_err(|error| chain(&error))?;
                self.seen.migrations = Some(Arc::new(self.migrations(at)));
            }
            Due::Traits => return self.traits().await.map_err(|error| chain(&error)),
        }
        let looked = self.looks(incident).await;
        if looked || self.due(incident) == Due::Nothing {
            self.publish().await;
        }
        self.complained = None;
        Ok(())
    }

    fn due(&self, incident: &Incident) -> Due {
        let now = self.reader.clock.now();
        let older = |at: Option<Time>, span| at.is_none_or(|at| now.since(at) >= span);
        let listed = self.seen.listing.as_ref().map(|listing| listing.at);
        let everything = |span| if older(listed, span) { Due::Everything } else { Due::Nothing };
        match incident.phase {
            Phase::Suspected | Phase::Confirmed | Phase::Fencing | Phase::Fenced | Phase::ForcedDown => {
                everything(LISTING_BEFORE_THE_FENCE)
            }
            Phase::Evacuating if listed.is_none_or(|at| at <= incident.phase_since) => Due::Everything,
            Phase::Evacuating => {
                let span = if waits_for_a_look(incident) { LISTING_SOON } else { LISTING_EVERY };
                let migrated = self.seen.migrations.as_ref().map(|migrations| migrations.at);
                match everything(span) {
                    Due::Nothing if older(migrated, MIGRATIONS_EVERY) && is_moving(incident) => Due::Migrations,
                    due => due,
                }
            }
            Phase::RestartingGuests => everything(LISTING_SOON),
            Phase::Reintegrating if older(self.traits_read, TRAITS_EVERY) => Due::Traits,
            Phase::Recovered | Phase::PartlyRecovered | Phase::HostReturned | Phase::Reintegrating | Phase::Closed => {
                Due::Nothing
            }
        }
    }

    /// The instances first, then the migrations: one that began in between shows.
    async fn everything(&mut self, board: &Board) -> Result<(), String> {
        if board.seen.hosts.get(&self.host).is_none_or(|seen| seen.nova == NovaSeen::NoData) {
            return Err("Nova's cell of it does not answer".to_owned());
        }
        let listing = self.reader.listing(&self.host).await?;
        let at = self.reader.clock.now();
        let changed = if self.newest.is_some() { self.touched_migrations().await } else { self.all_migrations().await };
        changed.map_err(|error| chain(&error))?;
        // Nova leaves out the migrations of a cell that is silent just then, and says nothing of it.
        self.reader.see_that_its_cell_answers(&self.host).await?;
        self.seen.listing = Some(Arc::new(listing));
        self.seen.migrations = Some(Arc::new(self.migrations(at)));
        Ok(())
    }

    async fn all_migrations(&mut self) -> Result<(), Error> {
        let filter = MigrationFilter { host: Some(self.host.name.to_string()), ..MigrationFilter::default() };
        self.take(filter).await
    }

    /// What has changed, and what Nova has only just accepted: until it is touched again it has no `updated_at` to be found by.
    async fn touched_migrations(&mut self) -> Result<(), Error> {
        self.changed_migrations().await?;
        let host = Some(self.host.name.to_string());
        let (kind, status) = (Some(MigrationKind::Evacuation), Some(MigrationStatus::Accepted));
        self.take(MigrationFilter { host, kind, status, ..MigrationFilter::default() }).await
    }

    async fn changed_migrations(&mut self) -> Result<(), Error> {
        let host = Some(self.host.name.to_string());
        let changed_since = self.newest.map(|newest| newest - OVERLAP);
        self.take(MigrationFilter { host, changed_since, ..MigrationFilter::default() }).await
    }

    async fn take(&mut self, filter: MigrationFilter) -> Result<(), Error> {
        let rows: Vec<Migration> = self.reader.cloud.migrations(&filter).try_collect().await?;
        let board = self.board.borrow().clone();
        let host_of = |name: &Option<String>| name.as_deref().map(|name| known(&board, name));
        for row in rows {
            let touched = row.updated_at.unwrap_or(row.created_at);
            self.newest = self.newest.max(Some(touched));
            let seen = MigrationSeen {
                id: MigrationId(row.uuid.as_u128()),
                instance: InstanceId(row.server.0.as_u128()),
                evacuation: row.kind == MigrationKind::Evacuation,
                status: row.status.as_str().into(),
                stage: stage(&row),
                source: host_of(&row.source),
                destination: host_of(&row.destination),
            };
            self.rows.insert(seen.id, (seen, row.created_at));
        }
        self.newest = self.newest.or(DateTime::from_timestamp(0, 0));
        Ok(())
    }

    /// The newest first.
    fn migrations(&self, at: Time) -> Migrations {
        let mut rows: Vec<&(MigrationSeen, DateTime<Utc>)> = self.rows.values().collect();
        rows.sort_by_key(|(_, created)| std::cmp::Reverse(*created));
        Migrations { at, rows: rows.into_iter().map(|(seen, _)| seen.clone()).collect() }
    }

    async fn looks(&mut self, incident: &Incident) -> bool {
        let (Some(listing), Some(migrations)) = (&self.seen.listing, &self.seen.migrations) else { return false };
        let now = self.reader.clock.now();
        let may = |id: &InstanceId| self.looked.get(id).is_none_or(|at| now.since(*at) >= LOOK_AGAIN);
        let wanted: Vec<InstanceId> = looks_wanted(incident, listing, migrations).into_iter().filter(may).collect();
        self.looked.extend(wanted.iter().map(|id| (*id, now)));
        let board = self.board.borrow().clone();
        let looks = stream::iter(wanted).map(|id| one_look(&self.reader, &board, id)).buffer_unordered(LOOKS_AT_ONCE);
        let looks: Vec<_> = looks.collect().await;
        let any = !looks.is_empty();
        self.seen.looks.extend(looks.into_iter().flatten());
        any
    }

    async fn traits(&mut self) -> Result<(), Error> {
        self.traits_read = Some(self.reader.clock.now());
        let node = match self.node {
            Some(node) => node,
            None => {
                let service = ServiceId(Uuid::from_u128(self.host.service));
                let nodes: Vec<_> = self.reader.cloud.hypervisors().try_collect().await?;
                let Some(node) = nodes.into_iter().find(|node| node.service.id == service) else { return Ok(()) };
                *self.node.insert(node.id)
            }
        };
        let schedulable = !self.reader.cloud.traits(node).await?.names.contains("COMPUTE_STATUS_DISABLED");
        let _ = self.events.send(Event::Schedulable { host: self.host.clone(), schedulable }).await;
        Ok(())
    }

    async fn publish(&self) {
        let event = Event::Instances { host: self.host.clone(), seen: self.seen.clone() };
        let _ = self.events.send(event).await; // the conductor is gone: so are we, soon
    }
}

fn waits_for_a_look(incident: &Incident) -> bool {
    incident.moves.values().any(|moving| match &moving.state {
        MoveState::Waiting { why, .. } => why.is_some() || moving.attempt > 0,
        MoveState::Unknown { .. } => true,
        _ => false,
    })
}

fn is_moving(incident: &Incident) -> bool {
    incident.moves.values().any(|moving| !moving.state.is_settled() || moving.migration.is_some())
}

fn known(board: &Board, name: &str) -> Host {
    let mut named = board.seen.hosts.keys().filter(|host| *host.name == *name);
    match (named.next(), named.next()) {
        (Some(host), None) => host.clone(),
        // Of a host that Nova does not list, or lists twice, nothing can be proved.
        _ => Host { service: 0, name: name.into() },
    }
}

async fn one_look(reader: &Reader, board: &Board, id: InstanceId) -> Option<(InstanceId, Look)> {
    let at = reader.clock.now();
    let found = match reader.cloud.server(ServerId(Uuid::from_u128(id.0))).await {
        Ok(ServerRow::Known(server)) if is_deleted(&server) => None,
        Ok(ServerRow::Known(server)) => {
            Some(Place { host: server.host.as_deref().map(|name| known(board, name)), state: vm_state(&server) })
        }
        Err(Error::NotFound { .. }) => None,
        Ok(ServerRow::NoData { .. } | ServerRow::Unreadable { .. }) | Err(_) => return None,
    };
    Some((id, Look { at, found }))
}

impl Reader {
    /// Instances of a host, as Nova lists them. An empty list counts only while the cell of the host answers.
    pub async fn listing(&self, host: &Host) -> Result<Listing, String> {
        let told = |error: Error| chain(&error);
        let at = self.clock.now();
        let rows = self.cloud.servers_of_host(&host.name).try_collect::<Vec<ServerRow>>();
        let (rows, apart) = futures::try_join!(rows, self.apart()).map_err(told)?;
        if rows.is_empty() {
            self.see_that_its_cell_answers(host).await?;
        }
        let mut instances = BTreeMap::new();
        for row in rows {
            match row {
                ServerRow::Known(server) => {
                    let id = InstanceId(server.id.0.as_u128());
                    let groups = apart.get(&server.id).cloned().unwrap_or_default();
                    instances.insert(id, instance(&server, groups, &self.metadata_key));
                }
                ServerRow::NoData { .. } => return Err("Nova's cell of it does not answer".to_owned()),
                ServerRow::Unreadable { id: Some(id), why } => {
                    instances.insert(InstanceId(id.0.as_u128()), unreadable(id, &why));
                }
                ServerRow::Unreadable { id: None, why } => {
                    return Err(format!("Nova listed something that cannot be read: {why}"));
                }
            }
        }
        Ok(Listing { at, instances })
    }

    async fn see_that_its_cell_answers(&self, host: &Host) -> Result<(), String> {
        match self.cloud.compute_service(&host.name).await.map_err(|error| chain(&error))? {
            Some(ComputeService::Seen(_)) => Ok(()),
            Some(ComputeService::NoData { .. }) | None => Err("Nova's cell of it does not answer".to_owned()),
        }
    }

    /// The anti-affinity groups of each instance.
    async fn apart(&self) -> Result<BTreeMap<ServerId, BTreeSet<GroupId>>, Error> {
        let mut apart: BTreeMap<ServerId, BTreeSet<GroupId>> = BTreeMap::new();
        let groups = self.cloud.server_groups().await?;
        for group in groups.iter().filter(|group| group.policy == GroupPolicy::AntiAffinity) {
            for member in &group.members {
                apart.entry(*member).or_default().insert(GroupId(group.id.as_u128()));
            }
        }
        Ok(apart)
    }
}

fn instance(server: &Server, apart: BTreeSet<GroupId>, metadata_key: &str) -> InstanceSeen {
    InstanceSeen {
        name: server.name.as_str().into(),
        state: vm_state(server),
        task: server.task_state.as_ref().map_or(Task::None, task),
        running: server.power_state == PowerState::Running,
        launched: server.launched_at.is_some(),
        boots_from_volume: server.root == Root::Volume,
        wish: wish(server, metadata_key),
        expendable_root: server
            .metadata
            .get(ROOT_DISK)
            .is_some_and(|word| matches!(word.as_str(), "shared" | "expendable")),
        owned_by: server.name.starts_with(AMPHORA).then(|| "Octavia".into()),
        priority: server.metadata.get(PRIORITY).and_then(|number| number.parse().ok()).unwrap_or(0),
        created: Time(u64::try_from(server.created_at.timestamp_millis()).unwrap_or(0)),
        apart,
    }
}

/// One that says something we do not understand is named, and hides no other.
fn unreadable(id: ServerId, why: &str) -> InstanceSeen {
    InstanceSeen {
        name: id.to_string().into(),
        state: VmState::Other(format!("described in a way that cannot be read ({why})").into()),
        task: Task::None,
        running: false,
        launched: true,
        boots_from_volume: false,
        wish: None,
        expendable_root: false,
        owned_by: None,
        priority: 0,
        created: Time(0),
        apart: BTreeSet::new(),
    }
}

fn vm_state(server: &Server) -> VmState {
    use openstack_client::VmState as Nova;
    match &server.vm_state {
        Nova::Active => VmState::Active,
        Nova::Stopped => VmState::Stopped,
        Nova::Error => VmState::Error,
        other => VmState::Other(other.as_str().into()),
    }
}

fn is_deleted(server: &Server) -> bool {
    use openstack_client::VmState as Nova;
    matches!(server.vm_state, Nova::Deleted | Nova::SoftDeleted)
}

/// What only the host itself carries out ends with it.
fn task(task: &TaskState) -> Task {
    use TaskState as T;
    let word: Arc<str> = task.as_str().into();
    match task {
        T::Deleting => Task::Deleting,
        // An evacuation looks like this, too; a migration must say which hosts have to do with it.
        T::Rebuilding | T::RebuildingBlockDevices | T::RebuildSpawning => Task::Elsewhere(word),
        T::Scheduling | T::BlockDeviceMapping | T::Networking | T::Spawning => Task::OnItsHost(word),
        T::Rebooting | T::RebootPending | T::RebootStarted => Task::OnItsHost(word),
        T::RebootingHard | T::RebootPendingHard | T::RebootStartedHard => Task::OnItsHost(word),
        T::PoweringOn | T::PoweringOff => Task::OnItsHost(word),
        T::Migrating
        | T::PreparingResize
        | T::ResizeMigrating
        | T::ResizeMigrated
        | T::ResizeFinishing
        | T::ResizeReverting
        | T::ResizeConfirming => Task::Elsewhere(word),
        T::Other(other) => match other.as_str() {
            "pausing"
            | "unpausing"
            | "suspending"
            | "resuming"
            | "rescuing"
            | "unrescuing"
            | "updating_password"
            | "image_snapshot"
            | "image_snapshot_pending"
            | "image_pending_upload"
            | "image_uploading"
            | "image_backup"
            | "attaching"
            | "detaching" => Task::OnItsHost(word),
            "soft-deleting" => Task::Deleting,
            _ => Task::Elsewhere(word),
        },
    }
}

/// What the owner says by metadata, tag or flavor: the first that says anything.
fn wish(server: &Server, key: &str) -> Option<bool> {
    let yes_or_no = |word: &String| match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" | "on" => Some(true),
        "false" | "no" | "0" | "off" => Some(false),
        _ => None,
    };
    let tag = || server.tags.iter().any(|tag| tag == key).then_some(true);
    let flavor = || server.flavor.extra_specs.get(key).and_then(yes_or_no);
    server.metadata.get(key).and_then(yes_or_no).or_else(tag).or_else(flavor)
}

fn stage(row: &Migration) -> Stage {
    use MigrationStatus as S;
    match row.status {
        S::Done | S::Completed | S::Confirmed => Stage::Done,
        S::Finished if row.kind == MigrationKind::Evacuation => Stage::Done,
        S::Error | S::Failed | S::Cancelled | S::Reverted => Stage::Failed,
        _ => Stage::Unfinished,
    }
}
