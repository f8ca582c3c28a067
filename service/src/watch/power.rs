//! Reads one host's BMC: seldom in peace, every second when its host is looked at closely.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openstack_client::chain;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::conductor::Event;
use crate::fence::redfish::{PowerReading, Redfish};
use crate::world::Reading;

/// To notice a BMC that died or was exchanged.
const IN_PEACE: Duration = Duration::from_secs(30);
/// Until it is known to be its host's.
const UNBOUND: Duration = Duration::from_secs(3);
/// Two readings that are a second apart make a proof: a little more, so that they are.
const CLOSELY: Duration = Duration::from_millis(1050);

/// Which hosts' BMCs are worth more than a reading now and then, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attention {
    pub close: BTreeSet<String>,
    pub unbound: BTreeSet<String>,
}

impl Attention {
    fn every(&self, name: &str) -> Duration {
        match (self.close.contains(name), self.unbound.contains(name)) {
            (true, _) => CLOSELY,
            (false, true) => UNBOUND,
            (false, false) => IN_PEACE,
        }
    }
}

pub async fn run(
    name: String,
    bmc: Arc<Redfish>,
    mut attention: watch::Receiver<Attention>,
    clock: Clock,
    events: mpsc::Sender<Event>,
) {
    let mut told: Option<String> = None;
    loop {
        let asked = clock.now();
        let (reading, system) = match bmc.read().await {
            Ok(state) => (of(state.power), state.uuid),
            Err(error) => (Reading::Missed(chain(&error).into()), None),
        };
        tell_changes(&name, &reading, &mut told);
        let event = Event::Power { name: name.clone(), reading, system, asked, answered: clock.now() };
        if events.send(event).await.is_err() {
            return;
        }
        let every = attention.borrow_and_update().every(&name);
        tokio::select! {
            () = sleep(every) => {}
            more = attention.wait_for(|attention| attention.every(&name) < every) => if more.is_err() { return },
        }
    }
}

fn of(reading: PowerReading) -> Reading {
    match reading {
        PowerReading::On => Reading::On,
        PowerReading::Off => Reading::Off,
        PowerReading::Changing => Reading::Changing("its power is changing".into()),
        PowerReading::Unknown(why) => Reading::Missed(why.into()),
    }
}

fn tell_changes(host: &str, reading: &Reading, told: &mut Option<String>) {
    let now = match reading {
        Reading::On => "On".to_owned(),
        Reading::Off => "Off".to_owned(),
        Reading::Changing(why) | Reading::Missed(why) => why.to_string(),
    };
    if told.as_ref() != Some(&now) {
        tracing::info!(host, reading = now, "its BMC");
        *told = Some(now);
    }
}
