//! What the machine goes through, one after the other.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use system_tests::house::{ARBITER, House};
use system_tests::initiators::Login;

use crate::machine::Machine;

const INITIATOR: &str = "iqn.2026-11.org.example:guest";
const HOST: &str = "guest";
const VOLUME: &str = "disk";
const FILE: &str = "/mnt/file";
const BRIEFLY: Duration = Duration::from_secs(60);
const PATIENTLY: Duration = Duration::from_secs(180);
const NODES: [&str; 2] = ["cmp1", "cmp2"];

pub(crate) struct World {
    house: House,
    machine: Machine,
    attachment: String,
    /// For os-brick: what a Cinder driver would say.
    properties: String,
    /// The multipath disk.
    disk: String,
}

impl World {
    /// A volume, the machine's initiator with Tandem's own files of configuration, and an attachment. `source`: where those files are.
    pub(crate) fn new(house: House, mut machine: Machine, source: &Path) -> Result<Self> {
        house.done(&["volume", "create", VOLUME, "--size", "256M", "--on", "cmp1,cmp2", "--promote", "cmp1"])?;
        let attachment = house.attach(VOLUME, HOST, INITIATOR)?;
        let login = Login::of(&attachment, house.socket("cmp1", 3260)?)?;
        let attachment = attachment["id"].as_str().context("an attachment has an id")?.to_owned();
        let properties = json!({
            "target_discovered": false, "target_luns": [0, 0], "target_iqns": [login.target, login.target],
            "target_portals": [house.socket("cmp1", 3260)?, house.socket("cmp2", 3260)?],
            "auth_method": "CHAP", "auth_username": login.user, "auth_password": login.secret,
        });
        for name in ["brick.py", "writer.py"] {
            machine.has_file(&format!("/root/{name}"), &fs::read(source.join("tests/guests/inside").join(name))?)?;
        }
        machine.has_file("/etc/multipath.conf", &fs::read(source.join("etc/multipath.conf"))?)?;
        machine.has_file("/etc/iscsi/iscsid.conf", &fs::read(source.join("etc/iscsid.conf"))?)?;
        machine.does(&format!("echo InitiatorName={INITIATOR} > /etc/iscsi/initiatorname.iscsi"))?;
        machine.does("iscsid && multipathd")?;
        Ok(Self { house, machine, attachment, properties: properties.to_string(), disk: String::new() })
    }

    /// os-brick connects the volume and disconnects it, and leaves nothing; then it connects it for all that follows.
    pub(crate) fn is_connected_by_os_brick(&mut self) -> Result<()> {
        self.connect()?;
        self.has_two_paths()?;
        let first = self.disk.clone();
        self.disconnect()?;
        self.connect()?;
        ensure!(self.disk == first, "the disk was {first}, and is {}", self.disk);
        println!("os-brick connects and disconnects {first}");
        self.has_two_paths()
    }

    fn connect(&mut self) -> Result<()> {
        let said = self.machine.does(&format!("python3 /root/brick.py connect '{}'", self.properties))?;
        let device: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).context(said.clone())?;
        let wwid = device["multipath_id"].as_str().with_context(|| format!("no multipath disk: {said}"))?;
        self.disk = format!("/dev/disk/by-id/dm-uuid-mpath-{wwid}");
        self.machine.until("the disk has its name", &format!("test -b {}", self.disk), BRIEFLY).map(drop)
    }

    fn disconnect(&mut self) -> Result<()> {
        self.machine.does(&format!("python3 /root/brick.py disconnect '{}'", self.properties))?;
        let left = self.machine.tries("iscsiadm -m session; multipath -ll; ls /dev/disk/by-path | grep iscsi")?.1;
        ensure!(left.contains("No active sessions") && !left.contains("TANDEM"), "something is left: {left}");
        Ok(())
    }

    /// One path serves, the other stands by, as ALUA says.
    fn has_two_paths(&mut self) -> Result<()> {
        let serves = "grep -q 'prio=50 status=active' /run/paths && grep -q 'prio=1 status=enabled' /run/paths";
        let order = format!("multipath -ll > /run/paths; cat /run/paths; {serves} && ! grep -q failed /run/paths");
        let said = self.machine.until("one path serves, one stands by", &order, BRIEFLY)?;
        ensure!(said.contains("TANDEM,VOLUME"), "{said}");
        Ok(())
    }

    /// ext4, and a writer on it.
    pub(crate) fn writes(&mut self) -> Result<()> {
        self.machine.does(&format!("mkfs.ext4 -q {0} && mount -o errors=remount-ro {0} /mnt", self.disk))?;
        self.begins_to_write()
    }

    fn begins_to_write(&mut self) -> Result<()> {
        self.machine.does("rm -f /run/writer.*; echo 0 > /run/writer.count")?;
        self.machine.does(&format!("setsid python3 /root/writer.py {FILE} > /run/writer.log 2>&1 &"))?;
        self.goes_on(BRIEFLY)
    }

    /// A hundred more writes are acknowledged.
    fn goes_on(&mut self, patience: Duration) -> Result<()> {
        let count: u64 = self.machine.does("cat /run/writer.count")?.trim().parse().unwrap_or_default();
        let order = format!(
            "test ! -e /run/writer.end || exit 1; test \"$(cat /run/writer.count)\" -ge {} || {{ cat /run/writer.*; false; }}",
            count + 100
        );
        self.machine.until("the writer goes on", &order, patience).map(drop)
    }

    /// The longest write since this was asked last, in seconds.
    fn longest_gap(&mut self) -> Result<f64> {
        let gaps = self.machine.does("cat /run/writer.gaps; : > /run/writer.gaps")?;
        let gaps: Vec<f64> = gaps.lines().map(str::parse).collect::<Result<_, _>>()?;
        Ok(gaps.into_iter().max_by(f64::total_cmp).unwrap_or_default())
    }

    fn primary(&self) -> Result<&'static str> {
        let volume = self.house.volume(VOLUME)?;
        NODES.into_iter().find(|node| volume["primary"] == *node).with_context(|| format!("no Primary: {volume}"))
    }

    /// The process of the Primary is killed; the writer goes on through the other path. Then the node comes back, and so does its path.
    pub(crate) fn loses_its_primary(&mut self) -> Result<f64> {
        self.longest_gap()?;
        let primary = self.primary()?;
        self.house.kill(primary)?;
        self.goes_on(PATIENTLY)?;
        ensure!(self.primary()? != primary, "{primary} is Primary, and was killed");
        let gap = self.longest_gap()?;
        self.house.start(primary)?;
        self.house.until_whole(VOLUME)?;
        self.has_two_paths()?;
        Ok(gap)
    }

    /// Its peer and the arbiter are away: nothing may be acknowledged, and nothing fails.
    pub(crate) fn is_frozen_for(&mut self, time: Duration) -> Result<f64> {
        self.longest_gap()?;
        let primary = self.primary()?;
        let other = NODES.into_iter().find(|node| *node != primary).context("there are two")?;
        self.house.kill(ARBITER)?;
        self.house.kill(other)?;
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            thread::park_timeout(left.min(Duration::from_secs(1)));
            ensure!(self.machine.tries("test -e /run/writer.end")?.0 != 0, "the writer has ended");
        }
        self.house.start(ARBITER)?;
        self.goes_on(PATIENTLY)?;
        let gap = self.longest_gap()?;
        ensure!(gap > time.as_secs_f64() / 2.0, "it was not frozen: the longest write took {gap} s");
        self.house.start(other)?;
        self.house.until_whole(VOLUME)?;
        self.has_two_paths()?;
        Ok(gap)
    }

    /// The writer ends, and finds everything that it was told is written; ext4 has met no error. How many writes.
    pub(crate) fn loses_nothing(&mut self) -> Result<u64> {
        self.machine.does("touch /run/writer.stop")?;
        let end = self.machine.until("the writer ends", "cat /run/writer.end", PATIENTLY)?;
        let end: Value = serde_json::from_str(&end)?;
        ensure!(end["error"].is_null() && end["lost"] == json!([]), "{end}");
        self.ext4_is_sound()?;
        self.machine.does(&format!("umount /mnt && fsck.ext4 -fn {}", self.disk))?;
        end["writes"].as_u64().context("a count")
    }

    fn ext4_is_sound(&mut self) -> Result<()> {
        let said = self.machine.does("grep ' /mnt ' /proc/mounts; dmesg | grep -i 'ext4.*error\\|offlined' || true")?;
        ensure!(
            said.contains(" rw,") && !said.to_lowercase().contains("error (") && !said.contains("offlined"),
            "{said}"
        );
        Ok(())
    }

    /// Once the call returns, nothing more is written on any node, whatever the machine does.
    pub(crate) fn is_revoked_while_it_writes(&mut self) -> Result<()> {
        self.machine.does(&format!("mount {} /mnt", self.disk))?;
        self.begins_to_write()?;
        self.house.done(&["volume", "revoke", VOLUME, &self.attachment])?;
        let uuid = self.house.volume(VOLUME)?["uuid"].as_str().context("uuid")?.to_owned();
        let bytes = || NODES.map(|node| fs::read(self.house.data_file(node, &uuid)));
        let [one, other] = bytes();
        let (one, other) = (one?, other?);
        ensure!(one == other, "the replicas differ after a revoke");
        thread::park_timeout(Duration::from_secs(10));
        let [one_later, other_later] = bytes();
        ensure!(one == one_later? && other == other_later?, "something was written after the revoke");
        let session = self.machine.tries("iscsiadm -m session -P 1 | grep 'Session State'")?.1;
        ensure!(!session.contains("LOGGED_IN"), "a session lives: {session}");
        // Held for ever, unless somebody says that it is over.
        self.machine.does("multipathd disablequeueing maps")?;
        let end = self.machine.until("the writer ends", "cat /run/writer.end", PATIENTLY)?;
        let end: Value = serde_json::from_str(&end)?;
        ensure!(end["error"].is_string(), "the writer wrote to the end: {end}");
        println!("revoked: {end}");
        Ok(())
    }
}
