//! A model of the claims in `pipe`: in whatever order the kernel closes a dead process's files, and
//! wherever a successor is stopped or killed while it attaches, a sleeper that has something to find is
//! woken.
//!
//! Every interleaving is visited, with the calls as steps: a consumer that waits by the rules, a producer
//! that publishes and detaches or is killed anywhere, and a successor that attaches and is killed or
//! stopped for ever anywhere. Each mutant breaks one rule, and must lose a wake-up. (The fences between
//! publishing and the wait word are checked by other models: here all participants see the steps in one
//! order.)
//!
//! The steps are written once more here instead of running the shipped `roles`: what has to be varied is the order
//! in which the *kernel* releases locks and hangs up while it closes the files of a dead process, and real
//! descriptors close in one order only. To run the shipped code under such a kernel, each call on a descriptor
//! would have to go through a trait. The shipped code itself is held by the two mutants of pipes in
//! `sync::mutant`, and by the kills at each instruction in `tests/faults`, which run over pipes as well.

use std::collections::HashSet;

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    /// The successor opens the liveness FIFO first, then posts.
    RingsLate,
    /// The successor does not post at all.
    DoesNotRing,
    /// "Gone" is decided by the slot's byte, not by the liveness lock.
    AsksTheByte,
    /// A kernel that releases locks after the hang-up.
    UnlocksLate,
}

/// The files of one process for the role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Files {
    byte: bool,
    life_open: bool,
    life_locked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Producer {
    Publishes,
    LooksAtTheWord,
    Posts,
    Leaves,
    /// The kernel closes its files.
    Closing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Successor {
    TakesTheByte,
    Rings,
    Opens,
    Locks,
    Attached,
    /// Killed, or refused.
    Closing,
    Stopped,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Consumer {
    TakesTokens,
    Announces,
    AsksWhoIsGone,
    Looks { gone: bool },
    Sleeps,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    first: Producer,
    second: Successor,
    consumer: Consumer,
    files: [Files; 2],
    /// One or more tokens in the consumer's wake-up FIFO.
    tokens: bool,
    /// The liveness FIFO hung up, and the consumer has not been woken by that.
    hung_up: bool,
    word: bool,
    published: bool,
    received: bool,
    /// Producers that have attached, and those whose end was delivered.
    attached: u8,
    delivered: u8,
}

impl State {
    fn begin() -> Self {
        let held = Files {
            byte: true,
            life_open: true,
            life_locked: true,
        };
        Self {
            first: Producer::Publishes,
            second: Successor::TakesTheByte,
            consumer: Consumer::TakesTokens,
            files: [held, Files::default()],
            tokens: false,
            hung_up: false,
            word: false,
            published: false,
            received: false,
            attached: 1,
            delivered: 0,
        }
    }

    fn hang_up(&mut self, whose: usize) {
        self.files[whose].life_open = false;
        if !self.files.iter().any(|files| files.life_open) {
            self.hung_up = true;
        }
    }

    /// Each file that the kernel may close next for a process that has ended.
    fn closings(&self, whose: usize, mutant: Mutant) -> Vec<Self> {
        let mut next = Vec::new();
        let files = self.files[whose];
        if files.byte {
            let mut state = self.clone();
            state.files[whose].byte = false;
            next.push(state);
        }
        let mut state = self.clone();
        if mutant == Mutant::UnlocksLate {
            if files.life_open {
                state.hang_up(whose);
                next.push(state);
            } else if files.life_locked {
                state.files[whose].life_locked = false;
                next.push(state);
            }
        } else if files.life_locked {
            state.files[whose].life_locked = false;
            next.push(state);
        } else if files.life_open {
            state.hang_up(whose);
            next.push(state);
        }
        next
    }

    fn first_steps(&self, mutant: Mutant) -> Vec<Self> {
        let mut next = Vec::new();
        let mut state = self.clone();
        match self.first {
            Producer::Publishes => {
                state.published = true;
                state.first = Producer::LooksAtTheWord;
                next.push(state);
            }
            Producer::LooksAtTheWord => {
                state.first = if state.word {
                    Producer::Posts
                } else {
                    Producer::Leaves
                };
                next.push(state);
            }
            Producer::Posts => {
                state.tokens = true;
                state.first = Producer::Leaves;
                next.push(state);
            }
            Producer::Leaves => {}
            Producer::Closing => return self.closings(0, mutant),
        }
        // Killed, or leaving.
        let mut ended = self.clone();
        ended.first = Producer::Closing;
        next.push(ended);
        next
    }

    fn second_steps(&self, mutant: Mutant) -> Vec<Self> {
        let mut next = Vec::new();
        let mut state = self.clone();
        let opens_first = mutant == Mutant::RingsLate;
        match self.second {
            Successor::TakesTheByte => {
                // Refused: it tries again.
                if self.files[0].byte {
                    return next;
                }
                state.files[1].byte = true;
                state.second = if opens_first {
                    Successor::Opens
                } else {
                    Successor::Rings
                };
            }
            Successor::Rings => {
                state.tokens |= mutant != Mutant::DoesNotRing;
                state.second = if opens_first {
                    Successor::Locks
                } else {
                    Successor::Opens
                };
            }
            Successor::Opens => {
                state.files[1].life_open = true;
                state.second = if opens_first {
                    Successor::Rings
                } else {
                    Successor::Locks
                };
            }
            Successor::Locks => {
                if self.files[0].life_locked {
                    state.second = Successor::Closing;
                } else {
                    state.files[1].life_locked = true;
                    state.attached += 1;
                    state.second = Successor::Attached;
                }
            }
            Successor::Attached => {}
            Successor::Closing => return self.closings(1, mutant),
            Successor::Stopped => return next,
        }
        if self.second != Successor::Attached {
            next.push(state);
        }
        for end in [Successor::Closing, Successor::Stopped] {
            let mut ended = self.clone();
            ended.second = end;
            next.push(ended);
        }
        next
    }

    fn consumer_steps(&self, mutant: Mutant) -> Vec<Self> {
        let mut state = self.clone();
        state.consumer = match self.consumer {
            Consumer::TakesTokens => {
                state.tokens = false;
                state.hung_up = false;
                Consumer::Announces
            }
            Consumer::Announces => {
                state.word = true;
                Consumer::AsksWhoIsGone
            }
            Consumer::AsksWhoIsGone => {
                let here = |files: &Files| match mutant {
                    Mutant::AsksTheByte => files.byte,
                    _ => files.life_locked,
                };
                Consumer::Looks {
                    gone: !self.files.iter().any(here),
                }
            }
            Consumer::Looks { gone } => {
                if self.published && !self.received {
                    state.received = true;
                    state.word = false;
                    Consumer::TakesTokens
                } else if gone && self.delivered != self.attached {
                    state.delivered = self.attached;
                    state.word = false;
                    Consumer::TakesTokens
                } else {
                    Consumer::Sleeps
                }
            }
            Consumer::Sleeps => {
                if !self.tokens && !self.hung_up {
                    return Vec::new();
                }
                state.word = false;
                Consumer::TakesTokens
            }
        };
        vec![state]
    }

    /// The fault in a final state, if there is one.
    fn failure(&self) -> Option<&'static str> {
        if self.published && !self.received {
            return Some("a message lies there, and the consumer sleeps");
        }
        let holds = |files: &Files| files.byte || files.life_open || files.life_locked;
        if !self.files.iter().any(holds) && self.delivered != self.attached {
            return Some("all are gone, and the consumer sleeps");
        }
        None
    }
}

/// Visits everything that can happen; returns the first fault, and the number of states.
fn explore(mutant: Mutant) -> (Option<&'static str>, usize) {
    let mut seen = HashSet::from([State::begin()]);
    let mut open = vec![State::begin()];
    while let Some(state) = open.pop() {
        let steps = [
            state.first_steps(mutant),
            state.second_steps(mutant),
            state.consumer_steps(mutant),
        ];
        let moves: Vec<State> = steps.into_iter().flatten().collect();
        // A successor that could still be stopped, or go on, can make a step: only final states count.
        if moves.is_empty()
            && let Some(failure) = state.failure()
        {
            return (Some(failure), seen.len());
        }
        for next in moves {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (None, seen.len())
}

#[test]
fn no_order_of_closing_leaves_a_sleeper() {
    let (failure, states) = explore(Mutant::None);
    assert_eq!(failure, None);
    assert!(states > 1000, "{states}");
}

#[test]
fn without_any_one_of_the_rules_a_wake_up_is_lost() {
    for mutant in [
        Mutant::RingsLate,
        Mutant::DoesNotRing,
        Mutant::AsksTheByte,
        Mutant::UnlocksLate,
    ] {
        let (failure, _) = explore(mutant);
        assert!(failure.is_some(), "{mutant:?} was not detected");
    }
}
