//! Sockets: messages whole and in order, cancelled, cut off.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::net::sockopt::set_socket_send_buffer_size;

use super::*;

#[test]
fn sends_on_one_socket_arrive_whole_and_in_order_through_a_narrow_pipe() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        set_socket_send_buffer_size(&socket, 4096).unwrap();
        let mut wanted = Vec::new();
        let mut completions = Vec::new();
        for seed in 0..100_u8 {
            let head = pattern(1 + usize::from(seed), 1);
            let len = if seed == 50 { 1 << 20 } else { 1 + 40 * usize::from(seed) };
            let body = (seed % 3 != 0 && seed < 80).then(|| desk.filled(len, seed.into()));
            wanted.extend_from_slice(&head);
            wanted.extend_from_slice(body.as_deref().unwrap_or(&[]));
            desk.ring.submit(send(&socket, &head, body), seed.into());
            if seed % 40 == 39 {
                completions.extend(desk.glance());
            }
        }
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; wanted.len()];
            for piece in got.chunks_mut(1000) {
                theirs.read_exact(piece).unwrap();
            }
            assert!(got == wanted, "what arrived is not what was sent");
        });
        completions.extend(desk.at_least(100 - completions.len()));
        assert!(completions.iter().all(|done| done.result.is_ok()));
        assert!(completions.iter().map(|done| done.token).eq(0..100));
        reader.join().unwrap();
    }
}

#[test]
fn a_message_comes_with_as_much_of_its_payload_as_is_there() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        let message = pattern(28 + BLOCK, 8);
        let buffer = desk.buffers.take(BLOCK).unwrap();
        desk.ring.submit(recv(&socket, 28, Some(buffer), 28), 1);
        assert!(desk.glance().is_empty());
        theirs.write_all(&message[..27]).unwrap();
        assert!(desk.glance().is_empty());
        theirs.write_all(&message[27..1028]).unwrap();
        let first = desk.next();
        let there = first.result.unwrap();
        assert_eq!(first.head[..], message[..28]);
        let buffer = first.buffer.unwrap();
        let into = there - 28..BLOCK;
        theirs.write_all(&message[1028..]).unwrap();
        let at_least = into.len();
        let rest = Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least };
        let rest = desk.run(rest);
        assert_eq!(rest.result, Ok(at_least));
        assert_eq!(rest.buffer.unwrap()[..], message[28..]);
    }
}

#[test]
fn an_exact_receive_waits_for_all_of_it() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        let message = pattern(100 + 2 * BLOCK, 9);
        let buffer = desk.buffers.take(2 * BLOCK).unwrap();
        desk.ring.submit(recv(&socket, 100, Some(buffer), 100 + 2 * BLOCK), 1);
        for piece in message.chunks(777) {
            assert!(desk.glance().is_empty());
            theirs.write_all(piece).unwrap();
        }
        let done = desk.next();
        assert_eq!((done.result, &done.head[..]), (Ok(message.len()), &message[..100]));
        assert_eq!(done.buffer.unwrap()[..], message[100..]);
    }
}

#[test]
fn a_closed_connection_is_told_to_receivers_and_to_all_who_send() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        theirs.write_all(b"half").unwrap();
        drop(theirs);
        let done = desk.run(recv(&socket, 8, None, 8));
        assert_eq!((done.result, &done.head[..]), (Err(Failure::Closed), &b"half"[..]));
        for token in 0..3 {
            desk.ring.submit(send(&socket, b"hello", None), token);
        }
        let completions = desk.at_least(3);
        assert!(completions.iter().all(|done| done.result == Err(Failure::Closed)));
    }
}

#[test]
fn a_cancelled_receive_gives_its_buffer_back_and_the_socket_goes_on() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        let buffer = desk.buffers.take(BLOCK).unwrap();
        desk.ring.submit(recv(&socket, 0, Some(buffer), BLOCK), 1);
        desk.ring.submit(recv(&pair().0, 4, None, 4), 2);
        desk.glance();
        desk.ring.cancel(1);
        desk.ring.cancel(99);
        let completions = desk.at_least(1);
        let done = completions.iter().find(|done| done.token == 1).expect("it was cancelled");
        assert_eq!(done.result, Err(Failure::Cancelled));
        assert!(done.buffer.is_some());
        theirs.write_all(b"more").unwrap();
        desk.ring.submit(recv(&socket, 4, None, 4), 3);
        let done = desk.next();
        assert_eq!((done.token, &done.head[..]), (3, &b"more"[..]));
    }
}

#[test]
fn cancelling_a_socket_ends_all_that_is_in_flight_on_it() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, _theirs) = pair();
        set_socket_send_buffer_size(&socket, 4096).unwrap();
        let big = desk.filled(1 << 20, 1);
        desk.ring.submit(send(&socket, b"1", Some(big)), 1);
        desk.ring.submit(recv(&socket, 1, None, 1), 2);
        desk.glance();
        desk.ring.submit(send(&socket, b"2", None), 3);
        desk.glance();
        desk.ring.submit(recv(&socket, 1, None, 1), 4);
        desk.ring.cancel_socket(&socket);
        let mut completions = desk.at_least(4);
        completions.sort_by_key(|done| done.token);
        assert!(completions.iter().map(|done| done.token).eq(1..=4));
        assert!(completions.iter().all(|done| done.result == Err(Failure::Cancelled)));
        assert_eq!(desk.buffers.free(1 << 20), 2);
    }
}

#[test]
fn a_send_that_waits_can_be_taken_back_and_the_others_arrive() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        for token in 0..3 {
            desk.ring.submit(send(&socket, &[b'0' + u8::try_from(token).unwrap()], None), token);
        }
        desk.ring.cancel(1);
        let mut completions = desk.at_least(3);
        completions.sort_by_key(|done| done.token);
        let results: Vec<_> = completions.iter().map(|done| done.result).collect();
        assert_eq!(results, [Ok(1), Err(Failure::Cancelled), Ok(1)]);
        let mut got = [0; 2];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"02");
    }
}

#[test]
fn connections_are_made_and_accepted_and_a_refusal_is_told() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Socket::new(listener).unwrap();
        let ours = Socket::tcp_for(&address).unwrap();
        desk.ring.submit(Operation::Accept { listener: listener.clone() }, 1);
        assert!(desk.glance().is_empty());
        desk.ring.submit(Operation::Connect { socket: ours.clone(), address }, 2);
        let mut completions = desk.at_least(2);
        completions.sort_by_key(|done| done.token);
        assert!(completions.iter().all(|done| done.result == Ok(0)));
        let theirs = completions[0].socket.take().unwrap();
        theirs.set_nodelay().unwrap();
        desk.ring.submit(recv(&theirs, 5, None, 5), 3);
        desk.ring.submit(send(&ours, b"hello", None), 4);
        let completions = desk.at_least(2);
        assert!(completions.iter().any(|done| done.token == 3 && &done.head[..] == b"hello"));
        drop((listener, ours, theirs));
        let socket = Socket::tcp_for(&address).unwrap();
        let refused = desk.run(Operation::Connect { socket, address });
        assert_eq!(refused.result, Err(Failure::Other(libc::ECONNREFUSED)));
    }
}

#[test]
fn a_quiet_send_is_heard_of_only_when_it_fails() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, mut theirs) = pair();
        set_socket_send_buffer_size(&socket, 4096).unwrap();
        let quiet = |body| Operation::Send { socket: socket.clone(), head: Head::new(b"quiet"), body, quiet: true };
        let big = desk.filled(1 << 20, 3);
        desk.ring.submit(quiet(Some(big.clone())), 1);
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; 5 + (1 << 20)];
            theirs.read_exact(&mut got).unwrap();
            theirs.read_exact(&mut [0; 4]).unwrap();
            got
        });
        desk.ring.submit(send(&socket, b"loud", None), 2);
        assert_eq!(desk.next().token, 2);
        assert_eq!(reader.join().unwrap()[5..], big[..]);
        // The reader has closed its end.
        desk.ring.submit(quiet(None), 3);
        let failed = desk.next();
        assert_eq!((failed.token, failed.result), (3, Err(Failure::Closed)));
    }
}

#[test]
fn what_has_come_already_is_taken_without_a_wait() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = Socket::new(listener.accept().unwrap().0).unwrap();
        theirs.write_all(b"onetwothr").unwrap();
        let first = desk.run(recv(&socket, 3, None, 3));
        assert_eq!((&first.head[..], first.is_more_there), (&b"one"[..], true));
        let second = desk.ring.submit_or_complete(recv(&socket, 3, None, 3), 2).expect("it has come");
        assert_eq!((&second.head[..], second.token), (&b"two"[..], 2));
        // Five bytes of which three are there: it goes on like any other.
        assert!(desk.ring.submit_or_complete(recv(&socket, 5, None, 5), 3).is_none());
        assert!(desk.glance().is_empty());
        theirs.write_all(b"ee").unwrap();
        let third = desk.next();
        assert_eq!((&third.head[..], third.token, third.result), (&b"three"[..], 3, Ok(5)));
        assert!(desk.ring.submit_or_complete(recv(&socket, 1, None, 1), 4).is_none());
        drop(theirs);
        assert_eq!(desk.next().result, Err(Failure::Closed));
        let closed = desk.ring.submit_or_complete(recv(&socket, 1, None, 1), 5).expect("it is closed");
        assert_eq!(closed.result, Err(Failure::Closed));
    }
}

#[test]
fn a_send_that_fails_takes_those_behind_it_along() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let (socket, theirs) = pair();
        set_socket_send_buffer_size(&socket, 4096).unwrap();
        let big = desk.filled(1 << 20, 1);
        desk.ring.submit(send(&socket, b"1", Some(big)), 1);
        assert!(desk.glance().is_empty());
        desk.ring.submit(send(&socket, b"2", None), 2);
        assert!(desk.glance().is_empty());
        drop(theirs);
        let completions = desk.at_least(2);
        assert!(
            completions
                .iter()
                .map(|done| (done.token, done.result))
                .eq([1, 2].map(|token| (token, Err(Failure::Closed))))
        );
    }
}
