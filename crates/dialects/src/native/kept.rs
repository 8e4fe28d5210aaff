//! What one evaluation of a program leaves for the next: jobs that are lowered already.
//!
//! A build asks its program again after each answer, and of a thousand jobs hardly one has changed. A job is taken over
//! if it is written in the same words and all that its lowering reads is the same; what other jobs decide (needs, `when`,
//! its place) is found anew. Only evaluations without a fault are kept, so nothing that must be told is lost.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use graph::{Digest, Event, Job};
use serde_json::Value;

use super::files::Merged;
use crate::tree::{Entry, Node, NodeValue};

/// The memory of one session with a program.
#[derive(Default)]
pub(crate) struct Kept {
    around: Option<Around>,
    jobs: HashMap<Box<str>, KeptJob>,
}

/// What the lowering of every job reads.
#[derive(PartialEq)]
struct Around {
    event: Event,
    filled: BTreeMap<String, Value>,
    env: Vec<Entry>,
    defaults: BTreeMap<String, Node>,
    program: Digest,
}

/// A job as it was written and lowered.
pub(crate) struct KeptJob {
    body: Node,
    /// The address of a node that was found the same in this evaluation, so that it is compared once; zero if none was.
    compared: Cell<usize>,
    /// Whether it has neither an expression nor a condition, so that no name in it can be wrong.
    pub reads_nothing: bool,
    /// Lowered, without what other jobs and answers decide: needs, `when`, place.
    pub bare: Job,
    /// The whole job, as it was the last time.
    pub last: Arc<Job>,
}

impl Kept {
    /// Whether a job was found right in these words.
    pub(crate) fn is_right(&self, id: &str, body: &Node) -> bool {
        self.job(id, body).is_some()
    }

    /// The job of this id, if it was written like this.
    pub(crate) fn job(&self, id: &str, body: &Node) -> Option<&KeptJob> {
        let kept = self.jobs.get(id)?;
        let address = std::ptr::from_ref(body).addr();
        if kept.compared.get() == address {
            return Some(kept);
        }
        is_same(&kept.body, body).then(|| {
            kept.compared.set(address);
            kept
        })
    }

    /// Forgets all jobs if something is different that all of them read.
    pub(crate) fn look_around(
        &mut self,
        event: &Event,
        filled: &BTreeMap<String, Value>,
        merged: &Merged<'_>,
        program: Digest,
    ) {
        let around = Around {
            event: event.clone(),
            filled: filled.clone(),
            env: merged.env.iter().copied().cloned().collect(),
            defaults: merged.defaults.iter().map(|(name, node)| ((*name).to_owned(), Node::clone(node))).collect(),
            program,
        };
        if self.around.as_ref() != Some(&around) {
            self.jobs.clear();
            self.around = Some(around);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps the jobs of an evaluation without fault: those lowered anew with their words, of the others the last form.
    pub(crate) fn keep(
        &mut self,
        document: Option<Node>,
        mut bare: HashMap<String, Job>,
        jobs: &BTreeMap<graph::JobName, Arc<Job>>,
    ) {
        let mut before = std::mem::take(&mut self.jobs);
        let Some(Node { value: NodeValue::Mapping(entries), .. }) = document else { return };
        let of_jobs = entries.into_iter().filter(|entry| entry.name() == Some("jobs"));
        for Entry { key, value: body } in of_jobs.flat_map(|entry| match entry.value.value {
            NodeValue::Mapping(entries) => entries,
            _ => Vec::new(),
        }) {
            let Some(id) = key.scalar_text() else { continue };
            let Some(last) = jobs.get(id) else { continue };
            let kept = match (bare.remove(id), before.remove(id)) {
                (Some(bare), _) => KeptJob {
                    reads_nothing: !reads(&body, ""),
                    bare,
                    last: Arc::clone(last),
                    body,
                    compared: Cell::new(0),
                },
                (None, Some(kept)) => KeptJob { last: Arc::clone(last), compared: Cell::new(0), ..kept },
                (None, None) => continue,
            };
            self.jobs.insert(id.into(), kept);
        }
    }
}

/// Whether both are written in the same words, wherever they stand.
fn is_same(left: &Node, right: &Node) -> bool {
    match (&left.value, &right.value) {
        (NodeValue::Sequence(left), NodeValue::Sequence(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        (NodeValue::Mapping(left), NodeValue::Mapping(right)) => {
            let same =
                |(left, right): (&Entry, &Entry)| is_same(&left.key, &right.key) && is_same(&left.value, &right.value);
            left.len() == right.len() && left.iter().zip(right).all(same)
        }
        (left, right) => left == right,
    }
}

/// Whether some text is a template or a condition.
fn reads(node: &Node, key: &str) -> bool {
    let reads_itself = || node.as_str().is_some_and(|text| key == "if" || expression::Template::is_needed(text));
    reads_itself()
        || node.items().unwrap_or_default().iter().any(|item| reads(item, key))
        || node.entries().unwrap_or_default().iter().any(|entry| {
            entry.name().is_some_and(expression::Template::is_needed)
                || reads(&entry.value, entry.name().unwrap_or_default())
        })
}
