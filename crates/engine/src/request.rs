//! Requests for builds: which are the same as another, and which take the place of earlier ones.
//!
//! Two indexes over the builds make both a lookup, however many builds there are. They follow from the facts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use graph::{BuildId, Digest, Trust};

use crate::build::{Build, GateState, Halt, Slot, SlotIndex, Source};
use crate::effect::Effect;
use crate::engine::{Engine, Step};
use crate::fact::{Fact, What};
use crate::input::BuildRequest;

/// The most requests remembered that were other builds; of earlier ones a repetition is judged anew.
pub const DUPLICATES_MAX: usize = 10_000;

/// What is known of requests over all builds.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The builds of an identity in a project of which nothing has begun and that nobody canceled.
    identities: HashMap<(String, Digest), BTreeSet<BuildId>>,
    /// The builds that are held, by the key of the request that made them.
    keys: HashMap<Digest, BuildId>,
    /// The builds that have not ended, by what lets a later one take their place.
    rivals: HashMap<Rivalry, BTreeSet<BuildId>>,
    /// Requests that were other builds. Not kept.
    duplicates: BTreeMap<BuildId, BuildId>,
}

impl Requests {
    /// A build that has not ended is there, or is there again.
    pub fn note(&mut self, id: BuildId, request: &BuildRequest) {
        if let Some(key) = rivalry(request) {
            self.rivals.entry(key).or_default().insert(id);
        }
    }

    /// A build was created.
    pub fn note_created(&mut self, id: BuildId, request: &BuildRequest) {
        self.note(id, request);
        if let Some(key) = request.key {
            self.keys.entry(key).or_insert(id);
        }
        if let Some(identity) = request.identity {
            self.identities.entry((request.origin.project.clone(), identity)).or_default().insert(id);
        }
    }

    /// A build has begun, was canceled, or has ended: no request is it any more.
    pub fn note_begun(&mut self, id: BuildId, request: &BuildRequest) {
        let Some(identity) = request.identity else { return };
        let key = (request.origin.project.clone(), identity);
        if let Some(waiting) = self.identities.get_mut(&key) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.identities.remove(&key);
            }
        }
    }

    /// A build has ended.
    pub fn note_ended(&mut self, id: BuildId, request: &BuildRequest) {
        if let Some(key) = rivalry(request)
            && let Some(rivals) = self.rivals.get_mut(&key)
        {
            rivals.remove(&id);
            if rivals.is_empty() {
                self.rivals.remove(&key);
            }
        }
        self.note_begun(id, request);
    }

    /// A build is held no more.
    pub fn note_forgotten(&mut self, id: BuildId, request: &BuildRequest) {
        self.note_ended(id, request);
        if let Some(key) = request.key
            && self.keys.get(&key) == Some(&id)
        {
            self.keys.remove(&key);
        }
    }

    fn rivals(&self, request: &BuildRequest) -> Vec<BuildId> {
        let rivals = rivalry(request).and_then(|key| self.rivals.get(&key));
        rivals.into_iter().flatten().copied().collect()
    }
}

/// What builds share of which a later one takes the place of the earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Rivalry {
    project: String,
    /// Nobody ends a build of somebody else.
    client: String,
    /// Nobody ends by a build that is not trusted one that is.
    trust: Trust,
    /// What the request names.
    supersedes: String,
    /// Nobody ends by some jobs a build of others.
    only: BTreeSet<String>,
}

fn rivalry(request: &BuildRequest) -> Option<Rivalry> {
    Some(Rivalry {
        project: request.origin.project.clone(),
        client: request.client.clone(),
        trust: request.event.trust,
        supersedes: request.supersedes.clone()?,
        only: BTreeSet::clone(&request.options.only),
    })
}

/// Who is said to have canceled a build whose place `later` takes.
fn superseding(later: BuildId) -> String {
    format!("build {later}, which supersedes it")
}

/// Whether a fact says that `later` takes the place of the fact's build.
#[must_use]
pub fn is_superseded_by(fact: &Fact, later: BuildId) -> bool {
    matches!(&fact.what, What::CancelRequested { by } if fact.build != later && *by == superseding(later))
}

/// Whether a build takes the place of an earlier rival. One that tries another again is no newer than that one: it takes only its
/// place, and that of earlier tries at it.
fn takes_place_of(later: (BuildId, &BuildRequest), earlier: (BuildId, &BuildRequest)) -> bool {
    let is_later = earlier.0 < later.0;
    let (of, before) = (later.1.options.retry_of, earlier.1.options.retry_of);
    is_later && (of.is_none() || of == Some(earlier.0) || of == before)
}

impl Engine {
    /// Judges a request: it is a new build, or one that waits for its first attempt, or was heard before. Of rivals each ends of
    /// which a later one takes the place, but those that somebody let past a gate.
    pub(crate) fn judge_request(&mut self, step: &mut Step, id: BuildId, request: Box<BuildRequest>) {
        if self.builds.contains_key(&id) || self.forgotten.contains(&id) {
            return;
        }
        if let Some(of) = self.same_build(id, &request) {
            step.effects.push(Effect::Duplicate { requested: id, of });
            return;
        }
        let is_going_on = |other: &BuildId| self.builds.get(other).is_some_and(|build| !is_canceled(build));
        let rivals: Vec<BuildId> = self.requests.rivals(&request).into_iter().filter(is_going_on).collect();
        self.record(step, id, What::BuildCreated(request));
        let of = |rival: BuildId| (rival, &self.builds[&rival].request);
        let (superseded, others): (Vec<_>, Vec<_>) =
            rivals.into_iter().partition(|&rival| takes_place_of(of(id), of(rival)));
        let superseded = superseded.into_iter().filter(|rival| !self.builds[rival].is_past_gate());
        // A request may come late.
        let newer = others.into_iter().filter(|&rival| takes_place_of(of(rival), of(id))).max();
        let ends = superseded.map(|rival| (rival, newer.unwrap_or(id))).chain(newer.map(|newer| (id, newer)));
        for (superseded, last) in ends.collect::<Vec<_>>() {
            self.record(step, superseded, What::CancelRequested { by: superseding(last) });
        }
    }

    /// The build that a request is: the one that it made when it was heard before, or one of the same identity of which
    /// nothing has begun, that nobody canceled, and whose place the same later requests could take.
    fn same_build(&mut self, id: BuildId, request: &BuildRequest) -> Option<BuildId> {
        if let Some(&of) = self.requests.duplicates.get(&id) {
            return Some(of);
        }
        let repeated = request.key.and_then(|key| self.requests.keys.get(&key).copied());
        let of = repeated.or_else(|| self.waiting_twin(request))?;
        if self.requests.duplicates.len() >= DUPLICATES_MAX {
            self.requests.duplicates.pop_first();
        }
        self.requests.duplicates.insert(id, of);
        Some(of)
    }

    fn waiting_twin(&self, request: &BuildRequest) -> Option<BuildId> {
        let key = (request.origin.project.clone(), request.identity?);
        let rivalry_of_it = rivalry(request);
        let is_it = |of: &&BuildId| {
            self.builds.get(of).is_some_and(|build| {
                // One that a failure stopped before anything began is no longer what is wanted. Of one whose place others can take
                // than can take the request's, its owner's next request would end what somebody else wants.
                build.halt.is_none() && rivalry(&build.request) == rivalry_of_it
            })
        };
        self.requests.identities.get(&key)?.iter().find(is_it).copied()
    }
}

fn is_canceled(build: &Build) -> bool {
    matches!(build.halt, Some(Halt::Canceled { .. }))
}

impl Build {
    /// Whether a gate was approved, here or in the build that it takes outcomes from, so that what runs is what a person wanted.
    fn is_past_gate(&self) -> bool {
        let is_approved = |slot: &Slot| {
            matches!(slot.gate, GateState::Answered(_)) || slot.flags.has_begun && slot.job.gate.is_some()
        };
        let is_of_another = |slot: &Slot| slot.job.gate.is_some() && slot.is_taken_over();
        self.slots.iter().any(is_approved)
            // Few builds take over a gate: only then is it worth to look what stands behind it.
            || self.slots.iter().any(is_of_another)
                && self.slots.iter().any(|slot| slot.flags.has_begun && self.is_behind_gate_of_another(slot))
    }

    /// Whether a gate that was passed in another build stands before a job, however many jobs are between. What runs because a gate was
    /// rejected, or before anybody was asked, is past no gate.
    fn is_behind_gate_of_another(&self, slot: &Slot) -> bool {
        let mut seen = BTreeSet::new();
        let mut open: Vec<SlotIndex> = slot.needs.to_vec();
        while let Some(index) = open.pop() {
            let Some(before) = self.slots.get(index as usize).filter(|_| seen.insert(index)) else { continue };
            if before.job.gate.is_some() && before.is_taken_over() {
                return true;
            }
            open.extend(before.needs.iter());
        }
        false
    }
}

impl Slot {
    /// Whether its outcome is that of a job of another build.
    fn is_taken_over(&self) -> bool {
        self.end.as_ref().is_some_and(|end| matches!(end.source, Source::Reused { .. }))
    }
}
