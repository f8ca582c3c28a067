//! The volumes that this node has a replica of: one small file each, `POOL/UUID.json`, beside the data.
//!
//! A file is replaced whole or not at all. One that cannot be used is trouble for its volume alone: the catalog names it, and the others serve.

mod definition;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use replication::VolumeId;
use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;

pub(crate) use definition::durability;
pub use definition::{
    Definition, MAX_REPLICAS, MAX_SIZE_BYTES, Misfit, Phase, ReplicaDefinition, check_name, check_size, now,
};

/// What a file that is being written is called until it takes its place.
const UNFINISHED: (&str, &str) = (".definition-", ".tmp");

/// Why a definition is not kept, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("could not {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} is damaged, or of a newer version of Tandem: copy it from another node that has a replica of this volume",
        path = path.display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} defines volume {found}: it was moved or renamed; put it back", path = path.display())]
    AnotherVolume { path: PathBuf, found: Uuid },
    #[error("{path} makes no sense: {why}", path = path.display())]
    Senseless { path: PathBuf, why: Misfit },
    #[error("{path} gives node {node} no replica: it was copied from elsewhere, or this node had another name", path = path.display())]
    NotHere { path: PathBuf, node: String },
    #[error("{path} says that the replica is in pool {wanted}: it was moved; put all of its files back", path = path.display())]
    AnotherPool { path: PathBuf, wanted: String },
    #[error("{path} and {other} define the same volume: one of them is a copy; move it away", path = path.display(), other = other.display())]
    Twice { path: PathBuf, other: PathBuf },
    #[error("this node has no pool {0}")]
    NoPool(String),
    #[error("the name {name} is that of volume {uuid}")]
    NameTaken { name: String, uuid: Uuid },
}

/// One volume, as this node knows it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub uuid: Uuid,
    /// None: its file cannot be read.
    pub definition: Option<Definition>,
    /// Where its files are.
    pub pool: PathBuf,
    /// Why it is not served here.
    pub trouble: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Catalog {
    node: String,
    pools: BTreeMap<String, PathBuf>,
    entries: Mutex<BTreeMap<Uuid, Entry>>,
    /// Held while a file is written: a name is given once.
    writing: Mutex<()>,
    steps: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Catalog {
    /// Reads the definitions in all pools of `node`. What cannot be used is logged, and shown as trouble.
    #[must_use]
    pub fn load(node: &str, pools: BTreeMap<String, PathBuf>) -> Self {
        let mut entries: BTreeMap<Uuid, Entry> = BTreeMap::new();
        for (pool, folder) in &pools {
            for (uuid, path) in definitions_in(folder) {
                let read = match entries.get(&uuid) {
                    Some(other) => Err(CatalogError::Twice { other: file(&other.pool, uuid), path }),
                    None => read(&path, uuid, node, pool),
                };
                let entry = entries.entry(uuid).or_insert(Entry {
                    uuid,
                    definition: None,
                    pool: folder.clone(),
                    trouble: None,
                });
                match read {
                    Ok(definition) => entry.definition = Some(definition),
                    Err(error) => {
                        let trouble = story(&error);
                        tracing::error!(volume = %uuid, "not served: {trouble}");
                        entry.trouble = Some(trouble);
                    }
                }
            }
        }
        Self {
            node: node.to_owned(),
            pools,
            entries: Mutex::new(entries),
            writing: Mutex::default(),
            steps: Mutex::default(),
        }
    }

    #[must_use]
    pub fn pools(&self) -> &BTreeMap<String, PathBuf> {
        &self.pools
    }

    /// The pool that is used where none is asked for: the one called "default", else the first by name.
    #[must_use]
    pub fn default_pool(&self) -> Option<&str> {
        default_pool(self.pools.keys().map(String::as_str))
    }

    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).values().cloned().collect()
    }

    #[must_use]
    pub fn get(&self, uuid: Uuid) -> Option<Entry> {
        lock(&self.entries).get(&uuid).cloned()
    }

    /// Those that can be read.
    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        lock(&self.entries).values().filter_map(|entry| entry.definition.clone()).collect()
    }

    /// Those that may be open here.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeId> {
        lock(&self.entries).keys().map(|uuid| VolumeId(uuid.as_u128())).collect()
    }

    /// Why this volume is not served here; None: nothing is wrong any more.
    pub fn set_trouble(&self, uuid: Uuid, trouble: Option<String>) {
        if let Some(entry) = lock(&self.entries).get_mut(&uuid) {
            entry.trouble = trouble;
        }
    }

    /// One at a time changes a volume's files. Held by the guard.
    pub async fn step(&self, uuid: Uuid) -> OwnedMutexGuard<()> {
        let step = {
            let mut steps = lock(&self.steps);
            steps.retain(|_, step| Arc::strong_count(step) > 1);
            steps.entry(uuid).or_default().clone()
        };
        step.lock_owned().await
    }

    /// Keeps a definition, durably, in place of what was there. Blocks on the disk.
    ///
    /// # Errors
    /// Its pool is not of this node, its name is another volume's, or the file cannot be written.
    pub fn put(&self, definition: &Definition) -> Result<(), CatalogError> {
        let _writing = lock(&self.writing);
        if let Some(uuid) = self.named(&definition.name).filter(|uuid| *uuid != definition.uuid) {
            return Err(CatalogError::NameTaken { name: definition.name.clone(), uuid });
        }
        let replica = definition.replica_of(&self.node).map_or("", |replica| replica.pool.as_str());
        let pool = self.pools.get(replica).ok_or_else(|| CatalogError::NoPool(replica.to_owned()))?.clone();
        let path = file(&pool, definition.uuid);
        write(&pool, &path, definition).map_err(|source| CatalogError::File { doing: "write", path, source })?;
        let entry = Entry { uuid: definition.uuid, definition: Some(definition.clone()), pool, trouble: None };
        lock(&self.entries).insert(definition.uuid, entry);
        Ok(())
    }

    /// Forgets a volume, durably. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, uuid: Uuid) -> Result<(), CatalogError> {
        let _writing = lock(&self.writing);
        let Some(entry) = self.get(uuid) else { return Ok(()) };
        let path = file(&entry.pool, uuid);
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| File::open(&entry.pool)?.sync_all()),
        };
        removed.map_err(|source| CatalogError::File { doing: "remove", path, source })?;
        lock(&self.entries).remove(&uuid);
        Ok(())
    }

    fn named(&self, name: &str) -> Option<Uuid> {
        let is_it = |entry: &&Entry| entry.definition.as_ref().is_some_and(|definition| definition.name == name);
        lock(&self.entries).values().find(is_it).map(|entry| entry.uuid)
    }
}

/// "default", else the first of them.
pub(crate) fn default_pool<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    names.clone().find(|name| *name == "default").or_else(|| names.min())
}

/// An error with its causes, in one sentence.
pub(crate) fn story(error: &dyn Error) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        story = format!("{story}: {error}");
        cause = error.source();
    }
    story
}

fn file(pool: &Path, uuid: Uuid) -> PathBuf {
    pool.join(format!("{uuid}.json"))
}

/// By name, so that of two copies it is always the same one that counts. What a write left unfinished is cleared away.
fn definitions_in(folder: &Path) -> BTreeMap<Uuid, PathBuf> {
    let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let listed = listed.unwrap_or_else(|error| {
        tracing::error!(pool = %folder.display(), %error, "a pool cannot be read: no volume in it is served");
        Vec::new()
    });
    let paths = listed.into_iter().map(|entry| entry.path());
    paths.filter_map(|path| Some((volume_of(&path)?, path))).collect()
}

fn volume_of(path: &Path) -> Option<Uuid> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    if name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1) {
        let _ = fs::remove_file(path);
        return None;
    }
    let uuid = name.strip_suffix(".json")?.parse::<Uuid>().ok()?;
    (uuid.to_string() == name[..name.len() - 5]).then_some(uuid)
}

fn read(path: &Path, uuid: Uuid, node: &str, pool: &str) -> Result<Definition, CatalogError> {
    let path = path.to_owned();
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(CatalogError::File { doing: "read", path, source }),
    };
    let definition: Definition = match serde_json::from_slice(&text) {
        Ok(definition) => definition,
        Err(source) => return Err(CatalogError::Damaged { path, source }),
    };
    if definition.uuid != uuid {
        return Err(CatalogError::AnotherVolume { path, found: definition.uuid });
    }
    if let Err(why) = definition.check() {
        return Err(CatalogError::Senseless { path, why });
    }
    match definition.replica_of(node) {
        None => Err(CatalogError::NotHere { path, node: node.to_owned() }),
        Some(replica) if replica.pool != pool => Err(CatalogError::AnotherPool { path, wanted: replica.pool.clone() }),
        Some(_) => Ok(definition),
    }
}

fn write(pool: &Path, path: &Path, definition: &Definition) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(UNFINISHED.0).suffix(UNFINISHED.1).tempfile_in(pool)?;
    serde_json::to_writer_pretty(&mut file, definition)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(pool)?.sync_all()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
