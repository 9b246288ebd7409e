//! The terminal while the view uses it: taken, restored at the end, and restored as long as the
//! process is stopped.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{getpgrp, tcgetpgrp};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use semring_stdio::{Target, stop_by};
use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::signals::not_ignored;
use crate::text::Stdout;

type Screen = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// With an empty picture.
fn terminal() -> io::Result<ManuallyDrop<Screen>> {
    let backend = CrosstermBackend::new(BufWriter::new(Stdout));
    Terminal::new(backend).map(ManuallyDrop::new)
}

/// A terminal in raw mode that shows its other screen. Dropped, it is as it was before.
pub(super) struct Taken {
    /// Never dropped: that would print to stderr, and panic, where the terminal is gone.
    pub(super) terminal: ManuallyDrop<Screen>,
    /// `SIGTSTP`, `SIGCONT` and `SIGWINCH`, without those that are ignored since before `exec`.
    job_control: Signals,
    can_stop: bool,
    given_back: bool,
}

impl Taken {
    pub(super) fn new() -> io::Result<Self> {
        let wanted = not_ignored(&[SIGTSTP, SIGCONT, SIGWINCH]);
        let job_control = Signals::new(&wanted)?;
        let mut taken = Self {
            terminal: terminal()?,
            job_control,
            can_stop: wanted.contains(&SIGTSTP),
            given_back: true,
        };
        taken.take()?;
        Ok(taken)
    }

    fn take(&mut self) -> io::Result<()> {
        self.given_back = false;
        enable_raw_mode()?;
        execute!(Stdout, EnterAlternateScreen)?;
        // Nothing of the last picture is left. (`clear` would query the terminal for its cursor position.)
        self.terminal = terminal()?;
        Ok(())
    }

    /// The terminal is as it was before.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.given_back, true) {
            return Ok(());
        }
        // Output that was not drawn completely must not appear later.
        let drawn = self.terminal.backend_mut().flush();
        let left = execute!(Stdout, LeaveAlternateScreen, Show);
        // Also if nothing can be written any more.
        disable_raw_mode().and(left).and(drawn)
    }

    /// After Ctrl-Z: stops the process group, as the terminal does where a program leaves Ctrl-Z to it.
    /// Returns when the process goes on.
    pub(super) fn stop_all(&mut self) -> io::Result<()> {
        if self.can_stop {
            self.stop(Target::Group)?;
        }
        Ok(())
    }

    /// Acts on signals that came; true if everything has to be drawn again, because the terminal was away or has
    /// another size.
    pub(super) fn follow_job_control(&mut self) -> io::Result<bool> {
        let came: Vec<i32> = self.job_control.pending().collect();
        if came.contains(&SIGTSTP) {
            self.stop(Target::Process)?;
            return Ok(true);
        }
        if came.contains(&SIGCONT) {
            // It was stopped without a warning, and the shell has set the terminal for itself.
            self.give_back()?;
            self.take_again()?;
            return Ok(true);
        }
        // The next drawing reads the size.
        Ok(came.contains(&SIGWINCH))
    }

    /// Whether keys may be read: a read in the background stops the process. A terminal that does not control
    /// this process has no foreground for it.
    pub(super) fn is_in_foreground() -> bool {
        tcgetpgrp(io::stdin()).map_or(true, |group| group == getpgrp())
    }

    /// Whether there is still a terminal: it may have gone where SIGHUP is ignored.
    pub(super) fn check() -> io::Result<()> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(1..) if !stdin.is_terminal() => Err(Errno::EIO.into()),
            _ => Ok(()),
        }
    }

    fn stop(&mut self, target: Target) -> io::Result<()> {
        self.give_back()?;
        stop_by(SIGTSTP, target)?;
        // The SIGCONT of this stop.
        self.job_control.pending().for_each(drop);
        self.take_again()
    }

    /// After a stop. The process may be continued before it is in the foreground: setting the terminal
    /// would then stop it at once by `SIGTTOU`.
    fn take_again(&mut self) -> io::Result<()> {
        let mut background = SigSet::empty();
        background.add(Signal::SIGTTOU);
        let before = background.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let taken = self.take();
        before.thread_set_mask()?;
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = self.give_back();
    }
}
