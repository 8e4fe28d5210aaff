//! Texts with `${{ }}`: evaluated at once where everything they read is known while the graph is made.

use std::collections::BTreeMap;

use expression::{CallError, Condition, ContextPath, Environment, Error, Template, Value, WORKFLOW_FUNCTIONS};
use graph::Text;

/// What becomes of texts that read the event or its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventTexts {
    /// They are finished with the event's values.
    #[default]
    Finished,
    /// They stay as written wherever the graph may hold an expression, so that they say the same of every event; so do
    /// conditions of steps, and those of jobs that hold. Jobs whose conditions do not hold, and what must be plain, are decided for this event.
    AsWritten,
}

/// What is known of the event, for all jobs.
pub(crate) struct EventValues {
    pub texts: EventTexts,
    pub event: Value,
    pub params: Value,
}

/// What the expressions of one job leg may read while the graph is made.
#[derive(Clone, Copy)]
pub(crate) struct AtPlan<'a> {
    pub values: &'a EventValues,
    /// The leg's coordinates, an object.
    pub matrix: &'a Value,
    /// Environment variables; only those with a finished text are known.
    pub env: &'a BTreeMap<String, Text>,
    /// The same, finished with the event's values if [`EventTexts`] leaves them as written.
    pub env_now: &'a BTreeMap<String, Text>,
    pub texts: EventTexts,
}

impl Environment for AtPlan<'_> {
    fn context(&self, name: &str) -> Option<Value> {
        match name {
            "event" => Some(self.values.event.clone()),
            "params" => Some(self.values.params.clone()),
            "matrix" => Some(self.matrix.clone()),
            "env" => {
                let plain =
                    self.env.iter().filter_map(|(name, text)| Some((name.as_str().into(), text.as_plain()?.into())));
                Some(Value::Object(std::sync::Arc::new(expression::Object::with_exact_names(plain))))
            }
            _ => None,
        }
    }

    fn call(&self, _function: &str, _arguments: &[Value]) -> Result<Value, CallError> {
        Err(CallError::Unavailable)
    }
}

impl AtPlan<'_> {
    /// The same for what must be decided now.
    pub(crate) fn now(self) -> Self {
        Self { env: self.env_now, texts: EventTexts::Finished, ..self }
    }

    /// Whether everything these paths read, with these functions, is known.
    fn knows(&self, paths: &[ContextPath], functions: &[&str]) -> bool {
        let calls_world = functions.iter().any(|name| WORKFLOW_FUNCTIONS.iter().any(|known| known.name == *name));
        !calls_world
            && paths.iter().all(|path| match &*path.context {
                "event" | "params" => self.texts == EventTexts::Finished,
                "matrix" => true,
                "env" => path.name(0).and_then(|name| self.env.get(name)).is_some_and(|text| text.as_plain().is_some()),
                _ => false,
            })
    }

    /// The text, finished if that can be; as written where it must wait or does not parse (which was told before).
    ///
    /// # Errors
    /// The evaluation's, in the text.
    pub(crate) fn text(&self, written: &str) -> Result<Text, Error> {
        if !Template::is_needed(written) {
            return Ok(Text::Plain(written.into()));
        }
        match Template::parse(written) {
            Ok(template) if self.knows(&template.context_paths(), &template.functions()) => {
                template.evaluate(self).map(Text::from)
            }
            Ok(_) => Ok(Text::Template(written.into())),
            Err(_) => Ok(Text::Plain("".into())),
        }
    }

    /// Whether all that a text reads is of the contexts that the graph's making knows, so that what keeps it from being
    /// finished is a variable whose own text is not finished. Anything else was told by `check.rs`.
    pub(crate) fn reads_only_variables_beyond(&self, written: &str) -> bool {
        Template::parse(written).is_ok_and(|template| {
            let known = super::keys::Phase::Plan.contexts();
            template.context_paths().iter().all(|path| known.contains(&&*path.context))
                && template.functions().iter().all(|name| WORKFLOW_FUNCTIONS.iter().all(|other| other.name != *name))
        })
    }

    /// The first of these paths that reads a variable whose own text is not finished, with that text.
    pub(crate) fn unfinished<'p>(&self, paths: &'p [ContextPath]) -> Option<(&'p ContextPath, &str)> {
        paths.iter().filter(|path| &*path.context == "env").find_map(|path| match self.env_now.get(path.name(0)?)? {
            Text::Plain(_) => None,
            Text::Template(written) => Some((path, &**written)),
        })
    }

    /// The first of these paths that reads variables whose names are not written there, if one of them is not finished: that one.
    pub(crate) fn unfinished_of_all<'p>(&self, paths: &'p [ContextPath]) -> Option<(&'p ContextPath, &str)> {
        let path = paths.iter().find(|path| &*path.context == "env" && path.name(0).is_none())?;
        let (name, _) = self.env_now.iter().find(|(_, text)| text.as_plain().is_none())?;
        Some((path, name))
    }

    /// The first of these paths that reads a variable which no `env` sets.
    pub(crate) fn unset<'p>(&self, paths: &'p [ContextPath]) -> Option<&'p ContextPath> {
        let is_unset = |path: &&ContextPath| path.name(0).is_some_and(|name| !self.env_now.contains_key(name));
        paths.iter().filter(|path| &*path.context == "env").find(is_unset)
    }

    /// What a condition comes to now.
    ///
    /// # Errors
    /// The evaluation's, in the text.
    pub(crate) fn decide(&self, written: &str) -> Result<Decision, Error> {
        let Ok(condition) = Condition::parse(written) else { return Ok(Decision::Holds) };
        let Some(expression) = condition.expression() else { return Ok(Decision::Holds) };
        let (paths, functions) = (condition.context_paths(), condition.functions());
        if !self.now().knows(&paths, &functions) {
            return Ok(Decision::Later(expression.text().into()));
        }
        Ok(match condition.is_true(&self.now())? {
            true if !self.knows(&paths, &functions) => Decision::Later(expression.text().into()),
            true => Decision::Holds,
            false if !self.knows(&paths, &functions) => Decision::FailsNow(expression.text().into()),
            false => Decision::Fails(expression.text().to_owned()),
        })
    }
}

/// What is known of a condition while the graph is made.
pub(crate) enum Decision {
    /// It holds.
    Holds,
    /// It does not; the expression as written.
    Fails(String),
    /// It does not for this event, and what reads the event stays as written; the expression.
    FailsNow(Box<str>),
    /// It reads what is known only later; the expression as written.
    Later(Box<str>),
}
