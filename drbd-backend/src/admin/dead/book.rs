//! Whose boots are said to be dead: in memory, and in a small file that is replaced whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Somebody's word that this boot of this node writes no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dead {
    pub node: String,
    pub boot_id: Uuid,
    pub why: String,
    /// Whose word it is.
    pub by: String,
    #[serde(serialize_with = "microseconds")]
    pub at: DateTime<Utc>,
}

fn microseconds<S: serde::Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&crate::identity::rfc3339(*at))
}

/// Why the words are not kept.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("{path} cannot be {what}", path = path.display())]
    File {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not what tandem-node wrote: move it away, and declare dead nodes anew", path = path.display())]
    Misform {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// The words that stand, one for each node.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    words: Mutex<BTreeMap<String, Dead>>,
}

impl Book {
    /// `directory` must be there; the file need not.
    ///
    /// # Errors
    /// It cannot be read, or is not ours.
    pub fn open(directory: &Path) -> Result<Self, BookError> {
        let path = directory.join("dead.json");
        let words = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|source| BookError::Misform { path: path.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(BookError::File { path, what: "read", source }),
        };
        let words = words.into_iter().map(|dead: Dead| (dead.node.clone(), dead)).collect();
        Ok(Self { path, words: Mutex::new(words) })
    }

    /// In place of what was said of this node before. Durable once this returns.
    ///
    /// # Errors
    /// The file cannot be written; then nothing has changed.
    pub fn put(&self, dead: Dead) -> Result<(), BookError> {
        let mut words = self.lock();
        let mut next = words.clone();
        next.insert(dead.node.clone(), dead);
        self.write(&next)?;
        *words = next;
        Ok(())
    }

    /// Whether there was a word about this node, of this boot if one is named.
    ///
    /// # Errors
    /// The file cannot be written; then nothing has changed.
    pub fn remove(&self, node: &str, boot: Option<Uuid>) -> Result<bool, BookError> {
        let mut words = self.lock();
        let stands = words.get(node).is_some_and(|dead| boot.is_none_or(|boot| dead.boot_id == boot));
        if stands {
            let mut next = words.clone();
            next.remove(node);
            self.write(&next)?;
            *words = next;
        }
        Ok(stands)
    }

    #[must_use]
    pub fn get(&self, node: &str) -> Option<Dead> {
        self.lock().get(node).cloned()
    }

    #[must_use]
    pub fn all(&self) -> Vec<Dead> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Dead>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, words: &BTreeMap<String, Dead>) -> Result<(), BookError> {
        let text = serde_json::to_vec_pretty(&words.values().collect::<Vec<_>>()).expect("names and times are JSON");
        replace(&self.path, &text).map_err(|source| BookError::File {
            path: self.path.clone(),
            what: "written",
            source,
        })
    }
}

/// Durably: what is in the file, then its name.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(node: &str, boot: u128) -> Dead {
        let (why, by) = ("its power is off".to_owned(), "tandem://ha/h".to_owned());
        Dead { node: node.to_owned(), boot_id: Uuid::from_u128(boot), why, by, at: DateTime::UNIX_EPOCH }
    }

    #[test]
    fn what_was_said_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let book = Book::open(directory.path()).unwrap();
        book.put(dead("a", 1)).unwrap();
        book.put(dead("b", 2)).unwrap();
        book.put(dead("a", 3)).unwrap();
        assert!(!book.remove("b", Some(Uuid::from_u128(9))).unwrap(), "another boot of it");
        assert!(book.remove("b", Some(Uuid::from_u128(2))).unwrap());
        assert_eq!(Book::open(directory.path()).unwrap().all(), [dead("a", 3)]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_file_of_somebody_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("dead.json"), "{}").unwrap();
        let error = Book::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("dead.json is not what tandem-node wrote"), "{error}");
    }
}
