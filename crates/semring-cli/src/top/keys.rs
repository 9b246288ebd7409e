//! Keys of the terminal, read from stdin by this program itself.
//!
//! The event source of crossterm reads for ever where the terminal is gone: its read returns 0 bytes, which
//! it takes for "nothing yet".

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

/// The action of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Quit,
    Stop,
    Up,
    Down,
    Help,
}

/// How long the rest of an escape sequence may take: 50 ms, as in most terminal programs.
const SEQUENCE: Duration = Duration::from_millis(50);

/// The actions of the keys pressed within this time; empty if there were none.
///
/// # Errors
/// `EIO` if the terminal is gone.
pub(super) fn wait_for_keys(time: Duration) -> io::Result<Vec<Wish>> {
    let mut bytes = read_within(time)?;
    if bytes.last() == Some(&ESCAPE) {
        bytes.extend(read_within(SEQUENCE)?);
    }
    Ok(wishes(&bytes))
}

/// The bytes that can be read within this time, at most one block.
fn read_within(time: Duration) -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    // Rounded up: a wait of less than a millisecond must not become a loop.
    let millis = time.as_nanos().div_ceil(1_000_000);
    let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut block = [0; 256];
    match read(stdin.as_fd(), &mut block) {
        Ok(0) => Err(Errno::EIO.into()),
        Ok(count) => Ok(block[..count].to_vec()),
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

const ESCAPE: u8 = 0x1b;

fn wishes(bytes: &[u8]) -> Vec<Wish> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'q' | b'Q' | CONTROL_C | CONTROL_D => found.push(Wish::Quit),
            CONTROL_Z => found.push(Wish::Stop),
            b'k' => found.push(Wish::Up),
            b'j' => found.push(Wish::Down),
            b'?' | b'h' => found.push(Wish::Help),
            ESCAPE => match rest {
                // Control sequences end with a byte from `@` on, those of the function keys with the next byte.
                [b'[', sequence @ ..] => {
                    let len = sequence.iter().position(|byte| (0x40..0x7f).contains(byte));
                    let end = len.map_or(sequence.len(), |at| at + 1);
                    if end == 1 {
                        found.extend(arrow(sequence[0]));
                    }
                    rest = &sequence[end..];
                }
                [b'O', key, after @ ..] => {
                    found.extend(arrow(*key));
                    rest = after;
                }
                [] => found.push(Wish::Quit),
                // A key with Alt.
                [_, after @ ..] => rest = after,
            },
            _ => {}
        }
    }
    found
}

const CONTROL_C: u8 = 0x03;
const CONTROL_D: u8 = 0x04;
const CONTROL_Z: u8 = 0x1a;

fn arrow(key: u8) -> Option<Wish> {
    match key {
        b'A' => Some(Wish::Up),
        b'B' => Some(Wish::Down),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_escape_sequences() {
        use Wish::{Down, Help, Quit, Stop, Up};
        let cases: [(&[u8], &[Wish]); 12] = [
            (b"q", &[Quit]),
            (b"\x03", &[Quit]),
            (b"\x1b", &[Quit]),
            (b"\x1a", &[Stop]),
            (b"jk", &[Down, Up]),
            (b"?h", &[Help, Help]),
            (b"\x1b[A\x1b[B", &[Up, Down]),
            (b"\x1bOA\x1bOB", &[Up, Down]),
            // Page up, Ctrl with an arrow, a mouse, Alt with q, a letter without a meaning.
            (b"\x1b[5~", &[]),
            (b"\x1b[1;5A", &[]),
            (b"\x1bqx", &[]),
            (b"\x1b[", &[]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(wishes(bytes), expected, "{bytes:?}");
        }
    }
}
