//! Wrong use, and surroundings that refuse: an error message and the documented exit code, and
//! nothing lost or left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use semring_testkit::names::unique;
use sysv_ipc::shm::{self, Shm};
use sysv_ipc::{Created, Key};

use crate::support::{
    BROKEN_PIPE, CONSUMER, Call, DONE, FAILED, KILLED, NO_RING, NOT_A_RING, PRODUCER, Ring,
    SEMRING, USAGE, over_both_backends, seq, seq_from, wait_until,
};
use semring_testkit::needs_root;

over_both_backends! {
    capacity_is_limited_and_rounded_up,
    a_number_of_producers_outside_the_limits_is_refused,
    a_mode_that_is_not_octal_permission_bits_is_refused,
    a_missing_ring_is_code_3,
    a_second_consumer_is_refused_with_the_pid_of_the_first,
    a_producer_too_many_is_refused,
    rm_in_use_names_pids_and_force_ends_both,
    rm_with_force_ends_a_blocked_producer,
    a_ring_of_another_format_version_is_refused_and_left_alone,
    rm_force_reports_the_kind_of_a_damaged_ring,
    full_disk_of_the_consumer_loses_nothing,
    consumers_closed_stdout_loses_nothing,
    a_closed_stdin_is_refused,
    a_closed_stderr_changes_no_code,
    a_stdin_that_can_not_be_read_is_an_error,
    a_ring_that_exists_is_not_created_again,
}

#[test]
fn names_against_the_rules_are_usage_errors() {
    let long = "n".repeat(300);
    let just_too_long = format!("sysv:{}", "n".repeat(201));
    let names = [
        "a/b",
        "posix:a/b",
        "/a",
        &long,
        &just_too_long,
        "",
        "posix:",
        ".hidden",
        "0x12",
        "a b",
        "a\nb",
        "é",
        "sysv:.x",
        "sysv:0x",
        "sysv:0xfffffffff",
        "sysv:0x0",
        "nosuch:thing",
    ];
    for name in names {
        for program in [PRODUCER, CONSUMER] {
            Call::new(program, None)
                .args(&["--", name])
                .run()
                .refused(USAGE, &[]);
        }
        for verb in ["create", "info", "rm"] {
            Call::new(SEMRING, None)
                .args(&[verb, "--", name])
                .run()
                .refused(USAGE, &[]);
        }
    }
    let output = Call::new(PRODUCER, None).args(&["a/b"]).run();
    output.refused(USAGE, &["a/b"]);
    // The longest of all is a name.
    let ring = Ring::posix("longest");
    let name = format!("{:n<200}", ring.name());
    Call::new(CONSUMER, None)
        .args(&["--no-create", &name])
        .run()
        .refused(NO_RING, &[]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error_in_one_sentence() {
    let ring = Ring::posix("command-line");
    let wrong: [&[&str]; 9] = [
        &["--raw", "--lines"],
        &["-0", "--length-prefixed"],
        &["--nosuch"],
        &["--capacity"],
        &["--capacity", "much"],
        &["--timeout", "soon"],
        &["--wait", "patiently"],
        &["--guard", "dog"],
        &["another-argument"],
    ];
    for args in wrong {
        ring.producer(args).run().refused(USAGE, &["--help"]);
        ring.consumer(args).run().refused(USAGE, &["--help"]);
    }
    ring.consumer(&["--count", "-1"]).run().refused(USAGE, &[]);
    ring.producer(&["--follow"])
        .run()
        .refused(USAGE, &["--follow"]);
    for program in [PRODUCER, CONSUMER, SEMRING] {
        Call::new(program, None).run().refused(USAGE, &[]);
    }
    Call::new(SEMRING, None)
        .args(&["nosuch"])
        .run()
        .refused(USAGE, &["nosuch"]);
    Call::new(SEMRING, None)
        .args(&["ls", "-o", "colour"])
        .run()
        .refused(USAGE, &["colour"]);
    ring.assert_gone();
}

fn capacity_is_limited_and_rounded_up(ring: &Ring) {
    for capacity in [
        "0",
        "1152921504606846976",
        "8G",
        "18446744073709551616",
        "-1",
    ] {
        let option = format!("--capacity={capacity}");
        ring.producer(&[&option])
            .input(seq(3))
            .run()
            .refused(USAGE, &["capacity"]);
        ring.consumer(&[&option])
            .run()
            .refused(USAGE, &["capacity"]);
        ring.semring("create", &[&option])
            .run()
            .refused(USAGE, &["capacity"]);
        ring.assert_gone();
    }
    for (capacity, bytes) in [
        ("3", 4096),
        ("5000", 8192),
        ("100KB", 131_072),
        ("1M", 1 << 20),
    ] {
        ring.producer(&["-q", "--capacity", capacity])
            .input(seq(3))
            .run()
            .quietly(DONE);
        assert_eq!(ring.number("capacity_bytes"), bytes, "{capacity}");
        ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(3));
        ring.assert_gone();
    }
}

fn a_number_of_producers_outside_the_limits_is_refused(ring: &Ring) {
    for producers in ["0", "100000", "18446744073709551616", "many"] {
        ring.producer(&["--producers", producers])
            .run()
            .refused(USAGE, &["producers"]);
        ring.assert_gone();
    }
}

fn a_mode_that_is_not_octal_permission_bits_is_refused(ring: &Ring) {
    for mode in ["999", "0999", "rw", "", "10000", "0o600"] {
        let option = format!("--mode={mode}");
        ring.producer(&[&option]).run().refused(USAGE, &["mode"]);
        ring.consumer(&[&option]).run().refused(USAGE, &["mode"]);
        ring.semring("create", &[&option])
            .run()
            .refused(USAGE, &["mode"]);
        ring.assert_gone();
    }
}

fn a_missing_ring_is_code_3(ring: &Ring) {
    for args in [&["--no-create"][..], &["--no-create", "--capacity", "1M"]] {
        ring.producer(args)
            .input(seq(3))
            .run()
            .refused(NO_RING, &[ring.address(), "no such ring"]);
        ring.consumer(args)
            .run()
            .refused(NO_RING, &[ring.address(), "no such ring"]);
    }
    ring.semring("info", &[])
        .run()
        .refused(NO_RING, &[ring.address()]);
    ring.semring("info", &["--json"])
        .run()
        .refused(NO_RING, &[ring.address()]);
    ring.semring("rm", &[])
        .run()
        .refused(NO_RING, &[ring.address()]);
    ring.semring("rm", &["--force"])
        .run()
        .refused(NO_RING, &[ring.address()]);
    ring.assert_gone();
    // One that is there is opened.
    ring.semring("create", &[]).run().ended(DONE);
    ring.producer(&["-q", "--no-create"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    ring.consumer(&["-q", "--no-create"])
        .run()
        .quietly(DONE)
        .wrote(seq(3));
}

fn a_second_consumer_is_refused_with_the_pid_of_the_first(ring: &Ring) {
    let mut first = ring.consumer(&[]).start();
    ring.wait_for_consumer(&first);
    let pid = first.pid().to_string();
    ring.consumer(&[])
        .run()
        .refused(FAILED, &[ring.address(), &pid]);
    // Also while there is much to do.
    let producer = ring.producer(&[]).feed_endless_seq().start();
    first.wait_for_bytes(100_000);
    ring.consumer(&[]).run().refused(FAILED, &[&pid]);
    producer.kill().quietly(KILLED);
    first.finish().truncated();
    ring.assert_gone();
}

fn a_producer_too_many_is_refused(ring: &Ring) {
    let one = ring.producer(&["--producers", "2"]).stdin_open().start();
    ring.wait_for_producers(1);
    let two = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(2);
    ring.producer(&[])
        .run()
        .refused(FAILED, &["2 lanes", &one.pid().to_string(), "--producers"]);
    one.finish().quietly(DONE);
    two.finish().quietly(DONE);
}

fn rm_in_use_names_pids_and_force_ends_both(ring: &Ring) {
    let consumer = ring.consumer(&[]).start();
    ring.wait_for_consumer(&consumer);
    let mut producer = ring.producer(&[]).stdin_open().start();
    ring.wait_for_producers(1);
    let pids = [consumer.pid().to_string(), producer.pid().to_string()];
    ring.semring("rm", &[])
        .run()
        .refused(FAILED, &[&pids[0], &pids[1], "--force"]);
    // It did no harm.
    producer.write("1\n");
    wait_until("the line has come", || consumer.stdout() == b"1\n");
    ring.semring("rm", &["--force"]).run().quietly(DONE);
    consumer.finish().said(FAILED, &["removed"]).wrote("1\n");
    producer
        .finish_with_stdin_open()
        .refused(FAILED, &["removed"]);
    ring.assert_gone();
}

fn rm_with_force_ends_a_blocked_producer(ring: &Ring) {
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    let pid = producer.pid().to_string();
    ring.semring("rm", &[]).run().refused(FAILED, &[&pid]);
    ring.semring("rm", &["--force"]).run().quietly(DONE);
    producer.finish().refused(FAILED, &["removed"]);
    ring.assert_gone();
}

/// Overwrites the format version in the superblock.
fn patch_version(ring: &Ring, version: u32) {
    const AT_MAJOR: u64 = 8;
    if ring.is_posix() {
        let file = File::options()
            .write(true)
            .open(ring.path())
            .expect("the ring");
        return file
            .write_all_at(&version.to_le_bytes(), AT_MAJOR)
            .expect("the ring is writable");
    }
    let pid = ring.number("creator_pid");
    let mut segments = shm::list().expect("/proc/sysvipc/shm").into_iter();
    let entry = segments
        .find(|entry| entry.stat.creator_pid as u64 == pid)
        .expect("the segment");
    let attachment = Shm::from_id(entry.id).attach().expect("the segment");
    let address = attachment.as_ptr().as_ptr() as u64;
    // Memory of this process as a file: writing there needs no reference into the segment.
    let memory = File::options()
        .write(true)
        .open("/proc/self/mem")
        .expect("own memory");
    memory
        .write_all_at(&version.to_le_bytes(), address + AT_MAJOR)
        .expect("it is mapped");
}

fn a_ring_of_another_format_version_is_refused_and_left_alone(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    // So that the guard has seen the ring's objects.
    let creator = ring.number("creator_pid");
    assert!(creator > 0);
    patch_version(ring, 2);
    let words = [ring.address(), "format 2", "reads 1"];
    ring.producer(&[])
        .input(seq(3))
        .run()
        .refused(NOT_A_RING, &words);
    ring.consumer(&[]).run().refused(NOT_A_RING, &words);
    ring.consumer(&["--no-create"])
        .run()
        .refused(NOT_A_RING, &words);
    ring.semring("info", &[]).run().refused(NOT_A_RING, &words);
    ring.semring("create", &[])
        .run()
        .refused(FAILED, &[ring.address(), "exists"]);
    if ring.is_posix() {
        // It is as it was: with the version back it works.
        patch_version(ring, 1);
        ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(3));
        ring.assert_gone();
    }
}

fn rm_force_reports_the_kind_of_a_damaged_ring(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    assert!(ring.number("creator_pid") > 0);
    // Of another version the checksum would be right.
    patch_version(ring, 2);
    ring.semring("rm", &[]).run().ended(NOT_A_RING);
    let words = [
        ring.address(),
        "taken for",
        "damaged superblock (version)",
        "with its",
    ];
    ring.semring("rm", &["--force"]).run().refused(DONE, &words);
    ring.assert_gone();
}

#[test]
fn a_file_that_is_no_ring_is_refused_and_left_alone() {
    let ring = Ring::posix("plain-file");
    for content in [
        &b"not a ring\n"[..],
        &b"a text, longer than a page. ".repeat(1000),
    ] {
        fs::write(ring.path(), content).expect("/dev/shm is writable");
        ring.producer(&[])
            .input(seq(3))
            .run()
            .refused(NOT_A_RING, &[ring.address()]);
        ring.consumer(&[])
            .run()
            .refused(NOT_A_RING, &[ring.address()]);
        ring.semring("info", &[])
            .run()
            .refused(NOT_A_RING, &[ring.address()]);
        ring.semring("rm", &[])
            .run()
            .refused(NOT_A_RING, &[ring.address()]);
        ring.semring("rm", &["--force"])
            .run()
            .refused(NOT_A_RING, &[ring.address()]);
        assert_eq!(fs::read(ring.path()).expect("still there"), content);
        // Nor does it disturb the list.
        let list = Call::new(SEMRING, None).args(&["ls"]).run().quietly(DONE);
        assert!(!list.text().contains(ring.name()));
    }
}

#[test]
fn a_directory_in_the_place_of_a_ring_is_refused() {
    struct Directory(std::path::PathBuf);
    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }
    let name = unique("directory");
    let directory = Directory(std::path::Path::new("/dev/shm").join(&name));
    fs::create_dir(&directory.0).expect("/dev/shm is writable");
    for program in [PRODUCER, CONSUMER] {
        Call::new(program, None)
            .args(&[&name])
            .run()
            .refused(NOT_A_RING, &[&name]);
    }
    for verb in ["info", "rm"] {
        Call::new(SEMRING, None)
            .args(&[verb, &name])
            .run()
            .refused(NOT_A_RING, &[&name]);
    }
    assert!(directory.0.is_dir());
}

#[test]
fn a_segment_of_another_program_is_refused_and_left_alone() {
    for bytes in [100, 100_000] {
        let random = u32::from_str_radix(unique("x").split('-').nth(3).expect("random"), 16);
        let key = Key::from_raw(random.expect("hexadecimal") | 1);
        let segment = Created::new(Shm::create(key, bytes, 0o600).expect("a free key"));
        let address = format!("sysv:{:#010x}", key.bits());
        for program in [PRODUCER, CONSUMER] {
            Call::new(program, None)
                .args(&[&address])
                .run()
                .refused(NOT_A_RING, &[&address]);
        }
        for verb in ["info", "rm"] {
            Call::new(SEMRING, None)
                .args(&[verb, &address])
                .run()
                .refused(NOT_A_RING, &[&address]);
        }
        assert_eq!(segment.stat().expect("still there").bytes, bytes);
    }
}

#[test]
fn full_dev_shm_names_sizes_and_a_way_out() {
    needs_root!("for a small /dev/shm");
    let ring = Ring::posix("full");
    let script = r#"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@""#;
    let in_small = |program: &str, args: &[&str]| {
        Call::new("unshare", Some(&ring))
            .args(&["-m", "sh", "-c", script, "sh", program])
            .args(args)
    };
    for program in [PRODUCER, CONSUMER] {
        let call = in_small(
            program,
            &["--capacity", "1M", "--producers", "1", ring.address()],
        );
        // A lane of 1 MiB and the pages for control do not fit into 1 MiB.
        let output = call
            .input(seq(3))
            .run()
            .refused(FAILED, &[ring.address(), "no room"]);
        let numbers: Vec<u64> = output
            .stderr
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse().ok())
            .collect();
        assert!(
            numbers
                .iter()
                .any(|requested| (1 << 20..2 << 20).contains(requested)),
            "{}",
            output.stderr
        );
        assert!(
            numbers.contains(&(1 << 20)),
            "the size free: {}",
            output.stderr
        );
        let way_out = output.stderr.contains("--capacity") || output.stderr.contains("sysv:");
        assert!(way_out, "{}", output.stderr);
        // Nothing of it is left: the semaphores are not in that /dev/shm.
        ring.assert_gone();
    }
    in_small(SEMRING, &["create", ring.address(), "--capacity", "16M"])
        .run()
        .refused(FAILED, &["no room"]);
    ring.assert_gone();
    // A smaller ring works there, and System V memory is not limited by it.
    let sysv = Ring::sysv("full");
    for (ring, options) in [
        (&ring, "--capacity 64K --producers 2"),
        (&sysv, "--capacity 1M"),
    ] {
        let script = format!(
            r#"mount -t tmpfs -o size=1m tmpfs /dev/shm && seq 3 | "$P" -q {options} "$RING" && "$C" -q "$RING""#
        );
        let call = ring
            .shell("exec unshare -m sh -c \"$SCRIPT\"")
            .with(|command| {
                command.env("SCRIPT", script);
            });
        call.run().quietly(DONE).wrote(seq(3));
        ring.assert_gone();
    }
}

fn full_disk_of_the_consumer_loses_nothing(ring: &Ring) {
    for lines in [1, 1000, 20_000] {
        ring.producer(&["-q", "--capacity", "1M"])
            .input(seq(lines))
            .run()
            .quietly(DONE);
        let full = || {
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("/dev/full")
        };
        ring.consumer(&["-q"])
            .stdout(full())
            .run()
            .said(FAILED, &["No space left"]);
        // Nothing is lost by that.
        ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(lines));
        ring.assert_gone();
    }
}

fn consumers_closed_stdout_loses_nothing(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(1000)).run().quietly(DONE);
    ring.shell(r#"exec "$C" -q "$RING" >&-"#)
        .run()
        .said(FAILED, &["stdout"]);
    // Thrown away on purpose is another thing.
    ring.consumer(&["-q", "--keep", "--count", "10"])
        .stdout(Stdio::null())
        .run()
        .quietly(DONE);
    // A pipe without a reader: no message, as with `head`.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    ring.consumer(&["-q", "--keep"])
        .stdout(writer)
        .run()
        .quietly(BROKEN_PIPE);
    ring.consumer(&["-q"])
        .run()
        .quietly(DONE)
        .wrote(seq_from(11, 1000));
    ring.assert_gone();
    for verb in ["ls", "man", "completions bash"] {
        let script = format!(r#"exec "$S" {verb} >&-"#);
        ring.shell(&script).run().said(FAILED, &["stdout"]);
    }
}

fn a_closed_stdin_is_refused(ring: &Ring) {
    for framing in ["--lines", "--raw"] {
        let script = format!(r#"exec "$P" {framing} "$RING" <&-"#);
        ring.shell(&script)
            .run()
            .refused(FAILED, &["stdin is closed"]);
        ring.assert_gone();
    }
    // The consumer does not need one.
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    ring.shell(r#"exec "$C" -q "$RING" <&-"#)
        .run()
        .quietly(DONE)
        .wrote(seq(3));
    ring.assert_gone();
}

fn a_closed_stderr_changes_no_code(ring: &Ring) {
    ring.shell(r#"seq 3 | "$P" "$RING" 2>&-"#)
        .run()
        .quietly(DONE);
    ring.shell(r#"exec "$C" -v --stats "$RING" 2>&-"#)
        .run()
        .quietly(DONE)
        .wrote(seq(3));
    ring.shell(r#"exec "$C" --no-create "$RING" 2>&-"#)
        .run()
        .quietly(NO_RING);
    ring.shell(r#"exec "$C" --no-create "$RING" 2>/dev/full"#)
        .run()
        .quietly(NO_RING);
    ring.assert_gone();
}

fn a_stdin_that_can_not_be_read_is_an_error(ring: &Ring) {
    let directory = || File::open("/").expect("a directory");
    for framing in ["--lines", "--raw"] {
        ring.producer(&["-q", framing])
            .stdin(directory())
            .run()
            .refused(FAILED, &["stdin", "directory"]);
        // It was a stream that ended, though an empty one.
        ring.consumer(&["-q"]).run().truncated().wrote("");
        ring.assert_gone();
    }
}

fn a_ring_that_exists_is_not_created_again(ring: &Ring) {
    ring.semring("create", &[]).run().ended(DONE);
    let uuid = ring.info()["uuid"].clone();
    ring.semring("create", &[])
        .run()
        .refused(FAILED, &[ring.address(), "exists"]);
    assert_eq!(ring.info()["uuid"], uuid);
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}
