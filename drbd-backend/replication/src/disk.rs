//! This replica's own disk: what was asked of it and why, and the metadata that must be durable before something else happens.

use crate::event::DiskError;
use crate::metadata::{Data, Metadata, Superblock};
use crate::names::{Extent, Generation, Job, Link, Node, OrderId, Payload, Question, Time};
use crate::table::{Place, Stage};
use crate::{Barrier, Bits, Content, Cx, Effect, Message, Note, Part, Refusal, Replica};

#[derive(Debug)]
pub(crate) struct Disk {
    /// As it shall be; what is on the disk may be behind.
    pub(crate) superblock: Superblock,
    wanted: u64,
    stored: u64,
    keeping: Option<u64>,
    /// That it failed could not be written down: again then, or after a restart it would look good.
    retry_at: Option<Time>,
    /// What waits for the superblock.
    then: Vec<(u64, Then)>,
    jobs: Vec<Option<Work>>,
    free: Vec<Job>,
    pub(crate) full: bool,
}

/// What a job is for.
#[derive(Debug)]
pub(crate) enum Work {
    Entry(Place),
    Superblock,
    /// A bitmap of extents that leave the activity log, or its set.
    Activity {
        set: bool,
    },
    /// The bitmap of a member that has just left, or is resynced wholly.
    Bitmap(Node),
    /// So many documents have been kept with it.
    Control {
        count: u64,
    },
    /// Of a client's FLUSH.
    FlushRun {
        number: u64,
    },
    /// The Primary's part of a barrier.
    Barrier(Barrier),
    /// A Secondary's.
    PeerBarrier {
        link: Link,
        barrier: Barrier,
    },
    PeerFlush {
        link: Link,
        number: u64,
    },
    /// Before a change of the record is proposed.
    Proposal(Question),
    Fetch {
        link: Link,
        number: u64,
    },
    /// At the end.
    Last,
}

/// What happens once the superblock is durable.
#[derive(Debug)]
pub(crate) enum Then {
    /// The first one of this life.
    Begin,
    /// The generation of what this link says is stored: what it said since is taken up.
    Heed(Link),
    Propose(Question),
    Barrier(Barrier),
    PeerBarrier {
        link: Link,
        barrier: Barrier,
    },
    /// Nothing of the lost cache is trusted any more: this disk is the truth.
    Serve,
    /// This disk's data is worth nothing any more.
    Invalidated(OrderId),
    Ended,
}

impl Disk {
    pub(crate) fn new(superblock: Superblock) -> Self {
        Self {
            superblock,
            wanted: 0,
            stored: 0,
            keeping: None,
            retry_at: None,
            then: Vec::new(),
            jobs: Vec::new(),
            free: Vec::new(),
            full: false,
        }
    }

    pub(crate) fn job(&mut self, work: Work) -> Job {
        if let Some(job) = self.free.pop() {
            self.jobs[job.0 as usize] = Some(work);
            return job;
        }
        self.jobs.push(Some(work));
        Job(u32::try_from(self.jobs.len() - 1).expect("jobs are bounded"))
    }

    fn done(&mut self, job: Job) -> Option<Work> {
        let work = self.jobs.get_mut(job.0 as usize)?.take();
        if work.is_some() {
            self.free.push(job);
        }
        work
    }

    /// Whether anything that was asked of the disk is still under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.jobs.iter().any(Option::is_some)
    }

    pub(crate) fn promised(&self) -> Generation {
        self.superblock.generation
    }
}

impl Replica {
    /// What the disk holds from the life before.
    pub(crate) fn load(&mut self, bitmaps: Vec<(Node, Bits)>, cx: &mut Cx<'_>) {
        for (node, bits) in bitmaps {
            self.bitmaps[node.index()] = Some(bits);
        }
        // A crash: writes may have been under way in every extent of the activity log.
        let extents: Vec<Extent> = self.activity.extents().collect();
        for bits in self.bitmaps.iter_mut().flatten() {
            extents.iter().for_each(|extent| bits.set(extent.span()));
        }
        let size = self.disk.superblock.size_blocks;
        for node in Node::all() {
            match &mut self.bitmaps[node.index()] {
                Some(bits) => bits.cut(size),
                None => self.forget_absent(node),
            }
        }
        let superblock = &mut self.disk.superblock;
        if superblock.boot != self.start.boot && !superblock.clean {
            superblock.suspect = true;
        }
        if superblock.suspect {
            cx.say(Note::Suspected);
        }
        superblock.boot = self.start.boot;
        superblock.clean = false;
        self.keep_superblock(Then::Begin, cx);
    }

    /// A bitmap that cannot be read: that member gets everything. This node's own one says what it alone may hold: then it needs everything.
    fn forget_absent(&mut self, node: Node) {
        self.absent[node.index()] = None;
        let known = self.disk.superblock.absent[node.index()].take();
        if known.is_some() && node == self.me() {
            self.disk.superblock.data = Data::Blank;
        }
    }

    /// When that the disk failed is to be written down again.
    pub(crate) fn failed_wakes_at(&self) -> Option<Time> {
        self.disk.retry_at
    }

    pub(crate) fn keep_failed_when_due(&mut self, cx: &mut Cx<'_>) {
        if self.disk.retry_at.take_if(|at| *at <= cx.now).is_some() {
            self.keep_what_is_wanted(cx);
        }
    }

    /// Makes the superblock durable as it is now, and then goes on.
    pub(crate) fn keep_superblock(&mut self, then: Then, cx: &mut Cx<'_>) {
        self.disk.wanted += 1;
        self.disk.then.push((self.disk.wanted, then));
        self.keep_what_is_wanted(cx);
    }

    fn keep_what_is_wanted(&mut self, cx: &mut Cx<'_>) {
        if self.disk.keeping.is_some() || self.disk.stored == self.disk.wanted {
            return;
        }
        self.disk.keeping = Some(self.disk.wanted);
        let job = self.disk.job(Work::Superblock);
        let what = Metadata::Superblock(Box::new(self.disk.superblock.clone()));
        cx.out.push(Effect::Keep { job, what });
    }

    /// Changes what the superblock says once something that waits for nothing is next written anyway, and now.
    pub(crate) fn keep_quietly(&mut self, cx: &mut Cx<'_>) {
        self.disk.wanted += 1;
        self.keep_what_is_wanted(cx);
    }

    pub(crate) fn kept(&mut self, job: crate::Job, result: Result<(), DiskError>, cx: &mut Cx<'_>) {
        let Some(work) = self.disk.done(job) else { return };
        if result.is_err() {
            if matches!(work, Work::Superblock) {
                self.disk.keeping = None;
                self.disk.retry_at = Some(cx.now + self.settings.ask_again);
            }
            return self.fail_disk(cx);
        }
        match work {
            Work::Superblock => {
                self.disk.stored = self.disk.keeping.take().expect("it was under way");
                let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.disk.then)
                    .into_iter()
                    .partition(|(version, _)| *version <= self.disk.stored);
                self.disk.then = later;
                self.keep_what_is_wanted(cx);
                due.into_iter().for_each(|(_, then)| self.go_on_with(then, cx));
            }
            Work::Activity { set } => self.activity_kept(set, cx),
            Work::Bitmap(node) => self.bitmap_kept(node, cx),
            Work::Control { count } => self.control_is_kept(count, cx),
            Work::Last => self.last_kept(cx),
            other => unreachable!("{other:?} keeps no metadata"),
        }
    }

    fn go_on_with(&mut self, then: Then, cx: &mut Cx<'_>) {
        match then {
            Then::Begin => self.ask_at = Some(cx.now),
            Then::Heed(link) => self.heed(link, cx),
            Then::Propose(question) => self.promised(question, cx),
            Then::Barrier(barrier) => self.own_barrier_stored(barrier, cx),
            Then::PeerBarrier { link, barrier } => self.send(link, Message::BarrierStored { barrier }, None, cx),
            Then::Serve => self.cache_is_truth(cx),
            Then::Invalidated(order) => cx.out.push(Effect::Report { order, outcome: Ok(()) }),
            Then::Ended => self.is_ended(cx),
        }
    }

    pub(crate) fn stored(&mut self, job: Job, result: Result<(), DiskError>, cx: &mut Cx<'_>) {
        let Some(Work::Entry(place)) = self.disk.done(job) else { return };
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.disk.full) {
                    cx.say(Note::DiskNoLongerFull);
                }
                self.entry_stored(place, cx);
            }
            Err(DiskError::Full) => {
                self.table.get_mut(place).stage = Stage::Full(cx.now + self.settings.ask_again);
                if !std::mem::replace(&mut self.disk.full, true) {
                    cx.say(Note::DiskFull);
                }
                self.hand_over_if_full(cx);
            }
            Err(DiskError::Failed) => {
                self.table.get_mut(place).stage = Stage::Stored;
                self.fail_disk(cx);
            }
        }
    }

    pub(crate) fn merged(&mut self, job: Job, result: Result<Payload, DiskError>, cx: &mut Cx<'_>) {
        let Some(Work::Entry(place)) = self.disk.done(job) else { return };
        match result {
            Ok(payload) => self.entry_merged(place, payload, cx),
            Err(_) => self.entry_unmerged(place, cx),
        }
    }

    pub(crate) fn loaded(&mut self, job: Job, result: Result<Payload, DiskError>, cx: &mut Cx<'_>) {
        match self.disk.done(job) {
            Some(Work::Entry(place)) => self.entry_loaded(place, result, cx),
            Some(Work::Fetch { link, number }) => {
                let good = result.is_ok();
                self.send(link, Message::Fetched { number, good }, result.ok(), cx);
                if let Ok(payload) = result {
                    cx.out.push(Effect::Release(payload));
                }
            }
            _ => {}
        }
    }

    pub(crate) fn flushed(&mut self, job: Job, result: Result<(), DiskError>, cx: &mut Cx<'_>) {
        let Some(work) = self.disk.done(job) else { return };
        if result.is_err() {
            return self.fail_disk(cx);
        }
        match work {
            Work::FlushRun { number } => self.own_flush_done(number, cx),
            Work::Barrier(barrier) => self.own_barrier_flushed(barrier, cx),
            Work::PeerBarrier { link, barrier } => self.peer_barrier_flushed(link, barrier, cx),
            Work::PeerFlush { link, number } => self.send(link, Message::Flushed { number }, None, cx),
            Work::Proposal(question) => self.flushed_for(question, cx),
            Work::Last => self.last_flush_done(cx),
            other => unreachable!("{other:?} flushes nothing"),
        }
    }

    pub(crate) fn load_entry(&mut self, place: Place, cx: &mut Cx<'_>) {
        let job = self.disk.job(Work::Entry(place));
        let entry = self.table.get_mut(place);
        entry.stage = Stage::Loading(job);
        cx.out.push(Effect::Load { job, span: entry.span });
    }

    pub(crate) fn store_entry(&mut self, place: Place, cx: &mut Cx<'_>) {
        let job = self.disk.job(Work::Entry(place));
        let durable = self.settings.durability == crate::Durability::Write;
        let entry = self.table.get_mut(place);
        entry.stage = Stage::Storing(job);
        let content = entry.content.expect("what is written has a content");
        cx.out.push(Effect::Store { job, span: entry.span, content, durable: durable || entry.durable });
    }

    pub(crate) fn flush(&mut self, work: Work, cx: &mut Cx<'_>) {
        let job = self.disk.job(work);
        cx.out.push(Effect::Flush { job });
    }

    pub(crate) fn keep(&mut self, work: Work, what: Metadata, cx: &mut Cx<'_>) {
        let job = self.disk.job(work);
        cx.out.push(Effect::Keep { job, what });
    }

    /// A failed write or flush is never tried again as if it were new: the kernel may have dropped the pages. This replica answers
    /// nothing more, and says so; it comes back by a full resync.
    pub(crate) fn fail_disk(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.part, Part::Failed) {
            return;
        }
        cx.say(Note::DiskFailed);
        self.disk.superblock.data = Data::Blank;
        for (_, then) in self.disk.then.drain(..) {
            if let Then::Invalidated(order) = then {
                cx.out.push(Effect::Report { order, outcome: Err(Refusal::DiskFailed) });
            }
        }
        self.keep_quietly(cx);
        self.report_promotions(&Err(Refusal::DiskFailed), cx);
        self.leave_part(Part::Failed, cx);
        let links: Vec<Link> = self.peers.iter().filter_map(|peer| peer.link).collect();
        links.into_iter().for_each(|link| self.send(link, Message::Failed, None, cx));
    }

    /// The content of an entry is needed no more.
    pub(crate) fn release(content: Option<Content>, cx: &mut Cx<'_>) {
        if let Some(Content::Data(payload)) = content {
            cx.out.push(Effect::Release(payload));
        }
    }
}
