//! One volume on this node: its replica, its files, and the bytes that the replica knows by number.

use std::io;
use std::ops::Range;
use std::path::Path;

use replication::layout::{HEAD_BYTES, Layout, Loading, Pages, Unusable, Writes};
use replication::{
    BLOCK_BYTES, Content, DiskError, Effect, Event, Found, Job, Link, Metadata, Node, Payload, Replica, Request,
    Settings, Span, Start, Superblock, Time, VolumeId,
};

use super::client::{Asked, Owner};
use super::pool::{MAX_PIECE_BYTES, Pool};
use super::target::Served;
use super::{Engine, Life, Notice, Token};
use crate::disk::{Completion, DiskFile, Failure, FileError, Operation, Slice, boottime_ns};

/// The two files of a replica.
#[derive(Debug)]
pub struct Files {
    pub data: DiskFile,
    pub metadata: DiskFile,
}

/// Why a volume is not served.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the metadata of volume {volume} cannot be used")]
    Metadata {
        volume: VolumeId,
        #[source]
        unusable: Unusable,
    },
    #[error("could not read or write the metadata of volume {volume}")]
    Io {
        volume: VolumeId,
        #[source]
        source: io::Error,
    },
    #[error("volumes have at least one block of {BLOCK_BYTES} bytes and at most 64 TiB: {0} bytes will not do")]
    Size(u64),
    #[error("volume {0} is open already")]
    Open(VolumeId),
    #[error("the engine has ended")]
    Ended,
}

impl Files {
    fn paths(folder: &Path, volume: VolumeId) -> (std::path::PathBuf, std::path::PathBuf) {
        (folder.join(format!("{volume}.data")), folder.join(format!("{volume}.meta")))
    }

    /// Makes the files of a new replica, durably: the data reads as zeroes.
    ///
    /// # Errors
    /// There are such files already, or no room.
    pub fn create(folder: &Path, superblock: &Superblock, salt: u64) -> Result<Self, VolumeError> {
        let volume = superblock.volume;
        let bytes = superblock.size_blocks * u64::from(BLOCK_BYTES);
        let layout = Layout::new(volume, superblock.size_blocks).map_err(|_| VolumeError::Size(bytes))?;
        let (data, metadata) = Self::paths(folder, volume);
        let metadata = DiskFile::create(&metadata, layout.file_bytes())?;
        let mut writes = Writes::default();
        let _ = layout.format(superblock, salt, &mut writes);
        for (offset, bytes) in writes.first().chain(writes.then()) {
            write_at(&metadata, offset, bytes).map_err(|source| VolumeError::Io { volume, source })?;
        }
        let data = DiskFile::create(&data, bytes)?;
        data.mark(&volume.to_string())?;
        Ok(Self { data, metadata })
    }

    /// # Errors
    /// They are missing, in use, not of this size, or not of this volume.
    pub fn open(folder: &Path, volume: VolumeId, size_blocks: u64) -> Result<Self, VolumeError> {
        let bytes = size_blocks * u64::from(BLOCK_BYTES);
        let layout = Layout::new(volume, size_blocks).map_err(|_| VolumeError::Size(bytes))?;
        let (data, metadata) = Self::paths(folder, volume);
        let data = DiskFile::open(&data, bytes)?;
        data.check_mark(&volume.to_string())?;
        Ok(Self { data, metadata: DiskFile::open(&metadata, layout.file_bytes())? })
    }

    /// Deletes the files of a replica; there being none is as good.
    ///
    /// # Errors
    /// Somebody has them open, or they cannot be removed.
    pub fn remove(folder: &Path, volume: VolumeId) -> Result<(), VolumeError> {
        let (data, metadata) = Self::paths(folder, volume);
        for path in [data, metadata] {
            DiskFile::remove(&path)?;
        }
        Ok(())
    }

    /// Reads the metadata; `salt` is random, for what is written later.
    ///
    /// # Errors
    /// It cannot be read, or is damaged, another volume's, or of a newer version.
    pub fn load(self, volume: VolumeId, salt: u64) -> Result<Loaded, VolumeError> {
        let size = self.data.size();
        let layout = Layout::new(volume, size / u64::from(BLOCK_BYTES)).map_err(|_| VolumeError::Size(size))?;
        let read =
            |range: Range<u64>| read_at(&self.metadata, range).map_err(|source| VolumeError::Io { volume, source });
        let head = read(0..HEAD_BYTES as u64)?;
        let loading = Loading::begin(layout, &head, salt);
        let mut loading = loading.map_err(|unusable| VolumeError::Metadata { volume, unusable })?;
        while let Some(range) = loading.wants() {
            loading.read(&read(range)?);
        }
        let (found, pages) = loading.finish();
        Ok(Loaded { files: self, found, pages })
    }
}

/// A replica as its files hold it.
#[derive(Debug)]
pub struct Loaded {
    files: Files,
    pub found: Found,
    pages: Pages,
}

/// At the start only: plain reads, through an aligned buffer.
fn read_at(file: &DiskFile, range: Range<u64>) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(range.end - range.start).expect("a piece of metadata fits into memory");
    let pool = crate::disk::Buffers::new(&[(bytes.next_multiple_of(4096), 1)])?;
    let mut buffer = pool.take(bytes).expect("it was made for this");
    let mut done = 0;
    while done < bytes {
        match rustix::io::pread(file, &mut buffer[done..], range.start + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    buffer[done..].fill(0);
    Ok(buffer.to_vec())
}

fn write_at(file: &DiskFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let pool = crate::disk::Buffers::new(&[(bytes.len().next_multiple_of(4096), 1)])?;
    let mut buffer = pool.take(bytes.len()).expect("it was made for this");
    buffer.copy_from_slice(bytes);
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(file, &buffer[done..], offset + done as u64)?;
    }
    Ok(rustix::fs::fdatasync(file)?)
}

pub(super) struct Volume {
    pub(super) id: VolumeId,
    pub(super) life: Life,
    pub(super) replica: Replica,
    pub(super) files: Files,
    pages: Pages,
    writes: Writes,
    payloads: Slots<Held>,
    pub(super) requests: Slots<Asked>,
    metadata: Vec<Keeping>,
    effects: Vec<Effect>,
    /// Which connection carries which link.
    pub(super) links: Vec<(Link, Node, usize)>,
    pub(super) next_link: u32,
    jobs: Vec<Doing>,
    /// The file system can neither zero a range nor punch a hole, as it turned out.
    pub(super) is_slow_to_zero: bool,
    /// What iSCSI initiators see of it, once one has come.
    pub(super) target: Option<Served>,
}

/// What a job of the replica is, until it completes.
#[derive(Debug)]
enum Doing {
    Nothing,
    Store,
    /// What fallocate(2) does is durable only once it is flushed.
    Zero {
        span: Span,
        punch: bool,
        durable: bool,
    },
    /// The same by writing, where the file system has nothing quicker: this comes after what is under way.
    Wipe {
        then: Option<Span>,
        durable: bool,
    },
    Flush,
    Load,
    /// The bytes go over what is read, from this one on.
    Merge {
        part: Held,
    },
}

/// Bytes that the replica knows by number.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) slice: Slice,
    /// How far into the first block a part begins.
    pub(super) skip: usize,
    how: Lay,
    crc32c: Option<u32>,
}

/// How a part is laid over what is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lay {
    Over,
    /// Its first half must be there, then the second takes its place; whoever asked hears what differs. What differs is written again as it is: so the
    /// answer is worth as much as an acknowledged write's.
    IfEqual(Owner),
    /// Bits are added.
    Or,
}

/// Metadata on its way to the disk.
#[derive(Debug)]
struct Keeping {
    job: u32,
    left: usize,
    then: Vec<(u64, Slice)>,
    failed: Option<Failure>,
}

/// Things by number; a number is used again once it is free.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn put(&mut self, thing: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(thing);
            return number;
        }
        self.slots.push(Some(thing));
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32")
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        let thing = self.slots.get_mut(number as usize)?.take()?;
        self.free.push(number);
        Some(thing)
    }
}

impl Held {
    pub(super) fn whole(slice: Slice) -> Self {
        Self { slice, skip: 0, how: Lay::Over, crc32c: None }
    }

    pub(super) fn part(slice: Slice, skip: usize) -> Self {
        Self::laid(slice, skip, Lay::Over)
    }

    pub(super) fn laid(slice: Slice, skip: usize, how: Lay) -> Self {
        Self { slice, skip, how, crc32c: None }
    }

    /// Lays this part over what is there; where that differs from what was to be there.
    fn lay(&self, there: &mut [u8]) -> Option<usize> {
        match self.how {
            Lay::Over => there[self.skip..][..self.slice.len()].copy_from_slice(&self.slice),
            Lay::Or => there[self.skip..].iter_mut().zip(&self.slice[..]).for_each(|(there, new)| *there |= new),
            Lay::IfEqual(_) => {
                let (expected, new) = self.slice.split_at(self.slice.len() / 2);
                let there = &mut there[self.skip..][..new.len()];
                let differs = there.iter().zip(expected).position(|(there, expected)| there != expected);
                if differs.is_some() {
                    return differs;
                }
                there.copy_from_slice(new);
            }
        }
        None
    }

    pub(super) fn received(slice: Slice, crc32c: u32) -> Self {
        Self { slice, skip: 0, how: Lay::Over, crc32c: Some(crc32c) }
    }
}

impl Volume {
    pub(super) fn hold(&mut self, held: Held) -> Payload {
        Payload(self.payloads.put(held))
    }

    fn held(&self, payload: Payload) -> &Held {
        self.payloads.get(payload.0).expect("the replica names only what it holds")
    }

    pub(super) fn let_go(&mut self, payload: Payload) -> Held {
        self.payloads.take(payload.0).expect("the replica lets go of what it holds, once")
    }

    /// The bytes and their CRC32C, which is worked out once.
    pub(super) fn summed(&mut self, payload: Payload) -> (Slice, u32) {
        let held = self.payloads.slots[payload.0 as usize].as_mut().expect("the replica sends only what it holds");
        let crc32c = *held.crc32c.get_or_insert_with(|| crc32c::crc32c(&held.slice));
        (held.slice.clone(), crc32c)
    }

    /// Nothing of it is under way in the kernel.
    pub(super) fn is_idle(&self) -> bool {
        self.metadata.is_empty() && self.jobs.iter().all(|doing| matches!(doing, Doing::Nothing))
    }

    fn doing(&mut self, job: Job, what: Doing) {
        let index = job.0 as usize;
        while self.jobs.len() <= index {
            self.jobs.push(Doing::Nothing);
        }
        self.jobs[index] = what;
    }
}

impl Engine {
    pub(super) fn open(&mut self, settings: Settings, loaded: Loaded, start: Start) -> Result<(), VolumeError> {
        let id = settings.volume;
        if self.by_id.contains_key(&id) {
            return Err(VolumeError::Open(id));
        }
        let Loaded { files, found, pages } = loaded;
        let mut effects = Vec::new();
        let replica = Replica::start(settings, found, start, Time(boottime_ns()), &mut effects);
        self.lives += 1;
        let index = self.volumes.put(Volume {
            id,
            life: Life(self.lives),
            replica,
            files,
            pages,
            writes: Writes::default(),
            payloads: Slots::new(),
            requests: Slots::new(),
            metadata: Vec::new(),
            effects: Vec::new(),
            links: Vec::new(),
            next_link: 0,
            jobs: Vec::new(),
            is_slow_to_zero: false,
            target: None,
        });
        self.by_id.insert(id, index);
        self.carry_out(index, &mut effects);
        Ok(())
    }

    /// Tells a volume's replica what happened, and does what it wants.
    pub(super) fn tell(&mut self, index: usize, event: Event) {
        let volume = &mut self.volumes[index];
        let mut effects = std::mem::take(&mut volume.effects);
        volume.replica.handle(Time(boottime_ns()), event, &mut effects);
        self.carry_out(index, &mut effects);
        self.volumes[index].effects = effects;
    }

    fn carry_out(&mut self, index: usize, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Store { job, span, content, durable } => self.store(index, job, span, content, durable),
                Effect::Load { job, span } => self.load(index, job, span, Doing::Load),
                Effect::Merge { job, span, payload } => {
                    let part = self.volumes[index].let_go(payload);
                    self.load(index, job, span, Doing::Merge { part });
                }
                Effect::Flush { job } => {
                    self.volumes[index].doing(job, Doing::Flush);
                    let file = self.volumes[index].files.data.clone();
                    self.ring.submit(Operation::Flush { file }, Token::Job { volume: index, job: job.0 }.pack());
                }
                Effect::Keep { job, what } => self.keep(index, job, &what),
                Effect::Send { link, envelope, message, payload } => {
                    self.send_message(index, link, &envelope, &message, payload);
                }
                Effect::HangUp { link } => self.hang_up(index, link),
                Effect::Ask { question } => {
                    let Volume { id: volume, life, .. } = self.volumes[index];
                    self.notify(Notice::Ask { volume, life, question });
                }
                Effect::Propose { question, incarnation, expected, proposed } => {
                    let Volume { id: volume, life, .. } = self.volumes[index];
                    self.notify(Notice::Propose { volume, life, question, incarnation, expected, proposed });
                }
                Effect::Answer { request, answer } => self.answer(index, request, answer),
                Effect::Report { order, outcome } => {
                    if let Some(waits) = self.orders.remove(&(index, order)) {
                        self.reported(index, waits, outcome);
                    }
                }
                Effect::Release(payload) => drop(self.volumes[index].let_go(payload)),
                Effect::Say(note) => {
                    let volume = self.volumes[index].id;
                    tracing::info!(%volume, "{note}");
                    self.notify(Notice::Said { volume, text: note.to_string() });
                }
            }
        }
    }

    pub(super) fn notify(&self, notice: Notice) {
        // It fails only at the end, when nobody answers any more.
        let _ = self.notices.send(notice);
    }

    fn store(&mut self, index: usize, job: Job, span: Span, content: Content, durable: bool) {
        let volume = &mut self.volumes[index];
        volume.doing(
            job,
            match content {
                Content::Zeroes { punch } => Doing::Zero { span, punch, durable },
                Content::Data(_) => Doing::Store,
            },
        );
        let (file, offset) = (volume.files.data.clone(), offset_of(span));
        let operation = match content {
            Content::Data(payload) => {
                Operation::Write { file, offset, data: volume.held(payload).slice.clone(), durable }
            }
            Content::Zeroes { punch: true } => Operation::PunchHole { file, offset, length: bytes_of(span) },
            Content::Zeroes { punch: false } => Operation::ZeroRange { file, offset, length: bytes_of(span) },
        };
        self.ring.submit(operation, Token::Job { volume: index, job: job.0 }.pack());
    }

    fn load(&mut self, index: usize, job: Job, span: Span, doing: Doing) {
        let bytes = usize::try_from(bytes_of(span)).expect("a piece fits into memory");
        let buffer = self.pool.take_or_grow(bytes);
        let volume = &mut self.volumes[index];
        volume.doing(job, doing);
        let file = volume.files.data.clone();
        let operation = Operation::Read { file, offset: offset_of(span), buffer, into: 0..bytes };
        self.ring.submit(operation, Token::Job { volume: index, job: job.0 }.pack());
    }

    pub(super) fn job_done(&mut self, index: usize, job: u32, completion: Completion) {
        let doing = std::mem::replace(&mut self.volumes[index].jobs[job as usize], Doing::Nothing);
        let file = &self.volumes[index].files.data;
        match (&doing, &completion.result) {
            // Not every file system can zero a range and keep its room, and not every one can punch.
            (Doing::Zero { span, punch: false, durable }, Err(Failure::Unsupported)) => {
                let again =
                    Operation::PunchHole { file: file.clone(), offset: offset_of(*span), length: bytes_of(*span) };
                let then = Doing::Zero { span: *span, punch: true, durable: *durable };
                self.volumes[index].jobs[job as usize] = then;
                return self.ring.submit(again, completion.token);
            }
            (Doing::Zero { span, punch: true, durable }, Err(Failure::Unsupported)) => {
                let (span, durable) = (*span, *durable);
                self.volumes[index].is_slow_to_zero = true;
                return self.wipe(index, job, span, durable);
            }
            (Doing::Wipe { then: Some(span), durable }, Ok(_)) => {
                let (span, durable) = (*span, *durable);
                return self.wipe(index, job, span, durable);
            }
            (Doing::Zero { durable: true, .. }, Ok(_)) => {
                let flush = Operation::Flush { file: file.clone() };
                self.volumes[index].jobs[job as usize] = Doing::Store;
                return self.ring.submit(flush, completion.token);
            }
            _ => {}
        }
        let result = completion.result.map_err(disk_error);
        let job = Job(job);
        let event = match doing {
            Doing::Nothing => return,
            Doing::Store | Doing::Zero { .. } | Doing::Wipe { .. } => Event::Stored { job, result: result.map(drop) },
            Doing::Flush => Event::Flushed { job, result: result.map(drop) },
            Doing::Load => {
                let buffer = completion.buffer.expect("a read has a buffer");
                let result = result.map(|_| self.volumes[index].hold(Held::whole(buffer.share())));
                Event::Loaded { job, result }
            }
            Doing::Merge { part } => {
                let mut buffer = completion.buffer.expect("a read has a buffer");
                if let (Some(at), Lay::IfEqual(owner), Ok(_)) = (part.lay(&mut buffer), part.how, &result) {
                    self.differs(owner, at as u64);
                }
                let result = result.map(|_| self.volumes[index].hold(Held::whole(buffer.share())));
                Event::Merged { job, result }
            }
        };
        self.tell(index, event);
    }

    /// Writes zeroes, a piece at a time.
    fn wipe(&mut self, index: usize, job: u32, span: Span, durable: bool) {
        let most = u32::try_from(MAX_PIECE_BYTES).expect("it is less than 4 GiB") / BLOCK_BYTES;
        let now = Span { count: span.count.min(most), ..span };
        let then = (now.count < span.count).then(|| Span { start: now.end(), count: span.count - now.count });
        let mut zeroes = self.pool.take_or_grow(usize::try_from(bytes_of(now)).expect("a piece fits into memory"));
        zeroes.fill(0);
        let volume = &mut self.volumes[index];
        volume.jobs[job as usize] = Doing::Wipe { then, durable };
        let file = volume.files.data.clone();
        let operation = Operation::Write { file, offset: offset_of(now), data: zeroes.share(), durable };
        self.ring.submit(operation, Token::Job { volume: index, job }.pack());
    }

    fn keep(&mut self, index: usize, job: Job, what: &Metadata) {
        let volume = &mut self.volumes[index];
        let mut writes = std::mem::take(&mut volume.writes);
        let fits = volume.pages.write(what, &mut writes);
        if let Err(error) = fits {
            tracing::error!(volume = %volume.id, %error, "metadata that does not fit");
            volume.writes = writes;
            return self.tell_later_kept(index, job, Err(DiskError::Failed));
        }
        let first = pieces(&self.pool, writes.first());
        let then = pieces(&self.pool, writes.then());
        volume.writes = writes;
        volume.metadata.push(Keeping { job: job.0, left: first.len(), then, failed: None });
        if first.is_empty() {
            return self.metadata_step(index, job.0);
        }
        self.write_metadata(index, job.0, first);
    }

    fn write_metadata(&mut self, index: usize, job: u32, pieces: Vec<(u64, Slice)>) {
        for (offset, data) in pieces {
            let file = self.volumes[index].files.metadata.clone();
            let operation = Operation::Write { file, offset, data, durable: true };
            self.ring.submit(operation, Token::Metadata { volume: index, job }.pack());
        }
    }

    pub(super) fn metadata_written(&mut self, index: usize, job: u32, result: &Result<usize, Failure>) {
        let Some(keeping) = self.volumes[index].metadata.iter_mut().find(|keeping| keeping.job == job) else { return };
        keeping.left -= 1;
        keeping.failed = keeping.failed.or(result.as_ref().err().copied());
        if keeping.left == 0 {
            self.metadata_step(index, job);
        }
    }

    /// All of one step is durable: the next one, or it is done.
    fn metadata_step(&mut self, index: usize, job: u32) {
        let volume = &mut self.volumes[index];
        let Some(place) = volume.metadata.iter().position(|keeping| keeping.job == job) else { return };
        let keeping = &mut volume.metadata[place];
        if keeping.failed.is_none() && !keeping.then.is_empty() {
            let then = std::mem::take(&mut keeping.then);
            keeping.left = then.len();
            return self.write_metadata(index, job, then);
        }
        let keeping = volume.metadata.swap_remove(place);
        let result = keeping.failed.map_or(Ok(()), |failure| Err(disk_error(failure)));
        self.tell_later_kept(index, Job(job), result);
    }

    fn tell_later_kept(&mut self, index: usize, job: Job, result: Result<(), DiskError>) {
        self.tell(index, Event::Kept { job, result });
    }

    pub(super) fn ask(&mut self, index: usize, asked: Asked, ask: replication::Ask) {
        let client = self.clients[asked.client].as_ref().map_or(0, |client| client.attachment);
        let request = Request(self.volumes[index].requests.put(asked));
        self.tell(index, Event::Asked { request, client, ask });
    }
}

/// Pieces that the ring writes at once, in memory that it may read.
fn pieces<'a>(pool: &Pool, writes: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<(u64, Slice)> {
    let mut pieces = Vec::new();
    for (offset, bytes) in writes {
        for (number, piece) in bytes.chunks(MAX_PIECE_BYTES).enumerate() {
            let offset = offset + (number * MAX_PIECE_BYTES) as u64;
            pieces.push((offset, pool.copy_of(piece).share()));
        }
    }
    pieces
}

pub(super) fn offset_of(span: Span) -> u64 {
    span.start * u64::from(BLOCK_BYTES)
}

pub(super) fn bytes_of(span: Span) -> u64 {
    u64::from(span.count) * u64::from(BLOCK_BYTES)
}

fn disk_error(failure: Failure) -> DiskError {
    match failure {
        Failure::NoSpace => DiskError::Full,
        Failure::ReadOnly
        | Failure::Io
        | Failure::Closed
        | Failure::Cancelled
        | Failure::Unsupported
        | Failure::Other(_) => DiskError::Failed,
    }
}
