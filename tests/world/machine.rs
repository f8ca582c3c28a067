//! A compute host as iron: it is on or off whatever anybody believes, and Nova hears of it only by its nova-compute.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::Utc;
use uuid::Uuid;

use crate::http::lock;
use crate::openstack::Facts;

/// From the first heartbeat to nova-compute.
const BOOT: Duration = Duration::from_millis(1500);

#[derive(Debug)]
pub struct Machine {
    pub name: String,
    /// As its firmware and its BMC name it.
    pub system: Uuid,
    nova: Arc<Mutex<Facts>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    on: bool,
    boot: Uuid,
    /// Networks whose cable is out.
    cut: BTreeSet<String>,
}

impl Machine {
    /// A host that Nova knows.
    pub fn new(name: &str, nova: &Arc<Mutex<Facts>>) -> Arc<Self> {
        let state = Mutex::new(State { on: true, boot: Uuid::new_v4(), cut: BTreeSet::new() });
        Arc::new(Self { name: name.to_owned(), system: Uuid::new_v4(), nova: Arc::clone(nova), state })
    }

    pub fn is_on(&self) -> bool {
        lock(&self.state).on
    }

    pub fn boot(&self) -> Uuid {
        lock(&self.state).boot
    }

    /// Whether what it sends on this network arrives.
    pub fn is_heard_on(&self, network: &str) -> bool {
        let state = lock(&self.state);
        state.on && !state.cut.contains(network)
    }

    /// Guests stop, and nothing is heard of it any more.
    pub fn power_off(&self) {
        lock(&self.state).on = false;
        self.nova_compute_stops(false);
    }

    /// Its networks are cut, and its guests run on.
    pub fn cut_off(&self, networks: &[&str]) {
        lock(&self.state).cut.extend(networks.iter().map(|network| (*network).to_owned()));
        self.nova_compute_stops(true);
    }

    /// The cables are back.
    pub fn reconnect(&self) {
        lock(&self.state).cut.clear();
        lock(&self.nova).compute_restarts(&self.name);
    }

    /// Its kernel boots. Its guests stay off, and nova-compute is another matter.
    pub fn power_on(&self) {
        let mut state = lock(&self.state);
        (state.on, state.boot) = (true, Uuid::new_v4());
    }

    /// Boots, and a little later nova-compute runs.
    pub async fn boots(&self) {
        self.power_on();
        tokio::time::sleep(BOOT).await;
        lock(&self.nova).compute_restarts(&self.name);
    }

    /// Its kernel boots anew, unasked: its guests are gone, and nova-compute is silent until it runs again.
    pub async fn reboots(&self) {
        self.power_off();
        self.boots().await;
    }

    fn nova_compute_stops(&self, runs: bool) {
        let mut nova = lock(&self.nova);
        for host in nova.hosts.iter_mut().filter(|host| host.name == self.name) {
            host.runs = runs;
            host.silent_since.get_or_insert_with(Utc::now);
        }
    }
}
