//! Every interleaving of two newcomers with contradicting settings and a consumer, all of which open or create the same
//! name, with at most one kill at any step: no process waits for ever in a ring without a name, and no message is lost. Each
//! precaution has a mutant without it, which must fail.
//!
//! A step is one call of the kernel or one store. What the kernel undoes at a death is one step with it.

use std::collections::HashSet;

type Ring = usize;

/// Which precaution is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeftOut {
    /// The death of a process that replaces a ring wakes the consumer.
    TokenAtDeath,
    /// A woken consumer checks whether its ring was replaced.
    LookWhenWoken,
    /// With the flag raised the remover checks again that the ring is unused.
    SecondLook,
    /// A process that has attached checks that the ring still has its name.
    LookForTheName,
    /// An attach fails while the flag is raised.
    Flag,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Memory {
    settings: u8,
    has_guard: bool,
    /// The process that has the removal flag up.
    flag: Option<usize>,
    /// The processes that have a producer's role.
    producers: u8,
    has_consumer: bool,
    /// Producers that ever counted themselves.
    attached: u8,
    is_replaced: bool,
    messages: u8,
    /// The consumer's semaphore.
    token: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Look,
    Begin(Ring),
    SecondLook(Ring),
    Mark(Ring),
    Unlink(Ring),
    Destroy(Ring),
    Attach(Ring),
    LookForTheName(Ring),
    Count(Ring),
    Send(Ring),
    Leave(Ring),
    /// The consumer is awake.
    Wait(Ring),
    Asleep(Ring),
    Done,
    /// It found a used ring of other settings, or has tried for long enough.
    Refused,
    Dead,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    name: Option<Ring>,
    rings: Vec<Memory>,
    /// Two newcomers, and the consumer.
    at: [At; 3],
    tries: [u8; 2],
    kills: u8,
}

const CONSUMER: usize = 2;
/// Rings that a newcomer replaces at most. (With two each there are 1.6 million states, and nothing else to be found.)
const TRIES: u8 = 1;

impl State {
    fn new() -> Self {
        Self {
            name: None,
            rings: Vec::new(),
            at: [At::Look; 3],
            tries: [0; 2],
            kills: 1,
        }
    }

    fn kill(&self, actor: usize, mutant: Option<LeftOut>) -> Self {
        let mut next = self.clone();
        next.kills -= 1;
        next.at[actor] = At::Dead;
        for ring in &mut next.rings {
            if ring.flag == Some(actor) {
                ring.flag = None;
                ring.token |= mutant != Some(LeftOut::TokenAtDeath);
            }
            if ring.producers & 1 << actor != 0 {
                ring.producers &= !(1 << actor);
                ring.token = true;
            }
            if actor == CONSUMER {
                ring.has_consumer = false;
            }
        }
        next
    }

    /// The next step of a process, if it is not blocked or at its end.
    fn step(&self, actor: usize, mutant: Option<LeftOut>) -> Option<Self> {
        let without = |what| mutant == Some(what);
        let mut next = self.clone();
        let is_consumer = actor == CONSUMER;
        let bit = 1 << actor;
        next.at[actor] = match self.at[actor] {
            At::Look => match self.name {
                None => {
                    next.rings.push(Memory {
                        // The consumer names nothing: its ring is of neither's settings.
                        settings: actor as u8,
                        has_guard: true,
                        ..Memory::default()
                    });
                    let ring = next.rings.len() - 1;
                    next.name = Some(ring);
                    At::Attach(ring)
                }
                Some(ring) if is_consumer || self.rings[ring].settings == actor as u8 => {
                    At::Attach(ring)
                }
                Some(ring) if self.rings[ring].attached == 0 && self.tries[actor] < TRIES => {
                    next.tries[actor] += 1;
                    At::Begin(ring)
                }
                Some(_) => At::Refused,
            },
            At::Begin(ring) => {
                let memory = &mut next.rings[ring];
                if memory.has_guard && memory.flag.is_none() && memory.producers == 0 {
                    memory.flag = Some(actor);
                    At::SecondLook(ring)
                } else {
                    At::Look
                }
            }
            At::SecondLook(ring) => {
                let is_unused = self.rings[ring].attached == 0 && self.name == Some(ring);
                if is_unused || without(LeftOut::SecondLook) {
                    At::Mark(ring)
                } else {
                    next.rings[ring].flag = None;
                    next.rings[ring].token = true;
                    At::Look
                }
            }
            At::Mark(ring) => {
                next.rings[ring].is_replaced = true;
                At::Unlink(ring)
            }
            At::Unlink(ring) => {
                if self.name == Some(ring) {
                    next.name = None;
                }
                At::Destroy(ring)
            }
            At::Destroy(ring) => {
                next.rings[ring].has_guard = false;
                next.rings[ring].flag = None;
                At::Look
            }
            At::Attach(ring) => {
                let memory = &mut next.rings[ring];
                if !memory.has_guard {
                    At::Look
                } else if memory.flag.is_some() && !without(LeftOut::Flag) {
                    return None; // it waits until the removal ends
                } else {
                    if is_consumer {
                        memory.has_consumer = true;
                    } else {
                        memory.producers |= bit;
                    }
                    At::LookForTheName(ring)
                }
            }
            At::LookForTheName(ring) => {
                let has_name = self.name == Some(ring) || without(LeftOut::LookForTheName);
                match (has_name, is_consumer) {
                    (true, false) => At::Count(ring),
                    (true, true) => At::Wait(ring),
                    (false, _) => {
                        next.rings[ring].producers &= !bit;
                        next.rings[ring].has_consumer &= !is_consumer;
                        next.rings[ring].token = true;
                        At::Look
                    }
                }
            }
            At::Count(ring) => {
                next.rings[ring].attached += 1;
                At::Send(ring)
            }
            At::Send(ring) => {
                next.rings[ring].messages += 1;
                next.rings[ring].token = true;
                At::Leave(ring)
            }
            At::Leave(ring) => {
                next.rings[ring].producers &= !bit;
                next.rings[ring].token = true;
                At::Done
            }
            At::Wait(ring) => {
                let memory = &mut next.rings[ring];
                if memory.messages > 0 {
                    At::Done
                } else if !memory.has_guard
                    || memory.is_replaced
                        && self.name != Some(ring)
                        && !without(LeftOut::LookWhenWoken)
                {
                    memory.has_consumer = false;
                    At::Look
                } else {
                    At::Asleep(ring)
                }
            }
            At::Asleep(ring) => {
                let memory = &mut next.rings[ring];
                if memory.has_guard && !memory.token {
                    return None;
                }
                memory.token = false;
                At::Wait(ring)
            }
            At::Done | At::Refused | At::Dead => return None,
        };
        Some(next)
    }

    /// What must hold in every state.
    fn check(&self) -> Result<(), String> {
        let lost = (0..self.rings.len())
            .any(|ring| self.rings[ring].messages > 0 && self.name != Some(ring));
        if lost {
            return Err(format!("a message is lost: {self:?}"));
        }
        Ok(())
    }

    /// What must hold where no process can make a step.
    fn check_end(&self) -> Result<(), String> {
        for newcomer in &self.at[..CONSUMER] {
            if !matches!(newcomer, At::Done | At::Refused | At::Dead) {
                return Err(format!("a newcomer waits for ever: {self:?}"));
            }
        }
        match self.at[CONSUMER] {
            At::Done | At::Dead => Ok(()),
            At::Asleep(ring) if self.name != Some(ring) => {
                Err(format!("it waits in a ring without a name: {self:?}"))
            }
            At::Asleep(ring) if self.rings[ring].messages > 0 => {
                Err(format!("a message is not noticed: {self:?}"))
            }
            At::Asleep(_) => Ok(()),
            _ => Err(format!("the consumer waits for ever: {self:?}")),
        }
    }
}

/// Visits all states; gives their number, or what is wrong with one of them.
fn visit(mutant: Option<LeftOut>) -> Result<usize, String> {
    let mut seen = HashSet::new();
    let mut open = vec![State::new()];
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        state.check()?;
        let steps: Vec<State> = (0..3)
            .filter_map(|actor| state.step(actor, mutant))
            .collect();
        if steps.is_empty() {
            state.check_end()?;
        }
        open.extend(steps);
        if state.kills > 0 {
            let living = (0..3).filter(|&actor| state.at[actor] != At::Dead);
            open.extend(living.map(|actor| state.kill(actor, mutant)));
        }
    }
    Ok(seen.len())
}

#[test]
fn an_unused_ring_is_replaced_without_loss() {
    let states = visit(None).unwrap();
    println!("{states} states");
    assert!(states > 10_000);
}

#[test]
fn each_precaution_is_needed() {
    for (mutant, expected) in [
        (LeftOut::TokenAtDeath, "without a name"),
        (LeftOut::LookWhenWoken, "without a name"),
        (LeftOut::SecondLook, "lost"),
        (LeftOut::LookForTheName, "lost"),
        (LeftOut::Flag, "lost"),
    ] {
        let failure = visit(Some(mutant)).expect_err(&format!("{mutant:?}"));
        assert!(failure.contains(expected), "{mutant:?}: {failure}");
    }
}
