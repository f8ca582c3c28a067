//! `make sim`: plays many seeds and says what came of them; or one, and tells its story.

#[path = "mod.rs"]
#[expect(dead_code, reason = "stories and planted faults are the tests'")]
mod sim;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::bend::Bend;
use sim::judge::Reached;
use sim::seeds::{END_MS, Outcome, play};

const GOAL_PER_SECOND: f64 = 200.0;
const TOLD_AT_MOST: usize = 3;

fn main() -> ExitCode {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => one(seed),
        None => many(number("FROM").unwrap_or(1), number("SEEDS").unwrap_or(1_000)),
    }
}

fn one(seed: u64) -> ExitCode {
    let outcome = play(seed, Bend::None, true);
    print!("{}", outcome.story);
    println!("seed {seed}: {}", if outcome.is_well() { "every promise was kept" } else { "BROKEN" });
    if outcome.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "how fast we are is measured on the real clock")]
    let began = std::time::Instant::now();
    let outcomes = play_all(from, seeds);
    let took = began.elapsed().as_secs_f64();
    let count = |reached| outcomes.iter().filter(|outcome| outcome.reached.contains(&reached)).count();
    let broken: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_well()).collect();
    for outcome in broken.iter().take(TOLD_AT_MOST) {
        print!("{}", play(outcome.seed, Bend::None, true).story);
        println!("seed {} broke a promise; it is replayed by: make sim SEED={}\n", outcome.seed, outcome.seed);
    }
    for outcome in broken.iter().skip(TOLD_AT_MOST) {
        let first = outcome.violations.first().map_or("", |broken| &broken.what);
        println!("seed {}: {first}", outcome.seed);
    }
    println!("seeds                {seeds}");
    println!("simulated hours      {:.0}", seeds as f64 * END_MS as f64 / 3_600_000.0);
    println!("fenced               {}", count(Reached::Fenced));
    println!("evacuated            {}", count(Reached::Evacuated));
    println!("held                 {}", count(Reached::Held));
    println!("lost their leader    {}", count(Reached::LostLeader));
    println!("violations           {}", broken.len());
    println!("seeds per second     {:.0} (goal {GOAL_PER_SECOND})", seeds as f64 / took);
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// On every core; whoever is done takes the next.
fn play_all(from: u64, seeds: u64) -> Vec<Outcome> {
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
                mine.push(play(seed, Bend::None, false));
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed must not panic")).collect()
    });
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}
