//! One operation of a process, instruction by instruction, and the state of the others if the process
//! stops at any of them.
//!
//! A first run makes single steps through the whole operation and records where it calls the kernel
//! and where it changes the segment. Every other run goes at full speed to a breakpoint near its point
//! and steps from there, so that of a long operation, too, any instruction can be reached.
//!
//! A failure (also a hang: each point has its own watchdog) prints its point and the command that
//! repeats it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::fixture::{Backend, Fixture, PEER, setting};
use semring_testkit::peer::Exit;
use semring_testkit::step::{CallStop, Stepper};
use semring_testkit::watchdog::Watchdog;

/// Time after which a survivor must be hanging; many times what one point needs.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);

/// Which points are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Points {
    /// Every instruction of the data path in POSIX memory; [`SAMPLED`] in System V memory, where the same instructions
    /// run. With `SEMRING_FULL=1` every instruction in both.
    Every,
    /// This many instructions on either side of each system call and of each change of the segment,
    /// and this many spread over the whole. With `SEMRING_FULL=1` every instruction.
    Around {
        /// Of a system call.
        calls: u64,
        /// Of a change of the segment.
        stores: u64,
        /// Over the whole.
        spread: u64,
    },
    /// Before and after each system call, without single steps: a point is a number of stops there, two a call. With
    /// `SEMRING_FULL=1` every instruction.
    Calls,
}

/// The points of longer operations of set-up in a short run.
pub const AROUND: Points = Points::Around {
    calls: 4,
    stores: 3,
    spread: 100,
};

/// The points of the data path in the second kind of memory.
const SAMPLED: Points = Points::Around {
    calls: 8,
    stores: 4,
    spread: 100,
};

/// Where a process has come to.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Instructions after the first marker; of [`Points::Calls`] stops at system calls.
    pub steps: u64,
    /// It had come to the second one: the operation was complete.
    pub at_end: bool,
    /// The semaphore set that it made or opened last: a new set without operations does not show its
    /// maker.
    pub set: Option<i32>,
}

impl Point {
    /// Lets a process run to this many stops at system calls. False if it came to its marker before.
    fn run_over_calls(&mut self, stepper: &mut Stepper, stops: u64) -> bool {
        for _ in 0..stops {
            match stepper.run_to_call().expect("it goes on") {
                CallStop::Marker => return false,
                CallStop::Returned { number, result }
                    if number == libc::SYS_semget && result >= 0 =>
                {
                    self.set = Some(result as i32);
                }
                _ => {}
            }
        }
        true
    }
}

/// The course of an operation. Points are numbers of instructions made.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// All of them.
    pub len: u64,
    /// Those that were system calls: call 5 is made by instruction 5, so point 4 is in front of it.
    pub calls: Vec<u64>,
    /// Those that changed the segment, in the same way.
    pub stores: Vec<u64>,
    /// Where the next instruction lies, at each point, from the beginning of the program.
    places: Vec<u64>,
}

impl Track {
    /// Steps through an operation to its end.
    pub fn of(stepper: &mut Stepper) -> Track {
        let mut segment = Segment::of(stepper.peer().pid());
        let program = program(stepper.peer().pid()).start;
        let mut track = Track::default();
        let mut stepped = stepper.step(0).expect("it stands at its marker");
        loop {
            let place = stepped.instruction_pointer.wrapping_sub(program);
            track.places.push(place);
            stepped = stepper.step(1).expect("it comes to its end");
            if stepped.at_end {
                return track;
            }
            track.len += 1;
            if stepped.in_syscall {
                track.calls.push(track.len);
                segment.find();
            } else if segment.has_changed() {
                track.stores.push(track.len);
            }
        }
    }

    /// The points at which a killed process leaves another state than at the point before: after the
    /// changes of the segment and the system calls, and the end.
    pub fn states(&self) -> Vec<u64> {
        let mut states: BTreeSet<u64> = self.stores.iter().copied().collect();
        states.extend(&self.calls);
        states.extend([0, self.len]);
        states.into_iter().collect()
    }

    /// Leads a process that stands at its marker to a point: over the system calls in front of it, then
    /// to a breakpoint, then by single steps.
    pub fn lead(&self, stepper: &mut Stepper, to: u64) -> Point {
        let mut point = Point {
            steps: to,
            at_end: true,
            set: None,
        };
        let calls = self.calls.partition_point(|call| *call <= to);
        if !point.run_over_calls(stepper, 2 * calls as u64) {
            return point;
        }
        let start = calls.checked_sub(1).map_or(0, |last| self.calls[last]);
        let mut from = start;
        let program = program(stepper.peer().pid());
        if let Some((breakpoint, visits)) = self.breakpoint(start, to, &program) {
            let address = program.start + self.places[breakpoint as usize];
            match stepper.run_to_address(address, visits) {
                Ok(true) => from = breakpoint,
                Ok(false) => return point,
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    panic!("it goes on: {error}")
                }
                // No breakpoints on this machine: on foot.
                Err(_) => {}
            }
        }
        let stepped = stepper.step(to - from).expect("it goes on");
        point.steps = from + stepped.steps;
        point.at_end = stepped.at_end;
        point
    }

    /// The instruction between the two points from which it is the least way to the second one, counted
    /// in stops, and how often the process comes to it; none if it is best to walk all the way. It is one
    /// of the program: libraries lie elsewhere in each process.
    fn breakpoint(&self, start: u64, to: u64, program: &Range<u64>) -> Option<(u64, u64)> {
        let first = *self.places.get(start as usize)?;
        let mut visits = HashMap::new();
        let mut best = None;
        let mut least = to - start;
        for from in start + 1..=to.min(self.len) {
            let place = self.places[from as usize];
            let visits = visits.entry(place).or_insert(0);
            *visits += 1;
            // Whether a breakpoint at the very first instruction counts depends on the processor.
            let usable = place < program.end - program.start && place != first;
            if usable && *visits + (to - from) < least {
                least = *visits + (to - from);
                best = Some((from, *visits));
            }
        }
        best
    }

    /// Whether a process that was led to a point stands at the same instruction as the first one did.
    fn is_at(&self, stepper: &mut Stepper, point: u64) -> bool {
        let stands = stepper.step(0).expect("it stands").instruction_pointer;
        let place = self.places.get(point as usize);
        place.is_some_and(|place| {
            let start = program(stepper.peer().pid()).start;
            // Anywhere in a library, which lies elsewhere by whole pages.
            (place.wrapping_add(start) ^ stands) & 0xfff == 0
        })
    }

    fn choose(&self, points: Points) -> Vec<u64> {
        let (calls, stores, spread) = match points {
            Points::Around {
                calls,
                stores,
                spread,
            } if !is_full() => (calls, stores, spread),
            _ => return (0..=self.len).collect(),
        };
        let mut chosen = BTreeSet::from([0, self.len]);
        for (events, window) in [(&self.calls, calls), (&self.stores, stores)] {
            for event in events {
                chosen.extend((event - 1).saturating_sub(window)..=event + window);
            }
        }
        chosen.extend((0..spread).map(|n| n * self.len / spread));
        chosen.retain(|point| *point <= self.len);
        chosen.into_iter().collect()
    }
}

/// Where the program of a process lies in its memory.
fn program(pid: u32) -> Range<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its mappings");
    let mut all: Option<Range<u64>> = None;
    for (range, line) in maps.lines().map(|line| (range(line), line)) {
        if line.ends_with(PEER) {
            let start = all.map_or(range.start, |all| all.start);
            all = Some(start..range.end);
        }
    }
    all.expect("a program is mapped")
}

/// The addresses in a line of /proc/PID/maps.
fn range(line: &str) -> Range<u64> {
    let address = |text| u64::from_str_radix(text, 16).expect("an address");
    let range = line
        .split(' ')
        .next()
        .and_then(|range| range.split_once('-'));
    let (start, end) = range.expect("two addresses");
    address(start)..address(end)
}

/// The memory of a traced process that it shares: the segment.
struct Segment {
    pid: u32,
    memory: File,
    /// Addresses, and the bytes at the last look.
    parts: Vec<(u64, Vec<u8>)>,
}

impl Segment {
    fn of(pid: u32) -> Segment {
        let memory = File::open(format!("/proc/{pid}/mem")).expect("a traced process can be read");
        let mut segment = Segment {
            pid,
            memory,
            parts: Vec::new(),
        };
        segment.find();
        segment
    }

    /// Looks where it is mapped now.
    fn find(&mut self) {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).expect("its mappings");
        self.parts.clear();
        for line in maps.lines() {
            let access = line.split(' ').nth(1).expect("permissions");
            let shared = access.starts_with('r') && access.ends_with('s');
            if !shared || !["/dev/shm/", "/SYSV"].iter().any(|it| line.contains(it)) {
                continue;
            }
            let Range { start, end } = range(line);
            self.parts.push((start, vec![0; (end - start) as usize]));
        }
        self.has_changed();
    }

    /// Whether anything differs from the last look.
    fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (begin, before) in &mut self.parts {
            let mut now = vec![0; before.len()];
            // One that is just being unmapped, or was cut short, is no matter of ours.
            if self.memory.read_exact_at(&mut now, *begin).is_ok() && now != *before {
                changed = true;
                *before = now;
            }
        }
        changed
    }
}

/// Whether time does not matter.
pub fn is_full() -> bool {
    setting("SEMRING_FULL", 0) != 0
}

/// The point requested by `SEMRING_POINT=OPERATION:STEPS`.
fn requested_point() -> Option<(String, u64)> {
    let text = std::env::var("SEMRING_POINT").ok()?;
    let (operation, steps) = text
        .rsplit_once(':')
        .unwrap_or_else(|| panic!("SEMRING_POINT={text:?} is not OPERATION:STEPS"));
    let steps = steps
        .parse()
        .unwrap_or_else(|_| panic!("SEMRING_POINT={text:?}: no number of steps"));
    Some((operation.to_owned(), steps))
}

/// Prints the point when a check panics.
struct PrintOnPanic(String);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: {}", self.0);
        }
    }
}

/// An operation that is interrupted at its points.
pub struct KillPoints<'a> {
    fixture: &'a Fixture,
    /// How the operation is called.
    name: &'a str,
    points: Points,
}

impl<'a> KillPoints<'a> {
    /// Of an operation with this name: no other test has one of the same name.
    pub fn new(fixture: &'a Fixture, name: &'a str, points: Points) -> KillPoints<'a> {
        KillPoints {
            fixture,
            name,
            points,
        }
    }

    /// Kills at one point after the other. `stage` sets up the ring and the process, `check` examines
    /// the state after the kill. The first point is the end; from then on they ascend.
    pub fn kill<S>(self, stage: impl FnMut() -> (Stepper, S), mut check: impl FnMut(Point, S)) {
        self.each(stage, |point, stepper, staged| {
            assert_eq!(stepper.kill(), Exit::Signal(libc::SIGKILL));
            check(point, staged);
        });
    }

    /// The same for an operation by which a process detaches: a process that has reached its end is not
    /// killed, so that the other processes notice the end of the operation, not the end of the process.
    pub fn kill_before_the_end<S>(
        self,
        stage: impl FnMut() -> (Stepper, S),
        mut check: impl FnMut(Point, S),
    ) {
        self.each(stage, |point, stepper, staged| {
            let left = if point.at_end {
                Some(stepper.resume().expect("it lives"))
            } else {
                assert_eq!(stepper.kill(), Exit::Signal(libc::SIGKILL));
                None
            };
            check(point, staged);
            drop(left);
        });
    }

    /// The same with something else than a kill.
    pub fn each<S>(
        self,
        mut stage: impl FnMut() -> (Stepper, S),
        mut act: impl FnMut(Point, Stepper, S),
    ) {
        let requested = requested_point();
        if requested
            .as_ref()
            .is_some_and(|(name, _)| name != self.name)
        {
            return;
        }
        if self.points == Points::Calls && !is_full() {
            return self.each_call(requested.map(|(_, stops)| stops), stage, act);
        }
        let begin = Instant::now();
        let (mut stepper, staged) = stage();
        let track = Track::of(&mut stepper);
        let end = Point {
            steps: track.len,
            at_end: true,
            set: None,
        };
        self.at(end.steps, track.len, "instructions", || {
            act(end, stepper, staged)
        });
        let points = match requested {
            Some((_, steps)) => vec![steps],
            None => track.choose(match (self.points, self.fixture.backend) {
                (Points::Every, Backend::Sysv) => SAMPLED,
                (points, _) => points,
            }),
        };
        let (mut tried, mut elsewhere) = (1, 0);
        for steps in points {
            self.at(steps, track.len, "instructions", || {
                let (mut stepper, staged) = stage();
                let point = track.lead(&mut stepper, steps);
                elsewhere += u64::from(!point.at_end && !track.is_at(&mut stepper, steps));
                act(point, stepper, staged);
            });
            tried += 1;
        }
        println!(
            "{:?} {}: {tried} points of {} instructions ({} system calls, {} changes of the segment), \
             {elsewhere} off the track, {:.1?}",
            self.fixture.backend,
            self.name,
            track.len,
            track.calls.len(),
            track.stores.len(),
            begin.elapsed()
        );
        assert!(
            track.len > 50,
            "an operation is more than {} instructions",
            track.len
        );
    }

    /// Before and after each system call. A process that is killed where it stops before one does not make it.
    fn each_call<S>(
        &self,
        requested: Option<u64>,
        mut stage: impl FnMut() -> (Stepper, S),
        mut act: impl FnMut(Point, Stepper, S),
    ) {
        let begin = Instant::now();
        let (mut stepper, staged) = stage();
        let mut all = 0;
        while stepper.run_to_call().expect("it comes to its end") != CallStop::Marker {
            all += 1;
        }
        let end = Point {
            steps: all,
            at_end: true,
            set: None,
        };
        let unit = "stops at system calls";
        self.at(all, all, unit, || act(end, stepper, staged));
        let points = requested.map_or(0..=all, |stops| stops..=stops);
        let mut tried = 1;
        for stops in points {
            self.at(stops, all, unit, || {
                let (mut stepper, staged) = stage();
                let mut point = Point {
                    steps: stops,
                    at_end: false,
                    set: None,
                };
                point.at_end = !point.run_over_calls(&mut stepper, stops);
                act(point, stepper, staged);
            });
            tried += 1;
        }
        println!(
            "{:?} {}: {tried} points of {} system calls, {:.1?}",
            self.fixture.backend,
            self.name,
            all / 2,
            begin.elapsed()
        );
        assert!(all > 4, "an operation has more than {all} {unit}");
    }

    fn at(&self, steps: u64, of: u64, unit: &str, run: impl FnOnce()) {
        let KillPoints { fixture, name, .. } = self;
        let point = PrintOnPanic(format!(
            "{name} ({:?}) after {steps} of {of} {unit}; repeat with \
             SEMRING_POINT={name}:{steps} cargo test --test faults {}",
            fixture.backend,
            fixture.test(),
        ));
        let _watchdog = Watchdog::new(HANG_TIMEOUT, &point.0);
        run();
    }
}
