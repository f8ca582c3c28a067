//! Which boot of which machine this is.

use std::fs;
use std::path::Path;

use uuid::Uuid;

use super::Error;
use crate::config::{Heartbeat, is_name};

const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// What boards say whose maker never gave them a UUID: many machines have it.
const EVERYBODYS: Uuid = Uuid::from_u128(0x03000200_0400_0500_0006_000700080009);

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub host: String,
    pub boot_id: Uuid,
    pub system_uuid: Option<Uuid>,
}

impl Identity {
    /// Of this machine. Without a system UUID there is still one; only root may read that file.
    pub fn read(heartbeat: &Heartbeat) -> Result<Self, Error> {
        let host = match &heartbeat.host {
            Some(host) => host.clone(),
            None => first_line(Path::new(HOST_NAME_FILE), "name of this host; give heartbeat.host", |text| {
                is_name(text).then(|| text.to_owned())
            })?,
        };
        let boot_id = first_line(&heartbeat.boot_id_file, "boot id", |text| text.parse().ok())?;
        let system_uuid = match first_line(&heartbeat.system_uuid_file, "system UUID", system_uuid) {
            Ok(system_uuid) => Some(system_uuid),
            Err(why) => {
                tracing::warn!("{}, so the BMC cannot be bound to this machine by it", openstack_client::chain(&why));
                None
            }
        };
        Ok(Self { host, boot_id, system_uuid })
    }
}

fn first_line<T>(file: &Path, what: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
    let failed = |source| Error::Identity { what, file: file.to_owned(), source };
    let text = fs::read_to_string(file).map_err(|e| failed(Some(e)))?;
    read(text.trim()).ok_or_else(|| failed(None))
}

/// A UUID that names one machine and no other; none for those that makers put on every board.
pub fn system_uuid(text: &str) -> Option<Uuid> {
    let uuid: Uuid = text.trim().parse().ok()?;
    (!uuid.is_nil() && !uuid.is_max() && uuid != EVERYBODYS).then_some(uuid)
}
