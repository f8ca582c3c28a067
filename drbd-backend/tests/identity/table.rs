//! Who may call what.

use tandem_node::identity::{Action, Door, Identity, Kind, allows};

fn somebody(kind: Kind) -> Identity {
    Identity::new(kind, "x".parse().unwrap())
}

fn who_may(action: Action) -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| allows(&somebody(*kind), action)).collect()
}

#[test]
fn only_nodes_are_peers_and_use_the_arbiter() {
    for action in [Action::SpeakAsPeer, Action::SwapRecord] {
        assert_eq!(who_may(action), [Kind::Node]);
    }
}

#[test]
fn only_tandem_ha_and_admins_fence() {
    for action in [Action::FenceHost, Action::DeclareDead] {
        assert_eq!(who_may(action), [Kind::Ha, Kind::Admin]);
    }
}

#[test]
fn what_can_lose_data_is_for_admins_alone() {
    for action in [Action::ForcePrimary, Action::RebuildArbiter, Action::ChangeReplicas] {
        assert_eq!(who_may(action), [Kind::Admin]);
    }
}

#[test]
fn the_page_for_operators_has_this_very_table() {
    let page = include_str!("../../../docs/certificates.md");
    let mut expected = "| to | node | ha | cinder | admin |\n|---|---|---|---|---|\n".to_owned();
    for action in Action::ALL {
        let cells: Vec<_> =
            Kind::ALL.iter().map(|kind| if allows(&somebody(*kind), action) { "yes" } else { "" }).collect();
        expected += &format!("| {action} | {} |\n", cells.join(" | "));
    }
    // An empty cell is written "| |".
    let expected = expected.replace("|  |", "| |").replace("|  |", "| |");
    assert!(page.contains(&expected), "docs/certificates.md should hold\n{expected}");
}

#[test]
fn every_action_stands_in_the_table_once_with_words_of_its_own() {
    let words: std::collections::BTreeSet<_> = Action::ALL.iter().map(ToString::to_string).collect();
    let actions: std::collections::BTreeSet<_> = Action::ALL.into_iter().collect();
    assert_eq!((words.len(), actions.len()), (Action::ALL.len(), Action::ALL.len()));
}

#[test]
fn each_door_speaks_a_protocol_of_its_own() {
    assert_eq!(Door::Peers.protocol(), Some("tandem-peer/1"));
    assert_eq!(Door::Rest.protocol(), Some("http/1.1"));
    let all: std::collections::BTreeSet<_> =
        [Door::Peers, Door::Arbiter, Door::Rest, Door::Nbd].map(Door::protocol).into_iter().collect();
    assert_eq!(all.len(), 4);
}
