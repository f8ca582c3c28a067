//! That the benchmark notices wrong data: a measurement of a store that loses writes would be worth nothing.

#[expect(dead_code, reason = "the benchmark itself uses all of it")]
mod payload;

use payload::{BLOCK, Ledger};

const SIZE: u64 = 8 * BLOCK as u64;

/// A ledger whose block 2 was written so many times, and what lies there afterwards.
fn written(times: usize) -> (Ledger, Vec<u8>) {
    let (ledger, mut data) = (Ledger::new(SIZE), vec![7; BLOCK]);
    for _ in 0..times {
        ledger.stamp(2, &mut data);
        ledger.written(2, 1);
    }
    (ledger, data)
}

#[test]
fn what_was_acknowledged_is_taken_and_so_is_a_write_under_way() {
    let (ledger, mut data) = written(3);
    ledger.check(2, 3, &data).unwrap();
    ledger.stamp(2, &mut data);
    ledger.check(2, 3, &data).unwrap();
}

#[test]
fn an_older_write_is_not_taken_for_the_last_one() {
    let (_, old) = written(2);
    let (ledger, _) = written(3);
    let error = ledger.check(2, ledger.acknowledged(2), &old).unwrap_err();
    assert!(error.to_string().contains("a write is lost"), "{error}");
}

#[test]
fn a_write_of_the_time_after_the_read_began_may_be_read() {
    let (_, old) = written(2);
    let (ledger, _) = written(3);
    ledger.check(2, 2, &old).unwrap();
}

#[test]
fn another_blocks_data_and_zeroes_are_not_taken() {
    let (ledger, data) = written(1);
    ledger.written(3, 1);
    assert!(ledger.check(3, 1, &data).is_err());
    assert!(ledger.check(2, 1, &[0; BLOCK]).is_err());
}

#[test]
fn a_torn_block_is_not_taken() {
    let (ledger, older) = written(2);
    let (_, mut torn) = written(3);
    ledger.written(2, 1);
    for boundary in (512..BLOCK).step_by(512) {
        let mut newer = torn.clone();
        newer[boundary..].copy_from_slice(&older[boundary..]);
        assert!(ledger.check(2, 2, &newer).is_err(), "torn at {boundary}");
    }
    torn[1000] ^= 1;
    assert!(ledger.check(2, 3, &torn).is_err(), "one bit");
}
