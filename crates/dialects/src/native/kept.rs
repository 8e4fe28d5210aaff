//! What one evaluation of a program leaves for the next: jobs that are read and lowered already.
//!
//! A build asks its program again after each answer, and of a thousand jobs hardly one has changed. A job that stands in
//! the reply as it stood before is not read again; one in the same words, if all that its lowering reads is the same, is
//! not lowered again. What other jobs decide (needs, `when`, its place) is found anew. Only evaluations without a fault are
//! kept, so nothing that must be told is lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{Digest, Event, Job, SkipReason};
use serde_json::Value;

use super::files::Merged;
use crate::hashing::QuickMap;
use crate::tree::{Entry, Node, NodeValue, Span, Style};

/// The memory of one session with a program.
#[derive(Default)]
pub(crate) struct Kept {
    around: Option<Around>,
    jobs: QuickMap<Box<str>, KeptJob>,
    /// The number of this reading.
    round: u64,
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

/// A job as it stood in a reply.
#[derive(Clone, Debug)]
pub(crate) struct JobText {
    pub text: Box<str>,
    /// How many values it holds.
    pub n_values: usize,
}

/// How a job of a reply was read.
#[derive(Clone, Debug)]
pub(crate) enum Words {
    /// It stands as before, and was taken over with its places.
    AsBefore,
    /// It was read. Its text, if its places depend on nothing around it.
    Fresh(Option<JobText>),
}

/// A job as it was written.
struct KeptJob {
    text: Option<JobText>,
    /// With its places. Null while it is taken.
    body: Node,
    body_is: Body,
    /// The address of a node that was found the same in this evaluation, so that it is compared once; zero if none was.
    compared: Cell<usize>,
    /// The reading in which it was met last.
    met: u64,
    /// If it is one job of the graph, and what was around it has not changed.
    lowered: Option<KeptLowering>,
}

/// Where the body of a kept job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Body {
    Here,
    /// In the document of this reply.
    Taken,
}

/// A job as it was lowered.
pub(crate) struct KeptLowering {
    /// Whether it has neither an expression nor a condition, so that no name in it can be wrong; once it was asked.
    reads_nothing: Cell<Option<bool>>,
    /// Why it is skipped by itself, whatever `when` says.
    pub skip: Option<SkipReason>,
    /// The whole job, as it was the last time. Needs, `skip` and its place are what others decide too.
    pub last: RefCell<Arc<Job>>,
}

impl KeptLowering {
    /// Whether this job, whose body this is, has neither an expression nor a condition.
    pub(crate) fn reads_nothing(&self, body: &Node) -> bool {
        self.reads_nothing.get().unwrap_or_else(|| {
            let reads_nothing = !reads(body, "");
            self.reads_nothing.set(Some(reads_nothing));
            reads_nothing
        })
    }
}

impl KeptJob {
    /// Whether a job of this id is written like this one.
    fn is_this(&self, body: &Node) -> bool {
        let address = std::ptr::from_ref(body).addr();
        if self.compared.get() == address {
            return true;
        }
        let is_this = match self.body_is {
            // Only the first job of an id takes it, and is asked for first.
            Body::Taken => self.compared.get() == 0,
            Body::Here => is_same(&self.body, body),
        };
        if is_this {
            self.compared.set(address);
        }
        is_this
    }
}

impl Kept {
    /// Whether a job was found right in these words.
    pub(crate) fn is_right(&self, id: &str, body: &Node) -> bool {
        self.jobs.get(id).is_some_and(|kept| kept.is_this(body))
    }

    /// The job of this id, if it was written like this and lowered with the same around it.
    pub(crate) fn job(&self, id: &str, body: &Node) -> Option<&KeptLowering> {
        let kept = self.jobs.get(id)?;
        kept.lowered.as_ref().filter(|_| kept.is_this(body))
    }

    /// Begins with another reply.
    pub(crate) fn begin_reading(&mut self) {
        self.round += 1;
    }

    /// The body of a job that stood in an earlier reply in this very text, and how many values it holds.
    pub(crate) fn take_same(&mut self, id: &str, text: &str) -> Option<(Node, usize)> {
        let round = self.round;
        let kept = self.jobs.get_mut(id)?;
        if std::mem::replace(&mut kept.met, round) == round {
            return None;
        }
        let n_values = kept.text.as_ref().filter(|kept| *kept.text == *text)?.n_values;
        kept.body_is = Body::Taken;
        Some((std::mem::replace(&mut kept.body, nothing()), n_values))
    }

    /// Forgets how all jobs were lowered if something is different that all of them read.
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
            self.jobs.values_mut().for_each(|kept| kept.lowered = None);
            self.around = Some(around);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps the jobs of an evaluation without fault: those read anew with their words, those lowered anew with their form.
    /// `words` says how each job was read; it is empty if they were not read by a session, and then nothing is kept.
    pub(crate) fn keep(
        &mut self,
        document: Option<Node>,
        words: Vec<Words>,
        mut lowered: QuickMap<String, (Option<SkipReason>, Arc<Job>)>,
    ) {
        let of_jobs = document.and_then(|document| match document.value {
            NodeValue::Mapping(entries) => entries.into_iter().find(|entry| entry.name() == Some("jobs")),
            _ => None,
        });
        let mut entries = match of_jobs.map(|entry| entry.value.value) {
            Some(NodeValue::Mapping(entries)) if entries.len() == words.len() => entries,
            _ => return self.clear(),
        };
        let n_jobs = entries.len();
        for (Entry { key, value: body }, words) in entries.iter_mut().zip(words) {
            let Some(id) = key.scalar_text() else { continue };
            let lowered = lowered.remove(id).map(|(skip, job)| {
                let reads_nothing = Cell::new(None);
                KeptLowering { reads_nothing, skip, last: RefCell::new(job) }
            });
            match self.jobs.get_mut(id) {
                Some(kept) if kept.is_this(body) => {
                    kept.body = std::mem::replace(body, nothing());
                    kept.body_is = Body::Here;
                    kept.compared.set(0);
                    kept.met = self.round;
                    kept.lowered = lowered.or(kept.lowered.take());
                    if let Words::Fresh(text) = words {
                        kept.text = text;
                    }
                }
                _ => {
                    let text = match words {
                        Words::Fresh(text) => text,
                        Words::AsBefore => None,
                    };
                    let body = std::mem::replace(body, nothing());
                    let (compared, body_is, met) = (Cell::new(0), Body::Here, self.round);
                    self.jobs.insert(id.into(), KeptJob { text, body, body_is, compared, met, lowered });
                }
            }
        }
        if self.jobs.len() > n_jobs {
            let round = self.round;
            self.jobs.retain(|_, kept| kept.met == round && kept.body_is == Body::Here);
        }
    }
}

fn nothing() -> Node {
    Node::new(NodeValue::Null, Span { source: 0, start: 0, end: 0 }, Style::Plain)
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
pub(crate) fn reads(node: &Node, key: &str) -> bool {
    let reads_itself = || node.as_str().is_some_and(|text| key == "if" || expression::Template::is_needed(text));
    reads_itself()
        || node.items().unwrap_or_default().iter().any(|item| reads(item, key))
        || node.entries().unwrap_or_default().iter().any(|entry| {
            entry.name().is_some_and(expression::Template::is_needed)
                || reads(&entry.value, entry.name().unwrap_or_default())
        })
}
