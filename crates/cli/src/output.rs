//! Standard output that may be a closed pipe, and whether to use colours.

use std::io::{self, IsTerminal, Write};

use crate::args::Colour;
use crate::commands::Stop;

/// Writes `text` to standard output. A reader that has gone away is no error.
///
/// # Errors
/// If standard output fails otherwise, such as on a full disk.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Stop::infra(format!("failed to write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether to colour what goes to `stream`.
pub fn coloured(choice: Colour, stream: &impl IsTerminal) -> bool {
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
