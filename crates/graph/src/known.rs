//! What a pipeline knows and asks: `evaluate(known) -> Evaluation`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Location};
use crate::digest::Digest;
use crate::event::Event;
use crate::job::Graph;
use crate::name::JobName;
use crate::outcome::Outcome;

/// Everything an evaluation may look at. It grows only: an answer once given never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// What happened.
    pub event: Event,
    /// Answers so far.
    #[serde(default, with = "pairs")]
    pub answers: BTreeMap<Question, Answer>,
}

impl Known {
    /// Knows the event and nothing else.
    #[must_use]
    pub fn of(event: Event) -> Self {
        Self { event, answers: BTreeMap::new() }
    }

    /// The outcome of a job, if it has ended and somebody asked.
    #[must_use]
    pub fn outcome(&self, job: &JobName) -> Option<&Outcome> {
        match self.answers.get(&Question::Outcome(job.clone())) {
            Some(Answer::Outcome(outcome)) => Some(outcome),
            _ => None,
        }
    }
}

/// Something a pipeline would like to know. Not an error: the shell finds the answer and asks again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// How did this job end? Answered when it has.
    Outcome(JobName),
    /// Which files differ between the event's base and its commit?
    ChangedFiles,
    /// Which branches hold the event's commit?
    BranchesHolding,
    /// What does this file of the repository hold?
    File(String),
}

/// The answer to a [`Question`]; kept as a fact, so asking twice gives the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The job has ended so.
    Outcome(Outcome),
    /// These files changed, as paths relative to the repository's root, sorted.
    Files(Vec<String>),
    /// These branches, by short name, sorted.
    Branches(Vec<String>),
    /// The file's text.
    Text(String),
    /// It cannot be known (no base commit, no such file); the reason is shown to people.
    Unknown(String),
}

/// What one evaluation said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The jobs, as far as they are known.
    pub graph: Graph,
    /// What it would like to know; the graph may grow with the answers.
    pub questions: BTreeSet<Question>,
    /// What is wrong with the pipeline; an error means that nothing may run.
    pub diagnostics: Vec<Diagnostic>,
    /// Where jobs stand that the evaluation before said otherwise, or had and this one has not; for the diagnostic of a job
    /// that changes after it has begun. Empty where nobody compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub moved: BTreeMap<JobName, Moved>,
    /// The binary of the pipeline's program that said it; `None` of a pipeline of files alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Digest>,
}

/// Where two evaluations have the same job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where the earlier one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Location>,
    /// Where the later one has it; `None` if it has no such job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Location>,
}

/// Maps with keys that are not strings travel as lists of pairs.
mod pairs {
    use super::{Answer, BTreeMap, Deserialize, Question, Serialize};

    pub fn serialize<S: serde::Serializer>(map: &BTreeMap<Question, Answer>, serializer: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Question, Answer>, D::Error> {
        Ok(Vec::<(Question, Answer)>::deserialize(deserializer)?.into_iter().collect())
    }
}
