//! The scheduling policy of this process.

/// Whether this process runs under a real-time policy (SCHED_FIFO, SCHED_RR or SCHED_DEADLINE), where
/// yielding never gives the CPU to a process of lower priority. False where `/proc` does not show it.
pub(crate) fn is_real_time() -> bool {
    std::fs::read_to_string("/proc/self/stat")
        .is_ok_and(|stat| policy(&stat).is_some_and(|policy| matches!(policy, 1 | 2 | 6)))
}

/// Field 41 of the line: the policy's number.
fn policy(stat: &str) -> Option<u32> {
    // The name in field 2 may hold anything, spaces and parentheses included.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(41 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_field_41() {
        let fields: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b (c) S {}", fields.join(" "));
        assert_eq!(policy(&stat), Some(41));
        assert_eq!(policy("7 (a) S 1 2"), None);
        assert_eq!(policy(""), None);
    }
}
