//! The full feature phase of one session, which has one connection: PDUs in and out, their order, the data of commands (RFC 7143, sections 4 and 11).
//!
//! ```text
//!  bytes ──▶ Head ──▶ Data ──▶ Tail ──▶ Head …      a PDU is dealt with when its header is there, and again when its data is
//!             │        └─ Payload: blocks of a write, taken by whoever holds the data
//!             └─ judged by the unit ──▶ answered │ parameters collected │ Begin: work for whoever holds the data ── done() ──▶ response
//! ```

mod task;

use std::collections::VecDeque;

use crate::login::{LoggedIn, Terms, WINDOW};
use crate::pdu::{
    DIGEST_BYTES, FINAL, HEADER_BYTES, Header, MAX_HEADER_BYTES, NO_TAG, Reply, digest, padding, put, request, response,
};
use crate::scsi::{Answer, Key, NexusId, Sense, Unit, Verdict, Work, code};
use crate::text;
use task::{Sequence, Stage, Task};

/// Immediate commands come beyond the window: so many at a time.
const MAX_IMMEDIATE: usize = 16;

/// Parameters of all commands together, and the text of one request.
const MAX_PARAMETER_BYTES: usize = 16 << 20;
const MAX_TEXT_BYTES: usize = 16_384;

/// Status codes (SAM-5, table 45).
const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const BUSY: u8 = 0x08;
const RESERVATION_CONFLICT: u8 = 0x18;
const TASK_SET_FULL: u8 = 0x28;

/// Of a Data-In PDU (RFC 7143, section 11.7.1).
const HAS_STATUS: u8 = 0x01;

/// Why a PDU is rejected (section 11.17.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Rejection {
    DataDigest = 0x02,
    Snack = 0x03,
    Protocol = 0x04,
    NotSupported = 0x05,
    TooManyImmediate = 0x06,
}

/// A command's number in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u32);

/// What came of the bytes received. Whatever it is: what is in `out` is to be sent first.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// On with the rest of the bytes; when there is none, more are to be received.
    More,
    /// Work begins. The data of a [`Work::Write`] comes as payload, and is asked for once the session hears that there is [room](super::Target::ready).
    Begin { task: TaskId, work: Work },
    /// The next bytes are of this write, so many; to be [taken](super::Target::payload) before anything else is received.
    Payload { task: TaskId, bytes: u32 },
    /// As above, of a session whose data has digests: they were received and are right, and are [held](super::Target::held) here.
    Held { task: TaskId },
    /// No more of this write's data comes: what is under way of it is waited for, then it is over.
    Drop { task: TaskId },
    /// Task management: the target knows all sessions.
    Manage(Management),
    /// When what is in `out` is sent, the connection is to be closed.
    Close,
}

/// A task management request (section 11.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Management {
    pub(crate) tag: u32,
    pub(crate) function: u8,
    pub(crate) lun: u64,
    pub(crate) referenced: u32,
}

/// The session is over at once, and its initiator cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("a header's digest is wrong")]
    HeaderDigest,
    #[error("it sent {bytes} bytes of data in one PDU, where {most} were agreed on")]
    Segment { bytes: u32, most: u32 },
    #[error("command {came} came before {expected}")]
    OutOfOrder { came: u32, expected: u32 },
    #[error("its data does not fit its command: {0}")]
    Data(&'static str),
    #[error("its text has more than {MAX_TEXT_BYTES} bytes")]
    Text,
    #[error("it logged in again")]
    Login,
}

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// For a read: all of it went out by [`data_in`](super::Target::data_in).
    Done,
    /// Of [`Work::LbaStatus`]: how many bytes from there on are in one state, and whether they are mapped.
    Lba { bytes: u64, is_mapped: bool },
    /// What is there is not what was to be there, from this byte of the data on.
    Differs { at: u64 },
    /// There is no memory for it now.
    Full,
    /// The unit goes to another node, or has no Primary: the initiator shall try its other paths.
    Moving,
    /// The disk failed.
    Failed,
    /// Nobody waits for it.
    Dropped,
    /// The initiator's right to the volume was withdrawn.
    Revoked,
    /// The reservations could not be stored.
    NotStored,
}

/// The head of a PDU, to be sent before data.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    bytes: [u8; MAX_HEADER_BYTES],
    length: usize,
}

impl std::ops::Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What the bytes that come next are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Head,
    /// Data of the PDU whose header is in `head`: so much is missing.
    Data(Sink, u32),
    /// Its padding and digest: so much is missing.
    Tail(Sink, u8),
}

/// Whose data it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sink {
    /// Nobody's.
    Nowhere,
    /// Of a ping or a text.
    Echo,
    Parameters(u32),
    Payload(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) logged_in: LoggedIn,
    pub(crate) nexus: NexusId,
    terms: Terms,
    stat_sn: u32,
    exp_cmd_sn: u32,
    /// The highest that was told.
    max_cmd_sn: u32,
    tasks: Vec<Option<Task>>,
    open: usize,
    immediate: usize,
    parameter_bytes: usize,
    next_transfer_tag: u32,
    stream: Stream,
    head: Vec<u8>,
    /// Data of a ping, a text, or of a write whose digest is not checked.
    have: Vec<u8>,
    tail: [u8; 8],
    tail_bytes: usize,
    text: Vec<u8>,
    crc: u32,
    /// Steps that follow from one PDU.
    next: VecDeque<Step>,
}

impl Session {
    pub(crate) fn new(logged_in: LoggedIn, nexus: NexusId) -> Self {
        Self {
            nexus,
            terms: logged_in.terms,
            stat_sn: logged_in.stat_sn,
            exp_cmd_sn: logged_in.cmd_sn,
            max_cmd_sn: logged_in.cmd_sn.wrapping_add(WINDOW - 1),
            logged_in,
            tasks: Vec::new(),
            open: 0,
            immediate: 0,
            parameter_bytes: 0,
            next_transfer_tag: 0,
            stream: Stream::Head,
            head: Vec::with_capacity(MAX_HEADER_BYTES),
            have: Vec::new(),
            tail: [0; 8],
            tail_bytes: 0,
            text: Vec::new(),
            crc: 0,
            next: VecDeque::new(),
        }
    }

    /// Takes bytes from the front, and says how many.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        unit: &mut Unit,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Step), Broken> {
        if let Some(step) = self.next.pop_front() {
            return Ok((0, step));
        }
        match self.stream {
            Stream::Head => self.header_bytes(bytes, unit, out),
            Stream::Data(Sink::Payload(task), left) if !self.terms.digests.data => {
                Ok((0, Step::Payload { task: TaskId(task), bytes: left }))
            }
            Stream::Data(sink, left) => {
                let taken = bytes.len().min(left as usize);
                self.take_data(sink, &bytes[..taken]);
                self.data_is_shorter(sink, left, taken, unit, out)?;
                Ok((taken, self.step()))
            }
            Stream::Tail(sink, left) => {
                let taken = bytes.len().min(usize::from(left));
                self.tail[self.tail_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.tail_bytes += taken;
                let left = left - u8::try_from(taken).expect("a tail is short");
                self.stream = Stream::Tail(sink, left);
                if left == 0 {
                    self.tail_is_whole(sink, unit, out)?;
                }
                Ok((taken, self.step()))
            }
        }
    }

    fn step(&mut self) -> Step {
        self.next.pop_front().unwrap_or(Step::More)
    }

    /// These bytes of a payload were taken.
    pub(crate) fn payload(&mut self, count: usize, unit: &mut Unit, out: &mut Vec<u8>) -> Result<(), Broken> {
        match self.stream {
            Stream::Data(sink, left) => self.data_is_shorter(sink, left, count, unit, out),
            Stream::Head | Stream::Tail(..) => Ok(()),
        }
    }

    /// Of a write, received whole with its digest.
    pub(crate) fn held(&self) -> &[u8] {
        &self.have
    }

    fn header_bytes(&mut self, bytes: &[u8], unit: &mut Unit, out: &mut Vec<u8>) -> Result<(usize, Step), Broken> {
        let wanted = match self.head.get(4) {
            Some(additional) => HEADER_BYTES + usize::from(*additional) * 4 + self.terms.digests.header_bytes(),
            None => HEADER_BYTES,
        };
        let taken = bytes.len().min(wanted - self.head.len());
        self.head.extend_from_slice(&bytes[..taken]);
        let additional = self.head.get(4).map_or(0, |words| usize::from(*words) * 4);
        let whole = HEADER_BYTES + additional + self.terms.digests.header_bytes();
        if self.head.len() >= HEADER_BYTES && self.head.len() == whole {
            self.header_is_whole(unit, out)?;
        }
        Ok((taken, self.step()))
    }

    fn header_is_whole(&mut self, unit: &mut Unit, out: &mut Vec<u8>) -> Result<(), Broken> {
        let (bytes, sum) = self.head.split_at(self.head.len() - self.terms.digests.header_bytes());
        if self.terms.digests.header && digest(crc32c::crc32c(bytes)) != sum {
            return Err(Broken::HeaderDigest);
        }
        let header = Header::of(bytes);
        let (count, most) = (header.data_bytes(), self.terms.max_receive_bytes);
        if count > most {
            return Err(Broken::Segment { bytes: count, most });
        }
        let sink = self.heard(&header, unit, out)?;
        if count == 0 {
            self.pdu_is_whole(sink, unit, out)
        } else {
            (self.crc, self.tail_bytes) = (0, 0);
            self.have.clear();
            self.stream = Stream::Data(sink, count);
            Ok(())
        }
    }

    fn take_data(&mut self, sink: Sink, bytes: &[u8]) {
        if self.terms.digests.data {
            self.crc = crc32c::crc32c_append(self.crc, bytes);
        }
        match sink {
            Sink::Nowhere => {}
            Sink::Echo | Sink::Payload(_) => self.have.extend_from_slice(bytes),
            Sink::Parameters(task) => {
                let task = self.tasks[task as usize].as_mut().expect("its data comes before anything ends it");
                task.parameters.extend_from_slice(bytes);
            }
        }
    }

    fn data_is_shorter(
        &mut self,
        sink: Sink,
        left: u32,
        count: usize,
        unit: &mut Unit,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let left = left - u32::try_from(count).expect("no more is taken than is left");
        self.stream = Stream::Data(sink, left);
        if left > 0 {
            return Ok(());
        }
        let data = Header::of(&self.head).data_bytes() as usize;
        let tail = padding(data) + self.terms.digests.data_bytes();
        if tail == 0 {
            return self.pdu_is_whole(sink, unit, out);
        }
        self.stream = Stream::Tail(sink, u8::try_from(tail).expect("at most seven"));
        Ok(())
    }

    fn tail_is_whole(&mut self, sink: Sink, unit: &mut Unit, out: &mut Vec<u8>) -> Result<(), Broken> {
        if self.terms.digests.data {
            let (padding, sum) = self.tail[..self.tail_bytes].split_at(self.tail_bytes - DIGEST_BYTES);
            if digest(crc32c::crc32c_append(self.crc, padding)) != sum {
                self.spoilt(sink, unit, out);
                self.end_of_pdu();
                return Ok(());
            }
            if let Sink::Payload(task) = sink {
                self.next.push_back(Step::Held { task: TaskId(task) });
            }
        }
        self.pdu_is_whole(sink, unit, out)
    }

    fn end_of_pdu(&mut self) {
        self.head.clear();
        self.stream = Stream::Head;
    }

    /// Section 7.8: the PDU is rejected and passed over; without it its command cannot end well.
    fn spoilt(&mut self, sink: Sink, unit: &Unit, out: &mut Vec<u8>) {
        let header = Header::of(&self.head);
        self.reject(&header, Rejection::DataDigest, out);
        if let Sink::Parameters(task) | Sink::Payload(task) = sink {
            self.lost(task, code::PROTOCOL_CRC, unit, out);
        }
    }

    /// Data of this command is missing.
    fn lost(&mut self, place: u32, code: u16, unit: &Unit, out: &mut Vec<u8>) {
        let task = self.tasks[place as usize].as_mut().expect("its data was coming");
        task.out.is_spoilt = true;
        match task.stage {
            Stage::Collecting => self.fail(place, Sense::new(Key::AbortedCommand, code), unit, out),
            // Whoever holds the data hears of it, and says when nothing of it is under way.
            Stage::Begun => self.next.push_back(Step::Drop { task: TaskId(place) }),
        }
    }

    /// A header is there: its data's sink.
    fn heard(&mut self, header: &Header, unit: &mut Unit, out: &mut Vec<u8>) -> Result<Sink, Broken> {
        let counts = matches!(
            header.opcode(),
            request::NOP_OUT | request::COMMAND | request::TASK_MANAGEMENT | request::TEXT | request::LOGOUT
        );
        if counts && !self.is_in_order(header)? {
            return Ok(Sink::Nowhere);
        }
        match header.opcode() {
            request::COMMAND => Ok(self.command(header, unit, out)),
            request::DATA_OUT => self.data_out(header, unit, out),
            request::NOP_OUT | request::TEXT => Ok(Sink::Echo),
            request::TASK_MANAGEMENT => {
                self.next.push_back(Step::Manage(Management {
                    tag: header.task(),
                    function: header.flags() & 0x7f,
                    lun: header.lun(),
                    referenced: header.word20(),
                }));
                Ok(Sink::Nowhere)
            }
            request::LOGOUT => {
                self.logout(header, out);
                Ok(Sink::Nowhere)
            }
            request::LOGIN => Err(Broken::Login),
            request::SNACK => {
                self.reject(header, Rejection::Snack, out);
                Ok(Sink::Nowhere)
            }
            _ => {
                self.reject(header, Rejection::NotSupported, out);
                Ok(Sink::Nowhere)
            }
        }
    }

    /// Section 4.2.2.1. One connection keeps the order, so a gap is no delay: something is wrong for good. What lies outside the window is ignored.
    fn is_in_order(&mut self, header: &Header) -> Result<bool, Broken> {
        let came = header.cmd_sn();
        let ahead = came.wrapping_sub(self.exp_cmd_sn);
        match ahead {
            _ if header.is_immediate() => Ok(true),
            0 if self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn) < u32::MAX / 2 => {
                self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
                Ok(true)
            }
            _ if ahead < WINDOW && ahead > 0 && ahead <= self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn) => {
                Err(Broken::OutOfOrder { came, expected: self.exp_cmd_sn })
            }
            _ => Ok(false),
        }
    }

    fn command(&mut self, header: &Header, unit: &mut Unit, out: &mut Vec<u8>) -> Sink {
        let mut task = Task::new(header);
        if task.is_immediate && self.immediate == MAX_IMMEDIATE {
            self.reject(header, Rejection::TooManyImmediate, out);
            return Sink::Nowhere;
        }
        if self.place_of(task.tag).is_some() {
            self.reject(header, Rejection::Protocol, out);
            return Sink::Nowhere;
        }
        // What follows unasked, beside what stands in the command itself (section 11.3.1: the F bit).
        task.out.is_unasked = !header.is_final() && !self.terms.initial_r2t;
        let verdict = unit.judge(self.nexus, task.lun, &task.cdb);
        let place = self.put(task);
        self.judged(place, verdict, unit, out);
        self.sink(place, header.data_bytes())
    }

    /// Where so many bytes of this command's data go.
    fn sink(&self, place: u32, bytes: u32) -> Sink {
        match self.tasks.get(place as usize).and_then(Option::as_ref) {
            Some(task) if bytes == 0 || task.out.is_spoilt || task.out.got + bytes > task.out.wanted => Sink::Nowhere,
            Some(Task { stage: Stage::Collecting, .. }) => Sink::Parameters(place),
            Some(_) => Sink::Payload(place),
            None => Sink::Nowhere,
        }
    }

    fn put(&mut self, task: Task) -> u32 {
        if task.is_immediate {
            self.immediate += 1;
        } else {
            self.open += 1;
        }
        let place = self.tasks.iter().position(Option::is_none).unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        self.tasks[place] = Some(task);
        u32::try_from(place).expect("the window is short")
    }

    fn take(&mut self, place: u32) -> Task {
        let task = self.tasks[place as usize].take().expect("it ends once");
        if task.is_immediate {
            self.immediate -= 1;
        } else {
            self.open -= 1;
        }
        self.parameter_bytes -= task.parameters.capacity();
        self.pass_over(place);
        task
    }

    /// Whatever comes in now of this command's data is nobody's.
    fn pass_over(&mut self, place: u32) {
        let is_its = |sink: Sink| matches!(sink, Sink::Parameters(of) | Sink::Payload(of) if of == place);
        match &mut self.stream {
            Stream::Data(sink, _) | Stream::Tail(sink, _) if is_its(*sink) => *sink = Sink::Nowhere,
            _ => {}
        }
    }

    fn place_of(&self, tag: u32) -> Option<u32> {
        let place = self.tasks.iter().position(|task| task.as_ref().is_some_and(|task| task.tag == tag))?;
        u32::try_from(place).ok()
    }

    fn task(&mut self, place: u32) -> &mut Task {
        self.tasks[place as usize].as_mut().expect("it is open")
    }

    fn judged(&mut self, place: u32, verdict: Verdict, unit: &mut Unit, out: &mut Vec<u8>) {
        match verdict {
            Verdict::Answer(answer) => self.answer(place, answer, unit, out),
            Verdict::CollectExactly(bytes, wrong) if self.task(place).expected_out != bytes => {
                self.fail(place, wrong, unit, out);
            }
            Verdict::Collect(bytes) | Verdict::CollectExactly(bytes, _) => self.collect(place, bytes, unit, out),
            Verdict::Work(work) => self.begin(place, work, unit, out),
        }
    }

    fn collect(&mut self, place: u32, bytes: u32, unit: &mut Unit, out: &mut Vec<u8>) {
        let task = self.task(place);
        task.asked = bytes;
        task.out.wanted = task.takes(bytes);
        let wanted = task.out.wanted;
        if self.parameter_bytes + wanted as usize > MAX_PARAMETER_BYTES {
            return self.end(place, TASK_SET_FULL, None, out);
        }
        let task = self.task(place);
        task.parameters = Vec::with_capacity(wanted as usize);
        self.parameter_bytes += self.tasks[place as usize].as_ref().map_or(0, |task| task.parameters.capacity());
        self.task(place).out.is_ready = true;
        if wanted == 0 {
            self.collected(place, unit, out);
        }
    }

    fn collected(&mut self, place: u32, unit: &mut Unit, out: &mut Vec<u8>) {
        let task = self.task(place);
        let held = task.parameters.capacity();
        let (cdb, parameters) = (task.cdb, std::mem::take(&mut task.parameters));
        self.parameter_bytes -= held;
        let verdict = unit.collected(self.nexus, &cdb, parameters);
        self.judged(place, verdict, unit, out);
    }

    /// Work, trimmed to what the initiator means to transfer.
    fn begin(&mut self, place: u32, mut work: Work, unit: &Unit, out: &mut Vec<u8>) {
        let task = self.task(place);
        match &mut work {
            Work::Read { bytes, .. } => {
                task.asked = *bytes;
                *bytes = (*bytes).min(task.expected_in);
                task.inwards.bytes = *bytes;
            }
            Work::Write { bytes, .. } => {
                task.asked = *bytes;
                *bytes = task.takes_blocks(*bytes);
                task.out.wanted = *bytes;
            }
            _ => {}
        }
        if matches!(work, Work::Read { bytes: 0, .. } | Work::Write { bytes: 0, .. }) {
            return self.answer(place, Answer::Good, unit, out);
        }
        self.task(place).stage = Stage::Begun;
        self.next.push_back(Step::Begin { task: TaskId(place), work });
    }

    /// There is room for its data: it may be asked for.
    pub(crate) fn ready(&mut self, task: TaskId, out: &mut Vec<u8>) {
        self.task(task.0).out.is_ready = true;
        // With data in its own PDU, or behind it, it is asked for the rest once that is here.
        if self.stream == Stream::Head {
            self.ask(task.0, out);
        }
    }

    /// Asks for data, as much and as often as may be (section 11.8).
    fn ask(&mut self, place: u32, out: &mut Vec<u8>) {
        loop {
            let (max_burst, max_outstanding) = (self.terms.max_burst_bytes, self.terms.max_outstanding_r2t as usize);
            let task = self.tasks[place as usize].as_mut().expect("its data is wanted");
            let data = &mut task.out;
            data.asked_to = data.asked_to.max(data.got);
            let may = data.is_ready && !data.is_unasked && !data.is_spoilt;
            if !may || data.asked_to >= data.wanted || data.sequences.len() >= max_outstanding {
                return;
            }
            let (start, bytes) = (data.asked_to, (data.wanted - data.asked_to).min(max_burst));
            self.next_transfer_tag = self.next_transfer_tag.wrapping_add(1) & 0x7fff_ffff;
            let tag = self.next_transfer_tag;
            data.asked_to += bytes;
            data.sequences.push_back(Sequence { tag, end: start + bytes });
            let reply = Reply::new(response::READY_TO_TRANSFER, FINAL, task.tag).lun(task.lun).word(20, tag);
            let reply = reply.word(36, data.r2t_sn).word(40, start).word(44, bytes);
            data.r2t_sn += 1;
            let reply = reply.word(24, self.stat_sn);
            self.send(reply, &[], out);
        }
    }

    /// Section 11.7: data of a command that is open, or of one that is answered already.
    fn data_out(&mut self, header: &Header, unit: &Unit, out: &mut Vec<u8>) -> Result<Sink, Broken> {
        let Some(place) = self.place_of(header.task()) else { return Ok(Sink::Nowhere) };
        let first_burst = self.terms.first_burst_bytes;
        let bytes = header.data_bytes();
        let data = &mut self.task(place).out;
        if data.is_spoilt {
            return Ok(Sink::Nowhere);
        }
        let is_unasked = header.word20() == NO_TAG;
        let end = match (is_unasked, data.sequences.front()) {
            (true, _) if data.is_unasked => data.wanted.max(first_burst),
            (true, _) => {
                self.lost(place, code::UNEXPECTED_DATA, unit, out);
                return Ok(Sink::Nowhere);
            }
            (false, Some(sequence)) if sequence.tag == header.word20() => sequence.end,
            (false, _) => return Err(Broken::Data("nobody asked for it")),
        };
        if header.data_sn() != data.data_sn {
            self.lost(place, code::PROTOCOL_CRC, unit, out);
            return Ok(Sink::Nowhere);
        }
        data.data_sn += 1;
        match () {
            () if is_unasked && header.offset().saturating_add(bytes) > first_burst => {
                Err(Broken::Data("more than the first burst comes unasked"))
            }
            // Of what an initiator sends beyond its command the end is passed over.
            () if is_unasked && header.offset() >= data.wanted => Ok(Sink::Nowhere),
            () if header.offset() != data.got => Err(Broken::Data("it comes out of order")),
            () if !is_unasked && data.got.saturating_add(bytes) > end => {
                Err(Broken::Data("it is more than was asked for"))
            }
            () => Ok(self.sink(place, bytes)),
        }
    }

    /// A PDU and its data are there.
    fn pdu_is_whole(&mut self, sink: Sink, unit: &mut Unit, out: &mut Vec<u8>) -> Result<(), Broken> {
        let header = Header::of(&self.head);
        self.end_of_pdu();
        match header.opcode() {
            request::COMMAND | request::DATA_OUT => self.data_is_here(&header, sink, unit, out),
            request::NOP_OUT if sink == Sink::Echo => self.ping_is_here(&header, out),
            request::TEXT if sink == Sink::Echo => self.text_is_here(&header, out)?,
            _ => {}
        }
        Ok(())
    }

    fn data_is_here(&mut self, header: &Header, sink: Sink, unit: &mut Unit, out: &mut Vec<u8>) {
        let Some(place) = self.place_of(header.task()) else { return };
        let bytes = if matches!(sink, Sink::Parameters(_) | Sink::Payload(_)) { header.data_bytes() } else { 0 };
        let data = &mut self.task(place).out;
        data.got += bytes;
        if header.opcode() == request::DATA_OUT && header.is_final() {
            data.data_sn = 0;
            if header.word20() == NO_TAG {
                data.is_unasked = false;
            } else {
                let sequence = data.sequences.pop_front();
                if sequence.is_some_and(|sequence| sequence.end != data.got) && !data.is_spoilt {
                    return self.lost(place, code::NOT_ENOUGH_DATA, unit, out);
                }
            }
        }
        let task = self.task(place);
        let (is_whole, is_wanted) = (task.out.is_whole(), task.out.wanted > 0);
        match task.stage {
            Stage::Collecting if is_whole && is_wanted && !task.out.is_spoilt => self.collected(place, unit, out),
            _ if !is_whole => self.ask(place, out),
            _ => {}
        }
    }

    /// Section 11.18: a ping is answered with its data; without a tag it is the answer to ours.
    fn ping_is_here(&mut self, header: &Header, out: &mut Vec<u8>) {
        if header.task() == NO_TAG {
            return;
        }
        let mut data = std::mem::take(&mut self.have);
        data.truncate(self.terms.max_send_bytes as usize);
        let reply = Reply::new(response::NOP_IN, FINAL, header.task()).lun(header.lun()).word(20, NO_TAG);
        let reply = self.numbered(reply);
        self.send(reply, if header.data_bytes() == 0 { &[] } else { &data }, out);
        self.have = data;
    }

    /// Asks the initiator whether it is there (section 11.19).
    pub(crate) fn ping(&mut self, out: &mut Vec<u8>) {
        self.next_transfer_tag = self.next_transfer_tag.wrapping_add(1) & 0x7fff_ffff;
        let reply = Reply::new(response::NOP_IN, FINAL, NO_TAG).word(20, self.next_transfer_tag).word(24, self.stat_sn);
        self.send(reply, &[], out);
    }

    /// Section 11.10: what a session can ask for while it lasts is its own target, and other lengths.
    fn text_is_here(&mut self, header: &Header, out: &mut Vec<u8>) -> Result<(), Broken> {
        if self.text.len() + self.have.len() > MAX_TEXT_BYTES {
            return Err(Broken::Text);
        }
        self.text.extend_from_slice(if header.data_bytes() == 0 { &[] } else { &self.have });
        let mut answer = Vec::new();
        let flags = if header.is_final() {
            let text = std::mem::take(&mut self.text);
            let Ok(pairs) = text::pairs(&text) else {
                self.reject(header, Rejection::Protocol, out);
                return Ok(());
            };
            for (key, value) in pairs {
                match (key, text::number(value)) {
                    ("MaxRecvDataSegmentLength", Some(bytes @ 512..=0xff_ffff)) => self.terms.max_send_bytes = bytes,
                    ("SendTargets", _) => self.send_targets(value, &mut answer),
                    _ => text::put(&mut answer, key, "Reject"),
                }
            }
            FINAL
        } else {
            0
        };
        let reply = Reply::new(response::TEXT, flags, header.task()).lun(header.lun());
        let reply = reply.word(20, if flags == FINAL { NO_TAG } else { 1 });
        let reply = self.numbered(reply);
        self.send(reply, &answer, out);
        Ok(())
    }

    /// Appendix C: in a normal session only of its own target.
    fn send_targets(&self, value: &str, answer: &mut Vec<u8>) {
        let target = self.logged_in.claim.target.as_deref().unwrap_or_default();
        if value.is_empty() || value == target {
            text::put(answer, "TargetName", target);
        } else {
            text::put(answer, "SendTargets", "Reject");
        }
    }

    /// Section 11.14.
    fn logout(&mut self, header: &Header, out: &mut Vec<u8>) {
        const RECOVERY: u8 = 2;
        const NO_CONNECTION: u8 = 1;
        const NO_RECOVERY: u8 = 2;
        let reason = header.flags() & 0x7f;
        let result = match reason {
            0 => 0,
            1 if header.connection() == self.logged_in.connection => 0,
            RECOVERY => NO_RECOVERY,
            _ => NO_CONNECTION,
        };
        let reply = Reply::new(response::LOGOUT, FINAL, header.task()).byte(2, result);
        let reply = self.numbered(reply);
        self.send(reply, &[], out);
        if result == 0 {
            self.close();
        }
    }

    /// When what was said is sent.
    pub(crate) fn close(&mut self) {
        self.next.push_back(Step::Close);
    }

    fn reject(&mut self, header: &Header, why: Rejection, out: &mut Vec<u8>) {
        let reply = Reply::new(response::REJECT, FINAL, NO_TAG).byte(2, why as u8);
        let reply = self.numbered(reply);
        self.send(reply, &header.0, out);
    }

    /// The response to a task management request (section 11.6).
    pub(crate) fn managed(&mut self, tag: u32, result: u8, out: &mut Vec<u8>) {
        let reply = Reply::new(response::TASK_MANAGEMENT, FINAL, tag).byte(2, result);
        let reply = self.numbered(reply);
        self.send(reply, &[], out);
    }

    /// Asks the initiator to log out (section 11.9, event 1), within so many seconds.
    pub(crate) fn ask_to_log_out(&mut self, within_s: u16, out: &mut Vec<u8>) {
        const LOGOUT: u8 = 1;
        let reply = Reply::new(response::ASYNC, FINAL, NO_TAG).byte(36, LOGOUT).half(42, within_s);
        let reply = self.numbered(reply);
        self.send(reply, &[], out);
    }

    // ---- responses ----

    /// With a status number of its own.
    fn numbered(&mut self, reply: Reply) -> Reply {
        let reply = reply.word(24, self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        reply
    }

    /// What every PDU of ours says about commands (section 4.2.2.1). The window never shrinks, and grows as commands end.
    fn windowed(&mut self, reply: Reply) -> Reply {
        let free = u32::try_from((WINDOW as usize).saturating_sub(self.open)).expect("the window is short");
        let max = self.exp_cmd_sn.wrapping_add(free).wrapping_sub(1);
        if max.wrapping_sub(self.max_cmd_sn) < u32::MAX / 2 {
            self.max_cmd_sn = max;
        }
        reply.word(28, self.exp_cmd_sn).word(32, self.max_cmd_sn)
    }

    fn send(&mut self, reply: Reply, data: &[u8], out: &mut Vec<u8>) {
        let reply = self.windowed(reply);
        put(out, reply, data, self.terms.digests);
    }

    fn answer(&mut self, place: u32, answer: Answer, unit: &Unit, out: &mut Vec<u8>) {
        match answer {
            Answer::Good => self.end(place, GOOD, None, out),
            Answer::Busy => self.end(place, BUSY, None, out),
            Answer::Conflict => self.end(place, RESERVATION_CONFLICT, None, out),
            Answer::Sense(sense) => self.fail(place, sense, unit, out),
            Answer::Data(data) => self.answer_with(place, &data, out),
        }
    }

    fn fail(&mut self, place: u32, sense: Sense, unit: &Unit, out: &mut Vec<u8>) {
        let bytes = sense.bytes(unit.with_descriptors());
        let mut data = u16::try_from(bytes.len()).expect("sense data is short").to_be_bytes().to_vec();
        data.extend(bytes);
        self.end(place, CHECK_CONDITION, Some(&data), out);
    }

    /// The command is over: its response (section 11.4), unless nobody waits for it.
    fn end(&mut self, place: u32, status: u8, sense: Option<&[u8]>, out: &mut Vec<u8>) {
        let task = self.take(place);
        if task.is_aborted {
            return;
        }
        // What does not end well has transferred nothing that counts.
        let transferred = if status == GOOD { task.asked } else { 0 };
        let (flags, residual) = task.residual(transferred);
        let reply = Reply::new(response::COMMAND, FINAL | flags, task.tag).byte(3, status).word(44, residual);
        let reply = self.numbered(reply).word(36, task.inwards.data_sn);
        self.send(reply, sense.unwrap_or_default(), out);
    }

    /// Data that is at hand, and the response with it.
    fn answer_with(&mut self, place: u32, data: &[u8], out: &mut Vec<u8>) {
        let task = self.task(place);
        task.asked = u32::try_from(data.len()).expect("what a unit reports is short");
        task.inwards.bytes = task.asked.min(task.expected_in);
        if task.inwards.bytes == 0 {
            return self.end(place, GOOD, None, out);
        }
        let mut rest = &data[..task.inwards.bytes as usize];
        while !rest.is_empty() {
            let (reply, count) = self.next_data_in(place, rest.len());
            put(out, reply, &rest[..count], self.terms.digests);
            rest = &rest[count..];
        }
        self.take(place);
    }

    /// The head of the next data to the initiator, of which so many bytes are at hand, and how many of them go with it. With the last the command is
    /// over.
    pub(crate) fn data_in(&mut self, task: TaskId, at_hand: usize) -> (Head, usize) {
        let (reply, count) = self.next_data_in(task.0, at_hand);
        let reply = reply.data_bytes(count).0;
        let mut head = Head { bytes: [0; MAX_HEADER_BYTES], length: HEADER_BYTES };
        head.bytes[..HEADER_BYTES].copy_from_slice(&reply);
        if self.terms.digests.header {
            head.bytes[HEADER_BYTES..].copy_from_slice(&digest(crc32c::crc32c(&reply)));
            head.length = MAX_HEADER_BYTES;
        }
        let data = self.task(task.0).inwards;
        if data.sent == data.bytes {
            self.take(task.0);
        }
        (head, count)
    }

    fn next_data_in(&mut self, place: u32, at_hand: usize) -> (Reply, usize) {
        let (max_send, max_burst) = (self.terms.max_send_bytes, self.terms.max_burst_bytes);
        let task = self.task(place);
        let data = &mut task.inwards;
        let at_hand = u32::try_from(at_hand).unwrap_or(u32::MAX);
        let bytes = at_hand.min(data.bytes - data.sent).min(max_send).min(max_burst - data.burst);
        let (offset, data_sn) = (data.sent, data.data_sn);
        data.sent += bytes;
        data.burst += bytes;
        data.data_sn += 1;
        let is_last = data.sent == data.bytes;
        let ends_burst = is_last || data.burst == max_burst;
        if ends_burst {
            data.burst = 0;
        }
        let (residual_flags, residual) = task.residual(task.asked);
        let flags = if ends_burst { FINAL } else { 0 } | if is_last { HAS_STATUS | residual_flags } else { 0 };
        let reply = Reply::new(response::DATA_IN, flags, task.tag).word(20, NO_TAG).word(36, data_sn).word(40, offset);
        let reply = if is_last { self.numbered(reply.word(44, residual)) } else { reply };
        let reply = self.windowed(reply);
        (reply, bytes as usize)
    }

    /// Whether it is EXTENDED COPY.
    pub(crate) fn copies(&self, task: TaskId) -> bool {
        self.tasks[task.0 as usize].as_ref().is_some_and(|task| task.cdb[0] == 0x83)
    }

    /// Whether anybody waits for this task's data.
    pub(crate) fn is_wanted(&self, task: TaskId) -> bool {
        self.tasks[task.0 as usize].as_ref().is_some_and(|task| !task.is_aborted)
    }

    /// Work is over.
    pub(crate) fn done(&mut self, task: TaskId, outcome: &Outcome, unit: &Unit, out: &mut Vec<u8>) {
        let place = task.0;
        let sense = |key: Key, code: u16| Sense::new(key, code);
        let is_spoilt = self.task(place).out.is_spoilt;
        match outcome {
            _ if is_spoilt => self.fail(place, sense(Key::AbortedCommand, code::PROTOCOL_CRC), unit, out),
            Outcome::Done => self.end(place, GOOD, None, out),
            Outcome::Lba { bytes, is_mapped } => {
                let data = lba_status(&self.task(place).cdb, *bytes, *is_mapped);
                self.answer_with(place, &data, out);
            }
            Outcome::Differs { at } => self.fail(place, sense(Key::Miscompare, code::MISCOMPARE).with(*at), unit, out),
            Outcome::Full => self.end(place, TASK_SET_FULL, None, out),
            Outcome::Moving => self.fail(place, sense(Key::NotReady, code::TRANSITIONING), unit, out),
            Outcome::Failed => {
                let code =
                    if self.task(place).expected_in > 0 { code::UNRECOVERED_READ_ERROR } else { code::WRITE_ERROR };
                self.fail(place, sense(Key::MediumError, code), unit, out);
            }
            Outcome::Dropped | Outcome::Revoked => {
                self.fail(place, sense(Key::AbortedCommand, code::NOTHING), unit, out);
            }
            Outcome::NotStored => self.end(place, BUSY, None, out),
        }
    }

    /// Nobody waits for these any more; those that have begun, and so have to be waited for.
    pub(crate) fn abort(&mut self, which: impl Fn(u32) -> bool) -> (usize, Vec<TaskId>) {
        let (mut found, mut begun) = (0, Vec::new());
        for place in 0..self.tasks.len() {
            let Some(task) = self.tasks[place].as_mut().filter(|task| which(task.tag) && !task.is_aborted) else {
                continue;
            };
            found += 1;
            task.is_aborted = true;
            task.out.is_spoilt = true;
            let id = u32::try_from(place).expect("the window is short");
            match task.stage {
                Stage::Collecting => drop(self.take(id)),
                Stage::Begun => {
                    self.pass_over(id);
                    begun.push(TaskId(id));
                }
            }
        }
        (found, begun)
    }
}

/// GET LBA STATUS (SBC-3, 5.5.2): one descriptor.
fn lba_status(cdb: &[u8; 16], bytes: u64, is_mapped: bool) -> Vec<u8> {
    use crate::bytes::{put_u32, put_u64, u32_at, u64_at};
    const DEALLOCATED: u8 = 1;
    let mut data = vec![0; 24];
    put_u32(&mut data, 0, 20);
    put_u64(&mut data, 8, u64_at(cdb, 2));
    put_u32(&mut data, 16, u32::try_from(bytes / u64::from(crate::scsi::BLOCK)).unwrap_or(u32::MAX));
    data[20] = if is_mapped { 0 } else { DEALLOCATED };
    data.truncate(usize::try_from(u32_at(cdb, 10)).unwrap_or(usize::MAX));
    data
}
