//! Pairs of rings and calls between processes, one of which is killed.

use std::time::Duration;

use semring::{Address, RingState};
use semring_testkit::peer::Peer;

use crate::fixture::{Fixture, Random, SMALL, answer, ask, say_ok, setting};
use crate::rings;

over_both_backends! {
    calls_in_flight_between_processes_are_answered
    a_killed_server_ends_a_call_at_once
    a_killed_server_is_not_replaced_in_the_conversation
    a_killed_client_ends_the_server_at_once
    the_end_of_a_stopped_server_is_no_end
    a_pair_whose_users_were_killed_is_replaced
    pairs_of_killed_makers_are_whole_or_gone
    ends_change_hands_between_processes_that_make_and_remove
}

fn client(fixture: &Fixture) -> Peer {
    let mut peer = fixture.maker();
    say_ok(&mut peer, &format!("line open {}", fixture.address()));
    say_ok(&mut peer, "line call-end");
    peer
}

fn server(fixture: &Fixture) -> Peer {
    let mut peer = fixture.maker();
    say_ok(
        &mut peer,
        &format!("line create {} {SMALL}", fixture.address()),
    );
    say_ok(&mut peer, "line serve-end");
    peer
}

fn calls_in_flight_between_processes_are_answered(fixture: Fixture) {
    let mut server = server(&fixture);
    let mut client = client(&fixture);
    server.say("line serve");
    // Far more than both rings hold.
    say_ok(&mut client, "line calls 2000 200");
    say_ok(&mut client, "line drop");
    assert_eq!(answer(&mut server), "served 2000 EndOfStream");
    say_ok(&mut server, "line drop");
    fixture.finish_removed();
}

fn a_killed_server_ends_a_call_at_once(fixture: Fixture) {
    for takes_the_request in [false, true] {
        let mut server = server(&fixture);
        let mut client = client(&fixture);
        client.say("line call 100");
        if takes_the_request {
            assert_eq!(ask(&mut server, "line hold"), "ok 1");
        }
        client.wait_until_asleep_on_a_ring();
        server.kill();
        assert_eq!(answer(&mut client), "error PeerGone");
        // And it stays so.
        assert_eq!(ask(&mut client, "line call 100"), "error PeerGone");
        say_ok(&mut client, "line drop");
    }
    fixture.finish_removed();
}

fn a_killed_server_is_not_replaced_in_the_conversation(fixture: Fixture) {
    let mut first = server(&fixture);
    let mut client = client(&fixture);
    client.say("line call 100");
    assert_eq!(ask(&mut first, "line hold"), "ok 1");
    // As fast as possible: it waits until the kernel has ended the first one.
    let mut second = fixture.maker();
    say_ok(&mut second, &format!("line open {}", fixture.address()));
    first.signal(nix::sys::signal::Signal::SIGKILL);
    second.say("line serve-end");
    assert_eq!(answer(&mut client), "error PeerGone");
    let refused = answer(&mut second);
    assert!(
        ["error Spent", "error Taken"]
            .iter()
            .any(|no| refused.starts_with(no)),
        "{refused}"
    );
    first.kill();
    assert_eq!(ask(&mut second, "line serve-end"), "error Spent");
    let create = format!("line create {} {SMALL}", fixture.address());
    assert!(
        ask(&mut second, &create).starts_with("error Exists"),
        "the client is still there"
    );
    say_ok(&mut client, "line drop");
    say_ok(&mut second, &create);
    say_ok(&mut second, "line serve-end");
    say_ok(&mut client, &format!("line open {}", fixture.address()));
    say_ok(&mut client, "line call-end");
    second.say("line serve");
    say_ok(&mut client, "line call 100");
    say_ok(&mut client, "line drop");
    assert_eq!(answer(&mut second), "served 1 EndOfStream");
    say_ok(&mut second, "line drop");
    fixture.finish_removed();
}

fn a_killed_client_ends_the_server_at_once(fixture: Fixture) {
    let mut server = server(&fixture);
    let mut client = client(&fixture);
    server.say("line serve");
    say_ok(&mut client, "line call 100");
    server.wait_until_asleep_on_a_ring();
    client.kill();
    assert_eq!(answer(&mut server), "served 1 EndOfStream");
    say_ok(&mut server, "line drop");
    fixture.finish_removed();
}

fn the_end_of_a_stopped_server_is_no_end(fixture: Fixture) {
    let mut server = server(&fixture);
    let mut client = client(&fixture);
    server.say("line serve");
    server.stop();
    client.say("line call 100");
    client.wait_until_asleep_on_a_ring();
    server.cont();
    assert_eq!(answer(&mut client), "ok");
    drop((server, client));
    rings::pair(fixture.address())
        .create()
        .unwrap()
        .remove()
        .unwrap();
    fixture.finish_removed();
}

fn a_pair_whose_users_were_killed_is_replaced(fixture: Fixture) {
    let mut server = server(&fixture);
    let mut client = client(&fixture);
    server.kill();
    client.kill();
    let pair = rings::pair(fixture.address()).create().unwrap();
    assert!(pair.to_server().was_created());
    pair.remove().unwrap();
    fixture.finish_removed();
}

/// The rest of pairs with this name: their up rings, and their down rings.
fn left(fixture: &Fixture) -> (Vec<semring::RingInfo>, Vec<semring::RingInfo>) {
    semring::list()
        .into_iter()
        .filter(|info| info.name.starts_with(fixture.guard.name()))
        .partition(|info| info.name.ends_with(".up"))
}

fn pairs_of_killed_makers_are_whole_or_gone(fixture: Fixture) {
    let mut random = Random::new("makers that are killed");
    let address = fixture.address();
    for _ in 0..setting("SEMRING_KILLS", 100) {
        let mut maker = fixture.maker();
        maker.say(&format!("line churn {address} {SMALL} 1000000"));
        random.pass(Duration::from_millis(4));
        maker.kill();
        let pair = rings::pair(&address).open_or_create().unwrap();
        // A process that was killed while it took an end may have spent it; then the pair is over.
        let pair = match (pair.server_end(), pair.client_end()) {
            (Ok(mut server), Ok(mut client)) => {
                client.send(b"whole").unwrap();
                assert_eq!(server.recv().unwrap().to_vec(), b"whole");
                continue;
            }
            _ => rings::pair(&address).create().unwrap(),
        };
        let (mut server, mut client) = (pair.server_end().unwrap(), pair.client_end().unwrap());
        client.send(b"new").unwrap();
        assert_eq!(server.recv().unwrap().to_vec(), b"new");
    }
    let (ups, downs) = left(&fixture);
    assert!(ups.is_empty(), "{ups:?}");
    for down in downs {
        assert!(
            down.auto_remove && down.state == RingState::Idle,
            "{down:?}"
        );
        let address: Address = down.address.clone();
        semring::remove(&address).unwrap();
    }
    crate::fixture::prune_guards();
    fixture.guard.clean();
}

fn ends_change_hands_between_processes_that_make_and_remove(fixture: Fixture) {
    let mut peers: Vec<Peer> = (0..3).map(|_| fixture.maker()).collect();
    for peer in &mut peers {
        peer.say(&format!("line churn {} {SMALL} 300", fixture.address()));
    }
    for peer in &mut peers {
        let done = answer(peer);
        assert_eq!(done, "ok");
    }
    for peer in &mut peers {
        say_ok(peer, "line drop");
    }
    drop(peers);
    let (ups, downs) = left(&fixture);
    for up in ups.iter().chain(&downs) {
        assert_eq!(up.state, RingState::Idle, "{up:?}");
    }
    // A pair that was made and never used is taken by the next user.
    let pair = rings::pair(fixture.address()).open_or_create().unwrap();
    drop((pair.server_end(), pair.client_end()));
    drop(pair);
    let (ups, downs) = left(&fixture);
    assert!(ups.is_empty() && downs.is_empty(), "{ups:?} {downs:?}");
    fixture.guard.clean();
}
