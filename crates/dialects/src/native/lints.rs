//! Warnings about what is allowed and yet surely not meant. Few, and each certain: none guesses what a script does.

use std::collections::BTreeSet;

use expression::{Condition as Expression, ContextPath, Template};
use graph::{Condition, EventKind, Field, FieldKind};
use serde_json::Value;

use super::errors::{self, Faults};
use super::files::{Merged, Source};
use super::nodes;
use super::triggers::{self, Triggers};
use super::when;
use crate::tree::{Node, Sources};

/// What lints look at.
pub(crate) struct Lints<'a> {
    pub merged: &'a Merged<'a>,
    pub roots: &'a [Node],
    pub triggers: &'a Triggers,
    pub params: &'a std::collections::BTreeMap<String, Field>,
    pub sources: &'a Sources,
}

impl Lints<'_> {
    /// Tells every warning.
    pub(crate) fn tell(&self, faults: &mut Faults) {
        for job in &self.merged.jobs {
            self.cleanup(job, faults);
            self.when(job, faults);
        }
        self.unused_params(faults);
    }

    /// A canceled job satisfies only `on: finished`, so cleanup that waits for successes alone is skipped with the rest.
    fn cleanup(&self, job: &Source<'_>, faults: &mut Faults) {
        let Some(cleanup) = job.body.get("cleanup").filter(|node| node.as_bool() == Some(true)) else { return };
        let needs = job.body.get("needs").map(nodes::list).unwrap_or_default();
        let is_finished = |need: &Node| need.get("on").and_then(Node::as_str) == Some("finished");
        if let Some(first) = needs.first()
            && !needs.iter().any(is_finished)
        {
            let needed = first.get("job").unwrap_or(first).as_str().unwrap_or_default();
            faults.push(errors::cleanup_never_cleans(self.sources.location(cleanup.span), job.id, needed));
        }
    }

    fn when(&self, job: &Source<'_>, faults: &mut Faults) {
        let Some(node) = job.body.get("when") else { return };
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
                Condition::Any(kinds) if kinds.iter().all(|kind| matches!(kind, Condition::Event(_))) => {
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

    fn unused_params(&self, faults: &mut Faults) {
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
