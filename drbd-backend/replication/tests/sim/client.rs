//! Clients: each reads, writes and flushes, one request at a time, asks the next node when it gets no answer, and has its reads checked.

use core::fmt;
use std::ops::Range;

use replication::{Answer, Ask, Change, Content, Event, Failure, Order, Request, Span};

use super::disk::{Bytes, MOST};
use super::judge::Promise;
use super::misfortune::Moment;
use super::operator::About;
use super::world::{Due, MS, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Read,
    Write,
    /// Half of each block.
    Part,
    Zero,
    Flush,
}

impl What {
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Part | Self::Zero)
    }
}

/// One request to one process.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub request: Request,
    pub client: usize,
    /// The attachment that it came by, and the epoch of that.
    pub number: u32,
    pub epoch: u64,
    pub node: usize,
    pub what: What,
    pub span: Span,
    pub value: u32,
    half: Option<usize>,
    is_durable: bool,
    pub asked: u64,
}

impl Attempt {
    pub fn halves(&self) -> Range<usize> {
        self.half.map_or(0..2, |half| half..half + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.client;
        match self.what {
            What::Read => write!(f, "client {who}'s read of {}", self.span),
            What::Write => write!(f, "client {who}'s write {} of {}", self.value, self.span),
            What::Part => write!(f, "client {who}'s write {} of half of {}", self.value, self.span),
            What::Zero => write!(f, "client {who}'s zeroing of {}", self.span),
            What::Flush => write!(f, "client {who}'s flush"),
        }
    }
}

#[derive(Debug)]
pub struct Client {
    /// Which node it asks.
    belief: usize,
    /// It comes by an attachment, of this id.
    pub attachment: Option<u128>,
    /// The attachment's number and epoch, once there is one.
    pub admitted: Option<(u32, u64)>,
    /// Every number that each of its ids had.
    pub numbers: Vec<(u128, u32)>,
    revoked: Vec<u32>,
    waits_for: Option<Request>,
    pub attaching: bool,
    /// So long it thinks, at most, and mostly much less.
    pub pace: u64,
    pub is_at_rest: bool,
}

impl Client {
    pub fn new(attachment: Option<u128>, pace: u64) -> Self {
        Self {
            belief: 0,
            attachment,
            admitted: None,
            numbers: Vec::new(),
            revoked: Vec::new(),
            waits_for: None,
            attaching: false,
            pace,
            is_at_rest: false,
        }
    }

    pub fn is_revoked(&self, number: u32) -> bool {
        self.revoked.contains(&number)
    }

    /// The attachment of this id may do nothing any more.
    pub fn is_revoked_now(&mut self, id: u128) {
        let of_id: Vec<u32> =
            self.numbers.iter().filter(|(other, _)| *other == id).map(|(_, number)| *number).collect();
        self.revoked.extend(of_id);
    }

    pub fn number_is_revoked_now(&mut self, number: u32) {
        if self.numbers.iter().any(|(_, other)| *other == number) && !self.is_revoked(number) {
            self.revoked.push(number);
        }
    }
}

impl World {
    /// It asks for something, if it waits for nothing.
    pub fn client_acts(&mut self, client: usize) {
        let it = &self.clients[client];
        if it.waits_for.is_some() || it.is_at_rest || it.attaching {
            return;
        }
        let node = it.belief;
        let (number, epoch) = match (it.attachment, it.admitted) {
            (None, _) => (0, 0),
            (Some(_), Some(admitted)) => admitted,
            (Some(id), None) => {
                if !self.attach(client, node, id) {
                    self.try_elsewhere(client, None);
                }
                return;
            }
        };
        let (what, span, half) = self.wish(client);
        let is_durable = what.writes() && self.chance.u8(0..6) == 0;
        if self.ask(client, node, (number, epoch), what, span, half, is_durable).is_none() {
            self.try_elsewhere(client, None);
        }
    }

    /// Whether somebody was there to be asked.
    pub fn attach(&mut self, client: usize, node: usize, id: u128) -> bool {
        let attachment = replication::Attachment {
            client: 0,
            id,
            host: format!("host-{client}"),
            initiator: String::new(),
            read_only: false,
            chap: None,
            epoch: 0,
            revoked: false,
        };
        let order = Order::Control(Change::Attach(attachment));
        self.clients[client].attaching = true; // it may be answered at once
        let is_asked = self.order(node, order, About::Attach { client, id });
        self.clients[client].attaching &= is_asked;
        is_asked
    }

    /// What it wants next.
    fn wish(&mut self, client: usize) -> (What, Span, Option<usize>) {
        // The first one reads most of the time: nothing that hangs drives it away from a Primary that has lost its peers.
        let reads = if client == 0 { 85 } else { 35 };
        let what = match self.chance.u8(0..100) {
            it if it < reads => What::Read,
            ..75 => What::Write,
            75..88 => What::Part,
            88..90 => What::Zero,
            _ => What::Flush,
        };
        let count = self.blocks.numbers.len();
        let first = self.chance.usize(0..count);
        let mut until = self.blocks.numbers[first] + 1;
        if self.chance.u8(0..4) == 0 {
            let last = (first + self.chance.usize(1..3)).min(count - 1);
            until = self.blocks.numbers[last] + 1;
        }
        // No longer than the activity log may have hot extents.
        until = until.min(self.blocks.numbers[first] + replication::EXTENT_BLOCKS);
        let length = u32::try_from(until - self.blocks.numbers[first]).expect("volumes are small");
        let half = (what == What::Part).then(|| self.chance.usize(0..2));
        let span = Span::new(self.blocks.numbers[first], length);
        // Zeroes have no number: each block is zeroed once, so that it is known who did it.
        let range = self.blocks.within(span);
        if what != What::Zero {
            return (what, span, half);
        }
        if self.zeroed[range.clone()].iter().any(|was| *was) {
            return (What::Write, span, None);
        }
        self.zeroed[range].fill(true);
        (what, span, half)
    }

    /// Hands it to the process on this node. None: nobody is there to hear it.
    #[expect(clippy::too_many_arguments, reason = "a request is what it is")]
    pub fn ask(
        &mut self,
        client: usize,
        node: usize,
        (number, epoch): (u32, u64),
        what: What,
        span: Span,
        half: Option<usize>,
        is_durable: bool,
    ) -> Option<Request> {
        let it = &mut self.nodes[node];
        if it.replica.is_none() || it.is_paused(self.now) || it.is_ended {
            return None;
        }
        self.requests += 1;
        let request = Request(self.requests);
        let value = if what == What::Zero { 0 } else { self.requests };
        let ask = match what {
            What::Read => Ask::Read(span),
            What::Flush => Ask::Flush,
            What::Zero => {
                Ask::Write { span, content: Content::Zeroes { punch: self.chance.bool() }, durable: is_durable }
            }
            What::Write | What::Part => {
                let payload = it.payloads.hold(Bytes { cells: [[value; 2]; MOST], half });
                match half {
                    None => Ask::Write { span, content: Content::Data(payload), durable: is_durable },
                    Some(_) => Ask::WritePart { span, payload, durable: is_durable },
                }
            }
        };
        let asked = self.now;
        let attempt = Attempt { request, client, number, epoch, node, what, span, value, half, is_durable, asked };
        if what.writes() {
            self.judge.asked(&attempt, self.blocks.within(span), asked);
        }
        if self.tells_all || self.is_steady {
            self.say(Some(node), || format!("{attempt} ({request:?})"));
        }
        self.open.push(attempt);
        self.clients[client].waits_for = Some(request);
        let most = if self.chance.u8(0..3) == 0 { self.patience / 6 } else { self.patience };
        let patience = most / 2 + self.chance.u64(0..most);
        self.at(self.now + patience, Due::Impatient { client, request });
        self.tell(node, Event::Asked { request, client: number, ask });
        Some(request)
    }

    /// No answer: it asks another node.
    pub fn impatient(&mut self, client: usize, request: Request) {
        if self.clients[client].waits_for != Some(request) {
            return;
        }
        self.clients[client].waits_for = None;
        self.try_elsewhere(client, None);
        let asked = self.open.iter().find(|attempt| attempt.request == request).map(|attempt| attempt.node);
        if let Some(node) = asked.filter(|node| self.withdraws && !self.nodes[*node].is_paused(self.now)) {
            self.tell(node, Event::Withdrawn { request });
        }
    }

    pub fn try_elsewhere(&mut self, client: usize, primary: Option<usize>) {
        let count = self.nodes.len();
        let it = &mut self.clients[client];
        it.belief = primary.unwrap_or((it.belief + 1) % count);
        let wait = 10 * MS + self.chance.u64(0..60 * MS);
        self.at(self.now + wait, Due::Client { client });
    }

    /// The core answers.
    pub fn answered(&mut self, node: usize, request: Request, answer: Answer) {
        let Some(place) = self.open.iter().position(|attempt| attempt.request == request && attempt.node == node)
        else {
            let what = format!("{} answers {request:?}, which nobody waits for", self.name(node));
            return self.judge.broken(self.now, Promise::Shell, what);
        };
        let attempt = self.open.swap_remove(place);
        if self.tells_all || self.is_steady {
            let how = if let Answer::Failed(failure) = answer { format!("{failure:?}") } else { "done".into() };
            self.say(Some(node), || format!("{attempt}: {how}"));
        }
        match (attempt.what, answer) {
            (What::Read, Answer::Data(payload)) => match self.nodes[node].payloads.read(payload) {
                Some(bytes) => {
                    self.nodes[node].payloads.release(payload);
                    self.judge_read(&attempt, &bytes.cells);
                }
                None => {
                    let what =
                        format!("{} answers {attempt} with {payload:?}, which it does not have", self.name(node));
                    self.judge.broken(self.now, Promise::Shell, what);
                }
            },
            (What::Write | What::Part | What::Zero, Answer::Done) => {
                self.judge_written(&attempt, attempt.is_durable);
                self.came_to(Moment::Acknowledged, node);
            }
            (What::Flush, Answer::Done) => self.judge_flushed(&attempt),
            (What::Write | What::Zero | What::Flush, Answer::Failed(Failure::Io)) => {
                if let Some(other) = self.judge.record.in_sync().iter().find(|other| other.index() != node) {
                    let what = format!("{attempt} fails for its client, though {other} is in sync");
                    self.judge.broken(self.now, Promise::Serves, what);
                }
            }
            (what, Answer::Failed(Failure::Withdrawn)) if what.writes() => self.judge_withdrawn(&attempt),
            (_, Answer::Failed(_)) => {}
            (_, answer) => {
                let what = format!("{} answers {attempt} with {answer:?}", self.name(node));
                self.judge.broken(self.now, Promise::Shell, what);
            }
        }
        self.client_hears(&attempt, answer);
    }

    fn client_hears(&mut self, attempt: &Attempt, answer: Answer) {
        let client = attempt.client;
        let it = &mut self.clients[client];
        if it.waits_for != Some(attempt.request) {
            return; // it asks somebody else by now
        }
        it.waits_for = None;
        match answer {
            Answer::Done | Answer::Data(_) => {
                let pace = self.clients[client].pace;
                let most = if self.chance.bool() { pace / 20 } else { pace };
                let at = self.now + MS + self.chance.u64(0..most.max(MS));
                self.at(at, Due::Client { client });
            }
            Answer::Failed(Failure::NotPrimary { primary }) => {
                self.try_elsewhere(client, primary.map(|node| node.index()))
            }
            Answer::Failed(Failure::Revoked) => {
                self.judge.refused_revoked += 1;
                it.admitted = None;
                if it.is_revoked(attempt.number) {
                    it.attachment = it.attachment.map(|id| id + 1000);
                }
                self.at(self.now + 20 * MS, Due::Client { client });
            }
            Answer::Failed(Failure::Io | Failure::OutOfRange | Failure::Withdrawn) => {
                self.try_elsewhere(client, None);
            }
        }
    }

    /// What a dead process was asked is answered by nobody. Whoever was connected to it notices soon.
    pub fn forget_requests(&mut self, node: usize) {
        let mut place = 0;
        while let Some(attempt) = self.open.get(place) {
            let (client, request) = (attempt.client, attempt.request);
            if attempt.node != node {
                place += 1;
                continue;
            }
            self.open.swap_remove(place);
            if self.clients[client].waits_for == Some(request) && self.chance.bool() {
                self.clients[client].waits_for = None;
                self.try_elsewhere(client, None);
            }
        }
    }
}
