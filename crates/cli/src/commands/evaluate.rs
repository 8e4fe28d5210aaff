//! `ropewalk evaluate`: for a worker, what a pipeline's program says; a question a line goes in, an answer a line comes out.
//!
//! It is a process of its own, which a worker keeps for as long as a build's program has questions, so that compiling and asking a program of somebody's never stands in the worker's way. What
//! the compiler says goes to standard error.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Duration;

use dialects::native::SourceFile;
use dialects::program::{self, Reply};
use graph::{Digest, Known};
use serde::{Deserialize, Serialize};

use super::Stop;
use crate::args::Colour;
use crate::pipeline::{AtStart, Pipeline};
use crate::program::testing::{self, Tests};
use crate::project::Project;
use crate::{exit, output};

/// How long the tests of a pipeline may take, with their compilation: half of what a server waits for an answer.
const TESTS_MAX: Duration = Duration::from_secs(10 * 60);

/// What a worker asks.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// The project's folder.
    pub root: PathBuf,
    /// Where binaries are kept.
    pub data: PathBuf,
    /// The pipeline, as builds record it.
    pub pipeline: String,
    /// What is known.
    pub known: Known,
    /// The binary that is asked, as it lies among the programs; without one the program is built and tested.
    pub program: Option<Digest>,
}

/// What the program says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Its reply as it came.
    pub text: String,
    /// Its binary's digest.
    pub program: Digest,
    /// Where its binary is.
    pub binary: PathBuf,
    /// The paths of its files in the project, by the names that the reply has for them.
    pub files: BTreeMap<String, String>,
    /// Whether it waits for answers, and so is asked again.
    pub more: More,
}

/// Whether a program is likely to be asked again for the same build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum More {
    /// It has questions that nobody has answered.
    ToCome,
    /// It has none.
    Never,
}

/// Answers questions about one pipeline, a line each, until there are no more. What the first one says of root, data,
/// pipeline and program holds for all of them: the program is built and started once. Before a build's first question its tests run, if it has any
/// that did not pass with these sources before.
///
/// # Errors
/// If a line is no question, the program does not compile, its tests do not pass, or it cannot be asked.
pub fn run() -> Result<u8, Stop> {
    let mut stdin = io::stdin().lock();
    let mut asked: Option<Asked> = None;
    loop {
        let mut line = String::new();
        if stdin.read_line(&mut line).map_err(|error| Stop::infra(error.to_string()))? == 0 {
            return Ok(exit::PASSED);
        }
        let question: Question =
            serde_json::from_str(&line).map_err(|error| Stop::infra(format!("this is no question: {error}")))?;
        let asked = match &mut asked {
            Some(asked) => asked,
            none => none.insert(Asked::load(&question)?),
        };
        let answer = asked.answer(&question.known)?;
        let text = serde_json::to_string(&answer).map_err(|error| Stop::infra(error.to_string()))?;
        output::print(text + "\n")?;
    }
}

/// A pipeline whose program is asked again and again.
struct Asked {
    pipeline: Pipeline,
    /// The config files beside the program.
    files: Vec<SourceFile>,
    /// What hooks it has; they depend on nothing.
    hooks: Option<Reply>,
}

impl Asked {
    fn load(question: &Question) -> Result<Self, Stop> {
        let project = Project { root: question.root.clone(), data: question.data.clone(), inside: None };
        let loaded = match (question.pipeline.as_str(), question.program) {
            (name, Some(program)) => {
                let begun = AtStart { program: Some(program), texts: BTreeMap::new() };
                Pipeline::begun(&project, name, begun, Colour::Never)
            }
            ("", None) => Pipeline::load(&project, None, Colour::Never),
            (name, None) => Pipeline::named(&project, name, Colour::Never),
        };
        // What the compiler said stands above it.
        let pipeline = loaded.map_err(|stop| match stop.message.is_empty() {
            true => Stop { message: "the pipeline's program does not compile".to_owned(), ..stop },
            false => stop,
        })?;
        let Some(program) = pipeline.program() else {
            return Err(Stop::wrong(format!("{} is no program", question.pipeline)));
        };
        // A build that has had answers passed them when it began.
        if question.program.is_none()
            && question.known.answers.is_empty()
            && let Tests::Failed { .. } = testing::before_run(program, Some(TESTS_MAX))?
        {
            return Err(Stop::wrong(format!("the tests of {} do not pass; nothing was run", program.name)));
        }
        let files: Vec<SourceFile> = pipeline
            .texts()
            .into_iter()
            .filter(|(name, text)| *name != program.name || *text != program.digest.0)
            .map(|(name, text)| SourceFile::new(name.to_owned(), text.to_vec()))
            .collect();
        Ok(Self { pipeline, files, hooks: None })
    }

    fn answer(&mut self, known: &Known) -> Result<Answer, Stop> {
        let program = self.pipeline.program().ok_or_else(|| Stop::wrong("the pipeline is no program"))?;
        let ask = |request: &str| program.ask(request).map_err(Stop::wrong);
        let read = |text: &str| program::read(text).map_err(|error| Stop::wrong(error.to_string()));
        if self.hooks.is_none() {
            self.hooks = Some(read(&ask(&program::request(known, None, None))?)?);
        }
        let Some(hooks) = &self.hooks else { return Err(Stop::infra("the program's hooks are not known")) };
        let hooks = program::triggered_hooks(hooks, &self.files, &known.event);
        let document = (!self.files.is_empty()).then(|| program::document(&self.files));
        let text = ask(&program::request(known, Some(&hooks), document.as_ref()))?;
        let mut reply = read(&text)?;
        let mut names = BTreeMap::new();
        for name in reply.files() {
            names.insert(name.clone(), program.shown(name));
        }
        let more = if reply.asks() { More::ToCome } else { More::Never };
        Ok(Answer { text, program: program.digest, binary: program.binary.clone(), files: names, more })
    }
}
