//! What one record of 4 KiB costs. Figures mean something in a release build; the rest of the test holds in any.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, ClientConnection, ServerConnection};
use tandem_node::identity::{Door, client_config, peer_identity, server_config, unused_name};

use crate::world::{World, id, our_client, our_server, shake};

const BLOCK: usize = 4096;
/// Header, content type and tag (RFC 8446, section 5.2).
const RECORD: usize = BLOCK + 5 + 1 + 16;
const ROUNDS: u32 = 2_000;

#[test]
fn each_block_comes_out_as_it_went_in_and_the_buffered_cost_is_printed() {
    let world = World::new();
    let (one, two) = (world.credentials("tandem://node/one"), world.credentials("tandem://node/two"));
    let mut client = our_client(&one, "tandem://node/two", Door::Peers);
    let mut server = our_server(&two, Door::Peers);
    assert!(shake(&mut client, &mut server).is_well());
    assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut spent = Spent::default();
    let (mut block, mut wire, mut out) = (vec![0; BLOCK], Vec::with_capacity(RECORD), vec![0; BLOCK]);
    for round in 0..ROUNDS {
        block[..4].copy_from_slice(&round.to_le_bytes());
        spent.encrypt += timed(|| buffered_out(&mut client, &block, &mut wire));
        assert_eq!(wire.len(), RECORD);
        spent.decrypt += timed(|| buffered_in(&mut server, &wire, &mut out));
        assert!(out == block);
    }
    spent.print("buffered");
}

fn buffered_out(client: &mut ClientConnection, block: &[u8], wire: &mut Vec<u8>) {
    wire.clear();
    client.writer().write_all(block).unwrap();
    client.write_tls(wire).unwrap();
}

fn buffered_in(server: &mut ServerConnection, mut wire: &[u8], out: &mut [u8]) {
    while !wire.is_empty() {
        server.read_tls(&mut wire).unwrap();
        server.process_new_packets().unwrap();
    }
    server.reader().read_exact(out).unwrap();
}

/// The way of an io_uring loop: rustls never sees a socket, and works on our buffers.
#[test]
fn each_block_comes_out_of_our_own_buffers_as_it_went_in_and_the_cost_is_printed() {
    let world = World::new();
    let (one, two) = (world.credentials("tandem://node/one"), world.credentials("tandem://node/two"));
    let config = client_config(&one, id("tandem://node/two"), Door::Peers);
    let mut client = UnbufferedClientConnection::new(config, unused_name()).unwrap();
    let mut server = UnbufferedServerConnection::new(server_config(&two, Door::Peers)).unwrap();
    shake_unbuffered(&mut client, &mut server);
    assert_eq!(peer_identity(&client, Door::Peers).unwrap(), id("tandem://node/two"));
    assert_eq!(peer_identity(&server, Door::Peers).unwrap(), id("tandem://node/one"));
    let mut spent = Spent::default();
    let (mut block, mut wire) = (vec![0; BLOCK], vec![0; RECORD + 64]);
    for round in 0..ROUNDS {
        block[..4].copy_from_slice(&round.to_le_bytes());
        let mut length = 0;
        spent.encrypt += timed(|| length = unbuffered_out(&mut client, &block, &mut wire));
        assert_eq!(length, RECORD);
        let mut same = false;
        spent.decrypt += timed(|| same = unbuffered_in(&mut server, &mut wire[..length], &block));
        assert!(same);
    }
    spent.print("unbuffered");
}

fn unbuffered_out(client: &mut UnbufferedClientConnection, block: &[u8], wire: &mut [u8]) -> usize {
    match client.process_tls_records(&mut []).state.unwrap() {
        ConnectionState::WriteTraffic(mut traffic) => traffic.encrypt(block, wire).unwrap(),
        other => panic!("not ready to write: {other:?}"),
    }
}

fn unbuffered_in(server: &mut UnbufferedServerConnection, wire: &mut [u8], block: &[u8]) -> bool {
    match server.process_tls_records(wire).state.unwrap() {
        ConnectionState::ReadTraffic(mut traffic) => traffic.next_record().unwrap().unwrap().payload == block,
        other => panic!("nothing to read: {other:?}"),
    }
}

fn shake_unbuffered(client: &mut UnbufferedClientConnection, server: &mut UnbufferedServerConnection) {
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let client_done = step(client.process_tls_records(&mut to_client), &mut to_server);
        to_client.drain(..client_done.discard);
        let server_done = step(server.process_tls_records(&mut to_server), &mut to_client);
        to_server.drain(..server_done.discard);
        if client_done.ready && server_done.ready && to_client.is_empty() && to_server.is_empty() {
            return;
        }
    }
    panic!("a handshake without end");
}

struct Step {
    discard: usize,
    ready: bool,
}

fn step<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> Step {
    let ready = match status.state.unwrap() {
        ConnectionState::EncodeTlsData(mut data) => {
            let mut room = vec![0; 16_384];
            let length = data.encode(&mut room).map_err(|error: EncodeError| error.to_string()).unwrap();
            out.extend_from_slice(&room[..length]);
            false
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            false
        }
        ConnectionState::WriteTraffic(_) => true,
        ConnectionState::BlockedHandshake => false,
        other => panic!("unexpected in a handshake: {other:?}"),
    };
    Step { discard: status.discard, ready }
}

#[derive(Default)]
struct Spent {
    encrypt: Duration,
    decrypt: Duration,
}

impl Spent {
    fn print(&self, how: &str) {
        let each = |all: Duration| all.as_secs_f64() * 1e6 / f64::from(ROUNDS);
        let (encrypt, decrypt) = (each(self.encrypt), each(self.decrypt));
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!("4 KiB, AES-128-GCM, {how}, {build} build: encrypt {encrypt:.2} us, decrypt {decrypt:.2} us");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}
