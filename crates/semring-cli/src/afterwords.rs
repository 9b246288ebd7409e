//! The text after the options in `--help` and in the man pages: sections whose heading ends with a
//! colon and is not indented; indented lines are kept as they are.

use crate::bench;

/// An exit code and what it means.
type Exit = (&'static str, &'static str);

const STATUS: &[Exit] = &[
    ("0", "done, end of stream"),
    FAILURE,
    (
        "2",
        "wrong use, or a ring or framing other than the requested one",
    ),
    NO_RING,
    REFUSED,
    OTHER_FORMAT,
    ("6", "finished, but something was lost or damaged"),
    ("124", "nothing moved for the time of --timeout"),
    ("141", "the reader is gone"),
    BY_SIGNAL,
];

const FAILURE: Exit = ("1", "failure at run time");
const WRONG_USE: Exit = ("2", "wrong use");
const NO_RING: Exit = ("3", "no such ring");
const REFUSED: Exit = ("4", "permission denied");
const OTHER_FORMAT: Exit = ("5", "not a ring, or one of another format version");
const READER_GONE: Exit = ("141", "the reader of the output is gone");
const BY_SIGNAL: Exit = ("128+n", "ended by signal n");

/// The exit codes of a program or command.
fn exits(page: &str) -> Vec<Exit> {
    let (done, own): (Exit, &[Exit]) = match page {
        "semring-producer" | "semring-consumer" | "semring" => return STATUS.to_vec(),
        "semring-create" | "semring-info" | "semring-rm" | "semring-reset-counts" => (
            ("0", "done"),
            &[FAILURE, WRONG_USE, NO_RING, REFUSED, OTHER_FORMAT],
        ),
        "semring-prune" => (("0", "done"), &[FAILURE, WRONG_USE, REFUSED, OTHER_FORMAT]),
        "semring-doctor" => (
            ("0", "rings work here, possibly with warnings"),
            &[("1", "there is a problem"), WRONG_USE],
        ),
        _ => (("0", "done"), &[FAILURE, WRONG_USE]),
    };
    [&[done], own, &[READER_GONE, BY_SIGNAL]].concat()
}

fn exit_status(page: &str) -> String {
    let mut text = "Exit status:\n".to_owned();
    for (code, meaning) in exits(page) {
        text += &format!("  {code:<5}  {meaning}\n");
    }
    text
}

/// The environment variables that a program or command reads.
fn environment(page: &str) -> String {
    let mut text = "\nEnvironment:\n  NO_COLOR       if set and not empty: no colours\n".to_owned();
    let makes_rings = [
        "semring",
        "semring-create",
        "semring-producer",
        "semring-consumer",
        "semring-bench",
    ];
    if makes_rings.contains(&page) {
        text += "  SEMRING_GUARD  what --guard auto means for new rings: semaphore or pipe\n";
    }
    text
}

const ADMIN: &str = "\
Examples:
  semring ls
  semring info numbers
  semring rm numbers
  semring prune --dry-run
  semring doctor
  source <(semring completions bash)
  semring man producer

";

const PRODUCER: &str = "\
Framing:
  Each line is a message without its newline, unless another framing is
  given. Each message carries its framing, so the consumer writes it as it was
  read: a last line without a newline comes out without one. A message may be
  a quarter of the capacity. A longer line, or one that ends with NUL, travels
  in parts, which the consumer joins (--long-lines); a longer record, or an
  input that ends inside one, ends the producer with 1, and what came before
  it is sent.

Ends:
  The producer ends with 0 at the end of its input, whether or not a consumer
  is there; it reports how many messages wait in the ring. When its consumer
  is gone it ends with 141. If it is killed, or ends with anything but 0 or
  141, its stream counts as incomplete, and the consumer ends with 6.

Examples:
  seq 1 1000000 | semring-producer numbers &
  semring-consumer numbers | sha256sum

  tail -F access.log | semring-producer --wait-for-consumer log
  tar c dir | semring-producer --raw --capacity 4M backup

";

const CONSUMER: &str = "\
Framing:
  Each message is written as the producer read it; plain messages of programs
  that use the library are written as lines. If a framing is given and a
  message has another one, the consumer ends with 2; with --convert it
  writes the message in the given framing.

Ends:
  The stream ends when the producers are gone and the ring is empty. The
  consumer ends with 6 if one of them was killed or failed: the stream may be
  truncated. Producers that run one after the other are one stream with the
  option --linger TIME, or --follow. A consumer that ends earlier leaves the
  unread messages in the ring, and reports it, unless its stdout was closed or
  the option --discard-unread was given.

  It writes before it releases: a consumer that is killed loses nothing; at
  most what its last write held comes again to the next one. After a signal, a
  time-out or a full disk only a message that was written in part comes again;
  a file does not keep that part. To throw messages away, write >/dev/null.

Examples:
  semring-consumer numbers | sha256sum
  semring-consumer --follow log >> all.log

  semring-consumer --linger 2s found &
  ls *.log | xargs -P8 -I{} sh -c 'grep x {} | semring-producer found'
  semring-consumer --count 10 numbers

";

/// The examples and notes of a command of `semring`.
fn of_command(command: &str) -> &'static str {
    match command {
        "create" => {
            "\
Examples:
  semring create orders
  semring create --producers 16 --capacity 1M --mode 0660 orders
  semring create sysv:orders
  semring create --guard pipe -v orders

"
        }
        "ls" => {
            "\
Examples:
  semring ls
  semring ls --json | jq -r 'select(.died_producers > 0).address'
  semring ls --noheadings -o address,unread_messages

"
        }
        "info" => {
            "\
Examples:
  semring info orders
  semring info --json orders | jq .died_producers

"
        }
        "rm" => {
            "\
Examples:
  semring rm orders
  semring rm --force orders

"
        }
        "reset-counts" => {
            "\
Examples:
  semring reset-counts orders

"
        }
        "prune" => {
            "\
Examples:
  semring prune --dry-run
  semring prune
  semring prune --discard-unread

"
        }
        "top" => {
            "\
Keys:
  q, Esc, Ctrl-C    end
  Ctrl-Z            stop, until fg continues it
  Up, Down, k, j    choose the ring whose lanes are shown
  ?                 explain the columns and keys

Examples:
  semring top
  semring top -i 250ms
  semring top --json -i 5s | jq '{address, sent_per_second}'

"
        }
        "bench" => {
            "\
Examples:
  semring bench --report bench.html
  semring bench --peer semring,pipe --size 64 --workload one-way
  semring bench --workload producers --senders 1,4,16 --small-size 64,1K
  semring bench --trial --json | jq -r .way

"
        }
        "doctor" => {
            "\
Examples:
  semring doctor
  semring doctor --json | jq 'select(.state != \"ok\")'

"
        }
        "completions" => {
            "\
Examples:
  source <(semring completions bash)
  semring completions zsh > ~/.zfunc/_semring
  semring completions fish | source
  semring completions fish semring-producer

"
        }
        "help" => {
            "\
Examples:
  semring help ls
  semring help producer

"
        }
        "man" => {
            "\
Examples:
  semring man ls
  semring man producer | man -l -

"
        }
        _ => "",
    }
}

/// The text after the options of a program, or of a command named as `semring-ls`.
pub(crate) fn of(page: &str) -> String {
    let own = match page {
        "semring-producer" => PRODUCER,
        "semring-consumer" => CONSUMER,
        "semring" => ADMIN,
        command => of_command(command.strip_prefix("semring-").unwrap_or(command)),
    };
    let ways = if page == "semring-bench" {
        bench::ways_section()
    } else {
        String::new()
    };
    format!("{own}{ways}{}{}", exit_status(page), environment(page))
}
