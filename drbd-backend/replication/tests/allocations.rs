//! What a write costs the core: two replicas, protocol C, warm. No disk and no network; every effect is carried out at once.
#![expect(unsafe_code, reason = "an allocator that counts is one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use replication::{
    Answer, Ask, Barrier, BootId, Content, Control, Data, DiskId, Effect, Event, Found, Incarnation, Link, MAX_NODES,
    Node, Order, OrderId, Payload, Process, Record, Replica, Request, Settings, Settled, Span, Start, Superblock, Time,
    Told, VolumeId,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the very same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

const BLOCKS: u64 = 1024;
const LINK: Link = Link(1);

/// Two replicas, and what is on its way to them.
struct Pair {
    now: Time,
    replicas: Vec<Replica>,
    events: VecDeque<(usize, Event)>,
    effects: Vec<Effect>,
    record: Record,
    done: u64,
    /// In `Replica::handle`, of the Primary and the Secondary.
    allocations: [u64; 2],
    took: Duration,
}

fn node(place: usize) -> Node {
    Node::new(u8::try_from(place).expect("there are two")).expect("there are eight")
}

fn superblock(place: usize, record: &Record) -> Superblock {
    Superblock {
        volume: VolumeId(1),
        node: node(place),
        size_blocks: BLOCKS,
        disk: record.disk(node(place)).expect("both are in sync"),
        incarnation: None,
        generation: record.generation,
        record: record.clone(),
        data: Data::Consistent,
        boot: BootId(1),
        clean: true,
        suspect: false,
        barrier: Barrier(0),
        confirmed: Barrier(0),
        absent: [None; MAX_NODES],
    }
}

impl Pair {
    /// Node 0 is Primary.
    fn new() -> Self {
        let record = Record::of_new_volume([(node(0), DiskId(1)), (node(1), DiskId(2))]);
        let now = Time(1_000_000_000);
        let mut pair = Self {
            now,
            replicas: Vec::new(),
            events: VecDeque::with_capacity(1024),
            effects: Vec::with_capacity(1024),
            record,
            done: 0,
            allocations: [0; 2],
            took: Duration::ZERO,
        };
        for place in 0..2 {
            let mut settings = Settings::of(VolumeId(1), node(place));
            settings.barrier_every = Duration::from_secs(3600);
            let superblock = superblock(place, &pair.record);
            let found = Found { superblock, activity: Vec::new(), bitmaps: Vec::new(), control: Control::default() };
            let start = Start { boot: BootId(1), process: Process(place as u128), entropy: place as u128 };
            let replica = Replica::start(settings, found, start, now, &mut pair.effects);
            pair.replicas.push(replica);
            pair.carry_out(place);
            pair.events.push_back((place, Event::Connected { link: LINK, node: node(1 - place) }));
        }
        pair.events.push_back((0, Event::Ordered { order: OrderId(1), what: Order::Promote }));
        for _ in 0..50 {
            pair.passes(Duration::from_millis(100));
        }
        assert!(pair.replicas[0].status(pair.now).serving, "{:?}", pair.replicas[0].status(pair.now).why);
        pair
    }

    fn carry_out(&mut self, place: usize) {
        for effect in self.effects.drain(..) {
            let event = match effect {
                Effect::Store { job, .. } => Event::Stored { job, result: Ok(()) },
                Effect::Load { job, .. } => Event::Loaded { job, result: Ok(Payload(7)) },
                Effect::Flush { job } => Event::Flushed { job, result: Ok(()) },
                Effect::Keep { job, .. } => Event::Kept { job, result: Ok(()) },
                Effect::Ask { question } => {
                    let record = Box::new(self.record.clone());
                    Event::Told { question, told: Told::Record { incarnation: Incarnation(1), record } }
                }
                Effect::Propose { question, proposed, .. } => {
                    self.record = *proposed;
                    Event::Settled { question, settled: Settled::Swapped }
                }
                Effect::Send { link, envelope, message, payload } => {
                    self.events.push_back((1 - place, Event::Received { link, envelope, message, payload }));
                    continue;
                }
                Effect::Answer { answer, .. } => {
                    assert_eq!(answer, Answer::Done);
                    self.done += 1;
                    continue;
                }
                Effect::HangUp { .. } => panic!("nobody is silent"),
                Effect::Merge { .. } | Effect::Report { .. } | Effect::Release(_) | Effect::Say(_) => continue,
            };
            self.events.push_back((place, event));
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how fast it is is measured on the real clock")]
    fn settles(&mut self) {
        while let Some((place, event)) = self.events.pop_front() {
            let (before, began) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
            self.replicas[place].handle(self.now, event, &mut self.effects);
            self.took += began.elapsed();
            self.allocations[place] += ALLOCATIONS.load(Ordering::Relaxed) - before;
            self.carry_out(place);
        }
    }

    fn passes(&mut self, time: Duration) {
        self.now = self.now + time;
        for place in 0..2 {
            if self.replicas[place].wake_at().is_some_and(|at| at <= self.now) {
                self.events.push_back((place, Event::Woken));
            }
        }
        self.settles();
    }

    /// `depth` at a time.
    fn writes(&mut self, count: u32, depth: u32) {
        for number in 0..count {
            let content = Content::Data(Payload(number % 64));
            let ask = Ask::Write { span: Span::new(u64::from(number) * 7 % BLOCKS, 1), content, durable: false };
            self.events.push_back((0, Event::Asked { request: Request(number), client: 0, ask }));
            if number % depth == depth - 1 {
                self.passes(Duration::from_micros(100));
            }
        }
    }
}

#[test]
fn a_write_allocates_nothing() {
    for depth in [1, 32] {
        let mut pair = Pair::new();
        pair.writes(4_096, depth);
        (pair.done, pair.allocations, pair.took) = (0, [0; 2], Duration::ZERO);
        pair.writes(10_016, depth);
        let nanoseconds = pair.took.as_nanos() / u128::from(pair.done);
        println!("depth {depth}: {nanoseconds} ns in handle() per write, both replicas together");
        assert_eq!((pair.done, pair.allocations), (10_016, [0; 2]), "depth {depth}");
    }
}
