//! What has been heard of the world, put together as the core wants to see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use failover::{
    BootId, BootSeen, Channel, ChannelKind, Host, HostPolicy, HostSeen, Method, NovaSeen, Observation, Policy, Power,
    PowerSeen, ServiceSeen, SystemId, Time,
};
use openstack_client::{Aggregate, ComputeService, Service, ServiceId, ServiceState, ServiceStatus};
use uuid::Uuid;

use crate::config::{self, Config};

/// While a cell is silent Nova compares what it read of the others long ago with the clock: a sudden down is believed only after this.
const DOWN_IN_A_SLOW_ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct World {
    config: Arc<Config>,
    pub seen: Observation,
    pub policy: Policy,
    /// When the newest answer of Nova was asked for.
    asked_nova: Time,
    nova: BTreeMap<Host, NovaMemory>,
    /// By the name in Nova; a name that two services share says nothing.
    by_name: BTreeMap<String, Vec<Host>>,
    groups: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// When anybody was last heard on each network.
    networks: BTreeMap<String, Time>,
    /// What each BMC said last; it may have spoken before Nova named its host.
    powers: BTreeMap<String, PowerSeen>,
    /// Compute services of bare metal: not ours to evacuate.
    ironic: BTreeSet<ServiceId>,
}

/// What earlier lists said of a compute service.
#[derive(Debug, Default, Clone)]
struct NovaMemory {
    updated_at: Option<DateTime<Utc>>,
    reported: Option<Time>,
    /// When the answer was asked for that showed it.
    asked_for_report: Option<Time>,
    reported_before: Option<Time>,
    reports: u32,
    up: bool,
    /// Edits of ours that are on their way.
    editing: u32,
    /// When the last of them ended.
    edited: Option<Time>,
}

/// The list of compute services, and when it was asked for and came.
#[derive(Debug)]
pub struct NovaAnswer {
    pub sent: Time,
    pub services: Vec<ComputeService>,
}

impl World {
    /// `known` are the hosts of the record: while their cell is silent, Nova tells only their names.
    pub fn new<'a>(config: Arc<Config>, now: Time, known: impl Iterator<Item = &'a Host>) -> Self {
        let policy = policy(&config);
        let mut seen = Observation::default();
        seen.view.unbroken_since = now;
        let (nova, groups, networks, powers, ironic) = Default::default();
        let mut by_name = BTreeMap::<String, Vec<Host>>::new();
        for host in known {
            by_name.entry(host.name.to_string()).or_default().push(host.clone());
        }
        Self { config, seen, policy, asked_nova: Time(0), nova, by_name, groups, networks, powers, ironic }
    }

    /// The host of this name, if Nova knows exactly one.
    pub fn host(&self, name: &str) -> Option<&Host> {
        match self.by_name.get(name)?.as_slice() {
            [host] => Some(host),
            _ => None,
        }
    }

    pub fn broken(&mut self, now: Time, by: Arc<str>) {
        tracing::warn!(why = &*by, "our watch was broken: silence counts from now");
        let view = &mut self.seen.view;
        (view.unbroken_since, view.broken_by) = (now.max(view.unbroken_since), Some(by));
    }

    /// Answers may overtake each other; an older one tells nothing new.
    pub fn nova_answered(&mut self, now: Time, answer: &NovaAnswer) {
        if answer.sent < self.asked_nova {
            return;
        }
        self.asked_nova = answer.sent;
        self.seen.view.nova_answered = Some(now);
        let slow = answer.services.iter().any(|row| matches!(row, ComputeService::NoData { .. }));
        let mut listed = BTreeSet::new();
        for row in &answer.services {
            match row {
                ComputeService::Seen(service) if !self.ironic.contains(&service.id) => {
                    let host = Host { service: service.id.0.as_u128(), name: service.host.as_str().into() };
                    self.listed(now, answer.sent, slow, &host, service);
                    listed.insert(host);
                }
                ComputeService::Seen(_) => {}
                ComputeService::NoData { host } => listed.extend(self.no_data(host)),
            }
        }
        if !listed.iter().eq(self.policy.hosts.keys()) {
            self.hosts_changed(&listed);
        }
    }

    /// A row without state has no uuid either: it is whoever had that name.
    fn no_data(&mut self, name: &str) -> Vec<Host> {
        let hosts = self.by_name.get(name).cloned().unwrap_or_default();
        for host in &hosts {
            match self.seen.hosts.get_mut(host) {
                Some(seen) => seen.nova = NovaSeen::NoData,
                None => {
                    let seen = self.new_host(host, None, NovaSeen::NoData);
                    self.seen.hosts.insert(host.clone(), seen);
                }
            }
        }
        hosts
    }

    fn listed(&mut self, now: Time, sent: Time, slow: bool, host: &Host, service: &Service) {
        let memory = self.nova.entry(host.clone()).or_default();
        let advanced = memory.updated_at.is_some() && service.updated_at > memory.updated_at;
        // What advanced while an edit of ours was on its way may be that edit.
        let by_us = memory.editing > 0 || memory.edited.is_some_and(|edited| sent <= edited);
        let first_after_edit = memory.edited.take_if(|edited| sent > *edited).is_some();
        if advanced && !by_us && !first_after_edit {
            memory.reported_before = memory.asked_for_report.filter(|_| memory.reports > 0);
            memory.reports += 1;
            (memory.reported, memory.asked_for_report) = (Some(now), Some(sent));
        }
        memory.updated_at = service.updated_at.or(memory.updated_at);
        let up = service.state == ServiceState::Up;
        let lately = memory.reported.is_some_and(|reported| sent.since(reported) < DOWN_IN_A_SLOW_ANSWER);
        if up || !(slow && memory.up && (advanced || lately)) || service.forced_down {
            memory.up = up;
        }
        let nova = NovaSeen::Listed(ServiceSeen {
            up: memory.up,
            forced_down: service.forced_down,
            disabled: match &service.status {
                ServiceStatus::Enabled => None,
                ServiceStatus::Disabled { reason } => Some(reason.as_deref().unwrap_or("no reason given").into()),
            },
            reported: memory.reported,
            reported_before: memory.reported_before,
            reports: memory.reports,
        });
        match self.seen.hosts.get_mut(host) {
            Some(seen) => {
                let was_unknown = std::mem::replace(&mut seen.nova, nova) == NovaSeen::NoData;
                if was_unknown {
                    let groups = self.groups_of(&host.name, service.zone.as_deref());
                    self.seen.hosts.get_mut(host).expect("it is there").groups = groups;
                }
            }
            None => {
                let seen = self.new_host(host, service.zone.as_deref(), nova);
                self.seen.hosts.insert(host.clone(), seen);
            }
        }
    }

    fn new_host(&self, host: &Host, zone: Option<&str>, nova: NovaSeen) -> HostSeen {
        let configured = self.config.hosts.get(&*host.name);
        let listening = self.config.heartbeat.networks.iter().filter(|network| network.listen.is_some());
        let beats = listening.map(|network| (network.name.as_str().into(), ChannelKind::Heartbeat));
        let probes = configured.into_iter().flat_map(|host| &host.probes);
        let probes = probes.map(|probe| (probe.network.as_str().into(), ChannelKind::Tcp));
        let channels: BTreeSet<(Arc<str>, ChannelKind)> = beats.chain(probes).collect();
        let unread = || PowerSeen {
            reading: Power::Unknown {
                why: "its BMC has not been read yet".into(),
                since: self.seen.view.unbroken_since,
            },
            system: None,
        };
        let has_bmc = configured.is_some_and(|host| host.redfish.is_some());
        let power = self.powers.get(&*host.name).cloned();
        let power = power.or_else(|| has_bmc.then(unread)).unwrap_or_default();
        HostSeen {
            groups: self.groups_of(&host.name, zone),
            nova,
            channels: channels.into_iter().map(|(network, kind)| Channel { network, kind, last: None }).collect(),
            boot: None,
            power,
            schedulable: None,
        }
    }

    fn groups_of(&self, name: &str, zone: Option<&str>) -> Vec<Arc<str>> {
        let segment = self.config.segment_of(name).map(|(segment, _)| format!("segment {segment}").into());
        let aggregates = self.groups.get(name).into_iter().flatten().cloned();
        aggregates.chain(zone.map(|zone| format!("zone {zone}").into())).chain(segment).collect()
    }

    fn hosts_changed(&mut self, listed: &BTreeSet<Host>) {
        self.seen.hosts.retain(|host, _| listed.contains(host));
        self.by_name.clear();
        for host in self.seen.hosts.keys() {
            self.by_name.entry(host.name.to_string()).or_default().push(host.clone());
        }
        for (name, hosts) in self.by_name.iter().filter(|(_, hosts)| hosts.len() > 1) {
            tracing::warn!(
                name,
                services = hosts.len(),
                "several compute services have this name: their heartbeats cannot be told apart"
            );
        }
        self.policy.hosts =
            self.seen.hosts.keys().map(|host| (host.clone(), host_policy(&self.config, &host.name))).collect();
        let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        tracing::info!(hosts = names.join(" "), "Nova's compute hosts");
    }

    pub fn aggregated(&mut self, aggregates: &[Aggregate]) {
        self.groups.clear();
        for aggregate in aggregates {
            for host in &aggregate.hosts {
                self.groups.entry(host.clone()).or_default().insert(format!("aggregate {}", aggregate.name).into());
            }
        }
        let all: Vec<Host> = self.seen.hosts.keys().cloned().collect();
        for host in all {
            let old = &self.seen.hosts[&host].groups;
            let zone = old.iter().find_map(|group| group.strip_prefix("zone ")).map(str::to_owned);
            let groups = self.groups_of(&host.name, zone.as_deref());
            self.seen.hosts.get_mut(&host).expect("it was just listed").groups = groups;
        }
    }

    pub fn bare_metal(&mut self, services: BTreeSet<ServiceId>) {
        self.seen.hosts.retain(|host, _| !services.contains(&ServiceId(Uuid::from_u128(host.service))));
        self.ironic = services;
    }

    pub fn edit_begins(&mut self, host: &Host) {
        let memory = self.nova.entry(host.clone()).or_default();
        memory.editing += 1;
        memory.reports = 0;
    }

    pub fn edit_ended(&mut self, host: &Host, now: Time) {
        let memory = self.nova.entry(host.clone()).or_default();
        memory.editing = memory.editing.saturating_sub(1);
        memory.edited = Some(now);
        memory.reports = 0;
    }

    pub fn heard(&mut self, name: &str, network: &str, kind: ChannelKind, at: Time) -> Option<&mut HostSeen> {
        let host = self.host(name)?.clone();
        self.network_heard(network, at);
        let seen = self.seen.hosts.get_mut(&host)?;
        let mut channels = seen.channels.iter_mut();
        let channel = channels.find(|channel| &*channel.network == network && channel.kind == kind)?;
        channel.last = channel.last.max(Some(at));
        Some(seen)
    }

    /// If nobody at all was heard on a network, we were deaf on it: whoever beats last after that has not been silent for long.
    fn network_heard(&mut self, network: &str, at: Time) {
        let last = self.networks.entry(network.to_owned()).or_insert(at);
        let before = std::mem::replace(last, at.max(*last));
        let gap = at.since(before);
        // A gap of the only host that was heard there is its own.
        let deaf = (gap > self.policy.suspect_after && self.heard_together(network, before) > 1).then_some(gap);
        if let Some(deaf) = deaf {
            self.broken(at, format!("nobody was heard on {network} for {:.1} s", deaf.as_secs_f64()).into());
        }
    }

    /// How many hosts were heard on a network until it fell silent.
    fn heard_together(&self, network: &str, until: Time) -> usize {
        let was_heard = |seen: &&HostSeen| {
            let mut channels = seen.channels.iter().filter(|channel| &*channel.network == network);
            channels.any(|channel| channel.last.is_some_and(|last| until.since(last) <= self.policy.suspect_after))
        };
        self.seen.hosts.values().filter(was_heard).count()
    }

    pub fn beat(&mut self, name: &str, network: &str, (boot, system): (Uuid, Option<Uuid>), at: Time) {
        let Some(seen) = self.heard(name, network, ChannelKind::Heartbeat, at) else { return };
        let id = BootId(boot.as_u128());
        let heard = seen.boot.filter(|boot| boot.id == id).map_or(at, |boot| boot.heard);
        seen.boot = Some(BootSeen { id, heard, system: system.map(|system| SystemId(system.as_u128())) });
    }

    pub fn schedulable(&mut self, host: &Host, schedulable: bool) {
        if let Some(seen) = self.seen.hosts.get_mut(host) {
            seen.schedulable = Some(schedulable);
        }
    }

    /// What was looked up at an earlier return says nothing of this one.
    pub fn forget_schedulable(&mut self, host: &Host) {
        if let Some(seen) = self.seen.hosts.get_mut(host) {
            seen.schedulable = None;
        }
    }

    /// A series of Off begins when the first answer came, and is as long as until the last was asked for: between, nobody knows.
    pub fn power(&mut self, name: &str, reading: Reading, system: Option<Uuid>, (asked, answered): (Time, Time)) {
        let held_within = self.policy.fence.held_within;
        let power = self.powers.entry(name.to_owned()).or_default();
        power.system = system.map(|system| SystemId(system.as_u128())).or(power.system);
        power.reading = match (reading, &power.reading) {
            (Reading::On, _) => Power::On { at: asked },
            (Reading::Off, Power::Off { since, .. }) => Power::Off { since: *since, at: asked },
            (Reading::Off, _) => Power::Off { since: answered, at: asked },
            // One that is missed says nothing new; the last one grows old by itself.
            (Reading::Missed(_), last @ (Power::On { at } | Power::Off { at, .. }))
                if asked.since(*at) <= held_within =>
            {
                last.clone()
            }
            (Reading::Missed(why) | Reading::Changing(why), Power::Unknown { since, .. }) => {
                Power::Unknown { why, since: *since }
            }
            (Reading::Missed(why) | Reading::Changing(why), _) => Power::Unknown { why, since: answered },
        };
        let power = power.clone();
        let host = self.host(name).cloned();
        if let Some(seen) = host.and_then(|host| self.seen.hosts.get_mut(&host)) {
            seen.power = power;
        }
    }
}

/// One reading of a BMC, as the core counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    On,
    Off,
    /// Neither, and soon perhaps the other: it ends a series of either.
    Changing(Arc<str>),
    /// The BMC said nothing that can be used.
    Missed(Arc<str>),
}

/// What the administrator has settled, as the core knows it; what is of one host comes when Nova names it.
pub fn policy(config: &Config) -> Policy {
    let mut policy = Policy::default();
    policy.suspect_after = config.detection.suspect;
    policy.silence = config.detection.silence;
    policy.nova_alone = config.detection.nova_alone;
    policy.see_within = policy.see_within.max(config.openstack.poll * 4);
    policy.mass_failure_percent = config.gates.mass_failure_percent;
    policy.mass_failure_window = config.gates.mass_failure_window;
    policy.quiet = config.gates.quiet;
    policy.flap_limit = config.gates.flap_limit;
    policy.flap_window = config.gates.flap_window;
    policy.fence.attempts = config.fencing.attempts;
    policy.fence.retry = config.fencing.retry;
    policy.fence.limit = config.fencing.limit;
    let evacuation = &mut policy.evacuation;
    evacuation.in_flight = config.evacuation.in_flight;
    evacuation.per_destination = config.evacuation.per_destination;
    evacuation.per_source = config.evacuation.per_source;
    evacuation.attempts = config.evacuation.attempts;
    evacuation.unknown = config.evacuation.unknown;
    evacuation.opted_in_only = config.evacuation.instances == config::Instances::OptedIn;
    policy.other_hosts = HostPolicy { methods: methods(config), ..HostPolicy::default() };
    policy
}

fn methods(config: &Config) -> Vec<Method> {
    let one = |method: &config::Method| match method {
        config::Method::Redfish => Method::Redfish,
        config::Method::Manual => Method::Manual,
    };
    config.fencing.methods.iter().map(one).collect()
}

fn host_policy(config: &Config, name: &str) -> HostPolicy {
    let segment = config.segment_of(name);
    HostPolicy {
        segment: segment.map(|(name, _)| name.into()),
        enabled: segment.is_none_or(|(_, segment)| segment.enabled),
        shared_root: segment.is_some_and(|(_, segment)| segment.root_disk == config::RootDisk::Shared),
        methods: methods(config),
    }
}
