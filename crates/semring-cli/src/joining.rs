//! Messages written as a byte stream: the framing of each, and what stands around it.

use crate::framing::Framing;

/// Why a message can't be written in the requested framing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JoinError {
    /// It was sent in another framing.
    Differs { sent: Framing, wanted: Framing },
    /// It does not have the length of a record.
    NoRecord { bytes: usize, wanted: usize },
    /// A newer producer sent it, in a framing unknown to this version.
    Unknown,
    /// The length of a line in parts is not known before its end.
    Parts { wanted: Framing },
}

/// The bytes around messages in the output.
#[derive(Debug)]
pub(crate) struct Joiner {
    /// The framing given by an option; without one each message is written as it was sent.
    wanted: Option<Framing>,
    /// Messages of other framings are written in the wanted one.
    converts: bool,
    /// The last message had no delimiter: this one is due if another message follows.
    owed: Option<u8>,
}

impl Joiner {
    pub(crate) fn new(wanted: Option<Framing>, converts: bool) -> Self {
        Self {
            wanted,
            converts,
            owed: None,
        }
    }

    /// The framing that was requested.
    pub(crate) fn wanted(&self) -> Option<Framing> {
        self.wanted
    }

    /// The framing in which a message is to be written. A plain message of a program that uses the library is
    /// a line, unless a framing is given.
    #[inline]
    pub(crate) fn framing_of(
        &self,
        sent: semring::Framing,
        len: usize,
    ) -> Result<Framing, JoinError> {
        let is_plain = sent == semring::Framing::Plain;
        let sent = Framing::of(sent, len);
        match (self.wanted, sent) {
            (None, Some(sent)) => Ok(sent),
            (None, None) if is_plain => Ok(Framing::Lines),
            (Some(wanted), Some(sent)) if wanted == sent => Ok(wanted),
            (Some(Framing::Fixed(wanted)), _) if (is_plain || self.converts) && wanted != len => {
                Err(JoinError::NoRecord { bytes: len, wanted })
            }
            (Some(wanted), _) if is_plain || self.converts => Ok(wanted),
            (Some(wanted), Some(sent)) => Err(JoinError::Differs { sent, wanted }),
            (_, None) => Err(JoinError::Unknown),
        }
    }

    /// Puts down what goes before a message of this length.
    #[inline]
    pub(crate) fn before(&mut self, framing: Framing, len: usize, output: &mut Vec<u8>) {
        output.extend(self.owed.take());
        if framing == Framing::LengthPrefixed {
            // A message is at most 1 GiB.
            output.extend_from_slice(&(len as u32).to_le_bytes());
        }
    }

    /// Puts down what goes after a message that was sent in this way.
    #[inline]
    pub(crate) fn after(&mut self, framing: Framing, sent: semring::Framing, output: &mut Vec<u8>) {
        let delimiter = framing.delimiter();
        if is_unterminated(sent) {
            self.owed = delimiter;
        } else {
            output.extend(delimiter);
        }
    }

    /// How many bytes [`after`](Self::after) puts down.
    pub(crate) fn bytes_after(framing: Framing, sent: semring::Framing) -> usize {
        usize::from(!is_unterminated(sent) && framing.delimiter().is_some())
    }
}

/// True for a message that was the last of its input and had no delimiter after it. The consumer adds
/// the delimiter only if another message follows.
fn is_unterminated(framing: semring::Framing) -> bool {
    use semring::Framing::{LineWithoutEnd, NulWithoutEnd};
    matches!(framing, LineWithoutEnd | NulWithoutEnd)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn message_after_unterminated_begins_a_line() {
        use semring::Framing::{Line, LineWithoutEnd, NulWithoutEnd, Plain, Raw};
        let lines: [(&[u8], _); 3] = [(b"x", LineWithoutEnd), (b"y", LineWithoutEnd), (b"z", Line)];
        assert_eq!(join(&lines), b"x\ny\nz\n");
        let mixed: [(&[u8], _); 4] = [
            (b"x", LineWithoutEnd),
            (b"y", Raw),
            (b"z", NulWithoutEnd),
            (b"p", Plain),
        ];
        assert_eq!(join(&mixed), b"x\nyz\0p\n");
    }

    #[test]
    fn requested_framing_must_match_the_messages() {
        use semring::Framing as Sent;
        let requested =
            |wanted, converts, sent| Joiner::new(Some(wanted), converts).framing_of(sent, 3);
        for (wanted, same) in [
            (Framing::Lines, Sent::Line),
            (Framing::Lines, Sent::LineWithoutEnd),
            (Framing::Null, Sent::NulPart),
            (Framing::Raw, Sent::Raw),
            (Framing::Fixed(3), Sent::Fixed),
            (Framing::Raw, Sent::Plain),
        ] {
            assert_eq!(requested(wanted, false, same), Ok(wanted));
        }
        let (sent, wanted) = (Framing::Raw, Framing::Lines);
        assert_eq!(
            requested(wanted, false, Sent::Raw),
            Err(JoinError::Differs { sent, wanted })
        );
        assert_eq!(requested(wanted, true, Sent::Raw), Ok(wanted));
        let (sent, wanted) = (Framing::Fixed(3), Framing::Fixed(4));
        assert_eq!(
            requested(wanted, false, Sent::Fixed),
            Err(JoinError::Differs { sent, wanted })
        );
        let no_record = JoinError::NoRecord {
            bytes: 3,
            wanted: 4,
        };
        assert_eq!(requested(wanted, true, Sent::Line), Err(no_record));
        assert_eq!(requested(wanted, false, Sent::Plain), Err(no_record));
        assert_eq!(requested(wanted, true, Sent::Unknown), Err(no_record));
        assert_eq!(
            requested(Framing::Raw, false, Sent::Unknown),
            Err(JoinError::Unknown)
        );
        assert_eq!(
            requested(Framing::Raw, true, Sent::Unknown),
            Ok(Framing::Raw)
        );
        assert_eq!(
            Joiner::new(None, false).framing_of(Sent::Unknown, 1),
            Err(JoinError::Unknown)
        );
    }
}
