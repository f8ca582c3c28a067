//! The thread that moves the blocks: it owns the volumes of this node, their files, peers and clients, and asks each volume's
//! [`Replica`](replication::Replica) what to do.
//!
//! ```text
//!   other threads ── Command ──▶ ┌────────┐ ── Event ──▶ Replica ── Effect ──▶ ┌────────┐
//!                                │ Engine │                                    │  Ring  │ disk, peers, clients
//!   other threads ◀── Notice ─── └────────┘ ◀───────── Completion ──────────── └────────┘
//! ```
//! One pass of the loop takes whatever has completed, lets the replicas think about it, and submits all that they want in one call of the kernel.

mod client;
mod link;
mod pool;
mod volume;

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use replication::{
    Event, Incarnation, Node, Order, OrderId, Question, Record, Refusal, Settings, Settled, Start, Status, Time, Told,
    VolumeId,
};
use tokio::sync::{mpsc, oneshot};

use crate::disk::{Completion, Options, Ring, Waker, boottime_ns};

use client::Client;
use link::LinkState;
pub use pool::Pool;
use volume::Volume;
pub use volume::{Files, VolumeError};

/// What other threads ask of the engine.
#[derive(Debug)]
pub enum Command {
    /// A volume of this node begins its life.
    Open {
        settings: Box<Settings>,
        files: Box<Files>,
        start: Start,
        done: oneshot::Sender<Result<(), VolumeError>>,
    },
    /// A connection to a peer, past its preamble.
    Peer {
        volume: VolumeId,
        node: Node,
        stream: TcpStream,
    },
    /// An NBD client.
    Client {
        stream: TcpStream,
    },
    Order {
        volume: VolumeId,
        what: Order,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    Told {
        volume: VolumeId,
        question: Question,
        told: Told,
    },
    Settled {
        volume: VolumeId,
        question: Question,
        settled: Settled,
    },
    Status {
        volume: VolumeId,
        done: oneshot::Sender<Option<Status>>,
    },
    /// Everything is put down as it is.
    End,
}

/// What the engine asks of other threads.
#[derive(Debug)]
pub enum Notice {
    Ask {
        volume: VolumeId,
        question: Question,
    },
    Propose {
        volume: VolumeId,
        question: Question,
        /// The arbiter's store that is meant.
        incarnation: Option<Incarnation>,
        expected: Box<Record>,
        proposed: Box<Record>,
    },
    /// The connection to this peer is gone.
    Parted {
        volume: VolumeId,
        node: Node,
    },
}

/// The way to the engine, from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: Sender<Command>,
    waker: Waker,
}

impl Handle {
    pub fn tell(&self, command: Command) {
        // It fails only when the engine has ended: then nobody is left to be told.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    /// Carries an order out.
    ///
    /// # Errors
    /// The replica's refusal; shutting down if the engine has ended.
    pub async fn order(&self, volume: VolumeId, what: Order) -> Result<(), Refusal> {
        let (done, outcome) = oneshot::channel();
        self.tell(Command::Order { volume, what, done });
        outcome.await.unwrap_or(Err(Refusal::ShuttingDown))
    }

    /// What a volume's replica says of itself; `None` if there is no such volume here.
    pub async fn status(&self, volume: VolumeId) -> Option<Status> {
        let (done, status) = oneshot::channel();
        self.tell(Command::Status { volume, done });
        status.await.ok().flatten()
    }

    /// Takes a volume into service.
    ///
    /// # Errors
    /// Its metadata cannot be used.
    pub async fn open(&self, settings: Settings, files: Files, start: Start) -> Result<(), VolumeError> {
        let (done, outcome) = oneshot::channel();
        self.tell(Command::Open { settings: Box::new(settings), files: Box::new(files), start, done });
        outcome.await.unwrap_or(Err(VolumeError::Ended))
    }
}

/// Begins the thread. It ends with [`Command::End`].
///
/// # Errors
/// There are no descriptors, memory or threads left.
pub fn begin(options: Options) -> Result<(Handle, mpsc::UnboundedReceiver<Notice>, JoinHandle<()>), std::io::Error> {
    let (commands, inbox) = channel();
    let (notices, outbox) = mpsc::unbounded_channel();
    let (ready, is_ready) = channel();
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
        match Engine::new(options, inbox, notices) {
            Ok(mut engine) => {
                let _ = ready.send(Ok(engine.ring.waker()));
                engine.run();
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    let waker = is_ready.recv().map_err(|_| std::io::Error::other("the engine's thread ended"))??;
    Ok((Handle { commands, waker }, outbox, thread))
}

struct Engine {
    ring: Ring,
    pool: Pool,
    inbox: Receiver<Command>,
    notices: mpsc::UnboundedSender<Notice>,
    volumes: Vec<Volume>,
    by_id: HashMap<VolumeId, usize>,
    links: Vec<Option<LinkState>>,
    clients: Vec<Option<Client>>,
    /// Clients that wait for memory.
    thirsty: Vec<usize>,
    orders: HashMap<(usize, OrderId), oneshot::Sender<Result<(), Refusal>>>,
    next_order: u32,
    completions: Vec<Completion>,
    /// Where messages are encoded.
    scratch: Vec<u8>,
    clients_seen: u64,
    ended: bool,
}

/// What a completion belongs to, packed into its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// A job of a volume's replica.
    Job {
        volume: usize,
        job: u32,
    },
    /// One write of a volume's metadata, for this job.
    Metadata {
        volume: usize,
        job: u32,
    },
    LinkReceived(usize),
    LinkSent(usize),
    ClientReceived(usize),
    ClientSent(usize),
}

impl Token {
    pub(crate) fn pack(self) -> u64 {
        let (kind, high, low) = match self {
            Self::Job { volume, job } => (0_u64, volume, job),
            Self::Metadata { volume, job } => (1, volume, job),
            Self::LinkReceived(link) => (2, link, 0),
            Self::LinkSent(link) => (3, link, 0),
            Self::ClientReceived(client) => (4, client, 0),
            Self::ClientSent(client) => (5, client, 0),
        };
        kind << 56 | (high as u64) << 32 | u64::from(low)
    }

    pub(crate) fn unpack(token: u64) -> Self {
        let index = usize::try_from(token >> 32 & 0xff_ffff).expect("it is 24 bits");
        let low = u32::try_from(token & 0xffff_ffff).expect("it is 32 bits");
        match token >> 56 {
            0 => Self::Job { volume: index, job: low },
            1 => Self::Metadata { volume: index, job: low },
            2 => Self::LinkReceived(index),
            3 => Self::LinkSent(index),
            4 => Self::ClientReceived(index),
            _ => Self::ClientSent(index),
        }
    }
}

impl Engine {
    fn new(
        options: Options,
        inbox: Receiver<Command>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            ring: Ring::new(options)?,
            pool: Pool::new()?,
            inbox,
            notices,
            volumes: Vec::new(),
            by_id: HashMap::new(),
            links: Vec::new(),
            clients: Vec::new(),
            thirsty: Vec::new(),
            orders: HashMap::new(),
            next_order: 0,
            completions: Vec::new(),
            scratch: Vec::with_capacity(256),
            clients_seen: 0,
            ended: false,
        })
    }

    fn run(&mut self) {
        while !self.ended {
            let until = self.volumes.iter().filter_map(|volume| volume.replica.wake_at()).min();
            let mut completions = std::mem::take(&mut self.completions);
            match self.ring.wait(&mut completions, until.map(|time| time.0)) {
                Ok(true) => self.take_commands(),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the engine's queue failed; its volumes stop");
                    return;
                }
            }
            for completion in completions.drain(..) {
                self.completed(completion);
            }
            self.completions = completions;
            self.wake();
            self.serve_the_thirsty();
        }
    }

    fn take_commands(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.commanded(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn commanded(&mut self, command: Command) {
        match command {
            Command::Open { settings, files, start, done } => drop(done.send(self.open(*settings, *files, start))),
            Command::Peer { volume, node, stream } => self.peer_connected(volume, node, stream),
            Command::Client { stream } => self.client_connected(stream),
            Command::Order { volume, what, done } => self.order(volume, what, done),
            Command::Told { volume, question, told } => self.tell_by_id(volume, Event::Told { question, told }),
            Command::Settled { volume, question, settled } => {
                self.tell_by_id(volume, Event::Settled { question, settled });
            }
            Command::Status { volume, done } => {
                let now = Time(boottime_ns());
                let status = self.by_id.get(&volume).map(|index| self.volumes[*index].replica.status(now));
                let _ = done.send(status);
            }
            Command::End => self.ended = true,
        }
    }

    fn order(&mut self, volume: VolumeId, what: Order, done: oneshot::Sender<Result<(), Refusal>>) {
        let Some(index) = self.by_id.get(&volume).copied() else {
            let _ = done.send(Err(Refusal::Invalid(format!("there is no volume {volume} here"))));
            return;
        };
        self.next_order = self.next_order.wrapping_add(1);
        let order = OrderId(self.next_order);
        self.orders.insert((index, order), done);
        self.tell(index, Event::Ordered { order, what });
    }

    fn tell_by_id(&mut self, volume: VolumeId, event: Event) {
        if let Some(index) = self.by_id.get(&volume).copied() {
            self.tell(index, event);
        }
    }

    fn wake(&mut self) {
        for index in 0..self.volumes.len() {
            if self.volumes[index].replica.wake_at().is_some_and(|at| at.0 <= boottime_ns()) {
                self.tell(index, Event::Woken);
            }
        }
    }

    fn completed(&mut self, completion: Completion) {
        match Token::unpack(completion.token) {
            Token::Job { volume, job } => self.job_done(volume, job, completion),
            Token::Metadata { volume, job } => self.metadata_written(volume, job, &completion.result),
            Token::LinkReceived(link) => self.link_received(link, completion),
            Token::LinkSent(link) => self.link_sent(link, &completion.result),
            Token::ClientReceived(client) => self.client_received(client, completion),
            Token::ClientSent(client) => self.client_sent(client, &completion.result),
        }
    }
}
