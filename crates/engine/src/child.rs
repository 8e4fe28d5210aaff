//! Builds that jobs ask for, on a server: the child is a build of the same engine, and its job waits for it without a worker.
//!
//! A job of this kind is asked for ([`Place::Asking`]); the world prepares the request and draws the number; then
//! `ChildMade` of the job and `BuildCreated` of the child become true in one step, which is stored as a whole or not at all. So no
//! death loses a child or makes two: who finds no `ChildMade` asks again, and an answer to an earlier asking is ignored. The
//! child's end and that of its job are facts of one step, too. On a laptop the same job is a step that runs `ropewalk run`.

use std::collections::BTreeMap;

use graph::{BuildId, ChildBuild, Failure, JobName, NeedResult, Outcome, Parent, Text, Timestamp, Verdict, Waits};

use crate::build::{Build, Child, Halt, Place, Slot};
use crate::contexts::JobContexts;
use crate::decide::Move;
use crate::effect::Effect;
use crate::engine::{Engine, Step};
use crate::fact::{Ended, What};
use crate::input::BuildRequest;
use crate::line::{GroupKey, JobRef};
use crate::report::OUTPUTS_BYTES_MAX;
use crate::standing::Charging;

/// The most builds that the jobs of one build may ask for, those of further tries among them.
pub const CHILDREN_MAX: u32 = 100;
/// The most builds of one project that jobs asked for and that have not ended.
pub const CHILDREN_RUNNING_MAX: usize = 500;

/// The most parameters of a build that a job asks for.
pub const PARAMS_MAX: usize = 1000;
/// The longest of the texts by which a job asks for a build, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// The most bytes that all of these texts have.
pub const TEXTS_BYTES_MAX: usize = 4 << 20;

/// The exit codes of `ropewalk run`, which is what the job runs on a laptop.
const EXIT_FAILED: i32 = 1;
const EXIT_WRONG: i32 = 2;

/// Whether a job is one that asks for a build and that no worker runs.
pub(crate) fn asks_for_build(build: &Build, slot: &Slot) -> bool {
    build.request.origin.source.is_some() && slot.job.child().is_some()
}

/// How a job failed because its child could not be made.
#[must_use]
pub fn refused(message: String) -> Failure {
    Failure::Step { step: 0, exit: EXIT_WRONG, message: Some(message) }
}

/// How a job fails whose build has asked for as many as it may.
fn too_many_of(parent: BuildId) -> Failure {
    refused(format!(
        "the jobs of build {parent} have asked for {CHILDREN_MAX} builds, the most there may be: let one build do more"
    ))
}

impl Engine {
    /// The build that a job wants is asked for.
    pub(crate) fn ask_child(&mut self, step: &mut Step, job: JobRef) {
        if self.builds[&job.0].n_children >= CHILDREN_MAX {
            return self.end_asking(step, job, Outcome::Failed(too_many_of(job.0)));
        }
        self.n_askings += 1;
        let asking = self.n_askings;
        match self.ask_effect(job, asking) {
            Ok(effect) => {
                self.slot_mut(job).place = Place::Asking(asking);
                step.effects.push(effect);
            }
            Err(message) => {
                let message = format!("what it asks for cannot be evaluated: {message}");
                self.end_asking(step, job, Outcome::Failed(refused(message)));
            }
        }
    }

    /// What asks for the child, with its expressions evaluated.
    pub(crate) fn ask_effect(&self, job: JobRef, asking: u64) -> Result<Effect, String> {
        let slot = self.slot(job);
        let contexts = JobContexts::new(&self.builds[&job.0], job.1);
        let mut bytes = 0;
        let mut text = |text: &Text| {
            let text = contexts.text(text)?;
            bytes += text.len();
            if text.len() > TEXT_BYTES_MAX || bytes > TEXTS_BYTES_MAX {
                return Err(format!(
                    "it has more text than a build may be asked for with, {TEXT_BYTES_MAX} bytes in one place and \
                     {TEXTS_BYTES_MAX} in all: hand files on as artifacts"
                ));
            }
            Ok(Text::Plain((&*text).into()))
        };
        let mut maybe = |written: &Option<Text>| written.as_ref().map(&mut text).transpose();
        let child = slot.job.child().cloned().unwrap_or_default();
        if child.params.len() > PARAMS_MAX {
            return Err(format!("it has more than {PARAMS_MAX} parameters"));
        }
        let (file, command) = (maybe(&child.file)?, maybe(&child.command)?);
        let (branch, tag) = (maybe(&child.branch)?, maybe(&child.tag)?);
        let params = child.params.iter().map(|(name, value)| Ok((name.clone(), text(value)?)));
        let params = params.collect::<Result<_, String>>()?;
        let child = ChildBuild { file, command, branch, tag, params, ..child };
        Ok(Effect::AskChild { build: job.0, job: slot.name.clone(), asking, child: Box::new(child) })
    }

    fn end_asking(&mut self, step: &mut Step, job: JobRef, outcome: Outcome) {
        let name = self.slot(job).name.clone();
        self.record(step, job.0, What::JobEnded { job: name, outcome, how: Ended::Decided });
    }

    /// Makes the child that a job asked for, unless the job has gone on since.
    pub(crate) fn judge_child(
        &mut self,
        step: &mut Step,
        id: BuildId,
        job: JobName,
        asking: u64,
        child: Result<(BuildId, Box<BuildRequest>), Failure>,
    ) {
        let Some(index) = self.index_of(id, &job) else { return };
        if self.slot((id, index)).place != Place::Asking(asking) {
            return;
        }
        let (child, mut request) = match child.and_then(|child| self.bounded(id, child)) {
            Ok(child) => child,
            Err(failure) => return self.end_asking(step, (id, index), Outcome::Failed(failure)),
        };
        if self.builds.contains_key(&child) || self.forgotten.contains(&child) {
            return;
        }
        let try_number = self.slot((id, index)).n_tries + 1;
        // Somebody may have put the parent before others meanwhile.
        request.options.urgent |= self.builds[&id].request.options.urgent;
        self.record(step, child, What::BuildCreated(request));
        self.record(step, id, What::ChildMade { job, try_number, child });
    }

    /// The child, if there are not too many.
    fn bounded(
        &self,
        parent: BuildId,
        child: (BuildId, Box<BuildRequest>),
    ) -> Result<(BuildId, Box<BuildRequest>), Failure> {
        if self.builds[&parent].n_children >= CHILDREN_MAX {
            return Err(too_many_of(parent));
        }
        let project = &child.1.origin.project;
        // What forks ask for takes no room from what is trusted.
        let is_child = |build: &&Build| {
            let Build { verdict, request, .. } = build;
            verdict.is_none()
                && request.event.parent.is_some()
                && request.event.trust == child.1.event.trust
                && request.origin.project == *project
        };
        if self.builds.values().filter(is_child).count() >= CHILDREN_RUNNING_MAX {
            return Err(refused(format!(
                "{CHILDREN_RUNNING_MAX} builds of `{project}` that jobs asked for have not ended, the most there may be: retry the \
                 job when some have, or let builds ask for fewer"
            )));
        }
        Ok(child)
    }

    /// A job has the build that it asked for.
    pub(crate) fn apply_child(&mut self, job: JobRef, try_number: u32, child: BuildId, at: Timestamp) {
        let group = self.group_of(job);
        self.leave_lines(job);
        let build = self.builds.get_mut(&job.0).expect("the caller found the job in it");
        self.requests.note_begun(job.0, &build.request);
        build.n_children += 1;
        let slot = build.slot_mut(job.1);
        slot.child = Some(Child { build: child, since: at });
        slot.n_tries = try_number;
        slot.retry_at = None;
        slot.flags.has_begun = true;
        slot.group.clone_from(&group);
        if let Some(group) = group.filter(|_| !matches!(self.charging, Charging::Recalled)) {
            let group = self.groups.entry(group).or_default();
            group.holders.insert(job);
            group.offered = None;
        }
    }

    /// A build has ended: the job that waits for it goes on.
    pub(crate) fn wake_parent(&mut self, child: BuildId) {
        let parent = self.builds.get(&child).and_then(|build| build.request.event.parent.as_ref());
        let Some((build, job)) = parent.map(|parent| (parent.build, parent.job.clone())) else { return };
        if let Some(index) = self.index_of(build, &job)
            && self.slot((build, index)).child.is_some_and(|waited| waited.build == child)
        {
            self.leave_lines((build, index));
            self.consider((build, index));
        }
    }

    /// The job that holds a group and waits for this build, or for one that stands above it: who waited for it would wait for ever.
    pub(crate) fn holder_above(&self, build: BuildId, group: &GroupKey) -> Option<JobRef> {
        let holders = &self.groups.get(group)?.holders;
        let mut below = build;
        for _ in 0..=Parent::DEPTH_MAX {
            let parent = self.builds.get(&below)?.request.event.parent.as_ref()?;
            let job = (parent.build, self.index_of(parent.build, &parent.job)?);
            if self.slot(job).child.is_none_or(|child| child.build != below) {
                return None;
            }
            if holders.contains(&job) {
                return Some(job);
            }
            below = parent.build;
        }
        None
    }

    /// Puts a build before those that are not urgent, and with it the builds for which its jobs wait.
    pub(crate) fn urge(&mut self, step: &mut Step, build: BuildId, by: &str) {
        let mut open = vec![build];
        while let Some(id) = open.pop() {
            let Some(build) = self.builds.get(&id).filter(|build| build.verdict.is_none()) else { continue };
            open.extend(build.slots.iter().filter_map(|slot| slot.child).map(|child| child.build));
            if !build.request.options.urgent {
                self.record(step, id, What::MadeUrgent { by: by.to_owned() });
            }
        }
    }

    /// Tells the build for which a job waits to end, if it has not.
    pub(crate) fn cancel_child_of(&mut self, step: &mut Step, job: JobRef, by: &str) {
        let Slot { child: Some(child), job: asking, .. } = self.slot(job) else { return };
        if asking.child().is_some_and(|asked| asked.waits == Waits::No) {
            return;
        }
        let child = *child;
        if self.is_child_going_on(child.build) {
            self.record(step, child.build, What::CancelRequested { by: by.to_owned() });
        }
    }

    fn is_child_going_on(&self, child: BuildId) -> bool {
        let is_going_on = |build: &Build| build.verdict.is_none() && !matches!(build.halt, Some(Halt::Canceled { .. }));
        self.builds.get(&child).is_some_and(is_going_on)
    }

    /// The move of a job that has the build it asked for.
    pub(crate) fn move_of_parent(&self, job: JobRef, child: Child) -> Move {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        let how = Ended::Child { build: child.build };
        if slot.job.child().is_some_and(|asked| asked.waits == Waits::No) {
            return Move::End(Outcome::passed(), how);
        }
        let is_unwanted = slot.canceled_by.is_some() || build.halt.is_some() && !slot.job.cleanup;
        let deadline = slot.job.timeout_ms.map(|limit_ms| (child.since.plus_ms(limit_ms), limit_ms));
        let is_late = deadline.is_some_and(|(at, _)| at <= self.now);
        let Some(made) = self.builds.get(&child.build) else {
            let message = format!("build {}, for which it waited, is not known any more", child.build);
            return Move::End(Outcome::Failed(Failure::Infra { message }), how);
        };
        let Some(verdict) = &made.verdict else {
            let by = match deadline {
                _ if is_unwanted => Some(self.stopped_by(job)),
                Some((_, limit_ms)) if is_late => {
                    Some(format!("job `{}` of build {}, whose {} s were over", slot.name, job.0, limit_ms / 1000))
                }
                _ => None,
            };
            return match (by, deadline) {
                (Some(by), _) if self.is_child_going_on(child.build) => Move::CancelChild(child.build, by),
                (None, Some((at, _))) if slot.place == Place::Nowhere => Move::Sleep(at),
                _ => Move::Stay,
            };
        };
        let outcome = match (outcome_of(made, verdict, slot), deadline) {
            (Outcome::Failed(_), _) if is_unwanted => Outcome::Failed(Failure::Canceled { by: self.stopped_by(job) }),
            (Outcome::Failed(Failure::Canceled { .. }), Some((_, limit_ms))) if is_late => {
                Outcome::Failed(Failure::Timeout { step: None, limit_ms })
            }
            (outcome, _) => outcome,
        };
        match &outcome {
            Outcome::Failed(failure) if !is_unwanted && slot.job.retry.admits(failure, slot.n_tries) => {
                let retry_at = self.now.plus_ms(slot.job.retry.wait_ms(slot.n_tries));
                Move::TryAgain(child.build, outcome, retry_at)
            }
            _ => Move::End(outcome, how),
        }
    }
}

/// How a job ends whose child ended so, with what it hands on of the outputs of the child's jobs.
fn outcome_of(child: &Build, verdict: &Verdict, slot: &Slot) -> Outcome {
    let failed = |exit: i32, what: String| {
        let message = Some(format!("build {} {what}", child.id));
        Outcome::Failed(Failure::Step { step: 0, exit, message })
    };
    match verdict {
        Verdict::Passed { .. } => match handed_on(child, slot) {
            Ok(outputs) => Outcome::Passed { outputs },
            Err(what) => failed(EXIT_WRONG, what),
        },
        Verdict::Canceled { by } => Outcome::Failed(Failure::Canceled {
            by: format!("the end of build {}, which was canceled by {by}", child.id),
        }),
        Verdict::Failed { because: Some(job) } => failed(EXIT_FAILED, format!("failed because of `{job}`")),
        Verdict::Diverged { job } => failed(EXIT_FAILED, format!("changed `{job}` after it had begun")),
        Verdict::Failed { because: None } | Verdict::Running => {
            failed(EXIT_WRONG, "failed: its pipeline is wrong".to_owned())
        }
    }
}

/// What a job of a build gave, or the legs of a matrix by this id together, as `needs` tells it.
fn outputs_of(build: &Build, job: &JobName) -> BTreeMap<String, serde_json::Value> {
    let is_it = |slot: &&Slot| slot.name == *job || slot.name.leg().is_some() && slot.name.id() == job.as_str();
    let passed = build.slots.iter().filter(is_it).filter_map(|slot| match &slot.end.as_ref()?.outcome {
        Outcome::Passed { outputs } => {
            let (result, artifacts) = ("passed".to_owned(), BTreeMap::new());
            let result = NeedResult { result, outputs: outputs.clone(), artifacts };
            Some((slot.name.clone(), result))
        }
        Outcome::Failed(_) | Outcome::Skipped(_) => None,
    });
    let mut results: BTreeMap<JobName, NeedResult> = passed.collect();
    graph::legs::join(&mut results, |name| build.slot(build.index_of[name]).job.order);
    results.remove(job).map(|result| result.outputs).unwrap_or_default()
}

/// The outputs that the job hands on, or what is missing of them.
fn handed_on(child: &Build, slot: &Slot) -> Result<BTreeMap<String, serde_json::Value>, String> {
    let wanted = slot.job.child().map(|asked| &asked.hand_on);
    let mut outputs = BTreeMap::new();
    let mut bytes = 0;
    for (name, from) in wanted.into_iter().flatten() {
        let (job, output) = from.rsplit_once('.').unwrap_or((from, ""));
        let value = outputs_of(child, &JobName::from(job)).remove(output);
        let value = value.ok_or_else(|| format!("passed, and its job `{job}` handed on no `{output}`"))?;
        bytes += name.len() + value.as_str().map_or_else(|| value.to_string().len(), str::len);
        if bytes > OUTPUTS_BYTES_MAX {
            return Err(format!(
                "passed, and what is handed on of it has more than {OUTPUTS_BYTES_MAX} bytes: hand on less"
            ));
        }
        outputs.insert(name.clone(), value);
    }
    match slot.job.outputs.iter().find(|name| !outputs.contains_key(*name)) {
        Some(missing) => Err(format!("passed, and nothing of it is handed on as `{missing}`: name it under `hand_on`")),
        None => Ok(outputs),
    }
}
