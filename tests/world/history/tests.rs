//! The checker on histories whose verdict is known, and against one that tries every order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use proptest::prelude::*;

use super::check::check_block;
use super::payload::{self, Damage, Sector};
use super::{Act, History, Kind, Operation, Value, WriteId};

fn id(sequence: u64) -> WriteId {
    WriteId { writer: 1, sequence }
}

fn value(sequence: u64) -> Value {
    if sequence == 0 { Value::Zeroes } else { Value::Write(id(sequence)) }
}

fn write(sequence: u64, invoked_ns: u64, answered_ns: impl Into<Option<u64>>) -> Operation {
    Operation { client: 1, act: Act::Write(value(sequence)), invoked_ns, answered_ns: answered_ns.into() }
}

fn read(sequence: u64, invoked_ns: u64, answered_ns: u64) -> Operation {
    Operation { client: 2, act: Act::Read(Ok(value(sequence))), invoked_ns, answered_ns: Some(answered_ns) }
}

fn kind(operations: &[Operation]) -> Option<Kind> {
    check_block(7, operations).err().map(|violation| violation.kind)
}

#[test]
fn what_one_register_can_do_passes() {
    let histories: &[&[Operation]] = &[
        &[read(0, 0, 1), write(1, 2, 3), read(1, 4, 5)],
        // A read beside a write shows the old value or the new one.
        &[write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6), read(2, 10, 11)],
        // Two writes at once, and all readers agree on the last.
        &[write(1, 0, 10), write(2, 0, 10), read(2, 11, 12), read(2, 13, 14)],
        // The later of two answers may be of the earlier of two effects.
        &[write(1, 0, 10), write(2, 1, 4), read(2, 5, 6), read(1, 11, 12)],
        &[write(1, 0, 1), write(0, 2, 3), read(0, 4, 5)],
    ];
    for history in histories {
        assert_eq!(kind(history), None, "{history:?}");
    }
}

#[test]
fn a_write_of_unknown_outcome_may_never_happen_or_happen_late() {
    assert_eq!(kind(&[write(1, 0, 1), write(2, 2, None), read(1, 3, 4), read(1, 5, 6)]), None);
    assert_eq!(kind(&[write(1, 0, 1), write(2, 2, None), read(1, 3, 4), read(2, 5, 6)]), None);
    assert_eq!(kind(&[write(1, 0, 1), write(2, 2, None), write(3, 4, 5), read(2, 6, 7)]), None);
    // But once shown it stays shown.
    let twice = [write(1, 0, 1), write(2, 2, None), read(2, 3, 4), read(1, 5, 6)];
    assert_eq!(kind(&twice), Some(Kind::LostWrite));
    let unknown_zeroes =
        [write(1, 0, 1), write(0, 2, None), read(1, 3, 4), read(0, 5, 6), write(2, 7, 8), read(2, 9, 9)];
    assert_eq!(kind(&unknown_zeroes), None);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    assert_eq!(kind(&[write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]), Some(Kind::LostWrite));
    assert_eq!(kind(&[write(1, 0, 1), read(0, 4, 5), read(0, 6, 7)]), Some(Kind::LostWrite));
}

#[test]
fn a_stale_read_is_found() {
    let history = [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5), read(2, 6, 7)];
    assert_eq!(kind(&history), Some(Kind::StaleRead));
}

#[test]
fn a_read_that_goes_backwards_is_found_though_the_write_is_still_on_its_way() {
    let history = [write(1, 0, 1), write(2, 2, 20), read(2, 3, 4), read(1, 5, 6), read(2, 21, 22)];
    assert_eq!(kind(&history), Some(Kind::StaleRead));
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_found() {
    assert_eq!(kind(&[write(1, 0, 1), read(9, 2, 3)]), Some(Kind::NeverWritten));
    assert_eq!(kind(&[read(1, 0, 1), write(1, 2, 3)]), Some(Kind::NeverWritten));
    assert_eq!(kind(&[read(1, 0, 1), write(1, 2, None)]), Some(Kind::NeverWritten));
}

#[test]
fn two_readers_that_disagree_on_the_order_of_two_writes_are_found() {
    let history = [write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14), read(1, 15, 16)];
    assert_eq!(kind(&history), Some(Kind::StaleRead));
}

#[test]
fn a_torn_block_is_a_violation_by_itself() {
    let torn = Damage::Torn(vec![Sector::Zeroes, Sector::Of { block: 7, id: id(1) }]);
    let read = Operation { act: Act::Read(Err(torn)), ..read(1, 2, 3) };
    assert_eq!(kind(&[write(1, 0, 1), read]), Some(Kind::Damaged));
}

#[test]
fn more_at_once_than_can_be_judged_is_told_and_not_passed() {
    let mut operations: Vec<_> = (1..=200).map(|sequence| write(sequence, 0, 10)).collect();
    operations.push(read(1, 11, 12));
    assert_eq!(kind(&operations), Some(Kind::Undecided));
}

#[test]
fn a_violation_reads_as_a_story() {
    let history = [
        write(1, 1_000_000, 2_000_000),
        write(2, 3_000_000, None),
        read(2, 4_000_000, 5_500_000),
        read(1, 6_000_000, 7_000_250),
    ];
    let told = check_block(7, &history).expect_err("w1/2 was shown").to_string();
    let expected = "\
block 7: LostWrite; possible there: w1/2
         1.000 ..       2.000 ms  client 1   writes w1/1
         3.000 ..           ? ms  client 1   writes w1/2, outcome unknown
         4.000 ..       5.500 ms  client 2   reads w1/2
>        6.000 ..       7.000 ms  client 2   reads w1/1
";
    let lines = |text: &str| text.lines().map(|line| line.trim_start().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&told), lines(expected));
}

#[test]
fn what_clients_record_is_what_is_judged() {
    let history = History::new(5);
    let mut disk = BTreeMap::new();
    let mut lost = None;
    for block in 0..4 {
        let (writing, mut bytes) = (history.write(1, block), [0; payload::BLOCK]);
        writing.fill(&mut bytes);
        disk.insert(block, bytes);
        writing.acknowledged();
        let unknown = history.write(2, block);
        unknown.fill(&mut bytes);
        lost.get_or_insert(bytes);
        drop(unknown);
    }
    for (block, bytes) in &disk {
        assert!(history.read(3, *block).showed(bytes).is_ok());
    }
    let checked = history.check().expect("nothing is wrong");
    assert_eq!((checked.blocks, checked.operations, checked.unknown_writes), (4, 12, 4));

    assert!(history.read(3, 2).showed(&[0; payload::BLOCK]).is_ok());
    let misplaced = history.read(3, 1).showed(&lost.expect("of block 0"));
    assert!(matches!(misplaced, Err(Damage::Misplaced { block: 0, .. })), "{misplaced:?}");
    let violations = history.check().expect_err("block 2 lost a write, block 1 shows another block");
    let kinds: Vec<_> = violations.0.iter().map(|violation| (violation.block, violation.kind)).collect();
    assert_eq!(kinds, [(1, Kind::Damaged), (2, Kind::LostWrite)]);
    assert_eq!((violations.count(Kind::LostWrite), violations.count(Kind::StaleRead)), (1, 0));
}

#[test]
fn a_payload_names_its_write_and_whatever_was_done_to_it() {
    let (mut old, mut new) = ([0; payload::BLOCK], [0; payload::BLOCK]);
    payload::fill(1, 2, id(3), &mut old);
    payload::fill(1, 2, id(4), &mut new);
    assert_eq!(payload::read(1, 2, &old), Ok(value(3)));
    assert_eq!(payload::read(1, 2, &[0; payload::BLOCK]), Ok(Value::Zeroes));
    assert_eq!(payload::read(1, 9, &old), Err(Damage::Misplaced { block: 2, id: id(3) }));
    assert!(matches!(payload::read(9, 2, &old), Err(Damage::Garbage(_))), "another seed");

    let mut torn = old;
    torn[512..1024].copy_from_slice(&new[512..1024]);
    torn[2048..].fill(0);
    let told = payload::read(1, 2, &torn).expect_err("it is torn").to_string();
    assert_eq!(told, "a torn block: sectors 0-0 w1/3 of block 2, 1-1 w1/4 of block 2, 2-3 w1/3 of block 2, 4-7 zeroes");

    let mut shifted = old;
    shifted.rotate_left(512);
    assert!(matches!(payload::read(1, 2, &shifted), Err(Damage::Garbage(_))), "a sector knows its place");
    for bit in (0..payload::BLOCK * 8).step_by(97) {
        let mut flipped = old;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(payload::read(1, 2, &flipped), Err(Damage::Garbage(_))), "bit {bit}");
    }
}

/// A register that clients ask through a slow line, for as long as it takes.
fn long_history(rng: &mut Rng, operations: usize, clients: u32) -> Vec<Operation> {
    let mut free_at: Vec<u64> = vec![0; clients as usize];
    let mut effects = Vec::new();
    for sequence in 1..=operations as u64 {
        let client = rng.u32(0..clients);
        let free = &mut free_at[client as usize];
        let invoked_ns = *free + rng.u64(0..50);
        let takes_effect_ns = invoked_ns + rng.u64(0..100);
        let answered_ns = takes_effect_ns + rng.u64(0..100);
        *free = answered_ns + 1;
        let (is_write, is_unknown) = (rng.u8(0..10) < 4, rng.u8(0..10) == 0);
        let late_ns = if is_unknown { rng.u64(0..1000) } else { 0 };
        let act = if is_write { Act::Write(value(sequence)) } else { Act::Read(Ok(Value::Zeroes)) };
        let answered_ns = (!(is_write && is_unknown)).then_some(answered_ns);
        effects.push((takes_effect_ns + late_ns, Operation { client, act, invoked_ns, answered_ns }));
    }
    // A read whose effect is put off would show what its answer cannot.
    for (at, operation) in &mut effects {
        *at = operation.answered_ns.map_or(*at, |answered_ns| answered_ns.min(*at));
    }
    effects.sort_by_key(|(at, _)| *at);
    let mut holds = Value::Zeroes;
    for (_, operation) in &mut effects {
        match &mut operation.act {
            Act::Write(value) => holds = *value,
            Act::Read(shown) => *shown = Ok(holds),
        }
    }
    effects.into_iter().map(|(_, operation)| operation).collect()
}

#[test]
fn a_hundred_thousand_operations_on_one_block_are_judged_in_seconds() {
    let mut history = long_history(&mut Rng::with_seed(1), 100_000, 4);
    let began = Instant::now();
    assert_eq!(kind(&history), None);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    // One old read, in the middle of all that.
    let old = history[..40_000].iter().rev().find_map(|operation| match operation.act {
        Act::Write(value) => operation.answered_ns.map(|_| value),
        Act::Read(_) => None,
    });
    let shown = history[60_000..].iter_mut().find_map(|operation| match &mut operation.act {
        Act::Read(shown) => Some(shown),
        Act::Write(_) => None,
    });
    *shown.expect("there are reads") = Ok(old.expect("there are writes"));
    assert_eq!(kind(&history), Some(Kind::StaleRead));
}

/// Every order that time allows, until one fits.
fn some_order_fits(left: &[Operation], holds: Value) -> bool {
    let must_still = |operation: &Operation| operation.answered_ns.is_some();
    if !left.iter().any(must_still) {
        return true;
    }
    let first_answer = left.iter().filter_map(|operation| operation.answered_ns).min().unwrap_or(u64::MAX);
    (0..left.len()).filter(|at| left[*at].invoked_ns <= first_answer).any(|at| {
        let rest: Vec<_> =
            left.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, op)| op.clone()).collect();
        match &left[at].act {
            Act::Write(value) => some_order_fits(&rest, *value),
            Act::Read(shown) => *shown == Ok(holds) && some_order_fits(&rest, holds),
        }
    })
}

/// Up to seven operations, whose reads show anything that was written, or zeroes.
fn tiny_history() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (any::<bool>(), 0_u8..8, 0_u64..4, 0_u64..16, 0_u64..6);
    prop::collection::vec(operation, 1..8).prop_map(|drawn| {
        let numbered = drawn.into_iter().zip(1..);
        numbered
            .map(|((is_write, chance, shown, invoked_ns, takes_ns), sequence)| match (is_write, chance) {
                (true, 0) => write(0, invoked_ns, invoked_ns + takes_ns),
                (true, 1) => write(0, invoked_ns, None),
                (true, 2 | 3) => write(sequence, invoked_ns, None),
                (true, _) => write(sequence, invoked_ns, invoked_ns + takes_ns),
                (false, _) => read(shown, invoked_ns, invoked_ns + takes_ns),
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_trying_every_order(history in tiny_history()) {
        let fits = some_order_fits(&history, Value::Zeroes);
        prop_assert_eq!(kind(&history).is_none(), fits);
    }
}

fn acknowledge(history: &History, block: u64) -> Value {
    let writing = history.write(1, block);
    let value = writing.value;
    writing.acknowledged();
    value
}

#[test]
fn a_power_loss_of_all_may_take_what_no_flush_covered_and_nothing_else() {
    let history = History::new(1);
    let (_, flushed) = (acknowledge(&history, 1), acknowledge(&history, 1));
    let flush = history.flush();
    let meanwhile = acknowledge(&history, 1);
    flush.acknowledged();
    let later = acknowledge(&history, 1);
    drop(history.flush());
    let only_cached = acknowledge(&history, 2);
    let may_hold = history.after_power_loss();
    assert_eq!(may_hold[&1], BTreeSet::from([flushed, meanwhile, later]));
    assert_eq!(may_hold[&2], BTreeSet::from([Value::Zeroes, only_cached]));
}

#[test]
fn a_write_with_fua_replaces_what_was_acknowledged_before_it_began() {
    let history = History::new(1);
    acknowledge(&history, 1);
    let unknown = history.write(1, 1);
    let (unknown_value, forced) = (unknown.value, history.write(2, 1));
    drop(unknown);
    let forced_value = forced.value;
    forced.made_durable();
    assert_eq!(history.after_power_loss()[&1], BTreeSet::from([unknown_value, forced_value]));
}

#[test]
fn what_has_settled_is_where_the_next_history_begins() {
    let history = History::new(1);
    let held = acknowledge(&history, 1);
    drop(history.write(1, 1));
    history.settled(&BTreeMap::from([(1, held), (2, Value::Zeroes)]));
    assert_eq!(history.after_power_loss()[&1], BTreeSet::from([held]));
    let mut bytes = [0; payload::BLOCK];
    let reading = history.read(1, 1);
    assert_eq!(reading.showed(&bytes), Ok(Value::Zeroes));
    assert_eq!(history.check().map_err(|violations| violations.count(Kind::LostWrite)), Err(1));
    history.settled(&BTreeMap::from([(1, held)]));
    let Value::Write(id) = held else { panic!("a write") };
    payload::fill(1, 1, id, &mut bytes);
    assert_eq!(history.read(1, 1).showed(&bytes), Ok(held));
    assert!(history.check().is_ok());
}
