//! iSCSI as clients find it: the names of targets, and [`portal`], where they log in. What a target answers is in the crate `iscsi`, what it does in the
//! engine.

pub mod portal;

use replication::{Node, VolumeId};
use uuid::Uuid;

/// What the name of every target begins with (RFC 7143, section 4.2.7.4).
const PREFIX: &str = "iqn.2026-11.org.tandem:volume-";

/// A volume's target, the same on every node.
#[must_use]
pub fn target_name(volume: VolumeId) -> String {
    format!("{PREFIX}{volume}")
}

/// Whose target it is.
#[must_use]
pub fn volume_of(target: &str) -> Option<VolumeId> {
    let uuid = Uuid::parse_str(target.strip_prefix(PREFIX)?).ok()?;
    Some(VolumeId(uuid.as_u128()))
}

/// The number of a node's portal: port, port group and portal group in one.
#[must_use]
pub fn port_of(node: Node) -> u16 {
    u16::from(node.place()) + 1
}
