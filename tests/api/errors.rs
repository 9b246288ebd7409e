//! Error texts: one sentence that names the ring and what can be done.

use std::io;

use semring::{
    AttachError, CreateError, OpenError, Position, RecvError, RemoveError, SendError, SystemCall,
    any, spsc,
};

use crate::fixture::Fixture;
use crate::rings;

/// One line, begun without a capital or a stop at the end, short enough to be read.
fn assert_is_a_sentence(text: &str) {
    assert!(!text.is_empty() && text.len() < 500, "{text}");
    assert!(!text.contains('\n') && !text.contains("  "), "{text:?}");
    assert!(!text.ends_with(['.', ' ', ':']), "{text:?}");
    for debris in ["Err(", "Some(", "None", "{", "}", "Os {", "\\"] {
        assert!(!text.contains(debris), "{text:?}");
    }
}

fn assert_names_the_ring(text: &str, name: &str) {
    assert_is_a_sentence(text);
    assert!(
        text.starts_with(name),
        "{text:?} does not begin with the ring"
    );
}

#[test]
fn refusals_of_set_up_name_the_ring_and_the_way_out() {
    let fixture = Fixture::new("posix", "errors");
    let name = fixture.address.as_str();
    assert_names_the_ring(&any::open(name).unwrap_err().to_string(), name);
    let ring = fixture.mpsc(2);
    let producer = ring.attach_producer().unwrap();
    for (text, way_out) in [
        (
            rings::mpsc(name).create().unwrap_err().to_string(),
            "remove it first",
        ),
        (
            spsc::open(name).unwrap_err().to_string(),
            "remove the ring first",
        ),
        (ring.remove().unwrap_err().to_string(), "by force"),
        (semring::remove(name).unwrap_err().to_string(), "stop them"),
    ] {
        assert_names_the_ring(&text, name);
        assert!(
            text.contains(way_out),
            "{text:?} does not contain {way_out:?}"
        );
    }
    drop(producer);
}

#[test]
fn every_error_is_a_sentence() {
    let name = || "posix:orders".to_owned();
    let source = || io::Error::from_raw_os_error(libc::EACCES);
    let opening = || {
        [
            OpenError::NotFound { name: name() },
            OpenError::NotARing {
                name: name(),
                what: "a directory".to_owned(),
            },
            OpenError::OtherVersion {
                name: name(),
                found: 2,
                expected: 1,
            },
            OpenError::UnknownFeatures {
                name: name(),
                bits: 4,
            },
            OpenError::Mismatch {
                name: name(),
                what: "capacity",
                found: "1".to_owned(),
                requested: "2".to_owned(),
            },
            OpenError::Busy { name: name() },
            OpenError::Permission {
                name: name(),
                source: source(),
            },
            OpenError::Os {
                name: name(),
                call: "mmap",
                source: source(),
            },
        ]
    };
    for error in opening() {
        assert_names_the_ring(&error.to_string(), "posix:orders");
        assert_names_the_ring(&RemoveError::from(error).to_string(), "posix:orders");
    }
    for free in [None, Some(4096)] {
        let error = CreateError::NoSpace {
            name: name(),
            requested: 8192,
            free,
            hint: "use less",
        };
        assert_names_the_ring(&error.to_string(), "posix:orders");
        assert_eq!(
            error.to_string().contains("4096 bytes are free"),
            free.is_some()
        );
    }
    for error in [
        CreateError::Exists { name: name() },
        CreateError::NotARing {
            name: name(),
            what: "a directory".to_owned(),
        },
        CreateError::Permission {
            name: name(),
            source: source(),
        },
        CreateError::Busy { name: name() },
        CreateError::Os {
            name: name(),
            call: "semget",
            source: source(),
        },
    ] {
        assert_names_the_ring(&error.to_string(), "posix:orders");
    }
    for (producers, consumer) in [
        (vec![], None),
        (vec![1, 2], None),
        (vec![], Some(3)),
        (vec![1], Some(3)),
    ] {
        let error = RemoveError::InUse {
            name: name(),
            producers,
            consumer,
        };
        assert_names_the_ring(&error.to_string(), "posix:orders");
    }
    let position = Position::new(4096);
    for error in [
        AttachError::ConsumerPresent { pid: 1 },
        AttachError::NoFreeLane { lanes: 8, pid: 1 },
        AttachError::Removed,
        AttachError::Corrupt { lane: 1, position },
        AttachError::Forked,
        AttachError::Permission,
        AttachError::Os {
            call: "semop",
            errno: libc::ENOSPC,
        },
        AttachError::Os {
            call: "semop",
            errno: libc::E2BIG,
        },
    ] {
        assert_is_a_sentence(&error.to_string());
    }
    for error in [
        SendError::Full,
        SendError::TooLong { max: 1024 },
        SendError::ConsumerGone,
        SendError::Closed,
        SendError::Removed,
        SendError::Corrupt,
        SendError::TimedOut,
        SendError::Interrupted,
        SendError::Forked,
        SendError::Os {
            call: SystemCall::SetLock,
            errno: libc::ENOMEM,
        },
    ] {
        assert_is_a_sentence(&error.to_string());
    }
    for error in [
        RecvError::Empty,
        RecvError::EndOfStream {
            finished: 1,
            died: 0,
        },
        RecvError::EndOfStream {
            finished: 0,
            died: 2,
        },
        RecvError::Corrupt { lane: 1, position },
        RecvError::Removed,
        RecvError::TimedOut,
        RecvError::Interrupted,
        RecvError::Forked,
        RecvError::Os {
            call: SystemCall::SetLock,
            errno: libc::ENOMEM,
        },
    ] {
        assert_is_a_sentence(&error.to_string());
    }
}
