//! One host: its clock, its memory, its disk, and what it has been asked to do.

use replication::{Content, Event, Extent, Job, Metadata, Payload, Replica, Span, Time};

use super::disk::{Bytes, Cell, Disk, MOST};
use super::world::Due;

/// CLOCK_BOOTTIME of one host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// True time at which it stood at zero.
    pub booted: u64,
    /// Parts per million that it is too fast.
    pub drift: i64,
    /// What pauses have hidden from it.
    pub hidden: u64,
}

impl Clock {
    pub fn read(&self, now: u64) -> Time {
        let length = i128::from(now - self.booted);
        let length = length + length * i128::from(self.drift) / 1_000_000;
        Time(u64::try_from(length).expect("it runs forwards").saturating_sub(self.hidden))
    }

    /// The true time at which it will show at least this.
    pub fn when(&self, time: Time) -> u64 {
        let length = i128::from(time.0.saturating_add(self.hidden).min(u64::MAX / 4));
        self.booted
            + u64::try_from(length * 1_000_000 / (1_000_000 + i128::from(self.drift))).unwrap_or(u64::MAX / 2)
            + 1
    }
}

/// Bytes that the shell holds for the core.
#[derive(Debug, Default)]
pub struct Payloads {
    held: Vec<Held>,
    next: u32,
}

#[derive(Debug)]
struct Held {
    payload: Payload,
    bytes: Bytes,
    /// The shell's own work that still needs it.
    uses: u32,
    is_released: bool,
}

impl Payloads {
    pub fn hold(&mut self, bytes: Bytes) -> Payload {
        self.next += 1;
        let payload = Payload(self.next);
        self.held.push(Held { payload, bytes, uses: 0, is_released: false });
        payload
    }

    fn find(&mut self, payload: Payload) -> Option<&mut Held> {
        self.held.iter_mut().find(|it| it.payload == payload && !it.is_released)
    }

    pub fn borrow(&mut self, payload: Payload) -> Option<Bytes> {
        let held = self.find(payload)?;
        held.uses += 1;
        Some(held.bytes)
    }

    pub fn read(&mut self, payload: Payload) -> Option<Bytes> {
        self.find(payload).map(|held| held.bytes)
    }

    pub fn give_back(&mut self, payload: Payload) {
        if let Some(held) = self.held.iter_mut().find(|it| it.payload == payload) {
            held.uses -= 1;
        }
        self.held.retain(|it| !it.is_released || it.uses > 0);
    }

    /// Whether the core had it to release.
    pub fn release(&mut self, payload: Payload) -> bool {
        let held = self.find(payload).map(|held| held.is_released = true).is_some();
        self.held.retain(|it| !it.is_released || it.uses > 0);
        held
    }

    pub fn count(&self) -> usize {
        self.held.iter().filter(|it| !it.is_released).count()
    }

    pub fn forget_all(&mut self) {
        self.held.clear();
    }
}

/// Something that the core wants of its disk.
#[derive(Debug)]
pub enum Work {
    Store { span: Span, content: Content, bytes: Bytes, durable: bool },
    Load { span: Span },
    Merge { span: Span, payload: Payload, bytes: Bytes },
    Flush { asked: [Option<Cell>; MOST], number: u64 },
    Keep { what: Metadata },
}

#[derive(Debug)]
pub struct Pending {
    pub job: Job,
    pub work: Work,
    /// The kernel has it: it may happen though the process dies.
    pub is_issued: bool,
    /// It has happened, and the process has not heard.
    pub outcome: Option<Event>,
}

#[derive(Debug)]
pub struct NodeWorld {
    pub replica: Option<Replica>,
    pub disk: Disk,
    pub clock: Clock,
    pub payloads: Payloads,
    pub boot: u128,
    /// Counts processes; 0 is none.
    pub process: u64,
    pub bag: Vec<Option<Pending>>,
    pub paused_until: u64,
    /// The clock stands as long as the process does.
    pub pause_hides: bool,
    pub deferred: Vec<Due>,
    /// When it will be woken, if nothing happens before.
    pub wake: u64,
    /// The process has reported that it is shut down.
    pub is_ended: bool,
    /// The core has said that its disk failed.
    pub has_failed: bool,
    /// It is Primary in its own eyes.
    pub leads: bool,
    /// A new process is on its way.
    pub restarts: bool,
}

impl NodeWorld {
    pub fn new(disk: Disk, boot: u128, drift: i64) -> Self {
        Self {
            replica: None,
            disk,
            clock: Clock { drift, ..Clock::default() },
            payloads: Payloads::default(),
            boot,
            process: 0,
            bag: Vec::new(),
            paused_until: 0,
            pause_hides: false,
            deferred: Vec::new(),
            wake: u64::MAX,
            is_ended: false,
            has_failed: false,
            leads: false,
            restarts: false,
        }
    }

    pub fn is_paused(&self, now: u64) -> bool {
        self.paused_until > now
    }

    pub fn defer(&mut self, due: Due) {
        self.deferred.push(due);
    }

    pub fn has_work(&self) -> bool {
        self.bag.iter().any(Option::is_some)
    }

    pub fn keeps(&self, what: &Metadata) -> bool {
        let kept = self.bag.iter().flatten().filter_map(|pending| match &pending.work {
            Work::Keep { what } => Some(what),
            _ => None,
        });
        kept.into_iter().any(|other| interfere(what, other))
    }

    pub fn stores(&self, span: Span) -> bool {
        self.bag
            .iter()
            .flatten()
            .any(|pending| matches!(pending.work, Work::Store { span: other, .. } if other.overlaps(span)))
    }
}

/// Two pieces of metadata of which the later to land would win.
fn interfere(one: &Metadata, other: &Metadata) -> bool {
    let shared = |one: &[Extent], other: &[Extent]| one.iter().any(|extent| other.contains(extent));
    match (one, other) {
        (Metadata::Superblock(_), Metadata::Superblock(_))
        | (Metadata::Activity(_), Metadata::Activity(_))
        | (Metadata::Control(_), Metadata::Control(_)) => true,
        (Metadata::Bitmap { node, extents, .. }, Metadata::Bitmap { node: other, extents: others, .. }) => {
            node == other && shared(extents, others)
        }
        (
            Metadata::Bitmap { node, .. } | Metadata::WholeBitmap { node, .. },
            Metadata::Bitmap { node: other, .. } | Metadata::WholeBitmap { node: other, .. },
        ) => node == other,
        _ => false,
    }
}
