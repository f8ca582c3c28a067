//! Opens and creates the files of a replica, data and metadata alike: for O_DIRECT, under a lock, of the size that they must have.
//!
//! The lock (flock(2)) sits on the very descriptor that does the I/O, and falls with its last user. So as long as a write of a process that died is
//! still on its way to the disk, nobody else gets the file, and no late write of a predecessor lands under a successor. A child process shares the
//! lock from fork to exec: where the process starts others, a file that was just let go may be in use for a moment longer.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, OFlags, SeekFrom, StatxFlags, XattrFlags, fallocate, fgetxattr, flock,
    fsetxattr, fsync, statx,
};
use rustix::io::Errno;

use super::Failure;

/// The largest block that we can write: the one that volumes are made of.
const BLOCK_BYTES: u32 = 4096;

/// The extended attribute (xattr(7)) that says whose file it is.
const OWNER: &str = "user.tandem.volume";
const MAX_OWNER_BYTES: usize = 64;

/// A file that nobody else has open for I/O. Clones are the same one; it is unlocked with the last of them, those in operations in flight included.
#[derive(Debug, Clone)]
pub struct DiskFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    file: File,
    path: PathBuf,
    size: u64,
    block_bytes: u32,
}

/// Why there is no such file for us.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("there is no {path}: `tandem volume resync VOLUME --node NODE` makes the replica anew from its peers")]
    Missing { path: PathBuf },
    #[error("{path} exists already: if it is left over from a replica that is gone, remove it")]
    Exists { path: PathBuf },
    #[error("{path} is in use by {by}: stop that first")]
    InUse { path: PathBuf, by: String },
    #[error(
        "{path} has {found} bytes and should have {wanted}: it was cut, or is another volume's; \
         `tandem volume resync VOLUME --node NODE` makes the replica anew from its peers"
    )]
    Size { path: PathBuf, wanted: u64, found: u64 },
    #[error(
        "{path} is marked as {found}, not as {wanted}: it was swapped; put the right file there, or \
         `tandem volume resync VOLUME --node NODE` makes the replica anew from its peers"
    )]
    Swapped { path: PathBuf, wanted: String, found: String },
    #[error(
        "{path} has no mark ({OWNER}): it was copied or restored without its extended attributes; \
         `tandem volume resync VOLUME --node NODE` makes the replica anew from its peers, or, if you are sure that it is \
         the latest, `setfattr -n {OWNER} -v {wanted} FILE` marks it again"
    )]
    Unmarked { path: PathBuf, wanted: String },
    #[error("{path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error("{path}: its file system has no direct I/O (O_DIRECT); put the pool on XFS or ext4")]
    NoDirectIo { path: PathBuf },
    #[error(
        "{path} takes direct I/O only in blocks of {block_bytes} bytes, and volumes are written in blocks of {BLOCK_BYTES}"
    )]
    LargeBlocks { path: PathBuf, block_bytes: u32 },
    #[error("could not {doing} {path}")]
    Failed {
        doing: &'static str,
        path: PathBuf,
        #[source]
        failure: Failure,
    },
}

impl DiskFile {
    /// Opens a file of exactly `size` bytes.
    ///
    /// # Errors
    /// It is not there, another process (or another opener in this one) has it, or it is not what it should be.
    pub fn open(path: &Path, size: u64) -> Result<Self, FileError> {
        let file = direct().open(path).map_err(|error| match errno(&error) {
            Errno::NOENT => FileError::Missing { path: path.into() },
            errno => not_opened("open", path, errno),
        })?;
        lock(&file, path)?;
        let found = file.metadata().map_err(|error| failed("look at", path, errno(&error)))?;
        if !found.is_file() {
            return Err(FileError::NotAFile { path: path.into() });
        }
        if found.len() != size {
            return Err(FileError::Size { path: path.into(), wanted: size, found: found.len() });
        }
        Self::of(file, path, size)
    }

    /// Makes a file of `size` zeroes that takes no room yet. It is there for good when this returns.
    ///
    /// # Errors
    /// There is one already, or the file system refuses: then nothing is left behind.
    pub fn create(path: &Path, size: u64) -> Result<Self, FileError> {
        let file = direct().create_new(true).mode(0o600).open(path).map_err(|error| match errno(&error) {
            Errno::EXIST => FileError::Exists { path: path.into() },
            errno => not_opened("create", path, errno),
        });
        let file = file.inspect_err(|error| {
            // Linux makes the file before it finds that it cannot be opened with O_DIRECT.
            if matches!(error, FileError::NoDirectIo { .. }) {
                let _ = fs::remove_file(path);
            }
        })?;
        let made = Self::fill(file, path, size);
        made.inspect_err(|_| drop(fs::remove_file(path)))
    }

    /// Removes a file for good, unless somebody has it. There being none is as good.
    ///
    /// # Errors
    /// It is in use, or the file system refuses.
    pub fn remove(path: &Path) -> Result<(), FileError> {
        let file = match direct().open(path).map_err(|error| errno(&error)) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(|errno| not_opened("open", path, errno))?,
        };
        lock(&file, path)?;
        fs::remove_file(path).map_err(|error| failed("remove", path, errno(&error)))?;
        flush_directory(path)
    }

    fn fill(file: File, path: &Path, size: u64) -> Result<Self, FileError> {
        lock(&file, path)?;
        let sized = file.set_len(size).and_then(|()| file.sync_all());
        sized.map_err(|error| failed("set the size of", path, errno(&error)))?;
        flush_directory(path)?;
        Self::of(file, path, size)
    }

    fn of(file: File, path: &Path, size: u64) -> Result<Self, FileError> {
        let block_bytes = block_bytes(&file);
        if block_bytes > BLOCK_BYTES {
            return Err(FileError::LargeBlocks { path: path.into(), block_bytes });
        }
        Ok(Self(Arc::new(Opened { file, path: path.into(), size, block_bytes })))
    }

    /// Takes all the room that the file can ever need, so that no write into it finds the disk full. Waits for the disk.
    ///
    /// # Errors
    /// [`Failure::NoSpace`], or [`Failure::Unsupported`] where the file system cannot promise room.
    pub fn reserve(&self) -> Result<(), Failure> {
        Ok(fallocate(&self.0.file, FallocateFlags::empty(), 0, self.0.size)?)
    }

    /// Marks it, beside its bytes, as the file of `owner`, of at most 64 bytes: durably, where the file system can.
    ///
    /// # Errors
    /// What fsetxattr(2) and fsync(2) say.
    pub fn mark(&self, owner: &str) -> Result<(), FileError> {
        let marked = fsetxattr(&self.0.file, OWNER, owner.as_bytes(), XattrFlags::empty());
        match marked.and_then(|()| fsync(&self.0.file)) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(failed("mark", &self.0.path, errno)),
        }
    }

    /// # Errors
    /// It is marked as another's, or not at all though the file system could.
    pub fn check_mark(&self, owner: &str) -> Result<(), FileError> {
        let (path, wanted) = (self.0.path.clone(), owner.to_owned());
        let mut found = [0; MAX_OWNER_BYTES];
        match fgetxattr(&self.0.file, OWNER, &mut found) {
            Ok(bytes) if found[..bytes] == *owner.as_bytes() => Ok(()),
            Ok(bytes) => {
                let found = String::from_utf8_lossy(&found[..bytes]).into_owned();
                Err(FileError::Swapped { path, wanted, found })
            }
            Err(Errno::RANGE) => Err(FileError::Swapped { path, wanted, found: "something long".to_owned() }),
            Err(Errno::NODATA) => Err(FileError::Unmarked { path, wanted }),
            Err(Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(failed("look at", &path, errno)),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// What lengths, offsets and memory of I/O are multiples of: 512 to 4096.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.0.block_bytes
    }

    /// How much room it takes now.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn allocated_bytes(&self) -> Result<u64, std::io::Error> {
        // stat(2) counts in units of 512 bytes, whatever the file system's block.
        Ok(self.0.file.metadata()?.blocks() * 512)
    }
}

impl DiskFile {
    /// How many bytes from here on are all data, or all hole, and whether they are data.
    ///
    /// # Errors
    /// What lseek(2) says.
    pub fn extent(&self, offset: u64) -> Result<(u64, bool), std::io::Error> {
        let seek = |from| match rustix::fs::seek(self, from) {
            Ok(at) => Ok(at.min(self.size())),
            // Nothing of the kind lies behind.
            Err(Errno::NXIO) => Ok(self.size()),
            Err(errno) => Err(errno),
        };
        let data = seek(SeekFrom::Data(offset))?;
        if data > offset {
            return Ok((data - offset, false));
        }
        Ok((seek(SeekFrom::Hole(offset))? - offset, true))
    }
}

impl AsFd for DiskFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// A name, or its end, is durable only when its directory is.
fn flush_directory(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flushed = File::open(directory).and_then(|directory| directory.sync_all());
    flushed.map_err(|error| failed("flush the directory of", path, errno(&error)))
}

fn direct() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).custom_flags(OFlags::DIRECT.bits().cast_signed());
    options
}

fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        Errno::WOULDBLOCK => FileError::InUse { path: path.into(), by: holder(file) },
        errno => failed("lock", path, errno),
    })
}

/// Who has the lock, as /proc/locks knows it (proc_locks(5)): `1: FLOCK ADVISORY WRITE 4711 fd:00:1234 0 EOF`.
fn holder(file: &File) -> String {
    let inode = file.metadata().map(|metadata| format!(":{}", metadata.ino())).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&"FLOCK") && words.get(5).is_some_and(|file| file.ends_with(&inode));
        if is_it { words.get(4).copied() } else { None }
    });
    // Of a process in another namespace the kernel says 0.
    pid.filter(|pid| *pid != "0").map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

/// What direct I/O must be aligned to, from statx(2) (STATX_DIOALIGN, Linux 6.1); older kernels do not say, and 4096 serves everywhere.
fn block_bytes(file: &File) -> u32 {
    let known = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let known = known.filter(|known| StatxFlags::from_bits_retain(known.stx_mask).contains(StatxFlags::DIOALIGN));
    let largest = known.map_or(0, |known| known.stx_dio_offset_align.max(known.stx_dio_mem_align));
    if largest == 0 { BLOCK_BYTES } else { largest }
}

fn not_opened(doing: &'static str, path: &Path, errno: Errno) -> FileError {
    // INVAL: open(2) says so of O_DIRECT.
    if errno == Errno::INVAL { FileError::NoDirectIo { path: path.into() } } else { failed(doing, path, errno) }
}

fn failed(doing: &'static str, path: &Path, errno: Errno) -> FileError {
    FileError::Failed { doing, path: path.into(), failure: errno.into() }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
