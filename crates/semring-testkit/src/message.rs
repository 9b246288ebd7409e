//! Numbered, checksummed messages: the receiver can determine the sender, the number, and whether
//! any byte belongs to another message.
//!
//! ```text
//! 24 bytes and more                          8 to 23 bytes
//!  0 producer  u32 LE                         0 number    u32 LE
//!  4 length    u32 LE                         4 producer  u16 LE
//!  8 number    u64 LE                         6 check     u16 LE
//! 16 check     u64 LE                         8 fill
//! 24 fill
//! ```
//! The fill is a pseudo-random stream that depends on the producer, the number and the length: two
//! messages differ in every word, so a mixture of two messages is detected at any point. The check
//! covers every other byte and the length. The small form has 16 bits of it: enough against
//! mixtures (which the number and the fill show, too), not against chance in millions of damaged
//! messages.

use std::fmt;

/// The shortest message, in bytes.
pub const MIN_LEN: usize = 8;
/// From this length on, in bytes, a message has 32 bits of producer, 64 of number and 64 of check.
pub const FULL_LEN: usize = 24;

const SMALL_HEADER: usize = 8;

/// The sender and the number of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Numbered {
    /// The number of the producer, as the test gave it.
    pub producer: u32,
    /// The number of the message within its producer.
    pub number: u64,
}

/// How a message is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Shorter than [`MIN_LEN`]: nothing that [`encode`] makes.
    TooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// The length in the header is not the length of the message.
    Length {
        /// The length in the header, in bytes.
        said: usize,
        /// The length in bytes.
        is: usize,
    },
    /// The check does not match the bytes.
    Check {
        /// The contents of the header, which may be damaged itself.
        header: Numbered,
        /// The first byte of the fill that does not belong to `header`; none if all of them do, so
        /// that the header itself is damaged.
        first_wrong: Option<usize>,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::TooShort { len } => write!(f, "{len} bytes are too short for a message"),
            Damage::Length { said, is } => {
                write!(f, "the header has {said} bytes, the message has {is}")
            }
            Damage::Check {
                header,
                first_wrong: Some(at),
            } => write!(
                f,
                "byte {at} does not belong to message {} of producer {}",
                header.number, header.producer
            ),
            Damage::Check {
                header,
                first_wrong: None,
            } => write!(
                f,
                "the header (message {} of producer {}) is damaged",
                header.number, header.producer
            ),
        }
    }
}

impl std::error::Error for Damage {}

/// Replaces the contents of `out` by message `number` of `producer`, `len` bytes long.
///
/// # Panics
/// If `len` is below [`MIN_LEN`] or above `u32::MAX`, or if it is below [`FULL_LEN`] and the
/// producer needs more than 16 bits or the number more than 32.
///
/// ```
/// use semring_testkit::message::{decode, encode};
///
/// let mut message = Vec::new();
/// encode(3, 41, 100, &mut message);
/// assert_eq!(message.len(), 100);
/// assert_eq!(decode(&message).unwrap().number, 41);
/// message[60] ^= 1;
/// assert!(decode(&message).unwrap_err().to_string().contains("byte 60"));
/// ```
pub fn encode(producer: u32, number: u64, len: usize, out: &mut Vec<u8>) {
    assert!(len >= MIN_LEN, "a message has at least {MIN_LEN} bytes");
    let len_u32 = u32::try_from(len).expect("a message has less than 4 GiB");
    out.clear();
    out.resize(len, 0);
    let numbered = Numbered { producer, number };
    if len >= FULL_LEN {
        out[0..4].copy_from_slice(&producer.to_le_bytes());
        out[4..8].copy_from_slice(&len_u32.to_le_bytes());
        out[8..16].copy_from_slice(&number.to_le_bytes());
        fill(numbered, &mut out[FULL_LEN..], len);
        let check = checksum(numbered, len, &out[FULL_LEN..]);
        out[16..24].copy_from_slice(&check.to_le_bytes());
    } else {
        let short = u16::try_from(producer).expect("a short message has 16 bits of producer");
        let low = u32::try_from(number).expect("a short message has 32 bits of number");
        out[0..4].copy_from_slice(&low.to_le_bytes());
        out[4..6].copy_from_slice(&short.to_le_bytes());
        fill(numbered, &mut out[SMALL_HEADER..], len);
        let check = checksum(numbered, len, &out[SMALL_HEADER..]) as u16;
        out[6..8].copy_from_slice(&check.to_le_bytes());
    }
}

/// The sender and the number of a message, if every byte of it is as made by [`encode`].
///
/// # Errors
/// The kind and place of the damage.
pub fn decode(message: &[u8]) -> Result<Numbered, Damage> {
    let len = message.len();
    if len < MIN_LEN {
        return Err(Damage::TooShort { len });
    }
    let (header, body, said, is) = if len >= FULL_LEN {
        let header = Numbered {
            producer: u32::from_le_bytes(bytes(message, 0)),
            number: u64::from_le_bytes(bytes(message, 8)),
        };
        let said = u32::from_le_bytes(bytes(message, 4)) as usize;
        if said != len {
            return Err(Damage::Length { said, is: len });
        }
        let body = &message[FULL_LEN..];
        let check = u64::from_le_bytes(bytes(message, 16));
        (header, body, check, checksum(header, len, body))
    } else {
        let header = Numbered {
            producer: u32::from(u16::from_le_bytes(bytes(message, 4))),
            number: u64::from(u32::from_le_bytes(bytes(message, 0))),
        };
        let body = &message[SMALL_HEADER..];
        let check = u64::from(u16::from_le_bytes(bytes(message, 6)));
        (
            header,
            body,
            check,
            checksum(header, len, body) & u64::from(u16::MAX),
        )
    };
    if said == is {
        return Ok(header);
    }
    let mut right = vec![0; body.len()];
    fill(header, &mut right, len);
    let first_wrong = body
        .iter()
        .zip(&right)
        .position(|(a, b)| a != b)
        .map(|at| at + (len - body.len()));
    Err(Damage::Check {
        header,
        first_wrong,
    })
}

fn bytes<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    message[at..at + N].try_into().expect("N bytes are N bytes")
}

/// A step of a bijective mixer (multiply, shift): every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

fn seed(numbered: Numbered, len: usize) -> u64 {
    mix(mix(numbered.number ^ 0x5eed) ^ (u64::from(numbered.producer) << 32) ^ len as u64)
}

fn fill(numbered: Numbered, out: &mut [u8], len: usize) {
    let mut state = seed(numbered, len);
    for chunk in out.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
    }
}

fn checksum(numbered: Numbered, len: usize, body: &[u8]) -> u64 {
    let mut sum = seed(numbered, len) ^ 0xc4ec_5000;
    for chunk in body.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
    mix(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 12] = [8, 9, 15, 16, 23, 24, 25, 31, 32, 64, 1000, 4099];

    #[test]
    fn every_length_comes_back() {
        let mut message = Vec::new();
        for len in LENGTHS {
            for number in [0, 1, u64::from(u32::MAX)] {
                encode(65_535, number, len, &mut message);
                assert_eq!(message.len(), len);
                let header = decode(&message).unwrap();
                assert_eq!(
                    header,
                    Numbered {
                        producer: 65_535,
                        number
                    }
                );
            }
        }
        encode(u32::MAX, u64::MAX, FULL_LEN, &mut message);
        assert_eq!(decode(&message).unwrap().number, u64::MAX);
    }

    #[test]
    fn a_flipped_bit_is_seen_wherever_it_is() {
        let mut message = Vec::new();
        for len in [8, 13, 24, 57] {
            encode(7, 1234, len, &mut message);
            for at in 0..len {
                for bit in 0..8 {
                    message[at] ^= 1 << bit;
                    assert!(decode(&message).is_err(), "byte {at} of {len}, bit {bit}");
                    message[at] ^= 1 << bit;
                }
            }
            assert!(decode(&message).is_ok());
        }
    }

    #[test]
    fn mixed_message_is_found_with_its_seam() {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        encode(1, 100, 256, &mut old);
        encode(1, 101, 256, &mut new);
        // The first word, producer and length, is the same in both.
        for tear in (2..32).map(|word| word * 8) {
            let mut torn = new[..tear].to_vec();
            torn.extend_from_slice(&old[tear..]);
            let damage = decode(&torn).unwrap_err();
            if tear >= FULL_LEN {
                let header = Numbered {
                    producer: 1,
                    number: 101,
                };
                // A byte may be the same by chance: the first wrong one is close to the border
                // between the two.
                let Damage::Check {
                    header: h,
                    first_wrong: Some(at),
                } = damage
                else {
                    panic!("{damage:?}")
                };
                assert_eq!(h, header);
                assert!((tear..tear + 8).contains(&at), "{at} after {tear}");
            }
        }
    }

    #[test]
    fn a_cut_or_stretched_message_is_seen() {
        let mut message = Vec::new();
        encode(1, 2, 64, &mut message);
        assert_eq!(
            decode(&message[..40]),
            Err(Damage::Length { said: 64, is: 40 })
        );
        assert!(decode(&message[..16]).is_err());
        assert_eq!(decode(&message[..7]), Err(Damage::TooShort { len: 7 }));
        message.push(0);
        assert!(decode(&message).is_err());
    }

    #[test]
    #[should_panic(expected = "16 bits of producer")]
    fn a_short_message_refuses_a_producer_that_does_not_fit() {
        encode(65_536, 0, 8, &mut Vec::new());
    }

    #[test]
    fn zeros_are_not_a_message() {
        for len in LENGTHS {
            assert!(decode(&vec![0; len]).is_err(), "{len}");
        }
    }
}
