//! One volume's target on one node: its logical unit, and all sessions with it.
//!
//! Whoever holds the data and the sockets calls it with what comes in, and does what it says: sends, begins work, reports how that ended. Nothing here
//! waits.

use std::collections::VecDeque;

use crate::login::LoggedIn;
use crate::scsi::{NexusId, PortGroup, Unit, Work, code};
use crate::session::{Broken, Head, Management, Outcome, Session, Step, TaskId};

/// A session's number in its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// What concerns another session than the one that was spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To be sent.
    Send { session: SessionId, bytes: Vec<u8> },
    /// As [`Step::Drop`].
    Drop { session: SessionId, task: TaskId },
    /// Another session took its place (RFC 7143, section 6.3.5), or its right is gone: its connection is to be closed, and nothing of it is sent any more.
    Close { session: SessionId },
}

/// Task management responses (section 11.6.1).
mod result {
    pub(super) const COMPLETE: u8 = 0;
    pub(super) const NO_TASK: u8 = 1;
    pub(super) const NO_LUN: u8 = 2;
    pub(super) const NO_REASSIGNMENT: u8 = 4;
    pub(super) const NOT_SUPPORTED: u8 = 5;
}

/// See the module.
#[derive(Debug)]
pub struct Target {
    unit: Unit,
    sessions: Vec<Option<Session>>,
    waiting: Vec<Waiting>,
    events: VecDeque<Event>,
    /// The command whose reservations are being stored.
    reserving: Option<(SessionId, TaskId)>,
}

/// An answer that waits until all these have completed.
#[derive(Debug)]
struct Waiting {
    session: SessionId,
    answer: Answer,
    tasks: Vec<(SessionId, TaskId)>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Management { tag: u32, ends_all: bool },
    Task(TaskId),
}

impl Target {
    #[must_use]
    pub fn new(unit: Unit) -> Self {
        Self { unit, sessions: Vec::new(), waiting: Vec::new(), events: VecDeque::new(), reserving: None }
    }

    /// A login is done. The session that this initiator's port had before is closed (section 6.3.5).
    pub fn joined(&mut self, logged_in: LoggedIn, is_read_only: bool) -> SessionId {
        let same = |session: &Session| {
            let (old, new) = (&session.logged_in.claim, &logged_in.claim);
            old.initiator == new.initiator && old.isid == new.isid
        };
        let before = (0..).zip(&self.sessions).find(|(_, it)| it.as_ref().is_some_and(same)).map(|(place, _)| place);
        if let Some(place) = before {
            let session = SessionId(place);
            self.closed(session);
            self.events.push_back(Event::Close { session });
        }
        let nexus = self.unit.join(&logged_in.claim.initiator, logged_in.claim.isid, is_read_only);
        let session = Session::new(logged_in, nexus);
        // The place of one that is about to be told that it is closed is not its successor's.
        let free = self
            .sessions
            .iter()
            .enumerate()
            .position(|(place, it)| it.is_none() && before.map(|it| it as usize) != Some(place));
        let place = free.unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        self.sessions[place] = Some(session);
        SessionId(u32::try_from(place).expect("there are few sessions"))
    }

    /// The connection is gone, and the session with it. Nothing of what it has under way is reported any more.
    pub fn closed(&mut self, id: SessionId) {
        let Some(session) = self.sessions[id.0 as usize].take() else { return };
        if self.reserving.is_some_and(|(by, _)| by == id) {
            self.reserving = None;
            self.unit.reserved(false);
        }
        self.unit.leave(session.nexus);
        self.waiting.retain(|it| it.session != id);
        self.waiting.iter_mut().for_each(|it| it.tasks.retain(|(session, _)| *session != id));
        self.answer_the_waiting(None);
    }

    pub fn is_open(&self, id: SessionId) -> bool {
        self.sessions.get(id.0 as usize).is_some_and(Option::is_some)
    }

    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.iter().flatten().count()
    }

    /// What is to be done for other sessions, one after the other.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes bytes from the front, up to the end of one thing at most, and says how many.
    ///
    /// # Errors
    /// The connection is to be closed at once.
    pub fn received(&mut self, id: SessionId, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Step), Broken> {
        let (session, unit) = self.at(id);
        match session.received(bytes, unit, out)? {
            (taken, Step::Manage(request)) => {
                self.manage(id, request, out);
                Ok((taken, Step::More))
            }
            (taken, Step::Begin { task, work: work @ Work::Reserve { .. } }) => {
                self.reserving = Some((id, task));
                Ok((taken, Step::Begin { task, work }))
            }
            received => Ok(received),
        }
    }

    fn at(&mut self, id: SessionId) -> (&mut Session, &mut Unit) {
        let session = self.sessions[id.0 as usize].as_mut().expect("whoever speaks of a session knows that it is open");
        (session, &mut self.unit)
    }

    /// There is room for a write's data.
    pub fn ready(&mut self, id: SessionId, task: TaskId, out: &mut Vec<u8>) {
        self.at(id).0.ready(task, out);
    }

    /// So many bytes of a payload were taken.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    pub fn payload(&mut self, id: SessionId, count: usize, out: &mut Vec<u8>) -> Result<(), Broken> {
        let (session, unit) = self.at(id);
        session.payload(count, unit, out)
    }

    /// The payload of [`Step::Held`].
    #[must_use]
    pub fn held(&self, id: SessionId) -> &[u8] {
        self.sessions[id.0 as usize].as_ref().map_or(&[], Session::held)
    }

    /// Whether anybody waits for what this task reads.
    #[must_use]
    pub fn is_wanted(&self, id: SessionId, task: TaskId) -> bool {
        self.sessions[id.0 as usize].as_ref().is_some_and(|session| session.is_wanted(task))
    }

    /// The head of the next data of a read, of which so many bytes are at hand, and how many of them go with it. Its data digest, where one was agreed on,
    /// [goes behind](Self::has_data_digest). With the last of it the task is over: nothing is to be reported of it then.
    pub fn data_in(&mut self, id: SessionId, task: TaskId, at_hand: usize) -> (Head, usize) {
        self.at(id).0.data_in(task, at_hand)
    }

    #[must_use]
    pub fn has_data_digest(&self, id: SessionId) -> bool {
        self.sessions[id.0 as usize].as_ref().is_some_and(|session| session.logged_in.terms.digests.data)
    }

    /// Work is over.
    pub fn done(&mut self, id: SessionId, task: TaskId, outcome: &Outcome, out: &mut Vec<u8>) {
        if self.reserving == Some((id, task)) {
            self.reserving = None;
            let victims = self.unit.reserved(*outcome == Outcome::Done);
            let waits = self.abort(|nexus| victims.contains(&nexus), |_| true);
            if !waits.is_empty() {
                self.waiting.push(Waiting { session: id, answer: Answer::Task(task), tasks: waits });
                return;
            }
        }
        let (session, unit) = self.at(id);
        if *outcome != Outcome::Done && session.copies(task) {
            unit.copy_failed(session.nexus);
        }
        session.done(task, outcome, unit, out);
        if !self.waiting.is_empty() {
            self.waiting.iter_mut().for_each(|it| it.tasks.retain(|waited| *waited != (id, task)));
            self.answer_the_waiting(Some((id, out)));
        }
    }

    /// Section 11.5: answered when what it aborts was dropped before it began, or has completed.
    fn manage(&mut self, id: SessionId, request: Management, out: &mut Vec<u8>) {
        const ABORT_TASK: u8 = 1;
        const ABORT_TASK_SET: u8 = 2;
        const CLEAR_TASK_SET: u8 = 4;
        const LOGICAL_UNIT_RESET: u8 = 5;
        const TARGET_WARM_RESET: u8 = 6;
        const TARGET_COLD_RESET: u8 = 7;
        const TASK_REASSIGN: u8 = 8;
        let nexus = self.at(id).0.nexus;
        let at_once = |result: u8, this: &mut Self, out: &mut Vec<u8>| this.at(id).0.managed(request.tag, result, out);
        let of_unit = matches!(request.function, ABORT_TASK | ABORT_TASK_SET | CLEAR_TASK_SET | LOGICAL_UNIT_RESET);
        if of_unit && request.lun != 0 {
            return at_once(result::NO_LUN, self, out);
        }
        let waits = match request.function {
            ABORT_TASK => {
                let (found, begun) = self.at(id).0.abort(|tag| tag == request.referenced);
                if found == 0 {
                    return at_once(result::NO_TASK, self, out);
                }
                begun.into_iter().map(|task| (id, task)).collect()
            }
            ABORT_TASK_SET => self.abort(|it| it == nexus, |_| true),
            CLEAR_TASK_SET => {
                self.unit.attention(code::CLEARED_BY_OTHER, Some(nexus));
                self.abort(|_| true, |_| true)
            }
            LOGICAL_UNIT_RESET | TARGET_WARM_RESET | TARGET_COLD_RESET => {
                self.unit.reset();
                self.abort(|_| true, |_| true)
            }
            TASK_REASSIGN => return at_once(result::NO_REASSIGNMENT, self, out),
            _ => return at_once(result::NOT_SUPPORTED, self, out),
        };
        for (session, task) in &waits {
            self.events.push_back(Event::Drop { session: *session, task: *task });
        }
        // A cold reset ends all sessions of the target; who asked for it is answered first (section 11.5.1).
        let ends_all = request.function == TARGET_COLD_RESET;
        if waits.is_empty() {
            at_once(result::COMPLETE, self, out);
            if ends_all {
                self.end_all(id);
            }
            return;
        }
        let answer = Answer::Management { tag: request.tag, ends_all };
        self.waiting.push(Waiting { session: id, answer, tasks: waits });
    }

    /// Aborts tasks, and says which of them have begun.
    fn abort(&mut self, of: impl Fn(NexusId) -> bool, which: impl Fn(u32) -> bool) -> Vec<(SessionId, TaskId)> {
        let mut waits = Vec::new();
        for (place, session) in (0..).zip(&mut self.sessions) {
            let Some(session) = session.as_mut().filter(|session| of(session.nexus)) else { continue };
            let (_, begun) = session.abort(&which);
            waits.extend(begun.into_iter().map(|task| (SessionId(place), task)));
        }
        waits
    }

    /// Those that wait for nothing any more. `now`: the session that is spoken to, and what it is sent.
    fn answer_the_waiting(&mut self, mut now: Option<(SessionId, &mut Vec<u8>)>) {
        while let Some(at) = self.waiting.iter().position(|it| it.tasks.is_empty()) {
            let Waiting { session: id, answer, .. } = self.waiting.swap_remove(at);
            let mut bytes = Vec::new();
            let (session, unit) = self.at(id);
            match answer {
                Answer::Management { tag, .. } => session.managed(tag, result::COMPLETE, &mut bytes),
                Answer::Task(task) => session.done(task, &Outcome::Done, unit, &mut bytes),
            }
            match &mut now {
                Some((same, out)) if *same == id => out.extend_from_slice(&bytes),
                _ => self.events.push_back(Event::Send { session: id, bytes }),
            }
            if matches!(answer, Answer::Management { ends_all: true, .. }) {
                self.end_all(id);
            }
        }
    }

    /// Every session is over: the one that asked for it when its answer has gone out.
    fn end_all(&mut self, by: SessionId) {
        let open =
            (0..).zip(&self.sessions).filter(|(_, session)| session.is_some()).map(|(place, _)| SessionId(place));
        for session in open.filter(|session| *session != by).collect::<Vec<_>>() {
            self.closed(session);
            self.events.push_back(Event::Close { session });
        }
        self.at(by).0.close();
    }

    /// What the access of all nodes is from now on.
    pub fn groups_are(&mut self, groups: &[PortGroup]) {
        self.unit.groups_are(groups);
    }

    pub fn size_is(&mut self, size_bytes: u64) {
        self.unit.size_is(size_bytes);
    }

    /// What the control document has.
    pub fn reservations_are(&mut self, bytes: &[u8]) {
        if self.reserving.is_none() {
            self.unit.reservations_are(bytes);
        }
    }

    /// Asks an idle initiator whether it is there.
    pub fn ping(&mut self, id: SessionId, out: &mut Vec<u8>) {
        self.at(id).0.ping(out);
    }

    /// Asks all initiators to log out: this node is about to go.
    pub fn ask_all_to_log_out(&mut self, within_s: u16) {
        for (place, session) in (0..).zip(&mut self.sessions) {
            let Some(session) = session else { continue };
            let mut bytes = Vec::new();
            session.ask_to_log_out(within_s, &mut bytes);
            self.events.push_back(Event::Send { session: SessionId(place), bytes });
        }
    }
}
