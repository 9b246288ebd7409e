//! Paths that are not UTF-8: bytes, as the kernel has them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::support::{CONSUMER, Call, DONE, NO_RING, PRODUCER, SEMRING, Scratch, USAGE, seq};

/// A scratch folder's path followed by a name in Latin-1.
fn latin1(scratch: &Scratch, before: &str, after: &str) -> OsString {
    let mut bytes = before.as_bytes().to_vec();
    bytes.extend(scratch.path("gr").as_os_str().as_bytes());
    bytes.extend(b"\xfc\xdfe");
    bytes.extend(after.as_bytes());
    OsString::from_vec(bytes)
}

fn call(program: &str, args: &[&str], address: &OsStr) -> Call<'static> {
    Call::new(program, None).args(args).with(|command| {
        command.arg(address);
    })
}

#[test]
fn rings_at_paths_that_are_not_utf_8() {
    let scratch = Scratch::new();
    std::fs::write(latin1(&scratch, "", ".key"), "").expect("a file");
    let addresses = [
        latin1(&scratch, "file:", ""),
        latin1(&scratch, "sysv:", ".key#7"),
    ];
    for address in &addresses {
        call(SEMRING, &["create"], address).run().quietly(DONE);
        if address.as_bytes().starts_with(b"file:") {
            assert!(std::path::Path::new(&latin1(&scratch, "", "")).exists());
        }
        call(PRODUCER, &["-q", "--no-create"], address)
            .input(seq(3))
            .run()
            .quietly(DONE);
        let info = call(SEMRING, &["info", "--json"], address).run();
        assert_eq!(info.quietly(DONE).json()["unread_messages"], 3);
        call(CONSUMER, &["-q", "--no-create"], address)
            .run()
            .quietly(DONE)
            .wrote(seq(3));
        call(SEMRING, &["rm"], address).run().quietly(DONE);
        // In a sentence the path is shown as well as it can be.
        call(SEMRING, &["info"], address)
            .run()
            .refused(NO_RING, &["gr\u{fffd}\u{fffd}e"]);
    }
}

#[test]
fn names_that_are_not_utf_8_are_refused() {
    for name in [&b"orders\xff"[..], b"posix:\xff", b"sysv:\xff", b"\xff:x"] {
        for (program, args) in [
            (SEMRING, &["create"][..]),
            (SEMRING, &["rm"]),
            (PRODUCER, &[]),
            (CONSUMER, &[]),
        ] {
            call(program, args, OsStr::from_bytes(name))
                .run()
                .refused(USAGE, &[]);
        }
    }
}

#[test]
fn a_report_of_bench_goes_to_a_path_that_is_not_utf_8() {
    let scratch = Scratch::new();
    let page = latin1(&scratch, "", ".html");
    let words = [
        "bench",
        "--trial",
        "--peer",
        "pipe",
        "--workload",
        "one-way",
    ];
    call(
        SEMRING,
        &[&words[..], &["--size", "64", "--report"]].concat(),
        &page,
    )
    .run()
    .ended(DONE);
    assert!(std::fs::metadata(&page).expect("the page").len() > 0);
}
