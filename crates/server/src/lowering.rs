//! Pipelines lowered to graphs, and the last ones remembered: files of a source never change, so the same pipeline with the
//! same knowledge says the same.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use api::worker::ProgramReply;
use dialects::native::{self, Lowered, Triggered};
use dialects::program::{self, NamedFile, REPLY_BYTES_MAX};
use engine::{BuildOptions, BuildRequest, PoolReach};
use graph::{BuildId, Diagnostic, Digest, Evaluation, Event, EventKind, Known, with_causes};
use store::blob::Blobs;

use crate::lock::lock;
use crate::records::DEFAULT_POOL;
use crate::source::{Evaluator, PIPELINE_BYTES_MAX, Pipeline, SourceError, Sources, read_patiently};

/// How many evaluations are remembered, and how many jobs they may have together.
const KEPT_MAX: usize = 64;
const KEPT_JOBS_MAX: usize = 50_000;
/// How many read pipelines are remembered.
const PIPELINES_MAX: usize = 64;
/// How many builds' programs are remembered by what they last replied, and how many jobs those replies may have together: some
/// kilobytes each. What is forgotten is read and lowered whole, once.
const MEMORIES_MAX: usize = 16;
const MEMORIES_JOBS_MAX: usize = 20_000;

/// Lowers pipelines of sources. Blocks, but for [`Lowering::find`].
pub struct Lowering {
    sources: Arc<Sources>,
    blobs: Arc<dyn Blobs>,
    kept: Mutex<VecDeque<(Key, Evaluation)>>,
    pipelines: Mutex<VecDeque<((Digest, String), Pipeline)>>,
    /// The one used last stands last. None is here while it is used.
    memories: Mutex<VecDeque<Remembered>>,
}

/// What is remembered of a build's program from its last reply.
struct Remembered {
    build: BuildId,
    pipeline: String,
    memory: program::Memory,
    last: Lowered,
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
        Self { sources, blobs, kept: Mutex::default(), pipelines: Mutex::default(), memories: Mutex::default() }
    }

    /// An evaluation that is remembered. Does not block.
    #[must_use]
    pub fn find(&self, request: &BuildRequest, pipeline: &str, known: &Known) -> Option<Evaluation> {
        let kept = lock(&self.kept);
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
        let mut kept = lock(&self.kept);
        kept.push_back((key, evaluation.clone()));
        let mut n_jobs: usize = kept.iter().map(|(_, evaluation)| evaluation.graph.jobs.len()).sum();
        while kept.len() > KEPT_MAX || (kept.len() > 1 && n_jobs > KEPT_JOBS_MAX) {
            n_jobs -= kept.pop_front().map_or(0, |(_, evaluation)| evaluation.graph.jobs.len());
        }
    }

    fn pipeline(&self, source: Digest, name: &str) -> Result<Pipeline, SourceError> {
        let pipelines = || lock(&self.pipelines);
        let is_it = |key: &(Digest, String)| key.0 == source && key.1 == name;
        if let Some((_, pipeline)) = pipelines().iter().find(|(key, _)| is_it(key)) {
            return Ok(pipeline.clone());
        }
        let pipeline = self.sources.pipeline(&*self.sources.open(source)?, name)?;
        let mut kept = pipelines();
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

    /// Takes out what is remembered of a build's program.
    fn remembered(&self, build: BuildId, pipeline: &str) -> Option<Remembered> {
        let mut memories = lock(&self.memories);
        let place = memories.iter().position(|it| it.build == build && it.pipeline == pipeline)?;
        memories.remove(place)
    }

    fn put_back(&self, remembered: Remembered) {
        let mut memories = lock(&self.memories);
        memories.push_back(remembered);
        let n_jobs = |it: &Remembered| it.last.evaluation.graph.jobs.len();
        let mut n_all: usize = memories.iter().map(n_jobs).sum();
        while memories.len() > MEMORIES_MAX || n_all > MEMORIES_JOBS_MAX {
            n_all -= memories.pop_front().map_or(n_all, |it| n_jobs(&it));
        }
    }

    /// What a program's reply says, together with the config files beside it. Quicker where an earlier reply to the same build is
    /// remembered, and then with the places of jobs that have changed.
    ///
    /// # Errors
    /// A sentence: the reply cannot be had, or is none.
    pub fn reply(
        &self,
        build: BuildId,
        request: &BuildRequest,
        name: &str,
        known: &Known,
        reply: &ProgramReply,
    ) -> Result<Evaluation, String> {
        let digest = source_of(request).map_err(|error| with_causes(&error))?;
        let read = || {
            let pipeline = self.pipeline(digest, name)?;
            let source = self.sources.open(digest)?;
            let text = self.blobs.get(reply.text, REPLY_BYTES_MAX as u64).map_err(SourceError::Refused)?;
            Ok((pipeline, source, text))
        };
        let (pipeline, source, text) = read_patiently(read).map_err(|error| with_causes(&error))?;
        let text = String::from_utf8(text).map_err(|_| "the reply of the pipeline's program is no text")?;
        let mut named = |file: &str| {
            let name = reply.files.get(file).map_or(file, String::as_str);
            // Without its text a place is told by line and column.
            let bytes = self.sources.content(&source, name, PIPELINE_BYTES_MAX).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            NamedFile { name: name.to_owned(), text }
        };
        let (mut memory, last) =
            self.remembered(build, name).map_or_else(Default::default, |it| (it.memory, Some(it.last)));
        let lowered = program::lower_again(&text, &mut named, &pipeline.files, known, reply.program, &mut memory)
            .map_err(|error| error.to_string())?;
        let mut evaluation = lowered.evaluation.clone();
        // Somebody asked for it by name, or a job asked for it: nothing to do is not what they meant.
        match (&lowered.triggered, request.event.kind) {
            (Triggered::No { reason }, EventKind::Command) => {
                evaluation.diagnostics.push(Diagnostic::error("no-such-command", reason.clone()));
            }
            (Triggered::No { reason }, kind) if request.event.parent.is_some() => {
                let message = format!("the program does not answer to the event `{}`: {reason}", kind.name());
                let help = "say in the job that asks for it by which event, branch or command it is meant";
                evaluation.diagnostics.push(Diagnostic::error("not-answered", message).help(help));
            }
            _ => {}
        }
        if let Some(last) = &last {
            evaluation.moved = lowered.moved_since(last);
        }
        self.put_back(Remembered { build, pipeline: name.to_owned(), memory, last: lowered });
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
    use std::collections::BTreeMap;

    use api::source::{File, Manifest, VERSION};
    use graph::{Graph, Job, JobName};
    use store::blob::MemoryBlobs;

    use super::*;

    /// A lowering of one source with a program, and a request for it.
    fn of_program() -> (Lowering, Arc<MemoryBlobs>, BuildRequest) {
        let blobs = Arc::new(MemoryBlobs::default());
        let text = "one\ntwo\nthree\n";
        let digest = blobs.put(text.as_bytes()).expect("it is kept");
        let file = File::Plain { digest, bytes: text.len() as u64 };
        let files = BTreeMap::from([(".ropewalk/pipeline.rs".to_owned(), file)]);
        let manifest = Manifest { version: VERSION, files, ..Manifest::default() };
        let source = blobs.put(&serde_json::to_vec(&manifest).expect("JSON")).expect("it is kept");
        let event = Event { branch: Some("main".to_owned()), ..Event::new(EventKind::Push) };
        let mut request = BuildRequest::new(event, ".ropewalk/pipeline.rs");
        request.origin.source = Some(source);
        let sources = Arc::new(Sources::new(Arc::clone(&blobs) as Arc<dyn Blobs>));
        (Lowering::new(sources, Arc::clone(&blobs) as Arc<dyn Blobs>), blobs, request)
    }

    /// The reply of a program whose jobs are `jobs`, as JSON.
    fn reply(blobs: &MemoryBlobs, jobs: &str) -> ProgramReply {
        let text = format!(
            r#"{{"protocol":1,"files":["src/p.rs"],"hooks":[{{"name":"ci","@":[0,1,1]}}],"document":{{"jobs":{{{jobs}}}}}}}"#
        );
        let files = BTreeMap::from([("src/p.rs".to_owned(), ".ropewalk/pipeline.rs".to_owned())]);
        let text = blobs.put(text.as_bytes()).expect("it is kept");
        ProgramReply { text, program: Digest([7; 32]), files }
    }

    #[test]
    fn a_programs_later_replies_are_lowered_as_by_one_who_remembers_nothing() {
        let (lowering, blobs, request) = of_program();
        let known = Known::of(request.event.clone());
        let lower_in = |(lowering, blobs): (&Lowering, &MemoryBlobs), build: u64, jobs: &str| {
            let reply = reply(blobs, jobs);
            lowering.reply(BuildId(build), &request, &request.pipeline, &known, &reply).expect("it is a reply")
        };
        let lower = |build: u64, jobs: &str| lower_in((&lowering, &blobs), build, jobs);
        let a = r#""a":{"@":[0,1,1],"run":"x"}"#;
        let grown = format!(r#"{a},"b":{{"@":[0,2,1],"run":"y"}}"#);
        let changed = r#""a":{"@":[0,3,1],"run":"z"}"#;
        for (jobs, n_jobs) in [(a, 1), (&*grown, 2), (changed, 1)] {
            let evaluation = lower(1, jobs);
            let (fresh, its_blobs, _) = of_program();
            assert_eq!(evaluation.graph.jobs.len(), n_jobs, "{:?}", evaluation.diagnostics);
            assert_eq!(evaluation.graph, lower_in((&fresh, &its_blobs), 1, jobs).graph);
        }
        // Where `a` stood when it was there last, and where it is now; `b` is no more.
        let moved = lower(1, a).moved;
        let line = |place: &Option<graph::Location>| place.as_ref().map(|place| (place.file.to_string(), place.line));
        let at = |line| Some((".ropewalk/pipeline.rs".to_owned(), line));
        let moved: Vec<_> = moved.iter().map(|(job, it)| (job.as_str(), line(&it.before), line(&it.after))).collect();
        assert_eq!(moved, [("a", at(3), at(1))]);
        // Another build has not seen any of it.
        assert!(lower(2, changed).moved.is_empty());
    }

    #[test]
    fn few_programs_are_remembered() {
        let (lowering, blobs, request) = of_program();
        let known = Known::of(request.event.clone());
        let reply = reply(&blobs, r#""a":{"run":"x"}"#);
        for build in 0..MEMORIES_MAX as u64 + 5 {
            lowering.reply(BuildId(build), &request, &request.pipeline, &known, &reply).expect("it is a reply");
        }
        assert_eq!(lowering.memories.lock().expect("nobody panicked").len(), MEMORIES_MAX);
    }

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
