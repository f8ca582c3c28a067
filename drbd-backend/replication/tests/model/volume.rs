//! The model: how large its world is, what may happen in it, and what must hold in every state.

use std::time::Instant;

use stateright::Property;

use crate::actions::Action;
use crate::dropped::Dropped;
use crate::state::{Broken, Clients, NODES, Part, Record, Replica, Set, State};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Flush,
    Write,
}

/// At most so many of each fault, and of all together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) all: u8,
    /// A process dies.
    pub(crate) crashes: u8,
    /// A host loses power, and what its disk had in a cache.
    pub(crate) power_losses: u8,
    /// A connection breaks, and what was on its way is gone.
    pub(crate) cuts: u8,
    /// A compare-and-swap gets no answer in time; it may execute later.
    pub(crate) time_outs: u8,
    /// A disk is replaced by a strange one.
    pub(crate) replaced: u8,
    /// A disk is put back to an old copy.
    pub(crate) rolled_back: u8,
    /// A host is switched off, and everybody knows.
    pub(crate) fences: u8,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { all: 0, crashes: 0, power_losses: 0, cuts: 0, time_outs: 0, replaced: 0, rolled_back: 0, fences: 0 };
}

/// The model: a volume on two or three nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) nodes: usize,
    pub(crate) blocks: usize,
    /// Versions of each block at most.
    pub(crate) writes: u8,
    /// The highest generation.
    pub(crate) generations: u8,
    pub(crate) durability: Durability,
    pub(crate) faults: Faults,
    pub(crate) hand_overs: u8,
    /// Clients flush.
    pub(crate) flushes: bool,
    /// Something may happen between a disk's answer to a read and the client's.
    pub(crate) slow_reads: bool,
    /// Clocks stay in their bound: no grace ends before the leases that it waits for.
    pub(crate) clocks_hold: bool,
    /// Checks also that the volume serves again from each state once faults have ended.
    pub(crate) liveness: bool,
    pub(crate) dropped: Option<Dropped>,
    /// When the search is given up.
    pub(crate) until: Option<Instant>,
}

impl Volume {
    /// Two nodes, one block, no faults.
    pub(crate) const PAIR: Self = Self {
        nodes: 2,
        blocks: 1,
        writes: 2,
        generations: 4,
        durability: Durability::Flush,
        faults: Faults::NONE,
        hand_overs: 0,
        flushes: false,
        slow_reads: false,
        clocks_hold: true,
        liveness: false,
        dropped: None,
        until: None,
    };

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| crate::search::now() >= until)
    }

    pub(crate) fn keeps(&self, part: Dropped) -> bool {
        !self.dropped.is_some_and(|dropped| dropped.leaves_out(part))
    }

    pub(crate) fn all_blocks(&self) -> Set {
        Set::first(self.blocks)
    }

    pub(crate) fn others(&self, me: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).filter(move |node| *node != me)
    }

    /// A new volume, promoted on node 0, everybody connected and in sync.
    pub(crate) fn new_volume(&self) -> State {
        let mut record = Record { generation: 1, ..Record::default() };
        (0..self.nodes).for_each(|node| record.add(node, 1));
        let replica = Replica {
            disk: 1,
            stored: 1,
            generation: 1,
            record,
            consistent: true,
            part: Part::Secondary,
            ..Replica::default()
        };
        let mut nodes = [Replica::default(); NODES];
        nodes[..self.nodes].fill(replica);
        let peers = Set::first(self.nodes).without(0);
        nodes[0] = Replica { part: Part::Primary, view: peers, along: peers, ..replica };
        let clients = Clients { possible: [1; 2], holders: [Set::first(self.nodes); 2], ..Clients::default() };
        let links = if self.nodes == 2 { Set::one(0) } else { Set::first(3) };
        State { register: record, nodes, clients, links, ..State::default() }
    }
}

impl stateright::Model for Volume {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.new_volume()]
    }

    /// Nothing follows a broken promise, so that the path ends where it was broken.
    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.clients.broken == Broken::default() && self.are_equal(state) {
            self.candidates(state, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.after(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(LOST, |_: &Self, state: &State| !state.clients.broken.lost),
            Property::always(EQUAL, |volume: &Self, state: &State| volume.are_equal(state)),
            Property::always(ONE_PRIMARY, |_: &Self, state: &State| !state.clients.broken.two_primaries),
        ];
        if self.clocks_hold {
            properties.extend([
                Property::always(STALE, |_: &Self, state: &State| !state.clients.broken.stale),
                Property::always(BACKWARDS, |_: &Self, state: &State| !state.clients.broken.backwards),
            ]);
        }
        if self.until.is_some() {
            // Found, it ends the search.
            properties.push(Property::sometimes(TIME_IS_UP, |volume: &Self, _: &State| volume.is_late()));
        }
        if self.liveness {
            properties.push(Property::always(SERVES, |volume: &Self, state: &State| volume.serves_again(state)));
        }
        properties
    }
}

pub(crate) const LOST: &str = "an acknowledged write is never lost";
pub(crate) const STALE: &str = "a read never shows what a newer write has replaced";
pub(crate) const BACKWARDS: &str = "what a read has shown stays shown";
pub(crate) const ONE_PRIMARY: &str = "at most one node gets writes acknowledged";
pub(crate) const EQUAL: &str = "replicas in sync are equal where no write is in flight";
pub(crate) const SERVES: &str = "with faults ended, the volume serves again";
pub(crate) const TIME_IS_UP: &str = "time is up";
