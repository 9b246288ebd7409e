//! The schema of a ring: which type of messages it is for, fixed by its creator.

use super::superblock::SuperblockError;

/// Longest name in bytes.
const MAX_NAME: usize = 64;
/// Bytes in the superblock: lengths and hash, name, reserved.
pub(super) const SCHEMA_BYTES: usize = 16 + MAX_NAME + 8;

/// What the messages of a ring are: a name, a version, and a number for the layout of their bytes.
///
/// Two programs that name different ones for the same ring do not take each other's bytes for something else: the
/// second one is refused.
///
/// It describes, and does not check: any process with write permission can send any bytes.
///
/// ```
/// use semring::{OpenError, Schema, layout_of, spsc};
///
/// #[repr(C)]
/// struct Tick {
///     time: u64,
///     price: f64,
/// }
/// const TICK: Schema = Schema::new("tick", 1, layout_of!(Tick { time, price }));
/// const NEWER: Schema = Schema::new("tick", 2, layout_of!(Tick { time, price }));
///
/// # let name = format!("doc-schema-{}", std::process::id());
/// let ring = spsc::Builder::new(&name).schema(TICK).create()?;
/// assert_eq!(ring.schema(), Some(TICK));
/// let refused = spsc::Builder::new(&name).schema(NEWER).open();
/// assert!(matches!(refused, Err(OpenError::Mismatch { what: "schema", .. })));
/// # ring.remove()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schema {
    name: [u8; MAX_NAME],
    name_bytes: u8,
    version: u32,
    layout: u64,
}

impl Schema {
    /// A schema of a name (1 to 64 bytes), a version, and a number for the layout of the bytes.
    ///
    /// Any other version is another schema. The number is the same where the bytes of a message mean the same:
    /// [`layout_of!`](crate::layout_of) for types of Rust; for messages that describe themselves (JSON, Protocol
    /// Buffers) any fixed number, such as 0.
    ///
    /// # Panics
    /// If the name is empty or too long; in a constant, when it is compiled.
    #[must_use]
    pub const fn new(name: &str, version: u32, layout: u64) -> Self {
        let text = name.as_bytes();
        assert!(
            !text.is_empty() && text.len() <= MAX_NAME,
            "the name of a schema has 1 to 64 bytes"
        );
        let mut name = [0; MAX_NAME];
        let (front, _) = name.split_at_mut(text.len());
        front.copy_from_slice(text);
        Self {
            name,
            name_bytes: text.len() as u8,
            version,
            layout,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        // Made from text, or checked when it was decoded.
        str::from_utf8(&self.name[..usize::from(self.name_bytes)]).unwrap_or_default()
    }

    /// The version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The number for the layout of the bytes.
    #[must_use]
    pub const fn layout(&self) -> u64 {
        self.layout
    }

    pub(super) fn encode(self) -> [u8; SCHEMA_BYTES] {
        let mut bytes = [0; SCHEMA_BYTES];
        bytes[0..4].copy_from_slice(&u32::from(self.name_bytes).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.version.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.layout.to_le_bytes());
        bytes[16..16 + MAX_NAME].copy_from_slice(&self.name);
        bytes
    }

    /// The schema of a superblock that has one.
    pub(super) fn decode(bytes: &[u8; SCHEMA_BYTES]) -> Result<Self, SuperblockError> {
        let damaged = SuperblockError::Damaged { what: "schema" };
        let (sizes, text) = bytes.split_at(16);
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| sizes[at + byte]));
        let name = text[..MAX_NAME].get(..word(0) as usize).ok_or(damaged)?;
        let name = str::from_utf8(name).map_err(|_| damaged)?;
        if name.is_empty() {
            return Err(damaged);
        }
        let layout = u64::from(word(12)) << 32 | u64::from(word(8));
        Ok(Self::new(name, word(4), layout))
    }
}

/// As `tick, version 1, layout 0x00c0ffee00c0ffee`.
impl std::fmt::Display for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            version, layout, ..
        } = self;
        write!(
            f,
            "{}, version {version}, layout {layout:#018x}",
            self.name()
        )
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema({self})")
    }
}

/// A number for the layout of a struct, of which all fields are named: a hash of its size, its alignment and the offsets
/// of the fields. For [`Schema::new`].
///
/// The same for another struct with the same layout, whatever it and its fields are called. `#[repr(C)]` makes a layout
/// that does not depend on the compiler. Programs in other languages compute the same number: `docs/layout.md`, "Schema".
///
/// ```
/// #[repr(C)]
/// struct Tick {
///     time: u64,
///     price: f64,
/// }
/// #[repr(C)]
/// struct Pair(u64, u64);
/// const LAYOUT: u64 = semring::layout_of!(Tick { time, price });
/// assert_eq!(LAYOUT, semring::layout_of!(Pair { 0, 1 }));
/// ```
///
/// A field that is left out is a mistake that the compiler finds:
///
/// ```compile_fail,E0027
/// #[repr(C)]
/// struct Tick {
///     time: u64,
///     price: f64,
/// }
/// const LAYOUT: u64 = semring::layout_of!(Tick { time });
/// ```
#[macro_export]
macro_rules! layout_of {
    ($type:path { $($field:tt),* $(,)? }) => {{
        // Names all fields, or does not compile.
        let _ = |value: &$type| {
            let $type { $($field: _),* } = value;
        };
        $crate::layout_hash(
            ::core::mem::size_of::<$type>(),
            ::core::mem::align_of::<$type>(),
            [$(::core::mem::offset_of!($type, $field)),*],
        )
    }};
}

/// The hash behind [`layout_of!`](crate::layout_of): FNV-1a of 64 bits (Fowler, Noll, Vo: "The FNV Non-Cryptographic Hash
/// Algorithm") over size, alignment and the offsets in ascending order, 8 bytes each, little-endian.
#[doc(hidden)]
#[must_use]
pub const fn layout_hash<const N: usize>(
    size: usize,
    align: usize,
    mut offsets: [usize; N],
) -> u64 {
    // By insertion: there is no other sort in a constant.
    let mut sorted = 1;
    while sorted < N {
        let mut at = sorted;
        while at > 0 && offsets[at - 1] > offsets[at] {
            offsets.swap(at - 1, at);
            at -= 1;
        }
        sorted += 1;
    }
    let mut hash = fnv_1a(0xcbf2_9ce4_8422_2325, size as u64);
    hash = fnv_1a(hash, align as u64);
    let mut at = 0;
    while at < N {
        hash = fnv_1a(hash, offsets[at] as u64);
        at += 1;
    }
    hash
}

const fn fnv_1a(mut hash: u64, word: u64) -> u64 {
    let bytes = word.to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_read_back_as_it_was_written() {
        let longest = "n".repeat(MAX_NAME);
        for name in ["t", "größe", &longest] {
            let schema = Schema::new(name, 7, 0x0123_4567_89ab_cdef);
            assert_eq!(Schema::decode(&schema.encode()), Ok(schema));
            assert_eq!(
                (schema.name(), schema.version(), schema.layout()),
                (name, 7, 0x0123_4567_89ab_cdef)
            );
        }
    }

    #[test]
    fn impossible_schemas_are_damage() {
        let damaged = Err(SuperblockError::Damaged { what: "schema" });
        let good = Schema::new("tick", 1, 2).encode();
        for length in [0, MAX_NAME as u32 + 1, u32::MAX] {
            let mut bytes = good;
            bytes[0..4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(Schema::decode(&bytes), damaged, "{length} bytes of name");
        }
        let mut bytes = good;
        bytes[16] = 0xff;
        assert_eq!(Schema::decode(&bytes), damaged, "not UTF-8");
    }

    #[test]
    #[should_panic(expected = "1 to 64 bytes")]
    fn a_schema_without_a_name_is_refused() {
        let _ = Schema::new("", 1, 0);
    }

    #[test]
    fn layouts_are_hashed_as_documented() {
        // The example of docs/layout.md.
        assert_eq!(layout_hash(16, 8, [0, 8]), 0x9f74_5078_10c3_ffb5);
        assert_eq!(layout_hash(16, 8, [8, 0]), layout_hash(16, 8, [0, 8]));
        for other in [layout_hash(24, 8, [0, 8]), layout_hash(16, 4, [0, 8])] {
            assert_ne!(other, layout_hash(16, 8, [0, 8]));
        }
        assert_ne!(layout_hash(16, 8, [0, 4]), layout_hash(16, 8, [0, 8]));
        assert_ne!(layout_hash(16, 8, [0]), layout_hash(16, 8, [0, 8]));
    }
}
