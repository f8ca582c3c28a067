//! What clients did to one half of one block, and whether some single order of it all explains what they saw.
//!
//! Every write has a number of its own, so each number is a cluster: its write, and the reads that showed it. `first_end` is when the
//! first of them was over, `last_start` when the last of them began. There is an order if no two clusters lie in each other's way
//! (P. Gibbons, E. Korach: Testing Shared Memories, 1997, for registers where each value is written once).

/// What a disk holds that was never part of the volume.
pub const GARBAGE: u32 = u32::MAX;

/// Never.
const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
pub struct Written {
    pub value: u32,
    pub client: usize,
    start: u64,
    /// When it was acknowledged.
    end: u64,
    /// Without an acknowledgement, it happened by then or not at all.
    closed: u64,
    first_read_end: u64,
    last_read_start: u64,
    /// A later write of the same client is acknowledged: from then on this one must not be seen.
    superseded: u64,
    is_durable: bool,
}

impl Written {
    fn new(value: u32, client: usize, start: u64) -> Self {
        Self {
            value,
            client,
            start,
            end: NEVER,
            closed: NEVER,
            first_read_end: NEVER,
            last_read_start: 0,
            superseded: NEVER,
            is_durable: false,
        }
    }

    fn first_end(&self) -> u64 {
        let closed = if self.first_read_end == NEVER { NEVER } else { self.closed };
        self.end.min(self.first_read_end).min(closed)
    }

    fn last_start(&self) -> u64 {
        self.start.max(self.last_read_start)
    }

    /// When it had happened, for certain and if at all.
    fn over(&self) -> u64 {
        self.end.min(self.first_read_end).min(self.closed)
    }

    fn is_in_the_way_of(&self, other: &Self) -> bool {
        self.first_end() < other.last_start() && other.first_end() < self.last_start()
    }
}

/// Why what was seen cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Nobody wrote this, or it was lost with good reason and is back.
    Unknown,
    /// It was overwritten by this write, or by what this write stands for.
    Overwritten(u32),
    /// The client itself has written something else since.
    Superseded,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    written: Vec<Written>,
    /// What was overwritten when caches were lost: it may still lie on a disk that was not in sync.
    gone: Vec<Written>,
}

impl History {
    pub fn new(initial: u32) -> Self {
        let initial = Written { end: 0, is_durable: true, ..Written::new(initial, usize::MAX, 0) };
        Self { written: vec![initial], gone: Vec::new() }
    }

    pub fn asked(&mut self, value: u32, client: usize, now: u64) {
        self.written.push(Written::new(value, client, now));
    }

    fn find(&mut self, value: u32) -> Option<&mut Written> {
        self.written.iter_mut().rev().find(|it| it.value == value)
    }

    /// A write is acknowledged; `durable` if it is so by what was asked, or by the volume's settings.
    pub fn acknowledged(&mut self, value: u32, durable: bool, now: u64) -> Result<(), Wrong> {
        let Some(it) = self.find(value) else { return Ok(()) };
        it.end = now;
        it.is_durable |= durable;
        let (client, start) = (it.client, it.start);
        for other in self.written.iter_mut().filter(|it| it.client == client && it.start < start && it.end == NEVER) {
            other.superseded = other.superseded.min(now);
        }
        self.check(value)
    }

    /// It did nothing, and never will.
    pub fn withdrawn(&mut self, value: u32) -> Result<(), Wrong> {
        let was_seen = self.find(value).is_some_and(|it| it.first_read_end != NEVER);
        self.written.retain(|it| it.value != value);
        if was_seen { Err(Wrong::Unknown) } else { Ok(()) }
    }

    pub fn read(&mut self, value: u32, start: u64, end: u64) -> Result<(), Wrong> {
        let Some(it) = self.find(value) else { return Err(Wrong::Unknown) };
        if start > it.superseded {
            return Err(Wrong::Superseded);
        }
        it.first_read_end = it.first_read_end.min(end);
        it.last_read_start = it.last_read_start.max(start);
        self.check(value)
    }

    /// Whether a read that began and ended now could show this.
    pub fn could_show(&self, value: u32, now: u64) -> Result<(), Wrong> {
        let Some(it) = self.written.iter().rev().find(|it| it.value == value) else { return Err(Wrong::Unknown) };
        if now > it.superseded {
            return Err(Wrong::Superseded);
        }
        let mut shown = it.clone();
        shown.first_read_end = shown.first_read_end.min(now);
        shown.last_read_start = now;
        self.check_against(&shown)
    }

    fn check(&self, value: u32) -> Result<(), Wrong> {
        let it = self.written.iter().rev().find(|it| it.value == value).expect("it was just found");
        self.check_against(it)
    }

    fn check_against(&self, it: &Written) -> Result<(), Wrong> {
        let other = self.written.iter().find(|other| other.value != it.value && it.is_in_the_way_of(other));
        other.map_or(Ok(()), |other| Err(Wrong::Overwritten(other.value)))
    }

    /// A flush that was asked for at `asked` is answered: what was acknowledged before survives a power loss.
    pub fn flushed(&mut self, asked: u64) {
        self.written.iter_mut().filter(|it| it.end < asked).for_each(|it| it.is_durable = true);
    }

    /// Whether this, as what a power loss would leave, is newer than whatever was acknowledged before `asked`.
    pub fn covers(&self, value: u32, asked: u64) -> bool {
        let Some(it) = self.written.iter().rev().find(|it| it.value == value) else { return false };
        !self.written.iter().any(|other| other.end < asked && it.over() < other.start)
    }

    /// A client may begin nothing any more, and what it began is over.
    pub fn closed_for(&mut self, client: usize, now: u64) {
        let open = self.written.iter_mut().filter(|it| it.client == client && it.end == NEVER);
        open.for_each(|it| it.closed = it.closed.min(now));
    }

    /// The last caches are lost: what may be there now is whatever no durable write overwrote; `anything` if not even that is promised.
    pub fn cut(&mut self, anything: bool, now: u64) {
        let renewed = |it: &Written| Written { closed: now, ..Written::new(it.value, it.client, now) };
        let is_gone = |it: &Written| self.written.iter().any(|other| other.is_durable && it.over() < other.start);
        let (gone, kept): (Vec<&Written>, Vec<&Written>) = self.written.iter().partition(|it| !anything && is_gone(it));
        let mut kept: Vec<Written> = kept.into_iter().map(renewed).collect();
        self.gone.extend(gone.into_iter().map(renewed));
        if anything {
            kept.extend(self.gone.drain(..).map(|it| renewed(&it)));
            if !kept.iter().any(|it| it.value == GARBAGE) {
                kept.push(renewed(&Written::new(GARBAGE, usize::MAX, now)));
            }
        }
        self.written = kept;
    }
}
