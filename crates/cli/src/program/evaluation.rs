//! Asks a program for its document and lowers it together with the config files beside it.

use std::collections::BTreeMap;
use std::rc::Rc;

use dialects::native::{JobPlaces, Lowered, SourceFile, Triggered, Triggers};
use dialects::program::{self, NamedFile, Reply};
use dialects::tree::{Sources, Span};
use graph::{Diagnostic, Evaluation, Event, EventKind, Known};

use super::{Program, Source};

/// The largest source that is read to show lines of it.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The graph of a program and of the config files beside it, for what is known. A program that cannot be asked is an error
/// among the diagnostics.
pub fn lower(program: &Program, files: &[SourceFile], known: &Known) -> Lowered {
    let evaluate = || {
        let hooks = program::triggered_hooks(&*hooks(program, known)?, files, &known.event);
        evaluated(program, files, known, &hooks)
    };
    evaluate().unwrap_or_else(|message| unanswered(program, known, message))
}

/// As [`lower`], with texts that read the event or its parameters as they are written.
pub fn as_written(program: &Program, files: &[SourceFile], known: &Known) -> Lowered {
    let evaluate = || {
        let hooks = program::triggered_hooks(&*hooks(program, known)?, files, &known.event);
        let reply = asked(program, files, known, &hooks)?;
        program::lower_as_written(&reply, &mut named_file(program), files, known, program.digest)
            .map_err(|error| error.to_string())
    };
    evaluate().unwrap_or_else(|message| unanswered(program, known, message))
}

/// Every fault of a program: evaluated for a push, and for each of its hooks.
pub fn faults(program: &Program, files: &[SourceFile]) -> Lowered {
    let known = Known::of(Event::new(EventKind::Push));
    let mut lowered = lower(program, files, &known);
    let Ok(hooks) = hooks(program, &known) else { return lowered };
    for (event, hooks) in trials(&hooks, files) {
        let known = Known::of(event);
        match evaluated(program, files, &known, &hooks) {
            Ok(other) => {
                let diagnostics = &mut lowered.evaluation.diagnostics;
                let fresh = other.evaluation.diagnostics.into_iter().filter(|fault| !diagnostics.contains(fault));
                let fresh: Vec<_> = fresh.collect();
                diagnostics.extend(fresh);
            }
            Err(message) => return unanswered(program, &known, message),
        }
    }
    lowered
}

/// What a program says to the same request the first and the second time in one process, and in a new one.
///
/// # Errors
/// A sentence: it could not be asked.
pub fn thrice(program: &Program, files: &[SourceFile], event: Event) -> Result<[String; 3], String> {
    let known = Known::of(event);
    let hooks = program::triggered_hooks(&*hooks(program, &known)?, files, &known.event);
    let request = program::request(&known, Some(&hooks), Some(&program::document(files)));
    program.forget();
    let (first, second) = (program.ask(&request)?, program.ask(&request)?);
    program.forget();
    Ok([first, second, program.ask(&request)?])
}

/// Events that between them start every hook, and the files, that some made-up event starts, each with the hooks it starts; hooks
/// that need a name nobody can guess are tried for a push.
fn trials(reply: &Reply, files: &[SourceFile]) -> Vec<(Event, Vec<usize>)> {
    let names: Vec<String> = reply.hooks().map(str::to_owned).collect();
    let mut events: Vec<Event> =
        EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Command).map(named).collect();
    events.extend(names.iter().map(|name| Event { command: Some(name.clone()), ..Event::new(EventKind::Command) }));
    let mut trials = Vec::new();
    let mut tried = vec![false; names.len()];
    let mut are_files_tried = files.is_empty();
    for event in events {
        let hooks = program::triggered_hooks(reply, files, &event);
        let are_files_new = !are_files_tried && program::files_answer(files, &event);
        if are_files_new || hooks.iter().any(|hook| !tried[*hook]) {
            are_files_tried |= are_files_new;
            hooks.iter().for_each(|hook| tried[*hook] = true);
            trials.push((event, hooks));
        }
    }
    let rest = (0..names.len()).filter(|hook| !tried[*hook]);
    trials.extend(rest.map(|hook| (named(EventKind::Push), vec![hook])));
    trials
}

fn named(kind: EventKind) -> Event {
    let main = || Some("main".to_owned());
    let mut event = Event::new(kind);
    match kind {
        EventKind::Tag => event.tag = Some("v1.0.0".to_owned()),
        EventKind::PullRequest => (event.branch, event.base) = (Some("change".to_owned()), main()),
        _ => event.branch = main(),
    }
    event
}

/// What hooks the program has; asked once.
fn hooks(program: &Program, known: &Known) -> Result<Rc<Reply>, String> {
    if let Some(reply) = &*program.hooks.borrow() {
        return Ok(Rc::clone(reply));
    }
    let reply = program.ask(&program::request(known, None, None))?;
    let reply = Rc::new(program::read(&reply).map_err(|error| error.to_string())?);
    *program.hooks.borrow_mut() = Some(Rc::clone(&reply));
    Ok(reply)
}

fn evaluated(program: &Program, files: &[SourceFile], known: &Known, hooks: &[usize]) -> Result<Lowered, String> {
    let reply = asked(program, files, known, hooks)?;
    let memory = &mut *program.memory.borrow_mut();
    program::lower_again(&reply, &mut named_file(program), files, known, program.digest, memory)
        .map_err(|error| error.to_string())
}

/// What the program replies for these hooks.
fn asked(program: &Program, files: &[SourceFile], known: &Known, hooks: &[usize]) -> Result<String, String> {
    let document = (!files.is_empty()).then(|| program::document(files));
    program.ask(&program::request(known, Some(hooks), document.as_ref()))
}

/// A file of the program by the name that a reply has for it.
fn named_file(program: &Program) -> impl FnMut(&str) -> NamedFile {
    |file| {
        let name = program.shown(file);
        NamedFile { text: program.text(&name), name }
    }
}

/// What is said where the program could not be asked.
fn unanswered(program: &Program, known: &Known, message: String) -> Lowered {
    let help = format!("`ropewalk check` asks {} again", program.name);
    let mut diagnostic = Diagnostic::error("program-failed", message).help(help);
    let mut sources = Sources::new();
    if let Some((name, text)) = program.main_file()
        && let Some(start) = text.find(MAIN).and_then(|start| u32::try_from(start).ok())
    {
        let source = sources.add(&name, text.into());
        let location = sources.location(Span { source, start, end: start + MAIN.len() as u32 });
        diagnostic = diagnostic.at(location, "the program begins here");
    }
    Lowered {
        event: known.event.clone(),
        evaluation: Evaluation { diagnostics: vec![diagnostic], ..Evaluation::default() },
        sources,
        triggers: Triggers::Everything,
        parts: Vec::new(),
        triggered: Triggered::Yes,
        params: BTreeMap::new(),
        filled: BTreeMap::new(),
        places: JobPlaces::default(),
        conditions: Vec::new(),
    }
}

/// How a program's `main` is written.
const MAIN: &str = "fn main()";

impl Program {
    /// The file that `main` is commonly in, by its name for users, and its text.
    fn main_file(&self) -> Option<(String, String)> {
        let name = match &self.place.source {
            Source::File(_) => self.name.clone(),
            Source::Package(manifest) => {
                let file = manifest.with_file_name("src").join("main.rs");
                file.strip_prefix(&self.place.root).ok()?.display().to_string()
            }
            Source::Plugins(_) => return None,
        };
        Some((name.clone(), self.text(&name)?))
    }

    /// Takes the text of a source, by its name for users, for what is shown of it.
    pub fn learn(&self, name: String, text: Vec<u8>) {
        self.texts.borrow_mut().insert(name, String::from_utf8(text).ok());
    }

    /// The text of a source, by its name for users, as it was when it was first asked for.
    fn text(&self, name: &str) -> Option<String> {
        let mut texts = self.texts.borrow_mut();
        let read = || {
            let path = self.place.root.join(name);
            let is_small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= FILE_BYTES_MAX);
            if is_small { std::fs::read_to_string(path).ok() } else { None }
        };
        texts.entry(name.to_owned()).or_insert_with(read).clone()
    }
}

#[cfg(test)]
mod tests {
    use dialects::native::SourceFile;
    use dialects::program;

    use super::trials;

    #[test]
    fn hooks_and_files_are_tried_by_an_event_that_starts_them() {
        let check = |on: &str, expected: &[(&str, &[usize])]| {
            let reply = r#"{"protocol": 1, "sdk": "0.1.0", "files": ["a.rs"], "document": {}, "hooks": [
                {"name": "ci", "@": [0, 1, 1], "on": {"push": {}}},
                {"name": "guess", "@": [0, 2, 1], "on": {"tag": {"names": ["x"]}}}]}"#;
            let reply = program::read(reply).expect("a reply");
            let files: Vec<SourceFile> =
                [on].into_iter().filter(|on| !on.is_empty()).map(|on| SourceFile::new("pipeline.yaml", on)).collect();
            let trials = trials(&reply, &files);
            let tried: Vec<_> = trials.iter().map(|(event, hooks)| (event.kind.name(), hooks.as_slice())).collect();
            assert_eq!(tried, expected, "{on}");
        };
        check("", &[("push", &[0]), ("push", &[1])]);
        check("on: push", &[("push", &[0]), ("push", &[1])]);
        check("jobs: {}", &[("push", &[0]), ("push", &[1])]);
        check("on: [tag, schedule]", &[("push", &[0]), ("tag", &[]), ("push", &[1])]);
        check("on: []", &[("push", &[0]), ("push", &[1])]);
    }
}
