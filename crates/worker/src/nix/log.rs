//! Nix's internal JSON log, line by line: what people should read of it, and what became of each derivation.
//!
//! Nix documents this form nowhere; it is read as versions 2.8 to 2.30 write it (`src/libutil/logging.hh`, `ActivityType` and
//! `ResultType`). Fields and kinds that are not known are passed over, and what is not understood is shown as it came.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::name_of;
use crate::depot::{AttemptLog, LogEnd, LogError, LogSink, Stream};
use crate::reports::{TEXT_BYTES_MAX, TEXTS_BYTES_MAX};

/// The most derivations that are followed; of those beyond, only the log is kept.
pub const DERIVATIONS_MAX: usize = 10_000;

/// The longest line that is parsed. A longer one is shown as it came.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// The most bytes of JSON taken from stdout; an answer beyond is no answer.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What begins each line of Nix's.
const PREFIX: &[u8] = b"@nix ";
/// What begins a line of [`super::BUILD_SCRIPT`]'s own.
const OWN_PREFIX: &[u8] = b"@ropewalk ";

/// Kinds of activities and results, by their numbers.
mod kind {
    pub const BUILDS: u64 = 104;
    pub const BUILD: u64 = 105;
    pub const SUBSTITUTE: u64 = 108;
    pub const BUILD_LINE: u64 = 101;
    pub const PHASE: u64 = 104;
    pub const PROGRESS: u64 = 105;
    pub const HOOK_LINE: u64 = 107;
}

/// Levels of messages: errors are 0, warnings 1, notices 2, information 3.
const LEVEL_SHOWN_MAX: u64 = 3;

/// What Nix said so far of one step's build.
#[derive(Debug, Default)]
pub struct Heard {
    /// Derivations and substituted paths, by store path.
    pub paths: BTreeMap<String, Told>,
    /// Derivations that were still to be built after a build that failed.
    pub missing: Vec<String>,
    /// What was printed to stdout: JSON values, one after the other.
    pub answers: Vec<u8>,
    /// How many derivations were not followed.
    pub dropped: u64,
    /// Activities that have begun and not ended, with their paths.
    pub(super) open: HashMap<u64, String>,
    pub(super) stage: Stage,
    pub(super) texts_bytes: usize,
    /// The activity that counts builds.
    pub(super) counter: Option<u64>,
    /// How many builds it says are done, and how many of them were found to have ended. Nix counts a build that is done, then
    /// ends its activity.
    pub(super) n_done: u64,
    pub(super) n_ended: u64,
}

/// What was told of one derivation or substituted path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What was done.
    pub what: What,
    /// When it began, in microseconds.
    pub began_us: u64,
    /// When it was last heard of.
    pub last_us: u64,
    /// Whether its end was told, and that it was a good one: a builder that is interrupted ends too.
    pub has_ended: bool,
    /// The end of what its builder printed.
    pub output: String,
    /// Nix's words when it failed.
    pub error: String,
}

/// What Nix did for a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// Ran its builder.
    #[default]
    Build,
    /// Took it from another store.
    Substitute,
}

/// What the script is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It builds.
    #[default]
    Build,
    /// It asks what is missing.
    Plan,
    /// It asks for what each installable came to.
    Outputs,
}

impl Heard {
    /// Takes one line of stderr without its end, and says what people should read of it.
    pub fn line(&mut self, line: &[u8], time_us: u64) -> Option<String> {
        if let Some(stage) = line.strip_prefix(OWN_PREFIX) {
            self.stage = if stage == b"plan" { Stage::Plan } else { Stage::Outputs };
            return None;
        }
        let Some(json) = line.strip_prefix(PREFIX) else { return Some(String::from_utf8_lossy(line).into_owned()) };
        let Ok(Value::Object(event)) = serde_json::from_slice(json) else {
            return Some(String::from_utf8_lossy(line).into_owned());
        };
        let number = |key: &str| event.get(key).and_then(Value::as_u64);
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let field =
            |index: usize| event.get("fields").and_then(|fields| fields.get(index)?.as_str()).unwrap_or_default();
        let id = number("id").unwrap_or_default();
        match text("action") {
            "start" => self.start(id, number("type"), field(0), field(1), time_us),
            "stop" => self.stop(id, time_us),
            "result" if number("type") == Some(kind::PROGRESS) => {
                let done = event.get("fields").and_then(|fields| fields.get(0)?.as_u64());
                if self.counter == Some(id) && self.stage == Stage::Build {
                    self.n_done = self.n_done.max(done.unwrap_or_default());
                }
                None
            }
            "result" => self.result(id, number("type"), field(0), time_us),
            "msg" => self.message(number("level").unwrap_or_default(), text("msg"), time_us),
            _ => None,
        }
    }

    fn start(&mut self, id: u64, kind: Option<u64>, path: &str, from: &str, time_us: u64) -> Option<String> {
        let (what, words) = match kind {
            Some(kind::BUILD) => (What::Build, format!("building {}", name_of(path))),
            Some(kind::SUBSTITUTE) => (What::Substitute, format!("fetching {} from {from}", name_of(path))),
            Some(kind::BUILDS) => {
                (self.counter, self.n_done, self.n_ended) = (Some(id), 0, 0);
                return None;
            }
            _ => return None,
        };
        if self.stage != Stage::Build || path.is_empty() {
            return None;
        }
        if self.paths.len() == DERIVATIONS_MAX && !self.paths.contains_key(path) {
            self.dropped += 1;
            return Some(words);
        }
        self.open.insert(id, path.to_owned());
        let told = self.paths.entry(path.to_owned()).or_default();
        (told.what, told.began_us, told.last_us, told.has_ended) = (what, time_us, time_us, false);
        Some(words)
    }

    fn stop(&mut self, id: u64, time_us: u64) -> Option<String> {
        let told = self.open.remove(&id).and_then(|path| self.paths.get_mut(&path))?;
        let is_counted = self.n_done > self.n_ended;
        told.has_ended = told.what == What::Substitute || is_counted;
        self.n_ended += u64::from(told.what == What::Build && is_counted);
        // A failure is told when it happens, its end only when all have ended.
        if told.error.is_empty() {
            told.last_us = time_us;
        }
        None
    }

    fn result(&mut self, id: u64, kind: Option<u64>, text: &str, time_us: u64) -> Option<String> {
        let is_line = match kind {
            Some(kind::BUILD_LINE | kind::HOOK_LINE) => true,
            Some(kind::PHASE) => false,
            _ => return None,
        };
        let Some(path) = self.open.get(&id) else { return Some(text.to_owned()) };
        let name = name_of(path).to_owned();
        if let Some(told) = self.paths.get_mut(path) {
            told.last_us = time_us;
            if is_line {
                self.texts_bytes -= told.output.len();
                keep_end(&mut told.output, text, TEXTS_BYTES_MAX.saturating_sub(self.texts_bytes).min(TEXT_BYTES_MAX));
                self.texts_bytes += told.output.len();
            }
        }
        Some(if is_line { format!("{name}> {text}") } else { format!("{name}: {text}") })
    }

    fn message(&mut self, level: u64, text: &str, time_us: u64) -> Option<String> {
        self.take_missing(text);
        // A step has no terminal, so its log has no colours of Nix's own.
        let bare = without_colours(text);
        if level == 0 {
            self.take_error(&bare, time_us);
        }
        let is_shown = self.stage == Stage::Build && level <= LEVEL_SHOWN_MAX;
        (is_shown || (self.stage == Stage::Outputs && level == 0)).then_some(bare)
    }

    /// Lines of the list of what is to be built: two blanks and a derivation.
    fn take_missing(&mut self, text: &str) {
        if self.stage != Stage::Plan {
            return;
        }
        for path in text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::trim) {
            let is_derivation = path.starts_with('/') && path.ends_with(".drv");
            if is_derivation && self.missing.len() < DERIVATIONS_MAX {
                self.missing.push(path.to_owned());
            }
        }
    }

    /// Gives an error to the derivation that it names first; those of what depends on it name it later.
    fn take_error(&mut self, bare: &str, time_us: u64) {
        if self.stage != Stage::Build {
            return;
        }
        let named = bare.split('\'').find(|part| part.ends_with(".drv") && self.paths.contains_key(*part));
        if let Some(told) = named.and_then(|path| self.paths.get_mut(path)).filter(|told| told.error.is_empty()) {
            told.last_us = time_us;
            keep_end(&mut told.error, bare, TEXT_BYTES_MAX);
        }
    }
}

/// Adds a line and keeps at most so many bytes of the end.
fn keep_end(kept: &mut String, line: &str, bytes_max: usize) {
    if !kept.is_empty() {
        kept.push('\n');
    }
    kept.push_str(line);
    let surplus = kept.len().saturating_sub(bytes_max);
    let surplus = (surplus..=kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or(kept.len());
    kept.drain(..surplus);
}

/// The text without escape sequences that colour it.
fn without_colours(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut parts = text.split('\x1b');
    bare.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let rest = part.strip_prefix('[').and_then(|part| part.split_once(|letter: char| letter.is_ascii_alphabetic()));
        bare.push_str(rest.map_or_else(|| without_designation(part), |(_, rest)| rest));
    }
    bare
}

/// What stands behind the rest of a sequence such as `ESC ( B`: intermediate bytes and a final one (ECMA-35, 13.2). All, if it is none.
fn without_designation(part: &str) -> &str {
    let behind = part.trim_start_matches(|letter| matches!(letter, ' '..='/'));
    match behind.len() == part.len() {
        true => part,
        false => behind.strip_prefix(|letter| matches!(letter, '0'..='~')).unwrap_or(behind),
    }
}

/// What several share that listen to one build.
pub type SharedHeard = Arc<Mutex<Heard>>;

/// Locks it; a panic of another thread does not make it wrong.
pub fn lock(heard: &SharedHeard) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A log that keeps what Nix tells and passes on what people read of it.
pub struct NixLog {
    /// Where that goes.
    pub inner: Arc<dyn AttemptLog>,
    /// Where it is kept.
    pub heard: SharedHeard,
}

impl AttemptLog for NixLog {
    fn open_step(&self, step: u16) -> Box<dyn LogSink> {
        Box::new(NixSink {
            inner: self.inner.open_step(step),
            heard: Arc::clone(&self.heard),
            line: Vec::new(),
            time_us: 0,
        })
    }
}

struct NixSink {
    inner: Box<dyn LogSink>,
    heard: SharedHeard,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    time_us: u64,
}

impl NixSink {
    fn end_line(&mut self) -> Result<(), LogError> {
        let line = std::mem::take(&mut self.line);
        let shown = lock(&self.heard).line(&line, self.time_us);
        match shown {
            Some(mut shown) => {
                shown.push('\n');
                self.inner.write(Stream::Stderr, shown.as_bytes(), self.time_us)
            }
            None => Ok(()),
        }
    }

    fn stderr(&mut self, mut bytes: &[u8]) -> Result<(), LogError> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line()?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LINE_BYTES_MAX {
            let line = std::mem::take(&mut self.line);
            self.inner.write(Stream::Stderr, &line, self.time_us)?;
        }
        Ok(())
    }
}

impl LogSink for NixSink {
    fn write(&mut self, stream: Stream, bytes: &[u8], time_us: u64) -> Result<(), LogError> {
        self.time_us = time_us;
        match stream {
            Stream::Note => self.inner.write(stream, bytes, time_us),
            Stream::Stderr => self.stderr(bytes),
            Stream::Stdout => {
                let mut heard = lock(&self.heard);
                let room = ANSWER_BYTES_MAX.saturating_sub(heard.answers.len());
                heard.answers.extend_from_slice(&bytes[..room.min(bytes.len())]);
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.inner.flush()
    }

    fn close(mut self: Box<Self>) -> LogEnd {
        let rest = if self.line.is_empty() { Ok(()) } else { self.end_line() };
        let mut end = self.inner.close();
        end.failure = end.failure.or(rest.err());
        end
    }
}

#[cfg(test)]
mod tests {
    use super::{DERIVATIONS_MAX, Heard, TEXT_BYTES_MAX, without_colours};

    /// What is shown of these lines, which come a second apart.
    fn shown(heard: &mut Heard, lines: &[&str]) -> Vec<String> {
        lines.iter().zip(1_u64..).filter_map(|(line, second)| heard.line(line.as_bytes(), second * 1_000_000)).collect()
    }

    #[test]
    fn a_build_as_nix_2_8_tells_it() {
        let mut heard = Heard::default();
        let lines = [
            r#"@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m Git tree '/p' is dirty"}"#,
            r#"@nix {"action":"msg","level":4,"msg":"evaluating file '/s/flake.nix'"}"#,
            r#"@nix {"action":"start","id":1,"level":0,"text":"","type":104}"#,
            r#"@nix {"action":"start","fields":["/s/0-bad.drv","",1,1],"id":2,"level":3,"text":"","type":105}"#,
            r#"@nix {"action":"result","fields":[0,4,1,0],"id":1,"type":105}"#,
            r#"@nix {"action":"result","fields":["buildPhase"],"id":2,"type":104}"#,
            r#"@nix {"action":"result","fields":["this is wrong"],"id":2,"type":101}"#,
            r#"@nix {"action":"msg","column":null,"level":0,"msg":"\u001b[31;1merror:\u001b[0m builder for '\u001b[35;1m/s/0-bad.drv\u001b[0m' failed"}"#,
            r#"@nix {"action":"start","fields":["/s/1-good","https://cache"],"id":3,"level":3,"text":"","type":108}"#,
            r#"@nix {"action":"stop","id":3}"#,
            r#"@nix {"action":"stop","id":2}"#,
            "@ropewalk plan",
            r#"@nix {"action":"msg","level":0,"msg":"these 2 derivations will be built:"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"  /s/0-bad.drv\n  /s/2-next.drv"}"#,
        ];
        let expected = [
            "warning: Git tree '/p' is dirty",
            "building bad",
            "bad: buildPhase",
            "bad> this is wrong",
            "error: builder for '/s/0-bad.drv' failed",
            "fetching good from https://cache",
        ];
        assert_eq!(shown(&mut heard, &lines), expected);
        let bad = &heard.paths["/s/0-bad.drv"];
        assert_eq!((bad.began_us, bad.last_us, bad.has_ended), (4_000_000, 8_000_000, false));
        assert!(heard.paths["/s/1-good"].has_ended);
        assert_eq!(
            (bad.output.as_str(), bad.error.as_str()),
            ("this is wrong", "error: builder for '/s/0-bad.drv' failed")
        );
        assert_eq!(heard.missing, ["/s/0-bad.drv", "/s/2-next.drv"]);
    }

    #[test]
    fn a_build_that_ended_well_was_counted() {
        let mut heard = Heard::default();
        let start = |id: u64| format!(r#"@nix {{"action":"start","id":{id},"type":105,"fields":["/s/{id}-x.drv"]}}"#);
        let counted = |done: u64| format!(r#"@nix {{"action":"result","id":1,"type":105,"fields":[{done},3,0,0]}}"#);
        let stop = |id: u64| format!(r#"@nix {{"action":"stop","id":{id}}}"#);
        let lines = [r#"@nix {"action":"start","id":1,"type":104}"#.to_owned(), start(2), start(3), start(4)];
        let ends = [counted(1), stop(3), stop(2), counted(2), stop(4)];
        lines.iter().chain(&ends).for_each(|line| drop(heard.line(line.as_bytes(), 0)));
        let ended: Vec<bool> = heard.paths.values().map(|told| told.has_ended).collect();
        assert_eq!(ended, [false, true, true]);
    }

    #[test]
    fn what_is_not_understood_is_shown_or_passed_over() {
        let mut heard = Heard::default();
        let lines = [
            "plain",
            "@nix {",
            "@nix []",
            r#"@nix {"action":5}"#,
            r#"@nix {"action":"start","id":-1,"type":105,"fields":"no list"}"#,
            r#"@nix {"action":"start","id":1,"type":105,"fields":[7]}"#,
            r#"@nix {"action":"result","id":9,"type":101,"fields":["of nobody"]}"#,
            r#"@nix {"action":"stop"}"#,
            r#"@nix {"action":"msg"}"#,
            r#"@nix {"action":"msg","level":"high","msg":{}}"#,
            r#"@nix {"action":"dance","id":18446744073709551615}"#,
        ];
        assert_eq!(shown(&mut heard, &lines), ["plain", "@nix {", "@nix []", "of nobody", "", ""]);
        assert!(heard.paths.is_empty() && heard.missing.is_empty());
    }

    #[test]
    fn bounds() {
        let mut heard = Heard::default();
        for number in 0..DERIVATIONS_MAX + 2 {
            let line = format!(r#"@nix {{"action":"start","id":{number},"type":105,"fields":["/s/{number}-x.drv"]}}"#);
            assert_eq!(heard.line(line.as_bytes(), 0).as_deref(), Some("building x"));
        }
        assert_eq!((heard.paths.len(), heard.dropped), (DERIVATIONS_MAX, 2));
        let line =
            format!(r#"@nix {{"action":"result","id":0,"type":101,"fields":["{}é"]}}"#, "é".repeat(TEXT_BYTES_MAX));
        heard.line(line.as_bytes(), 0);
        heard.line(line.as_bytes(), 0);
        assert!(heard.paths["/s/0-x.drv"].output.len() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn colours() {
        for (text, bare) in [("a", "a"), ("\x1b[31;1me\x1b[0m", "e"), ("\x1b", ""), ("\x1bx", "x"), ("a\x1b[1", "a[1")]
        {
            assert_eq!(without_colours(text), bare);
        }
        assert_eq!(without_colours("\x1b(Bplain\x1b[m\x1b$(Cx\x1b(é"), "plainxé");
    }
}
