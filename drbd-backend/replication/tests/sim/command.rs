//! `make sim-volume`: plays many seeds and says what came of them; or one, and tells its story.

#[path = "mod.rs"]
#[expect(dead_code, reason = "stories and planted faults are the tests'")]
mod sim;

use std::process::ExitCode;

use sim::bend::Bend;
use sim::seeds::{Outcome, Telling, play_all, play_some, shrink};

const TOLD_AT_MOST: usize = 2;

fn main() -> ExitCode {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => one(seed),
        None => many(number("FROM").unwrap_or(1), number("SEEDS").unwrap_or(1_000)),
    }
}

/// `KEEP=1,4` leaves out all other misfortunes; `ALL=1` tells every event and every effect.
fn one(seed: u64) -> ExitCode {
    let keep = std::env::var("KEEP").ok().filter(|text| !text.is_empty());
    let keep: Option<Vec<usize>> =
        keep.map(|text| text.split(',').filter_map(|number| number.trim().parse().ok()).collect());
    let everything = std::env::var_os("ALL").is_some_and(|text| !text.is_empty());
    let outcome = play_some(seed, Bend::None, keep.as_deref(), Telling { story: true, everything });
    print!("{}", outcome.story);
    println!("seed {seed}: {}", if outcome.is_well() { "every promise was kept" } else { "BROKEN" });
    if outcome.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "how fast we are is measured on the real clock")]
    let began = std::time::Instant::now();
    let outcomes = play_all(from, seeds);
    let took = began.elapsed().as_secs_f64();
    let broken: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_well()).collect();
    for outcome in broken.iter().take(TOLD_AT_MOST) {
        tell_shortest(outcome.seed);
    }
    for outcome in broken.iter().skip(TOLD_AT_MOST) {
        let first = outcome.violations.first().map_or(String::new(), |it| format!("{:?}: {}", it.promise, it.what));
        println!("seed {}: {first}", outcome.seed);
    }
    tell_counts(&outcomes);
    println!("violations                    {}", broken.len());
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let speed = seeds as f64 / took;
    println!("seeds per second              {speed:.0}");
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// With as few misfortunes as break a promise.
fn tell_shortest(seed: u64) {
    let keep = shrink(seed, Bend::None);
    let outcome = play_some(seed, Bend::None, Some(&keep), Telling { story: true, everything: false });
    print!("{}", outcome.story);
    let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
    println!("seed {seed} broke a promise; this is replayed by: make sim-volume SEED={seed} KEEP={}\n", keep.join(","));
}

fn tell_counts(outcomes: &[Outcome]) {
    let sum = |what: fn(&Outcome) -> u64| outcomes.iter().map(what).sum::<u64>();
    println!("seeds                         {}", outcomes.len());
    println!("events                        {}", sum(|it| it.events));
    println!("writes acknowledged           {}", sum(|it| it.acknowledged));
    println!("reads checked                 {}", sum(|it| it.checked_reads));
    let mut misfortunes = std::collections::BTreeMap::new();
    for (name, count) in outcomes.iter().flat_map(|it| &it.counts.misfortunes) {
        *misfortunes.entry(*name).or_insert(0) += count;
    }
    for (name, count) in misfortunes {
        println!("  {name:28}{count}");
    }
    println!("takeovers                     {}", sum(|it| it.counts.takeovers));
    println!("resyncs                       {}", sum(|it| it.counts.resyncs));
    println!("freezes                       {}", sum(|it| it.counts.freezes));
    println!("suspects                      {}", sum(|it| it.counts.suspects));
    println!("total outages                 {}", sum(|it| it.lost_caches));
    println!("volumes lost for good         {}", sum(|it| it.counts.volumes_lost));
    println!(
        "longest recovery, ms          {}",
        outcomes.iter().map(|it| it.recovered_in_ms).max().unwrap_or_default()
    );
}
