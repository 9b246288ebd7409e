//! Every command killed before every system call of its main thread, except where it leaves what a process killed earlier
//! leaves: in the loader, from its first call to its last, and after calls that leave nothing in the kernel
//! ([`LEAVES_NOTHING`]). With `SEMRING_FULL=1` before and after every call. After each kill the same command is run again and
//! works, no committed message is missing, the ring can be removed, and nothing of it is left.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::process::Command;

use semring_testkit::objects::Object;
use semring_testkit::process;
use semring_testkit::step::{CallStop, Stepper, can_trace};

use crate::support::alone::{alone, test_name};
use crate::support::{
    CONSUMER, Call, DAMAGED, DONE, FAILED, KILLED, NO_RING, PRODUCER, SEMRING, Scratch, USAGE,
    numbers, seq, whole_lines,
};

/// Calls after which a killed process leaves the same state as before them: they read, or change only what the process
/// has for itself. Three exist on x86-64 only.
const LEAVES_NOTHING: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    libc::SYS_brk,
    libc::SYS_clock_nanosleep,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_uname,
];

/// Lines that go through a ring.
const LINES: u64 = 5;

fn semring(args: &[&str]) -> Call<'static> {
    Call::new(SEMRING, None).args(args)
}

fn produce(address: &str) {
    Call::new(PRODUCER, None)
        .args(&["-q", address])
        .input(seq(LINES))
        .run()
        .quietly(DONE);
}

/// All messages that a consumer gets, to the end of the stream; it removes an auto-removed ring. A
/// time-out means that it waits for an end that never comes.
fn consume(address: &str) -> Vec<u64> {
    let output = Call::new(CONSUMER, None)
        .args(&["-q", "--no-create", "--timeout", "20s", address])
        .run();
    assert!(
        [DONE, NO_RING, DAMAGED].contains(&output.exit),
        "the consumer ended with {}: {}",
        output.exit,
        output.stderr
    );
    numbers(&output.stdout)
}

fn objects() -> BTreeSet<Object> {
    Object::list().expect("/dev/shm and /proc/sysvipc can be read")
}

/// Removes the ring, if it is there. `prune` finds objects without a name.
fn nothing_stays(address: &str) {
    let removed = semring(&["rm", address]).run().exit;
    assert!([DONE, NO_RING].contains(&removed), "rm: {removed}");
    let left = objects();
    if !left.is_empty() {
        semring(&["prune"]).run().quietly(DONE);
        assert!(objects().is_empty(), "{:?}", objects());
    }
}

/// The result of a command that was to be killed at its n-th stop.
struct Killed {
    /// Its output on stdout.
    output: Vec<u8>,
    /// Where it stood; `None` if it had ended before.
    at: Option<String>,
}

/// Runs a command to its n-th stop. What it stands before or after; `None` if it has ended.
fn run_to(program: &str, args: &[&str], input: &[u8], n: usize) -> (Stepper, Option<String>) {
    let every_stop = std::env::var("SEMRING_FULL").is_ok_and(|value| value == "1");
    let mut command = Command::new(program);
    command.args(args).env_remove("RUST_BACKTRACE");
    let mut stepper = Stepper::spawn(command).expect("a command can be traced");
    for line in input.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        stepper.peer().say(&String::from_utf8_lossy(line));
    }
    stepper.peer().close_stdin();
    let mut at = None;
    let mut stops = 0;
    // At its first call, and then from the end of the loader, which sets the address of the thread's number.
    let mut is_new = true;
    let mut is_loaded = false;
    while stops <= n {
        at = match stepper.run_to_call() {
            Ok(CallStop::Before { number }) => {
                stops += usize::from(is_new || every_stop);
                is_loaded |= number == libc::SYS_set_tid_address;
                is_new = is_loaded && !LEAVES_NOTHING.contains(&number);
                Some(format!("before system call {number}"))
            }
            Ok(CallStop::Returned { number, .. }) => {
                stops += usize::from(every_stop);
                Some(format!("after system call {number}"))
            }
            Ok(other) => panic!("a command has no markers: {other:?}"),
            Err(_) => None,
        };
        if at.is_none() {
            break;
        }
    }
    (stepper, at)
}

/// Runs a command to its n-th stop, and kills it there.
fn kill_at(program: &str, args: &[&str], input: &[u8], n: usize) -> Killed {
    let (mut stepper, at) = run_to(program, args, input, n);
    let mut stdout = stepper.peer().take_stdout().expect("it is piped");
    let exit = stepper.kill();
    if at.is_some() {
        assert_eq!(exit, KILLED);
    }
    let mut output = Vec::new();
    stdout.read_to_end(&mut output).expect("a pipe can be read");
    Killed { output, at }
}

/// Kills a command at one stop after the other, until it ends before. Each time in a ring that
/// `prepare` made, and each time `check` looks what came of it.
fn at_every_call(
    what: &str,
    program: &str,
    args: &[&str],
    input: &[u8],
    prepare: impl Fn(),
    check: impl Fn(&Killed),
) {
    if !can_trace() {
        return;
    }
    let mut points = 0;
    loop {
        prepare();
        let killed = kill_at(program, args, input, points);
        if killed.at.is_none() {
            break;
        }
        let place = format!("{what}, stop {points}, {}", killed.at.as_deref().unwrap());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&killed)));
        if let Err(panic) = outcome {
            eprintln!("{place}");
            std::panic::resume_unwind(panic);
        }
        points += 1;
    }
    let _ = semring(&["rm", "--force", args.last().expect("an address")]).run();
    semring(&["prune", "--discard-unread"]).run().quietly(DONE);
    assert!(objects().is_empty(), "{what}: {:?}", objects());
    println!("{what}: {points} points");
    assert!(points > 30, "a program makes system calls");
}

/// Complete lines of an output: the first ones that were sent.
fn beginning(output: &[u8]) -> u64 {
    let (end, lines) = whole_lines(output);
    let got = numbers(&output[..end]);
    assert_eq!(got, (1..=lines.len() as u64).collect::<Vec<_>>());
    got.len() as u64
}

fn a_killed_create(address: &str) {
    let args = ["create", "--producers", "2", "--capacity", "64K", address];
    at_every_call(
        "create",
        SEMRING,
        &args,
        b"",
        || (),
        |_| {
            let again = semring(&args).run();
            // There it is, or there it was already.
            assert!([DONE, FAILED].contains(&again.exit), "{}", again.stderr);
            assert_eq!(semring(&["info", address]).run().exit, DONE);
            produce(address);
            assert_eq!(consume(address), (1..=LINES).collect::<Vec<_>>());
            nothing_stays(address);
        },
    );
}

fn a_killed_look(address: &str, verb: &str) {
    let args = match verb {
        "ls" => vec!["ls"],
        verb => vec![verb, address],
    };
    at_every_call(
        verb,
        SEMRING,
        &args,
        b"",
        || produce(address),
        |_| {
            let again = semring(&args).run();
            assert_eq!(again.exit, DONE, "{}", again.stderr);
            let name = address.split_once(':').expect("a scheme").1;
            assert!(String::from_utf8_lossy(&again.stdout).contains(name));
            assert_eq!(consume(address), (1..=LINES).collect::<Vec<_>>());
            nothing_stays(address);
        },
    );
}

fn a_killed_rm(address: &str) {
    let args = ["rm", address];
    let create = || drop(semring(&["create", address]).run().quietly(DONE));
    at_every_call("rm", SEMRING, &args, b"", create, |_| {
        let again = semring(&args).run().exit;
        assert!([DONE, NO_RING].contains(&again), "{again}");
        nothing_stays(address);
    });
    at_every_call("rm, then use", SEMRING, &args, b"", create, |_| {
        // Complete or gone: a process that uses the name now succeeds.
        produce(address);
        assert_eq!(consume(address), (1..=LINES).collect::<Vec<_>>());
        nothing_stays(address);
    });
}

fn a_killed_producer(address: &str) {
    let args = ["-q", address];
    at_every_call(
        "producer",
        PRODUCER,
        &args,
        &seq(LINES),
        || (),
        |_| {
            // Its committed messages are there, and those of the second one come after them.
            produce(address);
            let got = consume(address);
            let first = got.len() as u64 - LINES;
            let expected: Vec<u64> = (1..=first).chain(1..=LINES).collect();
            assert!(first <= LINES);
            assert_eq!(got, expected);
            nothing_stays(address);
        },
    );
}

fn a_killed_consumer(address: &str) {
    let args = ["-q", "--no-create", "--timeout", "20s", address];
    at_every_call(
        "consumer",
        CONSUMER,
        &args,
        b"",
        || produce(address),
        |killed| {
            // It wrote before it released: nothing is missing, and the last write may come again.
            let first = beginning(&killed.output);
            let rest = consume(address);
            let again = first + rest.len() as u64 - LINES;
            assert!(again <= first, "{first} lines, then {rest:?}");
            let expected: Vec<u64> = (first - again + 1..=LINES).collect();
            assert_eq!(rest, expected);
            nothing_stays(address);
        },
    );
}

/// A consumer lingers; what it has delivered is counted by the next one, which gets the end as well.
fn a_killed_lingering_consumer(address: &str) {
    for guard in ["semaphore", "pipe"] {
        let args = ["-q", "--no-create", "--linger", "20ms", address];
        at_every_call(
            &format!("lingering consumer, {guard}"),
            CONSUMER,
            &args,
            b"",
            || {
                let sent = ["-q", "--guard", guard, address];
                let producer = Call::new(PRODUCER, None).args(&sent);
                producer.input(seq(LINES)).run().quietly(DONE);
            },
            |killed| {
                let first = beginning(&killed.output);
                // A producer of the same group: the stream goes on.
                let later = Call::new(PRODUCER, None).args(&["-q", address]);
                later.input(seq(1)).run().quietly(DONE);
                let rest = consume(address);
                let again = first + rest.len() as u64 - LINES - 1;
                assert!(again <= first, "{first} lines, then {rest:?}");
                let expected: Vec<u64> = (first - again + 1..=LINES).chain([1]).collect();
                assert_eq!(rest, expected);
                nothing_stays(address);
            },
        );
    }
}

/// A consumer waits in a ring that nobody has used. A producer that names other settings is killed, and another one names
/// settings that contradict those.
fn a_killed_newcomer(address: &str) {
    for guard in ["semaphore", "pipe"] {
        let args = ["-q", "--producers", "2", "--capacity", "4K", address];
        let waiting = RefCell::new(None);
        let scratch = Scratch::new();
        let output = scratch.path("output");
        at_every_call(
            &format!("newcomer, {guard}"),
            PRODUCER,
            &args,
            &seq(LINES),
            || {
                let ring = ["-q", "--producers", "1", address];
                // Into a file: nothing but the ring wakes it.
                let file = File::create(&output).expect("a file");
                let consumer = Call::new(CONSUMER, None).args(&ring).stdout(file);
                // Not named: where there is no ring for a moment, the next newcomer makes one with the default.
                let consumer = consumer.with(|command| {
                    command.env("SEMRING_GUARD", guard);
                });
                let mut consumer = consumer.args(&["--ignore-deaths"]).start();
                consumer.wait_until_asleep_on_the_ring();
                *waiting.borrow_mut() = Some(consumer);
            },
            |_| {
                let second = |settings: &[&str]| {
                    let producer = Call::new(PRODUCER, None).args(&["-q", address]);
                    producer.args(settings).input(seq(LINES)).run()
                };
                let contradicting = second(&["--producers", "3"]);
                if ![DONE, USAGE].contains(&contradicting.exit) {
                    let consumer = waiting.take().expect("it waits");
                    let exit = contradicting.exit;
                    panic!(
                        "{exit}: {}; the consumer: {}",
                        contradicting.stderr,
                        consumer.finish().stderr
                    );
                }
                if contradicting.exit != DONE {
                    // The first one had attached, or even sent something.
                    contradicting.refused(USAGE, &["producers", "2", "3"]);
                    second(&[]).quietly(DONE);
                }
                let consumer = waiting.take().expect("it waits");
                consumer.finish().quietly(DONE);
                let mut got = numbers(&std::fs::read(&output).expect("the file"));
                // It may have come to an end before the second one came.
                got.extend(consume(address));
                let first = got.len() as u64 - LINES;
                let expected: Vec<u64> = (1..=first).chain(1..=LINES).collect();
                assert_eq!(got, expected);
                nothing_stays(address);
            },
        );
    }
}

/// A producer is stopped while it makes the ring and attaches. A consumer that wants more lanes comes meanwhile, replaces the
/// ring, waits for the producer, or is refused because the ring is used.
fn a_stopped_newcomer(address: &str) {
    if !can_trace() {
        return;
    }
    let scratch = Scratch::new();
    let output = scratch.path("output");
    let args = ["-q", "--producers", "2", "--capacity", "4K", address];
    let (mut waited, mut refused) = (0, 0);
    for n in 0.. {
        let (stepper, at) = run_to(PRODUCER, &args, &seq(LINES), n);
        let Some(at) = at else {
            nothing_stays(address);
            break;
        };
        let file = File::create(&output).expect("a file");
        let consumer = Call::new(CONSUMER, None).args(&["-q", "--producers", "3", address]);
        let mut consumer = consumer.stdout(file).start();
        // In the ring, or behind a lock of the producer.
        consumer.wait_until_ended_or_in(process::SLEEPING);
        let mut producer = stepper.resume().expect("it goes on");
        let exit = producer.wait();
        assert_eq!(exit, DONE, "the producer, {at} ({n})");
        let consumer = consumer.finish();
        let mut got = numbers(&std::fs::read(&output).expect("the file"));
        if consumer.exit == DONE {
            waited += 1;
        } else {
            consumer.refused(USAGE, &["producers", "2", "3"]);
            refused += 1;
        }
        got.extend(consume(address));
        assert_eq!(got, (1..=LINES).collect::<Vec<_>>(), "{at} ({n})");
        nothing_stays(address);
    }
    println!("{waited} consumers waited, {refused} were refused");
    assert!(waited > 0 && refused > 0);
}

/// With both guards: the pipes of a file are in its folder.
fn a_killed_rm_by_force(address: &str) {
    let args = ["rm", "--force", address];
    for guard in ["semaphore", "pipe"] {
        let create = || {
            let create = ["create", "--guard", guard, "--producers", "2", address];
            semring(&create).run().quietly(DONE);
            produce(address);
        };
        at_every_call("rm --force", SEMRING, &args, b"", create, |_| {
            let again = semring(&args).run().exit;
            assert!([DONE, NO_RING].contains(&again), "{again}");
            nothing_stays(address);
        });
        at_every_call("rm --force, then use", SEMRING, &args, b"", create, |_| {
            // Complete or gone. Its messages may be there.
            produce(address);
            let got = consume(address);
            assert!([LINES, 2 * LINES].contains(&(got.len() as u64)), "{got:?}");
            nothing_stays(address);
        });
    }
}

/// A file is in a folder that no other program searches, and its set does not record the folder.
fn over_a_file(body: fn(&str)) {
    let folder = std::env::temp_dir().join("rings");
    std::fs::create_dir(&folder).expect("a folder of this test");
    let address = format!("file:{}", folder.join("killed").display());
    body(&address);
    let left: Vec<_> = std::fs::read_dir(&folder).expect("our folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn create_of_a_file_may_be_killed_at_every_system_call() {
    alone(
        test_name!(create_of_a_file_may_be_killed_at_every_system_call),
        || over_a_file(a_killed_create),
    );
}

#[test]
fn rm_of_a_file_may_be_killed_at_every_system_call() {
    alone(
        test_name!(rm_of_a_file_may_be_killed_at_every_system_call),
        || over_a_file(a_killed_rm),
    );
}

#[test]
fn rm_by_force_of_a_file_may_be_killed_at_every_system_call() {
    alone(
        test_name!(rm_by_force_of_a_file_may_be_killed_at_every_system_call),
        || over_a_file(a_killed_rm_by_force),
    );
}

macro_rules! over_both_backends_alone {
    ($($test:ident => $body:expr;)*) => {
        $(
            #[test]
            fn $test() {
                alone(test_name!($test), || {
                    let body: fn(&str) = $body;
                    for address in ["posix:killed", "sysv:killed"] {
                        println!("{address}");
                        body(address);
                    }
                });
            }
        )*
    };
}

over_both_backends_alone! {
    create_may_be_killed_at_every_system_call => a_killed_create;
    ls_may_be_killed_at_every_system_call => |address| a_killed_look(address, "ls");
    info_may_be_killed_at_every_system_call => |address| a_killed_look(address, "info");
    rm_may_be_killed_at_every_system_call => a_killed_rm;
    rm_by_force_may_be_killed_at_every_system_call => a_killed_rm_by_force;
    producer_may_be_killed_at_every_system_call => a_killed_producer;
    consumer_may_be_killed_at_every_system_call => a_killed_consumer;
    lingering_consumer_may_be_killed_at_every_system_call => a_killed_lingering_consumer;
    newcomer_may_be_killed_at_every_system_call => a_killed_newcomer;
    newcomer_may_be_stopped_at_every_system_call => a_stopped_newcomer;
}
