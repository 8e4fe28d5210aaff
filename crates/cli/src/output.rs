//! Standard output that may be a closed pipe, and whether to use colours.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use crate::args::Colour;
use crate::commands::Stop;

/// Writes `text` to standard output. A reader that has gone away is no error.
///
/// # Errors
/// If standard output fails otherwise, such as on a full disk.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Stop> {
    print_parts([text])
}

/// As [`print`], of parts that are made as they are written.
///
/// # Errors
/// As [`print`].
pub fn print_parts(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    let written = parts.into_iter().try_for_each(|part| stdout.write_all(part.as_ref()));
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Stop::infra(format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether to colour what goes to `stream`. A flag beats variables; of these `NO_COLOR` beats `CLICOLOR_FORCE`, which
/// beats `CLICOLOR=0` and `TERM=dumb`. Sources: no-color.org, bixense.com/clicolors.
pub fn coloured(choice: Colour, stream: &impl IsTerminal) -> bool {
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => coloured_by_itself(stream.is_terminal(), |name| std::env::var_os(name)),
    }
}

fn coloured_by_itself(is_terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let is_declined = set("CLICOLOR").is_some_and(|value| value == "0");
    is_terminal && !is_declined && !is_dumb(set("TERM"))
}

/// How many cells a line of `stream` may take: a terminal's width; elsewhere no number that a line reaches.
pub fn columns(stream: &impl IsTerminal) -> usize {
    match stream.is_terminal().then(crossterm::terminal::size) {
        Some(Ok((columns, _))) if columns > 0 => usize::from(columns),
        _ => usize::MAX,
    }
}

/// Whether the terminal, if there is one, can move its cursor.
pub fn has_cursor() -> bool {
    !is_dumb(std::env::var_os("TERM"))
}

fn is_dumb(terminal: Option<OsString>) -> bool {
    terminal.is_some_and(|name| name == "dumb")
}

#[cfg(test)]
mod tests {
    use super::coloured_by_itself;

    #[test]
    fn variables_say_when_to_colour() {
        let check = |is_terminal: bool, variables: &[(&str, &str)], expected: bool| {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            assert_eq!(coloured_by_itself(is_terminal, variable), expected, "{is_terminal} {variables:?}");
        };
        check(true, &[("TERM", "xterm")], true);
        check(true, &[], true);
        check(false, &[], false);
        check(true, &[("NO_COLOR", "1")], false);
        check(true, &[("NO_COLOR", "")], true);
        check(true, &[("CLICOLOR", "0")], false);
        check(true, &[("CLICOLOR", "1")], true);
        check(true, &[("TERM", "dumb")], false);
        check(false, &[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")], true);
        check(false, &[("CLICOLOR_FORCE", "0")], false);
        check(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], false);
    }
}
