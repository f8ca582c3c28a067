//! The embedded arbiter in a process of its own, to be killed: this test program, started once more.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tandem_node::arbiter::{Arbiter, ArbiterConfig};
use tempfile::TempDir;
use tokio::sync::oneshot;

const DIRECTORY: &str = "TANDEM_TEST_ARBITER_DIRECTORY";
const LISTEN: &str = "TANDEM_TEST_ARBITER_LISTEN";
const SERVES: &str = "the arbiter serves on ";

#[derive(Debug)]
pub(crate) struct Process {
    directory: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Process {
    pub(crate) async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (child, address) = spawn(directory.path().to_owned(), "127.0.0.1:0".parse()?).await?;
        Ok(Self { directory, address, child })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Once more on the same store, at the same address.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        (self.child, _) = spawn(self.directory.path().to_owned(), self.address).await?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

async fn spawn(directory: PathBuf, listen: SocketAddr) -> Result<(Child, SocketAddr)> {
    let started = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", "process::the_process_that_others_kill", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(LISTEN, listen.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("it has a stdout")?);
        let line = stdout.lines().map_while(Result::ok).find(|line| line.contains(SERVES));
        let line = line.context("the arbiter ended before it served: see above")?;
        let (_, address) = line.split_once(SERVES).context("it was found in there")?;
        Ok((child, address.parse()?))
    });
    started.await?
}

/// Ends with whoever started it: then its stdin ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "other tests start it"]
async fn the_process_that_others_kill() -> Result<()> {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).context("other tests start this")?);
    let listen = std::env::var(LISTEN)?.parse()?;
    let arbiter = Arbiter::bind(ArbiterConfig { directory, listen, tls: None }).await?;
    println!("\n{SERVES}{}", arbiter.address());
    let (gone, alone) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = gone.send(());
    });
    arbiter.serve(async { drop(alone.await) }).await?;
    Ok(())
}
