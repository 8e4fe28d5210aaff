//! What a process says of itself on standard error, a line at a time: for people, or as JSON (`server.log`). What is said never
//! fails: there may be nobody left to read it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use api::time::Time;
use graph::Timestamp;

use crate::settings::LogForm;

/// Of the whole process, as its standard error is.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Says how lines are written from now on.
pub fn set_form(form: LogForm) {
    IS_JSON.store(form == LogForm::Json, Ordering::Relaxed);
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Info,
    Warning,
    Error,
}

/// Tells what happens.
pub fn info(text: &str) {
    say(Level::Info, text);
}

/// Tells what somebody should look at.
pub fn warning(text: &str) {
    say(Level::Warning, text);
}

/// Tells what went wrong.
pub fn error(text: &str) {
    say(Level::Error, text);
}

/// Tells what is wrong with a text that somebody wrote, as reports show it: for people as it stands.
pub fn report(text: &str) {
    if is_json() {
        error(text.trim_end());
    } else {
        write(text);
    }
}

fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// One write, so that no other process stands in the middle of it.
fn write(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn say(level: Level, text: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Timestamp(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
    let form = if is_json() { LogForm::Json } else { LogForm::Human };
    write(&written(form, at, level, text));
}

fn written(form: LogForm, at: Timestamp, level: Level, text: &str) -> String {
    let word = match level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    match (form, level) {
        (LogForm::Human, Level::Info) => format!("{text}\n"),
        (LogForm::Human, Level::Warning | Level::Error) => format!("{word}: {text}\n"),
        (LogForm::Json, _) => {
            let line = serde_json::json!({ "time": Time(at), "level": word, "message": text });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_for_people_or_for_programs() {
        let line = |form, level| written(form, Timestamp(0), level, "say \"hi\"");
        assert_eq!(line(LogForm::Human, Level::Info), "say \"hi\"\n");
        assert_eq!(line(LogForm::Human, Level::Warning), "warning: say \"hi\"\n");
        let expected =
            "{\"level\":\"error\",\"message\":\"say \\\"hi\\\"\",\"time\":\"1970-01-01T00:00:00.000000Z\"}\n";
        assert_eq!(line(LogForm::Json, Level::Error), expected);
    }
}
