//! A machine with Linux's own initiator, under QEMU without any help of a processor.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Its boot takes about 7 s on an idle machine.
const BOOT: Duration = Duration::from_secs(120);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

pub(crate) struct Machine {
    qemu: Child,
    orders: BufReader<UnixStream>,
    folder: PathBuf,
}

impl Machine {
    /// `image`: what `build` has made. `tap`: the network card's other end.
    pub(crate) fn boot(image: &Path, folder: &Path, tap: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (qemu, orders) = (image.join("qemu/usr"), folder.join("orders.sock"));
        let mut command = Command::new(qemu.join("bin/qemu-system-x86_64"));
        command.env("LD_LIBRARY_PATH", qemu.join("lib/x86_64-linux-gnu"));
        command.arg("-L").arg(qemu.join("share/qemu")).arg("-L").arg(qemu.join("share/seabios"));
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]);
        command.args(["-nodefaults", "-no-reboot", "-display", "none", "-append", "console=ttyS0 quiet"]);
        command.arg("-serial").arg(format!("file:{}", folder.join("console.log").display()));
        command.arg("-kernel").arg(image.join("vmlinuz")).arg("-initrd").arg(image.join("initrd"));
        let root = image.join("root.ext4");
        command.arg("-drive").arg(format!("file={},if=virtio,format=raw,snapshot=on", root.display()));
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=orders", "-chardev"]);
        command.arg(format!("socket,path={},server=on,wait=off,id=orders", orders.display()));
        command.args(["-device", "virtio-net-pci,netdev=net,romfile=", "-netdev"]);
        command.arg(format!("tap,id=net,ifname={tap},script=no,downscript=no"));
        let log = File::create(folder.join("qemu.log"))?;
        let qemu = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut qemu = qemu.with_context(|| format!("no QEMU in {}: `make guests` gets it", image.display()))?;
        let end = Instant::now() + BOOT;
        let socket = loop {
            if let Ok(socket) = UnixStream::connect(&orders) {
                break socket;
            }
            let ended = qemu.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < end, "QEMU does not begin: see {}", folder.display());
            thread::park_timeout(LOOK_AGAIN_AFTER);
        };
        socket.set_read_timeout(Some(BOOT))?;
        let mut machine = Self { qemu, orders: BufReader::new(socket), folder: folder.to_owned() };
        let ready = machine.line().context("it does not come up")?;
        ensure!(ready == "ready 0", "it comes up with {ready:?}");
        Ok(machine)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.orders.read_line(&mut line);
        if !matches!(read, Ok(1..)) {
            bail!("the machine says nothing ({read:?}): see {}", self.folder.join("console.log").display());
        }
        Ok(line.trim_end().to_owned())
    }

    /// A line of shell: how it ended, and what it printed.
    pub(crate) fn tries(&mut self, order: &str) -> Result<(i32, String)> {
        ensure!(!order.contains('\n'), "{order:?} is more than one line");
        writeln!(self.orders.get_mut(), "{order}")?;
        let line = self.line().with_context(|| order.to_owned())?;
        let (code, length) = line.split_once(' ').with_context(|| format!("{order}: {line:?}"))?;
        let mut said = vec![0; length.parse()?];
        self.orders.read_exact(&mut said)?;
        Ok((code.parse()?, String::from_utf8_lossy(&said).into_owned()))
    }

    /// A line of shell that has to end well: what it printed.
    pub(crate) fn does(&mut self, order: &str) -> Result<String> {
        let (code, said) = self.tries(order)?;
        ensure!(code == 0, "{order}: {code}: {said}");
        Ok(said)
    }

    pub(crate) fn has_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.does(&format!(": > {path}"))?;
        // A terminal's line has its limits.
        for part in content.chunks(1024) {
            let text: String = part.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            self.does(&format!("/usr/bin/printf '{text}' >> {path}"))?;
        }
        Ok(())
    }

    /// Until a line of shell ends well.
    pub(crate) fn until(&mut self, what: &str, order: &str, patience: Duration) -> Result<String> {
        let end = Instant::now() + patience;
        loop {
            let (code, said) = self.tries(order)?;
            if code == 0 {
                return Ok(said);
            }
            ensure!(Instant::now() < end, "not within {patience:?}: {what}: {said}");
            thread::park_timeout(LOOK_AGAIN_AFTER);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill().and_then(|()| self.qemu.wait()); // it may be gone
    }
}
