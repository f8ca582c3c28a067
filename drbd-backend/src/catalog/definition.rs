//! What a volume is, in the same words on every node that has a replica of it.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use replication::{BLOCK_BYTES, DiskId, Durability, Node as Place, Record, VolumeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::{Name, rfc3339};

/// What the bitmaps of the metadata can hold.
pub const MAX_SIZE_BYTES: u64 = 64 << 40;

/// The rules of replication are proved for two and three; one is a volume without a second copy.
pub const MAX_REPLICAS: usize = 3;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub uuid: Uuid,
    pub name: String,
    pub size_bytes: u64,
    #[serde(with = "durability")]
    pub durability: Durability,
    #[serde(serialize_with = "microseconds")]
    pub created_at: DateTime<Utc>,
    pub state: Phase,
    pub replicas: Vec<ReplicaDefinition>,
}

/// Where a volume is between its creation and its end. It goes on only in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Creating,
    Ready,
    Deleting,
}

/// Where one replica of it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaDefinition {
    pub node: String,
    pub place: u8,
    pub pool: String,
    /// The disk's when the volume was created; a full resync gives it another, which this does not follow.
    pub disk_id: Uuid,
}

/// Why a definition makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error(
        "{size_bytes} bytes are no size of a volume: {nearest} is the nearest (a multiple of {BLOCK_BYTES}, at most 64 TiB)"
    )]
    Size { size_bytes: u64, nearest: u64 },
    #[error("{name:?} is no name: letters, digits, '-', '.' and '_', the first a letter or digit or '_'")]
    Name { name: String },
    #[error("{name} would be taken for a UUID")]
    NameLikeUuid { name: String },
    #[error("a volume has 1 to {MAX_REPLICAS} replicas, not {count}")]
    Count { count: usize },
    #[error("two replicas on one node, or in one place")]
    Twice,
    #[error("places are 0 to 7, not {place}")]
    Place { place: u8 },
}

impl Definition {
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        VolumeId(self.uuid.as_u128())
    }

    #[must_use]
    pub fn size_blocks(&self) -> u64 {
        self.size_bytes / u64::from(BLOCK_BYTES)
    }

    #[must_use]
    pub fn replica_of(&self, node: &str) -> Option<&ReplicaDefinition> {
        self.replicas.iter().find(|replica| replica.node == node)
    }

    /// None: it has no replica there.
    #[must_use]
    pub fn place_of(&self, node: &str) -> Option<Place> {
        self.replica_of(node).and_then(|replica| Place::new(replica.place))
    }

    #[must_use]
    pub fn node_at(&self, place: Place) -> Option<&str> {
        self.replicas.iter().find(|replica| replica.place == place.place()).map(|replica| replica.node.as_str())
    }

    /// "cmp1", for people; a place that nobody has by its number.
    #[must_use]
    pub fn name_of(&self, place: Place) -> String {
        self.node_at(place).map_or_else(|| place.to_string(), str::to_owned)
    }

    /// The record that the arbiter gets when the volume is created.
    #[must_use]
    pub fn record(&self) -> Record {
        Record::of_new_volume(self.disks())
    }

    #[must_use]
    pub fn disks(&self) -> HashMap<Place, DiskId> {
        let disk = |replica: &ReplicaDefinition| Some((Place::new(replica.place)?, DiskId(replica.disk_id.as_u128())));
        self.replicas.iter().filter_map(disk).collect()
    }

    #[must_use]
    pub fn in_phase(&self, state: Phase) -> Self {
        Self { state, ..self.clone() }
    }

    /// Whether both are of one creation, however far it has come.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self == other.in_phase(self.state)
    }

    /// # Errors
    /// What makes no sense.
    pub fn check(&self) -> Result<(), Misfit> {
        check_size(self.size_bytes)?;
        check_name(&self.name)?;
        let count = self.replicas.len();
        if !(1..=MAX_REPLICAS).contains(&count) {
            return Err(Misfit::Count { count });
        }
        if let Some(replica) = self.replicas.iter().find(|replica| Place::new(replica.place).is_none()) {
            return Err(Misfit::Place { place: replica.place });
        }
        let nodes: BTreeSet<&str> = self.replicas.iter().map(|replica| replica.node.as_str()).collect();
        let places: BTreeSet<u8> = self.replicas.iter().map(|replica| replica.place).collect();
        if nodes.len() < count || places.len() < count { Err(Misfit::Twice) } else { Ok(()) }
    }
}

/// # Errors
/// It is none, with the nearest that is one.
pub fn check_size(size_bytes: u64) -> Result<(), Misfit> {
    let block = u64::from(BLOCK_BYTES);
    let rounded = size_bytes.min(MAX_SIZE_BYTES).saturating_add(block / 2) / block * block;
    let nearest = rounded.clamp(block, MAX_SIZE_BYTES);
    if nearest == size_bytes { Ok(()) } else { Err(Misfit::Size { size_bytes, nearest }) }
}

/// As nodes are named; and a UUID is no name, since either stands for a volume.
///
/// # Errors
/// It is none.
pub fn check_name(name: &str) -> Result<(), Misfit> {
    if name.parse::<Uuid>().is_ok() {
        return Err(Misfit::NameLikeUuid { name: name.to_owned() });
    }
    name.parse::<Name>().map(drop).map_err(|_| Misfit::Name { name: name.to_owned() })
}

/// To the microsecond, as it is kept and shown.
#[must_use]
pub fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

fn microseconds<S: serde::Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

/// In the API's words: "flush", "write".
pub(crate) mod durability {
    use replication::Durability;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Flush,
        Write,
    }

    pub(crate) fn serialize<S: Serializer>(durability: &Durability, to: S) -> Result<S::Ok, S::Error> {
        let word = match durability {
            Durability::Flush => Word::Flush,
            Durability::Write => Word::Write,
        };
        word.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Durability, D::Error> {
        Ok(match Word::deserialize(from)? {
            Word::Flush => Durability::Flush,
            Word::Write => Durability::Write,
        })
    }
}
