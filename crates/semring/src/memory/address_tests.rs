//! Written forms of addresses, and their meaning.

use super::*;

#[test]
fn each_form_reads_and_prints() {
    for (text, printed) in [
        ("a", "posix:a"),
        ("posix:a.b-c_d", "posix:a.b-c_d"),
        ("sysv:orders", "sysv:orders"),
        ("sysv:0x5eed0001", "sysv:0x5eed0001"),
        ("sysv:0xFFFFFFFF", "sysv:0xffffffff"),
        ("sysv:4096", "sysv:0x00001000"),
        ("sysv:/etc/passwd#7", "sysv:/etc/passwd#7"),
        ("file:/var/lib/x.ring", "file:/var/lib/x.ring"),
        ("file:here", "file:here"),
        ("file:a:b#c d", "file:a:b#c d"),
        ("memfd:", "memfd:"),
        ("memfd:orders", "memfd:orders"),
        ("fd:7", "fd:7"),
        ("fd:007", "fd:7"),
        ("fd:7#0123456789abcdef", "fd:7#0123456789abcdef"),
        ("fd:/proc/12/fd/7", "fd:/proc/12/fd/7"),
        ("fd:/proc/self/fd/7", "fd:/proc/self/fd/7"),
        ("anonymous:", "anonymous:"),
    ] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), printed);
    }
}

#[test]
fn bad_addresses_are_refused_with_a_reason() {
    let long = "x".repeat(300);
    for text in [
        "",
        "a/b",
        ".hidden",
        "-flag",
        "0x12",
        &long,
        "a b",
        "posix:",
        "posix:a/b",
        "sysv:0x0",
        "sysv:0xzz",
        "sysv:0x",
        "sysv:0",
        "sysv:4294967296",
        "sysv:0x+1",
        "sysv:/etc/passwd",
        "sysv:/etc/passwd#0",
        "sysv:/etc/passwd#256",
        "ümlaut",
        "tcp:host",
        "file:",
        "file:/",
        "file:/var/",
        "file:/var/..",
        "file:/a\nb",
        "memfd:a/b",
        "fd:",
        "fd:-1",
        "fd:+1",
        "fd:x",
        "fd:99999999999",
        "fd:7#",
        "fd:#0123456789abcdef",
        "fd:7#+123456789abcdef",
        "fd:/proc/x/fd/1",
        "fd:/proc/1/fd/../../etc/passwd",
        "fd:/etc/passwd",
        "anonymous:x",
        "a:b",
    ] {
        let error = text.parse::<Address>().expect_err(text);
        assert!(error.to_string().len() < 200, "{error}");
    }
    let path = |len| format!("file:/a/{}/b", "x".repeat(len)).parse::<Address>();
    let refused = path(256).unwrap_err().to_string();
    assert!(path(255).is_ok() && refused.contains("255 from slash to slash"));
}

#[test]
fn paths_may_have_bytes_that_are_not_text() {
    let of = |bytes: &[u8]| Address::try_from(OsStr::from_bytes(bytes));
    let file = of(b"file:/tmp/\xff.ring").unwrap();
    let path = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff.ring"));
    assert_eq!(file.place().unwrap(), Place::File(path.clone()));
    assert_eq!(file.to_string(), "file:/tmp/\u{fffd}.ring");
    assert_eq!(Address::of_place(&Place::File(path), ""), file);
    assert!(file.to_text().is_none() && !file.is_valid());
    let key = of(b"sysv:/tmp/\xff#7").unwrap();
    assert_eq!(key.backend(), Backend::Sysv);
    assert_ne!(key, of("sysv:/tmp/\u{fffd}#7".as_bytes()).unwrap());
    for bad in [
        &b"file:/\xff/"[..],
        b"file:/\xff/..",
        b"file:\xff\n",
        b"\xff",
        b"posix:\xff",
        b"sysv:\xff",
        b"sysv:/\xff",
        b"sysv:/\xff#0",
        b"memfd:\xff",
        b"fd:\xff",
        b"\xff:x",
    ] {
        assert!(of(bad).is_err(), "{bad:?}");
    }
    assert_eq!(of(b"posix:x").unwrap(), "x".parse().unwrap());
}

#[test]
fn objects_with_impossible_names_have_no_address() {
    let found = |name: &str| {
        let place = Place::Posix(std::path::Path::new("/dev/shm").join(name));
        Address::of_place(&place, "").is_valid()
    };
    assert!(found("orders"));
    for name in ["a b", "\u{1b}[7m", ".hidden", "-f", "$(reboot)"] {
        assert!(!found(name), "{name:?}");
    }
}

#[test]
fn derived_keys_stay_clear_of_the_random_ones() {
    for number in 0..100_000 {
        let raw = derived_key(&format!("n{number}")).raw() as u32;
        assert_eq!(raw >> 24, 0x5e);
        assert_ne!(raw >> 16, 0x5eed);
    }
}
