//! The other process: this program again, with one task.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::machine::pin;
use crate::task::Task;
use crate::ways::{Spec, open};

/// First argument of a process that a run starts; the second is for [`run_child`].
pub const CHILD: &str = "__bench-child";

#[derive(Serialize, Deserialize)]
struct Assignment {
    spec: Spec,
    /// Which of the other processes this is.
    who: usize,
    task: Task,
    cpu: Option<usize>,
}

/// Does what a run asked this process to do.
///
/// # Errors
/// What went wrong: the parent reports it and ends.
pub fn run_child(assignment: &str) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let Assignment {
        spec,
        who,
        task,
        cpu,
    } = serde_json::from_str(assignment)?;
    if let Some(cpu) = cpu {
        pin(cpu)?;
    }
    open(&spec, who)?.give(&task).map(drop)
}

/// Processes that a run started. Dropped, they are killed.
pub(crate) struct Children {
    children: Vec<Child>,
    expected: Arc<AtomicBool>,
}

impl Children {
    /// Starts one process for each pair of descriptors.
    pub(crate) fn start(
        spec: &Spec,
        stdio: Vec<(Stdio, Stdio)>,
        cpu: Option<usize>,
        task: impl Fn(u64) -> Task,
    ) -> Result<Self> {
        let mut all = Self {
            children: Vec::new(),
            expected: Arc::new(AtomicBool::new(false)),
        };
        for (who, (stdin, stdout)) in stdio.into_iter().enumerate() {
            let assignment = Assignment {
                spec: spec.clone(),
                who,
                task: task(who as u64),
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

    /// A process that fails leaves us waiting for what it would have sent: then there is nothing to go on
    /// with.
    fn watch(&self, pid: u32) {
        let expected = self.expected.clone();
        let pid = Pid::from_raw(pid.cast_signed());
        std::thread::spawn(move || {
            // The status stays there for whoever waits.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            let failed = match waitid(Id::Pid(pid), flags) {
                Ok(WaitStatus::Exited(_, code)) => code != 0,
                Ok(WaitStatus::Signaled(..)) => true,
                _ => false,
            };
            if failed && !expected.load(Ordering::Acquire) {
                // It has said itself what went wrong.
                crate::sweep();
                std::process::exit(1);
            }
        });
    }

    /// Waits until all have done what they had to do.
    pub(crate) fn end(mut self) -> Result<()> {
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
