//! Adoption: an attempt whose own build no longer wants it goes on for another that waits for the same result.
//!
//! The lease stays what it is, so the worker notices nothing: it reports as what it was started as, and its log stays
//! where it began. Only the job behind the lease changes.

use graph::{AttemptNumber, AttemptReport, Failure, Job, Outcome};

use crate::build::{Build, OperationState, Place, Slot};
use crate::engine::{Engine, Step};
use crate::fact::{Adopted, What};
use crate::line::JobRef;

impl Engine {
    /// The job that may take over the attempt of `job`: of those that wait for the same operation the first that is still
    /// wanted, is of the same project, asks the same of a worker and is in no concurrency group (it would hold its group
    /// out of turn).
    pub(crate) fn adopter_of(&self, job: JobRef) -> Option<JobRef> {
        let (build, slot) = (&self.builds[&job.0], self.slot(job));
        let OperationState::Known(digest) = slot.operation else { return None };
        let operation = self
            .operations
            .get(&self.operation_key(job.0, digest))
            .filter(|operation| operation.leader == Some(job))?;
        let is_fit = |other: &JobRef| {
            let (its_build, its) = (&self.builds[&other.0], self.slot(*other));
            its.place == Place::Following
                && is_wanted(its_build, its)
                && its.job.concurrency.is_none()
                && its_build.request.origin.project == build.request.origin.project
                && asks_the_same(&its.job, &slot.job)
        };
        operation.followers.iter().map(|&(_, build, index)| (build, index)).find(is_fit)
    }

    /// Lets the attempt of `job` go on as that of `adopter`, and ends `job` as canceled.
    pub(crate) fn hand_over(&mut self, step: &mut Step, job: JobRef, adopter: JobRef) {
        let by = self.stopped_by(job);
        let (name, lease) = {
            let slot = self.slot(job);
            let Some(lease) = slot.lease.as_deref().cloned() else { return };
            (slot.name.clone(), lease)
        };
        let from = lease.from.map_or_else(
            || Adopted { build: job.0, attempt: lease.attempt, job: name.clone() },
            |from| (*from).clone(),
        );
        let its = self.slot(adopter);
        let what = What::AttemptAdopted {
            job: its.name.clone(),
            attempt: AttemptNumber(self.builds[&adopter.0].attempts.len() as u32 + 1),
            try_number: its.n_tries + 1,
            lease: lease.id,
            worker: lease.worker,
            from,
            handed: lease.handed + 1,
        };
        let note = format!("the attempt goes on for job `{}` of build {}", its.name, adopter.0);
        self.record(step, adopter.0, what);
        let outcome = Outcome::Failed(Failure::Canceled { by });
        let mut report = Box::new(AttemptReport::of(outcome, self.now));
        report.started = lease.since;
        report.notes.push(note);
        let (attempt, lease, retry_at) = (lease.attempt, lease.id, None);
        self.record(step, job.0, What::AttemptFinished { job: name, attempt, lease, report, retry_at });
    }
}

/// Whether a job that has not begun is to run.
fn is_wanted(build: &Build, slot: &Slot) -> bool {
    let is_left = slot.end.is_none() && slot.lease.is_none() && !slot.flags.is_dropped && !slot.flags.is_retried;
    is_left && build.verdict.is_none() && (build.halt.is_none() || slot.job.cleanup)
}

/// Whether an attempt at one job does as one at the other. That the work is equal, the operation says.
fn asks_the_same(left: &Job, right: &Job) -> bool {
    left.pool == right.pool
        && left.labels == right.labels
        && left.resources == right.resources
        && left.timeout_ms == right.timeout_ms
}
