//! Groups within a log: what programs print so that people find their way (Buildkite's `---`, `+++`, `~~~` and `^^^ +++`, GitHub's
//! `::group::`, Azure's `##[group]`), as a tree beside the log.

use api::log::{LogHit, LogHits};
use api::problem::Problem;
use maud::{Markup, html};

use crate::{Source, paths, read, words};

/// What begins or ends a group, for a search over a whole log.
const MARKS: &str = r"^(?:---|\+\+\+|~~~|\^\^\^) \S|^(?:::|##\[)(?:end)?group(?:::|\])";
/// The most groups of one step that are told.
pub const GROUPS_MAX: u32 = 500;
/// A log of more lines tells its groups after the page is there.
pub const LINES_AT_ONCE: u64 = 50_000;

/// How a group stands when its log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Closed,
    Open,
    /// Closed, and of little weight.
    Quiet,
}

impl Fold {
    fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Quiet => "quiet",
        }
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    title: String,
    fold: Fold,
    /// Its first line, which names it.
    line: u64,
    /// The line after its last.
    end: u64,
}

/// What a line says of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Begin(Fold, String),
    End,
    /// The group before is to be looked at.
    Reopen,
}

fn mark(text: &str) -> Option<Mark> {
    for begin in ["::group::", "##[group]"] {
        if let Some(title) = text.strip_prefix(begin) {
            return Some(Mark::Begin(Fold::Closed, title.trim().to_owned()));
        }
    }
    if text.starts_with("::endgroup::") || text.starts_with("##[endgroup]") {
        return Some(Mark::End);
    }
    if text.starts_with("^^^ +++") {
        return Some(Mark::Reopen);
    }
    let folds = [("--- ", Fold::Closed), ("+++ ", Fold::Open), ("~~~ ", Fold::Quiet)];
    let (fold, title) = folds.into_iter().find_map(|(begin, fold)| Some((fold, text.strip_prefix(begin)?)))?;
    // Differences of files, and what Go's tests print, look the same and are none.
    let others = ["a/", "b/", "/dev/null", "FAIL: ", "PASS: ", "SKIP: ", "BENCH: "];
    (!others.iter().any(|other| title.starts_with(other))).then(|| Mark::Begin(fold, title.trim().to_owned()))
}

/// The groups that these lines make in a log of so many.
fn groups(hits: &[LogHit], lines: u64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut is_in_group = false;
    for (index, hit) in hits.iter().enumerate() {
        let Some(mark) = mark(&hit.text) else { continue };
        // `---` and `+++` on two lines name the files of a difference.
        let neighbour = |number: Option<u64>, begin: &str| {
            hits.iter().any(|other| Some(other.number) == number && other.text.starts_with(begin))
        };
        let is_difference = hit.text.starts_with("---")
            && hits.get(index + 1).is_some_and(|next| next.number == hit.number + 1 && next.text.starts_with("+++"))
            || hit.text.starts_with("+++") && neighbour(hit.number.checked_sub(1), "---");
        if is_difference {
            continue;
        }
        match mark {
            Mark::Reopen => {
                if let Some(last) = groups.last_mut() {
                    last.fold = Fold::Open;
                }
            }
            Mark::Begin(fold, title) => {
                if let Some(last) = groups.last_mut().filter(|_| is_in_group) {
                    last.end = hit.number;
                }
                groups.push(Group { title, fold, line: hit.number, end: lines });
                is_in_group = true;
            }
            Mark::End => {
                if let Some(last) = groups.last_mut().filter(|_| is_in_group) {
                    last.end = hit.number + 1;
                }
                is_in_group = false;
            }
        }
    }
    // Something is to be seen: the last, if no other is open.
    let is_any_open = groups.iter().any(|group| group.fold == Fold::Open);
    if let Some(last) = groups.last_mut().filter(|_| !is_any_open) {
        last.fold = Fold::Open;
    }
    groups
}

/// The groups of a step as a list of links; empty if it has none.
///
/// # Errors
/// What the API says instead.
pub(crate) async fn tree(
    source: &impl Source,
    [build, attempt, step]: [u64; 3],
    lines: u64,
) -> Result<Markup, Problem> {
    let path = paths::api_log(build, attempt, step);
    let path = format!("{path}/search?regex={}&limit={}", paths::encoded(MARKS), GROUPS_MAX);
    let hits: LogHits = read(source, &path).await?;
    let groups = groups(&hits.hits, lines);
    Ok(html! {
        @for group in &groups {
            li class=(group.fold.word()) data-line=(group.line) data-end=(group.end) {
                a href=(format!("?attempt={attempt}&step={step}&from={}#{}:{}", group.line, step + 1, group.line + 1)) { (words::first_line(&group.title)) }
            }
        }
        @if hits.next.is_some() { li.quiet { "There are more groups than are listed." } }
    })
}

#[cfg(test)]
mod tests {
    use api::log::LogStream;

    use super::*;

    /// Groups as `title fold line..end`.
    #[track_caller]
    fn check(log: &str, expected: &[&str]) {
        let hit = |(number, text): (usize, &str)| LogHit {
            number: number as u64,
            stream: LogStream::Stdout,
            time: api::time::Time::default(),
            text: text.to_owned(),
        };
        let hits: Vec<LogHit> = log
            .lines()
            .enumerate()
            .filter(|(_, line)| mark(line).is_some() || line.starts_with(['-', '+']))
            .map(hit)
            .collect();
        let found = groups(&hits, log.lines().count() as u64);
        let said: Vec<String> =
            found.iter().map(|it| format!("{} {} {}..{}", it.title, it.fold.word(), it.line, it.end)).collect();
        assert_eq!(said, expected, "{log}");
    }

    #[test]
    fn groups_are_what_programs_print_for_it() {
        check("a\n--- build\nb\n+++ test\nc\n", &["build closed 1..3", "test open 3..5"]);
        check("~~~ setup\nb\n--- last\nc\n", &["setup quiet 0..2", "last open 2..4"]);
        check("--- one\nx\n^^^ +++\n--- two\ny\n", &["one open 0..3", "two closed 3..5"]);
        check("::group::fetch\nx\n::endgroup::\ny\n", &["fetch open 0..3"]);
    }

    #[test]
    fn what_only_looks_like_groups_is_none() {
        check("--- a/file\n+++ b/file\n", &[]);
        check("--- old.txt\n+++ new.txt\n", &[]);
        check("--- FAIL: TestX (0.00s)\n", &[]);
        check("^^^ +++\n::endgroup::\n", &[]);
    }
}
