//! A host of the torture run: a disk with a cache, a boot of its own, and a tandem-node.
//!
//! ```text
//!            kill                       start
//!  (runs) ─────────▶ (killed) ────────────────────────▶ (runs)
//!     │ power_off                start, new boot id        ▲
//!     └───────────▶ (off: cache gone) ─────────────────────┘
//! ```
//!
//! Hosts share one kernel, so a boot id is a file of ours, mounted over the kernel's in the namespace of the process. There it also sees the disks of
//! no other host: a copy of their mounts would keep them alive after their power cuts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fastrand::Rng;
use rustix::process::Signal;
use system_tests::disks::{Disk, Survives};

use crate::network::Port;
use crate::process::Process;

const DISK_MIB: u32 = 384;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) port: Port,
    folder: PathBuf,
    program: PathBuf,
    disk: Disk,
    has_power: bool,
    process: Option<Process>,
    boots: Rng,
}

impl Host {
    /// With an empty disk, and no process.
    pub(crate) fn create(port: Port, folder: &Path, program: &Path, seed: u64) -> Result<Self> {
        let disk = Disk::create(disk_of(folder, port), DISK_MIB, seed)?;
        fs::create_dir(disk.path().join("pool"))?;
        fs::File::open(disk.path())?.sync_all()?;
        let boots = Rng::with_seed(seed ^ u64::from(port.0));
        let (folder, program) = (folder.to_owned(), program.to_owned());
        let mut host = Self { port, folder, program, disk, has_power: true, process: None, boots };
        host.boot()?;
        Ok(host)
    }

    pub(crate) fn pool(&self) -> PathBuf {
        self.disk.path().join("pool")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.port))
    }

    fn boot(&mut self) -> Result<()> {
        let id = uuid::Builder::from_random_bytes(self.boots.u128(..).to_be_bytes()).into_uuid();
        Ok(fs::write(self.boot_file(), format!("{id}\n"))?)
    }

    fn boot_file(&self) -> PathBuf {
        self.folder.join(format!("{}.boot", self.port))
    }

    /// Of a host that runs: nothing.
    pub(crate) fn start(&mut self, hosts: &[Port]) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        if !self.has_power {
            self.disk.power_on()?;
            self.has_power = true;
        }
        let others = hosts.iter().filter(|port| **port != self.port);
        let others: String = others
            .map(|port| format!("umount -l '{}' 2>/dev/null; ", disk_of(&self.folder, *port).join("mounted").display()))
            .collect();
        let line = format!(
            "{others}mount --bind '{}' /proc/sys/kernel/random/boot_id && exec {} '{}' --config '{}'",
            self.boot_file().display(),
            self.port.nsenter(),
            self.program.display(),
            self.config().display(),
        );
        self.process = Some(Process::start(&line, &self.folder.join(format!("{}.log", self.port)))?);
        Ok(())
    }

    /// kill -9, and no more: the kernel keeps what was written.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.kill()?;
        process.wait().map(drop)
    }

    /// All that no flush covered is gone, but for what the disk spares.
    pub(crate) fn power_off(&mut self, survives: Survives) -> Result<()> {
        if let Some(process) = &mut self.process {
            process.kill()?;
        }
        if self.has_power {
            self.disk.power_cut_but(survives)?;
            self.has_power = false;
        }
        if let Some(mut process) = self.process.take() {
            process.wait()?;
        }
        self.boot()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// It hands over and goes, with exit code 0.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::TERM)?;
        let status = process.wait()?;
        ensure!(status.success(), "{} was asked to end and did so with {status}", self.port);
        Ok(())
    }

    /// Nobody asked it to.
    pub(crate) fn must_live(&mut self) -> Result<()> {
        let ended = self.process.as_mut().map(Process::has_ended).transpose()?.flatten();
        ensure!(ended.is_none(), "tandem-node on {} ended by itself: {ended:?}", self.port);
        Ok(())
    }

    /// The disk, if it has power: without, its folder is the machine's.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.has_power.then_some(&self.disk)
    }
}

fn disk_of(folder: &Path, port: Port) -> PathBuf {
    folder.join(format!("{port}-disk"))
}
