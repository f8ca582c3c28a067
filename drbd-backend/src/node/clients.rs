//! NBD clients: which volume an export's name means, whether it is served here, and as whom the client asks.
//!
//! An export is called `UUID`, whose client is the node itself, or `UUID/ATTACHMENT`, whose client is that attachment of the control document. A fence
//! shuts out attachments, by their host. So a certificate that names a host opens attachments of that host alone, and never a bare `UUID`.

use async_trait::async_trait;
use replication::{Attachment, BLOCK_BYTES, Node as Place, Role, Status, VolumeId, Why};
use uuid::Uuid;

use super::Volumes;
use crate::engine::{Command, Handle};
use crate::export::door::{Guest, Shelf};
use crate::export::nbd::{Export, Refusal};
use crate::identity::Identity;

const DESCRIPTION: &str = "a replicated volume";

/// The volumes of this node, as NBD clients come for them.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) handle: Handle,
    pub(super) volumes: Volumes,
}

/// As whom a client asks, of which volume.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    volume: VolumeId,
    /// The attachment's number, or 0 for the node itself.
    client: u32,
}

#[async_trait]
impl Shelf for Clients {
    type Ticket = Ticket;

    async fn find(&self, name: &str, who: Option<&Identity>, may_wait: bool) -> Result<(Export, Ticket), Refusal> {
        let (id, attachment) = name.split_once('/').map_or((name, None), |(id, attachment)| (id, Some(attachment)));
        let volume = Uuid::parse_str(id).map(|id| VolumeId(id.as_u128())).ok();
        let unknown = || {
            Refusal::Unknown(format!("there is no volume {id:?} on this node: an export is UUID or UUID/ATTACHMENT"))
        };
        let volume = volume.ok_or_else(unknown)?;
        let seen = self.handle.look(volume).await.ok_or_else(unknown)?;
        self.is_served(volume, &seen.status, may_wait)?;
        let (client, is_read_only) = match attachment {
            None => {
                may_open(who, None)?;
                (0, false)
            }
            Some(attachment) => {
                let it = admitted(attachment, &seen.control.attachments, seen.status.record.epoch)?;
                may_open(who, Some(it))?;
                (it.client, it.read_only)
            }
        };
        let size_bytes = seen.status.size_blocks * u64::from(BLOCK_BYTES);
        let export = Export { name: name.to_owned(), description: DESCRIPTION.to_owned(), size_bytes, is_read_only };
        Ok((export, Ticket { volume, client }))
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        let volumes: Vec<VolumeId> = self.volumes.lock().keys().copied().collect();
        volumes.iter().for_each(|volume| show(&volume.to_string(), DESCRIPTION));
    }

    fn serve(&self, guest: Guest<Ticket>) {
        let Guest { socket, session, ticket: Ticket { volume, client } } = guest;
        self.handle.tell(Command::Client { volume, client, session, stream: socket });
    }
}

impl Clients {
    /// A client may wait only where this node may be the next to serve.
    fn is_served(&self, volume: VolumeId, status: &Status, may_wait: bool) -> Result<(), Refusal> {
        let may_serve_soon = status.role == Role::Promoting
            || matches!(status.why, Some(Why::WaitsForTheArbiter | Why::Grace(_) | Why::HandingOver));
        let refusal = match (&status.why, status.role) {
            (Some(Why::ShuttingDown), _) => Refusal::ShuttingDown(format!("volume {volume} is being closed here")),
            (_, Role::Primary) => return Ok(()),
            _ if may_serve_soon && may_wait => Refusal::NotYet,
            (Some(why), _) => Refusal::Policy(format!("volume {volume} is not served here: {why}")),
            (None, _) => {
                let primary = status.record.primary.map_or_else(|| "none".to_owned(), |place| self.name(volume, place));
                Refusal::Policy(format!("volume {volume} is Secondary here; its Primary is {primary}"))
            }
        };
        Err(refusal)
    }

    fn name(&self, volume: VolumeId, place: Place) -> String {
        let known = self.volumes.find(volume);
        let peer = known.as_ref().and_then(|known| known.config.peers.get(&place));
        peer.map_or_else(|| place.to_string(), |peer| peer.name.to_string())
    }
}

/// Whether whom the certificate names may have this attachment, or the bare volume.
fn may_open(who: Option<&Identity>, attachment: Option<&Attachment>) -> Result<(), Refusal> {
    let Some(Identity::Node(name)) = who else { return Ok(()) };
    match attachment {
        Some(it) if it.host == name.as_str() => Ok(()),
        Some(it) => {
            Err(Refusal::Policy(format!("the attachment is of host {}, and the certificate of node {name}", it.host)))
        }
        None => Err(Refusal::Policy(format!(
            "node {name} opens UUID/ATTACHMENT with an attachment of its own; UUID alone is for administrators"
        ))),
    }
}

/// The attachment of that id, if it may use the volume still.
fn admitted<'a>(id: &str, attachments: &'a [Attachment], epoch: u64) -> Result<&'a Attachment, Refusal> {
    let wanted = Uuid::parse_str(id).ok().map(|id| id.as_u128());
    match attachments.iter().find(|it| Some(it.id) == wanted) {
        None => Err(Refusal::Unknown(format!("the volume has no attachment {id}"))),
        Some(it) if it.revoked => Err(Refusal::Policy(format!("attachment {id} was revoked"))),
        Some(it) if it.epoch != epoch => Err(Refusal::Policy(format!(
            "attachment {id} is from before the volume lost what was not flushed: attach anew"
        ))),
        Some(it) => Ok(it),
    }
}
