//! What can happen next, one small step at a time.

use crate::dropped::Dropped;
use crate::state::{Asked, Change, Part, Set, State};
use crate::volume::Volume;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    // ---- processes and connections ----
    Start {
        node: usize,
    },
    Connect {
        a: usize,
        b: usize,
    },
    /// A replica asks the arbiter for the record.
    Learn {
        node: usize,
    },
    /// The Primary welcomes a peer; the peer stores the generation and is ready.
    Meet {
        primary: usize,
        peer: usize,
    },
    /// The peer's generation is higher, or it is no Secondary.
    HangUp {
        primary: usize,
        peer: usize,
    },
    /// A heartbeat is sent and answered: the Primary has a lease of the peer, and the peer the grace to wait.
    Beat {
        primary: usize,
        peer: usize,
    },
    /// Time passes: the lease is over, and so is the grace behind it.
    GraceEnds {
        primary: usize,
        peer: usize,
    },
    /// The peer's grace is over though the lease is not: clocks are out of their bound, or a rule is dropped.
    GraceEndsEarly {
        primary: usize,
        peer: usize,
    },
    /// The answer to an old heartbeat arrives (only when its rule is dropped).
    LateAnswer {
        primary: usize,
        peer: usize,
    },

    // ---- the record ----
    Drop {
        primary: usize,
        peer: usize,
    },
    Add {
        primary: usize,
        peer: usize,
    },
    /// Flush, promise, propose.
    Stand {
        node: usize,
    },
    /// Of a Primary that has told a peer to take over; the word may not arrive.
    HandOver {
        primary: usize,
        peer: usize,
        arrives: bool,
    },
    Reclaim {
        primary: usize,
    },
    /// Goes on in the same generation (only when its rule is dropped).
    GoOn {
        primary: usize,
    },
    /// The arbiter executes what a node waits for.
    Execute {
        node: usize,
    },
    /// Its answer arrives.
    Settle {
        node: usize,
    },
    Repeat {
        node: usize,
    },
    /// The register shows the old record (only when its rule is dropped).
    Abandon {
        node: usize,
    },
    ExecuteLate {
        which: usize,
    },
    /// A new Primary has made its peers equal.
    Serve {
        primary: usize,
    },

    // ---- data ----
    Write {
        primary: usize,
        block: usize,
    },
    Receive {
        primary: usize,
        peer: usize,
        block: usize,
    },
    /// The disk has completed what was submitted.
    Complete {
        node: usize,
        block: usize,
    },
    Acknowledge {
        primary: usize,
        block: usize,
    },
    /// The disk answers, and at once the client is answered.
    Read {
        primary: usize,
        block: usize,
    },
    /// The disk answers.
    Load {
        primary: usize,
        block: usize,
    },
    /// The client is answered.
    Answer {
        primary: usize,
    },
    Flush {
        primary: usize,
    },
    Barrier {
        primary: usize,
    },
    Copy {
        primary: usize,
        peer: usize,
        block: usize,
    },
    /// What was read for a resync arrives (only when its rule is dropped).
    Land {
        primary: usize,
    },

    // ---- faults ----
    /// Of what was submitted, the disk still completes `landed`.
    Crash {
        node: usize,
        landed: Set,
    },
    /// Of each block, the medium has what was `durable`, or what was in the cache, or what was submitted: 0, 1, 2.
    LosePower {
        node: usize,
        kept: [u8; 2],
    },
    Cut {
        a: usize,
        b: usize,
    },
    TimeOut {
        node: usize,
    },
    Replace {
        node: usize,
    },
    RollBack {
        node: usize,
    },
    Fence {
        node: usize,
    },
}

impl Volume {
    /// What may be possible; [`Volume::after`] has the last word.
    pub(crate) fn candidates(&self, state: &State, out: &mut Vec<Action>) {
        for node in 0..self.nodes {
            self.of_every_node(state, node, out);
            match state.nodes[node].part {
                Part::Down => out.push(Action::Start { node }),
                Part::Secondary => out.extend([Action::Learn { node }, Action::Stand { node }]),
                Part::Candidate => self.of_change(state, node, out),
                Part::TakingOver | Part::Primary => self.of_primary(state, node, out),
            }
        }
        for which in 0..state.late.len() {
            if !state.late[which].is_none() {
                out.push(Action::ExecuteLate { which });
            }
        }
        self.of_links(state, out);
    }

    fn of_every_node(&self, state: &State, node: usize, out: &mut Vec<Action>) {
        let replica = &state.nodes[node];
        for block in 0..self.blocks {
            if replica.pending[block] != 0 {
                out.push(Action::Complete { node, block });
            }
        }
        if state.spent.faults >= self.faults.all {
            return;
        }
        if replica.is_up() && state.spent.crashes < self.faults.crashes {
            self.of_pending(replica.pending).for_each(|landed| out.push(Action::Crash { node, landed }));
        }
        if state.spent.power_losses < self.faults.power_losses {
            for first in 0..3 {
                let most = if self.blocks == 2 { 3 } else { 1 };
                (0..most).for_each(|second| out.push(Action::LosePower { node, kept: [first, second] }));
            }
        }
        if state.spent.fences < self.faults.fences {
            out.push(Action::Fence { node });
        }
        if !replica.is_up() && state.spent.replaced < self.faults.replaced {
            out.push(Action::Replace { node });
        }
        if !replica.is_up() && state.spent.rolled_back < self.faults.rolled_back {
            out.push(Action::RollBack { node });
        }
    }

    /// Every set of blocks that are under way.
    fn of_pending(&self, pending: [u8; 2]) -> impl Iterator<Item = Set> + use<> {
        let under_way = Set(u8::from(pending[0] != 0) | u8::from(pending[1] != 0) << 1);
        (0..=self.all_blocks().0).map(Set).filter(move |landed| landed.is_within(under_way))
    }

    fn of_links(&self, state: &State, out: &mut Vec<Action>) {
        for b in 1..self.nodes {
            for a in 0..b {
                if !state.linked(a, b) {
                    out.push(Action::Connect { a, b });
                } else if state.spent.faults < self.faults.all && state.spent.cuts < self.faults.cuts {
                    out.push(Action::Cut { a, b });
                }
            }
        }
    }

    fn of_change(&self, state: &State, node: usize, out: &mut Vec<Action>) {
        match state.nodes[node].asked {
            Asked::Sent => {
                out.push(Action::Execute { node });
                if state.spent.faults < self.faults.all && state.spent.time_outs < self.faults.time_outs {
                    out.push(Action::TimeOut { node });
                }
            }
            Asked::Swapped => out.push(Action::Settle { node }),
            Asked::Unknown => out.extend([Action::Repeat { node }, Action::Abandon { node }]),
        }
    }

    fn of_primary(&self, state: &State, primary: usize, out: &mut Vec<Action>) {
        let replica = &state.nodes[primary];
        if replica.change == Change::None {
            out.push(Action::Learn { node: primary });
        } else {
            self.of_change(state, primary, out);
        }
        for peer in self.others(primary) {
            let along = replica.along.has(peer);
            out.push(if along { Action::HangUp { primary, peer } } else { Action::Meet { primary, peer } });
            out.push(Action::Drop { primary, peer });
            if replica.lease.has(peer) {
                out.extend([Action::GraceEnds { primary, peer }, Action::GraceEndsEarly { primary, peer }]);
            } else if along {
                out.push(Action::Beat { primary, peer });
            }
            if !self.keeps(Dropped::Rule8SentNotArrived) {
                out.push(Action::LateAnswer { primary, peer });
            }
            if along && !replica.view.has(peer) {
                out.push(Action::Add { primary, peer });
                (0..self.blocks).for_each(|block| out.push(Action::Copy { primary, peer, block }));
            }
            if along && state.spent.hand_overs < self.hand_overs {
                out.push(Action::HandOver { primary, peer, arrives: true });
                out.push(Action::HandOver { primary, peer, arrives: false });
            }
            for block in 0..self.blocks {
                if replica.sent[block].has(peer) {
                    out.push(Action::Receive { primary, peer, block });
                }
            }
        }
        match replica.part {
            Part::TakingOver => out.push(Action::Serve { primary }),
            _ => self.of_clients(state, primary, out),
        }
    }

    fn of_clients(&self, state: &State, primary: usize, out: &mut Vec<Action>) {
        let replica = &state.nodes[primary];
        for block in 0..self.blocks {
            out.push(match replica.write[block] {
                0 => Action::Write { primary, block },
                _ => Action::Acknowledge { primary, block },
            });
            let load = Action::Load { primary, block };
            out.push(if self.slow_reads { load } else { Action::Read { primary, block } });
        }
        if replica.read.0 != 0 {
            out.push(Action::Answer { primary });
        }
        if replica.copying.0 != 0 {
            out.push(Action::Land { primary });
        }
        if self.flushes {
            out.push(Action::Flush { primary });
        }
        if replica.stopped {
            out.extend([Action::Reclaim { primary }, Action::GoOn { primary }]);
        }
        out.push(Action::Barrier { primary });
    }

    /// The state after an action, if that is possible.
    pub(crate) fn after(&self, state: &State, action: Action) -> Option<State> {
        let mut next = *state;
        let s = &mut next;
        match action {
            Action::Start { node } => self.start(s, node)?,
            Action::Connect { a, b } => self.connect(s, a, b)?,
            Action::Learn { node } => self.learn(s, node)?,
            Action::Meet { primary, peer } => self.meet(s, primary, peer)?,
            Action::HangUp { primary, peer } => self.hang_up(s, primary, peer)?,
            Action::Beat { primary, peer } => self.beat(s, primary, peer)?,
            Action::GraceEnds { primary, peer } => self.grace_ends(s, primary, peer)?,
            Action::GraceEndsEarly { primary, peer } => self.grace_ends_early(s, primary, peer)?,
            Action::LateAnswer { primary, peer } => self.late_answer(s, primary, peer)?,
            Action::Drop { primary, peer } => self.drop_peer(s, primary, peer)?,
            Action::Add { primary, peer } => self.add(s, primary, peer)?,
            Action::Stand { node } => self.stand(s, node)?,
            Action::HandOver { primary, peer, arrives } => self.hand_over(s, primary, peer, arrives)?,
            Action::Reclaim { primary } => self.reclaim(s, primary)?,
            Action::GoOn { primary } => self.go_on(s, primary)?,
            Action::Execute { node } => self.execute(s, node)?,
            Action::Settle { node } => self.settle(s, node)?,
            Action::Repeat { node } => self.repeat(s, node)?,
            Action::Abandon { node } => self.abandon(s, node)?,
            Action::ExecuteLate { which } => self.execute_late(s, which)?,
            Action::Serve { primary } => self.serve(s, primary)?,
            Action::Write { primary, block } => self.write(s, primary, block)?,
            Action::Receive { primary, peer, block } => self.receive(s, primary, peer, block)?,
            Action::Complete { node, block } => self.complete(s, node, block)?,
            Action::Acknowledge { primary, block } => self.acknowledge(s, primary, block)?,
            Action::Read { primary, block } => self.read(s, primary, block)?,
            Action::Load { primary, block } => self.load(s, primary, block)?,
            Action::Answer { primary } => self.answer(s, primary)?,
            Action::Flush { primary } => self.flush(s, primary)?,
            Action::Barrier { primary } => self.barrier(s, primary)?,
            Action::Copy { primary, peer, block } => self.copy(s, primary, peer, block)?,
            Action::Land { primary } => self.land(s, primary)?,
            Action::Crash { node, landed } => self.crash(s, node, landed)?,
            Action::LosePower { node, kept } => self.lose_power(s, node, kept)?,
            Action::Cut { a, b } => self.cut(s, a, b)?,
            Action::TimeOut { node } => self.time_out(s, node)?,
            Action::Replace { node } => self.replace(s, node)?,
            Action::RollBack { node } => self.roll_back(s, node)?,
            Action::Fence { node } => self.fence(s, node)?,
        }
        Some(next)
    }
}
