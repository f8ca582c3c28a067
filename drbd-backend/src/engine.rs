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
mod inbox;
mod link;
mod pool;
mod target;
mod volume;

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use iscsi::LoggedIn;
use replication::{
    BootId, Control, Event, Incarnation, Node, Order, OrderId, Question, Record, Refusal, Settings, Settled, Start,
    Status, Time, Told, VolumeId,
};
use tokio::sync::{mpsc, oneshot};

use crate::disk::{Completion, Options, Ring, Waker, boottime_ns};
use crate::export::nbd::Session;

pub use client::LOG_OUT_WITHIN_S;
pub use client::Reserving;
use client::{Client, Patrol};
use link::LinkState;
pub use pool::Pool;
use volume::Volume;
pub use volume::{Files, Loaded, VolumeError};

/// What other threads ask of the engine.
#[derive(Debug)]
pub enum Command {
    /// A volume of this node begins its life.
    Open {
        settings: Box<Settings>,
        loaded: Box<Loaded>,
        start: Start,
        done: oneshot::Sender<Result<(), VolumeError>>,
    },
    /// A volume's life ends here, however far its replica has come: its connections end, and its files are let go of once nothing is under way.
    Close {
        volume: VolumeId,
        done: oneshot::Sender<()>,
    },
    /// A connection to a peer, past its preamble: a stream socket that no delay is set on.
    Peer {
        volume: VolumeId,
        node: Node,
        stream: OwnedFd,
    },
    /// An NBD client whose handshake is over: a stream socket that no delay is set on.
    Client {
        volume: VolumeId,
        /// As whom it asks: its attachment's number, or 0 for the node itself.
        client: u32,
        session: Session,
        stream: OwnedFd,
    },
    /// An iSCSI initiator whose login is over: a stream socket that no delay is set on.
    Initiator {
        volume: VolumeId,
        /// Its attachment's number.
        client: u32,
        is_read_only: bool,
        logged_in: Box<LoggedIn>,
        stream: OwnedFd,
    },
    Order {
        volume: VolumeId,
        what: Order,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    Told {
        volume: VolumeId,
        life: Life,
        question: Question,
        told: Told,
    },
    Settled {
        volume: VolumeId,
        life: Life,
        question: Question,
        settled: Settled,
    },
    /// What came of [`Notice::Reserve`].
    Reserved {
        volume: VolumeId,
        life: Life,
        whose: Reserving,
        is_stored: bool,
    },
    /// This boot of this node writes no more, as somebody has made sure of.
    Fenced {
        volume: VolumeId,
        node: Node,
        boot: BootId,
    },
    /// The list of fenced hosts has this version, and these attachments are theirs.
    HostsFenced {
        volume: VolumeId,
        version: u64,
        clients: Vec<u32>,
    },
    /// Its initiators are asked to log out: this node is about to go.
    Farewell {
        volume: VolumeId,
    },
    Look {
        volume: VolumeId,
        done: oneshot::Sender<Option<Seen>>,
    },
    /// Everything is put down as it is.
    End,
}

/// One life of a volume on this node, from its opening to its closing: answers to questions of another one mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life(u64);

/// A volume of this node at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub status: Status,
    pub control: Control,
    /// Clients that have it open, and those of them that are iSCSI initiators.
    pub clients: usize,
    pub initiators: usize,
}

/// What the engine asks of other threads.
#[derive(Debug)]
pub enum Notice {
    Ask {
        volume: VolumeId,
        life: Life,
        question: Question,
    },
    Propose {
        volume: VolumeId,
        life: Life,
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
    /// An initiator at this node, which stands by, changes its reservations: the Primary is to do it.
    Reserve {
        volume: VolumeId,
        life: Life,
        whose: Reserving,
        primary: Node,
        was: Vec<u8>,
        next: Vec<u8>,
    },
    /// For people.
    Said {
        volume: VolumeId,
        text: String,
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

    /// How a volume is; `None` if it is not open here.
    pub async fn look(&self, volume: VolumeId) -> Option<Seen> {
        let (done, seen) = oneshot::channel();
        self.tell(Command::Look { volume, done });
        seen.await.ok().flatten()
    }

    /// Takes a volume into service.
    ///
    /// # Errors
    /// It is open already.
    pub async fn open(&self, settings: Settings, loaded: Loaded, start: Start) -> Result<(), VolumeError> {
        let (done, outcome) = oneshot::channel();
        self.tell(Command::Open { settings: Box::new(settings), loaded: Box::new(loaded), start, done });
        outcome.await.unwrap_or(Err(VolumeError::Ended))
    }

    /// Lets a volume go, as it is. Answers when its files are free for others.
    pub async fn close(&self, volume: VolumeId) {
        let (done, closed) = oneshot::channel();
        self.tell(Command::Close { volume, done });
        // It fails only when the engine has ended, and the files with it.
        let _ = closed.await;
    }
}

/// Begins the thread. It ends with [`Command::End`]; should it panic, the whole process is aborted.
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
                // Without its engine a node would answer REST and its peers, and serve nobody: whoever supervises the process starts it anew.
                if catch_unwind(AssertUnwindSafe(|| engine.run())).is_err() {
                    tracing::error!("the engine's thread panicked; the process is aborted");
                    std::process::abort();
                }
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
    volumes: Volumes,
    by_id: HashMap<VolumeId, usize>,
    /// Volumes that nothing begins in any more, and who waits until they are gone.
    closing: Vec<(usize, oneshot::Sender<()>)>,
    lives: u64,
    links: Vec<Option<LinkState>>,
    clients: Vec<Option<Client>>,
    /// Clients that cannot be heard now, and those of them that are just looked at.
    thirsty: Vec<usize>,
    served: Vec<usize>,
    /// What the requests of all clients need.
    client_bytes: usize,
    /// How many clients are initiators, and when they are looked after.
    initiators: usize,
    patrol: Patrol,
    orders: HashMap<(usize, OrderId), Waits>,
    next_order: u32,
    completions: Vec<Completion>,
    /// Where messages are encoded, and what initiators are answered.
    scratch: Vec<u8>,
    said: Vec<u8>,
    /// Of clients and links.
    serials: u32,
    ended: bool,
}

/// Who gave an order.
enum Waits {
    Thread(oneshot::Sender<Result<(), Refusal>>),
    Initiator(Reserving),
}

/// The volumes by number. Work in progress names them by it, so a number is used again only once nothing of the former one is under way.
#[derive(Default)]
struct Volumes(Vec<Option<Volume>>);

impl Volumes {
    fn put(&mut self, volume: Volume) -> usize {
        let index = self.0.iter().position(Option::is_none).unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[index] = Some(volume);
        index
    }

    fn each(&self) -> impl Iterator<Item = (usize, &Volume)> {
        self.0.iter().enumerate().filter_map(|(index, volume)| Some((index, volume.as_ref()?)))
    }
}

impl Index<usize> for Volumes {
    type Output = Volume;

    fn index(&self, index: usize) -> &Volume {
        self.0[index].as_ref().expect("nothing names a volume that is gone")
    }
}

impl IndexMut<usize> for Volumes {
    fn index_mut(&mut self, index: usize) -> &mut Volume {
        self.0[index].as_mut().expect("nothing names a volume that is gone")
    }
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
    /// Of links and clients: the place, and the serial number of who is meant there.
    LinkReceived(usize, u32),
    LinkSent(usize, u32),
    ClientReceived(usize, u32),
    ClientSent(usize, u32),
}

impl Token {
    pub(crate) fn pack(self) -> u64 {
        let (kind, high, low) = match self {
            Self::Job { volume, job } => (0_u64, volume, job),
            Self::Metadata { volume, job } => (1, volume, job),
            Self::LinkReceived(link, serial) => (2, link, serial),
            Self::LinkSent(link, serial) => (3, link, serial),
            Self::ClientReceived(client, serial) => (4, client, serial),
            Self::ClientSent(client, serial) => (5, client, serial),
        };
        kind << 56 | (high as u64) << 32 | u64::from(low)
    }

    pub(crate) fn unpack(token: u64) -> Self {
        let index = usize::try_from(token >> 32 & 0xff_ffff).expect("it is 24 bits");
        let low = u32::try_from(token & 0xffff_ffff).expect("it is 32 bits");
        match token >> 56 {
            0 => Self::Job { volume: index, job: low },
            1 => Self::Metadata { volume: index, job: low },
            2 => Self::LinkReceived(index, low),
            3 => Self::LinkSent(index, low),
            4 => Self::ClientReceived(index, low),
            _ => Self::ClientSent(index, low),
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
            volumes: Volumes::default(),
            by_id: HashMap::new(),
            closing: Vec::new(),
            lives: 0,
            links: Vec::new(),
            clients: Vec::new(),
            thirsty: Vec::new(),
            served: Vec::new(),
            client_bytes: 0,
            initiators: 0,
            patrol: Patrol::default(),
            orders: HashMap::new(),
            next_order: 0,
            completions: Vec::new(),
            scratch: Vec::with_capacity(256),
            said: Vec::with_capacity(256),
            serials: 0,
            ended: false,
        })
    }

    fn run(&mut self) {
        while !self.ended {
            let until = self.volumes.each().filter_map(|(_, volume)| volume.replica.wake_at()).map(|time| time.0).min();
            let until = until.into_iter().chain(self.next_patrol()).min();
            let mut completions = std::mem::take(&mut self.completions);
            match self.ring.wait(&mut completions, until) {
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
            self.patrol_when_due();
            self.look_at_targets();
            self.serve_the_thirsty();
            self.let_go_of_the_closed();
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
            Command::Open { settings, loaded, start, done } => drop(done.send(self.open(*settings, *loaded, start))),
            Command::Close { volume, done } => self.close(volume, done),
            Command::Peer { volume, node, stream } => self.peer_connected(volume, node, stream),
            Command::Client { volume, client, session, stream } => {
                self.client_connected(volume, client, session, stream);
            }
            Command::Initiator { volume, client, is_read_only, logged_in, stream } => {
                self.initiator_connected(volume, client, is_read_only, *logged_in, stream);
            }
            Command::Order { volume, what, done } => self.order(volume, what, done),
            Command::Told { volume, life, question, told } => {
                self.tell_if_alive(volume, life, Event::Told { question, told });
            }
            Command::Settled { volume, life, question, settled } => {
                self.tell_if_alive(volume, life, Event::Settled { question, settled });
            }
            Command::Fenced { volume, node, boot } => self.tell_by_id(volume, Event::Fenced { node, boot }),
            Command::HostsFenced { volume, version, clients } => {
                self.tell_by_id(volume, Event::HostsFenced { version, clients });
            }
            Command::Reserved { volume, life, whose, is_stored } => {
                if let Some(index) = self.by_id.get(&volume).copied().filter(|index| self.volumes[*index].life == life)
                {
                    self.reservations_stored(index, whose, is_stored);
                }
            }
            Command::Farewell { volume } => self.ask_all_to_log_out(volume),
            Command::Look { volume, done } => drop(done.send(self.look(volume))),
            Command::End => self.ended = true,
        }
    }

    fn order(&mut self, volume: VolumeId, what: Order, done: oneshot::Sender<Result<(), Refusal>>) {
        let Some(index) = self.by_id.get(&volume).copied() else {
            let _ = done.send(Err(Refusal::Invalid(format!("there is no volume {volume} here"))));
            return;
        };
        self.give_order(index, what, Waits::Thread(done));
    }

    fn give_order(&mut self, index: usize, what: Order, waits: Waits) {
        self.next_order = self.next_order.wrapping_add(1);
        let order = OrderId(self.next_order);
        self.orders.insert((index, order), waits);
        self.tell(index, Event::Ordered { order, what });
    }

    fn reported(&mut self, index: usize, waits: Waits, outcome: Result<(), Refusal>) {
        match waits {
            Waits::Thread(done) => drop(done.send(outcome)),
            Waits::Initiator(whose) => self.reservations_stored(index, whose, outcome.is_ok()),
        }
    }

    fn look(&self, volume: VolumeId) -> Option<Seen> {
        let index = *self.by_id.get(&volume)?;
        let replica = &self.volumes[index].replica;
        Some(Seen {
            status: replica.status(Time(boottime_ns())),
            control: replica.control().clone(),
            clients: self.clients_of(index).count(),
            initiators: self.clients_of(index).filter(|client| client.is_initiator()).count(),
        })
    }

    fn clients_of(&self, index: usize) -> impl Iterator<Item = &Client> {
        self.clients.iter().flatten().filter(move |client| client.volume == index)
    }

    fn tell_by_id(&mut self, volume: VolumeId, event: Event) {
        if let Some(index) = self.by_id.get(&volume).copied() {
            self.tell(index, event);
        }
    }

    fn tell_if_alive(&mut self, volume: VolumeId, life: Life, event: Event) {
        if let Some(index) = self.by_id.get(&volume).copied()
            && self.volumes[index].life == life
        {
            self.tell(index, event);
        }
    }

    /// Nobody finds the volume any more, and its connections end.
    fn close(&mut self, volume: VolumeId, done: oneshot::Sender<()>) {
        let Some(index) = self.by_id.remove(&volume) else {
            let _ = done.send(());
            return;
        };
        self.end_clients_of(index);
        self.end_links_of(index);
        self.orders.retain(|(of, _), _| *of != index);
        self.closing.push((index, done));
    }

    fn let_go_of_the_closed(&mut self) {
        let mut number = 0;
        while let Some((index, _)) = self.closing.get(number) {
            let index = *index;
            let has_links = self.links.iter().flatten().any(|link| link.volume == index);
            let has_clients = self.clients.iter().flatten().any(|client| client.volume == index);
            if has_links || has_clients || !self.volumes[index].is_idle() {
                number += 1;
                continue;
            }
            self.volumes.0[index] = None;
            let (_, done) = self.closing.swap_remove(number);
            let _ = done.send(());
        }
    }

    fn wake(&mut self) {
        for index in 0..self.volumes.0.len() {
            let Some(volume) = &self.volumes.0[index] else { continue };
            if volume.replica.wake_at().is_some_and(|at| at.0 <= boottime_ns()) {
                self.tell(index, Event::Woken);
            }
        }
    }

    fn completed(&mut self, completion: Completion) {
        match Token::unpack(completion.token) {
            Token::Job { volume, job } => self.job_done(volume, job, completion),
            Token::Metadata { volume, job } => self.metadata_written(volume, job, &completion.result),
            Token::LinkReceived(link, serial) => self.link_received(link, serial, completion),
            Token::LinkSent(link, serial) => self.link_sent(link, serial, &completion.result),
            Token::ClientReceived(client, serial) => self.client_received(client, serial, completion),
            Token::ClientSent(client, serial) => self.client_sent(client, serial, &completion.result),
        }
    }
}
