//! Killed inside a line: a producer that sends its parts, a consumer that passes them on.

use crate::fixture::Fixture;
use crate::kill_points::{KillPoints, Points};
use crate::staged::{at_marker, gone, whole};
use semring::{Framing, RecvError, Tag};
use semring_testkit::message;

traced_over_both_backends! {
    producer_killed_in_sending_a_part
    consumer_killed_in_passing_on_a_part
}

/// A successor that sends, or sends nothing, is never taken for the killed one.
fn producer_killed_in_sending_a_part(fixture: Fixture) {
    let mut is_silent = false;
    KillPoints::new(&fixture, "send-a-part", Points::Every).kill(
        || {
            let ring = fixture.ring(1);
            let consumer = ring.attach_consumer().unwrap();
            let prepare = ["producer", "send-parts 1 0 2 100"];
            (
                at_marker(&fixture, &prepare, "send-part 1 2 100"),
                (ring, consumer),
            )
        },
        |point, (ring, mut consumer)| {
            is_silent = !is_silent;
            let mut successor = ring.attach_producer().unwrap();
            let mut bytes = Vec::new();
            message::encode(2, 0, 100, &mut bytes);
            if !is_silent {
                successor.send(&bytes).unwrap();
            }
            let first = consumer.recv().unwrap();
            assert_eq!(whole(&first.to_vec()), (1, 0));
            first.release_part();
            let mut parts = 1;
            loop {
                match consumer.recv_from(0) {
                    Ok(part) => {
                        assert_eq!(whole(&part.to_vec()), (1, parts));
                        part.release_part();
                        parts += 1;
                    }
                    Err(error) => {
                        assert_eq!(error, RecvError::LaneEnded);
                        break;
                    }
                }
            }
            assert!(parts == 3 || parts == 2 && !point.at_end, "{parts}");
            if is_silent {
                successor.send(&bytes).unwrap();
            }
            assert_eq!(whole(&consumer.recv().unwrap().to_vec()), (2, 0));
            drop(successor);
            assert!(matches!(
                consumer.recv().err(),
                Some(RecvError::EndOfStream { .. })
            ));
            gone(&fixture, consumer);
        },
    );
    fixture.finish_removed();
}

fn consumer_killed_in_passing_on_a_part(fixture: Fixture) {
    KillPoints::new(&fixture, "pass-on-a-part", Points::Every).kill(
        || {
            let ring = fixture.ring(2);
            let mut long = ring.attach_producer().unwrap();
            let mut short = ring.attach_producer().unwrap();
            let mut bytes = Vec::new();
            for number in 0..3 {
                message::encode(1, number, 100, &mut bytes);
                let tag = Tag::default().with_framing(Framing::LinePart);
                long.send_with(&bytes, tag).unwrap();
            }
            message::encode(1, 3, 100, &mut bytes);
            long.send(&bytes).unwrap();
            message::encode(2, 0, 100, &mut bytes);
            short.send(&bytes).unwrap();
            let stepper = at_marker(&fixture, &["consumer", "recv-part"], "recv-part");
            (stepper, ring)
        },
        |point, ring| {
            let mut consumer = ring.attach_consumer().unwrap();
            assert_eq!(consumer.continued_lane(), Some(0));
            let first = consumer.recv_from(0).unwrap();
            let (sender, mut number) = whole(&first.to_vec());
            assert_eq!(sender, 1);
            assert!(number == 2 || number == 1 && !point.at_end, "{number}");
            first.release_part();
            while number < 3 {
                number += 1;
                let part = consumer.recv_from(0).unwrap();
                assert_eq!(whole(&part.to_vec()), (1, number));
                if number < 3 {
                    part.release_part();
                }
            }
            assert_eq!(whole(&consumer.recv().unwrap().to_vec()), (2, 0));
            assert!(matches!(
                consumer.recv().err(),
                Some(RecvError::EndOfStream { .. })
            ));
            gone(&fixture, consumer);
        },
    );
    fixture.finish_removed();
}
