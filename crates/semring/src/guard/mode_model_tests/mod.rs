//! Fenced and asymmetric mode, checked exhaustively: every interleaving of producers, a consumer, and their store buffers.
//!
//! `channel::model_tests::modes` runs the code that ships under loom, with one producer. Here the steps of
//! [`ConsumerWaker`](super::wake-up semaphore::ConsumerWaker), of the checks that follow it, and of a sleep are written down once
//! more, as a machine of small steps, and all states that it can reach are visited. [`agreement`] runs the production
//! function and the machine side by side, and compares their steps.
//!
//! Stores wait in a buffer and become visible in order (TSO, as on x86) or separately for each word (PSO: a flag may
//! overtake a message, which is weaker than the orderings in the code). A system call counts as no barrier, but for the
//! last one of a process. Each participant may be killed between any two steps: the stores in its buffer become
//! visible, and the kernel posts its undo tokens. A killed consumer has a successor at once, or none at all. A stopped
//! participant is one whose next step is late, which is among the interleavings.
//!
//! A wake-up is lost if no participant can make a step any more, and the consumer sleeps although a message is unread
//! or all producers are gone. A death is missed if a producer goes on for longer than two checks. Each precaution
//! is left out once and must then be missed.

#[cfg(semring_loom)]
mod agreement;

use std::collections::HashSet;

use crate::sync::mutant::Mutant;

const PRODUCERS: usize = 2;
/// Messages in fenced mode until a check; in the product it is 16.
const MESSAGES_PER_CHECK: u8 = 1;
/// Messages in asymmetric mode until a check; in the product it is 4 KiB or more.
const ASYMMETRIC_MESSAGES_PER_CHECK: u8 = 1;
/// The most messages to a dead consumer: one check may count its last release as progress.
const MOST_TO_THE_DEAD: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    Tso,
    #[cfg_attr(semring_loom, allow(dead_code))]
    Pso,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    /// The number of published messages in a lane's header words.
    Published(u8),
    /// The flag of asymmetric mode.
    Flag(u8),
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
    AsymmetricLook,
    ClearFlag,
    /// In fenced mode, or on the way back to it.
    Fence {
        leaving: bool,
    },
    Look {
        leaving: bool,
    },
    EarlyFence,
    SetFlag,
    FlagFence,
    Post,
    SwapLook,
    /// Checks the guard, if the consumer has released nothing since the last check.
    Check,
    /// Checks the guard.
    Ask,
    Detach,
    Gone,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Producer {
    at: At,
    sent: u8,
    last: u8,
    quiet: u8,
    unchecked: u8,
    asymmetric: bool,
    /// The number of messages received by the consumer at the last check.
    received: u8,
    /// Messages published since the consumer died.
    to_the_dead: u8,
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
    Check,
    /// Looks at the headers of this lane.
    Scan(u8),
    Sleep,
    Ended,
    /// Killed, without a successor.
    Dead,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Consumer {
    at: Ear,
    generation: u8,
    sleeps: u8,
    epoch: u8,
    received: [u8; PRODUCERS],
    saw_flag: bool,
    over: bool,
    buffer: Vec<Store>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    published: [u8; PRODUCERS],
    flags: [bool; PRODUCERS],
    wait: u8,
    tokens: u8,
    producers: [Producer; PRODUCERS],
    consumer: Consumer,
    kills: u8,
}

struct Machine {
    memory: Memory,
    without: Option<Mutant>,
    /// Messages in a row to a consumer that is awake until a lane enters asymmetric mode; in the product it is 32.
    quiet: u8,
    messages: [u8; PRODUCERS],
}

impl State {
    fn begin() -> Self {
        let producer = Producer {
            at: At::Publish,
            sent: 0,
            last: 0,
            quiet: 0,
            unchecked: 0,
            asymmetric: false,
            received: 0,
            to_the_dead: 0,
            buffer: Vec::new(),
        };
        Self {
            published: [0; PRODUCERS],
            flags: [false; PRODUCERS],
            wait: 0,
            tokens: 0,
            producers: std::array::from_fn(|_| producer.clone()),
            consumer: Consumer {
                at: Ear::Arm,
                generation: 1,
                sleeps: 0,
                epoch: 0,
                received: [0; PRODUCERS],
                saw_flag: false,
                over: false,
                buffer: Vec::new(),
            },
            kills: 0,
        }
    }

    fn show(&mut self, store: Store) {
        match store.word {
            Word::Published(lane) => self.published[usize::from(lane)] = store.value,
            Word::Flag(lane) => self.flags[usize::from(lane)] = store.value != 0,
            Word::Wait => self.wait = store.value,
        }
    }

    fn buffer(&mut self, actor: usize) -> &mut Vec<Store> {
        match self.producers.get_mut(actor) {
            Some(producer) => &mut producer.buffer,
            None => &mut self.consumer.buffer,
        }
    }

    /// A full barrier of one participant.
    fn fence(&mut self, actor: usize) {
        for store in std::mem::take(self.buffer(actor)) {
            self.show(store);
        }
    }

    fn store(&mut self, actor: usize, word: Word, value: u8) {
        self.buffer(actor).push(Store { word, value });
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
        for actor in 0..=CONSUMER {
            self.drain_one(state, actor, &mut next);
        }
        for lane in 0..PRODUCERS {
            if state.producers[lane].at != At::Gone {
                next.push(self.produce(state.clone(), lane));
                if state.kills < kills {
                    next.push(self.kill_producer(state.clone(), lane));
                }
            }
        }
        if !matches!(state.consumer.at, Ear::Ended | Ear::Dead) {
            next.extend(self.consume(state.clone()));
            if state.kills < kills {
                next.push(self.kill_consumer(state.clone()));
                next.push(self.kill_the_last_consumer(state.clone()));
            }
        }
        next
    }

    /// One store of this participant becomes visible.
    fn drain_one(&self, state: &State, actor: usize, next: &mut Vec<State>) {
        let waiting = match state.producers.get(actor) {
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
                let store = after.buffer(actor).remove(index);
                after.show(store);
                next.push(after);
            }
        }
    }

    fn lacks(&self, mutant: Mutant) -> bool {
        self.without == Some(mutant)
    }

    fn produce(&self, mut state: State, lane: usize) -> State {
        let id = lane as u8;
        let dead = state.consumer.at == Ear::Dead;
        let received = state.consumer.received[lane];
        let producer = &mut state.producers[lane];
        producer.at = match producer.at {
            At::Publish if producer.sent == self.messages[lane] => At::Detach,
            At::Publish => {
                producer.sent += 1;
                producer.to_the_dead += u8::from(dead);
                let sent = producer.sent;
                producer.at = if producer.asymmetric {
                    At::AsymmetricLook
                } else {
                    self.fence(false)
                };
                state.store(lane, Word::Published(id), sent);
                return state;
            }
            At::AsymmetricLook if state.wait == 0 || self.lacks(Mutant::NoLookInAsymmetric) => {
                producer.unchecked += 1;
                if producer.unchecked < ASYMMETRIC_MESSAGES_PER_CHECK
                    || self.lacks(Mutant::NoCheckAfterBytes)
                {
                    At::Publish
                } else {
                    At::Check
                }
            }
            At::AsymmetricLook => At::ClearFlag,
            At::ClearFlag => {
                producer.asymmetric = false;
                producer.quiet = 0;
                producer.unchecked = 0;
                producer.at = if self.lacks(Mutant::NoLookAfterAsymmetric) {
                    At::Publish
                } else {
                    self.fence(true)
                };
                state.store(lane, Word::Flag(id), 0);
                return state;
            }
            At::Fence { leaving } => {
                producer.at = if self.lacks(Mutant::WakerClearsWord) {
                    At::SwapLook
                } else {
                    At::Look { leaving }
                };
                state.fence(lane);
                return state;
            }
            At::SwapLook => {
                let found = std::mem::take(&mut state.wait) != 0;
                if found { At::Post } else { At::Publish }
            }
            At::Look { .. } if state.wait != 0 && state.wait != producer.last => {
                producer.last = state.wait;
                producer.quiet = 0;
                producer.unchecked = 0;
                At::Post
            }
            At::Look { leaving } => {
                producer.quiet = if state.wait == 0 {
                    producer.quiet + 1
                } else {
                    0
                };
                producer.unchecked += u8::from(!leaving);
                self.after_look(producer, leaving)
            }
            At::EarlyFence => {
                producer.at = At::SetFlag;
                state.fence(lane);
                return state;
            }
            At::SetFlag => {
                producer.asymmetric = true;
                producer.at = if self.lacks(Mutant::FenceBeforeFlag)
                    || self.lacks(Mutant::NoFenceAfterFlag)
                {
                    At::Ask
                } else {
                    At::FlagFence
                };
                state.store(lane, Word::Flag(id), 1);
                return state;
            }
            At::FlagFence => {
                producer.at = At::Ask;
                state.fence(lane);
                return state;
            }
            At::Post => {
                state.tokens += 1;
                At::Ask
            }
            At::Check => {
                producer.unchecked = 0;
                if std::mem::replace(&mut producer.received, received) == received {
                    At::Ask
                } else {
                    At::Publish
                }
            }
            At::Ask if dead => At::Detach,
            At::Ask => {
                producer.unchecked = 0;
                At::Publish
            }
            At::Detach => {
                // One system call, under a lock: stores before it are visible to every process that
                // then makes such a call.
                producer.at = At::Gone;
                let asymmetric = std::mem::take(&mut producer.asymmetric);
                state.tokens += 1;
                if asymmetric {
                    state.store(lane, Word::Flag(id), 0);
                }
                state.fence(lane);
                return state;
            }
            At::Gone => unreachable!("no participant is left to make a step"),
        };
        state
    }

    fn fence(&self, leaving: bool) -> At {
        if self.lacks(Mutant::NoMessageWakerFence) {
            At::Look { leaving }
        } else {
            At::Fence { leaving }
        }
    }

    /// The step after a look in fenced mode that found no sleeper.
    fn after_look(&self, producer: &mut Producer, leaving: bool) -> At {
        if producer.unchecked < MESSAGES_PER_CHECK {
            return if leaving { At::Check } else { At::Publish };
        }
        producer.unchecked = 0;
        if producer.quiet >= self.quiet {
            producer.quiet = 0;
            if self.lacks(Mutant::FenceBeforeFlag) {
                At::EarlyFence
            } else {
                At::SetFlag
            }
        } else if self.lacks(Mutant::NoCheckInFencedMode) {
            At::Publish
        } else {
            At::Check
        }
    }

    fn kill_producer(&self, mut state: State, lane: usize) -> State {
        state.kills += 1;
        state.fence(lane);
        state.producers[lane].at = At::Gone;
        if !self.lacks(Mutant::NoUndoTokenOfProducer) {
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
        consumer.saw_flag = false;
        consumer.over = false;
        consumer.at = Ear::Arm;
        state
    }

    /// No other consumer comes.
    fn kill_the_last_consumer(&self, mut state: State) -> State {
        state.kills += 1;
        state.fence(CONSUMER);
        state.consumer.at = Ear::Dead;
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
                let generation = if self.lacks(Mutant::EpochsRestart) {
                    0
                } else {
                    consumer.generation
                };
                consumer.epoch = generation << 5 | consumer.sleeps;
                consumer.saw_flag = false;
                let epoch = consumer.epoch;
                state.store(CONSUMER, Word::Wait, epoch);
                if self.lacks(Mutant::FlagsBeforeSleeperFence) {
                    Ear::Flags(0)
                } else {
                    Ear::Fence
                }
            }
            Ear::Fence => {
                if !self.lacks(Mutant::NoSleeperFence) {
                    state.fence(CONSUMER);
                }
                if self.lacks(Mutant::FlagsBeforeSleeperFence) {
                    self.after_flags(&state)
                } else {
                    Ear::Flags(0)
                }
            }
            Ear::Flags(lane) => {
                state.consumer.saw_flag |= state.flags[usize::from(lane)];
                if lane + 1 < lanes {
                    Ear::Flags(lane + 1)
                } else if self.lacks(Mutant::FlagsBeforeSleeperFence) {
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
                    Ear::Check
                }
            }
            Ear::Check => {
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
            Ear::Ended | Ear::Dead => unreachable!("it has ended"),
        };
        Some(state)
    }

    fn after_flags(&self, state: &State) -> Ear {
        if state.consumer.saw_flag && !self.lacks(Mutant::NoBarrier) {
            Ear::Barrier(0)
        } else {
            Ear::Check
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
            let unnoticed = state
                .producers
                .iter()
                .any(|producer| producer.to_the_dead > MOST_TO_THE_DEAD);
            if (ended && missed) || stuck || unnoticed || self.sleeps_for_good(&state) {
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
#[cfg(not(semring_loom))]
#[test]
fn no_wake_up_and_no_death_is_missed_in_either_mode() {
    let mut sizes = vec![([3, 0], 1, 1), ([3, 0], 2, 1), ([2, 1], 1, 1)];
    if std::env::var_os("SEMRING_FULL").is_some() {
        sizes.extend([([2, 2], 1, 0), ([3, 0], 1, 2)]);
    }
    for (messages, quiet, kills) in sizes {
        let machine = Machine {
            memory: Memory::Pso,
            without: None,
            quiet,
            messages,
        };
        match machine.explore(kills) {
            Ok(states) => println!("{messages:?}, {quiet} quiet, {kills} kills: {states} states"),
            Err(state) => panic!("{messages:?}: {state:#?}"),
        }
    }
}

/// On TSO, the strongest memory model among the supported machines.
#[cfg(not(semring_loom))]
#[test]
fn each_precaution_is_needed() {
    let wake_ups = [
        Mutant::NoFenceAfterFlag,
        Mutant::FenceBeforeFlag,
        Mutant::FlagsBeforeSleeperFence,
        Mutant::NoBarrier,
        Mutant::NoMessageWakerFence,
        Mutant::NoSleeperFence,
        Mutant::EpochsRestart,
        Mutant::NoUndoTokenOfProducer,
        Mutant::WakerClearsWord,
        Mutant::NoLookInAsymmetric,
        Mutant::NoLookAfterAsymmetric,
    ];
    let deaths = [
        (Mutant::NoCheckInFencedMode, [4, 0], 4),
        (Mutant::NoCheckAfterBytes, [4, 0], 1),
    ];
    let wake_ups = wake_ups.map(|mutant| (mutant, [2, 1], 1));
    for (mutant, messages, quiet) in wake_ups.into_iter().chain(deaths) {
        let machine = Machine {
            memory: Memory::Tso,
            without: Some(mutant),
            quiet,
            messages,
        };
        assert!(
            machine.explore(1).is_err(),
            "nothing is lost without a precaution: {mutant:?}"
        );
    }
}
