//! Watches the arbiter's list of fenced hosts, and tells every open volume of this node which of its attachments are theirs.
//!
//! ```text
//!  arbiter ── list, version ──▶ Watcher ── hosts_fenced(version, attachments) ──▶ replicas
//!                                  │
//!                                  └── a Primary that let such an attachment in later: revoke
//! ```
//! A Secondary is told as well: it renews no lease of a Primary that knows less, and takes the list in when it is promoted.

pub mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use replication::{Change, Order, Role, VolumeId};
use tokio::sync::{Notify, broadcast};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::arbiter::{Failure, Fences, Register};
use crate::engine::Seen;
use crate::node::Node;

/// How often the list is read.
pub const EVERY: Duration = Duration::from_secs(1);

/// How long a revoke may hold the others up: a frozen Primary is asked again at the next look.
const REVOKE: Duration = Duration::from_secs(2);

type OpenVolumes = Box<dyn Fn() -> Vec<VolumeId> + Send + Sync>;

/// See the module.
pub struct Watcher {
    node: Arc<Node>,
    register: Arc<dyn Register>,
    volumes: OpenVolumes,
    known: Mutex<Option<Fences>>,
    /// The version that each volume was told last.
    told: Mutex<HashMap<VolumeId, u64>>,
    is_reached: AtomicBool,
    wake: Notify,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Watcher {
    /// `volumes`: those that may be open here, at each moment.
    pub fn new(
        node: Arc<Node>,
        register: Arc<dyn Register>,
        volumes: impl Fn() -> Vec<VolumeId> + Send + Sync + 'static,
    ) -> Self {
        let (known, told) = (Mutex::default(), Mutex::default());
        let is_reached = AtomicBool::new(true);
        Self { node, register, volumes: Box::new(volumes), known, told, is_reached, wake: Notify::new() }
    }

    /// For as long as it is polled: the list is read every `every`, and at once when woken; a volume that says something may just have been opened or
    /// promoted, and is told again.
    pub async fn run(&self, every: Duration) {
        let mut said = self.node.said();
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.wake.notified() => {}
                said = said.recv() => match said {
                    Ok(said) => { self.tell_again(said.volume).await; continue }
                    Err(broadcast::error::RecvError::Lagged(_)) => lock(&self.told).clear(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
            // What fails is said once, where it fails.
            let _ = self.refresh().await;
        }
    }

    /// The list may have changed, or a volume was opened.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the list could be read when it was tried last.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.is_reached.load(Ordering::Relaxed)
    }

    /// The newest list that was read here.
    #[must_use]
    pub fn known(&self) -> Option<Fences> {
        lock(&self.known).clone()
    }

    /// The version of the list that this volume's replica here was told.
    #[must_use]
    pub fn told(&self, volume: VolumeId) -> u64 {
        lock(&self.told).get(&volume).copied().unwrap_or_default()
    }

    /// Reads the list, and tells every volume.
    ///
    /// # Errors
    /// The arbiter is away. What is known stays in force.
    pub async fn refresh(&self) -> Result<Fences, Failure> {
        let read = self.register.fences().await;
        let was_reached = self.is_reached.swap(read.is_ok(), Ordering::Relaxed);
        if let Err(error) = &read
            && was_reached
        {
            tracing::warn!(%error, "the list of fenced hosts cannot be read; what was read last stays in force");
        }
        let fences = read?;
        let newest = self.take_in(fences.clone());
        let volumes = (self.volumes)();
        lock(&self.told).retain(|volume, _| volumes.contains(volume));
        join_all(volumes.into_iter().map(|volume| self.tell(volume, &newest))).await;
        Ok(fences)
    }

    /// The newer of both: an arbiter that was restored from a copy lifts no fence.
    fn take_in(&self, fences: Fences) -> Fences {
        let mut known = lock(&self.known);
        match &*known {
            Some(newer) if newer.version > fences.version => newer.clone(),
            _ => known.insert(fences).clone(),
        }
    }

    async fn tell_again(&self, volume: VolumeId) {
        lock(&self.told).remove(&volume);
        if let Some(fences) = self.known() {
            self.tell(volume, &fences).await;
        }
    }

    async fn tell(&self, volume: VolumeId, fences: &Fences) {
        if fences.list.is_empty() && self.told(volume) >= fences.version {
            return;
        }
        let Some(seen) = self.node.look(volume).await else { return };
        let clients = fenced(&seen, fences).map(|attachment| attachment.client).collect();
        self.node.hosts_fenced(volume, fences.version, clients);
        lock(&self.told).insert(volume, fences.version);
        if seen.status.role == Role::Primary && seen.control.fences >= fences.version {
            self.revoke_latecomers(volume, &seen, fences).await;
        }
    }

    /// Attachments that were made while the list was on its way.
    async fn revoke_latecomers(&self, volume: VolumeId, seen: &Seen, fences: &Fences) {
        for attachment in fenced(seen, fences) {
            let revoke = self.node.order(volume, Order::Control(Change::Revoke { id: attachment.id }));
            match timeout(REVOKE, revoke).await {
                Ok(Ok(())) => tracing::info!(%volume, host = attachment.host, "revoked: its host is fenced"),
                Ok(Err(refusal)) => tracing::warn!(%volume, host = attachment.host, ?refusal, "not revoked"),
                Err(_) => return,
            }
        }
    }
}

/// Attachments of fenced hosts that are not revoked.
fn fenced<'a>(seen: &'a Seen, fences: &'a Fences) -> impl Iterator<Item = &'a replication::Attachment> {
    let is_fenced = |host: &str| fences.list.iter().any(|fence| fence.host == host);
    seen.control.attachments.iter().filter(move |attachment| !attachment.revoked && is_fenced(&attachment.host))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
