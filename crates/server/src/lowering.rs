//! Pipelines lowered to graphs, and the last ones remembered: files of a source never change, so the same pipeline with the
//! same knowledge says the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use api::worker::ProgramReply;
use dialects::native::{self, Lowered};
use dialects::program::{self, REPLY_BYTES_MAX};
use engine::{BuildOptions, BuildRequest, PoolReach};
use graph::{Diagnostic, Digest, Evaluation, Event, Known};
use store::blob::Blobs;

use crate::records::DEFAULT_POOL;
use crate::source::{Evaluator, PIPELINE_BYTES_MAX, Pipeline, SourceError, Sources, read_patiently};
use crate::world::full;

/// How many evaluations are remembered, and how many jobs they may have together.
const KEPT_MAX: usize = 64;
const KEPT_JOBS_MAX: usize = 50_000;
/// How many read pipelines are remembered.
const PIPELINES_MAX: usize = 64;

/// Lowers pipelines of sources. Blocks, but for [`Lowering::find`].
pub struct Lowering {
    sources: Arc<Sources>,
    blobs: Arc<dyn Blobs>,
    kept: Mutex<VecDeque<(Key, Evaluation)>>,
    pipelines: Mutex<VecDeque<((Digest, String), Pipeline)>>,
}

#[derive(Clone, PartialEq)]
struct Key {
    source: Digest,
    pipeline: String,
    pool: String,
    pools: PoolReach,
    known: Known,
}

/// What a request's pipeline says before there is a build.
pub enum First {
    /// What the files say.
    Lowered(Box<Lowered>),
    /// A program must be asked.
    Program,
}

impl Lowering {
    /// Lowers pipelines of these sources.
    #[must_use]
    pub fn new(sources: Arc<Sources>, blobs: Arc<dyn Blobs>) -> Self {
        Self { sources, blobs, kept: Mutex::default(), pipelines: Mutex::default() }
    }

    /// An evaluation that is remembered. Does not block.
    #[must_use]
    pub fn find(&self, request: &BuildRequest, pipeline: &str, known: &Known) -> Option<Evaluation> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |key: &Key| {
            Some(key.source) == request.origin.source
                && key.pipeline == pipeline
                && key.pool == request.options.pool
                && key.pools == request.options.pools
                && key.known == *known
        };
        kept.iter().rev().find(|(key, _)| is_it(key)).map(|(_, evaluation)| evaluation.clone())
    }

    fn keep(&self, key: Key, evaluation: &Evaluation) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((key, evaluation.clone()));
        let mut n_jobs: usize = kept.iter().map(|(_, evaluation)| evaluation.graph.jobs.len()).sum();
        while kept.len() > KEPT_MAX || (kept.len() > 1 && n_jobs > KEPT_JOBS_MAX) {
            n_jobs -= kept.pop_front().map_or(0, |(_, evaluation)| evaluation.graph.jobs.len());
        }
    }

    fn pipeline(&self, source: Digest, name: &str) -> Result<Pipeline, SourceError> {
        let lock = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |key: &(Digest, String)| key.0 == source && key.1 == name;
        if let Some((_, pipeline)) = lock().iter().find(|(key, _)| is_it(key)) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.sources.pipeline(&*self.sources.open(source)?, name)?;
        let mut kept = lock();
        kept.push_back(((source, name.to_owned()), pipeline.clone()));
        if kept.len() > PIPELINES_MAX {
            kept.pop_front();
        }
        Ok(pipeline)
    }

    /// What a pipeline of files says to an event; remembered for the build that follows.
    ///
    /// # Errors
    /// If the source or the pipeline is not there.
    pub fn first(&self, request: &BuildRequest) -> Result<First, SourceError> {
        let source = source_of(request)?;
        let pipeline = self.pipeline(source, &request.pipeline)?;
        if pipeline.by == Evaluator::Program {
            return Ok(First::Program);
        }
        Ok(First::Lowered(Box::new(native::lower(&pipeline.files, &Known::of(request.event.clone())))))
    }

    /// Remembers what [`Lowering::first`] said, for the event as the build has it.
    pub fn remember(&self, request: &BuildRequest, event: Event, mut evaluation: Evaluation) {
        let Some(source) = request.origin.source else { return };
        fill_pool(&mut evaluation, &request.options);
        let (pool, pools) = (request.options.pool.clone(), request.options.pools);
        self.keep(
            Key { source, pipeline: request.pipeline.clone(), pool, pools, known: Known::of(event) },
            &evaluation,
        );
    }

    /// What a pipeline of files says; `None` if a program must be asked.
    ///
    /// # Errors
    /// If the source or the pipeline is not there.
    pub fn files(&self, request: &BuildRequest, name: &str, known: &Known) -> Result<Option<Evaluation>, SourceError> {
        let source = source_of(request)?;
        let pipeline = read_patiently(|| self.pipeline(source, name))?;
        if pipeline.by == Evaluator::Program {
            return Ok(None);
        }
        let mut evaluation = native::lower(&pipeline.files, known).evaluation;
        fill_pool(&mut evaluation, &request.options);
        let (pool, pools) = (request.options.pool.clone(), request.options.pools);
        self.keep(Key { source, pipeline: name.to_owned(), pool, pools, known: known.clone() }, &evaluation);
        Ok(Some(evaluation))
    }

    /// What a program's reply says, together with the config files beside it.
    ///
    /// # Errors
    /// A sentence: the reply cannot be had, or is none.
    pub fn reply(
        &self,
        request: &BuildRequest,
        name: &str,
        known: &Known,
        reply: &ProgramReply,
    ) -> Result<Evaluation, String> {
        let digest = source_of(request).map_err(|error| full(&error))?;
        let read = || {
            let pipeline = self.pipeline(digest, name)?;
            let source = self.sources.open(digest)?;
            let text = self.blobs.get(reply.text, REPLY_BYTES_MAX as u64).map_err(SourceError::Refused)?;
            Ok((pipeline, source, text))
        };
        let (pipeline, source, text) = read_patiently(read).map_err(|error| full(&error))?;
        let text = String::from_utf8(text).map_err(|_| "the reply of the pipeline's program is no text")?;
        let mut said = program::read(&text).map_err(|error| error.to_string())?;
        let mut texts = Vec::new();
        for file in said.files() {
            if let Some(path) = reply.files.get(file) {
                file.clone_from(path);
            }
            // Without its text a place is told by line and column.
            if let Ok(bytes) = self.sources.content(&source, file, PIPELINE_BYTES_MAX)
                && let Ok(text) = String::from_utf8(bytes)
            {
                texts.push((file.clone(), text));
            }
        }
        let mut evaluation = program::lower(said, texts, &pipeline.files, known, reply.program).evaluation;
        fill_pool(&mut evaluation, &request.options);
        Ok(evaluation)
    }
}

fn source_of(request: &BuildRequest) -> Result<Digest, SourceError> {
    request.origin.source.ok_or_else(|| SourceError::Absent { what: "the source of the build".to_owned() })
}

/// Puts jobs that name no pool into that of their build; refuses jobs that name another, if their build may use no other.
fn fill_pool(evaluation: &mut Evaluation, options: &BuildOptions) {
    let pool = options.pool.as_str();
    for (name, job) in &mut evaluation.graph.jobs {
        if job.pool.is_empty() && !pool.is_empty() {
            Arc::make_mut(job).pool = pool.to_owned();
        }
        let is_own = job.pool == pool || (pool.is_empty() && job.pool == DEFAULT_POOL);
        if options.pools == PoolReach::Own && !is_own {
            let message = format!("the job `{name}` names the pool `{}`, which the token does not grant", job.pool);
            let help = "name no pool in the job, or submit with a token that grants this pool too";
            evaluation.diagnostics.push(Diagnostic::error("pool-not-granted", message).help(help));
        }
    }
}

#[cfg(test)]
mod tests {
    use graph::{Graph, Job, JobName};

    use super::*;

    #[test]
    fn a_build_of_one_pool_has_no_job_in_another() {
        let check = |options: BuildOptions, refused: &[&str]| {
            let jobs = [("unnamed", ""), ("default", DEFAULT_POOL), ("linux", "linux"), ("arm", "arm")];
            let job = |pool: &str| Arc::new(Job { pool: pool.to_owned(), ..Job::default() });
            let jobs = jobs.map(|(name, pool)| (JobName::from(name), job(pool)));
            let graph = Graph { jobs: jobs.into_iter().collect(), ..Graph::default() };
            let mut evaluation = Evaluation { graph, ..Evaluation::default() };
            fill_pool(&mut evaluation, &options);
            let told: Vec<&str> = evaluation.diagnostics.iter().filter_map(|it| it.message.split('`').nth(1)).collect();
            assert_eq!(told, refused, "{options:?}");
            assert_eq!(evaluation.graph.jobs["unnamed"].pool, options.pool);
        };
        let options = |pool: &str, pools| BuildOptions { pool: pool.to_owned(), pools, ..BuildOptions::default() };
        check(options("linux", PoolReach::Every), &[]);
        check(options("linux", PoolReach::Own), &["arm", "default"]);
        check(options("", PoolReach::Own), &["arm", "linux"]);
    }
}
