//! A small cloud that is all fake but for tandem-ha itself, which runs as a process of its own: three hosts with BMCs and heartbeats on two networks.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use failover::{Ledger, Time};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use system_tests::bmc::Bmc;
use system_tests::http::Fault;
use system_tests::machine::Machine;
use system_tests::openstack::{Fake, Host, PASSWORD};
use tandem_ha::config::Config;
use tandem_ha::store::Store;
use tandem_ha::watch::heartbeat::Sender;
use tandem_ha::watch::heartbeat::wire::{self, Key, Packet};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

pub(crate) const NETWORKS: [&str; 2] = ["mgmt", "storage"];
/// Longer than anything here takes, also where two cores run eight stories.
const PATIENCE: Duration = Duration::from_secs(40);
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// The host that dies in most stories.
pub(crate) const DOOMED: &str = "cmp1";

#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) fake: Fake,
    pub(crate) machines: Vec<Arc<Machine>>,
    pub(crate) bmcs: Vec<Bmc>,
    pub(crate) instances: Vec<Uuid>,
    pub(crate) folder: tempfile::TempDir,
    address: Ipv4Addr,
    beats: Vec<JoinHandle<()>>,
    daemon: Option<Child>,
    /// What was logged before the present process.
    logged_before: usize,
}

impl Drop for Story {
    fn drop(&mut self) {
        self.kill();
        let forbidden = self.forbidden();
        if !forbidden.is_empty() {
            fs::write(verdict(), forbidden.join("\n")).expect("what is forbidden is remembered");
            eprintln!("forbidden, and no second try excuses it: {forbidden:#?}");
        }
        for beats in &self.beats {
            beats.abort();
        }
        if std::thread::panicking() {
            eprintln!("---- tandem-ha said:\n{}", self.whole_log());
        }
    }
}

/// A story that ran out of time may be told once more; one in which something forbidden happened may not, in the same run.
fn verdict() -> PathBuf {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forbidden-{run}"))
}

/// Each story has addresses of its own.
fn address() -> Ipv4Addr {
    static STORIES: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 1, low, STORIES.fetch_add(1, Ordering::Relaxed))
}

impl Story {
    /// All is prepared, armed, and four instances are on [`DOOMED`]; tandem-ha does not run yet.
    pub(crate) async fn prepared() -> Self {
        Self::of_hosts(3).await
    }

    /// As above, and tandem-ha has seen everything well.
    pub(crate) async fn begun() -> Self {
        let mut story = Self::prepared().await;
        story.start();
        story.sees_all_well().await;
        story
    }

    pub(crate) async fn of_hosts(count: usize) -> Self {
        assert!(!verdict().exists(), "something forbidden has happened in this run: {}", verdict().display());
        let fake = Fake::start().await;
        let names: Vec<String> = (1..=count).map(|number| format!("cmp{number}")).collect();
        let mut hosts: Vec<Host> = names.iter().map(|name| Host::new(name)).collect();
        for host in &mut hosts {
            host.service_down_time = chrono::Duration::seconds(2);
        }
        let instances = {
            let mut facts = fake.facts();
            facts.hosts = hosts;
            facts.evacuation_step = Some(Duration::from_millis(150));
            facts.boot(DOOMED, 4)
        };
        let machines: Vec<_> = names.iter().map(|name| Machine::new(name, &fake.facts)).collect();
        let mut bmcs = Vec::new();
        for machine in &machines {
            bmcs.push(Bmc::of(machine).await);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (address, beats, daemon) = (address(), Vec::new(), None);
        let mut story = Self { fake, machines, bmcs, instances, folder, address, beats, daemon, logged_before: 0 };
        story.write_files();
        story.arm().await;
        story.beats = story.machines.iter().flat_map(|machine| story.senders(machine)).collect();
        story
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new();
        let file = file.create(true).write(true).truncate(true).mode(0o600).open(self.path(name));
        file.expect("the folder is ours").write_all(text.as_bytes()).expect("there is room");
    }

    fn write_files(&self) {
        self.write("heartbeat.key", "a key that nobody guesses, 32 bytes and more");
        self.write("bmc.password", "open sesame");
        self.write_clouds(PASSWORD);
        self.write("tandem-ha.toml", &self.config());
    }

    pub(crate) fn write_clouds(&self, password: &str) {
        let clouds = format!(
            "clouds: {{fake: {{auth: {{auth_url: \"{}\", username: admin, password: \"{password}\", project_name: admin, \
             user_domain_name: Default, project_domain_name: Default}}}}}}",
            self.fake.auth_url()
        );
        self.write("clouds.yaml", &clouds);
    }

    /// As short as the configuration allows.
    pub(crate) fn config(&self) -> String {
        let listen = |network: usize| format!("{}:{}", self.address, 15869 + network);
        let mut text = format!(
            r#"
control_socket = "ha.sock"
api.listen = "{}:15868"
store.path = "db/ha.sqlite"
openstack = {{ cloud = "fake", poll_s = 0.2 }}
detection = {{ suspect_s = 0.6, silence_s = 3 }}
gates = {{ quiet_s = 0 }}
fencing = {{ attempts = 2, retry_s = 2, limit_s = 1 }}
evacuation = {{ in_flight = 4 }}
segments.all = {{ hosts = ["cmp*"], root_disk = "shared" }}
[heartbeat]
key_file = "heartbeat.key"
interval_s = 0.1
networks = [{{ name = "mgmt", listen = "{}" }}, {{ name = "storage", listen = "{}" }}]
"#,
            self.address,
            listen(0),
            listen(1)
        );
        for (machine, bmc) in self.machines.iter().zip(&self.bmcs) {
            text += &format!(
                "[hosts.{}]\nredfish = {{ address = \"http://{}\", user = \"tandem\", password_file = \"bmc.password\" }}\n",
                machine.name, bmc.address
            );
        }
        text
    }

    /// Changes the configuration; what stands there must be there.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let text = self.config();
        assert!(text.contains(from), "{from:?} is not in {text}");
        self.write("tandem-ha.toml", &text.replace(from, to));
    }

    async fn arm(&self) {
        fs::create_dir(self.path("db")).expect("the folder is ours");
        let store = Store::open(&self.database()).await.expect("a new record");
        let armed = Ledger { armed: true, ..Ledger::default() };
        store.record(Time(1), &Ledger::default(), &armed, &[]).await.expect("it can be written");
        store.close().await;
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("db/ha.sqlite")
    }

    /// One for each network, so that each can be cut.
    fn senders(&self, machine: &Arc<Machine>) -> Vec<JoinHandle<()>> {
        let one = |(number, network): (usize, &&'static str)| {
            let to = format!("{}:{}", self.address, 15869 + number);
            tokio::spawn(beat(Arc::clone(machine), network, to, self.folder.path().to_owned()))
        };
        NETWORKS.iter().enumerate().map(one).collect()
    }

    // ---- the process ----

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-ha-under-test"));
        self.dress(&mut command);
        command
    }

    fn dress(&self, command: &mut Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("the folder is ours");
        command
            .arg("--config")
            .arg(self.path("tandem-ha.toml"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("OS_CLIENT_CONFIG_FILE", self.path("clouds.yaml"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
    }

    pub(crate) fn start(&mut self) {
        self.start_command(self.command());
    }

    /// With a limit that no administrator may set: how long an evacuation without an answer is waited for.
    pub(crate) fn start_hasty(&mut self, unknown_s: u32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-ha-hasty"));
        self.dress(&mut command);
        command.env("UNKNOWN_S", unknown_s.to_string());
        self.start_command(command);
    }

    /// With a disk of 1 MiB of its own for the database. `prepare` is a shell command that sees it as `$DISK`.
    pub(crate) fn start_on_a_small_disk(&mut self, prepare: &str) {
        let whole = self.command();
        let script = format!(
            "mkdir -p \"$DISK.kept\" && cp -a \"$DISK/.\" \"$DISK.kept\" && mount -t tmpfs -o size=1m tmpfs \"$DISK\" && \
             cp -a \"$DISK.kept/.\" \"$DISK\" && {prepare} && exec \"$0\" \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
        command.arg(whole.get_program());
        self.dress(&mut command);
        command.env("DISK", self.path("db"));
        self.start_command(command);
    }

    /// A path as the process sees it, which may have mounts of its own.
    pub(crate) fn path_in_its_eyes(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        Path::new(&format!("/proc/{}/root", self.pid())).join(path.strip_prefix("/").expect("it is absolute"))
    }

    fn start_command(&mut self, mut command: Command) {
        assert!(self.daemon.is_none(), "one at a time");
        self.logged_before = self.whole_log().len();
        self.daemon = Some(command.spawn().expect("it was built with this test"));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("it runs");
        let ended = until(|| daemon.try_wait().expect("it is our child")).await;
        ended.unwrap_or_else(|| {
            let _ = daemon.kill();
            self.fail("it does not end");
        })
    }

    /// Asks it to end, and waits. Says how long that took.
    pub(crate) async fn stop(&mut self) -> Duration {
        let before = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{status}");
        before.elapsed()
    }

    pub(crate) async fn starts_again(&mut self) {
        self.start();
        self.says("tandem-ha watches").await;
    }

    /// Another process with the same configuration; how it ends, and what it says.
    pub(crate) async fn a_second_one(&self) -> (ExitStatus, String) {
        let mut command = self.command();
        command.stderr(Stdio::piped());
        let second = command.spawn().expect("it was built with this test");
        let ended = tokio::task::spawn_blocking(|| second.wait_with_output()).await.expect("it only waits");
        let ended = ended.expect("it is our child");
        (ended.status, String::from_utf8_lossy(&ended.stderr).into_owned())
    }

    /// Takes the address of its API away.
    pub(crate) fn listen_where_it_would(&self) -> std::net::TcpListener {
        std::net::TcpListener::bind((self.address, 15868)).expect("nobody else has it")
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10) // 100 a second, on every Linux
    }

    /// Heartbeats of many more hosts, every second on each network.
    pub(crate) fn crowd(&self, numbers: std::ops::RangeInclusive<usize>) -> JoinHandle<()> {
        let key = Key::new(&fs::read(self.path("heartbeat.key")).expect("it is there"));
        let hosts: Vec<(String, Uuid)> = numbers.map(|number| (format!("cmp{number}"), Uuid::new_v4())).collect();
        let address = self.address;
        tokio::spawn(async move {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
            let mut ticks = tokio::time::interval(Duration::from_millis(20)); // not all at once: hosts do not agree on the moment
            for sequence in 0.. {
                for (host, boot_id) in hosts.iter().skip(sequence % 50).step_by(50) {
                    for (number, network) in (15869..).zip(NETWORKS) {
                        let sent_at_ms = u64::try_from(chrono::Utc::now().timestamp_millis()).expect("after 1970");
                        let sequence = sequence as u64 + 1;
                        let packet =
                            Packet { network, host, boot_id: *boot_id, system_uuid: None, sequence, sent_at_ms };
                        let _ = socket.send_to(&wire::encode(&packet, &key), (address, number)).await;
                    }
                }
                ticks.tick().await;
            }
        })
    }

    // ---- the log ----

    fn whole_log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What the present process has said, or the last one.
    pub(crate) fn log(&self) -> String {
        self.whole_log().split_off(self.logged_before)
    }

    pub(crate) fn count(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }

    pub(crate) async fn says(&self, words: &str) {
        self.until(words, || self.count(words) > 0).await;
    }

    pub(crate) async fn sees_all_well(&self) {
        let hosts = self.machines.len();
        self.until("all hosts are known, bound and heard", || {
            self.count("its BMC is bound to it") == hosts && self.count("kind=Heartbeat") == 2 * hosts
        })
        .await;
    }

    /// Where the BMC of [`DOOMED`] cannot be bound.
    pub(crate) async fn others_are_bound_and_all_are_heard(&self) {
        let hosts = self.machines.len();
        self.until("the others are bound, all are heard", || {
            self.count("its BMC is bound to it") == hosts - 1 && self.count("kind=Heartbeat") == 2 * hosts
        })
        .await;
    }

    pub(crate) async fn until(&self, what: &str, mut seen: impl FnMut() -> bool) {
        if until(|| seen().then_some(())).await.is_none() {
            self.fail(what);
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("waited {} s in vain: {what}\n{}", PATIENCE.as_secs(), self.state());
    }

    fn state(&self) -> String {
        let facts = self.fake.facts();
        let places: Vec<String> =
            facts.hosts.iter().map(|host| format!("{} {}", host.name, facts.on_host(&host.name))).collect();
        format!("instances: {}; violations: {:?}", places.join(", "), facts.violations)
    }

    // ---- what happens, and what must come of it ----

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).expect("it is in this story")
    }

    /// The BMC of [`DOOMED`].
    pub(crate) fn bmc(&self) -> &Bmc {
        &self.bmcs[0]
    }

    pub(crate) fn dies(&self) {
        self.machine(DOOMED).power_off();
    }

    pub(crate) async fn comes_back(&self) {
        self.machine(DOOMED).boots().await;
    }

    /// Every call to OpenStack meets this from now on.
    pub(crate) fn breaks(&self, fault: &Fault) {
        for method in [Method::GET, Method::POST, Method::PUT] {
            self.fake.http.fail(method, "", usize::MAX, fault.clone());
        }
    }

    pub(crate) fn evacuations(&self) -> usize {
        self.fake.http.seen(&Method::POST, "/action").len()
    }

    pub(crate) fn listings(&self) -> usize {
        self.fake.http.seen(&Method::GET, "/servers/detail").len()
    }

    pub(crate) fn evacuations_of(&self, instance: Uuid) -> usize {
        self.fake.http.seen(&Method::POST, &format!("/servers/{instance}/action")).len()
    }

    pub(crate) async fn is_recovered(&self) {
        self.comes_to("recovered").await;
        let facts = self.fake.facts();
        assert_eq!(facts.on_host(DOOMED), 0);
        let ended =
            facts.migrations.iter().filter(|row| row["status"] == "done" || row["status"] == "completed").count();
        assert_eq!((ended, facts.migrations.len()), (4, 4), "each instance moved once");
        drop(facts);
        self.nothing_forbidden();
    }

    /// And each POST was sent once.
    pub(crate) async fn is_recovered_by_one_try(&self) {
        self.is_recovered().await;
        for instance in &self.instances {
            assert_eq!(self.evacuations_of(*instance), 1, "{instance}");
        }
    }

    pub(crate) async fn takes_it_back(&self) {
        if !self.machine(DOOMED).is_on() {
            self.comes_back().await;
        }
        self.comes_to("closed").await;
        let facts = self.fake.facts();
        let host = &facts.hosts[0];
        assert_eq!((host.forced_down, host.disabled_reason.as_deref()), (false, None));
    }

    pub(crate) fn nothing_forbidden(&self) {
        assert_eq!(self.forbidden(), [""; 0]);
    }

    /// An instance that ran twice, a call that would have blocked Nova, a healthy host that was told to switch off.
    fn forbidden(&self) -> Vec<String> {
        let mut forbidden = self.fake.facts().violations.clone();
        for (machine, bmc) in self.machines.iter().zip(&self.bmcs).filter(|(machine, _)| machine.name != DOOMED) {
            if bmc.power_offs() > 0 || !machine.is_on() {
                forbidden.push(format!("{} was told to switch off", machine.name));
            }
        }
        forbidden
    }

    /// Nothing was changed anywhere.
    pub(crate) fn nothing_done(&self) {
        self.nothing_moved();
        assert_eq!(self.bmc().power_offs(), 0);
    }

    /// Nova was asked to change nothing.
    pub(crate) fn nothing_moved(&self) {
        self.nothing_forbidden();
        assert_eq!(self.evacuations(), 0);
        assert_eq!(self.fake.http.seen(&Method::PUT, "/os-services").len(), 0);
    }

    // ---- its API ----

    pub(crate) async fn get(&self, path: &str) -> Value {
        match reqwest::get(format!("http://{}:15868{path}", self.address)).await {
            Ok(answer) => answer.json().await.expect("JSON"),
            Err(why) if why.is_connect() => Value::Null, // it has just started
            Err(why) => panic!("{path}: {why}"),
        }
    }

    /// The incident of [`DOOMED`] is in this phase. One that was cancelled is none: a heartbeat came late.
    pub(crate) async fn comes_to(&self, phase: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.incidents().await.iter().any(|incident| incident["phase"] == phase) {
            if Instant::now() > deadline {
                self.fail(phase);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is not known to be accepted is asked again only after Nova has looked at its guests by itself, in 11 minutes.
    pub(crate) async fn all_restarts_are_accepted(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let incident = self.incident().await;
            let restarts = incident["restarts"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !restarts.is_empty() && restarts.iter().all(|restart| restart["request_id"].is_string()) {
                return;
            }
            if Instant::now() > deadline {
                self.fail("all restarts are accepted");
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn incidents(&self) -> Vec<Value> {
        let told = self.get(&format!("/v2/incidents?host={DOOMED}")).await;
        let all = told["incidents"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|incident| incident["outcome"] != "cancelled").collect()
    }

    /// Says itself that it does not see.
    pub(crate) async fn is_blind(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/healthcheck").await["status"] != "blind" {
            if Instant::now() > deadline {
                self.fail("it is blind");
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The only incident of [`DOOMED`] that was not cancelled, whole.
    pub(crate) async fn incident(&self) -> Value {
        let incidents = self.incidents().await;
        let [one] = &*incidents else { panic!("one outage is one incident: {incidents:?}") };
        let id = one["id"].as_str().expect("an id");
        self.get(&format!("/v2/incidents/{id}")).await["incident"].clone()
    }

    /// What changes something goes over the socket. The status, and the body.
    pub(crate) fn order(&self, path: &str, body: &Value) -> (u16, Value) {
        use std::io::Read;
        let mut socket = std::os::unix::net::UnixStream::connect(self.path("ha.sock")).expect("it listens");
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: tandem\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(format!("{head}{body}").as_bytes()).expect("it takes a request");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned())))
    }
}

/// Polls, at most [`PATIENCE`] long.
async fn until<T>(mut seen: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = seen() {
            return Some(seen);
        }
        if Instant::now() > deadline {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The heartbeats of one machine on one network, through all its boots.
async fn beat(machine: Arc<Machine>, network: &'static str, to: String, folder: PathBuf) {
    let mut sender: Option<(Uuid, Sender)> = None;
    loop {
        let boot = machine.boot();
        if sender.as_ref().is_none_or(|(of, _)| *of != boot) {
            sender = Some((boot, new_sender(&machine, boot, network, &to, &folder)));
        }
        if let Some((_, sender)) = sender.as_mut().filter(|_| machine.is_heard_on(network)) {
            sender.beat();
        }
        sleep(BEAT_EVERY).await;
    }
}

fn new_sender(machine: &Machine, boot: Uuid, network: &str, to: &str, folder: &Path) -> Sender {
    let file = |kind: &str| folder.join(format!("{}-{network}.{kind}", machine.name));
    let write = |kind: &str, text: &str| fs::write(file(kind), text).expect("the folder is ours");
    write("boot", &boot.to_string());
    write("uuid", &machine.system.to_string());
    let text = format!(
        "[heartbeat]\nkey_file = \"heartbeat.key\"\nhost = \"{}\"\nboot_id_file = {:?}\nsystem_uuid_file = {:?}\nnetworks = [{{ name = \"{network}\", to = \"{to}\" }}]",
        machine.name,
        file("boot"),
        file("uuid"),
    );
    write("toml", &text);
    let loaded = Config::load(&file("toml"), std::iter::empty()).expect("a sender's configuration");
    Sender::new(&loaded.config).expect("it can send")
}
