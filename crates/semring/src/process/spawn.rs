//! Starting a program with rings.

use std::process::{Command, Stdio};

use super::child::{Child, ExitWatch};
use super::stdio::{STDIN_VARIABLE, STDOUT_VARIABLE};
use crate::channel::{RingOptions, ring_options, spsc};
use crate::error::SpawnError;
use crate::os::child::pass_on;

/// Options for starting a program with rings in place of stdin and stdout.
///
/// By default it gets both rings, of 256 KiB each.
///
/// ```
/// use semring::RecvError;
/// use std::process::Command;
///
/// // Of a program that has no use for its rings, the parent sees the end.
/// let mut child = semring::process::Builder::new()
///     .capacity(64 << 10)
///     .spawn(Command::new("true"))?;
/// assert!(child.wait()?.success());
/// let mut output = child.stdout.take().unwrap();
/// assert!(matches!(output.recv(), Err(RecvError::EndOfStream { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    ring: spsc::Builder,
    stdin: bool,
    stdout: bool,
}

/// Starts a program with a ring in place of stdin and one in place of stdout; as [`Builder::spawn`].
///
/// # Errors
/// As [`Builder::spawn`].
pub fn spawn(command: Command) -> Result<Child, SpawnError> {
    Builder::new().spawn(command)
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            ring: spsc::Builder::memfd(),
            stdin: true,
            stdout: true,
        }
    }
}

impl Builder {
    /// Options for a program with a ring in place of stdin and one in place of stdout.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Options of both rings.
    fn options(&mut self) -> &mut RingOptions {
        self.ring.options()
    }

    ring_options!();

    /// No ring in place of stdin: the [`Command`] sets stdin.
    #[must_use]
    pub fn without_stdin(mut self) -> Self {
        self.stdin = false;
        self
    }

    /// No ring in place of stdout: the [`Command`] sets stdout.
    #[must_use]
    pub fn without_stdout(mut self) -> Self {
        self.stdout = false;
        self
    }

    /// Starts the program.
    ///
    /// The command can have arguments, an environment, a folder, descriptors 1 and 2; its descriptor 0 becomes
    /// `/dev/null` if there is a ring in its place.
    ///
    /// # Errors
    /// [`SpawnError::Program`] if the program can't be started; the rings are removed then.
    /// [`SpawnError::Create`] if a ring can't be made.
    pub fn spawn(&self, mut command: Command) -> Result<Child, SpawnError> {
        let mut stdin = None;
        let mut stdout = None;
        if self.stdin {
            let ring = self.give(&mut command, STDIN_VARIABLE)?;
            // Before the child is started: the child then sees that there was a peer, and can
            // distinguish a peer that is gone from one that has not come yet.
            stdin = Some((ring.attach_producer()?, ring));
            command.stdin(Stdio::null());
        } else {
            // If this process is a coprocess itself, its variables are not for the child.
            command.env_remove(STDIN_VARIABLE);
        }
        if self.stdout {
            let ring = self.give(&mut command, STDOUT_VARIABLE)?;
            stdout = Some((ring.attach_consumer()?, ring));
        } else {
            command.env_remove(STDOUT_VARIABLE);
        }
        let (producer, input) = stdin.unzip();
        let (consumer, output) = stdout.unzip();
        // The thread first: without it there must be no child.
        let watch = ExitWatch::begin(input, output).map_err(SpawnError::Thread)?;
        match command.spawn() {
            Ok(child) => Ok(Child::new(child, watch, producer, consumer)),
            Err(source) => {
                watch.abandon();
                let program = command.get_program().to_string_lossy().into_owned();
                Err(SpawnError::Program { program, source })
            }
        }
    }

    /// A new ring, of which the program will find a descriptor.
    fn give(&self, command: &mut Command, variable: &str) -> Result<spsc::Ring, SpawnError> {
        let ring = self.ring.create()?;
        let descriptor = ring.descriptor().map_err(SpawnError::Descriptor)?;
        let number = pass_on(command, descriptor).map_err(SpawnError::Descriptor)?;
        command.env(variable, ring.inherited_address(number).to_string());
        Ok(ring)
    }
}
