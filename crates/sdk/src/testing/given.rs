//! What a test says is known: an event, and results of jobs.

use std::collections::BTreeMap;

use crate::data::{Data, Schema};
use crate::inputs::{FIELD_OF_VALUE, Source, Sources, VALUE};
use crate::json::Json;

/// What a test says has happened.
#[derive(Clone, Debug)]
pub struct Event {
    entries: Vec<(String, Json)>,
    params: Vec<(String, Json)>,
    changed: Option<Vec<String>>,
    results: BTreeMap<String, Json>,
}

impl Event {
    fn new(kind: &str) -> Self {
        let entries = vec![("kind".to_owned(), kind.into()), ("commit".to_owned(), "0".repeat(40).into())];
        Self { entries, params: Vec::new(), changed: None, results: BTreeMap::new() }
    }

    fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.entries.retain(|(entry, _)| entry != name);
        self.entries.push((name.to_owned(), value.into()));
        self
    }

    /// These files differ from the base. Without this it is not known, and `changed` conditions hold.
    #[must_use]
    pub fn changed<T: Into<String>>(mut self, files: impl IntoIterator<Item = T>) -> Self {
        let mut files: Vec<String> = files.into_iter().map(Into::into).collect();
        files.sort();
        self.changed = Some(files);
        self
    }

    /// Who caused it.
    #[must_use]
    pub fn actor(self, name: &str) -> Self {
        self.with("actor", name)
    }

    /// The commit's message, or the pull request's title.
    #[must_use]
    pub fn message(self, text: &str) -> Self {
        self.with("message", text)
    }

    /// The branch that a pull request is to be merged into.
    #[must_use]
    pub fn into_branch(self, name: &str) -> Self {
        self.with("base", name)
    }

    /// The branch on which it happened.
    #[must_use]
    pub fn on_branch(self, name: &str) -> Self {
        self.with("branch", name)
    }

    /// What the one who started it filled in.
    #[must_use]
    pub fn param(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.params.push((name.to_owned(), value.into()));
        self
    }

    /// The job of this name has ended so. It must be there, from the start or once the pipeline has grown: [`evaluate`](super::evaluate) and
    /// [`run_fn`](super::run_fn) fail the test where none has the name.
    #[must_use]
    pub fn given(mut self, job: &str, result: Given) -> Self {
        self.results.insert(job.to_owned(), result.outcome);
        self
    }

    /// The event and what the binary itself would ask of the repository, as `Known` travels.
    pub(super) fn known(&self) -> Json {
        let mut entries = self.entries.clone();
        if !self.params.is_empty() {
            entries.push(("params".to_owned(), Json::Object(self.params.clone())));
        }
        let unknown = || Json::object([("unknown", "the test does not say".into())]);
        let changed = match &self.changed {
            Some(files) => Json::object([("files", files.clone().into())]),
            None => unknown(),
        };
        let branch = self.entries.iter().find(|(name, _)| name == "branch").map(|(_, branch)| branch.clone());
        let branches = Json::object([("branches", Json::List(branch.into_iter().collect()))]);
        let answers = vec![
            Json::List(vec!["changed_files".into(), changed]),
            Json::List(vec!["branches_holding".into(), branches]),
        ];
        Json::object([("event", Json::Object(entries)), ("answers", Json::List(answers))])
    }

    /// Answers the reply's questions from the results; says whether an answer is new.
    pub(super) fn answer(&self, reply: &Json, known: &mut Json) -> bool {
        let Json::Object(entries) = known else { return false };
        let Some((_, Json::List(answers))) = entries.iter_mut().find(|(name, _)| name == "answers") else {
            return false;
        };
        let before = answers.len();
        for question in reply.get("questions").map(Json::items).unwrap_or_default() {
            let job = question.get("outcome").and_then(Json::as_str);
            let Some(outcome) = job.and_then(|job| self.results.get(job)) else { continue };
            if !answers.iter().any(|pair| pair.items().first() == Some(question)) {
                let answer = Json::object([("outcome", outcome.clone())]);
                answers.push(Json::List(vec![question.clone(), answer]));
            }
        }
        answers.len() > before
    }

    /// The names of jobs that were given results.
    pub(super) fn given_names(&self) -> impl Iterator<Item = &str> {
        self.results.keys().map(String::as_str)
    }

    /// What a test has to say so that a function has its inputs.
    pub(super) fn missing_input(&self, sources: &Sources) -> String {
        let lacks = |source: &&Source| match self.results.get(&source.job) {
            None => true,
            Some(outcome) => {
                let name = source.name();
                outcome.get("outputs").and_then(|outputs| outputs.get(name)).is_none()
            }
        };
        let source = sources.list.iter().find(lacks).or(sources.list.first());
        let Some(Source { job, output, .. }) = source else { return "give its job a result".to_owned() };
        match output.as_deref().filter(|output| *output != FIELD_OF_VALUE) {
            Some(output) => format!("add `.given(\"{job}\", passed().output(\"{output}\", …))` to the event"),
            None => format!(
                "add `.given(\"{job}\", passed().value(&…))` to the event, with a value of what its function returns"
            ),
        }
    }

    /// The result that was given to a job, as an answer.
    pub(super) fn result_of(&self, job: &str) -> Json {
        match self.results.get(job) {
            Some(outcome) => Json::object([("outcome", outcome.clone())]),
            None => Json::object([("unknown", format!("the test gives `{job}` no result").into())]),
        }
    }
}

/// Commits arrived on this branch. The trigger of that name is [`crate::hook::push`], which programs import inside `main`, so that a
/// `use super::*` does not bring it here.
#[must_use]
pub fn push(branch: &str) -> Event {
    Event::new("push").with("branch", branch)
}

/// This tag arrived.
#[must_use]
pub fn tag(name: &str) -> Event {
    Event::new("tag").with("tag", name)
}

/// The pull request of this number was opened or changed.
#[must_use]
pub fn pull_request(number: u32) -> Event {
    Event::new("pull_request").with("pull_request", number).with("base", "main")
}

/// A schedule came due.
#[must_use]
pub fn schedule() -> Event {
    Event::new("schedule").with("branch", "main")
}

/// A person started it.
#[must_use]
pub fn manual() -> Event {
    Event::new("manual").with("branch", "main")
}

/// A person asked for this command.
#[must_use]
pub fn command(name: &str) -> Event {
    Event::new("command").with("command", name).with("branch", "main")
}

/// How a test says that a job has ended.
#[derive(Clone, Debug)]
pub struct Given {
    outcome: Json,
}

impl Given {
    fn new(outcome: &str) -> Self {
        Self { outcome: Json::object([("outcome", outcome.into())]) }
    }

    fn with(mut self, name: &str, value: Json) -> Self {
        if let Json::Object(entries) = &mut self.outcome {
            entries.push((name.to_owned(), value));
        }
        self
    }

    fn output_json(mut self, name: &str, value: Json) -> Self {
        let Json::Object(entries) = &mut self.outcome else { return self };
        match entries.iter_mut().find(|(entry, _)| entry == "outputs") {
            Some((_, Json::Object(outputs))) => {
                outputs.retain(|(output, _)| output != name);
                outputs.push((name.to_owned(), value));
            }
            _ => entries.push(("outputs".to_owned(), Json::Object(vec![(name.to_owned(), value)]))),
        }
        self
    }

    /// It handed on this value, as a step writes it to `$ROPEWALK_OUTPUT`; at a gate, this was answered.
    #[must_use]
    pub fn output(self, name: &str, value: impl Into<Json>) -> Self {
        self.output_json(name, value.into())
    }

    /// Its function returned this. The fields of a struct are outputs of their own, as in a build.
    #[must_use]
    pub fn value<T: Data>(self, value: &T) -> Self {
        let schema = Schema::of::<T>().digest();
        let json = value.to_json();
        let fields: Vec<_> = json
            .entries()
            .iter()
            .filter(|(name, _)| name != VALUE && T::PARTS.contains(&name.as_str()))
            .cloned()
            .collect();
        let given = fields.into_iter().fold(self, |given, (name, field)| {
            let text = if let Json::Text(text) = field { text } else { field.to_string() };
            given.output_json(&name, Json::Text(text))
        });
        let typed = Json::object([("schema", schema.into()), ("value", json)]);
        given.output_json(VALUE, Json::Text(typed.to_string()))
    }
}

/// It passed.
#[must_use]
pub fn passed() -> Given {
    Given::new("passed")
}

/// The gate was answered with yes; add what was filled in with [`Given::output`].
#[must_use]
pub fn answered() -> Given {
    passed()
}

/// Its first step ended with this exit code.
#[must_use]
pub fn failed(exit: u8) -> Given {
    Given::new("failed").with("cause", "step".into()).with("step", 0.into()).with("exit", exit.into())
}

/// Its function returned a failure with these words.
#[must_use]
pub fn failed_with(message: &str) -> Given {
    failed(1).with("message", message.into())
}

/// Time ran out, after an hour.
#[must_use]
pub fn timed_out() -> Given {
    Given::new("failed").with("cause", "timeout".into()).with("limit_ms", 3_600_000.into())
}

/// Somebody canceled it.
#[must_use]
pub fn canceled() -> Given {
    Given::new("failed").with("cause", "canceled".into()).with("by", "the test".into())
}

/// It did not run.
#[must_use]
pub fn skipped() -> Given {
    Given::new("skipped").with("reason", "condition".into()).with("text", "the test says so".into())
}

#[cfg(test)]
mod tests {
    use super::passed;
    use crate::Data;

    #[derive(Data)]
    struct Plan {
        version: String,
        shards: Vec<u32>,
    }

    #[test]
    fn fields_of_a_value_are_outputs_of_their_own() {
        let plan = Plan { version: "1.2".to_owned(), shards: vec![1, 2] };
        let outcome = passed().output("version", "older").value(&plan).output("note", "x").outcome;
        let outputs = outcome.get("outputs").expect("it hands something on").entries();
        let told: Vec<_> = outputs.iter().map(|(name, value)| (&**name, value.as_str().unwrap_or_default())).collect();
        assert_eq!(told[..2], [("version", "1.2"), ("shards", "[1,2]")]);
        assert_eq!(told[3..], [("note", "x")]);
        assert_eq!(told[2].0, "value");
    }
}
