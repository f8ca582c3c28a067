//! The cluster under torture: three hosts, an arbiter, certificates, and the volumes with their clients.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::json;
use uuid::Uuid;

use crate::clients::{self, NBD_PORT, SIZE_BYTES, Volume};
use crate::host::Host;
use crate::network::{ARBITER, Network, Port};
use crate::process::Process;
use crate::rest::{self, REST_PORT, Rest};

pub(crate) const HOSTS: [Port; 3] = [Port(1), Port(2), Port(3)];
const PEERS_PORT: u16 = 15871;
const ARBITER_PORT: u16 = 15872;
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Name, hosts, durability.
const VOLUMES: [(&str, &[Port], &str); 3] = [
    ("two", &[HOSTS[0], HOSTS[1]], "flush"),
    ("three", &[HOSTS[2], HOSTS[0], HOSTS[1]], "flush"),
    ("durable", &[HOSTS[1], HOSTS[2]], "write"),
];

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) network: Network,
    pub(crate) hosts: Vec<Host>,
    arbiter: Option<Process>,
    pub(crate) rest: Rest,
    pub(crate) volumes: Vec<Arc<Volume>>,
    clients: Vec<JoinHandle<()>>,
    folder: PathBuf,
    program: PathBuf,
}

impl Cluster {
    pub(crate) fn create(folder: &Path, seed: u64) -> Result<Self> {
        let program = beside_us("tandem-node-under-test")?;
        let network = Network::create(&[HOSTS[0], HOSTS[1], HOSTS[2], ARBITER])?;
        let certificates = folder.join("certificates");
        certify(&program, &certificates)?;
        fs::create_dir(folder.join("arbiter"))?;
        fs::write(folder.join("arb.toml"), config(ARBITER, folder, &folder.join("arbiter")))?;
        let made = HOSTS.iter().map(|port| Host::create(*port, folder, &program, seed));
        let hosts = made.collect::<Result<Vec<Host>>>()?;
        for host in &hosts {
            fs::write(host.config(), config(host.port, folder, &host.pool()))?;
        }
        let mut cluster = Self {
            network,
            hosts,
            arbiter: None,
            rest: Rest::new(&certificates)?,
            volumes: Vec::new(),
            clients: Vec::new(),
            folder: folder.to_owned(),
            program,
        };
        cluster.start_all()?;
        cluster.create_volumes(seed)?;
        Ok(cluster)
    }

    fn create_volumes(&mut self, seed: u64) -> Result<()> {
        for (number, (name, hosts, durability)) in (0_u8..).zip(VOLUMES) {
            let uuid = uuid::Builder::from_random_bytes([number + 1; 16]).into_uuid();
            let nodes: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let body = json!({
                "uuid": uuid, "name": name, "size_bytes": SIZE_BYTES, "replicas": nodes, "durability": durability,
                "promote": nodes[0],
            });
            self.rest.create(hosts[0], &body).with_context(|| format!("could not create the volume {name}"))?;
            let seed = seed ^ u64::from(number);
            let volume = Volume::new(name, uuid, hosts.to_vec(), durability == "write", seed);
            self.clients.extend(clients::start(&volume, seed));
            self.volumes.push(volume);
        }
        Ok(())
    }

    /// Whatever does not run, and waits until all nodes answer.
    pub(crate) fn start_all(&mut self) -> Result<()> {
        self.start_arbiter()?;
        self.hosts.iter_mut().try_for_each(|host| host.start(&HOSTS))?;
        let end = Instant::now() + STARTS_WITHIN;
        for port in HOSTS {
            while !self.rest.answers(port) {
                self.host(port).must_live()?;
                ensure!(Instant::now() < end, "{port} does not answer REST within {STARTS_WITHIN:?} of its start");
                thread::park_timeout(LOOK_AGAIN_AFTER);
            }
        }
        Ok(())
    }

    pub(crate) fn host(&mut self, port: Port) -> &mut Host {
        let host = self.hosts.iter_mut().find(|host| host.port == port);
        host.expect("faults name hosts that there are")
    }

    pub(crate) fn start_host(&mut self, port: Port) -> Result<()> {
        self.host(port).start(&HOSTS)
    }

    pub(crate) fn start_arbiter(&mut self) -> Result<()> {
        if self.arbiter.is_none() {
            let config = self.folder.join("arb.toml");
            let disks =
                HOSTS.map(|port| format!("umount -l '{}/{port}-disk/mounted' 2>/dev/null; ", self.folder.display()));
            let (nsenter, program) = (ARBITER.nsenter(), self.program.display());
            let line = format!("{}exec {nsenter} '{program}' --config '{}' arbiter", disks.concat(), config.display());
            self.arbiter = Some(Process::start(&line, &self.folder.join("arb.log"))?);
        }
        Ok(())
    }

    pub(crate) fn kill_arbiter(&mut self) {
        self.arbiter = None;
    }

    pub(crate) fn signal_arbiter(&self, signal: Signal) -> Result<()> {
        self.arbiter.as_ref().map_or(Ok(()), |arbiter| arbiter.signal(signal))
    }

    /// As the first node sees it that answers, of those that have a replica.
    pub(crate) fn look(&self, volume: &Volume) -> Result<rest::Volume> {
        let mut failed = None;
        for port in &volume.hosts {
            match self.rest.volume(*port, volume.uuid) {
                Ok(seen) => return Ok(seen),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.context("a volume without hosts")?)
    }

    /// Who is Primary of this volume.
    pub(crate) fn primary(&self, volume: &Volume) -> Result<Port> {
        let seen = self.look(volume)?;
        let primary =
            seen.primary.as_deref().with_context(|| format!("{} has no Primary: {}", volume.name, seen.told()))?;
        let found = HOSTS.into_iter().find(|port| port.to_string() == primary);
        found.with_context(|| format!("{primary} is Primary, and no host of ours"))
    }

    /// All of it as it was before the faults: every volume serves, and all its replicas are UpToDate.
    pub(crate) fn until_whole(&mut self, limit: Duration) -> Result<()> {
        self.until(limit, "whole", rest::Volume::is_whole)
    }

    /// And of requests that clients have given up on, none is under way.
    pub(crate) fn until_idle(&mut self, limit: Duration) -> Result<()> {
        self.until(limit, "whole and idle", |volume| volume.is_whole() && volume.is_idle())
    }

    fn until(&mut self, limit: Duration, what: &str, is_so: impl Fn(&rest::Volume) -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        for volume in self.volumes.clone() {
            loop {
                let seen = self.look(&volume);
                if seen.as_ref().is_ok_and(&is_so) {
                    break;
                }
                self.hosts.iter_mut().try_for_each(Host::must_live)?;
                if Instant::now() > end {
                    let told = seen.map_or_else(|error| format!("{error:#}"), |seen| seen.told());
                    bail!("{} is not {what} {limit:?} after the faults ended: {told}", volume.name);
                }
                thread::park_timeout(LOOK_AGAIN_AFTER);
            }
        }
        Ok(())
    }

    pub(crate) fn data_file(&self, port: Port, volume: Uuid) -> PathBuf {
        let host = self.hosts.iter().find(|host| host.port == port).expect("volumes lie on hosts that there are");
        host.pool().join(format!("{volume}.data"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.volumes.iter().for_each(|volume| volume.end());
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
        for host in &mut self.hosts {
            let _ = host.kill();
        }
    }
}

/// A CA, and a certificate for everybody.
fn certify(program: &Path, folder: &Path) -> Result<()> {
    let cert = |words: &[&str]| {
        let mut command = Command::new(program);
        let done = command.arg("cert").args(words).arg("--dir").arg(folder).output()?;
        ensure!(done.status.success(), "cert {words:?} failed: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    cert(&["init"])?;
    for port in HOSTS.into_iter().chain([ARBITER]) {
        cert(&["issue", "node", &port.to_string(), "--address", &port.address().to_string()])?;
    }
    cert(&["issue", "admin", "torture"])
}

/// Of a node or of the arbiter; one file would do for both.
fn config(port: Port, folder: &Path, pool: &Path) -> String {
    let (own, arbiter, folder) = (port.address(), ARBITER.address(), folder.display());
    let nodes = HOSTS.iter().map(|node| {
        let at = node.address();
        format!("[nodes.{node}]\npeers = \"{at}:{PEERS_PORT}\"\nrest = \"https://{at}:{REST_PORT}\"\n")
    });
    format!(
        r#"control_socket = "{folder}/{port}.sock"
[node]
name = "{port}"
[listen]
rest = "{own}:{REST_PORT}"
peers = "{own}:{PEERS_PORT}"
nbd = "127.0.0.1:{NBD_PORT}"
[tls]
ca = "{folder}/certificates/ca.crt"
cert = "{folder}/certificates/{port}.crt"
key = "{folder}/certificates/{port}.key"
[pools.default]
path = "{}"
[arbiter]
url = "https://{arbiter}:{ARBITER_PORT}"
name = "{ARBITER}"
[arbiter_server]
listen = "{arbiter}:{ARBITER_PORT}"
directory = "{folder}/arbiter"
{}"#,
        pool.display(),
        nodes.collect::<String>(),
    )
}

fn beside_us(program: &str) -> Result<PathBuf> {
    let found = std::env::current_exe()?.with_file_name(program);
    ensure!(found.is_file(), "no {}: cargo build -p system-tests --bins", found.display());
    Ok(found)
}
