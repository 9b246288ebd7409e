//! Chosen words in chosen places: each has its own right answer.

use super::*;
use crate::rings;

fn control_words(memory: &Memory) -> Vec<(&'static str, u64)> {
    let consumer = CONSUMER_WORDS.map(|(name, at)| (name, CONSUMER_PAGE + at));
    let lane = LANE_WORDS.map(|(name, at)| (name, memory.lane(0) + at));
    consumer.into_iter().chain(lane).collect()
}

#[test]
fn no_control_word_can_hold_what_breaks_an_opener() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "control words before attaching");
    let words = control_words(&Victim::new(1).memory);
    for (name, at) in words {
        for word in WORDS {
            let victim = Victim::filled(2);
            victim.memory.write_word(at, word);
            eprintln!("{name} = {word:#x}");
            use_everything(&victim);
        }
    }
}

#[test]
fn no_value_of_a_control_word_breaks_attached_peers() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "control words while attached");
    let words = control_words(&Victim::new(1).memory);
    for (name, at) in words {
        for word in WORDS {
            let victim = Victim::filled(1);
            let mut producer = victim.ring.attach_producer().unwrap();
            let mut consumer = victim.ring.attach_consumer().unwrap();
            consumer.recv().unwrap().release();
            eprintln!("{name} = {word:#x}");
            victim.memory.write_word(at, word);
            use_producer(&mut producer);
            let mut messages = 0;
            loop {
                match consumer.try_recv() {
                    Ok(message) => drop(message.to_vec()),
                    Err(RecvError::Corrupt { lane, .. }) => assert_eq!(lane, 0),
                    Err(_) => break,
                }
                messages += 1;
                assert!(messages <= MANY);
            }
            let _ = victim.ring.info();
            use_producer(&mut producer);
            drop(consumer);
            let _ = use_consumer(&victim.ring);
            producer.close();
            use_everything(&victim);
        }
    }
}

fn send_until_refused(producer: &mut mpsc::Producer) -> SendError {
    (0..100)
        .find_map(|_| producer.try_send(&[0; 100]).err())
        .expect("a lane of 4096 bytes fills")
}

#[test]
fn false_released_corrupts_the_producers_lane() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "released");
    for lie in [u64::MAX, 1 << 40, 4097, 1, 1 << 63] {
        let victim = Victim::new(2);
        let mut producer = victim.ring.attach_producer().unwrap();
        let released = victim.memory.lane(0) + lane_word("released");
        victim.memory.write_word(released, lie);
        assert_eq!(
            send_until_refused(&mut producer),
            SendError::Corrupt,
            "{lie:#x}"
        );
        assert_eq!(
            producer.send(&[0; 1024]),
            Err(SendError::Corrupt),
            "and it does not wait"
        );
        drop(producer);
        // The lane has no more producers; the other one has.
        assert_eq!(victim.ring.attach_producer().unwrap().lane(), 1);
        let second = victim.ring.attach_producer().unwrap();
        let refused = victim
            .ring
            .attach_producer()
            .map(|producer| producer.lane());
        assert!(
            matches!(refused, Err(AttachError::Corrupt { lane: 0, .. })),
            "{refused:?}"
        );
        drop(second);
    }
}

#[test]
fn false_committed_is_reported_to_a_successor() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "committed");
    for lie in [1, 4, 4095, u64::MAX, 1 << 62] {
        let victim = Victim::new(1);
        victim
            .memory
            .write_word(victim.memory.lane(0) + lane_word("committed"), lie);
        let refused = victim.ring.attach_producer().map(drop).unwrap_err();
        assert!(
            matches!(refused, AttachError::Corrupt { lane: 0, .. }),
            "{refused}"
        );
        let text = refused.to_string();
        assert!(
            text.contains("lane 0") && text.contains("remove the ring"),
            "{text}"
        );
        // The role was given back.
        assert!(victim.ring.info().unwrap().lanes[0].producer_pid.is_none());
    }
}

#[test]
fn endless_headers_have_an_end() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "header loops");
    let message = |len: u64| 0xA5 << 56 | len;
    for (step, header) in [
        (8, message(0)),
        (16, message(8)),
        (64, message(50)),
        (1024, message(1016)),
    ] {
        let victim = Victim::new(1);
        for at in (0..CAPACITY).step_by(step) {
            victim.memory.write_word(victim.memory.data(0) + at, header);
        }
        assert!(matches!(
            victim.ring.attach_producer(),
            Err(AttachError::Corrupt { .. })
        ));
        assert_eq!(use_consumer(&victim.ring).unwrap(), [0], "step {step}");
        use_everything(&victim);
    }
}

#[test]
fn a_message_across_the_end_of_the_lane_is_damage() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "across the end");
    for (rest, len) in [(8, 1), (16, 100), (512, 505), (1024, 1017)] {
        let victim = Victim::new(1);
        let start = CAPACITY - rest;
        for word in ["committed", "released"] {
            let at = victim.memory.lane(0) + lane_word(word);
            victim.memory.write_word(at, start);
        }
        let at = victim.memory.data(0) + start;
        victim.memory.write_word(at, 0xA5 << 56 | len);
        let refused = victim.ring.attach_producer().map(drop);
        let position = Position::new(start);
        assert_eq!(refused, Err(AttachError::Corrupt { lane: 0, position }));
        assert_eq!(use_consumer(&victim.ring).unwrap(), [0]);
        use_everything(&victim);
    }
}

#[test]
fn pads_everywhere_are_damage() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "pads");
    let pad = |bytes: u64| 0xA5 << 56 | 1 << 31 | (bytes - 8);
    // Padding that reaches to the end, as it should, and padding that reaches round the whole lane.
    let victim = Victim::new(1);
    for at in (0..CAPACITY).step_by(8) {
        victim
            .memory
            .write_word(victim.memory.data(0) + at, pad(CAPACITY - at));
    }
    let refused = victim.ring.attach_producer().map(drop);
    assert_eq!(
        refused,
        Err(AttachError::Corrupt {
            lane: 0,
            position: Position::new(0)
        })
    );
    assert_eq!(use_consumer(&victim.ring).unwrap(), [0]);
    use_everything(&victim);
}

#[test]
fn garbage_in_the_wait_words_costs_a_wake_up_and_no_more() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "wait words");
    let victim = Victim::new(1);
    let mut producer = victim.ring.attach_producer().unwrap();
    let mut consumer = victim.ring.attach_consumer().unwrap();
    for word in [1, u64::MAX, 1 << 63] {
        victim.memory.write_word(CONSUMER_PAGE, word);
        victim
            .memory
            .write_word(victim.memory.lane(0) + lane_word("wait word"), word);
        for number in 0..200u32 {
            producer.send(&number.to_le_bytes()).unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), number.to_le_bytes());
            consumer.flush_released().unwrap();
        }
    }
    // And a sleeper is woken as before.
    thread::scope(|scope| {
        let waiting = scope.spawn(move || consumer.recv().map(|message| message.to_vec()));
        producer.send(b"on").unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), b"on");
    });
}

#[test]
fn generations_at_their_end_begin_again() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "generations");
    let victim = Victim::new(1);
    victim.memory.write_word(CONSUMER_PAGE + 0x80, u64::MAX);
    victim.memory.write_word(
        victim.memory.lane(0) + lane_word("generation"),
        u64::MAX - 1,
    );
    for round in 0..4u8 {
        let mut consumer = victim.ring.attach_consumer().unwrap();
        let mut producer = victim.ring.attach_producer().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let first = consumer.recv().map(|message| message.to_vec());
                (first, consumer.recv().map(|message| message.to_vec()))
            });
            producer.send(&[round]).unwrap();
            drop(producer);
            let (message, end) = waiting.join().unwrap();
            assert_eq!(message.unwrap(), [round]);
            assert!(matches!(end, Err(RecvError::EndOfStream { .. })));
        });
    }
}

#[test]
fn garbage_about_the_last_end_of_stream_spoils_no_message() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "end of stream");
    for word in WORDS {
        let victim = Victim::new(1);
        victim.memory.write_word(CONSUMER_PAGE + 0x100, word);
        let mut producer = victim.ring.attach_producer().unwrap();
        let mut consumer = victim.ring.attach_consumer().unwrap();
        producer.send(b"one").unwrap();
        drop(producer);
        assert_eq!(consumer.recv().unwrap().to_vec(), b"one");
        // After a message the end is due, independent of the recorded end.
        assert!(matches!(
            consumer.recv().err(),
            Some(RecvError::EndOfStream { .. })
        ));
    }
}

#[test]
fn a_corrupt_lane_is_reported_once_and_the_others_go_on() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "a corrupt lane");
    let victim = Victim::new(3);
    let mut producers: Vec<_> = (0..3)
        .map(|_| victim.ring.attach_producer().unwrap())
        .collect();
    let mut consumer = victim.ring.attach_consumer().unwrap();
    for producer in &mut producers {
        producer.send(b"first").unwrap();
        producer.send(b"second").unwrap();
    }
    victim.memory.write_word(victim.memory.data(1) + 16, 0xBAD);
    let mut received = [0; 3];
    let mut reports = Vec::new();
    let mut receive_all = |received: &mut [i32; 3]| loop {
        match consumer.try_recv() {
            Ok(message) => received[message.lane()] += 1,
            Err(RecvError::Corrupt { lane, position }) => reports.push((lane, position.get())),
            Err(RecvError::Empty) => break,
            Err(other) => panic!("{other}"),
        }
    };
    receive_all(&mut received);
    assert_eq!(received, [2, 1, 2]);
    for producer in &mut producers {
        producer.send(b"third").unwrap();
    }
    receive_all(&mut received);
    assert_eq!(received, [3, 1, 3]);
    assert_eq!(reports, [(1, 16)]);
    let info = victim.ring.info().unwrap();
    let corrupt_at: Vec<_> = info.lanes.iter().map(|lane| lane.corrupt_at).collect();
    assert_eq!(corrupt_at, [None, Some(Position::new(16)), None]);
    // The end comes all the same.
    drop(producers);
    assert!(matches!(
        consumer.recv().err(),
        Some(RecvError::EndOfStream { .. })
    ));
    assert_eq!(consumer.corrupt_lanes(), 1);
    drop(consumer);
    assert_eq!(
        use_consumer(&victim.ring).unwrap(),
        [1],
        "a new consumer gets it, too"
    );
}

#[test]
fn damage_found_by_a_batch_is_reported_next() {
    let victim = Victim::new(1);
    let mut producer = victim.ring.attach_producer().unwrap();
    let mut consumer = victim.ring.attach_consumer().unwrap();
    producer.send(b"sound").unwrap();
    victim.memory.write_word(victim.memory.data(0) + 16, 0xBAD);
    let mut batch = consumer.recv_batch().unwrap();
    assert_eq!(batch.next_message().unwrap().to_vec(), b"sound");
    assert!(batch.next_message().is_none());
    drop(batch);
    let position = Position::new(16);
    assert_eq!(
        consumer.recv().err(),
        Some(RecvError::Corrupt { lane: 0, position })
    );
    assert_eq!(consumer.try_recv().err(), Some(RecvError::Empty));
}

#[test]
fn unfinished_superblock_is_no_ring() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "an unfinished superblock");
    for state in [0u32, 1] {
        for zeros in [false, true] {
            let victim = Victim::new(2);
            if zeros {
                victim.memory.write(0, &[0; SUPERBLOCK_BYTES]);
            }
            victim.memory.write(STATE_AT as u64, &state.to_le_bytes());
            let opened = any::open(victim.guard.posix()).map(drop).unwrap_err();
            assert!(matches!(opened, OpenError::NotARing { .. }), "{opened}");
            let made = rings::any(victim.guard.posix()).open_or_create().map(drop);
            assert!(made.unwrap_err().to_string().contains("not a ring"));
            assert!(semring::inspect(victim.address()).is_err());
        }
    }
}

#[test]
fn a_file_that_was_cut_short_is_no_ring() {
    let victim = Victim::new(2);
    let path = format!("/dev/shm/{}", victim.guard.name());
    for len in [victim.memory.len() - 1, 8192, 4096, 100, 0] {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        // The mapping of the test's own handle is not touched from here on.
        file.set_len(len).unwrap();
        let refused = any::open(victim.guard.posix()).map(drop).unwrap_err();
        assert!(
            matches!(refused, OpenError::NotARing { .. }),
            "{len}: {refused}"
        );
        assert!(semring::inspect(victim.address()).is_err());
        assert!(
            semring::list()
                .iter()
                .all(|info| info.address != victim.address())
        );
    }
}

/// As a version without arrays makes it.
#[test]
fn ring_without_arrays_says_so() {
    let victim = Victim::new(1);
    victim.memory.write_word(0x038, 0);
    victim.memory.sign();
    let ring = any::open(victim.guard.posix()).unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let missing = SendError::MissingFeature(Feature::Arrays);
    producer.send(b"a message").unwrap();
    assert_eq!(producer.send_all(&[[1; 8], [2; 8]]), Err(missing));
    assert_eq!(producer.try_send_all(&[[1; 8]]), Err(missing));
    assert_eq!(producer.reserve_array(8, 3).err(), Some(missing));
    assert!(missing.to_string().contains("arrays"), "{missing}");
    // What it has are arrays of one.
    let mut consumer = ring.attach_consumer().unwrap();
    assert_eq!(consumer.recv_array().unwrap().len(), 1);
}

#[test]
fn a_lie_about_an_array_marks_its_lane_corrupt() {
    let _watchdog = Watchdog::new(HANG_TIMEOUT, "words of arrays");
    let header = |length: u64| 0xA7 << 56 | length;
    let word = |stride: u64, count: u64| count << 32 | stride;
    for (header, word) in [
        (header(40), word(0, 40)),
        (header(40), word(40, 0)),
        (header(40), word(10, 5)),
        (header(0), 0),
        (header(0), word(1 << 31, 1 << 31)),
        (header(40), u64::MAX),
        (header(1025), word(1, 1025)),
    ] {
        let victim = Victim::new(1);
        victim.memory.write_word(victim.memory.data(0), header);
        victim.memory.write_word(victim.memory.data(0) + 8, word);
        assert!(matches!(
            victim.ring.attach_producer(),
            Err(AttachError::Corrupt { .. })
        ));
        assert_eq!(
            use_consumer(&victim.ring).unwrap(),
            [0],
            "{header:#x} {word:#x}"
        );
        use_everything(&victim);
    }
}
