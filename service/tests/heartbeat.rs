//! Promises of heartbeats: what our hosts say is heard, what strangers say is not, and nothing is believed twice.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use proptest::prelude::*;
use tandem_ha::config::{Config, Heartbeat, Network, Secret};
use tandem_ha::watch::heartbeat::guard::Guard;
use tandem_ha::watch::heartbeat::identity::system_uuid;
use tandem_ha::watch::heartbeat::wire::{Key, MOST_BYTES, Packet, Refusal, decode, encode};
use tandem_ha::watch::heartbeat::{Beat, Error, Listener, Sender, run_sender};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const BOOT: Uuid = Uuid::from_u128(0xb001);
const SYSTEM: Uuid = Uuid::from_u128(0x5751);
const NOW_MS: u64 = 1_790_000_000_000;
const LONG: Duration = Duration::from_secs(20);

fn packet() -> Packet<'static> {
    Packet { network: "mgmt", host: "cmp1", boot_id: BOOT, system_uuid: Some(SYSTEM), sequence: 7, sent_at_ms: NOW_MS }
}

fn key() -> Key {
    Key::new(SECRET)
}

// ---- bytes ----

#[test]
fn the_packet_is_as_its_table_says() {
    let bytes = encode(&packet(), &key());
    assert_eq!(bytes.len(), 56 + 4 + 4 + 32);
    assert_eq!(&bytes[..8], b"TdHB\x01\x04\x04\x00");
    assert_eq!(&bytes[8..24], BOOT.as_bytes());
    assert_eq!(&bytes[24..40], SYSTEM.as_bytes());
    assert_eq!(&bytes[40..48], 7u64.to_be_bytes());
    assert_eq!(&bytes[48..56], NOW_MS.to_be_bytes());
    assert_eq!(&bytes[56..64], b"mgmtcmp1");
    let signature = "018a8b86b96c9a01366fca2e04fc6207";
    assert_eq!(bytes[64..80].iter().map(|byte| format!("{byte:02x}")).collect::<String>(), signature);
}

#[test]
fn what_is_not_ours_is_told_apart() {
    let whole = encode(&packet(), &key());
    let changed = |at: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[at] = to;
        bytes
    };
    assert_eq!(decode(b"", &key()), Err(Refusal::Foreign));
    assert_eq!(decode(b"GET / HTTP/1.1\r\n", &key()), Err(Refusal::Foreign));
    assert_eq!(decode(b"TdHB", &key()), Err(Refusal::Torn));
    assert_eq!(decode(&changed(4, 2), &key()), Err(Refusal::Version(2)));
    assert_eq!(decode(&changed(5, 5), &key()), Err(Refusal::Torn));
    assert_eq!(decode(&whole[..whole.len() - 1], &key()), Err(Refusal::Torn));
    assert_eq!(decode(&whole, &Key::new(b"another")), Err(Refusal::WrongKey));
    let nameless = encode(&Packet { host: "", ..packet() }, &key());
    assert_eq!(decode(&nameless, &key()), Err(Refusal::BadName));
    let odd = encode(&Packet { host: "a\nb", ..packet() }, &key());
    assert_eq!(decode(&odd, &key()), Err(Refusal::BadName));
}

prop_compose! {
    fn names()(text in "[A-Za-z0-9._-]{1,255}") -> String { text }
}

proptest! {
    #[test]
    fn what_is_sent_is_what_is_heard(
        network in names(), host in names(), boot: u128, system: u128, sequence: u64, sent_at_ms: u64,
    ) {
        let system_uuid = Some(Uuid::from_u128(system)).filter(|uuid| !uuid.is_nil());
        let packet = Packet { network: &network, host: &host, boot_id: Uuid::from_u128(boot), system_uuid, sequence, sent_at_ms };
        let bytes = encode(&packet, &key());
        prop_assert!(bytes.len() <= MOST_BYTES);
        prop_assert_eq!(decode(&bytes, &key()), Ok(packet));
    }

    #[test]
    fn strangers_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..700), like_ours: bool) {
        let mut bytes = bytes;
        if like_ours && bytes.len() >= 7 {
            bytes[..5].copy_from_slice(b"TdHB\x01");
        }
        prop_assert!(decode(&bytes, &key()).is_err());
    }

    #[test]
    fn strangers_packets_of_the_right_length_are_refused(network: u8, host: u8, fill: u8) {
        let mut bytes = vec![fill; 56 + usize::from(network) + usize::from(host) + 32];
        bytes[..8].copy_from_slice(&[b'T', b'd', b'H', b'B', 1, network, host, 0]);
        prop_assert_eq!(decode(&bytes, &key()), Err(Refusal::WrongKey));
    }

    #[test]
    fn no_bit_can_be_changed(at in 0usize..96 * 8) {
        let mut bytes = encode(&packet(), &key());
        bytes[at / 8] ^= 1 << (at % 8);
        prop_assert!(decode(&bytes, &key()).is_err());
    }

    #[test]
    fn nothing_is_believed_twice(
        packets in proptest::collection::vec((0u128..5, 0u64..20, 0u64..200_000, 0u64..200_000), 1..200),
    ) {
        let mut guard = Guard::default();
        let mut believed = BTreeSet::new();
        let mut boots = Vec::new();
        for (boot, sequence, sent, now) in packets {
            let boot_id = Uuid::from_u128(boot);
            let packet = Packet { boot_id, sequence, sent_at_ms: NOW_MS + sent, ..packet() };
            if guard.admit(&packet, NOW_MS + now).is_ok() {
                prop_assert!(believed.insert((boot, sequence)), "boot {} sequence {} twice", boot, sequence);
                if boots.last() != Some(&boot) {
                    prop_assert!(!boots.contains(&boot), "back to boot {}", boot);
                    prop_assert!(sent.abs_diff(now) <= 60_000, "an old packet began boot {}", boot);
                    boots.push(boot);
                }
            }
        }
    }
}

// ---- guard ----

#[test]
fn a_recorded_packet_does_not_make_a_dead_host_live() {
    let mut guard = Guard::default();
    let at = |sequence| Packet { sequence, ..packet() };
    assert_eq!(guard.admit(&at(7), NOW_MS), Ok(()));
    assert_eq!(guard.admit(&at(7), NOW_MS), Err(Refusal::Replayed));
    assert_eq!(guard.admit(&at(6), NOW_MS), Err(Refusal::Replayed));
    assert_eq!(guard.admit(&at(9), NOW_MS), Ok(()));
    assert_eq!(guard.admit(&at(8), NOW_MS), Err(Refusal::Replayed));
}

#[test]
fn a_reboot_is_believed_and_the_boot_before_it_never_again() {
    let mut guard = Guard::default();
    let next = Packet { boot_id: Uuid::from_u128(0xb002), sequence: 1, ..packet() };
    assert_eq!(guard.admit(&packet(), NOW_MS), Ok(()));
    assert_eq!(guard.admit(&next, NOW_MS + 60_001), Err(Refusal::WrongTime));
    assert_eq!(guard.admit(&next, NOW_MS + 60_000), Ok(()));
    assert_eq!(guard.admit(&Packet { sequence: 100, ..packet() }, NOW_MS), Err(Refusal::Replayed));
}

#[test]
fn a_host_whose_clock_jumps_within_a_boot_is_still_heard() {
    let mut guard = Guard::default();
    assert_eq!(guard.admit(&packet(), NOW_MS), Ok(()));
    assert_eq!(guard.admit(&Packet { sequence: 8, sent_at_ms: 0, ..packet() }, NOW_MS), Ok(()));
    assert_eq!(guard.admit(&Packet { sequence: 9, sent_at_ms: u64::MAX, ..packet() }, NOW_MS), Ok(()));
}

#[test]
fn a_host_is_not_taken_for_another() {
    let mut guard = Guard::default();
    assert_eq!(guard.admit(&packet(), NOW_MS), Ok(()));
    assert_eq!(guard.admit(&Packet { host: "cmp2", ..packet() }, NOW_MS), Ok(()));
}

#[test]
fn boards_without_a_uuid_of_their_own_have_none() {
    assert_eq!(system_uuid("4C4C4544-0051-3610-8052-b4c04f564433\n").map(|u| u.as_u128() >> 96), Some(0x4c4c_4544));
    for text in ["", "Not Settable", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"] {
        assert_eq!(system_uuid(text), None);
    }
    assert_eq!(system_uuid("03000200-0400-0500-0006-000700080009"), None);
}

// ---- sockets ----

fn heartbeat(networks: Vec<Network>) -> Heartbeat {
    Heartbeat {
        key: Some(Secret::new(SECRET.to_vec())),
        interval: Duration::from_secs(1),
        host: None,
        networks,
        boot_id_file: "boot".into(),
        system_uuid_file: "uuid".into(),
    }
}

/// A tandem-ha that listens on two networks, and a compute host's configuration for it.
struct Two {
    files: TempDir,
    beats: mpsc::Receiver<Beat>,
    at: Vec<(String, SocketAddr)>,
}

impl Two {
    async fn new() -> Self {
        let network = |name: &str| Network {
            name: name.to_owned(),
            listen: Some("127.0.0.1:0".parse().expect("an address")),
            to: None,
            source: None,
        };
        let (sender, beats) = mpsc::channel(100);
        let listeners = Listener::bind_all(&heartbeat(vec![network("mgmt"), network("storage")]), sender).await;
        let mut at = Vec::new();
        for listener in listeners.expect("free ports") {
            at.push((listener.network().to_owned(), listener.address().expect("it is bound")));
            tokio::spawn(listener.run());
        }
        let files = TempDir::new().expect("a temporary directory");
        for (name, text) in [
            ("key", SECRET),
            ("boot", b"b0010000-0000-0000-0000-000000000000\n"),
            ("uuid", b"57510000-0000-0000-0000-000000000000\n"),
        ] {
            fs::write(files.path().join(name), text).expect("a file can be written");
        }
        Self { files, beats, at }
    }

    /// What the host's configuration says, each network with more lines of its own.
    fn config(&self, more: [&str; 2]) -> Config {
        let mut toml = "[heartbeat]\nkey_file = \"key\"\nhost = \"cmp1\"\ninterval_s = 0.1\nboot_id_file = \"boot\"\nsystem_uuid_file = \"uuid\"\n".to_owned();
        for ((name, address), more) in self.at.iter().zip(more) {
            toml += &format!("[[heartbeat.networks]]\nname = \"{name}\"\nto = \"{address}\"\n{more}\n");
        }
        let file = self.files.path().join("tandem-ha.toml");
        fs::write(&file, toml).expect("a file can be written");
        Config::load(&file, std::iter::empty()).expect("a good configuration").config
    }

    async fn next(&mut self) -> Beat {
        timeout(LONG, self.beats.recv()).await.expect("a heartbeat in time").expect("the listener runs")
    }

    fn inject(&self, network: &str, bytes: &[u8]) {
        let to = self.at.iter().find(|(name, _)| name == network).expect("a network").1;
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(bytes, to)).expect("loopback takes it");
    }
}

#[tokio::test]
async fn a_host_is_heard_on_each_network_with_its_boot_and_machine() {
    let mut two = Two::new().await;
    let before = Instant::now();
    let config = two.config(["source = \"127.0.0.1\"", ""]);
    let (stop, stopped) = watch::channel(false);
    let sending = tokio::spawn(async move { run_sender(&config, stopped).await });
    let mut heard = BTreeSet::new();
    while heard.len() < 2 {
        let beat = two.next().await;
        assert_eq!(beat.host, "cmp1");
        assert_eq!(beat.boot_id, Uuid::from_u128(0xb001_0000 << 96));
        assert_eq!(beat.system_uuid, Some(Uuid::from_u128(0x5751_0000 << 96)));
        assert!(beat.at >= before);
        heard.insert(beat.network);
    }
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), ["mgmt", "storage"]);
    stop.send_replace(true);
    sending.await.expect("it ends").expect("without an error");
}

#[tokio::test]
async fn a_network_that_is_down_does_not_silence_the_other() {
    let mut two = Two::new().await;
    // 192.0.2.0/24 belongs to nobody: the socket cannot even be bound
    let mut sender = Sender::new(&two.config(["source = \"192.0.2.1\"", ""])).expect("all is there");
    for _ in 0..3 {
        sender.beat();
        assert_eq!(two.next().await.network, "storage");
    }
}

#[tokio::test]
async fn a_sender_that_starts_again_goes_on_where_it_was() {
    let mut two = Two::new().await;
    let config = two.config(["", ""]);
    for _ in 0..3 {
        Sender::new(&config).expect("all is there").beat();
        let heard = [two.next().await.network, two.next().await.network];
        assert!(heard.contains(&"mgmt".to_owned()) && heard.contains(&"storage".to_owned()), "{heard:?}");
    }
}

#[tokio::test]
async fn strangers_are_not_heard_and_do_not_stop_it() {
    let mut two = Two::new().await;
    let sent =
        Packet { sent_at_ms: u64::try_from(chrono::Utc::now().timestamp_millis()).expect("after 1970"), ..packet() };
    let good = encode(&sent, &key());
    two.inject("mgmt", b"");
    two.inject("mgmt", &[0; 2000]);
    two.inject("mgmt", &good[..50]);
    two.inject("mgmt", &encode(&sent, &Key::new(b"another key")));
    two.inject("storage", &good);
    two.inject("mgmt", &encode(&Packet { host: "cmp9", sent_at_ms: 5, ..sent }, &key()));
    two.inject("mgmt", &good);
    two.inject("mgmt", &good);
    two.inject("mgmt", &encode(&Packet { sequence: 8, ..sent }, &key()));
    two.inject("mgmt", &encode(&Packet { host: "last", ..sent }, &key()));
    let mut heard = Vec::new();
    while heard.last().is_none_or(|beat: &Beat| beat.host != "last") {
        heard.push(two.next().await);
    }
    assert_eq!(heard.iter().map(|beat| beat.host.as_str()).collect::<Vec<_>>(), ["cmp1", "cmp1", "last"]);
    assert!(heard.iter().all(|beat| beat.network == "mgmt"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one");
    let network = Network { name: "mgmt".to_owned(), listen: Some(address), to: None, source: None };
    let error = Listener::bind_all(&heartbeat(vec![network]), mpsc::channel(1).0).await.expect_err("is taken");
    assert_eq!(error.to_string(), format!("heartbeats of network mgmt cannot be heard at {address}"));
}

#[tokio::test]
async fn an_address_that_is_not_there_yet_is_taken() {
    let network = Network {
        name: "mgmt".to_owned(),
        listen: Some("192.0.2.1:0".parse().expect("an address")),
        to: None,
        source: None,
    };
    assert!(Listener::bind_all(&heartbeat(vec![network]), mpsc::channel(1).0).await.is_ok());
}

#[tokio::test]
async fn a_sender_without_a_boot_id_says_where_it_looked() {
    let two = Two::new().await;
    let config = two.config(["", ""]);
    fs::write(two.files.path().join("boot"), "soon").expect("a file can be written");
    let error = Sender::new(&config).expect_err("has no boot id");
    assert!(
        matches!(&error, Error::Identity { what: "boot id", .. })
            && error.to_string().contains("/boot tells no boot id"),
        "{error}"
    );
    fs::write(two.files.path().join("boot"), BOOT.to_string()).expect("a file can be written");
    fs::remove_file(two.files.path().join("uuid")).expect("it was there");
    assert!(Sender::new(&config).is_ok(), "a machine without a system UUID still has heartbeats");
}

/// The goal is 10 microseconds; an unoptimised build needs more.
#[test]
#[cfg_attr(debug_assertions, ignore = "needs an optimised build")]
fn a_packet_costs_less_than_ten_microseconds() {
    let (key, mut guard) = (key(), Guard::default());
    let packets: Vec<Vec<u8>> = (0..10_000).map(|sequence| encode(&Packet { sequence, ..packet() }, &key)).collect();
    let start = Instant::now();
    for bytes in &packets {
        guard.admit(&decode(bytes, &key).expect("ours"), NOW_MS).expect("new");
    }
    let each = start.elapsed() / 10_000;
    println!("{each:?} a packet");
    assert!(each < Duration::from_micros(10), "{each:?}");
}
