//! A TCP proxy that loses answers, holds requests back and lets them through later, or does a bit of everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For an answer that nobody waits for any more.
const LONGEST: Duration = Duration::from_secs(10);

/// What happens to whatever comes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// The request arrives; the connection breaks before the answer does.
    LoseAnswers,
    /// Requests wait, even when their sender has given up, until the mode is another one.
    Hold,
    /// One in ten requests is lost, one in ten answers, and one in ten requests comes late.
    Chaos,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    held: AtomicU64,
    answers: AtomicU64,
    faults: AtomicU64,
}

impl Proxy {
    /// `seed`: of the chaos.
    pub(crate) async fn to(server: String, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        let accepting = tokio::spawn(async move {
            let mut dice = fastrand::Rng::with_seed(seed);
            while let Ok((client, _)) = listener.accept().await {
                let (server, modes, counts) = (server.clone(), modes.clone(), counted.clone());
                let way = Way { modes, counts: counts.clone(), dice: dice.fork() };
                counts.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = way.carry(client, server).await;
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, mode, counts, accepting })
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Requests that were held back so far.
    pub(crate) fn held(&self) -> u64 {
        self.counts.held.load(Ordering::SeqCst)
    }

    /// Answers that the server has given so far, whether or not they got through.
    pub(crate) fn answers(&self) -> u64 {
        self.counts.answers.load(Ordering::SeqCst)
    }

    /// Connections that are not over: some request may still be on its way.
    pub(crate) fn open(&self) -> u64 {
        self.counts.open.load(Ordering::SeqCst)
    }

    pub(crate) fn faults(&self) -> u64 {
        self.counts.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection. Requests and answers here are small: each comes in one piece.
struct Way {
    modes: watch::Receiver<Mode>,
    counts: Arc<Counts>,
    dice: fastrand::Rng,
}

impl Way {
    async fn carry(mut self, mut client: TcpStream, mut server: TcpStream) -> Result<()> {
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut open = false;
        loop {
            tokio::select! {
                read = client.read(&mut asked) => match read.unwrap_or(0) {
                    0 if open => return self.await_answer(server).await,
                    0 => return Ok(()),
                    count if self.passes_request().await? => {
                        server.write_all(&asked[..count]).await?;
                        open = true;
                    }
                    _ => return Ok(()),
                },
                read = server.read(&mut answered) => match read? {
                    0 => return Ok(()),
                    count => {
                        self.counts.answers.fetch_add(1, Ordering::SeqCst);
                        open = false;
                        if !self.passes_answer() {
                            return Ok(());
                        }
                        client.write_all(&answered[..count]).await?;
                    }
                },
            }
        }
    }

    /// Its sender has given up, and still the request is to be carried out: a server may drop it once its connection ends.
    async fn await_answer(&self, mut server: TcpStream) -> Result<()> {
        if timeout(LONGEST, server.read(&mut vec![0; 1 << 16]))
            .await
            .is_ok_and(|read| read.is_ok_and(|count| count > 0))
        {
            self.counts.answers.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn passes_request(&mut self) -> Result<bool> {
        let mode = *self.modes.borrow();
        match mode {
            Mode::Pass | Mode::LoseAnswers => Ok(true),
            Mode::Hold => {
                self.counts.held.fetch_add(1, Ordering::SeqCst);
                self.modes.wait_for(|mode| *mode != Mode::Hold).await?;
                Ok(true)
            }
            Mode::Chaos => match self.dice.u8(0..10) {
                0 => Ok(self.fault(false)),
                1 => {
                    self.fault(true);
                    let late = Duration::from_millis(self.dice.u64(100..900));
                    tokio::time::sleep(late).await; // this is the fault
                    Ok(true)
                }
                _ => Ok(true),
            },
        }
    }

    fn passes_answer(&mut self) -> bool {
        let mode = *self.modes.borrow();
        match mode {
            Mode::Pass | Mode::Hold => true,
            Mode::LoseAnswers => false,
            Mode::Chaos => self.dice.u8(0..10) != 0 || self.fault(false),
        }
    }

    fn fault(&self, passes: bool) -> bool {
        self.counts.faults.fetch_add(1, Ordering::SeqCst);
        passes
    }
}
