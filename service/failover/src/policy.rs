//! What the administrator has settled beforehand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::names::Host;

/// The defaults are those of `etc/tandem-ha.toml`.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Silence on every channel for so long opens an incident, and has the BMC asked.
    pub suspect_after: Duration,
    /// Silence on every channel for so long is taken for death, if two independent paths are silent.
    pub silence: Duration,
    /// Nova's word alone is enough where nothing else is watched.
    pub nova_alone: bool,
    /// Nova must have answered within this, or we are blind.
    pub see_within: Duration,
    pub mass_failure_percent: u32,
    pub mass_failure_window: Duration,
    pub quiet: Duration,
    pub flap_limit: u32,
    pub flap_window: Duration,
    pub fence: FencePolicy,
    pub evacuation: EvacuationPolicy,
    /// For hosts that have one of their own.
    pub hosts: BTreeMap<Host, HostPolicy>,
    pub other_hosts: HostPolicy,
}

#[derive(Debug, Clone)]
pub struct FencePolicy {
    /// How often a power-off is sent before the incident is held; then it is sent on, at `slow_retry`.
    pub attempts: u32,
    pub retry: Duration,
    pub slow_retry: Duration,
    /// How long one power-off may take; sent again only after it.
    pub limit: Duration,
    /// How old the last Off reading may be when an evacuation is decided.
    pub held_within: Duration,
    /// How long readings must have said Off before it is believed.
    pub off_for: Duration,
}

#[derive(Debug, Clone)]
pub struct EvacuationPolicy {
    pub in_flight: usize,
    pub per_destination: usize,
    pub per_source: usize,
    pub attempts: u32,
    /// The pause after a failed attempt; it doubles with each.
    pub retry: Duration,
    /// An evacuation without an answer is not repeated before this, and then only if nothing shows of it.
    pub unknown: Duration,
    /// An evacuation that has not ended by then is named; it is still followed.
    pub limit: Duration,
    /// Only instances whose owner says yes, instead of all but those whose owner says no.
    pub opted_in_only: bool,
    /// How long a call to Nova may take until it is sent or dropped.
    pub begin: Duration,
    /// The pause before a call to Nova that failed is made again.
    pub call_retry: Duration,
    /// How long one change of a compute service may take.
    pub call_limit: Duration,
}

#[derive(Debug, Clone)]
pub struct HostPolicy {
    pub segment: Option<Arc<str>>,
    /// Whether its segment is enabled.
    pub enabled: bool,
    /// Whether the root disks of image-backed instances are on storage that other hosts reach.
    pub shared_root: bool,
    pub methods: Vec<Method>,
}

/// A way to make sure that a host runs nothing. (IPMI and the storage fence will stand here.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Redfish,
    Manual,
}

impl Policy {
    /// How long a closed incident is counted by one of the gates.
    pub fn memory(&self) -> Duration {
        self.flap_window.max(self.quiet).max(self.mass_failure_window)
    }

    pub fn of(&self, host: &Host) -> &HostPolicy {
        self.hosts.get(host).unwrap_or(&self.other_hosts)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            suspect_after: Duration::from_secs(2),
            silence: Duration::from_secs(12),
            nova_alone: false,
            see_within: Duration::from_secs(10),
            mass_failure_percent: 50,
            mass_failure_window: Duration::from_secs(600),
            quiet: Duration::from_secs(600),
            flap_limit: 3,
            flap_window: Duration::from_secs(86_400),
            fence: FencePolicy::default(),
            evacuation: EvacuationPolicy::default(),
            hosts: BTreeMap::new(),
            other_hosts: HostPolicy::default(),
        }
    }
}

impl Default for FencePolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            retry: Duration::from_secs(10),
            slow_retry: Duration::from_secs(60),
            limit: Duration::from_secs(10),
            held_within: Duration::from_secs(5),
            off_for: Duration::from_secs(1),
        }
    }
}

impl Default for EvacuationPolicy {
    fn default() -> Self {
        Self {
            in_flight: 32,
            per_destination: 5,
            per_source: 10,
            attempts: 3,
            retry: Duration::from_secs(5),
            unknown: Duration::from_secs(180),
            limit: Duration::from_secs(1800),
            opted_in_only: false,
            begin: Duration::from_secs(5),
            call_retry: Duration::from_secs(3),
            call_limit: Duration::from_secs(20),
        }
    }
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self { segment: None, enabled: true, shared_root: false, methods: vec![Method::Redfish, Method::Manual] }
    }
}
