//! `semring prune`: objects that may be removed, objects that must stay, and nothing left at any
//! kill.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::sys::signal::Signal;
use semring_testkit::objects::Object;
use semring_testkit::peer::Exit;
use serde_json::Value;

use crate::support::alone::{alone, test_name};
use crate::support::{
    CONSUMER, Call, DONE, PRODUCER, SEMRING, TIMED_OUT, Tool, number, one_object, seq, wait_until,
};

fn semring(args: &[&str]) -> Call<'static> {
    Call::new(SEMRING, None).args(args)
}

fn prune(args: &[&str]) -> String {
    semring(&["prune"]).args(args).run().quietly(DONE).text()
}

/// Everything in shared memory that this namespace has.
fn objects() -> BTreeSet<Object> {
    Object::list().expect("/dev/shm and /proc/sysvipc can be read")
}

fn send(address: &str, last: u64) {
    send_guarded("auto", address, last);
}

fn send_guarded(guard: &str, address: &str, last: u64) {
    Call::new(PRODUCER, None)
        .args(&["-q", "--guard", guard, address])
        .input(seq(last))
        .run()
        .quietly(DONE);
}

/// A producer that is attached and waits for input.
fn attached(address: &str) -> Tool {
    let producer = Call::new(PRODUCER, None)
        .args(&["-q", address])
        .stdin_open()
        .start();
    wait_until("the producer is attached", || {
        let info = semring(&["info", "--json", address]).run();
        info.exit == DONE && number(&info.json(), "producers") == 1
    });
    producer
}

#[test]
fn only_dead_drained_auto_removed_rings_go() {
    alone(test_name!(only_dead_drained_auto_removed_rings_go), || {
        for scheme in ["posix:", "sysv:"] {
            let at = |name: &str| format!("{scheme}{name}");
            let (drained, unread, live, requested) =
                (at("drained"), at("unread"), at("live"), at("asked"));
            send(&drained, 0);
            send(&unread, 3);
            semring(&["create", &requested]).run().quietly(DONE);
            let producer = attached(&live);

            let before = objects();
            let forecast = prune(&["--dry-run"]);
            assert_eq!(objects(), before, "a dry run changes nothing");
            let expected = [
                format!("would remove {drained}: no process is attached\n"),
                format!("would keep {unread}: 3 unread messages (--discard-unread removes it)\n"),
            ];
            assert_eq!(forecast, expected.concat());
            let said = prune(&[]);
            let expected = [
                format!("removed {drained}: no process is attached\n"),
                format!("kept {unread}: 3 unread messages (--discard-unread removes it)\n"),
            ];
            assert_eq!(said, expected.concat());
            let said = prune(&["--discard-unread"]);
            assert_eq!(
                said,
                format!("removed {unread}: no process is attached, with 3 unread messages\n")
            );
            assert_eq!(prune(&["--discard-unread"]), "");
            assert_eq!(
                addresses(),
                BTreeSet::from([live.clone(), requested.clone()])
            );
            // Dead from one moment to the next.
            producer.kill();
            assert_eq!(
                prune(&[]),
                format!("removed {live}: no process is attached\n")
            );
            semring(&["rm", &requested]).run().quietly(DONE);
            assert!(objects().is_empty(), "{:?}", objects());
        }
    });
}

fn rings() -> Vec<Value> {
    let text = semring(&["ls", "--json"]).run().quietly(DONE).text();
    text.lines().map(one_object).collect()
}

fn addresses() -> BTreeSet<String> {
    let address = |ring: &Value| ring["address"].as_str().expect("an address").to_owned();
    rings().iter().map(address).collect()
}

#[test]
fn a_ring_of_another_ipc_namespace_stays() {
    alone(test_name!(a_ring_of_another_ipc_namespace_stays), || {
        send_guarded("semaphore", "posix:elsewhere", 0);
        let before = objects();
        // The same /dev/shm, other semaphores: as seen from there, they are gone.
        let other = Command::new("unshare")
            .args(["--ipc", SEMRING, "prune", "--discard-unread"])
            .output()
            .expect("unshare runs");
        assert!(
            other.status.success() && other.stdout.is_empty(),
            "{other:?}"
        );
        // And the other way round: the semaphores are here, the ring is in another /dev/shm.
        let script = "mount -t tmpfs tmpfs /dev/shm && \"$0\" prune --discard-unread";
        let other = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, SEMRING])
            .output()
            .expect("unshare runs");
        assert!(
            other.status.success() && other.stdout.is_empty(),
            "{other:?}"
        );
        assert_eq!(objects(), before);
        assert_eq!(
            prune(&[]),
            "removed posix:elsewhere: no process is attached\n"
        );
    });
}

#[test]
fn halves_of_rings_go_and_foreign_objects_stay() {
    use sysv_ipc::Key;
    use sysv_ipc::sem::{Op, SemSet};
    use sysv_ipc::shm::Shm;
    alone(
        test_name!(halves_of_rings_go_and_foreign_objects_stay),
        || {
            // Not semring's, however similar: a set with a value under a key of a ring, zeros of a
            // possible size and a set of a possible size under a key that semring would not choose.
            let values = SemSet::create(Key::from_raw(0x5eed_0001), 10, 0o600).expect("a set");
            values.op(&[Op::new(6, 1)]).expect("its own business");
            SemSet::create(Key::from_raw(0x1234_0001), 10, 0o600).expect("a set");
            // A set that was used and left at zero, under a key that a name could have given.
            let used = SemSet::create(Key::from_raw(0x5e12_0001), 10, 0o600).expect("a set");
            used.op(&[Op::new(0, 1)]).expect("its own business");
            used.op(&[Op::new(0, -1)]).expect("its own business");
            Shm::create(Key::from_raw(0x1234_0002), 0x5000, 0o600).expect("a segment");
            let foreign = objects();

            // The name alone, its semaphores gone; they were in this namespace.
            send_guarded("semaphore", "posix:name", 0);
            send_guarded("semaphore", "posix:asked-for", 0);
            send_guarded("semaphore", "sysv:segment", 2);
            let sets = sysv_ipc::sem::list().expect("a table");
            let ours = sets.iter().filter(|entry| entry.stat.count == 24);
            let ours: Vec<SemSet> = ours.map(|entry| SemSet::from_id(entry.id)).collect();
            assert_eq!(ours.len(), 3);
            ours.iter().for_each(|set| set.remove().expect("our set"));
            let expected = "removed posix:asked-for: its semaphores are gone\n\
                            removed posix:name: its semaphores are gone\n\
                            removed sysv:segment: its semaphores are gone, with 2 unread messages\n";
            assert_eq!(prune(&["--discard-unread"]), expected);

            // The semaphores alone: the ring's file was removed by hand.
            send_guarded("semaphore", "posix:set", 1);
            std::fs::remove_file("/dev/shm/set").expect("the file of the ring");
            let said = prune(&[]);
            assert!(
                said.starts_with("removed semaphores 0x5eed")
                    && said.ends_with(": no ring goes with them\n")
                    && said.lines().count() == 1,
                "{said}"
            );

            // The set that a creator leaves when it is killed right after semget.
            SemSet::create(Key::from_raw(0x5eed_0002), 24, 0o600).expect("a set");
            SemSet::create(Key::from_raw(0x5e12_0002), 24, 0o600).expect("a set");
            let said = prune(&[]);
            let lines: BTreeSet<&str> = said.lines().collect();
            let expected = [
                "removed semaphores 0x5e120002: no ring goes with them",
                "removed semaphores 0x5eed0002: no ring goes with them",
            ];
            assert_eq!(lines, BTreeSet::from(expected));

            // The same with the segment made, its lock held by a process that lives, then by none.
            let key = Key::from_raw(0x5eed_0003);
            let set = SemSet::create(key, 10, 0o600).expect("a set");
            Shm::create(key, 0x5000, 0o600).expect("a segment");
            // Zeros in a possible size are not semring's without proof. They are reported, because there is a
            // set under their key.
            let output = semring(&["prune"]).run();
            let words = ["left sysv:0x5eed0003 alone", "ipcrm -m"];
            assert_eq!(output.said(DONE, &words).text(), "");
            let marked_and_locked = [Op::new(6, 32767), Op::new(7, 0x5eed), Op::new(4, 1)];
            set.op(&marked_and_locked).expect("a set of our own");
            assert_eq!(prune(&[]), "");
            set.op(&[Op::new(4, -1)]).expect("the creation lock");
            assert_eq!(
                prune(&[]),
                "removed sysv:0x5eed0003: its creator died before it was ready\n"
            );
            assert_eq!(objects(), foreign);
            foreign
                .iter()
                .for_each(|object| object.remove().expect("ours"));
        },
    );
}

/// A remover that is stopped between its first step and its last prevents attaching.
#[test]
fn stuck_remover_delays_a_program_to_its_limit() {
    use sysv_ipc::sem::{Op, SemSet};
    alone(
        test_name!(stuck_remover_delays_a_program_to_its_limit),
        || {
            semring(&["create", "--guard", "semaphore", "kept-out"])
                .run()
                .quietly(DONE);
            let sets = sysv_ipc::sem::list().expect("a table");
            let set = SemSet::from_id(sets[0].id);
            let removal_flag = 3;
            set.op(&[Op::new(removal_flag, 1)]).expect("our own set");
            for program in [PRODUCER, CONSUMER] {
                Call::new(program, None)
                    .args(&["--timeout", "10ms", "kept-out"])
                    .run()
                    .refused(TIMED_OUT, &["posix:kept-out", "removing it"]);
                let mut waiting = Call::new(program, None).args(&["kept-out"]).start();
                waiting.wait_until_asleep_on_the_ring();
                waiting.signal(Signal::SIGTERM);
                waiting.finish().quietly(Exit::Signal(libc::SIGTERM));
            }
            set.op(&[Op::new(removal_flag, -1)]).expect("our own set");
            semring(&["rm", "kept-out"]).run().quietly(DONE);
        },
    );
}

#[test]
fn creators_and_prune_do_not_disturb_each_other() {
    alone(
        test_name!(creators_and_prune_do_not_disturb_each_other),
        || {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        for leftover in semring::orphans() {
                            leftover
                                .remove(semring::Unread::Discard)
                                .expect("ours to remove");
                        }
                    }
                });
                // Also when this thread panics.
                let _over = OnDrop(|| over.store(true, Relaxed));
                for round in 0..1500 {
                    let address = ["posix:made", "sysv:made"][round % 2];
                    let builder = semring::spsc::Builder::new(address).capacity(4096);
                    // Made by `create`: it stays, though no process is attached.
                    let ring = builder.create().expect("nothing is in the way");
                    let info = semring::inspect(address);
                    assert_eq!(
                        info.expect("it stays").uuid,
                        ring.info().expect("ours").uuid
                    );
                    ring.remove().expect("ours to remove");
                    // Auto-removed: it may disappear at any moment, and is then made again.
                    let builder = semring::spsc::Builder::new(format!("{address}-too"))
                        .capacity(4096)
                        .auto_remove(true);
                    let mut producer = loop {
                        match builder.open_or_create().expect("a ring").attach_producer() {
                            Ok(producer) => break producer,
                            Err(semring::AttachError::Removed) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    // In use: it stays.
                    producer.send(b"one").expect("a ring of our own");
                    drop(producer);
                }
            });
            prune(&["--discard-unread"]);
            assert!(objects().is_empty(), "{:?}", objects());
        },
    );
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn root_is_not_led_to_the_semaphores_of_another_user() {
    use std::os::unix::process::CommandExt;
    semring_testkit::needs_root!("to give files to another user");
    alone(
        test_name!(root_is_not_led_to_the_semaphores_of_another_user),
        || {
            // A user's ring, auto-removed; then the file is another user's, as if that user had written
            // its superblock.
            send("posix:theirs", 0);
            let before = objects();
            std::os::unix::fs::chown("/dev/shm/theirs", Some(65534), None).expect("our own file");
            assert_eq!(prune(&["--discard-unread"]), "");
            assert_eq!(objects(), before);
            std::os::unix::fs::chown("/dev/shm/theirs", Some(0), None).expect("our own file");
            // Others see it, and leave it alone.
            std::fs::copy(SEMRING, "/dev/shm/.semring").expect("room");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions("/dev/shm/.semring", mode).expect("our own file");
            let other = Command::new("/dev/shm/.semring")
                .args(["prune", "--discard-unread"])
                .uid(65534)
                .output();
            let other = other.expect("it runs");
            assert!(
                other.status.success() && other.stdout.is_empty(),
                "{other:?}"
            );
            std::fs::remove_file("/dev/shm/.semring").expect("our own file");
            assert_eq!(prune(&[]), "removed posix:theirs: no process is attached\n");
        },
    );
}

/// How often something is killed: enough for each kind of moment; many more on request.
fn kills() -> u64 {
    let wanted = std::env::var("SEMRING_TEST_KILLS").ok();
    wanted.map_or(150, |text| text.parse().expect("a number of kills"))
}

/// A small generator: the same seed gives the same run, within the influence of the machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// One of the commands, on one of few rings, so that it finds the objects of others.
fn any_command(random: &mut Random) -> Command {
    let names = ["posix:a", "posix:b", "sysv:a", "sysv:b"];
    let ring = random.one_of(&names);
    let of = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        command
    };
    let mut command = match random.below(12) {
        0..3 => of(PRODUCER, &["--raw", "--capacity", "16K", ring]),
        3 => of(PRODUCER, &["-q", "--capacity", "16K", ring]),
        4..7 => of(CONSUMER, &["--raw", "--capacity", "16K", ring]),
        7 => of(SEMRING, &["create", "--capacity", "16K", ring]),
        8 => of(SEMRING, &["rm", ring]),
        9 => of(SEMRING, &["rm", "--force", ring]),
        10 => of(SEMRING, &["prune"]),
        _ => of(SEMRING, &["prune", "--discard-unread"]),
    };
    // An endless stream for --raw, one long line without an end for the other.
    let zeros = File::open("/dev/zero").expect("a device");
    command
        .stdin(zeros)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Rings that `prune` must not touch: those made by `create`, and those with unread messages unless it
/// must discard them.
fn untouchable(discard_unread: bool) -> BTreeSet<String> {
    let stays = |ring: &Value| {
        let live = ring["state"] == "active";
        let unread = number(ring, "unread_messages") > 0 && !discard_unread;
        ring["auto_remove"] == false || live || unread
    };
    let identity = |ring: Value| {
        format!(
            "{} {} {}",
            ring["address"], ring["uuid"], ring["unread_messages"]
        )
    };
    rings().into_iter().filter(stays).map(identity).collect()
}

#[test]
fn nothing_is_left_after_a_kill_at_any_time() {
    alone(test_name!(nothing_is_left_after_a_kill_at_any_time), || {
        let seed = std::env::var("SEMRING_TEST_SEED").ok().map_or_else(
            || u64::from(std::process::id()) << 20 | 1,
            |seed| seed.parse().expect("a seed"),
        );
        println!("SEMRING_TEST_SEED={seed}");
        let mut random = Random(seed);

        // At the same time: rings in use, and one made by `create`, with a message in it.
        let live = [attached("posix:live"), attached("sysv:live")];
        semring(&["create", "kept"]).run().quietly(DONE);
        send("kept", 1);

        let mut kept_unread = 0;
        // In threes, the last of which prunes: otherwise a ring made by `create` stays.
        for round in 0..3 * kills().div_ceil(18) {
            let mut running = Vec::new();
            for _ in 0..6 {
                let child = any_command(&mut random).spawn().expect("it starts");
                running.push(child);
                // Only the moment is random here.
                std::thread::sleep(Duration::from_micros(random.below(4000)));
                if random.below(2) == 0 {
                    let victim = random.below(running.len() as u64) as usize;
                    kill(running.swap_remove(victim));
                }
            }
            running.into_iter().for_each(kill);
            if round % 3 != 2 {
                continue;
            }
            for discard_unread in [false, true] {
                let before = untouchable(discard_unread);
                kept_unread += before.len();
                prune(if discard_unread {
                    &["--discard-unread"]
                } else {
                    &[]
                });
                assert_eq!(untouchable(discard_unread), before, "round {round}");
            }
            // Only the rings that stay are left, each with its semaphores.
            let stay = rings();
            let objects = objects();
            assert_eq!(objects.len(), 2 * stay.len(), "{objects:?}\n{stay:?}");
            for ring in stay {
                let address = ring["address"].as_str().expect("an address");
                if !["posix:kept", "posix:live", "sysv:live"].contains(&address) {
                    semring(&["rm", address]).run().quietly(DONE);
                }
            }
        }
        println!("{kept_unread} rings had to stay");
        assert!(addresses().contains("posix:kept"));
        for mut producer in live {
            assert!(producer.is_alive());
            producer.kill();
        }
        semring(&["rm", "kept"]).run().quietly(DONE);
        prune(&["--discard-unread"]);
        assert!(objects().is_empty(), "{:?}", objects());
    });
}

fn kill(mut child: std::process::Child) {
    child.kill().expect("our child");
    child.wait().expect("our child");
}
