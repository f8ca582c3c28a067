//! What initiators send once they are logged in: two sessions with one unit.
//!
//! The first byte chooses the terms, and whether the rest is a stream of one session as it is, or records from which right PDUs are made: then bent
//! numbers and digests do not end everything at once. A record is a byte that says which session it is of and what becomes of work under way, a length,
//! 48 bytes of header, and data.

use std::collections::VecDeque;

use iscsi::{
    Access, Claim, Digests, Event, Identity, LoggedIn, Outcome, PortGroup, SessionId, Step, Target, TaskId, Terms,
    Unit, UnitSettings, Work,
};

const TARGET: &str = "iqn.2026-11.org.tandem:volume-1";
pub(crate) const DISK_BYTES: u64 = 0x10_0000;
const HEADER_BYTES: usize = 48;
const FIRST_CMD_SN: u32 = 10;

/// What came of it, whichever way the bytes came in.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    said: Vec<u8>,
    begun: Vec<Work>,
    payload: Vec<u8>,
    ended: Option<String>,
}

struct Peer {
    id: SessionId,
    terms: Terms,
    cmd_sn: u32,
    under_way: VecDeque<(TaskId, Work)>,
    is_over: bool,
    heard: Heard,
}

pub(crate) fn take(bytes: &[u8]) {
    let Some(([mode, cut @ ..], bytes)) = bytes.split_first_chunk::<3>() else { return };
    if mode & 1 != 0 {
        return records(*mode, bytes);
    }
    let whole = hear(*mode, [bytes]);
    let (front, back) = bytes.split_at(usize::from(u16::from_be_bytes(*cut)) % (bytes.len() + 1));
    assert_eq!(whole, hear(*mode, [front, back]), "in two pieces");
    assert_eq!(whole, hear(*mode, bytes.chunks(1)), "byte by byte");
}

pub(crate) fn target() -> Target {
    let identity = Identity { uuid: 1, target: TARGET.into(), revision: "1.0".into() };
    let groups = vec![PortGroup { port: 1, access: Access::Active }, PortGroup { port: 2, access: Access::Standby }];
    let settings = UnitSettings { identity, port: 1, size_bytes: DISK_BYTES, has_cache: true, is_thin: true, groups };
    Target::new(Unit::new(settings, &[]))
}

pub(crate) fn logged_in(initiator: &str, terms: Terms) -> LoggedIn {
    let claim = Claim { initiator: initiator.into(), isid: [0x80, 1, 2, 3, 4, 5], target: Some(TARGET.into()) };
    LoggedIn { claim, tsih: 1, connection: 0, terms, cmd_sn: FIRST_CMD_SN, stat_sn: 1 }
}

pub(crate) fn terms(mode: u8) -> Terms {
    let has = |bit: u8| mode & bit != 0;
    Terms {
        digests: Digests { header: has(2), data: has(4) },
        max_send_bytes: if has(8) { 512 } else { 262_144 },
        max_receive_bytes: 262_144,
        initial_r2t: has(16),
        immediate_data: !has(32),
        max_burst_bytes: if has(64) { 512 } else { 524_288 },
        first_burst_bytes: 512,
        max_outstanding_r2t: if has(128) { 1 } else { 8 },
    }
}

fn hear<'a>(mode: u8, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut target = target();
    let mut peer = Peer::join(&mut target, "iqn.a", mode);
    for piece in pieces {
        peer.feed(&mut target, piece);
    }
    peer.heard
}

fn records(mode: u8, mut bytes: &[u8]) {
    let mut target = target();
    let mut peers = [Peer::join(&mut target, "iqn.a", mode), Peer::join(&mut target, "iqn.b", mode)];
    while let Some(([what, length, header @ ..], rest)) = bytes.split_first_chunk::<50>() {
        let (data, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let number = usize::from(what & 1);
        if !peers[number].is_over {
            let pdu = peers[number].mended(*header, data);
            peers[number].feed(&mut target, &pdu);
        }
        let number = usize::from(what >> 1 & 1);
        if !peers[number].is_over {
            peers[number].finish(&mut target, *what >> 2);
        }
        events(&mut target, &mut peers);
    }
}

fn events(target: &mut Target, peers: &mut [Peer; 2]) {
    while let Some(event) = target.event() {
        let (Event::Send { session, .. } | Event::Drop { session, .. } | Event::Close { session }) = &event;
        let Some(peer) = peers.iter_mut().find(|peer| peer.id == *session && !peer.is_over) else { continue };
        match event {
            Event::Send { bytes, .. } => peer.heard.said.extend(bytes),
            Event::Drop { task, .. } => peer.done(target, task, &Outcome::Dropped),
            Event::Close { .. } => peer.is_over = true,
        }
    }
}

impl Peer {
    fn join(target: &mut Target, name: &str, mode: u8) -> Self {
        let terms = terms(mode);
        let id = target.joined(logged_in(name, terms), false);
        Self { id, terms, cmd_sn: FIRST_CMD_SN, under_way: VecDeque::new(), is_over: false, heard: Heard::default() }
    }

    /// With the number that is due, the length of its data, and right digests.
    fn mended(&mut self, header: [u8; HEADER_BYTES], data: &[u8]) -> Vec<u8> {
        let mut header = header;
        let length = u32::try_from(data.len()).expect("at most 255");
        header[4..8].copy_from_slice(&length.to_be_bytes());
        header[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        let counts = header[0] & 0x40 == 0 && matches!(header[0] & 0x3f, 0..=2 | 4 | 6);
        self.cmd_sn = self.cmd_sn.wrapping_add(u32::from(counts));
        let mut pdu = header.to_vec();
        if self.terms.digests.header {
            pdu.extend(crc32c::crc32c(&header).to_le_bytes());
        }
        if data.is_empty() {
            return pdu;
        }
        let mut padded = data.to_vec();
        padded.resize(data.len().next_multiple_of(4), 0);
        pdu.extend_from_slice(&padded);
        if self.terms.digests.data {
            pdu.extend(crc32c::crc32c(&padded).to_le_bytes());
        }
        pdu
    }

    fn feed(&mut self, target: &mut Target, mut bytes: &[u8]) {
        let mut steps = 0;
        while !self.is_over {
            steps += 1;
            assert!(steps <= 2 * bytes.len() + 1000, "it never ends");
            let before = bytes.len();
            match target.received(self.id, bytes, &mut self.heard.said) {
                Ok((taken, step)) => {
                    bytes = &bytes[taken..];
                    let is_rest = step == Step::More;
                    let waits = self.step(target, step, &mut bytes);
                    if waits || is_rest && bytes.is_empty() {
                        return;
                    }
                    assert!(!is_rest || bytes.len() < before, "nothing was taken");
                }
                Err(why) => self.end(target, why.to_string()),
            }
        }
    }

    /// Whether more has to come first.
    fn step(&mut self, target: &mut Target, step: Step, bytes: &mut &[u8]) -> bool {
        match step {
            Step::More => {}
            Step::Begin { task, work } => {
                check(&work);
                self.heard.begun.push(work.clone());
                let is_write = matches!(work, Work::Write { .. });
                assert!(self.under_way.iter().all(|(it, _)| *it != task), "{task:?} is under way");
                self.under_way.push_back((task, work));
                if is_write {
                    target.ready(self.id, task, &mut self.heard.said);
                }
            }
            Step::Payload { task, bytes: left } => {
                assert!(self.under_way.iter().any(|(it, _)| *it == task), "{task:?} is not under way");
                let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
                *bytes = rest;
                self.heard.payload.extend_from_slice(piece);
                if piece.is_empty() {
                    return true;
                }
                if let Err(why) = target.payload(self.id, piece.len(), &mut self.heard.said) {
                    self.end(target, why.to_string());
                }
            }
            Step::Held { .. } => self.heard.payload.extend_from_slice(target.held(self.id)),
            Step::Drop { task } => self.done(target, task, &Outcome::Dropped),
            Step::Close => self.end(target, "it logged out".into()),
            Step::Manage(_) => panic!("the target deals with it"),
        }
        false
    }

    fn end(&mut self, target: &mut Target, why: String) {
        self.heard.ended = Some(why);
        self.is_over = true;
        target.closed(self.id);
    }

    /// The oldest work is over, or nothing happens.
    fn finish(&mut self, target: &mut Target, how: u8) {
        let outcomes = [
            Outcome::Done,
            Outcome::Differs { at: 7 },
            Outcome::Full,
            Outcome::Moving,
            Outcome::Failed,
            Outcome::Revoked,
            Outcome::NotStored,
        ];
        let Some(outcome) = outcomes.get(usize::from(how) % 9) else { return };
        let Some((task, work)) = self.under_way.front().cloned() else { return };
        if let (Work::Read { bytes, .. }, Outcome::Done, true) = (&work, outcome, target.is_wanted(self.id, task)) {
            self.under_way.pop_front();
            let mut left = *bytes as usize;
            while left > 0 {
                let (head, count) = target.data_in(self.id, task, left);
                assert!(count > 0, "no data goes out");
                self.heard.said.extend_from_slice(&head);
                left -= count;
            }
            return;
        }
        let outcome = match work {
            Work::LbaStatus { .. } if *outcome == Outcome::Done => Outcome::Lba { bytes: 4096, is_mapped: true },
            _ => outcome.clone(),
        };
        self.done(target, task, &outcome);
    }

    fn done(&mut self, target: &mut Target, task: TaskId, outcome: &Outcome) {
        let before = self.under_way.len();
        self.under_way.retain(|(it, _)| *it != task);
        if self.under_way.len() < before {
            target.done(self.id, task, outcome, &mut self.heard.said);
        }
    }
}

/// Nothing beyond the end is done.
pub(crate) fn check(work: &Work) {
    let within = |offset: u64, bytes: u64| {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= DISK_BYTES), "{work:?} beyond the end");
    };
    match work {
        Work::Read { offset, bytes } | Work::Write { offset, bytes, .. } | Work::Verify { offset, bytes, .. } => {
            within(*offset, u64::from(*bytes));
        }
        Work::Zeroes { stretches, .. } => stretches.iter().for_each(|(start, end)| {
            assert!(start <= end, "{work:?}");
            within(*end, 0);
        }),
        Work::Fill { offset, bytes, pattern } => {
            assert!(!pattern.is_empty(), "{work:?}");
            within(*offset, *bytes);
        }
        Work::WriteAndVerify { offset, data } => within(*offset, data.len() as u64),
        Work::Modify { offset, how: iscsi::Modify::CompareAndWrite, data, .. } => {
            within(*offset, data.len() as u64 / 2);
        }
        Work::Modify { offset, how: iscsi::Modify::Or, data, .. } => within(*offset, data.len() as u64),
        Work::Copy { segments } => segments.iter().for_each(|(from, to, bytes)| {
            within(*from, u64::from(*bytes));
            within(*to, u64::from(*bytes));
        }),
        Work::LbaStatus { offset } => within(*offset, 0),
        Work::Flush | Work::Reserve { .. } => {}
    }
}
