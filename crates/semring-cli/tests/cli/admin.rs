//! `semring`: create, ls, info, rm, completions, man.

use serde_json::Value;

use crate::support::{
    BROKEN_PIPE, CONSUMER, Call, DONE, NO_RING, PRODUCER, Ring, SEMRING, USAGE, number, one_object,
    over_both_backends, seq,
};

over_both_backends! {
    create_makes_the_requested_empty_ring,
    info_has_the_fields_of_the_contract,
    info_shows_attached_processes_and_unread,
    info_is_also_text_for_people,
    ls_has_one_object_a_line,
    ls_has_the_requested_columns,
    rm_removes_an_idle_ring_with_what_is_in_it,
}

/// In the order in which the contract names them.
const FIELDS: [&str; 18] = [
    "name",
    "address",
    "backend",
    "kind",
    "uuid",
    "mode",
    "owner",
    "capacity_bytes",
    "lanes",
    "producers",
    "consumer_pid",
    "used_bytes",
    "sent_messages",
    "received_messages",
    "lost_messages",
    "corrupt_lanes",
    "state",
    "created",
];

fn ls(args: &[&str]) -> String {
    Call::new(SEMRING, None)
        .args(&["ls"])
        .args(args)
        .run()
        .quietly(DONE)
        .text()
}

fn create_makes_the_requested_empty_ring(ring: &Ring) {
    let options = ["--capacity", "60000", "--producers", "5", "--mode", "0640"];
    ring.semring("create", &options)
        .run()
        .quietly(DONE)
        .wrote("");
    let info = ring.info();
    assert_eq!(number(&info, "capacity_bytes"), 65536);
    assert_eq!(number(&info, "lanes"), 5);
    assert_eq!(info["mode"], "0640");
    for field in [
        "producers",
        "used_bytes",
        "sent_messages",
        "received_messages",
    ] {
        assert_eq!(number(&info, field), 0, "{field}");
    }
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.semring("create", &[]).run().quietly(DONE);
    let info = ring.info();
    assert_eq!(number(&info, "capacity_bytes"), 256 << 10);
    assert_eq!(number(&info, "lanes"), 8);
    assert_eq!(info["mode"], "0600");
}

fn info_has_the_fields_of_the_contract(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    let output = ring.semring("info", &["--json"]).run().quietly(DONE);
    let text = output.text();
    let mut rest = text.as_str();
    for field in FIELDS {
        let key = format!("\"{field}\":");
        let at = rest
            .find(&key)
            .unwrap_or_else(|| panic!("{field} is missing in {text}"));
        rest = &rest[at + key.len()..];
    }
    let info = output.json();
    assert_eq!(info["name"], ring.name());
    assert_eq!(info["address"], ring.address());
    assert_eq!(
        info["backend"],
        if ring.is_posix() { "posix" } else { "sysv" }
    );
    assert_eq!(info["mode"], "0600");
    assert_eq!(info["state"], "idle");
    assert_eq!(info["consumer_pid"], Value::Null);
    for (field, value) in [
        ("sent_messages", 3),
        ("received_messages", 0),
        ("lost_messages", 0),
        ("corrupt_lanes", 0),
    ] {
        assert_eq!(number(&info, field), value, "{field}");
    }
    // A header of 8 bytes and at least 8 for one digit.
    assert_eq!(number(&info, "used_bytes"), 3 * 16);
    let uuid = info["uuid"].as_str().expect("text");
    let digits = uuid.chars().filter(char::is_ascii_hexdigit).count();
    assert_eq!(digits, 32, "{uuid}");
    let created = info["created"].as_str().expect("text");
    assert!(
        created.starts_with("20") && created.ends_with('Z') && created.contains('T'),
        "{created}"
    );
    let owner = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten();
    let owner = owner.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
    assert_eq!(info["owner"], owner);
}

fn info_shows_attached_processes_and_unread(ring: &Ring) {
    let mut producer = ring.producer(&[]).stdin_open().start();
    producer.write("1\n2\n3\n");
    ring.wait_for_sent(3);
    let info = ring.info();
    assert_eq!(number(&info, "producers"), 1);
    assert_eq!(info["state"], "active");
    assert!(number(&info, "used_bytes") > 0);
    let mut consumer = ring.consumer(&["-q"]).start();
    ring.wait_for_consumer(&consumer);
    consumer.wait_for_stdout("1\n2\n3\n");
    crate::support::wait_until("all is released", || ring.number("received_messages") == 3);
    let info = ring.info();
    assert_eq!(number(&info, "consumer_pid"), u64::from(consumer.pid()));
    assert_eq!(number(&info, "used_bytes"), 0);
    // Looking changes nothing, however often.
    assert_eq!(ring.info(), info);
    producer.finish().quietly(DONE);
    consumer.finish().quietly(DONE);
    ring.assert_gone();
}

fn info_is_also_text_for_people(ring: &Ring) {
    ring.semring("create", &["--capacity", "1M"])
        .run()
        .quietly(DONE);
    ring.producer(&["-q"]).input(seq(3)).run().quietly(DONE);
    let text = ring.semring("info", &[]).run().quietly(DONE).text();
    for word in [ring.address(), "1 MiB", "3 messages", "idle", "0600"] {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn ls_has_one_object_a_line(ring: &Ring) {
    let other = ring.another("ls-other");
    ring.semring("create", &[]).run().quietly(DONE);
    other.semring("create", &[]).run().quietly(DONE);
    let text = ls(&["--json"]);
    let objects: Vec<Value> = text.lines().map(one_object).collect();
    for ring in [ring, &other] {
        let mut found = objects
            .iter()
            .filter(|object| object["address"] == ring.address());
        let object = found.next().expect("it is in the list");
        assert_eq!(found.next(), None);
        for field in FIELDS {
            assert!(object.get(field).is_some(), "{field}");
        }
    }
    ring.semring("rm", &[]).run().quietly(DONE);
    assert!(!ls(&["--json"]).contains(ring.name()));
    assert!(ls(&["--json"]).contains(other.name()));
}

fn ls_has_the_requested_columns(ring: &Ring) {
    ring.semring("create", &["--capacity", "64K"])
        .run()
        .quietly(DONE);
    let row = |text: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.contains(ring.name()));
        let line = line.unwrap_or_else(|| panic!("{} is not in\n{text}", ring.name()));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let text = ls(&[]);
    row(&text);
    let head = text.lines().next().expect("headings").to_owned();
    assert!(
        head.chars()
            .all(|c| c.is_ascii_uppercase() || c == ' ' || c == '_'),
        "{head}"
    );
    assert!(!ls(&["--noheadings"]).contains(&head));

    let text = ls(&["-o", "capacity_bytes,address,lanes,mode"]);
    assert_eq!(row(&text), ["65536", ring.address(), "8", "0600"]);
    assert_eq!(
        text.lines()
            .next()
            .expect("headings")
            .split_whitespace()
            .count(),
        4
    );
    let bare = ls(&["--noheadings", "-o", "address,consumer_pid"]);
    assert_eq!(row(&bare), [ring.address(), "-"]);
    assert!(
        bare.lines().all(|line| line.contains(':')),
        "no headings:\n{bare}"
    );
    // Every field of the contract is a column.
    ls(&["-o", &FIELDS.join(",")]);
    let wrong = Call::new(SEMRING, None)
        .args(&["ls", "--json", "-o", "name"])
        .run();
    wrong.refused(USAGE, &[]);
    ring.semring("rm", &[]).run().quietly(DONE);
}

fn rm_removes_an_idle_ring_with_what_is_in_it(ring: &Ring) {
    ring.producer(&["-q"]).input(seq(1000)).run().quietly(DONE);
    ring.assert_kept();
    ring.semring("rm", &[]).run().quietly(DONE).wrote("");
    ring.assert_gone();
    // With a killed user it is idle as well.
    let mut producer = ring.producer(&[]).feed_endless_seq().start();
    producer.wait_until_asleep_on_the_ring();
    producer.kill();
    ring.semring("rm", &[]).run().quietly(DONE);
    ring.assert_gone();
}

#[test]
fn a_long_list_into_head_is_no_panic() {
    let rings: Vec<Ring> = (0..3).map(|_| Ring::posix("head")).collect();
    for ring in &rings {
        ring.semring("create", &["--capacity", "4K", "--producers", "1"])
            .run()
            .quietly(DONE);
    }
    let script = r#""$S" ls | head -1; echo "${PIPESTATUS[0]}""#;
    let text = rings[0].shell(script).run().quietly(DONE).text();
    let status = text.lines().last().expect("the status");
    assert!(status == "0" || status == "141", "{text}");
    // With the reader gone before the first byte.
    for args in [
        &["ls"][..],
        &["ls", "--json"],
        &["info", rings[0].address()],
        &["--help"],
        &["man"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let call = Call::new(SEMRING, None).args(args).stdout(writer);
        call.run().quietly(BROKEN_PIPE);
    }
}

#[test]
fn bash_completes_the_names_of_rings() {
    let posix = Ring::posix("complete");
    let sysv = Ring::sysv("complete");
    for ring in [&posix, &sysv] {
        ring.semring("create", &[]).run().quietly(DONE);
    }
    // Readline's part: the line so far, its words, the last one cut at its colon.
    let script = r#"
        source <("$S" completions bash)
        semring() { "$S" "$@"; }
        try() {
            COMP_LINE="$1" COMP_POINT=${#1} COMPREPLY=()
            COMP_WORDS=($1)
            [[ $1 != *" " ]] || COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            local function word="${COMP_WORDS[COMP_CWORD]}"
            function=$(complete -p "${COMP_WORDS[0]}")
            function=${function##*-F }
            "${function%% *}" "${COMP_WORDS[0]}" "${word##*:}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        try "semring info $POSIX"
        try "semring rm --force $POSIX"
        try "semring info $SYSV"
        try "semring-producer -q $POSIX"
        try "semring-producer --capacity $POSIX"
        try "semring create $POSIX"
        try "semring pru"
        try "semring-producer --wait bl"
        try "semring-consumer --foll"
    "#;
    let call = posix.shell(script).with(|command| {
        command.env("POSIX", &posix.name()[..posix.name().len() - 1]);
        command.env("SYSV", &sysv.address()[..sysv.address().len() - 1]);
    });
    let text = call.run().quietly(DONE).text();
    let lines: Vec<&str> = text.lines().collect();
    let (name, rest) = (posix.name(), sysv.name());
    let expected = [name, name, rest, name, "", "", "prune", "block", "--follow"];
    assert_eq!(lines, expected);
    for ring in [&posix, &sysv] {
        ring.semring("rm", &[]).run().quietly(DONE);
    }
}

#[test]
fn completions_and_man_pages_are_printed() {
    let semring = |args: &[&str]| {
        Call::new(SEMRING, None)
            .args(args)
            .run()
            .quietly(DONE)
            .text()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = semring(&["completions", shell]);
        assert!(
            script.contains("semring") && script.contains("create"),
            "{shell}"
        );
    }
    for shell in ["zsh", "fish"] {
        for program in ["semring", "semring-producer", "semring-consumer"] {
            let script = semring(&["completions", shell, program]);
            assert!(script.contains("semring __complete-rings"), "{shell}");
        }
    }
    let script = semring(&["completions", "bash", "semring-producer"]);
    assert!(script.contains("--wait-for-consumer"));
    // As a file of fpath it serves all three.
    let script = semring(&["completions", "zsh"]);
    let programs = "semring semring-producer semring-consumer";
    assert_eq!(
        script.lines().next(),
        Some(&*format!("#compdef {programs}"))
    );
    for program in programs.split(' ') {
        let line = format!("compdef _{program} {program}");
        assert_eq!(
            script.lines().filter(|other| **other == line).count(),
            1,
            "{line}"
        );
    }
    // A shell can read it.
    let check = Call::new("bash", None)
        .args(&["-n"])
        .input(semring(&["completions", "bash"]));
    check.run().quietly(DONE);
    for page in [
        "semring",
        "semring-producer",
        "semring-consumer",
        "semring-create",
        "semring-ls",
        "semring-info",
        "semring-rm",
        "semring-prune",
        "semring-top",
        "semring-doctor",
        "semring-completions",
        "semring-help",
        "semring-man",
    ] {
        let roff = semring(&["man", page]);
        assert_eq!(
            semring(&["man", page.strip_prefix("semring-").unwrap_or(page)]),
            roff
        );
        let title = format!(
            ".TH {page} 1  \"semring {}\" \"User Commands\"",
            env!("CARGO_PKG_VERSION")
        );
        assert!(roff.lines().any(|line| line == title), "{page}: {roff}");
        let help = semring(&["help", page]);
        let command = match page {
            "semring-producer" | "semring-consumer" => page.to_owned(),
            page => page.replacen('-', " ", 1),
        };
        assert!(
            help.contains(&format!("Usage: {command}")),
            "{page}: {help}"
        );
        let long = help.lines().find(|line| line.chars().count() > 80);
        assert_eq!(long, None, "{page} is wider than 80 columns");
        for section in [
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "OPTIONS",
            "EXAMPLES",
            "\"EXIT STATUS\"",
            "ENVIRONMENT",
            "\"SEE ALSO\"",
        ] {
            let line = format!(".SH {section}\n");
            assert!(roff.contains(&line), "{page} has no {section}: {roff}");
        }
    }
    let help = semring(&["--help"]);
    for verb in [
        "create",
        "ls",
        "info",
        "rm",
        "prune",
        "top",
        "doctor",
        "completions",
    ] {
        assert!(help.contains(verb), "{verb} is not in the help");
    }
}

#[test]
fn a_forgotten_ring_and_a_closed_descriptor_are_named() {
    for verb in ["info", "rm"] {
        let call = Call::new(SEMRING, None).args(&[verb]).run();
        call.refused(
            USAGE,
            &[
                "missing RING",
                "semring ls",
                &format!("semring {verb} --help"),
            ],
        );
    }
    for program in [PRODUCER, CONSUMER] {
        let call = Call::new(program, None).args(&["-q"]).run();
        call.refused(USAGE, &["missing RING"]);
    }
    let call = Call::new(SEMRING, None).args(&["info", "fd:99"]).run();
    call.refused(NO_RING, &["descriptor 99 is not open"]);
    for program in [PRODUCER, CONSUMER] {
        let call = Call::new(program, None).args(&["fd:99"]).run();
        call.refused(NO_RING, &["descriptor 99 is not open"]);
    }
    let call = Call::new(SEMRING, None).args(&["help", "list"]).run();
    call.refused(USAGE, &["\"list\"", "ls, info, rm"]);
}

#[test]
fn a_wrong_option_names_the_help_of_its_command() {
    for args in [
        &["create", "x", "--guard", "futex"][..],
        &["top", "-i", "never"],
        &["ls", "-o", "colour"],
        &["ls", "--wide"],
        &["info", "x", "y"],
    ] {
        let help = format!("; see semring {} --help", args[0]);
        Call::new(SEMRING, None)
            .args(args)
            .run()
            .refused(USAGE, &[&help]);
    }
}

/// On a terminal the page is shown by `man`.
#[test]
fn a_man_page_is_shown_on_a_terminal() {
    let scratch = crate::support::Scratch::new();
    let man = scratch.path("man");
    std::fs::write(
        &man,
        "#!/bin/sh\necho \"shown: $*\"; exec grep -c '^.SH SYNOPSIS'\n",
    )
    .expect("room");
    std::fs::set_permissions(&man, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("our own file");
    let (mut screen, terminal) = crate::support::terminal::new_terminal();
    let path = format!(
        "{}:{}",
        scratch.directory().display(),
        std::env::var("PATH").expect("a path")
    );
    let call = Call::new(SEMRING, None)
        .args(&["man", "ls"])
        .stdout(terminal);
    call.with(|command| {
        command.env("PATH", path);
    })
    .run()
    .quietly(DONE);
    let mut shown = [0; 64];
    let mut text = String::new();
    while !text.ends_with("1\r\n") {
        let count = std::io::Read::read(&mut screen, &mut shown).expect("the terminal");
        text += &String::from_utf8_lossy(&shown[..count]);
    }
    assert_eq!(text, "shown: -l -\r\n1\r\n");
}

#[test]
fn yielding_under_a_real_time_policy_is_mentioned() {
    let chrt = ["chrt", "--fifo", "1"];
    if !semring_testkit::left_out::can_run(&[&chrt[..], &["true"]].concat()) {
        return;
    }
    let ring = Ring::posix("real-time");
    for (policy, told) in [("--fifo 1", true), ("--other 0", false)] {
        let script = format!("exec chrt {policy} \"$P\" --wait yield \"$RING\"");
        let output = ring.shell(&script).run().ended(DONE);
        assert_eq!(
            output.stderr.contains("real-time"),
            told,
            "{}",
            output.stderr
        );
    }
    ring.consumer(&["-q"]).run().quietly(DONE);
}
