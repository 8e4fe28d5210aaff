//! The binary, asked what a pipeline's jobs come to: a line goes in, a line comes out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::json::Json;

/// Where `ropewalk test` says that the binary is.
const VARIABLE: &str = "ROPEWALK_BINARY";

const HELP: &str = "run the tests with `ropewalk test`, or put `ropewalk` into your PATH";

/// `ropewalk lower`, running.
pub(super) struct Binary {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Binary {
    /// Starts it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn start() -> Result<Self, String> {
        let program = std::env::var_os(VARIABLE).unwrap_or_else(|| "ropewalk".into());
        let mut command = Command::new(&program);
        let child = command.arg("lower").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("cannot start {}: {error}; {HELP}", program.display()))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("there is no pipe to `ropewalk lower`")?);
        Ok(Self { child, requests, answers })
    }

    /// What the jobs of a reply come to: `graph`, `questions`, `diagnostics`, `triggered`.
    ///
    /// # Errors
    /// A sentence.
    pub fn lower(&mut self, reply: &str, known: &Json) -> Result<Json, String> {
        self.ask(&format!("{{\"reply\":{reply},\"known\":{known}}}"))
    }

    /// The numbers of the hooks that answer to the event, of a reply that describes them.
    ///
    /// # Errors
    /// A sentence.
    pub fn hooks(&mut self, reply: &str, known: &Json) -> Result<Vec<usize>, String> {
        let answer = self.ask(&format!("{{\"hooks\":{reply},\"known\":{known}}}"))?;
        let numbers = answer.get("hooks").map(Json::items).unwrap_or_default();
        Ok(numbers
            .iter()
            .filter_map(|number| if let Json::Int(number) = number { Some(*number as usize) } else { None })
            .collect())
    }

    fn ask(&mut self, line: &str) -> Result<Json, String> {
        let lost = |what: String| format!("`ropewalk lower` {what}; {HELP}, of the same version as this crate");
        let requests = self.requests.as_mut().ok_or_else(|| lost("has no input".to_owned()))?;
        writeln!(requests, "{line}").map_err(|error| lost(format!("took no request: {error}")))?;
        requests.flush().map_err(|error| lost(format!("took no request: {error}")))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(|error| lost(format!("gave no answer: {error}")))?;
        let answer = Json::read(&answer).map_err(|error| lost(format!("gave no answer that can be read: {error}")))?;
        match answer.get("error").and_then(Json::as_str) {
            Some(error) => Err(lost(format!("refused: {error}"))),
            None => Ok(answer),
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}
