//! What iSCSI initiators see of a volume here: its target, kept in step with the replica.

use iscsi::{Access, Identity, PortGroup, Target, Unit, UnitSettings};
use replication::{Durability, Generation, Node, Role};

use super::Engine;
use super::volume::Volume;
use crate::export::iscsi::{port_of, target_name};

/// The version of the unit, as INQUIRY tells it.
const REVISION: &str = "0.1";

/// A volume's target, and what it was told last of its replica.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) target: Target,
    seen: Seen,
}

/// Whatever of a replica concerns initiators changes one of these.
type Seen = (Role, Generation, u64);

impl Volume {
    /// It begins with the first initiator.
    pub(super) fn target(&mut self) -> &mut Target {
        if self.target.is_none() {
            let settings = UnitSettings {
                identity: Identity { uuid: self.id.0, target: target_name(self.id), revision: REVISION.to_owned() },
                port: port_of(self.replica.me()),
                size_bytes: self.files.data.size(),
                has_cache: self.replica.durability() == Durability::Flush,
                is_thin: true,
                groups: self.port_groups(),
            };
            let unit = Unit::new(settings, &self.replica.control().reservations);
            self.target = Some(Served { target: Target::new(unit), seen: self.seen() });
        }
        &mut self.target.as_mut().expect("it was just made").target
    }

    fn seen(&self) -> Seen {
        (self.replica.role(), self.replica.record().generation, self.replica.control().version)
    }

    /// How each node serves the volume: the Primary does, the others stand by (SPC-4, 5.15.2.4).
    fn port_groups(&self) -> Vec<PortGroup> {
        let (me, record) = (self.replica.me(), self.replica.record());
        let access = |node: Node| match self.replica.role() {
            Role::Primary if node == me => Access::Active,
            Role::Promoting if node == me => Access::Transitioning,
            _ if record.primary == Some(node) && node != me => Access::Active,
            _ => Access::Standby,
        };
        record.members.iter().map(|node| PortGroup { port: port_of(node), access: access(node) }).collect()
    }

    /// Whether the attachment may use the volume.
    pub(super) fn admits(&self, attachment: u32) -> bool {
        self.replica.control().admits(attachment, self.replica.record().epoch)
    }
}

impl Engine {
    /// After everything that has happened: what initiators have to know of it.
    pub(super) fn look_at_targets(&mut self) {
        for index in 0..self.volumes.0.len() {
            let Some(volume) = &mut self.volumes.0[index] else { continue };
            let Some(served) = &volume.target else { continue };
            let seen = volume.seen();
            if served.seen == seen {
                continue;
            }
            let (groups, is_new) = (volume.port_groups(), served.seen.2 != seen.2);
            let reservations = is_new.then(|| volume.replica.control().reservations.clone());
            let served = volume.target.as_mut().expect("it was looked at");
            served.seen = seen;
            served.target.groups_are(&groups);
            if let Some(reservations) = reservations {
                served.target.reservations_are(&reservations);
            }
            self.end_initiators_without_right(index);
        }
    }
}
