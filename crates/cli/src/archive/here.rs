//! The archive of this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::job::Waiting;
use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName};
use store::BuildFilter;
use store::log::Writing;
use store::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow};

use super::{Archive, Log, News};
use crate::child;
use crate::commands::Stop;
use crate::places::{self, Places};
use crate::whereabouts::Whereabouts;

impl Archive for Places {
    fn find_build(&self, text: &str) -> Result<BuildRow, Stop> {
        self.whole(places::find_build(&*self.store, text)?)
    }

    fn find_job(&self, build: BuildId, text: &str) -> Result<JobName, Stop> {
        self.job(build, text)
    }

    /// A store gives at most a page at once.
    fn builds(&self, filter: &BuildFilter, mut before: Option<BuildId>, limit: usize) -> Result<Vec<BuildRow>, Stop> {
        let mut builds: Vec<BuildRow> = Vec::new();
        while builds.len() < limit {
            let room = u32::try_from(limit - builds.len()).unwrap_or(u32::MAX);
            let page = self.store.builds(filter, before, room)?;
            let Some(last) = page.last() else { break };
            before = Some(last.build);
            for row in page {
                builds.push(self.whole(row)?);
            }
        }
        Ok(builds)
    }

    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, Stop> {
        self.store.build(build)?.map(|row| self.whole(row)).transpose()
    }

    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, Stop> {
        self.graph_of(build)
    }

    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, Stop> {
        self.jobs_of(build)
    }

    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, Stop> {
        Ok(self.store.attempts(build, job)?)
    }

    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<(AttemptNumber, AttemptReport)>, Stop> {
        Ok(self.store.reports(build, job)?)
    }

    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, Stop> {
        self.artifacts_of(build)
    }

    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, Stop> {
        Ok(self.store.gates(build)?)
    }

    fn usual_ms(&self, build: BuildId, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, Stop> {
        let project = self.store.build(build)?.map(|row| row.origin.project).unwrap_or_default();
        Ok(self.store.durations(&project, names)?)
    }

    fn manifest(&self, operation: Digest) -> Result<Option<Manifest>, Stop> {
        Ok(self.store.manifest(operation)?)
    }

    fn children(&self, build: BuildId) -> Result<Vec<BuildRow>, Stop> {
        child::children(&*self.store, build)
    }

    /// Only the process that runs a build knows why its jobs wait, and its view shows it.
    fn waits(&self, _build: BuildId, _names: &[JobName]) -> Result<BTreeMap<JobName, Waiting>, Stop> {
        Ok(BTreeMap::new())
    }

    /// Who runs it asks it.
    fn unasked(&self, _build: BuildId) -> Result<Option<String>, Stop> {
        Ok(None)
    }

    fn is_run(&self, build: &BuildRow) -> Result<bool, Stop> {
        Self::is_run(self, build.build)
    }

    fn evaluations(&self, build: BuildId) -> Result<Vec<Fact>, Stop> {
        Ok(self.store.facts(build)?)
    }

    fn log(&self, build: BuildId, _job: Option<&JobName>, writing: Writing) -> Result<Option<Box<dyn Log>>, Stop> {
        Ok(self.log_reader(build, writing)?.map(|reader| Box::new(reader) as Box<dyn Log>))
    }

    fn news(&self, _build: BuildId) -> News<'_> {
        News::Files(self)
    }

    fn whereabouts(&self) -> Whereabouts {
        Whereabouts::here()
    }

    fn nothing(&self) -> String {
        places::NO_BUILDS.to_owned()
    }
}
