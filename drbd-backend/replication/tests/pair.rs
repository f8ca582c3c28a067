//! Replicas on disks that obey, links that hold and an arbiter that answers: the ordinary life of a volume.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use replication::*;

const VOLUME: VolumeId = VolumeId(7);
const SIZE: u64 = 4 * EXTENT_BLOCKS;

/// What a block holds; 0 is nothing.
type Value = u64;

struct World {
    now: Time,
    nodes: Vec<NodeWorld>,
    record: Record,
    /// In the order in which it was sent.
    wire: VecDeque<Sent>,
    links: BTreeMap<Link, (Node, Node)>,
    next_link: u32,
    answers: BTreeMap<Request, Answer>,
    read: BTreeMap<Request, Vec<Value>>,
    reports: BTreeMap<OrderId, Result<(), Refusal>>,
    story: Vec<String>,
    asked: u32,
    cut: Vec<(Node, Node)>,
}

struct Sent {
    to: Node,
    link: Link,
    envelope: Envelope,
    message: Message,
    values: Option<Vec<Value>>,
}

struct NodeWorld {
    replica: Option<Replica>,
    data: BTreeMap<u64, Value>,
    superblock: Superblock,
    activity: Vec<Extent>,
    bitmaps: BTreeMap<Node, Bits>,
    control: Control,
    payloads: BTreeMap<Payload, Vec<Value>>,
    next_payload: u32,
    boot: u128,
    process: u128,
}

fn node(place: u8) -> Node {
    Node::new(place).expect("there are eight")
}

impl World {
    fn new(count: u8) -> Self {
        let disks: Vec<(Node, DiskId)> =
            (0..count).map(|place| (node(place), DiskId(100 + u128::from(place)))).collect();
        let record = Record::of_new_volume(disks.iter().copied());
        let nodes = disks.iter().map(|(node, disk)| NodeWorld::new(*node, *disk, &record)).collect();
        let mut world = Self {
            now: Time(1_000_000_000),
            nodes,
            record,
            wire: VecDeque::new(),
            links: BTreeMap::new(),
            next_link: 0,
            answers: BTreeMap::new(),
            read: BTreeMap::new(),
            reports: BTreeMap::new(),
            story: Vec::new(),
            asked: 0,
            cut: Vec::new(),
        };
        (0..count).for_each(|place| world.start(place));
        world.run(Duration::from_millis(100));
        world
    }

    fn start(&mut self, place: u8) {
        let it = &mut self.nodes[usize::from(place)];
        it.process += 1;
        let found = Found {
            superblock: it.superblock.clone(),
            activity: it.activity.clone(),
            bitmaps: it.bitmaps.clone().into_iter().collect(),
            control: it.control.clone(),
        };
        let start = Start {
            boot: BootId(it.boot),
            process: Process(it.process),
            entropy: u128::from(place) << 64 | it.process << 32,
        };
        let mut settings = Settings::of(VOLUME, node(place));
        settings.hot_extents = 2;
        let mut effects = Vec::new();
        it.replica = Some(Replica::start(settings, found, start, self.now, &mut effects));
        self.carry_out(place, effects);
        self.connect_all();
    }

    fn connect_all(&mut self) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let (one, other) = (node(u8::try_from(a).unwrap()), node(u8::try_from(b).unwrap()));
                let there = self.links.values().any(|pair| *pair == (one, other));
                let both = self.nodes[a].replica.is_some() && self.nodes[b].replica.is_some();
                if !there && both && !self.cut.contains(&(one, other)) {
                    self.next_link += 1;
                    let link = Link(self.next_link);
                    self.links.insert(link, (one, other));
                    self.tell(one.place(), Event::Connected { link, node: other });
                    self.tell(other.place(), Event::Connected { link, node: one });
                }
            }
        }
    }

    fn disconnect(&mut self, link: Link) {
        let Some((one, other)) = self.links.remove(&link) else { return };
        self.wire.retain(|sent| sent.link != link);
        self.tell(one.place(), Event::Disconnected { link });
        self.tell(other.place(), Event::Disconnected { link });
    }

    fn kill(&mut self, place: u8) {
        self.nodes[usize::from(place)].replica = None;
        self.nodes[usize::from(place)].payloads.clear();
        let links: Vec<Link> = self
            .links
            .iter()
            .filter(|(_, (a, b))| *a == node(place) || *b == node(place))
            .map(|(link, _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.disconnect(link));
    }

    fn tell(&mut self, place: u8, event: Event) {
        let mut effects = Vec::new();
        if let Some(replica) = &mut self.nodes[usize::from(place)].replica {
            replica.handle(self.now, event, &mut effects);
        }
        self.carry_out(place, effects);
    }

    fn carry_out(&mut self, place: u8, effects: Vec<Effect>) {
        let me = node(place);
        let mut events = Vec::new();
        let mut hang_up = Vec::new();
        for effect in effects {
            let it = &mut self.nodes[usize::from(place)];
            match effect {
                Effect::Store { job, span, content, .. } => {
                    let values = match content {
                        Content::Data(payload) => it.payloads[&payload].clone(),
                        Content::Zeroes { .. } => vec![0; span.count as usize],
                    };
                    span.blocks().zip(values).for_each(|(block, value)| {
                        it.data.insert(block, value);
                    });
                    events.push(Event::Stored { job, result: Ok(()) });
                }
                Effect::Load { job, span } => {
                    let values = span.blocks().map(|block| it.data.get(&block).copied().unwrap_or(0)).collect();
                    events.push(Event::Loaded { job, result: Ok(it.payload(values)) });
                }
                Effect::Merge { job, payload, .. } => events.push(Event::Merged { job, result: Ok(payload) }),
                Effect::Flush { job } => events.push(Event::Flushed { job, result: Ok(()) }),
                Effect::Keep { job, what } => {
                    it.keep(what);
                    events.push(Event::Kept { job, result: Ok(()) });
                }
                Effect::Send { link, envelope, message, payload } => {
                    let values = payload.map(|payload| it.payloads[&payload].clone());
                    if let Some((one, other)) = self.links.get(&link) {
                        let to = if *one == me { *other } else { *one };
                        self.wire.push_back(Sent { to, link, envelope, message, values });
                    }
                }
                Effect::HangUp { link } => hang_up.push(link),
                Effect::Ask { question } => {
                    let record = Box::new(self.record.clone());
                    let told = Told::Record { incarnation: Incarnation(1), record };
                    events.push(Event::Told { question, told });
                }
                Effect::Propose { question, expected, proposed, .. } => {
                    let settled = if *expected == self.record {
                        self.record = *proposed;
                        Settled::Swapped
                    } else {
                        Settled::Refused(Box::new(self.record.clone()))
                    };
                    events.push(Event::Settled { question, settled });
                }
                Effect::Answer { request, answer } => {
                    if let Answer::Data(payload) = answer {
                        let values = it.payloads.remove(&payload).expect("it holds what was read");
                        self.read.insert(request, values);
                    }
                    assert!(self.answers.insert(request, answer).is_none(), "{request:?} was answered twice");
                }
                Effect::Report { order, outcome } => drop(self.reports.insert(order, outcome)),
                Effect::Release(payload) => {
                    it.payloads.remove(&payload).expect("it is released once");
                }
                Effect::Say(note) => self.story.push(format!("{:>6} {me}: {note}", self.now.0 / 1_000_000)),
            }
        }
        events.into_iter().for_each(|event| self.tell(place, event));
        for link in hang_up {
            let Some((one, other)) = self.links.remove(&link) else { continue };
            self.wire.retain(|sent| sent.link != link);
            let to = if one == me { other } else { one };
            self.tell(to.place(), Event::Disconnected { link });
        }
    }

    fn deliver(&mut self) {
        for _ in 0..100_000 {
            let Some(Sent { to, link, envelope, message, values }) = self.wire.pop_front() else { return };
            if self.links.contains_key(&link) {
                let payload = values.map(|values| self.nodes[to.index()].payload(values));
                self.tell(to.place(), Event::Received { link, envelope, message, payload });
            }
        }
        panic!("they never stop talking: {:#?}", self.story);
    }

    fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.deliver();
            self.connect_all();
            self.deliver();
            self.now = self.now + Duration::from_millis(10);
            for place in 0..u8::try_from(self.nodes.len()).unwrap() {
                let due = self.nodes[usize::from(place)].replica.as_ref().and_then(Replica::wake_at);
                if due.is_some_and(|at| at <= self.now) {
                    self.tell(place, Event::Woken);
                }
            }
        }
        self.deliver();
    }

    fn ask(&mut self, place: u8, ask: impl FnOnce(&mut NodeWorld) -> Ask) -> Request {
        self.asked += 1;
        let request = Request(self.asked);
        let ask = ask(&mut self.nodes[usize::from(place)]);
        self.tell(place, Event::Asked { request, client: 0, ask });
        request
    }

    fn write(&mut self, place: u8, start: u64, values: &[Value]) -> Request {
        let span = Span::new(start, u32::try_from(values.len()).unwrap());
        let values = values.to_vec();
        self.ask(place, |it| Ask::Write { span, content: Content::Data(it.payload(values)), durable: false })
    }

    fn writes(&mut self, place: u8, start: u64, values: &[Value]) {
        let request = self.write(place, start, values);
        self.run(Duration::from_millis(20));
        assert_eq!(self.answers.get(&request), Some(&Answer::Done), "{:#?}", self.story);
    }

    fn reads(&mut self, place: u8, start: u64, count: u32) -> Vec<Value> {
        let request = self.ask(place, |_| Ask::Read(Span::new(start, count)));
        self.run(Duration::from_millis(20));
        self.read.remove(&request).unwrap_or_else(|| panic!("{:?} {:#?}", self.answers.get(&request), self.story))
    }

    fn order(&mut self, place: u8, what: Order, within: Duration) -> Result<(), Refusal> {
        self.asked += 1;
        let order = OrderId(self.asked);
        self.tell(place, Event::Ordered { order, what });
        self.run(within);
        self.reports.remove(&order).unwrap_or_else(|| panic!("no report: {:#?}", self.story))
    }

    fn promotes(&mut self, place: u8) {
        assert_eq!(self.order(place, Order::Promote, Duration::from_secs(4)), Ok(()), "{:#?}", self.story);
    }

    fn status(&self, place: u8) -> Status {
        self.nodes[usize::from(place)].replica.as_ref().expect("it runs").status(self.now)
    }

    fn all_equal(&self) {
        let blocks = |it: &NodeWorld| -> BTreeMap<u64, Value> {
            it.data.iter().filter(|(_, value)| **value != 0).map(|(block, value)| (*block, *value)).collect()
        };
        let first = blocks(&self.nodes[0]);
        self.nodes.iter().for_each(|it| assert_eq!(blocks(it), first, "{:#?}", self.story));
    }

    fn no_payload_is_left(&self) {
        for it in &self.nodes {
            assert!(it.payloads.is_empty(), "{:?} {:#?}", it.payloads.keys(), self.story);
        }
    }
}

impl NodeWorld {
    fn new(me: Node, disk: DiskId, record: &Record) -> Self {
        let superblock = Superblock {
            volume: VOLUME,
            node: me,
            size_blocks: SIZE,
            disk,
            incarnation: None,
            generation: record.generation,
            record: record.clone(),
            data: Data::Consistent,
            boot: BootId(1 + u128::from(me.place())),
            clean: true,
            suspect: false,
            barrier: Barrier(0),
            confirmed: Barrier(0),
            absent: [None; MAX_NODES],
        };
        Self {
            replica: None,
            data: BTreeMap::new(),
            superblock,
            activity: Vec::new(),
            bitmaps: BTreeMap::new(),
            control: Control::default(),
            payloads: BTreeMap::new(),
            next_payload: 0,
            boot: 1 + u128::from(me.place()),
            process: 0,
        }
    }

    fn payload(&mut self, values: Vec<Value>) -> Payload {
        self.next_payload += 1;
        self.payloads.insert(Payload(self.next_payload), values);
        Payload(self.next_payload)
    }

    fn keep(&mut self, what: Metadata) {
        match what {
            Metadata::Superblock(superblock) => self.superblock = *superblock,
            Metadata::Activity(extents) => self.activity = extents,
            Metadata::Bitmap { node, bits, extents } => {
                let whole = self.bitmaps.entry(node).or_default();
                extents.iter().for_each(|extent| whole.replace_words(*extent, &bits.words(*extent)));
            }
            Metadata::WholeBitmap { node, bits } => drop(self.bitmaps.insert(node, bits)),
            Metadata::Control(control) => self.control = *control,
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_was_written_is_read_and_lies_on_both_disks() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 5, &[1, 2, 3]);
    assert_eq!(world.reads(0, 4, 5), [0, 1, 2, 3, 0]);
    world.all_equal();
    world.no_payload_is_left();
    assert!(world.status(0).serving);
    assert_eq!(world.status(1).disk, DiskState::UpToDate);
}

#[test]
fn a_secondary_refuses_and_names_the_primary() {
    let mut world = World::new(2);
    world.promotes(0);
    let request = world.write(1, 0, &[9]);
    assert_eq!(world.answers[&request], Answer::Failed(Failure::NotPrimary { primary: Some(node(0)) }));
    world.no_payload_is_left();
}

#[test]
fn a_peer_that_is_lost_is_dropped_and_gets_what_it_missed_when_it_is_back() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 0, &[1]);
    world.kill(1);
    let request = world.write(0, 1, &[2]);
    world.run(SECOND);
    assert_eq!(world.answers.get(&request), Some(&Answer::Done), "{:#?}", world.story);
    for extent in 0..4 {
        world.writes(0, extent * EXTENT_BLOCKS + 7, &[10 + extent]);
    }
    world.start(1);
    world.run(8 * SECOND);
    assert_eq!(world.record.in_sync().len(), 2, "{:#?}", world.story);
    world.all_equal();
    world.no_payload_is_left();
    assert_eq!(world.status(1).disk, DiskState::UpToDate);
}

#[test]
fn what_has_not_begun_may_be_withdrawn_and_what_has_is_done_all_the_same() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 0, &[1]);
    let begun = world.write(0, 0, &[2]);
    world.kill(1);
    let held = world.write(0, 1, &[3]);
    let flush = world.ask(0, |_| Ask::Flush);
    for request in [begun, held, flush] {
        world.tell(0, Event::Withdrawn { request });
    }
    assert_eq!(world.answers.get(&begun), None);
    assert_eq!([&world.answers[&held], &world.answers[&flush]], [&Answer::Failed(Failure::Withdrawn); 2]);
    world.run(SECOND);
    assert_eq!(world.answers.get(&begun), Some(&Answer::Done), "{:#?}", world.story);
    assert_eq!(world.reads(0, 0, 2), [2, 0]);
    world.no_payload_is_left();
}

#[test]
fn the_survivor_of_a_primary_takes_over_and_the_old_one_comes_back_by_resync() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 0, &[1, 2]);
    world.kill(0);
    world.run(4 * SECOND);
    assert!(world.status(1).serving, "{:#?}", world.story);
    assert_eq!(world.reads(1, 0, 2), [1, 2]);
    world.writes(1, 1, &[3]);
    world.start(0);
    world.run(8 * SECOND);
    assert_eq!(world.record.in_sync().len(), 2, "{:#?}", world.story);
    world.all_equal();
    world.no_payload_is_left();
}

#[test]
fn the_role_is_handed_over_without_a_grace() {
    let mut world = World::new(3);
    world.promotes(0);
    world.writes(0, 0, &[1, 2]);
    assert_eq!(world.order(0, Order::HandOver(node(2)), SECOND), Ok(()), "{:#?}", world.story);
    assert!(world.status(2).serving, "{:#?}", world.story);
    assert_eq!(world.reads(2, 0, 2), [1, 2]);
    world.writes(2, 0, &[4]);
    assert_eq!(world.record.in_sync().len(), 3, "{:#?}", world.story);
    world.all_equal();
    world.no_payload_is_left();
}

#[test]
fn of_three_two_go_on_equal_when_the_primary_dies() {
    let mut world = World::new(3);
    world.promotes(1);
    world.writes(1, 0, &[1, 2]);
    world.kill(1);
    world.run(4 * SECOND);
    let primary = world.record.primary.expect("one took over");
    assert!(world.status(primary.place()).serving, "{:#?}", world.story);
    assert_eq!(world.record.in_sync().len(), 2, "{:#?}", world.story);
    world.writes(primary.place(), 0, &[7]);
    world.start(1);
    world.run(8 * SECOND);
    assert_eq!(world.record.in_sync().len(), 3, "{:#?}", world.story);
    world.all_equal();
}

#[test]
fn shut_down_and_started_again_it_goes_on() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 3, &[5]);
    assert_eq!(world.order(0, Order::ShutDown, SECOND), Ok(()), "{:#?}", world.story);
    assert_eq!(world.order(1, Order::ShutDown, SECOND), Ok(()), "{:#?}", world.story);
    world.kill(0);
    world.kill(1);
    world.start(0);
    world.start(1);
    world.run(8 * SECOND);
    let primary = world.record.primary.expect("it was one");
    assert_eq!(world.reads(primary.place(), 3, 1), [5]);
    world.all_equal();
}

#[test]
fn after_a_power_loss_of_all_it_comes_back_in_a_new_epoch() {
    let mut world = World::new(2);
    world.promotes(0);
    world.writes(0, 3, &[5]);
    world.kill(0);
    world.kill(1);
    world.nodes.iter_mut().for_each(|it| it.boot += 100);
    world.start(0);
    world.start(1);
    world.run(8 * SECOND);
    assert_eq!(world.record.epoch, 2, "{:#?}", world.story);
    assert_eq!(world.record.in_sync().len(), 2, "{:#?}", world.story);
    world.all_equal();
}

#[test]
fn a_destroyed_node_is_left_behind_by_force_only() {
    let mut world = World::new(2);
    world.promotes(0);
    assert_eq!(world.order(0, Order::Demote, SECOND), Ok(()), "{:#?}", world.story);
    world.kill(0);
    let refused = world.order(1, Order::ForcePrimary { destroyed: vec![] }, SECOND);
    assert_eq!(refused, Err(Refusal::MayServe(vec![node(0)])));
    let forced = world.order(1, Order::ForcePrimary { destroyed: vec![node(0)] }, SECOND);
    assert_eq!(forced, Ok(()), "{:#?}", world.story);
    world.writes(1, 0, &[1]);
    world.start(0);
    world.run(8 * SECOND);
    assert_eq!(world.record.in_sync().len(), 2, "{:#?}", world.story);
    world.all_equal();
}

fn attached() -> Order {
    let (host, initiator) = ("cmp1".to_owned(), "iqn.x".to_owned());
    let attachment =
        Attachment { client: 0, id: 77, host, initiator, read_only: false, chap: None, epoch: 0, revoked: false };
    Order::Control(Change::Attach(attachment))
}

#[test]
fn what_is_attached_and_revoked_is_known_on_every_replica() {
    let mut world = World::new(2);
    world.promotes(0);
    assert_eq!(world.order(0, attached(), SECOND), Ok(()), "{:#?}", world.story);
    assert!(world.nodes.iter().all(|it| it.control.admits(1, 1)));
    assert_eq!(world.order(0, Order::Control(Change::Revoke { id: 77 }), SECOND), Ok(()));
    assert!(world.nodes.iter().all(|it| it.control.version == 2 && !it.control.admits(1, 1)));
    world.all_equal();
}

#[test]
fn a_secondary_that_heard_of_a_fence_before_an_attachment_shuts_it_out_as_primary() {
    let mut world = World::new(2);
    world.promotes(0);
    world.tell(1, Event::HostsFenced { version: 1, clients: vec![] });
    assert_eq!(world.order(0, attached(), SECOND), Ok(()), "{:#?}", world.story);
    world.tell(1, Event::HostsFenced { version: 1, clients: vec![1] });
    world.kill(0);
    world.run(10 * SECOND);
    assert_eq!(world.status(1).role, Role::Primary, "{:#?}", world.story);
    let control = &world.nodes[1].control;
    assert!(control.fences == 1 && !control.admits(1, world.status(1).record.epoch), "{control:?}");
}
