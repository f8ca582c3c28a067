use iscsi::{Admission, Chap, Ended, Login, Mutual, Progress, Status};
use md5::{Digest, Md5};

use super::initiator::{ENTROPY, Pdu, TARGET, login};

const NAME: &str = "InitiatorName=iqn.a";

fn chap() -> Admission {
    let mutual = Some(Mutual { name: "target".to_owned(), secret: b"the target's one".to_vec() });
    Admission {
        chap: Some(Chap { name: "host".to_owned(), secret: b"a long secret".to_vec(), mutual }),
        ..Admission::default()
    }
}

fn text(pdu: &Pdu) -> Vec<String> {
    pdu.data
        .split(|byte| *byte == 0)
        .filter(|pair| !pair.is_empty())
        .map(|pair| String::from_utf8(pair.to_vec()).unwrap())
        .collect()
}

/// One request, and its response; whoever is asked for is admitted so.
fn exchange(
    session: &mut Login,
    pdu: &Pdu,
    admission: &Result<Admission, Status>,
) -> Result<(Pdu, Progress), (Vec<Pdu>, Ended)> {
    let mut out = Vec::new();
    let bytes = pdu.bytes();
    let mut rest = &bytes[..];
    loop {
        let received = session.received(rest, &mut out).and_then(|(taken, progress)| {
            rest = &rest[taken..];
            match progress {
                Progress::WhoIs(_) => {
                    session.admit(admission.clone().map_err(|status| (status, "no".to_owned())), &mut out)
                }
                other => Ok(other),
            }
        });
        match received {
            Err(ended) => return Err((Pdu::all(&out), ended)),
            Ok(Progress::More) if !rest.is_empty() => {}
            Ok(progress) => return Ok((Pdu::all(&out).remove(0), progress)),
        }
    }
}

fn status(refused: (Vec<Pdu>, Ended)) -> u32 {
    refused.0[0].at(36) >> 16
}

#[test]
fn who_needs_to_prove_nothing_is_in_with_one_request() {
    let mut session = Login::new(7, ENTROPY);
    let target = format!("TargetName={TARGET}");
    let keys = [
        NAME,
        &target,
        "AuthMethod=None",
        "HeaderDigest=CRC32C,None",
        "MaxBurstLength=65536",
        "X-new=1",
        "ErrorRecoveryLevel=2",
    ];
    let (answer, progress) = exchange(&mut session, &login(0x83, &keys), &Ok(Admission::default())).unwrap();
    assert_eq!((answer.head[1], answer.head[36]), (0x83, 0));
    assert_eq!(&answer.head[14..16], &[0, 7]);
    let expected = [
        "TargetPortalGroupTag=0",
        "AuthMethod=None",
        "HeaderDigest=CRC32C",
        "MaxBurstLength=65536",
        "X-new=NotUnderstood",
        "ErrorRecoveryLevel=0",
        "MaxRecvDataSegmentLength=262144",
    ];
    assert_eq!(text(&answer), expected);
    let Progress::Done(logged_in) = progress else { panic!("{progress:?}") };
    assert!(logged_in.terms.digests.header && !logged_in.terms.digests.data);
    assert_eq!(logged_in.terms.first_burst_bytes, 65_536, "what comes unasked is a burst too");
}

fn answered(secret: &[u8], identifier: u8, challenge: &[u8]) -> String {
    let hash = Md5::new().chain_update([identifier]).chain_update(secret).chain_update(challenge).finalize();
    hash.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Up to the challenge.
fn challenged() -> Login {
    let mut session = Login::new(7, ENTROPY);
    let target = format!("TargetName={TARGET}");
    let (first, _) =
        exchange(&mut session, &login(0x81, &[NAME, &target, "AuthMethod=CHAP,None"]), &Ok(chap())).unwrap();
    assert_eq!((first.head[1], &text(&first)[1..]), (0x00, &["AuthMethod=CHAP".to_owned()][..]));
    let (second, _) = exchange(&mut session, &login(0x00, &["CHAP_A=5"]), &Ok(chap())).unwrap();
    assert_eq!(text(&second)[..2], ["CHAP_A=5", "CHAP_I=3"]);
    session
}

#[test]
fn chap_lets_in_who_knows_the_secret_and_proves_the_target() {
    let mut session = challenged();
    let right = format!("CHAP_R={}", answered(b"a long secret", 3, &[9; 32]));
    let (third, _) =
        exchange(&mut session, &login(0x81, &["CHAP_N=host", &right, "CHAP_I=8", "CHAP_C=0x0102"]), &Ok(chap()))
            .unwrap();
    assert_eq!(third.head[1], 0x81);
    let proof = format!("CHAP_R={}", answered(b"the target's one", 8, &[1, 2]));
    assert_eq!(text(&third), ["CHAP_N=target".to_owned(), proof]);
    let (_, progress) = exchange(&mut session, &login(0x87, &["HeaderDigest=None"]), &Ok(chap())).unwrap();
    assert!(matches!(progress, Progress::Done(_)));
}

#[test]
fn chap_keeps_out_everybody_else() {
    const FAILED: u32 = 0x0201;
    let target = format!("TargetName={TARGET}");
    let wrong = format!("CHAP_R={}", answered(b"another secret", 3, &[9; 32]));
    let right = format!("CHAP_R={}", answered(b"a long secret", 3, &[9; 32]));
    let ours = format!("CHAP_C=0x{}", "09".repeat(32));
    for answers in [
        vec!["CHAP_N=host", wrong.as_str()],
        vec!["CHAP_N=other", right.as_str()],
        vec!["CHAP_N=host"],
        vec!["CHAP_N=host", right.as_str(), "CHAP_I=1", ours.as_str()],
        vec!["CHAP_N=host", right.as_str(), "CHAP_I=1", "CHAP_C=nonsense"],
    ] {
        let refused = exchange(&mut challenged(), &login(0x81, &answers), &Ok(chap())).unwrap_err();
        assert_eq!(status(refused), FAILED, "{answers:?}");
    }
    for (flags, methods) in [(0x81, "AuthMethod=None"), (0x81, "X-nothing=1"), (0x87, "HeaderDigest=None")] {
        let mut session = Login::new(7, ENTROPY);
        let refused = exchange(&mut session, &login(flags, &[NAME, &target, methods]), &Ok(chap())).unwrap_err();
        assert_eq!(status(refused), FAILED, "{methods}");
    }
}

#[test]
fn what_is_wrong_with_a_login_is_told() {
    let target = format!("TargetName={TARGET}");
    let name = format!("InitiatorName={}", "x".repeat(300));
    let cases: [(u8, Vec<&str>, u32); 8] = [
        (0x87, vec![&target], 0x0207),
        (0x87, vec![NAME], 0x0207),
        (0x87, vec![&name, &target], 0x0207),
        (0x87, vec![NAME, &target, "SessionType=Odd"], 0x0209),
        (0x87, vec![NAME, &target, "MaxBurstLength=1"], 0x0200),
        (0x87, vec![NAME, &target, "HeaderDigest=None", "HeaderDigest=None"], 0x0200),
        (0x85, vec![NAME, &target], 0x0200),
        (0x8d, vec![NAME, &target], 0x0200),
    ];
    for (flags, keys, expected) in cases {
        let mut session = Login::new(7, ENTROPY);
        let refused = exchange(&mut session, &login(flags, &keys), &Ok(Admission::default())).unwrap_err();
        assert_eq!(status(refused), expected, "{flags:#x} {keys:?}");
    }
    let mut session = Login::new(7, ENTROPY);
    let refused = exchange(&mut session, &login(0x87, &[NAME, &target]), &Err(Status::NotFound)).unwrap_err();
    assert_eq!(status(refused), 0x0203);
    let mut session = Login::new(7, ENTROPY);
    let mut later = login(0x87, &[NAME, &target]);
    later.head[14..16].copy_from_slice(&[0, 9]);
    assert_eq!(status(exchange(&mut session, &later, &Ok(Admission::default())).unwrap_err()), 0x020a);
}

#[test]
fn a_login_ends_also_if_its_initiator_does_not_want_it_to() {
    let target = format!("TargetName={TARGET}");
    let mut session = Login::new(7, ENTROPY);
    exchange(&mut session, &login(0x04, &[NAME, &target]), &Ok(Admission::default())).unwrap();
    let ended = (0..100).find_map(|_| exchange(&mut session, &login(0x04, &[]), &Ok(Admission::default())).err());
    assert_eq!(ended.unwrap().1, Ended::Endless);
    let mut session = Login::new(7, ENTROPY);
    let long = login(0x44, &[&"x".repeat(8000)]);
    let ended = (0..100).find_map(|_| exchange(&mut session, &long, &Ok(Admission::default())).err());
    assert_eq!(ended.unwrap().1, Ended::Endless);
}
