//! Messages as arrays, for queues whose messages are of a type.

use std::hint::black_box;

use semring_bench::{Result, Spec, wrong_length};

/// A message of so many words.
pub(crate) type Words<const N: usize> = [u64; N];

/// Calls what is generic over the number of words with that of a size.
macro_rules! by_size {
    ($size:expr, $function:ident($($argument:expr),*)) => {
        match $size {
            8 => $function::<1>($($argument),*),
            16 => $function::<2>($($argument),*),
            32 => $function::<4>($($argument),*),
            48 => $function::<6>($($argument),*),
            64 => $function::<8>($($argument),*),
            128 => $function::<16>($($argument),*),
            256 => $function::<32>($($argument),*),
            512 => $function::<64>($($argument),*),
            1024 => $function::<128>($($argument),*),
            2048 => $function::<256>($($argument),*),
            4096 => $function::<512>($($argument),*),
            16384 => $function::<2048>($($argument),*),
            65536 => $function::<8192>($($argument),*),
            other => Err(format!("not built for messages of {other} bytes").into()),
        }
    };
}
pub(crate) use by_size;

/// Why a size is not among those above.
pub(crate) fn unusual_size(spec: &Spec) -> Option<String> {
    fn usual<const N: usize>() -> Result<()> {
        Ok(())
    }
    let known: Result<()> = by_size!(spec.size, usual());
    known.err().map(|error| error.to_string())
}

/// From bytes.
#[inline]
pub(crate) fn copy_words(bytes: &[u8], words: &mut [u64]) -> Result<()> {
    if bytes.len() != 8 * words.len() {
        return Err(wrong_length(bytes.len(), 8 * words.len()));
    }
    for (to, from) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *to = u64::from_le_bytes(*from);
    }
    Ok(())
}

/// To bytes.
#[inline]
pub(crate) fn copy_bytes(words: &[u64], bytes: &mut [u8]) -> Result<()> {
    if bytes.len() != 8 * words.len() {
        return Err(wrong_length(8 * words.len(), bytes.len()));
    }
    for (to, from) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *to = from.to_le_bytes();
    }
    Ok(())
}

/// A message from bytes.
#[inline]
pub(crate) fn words<const N: usize>(bytes: &[u8]) -> Result<Words<N>> {
    let mut words = [0; N];
    copy_words(bytes, &mut words)?;
    Ok(words)
}

/// True if every word is this one. All are looked at.
#[inline]
pub(crate) fn all_are(words: &[u64], word: u64) -> bool {
    let differing = words.iter().fold(0, |bits, found| bits | (found ^ word));
    black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_words_and_bytes_again() {
        let bytes: Vec<u8> = (0..16).collect();
        let two: Words<2> = words(&bytes).expect("two words");
        let mut again = [0; 16];
        copy_bytes(&two, &mut again).expect("two words");
        assert_eq!(bytes, again);
        assert!(words::<3>(&bytes).is_err() && copy_bytes(&two, &mut [0; 8]).is_err());
    }

    #[test]
    fn one_wrong_word_shows() {
        assert!(all_are(&[7; 9], 7) && !all_are(&[7, 7, 6], 7));
    }
}
