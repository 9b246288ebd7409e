//! Calls over a pair: replies in any order, and requests that are dropped without a reply.

use std::thread;
use std::time::{Duration, Instant};

use semring::duplex::{CallId, Client, Endpoint, Server};
use semring::{CallError, RecvError, SendError, Tag};
use semring_testkit::watchdog::Watchdog;

use crate::fixture::{CAPACITY, HANG_TIMEOUT, SOON, while_asleep};
use crate::rings;

fn ends() -> (Endpoint, Endpoint, Watchdog) {
    let pair = rings::pair("memfd:").capacity(CAPACITY).create().unwrap();
    let watchdog = Watchdog::new(HANG_TIMEOUT, "calls");
    (
        pair.server_end().unwrap(),
        pair.client_end().unwrap(),
        watchdog,
    )
}

fn line() -> (Server, Client, Watchdog) {
    let (server, client, watchdog) = ends();
    (Server::new(server), Client::new(client), watchdog)
}

#[test]
fn calls_in_flight_are_answered_in_any_order() {
    let (mut server, mut client, _watchdog) = line();
    let ids: Vec<CallId> = (0..8u8).map(|n| client.start(&[n]).unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert!(client.in_flight().eq(ids.iter().copied()));
    let mut requests: Vec<_> = (0..8).map(|_| server.next_request().unwrap()).collect();
    for _ in 0..8 {
        let request = requests.pop().unwrap();
        let answer = [request.bytes()[0], 100 + request.bytes()[0]];
        request.reply(&answer).unwrap();
    }
    // Waited for in an order that is neither that of the calls nor that of the replies.
    for n in [3, 0, 7, 5] {
        let reply = client.wait(ids[n]).unwrap();
        assert_eq!(reply.id(), ids[n]);
        assert_eq!(reply.into_bytes(), [n as u8, 100 + n as u8]);
    }
    assert_eq!(client.wait(ids[3]), Err(CallError::NotInFlight));
    let rest: Vec<u8> = (0..4)
        .map(|_| client.next_reply().unwrap().bytes()[0])
        .collect();
    assert_eq!(rest, [1, 2, 4, 6]);
    assert_eq!(client.next_reply(), Err(CallError::NotInFlight));
    assert_eq!(client.late_replies(), 0);
}

#[test]
fn a_time_beyond_the_clock_is_no_limit_of_a_call() {
    let (mut server, mut client, _watchdog) = line();
    let ends = Duration::MAX;
    let request = while_asleep(
        || server.next_request_deadline(ends).unwrap(),
        || {
            client.start_deadline(b"one", ends).unwrap();
        },
    );
    let reply = while_asleep(
        || client.next_reply_deadline(ends).unwrap(),
        || request.reply_deadline(b"two", ends).unwrap(),
    );
    assert_eq!(reply.bytes(), b"two");
}

#[test]
fn ids_are_never_used_again() {
    let (mut server, mut client, _watchdog) = line();
    for round in 0..3 {
        let id = client.start(b"").unwrap();
        assert_eq!(id.get(), 2 * round + 1);
        assert_eq!(server.next_request().unwrap().id(), id);
        assert!(client.forget(id));
        // Whether a call ends well or not.
        assert_eq!(client.call_deadline(b"", SOON), Err(CallError::TimedOut));
        let _ = server.next_request().unwrap();
    }
}

#[test]
fn late_replies_are_dropped_and_counted() {
    let (mut server, mut client, _watchdog) = line();
    let deadline = Instant::now() + SOON;
    assert_eq!(
        client.call_deadline(b"slow", deadline),
        Err(CallError::TimedOut)
    );
    assert!(Instant::now() >= deadline);
    let waited = client.start(b"waited for").unwrap();
    assert_eq!(client.wait_deadline(waited, SOON), Err(CallError::TimedOut));
    assert_eq!(client.wait(waited), Err(CallError::NotInFlight));
    let forgotten = client.start(b"forgotten").unwrap();
    assert!(client.forget(forgotten) && !client.forget(forgotten));
    let kept = client.start(b"kept").unwrap();
    assert_eq!(client.try_wait(kept), Err(CallError::Empty));
    assert_eq!(client.next_reply_deadline(SOON), Err(CallError::TimedOut));
    for _ in 0..4 {
        let request = server.next_request().unwrap();
        let echo = request.bytes().to_vec();
        request.reply(&echo).unwrap();
    }
    assert_eq!(client.late_replies(), 0, "not counted before the next call");
    assert_eq!(client.wait(kept).unwrap().bytes(), b"kept");
    assert_eq!(client.late_replies(), 3);
    assert_eq!(client.in_flight().len(), 0);
}

#[test]
fn a_reply_that_is_there_is_found_also_after_the_deadline() {
    let (mut server, mut client, _watchdog) = line();
    let past = Instant::now();
    let first = client.start_deadline(b"1", past).unwrap();
    let second = client.start_deadline(b"2", Duration::ZERO).unwrap();
    for _ in 0..2 {
        server
            .next_request_deadline(past)
            .unwrap()
            .reply_deadline(b"!", past)
            .unwrap();
    }
    // After another one.
    assert_eq!(client.wait_deadline(second, past).unwrap().id(), second);
    assert_eq!(client.try_wait(first).unwrap().id(), first);
    assert_eq!(server.try_next_request().err(), Some(RecvError::Empty));
    assert_eq!(
        server.next_request_deadline(SOON).err(),
        Some(RecvError::TimedOut)
    );
}

#[test]
fn a_request_that_is_dropped_is_unanswered_at_once() {
    let (mut server, mut client, _watchdog) = line();
    let [first, second] = [b"a", b"b"].map(|bytes| client.start(bytes).unwrap());
    drop(server.next_request().unwrap());
    let request = server.next_request().unwrap();
    let worker = thread::spawn(move || {
        let _request = request;
        panic!("a worker fails");
    });
    assert!(worker.join().is_err());
    assert_eq!(client.wait(second), Err(CallError::Unanswered));
    assert_eq!(client.next_reply(), Err(CallError::Unanswered));
    assert_eq!(client.wait(first), Err(CallError::NotInFlight));
    assert_eq!(client.call_deadline(b"c", SOON), Err(CallError::TimedOut));
}

#[test]
fn requests_dropped_without_room_are_reported_later() {
    let (mut server, mut client, _watchdog) = line();
    let ids: Vec<CallId> = (0..10).map(|_| client.start(&[0; 100]).unwrap()).collect();
    let mut requests: Vec<_> = (0..10).map(|_| server.next_request().unwrap()).collect();
    let refused = loop {
        let request = requests.pop().expect("the ring is full before");
        if let Err(error) = request.reply_deadline(&[0; 1000], SOON) {
            break error;
        }
    };
    assert_eq!(refused, SendError::TimedOut);
    let answered = 10 - requests.len() - 1;
    thread::scope(|scope| {
        // The server already sleeps when a report is owed.
        let ended = while_asleep(
            || server.next_request().map(drop),
            || {
                drop(requests);
                scope.spawn(move || {
                    let results = ids.into_iter().map(|id| client.wait(id));
                    let count = results.filter(Result::is_ok).count();
                    assert_eq!(count, answered);
                });
            },
        );
        assert!(matches!(ended, Err(RecvError::EndOfStream { .. })));
    });
}

#[test]
fn the_death_of_the_server_ends_every_call() {
    let (mut server, mut client, _watchdog) = line();
    let ids: Vec<CallId> = (0..3).map(|_| client.start(b"x").unwrap()).collect();
    let request = server.next_request().unwrap();
    request.reply(b"just so").unwrap();
    let last = server.next_request().unwrap();
    drop(server);
    // A request that is out can still be answered.
    last.reply(b"even so").unwrap();
    let ended = client.wait(ids[2]);
    assert_eq!(ended, Err(CallError::PeerGone));
    assert_eq!(client.wait(ids[0]).unwrap().bytes(), b"just so");
    assert_eq!(client.wait(ids[1]).unwrap().bytes(), b"even so");
    for _ in 0..2 {
        assert_eq!(client.call(b"hello?"), Err(CallError::PeerGone));
    }
}

#[test]
fn a_sleeping_call_ends_when_the_server_goes() {
    let (server, mut client, _watchdog) = line();
    let ended = while_asleep(|| client.call(b"x"), || drop(server));
    assert_eq!(ended, Err(CallError::PeerGone));
}

#[test]
fn a_sleeping_server_ends_when_the_client_goes() {
    let (mut server, client, _watchdog) = line();
    let ended = while_asleep(|| server.next_request().map(drop), || drop(client));
    assert!(matches!(ended, Err(RecvError::EndOfStream { .. })));
    assert!(matches!(
        server.next_request().map(drop),
        Err(RecvError::EndOfStream { .. })
    ));
}

#[test]
fn client_with_too_many_calls_blocks_no_server() {
    const CALLS: u64 = 3000;
    let (mut server, mut client, _watchdog) = line();
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(request) = server.next_request() {
                let echo = request.bytes().repeat(3);
                request.reply(&echo).unwrap();
            }
        });
        let ids: Vec<CallId> = (0..CALLS)
            .map(|n| client.start(&n.to_le_bytes()).unwrap())
            .collect();
        for (n, id) in ids.into_iter().enumerate() {
            let reply = client.wait(id).unwrap();
            assert_eq!(reply.bytes(), (n as u64).to_le_bytes().repeat(3));
        }
        drop(client);
    });
}

#[test]
fn server_collects_more_requests_than_the_ring_holds() {
    const CALLS: usize = 200;
    let (mut server, mut client, _watchdog) = line();
    thread::scope(|scope| {
        scope.spawn(move || {
            let requests: Vec<_> = (0..CALLS).map(|_| server.next_request().unwrap()).collect();
            for request in requests {
                request.reply(b"at last").unwrap();
            }
        });
        let ids: Vec<CallId> = (0..CALLS)
            .map(|_| client.start(&[0; 100]).unwrap())
            .collect();
        for id in ids {
            assert_eq!(client.wait(id).unwrap().bytes(), b"at last");
        }
    });
}

#[test]
fn a_full_ring_refuses_and_times_out() {
    let (_server, mut client, _watchdog) = line();
    let refused = loop {
        if let Err(error) = client.try_start(&[0; 100]) {
            break error;
        }
    };
    assert_eq!(refused, CallError::Full);
    let deadline = Instant::now() + SOON;
    assert_eq!(
        client.start_deadline(&[0; 100], deadline),
        Err(CallError::TimedOut)
    );
    assert!(Instant::now() >= deadline);
    let max = client.max_request_bytes();
    assert_eq!(
        client.call(&vec![0; max + 1]),
        Err(CallError::TooLong { max })
    );
}

#[test]
fn reply_times_out_while_a_thread_waits_for_room() {
    let (mut server, mut client, _watchdog) = line();
    for _ in 0..10 {
        client.start(&[0; 100]).unwrap();
    }
    let mut requests: Vec<_> = (0..10).map(|_| server.next_request().unwrap()).collect();
    let request = requests.pop().unwrap();
    let patient: Vec<_> = requests.drain(..6).collect();
    thread::scope(|scope| {
        let asleep = move || {
            for request in patient {
                request.reply(&[0; 1000]).unwrap();
            }
        };
        while_asleep(asleep, || {
            assert_eq!(request.reply_deadline(b"", SOON), Err(SendError::TimedOut));
            scope.spawn(move || {
                // Beside the replies come the calls that are not answered: the others go on after them.
                let ends: Vec<_> = (0..10).map(|_| client.next_reply().map(drop)).collect();
                let answered = ends.iter().filter(|end| end.is_ok()).count();
                assert_eq!((answered, ends.len() - answered), (6, 4), "{ends:?}");
            });
        });
        drop(requests);
        // A report for which there was no room is sent by the server in its next call.
        let end = server.next_request().map(drop);
        assert!(matches!(end, Err(RecvError::EndOfStream { .. })));
    });
}

#[test]
fn interruptions_end_waits_and_keep_calls() {
    let (mut server, mut client, _watchdog) = line();
    let id = client.start(b"x").unwrap();
    let interrupter = client.interrupter();
    let ended = while_asleep(|| client.wait(id), || interrupter.interrupt());
    assert_eq!(ended, Err(CallError::Interrupted));
    server.next_request().unwrap().reply(b"y").unwrap();
    assert_eq!(client.wait(id).unwrap().bytes(), b"y");
    let interrupter = server.interrupter();
    let ended = while_asleep(
        || server.next_request().map(drop),
        || interrupter.interrupt(),
    );
    assert_eq!(ended, Err(RecvError::Interrupted));
    assert_eq!(
        server.next_request_deadline(SOON).map(drop),
        Err(RecvError::TimedOut)
    );
}

#[test]
fn what_is_no_call_is_dropped_and_counted() {
    let (server, mut strange, _watchdog) = ends();
    let mut server = Server::new(server);
    for (kind, len) in [(0, 20), (1, 7), (2, 20), (9, 8)] {
        strange
            .producer()
            .send_with(&vec![0; len], Tag::new(kind))
            .unwrap();
    }
    assert_eq!(
        server.next_request_deadline(SOON).map(drop),
        Err(RecvError::TimedOut)
    );
    assert_eq!(server.malformed_requests(), 4);
    let (mut strange, client, _watchdog) = ends();
    let mut client = Client::new(client);
    let id = client.start(b"x").unwrap();
    // An id that was never given, a request, no id, nothing known.
    for (kind, bytes) in [
        (2, [9; 8].as_slice()),
        (1, &[0; 8]),
        (2, &[0; 3]),
        (7, &[0; 8]),
    ] {
        strange.producer().send_with(bytes, Tag::new(kind)).unwrap();
    }
    assert_eq!(client.wait_deadline(id, SOON), Err(CallError::TimedOut));
    assert_eq!((client.malformed_replies(), client.late_replies()), (4, 0));
}
