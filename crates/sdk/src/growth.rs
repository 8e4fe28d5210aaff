//! What waits for results: closures that add jobs once a value is there, and handles to what they add.
//!
//! As long as the value is not there, a hole stands in its place. Nothing here tells a program that something is still
//! missing: a closure runs or it does not, and running adds jobs only, so the order in which results arrive changes nothing.
//!
//! A growth that can never be, because a job it waits for did not pass, is closed: its hole is gone, its closure never runs,
//! and a job that needs what it would have added needs the awaited jobs instead, which skips it because of them.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;

use crate::ci::{Ci, Evaluation, Need, NeedOn, Scope};
use crate::data::{Data, DecodeError};
use crate::inputs::{Inputs, Reading, Source, Sources};
use crate::job::{Job, NeedList, Needs};
use crate::json::Json;
use crate::mark::Mark;

/// A closure that adds jobs once results are there.
pub(crate) struct Growth {
    /// The hole's name as long as there is one; it holds no `/`.
    pub name: String,
    /// The jobs whose outcomes it waits for.
    pub after: Vec<String>,
    /// The values that its closure takes.
    pub sources: Vec<Source>,
    pub mark: Mark,
    pub state: State,
    /// The jobs whose outcomes must be known, or what it adds is not reached.
    pub known: Rc<[String]>,
    /// The jobs that were added inside its closure, also by growths inside it.
    pub jobs: Vec<usize>,
    /// The growths inside its closure, at any depth.
    pub inner: Vec<usize>,
}

/// How far a growth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A result is not there yet.
    Waiting,
    /// The closure has run.
    Grown,
    /// The closure will never run.
    Closed,
}

/// How a job ended, with the value if it passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended<O = ()> {
    /// It passed with this value.
    Passed(O),
    /// It did not pass.
    Failed {
        /// By what.
        cause: Cause,
        /// The same for people: what the function said of its failure, or `step 1 ended with exit code 2`.
        message: String,
    },
    /// It did not run.
    Skipped {
        /// Why, for people.
        reason: String,
    },
    /// Somebody canceled it.
    Canceled {
        /// Who or what.
        by: String,
    },
}

/// What made a job fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A step ended with a status other than zero.
    Step {
        /// Its number in the job, from 0.
        step: u16,
        /// The exit code, or 128 + the signal's number.
        exit: i32,
    },
    /// Time ran out.
    Timeout {
        /// The limit that was reached, in milliseconds.
        limit_ms: u64,
    },
    /// Not the job's fault.
    Infra,
    /// What it asks for is not set up: a secret without a value.
    Setup,
    /// Its worker fell silent.
    Lost,
}

impl<O> Ended<O> {
    /// The same with the value turned into another.
    pub(crate) fn map<P>(self, turn: impl FnOnce(O) -> P) -> Ended<P> {
        match self {
            Self::Passed(value) => Ended::Passed(turn(value)),
            Self::Failed { cause, message } => Ended::Failed { cause, message },
            Self::Skipped { reason } => Ended::Skipped { reason },
            Self::Canceled { by } => Ended::Canceled { by },
        }
    }
}

impl Ended<Json> {
    /// Reads an answer to `{"outcome": JOB}`; the value is the job's outputs.
    ///
    /// # Errors
    /// A sentence, if it cannot be known how the job ended.
    pub fn read(answer: &Json) -> Result<Self, String> {
        let Some(outcome) = answer.get("outcome") else {
            let reason = answer.get("unknown").and_then(Json::as_str).unwrap_or("the answer cannot be read");
            return Err(reason.to_owned());
        };
        let text = |name: &str| outcome.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        match text("outcome").as_str() {
            "passed" => Ok(Self::Passed(outcome.get("outputs").cloned().unwrap_or_default())),
            "skipped" => Ok(Self::Skipped { reason: skip_reason(&text("reason"), &text) }),
            "failed" => failed(outcome, &text),
            other => Err(format!("there is no outcome `{other}`")),
        }
    }
}

fn skip_reason(reason: &str, text: &dyn Fn(&str) -> String) -> String {
    match reason {
        "condition" => format!("its condition does not hold: {}", text("text")),
        "need" => format!("because of {}", text("because")),
        "not_wanted" => text("text"),
        "dropped" => "the pipeline no longer holds it".to_owned(),
        "rejected" => format!("rejected by {}", text("by")),
        other => other.to_owned(),
    }
}

fn failed(outcome: &Json, text: &dyn Fn(&str) -> String) -> Result<Ended<Json>, String> {
    let number = |name: &str| if let Some(Json::Int(number)) = outcome.get(name) { *number } else { 0 };
    let (cause, message) = match text("cause").as_str() {
        "step" => {
            let (step, exit) = (number("step") as u16, number("exit") as i32);
            let said = Some(text("message")).filter(|message| !message.is_empty());
            let said = said.unwrap_or_else(|| format!("step {} ended with exit code {exit}", u32::from(step) + 1));
            (Cause::Step { step, exit }, said)
        }
        "timeout" => {
            let limit_ms = number("limit_ms") as u64;
            (Cause::Timeout { limit_ms }, format!("it ran longer than {}", Milliseconds(limit_ms)))
        }
        "infra" => (Cause::Infra, text("message")),
        "setup" => (Cause::Setup, text("message")),
        "lost" => (Cause::Lost, "its worker fell silent".to_owned()),
        "canceled" => return Ok(Ended::Canceled { by: text("by") }),
        other => return Err(format!("there is no cause `{other}`")),
    };
    Ok(Ended::Failed { cause, message })
}

/// A length of time for people: `90 s`, `20 min`.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 60_000 == 0 => write!(f, "{} min", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{} s", ms / 1000),
            ms => write!(f, "{ms} ms"),
        }
    }
}

/// What a closure added, or will add: another job may need it, and take values out of it.
pub struct Grown<R> {
    pub(crate) ci: Ci,
    pub(crate) growth: usize,
    /// What the closure returned, once it has run.
    result: Option<R>,
}

impl<R: Clone> Clone for Grown<R> {
    fn clone(&self) -> Self {
        Self { ci: self.ci.clone(), growth: self.growth, result: self.result.clone() }
    }
}

impl<R> Needs for Grown<R> {
    fn needs(&self, out: &mut NeedList) {
        out.0.push(NeedOn::Growth(self.growth));
    }
}

impl<R: Inputs> Inputs for Grown<R> {
    type Values = R::Values;

    fn sources(&self, out: &mut Sources) {
        out.growths.push(self.growth);
        if let Some(result) = &self.result {
            out.known.extend_from_slice(&self.ci.shared.borrow().growths[self.growth].known);
            result.sources(out);
        }
    }

    fn read(sources: &mut Reading<'_>) -> Result<R::Values, DecodeError> {
        R::read(sources)
    }
}

impl Ci {
    /// Adds jobs that depend on values: once all `inputs` have passed, `grow` is called with them. Until then a hole stands
    /// here, which jobs can need through the handle. If one of them does not pass, `grow` is never called, and what needs
    /// the handle is skipped because of that job.
    #[track_caller]
    pub fn then<I: Inputs, R>(&self, inputs: I, grow: impl FnOnce(&Ci, I::Values) -> R) -> Grown<R> {
        let mark = Location::caller();
        let sources = Sources::of(&inputs);
        let growth = self.begin(None, &sources, mark);
        let inside = self.inside(growth);
        let result = self.values(growth, &sources, I::read).map(|values| self.aside(|| grow(&inside, values)));
        Grown { ci: self.clone(), growth, result }
    }

    /// Adds jobs that depend on how a job ended, whatever its outcome: once it has, `grow` is called.
    #[track_caller]
    pub fn after<O: Data, V, R>(&self, job: &Job<O, V>, grow: impl FnOnce(&Ci, Ended<O>) -> R) -> Grown<R> {
        let mark = Location::caller();
        let source = job.output_of_function().source;
        let growth = self.begin_after(source.clone(), mark);
        let inside = self.inside(growth);
        let result = self.ended(growth, &source).map(|ended| self.aside(|| grow(&inside, ended)));
        Grown { ci: self.clone(), growth, result }
    }

    /// Adds jobs for each item of a list that is not there yet. Jobs that `grow` adds are named `name/…`, so the item's
    /// name is enough for them; they must differ. The handle gives what `grow` returned for each item, in their order.
    #[track_caller]
    pub fn for_each<T, I, R>(&self, name: &str, list: I, mut grow: impl FnMut(&Ci, T) -> R) -> Grown<Vec<R>>
    where
        I: Inputs<Values = Vec<T>>,
    {
        let mark = Location::caller();
        let sources = Sources::of(&list);
        let growth = self.begin(Some(name), &sources, mark);
        let mut inside = self.inside(growth);
        inside.scope.prefix.push_str(name);
        inside.scope.prefix.push('/');
        let items = self.values(growth, &sources, I::read);
        let mut grow = |items: Vec<T>| items.into_iter().map(|item| grow(&inside, item)).collect();
        let result = items.map(|items| self.aside(|| grow(items)));
        Grown { ci: self.clone(), growth, result }
    }

    /// What closures of this growth add their jobs to.
    fn inside(&self, growth: usize) -> Ci {
        let mut scope = self.scope.clone();
        scope.growths.push(growth);
        scope.known = Rc::clone(&self.shared.borrow().growths[growth].known);
        Ci { shared: self.shared.clone(), scope }
    }

    /// Notes a growth that waits for all of these, and how far it is.
    fn begin(&self, group: Option<&str>, sources: &Sources, mark: Mark) -> usize {
        let mut shared = self.shared.borrow_mut();
        let mut known = sources.known.clone();
        let (mut after, mut state) = (Vec::new(), State::Grown);
        for growth in sources.growths.iter().map(|growth| &shared.growths[*growth]) {
            state = state.and(growth.state);
            if growth.state != State::Grown {
                after.extend_from_slice(&growth.after);
            }
        }
        for source in &sources.list {
            state = state.and(State::of(shared.ask(&source.job)));
            known.push(source.job.clone());
            after.push(source.job.clone());
        }
        after.sort_unstable();
        after.dedup();
        shared.add_growth(group, &self.scope, Waits { after, sources: sources.list.clone(), state, known }, mark)
    }

    /// Notes a growth that waits for a job to end somehow.
    fn begin_after(&self, source: Source, mark: Mark) -> usize {
        let mut shared = self.shared.borrow_mut();
        let job = source.job.clone();
        let state = if shared.ask(&job).is_some() { State::Grown } else { State::Waiting };
        let known = vec![job.clone()];
        shared.add_growth(None, &self.scope, Waits { after: vec![job], sources: vec![source], state, known }, mark)
    }

    /// The values, if all are there. If one does not decode, that is a diagnostic, and the growth is closed.
    fn values<V>(&self, growth: usize, sources: &Sources, read: Read<V>) -> Option<V> {
        let outputs = {
            let shared = self.shared.borrow();
            if shared.growths[growth].state != State::Grown {
                return None;
            }
            let answer = |source: &Source| (source.job.clone(), shared.outputs(&source.job));
            sources.list.iter().map(answer).collect::<Vec<_>>()
        };
        let outputs_of = |job: &str| {
            let outputs = outputs.iter().find(|(name, _)| name == job);
            outputs.map(|(_, outputs)| outputs.clone()).unwrap_or_default()
        };
        match read(&mut sources.reading(&outputs_of)) {
            Ok(values) => Some(values),
            Err(error) => self.refuse(growth, unreadable(&error)),
        }
    }

    fn ended<O: Data>(&self, growth: usize, source: &Source) -> Option<Ended<O>> {
        let answer = self.shared.borrow().answer(&source.job)?.clone();
        let ended = match Ended::read(&answer) {
            Ok(ended) => ended,
            Err(reason) => return self.refuse(growth, format!("how `{}` ended is not known: {reason}", source.job)),
        };
        let Ended::Passed(outputs) = &ended else { return Some(ended.map(|_| unreachable!("it did not pass"))) };
        match source.read(outputs) {
            Ok(value) => Some(Ended::Passed(value)),
            Err(error) => self.refuse(growth, unreadable(&error.in_field(&source.job))),
        }
    }

    /// Closes a growth whose value cannot be read, and says so at its place.
    fn refuse<V>(&self, growth: usize, message: String) -> Option<V> {
        let mut shared = self.shared.borrow_mut();
        shared.growths[growth].state = State::Closed;
        let mark = shared.growths[growth].mark;
        let help = "let the job hand on what the type says";
        shared.fault("value-unreadable", message, "its closure cannot be called", help, mark, &[]);
        None
    }
}

fn unreadable(error: &DecodeError) -> String {
    format!("the value that is waited for here cannot be read: {error}")
}

/// Reads values.
type Read<V> = fn(&mut Reading<'_>) -> Result<V, DecodeError>;

/// What a new growth waits for.
struct Waits {
    after: Vec<String>,
    sources: Vec<Source>,
    state: State,
    known: Vec<String>,
}

impl State {
    /// How far a growth is that waits for the success of a job with this answer.
    fn of(answer: Option<&Json>) -> Self {
        match answer {
            None => Self::Waiting,
            Some(answer) if is_passed(answer) => Self::Grown,
            Some(answer) if Ended::read(answer).is_ok() => Self::Closed,
            // That it cannot be known is told when the value is read.
            Some(_) => Self::Grown,
        }
    }

    /// How far a growth is that waits for two things: closed as soon as one of them is.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Closed, _) | (_, Self::Closed) => Self::Closed,
            (Self::Waiting, _) | (_, Self::Waiting) => Self::Waiting,
            (Self::Grown, Self::Grown) => Self::Grown,
        }
    }
}

/// Whether an answer says that the job passed.
pub(crate) fn is_passed(answer: &Json) -> bool {
    let word = answer.get("outcome").and_then(|outcome| outcome.get("outcome"));
    word.and_then(Json::as_str) == Some("passed")
}

/// The question how a job ended.
pub(crate) fn outcome_of(job: &str) -> Json {
    Json::object([("outcome", job.into())])
}

impl Evaluation {
    /// The answer to how a job ended, if there is one. Does not ask.
    pub(crate) fn answer(&self, job: &str) -> Option<&Json> {
        self.answers.get(&outcome_of(job).to_string())
    }

    /// How a job ended; asks if it is not known.
    pub(crate) fn ask(&mut self, job: &str) -> Option<&Json> {
        let question = outcome_of(job);
        let text = question.to_string();
        if !self.answers.contains_key(&text) {
            self.questions.insert(text, question);
            return None;
        }
        self.answers.get(&text)
    }

    /// What a job that has passed handed on.
    fn outputs(&self, job: &str) -> Json {
        match self.answer(job).map(Ended::read) {
            Some(Ok(Ended::Passed(outputs))) => outputs,
            _ => Json::Null,
        }
    }

    fn add_growth(&mut self, group: Option<&str>, scope: &Scope, waits: Waits, mark: Mark) -> usize {
        let index = self.growths.len();
        let name = match group {
            Some(name) => format!("{}{name}", scope.prefix),
            None => format!("then:{}", waits.after.first().map_or("", String::as_str)),
        };
        let name = self.hole_name(&name.replace('/', ":"));
        scope.growths.iter().for_each(|outer| self.growths[*outer].inner.push(index));
        let Waits { after, sources, state, known } = waits;
        let known = scope.known.iter().cloned().chain(known).collect();
        let growth = Growth { name, after, sources, mark, state, known, jobs: Vec::new(), inner: Vec::new() };
        self.growths.push(growth);
        index
    }

    /// `name`, or `name:2`, … if other growths have it.
    fn hole_name(&mut self, name: &str) -> String {
        let count = self.hole_names.entry(name.to_owned()).or_insert(0);
        *count += 1;
        if *count == 1 { name.to_owned() } else { format!("{name}:{count}") }
    }

    /// The holes, as they travel.
    pub(crate) fn holes(&mut self) -> Vec<Json> {
        let Self { growths, files, .. } = self;
        let waiting = growths.iter().filter(|growth| growth.state == State::Waiting);
        let hole = |growth: &Growth| {
            let after = growth.after.iter().map(|job| job.as_str().into()).collect();
            Json::object([
                ("name", growth.name.as_str().into()),
                ("after", Json::List(after)),
                ("@", files.json(growth.mark)),
            ])
        };
        waiting.map(hole).collect()
    }

    /// What must hold for a job that takes values out of growths, as an expression: a growth that is closed has none, also
    /// if the job that closed it may fail and so would let others go on.
    pub(crate) fn values_are_there(&self, job: usize) -> Option<String> {
        let mut terms: Vec<String> = Vec::new();
        for need in &self.jobs[job].needs {
            let NeedOn::Values(growth) = need.on else { continue };
            let growth = &self.growths[growth];
            for name in growth.after.iter().filter(|_| growth.state == State::Closed) {
                let awaited = self.by_name.get(name).map(|&index| &self.jobs[index].settings);
                let may_fail = awaited.and_then(|settings| settings.get("allow_failure")) == Some(&Json::Bool(true));
                // A name with `/` is no name in an expression: the index takes any.
                let term = format!("needs['{name}'].result == 'passed'");
                if may_fail && !terms.contains(&term) {
                    terms.push(term);
                }
            }
        }
        (!terms.is_empty()).then(|| terms.join(" && "))
    }

    /// The names that a need stands for, in the order of the program: a job or group, or for a growth its jobs, the holes
    /// inside it that are still there, and the jobs that keep it from ever growing.
    pub(crate) fn needed_names<'a>(&'a self, need: &'a Need) -> Vec<&'a str> {
        let growth = match &need.on {
            NeedOn::Name(name) => return vec![name],
            NeedOn::Growth(growth) | NeedOn::Values(growth) => *growth,
        };
        let mut names: Vec<&str> = Vec::new();
        for part in std::iter::once(growth).chain(self.growths[growth].inner.iter().copied()) {
            let part = &self.growths[part];
            match part.state {
                State::Waiting => names.push(&part.name),
                State::Closed => names.extend(part.after.iter().map(String::as_str)),
                State::Grown => {}
            }
        }
        names.extend(self.growths[growth].jobs.iter().map(|job| &*self.jobs[*job].name));
        names
    }
}

#[cfg(test)]
mod tests;
