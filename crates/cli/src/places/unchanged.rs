//! A build since whose forerunner nothing has changed has no records of its jobs: it is told with those of the forerunner, each job with
//! the result that it took.

use std::sync::Arc;

use engine::fact::What;
use graph::{BuildId, Graph, JobName, Verdict};
use store::rows::{ArtifactRow, BuildRow, JobRow, ReusedFrom};

use super::{Places, job_among};
use crate::commands::Stop;

impl Places {
    /// The build whose records stand for the jobs of this one.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn unchanged_since(&self, build: BuildId) -> Result<Option<BuildId>, Stop> {
        let Some(row) = self.store.build(build)? else { return Ok(None) };
        self.since(&row)
    }

    fn since(&self, row: &BuildRow) -> Result<Option<BuildId>, Stop> {
        // Others may have many facts.
        if row.graph.is_some() || !matches!(&row.verdict, Verdict::Passed { note: Some(_) }) {
            return Ok(None);
        }
        let facts = self.store.facts(row.build)?;
        Ok(facts.iter().find_map(|fact| match &fact.what {
            What::BuildCreated(request) => request.options.unchanged_since,
            _ => None,
        }))
    }

    /// The row with the graph and the counts of the build that stands for it.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn whole(&self, mut row: BuildRow) -> Result<BuildRow, Stop> {
        let Some(since) = self.since(&row)? else { return Ok(row) };
        if let Some(forerunner) = self.store.build(since)? {
            row.name = forerunner.name;
            (row.graph, row.jobs, row.counts) = (forerunner.graph, forerunner.jobs, forerunner.counts);
        }
        Ok(row)
    }

    /// The graph of a build, as it was last evaluated.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn graph_of(&self, build: BuildId) -> Result<Option<Arc<Graph>>, Stop> {
        Ok(match self.store.graph(build)? {
            Some(graph) => Some(graph),
            None => match self.unchanged_since(build)? {
                Some(since) => self.store.graph(since)?,
                None => None,
            },
        })
    }

    /// The jobs of a build, in order of name.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn jobs_of(&self, build: BuildId) -> Result<Vec<JobRow>, Stop> {
        let jobs = self.store.jobs(build)?;
        match if jobs.is_empty() { self.unchanged_since(build)? } else { None } {
            None => Ok(jobs),
            Some(since) => Ok(self.store.jobs(since)?.into_iter().map(|row| taken(build, row)).collect()),
        }
    }

    /// What the jobs of a build hand on.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn artifacts_of(&self, build: BuildId) -> Result<Vec<ArtifactRow>, Stop> {
        match self.unchanged_since(build)? {
            None => Ok(self.store.artifacts(build)?),
            Some(since) => {
                Ok(self.store.artifacts(since)?.into_iter().map(|row| ArtifactRow { build, ..row }).collect())
            }
        }
    }

    /// The job of `build` that `text` names: its full name, or its id if it has one leg.
    ///
    /// # Errors
    /// Clear words with the nearest name, or with the legs of a matrix.
    pub fn job(&self, build: BuildId, text: &str) -> Result<JobName, Stop> {
        let name = JobName::from(text);
        // What has run is found without reading the build's graph, which may be large.
        if !self.store.attempts(build, Some(&name))?.is_empty() {
            return Ok(name);
        }
        let mut names: Vec<JobName> = match self.graph_of(build)? {
            Some(graph) => graph.jobs.keys().cloned().collect(),
            None => Vec::new(),
        };
        names.extend(self.jobs_of(build)?.into_iter().map(|job| job.name));
        names.sort_unstable();
        names.dedup();
        job_among(build, text, &names)
    }
}

/// A job's row in the build that took its result.
fn taken(build: BuildId, row: JobRow) -> JobRow {
    let own = row.attempt.map(|attempt| ReusedFrom { build: row.build, attempt, job: row.name.clone() });
    let reused = row.reused.or(own);
    JobRow {
        build,
        reused,
        attempts: 0,
        attempt: None,
        started: None,
        finished: None,
        retry_at: None,
        child: None,
        ..row
    }
}
