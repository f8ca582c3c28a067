//! The world: everything that is, the events to come, and the story so far.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use failover::{Act, Answer, HostPolicy, InstanceId, Ledger, Policy};

use super::bend::Bend;
use super::bmc::Bmc;
use super::faults::Fault;
use super::host::SimHost;
use super::judge::Judge;
use super::nova::{Nova, NovaEvent};
use super::tandem::{Delivery, Tandem};

pub type HostId = usize;
pub const NETWORKS: usize = 2;
pub const MGMT: usize = 0;
pub const NETWORK_NAMES: [&str; NETWORKS] = ["mgmt", "storage"];

/// How the cloud is built.
#[derive(Debug, Clone)]
pub struct Cloud {
    pub hosts: usize,
    pub tandems: usize,
    /// On how many networks hosts are heard: 0, 1 or 2. With 0 only Nova watches.
    pub networks: usize,
    pub tcp: bool,
    pub policy: Policy,
    pub armed: bool,
    pub instances: Vec<super::nova::Guest>,
    /// Hosts in one zone or aggregate.
    pub groups: Vec<(String, Vec<HostId>)>,
    pub host_policies: Vec<(HostId, HostPolicy)>,
    /// No chance in what takes how long: for stories.
    pub steady: bool,
}

impl Default for Cloud {
    fn default() -> Self {
        Self {
            hosts: 3,
            tandems: 1,
            networks: 2,
            tcp: true,
            policy: Policy::default(),
            armed: true,
            instances: Vec::new(),
            groups: Vec::new(),
            host_policies: Vec::new(),
            steady: true,
        }
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    Fault(Fault),
    Look { tandem: usize, life: u32, token: u32 },
    Think { tandem: usize, life: u32 },
    Arrives { tandem: usize, life: u32, what: Delivery },
    LeaseFree { tandem: usize, life: u32 },
    Wakes { tandem: usize, life: u32 },
    Send { tandem: usize, life: u32, generation: u32, act: Act },
    Lands { tandem: usize, life: u32, generation: u32, act: Act, answer_lost: bool },
    Answered { tandem: usize, life: u32, generation: u32, act: Act, answer: Answer },
    Cut { host: HostId, by_bmc_of: HostId },
    Booted { host: HostId, boot: u32 },
    ComputeStarts { host: HostId, boot: u32 },
    Nova(NovaEvent),
}

#[derive(Debug)]
struct Queued {
    at: u64,
    turn: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.turn) == (other.at, other.turn)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

/// The database that all tandem-ha share.
#[derive(Debug)]
pub struct Database {
    pub up: bool,
    pub ledger: Ledger,
    pub holder: Option<usize>,
    pub generation: u32,
    /// Virtual time until which the holder is safe from others.
    pub until: u64,
}

#[derive(Debug)]
pub struct World {
    pub now: u64,
    turn: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    pub rng: fastrand::Rng,
    pub steady: bool,
    pub boot_ms: u64,
    pub hosts: Vec<SimHost>,
    pub bmcs: Vec<Bmc>,
    pub nova: Nova,
    pub tandems: Vec<Tandem>,
    pub db: Database,
    pub policy: Policy,
    pub bend: Bend,
    pub judge: Judge,
    /// For the judge, kept to spare memory: of each instance where it was found running.
    pub copies: Vec<Option<HostId>>,
    pub networks: usize,
    pub tcp: bool,
    /// Whether the story is written down.
    pub telling: bool,
    /// Operators look before they say that a host is off.
    pub honest: bool,
    pub db_back_at: u64,
    pub story: Vec<(u64, String)>,
}

impl World {
    pub fn new(cloud: &Cloud, seed: u64, telling: bool) -> Self {
        let hosts: Vec<SimHost> = (0..cloud.hosts).map(SimHost::new).collect();
        let mut policy = cloud.policy.clone();
        for (host, own) in &cloud.host_policies {
            policy.hosts.insert(hosts[*host].host.clone(), own.clone());
        }
        let ledger = Ledger { armed: cloud.armed, ..Ledger::default() };
        let mut world = Self {
            now: 0,
            turn: 0,
            queue: BinaryHeap::new(),
            rng: fastrand::Rng::with_seed(seed),
            steady: cloud.steady,
            boot_ms: 40_000,
            bmcs: (0..cloud.hosts).map(Bmc::new).collect(),
            nova: Nova::new(cloud),
            tandems: Vec::new(),
            db: Database { up: true, ledger, holder: None, generation: 0, until: 0 },
            policy,
            bend: Bend::None,
            judge: Judge::default(),
            copies: Vec::new(),
            networks: cloud.networks,
            tcp: cloud.tcp,
            telling,
            story: Vec::new(),
            hosts,
            honest: false,
            db_back_at: 0,
        };
        for (index, guest) in world.nova.instances.iter().enumerate() {
            if guest.runs_at_first() {
                world.hosts[guest.host].guests.push(index);
            }
        }
        world.tandems = (0..cloud.tandems).map(|_| Tandem::new(&world, &cloud.groups)).collect();
        for tandem in 0..cloud.tandems {
            world.starts(tandem);
        }
        world
    }

    pub fn at(&mut self, at: u64, event: Event) {
        self.turn += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), turn: self.turn, event }));
    }

    pub fn after(&mut self, span_ms: u64, event: Event) {
        self.at(self.now + span_ms, event);
    }

    /// A time that something takes: by chance, or in stories always the same.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        if self.steady { least.midpoint(most) } else { self.rng.u64(least..=most) }
    }

    pub fn chance(&mut self, percent: u8) -> bool {
        !self.steady && self.rng.u8(0..100) < percent
    }

    pub fn run_until(&mut self, end: u64) {
        loop {
            let Some(next) = self.queue.peek_mut() else { break };
            if next.0.at > end || self.judge.is_lost() {
                break;
            }
            let Reverse(Queued { at, event, .. }) = PeekMut::pop(next);
            self.now = at;
            self.happens(event);
        }
        self.now = end;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Look { tandem, life, token } => self.look(tandem, life, token),
            Event::Think { tandem, life } => self.think(tandem, life),
            Event::Arrives { tandem, life, what } => self.arrives(tandem, life, what),
            Event::LeaseFree { tandem, life } => self.lease_free(tandem, life),
            Event::Wakes { tandem, life } => self.wakes(tandem, life),
            Event::Send { tandem, life, generation, act } => self.send(tandem, life, generation, act),
            Event::Lands { tandem, life, generation, act, answer_lost } => {
                self.changing(|world| world.lands(tandem, life, generation, act, answer_lost));
            }
            Event::Answered { tandem, life, generation, act, answer } => {
                self.answered(tandem, life, generation, &act, &answer);
            }
            Event::Fault(fault) => {
                self.tell(|_| format!("* {fault}"));
                self.changing(|world| world.strikes(&fault));
            }
            Event::Cut { host, by_bmc_of } => {
                if by_bmc_of == host {
                    self.judge_cut(host);
                }
                self.tell(|world| format!("* {} is switched off by its BMC", world.hosts[host].host));
                self.changing(|world| world.power_off(host));
            }
            Event::Booted { host, boot } => self.changing(|world| world.booted(host, boot)),
            Event::ComputeStarts { host, boot } => self.changing(|world| world.compute_starts(host, boot)),
            Event::Nova(event) => self.changing(|world| world.nova_goes_on(event)),
        }
    }

    /// Whatever changes the world happens in here: what was to be heard until now is heard before, and everybody looks up after.
    pub fn changing(&mut self, change: impl FnOnce(&mut Self)) {
        self.settle();
        self.lies_go_on();
        change(self);
        self.lies_go_on();
        self.paths_change();
        self.judge_copies();
        for tandem in 0..self.tandems.len() {
            self.nudge(tandem);
        }
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.telling {
            let line = line(self);
            self.story.push((self.now, line));
        }
    }

    pub fn host_id(&self, host: &failover::Host) -> HostId {
        usize::try_from(host.service - 0xc000).expect("hosts are numbered")
    }

    pub fn guest_name(&self, id: InstanceId) -> String {
        self.nova.instances[Nova::index(id)].name.to_string()
    }
}
