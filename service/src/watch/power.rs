//! Reads one host's BMC: seldom in peace, every second when its host is looked at closely.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use failover::Host;
use openstack_client::chain;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::conductor::Event;
use crate::fence::redfish::{PowerReading, Redfish};
use crate::world::Reading;

/// To notice a BMC that died or was exchanged, and to bind it.
const IN_PEACE: Duration = Duration::from_secs(30);
/// Two readings that are a second apart make a proof: a little more, so that they are.
const CLOSELY: Duration = Duration::from_millis(1050);
/// Until it has answered for the first time.
const AT_FIRST: Duration = Duration::from_secs(3);

pub async fn run(
    name: String,
    bmc: Arc<Redfish>,
    closely: watch::Receiver<BTreeSet<Host>>,
    clock: Clock,
    events: mpsc::Sender<Event>,
) {
    let mut closely = closely;
    let mut told: Option<String> = None;
    let mut ever = false;
    loop {
        let asked = clock.now();
        let (reading, system) = match bmc.read().await {
            Ok(state) => (of(state.power), state.uuid),
            Err(error) => (Reading::Unknown(chain(&error).into()), None),
        };
        tell_changes(&name, &reading, &mut told);
        ever |= system.is_some() || !matches!(reading, Reading::Unknown(_));
        let event = Event::Power { name: name.clone(), reading, system, asked, answered: clock.now() };
        if events.send(event).await.is_err() {
            return;
        }
        let pause = |close: bool| match (close, ever) {
            (true, _) => CLOSELY,
            (false, true) => IN_PEACE,
            (false, false) => AT_FIRST,
        };
        let is_close = |hosts: &BTreeSet<Host>| hosts.iter().any(|host| *host.name == *name);
        let was_close = is_close(&closely.borrow_and_update());
        tokio::select! {
            () = sleep(pause(was_close)) => {}
            () = becomes_close(&mut closely, was_close, is_close) => {}
        }
    }
}

async fn becomes_close(
    closely: &mut watch::Receiver<BTreeSet<Host>>,
    was_close: bool,
    is_close: impl Fn(&BTreeSet<Host>) -> bool,
) {
    if was_close || closely.wait_for(|hosts| is_close(hosts)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn of(reading: PowerReading) -> Reading {
    match reading {
        PowerReading::On => Reading::On,
        PowerReading::Off => Reading::Off,
        PowerReading::Changing => Reading::Unknown("its power is changing".into()),
        PowerReading::Unknown(why) => Reading::Unknown(why.into()),
    }
}

fn tell_changes(host: &str, reading: &Reading, told: &mut Option<String>) {
    let now = match reading {
        Reading::On => "On".to_owned(),
        Reading::Off => "Off".to_owned(),
        Reading::Unknown(why) => why.to_string(),
    };
    if told.as_ref() != Some(&now) {
        tracing::info!(host, reading = now, "its BMC");
        *told = Some(now);
    }
}
