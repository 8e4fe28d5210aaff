//! Ropewalk's expressions in GitHub's words: what they read, and the words with which they compare it.
//!
//! A condition comes out only if it never holds where Ropewalk's does not; so what GitHub has no word for is `None`, and the
//! caller writes `false`. A text is for people and scripts, so there the nearest word will do.
//!
//! What GitHub knows where: docs.github.com/actions/reference/contexts-reference. A job that its time limit ends is `cancelled`
//! there and `failed` here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use graph::{Accepts, EventKind, Text};

use super::joined;
use crate::export::texts::{Word, in_words, single_path, translated};
use crate::export::{Piece, Plan, legs};
use crate::native::Triggers;
use crate::native::spelled::{Comparison, Spelled, spelled};

/// How a job or a step ended, and how a job stands: Ropewalk's word and GitHub's.
const RESULTS: [(&str, &str); 4] =
    [("passed", "success"), ("failed", "failure"), ("canceled", "cancelled"), ("skipped", "skipped")];

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It decides on a job, before there is a runner.
    Job,
    /// It decides on a step.
    Step,
    /// It decides on nothing.
    Text,
}

/// What the expressions of one job may read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub plan: &'a Plan<'a>,
    pub piece: &'a Piece,
    /// See [`super::conditions::lenient`].
    pub lenient: &'a BTreeSet<&'a str>,
}

impl<'a> Reader<'a> {
    /// A text in GitHub's words; what has none stays as it is, with a note.
    pub(super) fn text(self, text: &Text, notes: &mut Vec<String>) -> String {
        let words = in_words(
            text,
            |axis| format!("${{{{ matrix.{axis} }}}}"),
            |written| Some(format!("${{{{ {} }}}}", self.expression(written, Place::Text).ok()?)),
        );
        words.unwrap_or_else(|| {
            notes.push(format!("GitHub cannot evaluate {}.", text.as_written()));
            text.as_written().to_owned()
        })
    }

    /// An expression in GitHub's words; else what it reads that GitHub has no word for.
    pub(super) fn expression(self, written: &str, place: Place) -> Result<String, String> {
        let mut paths: BTreeMap<usize, String> = BTreeMap::new();
        let mut texts: BTreeMap<usize, String> = BTreeMap::new();
        for read in spelled(written) {
            let Some(compared) = read.compared.as_ref().filter(|compared| compared.by == Comparison::Whole) else {
                continue;
            };
            let word = compared.text.to_ascii_lowercase();
            if let Some((path, word)) = self.compared(&read, &word, place) {
                paths.insert(read.start(), path);
                if texts.insert(compared.place.start, format!("'{word}'")).is_some() {
                    return Err(format!("'{}'", compared.text));
                }
            }
        }
        let missing = RefCell::default();
        let is_single = single_path(written).is_some();
        let words = translated(written, |word| {
            let (ours, theirs) = match word {
                Word::Path(at, names) => (joined(names), paths.get(&at).cloned().or_else(|| self.path(names, place))),
                Word::Quoted(at, quoted) => {
                    (quoted.to_owned(), Some(texts.get(&at).cloned().unwrap_or_else(|| quoted.to_owned())))
                }
                Word::Function(name @ ("hash_files" | "hashFiles")) => {
                    (name.to_owned(), (place != Place::Job).then(|| "hashFiles".to_owned()))
                }
                Word::Function(name) => (name.to_owned(), Some(name.to_owned())),
            };
            if theirs.is_none() {
                *missing.borrow_mut() = ours;
            }
            theirs
        });
        let words = words.ok_or_else(|| missing.into_inner())?;
        // Alone it needs no brackets.
        let bare = words.strip_prefix('(').and_then(|words| words.strip_suffix(')')).filter(|_| is_single);
        Ok(bare.map(str::to_owned).unwrap_or(words))
    }

    /// What is read and the word with which it is compared, where both have one of GitHub's.
    fn compared(self, read: &Spelled<'_>, word: &str, place: Place) -> Option<(String, &'static str)> {
        let of_result = || match word {
            // What is not there yet.
            "" => Some(""),
            _ => RESULTS.iter().find(|(ours, _)| *ours == word).map(|(_, theirs)| *theirs),
        };
        match read.keys.as_slice() {
            ["needs", "*", "result"] => {
                let is_other = self.piece.needs_unwritten
                    || self.piece.needs.iter().any(|(key, need)| {
                        let needed = self.plan.jobs.iter().find(|other| other.key == *key);
                        need.accepts == Accepts::BARRIER || !needed.is_some_and(|needed| self.tells(needed, word))
                    });
                Some(("needs.*.result".to_owned(), of_result().filter(|_| !is_other)?))
            }
            ["needs", job, "result"] => {
                let needed = self.needed(job).filter(|needed| place == Place::Text || self.tells(needed, word))?;
                Some((format!("needs.{}.result", needed.key), of_result()?))
            }
            ["steps", id, property @ ("outcome" | "conclusion")] if place != Place::Job => {
                Some((joined(&["steps", id, property]), of_result()?))
            }
            ["job", "status"] if place != Place::Job && self.has_own_status(word) => {
                Some(("job.status".to_owned(), of_result()?))
            }
            ["event", "kind"] => self.compared_kind(word),
            _ => None,
        }
    }

    /// Whether a needed job's result tells, where it is compared with this word, what Ropewalk's does.
    fn tells(self, needed: &Piece, word: &str) -> bool {
        // GitHub does not say how a job ended that may fail. A time limit is only told from a person who cancels where nothing
        // runs after that.
        let is_certain = needed.job.timeout_ms.is_none() || !self.piece.job.cleanup;
        !needed.job.allow_failure && (is_certain || matches!(word, "" | "passed" | "skipped"))
    }

    /// Whether the job's status is what Ropewalk's is, where it is compared with this word.
    fn has_own_status(self, word: &str) -> bool {
        self.piece.job.timeout_ms.is_none() || matches!(word, "" | "passed")
    }

    /// A path by itself.
    fn path(self, names: &[&str], place: Place) -> Option<String> {
        let is_text = place == Place::Text;
        let on_runner = place != Place::Job;
        Some(match names {
            ["event", "branch"] => self.branch(),
            ["event", "tag"] => self.tag(),
            ["event", "kind"] => self.kind(place)?,
            ["event", "commit"] => "github.sha".to_owned(),
            ["event", "actor"] => "github.actor".to_owned(),
            ["event", "message"] if is_text || self.starts_only(&[EventKind::Push, EventKind::Tag]) => {
                "github.event.head_commit.message".to_owned()
            }
            ["event", "base"] => "github.base_ref".to_owned(),
            ["event", "pull_request"] => "github.event.number".to_owned(),
            ["event", "params", names @ ..] | ["params", names @ ..] if !names.contains(&"*") => {
                joined(&[&["inputs"], names].concat())
            }
            ["needs", job, "result"] => {
                let needed = self.needed(job).filter(|needed| is_text || self.tells(needed, "failed"))?;
                ours(&format!("needs.{}.result", needed.key))
            }
            ["needs", job, "outputs", names @ ..] => {
                let needed = self.needed(job)?;
                let is_there = |name: &&str| needed.job.outputs.contains(*name) && !needed.writers_of(name).is_empty();
                if !is_text && !names.first().is_some_and(is_there) {
                    return None;
                }
                joined(&[&["needs", &needed.key, "outputs"], names].concat())
            }
            ["steps", _, "outputs", ..] if on_runner => joined(names),
            ["steps", _, "outcome" | "conclusion"] if on_runner => ours(&joined(names)),
            ["job", "status"] if on_runner && (is_text || self.has_own_status("failed")) => ours("job.status"),
            ["matrix", ..] if on_runner => joined(names),
            ["env", "ROPEWALK_BRANCH"] => self.branch(),
            ["env", "ROPEWALK_TAG"] => self.tag(),
            ["env", "ROPEWALK_EVENT"] => self.kind(place)?,
            ["env", name] if name.starts_with("ROPEWALK_") => return None,
            ["env", ..] if on_runner => joined(names),
            ["env", name] => quoted(self.variable(name)?)?,
            ["inputs", ..] | ["github", "event_name"] => joined(names),
            ["runner", "os" | "name"] if on_runner => joined(names),
            ["runner", "arch"] if is_text => joined(names),
            ["build", "number"] => "github.run_number".to_owned(),
            ["job", "name"] if is_text => "github.job".to_owned(),
            ["job", "name"] if self.piece.axes.is_empty() => quoted(&self.piece.id)?,
            _ => return None,
        })
    }

    /// The needed job of this name.
    fn needed(self, name: &str) -> Option<&'a Piece> {
        let needed = self.plan.jobs.iter().find(|other| other.id == name)?;
        self.piece.needs.iter().any(|(key, _)| *key == needed.key).then_some(needed)
    }

    /// The value of a variable of the job or of all jobs, if it is known.
    fn variable(self, name: &str) -> Option<&'a str> {
        self.piece.job.env.get(name).or_else(|| self.plan.env.get(name))?.as_plain()
    }

    /// Whether GitHub starts it for events of this kind.
    pub(super) fn starts_for(self, kind: EventKind) -> bool {
        match &self.plan.triggers {
            Triggers::Everything => {
                matches!(kind, EventKind::Push | EventKind::Tag | EventKind::PullRequest | EventKind::Manual)
            }
            Triggers::Listed { kinds, .. } => kinds.contains_key(&kind),
        }
    }

    /// Whether GitHub starts it for events of these kinds and no others.
    fn starts_only(self, kinds: &[EventKind]) -> bool {
        EventKind::ALL.into_iter().all(|kind| kinds.contains(&kind) || !self.starts_for(kind))
    }

    /// The branch; the empty text for a tag.
    pub(super) fn branch(self) -> String {
        if self.starts_only(&[EventKind::Push, EventKind::Schedule, EventKind::Api]) {
            return "github.ref_name".to_owned();
        }
        let head = if self.starts_for(EventKind::PullRequest) { "github.head_ref || " } else { "" };
        format!("({head}github.ref_type == 'branch' && github.ref_name || '')")
    }

    /// The tag; the empty text for anything else.
    pub(super) fn tag(self) -> String {
        if self.starts_only(&[EventKind::Tag]) {
            return "github.ref_name".to_owned();
        }
        "(github.ref_type == 'tag' && github.ref_name || '')".to_owned()
    }

    /// Whether the name of GitHub's event says which kind of Ropewalk's it is.
    fn has_own_kinds(self) -> bool {
        let by_hand = [EventKind::Manual, EventKind::Command];
        // A workflow that is called sees the event of the one that calls it.
        !self.starts_for(EventKind::Build) && !by_hand.into_iter().all(|kind| self.starts_for(kind))
    }

    /// What is compared, and with which word, where Ropewalk's kind of event is compared with this one.
    pub(super) fn compared_kind(self, word: &str) -> Option<(String, &'static str)> {
        let name = || "github.event_name".to_owned();
        let is_named = |kind: EventKind| kind.name() == word;
        let kind = EventKind::ALL.into_iter().find(|kind| is_named(*kind)).filter(|_| self.has_own_kinds())?;
        let of_push = |others: EventKind, ref_type: &'static str| match self.starts_for(others) {
            false => (name(), "push"),
            true => ("(github.event_name == 'push' && github.ref_type)".to_owned(), ref_type),
        };
        Some(match kind {
            EventKind::Push => of_push(EventKind::Tag, "branch"),
            EventKind::Tag if self.starts_for(kind) => of_push(EventKind::Push, "tag"),
            EventKind::PullRequest | EventKind::Schedule => (name(), kind.name()),
            EventKind::Manual | EventKind::Command if self.starts_for(kind) => (name(), "workflow_dispatch"),
            EventKind::Api => (name(), "repository_dispatch"),
            // It never starts it, and no event of GitHub's is called so.
            EventKind::Tag | EventKind::Manual | EventKind::Command | EventKind::Build => (name(), kind.name()),
        })
    }

    /// The kind of the event in Ropewalk's words.
    fn kind(self, place: Place) -> Option<String> {
        if place != Place::Text && !self.has_own_kinds() {
            return None;
        }
        let mut words = Vec::new();
        if self.starts_for(EventKind::Tag) {
            words.push("github.event_name == 'push' && github.ref_type == 'tag' && 'tag'");
        }
        if self.starts_for(EventKind::Manual) {
            words.push("github.event_name == 'workflow_dispatch' && 'manual'");
        } else if self.starts_for(EventKind::Command) {
            words.push("github.event_name == 'workflow_dispatch' && 'command'");
        }
        if self.starts_for(EventKind::Api) {
            words.push("github.event_name == 'repository_dispatch' && 'api'");
        }
        words.push("github.event_name");
        Some(if let [one] = words.as_slice() { (*one).to_owned() } else { format!("({})", words.join(" || ")) })
    }
}

/// A result in Ropewalk's words.
fn ours(path: &str) -> String {
    let differ = RESULTS.iter().filter(|(ours, theirs)| ours != theirs);
    let words: Vec<String> = differ.map(|(ours, theirs)| format!("{path} == '{theirs}' && '{ours}'")).collect();
    format!("({} || {path})", words.join(" || "))
}

/// A text as an expression has it; `None` if an axis' value goes into it.
fn quoted(text: &str) -> Option<String> {
    (!text.contains(legs::MARK)).then(|| format!("'{}'", text.replace('\'', "''")))
}
