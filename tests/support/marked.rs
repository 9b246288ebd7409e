//! Single operations between two markers, for a stepper that kills this process in between. Everything
//! that is not the operation itself is done before the first marker.
//!
//! | command | operation |
//! |---|---|
//! | `send P NUMBER LEN` | one `send` |
//! | `send-part P NUMBER LEN` | one `send_with` of a part of a line |
//! | `recv-part` | `recv_from` of lane 0 and `release_part` |
//! | `send-timeout P NUMBER LEN MS` | the same, with a time-out |
//! | `reserve P NUMBER LEN` | reserve more than needed, fill in two parts, shorten, commit |
//! | `discard LEN` | reserve, fill, discard |
//! | `batch P FIRST COUNT LEN` | a batch: begin, push each, commit |
//! | `send-all P FIRST COUNT` | an array of messages of 100 bytes |
//! | `reserve-array P FIRST COUNT` | reserve an array of two messages more, fill it, commit |
//! | `recv-array COUNT` | receive an array, release the first messages of it, then flush |
//! | `recv` | receive one message and release it, then flush |
//! | `recv-batch` | receive all that is there as a batch and release it, then flush |
//! | `recv-end` | receive, which gives the end of the stream; once more, which notes it |
//! | `recv-timeout MS` | receive with a time-out, on an empty ring |
//! | `attach` · `detach` · `close` | a producer's |
//! | `attach-consumer` · `detach-consumer` · `close-consumer` | a consumer's |
//! | `open-or-create A LANES CAPACITY` · `create A LANES CAPACITY` · `open A` | |
//! | `remove A` · `force-remove A` | |
//! | `remove-at-end` | the consumer's |
//! | `come A LANES CAPACITY` · `come-to-wait A LANES CAPACITY` | see [`super::settings`] |
//! | `come-again A LANES CAPACITY` | a consumer whose ring was replaced receives, detaches, and comes to the new ring |

use semring::{Framing, RecvError, Tag, UnusedRing, any};
use semring_testkit::message;
use semring_testkit::step::marker;

use super::settings::come;
use super::{Answer, Peer, Words, address, done, failed};

/// Bytes of a message of an array.
const ELEMENT_BYTES: usize = 100;

/// Messages of a producer: a first number, and how many.
fn array_of(words: &mut Words<'_>) -> Vec<[u8; ELEMENT_BYTES]> {
    let (sender, first, count) = (words.producer(), words.number(), words.number());
    let message = |number| {
        let mut bytes = Vec::new();
        message::encode(sender, number, ELEMENT_BYTES, &mut bytes);
        bytes.try_into().expect("so long it is")
    };
    (first..first + count).map(message).collect()
}

impl Peer {
    pub(super) fn marked(&mut self, words: &mut Words<'_>) -> Answer {
        let command = words.text();
        match command {
            "send" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let producer = self.producer();
                marker();
                let result = producer.send(&bytes);
                marker();
                done(result)
            }
            "send-part" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let tag = Tag::default().with_framing(Framing::LinePart);
                let producer = self.producer();
                marker();
                let result = producer.send_with(&bytes, tag);
                marker();
                done(result)
            }
            "recv-part" => {
                let mut bytes = Vec::with_capacity(4096);
                let consumer = self.consumer();
                marker();
                let result = consumer.recv_from(0).map(|received| {
                    received.append_to(&mut bytes);
                    received.release_part();
                });
                marker();
                done(result)
            }
            "send-timeout" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let timeout = words.milliseconds();
                let producer = self.producer();
                marker();
                let result = producer.send_deadline(&bytes, timeout);
                marker();
                done(result)
            }
            "reserve" => {
                let mut bytes = Vec::new();
                message::encode(words.producer(), words.number(), words.size(), &mut bytes);
                let (front, back) = bytes.split_at(bytes.len() / 2);
                let producer = self.producer();
                marker();
                let result = producer.reserve(bytes.len() + 24).map(|mut reservation| {
                    reservation.write_at(front.len(), back);
                    reservation.write_at(0, front);
                    reservation.truncate(bytes.len());
                    reservation.commit();
                });
                marker();
                done(result)
            }
            "discard" => {
                let bytes = vec![0xff; words.size()];
                let producer = self.producer();
                marker();
                let result = producer
                    .reserve(bytes.len())
                    .map(|mut reservation| reservation.write_at(0, &bytes));
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
            "send-all" => {
                let messages = array_of(words);
                let producer = self.producer();
                marker();
                let result = producer.send_all(&messages);
                marker();
                done(result)
            }
            "reserve-array" => {
                let messages = array_of(words);
                let producer = self.producer();
                marker();
                let result = producer
                    .reserve_array(ELEMENT_BYTES, messages.len() + 2)
                    .map(|mut array| {
                        for (index, message) in messages.iter().enumerate() {
                            array.write(index, message);
                        }
                        array.commit(messages.len());
                    });
                marker();
                done(result)
            }
            "recv-array" => {
                let mut messages: Vec<[u8; ELEMENT_BYTES]> = Vec::with_capacity(64);
                let count = words.size();
                let consumer = self.consumer();
                marker();
                consumer.resume();
                let result = consumer.recv_array().and_then(|array| {
                    array.append_to(&mut messages)?;
                    array.release_first(count);
                    Ok(())
                });
                let flushed = consumer.flush_released();
                marker();
                done(result.and(flushed))
            }
            "recv" => {
                let mut bytes = Vec::with_capacity(4096);
                let consumer = self.consumer();
                marker();
                consumer.resume();
                let result = consumer
                    .recv()
                    .map(|received| received.append_to(&mut bytes));
                let flushed = consumer.flush_released();
                marker();
                done(result.and(flushed))
            }
            "recv-batch" => {
                let mut bytes = Vec::with_capacity(8192);
                let consumer = self.consumer();
                marker();
                consumer.resume();
                let result = consumer.recv_batch().map(|mut batch| {
                    while let Some(received) = batch.next_message() {
                        received.append_to(&mut bytes);
                    }
                });
                let flushed = consumer.flush_released();
                marker();
                done(result.and(flushed))
            }
            "recv-end" => {
                let consumer = self.consumer();
                marker();
                consumer.resume();
                let end = consumer.recv().map(|_| ());
                let flushed = consumer.flush_released();
                marker();
                match end {
                    Err(RecvError::EndOfStream { .. }) => done(flushed),
                    other => Err(format!("no end: {other:?}")),
                }
            }
            "recv-timeout" => {
                let timeout = words.milliseconds();
                let consumer = self.consumer();
                marker();
                consumer.resume();
                let result = consumer.recv_deadline(timeout).map(|_| ());
                marker();
                done(result)
            }
            "attach" => {
                let ring = self.ring();
                marker();
                let producer = ring.attach_producer();
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
            "close" => {
                let producer = self.producer.take().expect("attached");
                marker();
                producer.close();
                marker();
                Ok("ok".to_owned())
            }
            "abort" => {
                let producer = self.producer.take().expect("attached");
                marker();
                producer.abort();
                marker();
                Ok("ok".to_owned())
            }
            "attach-consumer" => {
                let ring = self.ring();
                marker();
                let consumer = ring.attach_consumer();
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
            "close-consumer" => {
                let consumer = self.consumer.take().expect("attached");
                marker();
                consumer.close();
                marker();
                Ok("ok".to_owned())
            }
            "create" => {
                let builder = self.builder(words.text());
                let builder = builder.producers(words.size()).capacity(words.number());
                marker();
                let ring = builder.create();
                marker();
                self.keep_ring(ring)
            }
            "open" => {
                let builder = self.builder(words.text());
                marker();
                let ring = builder.open();
                marker();
                self.keep_ring(ring)
            }
            "open-or-create" => {
                let builder = self.builder(words.text());
                let builder = builder.producers(words.size()).capacity(words.number());
                marker();
                let ring = builder.open_or_create();
                marker();
                self.keep_ring(ring)
            }
            "remove" | "force-remove" => {
                let address = address(words);
                marker();
                let result = if command == "force-remove" {
                    semring::force_remove(&address).map(drop)
                } else {
                    semring::remove(&address)
                };
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
            "come" => {
                let builder = self.with_settings(words, UnusedRing::Replace);
                marker();
                let came = come(&builder, any::Ring::attach_producer);
                marker();
                let (ring, producer) = came?;
                (self.ring, self.producer) = (Some(ring), Some(producer));
                Ok("ok".to_owned())
            }
            "come-to-wait" => {
                let builder = self.with_settings(words, UnusedRing::ReplaceIdle);
                marker();
                let came = come(&builder, any::Ring::attach_consumer);
                marker();
                let (ring, consumer) = came?;
                (self.ring, self.consumer) = (Some(ring), Some(consumer));
                Ok("ok".to_owned())
            }
            "come-again" => {
                let builder = self.with_settings(words, UnusedRing::ReplaceIdle);
                let mut consumer = self.consumer.take().expect("attached");
                marker();
                let replaced = consumer.recv().map(drop);
                drop(consumer);
                let came = come(&builder, any::Ring::attach_consumer);
                marker();
                let (ring, consumer) = came?;
                (self.ring, self.consumer) = (Some(ring), Some(consumer));
                match replaced {
                    Err(RecvError::Replaced) => Ok("ok".to_owned()),
                    other => Err(format!("not replaced: {other:?}")),
                }
            }
            other => panic!("no such marked command: {other}"),
        }
    }
}
