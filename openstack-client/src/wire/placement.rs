//! Placement: what a resource provider has, what of it is used, and what it can do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What a provider has, by resource class (`VCPU`, `MEMORY_MB`, `DISK_GB`, ...).
#[derive(Debug, Clone, Deserialize)]
pub struct Inventories {
    #[serde(rename = "inventories")]
    pub of: BTreeMap<String, Inventory>,
    /// Changes with every change of the provider.
    #[serde(rename = "resource_provider_generation")]
    pub generation: u64,
}

/// How much of one resource class a provider has, in the class's own unit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Inventory {
    pub total: u64,
    /// Kept for the host itself.
    pub reserved: u64,
    pub allocation_ratio: f64,
    pub min_unit: u64,
    pub max_unit: u64,
    pub step_size: u64,
}

impl Inventory {
    /// What may be allocated in all, by Placement's rule: (total - reserved) × allocation_ratio, rounded down.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "Placement computes it so"
    )]
    pub fn capacity(&self) -> u64 {
        (self.total.saturating_sub(self.reserved) as f64 * self.allocation_ratio) as u64
    }
}

/// What is allocated at a provider, by resource class.
#[derive(Debug, Clone, Deserialize)]
pub struct Usages {
    #[serde(rename = "usages")]
    pub of: BTreeMap<String, u64>,
    #[serde(rename = "resource_provider_generation")]
    pub generation: u64,
}

/// What a provider can do or is, such as `COMPUTE_STATUS_DISABLED`.
#[derive(Debug, Clone, Deserialize)]
pub struct Traits {
    #[serde(rename = "traits")]
    pub names: BTreeSet<String>,
    #[serde(rename = "resource_provider_generation")]
    pub generation: u64,
}
