//! Cutting a byte stream into messages, and putting messages together to a stream.

use std::fmt;

use memchr::memchr;
use semring::Tag;

use crate::args::LongLines;

/// The framing of stdin or stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// A newline after each message.
    Lines,
    /// A NUL after each message.
    Null,
    /// A little-endian u32 before each message: its length.
    LengthPrefixed,
    /// Nothing between messages, which are cut anywhere.
    Raw,
    /// Nothing between messages, each of which has this many bytes.
    Fixed(usize),
}

/// Bytes of the length before a length-prefixed message.
pub(crate) const PREFIX_BYTES: usize = 4;

impl Framing {
    /// The byte after each message.
    pub(crate) fn delimiter(self) -> Option<u8> {
        match self {
            Self::Lines => Some(b'\n'),
            Self::Null => Some(0),
            Self::LengthPrefixed | Self::Raw | Self::Fixed(_) => None,
        }
    }

    /// True if the output holds the payload and nothing else.
    pub(crate) fn is_bare(self) -> bool {
        matches!(self, Self::Raw | Self::Fixed(_))
    }

    /// The noun for a message in texts.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::Null | Self::LengthPrefixed => "message",
            Self::Raw => "chunk",
            Self::Fixed(_) => "record",
        }
    }

    /// The tag of a complete message.
    pub(crate) fn tag(self) -> Tag {
        Tag::default().with_framing(match self {
            Self::Lines => semring::Framing::Line,
            Self::Null => semring::Framing::Nul,
            Self::LengthPrefixed => semring::Framing::LengthPrefixed,
            Self::Raw => semring::Framing::Raw,
            Self::Fixed(_) => semring::Framing::Fixed,
        })
    }

    /// What a part carries that the next message of the lane goes on with.
    pub(crate) fn tag_of_part(self) -> Tag {
        match self {
            Self::Lines => Tag::default().with_framing(semring::Framing::LinePart),
            Self::Null => Tag::default().with_framing(semring::Framing::NulPart),
            _ => self.tag(),
        }
    }

    /// The tag of the last message of the input if no delimiter ended it.
    pub(crate) fn tag_without_end(self) -> Tag {
        match self {
            Self::Lines => Tag::default().with_framing(semring::Framing::LineWithoutEnd),
            Self::Null => Tag::default().with_framing(semring::Framing::NulWithoutEnd),
            _ => self.tag(),
        }
    }

    /// The framing in which a message of this length was sent; `None` if that is not stored.
    pub(crate) fn of(framing: semring::Framing, len: usize) -> Option<Self> {
        use semring::Framing as Sent;
        match framing {
            Sent::Line | Sent::LineWithoutEnd | Sent::LinePart => Some(Self::Lines),
            Sent::Nul | Sent::NulWithoutEnd | Sent::NulPart => Some(Self::Null),
            Sent::LengthPrefixed => Some(Self::LengthPrefixed),
            Sent::Raw => Some(Self::Raw),
            Sent::Fixed => Some(Self::Fixed(len)),
            _ => None,
        }
    }
}

/// The option that chooses it.
impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("--lines"),
            Self::Null => f.write_str("--null"),
            Self::LengthPrefixed => f.write_str("--length-prefixed"),
            Self::Raw => f.write_str("--raw"),
            Self::Fixed(bytes) => write!(f, "--fixed {bytes}"),
        }
    }
}

/// Why a stream can't be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CutError {
    /// A message is longer than the ring takes; its length, if it is known.
    TooLong { bytes: Option<u64> },
    /// The stream ended inside a length-prefixed message or a record.
    Truncated { has: u64, wants: u64 },
}

/// A message and where it ends in the stream: a range of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Where the next one begins.
    pub(crate) next: usize,
    /// The next piece goes on with the same line.
    pub(crate) is_part: bool,
    /// The rest of the line is left out, and whether its end is there.
    truncated: Option<bool>,
}

/// Cuts lines, NUL-ended or length-prefixed messages, or records out of a buffer that is filled at its end.
#[derive(Debug)]
pub(crate) struct Cutter {
    framing: Framing,
    max_message: usize,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// No delimiter before this.
    searched: usize,
    long_lines: LongLines,
    /// What follows up to the delimiter is left out.
    skips: bool,
    /// Lines of which the end is left out.
    pub(crate) truncated: u64,
}

impl Cutter {
    /// Reads are at least this long when the buffer has been used up.
    const READ_BYTES: usize = 256 << 10;

    pub(crate) fn new(framing: Framing, max_message: usize, long_lines: LongLines) -> Self {
        let buffer = vec![0; Self::READ_BYTES];
        Self {
            framing,
            max_message,
            buffer,
            start: 0,
            end: 0,
            searched: 0,
            long_lines,
            skips: false,
            truncated: 0,
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

    /// Adds this many bytes that were put into the room.
    pub(crate) fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// The next complete message; the cutter stays in front of it until [`step_over`](Self::step_over).
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, CutError> {
        let start = self.start;
        if let Framing::Fixed(bytes) = self.framing {
            return self.next_record(bytes);
        }
        let Some(delimiter) = self.framing.delimiter() else {
            return self.next_prefixed();
        };
        let found = memchr(delimiter, &self.buffer[self.searched..self.end]);
        if self.skips {
            return self.skip(found);
        }
        let end = found.map_or(self.end, |at| self.searched + at);
        if end - start > self.max_message {
            self.searched = end;
            return self.next_of_long_line(found.is_some().then_some(end));
        }
        if found.is_none() {
            self.searched = self.end;
            return Ok(None);
        }
        Ok(Some(Piece {
            start,
            end,
            next: end + 1,
            is_part: false,
            truncated: None,
        }))
    }

    /// A piece of a line that is longer than a message. Its end, if that is there. The last piece is never empty.
    #[cold]
    fn next_of_long_line(&mut self, end: Option<usize>) -> Result<Option<Piece>, CutError> {
        let cut = self.start + self.max_message;
        let piece = Piece {
            start: self.start,
            end: cut,
            next: cut,
            is_part: true,
            truncated: None,
        };
        match self.long_lines {
            LongLines::Fail => Err(CutError::TooLong {
                bytes: end.map(|end| (end - self.start) as u64),
            }),
            LongLines::Split => Ok(Some(piece)),
            LongLines::Truncate => Ok(Some(Piece {
                next: end.map_or(self.end, |end| end + 1),
                is_part: false,
                truncated: Some(end.is_some()),
                ..piece
            })),
        }
    }

    /// Leaves out what is there of a truncated line.
    fn skip(&mut self, found: Option<usize>) -> Result<Option<Piece>, CutError> {
        self.start = found.map_or(self.end, |at| self.searched + at + 1);
        self.searched = self.start;
        self.skips = found.is_none();
        if self.skips { Ok(None) } else { self.next() }
    }

    fn next_record(&self, bytes: usize) -> Result<Option<Piece>, CutError> {
        self.check(bytes, true)?;
        let end = self.start + bytes;
        Ok((end <= self.end).then_some(Piece {
            start: self.start,
            end,
            next: end,
            is_part: false,
            truncated: None,
        }))
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
            is_part: false,
            truncated: None,
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
        if let Some(has_end) = piece.truncated {
            self.truncated += 1;
            self.skips = !has_end;
        }
        self.start = piece.next;
        self.searched = self.searched.max(piece.next);
    }

    /// At the end of the input: the rest, a message without its delimiter.
    pub(crate) fn rest(&self) -> Result<Option<Piece>, CutError> {
        if self.start == self.end {
            return Ok(None);
        }
        if self.framing.delimiter().is_some() {
            return Ok(Some(Piece {
                start: self.start,
                end: self.end,
                next: self.end,
                is_part: false,
                truncated: None,
            }));
        }
        let has = (self.end - self.start) as u64;
        let wants = match self.framing {
            Framing::Fixed(bytes) => bytes as u64,
            _ => self.prefix().map_or(0, |(len, _)| len as u64) + PREFIX_BYTES as u64,
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joining::Joiner;

    /// The rest at the end of the input.
    type Rest = Result<Option<Vec<u8>>, CutError>;

    /// Feeds a stream in steps of `step` bytes; gives the messages, the unterminated rest and how it
    /// ended.
    fn cut(framing: Framing, max: usize, stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Rest) {
        let mut cutter = Cutter::new(framing, max, LongLines::Fail);
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
        let mut cutter = Cutter::new(Framing::Lines, 1000, LongLines::Fail);
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
            let mut cutter = Cutter::new(framing, 100, LongLines::Fail);
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

    /// The pieces of a stream that is fed in steps: P for a part, and the last one without an end.
    fn long(long_lines: LongLines, stream: &[u8], step: usize) -> (String, u64) {
        let mut cutter = Cutter::new(Framing::Lines, 3, long_lines);
        let mut pieces = String::new();
        for chunk in stream.chunks(step) {
            cutter.room()[..chunk.len()].copy_from_slice(chunk);
            cutter.filled(chunk.len());
            while let Some(piece) = cutter.next().unwrap() {
                pieces += str::from_utf8(cutter.bytes(piece)).unwrap();
                pieces += if piece.is_part { "P " } else { " " };
                cutter.step_over(piece);
            }
        }
        if let Some(piece) = cutter.rest().unwrap() {
            pieces += str::from_utf8(cutter.bytes(piece)).unwrap();
        }
        (pieces, cutter.truncated)
    }

    #[test]
    fn a_long_line_is_cut_in_parts_or_truncated() {
        for step in 1..=20 {
            let stream = b"abc\nabcdefg\nabcdef\n\nabcdefgh";
            let (pieces, truncated) = long(LongLines::Split, stream, step);
            assert_eq!(
                (&pieces[..], truncated),
                ("abc abcP defP g abcP def  abcP defP gh", 0),
                "{step}"
            );
            let (pieces, truncated) = long(LongLines::Truncate, stream, step);
            assert_eq!((&pieces[..], truncated), ("abc abc abc  abc ", 3), "{step}");
        }
    }

    #[test]
    fn records_are_cut_by_length() {
        for step in 1..=7 {
            let (messages, rest) = cut(Framing::Fixed(3), 3, b"abcdef", step);
            assert_eq!(
                (messages, rest),
                (vec![b"abc".to_vec(), b"def".to_vec()], Ok(None))
            );
        }
        let (messages, error) = cut(Framing::Fixed(3), 3, b"abcd", 2);
        assert_eq!(messages.len(), 1);
        assert_eq!(error, Err(CutError::Truncated { has: 1, wants: 3 }));
        let (_, error) = cut(Framing::Fixed(4), 3, b"a", 2);
        assert_eq!(error, Err(CutError::TooLong { bytes: Some(4) }));
    }

    /// Joins messages as they were sent.
    fn join(messages: &[(&[u8], semring::Framing)]) -> Vec<u8> {
        let mut joiner = Joiner::new(None, false);
        let mut output = Vec::new();
        for &(bytes, sent) in messages {
            let framing = joiner.framing_of(sent, bytes.len()).unwrap();
            joiner.before(framing, bytes.len(), &mut output);
            output.extend(bytes);
            let before = output.len();
            joiner.after(framing, sent, &mut output);
            assert_eq!(output.len() - before, Joiner::bytes_after(framing, sent));
        }
        output
    }

    #[test]
    fn what_was_cut_is_joined_to_the_same_stream() {
        for (framing, stream) in [
            (Framing::Lines, &b"a\n\nb"[..]),
            (Framing::Lines, b"a\n\n"),
            (Framing::Null, b"\0x"),
            (Framing::LengthPrefixed, &[2, 0, 0, 0, 1, 2, 0, 0, 0, 0]),
            (Framing::Fixed(2), b"abcd"),
        ] {
            let (messages, rest) = cut(framing, 100, stream, 2);
            let rest = rest.unwrap();
            let whole = messages
                .iter()
                .map(|bytes| (&bytes[..], framing.tag().framing));
            let rest = rest
                .iter()
                .map(|bytes| (&bytes[..], framing.tag_without_end().framing));
            assert_eq!(join(&whole.chain(rest).collect::<Vec<_>>()), stream);
        }
    }
}
