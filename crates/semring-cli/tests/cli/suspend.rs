//! `semring top` while it is stopped and continued, and when its terminal is gone.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};

use crate::support::terminal::{LEAVE_SCREEN, OnTerminal, assert_restored, new_terminal_of};
use crate::support::{SEMRING, wait_until};

/// A shell with job control: it gets the terminal when `top` stops, and continues it after a line.
const SHELL: [&str; 4] = [
    "bash",
    "-mc",
    r#""$@"; echo "status $?"; read -r; fg >/dev/null; echo "status $?""#,
    "bash",
];

/// The signal that stops it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Key,
    Tstp,
    /// `SIGSTOP`, which can't be caught.
    Kill,
}

#[test]
fn a_stopped_top_gives_the_terminal_back_and_draws_again() {
    for stop in [Stop::Key, Stop::Tstp, Stop::Kill] {
        let mut live = OnTerminal::start_behind(&SHELL, 80, false);
        live.wait_for("semring top");
        live.forget();
        match stop {
            Stop::Key => live.keys.write_all(b"\x1a").expect("a key"),
            Stop::Tstp => kill(live.pid(), Signal::SIGTSTP).expect("it runs"),
            Stop::Kill => kill(live.pid(), Signal::SIGSTOP).expect("it runs"),
        }
        let status = if stop == Stop::Kill {
            "status 147"
        } else {
            "status 148"
        };
        live.wait_for(status);
        if stop != Stop::Kill {
            assert!(live.drawn().contains(LEAVE_SCREEN), "{stop:?}");
            assert_restored(&live.settings());
        }
        live.forget();
        // In raw mode a line ends with another key than in a terminal that is as it was.
        live.keys.write_all(b"\n").expect("a line");
        live.wait_for("semring top");
        assert!(live.settings().contains("-icanon"), "{stop:?}");
        live.keys.write_all(b"q").expect("a key");
        live.wait_for("status 0");
        let (code, settings) = live.end();
        assert_eq!(code, Some(0), "{stop:?}");
        // After SIGSTOP the shell restores the settings that it found, which are those of a stopped
        // top.
        if stop != Stop::Kill {
            assert_restored(&settings);
        }
    }
}

/// The kernel stops no process group that no shell could continue.
#[test]
fn ctrl_z_without_job_control_changes_nothing() {
    let mut live = OnTerminal::start(80, false);
    live.wait_for("semring top");
    live.forget();
    live.keys.write_all(b"\x1a").expect("a key");
    live.wait_for("semring top");
    live.keys.write_all(b"q").expect("a key");
    let (code, settings) = live.end();
    assert_eq!(code, Some(0));
    assert_restored(&settings);
}

/// With SIGHUP, and where the parent has it ignored.
#[test]
fn top_ends_when_its_terminal_is_gone() {
    for ignored in [false, true] {
        let trap = if ignored {
            "trap '' HUP; exec \"$@\""
        } else {
            "exec \"$@\""
        };
        let (mut screen, slave) = new_terminal_of(80);
        let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
        // The tests may run under nohup.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP", "setsid"])
            .args(["--ctty", "--wait", "sh", "-c", trap, "sh"])
            .args([SEMRING, "top", "-i", "50ms"])
            .env("TERM", "xterm")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio());
        let mut child = command.spawn().expect("setsid starts");
        drop(command);
        drop(slave);
        let mut drawn = Vec::new();
        let mut block = [0; 4096];
        while !String::from_utf8_lossy(&drawn).contains("semring top") {
            let count = screen.read(&mut block).expect("it draws");
            drawn.extend(&block[..count]);
        }
        drop(screen);
        let mut status = None;
        wait_until("it has ended", || {
            status = child.try_wait().expect("our child");
            status.is_some()
        });
        let status = status.expect("it has ended");
        use std::os::unix::process::ExitStatusExt;
        if ignored {
            assert_eq!(status.code(), Some(1));
        } else {
            // setsid gives it on as a shell does, or was replaced by it.
            let hung_up =
                status.signal() == Some(libc::SIGHUP) || status.code() == Some(128 + libc::SIGHUP);
            assert!(hung_up, "{status}");
        }
    }
}
