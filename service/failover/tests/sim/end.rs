//! The judge at the end, when all faults have ended and some time has passed: nothing may be forgotten, and nothing held without a reason.

use failover::{Gate, Hold, Incident, MoveState, Phase, RestartState, Stage};

use super::host::Kernel;
use super::judge::{Promise, Reached};
use super::nova::Nova;
use super::world::{HostId, World};

impl World {
    pub fn judge_the_end(&mut self) {
        let mut broken = self.forgotten_instances();
        for incident in self.db.ledger.open_incidents() {
            let host = self.host_id(incident.host());
            if let Some(hold) = &incident.hold {
                self.judge.reached.insert(Reached::HeldAtTheEnd);
                if !self.is_held_for_a_reason(incident, hold) {
                    let what =
                        format!("{} is held without a reason by {}: {}", incident.id, hold.gate.word(), hold.why);
                    broken.push((Promise::HeldForAReason, what));
                }
            } else if self.is_well(host) {
                let what = format!("{} is {} though its host is well", incident.id, incident.phase.word());
                broken.push((Promise::NoIncidentForgotten, what));
            }
        }
        for (guest, host) in self.forgotten_guests() {
            let (name, at) = (&self.nova.instances[guest].name, &self.hosts[host].host);
            let what = format!("{name} does not run since {at} went down and came back, and nothing says why");
            broken.push((Promise::GuestsStartedAgain, what));
        }
        for (promise, what) in broken {
            self.judge.broken(self.now, promise, what);
        }
    }

    fn is_well(&self, host: HostId) -> bool {
        let host = &self.hosts[host];
        host.kernel == Kernel::Alive && host.is_reporting() && host.sender && host.links == [true; 2]
    }

    fn forgotten_instances(&mut self) -> Vec<(Promise, String)> {
        let mut forgotten = Vec::new();
        for (index, guest) in self.nova.instances.iter().enumerate().filter(|(_, guest)| !guest.deleted) {
            let host = &self.hosts[guest.host];
            if host.kernel == Kernel::Alive {
                continue;
            }
            self.judge.reached.insert(Reached::DeadAtTheEnd);
            if let Some(what) = self.is_forgotten(index, guest.host) {
                let what = format!("{} on {}, which is dead: {what}", guest.name, host.host);
                forgotten.push((Promise::EveryInstanceMovedOrNamed, what));
            }
        }
        forgotten
    }

    /// Whether a hold is right is judged by itself.
    fn is_forgotten(&self, instance: usize, host: HostId) -> Option<String> {
        let Some(incident) = self.db.ledger.open_incident(&self.hosts[host].host) else {
            return Some("no incident is open".to_owned());
        };
        let moving = incident.moves.get(&Nova::id(instance));
        match moving.map(|moving| &moving.state) {
            Some(MoveState::Named { .. }) => None,
            _ if incident.hold.is_some() => None,
            Some(state) => Some(format!("its move is {} in {}", state.word(), incident.phase.word())),
            None => Some(format!("it has no move in {}", incident.phase.word())),
        }
    }

    /// What ran on a host that went down and is well again, and does not run: unless something says why.
    fn forgotten_guests(&self) -> impl Iterator<Item = (usize, HostId)> {
        let closed = |host: &HostId| {
            self.networks > 0 && self.is_well(*host) && self.db.ledger.open_incident(&self.hosts[*host].host).is_none()
        };
        (0..self.hosts.len()).filter(closed).flat_map(move |host| {
            let forgotten = self.lost_guests(host).filter(move |guest| !self.is_named(*guest, host));
            forgotten.map(move |guest| (guest, host))
        })
    }

    fn is_named(&self, guest: usize, host: HostId) -> bool {
        let id = Nova::id(guest);
        self.db.ledger.incidents_of(&self.hosts[host].host).any(|incident| {
            let restart = incident.restarts.get(&id).map(|restart| &restart.state);
            let moving = incident.moves.get(&id).map(|moving| &moving.state);
            matches!(restart, Some(RestartState::Named { .. })) || matches!(moving, Some(MoveState::Named { .. }))
        })
    }

    /// Whether a new boot of the host could be heard, and its instances looked at, by somebody who leads.
    pub fn judge_was_watched(&self, host: HostId) -> bool {
        let nova = self.nova.up && self.nova.slow_ms == 0 && !self.hosts[host].cell_down && self.db.up;
        nova && self.tandems.iter().any(|it| {
            it.leads() && it.sees_nova && self.now >= it.stalled_until() && it.hears_beats_since(self.now, host)
        })
    }

    /// Whether what holds it is there, 25 minutes after everything was repaired but hosts that are dead.
    fn is_held_for_a_reason(&self, incident: &Incident, hold: &Hold) -> bool {
        let host = self.host_id(incident.host());
        let service = &self.nova.services[host];
        match hold.gate {
            Gate::Armed => self.judge.is_disarmed,
            Gate::NotEverybody => self.is_mass_failure(host),
            Gate::NotFlapping => {
                let clock = self.db.holder.map(|leader| self.tandems[leader].clock(self.now));
                clock.is_some_and(|clock| self.is_flapping(host, clock).is_some())
            }
            Gate::NotMaintained => self.someone_elses_hand(host).is_some(),
            Gate::SomewhereToGo => !self.takes_instances(host),
            Gate::Fence => !self.can_be_fenced(host) || self.may_still_arrive(incident),
            Gate::Return => self.cannot_be_taken_back(host, service.forced_by_operator),
            // Nobody can tell what people edit from what a living nova-compute reports (and its last report may be seen after its death).
            Gate::Contradiction => service.edits_in_silence > 0,
            // Everybody sees everything, and nobody who lives is silent.
            Gate::WeSee | Gate::Evidence => false,
        }
    }

    /// As policy counts them: what has an incident, is not fenced and not out of service, and what was fenced within the window.
    fn is_mass_failure(&self, host: HostId) -> bool {
        let window = u64::try_from(self.policy.mass_failure_window.as_millis()).expect("short");
        let is_troubled = |host: &HostId| {
            let lately = self.judge.fenced.iter().any(|(at, other)| other == host && at + window >= self.now);
            let open = self.db.ledger.open_incident(&self.hosts[*host].host);
            let unjudged = open.is_some_and(|incident| incident.phase.is_before_the_fence());
            let held = open.and_then(|incident| incident.hold.as_ref()).is_some_and(|it| it.gate == Gate::NotEverybody);
            lately || (unjudged && !self.is_well(*host) && (held || !self.is_out_of_service(*host)))
        };
        let shown = &self.tandems[0].seen.hosts;
        let groups = &shown[&self.hosts[host].host].groups;
        let everybody: Vec<HostId> = (0..self.hosts.len()).collect();
        let members = |group| {
            let is_member = |host: &HostId| shown[&self.hosts[*host].host].groups.contains(group);
            everybody.iter().copied().filter(is_member).collect::<Vec<_>>()
        };
        let mut crowds = groups.iter().map(members).chain([everybody.clone()]);
        crowds.any(|crowd| {
            let few = crowd.iter().filter(|host| is_troubled(host)).count();
            few > 1 && few as u64 * 100 >= u64::from(self.policy.mass_failure_percent) * crowd.len() as u64
        })
    }

    fn is_out_of_service(&self, host: HostId) -> bool {
        let service = &self.nova.services[host];
        service.disabled.is_some() || service.forced_down
    }

    fn takes_instances(&self, from: HostId) -> bool {
        let mut services = self.nova.services.iter().enumerate();
        services.any(|(host, service)| host != from && service.is_up(self.now) && service.disabled.is_none())
    }

    /// Its BMC is there, is known to be its own, and nobody has to be asked.
    fn can_be_fenced(&self, host: HostId) -> bool {
        let (bmc, record) = (&self.bmcs[host], self.db.ledger.hosts.get(&self.hosts[host].host));
        bmc.configured && bmc.wired_to == host && record.is_some_and(|record| record.bound.is_some())
    }

    fn may_still_arrive(&self, incident: &Incident) -> bool {
        incident.phase == Phase::Evacuating
            && self.nova.migrations.iter().any(|row| {
                row.evacuation
                    && row.stage() == Stage::Unfinished
                    && incident.moves.contains_key(&Nova::id(row.instance))
            })
    }

    /// Nova refuses as long as evacuations are not completed, and nothing is let in that does not report.
    fn cannot_be_taken_back(&self, host: HostId, forced_by_operator: bool) -> bool {
        let mut rows = self.nova.migrations.iter();
        let incomplete = rows.any(|row| row.evacuation && row.source == host && row.status == "done");
        incomplete || forced_by_operator || !self.hosts[host].is_reporting()
    }
}
