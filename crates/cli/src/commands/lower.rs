//! `ropewalk lower`: for tests of pipelines, what a program's replies come to; a line in, a line out, until the input ends.
//!
//! The SDK's testing module starts it, so that what conditions, matrices and needs mean is said in one place.

use std::io::{self, BufRead, Read};

use dialects::program;

use super::Stop;
use crate::{exit, output};

/// The longest line that is read, in bytes; a reply is at most half of it.
const LINE_BYTES_MAX: u64 = 2 * program::REPLY_BYTES_MAX as u64 + 2;

/// Runs the command.
///
/// # Errors
/// If standard input or output fails, or a line is too long.
pub fn run() -> Result<u8, Stop> {
    let mut stdin = io::stdin().lock();
    let mut line = String::new();
    loop {
        line.clear();
        let length = stdin
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .map_err(|error| Stop::infra(format!("failed to read standard input: {error}")))?;
        if length as u64 >= LINE_BYTES_MAX {
            return Err(Stop::wrong(format!("a line has at most {LINE_BYTES_MAX} bytes")));
        }
        if length == 0 {
            return Ok(exit::PASSED);
        }
        if !line.trim().is_empty() {
            output::print(program::answer(&line) + "\n")?;
        }
    }
}
