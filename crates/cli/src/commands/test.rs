//! `ropewalk test`: the tests of a pipeline that is a Rust program, as cargo shows them; with `--watch` after each change.

use super::Stop;
use crate::args::{Colour, Test};
use crate::program::{self, testing};
use crate::project::Project;

/// Runs the command. The code is 1 if a test fails.
///
/// # Errors
/// If the pipeline is no program, or cargo cannot be called.
pub fn run(arguments: &Test, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let source = program::source(project, arguments.pipeline.as_deref()).ok_or_else(|| {
        Stop::wrong(format!(
            "no program in {}: only pipelines that are Rust programs have tests; `ropewalk init --rust` writes one",
            project.root.display()
        ))
    })?;
    if arguments.watch {
        testing::watch(project, &source, &arguments.names, colour)
    } else {
        testing::test(project, &source, &arguments.names, colour)
    }
}
