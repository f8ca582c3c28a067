//! The few OpenStack calls that Tandem makes, typed, with errors that say whether the cloud may have done what it was asked.
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use openstack_client::{Cloud, CloudConfig, Limits, Surroundings};
//!
//! # async fn example() -> Result<(), openstack_client::Error> {
//! let config = CloudConfig::load(None, &Surroundings::of_this_process())?;
//! let cloud = Cloud::new(config, Limits::default())?;
//! let servers: Vec<_> = cloud.servers_of_host("cmp1").try_collect().await?;
//! # Ok(()) }
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use osauth::{EndpointFilters, InterfaceType, NoAuth};

mod auth;
mod call;
mod compute;
mod config;
mod error;
mod http;
mod identity;
mod microversion;
mod placement;
mod retry;
mod secret;
mod wire;

pub use compute::MigrationFilter;
pub use config::{
    ApplicationCredential, CloudConfig, ConfigError, Credentials, Domain, Interface, Named, Surroundings,
};
pub use error::{Call, Cause, Error, RequestId, chain};
pub use microversion::{Microversion, Offered};
pub use openstack::session::Session;
pub use secret::Secret;
pub use wire::keystone::{AccessRule, Bearer, BearerCredential, NamedDomain, Project, Role, TokenScope, User};
pub use wire::nova::{
    Aggregate, AttachedVolume, ComputeService, Flavor, GroupPolicy, GroupRules, Hypervisor, HypervisorId,
    HypervisorService, InstanceAction, InstanceEvent, Migration, MigrationKind, MigrationStatus, PowerState, Root,
    Server, ServerGroup, ServerId, ServerRow, Service, ServiceId, ServiceState, ServiceStatus, TaskState, VmState,
};
pub use wire::placement::{Inventories, Inventory, Traits, Usages};

use auth::{Auth, Shared};
use http::Http;

/// How long we wait, how often we repeat, how much we hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For a connection to come about.
    pub connect: Duration,
    /// For one attempt of a call that may be repeated.
    pub attempt: Duration,
    /// For one attempt of a read that Nova collects from all its cells: more than the 60 s (`CELL_TIMEOUT`) that it waits for a silent one.
    pub cells: Duration,
    /// For a read with all its attempts.
    pub read: Duration,
    /// For a call that changes something. More than the 60 s that Nova waits when a host is disabled which it wrongly believes up.
    pub write: Duration,
    /// For an evacuation.
    pub evacuate: Duration,
    /// Within this what must happen once is sent, or not at all: what spoke for it may have changed.
    pub begin: Duration,
    /// How many times a call is sent at most.
    pub attempts: u32,
    /// The longest pause before the second attempt; it doubles with each.
    pub pause: Duration,
    pub longest_pause: Duration,
    /// The largest answer that is taken in.
    pub body_bytes: usize,
    /// How many items a page of a list has.
    pub page: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(30),
            cells: Duration::from_secs(75),
            read: Duration::from_secs(100),
            write: Duration::from_secs(90),
            evacuate: Duration::from_secs(120),
            begin: Duration::from_secs(5),
            attempts: 4,
            pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(8),
            body_bytes: 32 << 20,
            page: const { NonZeroU32::new(200).unwrap() },
        }
    }
}

/// The one door to a cloud. Clones share the token, the connections and what is known about the cloud.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    auth: Arc<Auth>,
    http: Http,
    session: Session,
    limits: Limits,
    compute_versions: KnownVersions,
    placement_versions: KnownVersions,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("config", self.config()).field("limits", self.limits()).finish_non_exhaustive()
    }
}

impl Cloud {
    /// A door to this cloud. Nothing is sent before the first call; [`Cloud::authenticate`] tells early whether it opens.
    pub fn new(config: CloudConfig, limits: Limits) -> Result<Self, ConfigError> {
        if !config.verify {
            tracing::warn!(
                origin = config.origin,
                "verify is false: whoever stands between us and the cloud can read the password"
            );
        }
        let http = Http::new(&config, &limits)?;
        let auth = Arc::new(Auth::new(config, limits.clone(), http.clone()));
        let session = session(&auth, &http);
        Ok(Self(Arc::new(Inner {
            auth,
            http,
            session,
            limits,
            compute_versions: KnownVersions::default(),
            placement_versions: KnownVersions::default(),
        })))
    }

    /// Gets a token now, to know whether Keystone is there and accepts us.
    pub async fn authenticate(&self) -> Result<(), Error> {
        self.auth().token(None).await.map(drop)
    }

    /// The session of the `openstack` crate for all calls that this crate does not make; it uses our token and endpoints.
    pub fn session(&self) -> &Session {
        &self.0.session
    }

    pub fn config(&self) -> &CloudConfig {
        &self.auth().config
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn auth(&self) -> &Arc<Auth> {
        &self.0.auth
    }

    pub(crate) fn http(&self) -> &Http {
        &self.0.http
    }

    pub(crate) fn versions(&self, service: call::Service) -> &KnownVersions {
        match service {
            call::Service::Compute => &self.0.compute_versions,
            // Keystone's v3 has no microversions, so nobody asks for its own
            call::Service::Placement | call::Service::Identity => &self.0.placement_versions,
        }
    }
}

fn session(auth: &Arc<Auth>, http: &Http) -> Session {
    // A session made with our own authentication would ask for a token at once; exchanging it afterwards asks for none.
    let made = Session::new_with_client(http.kept.clone(), NoAuth::new_without_endpoint()).now_or_never();
    let session = made.expect("NoAuth waits for nothing").expect("NoAuth refuses nothing");
    let interface = match auth.config.interface {
        Interface::Public => InterfaceType::Public,
        Interface::Internal => InterfaceType::Internal,
        Interface::Admin => InterfaceType::Admin,
    };
    let mut filters = EndpointFilters::default().with_interfaces(interface);
    filters.region.clone_from(&auth.config.region);
    session.with_auth_type(Shared(Arc::clone(auth))).with_endpoint_filters(filters)
}

/// The microversions that a service offers, once it has been asked.
#[derive(Default)]
pub(crate) struct KnownVersions {
    offered: Mutex<Option<Offered>>,
    /// Held while one caller asks for all.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl KnownVersions {
    pub(crate) fn get(&self) -> Option<Offered> {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, offered: Option<Offered>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = offered;
    }
}
