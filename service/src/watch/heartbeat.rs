//! Hears compute hosts that say, every second and on every network, that they live.
//!
//! ```text
//!  compute host                                tandem-ha
//!  Sender ── one packet a network ── UDP ──▶ Listener ── wire ── guard ──▶ Beat
//!            (signed, see `wire`)              one socket      (never an old
//!                                              a network        one again)
//! ```
//!
//! A heartbeat proves that a kernel schedules processes and sends packets; its absence proves nothing. A new boot id says that the host has
//! rebooted. Whoever has the key can speak for every host: it is as secret as root's password on a compute host.

use std::io;
use std::path::PathBuf;

use tokio::time::Instant;
use uuid::Uuid;

pub mod guard;
pub mod identity;
mod listener;
mod refusals;
mod sender;
pub mod wire;

pub use listener::Listener;
pub use sender::{Sender, run_sender};

/// A sign of life that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// As Nova calls it, if its administrator told the sender so.
    pub host: String,
    pub network: String,
    pub boot_id: Uuid,
    /// The machine, as its firmware names it.
    pub system_uuid: Option<Uuid>,
    /// When it arrived, however long it took us to look at it.
    pub at: Instant,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is nowhere to send heartbeats to: give `to` in [[heartbeat.networks]] of {}", file.display())]
    NowhereToSend { file: PathBuf },
    #[error("there is no key to sign heartbeats with: give key_file in [heartbeat] of {}", file.display())]
    NoKey { file: PathBuf },
    #[error("{} tells no {what}", file.display())]
    Identity {
        what: &'static str,
        file: PathBuf,
        #[source]
        source: Option<io::Error>,
    },
    #[error("heartbeats of network {network} cannot be heard at {address}")]
    Listen {
        network: String,
        address: std::net::SocketAddr,
        #[source]
        source: io::Error,
    },
}
