//! Completions for shells: clap's scripts, extended by the names of the rings that exist when the key is
//! pressed.
//!
//! The scripts call `semring __complete-rings`, which is not declared among the commands, so that no
//! help or list shows it.

use std::fmt::Write;

use clap::{Arg, Command};
use clap_complete::Shell;
use semring::Backend;

/// The hidden command that prints the names.
pub(crate) const ASK: &str = "__complete-rings";

/// The call in a script.
const CALL: &str = "semring __complete-rings 2>/dev/null";

/// The commands of `semring` that take a ring which exists.
const TAKE_A_RING: &str = "info rm reset-counts";

/// The names of all rings, one a line, as short as they can be.
pub(crate) fn rings() -> String {
    semring::list()
        .iter()
        .map(|ring| match ring.backend {
            Backend::Posix => ring.name.clone() + "\n",
            _ => format!("{}\n", ring.address),
        })
        .collect()
}

/// A script for the command.
pub(crate) fn script(shell: Shell, mut command: Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => {
            let function = script
                .lines()
                .next()
                .and_then(|line| line.strip_suffix("() {"));
            let wrapper = bash(&name, function.unwrap_or(":"), &command);
            script + &wrapper
        }
        Shell::Zsh => zsh(&script),
        Shell::Fish => script + &fish(&name),
        // The others have the options only.
        _ => script,
    }
}

/// One script for all programs, to be sourced or stored.
pub(crate) fn script_of_all(shell: Shell, commands: impl Iterator<Item = Command>) -> String {
    let commands: Vec<Command> = commands.collect();
    let names: Vec<String> = commands.iter().map(|c| c.get_name().to_owned()).collect();
    let scripts = commands.into_iter().map(|command| script(shell, command));
    match shell {
        Shell::Zsh => zsh_of_all(&names, scripts),
        Shell::PowerShell => {
            // They must stand before everything else, once.
            let is_import = |line: &&str| line.starts_with("using namespace ");
            let scripts: Vec<String> = scripts.collect();
            let imports = scripts.first().map_or("", String::as_str).lines();
            let rest = scripts.iter().flat_map(|script| script.lines());
            imports
                .filter(is_import)
                .chain(rest.filter(|line| !is_import(line)))
                .map(|line| format!("{line}\n"))
                .collect()
        }
        _ => scripts.collect(),
    }
}

/// Zsh: sourced, each program gets its function. As a file of `fpath` it is called as the function of
/// whichever program was completed first.
fn zsh_of_all(names: &[String], scripts: impl Iterator<Item = String>) -> String {
    let mut result = format!("#compdef {}\n", names.join(" "));
    for (script, name) in scripts.zip(names) {
        let end = format!("if [ \"$funcstack[1]\" = \"_{name}\" ]; then");
        let body = script.split_once('\n').map_or("", |(_, body)| body);
        result += body.split_once(&end).map_or(body, |(body, _)| body);
    }
    let first = names.first().map_or("", String::as_str);
    for name in names {
        let _ = writeln!(result, "compdef _{name} {name}");
    }
    let _ = writeln!(
        result,
        "if [ \"$funcstack[1]\" = \"_{first}\" ]; then\n    \"_$service\" \"$@\"\nfi"
    );
    result
}

/// Options that are followed by a value of their own.
fn value_options(command: &Command) -> Vec<String> {
    let takes = |arg: &&Arg| !arg.is_positional() && arg.get_action().takes_values();
    let mut options: Vec<String> = command
        .get_arguments()
        .filter(takes)
        .flat_map(|arg| {
            let short = arg.get_short().map(|short| format!("-{short}"));
            short
                .into_iter()
                .chain(arg.get_long().map(|long| format!("--{long}")))
        })
        .collect();
    options.extend(command.get_subcommands().flat_map(value_options));
    options.sort();
    options.dedup();
    options
}

/// Bash: a function around clap's. A colon ends a word there, so of `sysv:name` only the rest is given.
fn bash(name: &str, function: &str, command: &Command) -> String {
    let options = value_options(command).join("|");
    let condition = if command.has_subcommands() {
        format!(
            "[[ \" {TAKE_A_RING} \" == *\" ${{COMP_WORDS[1]}} \"* && COMP_CWORD -gt 1 ]] || return 0"
        )
    } else {
        "true".to_owned()
    };
    let mut script = String::new();
    let _ = write!(
        script,
        r#"
{function}_with_rings() {{
    {function} "$@"
    local word="${{COMP_LINE:0:COMP_POINT}}" before="" ring
    word="${{word##*[[:space:]]}}"
    {condition}
    [[ "$word" != -* ]] || return 0
    # A word after an option that has a value is that value.
    case "$3" in
        {options}) return 0 ;;
    esac
    [[ "$word" != *:* || "$COMP_WORDBREAKS" != *:* ]] || before="${{word%"${{word##*:}}"}}"
    COMPREPLY=()
    while IFS= read -r ring; do
        [[ "$ring" != "$word"* ]] || COMPREPLY+=("${{ring#"$before"}}")
    done < <({CALL})
}}

complete -F {function}_with_rings {name}
"#
    );
    script
}

/// Zsh: the action after each ring's address.
fn zsh(script: &str) -> String {
    let function = format!(
        "\n_semring_rings() {{\n    local -a rings\n    rings=(${{(f)\"$({CALL})\"}})\n    compadd -a rings\n}}\n"
    );
    let mut lines = script.lines();
    let first = lines.next().unwrap_or_default();
    let mut result = format!("{first}\n{function}");
    for line in lines {
        let address = line.starts_with("':address -- ");
        if address && let Some(head) = line.strip_suffix(":_default' \\") {
            let _ = writeln!(result, "{head}:_semring_rings' \\");
        } else {
            result += line;
            result.push('\n');
        }
    }
    result
}

/// Fish: one more line.
fn fish(name: &str) -> String {
    let condition = if name == "semring" {
        format!(" -n \"__fish_seen_subcommand_from {TAKE_A_RING}\"")
    } else {
        String::new()
    };
    format!("complete -c {name}{condition} -f -a \"({CALL})\"\n")
}
