//! NBD clients of real nodes, most of them written by others: who is let in and how, what they may do, and what happens to them when a node goes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use replication::{Attachment, Change, DiskId, Node as Place, Order, Record, Role, Settings, VolumeId};
use system_tests::addresses::free_addresses;
use system_tests::nbd::{Nbd, dial};
use tandem_node::arbiter::{Arbiter, ArbiterConfig, Embedded, Limits, Outcome, Register};
use tandem_node::disk::Options;
use tandem_node::engine::VolumeError;
use tandem_node::identity::{Address, Authority, Credentials, Identity, Kind, Paths, Request};
use tandem_node::node::{Node, NodeConfig, Peer, VolumeConfig, boot_id};
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
const SIZE_BLOCKS: u64 = 16 * 1024;

/// A volume on one or two nodes, on addresses that they keep.
struct House {
    folder: TempDir,
    volume: VolumeId,
    peers: Vec<SocketAddr>,
    nbd: Vec<SocketAddr>,
    nodes: Vec<Option<Node>>,
    register: Arc<dyn Register>,
    arbiter: JoinHandle<()>,
    credentials: Option<Arc<Credentials>>,
}

fn place(number: usize) -> Place {
    Place::new(u8::try_from(number).expect("few")).expect("fewer than eight")
}

impl House {
    async fn of(count: usize) -> Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        Self::with(folder, count, "127.0.0.1", None).await
    }

    /// `host`: where NBD clients come in.
    async fn with(folder: TempDir, count: usize, host: &str, credentials: Option<Arc<Credentials>>) -> Result<Self> {
        let store = folder.path().join("arbiter");
        std::fs::create_dir(&store)?;
        let arbiter = ArbiterConfig { directory: store, listen: "127.0.0.1:0".parse()?, tls: None };
        let arbiter = Arbiter::bind(arbiter).await?;
        let url = format!("http://{}", arbiter.address());
        let register: Arc<dyn Register> = Arc::new(Embedded::new(&url, None, Limits::default())?);
        let arbiter = tokio::spawn(async move { drop(arbiter.serve(std::future::pending()).await) });
        let volume = VolumeId(Uuid::new_v4().as_u128());
        let disks: Vec<_> = (0..count).map(|number| (place(number), DiskId(Uuid::new_v4().as_u128()))).collect();
        let record = Record::of_new_volume(disks.iter().copied());
        ensure!(matches!(register.create(volume, &record).await, Outcome::Done), "the arbiter takes the volume");
        let (peers, nbd) = (free_addresses("127.0.0.1", count)?, free_addresses(host, count)?);
        let nodes = (0..count).map(|_| None).collect();
        let mut house = Self { folder, volume, peers, nbd, nodes, register, arbiter, credentials };
        for (number, (_, disk)) in disks.iter().enumerate() {
            std::fs::create_dir(house.pool(number))?;
            house.begin(number).await?;
            house.node(number).create(&house.config(number), *disk, &record)?;
            house.node(number).open(house.config(number)).await?;
        }
        house.node(0).order(volume, Order::Promote).await.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        Ok(house)
    }

    fn pool(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("node-{number}"))
    }

    fn config(&self, number: usize) -> VolumeConfig {
        let others = (0..self.peers.len()).filter(|other| *other != number);
        let peer = |other: usize| {
            let name = format!("node-{other}").parse().expect("it is a name");
            (place(other), Peer { name, address: self.peers[other], iscsi: None })
        };
        VolumeConfig {
            volume: self.volume,
            me: place(number),
            size_blocks: SIZE_BLOCKS,
            pool: self.pool(number),
            settings: Settings::of(self.volume, place(number)),
            peers: others.map(peer).collect::<HashMap<_, _>>(),
        }
    }

    async fn begin(&mut self, number: usize) -> Result<()> {
        self.begin_shut(number).await?;
        self.node(number).let_in();
        Ok(())
    }

    /// Its doors are shut still.
    async fn begin_shut(&mut self, number: usize) -> Result<()> {
        let config = NodeConfig {
            peers: self.peers[number],
            nbd: self.nbd[number],
            iscsi: None,
            engine: Options::default(),
            credentials: self.credentials.clone(),
            boot: boot_id(Path::new("/proc/sys/kernel/random/boot_id"))?,
        };
        self.nodes[number] = Some(Node::begin(config, self.register.clone()).await?);
        Ok(())
    }

    /// As after a crash of the process; then it is there again.
    async fn kill_and_start(&mut self, number: usize) -> Result<()> {
        self.kill_and_start_shut(number).await?;
        self.node(number).let_in();
        Ok(())
    }

    async fn kill_and_start_shut(&mut self, number: usize) -> Result<()> {
        self.nodes[number] = None;
        let deadline = Instant::now() + PATIENCE;
        while self.begin_shut(number).await.is_err() {
            ensure!(Instant::now() < deadline, "its addresses are never free");
            sleep(Duration::from_millis(20)).await;
        }
        loop {
            match self.node(number).open(self.config(number)).await {
                // What the last life had in flight keeps the files locked.
                Err(VolumeError::File(_)) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                outcome => return Ok(outcome?),
            }
        }
    }

    fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("it runs")
    }

    fn uri(&self, number: usize) -> String {
        format!("nbd://{}/{}", self.nbd[number], self.volume)
    }

    fn data(&self, number: usize) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.pool(number).join(format!("{}.data", self.volume)))?)
    }

    async fn control(&self, change: Change) -> Result<()> {
        let outcome = self.node(0).order(self.volume, Order::Control(change)).await;
        outcome.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
    }

    async fn attach(&self, read_only: bool) -> Result<Uuid> {
        let id = Uuid::new_v4();
        let (host, initiator) = ("cmp1".to_owned(), String::new());
        let attachment = Attachment {
            client: 0,
            id: id.as_u128(),
            host,
            initiator,
            read_only,
            chap: None,
            epoch: 0,
            revoked: false,
        };
        self.control(Change::Attach(attachment)).await?;
        Ok(id)
    }

    async fn until_primary(&self, number: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.node(number).look(self.volume).await.context("it has the volume")?.status;
            if status.role == Role::Primary && status.serving {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "node {number} is never Primary: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.arbiter.abort();
    }
}

/// Whether a client succeeds within a minute, and what it says. Debian's own Python has libnbd's module, whatever other Python the PATH knows.
async fn client(program: &str, args: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program).args(args).env("PATH", "/usr/bin:/bin");
    let output = spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(124) => anyhow::bail!("{program} {args:?} took more than a minute: {said}"),
        Some(127) => anyhow::bail!("there is no {program}: install libnbd-bin, python3-libnbd and qemu-utils"),
        code => Ok((code == Some(0), said)),
    }
}

async fn run(program: &str, args: &[&str]) -> Result<String> {
    let (is_done, said) = client(program, args).await?;
    ensure!(is_done, "{program} {args:?} failed: {said}");
    Ok(said)
}

async fn fails(program: &str, args: &[&str]) -> Result<String> {
    let (is_done, said) = client(program, args).await?;
    ensure!(!is_done, "{program} {args:?} did not fail: {said}");
    Ok(said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

/// An image of the volume's size that is no two blocks alike.
fn image(folder: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; usize::try_from(SIZE_BLOCKS)? * 4096];
    bytes.chunks_mut(1 << 20).step_by(2).for_each(|chunk| random.fill(chunk));
    let path = folder.join("image");
    std::fs::write(&path, &bytes)?;
    Ok((path, bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_copied_to_a_volume_and_back() -> Result<()> {
    let house = House::of(2).await?;
    let (image, bytes) = image(house.folder.path())?;
    let (uri, back) = (house.uri(0), house.folder.path().join("back"));
    let said = run("nbdinfo", &["--json", &uri]).await?;
    ensure!(said.contains(r#""export-size": 67108864"#) && said.contains(r#""can_multi_conn": true"#), "{said}");
    run("nbdcopy", &["--flush", "--connections=4", text(&image), &uri]).await?;
    for number in 0..2 {
        ensure!(house.data(number)? == bytes, "node {number} has other bytes");
    }
    run("nbdcopy", &[&uri, text(&back)]).await?;
    ensure!(std::fs::read(&back)? == bytes, "other bytes come back");
    let compared = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), &uri]).await?;
    ensure!(compared.contains("identical"), "{compared}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_io_writes_zeroes_discards_flushes_and_reads_it_back() -> Result<()> {
    let house = House::of(2).await?;
    let commands = [
        "write -P 1 0 1M",
        "write -f -P 2 64k 4k",
        "write -P 3 12345 777",
        "write -z -u 256k 64k",
        "write -z 384k 64k",
        "write -z -f 448k 4k",
        "write -z 600001 3",
        "discard 512k 64k",
        "flush",
        "aio_write -P 4 1M 64k",
        "aio_write -P 5 2M 3M",
        "aio_write -z 6M 9M",
        "aio_flush",
        "aio_read -P 4 1M 64k",
        "aio_read -P 5 2M 3M",
        "aio_flush",
        "read -P 2 64k 4k",
        "read -P 3 12345 777",
        "read -P 0 256k 64k",
        "read -P 0 384k 64k",
        "read -P 0 512k 64k",
        "read -P 0 600001 3",
        "read -P 1 600004 400k",
        "read -P 0 6M 9M",
    ];
    let uri = house.uri(0);
    let mut args = vec!["-f", "raw", "-d", "unmap", &uri];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    let said = run("qemu-io", &args).await?;
    ensure!(!said.contains("failed") && !said.contains("fail:"), "{said}");
    ensure!(house.data(0)? == house.data(1)?, "the replicas differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_why_they_do_not_get_a_volume() -> Result<()> {
    let house = House::of(2).await?;
    let said = fails("qemu-img", &["info", &house.uri(1)]).await?;
    ensure!(said.contains("is Secondary here; its Primary is node-0"), "{said}");
    let nobody = format!("nbd://{}/{}", house.nbd[0], Uuid::new_v4());
    let said = fails("qemu-img", &["info", &nobody]).await?;
    ensure!(said.contains("there is no volume"), "{said}");
    let said = fails("qemu-img", &["info", &format!("{}/{}", house.uri(0), Uuid::new_v4())]).await?;
    ensure!(said.contains("the volume has no attachment"), "{said}");
    let said = run("nbdinfo", &["--list", "--json", &format!("nbd://{}", house.nbd[0])]).await?;
    ensure!(said.contains(&house.volume.to_string()), "{said}");
    house.node(0).order(house.volume, Order::Demote).await.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    let said = fails("qemu-img", &["info", &house.uri(0)]).await?;
    ensure!(said.contains("nobody is Primary"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_does_what_it_may_until_it_is_revoked() -> Result<()> {
    let house = House::of(2).await?;
    let (writer, reader) = (house.attach(false).await?, house.attach(true).await?);
    let uri = |id: Uuid| format!("{}/{id}", house.uri(0));
    run("qemu-io", &["-f", "raw", &uri(writer), "-c", "write -P 7 0 64k"]).await?;
    run("qemu-io", &["-f", "raw", "-r", &uri(reader), "-c", "read -P 7 0 64k"]).await?;
    let said = run("nbdinfo", &["--json", &uri(reader)]).await?;
    ensure!(said.contains(r#""is_read_only": true"#), "{said}");
    let (address, export) = (house.nbd[0], format!("{}/{writer}", house.volume));
    let open = spawn_blocking(move || Nbd::connect(address, &export)).await??;
    house.control(Change::Revoke { id: writer.as_u128() }).await?;
    let written = spawn_blocking(move || {
        let mut open = open;
        open.write(0, &[1; 4096])
    });
    let error = written.await?.err().context("a revoked attachment writes")?;
    ensure!(error.to_string().contains("error 1"), "it is not permitted: {error}");
    let said = fails("qemu-img", &["info", &uri(writer)]).await?;
    ensure!(said.contains("was revoked"), "{said}");
    run("qemu-io", &["-f", "raw", "-r", &uri(reader), "-c", "read -P 7 0 64k"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_during_a_takeover_waits_for_it() -> Result<()> {
    let mut house = House::of(2).await?;
    run("qemu-io", &["-f", "raw", &house.uri(0), "-c", "write -P 9 0 64k"]).await?;
    house.nodes[0] = None;
    let begun = Instant::now();
    run("qemu-io", &["-f", "raw", &house.uri(1), "-c", "read -P 9 0 64k"]).await?;
    ensure!(begun.elapsed() < Duration::from_secs(6), "it was refused, and came again: {:?}", begun.elapsed());
    house.until_primary(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_leave_gets_the_answers_that_it_waits_for() -> Result<()> {
    let house = House::of(2).await?;
    let (address, export) = (house.nbd[0], house.volume.to_string());
    spawn_blocking(move || {
        let (mut stream, _) = dial(address, &export, PATIENCE)?;
        let request = |kind: u16, cookie: u64, length: u32| {
            let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
            bytes.extend([0, 0]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(cookie.to_be_bytes());
            bytes.extend((cookie * 4096).to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes
        };
        let mut all = Vec::new();
        for cookie in 0..64 {
            all.extend(request(1, cookie, 4096));
            all.extend([u8::try_from(cookie)?; 4096]);
        }
        all.extend(request(2, 0, 0));
        stream.write_all(&all)?;
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers)?;
        ensure!(answers.len() == 64 * 16, "{} bytes of answers", answers.len());
        ensure!(answers.chunks(16).all(|answer| answer[4..8] == [0; 4]), "one of them failed");
        Ok(())
    })
    .await?
}

/// A qemu-io that is asked one thing after another.
struct QemuIo {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl QemuIo {
    fn start(address: SocketAddr, export: &str) -> Result<Self> {
        let (host, port) = (address.ip(), address.port());
        let options = format!("driver=nbd,host={host},port={port},export={export},reconnect-delay=30");
        let mut command = Command::new("/usr/bin/qemu-io");
        command.args(["--image-opts", &options]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("install qemu-utils")?;
        let (to, from) = (child.stdin.take().context("piped")?, child.stdout.take().context("piped")?);
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    /// The first line of its answer.
    fn ask(&mut self, what: &str) -> Result<String> {
        writeln!(self.to, "{what}")?;
        self.to.flush()?;
        let mut line = String::new();
        while !["wrote", "read", "failed"].iter().any(|word| line.contains(word)) {
            line.clear();
            ensure!(self.from.read_line(&mut line)? > 0, "qemu-io has ended");
        }
        Ok(line)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reconnects_goes_on_after_a_crash_of_the_only_node() -> Result<()> {
    let mut house = House::of(1).await?;
    let mut qemu = QemuIo::start(house.nbd[0], &house.volume.to_string())?;
    let said = qemu.ask("write -P 1 0 4k")?;
    ensure!(said.contains("wrote 4096"), "{said}");
    house.kill_and_start(0).await?;
    let said = spawn_blocking(move || {
        let mut said = qemu.ask("write -P 2 4k 4k")?;
        said += &qemu.ask("read -P 1 0 4k")?;
        anyhow::Ok(said + &qemu.ask("read -P 2 4k 4k")?)
    })
    .await??;
    ensure!(said.contains("wrote 4096") && said.matches("read 4096").count() == 2, "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reconnects_goes_on_when_the_node_is_promoted_again() -> Result<()> {
    let house = House::of(2).await?;
    let mut qemu = QemuIo::start(house.nbd[0], &house.volume.to_string())?;
    let said = qemu.ask("write -P 1 0 4k")?;
    ensure!(said.contains("wrote 4096"), "{said}");
    for order in [Order::HandOver(place(1)), Order::Promote] {
        if order == Order::Promote {
            house.until_primary(1).await?;
            house
                .node(1)
                .order(house.volume, Order::HandOver(place(0)))
                .await
                .map_err(|why| anyhow::anyhow!("{why:?}"))?;
            house.until_primary(0).await?;
        } else {
            house.node(0).order(house.volume, order).await.map_err(|why| anyhow::anyhow!("{why:?}"))?;
        }
    }
    let said =
        spawn_blocking(move || Ok::<_, anyhow::Error>(qemu.ask("write -P 2 4k 4k")? + &qemu.ask("read -P 1 0 4k")?))
            .await??;
    ensure!(said.contains("wrote 4096") && said.contains("read 4096"), "{said}");
    Ok(())
}

/// Credentials of `kind` in a folder of their own, also by the names that NBD clients look for.
fn certificate(folder: &Path, name: &str, kind: Kind, authority: &Authority) -> Result<(PathBuf, Arc<Credentials>)> {
    let folder = folder.join(format!("tls-{name}"));
    std::fs::create_dir_all(&folder)?;
    let identity = Identity::new(kind, name.parse()?);
    let addresses = vec!["127.0.0.1".parse::<Address>()?, "localhost".parse()?];
    let written = authority.write(&Request::for_days(identity, addresses, 2, Utc::now()), &folder, false)?;
    for (from, to) in [(&written.cert, "client-cert.pem"), (&written.key, "client-key.pem")] {
        std::fs::copy(from, folder.join(to))?;
    }
    let ca = folder.join("ca.crt");
    std::fs::copy(&ca, folder.join("ca-cert.pem"))?;
    Ok((folder, Credentials::load(Paths { ca, cert: written.cert, key: written.key })?))
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_a_client_needs_a_certificate_that_opens_exports() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().to_owned();
    let (authority, _) = Authority::generate(3, Utc::now())?;
    let (others, _) = Authority::generate(3, Utc::now())?;
    let (_, credentials) = certificate(&path, "node-0", Kind::Node, &authority)?;
    let (good, _) = certificate(&path, "cinder-1", Kind::Cinder, &authority)?;
    let (not_allowed, _) = certificate(&path, "ha-1", Kind::Ha, &authority)?;
    let (stranger, _) = certificate(&path, "cinder-2", Kind::Cinder, &others)?;
    std::fs::copy(good.join("ca-cert.pem"), stranger.join("ca-cert.pem"))?; // it trusts us, and we do not trust it
    let house = House::with(folder, 1, "0.0.0.0", Some(credentials)).await?;
    let port = house.nbd[0].port();
    let plain = format!("nbd://127.0.0.1:{port}/{}", house.volume);
    let with = |certificates: &Path| {
        format!("nbds://127.0.0.1:{port}/{}?tls-certificates={}", house.volume, certificates.display())
    };
    let said = fails("nbdinfo", &[&plain]).await?;
    ensure!(said.contains("TLS"), "{said}");
    fails("nbdinfo", &[&with(&not_allowed)]).await?;
    fails("nbdinfo", &[&with(&stranger)]).await?;
    let uri = with(&good);
    let said = run("nbdinfo", &["--json", &uri]).await?;
    ensure!(said.contains(r#""TLS": true"#), "{said}");
    let (image, bytes) = image(house.folder.path())?;
    let back = house.folder.path().join("back");
    run("nbdcopy", &["--flush", "--connections=4", text(&image), &uri]).await?;
    ensure!(house.data(0)? == bytes, "other bytes arrive");
    run("nbdcopy", &[&uri, text(&back)]).await?;
    ensure!(std::fs::read(&back)? == bytes, "other bytes come back");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_opens_its_own_attachments_and_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().to_owned();
    let (authority, _) = Authority::generate(3, Utc::now())?;
    let (_, credentials) = certificate(&path, "node-0", Kind::Node, &authority)?;
    let (own, _) = certificate(&path, "cmp1", Kind::Node, &authority)?;
    let (another, _) = certificate(&path, "cmp2", Kind::Node, &authority)?;
    let house = House::with(folder, 1, "0.0.0.0", Some(credentials)).await?;
    let attachment = house.attach(false).await?; // of cmp1
    let (port, volume) = (house.nbd[0].port(), house.volume);
    let uri = |export: &str, certificates: &Path| {
        format!("nbds://127.0.0.1:{port}/{volume}{export}?tls-certificates={}", certificates.display())
    };
    let attached = format!("/{attachment}");
    run("nbdinfo", &[&uri(&attached, &own)]).await?;
    for refused in [uri(&attached, &another), uri("", &own)] {
        let said = fails("nbdinfo", &[&refused]).await?;
        ensure!(said.contains("server replied with error to opt_go request: Operation not supported"), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_clients_speak_tls_as_they_like() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (authority, _) = Authority::generate(3, Utc::now())?;
    let (_, credentials) = certificate(folder.path(), "node-0", Kind::Node, &authority)?;
    let (certificates, _) = certificate(folder.path(), "alice", Kind::Admin, &authority)?;
    let house = House::with(folder, 1, "127.0.0.1", Some(credentials)).await?;
    let tls = house.uri(0).replace("nbd://", "nbds://") + "?tls-certificates=" + text(&certificates);
    ensure!(run("nbdinfo", &["--json", &house.uri(0)]).await?.contains(r#""TLS": false"#), "plain");
    ensure!(run("nbdinfo", &["--json", &tls]).await?.contains(r#""TLS": true"#), "TLS");
    let qemu = |what: &'static str| {
        let object = format!("tls-creds-x509,id=tls,dir={},endpoint=client", certificates.display());
        let address = format!("server.type=inet,server.host=127.0.0.1,server.port={}", house.nbd[0].port());
        let options = format!("driver=nbd,{address},export={},tls-creds=tls", house.volume);
        async move { run("qemu-io", &["--object", &object, "--image-opts", &options, "-c", what]).await }
    };
    qemu("write -P 5 1M 3M").await?;
    let said = qemu("read -P 5 1M 3M").await?;
    ensure!(said.contains("read 3145728"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_before_the_doors_open_waits() -> Result<()> {
    let mut house = House::of(1).await?;
    house.kill_and_start_shut(0).await?;
    let mut early = TcpStream::connect(house.nbd[0])?;
    early.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut greeting = [0; 8];
    ensure!(early.read_exact(&mut greeting).is_err(), "nobody greets it");
    house.node(0).let_in();
    early.set_read_timeout(Some(PATIENCE))?;
    early.read_exact(&mut greeting)?;
    ensure!(&greeting == b"NBDMAGIC", "{greeting:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_disturbs_nobody() -> Result<()> {
    let house = House::of(1).await?;
    let (address, export) = (house.nbd[0], house.volume.to_string());
    spawn_blocking(move || {
        let mut random = fastrand::Rng::with_seed(11);
        for round in 0..40 {
            let mut garbage = vec![0; random.usize(1..5000)];
            random.fill(&mut garbage);
            let mut stream = TcpStream::connect(address)?;
            if round % 2 == 1 {
                stream = dial(address, &export, PATIENCE)?.0;
            }
            stream.set_read_timeout(Some(PATIENCE))?;
            // The server may hang up in the midst of it.
            let _ = stream.write_all(&garbage).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
            let ended = stream.read_to_end(&mut Vec::new());
            let is_reset = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            ensure!(ended.is_ok() || is_reset, "it does not hang up: {ended:?}");
        }
        let mut nbd = Nbd::connect(address, &export)?;
        nbd.write(0, &[1; 4096])?;
        ensure!(nbd.read(0, 4096)? == [1; 4096], "it serves as before");
        Ok(())
    })
    .await?
}
