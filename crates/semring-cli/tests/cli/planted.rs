//! Objects of other programs and other users in the places of rings: they stay, block no process, and
//! are reported.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use semring_testkit::objects::Object;
use semring_testkit::peer::Exit;
use semring_testkit::step::Stepper;
use semring_testkit::{leave_out, needs_root};
use sysv_ipc::Key;
use sysv_ipc::sem::{Op, SemSet};
use sysv_ipc::shm::{CreateOptions, HugePages, Shm};

use crate::support::alone::{alone, test_name};
use crate::support::{CONSUMER, Call, DONE, NOT_A_RING, PRODUCER, SEMRING};

/// Two users that no other process here has.
const ONE: u32 = 54321;
const OTHER: u32 = 54322;

/// A key, the size of a small ring, and that of one with the programs' defaults.
const KEY: u32 = 0x1122_3344;
const SMALL: usize = 0x5000;
const LARGE: usize = 2 << 20;

/// The values of semaphores 6 and 7 of a set under a key.
const MARK: [Op; 2] = [Op::new(6, 32767), Op::new(7, 0x5eed)];

fn semring(args: &[&str]) -> Call<'static> {
    Call::new(SEMRING, None).args(args)
}

fn objects() -> BTreeSet<Object> {
    Object::list().expect("/dev/shm and /proc/sysvipc can be read")
}

fn in_shm(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

fn directory(name: &str) -> PathBuf {
    let path = in_shm(name);
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&path)
        .expect("a directory");
    path
}

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// The programs over an address, and nothing changes.
#[track_caller]
fn each_program_leaves(address: &str, exit: Exit, words: &[&str]) {
    let before = objects();
    for guard in ["semaphore", "pipe", "auto"] {
        let create = semring(&["create", "--guard", guard, address]).run();
        create.refused(exit, words);
        for program in [PRODUCER, CONSUMER] {
            let args = ["--timeout", "30s", "--guard", guard, address];
            Call::new(program, None)
                .args(&args)
                .run()
                .refused(exit, words);
        }
    }
    for verb in ["info", "rm"] {
        let output = semring(&[verb, address]).run();
        assert_ne!(output.exit, DONE, "{}", output.what);
    }
    assert_eq!(objects(), before);
}

#[test]
fn the_segment_of_another_program_stays() {
    alone(test_name!(the_segment_of_another_program_stays), || {
        let address = format!("sysv:0x{KEY:08x}");
        let words = ["id", "ipcrm -m"];
        for bytes in [SMALL, LARGE] {
            let segment = Shm::create(Key::from_raw(KEY), bytes, 0o600).expect("a segment");
            each_program_leaves(&address, NOT_A_RING, &words);
            // Nothing under this key is ours, so it is not even named.
            semring(&["prune"]).run().quietly(DONE);
            // A set of ours that came after the segment proves nothing. (Times are whole seconds.)
            let made = segment.stat().expect("our segment").ctime;
            let set = loop {
                let set = SemSet::create(Key::from_raw(KEY), 10, 0o600).expect("a set");
                if set.stat().expect("our set").ctime > made {
                    break set;
                }
                set.remove().expect("our set");
            };
            set.op(&MARK).expect("our set");
            each_program_leaves(&address, NOT_A_RING, &words);
            let output = semring(&["prune"]).run();
            output.said(DONE, &[&format!("left {address} alone")]);
            assert!(objects().len() <= 2, "{:?}", objects());
            segment.remove().expect("our segment");
            let _ = set.remove();
        }
    });
}

#[test]
fn huge_pages_that_are_not_there_are_not_touched() {
    alone(
        test_name!(huge_pages_that_are_not_there_are_not_touched),
        || {
            let options = CreateOptions {
                huge_pages: Some(HugePages::Default),
                no_reserve: true,
                ..CreateOptions::new(0o666)
            };
            let segment = match Shm::create_with(Key::from_raw(KEY), LARGE, options) {
                Ok(segment) => segment,
                Err(error) => leave_out!("needs a segment of huge pages: {error}"),
            };
            let address = format!("sysv:0x{KEY:08x}");
            each_program_leaves(&address, NOT_A_RING, &["huge pages"]);
            for args in [&["ls"][..], &["prune", "--dry-run"], &["prune"]] {
                semring(args).run().quietly(DONE);
            }
            let doctor = semring(&["doctor"]).run();
            assert!(!matches!(doctor.exit, Exit::Signal(_)), "{}", doctor.exit);
            assert!(semring::list().is_empty() && semring::orphans().is_empty());
            segment.remove().expect("our segment");
        },
    );
}

/// The object to be planted by a process that is started for it.
const PLANT: &str = "SEMRING_TEST_PLANTS_AS";

/// Another user's process, which has planted things and holds its locks until this is dropped.
struct Planter {
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

impl Planter {
    fn start(user: u32) -> Planter {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", test_name!(plants_as_another_user)])
            .arg("--nocapture")
            .env(PLANT, user.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut lines = stdout.by_ref().lines().map_while(Result::ok);
        let planted = lines.any(|line| line.contains("planted"));
        assert!(planted, "user {user} could not plant everything");
        Planter {
            child,
            _stdout: stdout,
        }
    }
}

impl Drop for Planter {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn plants_as_another_user() {
    // Nothing to do in a run of all tests: the process is started by the test below.
    let Ok(user) = std::env::var(PLANT) else {
        return;
    };
    let uid = user.parse::<u32>().expect("a number");
    let (group, id) = (
        nix::unistd::Gid::from_raw(uid),
        nix::unistd::Uid::from_raw(uid),
    );
    nix::unistd::setgroups(&[]).expect("root");
    nix::unistd::setresgid(group, group, group).expect("root");
    nix::unistd::setresuid(id, id, id).expect("root");
    let locks = match uid {
        ONE => {
            // A program without rings: a segment with zeros where a ring begins.
            for key in [KEY, KEY + 1, KEY + 2] {
                Shm::create(Key::from_raw(key), LARGE, 0o600).expect("a segment");
            }
            fs::write(in_shm("precious"), [7; SMALL]).expect("a file");
            Vec::new()
        }
        _ => plant_everything(),
    };
    println!("planted");
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(locks);
}

/// Everything that a directory listing can hold, under the names that rings and their parts have.
fn plant_everything() -> Vec<File> {
    let uuid = "0123456789abcdef0123456789abcdef";
    // In place of the lock on a key, also on those of another user's segments.
    File::create(in_shm(&format!(".semring-key-{KEY:08x}"))).expect("a file");
    fifo(&in_shm(&format!(".semring-key-{:08x}", KEY + 1)));
    std::os::unix::fs::symlink("precious", in_shm(&format!(".semring-key-{:08x}", KEY + 2)))
        .expect("a link");
    directory(&format!(".semring-key-{:08x}", KEY + 3));
    fs::write(in_shm(".semring-key-nonsense"), "nonsense").expect("a file");
    // A set with the mark of ours under the key of another user's segment.
    let set = SemSet::create(Key::from_raw(KEY), 24, 0o666).expect("a set");
    set.op(&MARK).expect("our set");
    // In place of the pipes of a ring.
    fs::create_dir(directory(&format!(".semring-{uuid}-x")).join("messages")).expect("a directory");
    fifo(&directory(&format!(".semring-{uuid}-y")).join("lock"));
    std::os::unix::fs::symlink(
        "../precious",
        directory(&format!(".semring-{uuid}-z")).join("lock"),
    )
    .expect("a link");
    fs::write(
        directory(&format!(".semring-{uuid}-f1")).join("mine"),
        "mine",
    )
    .expect("a file");
    File::create(in_shm(&format!(".semring-{uuid}-f2"))).expect("a file");
    // In a ring's place.
    fifo(&in_shm("fifo"));
    directory("directory");
    std::os::unix::fs::symlink("precious", in_shm("link")).expect("a link");
    std::os::unix::fs::symlink("/dev/zero", in_shm("device")).expect("a link");
    fs::write(in_shm("zeros"), [0; SMALL]).expect("a file");
    fs::write(
        in_shm("magic"),
        [&b"SEMRING\0"[..], &[0xff; SMALL]].concat(),
    )
    .expect("a file");
    // Locked by all means.
    let locked = File::create(in_shm("locked")).expect("a file");
    locked.set_len(SMALL as u64).expect("room");
    locked.lock().expect("our file");
    // Segments and sets that resemble ours.
    let segment = |key: u32| Shm::create(Key::from_raw(key), SMALL, 0o666).expect("a segment");
    segment(0x5eed_2222);
    segment(0x5eed_2223);
    let busy = SemSet::create(Key::from_raw(0x5eed_2224), 10, 0o666).expect("a set");
    busy.op(&MARK).expect("our set");
    busy.op(&[Op::new(4, 1)]).expect("our set");
    segment(0x5eed_2224);
    let foreign = SemSet::create(Key::from_raw(0x5eed_2225), 10, 0o666).expect("a set");
    foreign.op(&[Op::new(6, 1)]).expect("our set");
    let mode = fs::Permissions::from_mode(0o000);
    fs::set_permissions(in_shm("zeros"), mode).expect("our file");
    vec![locked]
}

#[test]
fn root_is_not_led_to_what_others_have() {
    needs_root!("to become other users");
    alone(test_name!(root_is_not_led_to_what_others_have), || {
        let shm = fs::Permissions::from_mode(0o1777);
        fs::set_permissions("/dev/shm", shm).expect("our own /dev/shm");
        let _one = Planter::start(ONE);
        let _other = Planter::start(OTHER);
        let before = objects();
        for args in [
            &["ls"][..],
            &["prune", "--dry-run", "--discard-unread"],
            &["prune", "--discard-unread"],
            &["prune", "--discard-unread"],
        ] {
            let output = semring(args).run();
            assert_eq!(output.exit, DONE, "{}", output.stderr);
            assert_eq!(objects(), before, "{}: {}", output.what, output.text());
        }
        let named = semring(&["prune"]).run().stderr;
        for key in [KEY, KEY + 1, KEY + 2] {
            let name = format!("left sysv:0x{key:08x} alone");
            assert!(named.contains(&name), "{name} is not in {named}");
        }
        for end in ["x", "y", "z", "f1"] {
            let name = format!("-{end} alone");
            assert!(named.contains(&name), "{name} is not in {named}");
        }
        let posix = [
            "fifo",
            "directory",
            "link",
            "device",
            "zeros",
            "magic",
            "locked",
        ];
        let keys = [KEY, KEY + 1, KEY + 2, 0x5eed_2222, 0x5eed_2223, 0x5eed_2225];
        let addresses = posix.map(|name| format!("posix:{name}")).into_iter();
        for address in addresses.chain(keys.map(|key| format!("sysv:0x{key:08x}"))) {
            let create = ["create", "--guard", "semaphore"];
            for args in [&create[..], &["info"], &["rm"]] {
                let output = semring(args).args(&[&address]).run();
                assert_ne!(output.exit, DONE, "{}", output.what);
                assert_eq!(objects(), before, "{}: {}", output.what, output.stderr);
            }
        }
        assert_eq!(fs::read(in_shm("precious")).expect("it stays"), [7; SMALL]);
        // An object that can't be locked because another object has the name of its lock.
        let address = format!("sysv:0x{:08x}", KEY + 3);
        let create = semring(&["create", "--guard", "pipe", &address]).run();
        assert_ne!(create.exit, DONE);
        assert!(create.stderr.contains(".semring-key-"), "{}", create.stderr);
        assert_eq!(objects(), before);
        // With semaphores there is room for a ring, and it goes again without a trace.
        let create = semring(&["create", "--guard", "semaphore", &address]).run();
        create.quietly(DONE);
        semring(&["rm", &address]).run().quietly(DONE);
        assert_eq!(objects(), before);
    });
}

/// A file to lock that is a second name of another user's file: nothing is written into it.
#[test]
fn a_lock_with_two_names_is_not_written() {
    alone(test_name!(a_lock_with_two_names_is_not_written), || {
        let pipes = directory(".semring-0123456789abcdef0123456789abcdef-f1");
        fs::write(in_shm("precious"), [7; 8192]).expect("a file");
        fs::hard_link(in_shm("precious"), pipes.join("lock")).expect("a link");
        let before = objects();
        let said = semring(&["prune"]).run();
        said.said(DONE, &["alone", "lock"]);
        assert_eq!(objects(), before);
        assert_eq!(fs::read(in_shm("precious")).expect("it stays"), [7; 8192]);
    });
}

/// System calls of a command's main thread.
fn calls(args: &[&str]) -> usize {
    let mut command = Command::new(SEMRING);
    command.args(args).env_remove("RUST_BACKTRACE");
    let mut stepper = Stepper::spawn(command).expect("a command can be traced");
    stepper.peer().close_stdin();
    let mut calls = 0;
    while stepper.run_to_call().is_ok() {
        calls += 1;
    }
    calls / 2
}

#[test]
fn prune_reads_the_files_once_however_many_sets_there_are() {
    if !semring_testkit::step::can_trace() {
        return;
    }
    const FILES: usize = 100;
    const SETS: usize = 10;
    alone(
        test_name!(prune_reads_the_files_once_however_many_sets_there_are),
        || {
            for at in 0..FILES {
                fs::write(in_shm(&format!("file-{at}")), [1; SMALL]).expect("a file");
            }
            let prune_with = |sets: usize| {
                for at in 0..sets {
                    let name = format!("gone-{at}");
                    let builder = semring::spsc::Builder::new(&name).capacity(4096);
                    let builder = builder.guard(semring::GuardChoice::Semaphore);
                    drop(builder.create().expect("nothing is in the way"));
                    fs::remove_file(in_shm(&name)).expect("the file of the ring");
                }
                let calls = calls(&["prune"]);
                assert_eq!(objects().len(), FILES, "all sets are gone");
                calls
            };
            let (few, many) = (prune_with(SETS), prune_with(2 * SETS));
            // With one more look at all files for each set it would be more than this.
            assert!(many < few + SETS * FILES, "{few} calls, then {many}");
        },
    );
}
