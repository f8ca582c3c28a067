//! Reads what an administrator has settled for a daemon: one TOML file, and variables `PREFIX__SECTION__KEY` that override it.
//!
//! Everything that is wrong is told at once, each with file, key, value and what is allowed. A key that nobody knows is an error: a misspelt
//! one would otherwise be found out on the day when it matters. Which keys there are, and what they mean, is each daemon's own.

mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat, Value};

pub use table::{Given, Table, meaning, one_of};

/// What a daemon knows: of its file and of its variables.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What its variables begin with, without the underscores behind it: `TANDEM_HA`.
    pub prefix: &'static str,
    /// Every key, by the table that it stands in.
    pub keys: &'static [(&'static str, &'static [&'static str])],
    /// Tables that no variable reaches: their keys are names of things.
    pub file_only: &'static [&'static str],
}

/// All that is wrong with what we were told; each problem is a sentence that names file, key, value and what is allowed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

/// A configuration that can be used, and what its administrator should know about it.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    pub config: C,
    pub warnings: Vec<String>,
}

/// Where values come from, and what was wrong with them.
#[derive(Debug)]
pub struct Source {
    pub file: PathBuf,
    known: Known,
    /// The variables that override keys, by the keys.
    variables: BTreeMap<String, String>,
    problems: RefCell<Vec<String>>,
    warnings: RefCell<Vec<String>>,
}

/// Reads `file` and the variables of `env`, and has `read` take the values out of them.
///
/// # Errors
/// The file cannot be read or is no TOML, or something in it, or in a variable, is not allowed.
pub fn load<C>(
    file: &Path,
    env: impl Iterator<Item = (String, String)>,
    known: Known,
    read: impl FnOnce(&Source, Table<'_>) -> C,
) -> Result<Loaded<C>, ConfigError> {
    let mut source = Source {
        file: file.to_owned(),
        known,
        variables: BTreeMap::new(),
        problems: RefCell::default(),
        warnings: RefCell::default(),
    };
    let values = source.merged(env)?;
    let config = read(&source, Table::open(&source, String::new(), "", Some(values)));
    let problems = source.problems.into_inner();
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    Ok(Loaded { config, warnings: source.warnings.into_inner() })
}

impl Source {
    pub fn problem(&self, key: &str, what: &str) {
        self.problems.borrow_mut().push(format!("{}: {what}", self.place(key)));
    }

    pub fn warning(&self, key: &str, what: &str) {
        self.warnings.borrow_mut().push(format!("{}: {what}", self.place(key)));
    }

    /// The key as its administrator knows it.
    fn place(&self, key: &str) -> String {
        match self.variables.get(key) {
            Some(variable) => variable.clone(),
            None => format!("{}: {key}", self.file.display()),
        }
    }

    /// The file with the variables over it.
    fn merged(&mut self, env: impl Iterator<Item = (String, String)>) -> Result<Value, ConfigError> {
        let failed = |what: String| ConfigError { problems: vec![what] };
        let prefix = self.known.prefix;
        let shown = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file).map_err(|e| failed(format!("{shown} cannot be read: {e}")))?;
        let variables = self.variables(env);
        let environment = Environment::with_prefix(prefix).separator("__").source(Some(variables));
        let file = File::from_str(&text, FileFormat::Toml);
        // built alone first: only the file can fail to parse, and the message names it
        config::Config::builder()
            .add_source(file.clone())
            .build()
            .map_err(|e| failed(format!("{shown} is no TOML: {e}")))?;
        let both = config::Config::builder().add_source(file).add_source(environment).build();
        let unfit = |e| failed(format!("{shown} and the variables {prefix}__* do not fit together: {e}"));
        Ok(both.map_err(unfit)?.cache)
    }

    /// Those of our variables that may be used; an empty one counts as not set.
    fn variables(&mut self, env: impl Iterator<Item = (String, String)>) -> config::Map<String, String> {
        let prefix = format!("{}__", self.known.prefix);
        let mut ours = config::Map::new();
        for (name, value) in env.filter(|(name, value)| name.starts_with(&prefix) && !value.is_empty()) {
            let key = name[prefix.len()..].to_lowercase().replace("__", ".");
            if let Some(what) = self.not_in_variables(&key) {
                self.problems.borrow_mut().push(format!("{name}: {what}"));
                continue;
            }
            self.variables.insert(key, name.clone());
            ours.insert(name, value);
        }
        ours
    }

    fn not_in_variables(&self, key: &str) -> Option<String> {
        let within =
            |table: &str| key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if let Some(table) = self.known.file_only.iter().find(|table| within(table)) {
            return Some(format!("{table} can only stand in the file"));
        }
        let odd = |part: &str| part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let prefix = self.known.prefix;
        key.split('.').any(odd).then(|| format!("no such key; a variable is called {prefix}__SECTION__KEY"))
    }
}

/// What nobody may read in a log: its `Debug` is `***`, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub fn new(secret: T) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that uses it.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
