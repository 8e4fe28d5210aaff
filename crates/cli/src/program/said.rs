//! What cargo said of a program that it does not build: as it was said, for people, and each error as a diagnostic, for other
//! programs. Nothing here calls cargo.

use std::sync::Arc;

use graph::{Diagnostic, Location};

use crate::columns::colourless;

/// The most errors that become diagnostics.
const ERRORS_MAX: usize = 100;
/// The most lines of an error that its diagnostic holds.
const LINES_MAX: usize = 200;
/// How lines begin with which cargo and the compiler end: they count what stands above them.
const CLOSING: [&str; 4] = [
    "error: could not compile ",
    "error: aborting due to ",
    "For more information about this error",
    "Some errors have detailed explanations",
];

/// What was said.
#[derive(Debug)]
pub struct Said {
    /// As it was said, with colours if a terminal was to have them.
    pub text: String,
    /// Each error of it, in its order; at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl Said {
    /// What cargo said of the program that users know as `name`; `shown` gives a file that it speaks of as users know it.
    pub fn new(name: &str, text: String, shown: impl Fn(&str) -> String) -> Self {
        let clean = colourless_lines(&text);
        let mut diagnostics: Vec<Diagnostic> =
            errors(&clean).into_iter().take(ERRORS_MAX).map(|lines| diagnostic(&lines, &shown)).collect();
        if diagnostics.is_empty() {
            let last = clean[clean.len().saturating_sub(LINES_MAX)..].join("\n");
            let message = format!("cargo does not build {name}\n{}", last.trim());
            diagnostics.push(Diagnostic::error("program-not-built", message.trim_end()));
        }
        Self { text, diagnostics }
    }
}

fn colourless_lines(text: &str) -> Vec<String> {
    text.lines().map(colourless).collect()
}

/// The lines of each error: from the one that begins with the word to the next one that begins anything.
fn errors(lines: &[String]) -> Vec<Vec<&str>> {
    let mut errors: Vec<Vec<&str>> = Vec::new();
    let mut is_error = false;
    for line in lines {
        let begins = |word: &str| line.strip_prefix(word).is_some_and(|rest| rest.starts_with([':', '[']));
        if CLOSING.iter().any(|closing| line.starts_with(closing)) || begins("warning") {
            is_error = false;
        } else if begins("error") {
            is_error = true;
            errors.push(vec![line]);
        } else if let (true, Some(error)) = (is_error, errors.last_mut())
            && error.len() < LINES_MAX
        {
            error.push(line);
        }
    }
    errors
}

/// `error[E0599]: no such method` with the lines below it, the first `--> FILE:LINE:COLUMN` among them as its place.
fn diagnostic(lines: &[&str], shown: &impl Fn(&str) -> String) -> Diagnostic {
    let said = lines[0].trim_start_matches("error");
    let first = match said.strip_prefix('[').and_then(|said| said.split_once("]: ")) {
        Some((code, what)) => format!("{what} ({code})"),
        None => said.trim_start_matches([':', ' ']).to_owned(),
    };
    let message = format!("{first}\n{}", lines[1..].join("\n"));
    let diagnostic = Diagnostic::error("program-not-built", message.trim_end());
    match lines.iter().find_map(|line| place(line)) {
        Some((file, line, column)) => {
            let file: Arc<str> = shown(file).into();
            diagnostic.at(Location { file, line, column, start: 0, end: 0 }, "")
        }
        None => diagnostic,
    }
}

fn place(line: &str) -> Option<(&str, u32, u32)> {
    let mut parts = line.trim_start().strip_prefix("--> ")?.rsplitn(3, ':');
    let (column, line) = (parts.next()?.trim_end().parse().ok()?, parts.next()?.parse().ok()?);
    Some((parts.next()?, line, column))
}

#[cfg(test)]
mod tests {
    use super::Said;

    /// File, line, column.
    type Place<'a> = Option<(&'a str, u32, u32)>;

    #[track_caller]
    fn check(said: &str, expected: &[(&str, Place<'_>)]) {
        let said = Said::new(".ropewalk/pipeline.rs", said.to_owned(), |file| format!("ci/{file}"));
        let place = |location: &graph::Location| (location.file.to_string(), location.line, location.column);
        let found: Vec<_> = said.diagnostics.iter().map(|it| (&*it.message, it.location.as_ref().map(place))).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(text, at)| (*text, at.map(|(file, line, column)| (file.to_owned(), line, column))))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_error_is_a_diagnostic_with_its_place() {
        let warning = "warning: unused variable\n --> src/main.rs:1:1\n";
        let first = "\u{1b}[1merror[E0599]\u{1b}[0m: no method `b`\n  --> src/main.rs:8:21\n   |\n8  | a.b()\n";
        let second = "error: expected `;`\n --> src/ö.rs:1:2\n\n";
        let closing =
            "error: could not compile `pipeline` (bin \"pipeline\") due to 2 previous errors; 1 warning emitted\n";
        check(
            &format!("{warning}{first}\n{second}For more information about this error, try `rustc`.\n{closing}"),
            &[
                ("no method `b` (E0599)\n  --> src/main.rs:8:21\n   |\n8  | a.b()", Some(("ci/src/main.rs", 8, 21))),
                ("expected `;`\n --> src/ö.rs:1:2", Some(("ci/src/ö.rs", 1, 2))),
            ],
        );
    }

    #[test]
    fn what_has_no_place_or_no_error_is_told_too() {
        let unresolved = "error: no matching package named `x` found\nlocation searched: crates.io index\n";
        check(unresolved, &[("no matching package named `x` found\nlocation searched: crates.io index", None)]);
        check("killed\n", &[("cargo does not build .ropewalk/pipeline.rs\nkilled", None)]);
        check("", &[("cargo does not build .ropewalk/pipeline.rs", None)]);
    }
}
