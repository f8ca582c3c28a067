//! `tandem incident show --follow`: the timeline as it grows, and bars while instances move, until all is settled.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::answer::{Counts, Incident, Move, OneIncident, Text};
use crate::ask::{one_incident, whole_id};
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show::{self, Paint};
use crate::watch::EndSignal;

/// A daemon that is started again answers within this.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn incident(server: &Server, id: &str, interval: Duration, json: bool) -> Result<Ending, Failure> {
    let mut ended = EndSignal::listen()?;
    tokio::select! {
        biased;
        () = ended.comes() => Ok(Ending::Interrupted),
        ending = follow(server, id, interval, json) => ending,
    }
}

async fn follow(server: &Server, id: &str, interval: Duration, json: bool) -> Result<Ending, Failure> {
    let id = whole_id(server, id).await?;
    let mut answer = one_incident(server, &id).await?;
    let mut shown = Shown::new(json, &answer)?;
    while !shown.settled {
        tokio::time::sleep(interval).await;
        let next = look_patiently(server, &id, interval, &shown).await?;
        shown.next(&next, next != answer)?;
        answer = next;
    }
    Ok(Ending::Done)
}

async fn look_patiently(server: &Server, id: &str, interval: Duration, shown: &Shown) -> Result<Answer, Failure> {
    let began = Instant::now();
    loop {
        match one_incident(server, id).await {
            Err(failure) if failure.may_pass() && began.elapsed() < PATIENCE => shown.trouble(&failure),
            answer => return answer,
        }
        tokio::time::sleep(interval).await;
    }
}

/// What has been shown so far.
struct Shown {
    json: bool,
    paint: Paint,
    bars: Option<Bars>,
    /// Lines of the timeline that have been printed.
    events: usize,
    counts: Counts,
    settled: bool,
}

impl Shown {
    /// Starts with the whole story, as without --follow.
    fn new(json: bool, answer: &Answer) -> Result<Self, Failure> {
        let mut shown =
            Self { json, paint: out::paint(), bars: None, events: 0, counts: Counts::default(), settled: false };
        if json {
            shown.next(answer, true)?;
            return Ok(shown);
        }
        let OneIncident { incident } = answer.read()?;
        out::print(&show::incident::text(&incident, Utc::now(), shown.paint))?;
        shown.remember(&incident);
        if !shown.settled && io::stdout().is_terminal() && io::stderr().is_terminal() {
            shown.bars = Some(Bars::new(&incident));
        }
        Ok(shown)
    }

    fn remember(&mut self, incident: &Incident) {
        self.events = incident.timeline.len();
        self.counts = incident.instances;
        self.settled = incident.settled();
    }

    /// What is new since the last time; on the bars all, as they may still show that there was no answer.
    fn next(&mut self, answer: &Answer, changed: bool) -> Result<(), Failure> {
        if !changed && self.bars.is_none() {
            return Ok(());
        }
        if self.json {
            out::json(answer)?;
            self.settled = answer.read::<OneIncident>()?.incident.settled();
            return Ok(());
        }
        let OneIncident { incident } = answer.read()?;
        let news = self.news(&incident);
        self.print(&news)?;
        if let Some(bars) = &mut self.bars {
            bars.show(&incident);
        }
        self.remember(&incident);
        if self.settled { self.end(&incident) } else { Ok(()) }
    }

    fn news(&self, incident: &Incident) -> Vec<String> {
        let new = incident.timeline.get(self.events..).unwrap_or_default();
        let mut lines = show::incident::timeline(new, &incident.opened_at, self.paint);
        if self.bars.is_none() && incident.instances != self.counts {
            lines.push(format!("  instances: {}", show::counts(incident.instances)));
        }
        lines
    }

    /// Above the bars, where there are any.
    fn print(&self, lines: &[String]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        match &self.bars {
            Some(bars) => bars.all.suspend(|| out::print(&text)),
            None => out::print(&text),
        }
    }

    fn trouble(&self, failure: &Failure) {
        match &self.bars {
            Some(bars) => bars.head.set_message(format!("NO ANSWER: {}", out::story(failure))),
            None => out::report(failure),
        }
    }

    /// How it ended, and what was left behind with which reason.
    fn end(&mut self, incident: &Incident) -> Result<(), Failure> {
        if let Some(bars) = self.bars.take() {
            bars.clear()?;
        }
        let named = incident.moves.iter().filter(|one| one.state.is("named"));
        let named = named.map(|one| format!("  not moved: {} ({}): {}", one.name, one.instance, one.why));
        let stopped = incident.restarts.iter().filter(|one| one.state.is("named"));
        let stopped = stopped.map(|one| format!("  not started: {} ({}): {}", one.name, one.instance, one.why));
        let mut lines = vec![format!(
            "{}: {}, {}{}",
            incident.host,
            incident.phase,
            show::counts(incident.instances),
            took(incident)
        )];
        lines.extend(named.chain(stopped));
        out::print(&(lines.join("\n") + "\n"))
    }
}

/// From the opening to the last move's end.
fn took(incident: &Incident) -> String {
    let ends = incident.moves.iter().filter_map(|one| one.ended_at.at());
    match (incident.opened_at.at(), ends.max()) {
        (Some(opened), Some(ended)) => {
            format!(", the last {} after the incident was opened", show::lasted(ended - opened))
        }
        _ => String::new(),
    }
}

/// One line for the incident, one for all its instances, one for each that moves now.
struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    instances: ProgressBar,
    moving: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new(incident: &Incident) -> Self {
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")));
        let instances = all.add(ProgressBar::new(0).with_style(style("  [{bar:40}] {msg}").progress_chars("#>.")));
        let mut bars = Self { all, head, instances, moving: BTreeMap::new() };
        bars.show(incident);
        bars
    }

    fn show(&mut self, incident: &Incident) {
        self.head.set_message(sentence(incident));
        let Counts { total, moved, named, running, .. } = incident.instances;
        self.instances.set_length(total.max(1));
        self.instances.set_position(moved.saturating_add(running.unwrap_or(0)).saturating_add(named));
        self.instances.set_message(show::counts(incident.instances));
        self.drop_the_settled(&incident.moves);
        for one in incident.moves.iter().filter(|one| one.state.is("moving")) {
            self.line(one).set_message(moving(one));
        }
        self.tick();
    }

    fn drop_the_settled(&mut self, moves: &[Move]) {
        let moves_still = |id: &String| moves.iter().any(|one| one.state.is("moving") && one.instance.is(id));
        let (still, settled) = std::mem::take(&mut self.moving).into_iter().partition(|(id, _)| moves_still(id));
        self.moving = still;
        for bar in BTreeMap::into_values(settled) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn line(&mut self, one: &Move) -> &ProgressBar {
        let new = || {
            let bar = ProgressBar::new_spinner().with_style(style("    {spinner} {elapsed:>4}  {wide_msg}"));
            self.all.add(bar.with_elapsed(running(&one.intended_at)))
        };
        self.moving.entry(one.instance.to_string()).or_insert_with(new)
    }

    fn tick(&self) {
        for bar in [&self.head, &self.instances].into_iter().chain(self.moving.values()) {
            bar.tick();
        }
    }

    fn clear(self) -> Result<(), Failure> {
        Ok(self.all.clear()?)
    }
}

fn style(template: &str) -> ProgressStyle {
    // ASCII: the console of a BMC has no better letters.
    ProgressStyle::with_template(template).expect("the templates are ours").tick_chars("-\\|/ ")
}

fn sentence(incident: &Incident) -> String {
    match &incident.hold {
        Some(hold) => format!("{} {}, {}", incident.host, incident.phase, show::held_by(hold)),
        None => format!("{} {}: {}", incident.host, incident.phase, incident.why),
    }
}

fn moving(one: &Move) -> String {
    let to = one.to.get().map_or_else(String::new, |to| format!(" to {to}"));
    let again = one.attempt.get().filter(|attempt| *attempt != "1");
    let again = again.map_or_else(String::new, |attempt| format!(", attempt {attempt}"));
    format!("{}{to}: {}{again}", one.name, one.migration_status.get().unwrap_or("asked for"))
}

/// Since then; nothing where the clocks disagree.
fn running(since: &Text) -> Duration {
    since.at().map_or(TimeDelta::zero(), |at| Utc::now() - at).to_std().unwrap_or_default()
}
