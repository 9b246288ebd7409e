//! Output on stderr: messages, figures, progress. stdout carries payload only.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use semring::WaitStats;
use serde::Serialize;

use crate::args::MannerArgs;
use crate::exit::Failure;
use crate::signals::Signals;
use crate::text::print_error;
use crate::units::count;

/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// Reports on stderr in the name of a program: sentences and figures, or with `--json` one object at the
/// end that holds all of it.
pub(crate) struct Report {
    program: &'static str,
    quiet: bool,
    verbose: bool,
    stats: bool,
    progress: Option<ProgressBar>,
    /// With `--json`: the sentences so far.
    notes: Option<RefCell<Vec<String>>>,
}

impl Report {
    pub(crate) fn new(program: &'static str, manner: &MannerArgs) -> Self {
        Self {
            program,
            quiet: manner.quiet,
            verbose: manner.verbose,
            stats: manner.stats,
            progress: progress_bar(manner),
            notes: manner.json.then(RefCell::default),
        }
    }

    /// An error: printed in any case.
    pub(crate) fn error(&self, sentence: impl fmt::Display) {
        if let Some(notes) = &self.notes {
            notes.borrow_mut().push(sentence.to_string());
            return;
        }
        match &self.progress {
            Some(bar) => bar.suspend(|| say(self.program, sentence)),
            None => say(self.program, sentence),
        }
    }

    /// A note: printed unless quiet.
    pub(crate) fn mention(&self, sentence: impl fmt::Display) {
        if !self.quiet {
            self.error(sentence);
        }
    }

    /// A detail: printed with --verbose.
    pub(crate) fn detail(&self, sentence: impl fmt::Display) {
        if self.verbose {
            self.error(sentence);
        }
    }

    /// So much has moved by now.
    pub(crate) fn moved(&self, totals: &Totals) {
        if let Some(bar) = &self.progress {
            bar.set_position(totals.bytes);
        }
    }

    /// The transfer is over: the progress line is, too.
    pub(crate) fn end_progress(&mut self) {
        if let Some(bar) = self.progress.take() {
            bar.abandon();
            print_error("\n");
        }
    }

    /// Prints the requested figures. With `--json` the object also holds how the program ends, so the
    /// returned result has no message any more.
    pub(crate) fn finish(
        &self,
        ring: &str,
        stats: Option<&Stats>,
        result: Result<u8, Failure>,
    ) -> Result<u8, Failure> {
        let Some(notes) = &self.notes else {
            if let Some(stats) = stats.filter(|_| self.stats) {
                say(self.program, stats);
            }
            return result;
        };
        let (exit_code, error) = match &result {
            Ok(code) => (*code, None),
            Err(failure) => (failure.code, Some(failure.sentence.as_str())),
        };
        let summary = Summary {
            ring,
            stats,
            notes: &notes.borrow(),
            error: error.filter(|sentence| !sentence.is_empty()),
            exit_code,
        };
        print_error(&(serde_json::to_string(&summary).unwrap_or_default() + "\n"));
        result.map_err(|failure| Failure {
            sentence: String::new(),
            ..failure
        })
    }
}

/// The object that `--json` prints at the end.
#[derive(Serialize)]
struct Summary<'a> {
    ring: &'a str,
    /// Nothing if the ring could not be used at all.
    #[serde(flatten)]
    stats: Option<&'a Stats>,
    /// The sentences that would stand on stderr otherwise.
    notes: &'a [String],
    error: Option<&'a str>,
    /// 128+n for an end by signal n.
    exit_code: u8,
}

/// One sentence on stderr, if there is one to take it.
pub(crate) fn say(program: &str, sentence: impl fmt::Display) {
    print_error(&format!("{program}: {sentence}\n"));
}

/// Ends a program: prints the sentence, returns the code or ends by the signal.
pub(crate) fn end(program: &str, result: Result<u8, Failure>) -> ExitCode {
    let code = result.unwrap_or_else(|failure| {
        if !failure.sentence.is_empty() {
            say(program, &failure);
        }
        failure.signal.map_or(failure.code, Signals::end_by)
    });
    ExitCode::from(code)
}

/// The amounts that were moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// The figures of `--stats`.
#[derive(Debug, Serialize)]
pub(crate) struct Stats {
    messages: u64,
    bytes: u64,
    seconds: f64,
    mb_per_second: f64,
    sleeps: u64,
    wakes: u64,
    /// The producers of the ring so far; the consumer's only.
    #[serde(flatten)]
    producers: Option<Producers>,
}

/// How the producers of a ring ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Producers {
    pub(crate) finished_producers: u64,
    pub(crate) died_producers: u64,
}

impl Stats {
    pub(crate) fn new(totals: Totals, began: Instant, waits: WaitStats) -> Self {
        let Totals { messages, bytes } = totals;
        let seconds = began.elapsed().as_secs_f64();
        let mb_per_second = if seconds > 0.0 {
            bytes as f64 / 1e6 / seconds
        } else {
            0.0
        };
        Self {
            messages,
            bytes,
            seconds,
            mb_per_second,
            sleeps: waits.sleeps,
            wakes: waits.wakeups,
            producers: None,
        }
    }

    /// The same, with how the producers ended.
    pub(crate) fn with_producers(mut self, producers: Option<Producers>) -> Self {
        self.producers = producers;
        self
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} in {:.3} s, {:.1} MB/s, {}, {}",
            count(self.messages, "message"),
            count(self.bytes, "byte"),
            self.seconds,
            self.mb_per_second,
            count(self.sleeps, "sleep"),
            count(self.wakes, "wake"),
        )?;
        match self.producers {
            Some(Producers { died_producers, .. }) if died_producers > 0 => {
                write!(f, ", {} died", count(died_producers, "producer"))
            }
            _ => Ok(()),
        }
    }
}

fn progress_bar(manner: &MannerArgs) -> Option<ProgressBar> {
    let terminal = io::stderr().is_terminal();
    let wanted = manner.force_progress || (manner.progress && terminal);
    if !wanted {
        return None;
    }
    let target = if terminal {
        ProgressDrawTarget::stderr_with_hz(4)
    } else {
        ProgressDrawTarget::term_like_with_hz(Box::new(PlainStderr), 4)
    };
    let style = ProgressStyle::with_template("{bytes} {bytes_per_sec} {elapsed_precise}");
    let style = style.expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(None, target).with_style(style);
    bar.enable_steady_tick(DRAW_EVERY);
    Some(bar)
}

/// stderr where it is no terminal: a line that is written over with carriage returns, no other codes.
#[derive(Debug)]
struct PlainStderr;

impl TermLike for PlainStderr {
    fn width(&self) -> u16 {
        80
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(&format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        print_error(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r")
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_one_line_or_one_object() {
        let totals = Totals {
            messages: 1,
            bytes: 2_000_000,
        };
        let stats = Stats {
            sleeps: 3,
            wakes: 1,
            seconds: 2.0,
            mb_per_second: 1.0,
            ..Stats::new(totals, Instant::now(), WaitStats::default())
        };
        assert_eq!(
            stats.to_string(),
            "1 message, 2000000 bytes in 2.000 s, 1.0 MB/s, 3 sleeps, 1 wake"
        );
        let object: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&stats).unwrap()).unwrap();
        assert_eq!(object["messages"], 1);
        assert_eq!(object["mb_per_second"], 1.0);
        assert_eq!(object["sleeps"], 3);
    }
}
