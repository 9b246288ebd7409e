//! The message of a call: its call id, its kind, and the bytes.
//!
//! ```text
//! kind of the message   1 request · 2 reply · 3 there will be no reply
//! bytes 0–7             the call's id, little-endian
//! bytes 8–              the request or the reply
//! ```

use crate::channel::{Message, spsc};
use crate::error::{RecvError, SendError};
use crate::guard::deadline::Patience;
use crate::layout::Tag;

/// Length of the header before the user's bytes.
const ID_BYTES: usize = 8;

/// Identifies a call of one [`Client`](super::Client): counted from 1, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(u64);

impl CallId {
    pub(super) const FIRST: Self = Self(1);

    /// The id as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    pub(super) fn next(self) -> Self {
        // At a thousand million calls a second this takes 584 years.
        Self(self.0.checked_add(1).expect("ids for 584 years"))
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The kinds of messages of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameKind {
    Request,
    Reply,
    /// The server dropped the request without a reply.
    Unanswered,
}

impl FrameKind {
    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Unanswered => 3,
        }
    }

    fn of_number(number: u16) -> Option<Self> {
        [Self::Request, Self::Reply, Self::Unanswered]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A message taken apart.
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) id: CallId,
    pub(super) bytes: Vec<u8>,
}

/// Takes a message apart; `None` if it is none of a call, an error if its memory was taken away.
pub(super) fn take(message: &Message<'_>) -> Result<Option<Frame>, RecvError> {
    let kind = FrameKind::of_number(message.tag().kind);
    let (Some(kind), Some(len)) = (kind, message.len().checked_sub(ID_BYTES)) else {
        return Ok(None);
    };
    let view = message.as_message_ref();
    let mut id = [0; ID_BYTES];
    view.checked_read_at(0, &mut id)?;
    let mut bytes = vec![0; len];
    view.checked_read_at(ID_BYTES, &mut bytes)?;
    Ok(Some(Frame {
        kind,
        id: CallId(u64::from_le_bytes(id)),
        bytes,
    }))
}

/// Sends a message of a call.
pub(super) fn put(
    producer: &mut spsc::Producer,
    kind: FrameKind,
    id: CallId,
    bytes: &[u8],
    patience: Patience,
) -> Result<(), SendError> {
    let len = ID_BYTES + bytes.len();
    let reserved = match patience {
        Patience::Try => producer.try_reserve(len),
        Patience::Until(deadline) => producer.reserve_deadline(len, deadline),
    };
    let mut reservation = reserved.map_err(|error| match error {
        SendError::TooLong { max } => SendError::TooLong {
            max: max - ID_BYTES,
        },
        other => other,
    })?;
    reservation.set_tag(Tag::new(kind.number()));
    reservation.write_at(0, &id.0.to_le_bytes());
    reservation.write_at(ID_BYTES, bytes);
    reservation.commit();
    Ok(())
}

/// The longest message of a call, in bytes.
pub(super) fn longest(producer: &spsc::Producer) -> usize {
    producer.max_message_bytes() - ID_BYTES
}
