//! Builds: listed, shown, asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::build::{Made as ApiMade, Rebuild, Submit, Submitted};
use api::event::EventWanted;
use api::page::Page;
use api::problem::{Problem, ProblemKind};
use axum::http::StatusCode;
use engine::fact::What;
use engine::{BuildOptions, BuildRequest, FailurePolicy, PoolReach};
use graph::{BuildId, Checkout, Digest, Event, EventKind, Trust, WorkerId, with_causes};
use store::rows::{BuildRow, VerdictWord};
use store::{BuildFilter, PAGE_ROWS_MAX};

use super::admission::target_of;
use super::answer::{self, Answered};
use super::call::Call;
use super::control::audit;
use super::{App, convert, problem};
use crate::access::{Bearer, Target, Verb};
use crate::records::{DEFAULT_POOL, Project, Sharing, Superseding};
use crate::server::{Made, RequestError, Wanted};
use crate::source::{PIPELINE_BYTES_MAX, Source, SourceError, Sources};

/// How many pages of builds that the token may not see are passed over in one call.
const PAGES_PASSED_MAX: u32 = 20;

/// What a token may see, asked once for each project.
pub struct Sight<'b> {
    bearer: &'b Bearer,
    now: graph::Timestamp,
    verb: Verb,
    /// Whether everything may be seen.
    all: bool,
    projects: HashMap<String, bool>,
}

impl<'b> Sight<'b> {
    /// What `bearer` may do `verb` to.
    pub fn new(bearer: &'b Bearer, verb: Verb, now: graph::Timestamp) -> Self {
        let all = bearer.may_everywhere(verb, now).is_ok();
        Self { bearer, now, verb, all, projects: HashMap::new() }
    }

    /// Whether all of a project is in sight.
    pub fn project(&mut self, project: &str) -> bool {
        if self.all {
            return true;
        }
        if let Some(seen) = self.projects.get(project) {
            return *seen;
        }
        let target = if project.is_empty() { Target::SERVER } else { Target::project(project) };
        let seen = self.bearer.may(self.verb, &target, self.now).is_ok();
        self.projects.insert(project.to_owned(), seen);
        seen
    }

    /// Whether a build is in sight: by its project, or alone.
    pub fn build(&mut self, project: &str, build: BuildId) -> bool {
        self.project(project) || self.bearer.may(self.verb, &target_of(project, build), self.now).is_ok()
    }
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let filter = BuildFilter {
        branch: call.text("branch").map(str::to_owned),
        kind: call.word::<api::event::EventWord>("event", "a kind of event")?.map(EventKind::from),
        verdict: call.wanted::<String>("verdict", "a verdict")?.map(|word| verdict(&word)).transpose()?,
        pipeline: call.text("pipeline").map(str::to_owned),
        project: call.text("project").map(str::to_owned),
        commit: call.text("commit").map(commit_beginning).transpose()?,
    };
    let before = call.wanted::<u64>("before", "the id of a build")?.map(BuildId);
    let (limit, before) = (call.limit()?, call.cursor::<u64>()?.map(BuildId).or(before));
    let search = call.text("search").map(str::to_lowercase).unwrap_or_default();
    let bearer = Arc::clone(call.bearer()?);
    let page = app
        .blocking(move |app| {
            let mut sight = Sight::new(&bearer, Verb::Read, app.now());
            let page = seen(app, &filter, before, limit, |row| {
                is_found(row, &search) && sight.build(&row.origin.project, row.build)
            })?;
            // An empty list would say that there are none. Single builds of it may be granted.
            if let (Some(project), true) = (&filter.project, page.items.is_empty() && page.next.is_none()) {
                bearer.may(Verb::Read, &Target::project(project), app.now()).map_err(problem::denied)?;
            }
            Ok(page)
        })
        .await?;
    answer::json(&page)
}

/// The fewest digits by which a commit is asked for.
const COMMIT_DIGITS_MIN: usize = 7;
/// The most digits of a commit.
const COMMIT_DIGITS_MAX: usize = 64;

/// What the ids of the commits that are asked for begin with.
fn commit_beginning(text: &str) -> Result<String, Problem> {
    let is_beginning = (COMMIT_DIGITS_MIN..=COMMIT_DIGITS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_beginning {
        true => Ok(text.to_ascii_lowercase()),
        false => Err(Problem::new(ProblemKind::Invalid, "the commit is asked for by something that is no id")
            .field("commit", "takes a full object id, or its first 7 hexadecimal digits or more")),
    }
}

fn verdict(word: &str) -> Result<VerdictWord, Problem> {
    VerdictWord::from_word(word).ok_or_else(|| {
        Problem::new(ProblemKind::Invalid, format!("`{word}` is no verdict"))
            .field("verdict", "running, passed, failed, canceled or diverged")
    })
}

/// Whether what people know a build by holds this text, in lower case.
fn is_found(row: &BuildRow, search: &str) -> bool {
    if search.is_empty() {
        return true;
    }
    let event = &row.event;
    let texts = [Some(&event.message), Some(&event.actor), event.branch.as_ref(), event.tag.as_ref(), Some(&row.name)];
    event.commit.starts_with(search)
        || search.trim_start_matches('#').parse() == Ok(row.origin.number)
        || texts.into_iter().flatten().any(|text| text.to_lowercase().contains(search))
}

/// A page of the builds that are in sight and wanted.
fn seen(
    app: &App,
    filter: &BuildFilter,
    mut before: Option<BuildId>,
    limit: u32,
    mut is_wanted: impl FnMut(&BuildRow) -> bool,
) -> Result<Page<api::build::Build>, Problem> {
    let mut items = Vec::new();
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    for _ in 0..PAGES_PASSED_MAX {
        // One more says whether there is a next page.
        let rows = app.server.store.builds(filter, before, (limit + 1).min(PAGE_ROWS_MAX)).map_err(problem::store)?;
        let is_last = rows.len() <= most.min(PAGE_ROWS_MAX as usize - 1);
        for row in &rows {
            if items.len() == most {
                return Ok(Page { items, next: before.map(|before| before.to_string()) });
            }
            before = Some(row.build);
            if is_wanted(row) {
                items.push(convert::build(row));
            }
        }
        if is_last {
            return Ok(Page::whole(items));
        }
    }
    Ok(Page { items, next: before.map(|before| before.to_string()) })
}

/// The build of the path.
pub fn row(app: &App, build: BuildId) -> Result<BuildRow, Problem> {
    let row = app.server.store.build(build).map_err(problem::store)?;
    row.ok_or_else(|| problem::not_found(format_args!("build {build}")))
}

/// A build with the digest of its source, if whoever asks may submit builds of its project: by the digest alone a build of these files
/// can be asked for, which shows them.
fn whole(app: &App, call: &Call, row: &BuildRow) -> api::build::Build {
    let may_know =
        |bearer: &Arc<Bearer>| bearer.may(Verb::Submit, &Target::project(&row.origin.project), app.now()).is_ok();
    let source = row.origin.source.filter(|_| call.bearer().is_ok_and(may_know));
    api::build::Build { source, unasked: app.server.dispatch.unasked(row.build), ..convert::build(row) }
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let row = app.blocking(move |app| row(app, build)).await?;
    answer::json(&whole(&app, &call, &row))
}

pub async fn numbered(app: Arc<App>, call: Call) -> Answered {
    let number: u64 = call.segment_as("number", "a number")?;
    if number == 0 || i64::try_from(number).is_err() {
        return Err(Problem::new(ProblemKind::Invalid, "builds are numbered from 1")
            .field("number", "has to be a number from 1"));
    }
    let project = call.segment("project").to_owned();
    let row = app
        .blocking(move |app| {
            let build = app.server.store.build_numbered(&project, number).map_err(problem::store)?;
            let build =
                build.ok_or_else(|| problem::not_found(format_args!("build {number} of project `{project}`")))?;
            row(app, build)
        })
        .await?;
    answer::json(&whole(&app, &call, &row))
}

pub async fn graph(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let graph = app.blocking(move |app| app.server.store.graph(build).map_err(problem::store)).await?;
    answer::json(&*graph.unwrap_or_default())
}

pub async fn diagnostics(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let found = app
        .blocking(move |app| {
            let facts = app.server.store.facts(build).map_err(problem::store)?;
            let source = facts.iter().find_map(|fact| match &fact.what {
                What::BuildCreated(request) => request.origin.source,
                _ => None,
            });
            let last = facts.iter().rev().find_map(|fact| match &fact.what {
                What::Evaluated { diagnostics, .. } => Some(diagnostics),
                _ => None,
            });
            Ok(with_lines(&app.server.sources, source, last.map_or(&[], Vec::as_slice)))
        })
        .await?;
    answer::page(found)
}

/// How many files are read to show lines of them.
const FILES_SHOWN_MAX: usize = 20;

/// The diagnostics as they travel, with the lines that they point at. A file that is not there any more is told by name, line and column alone.
fn with_lines(
    sources: &Sources,
    source: Option<Digest>,
    diagnostics: &[graph::Diagnostic],
) -> Vec<api::build::Diagnostic> {
    let source = source.and_then(|source| sources.open(source).ok());
    let mut texts: HashMap<&str, Option<String>> = HashMap::new();
    let shown = diagnostics.iter().map(|found| {
        let mut shown = api::build::Diagnostic::from(found);
        if let Some(place) = &found.location
            && let Some(text) = text_of(sources, source.as_deref(), place, &mut texts)
        {
            shown = shown.with_line_of(text, place.start, place.end);
        }
        let further = found.related.iter().zip(shown.related);
        shown.related = further
            .map(|((place, _), shown)| match text_of(sources, source.as_deref(), place, &mut texts) {
                Some(text) => shown.with_line_of(text, place.start, place.end),
                None => shown,
            })
            .collect();
        shown
    });
    shown.collect()
}

/// The text of the file in which a place lies, read once; of at most [`FILES_SHOWN_MAX`] files.
fn text_of<'a, 'f>(
    sources: &Sources,
    source: Option<&Source>,
    place: &'f graph::Location,
    texts: &'a mut HashMap<&'f str, Option<String>>,
) -> Option<&'a str> {
    let file = &*place.file;
    if place.end == 0 || (!texts.contains_key(file) && texts.len() >= FILES_SHOWN_MAX) {
        return None;
    }
    let read = || String::from_utf8(sources.content(source?, file, PIPELINE_BYTES_MAX).ok()?).ok();
    texts.entry(file).or_insert_with(read).as_deref()
}

pub async fn submit(app: Arc<App>, call: Call) -> Answered {
    let submit: Submit = call.json()?;
    let now = app.now();
    let own_pool = pool_of(&app, &call, &submit, now).await?;
    // Jobs that name no pool go to this one, so whoever may not use it may not ask for them.
    let target = Target { project: Some(&submit.project), pool: Some(&own_pool), build: None };
    call.demand(Verb::Submit, &target, now).map_err(|refusal| {
        // It is the pool alone that it does not grant.
        let is_of_project = call.demand(Verb::Submit, &Target::project(&submit.project), now).is_ok();
        let help = call.bearer.as_deref().filter(|_| is_of_project).and_then(problem::pools_help);
        match help {
            Some(help) => refusal.help(help),
            None => refusal,
        }
    })?;
    let pools = reach(&call, Verb::Submit, &submit.project, now);
    let options = submit.options;
    // A build of its own has no other's place, and no other has its.
    let (sharing, superseding) = match options.join {
        Some(false) => (Sharing::EachItsOwn, Superseding::KeepsEarlier),
        Some(true) | None => (Sharing::OneBuild, Superseding::CancelsEarlier),
    };
    let wanted = Wanted {
        project: submit.project.clone(),
        source: submit.source,
        event: event(submit.event, &call.who(), now)?,
        pipeline: submit.pipeline,
        options: BuildOptions {
            only: options.only,
            on_failure: if options.fail_fast { FailurePolicy::FailFast } else { FailurePolicy::KeepGoing },
            urgent: options.urgent,
            pool: own_pool,
            pools,
            ..BuildOptions::default()
        },
        client: call.who(),
        sharing,
        superseding,
        key: super::idempotency::name_of(&call)?,
    };
    made(&app, &call, wanted, String::new()).await
}

/// The pool of jobs that name none: the one that is asked for, else the project's if who asks may use it, else that of a token for one alone.
async fn pool_of(app: &Arc<App>, call: &Call, submit: &Submit, now: graph::Timestamp) -> Result<String, Problem> {
    if let Some(pool) = &submit.pool {
        return Ok(pool.clone());
    }
    let name = submit.project.clone();
    let of_project = app.blocking(move |app| {
        let found = app.server.records.read::<Project>(&name).map_err(problem::record)?;
        Ok(found.and_then(|(project, _)| project.settings.of_api().pool))
    });
    let is_granted = |pool: &String| {
        let target = Target { project: Some(&submit.project), pool: Some(pool), build: None };
        call.demand(Verb::Submit, &target, now).is_ok()
    };
    Ok(of_project.await?.filter(is_granted).or_else(|| only_pool(call)).unwrap_or_default())
}

/// The pool that a token is for, if it is for one alone; the default pool needs no name.
fn only_pool(call: &Call) -> Option<String> {
    let mut pools = call.bearer.as_deref()?.pools()?.into_iter();
    let only = pools.next().filter(|pool| pool != DEFAULT_POOL);
    if pools.next().is_none() { only } else { None }
}

/// A name that no pool has: whoever may use it may use every pool.
pub const NO_POOL: &str = "\n";

/// Whether the jobs of a build may name any pool: only if whoever asks for it may use every one.
fn reach(call: &Call, verb: Verb, project: &str, now: graph::Timestamp) -> PoolReach {
    let target = Target { project: Some(project), pool: Some(NO_POOL), build: None };
    if call.demand(verb, &target, now).is_ok() { PoolReach::Every } else { PoolReach::Own }
}

/// What happened, by the word of whoever says so.
fn event(wanted: EventWanted, actor: &str, now: graph::Timestamp) -> Result<Event, Problem> {
    if wanted.params.len() > api::event::PARAMS_MAX {
        return Err(Problem::new(ProblemKind::Unprocessable, "there are too many parameters")
            .field("event.params", format!("at most {}", api::event::PARAMS_MAX)));
    }
    if let Some(commit) = &wanted.commit
        && !(matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Problem::new(ProblemKind::Unprocessable, format!("`{commit}` is no commit"))
            .field("event.commit", "has to be a full object id of 40 or 64 hexadecimal digits"));
    }
    let texts = [&wanted.branch, &wanted.tag, &wanted.base, &wanted.command];
    if texts.into_iter().flatten().chain([&wanted.message]).any(|text| text.len() > api::event::FIELD_BYTES_MAX) {
        return Err(Problem::new(ProblemKind::Unprocessable, "a text of the event is too long"));
    }
    let named =
        [("branch", &wanted.branch), ("tag", &wanted.tag), ("base", &wanted.base), ("command", &wanted.command)];
    if let Some((name, _)) = named.into_iter().find(|(_, text)| text.as_ref().is_some_and(String::is_empty)) {
        return Err(Problem::new(ProblemKind::Unprocessable, format!("the event's {name} is empty"))
            .field(format!("event.{name}"), "has to be a name, or to be left out"));
    }
    Ok(Event {
        kind: wanted.kind.map_or(EventKind::Api, Into::into),
        commit: wanted.commit.unwrap_or_default(),
        branch: wanted.branch,
        tag: wanted.tag,
        base: wanted.base,
        command: wanted.command,
        pull_request: wanted.pull_request,
        actor: actor.to_owned(),
        message: wanted.message,
        time: now,
        params: wanted.params,
        trust: wanted.trust.map_or(Trust::Trusted, Into::into),
        checkout: if wanted.local_changes { Checkout::Changed } else { Checkout::AsCommitted },
        parent: None,
    })
}

/// Makes a build and tells of it.
async fn made(app: &Arc<App>, call: &Call, wanted: Wanted, reason: String) -> Answered {
    let project = wanted.project.clone();
    let submitted = app.server.submit(wanted).await.map_err(request)?;
    let (status, made) = match submitted.made {
        Made::New => (StatusCode::CREATED, ApiMade::New),
        Made::Joined => (StatusCode::OK, ApiMade::Joined),
    };
    if !reason.is_empty() || call.route.operation != "build_submit" {
        audit(app, call, &project, format!("build {}", submitted.build), reason).await?;
    }
    let crate::server::Submitted { build, number, superseded, unmatched, unasked, .. } = submitted;
    for earlier in &superseded {
        let detail = format!("canceled: build {build} takes its place");
        audit(app, call, &project, format!("build {earlier}"), detail).await?;
    }
    let name_of = |worker: &WorkerId| app.server.dispatch.name_of(worker);
    let unmatched = unmatched.iter().map(|(job, why)| super::wait::told(build, job, Some(why), "", &name_of)).collect();
    let submitted = Submitted { build, project, number, made, superseded, unmatched, unasked };
    answer::json_as(status, &submitted)
}

pub async fn rebuild(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let wanted: Rebuild = call.json_or_default()?;
    let facts = app.blocking(move |app| app.server.store.facts(build).map_err(problem::store)).await?;
    let asked = facts.into_iter().find_map(|fact| match fact.what {
        What::BuildCreated(request) => Some(*request),
        _ => None,
    });
    let asked = asked.ok_or_else(|| problem::not_found(format_args!("build {build}")))?;
    let BuildRequest { event, pipeline, options, client, origin, supersedes, .. } = asked;
    let source = origin.source.ok_or_else(|| {
        Problem::new(ProblemKind::Conflict, format!("build {build} has no files of its own"))
            .help("ask for a build of the files")
    })?;
    // It is a new build: whoever may do this to the old one alone, or not in its pool, may not ask for it.
    let pool = if options.pool.is_empty() { DEFAULT_POOL } else { &options.pool };
    let now = app.now();
    call.demand(Verb::Control, &Target { project: Some(&origin.project), pool: Some(pool), build: None }, now)?;
    let pools = reach(&call, Verb::Control, &origin.project, now);
    let again = Wanted {
        project: origin.project,
        source,
        // No job waits for it, or asked for it: a person does.
        event: Event { parent: None, ..event },
        pipeline: Some(pipeline),
        options: BuildOptions { only: BTreeSet::clone(&options.only), retry_of: Some(build), pools, ..options },
        client,
        sharing: Sharing::EachItsOwn,
        superseding: if supersedes.is_some() { Superseding::CancelsEarlier } else { Superseding::KeepsEarlier },
        key: super::idempotency::name_of(&call)?,
    };
    made(&app, &call, again, super::control::reason(wanted.reason)?).await
}

/// Why a request about builds was refused.
pub fn request(error: RequestError) -> Problem {
    let text = with_causes(&error);
    match error {
        // Not the request's fault, and the same may go well a moment later.
        RequestError::Source(SourceError::Refused(error)) => problem::blob_for_now(&error),
        RequestError::Source(_) | RequestError::BadName(_) | RequestError::Params(_) => {
            Problem::new(ProblemKind::Unprocessable, text)
        }
        RequestError::NoBuild(_) | RequestError::NoJob(_) | RequestError::NoWorker(_) => {
            Problem::new(ProblemKind::NotFound, text)
        }
        RequestError::Store(error) => problem::store(error),
        RequestError::Record(error) => problem::record(error),
        RequestError::Stopped(error) => problem::stopped(error),
        RequestError::Interrupted => problem::internal(&error),
    }
}
