//! Lines on their way to one reader: bounded, and where there was no room the reader is told how many are missing.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

/// How far a reader may fall behind.
const ROOM: usize = 256;

/// The longest line that another node may send, in bytes.
const LONGEST: usize = 64 << 10;

/// What a replica said of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) volume: Uuid,
    /// None: it is not known any more.
    pub(super) name: Option<String>,
    pub(super) node: String,
    #[serde(serialize_with = "microseconds")]
    pub(super) at: DateTime<Utc>,
    pub(super) text: String,
}

fn microseconds<S: serde::Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::identity::rfc3339(*at))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Said(Event),
    /// So many are missing at this place.
    Missed(u64),
}

#[derive(Debug, Default)]
pub(super) struct Feed {
    lines: Mutex<VecDeque<Line>>,
    ready: Notify,
}

impl Feed {
    pub(super) fn push(&self, line: Line) {
        let mut lines = self.lock();
        let is_full = lines.len() >= ROOM;
        match (line, lines.back_mut()) {
            (Line::Missed(more), Some(Line::Missed(count))) => *count += more,
            (Line::Said(_), Some(Line::Missed(count))) if is_full => *count += 1,
            (Line::Said(_), _) if is_full => lines.push_back(Line::Missed(1)),
            (line, _) => lines.push_back(line),
        }
        drop(lines);
        self.ready.notify_one();
    }

    /// For one reader at a time.
    pub(super) async fn next(&self) -> Line {
        loop {
            if let Some(line) = self.lock().pop_front() {
                return line;
            }
            self.ready.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the server-sent events of another node (HTML standard, section 9.2), as far as nodes send them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rest: Vec<u8>,
    event: String,
    data: String,
}

impl Reader {
    /// The lines that these bytes complete. None: it is not what a node sends.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Vec<Line>> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = std::str::from_utf8(&line).ok()?.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                lines.extend(self.complete()?);
            } else if let Some(event) = line.strip_prefix("event:") {
                event.trim_start().clone_into(&mut self.event);
            } else if let Some(data) = line.strip_prefix("data:") {
                data.trim_start().clone_into(&mut self.data);
            }
        }
        (self.rest.len() <= LONGEST).then_some(lines)
    }

    fn complete(&mut self) -> Option<Option<Line>> {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        Some(match event.as_str() {
            "said" => Some(Line::Said(serde_json::from_str(&data).ok()?)),
            "missed" => Some(Line::Missed(serde_json::from_str::<Missed>(&data).ok()?.count)),
            _ => None,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        let (volume, name, node) = (Uuid::from_u128(7), Some("db-1".to_owned()), "cmp1".to_owned());
        Event { volume, name, node, at: DateTime::UNIX_EPOCH, text: text.to_owned() }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed_and_where() {
        let feed = Feed::default();
        (0..ROOM + 5).for_each(|number| feed.push(Line::Said(event(&number.to_string()))));
        for number in 0..ROOM {
            assert_eq!(feed.next().await, Line::Said(event(&number.to_string())));
        }
        feed.push(Line::Said(event("after")));
        assert_eq!(feed.next().await, Line::Missed(5));
        assert_eq!(feed.next().await, Line::Said(event("after")));
    }

    #[test]
    fn what_another_node_sends_is_read_however_it_is_cut() {
        let said = serde_json::to_string(&event("frozen")).unwrap();
        let sent =
            format!(": from now on\n\nevent: said\ndata: {said}\n\n:\n\nevent: missed\ndata: {{\"count\":3}}\n\n");
        for size in 1..sent.len() {
            let mut reader = Reader::default();
            let lines: Vec<Line> = sent.as_bytes().chunks(size).flat_map(|piece| reader.read(piece).unwrap()).collect();
            assert_eq!(lines, [Line::Said(event("frozen")), Line::Missed(3)]);
        }
    }

    #[test]
    fn what_is_no_event_is_not_read_for_ever() {
        assert!(Reader::default().read(&[b'x'; LONGEST + 1]).is_none());
        assert!(Reader::default().read(b"event: said\ndata: {}\n\n").is_none());
        assert!(Reader::default().read(b"event: \xff\n").is_none());
    }
}
