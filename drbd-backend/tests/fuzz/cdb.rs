//! Command after command of two initiators, with what they bring: a record is a byte that says whose it is and how it ends, how much data is expected, how
//! much follows, 16 bytes of CDB, and data.

use iscsi::{Outcome, SessionId, Step, Target, TaskId, Work};

use crate::session::{check, logged_in, target, terms};

const CHECK_CONDITION: u8 = 2;

struct Caller {
    id: SessionId,
    cmd_sn: u32,
}

pub(crate) fn take(mut bytes: &[u8]) {
    let mut target = target();
    let mut callers = ["iqn.a", "iqn.b"].map(|name| {
        let logged_in = logged_in(name, terms(0));
        Caller { cmd_sn: logged_in.cmd_sn, id: target.joined(logged_in, false) }
    });
    let mut stored = Vec::new();
    while let Some(([what, expected @ .., length], rest)) = bytes.split_first_chunk::<4>() {
        let Some((cdb, rest)) = rest.split_first_chunk::<16>() else { return };
        let (data, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        bytes = rest;
        let caller = &mut callers[usize::from(what & 1)];
        let expected = u32::from(u16::from_be_bytes(*expected));
        call(&mut target, caller, cdb, expected, data, *what >> 1, &mut stored);
    }
}

fn call(
    target: &mut Target,
    caller: &mut Caller,
    cdb: &[u8; 16],
    expected: u32,
    data: &[u8],
    how: u8,
    stored: &mut Vec<u8>,
) {
    let pdu = pdu(caller.cmd_sn, cdb, expected, data);
    caller.cmd_sn += 1;
    let (mut said, mut rest) = (Vec::new(), &pdu[..]);
    let mut begun = None;
    loop {
        let (taken, step) = target.received(caller.id, rest, &mut said).expect("the PDU is right");
        rest = &rest[taken..];
        match step {
            Step::More if rest.is_empty() => break,
            Step::More => {}
            Step::Begin { task, work } => {
                check(&work);
                assert!(begun.is_none(), "one command is one piece of work");
                begun = Some((task, work));
            }
            Step::Payload { bytes, .. } => {
                let count = rest.len().min(bytes as usize);
                rest = &rest[count..];
                target.payload(caller.id, count, &mut said).expect("it was said how much");
            }
            Step::Held { .. } | Step::Drop { .. } | Step::Close | Step::Manage(_) => panic!("{step:?}"),
        }
    }
    if let Some((task, work)) = begun {
        end(target, caller.id, task, &work, how, stored, &mut said);
    }
    while let Some(event) = target.event() {
        assert!(!matches!(event, iscsi::Event::Close { .. }), "a command ended a session");
    }
    understood(&said, expected);
}

fn pdu(cmd_sn: u32, cdb: &[u8; 16], expected: u32, data: &[u8]) -> Vec<u8> {
    let mut pdu = vec![0; 48];
    let outgoing = u32::try_from(data.len()).expect("at most 255");
    (pdu[0], pdu[1]) = (1, if data.is_empty() { 0x80 | 0x40 } else { 0x80 | 0x20 });
    pdu[4..8].copy_from_slice(&outgoing.to_be_bytes());
    pdu[16..20].copy_from_slice(&cmd_sn.to_be_bytes());
    pdu[20..24].copy_from_slice(&(if data.is_empty() { expected } else { outgoing }).to_be_bytes());
    pdu[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    pdu[32..].copy_from_slice(cdb);
    pdu.extend_from_slice(data);
    pdu.resize(pdu.len().next_multiple_of(4), 0);
    pdu
}

fn end(
    target: &mut Target,
    id: SessionId,
    task: TaskId,
    work: &Work,
    how: u8,
    stored: &mut Vec<u8>,
    said: &mut Vec<u8>,
) {
    let outcome = match (work, how % 4) {
        (Work::LbaStatus { .. }, _) => Outcome::Lba { bytes: 512, is_mapped: how & 4 == 0 },
        (Work::Verify { .. } | Work::Modify { .. }, 3) => Outcome::Differs { at: u64::from(how) },
        (Work::Reserve { next, .. }, 0..=2) => {
            stored.clone_from(next);
            Outcome::Done
        }
        (Work::Reserve { .. }, _) => Outcome::NotStored,
        _ => Outcome::Done,
    };
    if let Work::Read { bytes, .. } = work {
        let mut left = *bytes as usize;
        while left > 0 {
            left -= target.data_in(id, task, left).1;
        }
        return;
    }
    target.done(id, task, &outcome, said);
    // What is stored is what it means to whoever reads it.
    target.reservations_are(stored);
}

/// Whole PDUs, no more data than was expected, sense data where something is wrong.
fn understood(mut said: &[u8], expected: u32) {
    while let Some((head, rest)) = said.split_first_chunk::<48>() {
        let count = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let data = &rest[..count];
        match head[0] {
            0x21 if head[3] == CHECK_CONDITION => assert!(data.len() > 2, "no sense data"),
            0x25 => assert!(count <= expected as usize, "{count} bytes where {expected} were expected"),
            _ => {}
        }
        said = &rest[count.next_multiple_of(4)..];
    }
    assert!(said.is_empty(), "half a PDU");
}
