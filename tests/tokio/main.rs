//! Rings in programs of tokio: many in one thread, beside blocking peers, cancelled at any time.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use semring::tokio::{AsyncConsumer, AsyncProducer};
use semring::{GuardChoice, RecvError, SendError, mpsc, spsc};
use semring_testkit::names::RingGuard;
use semring_testkit::watchdog::Watchdog;

const CAPACITY: u64 = 4096;

/// The fixture of each test.
struct Fixture {
    _guard: RingGuard,
    address: String,
    _watchdog: Watchdog,
}

impl Fixture {
    fn new(label: &str) -> Self {
        let guard = RingGuard::new(label);
        Self {
            address: guard.name().to_owned(),
            _guard: guard,
            _watchdog: Watchdog::new(Duration::from_secs(600), label),
        }
    }

    fn mpsc(&self, producers: usize) -> mpsc::Ring {
        let builder = mpsc::Builder::new(&self.address).capacity(CAPACITY);
        let builder = builder.producers(producers).guard(GuardChoice::Pipe);
        builder.create().unwrap()
    }
}

fn memfd() -> spsc::Ring {
    let builder = spsc::Builder::memfd().capacity(CAPACITY);
    builder.guard(GuardChoice::Pipe).create().unwrap()
}

/// A hundred rings need more descriptors than a login shell allows at first.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn one_thread_serves_a_hundred_rings() {
    const RINGS: u64 = 100;
    const EACH: u64 = 300;
    raise_descriptor_limit();
    let _site = Fixture::new("hundred");
    let mut tasks = Vec::new();
    for number in 0..RINGS {
        let ring = memfd();
        let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
        let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
        tokio::spawn(async move {
            for value in 0..EACH {
                // 100 bytes: a lane is full now and then.
                let mut bytes = [0; 100];
                bytes[..8].copy_from_slice(&(number * EACH + value).to_le_bytes());
                producer.send(&bytes).await.unwrap();
            }
        });
        tasks.push(tokio::spawn(async move {
            let _ring = ring;
            for value in 0..EACH {
                let message = consumer.recv().await.unwrap();
                let got = u64::from_le_bytes(message.to_vec()[..8].try_into().unwrap());
                assert_eq!(got, number * EACH + value);
            }
            let end = consumer.recv().await.map(|_| ());
            assert!(matches!(end, Err(RecvError::EndOfStream { .. })));
            EACH
        }));
    }
    let mut received = 0;
    for task in tasks {
        received += task.await.unwrap();
    }
    assert_eq!(received, RINGS * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_peers_need_no_change() {
    const EACH: u64 = 20_000;
    let fixture = Fixture::new("beside");
    let ring = fixture.mpsc(3);
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut blocking = Vec::new();
    for _ in 0..2 {
        let mut producer = ring.attach_producer().unwrap();
        blocking.push(std::thread::spawn(move || {
            for value in 0..EACH {
                producer.send(&value.to_le_bytes()).unwrap();
            }
        }));
    }
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    tokio::spawn(async move {
        for value in 0..EACH {
            producer.send(&value.to_le_bytes()).await.unwrap();
        }
    });
    let mut next = [0u64; 3];
    loop {
        match consumer.recv().await {
            Ok(message) => {
                let value = u64::from_le_bytes(message.to_vec().try_into().unwrap());
                assert_eq!(value, next[message.lane()]);
                next[message.lane()] += 1;
            }
            Err(RecvError::EndOfStream { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(next, [EACH; 3]);
    blocking
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

/// Futures are dropped in the middle all the time; nothing is lost or comes twice.
#[tokio::test(flavor = "current_thread")]
async fn a_cancelled_call_received_or_sent_nothing() {
    const MESSAGES: u64 = 3000;
    let _site = Fixture::new("cancelled");
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    let sending = tokio::spawn(async move {
        let mut given_up = 0u64;
        for value in 0..MESSAGES {
            let bytes = [value.to_le_bytes(); 32].concat();
            loop {
                tokio::select! {
                    biased;
                    sent = producer.send(&bytes) => break sent.unwrap(),
                    () = tokio::task::yield_now() => given_up += 1,
                }
            }
        }
        given_up
    });
    let (mut expected, mut given_up) = (0, 0u64);
    while expected < MESSAGES {
        tokio::select! {
            biased;
            message = consumer.recv() => {
                let bytes = message.unwrap().to_vec();
                assert_eq!(bytes, [expected.to_le_bytes(); 32].concat());
                expected += 1;
            }
            () = tokio::task::yield_now() => given_up += 1,
        }
    }
    let total = given_up + sending.await.unwrap();
    assert!(total > 0, "none was cancelled");
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_and_a_sink_are_what_others_expect() {
    let _site = Fixture::new("stream");
    let ring = memfd();
    let consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    let items: Vec<Vec<u8>> = (0..500u32).map(|n| n.to_le_bytes().repeat(20)).collect();
    let sent = items.clone();
    let sending = tokio::spawn(async move {
        let mut all = futures_util::stream::iter(sent.into_iter().map(Ok::<_, SendError>));
        producer.send_all(&mut all).await.unwrap();
        SinkExt::<Vec<u8>>::close(&mut producer).await.unwrap();
    });
    let received: Vec<_> = consumer.map(Result::unwrap).collect().await;
    sending.await.unwrap();
    assert_eq!(received, items);
}

#[tokio::test(flavor = "current_thread")]
async fn a_busy_ring_lets_other_tasks_have_their_turn() {
    let _site = Fixture::new("fair");
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut producer = ring.attach_producer().unwrap();
    let turns = std::rc::Rc::new(std::cell::Cell::new(0u64));
    let set = tokio::task::LocalSet::new();
    let others = turns.clone();
    set.spawn_local(async move {
        loop {
            others.set(others.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    set.run_until(async {
        for _ in 0..100_000 {
            producer.try_send(b"always something").unwrap();
            consumer.recv().await.unwrap().release();
        }
    })
    .await;
    assert!(turns.get() > 1, "the other task ran {} times", turns.get());
}

#[tokio::test(flavor = "current_thread")]
async fn end_of_the_other_side_is_reported() {
    let fixture = Fixture::new("ends");
    let ring = fixture.mpsc(1);
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let producer = ring.attach_producer().unwrap();
    let waiting = tokio::spawn(async move {
        let end = consumer.recv().await.map(|message| message.to_vec());
        (end, consumer)
    });
    tokio::task::yield_now().await;
    drop(producer);
    let (end, consumer) = waiting.await.unwrap();
    assert!(matches!(end, Err(RecvError::EndOfStream { .. })));

    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    let waiting = tokio::spawn(async move {
        loop {
            if let Err(error) = producer.send(&[1; 1000]).await {
                return error;
            }
        }
    });
    tokio::task::yield_now().await;
    drop(consumer.into_inner());
    assert_eq!(waiting.await.unwrap(), SendError::ConsumerGone);

    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    while consumer.get_mut().try_recv().is_ok() {}
    let waiting = tokio::spawn(async move { consumer.recv().await.map(|_| ()) });
    tokio::task::yield_now().await;
    semring::force_remove(ring.address()).unwrap();
    let end = waiting.await.unwrap();
    // An end of the stream that was due came first.
    assert!(
        matches!(end, Err(RecvError::Removed | RecvError::EndOfStream { .. })),
        "{end:?}"
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_end_is_given_until_the_consumer_resumes() {
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    ring.attach_producer().unwrap().send(b"one").unwrap();
    assert_eq!(receive_all(&mut consumer).await, [b"one"]);
    ring.attach_producer().unwrap().send(b"two").unwrap();
    assert_eq!(receive_all(&mut consumer).await, [b""; 0]);
    consumer.resume();
    assert_eq!(receive_all(&mut consumer).await, [b"two"]);
    // The stream likewise.
    ring.attach_producer().unwrap().send(b"three").unwrap();
    assert!(consumer.next().await.is_none());
    consumer.resume();
    assert_eq!(consumer.next().await.unwrap().unwrap(), b"three");
    assert!(consumer.next().await.is_none());
    assert!(consumer.next().await.is_none());
}

/// Receives all messages to the end of the stream.
async fn receive_all(consumer: &mut AsyncConsumer) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    loop {
        match consumer.recv().await {
            Ok(message) => received.push(message.to_vec()),
            Err(error) => {
                assert!(matches!(error, RecvError::EndOfStream { .. }));
                return received;
            }
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn closing_a_sink_ends_the_stream_while_the_handle_lives() {
    let _site = Fixture::new("closed");
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    SinkExt::<&[u8]>::send(&mut producer, b"one").await.unwrap();
    SinkExt::<&[u8]>::close(&mut producer).await.unwrap();
    assert_eq!(receive_all(&mut consumer).await, [b"one"]);
    let info = ring.info().unwrap();
    assert_eq!((info.finished_producers(), info.died_producers()), (1, 0));
    // Sending afterwards is refused; closing and flushing again change nothing.
    assert_eq!(producer.send(b"late").await, Err(SendError::Closed));
    let late = SinkExt::<&[u8]>::send(&mut producer, b"late").await;
    assert_eq!(late, Err(SendError::Closed));
    SinkExt::<&[u8]>::flush(&mut producer).await.unwrap();
    SinkExt::<&[u8]>::close(&mut producer).await.unwrap();
    assert!(producer.get_mut().is_none());
    // The lane is free for another one.
    consumer.resume();
    let mut next = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    next.send(b"two").await.unwrap();
    next.close().await.unwrap();
    assert_eq!(receive_all(&mut consumer).await, [b"two"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_borrowed_sink_is_closed_by_forward() {
    let _site = Fixture::new("forward");
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    // More than the lane holds: the last items are kept by the sink for a while.
    let items: Vec<_> = (0..20u8).map(|number| vec![number; 1000]).collect();
    let all = futures_util::stream::iter(items.clone()).map(Ok);
    let (forwarded, received) =
        tokio::join!(all.forward(&mut producer), receive_all(&mut consumer));
    forwarded.unwrap();
    assert_eq!(received, items);
    assert!(producer.into_inner().is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn a_request_ring_is_closed_before_the_answer_comes() {
    let _site = Fixture::new("half");
    let (requests, answers) = (memfd(), memfd());
    let mut server_in = AsyncConsumer::new(requests.attach_consumer().unwrap()).unwrap();
    let mut server_out = AsyncProducer::new(answers.attach_producer().unwrap()).unwrap();
    let mut client_out = AsyncProducer::new(requests.attach_producer().unwrap()).unwrap();
    let mut client_in = AsyncConsumer::new(answers.attach_consumer().unwrap()).unwrap();
    let server = async {
        let received = receive_all(&mut server_in).await;
        server_out.send(&received.concat()).await.unwrap();
    };
    let client = async {
        for part in ["a", "b", "c"] {
            client_out.send(part.as_bytes()).await.unwrap();
        }
        client_out.close().await.unwrap();
        client_in.recv().await.unwrap().to_vec()
    };
    let ((), answer) = tokio::join!(server, client);
    assert_eq!(answer, b"abc");
}

#[tokio::test(flavor = "current_thread")]
async fn a_sink_whose_consumer_is_gone_is_closed_with_the_error() {
    let _site = Fixture::new("gone");
    let ring = memfd();
    let mut producer = AsyncProducer::new(ring.attach_producer().unwrap()).unwrap();
    let consumer = ring.attach_consumer().unwrap();
    while producer.get_mut().unwrap().try_send(&[0; 1000]).is_ok() {}
    SinkExt::<&[u8]>::feed(&mut producer, &[1; 1000])
        .await
        .unwrap();
    drop(consumer);
    let closed = producer.close().await;
    assert_eq!(closed, Err(SendError::ConsumerGone));
    assert!(producer.get_mut().is_none());
    assert_eq!(producer.close().await, Ok(()));
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_gives_an_error_that_stays_once() {
    let fixture = Fixture::new("stays");
    let ring = fixture.mpsc(1);
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    semring::force_remove(ring.address()).unwrap();
    assert_eq!(consumer.next().await, Some(Err(RecvError::Removed)));
    assert_eq!(consumer.next().await, None);
    assert_eq!(consumer.next().await, None);
}

#[tokio::test(flavor = "current_thread")]
async fn a_stream_goes_on_after_its_end_with_the_next_producer() {
    let _site = Fixture::new("goes-on");
    let ring = memfd();
    let mut consumer = AsyncConsumer::new(ring.attach_consumer().unwrap()).unwrap();
    for _ in 0..2 {
        ring.attach_producer().unwrap().send(b"x").unwrap();
        assert_eq!(consumer.next().await, Some(Ok(b"x".to_vec())));
        assert_eq!(consumer.next().await, None);
        consumer.resume();
    }
}
