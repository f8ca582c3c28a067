use iscsi::{Outcome, Target, Work};

use super::initiator::{Initiator, target};

const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const PREEMPT: u8 = 4;
const WRITE_EXCLUSIVE: u8 = 1;
const EXCLUSIVE_REGISTRANTS: u8 = 6;

/// PERSISTENT RESERVE OUT, stored where it changes something: the status.
fn reserve(target: &mut Target, it: &mut Initiator, action: u8, kind: u8, key: u64, new: u64) -> u8 {
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&new.to_be_bytes());
    let mut answers = it.command(target, &[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], 0, &list);
    if answers.is_empty() {
        assert!(matches!(it.begun[0].1, Work::Reserve { .. }));
        answers = it.done(target, &Outcome::Done);
    }
    answers[0].head[3]
}

/// Whether a command is let through; its work is ended.
fn may(target: &mut Target, it: &mut Initiator, cdb: [u8; 10]) -> bool {
    let (expected, data) = if cdb[0] == 0x2a { (0, &[0; 512][..]) } else { (512, &[][..]) };
    let answers = it.command(target, &cdb, expected, data);
    let is_let = answers.is_empty();
    if is_let {
        it.done(target, &Outcome::Failed);
    } else {
        assert_eq!(answers[0].head[3], 0x18);
    }
    is_let
}

#[test]
fn who_holds_a_reservation_shuts_out_the_others() {
    let mut target = target();
    let mut a = Initiator::new(&mut target, "iqn.a");
    let mut b = Initiator::new(&mut target, "iqn.b");
    assert_eq!(reserve(&mut target, &mut a, RESERVE, WRITE_EXCLUSIVE, 5, 0), 0x18, "it is not registered");
    assert_eq!(reserve(&mut target, &mut a, REGISTER, 0, 0, 5), 0);
    assert_eq!(reserve(&mut target, &mut a, RESERVE, WRITE_EXCLUSIVE, 5, 0), 0);
    assert!(may(&mut target, &mut a, WRITE) && may(&mut target, &mut b, READ) && !may(&mut target, &mut b, WRITE));
    assert_eq!(reserve(&mut target, &mut b, REGISTER, 0, 0, 6), 0);
    assert_eq!(reserve(&mut target, &mut b, PREEMPT, EXCLUSIVE_REGISTRANTS, 6, 5), 0);
    let told = a.command(&mut target, &[0; 6], 0, &[]);
    assert_eq!(told[0].sense(), (6, 0x2a05), "its registration was preempted");
    assert!(!may(&mut target, &mut a, WRITE) && !may(&mut target, &mut a, READ) && may(&mut target, &mut b, WRITE));
}

#[test]
fn reservations_survive_their_node() {
    let mut first = target();
    let mut a = Initiator::new(&mut first, "iqn.a");
    reserve(&mut first, &mut a, REGISTER, 0, 0, 5);
    let list = [5_u64.to_be_bytes(), [0; 8], [0; 8]].concat();
    a.command(&mut first, &[0x5f, RESERVE, WRITE_EXCLUSIVE, 0, 0, 0, 0, 0, 24, 0], 0, &list);
    let Work::Reserve { next: stored, .. } = a.begun[0].1.clone() else { panic!("{:?}", a.begun) };
    let mut second = target();
    second.reservations_are(&stored);
    let mut a = Initiator::new(&mut second, "iqn.a");
    let mut b = Initiator::new(&mut second, "iqn.b");
    assert!(may(&mut second, &mut a, WRITE) && !may(&mut second, &mut b, WRITE));
}

#[test]
fn a_reservation_that_could_not_be_stored_is_none() {
    let mut target = target();
    let mut a = Initiator::new(&mut target, "iqn.a");
    let mut list = [0; 24];
    list[8..16].copy_from_slice(&5_u64.to_be_bytes());
    a.command(&mut target, &[0x5f, REGISTER, 0, 0, 0, 0, 0, 0, 24, 0], 0, &list);
    assert_eq!(a.done(&mut target, &Outcome::NotStored)[0].head[3], 0x08);
    let keys = a.command(&mut target, &[0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64, &[]);
    assert_eq!(keys[0].data, [0; 8]);
}
