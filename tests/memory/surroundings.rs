//! Surroundings that lack something: limits of files, of memory and of address space, file systems without a limit or
//! without inodes, no /proc, no hard links, calls that are refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{PEER, ask, fresh_path, peer_below, say_ok};
use crate::rings;
use semring_testkit::left_out;
use semring_testkit::names::{self, RingGuard};
use semring_testkit::peer::Peer;

/// A peer in IPC and mount namespaces of its own, after a shell command.
fn alone(prepare: &str) -> Option<Peer> {
    let script = format!("{prepare} && exec \"$@\"");
    let unshare = ["unshare", "-i", "-m", "--propagation", "private"];
    peer_below(&[&unshare[..], &["sh", "-c", &script, "sh"]].concat())
}

/// A peer after a shell command that needs no privileges.
fn limited(limit: &str) -> Peer {
    let script = format!("{limit} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", PEER]);
    Peer::spawn(command).expect("sh runs")
}

/// The peer makes a ring, sends and receives, and removes it: nothing of the ring is left.
#[track_caller]
fn uses_a_ring(peer: &mut Peer, address: &str, guard: &str) {
    say_ok(peer, &format!("guard {guard}"));
    let made = ask(peer, &format!("create {address} 2 65536"));
    assert!(made.starts_with("ok "), "{address} {guard}: {made}");
    say_ok(peer, "consumer");
    assert_eq!(ask(peer, "producer"), "ok 0");
    say_ok(peer, "send 1 0 10 500");
    say_ok(peer, "close-producer");
    assert_eq!(ask(peer, "drain"), "drained 10 EndOfStream");
    say_ok(peer, "drop-consumer");
    // A ring without a name is removed by its last user. A user that is killed, as a peer at the end of a test, would leave
    // its guard behind.
    say_ok(peer, "drop-ring");
    if !address.starts_with("anonymous") && !address.starts_with("memfd") {
        say_ok(peer, &format!("remove {address}"));
    }
}

/// The peer is refused a ring of this many bytes, with these words.
#[track_caller]
fn is_refused(peer: &mut Peer, address: &str, bytes: u64, words: &[&str]) {
    let refused = ask(peer, &format!("create {address} 1 {bytes}"));
    assert!(refused.starts_with("error "), "{address}: {refused}");
    for word in words {
        assert!(
            refused.contains(word),
            "{address}: no {word:?} in {refused}"
        );
    }
}

/// A folder that is removed with the test, with its contents.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Self {
        let path = fresh_path(label);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn address(&self) -> String {
        format!("file:{}/ring", self.0.display())
    }

    #[track_caller]
    fn assert_empty(&self) {
        let names: Vec<_> = std::fs::read_dir(&self.0).unwrap().collect();
        assert!(names.is_empty(), "{names:?}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn file_system_without_a_limit_is_not_full() {
    for kind in ["tmpfs -o size=0,mode=1777", "ramfs -o mode=1777"] {
        let mount = format!("mount -t {kind} none /dev/shm");
        let Some(mut peer) = alone(&mount) else {
            return;
        };
        for guard in ["semaphore", "pipe"] {
            uses_a_ring(&mut peer, "posix:unlimited", guard);
            uses_a_ring(&mut peer, "file:/dev/shm/unlimited", guard);
        }
    }
}

#[test]
fn a_file_system_without_inodes_is_named() {
    let Some(mut peer) = alone("mount -t tmpfs -o nr_inodes=1,mode=1777 none /dev/shm") else {
        return;
    };
    for address in ["posix:inodes", "file:/dev/shm/inodes"] {
        is_refused(&mut peer, address, 4096, &["no inodes left", "nr_inodes"]);
    }
    uses_a_ring(&mut peer, "sysv:inodes", "semaphore");
    // Pipes need one each; pipes that were left out are removed again.
    let mut peer = alone("mount -t tmpfs -o nr_inodes=8,mode=1777 none /dev/shm").unwrap();
    say_ok(&mut peer, "guard pipe");
    is_refused(&mut peer, "posix:inodes", 4096, &["mkfifo", "StorageFull"]);
    uses_a_ring(&mut peer, "posix:inodes", "semaphore");
}

#[test]
fn a_limit_of_file_sizes_is_a_refusal_and_no_signal() {
    let guard = RingGuard::new("file-size");
    let folder = Folder::new("file-size");
    let file = folder.address();
    // Blocks of 512 bytes or of 1024: the shells differ.
    let mut peer = limited("ulimit -f 1024");
    for address in [&guard.posix(), &file, "memfd:"] {
        is_refused(&mut peer, address, 4 << 20, &["RLIMIT_FSIZE", "ulimit -f"]);
        uses_a_ring(&mut peer, address, "auto");
    }
    folder.assert_empty();
    // No files at all: anonymous memory, and pipes that another process has made.
    let mut peer = limited("ulimit -f 0");
    for address in [&guard.posix(), &file, "memfd:"] {
        is_refused(&mut peer, address, 4096, &["RLIMIT_FSIZE"]);
    }
    uses_a_ring(&mut peer, &guard.sysv(), "semaphore");
    uses_a_ring(&mut peer, "anonymous:", "pipe");
    folder.assert_empty();
    say_ok(&mut peer, "guard pipe");
    is_refused(
        &mut peer,
        &guard.sysv(),
        4096,
        &["open (lock)", "FileTooLarge"],
    );
    let ring = rings::any(guard.posix())
        .guard(semring::GuardKind::Pipe)
        .create()
        .unwrap();
    assert!(ask(&mut peer, &format!("open {}", guard.posix())).starts_with("ok "));
    say_ok(&mut peer, "consumer");
    assert_eq!(ask(&mut peer, "producer"), "ok 0");
    say_ok(&mut peer, "send 1 0 10 500");
    say_ok(&mut peer, "close-producer");
    assert_eq!(ask(&mut peer, "drain"), "drained 10 EndOfStream");
    drop(peer);
    ring.remove().unwrap();
}

#[test]
fn a_limit_of_address_space_is_named() {
    let guard = RingGuard::new("address-space");
    let folder = Folder::new("address-space");
    let mut peer = limited("ulimit -v 30000");
    for address in [
        &guard.posix(),
        &guard.sysv(),
        &folder.address(),
        "memfd:",
        "anonymous:",
    ] {
        is_refused(&mut peer, address, 32 << 20, &["RLIMIT_AS", "ulimit -v"]);
    }
    folder.assert_empty();
    // The same for a ring that others have made.
    let ring = rings::any(guard.posix())
        .capacity(32 << 20)
        .create()
        .unwrap();
    let refused = ask(&mut peer, &format!("open {}", guard.posix()));
    assert!(refused.contains("RLIMIT_AS"), "{refused}");
    ring.remove().unwrap();
}

/// Every kind of ring with both guards; without /proc those that need it are refused with its name.
#[test]
fn rings_work_without_proc() {
    for prepare in [
        "mount -t tmpfs -o mode=1777 none /dev/shm && umount -l /proc",
        "mount -t tmpfs -o mode=1777 none /dev/shm && mount -t proc -o subset=pid none /proc",
    ] {
        let Some(mut peer) = alone(prepare) else {
            return;
        };
        let has_proc = prepare.contains("subset");
        let folder = Folder::new("no-proc");
        for guard in ["semaphore", "pipe"] {
            for address in ["posix:no-proc", "sysv:no-proc", &folder.address()] {
                uses_a_ring(&mut peer, address, guard);
            }
            for address in ["memfd:", "anonymous:"] {
                // Pipes without a name are reached by /proc only.
                if (address, guard, has_proc) == ("anonymous:", "pipe", false) {
                    is_refused(&mut peer, address, 4096, &["/proc is not mounted"]);
                } else {
                    uses_a_ring(&mut peer, address, guard);
                }
            }
        }
        folder.assert_empty();
        // A role that is taken is distinguished from one whose holder has died.
        let made = ask(&mut peer, "create posix:taken 1 4096");
        assert!(made.starts_with("ok "), "{made}");
        say_ok(&mut peer, "consumer");
        let refused = ask(&mut peer, "open posix:taken");
        assert!(refused.starts_with("ok "), "{refused}");
        let refused = ask(&mut peer, "consumer");
        assert!(refused.contains("ConsumerPresent"), "{refused}");
    }
}

#[test]
fn memory_that_is_not_available_is_not_taken() {
    let little = fresh_path("meminfo");
    let prepare = format!(
        "mount -t tmpfs -o mode=1777 none /dev/shm && echo 'MemAvailable: 4096 kB' >{0} && mount --bind {0} /proc/meminfo && \
         rm {0}",
        little.display()
    );
    // (A file that is mounted elsewhere loses its name all the same.)
    let Some(mut peer) = alone(&prepare) else {
        let _ = std::fs::remove_file(&little);
        return;
    };
    for address in [
        "posix:m",
        "sysv:m",
        "file:/dev/shm/m",
        "memfd:",
        "anonymous:",
    ] {
        let words = ["4194304", "more than this machine has left"];
        is_refused(&mut peer, address, 8 << 20, &words);
    }
}

/// A memory control group of version 1 or 2; removed on drop.
struct Group(PathBuf);

impl Group {
    /// `None` where none can be made.
    fn new(bytes: u64) -> Option<Self> {
        let name = names::unique("group");
        for (parent, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            if !Path::new(parent).join("cgroup.procs").exists() {
                continue;
            }
            let group = Self(Path::new(parent).join(&name));
            if std::fs::create_dir(&group.0).is_err() {
                continue;
            }
            if std::fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        left_out::note("a memory control group of its own can't be made");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty, a group can be removed when the last of its processes is reaped.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_memory_control_group_that_is_too_small_is_named() {
    if !left_out::is_root("for a memory control group") {
        return;
    }
    let Some(group) = Group::new(64 << 20) else {
        return;
    };
    // A group within it that has more: the smallest room counts.
    let inner = Group(group.0.join("inner"));
    std::fs::create_dir(&inner.0).unwrap();
    let enter = |group: &Group| format!("echo $$ >{}/cgroup.procs", group.0.display());
    let guard = RingGuard::new("control-group");
    for place in [&inner, &group] {
        let mut peer = limited(&enter(place));
        for address in [&guard.posix(), &guard.sysv(), "memfd:", "anonymous:"] {
            is_refused(
                &mut peer,
                address,
                128 << 20,
                &["memory control group", "67108864"],
            );
            uses_a_ring(&mut peer, address, "auto");
        }
        assert_eq!(format!("{:?}", peer.finish().0), "Code(0)");
    }
}

/// The program of the peer under strace, which has calls fail. `None` without strace: the test is left out.
fn failing(options: &[&str]) -> Option<Peer> {
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null"];
    let whole = [&strace[..], options].concat();
    if !left_out::can_run(&[&whole[..], &["true"]].concat()) {
        return None;
    }
    Some(Peer::start("strace", [&whole[1..], &[PEER]].concat()))
}

#[test]
fn refused_calls_have_another_way_or_a_sentence() {
    let guard = RingGuard::new("refused-calls");
    let folder = Folder::new("refused-calls");
    let path = folder.0.display().to_string();
    let named = [guard.posix(), folder.address()];
    // Blocks that can't be reserved are written.
    for error in ["EOPNOTSUPP", "ENOSYS", "EPERM"] {
        let inject = format!("inject=fallocate:error={error}");
        let Some(mut peer) = failing(&["-e", &inject]) else {
            return;
        };
        for address in named.iter().map(String::as_str).chain(["memfd:"]) {
            uses_a_ring(&mut peer, address, "auto");
        }
    }
    let mut peer = failing(&["-e", "inject=fallocate:error=ENOSPC"]).unwrap();
    is_refused(&mut peer, &guard.posix(), 4096, &["NoSpace"]);
    is_refused(
        &mut peer,
        &folder.address(),
        4096,
        &["NoSpace", "free some space"],
    );
    let mut peer = failing(&["-e", "inject=fallocate:error=EDQUOT"]).unwrap();
    is_refused(&mut peer, &folder.address(), 4096, &["quota"]);
    let mut peer = failing(&["-e", "inject=fallocate:error=EIO"]).unwrap();
    is_refused(
        &mut peer,
        &folder.address(),
        4096,
        &["fallocate", "code: 5"],
    );
    // No hard links: that is named. No unnamed files either: then the file is renamed.
    let mut peer = failing(&["-e", "inject=linkat:error=EPERM"]).unwrap();
    for address in &named {
        is_refused(&mut peer, address, 4096, &["hard link"]);
    }
    folder.assert_empty();
    // (The folder is listed before, and the file looked for.)
    let unnamed = |call| format!("inject=openat:error=EOPNOTSUPP:when={call}");
    let mut peer = failing(&["-P", &path, "-e", &unnamed(2)]).unwrap();
    uses_a_ring(&mut peer, &folder.address(), "semaphore");
    let linkless = format!("{path}/ring");
    let third = unnamed(3);
    let options = [
        "-P",
        &path,
        "-P",
        &linkless,
        "-e",
        &third,
        "-e",
        "inject=linkat:error=EPERM",
    ];
    let mut peer = failing(&options).unwrap();
    say_ok(&mut peer, "guard semaphore");
    let made = ask(&mut peer, &format!("create {} 1 4096", folder.address()));
    assert!(made.starts_with("ok "), "{made}");
    let names: Vec<_> = std::fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["ring"]);
    say_ok(&mut peer, &format!("remove {}", folder.address()));
    folder.assert_empty();
}

#[test]
fn too_few_descriptors_are_named() {
    let guard = RingGuard::new("descriptors");
    let mut peer = limited("ulimit -n 30");
    say_ok(&mut peer, "guard pipe");
    let made = ask(&mut peer, &format!("create {} 32 4096", guard.posix()));
    assert!(made.starts_with("ok "), "{made}");
    let refused = ask(&mut peer, "consumer");
    assert!(refused.contains("errno: 24"), "{refused}");
    let refused = semring::AttachError::Os {
        call: "openat",
        errno: libc::EMFILE,
    };
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
}
