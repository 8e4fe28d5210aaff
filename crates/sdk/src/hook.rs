//! Which functions of a program answer to which events, and the program's `main`.

use std::panic::Location;
use std::rc::Rc;

use crate::ci::Ci;
use crate::condition::Tag;
pub use crate::condition::tag;
use crate::context::Failure;
use crate::event::EventKind;
use crate::fields::{Field, Fill};
use crate::json::Json;
use crate::mark::Mark;
use crate::texts::Texts;
use crate::wire;

/// A function with the events it answers to.
#[derive(Clone)]
pub struct Hook {
    pub(crate) name: String,
    /// `None`: every event.
    pub(crate) triggers: Option<Vec<Trigger>>,
    pub(crate) mark: Mark,
    pub(crate) run: Rc<Pipeline>,
}

/// Adds the jobs of a pipeline.
pub(crate) type Pipeline = dyn Fn(&Ci) -> Result<(), Failure>;

/// What a pipeline's function may return: nothing, or a `Result` whose error is told like a mistake in a config file.
pub trait Ending {
    #[doc(hidden)]
    fn ending(self) -> Result<(), Failure>;
}

impl Ending for () {
    fn ending(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> Ending for Result<(), E> {
    fn ending(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

/// What [`Ci::main`] takes: one function that answers to every event, or hooks made by [`on`].
pub trait Hooks {
    #[doc(hidden)]
    #[track_caller]
    fn hooks(self) -> Vec<Hook>;
}

impl Hooks for Hook {
    fn hooks(self) -> Vec<Hook> {
        vec![self]
    }
}

impl<const N: usize> Hooks for [Hook; N] {
    fn hooks(self) -> Vec<Hook> {
        self.into()
    }
}

impl Hooks for Vec<Hook> {
    fn hooks(self) -> Vec<Hook> {
        self
    }
}

impl<F, R> Hooks for F
where
    F: Fn(&Ci) -> R + 'static,
    R: Ending,
{
    #[track_caller]
    fn hooks(self) -> Vec<Hook> {
        vec![Hook {
            name: name_of::<F>(),
            triggers: None,
            mark: Location::caller(),
            run: Rc::new(move |ci| self(ci).ending()),
        }]
    }
}

/// The last part of a function's path; closures have none that is of use.
fn name_of<F>() -> String {
    let path = std::any::type_name::<F>();
    match path.rsplit("::").next() {
        Some(name) if !name.contains('{') => name.to_owned(),
        _ => "pipeline".to_owned(),
    }
}

impl Ci {
    /// The program's `main`: serves `ropewalk`, which starts the program to ask it for its jobs and to run functions of jobs.
    /// Takes a pipeline's function, or several with the events they answer to:
    ///
    /// ```no_run
    /// use ropewalk::Ci;
    ///
    /// fn main() {
    ///     // Here, so that tests which `use super::*` have a `push` of their own.
    ///     use ropewalk::hook::{command, on, push, schedule};
    ///     Ci::main([
    ///         on(push().branch("main")).or(command("test")).run(ci),
    ///         on(schedule("0 3 * * *")).run(nightly),
    ///     ])
    /// }
    ///
    /// fn ci(ci: &Ci) {
    ///     ci.job("test").run("cargo test");
    /// }
    ///
    /// fn nightly(ci: &Ci) {
    ///     ci.job("fuzz").run("./fuzz.sh");
    /// }
    /// ```
    #[track_caller]
    pub fn main(hooks: impl Hooks) -> ! {
        std::process::exit(wire::main(&hooks.hooks()))
    }
}

/// Events, before it is said which function answers to them.
#[derive(Clone, Debug)]
pub struct On {
    triggers: Vec<Trigger>,
    name: Option<String>,
    mark: Mark,
}

/// These events, to be answered by the function that [`On::run`] takes.
#[track_caller]
#[must_use]
pub fn on(trigger: impl Into<Trigger>) -> On {
    On { triggers: vec![trigger.into()], name: None, mark: Location::caller() }
}

impl On {
    /// These events too.
    #[must_use]
    pub fn or(mut self, trigger: impl Into<Trigger>) -> Self {
        let trigger = trigger.into();
        match self.triggers.iter_mut().find(|other| other.kind == trigger.kind) {
            Some(other) => other.merge(trigger),
            None => self.triggers.push(trigger),
        }
        self
    }

    /// What the hook is called. Without it: the function's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The function that adds the jobs.
    #[must_use]
    pub fn run<R: Ending, F: Fn(&Ci) -> R + 'static>(self, pipeline: F) -> Hook {
        Hook {
            name: self.name.unwrap_or_else(name_of::<F>),
            triggers: Some(self.triggers),
            mark: self.mark,
            run: Rc::new(move |ci| pipeline(ci).ending()),
        }
    }
}

/// Events of one kind, perhaps narrowed.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    kind: EventKind,
    /// Regexes, of which one must match the name of the branch, tag or command. `None`: any name.
    names: Option<Vec<String>>,
    schedules: Vec<Json>,
    params: Vec<(String, Json)>,
}

impl Trigger {
    fn new(kind: EventKind) -> Self {
        Self { kind, names: None, schedules: Vec::new(), params: Vec::new() }
    }

    /// Both, of one kind.
    fn merge(&mut self, other: Self) {
        self.names = match (self.names.take(), other.names) {
            (Some(mut names), Some(others)) => {
                names.extend(others);
                Some(names)
            }
            _ => None,
        };
        self.schedules.extend(other.schedules);
        self.params.extend(other.params);
    }

    /// As an entry of the native format's `on`.
    pub(crate) fn entry(&self) -> (String, Json) {
        let names = |key: &str| match &self.names {
            Some(names) => Json::object([(key, names.clone().into())]),
            None => Json::Object(Vec::new()),
        };
        let value = match self.kind {
            EventKind::Push | EventKind::PullRequest => names("branches"),
            EventKind::Tag | EventKind::Command => names("names"),
            EventKind::Schedule => Json::List(self.schedules.clone()),
            EventKind::Manual => Json::object([("params", Json::Object(self.params.clone()))]),
            EventKind::Api | EventKind::Build => Json::Object(Vec::new()),
        };
        (self.kind.name().to_owned(), value)
    }
}

/// Pushes, or pull requests: see [`push`] and [`pull_request`].
#[derive(Clone, Debug)]
pub struct Branches {
    kind: EventKind,
    branches: Option<Vec<String>>,
}

/// Commits arrived on a branch. The event of that name, for tests, is [`crate::testing::push`]: import triggers inside `main`, and
/// tests that `use super::*` have theirs.
#[must_use]
pub fn push() -> Branches {
    Branches { kind: EventKind::Push, branches: None }
}

/// A pull request was opened or changed.
#[must_use]
pub fn pull_request() -> Branches {
    Branches { kind: EventKind::PullRequest, branches: None }
}

impl Branches {
    /// One of these regexes, or of those of earlier calls, matches the branch's whole name; of a pull request, the branch that it is to be merged into.
    #[must_use]
    pub fn branch(mut self, regexes: impl Texts) -> Self {
        self.branches.get_or_insert_default().extend(regexes.texts());
        self
    }
}

impl From<Branches> for Trigger {
    fn from(branches: Branches) -> Self {
        Self { names: branches.branches, ..Self::new(branches.kind) }
    }
}

impl From<Tag> for Trigger {
    fn from(tag: Tag) -> Self {
        Self { names: Some(tag.names), ..Self::new(EventKind::Tag) }
    }
}

/// Points in time: see [`schedule`].
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: String,
    timezone: Option<String>,
}

/// Points in time, as five fields of cron: minute, hour, day of month, month, day of week. In UTC, if no other zone is named.
#[must_use]
pub fn schedule(cron: impl Into<String>) -> Schedule {
    Schedule { cron: cron.into(), timezone: None }
}

impl Schedule {
    /// The time zone, such as `Europe/Paris`.
    #[must_use]
    pub fn timezone(mut self, name: impl Into<String>) -> Self {
        self.timezone = Some(name.into());
        self
    }
}

impl From<Schedule> for Trigger {
    fn from(schedule: Schedule) -> Self {
        let mut entries = vec![("cron".to_owned(), Json::Text(schedule.cron))];
        entries.extend(schedule.timezone.map(|name| ("timezone".to_owned(), Json::Text(name))));
        Self { schedules: vec![Json::Object(entries)], ..Self::new(EventKind::Schedule) }
    }
}

/// A start by a person: see [`manual`].
#[derive(Clone, Debug)]
pub struct Manual {
    params: Vec<(String, Json)>,
}

/// A person started it.
#[must_use]
pub fn manual() -> Manual {
    Manual { params: Vec::new() }
}

impl Manual {
    /// Something that the person fills in: `${{ params.NAME }}`, [`crate::Event::param`].
    #[must_use]
    pub fn param<T: Fill>(mut self, field: Field<T>) -> Self {
        self.params.push(field.entry());
        self
    }
}

impl From<Manual> for Trigger {
    fn from(manual: Manual) -> Self {
        Self { params: manual.params, ..Self::new(EventKind::Manual) }
    }
}

/// A person asked for a command by a name that one of these regexes matches: `ropewalk run --command NAME`.
#[must_use]
pub fn command(names: impl Texts) -> Trigger {
    Trigger { names: Some(names.texts()), ..Trigger::new(EventKind::Command) }
}

/// A program started it.
#[must_use]
pub fn api() -> Trigger {
    Trigger::new(EventKind::Api)
}

/// Another build started it.
#[must_use]
pub fn build() -> Trigger {
    Trigger::new(EventKind::Build)
}
