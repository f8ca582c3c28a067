//! `make model`: searches one setting as far as it is let, or shows what each part of a rule is there for.

mod actions;
mod clients;
mod data;
mod dropped;
mod faults;
mod links;
mod liveness;
mod membership;
mod search;
mod settings;
mod state;
mod symmetry;
mod volume;

use std::process::ExitCode;
use std::time::Duration;

use dropped::{Dropped, Shows};
use search::{Outcome, Verdict};
use settings::{LONG, SHORT, Setting};

fn main() -> ExitCode {
    let text = |name| std::env::var(name).unwrap_or_default();
    let limit = Duration::from_secs(60 * text("LIMIT").parse().unwrap_or(20));
    let wanted = text("SETTING");
    let is_well = match wanted.as_str() {
        "" => list(),
        "short" => all(SHORT, limit),
        "long" => all(LONG, limit),
        "dropped" => Dropped::ALL.iter().filter(|part| !is_as_expected(**part, limit)).count() == 0,
        name => one(name, limit),
    };
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list() -> bool {
    println!("make model SETTING=name [LIMIT=minutes]");
    for Setting { name, about, .. } in SHORT.iter().chain(LONG) {
        println!("  {name:16}{about}");
    }
    println!("  {:16}all of these up to `{}`, which `make check` searches, too", "short", SHORT[SHORT.len() - 1].name);
    println!("  {:16}the others", "long");
    println!("  {:16}every part of a rule, left out; one alone, and how it is caught, by its name:", "dropped");
    Dropped::ALL.iter().for_each(|part| println!("    {part:?}"));
    true
}

fn all(settings: &[Setting], limit: Duration) -> bool {
    settings.iter().filter(|setting| !is_kept(setting, limit)).count() == 0
}

fn one(name: &str, limit: Duration) -> bool {
    if let Some(setting) = SHORT.iter().chain(LONG).find(|setting| setting.name == name) {
        return is_kept(setting, limit);
    }
    let Some(part) = Dropped::ALL.iter().find(|part| format!("{part:?}") == name) else {
        eprintln!("no setting and no part of a rule is called {name}; `make model` lists them");
        return false;
    };
    is_as_expected(*part, limit)
}

/// No promise was broken as far as the search went.
fn is_kept(setting: &Setting, limit: Duration) -> bool {
    let outcome = setting.search(limit);
    let verdict = match &outcome.verdict {
        Verdict::Exhausted => "every promise is kept: exhaustive".into(),
        Verdict::GivenUp if setting.is_in_breadth() => {
            format!("every promise is kept: exhaustive to depth {}", outcome.depth - 1)
        }
        Verdict::GivenUp => "every promise is kept as far as it went".into(),
        Verdict::Broken { promise, .. } => format!("BROKEN: {promise}"),
    };
    println!("{:16}{}  {verdict}", setting.name, figures(&outcome));
    tell(&outcome.verdict);
    !matches!(outcome.verdict, Verdict::Broken { .. })
}

fn is_as_expected(part: Dropped, limit: Duration) -> bool {
    match part.shows() {
        Shows::Caught(setting) => without(part, setting, limit) == Some(true),
        Shows::Implied(settings) => {
            settings.iter().filter(|setting| without(part, setting, limit) != Some(false)).count() == 0
        }
    }
}

/// Whether a promise was broken; `None` if the search came to no end.
fn without(part: Dropped, setting: &Setting, limit: Duration) -> Option<bool> {
    let outcome = setting.search_without(part, limit);
    let name = format!("{part:?}");
    let (verdict, is_broken) = match &outcome.verdict {
        Verdict::Exhausted => (format!("implied: exhaustive in {}", setting.name), Some(false)),
        Verdict::GivenUp => (format!("not caught in {} as far as it went", setting.name), None),
        Verdict::Broken { promise, path } => {
            let (states, depth) = (outcome.unique, path.len());
            (format!("caught in {} after {states} states at depth {depth}: {promise}", setting.name), Some(true))
        }
    };
    println!("{name:28} {verdict}  [{}]", figures(&outcome));
    if std::env::var("SETTING").is_ok_and(|wanted| wanted == name) {
        tell(&outcome.verdict);
    }
    is_broken
}

fn figures(outcome: &Outcome) -> String {
    let Outcome { states, unique, depth, took, .. } = outcome;
    format!("{states:>11} states {unique:>10} unique, depth {depth:>3}, {:>6.1} s", took.as_secs_f64())
}

fn tell(verdict: &Verdict) {
    if let Verdict::Broken { path, .. } = verdict {
        path.iter().for_each(|action| println!("    {action:?}"));
    }
}
