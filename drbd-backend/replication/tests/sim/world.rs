//! Time, and what is due: the next thing happens to whom it concerns, then the judge looks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use replication::{
    BootId, Data, DiskId, Durability, Effect, Event, Incarnation, Link, MAX_NODES, Node, Nodes, Record, Request,
    ResyncSettings, Settings, Superblock, VolumeId,
};

use super::arbiter::Arbiter;
use super::bend::Bend;
use super::client::{Attempt, Client};
use super::disk::{Blocks, Cell, Disk, MOST};
use super::judge::{Judge, Promise};
use super::misfortune::Misfortune;
use super::network::Network;
use super::node::NodeWorld;
use super::operator::OpenOrder;

/// Nanoseconds.
pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;

const VOLUME: VolumeId = VolumeId(7);
/// What blocks hold before anybody writes.
const INITIAL: u32 = 900_000;
/// A day is lost that has more events than this: somebody does not come to rest.
const EVENTS_AT_MOST: u64 = 200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Issue { node: usize, process: u64, slot: usize },
    Done { node: usize, process: u64, slot: usize },
    Wake { node: usize, process: u64 },
    Resume { node: usize, process: u64 },
    Exit { node: usize, process: u64 },
    Overdue { node: usize, process: u64 },
    Restart { node: usize },
    DiskIsWell { node: usize },
    Connect { one: usize, other: usize },
    Arrive { link: Link, end: usize },
    Decide { number: u64 },
    AnswerOfArbiter { number: u64 },
    GiveUpOnArbiter { number: u64 },
    Client { client: usize },
    Impatient { client: usize, request: Request },
    HearOfFences { node: usize },
    HearOfFence { node: usize, fenced: Node, boot: BootId },
    Attend,
    Arm { number: usize },
    Misfortune { number: usize, there: usize },
    Look,
    Heal,
    EndCheck,
}

/// What is chosen for a volume and its nodes before the day begins.
#[derive(Debug, Clone)]
pub struct Plan {
    pub nodes: usize,
    pub durability: Durability,
    pub blocks: Vec<u64>,
    pub size_blocks: u64,
    pub step_blocks: u32,
    pub hot_extents: usize,
    pub in_flight: usize,
    pub barrier_every_ms: u64,
    pub confirms_reads: bool,
    pub takes_over: bool,
    /// Parts per million, of each node's clock.
    pub drift: [i64; 3],
    pub clocks_are_bad: bool,
    /// How long each client thinks at most, in ms, and whether it comes by an attachment.
    pub clients: Vec<(u64, bool)>,
    pub heals_at_ms: u64,
    /// Everything takes the same time, in the same order.
    pub is_steady: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub takeovers: u64,
    pub resyncs: u64,
    pub freezes: u64,
    pub suspects: u64,
    /// More failed than a volume has to spare.
    pub volumes_lost: u64,
    pub misfortunes: Vec<(&'static str, u64)>,
}

#[derive(Debug)]
struct Later {
    at: u64,
    number: u64,
    due: Due,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[derive(Debug)]
pub struct World {
    pub now: u64,
    began: u64,
    pub chance: Rng,
    agenda: BinaryHeap<Reverse<Later>>,
    numbers: u64,
    pub nodes: Vec<NodeWorld>,
    pub network: Network,
    pub arbiter: Arbiter,
    pub clients: Vec<Client>,
    /// What processes were asked and have not answered.
    pub open: Vec<Attempt>,
    pub orders: Vec<OpenOrder>,
    pub judge: Judge,
    pub was_excused: bool,
    pub bend: Bend,
    /// Events that a bend made up.
    pub bent: Vec<Event>,
    /// Orders that a bend has answered already.
    pub answered_early: Vec<replication::OrderId>,
    pub spare: Vec<Vec<Effect>>,

    pub misfortunes: Vec<Misfortune>,
    pub armed: Vec<usize>,
    /// Each disk as it was when a copy was made.
    pub copies: Vec<Disk>,
    /// Whom each node was falsely told to be destroyed, while it is about to be forced.
    pub forces: Vec<Option<Nodes>>,
    /// The arbiter's list of fenced hosts, by their clients' numbers.
    pub host_fences: (u64, Vec<u32>),
    pub zeroed: [bool; MOST],

    pub blocks: Blocks,
    settings: Settings,
    pub durability: Durability,
    pub confirms_reads: bool,
    pub takes_over: bool,
    pub is_steady: bool,
    pub patience: u64,
    /// Clients whose patience ends say so.
    pub withdraws: bool,

    pub starts: u64,
    pub requests: u32,
    pub order_numbers: u32,
    pub new_disks: u128,
    pub events: u64,
    pub counts: Counts,
    /// Everything is repaired, and nothing new goes wrong.
    pub is_healing: bool,
    pub end: super::end::End,
    pub story: Option<Vec<String>>,
    /// The story has every event and every effect.
    pub tells_all: bool,
}

impl World {
    pub fn new(plan: &Plan, seed: u64, bend: Bend) -> Self {
        let mut chance = Rng::with_seed(seed ^ 0x7a6e_de11);
        let count = plan.nodes;
        let node = |index: usize| Node::new(u8::try_from(index).expect("there are three")).expect("there are eight");
        let disks: Vec<(Node, DiskId)> = (0..count).map(|index| (node(index), DiskId(100 + index as u128))).collect();
        let record = Record::of_new_volume(disks.iter().copied());
        let mut cells: [Cell; MOST] = Default::default();
        let initial: Vec<u32> = (INITIAL..).take(plan.blocks.len()).collect();
        cells.iter_mut().zip(&initial).for_each(|(cell, initial)| *cell = [*initial; 2]);
        let nodes: Vec<NodeWorld> = disks
            .iter()
            .map(|(node, disk)| {
                let superblock = first_superblock(plan, *node, *disk, &record);
                NodeWorld::new(Disk::new(cells, superblock), 1, plan.drift[node.index()])
            })
            .collect();
        let clients = plan.clients.iter().enumerate();
        let clients =
            clients.map(|(number, (pace, attached))| Client::new(attached.then_some(1 + number as u128), pace * MS));
        let mut judge = Judge::new(record.clone(), &initial);
        judge.clocks_lie = plan.clocks_are_bad;
        judge.excuses_reads = plan.clocks_are_bad && !plan.confirms_reads;
        let now = 20_000 * MS;
        let mut world = Self {
            now,
            began: now,
            agenda: BinaryHeap::with_capacity(256),
            numbers: 0,
            copies: nodes.iter().map(|node| node.disk.clone()).collect(),
            forces: vec![None; count],
            nodes,
            network: Network::default(),
            arbiter: Arbiter::new(record),
            clients: clients.collect(),
            open: Vec::new(),
            orders: Vec::new(),
            judge,
            was_excused: false,
            bend,
            bent: Vec::new(),
            answered_early: Vec::new(),
            spare: Vec::new(),
            misfortunes: Vec::new(),
            armed: Vec::new(),
            host_fences: (0, Vec::new()),
            zeroed: [false; MOST],
            blocks: Blocks { numbers: plan.blocks.clone() },
            settings: settings_of(plan),
            durability: plan.durability,
            confirms_reads: plan.confirms_reads,
            takes_over: plan.takes_over,
            is_steady: plan.is_steady,
            patience: 1_200 * MS,
            withdraws: seed.is_multiple_of(4),
            starts: 0,
            requests: 0,
            order_numbers: 0,
            new_disks: 0,
            events: 0,
            counts: Counts::default(),
            is_healing: false,
            end: super::end::End::default(),
            story: None,
            tells_all: false,
            chance: chance.fork(),
        };
        world.begin_day(plan);
        world
    }

    fn begin_day(&mut self, plan: &Plan) {
        (0..self.nodes.len()).for_each(|node| self.start_process(node));
        for client in 0..self.clients.len() {
            let wait = self.chance.u64(0..100 * MS);
            self.at(self.now + 50 * MS + wait, Due::Client { client });
        }
        self.at(self.now + 100 * MS, Due::Look);
        if !plan.is_steady {
            self.at(self.now + 20 * MS, Due::Attend);
            self.at(self.now + plan.heals_at_ms * MS, Due::Heal);
        }
    }

    /// Milliseconds into the day.
    pub fn since_morning(&self) -> u64 {
        (self.now - self.began) / MS
    }

    /// Milliseconds into the day, of that time.
    pub fn in_the_day_of(&self, at: u64) -> u64 {
        (at - self.began) / MS
    }

    pub fn in_the_day(&self, ms: u64) -> u64 {
        self.began + ms * MS
    }

    pub fn settings(&self, node: usize) -> Settings {
        Settings { me: self.place(node), ..self.settings.clone() }
    }

    pub fn place(&self, node: usize) -> Node {
        Node::new(u8::try_from(node).expect("there are three")).expect("there are eight")
    }

    pub fn name(&self, node: usize) -> String {
        format!("node {node}")
    }

    pub fn say(&mut self, node: Option<usize>, line: impl FnOnce() -> String) {
        let now = self.now - self.began;
        if let Some(story) = &mut self.story {
            let who = node.map_or(String::new(), |node| format!("node {node}: "));
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            story.push(format!("{:10.4} {who}{}", now as f64 / 1e9, line()));
        }
    }

    pub fn at(&mut self, at: u64, due: Due) {
        self.numbers += 1;
        self.agenda.push(Reverse(Later { at: at.max(self.now), number: self.numbers, due }));
    }

    /// The next thing that is due. False: nothing ever is again, or the day is over.
    pub fn step(&mut self) -> bool {
        if self.judge.is_lost() || self.end.is_over {
            return false;
        }
        let Some(Reverse(later)) = self.agenda.pop() else { return false };
        self.now = later.at;
        self.happens(later.due);
        if self.events > EVENTS_AT_MOST {
            self.judge.broken(self.now, Promise::Serves, format!("{EVENTS_AT_MOST} events, and no end"));
        }
        true
    }

    pub fn when_next(&self) -> Option<u64> {
        self.agenda.peek().map(|Reverse(later)| later.at)
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Issue { node, process, slot } => self.issue(node, process, slot),
            Due::Done { node, process, slot } => self.done(node, process, slot),
            Due::Wake { node, process } => self.wake(node, process),
            Due::Resume { node, process } => self.resume(node, process),
            Due::Exit { node, process } => self.exit(node, process),
            Due::Overdue { node, process } => self.overdue(node, process),
            Due::Restart { node } => self.restart(node),
            Due::DiskIsWell { node } => self.disk_is_well(node),
            Due::Connect { one, other } => self.connect(one, other),
            Due::Arrive { link, end } => self.arrive(link, end),
            Due::Decide { number } => self.decide(number),
            Due::AnswerOfArbiter { number } => self.arbiter_answers(number),
            Due::GiveUpOnArbiter { number } => self.give_up_on_arbiter(number),
            Due::Client { client } => self.client_acts(client),
            Due::Impatient { client, request } => self.impatient(client, request),
            Due::HearOfFences { node } => self.hear_of_fences(node),
            Due::HearOfFence { node, fenced, boot } => self.hear_of_fence(node, fenced, boot),
            Due::Attend => {
                if !self.is_healing {
                    self.attend();
                }
            }
            Due::Arm { number } => self.armed.push(number),
            Due::Misfortune { number, there } => self.strike(number, there),
            Due::Look => self.look(),
            Due::Heal => self.heal(),
            Due::EndCheck => self.end_check(),
        }
    }

    pub fn disk_is_well(&mut self, node: usize) {
        let ills = &mut self.nodes[node].disk.ills;
        ills.is_full = false;
        ills.slower = 0;
    }

    /// The judge looks at everything, now and then.
    fn look(&mut self) {
        self.judge_excuses();
        self.judge_replicas();
        self.judge_fences();
        self.at(self.now + 120 * MS, Due::Look);
        for node in 0..self.nodes.len() {
            let is_down = self.nodes[node].replica.is_none();
            if is_down && self.chance.u8(0..4) == 0 {
                self.copies[node] = self.nodes[node].disk.clone();
            }
        }
    }
}

fn first_superblock(plan: &Plan, node: Node, disk: DiskId, record: &Record) -> Superblock {
    Superblock {
        volume: VOLUME,
        node,
        size_blocks: plan.size_blocks,
        disk,
        incarnation: Some(Incarnation(1)),
        generation: record.generation,
        record: record.clone(),
        data: Data::Consistent,
        boot: BootId(1),
        clean: true,
        suspect: false,
        barrier: replication::Barrier(0),
        confirmed: replication::Barrier(0),
        absent: [None; MAX_NODES],
    }
}

/// Time runs five times as fast as with the defaults: the same proportions, and fewer heartbeats to simulate.
fn settings_of(plan: &Plan) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        durability: plan.durability,
        takes_over: plan.takes_over,
        lease: ms(400),
        grace: ms(460),
        heartbeat_every: ms(80),
        reconnect: ms(60),
        stalled: ms(2_000),
        ask_again: ms(50),
        barrier_every: ms(plan.barrier_every_ms),
        hot_extents: plan.hot_extents,
        in_flight: plan.in_flight,
        resync: ResyncSettings { step_blocks: plan.step_blocks, steps: (1, 3), share: 25 },
        confirm_reads: plan.confirms_reads,
        ..Settings::of(VOLUME, Node::new(0).expect("there is a first"))
    }
}
