//! Asks whether it is meant, where data may be lost.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Yes, or nothing is done.
pub(crate) fn yes(what: &'static str, question: &str) -> Result<(), Failure> {
    match ask(what, "--yes", &format!("{question} [y/N] "))?.to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::NotMeant("it was not confirmed".to_owned())),
    }
}

/// The name once more, as it was typed: the server compares it.
pub(crate) fn name(what: &'static str, name: &str) -> Result<String, Failure> {
    let typed = ask(what, "--name NAME", &format!("Type the volume's name, {name}, to go on: "))?;
    if typed == name { Ok(typed) } else { Err(Failure::NotMeant(format!("{typed:?} is not {name:?}"))) }
}

fn ask(what: &'static str, option: &'static str, question: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Unconfirmed { what, option });
    }
    // stdout is for the answer, which may go to a file.
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
