//! What a peer sends: a preamble, then frames, cut anywhere.
//!
//! The first byte says whether the stranger knows magic numbers and checksums (bit 0) and begins with a preamble (bit 1), the next two where
//! the bytes that follow are cut.

use replication::checksum::crc32c;
use replication::codec::RECORD_BYTES;
use replication::wire::{HEAD_BYTES, Head, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, PREAMBLE_BYTES, Preamble, encode};

/// Types of frames whose body begins with a record.
const WITH_RECORD: [u8; 2] = [2, 5];

/// Whatever is understood would be sent with the same bytes, and of a stream that is cut the same is understood up to there.
pub(crate) fn take(bytes: &[u8]) {
    let Some(([mode, cut @ ..], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let mut stream = bytes.to_vec();
    let begins = if mode & 2 == 0 { 0 } else { PREAMBLE_BYTES.min(stream.len()) };
    let (preamble, frames) = stream.split_at_mut(begins);
    if mode & 1 != 0 {
        repair_preamble(preamble);
        repair_frames(frames);
    }
    take_preamble(preamble);
    let whole = understood(frames);
    let cut = usize::from(u16::from_be_bytes(*cut)) % (frames.len() + 1);
    let before: Vec<usize> = whole.into_iter().take_while(|end| *end <= cut).collect();
    assert_eq!(understood(&frames[..cut]), before, "cut at {cut}");
}

fn take_preamble(bytes: &[u8]) {
    let Ok(bytes) = <&[u8; PREAMBLE_BYTES]>::try_from(bytes) else { return };
    if let Ok(preamble) = Preamble::decode(bytes) {
        assert_eq!(preamble.encode(), *bytes, "{preamble:?}");
        // Who accepts and who connects work out the same, or refuse; neither may fail otherwise.
        let _ = preamble.agree(&preamble.answer(replication::wire::VERSIONS, preamble.verdict));
    }
}

/// Where each frame ends that is whole and makes sense, up to the first that does not.
fn understood(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    while let Some(length) = frame(&bytes[at..]) {
        at += length;
        ends.push(at);
    }
    ends
}

fn frame(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let head = Head::decode(head).ok()?;
    assert!(head.body_bytes() <= MAX_BODY_BYTES, "{head:?}");
    let (body, rest) = rest.split_at_checked(head.body_bytes())?;
    let message = head.message(body).ok()?;
    let mut again = Vec::new();
    encode(&head.envelope, &message, head.payload(), &mut again).expect("what was received can be sent");
    assert_eq!(again, &bytes[..HEAD_BYTES + body.len()], "{message:?}");
    let payload = head.payload().map_or(0, |sum| sum.bytes);
    assert!(payload <= MAX_PAYLOAD_BYTES, "{head:?}");
    let payload = rest.get(..payload as usize)?;
    head.check_payload(crc32c(payload)).ok()?;
    Some(HEAD_BYTES + body.len() + payload.len())
}

fn repair_preamble(bytes: &mut [u8]) {
    let Ok(bytes) = <&mut [u8; PREAMBLE_BYTES]>::try_from(bytes) else { return };
    let crc = crc32c(&bytes[..32]);
    bytes[32..].copy_from_slice(&crc.to_be_bytes());
}

fn repair_frames(mut bytes: &mut [u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk_mut::<HEAD_BYTES>() {
        let length = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body_bytes, payload_bytes) = (length(4), length(8));
        head[..2].copy_from_slice(b"Td");
        let Some((body, rest)) = rest.split_at_mut_checked(body_bytes) else { return seal_head(head) };
        repair_body(head[2], body);
        let Some((payload, rest)) = rest.split_at_mut_checked(payload_bytes) else { return seal_head(head) };
        if !payload.is_empty() {
            head[12..16].copy_from_slice(&crc32c(payload).to_be_bytes());
        }
        seal_head(head);
        bytes = rest;
    }
}

fn seal_head(head: &mut [u8; HEAD_BYTES]) {
    let crc = crc32c(&head[..60]);
    head[60..].copy_from_slice(&crc.to_be_bytes());
}

fn repair_body(kind: u8, body: &mut [u8]) {
    if let Some(record) = body.get_mut(..RECORD_BYTES).filter(|_| WITH_RECORD.contains(&kind)) {
        record[4..8].fill(0);
        let crc = crc32c(record);
        record[4..8].copy_from_slice(&crc.to_be_bytes());
    }
    if let Some((body, end)) = body.split_last_chunk_mut::<4>() {
        *end = crc32c(body).to_be_bytes();
    }
}
