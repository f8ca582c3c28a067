//! Waits until a volume is as it was ordered to be, and shows how far it is.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::answer::{Replica, Volume};
use super::ask;
use crate::failure::Failure;
use crate::out;
use crate::server::{Answer, Server};
use crate::show::{self, Paint};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A copy that stands still for so long is not waited for any more.
const STILL: Duration = Duration::from_secs(600);

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Goal {
    /// Every replica is, and if it is to be promoted, somebody serves.
    UpToDate {
        promoted: bool,
    },
    /// This node serves, or any.
    Primary(Option<String>),
    NoPrimary,
    /// The replica has left at this generation or later, and is back.
    InSync {
        node: String,
        after: u64,
    },
}

/// For how long.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    Until(Duration),
    WhileItMoves,
}

impl Goal {
    fn is_reached(&self, volume: &Volume) -> bool {
        match self {
            Self::UpToDate { promoted } => {
                let all = !volume.replicas.is_empty() && volume.replicas.iter().all(Replica::is_well);
                all && (volume.serving || !promoted)
            }
            Self::Primary(node) => {
                let there = node.as_ref().map_or(volume.primary.get().is_some(), |node| volume.primary.is(node));
                there && volume.serving
            }
            Self::NoPrimary => volume.primary.get().is_none(),
            // It leaves by one change of the record and comes back by the next: a replica that is still in sync as before has not begun.
            Self::InSync { node, after } => {
                volume.generation > *after
                    && volume.replica(node).is_some_and(|replica| replica.is_well() && replica.resync.is_none())
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Self::UpToDate { promoted: false } => "every replica is UpToDate".to_owned(),
            Self::UpToDate { promoted: true } => "every replica is UpToDate and one is Primary".to_owned(),
            Self::Primary(Some(node)) => format!("{node} serves it"),
            Self::Primary(None) => "a Primary serves it".to_owned(),
            Self::NoPrimary => "nobody is Primary".to_owned(),
            Self::InSync { node, .. } => format!("{node} is in sync"),
        }
    }
}

impl Patience {
    fn limit(self) -> Duration {
        match self {
            Self::Until(limit) => limit,
            Self::WhileItMoves => STILL,
        }
    }
}

/// The first answer with which the goal is reached, `first` included.
pub(crate) async fn until(server: &Server, first: Answer, goal: &Goal, patience: Patience) -> Result<Answer, Failure> {
    let mut answer = first;
    let mut volume: Volume = answer.read()?;
    let id = volume.uuid.get().unwrap_or(volume.name.or_empty()).to_owned();
    let mut shown = Shown::new(goal);
    let mut since = Instant::now();
    while !goal.is_reached(&volume) {
        shown.next(&volume)?;
        if since.elapsed() >= patience.limit() {
            return Err(too_long(&volume, goal, patience));
        }
        tokio::time::sleep(INTERVAL.min(patience.limit())).await;
        match ask::volume(server, &id).await {
            Ok(next) => answer = next,
            Err(failure) if failure.may_pass() => {
                shown.trouble(&failure);
                continue;
            }
            Err(failure) => return Err(failure),
        }
        let next: Volume = answer.read()?;
        if matches!(patience, Patience::WhileItMoves) && next != volume {
            since = Instant::now();
        }
        volume = next;
    }
    Ok(answer)
}

fn too_long(volume: &Volume, goal: &Goal, patience: Patience) -> Failure {
    let name = &volume.name;
    let waited = match patience {
        Patience::Until(limit) => format!("after {} s", limit.as_secs_f64()),
        Patience::WhileItMoves => format!("and nothing has moved for {} s", STILL.as_secs()),
    };
    let (goal, line) = (goal.words(), show::volumes::line(volume, Paint::Plain));
    Failure::StillWaiting {
        what: format!("{name}: the order was taken, but not yet is it so that {goal}, {waited}: {line}"),
        remedy: format!("it goes on all the same: `tandem volume show {name} --watch` shows how, `tandem events` why"),
    }
}

/// What has been shown so far: bars on a terminal, else a line when there is news. Both on stderr, as stdout is for how it ended.
struct Shown {
    goal: String,
    bars: Option<Bars>,
    last: String,
}

impl Shown {
    fn new(goal: &Goal) -> Self {
        let bars = (io::stdout().is_terminal() && io::stderr().is_terminal()).then(Bars::new);
        Self { goal: goal.words(), bars, last: String::new() }
    }

    fn next(&mut self, volume: &Volume) -> Result<(), Failure> {
        match &mut self.bars {
            Some(bars) => bars.show(volume, &self.goal),
            None => self.line(volume),
        }
        Ok(())
    }

    /// A copy is news at every tenth of it.
    fn line(&mut self, volume: &Volume) {
        let mut coarse = volume.clone();
        for resync in coarse.replicas.iter_mut().filter_map(|replica| replica.resync.as_mut()) {
            let tenth = (resync.total_bytes / 10).max(1);
            resync.left_bytes = resync.left_bytes.div_ceil(tenth) * tenth;
            (resync.bytes_per_s, resync.eta_s) = (None, None);
        }
        let news = show::volumes::line(&coarse, Paint::Plain);
        if news != self.last {
            out::note(&show::volumes::line(volume, Paint::Plain));
            self.last = news;
        }
    }

    fn trouble(&self, failure: &Failure) {
        match &self.bars {
            Some(bars) => bars.head.set_message(format!("NO ANSWER: {}", out::story(failure))),
            None => out::report(failure),
        }
    }
}

/// One line for the volume, one for each replica that copies. Dropped, they leave no trace.
struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    copies: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let head = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {elapsed:>4}  {wide_msg}")));
        Self { all, head, copies: BTreeMap::new() }
    }

    fn show(&mut self, volume: &Volume, goal: &str) {
        let (roles, disks) = (show::volumes::roles(volume), show::volumes::disks(volume, Paint::Plain));
        self.head.set_message(format!("{}  {roles}  {disks}  until {goal}", volume.name));
        self.head.tick();
        for replica in volume.in_order() {
            let node = replica.node.to_string();
            match replica.resync {
                Some(resync) => {
                    let bar = self.copies.entry(node.clone()).or_insert_with(|| {
                        self.all.add(ProgressBar::new(0).with_style(style("  [{bar:30}] {msg}").progress_chars("#>.")))
                    });
                    bar.set_length(resync.total_bytes.max(1));
                    bar.set_position(resync.done_bytes());
                    bar.set_message(format!("{node} {}", show::in_short(resync)));
                    bar.tick();
                }
                None => drop(self.copies.remove(&node).inspect(ProgressBar::finish_and_clear)),
            }
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to clear.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // ASCII: the console of a BMC has no better letters.
    ProgressStyle::with_template(template).expect("the templates are ours").tick_chars("-\\|/ ")
}
