//! One round: a ring is made, processes are killed and stopped, then all run undisturbed, and the
//! audit is computed.

use std::fmt;
use std::time::{Duration, Instant};

use semring::WaitStrategy;
use semring_testkit::audit::Report;
use semring_testkit::fork::{self, Forked};
use semring_testkit::ledger::Ledger;
use semring_testkit::names::RingGuard;
use semring_testkit::peer::Exit;
use semring_testkit::process;

use super::options::Options;
use super::random::Random;
use super::rings;
use super::roles::{Board, Setting};

/// If nothing moves for this time, a process hangs: it is many thousand times what a step takes.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);
/// One kill in this many hits a consumer that is replaced only after all producers have noticed.
const KILLS_PER_LONE_DEATH: u64 = 25;
/// The progress of every process before such a kill: more messages than there were kills since the last one, so
/// that the ring is in use however the machine divides its time.
const STEPS_BEFORE_LONE_DEATH: u64 = 40;
const SIGKILL: i32 = 9;

/// SIGINT and SIGTERM end the storm after its current round.
pub fn stop_at_signals() {
    if let Err(error) = fork::catch_end_signals() {
        eprintln!("an interrupted run will leave its ring: {error}");
    }
}

/// Whether one of them came.
pub fn is_stopped() -> bool {
    fork::has_end_signal()
}

/// Counts of the actions of the storm.
#[derive(Clone, Copy, Default, Debug)]
pub struct Disturbances {
    pub kills: u64,
    pub consumer_kills: u64,
    pub stopped_kills: u64,
    pub mass_kills: u64,
    pub lone_deaths: u64,
    pub stops: u64,
    pub quiet_phases: u64,
    pub refused: u64,
    pub broken_pipes: u64,
    pub ends: u64,
}

impl Disturbances {
    pub fn add(&mut self, other: &Disturbances) {
        self.kills += other.kills;
        self.consumer_kills += other.consumer_kills;
        self.stopped_kills += other.stopped_kills;
        self.mass_kills += other.mass_kills;
        self.lone_deaths += other.lone_deaths;
        self.stops += other.stops;
        self.quiet_phases += other.quiet_phases;
        self.refused += other.refused;
        self.broken_pipes += other.broken_pipes;
        self.ends += other.ends;
    }
}

/// The result of a round.
pub struct Outcome {
    pub disturbances: Disturbances,
    pub audit: Report,
    pub problems: Vec<String>,
}

/// How a round is set up.
pub struct Round {
    seed: u64,
    kills: u64,
    pace: Duration,
    producers: usize,
    posix: bool,
    capacity: u64,
    lanes: usize,
    wait: WaitStrategy,
}

/// The place of a role: the child that has it, if there is one at the moment.
struct Place {
    child: Forked,
    /// Stopped until then.
    stopped: Option<Instant>,
}

struct Storm<'a> {
    round: &'a Round,
    setting: Setting<'a>,
    random: Random,
    /// Children so far: each has its own random numbers.
    children: u64,
    /// The consumer's place first, then those of the producers.
    places: Vec<Place>,
    /// Killed, and not yet reaped.
    dying: Vec<Forked>,
    disturbances: Disturbances,
}

impl Round {
    /// The round of this number, with at most this many kills.
    pub fn new(options: &Options, number: u64, kills_left: u64) -> Round {
        let mut random = Random::new(options.seed, number);
        let lanes = [0, 0, 1, 4].map(|more| options.producers + more);
        let few_or_many = random
            .of(&lanes)
            .max(if random.once_in(4) { 24 } else { 0 });
        // Spinning children take the processors from all others.
        let waits = [WaitStrategy::Block, WaitStrategy::Adaptive];
        let wait = if random.once_in(12) {
            WaitStrategy::Yield
        } else {
            random.of(&waits)
        };
        let kills = match options.round_kills {
            Some(kills) => kills,
            None => 600 + random.below(800),
        };
        let capacity = if random.once_in(5) {
            1 << 18
        } else {
            [4096, 1 << 16][(number / 2 % 2) as usize]
        };
        Round {
            seed: random.next(),
            kills: kills.min(kills_left),
            pace: Duration::from_micros(options.pace),
            producers: options.producers,
            posix: options.posix.unwrap_or(number.is_multiple_of(2)),
            capacity: options.capacity.unwrap_or(capacity),
            lanes: options.lanes.unwrap_or(few_or_many),
            wait: options.wait.unwrap_or(wait),
        }
    }

    /// A description in words.
    pub fn variant(&self) -> String {
        format!(
            "{}, {} producers, {} lanes of {} bytes, {:?}",
            if self.posix { "posix" } else { "sysv" },
            self.producers,
            self.lanes,
            self.capacity,
            self.wait
        )
    }

    /// Runs it. The caller gets the number of messages arrived so far now and then.
    pub fn run(&self, mut tell: impl FnMut(&Disturbances, u64)) -> Outcome {
        let mut outcome = Outcome {
            disturbances: Disturbances::default(),
            audit: Report::default(),
            problems: Vec::new(),
        };
        if let Err(problem) = self.go(&mut outcome, &mut tell) {
            outcome.problems.push(problem);
        }
        outcome
    }

    fn go(
        &self,
        outcome: &mut Outcome,
        tell: &mut impl FnMut(&Disturbances, u64),
    ) -> Result<(), String> {
        let guard = RingGuard::new("storm");
        let address = if self.posix {
            guard.posix()
        } else {
            guard.sysv()
        };
        let failed = |what: &str, error: &dyn fmt::Display| format!("{what}: {error}");
        let ring = rings::any(&address)
            .producers(self.lanes)
            .capacity(self.capacity)
            .create();
        drop(ring.map_err(|error| failed("create", &error))?);
        // So that the guard has seen the ring's objects, even if its name disappears.
        guard.objects();
        // A child attaches again and again; those that are killed at once do so once.
        let attachments = (self.kills as usize + 1000) * 20;
        let ledger = Ledger::new(self.lanes, self.capacity as usize, attachments)
            .map_err(|error| failed("the ledger", &error))?;
        let board = Board::new(self.producers).map_err(|error| failed("the board", &error))?;
        let mut storm = Storm {
            round: self,
            setting: Setting {
                address: &address,
                wait: self.wait,
                ledger: &ledger,
                board: &board,
            },
            random: Random::new(self.seed, 0),
            children: 0,
            places: Vec::new(),
            dying: Vec::new(),
            disturbances: Disturbances::default(),
        };
        let result = storm.run(tell);
        let mut disturbances = storm.disturbances;
        // Kills and reaps all children that are left.
        drop(storm);
        disturbances.refused = board.refused();
        disturbances.broken_pipes = board.broken_pipes();
        disturbances.ends = board.ends();
        outcome.disturbances = disturbances;
        outcome.audit = ledger.report();
        if result.is_err() && !ledger.has_findings() {
            // The ring was not drained: the messages in it are not lost.
            outcome.audit.lost = 0;
            outcome.audit.examples.clear();
        }
        result?;
        let address = address.parse::<semring::Address>().expect("an address");
        match semring::remove(&address) {
            Ok(()) | Err(semring::RemoveError::Open(semring::OpenError::NotFound { .. })) => {}
            Err(error) => return Err(failed("remove", &error)),
        }
        let left = guard.objects();
        outcome.audit.leaked = left.len() as u64;
        for object in left {
            outcome
                .audit
                .examples
                .push(format!("left behind: {object}"));
        }
        Ok(())
    }
}

impl Storm<'_> {
    fn run(&mut self, tell: &mut impl FnMut(&Disturbances, u64)) -> Result<(), String> {
        for place in 0..=self.round.producers {
            let child = self.start(place)?;
            self.places.push(Place {
                child,
                stopped: None,
            });
        }
        let mut next_quiet_phase = 100;
        while self.disturbances.kills < self.round.kills && !is_stopped() {
            self.act()?;
            tell(&self.disturbances, self.setting.ledger.arrivals());
            if self.setting.ledger.has_findings() {
                return Err("the audit found something".to_owned());
            }
            if self.disturbances.kills >= next_quiet_phase {
                next_quiet_phase = self.disturbances.kills + 100 + self.random.below(300);
                self.quiet_phase(20)?;
                if self.random.once_in(3) {
                    self.mass_kill()?;
                }
            }
        }
        self.quiet_phase(20)?;
        self.finish()
    }

    /// Forks a child for a place.
    fn start(&mut self, place: usize) -> Result<Forked, String> {
        self.children += 1;
        let random = Random::new(self.round.seed, self.children);
        let setting = &self.setting;
        let child = fork::fork(|| match place.checked_sub(1) {
            None => setting.consumer(random),
            Some(place) => setting.producer(place, random),
        });
        child.map_err(|error| format!("fork: {error}"))
    }

    /// One action of the storm.
    fn act(&mut self) -> Result<(), String> {
        let pace = match self.random.below(10) {
            0 => Duration::ZERO,
            1..9 => self.round.pace,
            _ => self.round.pace * 10,
        };
        if !pace.is_zero() {
            self.random.pass(pace * 2);
        }
        let now = Instant::now();
        for place in &mut self.places {
            if place.stopped.is_some_and(|until| until <= now) {
                place.stopped = None;
                place.child.cont();
            }
        }
        let victim = if self.random.once_in(6) {
            0
        } else {
            1 + self.random.below(self.round.producers as u64) as usize
        };
        if self.random.once_in(5) {
            if self.places[victim].stopped.is_none() {
                self.disturbances.stops += 1;
                self.places[victim].child.stop();
                let time = Duration::from_micros(self.random.below(10_000));
                self.places[victim].stopped = Some(now + time);
            }
            return Ok(());
        }
        // A process that is killed at a random moment is usually replaced before its peers notice: so the
        // number of broken pipes must not be left to chance.
        if victim == 0
            && self.disturbances.lone_deaths * KILLS_PER_LONE_DEATH <= self.disturbances.kills
        {
            return self.kill_consumer_alone();
        }
        self.kill(victim)
    }

    /// Kills the child of a place, and starts another one, before or after the kernel has completed
    /// the death.
    fn kill(&mut self, victim: usize) -> Result<(), String> {
        self.strike(victim);
        self.places[victim].stopped = None;
        if self.random.once_in(2) {
            await_death(&mut self.places[victim].child)?;
            let successor = self.start(victim)?;
            self.places[victim].child = successor;
        } else {
            let successor = self.start(victim)?;
            let dead = std::mem::replace(&mut self.places[victim].child, successor);
            self.dying.push(dead);
        }
        // Some of the dead stay unreaped for a while.
        let left = self.random.below(4) as usize;
        self.bury(left)
    }

    fn strike(&mut self, victim: usize) {
        self.disturbances.kills += 1;
        self.disturbances.consumer_kills += u64::from(victim == 0);
        self.disturbances.stopped_kills += u64::from(self.places[victim].stopped.is_some());
        self.places[victim].child.strike();
    }

    /// Reaps all but the last few that were killed.
    fn bury(&mut self, but: usize) -> Result<(), String> {
        while self.dying.len() > but {
            await_death(&mut self.dying.remove(0))?;
        }
        Ok(())
    }

    /// Kills all processes at once, and starts all of them again.
    fn mass_kill(&mut self) -> Result<(), String> {
        self.disturbances.mass_kills += 1;
        for place in 0..self.places.len() {
            self.strike(place);
        }
        for place in 0..self.places.len() {
            self.places[place].stopped = None;
            await_death(&mut self.places[place].child)?;
        }
        for place in 0..self.places.len() {
            self.places[place].child = self.start(place)?;
        }
        Ok(())
    }

    /// Kills the consumer of all producers, and starts another one only when every producer
    /// has noticed: those that send, and those that wait for room.
    fn kill_consumer_alone(&mut self) -> Result<(), String> {
        self.disturbances.lone_deaths += 1;
        self.quiet_phase(STEPS_BEFORE_LONE_DEATH)?;
        let board = self.setting.board;
        let producers = self.round.producers;
        let before: Vec<u64> = (0..producers).map(|place| board.news(place)).collect();
        self.strike(0);
        await_death(&mut self.places[0].child)?;
        // A consumer that had just closed the ring may have been noticed before the producers were
        // checked.
        if board.has_consumer() {
            self.wait(1, "the producers notice that the consumer died", || {
                (0..producers).all(|place| board.news(place) > before[place])
            })?;
        }
        self.places[0].child = self.start(0)?;
        self.places[0].stopped = None;
        Ok(())
    }

    fn wake_all(&mut self) {
        for place in &mut self.places {
            place.stopped = None;
            place.child.cont();
        }
    }

    /// No process dies for a while: then no undo token hides a lost wake-up, and every process has to
    /// make this many steps.
    fn quiet_phase(&mut self, steps: u64) -> Result<(), String> {
        self.disturbances.quiet_phases += 1;
        self.wake_all();
        self.bury(0)?;
        let board = self.setting.board;
        let goals: Vec<u64> = (0..self.round.producers)
            .map(|place| board.progress(place) + steps)
            .collect();
        let goal = self.setting.ledger.arrivals() + steps;
        let ledger = self.setting.ledger;
        self.wait(0, "calm", || {
            ledger.arrivals() >= goal
                && goals
                    .iter()
                    .enumerate()
                    .all(|(place, goal)| board.progress(place) >= *goal)
        })
    }

    /// Waits for progress of all processes, from this place on.
    fn wait(
        &mut self,
        first: usize,
        what: &str,
        mut is_done: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let mut last = (0, Instant::now());
        while !is_done() {
            let board = self.setting.board;
            let producers = (0..self.round.producers).map(|place| board.progress(place));
            let sum = producers.sum::<u64>() + self.setting.ledger.arrivals();
            if sum != last.0 {
                last = (sum, Instant::now());
            }
            for place in first..self.places.len() {
                match self.places[place].child.has_ended() {
                    None | Some(Exit::Code(0)) => {}
                    Some(exit) => return Err(format!("{what}: {} ended: {exit}", name(place))),
                }
            }
            if last.1.elapsed() > HANG_TIMEOUT {
                return Err(self.hang(what));
            }
            // There is no sign of it but the words that are looked at.
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// The state of all processes while nothing moves.
    fn hang(&self, what: &str) -> String {
        let mut text = format!("{what}: nothing moved for {HANG_TIMEOUT:?}");
        for (place, of) in self.places.iter().enumerate() {
            let describe = process::describe(of.child.pid());
            text += &format!("\n{}: {}", name(place), describe.trim_end());
        }
        match semring::inspect(self.setting.address) {
            Ok(info) => text += &format!("\n{info:#?}"),
            Err(error) => text += &format!("\ninspect: {error}"),
        }
        text
    }

    /// The end: the producers detach or are killed; possibly the consumer is killed; then a last
    /// producer sends a message, and the consumer has to get the end of the stream after it.
    fn finish(&mut self) -> Result<(), String> {
        if self.random.once_in(2) {
            self.setting.board.let_producers_leave();
            let last = self.places.len();
            for place in 1..last {
                let exit = self.await_exit(place, "the producers leave")?;
                if exit != Exit::Code(0) {
                    return Err(format!("a producer that was to leave ended: {exit}"));
                }
            }
        } else {
            for place in 1..self.places.len() {
                self.strike(place);
            }
            for place in 1..self.places.len() {
                await_death(&mut self.places[place].child)?;
            }
        }
        self.places.truncate(1);
        if self.random.once_in(2) {
            self.strike(0);
            await_death(&mut self.places[0].child)?;
            self.places[0].child = self.start(0)?;
        }
        let killed = self.random.once_in(2);
        let setting = &self.setting;
        let herald = fork::fork(|| setting.herald(killed));
        self.places.push(Place {
            child: herald.map_err(|error| format!("fork: {error}"))?,
            stopped: None,
        });
        let exit = self.await_exit(1, "the last producer")?;
        if exit
            != (if killed {
                Exit::Signal(SIGKILL)
            } else {
                Exit::Code(0)
            })
        {
            return Err(format!("the last producer ended: {exit}"));
        }
        match self.await_exit(0, "the consumer sees the end of the stream")? {
            Exit::Code(0) => Ok(()),
            exit => Err(format!("the consumer ended: {exit}")),
        }
    }

    fn await_exit(&mut self, place: usize, what: &str) -> Result<Exit, String> {
        let mut last = (0, Instant::now());
        loop {
            if let Some(exit) = self.places[place].child.has_ended() {
                return Ok(exit);
            }
            let arrivals = self.setting.ledger.arrivals();
            if arrivals != last.0 {
                last = (arrivals, Instant::now());
            }
            if last.1.elapsed() > HANG_TIMEOUT {
                return Err(self.hang(what));
            }
            // There is no signal for it that would not disturb the children.
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn name(place: usize) -> String {
    match place {
        0 => "the consumer".to_owned(),
        place => format!("producer {place}"),
    }
}

/// Reaps a child that was killed. One that had ended by itself before has found something.
fn await_death(child: &mut Forked) -> Result<(), String> {
    match child.wait() {
        Exit::Signal(SIGKILL) => Ok(()),
        exit => Err(format!(
            "process {} ended before its kill: {exit}",
            child.pid()
        )),
    }
}
