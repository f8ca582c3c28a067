//! Writes to stdout and stderr, and never panics when nobody reads.

use std::error::Error;
use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;
use crate::server::Answer;
use crate::show::Paint;

/// Colours are for terminals, unless somebody asked for none (https://no-color.org).
pub(crate) fn paint() -> Paint {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if io::stdout().is_terminal() && !unwanted && !dumb { Paint::Coloured } else { Paint::Plain }
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// The answer as it came, ended by a newline if it is not.
pub(crate) fn json(answer: &Answer) -> Result<(), Failure> {
    bytes(answer.raw())?;
    if answer.raw().is_empty() || answer.raw().ends_with(b"\n") { Ok(()) } else { bytes(b"\n") }
}

pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}

/// Two lines at most: what and why, and the remedy. A closed pipe is no news.
pub(crate) fn report(failure: &Failure) {
    if matches!(failure, Failure::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe) {
        return;
    }
    let remedy = failure.remedy().map_or_else(String::new, |remedy| format!("  {remedy}\n"));
    // There is nobody left to tell if this fails.
    let _ = io::stderr().lock().write_all(format!("tandem: {}\n{remedy}", story(failure)).as_bytes());
}

/// The failure with its chain of causes, each said once.
pub(crate) fn story(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // reqwest and hyper say in theirs what ours has said already: the address, and that it was not reached.
        let envelope = error.is::<reqwest::Error>() || said.starts_with("client error (");
        let repeated = envelope && error.source().is_some();
        if !repeated && !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// One line to stderr that is no failure.
pub(crate) fn note(text: &str) {
    // As above.
    let _ = io::stderr().lock().write_all(format!("tandem: {text}\n").as_bytes());
}
