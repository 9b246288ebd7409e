//! The child's side: opening the rings that it was started with.

use crate::channel::spsc;
use crate::error::{OpenError, StdioError};
use crate::os::child::set_close_on_exec;

/// The environment variable with the address of the ring in place of stdin.
pub const STDIN_VARIABLE: &str = "SEMRING_STDIN";

/// The environment variable with the address of the ring in place of stdout.
pub const STDOUT_VARIABLE: &str = "SEMRING_STDOUT";

/// The consumer of the ring that this process was given in place of stdin.
///
/// # Errors
/// [`StdioError::NotGiven`] if this process is no coprocess, or one without this ring;
/// [`StdioError::NotInherited`] if it was started by a process that took the ring itself;
/// [`StdioError::Attach`] if it is taken already: there is one consumer.
pub fn stdin() -> Result<spsc::Consumer, StdioError> {
    Ok(ring(STDIN_VARIABLE)?.attach_consumer()?)
}

/// The producer of the ring that this process was given in place of stdout.
///
/// The parent attached as its consumer before it started this process. If the parent is gone,
/// sending returns a broken pipe.
///
/// # Errors
/// As [`stdin`].
pub fn stdout() -> Result<spsc::Producer, StdioError> {
    let ring = ring(STDOUT_VARIABLE)?;
    let producer = ring.attach_producer()?;
    // A producer that has known no consumer would fill the ring and wait.
    if ring.info()?.consumer_pid.is_none() {
        ring.hang_up();
    }
    Ok(producer)
}

fn ring(variable: &'static str) -> Result<spsc::Ring, StdioError> {
    let address = std::env::var(variable).map_err(|_| StdioError::NotGiven { variable })?;
    let ring = match spsc::open(&address) {
        Ok(ring) => ring,
        // Nothing is open under the number, or something else.
        Err(OpenError::NotFound { .. } | OpenError::NotARing { .. })
            if address.starts_with("fd:") =>
        {
            return Err(StdioError::NotInherited { variable, address });
        }
        Err(error) => return Err(error.into()),
    };
    // The descriptor is taken now: programs that this one starts are not to inherit it. (The ring
    // has a descriptor of its own.)
    if let Some(number) = ring.address().descriptor() {
        let _ = set_close_on_exec(number, true);
    }
    Ok(ring)
}
