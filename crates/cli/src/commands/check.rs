//! `ropewalk check`: every fault of a pipeline in one go, for people, as JSON, as SARIF.

use std::io::Write;

use dialects::report;
use graph::Severity;

use super::Stop;
use crate::args::{Check, Colour, ReportForm};
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::{exit, output};

/// Runs the command. The code is 2 if there is an error.
///
/// # Errors
/// If there is no pipeline, or it cannot be read.
pub fn run(arguments: &Check, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let pipeline = Pipeline::load(project, arguments.source.pipeline.as_deref())?;
    let lowered = pipeline.faults();
    let (diagnostics, sources) = (&lowered.evaluation.diagnostics, &lowered.sources);
    match arguments.format {
        ReportForm::Human => {
            let colour = match output::coloured(colour, &std::io::stderr()) {
                true => report::Color::Always,
                false => report::Color::Never,
            };
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "{}", report::text(diagnostics, sources, colour));
            let _ = writeln!(stderr, "{}: {}", pipeline.name(), report::summary(diagnostics));
        }
        ReportForm::Json => output::print(report::json(diagnostics) + "\n")?,
        ReportForm::Sarif => output::print(report::sarif(diagnostics, sources, env!("CARGO_PKG_VERSION")) + "\n")?,
    }
    let is_wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Ok(if is_wrong { exit::WRONG } else { exit::PASSED })
}
