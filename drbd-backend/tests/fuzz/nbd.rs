//! What a client sends, at once and in pieces.
//!
//! The first byte chooses TLS, the next two say where the bytes that follow are cut.

use super::protocol::{
    Ended, Export, Exports, Handshake, Opened, Progress, Refusal, Reply, Request, Session, Step, Tls,
};

const DISK_BYTES: u64 = 0x10_0000;

/// No option, which has at least 16 bytes, is answered with more.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

#[derive(Debug)]
struct Shelf;

impl Exports for Shelf {
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        let is_read_only = match name {
            "" | "disk" => false,
            "glass" => true,
            "moved" => return Err(Refusal::Policy("its Primary is elsewhere".into())),
            _ => return Err(Refusal::Unknown("no such volume".into())),
        };
        Ok(Export { name: name.into(), description: "a disk".into(), size_bytes: DISK_BYTES, is_read_only })
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        show("disk", "a disk");
        show("glass", "");
    }
}

#[derive(Debug)]
struct Connection {
    handshake: Handshake,
    session: Option<Session>,
    /// Whether TLS stands as soon as it is asked for.
    has_tls: bool,
    heard: Heard,
}

/// What came of it, whichever way the bytes came in.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    said: Vec<u8>,
    opened: Option<Export>,
    requests: Vec<Request>,
    payload: Vec<u8>,
    answers: Vec<Reply>,
    ended: Option<Ended>,
}

/// Whatever the bytes are, it is all one in which pieces they come.
pub(crate) fn take(bytes: &[u8]) {
    let Some(([mode, cut @ ..], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let tls = [Tls::None, Tls::Allowed, Tls::Required][usize::from(*mode) % 3];
    let whole = hear(tls, false, [bytes]);
    let (front, back) = bytes.split_at(usize::from(u16::from_be_bytes(*cut)) % (bytes.len() + 1));
    assert_eq!(whole, hear(tls, false, [front, back]), "in two pieces");
    assert_eq!(whole, hear(tls, false, bytes.chunks(1)), "byte by byte");
    hear(tls, true, bytes.chunks(1));
}

fn hear<'a>(tls: Tls, has_tls: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut connection = Connection { handshake: Handshake::new(tls), session: None, has_tls, heard: Heard::default() };
    let mut sent = 0;
    for piece in pieces {
        sent += piece.len();
        connection.feed(piece);
    }
    let heard = connection.heard;
    assert!(heard.said.len() <= (sent / 16 + 1) * MAX_ANSWER_BYTES, "{} bytes for {sent}", heard.said.len());
    heard
}

impl Connection {
    /// Each step takes at least one byte, so there are never more steps than bytes.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.heard.ended.is_none() {
            let taken = if self.session.is_some() { self.serve(bytes) } else { self.shake_hands(bytes) };
            match taken {
                Ok(taken) => {
                    assert!(taken > 0, "nothing was taken");
                    bytes = &bytes[taken..];
                }
                Err(ended) => self.heard.ended = Some(ended),
            }
        }
    }

    fn shake_hands(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let (taken, progress) = self.handshake.received(bytes, &Shelf, &mut self.heard.said)?;
        match progress {
            Progress::StartTls if self.has_tls => self.handshake.secured(),
            Progress::StartTls | Progress::More | Progress::Aborted => {}
            Progress::Opened(opened) => {
                let Opened { export, session } = *opened;
                self.heard.opened = Some(export);
                self.session = Some(session);
            }
            Progress::Waiting => panic!("nothing on the shelf is to be waited for"),
        }
        Ok(taken)
    }

    fn serve(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let session = self.session.as_mut().expect("it is open");
        let (taken, step) = session.received(bytes)?;
        match step {
            Step::More => {}
            Step::Answer(reply) => self.heard.answers.push(reply),
            Step::Request(request) => {
                check(&request, session.terms().is_read_only);
                self.heard.requests.push(request);
            }
            Step::Payload(left) => {
                let piece = &bytes[..bytes.len().min(left as usize)];
                self.heard.payload.extend_from_slice(piece);
                session.payload_received(u32::try_from(piece.len()).expect("it is at most `left`"));
                return Ok(piece.len());
            }
        }
        Ok(taken)
    }
}

/// Nothing beyond the end is done, and nothing is written to what is read-only.
fn check(request: &Request, is_read_only: bool) {
    let (changes, offset, length) = match *request {
        Request::Write { offset, length, .. }
        | Request::Zeroes { offset, length, .. }
        | Request::Trim { offset, length, .. } => (true, offset, length),
        Request::Read { offset, length, .. }
        | Request::Cache { offset, length, .. }
        | Request::BlockStatus { offset, length, .. } => (false, offset, length),
        Request::Flush { .. } | Request::Disconnect => return,
    };
    assert!(!(changes && is_read_only), "{request:?} on what is read-only");
    assert!(offset.checked_add(u64::from(length)).is_some_and(|end| end <= DISK_BYTES), "{request:?} beyond the end");
}
