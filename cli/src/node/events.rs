//! `tandem events`: server-sent events (HTML Standard, section 9.2), a line each, until Ctrl-C.

use std::time::Duration;

use super::answer::Said;
use crate::answer::clean;
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Server, Stream};
use crate::show;
use crate::watch::{EndSignal, until};

/// Between two attempts to hear a node again.
const PAUSE: Duration = Duration::from_secs(1);
/// A line that is longer is no event of ours.
const LINE_LIMIT_BYTES: usize = 1 << 20;

pub(crate) async fn follow(server: &Server, volume: Option<&str>, json: bool) -> Result<Ending, Failure> {
    let mut ended = EndSignal::listen()?;
    until(&mut ended, listen(server, volume, json)).await
}

/// The first connection must succeed; after that a node may start again, and another be heard in the meantime.
async fn listen(server: &Server, volume: Option<&str>, json: bool) -> Failure {
    let query: Vec<_> = volume.map(|volume| ("volume", volume)).into_iter().collect();
    let mut stream = match server.stream(&["v1", "events"], &query).await {
        Ok(stream) => stream,
        Err(failure) => return failure,
    };
    loop {
        match print_all(stream, json).await {
            Ok(()) => {}
            Err(failure) if failure.may_pass() => out::report(&failure),
            Err(failure) => return failure,
        }
        stream = loop {
            tokio::time::sleep(PAUSE).await;
            match server.stream(&["v1", "events"], &query).await {
                Ok(stream) => break stream,
                Err(failure) if failure.may_pass() => out::report(&failure),
                Err(failure) => return failure,
            }
        };
    }
}

async fn print_all(mut stream: Stream, json: bool) -> Result<(), Failure> {
    let mut parser = Parser::default();
    while let Some(bytes) = stream.next().await? {
        for data in parser.push(&bytes) {
            out::print(&(if json { data } else { line(&data) } + "\n"))?;
        }
    }
    Ok(())
}

/// What is no event of ours is shown as it is.
fn line(data: &str) -> String {
    match serde_json::from_str::<Said>(data) {
        Ok(said) => {
            let volume = said.name.get().or(said.volume.get()).unwrap_or("-");
            format!("{}  {volume}  {}  {}", show::precisely(&said.at), said.node, said.text)
        }
        Err(_) => clean(data),
    }
}

/// Bytes in, the data of each whole event out.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    data: Vec<String>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                    events.extend(self.line(line.trim_end_matches('\r')));
                }
                _ if self.line.len() < LINE_LIMIT_BYTES => self.line.push(*byte),
                _ => {}
            }
        }
        events
    }

    /// An empty line ends an event; comments and other fields say nothing here.
    fn line(&mut self, line: &str) -> Option<String> {
        if let Some(data) = line.strip_prefix("data:") {
            self.data.push(data.strip_prefix(' ').unwrap_or(data).to_owned());
        }
        (line.is_empty() && !self.data.is_empty()).then(|| std::mem::take(&mut self.data).join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = ": keep-alive\r\n\r\nevent: said\r\ndata: {\"a\":1}\r\n\r\n:\n\ndata:one\ndata: two\n\ndata: cut";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = text.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes)).collect();
            assert_eq!(events, ["{\"a\":1}", "one\ntwo"], "in pieces of {size}");
        }
    }
}
