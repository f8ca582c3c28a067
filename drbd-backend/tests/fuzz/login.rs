//! What an initiator sends before its session begins, at once and in pieces; and in a discovery session.
//!
//! The first byte chooses what has to be proved, the next two say where the bytes that follow are cut.

use iscsi::{
    Admission, CHALLENGE_BYTES, Chap, Discovery, Entropy, LoggedIn, Login, Mutual, Portal, Progress, Said, Status,
};

/// No PDU, which has at least 48 bytes, is answered with more.
const MAX_ANSWER_BYTES: usize = 32 * 1024;

/// What came of it, whichever way the bytes came in.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    said: Vec<u8>,
    logged_in: Option<LoggedIn>,
    ended: Option<String>,
}

enum Talk {
    Login(Login),
    Discovery(Discovery),
    Over,
}

/// Whatever the bytes are, it is all one in which pieces they come.
pub(crate) fn take(bytes: &[u8]) {
    let Some(([mode, cut @ ..], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let whole = hear(*mode, [bytes]);
    let (front, back) = bytes.split_at(usize::from(u16::from_be_bytes(*cut)) % (bytes.len() + 1));
    assert_eq!(whole, hear(*mode, [front, back]), "in two pieces");
    assert_eq!(whole, hear(*mode, bytes.chunks(1)), "byte by byte");
}

fn hear<'a>(mode: u8, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let entropy = Entropy { challenge: [mode; CHALLENGE_BYTES], identifier: mode };
    let (mut talk, mut heard, mut sent) = (Talk::Login(Login::new(1, entropy)), Heard::default(), 0);
    for mut bytes in pieces {
        sent += bytes.len();
        while !bytes.is_empty() && !matches!(talk, Talk::Over) {
            let taken = feed(&mut talk, bytes, mode, &mut heard);
            assert!(taken > 0 || matches!(talk, Talk::Over), "nothing was taken");
            bytes = &bytes[taken..];
        }
    }
    assert!(heard.said.len() <= (sent / 48 + 1) * MAX_ANSWER_BYTES, "{} bytes for {sent}", heard.said.len());
    heard
}

/// Takes one thing from the front, and says how many bytes that were.
fn feed(talk: &mut Talk, bytes: &[u8], mode: u8, heard: &mut Heard) -> usize {
    match talk {
        Talk::Login(login) => {
            let mut received = login.received(bytes, &mut heard.said);
            if let Ok((taken, Progress::WhoIs(claim))) = &received {
                let (taken, wanted) = (*taken, claim.target.clone());
                received = login.admit(admission(mode, wanted.as_deref()), &mut heard.said).map(|next| (taken, next));
            }
            match received {
                Ok((taken, Progress::Done(logged_in))) => {
                    heard.logged_in = Some((*logged_in).clone());
                    *talk = match logged_in.claim.target {
                        None => Talk::Discovery(Discovery::new(*logged_in)),
                        Some(_) => Talk::Over,
                    };
                    taken
                }
                Ok((taken, _)) => taken,
                Err(why) => end(talk, heard, why.to_string()),
            }
        }
        Talk::Discovery(discovery) => match discovery.received(bytes, &mut heard.said) {
            Ok((taken, Said::Targets(wanted))) => {
                let portals = ["198.18.0.1:3260", "[2001:db8::1]:3260"];
                let portals = portals.map(|address| Portal { address: address.into(), group: 1 }).to_vec();
                let found = [("iqn.2026-11.org.tandem:volume-1".to_owned(), portals)];
                let is_found = wanted.is_none_or(|name| name == found[0].0);
                discovery.found(if is_found { &found } else { &[] }, &mut heard.said);
                taken
            }
            Ok((taken, Said::More)) => taken,
            Ok((_, Said::LoggedOut)) => end(talk, heard, "it logged out".into()),
            Err(why) => end(talk, heard, why.to_string()),
        },
        Talk::Over => 0,
    }
}

fn end(talk: &mut Talk, heard: &mut Heard, why: String) -> usize {
    heard.ended = Some(why);
    *talk = Talk::Over;
    0
}

fn admission(mode: u8, target: Option<&str>) -> Result<Admission, (Status, String)> {
    let mutual = Mutual { name: "target".into(), secret: b"another long secret".to_vec() };
    let chap = |mutual| Chap { name: "user".into(), secret: b"a long secret".to_vec(), mutual };
    let chap = match mode % 4 {
        _ if target.is_none() => None,
        0 => None,
        1 => Some(chap(None)),
        2 => Some(chap(Some(mutual))),
        _ => return Err((Status::NotFound, "no such target".into())),
    };
    Ok(Admission { chap, alias: Some("db-1".into()), portal_group: 1 })
}
