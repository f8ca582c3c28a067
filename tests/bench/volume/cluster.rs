//! Tandem as the bench sees it: two tandem-nodes and an arbiter, each a process that can be killed and started again, ordered about over REST.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde_json::json;
use system_tests::addresses::free_address;
use system_tests::initiators::Login;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::processes::{Process, until, until_every};
use super::report;

/// For one answer: a new volume has all of its room before it is there.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a node is asked for something while it is measured: each answer costs both nodes a little.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(10);

pub(crate) struct Cluster {
    runtime: Runtime,
    client: Client,
    arbiter: Arbiter,
    nodes: Vec<Node>,
}

/// `tandem-node arbiter`.
pub(crate) struct Arbiter {
    process: Process,
    url: String,
}

struct Node {
    name: String,
    folder: PathBuf,
    rest: SocketAddr,
    peers: SocketAddr,
    nbd: SocketAddr,
    iscsi: SocketAddr,
    boot: Uuid,
    process: Option<Process>,
}

#[derive(Debug, Clone)]
pub(crate) struct Volume {
    id: Uuid,
    size_bytes: u64,
}

impl Volume {
    /// Its NBD export.
    pub(crate) fn export(&self) -> String {
        self.id.to_string()
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// A volume, as REST shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    serving: bool,
    replicas: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    role: String,
    /// None: nobody who is reached knows.
    in_sync: Option<bool>,
    resync: Option<Resync>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Resync {
    left_bytes: u64,
}

impl Seen {
    /// How many replicas; none while nobody serves.
    pub(crate) fn in_sync(&self) -> usize {
        let has_primary = self.serving && self.replicas.iter().any(|replica| replica.role == "Primary");
        self.replicas.iter().filter(|replica| has_primary && replica.in_sync == Some(true)).count()
    }

    /// Of the resync that is under way.
    pub(crate) fn left_bytes(&self) -> Option<u64> {
        self.replicas.iter().find_map(|replica| replica.resync).map(|resync| resync.left_bytes)
    }
}

/// The program as it is installed, which `make bench-volume` builds.
fn program() -> Result<PathBuf> {
    let program = report::folder()?.with_file_name("release").join("tandem-node");
    ensure!(program.exists(), "there is no {}: `make bench-volume` builds it", program.display());
    Ok(program)
}

/// `log`: what it says goes there, behind what earlier ones have said.
fn start(config: &Path, words: &[&str], log: &Path) -> Result<Process> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(program()?);
    command.arg("--config").arg(config).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(Process(command.spawn().context("tandem-node does not start")?))
}

/// Once this answers that it has begun; else what it said last.
fn begun(process: &mut Process, log: &Path, mut answers: impl FnMut() -> bool) -> Result<()> {
    until("tandem-node serves", || {
        if let Some(status) = process.0.try_wait()? {
            let said = fs::read_to_string(log)?;
            anyhow::bail!("{status}: {}", said.lines().next_back().unwrap_or("it said nothing"));
        }
        Ok(answers().then_some(()))
    })
    .with_context(|| format!("tandem-node does not begin: {} has more", log.display()))
}

/// Where processes of this cluster say what they do: kept until the next run.
fn log_of(cluster: &Path, name: &str) -> Result<PathBuf> {
    let cluster = cluster.file_name().context("a cluster's folder has a name")?.to_string_lossy();
    Ok(report::logs()?.join(format!("{cluster}-{name}.log")))
}

impl Arbiter {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (listen, config, log) =
            (free_address("127.0.0.1")?, folder.join("arbiter.toml"), log_of(folder, "arbiter")?);
        let directory = folder.join("arbiter");
        fs::write(
            &config,
            format!("[node]\nname = \"arbiter\"\n[arbiter_server]\nlisten = \"{listen}\"\ndirectory = {directory:?}\n"),
        )?;
        let mut process = start(&config, &["arbiter"], &log)?;
        begun(&mut process, &log, || TcpStream::connect(listen).is_ok())?;
        Ok(Self { process, url: format!("http://{listen}") })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Node {
    fn new(cluster: &Path, name: String) -> Result<Self> {
        let (folder, boot) = (cluster.join(&name), Uuid::new_v4());
        fs::create_dir_all(&folder)?;
        let mut ports = (0..4).map(|_| free_address("127.0.0.1"));
        let mut port = || ports.next().expect("there are four");
        let (rest, peers, nbd, iscsi) = (port()?, port()?, port()?, port()?);
        let node = Self { name, folder, rest, peers, nbd, iscsi, boot, process: None };
        node.write_boot()?;
        Ok(node)
    }

    /// Nodes share this machine's kernel: which boot of theirs it is stands in a file of each.
    fn write_boot(&self) -> Result<()> {
        Ok(fs::write(self.boot_file(), format!("{}\n", self.boot))?)
    }

    fn boot_file(&self) -> PathBuf {
        self.folder.join("boot-id")
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("tandem-node.toml")
    }

    fn config(&self, other: &Self, arbiter: &str) -> String {
        let Self { name, folder, rest, peers, nbd, iscsi, .. } = self;
        format!(
            "control_socket = {:?}\n[node]\nname = \"{name}\"\nboot_id_file = {:?}\n\
             [listen]\nrest = \"{rest}\"\npeers = \"{peers}\"\nnbd = \"{nbd}\"\niscsi = \"{iscsi}\"\n[pools.default]\npath = {:?}\n\
             [nodes.{}]\npeers = \"{}\"\nrest = \"http://{}\"\n[arbiter]\nurl = \"{arbiter}\"\n",
            folder.join("node.sock"),
            self.boot_file(),
            folder.join("pool"),
            other.name,
            other.peers,
            other.rest,
        )
    }
}

impl Cluster {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let arbiter = Arbiter::start(folder)?;
        let nodes = vec![Node::new(folder, "node-0".to_owned())?, Node::new(folder, "node-1".to_owned())?];
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            fs::write(node.config_file(), node.config(other, arbiter.url()))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A connection for each request: one that is kept may lead to a node that was killed.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(LIMIT).build()?;
        let mut cluster = Self { runtime, client, arbiter, nodes };
        (0..2).try_for_each(|number| cluster.begin(folder, number))?;
        Ok(cluster)
    }

    /// With as many replicas, the first of them Primary.
    pub(crate) fn create(&self, replicas: usize, size_bytes: u64, durable_writes: bool) -> Result<Volume> {
        let volume = Volume { id: Uuid::new_v4(), size_bytes };
        let names: Vec<_> = self.nodes.iter().take(replicas).map(|node| &node.name).collect();
        let durability = if durable_writes { "write" } else { "flush" };
        let body = json!({
            "uuid": volume.id, "name": format!("bench-{}", volume.id), "size_bytes": size_bytes, "replicas": names,
            "durability": durability, "promote": names.first(),
        });
        self.ask(self.request(Method::POST, 0, "/v1/volumes").json(&body))?;
        self.until_in_sync(0, &volume, replicas)?;
        Ok(volume)
    }

    pub(crate) fn nbd(&self, node: usize) -> SocketAddr {
        self.nodes[node].nbd
    }

    /// What an initiator needs to log in to the volume at its first node.
    pub(crate) fn attach(&self, volume: &Volume) -> Result<Login> {
        let path = format!("/v1/volumes/{}/attachments/{}", volume.id, Uuid::new_v4());
        let body = json!({ "host": "bench", "initiator": "iqn.2026-11.org.example:bench" });
        let answer = self.ask(self.request(Method::PUT, 0, &path).json(&body))?;
        Login::of(&serde_json::from_str(&answer)?, self.nodes[0].iscsi)
    }

    pub(crate) fn node_pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.pid())).collect()
    }

    pub(crate) fn arbiter_pid(&self) -> u32 {
        self.arbiter.process.pid()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].process = None;
    }

    /// The process anew: the same boot of its machine, or another one.
    pub(crate) fn start_again(&mut self, number: usize, rebooted: bool) -> Result<()> {
        let node = &mut self.nodes[number];
        if rebooted {
            node.boot = Uuid::new_v4();
            node.write_boot()?;
        }
        let folder = node.folder.parent().context("it lies in its cluster's")?.to_owned();
        self.begin(&folder, number)
    }

    /// Somebody has made sure that `dead` writes no more, and tells the other node.
    pub(crate) fn tell_dead(&self, dead: usize) -> Result<()> {
        let Node { name, boot, .. } = &self.nodes[dead];
        let body = json!({ "boot_id": boot, "why": "killed by bench-volume" });
        self.ask(self.request(Method::PUT, 1 - dead, &format!("/v1/nodes/{name}/dead")).json(&body)).map(drop)
    }

    pub(crate) fn look(&self, node: usize, volume: &Volume) -> Result<Seen> {
        let answer = self.ask(self.request(Method::GET, node, &format!("/v1/volumes/{}", volume.id)))?;
        serde_json::from_str(&answer).with_context(|| format!("a volume that is none: {answer}"))
    }

    /// Served, with so many replicas in sync and none that is copied. It asks one that serves.
    pub(crate) fn until_in_sync(&self, node: usize, volume: &Volume, replicas: usize) -> Result<()> {
        until_every(LOOK_AGAIN, "all replicas are in sync", || {
            let seen = self.look(node, volume)?;
            Ok((seen.in_sync() == replicas && seen.left_bytes().is_none()).then_some(()))
        })
    }

    fn begin(&mut self, folder: &Path, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        let log = log_of(folder, &node.name)?;
        let mut process = start(&node.config_file(), &[], &log)?;
        begun(&mut process, &log, || self.ask(self.request(Method::GET, number, "/v1")).is_ok())?;
        self.nodes[number].process = Some(process);
        Ok(())
    }

    fn request(&self, method: Method, node: usize, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.nodes[node].rest))
    }

    fn ask(&self, request: RequestBuilder) -> Result<String> {
        let (url, status, text) = self.runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.url().clone(), answer.status(), answer.text().await?))
        })?;
        ensure!(status.is_success(), "{url}: {status} {text}");
        Ok(text)
    }
}
