//! Random clouds and bad days: everything follows from one number.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use failover::{HostPolicy, Policy, Task, VmState};
use fastrand::Rng;

use super::bend::Bend;
use super::bmc::Says;
use super::faults::{BmcFault, Fault};
use super::judge::{Reached, Violation};
use super::nova::Guest;
use super::story::told;
use super::world::{Cloud, Event, HostId, World};

/// Until then faults begin; then everything is repaired but dead hosts, and then nothing may be left unsettled.
const FAULTS_FROM_MS: u64 = 60_000;
const FAULTS_UNTIL_MS: u64 = 2_400_000;
const REPAIRED_MS: u64 = 2_700_000;
pub const END_MS: u64 = 4_200_000;
const HOSTS: usize = 20;

/// What came of one seed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub seed: u64,
    pub reached: BTreeSet<Reached>,
    pub violations: Vec<Violation>,
    pub story: String,
}

impl Outcome {
    pub fn is_well(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Plays one seed. The story is written down only if it is to be told.
pub fn play(seed: u64, bend: Bend, telling: bool) -> Outcome {
    let mut chance = Rng::with_seed(seed);
    let cloud = random_cloud(&mut chance);
    let mut world = World::new(&cloud, seed, telling);
    world.bend = bend;
    world.honest = true;
    world.boot_ms = chance.u64(5_000..90_000);
    odd_bmcs(&mut world, &mut chance);
    let mut days = BadDay { chance, faults: Vec::new(), cloud: &cloud };
    days.fill();
    let mut faults = days.faults;
    faults.sort_by_key(|(at, _)| *at);
    for (at, fault) in faults {
        world.at(at, Event::Fault(fault));
    }
    world.run_until(END_MS);
    world.judge_the_end();
    if world.db.generation > 1 {
        world.judge.reached.insert(Reached::LostLeader);
    }
    Outcome {
        seed,
        reached: std::mem::take(&mut world.judge.reached),
        story: if telling { told(&world) } else { String::new() },
        violations: std::mem::take(&mut world.judge.violations),
    }
}

fn random_cloud(chance: &mut Rng) -> Cloud {
    let networks = if chance.u8(0..100) < 85 { 2 } else { chance.usize(0..2) };
    let mut policy = Policy { nova_alone: networks == 0, ..Policy::default() };
    policy.evacuation.limit = Duration::from_secs(600);
    policy.other_hosts.shared_root = chance.bool();
    policy.evacuation.opted_in_only = chance.u8(0..100) < 10;
    policy.evacuation.in_flight = chance.usize(2..10);
    policy.evacuation.per_source = chance.usize(1..9);
    let guests = chance.usize(20..60);
    let instances = (0..guests).map(|index| random_guest(index, chance)).collect();
    let groups = (0..chance.usize(0..3)).map(|zone| {
        let members = (0..HOSTS).filter(|host| host % 3 == zone).collect();
        (format!("zone z{zone}"), members)
    });
    let off = HostPolicy { enabled: false, ..policy.other_hosts.clone() };
    Cloud {
        hosts: HOSTS,
        tandems: chance.usize(1..4),
        networks,
        tcp: networks > 0 && chance.bool(),
        instances,
        groups: groups.collect(),
        host_policies: if chance.u8(0..100) < 10 { vec![(chance.usize(0..HOSTS), off)] } else { Vec::new() },
        policy,
        armed: true,
        steady: false,
    }
}

fn random_guest(index: usize, chance: &mut Rng) -> Guest {
    // Few hosts carry many, so that what dies matters.
    let host = if chance.bool() { chance.usize(0..4) } else { chance.usize(0..HOSTS) };
    let mut guest = Guest::new(&format!("vm{}", index + 1), host);
    match chance.u8(0..100) {
        0..8 => (guest.state, guest.running) = (VmState::Stopped, false),
        8..11 => (guest.state, guest.running) = (VmState::Error, false),
        11..14 => (guest.state, guest.running) = (VmState::Other("paused".into()), true),
        14..17 => guest.task = Task::OnItsHost("rebooting".into()),
        17..19 => guest.task = Task::Elsewhere("resize_prep".into()),
        19..21 => guest.task = Task::Deleting,
        21..23 => guest.owned_by = Some("Octavia".into()),
        _ => {}
    }
    guest.from_volume = chance.u8(0..100) < 70;
    guest.expendable = chance.u8(0..100) < 10;
    guest.wish = [None, None, None, None, Some(true), Some(false)][chance.usize(0..6)];
    guest.priority = chance.i32(0..3);
    guest.group = (chance.u8(0..100) < 20).then(|| u128::from(chance.u8(1..4)));
    guest
}

fn odd_bmcs(world: &mut World, chance: &mut Rng) {
    for host in 0..HOSTS {
        match chance.u8(0..100) {
            0..3 => world.bmcs[host].configured = false,
            3..10 => world.bmcs[host].tells_system = false,
            10..12 => world.bmcs[host].wired_to = (host + 1) % HOSTS,
            _ => {}
        }
    }
    for tandem in 0..world.tandems.len() {
        world.forget_absent_bmcs(tandem);
    }
}

struct BadDay<'a> {
    chance: Rng,
    faults: Vec<(u64, Fault)>,
    cloud: &'a Cloud,
}

impl BadDay<'_> {
    fn fill(&mut self) {
        let many = self.chance.usize(3..9);
        let (mut at, mut host) = (self.time(FAULTS_FROM_MS..FAULTS_UNTIL_MS), self.host());
        for nth in 0..many {
            if nth > 0 && self.chance.u8(0..100) < 60 {
                at = (at + self.chance.u64(0..90_000)).min(FAULTS_UNTIL_MS); // misfortunes come together
            } else {
                at = self.time(FAULTS_FROM_MS..FAULTS_UNTIL_MS);
            }
            if self.chance.bool() {
                host = self.host();
            }
            if nth == 0 || self.chance.u8(0..100) < 35 {
                self.death(at, host);
            } else {
                self.misfortune(at, host);
            }
        }
        let (at, host) = (self.time(FAULTS_FROM_MS..FAULTS_UNTIL_MS), self.chance.usize(0..4));
        self.theme(at, host);
        self.repair();
    }

    /// What chance brings together too seldom: on most days one rule is tried on purpose.
    fn theme(&mut self, at: u64, host: HostId) {
        let (soon, later) = (self.chance.u64(15_000..40_000), self.chance.u64(100_000..300_000));
        match self.chance.u8(0..8) {
            0 => {
                // Nobody can switch it off before it has booted.
                let (silent, again) = (BmcFault::Says(Says::Nothing), BmcFault::Says(Says::Truth));
                self.on(at - 5_000, Fault::Bmc(host, silent));
                self.on(at, Fault::Reboots(host));
                self.on(at + later, Fault::Bmc(host, again));
            }
            1 => {
                self.on(at - 5_000, Fault::Disarms);
                self.on(at, Fault::LosesPower(host));
                self.on(at + later, Fault::Arms);
            }
            2 => {
                self.on(at, Fault::LosesPower(host));
                self.on(at + soon, Fault::Disables(host));
                self.on(at + later, Fault::GetsPower(host));
                self.on(at + 3 * later, Fault::Enables(host));
            }
            3 => {
                self.on(at, Fault::LosesPower(host));
                self.on(at + later, Fault::GetsPower(host));
                self.on(at + 3 * later, Fault::LosesPower(host));
            }
            4 => {
                let forced = self.chance.bool();
                let (begins, ends) = if forced {
                    (Fault::ForcesDown(host), Fault::LiftsForcedDown(host))
                } else {
                    (Fault::Disables(host), Fault::Enables(host))
                };
                self.on(at - soon, begins);
                self.on(at, Fault::LosesPower(host));
                self.on(at + later, ends);
            }
            5 => {
                let to = (host + self.chance.usize(1..HOSTS)) % HOSTS;
                for guest in 0..self.cloud.instances.len() {
                    if self.cloud.instances[guest].host == host {
                        self.on(at - 3_000, Fault::Migrates(guest, to));
                    }
                }
                self.on(at, Fault::LosesPower(host));
                self.on(at + 2_000, Fault::LosesPower(to));
            }
            6 => {
                self.on(at, Fault::LosesPower(host));
                self.many_at_once(at + soon);
            }
            _ => {}
        }
    }

    fn time(&mut self, range: Range<u64>) -> u64 {
        self.chance.u64(range)
    }

    fn host(&mut self) -> HostId {
        if self.chance.bool() { self.chance.usize(0..4) } else { self.chance.usize(0..HOSTS) }
    }

    fn guest(&mut self) -> usize {
        self.chance.usize(0..self.cloud.instances.len())
    }

    fn tandem(&mut self) -> usize {
        self.chance.usize(0..self.cloud.tandems)
    }

    fn on(&mut self, at: u64, fault: Fault) {
        self.faults.push((at, fault));
    }

    /// Something begins, and ends again before everything is repaired.
    fn passing(&mut self, at: u64, lasts: Range<u64>, begins: Fault, ends: Fault) {
        let lasts = self.chance.u64(lasts);
        self.on(at, begins);
        self.on((at + lasts).min(REPAIRED_MS), ends);
    }

    fn death(&mut self, at: u64, host: HostId) {
        if self.chance.u8(0..100) < 25 {
            self.live_migration(at, host);
        }
        let back = at + self.chance.u64(3_000..900_000);
        let returns = self.chance.u8(0..100) < 60 && back < REPAIRED_MS;
        match self.chance.u8(0..10) {
            0..4 => self.on(at, Fault::LosesPower(host)),
            4..6 => {
                self.on(at, Fault::Hangs(host));
                if returns {
                    self.on(back, Fault::Thaws(host));
                }
            }
            6 => self.on(at, Fault::Panics(host)),
            7 => self.on(at, Fault::Reboots(host)),
            _ => {
                for network in 0..2 {
                    self.on(at, Fault::Link(host, network, false));
                    if returns {
                        self.on(back, Fault::Link(host, network, true));
                    }
                }
            }
        }
        if returns {
            self.on(back, Fault::GetsPower(host));
        }
        if self.chance.u8(0..100) < 25 {
            self.bmc(at.saturating_sub(5_000), host);
        }
        self.aggravate(at);
        if self.chance.u8(0..100) < 10 {
            let later = at + self.chance.u64(20_000..300_000);
            self.on(later, Fault::FencesByHand(host));
        }
    }

    /// What makes a death worse while it is dealt with.
    fn aggravate(&mut self, at: u64) {
        let soon = at + self.chance.u64(1_000..60_000);
        let (tandem, ms) = (self.tandem(), self.chance.u64(500..120_000));
        match self.chance.u8(0..12) {
            0 => self.on(soon, Fault::Stalls(tandem, ms)),
            1 => self.on(at, Fault::StallsAtNextAct(tandem, ms)),
            2 => self.passing(soon, 1_000..60_000, Fault::Crashes(tandem), Fault::Starts(tandem)),
            3 => self.passing(at, 60_000..300_000, Fault::PostsSlow(ms.min(110_000)), Fault::PostsSlow(0)),
            4 => {
                // Somebody's destination.
                for _ in 0..3 {
                    let (host, later) = (self.chance.usize(0..HOSTS), self.chance.u64(20_000..60_000));
                    self.on(at + later, Fault::LosesPower(host));
                }
            }
            5 => self.on(soon, Fault::LoseAnswers(3)),
            _ => {}
        }
    }

    /// A rack, or the switch before it.
    fn many_at_once(&mut self, at: u64) {
        let first = self.chance.usize(0..HOSTS);
        let loses_power = self.chance.bool();
        for host in (first..first + self.chance.usize(4..14)).map(|host| host % HOSTS) {
            if loses_power {
                self.on(at, Fault::LosesPower(host));
            } else {
                for network in 0..2 {
                    self.passing(
                        at,
                        5_000..400_000,
                        Fault::Link(host, network, false),
                        Fault::Link(host, network, true),
                    );
                }
            }
        }
    }

    fn live_migration(&mut self, at: u64, host: HostId) {
        let here: Vec<usize> =
            (0..self.cloud.instances.len()).filter(|it| self.cloud.instances[*it].host == host).collect();
        let before = at.saturating_sub(self.chance.u64(0..15_000));
        if let Some(guest) = self.chance.choice(&here).copied() {
            let to = self.host();
            self.on(before, Fault::Migrates(guest, to));
        }
        let guest = self.guest();
        self.on(before, Fault::Migrates(guest, host));
    }

    fn bmc(&mut self, at: u64, host: HostId) {
        let fault = match self.chance.u8(0..10) {
            0..3 => BmcFault::Says(Says::Nothing),
            3 => BmcFault::Says(Says::Off),
            4 => BmcFault::Says(Says::On),
            5 | 6 => BmcFault::Slow(self.chance.u64(500..12_000)),
            7 | 8 => BmcFault::Late(self.chance.u64(2_000..60_000)),
            _ => BmcFault::Refuses(true),
        };
        self.on(at, Fault::Bmc(host, fault));
    }

    fn misfortune(&mut self, at: u64, host: HostId) {
        let (guest, other, tandem, network) = (self.guest(), self.host(), self.tandem(), self.chance.usize(0..2));
        match self.chance.u8(0..36) {
            34 | 35 => self.many_at_once(at),
            0 => self.passing(at, 5_000..300_000, Fault::Link(host, network, false), Fault::Link(host, network, true)),
            1 => self.passing(at, 2_000..20_000, Fault::Network(network, false), Fault::Network(network, true)),
            2 => self.passing(at, 5_000..300_000, Fault::Sender(host, false), Fault::Sender(host, true)),
            3 => self.passing(at, 20_000..300_000, Fault::Compute(host, false), Fault::Compute(host, true)),
            4 => self.passing(at, 5_000..300_000, Fault::Cell(host, false), Fault::Cell(host, true)),
            5..8 => self.bmc(at, host),
            8 => self.passing(at, 5_000..200_000, Fault::Nova(false), Fault::Nova(true)),
            9 => {
                let slow = self.chance.u64(200..9_000);
                self.passing(at, 5_000..300_000, Fault::NovaSlow(slow), Fault::NovaSlow(0));
            }
            10 => {
                let slow = self.chance.u64(1_000..110_000);
                self.passing(at, 5_000..300_000, Fault::PostsSlow(slow), Fault::PostsSlow(0));
            }
            11 | 12 => {
                let few = self.chance.u32(1..6);
                self.on(at, Fault::LoseAnswers(few));
            }
            13 => {
                let few = self.chance.u32(1..6);
                self.on(at, Fault::LosePosts(few));
            }
            14 => {
                let few = self.chance.u32(1..4);
                self.on(at, Fault::RefusePosts(few));
            }
            15 => {
                let few = self.chance.u32(1..4);
                self.on(at, Fault::RefuseEdits(few));
            }
            16 => {
                let few = self.chance.u32(1..8);
                self.on(at, Fault::FailAtDestination(few));
            }
            17 => self.passing(at, 2_000..120_000, Fault::Database(false), Fault::Database(true)),
            18..21 => self.passing(at, 1_000..120_000, Fault::Crashes(tandem), Fault::Starts(tandem)),
            21 | 22 => {
                let ms = self.chance.u64(500..120_000);
                self.on(at, Fault::Stalls(tandem, ms));
            }
            23 => {
                let ms = self.chance.i64(-400_000..400_000);
                self.on(at, Fault::ClockJumps(tandem, ms));
                if self.chance.bool() {
                    self.passing(at + 1_000, 1_000..20_000, Fault::Crashes(tandem), Fault::Starts(tandem));
                }
            }
            24 => {
                self.passing(
                    at,
                    5_000..120_000,
                    Fault::OwnLink(tandem, network, false),
                    Fault::OwnLink(tandem, network, true),
                );
            }
            25 => self.passing(at, 5_000..120_000, Fault::OwnNova(tandem, false), Fault::OwnNova(tandem, true)),
            26 if self.chance.bool() => {
                self.passing(at, 5_000..600_000, Fault::Disables(host), Fault::Enables(host));
            }
            26 => self.passing(at, 5_000..600_000, Fault::ForcesDown(host), Fault::LiftsForcedDown(host)),
            27 => {
                for again in 0..self.chance.u64(1..4) {
                    self.on(at + again * 7_000, Fault::Edits(host));
                }
            }
            28 => self.on(at, Fault::Releases(host)),
            29 => self.passing(at, 5_000..300_000, Fault::Disarms, Fault::Arms),
            30 => self.on(at, Fault::Evacuates(guest)),
            31 => self.on(at, Fault::Migrates(guest, other)),
            32 => self.on(at, Fault::Deletes(guest)),
            _ => self.on(at, Fault::GetsPower(host)),
        }
    }

    fn repair(&mut self) {
        self.on(REPAIRED_MS, Fault::AllRepaired);
        self.on(REPAIRED_MS + 60_000, Fault::Arms);
    }
}
