//! iSCSI initiators: which volume a target's name means, as which attachment they come, and what they have to prove.
//!
//! There is no target for whoever has no attachment of its own name with CHAP: what is not attached cannot be told from what is not there. A Secondary lets
//! initiators in as the Primary does, so that the paths that take over stand before they are needed.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use iscsi::{Admission, Chap, Claim, LoggedIn, Mutual, Portal, Status};
use replication::{Attachment, VolumeId};

use super::{Known, Volumes};
use crate::engine::{Command, Handle, Seen};
use crate::export::iscsi::portal::Targets;
use crate::export::iscsi::{port_of, target_name, volume_of};

/// Of one volume.
const MOST_SESSIONS: usize = 1024;

/// The volumes of this node, as initiators come for them.
#[derive(Debug)]
pub(super) struct Initiators {
    pub(super) handle: Handle,
    pub(super) volumes: Volumes,
}

/// As whom an initiator comes, to which volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    volume: VolumeId,
    attachment: u32,
    is_read_only: bool,
}

#[async_trait]
impl Targets for Initiators {
    type Ticket = Ticket;

    async fn admit(&self, claim: &Claim) -> Result<(Admission, Ticket), (Status, String)> {
        let target = claim.target.as_deref().unwrap_or_default();
        let unknown = || {
            let why =
                format!("there is no target {target} for {}: its attachment names the initiator", claim.initiator);
            (Status::NotFound, why)
        };
        let volume = volume_of(target).ok_or_else(unknown)?;
        let seen = self.handle.look(volume).await.ok_or_else(unknown)?;
        let attachment = attachment_of(&seen, &claim.initiator).ok_or_else(unknown)?;
        if seen.clients >= MOST_SESSIONS {
            return Err((Status::OutOfResources, format!("{target} has {MOST_SESSIONS} sessions already")));
        }
        let chap = attachment.chap.as_ref().map(|chap| Chap {
            name: chap.user.clone(),
            secret: chap.secret.0.clone().into_bytes(),
            mutual: chap
                .target
                .as_ref()
                .map(|(name, secret)| Mutual { name: name.clone(), secret: secret.0.clone().into_bytes() }),
        });
        let ticket = Ticket { volume, attachment: attachment.client, is_read_only: attachment.read_only };
        Ok((Admission { chap, ..Admission::default() }, ticket))
    }

    async fn group(&self, target: &str) -> u16 {
        let known = volume_of(target).and_then(|volume| self.volumes.find(volume));
        known.map_or(1, |known| port_of(known.config.me))
    }

    async fn of(&self, initiator: &str, here: SocketAddr, wanted: Option<&str>) -> Vec<(String, Vec<Portal>)> {
        let volumes: Vec<VolumeId> = self.volumes.lock().keys().copied().collect();
        let mut found = Vec::new();
        for volume in volumes {
            let name = target_name(volume);
            if wanted.is_some_and(|wanted| wanted != name) {
                continue;
            }
            let (Some(seen), Some(known)) = (self.handle.look(volume).await, self.volumes.find(volume)) else {
                continue;
            };
            if attachment_of(&seen, initiator).is_some() {
                found.push((name, portals(&known, here)));
            }
        }
        found.sort();
        found
    }

    fn serve(&self, ticket: Ticket, logged_in: LoggedIn, socket: OwnedFd) {
        let Ticket { volume, attachment, is_read_only } = ticket;
        tracing::info!(%volume, initiator = logged_in.claim.initiator, "an initiator has logged in");
        self.handle.tell(Command::Initiator {
            volume,
            client: attachment,
            is_read_only,
            logged_in: Box::new(logged_in),
            stream: socket,
        });
    }
}

/// The attachment of an initiator of this name, if it has one that holds, and CHAP with it.
fn attachment_of<'a>(seen: &'a Seen, initiator: &str) -> Option<&'a Attachment> {
    let epoch = seen.status.record.epoch;
    let may = |it: &&Attachment| it.initiator == initiator && it.chap.is_some() && !it.revoked && it.epoch == epoch;
    // The last one: who attached anew has a new secret.
    seen.control.attachments.iter().rev().find(may)
}

/// This node's portal as the initiator has reached it, and the others' as they are configured.
fn portals(known: &Known, here: SocketAddr) -> Vec<Portal> {
    let others = known
        .config
        .peers
        .iter()
        .filter_map(|(place, peer)| Some(Portal { address: peer.iscsi?.to_string(), group: port_of(*place) }));
    let mut portals: Vec<Portal> = others.collect();
    portals.sort_by_key(|portal| portal.group);
    portals.insert(0, Portal { address: here.to_string(), group: port_of(known.config.me) });
    portals
}
