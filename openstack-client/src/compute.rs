//! Calls to Nova.
//!
//! Each asks for the least microversion that carries what it needs, so that old clouds serve, and for nothing newer than 2.94: from 2.95 an
//! evacuated instance always ends SHUTOFF.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{Stream, StreamExt};
use serde_json::{Value, json};

use crate::Cloud;
use crate::call::{Ask, Service as Api};
use crate::error::{Error, RequestId};
use crate::microversion::{Microversion, Wanted};
use crate::wire::nova::{
    Aggregate, Aggregates, ComputeService, Hypervisor, Hypervisors, InstanceAction, InstanceActions, Migration,
    MigrationKind, MigrationStatus, Migrations, OneInstanceAction, OneServer, ServerGroup, ServerGroups, ServerId,
    ServerRow, Servers, Service, ServiceId, Services, UpdatedService,
};

/// What the start, stop and reboot actions have been since the first.
const FIRST: Wanted = Wanted::exactly(Microversion(2, 1));
/// 2.53 UUIDs as ids; 2.69 rows of down cells, which are simply missing before.
const SERVICES: Wanted = Wanted::exactly(Microversion(2, 69));
const UPDATE_SERVICE: Wanted = Wanted::exactly(Microversion(2, 53));
/// 2.3 volumes with delete_on_termination, 2.9 locked, 2.26 tags, 2.47 flavor with extra_specs, 2.69 down cells; 2.73 locked_reason.
const SERVERS: Wanted = Wanted::between(Microversion(2, 69), Microversion(2, 73));
/// 2.71 the server's groups.
const SERVER: Wanted = Wanted::between(Microversion(2, 71), Microversion(2, 73));
/// From 2.68 without `force`, which went around the scheduler; to 2.94, see above.
const EVACUATE: Wanted = Wanted::between(Microversion(2, 68), Microversion(2, 94));
/// 2.59 pages, uuid, changes-since.
const MIGRATIONS: Wanted = Wanted::exactly(Microversion(2, 59));
/// 2.58 limit and changes-since; 2.62 the host of an event; 2.84 its details.
const ACTIONS: Wanted = Wanted::between(Microversion(2, 58), Microversion(2, 84));
/// 2.64 policy and rules.
const SERVER_GROUPS: Wanted = Wanted::exactly(Microversion(2, 64));
/// 2.41 uuid.
const AGGREGATES: Wanted = Wanted::exactly(Microversion(2, 41));
/// 2.53 UUIDs as ids. Not 2.88, with which Nova asks each compute for its uptime, and waits 60 s for a dead one.
const HYPERVISORS: Wanted = Wanted::between(Microversion(2, 53), Microversion(2, 87));

/// What is asked about migrations; the default asks for all.
#[derive(Debug, Clone, Default)]
pub struct MigrationFilter {
    /// Source or destination.
    pub host: Option<String>,
    /// Source only. Nova ignores it beside `host`.
    pub source: Option<String>,
    pub server: Option<ServerId>,
    pub kind: Option<MigrationKind>,
    pub status: Option<MigrationStatus>,
    pub changed_since: Option<DateTime<Utc>>,
}

impl Cloud {
    /// All compute services, also those of cells that do not answer (`GET /os-services?binary=nova-compute`).
    ///
    /// **While a cell does not answer, `state` may say down of hosts that are well**: Nova reads all cells at once, waits up to 60 s for the
    /// silent one (its `CELL_TIMEOUT`) and only then compares `last_seen_up`, read long ago, with the clock. Believe a down in an answer with
    /// `NoData` rows only if `updated_at` was already old when the call was sent.
    pub async fn compute_services(&self) -> Result<Vec<ComputeService>, Error> {
        let ask = Ask::collect(self, "/os-services", SERVICES).with("binary", "nova-compute");
        Ok(self.call(&ask).await?.json::<Services>()?.services)
    }

    /// The compute service of one host; none if Nova knows no such host.
    pub async fn compute_service(&self, host: &str) -> Result<Option<ComputeService>, Error> {
        let ask = Ask::collect(self, "/os-services", SERVICES).with("binary", "nova-compute").with("host", host);
        let found = self.call(&ask).await?.json::<Services>()?.services;
        Ok(found.into_iter().find(|service| service.host() == host))
    }

    /// Tells Nova that the host is down, whatever its service reports: from now on Nova lets its instances be evacuated.
    pub async fn force_down(&self, service: ServiceId) -> Result<Service, Error> {
        self.update_service(service, json!({"forced_down": true}), self.limits().attempt).await
    }

    /// Takes that back. Nova refuses (400) while evacuations of the host are `done`: its nova-compute has to start and complete them first.
    pub async fn clear_forced_down(&self, service: ServiceId) -> Result<Service, Error> {
        self.update_service(service, json!({"forced_down": false}), self.limits().attempt).await
    }

    /// Keeps the scheduler from the host. Force a dead host down first: while Nova believes it up, this waits 60 s for its nova-compute.
    pub async fn disable(&self, service: ServiceId, reason: &str) -> Result<Service, Error> {
        let state = json!({"status": "disabled", "disabled_reason": reason});
        self.update_service(service, state, self.limits().write).await
    }

    /// Lets the scheduler choose the host again.
    pub async fn enable(&self, service: ServiceId) -> Result<Service, Error> {
        self.update_service(service, json!({"status": "enabled"}), self.limits().attempt).await
    }

    /// A state and not a change: repeating it does no harm (`PUT /os-services/{id}`).
    async fn update_service(&self, service: ServiceId, state: Value, attempt: Duration) -> Result<Service, Error> {
        let ask = Ask { attempt, ..Ask::set(self, format!("/os-services/{service}"), state, UPDATE_SERVICE) };
        Ok(self.call(&ask).await?.json::<UpdatedService>()?.service)
    }

    /// All instances on a host, of all projects, page by page (`GET /servers/detail?host=`).
    ///
    /// **An empty list proves nothing while the host's cell is down**: Nova leaves the instances of such cells out of filtered lists. Believe
    /// it only if [`Cloud::compute_service`] had data of the host before and after: a cell can be silent for one call alone. Ends with an error
    /// if an instance is deleted just as it is the last of a page (400, marker not found): list again.
    pub fn servers_of_host(&self, host: &str) -> impl Stream<Item = Result<ServerRow, Error>> + Send + use<> {
        let ask = Ask::collect(self, "/servers/detail", SERVERS).with("all_tenants", 1).with("host", host);
        let (call, host) = (ask.call(), host.to_owned());
        self.pages::<Servers>(ask).map(move |row| match row? {
            ServerRow::Known(server) if server.host.as_ref() != Some(&host) => {
                Err(Error::NotFiltered { call: Box::new(call.clone()), host: host.clone() })
            }
            row => Ok(row),
        })
    }

    /// One instance, with its server groups (`GET /servers/{id}`).
    pub async fn server(&self, server: ServerId) -> Result<ServerRow, Error> {
        let ask = Ask::get(self, Api::Compute, format!("/servers/{server}"), SERVER);
        Ok(self.call(&ask).await?.json::<OneServer>()?.server)
    }

    /// Has the instance rebuilt on another host: the scheduler's choice, or `host` if the scheduler agrees. Its own host must be down.
    ///
    /// Sent at most once: Nova accepts a second evacuation while the first runs. After [`Error::Unknown`] look at the migrations.
    pub async fn evacuate(&self, server: ServerId, host: Option<&str>) -> Result<RequestId, Error> {
        let wish = host.map_or_else(|| json!({}), |host| json!({"host": host}));
        let mut ask = self.act(server, json!({"evacuate": wish}), EVACUATE);
        ask.limit = self.limits().evacuate;
        Ok(self.call(&ask).await?.request_id())
    }

    /// Starts a stopped instance. Sent at most once.
    pub async fn start(&self, server: ServerId) -> Result<RequestId, Error> {
        Ok(self.call(&self.act(server, json!({"os-start": null}), FIRST)).await?.request_id())
    }

    /// Stops an instance. Sent at most once.
    pub async fn stop(&self, server: ServerId) -> Result<RequestId, Error> {
        Ok(self.call(&self.act(server, json!({"os-stop": null}), FIRST)).await?.request_id())
    }

    /// Reboots an instance as if by its power button. Sent at most once.
    pub async fn hard_reboot(&self, server: ServerId) -> Result<RequestId, Error> {
        Ok(self.call(&self.act(server, json!({"reboot": {"type": "HARD"}}), FIRST)).await?.request_id())
    }

    /// `POST /servers/{id}/action`
    fn act(&self, server: ServerId, action: Value, wanted: Wanted) -> Ask {
        Ask::once(self, format!("/servers/{server}/action"), action, wanted)
    }

    /// Migrations, newest first, page by page (`GET /os-migrations`).
    ///
    /// **That there is none proves nothing while a cell is down**: Nova skips the cells that do not answer, and says nothing of it.
    pub fn migrations(&self, filter: &MigrationFilter) -> impl Stream<Item = Result<Migration, Error>> + Send + use<> {
        let since = filter.changed_since.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
        let terms = [
            ("host", filter.host.clone()),
            ("source_compute", filter.source.clone()),
            ("instance_uuid", filter.server.map(|server| server.to_string())),
            ("migration_type", filter.kind.as_ref().map(ToString::to_string)),
            ("status", filter.status.as_ref().map(ToString::to_string)),
            ("changes-since", since),
        ];
        let mut ask = Ask::collect(self, "/os-migrations", MIGRATIONS);
        ask.query.extend(terms.into_iter().filter_map(|(key, value)| Some((key, value?))));
        self.pages::<Migrations>(ask)
    }

    /// What was done to an instance, newest first, without the steps (`GET /servers/{id}/os-instance-actions`).
    pub async fn instance_actions(&self, server: ServerId) -> Result<Vec<InstanceAction>, Error> {
        let ask = Ask::get(self, Api::Compute, format!("/servers/{server}/os-instance-actions"), ACTIONS);
        Ok(self.call(&ask).await?.json::<InstanceActions>()?.actions)
    }

    /// One action with its steps. `request` is what the call that began it returned.
    pub async fn instance_action(&self, server: ServerId, request: &RequestId) -> Result<InstanceAction, Error> {
        let ask = Ask::get(self, Api::Compute, format!("/servers/{server}/os-instance-actions/{request}"), ACTIONS);
        Ok(self.call(&ask).await?.json::<OneInstanceAction>()?.action)
    }

    /// The server groups of all projects (`GET /os-server-groups`). They are read by `offset`: one that is deleted meanwhile can hide another
    /// until the next look.
    pub async fn server_groups(&self) -> Result<Vec<ServerGroup>, Error> {
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        loop {
            let ask = Ask::get(self, Api::Compute, "/os-server-groups", SERVER_GROUPS).with("all_projects", true);
            let ask = ask.with("limit", self.limits().page).with("offset", all.len());
            let page = self.call(&ask).await?.json::<ServerGroups>()?.server_groups;
            let new: Vec<_> = page.into_iter().filter(|group| seen.insert(group.id)).collect();
            if new.is_empty() {
                return Ok(all);
            }
            all.extend(new);
        }
    }

    /// All aggregates (`GET /os-aggregates`).
    pub async fn aggregates(&self) -> Result<Vec<Aggregate>, Error> {
        let ask = Ask::get(self, Api::Compute, "/os-aggregates", AGGREGATES);
        Ok(self.call(&ask).await?.json::<Aggregates>()?.aggregates)
    }

    /// All compute nodes, page by page (`GET /os-hypervisors/detail`).
    pub fn hypervisors(&self) -> impl Stream<Item = Result<Hypervisor, Error>> + Send + use<> {
        self.pages::<Hypervisors>(Ask::collect(self, "/os-hypervisors/detail", HYPERVISORS))
    }
}
