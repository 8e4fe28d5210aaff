//! Who is let in: the token, or the session, and what the line of the table demands of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use api::problem::{Problem, ProblemKind};
use api::routes::{Access as Needs, Method, On, Route};
use axum::http::{HeaderMap, header};
use graph::{BuildId, WorkerId};

use super::call::Call;
use super::{App, pages, problem};
use crate::access::{Bearer, Denied, Target, Verb};
use crate::lock::lock;

/// After so many heartbeats in which nobody has asked for a session's token it is asked for before the next call of the worker.
const HEARTBEATS_UNASKED_MAX: u64 = 2;

/// Whoever was let in.
#[derive(Default)]
pub struct Admitted {
    /// By a token.
    pub bearer: Option<Arc<Bearer>>,
    /// By the session of a worker.
    pub worker: Option<WorkerId>,
}

/// What was found out while one page was made of several calls, all with the same credentials: who looks, and which builds they may
/// read. It ends with the page, so that the next one learns of a token that was revoked.
#[derive(Default)]
pub struct Look {
    bearer: OnceLock<Arc<Bearer>>,
    readable: Mutex<BTreeSet<BuildId>>,
}

impl Look {
    fn readable(&self) -> MutexGuard<'_, BTreeSet<BuildId>> {
        lock(&self.readable)
    }
}

/// Who has a token, as the store says it, or as the page that asks knows already.
async fn bearer_of(app: &Arc<App>, text: String, look: Option<&Look>) -> Result<Arc<Bearer>, Problem> {
    if let Some(known) = look.and_then(|look| look.bearer.get()) {
        return Ok(Arc::clone(known));
    }
    let bearer = app.blocking(move |app| app.server.access.admit(&text).map_err(problem::denied)).await?;
    let bearer = Arc::new(bearer);
    if let Some(look) = look {
        // Whoever was first has said the same.
        let _ = look.bearer.set(Arc::clone(&bearer));
    }
    Ok(bearer)
}

/// The credentials of a request: those it names, else, where nothing can be changed, the cookie of a browser.
fn credentials<'h>(route: &Route, headers: &'h HeaderMap) -> &'h str {
    if route.method == Method::Get
        && !headers.contains_key(header::AUTHORIZATION)
        && let Some(token) = pages::token_of(headers)
    {
        return token;
    }
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
}

/// Who sent a request, before it is known what it is about. Refuses whoever has nothing to show that the route takes.
///
/// # Errors
/// `Unauthorized`, `Forbidden`, and what the list of tokens refuses.
pub async fn admit(
    app: &Arc<App>,
    route: &'static Route,
    headers: &HeaderMap,
    look: Option<&Look>,
) -> Result<Admitted, Problem> {
    if route.access == Needs::Public {
        return Ok(Admitted::default());
    }
    let text = credentials(route, headers).to_owned();
    if route.access == Needs::Visitor {
        // Who has nothing that holds is a visitor like any other: the call says what those may see.
        let admitted = app.blocking(move |app| app.server.access.admit(&text).map_err(problem::denied)).await;
        let now = app.now();
        let holds = |bearer: &Bearer| !bearer.has_ended(now);
        return Ok(admitted.ok().filter(holds).map(Arc::new).map(Admitted::of).unwrap_or_default());
    }
    if matches!(route.access, Needs::Session | Needs::Sender)
        && let Some(session) = app.server.dispatch.session_of(&text)
    {
        // Whoever reads the session's stream is asked there with each heartbeat.
        let most_ms = app.server.dispatch.heartbeat_ms() * HEARTBEATS_UNASKED_MAX;
        if session.pass.is_older(most_ms, app.now()) {
            app.server.ask_session(&session).await.map_err(problem::denied)?;
        }
        return Ok(Admitted { bearer: None, worker: Some(session.worker) });
    }
    if route.access == Needs::Session {
        return Err(no_session(app, text).await);
    }
    let bearer = bearer_of(app, text, look).await?;
    let now = app.now();
    if bearer.has_ended(now) {
        return Err(problem::denied(Denied::Ended));
    }
    let verb = match route.access {
        Needs::Grant(verb, _) => verb_of(verb),
        Needs::Sender => Verb::Submit,
        Needs::Public | Needs::Visitor | Needs::Token | Needs::Session => return Ok(Admitted::of(bearer)),
    };
    if !bearer.has_verb(verb) {
        return Err(problem::denied(Denied::Forbidden { verb, target: "anything".to_owned() }));
    }
    if route.access == Needs::Sender {
        // What is sent belongs to no project yet.
        bearer.may_somewhere(verb, now).map_err(problem::denied)?;
    }
    Ok(Admitted::of(bearer))
}

/// The refusal of whoever shows no session of a worker that is under way.
async fn no_session(app: &Arc<App>, text: String) -> Problem {
    if text.is_empty() {
        return Problem::new(ProblemKind::Unauthorized, "the secret of a worker's session is needed")
            .help("join by /api/v1/worker/hello");
    }
    let admitted = app.blocking(move |app| app.server.access.admit(&text).map_err(problem::denied)).await;
    match admitted {
        Ok(bearer) if !bearer.has_ended(app.now()) => {
            Problem::new(ProblemKind::Forbidden, "this is for a worker's session, and a token is none")
                .help("a worker joins with its token by /api/v1/worker/hello, and is told the secret of its session")
        }
        _ => Problem::new(ProblemKind::Gone, "this session is over").help("join again by /api/v1/worker/hello"),
    }
}

impl Admitted {
    fn of(bearer: Arc<Bearer>) -> Self {
        Self { bearer: Some(bearer), worker: None }
    }
}

/// Whether whoever was admitted may do this on what the path names.
///
/// # Errors
/// `Forbidden`; `NotFound` for a build that is not there or that the token may not even see.
pub async fn demand(app: &Arc<App>, call: &Call, look: Option<&Look>) -> Result<(), Problem> {
    let Needs::Grant(verb, on) = call.route.access else { return Ok(()) };
    let (verb, now) = (verb_of(verb), app.now());
    match on {
        On::Server => call.demand(verb, &Target::SERVER, now),
        On::Project => {
            let project = call.segment("project");
            if !crate::records::is_name(project) {
                return Err(Problem::new(ProblemKind::Invalid, format!("`{project}` cannot name a project"))
                    .field("project", "letters, digits and `._-`, at most 100, a letter or digit first"));
            }
            call.demand(verb, &Target::project(project), now)
        }
        On::Pool => {
            let pool = call.segment("pool");
            if !crate::records::is_name(pool) {
                return Err(Problem::new(ProblemKind::Invalid, format!("`{pool}` cannot name a pool"))
                    .field("pool", "letters, digits and `._-`, at most 100, a letter or digit first"));
            }
            call.demand(verb, &Target::pool(pool), now)
        }
        On::Build => demand_build(app, call, verb, look).await,
        // The handler looks into the body, or gives only what may be seen.
        On::Body | On::Each => Ok(()),
    }
}

async fn demand_build(app: &Arc<App>, call: &Call, verb: Verb, look: Option<&Look>) -> Result<(), Problem> {
    let build = call.build()?;
    if verb == Verb::Read && look.is_some_and(|look| look.readable().contains(&build)) {
        return Ok(());
    }
    let row = app.blocking(move |app| app.server.store.build(build).map_err(problem::store)).await?;
    let missing = || problem::not_found(format_args!("build {build}"));
    let row = row.ok_or_else(missing)?;
    let target = target_of(&row.origin.project, build);
    let now = app.now();
    call.demand(verb, &target, now).map_err(|denied| {
        // Whoever may not see a build is not told that it is there.
        if denied.status == ProblemKind::Forbidden.status() && call.demand(Verb::Read, &target, now).is_err() {
            missing()
        } else {
            denied
        }
    })?;
    if let Some(look) = look.filter(|_| verb == Verb::Read) {
        look.readable().insert(build);
    }
    Ok(())
}

/// A build as the target of a verb.
pub fn target_of(project: &str, build: graph::BuildId) -> Target<'_> {
    Target { project: Some(project).filter(|project| !project.is_empty()), pool: None, build: Some(build) }
}

/// The verb of the table as tokens have it.
pub fn verb_of(verb: api::token::Verb) -> Verb {
    match verb {
        api::token::Verb::Read => Verb::Read,
        api::token::Verb::Submit => Verb::Submit,
        api::token::Verb::Control => Verb::Control,
        api::token::Verb::Shell => Verb::Shell,
        api::token::Verb::Work => Verb::Work,
        api::token::Verb::Admin => Verb::Admin,
    }
}
