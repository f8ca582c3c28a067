//! The judge: the world itself, which knows what no tandem-ha can know.

use std::collections::{BTreeMap, BTreeSet};

use failover::{Act, Decision, Gate, Incident, InstanceId, Method, MoveState, Phase, Proof, RestartState, Stage};

use super::bmc::Says;
use super::host::Kernel;
use super::nova::{By, Nova};
use super::world::{HostId, World};

/// How old the truth behind a receipt may be when it is used: a reading of 5 s, and its way here.
const RECEIPT_MAY_BE_OLD_MS: u64 = 8_000;
/// A change of the world that nobody could have heard of yet.
const NEWS_MS: u64 = 2_500;

#[derive(Debug, Default)]
pub struct Judge {
    pub violations: Vec<(u64, String)>,
    pub evacuated: u32,
    pub fenced: u32,
    pub held: u32,
    pub holds_of: BTreeMap<(String, Gate), u32>,
    /// Hosts of which a person said wrongly that they are off: what follows is on that person.
    wrongly_fenced: BTreeSet<HostId>,
    by_operators: BTreeSet<usize>,
    /// Hosts switched off by us before they were known to be off, and when.
    switched_off: Vec<(u64, HostId)>,
    pub is_disarmed: bool,
}

impl Judge {
    pub fn broken(&mut self, now: u64, what: String) {
        self.violations.push((now, what));
    }

    /// One broken promise is enough to end a story.
    pub fn is_lost(&self) -> bool {
        self.violations.len() > 3
    }
}

impl World {
    /// Never two copies of an instance that can write.
    pub fn judge_copies(&mut self) {
        let mut copies = std::mem::take(&mut self.copies);
        copies.clear();
        copies.resize(self.nova.instances.len(), None);
        let mut twice = None;
        for (id, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.can_write()) {
            for guest in &host.guests {
                if let Some(other) = copies[*guest].replace(id) {
                    twice = Some((*guest, other, id));
                }
            }
        }
        self.copies = copies;
        let Some((guest, one, two)) = twice else { return };
        if self.is_excused(one) || self.is_excused(two) || self.judge.by_operators.contains(&guest) {
            return;
        }
        let name = self.nova.instances[guest].name.clone();
        let what = format!("{name} runs on {} and on {}", self.hosts[one].host, self.hosts[two].host);
        self.hosts[two].guests.retain(|it| *it != guest); // told once
        self.judge.broken(self.now, what);
    }

    /// Nobody could have known: a person was wrong, or a BMC that was this host's began to lie while the host was silent.
    fn is_excused(&self, host: HostId) -> bool {
        self.judge.wrongly_fenced.contains(&host) || self.lied.contains(&host)
    }

    pub fn judge_manual_fence(&mut self, host: HostId) {
        if self.hosts[host].can_write() {
            self.judge.wrongly_fenced.insert(host);
        }
    }

    pub fn judge_lies(&mut self, host: HostId) {
        if self.bmcs[host].says == Says::Off && self.hosts[host].power {
            self.lied.insert(host);
        }
    }

    pub fn judge_decision(&mut self, tandem: usize, decision: &Decision) {
        match decision {
            Decision::Receipt { id, receipt } => {
                self.judge.fenced += 1;
                let host = self.host_id(&id.host);
                if let Proof::PowerOff { .. } = receipt.kind
                    && !self.was_off_lately(host)
                    && !self.is_excused(host)
                {
                    self.judge.broken(self.now, format!("{} has a receipt and is on", id.host));
                }
            }
            Decision::Hold { id, gate, .. } => {
                self.judge.held += 1;
                let many = self.judge.holds_of.entry((id.to_string(), *gate)).or_default();
                *many += 1;
                if *many == 40 {
                    self.judge.broken(self.now, format!("{id} is held by {} over and over", gate.word()));
                }
            }
            Decision::Arm { armed, .. } => self.judge.is_disarmed = !armed,
            Decision::Act(act) => self.judge_act(tandem, act),
            _ => {}
        }
    }

    fn was_off_lately(&self, host: HostId) -> bool {
        let it = &self.hosts[host];
        !it.power || it.off_until.is_some_and(|until| self.now - until <= RECEIPT_MAY_BE_OLD_MS)
    }

    fn judge_act(&mut self, tandem: usize, act: &Act) {
        let it = &self.tandems[tandem];
        let answered = it.seen.view.nova_answered;
        let is_blind = answered.is_none_or(|at| it.clock(self.now).since(at) > self.policy.see_within);
        let keeps_off = matches!(act, Act::PowerOff { id, .. } if self.db.ledger.incidents[id].was_fenced());
        if is_blind && !keeps_off {
            self.judge.broken(self.now, format!("blind, and yet: {}", act.entry().text));
        }
        if self.judge.is_disarmed {
            self.judge.broken(self.now, format!("disarmed, and yet: {}", act.entry().text));
        }
        match act {
            Act::Evacuate { id, instance, proofs, .. } => self.judge_proofs(*instance, id, proofs.incidents()),
            Act::Start { id, .. } => {
                let restarts = self.db.ledger.incidents[id].restarts.values();
                let asked = restarts.filter(|it| it.state == RestartState::Asked).count();
                if asked >= self.policy.evacuation.per_source {
                    self.judge.broken(self.now, format!("too many guests of {} are started at once", id.host));
                }
            }
            Act::PowerOff { id, method: Method::Redfish } => self.judge_fence(tandem, id),
            Act::Disable { id } => {
                let forced = self.db.ledger.incidents[id].force_down.as_ref();
                if forced.is_none_or(|call| !call.is_done()) {
                    self.judge.broken(self.now, format!("{} is disabled before it is forced down", id.host));
                }
            }
            _ => {}
        }
    }

    /// A receipt for every host that may hold a copy, each of which is true.
    fn judge_proofs(&mut self, instance: InstanceId, of: &failover::IncidentId, proofs: &[failover::IncidentId]) {
        let index = Nova::index(instance);
        let proved: BTreeSet<HostId> = proofs.iter().map(|id| self.host_id(&id.host)).collect();
        let mut wanted: BTreeSet<HostId> = self.copies_of(index);
        wanted.insert(self.host_id(&of.host));
        for host in wanted.difference(&proved) {
            let what =
                format!("{} is evacuated without a receipt for {}", self.guest_name(instance), self.hosts[*host].host);
            self.judge.broken(self.now, what);
        }
        for id in proofs {
            let host = self.host_id(&id.host);
            let incident = self.db.ledger.incidents.get(id);
            let Some(receipt) = incident.and_then(Incident::receipt) else {
                self.judge.broken(self.now, format!("{id} proves something and has no receipt"));
                continue;
            };
            let is_true = match receipt.kind {
                Proof::PowerOff { .. } => self.was_off_lately(host),
                Proof::Person { .. } => true,
            };
            if !is_true && !self.is_excused(host) {
                self.judge.broken(self.now, format!("a stale receipt of {} is used", id.host));
            }
        }
    }

    /// A person who evacuates what runs, or is being evacuated, makes two copies of it: that is on that person.
    pub fn judge_operator(&mut self, instance: usize) {
        let runs = self.hosts.iter().any(|host| host.can_write() && host.guests.contains(&instance));
        let mut rows = self.nova.migrations.iter();
        let moves = rows.any(|row| row.instance == instance && row.stage() == Stage::Unfinished);
        if runs || moves {
            self.judge.by_operators.insert(instance);
        }
    }

    /// Ends of unfinished migrations of which Nova has told for a while.
    fn copies_of(&self, instance: usize) -> BTreeSet<HostId> {
        let rows = || self.nova.migrations.iter().filter(|row| row.instance == instance);
        // What began before a later one was done has been overtaken by it.
        let done = rows().filter(|row| row.stage() == Stage::Done).map(|row| row.began).max().unwrap_or_default();
        let rows = rows().filter(|row| row.stage() == Stage::Unfinished && row.began >= done);
        let old = rows.filter(|row| row.told && row.began + 2 * NEWS_MS < self.now);
        old.flat_map(|row| [Some(row.source), row.chosen]).flatten().collect()
    }

    /// Never fence what lives, and never more than policy allows.
    fn judge_fence(&mut self, tandem: usize, id: &failover::IncidentId) {
        let host = self.host_id(&id.host);
        let incident = &self.db.ledger.incidents[id];
        if incident.was_fenced() {
            return; // it is kept off
        }
        if let Some((since, who)) = self.someone_elses_hand(host)
            && since + NEWS_MS < self.now
            && !incident.released.contains(&Gate::NotMaintained)
        {
            self.judge.broken(self.now, format!("{} is under maintenance ({who}) and is to be switched off", id.host));
        }

        let silence = u64::try_from(self.policy.silence.as_millis()).expect("short");
        let heard_since = (0..self.hosts[host].heard_since.len())
            .filter_map(|way| self.hosts[host].heard_since[way])
            .filter(|since| since + NEWS_MS < self.now)
            .min();
        if heard_since.is_some() && !self.is_heard_only_by_others(tandem, host) {
            self.judge.broken(self.now, format!("{} lives and is to be switched off", id.host));
        }
        let last = self.hosts[host].last_heard;
        if !self.hosts[host].heard_since.iter().any(Option::is_some)
            && self.now.saturating_sub(last) + NEWS_MS < silence
            && self.hosts[host].can_write()
            && (self.networks > 0 || self.tcp)
            && self.read_power(host) != super::bmc::BmcAnswer::Off
        {
            self.judge.broken(self.now, format!("{} was silent only for {} ms", id.host, self.now - last));
        }
    }

    /// Never more than policy allows: what is truly switched off counts, not what was asked for in vain.
    pub fn judge_cut(&mut self, host: HostId) {
        let incident = self.db.ledger.open_incident(&self.hosts[host].host);
        let Some(incident) = incident.filter(|it| it.phase == Phase::Fencing && !it.was_fenced()) else { return };
        if !self.hosts[host].power || incident.released.contains(&Gate::NotEverybody) {
            return;
        }
        let window = u64::try_from(self.policy.mass_failure_window.as_millis()).expect("short");
        self.judge.switched_off.retain(|(at, other)| at + window > self.now && *other != host);
        self.judge.switched_off.push((self.now, host));
        let (few, all) = (self.judge.switched_off.len(), self.hosts.len());
        if few > 1 && few as u64 * 100 >= u64::from(self.policy.mass_failure_percent) * all as u64 {
            self.judge.broken(self.now, format!("{few} of {all} hosts are switched off within {} s", window / 1000));
        }
    }

    fn someone_elses_hand(&self, host: HostId) -> Option<(u64, String)> {
        let service = &self.nova.services[host];
        let reason = service.disabled.as_deref().filter(|reason| !reason.starts_with("tandem: "))?;
        Some((service.edited_at, reason.to_owned()))
    }

    /// Whoever decides is deaf where it could be heard, and Nova agrees that it is down.
    fn is_heard_only_by_others(&self, tandem: usize, host: HostId) -> bool {
        let heard = self.tandems[tandem].hears_host(host);
        !heard && !self.nova.services[host].is_up(self.now)
    }

    pub fn judge_send(&mut self, generation: u32, act: &Act) {
        if self.db.generation != generation {
            self.judge.broken(self.now, format!("sent by one who leads no more: {}", act.entry().text));
        }
    }

    /// When Nova takes an evacuation of ours: no other of ours may be under way, and no copy may run.
    pub fn judge_evacuation(&mut self, instance: usize, source: HostId) {
        let name = self.nova.instances[instance].name.clone();
        let guest = &self.nova.instances[instance];
        let shared = self.policy.of(&self.hosts[source].host).shared_root;
        if !guest.from_volume && !guest.expendable && !shared {
            self.judge.broken(self.now, format!("{name} is evacuated and loses its disk"));
        }
        if guest.wish == Some(false) || guest.owned_by.is_some() {
            self.judge.broken(self.now, format!("{name} is evacuated against its owner's will"));
        }
        let runs = (0..self.hosts.len()).find(|host| {
            let it = &self.hosts[*host];
            it.can_write()
                && it.guests.contains(&instance)
                && !self.is_excused(*host)
                && !self.judge.by_operators.contains(&instance)
        });
        if let Some(host) = runs {
            self.judge.broken(self.now, format!("{name} is evacuated while it runs on {}", self.hosts[host].host));
        }
        let mut theirs = self.nova.migrations.iter().filter(|row| {
            row.instance == instance && row.evacuation && row.by == By::Operator && row.stage() == Stage::Unfinished
        });
        if let Some(row) = theirs.next() {
            if row.began + 3 * NEWS_MS > self.now {
                self.judge.by_operators.insert(instance); // at the same moment: nobody could have seen it
            } else if row.told {
                self.judge.broken(self.now, format!("{name} is evacuated though somebody else does so already"));
            }
        }
        let flying = self.nova.migrations.iter().find(|row| {
            let to_the_dead = row.chosen.is_some_and(|to| !self.hosts[to].can_write());
            row.instance == instance
                && row.evacuation
                && row.by == By::Tandem
                && row.stage() == Stage::Unfinished
                && !(to_the_dead && row.told)
        });
        if flying.is_some() {
            self.judge.broken(self.now, format!("{name} is evacuated a second time while the first is under way"));
        }
    }

    /// When all faults have ended and some time has passed: nothing may be forgotten.
    pub fn judge_the_end(&mut self) {
        let mut forgotten = Vec::new();
        for (index, guest) in self.nova.instances.iter().enumerate().filter(|(_, guest)| !guest.deleted) {
            let host = &self.hosts[guest.host];
            if host.kernel != Kernel::Alive
                && let Some(what) = self.is_forgotten(index, guest.host)
            {
                forgotten.push(format!("{} on {}, which is dead: {what}", guest.name, host.host));
            }
        }
        for incident in self.db.ledger.open_incidents() {
            let host = &self.hosts[self.host_id(incident.host())];
            let is_well = host.kernel == Kernel::Alive && host.is_reporting() && host.sender && host.links == [true; 2];
            if is_well && incident.hold.is_none() {
                forgotten.push(format!("{} is {} though its host is well", incident.id, incident.phase.word()));
            }
        }
        for what in forgotten {
            self.judge.broken(self.now, what);
        }
    }

    fn is_forgotten(&self, instance: usize, host: HostId) -> Option<String> {
        let Some(incident) = self.db.ledger.open_incident(&self.hosts[host].host) else {
            return Some("no incident is open".to_owned());
        };
        if incident.hold.is_some() {
            return None;
        }
        let moving = incident.moves.get(&Nova::id(instance));
        match moving.map(|moving| &moving.state) {
            Some(MoveState::Named { .. }) => None,
            Some(state) => Some(format!("its move is {} in {}", state.word(), incident.phase.word())),
            None if matches!(incident.phase, Phase::Recovered | Phase::PartlyRecovered)
                && self.came_later(instance) =>
            {
                None
            }
            None => Some(format!("it has no move in {}", incident.phase.word())),
        }
    }

    /// It came to be there when all others had been settled.
    fn came_later(&self, _instance: usize) -> bool {
        false
    }
}
