//! Operators, and what the shell does on their behalf: orders, fences, and the duties that the design leaves to people.

use replication::{BootId, Change, Event, Node, Nodes, Order, OrderId, Refusal};

use super::judge::Promise;
use super::world::{Due, MS, World};

/// What an order is about, for whoever reads its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    Role,
    Force,
    Trust,
    Invalidate,
    Attach { client: usize, id: u128 },
    Revoke { client: usize, id: u128 },
    ShutDown,
}

#[derive(Debug)]
pub struct OpenOrder {
    pub order: OrderId,
    pub node: usize,
    about: About,
}

impl OpenOrder {
    pub fn is_about_trust(&self) -> bool {
        self.about == About::Trust
    }

    pub fn about_role(&self) -> bool {
        matches!(self.about, About::Role | About::Force)
    }
}

impl World {
    /// Whether somebody was there to take it.
    pub fn order(&mut self, node: usize, what: Order, about: About) -> bool {
        let it = &self.nodes[node];
        if it.replica.is_none() || it.is_paused(self.now) || it.is_ended {
            return false;
        }
        self.order_numbers += 1;
        let order = OrderId(self.order_numbers);
        if !matches!(what, Order::Control(Change::Attach(_))) {
            self.say(Some(node), || format!("ordered: {what:?}"));
        }
        self.orders.push(OpenOrder { order, node, about });
        self.tell(node, Event::Ordered { order, what });
        true
    }

    pub fn reported(&mut self, node: usize, order: OrderId, outcome: &Result<(), Refusal>) {
        let Some(place) = self.orders.iter().position(|it| it.order == order && it.node == node) else {
            let what = format!("{} reports {order:?}, which nobody waits for", self.name(node));
            return self.judge.broken(self.now, Promise::Shell, what);
        };
        let about = self.orders.swap_remove(place).about;
        if !matches!(about, About::Attach { .. }) {
            self.say(Some(node), || match outcome {
                Ok(()) => "the order is carried out".into(),
                Err(refusal) => format!("the order is refused: {refusal:?}"),
            });
        }
        match (about, outcome) {
            (About::Role, _) | (About::Force, Ok(())) => {}
            (About::Force, Err(_)) => self.forces[node] = None,
            (About::Attach { client, id }, Ok(())) => self.attached(node, client, id),
            (About::Attach { client, id }, Err(refusal)) => self.not_attached(client, id, refusal),
            (About::Revoke { client, id }, Ok(())) => {
                self.clients[client].is_revoked_now(id);
                self.judge_revoked(node, client);
                self.judge.closed_for(client, self.now);
            }
            (About::ShutDown, Ok(())) => {
                self.nodes[node].is_ended = true;
                let process = self.nodes[node].process;
                let wait = self.chance.u64(0..2 * MS);
                self.at(self.now + wait, Due::Exit { node, process });
            }
            // Nobody can count on what it had.
            (About::Invalidate, Ok(())) => self.nodes[node].disk.has_failed = true,
            (About::Invalidate, Err(_)) => {}
            (About::Trust, _) | (About::Revoke { .. } | About::ShutDown, Err(_)) => {}
        }
    }

    fn attached(&mut self, node: usize, client: usize, id: u128) {
        let control = self.nodes[node].replica.as_ref().map(|replica| replica.control().clone()).unwrap_or_default();
        let it = &mut self.clients[client];
        it.attaching = false;
        if let Some(own) = control.attachments.iter().find(|own| own.id == id && !own.revoked) {
            it.admitted = Some((own.client, own.epoch));
            it.numbers.push((id, own.client));
        }
        self.at(self.now + MS, Due::Client { client });
    }

    fn not_attached(&mut self, client: usize, id: u128, refusal: &Refusal) {
        let it = &mut self.clients[client];
        it.attaching = false;
        let primary = match refusal {
            Refusal::NotPrimary { primary } => primary.map(Node::index),
            Refusal::Invalid(_) => {
                it.attachment = Some(id + 1000);
                Some(0)
            }
            _ => None,
        };
        self.try_elsewhere(client, primary);
    }

    pub fn forget_orders(&mut self, node: usize) {
        let mut place = 0;
        while let Some(order) = self.orders.get(place) {
            if order.node != node {
                place += 1;
                continue;
            }
            if let About::Attach { client, .. } = self.orders.swap_remove(place).about {
                self.clients[client].attaching = false;
                self.try_elsewhere(client, None);
            }
        }
        self.forces[node] = None;
    }

    /// The process has ended by itself, everything in order.
    pub fn exit(&mut self, node: usize, process: u64) {
        if self.nodes[node].process == process && self.nodes[node].is_ended {
            self.say(Some(node), || "exits".into());
            self.kill(node);
            if !self.is_steady {
                let wait = self.chance.u64(0..800 * MS);
                self.restart_at(node, self.now + wait);
            }
        }
    }

    /// It was told to end, and does not: systemd kills it.
    pub fn overdue(&mut self, node: usize, process: u64) {
        if self.nodes[node].process == process {
            self.say(Some(node), || "is killed, since it does not end".into());
            self.kill(node);
            self.restart_at(node, self.now + 100 * MS);
        }
    }

    pub fn revoke(&mut self, client: usize) {
        let (Some(id), Some(primary)) = (self.clients[client].attachment, self.judge.record.primary) else { return };
        self.order(primary.index(), Order::Control(Change::Revoke { id }), About::Revoke { client, id });
    }

    /// tandem-ha has fenced this client's host; each node hears of it in its own time.
    pub fn fence_host(&mut self, client: usize) {
        let Some((number, _)) = self.clients[client].admitted else { return };
        self.host_fences.0 += 1;
        self.host_fences.1.push(number);
        for node in 0..self.nodes.len() {
            let wait = self.chance.u64(0..200 * MS);
            self.at(self.now + wait, Due::HearOfFences { node });
        }
    }

    pub fn hear_of_fences(&mut self, node: usize) {
        if self.nodes[node].is_paused(self.now) {
            return self.nodes[node].defer(Due::HearOfFences { node });
        }
        let (version, clients) = self.host_fences.clone();
        if version > 0 && !self.nodes[node].is_ended {
            self.tell(node, Event::HostsFenced { version, clients });
        }
    }

    /// Once the serving Primary has taken the list in, these clients change nothing.
    pub fn judge_fences(&mut self) {
        let Some(primary) = self.judge.record.primary.map(Node::index).filter(|node| self.is_serving(*node)) else {
            return;
        };
        let Some(replica) = &self.nodes[primary].replica else { return };
        let taken_in = replica.control().fences;
        if taken_in == 0 || taken_in < self.host_fences.0 {
            return;
        }
        for number in self.host_fences.1.clone() {
            self.clients.iter_mut().for_each(|client| client.number_is_revoked_now(number));
        }
    }

    /// Power is cut for certain, and the others are told which boot that ended.
    pub fn fence(&mut self, node: usize) {
        let boot = BootId(self.nodes[node].boot);
        self.cut_power(node);
        let fenced = self.place(node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let late = if self.chance.bool() { self.chance.u64(0..3_000 * MS) } else { 0 };
            let wait = 5 * MS + self.chance.u64(0..50 * MS) + late;
            self.at(self.now + wait, Due::HearOfFence { node: other, fenced, boot });
        }
    }

    pub fn hear_of_fence(&mut self, node: usize, fenced: Node, boot: BootId) {
        if self.nodes[node].is_paused(self.now) {
            return self.nodes[node].defer(Due::HearOfFence { node, fenced, boot });
        }
        if !self.nodes[node].is_ended {
            self.say(Some(node), || format!("hears that boot {} of {fenced} is fenced", boot.0));
            self.tell(node, Event::Fenced { node: fenced, boot });
        }
    }

    /// `claims`: whom the operator takes for destroyed.
    pub fn force(&mut self, node: usize, claims: Nodes) {
        let lives = |node: &Node| self.nodes[node.index()].replica.is_some();
        let wrongly: Nodes = claims.iter().filter(lives).collect();
        self.forces[node] = Some(wrongly);
        if !self.order(node, replication::Order::ForcePrimary { destroyed: claims.iter().collect() }, About::Force) {
            self.forces[node] = None;
        }
    }

    /// What somebody looks after, now and then: a volume without a Primary, a replica whose disk failed, an arbiter that was restored.
    pub fn attend(&mut self) {
        let wait = 200 * MS + self.chance.u64(0..300 * MS);
        self.at(self.now + wait, Due::Attend);
        self.restart_failed();
        if self.arbiter_is_wrong() && !self.orders.iter().any(OpenOrder::is_about_trust) && self.chance.u8(0..3) == 0 {
            self.rebuild_arbiter();
        }
        let nobody = self.judge.record.primary.is_none() || !self.takes_over && !self.somebody_serves();
        let nobody_asked = !self.orders.iter().any(OpenOrder::about_role);
        if nobody && nobody_asked && self.chance.bool() {
            let fit: Vec<Node> = self.judge.record.in_sync().iter().collect();
            if let Some(node) = self.chance.choice(fit) {
                self.order(node.index(), Order::Promote, About::Role);
            }
        }
    }

    pub fn restart_failed(&mut self) {
        for node in 0..self.nodes.len() {
            if self.has_failed(node) {
                self.say(Some(node), || "operator: the failed disk is taken up anew".into());
                self.kill(node);
                self.restart_at(node, self.now + 50 * MS);
            }
        }
    }

    fn has_failed(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.has_failed && it.replica.is_some() && !it.has_work() && !it.is_paused(self.now)
    }

    pub fn arbiter_is_wrong(&self) -> bool {
        let known = self.nodes.iter().filter_map(|node| node.disk.meta.superblock.incarnation);
        let is_other = known.into_iter().any(|known| known.0 != self.arbiter.incarnation);
        is_other || self.arbiter.record.as_ref() != Some(&self.judge.record)
    }

    pub fn somebody_serves(&self) -> bool {
        (0..self.nodes.len()).any(|node| self.is_serving(node))
    }

    pub fn restart_at(&mut self, node: usize, at: u64) {
        if !std::mem::replace(&mut self.nodes[node].restarts, true) {
            self.at(at, Due::Restart { node });
        }
    }

    pub fn restart(&mut self, node: usize) {
        if self.nodes[node].replica.is_none() && self.nodes[node].restarts {
            self.start_process(node);
            self.hear_of_fences(node);
        }
    }
}
