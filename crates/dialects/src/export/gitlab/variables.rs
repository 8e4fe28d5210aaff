//! Which variable of GitLab's holds what a pipeline's text reads.
//!
//! Parameters, a gate's fields, axes and outputs are one space of names there, together with the variables that a job sets
//! and the secrets of the project, and one of the same name hides the other. So each has a name that nothing else has:
//! its own where that is free and one that a shell can read.

use std::collections::{BTreeMap, BTreeSet};

use graph::Text;

use crate::export::shell::readable;
use crate::export::texts::{Part, parts, single_path};
use crate::export::{Piece, Plan};

/// The names, by what they hold.
pub(super) struct Variables<'a> {
    params: BTreeMap<&'a str, String>,
    fields: BTreeMap<&'a str, String>,
    axes: BTreeMap<&'a str, String>,
    /// By the job's key, then the output.
    outputs: BTreeMap<(&'a str, &'a str), String>,
}

impl<'a> Variables<'a> {
    /// The names for a pipeline: those that people fill in come first.
    pub(super) fn of(plan: &'a Plan<'_>) -> Self {
        let mut taken: BTreeSet<String> = plan.env.keys().cloned().collect();
        for piece in &plan.jobs {
            taken.extend(piece.job.secrets.iter().cloned());
            let of_steps = piece.job.steps.iter().flat_map(|step| &step.env);
            let set = piece.job.env.iter().chain(of_steps).filter(|(name, value)| !is_itself(name, value));
            taken.extend(set.map(|(name, _)| name.clone()));
        }
        let mut free = |name: &str, wanted: &str| {
            let plain = readable(name);
            let base = if taken.contains(&plain) { readable(wanted) } else { plain };
            let numbered = (2..).map(|number: u64| format!("{base}_{number}"));
            let name = std::iter::once(base.clone()).chain(numbered).find(|name| taken.insert(name.clone()));
            name.unwrap_or(base)
        };
        let mut variables = Variables {
            params: plan.params.keys().map(|name| (name.as_str(), free(name, name))).collect(),
            fields: BTreeMap::new(),
            axes: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        for piece in &plan.jobs {
            for name in piece.job.gate.iter().flat_map(|gate| gate.fields.keys()) {
                variables.fields.entry(name).or_insert_with(|| free(name, name));
            }
        }
        for (name, _) in plan.jobs.iter().flat_map(|piece| &piece.axes) {
            variables.axes.entry(name).or_insert_with(|| free(name, name));
        }
        for piece in &plan.jobs {
            for name in &piece.job.outputs {
                variables.outputs.insert((&piece.key, name), free(name, &format!("{}_{name}", piece.key)));
            }
        }
        variables
    }

    /// Of a parameter of the pipeline.
    pub(super) fn param(&self, name: &str) -> String {
        self.params.get(name).cloned().unwrap_or_else(|| readable(name))
    }

    /// Of a field that a gate asks for; gates that ask for the same share it, since it holds for one job only.
    pub(super) fn field(&self, name: &str) -> String {
        self.fields.get(name).cloned().unwrap_or_else(|| readable(name))
    }

    /// Of an axis of a matrix, in the jobs that have it.
    pub(super) fn axis(&self, name: &str) -> String {
        self.axes.get(name).cloned().unwrap_or_else(|| readable(name))
    }

    /// Of an output.
    pub(super) fn output(&self, piece: &Piece, name: &str) -> String {
        self.outputs.get(&(piece.key.as_str(), name)).cloned().unwrap_or_else(|| self.other(name))
    }

    /// Of an output that no job here has.
    pub(super) fn other(&self, name: &str) -> String {
        readable(name)
    }
}

/// Whether a variable is set to what has the same name: `level: ${{ params.level }}`.
fn is_itself(name: &str, value: &Text) -> bool {
    let parts = parts(value);
    let mut parts = parts.iter().filter(|part| !matches!(part, Part::Plain("")));
    let (Some(Part::Expression(written)), None) = (parts.next(), parts.next()) else { return false };
    single_path(written).is_some_and(|names| names.last().copied() == Some(name))
}
