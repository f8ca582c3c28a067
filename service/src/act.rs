//! Carries out what has been decided and recorded: one act, one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use failover::{Act, Answer, How, InstanceId, Policy, Time, disabled_reason};
use openstack_client::{Cloud, Error, RequestId, ServerId, ServiceId, chain};
use uuid::Uuid;

use crate::clock::Clock;
use crate::fence::redfish::Redfish;

/// The hands: all that reaches out of this process to change something.
#[derive(Debug, Clone)]
pub struct Hands {
    pub cloud: Cloud,
    /// By the names of their hosts.
    pub bmcs: Arc<BTreeMap<String, Arc<Redfish>>>,
    pub clock: Clock,
}

/// How long an act may take until it is certainly sent, or certainly not.
pub fn limit(act: &Act, policy: &Policy) -> Duration {
    match act {
        Act::PowerOff { .. } => policy.fence.limit,
        Act::ForceDown { .. } | Act::Disable { .. } | Act::ClearForcedDown { .. } | Act::Enable { .. } => {
            policy.evacuation.call_limit
        }
        Act::Evacuate { .. } | Act::Start { .. } => policy.evacuation.begin,
    }
}

/// Whether it changes the row of the compute service, and with it `updated_at`.
pub fn edits_the_service(act: &Act) -> bool {
    match act {
        Act::ForceDown { .. } | Act::Disable { .. } | Act::ClearForcedDown { .. } | Act::Enable { .. } => true,
        Act::PowerOff { .. } | Act::Evacuate { .. } | Act::Start { .. } => false,
    }
}

impl Hands {
    /// Does it, unless the time in which only we may do it would end meanwhile: the clock is read just before.
    pub async fn carry_out(&self, act: &Act, limit: Duration, lease_until: Time) -> Answer {
        if self.clock.now() + limit >= lease_until {
            return Answer::NotSent { why: "too late: it was decided too long ago".into() };
        }
        match act {
            Act::PowerOff { .. } => self.power_off(act, limit).await,
            Act::Evacuate { instance, .. } => once(self.cloud.evacuate(server(*instance), None).await),
            Act::Start { instance, how: How::Start, .. } => once(self.cloud.start(server(*instance)).await),
            Act::Start { instance, how: How::HardReboot, .. } => once(self.cloud.hard_reboot(server(*instance)).await),
            Act::ForceDown { .. } | Act::Disable { .. } | Act::ClearForcedDown { .. } | Act::Enable { .. } => {
                let edited = tokio::time::timeout(limit, self.edit(act)).await;
                edited.unwrap_or_else(|_| Answer::Unknown {
                    why: format!("no answer within {} s", limit.as_secs()).into(),
                })
            }
        }
    }

    async fn power_off(&self, act: &Act, limit: Duration) -> Answer {
        let Some(bmc) = self.bmcs.get(&*act.incident().host.name) else {
            return Answer::NotSent { why: "no BMC is configured".into() };
        };
        match tokio::time::timeout(limit, bmc.force_off()).await {
            Ok(Ok(())) => Answer::Done { request: None },
            Ok(Err(error)) => Answer::Refused { why: chain(&error).into() },
            Err(_) => Answer::Unknown { why: format!("its BMC did not answer within {} s", limit.as_secs()).into() },
        }
    }

    /// A state and not a change: it may be asked for again whatever came of it.
    async fn edit(&self, act: &Act) -> Answer {
        let id = act.incident();
        let service = ServiceId(Uuid::from_u128(id.host.service));
        let edited = match act {
            Act::ForceDown { .. } => self.cloud.force_down(service).await,
            Act::Disable { .. } => self.cloud.disable(service, &disabled_reason(id)).await,
            Act::ClearForcedDown { .. } => self.cloud.clear_forced_down(service).await,
            Act::Enable { .. } => self.cloud.enable(service).await,
            Act::PowerOff { .. } | Act::Evacuate { .. } | Act::Start { .. } => unreachable!("it edits no service"),
        };
        edited.map_or_else(|error| failed(&error), |_| Answer::Done { request: None })
    }
}

fn server(instance: InstanceId) -> ServerId {
    ServerId(Uuid::from_u128(instance.0))
}

fn once(sent: Result<RequestId, Error>) -> Answer {
    match sent {
        Ok(request) => Answer::Done { request: Some(request.0.into()) },
        Err(error) => failed(&error),
    }
}

/// After every error but *unknown* the cloud has not done it; what a service said no to is told from what never reached one.
fn failed(error: &Error) -> Answer {
    let why: Arc<str> = chain(error).into();
    match error {
        _ if error.may_have_happened() => Answer::Unknown { why },
        Error::Refused { .. } | Error::NotFound { .. } | Error::Conflict { .. } => Answer::Refused { why },
        _ => Answer::NotSent { why },
    }
}
