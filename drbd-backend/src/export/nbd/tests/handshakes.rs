//! Handshakes, byte for byte.

use std::cell::Cell;
use std::fmt::Write as _;

use super::super::{Export, Exports, GREETING, Handshake, Progress, Wants};
use super::{Connection, DISK_BYTES, Ended, Heard, Refusal, Tls, heard, wire};

/// Fixed newstyle, no zeroes.
const FLAGS: &str = "00000003";
const STRUCTURED: &str = "'IHAVEOPT' 00000008 00000000";
const START_TLS: &str = "'IHAVEOPT' 00000005 00000000";
const GO_DISK: &str = "'IHAVEOPT' 00000007 0000000a 00000004 'disk' 0000";
const SET_ALLOCATION: &str = "'IHAVEOPT' 0000000a 0000001f 00000004 'disk' 00000001 0000000f 'base:allocation'";

/// The magic of an option's reply.
const R: &str = "0003e889045565a9";

fn said(client: &str) -> Vec<u8> {
    heard(Tls::None, &format!("{FLAGS} {client}")).said
}

/// The types of the replies, without their data.
fn kinds(mut said: &[u8]) -> Vec<u32> {
    let mut kinds = Vec::new();
    while let Some((head, rest)) = said.split_at_checked(20) {
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(head[..8], wire(R), "a reply begins with its magic");
        kinds.push(number(12));
        said = &rest[number(16) as usize..];
    }
    kinds
}

const ACK: u32 = 1;
const META_CONTEXT: u32 = 4;
const UNSUP: u32 = 0x8000_0001;
const POLICY: u32 = 0x8000_0002;
const INVALID: u32 = 0x8000_0003;
const TLS_REQD: u32 = 0x8000_0005;
const UNKNOWN: u32 = 0x8000_0006;
const SHUTDOWN: u32 = 0x8000_0007;
const TOO_BIG: u32 = 0x8000_0009;

#[test]
fn the_greeting_offers_fixed_newstyle_without_zeroes() {
    assert_eq!(GREETING[..], wire("'NBDMAGIC' 'IHAVEOPT' 0003"));
}

#[test]
fn go_tells_size_flags_and_block_sizes() {
    let heard = heard(Tls::None, &format!("{FLAGS} {STRUCTURED} {GO_DISK}"));
    let expected = format!(
        "{R} 00000008 00000001 00000000 \
         {R} 00000007 00000003 0000000c 0000 0000000000100000 0ded \
         {R} 00000007 00000003 0000000e 0003 00000001 00001000 02000000 \
         {R} 00000007 00000001 00000000"
    );
    assert_eq!(heard.said, wire(&expected));
    let name = "disk".to_owned();
    let export = Export { name, description: "a disk".into(), size_bytes: DISK_BYTES, is_read_only: false };
    assert_eq!(heard.opened, Some(export));
}

#[test]
fn a_read_only_export_offers_nothing_that_writes() {
    let said = said("'IHAVEOPT' 00000007 0000000b 00000005 'glass' 0000");
    assert_eq!(said[20..32], wire("0000 0000000000100000 050f"));
}

#[test]
fn info_tells_what_was_asked_for_and_opens_nothing() {
    let heard = heard(Tls::None, &format!("{FLAGS} 'IHAVEOPT' 00000006 0000000c 00000000 0003 0001 0002 00ff"));
    let expected = format!(
        "{R} 00000006 00000003 0000000c 0000 0000000000100000 0d6d \
         {R} 00000006 00000003 00000006 0001 'disk' \
         {R} 00000006 00000003 00000008 0002 'a disk' \
         {R} 00000006 00000003 0000000e 0003 00000001 00001000 02000000 \
         {R} 00000006 00000001 00000000"
    );
    assert_eq!(heard, Heard { said: wire(&expected), ..Heard::default() });
}

#[test]
fn export_name_is_answered_without_a_head_and_with_zeroes_unless_they_are_waived() {
    let export_name = "'IHAVEOPT' 00000001 00000004 'disk'";
    let waived = heard(Tls::None, &format!("00000003 {export_name}"));
    assert_eq!(waived.said, wire("0000000000100000 0d6d"));
    for flags in ["00000000", "00000001"] {
        let padded = heard(Tls::None, &format!("{flags} {export_name}"));
        assert_eq!(padded.said, wire("0000000000100000 0d6d 00*124"));
        assert!(padded.opened.is_some());
    }
}

#[test]
fn a_client_is_told_why_it_does_not_get_an_export_and_may_ask_for_another() {
    let heard = heard(Tls::None, &format!("{FLAGS} 'IHAVEOPT' 00000007 0000000b 00000005 'moved' 0000 {GO_DISK}"));
    let text = "'disk is Secondary on n1; its Primary is n2'";
    assert_eq!(heard.said[..62], wire(&format!("{R} 00000007 80000002 0000002a {text}")));
    assert!(heard.opened.is_some());
    for (option, name, kind) in [(6, "ending", SHUTDOWN), (7, "nobody", UNKNOWN)] {
        assert_eq!(kinds(&said(&format!("'IHAVEOPT' {option:08x} 0000000c 00000006 '{name}' 0000"))), [kind]);
    }
    for option in ["00000009", "0000000a"] {
        let said = said(&format!("{STRUCTURED} 'IHAVEOPT' {option} 0000000e 00000006 'nobody' 00000000"));
        assert_eq!(kinds(&said), [ACK, UNKNOWN]);
    }
}

#[test]
fn export_name_of_what_is_not_to_be_had_ends_the_connection() {
    let ended = |name: &str| heard(Tls::None, &format!("{FLAGS} 'IHAVEOPT' 00000001 {name}")).ended;
    let source = Refusal::Policy("disk is Secondary on n1; its Primary is n2".into());
    assert_eq!(ended("00000005 'moved'"), Some(Ended::Refused { name: "moved".into(), source }));
    assert_eq!(ended("00000002 c3 28"), Some(Ended::Name("the export's name is not UTF-8")));
    assert_eq!(ended("00001001 41*4097"), Some(Ended::Name("the export's name is longer than 4096 bytes")));
    assert_eq!(ended("00002001 41*8193"), Some(Ended::Name("it is longer than 4096 bytes")));
}

/// Has "disk" only after it was looked for so many times.
struct Soon(Cell<u32>);

impl Exports for Soon {
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        match self.0.get() {
            0 => super::Shelf.find(name),
            left => {
                self.0.set(left - 1);
                Err(Refusal::NotYet)
            }
        }
    }

    fn each(&self, _show: &mut dyn FnMut(&str, &str)) {}
}

#[test]
fn a_client_waits_for_what_may_be_there_soon() {
    let go = GO_DISK.to_owned();
    let by_default = "'IHAVEOPT' 00000007 00000006 00000000 0000".to_owned();
    let by_name = "'IHAVEOPT' 00000001 00000004 'disk'".to_owned();
    let by_no_name = "'IHAVEOPT' 00000001 00000000".to_owned();
    for option in [go, by_default, by_name, by_no_name] {
        let (exports, mut handshake, mut out) = (Soon(Cell::new(3)), Handshake::new(Tls::None), Vec::new());
        let (taken, _) = handshake.received(&wire(FLAGS), &exports, &mut out).expect("they are flags");
        assert_eq!(taken, 4);
        let bytes = wire(&format!("{option} 25609513"));
        let length = bytes.len() - 4;
        let mut at = 0;
        let mut step = |bytes: &[u8]| {
            let (taken, progress) = handshake.received(bytes, &exports, &mut out).expect("it is an option");
            at += taken;
            (at, progress, handshake.wants(), out.len())
        };
        if length > 16 {
            assert!(matches!(step(&bytes), (16, Progress::More, _, 0)));
        }
        assert!(
            matches!(step(&bytes[if length > 16 { 16 } else { 0 }..]), (at, Progress::Waiting, 0, 0) if at == length)
        );
        assert!(matches!(step(&bytes[length..]), (at, Progress::Waiting, 0, 0) if at == length));
        assert!(matches!(step(&[]), (at, Progress::Waiting, 0, 0) if at == length));
        let (_, progress, _, said) = step(&bytes[length..]);
        let Progress::Opened(opened) = progress else { panic!("{option}: {progress:?}") };
        assert_eq!((opened.export.name.as_str(), said > 0), ("disk", true));
    }
}

#[test]
fn a_list_has_names_and_descriptions() {
    let expected = format!(
        "{R} 00000003 00000002 0000000e 00000004 'disk' 'a disk' \
         {R} 00000003 00000002 00000009 00000005 'glass' \
         {R} 00000003 00000001 00000000"
    );
    assert_eq!(said("'IHAVEOPT' 00000003 00000000"), wire(&expected));
}

#[test]
fn an_abort_is_acknowledged_whatever_comes_with_it_and_after_it() {
    for data in ["00000000", "00000003 'bye'", "00002001 20*8193", "00000000 'and more'"] {
        let heard = heard(Tls::None, &format!("{FLAGS} 'IHAVEOPT' 00000002 {data}"));
        let said = wire(&format!("{R} 00000002 00000001 00000000"));
        assert_eq!(heard, Heard { said, is_aborted: true, ..Heard::default() }, "{data}");
    }
}

#[test]
fn block_status_needs_the_context_selected_for_the_export_that_is_opened() {
    let selected = |options: &str| {
        let mut connection = Connection::new(Tls::None);
        connection.feed(&wire(&format!("{FLAGS} {options}")));
        let session = connection.session.expect("an export was opened");
        assert_eq!(session.wants(), Wants::Request(28));
        session.terms().block_status
    };
    let cleared = "'IHAVEOPT' 0000000a 0000000c 00000004 'disk' 00000000";
    let failed = "'IHAVEOPT' 0000000a 00000001 00";
    let too_long = "'IHAVEOPT' 0000000a 00002001 00*8193";
    let wildcard = "'IHAVEOPT' 0000000a 00000015 00000004 'disk' 00000001 00000005 'base:'";
    let by_another_name = "'IHAVEOPT' 00000007 00000006 00000000 0000";
    assert!(selected(&format!("{STRUCTURED} {SET_ALLOCATION} {GO_DISK}")));
    assert!(selected(&format!("{STRUCTURED} {SET_ALLOCATION} 'IHAVEOPT' 00000001 00000004 'disk'")));
    assert!(!selected(GO_DISK));
    for between in [cleared, failed, too_long, wildcard] {
        assert!(!selected(&format!("{STRUCTURED} {SET_ALLOCATION} {between} {GO_DISK}")), "{between}");
    }
    assert!(!selected(&format!("{STRUCTURED} {SET_ALLOCATION} {by_another_name}")));
    assert!(!selected(&format!("{SET_ALLOCATION} {STRUCTURED} {GO_DISK}")));
}

#[test]
fn contexts_are_selected_by_their_whole_name_and_numbered() {
    let said = said(&format!("{STRUCTURED} {SET_ALLOCATION}"));
    let expected = format!("{R} 0000000a 00000004 00000013 00000001 'base:allocation' {R} 0000000a 00000001 00000000");
    assert_eq!(said[20..], wire(&expected));
    assert_eq!(kinds(&self::said(SET_ALLOCATION)), [INVALID], "without structured replies");
}

#[test]
fn contexts_are_listed_by_wildcards_and_strange_ones_are_ignored() {
    let listed = |queries: &[&str]| {
        let mut data = format!("00000004 'disk' {:08x}", queries.len());
        for query in queries {
            write!(data, " {:08x} '{query}'", query.len()).expect("a string takes it");
        }
        said(&format!("'IHAVEOPT' 00000009 {:08x} {data}", wire(&data).len()))
    };
    let context = format!("{R} 00000009 00000004 00000013 00000000 'base:allocation'");
    assert_eq!(listed(&[]), wire(&format!("{context} {R} 00000009 00000001 00000000")));
    assert_eq!(kinds(&listed(&["base:"])), [META_CONTEXT, ACK]);
    assert_eq!(kinds(&listed(&["qemu:dirty-bitmap:x", "base:allocation"])), [META_CONTEXT, ACK]);
    assert_eq!(kinds(&listed(&["base:allocation", "base:other"])), [META_CONTEXT, ACK]);
    assert_eq!(kinds(&listed(&["qemu:", "base:other", "no colon"])), [ACK]);
}

#[test]
fn an_option_that_is_not_known_is_refused_and_the_next_one_understood() {
    assert_eq!(
        kinds(&said(&format!("'IHAVEOPT' 0000000b 00000000 'IHAVEOPT' 00000004 00000003 'abc' {STRUCTURED}"))),
        [UNSUP, UNSUP, ACK]
    );
}

#[test]
fn data_that_is_not_what_it_should_be_is_invalid() {
    let cases = [
        "00000003 00000001 00",                                       // LIST with data
        "00000008 00000001 00",                                       // STRUCTURED_REPLY with data
        "00000006 00000000",                                          // INFO without data
        "00000006 00000003 000000",                                   // cut in the length of the name
        "00000006 00000008 00000005 'disk'",                          // cut in the name
        "00000006 0000000a 00000004 'disk' 0001",                     // cut in the list
        "00000006 0000000b 00000004 'disk' 0000 00",                  // more than it says
        "00000006 00000008 00000002 c328 0000",                       // not UTF-8
        "00000006 00000008 00000002 'a' 00 0000",                     // NUL
        "00000006 00001007 00001001 41*4097 0000",                    // too long for a name
        "00000006 00000006 ffffffff 0000",                            // a length beyond all
        "00000009 0000000c 00000004 'disk' ffffffff",                 // four thousand million queries
        "00000009 00000014 00000004 'disk' 00000001 00000005 'base'", // cut in a query
        "00000009 00000011 00000004 'disk' 00000001 00000000 00",     // more than it says
    ];
    for case in cases {
        assert_eq!(kinds(&said(&format!("'IHAVEOPT' {case} {STRUCTURED}"))), [INVALID, ACK], "{case}");
    }
}

#[test]
fn data_longer_than_any_option_needs_is_passed_over_up_to_a_point() {
    let long = |option: &str| kinds(&said(&format!("'IHAVEOPT' {option} 00002001 00*8193 {STRUCTURED}")));
    for option in ["00000003", "00000005", "00000006", "00000007", "00000008", "00000009", "0000000a"] {
        assert_eq!(long(option), [TOO_BIG, ACK], "{option}");
    }
    assert_eq!(long("00000063"), [UNSUP, ACK]);
    let ended = heard(Tls::None, &format!("{FLAGS} 'IHAVEOPT' 00000007 00100001")).ended;
    assert_eq!(ended, Some(Ended::OptionTooLong { option: 7, length: 0x10_0001 }));
}

#[test]
fn where_there_is_no_tls_it_is_refused_and_never_required() {
    let said = said(&format!("{START_TLS} {GO_DISK}"));
    let text = "'this server is set up without TLS'";
    assert_eq!(said[..53], wire(&format!("{R} 00000005 80000002 00000021 {text}")));
    assert_eq!(kinds(&said)[1..], [3, 3, ACK]);
    assert_eq!(kinds(&said)[0], POLICY);
}

#[test]
fn where_tls_is_required_nothing_else_is_said_before_it() {
    let options = "'IHAVEOPT' 00000003 00000000 'IHAVEOPT' 0000000b 00000000 'IHAVEOPT' 00000003 00002001 00*8193";
    let before =
        heard(Tls::Required, &format!("{FLAGS} {options} {STRUCTURED} {GO_DISK} 'IHAVEOPT' 00000002 00000000"));
    assert_eq!(kinds(&before.said), [TLS_REQD, TLS_REQD, TLS_REQD, TLS_REQD, TLS_REQD, ACK]);
    assert!(before.is_aborted && before.opened.is_none());
    let by_name = heard(Tls::Required, &format!("{FLAGS} 'IHAVEOPT' 00000001 00000004 'disk'"));
    assert_eq!((by_name.ended, by_name.said.len()), (Some(Ended::WithoutTls), 0));
}

#[test]
fn tls_forgets_what_was_agreed_on_before_it() {
    for (tls, options) in [(Tls::Allowed, ""), (Tls::Allowed, STRUCTURED), (Tls::Required, STRUCTURED)] {
        let mut connection = Connection::new(tls);
        connection.has_tls = true;
        connection.feed(&wire(&format!("{FLAGS} {STRUCTURED} {SET_ALLOCATION}")));
        connection.heard.said.clear();
        connection.feed(&wire(START_TLS));
        assert_eq!(connection.heard.said, wire(&format!("{R} 00000005 00000001 00000000")));
        connection.feed(&wire(START_TLS));
        assert_eq!(kinds(&connection.heard.said), [ACK, INVALID], "there is TLS already");
        connection.feed(&wire(&format!("{options} {GO_DISK}")));
        let terms = *connection.session.expect("an export was opened").terms();
        assert_eq!((terms.structured, terms.block_status), (!options.is_empty(), false));
    }
}

#[test]
fn what_was_sent_before_tls_never_counts_as_sent_through_it() {
    let whole = heard(Tls::Allowed, &format!("{FLAGS} {START_TLS} {GO_DISK}"));
    assert_eq!((whole.ended, whole.opened), (Some(Ended::EarlyBytes), None));
    let mut hasty = Connection::new(Tls::Allowed);
    hasty.has_tls = true;
    hasty.feed(&wire(&format!("{FLAGS} {START_TLS} {GO_DISK}")));
    assert_eq!((hasty.heard.ended, hasty.heard.opened), (Some(Ended::EarlyBytes), None));
    let mut split = Connection::new(Tls::Allowed);
    split.feed(&wire(&format!("{FLAGS} {START_TLS}")));
    assert_eq!((split.handshake.wants(), &split.heard.ended), (0, &None));
    split.feed(&wire(GO_DISK));
    assert_eq!(split.heard.ended, Some(Ended::EarlyBytes));
}

#[test]
fn start_tls_with_data_is_refused() {
    let heard = heard(Tls::Allowed, &format!("{FLAGS} 'IHAVEOPT' 00000005 00000001 00 {GO_DISK}"));
    assert_eq!(kinds(&heard.said), [INVALID, 3, 3, ACK]);
}

#[test]
fn strangers_are_sent_away_and_the_log_says_why() {
    let ended = |said: &str| heard(Tls::Allowed, said).ended.expect("the connection ended").to_string();
    assert_eq!(
        ended("'GET / HTTP/1.1'"),
        "the client's handshake flags are 0x47455420: not a client of the newstyle NBD protocol, or a newer one"
    );
    assert_eq!(
        ended(&format!("{FLAGS} 'IWANTOPT' 00000007 00000000")),
        "an option begins with 0x4957414e544f5054 instead of IHAVEOPT: the client is out of step, or no NBD client"
    );
    assert_eq!(ended(&format!("00000000 {GO_DISK}")), "option 7 from a client that does not speak fixed newstyle");
    assert_eq!(ended(&format!("{FLAGS} {}", STRUCTURED.repeat(1025))), "more than 1024 options, and no export chosen");
    assert_eq!(
        ended(&format!("{FLAGS} {GO_DISK} 25609513 0000 0000 00*20 25609514 0000 0000 00*20")),
        "a request begins with 0x25609514 instead of NBD_REQUEST_MAGIC: the client is out of step, or no NBD client"
    );
}
