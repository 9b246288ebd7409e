//! iceoryx2: publish and subscribe in shared memory, lossless, with an event for sleepers.
#![allow(unsafe_code)]

use std::ops::Range;
use std::path::PathBuf;

use iceoryx2::node::Node;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use semring_bench::{
    Bytes, End, Link, Setup, Result, Category, Spec, CleanupGuard, Way, Workload, check, wrong_content,
    no_obstacle, word, wrong_length,
};

use crate::{capacity_bytes, until};

pub(crate) const WAYS: [Way; 1] = [Way {
    name: "iceoryx2",
    label: "iceoryx2",
    about: "Publish and subscribe without loss: loaned, filled and checked in place; an event wakes.",
    category: Category::Library,
    obstacle: no_obstacle,
    make,
    open,
}];

type Service = ipc::Service;

/// The most messages that a subscriber holds. Fewer than any sender sends one way: a publisher that has
/// ended before its subscriber looked for the first time is never seen.
const HELD: usize = 512;

struct SampleLink {
    // Ports before the node, and the files last.
    output: Publisher<Service, [u64], ()>,
    /// With several senders there is no receiver here.
    input: Option<Subscriber<Service, [u64], ()>>,
    /// Where the receiver sleeps.
    wakeup: Option<(Notifier<Service>, Listener<Service>)>,
    _node: Node<Service>,
    _cleanup: Option<CleanupGuard>,
}

fn folder(spec: &Spec) -> PathBuf {
    std::env::temp_dir().join(format!("{}-iceoryx2", spec.name))
}

fn config(spec: &Spec) -> Result<Config> {
    let mut config = Config::default();
    let folder = folder(spec);
    let folder = folder.to_str().ok_or("a folder whose name is text")?;
    config.global.set_root_path(&Path::new(folder.as_bytes())?);
    config.global.prefix = FileName::new(prefix(spec).as_bytes())?;
    // Objects of killed senders are removed with the folder.
    config.global.node.cleanup_dead_nodes_on_creation = false;
    config.global.node.cleanup_dead_nodes_on_destruction = false;
    Ok(config)
}

/// The prefix of its names in /dev/shm.
fn prefix(spec: &Spec) -> String {
    format!("{}-", spec.name)
}

/// One end: it sends in one direction and receives in the other.
fn end(spec: &Spec, sends: &str, receives: &str, cleanup: Option<CleanupGuard>) -> Result<SampleLink> {
    set_log_level(LogLevel::Error);
    let node = NodeBuilder::new()
        .config(&config(spec)?)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create::<Service>()?;
    let held = (capacity_bytes(spec.size) / spec.size).min(HELD);
    let samples = |direction: &str| {
        let name: ServiceName = direction.try_into()?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u64]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .subscriber_max_buffer_size(held)
            .max_publishers(spec.senders)
            .max_subscribers(1)
            .max_nodes(spec.senders + 1)
            .open_or_create()?;
        Ok::<_, semring_bench::Error>(service)
    };
    let there = samples(sends)?;
    let back = samples(receives)?;
    let input = if sends == "back" && spec.senders > 1 {
        None
    } else {
        Some(back.subscriber_builder().buffer_size(held).create()?)
    };
    let output = there
        .publisher_builder()
        .initial_max_slice_len(spec.size / 8)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let wakeup = if spec.workload == Workload::WakeUp {
        let event = |direction: &str| {
            let name: ServiceName = direction.try_into()?;
            let service = node.service_builder(&name).event().open_or_create()?;
            Ok::<_, semring_bench::Error>(service)
        };
        let notifier = event(sends)?.notifier_builder().create()?;
        Some((notifier, event(receives)?.listener_builder().create()?))
    } else {
        None
    };
    Ok(SampleLink {
        output,
        input,
        wakeup,
        _node: node,
        _cleanup: cleanup,
    })
}

fn make(spec: Spec) -> Result<Setup> {
    let cleanup = CleanupGuard::path_prefixes(vec![
        folder(&spec),
        PathBuf::from("/dev/shm").join(prefix(&spec)),
    ]);
    let link = end(&spec, "there", "back", Some(cleanup))?;
    Ok(Setup::named(spec, link))
}

fn open(spec: &Spec, _: usize) -> Result<Box<dyn End>> {
    Ok(Box::new(end(spec, "back", "there", None)?))
}

impl SampleLink {
    /// Loans a sample, fills it word by word, and sends it, again if there is no subscriber yet.
    #[inline]
    fn write(&mut self, words: usize, mut word: impl FnMut(usize) -> u64) -> Result<()> {
        loop {
            let sample = self.output.loan_slice_uninit(words)?;
            if sample.write_from_fn(&mut word).send()? > 0 {
                break;
            }
            std::thread::yield_now();
        }
        if let Some((notifier, _)) = &self.wakeup {
            notifier.notify()?;
        }
        Ok(())
    }

    #[inline]
    fn read(&mut self) -> Result<Sample<Service, [u64], ()>> {
        let input = self.input.as_ref().ok_or("only one sender can receive")?;
        let Some((_, listener)) = &self.wakeup else {
            return Ok(until(|| input.receive().transpose())?);
        };
        loop {
            if let Some(sample) = input.receive()? {
                return Ok(sample);
            }
            listener.blocking_wait(|_| {})?;
        }
    }
}

/// The received words, if they are as many as in this message.
#[inline]
fn as_many<'a>(message: &impl Bytes, words: &'a [u64]) -> Result<&'a [u64]> {
    let found = 8 * words.len();
    let as_many = message.as_many(words);
    as_many.ok_or_else(|| wrong_length(found, message.bytes().len()))
}

impl<M: Bytes> Link<M> for SampleLink {
    fn send(&mut self, message: &M) -> Result<()> {
        let words = message.words();
        self.write(words.len(), |index| u64::from_le_bytes(words[index]))
    }

    fn receive(&mut self, message: &mut M) -> Result<()> {
        let sample = self.read()?;
        let words = as_many(message, sample.payload())?;
        for (to, from) in message.words_mut().iter_mut().zip(words) {
            *to = from.to_le_bytes();
        }
        Ok(())
    }

    fn send_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        for number in numbers {
            self.write(message.words().len(), |_| word(0, number))?;
        }
        Ok(())
    }

    fn receive_numbers(&mut self, numbers: Range<u64>, message: &mut M) -> Result<()> {
        for number in numbers {
            let sample = self.read()?;
            let words = as_many(message, sample.payload())?;
            if !check(words, word(0, number)) {
                return Err(wrong_content(number));
            }
        }
        Ok(())
    }
}
