//! Tandem as the bench sees it: two nodes and an arbiter, each a process, that can be killed and started again.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command as Start, Stdio};

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use super::processes::{Process, free_address, until};
use super::stand_in::{Answer, Command, ROLE, Replica, Role, Seen};

pub(crate) struct Cluster {
    folder: PathBuf,
    url: String,
    arbiter: Process,
    /// It lives as long as its input is open.
    _input: ChildStdin,
    nodes: Vec<Node>,
    volumes: Vec<Volume>,
}

struct Node {
    running: Option<Running>,
    peers: SocketAddr,
    nbd: SocketAddr,
    boot: Uuid,
}

struct Running {
    process: Process,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Debug, Clone)]
pub(crate) struct Volume {
    id: Uuid,
    disks: Vec<Uuid>,
    size_bytes: u64,
    durable_writes: bool,
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

fn spawn(role: &Role) -> Result<(Process, ChildStdin, BufReader<ChildStdout>)> {
    let mut child = Start::new(std::env::current_exe()?)
        .env(ROLE, serde_json::to_string(role)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take().context("it is piped")?;
    let output = BufReader::new(child.stdout.take().context("it is piped")?);
    Ok((Process(child), input, output))
}

impl Cluster {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let directory = folder.join("arbiter");
        std::fs::create_dir_all(&directory)?;
        let (arbiter, input, mut output) = spawn(&Role::Arbiter { directory })?;
        let mut url = String::new();
        output.read_line(&mut url)?;
        let mut nodes = Vec::new();
        for number in 0..2 {
            std::fs::create_dir_all(folder.join(format!("node-{number}")))?;
            nodes.push(Node { running: None, peers: free_address()?, nbd: free_address()?, boot: Uuid::new_v4() });
        }
        let url = url.trim().to_owned();
        let mut cluster = Self { folder: folder.to_owned(), url, arbiter, _input: input, nodes, volumes: Vec::new() };
        (0..2).try_for_each(|number| cluster.begin(number))?;
        Ok(cluster)
    }

    /// With as many replicas, the first of them Primary.
    pub(crate) fn create(&mut self, replicas: usize, size_bytes: u64, durable_writes: bool) -> Result<Volume> {
        let disks = (0..replicas).map(|_| Uuid::new_v4()).collect();
        let volume = Volume { id: Uuid::new_v4(), disks, size_bytes, durable_writes };
        for number in 0..replicas {
            let replica = self.replica(&volume, number)?;
            self.tell(number, &Command::Create(replica))?;
        }
        self.tell(0, &Command::Promote(volume.id))?;
        self.volumes.push(volume.clone());
        self.until_primary(0, &volume)?;
        until("all replicas are in sync", || Ok(self.is_in_sync(0, &volume, u32::try_from(replicas)?)?.then_some(())))?;
        Ok(volume)
    }

    pub(crate) fn nbd(&self, node: usize) -> SocketAddr {
        self.nodes[node].nbd
    }

    pub(crate) fn node_pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| Some(node.running.as_ref()?.process.pid())).collect()
    }

    pub(crate) fn arbiter_pid(&self) -> u32 {
        self.arbiter.pid()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].running = None;
    }

    /// The process anew: the same boot of its machine, or another one.
    pub(crate) fn start_again(&mut self, node: usize, rebooted: bool) -> Result<()> {
        if rebooted {
            self.nodes[node].boot = Uuid::new_v4();
        }
        self.begin(node)?;
        for volume in self.volumes.clone() {
            if node < volume.disks.len() {
                let replica = self.replica(&volume, node)?;
                self.tell(node, &Command::Open(replica))?;
            }
        }
        Ok(())
    }

    /// Somebody has made sure that `dead` writes no more, and tells the other node.
    pub(crate) fn tell_dead(&mut self, dead: usize, volume: &Volume) -> Result<()> {
        let command = Command::Fenced { volume: volume.id, place: u8::try_from(dead)?, boot: self.nodes[dead].boot };
        self.tell(1 - dead, &command)
    }

    pub(crate) fn look(&mut self, node: usize, volume: &Volume) -> Result<Option<Seen>> {
        match self.ask(node, &Command::Look(volume.id))? {
            Answer::Seen(seen) => Ok(seen),
            other => bail!("node {node} answers {other:?} when it is looked at"),
        }
    }

    /// Where its arbiter is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn is_in_sync(&mut self, node: usize, volume: &Volume, replicas: u32) -> Result<bool> {
        Ok(self.look(node, volume)?.is_some_and(|seen| seen.in_sync == replicas && seen.left_bytes.is_none()))
    }

    pub(crate) fn until_primary(&mut self, node: usize, volume: &Volume) -> Result<()> {
        let primary = || Ok(self.look(node, volume)?.filter(|seen| seen.is_primary).map(drop));
        until("it is Primary", primary)
    }

    fn begin(&mut self, number: usize) -> Result<()> {
        let Node { peers, nbd, boot, .. } = self.nodes[number];
        let (process, questions, mut answers) = spawn(&Role::Node { peers, nbd, arbiter: self.url.clone(), boot })?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        self.nodes[number].running = Some(Running { process, questions, answers });
        if line.is_empty() { bail!("node {number} does not begin") } else { Ok(()) }
    }

    fn replica(&self, volume: &Volume, number: usize) -> Result<Replica> {
        Ok(Replica {
            volume: volume.id,
            me: u8::try_from(number)?,
            size_bytes: volume.size_bytes,
            pool: self.folder.join(format!("node-{number}")),
            durable_writes: volume.durable_writes,
            disks: volume.disks.clone(),
            peers: self.nodes.iter().map(|node| node.peers).take(volume.disks.len()).collect(),
        })
    }

    fn tell(&mut self, node: usize, command: &Command) -> Result<()> {
        match self.ask(node, command)? {
            Answer::Done => Ok(()),
            Answer::Failed(why) => bail!("node {node} failed at {command:?}: {why}"),
            Answer::Seen(_) => bail!("node {node} answers another question"),
        }
    }

    fn ask(&mut self, node: usize, command: &Command) -> Result<Answer> {
        let running = self.nodes[node].running.as_mut().with_context(|| format!("node {node} does not run"))?;
        writeln!(running.questions, "{}", serde_json::to_string(command)?)?;
        let mut answer = String::new();
        running.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer).with_context(|| format!("node {node} has ended"))
    }
}
