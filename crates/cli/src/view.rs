//! How a build is shown while it runs: live on a terminal, plain lines, or JSON. Views only look; nothing of the
//! build depends on them.

pub mod annotation;
pub mod growth;
pub mod json;
pub mod lines;
pub mod live;
#[cfg(test)]
mod picture;
pub mod plain;
pub mod suspension;
pub mod unwanted;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use engine::Fact;
use graph::{BuildId, Graph, JobName, StepReport, Timestamp};

use crate::whereabouts::Whereabouts;

/// Which of a step's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a job waits for that would begin but for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Other jobs of this build, or of builds around it, have all slots.
    Slot,
    /// A job of another process has its concurrency group.
    Group {
        /// The group.
        group: String,
        /// The build that has it.
        build: BuildId,
        /// Its job.
        job: JobName,
        /// How many come after that one and before this.
        between: usize,
    },
    /// A job of another process runs an equal operation.
    Operation {
        /// The build that runs it.
        build: BuildId,
        /// Its job.
        job: JobName,
    },
}

/// Something that a view may show.
pub enum Moment<'a> {
    /// A fact of the build was stored.
    Fact(&'a Fact),
    /// A job waits for others, or goes on.
    Waits {
        /// The job.
        job: &'a JobName,
        /// For what; `None` if it waits no more.
        awaited: Option<&'a Awaited>,
        /// When.
        at: Timestamp,
    },
    /// A step began.
    StepStarted {
        /// Its job.
        job: &'a JobName,
        /// Its index, from 0.
        step: u16,
        /// Its name for people.
        name: &'a str,
        /// When.
        at: Timestamp,
    },
    /// A step printed something; secrets are masked already.
    Output {
        /// Its job.
        job: &'a JobName,
        /// Its index, from 0.
        step: u16,
        /// Where it printed.
        stream: Stream,
        /// What, not cut at lines.
        bytes: &'a [u8],
        /// When.
        at: Timestamp,
    },
    /// A step ended.
    StepFinished {
        /// Its job.
        job: &'a JobName,
        /// Its index, from 0.
        step: u16,
        /// How.
        report: &'a StepReport,
    },
    /// Time has passed; sent about ten times a second to views that ask for it.
    Tick(Timestamp),
}

/// What is known before the first moment.
pub struct Opening {
    /// The build's number.
    pub build: BuildId,
    /// How long jobs usually take, in milliseconds, by name.
    pub usual_ms: BTreeMap<JobName, u64>,
    /// Where it is, for hints.
    pub whereabouts: Whereabouts,
    /// Its graph, if an earlier process has begun it: that evaluation is not shown again.
    pub graph: Option<Arc<Graph>>,
}

/// Shows a build.
pub trait View {
    /// Shows one moment.
    ///
    /// # Errors
    /// When nothing can be written any more; the build goes on unseen.
    fn show(&mut self, moment: Moment<'_>) -> io::Result<()>;

    /// Hands what was shown to the reader; called after each batch of moments.
    ///
    /// # Errors
    /// As [`View::show`].
    fn flush(&mut self) -> io::Result<()>;

    /// Writes out what is held back, and leaves the terminal as it was.
    ///
    /// # Errors
    /// As [`View::show`].
    fn close(&mut self) -> io::Result<()>;

    /// Whether [`Moment::Tick`] and every line of output are wanted.
    fn wants(&self) -> Wants;
}

/// What a view asks for beside facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Facts only.
    Facts,
    /// Facts, steps and output.
    Output,
    /// All of it, and ticks.
    OutputAndTicks,
}
