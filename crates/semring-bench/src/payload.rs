//! The content of a message: its number and its sender, in every word.

use std::hint::black_box;

/// The word that fills message `number` of a sender.
#[must_use]
pub fn word(sender: u64, number: u64) -> u64 {
    sender << 48 | number
}

/// The sender and the number of a message with this word.
pub(crate) fn origin(word: u64) -> (u64, u64) {
    (word >> 48, word & ((1 << 48) - 1))
}

/// A word of a message: a number where messages are of a type, bytes where they are bytes.
pub trait Word: Copy {
    /// The word of this value.
    fn of(value: u64) -> Self;
    /// Its value.
    fn value(self) -> u64;
}

impl Word for u64 {
    #[inline(always)]
    fn of(value: u64) -> Self {
        value
    }

    #[inline(always)]
    fn value(self) -> u64 {
        self
    }
}

impl Word for [u8; 8] {
    #[inline(always)]
    fn of(value: u64) -> Self {
        value.to_le_bytes()
    }

    #[inline(always)]
    fn value(self) -> u64 {
        u64::from_le_bytes(self)
    }
}

/// Sets every word to this one.
#[inline(always)]
pub fn fill<W: Word>(words: &mut [W], word: u64) {
    words.fill(W::of(word));
}

/// True if every word is this one. All words are read.
#[inline(always)]
#[must_use]
pub fn check<W: Word>(words: &[W], word: u64) -> bool {
    let differing = words
        .iter()
        .fold(0, |bits, found| bits | (found.value() ^ word));
    black_box(differing) == 0
}

/// Fills a message so that each word of each message is different. Slower than [`fill`].
pub(crate) fn scramble<W: Word>(words: &mut [W], number: u64) {
    for (index, word) in words.iter_mut().enumerate() {
        *word = W::of(scrambled(index, number));
    }
}

/// True if [`scramble`] has filled all these words.
pub(crate) fn is_scrambled<W: Word>(words: &[W], number: u64) -> bool {
    let mut words = words.iter().enumerate();
    words.all(|(index, word)| word.value() == scrambled(index, number))
}

fn scrambled(index: usize, number: u64) -> u64 {
    (number ^ (index as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A message in memory of one process.
///
/// The length of an array is known at compile time, like that of a message with a type; the length of a
/// vector is known at run time. For small messages the difference is large: a copy of known length is a few
/// instructions, any other copy is a call. So ways that are compared get the same kind of message.
pub trait Message: Sized {
    /// The type of its words.
    type Word: Word;

    /// A message of this length, filled with zeroes. An array ignores `bytes`.
    fn zeroes(bytes: usize) -> Self;

    /// All words.
    fn words(&self) -> &[Self::Word];

    /// All words, mutable.
    fn words_mut(&mut self) -> &mut [Self::Word];

    /// `words`, if there are as many as in this message. For an array the compiler then has their number
    /// as a constant, too.
    #[inline(always)]
    fn as_many<'a, W>(&self, words: &'a [W]) -> Option<&'a [W]> {
        let count = self.words().len();
        (words.len() == count).then(|| &words[..count])
    }

    /// As [`as_many`](Self::as_many), mutable.
    #[inline(always)]
    fn as_many_mut<'a, W>(&self, words: &'a mut [W]) -> Option<&'a mut [W]> {
        let count = self.words().len();
        (words.len() == count).then(|| &mut words[..count])
    }

    /// The first word.
    #[inline(always)]
    fn first(&self) -> u64 {
        self.words().first().map_or(0, |word| word.value())
    }
}

impl<W: Word, const N: usize> Message for [W; N] {
    type Word = W;

    #[inline(always)]
    fn zeroes(_: usize) -> Self {
        [W::of(0); N]
    }

    #[inline(always)]
    fn words(&self) -> &[W] {
        self
    }

    #[inline(always)]
    fn words_mut(&mut self) -> &mut [W] {
        self
    }
}

/// For queues whose messages are rows of words, because they do not accept long arrays.
impl<W: Word, const ROW: usize, const ROWS: usize> Message for [[W; ROW]; ROWS] {
    type Word = W;

    #[inline(always)]
    fn zeroes(_: usize) -> Self {
        [[W::of(0); ROW]; ROWS]
    }

    #[inline(always)]
    fn words(&self) -> &[W] {
        self.as_flattened()
    }

    #[inline(always)]
    fn words_mut(&mut self) -> &mut [W] {
        self.as_flattened_mut()
    }
}

impl<W: Word> Message for Vec<W> {
    type Word = W;

    fn zeroes(bytes: usize) -> Self {
        vec![W::of(0); bytes / 8]
    }

    #[inline(always)]
    fn words(&self) -> &[W] {
        self
    }

    #[inline(always)]
    fn words_mut(&mut self) -> &mut [W] {
        self
    }
}

/// A message for ways that carry bytes.
pub trait Bytes: Message<Word = [u8; 8]> {
    /// All bytes.
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self.words().as_flattened()
    }

    /// All bytes, mutable.
    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.words_mut().as_flattened_mut()
    }
}

impl<M: Message<Word = [u8; 8]>> Bytes for M {}

/// Expands another macro with the tokens in braces, followed by the sizes for which messages are arrays, as
/// `bytes => words`.
#[macro_export]
macro_rules! usual_sizes {
    ($then:ident! { $($with:tt)* }) => {
        $then! {
            { $($with)* }
            8 => 1,
            16 => 2,
            32 => 4,
            48 => 6,
            64 => 8,
            128 => 16,
            256 => 32,
            512 => 64,
            1024 => 128,
            2048 => 256,
            4096 => 512,
            16384 => 2048,
            65536 => 8192,
        }
    };
}

pub(crate) use usual_sizes;

#[cfg(test)]
mod tests {
    use super::*;

    fn detects_a_wrong_byte<M: Bytes>() {
        let mut message = M::zeroes(64);
        assert_eq!(message.bytes().len(), 64);
        fill(message.words_mut(), word(3, 7));
        assert!(check(message.words(), word(3, 7)) && !check(message.words(), word(3, 8)));
        assert_eq!(origin(message.first()), (3, 7));
        message.bytes_mut()[63] ^= 1;
        assert!(!check(message.words(), word(3, 7)));
    }

    #[test]
    fn a_wrong_byte_is_detected() {
        detects_a_wrong_byte::<[[u8; 8]; 8]>();
        detects_a_wrong_byte::<Vec<[u8; 8]>>();
        assert!(check(&[7u64; 9], 7) && !check(&[7u64, 7, 6], 7));
    }

    #[test]
    fn words_of_another_number_are_refused() {
        let (array, vector) = ([0u64; 2], Vec::<u64>::zeroes(16));
        for words in 1..4 {
            let place = &mut [0u64; 4][..words];
            assert_eq!(array.as_many(place).is_some(), words == 2);
            assert_eq!(vector.as_many(place).is_some(), words == 2);
            assert_eq!(array.as_many_mut(place).is_some(), words == 2);
            assert_eq!(vector.as_many_mut(place).is_some(), words == 2);
        }
    }
}
