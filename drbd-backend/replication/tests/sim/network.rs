//! Connections between nodes: messages in order each way, late, cut off, reset.

use std::collections::VecDeque;

use replication::{Envelope, Event, Link, Message};

use super::disk::Bytes;
use super::world::{Due, MS, US, World};

#[derive(Debug)]
pub enum Item {
    Connected,
    Message(Envelope, Message, Option<Bytes>),
    Disconnected,
}

#[derive(Debug)]
pub struct Sent {
    /// When it has left the process: what has not is lost with it.
    leaves: u64,
    at: u64,
    item: Item,
}

/// One connection; each end learns of its begin and its end in its own time.
#[derive(Debug)]
pub struct Connection {
    pub link: Link,
    pub ends: [usize; 2],
    /// It was told that it is connected, and not that it is no more.
    pub open: [bool; 2],
    pub over: [bool; 2],
    /// What is sent now arrives nowhere.
    broken: bool,
    /// On its way to each end.
    way: [VecDeque<Sent>; 2],
}

#[derive(Debug, Default)]
pub struct Network {
    pub connections: Vec<Connection>,
    links: u32,
    /// Nothing gets through from the first to the second until then.
    cut_until: [[u64; 3]; 3],
    /// Somebody tries to connect these already.
    trying: [[bool; 3]; 3],
    pub slow_until: u64,
}

impl Network {
    fn find(&mut self, link: Link) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|it| it.link == link)
    }

    fn is_connected(&self, one: usize, other: usize) -> bool {
        self.connections.iter().any(|it| it.ends == [one, other] && !it.broken && it.over == [false; 2])
    }
}

impl World {
    /// Both know that they are connected.
    pub fn are_connected(&self, one: usize, other: usize) -> bool {
        let ends = [one.min(other), one.max(other)];
        self.network.connections.iter().any(|it| it.ends == ends && it.open == [true; 2] && !it.broken)
    }

    /// What this one says does not arrive there.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.network.cut_until[from][to] > self.now
    }

    fn way_takes(&mut self) -> u64 {
        let most = if self.now < self.network.slow_until { 150 * MS } else { 250 * US };
        let rare = self.chance.u8(0..40) == 0 && !self.is_steady;
        30 * US + self.chance.u64(0..most) + if rare { self.chance.u64(0..40 * MS) } else { 0 }
    }

    /// Somebody tries again and again until these two are connected.
    pub fn connect_soon(&mut self, one: usize, other: usize) {
        let (one, other) = (one.min(other), one.max(other));
        if !std::mem::replace(&mut self.network.trying[one][other], true) {
            let at = self.now + 2 * MS + self.chance.u64(0..40 * MS);
            self.at(at, Due::Connect { one, other });
        }
    }

    pub fn connect(&mut self, one: usize, other: usize) {
        self.network.trying[one][other] = false;
        if self.network.is_connected(one, other) {
            return;
        }
        let is_cut = |from: usize, to: usize| self.network.cut_until[from][to] > self.now;
        let can = |node: usize| self.nodes[node].replica.is_some() && !self.nodes[node].is_paused(self.now);
        if is_cut(one, other) || is_cut(other, one) || !can(one) || !can(other) {
            return self.connect_soon(one, other);
        }
        self.network.links += 1;
        let link = Link(self.network.links);
        let connection = Connection {
            link,
            ends: [one, other],
            open: [false; 2],
            over: [false; 2],
            broken: false,
            way: Default::default(),
        };
        self.network.connections.push(connection);
        (0..2).for_each(|end| self.put_on_way(link, end, self.now, Item::Connected));
    }

    /// To that end of the link.
    fn put_on_way(&mut self, link: Link, end: usize, leaves: u64, item: Item) {
        let takes = self.way_takes();
        let now = self.now;
        let Some(it) = self.network.connections.iter_mut().find(|it| it.link == link) else { return };
        let cut = self.network.cut_until[it.ends[1 - end]][it.ends[end]];
        let cut = if cut > now { cut + takes } else { 0 };
        let last = it.way[end].back().map_or(0, |sent| sent.at);
        let at = (leaves + takes).max(cut).max(last);
        it.way[end].push_back(Sent { leaves, at, item });
        self.at(at, Due::Arrive { link, end });
    }

    pub fn send(&mut self, node: usize, link: Link, envelope: Envelope, message: Message, bytes: Option<Bytes>) {
        let Some(it) = self.network.find(link) else { return };
        let end = usize::from(it.ends[1] == node);
        if it.broken || it.over[end] || it.over[1 - end] {
            return;
        }
        let leaves = self.now + self.moment_passes();
        self.put_on_way(link, 1 - end, leaves, Item::Message(envelope, message, bytes));
    }

    pub fn arrive(&mut self, link: Link, end: usize) {
        let now = self.now;
        let Some(it) = self.network.find(link) else { return };
        let node = it.ends[end];
        if it.over[end] {
            return self.forget_when_over(link);
        }
        let Some(front) = it.way[end].front().map(|sent| sent.at) else { return };
        if front > now {
            return self.at(front, Due::Arrive { link, end });
        }
        if self.nodes[node].is_paused(now) {
            return self.nodes[node].defer(Due::Arrive { link, end });
        }
        let Some(it) = self.network.find(link) else { return };
        let sent = it.way[end].pop_front().expect("there is one");
        match sent.item {
            Item::Connected => {
                it.open[end] = true;
                let peer = it.ends[1 - end];
                let peer = self.place(peer);
                self.tell(node, Event::Connected { link, node: peer });
            }
            Item::Message(envelope, message, bytes) => {
                let payload = bytes.map(|bytes| self.nodes[node].payloads.hold(bytes));
                self.tell(node, Event::Received { link, envelope, message, payload });
            }
            Item::Disconnected => {
                it.over[end] = true;
                it.way[end].clear();
                let was_open = std::mem::take(&mut it.open[end]);
                let [one, other] = it.ends;
                if was_open {
                    self.tell(node, Event::Disconnected { link });
                }
                self.connect_soon(one, other);
                self.forget_when_over(link);
            }
        }
    }

    fn forget_when_over(&mut self, link: Link) {
        self.network.connections.retain(|it| it.link != link || it.over != [true; 2]);
    }

    /// This node wants nothing more of it.
    pub fn hang_up(&mut self, node: usize, link: Link) {
        let Some(it) = self.network.find(link) else { return };
        let end = usize::from(it.ends[1] == node);
        it.over[end] = true;
        it.open[end] = false;
        it.way[end].clear();
        let [one, other] = it.ends;
        self.put_on_way(link, 1 - end, self.now, Item::Disconnected);
        self.connect_soon(one, other);
        self.forget_when_over(link);
    }

    /// A process is gone; what it had sent may still arrive. A host without power says nothing, so the other end takes longer to notice.
    pub fn drop_connections(&mut self, node: usize, in_silence: bool) {
        let links: Vec<(Link, usize)> = self.connections_of(node);
        for (link, end) in links {
            let (now, late) = (self.now, if in_silence { self.chance.u64(0..3_000 * MS) } else { 0 });
            let Some(it) = self.network.find(link) else { continue };
            (it.over[end], it.open[end]) = (true, false);
            it.way[end].clear();
            it.way[1 - end].retain(|sent| sent.leaves <= now);
            it.broken = true;
            self.put_on_way(link, 1 - end, now + late, Item::Disconnected);
            self.forget_when_over(link);
        }
    }

    fn connections_of(&self, node: usize) -> Vec<(Link, usize)> {
        let mine = self.network.connections.iter().filter(|it| it.ends.contains(&node));
        mine.map(|it| (it.link, usize::from(it.ends[1] == node)))
            .filter(|(link, end)| !self.is_over(*link, *end))
            .collect()
    }

    fn is_over(&self, link: Link, end: usize) -> bool {
        self.network.connections.iter().any(|it| it.link == link && it.over[end])
    }

    /// Each end learns of it in its own time; until then, what was on its way may still arrive.
    pub fn reset_connection(&mut self, one: usize, other: usize) {
        let links: Vec<Link> = self
            .network
            .connections
            .iter()
            .filter(|it| it.ends == [one, other] && !it.broken)
            .map(|it| it.link)
            .collect();
        for link in links {
            for end in 0..2 {
                let until = self.now + self.chance.u64(0..2 * MS);
                let Some(it) = self.network.find(link) else { continue };
                it.broken = true;
                if it.over[end] {
                    continue;
                }
                it.way[end].retain(|sent| sent.at <= until);
                it.way[end].push_back(Sent { leaves: until, at: until, item: Item::Disconnected });
                self.at(until, Due::Arrive { link, end });
            }
        }
    }

    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        let now = self.now;
        let cut = &mut self.network.cut_until[from][to];
        *cut = until.max(*cut);
        for it in self.network.connections.iter_mut() {
            let Some(end) = it.ends.iter().position(|node| *node == to).filter(|end| it.ends[1 - end] == from) else {
                continue;
            };
            it.way[end].iter_mut().filter(|sent| sent.at > now).for_each(|sent| sent.at = sent.at.max(until));
        }
    }

    pub fn heal_network(&mut self) {
        self.network.cut_until = Default::default();
        self.network.slow_until = 0;
        let soon = self.now + MS;
        let mut hurried = Vec::new();
        for it in self.network.connections.iter_mut() {
            for end in 0..2 {
                for sent in it.way[end].iter_mut().filter(|sent| sent.at > soon) {
                    sent.at = soon;
                    hurried.push(Due::Arrive { link: it.link, end });
                }
            }
        }
        hurried.into_iter().for_each(|due| self.at(soon, due));
    }

    /// What a process has not sent yet waits with it.
    pub fn hold_back(&mut self, node: usize, until: u64) {
        let now = self.now;
        for it in self.network.connections.iter_mut() {
            let Some(end) = it.ends.iter().position(|other| *other == node) else { continue };
            let mut last = 0;
            for sent in &mut it.way[1 - end] {
                if sent.leaves > now {
                    sent.leaves += until - now;
                    sent.at += until - now;
                }
                sent.at = sent.at.max(last);
                last = sent.at;
            }
        }
    }
}
