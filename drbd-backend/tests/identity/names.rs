//! Names and identities as text.

use crate::world::id;
use tandem_node::identity::{Address, Identity, Kind, Name};

#[test]
fn an_identity_is_its_uri_and_back() {
    for kind in Kind::ALL {
        for name in ["compute-1", "compute-1.example.org", "198.18.2.1", "UPPER_and.lower", "a"] {
            let identity = Identity::new(kind, name.parse().unwrap());
            assert_eq!(identity.to_string(), format!("tandem://{kind}/{name}"));
            assert_eq!(id(&identity.to_string()), identity);
            assert_eq!((identity.kind(), identity.name().as_str()), (kind, name));
        }
    }
}

#[test]
fn a_name_that_nova_would_not_have_or_that_leaves_its_folder_is_none() {
    let long = "a".repeat(251);
    for name in ["", ".", "..", "../x", "a/b", "-x", ".x", "a b", "a\n", "ä", "fd00::1", "%41", &long] {
        let refused = name.parse::<Name>().expect_err(name).to_string();
        assert!(refused.contains("cannot be a name"), "{refused}");
    }
    assert!(long[1..].parse::<Name>().is_ok());
}

#[test]
fn what_only_looks_like_an_identity_is_none() {
    for uri in [
        "tandem://node/",
        "tandem://node",
        "tandem://",
        "tandem://arbiter/x",
        "tandem://Node/x",
        "TANDEM://node/x",
        "tandem://node/x/y",
        "tandem://node/x?y",
        "tandem://x@node/x",
        "tandem:/node/x",
        "spiffe://node/x",
        " tandem://node/x",
        "tandem://node/x ",
    ] {
        assert!(uri.parse::<Identity>().is_err(), "{uri:?}");
    }
}

#[test]
fn case_is_not_folded() {
    assert_ne!(id("tandem://node/Compute"), id("tandem://node/compute"));
}

#[test]
fn an_address_is_an_ip_address_or_a_dns_name() {
    assert_eq!("198.18.2.1".parse::<Address>().unwrap(), Address::Ip([198, 18, 2, 1].into()));
    assert_eq!("fd00::1".parse::<Address>().unwrap().to_string(), "fd00::1");
    assert_eq!("c1.example.org".parse::<Address>().unwrap(), Address::Dns("c1.example.org".into()));
    for text in ["", "a b", "https://c1", "c1:15870", "198.18.2.1/24", "[::1]"] {
        assert!(text.parse::<Address>().is_err(), "{text:?}");
    }
}
