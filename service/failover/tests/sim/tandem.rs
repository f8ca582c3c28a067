//! One tandem-ha around the core: what it hears and remembers, what it asks, and its acts.

use std::sync::Arc;
use std::time::Duration;

use failover::{
    Act, Answer, BootSeen, Channel, ChannelKind, Decision, Host, HostSeen, InstanceId, Listing, Look, Migrations,
    NovaSeen, Observation, Order, Phase, Policy, Power, PowerSeen, ServiceSeen, Time, closely, looks_wanted, order,
};

use super::bmc::{BmcAnswer, system_of};
use super::host::{CHANNELS, TCP};
use super::judge::Promise;
use super::world::{Event, HostId, MGMT, NETWORK_NAMES, NETWORKS, World};

mod lease;

/// Every clock shows something near this when the story begins.
const EPOCH_MS: u64 = 1_000_000_000;
const LEASE_MS: u64 = 30_000;
const RENEW_MS: u64 = 5_000;
const BEAT_MS: u64 = 1_000;
const ANSWER_MS: u64 = 120;
/// An answer that takes longer has not come.
const TIMEOUT_MS: u64 = 10_000;
const POST_LIMIT_MS: u64 = 120_000;
/// Longer than every host's pause between two beats.
const DEAF_MS: u64 = 2_000;
/// So long after a host is heard again its reboot has been noticed, and what it ran looked up.
const NOTED_WITHIN_MS: u64 = 10_000;
/// No decision takes so many steps.
const MANY_STEPS: usize = 200;
/// After so long without an open incident nothing can come of looking until something happens.
const QUIET_MS: u64 = 100_000;

/// An answer on its way to a tandem-ha.
#[derive(Debug, Clone)]
pub enum Delivery {
    Services { asked: u64, rows: Arc<[Option<Row>]> },
    Instances { host: HostId, listing: Arc<Listing>, migrations: Arc<Migrations>, looks: Vec<(InstanceId, Look)> },
    Power { host: HostId, asked: u64, answer: BmcAnswer },
}

#[derive(Debug, Clone)]
pub struct Row {
    up: bool,
    forced_down: bool,
    disabled: Option<Arc<str>>,
    updated_at: u64,
    schedulable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    generation: u32,
    until: Time,
}

/// What is remembered of one host between two lists of Nova, and of its paths.
#[derive(Debug, Clone, Default)]
struct Memory {
    paths: [Option<u64>; CHANNELS],
    updated_at: Option<u64>,
    reports: u32,
    reported: Option<Time>,
    asked_for_report: Option<Time>,
    reported_before: Option<Time>,
    editing: u32,
    edited: Option<u64>,
    power_asked: Option<u64>,
    power_busy: bool,
    instances_busy: bool,
}

#[derive(Debug)]
pub struct Tandem {
    pub alive: bool,
    pub life: u32,
    pub links: [bool; NETWORKS],
    pub sees_nova: bool,
    /// Of the running process; the machine's clock may have jumped since it started.
    offset: i64,
    machine_offset: i64,
    stalled_until: u64,
    stalled_from: u64,
    pub seen: Observation,
    memory: Vec<Memory>,
    lease: Option<Lease>,
    basket: Vec<Delivery>,
    /// When the list of services that it knows was asked for.
    pub services_asked: u64,
    nova_busy: bool,
    period: u64,
    next_look: u64,
    token: u32,
    changed_at: u64,
    pub stalls_at_next_act: Option<u64>,
    deaf_since: [Option<u64>; CHANNELS],
}

impl Tandem {
    pub fn new(world: &World, groups: &[(String, Vec<HostId>)]) -> Self {
        let mut seen = Observation::default();
        for (id, host) in world.hosts.iter().enumerate() {
            let mine = groups.iter().filter(|(_, members)| members.contains(&id));
            let shown = HostSeen {
                groups: mine.map(|(name, _)| name.as_str().into()).collect(),
                nova: NovaSeen::NoData,
                channels: channels(world).map(|(network, kind)| Channel { network, kind, last: None }).collect(),
                boot: None,
                power: PowerSeen::default(),
                schedulable: None,
            };
            seen.hosts.insert(host.host.clone(), shown);
        }
        Self {
            alive: false,
            life: 0,
            links: [true; NETWORKS],
            sees_nova: true,
            offset: 0,
            machine_offset: 0,
            stalled_until: 0,
            stalled_from: 0,
            seen,
            memory: vec![Memory::default(); world.hosts.len()],
            lease: None,
            basket: Vec::new(),
            services_asked: 0,
            nova_busy: false,
            period: BEAT_MS,
            next_look: u64::MAX,
            token: 0,
            changed_at: 0,
            stalls_at_next_act: None,
            deaf_since: [None; CHANNELS],
        }
    }

    /// What its process's clock shows at a moment.
    pub fn clock(&self, now: u64) -> Time {
        Time((EPOCH_MS + now).saturating_add_signed(self.offset))
    }

    /// A network on which nobody could be heard for a while, and somebody is again: silence on it was ours, and counts anew.
    fn notices_that_it_was_deaf(&mut self, now: u64, channels: usize) {
        for nth in 0..channels {
            if self.memory.iter().all(|memory| memory.paths[nth].is_none()) {
                self.deaf_since[nth].get_or_insert(now);
            } else if self.deaf_since[nth].take().is_some_and(|since| now - since > DEAF_MS) {
                let clock = self.clock(now);
                (self.seen.view.unbroken_since, self.seen.view.broken_by) = (clock, Some("we were deaf".into()));
            }
        }
    }

    /// Whether it has heard the host within a span, as far as it knows.
    pub fn heard_within(&self, now: u64, host: &Host, span: Duration) -> bool {
        let lately = |last| self.clock(now).since(last) < span;
        self.seen.hosts[host].channels.iter().any(|channel| channel.last.is_some_and(lately))
    }

    pub fn hears_host(&self, host: HostId) -> bool {
        self.memory[host].paths.iter().any(Option::is_some)
    }

    pub fn stalled_until(&self) -> u64 {
        self.stalled_until
    }

    /// Whether its heartbeats, which say what boot it is, could be heard for a while.
    pub fn hears_beats_since(&self, now: u64, host: HostId) -> bool {
        let beats =
            self.seen.hosts.values().next().map_or(0, |seen| {
                seen.channels.iter().filter(|channel| channel.kind == ChannelKind::Heartbeat).count()
            });
        self.memory[host].paths[..beats].iter().flatten().any(|since| since + NOTED_WITHIN_MS < now)
    }

    pub fn leads(&self) -> bool {
        self.alive && self.lease.is_some()
    }

    fn forgets(&mut self, now: u64) {
        let clock = self.clock(now);
        for (host, memory) in self.seen.hosts.values_mut().zip(&mut self.memory) {
            host.nova = NovaSeen::NoData;
            (host.boot, host.schedulable) = (None, None);
            host.channels.iter_mut().for_each(|channel| channel.last = None);
            host.power.system = None;
            host.power.reading = Power::Unknown { why: "its BMC has not been read yet".into(), since: clock };
            *memory = Memory::default();
        }
        self.seen.instances.clear();
        self.seen.view.nova_answered = None;
        (self.seen.view.unbroken_since, self.seen.view.broken_by) = (clock, None);
        (self.lease, self.nova_busy, self.next_look) = (None, false, u64::MAX);
        self.basket.clear();
    }

    /// A new leader's first look at the services is compared with nothing.
    fn begins_to_lead(&mut self) {
        for memory in &mut self.memory {
            (memory.updated_at, memory.reports, memory.reported) = (None, 0, None);
        }
    }
}

fn channels(world: &World) -> impl Iterator<Item = (Arc<str>, ChannelKind)> + use<> {
    let beats = NETWORK_NAMES.into_iter().take(world.networks).map(|name| (name.into(), ChannelKind::Heartbeat));
    let probe = world.tcp.then(|| (NETWORK_NAMES[MGMT].into(), ChannelKind::Tcp));
    beats.chain(probe)
}

/// Which of the host's ways of being heard the n-th channel is.
fn way(networks: usize, nth: usize) -> usize {
    if nth < networks { nth } else { TCP }
}

/// How long an act may take until it is certainly sent, or certainly not.
fn limit(act: &Act, policy: &Policy) -> Duration {
    match act {
        Act::PowerOff { .. } => policy.fence.limit,
        Act::ForceDown { .. } | Act::Disable { .. } | Act::ClearForcedDown { .. } | Act::Enable { .. } => {
            policy.evacuation.call_limit
        }
        Act::Evacuate { .. } | Act::Start { .. } => policy.evacuation.begin,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("a short time")
}

impl World {
    // ---- what is heard ----

    /// Everybody has heard what was to be heard until now.
    pub fn settle(&mut self) {
        for tandem in 0..self.tandems.len() {
            self.hears(tandem);
        }
        for host in 0..self.hosts.len() {
            self.nova.settle_service(host, self.now);
            let it = &mut self.hosts[host];
            if it.heard_since.iter().any(Option::is_some) {
                it.last_heard = self.now;
            }
        }
    }

    /// After a change: who can be heard from now on, and who reports.
    pub fn paths_change(&mut self) {
        for host in 0..self.hosts.len() {
            let reports = self.hosts[host].is_reporting();
            self.nova.reporting(host, reports, self.now);
            for nth in 0..channels(self).count() {
                let way = way(self.networks, nth);
                let heard = self.hosts[host].tells(way);
                let since = &mut self.hosts[host].heard_since[way];
                *since = if heard { since.or(Some(self.now)) } else { None };
            }
            for tandem in &mut self.tandems {
                let channels = tandem.seen.hosts.values().next().map_or(0, |host| host.channels.len());
                for nth in 0..channels {
                    let way = way(self.networks, nth);
                    let network = if way == TCP { MGMT } else { way };
                    let open = self.hosts[host].tells(way) && tandem.links[network] && tandem.alive;
                    let path = &mut tandem.memory[host].paths[nth];
                    *path = if open { path.or(Some(self.now)) } else { None };
                }
            }
        }
        let count = channels(self).count();
        for tandem in self.tandems.iter_mut().filter(|it| it.alive) {
            tandem.notices_that_it_was_deaf(self.now, count);
        }
    }

    fn hears(&mut self, tandem: usize) {
        let (now, networks) = (self.now, self.networks);
        let tandem = &mut self.tandems[tandem];
        if !tandem.alive || now < tandem.stalled_until {
            return;
        }
        let offset = tandem.offset;
        for (id, (seen, memory)) in tandem.seen.hosts.values_mut().zip(&tandem.memory).enumerate() {
            for (nth, channel) in seen.channels.iter_mut().enumerate() {
                let Some(since) = memory.paths[nth] else { continue };
                let phase = (id * 137 + nth * 331) as u64 % BEAT_MS;
                let beat = (now + phase).saturating_sub((now + phase) % BEAT_MS).saturating_sub(phase);
                if beat < since {
                    continue;
                }
                let at = Time((EPOCH_MS + beat).saturating_add_signed(offset));
                if channel.last.is_some_and(|last| last >= at) {
                    continue;
                }
                channel.last = Some(at);
                if way(networks, nth) != TCP {
                    let boot = self.hosts[id].boot_id();
                    if seen.boot.is_none_or(|seen| seen.id != boot) {
                        seen.boot = Some(BootSeen { id: boot, heard: at, system: Some(system_of(id)) });
                    }
                }
            }
        }
    }

    /// Something has happened: look soon.
    pub fn nudge(&mut self, tandem: usize) {
        let now = self.now;
        let it = &mut self.tandems[tandem];
        if !it.leads() {
            return;
        }
        (it.period, it.changed_at) = (BEAT_MS, now);
        if it.next_look > now + BEAT_MS {
            let at = (now / BEAT_MS + 1) * BEAT_MS;
            self.look_at_time(tandem, at);
        }
    }

    fn look_at_time(&mut self, tandem: usize, at: u64) {
        let it = &mut self.tandems[tandem];
        it.token += 1;
        it.next_look = at;
        let (life, token) = (it.life, it.token);
        self.at(at, Event::Look { tandem, life, token });
    }

    /// Whether an event for this process can be taken now: not if it is of another life, and later if it is stalled.
    fn takes(&mut self, tandem: usize, life: u32, event: impl FnOnce() -> Event) -> bool {
        let it = &self.tandems[tandem];
        if !it.alive || it.life != life {
            return false;
        }
        if self.now < it.stalled_until {
            let at = it.stalled_until;
            self.at(at, event());
            return false;
        }
        true
    }

    pub fn look(&mut self, tandem: usize, life: u32, token: u32) {
        if !self.takes(tandem, life, || Event::Look { tandem, life, token }) || self.tandems[tandem].token != token {
            return;
        }
        self.tandems[tandem].next_look = u64::MAX;
        if !self.renew(tandem) {
            return;
        }
        self.hears(tandem);
        let close = closely(&self.db.ledger);
        self.ask_services(tandem);
        for host in 0..self.hosts.len() {
            let is_close = close.contains(&self.hosts[host].host);
            self.ask_power(tandem, host, is_close);
            if is_close {
                self.ask_instances(tandem, host);
            }
        }
        self.tandems[tandem].seen.instances.retain(|host, _| close.contains(host));
        self.after(ANSWER_MS, Event::Think { tandem, life });
    }

    fn nova_delay(&self, tandem: usize) -> Option<u64> {
        let answers = self.nova.up && self.tandems[tandem].sees_nova && self.nova.slow_ms < TIMEOUT_MS;
        answers.then_some(self.nova.slow_ms)
    }

    fn deliver(&mut self, tandem: usize, delay: u64, what: Delivery) {
        if delay == 0 {
            return self.tandems[tandem].basket.push(what);
        }
        let life = self.tandems[tandem].life;
        self.after(ANSWER_MS + delay, Event::Arrives { tandem, life, what });
    }

    fn ask_services(&mut self, tandem: usize) {
        let Some(delay) = self.nova_delay(tandem).filter(|_| !self.tandems[tandem].nova_busy) else { return };
        self.tandems[tandem].nova_busy = true;
        let now = self.now;
        let rows = (0..self.hosts.len()).map(|host| {
            self.nova.settle_service(host, now);
            let schedulable = self.schedulable(host);
            let service = &self.nova.services[host];
            (!self.hosts[host].cell_down).then(|| Row {
                up: service.is_up(now),
                forced_down: service.forced_down,
                disabled: service.disabled.clone(),
                updated_at: service.updated_at(),
                schedulable,
            })
        });
        let rows: Arc<[Option<Row>]> = rows.collect();
        self.deliver(tandem, delay, Delivery::Services { asked: now, rows });
    }

    fn ask_instances(&mut self, tandem: usize, host: HostId) {
        let Some(delay) = self.nova_delay(tandem) else { return };
        if self.tandems[tandem].memory[host].instances_busy || self.hosts[host].cell_down {
            return;
        }
        let at = self.tandems[tandem].clock(self.now);
        let name = self.hosts[host].host.clone();
        let listing = Arc::new(self.listing(host, at));
        let migrations = Arc::new(self.migrations_of_host(host, at));
        let incident = self.db.ledger.open_incident(&name);
        let wanted = incident.map(|incident| looks_wanted(incident, &listing, &migrations)).unwrap_or_default();
        let looks = wanted.into_iter().map(|id| (id, self.look_at(id, at))).collect();
        self.tandems[tandem].memory[host].instances_busy = true;
        self.deliver(tandem, delay, Delivery::Instances { host, listing, migrations, looks });
    }

    fn ask_power(&mut self, tandem: usize, host: HostId, is_close: bool) {
        let now = self.now;
        let asked = self.tandems[tandem].memory[host].power_asked;
        let due = is_close || asked.is_none_or(|asked| now >= asked + 30_000);
        if !due || self.tandems[tandem].memory[host].power_busy || !self.bmcs[host].configured {
            return;
        }
        let memory = &mut self.tandems[tandem].memory[host];
        (memory.power_asked, memory.power_busy) = (Some(now), true);
        let slow = self.bmcs[host].slow_ms;
        let answer = if slow < TIMEOUT_MS { self.read_power(host) } else { BmcAnswer::Silent };
        let delay = match answer {
            BmcAnswer::Silent => 2_000,
            BmcAnswer::On | BmcAnswer::Off => slow,
        };
        self.deliver(tandem, delay, Delivery::Power { host, asked: now, answer });
    }

    pub fn arrives(&mut self, tandem: usize, life: u32, what: Delivery) {
        if self.takes(tandem, life, || Event::Arrives { tandem, life, what: what.clone() }) {
            self.tandems[tandem].basket.push(what);
            self.think(tandem, life);
        }
    }

    fn takes_in(&mut self, tandem: usize) {
        let now = self.now;
        let system: Vec<_> = self.bmcs.iter().map(super::bmc::Bmc::system).collect();
        let it = &mut self.tandems[tandem];
        let clock = it.clock(now);
        for delivery in std::mem::take(&mut it.basket) {
            match delivery {
                Delivery::Services { asked, rows } => {
                    (it.nova_busy, it.services_asked) = (false, asked);
                    it.seen.view.nova_answered = Some(clock);
                    let asked = (asked, Time((EPOCH_MS + asked).saturating_add_signed(it.offset)));
                    for ((seen, memory), row) in it.seen.hosts.values_mut().zip(&mut it.memory).zip(rows.iter()) {
                        seen.schedulable = row.as_ref().map(|row| row.schedulable);
                        seen.nova = row.as_ref().map_or(NovaSeen::NoData, |row| listed(memory, row, asked, clock));
                    }
                }
                Delivery::Instances { host, listing, migrations, looks } => {
                    it.memory[host].instances_busy = false;
                    let shown = it.seen.instances.entry(self.hosts[host].host.clone()).or_default();
                    (shown.listing, shown.migrations) = (Some(listing), Some(migrations));
                    shown.looks = looks.into_iter().collect();
                }
                Delivery::Power { host, asked, answer } => {
                    it.memory[host].power_busy = false;
                    let asked = Time((EPOCH_MS + asked).saturating_add_signed(it.offset));
                    let power = &mut it.seen.hosts.get_mut(&self.hosts[host].host).expect("a known host").power;
                    if answer != BmcAnswer::Silent {
                        power.system = system[host].or(power.system);
                    }
                    power.reading = read(&power.reading, answer, asked, clock);
                }
            }
        }
    }

    // ---- deciding ----

    pub fn think(&mut self, tandem: usize, life: u32) {
        if !self.takes(tandem, life, || Event::Think { tandem, life }) || !self.tandems[tandem].leads() {
            return;
        }
        self.hears(tandem);
        self.takes_in(tandem);
        if !self.renew(tandem) {
            return;
        }
        let changed = self.decides(tandem);
        let now = self.now;
        let cap = self.longest_pause();
        let it = &mut self.tandems[tandem];
        if changed {
            (it.period, it.changed_at) = (BEAT_MS, now);
        } else {
            it.period = (it.period * 3 / 2).min(cap);
        }
        let asleep =
            self.db.ledger.open_incidents().next().is_none() && now > self.tandems[tandem].changed_at + QUIET_MS;
        if !asleep {
            let at = now - ANSWER_MS.min(now) + self.tandems[tandem].period;
            if self.tandems[tandem].next_look > at {
                self.look_at_time(tandem, at.max(now + 1));
            }
        }
    }

    /// Nobody looks seldom at what is under way.
    fn longest_pause(&self) -> u64 {
        let pauses = self.db.ledger.open_incidents().map(|incident| match (incident.phase, &incident.hold) {
            (Phase::Recovered | Phase::PartlyRecovered, _) => 20_000,
            (phase, Some(_)) if phase.holds_the_fence() => 1_000,
            (_, Some(_)) => 10_000,
            (Phase::Evacuating | Phase::HostReturned | Phase::Reintegrating | Phase::RestartingGuests, None) => 4_000,
            (_, None) => 1_500,
        });
        pauses.min().unwrap_or(10_000)
    }

    /// Decides until nothing is left to decide. Says whether anything was.
    fn decides(&mut self, tandem: usize) -> bool {
        let now = self.tandems[tandem].clock(self.now);
        let Some(lease) = self.tandems[tandem].lease.filter(|_| self.db.up) else { return false };
        self.db.ledger.lease_until = lease.until;
        let mut changed = false;
        for step in 0.. {
            let decisions = self.bend.decide(now, &self.tandems[tandem].seen, &self.db.ledger, &self.policy);
            if decisions.is_empty() {
                return changed;
            }
            if step == MANY_STEPS {
                let last = decisions.iter().filter_map(|decision| decision.entry().map(|entry| entry.text));
                let last = last.collect::<Vec<_>>().join(" | ");
                self.judge.broken(self.now, Promise::DecidesOnce, format!("it never ends to decide: {last}"));
                return changed;
            }
            changed = true;
            self.records(tandem, lease.generation, now, decisions);
        }
        changed
    }

    fn records(&mut self, tandem: usize, generation: u32, now: Time, decisions: Vec<Decision>) {
        for decision in decisions {
            self.judge_decision(tandem, &decision);
            self.db.ledger.apply(now, &decision);
            self.tell_decision(&decision);
            if let Decision::Act(act) = decision {
                let life = self.tandems[tandem].life;
                if act.edits() {
                    let host = self.host_id(&act.incident().host);
                    let memory = &mut self.tandems[tandem].memory[host];
                    memory.editing += 1;
                    memory.reports = 0;
                }
                let waits = if self.chance(10) { self.between(5, 1_500) } else { 5 };
                self.after(waits, Event::Send { tandem, life, generation, act });
                if let Some(ms) = self.tandems[tandem].stalls_at_next_act.take() {
                    self.tell(|_| format!("* tandem-ha {} stalls", tandem + 1));
                    self.stalls(tandem, ms);
                }
            }
        }
    }

    fn tell_decision(&mut self, decision: &Decision) {
        let all_passed = |verdicts: &Vec<failover::Verdict>| verdicts.iter().all(|verdict| verdict.passed);
        if matches!(decision, Decision::Gates { verdicts, .. } if all_passed(verdicts)) {
            return; // what follows says so
        }
        if let Some(entry) = self.telling.then(|| decision.entry()).flatten() {
            self.tell(|world| line(world, &entry));
        }
    }

    pub fn orders(&mut self, what: &Order) {
        let Some(leader) = self.tandems.iter().position(|it| it.leads() && self.now >= it.stalled_until) else {
            return self.tell(|_| "  nobody takes the order".to_owned());
        };
        self.hears(leader);
        if !self.db.up || !self.renew(leader) {
            return self.tell(|_| "  the order cannot be recorded".to_owned());
        }
        let it = &self.tandems[leader];
        let (now, by, why) = (it.clock(self.now), "anna".into(), "I looked".into());
        match order(now, &it.seen, &self.db.ledger, &self.policy, what, &by, &why) {
            Ok(decisions) => {
                let generation = self.db.generation;
                self.records(leader, generation, now, decisions);
            }
            Err(refusal) => self.tell(|_| format!("  refused: {}", refusal.0)),
        }
    }

    // ---- acting ----

    pub fn send(&mut self, tandem: usize, life: u32, generation: u32, act: Act) {
        if !self.takes(tandem, life, || Event::Send { tandem, life, generation, act: act.clone() }) {
            return;
        }
        let limit = limit(&act, &self.policy);
        self.renew(tandem);
        let it = &self.tandems[tandem];
        let until = it.lease.filter(|lease| lease.generation == generation).map_or(Time(0), |lease| lease.until);
        if it.clock(self.now) + limit >= until && !self.bend.acts_late() {
            let answer = Answer::NotSent { why: "the lease ends too soon".into() };
            return self.answered(tandem, life, generation, &act, &answer);
        }
        self.judge_send(generation, &act);
        self.goes_out(tandem, life, generation, act);
    }

    fn goes_out(&mut self, tandem: usize, life: u32, generation: u32, act: Act) {
        let limit = millis(limit(&act, &self.policy));
        let unknown = |limit: u64| Answer::Unknown { why: format!("nothing within {} s", limit / 1000).into() };
        if let Act::PowerOff { .. } = act {
            let host = self.host_id(&act.incident().host);
            let takes = self.bmcs[host].slow_ms + self.between(20, 300);
            let late = takes > limit;
            self.after(takes, Event::Lands { tandem, life, generation, act: act.clone(), answer_lost: late });
            if late {
                self.after(limit, Event::Answered { tandem, life, generation, act, answer: unknown(limit) });
            }
            return;
        }
        if !self.nova.up {
            let answer = Answer::NotSent { why: "nobody listens at Nova's address".into() };
            return self.after(100, Event::Answered { tandem, life, generation, act, answer });
        }
        let is_evacuation = matches!(act, Act::Evacuate { .. });
        let waits = if is_evacuation { POST_LIMIT_MS } else { limit };
        let mut lost = !self.tandems[tandem].sees_nova;
        let mut answer_lost = false;
        if is_evacuation && self.nova.lose_posts > 0 {
            self.nova.lose_posts -= 1;
            lost = true;
        } else if is_evacuation && self.nova.lose_answers > 0 {
            self.nova.lose_answers -= 1;
            answer_lost = true;
        }
        let slow = if is_evacuation { self.nova.posts_slow_ms } else { self.nova.slow_ms };
        let takes = slow.min(waits - 1_000) + self.between(20, 300);
        if lost || answer_lost {
            self.after(waits, Event::Answered { tandem, life, generation, act: act.clone(), answer: unknown(waits) });
        }
        if !lost {
            self.after(takes, Event::Lands { tandem, life, generation, act, answer_lost });
        }
    }

    /// It has arrived, whatever became of its sender.
    pub fn lands(&mut self, tandem: usize, life: u32, generation: u32, act: Act, answer_lost: bool) {
        let answer = if let Act::PowerOff { .. } = act {
            let host = self.host_id(&act.incident().host);
            match self.force_off(host) {
                Ok(()) => Answer::Done { request: None },
                Err(Some(why)) => Answer::Refused { why: why.into() },
                Err(None) => Answer::Unknown { why: "its BMC did not answer".into() },
            }
        } else {
            self.nova_answers(&act)
        };
        if !answer_lost {
            self.after(50, Event::Answered { tandem, life, generation, act, answer });
        }
    }

    pub fn answered(&mut self, tandem: usize, life: u32, generation: u32, act: &Act, answer: &Answer) {
        let (again, said) = (act.clone(), answer.clone());
        if !self.takes(tandem, life, || Event::Answered { tandem, life, generation, act: again, answer: said }) {
            return;
        }
        if act.edits() {
            let host = self.host_id(&act.incident().host);
            let now = self.now;
            let memory = &mut self.tandems[tandem].memory[host];
            memory.editing = memory.editing.saturating_sub(1);
            (memory.edited, memory.reports) = (Some(now), 0);
        }
        if !self.db.up || self.db.generation != generation {
            return; // the transaction fails: whoever leads now decides anew
        }
        let now = self.tandems[tandem].clock(self.now);
        self.db.ledger.answered(now, act, answer);
        if let Some(entry) = self.telling.then(|| act.answer_entry(answer)).flatten() {
            self.tell(|world| line(world, &entry));
        }
        self.nudge(tandem);
    }

    pub fn guest_of_entry(&self, id: Option<InstanceId>) -> String {
        id.map_or_else(String::new, |id| format!(" {}", self.guest_name(id)))
    }
}

fn line(world: &World, entry: &failover::Entry) -> String {
    format!("  {}{}: {}", entry.id, world.guest_of_entry(entry.instance), entry.text)
}

fn listed(memory: &mut Memory, row: &Row, (asked, asked_clock): (u64, Time), clock: Time) -> NovaSeen {
    let advanced = memory.updated_at.is_some_and(|known| row.updated_at > known);
    let by_us = memory.editing > 0 || memory.edited.is_some_and(|edited| asked <= edited);
    let first_after_edit = memory.edited.take_if(|edited| asked > *edited).is_some();
    if advanced && !by_us && !first_after_edit {
        memory.reported_before = memory.asked_for_report.filter(|_| memory.reports > 0);
        memory.reports += 1;
        (memory.reported, memory.asked_for_report) = (Some(clock), Some(asked_clock));
    }
    memory.updated_at = Some(row.updated_at);
    NovaSeen::Listed(ServiceSeen {
        up: row.up,
        forced_down: row.forced_down,
        disabled: row.disabled.clone(),
        reported: memory.reported,
        reports: memory.reports,
        reported_before: memory.reported_before,
    })
}

fn read(before: &Power, answer: BmcAnswer, asked: Time, came: Time) -> Power {
    match (answer, before) {
        (BmcAnswer::On, _) => Power::On { at: asked },
        (BmcAnswer::Off, Power::Off { since, .. }) => Power::Off { since: *since, at: asked.max(*since) },
        (BmcAnswer::Off, _) => Power::Off { since: came, at: came },
        (BmcAnswer::Silent, Power::Unknown { why, since }) => Power::Unknown { why: why.clone(), since: *since },
        (BmcAnswer::Silent, _) => Power::Unknown { why: "its BMC does not answer".into(), since: came },
    }
}

/// What the simulator asks of an act.
pub trait ActExt {
    fn edits(&self) -> bool;
}

impl ActExt for Act {
    fn edits(&self) -> bool {
        matches!(
            self,
            Self::ForceDown { .. } | Self::Disable { .. } | Self::ClearForcedDown { .. } | Self::Enable { .. }
        )
    }
}
