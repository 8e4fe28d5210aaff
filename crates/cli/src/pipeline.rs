//! The pipeline's files and its program, read once, and lowered as often as there are new answers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dialects::native::{self, Lowered, NamedFile, SourceFile, Triggered};
use dialects::report;
use graph::{Checkout, Diagnostic, Digest, Event, EventKind, Known, Severity};

use crate::args::Colour;
use crate::commands::Stop;
use crate::program::{self, Program, Source, evaluation};
use crate::project::{PIPELINE_FOLDER, Project};
use crate::{event, machine, output};

/// The largest file of a pipeline.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The kinds of events that are tried where a pipeline does not answer: those that need no flag but their own.
const TRIED: [EventKind; 5] =
    [EventKind::Push, EventKind::PullRequest, EventKind::Schedule, EventKind::Manual, EventKind::Api];

/// Why a pipeline was not read.
pub fn unread(shown: &str, error: &std::io::Error) -> Stop {
    Stop::wrong(format!("cannot read the pipeline {shown}: {error}"))
}

/// The most pipelines that are named where another one was asked for.
const NAMED_MAX: usize = 5;

/// Looks whether the file that somebody named for a pipeline is there.
///
/// # Errors
/// It is not; with what may have been meant.
pub fn find(project: &Project, path: &Path) -> Result<(), Stop> {
    match path.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let shown = path.strip_prefix(&project.root).unwrap_or(path).display().to_string();
            Err(missing(&shown, &error, project))
        }
        // What else is wrong, reading tells.
        _ => Ok(()),
    }
}

/// Why a file that is not there was not read, and what may have been meant.
fn missing(shown: &str, error: &std::io::Error, project: &Project) -> Stop {
    let mut stop = unread(shown, error);
    // A word alone may have been meant for a job.
    if !shown.contains(['/', '.']) {
        let job = crate::whereabouts::quoted(shown);
        stop.message.push_str(&format!("; `ropewalk run --job {job}` runs one job of the pipeline"));
    }
    let there = pipelines_of(project);
    let more = match there.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    stop.message.push_str(&match there.as_slice() {
        [] => "; `ropewalk init` writes one".to_owned(),
        [only] => format!("; there is {only}"),
        some => format!("; there are {}{more}", some[..some.len().min(NAMED_MAX)].join(", ")),
    });
    stop
}

/// The files in the project's folder for pipelines that may be one, sorted by name.
fn pipelines_of(project: &Project) -> Vec<String> {
    let entries = std::fs::read_dir(project.root.join(PIPELINE_FOLDER)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_pipeline = |name: &String| {
        let ending = Path::new(name).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        ["yaml", "yml", "json", "edn", "toml", "rs"].contains(&ending) && name != native::init::SCHEMA_FILE
    };
    let mut names: Vec<String> = names
        .filter(is_pipeline)
        .map(|name| format!("{PIPELINE_FOLDER}/{}", crate::columns::one_line(&name)))
        .collect();
    names.sort();
    names
}

/// Whether the user said what kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindChoice {
    /// The kind is fixed.
    Said,
    /// It may become a manual start if the pipeline does not answer otherwise.
    Free,
}

/// What becomes of a build by an event that the pipeline does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is nothing to do, and a note says so.
    Noted,
    /// Somebody asked for just this event, and a green build would hide that they mistyped it.
    Refused,
}

/// What a build that has begun keeps of its pipeline.
#[derive(Debug, Default)]
pub struct AtStart {
    /// The binary of its program; `None` of a pipeline of files alone, and where nobody noted it.
    pub program: Option<Digest>,
    /// Texts of files as they were then, by name in the project; what is not among them is read now.
    pub texts: BTreeMap<String, Vec<u8>>,
}

/// A pipeline as its files and its program say it.
pub struct Pipeline {
    files: Vec<SourceFile>,
    program: Option<Program>,
    /// What is wrong with the plugins that the files name; they are not built then.
    faults: Vec<Diagnostic>,
    /// The file that nothing reads because there is a package beside it.
    unread: Option<Diagnostic>,
    /// The last lowering and what it knew: most are asked for again at once.
    last: RefCell<Option<(Known, Rc<Lowered>)>>,
}

impl Pipeline {
    /// Reads the file given, or all that the project has; a program among it is built if anything changed.
    ///
    /// # Errors
    /// If there is none, or one cannot be read or does not compile.
    pub fn load(project: &Project, file: Option<&Path>, colour: Colour) -> Result<Self, Stop> {
        let (paths, source) = match file {
            Some(file) => {
                let path = std::env::current_dir().unwrap_or_default().join(file);
                find(project, &path)?;
                match Source::of(&path) {
                    Some(source) => (Vec::new(), Some(source)),
                    None => (vec![path], None),
                }
            }
            None => (project.pipeline_files(), program::find(project)),
        };
        if paths.is_empty() && source.is_none() {
            if let Some(bare) = project.bare_repository() {
                return Err(Stop::wrong(bare));
            }
            return Err(Stop::wrong(format!(
                "no pipeline in {}: `ropewalk init` writes one to .ropewalk/pipeline.yaml",
                project.root.display()
            )));
        }
        let unread = if file.is_none() { program::unread_file(project) } else { None };
        Ok(Self {
            unread: unread.map(unread_beside_package),
            ..Self::read(project, &paths, source, AtStart::default(), colour)?
        })
    }

    /// As [`Pipeline::load`], but `None` where files alone do not say it all, or there are none: nothing is built.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of_files(project: &Project, file: Option<&Path>) -> Result<Option<Self>, Stop> {
        let paths = match file {
            Some(file) => vec![project.root.join(file)],
            None => project.pipeline_files(),
        };
        let is_program = match file {
            Some(_) => paths.iter().any(|path| Source::of(path).is_some()),
            None => program::find(project).is_some(),
        };
        if is_program || paths.is_empty() {
            return Ok(None);
        }
        let files = Self::read_files(project, &paths, &mut BTreeMap::new())?;
        match program::plugins::of_files(project, &files) {
            Ok(None) => {
                Ok(Some(Self { files, program: None, faults: Vec::new(), unread: None, last: RefCell::default() }))
            }
            Ok(Some(_)) | Err(_) => Ok(None),
        }
    }

    /// Reads the files and the program that a build named.
    ///
    /// # Errors
    /// If one cannot be read or does not compile any more.
    pub fn named(project: &Project, name: &str, colour: Colour) -> Result<Self, Stop> {
        Self::begun(project, name, AtStart::default(), colour)
    }

    /// As [`Pipeline::named`], as a build has it that began earlier: with its files as they were then, and with the program that was built and tested then,
    /// whatever became of its sources.
    ///
    /// # Errors
    /// If a file cannot be read, or the program is not kept any more; of a build whose program nobody noted, if it does not compile any more.
    pub fn begun(project: &Project, name: &str, begun: AtStart, colour: Colour) -> Result<Self, Stop> {
        let (mut paths, mut source) = match name {
            "" => (project.pipeline_files(), program::find(project)),
            _ => (Vec::new(), None),
        };
        for path in name.split(", ").filter(|name| !name.is_empty()).map(|name| project.root.join(name)) {
            match Source::of(&path) {
                Some(program) => source = Some(program),
                None => paths.push(path),
            }
        }
        Self::read(project, &paths, source, begun, colour)
    }

    fn read(
        project: &Project,
        paths: &[PathBuf],
        source: Option<Source>,
        AtStart { program, mut texts }: AtStart,
        colour: Colour,
    ) -> Result<Self, Stop> {
        let files = Self::read_files(project, paths, &mut texts)?;
        let (source, faults) = match source {
            Some(source) => (Some(source), Vec::new()),
            None => {
                program::plugins::of_files(project, &files).map_or_else(|faults| (None, faults), |it| (it, Vec::new()))
            }
        };
        let program = match (source, program) {
            (None, _) => None,
            (Some(source), None) => Some(Program::build(project, source, colour)?),
            (Some(source), Some(digest)) => {
                let program = Program::kept(project, source, digest)?;
                texts.into_iter().for_each(|(name, text)| program.learn(name, text));
                Some(program)
            }
        };
        Ok(Self { files, program, faults, unread: None, last: RefCell::default() })
    }

    /// Takes out of `texts` what it holds.
    fn read_files(
        project: &Project,
        paths: &[PathBuf],
        texts: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<SourceFile>, Stop> {
        let mut files = Vec::new();
        for path in paths {
            let shown = path.strip_prefix(&project.root).unwrap_or(path).display().to_string();
            if let Some(text) = texts.remove(&shown) {
                files.push(SourceFile::new(shown, text));
                continue;
            }
            let refused = |error: std::io::Error| unread(&shown, &error);
            let length = std::fs::metadata(path).map_err(refused)?.len();
            if length > FILE_BYTES_MAX {
                return Err(Stop::wrong(format!(
                    "{shown} is larger than {FILE_BYTES_MAX} bytes, the most a pipeline may have"
                )));
            }
            let bytes = std::fs::read(path).map_err(refused)?;
            files.push(SourceFile::new(shown, bytes));
        }
        Ok(files)
    }

    /// The files' names and the program's, as builds record them.
    pub fn name(&self) -> String {
        let names = self.files.iter().map(|file| file.name.as_str());
        let program = self.program.as_ref().filter(|program| !program.is_of_files());
        names.chain(program.map(|program| program.name.as_str())).collect::<Vec<_>>().join(", ")
    }

    /// The program, if there is one.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    /// All that decides what the pipeline says: name and text of each file, name and digest of the program.
    pub fn texts(&self) -> Vec<(&str, &[u8])> {
        let files = self.files.iter().map(|file| (file.name.as_str(), file.text.as_slice()));
        files.chain(self.program.as_ref().map(|program| (program.name.as_str(), program.digest.0.as_slice()))).collect()
    }

    /// The graph for what is known. Whether the files are those of the commit is nothing to a pipeline: it is asked once,
    /// though that is found out meanwhile.
    pub fn lower(&self, known: &Known) -> Rc<Lowered> {
        let event = Event { checkout: Checkout::default(), ..known.event.clone() };
        let known = &Known { event, answers: known.answers.clone() };
        if let Some((then, lowered)) = &*self.last.borrow()
            && then == known
        {
            return Rc::clone(lowered);
        }
        let lowered = Rc::new(match &self.program {
            None => self.lower_files(known),
            Some(program) => evaluation::lower(program, &self.files, known),
        });
        *self.last.borrow_mut() = Some((known.clone(), Rc::clone(&lowered)));
        lowered
    }

    /// The graph for what is known, with texts that read the event or its parameters as they are written.
    pub fn as_written(&self, known: &Known) -> Lowered {
        match &self.program {
            None => native::lower_as_written(&self.files, known),
            Some(program) => evaluation::as_written(program, &self.files, known),
        }
    }

    /// The last lowering, if there was one.
    pub fn last_lowering(&self) -> Option<Rc<Lowered>> {
        self.last.borrow().as_ref().map(|(_, lowered)| Rc::clone(lowered))
    }

    /// The graph of files alone.
    fn lower_files(&self, known: &Known) -> Lowered {
        let mut lowered = native::lower(&self.files, known);
        if !self.faults.is_empty() {
            // That plugins were not asked follows from what is wrong with them.
            let diagnostics = &mut lowered.evaluation.diagnostics;
            diagnostics.retain(|diagnostic| diagnostic.code != "plugin-not-asked");
            diagnostics.splice(0..0, self.faults.iter().cloned());
        }
        lowered
    }

    /// Every fault that the files have whatever happens, and their sources.
    pub fn faults(&self) -> Lowered {
        let mut lowered = match &self.program {
            None => self.lower_files(&Known::of(Event::new(EventKind::Push))),
            Some(program) => evaluation::faults(program, &self.files),
        };
        lowered.evaluation.diagnostics.splice(0..0, self.unread.clone());
        lowered
    }

    /// The files of the repository that the files' jobs name.
    pub fn named_files(&self) -> Vec<NamedFile> {
        native::named_files(&self.files)
    }

    /// What the program says to the same question three times: twice in one process, once in another. `None` for a
    /// pipeline of files alone, which says the same by its nature.
    ///
    /// # Errors
    /// A sentence: the program could not be asked.
    pub fn thrice(&self, event: Event) -> Result<Option<[String; 3]>, String> {
        let Some(program) = &self.program else { return Ok(None) };
        evaluation::thrice(program, &self.files, event).map(Some)
    }

    /// Gives the event's parameters their types, and prints every fault.
    ///
    /// # Errors
    /// If the pipeline is wrong (it has been said then), or a parameter is, or it does not answer the event and that is refused.
    pub fn check(
        &self,
        event: &mut Event,
        choice: KindChoice,
        unanswered: Unanswered,
        colour: Colour,
    ) -> Result<(), Stop> {
        let lowered = match self.answer(event, choice, unanswered) {
            Ok(lowered) => lowered,
            Err(stop) => {
                // What is wrong with the files may be why: `params` that could not be read take nothing.
                let own = self.faults();
                if own.is_wrong() {
                    self.tell(&own.evaluation.diagnostics, &own, colour)?;
                }
                return Err(stop);
            }
        };
        let diagnostics: Vec<Diagnostic> = self.unread.iter().chain(&lowered.evaluation.diagnostics).cloned().collect();
        if diagnostics.is_empty() {
            return Ok(());
        }
        self.tell(&diagnostics, &lowered, colour)
    }

    /// Makes the event what the pipeline answers, as far as the user left that open, and gives its parameters their types.
    ///
    /// # Errors
    /// If a parameter is wrong, or the pipeline does not answer the event and that is refused.
    pub fn answer(&self, event: &mut Event, choice: KindChoice, unanswered: Unanswered) -> Result<Rc<Lowered>, Stop> {
        let mut lowered = self.lower(&Known::of(event.clone()));
        if choice == KindChoice::Free && lowered.triggered != Triggered::Yes {
            // What a person starts by hand is a manual start, if the pipeline takes one.
            let manual = Event { kind: EventKind::Manual, ..event.clone() };
            let as_manual = self.lower(&Known::of(manual.clone()));
            if as_manual.triggered == Triggered::Yes {
                (*event, lowered) = (manual, as_manual);
            }
        }
        if !event.params.is_empty() {
            event.params =
                event::typed(&event.params, &lowered.params, event::Asked::Parameter).map_err(Stop::wrong)?;
            lowered = self.lower(&Known::of(event.clone()));
        }
        event.params.clone_from(&lowered.filled);
        if let Triggered::No { reason } = &lowered.triggered {
            if event.kind == EventKind::Command {
                // Somebody asked for it by name: nothing to do is not what they meant.
                return Err(Stop::wrong(reason.clone()));
            }
            if event.parent.is_some() {
                // The job that asked for it would pass though nothing ran.
                return Err(Stop::wrong(format!(
                    "{} does not answer to the event `{}`: {reason}; say in the job that asks for it by which event, branch or \
                     command it is meant",
                    self.name(),
                    event.kind.name()
                )));
            }
            let told = format!("the pipeline does not answer to this event: {reason}; {}", self.other_events(event));
            if unanswered == Unanswered::Refused {
                return Err(Stop::wrong(told));
            }
            let _ = writeln!(std::io::stderr(), "note: {told}");
        }
        Ok(lowered)
    }

    /// By which flags the pipeline is run, if not by this event.
    fn other_events(&self, event: &Event) -> String {
        let answers = |kind: &EventKind| {
            let other = Event { kind: *kind, ..event.clone() };
            self.lower(&Known::of(other)).triggered == Triggered::Yes
        };
        // A program is only asked what it is meant to answer: each question takes a while.
        let kinds = if self.program.is_some() { &[][..] } else { &TRIED[..] };
        let flags: Vec<String> =
            kinds.iter().filter(|kind| answers(kind)).map(|kind| format!("`--event {}`", kind.name())).collect();
        match flags.is_empty() {
            true => "`--branch NAME`, `--tag NAME` or `--event KIND` say by which event it is run".to_owned(),
            false => format!("{} would run it", flags.join(" or ")),
        }
    }

    /// Prints the faults that came with answers: those of the lowering that the first one, which was told, has not.
    ///
    /// # Errors
    /// If one of them is an error.
    pub fn check_grown(&self, first: &Lowered, grown: &Lowered, colour: Colour) -> Result<(), Stop> {
        let told = &first.evaluation.diagnostics;
        let all = grown.evaluation.diagnostics.iter();
        let brought: Vec<Diagnostic> = all.filter(|diagnostic| !told.contains(diagnostic)).cloned().collect();
        if brought.is_empty() { Ok(()) } else { self.tell(&brought, grown, colour) }
    }

    /// Prints faults.
    ///
    /// # Errors
    /// If one of them is an error.
    fn tell(&self, diagnostics: &[Diagnostic], lowered: &Lowered, colour: Colour) -> Result<(), Stop> {
        let color = match output::coloured(colour, &std::io::stderr()) {
            true => report::Color::Always,
            false => report::Color::Never,
        };
        let _ = write!(std::io::stderr(), "{}", report::text(diagnostics, &lowered.sources, color));
        if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            return Err(Stop::wrong(format!("{}: {}; nothing was run", self.name(), report::summary(diagnostics))));
        }
        Ok(())
    }

    /// Whether this machine has what the jobs need that may run.
    ///
    /// # Errors
    /// If something is not installed (it has been said then, with what to install).
    pub fn check_machine(&self, event: &Event, only: &BTreeSet<String>, colour: Colour) -> Result<(), Stop> {
        let lowered = self.lower(&Known::of(event.clone()));
        let lacking = machine::lacking(&lowered.evaluation.graph, only);
        if lacking.is_empty() { Ok(()) } else { self.tell(&lacking, &lowered, colour) }
    }

    /// Whether every name in `wanted` is a job's id or full name, or may be that of a leg that is still to grow.
    ///
    /// # Errors
    /// Names the first that is not, with the nearest that is.
    pub fn check_names(&self, event: &Event, wanted: &BTreeSet<String>) -> Result<(), Stop> {
        if wanted.is_empty() {
            return Ok(());
        }
        let lowered = self.lower(&Known::of(event.clone()));
        let graph = &lowered.evaluation.graph;
        let names: BTreeSet<&str> = graph
            .jobs
            .keys()
            .flat_map(|name| [name.id(), name.as_str()])
            // What a program names with a colon, as `then:plan`, no job will be called.
            .chain(graph.holes.iter().map(|hole| hole.name.as_str()).filter(|name| !name.contains(':')))
            .collect();
        // Which legs a matrix comes to is not known while it is a hole. One that never comes is told when the build has grown.
        let may_grow =
            |name: &str| name.split_once('/').is_some_and(|(id, _)| graph.holes.iter().any(|hole| hole.name == id));
        match wanted.iter().find(|name| !names.contains(name.as_str()) && !may_grow(name)) {
            None => Ok(()),
            Some(name) if graph.holes.iter().any(|hole| hole.name == *name) => Err(Stop::wrong(format!(
                "`{name}` is where a program's jobs grow, and no job: name one that needs them, or run the whole pipeline"
            ))),
            Some(name) => {
                let hint = dialects::suggest::nearest(name, names.iter().copied())
                    .map_or_else(|| "`ropewalk plan` shows all".to_owned(), |near| format!("did you mean `{near}`?"));
                Err(Stop::wrong(format!("the pipeline has no job `{name}`: {hint}")))
            }
        }
    }
}

/// Warns of a file that is a program, and that nothing reads since a package is the program.
fn unread_beside_package(file: String) -> Diagnostic {
    let manifest = format!("{PIPELINE_FOLDER}/Cargo.toml");
    let message = format!("nothing reads {file}: {manifest} is there too, and a package goes first");
    let help =
        format!("move what {file} says into the package's src/main.rs and remove the file, or remove {manifest}");
    Diagnostic::warning("unread-program", message).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_asked_once_whether_or_not_the_tree_is_as_committed() {
        let text = b"jobs: { a: { run: \"echo '${{ event.kind }}'\" } }".to_vec();
        let files = vec![SourceFile { name: "pipeline.yaml".into(), notation: dialects::tree::Notation::Yaml, text }];
        let pipeline = Pipeline { files, program: None, faults: Vec::new(), unread: None, last: RefCell::default() };
        let event = Event::new(EventKind::Push);
        let before = pipeline.lower(&Known::of(event.clone()));
        let changed = Event { checkout: Checkout::Changed, ..event.clone() };
        assert!(Rc::ptr_eq(&before, &pipeline.lower(&Known::of(changed))));
        let other = Event { branch: Some("next".into()), ..event };
        assert!(!Rc::ptr_eq(&before, &pipeline.lower(&Known::of(other))));
    }
}
