//! Talking with the process of tests/support/peer.rs.

use semring_testkit::peer::Peer;

/// Gives a command and waits for the answer.
#[track_caller]
pub fn ask(peer: &mut Peer, command: &str) -> String {
    peer.say(command);
    answer(peer)
}

/// Waits for the answer to the last command.
#[track_caller]
pub fn answer(peer: &mut Peer) -> String {
    match peer.read_line() {
        Some(line) => line,
        None => panic!("the peer ended: {}", peer.kill()),
    }
}

/// Gives a command that must be answered by `ok`.
#[track_caller]
pub fn say_ok(peer: &mut Peer, command: &str) {
    let answer = ask(peer, command);
    assert_eq!(answer, "ok", "to {command}");
}
