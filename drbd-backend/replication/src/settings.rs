//! What an administrator chooses for a volume, and the limits of time and memory.

use core::time::Duration;

use crate::names::{Node, VolumeId};

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Once every in-sync disk has completed it; what a FLUSH or FUA covers survives a power loss of all.
    Flush,
    /// Once it would survive a power loss of all.
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub volume: VolumeId,
    pub me: Node,
    pub durability: Durability,
    /// Whether this node becomes Primary unasked when the Primary is gone.
    pub takes_over: bool,
    /// How long an answered heartbeat lets a Primary serve, from when the heartbeat was sent.
    pub lease: Duration,
    /// How long after the last heartbeat that it answered a Secondary is not promoted: more than `lease` x (1 + drift) + margin.
    pub grace: Duration,
    pub heartbeat_every: Duration,
    /// How long a lost connection may take to come back before the peer is dropped.
    pub reconnect: Duration,
    /// How long a peer that answers heartbeats may take for a write before it is dropped.
    pub stalled: Duration,
    /// How long to wait before the arbiter is asked again.
    pub ask_again: Duration,
    /// After so long a barrier covers what was written, though nobody asked for it.
    pub barrier_every: Duration,
    /// Extents of the activity log, at most 1000.
    pub hot_extents: usize,
    /// Writes in flight at once, resync included.
    pub in_flight: usize,
    pub resync: ResyncSettings,
    /// Each read is confirmed by every in-sync peer before it is answered: promise 5.
    pub confirm_reads: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResyncSettings {
    /// Blocks of one step.
    pub step_blocks: u32,
    /// Steps in flight: never fewer than the first, never more than the second.
    pub steps: (u32, u32),
    /// While clients work a resync copies for this share of the time, in percent.
    pub share: u32,
}

impl Settings {
    /// The defaults for a volume.
    #[must_use]
    pub fn of(volume: VolumeId, me: Node) -> Self {
        Self {
            volume,
            me,
            durability: Durability::Flush,
            takes_over: true,
            lease: Duration::from_secs(2),
            grace: Duration::from_millis(2_300),
            heartbeat_every: Duration::from_millis(400),
            reconnect: Duration::from_millis(200),
            stalled: Duration::from_secs(10),
            ask_again: Duration::from_millis(250),
            barrier_every: Duration::from_secs(5),
            hot_extents: 1000,
            in_flight: 1024,
            resync: ResyncSettings { step_blocks: 64, steps: (1, 32), share: 50 },
            confirm_reads: false,
        }
    }
}
