//! Disk, sockets, timers and other threads in one queue; its memory, its end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::super::device::counting::allocations;
use super::*;

#[test]
fn more_operations_than_the_kernel_takes_at_once_all_complete() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let file = desk.file();
        let data = desk.filled(BLOCK, 5);
        let blocks = SIZE / BLOCK as u64;
        for token in 0..4 * blocks {
            let offset = token % blocks * BLOCK as u64;
            let write = Operation::Write { file: file.clone(), offset, data: data.clone(), durable: false };
            desk.ring.submit(write, token);
        }
        let completions = desk.at_least(usize::try_from(4 * blocks).unwrap());
        let mut tokens: Vec<_> = completions.iter().map(|completion| completion.token).collect();
        tokens.sort_unstable();
        assert!(tokens.into_iter().eq(0..4 * blocks));
        assert!(completions.iter().all(|completion| completion.result == Ok(BLOCK)));
    }
}

#[test]
fn another_thread_ends_the_wait_once_for_each_time_that_it_was_heard() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let never = boottime_ns() + 10_000_000_000;
        for _ in 0..100 {
            let waker = desk.ring.waker();
            let other = std::thread::spawn(move || {
                waker.wake();
                waker.wake();
            });
            let mut heard = false;
            while !heard && boottime_ns() < never {
                heard = desk.ring.wait(&mut Vec::new(), Some(never)).unwrap();
            }
            assert!(heard, "{engine:?}");
            other.join().unwrap();
            desk.ring.wait(&mut Vec::new(), Some(boottime_ns())).unwrap();
        }
        assert!(boottime_ns() < never);
    }
}

#[test]
fn a_wait_ends_at_its_time_whether_deadlines_come_nearer_or_move_away() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let begin = Instant::now();
        for (far_ms, near_ms) in [(10_000, 20), (30, 10), (5, 25)] {
            desk.ring.wait(&mut Vec::new(), Some(boottime_ns())).unwrap();
            let waker = desk.ring.waker();
            waker.wake();
            desk.ring.wait(&mut Vec::new(), Some(boottime_ns() + far_ms * 1_000_000)).unwrap();
            let until = boottime_ns() + near_ms * 1_000_000;
            let mut rounds = 0;
            while boottime_ns() < until {
                desk.ring.wait(&mut Vec::new(), Some(until)).unwrap();
                rounds += 1;
            }
            assert!(rounds < 10, "{engine:?} woke {rounds} times in vain");
        }
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_ring_that_goes_gives_everything_back_that_was_in_flight() {
    for engine in ENGINES {
        let Desk { mut ring, buffers, directory } = Desk::new(engine);
        let path = directory.path().join("data");
        let file = DiskFile::create(&path, SIZE).unwrap();
        let (socket, mut theirs) = pair();
        set_socket_send_buffer_size(&socket, 4096).unwrap();
        for token in 0..20 {
            let data = buffers.take(BLOCK).unwrap().share();
            let write = Operation::Write { file: file.clone(), offset: token * 4096, data, durable: true };
            ring.submit(write, token);
        }
        let big = buffers.take(1 << 20).unwrap();
        ring.submit(send(&socket, b"", Some(big.share())), 30);
        ring.submit(recv(&socket, 0, buffers.take(BLOCK), 1), 31);
        ring.wait(&mut Vec::new(), Some(boottime_ns())).unwrap();
        ring.submit(send(&socket, b"", Some(buffers.take(BLOCK).unwrap().share())), 32);
        drop((file, socket));
        drop(ring);
        let deadline = Instant::now() + Duration::from_secs(10);
        while buffers.free(BLOCK) < 66 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!((buffers.free(BLOCK), buffers.free(1 << 20)), (66, 2), "{engine:?}");
        open_soon(&path, SIZE).unwrap();
        // The socket is closed too: the other end reads what got through, and then the end.
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        theirs.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn memory_is_bounded_and_a_buffer_has_one_writer() {
    let buffers = Buffers::new(&[(4096, 2), (8192, 1)]).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| buffers.take(4000)).collect();
    assert_eq!((taken.len(), buffers.free(1)), (3, 0));
    assert!(buffers.take(1).is_none() && buffers.take(10_000).is_none());
    for (i, buffer) in taken.iter_mut().enumerate() {
        assert_eq!((buffer.len(), buffer.as_ptr().addr() % 4096), (4000, 0));
        buffer.fill(u8::try_from(i).unwrap());
    }
    assert!(taken.iter().enumerate().all(|(i, buffer)| buffer.iter().all(|byte| usize::from(*byte) == i)));
    let slice = taken.remove(0).share();
    let part = slice.part(10..20);
    let slice = slice.into_buffer().expect_err("somebody else reads it");
    drop(slice);
    assert_eq!((&part[..], buffers.free(1)), (&[0; 10][..], 0));
    let again = part.into_buffer().expect("nobody else reads it");
    assert_eq!(again.len(), 10);
    drop((again, taken));
    assert_eq!(buffers.free(1), 3);
}

#[test]
fn a_write_that_is_received_stored_passed_on_and_answered_allocates_nothing() {
    let mut desk = Desk::new(Engine::Uring);
    let file = desk.file();
    let (client, mut client_end) = pair();
    let (peer, mut peer_end) = pair();
    let message = pattern(28 + BLOCK, 1);
    let (mut completions, mut passed_on) = (Vec::with_capacity(16), vec![0; 64 + BLOCK]);
    let mut round = |desk: &mut Desk| {
        client_end.write_all(&message).unwrap();
        let buffer = desk.buffers.take(BLOCK);
        desk.ring.submit(recv(&client, 28, buffer, 28 + BLOCK), 1);
        while completions.is_empty() {
            desk.ring.wait(&mut completions, Some(boottime_ns() + 10_000_000_000)).unwrap();
        }
        let data = completions.remove(0).buffer.unwrap().share();
        desk.ring.submit(send(&peer, &[1; 64], Some(data.clone())), 2);
        desk.ring.submit(Operation::Write { file: file.clone(), offset: 0, data, durable: false }, 3);
        while completions.len() < 2 {
            desk.ring.wait(&mut completions, Some(boottime_ns() + 10_000_000_000)).unwrap();
        }
        assert!(completions.drain(..).all(|done| done.result.is_ok()));
        peer_end.read_exact(&mut passed_on).unwrap();
    };
    for _ in 0..100 {
        round(&mut desk);
    }
    let before = allocations();
    for _ in 0..1000 {
        round(&mut desk);
    }
    assert_eq!(allocations() - before, 0);
}

#[test]
fn a_peer_over_tcp_gets_a_write_and_acknowledges_it() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, theirs) = (Socket::new(listener.accept().unwrap().0).unwrap(), Socket::new(theirs).unwrap());
        let file = desk.file();
        let data = desk.filled(BLOCK, 2);
        desk.ring.submit(send(&ours, &[1; 64], Some(data.clone())), 1);
        desk.ring.submit(recv(&ours, 32, None, 32), 2);
        let buffer = desk.buffers.take(BLOCK);
        desk.ring.submit(recv(&theirs, 64, buffer, 64 + BLOCK), 3);
        let mut acknowledged = false;
        while !acknowledged {
            for done in desk.at_least(1) {
                assert!(done.result.is_ok());
                match done.token {
                    3 => {
                        let data = done.buffer.unwrap().share();
                        let write = Operation::Write { file: file.clone(), offset: 4096, data, durable: true };
                        desk.ring.submit(write, 4);
                    }
                    4 => desk.ring.submit(send(&theirs, &[2; 32], None), 5),
                    token => acknowledged |= token == 2,
                }
            }
        }
        assert_eq!(desk.read(&file, 4096, BLOCK).1[..], data[..]);
    }
}
