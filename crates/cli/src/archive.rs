//! What is kept of builds, as commands that look at them read it: the same rows and lines, whether they are kept on this
//! machine or by a server.

mod here;
mod lines;
mod rows;
mod there;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use api::job::Waiting;
use dialects::tree::Sources;
use engine::Fact;
use engine::operation::Manifest;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName};
use store::BuildFilter;
use store::log::{Item, LogReader, StreamKey, StreamSummary, Writing};
use store::rows::{ArtifactRow, AttemptRow, BuildRow, GateRow, JobRow};

pub use self::rows::{diagnostics, outcome, verdict};
pub use self::there::{News, Stream, There};
use crate::args::Where;
use crate::commands::Stop;
use crate::places::Places;
use crate::project::Project;
use crate::whereabouts::Whereabouts;

/// The most waiting jobs whose reasons are asked for: each costs a server a look at its queues.
pub const WAITS_MAX: usize = 50;

/// What is kept of the builds of a project. Every call fails as the medium or the server refuses.
pub trait Archive {
    /// The build that a user names.
    fn find_build(&self, text: &str) -> Result<BuildRow, Stop>;
    /// The job of a build that a user names.
    fn find_job(&self, build: BuildId, text: &str) -> Result<JobName, Stop>;
    /// Builds that the filter lets pass, newest first, at most so many, older than `before`.
    fn builds(&self, filter: &BuildFilter, before: Option<BuildId>, limit: usize) -> Result<Vec<BuildRow>, Stop>;
    /// A build.
    fn build(&self, build: BuildId) -> Result<Option<BuildRow>, Stop>;
    /// The graph of a build as it was last evaluated.
    fn graph(&self, build: BuildId) -> Result<Option<Arc<Graph>>, Stop>;
    /// The jobs to which something has happened.
    fn jobs(&self, build: BuildId) -> Result<Vec<JobRow>, Stop>;
    /// Attempts, by number, of a build or of one job.
    fn attempts(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<AttemptRow>, Stop>;
    /// What workers said of attempts that have ended.
    fn reports(&self, build: BuildId, job: Option<&JobName>) -> Result<Vec<(AttemptNumber, AttemptReport)>, Stop>;
    /// What the jobs of a build hand on.
    fn artifacts(&self, build: BuildId) -> Result<Vec<ArtifactRow>, Stop>;
    /// The gates of a build that opened.
    fn gates(&self, build: BuildId) -> Result<Vec<GateRow>, Stop>;
    /// The gates of a build that wait for an answer. That of a job which ended without one never gets it.
    fn open_gates(&self, build: BuildId) -> Result<Vec<GateRow>, Stop> {
        let mut open = self.gates(build)?;
        open.retain(|gate| gate.answered.is_none());
        if !open.is_empty() {
            let jobs = self.jobs(build)?;
            open.retain(|gate| !jobs.iter().any(|job| job.name == gate.job && job.outcome.is_some()));
        }
        Ok(open)
    }
    /// How long jobs of a build usually run, in milliseconds.
    fn usual_ms(&self, build: BuildId, names: &[JobName]) -> Result<BTreeMap<JobName, u64>, Stop>;
    /// What an operation is made of, if that is kept.
    fn manifest(&self, operation: Digest) -> Result<Option<Manifest>, Stop>;
    /// The builds that jobs of a build asked for.
    fn children(&self, build: BuildId) -> Result<Vec<BuildRow>, Stop>;
    /// Why jobs of the build have not begun, for the first [`WAITS_MAX`] of those named here; nothing of those whose reason
    /// nobody can tell.
    fn waits(&self, build: BuildId, names: &[JobName]) -> Result<BTreeMap<JobName, Waiting>, Stop>;
    /// Why no worker asks the program of a build's pipeline, though it is to be asked; for people.
    fn unasked(&self, build: BuildId) -> Result<Option<String>, Stop>;
    /// Whether somebody runs the build now.
    fn is_run(&self, build: &BuildRow) -> Result<bool, Stop>;
    /// The facts that tell of a build's evaluations, as far as they are known.
    fn evaluations(&self, build: BuildId) -> Result<Vec<Fact>, Stop>;
    /// The texts in which the places of those evaluations lie, if they are not those of the project's files.
    fn sources(&self, _build: BuildId) -> Result<Option<Sources>, Stop> {
        Ok(None)
    }
    /// The log of a build; `None` if there is none. Of one job, all that is needed is there.
    fn log(&self, build: BuildId, job: Option<&JobName>, writing: Writing) -> Result<Option<Box<dyn Log>>, Stop>;
    /// How one learns that a build goes on.
    fn news(&self, build: BuildId) -> News<'_>;
    /// Where this is.
    fn whereabouts(&self) -> Whereabouts;
    /// What to say where nothing has been built yet.
    fn nothing(&self) -> String;
}

/// Rows of a step's output and the gaps among them.
pub type Items = Box<dyn Iterator<Item = Result<Item, Stop>>>;

/// The log of a build.
pub trait Log {
    /// All steps that have output, sorted by key.
    fn streams(&self) -> Box<dyn Iterator<Item = StreamSummary> + '_>;
    /// One step in short; `None` if it has no output.
    fn stream(&self, key: StreamKey) -> Option<StreamSummary>;
    /// The rows with these numbers.
    fn lines(&self, key: StreamKey, rows: Range<u64>) -> Items;
    /// The last `count` rows.
    fn tail(&self, key: StreamKey, count: u64) -> Items;
    /// Of the rows with these numbers at least those that match and those around them; `None` if finding them takes the
    /// reading of all.
    fn found(&self, key: StreamKey, rows: Range<u64>, search: &Search) -> Option<Items>;
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// A regular expression.
    pub regex: String,
    /// How many rows before and after each match are wanted too.
    pub context: u64,
}

impl Log for LogReader {
    fn streams(&self) -> Box<dyn Iterator<Item = StreamSummary> + '_> {
        Box::new(Self::streams(self))
    }

    fn stream(&self, key: StreamKey) -> Option<StreamSummary> {
        Self::stream(self, key)
    }

    fn lines(&self, key: StreamKey, rows: Range<u64>) -> Items {
        Box::new(Self::lines(self, key, rows).map(|item| item.map_err(Stop::from)))
    }

    fn tail(&self, key: StreamKey, count: u64) -> Items {
        Box::new(Self::tail(self, key, count).map(|item| item.map_err(Stop::from)))
    }

    fn found(&self, _key: StreamKey, _rows: Range<u64>, _search: &Search) -> Option<Items> {
        None
    }
}

impl Where {
    /// What is kept of the builds that are meant; `None` if that is this machine, and nothing is kept here.
    ///
    /// # Errors
    /// If no token is named for the server, or what is kept cannot be opened.
    pub fn archive(&self, project: &Project) -> Result<Option<Box<dyn Archive>>, Stop> {
        if let Some(there) = self.there(project)? {
            return Ok(Some(Box::new(there)));
        }
        Ok(Places::kept_if_any(project)?.map(|places| Box::new(places) as Box<dyn Archive>))
    }

    /// The server that is meant; `None` if it is this machine.
    ///
    /// # Errors
    /// If no token is named for it.
    pub fn there(&self, project: &Project) -> Result<Option<There>, Stop> {
        self.is_there().then(|| There::new(self, project)).transpose()
    }
}
