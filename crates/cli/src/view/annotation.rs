//! Lines by which a job speaks to whoever reads its log, each at the start of a line of standard output: `::group::TITLE`
//! and `::endgroup::`, `::pending::REASON`, `::notice::TEXT`, `::warning::TEXT`, `::error::TEXT`, the last three also with
//! the place of which they speak (`::error file=a.rs,line=3::TEXT`), each also as Azure writes it (`##[group]TITLE`). Scripts print them as functions do.
//! Source: docs/design/2026-11-21-rust-pipelines.md, Functions; `api::workflow_command`. Logs keep them as they were written.

use std::borrow::Cow;

use api::workflow_command::WorkflowCommand;

use super::Stream;
use crate::columns::{self, Paint, Style};
use crate::words;

/// Spaces before what stands under a heading.
const INDENT: usize = 2;
/// Headings within headings that are indented; deeper ones stand as deep as these.
const DEPTH_SHOWN_MAX: usize = 6;

/// What such a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Annotation<'a> {
    /// What follows stands under this title.
    Group(Cow<'a, str>),
    /// The innermost heading ends.
    EndGroup,
    /// What the job waits for; empty if for nothing more.
    Pending(Cow<'a, str>),
    /// Somebody may want to know it.
    Notice(Cow<'a, str>),
    /// It deserves a look.
    Warning(Cow<'a, str>),
    /// It is wrong, whether or not the job fails by it.
    Error(Cow<'a, str>),
}

impl<'a> Annotation<'a> {
    /// What `line`, without its line feed, says to the reader; `None` for any other line.
    pub fn of(stream: Stream, line: &'a str) -> Option<Self> {
        if stream != Stream::Stdout {
            return None;
        }
        let command = WorkflowCommand::of(line)?;
        match command.word {
            "group" => Some(Self::Group(command.text)),
            "endgroup" => Some(Self::EndGroup),
            "pending" => Some(Self::Pending(command.text)),
            "notice" => Some(Self::Notice(placed(command))),
            "warning" => Some(Self::Warning(placed(command))),
            "error" => Some(Self::Error(placed(command))),
            _ => None,
        }
    }

    /// As people read it; `None` if there is nothing to read.
    pub fn text(&self, paint: Paint) -> Option<String> {
        let (word, style, text) = match self {
            Self::Group(title) => return Some(paint.text(Style::Strong, &format!("▾ {}", columns::bare(title)))),
            Self::EndGroup => return None,
            Self::Pending(reason) if reason.is_empty() => return None,
            Self::Pending(reason) => ("waits:", Style::Ask, reason),
            Self::Notice(text) => ("notice:", Style::Dim, text),
            Self::Warning(text) => ("warning:", Style::Warning, text),
            Self::Error(text) => ("error:", Style::Bad, text),
        };
        Some(paint.text(style, &format!("{word} {}", columns::bare(text))))
    }
}

/// In one line: `file:line:column: title: text`.
fn placed(command: WorkflowCommand<'_>) -> Cow<'_, str> {
    if command.place.is_empty() && command.title.is_empty() && !command.text.contains('\n') {
        return command.text;
    }
    let text = command.message().lines().map(str::trim).collect::<Vec<_>>().join(" ");
    Cow::Owned(if command.place.is_empty() { text } else { format!("{}: {text}", command.place) })
}

/// How a line is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As it is, behind so many spaces.
    AsWritten(usize),
    /// This in its place.
    Instead(String),
    /// Not at all.
    Not,
}

/// The headings that are open in the output of one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headings {
    depth: usize,
}

impl Headings {
    /// How the next line is shown, and what it says if it speaks to the reader.
    pub fn next<'a>(&mut self, stream: Stream, line: &'a str, paint: Paint) -> (Shown, Option<Annotation<'a>>) {
        let annotation = Annotation::of(stream, line);
        let spaces = INDENT * self.depth.min(DEPTH_SHOWN_MAX);
        let Some(said) = &annotation else { return (Shown::AsWritten(spaces), None) };
        match said {
            Annotation::Group(_) => self.depth += 1,
            Annotation::EndGroup => self.depth = self.depth.saturating_sub(1),
            Annotation::Pending(_) | Annotation::Notice(_) | Annotation::Warning(_) | Annotation::Error(_) => {}
        }
        let shown = said.text(paint).map_or(Shown::Not, |text| Shown::Instead(format!("{}{text}", " ".repeat(spaces))));
        (shown, annotation)
    }

    /// Whether the next line stands under a heading.
    pub fn is_inside(self) -> bool {
        self.depth > 0
    }
}

/// How often a job warned and complained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its `::warning::` lines.
    pub warnings: usize,
    /// Its `::error::` lines.
    pub errors: usize,
}

impl Tally {
    /// Counts a line.
    pub fn add(&mut self, said: &Annotation<'_>) {
        match said {
            Annotation::Warning(_) => self.warnings += 1,
            Annotation::Error(_) => self.errors += 1,
            Annotation::Group(_) | Annotation::EndGroup | Annotation::Pending(_) | Annotation::Notice(_) => {}
        }
    }

    /// `2 warnings, 1 error`; empty if there were none.
    pub fn text(self) -> String {
        let parts = [(self.errors, "error"), (self.warnings, "warning")];
        let told = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| words::count(count, word));
        told.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_speak_to_the_reader_are_known() {
        let check = |line: &str, expected: Option<Annotation<'_>>| {
            assert_eq!(Annotation::of(Stream::Stdout, line), expected, "{line}");
            assert_eq!(Annotation::of(Stream::Stderr, line), None, "{line}");
        };
        check("::group::Build it", Some(Annotation::Group("Build it".into())));
        check("::endgroup::", Some(Annotation::EndGroup));
        check("::pending::", Some(Annotation::Pending("".into())));
        check("::warning::a::b", Some(Annotation::Warning("a::b".into())));
        check("::error::no\r", Some(Annotation::Error("no".into())));
        let placed = "::error file=a.rs,line=3,title=Lint::no%0A good";
        check(placed, Some(Annotation::Error("a.rs:3: Lint: no good".into())));
        check("##[group]Build it", Some(Annotation::Group("Build it".into())));
        check("##[error]no", Some(Annotation::Error("no".into())));
        check("##[section]Next", None);
        check("::notice file=a.rs::n", Some(Annotation::Notice("a.rs: n".into())));
        check(" ::error::no", None);
        check("::std::fmt::Debug", None);
        check("::group", None);
    }

    #[test]
    fn headings_indent_and_end() {
        let mut headings = Headings::default();
        let lines = ["::endgroup::", "::group::a\u{1b}[2J", "x", "::group::b", "::warning::w", "::endgroup::", "y"];
        let shown: Vec<_> = lines.iter().map(|line| headings.next(Stream::Stdout, line, Paint::Plain).0).collect();
        let instead = |text: &str| Shown::Instead(text.to_owned());
        let expected = [
            Shown::Not,
            instead("▾ a"),
            Shown::AsWritten(2),
            instead("  ▾ b"),
            instead("    warning: w"),
            Shown::Not,
            Shown::AsWritten(2),
        ];
        assert_eq!(shown, expected);
        for _ in 0..100 {
            headings.next(Stream::Stdout, "::group::deep", Paint::Plain);
        }
        assert_eq!(headings.next(Stream::Stderr, "x", Paint::Plain).0, Shown::AsWritten(INDENT * DEPTH_SHOWN_MAX));
    }
}
