//! Calls to Placement: what a compute node has left. Since Nova 2.88 the only place that says so.

use crate::Cloud;
use crate::call::{Ask, Service};
use crate::error::Error;
use crate::microversion::{Microversion, Wanted};
use crate::wire::nova::HypervisorId;
use crate::wire::placement::{Inventories, Traits, Usages};

/// Inventories and usages have not changed since 1.0; traits came with 1.6.
const FIRST: Wanted = Wanted::exactly(Microversion(1, 0));
const TRAITS: Wanted = Wanted::exactly(Microversion(1, 6));

impl Cloud {
    /// What a compute node has (`GET /resource_providers/{id}/inventories`).
    pub async fn inventories(&self, node: HypervisorId) -> Result<Inventories, Error> {
        self.call(&self.of_provider(node, "inventories", FIRST)).await?.json()
    }

    /// What of it is allocated. After an evacuation the dead host's allocations stay until its nova-compute starts again.
    pub async fn usages(&self, node: HypervisorId) -> Result<Usages, Error> {
        self.call(&self.of_provider(node, "usages", FIRST)).await?.json()
    }

    /// What a compute node can do or is; `COMPUTE_STATUS_DISABLED` keeps the scheduler away (`GET /resource_providers/{id}/traits`).
    pub async fn traits(&self, node: HypervisorId) -> Result<Traits, Error> {
        self.call(&self.of_provider(node, "traits", TRAITS)).await?.json()
    }

    fn of_provider(&self, node: HypervisorId, what: &str, wanted: Wanted) -> Ask {
        Ask::get(self, Service::Placement, format!("/resource_providers/{node}/{what}"), wanted)
    }
}
