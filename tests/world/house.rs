//! Real processes of tandem-node, with an arbiter and TLS among them, set up and steered by what docs/volumes.md tells a newcomer to type.
//!
//! Each house has addresses of its own in 127.0.0.0/8, so that many stand side by side on the ports that are usual.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub const NODES: [&str; 3] = ["cmp1", "cmp2", "cmp3"];
/// Where the arbiter is.
pub const ARBITER: &str = "ctl";
/// In the last byte of an address four bits are the house's, four its part's.
const MOST_HOUSES: u8 = 15;
static HOUSES: AtomicU8 = AtomicU8::new(0);
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Three nodes, an arbiter, and Alice, who types.
#[derive(Debug)]
pub struct House {
    folder: PathBuf,
    programs: Programs,
    number: u8,
    /// The first three numbers of the addresses, where they are not on loopback.
    network: Option<&'static str>,
    processes: Vec<(&'static str, Child)>,
}

#[derive(Debug, Clone)]
pub struct Programs {
    pub node: PathBuf,
    pub tandem: PathBuf,
}

/// How a command of `tandem` ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl House {
    /// All of them run and see each other.
    pub fn create(folder: &Path, programs: Programs) -> Result<Self> {
        Self::create_at(folder, programs, None)
    }

    /// The same on a network that this machine has: of 1, 2 and 3 there for the nodes, and 9 for the arbiter.
    pub fn create_at(folder: &Path, programs: Programs, network: Option<&'static str>) -> Result<Self> {
        let number = HOUSES.fetch_add(1, Ordering::Relaxed);
        ensure!(number < MOST_HOUSES, "no more than {MOST_HOUSES} houses have room in a process");
        let mut house = Self { folder: folder.to_owned(), programs, number, network, processes: Vec::new() };
        house.certify()?;
        house.configure()?;
        for name in [ARBITER].into_iter().chain(NODES) {
            house.start(name)?;
        }
        house.until("all nodes are reached", || {
            let list = house.json(&["node", "list", "--json"])?;
            let nodes = list["nodes"].as_array().context("no list of nodes")?;
            Ok(nodes.len() == NODES.len() && nodes.iter().all(|node| node["reached"] == true))
        })?;
        Ok(house)
    }

    /// Of this process and house alone.
    fn address(&self, name: &str) -> String {
        let part = (1_u8..).zip(NODES).find_map(|(part, node)| (node == name).then_some(part)).unwrap_or(9);
        if let Some(network) = self.network {
            return format!("{network}.{part}");
        }
        let process = std::process::id();
        format!("127.{}.{}.{}", 64 + process / 250 % 128, process % 250, self.number * 16 + part)
    }

    /// Where a port of a node listens.
    pub fn socket(&self, name: &str, port: u16) -> Result<SocketAddr> {
        Ok(format!("{}:{port}", self.address(name)).parse()?)
    }

    fn certify(&self) -> Result<()> {
        let ca = self.folder.join("ca");
        let cert = |words: &[&str], out: Option<PathBuf>| {
            let mut command = Command::new(&self.programs.node);
            command.arg("cert").args(words).arg("--dir").arg(&ca);
            if let Some(out) = out {
                command.arg("--out").arg(out);
            }
            let done = command.output()?;
            ensure!(done.status.success(), "cert {words:?} failed: {}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        };
        cert(&["init"], None)?;
        for name in [ARBITER].into_iter().chain(NODES) {
            cert(&["issue", "node", name, "--address", &self.address(name)], Some(self.folder.join(name)))?;
        }
        cert(&["issue", "admin", "alice"], Some(self.folder.join("alice")))
    }

    fn configure(&self) -> Result<()> {
        fs::create_dir(self.folder.join("arbiter"))?;
        fs::write(self.config(ARBITER), self.config_of_arbiter())?;
        for name in NODES {
            fs::create_dir(self.pool(name))?;
            fs::write(self.config(name), self.config_of_node(name))?;
        }
        let nodes = NODES.map(|name| format!("\"https://{}:15870\"", self.address(name))).join(", ");
        let alice = self.folder.join("alice");
        let [ca, cert, key] = ["ca.crt", "alice.crt", "alice.key"].map(|file| alice.join(file).display().to_string());
        let file = format!("node = [{nodes}]\ntls_ca = \"{ca}\"\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n");
        Ok(fs::write(self.folder.join("tandem.toml"), file)?)
    }

    fn config_of_arbiter(&self) -> String {
        let (address, store) = (self.address(ARBITER), self.folder.join("arbiter"));
        format!(
            "{}[arbiter_server]\nlisten = \"{address}:15872\"\ndirectory = \"{}\"\n",
            self.tls(ARBITER),
            store.display()
        )
    }

    fn config_of_node(&self, name: &str) -> String {
        let others = NODES.iter().filter(|other| **other != name).map(|other| {
            let at = self.address(other);
            format!("[nodes.{other}]\npeers = \"{at}:15871\"\nrest = \"https://{at}:15870\"\niscsi = \"{at}:3260\"\n")
        });
        format!(
            "control_socket = \"{}\"\n[node]\nname = \"{name}\"\n[listen]\nrest = \"{at}:15870\"\npeers = \"{at}:15871\"\n\
             nbd = \"{at}:10809\"\niscsi = \"{at}:3260\"\n{}[pools.default]\npath = \"{}\"\n{}[arbiter]\nurl = \"https://{}:15872\"\nname = \"{ARBITER}\"\n",
            self.control_socket(name).display(),
            self.tls(name),
            self.pool(name).display(),
            others.collect::<String>(),
            self.address(ARBITER),
            at = self.address(name),
        )
    }

    fn tls(&self, name: &str) -> String {
        let folder = self.folder.join(name);
        format!("[tls]\nca = \"{0}/ca.crt\"\ncert = \"{0}/{name}.crt\"\nkey = \"{0}/{name}.key\"\n", folder.display())
    }

    fn config(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.toml"))
    }

    pub fn control_socket(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sock"))
    }

    /// The folder that holds a node's replicas.
    pub fn pool(&self, name: &str) -> PathBuf {
        self.folder.join(format!("pool-{name}"))
    }

    /// The folder that holds the arbiter's records.
    pub fn arbiter_store(&self) -> PathBuf {
        self.folder.join("arbiter")
    }

    pub fn data_file(&self, name: &str, volume: &str) -> PathBuf {
        self.pool(name).join(format!("{volume}.data"))
    }

    /// What the process has logged in all its lives.
    pub fn log(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join(format!("{name}.log")))?)
    }

    /// Starts a process that does not run.
    pub fn start(&mut self, name: &'static str) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{name}.log")))?;
        let mut command = Command::new(&self.programs.node);
        command.arg("--config").arg(self.config(name)).args((name == ARBITER).then_some("arbiter"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.processes.push((name, child));
        Ok(())
    }

    /// Its process, which runs.
    pub fn process(&self, name: &str) -> Result<u32> {
        let found = self.processes.iter().find(|(of, _)| *of == name);
        Ok(found.with_context(|| format!("{name} does not run"))?.1.id())
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let at = self.processes.iter().position(|(running, _)| *running == name);
        let (_, mut child) = self.processes.swap_remove(at.with_context(|| format!("{name} does not run"))?);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// That no process ended by itself.
    pub fn all_live(&mut self) -> Result<()> {
        for (name, child) in &mut self.processes {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "{name} ended by itself: {ended:?}");
        }
        Ok(())
    }

    /// What Alice types after `tandem`.
    pub fn tandem(&self, words: &[&str]) -> Result<Said> {
        let done = self.command(words).stdin(Stdio::null()).output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { code: done.status.code(), out: text(done.stdout), err: text(done.stderr) })
    }

    /// The same, not begun yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.tandem);
        command.arg("--config").arg(self.folder.join("tandem.toml")).args(words);
        command.env_remove("TANDEM_NODE_URL");
        command
    }

    /// What it prints when all goes well.
    pub fn done(&self, words: &[&str]) -> Result<String> {
        let said = self.tandem(words)?;
        ensure!(said.code == Some(0), "tandem {words:?}: {said:#?}");
        Ok(said.out)
    }

    /// What it says when it ends with this exit code.
    pub fn refused(&self, words: &[&str], code: i32) -> Result<String> {
        let said = self.tandem(words)?;
        ensure!(said.code == Some(code), "tandem {words:?} was to end with {code}: {said:#?}");
        Ok(said.err)
    }

    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let out = self.done(words)?;
        serde_json::from_str(&out).with_context(|| format!("tandem {words:?} printed no JSON: {out}"))
    }

    /// An attachment for an initiator: what the node answered, secrets and all.
    pub fn attach(&self, volume: &str, host: &str, initiator: &str) -> Result<Value> {
        self.json(&["volume", "attach", volume, "--host", host, "--initiator", initiator, "--json"])
    }

    pub fn volume(&self, name: &str) -> Result<Value> {
        self.json(&["volume", "show", name, "--json"])
    }

    /// Until it serves with every replica reached, UpToDate and in sync.
    pub fn until_whole(&self, volume: &str) -> Result<Value> {
        self.until(&format!("{volume} is whole"), || {
            let seen = self.volume(volume)?;
            let replicas = seen["replicas"].as_array().context("no replicas")?;
            // Connected too: a replica that was started anew stands in the record until its Primary has looked at it.
            let is_good = |replica: &Value| {
                let peers = replica["connected"].as_array().map_or(0, Vec::len);
                let is_in_sync = replica["disk"] == "UpToDate" && replica["in_sync"] == true;
                replica["reached"] == true && is_in_sync && peers + 1 == replicas.len()
            };
            Ok(seen["serving"] == true && replicas.iter().all(is_good))
        })?;
        self.volume(volume)
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = is_so();
            if matches!(now, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > end {
                let list = self.tandem(&["volume", "list"]);
                bail!("not within {PATIENCE:?}: {what}: {now:?}; {list:?}");
            }
            thread::park_timeout(LOOK_AGAIN_AFTER);
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}
