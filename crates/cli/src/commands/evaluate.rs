//! `ropewalk evaluate`: for a worker, what a pipeline's program says; a question a line goes in, an answer a line comes out.
//!
//! It is a process of its own, which a worker keeps for as long as a build's program has questions, so that compiling and asking a program of somebody's never stands in the worker's way. What
//! the compiler says goes to standard error.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::PathBuf;

use dialects::native::SourceFile;
use dialects::program::{self, Reply};
use graph::{Digest, Known};
use serde::{Deserialize, Serialize};

use super::Stop;
use crate::args::Colour;
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::{exit, output};

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

/// Answers questions about one pipeline, a line each, until there are no more. What the first one says of root, data and
/// pipeline holds for all of them: the program is built and started once.
///
/// # Errors
/// If a line is no question, the program does not compile, or it cannot be asked.
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
        let pipeline = match question.pipeline.as_str() {
            "" => Pipeline::load(&project, None, Colour::Never)?,
            name => Pipeline::named(&project, name, Colour::Never)?,
        };
        let Some(program) = pipeline.program() else {
            return Err(Stop::wrong(format!("{} is no program", question.pipeline)));
        };
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
