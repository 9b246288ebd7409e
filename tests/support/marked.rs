//! Single operations between two markers, for a stepper that kills this process in between. Everything
//! that is not the operation itself is done before the first marker.
//!
//! | command | operation |
//! |---|---|
//! | `send P NUMBER LEN` | one `send` |
//! | `batch P FIRST COUNT LEN` | a batch: begin, push each, commit |
//! | `recv` | receive one message and release it, then flush |
//! | `attach` · `detach` | a producer's |
//! | `attach-consumer` · `detach-consumer` | a consumer's |
//! | `open-or-create A LANES CAPACITY` · `force-remove A` | |
//! | `remove-at-end` | the consumer's |

use semring_testkit::message;
use semring_testkit::step::marker;

use super::{Answer, Peer, Words, address, done, failed};

impl Peer {
    pub(super) fn marked(&mut self, words: &mut Words<'_>) -> Answer {
        match words.text() {
            "send" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let producer = self.producer();
                marker();
                let result = producer.send(&bytes);
                marker();
                done(result)
            }
            "batch" => {
                let (sender, first, count) = (words.producer(), words.number(), words.number());
                let len = words.size();
                let mut messages = vec![Vec::new(); usize::try_from(count).expect("a size")];
                for (number, bytes) in (first..).zip(&mut messages) {
                    message::encode(sender, number, len, bytes);
                }
                let producer = self.producer();
                marker();
                let mut batch = producer.batch();
                let result = messages.iter().try_for_each(|bytes| batch.push(bytes));
                batch.commit();
                marker();
                done(result)
            }
            "recv" => {
                let mut bytes = Vec::with_capacity(4096);
                let consumer = self.consumer();
                marker();
                let result = consumer
                    .recv()
                    .map(|received| received.view().append_to(&mut bytes));
                let flushed = consumer.flush_released();
                marker();
                done(result.and(flushed))
            }
            "attach" => {
                let ring = self.ring();
                marker();
                let producer = ring.producer();
                marker();
                self.producer = Some(producer.map_err(failed)?);
                Ok("ok".to_owned())
            }
            "detach" => {
                let producer = self.producer.take();
                marker();
                drop(producer);
                marker();
                Ok("ok".to_owned())
            }
            "attach-consumer" => {
                let ring = self.ring();
                marker();
                let consumer = ring.consumer();
                marker();
                self.consumer = Some(consumer.map_err(failed)?);
                Ok("ok".to_owned())
            }
            "detach-consumer" => {
                let consumer = self.consumer.take();
                marker();
                drop(consumer);
                marker();
                Ok("ok".to_owned())
            }
            "open-or-create" => {
                let builder = self.builder(words.text());
                let builder = builder.producers(words.size()).capacity(words.number());
                marker();
                let ring = builder.open_or_create();
                marker();
                self.keep_ring(ring)
            }
            "force-remove" => {
                let address = address(words);
                marker();
                let result = semring::remove(&address, true);
                marker();
                done(result)
            }
            "remove-at-end" => {
                let consumer = self.consumer();
                marker();
                let result = consumer.remove_at_end();
                marker();
                done(result)
            }
            other => panic!("no such marked command: {other}"),
        }
    }
}
