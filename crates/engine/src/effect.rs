//! What the world still has to do. Every effect may be asked twice and must then do no harm.

use std::collections::BTreeMap;
use std::sync::Arc;

use graph::{
    AttemptSpec, BuildId, ChildBuild, Digest, Job, JobName, Known, LeaseId, NeedResult, Question, Timestamp, WorkerId,
};

/// One thing to do. Performed only after the facts of the same step are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Evaluate the build's pipeline; answer with `Input::Evaluated`.
    Evaluate {
        /// The build.
        build: BuildId,
        /// The pipeline, as the request named it.
        pipeline: String,
        /// What is known.
        known: Arc<Known>,
        /// The binary of the pipeline's program that said the build's first evaluation: that one is asked. `None` before that, of a pipeline of files
        /// alone, and of a build that an older release began.
        program: Option<Digest>,
    },
    /// Find an answer; answer with `Input::Answered`.
    Answer {
        /// The build.
        build: BuildId,
        /// The question.
        question: Question,
    },
    /// Work out the job's operation and look for an earlier result; answer with `Input::OperationResolved`.
    Resolve {
        /// The build.
        build: BuildId,
        /// The job's name.
        job: JobName,
        /// The job.
        spec: Arc<Job>,
        /// What came along its edges.
        needs: BTreeMap<JobName, NeedResult>,
    },
    /// Prepare the build that a job asks for; answer with `Input::ChildPrepared`.
    AskChild {
        /// The build whose job asks.
        build: BuildId,
        /// The job.
        job: JobName,
        /// Of which asking the answer is.
        asking: u64,
        /// What is asked for, with its expressions evaluated.
        child: Box<ChildBuild>,
    },
    /// Hand an attempt to a worker; it ends with `Input::AttemptFinished`.
    Start {
        /// The worker.
        worker: WorkerId,
        /// The attempt.
        spec: Box<AttemptSpec>,
        /// The concurrency group that its job holds here, by name. Where engines of several processes run builds of one project, whoever
        /// begins the attempt sees to it that the job holds it among all of them.
        group: Option<Arc<str>>,
    },
    /// Tell a worker that a lease is no longer wanted; it ends the attempt gently and reports it.
    Stop {
        /// The worker.
        worker: WorkerId,
        /// The lease.
        lease: LeaseId,
        /// Who or what canceled it.
        by: String,
    },
    /// Answer a request with the build there is already. Asked once: a request that is made again after a crash, when the
    /// other build has begun, is a build of its own.
    Duplicate {
        /// The number under which it was requested; no build has it.
        requested: BuildId,
        /// The build that it is.
        of: BuildId,
    },
    /// Call `step` again at this time, also without inputs.
    Wake {
        /// When.
        at: Timestamp,
    },
}
