//! The steps of a producer in the machine and in the code that ships are the same.

use super::*;
use crate::guard::wakeup::{ConsumerWaker, Due};
use crate::layout::Capacity;
use crate::layout::view::LaneView;
use crate::sync::{AtomicU64, Ordering, Traced, traced};

const MESSAGES: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Fence,
    Look(u8),
    Flag(bool),
    Post,
    Check,
    Ask,
}

/// The steps of the code after each of the messages, when its looks at the wait word find these
/// values.
fn steps_of_the_code(found: &[u8]) -> Vec<Vec<Step>> {
    let lane = LaneView::model(Capacity::model(64));
    let page = lane.ring_consumer();
    page.generation.store(1, Ordering::Relaxed);
    page.barrier.store(1, Ordering::Relaxed);
    let mut waker = ConsumerWaker::new(true, 0);
    let is = |address: usize, word: &AtomicU64| address == &raw const *word as usize;
    let step = |traced| match traced {
        Traced::Fence => Some(Step::Fence),
        Traced::Load(word, value) if is(word, &page.wait_word) => Some(Step::Look(value as u8)),
        Traced::Store(word, value) if is(word, &lane.producer().flags) => {
            Some(Step::Flag(value != 0))
        }
        // Whether the consumer makes barriers.
        Traced::Load(word, _) if is(word, &page.barrier) || is(word, &page.generation) => None,
        other => panic!("not in the machine: {other:?}"),
    };
    let mut sent = 0;
    let message = |&value: &u8| {
        page.wait_word.store(u64::from(value), Ordering::Relaxed);
        sent += 1;
        let (due, trace) = traced(|| waker.due(&lane, sent, 1));
        let mut steps: Vec<Step> = trace.into_iter().filter_map(step).collect();
        match due {
            Due::Nothing => {}
            Due::Post => steps.extend([Step::Post, Step::Ask]),
            Due::Check => steps.push(Step::Check),
            Due::AskGuard => steps.push(Step::Ask),
        }
        steps
    };
    found.iter().map(message).collect()
}

/// The steps of the machine. (Its checks in asymmetric mode are those of `PeerProgress`, by bytes, and not steps of
/// the function.)
fn steps_of_the_machine(found: &[u8]) -> Vec<Vec<Step>> {
    let machine = Machine {
        memory: Memory::Tso,
        without: Some(Mutant::NoCheckAfterBytes),
        quiet: 1,
        messages: [MESSAGES as u8, 0],
    };
    let mut state = State::begin();
    let message = |&value: &u8| {
        state.wait = value;
        let mut steps = Vec::new();
        loop {
            let step = match state.producers[0].at {
                At::Publish => None,
                At::AsymmetricLook | At::Look { .. } => Some(Step::Look(value)),
                At::ClearFlag => Some(Step::Flag(false)),
                At::SetFlag => Some(Step::Flag(true)),
                At::Fence { .. } | At::FlagFence => Some(Step::Fence),
                At::Post => Some(Step::Post),
                At::Check => Some(Step::Check),
                At::Ask => Some(Step::Ask),
                other => panic!("not in the code: {other:?}"),
            };
            steps.extend(step);
            if step == Some(Step::Check) {
                // Its result does not matter here.
                state.producers[0].at = At::Publish;
            } else {
                state = machine.produce(state.clone(), 0);
                state.fence(0);
            }
            if state.producers[0].at == At::Publish {
                return steps;
            }
        }
    };
    found.iter().map(message).collect()
}

#[test]
fn model_the_machine_has_the_steps_of_the_code() {
    for script in 0..3_u32.pow(MESSAGES as u32) {
        let digit = |index| (script / 3_u32.pow(index) % 3) as u8;
        let found: Vec<u8> = (0..MESSAGES as u32).map(digit).collect();
        loom::model(move || {
            assert_eq!(
                steps_of_the_code(&found),
                steps_of_the_machine(&found),
                "{found:?}"
            );
        });
    }
}
