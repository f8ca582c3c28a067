//! The control document as bytes: in the control areas of a replica's metadata, and as the body of Control.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | version |
//! | 8 | fences |
//! | 4 | number of attachments, then each: |
//! | 4 | - client |
//! | 16 | - id |
//! | 8 | - epoch |
//! | 1 | - 1: read-only, 2: revoked, 4: CHAP follows, 8: CHAP of the target too |
//! | 2 + n | - host: length and UTF-8 |
//! | 2 + n | - initiator: length and UTF-8 |
//! | 2 × (2 + n) | - CHAP, if it follows: name and secret, then those of the target |
//! | 4 + n | reservations: length and bytes |

use super::Reader;
use crate::control::{Attachment, Chap, Control, Secret};

/// The longest document that a replica has room for. A change that makes it longer must be refused before it is begun.
pub const MAX_CONTROL_BYTES: usize = 256 * 1024 - 64;

const ATTACHMENT: usize = 4 + 16 + 8 + 1 + 2 + 2;
const READ_ONLY: u8 = 1;
const REVOKED: u8 = 2;
const CHAP: u8 = 4;
const TARGET: u8 = 8;

/// How long this document is, in bytes. `None`: a name in it has more than 65535 bytes.
#[must_use]
pub fn control_bytes(control: &Control) -> Option<usize> {
    let fits = |text: &str| u16::try_from(text.len()).is_ok();
    let attachments = control.attachments.iter().map(|it| {
        let chap: Vec<&str> = chap_texts(it.chap.as_ref()).collect();
        let names = fits(&it.host) && fits(&it.initiator) && chap.iter().all(|text| fits(text));
        let chap: usize = chap.iter().map(|text| 2 + text.len()).sum();
        names.then(|| ATTACHMENT + it.host.len() + it.initiator.len() + chap)
    });
    attachments.sum::<Option<usize>>().map(|bytes| 8 + 8 + 4 + bytes + 4 + control.reservations.len())
}

/// Appends the document. `None` if it is longer than [`MAX_CONTROL_BYTES`]; then nothing is appended.
pub(crate) fn encode_control(control: &Control, out: &mut Vec<u8>) -> Option<()> {
    let bytes = control_bytes(control).filter(|bytes| *bytes <= MAX_CONTROL_BYTES)?;
    out.reserve(bytes);
    out.extend(control.version.to_be_bytes());
    out.extend(control.fences.to_be_bytes());
    out.extend(length(control.attachments.len()));
    for it in &control.attachments {
        out.extend(it.client.to_be_bytes());
        out.extend(it.id.to_be_bytes());
        out.extend(it.epoch.to_be_bytes());
        let has_target = it.chap.as_ref().is_some_and(|chap| chap.target.is_some());
        let flags = [(it.read_only, READ_ONLY), (it.revoked, REVOKED), (it.chap.is_some(), CHAP), (has_target, TARGET)];
        out.push(flags.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag));
        encode_name(&it.host, out);
        encode_name(&it.initiator, out);
        chap_texts(it.chap.as_ref()).for_each(|text| encode_name(text, out));
    }
    out.extend(length(control.reservations.len()));
    out.extend_from_slice(&control.reservations);
    Some(())
}

/// Names and secrets, in their order.
fn chap_texts(chap: Option<&Chap>) -> impl Iterator<Item = &str> {
    let target = chap.and_then(|chap| chap.target.as_ref());
    let ours = chap.map(|chap| [chap.user.as_str(), chap.secret.0.as_str()]);
    let theirs = target.map(|(name, secret)| [name.as_str(), secret.0.as_str()]);
    ours.into_iter().chain(theirs).flatten()
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("the whole document has less than 256 KiB").to_be_bytes()
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    out.extend(u16::try_from(name.len()).expect("the length of the document was looked at").to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

pub(crate) fn decode_control(bytes: &[u8]) -> Option<Control> {
    if bytes.len() > MAX_CONTROL_BYTES {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let (version, fences) = (reader.u64()?, reader.u64()?);
    let count = reader.count(ATTACHMENT)?;
    let attachments = (0..count).map(|_| decode_attachment(&mut reader)).collect::<Option<Vec<_>>>()?;
    let reservations = reader.count(1)?;
    let reservations = reader.bytes(reservations)?.to_vec();
    reader.end()?;
    Some(Control { version, fences, attachments, reservations })
}

fn decode_attachment(reader: &mut Reader<'_>) -> Option<Attachment> {
    let (client, id, epoch) = (reader.u32()?, reader.u128()?, reader.u64()?);
    let flags = reader.flags(READ_ONLY | REVOKED | CHAP | TARGET)?;
    let (host, initiator) = (decode_name(reader)?, decode_name(reader)?);
    let chap = decode_chap(flags, reader)?;
    let (read_only, revoked) = (flags & READ_ONLY != 0, flags & REVOKED != 0);
    Some(Attachment { client, id, host, initiator, read_only, chap, epoch, revoked })
}

/// `None` where it is malformed; what is inside is `None` where there is none.
fn decode_chap(flags: u8, reader: &mut Reader<'_>) -> Option<Option<Chap>> {
    let mut pair = || Some((decode_name(reader)?, Secret(decode_name(reader)?)));
    match (flags & CHAP != 0, flags & TARGET != 0) {
        (false, true) => None,
        (false, false) => Some(None),
        (true, has_target) => {
            let (user, secret) = pair()?;
            let target = if has_target { Some(pair()?) } else { None };
            Some(Some(Chap { user, secret, target }))
        }
    }
}

fn decode_name(reader: &mut Reader<'_>) -> Option<String> {
    let length = usize::from(reader.u16()?);
    str::from_utf8(reader.bytes(length)?).ok().map(str::to_owned)
}
