//! Messages that are sent or received together: batches and arrays.

use super::*;

impl Lane {
    /// An array for which room of this length was reserved. A message's position is 8 less than where its bytes are.
    fn commit_array(&mut self, len: usize, messages: Vec<Vec<u8>>) {
        let record = self.place_with(len, Self::array_lead);
        let lead = Self::array_lead(record, len);
        let bytes: usize = messages.iter().map(Vec::len).sum();
        self.tail = record + Self::record(lead, bytes);
        self.committed += messages.len() as u64;
        self.open_line = false;
        self.cut_due = false;
        let mut position = record + lead - 8;
        for bytes in messages {
            let next = position + bytes.len() as u64;
            self.unread.push_back(Sent {
                position: Position::new(position),
                tag: Tag::default(),
                bytes,
            });
            position = next;
        }
    }
}

impl<K: Kind> World<K> {
    pub(super) fn send_all<const N: usize>(&mut self, lane: usize, count: usize) -> Check {
        let messages: Vec<[u8; N]> = (0..count)
            .map(|_| self.content(N).try_into().expect("so long it is"))
            .collect();
        let Some(producer) = &mut self.producers[lane] else {
            return Ok(());
        };
        let sent = match producer.try_send_all(&messages) {
            Ok(sent) => sent,
            Err(SendError::Full) => {
                prop_assert!(count > 0);
                0
            }
            Err(other) => return Err(TestCaseError::fail(format!("try_send_all: {other}"))),
        };
        for part in messages[..sent].chunks(MAX / N) {
            let part: Vec<_> = part.iter().map(|message| message.to_vec()).collect();
            self.lanes[lane].commit_array(N * part.len(), part);
        }
        if sent < count {
            prop_assert_eq!(sent % (MAX / N), 0, "a part of an array");
            return self.check_full(lane);
        }
        prop_assert_eq!(producer.position().get(), self.lanes[lane].tail);
        Ok(())
    }

    pub(super) fn reserve_array(
        &mut self,
        lane: usize,
        size: usize,
        count: usize,
        keep: usize,
    ) -> Check {
        let messages: Vec<_> = (0..count).map(|_| self.content(size)).collect();
        let Some(producer) = &mut self.producers[lane] else {
            return Ok(());
        };
        let mut array = match producer.try_reserve_array(size, count) {
            Ok(array) => array,
            Err(SendError::TooLong { max }) => {
                prop_assert!(size * count > MAX && max == MAX);
                return Ok(());
            }
            Err(SendError::Full) => return self.check_full(lane),
            Err(other) => return Err(TestCaseError::fail(format!("reserve_array: {other}"))),
        };
        prop_assert_eq!((array.len(), array.message_bytes()), (count, size));
        for (index, message) in messages.iter().enumerate().rev() {
            array.write(index, message);
        }
        let keep = keep.min(count);
        array.commit(keep);
        let model = &mut self.lanes[lane];
        let len = size * count;
        if keep > 0 {
            model.commit_array(len, messages[..keep].to_vec());
        } else {
            // The padding before it is there, and the end of a line.
            model.tail = model.place_with(len, Lane::array_lead);
            (model.cut_due, model.open_line) = (false, model.open_line && !model.cut_due);
        }
        prop_assert_eq!(producer.position().get(), model.tail);
        Ok(())
    }

    pub(super) fn recv_array(&mut self, waits: bool, count: usize, then: Then) -> Check {
        let consumer = self.consumer.as_mut().expect("there is one");
        let received = if waits {
            consumer.recv_array_deadline(Duration::ZERO)
        } else {
            consumer.try_recv_array()
        };
        let mut taken = 0;
        let received = received.map(|array| {
            let lane = array.lane();
            let seen: Vec<_> = array.iter().map(|message| Self::seen(&message).1).collect();
            assert_eq!(seen.len(), array.len());
            assert!(
                seen.iter()
                    .all(|it| it.bytes.len() == array.message_bytes())
            );
            let mut bytes = vec![0; array.total_bytes()];
            array.copy_to(&mut bytes);
            assert_eq!(
                bytes,
                seen.iter()
                    .flat_map(|it| it.bytes.clone())
                    .collect::<Vec<_>>()
            );
            match then {
                Then::Release => {
                    taken = count.min(array.len());
                    array.release_first(taken);
                }
                Then::PutBack => array.put_back(),
                Then::Forget => std::mem::forget(array),
            }
            (lane, seen)
        });
        let (lane, seen) = match received {
            Ok(received) => received,
            Err(error) => return self.check_none(error),
        };
        for (index, sent) in seen.iter().enumerate() {
            prop_assert_eq!(
                Some(sent),
                self.lanes[lane].unread.get(index),
                "lane {}",
                lane
            );
        }
        self.lanes[lane].unread.drain(..taken);
        self.received += taken as u64;
        Ok(())
    }

    pub(super) fn batch(&mut self, lane: usize, lens: &[usize]) -> Check {
        if self.producers[lane].is_none() {
            return Ok(());
        }
        let contents: Vec<_> = lens.iter().map(|&len| self.content(len)).collect();
        let producer = self.producers[lane].as_mut().expect("looked at above");
        let consumer = self.consumer.as_mut().expect("there is one");
        let nothing_unread = self.lanes.iter().all(|lane| lane.unread.is_empty());
        let mut batch = producer.batch();
        let mut full = false;
        for bytes in contents {
            match batch.try_push(&bytes) {
                Ok(()) => self.lanes[lane].commit(bytes.len(), Tag::default(), bytes),
                Err(SendError::TooLong { .. }) => prop_assert!(bytes.len() > MAX),
                Err(SendError::Full) => {
                    full = true;
                    break;
                }
                Err(other) => return Err(TestCaseError::fail(format!("try_push: {other}"))),
            }
            if nothing_unread {
                let seen = consumer.try_recv();
                prop_assert!(
                    matches!(seen, Err(RecvError::Empty)),
                    "seen before the commit"
                );
            }
        }
        batch.commit();
        if full { self.check_full(lane) } else { Ok(()) }
    }

    pub(super) fn recv_batch(&mut self, waits: bool, count: usize, then: Then) -> Check {
        let consumer = self.consumer.as_mut().expect("there is one");
        let received = if waits {
            consumer.recv_batch_deadline(Duration::ZERO)
        } else {
            consumer.try_recv_batch()
        };
        let received = received.map(|mut batch| {
            let mut out = Vec::new();
            while out.len() < count
                && let Some(message) = batch.next_message()
            {
                out.push(Self::seen(&message));
            }
            assert_eq!(batch.messages(), out.len());
            match then {
                Then::Release => batch.release(),
                Then::PutBack => batch.put_back(),
                Then::Forget => std::mem::forget(batch),
            }
            out
        });
        let out = match received {
            Ok(out) => out,
            Err(error) => return self.check_none(error),
        };
        let unread: usize = self.lanes.iter().map(|lane| lane.unread.len()).sum();
        prop_assert_eq!(
            out.len(),
            unread.min(count),
            "a batch gives all that is there"
        );
        let mut queues: Vec<_> = self.lanes.iter().map(|lane| lane.unread.clone()).collect();
        for (lane, sent) in out {
            prop_assert_eq!(Some(sent), queues[lane].pop_front(), "lane {}", lane);
            if then == Then::Release {
                self.lanes[lane].unread.pop_front();
                self.received += 1;
            }
        }
        Ok(())
    }
}
