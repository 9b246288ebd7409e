//! `semring top` on a terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::unistd::Pid;

use super::{SEMRING, wait_until};

/// A new terminal: the side of the terminal program, and the side of its programs.
///
/// Both descriptors are closed in processes that other tests start meanwhile: a terminal is gone when the
/// last descriptor of its first side is closed. With `openpty` such a process could inherit one.
pub fn new_terminal() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("a terminal");
    grantpt(&master).expect("a terminal");
    unlockpt(&master).expect("a terminal");
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(ptsname_r(&master).expect("its name"))
        .expect("its other side");
    let master = master.as_fd().try_clone_to_owned().expect("a descriptor");
    (File::from(master), slave)
}

/// The same with 24 rows.
pub fn new_terminal_of(columns: u16) -> (File, File) {
    let (master, slave) = new_terminal();
    let status = Command::new("stty")
        .args(["rows", "24", "columns", &columns.to_string()])
        .stdin(Stdio::from(slave.try_clone().expect("a descriptor")))
        .status()
        .expect("stty runs");
    assert!(status.success(), "{status}");
    (master, slave)
}

/// A program on a terminal of its own, and its output so far.
pub struct OnTerminal {
    pub child: Child,
    pub keys: File,
    pub slave: File,
    pub drawn: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    pub fn start(columns: u16, no_color: bool) -> OnTerminal {
        OnTerminal::start_behind(&[], columns, no_color)
    }

    /// With a command such as `env` in front of it.
    pub fn start_behind(before: &[&str], columns: u16, no_color: bool) -> OnTerminal {
        let (mut screen, slave) = new_terminal_of(columns);
        let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
        // With the terminal as its own, so that it gets a signal for a new size.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .args(before)
            .args([SEMRING, "top", "-i", "50ms"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let child = command.spawn().expect("setsid starts");
        let keys = screen.try_clone().expect("a descriptor");
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&drawn);
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut block) {
                sink.lock().expect("no panic").extend(&block[..count]);
            }
        });
        OnTerminal {
            child,
            keys,
            slave,
            drawn,
        }
    }

    pub fn drawn(&self) -> String {
        String::from_utf8_lossy(&self.drawn.lock().expect("no panic")).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("{text:?} is on the screen"), || {
            self.drawn().contains(text)
        });
    }

    /// The process itself, below `setsid`.
    pub fn pid(&self) -> Pid {
        let id = self.child.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(path).expect("/proc");
        // setsid forks only where it leads a group already.
        let pid = children.split_whitespace().next().map(str::parse::<i32>);
        Pid::from_raw(pid.map_or(id as i32, |pid| pid.expect("a number")))
    }

    /// The settings of the terminal, as printed by `stty`.
    pub fn settings(&self) -> String {
        let slave = self.slave.try_clone().expect("a descriptor");
        settings(slave)
    }

    /// Drops the output so far.
    pub fn forget(&self) {
        self.drawn.lock().expect("no panic").clear();
    }

    /// Its end, and the settings of the terminal then.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("it has ended", || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        });
        let settings = settings(self.slave);
        (status.and_then(|status| status.code()), settings)
    }
}

fn settings(slave: File) -> String {
    let stty = Command::new("stty")
        .arg("-a")
        .stdin(Stdio::from(slave))
        .output()
        .expect("stty runs");
    String::from_utf8_lossy(&stty.stdout).into_owned()
}

/// The terminal is as it was before: it shows what one types, and ends lines.
#[track_caller]
pub fn assert_restored(settings: &str) {
    let has = |word: &str| settings.split_whitespace().any(|found| found == word);
    assert!(has("icanon") && has("echo") && has("isig"), "{settings}");
}

pub const LEAVE_SCREEN: &str = "\x1b[?1049l";
