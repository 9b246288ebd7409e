//! The other side as processes: this program again, with one task.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cleanup;
use crate::error::Result;
use crate::machine::pin;
use crate::ways::Spec;
use crate::work::Task;

/// First argument of a process that a run starts. The second argument is for [`run_child`].
pub const CHILD: &str = "__bench-child";

#[derive(Serialize, Deserialize)]
struct Assignment {
    spec: Spec,
    /// The number of this process among those of the other side.
    sender: usize,
    task: Task,
    cpu: Option<usize>,
}

/// Runs the task that the parent put on the command line.
///
/// # Errors
/// Those of the way, and a message that differs from the one sent. The caller prints the error and exits
/// with a failure; the parent then ends, too.
pub fn run_child(assignment: &str) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let Assignment {
        spec,
        sender,
        task,
        cpu,
    } = serde_json::from_str(assignment)?;
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    spec.open(sender)?.run(&task).map(drop)
}

/// The processes of one round. Dropping kills them.
pub(super) struct Children {
    children: Vec<Child>,
    expected: Arc<AtomicBool>,
}

impl Children {
    /// Starts one process for each pair of descriptors.
    pub(super) fn start(
        spec: &Spec,
        stdio: Vec<(Stdio, Stdio)>,
        cpu: Option<usize>,
        task: impl Fn(u64) -> Task,
    ) -> Result<Self> {
        let mut all = Self {
            children: Vec::new(),
            expected: Arc::new(AtomicBool::new(false)),
        };
        for (sender, (stdin, stdout)) in stdio.into_iter().enumerate() {
            let assignment = Assignment {
                spec: spec.clone(),
                sender,
                task: task(sender as u64),
                cpu,
            };
            let child = Command::new(std::env::current_exe()?)
                .arg(CHILD)
                .arg(serde_json::to_string(&assignment)?)
                .stdin(stdin)
                .stdout(stdout)
                .spawn()?;
            all.watch(child.id());
            all.children.push(child);
        }
        Ok(all)
    }

    /// Ends this process when the child fails: it would otherwise wait for ever for the child's messages.
    fn watch(&self, pid: u32) {
        let expected = self.expected.clone();
        let pid = Pid::from_raw(pid.cast_signed());
        std::thread::spawn(move || {
            // WNOWAIT leaves the status for `end` and `drop`.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            let failed = match waitid(Id::Pid(pid), flags) {
                Ok(WaitStatus::Exited(_, code)) => code != 0,
                Ok(WaitStatus::Signaled(..)) => true,
                _ => false,
            };
            if failed && !expected.load(Ordering::Acquire) {
                // The child has printed its error.
                cleanup::sweep();
                std::process::exit(1);
            }
        });
    }

    /// Waits until all have finished.
    pub(super) fn end(mut self) -> Result<()> {
        for mut child in self.children.drain(..) {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("the other process failed: {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.expected.store(true, Ordering::Release);
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}
