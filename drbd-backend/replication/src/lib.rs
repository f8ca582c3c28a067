//! What one replica of a volume does next.
//!
//! [`Replica::handle`] is told what happened and when, and answers with what to do. It has no I/O, no clock, no randomness and no
//! threads. One volume at a time, on one node; peers are known by what they say.
//!
//! ```text
//!            the arbiter has told            grace over, promise stored, record swapped       peers made equal
//! (Learning) ───────────────────▶ Secondary ───────────────────────────────────▶ TakingOver ─────────────────▶ Primary
//!                                     ▲                                                                          │
//!                                     └────────── deposed, demoted, handed over ─────────────────────────────────┘
//! ```
//!
//! Effects carry no order: if B must follow A, B is asked for once A is done. Only what is sent on one link arrives in the order in
//! which it was asked for. The rules that the code names by number are in `docs/replication.md`.

mod activity;
mod agreement;
mod barrier;
mod bits;
pub mod checksum;
mod clock;
pub mod codec;
mod control;
mod disk;
mod effect;
mod event;
mod flow;
pub mod layout;
mod membership;
mod message;
mod metadata;
mod names;
mod note;
mod peer;
mod primary;
mod promotion;
mod record;
mod resync;
mod secondary;
mod session;
mod settings;
mod status;
mod table;
mod why;
pub mod wire;

use std::collections::VecDeque;

pub use bits::{Bits, Words};
pub use control::{Attachment, Change, Chap, Control, Misfit, Secret};
pub use effect::{Answer, Effect, Failure, Refusal};
pub use event::{Ask, Content, DiskError, Event, Found, Order, Settled, Start, Told};
pub use message::{Envelope, Hello, Message, Ready, Welcome};
pub use metadata::{Absent, Data, Metadata, Superblock};
pub use names::{
    BLOCK_BYTES, Barrier, BootId, DiskId, EXTENT_BLOCKS, Extent, Generation, Incarnation, Job, Link, MAX_NODES, Node,
    Nodes, OrderId, Payload, Process, Question, Request, Seq, Span, Time, VolumeId,
};
pub use note::{Note, Promotion, Resync};
pub use record::Record;
pub use settings::{Durability, ResyncSettings, Settings};
pub use status::{DiskState, PeerStatus, Role, Status};
pub use why::Why;

use activity::Activity;
use agreement::Keeping;
use clock::Ending;
use disk::Disk;
use peer::Peer;
use primary::Primary;
use promotion::Candidacy;
use secondary::Secondary;
use table::Table;

/// One node's replica of one volume, for one life of the process.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    start: Start,
    started: Time,
    disk: Disk,
    part: Part,
    peers: [Peer; MAX_NODES],
    table: Table,
    activity: Activity,
    /// What each absent member lacks, while this replica is in sync.
    bitmaps: [Option<Bits>; MAX_NODES],
    /// What it had when it left.
    absent: [Option<Absent>; MAX_NODES],
    bitmaps_to_keep: Nodes,
    bitmaps_under_way: Nodes,
    control: Control,
    keeping: Keeping,
    /// The newest version of the list of fenced hosts that the shell has told of, and whose attachments they have.
    fences: (u64, Vec<u32>),
    /// The question to the arbiter that is open, and when to ask again.
    asked: Option<Question>,
    ask_at: Option<Time>,
    questions: u32,
    /// Numbers of flushes and fetches.
    numbers: u64,
    /// Disk ids handed out.
    drawn: u128,
    /// Orders that wait for something: a promotion, a demotion, the end.
    orders: Vec<(OrderId, Order)>,
    /// What clients asked while this replica could not begin it.
    held: VecDeque<Held>,
    /// Why the arbiter is not believed.
    held_by: Option<Note>,
    ending: Option<Ending>,
    ended: bool,
}

#[derive(Debug)]
struct Held {
    request: Request,
    client: u32,
    ask: Ask,
}

/// What this replica is at the moment.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it for each replica, and it never moves")]
enum Part {
    /// It answers nothing until it has learned the generation from the arbiter (rule 7).
    Learning,
    Secondary(Secondary),
    /// A promotion is under way.
    Candidate(Secondary, Candidacy),
    Primary(Box<Primary>),
    /// Its disk failed: it answers nothing more.
    Failed,
}

/// The moment, and where effects go.
struct Cx<'a> {
    now: Time,
    out: &'a mut Vec<Effect>,
}

impl Cx<'_> {
    fn say(&mut self, note: Note) {
        self.out.push(Effect::Say(note));
    }
}

impl Replica {
    /// A new life of the process, over what its disk holds.
    pub fn start(settings: Settings, found: Found, start: Start, now: Time, effects: &mut Vec<Effect>) -> Self {
        let Found { superblock, activity, bitmaps, control } = found;
        let superblock_absent = superblock.absent;
        let mut replica = Self {
            activity: Activity::found(settings.hot_extents, &activity),
            table: Table::with_capacity(2 * settings.in_flight),
            settings,
            start,
            started: now,
            disk: Disk::new(superblock),
            part: Part::Learning,
            peers: std::array::from_fn(|_| Peer::default()),
            bitmaps: Default::default(),
            absent: superblock_absent,
            bitmaps_to_keep: Nodes::NONE,
            bitmaps_under_way: Nodes::NONE,
            control,
            keeping: Keeping::default(),
            fences: (0, Vec::new()),
            asked: None,
            ask_at: None,
            questions: 0,
            numbers: 0,
            drawn: 0,
            orders: Vec::new(),
            held: VecDeque::new(),
            held_by: None,
            ending: None,
            ended: false,
        };
        let mut cx = Cx { now, out: effects };
        replica.control_found();
        replica.load(bitmaps, &mut cx);
        replica
    }

    /// Something happened.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        let cx = &mut Cx { now, out: effects };
        if self.ended {
            return self.decline(event, cx);
        }
        match event {
            Event::Asked { request, client, ask } => self.asked_for(request, client, ask, cx),
            Event::Withdrawn { request } => self.withdraw(request, cx),
            Event::Merged { job, result } => self.merged(job, result, cx),
            Event::Stored { job, result } => self.stored(job, result, cx),
            Event::Loaded { job, result } => self.loaded(job, result, cx),
            Event::Flushed { job, result } => self.flushed(job, result, cx),
            Event::Kept { job, result } => self.kept(job, result, cx),
            Event::Connected { link, node } => self.connected(link, node, cx),
            Event::Disconnected { link } => self.disconnected(link, cx),
            Event::Received { link, envelope, message, payload } => self.received(link, envelope, message, payload, cx),
            Event::Told { question, told } => self.told(question, told, cx),
            Event::Settled { question, settled } => self.settled(question, settled, cx),
            Event::Fenced { node, boot } => self.fenced(node, boot, cx),
            Event::HostsFenced { version, clients } => self.hosts_fenced(version, &clients, cx),
            Event::Ordered { order, what } => self.ordered(order, what, cx),
            Event::Woken => {}
        }
        if !self.ended {
            self.go_on(cx);
        }
    }

    /// After the end nothing is done any more, and nobody is left waiting.
    fn decline(&mut self, event: Event, cx: &mut Cx<'_>) {
        match event {
            Event::Asked { request, client, ask } => self.turn_away(&Held { request, client, ask }, cx),
            Event::Ordered { order, .. } => {
                cx.out.push(Effect::Report { order, outcome: Err(Refusal::ShuttingDown) });
            }
            Event::Received { payload, .. } => Self::release_payload(payload, cx),
            Event::Merged { result: Ok(payload), .. } | Event::Loaded { result: Ok(payload), .. } => {
                cx.out.push(Effect::Release(payload));
            }
            _ => {}
        }
    }

    /// What time, or a change elsewhere, makes due; safe to ask at any moment.
    fn go_on(&mut self, cx: &mut Cx<'_>) {
        self.ask_when_due(cx);
        match self.part {
            Part::Learning => {}
            Part::Failed => self.keep_failed_when_due(cx),
            Part::Secondary(_) | Part::Candidate(..) => {
                self.submit_waiting(cx);
                self.stand_when_due(cx);
            }
            Part::Primary(_) => self.lead(cx),
        }
        self.end_when_done(cx);
    }

    /// The arbiter's record as it is known here.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.disk.superblock.record
    }

    #[must_use]
    pub fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// Its place among the members.
    #[must_use]
    pub fn me(&self) -> Node {
        self.settings.me
    }

    /// Whether the arbiter's record, as far as it is known here, counts this very disk.
    fn is_in_sync(&self) -> bool {
        self.record().disk(self.me()) == Some(self.disk.superblock.disk)
    }

    fn draw_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn draw_disk_id(&mut self) -> DiskId {
        self.drawn += 1;
        DiskId(self.start.entropy.wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
    }

    fn primary(&self) -> Option<&Primary> {
        match &self.part {
            Part::Primary(primary) => Some(primary),
            Part::Learning | Part::Secondary(_) | Part::Candidate(..) | Part::Failed => None,
        }
    }

    fn primary_mut(&mut self) -> Option<&mut Primary> {
        match &mut self.part {
            Part::Primary(primary) => Some(primary),
            Part::Learning | Part::Secondary(_) | Part::Candidate(..) | Part::Failed => None,
        }
    }
}
