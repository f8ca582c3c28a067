//! The judge: the world itself, which knows what no tandem-ha can know.

use std::collections::{BTreeMap, BTreeSet};

use failover::{
    Act, Decision, Gate, Incident, IncidentId, InstanceId, Method, MoveState, Outcome, Phase, Proof, RestartState,
    Stage, Time, VmState,
};

use super::nova::{By, Nova};
use super::world::{HostId, World};

/// How old the truth behind a receipt may be when it is used: a reading of 5 s, and its way here.
const RECEIPT_MAY_BE_OLD_MS: u64 = 8_000;
/// A change of the world that nobody could have heard of yet.
const NEWS_MS: u64 = 2_500;

/// What is promised. `promises.rs` has a test for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    OneCopy,
    ReceiptForEveryCopy,
    NoStaleReceipt,
    OneEvacuationAtATime,
    NotWhileBlind,
    NotWhileDeposed,
    NotWhileDisarmed,
    NoMoreThanPolicyAllows,
    NotUnderMaintenance,
    NotWhileFlapping,
    NothingThatLives,
    ForcedDownFirst,
    OthersWorkStays,
    EveryInstanceMovedOrNamed,
    NoIncidentForgotten,
    OwnersWillAndDisk,
    GuestsStartedAgain,
    FewStartedAtOnce,
    HeldForAReason,
    DecidesOnce,
}

/// Where a day came to: a promise is only tried where it could have been broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    Fenced,
    Evacuated,
    Held,
    LostLeader,
    /// An incident was open while its leader was blind.
    Blind,
    Disarmed,
    MassFailure,
    Maintained,
    Flapping,
    /// A receipt that was made proved nothing any more.
    FenceVoided,
    /// An instance was evacuated once more, or its answer was lost.
    AskedAgain,
    /// Silent, and yet not fenced: it answered again.
    Cancelled,
    SeveralCopies,
    Left,
    Returned,
    GuestsStarted,
    /// Somebody else had disabled a host that was taken back.
    OthersDisable,
    DeadAtTheEnd,
    HeldAtTheEnd,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub at: u64,
    pub promise: Promise,
    pub what: String,
}

#[derive(Debug, Default)]
pub struct Judge {
    pub violations: Vec<Violation>,
    pub reached: BTreeSet<Reached>,
    holds_of: BTreeMap<(String, Gate), u32>,
    /// Hosts of which a person said wrongly that they are off: what follows is on that person.
    wrongly_fenced: BTreeSet<HostId>,
    by_operators: BTreeSet<usize>,
    /// Instances that were evacuated from a host while its BMC lied of it: what runs there still is on that BMC.
    misled: BTreeSet<(usize, HostId)>,
    /// Hosts switched off by us before they were known to be off, and when.
    switched_off: Vec<(u64, HostId)>,
    /// Hosts that were fenced, and when.
    pub fenced: Vec<(u64, HostId)>,
    /// Hosts that were taken back, and when by the clock of whoever did.
    taken_back: Vec<(Time, HostId)>,
    pub is_disarmed: bool,
}

impl Judge {
    pub fn broken(&mut self, at: u64, promise: Promise, what: String) {
        self.violations.push(Violation { at, promise, what });
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
        if self.is_excused(guest, one) || self.is_excused(guest, two) {
            return;
        }
        let name = self.nova.instances[guest].name.clone();
        let what = format!("{name} runs on {} and on {}", self.hosts[one].host, self.hosts[two].host);
        self.hosts[two].guests.retain(|it| *it != guest); // told once
        self.judge.broken(self.now, Promise::OneCopy, what);
    }

    /// The copy that runs on the host is on somebody else: a person was wrong, or a BMC.
    fn is_excused(&self, instance: usize, host: HostId) -> bool {
        self.judge.wrongly_fenced.contains(&host)
            || self.judge.by_operators.contains(&instance)
            || self.judge.misled.contains(&(instance, host))
    }

    /// Nobody could know that it is on: a person was wrong, or its BMC lies, and the host is silent to whoever decides.
    fn could_not_be_known(&self, tandem: usize, host: HostId) -> bool {
        let lied = self.bmcs[host].lied.is_some_and(|until| self.now - until <= RECEIPT_MAY_BE_OLD_MS);
        let lies = lied || self.lies(host);
        let heard = self.tandems[tandem].heard_within(self.now, &self.hosts[host].host, self.policy.suspect_after);
        self.judge.wrongly_fenced.contains(&host) || (lies && !heard)
    }

    pub fn judge_manual_fence(&mut self, host: HostId) {
        if self.hosts[host].can_write() {
            self.judge.wrongly_fenced.insert(host);
        }
    }

    pub fn judge_decision(&mut self, tandem: usize, decision: &Decision) {
        self.notes(decision);
        match decision {
            Decision::Receipt { id, receipt } => {
                let host = self.host_id(&id.host);
                self.judge.fenced.push((self.now, host));
                if let Proof::PowerOff { .. } = receipt.kind
                    && !self.was_off_lately(host)
                    && !self.could_not_be_known(tandem, host)
                {
                    let what = format!("{} has a receipt and is on", id.host);
                    self.judge.broken(self.now, Promise::NoStaleReceipt, what);
                }
            }
            Decision::Phase { id, to: Phase::Fencing, .. } => self.judge_gates(tandem, id),
            Decision::Phase { id, to: Phase::RestartingGuests, .. } => self.judge_restarts(id),
            Decision::Hold { id, gate, .. } => {
                let many = self.judge.holds_of.entry((id.to_string(), *gate)).or_default();
                *many += 1;
                if *many == 40 {
                    let what = format!("{id} is held by {} over and over", gate.word());
                    self.judge.broken(self.now, Promise::DecidesOnce, what);
                }
            }
            Decision::Close { id, outcome: Outcome::Recovered | Outcome::PartlyRecovered, .. } => {
                let (clock, host) = (self.tandems[tandem].clock(self.now), self.host_id(&id.host));
                self.judge.taken_back.push((clock, host));
            }
            Decision::Arm { armed, .. } => self.judge.is_disarmed = !armed,
            Decision::Act(act) => self.judge_act(tandem, act),
            _ => {}
        }
    }

    fn notes(&mut self, decision: &Decision) {
        let reached = match decision {
            Decision::Receipt { .. } => Reached::Fenced,
            Decision::Void { .. } => Reached::FenceVoided,
            Decision::Hold { gate, .. } => {
                self.judge.reached.insert(Reached::Held);
                match gate {
                    Gate::WeSee => Reached::Blind,
                    Gate::Armed => Reached::Disarmed,
                    Gate::NotEverybody => Reached::MassFailure,
                    Gate::NotMaintained => Reached::Maintained,
                    Gate::NotFlapping => Reached::Flapping,
                    _ => return,
                }
            }
            Decision::Move { state: MoveState::Named { .. }, .. } => Reached::Left,
            Decision::Close { outcome: Outcome::Cancelled, .. } => Reached::Cancelled,
            Decision::Close { id, outcome: Outcome::Recovered | Outcome::PartlyRecovered, .. } => {
                if self.someone_elses_hand(self.host_id(&id.host)).is_some() {
                    self.judge.reached.insert(Reached::OthersDisable);
                }
                Reached::Returned
            }
            Decision::Act(Act::Start { .. }) => Reached::GuestsStarted,
            Decision::Act(Act::Evacuate { attempt, proofs, .. }) => {
                if *attempt > 1 {
                    self.judge.reached.insert(Reached::AskedAgain);
                }
                if proofs.incidents().len() < 2 {
                    return;
                }
                Reached::SeveralCopies
            }
            _ => return,
        };
        self.judge.reached.insert(reached);
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
            let what = format!("blind, and yet: {}", act.entry().text);
            self.judge.broken(self.now, Promise::NotWhileBlind, what);
        }
        if self.judge.is_disarmed {
            let what = format!("disarmed, and yet: {}", act.entry().text);
            self.judge.broken(self.now, Promise::NotWhileDisarmed, what);
        }
        match act {
            Act::Evacuate { id, instance, proofs, .. } => {
                self.judge_proofs(tandem, *instance, id, proofs.incidents());
            }
            Act::Start { id, .. } => {
                let restarts = self.db.ledger.incidents[id].restarts.values();
                let asked = restarts.filter(|it| it.state == RestartState::Asked).count();
                if asked >= self.policy.evacuation.per_source {
                    let what = format!("too many guests of {} are started at once", id.host);
                    self.judge.broken(self.now, Promise::FewStartedAtOnce, what);
                }
                self.judge_maintenance(tandem, id);
            }
            Act::PowerOff { id, method: Method::Redfish } if !self.db.ledger.incidents[id].was_fenced() => {
                self.judge_gates(tandem, id);
                self.judge_fence(tandem, id);
            }
            Act::Disable { id } => {
                let forced = self.db.ledger.incidents[id].force_down.as_ref();
                if forced.is_none_or(|call| !call.is_done()) {
                    let what = format!("{} is disabled before it is forced down", id.host);
                    self.judge.broken(self.now, Promise::ForcedDownFirst, what);
                }
            }
            _ => {}
        }
    }

    /// A receipt for every host that may hold a copy, each of which is true.
    fn judge_proofs(&mut self, tandem: usize, instance: InstanceId, of: &IncidentId, proofs: &[IncidentId]) {
        let index = Nova::index(instance);
        let proved: BTreeSet<HostId> = proofs.iter().map(|id| self.host_id(&id.host)).collect();
        let mut wanted: BTreeSet<HostId> = self.copies_of(index);
        wanted.insert(self.host_id(&of.host));
        for host in wanted.difference(&proved) {
            let what =
                format!("{} is evacuated without a receipt for {}", self.guest_name(instance), self.hosts[*host].host);
            self.judge.broken(self.now, Promise::ReceiptForEveryCopy, what);
        }
        for id in proofs {
            let host = self.host_id(&id.host);
            let incident = self.db.ledger.incidents.get(id);
            let Some(receipt) = incident.and_then(Incident::receipt) else {
                let what = format!("{id} proves something and has no receipt");
                self.judge.broken(self.now, Promise::ReceiptForEveryCopy, what);
                continue;
            };
            let is_true = match receipt.kind {
                Proof::PowerOff { .. } => self.was_off_lately(host),
                Proof::Person { .. } => true,
            };
            if !is_true && self.could_not_be_known(tandem, host) {
                self.judge.misled.insert((index, host));
            } else if !is_true {
                let what = format!("a stale receipt of {} is used", id.host);
                self.judge.broken(self.now, Promise::NoStaleReceipt, what);
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

    /// What is held at a gate is not to be fenced, whether its power is on or not.
    fn judge_gates(&mut self, tandem: usize, id: &IncidentId) {
        self.judge_maintenance(tandem, id);
        let (host, clock) = (self.host_id(&id.host), self.tandems[tandem].clock(self.now));
        let released = self.db.ledger.incidents[id].released.contains(&Gate::NotFlapping);
        if let Some(why) = self.is_flapping(host, clock).filter(|_| !released) {
            self.judge.broken(self.now, Promise::NotWhileFlapping, format!("{} is to be fenced, and {why}", id.host));
        }
    }

    /// Of what somebody else did the decider must have been told.
    fn judge_maintenance(&mut self, tandem: usize, id: &IncidentId) {
        let released = self.db.ledger.incidents[id].released.contains(&Gate::NotMaintained);
        if let Some((since, who)) = self.someone_elses_hand(self.host_id(&id.host))
            && since < self.tandems[tandem].services_asked
            && !released
        {
            let what = format!("{} is under maintenance ({who}), and yet it is acted upon", id.host);
            self.judge.broken(self.now, Promise::NotUnderMaintenance, what);
        }
    }

    pub fn is_flapping(&self, host: HostId, clock: Time) -> Option<String> {
        let mine = || self.judge.taken_back.iter().filter(|(_, other)| *other == host);
        let within = |span| mine().filter(|(at, _)| clock.since(*at) < span).count();
        if within(self.policy.quiet) > 0 {
            return Some("was taken back only lately".to_owned());
        }
        let times = within(self.policy.flap_window);
        (times > self.policy.flap_limit as usize).then(|| format!("was taken back {times} times"))
    }

    /// What ran before the reboot, and what Nova still calls active, is to be started again.
    fn judge_restarts(&mut self, id: &IncidentId) {
        let (host, incident) = (self.host_id(&id.host), &self.db.ledger.incidents[id]);
        let overlooked = self.lost_guests(host).find(|guest| {
            self.nova.instances[*guest].state == VmState::Active && !incident.restarts.contains_key(&Nova::id(*guest))
        });
        if let Some(guest) = overlooked {
            let what = format!("{} ran on {} and is not to be started again", self.nova.instances[guest].name, id.host);
            self.judge.broken(self.now, Promise::GuestsStartedAgain, what);
        }
    }

    /// What ran on the host when it went down, runs there no more, and is on it as Nova says.
    pub fn lost_guests(&self, host: HostId) -> impl Iterator<Item = usize> {
        let here = move |guest: &usize| {
            let it = &self.nova.instances[*guest];
            it.host == host && !it.deleted
        };
        self.hosts[host].lost.iter().copied().filter(here)
    }

    /// Never fence what lives.
    fn judge_fence(&mut self, tandem: usize, id: &IncidentId) {
        let host = self.host_id(&id.host);
        let silence = u64::try_from(self.policy.silence.as_millis()).expect("short");
        let heard_since = (0..self.hosts[host].heard_since.len())
            .filter_map(|way| self.hosts[host].heard_since[way])
            .filter(|since| since + NEWS_MS < self.now)
            .min();
        if heard_since.is_some() && !self.is_heard_only_by_others(tandem, host) {
            let what = format!("{} lives and is to be switched off", id.host);
            self.judge.broken(self.now, Promise::NothingThatLives, what);
        }
        let last = self.hosts[host].last_heard;
        if !self.hosts[host].heard_since.iter().any(Option::is_some)
            && self.now.saturating_sub(last) + NEWS_MS < silence
            && self.hosts[host].can_write()
            && (self.networks > 0 || self.tcp)
            && self.read_power(host) != super::bmc::BmcAnswer::Off
        {
            let what = format!("{} was silent only for {} ms", id.host, self.now - last);
            self.judge.broken(self.now, Promise::NothingThatLives, what);
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
            let what = format!("{few} of {all} hosts are switched off within {} s", window / 1000);
            self.judge.broken(self.now, Promise::NoMoreThanPolicyAllows, what);
        }
    }

    /// Who works on it, or has told us to leave it alone; and since when.
    pub fn someone_elses_hand(&self, host: HostId) -> Option<(u64, String)> {
        if !self.policy.of(&self.hosts[host].host).enabled {
            return Some((0, "its segment is disabled".to_owned()));
        }
        let service = &self.nova.services[host];
        let reason = service.disabled.as_deref().filter(|reason| !reason.starts_with("tandem: ")).map(str::to_owned);
        let forced = service.forced_by_operator.then(|| "forced down".to_owned());
        Some((service.edited_at, reason.or(forced)?))
    }

    /// Whoever decides is deaf where it could be heard, and Nova agrees that it is down.
    fn is_heard_only_by_others(&self, tandem: usize, host: HostId) -> bool {
        let heard = self.tandems[tandem].hears_host(host);
        !heard && !self.nova.services[host].is_up(self.now)
    }

    pub fn judge_send(&mut self, generation: u32, act: &Act) {
        if self.db.generation != generation {
            let what = format!("sent by one who leads no more: {}", act.entry().text);
            self.judge.broken(self.now, Promise::NotWhileDeposed, what);
        }
    }

    /// When Nova takes an evacuation of ours: no other of ours may be under way, and no copy may run.
    pub fn judge_evacuation(&mut self, instance: usize, source: HostId) {
        let name = self.nova.instances[instance].name.clone();
        let guest = &self.nova.instances[instance];
        let shared = self.policy.of(&self.hosts[source].host).shared_root;
        if !guest.from_volume && !guest.expendable && !shared {
            self.judge.broken(self.now, Promise::OwnersWillAndDisk, format!("{name} is evacuated and loses its disk"));
        }
        if guest.wish == Some(false) || guest.owned_by.is_some() {
            let what = format!("{name} is evacuated against its owner's will");
            self.judge.broken(self.now, Promise::OwnersWillAndDisk, what);
        }
        let runs = (0..self.hosts.len()).find(|host| {
            let it = &self.hosts[*host];
            it.can_write() && it.guests.contains(&instance) && !self.is_excused(instance, *host)
        });
        if let Some(host) = runs {
            let what = format!("{name} is evacuated while it runs on {}", self.hosts[host].host);
            self.judge.broken(self.now, Promise::OneCopy, what);
        }
        let mut theirs = self.nova.migrations.iter().filter(|row| {
            row.instance == instance && row.evacuation && row.by == By::Operator && row.stage() == Stage::Unfinished
        });
        if let Some(row) = theirs.next() {
            if row.began + 3 * NEWS_MS > self.now {
                self.judge.by_operators.insert(instance); // at the same moment: nobody could have seen it
            } else if row.told {
                let what = format!("{name} is evacuated though somebody else does so already");
                self.judge.broken(self.now, Promise::OneEvacuationAtATime, what);
            }
        }
        let mut rows = self.nova.migrations.iter().enumerate();
        let flying = rows.find(|(nth, row)| {
            // What its destination had begun ended with that boot of it.
            let to_the_dead = row.chosen.is_some() && !self.lives_there(*nth);
            row.instance == instance
                && row.evacuation
                && row.by == By::Tandem
                && row.stage() == Stage::Unfinished
                && !(to_the_dead && row.told)
        });
        if flying.is_some() {
            let what = format!("{name} is evacuated a second time while the first is under way");
            self.judge.broken(self.now, Promise::OneEvacuationAtATime, what);
        }
    }
}
