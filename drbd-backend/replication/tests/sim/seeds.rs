//! Random volumes and bad days: everything follows from one number. A day is its plan and its list of misfortunes; each of these can be left out, so
//! that what is left of a day that broke a promise is short.

use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use replication::{Durability, EXTENT_BLOCKS};

use super::bend::Bend;
use super::judge::{Promise, Violation};
use super::misfortune::{Misfortune, Moment, What, When, Who};
use super::world::{Counts, Plan, World};

/// What came of one seed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub counts: Counts,
    pub events: u64,
    pub acknowledged: u64,
    pub checked_reads: u64,
    pub lost_caches: u64,
    pub refused_revoked: u64,
    /// Milliseconds from the repair until all was well.
    pub recovered_in_ms: u64,
    pub story: String,
}

impl Outcome {
    pub fn is_well(&self) -> bool {
        self.violations.is_empty()
    }
}

/// How a seed is played.
#[derive(Debug, Clone, Copy, Default)]
pub struct Telling {
    pub story: bool,
    pub everything: bool,
}

/// Plays one seed with all its misfortunes.
pub fn play(seed: u64, bend: Bend) -> Outcome {
    play_some(seed, bend, None, Telling::default())
}

/// Plays one seed with only those of its misfortunes that are named.
pub fn play_some(seed: u64, bend: Bend, keep: Option<&[usize]>, telling: Telling) -> Outcome {
    let (plan, misfortunes) = day(seed);
    let mut world = World::new(&plan, seed, bend);
    world.story = telling.story.then(Vec::new);
    world.tells_all = telling.everything;
    world.say(None, || introduce(&plan));
    for (number, misfortune) in misfortunes.into_iter().enumerate() {
        if keep.is_none_or(|keep| keep.contains(&number)) {
            world.plan(misfortune);
        }
    }
    let went = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| while world.step() {}));
    if let Err(panic) = went {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let what = format!("the core stops: {}", text.unwrap_or_default());
        world.judge.violations.push(Violation { at: world.now, promise: Promise::Shell, what });
    }
    outcome(seed, world)
}

pub fn outcome(seed: u64, mut world: World) -> Outcome {
    let mut story = world.story.take().unwrap_or_default();
    for broken in &world.judge.violations {
        story.push(format!(
            "    BROKEN {:?} at {} ms: {}",
            broken.promise,
            world.in_the_day_of(broken.at),
            broken.what
        ));
    }
    story.push(String::new());
    Outcome {
        seed,
        counts: std::mem::take(&mut world.counts),
        events: world.events,
        acknowledged: world.judge.acknowledged,
        checked_reads: world.judge.checked_reads,
        lost_caches: world.judge.lost_caches,
        refused_revoked: world.judge.refused_revoked,
        recovered_in_ms: world.end.took_ms,
        violations: std::mem::take(&mut world.judge.violations),
        story: story.join("\n"),
    }
}

/// The smallest set of a seed's misfortunes that still breaks a promise, found by leaving out one after the other.
pub fn shrink(seed: u64, bend: Bend) -> Vec<usize> {
    let (_, all) = day(seed);
    let mut keep: Vec<usize> = (0..all.len()).collect();
    loop {
        let before = keep.len();
        let mut place = 0;
        while place < keep.len() {
            let mut fewer = keep.clone();
            fewer.remove(place);
            if play_some(seed, bend, Some(&fewer), Telling::default()).is_well() {
                place += 1;
            } else {
                keep = fewer;
            }
        }
        if keep.len() == before {
            return keep;
        }
    }
}

/// On every core; whoever is done takes the next.
pub fn play_all(from: u64, seeds: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(from);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + seeds {
                    return mine;
                }
                mine.push(play(seed, Bend::None));
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed must not panic")).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn introduce(plan: &Plan) -> String {
    format!(
        "{} nodes, durability {:?}, blocks {:?} of {}, {} hot extents{}{}{}",
        plan.nodes,
        plan.durability,
        plan.blocks,
        plan.size_blocks,
        plan.hot_extents,
        if plan.confirms_reads { ", reads are confirmed" } else { "" },
        if plan.takes_over { "" } else { ", nobody takes over unasked" },
        if plan.clocks_are_bad { ", clocks out of their bound" } else { "" }
    )
}

/// The day of this seed.
pub fn day(seed: u64) -> (Plan, Vec<Misfortune>) {
    let mut chance = Rng::with_seed(seed);
    let plan = plan(&mut chance);
    let few = chance.usize(2..9);
    let mut misfortunes = Vec::with_capacity(few + 2);
    let mut at = 500;
    for _ in 0..few {
        at += if chance.bool() { chance.u64(0..300) } else { chance.u64(0..plan.heals_at_ms / 3) };
        let when = random_when(&mut chance, at.min(plan.heals_at_ms - 300));
        misfortunes.push(Misfortune { when, what: random_what(&mut chance, plan.nodes) });
    }
    (plan, misfortunes)
}

fn plan(chance: &mut Rng) -> Plan {
    let nodes = if chance.u8(0..5) < 2 { 2 } else { 3 };
    let (blocks, size_blocks, step_blocks) = blocks(chance);
    let clocks_are_bad = chance.u8(0..12) == 0;
    let most = if clocks_are_bad { 300_000 } else { 20_000 };
    let drift = [(); 3].map(|()| chance.i64(-most..=most));
    let pace = [400, 800, 1_500][chance.usize(0..3)];
    let count = chance.usize(2..5);
    let mut clients: Vec<(u64, bool)> = (0..count).map(|_| (pace, chance.u8(0..3) == 0)).collect();
    clients[0].0 = 60;
    clients.push((pace, false));
    Plan {
        nodes,
        durability: if chance.u8(0..3) == 0 { Durability::Write } else { Durability::Flush },
        blocks,
        size_blocks,
        step_blocks,
        hot_extents: chance.usize(2..4),
        in_flight: [2, 4, 8][chance.usize(0..3)],
        barrier_every_ms: [150, 600, 2_500][chance.usize(0..3)],
        confirms_reads: chance.u8(0..8) == 0,
        takes_over: chance.u8(0..10) > 0,
        drift,
        clocks_are_bad,
        clients,
        heals_at_ms: chance.u64(3_000..8_000),
        is_steady: false,
    }
}

/// Few blocks in one extent, copied one by one; or some of several extents, copied in large steps.
fn blocks(chance: &mut Rng) -> (Vec<u64>, u64, u32) {
    if chance.bool() {
        let size = chance.u64(1..8);
        return ((0..size).collect(), size, chance.u32(1..3));
    }
    let extents = chance.u64(2..4);
    let size = (extents - 1) * EXTENT_BLOCKS + chance.u64(1..30);
    let mut blocks = vec![0, EXTENT_BLOCKS - 1, EXTENT_BLOCKS, size - 1];
    blocks.extend((0..4).map(|_| chance.u64(0..size)));
    blocks.sort_unstable();
    blocks.dedup();
    (blocks, size, 512)
}

fn random_when(chance: &mut Rng, at: u64) -> When {
    if chance.u8(0..5) < 2 {
        return When::At(at);
    }
    let moment = Moment::ALL[chance.usize(0..Moment::ALL.len())];
    let wait = [0, 200, 3_000, 60_000][chance.usize(0..4)];
    When::After { armed: at, moment, wait: if wait == 0 { 0 } else { chance.u64(0..wait) } }
}

fn random_who(chance: &mut Rng) -> Who {
    match chance.u8(0..10) {
        0..3 => Who::Primary,
        3..6 => Who::Other(chance.usize(0..2)),
        6..8 => Who::There,
        _ => Who::Node(chance.usize(0..3)),
    }
}

fn random_what(chance: &mut Rng, nodes: usize) -> What {
    let who = random_who(chance);
    let down = [20, 300, 1_200, 3_000][chance.usize(0..4)];
    let down = chance.u64(1..down);
    let length = [50, 300, 900, 2_500][chance.usize(0..4)];
    let length = chance.u64(10..length);
    let one = chance.usize(0..nodes);
    let other = (one + chance.usize(1..nodes)) % nodes;
    let (one, other) = (Who::Node(one), Who::Node(other));
    match chance.u8(0..106) {
        0..8 => What::Kill { who, down },
        8..16 => What::CutPower { who, down },
        16..20 => What::CutPowerInTurn { first: who, second: random_who(chance), down },
        20..23 => What::CutPowerOfAll { down },
        23..26 => What::ShutDown { who, down },
        26..34 => What::Pause { who, length },
        34..35 => What::HiddenPause { who, length },
        35..42 => What::Cut { one, other, both_ways: chance.bool(), length },
        42..47 => What::Isolate { who, length },
        47..51 => What::Reset { one, other },
        51..53 => What::SlowNetwork { length },
        53..56 => What::ArbiterAway { length },
        56..60 => What::ArbiterAwayFrom { who, length },
        60..65 => What::ArbiterLosesAnswers { length: length.max(300) },
        65..70 => What::ArbiterLate { length: length.max(300) },
        70..71 => What::ArbiterRestored { back: chance.usize(0..4), is_known: chance.bool() },
        71..72 => What::ArbiterWiped,
        72..74 => What::ReadError { who, block: chance.usize(0..8) },
        74..76 => What::WriteError { who },
        76..78 => What::FlushError { who },
        78..79 => What::MetadataError { who },
        79..81 => What::Full { who, length },
        81..83 => What::SlowDisk { who, length, times: chance.u64(10..400) },
        83..85 => What::RolledBack { who, down },
        85..87 => What::Exchanged { who, down },
        87..90 => What::Promote { who },
        90..92 => What::Demote,
        92..96 => What::HandOver { to: who },
        96..97 => What::ForceAfterFence { who, down },
        97..98 => What::ForceWithoutFence { who },
        98..100 => What::Revoke { client: chance.usize(0..5) },
        100..101 => What::FenceHost { client: chance.usize(0..5) },
        101..103 => What::Fence { who, down },
        _ => What::Invalidate { who },
    }
}
