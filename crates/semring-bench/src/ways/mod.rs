//! The ways from one process to another that can be compared. Each file has one kind; both ends of each are a
//! [`Link`](crate::link::Link).

mod choice;
mod limits;
mod queues;
mod ring;
mod segment;
mod shared;
mod slot;
mod stream;
mod way;

use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Deserializer};

pub use way::{Category, End, Setup, Spec, ThreadEnds, Typed, Way, no_obstacle, one_sender_only};

impl<'de> Deserialize<'de> for Way {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("there is no way {name}"));
        Self::named(&name).ok_or_else(unknown)
    }
}

/// Ways of other crates.
static MORE: RwLock<Vec<Way>> = RwLock::new(Vec::new());

impl Way {
    /// All ways, in the order of the tables.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = ring::ways().collect();
        all.extend(stream::ways());
        all.extend(queues::WAYS);
        all.extend(shared::WAYS);
        all.extend(slot::WAYS);
        all.extend(MORE.read().unwrap_or_else(PoisonError::into_inner).iter());
        all.extend(limits::WAYS);
        all
    }

    /// The ways that are measured by default.
    #[must_use]
    pub fn usual() -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|way| !matches!(way.category, Category::Variant | Category::Limit));
        all
    }

    /// The way with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|way| way.name == name)
    }

    /// Adds ways of other crates. Call it at the beginning of the program, before
    /// [`run_child`](crate::run_child) too.
    pub fn add(ways: &[Self]) {
        let mut more = MORE.write().unwrap_or_else(PoisonError::into_inner);
        more.extend(ways);
    }
}
