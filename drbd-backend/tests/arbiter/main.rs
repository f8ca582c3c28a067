//! The arbiter's promises, each kept by the embedded one and by etcd: real processes, real connections, and a proxy that loses things.

mod doors;
mod etcds;
mod latency;
mod lost;
mod process;
mod promises;
mod proxy;
mod store;
mod together;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use replication::{DiskId, Node, Record, VolumeId};
use tandem_node::arbiter::{Embedded, Etcd, EtcdSettings, Limits, Outcome, Register};
use uuid::Uuid;

use self::etcds::Etcds;
use self::process::Process;

/// As long as anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

const LIMITS: Limits = Limits { connect: Duration::from_secs(2), answer: Duration::from_secs(10) };

/// For answers that will not come.
const HASTY: Limits = Limits { connect: Duration::from_secs(2), answer: Duration::from_millis(400) };

/// One arbiter of either kind, as real as it gets.
#[derive(Debug)]
enum World {
    Embedded(Process),
    Etcd(Etcds),
}

impl World {
    async fn embedded() -> Result<Self> {
        Process::start().await.map(Self::Embedded)
    }

    async fn etcd() -> Result<Self> {
        Etcds::start(3).await.map(Self::Etcd)
    }

    /// Where it listens; etcd at each member.
    fn addresses(&self) -> Vec<String> {
        match self {
            Self::Embedded(process) => vec![process.address().to_string()],
            Self::Etcd(etcds) => etcds.addresses(),
        }
    }

    fn register(&self) -> Result<Box<dyn Register>> {
        self.register_at(&self.addresses(), LIMITS)
    }

    /// One that reaches it through these addresses instead.
    fn register_at(&self, addresses: &[String], limits: Limits) -> Result<Box<dyn Register>> {
        let urls = addresses.iter().map(|address| format!("http://{address}"));
        Ok(match self {
            Self::Embedded(_) => Box::new(Embedded::new(&urls.collect::<Vec<_>>()[0], None, limits)?),
            Self::Etcd(_) => Box::new(Etcd::new(EtcdSettings {
                endpoints: urls.collect(),
                prefix: "/tandem".to_owned(),
                tls: None,
                limits,
            })?),
        })
    }
}

fn a_volume() -> VolumeId {
    VolumeId(Uuid::new_v4().as_u128())
}

fn node(place: u8) -> Node {
    Node::new(place).expect("tests name nodes that there are")
}

/// Of two nodes.
fn a_record() -> Record {
    let disk = |place| (node(place), DiskId(Uuid::new_v4().as_u128()));
    Record::of_new_volume([disk(0), disk(1)])
}

/// What follows, with this node as Primary; `tag` tells one proposal from every other.
fn promoted(record: &Record, place: u8, tag: u64) -> Record {
    let mut next = record.next();
    next.primary = Some(node(place));
    next.epoch = tag;
    next
}

async fn created(register: &dyn Register) -> Result<(VolumeId, Record)> {
    let (volume, record) = (a_volume(), a_record());
    match register.create(volume, &record).await {
        Outcome::Done => Ok((volume, record)),
        outcome => bail!("{outcome:?}"),
    }
}

async fn record_of(register: &dyn Register, volume: VolumeId) -> Result<Record> {
    register.read(volume).await?.1.context("there is no record")
}

/// Until `seen` says yes; it is asked again and again, for a while.
async fn until(what: &str, mut seen: impl AsyncFnMut() -> bool) -> Result<()> {
    let asked = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !seen().await {
            pause.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}
