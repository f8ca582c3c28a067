//! One process of tandem-node, in the network of its host: started, killed, stopped, continued, asked to end.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// As the daemon's own exit code says: as asked.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// `line`: what the shell carries out, at last with `exec`, so that the process is the program itself. It has a copy of all mounts.
    pub(crate) fn start(line: &str, log: &Path) -> Result<Self> {
        let log = append(log)?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", line]);
        unshare.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(unshare.spawn().with_context(|| format!("could not start: {line}"))?))
    }

    /// It may still wait for its disk.
    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.0.kill()?)
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + ENDS_WITHIN;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < end, "process {} did not end within {ENDS_WITHIN:?}", self.0.id());
            thread::park_timeout(LOOK_AGAIN_AFTER);
        }
    }

    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("a pid that cannot be")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn append(log: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("could not open {}", log.display()))
}
