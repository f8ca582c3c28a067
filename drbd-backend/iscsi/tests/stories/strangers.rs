//! Bytes of strangers never end more than their own session.

use iscsi::Login;
use proptest::prelude::*;

use super::initiator::{ENTROPY, Initiator, logged_in, target};

proptest! {
    #[test]
    fn a_login_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut session = Login::new(1, ENTROPY);
        let (mut rest, mut out) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            match session.received(rest, &mut out) {
                Ok((0, _)) | Err(_) => break,
                Ok((taken, _)) => rest = &rest[taken..],
            }
        }
    }

    /// Heads whose opcode, lengths and numbers are often right, so that they come far.
    #[test]
    fn a_session_survives_any_pdus(
        pdus in proptest::collection::vec((0..8_u8, any::<u8>(), any::<[u8; 46]>(), 0..40_u8, any::<bool>()), 1..30),
        ends in proptest::collection::vec(any::<bool>(), 30),
    ) {
        let mut target = target();
        let mut it = Initiator::with(&mut target, logged_in("iqn.a", &["InitialR2T=No"]));
        for ((opcode, flags, rest, bytes, is_near), end) in pdus.into_iter().zip(ends) {
            let mut head = [0; 48];
            (head[0], head[1]) = (opcode | 0x40, flags);
            head[2..].copy_from_slice(&rest);
            (head[4], head[5], head[6], head[7]) = (0, 0, 0, bytes);
            if is_near {
                head[8..16].fill(0);
                head[16..19].fill(0);
                head[20..23].fill(0);
            }
            let mut pdu = head.to_vec();
            pdu.resize(48 + usize::from(bytes).next_multiple_of(4), 0x33);
            if it.try_send(&mut target, &pdu).is_err() || it.is_closed {
                break;
            }
            for task in it.dropped.drain(..).collect::<Vec<_>>() {
                it.begun.retain(|(begun, _)| *begun != task);
                target.done(it.id, task, &iscsi::Outcome::Dropped, &mut Vec::new());
            }
            if end && !it.begun.is_empty() {
                it.done(&mut target, &iscsi::Outcome::Done);
            }
        }
    }
}
