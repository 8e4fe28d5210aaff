//! `ropewalk evaluate`: for a worker, what a pipeline's program says; a question a line goes in, an answer a line comes out.
//!
//! It is a process of its own, so that compiling and asking a program of somebody's never stands in the worker's way. What
//! the compiler says goes to standard error.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::PathBuf;

use dialects::native::SourceFile;
use dialects::program;
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
}

/// Answers one question.
///
/// # Errors
/// If the input is no question, the program does not compile, or it cannot be asked.
pub fn run() -> Result<u8, Stop> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Stop::infra(error.to_string()))?;
    let question: Question =
        serde_json::from_str(&line).map_err(|error| Stop::infra(format!("this is no question: {error}")))?;
    let answer = answer(&question)?;
    let text = serde_json::to_string(&answer).map_err(|error| Stop::infra(error.to_string()))?;
    output::print(text + "\n")?;
    Ok(exit::PASSED)
}

fn answer(question: &Question) -> Result<Answer, Stop> {
    let project = Project { root: question.root.clone(), data: question.data.clone(), inside: None };
    let pipeline = match question.pipeline.as_str() {
        "" => Pipeline::load(&project, None, Colour::Never)?,
        name => Pipeline::named(&project, name, Colour::Never)?,
    };
    let Some(asked) = pipeline.program() else {
        return Err(Stop::wrong(format!("{} is no program", question.pipeline)));
    };
    let files: Vec<SourceFile> = pipeline
        .texts()
        .into_iter()
        .filter(|(name, text)| *name != asked.name || *text != asked.digest.0)
        .map(|(name, text)| SourceFile::new(name.to_owned(), text.to_vec()))
        .collect();
    let known = &question.known;
    let ask = |request: &str| asked.ask(request).map_err(Stop::wrong);
    let read = |text: &str| program::read(text).map_err(|error| Stop::wrong(error.to_string()));
    let hooks = program::triggered_hooks(&read(&ask(&program::request(known, None, None))?)?, &files, &known.event);
    let document = (!files.is_empty()).then(|| program::document(&files));
    let text = ask(&program::request(known, Some(&hooks), document.as_ref()))?;
    let mut names = BTreeMap::new();
    for name in read(&text)?.files() {
        names.insert(name.clone(), asked.shown(name));
    }
    Ok(Answer { text, program: asked.digest, binary: asked.binary.clone(), files: names })
}
