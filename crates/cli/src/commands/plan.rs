//! `ropewalk plan`: the graph, for the event at hand or a made-up one, without running anything.

use std::io::Write;

use graph::{Answer, Failure, JobName, Known, Outcome, Question, SkipReason, canonical};
use serde_json::Value;

use super::Stop;
use crate::args::{Colour, GraphForm, Plan};
use crate::local::clock::now;
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::{drawing, event, exit, output};

/// The most evaluations of one plan: each follows a new answer.
const EVALUATIONS_MAX: usize = 1000;

/// Runs the command.
///
/// # Errors
/// If the pipeline or a flag is wrong.
pub fn run(arguments: &Plan, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let pipeline = Pipeline::load(project, arguments.source.pipeline.as_deref(), colour)?;
    let mut event = event::of(&arguments.event, project, now()).map_err(Stop::wrong)?;
    pipeline.check(&mut event, event::kind_choice(&arguments.event), colour)?;
    let mut known = Known::of(event);
    for given in &arguments.given {
        let (job, outcome) = given_outcome(given).map_err(Stop::wrong)?;
        known.answers.insert(Question::Outcome(job), Answer::Outcome(outcome));
    }
    if !arguments.changed.is_empty() {
        let mut files = arguments.changed.clone();
        files.sort();
        known.answers.insert(Question::ChangedFiles, Answer::Files(files));
    }
    let graph = settle(&pipeline, &mut known, project);
    let text = match arguments.output {
        GraphForm::Tree => drawing::tree::draw(&graph),
        GraphForm::Json => canonical::graph_json(&graph) + "\n",
        GraphForm::Dot => drawing::dot::draw(&graph),
        GraphForm::Svg => drawing::svg::draw(&graph),
    };
    output::print(text)?;
    let planned: Vec<_> = known
        .answers
        .keys()
        .filter_map(|question| match question {
            Question::Outcome(job) if !graph.jobs.contains_key(job) => Some(job.as_str()),
            _ => None,
        })
        .collect();
    if !planned.is_empty() {
        let _ =
            writeln!(std::io::stderr(), "note: --given names jobs that are not in the graph: {}", planned.join(", "));
    }
    Ok(exit::PASSED)
}

/// Evaluates until no question that this machine can answer is left.
fn settle(pipeline: &Pipeline, known: &mut Known, project: &Project) -> graph::Graph {
    for _ in 0..EVALUATIONS_MAX {
        let lowered = pipeline.lower(known);
        let evaluation = &lowered.evaluation;
        let open: Vec<_> = evaluation
            .questions
            .iter()
            .filter(|question| !known.answers.contains_key(question) && !matches!(question, Question::Outcome(_)))
            .cloned()
            .collect();
        if open.is_empty() {
            return evaluation.graph.clone();
        }
        for question in open {
            let answer = crate::local::world::answer_from_repository(&project.root, &known.event, &question);
            known.answers.insert(question, answer);
        }
    }
    pipeline.lower(known).evaluation.graph.clone()
}

/// `JOB=OUTCOME[,OUTPUT=VALUE…]`.
fn given_outcome(given: &str) -> Result<(JobName, Outcome), String> {
    let form = || format!("--given takes JOB=OUTCOME[,OUTPUT=VALUE…], such as build=passed,version=1.2, not `{given}`");
    let (job, rest) = given.split_once('=').ok_or_else(form)?;
    let mut parts = rest.split(',');
    let word = parts.next().unwrap_or_default();
    let outputs = parts
        .map(|part| part.split_once('=').map(|(name, value)| (name.to_owned(), Value::from(value))).ok_or_else(form))
        .collect::<Result<_, _>>()?;
    let outcome = match word {
        "passed" => Outcome::Passed { outputs },
        "failed" => Outcome::Failed(Failure::Step { step: 0, exit: 1 }),
        "canceled" => Outcome::Failed(Failure::Canceled { by: "--given".to_owned() }),
        "skipped" => Outcome::Skipped(SkipReason::Condition { text: "--given".to_owned() }),
        _ => return Err(format!("`{word}` is no outcome: passed, failed, canceled, skipped")),
    };
    Ok((job.into(), outcome))
}
