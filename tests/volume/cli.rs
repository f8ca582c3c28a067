//! What a newcomer types, in the order of docs/volumes.md: real processes, TLS among them, a volume that outlives the death of its Primary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::house::{House, NODES, Programs};
use system_tests::nbd::Nbd;

const SIZE_BYTES: u64 = 64 << 20;
const PIECE_BYTES: usize = 1 << 20;

fn house(folder: &Path) -> Result<House> {
    let programs = Programs {
        node: env!("CARGO_BIN_EXE_tandem-node-under-test").into(),
        tandem: env!("CARGO_BIN_EXE_tandem-under-test").into(),
    };
    House::create(folder, programs)
}

/// The volume as it must be, and where clients find it.
struct Story {
    house: House,
    uuid: String,
    id: String,
    bytes: Vec<u8>,
}

impl Story {
    fn export(&self) -> String {
        format!("{}/{}", self.uuid, self.id)
    }

    fn client(&self, node: &str) -> Result<Nbd> {
        Nbd::connect(self.house.socket(node, 10809)?, &self.export())
    }

    /// Writes a piece through this node, flushed, and reads all that was written before.
    fn use_it(&mut self, node: &str, piece: usize) -> Result<()> {
        let mut client = self.client(node)?;
        ensure!(client.size_bytes == SIZE_BYTES, "an export of {} bytes", client.size_bytes);
        let start = piece * PIECE_BYTES;
        let mut random = fastrand::Rng::with_seed(u64::try_from(piece)?);
        let range = start..start + PIECE_BYTES;
        random.fill(&mut self.bytes[range.clone()]);
        client.write(u64::try_from(start)?, &self.bytes[range])?;
        client.flush()?;
        for (number, wanted) in self.bytes.chunks(PIECE_BYTES).enumerate().take(piece + 1) {
            let read = client.read(u64::try_from(number * PIECE_BYTES)?, PIECE_BYTES)?;
            ensure!(read == wanted, "{node} reads other bytes in MiB {number} than were written");
        }
        Ok(())
    }

    fn done(&self, words: &[&str]) -> Result<String> {
        self.house.done(words)
    }

    fn refused(&self, words: &[&str], code: i32, reason: &str) -> Result<()> {
        let said = self.house.refused(words, code)?;
        ensure!(said.contains(reason), "tandem {words:?} was to say {reason:?}: {said}");
        Ok(())
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

/// `tandem events` into a file, for as long as it is kept.
struct Listener {
    child: Child,
    file: PathBuf,
}

impl Listener {
    fn begin(house: &House, file: PathBuf) -> Result<Self> {
        let mut command = house.command(&["events", "--json"]);
        let child = command.stdin(Stdio::null()).stdout(File::create(&file)?).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, file })
    }

    fn heard(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.file)?)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn a_newcomer_types_the_operators_guide_from_its_top_to_its_end() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut story = a_volume_is_made_and_used(house(folder.path())?)?;
    what_is_in_use_is_not_deleted(&story)?;
    the_role_moves(&mut story)?;
    let listener = Listener::begin(&story.house, folder.path().join("events"))?;
    let survivor = the_primary_dies(&mut story)?;
    it_comes_back(&mut story, &survivor, &listener)?;
    a_replica_is_copied_anew(&mut story, &survivor)?;
    a_host_is_shut_out(&story, &survivor)?;
    an_attachment_is_revoked(&story, &survivor)?;
    every_replica_is_the_image(&story, folder.path())?;
    it_is_deleted(&mut story)
}

fn a_volume_is_made_and_used(house: House) -> Result<Story> {
    let nodes = house.done(&["node", "list"])?;
    ensure!(NODES.iter().all(|name| nodes.contains(name)), "{nodes}");
    ensure!(house.done(&["pool", "list"])?.contains("default"), "the pools are listed");
    let arbiter = house.json(&["arbiter", "status", "--json"])?;
    ensure!(arbiter["reached"] == true && arbiter["records"] == 0, "{arbiter}");
    house.done(&["volume", "create", "db-1", "--size", "64M", "--on", "cmp1,cmp2,cmp3", "--promote", "cmp1"])?;
    let list = house.done(&["volume", "list"])?;
    ensure!(
        list.contains("Primary/Secondary/Secondary") && list.contains("UpToDate/UpToDate/UpToDate"),
        "in DRBD's words: {list}"
    );
    let volume = house.volume("db-1")?;
    ensure!(volume["serving"] == true && volume["size_bytes"] == SIZE_BYTES, "{volume}");
    let uuid = text(&volume, "uuid")?.to_owned();
    let export = house.done(&["volume", "attach", "db-1", "--host", "cmp1"])?;
    let words: Vec<&str> = export.split_whitespace().collect();
    let export = words.iter().find_map(|word| word.strip_prefix(&format!("{uuid}/")));
    let id = export.with_context(|| format!("attach prints UUID/ID: {words:?}"))?.to_owned();
    let bytes = vec![0; usize::try_from(SIZE_BYTES)?];
    let mut story = Story { house, uuid, id, bytes };
    story.use_it("cmp1", 0)?;
    let refused = story.client("cmp2").err().context("a Secondary serves")?;
    ensure!(format!("{refused:#}").contains("not to be had"), "{refused:#}");
    Ok(story)
}

fn what_is_in_use_is_not_deleted(story: &Story) -> Result<()> {
    let client = story.client("cmp1")?;
    story.refused(&["volume", "delete", "db-1", "--yes"], 1, "db-1")?;
    drop(client);
    story.house.until("the client is gone", || {
        let replicas = story.house.volume("db-1")?["replicas"].clone();
        Ok(replicas.as_array().context("no replicas")?.iter().all(|replica| replica["clients"] == 0))
    })?;
    story.refused(&["volume", "delete", "db-1", "--yes"], 1, "attached to cmp1")?;
    story.refused(&["volume", "delete", "db-2", "--yes"], 4, "db-2")?;
    story.refused(&["volume", "force-primary", "db-1", "--node", "cmp2", "--name", "db-1"], 1, "cmp1 is Primary")
}

fn the_role_moves(story: &mut Story) -> Result<()> {
    story.done(&["volume", "promote", "db-1", "--node", "cmp2"])?;
    let volume = story.house.until_whole("db-1")?;
    ensure!(volume["primary"] == "cmp2", "{volume}");
    story.use_it("cmp2", 1)
}

fn the_primary_dies(story: &mut Story) -> Result<String> {
    story.house.kill("cmp2")?;
    story.house.until("another node serves", || {
        let volume = story.house.volume("db-1")?;
        Ok(volume["serving"] == true && volume["primary"] != "cmp2")
    })?;
    let volume = story.house.volume("db-1")?;
    let survivor = text(&volume, "primary")?.to_owned();
    story.use_it(&survivor, 2)?;
    let list = story.done(&["volume", "list"])?;
    ensure!(list.contains("cmp2 not reached"), "what is missing is said: {list}");
    story.refused(&["volume", "delete", "db-1", "--yes"], 5, "cmp2")?;
    Ok(survivor)
}

fn it_comes_back(story: &mut Story, survivor: &str, listener: &Listener) -> Result<()> {
    story.house.start("cmp2")?;
    let volume = story.house.until_whole("db-1")?;
    ensure!(volume["primary"] == survivor, "the role stays where it is: {volume}");
    story.use_it(survivor, 3)?;
    story.house.until("the events tell of it, by its name", || {
        let heard = listener.heard()?;
        for line in heard.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            ensure!(event["volume"] == story.uuid && event["name"] == "db-1", "of another volume: {event}");
        }
        Ok(heard.contains("cmp2 is UpToDate"))
    })
}

fn a_replica_is_copied_anew(story: &mut Story, survivor: &str) -> Result<()> {
    story.refused(&["volume", "resync", "db-1", "--node", survivor], 1, "Primary")?;
    story.done(&["volume", "resync", "db-1", "--node", "cmp2", "--wait"])?;
    story.house.until_whole("db-1")?;
    story.use_it(survivor, 4)
}

fn a_host_is_shut_out(story: &Story, survivor: &str) -> Result<()> {
    let attached = story.house.json(&["volume", "attach", "db-1", "--host", "cmp7", "--json"])?;
    let export = format!("{}/{}", story.uuid, text(&attached, "id")?);
    let mut client = Nbd::connect(story.house.socket(survivor, 10809)?, &export)?;
    client.write(0, &story.bytes[..4096])?;
    story.done(&["node", "fence-host", "cmp7", "--why", "hangs, and has no BMC"])?;
    ensure!(client.write(0, &[7; 4096]).is_err(), "a fenced host writes");
    ensure!(Nbd::connect(story.house.socket(survivor, 10809)?, &export).is_err(), "a fenced host comes back");
    let fences = story.done(&["node", "fences"])?;
    ensure!(fences.contains("cmp7") && fences.contains("hangs, and has no BMC"), "{fences}");
    story.refused(&["volume", "attach", "db-1", "--host", "cmp7"], 1, "cmp7 is fenced")?;
    story.done(&["node", "unfence-host", "cmp7"])?;
    ensure!(Nbd::connect(story.house.socket(survivor, 10809)?, &export).is_err(), "what was revoked stays so");
    Ok(())
}

fn an_attachment_is_revoked(story: &Story, survivor: &str) -> Result<()> {
    let mut client = story.client(survivor)?;
    story.done(&["volume", "revoke", "db-1", &story.id])?;
    ensure!(client.write(0, &[9; 4096]).is_err(), "a revoked attachment writes");
    ensure!(story.client(survivor).is_err(), "a revoked attachment comes back");
    Ok(())
}

/// On each node's disk, and over NBD as qemu-img reads it.
fn every_replica_is_the_image(story: &Story, folder: &Path) -> Result<()> {
    let image = folder.join("image");
    fs::write(&image, &story.bytes)?;
    let wanted = sha256(&image)?;
    for node in NODES {
        let found = sha256(&story.house.data_file(node, &story.uuid))?;
        ensure!(found == wanted, "the data file of {node} is not what was written");
    }
    let volume = story.house.volume("db-1")?;
    let uri = format!("nbd://{}/{}", story.house.socket(text(&volume, "primary")?, 10809)?, story.uuid);
    let image = image.to_str().context("a plain name")?;
    let compared = output("qemu-img", &["compare", "-f", "raw", "-F", "raw", image, &uri])?;
    ensure!(compared.contains("identical"), "{compared}");
    Ok(())
}

fn it_is_deleted(story: &mut Story) -> Result<()> {
    story.done(&["volume", "delete", "db-1", "--yes"])?;
    story.refused(&["volume", "show", "db-1"], 4, "db-1")?;
    ensure!(story.house.json(&["volume", "list", "--json"])?["volumes"] == Value::Array(Vec::new()), "it is listed");
    ensure!(story.house.json(&["arbiter", "status", "--json"])?["records"] == 0, "the arbiter keeps a record");
    for node in NODES {
        for entry in fs::read_dir(story.house.pool(node))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            ensure!(!name.contains(&story.uuid), "{node} keeps {name}");
        }
    }
    story.house.all_live()
}

fn sha256(file: &Path) -> Result<String> {
    let said = output("sha256sum", &[file.to_str().context("a plain name")?])?;
    Ok(said.split_whitespace().next().context("sha256sum said nothing")?.to_owned())
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let done = Command::new("timeout").arg("60").arg(program).args(args).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {args:?} failed: {said}");
    Ok(said)
}
