//! Slices of the segment, only with `trust_peers`.

use semring::spsc;

use crate::fixture::CAPACITY;
use crate::rings;

over_each_backend! {
    fn without_trust_there_is_no_slice(fixture) {
        let ring = fixture.spsc();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        let mut reservation = producer.reserve(4).unwrap();
        assert!(reservation.as_mut_slice().is_none());
        reservation.write_at(0, b"copy");
        reservation.commit();
        let message = consumer.recv().unwrap();
        assert!(message.as_slice().is_none() && message.as_message_ref().as_slice().is_none());
        message.put_back();
        assert!(consumer.recv_batch().unwrap().next_message().unwrap().as_slice().is_none());
    }

    fn trusted_peers_read_and_write_in_place(fixture) {
        // SAFETY: this process is the only one that has the ring, and uses semring only.
        let builder = unsafe { rings::spsc(&fixture.address).trust_peers() };
        let ring = builder.capacity(CAPACITY).create().unwrap();
        let mut producer = ring.attach_producer().unwrap();
        let mut consumer = ring.attach_consumer().unwrap();
        for len in [0, 1, 7, 8, 1000, 1024] {
            let mut reservation = producer.reserve(len).unwrap();
            let slice = reservation.as_mut_slice().unwrap();
            assert_eq!(slice.len(), len);
            slice.fill(len as u8);
            reservation.commit();
            let message = consumer.recv().unwrap();
            assert_eq!(message.as_slice().unwrap(), vec![len as u8; len]);
            assert_eq!(message.as_message_ref().as_slice(), message.as_slice());
        }
        // Trust belongs to the handle, not to the ring.
        drop(producer);
        let other = spsc::open(&fixture.address).unwrap();
        assert!(other.attach_producer().unwrap().reserve(1).unwrap().as_mut_slice().is_none());
    }
}
