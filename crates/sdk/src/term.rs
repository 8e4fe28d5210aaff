//! Terms: what a pipeline says of itself, combined from how its jobs stand.
//!
//! A term is a description, looked at once, after the whole program has been evaluated. So no part of the program can act on
//! what a term says: jobs are added by [`Ci::then`] and its like alone, which keeps evaluation monotone. Looking asks how the
//! jobs ended that it reads, so a status is looked at again when one of them has.
//!
//! Of two troubles the worse one shows: failed, then pending, then skipped; of two alike, the one of the job with the smaller
//! name. Nothing depends on which side a term stands.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::ci::Ci;
use crate::data::Data;
use crate::growth::{Cause, Ended, Grown, State as GrowthState};
use crate::inputs::{MATRIX_HAS_MANY, MATRIX_HELP, Output, Source};
use crate::job::Job;
use crate::json::Json;

/// The most names that a text lists; more are counted.
pub const NAMES_MAX: usize = 10;

/// A value, or why there is none: combined from how jobs stand.
pub struct Term<T> {
    look: Rc<LookAt<T>>,
}

/// Looks at a term.
type LookAt<T> = dyn Fn(&mut Looking<'_>) -> Result<T, Trouble>;

impl<T> Clone for Term<T> {
    fn clone(&self) -> Self {
        Self { look: Rc::clone(&self.look) }
    }
}

/// How a term stands, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermState<T> {
    /// It has this value.
    Ok(T),
    /// It did not apply.
    Skipped(String),
    /// It is not known yet.
    Pending(String),
    /// It is not well.
    Failed(String),
}

/// What [`Term::catch`] caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caught {
    /// It did not apply.
    Skipped(String),
    /// It is not well.
    Failed(String),
}

/// Why a term has no value: the first reason of each kind. Only the worst counts; a pending one is still told beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Trouble {
    failed: Option<Box<Reason>>,
    pending: Option<Box<Reason>>,
    skipped: Option<Box<Reason>>,
}

/// A reason. Ordered by the job's name, then by the text; reasons of no job come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Reason {
    job: String,
    text: String,
}

/// A look at terms: what it may read, and what it has read.
pub(crate) struct Looking<'a> {
    ci: &'a Ci,
    /// The jobs that were read, as far as their logs are of interest.
    jobs: BTreeSet<String>,
}

impl Trouble {
    fn failed(job: &str, text: impl Into<String>) -> Self {
        Self { failed: Some(Reason::new(job, text)), ..Self::default() }
    }

    fn pending(job: &str, text: impl Into<String>) -> Self {
        Self { pending: Some(Reason::new(job, text)), ..Self::default() }
    }

    fn skipped(job: &str, text: impl Into<String>) -> Self {
        Self { skipped: Some(Reason::new(job, text)), ..Self::default() }
    }

    /// Both troubles: the first reason of each kind.
    fn and(self, other: Self) -> Self {
        Self {
            failed: first(self.failed, other.failed),
            pending: first(self.pending, other.pending),
            skipped: first(self.skipped, other.skipped),
        }
    }

    fn state<T>(self) -> TermState<T> {
        match (self.failed, self.pending, self.skipped) {
            (Some(failed), None, _) => TermState::Failed(failed.text),
            (Some(failed), Some(pending), _) => {
                let rest = match pending.text.strip_prefix("Waiting ") {
                    Some(rest) => format!("still waiting {rest}"),
                    None => format!("still: {}", pending.text),
                };
                TermState::Failed(format!("{} ({rest})", failed.text))
            }
            (None, Some(pending), _) => TermState::Pending(pending.text),
            (None, None, skipped) => TermState::Skipped(skipped.map(|reason| reason.text).unwrap_or_default()),
        }
    }
}

impl Reason {
    fn new(job: &str, text: impl Into<String>) -> Box<Self> {
        Box::new(Self { job: job.to_owned(), text: text.into() })
    }
}

fn first(left: Option<Box<Reason>>, right: Option<Box<Reason>>) -> Option<Box<Reason>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

/// Both values, or both troubles.
fn both<A, B>(left: Result<A, Trouble>, right: Result<B, Trouble>) -> Result<(A, B), Trouble> {
    match (left, right) {
        (Ok(left), Ok(right)) => Ok((left, right)),
        (Err(left), Err(right)) => Err(left.and(right)),
        (Err(trouble), Ok(_)) | (Ok(_), Err(trouble)) => Err(trouble),
    }
}

/// Calls a closure of the user's; if it panics, that is a failure with its message.
fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, Trouble> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Trouble::failed("", text.unwrap_or("a closure of a term panicked"))
    })
}

impl<T: 'static> Term<T> {
    fn new(look: impl Fn(&mut Looking<'_>) -> Result<T, Trouble> + 'static) -> Self {
        Self { look: Rc::new(look) }
    }

    /// This value.
    #[must_use]
    pub fn ok(value: T) -> Self
    where
        T: Clone,
    {
        Self::new(move |_| Ok(value.clone()))
    }

    /// Failed, for this reason.
    #[must_use]
    pub fn fail(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(move |_| Err(Trouble::failed("", reason.clone())))
    }

    /// Not known yet, for this reason.
    #[must_use]
    pub fn pending(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(move |_| Err(Trouble::pending("", reason.clone())))
    }

    /// Did not apply, for this reason.
    #[must_use]
    pub fn skipped(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(move |_| Err(Trouble::skipped("", reason.clone())))
    }

    /// How the term stands, as a value: never pending, failed or skipped itself.
    #[must_use]
    pub fn state(self) -> Term<TermState<T>> {
        Term::new(move |looking| {
            Ok(match self.look(looking) {
                Ok(value) => TermState::Ok(value),
                Err(trouble) => trouble.state(),
            })
        })
    }

    /// Failures and skips as values; what is pending stays so.
    #[must_use]
    pub fn catch(self) -> Term<Result<T, Caught>> {
        Term::new(move |looking| match self.look(looking) {
            Ok(value) => Ok(Ok(value)),
            Err(trouble) if trouble.failed.is_none() && trouble.pending.is_some() => Err(trouble),
            Err(trouble) => Ok(Err(match trouble.state::<()>() {
                TermState::Failed(text) => Caught::Failed(text),
                TermState::Skipped(text) | TermState::Pending(text) => Caught::Skipped(text),
                TermState::Ok(()) => unreachable!("a trouble is no value"),
            })),
        })
    }

    /// Both values. Both terms are looked at, whatever the other says.
    #[must_use]
    pub fn pair<U: 'static>(self, other: Term<U>) -> Term<(T, U)> {
        Term::new(move |looking| {
            let left = self.look(looking);
            both(left, other.look(looking))
        })
    }

    /// The value turned into another. If `turn` panics, the term has failed with the panic's message.
    #[must_use]
    pub fn map<U: 'static>(self, turn: impl Fn(T) -> U + 'static) -> Term<U> {
        Term::new(move |looking| {
            let value = self.look(looking)?;
            guarded(|| turn(value))
        })
    }

    /// The term that `next` makes of the value. Without a value `next` is not called, and what it would read not asked.
    #[must_use]
    pub fn and_then<U: 'static>(self, next: impl Fn(T) -> Term<U> + 'static) -> Term<U> {
        Term::new(move |looking| {
            let value = self.look(looking)?;
            guarded(|| next(value))?.look(looking)
        })
    }

    /// Only whether there is a value, with texts of one's own for why not.
    #[must_use]
    pub fn wait_for(self, while_pending: impl Into<String>, on_failure: impl Into<String>) -> Term<()> {
        let (while_pending, on_failure) = (while_pending.into(), on_failure.into());
        let retold = move |reason: Option<Box<Reason>>, text: &str| reason.map(|reason| Reason::new(&reason.job, text));
        Term::new(move |looking| {
            let trouble = match self.look(looking) {
                Ok(_) => return Ok(()),
                Err(trouble) => trouble,
            };
            Err(match (trouble.failed, trouble.pending) {
                (failed @ Some(_), _) => Trouble { failed: retold(failed, &on_failure), ..Trouble::default() },
                (None, pending @ Some(_)) => Trouble { pending: retold(pending, &while_pending), ..Trouble::default() },
                (None, None) => Trouble { skipped: trouble.skipped, ..Trouble::default() },
            })
        })
    }

    /// The same, without the jobs that it read among those whose logs are shown with the status.
    #[must_use]
    pub fn without_logs(self) -> Self {
        Self::new(move |looking| {
            let jobs = std::mem::take(&mut looking.jobs);
            let result = self.look(looking);
            looking.jobs = jobs;
            result
        })
    }

    /// All values, in the order of the terms. All terms are looked at.
    #[must_use]
    pub fn all(terms: impl IntoIterator<Item = Self>) -> Term<Vec<T>> {
        let terms: Vec<Self> = terms.into_iter().collect();
        Term::new(move |looking| {
            let start = Ok(Vec::with_capacity(terms.len()));
            terms.iter().fold(start, |sum, term| {
                let (mut values, value) = both(sum, term.look(looking))?;
                values.push(value);
                Ok(values)
            })
        })
    }

    fn look(&self, looking: &mut Looking<'_>) -> Result<T, Trouble> {
        (self.look)(looking)
    }
}

impl Term<()> {
    /// Only whether all of these have values, with a text that names those which have not: `A, B failed`, `Waiting for A, B`,
    /// `A failed (still waiting for B)`. Where more than [`NAMES_MAX`] would be named, they are counted: `12 jobs failed`.
    #[must_use]
    pub fn wait_for_all<T: 'static>(terms: impl IntoIterator<Item = (impl Into<String>, Term<T>)>) -> Self {
        let terms: Vec<(String, Term<T>)> = terms.into_iter().map(|(name, term)| (name.into(), term)).collect();
        Self::new(move |looking| {
            let (mut trouble, mut names) = (None, Names::default());
            for (name, term) in &terms {
                let Err(other) = term.look(looking) else { continue };
                match (&other.failed, &other.pending) {
                    (Some(_), _) => names.failed.push(name),
                    (None, Some(_)) => names.pending.push(name),
                    (None, None) => names.skipped.push(name),
                }
                trouble = Some(trouble.map_or(other.clone(), |trouble: Trouble| trouble.and(other)));
            }
            trouble.map_or(Ok(()), |trouble| Err(names.retell(trouble)))
        })
    }
}

/// The names of terms without value, by how they stand.
#[derive(Default)]
struct Names<'a> {
    failed: Vec<&'a str>,
    pending: Vec<&'a str>,
    skipped: Vec<&'a str>,
}

impl Names<'_> {
    /// The same troubles, with texts that name all.
    fn retell(&self, trouble: Trouble) -> Trouble {
        let retold = |reason: Option<Box<Reason>>, text: String| reason.map(|reason| Reason::new(&reason.job, text));
        Trouble {
            failed: retold(trouble.failed, format!("{} failed", listed(&self.failed))),
            pending: match self.pending.as_slice() {
                // What is pending inside a term that has failed is told by nobody: the term is among the failed.
                [] => None,
                pending => retold(trouble.pending, format!("Waiting for {}", listed(pending))),
            },
            skipped: retold(trouble.skipped, format!("{} skipped", listed(&self.skipped))),
        }
    }
}

fn listed(names: &[&str]) -> String {
    if names.len() > NAMES_MAX { format!("{} jobs", names.len()) } else { names.join(", ") }
}

impl<T: Data> Output<T> {
    /// How the value stands.
    #[must_use]
    pub fn term(&self) -> Term<T> {
        of_source(self.source.clone())
    }
}

impl<O: Data, V> Job<O, V> {
    /// How the job stands.
    #[must_use]
    pub fn term(&self) -> Term<O> {
        of_source(self.output_of_function().source)
    }
}

impl<R> Grown<R> {
    /// How all jobs stand that were added, and those that are waited for.
    #[must_use]
    pub fn term(&self) -> Term<()> {
        let growth = self.growth;
        Term::new(move |looking| {
            let shared = looking.ci.shared.borrow();
            let growths = &shared.growths;
            let parts = std::iter::once(growth).chain(growths[growth].inner.iter().copied());
            let mut jobs: BTreeSet<String> = BTreeSet::new();
            for part in parts.map(|part| &growths[part]).filter(|part| part.state != GrowthState::Grown) {
                jobs.extend(part.after.iter().map(ToString::to_string));
            }
            jobs.extend(growths[growth].jobs.iter().map(|job| shared.jobs[*job].name.to_string()));
            drop(shared);
            // All are looked at, so that all are asked at once.
            let mut sum = Ok(());
            for job in &jobs {
                sum = both(sum, looking.job(job)).map(drop);
            }
            sum
        })
    }
}

fn of_source<T: Data>(source: Source) -> Term<T> {
    Term::new(move |looking| {
        let outputs = looking.job(&source.job)?;
        if looking.ci.shared.borrow().matrix_of(&source).is_some() {
            let text = format!("the value of {} cannot be read: {MATRIX_HAS_MANY}, {MATRIX_HELP}", source.job);
            return Err(Trouble::failed(&source.job, text));
        }
        let unreadable =
            |error| Trouble::failed(&source.job, format!("the value of {} cannot be read: {error}", source.job));
        source.read(&outputs).map_err(unreadable)
    })
}

impl Looking<'_> {
    /// The outputs of a job that has passed. Asks how it ended.
    fn job(&mut self, job: &str) -> Result<Json, Trouble> {
        self.jobs.insert(job.to_owned());
        let ended = match self.ci.shared.borrow_mut().ask(job) {
            Some(answer) => Ended::read(answer),
            None => return Err(Trouble::pending(job, format!("Waiting for {job}"))),
        };
        Err(match ended {
            Ok(Ended::Passed(outputs)) => return Ok(outputs),
            Ok(Ended::Skipped { .. }) => Trouble::skipped(job, format!("{job} skipped")),
            Ok(Ended::Canceled { .. }) => Trouble::failed(job, format!("{job} was canceled")),
            Ok(Ended::Failed { cause: Cause::Timeout { .. }, .. }) => Trouble::failed(job, format!("{job} timed out")),
            Ok(Ended::Failed { .. }) => Trouble::failed(job, format!("{job} failed")),
            Err(reason) => Trouble::failed(job, format!("how {job} ended is not known: {reason}")),
        })
    }
}

/// A value that a status can show: anything that can be displayed, and `()`, which is shown by its state alone. `K` tells the two apart for
/// the compiler; nobody names it.
#[diagnostic::on_unimplemented(
    message = "a status cannot show `{Self}`",
    label = "its value is neither `()` nor can it be displayed",
    note = "turn the value into a text: `term.map(|value| format!(…))`"
)]
pub trait StatusText<K> {
    /// The text.
    #[doc(hidden)]
    fn status_text(&self) -> String;
}

/// The text of what can be displayed.
#[doc(hidden)]
pub enum Displayed {}

/// The text of `()`.
#[doc(hidden)]
pub enum Untold {}

impl<T: Display> StatusText<Displayed> for T {
    fn status_text(&self) -> String {
        self.to_string()
    }
}

impl StatusText<Untold> for () {
    fn status_text(&self) -> String {
        String::new()
    }
}

/// Looks at a term: gives state and text.
pub(crate) type Look = Rc<dyn Fn(&mut Looking<'_>) -> (&'static str, String)>;

impl Ci {
    /// Shows how this term stands as a status of the pipeline, under this name; the value is its text, and `()` has none. A second one of
    /// the same name is an error.
    #[track_caller]
    pub fn status<T: StatusText<K> + 'static, K>(&self, name: impl Into<String>, term: Term<T>) {
        let mark = std::panic::Location::caller();
        let look = move |looking: &mut Looking<'_>| {
            let shown = |value: T| guarded(|| value.status_text());
            match term.look(looking).and_then(shown).map_or_else(Trouble::state, TermState::Ok) {
                TermState::Ok(text) => ("ok", text),
                TermState::Skipped(text) => ("skipped", text),
                TermState::Pending(text) => ("pending", text),
                TermState::Failed(text) => ("failed", text),
            }
        };
        let name = name.into();
        let mut shared = self.shared.borrow_mut();
        if shared.terms.iter().any(|(other, _)| *other == name) {
            let message = format!("the status `{name}` is there twice");
            shared.fault("status-twice", message, "the second one", "give each status a name of its own", mark, &[]);
            return;
        }
        shared.terms.push((name, Rc::new(look)));
    }
}

impl Ci {
    /// Looks at all statuses; called once, when the program has added what it adds. Their questions are among the others
    /// afterwards.
    pub(crate) fn look_at_statuses(&self) {
        let terms = std::mem::take(&mut self.shared.borrow_mut().terms);
        self.shared.borrow_mut().is_complete = true;
        for (name, look) in terms {
            let mut looking = Looking { ci: self, jobs: BTreeSet::new() };
            let (state, text) = look(&mut looking);
            let jobs: Vec<Json> = looking.jobs.into_iter().map(Json::Text).collect();
            let mut entries = vec![("state".to_owned(), state.into())];
            if !text.is_empty() {
                entries.push(("text".to_owned(), text.replace('\n', " ").into()));
            }
            if !jobs.is_empty() {
                entries.push(("jobs".to_owned(), Json::List(jobs)));
            }
            self.shared.borrow_mut().statuses.insert(name, Json::Object(entries));
        }
    }
}

#[cfg(test)]
mod tests;
