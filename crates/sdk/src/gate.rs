//! Gates: jobs that wait for a person, and what the person filled in as typed inputs of other jobs.

use std::marker::PhantomData;
use std::panic::Location;

use crate::ci::Ci;
use crate::condition::Condition;
use crate::data::{DecodeError, Schema};
use crate::fields::{self, Fill};
use crate::inputs::{Inputs, Output, Reading, Source, Sources};
use crate::job::{Job, NeedList, Needs};
use crate::json::Json;
use crate::mark::Mark;
use crate::scope::nameable;
use crate::term::Term;

/// A job that only waits for a person's approval.
#[derive(Clone)]
pub struct Gate {
    job: Job,
}

/// Something that a person fills in with the approval: an input for other jobs.
pub struct Answer<T> {
    job: Job,
    name: String,
    default: Option<Json>,
    help: Option<String>,
    mark: Mark,
    is: PhantomData<fn() -> T>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        let Self { job, name, default, help, mark, .. } = self;
        Self {
            job: job.clone(),
            name: name.clone(),
            default: default.clone(),
            help: help.clone(),
            mark,
            is: PhantomData,
        }
    }
}

impl Ci {
    /// Adds a job that waits for a person's approval; jobs that need it wait too, and are skipped if the person says no. A
    /// name with letters that a job's name cannot have is shown as it is, and the job is named without them: `ship?` is
    /// the job `ship-gate`, so that there can be a job `ship` behind it.
    #[track_caller]
    pub fn gate(&self, name: &str) -> Gate {
        match identifier(name) {
            id if id == name => Gate { job: self.job(id).gate("") },
            id => Gate { job: self.job(format!("{id}-gate")).gate("").title(name) },
        }
    }
}

/// The text as a name: letters that names cannot have become one `-`, and none at the ends.
fn identifier(text: &str) -> String {
    let parts = nameable(text);
    let name = parts.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    match name.as_bytes().first() {
        Some(first) if first.is_ascii_digit() => format!("_{name}"),
        Some(_) => name,
        None => "_".to_owned(),
    }
}

impl Gate {
    /// What is asked; may hold `${{ }}` of jobs that it needs.
    #[track_caller]
    pub fn prompt(self, text: impl Into<String>) -> Self {
        Self { job: self.job.gate(text) }
    }

    /// Jobs that must have passed before anybody is asked.
    #[track_caller]
    pub fn needs(self, needs: impl Needs) -> Self {
        Self { job: self.job.needs(needs) }
    }

    /// The condition without which nobody is asked, and what needs the gate is skipped.
    #[track_caller]
    pub fn when(self, condition: impl Into<Condition>) -> Self {
        Self { job: self.job.when(condition) }
    }

    /// Something to fill in, under this name: a `String`, a number, a `bool`, an enum without fields, or a tuple struct
    /// around one of these; another type does not compile.
    #[track_caller]
    pub fn field<T: Fill>(&self, name: &str) -> Answer<T> {
        let mark = Location::caller();
        let id = identifier(name);
        let help = (id != name).then(|| name.to_owned());
        if self.fields().iter().any(|(other, _)| *other == id) {
            let message = format!("the gate `{}` has the field `{id}` twice", self.job.name());
            let mut shared = self.job.ci.shared.borrow_mut();
            shared.fault("field-twice", message, "the second one", "give each field a name of its own", mark, &[]);
        }
        let answer = Answer { job: self.job.clone(), name: id, default: None, help, mark, is: PhantomData };
        answer.write();
        answer
    }

    fn fields(&self) -> Vec<(String, Json)> {
        let shared = self.job.ci.shared.borrow();
        let gate = shared.jobs[self.job.index].settings.get("gate");
        gate.and_then(|gate| gate.get("fields")).map(|fields| fields.entries().to_vec()).unwrap_or_default()
    }

    /// The job that waits, to say more of it.
    #[must_use]
    pub fn job(&self) -> Job {
        self.job.clone()
    }

    /// How the gate stands.
    #[must_use]
    pub fn term(&self) -> Term<()> {
        self.job.term()
    }
}

impl Needs for Gate {
    fn needs(&self, out: &mut NeedList) {
        Needs::needs(&self.job, out);
    }
}

impl Inputs for Gate {
    type Values = ();

    fn sources(&self, out: &mut Sources) {
        self.job.sources(out);
    }

    fn read(sources: &mut Reading<'_>) -> Result<(), DecodeError> {
        <Job as Inputs>::read(sources)
    }
}

impl<T: Fill> Answer<T> {
    /// Taken when nothing is filled in. Without it the field must be filled in.
    pub fn default(mut self, value: impl Into<T>) -> Self {
        self.default = Some(value.into().to_json());
        self.write();
        self
    }

    /// Shown beside the field.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self.write();
        self
    }

    /// What was filled in.
    #[must_use]
    pub fn output(&self) -> Output<T> {
        let schema = Schema::of::<T>().digest();
        let source = Source { job: self.job.name(), output: Some(self.name.clone()), schema };
        Output { source, is: PhantomData }
    }

    /// What was filled in, as a term.
    #[must_use]
    pub fn term(&self) -> Term<T> {
        self.output().term()
    }

    /// Writes the field, as it stands, to the gate.
    fn write(&self) {
        let form = fields::form(T::FIELD, self.default.clone(), self.help.clone());
        let mut shared = self.job.ci.shared.borrow_mut();
        let gate = shared.entry(self.job.index, "gate", Json::Object(Vec::new()), self.mark);
        let Json::Object(gate) = gate else { return };
        let position = gate.iter().position(|(key, _)| key == "fields").unwrap_or_else(|| {
            gate.push(("fields".to_owned(), Json::Object(Vec::new())));
            gate.len() - 1
        });
        let Json::Object(fields) = &mut gate[position].1 else { return };
        match fields.iter_mut().find(|(name, _)| *name == self.name) {
            Some((_, field)) => *field = form,
            None => fields.push((self.name.clone(), form)),
        }
    }
}

impl<T> Needs for Answer<T> {
    fn needs(&self, out: &mut NeedList) {
        Needs::needs(&self.job, out);
    }
}

impl<T: Fill> Inputs for Answer<T> {
    type Values = T;

    fn sources(&self, out: &mut Sources) {
        self.output().sources(out);
    }

    fn read(sources: &mut Reading<'_>) -> Result<T, DecodeError> {
        <Output<T> as Inputs>::read(sources)
    }
}

#[cfg(test)]
mod tests;
