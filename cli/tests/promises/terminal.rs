//! On a terminal: pictures that are redrawn, bars, and everything as it was afterwards.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

use crate::fake::{CMP1, DB1, Fake, Way, copying, error, hosts, summary, volume, with};

const ENTERED: &str = "\x1b[?1049h\x1b[?25l";
const LEFT: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal of 80 columns with `tandem` in it.
struct Terminal {
    ours: File,
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(command: Command, rows: u16) -> Result<Self> {
        Self::with_stdin(command, rows, |_| Ok(Stdio::null()))
    }

    /// One whose keys are heard.
    fn start_typing(command: Command, rows: u16) -> Result<Self> {
        Self::with_stdin(command, rows, |theirs| Ok(theirs.try_clone()?.into()))
    }

    fn with_stdin(mut command: Command, rows: u16, stdin: impl Fn(&File) -> Result<Stdio>) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        tcsetwinsize(&ours, Winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })?;
        let theirs = File::options().read(true).write(true).open(ptsname(&ours, Vec::new())?.to_str()?)?;
        let child = command
            .env("TERM", "xterm")
            .stdin(stdin(&theirs)?)
            .stdout(theirs.try_clone()?)
            .stderr(theirs)
            .spawn()
            .context("tandem could not be started")?;
        // The command holds their side; without it, ours reads on for ever.
        drop(command);
        Ok(Self { ours: File::from(ours), child, seen: String::new() })
    }

    /// Reads until this has appeared `times` times.
    fn wait_for(&mut self, text: &str, times: usize) -> Result<()> {
        while self.seen.matches(text).count() < times {
            ensure!(self.read_on(), "{text:?} did not appear {times} times in {:?}", self.seen);
        }
        Ok(())
    }

    /// False at the end, which a terminal tells by an error.
    fn read_on(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.ours.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
                true
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// All that was shown, and the exit code.
    fn end(mut self) -> Result<(String, Option<i32>)> {
        while self.read_on() {}
        Ok((self.seen, self.child.wait()?.code()))
    }
}

fn watched(more: &[(&str, u16, Value)]) -> Result<(Fake, Command)> {
    let open = ("GET /v2/incidents", 200, json!({ "incidents": [summary()] }));
    let fake = Fake::start(Way::Socket, &[&[("GET /v2/hosts", 200, hosts()), open], more].concat())?;
    let mut command = fake.command();
    command.args(["status", "--watch", "--interval", "0.1"]);
    Ok((fake, command))
}

#[test]
fn watch_redraws_and_restores_the_terminal_on_ctrl_c() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (_fake, command) = watched(&[])?;
        let mut terminal = Terminal::start(command, 50)?;
        terminal.wait_for("OPEN INCIDENTS", 3)?;
        terminal.signal(signal)?;
        let (seen, code) = terminal.end()?;
        assert_eq!(code, Some(0), "{seen:?}");
        assert!(seen.starts_with(ENTERED) && seen.ends_with(LEFT), "{seen:?}");
        assert!(seen.contains("\x1b[31m\x1b[1mevacuating\x1b[0m"), "no colours in {seen:?}");
    }
    Ok(())
}

#[test]
fn watch_cuts_the_picture_to_the_terminal() -> Result<()> {
    let (_fake, mut command) = watched(&[])?;
    command.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 6)?;
    terminal.wait_for("... 9 more lines", 2)?;
    terminal.signal(Signal::INT)?;
    let (seen, _) = terminal.end()?;
    for line in seen.trim_start_matches(ENTERED).split("\r\n") {
        let line = line.trim_start_matches("\x1b[H").split("\x1b[K").next().unwrap_or_default();
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    Ok(())
}

#[test]
fn watch_outlives_a_daemon_that_starts_again() -> Result<()> {
    let gone = ("GET /v2/hosts", 503, error(503, "starting"));
    let (_fake, command) = watched(&[gone, ("GET /v2/hosts", 200, hosts())])?;
    let mut terminal = Terminal::start(command, 50)?;
    terminal.wait_for("NO ANSWER, what follows is old", 1)?;
    terminal.seen.clear();
    terminal.wait_for("OPEN INCIDENTS", 3)?;
    terminal.signal(Signal::INT)?;
    let (seen, code) = terminal.end()?;
    assert_eq!(code, Some(0), "{seen:?}");
    Ok(())
}

#[test]
fn watch_restores_the_terminal_before_it_tells_a_failure() -> Result<()> {
    let (_fake, command) = watched(&[("GET /v2/hosts", 200, json!({ "nothing": 1 }))])?;
    let (seen, code) = Terminal::start(command, 50)?.end()?;
    assert_eq!(code, Some(1), "{seen:?}");
    let (_, after) = seen.split_once(LEFT).context("the terminal was not restored")?;
    assert!(after.contains("not tandem-ha's"), "{seen:?}");
    Ok(())
}

#[test]
fn watch_without_a_terminal_prints_one_picture_after_the_other() -> Result<()> {
    let pictures = |json: bool, text: &str| -> Result<String> {
        let (_fake, mut command) = watched(&[])?;
        command.args(json.then_some("--json")).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        let mut seen = String::new();
        while seen.matches(text).count() < 2 {
            seen.push_str(&(lines.next().context("it ended")?? + "\n"));
        }
        kill_process(Pid::from_child(&child), Signal::INT)?;
        lines.for_each(drop);
        ensure!(child.wait()?.code() == Some(0), "Ctrl-C is how it ends");
        Ok(seen)
    };
    let seen = pictures(false, "OPEN INCIDENTS\n")?;
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
    assert_eq!(pictures(true, "\"armed\"")?, format!("{}\n", hosts()).repeat(2));
    Ok(())
}

fn followed(phase: &str, state: &str) -> Value {
    let moved = u64::from(state != "moving");
    let instances = json!({ "total": 1, "moved": moved, "moving": 1 - moved, "waiting": 0, "named": 0 });
    let one = json!({ "instance": "i1", "name": "vm1", "state": state, "attempt": 2, "to": "cmp2",
                      "migration_status": "pre-migrating" });
    json!({ "incident": with(summary(), json!({ "phase": phase, "instances": instances, "moves": [one] })) })
}

#[test]
fn follow_draws_bars_while_instances_move() -> Result<()> {
    let key = format!("GET /v2/incidents/{CMP1}");
    let moving = (key.as_str(), 200, followed("evacuating", "moving"));
    let fake = Fake::start(Way::Socket, &[moving.clone(), moving, (&key, 200, followed("recovered", "moved"))])?;
    let mut command = fake.command();
    command.args(["incident", "show", CMP1, "--follow", "--interval", "0.2"]);
    let (seen, code) = Terminal::start(command, 50)?.end()?;
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(seen.contains("vm1 to cmp2: pre-migrating, attempt 2"), "{seen:?}");
    assert!(seen.contains("] 0 of 1 moved, 1 moving"), "{seen:?}");
    assert!(seen.ends_with("cmp1: recovered, 1 of 1 moved\r\n"), "{seen:?}");
    Ok(())
}

#[test]
fn ctrl_c_ends_follow_without_claiming_that_it_is_settled() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[(&format!("GET /v2/incidents/{CMP1}"), 200, followed("evacuating", "moving"))])?;
    let mut command = fake.command();
    command.args(["incident", "show", CMP1, "--follow", "--interval", "0.1"]);
    let mut terminal = Terminal::start(command, 50)?;
    terminal.wait_for("pre-migrating, attempt 2", 1)?;
    terminal.signal(Signal::INT)?;
    let (seen, code) = terminal.end()?;
    assert_eq!(code, Some(130), "{seen:?}");
    Ok(())
}

#[test]
fn watch_of_volumes_redraws_a_copy() -> Result<()> {
    let list = |left: u64| json!({ "volumes": [copying(left, 8)], "unreachable": [] });
    let answers = [("GET /v1/volumes", 200, list(6_100_000_000)), ("GET /v1/volumes", 200, list(1_000))];
    let fake = Fake::start(Way::Socket, &answers)?;
    let mut command = fake.node_command();
    command.args(["volume", "list", "--watch", "--interval", "0.1"]).env("NO_COLOR", "1");
    let mut terminal = Terminal::start(command, 6)?;
    terminal.wait_for("db-1  10 GiB  Primary/Secondary  UpToDate/Inconsistent  cmp1", 2)?;
    terminal.signal(Signal::INT)?;
    let (seen, code) = terminal.end()?;
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(seen.starts_with(ENTERED) && seen.ends_with(LEFT), "{seen:?}");
    assert!(seen.contains("NAME  SIZE    ROLES"), "{seen:?}");
    Ok(())
}

fn asked_to_copy(last: &Value) -> Result<(Fake, Command)> {
    let again = format!("GET /v1/volumes/{DB1}");
    let answers = [
        ("GET /v1/volumes/db-1", 200, volume()),
        ("POST /v1/volumes/db-1/resync", 200, copying(6_100_000_000, 8)),
        (again.as_str(), 200, copying(6_100_000_000, 8)),
        (again.as_str(), 200, last.clone()),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    let mut command = fake.node_command();
    command.args(["volume", "resync", "db-1", "--node", "cmp2", "--wait"]);
    Ok((fake, command))
}

#[test]
fn a_resync_that_is_waited_for_is_a_bar_with_rate_and_time_left() -> Result<()> {
    let (_fake, command) = asked_to_copy(&with(volume(), json!({ "generation": 9 })))?;
    let (seen, code) = Terminal::start(command, 50)?.end()?;
    assert_eq!(code, Some(0), "{seen:?}");
    assert!(seen.contains("db-1  Primary/Secondary  UpToDate/Inconsistent  until cmp2 is in sync"), "{seen:?}");
    assert!(seen.contains("[############>.................] cmp2 43.1 % 112 MiB/s, 51 s left"), "{seen:?}");
    assert!(seen.contains("db-1: resync\r\n"), "{seen:?}");
    Ok(())
}

#[test]
fn ctrl_c_ends_the_waiting_and_says_that_the_order_stands() -> Result<()> {
    let (_fake, command) = asked_to_copy(&copying(6_100_000_000, 8))?;
    let mut terminal = Terminal::start(command, 50)?;
    terminal.wait_for("51 s left", 1)?;
    terminal.signal(Signal::INT)?;
    let (seen, code) = terminal.end()?;
    assert_eq!(code, Some(130), "{seen:?}");
    assert!(seen.contains("db-1: no longer waited for; what was ordered goes on all the same"), "{seen:?}");
    Ok(())
}

/// What is typed where `tandem` asks.
fn typed(args: &[&str], question: &str, answer: &str) -> Result<(String, Option<i32>, Vec<String>)> {
    let answers = [
        ("GET /v1/volumes/db-1", 200, volume()),
        ("DELETE /v1/volumes/db-1", 200, json!({})),
        ("POST /v1/volumes/db-1/force-primary", 200, volume()),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    let mut command = fake.node_command();
    command.args(args);
    let mut terminal = Terminal::start_typing(command, 50)?;
    terminal.wait_for(question, 1)?;
    terminal.ours.write_all(answer.as_bytes())?;
    let (seen, code) = terminal.end()?;
    Ok((seen, code, fake.asked()))
}

#[test]
fn delete_asks_on_a_terminal() -> Result<()> {
    let question = "Delete db-1 and its data (10 GiB on cmp1 and cmp2) for good? [y/N]";
    let (seen, code, asked) = typed(&["volume", "delete", "db-1"], question, "y\n")?;
    assert_eq!((code, asked.len()), (Some(0), 2), "{seen:?}");
    for no in ["n\n", "\n", "db-1\n", "\u{4}"] {
        let (seen, code, asked) = typed(&["volume", "delete", "db-1"], question, no)?;
        assert_eq!((code, asked.len()), (Some(1), 1), "{seen:?}");
        assert!(seen.contains("nothing was done"), "{seen:?}");
    }
    Ok(())
}

#[test]
fn force_primary_asks_for_the_name_on_a_terminal() -> Result<()> {
    let args = ["volume", "force-primary", "db-1", "--node", "cmp1"];
    let question = "Type the volume's name, db-1, to go on:";
    let (seen, code, asked) = typed(&args, question, "db-1\n")?;
    assert_eq!((code, asked.len()), (Some(0), 2), "{seen:?}");
    let (seen, code, asked) = typed(&args, question, "db-2\n")?;
    assert_eq!((code, asked.len()), (Some(1), 1), "{seen:?}");
    assert!(seen.contains("\"db-2\" is not \"db-1\""), "{seen:?}");
    Ok(())
}
