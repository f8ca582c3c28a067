//! Polls Nova: the compute services every few seconds, aggregates and hypervisors now and then.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use openstack_client::{Aggregate, Cloud, Error, ServiceId, chain};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use crate::clock::Clock;
use crate::conductor::Event;
use crate::world::NovaAnswer;

/// Aggregates and hypervisor types change when people change them.
const ARRANGEMENT_EVERY: Duration = Duration::from_secs(60);

pub async fn run(cloud: Cloud, every: Duration, clock: Clock, events: mpsc::Sender<Event>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut well, mut arranged) = (None, None::<Instant>);
    loop {
        ticks.tick().await;
        if arranged.is_none_or(|at| at.elapsed() >= ARRANGEMENT_EVERY) {
            match arrangement(&cloud).await {
                Ok(event) => {
                    arranged = Some(Instant::now());
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(error = chain(&error), "no aggregates and hypervisors"),
            }
        }
        let sent = clock.now();
        let answer = cloud.compute_services().await;
        tell_changes(&mut well, &answer);
        let Ok(services) = answer else { continue };
        if events.send(Event::Nova(NovaAnswer { sent, services })).await.is_err() {
            return;
        }
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

async fn arrangement(cloud: &Cloud) -> Result<Event, Error> {
    let aggregates: Vec<Aggregate> = cloud.aggregates().await?;
    let hypervisors: Vec<_> = cloud.hypervisors().try_collect().await?;
    let ironic: BTreeSet<ServiceId> = hypervisors
        .iter()
        .filter(|hypervisor| hypervisor.kind.eq_ignore_ascii_case("ironic"))
        .map(|hypervisor| hypervisor.service.id)
        .collect();
    Ok(Event::Arrangement { aggregates, ironic })
}
