//! Man pages and completions, from the declarations of the options.

use std::io;

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::admin::AdminArgs;
use crate::afterwords;
use crate::args::{ConsumerArgs, ProducerArgs};
use crate::exit::{self, Failure};

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

/// A completion script.
pub(crate) fn completions(shell: Shell, program: Program) -> String {
    crate::completions::script(shell, command(program))
}

/// A man page, in roff.
pub(crate) fn man(page: &str) -> Result<String, Failure> {
    let programs = [Program::Semring, Program::Producer, Program::Consumer].map(command);
    let mut admin = AdminArgs::command();
    admin.build();
    let subcommands = admin
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| {
            let name = format!("semring-{}", command.get_name());
            command.clone().name(name)
        });
    let Some(command) = programs
        .into_iter()
        .chain(subcommands)
        .find(|command| command.get_name() == page)
    else {
        return Err(Failure::new(
            exit::USAGE,
            format!(
                "no man page {page:?}: there are semring, semring-producer, semring-consumer, semring-ls and the like"
            ),
        ));
    };
    let mut roff = Vec::new();
    render(command, &mut roff).map_err(|error| Failure::run_time(error.to_string()))?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

fn render(command: Command, roff: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let has_subcommands = command
        .get_subcommands()
        .any(|command| !command.is_hide_set());
    let man = Man::new(command);
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

/// The sections of an afterword: a heading ends with a colon and stands at the margin; what is indented
/// stays as it is.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut verbatim = false;
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|_| !line.starts_with(' '));
        if let Some(heading) = heading {
            if verbatim {
                roff.control("fi", []);
            }
            verbatim = heading != "Framing";
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
            assert!(!text.contains("semring-man"), "{page}");
        }
        assert_eq!(man("semring-man").unwrap_err().code, exit::USAGE);
        for shell in Shell::value_variants() {
            for program in Program::value_variants() {
                assert!(completions(*shell, *program).len() > 100);
            }
        }
    }
}
