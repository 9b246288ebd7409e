//! Arbitrary numbers that a seed repeats.

use std::time::Duration;

/// A random number generator; each process has its own.
pub struct Random(u64);

impl Random {
    /// With this seed, and the number of its user.
    pub fn new(seed: u64, of: u64) -> Random {
        let mut mixed = seed ^ of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 31;
        mixed = mixed.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Random((mixed ^ (mixed >> 29)) | 1)
    }

    /// A number of 64 bits.
    pub fn next(&mut self) -> u64 {
        // Xorshift, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 ^ (self.0 >> 11)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    /// True once in this many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of them.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Lets some time pass, at most so much: it makes moments arbitrary and synchronises nothing.
    pub fn pass(&mut self, at_most: Duration) {
        std::thread::sleep(Duration::from_nanos(
            self.below(at_most.as_nanos() as u64 + 1),
        ));
    }

    /// A length for a message from 8 to `max` bytes: mostly short ones.
    pub fn length(&mut self, max: usize) -> usize {
        let max = match self.below(100) {
            0..70 => max.min(200),
            70..97 => max.min(2000),
            _ => max,
        };
        8 + self.below(max as u64 - 7) as usize
    }
}
