//! Handles of rings with pipes in poll and epoll.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use semring::{GuardChoice, GuardKind, Pollable, RecvError, SendError, spsc};

use crate::fixture::{CAPACITY, Fixture, LONG, MAX};
use crate::rings;

fn spsc_ring(fixture: &Fixture) -> spsc::Ring {
    let builder = rings::spsc(&fixture.address).capacity(CAPACITY);
    let ring = builder.guard(GuardChoice::Pipe).create().unwrap();
    fixture.guard.objects();
    ring
}

fn readable(pollable: &Pollable, timeout: PollTimeout) -> bool {
    let mut set = [PollFd::new(pollable.as_fd(), PollFlags::POLLIN)];
    poll(&mut set, timeout).unwrap() == 1
}

fn is_readable_now(pollable: &Pollable) -> bool {
    readable(pollable, PollTimeout::ZERO)
}

over_each_backend! {
    fn a_descriptor_is_readable_until_there_was_nothing(fixture) {
        let ring = spsc_ring(&fixture);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        producer.send(b"before").unwrap();
        let pollable = consumer.pollable().unwrap();
        // One call each time, and no message is missed.
        for expected in [&b"before"[..], b"one", b"two", b"three"] {
            assert!(is_readable_now(&pollable));
            assert_eq!(consumer.try_recv().unwrap().to_vec(), expected);
            if expected == b"before" {
                assert!(matches!(consumer.try_recv(), Err(RecvError::Empty)));
                assert!(!is_readable_now(&pollable));
                for message in [&b"one"[..], b"two", b"three"] {
                    producer.send(message).unwrap();
                }
            }
        }
        while is_readable_now(&pollable) {
            assert!(matches!(consumer.try_recv(), Err(RecvError::Empty)));
        }
        // The end is reported, and the descriptor stays readable until it was.
        drop(producer);
        assert!(readable(&pollable, PollTimeout::NONE));
        assert!(readable(&pollable, PollTimeout::NONE));
        assert!(matches!(consumer.try_recv(), Err(RecvError::EndOfStream { .. })));
    }

    fn blocking_and_polling_go_together(fixture) {
        let ring = spsc_ring(&fixture);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let pollable = consumer.pollable().unwrap();
        for round in 0..100u32 {
            producer.send(&round.to_le_bytes()).unwrap();
            producer.send(b"second").unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), round.to_le_bytes());
            assert!(is_readable_now(&pollable), "the second one");
            assert_eq!(consumer.recv_deadline(LONG).unwrap().to_vec(), b"second");
            let nothing = consumer.recv_deadline(Duration::from_micros(1)).map(|_| ());
            assert_eq!(nothing, Err(RecvError::TimedOut));
        }
        while is_readable_now(&pollable) {
            assert!(matches!(consumer.try_recv(), Err(RecvError::Empty)));
        }
    }

    fn a_producer_is_polled_for_room(fixture) {
        let ring = spsc_ring(&fixture);
        let mut producer = ring.attach_producer().unwrap();
        let pollable = producer.pollable().unwrap();
        assert!(is_readable_now(&pollable));
        let fill = |producer: &mut spsc::Producer| {
            let mut sent = 0u64;
            loop {
                match producer.try_send(&[7; MAX]) {
                    Ok(()) => sent += 1,
                    Err(SendError::Full) => return sent,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let mut sent = fill(&mut producer);
        assert!(!is_readable_now(&pollable));
        let mut consumer = ring.attach_consumer().unwrap();
        let (mut received, mut turns) = (0, 0);
        while turns < 50 {
            while consumer.try_recv().is_ok() {
                received += 1;
            }
            assert!(readable(&pollable, PollTimeout::NONE));
            sent += fill(&mut producer);
            turns += 1;
        }
        while consumer.try_recv().is_ok() {
            received += 1;
        }
        assert_eq!(sent, received);
        fill(&mut producer);
        while is_readable_now(&pollable) {
            assert_eq!(producer.try_send(&[7; MAX]), Err(SendError::Full));
        }
        drop(consumer);
        assert!(readable(&pollable, PollTimeout::NONE), "a broken pipe");
        assert_eq!(producer.try_send(&[7; MAX]), Err(SendError::ConsumerGone));
    }

    fn removal_is_reported(fixture) {
        let ring = spsc_ring(&fixture);
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let polled = [consumer.pollable().unwrap(), producer.pollable().unwrap()];
        while producer.try_send(&[7; MAX]).is_ok() {}
        while consumer.try_recv().is_ok() {}
        while producer.try_send(&[7; MAX]).is_ok() {}
        assert_eq!(producer.try_send(&[7; MAX]), Err(SendError::Full));
        while consumer.try_recv().is_ok() {}
        assert!(matches!(consumer.try_recv(), Err(RecvError::Empty)));
        assert!(!is_readable_now(&polled[0]));
        semring::force_remove(ring.address()).unwrap();
        assert!(readable(&polled[0], PollTimeout::NONE));
        assert!(matches!(consumer.try_recv(), Err(RecvError::Removed)));
        assert!(readable(&polled[1], PollTimeout::NONE));
    }

    fn ring_with_semaphores_can_not_be_polled(fixture) {
        let builder = rings::spsc(&fixture.address).guard(GuardKind::Semaphore);
        let ring = builder.create().unwrap();
        fixture.guard.objects();
        let refused = ring.attach_consumer().unwrap().pollable().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
        assert!(refused.to_string().contains("with pipes"), "{refused}");
        assert!(ring.attach_producer().unwrap().pollable().is_err());
    }
}

/// A consumer of many producers, a socket and a timer in one epoll set: no event is missed, in any
/// order. The loop goes on until each source has had an event, as messages may come so fast that there
/// is always another one, up to the end of the stream.
#[test]
fn a_consumer_a_socket_and_a_timer_share_an_event_loop() {
    const EACH: u64 = 2000;
    const PRODUCERS: u64 = 3;
    let fixture = Fixture::new("posix", "epoll");
    let builder = rings::mpsc(&fixture.address)
        .capacity(CAPACITY)
        .producers(3);
    let ring = builder.guard(GuardChoice::Pipe).create().unwrap();
    fixture.guard.objects();
    let mut consumer = ring.attach_consumer().unwrap();
    let pollable = consumer.pollable().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut theirs = Some(theirs);
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
    let tick = Expiration::Interval(Duration::from_micros(500).into());
    timer.set(tick, TimerSetTimeFlags::empty()).unwrap();

    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    let add = |descriptor: &dyn AsFd, which| {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, which);
        epoll.add(descriptor.as_fd(), event).unwrap();
    };
    add(&pollable, 0);
    add(&ours, 1);
    add(&timer, 2);

    let (mut sums, mut said, mut ticks) = ([0u64; 3], 0, 0);
    std::thread::scope(|scope| {
        for number in 0..PRODUCERS {
            let mut producer = ring.attach_producer().unwrap();
            let mut socket = if number == 0 { theirs.take() } else { None };
            scope.spawn(move || {
                for value in 0..EACH {
                    producer.send(&value.to_le_bytes()).unwrap();
                    // The loop goes to sleep now and then.
                    if value % 64 == 0 {
                        std::thread::yield_now();
                        if let Some(socket) = &mut socket {
                            socket.write_all(&[1]).unwrap();
                        }
                    }
                }
            });
        }
        let (mut ended, mut hung_up) = (false, false);
        while !(ended && hung_up && ticks > 0) {
            let mut events = [EpollEvent::empty(); 4];
            let got = epoll.wait(&mut events, EpollTimeout::NONE).unwrap();
            for event in &events[..got] {
                match event.data() {
                    0 => loop {
                        match consumer.try_recv() {
                            Ok(message) => {
                                let mut value = [0; 8];
                                message.copy_to(&mut value);
                                sums[message.lane()] += u64::from_le_bytes(value) + 1;
                            }
                            Err(RecvError::Empty) => break,
                            Err(RecvError::EndOfStream { .. }) => {
                                ended = true;
                                break;
                            }
                            Err(error) => panic!("{error}"),
                        }
                    },
                    1 => {
                        let got = ours.read(&mut [0; 64]).unwrap();
                        said += got;
                        hung_up = got == 0;
                    }
                    _ => {
                        timer.wait().unwrap();
                        ticks += 1;
                    }
                }
            }
        }
    });
    assert_eq!(sums, [EACH * (EACH + 1) / 2; 3]);
    assert_eq!(said as u64, EACH.div_ceil(64));
}
