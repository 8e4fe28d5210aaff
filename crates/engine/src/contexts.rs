//! What a job's `if`, its gate's prompt and its concurrency group can see: contexts and status functions.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use expression::{CallError, Condition, ContextPath, Environment, Object, Template, Value};
use graph::{Carries, Ending, JobName, NeedResult, Text};

use crate::build::{Build, COMING, Halt, Slot, SlotIndex};

/// The world as one job sees it once its needs have ended.
pub(crate) struct JobContexts<'a> {
    build: &'a Build,
    slot: &'a Slot,
    event: OnceCell<Value>,
    params: OnceCell<Value>,
    needs: OnceCell<Value>,
    matrix: OnceCell<Value>,
    env: OnceCell<Value>,
    gate: OnceCell<Value>,
    job: OnceCell<Value>,
    about_build: OnceCell<Value>,
}

impl<'a> JobContexts<'a> {
    pub fn new(build: &'a Build, index: SlotIndex) -> Self {
        let slot = build.slot(index);
        Self {
            build,
            slot,
            event: OnceCell::new(),
            params: OnceCell::new(),
            needs: OnceCell::new(),
            matrix: OnceCell::new(),
            env: OnceCell::new(),
            gate: OnceCell::new(),
            job: OnceCell::new(),
            about_build: OnceCell::new(),
        }
    }

    /// Whether a condition holds.
    pub fn holds(&self, condition: &str) -> Result<bool, String> {
        let parsed = Condition::parse(condition).map_err(|error| error.to_string())?;
        self.check_variables(&parsed.context_paths())?;
        parsed.is_true(self).map_err(|error| error.to_string())
    }

    /// A text with its expressions evaluated.
    pub fn text(&self, text: &Text) -> Result<Arc<str>, String> {
        match text {
            Text::Plain(text) => Ok(Arc::from(&**text)),
            Text::Template(template) => {
                let parsed = Template::parse(template).map_err(|error| error.to_string())?;
                self.check_variables(&parsed.context_paths())?;
                parsed.evaluate(self).map(Arc::from).map_err(|error| error.to_string())
            }
        }
    }

    /// Refuses to read variables that only a worker knows: they would be empty. All others are those of the job, by their exact names,
    /// as the worker has them.
    fn check_variables(&self, paths: &[ContextPath]) -> Result<(), String> {
        let env = &self.slot.job.env;
        let is_unfinished = |text: &&Text| text.as_plain().is_none();
        for path in paths.iter().filter(|path| &*path.context == "env") {
            let Some(name) = path.name(0) else {
                match env.iter().find(|(_, text)| is_unfinished(text)) {
                    Some((name, _)) => return Err(unfinished(name)),
                    None => continue,
                }
            };
            match env.get(name) {
                None => return Err(unset(name)),
                Some(text) if is_unfinished(&text) => return Err(unfinished(name)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn endings(&self) -> impl Iterator<Item = Ending> {
        let needs = self.slot.needs.iter().filter(|&&needed| needed < COMING);
        needs.filter_map(|&needed| self.build.slot(needed).ending())
    }

    fn is_success(&self) -> bool {
        !self.slot.flags.after_failure
            && self.endings().all(|ending| matches!(ending, Ending::Passed | Ending::PassedWithWarnings))
    }

    fn needs(&self) -> Value {
        Value::from(&graph::legs::context(&need_results(self.build, self.slot, Carries::Order)))
    }
}

/// What came along the edges of a job, those that carry at least `carries`; legs of a matrix also together, under their id.
pub(crate) fn need_results(build: &Build, slot: &Slot, carries: Carries) -> BTreeMap<JobName, NeedResult> {
    let ended = slot.job.needs.iter().zip(&slot.needs).filter_map(|(need, &needed)| {
        let is_carried = need.carries >= carries && needed < COMING;
        is_carried.then(|| Some((need, build.slot(needed).end.as_ref()?))).flatten()
    });
    let mut results: BTreeMap<JobName, NeedResult> = ended
        .map(|(need, end)| {
            let outputs = match &end.outcome {
                graph::Outcome::Passed { outputs } if need.carries >= Carries::Outputs => outputs.clone(),
                _ => BTreeMap::new(),
            };
            let artifacts = if need.carries >= Carries::Artifacts { end.artifacts.clone() } else { BTreeMap::new() };
            (need.job.clone(), NeedResult { result: end.outcome.word().to_owned(), outputs, artifacts })
        })
        .collect();
    let order_of = |name: &JobName| build.index_of.get(name).map_or(u32::MAX, |&index| build.slot(index).job.order);
    graph::legs::join(&mut results, order_of);
    results
}

fn unfinished(variable: &str) -> String {
    format!(
        "`env.{variable}` has expressions of its own, which only a worker evaluates, and none runs the job yet: write them here"
    )
}

fn unset(variable: &str) -> String {
    let advice = match graph::text::instead_of_variable(variable) {
        Some(context) => format!("read `{context}`"),
        None => "set it in the `env` of the job or of the pipeline".to_owned(),
    };
    format!(
        "no `env` sets `{variable}`, and what a worker has of its own is not known before it runs the job: {advice}"
    )
}

fn as_value(shape: &impl serde::Serialize) -> Value {
    // Our types serialize to JSON whatever they hold.
    Value::from(&serde_json::to_value(shape).expect("the words of a graph always serialize"))
}

impl Environment for JobContexts<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        let slot = self.slot;
        let value = match name {
            "event" => self.event.get_or_init(|| Value::from(&self.build.event.context())),
            "params" => self.params.get_or_init(|| as_value(&self.build.event.params)),
            "needs" => self.needs.get_or_init(|| self.needs()),
            "matrix" => self.matrix.get_or_init(|| as_value(&slot.job.matrix)),
            "env" => self.env.get_or_init(|| {
                let plain = slot
                    .job
                    .env
                    .iter()
                    .filter_map(|(name, text)| Some((name.as_str().into(), text.as_plain()?.into())));
                Value::Object(Arc::new(Object::with_exact_names(plain)))
            }),
            "gate" => self.gate.get_or_init(|| match &slot.gate {
                crate::build::GateState::Answered(answer) => as_value(&**answer),
                _ => Value::object::<&str>([]),
            }),
            "job" => self.job.get_or_init(|| {
                Value::object([("id", Value::from(slot.name.id())), ("name", Value::from(slot.name.as_str()))])
            }),
            "build" => {
                self.about_build.get_or_init(|| Value::object([("number", Value::from(self.build.id.0 as f64))]))
            }
            _ => return None,
        };
        Some(value.clone())
    }

    fn call(&self, function: &str, _arguments: &[Value]) -> Result<Value, CallError> {
        let truth = match function {
            "always" => true,
            "success" => self.is_success(),
            "failure" => self.slot.flags.after_failure,
            "cancelled" => {
                matches!(self.build.halt, Some(Halt::Canceled { .. }))
                    || self.endings().any(|ending| ending == Ending::Canceled)
            }
            _ => return Err(CallError::Unavailable),
        };
        Ok(Value::from(truth))
    }
}
