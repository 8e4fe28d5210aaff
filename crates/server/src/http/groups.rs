//! Groups within a log: what programs print so that people find their way (Buildkite's `---`, `+++`, `~~~` and `^^^ +++`, GitHub's
//! `::group::`, Azure's `##[group]`), as a tree. Nothing here reads a log: it is told the lines that hold a mark.

use std::sync::{Arc, LazyLock};

use api::log::{GROUP_LEVELS_MAX, GROUPS_MAX, GroupFold, HITS_MAX, LogGroup, LogGroups, LogHit, LogHits};
use api::workflow_command::WorkflowCommand;
use regex::bytes::Regex;

/// What begins or ends a group, for a search over a whole log.
pub static MARKS: LazyLock<Arc<Regex>> = LazyLock::new(|| {
    let marks = r"^(?:---|\+\+\+|~~~|\^\^\^) \S|^(?:::|##\[)(?:end)?group(?:::|\])";
    Arc::new(Regex::new(marks).expect("the expression of marks is one"))
});
/// The most lines with a mark that are looked at, those that end a group among them.
pub const MARKS_MAX: usize = HITS_MAX as usize;

/// How groups of one kind stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// They hold others, and are ended by a mark (GitHub: docs.github.com/…/workflow-commands, "Grouping log lines"; there they
    /// do not nest, which other systems and our SDK let them).
    Nested,
    /// The next of them ends the one before (Buildkite: buildkite.com/docs/pipelines/configure/managing-log-output).
    Heading,
}

/// What a line says of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Begin(Notation, GroupFold, String),
    End,
    /// The group before is to be looked at.
    Reopen,
}

fn mark(text: &str) -> Option<Mark> {
    if let Some(command) = WorkflowCommand::of(text) {
        return match command.word {
            "group" => Some(Mark::Begin(Notation::Nested, GroupFold::Closed, command.text.into_owned())),
            "endgroup" => Some(Mark::End),
            _ => None,
        };
    }
    if text.starts_with("^^^ +++") {
        return Some(Mark::Reopen);
    }
    let folds = [("--- ", GroupFold::Closed), ("+++ ", GroupFold::Open), ("~~~ ", GroupFold::Quiet)];
    let (fold, title) = folds.into_iter().find_map(|(begin, fold)| Some((fold, text.strip_prefix(begin)?)))?;
    // Differences of files, and what Go's tests print, look the same and are none.
    let others = ["a/", "b/", "/dev/null", "FAIL: ", "PASS: ", "SKIP: ", "BENCH: "];
    (!others.iter().any(|other| title.starts_with(other)))
        .then(|| Mark::Begin(Notation::Heading, fold, title.trim().to_owned()))
}

/// The groups that lines with marks make in a log of so many lines.
#[must_use]
pub fn tree(hits: &LogHits, lines: u64) -> LogGroups {
    let mut growing = Growing::default();
    for (index, hit) in hits.hits.iter().enumerate() {
        let Some(mark) = mark(&hit.text) else { continue };
        if is_difference(&hits.hits, index) {
            continue;
        }
        match mark {
            Mark::Begin(..) if growing.groups.len() >= GROUPS_MAX => {
                growing.more = true;
                break;
            }
            Mark::Begin(notation, fold, title) => growing.begin(notation, fold, title, (hit.number, lines)),
            Mark::End => growing.end(hit.number),
            Mark::Reopen => growing.reopen(),
        }
    }
    growing.open_what_is_to_be_seen();
    LogGroups { groups: growing.groups, more: growing.more || hits.next.is_some() }
}

/// Whether this line and the one beside it are `---` and `+++`, which name the files of a difference.
fn is_difference(hits: &[LogHit], index: usize) -> bool {
    let hit = &hits[index];
    let is_next = |one: &LogHit, next: &LogHit| {
        next.number == one.number + 1 && one.text.starts_with("---") && next.text.starts_with("+++")
    };
    let before = index.checked_sub(1).map(|before| &hits[before]);
    before.is_some_and(|before| is_next(before, hit)) || hits.get(index + 1).is_some_and(|next| is_next(hit, next))
}

/// A tree that is read mark by mark. Those that are open are in one another, the outermost first; there are never more of them than groups.
#[derive(Default)]
struct Growing {
    groups: Vec<LogGroup>,
    /// The group around each.
    around: Vec<Option<usize>>,
    open: Vec<(Notation, usize)>,
    more: bool,
}

impl Growing {
    fn begin(&mut self, notation: Notation, fold: GroupFold, title: String, (line, lines): (u64, u64)) {
        if notation == Notation::Heading
            && let Some((_, before)) = self.open.pop_if(|(open, _)| *open == Notation::Heading)
        {
            self.groups[before].end = line;
        }
        let depth = u32::try_from(self.open.len()).unwrap_or(u32::MAX).min(GROUP_LEVELS_MAX - 1);
        self.around.push(self.open.last().map(|(_, index)| *index));
        self.open.push((notation, self.groups.len()));
        // Until something ends it.
        self.groups.push(LogGroup { title, fold, depth, line, end: lines });
    }

    /// Ends the innermost group that a mark ends, and headings in it; nothing if there is none.
    fn end(&mut self, line: u64) {
        let Some(place) = self.open.iter().rposition(|(notation, _)| *notation == Notation::Nested) else { return };
        for (notation, index) in self.open.drain(place..) {
            self.groups[index].end = if notation == Notation::Nested { line + 1 } else { line };
        }
    }

    /// The group that is written to, else the last one, is to be looked at.
    fn reopen(&mut self) {
        let last = self.groups.len().checked_sub(1);
        if let Some(index) = self.open.last().map(|(_, index)| *index).or(last) {
            self.groups[index].fold = GroupFold::Open;
        }
    }

    /// What is open can be seen: so are the groups around it. If nothing asked for it, the last group of all is, and what nobody has ended.
    fn open_what_is_to_be_seen(&mut self) {
        if !self.groups.iter().any(|group| group.fold == GroupFold::Open) {
            let last = self.groups.iter().rposition(|group| group.depth == 0);
            for index in last.into_iter().chain(self.open.iter().map(|(_, index)| *index)) {
                self.groups[index].fold = GroupFold::Open;
            }
        }
        // What is around a group stands before it.
        for index in (0..self.groups.len()).rev() {
            if let Some(around) = self.around[index].filter(|_| self.groups[index].fold == GroupFold::Open) {
                self.groups[around].fold = GroupFold::Open;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::log::LogStream;

    use super::*;

    /// Groups as `title fold line..end`, two spaces before those within another for each around them.
    #[track_caller]
    fn check(log: &str, expected: &[&str]) {
        let hit = |(number, text): (usize, &str)| LogHit {
            number: number as u64,
            stream: LogStream::Stdout,
            time: api::time::Time::default(),
            text: text.to_owned(),
        };
        let marks = log.lines().enumerate().filter(|(_, line)| MARKS.is_match(line.as_bytes()));
        let hits = LogHits { hits: marks.map(hit).collect(), ..LogHits::default() };
        let found = tree(&hits, log.lines().count() as u64);
        let said = |it: &LogGroup| {
            let fold = format!("{:?}", it.fold).to_lowercase();
            format!("{}{} {fold} {}..{}", "  ".repeat(it.depth as usize), it.title, it.line, it.end)
        };
        assert_eq!(found.groups.iter().map(said).collect::<Vec<_>>(), expected, "{log}");
    }

    #[test]
    fn groups_are_what_programs_print_for_it() {
        check("a\n--- build\nb\n+++ test\nc\n", &["build closed 1..3", "test open 3..5"]);
        check("~~~ setup\nb\n--- last\nc\n", &["setup quiet 0..2", "last open 2..4"]);
        check("--- one\nx\n^^^ +++\n--- two\ny\n", &["one open 0..3", "two closed 3..5"]);
        check("::group::fetch\nx\n::endgroup::\ny\n", &["fetch open 0..3"]);
    }

    #[test]
    fn groups_hold_groups() {
        let log = "::group::a\n::group::b\nx\n::endgroup::\n::group::c\ny\n::endgroup::\n::endgroup::\n::group::d\n::endgroup::\n";
        check(log, &["a closed 0..8", "  b closed 1..4", "  c closed 4..7", "d open 8..10"]);
        // Headings hold what is ended by a mark, and not each other; what is in a group ends with it.
        let log = "--- a\n::group::b\n--- c\n--- d\n::endgroup::\nx\n--- e\ny\n";
        check(log, &["a closed 0..6", "  b closed 1..5", "    c closed 2..3", "    d closed 3..4", "e open 6..8"]);
    }

    #[test]
    fn what_is_seen_is_seen_through_what_is_around_it() {
        let log = "::group::a\n+++ b\nx\n::endgroup::\n::group::c\n::endgroup::\n";
        check(log, &["a open 0..4", "  b open 1..3", "c closed 4..6"]);
        // The group that the error stands in, of a step that ended in it.
        let log = "::group::a\n::endgroup::\n::group::b\n::group::c\nerror\n";
        check(log, &["a closed 0..2", "b open 2..5", "  c open 3..5"]);
        check("::group::a\n::group::b\n^^^ +++\n::endgroup::\n", &["a open 0..4", "  b open 1..4"]);
    }

    #[test]
    fn what_only_looks_like_groups_is_none() {
        check("--- a/file\n+++ b/file\n", &[]);
        check("--- old.txt\n+++ new.txt\n", &[]);
        check("--- FAIL: TestX (0.00s)\n", &[]);
        check("^^^ +++\n::endgroup::\n", &[]);
        check("--- a\n::endgroup::\n::endgroup::\nx\n", &["a open 0..4"]);
    }

    #[test]
    fn however_deep_groups_are_their_levels_are_few() {
        let log: String = (0..2 * GROUPS_MAX).map(|n| format!("::group::{n}\n")).collect();
        let hit = |(number, text): (usize, &str)| LogHit {
            number: number as u64,
            stream: LogStream::Stdout,
            time: api::time::Time::default(),
            text: text.to_owned(),
        };
        let hits = LogHits { hits: log.lines().enumerate().map(hit).collect(), ..LogHits::default() };
        let found = tree(&hits, 1000);
        assert_eq!((found.groups.len(), found.more), (GROUPS_MAX, true));
        let depths: Vec<u32> = found.groups.iter().map(|group| group.depth).collect();
        assert_eq!(depths[..10], [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]);
        assert_eq!(depths.iter().max(), Some(&(GROUP_LEVELS_MAX - 1)));
    }
}
