//! What an engine can be asked about: builds, jobs, workers. Nothing here changes anything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use graph::{AttemptNumber, BuildId, JobName, LeaseId, Outcome, Timestamp, Verdict, WorkerId};

use crate::build::{Build, GateState, Place, Slot};
use crate::engine::Engine;

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState<'a> {
    /// It waits for jobs it needs, or for a decision that comes with the next step.
    Waiting,
    /// It waits for a person.
    Gated,
    /// Its operation is worked out.
    Resolving,
    /// It waits for an equal operation that is under way.
    Following,
    /// It waits for its concurrency group.
    Grouped,
    /// It waits for a worker.
    Queued,
    /// A worker holds it.
    Leased {
        /// The attempt.
        attempt: AttemptNumber,
        /// The lease.
        lease: LeaseId,
        /// The worker.
        worker: &'a WorkerId,
    },
    /// The build that it wants is being made.
    Asking,
    /// It waits for the end of a build that it asked for.
    Child {
        /// That build.
        build: BuildId,
    },
    /// It waits for its next try.
    Sleeping {
        /// When that may begin.
        until: Timestamp,
    },
    /// It has ended.
    Ended(&'a Outcome),
}

impl Engine {
    /// The latest time that it was told, also by facts.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The builds that it holds, ended ones among them until they are forgotten, oldest first.
    pub fn builds(&self) -> impl Iterator<Item = BuildId> {
        self.builds.keys().copied()
    }

    /// Those of these leases whose attempts are to stop.
    #[must_use]
    pub fn stopping(&self, leases: &[LeaseId]) -> BTreeSet<LeaseId> {
        let is_stopping =
            |lease: &&LeaseId| self.leases.get(lease).is_some_and(|&job| self.slot(job).flags.is_stopping);
        leases.iter().filter(is_stopping).copied().collect()
    }

    /// How a build ended, or that it runs; `None` if there is no such build.
    #[must_use]
    pub fn verdict(&self, build: BuildId) -> Option<Verdict> {
        Some(self.builds.get(&build)?.verdict.clone().unwrap_or(Verdict::Running))
    }

    /// The state of one job.
    #[must_use]
    pub fn job(&self, build: BuildId, job: &JobName) -> Option<JobState<'_>> {
        let build = self.builds.get(&build)?;
        let slot = build.slot(*build.index_of.get(job)?);
        (!slot.flags.is_dropped).then(|| state_of(slot))
    }

    /// Whether the pipeline was told how a job ended, and has grown by it: then the job cannot run again within its build.
    #[must_use]
    pub fn is_told(&self, build: BuildId, job: &JobName) -> bool {
        let Some(build) = self.builds.get(&build) else { return false };
        build.index_of.get(job).is_some_and(|&index| build.is_outcome_answered(index))
    }

    /// The jobs of a build with their states, in the order in which they were first seen.
    pub fn jobs(&self, build: BuildId) -> impl Iterator<Item = (&JobName, JobState<'_>)> {
        let slots = self.builds.get(&build).into_iter().flat_map(|build| &build.slots);
        slots.filter(|slot| !slot.flags.is_dropped).map(|slot| (&slot.name, state_of(slot)))
    }

    /// The jobs of a build that wait for a worker: in which pool, and since when.
    pub fn waits(&self, build: BuildId) -> impl Iterator<Item = (&str, Timestamp)> {
        let slots = self.builds.get(&build).into_iter().flat_map(|build| &build.slots);
        let queued = slots.filter(|slot| !slot.flags.is_dropped && slot.place == Place::Queued);
        queued.map(|slot| (slot.job.pool.as_str(), slot.ready_at))
    }

    /// The jobs in the queue that no worker present could run even if it were idle, by pool, labels and size.
    #[must_use]
    pub fn unmatched(&self) -> Vec<(BuildId, JobName)> {
        let workers: Vec<_> = self.workers.present().map(|(_, presence)| presence).collect();
        let jobs = self.schedule.unmatched(&workers);
        jobs.map(|(build, _, index)| (build, self.slot((build, index)).name.clone())).collect()
    }

    /// How long a project's jobs of this id took before, in milliseconds; a default if none has ended.
    #[must_use]
    pub fn estimate_ms(&self, project: &str, job_id: &str) -> u64 {
        self.schedule.estimate_ms(project, job_id)
    }

    /// All that facts say, as text, one line a job: two engines that know the same paint the same. Queues and
    /// presence are not in it. The lines that begin with `shared` tell what builds do to each other in the order of
    /// their facts; they may differ where facts are folded build by build.
    #[must_use]
    pub fn portrait(&self) -> String {
        let mut text = String::new();
        for build in self.builds.values() {
            paint(build, &mut text);
        }
        let leases = &self.leases;
        let holders: std::collections::BTreeMap<_, _> = self
            .groups
            .iter()
            .filter(|(_, group)| !group.holders.is_empty())
            .map(|(name, group)| (name, &group.holders))
            .collect();
        let results: std::collections::BTreeMap<_, _> =
            self.operations.iter().filter_map(|(digest, operation)| Some((digest, operation.result?))).collect();
        let lines = [
            format!("last lease {}, leases {leases:?}", self.last_lease),
            format!("groups {holders:?}"),
            format!("shared results {results:?}"),
            format!("shared charges {}", self.schedule.portrait()),
            format!("shared warmth {:?} {:?}", self.warmth.standing(), self.standing().warm),
        ];
        text + &lines.join("\n")
    }
}

fn state_of(slot: &Slot) -> JobState<'_> {
    if let Some(end) = &slot.end {
        return JobState::Ended(&end.outcome);
    }
    if let Some(lease) = &slot.lease {
        return JobState::Leased { attempt: lease.attempt, lease: lease.id, worker: &lease.worker };
    }
    if let Some(child) = slot.child {
        return JobState::Child { build: child.build };
    }
    match slot.place {
        Place::Nowhere if slot.gate == GateState::Open => JobState::Gated,
        Place::Nowhere => JobState::Waiting,
        Place::Resolving => JobState::Resolving,
        Place::Following => JobState::Following,
        Place::Grouped => JobState::Grouped,
        Place::Queued => JobState::Queued,
        Place::Asking(_) => JobState::Asking,
        Place::Sleeping(until) => JobState::Sleeping { until },
    }
}

fn paint(build: &Build, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "build {} {:?} {:?} unended {} evaluations {} attempts {:?} children {} answers {:?}",
        build.id,
        build.verdict,
        build.halt,
        build.n_unended,
        build.n_evaluations,
        build.attempts,
        build.n_children,
        build.known.answers,
    );
    for slot in &build.slots {
        let flags = crate::build::Flags { is_on_agenda: false, is_stopping: false, ..slot.flags };
        let lease = slot.lease.as_ref().map(|lease| (lease.id, lease.attempt, &lease.worker, lease.since));
        let group = slot.group.as_ref().filter(|_| slot.flags.has_begun);
        let _ = writeln!(
            text,
            "  {} waits {} ready {:?} tries {} gate {:?} {:?} {:?} {:?} {:?} {:?} {group:?} {flags:?} {:?}",
            slot.name,
            slot.n_waits_for,
            slot.ready_at,
            slot.n_tries,
            slot.gate,
            slot.operation,
            slot.end,
            lease,
            slot.child,
            slot.retry_at,
            slot.asked,
        );
    }
}
