//! Polls Nova: the compute services every few seconds, aggregates and hypervisors now and then.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use openstack_client::{Cloud, ComputeService, Error, ServiceId, chain};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::conductor::Event;
use crate::world::NovaAnswer;

/// Aggregates and hypervisor types change when people change them.
const ARRANGEMENT_EVERY: Duration = Duration::from_secs(60);
const AFTER_AN_ERROR: Duration = Duration::from_secs(5);
/// A question that is out for so long may never be answered, or waits for a silent cell: another one is asked beside it.
const OVERDUE: Duration = Duration::from_secs(10);
/// So many may be out at once: before the client gives the first one up, so that a Nova that was hung is seen again within `OVERDUE`.
const MOST_OUT: usize = 7;

/// Asks for the compute services at every tick, unless the last question is still out and not overdue.
pub async fn run(cloud: Cloud, every: Duration, clock: Clock, events: mpsc::Sender<Event>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut out = JoinSet::new();
    let (mut well, mut asked) = (None, Instant::now());
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if out.is_empty() || (asked.elapsed() >= OVERDUE && out.len() < MOST_OUT) {
                    asked = Instant::now();
                    out.spawn(ask(cloud.clone(), clock));
                }
            }
            Some(Ok((sent, answer))) = out.join_next() => {
                tell_changes(&mut well, &answer);
                let Ok(services) = answer else { continue };
                if events.send(Event::Nova(NovaAnswer { sent, services })).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn ask(cloud: Cloud, clock: Clock) -> (failover::Time, Result<Vec<ComputeService>, Error>) {
    let sent = clock.now();
    (sent, cloud.compute_services().await)
}

/// Which hosts stand together, for as long as anybody listens.
pub async fn watch_aggregates(cloud: Cloud, events: mpsc::Sender<Event>) {
    now_and_then("aggregates", events, || async { Ok(Event::Aggregates(cloud.aggregates().await?)) }).await;
}

/// Which compute services are of bare metal, for as long as anybody listens. Asked for apart: a dead host can make Nova fail to list its hypervisors.
pub async fn watch_bare_metal(cloud: Cloud, events: mpsc::Sender<Event>) {
    now_and_then("hypervisors", events, || async { Ok(Event::BareMetal(bare_metal(&cloud).await?)) }).await;
}

async fn now_and_then<F>(what: &'static str, events: mpsc::Sender<Event>, mut read: impl FnMut() -> F)
where
    F: Future<Output = Result<Event, Error>>,
{
    loop {
        let pause = match read().await {
            Ok(event) => match events.send(event).await {
                Ok(()) => ARRANGEMENT_EVERY,
                Err(_) => return,
            },
            Err(error) => {
                tracing::debug!(error = chain(&error), what, "not listed");
                AFTER_AN_ERROR
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// One line when Nova stops answering, and one when it answers again.
fn tell_changes<T>(well: &mut Option<bool>, answer: &Result<T, Error>) {
    match answer {
        Ok(_) if *well == Some(false) => tracing::info!("Nova answers again"),
        Err(error) if *well != Some(false) => {
            tracing::warn!(error = chain(error), "Nova does not answer: nothing is begun until it does")
        }
        Ok(_) | Err(_) => {}
    }
    *well = Some(answer.is_ok());
}

async fn bare_metal(cloud: &Cloud) -> Result<BTreeSet<ServiceId>, Error> {
    let hypervisors: Vec<_> = cloud.hypervisors().try_collect().await?;
    let ironic = hypervisors.iter().filter(|hypervisor| hypervisor.kind.eq_ignore_ascii_case("ironic"));
    Ok(ironic.map(|hypervisor| hypervisor.service.id).collect())
}
