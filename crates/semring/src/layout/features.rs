//! What distinguishes a ring from a plain one: features that its users must support, and its policy when a lane is full.

/// Features that a user of the ring must support: a bit of the superblock each, with the name that a refusal gives;
/// `docs/layout.md` has what they mean.
pub(super) const MUST_KNOW: [(u64, &str); 8] = [
    (ARRAYS, "arrays"),
    (BOOKMARKS, "bookmarks"),
    (1 << 2, "types"),
    (1 << 3, "selective receive"),
    (1 << 4, "broadcast"),
    (1 << 5, "overwrite"),
    (1 << 6, "eviction"),
    (SELDOM_HINTS, "seldom hints"),
];
/// Records of many messages of one size.
pub(crate) const ARRAYS: u64 = 1 << 0;
/// Those that this version supports. It makes every ring with all of them.
pub(crate) const KNOWN: u64 = ARRAYS;
/// The position from which a killed producer's successor goes on is stored.
pub(crate) const BOOKMARKS: u64 = 1 << 1;
/// `committed` and `sent` are stored seldom.
pub(crate) const SELDOM_HINTS: u64 = 1 << 7;

/// The ring has a [schema](super::schema): a feature that a user may ignore.
pub(super) const SCHEMA: u64 = 1 << 0;

/// The names of features, of which others are only numbers.
pub(crate) fn feature_names(bits: u64) -> String {
    let known = MUST_KNOW.iter().filter(|(bit, _)| bits & bit != 0);
    let mut names: Vec<String> = known.map(|(_, name)| (*name).to_owned()).collect();
    let named = MUST_KNOW.iter().fold(0, |all, (bit, _)| all | bit);
    if bits & !named != 0 {
        names.push(format!("bits {:#x}", bits & !named));
    }
    names.join(", ")
}

/// What a producer does when its buffer in the ring is full. Fixed at creation, the same for all producers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// It waits for room, as a pipe does.
    #[default]
    Wait,
    /// It does not wait: the call fails with [`SendError::Full`](crate::SendError::Full).
    Fail,
    /// It does not wait: the message is dropped and counted, and the call succeeds.
    Drop,
}

impl WhenFull {
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Wait => 0,
            Self::Fail => 1,
            Self::Drop => 2,
        }
    }

    pub(super) const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Wait),
            1 => Some(Self::Fail),
            2 => Some(Self::Drop),
            _ => None,
        }
    }
}

impl std::fmt::Display for WhenFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Wait => "wait",
            Self::Fail => "fail",
            Self::Drop => "drop",
        })
    }
}
