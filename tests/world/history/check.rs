//! Searches an order of a block's operations that a register could have carried them out in.
//!
//! The search is Wing and Gong's, with Lowe's memory of what was tried (Testing for linearizability, 2017), done as
//! Lowe's just-in-time variant: events are taken in the order of time, and with them goes the set of all states that the
//! register can be in: its value, and which of the operations on their way have taken effect already. An operation takes
//! effect no earlier than some answer needs it to. What is in the set is never tried twice, and nothing is undone, so
//! the effort grows with the length of the history, and only with concurrency within one block beyond that.
//!
//! Writes are told apart by their ids, which makes unknown outcomes cheap: one that no read shows might as well never
//! have happened, and one that a read shows has taken effect before that read was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Act, Operation, Value};

/// More operations on one block at a time are not judged.
const MOST_AT_ONCE: usize = 128;
/// More states of one block are not followed.
const MOST_STATES: usize = 200_000;
/// Operations that a violation is told with.
const TOLD: usize = 14;

/// What was judged and found linearizable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    pub blocks: usize,
    pub operations: usize,
    pub unknown_writes: usize,
}

/// What a violation is, in the words of the promise that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged write, or one that was read, is gone: no later read shows it either.
    LostWrite,
    /// An older value is read, though a newer one had been acknowledged or read, and later reads do not go on so.
    StaleRead,
    /// A value that nobody had begun to write.
    NeverWritten,
    /// No value at all: torn, misplaced, damaged.
    Damaged,
    /// Nothing is proved: too much at once for the search.
    Undecided,
}

/// The first read of a block that no register explains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub block: u64,
    pub kind: Kind,
    pub read: Operation,
    /// What it could have shown.
    pub possible: Vec<Value>,
    /// The operations around it, by the time at which they began.
    pub around: Vec<Operation>,
}

/// At most one for each block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    pub fn count(&self, kind: Kind) -> usize {
        self.0.iter().filter(|violation| violation.kind == kind).count()
    }
}

impl std::error::Error for Violations {}

impl fmt::Display for Violations {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|violation| violation.fmt(to))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let possible: Vec<String> = self.possible.iter().map(ToString::to_string).collect();
        writeln!(to, "block {}: {:?}; possible there: {}", self.block, self.kind, possible.join(", "))?;
        for operation in &self.around {
            writeln!(to, "{} {operation}", if *operation == self.read { ">" } else { " " })?;
        }
        Ok(())
    }
}

pub(super) fn check(blocks: &BTreeMap<u64, Vec<Operation>>) -> Result<Checked, Violations> {
    let wrong = blocks.iter().filter_map(|(block, operations)| check_block(*block, operations).err());
    let violations: Vec<Violation> = wrong.map(|violation| *violation).collect();
    if !violations.is_empty() {
        return Err(Violations(violations));
    }
    let unknown = |operation: &&Operation| operation.answered_ns.is_none();
    Ok(Checked {
        blocks: blocks.len(),
        operations: blocks.values().map(Vec::len).sum(),
        unknown_writes: blocks.values().flatten().filter(unknown).count(),
    })
}

pub(super) fn check_block(block: u64, operations: &[Operation]) -> Result<(), Box<Violation>> {
    let tell = |stuck: &Stuck| Box::new(tell(block, operations, stuck));
    let damaged = operations.iter().find(|operation| matches!(operation.act, Act::Read(Err(_))));
    if let Some(damaged) = damaged {
        return Err(tell(&Stuck { read: damaged.clone(), possible: BTreeSet::new(), undecided: false }));
    }
    let operations = settled(operations);
    let mut register = Register::new(&operations);
    for event in events(&operations) {
        match event {
            Event::Invoked(at) => register.invoked(at),
            Event::Answered(at) => register.answered(at),
        }
        .map_err(|stuck| tell(&stuck))?;
    }
    Ok(())
}

/// One operation as the search sees it.
#[derive(Debug, Clone)]
struct Step<'a> {
    operation: &'a Operation,
    value: Value,
    writes: bool,
    /// When it must have taken effect, if it must.
    by_ns: Option<u64>,
}

/// Without the unknown writes that no read shows, and with a time by which the others took effect.
fn settled(operations: &[Operation]) -> Vec<Step<'_>> {
    let seen = Seen::of(operations);
    operations.iter().filter_map(|operation| seen.settle(operation)).collect()
}

/// What the whole history tells of values.
#[derive(Debug, Default)]
struct Seen {
    /// When the first answer came that showed it.
    first_ns: BTreeMap<Value, u64>,
    written: BTreeMap<Value, usize>,
}

impl Seen {
    fn of(operations: &[Operation]) -> Self {
        // What the register begins with counts as a write of it.
        let mut seen = Self { written: BTreeMap::from([(Value::Zeroes, 1)]), ..Self::default() };
        for operation in operations {
            match (&operation.act, operation.answered_ns) {
                (Act::Write(value), _) => *seen.written.entry(*value).or_default() += 1,
                (Act::Read(Ok(value)), Some(answered_ns)) => {
                    let first_ns = seen.first_ns.entry(*value).or_insert(answered_ns);
                    *first_ns = answered_ns.min(*first_ns);
                }
                (Act::Read(_), _) => {}
            }
        }
        seen
    }

    fn settle<'a>(&self, operation: &'a Operation) -> Option<Step<'a>> {
        let (value, writes, by_ns) = match (&operation.act, operation.answered_ns) {
            (Act::Read(shown), answered_ns) => (*shown.as_ref().ok()?, false, Some(answered_ns?)),
            (Act::Write(value), Some(answered_ns)) => (*value, true, Some(answered_ns)),
            (Act::Write(value), None) => {
                let shown_ns = *self.first_ns.get(value)?;
                let is_told_apart = self.written.get(value) == Some(&1);
                (*value, true, is_told_apart.then_some(shown_ns.max(operation.invoked_ns)))
            }
        };
        Some(Step { operation, value, writes, by_ns })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Invoked(usize),
    Answered(usize),
}

/// In the order of time; what begins when something else ends is on its way together with it.
fn events(steps: &[Step<'_>]) -> impl Iterator<Item = Event> + use<> {
    let mut events = Vec::with_capacity(2 * steps.len());
    for (at, step) in steps.iter().enumerate() {
        events.push((step.operation.invoked_ns, Event::Invoked(at)));
        events.extend(step.by_ns.map(|by_ns| (by_ns, Event::Answered(at))));
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event)| event)
}

/// One thing that the register can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Value,
    /// Which of those on their way have taken effect, by their places.
    done: u128,
}

#[derive(Debug)]
struct Register<'a> {
    steps: &'a [Step<'a>],
    /// Who is on the way, at places of their own.
    places: Vec<Option<usize>>,
    states: BTreeSet<State>,
}

#[derive(Debug)]
struct Stuck {
    read: Operation,
    possible: BTreeSet<Value>,
    undecided: bool,
}

impl<'a> Register<'a> {
    fn new(steps: &'a [Step<'a>]) -> Self {
        Self { steps, places: Vec::new(), states: BTreeSet::from([State { value: Value::Zeroes, done: 0 }]) }
    }

    fn invoked(&mut self, at: usize) -> Result<(), Stuck> {
        match self.places.iter().position(Option::is_none) {
            Some(free) => self.places[free] = Some(at),
            None if self.places.len() < MOST_AT_ONCE => self.places.push(Some(at)),
            None => return Err(self.stuck(at, true)),
        }
        if !self.steps[at].writes {
            self.states = self.states.iter().map(|state| self.with_reads_done(*state)).collect();
        }
        Ok(())
    }

    /// Keeps the states in which it has taken effect, and those that become so by what else is on its way.
    fn answered(&mut self, at: usize) -> Result<(), Stuck> {
        let place = self.places.iter().position(|there| *there == Some(at)).expect("it was invoked before");
        let bit = 1_u128 << place;
        let mut reached = BTreeSet::new();
        let mut seen = self.states.clone();
        let mut to_try: Vec<State> = self.states.iter().copied().collect();
        while let Some(state) = to_try.pop() {
            if state.done & bit != 0 {
                reached.insert(State { done: state.done & !bit, ..state });
                continue;
            }
            to_try.extend(self.after_one_more_write(state).filter(|next| seen.insert(*next)));
            if seen.len() > MOST_STATES {
                return Err(self.stuck(at, true));
            }
        }
        if reached.is_empty() {
            return Err(self.stuck(at, false));
        }
        self.places[place] = None;
        self.states = reached;
        Ok(())
    }

    fn after_one_more_write(&self, state: State) -> impl Iterator<Item = State> {
        let waiting = self.waiting(state).filter(|(_, step)| step.writes);
        waiting.map(move |(bit, step)| self.with_reads_done(State { value: step.value, done: state.done | bit }))
    }

    /// A read changes nothing, so it takes effect as soon as it can.
    fn with_reads_done(&self, state: State) -> State {
        let reads = self.waiting(state).filter(|(_, step)| !step.writes && step.value == state.value);
        State { done: reads.fold(state.done, |done, (bit, _)| done | bit), ..state }
    }

    /// On its way, and without effect in this state.
    fn waiting(&self, state: State) -> impl Iterator<Item = (u128, &Step<'a>)> {
        let places = self.places.iter().enumerate().filter_map(|(place, at)| Some((1_u128 << place, (*at)?)));
        places.filter(move |(bit, _)| state.done & bit == 0).map(|(bit, at)| (bit, &self.steps[at]))
    }

    fn stuck(&self, at: usize, undecided: bool) -> Stuck {
        let held = self.states.iter().map(|state| state.value);
        let coming = self.states.iter().flat_map(|state| self.waiting(*state)).filter(|(_, step)| step.writes);
        let possible = held.chain(coming.map(|(_, step)| step.value)).collect();
        Stuck { read: self.steps[at].operation.clone(), possible, undecided }
    }
}

fn tell(block: u64, operations: &[Operation], stuck: &Stuck) -> Violation {
    let possible = stuck.possible.iter().copied().collect();
    Violation {
        block,
        kind: kind(operations, stuck),
        read: stuck.read.clone(),
        possible,
        around: around(operations, stuck),
    }
}

fn kind(operations: &[Operation], stuck: &Stuck) -> Kind {
    let answered_ns = stuck.read.answered_ns.unwrap_or(u64::MAX);
    let shown = match &stuck.read.act {
        _ if stuck.undecided => return Kind::Undecided,
        Act::Read(Err(_)) => return Kind::Damaged,
        Act::Read(Ok(value)) | Act::Write(value) => *value,
    };
    let writes_it = |operation: &Operation| operation.act == Act::Write(shown) && operation.invoked_ns <= answered_ns;
    if shown != Value::Zeroes && !operations.iter().any(writes_it) {
        return Kind::NeverWritten;
    }
    let later = || operations.iter().filter(|operation| operation.invoked_ns >= answered_ns);
    let mut later_reads = later().filter_map(|operation| match operation.act {
        Act::Read(Ok(value)) => Some(value),
        Act::Read(Err(_)) | Act::Write(_) => None,
    });
    let shown_again = later_reads.clone().any(|value| stuck.possible.contains(&value));
    let stays_so = later_reads.clone().next().is_none() || later_reads.any(|value| value == shown);
    if stays_so && !shown_again { Kind::LostWrite } else { Kind::StaleRead }
}

/// The read, the writes that it is about, what was on its way with it, and what ended last before.
fn around(operations: &[Operation], stuck: &Stuck) -> Vec<Operation> {
    let read = &stuck.read;
    let is_about = |operation: &Operation| match (&operation.act, &read.act) {
        (Act::Write(value), Act::Read(shown)) => shown.as_ref() == Ok(value) || stuck.possible.contains(value),
        (Act::Write(_) | Act::Read(_), _) => false,
    };
    let overlaps = |operation: &Operation| {
        operation.invoked_ns <= read.answered_ns.unwrap_or(u64::MAX)
            && operation.answered_ns.is_some_and(|answered_ns| answered_ns >= read.invoked_ns)
    };
    let ended_before = |operation: &&Operation| operation.answered_ns.is_some_and(|at_ns| at_ns < read.invoked_ns);
    let mut before: Vec<&Operation> = operations.iter().filter(ended_before).collect();
    before.sort_by_key(|operation| std::cmp::Reverse(operation.answered_ns));
    let about = operations.iter().filter(|operation| *operation != read && is_about(operation));
    let with_it =
        operations.iter().filter(|operation| *operation != read && !is_about(operation) && overlaps(operation));
    let before = before.into_iter().filter(|operation| !is_about(operation)).take(4);
    let mut told: Vec<Operation> = std::iter::once(read).chain(about).chain(before).chain(with_it).cloned().collect();
    told.truncate(TOLD);
    told.sort_by_key(|operation| operation.invoked_ns);
    told
}
