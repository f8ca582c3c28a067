//! Who may call what. One table, here and in docs/certificates.md; a test compares them.

use std::fmt;

use super::{Identity, Kind};

/// What a party with a certificate may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The link between replicas: writes, heartbeats, resync.
    SpeakAsPeer,
    /// The arbiter's records and its list of host fences: read them, compare and swap them.
    SwapRecord,
    /// A connection over NBD. Which volume it opens is a matter of its attachments.
    OpenExport,
    /// Read what REST shows: pools, nodes, volumes, events, metrics.
    Read,
    CreateVolume,
    DeleteVolume,
    ResizeVolume,
    /// Make, change and revoke attachments.
    Attach,
    /// Change a volume's persistent reservations for an initiator that asked a node that stands by.
    Reserve,
    /// Refuse a host's initiators on every volume, and lift that again.
    FenceHost,
    /// Say that one boot of a node is dead. A promotion then skips the wait for it.
    DeclareDead,
    /// Add, remove and move replicas; start a resync.
    ChangeReplicas,
    /// Promote and demote by hand.
    Promote,
    /// Promote against the rules. It can lose data.
    ForcePrimary,
    RebuildArbiter,
}

impl Action {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::SpeakAsPeer,
        Self::SwapRecord,
        Self::OpenExport,
        Self::Read,
        Self::CreateVolume,
        Self::DeleteVolume,
        Self::ResizeVolume,
        Self::Attach,
        Self::Reserve,
        Self::FenceHost,
        Self::DeclareDead,
        Self::ChangeReplicas,
        Self::Promote,
        Self::ForcePrimary,
        Self::RebuildArbiter,
    ];
}

/// As in the answer to somebody who may not: "tandem://cinder/c1 may not force a primary".
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpeakAsPeer => "speak as a peer",
            Self::SwapRecord => "use the arbiter's records",
            Self::OpenExport => "connect over NBD",
            Self::Read => "read",
            Self::CreateVolume => "create a volume",
            Self::DeleteVolume => "delete a volume",
            Self::ResizeVolume => "resize a volume",
            Self::Attach => "attach a volume, or revoke an attachment",
            Self::Reserve => "change reservations of initiators",
            Self::FenceHost => "fence a host, or lift that",
            Self::DeclareDead => "declare a node dead",
            Self::ChangeReplicas => "change replicas, or resync",
            Self::Promote => "promote or demote",
            Self::ForcePrimary => "force a primary",
            Self::RebuildArbiter => "rebuild the arbiter",
        })
    }
}

/// Whether `identity` may do `action`. A node's word is bound to its name elsewhere: what it says as a peer counts only for the node that its certificate names.
pub fn allows(identity: &Identity, action: Action) -> bool {
    use Kind::{Admin, Cinder, Ha, Node};
    let who: &[Kind] = match action {
        Action::SpeakAsPeer | Action::SwapRecord | Action::Reserve => &[Node],
        Action::OpenExport => &[Node, Cinder, Admin],
        Action::Read => &[Node, Ha, Cinder, Admin],
        Action::CreateVolume | Action::DeleteVolume | Action::ResizeVolume | Action::Attach => &[Cinder, Admin],
        // Not Cinder: whoever says "dead" decides that a replica may be served elsewhere at once.
        Action::FenceHost | Action::DeclareDead => &[Ha, Admin],
        Action::ChangeReplicas | Action::Promote | Action::ForcePrimary | Action::RebuildArbiter => &[Admin],
    };
    who.contains(&identity.kind())
}
