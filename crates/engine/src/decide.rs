//! Decides what follows from the state: for each job on the agenda its next move, for each build whether it ends.
//!
//! The life of a job: its needs end; it is skipped, or its `if` is decided; its gate is answered; its operation is
//! found, and an earlier or equal result reused; its concurrency group lets it in; it waits for a worker; it is
//! leased until it ends. Every decision is a function of the state, so deciding again after a restart gives the same.

use std::sync::Arc;

use graph::outcome::{Scope, is_reusable, verdict};
use graph::{
    Answer, AttemptSpec, BuildId, Carries, ConcurrencyMode, Digest, Failure, JobName, LeaseId, Outcome, Question,
    Reuse, SkipReason, Timestamp, Verdict, WaitedFor, WorkerId,
};

use crate::affinity::Placement;
use crate::build::{Build, GateState, Halt, OperationState, Place, Slot, SlotIndex};
use crate::child::{asks_for_build, refused};
use crate::contexts::{JobContexts, need_results};
use crate::effect::Effect;
use crate::engine::{Engine, Step};
use crate::fact::{Ended, Reused, What};
use crate::judge::never_filled;
use crate::line::{Arrival, GroupKey, JobRef};

/// The shortest wait of which it is told whose end it waited for, in milliseconds.
const WAIT_TOLD_MS_MIN: u64 = 100;

/// What a job does next.
pub(crate) enum Move {
    /// Nothing, until something happens.
    Stay,
    /// Its end is an answer to the pipeline.
    Tell(Question, Outcome),
    /// Its worker is told to stop.
    Stop,
    /// Its attempt goes on for another job.
    HandOver(JobRef),
    /// It ends without an attempt.
    End(Outcome, Ended),
    /// A person is asked.
    OpenGate(String),
    /// Its operation is worked out.
    Resolve,
    /// It waits for an equal operation.
    Follow(Digest),
    /// It waits for its concurrency group.
    EnterGroup(GroupKey, ConcurrencyMode),
    /// It waits for a worker.
    Queue,
    /// The build that it wants is asked for.
    Ask,
    /// The build that it waits for is told to end.
    CancelChild(BuildId, String),
    /// The build that it waited for failed; it tries again.
    TryAgain(BuildId, Outcome, Timestamp),
    /// It waits for the time of its next try, or for the end of its child's time.
    Sleep(Timestamp),
}

impl Engine {
    /// Decides until nothing follows.
    pub(crate) fn settle(&mut self, step: &mut Step) {
        loop {
            if let Some(job) = self.agenda.pop_front() {
                if let Some(build) = self.builds.get_mut(&job.0) {
                    build.slot_mut(job.1).flags.is_on_agenda = false;
                    self.advance(step, job);
                }
            } else if let Some(group) = self.groups_agenda.pop() {
                self.offer_group(step, &group);
            } else if let Some(build) = self.builds_agenda.pop_first() {
                self.look_at_build(step, build);
            } else {
                return;
            }
        }
    }

    fn advance(&mut self, step: &mut Step, job: JobRef) {
        let name = self.slot(job).name.clone();
        match self.next_move(job) {
            Move::Stay => {}
            Move::Tell(question, outcome) => {
                self.record(step, job.0, What::Answered { question, answer: Answer::Outcome(outcome) });
                // A leg may answer for itself and for its matrix.
                self.consider(job);
            }
            Move::Stop => self.stop(step, job),
            Move::HandOver(adopter) => self.hand_over(step, job, adopter),
            Move::End(outcome, how) => {
                self.record(step, job.0, What::JobEnded { job: name, outcome, how });
            }
            Move::OpenGate(prompt) => {
                self.record(step, job.0, What::GateOpened { job: name, prompt });
            }
            Move::Resolve => {
                self.slot_mut(job).place = Place::Resolving;
                step.effects.push(self.resolve_effect(job));
            }
            Move::Follow(digest) => self.follow(job, digest),
            Move::EnterGroup(group, mode) => self.enter_group(step, job, group, mode),
            Move::Queue => self.enqueue(job),
            Move::Ask => self.ask_child(step, job),
            Move::CancelChild(child, by) => {
                self.record(step, child, What::CancelRequested { by });
            }
            Move::TryAgain(child, outcome, retry_at) => {
                self.record(step, job.0, What::ChildFailed { job: name, child, outcome, retry_at });
            }
            Move::Sleep(at) => {
                self.slot_mut(job).place = Place::Sleeping(at);
                self.timers.insert((at, job.0, job.1));
            }
        }
    }

    fn next_move(&self, job: JobRef) -> Move {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        if build.verdict.is_some() || slot.flags.is_dropped {
            return Move::Stay;
        }
        let is_halted = build.halt.is_some() && !slot.job.cleanup;
        if slot.end.is_some() {
            let telling = if build.halt.is_none() { build.telling(job.1) } else { None };
            return telling.map_or(Move::Stay, |(question, outcome)| Move::Tell(question, outcome));
        }
        if slot.lease.is_some() {
            if slot.flags.is_stopping || !is_halted && slot.canceled_by.is_none() {
                return Move::Stay;
            }
            return self.adopter_of(job).map_or(Move::Stop, Move::HandOver);
        }
        if let Some(child) = slot.child {
            return self.move_of_parent(job, child);
        }
        if slot.is_under_way() {
            return match halted(build, slot) {
                Some(outcome) => Move::End(outcome, Ended::Decided),
                None if slot.place != Place::Nowhere => Move::Stay,
                None => self.move_of_ready(job),
            };
        }
        if let Some((reused, outcome)) = build.request.given.get(&slot.name).filter(|_| !slot.flags.is_retried) {
            return Move::End(outcome.clone(), Ended::Reused(reused.clone()));
        }
        if let Some(outcome) = decided_early(build, job.1) {
            return Move::End(outcome, Ended::Decided);
        }
        if slot.n_waits_for > 0 || slot.place != Place::Nowhere {
            return Move::Stay;
        }
        if let Some(refused) = build.refusal(job.1) {
            let outcome = Outcome::Skipped(SkipReason::Need { because: refused.clone() });
            return Move::End(outcome, Ended::Decided);
        }
        match self.move_of_asked(job) {
            Some(next) => next,
            None => self.move_of_ready(job),
        }
    }

    /// The move of a job whose needs are satisfied, as long as its `if` or its gate holds it.
    fn move_of_asked(&self, job: JobRef) -> Option<Move> {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        let end = |outcome| Some(Move::End(outcome, Ended::Decided));
        let wrong = |what: &str, message: String| {
            end(Outcome::Failed(Failure::Infra { message: format!("{what} cannot be evaluated: {message}") }))
        };
        let contexts = JobContexts::new(build, job.1);
        if let Some(condition) = slot.job.condition.as_deref()
            && !slot.flags.is_retried
            && slot.gate == GateState::Closed
        {
            match contexts.holds(condition) {
                Ok(true) => {}
                Ok(false) => return end(Outcome::Skipped(SkipReason::Condition { text: condition.to_owned() })),
                Err(message) => return wrong("`if`", message),
            }
        }
        let gate = slot.job.gate.as_ref()?;
        match &slot.gate {
            GateState::Closed => Some(match contexts.text(&gate.prompt) {
                // A gate that asks nothing else asks what its title says.
                Ok(prompt) if prompt.is_empty() => {
                    Move::OpenGate(slot.job.title.as_plain().unwrap_or_default().to_owned())
                }
                Ok(prompt) => Move::OpenGate((*prompt).to_owned()),
                Err(message) => return wrong("the gate's prompt", message),
            }),
            GateState::Open => Some(Move::Stay),
            GateState::Rejected(by) => end(Outcome::Skipped(SkipReason::Rejected { by: (**by).to_owned() })),
            GateState::Answered(answer) if slot.job.steps.is_empty() => {
                end(Outcome::Passed { outputs: (**answer).clone() })
            }
            GateState::Answered(_) => None,
        }
    }

    /// The move of a job that nothing of its own holds any more.
    fn move_of_ready(&self, job: JobRef) -> Move {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        if slot.job.steps.is_empty() {
            return Move::End(Outcome::passed(), Ended::Decided);
        }
        if let Some(at) = slot.retry_at.filter(|&at| at > self.now) {
            return Move::Sleep(at);
        }
        match slot.operation {
            // Some of its tests are not the operation.
            OperationState::Unasked if build.asked(job.1).is_some() => {}
            OperationState::Unasked if slot.job.reuse != Reuse::Never => return Move::Resolve,
            OperationState::Known(digest) => {
                if let Some((reused, outcome)) = self.shared_result(job, digest) {
                    return Move::End(outcome, Ended::Reused(reused));
                }
                let leader = self.leader_of(job);
                if leader != Some(job) && leader.is_none_or(|leader| self.may_follow(job, leader)) {
                    return Move::Follow(digest);
                }
            }
            OperationState::Unasked | OperationState::Unknown => {}
        }
        let go = if asks_for_build(build, slot) { Move::Ask } else { Move::Queue };
        let Some(concurrency) = &slot.job.concurrency else { return go };
        match JobContexts::new(build, job.1).text(&concurrency.group) {
            Err(message) => {
                let message = format!("the concurrency group cannot be evaluated: {message}");
                Move::End(Outcome::Failed(Failure::Infra { message }), Ended::Decided)
            }
            Ok(name) => self.move_into_group(job, self.group_key(job.0, name), concurrency.mode).unwrap_or(go),
        }
    }

    /// The move of a job that would go on but for its group; `None` if it holds it.
    fn move_into_group(&self, job: JobRef, group: GroupKey, mode: ConcurrencyMode) -> Option<Move> {
        if self.groups.get(&group).is_some_and(|group| group.holders.contains(&job)) {
            return None;
        }
        Some(match self.holder_behind(job, &group, mode) {
            Some(holder) => Move::End(Outcome::Failed(refused(self.why_refused(job, &group, holder))), Ended::Decided),
            None => Move::EnterGroup(group, mode),
        })
    }

    /// The result that an equal operation had in a build that is still here.
    fn shared_result(&self, job: JobRef, digest: Digest) -> Option<(Reused, Outcome)> {
        let operation = self.operations.get(&self.operation_key(job.0, digest))?;
        let result = operation.result.filter(|_| !self.slot(job).flags.is_retried)?;
        let slot = self.builds.get(&result.0)?.slot(result.1);
        let ended = slot.end.as_ref()?.at;
        // Where facts are folded build by build, the operation may not have heard of it.
        let evicted = operation.evicted.max(self.slot(job).evicted);
        if evicted.is_some_and(|evicted| ended <= evicted) {
            return None;
        }
        let (reused, outcome) = slot.as_reused(result.0)?;
        let scope = if result.0 == job.0 { Scope::SameBuild } else { Scope::OtherBuild };
        is_reusable(outcome, scope).then(|| (reused, outcome.clone()))
    }

    /// Joins those that want an operation. The first leads: it goes on at once.
    fn follow(&mut self, job: JobRef, digest: Digest) {
        let arrival = self.arrival(job);
        let operation = self.operations.entry(self.operation_key(job.0, digest)).or_default();
        if operation.leader.is_none() {
            operation.leader = Some(job);
            self.consider(job);
        } else {
            operation.followers.insert(arrival);
            self.slot_mut(job).place = Place::Following;
        }
    }

    /// The leader of an operation has ended or left: others take its result, or the first of them leads.
    pub(crate) fn release_operation(&mut self, digest: Digest, job: JobRef, is_reusable: bool) {
        let key = self.operation_key(job.0, digest);
        let end_of = |job: JobRef| self.builds.get(&job.0)?.slot(job.1).end.as_ref().map(|end| end.at);
        let before = self.operations.get(&key).and_then(|operation| operation.result);
        // An older one comes later where facts are folded build by build.
        let is_newest = before.is_none_or(|before| end_of(before) <= end_of(job));
        let Some(operation) = self.operations.get_mut(&key) else { return };
        if is_reusable && is_newest {
            operation.result = Some(job);
        }
        operation.begun.remove(&job);
        if operation.leader == Some(job) {
            operation.leader = operation.begun.first().copied();
        }
        let woken: Vec<Arrival> = if is_reusable {
            std::mem::take(&mut operation.followers).into_iter().collect()
        } else if operation.leader.is_none() {
            // Also when the one who left was woken to lead and did not come to it.
            operation.followers.pop_first().into_iter().collect()
        } else {
            Vec::new()
        };
        if operation.is_idle() {
            self.operations.remove(&key);
        }
        for (_, build, index) in woken {
            self.slot_mut((build, index)).place = Place::Nowhere;
            self.consider((build, index));
        }
    }

    fn enter_group(&mut self, step: &mut Step, job: JobRef, key: GroupKey, mode: ConcurrencyMode) {
        let arrival = self.arrival(job);
        let by = format!("job `{}` of build {}", self.slot(job).name, job.0);
        let slot = self.slot_mut(job);
        slot.group = Some(key.clone());
        slot.place = Place::Grouped;
        let group = self.groups.entry(key.clone()).or_default();
        group.waiting.insert(arrival);
        let holders: Vec<JobRef> = group.holders.iter().copied().collect();
        let earlier: Vec<Arrival> = match mode {
            ConcurrencyMode::Queue => Vec::new(),
            ConcurrencyMode::CancelWaiting | ConcurrencyMode::CancelRunning => {
                group.waiting.range(..arrival).copied().collect()
            }
        };
        for (_, build, index) in earlier {
            self.cancel_waiting(step, (build, index), &by);
        }
        for holder in holders.into_iter().filter(|_| mode == ConcurrencyMode::CancelRunning) {
            if self.slot(holder).child.is_some() {
                self.cancel_child_of(step, holder, &by);
            } else if self.slot(holder).lease.is_none() {
                self.cancel_waiting(step, holder, &by);
            } else if !self.slot(holder).flags.is_stopping {
                self.stop(step, holder);
            }
        }
        self.groups_agenda.push(key);
        self.break_ring(job);
    }

    /// Ends a job that is in nobody's hands as canceled.
    pub(crate) fn cancel_waiting(&mut self, step: &mut Step, job: JobRef, by: &str) {
        let outcome = Outcome::Failed(Failure::Canceled { by: by.to_owned() });
        let name = self.slot(job).name.clone();
        self.record(step, job.0, What::JobEnded { job: name, outcome, how: Ended::Decided });
    }

    /// Lets the first of those that wait for a free group stand in the queue, and no other.
    fn offer_group(&mut self, step: &mut Step, key: &GroupKey) {
        let Some(group) = self.groups.get_mut(key) else { return };
        let next = if group.holders.is_empty() { group.waiting.first().copied() } else { None };
        let before = std::mem::replace(&mut group.offered, next);
        if group.is_idle() {
            self.groups.remove(key);
        }
        if before == next {
            return;
        }
        if let Some((_, build, index)) = before
            && matches!(self.slot((build, index)).place, Place::Queued | Place::Asking(_))
        {
            if self.slot((build, index)).place == Place::Queued {
                self.unqueue((build, index));
            }
            self.slot_mut((build, index)).place = Place::Grouped;
        }
        if let Some((_, build, index)) = next {
            if asks_for_build(&self.builds[&build], self.slot((build, index))) {
                self.ask_child(step, (build, index));
            } else {
                self.enqueue((build, index));
            }
        }
    }

    /// The holder of a group has ended.
    pub(crate) fn release_group(&mut self, job: JobRef) {
        let Some(key) = self.slot(job).group.clone() else { return };
        if let Some(group) = self.groups.get_mut(&key)
            && group.holders.remove(&job)
        {
            self.let_go.groups.insert(key.clone(), job);
            self.groups_agenda.push(key);
        }
    }

    pub(crate) fn enqueue(&mut self, job: JobRef) {
        let urgency = self.urgency_of(job.0);
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        self.schedule.insert(&build.request.client, urgency, (job.0, slot.job.order, job.1), &slot.job);
        self.slot_mut(job).place = Place::Queued;
    }

    pub(crate) fn unqueue(&mut self, job: JobRef) {
        let urgency = self.urgency_of(job.0);
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        self.schedule.remove(&build.request.client, urgency, (job.0, slot.job.order, job.1), &slot.job);
    }

    /// Takes a job out of every line in which it stands.
    pub(crate) fn leave_lines(&mut self, job: JobRef) {
        let arrival = self.arrival(job);
        let slot = self.slot_mut(job);
        let place = std::mem::take(&mut slot.place);
        let (operation, group) = (slot.operation, slot.group.clone());
        match place {
            Place::Nowhere | Place::Resolving | Place::Grouped | Place::Asking(_) => {}
            Place::Following => {
                if let OperationState::Known(digest) = operation {
                    let key = self.operation_key(job.0, digest);
                    if let Some(operation) = self.operations.get_mut(&key) {
                        operation.followers.remove(&arrival);
                    }
                }
            }
            Place::Queued => self.unqueue(job),
            Place::Sleeping(at) => {
                self.timers.remove(&(at, job.0, job.1));
            }
        }
        if matches!(place, Place::Queued | Place::Grouped | Place::Asking(_))
            && let Some(key) = group
        {
            let group = self.groups.entry(key.clone()).or_default();
            group.waiting.remove(&arrival);
            if group.offered == Some(arrival) {
                group.offered = None;
            }
            self.groups_agenda.push(key);
        }
    }

    /// Takes a job that has not begun out of every line, and lets others lead its operation.
    pub(crate) fn step_back(&mut self, job: JobRef) {
        self.leave_lines(job);
        if let OperationState::Known(digest) = self.slot(job).operation {
            self.release_operation(digest, job, false);
        }
    }

    fn arrival(&self, job: JobRef) -> Arrival {
        (self.slot(job).ready_at, job.0, job.1)
    }

    /// Tells the worker of a leased job to stop; it is told again whenever it says that it holds the lease.
    fn stop(&mut self, step: &mut Step, job: JobRef) {
        self.slot_mut(job).flags.is_stopping = true;
        step.effects.extend(self.stop_effect(job));
    }

    /// What tells the worker of a job to stop, if it is to.
    pub(crate) fn stop_effect(&self, job: JobRef) -> Option<Effect> {
        let slot = self.slot(job);
        let lease = slot.lease.as_ref().filter(|_| slot.flags.is_stopping)?;
        Some(Effect::Stop { worker: lease.worker.clone(), lease: lease.id, by: self.stopped_by(job) })
    }

    fn look_at_build(&mut self, step: &mut Step, id: BuildId) {
        let Some(build) = self.builds.get_mut(&id) else { return };
        if build.verdict.is_some() {
            return;
        }
        if let Some(halt) = &build.halt
            && build.halt_seen.as_ref() != Some(halt)
        {
            build.halt_seen = Some(halt.clone());
            for index in 0..build.slots.len() as SlotIndex {
                self.consider((id, index));
            }
            self.builds_agenda.insert(id);
            return;
        }
        if build.halt.is_none() {
            self.ask(step, id);
        }
        self.conclude(step, id);
    }

    /// Asks for an evaluation if there are new answers, and for the answers that the last one wanted.
    fn ask(&mut self, step: &mut Step, id: BuildId) {
        let Some(build) = self.builds.get_mut(&id) else { return };
        if build.is_evaluation_due() {
            let n_answers = build.known.answers.len();
            if build.asked_with.replace(n_answers) != Some(n_answers) {
                step.effects.push(evaluate_effect(build));
            }
        } else if std::mem::replace(&mut build.asked_evaluation, build.n_evaluations) != build.n_evaluations {
            step.effects.extend(answer_effects(build));
        }
    }

    /// Ends a build of which nothing is left to do.
    fn conclude(&mut self, step: &mut Step, id: BuildId) {
        let build = &self.builds[&id];
        if build.is_stalled() {
            let graph = build.graph();
            let diagnostics = vec![never_filled(&graph)];
            self.record(step, id, What::Evaluated { graph, questions: Vec::new(), diagnostics, program: None });
            return self.abort(step, id, Verdict::Failed { because: None });
        }
        if build.n_unended > 0 {
            return;
        }
        if build.halt.is_none() {
            if build.is_evaluation_due() {
                return;
            }
            let open: Vec<Question> = build.open_questions().cloned().collect();
            if !open.is_empty() {
                return self.answer_the_rest(step, id, open);
            }
        }
        let build = &self.builds[&id];
        let end_of = |name: &JobName| {
            let slot = build.slot(*build.index_of.get(name)?);
            slot.end.as_ref().map(|end| (&end.outcome, end.at))
        };
        let graph = build.graph();
        let verdict = match (&build.halt, verdict(&graph, end_of)) {
            (Some(Halt::Canceled { by }), _) => Verdict::Canceled { by: by.clone() },
            // All has ended and nothing is asked, so what the holes wait for will never come.
            (_, Verdict::Running) => Verdict::Failed { because: None },
            (_, verdict) => verdict,
        };
        self.record(step, id, What::BuildEnded { verdict });
    }

    /// All jobs have ended: a question about the outcome of a job that there is not has no answer.
    fn answer_the_rest(&mut self, step: &mut Step, id: BuildId, open: Vec<Question>) {
        for question in open {
            let build = &self.builds[&id];
            let Question::Outcome(name) = &question else { continue };
            let slot = build.index_of.get(name).map(|&index| build.slot(index));
            if slot.is_none_or(|slot| slot.flags.is_dropped) && !build.legs_asked.contains_key(name) {
                let answer = Answer::Unknown(format!("there is no job `{name}`"));
                self.record(step, id, What::Answered { question, answer });
            }
        }
    }

    /// Gives jobs of the queue to workers with free slots, in the order of the queue, until nothing fits but what waits for
    /// a worker that has it warm.
    pub(crate) fn hand_out(&mut self, step: &mut Step) {
        self.schedule.end_waits(self.now);
        loop {
            for worker in self.workers.take_changed() {
                self.schedule.note_worker(&worker, self.workers.offer(&worker));
            }
            self.schedule.fill_fresh(|worker| self.workers.offer(worker));
            let Some((key, usual)) = self.schedule.next() else { break };
            match self.placement(key, usual) {
                Placement::On(worker) => self.lease(step, (key.0, key.2), worker),
                Placement::Wait { worker, until } => self.set_aside(key, worker, until),
            }
        }
        self.settle(step);
    }

    fn lease(&mut self, step: &mut Step, job: JobRef, worker: WorkerId) {
        let build = &self.builds[&job.0];
        let attempt = graph::AttemptNumber(build.attempts.len() as u32 + 1);
        let slot = build.slot(job.1);
        let (name, try_number) = (slot.name.clone(), slot.n_tries + 1);
        let lease = LeaseId(self.last_lease.0 + 1);
        let partial = build.asked(job.1).map(|asked| asked.partial());
        let waited_for = self.whose_end(job, &worker);
        let what = What::AttemptLeased { job: name, attempt, try_number, lease, worker, partial, waited_for };
        self.record(step, job.0, what);
        step.effects.extend(self.start_effect(job));
    }

    /// Whose end in this step lets a job begin on this worker; `None` if it has hardly waited, or its wait ends by something else.
    fn whose_end(&self, job: JobRef, worker: &WorkerId) -> Option<Box<WaitedFor>> {
        let slot = self.slot(job);
        if self.now.ms_since(slot.ready_at) < WAIT_TOLD_MS_MIN {
            return None;
        }
        let held = slot.group.as_ref().and_then(|key| Some((&key.name, self.let_go.groups.get(key)?)));
        let (group, ended) = match held {
            Some((name, ended)) => (Some(name.to_string()), ended),
            None => (None, self.let_go.workers.get(worker)?),
        };
        // A further try on the same worker waits for its time, not for room.
        let build = self.builds.get(&ended.0).filter(|_| *ended != job)?;
        Some(Box::new(WaitedFor { build: ended.0, job: build.slot(ended.1).name.clone(), group }))
    }

    fn start_effect(&self, job: JobRef) -> Option<Effect> {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        let lease = slot.lease.as_ref()?;
        // One that was taken over is told to its worker as what it began.
        let (began, attempt, name) = match lease.from.as_deref() {
            Some(from) => (from.build, from.attempt, &from.job),
            None => (job.0, lease.attempt, &slot.name),
        };
        let spec = AttemptSpec {
            lease: lease.id,
            build: began,
            attempt,
            try_number: slot.n_tries,
            name: name.clone(),
            job: Arc::clone(&slot.job),
            event: Arc::clone(&build.event),
            needs: need_results(build, slot, Carries::Outputs),
            gate: match &slot.gate {
                GateState::Answered(answer) => Some((**answer).clone()),
                GateState::Closed | GateState::Open | GateState::Rejected(_) => None,
            },
            operation: match slot.operation {
                OperationState::Known(digest) => Some(digest),
                OperationState::Unasked | OperationState::Unknown => None,
            },
            images: if slot.job.needs_engine() { build.images.clone() } else { Default::default() },
            origin: build.request.origin.clone(),
            asked: build.asked(job.1).cloned(),
            quarantine: graph::quarantine::of_job(
                build.request.quarantine.iter().filter(|test| self.now < test.until),
                name,
                &slot.job,
            ),
        };
        let group = slot.group.as_ref().map(|group| Arc::clone(&group.name));
        Some(Effect::Start { worker: lease.worker.clone(), spec: Box::new(spec), group })
    }

    fn resolve_effect(&self, job: JobRef) -> Effect {
        let build = &self.builds[&job.0];
        let slot = build.slot(job.1);
        let needs = need_results(build, slot, Carries::Outputs);
        Effect::Resolve { build: job.0, job: slot.name.clone(), spec: Arc::clone(&slot.job), needs }
    }

    /// Everything that the world still has to do, for a restart or a world that has forgotten. What an engine fresh
    /// from its facts has yet to decide comes with the step to which the [`Effect::Wake`] among them leads.
    #[must_use]
    pub fn wanted(&self, now: Timestamp) -> Vec<Effect> {
        let now = self.now.max(now);
        let mut effects = Vec::new();
        for &job in self.leases.values() {
            effects.extend(self.start_effect(job));
            effects.extend(self.stop_effect(job));
        }
        for (&id, build) in self.builds.iter().filter(|(_, build)| build.verdict.is_none()) {
            if build.halt.is_none() && build.asked_with.is_some() && build.is_evaluation_due() {
                effects.push(evaluate_effect(build));
            } else if build.halt.is_none() && build.asked_evaluation > 0 {
                effects.extend(answer_effects(build));
            }
            for index in 0..build.slots.len() as SlotIndex {
                match build.slot(index).place {
                    Place::Resolving => effects.push(self.resolve_effect((id, index))),
                    Place::Asking(asking) => effects.extend(self.ask_effect((id, index), asking).ok()),
                    _ => {}
                }
            }
        }
        if self.builds.values().any(|build| build.verdict.is_none()) {
            effects.push(Effect::Wake { at: now });
        }
        effects
    }
}

/// The outcome of a job that may not start any more because of how its build is.
fn halted(build: &Build, slot: &Slot) -> Option<Outcome> {
    let halt = build.halt.as_ref().filter(|_| !slot.job.cleanup)?;
    Some(match halt {
        Halt::Canceled { by } => Outcome::Failed(Failure::Canceled { by: by.clone() }),
        // It was not left out but cut off.
        Halt::FirstFailure { because } if slot.is_under_way() => {
            Outcome::Failed(Failure::Canceled { by: format!("the failure of `{because}`") })
        }
        Halt::FirstFailure { because } => {
            Outcome::Skipped(SkipReason::NotWanted { text: format!("the build stopped when `{because}` failed") })
        }
    })
}

/// The outcome of a job that need not wait for its needs to be decided.
fn decided_early(build: &Build, index: SlotIndex) -> Option<Outcome> {
    let slot = build.slot(index);
    if let Some(outcome) = halted(build, slot) {
        return Some(outcome);
    }
    if slot.flags.is_retried {
        return None;
    }
    match &slot.job.skip {
        // Left out because of one need, it still ends after all of them, so that whether something before it failed is known.
        Some(SkipReason::Need { .. }) if slot.n_waits_for > 0 && !slot.flags.is_unwanted => return None,
        Some(reason) => return Some(Outcome::Skipped(reason.clone())),
        None => {}
    }
    if slot.flags.is_unwanted {
        let text = "the build did not ask for it".to_owned();
        return Some(Outcome::Skipped(SkipReason::NotWanted { text }));
    }
    if slot.flags.is_refused {
        let because = build.refusal(index)?.clone();
        return Some(Outcome::Skipped(SkipReason::Need { because }));
    }
    None
}

fn evaluate_effect(build: &Build) -> Effect {
    let pipeline = build.request.pipeline.clone();
    Effect::Evaluate { build: build.id, pipeline, known: Arc::clone(&build.known), program: build.program }
}

/// The questions of the last evaluation that the world answers; outcomes are ours.
fn answer_effects(build: &Build) -> impl Iterator<Item = Effect> {
    let questions = build.open_questions().filter(|question| !matches!(question, Question::Outcome(_)));
    questions.map(|question| Effect::Answer { build: build.id, question: question.clone() })
}
