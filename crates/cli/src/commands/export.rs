//! `ropewalk export`: the pipeline as another system's configuration.

use std::io::Write;

use dialects::export::{self, System};
use graph::{Answer, Known, Question};

use super::Stop;
use crate::args::{Colour, Export, ExportSystem};
use crate::local::clock::now;
use crate::pipeline::{Pipeline, Unanswered};
use crate::project::Project;
use crate::{event, exit, output};

/// Runs the command.
///
/// # Errors
/// If the pipeline or a flag is wrong.
pub fn run(arguments: &Export, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let pipeline = Pipeline::load(project, arguments.source.pipeline.as_deref(), colour)?;
    let mut event = event::of(&arguments.event, project, None, now()).map_err(Stop::wrong)?;
    pipeline.check(&mut event, event::kind_choice(&arguments.event), Unanswered::Noted, colour)?;
    let mut known = Known::of(event);
    // What depends on the commit at hand is written for every commit: conditions on it count as true.
    let unknown = || Answer::Unknown("the configuration is for every commit".to_owned());
    known.answers.extend([(Question::ChangedFiles, unknown()), (Question::BranchesHolding, unknown())]);
    let lowered = pipeline.as_written(&known);
    if lowered.evaluation.graph.jobs.is_empty() {
        let _ = writeln!(std::io::stderr(), "note: no job runs for this event; choose another by `--event`");
    }
    let system = match arguments.to {
        ExportSystem::Github => System::Github,
        ExportSystem::Gitlab => System::Gitlab,
        ExportSystem::Buildkite => System::Buildkite,
    };
    output::print(export::export(&lowered, system))?;
    Ok(exit::PASSED)
}
