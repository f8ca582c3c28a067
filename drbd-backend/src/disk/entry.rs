//! A job in the kernel's words: an entry of io_uring's submission queue. It points into the job; [`device`](super::device) sees to it that it stays.

use std::os::fd::{AsFd, AsRawFd};

use io_uring::{opcode, squeue, types};

use super::job::{Train, recv_parts};
use super::{Head, Operation};

/// One operation, what is left of it.
pub(super) fn of_one(
    operation: &mut Operation,
    head: &mut Head,
    done: usize,
    message: &mut libc::msghdr,
    pieces: &mut [libc::iovec],
) -> squeue::Entry {
    match operation {
        Operation::Read { file, offset, buffer, into } => {
            let rest = &mut buffer[into.start + done..into.end];
            opcode::Read::new(fd(file), rest.as_mut_ptr(), length(rest)).offset(*offset + done as u64).build()
        }
        Operation::Write { file, offset, data, durable } => {
            let (rest, flags) = (&data[done..], if *durable { libc::RWF_DSYNC } else { 0 });
            let write = opcode::Write::new(fd(file), rest.as_ptr(), length(rest)).offset(*offset + done as u64);
            write.rw_flags(flags).build()
        }
        Operation::Flush { file } => opcode::Fsync::new(fd(file)).flags(types::FsyncFlags::DATASYNC).build(),
        Operation::PunchHole { file, offset, length } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd(file), *length).offset(*offset).mode(mode).build()
        }
        Operation::ZeroRange { file, offset, length } => {
            let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
            opcode::Fallocate::new(fd(file), *length).offset(*offset).mode(mode).build()
        }
        Operation::Recv { socket, buffer, into, at_least, .. } => {
            let most = head.len() + into.len();
            let flags = if *at_least == most { libc::MSG_WAITALL } else { 0 };
            of_recv(fd(socket), recv_parts(head, buffer.as_mut(), into, done), flags, message, pieces)
        }
        Operation::Accept { listener } => {
            opcode::PollAdd::new(fd(listener), u32::from(libc::POLLIN.cast_unsigned())).build()
        }
        Operation::Connect { socket, .. } => {
            opcode::PollAdd::new(fd(socket), u32::from(libc::POLLOUT.cast_unsigned())).build()
        }
        Operation::Send { .. } => unreachable!("sends go by train"),
    }
}

/// A train, the first pieces of it.
pub(super) fn of_train(train: &Train, message: &mut libc::msghdr, pieces: &mut [libc::iovec]) -> squeue::Entry {
    // WAITALL: the kernel goes on by itself after a short send.
    let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
    let mut count = 0;
    for (place, piece) in pieces.iter_mut().zip(train.pieces()) {
        *place = libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        count += 1;
    }
    if let [piece] = &pieces[..count] {
        let length = u32::try_from(piece.iov_len).unwrap_or(u32::MAX);
        return opcode::Send::new(fd(&train.socket), piece.iov_base.cast(), length).flags(flags.cast_signed()).build();
    }
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = count;
    opcode::SendMsg::new(fd(&train.socket), message).flags(flags).build()
}

fn of_recv(
    socket: types::Fd,
    parts: [&mut [u8]; 2],
    flags: i32,
    message: &mut libc::msghdr,
    pieces: &mut [libc::iovec],
) -> squeue::Entry {
    let mut count = 0;
    for (place, part) in pieces.iter_mut().zip(parts.into_iter().filter(|part| !part.is_empty())) {
        *place = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
        count += 1;
    }
    if let [piece] = &pieces[..count] {
        let length = u32::try_from(piece.iov_len).unwrap_or(u32::MAX);
        return opcode::Recv::new(socket, piece.iov_base.cast(), length).flags(flags).build();
    }
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = count;
    opcode::RecvMsg::new(socket, message).flags(flags.cast_unsigned()).build()
}

fn fd(of: &impl AsFd) -> types::Fd {
    types::Fd(of.as_fd().as_raw_fd())
}

/// What does not fit comes with the next round.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
