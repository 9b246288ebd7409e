//! The handshake of [`holder`](super::holder), checked exhaustively: holders of a role, makers of a guard, and a
//! process that may only read the file and keeps a shared lock on it, in every interleaving, with their store buffers
//! (TSO).
//!
//! The ring has one role slot. Its guard 0 works for one holder, which opened the ring when that guard was the
//! newest, and can't be found by others (another IPC namespace). Two makers make guards 1 and 2; the other holders
//! open the ring by the newest record. Any of them may be killed between any two steps: its slot is free, its locks
//! are released, its words stay, and the others see that it is dead.
//!
//! A fault is a state in which two processes hold the slot through guards that both exist. Each precaution is left out
//! once, and the fault must then be found.
//!
//! Left out: a reader whose lock also covers the byte of the makers' lock. Then two makers can be at work at once, which
//! the last look in [`renew`](super::renew) makes unlikely, and does not exclude.

use std::collections::HashSet;

const HOLDERS: usize = 3;
const MAKERS: usize = 2;

/// A precaution that is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    HolderWithoutFence,
    HolderWithoutLook,
    MakerWithoutFence,
    MakerWithoutAnnouncement,
    MakerWithoutLook,
    MakerWithoutLock,
    LoneMakerWithoutLock,
}

/// Which guard the ring names, and by which record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Record {
    guard: Option<usize>,
    number: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Store {
    Record(Record),
    /// The words of the slot: the holder that they name.
    Words(Option<usize>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum At {
    Open,
    Enter,
    Claim,
    Register,
    Fence,
    Look,
    InRole,
    Read,
    ReadAgain,
    AnnounceFence,
    FirstLook,
    MakeBeside,
    MakeAlone,
    Release,
    Ended,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Actor {
    at: At,
    is_dead: bool,
    opened: Record,
    buffer: Vec<Store>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    record: Record,
    words: Option<usize>,
    numbers: u8,
    /// The guards that exist.
    guards: [bool; MAKERS + 1],
    /// The holder of the slot through each guard.
    roles: [Option<usize>; MAKERS + 1],
    /// The holders, then the makers.
    actors: Vec<Actor>,
    /// The maker that has the file's lock alone. Holders share it from `Claim` on.
    alone: Option<usize>,
    /// The makers that hold the lock used beside shared ones.
    beside: [bool; HOLDERS + MAKERS],
    /// The reader still has its shared lock.
    has_reader: bool,
    kills: u8,
}

#[derive(Clone, Copy)]
struct Machine {
    mutant: Mutant,
    kills: u8,
}

impl State {
    fn begin() -> Self {
        let first = Record {
            guard: Some(0),
            number: 0,
        };
        let actor = |at| Actor {
            at,
            is_dead: false,
            opened: first,
            buffer: Vec::new(),
        };
        let mut actors = vec![actor(At::Enter)];
        actors.extend((1..HOLDERS).map(|_| actor(At::Open)));
        actors.extend((0..MAKERS).map(|_| actor(At::Read)));
        Self {
            record: first,
            words: None,
            numbers: 0,
            guards: std::array::from_fn(|guard| guard == 0),
            roles: [None; MAKERS + 1],
            actors,
            alone: None,
            beside: [false; HOLDERS + MAKERS],
            has_reader: true,
            kills: 0,
        }
    }

    fn show(&mut self, store: Store) {
        match store {
            Store::Record(record) => self.record = record,
            Store::Words(words) => self.words = words,
        }
    }

    /// A full barrier of one of them, which every system call is, too.
    fn fence(&mut self, who: usize) {
        for store in std::mem::take(&mut self.actors[who].buffer) {
            self.show(store);
        }
    }

    /// The record as this one reads it: its own stores come first.
    fn record_for(&self, who: usize) -> Record {
        let own = self.actors[who].buffer.iter().rev();
        let own = own.filter_map(|store| match store {
            Store::Record(record) => Some(*record),
            Store::Words(_) => None,
        });
        own.into_iter().next().unwrap_or(self.record)
    }

    fn is_shared_by_holders(&self) -> bool {
        self.actors[..HOLDERS].iter().any(|actor| {
            matches!(
                actor.at,
                At::Claim | At::Register | At::Fence | At::Look | At::InRole
            )
        })
    }

    /// Whether the words name a holder that lives.
    fn is_any_alive(&self) -> bool {
        self.words.is_some_and(|who| !self.actors[who].is_dead)
    }

    /// Whether the guard that the record names can be found.
    fn is_found(&self, record: Record) -> bool {
        record
            .guard
            .is_some_and(|guard| guard > 0 && self.guards[guard])
    }

    fn write_record(&mut self, who: usize, guard: Option<usize>) {
        self.numbers += 1;
        let number = self.numbers;
        let record = Record { guard, number };
        self.actors[who].opened = record;
        self.actors[who].buffer.push(Store::Record(record));
    }

    fn end(&mut self, who: usize) {
        self.fence(who);
        self.roles = self.roles.map(|role| role.filter(|holder| *holder != who));
        self.alone = self.alone.filter(|maker| *maker != who);
        self.beside[who] = false;
        self.actors[who].at = At::Ended;
    }

    fn is_wrong(&self) -> bool {
        let in_role = self.roles.iter().enumerate().filter(|(guard, role)| {
            self.guards[*guard] && role.is_some_and(|holder| self.actors[holder].at == At::InRole)
        });
        in_role.count() > 1
    }
}

impl Machine {
    fn successors(self, state: &State) -> Vec<State> {
        let mut next = Vec::new();
        for who in 0..HOLDERS + MAKERS {
            if !state.actors[who].buffer.is_empty() {
                let mut drained = state.clone();
                let store = drained.actors[who].buffer.remove(0);
                drained.show(store);
                next.push(drained);
            }
            if state.actors[who].at == At::Ended {
                continue;
            }
            let mut stepped = state.clone();
            if self.step(&mut stepped, who) {
                next.push(stepped);
            }
            if state.kills < self.kills {
                let mut killed = state.clone();
                killed.kills += 1;
                killed.end(who);
                killed.actors[who].is_dead = true;
                next.push(killed);
            }
        }
        if state.has_reader {
            let mut left = state.clone();
            left.has_reader = false;
            next.push(left);
        }
        next
    }

    /// One step; false if there is none now.
    fn step(self, state: &mut State, who: usize) -> bool {
        let without = |mutant| self.mutant == mutant;
        let opened = state.actors[who].opened;
        let guard = opened.guard.unwrap_or_default();
        let to = match state.actors[who].at {
            At::Open => {
                let record = state.record_for(who);
                if !state.is_found(record) {
                    return false; // it would make the guard
                }
                state.actors[who].opened = record;
                At::Enter
            }
            At::Enter if state.alone.is_some() => return false,
            At::Enter => At::Claim,
            At::Claim => {
                state.fence(who);
                if !state.guards[guard] || state.roles[guard].is_some() {
                    state.end(who);
                    return true;
                }
                state.roles[guard] = Some(who);
                At::Register
            }
            At::Register => {
                state.actors[who].buffer.push(Store::Words(Some(who)));
                At::Fence
            }
            At::Fence => {
                if !without(Mutant::HolderWithoutFence) {
                    state.fence(who);
                }
                At::Look
            }
            At::Look => {
                let is_newest = state.record_for(who) == opened;
                if !is_newest && !without(Mutant::HolderWithoutLook) {
                    if state.words == Some(who) {
                        state.actors[who].buffer.push(Store::Words(None));
                    }
                    state.end(who);
                    return true;
                }
                At::InRole
            }
            At::InRole => {
                state.actors[who].buffer.push(Store::Words(None));
                state.end(who);
                return true;
            }
            At::Read => {
                let record = state.record_for(who);
                if state.is_found(record) {
                    state.end(who);
                    return true;
                }
                state.actors[who].opened = record;
                let is_shared = state.has_reader || state.is_shared_by_holders();
                if !is_shared && state.alone.is_none() {
                    if state.beside.contains(&true) && !without(Mutant::LoneMakerWithoutLock) {
                        return false;
                    }
                    state.alone = Some(who);
                    state.beside[who] = !without(Mutant::LoneMakerWithoutLock);
                    At::MakeAlone
                } else {
                    let is_free =
                        !state.beside.contains(&true) || without(Mutant::MakerWithoutLock);
                    if state.alone.is_some() || state.is_any_alive() || !is_free {
                        return false;
                    }
                    state.beside[who] = true;
                    At::ReadAgain
                }
            }
            At::MakeAlone => {
                // Another maker may have been at work until this one had the lock.
                if state.record_for(who) != opened {
                    state.end(who);
                    return true;
                }
                let new = who - HOLDERS + 1;
                state.guards[new] = true;
                state.write_record(who, Some(new));
                At::Release
            }
            At::ReadAgain => {
                if state.record_for(who) != opened {
                    state.end(who);
                    return true;
                }
                if !without(Mutant::MakerWithoutAnnouncement) {
                    state.write_record(who, None);
                }
                At::AnnounceFence
            }
            At::AnnounceFence => {
                if !without(Mutant::MakerWithoutFence) {
                    state.fence(who);
                }
                At::FirstLook
            }
            At::FirstLook => {
                if state.is_any_alive() && !without(Mutant::MakerWithoutLook) {
                    state.end(who);
                    return true;
                }
                At::MakeBeside
            }
            At::MakeBeside => {
                let new = who - HOLDERS + 1;
                state.guards[new] = true;
                state.write_record(who, Some(new));
                At::Release
            }
            At::Release => {
                state.end(who);
                return true;
            }
            At::Ended => return false,
        };
        state.actors[who].at = to;
        true
    }

    /// Whether a wrong state can be reached.
    fn goes_wrong(self) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![State::begin()];
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            if state.is_wrong() {
                return true;
            }
            open.extend(self.successors(&state));
        }
        false
    }
}

#[test]
fn the_role_has_one_holder_by_whatever_guard() {
    let machine = |mutant| Machine { mutant, kills: 1 };
    assert!(!machine(Mutant::None).goes_wrong());
    for mutant in [
        Mutant::HolderWithoutFence,
        Mutant::HolderWithoutLook,
        Mutant::MakerWithoutFence,
        Mutant::MakerWithoutAnnouncement,
        Mutant::MakerWithoutLook,
        Mutant::MakerWithoutLock,
        Mutant::LoneMakerWithoutLock,
    ] {
        assert!(machine(mutant).goes_wrong(), "{mutant:?} is not missed");
    }
}
