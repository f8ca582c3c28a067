//! `--watch`: looks again and again, and leaves the terminal as it found it.

use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use console::{Term, truncate_str};
use tokio::signal::unix::{SignalKind, signal};

use crate::answer;
use crate::ask;
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show::{self, Paint};

/// What is looked at.
pub(crate) trait Sight {
    type Seen;

    /// What --json prints.
    async fn answer(&self) -> Result<Answer, Failure>;

    async fn look(&self) -> Result<Self::Seen, Failure>;

    fn lines(&self, seen: &Self::Seen, now: DateTime<Utc>, paint: Paint) -> Vec<String>;

    /// The command that shows it once, for those whose window is too small.
    fn once(&self) -> String;
}

/// `tandem status`.
#[derive(Debug)]
pub(crate) struct Status<'a> {
    pub(crate) server: &'a Server,
}

impl Sight for Status<'_> {
    type Seen = answer::Status;

    async fn answer(&self) -> Result<Answer, Failure> {
        ask::hosts(self.server).await
    }

    async fn look(&self) -> Result<Self::Seen, Failure> {
        ask::look(self.server).await
    }

    fn lines(&self, seen: &Self::Seen, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
        show::status::lines(seen, self.server.address(), now, paint)
    }

    fn once(&self) -> String {
        "tandem status".to_owned()
    }
}

/// Until Ctrl-C. The first look must succeed: a wrong address shall not look like a daemon that starts again.
pub(crate) async fn watch(sight: &impl Sight, interval: Duration, json: bool) -> Result<Ending, Failure> {
    let mut ended = EndSignal::listen()?;
    if json {
        return until(&mut ended, json_lines(sight, interval)).await;
    }
    let first = tokio::select! {
        biased;
        () = ended.comes() => return Ok(Ending::Done),
        first = sight.look() => first?,
    };
    let term = Term::stdout();
    let view = if term.is_term() { View::Screen(Screen::enter(term, sight.once())?) } else { View::Lines };
    until(&mut ended, pictures(sight, interval, first, &view)).await
}

/// Runs until it fails or somebody ends us.
pub(crate) async fn until(ended: &mut EndSignal, endless: impl Future<Output = Failure>) -> Result<Ending, Failure> {
    tokio::select! {
        biased;
        () = ended.comes() => Ok(Ending::Done),
        failure = endless => Err(failure),
    }
}

/// One answer a look, as it came.
async fn json_lines(sight: &impl Sight, interval: Duration) -> Failure {
    let mut first = true;
    loop {
        match sight.answer().await {
            Ok(answer) => {
                if let Err(failure) = out::json(&answer) {
                    return failure;
                }
            }
            Err(failure) if failure.may_pass() && !first => out::report(&failure),
            Err(failure) => return failure,
        }
        first = false;
        tokio::time::sleep(interval).await;
    }
}

async fn pictures<S: Sight>(sight: &S, interval: Duration, first: S::Seen, view: &View) -> Failure {
    let paint = out::paint();
    let mut last = first;
    let mut trouble: Option<Failure> = None;
    loop {
        if let Err(failure) = view.draw(&picture(sight, &last, trouble.as_ref(), interval, paint)) {
            return failure;
        }
        tokio::time::sleep(interval).await;
        trouble = match sight.look().await {
            Ok(seen) => {
                last = seen;
                None
            }
            Err(failure) if failure.may_pass() => Some(failure),
            Err(failure) => return failure,
        };
    }
}

/// What is known, and if there was no answer, that it is what *was* known.
fn picture<S: Sight>(
    sight: &S,
    last: &S::Seen,
    trouble: Option<&Failure>,
    interval: Duration,
    paint: Paint,
) -> Vec<String> {
    let now = Utc::now();
    let every = format!("{}, every {} s, Ctrl-C ends", now.format("%Y-%m-%d %H:%M:%SZ"), interval.as_secs_f64());
    let mut lines = vec![every];
    if let Some(failure) = trouble {
        lines.push(paint.bad(&format!("NO ANSWER, what follows is old: {}", out::story(failure))));
        lines.extend(failure.remedy());
    }
    lines.extend(sight.lines(last, now, paint));
    lines
}

enum View {
    Screen(Screen),
    /// No terminal: one picture after the other.
    Lines,
}

impl View {
    fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        match self {
            Self::Screen(screen) => screen.draw(lines),
            Self::Lines => out::print(&(lines.join("\n") + "\n\n")),
        }
    }
}

const ENTER: &str = "\x1b[?1049h\x1b[?25l"; // the alternate screen, no cursor
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The terminal's other screen, until dropped.
struct Screen {
    term: Term,
    once: String,
}

impl Screen {
    fn enter(term: Term, once: String) -> Result<Self, Failure> {
        let screen = Self { term, once };
        out::print(ENTER)?;
        Ok(screen)
    }

    /// In one write, from the top, each line's rest cleared: clearing all first would flicker.
    fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        let (rows, columns) = self.term.size();
        let mut text = String::from("\x1b[H");
        for (row, line) in fitting(lines, usize::from(rows), &self.once).iter().enumerate() {
            text.push_str(if row == 0 { "" } else { "\r\n" });
            text.push_str(&truncate_str(line, usize::from(columns), "..."));
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        out::print(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = out::print(LEAVE);
    }
}

/// What fits on the screen, and how much does not.
fn fitting(lines: &[String], rows: usize, once: &str) -> Vec<String> {
    if lines.len() <= rows {
        return lines.to_vec();
    }
    let shown = rows.saturating_sub(1);
    let more = format!("... {} more lines: make the window taller, or `{once} | less`", lines.len() - shown);
    lines[..shown].iter().cloned().chain([more]).collect()
}

/// Whoever may ask us to end: Ctrl-C, `kill`, the terminal that closes.
pub(crate) struct EndSignal {
    signals: [tokio::signal::unix::Signal; 3],
}

impl EndSignal {
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| -> Result<_, Failure> { signal(kind).map_err(|cause: io::Error| Failure::Start(cause)) };
        let signals =
            [listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?];
        Ok(Self { signals })
    }

    pub(crate) async fn comes(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
