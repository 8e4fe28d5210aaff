//! One build as its facts tell it: slots for its jobs, and the edges between them as dense numbers.
//!
//! Everything here is a function of the build's facts alone. [`Place`] is the exception: it says in which line of
//! the engine a job stands at the moment, and an engine rebuilt from facts finds it anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use graph::{
    Answer, Artifact, AskedTests, AttemptNumber, BuildId, Digest, Ending, Graph, Hole, Job, JobName, Known, LeaseId,
    Need, NeedResult, Outcome, Question, SkipReason, TestCase, Timestamp, Verdict, WaitedFor, WorkerId,
};
use serde_json::Value;

use crate::fact::{Adopted, Reused};
use crate::input::BuildRequest;
use crate::line::GroupKey;
use crate::warmth::Start;

/// A job's number within its build: dense, kept for the build's life.
pub(crate) type SlotIndex = u32;

/// A need whose job does not exist and need not.
pub(crate) const ABSENT: SlotIndex = SlotIndex::MAX;
/// A need whose job a later evaluation will bring.
pub(crate) const COMING: SlotIndex = SlotIndex::MAX - 1;

/// One build.
#[derive(Debug)]
pub(crate) struct Build {
    pub id: BuildId,
    pub request: BuildRequest,
    /// The event and all answers; shared with evaluations that are under way.
    pub known: Arc<Known>,
    /// The same event, shared with attempts.
    pub event: Arc<graph::Event>,
    /// What the last evaluation said; `None` before the first.
    pub evaluated: Option<Evaluated>,
    /// The binary of the program that said the first evaluation, which is asked ever after.
    pub program: Option<Digest>,
    /// Where jobs were to grow in any evaluation, and what was waited for there. Of builds of some jobs only.
    grown: BTreeMap<String, BTreeSet<JobName>>,
    pub slots: Vec<Slot>,
    pub index_of: HashMap<JobName, SlotIndex>,
    /// The slot of each attempt, by number from 1.
    pub attempts: Vec<SlotIndex>,
    /// Ids that the last evaluation asked about and that stand for legs of a matrix, with how many have not ended.
    pub legs_asked: BTreeMap<JobName, usize>,
    /// What images were found to be, by reference: what the first attempt that told of one said.
    pub images: BTreeMap<String, String>,
    /// Jobs of the graph that have not ended.
    pub n_unended: usize,
    /// How many builds its jobs asked for.
    pub n_children: u32,
    /// Those of them that wait for needs.
    pub n_blocked: usize,
    /// Why nothing more starts.
    pub halt: Option<Halt>,
    pub verdict: Option<Verdict>,
    /// How many answers were known when an evaluation was last asked for. Not kept.
    pub asked_with: Option<usize>,
    /// How many evaluations there were.
    pub n_evaluations: u32,
    /// The evaluation whose questions were last asked. Not kept.
    pub asked_evaluation: u32,
    /// The halt about which all jobs were told. Not kept.
    pub halt_seen: Option<Halt>,
}

/// What the last evaluation said.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub graph: Arc<Graph>,
    pub questions: BTreeSet<Question>,
    /// How many answers it knew.
    pub answers_known: usize,
}

/// Why nothing more of a build starts, cleanup aside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Halt {
    Canceled { by: String },
    FirstFailure { because: JobName },
}

/// One job of a build.
#[derive(Debug)]
pub(crate) struct Slot {
    pub name: JobName,
    pub job: Arc<Job>,
    /// The slot of each of the job's needs, in their order.
    pub needs: Box<[SlotIndex]>,
    /// Who needs this job, and which of its needs that is.
    pub dependents: Vec<(SlotIndex, u32)>,
    /// Needs whose job has not ended.
    pub n_waits_for: u32,
    /// When the last of what it waited for was there.
    pub ready_at: Timestamp,
    /// Tries since the start, or since somebody retried it.
    pub n_tries: u32,
    pub gate: GateState,
    pub operation: OperationState,
    /// When results of the operation were evicted last, as was known when it was worked out.
    pub evicted: Option<Timestamp>,
    pub end: Option<Box<End>>,
    pub lease: Option<Box<Lease>>,
    /// The build that it asked for, as long as it waits for it.
    pub child: Option<Child>,
    pub retry_at: Option<Timestamp>,
    /// Who wants its attempt to stop, though its build goes on.
    pub canceled_by: Option<Arc<str>>,
    /// The concurrency group it entered.
    pub group: Option<GroupKey>,
    /// The tests to which somebody who retried it narrowed it, or the try before this one that was narrowed.
    pub asked: Option<Arc<AskedTests>>,
    pub flags: Flags,
    pub place: Place,
}

/// Small facts of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// An attempt was leased once: the job is frozen.
    pub has_begun: bool,
    /// Somebody asked for it by name: conditions and earlier results no longer count.
    pub is_retried: bool,
    /// The last evaluation no longer holds it.
    pub is_dropped: bool,
    /// The build did not ask for it.
    pub is_unwanted: bool,
    /// The build did not ask for it, but for jobs that are still to come, and they may need it.
    pub is_undecided: bool,
    /// An eager need was not accepted.
    pub is_refused: bool,
    /// Some job before it failed.
    pub after_failure: bool,
    /// The last evaluation asked how it ends.
    pub is_asked: bool,
    /// It stands on the agenda. Not kept.
    pub is_on_agenda: bool,
    /// Its worker was told to stop. Not kept.
    pub is_stopping: bool,
}

/// How far a job's gate is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum GateState {
    #[default]
    Closed,
    Open,
    Answered(Arc<BTreeMap<String, Value>>),
    Rejected(Arc<str>),
}

/// What is known of a job's operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OperationState {
    #[default]
    Unasked,
    Known(Digest),
    /// It has none, or no longer one that can be trusted.
    Unknown,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub outcome: Outcome,
    pub artifacts: BTreeMap<String, Artifact>,
    pub source: Source,
    pub at: Timestamp,
}

/// What a job's outcome comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Decided,
    Attempt(AttemptNumber),
    Reused { build: BuildId, attempt: AttemptNumber, job: JobName },
}

/// A build for which a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub build: BuildId,
    pub since: Timestamp,
}

/// An attempt in a worker's hands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lease {
    pub id: LeaseId,
    pub attempt: AttemptNumber,
    pub worker: WorkerId,
    pub since: Timestamp,
    /// What its client was charged for it.
    pub charged_ms: u64,
    /// As what the attempt began, if this job took it over.
    pub from: Option<Box<Adopted>>,
    /// How often it was handed over.
    pub handed: u32,
    /// How it found its worker.
    pub start: Start,
    /// Whose end let it begin, if its job had waited.
    pub waited_for: Option<Box<WaitedFor>>,
}

impl Lease {
    pub fn new(id: LeaseId, attempt: AttemptNumber, worker: WorkerId, since: Timestamp) -> Self {
        Self { id, attempt, worker, since, charged_ms: 0, from: None, handed: 0, start: Start::Cold, waited_for: None }
    }

    /// When it should end, by what was estimated.
    pub fn end(&self) -> Timestamp {
        self.since.plus_ms(self.charged_ms)
    }
}

/// In which line of the engine a job stands. Follows from the facts; not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// In none: it waits for its needs, runs, or has ended.
    #[default]
    Nowhere,
    /// The world works out its operation.
    Resolving,
    /// An equal operation is under way.
    Following,
    /// Its concurrency group is taken.
    Grouped,
    /// It waits for a worker.
    Queued,
    /// The world prepares the build that it asks for; the number tells this asking from earlier ones.
    Asking(u64),
    /// It waits for the time of its next try, or for the end of the time that its child has.
    Sleeping(Timestamp),
}

impl Build {
    pub fn new(id: BuildId, request: BuildRequest) -> Self {
        Self {
            id,
            known: Arc::new(Known::of(request.event.clone())),
            event: Arc::new(request.event.clone()),
            request,
            evaluated: None,
            program: None,
            grown: BTreeMap::new(),
            slots: Vec::new(),
            index_of: HashMap::new(),
            attempts: Vec::new(),
            legs_asked: BTreeMap::new(),
            images: BTreeMap::new(),
            n_unended: 0,
            n_children: 0,
            n_blocked: 0,
            halt: None,
            verdict: None,
            asked_with: None,
            n_evaluations: 0,
            asked_evaluation: 0,
            halt_seen: None,
        }
    }

    pub fn slot(&self, index: SlotIndex) -> &Slot {
        &self.slots[index as usize]
    }

    pub fn slot_mut(&mut self, index: SlotIndex) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// The graph as it stands; empty before the first evaluation.
    pub fn graph(&self) -> Arc<Graph> {
        self.evaluated.as_ref().map_or_else(Arc::default, |evaluated| Arc::clone(&evaluated.graph))
    }

    /// Whether an answer has come since the last evaluation.
    pub fn is_evaluation_due(&self) -> bool {
        self.evaluated.as_ref().is_none_or(|evaluated| evaluated.answers_known < self.known.answers.len())
    }

    /// Records an answer.
    pub fn answer(&mut self, question: Question, answer: Answer) {
        Arc::make_mut(&mut self.known).answers.entry(question).or_insert(answer);
    }

    /// The questions of the last evaluation that have no answer yet.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        let questions = self.evaluated.iter().flat_map(|evaluated| &evaluated.questions);
        questions.filter(|question| !self.known.answers.contains_key(question))
    }

    /// Takes over a new graph. Slots keep their numbers; what has not begun may change or vanish.
    pub fn take_over(&mut self, graph: Arc<Graph>, questions: Vec<Question>, at: Timestamp) {
        for slot in &mut self.slots {
            slot.flags.is_dropped = !graph.jobs.contains_key(&slot.name);
            slot.flags.is_asked = false;
            slot.dependents.clear();
        }
        for (name, job) in &graph.jobs {
            match self.index_of.get(name) {
                None => {
                    let index = SlotIndex::try_from(self.slots.len()).expect("a graph has at most JOBS_MAX jobs");
                    self.slots.push(Slot::new(name.clone(), Arc::clone(job), at));
                    self.index_of.insert(name.clone(), index);
                }
                Some(&index) => self.slots[index as usize].change(job),
            }
        }
        for hole in graph.holes.iter().filter(|_| !self.request.options.only.is_empty()) {
            self.grown.entry(hole.name.clone()).or_default().extend(hole.after.iter().cloned());
        }
        self.mark_asked(&graph, &questions);
        self.link(&graph);
        self.mark_unwanted(&graph);
        let answers_known = self.known.answers.len();
        self.evaluated = Some(Evaluated { graph, questions: questions.into_iter().collect(), answers_known });
        self.n_evaluations += 1;
    }

    /// Marks the jobs whose outcome is asked for, by their names or as legs of a matrix by its id.
    fn mark_asked(&mut self, graph: &Graph, questions: &[Question]) {
        self.legs_asked.clear();
        for question in questions {
            let Question::Outcome(name) = question else { continue };
            match self.index_of.get(name).filter(|_| graph.jobs.contains_key(name)) {
                Some(&index) => self.slots[index as usize].flags.is_asked = true,
                None if name.leg().is_none() => drop(self.legs_asked.insert(name.clone(), 0)),
                None => {}
            }
        }
        if self.legs_asked.is_empty() {
            return;
        }
        let mut with_legs = BTreeSet::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.name.leg().is_some() && !slot.flags.is_dropped) {
            if let Some((id, _)) = self.legs_asked.get_key_value(slot.name.id()) {
                with_legs.insert(id.clone());
                slot.flags.is_asked = true;
                *self.legs_asked.get_mut(slot.name.id()).expect("it was found just now") +=
                    usize::from(slot.end.is_none());
            }
        }
        self.legs_asked.retain(|id, _| with_legs.contains(id));
    }

    /// The questions about outcomes that the end of this job could answer: about itself, and about the matrix of which
    /// it is a leg.
    fn outcome_questions(&self, index: SlotIndex) -> impl Iterator<Item = Question> {
        let name = &self.slot(index).name;
        let id = name.leg().map(|_| JobName::from(name.id()));
        let id = id.filter(|id| !self.evaluated.as_ref().is_some_and(|last| last.graph.jobs.contains_key(id)));
        [Some(name.clone()), id].into_iter().flatten().map(Question::Outcome)
    }

    /// A question that is asked, has no answer, and is answered by how this job, or all legs of its matrix, ended.
    pub fn telling(&self, index: SlotIndex) -> Option<(Question, Outcome)> {
        let slot = self.slot(index);
        let evaluated = self.evaluated.as_ref().filter(|_| slot.flags.is_asked)?;
        let is_open =
            |question: &Question| evaluated.questions.contains(question) && !self.known.answers.contains_key(question);
        let question = self.outcome_questions(index).find(|question| match question {
            Question::Outcome(name) if *name != slot.name => {
                let is_growing = || evaluated.graph.holes.iter().any(|hole| hole.name == name.as_str());
                self.legs_asked.get(name) == Some(&0) && is_open(question) && !is_growing()
            }
            question => is_open(question),
        })?;
        let outcome = match &question {
            Question::Outcome(id) if *id != slot.name => self.joined_outcome(id)?,
            _ => slot.end.as_ref()?.outcome.clone(),
        };
        Some((question, outcome))
    }

    /// How the legs of a matrix ended as one job, as [`graph::legs::join`] tells it: the worst outcome, of equal ones that of
    /// the smallest name; if all passed, their outputs together. `None` if one has not ended.
    fn joined_outcome(&self, id: &JobName) -> Option<Outcome> {
        let mut results = BTreeMap::new();
        let slots = self.slots.iter().filter(|slot| !slot.flags.is_dropped);
        for slot in slots.filter(|slot| slot.name.leg().is_some() && slot.name.id() == id.as_str()) {
            let outcome = &slot.end.as_ref()?.outcome;
            let outputs = if let Outcome::Passed { outputs } = outcome { outputs.clone() } else { BTreeMap::new() };
            let result = outcome.word().to_owned();
            results.insert(slot.name.clone(), NeedResult { result, outputs, artifacts: BTreeMap::new() });
        }
        graph::legs::join(&mut results, |name| {
            self.index_of.get(name).map_or(u32::MAX, |&index| self.slot(index).job.order)
        });
        let joined = results.remove(id)?;
        if joined.result == Outcome::passed().word() {
            return Some(Outcome::Passed { outputs: joined.outputs });
        }
        let decides = results.iter().find(|(_, result)| result.result == joined.result)?.0;
        Some(self.slot(self.index_of[decides]).end.as_ref()?.outcome.clone())
    }

    /// Counts the leg of a matrix whose outcome is asked for as ended, or as not ended after all.
    fn count_leg(&mut self, index: SlotIndex, is_ended: bool) {
        let slot = &self.slots[index as usize];
        if slot.flags.is_asked
            && slot.name.leg().is_some()
            && let Some(n_unended) = self.legs_asked.get_mut(slot.name.id())
        {
            *n_unended = if is_ended { *n_unended - 1 } else { *n_unended + 1 };
        }
    }

    /// Finds every edge again.
    fn link(&mut self, graph: &Graph) {
        let holes: BTreeSet<&str> = graph.holes.iter().map(|hole| hole.name.as_str()).collect();
        self.n_unended = 0;
        self.n_blocked = 0;
        for index in 0..self.slots.len() {
            if self.slots[index].flags.is_dropped {
                continue;
            }
            let job = Arc::clone(&self.slots[index].job);
            let needs = job.needs.iter().map(|need| match self.index_of.get(&need.job) {
                Some(&needed) if !self.slots[needed as usize].flags.is_dropped => needed,
                _ if holes.contains(need.job.id()) || holes.contains(need.job.as_str()) => COMING,
                _ => ABSENT,
            });
            let needs: Box<[SlotIndex]> = needs.collect();
            for (position, &needed) in needs.iter().enumerate() {
                if needed < COMING {
                    self.slots[needed as usize].dependents.push((index as SlotIndex, position as u32));
                }
            }
            self.slots[index].needs = needs;
            self.n_unended += usize::from(self.slots[index].end.is_none());
        }
        for index in 0..self.slots.len() {
            if self.slots[index].end.is_none() && !self.slots[index].flags.is_dropped {
                self.slots[index].n_waits_for = 0;
                self.recount(index as SlotIndex);
            }
        }
    }

    /// Counts anew what a job waits for.
    pub fn recount(&mut self, index: SlotIndex) {
        let slot = self.slot(index);
        let mut n_waits_for = 0;
        let mut flags = Flags { is_refused: false, after_failure: false, ..slot.flags };
        // Once nothing more starts, nothing more comes; cleanup must not wait for it.
        let is_growing = self.halt.is_none();
        if flags.is_undecided {
            flags.is_unwanted = !is_growing;
            n_waits_for += u32::from(is_growing && !flags.is_retried);
        }
        for (need, &needed) in slot.job.needs.iter().zip(&slot.needs) {
            match needed {
                ABSENT => {}
                COMING => n_waits_for += u32::from(is_growing),
                needed => match self.slot(needed).ending() {
                    None => n_waits_for += 1,
                    Some(ending) => {
                        flags.is_refused |= need.eager_skip && !is_accepted(need, ending, &slot.job);
                        flags.after_failure |= self.slot(needed).counts_as_failure();
                    }
                },
            }
        }
        if slot.end.is_none() && !slot.flags.is_dropped {
            self.n_blocked -= usize::from(slot.n_waits_for > 0);
            self.n_blocked += usize::from(n_waits_for > 0);
        }
        let slot = self.slot_mut(index);
        slot.n_waits_for = n_waits_for;
        slot.flags = flags;
    }

    /// Says why nothing more starts, or that it does again.
    pub fn set_halt(&mut self, halt: Option<Halt>) {
        let is_changed = self.halt.is_some() != halt.is_some();
        self.halt = halt;
        if is_changed && self.evaluated.as_ref().is_some_and(|evaluated| !evaluated.graph.holes.is_empty()) {
            for index in 0..self.slots.len() as SlotIndex {
                self.recount(index);
            }
        }
    }

    /// Whether every job waits for another, and nothing is asked whose answer could add one.
    pub fn is_stalled(&self) -> bool {
        let is_asking = || self.open_questions().any(|question| !matches!(question, Question::Outcome(_)));
        self.n_unended > 0
            && self.n_blocked == self.n_unended
            && self.halt.is_none()
            && !self.is_evaluation_due()
            && !is_asking()
    }

    /// Marks the jobs that `only` leaves out: all but those named, what they need, and what must end before those of them
    /// that are still to come do. As long as one of these is to come, nobody knows what it will need, so the others wait.
    fn mark_unwanted(&mut self, graph: &Graph) {
        let only = &self.request.options.only;
        if only.is_empty() {
            return;
        }
        let mut open: Vec<SlotIndex> = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let is_named = only.contains(slot.name.as_str()) || only.contains(slot.name.id());
            slot.flags.is_unwanted = !is_named && graph.jobs.contains_key(&slot.name);
            if is_named {
                open.push(index as SlotIndex);
            }
        }
        let mut to_come: Vec<JobName> = only.iter().map(|name| JobName::from(name.as_str())).collect();
        let mut holes: Vec<&Hole> = graph.holes.iter().collect();
        if to_come.iter().any(|name| !is_there(graph, name) && !holes.iter().any(|hole| is_of(hole, name))) {
            // It may grow wherever what grows has no name yet.
            let unnamed = graph.holes.iter().filter(|hole| !names_its_jobs(&hole.name));
            to_come.extend(unnamed.map(|hole| JobName::from(hole.name.as_str())));
        }
        loop {
            while let Some(index) = open.pop() {
                let needs = self.slot(index).needs.clone();
                for (position, needed) in needs.into_iter().enumerate() {
                    match needed {
                        ABSENT => {}
                        COMING => to_come.push(self.slot(index).job.needs[position].job.clone()),
                        needed => open.extend(self.want(needed)),
                    }
                }
            }
            let Some(name) = to_come.pop() else { break };
            for awaited in holes.extract_if(.., |hole| is_of(hole, &name)).flat_map(|hole| &hole.after) {
                to_come.push(awaited.clone());
                for index in self.named(awaited) {
                    open.extend(self.want(index));
                }
            }
        }
        self.leave_undecided(holes.len() < graph.holes.len());
    }

    /// Whether a name that the build was asked for, and that a graph without holes has not, came to nothing as it does when the whole
    /// pipeline is built: a matrix grew no legs, or what was waited for has not passed, so that its jobs never grow.
    pub fn came_to_nothing(&self, name: &JobName, graph: &Graph) -> bool {
        let id = JobName::from(name.id());
        let has_not_passed = |awaited: &JobName| {
            let ends = self.named(awaited).into_iter().filter_map(|index| self.slot(index).end.as_ref());
            ends.into_iter().any(|end| !matches!(end.outcome, Outcome::Passed { .. }))
        };
        let never_grew = |(_, after): (&String, &BTreeSet<JobName>)| after.iter().any(has_not_passed);
        self.grown.contains_key(name.as_str())
            || self.grown.contains_key(id.as_str()) && !is_there(graph, &id)
            || self.grown.iter().filter(|(hole, _)| !names_its_jobs(hole)).any(never_grew)
    }

    /// The jobs that a name means: one, or all legs of a matrix.
    fn named(&self, name: &JobName) -> Vec<SlotIndex> {
        match self.index_of.get(name) {
            Some(&index) => vec![index],
            None => {
                let all = 0..self.slots.len() as SlotIndex;
                all.filter(|&index| self.slot(index).name.id() == name.as_str()).collect()
            }
        }
    }

    /// Takes back that a job is unwanted; gives it if it was.
    fn want(&mut self, index: SlotIndex) -> Option<SlotIndex> {
        std::mem::take(&mut self.slot_mut(index).flags.is_unwanted).then_some(index)
    }

    /// Lets what is unwanted so far wait, if a job that is wanted is still to come.
    fn leave_undecided(&mut self, is_growing: bool) {
        for index in 0..self.slots.len() {
            let flags = &mut self.slots[index].flags;
            let was_undecided = flags.is_undecided;
            flags.is_undecided = is_growing && flags.is_unwanted;
            if flags.is_undecided || was_undecided {
                self.recount(index as SlotIndex);
            }
        }
    }

    /// Ends a job and tells its dependents. Gives those that may now go on, or be skipped.
    pub fn end(&mut self, index: SlotIndex, end: End) -> Vec<SlotIndex> {
        let at = end.at;
        let slot = self.slot_mut(index);
        if slot.end.is_some() {
            return Vec::new();
        }
        slot.end = Some(Box::new(end));
        slot.lease = None;
        slot.child = None;
        slot.retry_at = None;
        if slot.flags.is_dropped {
            return Vec::new();
        }
        self.n_unended -= 1;
        self.count_leg(index, true);
        self.n_blocked -= usize::from(self.slot(index).n_waits_for > 0);
        let ending = self.slot(index).ending().expect("it has just ended");
        let is_failure = self.slot(index).counts_as_failure();
        let dependents = std::mem::take(&mut self.slot_mut(index).dependents);
        let mut moved = Vec::new();
        for &(dependent, position) in &dependents {
            let slot = self.slot_mut(dependent);
            let is_last = slot.end.is_none() && slot.n_waits_for == 1;
            slot.n_waits_for = slot.n_waits_for.saturating_sub(1);
            slot.flags.after_failure |= is_failure;
            let need = &slot.job.needs[position as usize];
            if need.eager_skip && !is_accepted(need, ending, &slot.job) {
                slot.flags.is_refused = true;
            }
            if slot.end.is_none() && (slot.n_waits_for == 0 || slot.flags.is_refused) {
                slot.ready_at = slot.ready_at.max(at);
                moved.push(dependent);
            }
            self.n_blocked -= usize::from(is_last);
        }
        self.slot_mut(index).dependents = dependents;
        moved
    }

    /// The needed job that forbids this one to run: the smallest name among those that ended unacceptably.
    pub fn refusal(&self, index: SlotIndex) -> Option<&JobName> {
        let slot = self.slot(index);
        let ended = slot.job.needs.iter().zip(&slot.needs).filter(|&(_, &needed)| needed < COMING);
        ended
            .filter(|&(need, &needed)| {
                self.slot(needed).ending().is_some_and(|ending| !is_accepted(need, ending, &slot.job))
            })
            .map(|(need, _)| &need.job)
            .min()
    }

    /// Puts a job that had ended back, and all that was skipped because of how it had ended. A build that had
    /// stopped at its first failure goes on with what it had left out.
    ///
    /// Gives those jobs, and all whose count of what they wait for may have changed.
    pub fn put_back(
        &mut self,
        index: SlotIndex,
        tests: Option<Arc<AskedTests>>,
        at: Timestamp,
    ) -> (Vec<SlotIndex>, BTreeSet<SlotIndex>) {
        if self.slot(index).end.is_none() {
            return Default::default();
        }
        let slot = self.slot_mut(index);
        slot.flags.is_retried = true;
        slot.operation = OperationState::Unknown;
        if matches!(slot.gate, GateState::Rejected(_)) {
            slot.gate = GateState::Closed;
        }
        let mut back = vec![index];
        let mut n_looked_at = 0;
        self.verdict = None;
        self.reopen(index, at);
        self.slot_mut(index).asked = tests;
        // What was asked before may have been answered while nobody listened.
        (self.asked_with, self.asked_evaluation, self.halt_seen) = (None, 0, None);
        if self.halt.is_some() {
            self.set_halt(None);
            for other in 0..self.slots.len() as SlotIndex {
                if self.slot(other).is_left_out() && !self.is_outcome_answered(other) {
                    self.reopen(other, at);
                    back.push(other);
                }
            }
        }
        while let Some(&put_back) = back.get(n_looked_at) {
            n_looked_at += 1;
            for position in 0..self.slot(put_back).dependents.len() {
                let dependent = self.slot(put_back).dependents[position].0;
                let is_skipped = self.slot(dependent).end.as_ref().is_some_and(|end| {
                    matches!(end.outcome, Outcome::Skipped(SkipReason::Need { .. } | SkipReason::Condition { .. }))
                });
                if is_skipped && !self.is_outcome_answered(dependent) {
                    self.reopen(dependent, at);
                    back.push(dependent);
                }
            }
        }
        let mut touched: BTreeSet<SlotIndex> = back.iter().copied().collect();
        for &put_back in &back {
            touched.extend(self.slot(put_back).dependents.iter().map(|&(dependent, _)| dependent));
        }
        for &index in &touched {
            self.recount(index);
        }
        (back, touched)
    }

    /// The tests to which a job's attempts are narrowed: by whoever retried it, else by the request.
    pub fn asked(&self, index: SlotIndex) -> Option<&Arc<AskedTests>> {
        let slot = self.slot(index);
        if slot.flags.is_retried || slot.asked.is_some() {
            return slot.asked.as_ref();
        }
        // Looked up for few builds: most requests ask for none.
        self.request.asked.get(&slot.name).filter(|asked| can_be_asked(&slot.job, asked))
    }

    /// An attempt that was narrowed to tests has reported this, and a further try follows by itself: what failed in between must pass
    /// there too.
    pub fn ask_again(&mut self, index: SlotIndex, reported: &[TestCase]) {
        if let Some(asked) = self.asked(index) {
            let again = asked.after(reported);
            self.slot_mut(index).asked = Some(Arc::new(again));
        }
    }

    /// The number of the last attempt at a job; zero if there was none. Looked up only for retries.
    pub fn last_attempt(&self, index: SlotIndex) -> AttemptNumber {
        let place = self.attempts.iter().rposition(|&attempted| attempted == index);
        AttemptNumber(place.map_or(0, |place| place as u32 + 1))
    }

    fn reopen(&mut self, index: SlotIndex, at: Timestamp) {
        let slot = self.slot_mut(index);
        slot.end = None;
        slot.canceled_by = None;
        slot.asked = None;
        if !slot.flags.is_retried {
            // It may have passed elsewhere since, and what it needs may hand on something else.
            slot.operation = OperationState::Unasked;
        }
        slot.n_waits_for = 0;
        slot.n_tries = 0;
        slot.ready_at = slot.ready_at.max(at);
        self.n_unended += 1;
        self.count_leg(index, false);
    }

    /// Whether the pipeline has been told how this job ended, or how its matrix did. Answers never change.
    pub fn is_outcome_answered(&self, index: SlotIndex) -> bool {
        // Looked up only for retries, so the names' clones do not matter.
        self.outcome_questions(index)
            .any(|question| matches!(self.known.answers.get(&question), Some(Answer::Outcome(_))))
    }
}

impl Slot {
    fn new(name: JobName, job: Arc<Job>, at: Timestamp) -> Self {
        Self {
            name,
            job,
            needs: Box::default(),
            dependents: Vec::new(),
            n_waits_for: 0,
            ready_at: at,
            n_tries: 0,
            gate: GateState::Closed,
            operation: OperationState::Unasked,
            evicted: None,
            end: None,
            lease: None,
            child: None,
            retry_at: None,
            canceled_by: None,
            group: None,
            asked: None,
            flags: Flags::default(),
            place: Place::Nowhere,
        }
    }

    /// Takes over a new version of the job, which may have changed only if it has not begun.
    fn change(&mut self, job: &Arc<Job>) {
        // What has begun keeps its operation: only needs on what was still to come can have changed.
        let is_changed = !self.is_frozen() && !is_same_work(&self.job, job);
        self.job = Arc::clone(job);
        if is_changed && self.n_waits_for == 0 {
            // The world may be working out the operation of the old version at this moment.
            self.operation = OperationState::Unknown;
        } else if is_changed {
            self.operation = OperationState::Unasked;
        }
    }

    /// Whether a new evaluation may no longer change it: a worker or a person has seen it, or others went on
    /// because of how it ended.
    pub fn is_frozen(&self) -> bool {
        self.flags.has_begun || self.end.is_some() || self.gate != GateState::Closed
    }

    /// Whether `after` may stand in the place of this job once it is frozen: the same work. Needs on what was still to come
    /// may have become needs on what came: it was skipped, or ran as cleanup, without waiting for that.
    pub fn admits(&self, after: &Arc<Job>) -> bool {
        if is_same_work(&self.job, after) {
            return true;
        }
        let needs = || self.job.needs.iter().zip(&self.needs);
        let mut settled = needs().filter(|&(_, &needed)| needed != COMING).map(|(need, _)| need);
        let with_needs_of_after = as_read(Job { needs: after.needs.clone(), ..Job::clone(&self.job) }, after);
        needs().any(|(_, &needed)| needed == COMING)
            && settled.all(|need| after.needs.contains(need))
            && with_needs_of_after == **after
    }

    /// Whether it is between two tries: it goes on whatever has become of its needs since.
    pub fn is_under_way(&self) -> bool {
        self.flags.has_begun && self.n_tries > 0
    }

    /// Whether it was skipped only because its build had stopped.
    pub fn is_left_out(&self) -> bool {
        let is_unwanted = |end: &End| matches!(end.outcome, Outcome::Skipped(SkipReason::NotWanted { .. }));
        !self.flags.is_unwanted && !self.flags.is_dropped && self.end.as_deref().is_some_and(is_unwanted)
    }

    /// How the job ended, as edges see it.
    pub fn ending(&self) -> Option<Ending> {
        self.end.as_ref().map(|end| Ending::of(&end.outcome, self.job.toleration()))
    }

    /// Whether it or a job before it failed, as `failure()` asks. A job that its condition kept out from the beginning waited for
    /// nothing, so nothing stands before it: what it needs may end before those that need it are decided, or after.
    pub fn counts_as_failure(&self) -> bool {
        let is_kept_out = !self.flags.is_retried && matches!(self.job.skip, Some(SkipReason::Condition { .. }));
        if is_kept_out {
            return false;
        }
        self.flags.after_failure || matches!(self.ending(), Some(Ending::Failed | Ending::Errored))
    }

    /// The earlier result to name when somebody reuses this one's.
    pub fn as_reused(&self, build: BuildId) -> Option<(Reused, &Outcome)> {
        let end = self.end.as_ref()?;
        let (build, attempt, job) = match &end.source {
            Source::Decided => return None,
            Source::Attempt(attempt) => (build, *attempt, self.name.clone()),
            Source::Reused { build, attempt, job } => (*build, *attempt, job.clone()),
        };
        Some((Reused { build, attempt, job, artifacts: end.artifacts.clone() }, &end.outcome))
    }
}

/// Whether a graph has the job of a name, or legs of a matrix by this id.
pub(crate) fn is_there(graph: &Graph, name: &JobName) -> bool {
    let legs = JobName::from(format!("{name}/").as_str())..;
    graph.jobs.contains_key(name) || graph.jobs.range(legs).next().is_some_and(|(job, _)| job.id() == name.as_str())
}

/// Whether jobs of this name grow in the hole, or it is its own.
fn is_of(hole: &Hole, name: &JobName) -> bool {
    hole.name == name.id() || hole.name == name.as_str()
}

/// Whether the name of a hole is the id of what will grow there. What a program names with a colon, as `then:plan`, no job will be
/// called.
fn names_its_jobs(hole: &str) -> bool {
    !hole.contains(':')
}

/// Whether a job can be narrowed to these tests: its reports tell what became of them.
pub(crate) fn can_be_asked(job: &Job, asked: &AskedTests) -> bool {
    !job.reports.junit.is_empty() && asked.check().is_ok()
}

/// Whether `ending` satisfies `need` of `dependent`. A canceled job satisfies `finished` only for cleanup: others
/// would go on with work that somebody wanted stopped. Sets of endings that are not `finished` mean what they say.
#[must_use]
pub fn is_accepted(need: &Need, ending: Ending, dependent: &Job) -> bool {
    if ending == Ending::Canceled && need.accepts == graph::Accepts::FINISHED {
        return dependent.cleanup;
    }
    need.accepts.holds(ending)
}

/// A version of a job with what only people read of another one.
pub(crate) fn as_read(job: Job, as_in: &Job) -> Job {
    Job { order: as_in.order, env_of_pipeline: as_in.env_of_pipeline.clone(), ..job }
}

/// Whether two versions of a job are the same but for what only people read: its place in the text, and where its variables stand.
pub(crate) fn is_same_work(left: &Arc<Job>, right: &Arc<Job>) -> bool {
    if Arc::ptr_eq(left, right) || left == right {
        return true;
    }
    let is_read_alike = left.order == right.order && left.env_of_pipeline == right.env_of_pipeline;
    !is_read_alike && as_read(Job::clone(left), right) == **right
}
