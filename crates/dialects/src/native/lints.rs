//! Warnings about what is allowed and yet surely not meant. Few, and each certain: none guesses what a script does.

use std::collections::BTreeSet;

use expression::{Condition as Expression, ContextPath, Template};
use graph::{Condition, EventKind, Field, FieldKind};
use serde_json::Value;

use super::errors::{self, Faults, Started};
use super::files::{Merged, Source};
use super::nodes;
use super::triggers::{self, Triggers};
use super::when;
use crate::tree::{Entry, Node, Sources};

/// What lints look at.
pub(crate) struct Lints<'a> {
    pub merged: &'a Merged<'a>,
    pub roots: &'a [Node],
    pub triggers: &'a Triggers,
    pub params: &'a std::collections::BTreeMap<String, Field>,
    pub sources: &'a Sources,
}

impl Lints<'_> {
    /// Warns of jobs that files say, also where plugins complete them.
    pub(crate) fn jobs(&self, faults: &mut Faults) {
        let is_of_files = |job: &&Source<'_>| self.roots.iter().any(|root| root.span.source == job.key.span.source);
        for job in self.merged.jobs.iter().filter(is_of_files) {
            self.cleanup(job, faults);
            self.on_failure(job, faults);
            self.behind_barriers(job, faults);
            self.when(job, faults);
        }
    }

    /// A canceled job satisfies only `on: finished`, so cleanup that waits for anything else is skipped with the rest.
    fn cleanup(&self, job: &Source<'_>, faults: &mut Faults) {
        let Some(cleanup) = job.body.get("cleanup").filter(|node| node.as_bool() == Some(true)) else { return };
        let needs = job.body.get("needs").map(nodes::list).unwrap_or_default();
        if needs.iter().any(|need| is_on(need, "finished")) {
            return;
        }
        let place = self.sources.location(cleanup.span);
        let name = |need: &Node| need.get("job").unwrap_or(need).as_str().unwrap_or_default().to_owned();
        let of_success = needs.iter().find(|need| !is_on(need, "failure"));
        match (of_success, needs.first()) {
            (Some(need), _) => faults.push(errors::cleanup_never_cleans(place, job.id, &name(need))),
            (None, Some(need)) => faults.push(errors::cleanup_of_failure_alone(place, job.id, &name(need))),
            (None, None) => {}
        }
    }

    /// A failure that is allowed is none for those who wait for one, and after any other a barrier lets nothing through.
    fn on_failure(&self, job: &Source<'_>, faults: &mut Faults) {
        let needs = job.body.get("needs").map(nodes::list).unwrap_or_default();
        for need in needs.iter().filter(|need| is_on(need, "failure")) {
            let node = need.get("job").unwrap_or(need);
            let needed = node.as_str().unwrap_or_default();
            let is_allowed = self.written(needed).is_some_and(|index| self.merged.jobs[index].allows_failure());
            let place = self.sources.location(node.span);
            if is_allowed {
                faults.push(errors::failure_is_allowed(place, job.id, needed));
            } else if let Some(barrier) = self.barrier_between(needed, job) {
                faults.push(errors::never_fails_before(place, job.id, needed, barrier));
            }
        }
    }

    /// A barrier lets nothing through after a failure: what cleans up behind it is skipped.
    fn behind_barriers(&self, job: &Source<'_>, faults: &mut Faults) {
        let needs = job.body.get("needs").map(nodes::list).unwrap_or_default();
        let barrier_behind = |need: &Node| self.barrier_between(need.get("job").unwrap_or(need).as_str()?, job);
        let Some(cleanup) = job.body.get("cleanup").filter(|node| node.as_bool() == Some(true)) else { return };
        // One that also waits for any ending of a job beside it cleans up after that.
        let is_for_others = needs.iter().any(|need| is_on(need, "finished") && barrier_behind(need).is_none());
        let waits_for_success = !needs.is_empty() && !needs.iter().any(|need| is_on(need, "finished"));
        if let Some(&barrier) = job.after.first().filter(|_| !is_for_others && !waits_for_success) {
            let barrier = &self.merged.barriers[barrier];
            faults.push(errors::cleanup_behind_barrier(self.sources.location(cleanup.span), job.id, &barrier.name));
        }
    }

    /// The barrier before a job that the needed job stands before.
    fn barrier_between(&self, needed: &str, job: &Source<'_>) -> Option<&str> {
        let needed = self.written(needed)?;
        let barriers = &self.merged.barriers;
        job.after.iter().find_map(|&nearest| {
            let mut all = std::iter::successors(Some(nearest), |&barrier| barriers[barrier].previous);
            all.find(|&barrier| barriers[barrier].members.contains(&needed))
                .map(|barrier| barriers[barrier].name.as_str())
        })
    }

    /// The place in `jobs` of the job that a need names, or one of whose legs it names.
    fn written(&self, needed: &str) -> Option<usize> {
        let by_id = |name: &str| self.merged.by_id.get(name).copied();
        by_id(needed).or_else(|| by_id(needed.split_once('/')?.0))
    }

    fn when(&self, job: &Source<'_>, faults: &mut Faults) {
        let Some(node) = job.body.get("when") else { return };
        self.parts_of_when(node, faults);
        let condition = when::condition(node);
        let kinds: BTreeSet<EventKind> = match self.triggers {
            Triggers::Everything => EventKind::ALL.into(),
            Triggers::Listed { kinds, .. } => kinds.keys().copied().collect(),
        };
        if !kinds.is_empty() && self.possible(&condition).is_disjoint(&kinds) {
            let spoken = when::spoken(&condition);
            faults.push(errors::never_holds(self.sources.location(node.span), job.id, &spoken));
        }
    }

    /// Tells parts of a condition that hold for no event, wherever they stand in it.
    fn parts_of_when(&self, node: &Node, faults: &mut Faults) {
        node.items().unwrap_or_default().iter().for_each(|node| self.parts_of_when(node, faults));
        for entry in node.entries().unwrap_or_default() {
            let (key, value) = (entry.name().unwrap_or_default(), &entry.value);
            match key {
                "param" => {
                    for entry in value.entries().unwrap_or_default() {
                        self.value_of_param(entry, faults);
                    }
                }
                "any" | "branch" | "tag" | "actor" | "event" | "changed"
                    if value.items().is_some_and(<[Node]>::is_empty) =>
                {
                    faults.push(errors::empty_condition(self.sources.location(value.span), key));
                }
                "changed" if only_take_away(&nodes::texts(value)) => {
                    faults.push(errors::globs_only_take_away(self.sources.location(value.span)));
                }
                "all" | "any" | "not" => self.parts_of_when(value, faults),
                _ => {}
            }
        }
    }

    /// Tells a value that is of another type than the parameter. A choice that has no such option is told with the condition,
    /// and what no parameter can be by `check.rs`.
    fn value_of_param(&self, entry: &Entry, faults: &mut Faults) {
        let Some((name, field)) = entry.name().and_then(|name| self.params.get_key_value(name)) else { return };
        let (takes, help) = match (&field.kind, nodes::json(&entry.value)) {
            (FieldKind::Choice { .. }, Value::String(_)) => return,
            (_, Value::Null | Value::Array(_) | Value::Object(_)) => return,
            (_, value) if field.admits(&value) => return,
            (FieldKind::Number, _) => ("is a number", "write the number without quotes"),
            (FieldKind::Boolean, _) => ("is `true` or `false`", "write `true` or `false`, without quotes"),
            (FieldKind::String | FieldKind::Choice { .. }, _) => ("is a text", "put the value in quotes"),
        };
        faults.push(errors::param_of_another_type(self.sources.location(entry.value.span), name, takes, help));
    }

    /// The kinds of events for which the condition may hold; no kind is left out that is not surely impossible.
    fn possible(&self, condition: &Condition) -> BTreeSet<EventKind> {
        let all = || BTreeSet::from(EventKind::ALL);
        match condition {
            Condition::Event(kind) => BTreeSet::from([*kind]),
            // Every other kind may stand at a tag.
            Condition::Tag(_) => &all() - &BTreeSet::from([EventKind::Push, EventKind::PullRequest]),
            Condition::Param(name, value) if !self.may_be(name, value) => BTreeSet::new(),
            Condition::Branch(_) | Condition::Actor(_) | Condition::Changed(_) | Condition::Param(..) => all(),
            Condition::All(parts) => parts.iter().fold(all(), |sum, part| &sum & &self.possible(part)),
            Condition::Any(parts) if parts.is_empty() => all(),
            Condition::Any(parts) => parts.iter().fold(BTreeSet::new(), |sum, part| &sum | &self.possible(part)),
            Condition::Not(part) => match &**part {
                Condition::Event(kind) => &all() - &BTreeSet::from([*kind]),
                Condition::Any(kinds)
                    if !kinds.is_empty() && kinds.iter().all(|kind| matches!(kind, Condition::Event(_))) =>
                {
                    &all() - &self.possible(part)
                }
                _ => all(),
            },
        }
    }

    /// Whether a parameter can have this value.
    fn may_be(&self, name: &str, value: &Value) -> bool {
        self.params.get(name).is_some_and(|field| match (&field.kind, value) {
            (FieldKind::Choice { options }, Value::String(value)) => options.contains(value),
            _ => true,
        })
    }

    /// Warns of parameters that no text of the files reads; a program may read them unseen.
    pub(crate) fn unused_params(&self, faults: &mut Faults) {
        let sections: Vec<&Node> = self.roots.iter().filter_map(|root| root.get("on")).collect();
        let params = triggers::params(&sections);
        if params.is_empty() {
            return;
        }
        let mut read = Read::default();
        self.roots.iter().for_each(|root| read.node(root, ""));
        if read.all {
            return;
        }
        for entry in params {
            if let Some(name) = entry.name()
                && !read.params.contains(&name.to_ascii_lowercase())
            {
                faults.push(errors::unused_param(self.sources.location(entry.key.span), name));
            }
        }
    }
}

/// Tells an `on` of a file that lists no event, and what of one fits none. `triggers` are those of the files, `started` is what
/// they start: the pipeline, or beside a program a part of it.
pub(crate) fn never_starts(
    roots: &[Node],
    triggers: &Triggers,
    started: Started,
    sources: &Sources,
    faults: &mut Faults,
) {
    let place = |node: &Node| sources.location(node.span);
    let Triggers::Listed { kinds, .. } = triggers else { return };
    for on in roots.iter().filter_map(|root| root.get_entry("on")) {
        let entries = on.value.entries().unwrap_or_default();
        let is_empty = match on.value.entries() {
            Some(entries) => entries.is_empty(),
            None => on.value.is_null() || on.value.items().is_some_and(<[Node]>::is_empty),
        };
        if kinds.is_empty() && is_empty {
            // What is left out has no place of its own.
            let node = if on.value.is_null() { &on.key } else { &on.value };
            faults.push(errors::lists_no_event(place(node), started));
        }
        for entry in entries {
            let kind = entry.name().unwrap_or_default();
            let is_listed = when::kind(kind).is_none_or(|kind| kinds.contains_key(&kind));
            if let Some(list) = triggers::empty_list(&entry.value).filter(|_| !is_listed) {
                faults.push(errors::fits_no_event(place(list), kind, started));
            }
            let regexes = triggers::regexes(&entry.value).map(nodes::list).unwrap_or_default();
            for regex in regexes.iter().filter(|regex| regex.as_str() == Some("")) {
                faults.push(errors::fits_no_name(place(regex), kind));
            }
        }
    }
}

/// Whether a need says that it waits for this ending.
fn is_on(need: &Node, ending: &str) -> bool {
    need.get("on").and_then(Node::as_str) == Some(ending)
}

/// Whether there are globs, and each takes away what others would match.
fn only_take_away(globs: &[String]) -> bool {
    !globs.is_empty() && globs.iter().all(|glob| glob.starts_with('!'))
}

/// The parameters that anything in the files reads, in lower case.
#[derive(Default)]
struct Read {
    params: BTreeSet<String>,
    /// Whether something reads all of them, or cannot be told.
    all: bool,
}

impl Read {
    fn node(&mut self, node: &Node, key: &str) {
        if let Some(text) = node.as_str() {
            let paths = match key {
                "if" => Expression::parse(text).map(|condition| condition.context_paths()),
                _ if Template::is_needed(text) => Template::parse(text).map(|template| template.context_paths()),
                _ => return,
            };
            match paths {
                Ok(paths) => paths.iter().for_each(|path| self.path(path)),
                Err(_) => self.all = true,
            }
        }
        node.items().unwrap_or_default().iter().for_each(|item| self.node(item, key));
        for entry in node.entries().unwrap_or_default() {
            self.node(&entry.key, "");
            self.node(&entry.value, entry.name().unwrap_or_default());
            if entry.name() == Some("param") {
                let names = entry.value.entries().unwrap_or_default().iter().filter_map(|entry| entry.name());
                self.params.extend(names.map(str::to_ascii_lowercase));
            }
        }
    }

    fn path(&mut self, path: &ContextPath) {
        let name = match (&*path.context, path.name(0)) {
            ("params", name) => name,
            ("event", Some(name)) if name.eq_ignore_ascii_case("params") => path.name(1),
            ("event", Some(_)) => return,
            ("event", None) => None,
            _ => return,
        };
        match name {
            Some(name) => drop(self.params.insert(name.to_ascii_lowercase())),
            None => self.all = true,
        }
    }
}
