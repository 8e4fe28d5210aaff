//! What counts as a literal of the file, and may therefore stand in a script: what its author wrote there, and never what an event, a
//! parameter or another job says.

use expression::{ContextPath, Expression, Template};

use super::files::Source;
use super::jobs::{Origin, Surroundings};
use super::texts::AtPlan;
use crate::tree::{Entry, Node};

/// Who may have written a variable, from the one whose word counts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Step,
    Job,
    Pipeline,
}

/// The literals that a step's script may read.
pub(crate) struct Literals<'a> {
    /// The step's variables, as written.
    of_step: &'a [Entry],
    job: &'a Source<'a>,
    around: &'a Surroundings<'a>,
    /// Of the job's matrix.
    origin: Origin,
}

impl<'a> Literals<'a> {
    /// Those of the step `node`.
    pub(crate) fn of_step(node: &'a Node, job: &'a Source<'a>, around: &'a Surroundings<'a>, origin: Origin) -> Self {
        let of_step = node.get("env").and_then(Node::entries).unwrap_or_default();
        Self { of_step, job, around, origin }
    }

    /// What an expression comes to, if all that it reads is known and of the file: of variables, those that are finished in `at`. What
    /// a program wrote may come from anywhere, so of its texts only those count that no shell reads as anything but a word.
    pub(crate) fn value(&self, expression: &Expression, at: &AtPlan<'_>) -> Option<String> {
        let paths = expression.context_paths();
        let is_known = |path: &ContextPath| {
            let text = path.name(0).and_then(|name| at.env.get(name));
            &*path.context != "env" || text.is_some_and(|text| text.as_plain().is_some())
        };
        let holds = paths.iter().all(is_known) && self.hold_parts(&expression.functions(), &paths, Some(Level::Step));
        let value = holds.then(|| expression.evaluate(at).ok()).flatten()?.to_text().into_owned();
        let is_word = || value.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-/:@+,%".contains(letter));
        (!self.around.is_of_program(self.job) || is_word()).then_some(value)
    }

    /// The same of parts that see the variables of `from` and behind it; none of `None`.
    fn hold_parts(&self, functions: &[&str], paths: &[ContextPath], from: Option<Level>) -> bool {
        functions.iter().all(|function| is_pure(function))
            && paths.iter().all(|path| match &*path.context {
                "matrix" => self.origin == Origin::File,
                "env" => path.name(0).zip(from).is_some_and(|(name, from)| self.is_literal(name, from)),
                _ => false,
            })
    }

    /// Whether the variable, as it is seen from there, was written without anything from outside.
    fn is_literal(&self, name: &str, from: Level) -> bool {
        let Some((level, entry)) = self.written(name, from) else { return false };
        let written = entry.value.scalar_text().unwrap_or_default();
        // A step's variable reads those of the job, a job's those of the pipeline, and these none.
        let next = match level {
            Level::Step => Some(Level::Job),
            Level::Job => Some(Level::Pipeline),
            Level::Pipeline => None,
        };
        !Template::is_needed(written)
            || Template::parse(written)
                .is_ok_and(|template| self.hold_parts(&template.functions(), &template.context_paths(), next))
    }

    fn written(&self, name: &str, from: Level) -> Option<(Level, &Entry)> {
        let is_it = |entry: &&Entry| entry.name() == Some(name);
        let of_step = || self.of_step.iter().find(is_it).map(|entry| (Level::Step, entry));
        let of_job = || {
            let entries = self.job.body.get("env").and_then(Node::entries).unwrap_or_default();
            entries.iter().find(is_it).map(|entry| (Level::Job, entry))
        };
        let of_pipeline = || self.around.env.iter().copied().find(is_it).map(|entry| (Level::Pipeline, entry));
        match from {
            Level::Step => of_step().or_else(of_job).or_else(of_pipeline),
            Level::Job => of_job().or_else(of_pipeline),
            Level::Pipeline => of_pipeline(),
        }
    }
}

fn is_pure(function: &str) -> bool {
    !expression::WORKFLOW_FUNCTIONS.iter().any(|known| known.name == function)
}
