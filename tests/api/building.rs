//! Options, making and opening of rings: allowed values, values that must match, obstacles.

use std::os::unix::fs::PermissionsExt;

use semring::{
    Address, Backend, CreateError, GuardKind, OpenError, OpenOrCreateError, RingKind, any, mpsc,
    spsc,
};
use sysv_ipc::{Created, Key, shm::Shm};

use crate::fixture::Fixture;
use crate::rings;

fn text<T>(result: Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => error.to_string(),
    }
}

over_each_backend! {
    fn requested_settings_are_made(fixture) {
        let builder = rings::mpsc(&fixture.address).capacity(5000).producers(3).mode(0o640);
        let ring = builder.clone().guard(GuardKind::Semaphore).auto_remove(true).create().unwrap();
        fixture.guard.objects();
        let seen = (ring.capacity_bytes(), ring.lanes(), ring.is_auto_removed(), ring.was_created());
        assert_eq!(seen, (8192, 3, true, true), "the capacity is rounded up");
        assert_eq!(ring.address().to_string(), fixture.address);
        assert!(format!("{ring:?}").contains(fixture.guard.name()));
        let info = ring.info().unwrap();
        assert_eq!((info.mode, info.kind, info.guard), (0o640, RingKind::Mpsc, GuardKind::Semaphore));
        // Opened with the options it was made with, with values that round to them, and without
        // options.
        for builder in [
            builder.guard(GuardKind::Semaphore),
            rings::mpsc(&fixture.address).capacity(8192),
            rings::mpsc(&fixture.address).capacity(4097),
            rings::mpsc(&fixture.address),
        ] {
            let opened = builder.open().unwrap();
            assert_eq!((opened.lanes(), opened.was_created()), (3, false));
            assert!(!builder.open_or_create().unwrap().was_created());
        }
        assert_eq!(any::open(&fixture.address).unwrap().lanes(), 3);
    }

    fn missing_settings_have_defaults(fixture) {
        let ring = rings::mpsc(&fixture.address).create().unwrap();
        fixture.guard.objects();
        assert_eq!((ring.capacity_bytes(), ring.lanes(), ring.is_auto_removed()), (256 << 10, 8, false));
        assert_eq!(ring.max_message_bytes(), 64 << 10);
        assert_eq!(ring.info().unwrap().mode, 0o600);
        ring.remove().unwrap();
        let ring = rings::any(&fixture.address).producers(1).open_or_create().unwrap();
        fixture.guard.objects();
        assert_eq!((ring.info().unwrap().kind, ring.was_created()), (RingKind::Spsc, true));
    }

    fn settings_that_differ_are_named(fixture) {
        let name = &fixture.address;
        let ring = rings::mpsc(name).capacity(8192).producers(3).create().unwrap();
        fixture.guard.objects();
        let refusals = [
            (text(spsc::open(name)), "kind mpsc, not spsc"),
            (text(rings::mpsc(name).capacity(4096).open()), "capacity 8192 bytes, not 4096 bytes"),
            (text(rings::mpsc(name).capacity(4096).open_or_create()), "capacity 8192 bytes"),
            (text(rings::mpsc(name).producers(2).open()), "producers 3, not 2"),
            (text(rings::mpsc(name).mode(0o666).open()), "mode 0600, not 0666"),
        ];
        for (text, expected) in refusals {
            assert!(text.contains(name) && text.contains(expected) && text.contains("remove"), "{text}");
        }
        let kind = spsc::open(name).unwrap_err();
        assert!(matches!(kind, OpenError::Mismatch { what: "kind", .. }));
        ring.remove().unwrap();
        rings::spsc(name).create().unwrap();
        assert!(text(mpsc::open(name)).contains("kind spsc, not mpsc"));
    }

    fn options_outside_the_format_are_refused_first(fixture) {
        let name = &fixture.address;
        let new = || rings::mpsc(name);
        let builders = [
            (new().capacity(0), "capacity can't be 0"),
            (new().capacity(1 << 60), "capacity can't be 1152921504606846976"),
            (new().capacity((4 << 30) + 1), "4 GiB"),
            (new().capacity(u64::MAX), "4 GiB"),
            // A decimal mode in place of an octal one.
            (new().mode(999), "octal"),
            (new().mode(600), "mode can't be"),
            (new().mode(0o1600), "mode can't be 1600"),
            (new().mode(0o400), "mode can't be 0400"),
            (new().mode(0), "mode can't be 0000"),
            (new().producers(0), "producers can't be 0: 1 to 240"),
            (new().producers(241), "producers can't be 241"),
            (new().producers(usize::MAX), "1 to 240"),
        ];
        for (builder, expected) in builders {
            let error = builder.create().unwrap_err();
            assert!(matches!(error, CreateError::BadOption { .. }));
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(builder.open_or_create(), Err(OpenOrCreateError::Create(_))));
        }
        fixture.guard.assert_clean();
        // The extremes of the allowed values.
        let ring = new().capacity(1).producers(240).create().unwrap();
        assert_eq!((ring.capacity_bytes(), ring.lanes()), (4096, 240));
        drop(ring.attach_consumer().unwrap());
        drop(ring.attach_producer().unwrap());
    }

    fn a_name_is_taken_once_and_missing_before(fixture) {
        let name = &fixture.address;
        let missing = spsc::open(name).unwrap_err();
        assert!(matches!(&missing, OpenError::NotFound { name: told } if told == name));
        let _ring = fixture.spsc();
        let taken = rings::spsc(name).create().unwrap_err();
        assert!(matches!(&taken, CreateError::Exists { name: told } if told == name));
        assert!(taken.to_string().contains("open it, or remove it first"), "{taken}");
    }

    fn any_number_may_open_or_create_at_once(fixture) {
        let created: usize = std::thread::scope(|scope| {
            let builder = rings::mpsc(&fixture.address).capacity(4096);
            let opening: Vec<_> = (0..8)
                .map(|_| scope.spawn({
                    let builder = builder.clone();
                    move || builder.open_or_create().unwrap()
                }))
                .collect();
            let rings: Vec<_> = opening.into_iter().map(|ring| ring.join().unwrap()).collect();
            let uuid = |ring: &mpsc::Ring| ring.info().unwrap().uuid;
            assert!(rings.iter().all(|ring| uuid(ring) == uuid(&rings[0])));
            rings.iter().filter(|ring| ring.was_created()).count()
        });
        assert_eq!(created, 1);
        assert_eq!(fixture.guard.objects().len(), 2, "no second set was left");
    }

    fn a_clone_is_the_same_ring(fixture) {
        let ring = fixture.spsc();
        let clone = ring.clone();
        clone.attach_producer().unwrap().send(b"x").unwrap();
        drop(clone);
        assert_eq!(ring.attach_consumer().unwrap().recv().unwrap().to_vec(), b"x");
    }
}

#[test]
fn a_ring_without_memory_for_it_is_refused_with_the_sizes() {
    for backend in ["posix", "sysv"] {
        let fixture = Fixture::new(backend, "huge");
        // 960 GiB.
        let error = rings::mpsc(&fixture.address)
            .capacity(4 << 30)
            .producers(240)
            .create();
        let error = error.unwrap_err();
        let CreateError::NoSpace { requested, .. } = &error else {
            panic!("{error}")
        };
        let text = error.to_string();
        assert!(
            text.contains(&requested.to_string()) && text.contains("smaller capacity"),
            "{text}"
        );
        fixture.guard.assert_clean();
    }
}

#[test]
fn what_is_no_ring_is_neither_opened_nor_replaced() {
    let fixture = Fixture::new("posix", "plain");
    let path = format!("/dev/shm/{}", fixture.guard.name());
    let refusals = || {
        let opened = text(any::open(&fixture.address));
        assert!(
            opened.contains(&fixture.address) && opened.contains("not a ring"),
            "{opened}"
        );
        assert!(matches!(
            rings::any(&fixture.address).create(),
            Err(CreateError::Exists { .. })
        ));
        let either = text(rings::any(&fixture.address).open_or_create());
        assert!(either.contains("not a ring"), "{either}");
    };
    for bytes in [
        vec![],
        vec![b'x'; 100],
        vec![b'x'; 20480],
        vec![0; 20480],
        vec![0; 5000],
    ] {
        std::fs::write(&path, &bytes).unwrap();
        refusals();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bytes,
            "and it is left as it was"
        );
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refusals();
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere", &path).unwrap();
    refusals();
}

#[test]
fn a_key_of_another_program_is_neither_opened_nor_replaced() {
    let key = 0x0042_0000 | std::process::id();
    let address = format!("sysv:0x{key:08x}");
    let foreign = Created::new(Shm::create(Key::from_raw(key), 20480 + 1, 0o600).unwrap());
    let opened = text(any::open(&address));
    assert!(opened.contains("not a ring"), "{opened}");
    let made = rings::any(&address).create().unwrap_err();
    assert!(matches!(made, CreateError::NotARing { .. }), "{made}");
    assert!(made.to_string().contains("another program"), "{made}");
    assert!(rings::any(&address).open_or_create().is_err());
    assert_eq!(foreign.stat().unwrap().bytes, 20481);
    // A ring's size and zeros, but another process has it attached: not an unfinished ring either.
    drop(foreign);
    let foreign = Created::new(Shm::create(Key::from_raw(key), 20480, 0o600).unwrap());
    let attached = foreign.attach().unwrap();
    assert!(text(rings::any(&address).create()).contains("another program uses"));
    drop(attached);
    // Nor without users: zeros prove nothing.
    assert!(text(rings::any(&address).create()).contains("another program"));
    assert!(text(any::open(&address)).contains("another program"));
    assert_eq!(foreign.stat().unwrap().attached, 0);
}

#[test]
fn a_key_can_be_given_as_a_number_or_as_a_file() {
    let fixture = Fixture::new("posix", "key-file");
    let path = std::env::temp_dir().join(fixture.guard.name());
    std::fs::write(&path, []).unwrap();
    let address = format!("sysv:{}#7", path.display());
    let ring = rings::spsc(&address).capacity(4096).create().unwrap();
    assert_eq!(ring.address().to_string(), address);
    let key = sysv_ipc::ftok(&path, 7).unwrap();
    let numbered = spsc::open(format!("sysv:0x{:08x}", key.bits())).unwrap();
    assert_eq!(numbered.info().unwrap().uuid, ring.info().unwrap().uuid);
    ring.remove().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        spsc::open(&address),
        Err(OpenError::NotFound { .. })
    ));
    assert!(text(rings::spsc(&address).create()).contains("ftok"));
}

#[test]
fn a_mode_is_given_to_the_file_and_to_its_guard() {
    let fixture = Fixture::new("posix", "mode");
    let _ring = rings::spsc(&fixture.address).mode(0o666).create().unwrap();
    let path = format!("/dev/shm/{}", fixture.guard.name());
    assert_eq!(
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777,
        0o666
    );
    assert_eq!(fixture.cleanup().ownership().0, 0o666);
}

#[test]
fn addresses_are_parsed_as_written() {
    let address: Address = "orders".parse().unwrap();
    assert_eq!(
        (address.backend(), address.name()),
        (Backend::Posix, "orders".to_owned())
    );
    let address: Address = "sysv:orders".parse().unwrap();
    assert_eq!(
        (address.backend(), address.name()),
        (Backend::Sysv, "orders".to_owned())
    );
    assert_eq!(
        [Backend::Posix, Backend::Sysv].map(|backend| backend.to_string()),
        ["posix", "sysv"]
    );
    for bad in [
        "",
        "a/b",
        "x".repeat(300).as_str(),
        "tcp:x",
        "sysv:0x0",
        ".x",
        "0x1",
    ] {
        assert!(bad.parse::<Address>().is_err());
        assert!(matches!(
            rings::spsc(bad).create(),
            Err(CreateError::Address(_))
        ));
        assert!(matches!(spsc::open(bad), Err(OpenError::Address(_))));
        assert!(rings::spsc(bad).open_or_create().is_err());
    }
}
