//! Handshakes that must not come about.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ServerConnection};
use tandem_node::identity::{Credentials, Door, Error, Identity, client_config, connect};

use crate::world::{
    NAME, Outcome, Pair, World, id, our_client, our_server, plain_client, plain_server, plain_server_config, shake,
};

/// `pair` knocks at one of our nodes.
fn knocks(world: &World, pair: Option<Pair>) -> Outcome {
    let host = Credentials::load(world.issue("tandem://node/host", &[NAME])).unwrap();
    let mut client = plain_client(world.roots(), pair, Door::Peers.protocol());
    shake(&mut client, &mut our_server(&host, Door::Peers))
}

/// `pair` answers one of our nodes, which wants `tandem://node/host`.
fn answers(world: &World, pair: Pair) -> Outcome {
    let ours = world.credentials("tandem://node/ours");
    shake(&mut our_client(&ours, "tandem://node/host", Door::Rest), &mut plain_server(pair))
}

/// A resumed session would be trusted for what was seen days ago.
#[test]
fn a_session_is_not_resumed_although_the_server_offers_it() {
    let world = World::new();
    let to_host = client_config(&world.credentials("tandem://node/ours"), id("tandem://node/host"), Door::Rest);
    let at_host = plain_server_config(world.dated("tandem://node/host", -1, 1));
    for _ in 0..2 {
        let mut client = connect(to_host.clone()).unwrap();
        assert!(shake(&mut client, &mut ServerConnection::new(at_host.clone()).unwrap()).is_well());
        assert!(client.tls13_tickets_received() > 0);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn the_same_pairs_are_taken_when_nothing_is_wrong_with_them() {
    let world = World::new();
    assert!(knocks(&world, Some(world.dated("tandem://node/caller", -1, 1))).is_well());
    assert!(answers(&world, world.dated("tandem://node/host", -1, 1)).is_well());
}

#[test]
fn nobody_comes_in_without_a_certificate() {
    let outcome = knocks(&World::new(), None);
    assert_eq!(outcome.server, Err(rustls::Error::NoCertificatesPresented));
    let alert = outcome.client.unwrap_err();
    assert!(alert.to_string().contains("CertificateRequired"), "{alert}");
}

#[test]
fn a_certificate_of_another_ca_is_refused_by_either_side() {
    let (world, other) = (World::new(), World::new());
    let unknown = "is of a CA that is not trusted here";
    let outcome = knocks(&world, Some(other.dated("tandem://node/caller", -1, 1)));
    assert!(outcome.servers_refusal().contains(unknown), "{outcome:?}");
    let outcome = answers(&world, other.dated("tandem://node/host", -1, 1));
    assert!(outcome.clients_refusal().contains(unknown), "{outcome:?}");
}

#[test]
fn a_certificate_that_has_ended_or_not_begun_is_refused_by_either_side() {
    let world = World::new();
    for (begins, ends, word) in [(-3, -1, "expired"), (1, 3, "not valid yet")] {
        let outcome = knocks(&world, Some(world.dated("tandem://node/caller", begins, ends)));
        assert!(outcome.servers_refusal().contains(word), "{outcome:?}");
        let outcome = answers(&world, world.dated("tandem://node/host", begins, ends));
        assert!(outcome.clients_refusal().contains(word), "{outcome:?}");
    }
}

#[test]
fn whoever_answers_in_anothers_place_is_not_spoken_to() {
    let world = World::new();
    for other in ["tandem://node/another", "tandem://ha/host", "tandem://node/host.example.org", "tandem://node/Host"] {
        let outcome = answers(&world, world.dated(other, -1, 1));
        let expected = format!("{other} answered where tandem://node/host was expected");
        assert!(outcome.clients_refusal().contains(&expected), "{outcome:?}");
    }
}

/// An admin's or Cinder's key, stolen, must not pass for a server even where somebody wanted that very identity.
#[test]
fn the_certificate_of_one_whom_nobody_connects_to_cannot_serve() {
    let world = World::new();
    let ours = world.credentials("tandem://node/ours");
    for uri in ["tandem://admin/alice", "tandem://cinder/volume"] {
        let mut client = our_client(&ours, uri, Door::Rest);
        let outcome = shake(&mut client, &mut plain_server(world.dated(uri, -1, 1)));
        assert!(outcome.clients_refusal().contains("extended key usage"), "{outcome:?}");
    }
}

#[test]
fn a_certificate_of_our_ca_with_no_identity_or_two_proves_nothing() {
    let world = World::new();
    let two = ["tandem://node/host", "tandem://node/caller"];
    let cases: [(&[&str], &str); 4] = [
        (&[], "names no identity"),
        (&["https://example.org/"], "names no identity"),
        (&["tandem://root/host"], "no identity of Tandem"),
        (&two, "several identities"),
    ];
    for (uris, word) in cases {
        let outcome = knocks(&world, Some(world.with_uris(uris)));
        assert!(outcome.servers_refusal().contains(word), "{outcome:?}");
        let outcome = answers(&world, world.with_uris(uris));
        assert!(outcome.clients_refusal().contains(word), "{outcome:?}");
    }
}

/// Other URIs may stand beside ours: a company's own CA may add some.
#[test]
fn a_strangers_uri_beside_the_identity_does_no_harm() {
    let world = World::new();
    let outcome = knocks(&world, Some(world.with_uris(&["spiffe://example.org/x", "tandem://node/caller"])));
    assert!(outcome.is_well(), "{outcome:?}");
}

#[test]
fn a_self_signed_certificate_is_nobodys() {
    let world = World::new();
    let uri = rcgen::SanType::URI("tandem://node/caller".try_into().unwrap());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri];
    let key = KeyPair::generate().unwrap();
    let cert: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
    assert!(Identity::of(&cert).is_ok(), "reading proves nothing");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let outcome = knocks(&world, Some(Pair { cert, key }));
    assert!(outcome.servers_refusal().contains("not trusted here"), "{outcome:?}");
}

#[test]
fn bytes_that_are_no_certificate_name_nobody() {
    let world = World::new();
    let good = world.dated("tandem://node/caller", -1, 1).cert;
    for end in 0..good.len() {
        let cut = CertificateDer::from(good[..end].to_vec());
        assert!(matches!(Identity::of(&cut), Err(Error::Unreadable { .. })), "cut at {end}");
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(matches!(Identity::of(&longer.into()), Err(Error::Unreadable { .. })));
    for place in 0..good.len() {
        let mut turned = good.to_vec();
        turned[place] ^= 0x41;
        // Most still parse, for reading checks no signature; none may panic, and none becomes another kind.
        if let Ok(identity) = Identity::of(&turned.into()) {
            assert_eq!(identity.kind(), tandem_node::identity::Kind::Node);
        }
    }
}
