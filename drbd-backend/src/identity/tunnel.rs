//! TLS for what speaks plain: the engine reads and writes one end of a socket pair, and a task carries that over a TLS connection.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::UnixStream;

/// What may be on its way in each direction, beside the sockets' own buffers: room for many frames.
const BUFFER_BYTES: usize = 128 << 10;

/// The plain end of `outside`, for whoever knows nothing of TLS. All of it ends when the plain end is closed (what was written before still
/// leaves), or when the connection breaks; the end of what is received is passed on.
///
/// # Errors
/// There are no descriptors left.
pub fn tunnel(outside: impl AsyncRead + AsyncWrite + Send + 'static) -> io::Result<OwnedFd> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(async move {
        let (from_outside, to_outside) = split(outside);
        let (from_inside, to_inside) = ours.into_split();
        // Whoever reads the plain end sees the end of what comes in, and closes when it has nothing to say any more.
        let inwards = carry(from_outside, to_inside);
        let outwards = carry(from_inside, to_outside);
        tokio::pin!(inwards, outwards);
        tokio::select! {
            _ = &mut outwards => {}
            carried = &mut inwards => {
                if carried.is_ok() {
                    let _ = outwards.await;
                }
            }
        }
    });
    Ok(theirs.into())
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            count => to.write_all(&buffer[..count]).await?,
        }
        to.flush().await?; // what TLS holds back until there is more
    }
}
