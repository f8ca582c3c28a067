//! The control document of a volume: what clients and operators have agreed with it, which must survive a takeover.

use core::fmt;

use crate::codec::{MAX_CONTROL_BYTES, control_bytes};

/// How many revoked attachments are kept.
const REMEMBERED: usize = 256;

/// Stored on every in-sync replica before a change of it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// Counts its changes.
    pub version: u64,
    /// The list of fenced hosts is taken in up to this version.
    pub fences: u64,
    pub attachments: Vec<Attachment>,
    /// Persistent reservations of SCSI, as the target encodes them.
    pub reservations: Vec<u8>,
}

/// One host's right to use the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its number in requests; never used again in this volume.
    pub client: u32,
    /// As the client named it, so that asking twice makes one.
    pub id: u128,
    /// The host's name in Nova.
    pub host: String,
    /// The iSCSI name, or empty.
    pub initiator: String,
    pub read_only: bool,
    /// What the initiator proves itself with; without it nobody logs in over iSCSI.
    pub chap: Option<Chap>,
    /// The record's epoch when it began: an older one is refused.
    pub epoch: u64,
    pub revoked: bool,
}

/// Names and secrets of CHAP, both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    pub user: String,
    pub secret: Secret,
    /// What the target proves itself with, if the initiator asks for that.
    pub target: Option<(String, Secret)>,
}

/// It shows itself to nobody who only looks.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One change of the control document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// As given but for its number and epoch. An attachment of this id that is not revoked stays as it is.
    Attach(Attachment),
    /// It begins no write any more, and those begun are finished. Unknown is as good as revoked.
    Revoke { id: u128 },
    /// In place of what was there: whoever asks judged by that.
    Reserve { was: Vec<u8>, next: Vec<u8> },
}

/// Why a change does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Misfit {
    /// An attachment of this id was revoked: a new one needs an id of its own.
    WasRevoked { id: u128 },
    /// The reservations are others by now than those that the change was judged by.
    ReservedMeanwhile,
    /// The document would be longer than its place on the disk.
    TooLong,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WasRevoked { id } => write!(f, "attachment {id:x} was revoked; a new one needs a new id"),
            Self::ReservedMeanwhile => write!(f, "the reservations have changed meanwhile"),
            Self::TooLong => write!(f, "the control document is full: revoke attachments that nobody uses"),
        }
    }
}

/// After force-primary the last documents may be lost, and nobody knows which numbers they gave: each epoch begins with its own, 65,536 apart.
fn first_of(epoch: u64) -> u32 {
    u32::try_from(epoch.saturating_sub(1)).unwrap_or(u32::MAX).min(0xffff) << 16
}

impl Control {
    /// The document after this change; the same version where it changes nothing.
    ///
    /// # Errors
    /// The change does not fit.
    pub fn changed(&self, change: &Change, epoch: u64) -> Result<Self, Misfit> {
        let mut next = self.clone();
        next.apply(change, epoch)?;
        next.forget_the_oldest();
        if next != *self {
            next.version += 1;
        }
        if control_bytes(&next).is_none_or(|bytes| bytes > MAX_CONTROL_BYTES) {
            return Err(Misfit::TooLong);
        }
        Ok(next)
    }

    fn apply(&mut self, change: &Change, epoch: u64) -> Result<(), Misfit> {
        match change {
            Change::Attach(wanted) => match self.attachments.iter().find(|it| it.id == wanted.id) {
                Some(it) if it.revoked => return Err(Misfit::WasRevoked { id: wanted.id }),
                Some(it) if it.epoch == epoch => {}
                _ => {
                    let last = self.attachments.iter().map(|it| it.client).max().unwrap_or_default();
                    let client = last.max(first_of(epoch)).saturating_add(1);
                    self.attachments.retain(|it| it.id != wanted.id);
                    self.attachments.push(Attachment { client, epoch, revoked: false, ..wanted.clone() });
                }
            },
            Change::Revoke { id } => {
                self.attachments.iter_mut().filter(|it| it.id == *id).for_each(|it| it.revoked = true);
            }
            Change::Reserve { was, next } if self.reservations == *was => self.reservations.clone_from(next),
            Change::Reserve { .. } => return Err(Misfit::ReservedMeanwhile),
        }
        Ok(())
    }

    /// Of those revoked the last ones are remembered, so that a late request for one of them is known for what it is.
    fn forget_the_oldest(&mut self) {
        let revoked = self.attachments.iter().filter(|it| it.revoked).count();
        let mut too_many = revoked.saturating_sub(REMEMBERED);
        self.attachments.retain(|it| {
            let goes = it.revoked && too_many > 0;
            too_many -= usize::from(goes);
            !goes
        });
    }

    /// These attachments are of hosts that are fenced.
    #[must_use]
    pub fn fenced(&self, version: u64, clients: &[u32]) -> Self {
        let mut next = self.clone();
        next.fences = next.fences.max(version);
        next.attachments.iter_mut().filter(|it| clients.contains(&it.client)).for_each(|it| it.revoked = true);
        next.version += 1;
        next
    }

    /// Whether this client may begin a write or a read. Client 0 is the node itself.
    #[must_use]
    pub fn admits(&self, client: u32, epoch: u64) -> bool {
        client == 0 || self.attachments.iter().any(|it| it.client == client && !it.revoked && it.epoch == epoch)
    }
}
