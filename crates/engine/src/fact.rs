//! What is true and kept. Folding the facts of a build rebuilds all the engine knows of it.
//!
//! A stored shape: adding a field means that old facts must still load (`#[serde(default)]`) and that an old
//! reader may ignore it. Facts hold no secret and no log line.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{
    Answer, Artifact, AskedTests, AttemptNumber, AttemptReport, BuildId, Diagnostic, Digest, Graph, JobName, LeaseId,
    Outcome, Partial, Question, Timestamp, Verdict, WaitedFor, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::input::BuildRequest;

/// Something that happened to a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The build it is about.
    pub build: BuildId,
    /// When it became true.
    pub at: Timestamp,
    /// What became true.
    #[serde(flatten)]
    pub what: What,
}

/// What became true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum What {
    /// The build exists.
    BuildCreated(Box<BuildRequest>),
    /// A question of its pipeline was answered; asked again, the answer stays.
    Answered {
        /// The question.
        question: Question,
        /// Its answer.
        answer: Answer,
    },
    /// Its pipeline was evaluated; this is the whole graph as it stands now.
    Evaluated {
        /// The graph.
        graph: Arc<Graph>,
        /// What the evaluation would still like to know.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        questions: Vec<Question>,
        /// Warnings and, if nothing may run, errors.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        diagnostics: Vec<Diagnostic>,
        /// The binary of the pipeline's program that said it. The one that said the first is asked ever after. Old readers pass over it and ask
        /// whatever program is built then; from old writers there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        program: Option<Digest>,
    },
    /// A job waits for a person.
    GateOpened {
        /// The job.
        job: JobName,
        /// The question, with its expressions evaluated.
        prompt: String,
    },
    /// A person answered a gate.
    GateAnswered {
        /// The job.
        job: JobName,
        /// What was filled in; `None` is a no.
        answer: Option<BTreeMap<String, Value>>,
        /// Who.
        by: String,
        /// Why, as they said it; may be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A reusable job's operation is known.
    OperationKnown {
        /// The job.
        job: JobName,
        /// Its identity.
        operation: Digest,
        /// When results of it were evicted last: none that had ended by then is taken. Old readers pass over it; from old writers
        /// there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evicted: Option<Timestamp>,
    },
    /// A reusable job has no operation after all; it runs without reuse.
    OperationUnknown {
        /// The job.
        job: JobName,
        /// Why, for people.
        reason: String,
    },
    /// A worker holds an attempt at the job.
    AttemptLeased {
        /// The job.
        job: JobName,
        /// The attempt's number in the build.
        attempt: AttemptNumber,
        /// Which try at the job it is, from 1.
        try_number: u32,
        /// The lease, larger than all before it.
        lease: LeaseId,
        /// Who holds it.
        worker: WorkerId,
        /// Of how many of the job's tests it is asked, if not for the whole job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partial: Option<Partial>,
        /// Whose end lets it begin, if the job has waited and its wait ends by that. Old readers pass over it; from old writers there is
        /// none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waited_for: Option<Box<WaitedFor>>,
    },
    /// An attempt that runs for an equal job, which is no longer wanted, goes on as this job's: the lease stays, its
    /// holder runs on. The other job ends with the next facts.
    AttemptAdopted {
        /// The job.
        job: JobName,
        /// The attempt's number in the build.
        attempt: AttemptNumber,
        /// Which try at the job it is, from 1.
        try_number: u32,
        /// The lease, as it was given.
        lease: LeaseId,
        /// Who holds it.
        worker: WorkerId,
        /// As what the attempt began. Its log stands there, and its worker reports it so.
        from: Adopted,
        /// How often the lease was handed over, this time among them.
        handed: u32,
    },
    /// A job that asks for a build has it: the child is created with the facts of the same step. The job runs until the child ends,
    /// if it waits for it.
    ChildMade {
        /// The job.
        job: JobName,
        /// Which try at the job it is, from 1.
        try_number: u32,
        /// The child.
        child: BuildId,
    },
    /// The child that a job waited for did not pass, and the job tries again by itself.
    ChildFailed {
        /// The job.
        job: JobName,
        /// The child.
        child: BuildId,
        /// How the try ended.
        outcome: Outcome,
        /// When the next one may begin.
        retry_at: Timestamp,
    },
    /// The attempt ended, or was given up as lost.
    AttemptFinished {
        /// The job.
        job: JobName,
        /// The attempt's number in the build.
        attempt: AttemptNumber,
        /// The lease under which it was reported.
        lease: LeaseId,
        /// How it ended.
        report: Box<AttemptReport>,
        /// When the next try may begin; `None` if the job has ended with this attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
    },
    /// The job ended without an attempt of its own.
    JobEnded {
        /// The job.
        job: JobName,
        /// Its outcome.
        outcome: Outcome,
        /// How it came to it.
        how: Ended,
    },
    /// Somebody put a job that had ended back: it waits and runs again, and so do the jobs that were skipped
    /// because of how it had ended. A build that had ended runs again.
    JobRetried {
        /// The job.
        job: JobName,
        /// Who.
        by: String,
        /// The tests to which its attempts are narrowed until somebody retries it again; `None` asks for the whole job.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tests: Option<Arc<AskedTests>>,
        /// Names the request, if it may be repeated: a repetition puts nothing back. Facts of older servers name none, and those pass it over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
    },
    /// Somebody asked that a job be canceled while an attempt at it ran, or between two tries.
    JobCancelRequested {
        /// The job.
        job: JobName,
        /// Who or what.
        by: String,
    },
    /// Somebody put the build before those that are not urgent: what waits of it, and what is to come.
    MadeUrgent {
        /// Who.
        by: String,
    },
    /// Somebody asked that the build be canceled.
    CancelRequested {
        /// Who or what.
        by: String,
    },
    /// The build ended. Nothing follows, unless somebody retries one of its jobs.
    BuildEnded {
        /// How.
        verdict: Verdict,
    },
}

/// An attempt as it began, before other builds took it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The build under which it began.
    pub build: BuildId,
    /// Its number there.
    pub attempt: AttemptNumber,
    /// Its job there.
    pub job: JobName,
}

/// How a job ended without an attempt of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It was skipped, refused, or had nothing to run.
    Decided,
    /// An equal operation had passed before.
    Reused(Reused),
    /// The build that it asked for ended, or was made and is not waited for.
    Child {
        /// The child.
        build: BuildId,
    },
}

/// An earlier result that stands for a job's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reused {
    /// The build that produced it.
    pub build: BuildId,
    /// The attempt that produced it.
    pub attempt: AttemptNumber,
    /// The job under which it ran.
    pub job: JobName,
    /// The files it handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<String, Artifact>,
}
