//! A shell for tests: it runs nothing, answers as it was told, and remembers what it was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::shell::{Command, Finished, PathKind, Shell};

/// A shell for tests of a pipeline's functions. Clones share what they remember, so keep one and hand in the other.
///
/// A command that no rule covers fails the function, with a message that names it.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    tape: Rc<RefCell<Tape>>,
}

#[derive(Debug, Default)]
struct Tape {
    rules: Vec<Rule>,
    paths: BTreeMap<String, PathKind>,
    variables: BTreeMap<String, String>,
    commands: Vec<String>,
    log: Vec<String>,
    is_canceled: bool,
}

#[derive(Debug)]
struct Rule {
    pattern: String,
    finished: Finished,
    cancels: bool,
    is_used: bool,
}

impl Recorded {
    /// A shell that knows no command.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Commands that match `pattern` (`*` stands for any text, the rest for itself) end with `exit` and have written
    /// `output`. Of several rules that match, each is used once in the order of their making, and the last again.
    #[must_use]
    pub fn on(self, pattern: &str, exit: i32, output: &str) -> Self {
        self.rule(pattern, exit, output, false)
    }

    /// The job is canceled while a command that matches `pattern` runs.
    #[must_use]
    pub fn canceled_during(self, pattern: &str) -> Self {
        self.rule(pattern, 143, "", true)
    }

    fn rule(self, pattern: &str, exit: i32, output: &str, cancels: bool) -> Self {
        let finished = Finished { exit, output: output.trim_end_matches('\n').to_owned() };
        self.tape.borrow_mut().rules.push(Rule { pattern: pattern.to_owned(), finished, cancels, is_used: false });
        self
    }

    /// There is a file at this path, relative to the workspace.
    #[must_use]
    pub fn file(self, path: &str) -> Self {
        self.tape.borrow_mut().paths.insert(path.to_owned(), PathKind::File);
        self
    }

    /// There is a directory at this path, relative to the workspace.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.tape.borrow_mut().paths.insert(path.to_owned(), PathKind::Dir);
        self
    }

    /// There is an environment variable, or a secret.
    #[must_use]
    pub fn variable(self, name: &str, value: &str) -> Self {
        self.tape.borrow_mut().variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The commands so far, in order.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.tape.borrow().commands.clone()
    }

    /// The lines of the log so far, without the commands themselves and what they write.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.tape.borrow().log.iter().filter(|line| !line.starts_with("$ ")).cloned().collect()
    }

    /// Panics unless exactly commands that match these patterns have run, in this order.
    #[track_caller]
    pub fn assert_ran<const N: usize>(&self, patterns: [&str; N]) {
        let commands = self.commands();
        let is_same =
            commands.len() == N && patterns.iter().zip(&commands).all(|(pattern, text)| matches(pattern, text));
        if !is_same {
            let mut message = String::from("other commands ran than expected\n");
            for index in 0..N.max(commands.len()) {
                let (expected, ran) = (patterns.get(index), commands.get(index));
                let is_same = expected.zip(ran).is_some_and(|(pattern, text)| matches(pattern, text));
                let sign = if is_same { ' ' } else { '!' };
                let shown = |text: Option<&str>| text.map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"));
                let (expected, ran) = (shown(expected.copied()), shown(ran.map(String::as_str)));
                message.push_str(&format!("{sign} {}: expected {expected}, ran {ran}\n", index + 1));
            }
            panic!("{message}");
        }
    }
}

impl Shell for Recorded {
    fn run(&mut self, command: &Command) -> Result<Finished, String> {
        let mut tape = self.tape.borrow_mut();
        let text = command.text();
        tape.commands.push(text.clone());
        let fitting = |rule: &Rule| matches(&rule.pattern, &text);
        let fresh = tape.rules.iter().position(|rule| fitting(rule) && !rule.is_used);
        let index = fresh.or_else(|| tape.rules.iter().rposition(fitting));
        let Some(index) = index else { return Err("the recorded shell has no rule for it".to_owned()) };
        let rule = &mut tape.rules[index];
        rule.is_used = true;
        let (finished, cancels) = (rule.finished.clone(), rule.cancels);
        tape.is_canceled |= cancels;
        Ok(finished)
    }

    fn log(&mut self, line: &str) {
        self.tape.borrow_mut().log.push(line.to_owned());
    }

    fn is_canceled(&self) -> bool {
        self.tape.borrow().is_canceled
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.tape.borrow().variables.get(name).cloned()
    }

    fn workspace(&self) -> &Path {
        Path::new("/workspace")
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        self.tape.borrow().paths.get(path.to_str()?).copied()
    }
}

/// Whether `text` matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
