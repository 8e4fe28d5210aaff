//! What plugins do to jobs that others wrote: steps around every job with some property, those of config files included.

use std::rc::Rc;

use crate::ci::Ci;
use crate::json::Json;
use crate::step::Step;

/// Steps around the jobs that are selected.
#[derive(Clone)]
pub(crate) struct Around {
    pub select: Rc<dyn Fn(&JobView) -> bool>,
    pub place: Place,
    pub step: Step,
}

/// Where the step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before all steps of the job.
    Before,
    /// After all of them.
    After,
}

/// A job as it stands, whoever wrote it.
#[derive(Clone, Debug)]
pub struct JobView {
    name: String,
    /// The object of the native format, with marks.
    body: Json,
    origin: Origin,
    labels: Vec<String>,
}

/// Who wrote a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A config file beside the program.
    File,
    /// The program.
    Program,
}

impl JobView {
    /// A job with this object of the native format; without labels of its own it has those of the defaults.
    pub(crate) fn new(name: String, body: Json, origin: Origin, default_labels: Option<&Json>) -> Self {
        let labels = words(body.get("labels").or(default_labels)).into_iter().map(str::to_owned).collect();
        Self { name, body, origin, labels }
    }

    /// The job's full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who wrote it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The value of a key of the native format, as it was written.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.body.get(key)
    }

    /// The names of its secrets.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        words(self.get("secrets"))
    }

    /// Whether it gets this secret.
    #[must_use]
    pub fn has_secret(&self, name: &str) -> bool {
        self.secrets().contains(&name)
    }

    /// The labels that its worker must have: its own; without any, the pipeline's defaults.
    #[must_use]
    pub fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// Whether its worker must have this label.
    #[must_use]
    pub fn has_label(&self, label: &str) -> bool {
        self.labels().contains(&label)
    }
}

/// One text, or a list of them.
fn words(value: Option<&Json>) -> Vec<&str> {
    match value {
        Some(Json::Text(text)) => vec![text],
        Some(value) => value.items().iter().filter_map(Json::as_str).collect(),
        None => Vec::new(),
    }
}

impl Ci {
    /// Puts a step before the steps of every job that is selected, also of those that are added later and those of config files:
    /// `ci.before(|job| job.has_label("docker"), "docker login")`. Jobs without steps are left alone. Several stand in the order of the calls.
    #[track_caller]
    pub fn before(&self, select: impl Fn(&JobView) -> bool + 'static, step: impl Into<Step>) {
        self.around(Rc::new(select), Place::Before, step.into());
    }

    /// Puts a step after the steps of every job that is selected. With `.run_if("always()")` it also runs after a failure.
    #[track_caller]
    pub fn after_steps(&self, select: impl Fn(&JobView) -> bool + 'static, step: impl Into<Step>) {
        self.around(Rc::new(select), Place::After, step.into());
    }

    fn around(&self, select: Rc<dyn Fn(&JobView) -> bool>, place: Place, step: Step) {
        self.shared.borrow_mut().around.push(Around { select, place, step });
    }
}
