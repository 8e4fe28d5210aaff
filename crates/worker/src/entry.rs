//! Entering what an attempt left: a command among the files, variables and walls that a step of it ended with. Nothing runs again.
//!
//! Whoever enters the end works in the kept workspace itself; whoever enters another moment works in a fresh layer above what is kept of it,
//! which goes when they leave, so that the next finds the same. So does whoever is given secrets, or does not see all. What kind of place is
//! entered is told by [`graph::Environment`]: [`Entry::command`] is where another kind is added.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use graph::{AttemptNumber, BuildId, Environment};

use crate::attempt::{LeftBehind, LeftStep};
use crate::container::VisitError;
use crate::container::visit::{Visit, Visiting};
use crate::keeper::{self, View};
use crate::place::{environment_file, program_file, workspace_directory};
use crate::sandbox::{Sandbox, SandboxError, Walls, hand_on};
use crate::variables::Variables;
use crate::withheld::{self, Drawn, Shut, Veil};
use crate::worker::{Inheritance, inherited_now};
use crate::workspace::{Layer, TEMPORARY, UPPER, Workspace, WorkspaceError, layer_directory, remove_tree};

/// The most steps that an error lists.
const STEPS_LISTED_MAX: usize = 12;

/// At which moment of a job somebody enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// As everything ended; what is changed stays.
    End,
    /// Before the first step.
    Start,
    /// As the step left it that failed first.
    Failed,
    /// As this step left it: its number, from 1, its id, or its name.
    Step(String),
}

impl Moment {
    /// What stands after `@`: `start`, `failed`, a number, an id or a name.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "start" => Self::Start,
            "failed" => Self::Failed,
            step => Self::Step(step.to_owned()),
        }
    }
}

/// Why nothing can be entered.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The workspace is not there any more.
    #[error("nothing is kept of it")]
    Gone,
    /// Nothing is known of the job's steps.
    #[error("it ended before anything was noted of its steps; without `@` its files open as they are")]
    Unknown,
    /// No step of this name or number ran.
    #[error("no step `{wanted}` ran: it has {ran}")]
    NoStep {
        /// What was asked for.
        wanted: String,
        /// Those that ran.
        ran: String,
    },
    /// None failed.
    #[error("no step of it failed; without `@failed` its files open as it left them, with `@start` as it found them")]
    NoneFailed,
    /// The files at this moment were not kept.
    #[error("the files {when} are not kept: {reason}")]
    Unkept {
        /// `before the first step`, `as step 2 left them`.
        when: String,
        /// Why.
        reason: String,
    },
    /// The job had no such secret.
    #[error("the job had no secret `{0}`")]
    NoSecret(String),
    /// Its files may hold secrets that were not given.
    #[error("its files are not shown without its secrets, since {reason}{}", flags(.names))]
    Shut {
        /// Why they cannot be told apart.
        reason: String,
        /// The secrets that are needed.
        names: Vec<String>,
    },
    /// It cannot be told where its steps ran.
    #[error(
        "it was killed, or ended before its first step, under a version of ropewalk that did not note where steps run: outside of its sandbox or \
         container it is not opened; `ropewalk retry` runs it again"
    )]
    NoEnvironment,
    /// It is to be entered in a container, and there was none.
    #[error(
        "nothing is noted of its container: its steps had none yet, or its worker was killed; `ropewalk show` says which, `ropewalk retry` runs \
         it again"
    )]
    NoContainer,
    /// It ran where nobody can be let in.
    #[error("a shell cannot be opened in the environment `{0}` here")]
    NoExecutor(&'static str),
    /// No sandbox can be had here.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No container can be had here.
    #[error(transparent)]
    Container(#[from] VisitError),
    /// The workspace cannot be opened.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The system refused.
    #[error("prepare the shell: {0}")]
    Refused(#[from] io::Error),
}

/// What to do about secrets that are needed.
fn flags(names: &[String]) -> String {
    let flags: Vec<String> = names.iter().map(|name| format!("--secret {name}")).collect();
    if flags.is_empty() { String::new() } else { format!("; {} gives them anew", flags.join(" ")) }
}

/// An opened moment of an attempt.
#[derive(Debug)]
pub struct Entry {
    data: PathBuf,
    workspace: Workspace,
    left: Option<LeftBehind>,
    /// Where its steps ran.
    environment: Environment,
    /// The names of the secrets that the steps had.
    names: BTreeSet<String>,
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    /// `before the first step`, `as step 2 (make) left them`.
    when: String,
    /// The workspace's files, and maybe a sandbox's `/tmp`. Empty for a copy.
    views: Vec<View>,
    /// What becomes a sandbox's `/tmp`.
    temporary: PathBuf,
    /// What is not shown, in words: files that hold a secret which was not given, or did not come from the worker that ran it.
    hidden: Option<String>,
    /// What a sandbox finds empty besides `data`.
    walled_off: Vec<PathBuf>,
    /// What is seen in place of all kept workspaces: other jobs' files are not for whoever enters this one. `None` for a copy, which lies
    /// among them.
    covered: Option<PathBuf>,
    /// What commands have with a container engine. Taken away before the files are.
    visits: Mutex<Vec<Visiting>>,
    /// Goes with this.
    fresh: Option<Fresh>,
}

/// A directory of one visit, removed at its end.
#[derive(Debug)]
struct Fresh(PathBuf);

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// How many visits this process has had.
static VISITS: AtomicU64 = AtomicU64::new(0);

impl Fresh {
    /// Made in the workspace's directory; what killed visitors left there is taken away.
    fn new(workspace: &Path) -> io::Result<Self> {
        let visits = workspace.join("visits");
        fs::create_dir_all(&visits)?;
        for entry in fs::read_dir(&visits)?.flatten() {
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.split_once('.')?.0.parse().ok());
            let process = process.and_then(rustix::process::Pid::from_raw);
            let is_gone = process
                .is_some_and(|process| rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH));
            if is_gone {
                let _ = remove_tree(&entry.path());
            }
        }
        let number = VISITS.fetch_add(1, Ordering::Relaxed);
        let directory = visits.join(format!("{}.{number}", std::process::id()));
        fs::create_dir(&directory)?;
        Ok(Self(directory))
    }
}

impl Entry {
    /// Opens an attempt of which something is kept in `data`, at a moment, with these of its secrets given anew. The build's snapshot must be
    /// there. Without all of its secrets, files that hold one are not there; with any, nothing that is changed stays.
    ///
    /// # Errors
    /// [`EntryError`]; [`EntryError::NoSecret`] for a secret that the steps did not have.
    pub fn open(
        data: &Path,
        build: BuildId,
        attempt: AttemptNumber,
        moment: &Moment,
        secrets: BTreeMap<String, String>,
    ) -> Result<Self, EntryError> {
        let directory = workspace_directory(data, build, attempt);
        if !directory.join("workspace.json").is_file() {
            return Err(EntryError::Gone);
        }
        let left = fs::read(environment_file(data, build, attempt)).ok();
        let left: Option<LeftBehind> = left.and_then(|text| serde_json::from_slice(&text).ok());
        let found = match (&left, moment) {
            (Some(left), moment) if *moment != Moment::End || left.arrived.is_some() => Some(find(left, moment)?),
            // It failed before its first step ran: the end is how that left them.
            (None, Moment::Failed) | (_, Moment::End) => None,
            (_, _) => return Err(EntryError::Unknown),
        };
        let names = secrets_of(&directory, left.as_ref());
        if let Some(name) = secrets.keys().find(|name| !names.contains(*name)) {
            return Err(EntryError::NoSecret(name.clone()));
        }
        let veil = Veil::of(&directory, left.as_ref(), &secrets);
        let veil = veil.map_err(|Shut { reason, names }| EntryError::Shut { reason, names })?;
        let workspace = Workspace::reopen(&directory)?;
        let environment = environment_of(&workspace, left.as_ref())?;
        let found = match found {
            None if !veil.is_empty() || !secrets.is_empty() => {
                end_above(&workspace, &environment, &left, &veil, &names)?
            }
            found => found,
        };
        let mut entry = Self::at(data, workspace, environment, left, found, &veil)?;
        entry.names = names;
        entry.variables.extend(secrets);
        Ok(entry)
    }

    fn at(
        data: &Path,
        workspace: Workspace,
        environment: Environment,
        left: Option<LeftBehind>,
        found: Option<Found>,
        veil: &Veil,
    ) -> Result<Self, EntryError> {
        let Some(Found { layer, variables, directory, mut when }) = found else {
            let temporary = workspace.temporary()?;
            let End { variables, directory, when } = End::of(&workspace, &environment, left.as_ref());
            let view = workspace.view();
            let covered = view.as_ref().map(|_| workspace.directory().join("nothing"));
            covered.as_ref().map_or(Ok(()), fs::create_dir_all)?;
            return Ok(Self {
                data: data.to_owned(),
                views: view.into_iter().collect(),
                workspace,
                left,
                environment,
                names: BTreeSet::new(),
                variables,
                directory,
                when: when.to_owned(),
                temporary,
                hidden: None,
                walled_off: Vec::new(),
                covered,
                visits: Mutex::default(),
                fresh: None,
            });
        };
        match layer {
            Layer::Unkept(reason) => return Err(EntryError::Unkept { when, reason }),
            Layer::Kept(folder) if !layer_directory(workspace.directory(), folder).is_dir() => {
                let reason = "what is kept of steps took more than it may, and the oldest went first".to_owned();
                return Err(EntryError::Unkept { when, reason });
            }
            _ => {}
        }
        let fresh = Fresh::new(workspace.directory())?;
        let view = workspace.view_above(&layer, &fresh.0.join("files"))?;
        let Some(view) = view else {
            let reason = "the workspace is a copy at another path, of which the end alone is kept".to_owned();
            return Err(EntryError::Unkept { when, reason });
        };
        let shown = workspace.temporary_above(&layer, &fresh.0.join("tmp"))?;
        let temporary = match &shown {
            Some(view) => view.target.clone(),
            None => fresh.0.join("tmp"),
        };
        fs::create_dir_all(&temporary)?;
        if shown.is_none() && left.as_ref().is_some_and(|left| left.container.is_some()) {
            // Whoever the image's user is writes there.
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777))?;
        }
        let parts: Vec<PathBuf> = [UPPER, TEMPORARY].iter().filter_map(|part| layer.part(part)).collect();
        for (part, view) in parts.iter().zip([Some(&view), shown.as_ref()]) {
            if let Some(view) = view {
                match veil.draw(workspace.directory(), part, &view.upper)? {
                    Drawn::All => {}
                    Drawn::NotThere => return Err(not_there(workspace.directory(), left.as_ref())),
                }
            }
        }
        let covered = fresh.0.join("nothing");
        fs::create_dir(&covered)?;
        let covered = Some(covered);
        let hidden = veil.words(&parts);
        if let Some(hidden) = &hidden {
            when = format!("{when}; {hidden}");
        }
        // What stayed on the worker that ran it is in these words already.
        let arrived = left.as_ref().and_then(|left| left.arrived.as_ref());
        let hidden =
            hidden.or_else(|| arrived.map(|arrived| arrived.notes.join("; ")).filter(|notes| !notes.is_empty()));
        let data = data.to_owned();
        let views = [view].into_iter().chain(shown).collect();
        let (names, visits, fresh) = (BTreeSet::new(), Mutex::default(), Some(fresh));
        Ok(Self {
            data,
            workspace,
            left,
            environment,
            names,
            variables,
            directory,
            when,
            views,
            temporary,
            hidden,
            walled_off: Vec::new(),
            covered,
            visits,
            fresh,
        })
    }

    /// What is not there, in words, since not all of the job's secrets were given or it came from another worker; [`Entry::when`] says it too.
    #[must_use]
    pub fn hidden(&self) -> Option<&str> {
        self.hidden.as_deref()
    }

    /// Which files one sees, in words: `as step 2 (make) left them`.
    #[must_use]
    pub fn when(&self) -> &str {
        &self.when
    }

    /// Whether what is changed here is there the next time.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.fresh.is_none()
    }

    /// The names of the secrets that the steps had.
    #[must_use]
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// The shell of a person who names none: their own, but in a container, which has not the machine's programs, the one that its steps
    /// need too.
    #[must_use]
    pub fn shell(&self, own: String) -> String {
        match self.environment {
            Environment::Image { .. } | Environment::Dockerfile { .. } => "/bin/sh".to_owned(),
            _ => own,
        }
    }

    /// Sets a variable, such as `TERM`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Has a sandbox find these directories empty, too: where others keep theirs. As [`crate::Settings::walled_off`].
    pub fn wall_off(&mut self, directories: Vec<PathBuf>) {
        self.walled_off = directories;
    }

    /// A command of this process that runs inside, where the step ran, with its variables and nothing recorded. It must have ended before
    /// this is dropped. The keeper is not needed; the mounts end with the last process in them.
    ///
    /// # Errors
    /// There can be no such place here.
    pub fn command(&self, program: &OsStr, arguments: &[OsString]) -> Result<Command, EntryError> {
        let environment = &self.environment;
        if environment.container().is_some() {
            return self.in_container(environment, program, arguments);
        }
        let mut inside = self.plain(program, arguments);
        // A shell enters the directory, so that its variable PWD is right, and says so where it is not there.
        behind(&mut inside, ENTER_SCRIPT, [self.directory.clone().into()]);
        // A sandbox does not see the worker's folder, but is made of things in it.
        let is_walled = matches!(environment, Environment::Sandbox { .. });
        let cover = self.cover().filter(|_| !is_walled);
        let mut filter = None;
        match environment {
            Environment::Host => {}
            // What a Nix shell gives are variables, which are kept as all others.
            Environment::Nix { nix } => {
                let program = crate::nix::find().map(PathBuf::into_os_string).unwrap_or_default();
                let (root, reference) = (self.workspace.root().into(), nix.as_plain().unwrap_or_default().into());
                behind(&mut inside, crate::nix::ENTRY_SCRIPT, ["enter".into(), program, reference, root]);
            }
            Environment::Sandbox { network } => {
                let tree = self.workspace.tree();
                let hidden: Vec<PathBuf> = self.walled_off.iter().chain([&self.data]).cloned().collect();
                inside.directory.clone_from(&tree);
                let programs = self.left.iter().flat_map(|left| &left.programs);
                let programs = programs.map(|digest| program_file(&self.data, *digest));
                // One that went by its age, or is not on this worker, is missed by what asks for it alone.
                let programs: Vec<PathBuf> = programs.filter(|program| program.is_file()).collect();
                let walls = Walls {
                    root: &tree,
                    temporary: &self.temporary,
                    network: *network,
                    hidden: &hidden,
                    writable: &[],
                    readable: &programs,
                };
                Sandbox::find()?.enclose(&mut inside, &walls);
                filter = Some(Sandbox::keep_from_typing(&mut inside)?);
            }
            other => return Err(EntryError::NoExecutor(other.word())),
        }
        let mut command = self.entering(inside, cover);
        if let Some(filter) = filter {
            // SAFETY: the child makes two system calls.
            unsafe { command.pre_exec(move || hand_on(&filter)) };
        }
        Ok(command)
    }

    /// An empty folder over all kept workspaces, for whoever no walls keep from looking into them.
    fn cover(&self) -> Option<View> {
        let nothing = self.covered.as_ref()?;
        let target = crate::place::workspaces(&self.data);
        Some(View { target, lower: Vec::new(), upper: nothing.clone(), work: nothing.clone(), beside: None })
    }

    fn in_container(
        &self,
        environment: &Environment,
        program: &OsStr,
        arguments: &[OsString],
    ) -> Result<Command, EntryError> {
        let left = self.left.as_ref().and_then(|left| left.container.as_ref()).ok_or(EntryError::NoContainer)?;
        let settings = environment.container().cloned().unwrap_or_default();
        if self.is_lasting() && !self.views.is_empty() {
            // What the job's own mount left there the kernel refuses to a second one.
            self.workspace.renew()?;
        }
        let tree = self.workspace.tree();
        let visit = Visit {
            data: &self.data,
            left,
            settings: &settings,
            view: self.views.first(),
            temporary_view: self.views.get(1),
            tree: &tree,
            temporary: &self.temporary,
            directory: &self.directory,
            variables: &self.variables,
        };
        let (command, visiting) = visit.command(program, arguments)?;
        self.visits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(visiting);
        Ok(command)
    }

    fn plain(&self, program: &OsStr, arguments: &[OsString]) -> keeper::Command {
        let mut environment = Variables::default();
        for (name, value) in &self.variables {
            environment.insert(name, value);
        }
        keeper::Command {
            marker: String::new(),
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            environment,
            directory: self.directory.clone(),
            view: None,
            role: keeper::Role::Step,
            attachment: None,
        }
    }

    fn entering(&self, inside: keeper::Command, cover: Option<View>) -> Command {
        let views = self.views.iter().cloned().chain(cover).collect();
        let mut command = self.workspace.command(inside.program, views);
        command.args(inside.arguments).env_clear().envs(inside.environment.iter());
        command
    }
}

/// Starts a command in the directory `$0`, or, where that is not there, in the nearest one above it.
const ENTER_SCRIPT: &str = r#"
enter() {
    if cd "${1:-/}" 2> /dev/null; then
        test "$1" = "$0" || printf '`%s` is not there, or cannot be entered: this is `%s`\n' "$0" "${1:-/}" >&2
    elif test -n "$1"; then
        enter "${1%/*}"
    fi
}
enter "$0"
exec "$@"
"#;

/// Has a command started by a script of `/bin/sh`, which finds these words before the command's own, the first as `$0`.
fn behind<const N: usize>(command: &mut keeper::Command, script: &str, words: [OsString; N]) {
    let program = std::mem::replace(&mut command.program, "/bin/sh".into());
    let arguments = std::mem::take(&mut command.arguments);
    command.arguments = ["-c".into(), script.into()].into_iter().chain(words).chain([program]).collect();
    command.arguments.extend(arguments);
}

/// The names of the secrets that an attempt had.
fn secrets_of(directory: &Path, left: Option<&LeftBehind>) -> BTreeSet<String> {
    match left {
        Some(left) => left.withheld.clone(),
        None => withheld::noted_names(directory),
    }
}

/// What is to be hidden cannot be.
fn not_there(directory: &Path, left: Option<&LeftBehind>) -> EntryError {
    let reason = "files that hold a secret are not where they were noted (was the data folder copied?)".to_owned();
    EntryError::Shut { reason, names: secrets_of(directory, left).into_iter().collect() }
}

/// Where the steps ran.
///
/// # Errors
/// Nobody can tell, or it was to be a container of which nothing is known.
fn environment_of(workspace: &Workspace, left: Option<&LeftBehind>) -> Result<Environment, EntryError> {
    let environment = left.map(|left| &left.environment).or(workspace.environment());
    let environment = environment.ok_or(EntryError::NoEnvironment)?;
    let is_missed = environment.container().is_some() && left.is_none_or(|left| left.container.is_none());
    if is_missed { Err(EntryError::NoContainer) } else { Ok(environment.clone()) }
}

/// The end of an attempt, in which all files are as it left them.
struct End {
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    when: &'static str,
}

impl End {
    fn of(workspace: &Workspace, environment: &Environment, left: Option<&LeftBehind>) -> Self {
        if let Some(left) = left {
            let (variables, directory) = (left.variables.clone(), left.directory.clone());
            return Self { variables, directory, when: AT_END };
        }
        let inherited = match environment {
            Environment::Sandbox { .. } => inherited_now(Inheritance::Sandbox),
            _ => inherited_now(Inheritance::Host),
        };
        let text = |text: &OsStr| text.to_str().map(str::to_owned);
        let variables = inherited.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect();
        Self {
            variables,
            directory: workspace.root(),
            when: "as it left them; the variables of its steps were not noted",
        }
    }
}

/// Which files the end has.
const AT_END: &str = "as it left them";

/// The end for somebody who sees not all of it, or has secrets: below a layer of their own. A copy has no layers: it is entered itself, by whoever
/// has all secrets, and nobody else afterwards.
fn end_above(
    workspace: &Workspace,
    environment: &Environment,
    left: &Option<LeftBehind>,
    veil: &Veil,
    names: &BTreeSet<String>,
) -> Result<Option<Found>, EntryError> {
    if workspace.view().is_some() {
        let End { variables, directory, when } = End::of(workspace, environment, left.as_ref());
        return Ok(Some(Found { layer: Layer::End, variables, directory, when: when.to_owned() }));
    }
    let names: Vec<String> = names.iter().cloned().collect();
    if !veil.others().is_empty() {
        let others = veil.others().join(", ");
        let reason = format!(
            "the job had another value of {others} than the one that was given, and the workspace is a copy at another path, in which what a shell with secrets writes would stay"
        );
        return Err(EntryError::Shut { reason, names });
    }
    if veil.is_empty() {
        withheld::forget(workspace.directory())?;
        return Ok(None);
    }
    let reason =
        "some hold one, and the workspace is a copy at another path, in which nothing can be hidden".to_owned();
    Err(EntryError::Shut { reason, names })
}

/// A moment that was found.
struct Found {
    layer: Layer,
    variables: BTreeMap<String, String>,
    directory: PathBuf,
    when: String,
}

/// Where the files of a moment are.
///
/// # Errors
/// There is no such moment.
pub(crate) fn layer_of(left: &LeftBehind, moment: &Moment) -> Result<Layer, EntryError> {
    find(left, moment).map(|found| found.layer)
}

fn find(left: &LeftBehind, moment: &Moment) -> Result<Found, EntryError> {
    let found = find_moment(left, moment)?;
    let notes = left.arrived.iter().flat_map(|arrived| &arrived.notes);
    let when = notes.fold(found.when, |when, note| when + "; " + note);
    Ok(Found { when, ..found })
}

fn find_moment(left: &LeftBehind, moment: &Moment) -> Result<Found, EntryError> {
    let step = match moment {
        Moment::Start => {
            let Some(first) = left.steps.first() else { return Err(EntryError::Unknown) };
            let variables = first.variables(&left.variables);
            let (layer, directory) = (left.start.clone(), first.directory.clone());
            return Ok(Found { layer, variables, directory, when: "as they were before the first step".to_owned() });
        }
        Moment::Failed => {
            let failed = left.failed.ok_or(EntryError::NoneFailed)?;
            left.steps.iter().find(|step| step.step == failed).ok_or(EntryError::Unknown)?
        }
        Moment::Step(text) => find_step(left, text)?,
        Moment::End => {
            let layer = left.arrived.as_ref().map_or(Layer::End, |arrived| arrived.end.clone());
            let (variables, directory) = (left.variables.clone(), left.directory.clone());
            return Ok(Found { layer, variables, directory, when: AT_END.to_owned() });
        }
    };
    let (layer, directory) = (step.layer.clone(), step.directory.clone());
    Ok(Found {
        layer,
        variables: step.variables(&left.variables),
        directory,
        when: format!("as {} left them", word(step)),
    })
}

/// `step 2 (make)`.
fn word(step: &LeftStep) -> String {
    format!("step {} ({})", u32::from(step.step) + 1, step.name)
}

/// The step of this number, or else of this id, or else of this name.
fn find_step<'a>(left: &'a LeftBehind, text: &str) -> Result<&'a LeftStep, EntryError> {
    let number = text.parse::<u32>().ok();
    let by_number = left.steps.iter().find(|step| number == Some(u32::from(step.step) + 1));
    let by_id = || left.steps.iter().find(|step| step.id.as_deref() == Some(text));
    let found = by_number.or_else(by_id).or_else(|| left.steps.iter().find(|step| step.name == text));
    found.ok_or_else(|| {
        let listed = left.steps.iter().take(STEPS_LISTED_MAX);
        let mut ran: Vec<String> = listed.map(|step| format!("{} ({})", u32::from(step.step) + 1, step.name)).collect();
        if left.steps.len() > ran.len() {
            ran.push("…".to_owned());
        }
        EntryError::NoStep { wanted: text.chars().take(100).collect(), ran: ran.join(", ") }
    })
}

#[cfg(test)]
mod tests;
