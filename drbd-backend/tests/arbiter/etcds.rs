//! Real etcd servers, each on a loopback address of its own; and what is promised of etcd alone.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use replication::{Record, VolumeId};
use tandem_node::arbiter::{Etcd, EtcdSettings, Outcome, Register, record_to_json};
use tempfile::TempDir;

use super::proxy::{Mode, Proxy};
use super::{HASTY, LIMITS, World, a_volume, created, promoted, record_of, until};

#[derive(Debug)]
pub(crate) struct Etcds {
    directory: TempDir,
    /// The first three bytes of their addresses: tests run side by side.
    network: String,
    children: Vec<Option<Child>>,
}

impl Etcds {
    /// So many, once they have a leader.
    pub(crate) async fn start(count: usize) -> Result<Self> {
        let network = format!("127.{}.{}", fastrand::u8(16..240), fastrand::u8(..));
        let children = (0..count).map(|_| None).collect();
        let mut etcds = Self { directory: tempfile::tempdir()?, network, children };
        for member in 0..count {
            etcds.start_one(member)?;
        }
        etcds.until_all_answer().await?;
        Ok(etcds)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..self.children.len()).map(|member| self.address(member)).collect()
    }

    fn address(&self, member: usize) -> String {
        format!("{}.{}:2379", self.network, member + 1)
    }

    pub(crate) fn start_one(&mut self, member: usize) -> Result<()> {
        let peer = |member: usize| format!("http://{}.{}:2380", self.network, member + 1);
        let all: Vec<_> = (0..self.children.len()).map(|member| format!("m{member}={}", peer(member))).collect();
        let client = format!("http://{}", self.address(member));
        let log =
            File::options().create(true).append(true).open(self.directory.path().join(format!("m{member}.log")))?;
        let started = Command::new(etcd())
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.data(member))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-token", "the-same-each-time"])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = started.context("etcd cannot be started: `make tools`, or say in TANDEM_ETCD where it is")?;
        self.children[member] = Some(child);
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, member: usize) -> Result<()> {
        if let Some(mut child) = self.children[member].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) async fn until_all_answer(&self) -> Result<()> {
        for member in 0..self.children.len() {
            let register = self.register_at(vec![self.address(member)])?;
            let answered = until("etcd answers", async || register.read(a_volume()).await.is_ok()).await;
            answered.with_context(|| self.log(member))?;
        }
        Ok(())
    }

    /// All of them end and lose everything, and are set up anew in the same way.
    async fn wipe(&mut self) -> Result<()> {
        for member in 0..self.children.len() {
            self.kill(member)?;
            fs::remove_dir_all(self.data(member))?;
        }
        for member in 0..self.children.len() {
            self.start_one(member)?;
        }
        self.until_all_answer().await
    }

    fn register_at(&self, addresses: Vec<String>) -> Result<Etcd> {
        let endpoints = addresses.iter().map(|address| format!("http://{address}")).collect();
        Ok(Etcd::new(EtcdSettings { endpoints, prefix: "/tandem".to_owned(), tls: None, limits: LIMITS })?)
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("m{member}"))
    }

    fn log(&self, member: usize) -> String {
        let log = fs::read_to_string(self.directory.path().join(format!("m{member}.log"))).unwrap_or_default();
        log.chars().skip(log.chars().count().saturating_sub(2000)).collect()
    }

    /// As `etcdctl put` would.
    async fn put(&self, key: &str, value: &str) -> Result<serde_json::Value> {
        let body = serde_json::json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        let url = format!("http://{}/v3/kv/put", self.address(0));
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(client.post(url).json(&body).send().await?.error_for_status()?.json().await?)
    }

    async fn put_record(&self, volume: VolumeId, text: &str) -> Result<()> {
        self.put(&format!("/tandem/volumes/{volume}"), text).await.map(drop)
    }
}

impl Drop for Etcds {
    fn drop(&mut self) {
        for member in 0..self.children.len() {
            let _ = self.kill(member);
        }
    }
}

/// Proposes again and again, as a Primary does, until it knows; each proposal is another one.
async fn settled(register: &dyn Register, volume: VolumeId, record: &Record) -> Result<Record> {
    let mut tag = 1000;
    let mut result = None;
    until("a swap is settled", async || {
        tag += 1;
        let proposed = promoted(record, 0, tag);
        match register.swap(volume, record, &proposed).await {
            Outcome::Done => result = Some(proposed),
            Outcome::Refused(there) => result = Some(*there),
            Outcome::Missing | Outcome::NotDone(_) | Outcome::Unknown(_) => {}
        }
        result.is_some()
    })
    .await?;
    result.context("it was set")
}

#[tokio::test]
async fn etcd_goes_on_without_any_one_of_its_members() -> Result<()> {
    let mut etcds = Etcds::start(3).await?;
    let register = etcds.register_at(etcds.addresses())?;
    let (volume, mut record) = created(&register).await?;
    for member in 0..3 {
        etcds.kill(member)?;
        let now = settled(&register, volume, &record).await?;
        assert_eq!(now.generation, record.generation.next(), "without member {member}");
        assert_eq!(record_of(&register, volume).await?, now);
        record = now;
        etcds.start_one(member)?;
        etcds.until_all_answer().await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_a_majority_nothing_is_answered_and_nothing_is_wrong_afterwards() -> Result<()> {
    let mut etcds = Etcds::start(3).await?;
    let world = etcds.addresses();
    let (volume, record) = created(&etcds.register_at(world.clone())?).await?;
    etcds.kill(0)?;
    etcds.kill(2)?;
    let endpoints = world.iter().map(|address| format!("http://{address}")).collect();
    let hasty = Etcd::new(EtcdSettings { endpoints, prefix: "/tandem".to_owned(), tls: None, limits: HASTY })?;
    let proposals: Vec<_> = (0..3).map(|tag| promoted(&record, 0, tag)).collect();
    for proposed in &proposals {
        let outcome = hasty.swap(volume, &record, proposed).await;
        ensure!(matches!(outcome, Outcome::Unknown(_) | Outcome::NotDone(_)), "{outcome:?}");
        ensure!(hasty.read(volume).await.is_err(), "a minority must not answer");
    }
    etcds.start_one(0)?;
    etcds.start_one(2)?;
    etcds.until_all_answer().await?;
    let register = etcds.register_at(world)?;
    let now = settled(&register, volume, &record).await?;
    assert_eq!(now.generation, record.generation.next(), "one of them came true, and no more than one");
    assert_eq!(record_of(&register, volume).await?, now);
    Ok(())
}

#[tokio::test]
async fn a_swap_goes_to_the_next_member_only_if_nothing_was_sent_to_the_first() -> Result<()> {
    let world = World::etcd().await?;
    let (volume, record) = created(&*world.register()?).await?;
    let proxy = Proxy::to(world.addresses()[0].clone(), 0).await?;
    let others = world.addresses().split_off(1);
    let through = [vec![proxy.address()], others.clone()].concat();

    proxy.set(Mode::LoseAnswers);
    let first = promoted(&record, 0, 1);
    let outcome = world.register_at(&through, LIMITS)?.swap(volume, &record, &first).await;
    ensure!(matches!(outcome, Outcome::Unknown(_)), "sent twice, it would have been refused: {outcome:?}");
    assert_eq!(record_of(&*world.register()?, volume).await?, first);

    let nobody = "127.0.0.1:1".to_owned(); // tcpmux, which nothing serves
    let second = promoted(&first, 1, 2);
    let outcome = world.register_at(&[vec![nobody], others].concat(), LIMITS)?.swap(volume, &first, &second).await;
    ensure!(matches!(outcome, Outcome::Done), "{outcome:?}");
    Ok(())
}

#[tokio::test]
async fn an_etcd_that_was_wiped_has_the_same_cluster_id_and_yet_another_incarnation() -> Result<()> {
    let mut etcds = Etcds::start(3).await?;
    let register = etcds.register_at(etcds.addresses())?;
    let (volume, _) = created(&register).await?;
    let (before, _) = register.read(volume).await?;
    let cluster = etcds.put("/other", "x").await?["header"]["cluster_id"].clone();
    for member in 0..3 {
        let one = etcds.register_at(vec![etcds.addresses()[member].clone()])?;
        assert_eq!(one.read(volume).await?.0, before, "all members are one arbiter");
    }
    etcds.wipe().await?;
    let (after, record) = register.read(volume).await?;
    assert_eq!(etcds.put("/other", "x").await?["header"]["cluster_id"], cluster);
    assert_ne!(before, after);
    assert_eq!(record, None);
    Ok(())
}

#[tokio::test]
async fn a_record_in_other_bytes_is_the_same_record() -> Result<()> {
    let etcds = Etcds::start(1).await?;
    let register = etcds.register_at(etcds.addresses())?;
    let (volume, record) = created(&register).await?;
    etcds.put_record(volume, &record_to_json(&record).replace(',', " , ")).await?;
    assert_eq!(record_of(&register, volume).await?, record);
    let next = promoted(&record, 1, 1);
    let outcome = register.swap(volume, &record, &next).await;
    ensure!(matches!(outcome, Outcome::Done), "{outcome:?}");
    assert_eq!(record_of(&register, volume).await?, next);
    Ok(())
}

#[tokio::test]
async fn what_is_no_record_is_an_error_and_is_left_alone() -> Result<()> {
    let etcds = Etcds::start(1).await?;
    let register = etcds.register_at(etcds.addresses())?;
    let (volume, record) = created(&register).await?;
    let newer = record_to_json(&record).replace("\"epoch\"", "\"quorum\":2,\"epoch\"");
    for text in ["", "{}", "garbage", newer.as_str()] {
        etcds.put_record(volume, text).await?;
        ensure!(register.read(volume).await.is_err(), "{text:?} was read");
        ensure!(register.list().await.is_err(), "{text:?} was listed");
        match register.swap(volume, &record, &promoted(&record, 0, 1)).await {
            Outcome::NotDone(_) => {}
            outcome => bail!("{text:?}: {outcome:?}"),
        }
    }
    Ok(())
}

/// The one that `make tools` unpacked, without its service; or the one that TANDEM_ETCD names.
fn etcd() -> std::ffi::OsString {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/etcd/usr/bin/etcd");
    std::env::var_os("TANDEM_ETCD").unwrap_or_else(|| unpacked.into())
}
