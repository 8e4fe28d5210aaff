//! The list of commands in `ropewalk --help`: under headings, in the order in which somebody new meets them. Nothing here says
//! what a command does: its line is what the command says of itself.

use std::fmt::Write as _;

use clap::CommandFactory;

use super::Arguments;

/// The headings of the list, each with the names of its commands. Every command that is not hidden stands under one of them.
const HEADINGS: [(&str, &[&str]); 8] = [
    ("Run on this machine", &["init", "run", "check", "plan", "test", "export"]),
    ("Look at builds", &["builds", "show", "logs", "explain", "shell", "cache"]),
    ("Go on with builds", &["retry", "approve", "cancel", "urge"]),
    ("Build on a server", &["submit", "secrets", "quarantine"]),
    ("Keep a server", &["serve", "config", "doctor", "backup", "restore", "migrate-store"]),
    ("Workers of a server", &["work", "workers", "pools"]),
    ("Access to a server", &["member", "token"]),
    ("Command line", &["completions"]),
];

/// The command line, as it is read and as its help pages are made.
pub fn command_line() -> clap::Command {
    // `ropewalk help token create` is all of it that people need.
    let command = Arguments::command().mut_subcommands(|command| command.disable_help_subcommand(true));
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}Options:{}\n{{options}}{{after-help}}",
        list(&command),
        command.get_styles().get_header().render(),
        command.get_styles().get_header().render_reset(),
    );
    command.help_template(template)
}

/// The commands under their headings, a line each, with an empty line behind each heading's.
fn list(command: &clap::Command) -> String {
    let (header, literal) = (command.get_styles().get_header(), command.get_styles().get_literal());
    let width = HEADINGS.iter().flat_map(|(_, names)| *names).map(|name| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in HEADINGS {
        let _ = writeln!(text, "{}{heading}:{}", header.render(), header.render_reset());
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {}{name:width$}{}  {about}", literal.render(), literal.render_reset());
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_under_one_heading() {
        let command = Arguments::command();
        let mut there: Vec<_> = command.get_subcommands().filter(|command| !command.is_hide_set()).collect();
        there.sort_by_key(|command| command.get_name());
        let mut listed: Vec<_> = HEADINGS.iter().flat_map(|(_, names)| *names).copied().collect();
        listed.sort_unstable();
        let there: Vec<_> = there.iter().map(|command| command.get_name()).collect();
        assert_eq!(listed, there, "HEADINGS lists every command that is not hidden, once");
    }

    #[test]
    fn every_command_is_one_line_of_80_columns() {
        let command = Arguments::command().styles(clap::builder::Styles::plain());
        for line in list(&command).lines() {
            assert!(line.chars().count() <= 80, "shorten the first paragraph of this command:\n{line}");
            assert!(!line.contains(['{', '}']), "braces are words of the template:\n{line}");
        }
    }
}
