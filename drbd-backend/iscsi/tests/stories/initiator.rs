//! An initiator of few words, and a target whose volume is never asked: what it begins is recorded, and ended by the test.

use iscsi::{
    Access, Admission, Digests, Entropy, Event, Identity, LoggedIn, Login, Outcome, PortGroup, Progress, SessionId,
    Step, Target, TaskId, Terms, Unit, UnitSettings, Work,
};

pub(crate) const TARGET: &str = "iqn.2026-11.org.tandem:volume-1";
pub(crate) const SIZE: u64 = 1 << 20;
pub(crate) const ENTROPY: Entropy = Entropy { challenge: [9; 32], identifier: 3 };

/// A PDU as it is sent: 48 bytes and data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pdu {
    pub(crate) head: [u8; 48],
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn new(opcode: u8, flags: u8, tag: u32) -> Self {
        let mut head = [0; 48];
        head[0] = opcode;
        head[1] = flags;
        head[16..20].copy_from_slice(&tag.to_be_bytes());
        Self { head, data: Vec::new() }
    }

    pub(crate) fn word(mut self, at: usize, value: u32) -> Self {
        self.head[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.head[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn with(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_vec();
        bytes[5..8].copy_from_slice(&u32::try_from(self.data.len()).unwrap().to_be_bytes()[1..]);
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// All PDUs of a stream, without digests.
    pub(crate) fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut pdus = Vec::new();
        while !bytes.is_empty() {
            let head: [u8; 48] = bytes[..48].try_into().unwrap();
            let count = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            pdus.push(Self { head, data: bytes[48..48 + count].to_vec() });
            bytes = &bytes[48 + count.next_multiple_of(4)..];
        }
        pdus
    }

    /// Sense key and additional code of a response with CHECK CONDITION.
    pub(crate) fn sense(&self) -> (u8, u16) {
        assert_eq!((self.head[0], self.head[3]), (0x21, 0x02), "no CHECK CONDITION: {self:?}");
        (self.data[4] & 0x0f, u16::from_be_bytes([self.data[14], self.data[15]]))
    }

    /// That a command ended well.
    #[track_caller]
    pub(crate) fn is_good(&self) {
        assert_eq!((self.head[0], self.head[3]), (0x21, 0), "{self:?}");
    }
}

/// A login request.
pub(crate) fn login(flags: u8, text: &[&str]) -> Pdu {
    let mut pdu = Pdu::new(0x43, flags, 1).word(24, 10);
    pdu.head[8..14].copy_from_slice(&[0x80, 1, 2, 3, 4, 5]);
    pdu.data = text.iter().flat_map(|pair| pair.bytes().chain([0])).collect();
    pdu
}

pub(crate) fn target() -> Target {
    let identity = Identity { uuid: 1, target: TARGET.to_owned(), revision: "1.0".to_owned() };
    let groups = vec![PortGroup { port: 1, access: Access::Active }, PortGroup { port: 2, access: Access::Standby }];
    let settings = UnitSettings { identity, port: 1, size_bytes: SIZE, has_cache: true, is_thin: true, groups };
    Target::new(Unit::new(settings, &[]))
}

/// What a login of this name leads to.
pub(crate) fn logged_in(name: &str, keys: &[&str]) -> LoggedIn {
    let mut session = Login::new(1, ENTROPY);
    let (initiator, target) = (format!("InitiatorName={name}"), format!("TargetName={TARGET}"));
    let mut text = vec![initiator.as_str(), target.as_str(), "SessionType=Normal"];
    text.extend(keys);
    let mut out = Vec::new();
    let bytes = login(0x87, &text).bytes();
    let mut rest = &bytes[..];
    loop {
        let (taken, progress) = session.received(rest, &mut out).unwrap();
        rest = &rest[taken..];
        match progress {
            Progress::WhoIs(_) => match session.admit(Ok(Admission::default()), &mut out).unwrap() {
                Progress::Done(logged_in) => return *logged_in,
                other => panic!("{other:?}"),
            },
            Progress::More => {}
            Progress::Done(_) => panic!("nobody was asked who it is"),
        }
    }
}

/// One session, and what came of what it sent.
pub(crate) struct Initiator {
    pub(crate) id: SessionId,
    pub(crate) cmd_sn: u32,
    pub(crate) tag: u32,
    pub(crate) begun: Vec<(TaskId, Work)>,
    pub(crate) dropped: Vec<TaskId>,
    pub(crate) payload: Vec<u8>,
    pub(crate) is_closed: bool,
}

impl Initiator {
    /// The attention that every new session begins with is heard.
    pub(crate) fn new(target: &mut Target, name: &str) -> Self {
        let mut it = Self::with(target, logged_in(name, &["InitialR2T=No", "ImmediateData=Yes"]));
        let answers = it.command(target, &[0; 6], 0, &[]);
        assert_eq!(answers[0].sense(), (6, 0x2900));
        it
    }

    pub(crate) fn with(target: &mut Target, logged_in: LoggedIn) -> Self {
        assert_eq!(logged_in.terms.digests, Digests::default());
        let _: Terms = logged_in.terms;
        let cmd_sn = logged_in.cmd_sn;
        let id = target.joined(logged_in, false);
        Self { id, cmd_sn, tag: 100, begun: Vec::new(), dropped: Vec::new(), payload: Vec::new(), is_closed: false }
    }

    /// Everything is received, a few bytes at a time.
    pub(crate) fn send(&mut self, target: &mut Target, pdu: &Pdu) -> Vec<Pdu> {
        self.try_send(target, &pdu.bytes()).unwrap()
    }

    pub(crate) fn try_send(&mut self, target: &mut Target, bytes: &[u8]) -> Result<Vec<Pdu>, iscsi::Broken> {
        let mut out = Vec::new();
        for mut piece in bytes.chunks(37) {
            loop {
                let (taken, step) = target.received(self.id, piece, &mut out)?;
                piece = &piece[taken..];
                match step {
                    Step::More if piece.is_empty() => break,
                    Step::More => {}
                    Step::Begin { task, work } => {
                        let is_write = matches!(work, Work::Write { .. });
                        self.begun.push((task, work));
                        if is_write {
                            target.ready(self.id, task, &mut out);
                        }
                    }
                    Step::Payload { .. } if piece.is_empty() => break,
                    Step::Payload { bytes, .. } => {
                        let count = piece.len().min(bytes as usize);
                        self.payload.extend_from_slice(&piece[..count]);
                        piece = &piece[count..];
                        target.payload(self.id, count, &mut out)?;
                    }
                    Step::Held { .. } => self.payload.extend_from_slice(target.held(self.id)),
                    Step::Drop { task } => self.dropped.push(task),
                    Step::Close => self.is_closed = true,
                    Step::Manage(_) => unreachable!("the target deals with it"),
                }
            }
        }
        Ok(Pdu::all(&out))
    }

    /// A command whose data, if it has any, goes out with it. The lengths are those of the data, or what is `expected` to come.
    pub(crate) fn command(&mut self, target: &mut Target, cdb: &[u8], expected: u32, data: &[u8]) -> Vec<Pdu> {
        let pdu = self.pdu(cdb, expected, data);
        self.send(target, &pdu)
    }

    pub(crate) fn pdu(&mut self, cdb: &[u8], expected: u32, data: &[u8]) -> Pdu {
        let outgoing = u32::try_from(data.len()).unwrap();
        let flags = 0x80 | if outgoing > 0 { 0x20 } else { 0 } | if expected > 0 { 0x40 } else { 0 };
        self.tag += 1;
        let mut pdu = Pdu::new(0x01, flags, self.tag).word(20, expected.max(outgoing)).word(24, self.cmd_sn).with(data);
        self.cmd_sn += 1;
        pdu.head[32..32 + cdb.len()].copy_from_slice(cdb);
        pdu
    }

    /// The oldest work that has begun is done.
    pub(crate) fn done(&mut self, target: &mut Target, outcome: &Outcome) -> Vec<Pdu> {
        let (task, _) = self.begun.remove(0);
        let mut out = Vec::new();
        target.done(self.id, task, outcome, &mut out);
        Pdu::all(&out)
    }
}

pub(crate) fn events(target: &mut Target) -> Vec<Event> {
    std::iter::from_fn(|| target.event()).collect()
}
