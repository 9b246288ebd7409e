//! Two users and one ring: the mode decides, as for a file.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use semring_testkit::left_out;

use crate::support::{
    CONSUMER, Call, DONE, FAILED, PERMISSION, PRODUCER, Ring, SEMRING, Scratch, USAGE,
    over_both_backends, seq,
};

over_both_backends! {
    another_user_is_refused_by_the_default_mode,
    a_mode_for_the_group_lets_the_group_in,
    mode_for_all_admits_all_with_any_creator,
    root_may_use_the_ring_of_a_user,
    only_the_owner_removes,
    root_makes_a_ring_for_a_user_and_a_group,
    only_the_owner_replaces_an_unused_ring,
    a_ring_that_root_made_for_a_user_is_replaced_by_nobody,
}

/// Two users without a name or rights of their own, and a group.
const ONE: u32 = 65533;
const OTHER: u32 = 65534;
const GROUP: u32 = 65534;
const OTHER_GROUP: u32 = 65532;

/// The commands where every user can run them: the build's own folder may be closed to others.
struct Users<'r> {
    ring: &'r Ring,
    scratch: Scratch,
}

impl<'r> Users<'r> {
    /// `None` if this is not root: the calling test is then noted as left out.
    fn new(ring: &'r Ring) -> Option<Users<'r>> {
        if !left_out::is_root("to become another user") {
            return None;
        }
        let scratch = Scratch::new();
        let open = || PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.directory(), open()).expect("our own directory");
        // By another process: a program that is open for writing can't be executed, and a child that a
        // concurrent test forks has the open files of this process until its exec.
        let programs = [PRODUCER, CONSUMER, SEMRING];
        let copied = Command::new("cp")
            .args(programs)
            .arg(scratch.directory())
            .status();
        assert!(copied.expect("cp runs").success(), "room for the commands");
        for program in programs {
            let name = program.rsplit('/').next().expect("a path");
            std::fs::set_permissions(scratch.path(name), open()).expect("our own file");
        }
        Some(Users { ring, scratch })
    }

    fn call(&self, uid: u32, gid: u32, name: &str, args: &[&str]) -> Call<'r> {
        let program = self.scratch.path(name);
        let program = program.to_str().expect("a plain path");
        let call = Call::new(program, Some(self.ring))
            .args(args)
            .with(|command| {
                command.uid(uid).gid(gid).current_dir("/");
            });
        call.args(&[self.ring.address()])
    }

    fn producer(&self, uid: u32, args: &[&str]) -> Call<'r> {
        self.call(uid, GROUP, "semring-producer", args)
    }

    fn consumer(&self, uid: u32, args: &[&str]) -> Call<'r> {
        self.call(uid, GROUP, "semring-consumer", args)
    }
}

fn another_user_is_refused_by_the_default_mode(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    for owner in [ONE, 0] {
        users
            .producer(owner, &["-q"])
            .input(seq(3))
            .run()
            .quietly(DONE);
        let refused = |call: Call| {
            call.run()
                .refused(PERMISSION, &[ring.address(), "permission denied"])
                .stderr
        };
        refused(users.producer(OTHER, &[]).input(seq(3)));
        refused(users.consumer(OTHER, &[]));
        refused(users.consumer(OTHER, &["--no-create"]));
        refused(users.call(OTHER, GROUP, "semring", &["create"]));
        let said = refused(users.call(OTHER, GROUP, "semring", &["info"]));
        assert_eq!(said.to_lowercase().matches("permission denied").count(), 1);
        refused(users.call(OTHER, GROUP, "semring", &["rm"]));
        refused(users.call(OTHER, GROUP, "semring", &["rm", "--force"]));
        // Nor is it in that user's list, and the list is no error.
        let list = Call::new(users.scratch.path("semring").to_str().expect("plain"), None)
            .args(&["ls"])
            .with(|command| {
                command.uid(OTHER).gid(GROUP);
            });
        assert!(!list.run().quietly(DONE).text().contains(ring.name()));
        // It was not harmed.
        users
            .consumer(owner, &["-q"])
            .run()
            .quietly(DONE)
            .wrote(seq(3));
        ring.assert_gone();
    }
}

fn a_mode_for_the_group_lets_the_group_in(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    let producer = users.producer(ONE, &["-q", "--mode", "0660"]).stdin_open();
    // A narrow umask of the maker does not narrow the requested mode.
    let mut producer = producer.start();
    ring.wait_for_producers(1);
    assert_eq!(ring.info()["mode"], "0660");
    let consumer = users.consumer(OTHER, &["-q"]).start();
    ring.wait_for_consumer(&consumer);
    let stranger = users.call(OTHER, OTHER_GROUP, "semring-producer", &[]);
    stranger.run().refused(PERMISSION, &["permission denied"]);
    producer.write(seq(1000));
    producer.finish().ended(DONE);
    consumer.finish().ended(DONE).wrote(seq(1000));
}

fn mode_for_all_admits_all_with_any_creator(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    for (maker, guest) in [(ONE, OTHER), (OTHER, ONE), (0, ONE)] {
        // The producer makes it.
        users
            .producer(maker, &["-q", "--mode", "0666"])
            .input(seq(1000))
            .run()
            .quietly(DONE);
        assert_eq!(ring.info()["mode"], "0666");
        users
            .consumer(guest, &["-q"])
            .run()
            .ended(DONE)
            .wrote(seq(1000));
        // The guest may not remove it; its owner may.
        if ring.look().is_some() {
            users
                .call(maker, GROUP, "semring", &["rm"])
                .run()
                .quietly(DONE);
        }
        ring.assert_gone();
        // The consumer makes it.
        let consumer = users.consumer(maker, &["-q", "--mode", "0666"]).start();
        ring.wait_for_consumer(&consumer);
        users
            .producer(guest, &["-q"])
            .input(seq(100_000))
            .run()
            .quietly(DONE);
        consumer.finish().quietly(DONE).wrote(seq(100_000));
        ring.assert_gone();
    }
}

fn root_may_use_the_ring_of_a_user(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    users
        .producer(ONE, &["-q"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    ring.producer(&["-q"]).input("4\n").run().quietly(DONE);
    ring.consumer(&["-q"]).run().quietly(DONE).wrote(seq(4));
    ring.assert_gone();
}

fn only_the_owner_removes(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    users
        .producer(ONE, &["-q", "--mode", "0666"])
        .input(seq(3))
        .run()
        .quietly(DONE);
    let rm = |uid, args: &[&str]| users.call(uid, GROUP, "semring", args).run();
    for args in [&["rm"][..], &["rm", "--force"]] {
        let output = rm(OTHER, args);
        assert_ne!(output.exit, FAILED, "permission has a code of its own");
        output.refused(PERMISSION, &[ring.address(), "permission denied"]);
    }
    users
        .consumer(OTHER, &["-q", "--keep", "--count", "3"])
        .run()
        .ended(DONE)
        .wrote(seq(3));
    rm(ONE, &["rm"]).quietly(DONE);
    ring.assert_gone();
}

fn root_makes_a_ring_for_a_user_and_a_group(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    let create = |args: &[&str]| {
        let call = Call::new(SEMRING, Some(ring)).args(&["create", ring.address()]);
        call.args(args).run()
    };
    create(&["--owner", "nobody-of-this-name"]).refused(crate::support::USAGE, &["no such user"]);
    create(&["--group", "nobody-of-this-name"]).refused(crate::support::USAGE, &["no such group"]);
    let (one, group) = (ONE.to_string(), GROUP.to_string());
    let owners = ["--owner", &one, "--group", &group, "--mode", "0660"];
    create(&owners).quietly(DONE);
    users
        .producer(ONE, &["-q"])
        .input("1\n")
        .run()
        .quietly(DONE);
    let refused = users
        .call(OTHER, OTHER_GROUP, "semring-producer", &["-q"])
        .input("2\n");
    refused.run().refused(PERMISSION, &[]);
    let member = users.call(OTHER, GROUP, "semring-consumer", &[]).run();
    member.ended(DONE).wrote("1\n");
}

/// Another user's settings, and root's, replace nothing.
fn only_the_owner_replaces_an_unused_ring(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    let consumer = users.consumer(ONE, &["-q", "--mode", "0666"]).start();
    ring.wait_for_consumer(&consumer);
    let more = ["-q", "--capacity", "1M"];
    for other in [OTHER, 0] {
        let producer = users.producer(other, &more).input("1\n").run();
        producer.refused(USAGE, &["262144", "1048576"]);
        assert_eq!(ring.number("capacity_bytes"), 262_144);
    }
    let mut producer = users.producer(ONE, &more).stdin_open().start();
    ring.wait_for_producers(1);
    assert_eq!(ring.number("capacity_bytes"), 1 << 20);
    assert_eq!(ring.info()["mode"], "0666");
    producer.write("1\n");
    producer.finish().quietly(DONE);
    consumer.finish().quietly(DONE).wrote("1\n");
    ring.assert_gone();
}

fn a_ring_that_root_made_for_a_user_is_replaced_by_nobody(ring: &Ring) {
    let Some(users) = Users::new(ring) else {
        return;
    };
    let create = ["--owner", &ONE.to_string(), "--mode", "0666"];
    ring.semring("create", &create).run().quietly(DONE);
    let uuid = ring.info()["uuid"].clone();
    for user in [ONE, OTHER, 0] {
        for side in [Users::producer, Users::consumer] {
            let refused = side(&users, user, &["-q", "--producers", "9"]).run();
            refused.refused(USAGE, &["8", "9"]);
        }
        let producer = users.producer(user, &["-q", "--producers", "2"]);
        producer.input("1\n").run().quietly(DONE);
        let consumer = users.consumer(user, &["-q", "--capacity", "4K"]).run();
        consumer.quietly(DONE).wrote("1\n");
        assert_eq!(ring.info()["uuid"], uuid);
    }
    users
        .call(ONE, GROUP, "semring", &["rm"])
        .run()
        .quietly(DONE);
    ring.assert_gone();
}
