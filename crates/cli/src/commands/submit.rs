//! `ropewalk submit`: has a server build a directory as it stands, or a commit, and shows the build as `ropewalk run` does.
//!
//! The server has the build once it answers; from then on nothing here matters to it. A watcher that loses the server finds
//! it again, and goes on where it was.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::blob::{DIGESTS_MAX, Digests};
use api::build::{Cancel, Made, Submit as Wanted, SubmitOptions, Submitted};
use api::client::{Client, JobsWanted, Logs, Moments, PageWanted};

use api::event::{EventWanted, Moment};
use api::job::{JobState, WaitReason, Waiting};
use graph::{BuildId, Digest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::Stop;
use crate::agent::sending::Sending;
use crate::agent::source::{self, Gathered, Known};
use crate::agent::watching::Watching;
use crate::args::{Arguments, Colour, Output, Submit};
use crate::columns::Paint;
use crate::local::clock::now;
use crate::pipeline::Pipeline;
use crate::project::Project;
use crate::remote::stop;
use crate::view::{self, Opening, View, Wants};
use crate::whereabouts::Whereabouts;
use crate::{archive, event, exit, faults, output, words};

/// How often a source is gathered again while somebody edits its files.
const GATHERINGS_MAX: usize = 5;

/// The longest first line of a commit's message that is sent.
const SUBJECT_BYTES_MAX: usize = 1000;

/// How long after a first Ctrl-C a second one is waited for.
const SECOND_THOUGHT: Duration = Duration::from_secs(2);

/// After so many failures in a row people are told that the server is away.
const FAILURES_TOLD: u32 = 3;

/// Runs the command.
///
/// # Errors
/// If the directory cannot be read, or the server refuses.
pub fn run(submit: &Submit, arguments: &Arguments) -> Result<u8, Stop> {
    let started = arguments.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let directory = match &submit.directory {
        Some(directory) => started.join(directory),
        None => started,
    };
    let project = Project::find(&directory).map_err(Stop::wrong)?;
    let client = submit.remote.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    let wanted = send(submit, &project, &client, &runtime)?;
    let submitted = runtime.block_on(client.build_submit(&wanted)).map_err(stop)?;
    tell(&submitted);
    if submit.no_wait {
        return leave(&submitted, submit.output);
    }
    let watched = Watched {
        build: submitted.build,
        since: Since::Beginning,
        told: submitted.unmatched,
        output: submit.output,
        colour: arguments.color,
        whereabouts: Whereabouts::there(submit.remote.server.as_deref(), submit.remote.token.as_deref()),
    };
    let watched = runtime.block_on(watched.watch(&client));
    runtime.shutdown_background();
    watched
}

/// Sends the files that the server has not; what to ask it for then.
fn send(
    submit: &Submit,
    project: &Project,
    client: &Client,
    runtime: &tokio::runtime::Runtime,
) -> Result<Wanted, Stop> {
    project.make_data().map_err(|error| Stop::infra(error.to_string()))?;
    let name = project_name(submit, project)?;
    let event = event(submit, project)?;
    for _ in 0..GATHERINGS_MAX {
        let gathered = gather(submit, project, &event)?;
        match upload(&gathered, client, runtime) {
            Err(changed) if Gathered::is_changed(&changed.message) => continue,
            other => other?,
        }
        for note in &gathered.notes {
            let _ = writeln!(std::io::stderr(), "note: {}", words::harmless(note));
        }
        let options = SubmitOptions {
            only: submit.jobs.iter().cloned().collect(),
            fail_fast: submit.fail_fast,
            urgent: submit.urgent,
            join: submit.separate.then_some(false),
        };
        return Ok(Wanted {
            project: name,
            source: gathered.digest,
            event,
            pipeline: submit.pipeline.clone(),
            pool: submit.pool.as_deref().map(super::token::pool_name),
            options,
        });
    }
    Err(Stop::infra("files keep changing while they are sent"))
}

fn gather(submit: &Submit, project: &Project, event: &EventWanted) -> Result<Gathered, Stop> {
    let packs = project.data.join("sent-history");
    let gathered = match &submit.commit {
        None => {
            let known = Known { contents: &project.data.join("sent-stats"), packs: &packs };
            source::of_directory(&project.root, known, event.base.as_deref().unwrap_or("HEAD~1"))
        }
        Some(_) => {
            let known = Known { contents: &project.data.join("sent-objects"), packs: &packs };
            let commit = event.commit.as_deref().unwrap_or_default();
            source::of_commit(&project.root, commit, known, event.base.as_deref())
        }
    };
    gathered.map_err(Stop::wrong)
}

/// The event, as the flags and the repository tell it; who and when, the server knows itself.
fn event(submit: &Submit, project: &Project) -> Result<EventWanted, Stop> {
    let commit = submit.commit.as_deref().map(|commit| source::commit_id(&project.root, commit));
    let commit = commit.transpose().map_err(Stop::wrong)?;
    let mut event = event::of(&submit.event, project, commit.as_deref(), now()).map_err(Stop::wrong)?;
    let look = commit.is_none().then(|| worker::workspace::Look::begin(&project.root));
    if submit.commit.is_none() {
        answer(&mut event, submit, project)?;
    }
    let checkout = look.map_or(graph::Checkout::AsCommitted, worker::workspace::Look::checkout);
    let message = if event.commit.is_empty() { String::new() } else { subject(&project.root, &event.commit) };
    Ok(EventWanted {
        kind: Some(event.kind.into()),
        commit: Some(event.commit).filter(|commit| !commit.is_empty()),
        branch: event.branch,
        tag: event.tag,
        base: event.base,
        command: event.command,
        pull_request: None,
        message,
        params: event.params,
        local_changes: checkout == graph::Checkout::Changed,
        trust: None,
    })
}

/// What `ropewalk run` would make of the event, as far as the files say it. What is wrong with them the server tells.
fn answer(event: &mut graph::Event, submit: &Submit, project: &Project) -> Result<(), Stop> {
    let file = submit.pipeline.as_deref().map(Path::new);
    let Ok(Some(pipeline)) = Pipeline::of_files(project, file) else { return Ok(()) };
    if pipeline.faults().is_wrong() {
        return Ok(());
    }
    let (choice, unanswered) = (event::kind_choice(&submit.event), event::unanswered(&submit.event));
    pipeline.answer(event, choice, unanswered).map(drop)
}

/// The first line of a commit's message, for lists of builds; empty if git does not tell. Cut at [`SUBJECT_BYTES_MAX`].
fn subject(root: &Path, commit: &str) -> String {
    let said = worker::git::ask(root, &["log", "-1", "--format=%s", commit]).unwrap_or_default();
    let mut subject = String::from_utf8_lossy(&said).trim_end().to_owned();
    subject.truncate(subject.floor_char_boundary(SUBJECT_BYTES_MAX));
    subject
}

/// `--project`, else the name of the checkout.
fn project_name(submit: &Submit, project: &Project) -> Result<String, Stop> {
    let name = submit.project.clone().or_else(|| project.name());
    let name = name.ok_or_else(|| Stop::wrong("give the project a name: --project NAME"))?;
    match api::project::is_name(&name) {
        true => Ok(name),
        false => Err(Stop::wrong(format!(
            "`{}` cannot name a project: a name has letters, digits and `._-`, at most 100, a letter or digit first; give \
             another by --project NAME",
            words::harmless(&name)
        ))),
    }
}

fn upload(gathered: &Gathered, client: &Client, runtime: &tokio::runtime::Runtime) -> Result<(), Stop> {
    let digests: Vec<Digest> = gathered.digests().chain([gathered.digest]).collect();
    let mut sending = Sending::new(client.clone(), runtime);
    for digests in digests.chunks(DIGESTS_MAX) {
        let asked = Digests { digests: digests.to_vec() };
        let missing = runtime.block_on(client.blob_missing(&asked)).map_err(stop)?.digests;
        let files: Vec<Digest> = missing.iter().copied().filter(|digest| *digest != gathered.digest).collect();
        let mut failed = None;
        let read = gathered.read(&files, &mut |digest, body| {
            sending.add(digest, body).map_err(|error| {
                failed = Some(stop(error));
                String::new()
            })
        });
        if let Some(refused) = failed {
            return Err(refused);
        }
        read.map_err(Stop::wrong)?;
        if missing.contains(&gathered.digest) {
            let text = crate::agent::sending::Body::Bytes(gathered.text.clone());
            sending.add(gathered.digest, text).map_err(stop)?;
        }
    }
    sending.flush().map_err(stop)
}

/// Prints the build that nobody waits for: its number, or with `--output json` what the server answered.
fn leave(submitted: &Submitted, output: Output) -> Result<u8, Stop> {
    let text = match output {
        Output::Json => serde_json::to_string(submitted).map_err(|error| Stop::infra(error.to_string()))?,
        _ => submitted.build.to_string(),
    };
    output::print(text + "\n")?;
    Ok(exit::PASSED)
}

/// Says which build it is, for those who read no stream, and which of its jobs no worker could run.
pub fn tell(submitted: &Submitted) {
    let joined = match submitted.made {
        Made::New => "",
        Made::Joined => ", which waited already for the same files and inputs",
    };
    let _ = writeln!(
        std::io::stderr(),
        "build {} of {}, number {}{joined}",
        submitted.build,
        words::harmless(&submitted.project),
        submitted.number
    );
    for earlier in &submitted.superseded {
        let _ = writeln!(
            std::io::stderr(),
            "build {} takes the place of build {earlier}, which is canceled; `--separate` lets both run",
            submitted.build
        );
    }
    if let Some(unasked) = &submitted.unasked {
        let _ = writeln!(std::io::stderr(), "{}", words::harmless(unasked));
    }
    for waiting in &submitted.unmatched {
        let _ = writeln!(std::io::stderr(), "{}", told_of(waiting));
    }
}

fn told_of(waiting: &Waiting) -> String {
    format!("{} waits: {}", words::harmless(&waiting.job), words::harmless(&waiting.text))
}

/// Where a build is shown.
enum Shown {
    View(Box<dyn View + Send>, Box<Watching>),
    /// The stream's objects as they came.
    Objects(Box<Watching>),
}

impl Shown {
    fn new(watched: &Watched) -> Self {
        let stdout = std::io::stdout();
        let form = super::run::form(watched.output, &stdout);
        let build = watched.build;
        let watching = Box::new(Watching::new(build));
        match form {
            Output::Json => Self::Objects(watching),
            form => {
                let whereabouts = watched.whereabouts.clone();
                let opening = Opening { build, usual_ms: Default::default(), whereabouts, graph: None };
                Self::View(super::run::view(form, watched.colour, opening), watching)
            }
        }
    }

    /// Takes in what happened before.
    fn pass(&mut self, moment: &Moment) {
        match self {
            Self::View(_, watching) | Self::Objects(watching) => watching.show(moment, &mut Unseen),
        }
    }

    /// What was taken in is all that happened before.
    fn begin(&mut self) {
        if let Self::View(view, watching) = self {
            watching.catch_up(&mut **view);
        }
    }

    fn show(&mut self, moment: &Moment) -> Result<(), Stop> {
        match self {
            Self::View(view, watching) => {
                watching.show(moment, &mut **view);
                let _ = view.flush();
                Ok(())
            }
            Self::Objects(watching) => {
                watching.show(moment, &mut Unseen);
                let text = serde_json::to_string(moment).map_err(|error| Stop::infra(error.to_string()))?;
                output::print(text + "\n")
            }
        }
    }

    fn tick(&mut self) {
        if let Self::View(view, _) = self {
            let _ = view.show(view::Moment::Tick(now()));
            let _ = view.flush();
        }
    }

    fn wants(&self) -> Wants {
        match self {
            Self::View(view, _) => view.wants(),
            Self::Objects(_) => Wants::Output,
        }
    }

    fn close(&mut self) {
        if let Self::View(view, _) = self {
            let _ = view.close();
        }
    }

    fn watching(&self) -> &Watching {
        match self {
            Self::View(_, watching) | Self::Objects(watching) => watching,
        }
    }
}

/// A view that shows nothing.
struct Unseen;

impl View for Unseen {
    fn show(&mut self, _moment: view::Moment<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn close(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn wants(&self) -> Wants {
        Wants::Facts
    }
}

/// From where on a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From its beginning.
    Beginning,
    /// From the end that it had at this time, for one that goes on after it.
    Ended(api::time::Time),
}

impl Since {
    fn is_passed_by(self, moment: &Moment) -> bool {
        match self {
            Self::Beginning => true,
            Self::Ended(at) => matches!(moment, Moment::BuildFinished { time, .. } if *time == at),
        }
    }
}

/// A build of a server that is shown as it goes on.
pub struct Watched {
    pub build: BuildId,
    pub since: Since,
    /// Jobs that no worker could run of which people were told.
    pub told: Vec<Waiting>,
    pub output: Output,
    pub colour: Colour,
    pub whereabouts: Whereabouts,
}

impl Watched {
    /// Shows the build to its end. The first Ctrl-C leaves it to the server, unless a second one follows shortly, which
    /// cancels it: then its end is still waited for.
    ///
    /// # Errors
    /// As the server refuses.
    pub async fn watch(&self, client: &Client) -> Result<u8, Stop> {
        let mut shown = Shown::new(self);
        let logs = if shown.wants() == Wants::Facts { Logs::Without } else { Logs::With };
        let mut moments = client.build_stream(self.build, logs, None);
        let watched = follow(client, self, &mut moments, &mut shown).await;
        shown.close();
        if let (Ok(exit::FAILED | exit::WRONG | exit::INFRA), false) = (&watched, self.output == Output::Json) {
            if let Ok(exit::WRONG) = watched {
                self.tell_faults(client).await;
            }
            let show = self.whereabouts.command(format_args!("show {}", self.build));
            let _ = writeln!(std::io::stderr(), "\nwhat failed, and where:\n  {show}");
        }
        watched
    }
}

impl Watched {
    /// What is wrong with the pipeline. A server that does not say it now says it to `ropewalk show`.
    async fn tell_faults(&self, client: &Client) {
        let Ok(found) = client.build_diagnostics(self.build).await else { return };
        let (found, sources) = archive::diagnostics(found.items);
        let text = faults::text(&found, &sources, Paint::of(self.colour, &std::io::stderr()));
        let _ = write!(std::io::stderr(), "\n{text}");
    }
}

async fn follow(client: &Client, watched: &Watched, moments: &mut Moments, shown: &mut Shown) -> Result<u8, Stop> {
    let (build, mut since) = (watched.build, watched.since);
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupts), Ok(mut terminates)) = signals else {
        return Err(Stop::infra("the system gives no signals"));
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let wants_ticks = shown.wants() == Wants::OutputAndTicks;
    let mut asked = Asked::Nothing;
    let mut told = false;
    let mut waits = Waits { told: watched.told.iter().map(|waiting| waiting.text.clone()).collect(), ask_at: None };
    loop {
        tokio::select! {
            () = waits.quiet() => waits.tell(client, build, shown).await,
            next = moments.next() => match next.map_err(stop)? {
                Some(said) if since != Since::Beginning => {
                    shown.pass(&said.moment);
                    if since.is_passed_by(&said.moment) {
                        since = Since::Beginning;
                        shown.begin();
                    }
                }
                Some(said) => {
                    waits.heed(&said.moment);
                    shown.show(&said.moment)?;
                }
                None => return Ok(shown.watching().code().unwrap_or(exit::INFRA)),
            },
            _ = ticks.tick(), if wants_ticks || moments.failures() >= FAILURES_TOLD => shown.tick(),
            _ = interrupts.recv() => match asked {
                Asked::Nothing => {
                    asked = Asked::Leave(Instant::now() + SECOND_THOUGHT);
                    note(shown, &format!("leaving build {build} to the server; Ctrl-C once more cancels it"));
                }
                Asked::Leave(_) => {
                    asked = Asked::Cancel;
                    note(shown, &format!("canceling build {build}; Ctrl-C once more stops watching"));
                    cancel(client, build).await?;
                }
                Asked::Cancel => return Ok(exit::CANCELED),
            },
            () = asked.left() => return Ok(exit::CANCELED),
            _ = terminates.recv() => {
                note(shown, &format!("build {build} goes on at the server"));
                return Ok(exit::CANCELED);
            }
        }
        if moments.failures() >= FAILURES_TOLD && !told {
            note(shown, "the server is away; waiting for it");
        }
        told = moments.failures() >= FAILURES_TOLD;
    }
}

/// After so long without anything new it is asked why jobs wait.
const QUIET: Duration = Duration::from_secs(1);

/// The most waiting jobs that are asked about.
const ASKED_MAX: u32 = 20;

/// Tells of jobs that no worker which is there can run: each reason once.
struct Waits {
    /// When to ask; nobody asks twice about one silence.
    ask_at: Option<Instant>,
    told: BTreeSet<String>,
}

impl Waits {
    /// Something has happened. What jobs print says nothing about those that wait.
    fn heed(&mut self, moment: &Moment) {
        if !matches!(moment, Moment::Log { .. }) {
            self.ask_at = Some(Instant::now() + QUIET);
        }
    }

    /// Waits until it has been quiet for long enough.
    async fn quiet(&self) {
        match self.ask_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Asks. A server that does not answer now is asked after the next silence.
    async fn tell(&mut self, client: &Client, build: BuildId, shown: &mut Shown) {
        self.ask_at = None;
        let page = PageWanted { limit: Some(ASKED_MAX), ..PageWanted::default() };
        let Ok(jobs) = client
            .job_list(build, &JobsWanted { state: Some(JobState::Waiting), ..JobsWanted::default() }, &page)
            .await
        else {
            return;
        };
        for job in jobs.items {
            let Ok(why) = client.job_why(build, &job.name).await else { return };
            if matches!(why.reason, WaitReason::NoWorker { .. }) && self.told.insert(why.text.clone()) {
                note(shown, &told_of(&why));
            }
        }
    }
}

/// What Ctrl-C has asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// To leave the build to the server, at this time.
    Leave(Instant),
    Cancel,
}

impl Asked {
    /// Waits until the build is to be left.
    async fn left(self) {
        match self {
            Self::Leave(at) => tokio::time::sleep_until(at).await,
            Self::Nothing | Self::Cancel => std::future::pending().await,
        }
    }
}

fn note(shown: &mut Shown, text: &str) {
    // A live view's rows are drawn again below.
    shown.close();
    let _ = writeln!(std::io::stderr(), "\n{text}");
}

async fn cancel(client: &Client, build: BuildId) -> Result<(), Stop> {
    let cancel = Cancel { reason: "Ctrl-C".to_owned() };
    client.build_cancel(build, &cancel).await.map(drop).map_err(stop)
}
