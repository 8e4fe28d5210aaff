//! The pipeline in the making: jobs, holes, questions, and what is wrong.
//!
//! A [`Ci`] is a handle to one evaluation; clones and handles of jobs share it. Nothing is decided here: conditions,
//! matrices and needs are written down as the native format has them, and the binary lowers them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;
use std::rc::Rc;

use crate::event::Event;
use crate::extension::Around;
use crate::growth::Growth;
use crate::inputs::Run;
use crate::job::Job;
use crate::json::Json;
use crate::mark::{Files, Mark, Settings};
use crate::plugin::{FunctionOfFile, Known};
use crate::reads::Reads;
use crate::term::Look;
use crate::texts::Texts;

/// The most jobs that one evaluation may add; at the bound the evaluation ends with an error that names it.
pub const JOBS_MAX: usize = 100_000;

/// The most things that are told to be wrong; one more says that there are others.
pub const DIAGNOSTICS_MAX: usize = 1_000;

/// What a pipeline's function adds its jobs to.
#[derive(Clone)]
pub struct Ci {
    pub(crate) shared: Rc<RefCell<Evaluation>>,
    pub(crate) scope: Scope,
}

/// Where in the program jobs are being added: inside which closures.
#[derive(Clone, Default)]
pub(crate) struct Scope {
    /// What stands before the names of jobs: `test/`.
    pub prefix: String,
    /// The conditions of the `ci.when(…)` around it, outermost first, as the native format has them.
    pub conditions: Vec<(Json, Mark)>,
    /// The jobs whose outcomes must be known, or this place of the program is not reached. Shared: every handle has it.
    pub known: Rc<[String]>,
    /// The numbers of the growths (see [`Growth`]) around it; jobs added here belong to all of them.
    pub growths: Vec<usize>,
}

/// One evaluation of a program.
#[derive(Default)]
pub(crate) struct Evaluation {
    /// The event, as the binary gave it.
    pub event: Json,
    /// What the program has read of it, where it stands.
    pub reads: Reads,
    /// The answers so far: question (as canonical text) to answer.
    pub answers: HashMap<String, Json>,
    pub files: Files,
    pub jobs: Vec<Entry>,
    pub by_name: HashMap<String, usize, BuildHasherDefault<NameHasher>>,
    /// Before which job of `jobs` there is a barrier, in order.
    pub barriers: Vec<(usize, Mark)>,
    /// Keys of the pipeline itself: `name`, `env`, `stages`.
    pub settings: Settings,
    /// What holds for every job that does not say otherwise.
    pub defaults: Settings,
    /// Steps around jobs, in the order of the program.
    pub around: Vec<Around>,
    /// The native document of the files beside the program, with marks; `null` if there are none.
    pub document: Json,
    /// The names of its jobs that have been changed.
    pub changed: BTreeSet<String>,
    pub growths: Vec<Growth>,
    /// How many growths wanted a hole of each name.
    pub hole_names: HashMap<String, usize>,
    pub questions: BTreeMap<String, Json>,
    pub statuses: BTreeMap<String, Json>,
    /// Statuses that are still to be looked at, by name.
    pub terms: Vec<(String, Look)>,
    /// Whether the program has added what it adds: what terms still say changes no graph.
    pub is_complete: bool,
    pub diagnostics: Vec<Json>,
    /// The functions of jobs, by job.
    pub functions: HashMap<usize, Run>,
    /// The plugins that the program has.
    pub plugins: Vec<Known>,
    /// The functions of jobs of files, which plugins wrote.
    pub functions_of_files: Vec<FunctionOfFile>,
    /// Which hooks are being evaluated.
    pub hooks: Vec<usize>,
}

/// Hashes names of jobs, by FNV-1a: the names are the program's own, and the usual hasher is slow where nothing is
/// optimized.
#[derive(Default)]
pub(crate) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (mut hash, mut index) = (self.0 ^ 0xcbf2_9ce4_8422_2325, 0);
        while index < bytes.len() {
            hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
            index += 1;
        }
        // Tables look at the upper bits first.
        self.0 = hash ^ (hash >> 29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A job as it is being written.
pub(crate) struct Entry {
    pub name: String,
    pub mark: Mark,
    /// The keys of the native format, but for `needs`.
    pub settings: Settings,
    /// What it needs, in order; written at the end, since growths are resolved then.
    pub needs: Vec<Need>,
}

/// One need of a job as it is being written.
pub(crate) struct Need {
    pub on: NeedOn,
    /// `success`, `failure` or `finished`.
    pub ending: &'static str,
    pub mark: Mark,
}

/// What a need names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NeedOn {
    /// A job, or a group, by name.
    Name(String),
    /// All jobs that a closure adds, or the hole as long as it has not run.
    Growth(usize),
    /// The same, and values out of it: where the closure never runs there are none, whatever the awaited jobs are forgiven.
    Values(usize),
}

/// What ends an evaluation at a bound, by unwinding; the diagnostic has been written.
pub(crate) struct AtBound;

impl Ci {
    /// An evaluation that knows the event and these answers.
    pub(crate) fn new(event: Json, answers: HashMap<String, Json>, hooks: Vec<usize>) -> Self {
        let evaluation = Evaluation { event, answers, hooks, ..Evaluation::default() };
        Self { shared: Rc::new(RefCell::new(evaluation)), scope: Scope::default() }
    }

    /// Adds a job of this name: letters, digits, `_`, `-`, and `/` between a group and its members. Two jobs of one name
    /// are an error, told before anything runs.
    #[track_caller]
    pub fn job(&self, name: impl AsRef<str>) -> Job {
        let mark = Location::caller();
        let name = match self.scope.prefix.as_str() {
            "" => name.as_ref().to_owned(),
            prefix => format!("{prefix}{}", name.as_ref()),
        };
        let index = self.shared.borrow_mut().add(name, mark, &self.scope);
        Job::new(self.clone(), index)
    }

    /// What happened. What was read of it before a job gets its function counts for the reuse of that job's result.
    #[must_use]
    pub fn event(&self) -> Event {
        let shared = self.shared.borrow();
        Event::new(shared.event.clone(), shared.reads.clone())
    }

    /// Calls a closure of the program that other evaluations may not reach: what it reads of the event is for the jobs in it, and no
    /// word about those after it.
    pub(crate) fn aside<R>(&self, call: impl FnOnce() -> R) -> R {
        let reads = self.shared.borrow().reads.clone();
        let outside = reads.parts();
        let result = call();
        reads.reset(outside);
        result
    }

    /// The pipeline's name, for people.
    #[track_caller]
    pub fn name(&self, name: impl Into<String>) {
        self.shared.borrow_mut().settings.set("name", Json::Text(name.into()), Location::caller());
    }

    /// An environment variable of every step of every job; may hold `${{ }}`.
    #[track_caller]
    pub fn env(&self, name: impl Into<String>, value: impl Into<Json>) {
        self.shared.borrow_mut().settings.insert("env", name.into(), value.into(), Location::caller());
    }

    /// Names of stages, in order. The jobs of a stage wait until the jobs of the one before have passed.
    #[track_caller]
    pub fn stages(&self, names: impl Texts) {
        self.shared.borrow_mut().settings.set("stages", names.texts().into(), Location::caller());
    }

    /// What holds for every job that does not say otherwise.
    #[must_use]
    pub fn defaults(&self) -> crate::job::Defaults {
        crate::job::Defaults { ci: self.clone() }
    }

    /// A barrier: all jobs added after it wait until all jobs added before it have passed.
    #[track_caller]
    pub fn wait(&self) {
        let mark = Location::caller();
        let mut shared = self.shared.borrow_mut();
        let place = shared.jobs.len();
        shared.barriers.push((place, mark));
    }

    pub(crate) fn with_document(self, document: Json) -> Self {
        self.shared.borrow_mut().document = document;
        self
    }
}

impl Evaluation {
    fn add(&mut self, name: String, mark: Mark, scope: &Scope) -> usize {
        let index = self.jobs.len();
        if index == JOBS_MAX {
            let message = format!("the program adds more than {JOBS_MAX} jobs");
            self.fault("too-many-jobs", message, "the first too many", "split the pipeline in two", mark, &[]);
            std::panic::resume_unwind(Box::new(AtBound));
        }
        if self.is_complete {
            let message = format!("a term adds the job `{name}`");
            let help = "terms only say how jobs stand; `ci.then` adds jobs once a value is there";
            self.fault("job-in-term", message, "added while a status is looked at", help, mark, &[]);
        }
        match self.by_name.get(&name) {
            None => drop(self.by_name.insert(name.clone(), index)),
            Some(&first) => {
                let first = self.jobs[first].mark;
                let message = format!("the job `{name}` is added twice");
                let help = "give each job a name of its own";
                self.fault("job-twice", message, "the second time", help, mark, &[(first, "the first time")]);
            }
        }
        let mut settings = Settings(Vec::with_capacity(4));
        if let Some((_, mark)) = scope.conditions.last() {
            let list = scope.conditions.iter().map(|(condition, _)| condition.clone()).collect();
            settings.set("when", Json::List(list), mark);
        }
        scope.growths.iter().for_each(|growth| self.growths[*growth].jobs.push(index));
        self.jobs.push(Entry { name, mark, settings, needs: Vec::new() });
        index
    }

    /// Writes `key` of a job; a second time replaces the first.
    pub fn set(&mut self, job: usize, key: &'static str, value: Json, mark: Mark) {
        self.jobs[job].settings.set(key, value, mark);
    }

    /// The value of `key` of a job, to be changed in place; `start` if it has none.
    pub fn entry(&mut self, job: usize, key: &'static str, start: Json, mark: Mark) -> &mut Json {
        self.jobs[job].settings.entry(key, start, mark)
    }

    /// Tells that something is wrong, here and at these other places.
    pub fn fault(
        &mut self,
        code: &str,
        message: impl Into<String>,
        label: &str,
        help: &str,
        mark: Mark,
        related: &[(Mark, &str)],
    ) {
        let place = self.files.json(mark);
        let related = related
            .iter()
            .map(|(mark, remark)| Json::object([("@", self.files.json(mark)), ("remark", (*remark).into())]))
            .collect();
        self.diagnostic(Json::object([
            ("code", code.into()),
            ("message", Json::Text(message.into())),
            ("label", label.into()),
            ("help", help.into()),
            ("@", place),
            ("related", Json::List(related)),
        ]));
    }

    /// Adds a diagnostic, up to [`DIAGNOSTICS_MAX`].
    pub fn diagnostic(&mut self, diagnostic: Json) {
        match self.diagnostics.len() {
            0..DIAGNOSTICS_MAX => self.diagnostics.push(diagnostic),
            DIAGNOSTICS_MAX => {
                let message = format!("more than {DIAGNOSTICS_MAX} things are wrong; the others are left out");
                let code = "too-many-diagnostics";
                self.diagnostics.push(Json::object([("code", code.into()), ("message", message.into())]));
            }
            _ => {}
        }
    }
}
