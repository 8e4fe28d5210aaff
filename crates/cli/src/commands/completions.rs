//! `ropewalk completions`: a script that completes commands and flags.

use super::Stop;
use crate::args::{Completions, command_line};
use crate::exit;

/// Prints the script.
///
/// # Errors
/// None.
pub fn run(arguments: &Completions) -> Result<u8, Stop> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command_line(), "ropewalk", &mut text);
    crate::output::print(&text)?;
    Ok(exit::PASSED)
}
