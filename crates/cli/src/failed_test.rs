//! How a test that failed is told, at the end of `run` and by `show`.

use std::fmt::Write as _;

use graph::{JobName, TestCase};

use crate::columns::{self, Paint, Style};
use crate::words;

/// How many lines of a test's message are shown.
const MESSAGE_LINES_MAX: usize = 6;

/// A test that failed with the first lines of its message; `job` is named where it is not told above.
pub fn text(test: &TestCase, job: Option<&JobName>, paint: Paint) -> String {
    let suite = if test.suite.is_empty() { String::new() } else { format!("{} › ", test.suite) };
    let name = columns::one_line(&format!("{suite}{}", test.name));
    let job = job.map(|job| format!("{job}, ")).unwrap_or_default();
    let more = format!("{job}{}", words::duration(test.duration_ms));
    let mut text = format!("  {} {name}  {}\n", paint.text(Style::Bad, "✗"), paint.text(Style::Dim, &more));
    for line in test.message.lines().filter(|line| !line.trim().is_empty()).take(MESSAGE_LINES_MAX) {
        let _ = writeln!(text, "      {}", columns::cut(columns::bare(line).trim_end(), 160));
    }
    text
}
