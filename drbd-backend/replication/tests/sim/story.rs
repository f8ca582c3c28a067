//! Scripted days: what a story does to the world, and waits for, in a line each. The judge is there all the time.

use replication::{Durability, Order, Request, Span};

use super::bend::Bend;
use super::client::What as Wish;
use super::misfortune::What;
use super::operator::About;
use super::seeds::outcome;
use super::world::{MS, Plan, US, World};

/// No story waits longer for anything.
const PATIENCE_MS: u64 = 10_000;

#[derive(Debug)]
pub struct Scene {
    pub world: World,
    /// So much of the story was there when something was last waited for.
    mark: usize,
}

/// Two or three nodes with equal disks; nobody is Primary yet.
pub fn nodes(count: usize, durability: Durability) -> Plan {
    Plan {
        nodes: count,
        durability,
        blocks: (0..6).collect(),
        size_blocks: 6,
        step_blocks: 1,
        hot_extents: 2,
        in_flight: 8,
        barrier_every_ms: 60_000,
        confirms_reads: false,
        takes_over: true,
        drift: [0; 3],
        clocks_are_bad: false,
        clients: vec![(100, false); 8],
        heals_at_ms: 0,
        is_steady: true,
    }
}

impl Scene {
    /// Node 0 is Primary, all are UpToDate.
    fn new(plan: &Plan, bend: Bend) -> Self {
        // A lease is part of a Primary's settings from its start; anything else is bent once all is well.
        let first = if bend == Bend::LeaseLongerThanGrace { bend } else { Bend::None };
        let mut world = World::new(plan, 1, first);
        world.story = Some(Vec::new());
        world.clients.iter_mut().for_each(|client| client.is_at_rest = true);
        let mut scene = Self { world, mark: 0 };
        scene.runs(20);
        scene.ordered(0, Order::Promote);
        scene.until("is carried out");
        scene.runs(100);
        scene.world.bend = bend;
        scene
    }

    fn told(&self) -> String {
        self.world.story.as_deref().unwrap_or_default().join("\n")
    }

    fn is_lost(&self) -> bool {
        self.world.judge.is_lost()
    }

    /// So many milliseconds pass.
    pub fn runs(&mut self, ms: u64) {
        self.passes(ms * 1_000);
        self.mark = self.world.story.as_ref().map_or(0, Vec::len);
    }

    /// So many microseconds.
    pub fn passes(&mut self, us: u64) {
        let until = self.world.now + us * US;
        while self.world.when_next().is_some_and(|at| at <= until) && self.world.step() {}
        self.world.now = self.world.now.max(until);
    }

    /// Until somebody says this, from here on.
    pub fn until(&mut self, what: &str) {
        let began = self.world.since_morning();
        loop {
            let story = self.world.story.as_deref().unwrap_or_default();
            if let Some(place) = story[self.mark..].iter().position(|line| line.contains(what)) {
                self.mark += place + 1;
                return;
            }
            if self.is_lost() {
                return;
            }
            let in_time = self.world.since_morning() - began < PATIENCE_MS && self.world.step();
            assert!(in_time || self.is_lost(), "nobody ever says {what:?}:\n{}", self.told());
        }
    }

    pub fn befalls(&mut self, what: What) {
        if !self.is_lost() {
            self.world.befall(what, 0);
        }
    }

    pub fn ordered(&mut self, node: usize, what: Order) {
        if !self.is_lost() {
            let about = if what == Order::ShutDown { About::ShutDown } else { About::Role };
            assert!(self.world.order(node, what, about), "node {node} is there to take an order");
        }
    }

    pub fn orders_invalidation(&mut self, node: usize) {
        if !self.is_lost() {
            assert!(self.world.order(node, Order::Invalidate, About::Invalidate), "node {node} is there");
        }
    }

    pub fn kills(&mut self, node: usize) {
        self.world.say(Some(node), || "! process killed".into());
        self.world.kill(node);
    }

    pub fn cuts_power(&mut self, node: usize) {
        self.world.say(Some(node), || "! loses power".into());
        self.world.cut_power(node);
    }

    /// None of what no flush covered is there.
    pub fn cuts_power_and_all_of_the_cache(&mut self, node: usize) {
        self.world.nodes[node].disk.forget_unflushed();
        self.cuts_power(node);
    }

    pub fn starts(&mut self, node: usize) {
        if !self.is_lost() {
            self.world.start_process(node);
        }
    }

    pub fn stands_still(&mut self, node: usize, ms: u64) {
        self.world.say(Some(node), || format!("! stands still for {ms} ms"));
        self.world.pause(node, ms * MS, false);
    }

    /// Each way.
    pub fn cuts(&mut self, one: usize, other: usize, ms: u64) {
        self.cuts_one_way(one, other, ms);
        self.cuts_one_way(other, one, ms);
    }

    pub fn cuts_one_way(&mut self, from: usize, to: usize, ms: u64) {
        self.world.say(Some(from), || format!("! not heard by node {to} for {ms} ms"));
        let until = self.world.now + ms * MS;
        self.world.cut(from, to, until);
    }

    pub fn resets(&mut self, one: usize, other: usize) {
        self.world.say(Some(one), || "! a connection is reset".into());
        self.world.reset_connection(one, other);
    }

    fn asks(&mut self, client: usize, node: usize, what: Wish, span: Span, is_durable: bool) -> Option<Request> {
        if self.is_lost() {
            return None;
        }
        self.passes(10);
        let half = (what == Wish::Part).then_some(1);
        let request = self.world.ask(client, node, (0, 0), what, span, half, is_durable);
        assert!(request.is_some(), "node {node} is there to be asked");
        request
    }

    /// Asks, and goes on at once. Another client each time would be another guest: this is always the same.
    pub fn begins_write(&mut self, node: usize, block: u64) -> Option<Request> {
        self.asks(0, node, Wish::Write, Span::new(block, 1), false)
    }

    /// Of another client.
    pub fn begins_read(&mut self, node: usize, block: u64) -> Option<Request> {
        self.asks(1, node, Wish::Read, Span::new(block, 1), false)
    }

    pub fn begins_flush(&mut self, node: usize) -> Option<Request> {
        self.asks(2, node, Wish::Flush, Span::new(0, 1), false)
    }

    /// A client gets an attachment of its own.
    pub fn attaches(&mut self, client: usize, node: usize) {
        let id = 77 + client as u128;
        self.world.clients[client].attachment = Some(id);
        self.world.attach(client, node, id);
        self.runs(10);
        assert!(self.is_lost() || self.world.clients[client].admitted.is_some(), "it is attached:\n{}", self.told());
    }

    /// By its attachment.
    pub fn begins_write_of(&mut self, client: usize, node: usize, block: u64) -> Option<Request> {
        let admitted = self.world.clients[client].admitted?;
        self.passes(10);
        self.world.ask(client, node, admitted, Wish::Write, Span::new(block, 1), None, false)
    }

    pub fn begins_read_of(&mut self, client: usize, node: usize, block: u64) -> Option<Request> {
        let admitted = self.world.clients[client].admitted?;
        self.passes(10);
        self.world.ask(client, node, admitted, Wish::Read, Span::new(block, 1), None, false)
    }

    pub fn begins_zeroing(&mut self, node: usize, block: u64, count: u32) -> Option<Request> {
        self.asks(3, node, Wish::Zero, Span::new(block, count), false)
    }

    pub fn begins_part(&mut self, node: usize, block: u64) -> Option<Request> {
        self.asks(4, node, Wish::Part, Span::new(block, 1), false)
    }

    /// Whether the core has answered, however.
    pub fn is_answered(&self, request: Option<Request>) -> bool {
        !self.world.open.iter().any(|attempt| Some(attempt.request) == request)
    }

    /// It is not answered yet, and rightly so.
    pub fn still_waits(&self, request: Option<Request>) {
        assert!(self.is_lost() || !self.is_answered(request), "{request:?} is answered:\n{}", self.told());
    }

    pub fn waits_for(&mut self, request: Option<Request>) {
        let began = self.world.since_morning();
        while !self.is_answered(request) && !self.is_lost() {
            let in_time = self.world.since_morning() - began < PATIENCE_MS && self.world.step();
            assert!(in_time || self.is_lost(), "{request:?} is not answered:\n{}", self.told());
        }
    }

    /// Acknowledged, or the story ends.
    pub fn writes(&mut self, node: usize, block: u64) {
        let before = self.world.judge.acknowledged;
        let request = self.begins_write(node, block);
        self.waits_for(request);
        assert!(self.is_lost() || self.world.judge.acknowledged > before, "a write to node {node} fails");
    }

    pub fn reads(&mut self, node: usize, block: u64) {
        let before = self.world.judge.checked_reads;
        let request = self.begins_read(node, block);
        self.waits_for(request);
        assert!(self.is_lost() || self.world.judge.checked_reads > before, "a read from node {node} fails");
    }

    /// For a while: whoever serves `there` is written to, and whoever still thinks that it serves `here` is read from.
    pub fn serves_here_while_there_is_written(&mut self, there: usize, here: usize) {
        for _ in 0..120 {
            let is_free = |client: usize| !self.world.open.iter().any(|attempt| attempt.client == client);
            let (may_write, may_read) = (is_free(0), is_free(1));
            if may_write && self.serves(there) {
                self.begins_write(there, 1);
            }
            if may_read && self.world.nodes[here].replica.is_some() && !self.world.nodes[here].is_paused(self.world.now)
            {
                self.begins_read(here, 1);
            }
            self.runs(10);
        }
    }

    pub fn flushes(&mut self, node: usize) {
        let request = self.begins_flush(node);
        self.waits_for(request);
    }

    /// What stands in its way, in its own words; nothing where it serves or is led.
    pub fn why(&self, node: usize) -> Option<String> {
        let it = &self.world.nodes[node];
        let status = it.replica.as_ref().map(|replica| replica.status(it.clock.read(self.world.now)));
        status.and_then(|status| status.why).map(|why| why.to_string())
    }

    pub fn primary(&self) -> Option<usize> {
        self.world.judge.record.primary.map(|node| node.index())
    }

    /// By the record.
    pub fn is_in_sync(&self, node: usize) -> bool {
        self.world.judge.record.in_sync().contains(self.world.place(node))
    }

    pub fn serves(&self, node: usize) -> bool {
        self.world.is_serving(node)
    }

    /// Everything is repaired, all replicas become UpToDate, every block is read once more.
    fn ends(&mut self) {
        if !self.is_lost() {
            self.world.heal();
        }
        while self.world.step() {}
    }
}

/// The story ends with every promise kept.
pub fn kept(plan: &Plan, script: impl Fn(&mut Scene)) {
    let mut scene = Scene::new(plan, Bend::None);
    script(&mut scene);
    scene.ends();
    let outcome = outcome(0, scene.world);
    assert!(outcome.is_well(), "{}", outcome.story);
}

/// As above; and with this fault planted the same story ends with these words of the judge.
pub fn kept_but_for(bend: Bend, words: &str, plan: &Plan, script: impl Fn(&mut Scene)) {
    kept(plan, &script);
    let mut scene = Scene::new(plan, bend);
    script(&mut scene);
    scene.ends();
    let outcome = outcome(0, scene.world);
    let caught = outcome.violations.iter().any(|broken| broken.what.contains(words));
    assert!(caught, "{bend:?} is not caught:\n{}", outcome.story);
}
