//! Man pages and completions, from the declarations of the options.

use std::io::{self, IsTerminal, Write};
use std::process::Stdio;

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::admin::AdminArgs;
use crate::afterwords;
use crate::args::{self, ConsumerArgs, ProducerArgs};
use crate::exit::{self, Failure};
use crate::text::print;

/// The programs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    Semring,
    #[value(name = "semring-producer")]
    Producer,
    #[value(name = "semring-consumer")]
    Consumer,
}

fn command(program: Program) -> Command {
    match program {
        Program::Semring => AdminArgs::command(),
        Program::Producer => ProducerArgs::command(),
        Program::Consumer => ConsumerArgs::command(),
    }
}

/// A completion script for all programs.
pub(crate) fn all_completions(shell: Shell) -> String {
    let programs = Program::value_variants().iter().copied();
    crate::completions::script_of_all(shell, programs.map(command))
}

/// A completion script.
pub(crate) fn completions(shell: Shell, program: Program) -> String {
    crate::completions::script(shell, command(program))
}

/// A program, or a command of `semring`: `ls` or `semring-ls`, with the name `semring-ls`.
pub(crate) fn named(name: &str) -> Result<Command, Failure> {
    let mut programs = [
        args::command::<ProducerArgs>(),
        args::command::<ConsumerArgs>(),
    ];
    let mut admin = args::command::<AdminArgs>();
    admin.build();
    if name == admin.get_name() {
        return Ok(admin);
    }
    let short = name.strip_prefix("semring-").unwrap_or(name);
    let program = programs
        .iter_mut()
        .find(|program| program.get_name().strip_prefix("semring-") == Some(short));
    if let Some(program) = program {
        program.build();
        return Ok(program.clone());
    }
    let commands = || admin.get_subcommands();
    match commands().find(|command| command.get_name() == short) {
        Some(command) => Ok(command.clone().name(format!("semring-{short}"))),
        None => {
            let names: Vec<&str> = commands().map(Command::get_name).collect();
            let names = names.join(", ");
            Err(Failure::new(
                exit::USAGE,
                format!("no command {name:?}: there are {names}, producer and consumer"),
            ))
        }
    }
}

/// The man page of a program or command, in roff.
pub(crate) fn man(name: &str) -> Result<String, Failure> {
    let mut roff = Vec::new();
    render(named(name)?, &mut roff).map_err(|error| Failure::run_time(error.to_string()))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

/// Shows a man page by `man` if stdout is a terminal; prints it otherwise, or if there is no `man`.
pub(crate) fn show(roff: &str) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return print(roff);
    }
    let man = std::process::Command::new("man")
        .args(["-l", "-"])
        .stdin(Stdio::piped())
        .spawn();
    let Ok(mut man) = man else {
        return print(roff);
    };
    if let Some(mut stdin) = man.stdin.take() {
        // An early end of the reader is no error.
        let _ = stdin.write_all(roff.as_bytes());
    }
    match man.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::run_time(format!("man: {status}"))),
        Err(error) => Err(Failure::run_time(format!("man: {error}"))),
    }
}

fn render(command: Command, roff: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let has_subcommands = command
        .get_subcommands()
        .any(|command| !command.is_hide_set());
    let man = Man::new(command)
        .source(concat!("semring ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    man.render_title(roff)?;
    man.render_name_section(roff)?;
    man.render_synopsis_section(roff)?;
    man.render_description_section(roff)?;
    man.render_options_section(roff)?;
    if has_subcommands {
        man.render_subcommands_section(roff)?;
    }
    sections(&afterwords::of(&name)).to_writer(roff)?;
    see_also(&name).to_writer(roff)
}

/// The other pages.
fn see_also(name: &str) -> Roff {
    let pages = ["semring", "semring-producer", "semring-consumer"];
    let others = pages.into_iter().filter(|page| *page != name);
    let list: Vec<String> = others
        .map(|page| format!("{page}(1)"))
        .chain(["shm_overview(7)".to_owned(), "sysvipc(7)".to_owned()])
        .collect();
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(list.join(", "))]);
    roff
}

/// The sections of an afterword: a heading ends with a colon and is not indented; indented lines are
/// kept as they are.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut verbatim = false;
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|_| !line.starts_with(' '));
        if let Some(heading) = heading {
            if verbatim {
                roff.control("fi", []);
            }
            verbatim = !["Framing", "Ends"].contains(&heading);
            roff.control("SH", [heading.to_uppercase().as_str()]);
            if verbatim {
                roff.control("nf", []);
            }
        } else if line.is_empty() && !verbatim {
            roff.control("PP", []);
        } else if verbatim {
            roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        } else {
            roff.text([roman(line.trim_start())]);
        }
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list in a paragraph would flow into one: each way has a line of its own, which does not wrap.
    #[test]
    fn the_page_of_bench_lists_one_way_a_line() {
        let page = man("semring-bench").unwrap();
        let (_, list) = page.split_once("\n.SH WAYS").unwrap();
        assert!(list.lines().nth(1) == Some(".nf"), "{page}");
        for way in semring_bench::Way::all() {
            let name = way.name.replace('-', "\\-");
            let is_own = |line: &str| {
                line.trim_start_matches(['*', ' '])
                    .starts_with(&format!("{name} "))
            };
            assert!(list.lines().any(is_own), "{}: {page}", way.name);
        }
        let text = crate::bench::ways_section();
        assert!(
            text.lines().all(|line| line.chars().count() <= 75),
            "{text}"
        );
    }

    #[test]
    fn each_page_and_each_completion_can_be_made() {
        for page in [
            "semring",
            "semring-producer",
            "semring-consumer",
            "semring-ls",
            "semring-rm",
        ] {
            let text = man(page).unwrap();
            assert!(
                text.contains(".SH NAME") && text.contains(".SH \"EXIT STATUS\""),
                "{page}: {text}"
            );
        }
        for short in ["ls", "producer", "man"] {
            assert_eq!(
                man(short).unwrap(),
                man(&format!("semring-{short}")).unwrap()
            );
        }
        let failure = man("semring-list").unwrap_err();
        assert_eq!(failure.code, exit::USAGE);
        assert!(failure.sentence.contains("ls, info, rm"), "{failure}");
        for shell in Shell::value_variants() {
            for program in Program::value_variants() {
                assert!(completions(*shell, *program).len() > 100);
            }
            assert!(all_completions(*shell).contains("semring-consumer"));
        }
    }
}
