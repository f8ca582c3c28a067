//! What NBD clients that others wrote make of the protocol engine: nbdinfo, nbdcopy, nbdsh, qemu-img and qemu-io, against a disk in memory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use tandem_node::export::nbd::{
    Ended, Errno, Export, Exports, Extent, GREETING, Handshake, Opened, Progress, REQUEST_BYTES, Refusal, Request,
    Session, Step, Tls, Wants,
};

const MIB: u64 = 1 << 20;
const BLOCK_BYTES: usize = 4096;

#[test]
fn nbdinfo_reads_everything_that_an_export_says_of_itself() -> Result<()> {
    for replies in BOTH {
        let server = Server::start(64 * MIB, replies)?;
        let said = run("nbdinfo", &["--json", &server.uri("disk")])?;
        for fact in [
            r#""protocol": "newstyle-fixed""#,
            r#""export-size": 67108864"#,
            r#""description": "in memory""#,
            r#""is_read_only": false"#,
            r#""can_cache": true"#,
            r#""can_fast_zero": true"#,
            r#""can_flush": true"#,
            r#""can_fua": true"#,
            r#""can_multi_conn": true"#,
            r#""can_trim": true"#,
            r#""can_zero": true"#,
            r#""block_size_minimum": 1"#,
            r#""block_size_preferred": 4096"#,
            r#""block_size_maximum": 33554432"#,
        ] {
            ensure!(said.contains(fact), "nbdinfo does not say {fact}:\n{said}");
        }
        let structured = replies == Replies::Structured;
        assert_eq!(said.contains(r#""structured": true"#), structured, "{said}");
        assert_eq!(said.contains(r#""can_df": true"#), structured, "{said}");
        assert_eq!(said.contains("base:allocation"), structured, "{said}");
        let glass = run("nbdinfo", &["--json", &server.uri("glass")])?;
        ensure!(glass.contains(r#""is_read_only": true"#) && glass.contains(r#""can_trim": false"#), "{glass}");
        let listed = run("nbdinfo", &["--list", &server.uri("")])?;
        ensure!(listed.contains("export=\"disk\"") && listed.contains("export=\"glass\""), "{listed}");
        server.end()?;
    }
    Ok(())
}

#[test]
fn nbdinfo_maps_what_is_there_and_what_is_not() -> Result<()> {
    let server = Server::start(MIB, Replies::Structured)?;
    server.disk().write(65536, &[7; 8192]);
    server.disk().zeroes(131_072..131_072 + 4096, false);
    let said = run("nbdinfo", &["--map", &server.uri("disk")])?;
    let rows: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(
        rows,
        [
            ["0", "65536", "3"],
            ["65536", "8192", "0"],
            ["73728", "57344", "3"],
            ["131072", "4096", "2"],
            ["135168", "913408", "3"]
        ]
    );
    server.end()
}

#[test]
fn clients_show_their_users_why_an_export_is_refused() -> Result<()> {
    let server = Server::start(MIB, Replies::Structured)?;
    let said = fails("qemu-img", &["info", &server.uri("moved")])?;
    ensure!(said.contains("volume moved is Secondary on node n1; its Primary is n2"), "{said}");
    // nbdinfo has the text in its debug output only, and says of itself what kind of a refusal it was.
    ensure!(
        fails("nbdinfo", &[&server.uri("moved")])?.contains("Operation not supported for export: moved"),
        "nbdinfo says other"
    );
    let said = fails("qemu-img", &["info", &server.uri("nobody")])?;
    ensure!(said.contains("there is no volume nobody"), "{said}");
    let locked = Server::start_with(MIB, Replies::Structured, Tls::Required)?;
    let said = fails("qemu-img", &["info", &locked.uri("disk")])?;
    ensure!(said.contains("TLS"), "{said}");
    ensure!(fails("nbdinfo", &[&locked.uri("disk")])?.contains("TLS"), "nbdinfo does not speak of TLS");
    locked.end()?;
    server.end()
}

#[test]
fn nbdcopy_copies_both_ways() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("image");
    let bytes = sparse_image(&image, 48 * MIB)?;
    for replies in BOTH {
        let server = Server::start(48 * MIB, replies)?;
        run("nbdcopy", &["--flush", "--connections=4", "--threads=4", text(&image), &server.uri("disk")])?;
        ensure!(server.disk().bytes == bytes, "the server has other bytes than the image");
        ensure!(server.saw(|request| matches!(request, Request::Flush { .. })), "no flush came");
        ensure!(server.connections() >= 4, "nbdcopy made no use of several connections");
        let back = directory.path().join("back");
        run("nbdcopy", &[&server.uri("glass"), text(&back)])?;
        ensure!(fs::read(&back)? == bytes, "the copy has other bytes than the server");
        let other = Server::start(48 * MIB, replies)?;
        run("nbdcopy", &[&server.uri("disk"), &other.uri("disk")])?;
        ensure!(other.disk().bytes == bytes, "a copy from server to server has other bytes");
        other.end()?;
        server.end()?;
    }
    Ok(())
}

#[test]
fn qemu_img_converts_both_ways_and_finds_no_difference() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("image");
    let bytes = sparse_image(&image, 48 * MIB)?;
    for replies in BOTH {
        let server = Server::start(48 * MIB, replies)?;
        let (disk, back) = (server.uri("disk"), directory.path().join("back"));
        let info = run("qemu-img", &["info", "--output=json", &disk])?;
        ensure!(info.contains(r#""virtual-size": 50331648"#), "{info}");
        run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", text(&image), &disk])?;
        ensure!(server.disk().bytes == bytes, "the server has other bytes than the image");
        let compared = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), &disk])?;
        ensure!(compared.contains("identical"), "{compared}");
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", "-m", "8", "-W", &disk, text(&back)])?;
        ensure!(fs::read(&back)? == bytes, "the copy has other bytes than the server");
        server.disk().write(47 * MIB, b"another");
        let compared = fails("qemu-img", &["compare", "-f", "raw", "-F", "raw", text(&image), &disk])?;
        ensure!(compared.contains("mismatch"), "{compared}");
        server.end()?;
    }
    Ok(())
}

#[test]
fn qemu_io_writes_zeroes_discards_flushes_and_reads_it_back() -> Result<()> {
    for replies in BOTH {
        let server = Server::start(8 * MIB, replies)?;
        let commands = [
            "write -P 1 0 1M",
            "write -f -P 2 64k 4k",
            "write -P 3 12345 777",
            "write -z -u 256k 64k",
            "write -z 384k 64k",
            "write -z -f 448k 4k",
            "discard 512k 64k",
            "flush",
            "aio_write -P 4 1M 64k",
            "aio_write -P 5 2M 3M",
            "aio_write -z 6M 1M",
            "aio_flush",
            "aio_read -P 4 1M 64k",
            "aio_read -P 5 2M 3M",
            "aio_flush",
            "read -P 2 64k 4k",
            "read -P 3 12345 777",
            "read -P 0 256k 64k",
            "read -P 0 384k 64k",
            "read -P 0 512k 64k",
            "read -P 1 576k 448k",
        ];
        let uri = server.uri("disk");
        let mut args = vec!["-f", "raw", "-d", "unmap", &uri];
        args.extend(commands.iter().flat_map(|command| ["-c", command]));
        let said = run("qemu-io", &args)?;
        ensure!(!said.contains("failed"), "{said}");
        type Kind = (&'static str, fn(&Request) -> bool);
        let kinds: [Kind; 6] = [
            ("FUA", |request| matches!(request, Request::Write { fua: true, .. })),
            ("zeroes that may be a hole", |request| matches!(request, Request::Zeroes { may_trim: true, .. })),
            ("zeroes that may not", |request| matches!(request, Request::Zeroes { may_trim: false, .. })),
            ("zeroes with FUA", |request| matches!(request, Request::Zeroes { fua: true, .. })),
            ("trim", |request| matches!(request, Request::Trim { .. })),
            ("flush", |request| matches!(request, Request::Flush { .. })),
        ];
        for (name, is_kind) in kinds {
            ensure!(server.saw(is_kind), "qemu-io sent no {name}");
        }
        server.end()?;
    }
    Ok(())
}

#[test]
fn libnbd_finds_each_command_and_each_error_as_documented() -> Result<()> {
    for replies in BOTH {
        let server = Server::start(MIB, replies)?;
        let structured = if replies == Replies::Structured { "True" } else { "False" };
        let uri = server.uri("disk");
        let script = LIBNBD.replace("STRUCTURED", structured).replace("URI", &uri);
        ensure!(run("nbdsh", &["-c", &script])?.ends_with("all of it\n"), "the script did not come to its end");
        ensure!(server.saw(|request| matches!(request, Request::Cache { .. })), "no cache request came");
        server.end()?;
    }
    Ok(())
}

/// Without strict mode libnbd sends what it knows to be wrong.
const LIBNBD: &str = r#"
import errno
h.set_request_structured_replies(STRUCTURED)
h.add_meta_context("base:allocation")
h.set_strict_mode(0)
h.connect_uri("URI")
assert h.get_structured_replies_negotiated() == STRUCTURED
size = h.get_size()

def error_of(call, *args, **kw):
    try:
        call(*args, **kw)
    except nbd.Error as e:
        return e.errnum
    return 0

h.pwrite(b"odd" * 333, 4001)
assert h.pread(999, 4001) == b"odd" * 333
h.pwrite(b"last", size - 4, nbd.CMD_FLAG_FUA)
assert h.pread(4, size - 4) == b"last"
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert error_of(h.zero, 4096, 8192, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE) == errno.ENOTSUP
h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 0, nbd.CMD_FLAG_FUA)
h.cache(size, 0)
h.flush()
h.pread(0, 0)
h.pwrite(b"", 0)

beyond = size - 1
assert error_of(h.pread, 2, beyond) == errno.EINVAL
assert error_of(h.pwrite, b"xx", beyond) == errno.ENOSPC
assert error_of(h.zero, 2, beyond) == errno.ENOSPC
assert error_of(h.trim, 2, beyond) == errno.EINVAL
assert error_of(h.cache, 2, beyond) == errno.EINVAL
assert error_of(h.pwrite, b"x", 0, nbd.CMD_FLAG_REQ_ONE) == errno.EINVAL
assert error_of(h.pread, (32 << 20) + 1, 0) == errno.EINVAL
assert error_of(h.pwrite, bytearray((32 << 20) + 1), 0) in (errno.ENOSPC, errno.EINVAL)
assert h.pread(4, beyond - 3) == b"last"

df = error_of(h.pread, 65536, 0, nbd.CMD_FLAG_DF)
assert df == (0 if STRUCTURED else errno.EINVAL)

seen = []
def extents(context, offset, entries, error):
    seen.append((context, offset, entries))
status = error_of(h.block_status, size, 0, extents)
if STRUCTURED:
    assert status == 0 and seen[0][:2] == ("base:allocation", 0), seen
    assert sum(seen[0][2][0::2]) == size, seen
    seen.clear()
    h.block_status(size, 0, extents, nbd.CMD_FLAG_REQ_ONE)
    assert len(seen[0][2]) == 2, seen
    assert error_of(h.block_status, 2, beyond, extents) == errno.EINVAL
else:
    assert status != 0
h.shutdown()

h = nbd.NBD()
h.set_strict_mode(0)
h.set_request_structured_replies(STRUCTURED)
h.connect_uri("URI".replace("/disk", "/glass"))
assert h.is_read_only() and h.pread(4, beyond - 3) == b"last"
assert error_of(h.pwrite, b"no", 0) == errno.EPERM
assert error_of(h.zero, 512, 0) == errno.EPERM
assert error_of(h.trim, 512, 0) == errno.EPERM
h.shutdown()

h = nbd.NBD()
h.set_request_structured_replies(STRUCTURED)
h.connect_uri("URI".replace("/disk", "/failed"))
assert error_of(h.pread, 512, 0) == errno.EIO
assert error_of(h.pwrite, b"x" * 100000, 0) == errno.ENOSPC
assert error_of(h.flush) == errno.EIO
assert error_of(h.trim, 512, 0) == errno.ESHUTDOWN
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri("URI".replace("/disk", "/nobody"))
assert error_of(h.opt_info) == errno.ENOENT
names = []
assert h.opt_list(lambda name, description: names.append((name, description))) == 2
assert names == [("disk", "in memory"), ("glass", "the same, to look at")], names
contexts = []
h.set_export_name("disk")
if STRUCTURED:
    h.opt_list_meta_context(lambda name: contexts.append(name))
    assert contexts == ["base:allocation"], contexts
h.opt_info()
assert h.get_size() == size and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
h.opt_abort()
print("all of it")
"#;

#[test]
fn a_client_that_would_like_tls_goes_on_without() -> Result<()> {
    let server = Server::start(MIB, Replies::Structured)?;
    let script = format!(
        "h.set_tls(nbd.TLS_ALLOW)\nh.connect_uri(\"{}\")\nprint(h.get_size())\nh.shutdown()",
        server.uri("disk")
    );
    assert_eq!(run("nbdsh", &["-c", &script])?, "1048576\n");
    server.end()
}

#[test]
fn a_client_that_vanishes_or_talks_nonsense_is_the_only_one_to_suffer() -> Result<()> {
    let server = Server::start(MIB, Replies::Structured)?;
    drop(TcpStream::connect(server.address)?);
    let mut stranger = TcpStream::connect(server.address)?;
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let mut said = Vec::new();
    // Either the end or a reset, whichever the kernel makes of bytes that nobody read.
    let _ = stranger.read_to_end(&mut said);
    ensure!(said.is_empty() || said == GREETING, "the stranger heard {said:?}");
    run("nbdinfo", &[&server.uri("disk")])?;
    let ends = server.ends();
    ensure!(ends.iter().any(|end| matches!(end, End::Broken(Ended::ClientFlags(_)))), "{ends:?}");
    Ok(())
}

/// What clients are offered: what today's servers have, or what old ones had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replies {
    Simple,
    Structured,
}

const BOTH: [Replies; 2] = [Replies::Simple, Replies::Structured];

/// A server on a loopback port, with a thread for each connection.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    disk: Mutex<Disk>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<(TcpStream, JoinHandle<End>)>>,
    is_ending: AtomicBool,
    replies: Replies,
    tls: Tls,
    size_bytes: u64,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    Disconnected,
    Aborted,
    /// Without a word.
    Closed,
    Broken(Ended),
    /// What a bug in this file or in the engine would be.
    Failed(anyhow::Error),
}

impl Server {
    fn start(size_bytes: u64, replies: Replies) -> Result<Self> {
        Self::start_with(size_bytes, replies, Tls::None)
    }

    fn start_with(size_bytes: u64, replies: Replies, tls: Tls) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            disk: Mutex::new(Disk::new(size_bytes)?),
            requests: Mutex::default(),
            connections: Mutex::default(),
            is_ending: AtomicBool::new(false),
            replies,
            tls,
            size_bytes,
        });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    fn uri(&self, export: &str) -> String {
        format!("nbd://{}/{export}", self.address)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.shared.disk)
    }

    fn saw(&self, is_kind: impl Fn(&Request) -> bool) -> bool {
        lock(&self.shared.requests).iter().any(is_kind)
    }

    fn connections(&self) -> usize {
        lock(&self.shared.connections).len()
    }

    /// Each connection ended as the protocol says, and by its client.
    fn end(self) -> Result<()> {
        let ends = self.ends();
        ensure!(ends.iter().any(|end| matches!(end, End::Disconnected | End::Aborted)), "no client took its leave");
        for end in ends {
            match end {
                End::Disconnected | End::Aborted | End::Closed => {}
                End::Broken(ended) => bail!(ended),
                End::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How the connections ended. Those that are there still are cut.
    fn ends(mut self) -> Vec<End> {
        self.stop();
        let connections: Vec<_> = lock(&self.shared.connections).drain(..).collect();
        connections
            .into_iter()
            .map(|(stream, thread)| {
                // Refused where the client has closed it already.
                let _ = stream.shutdown(Shutdown::Both);
                thread.join().unwrap_or_else(|_| End::Failed(anyhow::anyhow!("a connection's thread panicked")))
            })
            .collect()
    }

    fn stop(&mut self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
        // Wakes whoever accepts; refused where it has ended.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("accepting does not panic");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.stop();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_ending.load(Ordering::SeqCst) {
            return;
        }
        let stream = stream.expect("a loopback connection is accepted");
        stream.set_nodelay(true).expect("it is a TCP socket");
        let served = stream.try_clone().expect("a descriptor is to be had");
        let thread = thread::spawn({
            let shared = shared.clone();
            move || connection(served, &shared).unwrap_or_else(End::Failed)
        });
        lock(&shared.connections).push((stream, thread));
    }
}

fn connection(mut stream: TcpStream, shared: &Shared) -> Result<End> {
    let end = match shake_hands(&mut stream, shared) {
        Ok(Ok(opened)) => serve(&mut stream, *opened, shared),
        Ok(Err(end)) => Ok(end),
        Err(error) => Err(error),
    };
    // The other end may have done so before.
    let _ = stream.shutdown(Shutdown::Both);
    match end {
        Err(error) => match error.downcast::<Ended>() {
            Ok(ended) => Ok(End::Broken(ended)),
            Err(error) => match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof) => Ok(End::Closed),
                _ => Err(error),
            },
        },
        end => end,
    }
}

fn shake_hands(stream: &mut TcpStream, shared: &Shared) -> Result<Result<Box<Opened>, End>> {
    stream.write_all(&GREETING)?;
    let (mut handshake, mut out) = (Handshake::new(shared.tls), Vec::new());
    loop {
        let mut bytes = vec![0; handshake.wants()];
        stream.read_exact(&mut bytes)?;
        let as_asked = bytes.clone();
        // A server of old does not know the option; ours does, so it is given another one, which nobody knows.
        let is_hidden = shared.replies == Replies::Simple && bytes.starts_with(b"IHAVEOPT\0\0\0\x08");
        if is_hidden {
            bytes[11] = 0x77;
        }
        let (taken, progress) = handshake.received(&bytes, shared, &mut out)?;
        ensure!(taken == bytes.len(), "the handshake takes {taken} bytes, and wanted {}", bytes.len());
        if is_hidden {
            out[8..12].copy_from_slice(&as_asked[8..12]);
        }
        stream.write_all(&out)?;
        out.clear();
        match progress {
            Progress::More => {}
            Progress::StartTls => bail!("TLS began, which is not offered"),
            Progress::Waiting => bail!("a client waits, and there is nothing to wait for"),
            Progress::Opened(opened) => return Ok(Ok(opened)),
            Progress::Aborted => return Ok(Err(End::Aborted)),
        }
    }
}

fn serve(stream: &mut TcpStream, opened: Opened, shared: &Shared) -> Result<End> {
    let Opened { export, mut session } = opened;
    let mut bytes = [0; 65536];
    loop {
        let wanted = match session.wants() {
            Wants::Request(count) => count.min(REQUEST_BYTES),
            Wants::PassedOver(count) => bytes.len().min(count as usize),
            Wants::Payload(_) => bail!("a payload is due that belongs to no write"),
            Wants::Nothing => return Ok(End::Disconnected),
        };
        let got = stream.read(&mut bytes[..wanted])?;
        if got == 0 {
            return Ok(End::Closed);
        }
        let (taken, step) = session.received(&bytes[..got])?;
        ensure!(taken == got, "the session takes {taken} bytes of {got}, and wanted {wanted}");
        match step {
            Step::More => {}
            Step::Answer(reply) => stream.write_all(&reply)?,
            Step::Payload(_) => bail!("a payload is due that belongs to no write"),
            Step::Request(request) => {
                lock(&shared.requests).push(request);
                if export.name == "failed" {
                    refuse(stream, &mut session, request)?;
                } else {
                    carry_out(stream, &mut session, request, shared)?;
                }
            }
        }
    }
}

fn refuse(stream: &mut TcpStream, session: &mut Session, request: Request) -> Result<()> {
    if matches!(request, Request::Write { .. }) {
        session.refuse_payload(Errno::NoSpace, "the pool is full");
        return Ok(());
    }
    let Some(cookie) = request.cookie() else { return Ok(()) };
    let is_trim = matches!(request, Request::Trim { .. });
    let errno = if is_trim { Errno::ShuttingDown } else { Errno::Io };
    Ok(stream.write_all(&session.failed(cookie, errno, "the disk has failed"))?)
}

fn carry_out(stream: &mut TcpStream, session: &mut Session, request: Request, shared: &Shared) -> Result<()> {
    let range = |offset: u64, length: u32| offset..offset + u64::from(length);
    let mut out = Vec::new();
    match request {
        Request::Read { cookie, offset, length, df } => {
            let disk = lock(&shared.disk);
            read(session, &disk, (cookie, df), range(offset, length), &mut out)?;
        }
        Request::Write { cookie, offset, length, .. } => {
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload)?;
            ensure!(session.payload_received(length), "the payload is not whole");
            lock(&shared.disk).write(offset, &payload);
            out.extend_from_slice(&session.done(cookie));
        }
        Request::Zeroes { cookie, may_trim: false, fast: true, .. } => {
            out.extend_from_slice(&session.failed(cookie, Errno::NotSupported, "that would be slow"));
        }
        Request::Zeroes { cookie, offset, length, may_trim, .. } => {
            lock(&shared.disk).zeroes(range(offset, length), may_trim);
            out.extend_from_slice(&session.done(cookie));
        }
        Request::Trim { cookie, offset, length, .. } => {
            lock(&shared.disk).zeroes(range(offset, length), true);
            out.extend_from_slice(&session.done(cookie));
        }
        Request::Flush { cookie } | Request::Cache { cookie, .. } => out.extend_from_slice(&session.done(cookie)),
        Request::BlockStatus { cookie, offset, length, one } => {
            let extents = lock(&shared.disk).extents(range(offset, length));
            session.block_status(cookie, length, one, extents, &mut out);
        }
        Request::Disconnect => {}
    }
    Ok(stream.write_all(&out)?)
}

/// In one piece, or holes and data in turn, where that may be.
fn read(session: &Session, disk: &Disk, (cookie, df): (u64, bool), range: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
    let extents = disk.extents(range.clone());
    let is_whole = df || !session.terms().structured || !extents.iter().any(|extent| extent.is_hole);
    if is_whole {
        out.extend_from_slice(&session.read(cookie, range.start, u32::try_from(range.end - range.start)?));
        out.extend_from_slice(disk.at(range));
        return Ok(());
    }
    let mut at = range.start;
    for extent in extents {
        let (length, end) = (u32::try_from(extent.length)?, at + extent.length);
        let is_last = end == range.end;
        if extent.is_hole {
            out.extend_from_slice(&session.read_hole(cookie, at, length, is_last).context("no holes")?);
        } else {
            out.extend_from_slice(&session.read_part(cookie, at, length, is_last).context("no parts")?);
            out.extend_from_slice(disk.at(at..end));
        }
        at = end;
    }
    Ok(())
}

impl Exports for Shared {
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        let export = |description: &str, is_read_only| Export {
            name: name.to_owned(),
            description: description.to_owned(),
            size_bytes: self.size_bytes,
            is_read_only,
        };
        match name {
            "disk" => Ok(export("in memory", false)),
            "glass" => Ok(export("the same, to look at", true)),
            "failed" => Ok(export("fails at everything", false)),
            "moved" => Err(Refusal::Policy("volume moved is Secondary on node n1; its Primary is n2".into())),
            _ => Err(Refusal::Unknown(format!("there is no volume {name}"))),
        }
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        show("disk", "in memory");
        show("glass", "the same, to look at");
    }
}

/// Bytes, and which blocks of them take room.
#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    allocated: BTreeSet<usize>,
}

impl Disk {
    fn new(size_bytes: u64) -> Result<Self> {
        Ok(Self { bytes: vec![0; usize::try_from(size_bytes)?], allocated: BTreeSet::new() })
    }

    fn at(&self, range: Range<u64>) -> &[u8] {
        &self.bytes[indices(range)]
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let range = indices(offset..offset + data.len() as u64);
        self.allocated.extend(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
        self.bytes[range].copy_from_slice(data);
    }

    fn zeroes(&mut self, range: Range<u64>, may_trim: bool) {
        let range = indices(range);
        self.bytes[range.clone()].fill(0);
        if may_trim {
            let whole = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
            self.allocated.retain(|block| !whole.contains(block));
        } else {
            self.allocated.extend(range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES));
        }
    }

    fn extents(&self, range: Range<u64>) -> Vec<Extent> {
        let mut extents = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK_BYTES as u64;
            let end = range.end.min((block + 1) * BLOCK_BYTES as u64);
            let is_hole = !self.allocated.contains(&indices(block..block).start);
            let is_zero = is_hole || self.at(at..end).iter().all(|byte| *byte == 0);
            extents.push(Extent { length: end - at, is_hole, is_zero });
            at = end;
        }
        extents
    }
}

fn indices(range: Range<u64>) -> Range<usize> {
    let index = |at: u64| usize::try_from(at).expect("memory has no more");
    index(range.start)..index(range.end)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stretches of data of all sizes, and holes between them.
fn sparse_image(path: &Path, size_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size_bytes)?];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + usize::try_from(random() % (2 * MIB))?);
        for byte in &mut bytes[at..end] {
            *byte = random().to_be_bytes()[0];
        }
        at = end + usize::try_from(random() % (3 * MIB))?;
    }
    fs::write(path, &bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

/// What a client says on its way to success.
fn run(program: &str, args: &[&str]) -> Result<String> {
    let (is_done, said) = client(program, args)?;
    ensure!(is_done, "{program} {args:?} failed: {said}");
    Ok(said)
}

/// What a client says that has to fail.
fn fails(program: &str, args: &[&str]) -> Result<String> {
    let (is_done, said) = client(program, args)?;
    ensure!(!is_done, "{program} {args:?} did not fail: {said}");
    Ok(said)
}

/// Within a minute. Debian's own Python has libnbd's module, whatever other Python the PATH knows.
fn client(program: &str, args: &[&str]) -> Result<(bool, String)> {
    let output = Command::new("timeout").arg("60").arg(program).args(args).env("PATH", "/usr/bin:/bin").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(124) => bail!("{program} {args:?} took more than a minute: {said}"),
        Some(127) => bail!("there is no {program}: install libnbd-bin, python3-libnbd and qemu-utils"),
        code => Ok((code == Some(0), said)),
    }
}
