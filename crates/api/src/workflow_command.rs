//! Workflow commands: lines by which a step speaks to whoever reads its log, each at the start of a line.
//!
//! `::WORD KEY=VALUE,…::TEXT`. Source: docs.github.com, "Workflow commands for GitHub Actions"; what is escaped in them: `@actions/core`,
//! `command.ts`. And Azure's `##[WORD]TEXT`, which GitHub's runner knows too; nothing is escaped in it. Source: learn.microsoft.com, "Logging commands".
//! What a word means is the reader's matter.

use std::borrow::Cow;

/// A line that is a workflow command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowCommand<'l> {
    /// `error`, `group`, …
    pub word: &'l str,
    /// `file:line:column`, as much of it as was said; empty if nothing was.
    pub place: String,
    /// Of what it speaks, empty if that was not said.
    pub title: String,
    /// What it says; it may have several lines.
    pub text: Cow<'l, str>,
}

impl<'l> WorkflowCommand<'l> {
    /// What `line`, without its line feed, commands; `None` of any other line.
    #[must_use]
    pub fn of(line: &'l str) -> Option<Self> {
        if let Some(line) = line.strip_prefix("##[") {
            let (word, text) = line.split_once(']')?;
            let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
            let text = Cow::Borrowed(text.trim());
            return is_word.then(|| Self { word, place: String::new(), title: String::new(), text });
        }
        let (head, text) = line.strip_prefix("::")?.split_once("::")?;
        let (word, properties) = head.split_once(' ').unwrap_or((head, ""));
        let (mut file, mut row, mut column, mut title) = (String::new(), String::new(), String::new(), String::new());
        for (key, value) in properties.split(',').filter_map(|pair| pair.trim().split_once('=')) {
            let value = unescaped(value).into_owned();
            match key {
                "file" => file = value,
                "line" => row = value,
                "col" => column = value,
                "title" => title = value,
                _ => {}
            }
        }
        let place = [file, row, column].into_iter().take_while(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
        Some(Self { word, place, title, text: unescaped(text.trim()) })
    }

    /// Title and text.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        if self.title.is_empty() {
            return Cow::Borrowed(&self.text);
        }
        Cow::Owned(format!("{}: {}", self.title, self.text))
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let pairs = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")];
    Cow::Owned(pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_or_is_none() {
        let check = |line: &str, expected: Option<[&str; 4]>| {
            let found = WorkflowCommand::of(line);
            let found = found.as_ref().map(|it| [it.word, &it.place, &it.title, &it.text]);
            assert_eq!(found, expected, "{line}");
        };
        check("::group:: Build it\r", Some(["group", "", "", "Build it"]));
        check("::endgroup::", Some(["endgroup", "", "", ""]));
        check("::error::a::b", Some(["error", "", "", "a::b"]));
        check(
            "::error file=a%2Cb.rs,line=3,col=5,title=T%3A::100%25 no%0Agood",
            Some(["error", "a,b.rs:3:5", "T:", "100% no\ngood"]),
        );
        check("::warning line=3,file=::w", Some(["warning", "", "", "w"]));
        check("::notice file=a.rs::n", Some(["notice", "a.rs", "", "n"]));
        check("##[group]Build %41 it", Some(["group", "", "", "Build %41 it"]));
        check("##[endgroup]\r", Some(["endgroup", "", "", ""]));
        check("##[error] a]b", Some(["error", "", "", "a]b"]));
        check("##[]x", None);
        check("##[no word]x", None);
        check("## [error]x", None);
        check(" ::error::no", None);
        check("::group", None);
        check("error: no", None);
    }

    #[test]
    fn a_title_stands_before_the_text() {
        let message = |line: &str| WorkflowCommand::of(line).expect("a command").message().into_owned();
        assert_eq!(message("::error title=Lint::no"), "Lint: no");
        assert_eq!(message("::error::no"), "no");
    }
}
