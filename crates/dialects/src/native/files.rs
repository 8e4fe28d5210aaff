//! The files of one pipeline as one: what each says, merged.
//!
//! Files are read in the order given. `name` and `stages`: the last one stands. `env` and `defaults`: by key, the later
//! value stands. `on`: by kind of event, the later stands; points in time and parameters stay where it has none. `jobs`: by
//! id; a second definition is an error unless it says `override: true`, then it stands whole, in the place of the first: it
//! waits for every barrier that the first waited for, and for those of its own list. Barriers of a list order the jobs of that
//! list alone.

use std::borrow::Cow;

use graph::EventKind;

use super::check::{Author, id_fault};
use super::errors::{self, Faults};
use super::nodes;
use super::triggers;
use super::when;
use crate::hashing::QuickMap;
use crate::tree::{Entry, Node, Sources};

/// The number of a [`Barrier`] in [`Merged::barriers`].
pub(crate) type BarrierIndex = usize;

/// All files together.
#[derive(Default)]
pub(crate) struct Merged<'n> {
    pub name: Option<&'n str>,
    pub env: Vec<&'n Entry>,
    pub defaults: QuickMap<&'n str, &'n Node>,
    pub jobs: Vec<Source<'n>>,
    /// The place of each job in `jobs`, by id.
    pub by_id: QuickMap<&'n str, usize>,
    pub barriers: Vec<Barrier<'n>>,
}

/// One job as it is written.
pub(crate) struct Source<'n> {
    pub id: &'n str,
    /// Where the id stands.
    pub key: &'n Node,
    pub body: &'n Node,
    /// The number of its file; a program's document comes behind all files.
    pub file: usize,
    /// The barriers it waits for.
    pub after: Vec<BarrierIndex>,
}

impl Source<'_> {
    /// Whether a failure of the job is only a warning.
    pub(crate) fn allows_failure(&self) -> bool {
        self.body.get("allow_failure").and_then(Node::as_bool) == Some(true)
    }
}

/// A place that all jobs before it must have passed.
pub(crate) struct Barrier<'n> {
    /// `stage:build`, `wait:1` or `gate:1`; no job's id has a colon.
    pub name: String,
    /// The jobs before it, by their place in [`Merged::jobs`].
    pub members: Vec<usize>,
    /// The barrier before it, which must have passed too.
    pub previous: Option<BarrierIndex>,
    /// The item of the list, for a gate.
    pub gate: Option<&'n Node>,
}

/// Warns of what one file says and a later one replaces.
pub(crate) fn tell_replaced(roots: &[Node], sources: &Sources, faults: &mut Faults) {
    let mut said = SaidBefore { by_key: QuickMap::default(), sources };
    for (file, root) in roots.iter().enumerate() {
        for section in root.entries().unwrap_or_default() {
            said.tell_if_replaced(section, file, faults);
        }
    }
}

/// Merges the roots of all files, and then the document of a program: its jobs replace those of files.
pub(crate) fn merge<'n>(
    roots: &'n [Node],
    document: Option<&'n Node>,
    sources: &Sources,
    faults: &mut Faults,
) -> Merged<'n> {
    let mut merged = Merged::default();
    let mut stages: Option<&Node> = None;
    let of_files = roots.iter().enumerate().map(|(file, root)| (file, root, Author::User));
    let of_program = document.map(|document| (roots.len(), document, Author::Program));
    for (file, root, author) in of_files.chain(of_program) {
        for entry in root.entries().unwrap_or_default() {
            let value = &entry.value;
            match entry.name() {
                Some("name") => merged.name = value.as_str().or(merged.name),
                Some("env") => merge_env(&mut merged.env, value),
                Some("defaults") => {
                    merged.defaults.extend(
                        value
                            .entries()
                            .unwrap_or_default()
                            .iter()
                            .filter_map(|entry| Some((entry.name()?, &entry.value))),
                    );
                }
                Some("stages") => stages = Some(value),
                Some("jobs") => {
                    let mut adding = Adding { merged: &mut merged, sources, faults, file, author };
                    adding.jobs(value);
                }
                _ => {}
            }
        }
    }
    add_stages(&mut merged, stages, sources, faults);
    merged
}

/// Values that hold for all files, as the files read so far say them.
struct SaidBefore<'a, 'n> {
    /// By the section and its key: the number of the file and the value.
    by_key: QuickMap<(&'n str, &'n str), (usize, &'n Node)>,
    sources: &'a Sources,
}

impl<'n> SaidBefore<'_, 'n> {
    /// Warns of each value in which another file said something else: the jobs of that file have it no more.
    fn tell_if_replaced(&mut self, section: &'n Entry, file: usize, faults: &mut Faults) {
        let name = section.name().unwrap_or_default();
        match name {
            "name" | "stages" => self.value(name, "", &section.value, file, faults),
            "on" => self.events(&section.value, file, faults),
            "env" | "defaults" => {
                for entry in section.value.entries().unwrap_or_default() {
                    self.value(name, entry.name().unwrap_or_default(), &entry.value, file, faults);
                }
            }
            _ => {}
        }
    }

    /// Each kind of event that an `on` lists, as a word or as a key.
    fn events(&mut self, on: &'n Node, file: usize, faults: &mut Faults) {
        let words = nodes::list(on).iter().filter_map(|word| Some((word.as_str()?, word)));
        let keys = on.entries().unwrap_or_default().iter().filter_map(|entry| Some((entry.name()?, &entry.value)));
        for (name, value) in words.chain(keys) {
            let Some(kind) = when::kind(name) else { continue };
            // Points in time and parameters of another file stay where this one has none.
            let is_kept = matches!(kind, EventKind::Schedule | EventKind::Manual);
            if !is_kept || of_event(value) != ANY_OF_KIND {
                self.value("on", kind.name(), value, file, faults);
            }
        }
    }

    fn value(&mut self, section: &'n str, key: &'n str, value: &'n Node, file: usize, faults: &mut Faults) {
        let before = self.by_key.insert((section, key), (file, value));
        if let Some((other, replaced)) = before
            && other != file
            && meaning(section, replaced) != meaning(section, value)
        {
            let place = |node: &Node| self.sources.location(node.span);
            faults.push(errors::replaced_by_later_file(place(value), place(replaced), section, key));
        }
    }
}

/// What [`of_event`] gives for a kind of event that nothing narrows.
const ANY_OF_KIND: &str = "{}";

/// A value of a section as a text that is the same where it means the same.
fn meaning<'n>(section: &str, value: &'n Node) -> Cow<'n, str> {
    match (section, value.scalar_text()) {
        ("on", _) => of_event(value),
        // Variables are texts, whether written as numbers or in quotes.
        ("env", Some(text)) => text.into(),
        _ => nodes::canonical(value).into(),
    }
}

/// What is said of a kind of event, by a word or under its key.
fn of_event(value: &Node) -> Cow<'_, str> {
    match triggers::regexes(value) {
        Some(names) => format!("{:?}", nodes::texts(names)).into(),
        None if value.as_str().is_some() || value.is_null() => ANY_OF_KIND.into(),
        None => nodes::canonical(value).into(),
    }
}

fn merge_env<'n>(env: &mut Vec<&'n Entry>, value: &'n Node) {
    let mut place: QuickMap<Option<&str>, usize> =
        env.iter().enumerate().map(|(index, entry)| (entry.name(), index)).collect();
    for entry in value.entries().unwrap_or_default() {
        match place.get(&entry.name()) {
            Some(&index) => env[index] = entry,
            None => {
                place.insert(entry.name(), env.len());
                env.push(entry);
            }
        }
    }
}

/// One file's jobs on their way into the whole.
struct Adding<'a, 'n> {
    merged: &'a mut Merged<'n>,
    sources: &'a Sources,
    faults: &'a mut Faults,
    file: usize,
    author: Author,
}

impl<'n> Adding<'_, 'n> {
    fn jobs(&mut self, value: &'n Node) {
        for entry in value.entries().unwrap_or_default() {
            if let Some(id) = entry.name() {
                self.job(id, &entry.key, &entry.value, None);
            }
        }
        let mut members = Vec::new();
        let mut previous = None;
        for item in value.items().unwrap_or_default() {
            match (item.get_entry("job"), item.get("wait"), item.get("gate")) {
                (Some(job), None, _) => {
                    if let Some(id) = job.value.as_str() {
                        members.extend(self.job(id, &job.value, item, previous));
                    }
                }
                (None, Some(_), None) => previous = Some(self.barrier("wait", &mut members, previous, None)),
                (None, None, Some(_)) => {
                    self.only_keys_of_a_gate(item);
                    previous = Some(self.barrier("gate", &mut members, previous, Some(item)));
                }
                _ if item.entries().is_some() => {
                    let message = "an item of the list is a job, a `wait` or a `gate`".to_owned();
                    let help = "write `job: ID` with its keys, `wait: {}`, or `gate: { prompt: … }`";
                    let place = self.sources.location(item.span);
                    self.faults.push(errors::bad_value("no-job", place, message, "this is none, or several", help));
                }
                _ => {}
            }
        }
    }

    fn only_keys_of_a_gate(&mut self, item: &Node) {
        for entry in item.entries().unwrap_or_default() {
            let name = entry.name().unwrap_or_default();
            if !matches!(name, "gate" | "name") {
                let place = self.sources.location(entry.key.span);
                self.faults.push(errors::unknown_key(place, name, "gate", &["gate", "name", "job"]));
            }
        }
    }

    fn barrier(
        &mut self,
        kind: &str,
        members: &mut Vec<usize>,
        previous: Option<BarrierIndex>,
        gate: Option<&'n Node>,
    ) -> BarrierIndex {
        let prefix = format!("{kind}:");
        let number = self.merged.barriers.iter().filter(|barrier| barrier.name.starts_with(&prefix)).count() + 1;
        let name = format!("{prefix}{number}");
        self.merged.barriers.push(Barrier { name, members: std::mem::take(members), previous, gate });
        self.merged.barriers.len() - 1
    }

    /// Adds a job; gives its place if it stands.
    fn job(&mut self, id: &'n str, key: &'n Node, body: &'n Node, after: Option<BarrierIndex>) -> Option<usize> {
        if id_fault(id, self.author).is_some() || (body.entries().is_none() && !body.is_null()) {
            return None;
        }
        let is_program = self.author == Author::Program;
        let overrides = is_program || body.get("override").and_then(Node::as_bool) == Some(true);
        let source = Source { id, key, body, file: self.file, after: after.into_iter().collect() };
        let place = || self.sources.location(key.span);
        match self.merged.by_id.get(id) {
            Some(&index) => {
                let first = &mut self.merged.jobs[index];
                let is_later_file = first.file != self.file;
                if overrides && is_later_file {
                    // Nobody who replaces a job can take it out from behind a gate.
                    let mut after = std::mem::take(&mut first.after);
                    after.extend(&source.after);
                    *first = Source { after, ..source };
                    return Some(index);
                }
                self.faults.push(errors::job_twice(place(), self.sources.location(first.key.span), id));
                None
            }
            None => {
                if overrides && !is_program {
                    self.faults.push(errors::overrides_nothing(place(), id));
                }
                self.merged.by_id.insert(id, self.merged.jobs.len());
                self.merged.jobs.push(source);
                Some(self.merged.jobs.len() - 1)
            }
        }
    }
}

/// A barrier behind every stage but the last, and the jobs that wait for it.
fn add_stages(merged: &mut Merged<'_>, stages: Option<&Node>, sources: &Sources, faults: &mut Faults) {
    let mut names: Vec<&str> = Vec::new();
    let mut stage_of: QuickMap<&str, usize> = QuickMap::default();
    for node in stages.and_then(Node::items).unwrap_or_default() {
        let Some(name) = node.as_str() else { continue };
        if stage_of.contains_key(name) {
            let message = format!("the stage `{name}` stands twice");
            let place = sources.location(node.span);
            faults.push(errors::bad_value("duplicate-stage", place, message, "the second time", "keep one of them"));
            continue;
        }
        stage_of.insert(name, names.len());
        names.push(name);
    }
    let first = merged.barriers.len();
    for (index, name) in names.iter().take(names.len().saturating_sub(1)).enumerate() {
        let previous = index.checked_sub(1).map(|before| first + before);
        merged.barriers.push(Barrier { name: format!("stage:{name}"), members: Vec::new(), previous, gate: None });
    }
    for index in 0..merged.jobs.len() {
        let job = &mut merged.jobs[index];
        let Some(node) = job.body.get("stage") else { continue };
        let Some(name) = node.as_str() else { continue };
        let Some(&stage) = stage_of.get(name) else {
            let help = "list it in `stages`, in the order in which stages run";
            faults.push(errors::unknown_reference(sources.location(node.span), "stage", name, &names, help));
            continue;
        };
        job.after.extend(stage.checked_sub(1).map(|before| first + before));
        if stage + 1 < names.len() {
            merged.barriers[first + stage].members.push(index);
        }
    }
}
