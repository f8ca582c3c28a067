//! Bytes of strangers: whatever comes, and in whatever pieces, nothing panics, and nothing is asked for that is not there.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;

use super::super::{Exports, MAXIMUM_BLOCK_BYTES, Request, Terms};
use super::{Connection, DISK_BYTES, Heard, Shelf, Tls};

/// An option with data that often is what it should be.
fn option() -> impl Strategy<Value = Vec<u8>> {
    let name = select(vec!["", "disk", "glass", "moved", "ending", "other"]);
    let context = select(vec!["base:allocation", "base:", "qemu:x", ""]);
    let data = (name, context, vec(any::<u8>(), 0..40), 0..4_u8).prop_map(|(name, context, noise, kind)| {
        let text = |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        match kind {
            0 => Vec::new(),
            1 => [text(name), vec![0, 1, 0, 3]].concat(),
            2 => [text(name), vec![0, 0, 0, 1], text(context)].concat(),
            _ => noise,
        }
    });
    let option = prop_oneof![9 => select(vec![3_u32, 6, 8, 9, 10, 11]), 1 => 0..13_u32];
    (option, data).prop_map(|(option, data)| {
        let length = u32::try_from(data.len()).unwrap();
        [&b"IHAVEOPT"[..], &option.to_be_bytes(), &length.to_be_bytes(), &data].concat()
    })
}

/// The end of a handshake that leads on.
fn opening() -> impl Strategy<Value = Vec<u8>> {
    let structured = b"IHAVEOPT\0\0\0\x08\0\0\0\0".to_vec();
    let set = b"IHAVEOPT\0\0\0\x0a\0\0\0\x1f\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation".to_vec();
    let go_disk = b"IHAVEOPT\0\0\0\x07\0\0\0\x0a\0\0\0\x04disk\0\0".to_vec();
    let go_glass = b"IHAVEOPT\0\0\0\x01\0\0\0\x05glass".to_vec();
    select(vec![
        go_disk.clone(),
        go_glass,
        [structured.clone(), go_disk.clone()].concat(),
        [structured, set, go_disk].concat(),
    ])
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let near = |edge: u64| (edge.saturating_sub(3)..=edge.saturating_add(3)).boxed();
    let edges = prop_oneof![near(0), near(DISK_BYTES), near(u64::MAX), any::<u64>()];
    let offset = prop_oneof![3 => 0..DISK_BYTES, 1 => edges];
    let long = prop_oneof![MAXIMUM_BLOCK_BYTES - 1..MAXIMUM_BLOCK_BYTES + 2, any::<u32>()];
    let length = prop_oneof![5 => 0..100_u32, 5 => 0..9000_u32, 1 => long];
    let flags = prop_oneof![4 => Just(0), 4 => select(vec![1_u16, 2, 4, 8, 16, 3, 5, 18, 64]), 1 => any::<u16>()];
    let command = prop_oneof![20 => select(vec![0_u16, 1, 3, 4, 5, 6, 7]), 1 => 0..9_u16];
    (flags, command, any::<u64>(), offset, length).prop_map(|(flags, command, cookie, offset, length)| {
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes()].concat();
        let range = [cookie.to_be_bytes(), offset.to_be_bytes()].concat();
        let payload = if command == 1 && length < 9000 { vec![b'w'; length as usize] } else { Vec::new() };
        [head, range, length.to_be_bytes().to_vec(), payload].concat()
    })
}

/// Most of a conversation, with some bytes bent.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![16 => Just(3), 3 => 0..4_u32, 1 => any::<u32>()];
    let parts = (flags, vec(option(), 0..4), opening(), vec(request(), 0..20));
    let bent = vec((any::<Index>(), any::<u8>()), 0..3);
    (parts, bent, any::<bool>()).prop_map(|((flags, options, opening, requests), bent, is_bent)| {
        let mut bytes = [&flags.to_be_bytes()[..], &options.concat(), &opening, &requests.concat()].concat();
        for (at, byte) in bent.into_iter().filter(|_| is_bent) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn tls() -> impl Strategy<Value = Tls> {
    select(vec![Tls::None, Tls::Allowed, Tls::Required])
}

fn heard_in_pieces(tls: Tls, bytes: &[u8], cuts: &[Index]) -> Heard {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    let mut connection = Connection::new(tls);
    for cut in cuts.windows(2) {
        connection.feed(&bytes[cut[0]..cut[1]]);
    }
    check(&connection);
    connection.heard
}

/// Every request is one that can be done, and has all of its payload.
fn check(connection: &Connection) {
    let Some(session) = &connection.session else { return assert!(connection.heard.requests.is_empty()) };
    let terms = *session.terms();
    let opened = connection.heard.opened.as_ref().expect("a session has an export");
    assert_eq!(Shelf.find(&opened.name).as_ref(), Ok(opened));
    assert_eq!((terms.size_bytes, terms.is_read_only), (opened.size_bytes, opened.is_read_only));
    for (request, payload) in &connection.heard.requests {
        match *request {
            Request::Read { offset, length, .. } => {
                assert!(length <= MAXIMUM_BLOCK_BYTES);
                check_range(terms, offset, length);
            }
            Request::Write { offset, length, .. } => {
                assert!(length <= MAXIMUM_BLOCK_BYTES && !terms.is_read_only);
                assert_eq!(payload.len(), length as usize);
                check_range(terms, offset, length);
            }
            Request::Zeroes { offset, length, .. } | Request::Trim { offset, length, .. } => {
                assert!(!terms.is_read_only);
                check_range(terms, offset, length);
            }
            Request::BlockStatus { offset, length, .. } => {
                assert!(terms.block_status && terms.structured);
                check_range(terms, offset, length);
            }
            Request::Cache { offset, length, .. } => check_range(terms, offset, length),
            Request::Flush { .. } | Request::Disconnect => {}
        }
    }
}

fn check_range(terms: Terms, offset: u64, length: u32) {
    assert!(length > 0 && offset.checked_add(u64::from(length)).is_some_and(|end| end <= terms.size_bytes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_is_all_one_in_which_pieces_bytes_come(tls in tls(), bytes in conversation(), cuts in vec(any::<Index>(), 0..40)) {
        prop_assert_eq!(heard_in_pieces(tls, &bytes, &[]), heard_in_pieces(tls, &bytes, &cuts));
    }

    #[test]
    fn byte_by_byte_is_as_good_as_at_once(bytes in conversation()) {
        let mut connection = Connection::new(Tls::None);
        for byte in &bytes {
            connection.feed(&[*byte]);
        }
        check(&connection);
        prop_assert_eq!(connection.heard, heard_in_pieces(Tls::None, &bytes, &[]));
    }

    #[test]
    fn noise_opens_nothing(tls in tls(), bytes in vec(any::<u8>(), 0..4000), cuts in vec(any::<Index>(), 0..10)) {
        prop_assert_eq!(heard_in_pieces(tls, &bytes, &cuts).opened, None);
    }
}

#[test]
fn conversations_are_not_all_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut requests, mut answers) = (0, 0);
    for _ in 0..200 {
        let bytes = conversation().new_tree(&mut runner).expect("it can be made").current();
        let heard = heard_in_pieces(Tls::None, &bytes, &[]);
        requests += heard.requests.len();
        answers += heard.answers.len();
    }
    let is_much = requests > 250 && answers > 250;
    assert!(is_much, "{requests} requests and {answers} answers in 200 conversations: the tests above say little");
}
