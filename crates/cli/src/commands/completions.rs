//! `ropewalk completions`: a script that completes commands and flags.

use clap::CommandFactory;

use super::Stop;
use crate::args::{Arguments, Completions};
use crate::exit;

/// Prints the script.
///
/// # Errors
/// None.
pub fn run(arguments: &Completions) -> Result<u8, Stop> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "ropewalk", &mut text);
    crate::output::print(&text)?;
    Ok(exit::PASSED)
}
