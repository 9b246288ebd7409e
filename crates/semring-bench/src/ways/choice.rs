//! Options of rings as text, for the other process.

use std::fmt::Debug;

use semring::{GuardChoice, WaitStrategy};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// An option that is written as its `Debug`.
pub(super) trait Choice: Debug + Copy + 'static {
    const ALL: &[Self];
}

impl Choice for WaitStrategy {
    const ALL: &[Self] = &[Self::Spin, Self::Yield, Self::Adaptive, Self::Block];
}

impl Choice for GuardChoice {
    const ALL: &[Self] = &[Self::Auto, Self::Semaphore, Self::Pipe];
}

pub(super) fn serialize<C: Choice, S: Serializer>(
    choice: &C,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{choice:?}"))
}

pub(super) fn deserialize<'de, C: Choice, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<C, D::Error> {
    let name = String::deserialize(deserializer)?;
    let named = |choice: &&C| format!("{choice:?}") == name;
    let choice = C::ALL.iter().find(named).copied();
    choice.ok_or_else(|| D::Error::custom(format!("{name} is not an option")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<C: Choice + PartialEq>() {
        for choice in C::ALL {
            let text = serde_json::to_value(format!("{choice:?}")).expect("text");
            let again: C = deserialize(text).expect("a choice");
            assert!(again == *choice);
        }
        assert!(deserialize::<C, _>(serde_json::Value::from("None")).is_err());
    }

    #[test]
    fn a_choice_comes_back_from_its_text() {
        comes_back::<WaitStrategy>();
        comes_back::<GuardChoice>();
    }
}
