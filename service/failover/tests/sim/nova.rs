//! Nova, with the rules that failover depends on: who counts as up, what an evacuation goes through, and what is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use failover::{
    Act, Answer, GroupId, How, InstanceId, InstanceSeen, Listing, Look, MigrationId, MigrationSeen, Migrations, Place,
    Stage, Task, Time, VmState, disabled_reason,
};

use super::judge::{Promise, Reached};
use super::world::{Cloud, Event, HostId, World};

pub const REPORT_MS: u64 = 10_000;
pub const SERVICE_DOWN_MS: u64 = 60_000;
/// Nova's `sync_power_state_interval`.
const SYNC_MS: u64 = 600_000;

/// An instance, as Nova's database has it.
#[derive(Debug, Clone)]
pub struct Guest {
    pub name: Arc<str>,
    pub host: HostId,
    pub state: VmState,
    pub task: Task,
    pub running: bool,
    pub launched: bool,
    pub from_volume: bool,
    pub wish: Option<bool>,
    pub expendable: bool,
    pub owned_by: Option<Arc<str>>,
    pub priority: i32,
    pub group: Option<u128>,
    pub deleted: bool,
}

impl Guest {
    pub fn new(name: &str, host: HostId) -> Self {
        Self {
            name: name.into(),
            host,
            state: VmState::Active,
            task: Task::None,
            running: true,
            launched: true,
            from_volume: true,
            wish: None,
            expendable: false,
            owned_by: None,
            priority: 0,
            group: None,
            deleted: false,
        }
    }

    pub fn runs_at_first(&self) -> bool {
        self.state == VmState::Active && self.running
    }

    fn seen(&self, created: u64) -> InstanceSeen {
        InstanceSeen {
            name: self.name.clone(),
            state: self.state.clone(),
            task: self.task.clone(),
            running: self.running,
            launched: self.launched,
            boots_from_volume: self.from_volume,
            wish: self.wish,
            expendable_root: self.expendable,
            owned_by: self.owned_by.clone(),
            priority: self.priority,
            created: Time(created),
            apart: self.group.map(GroupId).into_iter().collect(),
        }
    }
}

#[derive(Debug, Default, Clone)]
pub struct Service {
    /// The beginning of the series of reports that goes on now.
    reports_from: Option<u64>,
    pub last_report: u64,
    pub edited_at: u64,
    pub forced_down: bool,
    pub forced_by_operator: bool,
    /// How often people edited it since it last reported: two edits look like reports to whoever cannot see who made them.
    pub edits_in_silence: u32,
    pub disabled: Option<Arc<str>>,
}

impl Service {
    fn settle(&mut self, now: u64) {
        if let Some(from) = self.reports_from
            && now >= from
        {
            self.last_report = self.last_report.max(now - (now - from) % REPORT_MS);
        }
    }

    pub fn updated_at(&self) -> u64 {
        self.last_report.max(self.edited_at)
    }

    pub fn is_up(&self, now: u64) -> bool {
        !self.forced_down && now.saturating_sub(self.last_report) <= SERVICE_DOWN_MS
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Tandem,
    Operator,
}

#[derive(Debug, Clone)]
pub struct Migration {
    pub instance: usize,
    pub evacuation: bool,
    pub status: &'static str,
    pub source: HostId,
    /// Where it goes; Nova tells once the destination has claimed it.
    pub chosen: Option<HostId>,
    pub told: bool,
    pub by: By,
    pub began: u64,
    /// The boot of the destination in which it was begun there.
    boot: u32,
}

impl Migration {
    pub fn stage(&self) -> Stage {
        match self.status {
            "done" | "completed" => Stage::Done,
            "error" | "failed" | "cancelled" => Stage::Failed,
            _ => Stage::Unfinished,
        }
    }
}

#[derive(Debug, Clone)]
pub enum NovaEvent {
    Schedules(usize),
    Arrives(usize),
    Spawns(usize),
    Done(usize),
    /// instance.host changes last.
    Moves(usize),
    Switches(usize),
    LiveEnds(usize),
    GuestStarts {
        instance: usize,
        host: HostId,
        boot: u32,
    },
    /// nova-compute notices which guests do not run.
    SyncsPower {
        host: HostId,
        boot: u32,
    },
}

#[derive(Debug)]
pub struct Nova {
    pub up: bool,
    /// Added to every answer.
    pub slow_ms: u64,
    /// Added until an evacuation is carried out.
    pub posts_slow_ms: u64,
    pub services: Vec<Service>,
    pub instances: Vec<Guest>,
    pub migrations: Vec<Migration>,
    /// Of each host: where instances were or are, and migrations had an end.
    pub at_host: Vec<BTreeSet<usize>>,
    pub migrations_at: Vec<BTreeSet<usize>>,
    /// Work for a destination whose nova-compute did not listen.
    waiting_casts: Vec<(HostId, usize)>,
    /// The next evacuations that go wrong.
    pub lose_answers: u32,
    pub lose_posts: u32,
    pub refuse_posts: u32,
    pub refuse_edits: u32,
    pub fail_at_destination: u32,
    /// Placement lags behind an enable.
    pub schedulable_lag_ms: u64,
    pub enabled_at: Vec<u64>,
    requests: u32,
}

impl Nova {
    pub fn new(cloud: &Cloud) -> Self {
        let mut at_host = vec![BTreeSet::new(); cloud.hosts];
        for (index, guest) in cloud.instances.iter().enumerate() {
            at_host[guest.host].insert(index);
        }
        let from = |host: usize| Some(1 + host as u64 * 1_700 % REPORT_MS);
        let services =
            (0..cloud.hosts).map(|host| Service { reports_from: from(host), ..Service::default() }).collect();
        Self {
            up: true,
            slow_ms: 0,
            posts_slow_ms: 0,
            services,
            instances: cloud.instances.clone(),
            migrations: Vec::new(),
            at_host,
            migrations_at: vec![BTreeSet::new(); cloud.hosts],
            waiting_casts: Vec::new(),
            lose_answers: 0,
            lose_posts: 0,
            refuse_posts: 0,
            refuse_edits: 0,
            fail_at_destination: 0,
            schedulable_lag_ms: 3_000,
            enabled_at: vec![0; cloud.hosts],
            requests: 0,
        }
    }

    pub fn id(index: usize) -> InstanceId {
        InstanceId(0x1_0000 + index as u128)
    }

    pub fn index(id: InstanceId) -> usize {
        usize::try_from(id.0 - 0x1_0000).expect("instances are numbered")
    }

    pub fn settle_service(&mut self, host: HostId, now: u64) {
        self.services[host].settle(now);
    }

    /// A nova-compute that begins to report does so at once; one that ends has said its last.
    pub fn reporting(&mut self, host: HostId, reports: bool, now: u64) {
        let service = &mut self.services[host];
        match (reports, service.reports_from) {
            (true, None) => (service.reports_from, service.edits_in_silence) = (Some(now + 500), 0),
            (false, Some(_)) => service.reports_from = None,
            _ => {}
        }
    }

    pub fn edited_by_operator(&mut self, host: HostId, now: u64) {
        let service = &mut self.services[host];
        service.edited_at = now;
        service.edits_in_silence += u32::from(service.reports_from.is_none());
    }

    fn put(&mut self, instance: usize, host: HostId) {
        let old = self.instances[instance].host;
        self.at_host[old].remove(&instance);
        self.at_host[host].insert(instance);
        self.instances[instance].host = host;
    }

    fn begin_migration(&mut self, migration: Migration) -> usize {
        let index = self.migrations.len();
        self.migrations_at[migration.source].insert(index);
        if let Some(to) = migration.chosen.filter(|_| migration.told) {
            self.migrations_at[to].insert(index);
        }
        self.migrations.push(migration);
        index
    }

    pub fn repaired(&mut self) {
        (self.up, self.slow_ms, self.posts_slow_ms) = (true, 0, 0);
        (self.lose_answers, self.lose_posts, self.refuse_posts) = (0, 0, 0);
        (self.refuse_edits, self.fail_at_destination) = (0, 0);
    }

    fn request(&mut self) -> Arc<str> {
        self.requests += 1;
        format!("req-{}", self.requests).into()
    }
}

impl World {
    pub fn listing(&self, host: HostId, at: Time) -> Listing {
        let instances = self.nova.at_host[host].iter().filter(|index| !self.nova.instances[**index].deleted);
        let seen = |index: &usize| (Nova::id(*index), self.nova.instances[*index].seen(*index as u64));
        Listing { at, instances: instances.map(seen).collect() }
    }

    pub fn migrations_of_host(&self, host: HostId, at: Time) -> Migrations {
        let rows = self.nova.migrations_at[host].iter().map(|index| self.migration_seen(*index)).collect();
        Migrations { at, rows }
    }

    fn migration_seen(&self, index: usize) -> MigrationSeen {
        let row = &self.nova.migrations[index];
        let name = |host: HostId| self.hosts[host].host.clone();
        MigrationSeen {
            id: MigrationId(0x9_0000 + index as u128),
            instance: Nova::id(row.instance),
            evacuation: row.evacuation,
            status: row.status.into(),
            stage: row.stage(),
            source: Some(name(row.source)),
            destination: row.chosen.filter(|_| row.told).map(name),
        }
    }

    pub fn look_at(&self, id: InstanceId, at: Time) -> Look {
        let guest = &self.nova.instances[Nova::index(id)];
        let place = Place { host: Some(self.hosts[guest.host].host.clone()), state: guest.state.clone() };
        Look { at, found: (!guest.deleted).then_some(place) }
    }

    pub fn schedulable(&self, host: HostId) -> bool {
        self.nova.services[host].disabled.is_none()
            && self.now >= self.nova.enabled_at[host] + self.nova.schedulable_lag_ms
    }

    /// What Nova says to an act that has arrived.
    pub fn nova_answers(&mut self, act: &Act) -> Answer {
        let host = self.host_id(&act.incident().host);
        match act {
            Act::PowerOff { .. } => Answer::NotSent { why: "that is no matter of Nova's".into() },
            Act::ForceDown { .. } | Act::Disable { .. } | Act::ClearForcedDown { .. } | Act::Enable { .. } => {
                self.nova_edits(act, host)
            }
            Act::Evacuate { instance, .. } => self.evacuate(Nova::index(*instance), By::Tandem),
            Act::Start { instance, how, .. } => self.start_guest(Nova::index(*instance), *how),
        }
    }

    fn nova_edits(&mut self, act: &Act, host: HostId) -> Answer {
        if self.nova.refuse_edits > 0 {
            self.nova.refuse_edits -= 1;
            return Answer::Refused { why: "Nova says 500".into() };
        }
        let now = self.now;
        let has_done =
            self.nova.migrations.iter().any(|row| row.evacuation && row.source == host && row.status == "done");
        let service = &mut self.nova.services[host];
        match act {
            Act::ForceDown { .. } => service.forced_down = true,
            Act::Disable { id } => {
                if service.is_up(now) && !self.hosts[host].is_reporting() {
                    self.judge.broken(
                        now,
                        Promise::ForcedDownFirst,
                        format!("disabling {} blocks for 60 s: Nova believes it up", id.host),
                    );
                }
                service.disabled = Some(disabled_reason(id).into());
            }
            Act::ClearForcedDown { .. } if has_done => {
                return Answer::Refused { why: "Nova says 400: it has evacuations that are done".into() };
            }
            Act::ClearForcedDown { .. } => (service.forced_down, service.forced_by_operator) = (false, false),
            Act::Enable { id } => {
                if service.disabled.as_deref().is_some_and(|reason| *reason != disabled_reason(id)) {
                    self.judge.broken(
                        now,
                        Promise::OthersWorkStays,
                        format!("{} is enabled, which somebody else had disabled", id.host),
                    );
                }
                service.disabled = None;
                self.nova.enabled_at[host] = now;
            }
            _ => {}
        }
        self.nova.services[host].edited_at = now;
        Answer::Done { request: None }
    }

    pub fn evacuate(&mut self, instance: usize, by: By) -> Answer {
        let guest = &self.nova.instances[instance];
        let source = guest.host;
        let refused = |why: &str| Answer::Refused { why: why.into() };
        if guest.deleted {
            return refused("Nova says 404: no such server");
        }
        if self.nova.services[source].is_up(self.now) {
            return refused("Nova says 400: the compute service is in use");
        }
        if !matches!(guest.state, VmState::Active | VmState::Stopped | VmState::Error) || !guest.launched {
            return refused("Nova says 409: not in this vm_state");
        }
        if by == By::Operator {
            self.judge_operator(instance);
        }
        if by == By::Tandem {
            self.judge_evacuation(instance, source);
            if self.nova.refuse_posts > 0 {
                self.nova.refuse_posts -= 1;
                return refused("Nova says 409: conflict");
            }
        }
        let migration = self.nova.begin_migration(Migration {
            instance,
            evacuation: true,
            status: "accepted",
            source,
            chosen: None,
            told: false,
            by,
            began: self.now,
            boot: 0,
        });
        self.nova.instances[instance].task = Task::Elsewhere("rebuilding".into());
        let takes = self.between(200, 1_500);
        self.after(takes, Event::Nova(NovaEvent::Schedules(migration)));
        Answer::Done { request: Some(self.nova.request()) }
    }

    fn start_guest(&mut self, instance: usize, how: How) -> Answer {
        let guest = &self.nova.instances[instance];
        let host = guest.host;
        if guest.deleted {
            return Answer::Refused { why: "Nova says 404: no such server".into() };
        }
        if how == How::Start && guest.state != VmState::Stopped {
            return Answer::Refused { why: "Nova says 409: it is not stopped".into() };
        }
        let task = if how == How::Start { "powering-on" } else { "rebooting_hard" };
        self.nova.instances[instance].task = Task::OnItsHost(task.into());
        let (boot, takes) = (self.hosts[host].boot, self.between(1_000, 4_000));
        self.after(takes, Event::Nova(NovaEvent::GuestStarts { instance, host, boot }));
        Answer::Done { request: Some(self.nova.request()) }
    }

    pub fn migrate_live(&mut self, instance: usize, to: HostId) {
        let guest = &self.nova.instances[instance];
        let from = guest.host;
        // The scheduler refuses a destination that is down or disabled.
        let service = &self.nova.services[to];
        if !service.is_up(self.now) || service.disabled.is_some() {
            return;
        }
        if self.hosts[to].kernel != super::host::Kernel::Alive
            || from == to
            || guest.deleted
            || guest.task != Task::None
            || !self.hosts[from].guests.contains(&instance)
        {
            return;
        }
        let migration = self.nova.begin_migration(Migration {
            instance,
            evacuation: false,
            status: "running",
            source: from,
            chosen: Some(to),
            told: true,
            by: By::Operator,
            began: self.now,
            boot: self.hosts[to].boot,
        });
        self.nova.instances[instance].task = Task::Elsewhere("migrating".into());
        let takes = self.between(4_000, 12_000);
        self.after(takes, Event::Nova(NovaEvent::Switches(migration)));
    }

    pub fn nova_goes_on(&mut self, event: NovaEvent) {
        match event {
            NovaEvent::Schedules(migration) => self.schedules(migration),
            NovaEvent::Arrives(migration) => self.arrives_at_destination(migration),
            NovaEvent::Spawns(migration) => self.spawns(migration),
            NovaEvent::Done(migration) => self.is_done(migration),
            NovaEvent::Moves(migration) => self.moves(migration),
            NovaEvent::Switches(migration) => self.switches(migration),
            NovaEvent::LiveEnds(migration) => self.live_ends(migration),
            NovaEvent::GuestStarts { instance, host, boot } => self.guest_starts(instance, host, boot),
            NovaEvent::SyncsPower { host, boot } => self.syncs_power(host, boot),
        }
    }

    fn schedules(&mut self, migration: usize) {
        let (instance, source) = (self.nova.migrations[migration].instance, self.nova.migrations[migration].source);
        let group = self.nova.instances[instance].group;
        let crowded = |host: HostId| {
            let near = self.nova.at_host[host].iter();
            group.is_some()
                && near.clone().any(|other| *other != instance && self.nova.instances[*other].group == group)
        };
        let fits: Vec<HostId> = (0..self.hosts.len())
            .filter(|host| {
                let service = &self.nova.services[*host];
                *host != source && service.is_up(self.now) && service.disabled.is_none() && !crowded(*host)
            })
            .collect();
        if fits.is_empty() {
            let (row, guest) = (&mut self.nova.migrations[migration], &mut self.nova.instances[instance]);
            row.status = "error";
            (guest.state, guest.task) = (VmState::Error, Task::None);
            return;
        }
        let least = |host: &HostId| (self.nova.at_host[*host].len(), *host);
        let to = if self.steady {
            *fits.iter().min_by_key(|host| least(host)).expect("some fit")
        } else {
            fits[self.rng.usize(0..fits.len())]
        };
        self.nova.migrations[migration].chosen = Some(to);
        let takes = self.between(200, 1_000);
        self.after(takes, Event::Nova(NovaEvent::Arrives(migration)));
    }

    /// The destination claims it; if nobody listens there, the message waits.
    fn arrives_at_destination(&mut self, migration: usize) {
        let Some(to) = self.nova.migrations[migration].chosen else { return };
        if self.nova.migrations[migration].stage() != Stage::Unfinished {
            return;
        }
        if !self.hosts[to].is_reporting() {
            self.nova.waiting_casts.push((to, migration));
            return;
        }
        let instance = self.nova.migrations[migration].instance;
        if !matches!(self.nova.instances[instance].task, Task::Elsewhere(_)) {
            self.nova.migrations[migration].status = "failed"; // its task_state is another: a message that comes too late
            return;
        }
        if self.nova.fail_at_destination > 0 {
            self.nova.fail_at_destination -= 1;
            self.nova.migrations[migration].status = "failed";
            let guest = &mut self.nova.instances[instance];
            (guest.state, guest.task) = (VmState::Error, Task::None);
            self.learn_destination(migration, to);
            return;
        }
        self.nova.migrations[migration].status = "pre-migrating";
        self.nova.migrations[migration].boot = self.hosts[to].boot;
        self.learn_destination(migration, to);
        let takes = self.between(1_500, 9_000);
        self.after(takes, Event::Nova(NovaEvent::Spawns(migration)));
    }

    fn learn_destination(&mut self, migration: usize, to: HostId) {
        self.nova.migrations[migration].told = true;
        self.nova.migrations_at[to].insert(migration);
    }

    pub fn lives_there(&self, migration: usize) -> bool {
        let row = &self.nova.migrations[migration];
        row.chosen.is_some_and(|to| self.hosts[to].boot == row.boot && self.hosts[to].can_write())
    }

    fn spawns(&mut self, migration: usize) {
        if !self.lives_there(migration) {
            return;
        }
        let row = &self.nova.migrations[migration];
        let (instance, to) = (row.instance, row.chosen.expect("it was chosen"));
        // Only what ran is started again; Nova keeps a stopped instance stopped.
        if self.nova.instances[instance].state != VmState::Stopped {
            self.guest_runs(instance, to);
        }
        let takes = self.between(500, 3_000);
        self.after(takes, Event::Nova(NovaEvent::Done(migration)));
    }

    pub fn guest_runs(&mut self, instance: usize, host: HostId) {
        self.hosts[host].lost.remove(&instance);
        let guests = &mut self.hosts[host].guests;
        if !guests.contains(&instance) {
            guests.push(instance);
        }
    }

    fn is_done(&mut self, migration: usize) {
        if !self.lives_there(migration) {
            return;
        }
        let to = self.nova.migrations[migration].chosen.expect("it was chosen");
        if !self.hosts[to].is_reporting() {
            return self.after(2_000, Event::Nova(NovaEvent::Done(migration))); // nova-compute cannot say so yet
        }
        self.nova.migrations[migration].status = "done";
        let takes = self.between(100, 900);
        self.after(takes, Event::Nova(NovaEvent::Moves(migration)));
    }

    fn moves(&mut self, migration: usize) {
        let row = &self.nova.migrations[migration];
        let (instance, to) = (row.instance, row.chosen.expect("it was chosen"));
        if row.by == By::Tandem {
            self.judge.reached.insert(Reached::Evacuated);
        }
        self.nova.put(instance, to);
        let runs = self.hosts[to].guests.contains(&instance);
        let guest = &mut self.nova.instances[instance];
        guest.task = Task::None;
        guest.running = runs;
        if runs {
            guest.state = VmState::Active;
        }
        let (guest, host) = (guest.name.clone(), self.hosts[to].host.clone());
        self.tell(|_| format!("* {guest} is on {host}"));
    }

    /// A live migration switches over: the copy runs on the other side, and Nova does not know yet.
    fn switches(&mut self, migration: usize) {
        let row = self.nova.migrations[migration].clone();
        let to = row.chosen.expect("a live migration has its destination");
        let source_lives = self.hosts[row.source].guests.contains(&row.instance) && self.hosts[row.source].can_write();
        if !source_lives {
            return;
        }
        if self.hosts[row.source].kernel != super::host::Kernel::Alive {
            return self.after(2_000, Event::Nova(NovaEvent::Switches(migration)));
        }
        if self.hosts[to].boot != row.boot
            || self.hosts[to].kernel != super::host::Kernel::Alive
            || !self.hosts[row.source].links[1]
        {
            self.nova.migrations[migration].status = "error";
            self.nova.instances[row.instance].task = Task::None;
            return;
        }
        self.hosts[row.source].guests.retain(|guest| *guest != row.instance);
        self.guest_runs(row.instance, to);
        let takes = self.between(1_000, 6_000);
        self.after(takes, Event::Nova(NovaEvent::LiveEnds(migration)));
    }

    fn live_ends(&mut self, migration: usize) {
        let row = self.nova.migrations[migration].clone();
        let to = row.chosen.expect("a live migration has its destination");
        if row.stage() != Stage::Unfinished || !self.hosts[row.source].power {
            return; // whoever died with the work half done says nothing
        }
        if !self.hosts[row.source].is_reporting() {
            if self.hosts[row.source].can_write() {
                self.after(2_000, Event::Nova(NovaEvent::LiveEnds(migration)));
            }
            return;
        }
        self.nova.migrations[migration].status = "completed";
        self.nova.put(row.instance, to);
        self.nova.instances[row.instance].task = Task::None;
    }

    fn guest_starts(&mut self, instance: usize, host: HostId, boot: u32) {
        let it = &self.hosts[host];
        if it.boot != boot || !it.is_reporting() || self.nova.instances[instance].host != host {
            return;
        }
        self.guest_runs(instance, host);
        let guest = &mut self.nova.instances[instance];
        (guest.state, guest.task, guest.running) = (VmState::Active, Task::None, true);
        let (guest, host) = (guest.name.clone(), self.hosts[host].host.clone());
        self.tell(|_| format!("* {guest} runs again on {host}"));
    }

    /// A nova-compute that starts destroys what was evacuated from it, completes those migrations, and takes up what waited for it.
    pub fn compute_started(&mut self, host: HostId) {
        let boot = self.hosts[host].boot;
        for row in self.nova.migrations.iter_mut().filter(|row| row.evacuation && row.source == host) {
            if matches!(row.status, "accepted" | "pre-migrating" | "done") {
                self.hosts[host].guests.retain(|guest| *guest != row.instance);
            }
            if row.status == "done" {
                row.status = "completed";
            }
        }
        let (mine, others) = std::mem::take(&mut self.nova.waiting_casts).into_iter().partition(|(to, _)| *to == host);
        self.nova.waiting_casts = others;
        for (_, migration) in mine {
            self.after(500, Event::Nova(NovaEvent::Arrives(migration)));
        }
        for index in &self.nova.at_host[host] {
            let guest = &mut self.nova.instances[*index];
            if let Task::OnItsHost(_) = guest.task {
                guest.task = Task::None;
            }
        }
        let takes = self.between(20_000, 300_000);
        self.after(takes, Event::Nova(NovaEvent::SyncsPower { host, boot }));
    }

    /// What Nova believes active and does not run becomes stopped.
    fn syncs_power(&mut self, host: HostId, boot: u32) {
        if self.hosts[host].boot != boot {
            return;
        }
        self.after(SYNC_MS, Event::Nova(NovaEvent::SyncsPower { host, boot }));
        if !self.hosts[host].is_reporting() {
            return;
        }
        let was_to_be_noted = self.judge_was_watched(host);
        for index in &self.nova.at_host[host] {
            let guest = &mut self.nova.instances[*index];
            guest.running = self.hosts[host].guests.contains(index);
            if guest.state == VmState::Active && !guest.running && guest.task == Task::None {
                guest.state = VmState::Stopped;
                if !was_to_be_noted {
                    self.hosts[host].lost.remove(index); // nobody could tell any more that it ran
                }
            }
        }
    }
}
