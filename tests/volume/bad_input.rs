//! What must not be believed: files that were swapped or are old, metadata of another volume, an arbiter from yesterday, and garbage at every port.
//! What each of them alone is told is tested where it is read; here it is real nodes that go on, and volumes whose bytes are looked at.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::house::{ARBITER, House, NODES, Programs};
use system_tests::nbd::Nbd;
use tempfile::TempDir;

const BYTES: usize = 8 << 20;

/// Volumes on cmp1 and cmp2, with cmp1 as their Primary.
struct World {
    house: House,
    folder: TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let programs = Programs {
            node: env!("CARGO_BIN_EXE_tandem-node-under-test").into(),
            tandem: env!("CARGO_BIN_EXE_tandem-under-test").into(),
        };
        Ok(Self { house: House::create(folder.path(), programs)?, folder })
    }

    /// Its uuid.
    fn volume(&self, name: &str, seed: u8) -> Result<String> {
        self.house.done(&["volume", "create", name, "--size", "8M", "--on", "cmp1,cmp2", "--promote", "cmp1"])?;
        let uuid = self.house.volume(name)?["uuid"].as_str().context("uuid")?.to_owned();
        self.write(&uuid, seed)?;
        Ok(uuid)
    }

    fn write(&self, uuid: &str, seed: u8) -> Result<()> {
        let mut client = Nbd::connect(self.house.socket("cmp1", 10809)?, uuid)?;
        client.write(0, &bytes(seed))?;
        client.flush()
    }

    /// What clients read, and what lies on both nodes.
    fn is(&self, name: &str, seed: u8) -> Result<()> {
        let volume = self.house.until_whole(name)?;
        let uuid = volume["uuid"].as_str().context("uuid")?;
        let primary = volume["primary"].as_str().context("primary")?;
        let mut client = Nbd::connect(self.house.socket(primary, 10809)?, uuid)?;
        ensure!(client.read(0, BYTES)? == bytes(seed), "clients of {name} read other bytes");
        for node in ["cmp1", "cmp2"] {
            ensure!(fs::read(self.house.data_file(node, uuid))? == bytes(seed), "{node} has other bytes of {name}");
        }
        Ok(())
    }

    fn until_the_arbiter_answers(&self) -> Result<()> {
        let reached = || Ok(self.house.json(&["arbiter", "status", "--json"])?["reached"] == true);
        self.house.until("the arbiter answers", reached)
    }

    fn until_why(&self, name: &str, words: &str) -> Result<()> {
        self.house.until(&format!("{name} says {words:?} and goes on"), || {
            let seen = self.house.volume(name)?;
            let why = seen["why"].as_str().unwrap_or_default();
            ensure!(why.contains(words), "it serves: {}, and says: {why}", seen["serving"]);
            Ok(seen["serving"] == true)
        })
    }
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    fastrand::Rng::with_seed(u64::from(seed)).fill(&mut bytes);
    bytes
}

fn old(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().display();
    file.with_file_name(format!("{name}.old"))
}

fn metadata(house: &House, node: &str, uuid: &str) -> PathBuf {
    house.pool(node).join(format!("{uuid}.meta"))
}

fn swap(one: &Path, other: &Path) -> Result<()> {
    let kept = one.with_extension("kept");
    fs::rename(one, &kept)?;
    fs::rename(other, one)?;
    Ok(fs::rename(&kept, other)?)
}

#[test]
fn metadata_of_another_volume_fails_one_replica_and_a_resync_mends_it() -> Result<()> {
    let mut world = World::new()?;
    let (one, other) = (world.volume("db-1", 1)?, world.volume("db-2", 2)?);
    world.house.kill("cmp2")?;
    swap(&metadata(&world.house, "cmp2", &one), &metadata(&world.house, "cmp2", &other))?;
    world.house.start("cmp2")?;
    for name in ["db-1", "db-2"] {
        world.until_why(name, "cmp2: ")?;
        let why = world.house.volume(name)?["why"].to_string();
        ensure!(why.contains(&one) && why.contains(&other), "both volumes are named: {why}");
        world.house.done(&["volume", "resync", name, "--node", "cmp2", "--wait"])?;
    }
    world.is("db-1", 1)?;
    world.is("db-2", 2)?;
    world.house.all_live()
}

#[test]
fn data_of_another_volume_or_of_nobody_fails_one_replica_and_a_resync_mends_it() -> Result<()> {
    let mut world = World::new()?;
    let (one, other, bare) = (world.volume("db-1", 1)?, world.volume("db-2", 2)?, world.volume("db-3", 3)?);
    world.house.kill("cmp2")?;
    swap(&world.house.data_file("cmp2", &one), &world.house.data_file("cmp2", &other))?;
    let data = world.house.data_file("cmp2", &bare);
    fs::copy(&data, old(&data))?; // the bytes alone
    fs::rename(old(&data), &data)?;
    world.house.start("cmp2")?;
    for (name, words) in [("db-1", other.as_str()), ("db-2", one.as_str()), ("db-3", "has no mark")] {
        world.until_why(name, "cmp2: ")?;
        let why = world.house.volume(name)?["why"].to_string();
        ensure!(why.contains(words) && why.contains("tandem volume resync"), "{name}: {why}");
        world.house.done(&["volume", "resync", name, "--node", "cmp2", "--wait"])?;
    }
    for (name, seed) in [("db-1", 1), ("db-2", 2), ("db-3", 3)] {
        world.is(name, seed)?;
    }
    world.house.all_live()
}

#[test]
fn a_replica_restored_from_an_old_copy_is_copied_anew_before_it_counts() -> Result<()> {
    let mut world = World::new()?;
    let uuid = world.volume("db-1", 1)?;
    world.house.kill("cmp2")?;
    let files = [world.house.data_file("cmp2", &uuid), metadata(&world.house, "cmp2", &uuid)];
    for file in &files {
        let copied = Command::new("cp").arg("-a").args([file, &old(file)]).status()?;
        ensure!(copied.success(), "cp says {copied}");
    }
    world.house.start("cmp2")?;
    world.house.until_whole("db-1")?;
    world.write(&uuid, 3)?;
    world.is("db-1", 3)?;
    world.house.kill("cmp2")?;
    for file in &files {
        fs::rename(old(file), file)?;
    }
    world.house.start("cmp2")?;
    world.is("db-1", 3)
}

#[test]
fn an_arbiter_restored_from_an_old_copy_holds_the_volume_until_the_right_store_is_back() -> Result<()> {
    let mut world = World::new()?;
    world.volume("db-1", 1)?;
    let (store, yesterday) = (world.house.arbiter_store(), world.folder.path().join("yesterday"));
    let today = world.folder.path().join("today");
    world.house.kill(ARBITER)?;
    copy(&store, &yesterday)?;
    world.house.start(ARBITER)?;
    world.until_the_arbiter_answers()?;
    world.house.done(&["volume", "promote", "db-1", "--node", "cmp2"])?;
    world.house.done(&["volume", "promote", "db-1", "--node", "cmp1"])?;
    world.house.until_whole("db-1")?;
    world.house.kill(ARBITER)?;
    fs::rename(&store, &today)?;
    fs::rename(&yesterday, &store)?;
    world.house.start(ARBITER)?;
    world.is("db-1", 1)?; // the Primary serves, and asks the arbiter nothing
    world.until_the_arbiter_answers()?;
    let said = world.house.tandem(&["volume", "promote", "db-1", "--node", "cmp2"])?;
    ensure!(said.code == Some(5) && said.err.contains("tandem arbiter rebuild"), "a promotion by hand: {said:?}");
    world.is("db-1", 1)?; // it was not even begun
    world.house.kill("cmp1")?;
    world.house.until("it is said why nobody takes over, and what to do", || {
        let seen = world.house.volume("db-1")?;
        let why = seen["why"].as_str().unwrap_or_default();
        Ok(seen["serving"] == false && why.contains("held: the arbiter is at generation") && why.contains("rebuild"))
    })?;
    world.house.kill(ARBITER)?;
    fs::rename(&store, &yesterday)?;
    fs::rename(&today, &store)?;
    world.house.start(ARBITER)?;
    world.house.until("it goes on where it was", || {
        world.house.tandem(&["volume", "promote", "db-1", "--node", "cmp2", "--wait", "2"])?;
        Ok(world.house.volume("db-1")?["serving"] == true)
    })?;
    world.house.start("cmp1")?;
    world.is("db-1", 1)?;
    world.house.all_live()
}

#[test]
fn a_wiped_arbiter_is_rebuilt_from_what_the_replicas_remember() -> Result<()> {
    let mut world = World::new()?;
    world.volume("db-1", 1)?;
    let (store, away) = (world.house.arbiter_store(), world.folder.path().join("away"));
    world.house.kill(ARBITER)?;
    fs::rename(&store, &away)?;
    fs::create_dir(&store)?;
    world.house.start(ARBITER)?;
    let records = || Ok(world.house.json(&["arbiter", "status", "--json"])?["records"] == 0);
    world.house.until("the new arbiter answers, and knows nothing", records)?;
    world.is("db-1", 1)?; // the Primary serves, and asks the arbiter nothing
    let said = world.house.done(&["arbiter", "rebuild", "--yes"])?;
    ensure!(said.contains("db-1: made anew"), "{said}");
    world.house.done(&["volume", "promote", "db-1", "--node", "cmp2"])?;
    world.house.until_whole("db-1")?;
    world.is("db-1", 1)?;
    world.house.all_live()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Whole nonsense; the beginning of what is right, then nonsense; the beginning alone, a byte at a time.
fn garbage() -> Vec<Vec<u8>> {
    let mut random = vec![0; 64 << 10];
    fastrand::Rng::with_seed(9).fill(&mut random);
    let begun: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // a ClientHello of TLS
        b"GET /v1/volumes HTTP/1.1\r\nHost: a\r\n",
        b"POST /v1/volumes HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n{",
        b"\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff", // NBD_OPT_GO, of 4 GiB
    ];
    [random.clone()].into_iter().chain(begun.iter().map(|begun| [begun, &random[..]].concat())).collect()
}

/// Whoever is turned away in the middle of what he says may find the connection gone: what he hears does not matter.
fn talk(mut stream: impl Read + Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
    let mut said = [0; 4096];
    for _ in 0..16 {
        match stream.read(&mut said) {
            Ok(1..) => {}
            Ok(0) | Err(_) => break,
        }
    }
}

#[test]
fn garbage_at_every_port_leaves_the_daemons_serving() -> Result<()> {
    let mut world = World::new()?;
    let uuid = world.volume("db-1", 1)?;
    let mut client = Nbd::connect(world.house.socket("cmp1", 10809)?, &uuid)?;
    let ports = [("cmp1", 15870), ("cmp1", 15871), ("cmp1", 10809), ("cmp2", 15871), (ARBITER, 15872)];
    let mut drips = Vec::new();
    for (name, port) in ports {
        for _ in 0..50 {
            // Held to the end, with a first byte and no second.
            let mut drip = TcpStream::connect(world.house.socket(name, port)?)?;
            drip.write_all(&[0x16])?;
            drips.push(drip);
        }
        for bytes in garbage() {
            let stream = TcpStream::connect(world.house.socket(name, port)?)?;
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            stream.set_write_timeout(Some(Duration::from_millis(200)))?;
            talk(stream, &bytes);
        }
        client.write(0, &bytes(4)[..4096]).with_context(|| format!("after garbage at {name}:{port}"))?;
    }
    for bytes in garbage() {
        let stream = UnixStream::connect(world.house.control_socket("cmp1"))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.set_write_timeout(Some(Duration::from_millis(200)))?;
        talk(stream, &bytes);
    }
    for drip in &mut drips {
        let _ = drip.write_all(&[0x03]); // refused ones are gone
    }
    client.write(0, &bytes(1)[..4096])?;
    world.house.done(&["volume", "promote", "db-1", "--node", "cmp2"])?; // peers and the arbiter do their work
    world.house.done(&["volume", "promote", "db-1", "--node", "cmp1"])?;
    world.is("db-1", 1)?;
    let nodes = world.house.json(&["node", "list", "--json"])?;
    let reached =
        nodes["nodes"].as_array().context("nodes")?.iter().filter(|node| node["reached"] == Value::Bool(true));
    ensure!(reached.count() == NODES.len(), "{nodes}");
    world.house.all_live()
}
