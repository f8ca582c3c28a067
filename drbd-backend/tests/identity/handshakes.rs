//! Handshakes that come about, and what is known after them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection, StreamOwned};
use tandem_node::identity::{
    Action, Door, Error, Identity, Kind, allows, client_config, connect, peer_identity, server_config,
};

use crate::world::{Pair, World, id, our_client, our_server, plain_client, shake};

#[test]
fn two_nodes_know_each_other_by_their_certificates_alone() {
    let world = World::new();
    let (one, two) = (world.credentials("tandem://node/one"), world.credentials("tandem://node/two"));
    let mut client = our_client(&one, "tandem://node/two", Door::Peers);
    let mut server = our_server(&two, Door::Peers);
    let outcome = shake(&mut client, &mut server);
    assert!(outcome.is_well(), "{outcome:?}");
    assert_eq!(peer_identity(&client, Door::Peers).unwrap(), id("tandem://node/two"));
    assert_eq!(peer_identity(&server, Door::Peers).unwrap(), id("tandem://node/one"));
}

#[test]
fn nobody_is_known_before_the_handshake_is_done() {
    let world = World::new();
    let one = world.credentials("tandem://node/one");
    let client = our_client(&one, "tandem://node/two", Door::Peers);
    assert!(matches!(peer_identity(&client, Door::Peers), Err(Error::Handshaking)));
}

#[test]
fn every_connection_is_tls_1_3_with_aes_128_and_looks_at_certificates_anew() {
    let world = World::new();
    let (one, two) = (world.credentials("tandem://node/one"), world.credentials("tandem://node/two"));
    let (to_two, at_two) =
        (client_config(&one, id("tandem://node/two"), Door::Peers), server_config(&two, Door::Peers));
    for _ in 0..3 {
        let mut client = connect(to_two.clone()).unwrap();
        let mut server = ServerConnection::new(at_two.clone()).unwrap();
        assert!(shake(&mut client, &mut server).is_well());
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn each_door_lets_in_whom_the_table_lets_in() {
    let world = World::new();
    let host = world.credentials("tandem://node/host");
    for door in [Door::Peers, Door::Arbiter, Door::Rest, Door::Nbd] {
        for kind in Kind::ALL {
            let caller = Identity::new(kind, "caller".parse().unwrap());
            let ours = world.credentials(&caller.to_string());
            let mut client = our_client(&ours, "tandem://node/host", door);
            let mut server = our_server(&host, door);
            let outcome = shake(&mut client, &mut server);
            if allows(&caller, door.action()) {
                assert!(outcome.is_well(), "{caller} at {door:?}: {outcome:?}");
                assert_eq!(peer_identity(&server, door).unwrap(), caller);
            } else {
                let refusal = outcome.servers_refusal();
                assert!(refusal.contains(&format!("{caller} may not {}", door.action())), "{refusal}");
            }
        }
    }
    assert_eq!(Door::Peers.action(), Action::SpeakAsPeer);
}

/// In TLS a peer that offers no protocol is left alone; here it is not.
#[test]
fn a_node_that_does_not_say_which_protocol_it_speaks_is_no_peer() {
    let world = World::new();
    let host = world.issue("tandem://node/host", &[crate::world::NAME]);
    let host = tandem_node::identity::Credentials::load(host).unwrap();
    let caller = Pair::of(&world.issue("tandem://node/caller", &[]));
    let mut client = plain_client(world.roots(), Some(caller), None);
    let mut server = our_server(&host, Door::Peers);
    assert!(shake(&mut client, &mut server).is_well());
    let refused = peer_identity(&server, Door::Peers).unwrap_err();
    assert!(matches!(refused, Error::Protocol { wanted: "tandem-peer/1", spoken: None }), "{refused}");
    assert_eq!(peer_identity(&server, Door::Rest).unwrap(), id("tandem://node/caller"));
}

#[test]
fn a_peer_of_another_version_is_refused_in_the_handshake() {
    let world = World::new();
    let host = world.issue("tandem://node/host", &[crate::world::NAME]);
    let host = tandem_node::identity::Credentials::load(host).unwrap();
    let caller = Pair::of(&world.issue("tandem://node/caller", &[]));
    let mut client = plain_client(world.roots(), Some(caller), Some("tandem-peer/2"));
    let outcome = shake(&mut client, &mut our_server(&host, Door::Peers));
    assert_eq!(outcome.server, Err(rustls::Error::NoApplicationProtocol));
    assert!(outcome.client.is_err());
}

#[test]
fn over_tcp_each_reads_what_the_other_wrote() {
    let world = World::new();
    let (one, two) = (world.credentials("tandem://node/one"), world.credentials("tandem://node/two"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(our_server(&two, Door::Peers), bounded(socket));
        let mut word = vec![0; 100_000];
        stream.read_exact(&mut word).unwrap();
        stream.write_all(&word).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        peer_identity(&stream.conn, Door::Peers).unwrap()
    });
    let mut client = StreamOwned::new(
        our_client(&one, "tandem://node/two", Door::Peers),
        bounded(TcpStream::connect(address).unwrap()),
    );
    let word: Arc<[u8]> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    client.write_all(&word).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(*back == *word);
    assert_eq!(peer_identity(&client.conn, Door::Peers).unwrap(), id("tandem://node/two"));
    assert_eq!(server.join().unwrap(), id("tandem://node/one"));
}

fn bounded(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}
