//! Takes values out of a table of the configuration, and writes down every one that is not allowed.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::Source;

/// One table, whose keys are all known. Whatever cannot be used is a problem of the source, and absent here.
#[derive(Debug)]
pub struct Table<'a> {
    pub source: &'a Source,
    /// Where it stands: `hosts.cmp1.redfish`.
    pub at: String,
    known: &'static [&'static str],
    entries: Map<String, Value>,
}

impl<'a> Table<'a> {
    /// `kind` is its name in [`Known::keys`](super::Known::keys).
    pub fn open(source: &'a Source, at: String, kind: &str, value: Option<Value>) -> Self {
        let known = source.known.keys.iter().find(|(name, _)| *name == kind);
        let known = known.expect("every table that is read has its keys").1;
        let entries = value.map(|value| entries(source, &at, value)).unwrap_or_default();
        let mut table = Self { source, at, known, entries };
        table.refuse_unknown();
        table
    }

    fn refuse_unknown(&mut self) {
        let unknown: Vec<String> =
            self.entries.keys().filter(|key| !self.known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            self.entries.remove(&key);
            self.problem(&key, &format!("no such key; {}", suggestion(&key, self.known)));
        }
    }

    pub fn key(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    pub fn problem(&self, key: &str, what: &str) {
        self.source.problem(&self.key(key), what);
    }

    pub fn take(&mut self, key: &str) -> Option<Value> {
        assert!(self.known.contains(&key), "{key} of [{}] is not among the known keys", self.at);
        self.entries.remove(key).filter(|value| value.kind != ValueKind::Nil)
    }

    pub fn table(&mut self, key: &str) -> Self {
        Self::open(self.source, self.key(key), &self.key(key), self.take(key))
    }

    /// The tables of a list, such as `[[heartbeat.networks]]`.
    pub fn tables(&mut self, key: &str, kind: &str) -> Vec<Self> {
        let items = match self.take(key).map(|value| value.kind) {
            None => Vec::new(),
            Some(ValueKind::Array(items)) => items,
            Some(other) => {
                self.problem(key, &format!("{} is not allowed; a list of tables is", shown(&other)));
                Vec::new()
            }
        };
        let open = |(i, item)| Self::open(self.source, format!("{}[{i}]", self.key(key)), kind, Some(item));
        items.into_iter().enumerate().map(open).collect()
    }

    /// The tables of a table whose keys are names, such as `[hosts.NAME]`.
    pub fn named(&mut self, key: &str, kind: &str) -> Vec<(String, Self)> {
        let at = self.key(key);
        let all = self.take(key).map(|value| entries(self.source, &at, value)).unwrap_or_default();
        let open = |(name, value): (String, Value)| {
            let table = Self::open(self.source, format!("{at}.{}", quoted(&name)), kind, Some(value));
            (name, table)
        };
        let mut tables: Vec<_> = all.into_iter().map(open).collect();
        tables.sort_by(|(a, _), (b, _)| a.cmp(b));
        tables
    }

    /// A value as `read` understands it. `allowed` completes "allowed is".
    pub fn get<T>(&mut self, key: &str, allowed: &str, read: impl FnOnce(&Given) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let from_variable = self.source.variables.contains_key(&self.key(key));
        let read = read(&Given { kind: &value.kind, from_variable });
        if read.is_none() {
            self.problem(key, &format!("{} is not allowed; allowed is {allowed}", shown(&value.kind)));
        }
        read
    }

    pub fn seconds(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> Duration {
        let allowed = format!("a number of seconds from {} to {}", range.start(), range.end());
        let read = |given: &Given| given.number().filter(|number| range.contains(number));
        Duration::from_secs_f64(self.get(key, &allowed, read).unwrap_or(default))
    }

    pub fn whole(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(key, &allowed, |given| given.whole().filter(|number| range.contains(number))).unwrap_or(default)
    }

    pub fn yes(&mut self, key: &str, default: bool) -> bool {
        self.get(key, "true or false", |given| given.yes()).unwrap_or(default)
    }

    pub fn text(&mut self, key: &str, what: &str) -> Option<String> {
        self.get(key, what, |given| given.text().filter(|text| !text.trim().is_empty()).map(str::to_owned))
    }

    pub fn parsed<T: std::str::FromStr>(&mut self, key: &str, allowed: &str) -> Option<T> {
        self.get(key, allowed, |given| given.text()?.parse().ok())
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.get(key, &one_of(words), |given| meaning(given.text()?, words))
    }

    /// A list of texts, each understood by `read`.
    pub fn list<T>(&mut self, key: &str, allowed: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        self.get(key, allowed, |given| given.texts()?.into_iter().map(&read).collect())
    }

    /// A path; one that is relative starts where the file is.
    pub fn path(&mut self, key: &str) -> Option<PathBuf> {
        let text = self.text(key, "a path")?;
        let beside = self.source.file.parent().unwrap_or(std::path::Path::new(""));
        Some(beside.join(text))
    }

    /// Writes down that a key without a default is missing. To be asked before the key is taken.
    pub fn require(&self, key: &str, what: &str) {
        if !self.entries.contains_key(key) {
            self.problem(key, &format!("is missing; it is {what}"));
        }
    }
}

pub fn one_of<T>(words: &[(&str, T)]) -> String {
    words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ")
}

pub fn meaning<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
}

fn entries(source: &Source, at: &str, value: Value) -> Map<String, Value> {
    match value.kind {
        ValueKind::Table(entries) => entries,
        other => {
            source.problem(at, &format!("{} is not allowed; a table is", shown(&other)));
            Map::new()
        }
    }
}

/// A value as it was given. A variable has only text, so its numbers are read from that.
#[derive(Debug)]
pub struct Given<'a> {
    kind: &'a ValueKind,
    from_variable: bool,
}

impl Given<'_> {
    fn parsed_text<T: std::str::FromStr>(&self) -> Option<T> {
        self.text().filter(|_| self.from_variable)?.trim().parse().ok()
    }

    #[expect(clippy::cast_precision_loss, reason = "no number near 2^53 is allowed anywhere")]
    fn number(&self) -> Option<f64> {
        match self.kind {
            ValueKind::I64(number) => Some(*number as f64),
            ValueKind::Float(number) => Some(*number),
            _ => self.parsed_text(),
        }
    }

    fn whole(&self) -> Option<u32> {
        match self.kind {
            ValueKind::I64(number) => u32::try_from(*number).ok(),
            _ => self.parsed_text(),
        }
    }

    fn yes(&self) -> Option<bool> {
        match self.kind {
            ValueKind::Boolean(yes) => Some(*yes),
            _ => self.parsed_text(),
        }
    }

    pub fn text(&self) -> Option<&str> {
        text_of(self.kind)
    }

    fn texts(&self) -> Option<Vec<&str>> {
        match self.kind {
            ValueKind::Array(items) => items.iter().map(|item| text_of(&item.kind)).collect(),
            ValueKind::String(text) if self.from_variable => Some(text.split(',').map(str::trim).collect()),
            _ => None,
        }
    }
}

fn text_of(kind: &ValueKind) -> Option<&str> {
    match kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

fn suggestion(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (strsim::jaro_winkler(key, name), name));
    match near.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((likeness, name)) if likeness > 0.8 => format!("did you mean {name}?"),
        _ => format!("known here are {}", known.join(", ")),
    }
}

fn quoted(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// A value as a message shows it.
fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(|item| shown(&item.kind)).collect::<Vec<_>>().join(", "))
        }
        ValueKind::Nil => "nothing".to_owned(),
        other => other.to_string(),
    }
}
