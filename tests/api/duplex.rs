//! Pairs of rings: their ends, their closing, their names.

use std::thread;

use semring::duplex::{self, Builder, Endpoint, Pair};
use semring::{AddressError, AttachError, CreateError, EndError, OpenError, OpenOrCreateError};
use semring::{RecvError, RemoveError, SendError, Unread};

use crate::fixture::{CAPACITY, Fixture, LONG, SOON};
use crate::rings;

fn pair(address: &str) -> Pair {
    rings::pair(address).capacity(CAPACITY).create().unwrap()
}

fn ends(pair: &Pair) -> (Endpoint, Endpoint) {
    (pair.server_end().unwrap(), pair.client_end().unwrap())
}

fn send_until_refused(end: &mut Endpoint) -> SendError {
    loop {
        if let Err(error) = end.try_send(&[0; 100]) {
            return error;
        }
    }
}

/// Whether both names are gone, or both exist.
#[track_caller]
fn names_are_there(fixture: &Fixture, there: bool) {
    let found = semring::list()
        .iter()
        .filter(|info| info.name.starts_with(fixture.guard.name()))
        .count();
    assert_eq!(found, if there { 2 } else { 0 });
}

over_each_backend! {
    fn both_ends_send_and_receive(fixture) {
        let (mut server, mut client) = ends(&pair(&fixture.address));
        for round in 0..1000u32 {
            client.send(&round.to_le_bytes()).unwrap();
            assert_eq!(server.recv().unwrap().to_vec(), round.to_le_bytes());
            server.send(&(round + 1).to_le_bytes()).unwrap();
            assert_eq!(client.recv().unwrap().to_vec(), (round + 1).to_le_bytes());
        }
        assert_eq!(client.try_recv().err(), Some(RecvError::Empty));
        assert_eq!(client.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        assert_eq!(client.max_message_bytes(), 1024);
    }

    fn the_end_of_one_is_the_end_for_the_other_and_stays_so(fixture) {
        let (mut server, mut client) = ends(&pair(&fixture.address));
        client.send(b"last words").unwrap();
        drop(client);
        assert_eq!(server.recv().unwrap().to_vec(), b"last words");
        for _ in 0..3 {
            assert!(matches!(server.recv().err(), Some(RecvError::EndOfStream { .. })));
            assert!(matches!(server.try_recv().err(), Some(RecvError::EndOfStream { .. })));
        }
        assert_eq!(send_until_refused(&mut server), SendError::ConsumerGone);
    }

    fn each_direction_is_closed_by_itself(fixture) {
        let (mut server, client) = ends(&pair(&fixture.address));
        let mut receiver = client.close_sending();
        assert!(matches!(server.recv().err(), Some(RecvError::EndOfStream { .. })));
        server.send(b"still received").unwrap();
        assert_eq!(receiver.recv().unwrap().to_vec(), b"still received");
        let mut sender = server.close_receiving();
        sender.send(b"and again").unwrap();
        assert_eq!(receiver.recv().unwrap().to_vec(), b"and again");
        receiver.close();
        let refused = std::iter::repeat_with(|| sender.try_send(&[0; 100])).find_map(Result::err);
        assert_eq!(refused, Some(SendError::Closed));
        drop(sender);
        names_are_there(&fixture, false);
    }

    fn halves_work_in_two_threads(fixture) {
        let (mut server, client) = ends(&pair(&fixture.address));
        let (mut sender, mut receiver) = client.split();
        thread::scope(|scope| {
            scope.spawn(move || loop {
                let message = match server.recv() {
                    Ok(message) => message.to_vec(),
                    Err(RecvError::EndOfStream { .. }) => break,
                    Err(error) => panic!("{error}"),
                };
                server.send(&message).unwrap();
            });
            scope.spawn(move || (0..2000u32).for_each(|number| {
                sender.send(&number.to_le_bytes().repeat(20)).unwrap();
            }));
            for number in 0..2000u32 {
                assert_eq!(receiver.recv().unwrap().to_vec(), number.to_le_bytes().repeat(20));
            }
            assert!(matches!(receiver.recv().err(), Some(RecvError::EndOfStream { .. })));
        });
    }

    fn an_end_is_taken_once(fixture) {
        let pair = pair(&fixture.address);
        let (server, client) = ends(&pair);
        let ours = std::process::id();
        for end in [pair.server_end(), pair.client_end()] {
            assert!(matches!(end, Err(EndError::Taken { pid }) if pid == ours), "{end:?}");
        }
        // Also by its sending half alone.
        let sender = server.close_receiving();
        assert!(matches!(pair.server_end(), Err(EndError::Taken { .. })));
        drop(sender);
        for _ in 0..2 {
            let end = pair.server_end();
            assert!(matches!(end, Err(EndError::Spent)), "{end:?}");
        }
        drop(client);
    }

    fn late_end_finds_messages_and_a_broken_pipe(fixture) {
        let pair = pair(&fixture.address);
        let mut server = pair.server_end().unwrap();
        server.send(b"too late").unwrap();
        drop(server);
        let mut client = pair.client_end().unwrap();
        assert_eq!(send_until_refused(&mut client), SendError::ConsumerGone);
        assert_eq!(client.recv().unwrap().to_vec(), b"too late");
        assert!(matches!(client.recv().err(), Some(RecvError::EndOfStream { .. })));
    }

    fn first_end_waits_for_the_other(fixture) {
        let pair = pair(&fixture.address);
        let mut client = pair.client_end().unwrap();
        client.send(b"early").unwrap();
        assert_eq!(client.recv_deadline(SOON).err(), Some(RecvError::TimedOut));
        assert_eq!(send_until_refused(&mut client), SendError::Full);
        let mut server = pair.server_end().unwrap();
        assert_eq!(server.recv().unwrap().to_vec(), b"early");
    }

    fn the_last_end_takes_the_names_away(fixture) {
        let pair = pair(&fixture.address);
        names_are_there(&fixture, true);
        let (server, client) = ends(&pair);
        drop(client);
        names_are_there(&fixture, true);
        drop(server);
        names_are_there(&fixture, false);
        fixture.guard.assert_clean();
    }

    fn a_pair_whose_other_end_never_came_stays(fixture) {
        let mut server = pair(&fixture.address).server_end().unwrap();
        server.send(b"for any client").unwrap();
        drop(server);
        names_are_there(&fixture, true);
        let opened = rings::pair(&fixture.address).open().unwrap();
        let mut client = opened.client_end().unwrap();
        assert_eq!(client.recv().unwrap().to_vec(), b"for any client");
        drop(client);
        names_are_there(&fixture, false);
    }

    fn creating_replaces_what_is_over_and_nothing_else(fixture) {
        let exists = || {
            let created = rings::pair(&fixture.address).create();
            assert!(matches!(created, Err(CreateError::Exists { .. })), "{created:?}");
        };
        let first = pair(&fixture.address);
        exists(); // it was never used
        let server = first.server_end().unwrap();
        exists(); // a process holds an end
        drop(server);
        let second = pair(&fixture.address);
        assert_ne!(first.to_server().info().unwrap().uuid, second.to_server().info().unwrap().uuid);
        assert!(matches!(first.client_end(), Err(EndError::Attach(_))), "it was removed");
        let (server, mut client) = ends(&second);
        client.send(b"x").unwrap();
        drop((server, client));
        names_are_there(&fixture, false);
        let third = rings::pair(&fixture.address).open_or_create().unwrap();
        let same = rings::pair(&fixture.address).open_or_create().unwrap();
        assert_eq!(third.to_client().info().unwrap().uuid, same.to_client().info().unwrap().uuid);
        third.remove().unwrap();
        fixture.guard.assert_clean();
    }

    fn opener_completes_half_a_pair(fixture) {
        let up = rings::spsc(format!("{}.up", fixture.address)).capacity(CAPACITY);
        let up = up.mode(0o640).create().unwrap();
        let pairs: Vec<Pair> = thread::scope(|scope| {
            let opening: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| rings::pair(&fixture.address).open().unwrap()))
                .collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        fixture.guard.objects();
        let downs: Vec<_> = pairs.iter().map(|pair| pair.to_client().info().unwrap()).collect();
        for down in &downs {
            assert_eq!((&down.uuid, down.mode), (&downs[0].uuid, 0o640));
            assert_eq!(down.capacity_bytes, CAPACITY);
        }
        let mut server = pairs[0].server_end().unwrap();
        let mut client = pairs[3].client_end().unwrap();
        client.send(b"whole").unwrap();
        assert_eq!(server.recv().unwrap().to_vec(), b"whole");
        drop((server, client, up));
        names_are_there(&fixture, false);
    }

    fn creating_replaces_half_a_pair(fixture) {
        let up = rings::spsc(format!("{}.up", fixture.address)).capacity(CAPACITY);
        let half = up.create().unwrap();
        let pair = pair(&fixture.address);
        fixture.guard.objects();
        assert!(matches!(half.attach_producer(), Err(AttachError::Removed)));
        pair.remove().unwrap();
        fixture.guard.assert_clean();
    }

    fn a_name_that_only_one_of_the_rings_can_have_is_refused(fixture) {
        let padding = "x".repeat(185 - fixture.guard.name().len());
        let builder = rings::pair(format!("{}{padding}", fixture.address)).capacity(CAPACITY);
        let refused = builder.create().unwrap_err();
        assert!(matches!(refused, CreateError::Address(AddressError::BadName { .. })), "{refused}");
        let refused = builder.open_or_create().unwrap_err();
        assert!(refused.to_string().contains("178"), "{refused}");
        fixture.guard.assert_clean();
    }

    fn an_unused_pair_is_pruned_whole_or_not_at_all(fixture) {
        let orphans = || {
            let mut found = semring::orphans();
            found.retain(|leftover| leftover.name().contains(fixture.guard.name()));
            found
        };
        // It was made by `create`.
        let pair = pair(&fixture.address);
        fixture.guard.objects();
        assert!(orphans().is_empty(), "{:?}", orphans());
        pair.remove().unwrap();
        let ring = rings::spsc(&fixture.address).capacity(CAPACITY).auto_remove(true);
        let pair = Builder::from(ring).create().unwrap();
        fixture.guard.objects();
                let found = orphans();
        assert_eq!(found.iter().map(semring::Orphan::name).collect::<Vec<_>>(), [fixture.address.as_str()]);
        // One message in the second ring keeps both.
        pair.to_client().attach_producer().unwrap().send(b"kept").unwrap();
        assert_eq!(found[0].remove(Unread::Keep).unwrap(), semring::PruneOutcome::Unread { messages: 1 });
        names_are_there(&fixture, true);
        let consumer = pair.to_client().attach_consumer().unwrap();
        assert!(orphans().is_empty(), "{:?}", orphans());
        assert_eq!(found[0].remove(Unread::Discard).unwrap(), semring::PruneOutcome::InUse);
        drop(consumer);
        assert_eq!(orphans()[0].unread_messages(), 1);
        assert_eq!(orphans()[0].remove(Unread::Discard).unwrap(), semring::PruneOutcome::Removed);
        fixture.guard.assert_clean();
    }

    fn removing_spares_a_pair_in_use_unless_forced(fixture) {
        let pair = pair(&fixture.address);
        let address = fixture.address.parse::<semring::Address>().unwrap();
        let mut client = pair.client_end().unwrap();
        for refused in [pair.remove(), duplex::remove(&address)] {
            assert!(matches!(refused, Err(RemoveError::InUse { .. })), "{refused:?}");
        }
        client.send(b"as before").unwrap();
        duplex::force_remove(&address).unwrap();
        assert_eq!(client.recv().err(), Some(RecvError::Removed));
        assert!(matches!(duplex::force_remove(&address), Err(RemoveError::Open(OpenError::NotFound { .. }))));
        let opened = rings::pair(&fixture.address).open();
        assert!(matches!(opened, Err(OpenOrCreateError::Open(OpenError::NotFound { .. }))));
        fixture.guard.assert_clean();
    }

    fn an_end_that_waits_for_room_gives_its_own_back(fixture) {
        let (mut server, mut client) = ends(&pair(&fixture.address));
        // 128 bytes each with its header: a lap holds a whole number of them, without padding.
        const BYTES: [u8; 120] = [7; 120];
        while client.try_send(&BYTES).is_ok() {}
        while server.try_send(&BYTES).is_ok() {}
        // Less than a quarter lap: received, and not yet given back.
        server.recv().unwrap().release();
        assert_eq!(client.try_send(&BYTES), Err(SendError::Full));
        thread::scope(|scope| {
            let blocked = scope.spawn(move || server.send(&BYTES).map(|()| server));
            assert_eq!(client.send_deadline(&BYTES, LONG), Ok(()));
            client.recv().unwrap().release();
            client.consumer().flush_released().unwrap();
            drop(blocked.join().unwrap().unwrap());
        });
    }
}

#[test]
fn memory_without_names_and_files_make_pairs() {
    let path = std::env::temp_dir().join(semring_testkit::names::unique("pair"));
    let file = format!("file:{}", path.display());
    for builder in [
        rings::pair("memfd:"),
        rings::pair("anonymous:"),
        rings::pair("memfd:labelled"),
        rings::pair(&file),
    ] {
        let (mut server, mut client) = ends(&builder.capacity(CAPACITY).create().unwrap());
        client.send(b"there").unwrap();
        server.send(b"back").unwrap();
        assert_eq!(server.recv().unwrap().to_vec(), b"there");
        assert_eq!(client.recv().unwrap().to_vec(), b"back");
    }
    let folder = std::fs::read_dir(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let left: Vec<_> = folder
        .map(|entry| entry.unwrap().file_name())
        .filter(|entry| entry.to_string_lossy().starts_with(&name))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn addresses_unfit_for_a_pair_are_refused() {
    for (address, reason) in [
        ("sysv:0x5eed0001", "a pair is two"),
        ("sysv:/etc/passwd#1", "a pair is two"),
        ("fd:7", "Pair::of"),
        (&"x".repeat(179), "longer than 178"),
        (&format!("sysv:{}", "x".repeat(200)), "longer than 178"),
        (&format!("file:/tmp/{}", "x".repeat(234)), "longer than 233"),
    ] {
        let refused = rings::pair(address).create().map(drop).unwrap_err();
        let is_address = matches!(refused, CreateError::Address(AddressError::BadName { .. }));
        assert!(
            is_address && refused.to_string().contains(reason),
            "{refused}"
        );
        let refused = rings::pair(address).open().map(drop).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
}
