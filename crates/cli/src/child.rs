//! Builds that jobs of other builds ask for.
//!
//! A `ropewalk` that a step starts in the workspace of its build works on the project of that build ([`Inside`]): numbers,
//! records and caches are the same. `run` there makes a child build, of the files that the step sees. The job waits for it, or
//! (`--later`) asks for it: then the child is recorded at once, so that no death loses it, and begins when the outermost build
//! has ended, in the same process ([`go_on`]). There is no list of requests beside the store: a request is a build that was
//! created and never begun.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use engine::{BuildRequest, Fact, fact::What};
use graph::{BuildId, Event, EventKind, JobName, NeedResult, Outcome, Parent, Verdict, Waits};
use serde_json::Value;
use store::rows::BuildRow;
use store::{BuildFilter, Store, builds_above};

use crate::args::{Colour, EventArguments, RunHow};
use crate::commands::Stop;
use crate::local::clock::now;
use crate::places::Places;
use crate::project::Project;
use crate::whereabouts::quoted;
use crate::{exit, output};

/// The most builds that may stand above a build.
const DEPTH_MAX: u32 = Parent::DEPTH_MAX;

/// How far above a build's number those of its children are looked for.
pub const CHILDREN_WITHIN: u64 = 500;

/// The most builds without an end among which requests are looked for: the newest.
const UNFINISHED_MAX: usize = 1000;

/// The step that started this process.
#[derive(Clone, Debug)]
pub struct Inside {
    /// What is kept of its project.
    pub data: PathBuf,
    /// Its build.
    pub build: BuildId,
    /// Its job.
    pub job: JobName,
    /// How many seconds it has once it is asked to end.
    pub grace: u64,
}

impl Inside {
    /// What the environment says of the step, if `root` is the workspace that it was given. A step with `ROPEWALK_DATA` of its
    /// own wants to be on its own.
    pub fn of_environment(root: &Path) -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let workspace = PathBuf::from(set("ROPEWALK_WORKSPACE")?).canonicalize().ok()?;
        if set("ROPEWALK_DATA").is_some() || workspace != root {
            return None;
        }
        Some(Self {
            data: set(worker::PROJECT_DATA_VARIABLE).map(PathBuf::from).filter(|data| data.is_absolute())?,
            build: BuildId(set("ROPEWALK_BUILD")?.to_str()?.parse().ok()?),
            job: set("ROPEWALK_JOB")?.to_str()?.into(),
            grace: set(worker::GRACE_VARIABLE)?.to_str()?.parse().ok()?,
        })
    }

    /// How long jobs of the child have to end: half of what the step has, so that jobs that clean up find time too.
    pub fn grace(&self, wanted: u64) -> u64 {
        wanted.min(self.grace / 2)
    }

    /// Makes the event that of a child: what the arguments do not say is as with the parent, and never is it trusted more.
    ///
    /// # Errors
    /// If the parent is not kept here, or there are too many above it already.
    pub fn adopt(
        &self,
        event: &mut Event,
        arguments: &EventArguments,
        waits: Waits,
        store: &dyn Store,
    ) -> Result<(), Stop> {
        let Some(parent) = store.build(self.build)? else {
            return Err(Stop::wrong(format!(
                "build {}, whose job `{}` runs this, is not in `{}`: a job in a sandbox cannot run builds, nor can scripts of a \
                 server's builds: there a job asks for a build by its only step, `run: [{{ build: {{ file: … }} }}]` (in a Rust \
                 program: `ci.build`), and the server makes it",
                self.build,
                self.job,
                self.data.display()
            )));
        };
        let depth = parent.event.parent.as_ref().map_or(0, |parent| parent.depth) + 1;
        if depth > DEPTH_MAX {
            return Err(Stop::wrong(format!(
                "{DEPTH_MAX} builds stand above this one, the most there may be: {}",
                chain(store, parent)?
            )));
        }
        if arguments.event.is_none() && arguments.tag.is_none() && arguments.command.is_none() {
            event.kind = EventKind::Build;
        }
        let said = std::mem::replace(event, parent.event);
        event.kind = said.kind;
        event.command = said.command;
        event.params = said.params;
        event.time = said.time;
        event.tag = said.tag.or(event.tag.take());
        event.base = said.base.or(event.base.take());
        if arguments.branch.is_some() || event.branch.is_none() {
            event.branch = said.branch;
        }
        if let Some(actor) = &arguments.actor {
            event.actor.clone_from(actor);
        }
        event.parent = Some(Parent { build: self.build, job: self.job.clone(), depth, waits });
        Ok(())
    }
}

/// Finds a build that asks for itself: an ancestor with the same pipeline and the same event would ask for it again, for ever.
///
/// # Errors
/// If there is such an ancestor.
pub fn refuse_circle(request: &BuildRequest, store: &dyn Store) -> Result<(), Stop> {
    for ancestor in builds_above(store, &request.event)? {
        if ancestor.pipeline == request.pipeline && ancestor.event.says_the_same(&request.event) {
            return Err(Stop::wrong(format!(
                "build {} runs {} for the same event and would be asked for by itself, for ever: another event, parameter \
                 or pipeline ends the circle",
                ancestor.build, ancestor.pipeline
            )));
        }
    }
    Ok(())
}

/// The outermost of the builds above one with this event that wait for what is below them.
///
/// # Errors
/// As the store refuses.
pub fn waiting_above(store: &dyn Store, event: &Event) -> Result<Option<BuildId>, Stop> {
    let waits = |event: &Event| event.parent.as_ref().is_some_and(|parent| parent.waits == Waits::ForVerdict);
    if !waits(event) {
        return Ok(None);
    }
    let above = builds_above(store, event)?;
    let n_waiting = above.iter().take_while(|row| waits(&row.event)).count();
    Ok(above.get(n_waiting).or(above.last()).map(|row| row.build))
}

/// The jobs that wait for a build with this event, and for those above it: the nearest first.
///
/// # Errors
/// As the store refuses.
pub fn jobs_waiting_above(store: &dyn Store, event: &Event) -> Result<Vec<(BuildId, JobName)>, Stop> {
    let above = builds_above(store, event)?;
    let events = std::iter::once(event).chain(above.iter().map(|row| &row.event));
    let waiting = events.map_while(|event| event.parent.as_ref().filter(|parent| parent.waits == Waits::ForVerdict));
    Ok(waiting.map(|parent| (parent.build, parent.job.clone())).collect())
}

fn chain(store: &dyn Store, last: BuildRow) -> Result<String, Stop> {
    let mut numbers = vec![last.build.to_string()];
    numbers.extend(builds_above(store, &last.event)?.iter().map(|row| row.build.to_string()));
    numbers.reverse();
    Ok(format!("build {}", numbers.join(" asked for ")))
}

/// Records a build that is to begin when the outermost one has ended, and says so. Asked again by the same job before it has
/// begun, as a second try does, it is the same build.
///
/// # Errors
/// As the store refuses.
pub fn ask(request: BuildRequest, places: &Places) -> Result<u8, Stop> {
    let store = &*places.store;
    let outermost = builds_above(store, &request.event)?.last().map(|row| row.build).unwrap_or_default();
    let is_same = |row: &BuildRow| {
        row.event.parent == request.event.parent
            && row.pipeline == request.pipeline
            && row.event.says_the_same(&request.event)
    };
    let build = match requests(places)?.iter().find(|row| is_same(row)) {
        Some(row) => row.build,
        None => {
            let build = store.reserve_build()?;
            store.append(&[Fact { build, at: now(), what: What::BuildCreated(Box::new(request)) }])?;
            build
        }
    };
    output::print(format!("build {build} is asked for: it begins when build {outermost} has ended\n"))?;
    Ok(exit::PASSED)
}

/// Whether a build was asked for and has not begun, nor does anything wait for it.
pub fn is_request(row: &BuildRow) -> bool {
    let is_later = row.event.parent.as_ref().is_some_and(|parent| parent.waits == Waits::No);
    is_later && row.verdict == Verdict::Running && row.started.is_none() && row.open_gates == 0
}

/// The builds that were asked for and have not begun, the oldest first.
fn requests(places: &Places) -> Result<Vec<BuildRow>, Stop> {
    let mut found = Vec::new();
    let unfinished = places.store.unfinished()?;
    for build in &unfinished[unfinished.len().saturating_sub(UNFINISHED_MAX)..] {
        let row = places.store.build(*build)?.filter(is_request);
        if let Some(row) = row
            && !places.is_run(*build)?
        {
            found.push(row);
        }
    }
    Ok(found)
}

/// Whether a job of another build asked for this one and waits for its end. One that somebody has tried again is theirs.
pub fn has_waiting_job(row: &BuildRow) -> bool {
    row.event.parent.as_ref().is_some_and(|parent| parent.waits == Waits::ForVerdict) && row.retry_of.is_none()
}

/// Whether it has such a job, which so asks for it anew if nobody runs it. A canceled one only cleans up.
fn is_asked_anew(row: &BuildRow) -> bool {
    has_waiting_job(row) && row.canceled_by.is_none()
}

/// The build by whose `run --resume` a build that nobody runs goes on: that of the job which waits for it and asks for it anew, as long as
/// it has not ended; else its own. `build` gives the row of a number.
///
/// # Errors
/// As `build` fails.
pub fn resumed_by(row: &BuildRow, build: impl Fn(BuildId) -> Result<Option<BuildRow>, Stop>) -> Result<BuildId, Stop> {
    let mut outermost = row.clone();
    for _ in 0..DEPTH_MAX {
        let asker = outermost.event.parent.as_ref().filter(|_| is_asked_anew(&outermost)).map(|parent| parent.build);
        let Some(asker) = asker else { break };
        match build(asker)? {
            Some(above) if above.verdict == Verdict::Running => outermost = above,
            _ => break,
        }
    }
    Ok(outermost.build)
}

/// Refuses to go on with a build for which a job of another waited: the work would be done twice, and nobody would learn how it ended.
///
/// # Errors
/// If it is such a build.
pub fn refuse_waited_for(build: BuildId, store: &dyn Store) -> Result<(), Stop> {
    let Some(row) = store.build(build)?.filter(is_asked_anew) else { return Ok(()) };
    let asker = resumed_by(&row, |build| Ok(store.build(build)?))?;
    let job = row.event.parent.as_ref().map(|parent| parent.job.to_string()).unwrap_or_default();
    Err(Stop::wrong(if asker == build {
        format!(
            "the job `{job}` that waited for build {build} has ended without it: `ropewalk cancel {build}` gives it up"
        )
    } else {
        format!(
            "build {build} is one for which a job waits, `{job}`, and which that job asks for anew: `ropewalk run --resume {asker}` goes on \
             with both"
        )
    }))
}

/// The build that `run --resume` goes on with if none is named: the newest that has not ended, that nobody runs, and above which none is
/// unended, since that one comes first. If there is none, the newest that has nothing to do before a gate is answered, or else that somebody
/// runs.
///
/// # Errors
/// As the store refuses.
pub fn newest_unfinished(places: &Places) -> Result<Option<BuildId>, Stop> {
    let store = &*places.store;
    let (mut waits, mut run) = (None, None);
    for build in store.unfinished()?.into_iter().rev().take(UNFINISHED_MAX) {
        let Some(row) = store.build(build)?.filter(|row| !is_asked_anew(row)) else { continue };
        let above = builds_above(store, &row.event)?;
        if above.iter().any(|above| above.verdict == Verdict::Running) {
            continue;
        }
        if places.is_run(build)? {
            run = run.or(Some(build));
        } else if row.open_gates == 0 || has_lost(store, build)? {
            return Ok(Some(build));
        } else {
            waits = waits.or(Some(build));
        }
    }
    Ok(waits.or(run))
}

/// Whether an attempt of a build that nobody runs was begun and has not ended.
fn has_lost(store: &dyn Store, build: BuildId) -> Result<bool, Stop> {
    Ok(store.attempts(build, None)?.iter().any(|attempt| attempt.ended.is_none()))
}

/// Says which builds were asked for and never begun, because whoever was to begin them was killed or canceled.
///
/// # Errors
/// As the store refuses.
pub fn tell_forgotten(places: &Places) -> Result<(), Stop> {
    for row in requests(places)? {
        let mut is_coming = false;
        for ancestor in builds_above(&*places.store, &row.event)? {
            is_coming |= ancestor.verdict == Verdict::Running && places.is_run(ancestor.build)?;
        }
        if !is_coming {
            tell(&row);
        }
    }
    Ok(())
}

fn tell(row: &BuildRow) {
    let (build, asker) = (row.build, row.event.parent.as_ref().map(|parent| parent.build).unwrap_or_default());
    let _ = writeln!(
        std::io::stderr(),
        "note: build {build}, asked for by build {asker}, has not begun: `ropewalk run --resume {build}` begins it, \
         `ropewalk cancel {build}` gives it up"
    );
}

/// Which build this process began with, and its exit code so far: `BUILD:CODE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// The build.
    pub build: BuildId,
    /// The code.
    pub code: u8,
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is no BUILD:CODE");
        let (build, code) = text.split_once(':').ok_or_else(form)?;
        Ok(Self { build: BuildId(build.parse().map_err(|_| form())?), code: code.parse().map_err(|_| form())? })
    }
}

/// Begins the next build that was asked for below the outermost one, in place of this process; gives the exit code if there
/// is none: that of the first build that did not pass. After a cancel none is begun, and they are named.
///
/// # Errors
/// As the store refuses.
pub fn go_on(
    (build, code): (BuildId, u8),
    how: &RunHow,
    places: &Places,
    project: &Project,
    colour: Colour,
) -> Result<u8, Stop> {
    let outermost = how.after.map_or(build, |after| after.build);
    let code_so_far = how.after.map_or(exit::PASSED, |after| after.code);
    let code_so_far = if code_so_far == exit::PASSED { code } else { code_so_far };
    let is_waiting = how.after.is_none() && code == exit::WAITING;
    if project.inside.is_some() || is_waiting {
        return Ok(code_so_far);
    }
    for row in requests(places)? {
        // In order of number, so that none that cannot begin is tried for ever.
        let is_next = row.build > build;
        if !is_next || builds_above(&*places.store, &row.event)?.iter().all(|above| above.build != outermost) {
            continue;
        }
        if code == exit::CANCELED {
            tell(&row);
            continue;
        }
        let after = After { build: outermost, code: code_so_far };
        let error = begin(row.build, after, how, project, colour);
        let _ = writeln!(std::io::stderr(), "note: could not go on: {error}");
        tell(&row);
    }
    Ok(code_so_far)
}

/// Replaces this process by one that runs `build`; comes back only if that fails.
fn begin(build: BuildId, after: After, how: &RunHow, project: &Project, colour: Colour) -> std::io::Error {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => return error,
    };
    let word =
        |value: Option<clap::builder::PossibleValue>| value.map_or(String::new(), |value| value.get_name().to_owned());
    let mut command = Command::new(binary);
    command.arg("-C").arg(&project.root).arg("--color").arg(word(colour.to_possible_value()));
    command.arg("run").arg("--resume").arg(build.to_string());
    command.arg("--after").arg(format!("{}:{}", after.build, after.code));
    command.arg("--output").arg(word(how.output.to_possible_value())).arg("--grace").arg(how.grace.to_string());
    if let Some(parallel) = how.parallel {
        command.arg("--parallel").arg(parallel.to_string());
    }
    if let Some(secrets) = &how.secrets {
        command.arg("--secrets").arg(secrets);
    }
    if how.no_reuse {
        command.arg("--no-reuse");
    }
    let _ = std::io::stdout().flush();
    command.exec()
}

/// The builds that jobs of `build` asked for, in order of number.
///
/// # Errors
/// As the store refuses.
pub fn children(store: &dyn Store, build: BuildId) -> Result<Vec<BuildRow>, Stop> {
    let limit = u32::try_from(CHILDREN_WITHIN).unwrap_or(u32::MAX);
    let newer = store.builds(&BuildFilter::default(), Some(BuildId(build.0 + 1 + CHILDREN_WITHIN)), limit)?;
    let is_child = |row: &BuildRow| row.event.parent.as_ref().is_some_and(|parent| parent.build == build);
    Ok(newer.into_iter().rev().filter(is_child).collect())
}

/// Hands outputs of jobs of a build on as outputs of the step that runs it: each `JOB.OUTPUT`, or `JOB.OUTPUT=NAME`.
///
/// # Errors
/// If one is not there, or no step runs this.
pub fn hand_on(wanted: &[String], build: BuildId, store: &dyn Store) -> Result<(), Stop> {
    if wanted.is_empty() {
        return Ok(());
    }
    let path = std::env::var_os("ROPEWALK_OUTPUT").ok_or_else(|| {
        Stop::wrong("--hand-on is for steps of a build: there is no ROPEWALK_OUTPUT to hand anything on")
    })?;
    let results = results(store, build)?;
    let mut text = String::new();
    for one in wanted {
        let (from, name) = match one.split_once('=') {
            Some((from, name)) => (from, Some(name)),
            None => (one.as_str(), None),
        };
        let (job, output) = from
            .rsplit_once('.')
            .ok_or_else(|| Stop::wrong(format!("--hand-on takes JOB.OUTPUT or JOB.OUTPUT=NAME, not `{one}`")))?;
        let value = results.get(&JobName::from(job)).and_then(|result| result.outputs.get(output));
        let value = value.ok_or_else(|| {
            Stop::wrong(format!(
                "the job `{job}` of build {build} handed on no `{output}`: see `ropewalk show {build} {}`",
                quoted(job)
            ))
        })?;
        text.push_str(&entry(name.unwrap_or(output), value));
    }
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(&path).map_err(|error| Stop::of(&error))?;
    file.write_all(text.as_bytes()).map_err(|error| Stop::of(&error))
}

/// What the jobs of a build handed on; of a matrix also under its id, as `needs` tells it.
fn results(store: &dyn Store, build: BuildId) -> Result<BTreeMap<JobName, NeedResult>, Stop> {
    let graph = store.graph(build)?.unwrap_or_default();
    let ended = store.jobs(build)?.into_iter().filter_map(|row| Some((row.name, row.outcome?)));
    let mut results: BTreeMap<JobName, NeedResult> = ended
        .map(|(name, outcome)| {
            let result = outcome.word().to_owned();
            let outputs = if let Outcome::Passed { outputs } = outcome { outputs } else { BTreeMap::new() };
            (name, NeedResult { result, outputs, artifacts: BTreeMap::new() })
        })
        .collect();
    graph::legs::join(&mut results, |name| graph.jobs.get(name).map_or(u32::MAX, |job| job.order));
    Ok(results)
}

/// `name<<END`, the lines, `END`, with an end that is none of the lines.
fn entry(name: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut end = "END".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    format!("{name}<<{end}\n{text}\n{end}\n")
}

#[cfg(test)]
mod tests {
    use engine::What;
    use graph::{BuildId, Waits};
    use serde_json::json;
    use store::Store;

    use super::{After, entry, newest_unfinished};
    use crate::places::kept::Kept;

    #[test]
    fn a_build_goes_on_that_nobody_runs_and_that_has_something_to_do() {
        let mut kept = Kept::new();
        let found = |kept: &Kept| newest_unfinished(&kept.places()).map_err(|stop| stop.message);
        let at_a_gate = What::GateOpened { job: "a".into(), prompt: "go?".to_owned() };
        assert_eq!(found(&kept), Ok(None));
        kept.build(&["a"]).fact(at_a_gate.clone());
        assert_eq!(found(&kept), Ok(Some(BuildId(1))));
        kept.build(&["a"]).lease("a");
        assert_eq!(found(&kept), Ok(Some(BuildId(2))));
        // A child comes after its parent, whether a job waits for it or not.
        kept.child(2, Waits::No);
        kept.child(2, Waits::ForVerdict).lease("a");
        kept.build(&["a"]).fact(at_a_gate);
        assert_eq!(found(&kept), Ok(Some(BuildId(2))));
        kept.build(&["a"]).lease("a");
        let claim = kept.store().claim(BuildId(6)).expect("the store answers").expect("it is free");
        assert_eq!(found(&kept), Ok(Some(BuildId(2))));
        drop(claim);
        assert_eq!(found(&kept), Ok(Some(BuildId(6))));
        kept.go_on(BuildId(2)).end();
        kept.go_on(BuildId(6)).end();
        assert_eq!(found(&kept), Ok(Some(BuildId(3))));
        kept.go_on(BuildId(3)).end();
        kept.go_on(BuildId(1)).end();
        let _claim = kept.store().claim(BuildId(5)).expect("the store answers").expect("it is free");
        assert_eq!(found(&kept), Ok(Some(BuildId(5))));
    }

    #[test]
    fn values_are_written_as_steps_write_them() {
        assert_eq!(entry("v", &json!("1.2")), "v<<END\n1.2\nEND\n");
        assert_eq!(entry("v", &json!([1, "a"])), "v<<END\n[1,\"a\"]\nEND\n");
        assert_eq!(entry("v", &json!("a\nEND\nb")), "v<<END_\na\nEND\nb\nEND_\n");
    }

    #[test]
    fn what_went_before_is_read() {
        assert_eq!("7:130".parse(), Ok(After { build: BuildId(7), code: 130 }));
        assert_eq!("7".parse::<After>(), Err("`7` is no BUILD:CODE".to_owned()));
    }
}
