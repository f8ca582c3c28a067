//! tgtd, an iSCSI target in user space that does not replicate: Debian's, unpacked by `make bench-iscsi`, with a control socket of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use system_tests::addresses::free_address;
use system_tests::initiators::Login;

use super::super::processes::{Process, until};
use super::super::{raw, report};

/// What tgtadm calls its control port; the socket is our own anyway.
const CONTROL: &str = "9";
/// Its LUN 0 is a controller.
pub(crate) const LUN: u8 = 1;

pub(crate) struct Tgtd {
    process: Process,
    folder: PathBuf,
    address: SocketAddr,
}

fn program(name: &str) -> Result<PathBuf> {
    let program = report::folder()?.with_file_name("tgt").join("usr/sbin").join(name);
    ensure!(program.exists(), "there is no {}: `make bench-iscsi` unpacks it", program.display());
    Ok(program)
}

impl Tgtd {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = free_address("127.0.0.1")?;
        let log = std::fs::File::create(report::logs()?.join("tgtd.log"))?;
        let mut command = Command::new(program("tgtd")?);
        command.args(["-f", "-C", CONTROL, "--iscsi", &format!("portal={address}")]);
        command.env("TGT_IPC_SOCKET", folder.join("socket"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process(command.spawn().context("tgtd does not start")?);
        let tgtd = Self { process, folder: folder.to_owned(), address };
        until("tgtd answers", || Ok(tgtd.admin(&["--op", "show", "--mode", "target"]).ok()))?;
        Ok(tgtd)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A file of this size as a target of its own, opened as tgtd's `--bsoflags` say: `direct`, `sync`, or `` for buffered.
    pub(crate) fn serve(&self, number: u8, size_bytes: u64, flags: &str) -> Result<Login> {
        let file = self.folder.join(format!("{number}.data"));
        drop(raw::create(&file, size_bytes)?);
        let (tid, lun, target) = (number.to_string(), LUN.to_string(), format!("iqn.2026-11.org.example:{number}"));
        self.admin(&["--op", "new", "--mode", "target", "--tid", &tid, "-T", &target])?;
        let mut unit =
            vec!["--op", "new", "--mode", "logicalunit", "--tid", &tid, "--lun", &lun, "--bstype", "rdwr", "-b"];
        unit.push(file.to_str().context("a path that is text")?);
        if !flags.is_empty() {
            unit.extend(["--bsoflags", flags]);
        }
        self.admin(&unit)?;
        self.admin(&["--op", "bind", "--mode", "target", "--tid", &tid, "-I", "ALL"])?;
        Ok(Login {
            portal: self.address,
            target,
            initiator: "iqn.2026-11.org.example:bench".to_owned(),
            user: String::new(),
            secret: String::new(),
        })
    }

    fn admin(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(program("tgtadm")?);
        command.args(["-C", CONTROL, "--lld", "iscsi"]).args(words).env("TGT_IPC_SOCKET", self.folder.join("socket"));
        let done = command.stdin(Stdio::null()).output()?;
        ensure!(done.status.success(), "tgtadm {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}
