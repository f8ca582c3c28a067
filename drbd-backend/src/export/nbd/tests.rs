//! What every test here needs: some exports, bytes that can be read aloud, and a client that sends them.

mod handshakes;
mod replies;
mod requests;
mod strangers;

use super::{Ended, Export, Exports, Handshake, Opened, Progress, Refusal, Reply, Request, Session, Step, Tls};

const DISK_BYTES: u64 = 0x10_0000;

/// "disk", also by the empty name; "glass", read-only; and some that are not to be had.
#[derive(Debug)]
struct Shelf;

impl Exports for Shelf {
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        let export = |name: &str, description: &str, is_read_only| {
            Ok(Export { name: name.into(), description: description.into(), size_bytes: DISK_BYTES, is_read_only })
        };
        match name {
            "" | "disk" => export("disk", "a disk", false),
            "glass" => export("glass", "", true),
            "moved" => Err(Refusal::Policy("disk is Secondary on n1; its Primary is n2".into())),
            "ending" => Err(Refusal::ShuttingDown("n1 is stopping".into())),
            _ => Err(Refusal::Unknown("no such volume".into())),
        }
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        show("disk", "a disk");
        show("glass", "");
    }
}

/// Bytes as a reader says them: hexadecimal in groups of whole bytes, text in single quotes, `00*124` for so many of one.
fn wire(said: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in said.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        for word in part.split_whitespace() {
            let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
            let group =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"));
            bytes.extend(group.collect::<Vec<_>>().repeat(times.parse().expect("a number")));
        }
    }
    bytes
}

/// What came of bytes that a client sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// What the server's handshake said.
    said: Vec<u8>,
    opened: Option<Export>,
    is_aborted: bool,
    /// In the order of their arrival, writes with their payload.
    requests: Vec<(Request, Vec<u8>)>,
    answers: Vec<Reply>,
    ended: Option<Ended>,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    handshake: Handshake,
    session: Option<Session>,
    heard: Heard,
    /// Of the write that comes in.
    writing: Option<(Request, Vec<u8>)>,
    /// TLS stands as soon as it is asked for.
    has_tls: bool,
}

impl Connection {
    fn new(tls: Tls) -> Self {
        Self { handshake: Handshake::new(tls), session: None, heard: Heard::default(), writing: None, has_tls: false }
    }

    /// Goes through all of it, as a caller does that received it in one piece.
    fn feed(&mut self, mut bytes: &[u8]) {
        while self.heard.ended.is_none() {
            let taken = match &mut self.session {
                None => self.shake_hands(bytes),
                Some(_) => self.serve(bytes),
            };
            match taken {
                Ok(taken) => bytes = &bytes[taken..],
                Err(ended) => self.heard.ended = Some(ended),
            }
            if bytes.is_empty() {
                return;
            }
        }
    }

    fn shake_hands(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let (taken, progress) = self.handshake.received(bytes, &Shelf, &mut self.heard.said)?;
        match progress {
            Progress::More => {}
            Progress::StartTls if self.has_tls => self.handshake.secured(),
            Progress::StartTls => {}
            Progress::Opened(opened) => {
                let Opened { export, session } = *opened;
                self.heard.opened = Some(export);
                self.session = Some(session);
            }
            Progress::Aborted => self.heard.is_aborted = true,
            Progress::Waiting => panic!("nothing on the shelf is to be waited for"),
        }
        Ok(taken)
    }

    fn serve(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let session = self.session.as_mut().expect("it is open");
        let (taken, step) = session.received(bytes)?;
        match step {
            Step::More => {}
            Step::Request(request @ Request::Write { .. }) => self.writing = Some((request, Vec::new())),
            Step::Request(request) => self.heard.requests.push((request, Vec::new())),
            Step::Answer(reply) => self.heard.answers.push(reply),
            Step::Payload(left) => {
                let piece = &bytes[..bytes.len().min(left as usize)];
                let (_, payload) = self.writing.as_mut().expect("a payload has its write");
                payload.extend_from_slice(piece);
                if session.payload_received(u32::try_from(piece.len()).expect("it is at most `left`")) {
                    self.heard.requests.extend(self.writing.take());
                }
                return Ok(piece.len());
            }
        }
        Ok(taken)
    }
}

/// What is heard of a client that sends that, all at once.
fn heard(tls: Tls, said: &str) -> Heard {
    let mut connection = Connection::new(tls);
    connection.feed(&wire(said));
    connection.heard
}
