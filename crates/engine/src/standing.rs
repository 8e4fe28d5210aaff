//! What outlives the builds it came from: charges, durations, the last lease. Saved now and then, so that a restart need not
//! fold builds that have ended, and no client is charged twice or not at all.

use std::collections::{BTreeMap, BTreeSet};

use graph::{LeaseId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::fact::Fact;
use crate::warmth::{Start, Warm, Warmth};

/// The standing of all clients at one moment. A stored shape: fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// What each client was charged, in milliseconds.
    pub charges: BTreeMap<String, u64>,
    /// The start of the attempt leased last, in the clients' shared time.
    pub virtual_ms: u64,
    /// How long jobs took before, by project and id. Older servers kept `estimates`, of all projects together, which is passed over.
    pub took: Vec<Took>,
    /// What was charged for each attempt that runs, to be corrected at its end.
    pub running: BTreeMap<LeaseId, u64>,
    /// Where jobs are warm, and what that saved, the one noted longest ago first.
    pub warmth: Vec<Warm>,
    /// The attempts that run and found their worker warm.
    pub warm: BTreeSet<LeaseId>,
    /// The last lease that was given.
    pub last_lease: LeaseId,
    /// The latest time that the engine was told.
    pub now: Timestamp,
}

/// How long one project's job took before.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Took {
    /// The project's name.
    pub project: String,
    /// The id of the job.
    pub job: String,
    /// How long, in milliseconds.
    pub took_ms: u64,
}

/// What facts do besides telling of their build: whether they charge clients, and whether others share what it runs.
#[derive(Clone, Debug, Default)]
pub(crate) enum Charging {
    /// They do: they are new.
    #[default]
    Now,
    /// They do not: a standing tells what they came to.
    Before {
        /// What is charged for those attempts that still run.
        running: BTreeMap<LeaseId, u64>,
        /// Those of them that found their worker warm.
        warm: BTreeSet<LeaseId>,
    },
    /// They charge nobody, and are of a build that had ended and been forgotten. Others have gone on without its results and groups
    /// since: what it runs is nobody's any more, and of its results the store knows which still count.
    Recalled,
}

impl Engine {
    /// The standing as all facts so far make it; to be stored together with how far these facts go.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let leases = || self.leases.iter().filter_map(|(&id, &job)| Some((id, self.slot(job).lease.as_deref()?)));
        let running = leases().map(|(id, lease)| (id, lease.charged_ms)).collect();
        let warm = leases().filter(|(_, lease)| lease.start == Start::Warm).map(|(id, _)| id).collect();
        let (charges, virtual_ms, took) = self.schedule.standing();
        let warmth = self.warmth.standing();
        Standing { charges, virtual_ms, took, running, warmth, warm, last_lease: self.last_lease, now: self.now }
    }

    /// The engine after a restart.
    ///
    /// `before` are facts that were stored before the standing was taken: all those of every build that had not ended then
    /// or of which there is a later fact; each build's in their order, builds in any. `after` are all facts stored since,
    /// of all builds, in the order in which they were stored. Facts of builds that had ended before may be among `before` or
    /// not.
    pub fn recover<'a>(
        standing: Standing,
        before: impl IntoIterator<Item = &'a Fact>,
        after: impl IntoIterator<Item = &'a Fact>,
    ) -> Self {
        let mut engine = Self { last_lease: standing.last_lease, now: standing.now, ..Self::default() };
        engine.schedule.stand(standing.charges, standing.virtual_ms, standing.took);
        engine.warmth = Warmth::of(standing.warmth);
        engine.charging = Charging::Before { running: standing.running, warm: standing.warm };
        before.into_iter().for_each(|fact| engine.apply(fact));
        engine.charging = Charging::Now;
        after.into_iter().for_each(|fact| engine.apply(fact));
        engine
    }

    /// Holds a build again that has ended and was forgotten, by all its facts. They charge nobody and teach nothing: they did when they
    /// were new. Operations and groups stay as other builds have made them since.
    pub fn recall<'a>(&mut self, facts: impl IntoIterator<Item = &'a Fact>) {
        let charging = std::mem::replace(&mut self.charging, Charging::Recalled);
        facts.into_iter().for_each(|fact| self.apply(fact));
        self.charging = charging;
    }
}
