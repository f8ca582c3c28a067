//! The process on a host, and its shell: carries out what the core wants in whatever order, and may stop between any two of its steps.

use replication::{
    BootId, Content, DiskError, Durability, Effect, Event, Job, Message, Payload, Process, Replica, Start,
};

use super::disk::{Bytes, Disk, MOST};
use super::judge::Promise;
use super::misfortune::Moment;
use super::node::{Pending, Work};
use super::world::{Due, MS, US, World};

impl World {
    /// Between the core's word and the deed: mostly nothing, sometimes enough for anything else to come first.
    pub fn moment_passes(&mut self) -> u64 {
        if self.is_steady || self.chance.u8(0..4) > 0 { 0 } else { self.chance.u64(0..MS) }
    }

    fn disk_takes(&mut self, node: usize) -> u64 {
        let slower = self.nodes[node].disk.ills.slower.max(1);
        if self.is_steady {
            return slower * 150 * US;
        }
        let rare = self.chance.u8(0..30) == 0;
        let most = if rare { 30 * MS } else { 300 * US };
        slower * (20 * US + self.chance.u64(0..most))
    }

    pub fn start_process(&mut self, node: usize) {
        let now = self.now;
        self.starts += 1;
        let number = self.starts;
        let it = &mut self.nodes[node];
        it.restarts = false;
        it.process = number;
        (it.is_ended, it.has_failed, it.leads) = (false, false, false);
        it.wake = u64::MAX;
        let mut found = it.disk.meta.found();
        let entropy = (u128::from(number) << 64) | 0x5eed;
        let start = Start { boot: BootId(it.boot), process: Process(u128::from(number)), entropy };
        self.bend.found(&mut found, start.boot);
        let mut settings = self.settings(node);
        self.bend.settings(&mut settings);
        let time = self.nodes[node].clock.read(now);
        let mut effects = self.spare.pop().unwrap_or_default();
        let boot = self.nodes[node].boot;
        self.say(Some(node), || format!("starts (boot {boot}, process {number})"));
        self.nodes[node].replica = Some(Replica::start(settings, found, start, time, &mut effects));
        self.bend_effects(node, &mut effects);
        self.bent.clear();
        self.carry_out(node, &mut effects);
        self.spare.push(effects);
        for other in 0..self.nodes.len() {
            if other != node {
                self.connect_soon(node, other);
            }
        }
    }

    /// An event happens to the process on this node, if there is one.
    pub fn tell(&mut self, node: usize, event: Event) {
        let mut event = Some(event);
        while let Some(next) = event.take().or_else(|| self.bent.pop()) {
            let now = self.nodes[node].clock.read(self.now);
            if self.nodes[node].replica.is_none() {
                self.bent.clear();
                return;
            }
            let Some(next) = self.bend_event(node, next) else { continue };
            self.events += 1;
            if self.tells_all {
                let line = format!("   < {next:?}");
                self.say(Some(node), || line);
            }
            let mut effects = self.spare.pop().unwrap_or_default();
            if let Some(replica) = &mut self.nodes[node].replica {
                replica.handle(now, next, &mut effects);
            }
            self.bend_effects(node, &mut effects);
            self.carry_out(node, &mut effects);
            self.spare.push(effects);
        }
    }

    fn carry_out(&mut self, node: usize, effects: &mut Vec<Effect>) {
        if self.nodes[node].is_ended && effects.iter().any(|effect| !matches!(effect, Effect::Release(_))) {
            let what = format!("{} does {:?} after it was shut down", self.name(node), effects[0]);
            self.judge.broken(self.now, Promise::Shell, what);
        }
        for effect in effects.drain(..) {
            if self.tells_all && !matches!(effect, Effect::Say(_)) {
                let line = format!("   > {effect:?}");
                self.say(Some(node), || line);
            }
            self.carry_out_one(node, effect);
        }
        self.wake_in_time(node);
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Say(note) => self.noted(node, &note),
            Effect::Answer { request, answer } => self.answered(node, request, answer),
            Effect::Report { order, outcome } => self.reported(node, order, &outcome),
            Effect::Release(payload) => {
                if !self.nodes[node].payloads.release(payload) {
                    let what = format!("{} releases {payload:?}, which it does not have", self.name(node));
                    self.judge.broken(self.now, Promise::Shell, what);
                }
            }
            Effect::HangUp { link } => self.hang_up(node, link),
            Effect::Ask { question } => self.ask_arbiter(node, question),
            Effect::Propose { question, incarnation, expected, proposed } => {
                self.propose_to_arbiter(node, question, incarnation, *expected, *proposed);
            }
            Effect::Send { link, envelope, message, payload } => {
                let bytes = payload.and_then(|payload| self.read_payload(node, payload, "sends"));
                if matches!(message, Message::TakeOver) {
                    self.came_to(Moment::TakeOver, node);
                }
                self.send(node, link, envelope, message, bytes);
            }
            Effect::Store { job, span, content, durable } => {
                if self.nodes[node].stores(span) {
                    let what = format!("{} has two writes of {span} under way on its disk", self.name(node));
                    self.judge.broken(self.now, Promise::Shell, what);
                }
                let bytes = match content {
                    Content::Data(payload) => self.borrow_payload(node, payload),
                    Content::Zeroes { .. } => Bytes::default(),
                };
                self.begin(node, job, Work::Store { span, content, bytes, durable });
            }
            Effect::Load { job, span } => self.begin(node, job, Work::Load { span }),
            Effect::Merge { job, span, payload } => {
                let bytes = self.borrow_payload(node, payload);
                self.begin(node, job, Work::Merge { span, payload, bytes });
            }
            Effect::Flush { job } => {
                self.came_to(Moment::Flushing, node);
                self.begin(node, job, Work::Flush { asked: [None; MOST], number: 0 });
            }
            Effect::Keep { job, what } => {
                if self.nodes[node].keeps(&what) {
                    let what = format!("{} writes the same metadata twice at once: {what:?}", self.name(node));
                    self.judge.broken(self.now, Promise::Shell, what);
                }
                self.came_to(Moment::Keeping, node);
                self.begin(node, job, Work::Keep { what });
            }
        }
    }

    fn read_payload(&mut self, node: usize, payload: Payload, does: &str) -> Option<Bytes> {
        let bytes = self.nodes[node].payloads.read(payload);
        if bytes.is_none() {
            let what = format!("{} {does} {payload:?}, which it does not have", self.name(node));
            self.judge.broken(self.now, Promise::Shell, what);
        }
        bytes
    }

    fn borrow_payload(&mut self, node: usize, payload: Payload) -> Bytes {
        self.read_payload(node, payload, "writes");
        self.nodes[node].payloads.borrow(payload).unwrap_or_default()
    }

    fn begin(&mut self, node: usize, job: Job, work: Work) {
        let pending = Pending { job, work, is_issued: false, outcome: None };
        let bag = &mut self.nodes[node].bag;
        let slot = bag.iter().position(Option::is_none).unwrap_or(bag.len());
        if slot == bag.len() {
            bag.push(None);
        }
        bag[slot] = Some(pending);
        let process = self.nodes[node].process;
        match self.moment_passes() {
            0 => self.issue(node, process, slot),
            wait => self.at(self.now + wait, Due::Issue { node, process, slot }),
        }
    }

    /// The kernel gets it.
    pub fn issue(&mut self, node: usize, process: u64, slot: usize) {
        let it = &mut self.nodes[node];
        if it.process != process {
            return;
        }
        if it.is_paused(self.now) {
            return it.defer(Due::Issue { node, process, slot });
        }
        let asked_now = (it.disk.dirty(), it.disk.asks_for_flush());
        let Some(pending) = it.bag[slot].as_mut() else { return };
        pending.is_issued = true;
        if let Work::Flush { asked, number } = &mut pending.work {
            (*asked, *number) = asked_now;
        }
        let at = self.now + self.disk_takes(node);
        self.at(at, Due::Done { node, process, slot });
    }

    /// The disk has done it, or not. A paused process hears of it later.
    pub fn done(&mut self, node: usize, process: u64, slot: usize) {
        let it = &mut self.nodes[node];
        if it.process != process {
            return;
        }
        let Some(mut pending) = it.bag[slot].take() else { return };
        let event = match pending.outcome.take() {
            Some(event) => event,
            None => self.happen(node, pending.job, &mut pending.work),
        };
        let it = &mut self.nodes[node];
        if it.is_paused(self.now) {
            pending.outcome = Some(event);
            it.bag[slot] = Some(pending);
            return it.defer(Due::Done { node, process, slot });
        }
        match pending.work {
            Work::Store { content: Content::Data(payload), .. } => it.payloads.give_back(payload),
            Work::Merge { payload, .. } => {
                it.payloads.give_back(payload);
                it.payloads.release(payload);
            }
            _ => {}
        }
        self.tell(node, event);
    }

    fn happen(&mut self, node: usize, job: Job, work: &mut Work) -> Event {
        let blocks = &self.blocks;
        let it = &mut self.nodes[node];
        let disk = &mut it.disk;
        match work {
            Work::Store { .. } if disk.ills.is_full => Event::Stored { job, result: Err(DiskError::Full) },
            Work::Store { span, bytes, durable, .. } => {
                let fails = std::mem::take(&mut disk.ills.store);
                disk.is_broken |= fails;
                disk.has_failed |= fails;
                for index in blocks.within(*span) {
                    if !fails || self.chance.bool() {
                        disk.write(index, bytes.cells[index], *durable && !fails, &mut self.chance);
                    }
                }
                Event::Stored { job, result: if fails { Err(DiskError::Failed) } else { Ok(()) } }
            }
            Work::Load { span } => {
                let range = blocks.within(*span);
                if !disk.can_read(range.clone()) {
                    return Event::Loaded { job, result: Err(DiskError::Failed) };
                }
                let mut bytes = Bytes::default();
                range.for_each(|index| bytes.cells[index] = disk.cell(index));
                Event::Loaded { job, result: Ok(it.payloads.hold(bytes)) }
            }
            Work::Merge { span, bytes, .. } => {
                let range = blocks.within(*span);
                if !disk.can_read(range.clone()) {
                    return Event::Merged { job, result: Err(DiskError::Failed) };
                }
                let half = bytes.half.unwrap_or(0);
                let mut whole = Bytes::default();
                for index in range {
                    whole.cells[index] = disk.cell(index);
                    whole.cells[index][half] = bytes.cells[index][half];
                }
                Event::Merged { job, result: Ok(it.payloads.hold(whole)) }
            }
            Work::Flush { asked, number } => {
                if std::mem::take(&mut disk.ills.flush) {
                    disk.fail_flush(&mut self.chance);
                    return Event::Flushed { job, result: Err(DiskError::Failed) };
                }
                disk.flush(asked, *number, &mut self.chance);
                Event::Flushed { job, result: Ok(()) }
            }
            Work::Keep { what } => {
                let fails = std::mem::take(&mut disk.ills.keep);
                disk.has_failed |= fails;
                if !fails || self.chance.bool() {
                    disk.keep(what);
                }
                Event::Kept { job, result: if fails { Err(DiskError::Failed) } else { Ok(()) } }
            }
        }
    }

    fn wake_in_time(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        let Some(wake) = it.replica.as_ref().and_then(Replica::wake_at) else { return };
        let at = it.clock.when(wake).max(self.now + 10 * US);
        if at < it.wake {
            it.wake = at;
            let process = it.process;
            self.at(at, Due::Wake { node, process });
        }
    }

    pub fn wake(&mut self, node: usize, process: u64) {
        let it = &mut self.nodes[node];
        if it.process != process || it.replica.is_none() {
            return;
        }
        if it.is_paused(self.now) {
            return it.defer(Due::Wake { node, process });
        }
        if self.now < it.wake {
            return; // another one was set
        }
        it.wake = u64::MAX;
        let wants = it.replica.as_ref().and_then(Replica::wake_at);
        if wants.is_some_and(|at| at <= it.clock.read(self.now)) {
            self.tell(node, Event::Woken);
        }
        self.wake_in_time(node);
    }

    /// The process stands still between two of its steps; the kernel and the clock go on. `hides`: the clock stands, too.
    pub fn pause(&mut self, node: usize, length: u64, hides: bool) {
        let until = self.now + length;
        let it = &mut self.nodes[node];
        if it.replica.is_none() || it.is_paused(self.now) {
            return;
        }
        it.paused_until = until;
        it.pause_hides = hides;
        if hides {
            it.clock.hidden += length;
        }
        let process = it.process;
        self.hold_back(node, until);
        self.at(until, Due::Resume { node, process });
    }

    pub fn resume(&mut self, node: usize, process: u64) {
        let it = &mut self.nodes[node];
        if it.process != process || it.is_paused(self.now) {
            return;
        }
        let mut deferred = std::mem::take(&mut it.deferred);
        it.wake = u64::MAX;
        self.chance.shuffle(&mut deferred);
        for due in deferred {
            self.at(self.now, due);
        }
        self.wake_in_time(node);
    }

    pub fn end_pause(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if it.is_paused(self.now) {
            if std::mem::take(&mut it.pause_hides) {
                it.clock.hidden -= it.paused_until - self.now;
            }
            it.paused_until = self.now;
            let process = it.process;
            self.resume(node, process);
        }
    }

    /// The process is gone. What the kernel had may still land, all of it or some blocks, before anybody else has the disk.
    pub fn end_process(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.replica = None;
        it.process = 0;
        it.paused_until = 0;
        it.deferred.clear();
        it.wake = u64::MAX;
        it.payloads.forget_all();
        for pending in it.bag.drain(..).flatten() {
            if !pending.is_issued || pending.outcome.is_some() || self.chance.u8(0..3) == 0 {
                continue;
            }
            match &pending.work {
                Work::Store { span, bytes, .. } => {
                    for index in self.blocks.within(*span) {
                        if self.chance.u8(0..4) > 0 {
                            it.disk.write(index, bytes.cells[index], false, &mut self.chance);
                        }
                    }
                }
                Work::Keep { what } => it.disk.keep(what),
                Work::Load { .. } | Work::Merge { .. } | Work::Flush { .. } => {}
            }
        }
        self.forget_questions(node);
        self.forget_requests(node);
        self.forget_orders(node);
    }

    pub fn kill(&mut self, node: usize) {
        self.drop_connections(node, false);
        self.end_process(node);
    }

    /// The host's memory is gone, and its disk's.
    pub fn cut_power(&mut self, node: usize) {
        self.drop_connections(node, true);
        self.end_process(node);
        let it = &mut self.nodes[node];
        it.disk.has_lost |= self.durability == Durability::Flush && !it.disk.meta.superblock.clean;
        it.disk.lose_power(&mut self.chance);
        it.boot += 1;
        it.clock.booted = self.now - self.chance.u64(0..self.now.min(10_000 * MS));
        it.clock.hidden = 0;
    }

    /// Empty, or as it was when this copy was made.
    pub fn exchange_disk(&mut self, node: usize, disk: Disk) {
        let it = &mut self.nodes[node];
        it.disk = disk;
        (it.disk.is_broken, it.disk.was_exchanged) = (true, true);
    }
}
