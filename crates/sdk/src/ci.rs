//! The pipeline in the making: jobs, holes, questions, and what is wrong.
//!
//! A [`Ci`] is a handle to one evaluation; clones and handles of jobs share it. Nothing is decided here: conditions,
//! matrices and needs are written down as the native format has them, and the binary lowers them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::Location;
use std::rc::Rc;

use crate::growth::Growth;
use crate::inputs::Run;
use crate::job::Job;
use crate::json::Json;
use crate::mark::{Files, Mark};

/// The most jobs that one evaluation may add; more is an error that names this bound.
pub const JOBS_MAX: usize = 100_000;

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
    /// The answers without which this place of the program is not reached, as pairs of question and answer.
    pub answers: Vec<(Json, Json)>,
    /// The numbers of the growths (see [`Growth`]) around it; jobs added here belong to all of them.
    pub growths: Vec<usize>,
}

/// One evaluation of a program.
#[derive(Default)]
pub(crate) struct Evaluation {
    /// The event, as the binary gave it.
    pub event: Json,
    /// The answers so far: question (as canonical text) to answer.
    pub answers: HashMap<String, Json>,
    pub files: Files,
    pub jobs: Vec<Entry>,
    pub by_name: HashMap<String, usize>,
    /// Keys of the pipeline itself: `name`, `env`, `defaults`, `stages`, with their marks.
    pub keys: Vec<(String, Json)>,
    pub growths: Vec<Growth>,
    /// How many growths wanted a hole of each name.
    pub hole_names: HashMap<String, usize>,
    pub questions: BTreeMap<String, Json>,
    pub statuses: BTreeMap<String, Json>,
    pub diagnostics: Vec<Json>,
    /// The functions of jobs, by job.
    pub functions: HashMap<usize, Run>,
    /// Which hooks are being evaluated.
    pub hooks: Vec<usize>,
}

/// A job as it is being written.
pub(crate) struct Entry {
    pub name: String,
    /// The object of the native format, marks included.
    pub body: Vec<(String, Json)>,
    /// What it needs: name to entry of `needs`, in order; written into the body at the end, since growths are resolved then.
    pub needs: Vec<Need>,
    pub secrets: BTreeSet<String>,
    pub growths: Vec<usize>,
}

/// One need of a job as it is being written.
pub(crate) struct Need {
    pub on: NeedOn,
    /// `success`, `failure` or `finished`.
    pub ending: &'static str,
    pub mark: Mark,
}

/// What a need names.
pub(crate) enum NeedOn {
    /// A job, or a group, by name.
    Name(String),
    /// All jobs that a closure adds, or the hole as long as it has not run.
    Growth(usize),
}

impl Ci {
    /// An evaluation that knows the event and these answers.
    pub(crate) fn new(event: Json, answers: HashMap<String, Json>, hooks: Vec<usize>) -> Self {
        let evaluation = Evaluation { event, answers, hooks, ..Evaluation::default() };
        Self { shared: Rc::new(RefCell::new(evaluation)), scope: Scope::default() }
    }

    /// Adds a job of this name: letters, digits, `_`, `-`, and `/` between a group and its members. Two jobs of one name
    /// are an error, told before anything runs.
    #[track_caller]
    pub fn job(&self, name: impl Into<String>) -> Job {
        let mark = Location::caller();
        let name = format!("{}{}", self.scope.prefix, name.into());
        let index = self.shared.borrow_mut().add(name, mark, &self.scope);
        Job::new(self.clone(), index)
    }
}

impl Evaluation {
    fn add(&mut self, name: String, mark: Mark, scope: &Scope) -> usize {
        let index = self.jobs.len();
        let place = self.files.json(mark);
        let mut body = Vec::with_capacity(8);
        body.push(("@".to_owned(), place.clone()));
        match self.by_name.get(&name) {
            None => drop(self.by_name.insert(name.clone(), index)),
            Some(&first) => {
                let first = self.jobs[first].body[0].1.clone();
                self.diagnostics.push(twice(&name, place, first));
            }
        }
        let conditions = scope.conditions.iter().map(|(condition, _)| condition.clone());
        if let Some((_, mark)) = scope.conditions.last() {
            let list = conditions.collect();
            let place = self.files.json(mark);
            body.push(("@when".to_owned(), place));
            body.push(("when".to_owned(), Json::List(list)));
        }
        let growths = scope.growths.clone();
        growths.iter().for_each(|growth| self.growths[*growth].jobs.push(index));
        self.jobs.push(Entry { name, body, needs: Vec::new(), secrets: BTreeSet::new(), growths });
        index
    }

    /// Writes `key` of a job; a second time replaces the first.
    pub fn set(&mut self, job: usize, key: &str, value: Json, mark: Mark) {
        let place = self.files.json(mark);
        let body = &mut self.jobs[job].body;
        let marked = format!("@{key}");
        match body.iter().position(|(name, _)| name == key) {
            Some(index) => body[index].1 = value,
            None => body.push((key.to_owned(), value)),
        }
        match body.iter().position(|(name, _)| *name == marked) {
            Some(index) => body[index].1 = place,
            None => body.push((marked, place)),
        }
    }

    /// The value of `key` of a job, to be changed in place; `start` if it has none.
    pub fn entry(&mut self, job: usize, key: &str, start: Json, mark: Mark) -> &mut Json {
        let body = &self.jobs[job].body;
        if !body.iter().any(|(name, _)| name == key) {
            self.set(job, key, start, mark);
        }
        let body = &mut self.jobs[job].body;
        &mut body.iter_mut().find(|(name, _)| name == key).expect("it was just set").1
    }
}

fn twice(name: &str, place: Json, first: Json) -> Json {
    Json::object([
        ("code", "job-twice".into()),
        ("message", format!("the job `{name}` is added twice").into()),
        ("label", "the second time".into()),
        ("help", "give each job a name of its own".into()),
        ("@", place),
        ("related", Json::List(vec![Json::object([("@", first), ("remark", "the first time".into())])])),
    ])
}
