//! What `${{ }}` sees while a job runs: contexts by name and the status functions.
//!
//! Built only if a job has an expression at all. Words for results are ours (`passed`, `failed`, `skipped`,
//! `canceled`), as in `needs.ID.result`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use expression::{CallError, Condition, Environment, Error, ErrorKind, Template, Value};
use graph::{AttemptSpec, StepReport, StepResult, Text};

use crate::files;
use crate::patterns::Patterns;

/// Why a step in a container cannot have files hashed, and what to do instead.
const IN_A_CONTAINER: &str = "while a container has the files nobody else reads them; hash them in the key of a cache, in an earlier job, \
                              or by a program of the step";

/// The most files that one `hash_files` reads.
pub const HASHED_FILES_MAX: usize = 1_000_000;

/// How the job stands, for `success()`, `failure()` and `cancelled()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Status {
    /// No step has failed so far.
    #[default]
    Passing,
    /// A step that counts has failed.
    Failed,
    /// Somebody canceled the job.
    Canceled,
}

impl Status {
    /// The word for `job.status`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passing => "passed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }
}

/// The contexts of one job. Values are shared, so a clone is cheap, and can be sent to another thread for functions that
/// read files.
#[derive(Clone, Debug)]
pub struct Contexts {
    fixed: Vec<(&'static str, Value)>,
    job: Vec<(&'static str, Value)>,
    env: Value,
    steps: Vec<(String, Value)>,
    status: Status,
    /// `None` while a container has them.
    files: Option<PathBuf>,
}

impl Contexts {
    /// What is known before the first step.
    #[must_use]
    pub fn new(spec: &AttemptSpec, worker: &str, files: PathBuf) -> Self {
        let json = |map: &BTreeMap<String, serde_json::Value>| {
            Value::object(map.iter().map(|(name, value)| (name.as_str(), Value::from(value))))
        };
        let runner = Value::object([
            ("name", Value::from(worker)),
            ("os", Value::from(std::env::consts::OS)),
            ("arch", Value::from(std::env::consts::ARCH)),
        ]);
        let build = Value::object([("number", Value::from(spec.build.0 as f64))]);
        let fixed = vec![
            ("event", Value::from(&spec.event.context())),
            ("params", json(&spec.event.params)),
            ("needs", Value::from(&graph::legs::context(&spec.needs))),
            ("matrix", json(&spec.job.matrix)),
            ("gate", spec.gate.as_ref().map_or_else(|| json(&BTreeMap::new()), json)),
            ("build", build),
            ("runner", runner),
        ];
        let job = vec![
            ("name", Value::from(spec.name.as_str())),
            ("id", Value::from(spec.name.id())),
            ("attempt", Value::from(f64::from(spec.try_number))),
        ];
        Self { fixed, job, env: Value::Null, steps: Vec::new(), status: Status::default(), files: Some(files) }
    }

    /// Sets `env`. Names are told apart by letter case.
    pub fn set_env(&mut self, env: &BTreeMap<OsString, OsString>) {
        let entry = |(name, value): (&OsString, &OsString)| {
            (name.to_string_lossy().into(), Value::from(value.to_string_lossy().as_ref()))
        };
        let object = expression::Value::Object(std::sync::Arc::new(expression_object(env.iter().map(entry))));
        self.env = object;
    }

    /// Sets where functions find the job's files; `None` while they cannot be read.
    pub fn set_files(&mut self, files: Option<PathBuf>) {
        self.files = files;
    }

    /// Sets how the job stands.
    pub fn set_status(&mut self, status: Status) {
        self.status = status;
    }

    /// Adds what a step with an id did: `outputs`, `outcome`, `conclusion` (after `allow_failure`), `exit`.
    pub fn add_step(&mut self, id: &str, report: &StepReport, conclusion: StepResult) {
        let outputs = report.outputs.iter().map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        let step = Value::object([
            ("outputs", Value::object(outputs)),
            ("outcome", Value::from(report.result.word())),
            ("conclusion", Value::from(conclusion.word())),
            ("exit", report.exit.map_or(Value::Null, |exit| Value::from(f64::from(exit)))),
        ]);
        self.steps.push((id.to_owned(), step));
    }

    /// The text with its expressions evaluated.
    ///
    /// # Errors
    /// A sentence with the expression's fault.
    pub async fn text(&self, text: &Text) -> Result<String, String> {
        match text {
            Text::Plain(text) => Ok(text.to_string()),
            Text::Template(written) => {
                let template = Template::parse(written).map_err(|error| fault(written, &error))?;
                let reads = reads_files(&template.functions());
                let evaluated = self.evaluate(reads, move |contexts| template.evaluate(contexts)).await;
                evaluated.map_err(|error| fault(written, &error))
            }
        }
    }

    /// Whether the condition holds; none means `success()`.
    ///
    /// # Errors
    /// A sentence with the expression's fault.
    pub async fn condition(&self, written: &str) -> Result<bool, String> {
        let condition = Condition::parse(written).map_err(|error| fault(written, &error))?;
        let reads = reads_files(&condition.functions());
        let evaluated = self.evaluate(reads, move |contexts| condition.is_met(contexts)).await;
        evaluated.map_err(|error| fault(written, &error))
    }

    async fn evaluate<T: Send + 'static>(
        &self,
        reads: Reads,
        evaluate: impl FnOnce(&Evaluation) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let contexts = self.clone();
        let work = move || evaluate(&Evaluation { built: RefCell::default(), contexts });
        match reads {
            Reads::Nothing => work(),
            Reads::Files => match tokio::task::spawn_blocking(work).await {
                Ok(result) => result,
                Err(error) => {
                    let message = format!("reading files was broken off: {error}");
                    Err(Error { kind: ErrorKind::Evaluate, cause: message.clone(), message, range: 0..0 })
                }
            },
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        match name {
            "env" => Some(self.env.clone()),
            "steps" => Some(Value::object(self.steps.iter().map(|(id, value)| (id.as_str(), value.clone())))),
            "job" => {
                let status = ("status", Value::from(self.status.word()));
                Some(Value::object(self.job.iter().cloned().chain([status])))
            }
            _ => self.fixed.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone()),
        }
    }
}

fn expression_object(entries: impl Iterator<Item = (std::sync::Arc<str>, Value)>) -> expression::Object {
    expression::Object::with_exact_names(entries)
}

/// Whether an evaluation waits for a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    Nothing,
    Files,
}

fn reads_files(functions: &[&str]) -> Reads {
    match functions.iter().any(|name| matches!(*name, "hashFiles" | "hash_files")) {
        true => Reads::Files,
        false => Reads::Nothing,
    }
}

fn fault(written: &str, error: &Error) -> String {
    let beginning: String = written.chars().take(200).collect();
    format!("`{beginning}`: {error}")
}

/// One evaluation. Values are built once, since the language compares objects by identity.
struct Evaluation {
    contexts: Contexts,
    built: RefCell<BTreeMap<String, Value>>,
}

impl Environment for Evaluation {
    fn context(&self, name: &str) -> Option<Value> {
        if let Some(value) = self.built.borrow().get(name) {
            return Some(value.clone());
        }
        let value = self.contexts.value(name)?;
        self.built.borrow_mut().insert(name.to_owned(), value.clone());
        Some(value)
    }

    fn call(&self, function: &str, arguments: &[Value]) -> Result<Value, CallError> {
        let status = self.contexts.status;
        match function {
            "always" => Ok(true.into()),
            "success" => Ok((status == Status::Passing).into()),
            "failure" => Ok((status == Status::Failed).into()),
            "cancelled" => Ok((status == Status::Canceled).into()),
            "hashFiles" | "hash_files" => match &self.contexts.files {
                Some(files) => hash_files(files, arguments).map_err(CallError::Failed),
                None => Err(CallError::Failed(IN_A_CONTAINER.to_owned())),
            },
            _ => Err(CallError::Unavailable),
        }
    }
}

/// One digest of the contents and names of all files that the globs mean, as hexadecimal digits; empty if there is none.
fn hash_files(root: &Path, globs: &[Value]) -> Result<Value, String> {
    let globs: Vec<String> = globs.iter().map(|glob| glob.to_text().into_owned()).collect();
    let patterns = Patterns::new(&globs).map_err(|fault| fault.to_string())?;
    let found = files::find_without_git(root, &patterns, HASHED_FILES_MAX).map_err(|fault| fault.to_string())?;
    let mut hasher = blake3::Hasher::new();
    let mut is_empty = true;
    for found in found.iter().filter(|found| found.metadata.is_file()) {
        use std::os::unix::ffi::OsStrExt;
        let mut content = blake3::Hasher::new();
        std::fs::File::open(&found.place)
            .and_then(|mut file| std::io::copy(&mut file, &mut content))
            .map_err(|error| format!("cannot read {}: {error}", found.path.display()))?;
        let name = found.path.as_os_str().as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(content.finalize().as_bytes());
        is_empty = false;
    }
    Ok(if is_empty { Value::from("") } else { Value::from(hasher.finalize().to_hex().as_str()) })
}
