//! Measures what it costs us to list and parse the 1,000 instances of one host, and writes target/bench/client.json.
//!
//! The fake runs in a process of its own (this program again), so that only our CPU is counted: user and system time of this process from
//! the first call to the last instance. The floor is what `serde_json` alone needs to walk through the same bytes and keep nothing. The peer
//! is openstacksdk, if TANDEM_BENCH_PYTHON names a Python that has it; the two are measured in turn.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, pin_mut};
use openstack_client::{Cloud, Limits, ServerRow};
use rustix::time::{ClockId, clock_gettime};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use system_tests::openstack::{Fake, PASSWORD};

const SERVERS: usize = 1000;
const HOST: &str = "cmp1";
const ROUNDS: usize = 30;
/// Of these, so many with the peer in turn: it takes seconds for each.
const PEER_ROUNDS: usize = 5;
const LIMIT_MS: f64 = 150.0;
const SERVE: &str = "TANDEM_BENCH_SERVE";

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match std::env::var_os(SERVE) {
        Some(_) => runtime.block_on(serve()),
        None => runtime.block_on(measure()),
    }
}

/// The other process: says where it listens and lives until its standard input ends.
async fn serve() -> Result<()> {
    let fake = Fake::start().await;
    fake.facts().boot(HOST, SERVERS);
    println!("{}", fake.address);
    std::io::stdout().flush()?;
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    end.await??;
    Ok(())
}

async fn measure() -> Result<()> {
    let (_server, cloud) = start().await?;
    let page = usize::try_from(cloud.limits().page.get())?;
    for _ in 0..3 {
        list(&cloud).await?; // the token, the microversions, the connection
    }
    let before_kib = peak_kib()?;
    let mut peer = Peer::start(&cloud)?;
    let (mut rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        rounds.push(list(&cloud).await?);
        if let Some(peer) = peer.as_mut().filter(|_| round < PEER_ROUNDS) {
            peer_rounds.push(peer.list()?);
        }
    }
    let after_kib = peak_kib()?;
    let pages = pages(&cloud, page).await?;
    let body_kib = pages.iter().map(Vec::len).sum::<usize>() / 1024;
    let floor = floor(&pages)?;
    report(&rounds, &peer_rounds, &floor, body_kib, before_kib, after_kib)
}

/// openstacksdk in a process of its own, which counts its CPU itself.
struct Peer {
    // dropped first: the process ends with its input
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _process: Serving,
}

impl Peer {
    fn start(cloud: &Cloud) -> Result<Option<Self>> {
        let Some(python) = std::env::var_os("TANDEM_BENCH_PYTHON").filter(|python| !python.is_empty()) else {
            println!("openstacksdk is not measured: `minicloud up` installs it, `make bench-client` then finds it");
            return Ok(None);
        };
        let mut process = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/openstacksdk.py"))
            .args([cloud.config().auth_url.as_str(), PASSWORD, HOST])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", python.display()))?;
        let questions = process.stdin.take().context("it is piped")?;
        let answers = BufReader::new(process.stdout.take().context("it is piped")?);
        let mut peer = Self { questions, answers, _process: Serving(process) };
        peer.list()?; // its token and its imports
        Ok(Some(peer))
    }

    fn list(&mut self) -> Result<Duration> {
        writeln!(self.questions, "list")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let (count, cpu_ms) = answer.trim().split_once(' ').context("openstacksdk ended without an answer")?;
        ensure!(count.parse::<usize>()? == SERVERS, "openstacksdk listed {count} instances instead of {SERVERS}");
        Ok(Duration::from_secs_f64(cpu_ms.parse::<f64>()? / 1000.0))
    }
}

/// Ends the serving process with us.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait(); // it ends with its input; nothing is left to do if it does not
    }
}

async fn start() -> Result<(Serving, Cloud)> {
    let mut child =
        Command::new(std::env::current_exe()?).env(SERVE, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(child.stdout.take().context("it is piped")?).read_line(&mut address)?;
    let mut config = Fake::start().await.config();
    config.auth_url = format!("http://{}/identity/v3", address.trim()).parse()?;
    Ok((Serving(child), Cloud::new(config, Limits::default())?))
}

#[derive(Clone, Copy)]
struct Round {
    cpu: Duration,
    wall: Duration,
}

/// One whole listing. Nothing is kept but a count, as a watcher that only decides would do.
async fn list(cloud: &Cloud) -> Result<Round> {
    let (cpu, wall) = (cpu_time(), Instant::now());
    let mut count = 0;
    let servers = cloud.servers_of_host(HOST);
    pin_mut!(servers);
    while let Some(server) = servers.next().await {
        ensure!(
            matches!(server?, ServerRow::Known(server) if server.host.as_deref() == Some(HOST)),
            "an instance of another host"
        );
        count += 1;
    }
    ensure!(count == SERVERS, "{count} instances instead of {SERVERS}");
    Ok(Round { cpu: cpu_time() - cpu, wall: wall.elapsed() })
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// The most memory that this process ever held (VmHWM).
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("Linux says VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("a number follows")?.parse()?)
}

/// The same pages as bytes.
async fn pages(cloud: &Cloud, page: usize) -> Result<Vec<Vec<u8>>> {
    let http = cloud.session().client().inner();
    let mut url = cloud.session().client().get_endpoint("compute", cloud.session().endpoint_filters()).await?;
    url.set_path("/compute/v2.1/servers/detail");
    let (mut pages, mut marker) = (Vec::new(), String::new());
    for _ in 0..SERVERS.div_ceil(page) {
        url.set_query(Some(&format!("host={HOST}&limit={page}{marker}")));
        let request = cloud.session().auth_type().authenticate(http, http.get(url.clone())).await?;
        let body = request.send().await?.error_for_status()?.bytes().await?.to_vec();
        let last = serde_json::from_slice::<Value>(&body)?["servers"]
            .as_array()
            .and_then(|all| all.last())
            .context("a page has servers")?["id"]
            .clone();
        marker = format!("&marker={}", last.as_str().context("an id is text")?);
        pages.push(body);
    }
    Ok(pages)
}

fn floor(pages: &[Vec<u8>]) -> Result<Vec<Round>> {
    let once = || {
        let (cpu, wall) = (cpu_time(), Instant::now());
        for page in pages {
            std::hint::black_box(serde_json::from_slice::<IgnoredAny>(page)?);
        }
        Ok(Round { cpu: cpu_time() - cpu, wall: wall.elapsed() })
    };
    (0..ROUNDS).map(|_| once()).collect()
}

fn report(
    rounds: &[Round],
    peer: &[Duration],
    floor: &[Round],
    body_kib: usize,
    before_kib: u64,
    after_kib: u64,
) -> Result<()> {
    let cpu = |rounds: &[Round], rank| ranked(rounds, rank, |round| round.cpu);
    let (median, worst) = (cpu(rounds, 0.5), cpu(rounds, 1.0));
    let wall = ranked(rounds, 0.5, |round| round.wall);
    let ground = cpu(floor, 0.5);
    println!("{SERVERS} instances, {body_kib} KiB, {ROUNDS} rounds");
    println!(
        "{:<44}{median:>8.1} ms  (worst {worst:.1} ms; limit {LIMIT_MS} ms)",
        "listed and parsed, our CPU, median"
    );
    println!("{:<44}{wall:>8.1} ms", "the same, by the clock, with the fake's work");
    println!("{:<44}{ground:>8.1} ms", "floor: serde_json walks the same bytes, CPU");
    println!("{:<44}{:>8.2}", "ratio to the floor", median / ground);
    println!("{:<44}{after_kib:>8} KiB  ({} KiB more than after the warm-up)", "peak memory", after_kib - before_kib);
    let peer = (!peer.is_empty()).then(|| ranked(peer, 0.5, |cpu| *cpu));
    if let Some(peer) = peer {
        println!("{:<44}{peer:>8.1} ms", "peer: openstacksdk lists the same, CPU, median");
        println!("{:<44}{:>8.4}", "ratio to the peer", median / peer);
    }
    let mut rows = json!([
        {"name": "list_1000_servers_cpu_ms", "median": median, "worst": worst, "rounds": ROUNDS, "body_kib": body_kib},
        {"name": "list_1000_servers_wall_ms", "median": wall},
        {"name": "floor_serde_json_cpu_ms", "median": ground, "ratio": median / ground},
        {"name": "peak_memory_kib", "value": after_kib, "growth": after_kib - before_kib},
    ]);
    if let (Some(peer), Some(rows)) = (peer, rows.as_array_mut()) {
        rows.push(
            json!({"name": "peer_openstacksdk_cpu_ms", "median": peer, "rounds": PEER_ROUNDS, "ratio": median / peer}),
        );
    }
    let target = json!({"name": "list_1000_servers_cpu_ms", "value": median, "limit": LIMIT_MS, "better": "lower", "holds": median <= LIMIT_MS});
    write(&json!({"rows": rows, "targets": [target]}))
}

/// The value below which this share of the rounds lies, in milliseconds.
fn ranked<T>(rounds: &[T], rank: f64, of: impl Fn(&T) -> Duration) -> f64 {
    let mut values: Vec<_> = rounds.iter().map(of).collect();
    values.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among few rounds"
    )]
    let at = ((values.len() - 1) as f64 * rank).round() as usize;
    values[at].as_secs_f64() * 1000.0
}

fn write(result: &Value) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests/ lies in the workspace")?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from).join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("client.json");
    std::fs::write(&path, serde_json::to_vec_pretty(result)?)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("-> {}", path.display());
    Ok(())
}
