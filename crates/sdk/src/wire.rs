//! The verbs of a program: requests come in, replies go out, a line each. What a line holds is written in
//! `docs/design/2026-11-21-rust-pipelines.md` of Ropewalk.
//!
//! Every request is evaluated by itself: nothing is left over from the one before.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::panic::{self, AssertUnwindSafe};

use crate::ci::{AtBound, Ci};
use crate::clock;
use crate::document;
use crate::function;
use crate::hook::Hook;
use crate::json::Json;
use crate::mark::Files;
use crate::plugin;

/// The version of what crosses; program and binary must have the same.
pub(crate) const PROTOCOL: i64 = 1;

/// The longest request in bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// Exit code of a call that was not understood.
const EXIT_USAGE: i32 = 2;
/// Exit code where a request could not be read or a reply not written.
const EXIT_WIRE: i32 = 3;

const USAGE: &str = "\
this is a pipeline of Ropewalk; it does nothing by itself
  ropewalk run     runs it
  ropewalk plan    shows its jobs
  ropewalk test    runs its tests
";

/// Does what the command line says; gives the exit code.
pub(crate) fn main(hooks: &[Hook]) -> i32 {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["evaluate"] => match serve(hooks) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("the pipeline's program cannot talk with ropewalk: {error}");
                EXIT_WIRE
            }
        },
        ["run", job] => function::run(job, |place| {
            let function::Place { event, answers, hooks: numbers, document } = place;
            let request = Request { event, answers, hooks: Some(numbers), document };
            evaluate(hooks, request)
        }),
        _ => {
            eprint!("{USAGE}");
            EXIT_USAGE
        }
    }
}

/// Answers requests until there are no more.
fn serve(hooks: &[Hook]) -> io::Result<()> {
    let mut replies = replies_alone()?;
    note_panics();
    forget_environment();
    clock::take_away();
    let mut requests = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let n_bytes = requests.by_ref().take(REQUEST_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
        if n_bytes == 0 {
            return Ok(());
        }
        if n_bytes as u64 > REQUEST_BYTES_MAX {
            return Err(io::Error::other(format!("a request is longer than {REQUEST_BYTES_MAX} bytes")));
        }
        let mut reply = match str::from_utf8(&line).map_err(|error| error.to_string()).and_then(Request::read) {
            Ok(request) => answer(hooks, request),
            Err(message) => refusal(&message),
        };
        reply.push('\n');
        replies.write_all(reply.as_bytes())?;
        replies.flush()?;
    }
}

/// Where replies go. What the program itself prints from here on goes to stderr and cannot get between them.
fn replies_alone() -> io::Result<File> {
    unsafe extern "C" {
        fn dup2(from: i32, to: i32) -> i32;
    }
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: takes two numbers and no memory; both are open, and nobody holds stdout as an owner.
    if unsafe { dup2(2, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(stdout))
}

/// Takes away what the sandbox itself says: bubblewrap tells the program by `PWD` where it has put it.
fn forget_environment() {
    for (name, _) in std::env::vars_os() {
        // SAFETY: the program has begun no other thread of ours, and what runs in an evaluation has no environment to read.
        unsafe { std::env::remove_var(name) };
    }
}

/// What the binary asks.
pub(crate) struct Request {
    pub event: Json,
    /// Question (as canonical text) to answer.
    pub answers: HashMap<String, Json>,
    /// Which hooks to evaluate; `None` only asks what they are.
    pub hooks: Option<Vec<usize>>,
    /// The native document of the files beside the program.
    pub document: Json,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// A sentence, if it is no request of this protocol.
    pub fn read(line: &str) -> Result<Self, String> {
        let json = Json::read(line).map_err(|error| format!("the request is no JSON: {error}"))?;
        if json.get("protocol") != Some(&Json::from(PROTOCOL)) {
            return Err(format!("the request has not protocol {PROTOCOL}"));
        }
        let hooks = match json.get("hooks") {
            None | Some(Json::Null) => None,
            Some(list) => Some(list.items().iter().map(hook_number).collect::<Result<_, _>>()?),
        };
        let take = |name: &str| json.get(name).cloned().unwrap_or_default();
        let answers = take("answers").items().iter().map(question_and_answer).collect::<Result<_, _>>()?;
        Ok(Self { event: take("event"), answers, hooks, document: take("document") })
    }
}

fn hook_number(json: &Json) -> Result<usize, String> {
    let number = if let Json::Int(number) = json { usize::try_from(*number).ok() } else { None };
    number.ok_or_else(|| format!("`{json}` is no number of a hook"))
}

fn question_and_answer(json: &Json) -> Result<(String, Json), String> {
    match json.items() {
        [question, answer] => Ok((question.to_string(), answer.clone())),
        _ => Err(format!("`{json}` is no question with its answer")),
    }
}

/// The reply to a request, without the line's end.
pub(crate) fn answer(hooks: &[Hook], request: Request) -> String {
    match &request.hooks {
        None => hooks_reply(hooks),
        Some(_) => document::reply(&evaluate(hooks, request), hooks),
    }
}

/// What every reply begins with.
pub(crate) fn reply_head() -> String {
    format!("{{\"protocol\":{PROTOCOL},\"sdk\":\"{}\"", env!("CARGO_PKG_VERSION"))
}

fn refusal(message: &str) -> String {
    let diagnostic = Json::object([("code", "bad-request".into()), ("message", message.into())]);
    format!("{},\"diagnostics\":[{diagnostic}]}}", reply_head())
}

fn hooks_reply(hooks: &[Hook]) -> String {
    let mut files = Files::default();
    let hooks = described(hooks, &mut files);
    let files: Vec<&str> = files.names().collect();
    format!("{},\"hooks\":{hooks},\"files\":{}}}", reply_head(), Json::from(files))
}

/// The hooks as every reply has them: which events start which.
pub(crate) fn described(hooks: &[Hook], files: &mut Files) -> Json {
    let described = hooks.iter().map(|hook| {
        let mut entries = vec![("name".to_owned(), hook.name.as_str().into())];
        if let Some(triggers) = &hook.triggers {
            entries.push(("on".to_owned(), Json::Object(triggers.iter().map(crate::hook::Trigger::entry).collect())));
        }
        entries.push(("@".to_owned(), files.json(hook.mark)));
        Json::Object(entries)
    });
    Json::List(described.collect())
}

/// Calls the hooks that are asked for. What goes wrong in them is in the evaluation's diagnostics.
pub(crate) fn evaluate(hooks: &[Hook], request: Request) -> Ci {
    let numbers = request.hooks.unwrap_or_default();
    let ci = Ci::new(request.event, request.answers, numbers.clone()).with_document(request.document);
    for number in numbers {
        match hooks.get(number) {
            Some(hook) => call(hook, &ci),
            None => ci.shared.borrow_mut().diagnostic(Json::object([
                ("code", "no-hook".into()),
                ("message", format!("the program has no hook {number}").into()),
            ])),
        }
    }
    plugin::complete_jobs_of_files(&ci);
    ci
}

fn call(hook: &Hook, ci: &Ci) {
    match panic::catch_unwind(AssertUnwindSafe(|| (hook.run)(ci))) {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            let message = format!("the pipeline `{}` failed: {}", hook.name, failure.message());
            let help = "the function that adds its jobs returned this error";
            ci.shared.borrow_mut().fault("pipeline-failed", message, "this pipeline", help, hook.mark, &[]);
        }
        Err(payload) if payload.is::<AtBound>() => {}
        Err(payload) => panicked(hook, ci, &*payload),
    }
}

/// Where a panic began.
struct Place {
    file: String,
    line: u32,
    column: u32,
}

thread_local! {
    /// Where the last panic of this thread began.
    static PANICKED_AT: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// Panics are noted, to be told as diagnostics, and not printed.
fn note_panics() {
    panic::set_hook(Box::new(|panic| {
        let place =
            panic.location().map(|at| Place { file: at.file().to_owned(), line: at.line(), column: at.column() });
        PANICKED_AT.set(place);
    }));
}

/// The words of a panic.
pub(crate) fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a value that is no text").to_owned()
}

fn panicked(hook: &Hook, ci: &Ci, payload: &(dyn Any + Send)) {
    let said = said(payload);
    let mut shared = ci.shared.borrow_mut();
    let of_hook = shared.files.json(hook.mark);
    let place = match PANICKED_AT.take() {
        Some(Place { file, line, column }) => shared.files.place(&file, line, column),
        None => of_hook.clone(),
    };
    let related = Json::object([("@", of_hook), ("remark", "the pipeline that was asked for its jobs".into())]);
    shared.diagnostic(Json::object([
        ("code", "pipeline-panicked".into()),
        ("message", format!("the pipeline `{}` panicked: {said}", hook.name).into()),
        ("label", "here".into()),
        ("help", "return a `Result<(), Failure>` to tell what is wrong without a panic".into()),
        ("@", place),
        ("related", Json::List(vec![related])),
    ]));
}
