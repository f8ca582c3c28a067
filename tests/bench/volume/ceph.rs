//! The peer that replicates: Ceph with one monitor and two BlueStore OSDs on files, every object on both, without a cache at the client.
//!
//! It runs from Debian's packages, unpacked into target/ceph (`make bench-volume PEERS=ceph` does that) and not installed. Its image is served by
//! the qemu-nbd of the same Debian, so that the same load reaches it in the same way. There is no manager daemon: it only reports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use system_tests::addresses::free_address;
use uuid::Uuid;

use super::processes::{Process, until};

/// With each answer of the server.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

const OSDS: usize = 2;

pub(crate) struct Ceph {
    /// Monitor, OSDs, and what serves the image.
    processes: Vec<Process>,
    pub(crate) address: SocketAddr,
}

/// Where Debian's packages are, and where this cluster lives.
struct Place {
    packages: PathBuf,
    folder: PathBuf,
}

impl Ceph {
    pub(crate) const EXPORT: &str = "bench";

    pub(crate) fn start(packages: &Path, folder: &Path, size_bytes: u64) -> Result<Self> {
        ensure!(
            packages.join("usr/bin/ceph-osd").exists(),
            "no Ceph in {}: make bench-volume PEERS=ceph",
            packages.display()
        );
        let place = Place { packages: packages.to_owned(), folder: folder.to_owned() };
        let mut processes = vec![place.monitor()?];
        place.run("ceph", &["-s"])?;
        for number in 0..OSDS {
            processes.push(place.osd(number)?);
        }
        place.run("ceph", &["osd", "pool", "create", "bench", "32"])?;
        until("both OSDs are up", || Ok(place.run("ceph", &["osd", "stat"])?.contains("2 up").then_some(())))?;
        let size = format!("{}M", size_bytes >> 20);
        place.run("rbd", &["create", "bench/image", "--size", &size, "--image-feature", "layering"])?;
        let (server, address) = place.serve()?;
        processes.push(server);
        Ok(Self { processes, address })
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }
}

impl Place {
    fn command(&self, program: &str) -> Command {
        let libraries = self.packages.join("usr/lib/x86_64-linux-gnu");
        let of = |path: &Path| path.display().to_string();
        let paths = [libraries.clone(), libraries.join("ceph"), self.packages.join("lib/x86_64-linux-gnu")];
        let mut command = Command::new(self.packages.join("usr/bin").join(program));
        command
            .env("LD_LIBRARY_PATH", paths.map(|path| of(&path)).join(":"))
            .env("PYTHONPATH", self.packages.join("usr/lib/python3/dist-packages"))
            .env("QEMU_MODULE_DIR", libraries.join("qemu"))
            .env("CEPH_CONF", self.folder.join("ceph.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// What a command says; it has 60 s.
    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        if program == "ceph" {
            command.args(["--connect-timeout", "60"]);
        }
        let output = command.args(words).output().with_context(|| format!("{program} does not start"))?;
        ensure!(output.status.success(), "{program} {} failed; its logs: {}", words.join(" "), self.folder.display());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn spawn(&self, program: &str, words: &[&str]) -> Result<Process> {
        let child = self.command(program).args(words).stdout(Stdio::null()).spawn();
        Ok(Process(child.with_context(|| format!("{program} does not start"))?))
    }

    fn monitor(&self) -> Result<Process> {
        std::fs::create_dir_all(self.folder.join("mon"))?;
        let (cluster, address) = (Uuid::new_v4().to_string(), format!("v2:{}", free_address("127.0.0.1")?));
        std::fs::write(self.folder.join("ceph.conf"), self.settings(&cluster, &address))?;
        let map = self.folder.join("monmap").display().to_string();
        let addresses = format!("[{address}]");
        self.run("monmaptool", &["--create", "--fsid", &cluster, "--addv", "a", &addresses, &map])?;
        self.run("ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map])?;
        self.spawn("ceph-mon", &["-i", "a", "-f"])
    }

    fn osd(&self, number: usize) -> Result<Process> {
        std::fs::create_dir_all(self.folder.join(format!("osd-{number}")))?;
        let (disk, number) = (Uuid::new_v4().to_string(), number.to_string());
        self.run("ceph", &["osd", "new", &disk])?;
        self.run("ceph-osd", &["-i", &number, "--mkfs", "--osd-uuid", &disk, "--osd-objectstore", "bluestore"])?;
        self.spawn("ceph-osd", &["-i", &number, "-f"])
    }

    fn serve(&self) -> Result<(Process, SocketAddr)> {
        let address = free_address("127.0.0.1")?;
        let image = format!("rbd:bench/image:id=admin:conf={}", self.folder.join("ceph.conf").display());
        let port = address.port().to_string();
        let fixed = ["--cache=none", "-f", "raw", "--shared=4", "-t", "-x", Ceph::EXPORT, "-b", "127.0.0.1", "-p"];
        let words: Vec<_> = fixed.into_iter().chain([port.as_str(), image.as_str()]).collect();
        let process = self.spawn("qemu-nbd", &words)?;
        until("qemu-nbd serves the image", || Ok(system_tests::nbd::dial(address, Ceph::EXPORT, PATIENCE).ok()))?;
        Ok((process, address))
    }

    /// No authentication and no encryption, as little as our nodes use on loopback. `rbd_cache = false`: what is acknowledged is on both OSDs.
    fn settings(&self, cluster: &str, address: &str) -> String {
        let (folder, packages) = (self.folder.display(), self.packages.display());
        format!(
            "[global]
fsid = {cluster}
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
mon_host = {address}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
osd_pool_default_size = 2
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_memory_target = 1073741824
bluestore_block_size = 8589934592
rbd_cache = false
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_data = {folder}/mon
osd_data = {folder}/osd-$id
run_dir = {folder}
admin_socket = {folder}/$name.asok
log_file = {folder}/$name.log
pid_file =
osd_class_dir = {packages}/usr/lib/x86_64-linux-gnu/rados-classes
plugin_dir = {packages}/usr/lib/x86_64-linux-gnu/ceph
erasure_code_dir = {packages}/usr/lib/x86_64-linux-gnu/ceph/erasure-code
"
        )
    }
}
