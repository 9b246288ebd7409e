//! Cutting a byte stream into messages, and putting messages together to a stream.

use memchr::memchr;

/// What the bytes of stdin or stdout mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// A newline behind each message.
    Lines,
    /// A NUL behind each message.
    Null,
    /// A little-endian u32 before each message: its length.
    LengthPrefixed,
    /// Nothing between messages.
    Raw,
}

/// True for a message that was the last of its input and had no delimiter behind it. The consumer puts
/// one there only if another message follows.
fn is_unterminated(framing: semring::Framing) -> bool {
    use semring::Framing::{LineWithoutEnd, NulWithoutEnd};
    matches!(framing, LineWithoutEnd | NulWithoutEnd)
}

/// Bytes of the length before a length-prefixed message.
pub(crate) const PREFIX_BYTES: usize = 4;

impl Framing {
    /// The byte behind each message.
    pub(crate) fn delimiter(self) -> Option<u8> {
        match self {
            Self::Lines => Some(b'\n'),
            Self::Null => Some(0),
            Self::LengthPrefixed | Self::Raw => None,
        }
    }

    /// What a person calls a message.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::Null | Self::LengthPrefixed => "message",
            Self::Raw => "chunk",
        }
    }
}

/// Why a stream can't be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CutError {
    /// A message is longer than the ring takes; its length, if it is known.
    TooLong { bytes: Option<u64> },
    /// The stream ended inside a length-prefixed message.
    Truncated { has: u64, wants: u64 },
}

/// A message and where it ends in the stream: a range of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where the next one begins.
    pub(crate) next: usize,
}

/// Cuts lines, NUL-ended or length-prefixed messages out of a buffer that is filled from behind.
#[derive(Debug)]
pub(crate) struct Cutter {
    framing: Framing,
    max_message: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No delimiter before this.
    searched: usize,
}

impl Cutter {
    /// Reads are at least this long when the buffer has been used up.
    const READ_BYTES: usize = 256 << 10;

    pub(crate) fn new(framing: Framing, max_message: usize) -> Self {
        let buffer = vec![0; Self::READ_BYTES];
        Self {
            framing,
            max_message,
            buffer,
            start: 0,
            end: 0,
            searched: 0,
        }
    }

    /// Room for what comes next.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end, self.searched) = (0, 0, 0);
        }
        if self.buffer.len() - self.end < Self::READ_BYTES / 4 {
            // The beginning of a message: to the front with it, and if that is not enough, more room.
            // It never grows much beyond the longest message: `next` refuses a longer one first.
            self.buffer.copy_within(self.start..self.end, 0);
            self.searched -= self.start;
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() - self.end < Self::READ_BYTES / 2 {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were put into the room.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The next complete message; the cutter stays in front of it until [`step_over`](Self::step_over).
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, CutError> {
        let start = self.start;
        let Some(delimiter) = self.framing.delimiter() else {
            return self.next_prefixed();
        };
        match memchr(delimiter, &self.buffer[self.searched..self.end]) {
            Some(at) => {
                let end = self.searched + at;
                self.check(end - start, true)?;
                Ok(Some(Piece {
                    start,
                    end,
                    next: end + 1,
                }))
            }
            None => {
                self.searched = self.end;
                self.check(self.end - start, false)?;
                Ok(None)
            }
        }
    }

    fn next_prefixed(&mut self) -> Result<Option<Piece>, CutError> {
        let Some((len, start)) = self.prefix() else {
            return Ok(None);
        };
        self.check(len, true)?;
        let end = start + len;
        Ok((end <= self.end).then_some(Piece {
            start,
            end,
            next: end,
        }))
    }

    /// A length, and where its message begins.
    fn prefix(&self) -> Option<(usize, usize)> {
        let (prefix, _) = self.buffer[self.start..self.end].split_first_chunk::<PREFIX_BYTES>()?;
        Some((
            u32::from_le_bytes(*prefix) as usize,
            self.start + PREFIX_BYTES,
        ))
    }

    fn check(&self, len: usize, complete: bool) -> Result<(), CutError> {
        if len <= self.max_message {
            return Ok(());
        }
        Err(CutError::TooLong {
            bytes: complete.then_some(len as u64),
        })
    }

    /// The bytes of a piece.
    #[inline]
    pub(crate) fn bytes(&self, piece: Piece) -> &[u8] {
        &self.buffer[piece.start..piece.end]
    }

    /// Bytes of the input that a piece takes, with what stands before and after it.
    #[inline]
    pub(crate) fn input_bytes(&self, piece: Piece) -> usize {
        piece.next - self.start
    }

    /// Done with this piece.
    #[inline]
    pub(crate) fn step_over(&mut self, piece: Piece) {
        self.start = piece.next;
        self.searched = piece.next;
    }

    /// At the end of the input: what is left, a message without its delimiter.
    pub(crate) fn rest(&self) -> Result<Option<Piece>, CutError> {
        if self.start == self.end {
            return Ok(None);
        }
        if self.framing.delimiter().is_some() {
            return Ok(Some(Piece {
                start: self.start,
                end: self.end,
                next: self.end,
            }));
        }
        let has = (self.end - self.start) as u64;
        let wants = self.prefix().map_or(0, |(len, _)| len as u64) + PREFIX_BYTES as u64;
        Err(CutError::Truncated { has, wants })
    }

    /// Complete messages that are still there. Steps over them.
    pub(crate) fn count_complete(&mut self) -> u64 {
        let mut count = 0;
        while let Ok(Some(piece)) = self.next() {
            self.step_over(piece);
            count += 1;
        }
        count
    }

    /// Bytes that are still there.
    pub(crate) fn left_over(&self) -> usize {
        self.end - self.start
    }
}

/// What stands around messages in the output.
#[derive(Debug)]
pub(crate) struct Joiner {
    framing: Framing,
    /// The last message was unterminated: its delimiter is due if another one follows.
    owes_delimiter: bool,
}

impl Joiner {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            owes_delimiter: false,
        }
    }

    /// Puts down what goes before a message of so many bytes.
    #[inline]
    pub(crate) fn before(&mut self, len: usize, output: &mut Vec<u8>) {
        if self.framing == Framing::LengthPrefixed {
            // A message is at most 1 GiB.
            output.extend_from_slice(&(len as u32).to_le_bytes());
        } else if self.owes_delimiter {
            output.extend(self.framing.delimiter());
        }
    }

    /// Puts down what goes behind a message with this framing.
    #[inline]
    pub(crate) fn after(&mut self, framing: semring::Framing, output: &mut Vec<u8>) {
        self.owes_delimiter = is_unterminated(framing);
        if !self.owes_delimiter
            && let Some(delimiter) = self.framing.delimiter()
        {
            output.push(delimiter);
        }
    }

    /// How many bytes [`after`](Self::after) puts down for this framing.
    pub(crate) fn bytes_after(&self, framing: semring::Framing) -> usize {
        let terminated = !is_unterminated(framing);
        usize::from(terminated && self.framing.delimiter().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left at the end of the input.
    type Rest = Result<Option<Vec<u8>>, CutError>;

    /// Feeds a stream in steps of `step` bytes; gives the messages, the unterminated rest and how it
    /// ended.
    fn cut(framing: Framing, max: usize, stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Rest) {
        let mut cutter = Cutter::new(framing, max);
        let mut messages = Vec::new();
        for chunk in stream.chunks(step) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let room = cutter.room();
                let fits = room.len().min(rest.len());
                room[..fits].copy_from_slice(&rest[..fits]);
                cutter.filled(fits);
                rest = &rest[fits..];
                loop {
                    match cutter.next() {
                        Ok(Some(piece)) => {
                            messages.push(cutter.bytes(piece).to_vec());
                            cutter.step_over(piece);
                        }
                        Ok(None) => break,
                        Err(error) => return (messages, Err(error)),
                    }
                }
            }
        }
        let rest = cutter
            .rest()
            .map(|rest| rest.map(|piece| cutter.bytes(piece).to_vec()));
        (messages, rest)
    }

    #[test]
    fn lines_are_the_same_whatever_the_reads_were() {
        let stream = b"one\n\nthree\nlast";
        for step in 1..=stream.len() {
            let (messages, rest) = cut(Framing::Lines, 100, stream, step);
            assert_eq!(messages, [&b"one"[..], b"", b"three"], "step {step}");
            assert_eq!(rest, Ok(Some(b"last".to_vec())));
        }
        assert_eq!(
            cut(Framing::Null, 9, b"a\nb\0\0", 1),
            (vec![b"a\nb".to_vec(), vec![]], Ok(None))
        );
        assert_eq!(cut(Framing::Lines, 9, b"", 1), (vec![], Ok(None)));
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        for limit in [3, 5000, 600_000] {
            let mut stream = b"first\n"[6 - 3.min(limit)..].to_vec();
            stream.extend(vec![b'x'; limit]);
            stream.push(b'\n');
            let (messages, rest) = cut(Framing::Lines, limit, &stream, 65536);
            assert_eq!(
                (messages.len(), messages[1].len(), rest),
                (2, limit, Ok(None))
            );
            stream.insert(4, b'x');
            for step in [7, 65536] {
                let (messages, error) = cut(Framing::Lines, limit, &stream, step);
                assert_eq!(messages.len(), 1);
                assert!(matches!(error, Err(CutError::TooLong { .. })));
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused_before_it_fills_the_memory() {
        let mut cutter = Cutter::new(Framing::Lines, 1000);
        let room = cutter.room().len();
        cutter.filled(room);
        assert_eq!(cutter.next(), Err(CutError::TooLong { bytes: None }));
    }

    #[test]
    fn length_prefixes_are_read_and_checked() {
        let stream = [&[3, 0, 0, 0][..], b"abc", &[0; 4], &[1, 0, 0, 0], b"\n"].concat();
        for step in 1..=stream.len() {
            let (messages, rest) = cut(Framing::LengthPrefixed, 3, &stream, step);
            assert_eq!(
                (messages, rest),
                (vec![b"abc".to_vec(), vec![], b"\n".to_vec()], Ok(None))
            );
        }
        let (messages, error) = cut(Framing::LengthPrefixed, 9, &stream[..5], 9);
        assert_eq!(
            (messages.len(), error),
            (0, Err(CutError::Truncated { has: 5, wants: 7 }))
        );
        let (_, error) = cut(Framing::LengthPrefixed, 9, &[1, 0], 9);
        assert_eq!(error, Err(CutError::Truncated { has: 2, wants: 4 }));
        let (_, error) = cut(Framing::LengthPrefixed, 9, &[255; 4], 9);
        assert_eq!(
            error,
            Err(CutError::TooLong {
                bytes: Some(0xffff_ffff)
            })
        );
    }

    #[test]
    fn all_bytes_of_the_input_count() {
        for (framing, stream) in [
            (Framing::Lines, &b"\n\na\n\n"[..]),
            (Framing::LengthPrefixed, &[0, 0, 0, 0, 1, 0, 0, 0, 9]),
        ] {
            let mut cutter = Cutter::new(framing, 100);
            cutter.room()[..stream.len()].copy_from_slice(stream);
            cutter.filled(stream.len());
            let mut bytes = 0;
            while let Some(piece) = cutter.next().unwrap() {
                bytes += cutter.input_bytes(piece);
                cutter.step_over(piece);
            }
            assert_eq!(bytes, stream.len());
        }
    }

    #[test]
    fn what_was_cut_is_joined_to_the_same_stream() {
        for (framing, stream) in [
            (Framing::Lines, &b"a\n\nb"[..]),
            (Framing::Lines, b"a\n\n"),
            (Framing::Null, b"\0x"),
            (Framing::LengthPrefixed, &[2, 0, 0, 0, 1, 2, 0, 0, 0, 0]),
        ] {
            let (messages, rest) = cut(framing, 100, stream, 2);
            let mut joiner = Joiner::new(framing);
            let mut output = Vec::new();
            let rest = rest
                .unwrap()
                .map(|bytes| (bytes, semring::Framing::LineWithoutEnd));
            for (bytes, framing) in messages
                .into_iter()
                .map(|bytes| (bytes, semring::Framing::Line))
                .chain(rest)
            {
                joiner.before(bytes.len(), &mut output);
                output.extend(&bytes);
                joiner.after(framing, &mut output);
            }
            assert_eq!(output, stream);
        }
    }

    #[test]
    fn a_message_behind_an_unterminated_one_begins_a_line_of_its_own() {
        let mut joiner = Joiner::new(Framing::Lines);
        let mut output = Vec::new();
        use semring::Framing::{Line, LineWithoutEnd};
        for (bytes, framing) in [(b"x", LineWithoutEnd), (b"y", LineWithoutEnd), (b"z", Line)] {
            joiner.before(1, &mut output);
            output.extend(bytes);
            joiner.after(framing, &mut output);
        }
        assert_eq!(output, b"x\ny\nz\n");
    }
}
