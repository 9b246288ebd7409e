//! Limits of the system that prevent a new ring's semaphores.

use super::Plan;
use crate::error::CreateError;
use crate::guard::semaphore::{count_for, operations_for};
use crate::os::sysv;

/// Refuses a ring to which no consumer could attach, with the limit that prevents it.
pub(super) fn check_limits(name: &str, plan: &Plan) -> Result<(), CreateError> {
    let Ok(limits) = sysv::limits::sem() else {
        return Ok(());
    };
    let lanes = plan.geometry.lanes();
    let needed = count_for(lanes) as u64;
    let operations = operations_for(lanes) as u64;
    let limit = if needed > limits.per_set {
        format!(
            "{lanes} lanes need a set of {needed} semaphores, and the first value of kernel.sem (SEMMSL) is {}: \
             raise it (sysctl -w kernel.sem=…) or use fewer producers",
            limits.per_set
        )
    } else if operations > limits.ops_per_call {
        format!(
            "{lanes} lanes need {operations} semaphore operations in one call, and the third value of kernel.sem \
             (SEMOPM) is {}: raise it (sysctl -w kernel.sem=…) or use fewer producers",
            limits.ops_per_call
        )
    } else {
        return Ok(());
    };
    Err(CreateError::SemaphoreLimit {
        name: name.to_owned(),
        limit,
    })
}

/// The limit that prevents one more set of this many semaphores.
pub(super) fn no_room_for(count: u64) -> String {
    const RAISE: &str =
        "raise it (sysctl -w kernel.sem=…), or remove unused sets (ipcs -s shows them)";
    let used = sysv::sem::list().unwrap_or_default();
    let Ok(limits) = sysv::limits::sem() else {
        return format!("no room for a set of {count} semaphores in kernel.sem: {RAISE}");
    };
    if used.len() as u64 >= limits.sets {
        return format!(
            "there are {} semaphore sets, and the fourth value of kernel.sem (SEMMNI) is {}: {RAISE}",
            used.len(),
            limits.sets
        );
    }
    let semaphores: usize = used.iter().map(|set| set.stat.count).sum();
    format!(
        "all sets have {semaphores} semaphores, {count} more are needed, and the second value of kernel.sem (SEMMNS) is \
         {}: {RAISE}",
        limits.in_all
    )
}

/// The advice where sets can be made, but none for a ring.
pub(super) const NO_KEY: &str = "every key that the semaphore set of a ring can have (0x5eed0000 to 0x5eedffff) is taken: \
                                 remove unused sets (ipcs -s shows them)";
