//! Asymmetric and fenced mode, checked exhaustively: every interleaving of producers, a consumer, and
//! their store buffers.
//!
//! loom has no barrier that one thread executes on behalf of another, so the steps of [`ConsumerWaker`](super::doorbell::ConsumerWaker)
//! and of a sleep are repeated here, as a machine of small steps, and all states that it can reach are visited. Stores wait in a buffer
//! and become visible in order (TSO, as on x86) or separately for each word (PSO: a flag may overtake a message, which is weaker than the
//! orderings in the code). Every participant may be killed between any two steps: the stores in its buffer become visible, and the kernel
//! posts its undo tokens. A stopped participant is one whose next step is late, which is among the interleavings.
//!
//! A wake-up is lost if no participant can make a step any more, and the consumer sleeps although a
//! message is unread or all producers are gone. Each precaution is left out once, and the loss must
//! then be found.

use std::collections::HashSet;

const PRODUCERS: usize = 2;
/// Commits in a row without a sleeper before a lane enters asymmetric mode; in the product it is
/// 32.
const QUIET: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    Tso,
    Pso,
}

/// A mutant: the precaution that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Twin {
    Nothing,
    NoFenceBehindFlag,
    FenceBeforeFlag,
    FlagsReadBeforeFence,
    NoBarrier,
    NoSparseFence,
    NoSleeperFence,
    EpochsRestart,
    NoRattle,
    WakerClearsWord,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    /// The number of published messages in a lane's header words.
    Published(u8),
    Burst(u8),
    /// The consumer's wait word.
    Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Store {
    word: Word,
    value: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Publish,
    BurstLook,
    ClearFlag,
    SparseFence,
    SparseLook,
    EarlyFence,
    SetFlag,
    FlagFence,
    FlagLook,
    Post,
    SwapLook,
    Detach,
    Gone,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Producer {
    at: At,
    sent: u8,
    last: u8,
    quiet: u8,
    in_burst: bool,
    buffer: Vec<Store>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Ear {
    Arm,
    Fence,
    /// Reads the flag of this lane.
    Flags(u8),
    /// The barrier has been executed for the producers before this one.
    Barrier(u8),
    Probe,
    /// Looks at the headers of this lane.
    Scan(u8),
    Sleep,
    Ended,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Consumer {
    at: Ear,
    generation: u8,
    sleeps: u8,
    epoch: u8,
    received: [u8; PRODUCERS],
    saw_burst: bool,
    over: bool,
    buffer: Vec<Store>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    published: [u8; PRODUCERS],
    burst: [bool; PRODUCERS],
    wait: u8,
    tokens: u8,
    producers: [Producer; PRODUCERS],
    consumer: Consumer,
    kills: u8,
}

struct Machine {
    memory: Memory,
    twin: Twin,
    messages: [u8; PRODUCERS],
}

impl State {
    fn begin() -> Self {
        let producer = Producer {
            at: At::Publish,
            sent: 0,
            last: 0,
            quiet: 0,
            in_burst: false,
            buffer: Vec::new(),
        };
        Self {
            published: [0; PRODUCERS],
            burst: [false; PRODUCERS],
            wait: 0,
            tokens: 0,
            producers: std::array::from_fn(|_| producer.clone()),
            consumer: Consumer {
                at: Ear::Arm,
                generation: 1,
                sleeps: 0,
                epoch: 0,
                received: [0; PRODUCERS],
                saw_burst: false,
                over: false,
                buffer: Vec::new(),
            },
            kills: 0,
        }
    }

    fn show(&mut self, store: Store) {
        match store.word {
            Word::Published(lane) => self.published[usize::from(lane)] = store.value,
            Word::Burst(lane) => self.burst[usize::from(lane)] = store.value != 0,
            Word::Wait => self.wait = store.value,
        }
    }

    fn buffer(&mut self, who: usize) -> &mut Vec<Store> {
        match self.producers.get_mut(who) {
            Some(producer) => &mut producer.buffer,
            None => &mut self.consumer.buffer,
        }
    }

    /// A full barrier of one participant.
    fn fence(&mut self, who: usize) {
        for store in std::mem::take(self.buffer(who)) {
            self.show(store);
        }
    }

    fn store(&mut self, who: usize, word: Word, value: u8) {
        self.buffer(who).push(Store { word, value });
    }

    fn all_gone(&self) -> bool {
        self.producers
            .iter()
            .all(|producer| producer.at == At::Gone)
    }
}

const CONSUMER: usize = PRODUCERS;

impl Machine {
    /// All states that one step can lead to.
    fn successors(&self, state: &State, kills: u8) -> Vec<State> {
        let mut next = Vec::new();
        for who in 0..=CONSUMER {
            self.drain_one(state, who, &mut next);
        }
        for lane in 0..PRODUCERS {
            if state.producers[lane].at != At::Gone {
                next.push(self.produce(state.clone(), lane));
                if state.kills < kills {
                    next.push(self.kill_producer(state.clone(), lane));
                }
            }
        }
        if state.consumer.at != Ear::Ended {
            next.extend(self.consume(state.clone()));
            if state.kills < kills {
                next.push(self.kill_consumer(state.clone()));
            }
        }
        next
    }

    /// One store of this participant becomes visible.
    fn drain_one(&self, state: &State, who: usize, next: &mut Vec<State>) {
        let waiting = match state.producers.get(who) {
            Some(producer) => &producer.buffer,
            None => &state.consumer.buffer,
        };
        for (index, store) in waiting.iter().enumerate() {
            let earlier = &waiting[..index];
            let may = match self.memory {
                Memory::Tso => index == 0,
                Memory::Pso => earlier.iter().all(|earlier| earlier.word != store.word),
            };
            if may {
                let mut after = state.clone();
                let store = after.buffer(who).remove(index);
                after.show(store);
                next.push(after);
            }
        }
    }

    fn produce(&self, mut state: State, lane: usize) -> State {
        let id = lane as u8;
        let producer = &mut state.producers[lane];
        producer.at = match producer.at {
            At::Publish if producer.sent == self.messages[lane] => {
                let in_burst = std::mem::take(&mut producer.in_burst);
                producer.at = At::Detach;
                if in_burst {
                    state.store(lane, Word::Burst(id), 0);
                }
                return state;
            }
            At::Publish => {
                producer.sent += 1;
                let (sent, in_burst) = (producer.sent, producer.in_burst);
                producer.at = if in_burst {
                    At::BurstLook
                } else {
                    self.sparse_fence()
                };
                state.store(lane, Word::Published(id), sent);
                return state;
            }
            At::BurstLook if state.wait == 0 => At::Publish,
            At::BurstLook => At::ClearFlag,
            At::ClearFlag => {
                producer.in_burst = false;
                producer.quiet = 0;
                producer.at = self.sparse_fence();
                state.store(lane, Word::Burst(id), 0);
                return state;
            }
            At::SparseFence => {
                producer.at = if self.twin == Twin::WakerClearsWord {
                    At::SwapLook
                } else {
                    At::SparseLook
                };
                state.fence(lane);
                return state;
            }
            At::SwapLook => {
                let found = std::mem::take(&mut state.wait) != 0;
                if found { At::Post } else { At::Publish }
            }
            At::SparseLook if state.wait == 0 => {
                producer.quiet += 1;
                if producer.quiet < QUIET {
                    At::Publish
                } else {
                    producer.quiet = 0;
                    match self.twin {
                        Twin::FenceBeforeFlag => At::EarlyFence,
                        _ => At::SetFlag,
                    }
                }
            }
            At::SparseLook => {
                producer.quiet = 0;
                if state.wait == producer.last {
                    At::Publish
                } else {
                    producer.last = state.wait;
                    At::Post
                }
            }
            At::EarlyFence => {
                producer.at = At::SetFlag;
                state.fence(lane);
                return state;
            }
            At::SetFlag => {
                producer.in_burst = true;
                producer.at = match self.twin {
                    Twin::FenceBeforeFlag | Twin::NoFenceBehindFlag => At::FlagLook,
                    _ => At::FlagFence,
                };
                state.store(lane, Word::Burst(id), 1);
                return state;
            }
            At::FlagFence => {
                producer.at = At::FlagLook;
                state.fence(lane);
                return state;
            }
            At::FlagLook if state.wait == 0 => At::Publish,
            At::FlagLook => At::ClearFlag,
            At::Post => {
                state.tokens += 1;
                At::Publish
            }
            At::Detach => {
                // One system call, under a lock: stores before it are visible to every process that
                // then makes such a call.
                producer.at = At::Gone;
                state.tokens += 1;
                state.fence(lane);
                return state;
            }
            At::Gone => unreachable!("no participant is left to make a step"),
        };
        state
    }

    fn sparse_fence(&self) -> At {
        match self.twin {
            Twin::NoSparseFence => At::SparseLook,
            _ => At::SparseFence,
        }
    }

    fn kill_producer(&self, mut state: State, lane: usize) -> State {
        state.kills += 1;
        state.fence(lane);
        state.producers[lane].at = At::Gone;
        if self.twin != Twin::NoRattle {
            state.tokens += 1;
        }
        state
    }

    /// The next consumer comes at once.
    fn kill_consumer(&self, mut state: State) -> State {
        state.kills += 1;
        state.fence(CONSUMER);
        state.wait = 0;
        state.tokens = 0; // it drains its tokens before it looks
        let consumer = &mut state.consumer;
        consumer.generation += 1;
        consumer.sleeps = 0;
        consumer.saw_burst = false;
        consumer.over = false;
        consumer.at = Ear::Arm;
        state
    }

    fn consume(&self, mut state: State) -> Option<State> {
        let found = |lane: u8, state: &State| {
            state.published[usize::from(lane)] != state.consumer.received[usize::from(lane)]
        };
        let lanes = PRODUCERS as u8;
        state.consumer.at = match state.consumer.at {
            Ear::Arm => {
                let consumer = &mut state.consumer;
                consumer.sleeps += 1;
                let generation = match self.twin {
                    Twin::EpochsRestart => 0,
                    _ => consumer.generation,
                };
                consumer.epoch = generation << 5 | consumer.sleeps;
                consumer.saw_burst = false;
                let epoch = consumer.epoch;
                state.store(CONSUMER, Word::Wait, epoch);
                match self.twin {
                    Twin::FlagsReadBeforeFence => Ear::Flags(0),
                    _ => Ear::Fence,
                }
            }
            Ear::Fence => {
                if self.twin != Twin::NoSleeperFence {
                    state.fence(CONSUMER);
                }
                match self.twin {
                    Twin::FlagsReadBeforeFence => self.after_flags(&state),
                    _ => Ear::Flags(0),
                }
            }
            Ear::Flags(lane) => {
                state.consumer.saw_burst |= state.burst[usize::from(lane)];
                if lane + 1 < lanes {
                    Ear::Flags(lane + 1)
                } else if self.twin == Twin::FlagsReadBeforeFence {
                    Ear::Fence
                } else {
                    self.after_flags(&state)
                }
            }
            Ear::Barrier(lane) => {
                state.fence(usize::from(lane));
                if lane + 1 < lanes {
                    Ear::Barrier(lane + 1)
                } else {
                    // The calling CPU executes the barrier as well.
                    state.fence(CONSUMER);
                    Ear::Probe
                }
            }
            Ear::Probe => {
                state.consumer.over = state.all_gone();
                Ear::Scan(0)
            }
            Ear::Scan(lane) if found(lane, &state) => {
                let lane = usize::from(lane);
                state.consumer.received[lane] = state.published[lane];
                state.store(CONSUMER, Word::Wait, 0);
                Ear::Arm
            }
            Ear::Scan(lane) if lane + 1 < lanes => Ear::Scan(lane + 1),
            Ear::Scan(_) if state.consumer.over => Ear::Ended,
            Ear::Scan(_) => Ear::Sleep,
            Ear::Sleep if state.tokens == 0 => {
                // In the kernel, where its stores become visible soon.
                if state.consumer.buffer.is_empty() {
                    return None;
                }
                state.fence(CONSUMER);
                Ear::Sleep
            }
            Ear::Sleep => {
                state.tokens -= 1;
                state.store(CONSUMER, Word::Wait, 0);
                Ear::Arm
            }
            Ear::Ended => unreachable!("it has ended"),
        };
        Some(state)
    }

    fn after_flags(&self, state: &State) -> Ear {
        if state.consumer.saw_burst && self.twin != Twin::NoBarrier {
            Ear::Barrier(0)
        } else {
            Ear::Probe
        }
    }

    /// Visits every state; `Err` with the first one in which a wake-up is lost.
    fn explore(&self, kills: u8) -> Result<usize, Box<State>> {
        let mut seen = HashSet::new();
        let mut waiting = vec![State::begin()];
        while let Some(state) = waiting.pop() {
            if seen.contains(&state) {
                continue;
            }
            let next = self.successors(&state, kills);
            let ended = state.consumer.at == Ear::Ended;
            let missed = state.published != state.consumer.received;
            // The end was reported, or no step is possible: then nothing may be unread.
            let stuck = state.all_gone() && state.consumer.at == Ear::Sleep && next.is_empty();
            if (ended && missed) || stuck || self.sleeps_for_good(&state) {
                return Err(Box::new(state));
            }
            waiting.extend(next);
            seen.insert(state);
        }
        Ok(seen.len())
    }

    /// The consumer sleeps although a message is unread whose producer has finished all its steps for it.
    /// That another producer may still post does not help: it may be stopped for any time.
    fn sleeps_for_good(&self, state: &State) -> bool {
        let asleep = state.consumer.at == Ear::Sleep
            && state.consumer.buffer.is_empty()
            && state.tokens == 0;
        let unread = |lane: usize| {
            let producer = &state.producers[lane];
            let done = producer.at == At::Publish || producer.at == At::Gone;
            let shown = producer.buffer.is_empty();
            done && shown && state.published[lane] != state.consumer.received[lane]
        };
        asleep && ((0..PRODUCERS).any(unread) || state.all_gone())
    }
}

/// PSO, which includes all behaviour of TSO. `SEMRING_FULL=1` visits some more states.
#[test]
fn no_wake_up_is_lost_between_sparse_and_burst() {
    let mut sizes = vec![([3, 0], 1), ([2, 1], 1)];
    if std::env::var_os("SEMRING_FULL").is_some() {
        sizes.extend([([2, 2], 0), ([3, 0], 2)]);
    }
    for (messages, kills) in sizes {
        let machine = Machine {
            memory: Memory::Pso,
            twin: Twin::Nothing,
            messages,
        };
        match machine.explore(kills) {
            Ok(states) => println!("{messages:?}, {kills} kills: {states} states"),
            Err(state) => panic!("{messages:?}: a wake-up is lost: {state:#?}"),
        }
    }
}

/// On TSO, the strongest memory model among the supported machines.
#[test]
fn each_precaution_is_needed() {
    let expected = [
        Twin::NoFenceBehindFlag,
        Twin::FenceBeforeFlag,
        Twin::FlagsReadBeforeFence,
        Twin::NoBarrier,
        Twin::NoSparseFence,
        Twin::NoSleeperFence,
        Twin::EpochsRestart,
        Twin::NoRattle,
        Twin::WakerClearsWord,
    ];
    for twin in expected {
        let machine = Machine {
            memory: Memory::Tso,
            twin,
            messages: [2, 1],
        };
        assert!(
            machine.explore(1).is_err(),
            "no wake-up is lost without a precaution: {twin:?}"
        );
    }
}
