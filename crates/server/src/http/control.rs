//! What people do to builds: cancel, retry, answer gates. All of it is audited.
//!
//! [`narrowed`] finds which tests a retry asks for.

mod narrowed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::build::{Cancel, REASON_BYTES_MAX, Retried as ApiRetried, Retry, RetryJob, Touched, Urge};
use api::job::GateAnswer;
use api::problem::{Problem, ProblemKind};
use api::time::Time;
use engine::PoolReach;
use engine::pools::{PoolsUsed, SetGoing};
use graph::{AskedTests, BuildId, JobName, Timestamp, Verdict};
use serde_json::Value;
use store::audit::AuditEntry;
use store::rows::{GateRow, VerdictWord};
use store::{BuildFilter, PAGE_ROWS_MAX};

pub use self::narrowed::never_run;
use super::admission::target_of;
use super::answer::{self, Answered};
use super::build::{NO_POOL, Sight, request, row};
use super::call::Call;
use super::{App, convert, job, problem};
use crate::access::{Target, Verb};
use crate::notices;
use crate::server::{Effected, Retried};

/// The most bytes of what an entry of the audit says was touched; a longer text is cut.
const TARGET_BYTES_MAX: usize = 2 << 10;
/// The most bytes of what else an entry of the audit says; a longer text is cut.
const DETAIL_BYTES_MAX: usize = 8 << 10;

/// The most jobs of which an answer tells what keeps them from passing.
const REMARKS_MAX: usize = 20;

/// A reason, if it is short enough.
pub fn reason(reason: String) -> Result<String, Problem> {
    if reason.len() > REASON_BYTES_MAX * 4 {
        return Err(Problem::new(ProblemKind::Unprocessable, "the reason is too long")
            .field("reason", format!("at most {REASON_BYTES_MAX} characters")));
    }
    Ok(reason)
}

/// Notes who did what, before it is answered: what was acknowledged stands in the audit. What was done is done: if the note
/// cannot be stored, the answer and the log say so.
///
/// # Errors
/// `Unavailable` if the store does not take the note.
pub async fn audit(app: &Arc<App>, call: &Call, project: &str, target: String, detail: String) -> Result<(), Problem> {
    audit_by(app, call, call.who(), project, target, detail).await
}

/// As [`audit`], of somebody who had no token yet.
pub async fn audit_by(
    app: &Arc<App>,
    call: &Call,
    who: String,
    project: &str,
    target: String,
    detail: String,
) -> Result<(), Problem> {
    let entry = AuditEntry {
        at: app.now(),
        who,
        verb: call.route.operation.to_owned(),
        target: cut(target, TARGET_BYTES_MAX),
        project: project.to_owned(),
        from: call.from.map(|from| from.ip().to_string()).unwrap_or_default(),
        detail: cut(detail, DETAIL_BYTES_MAX),
    };
    note(app, entry).await
}

/// As [`audit`], of what is no call of the API.
pub async fn note(app: &Arc<App>, entry: AuditEntry) -> Result<(), Problem> {
    let line = format!("{} by {} on {}", entry.verb, entry.who, entry.target);
    let noted = app.blocking(move |app| app.server.store.append_audit(&entry).map_err(problem::store)).await;
    noted.map(drop).map_err(|refusal| {
        notices::warning(&format!("the audit lacks `{line}`: {}", problem::told(&refusal)));
        Problem::new(ProblemKind::Unavailable, format!("it was done, but the audit cannot be stored: {refusal}"))
            .help("look at what there is now before you repeat it; `ropewalk doctor` looks at the store")
    })
}

/// A text without what is more than so many bytes, which is told.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}

/// What a build looks like now, after something was done to it.
async fn shown(app: &Arc<App>, build: BuildId) -> Answered {
    answer::json(&convert::build(&app.blocking(move |app| row(app, build)).await?))
}

async fn project_of(app: &Arc<App>, build: BuildId) -> Result<String, Problem> {
    Ok(app.blocking(move |app| row(app, build)).await?.origin.project)
}

/// Refuses whoever may not use every pool in which would run what is set going in this build.
fn demand_pools(call: &Call, build: &Target<'_>, used: &PoolsUsed, now: Timestamp) -> Result<(), Problem> {
    let demand = |pool| call.demand(Verb::Control, &Target { pool: Some(pool), ..*build }, now);
    used.named.iter().try_for_each(|pool| demand(pool))?;
    if used.unknown == PoolReach::Own {
        return Ok(());
    }
    demand(NO_POOL).map_err(|refusal| match refusal.status == ProblemKind::Forbidden.status() {
        true => Problem::new(
            ProblemKind::Forbidden,
            "this sets going jobs that are not known yet, which may be of any pool, and this token does not grant every one",
        )
        .help("ask whoever runs this server for a token that is limited to no pool"),
        false => refusal,
    })
}

pub async fn cancel(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let reason = reason(call.json_or_default::<Cancel>()?.reason)?;
    let project = project_of(&app, build).await?;
    if app.server.cancel(build, &call.who()).await.map_err(request)? == Effected::No {
        let row = app.blocking(move |app| row(app, build)).await?;
        if row.canceled_by.is_none() {
            return Err(Problem::new(ProblemKind::Conflict, format!("build {build} has ended")));
        }
    }
    audit(&app, &call, &project, format!("build {build}"), reason).await?;
    shown(&app, build).await
}

/// The build goes before those that are not urgent. One that does already is told as it is.
pub async fn urge(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let reason = reason(call.json_or_default::<Urge>()?.reason)?;
    let project = project_of(&app, build).await?;
    let used = app.server.pools_used(build, SetGoing::Everything).await.map_err(request)?;
    demand_pools(&call, &target_of(&project, build), &used, app.now())?;
    if app.server.urge(build, &call.who()).await.map_err(request)? == Effected::No {
        let row = app.blocking(move |app| row(app, build)).await?;
        if row.finished.is_some() {
            return Err(Problem::new(ProblemKind::Conflict, format!("build {build} has ended"))
                .help("retry its jobs, or ask for a new build with `--urgent`"));
        }
        return answer::json(&convert::build(&row));
    }
    audit(&app, &call, &project, format!("build {build}"), reason).await?;
    shown(&app, build).await
}

pub async fn cancel_commit(app: Arc<App>, call: Call) -> Answered {
    let commit = call.segment("commit").to_owned();
    if !(matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        // The beginning of an id could mean the builds of several.
        return Err(Problem::new(
            ProblemKind::Invalid,
            "only the builds of one commit are canceled, which has to be named in full",
        )
        .field("commit", "has to be a full object id of 40 or 64 hexadecimal digits"));
    }
    let reason = reason(call.json_or_default::<Cancel>()?.reason)?;
    let filter = BuildFilter {
        project: call.text("project").map(str::to_owned),
        commit: Some(commit.clone()),
        verdict: Some(VerdictWord::Running),
        ..BuildFilter::default()
    };
    let bearer = Arc::clone(call.bearer()?);
    let builds = app
        .blocking(move |app| {
            let mut sight = Sight::new(&bearer, Verb::Control, app.now());
            let mut builds = BTreeMap::new();
            let mut before = None;
            loop {
                let rows = app.server.store.builds(&filter, before, PAGE_ROWS_MAX).map_err(problem::store)?;
                let Some(last) = rows.last() else { return Ok(builds) };
                before = Some(last.build);
                let allowed = rows.into_iter().filter(|row| sight.build(&row.origin.project, row.build));
                builds.extend(allowed.map(|row| (row.build, row.origin.project)));
            }
        })
        .await?;
    let mut touched = Vec::new();
    for (build, project) in builds {
        if app.server.cancel(build, &call.who()).await.map_err(request)? == Effected::Yes {
            audit(&app, &call, &project, format!("build {build}"), reason.clone()).await?;
            touched.push(build);
        }
    }
    answer::json(&Touched { builds: touched })
}

pub async fn retry(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let wanted = call.json::<Retry>()?;
    if let Some(again) = put_back_before(&app, &call, build).await? {
        return told(&app, &call, build, (again, BTreeSet::new()), wanted.reason().to_owned()).await;
    }
    let (again, why) = match wanted {
        Retry::Failed { reason } => (Again::Whole(BTreeSet::new()), reason),
        Retry::All { reason } => (Again::Whole(ended(&app, build).await?), reason),
        Retry::FailedTests { jobs, reason } => (narrowed::failing(&app, build, jobs).await?, reason),
        Retry::Tests { tests, reason } => (narrowed::named(&app, build, tests).await?, reason),
        Retry::Jobs { jobs, reason } => {
            if jobs.is_empty() || jobs.len() > api::build::JOBS_NAMED_MAX {
                return Err(Problem::new(ProblemKind::Unprocessable, "name 1 to 1000 jobs").field("jobs", "1 to 1000"));
            }
            (Again::Whole(jobs.into_iter().map(JobName::from).collect()), reason)
        }
    };
    put_back(app, call, build, again, why).await
}

/// The jobs of a build that have ended.
async fn ended(app: &Arc<App>, build: BuildId) -> Result<BTreeSet<JobName>, Problem> {
    let jobs = app.blocking(move |app| app.server.store.jobs(build).map_err(problem::store)).await?;
    Ok(jobs.into_iter().filter(|job| job.state == store::rows::JobState::Ended).map(|job| job.name).collect())
}

pub async fn retry_job(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let RetryJob { tests, reason } = call.json_or_default()?;
    if let Some(again) = put_back_before(&app, &call, build).await? {
        return told(&app, &call, build, (again, BTreeSet::new()), reason).await;
    }
    let job = call.segment("job").to_owned();
    let again = match tests {
        None => Again::Whole([JobName::from(job.as_str())].into()),
        Some(tests) => narrowed::named(&app, build, [(job, tests)].into()).await?,
    };
    put_back(app, call, build, again, reason).await
}

/// What runs again.
enum Again {
    /// These jobs; all that did not pass if none is named.
    Whole(BTreeSet<JobName>),
    /// These tests.
    Tests(BTreeMap<JobName, Arc<AskedTests>>),
}

/// What a call put back before: the server died, and then its answer was not written down.
async fn put_back_before(app: &Arc<App>, call: &Call, build: BuildId) -> Result<Option<Retried>, Problem> {
    let Some(key) = super::idempotency::name_of(call)? else { return Ok(None) };
    let again = app.server.retried_by(build, key).await.map_err(request)?;
    Ok(Some(again).filter(|again| !again.is_empty()))
}

async fn put_back(app: Arc<App>, call: Call, build: BuildId, again: Again, why: String) -> Answered {
    let why = reason(why)?;
    let project = project_of(&app, build).await?;
    let (jobs, tests) = match again {
        Again::Whole(jobs) => (jobs, BTreeMap::new()),
        Again::Tests(tests) => (BTreeSet::new(), tests),
    };
    let wanted = jobs.into_iter().chain(tests.keys().cloned()).collect();
    let (jobs, used) = app.server.to_retry(build, wanted).await.map_err(request)?;
    demand_pools(&call, &target_of(&project, build), &used, app.now())?;
    let key = super::idempotency::name_of(&call)?;
    let again = app.server.retry(build, jobs.clone(), tests, (&call.who(), key)).await.map_err(request)?;
    let left: BTreeSet<JobName> = jobs.into_iter().filter(|job| !again.contains_key(job)).collect();
    let grown = if left.is_empty() { left } else { app.server.told_of(build, left).await.map_err(request)? };
    if again.is_empty() {
        let verdict = app.blocking(move |app| Ok(row(app, build)?.verdict)).await?;
        if let Verdict::Canceled { .. } = verdict {
            return Err(Problem::new(ProblemKind::Conflict, format!("build {build} was canceled, and is over"))
                .help(format!("`ropewalk retry {build}` begins a new build of the same")));
        }
        if !grown.is_empty() {
            let mut names: Vec<String> = grown.iter().map(|job| format!("`{job}`")).take(REMARKS_MAX).collect();
            names.extend((grown.len() > names.len()).then(|| "…".to_owned()));
            let message = format!("the pipeline has grown by how {} ended", names.join(", "));
            return Err(Problem::new(ProblemKind::Conflict, message)
                .help(format!("`ropewalk retry {build}` builds anew; its jobs may take earlier results")));
        }
        let help = format!(
            "a job that passed, or has not ended, is not put back; `ropewalk retry {build}` begins a new build, whose jobs may take earlier \
             results"
        );
        return Err(Problem::new(ProblemKind::Conflict, "none of these jobs can run again").help(help));
    }
    told(&app, &call, build, (again, grown), why).await
}

/// Notes and tells what was put back, and what stays since the pipeline has grown by how it ended.
async fn told(
    app: &Arc<App>,
    call: &Call,
    build: BuildId,
    (again, grown): (Retried, BTreeSet<JobName>),
    why: String,
) -> Answered {
    let why = reason(why)?;
    let project = project_of(app, build).await?;
    let jobs: Vec<String> = again.keys().map(ToString::to_string).collect();
    let told: Vec<String> = again.iter().map(|(job, tests)| narrowed::told(job, tests.as_ref())).collect();
    audit(app, call, &project, format!("build {build}"), format!("{why} {}", told.join(", ")).trim().to_owned())
        .await?;
    let narrowed = again.iter().filter_map(|(job, tests)| narrowed::remark(job, tests.as_ref()?));
    let stays = grown.iter().map(|job| {
        format!("{job} stays as it is: the pipeline has grown by how it ended; `ropewalk retry {build}` builds anew")
    });
    let remarks = stays.chain(narrowed).take(REMARKS_MAX).collect();
    answer::json(&ApiRetried { jobs, build, remarks })
}

pub async fn cancel_job(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let name = JobName::from(call.segment("job"));
    let reason = reason(call.json_or_default::<Cancel>()?.reason)?;
    let project = project_of(&app, build).await?;
    if app.server.cancel_job(build, name.clone(), &call.who()).await.map_err(request)? == Effected::No {
        return Err(Problem::new(ProblemKind::Conflict, format!("job `{name}` has ended, or is being canceled")));
    }
    audit(&app, &call, &project, format!("build {build}, job {name}"), reason).await?;
    answer::json(&app.blocking(move |app| job::one(app, build, &name)).await?)
}

pub async fn answer_gate(app: Arc<App>, call: Call) -> Answered {
    let build = call.build()?;
    let name = JobName::from(call.segment("job"));
    let (answer, why) = match call.json::<GateAnswer>()? {
        GateAnswer::Approve { fields, reason } => (Some(fields), reason),
        GateAnswer::Reject { reason } => (None, reason),
    };
    let why = reason(why)?;
    let wanted = name.clone();
    let (gate, spec, project) = app
        .blocking(move |app| {
            let project = row(app, build)?.origin.project;
            let (gate, spec) = job::gate(app, build, &wanted)?;
            Ok((gate, spec, project))
        })
        .await?;
    if gate.answered.is_some() {
        return Err(answered_already(&gate));
    }
    let used = app.server.pools_used(build, SetGoing::BehindGate(name.clone())).await.map_err(request)?;
    demand_pools(&call, &target_of(&project, build), &used, app.now())?;
    let answer = answer.map(|fields| filled(&spec, fields)).transpose()?;
    let is_yes = answer.is_some();
    if app.server.answer_gate(build, name.clone(), answer, (&call.who(), &why)).await.map_err(request)? == Effected::No
    {
        let (gate, _) = app.blocking(move |app| job::gate(app, build, &name)).await?;
        return Err(answered_already(&gate));
    }
    let word = if is_yes { "approved" } else { "rejected" };
    audit(&app, &call, &project, format!("build {build}, gate {name}"), format!("{word} {why}").trim().to_owned())
        .await?;
    let (gate, spec) = app.blocking(move |app| job::gate(app, build, &name)).await?;
    answer::json(&convert::gate(&gate, Some(&spec)))
}

/// That nobody can answer a gate any more, with who did, how and why.
fn answered_already(gate: &GateRow) -> Problem {
    let name = &gate.job;
    let Some(answered) = &gate.answered else {
        return Problem::new(ProblemKind::Conflict, format!("the gate `{name}` is not open any more"));
    };
    let word = if answered.answer.is_some() { "approved" } else { "rejected" };
    let why = if answered.reason.is_empty() { String::new() } else { format!(", since: {}", answered.reason) };
    let (by, at) = (&answered.by, Time(answered.at));
    Problem::new(ProblemKind::Conflict, format!("the gate `{name}` was {word} by {by} at {at}{why}"))
        .help("what it let go on, or ended, stands on the page of its build")
}

/// The fields of a form, complete with defaults and of the right types.
fn filled(spec: &graph::Gate, mut fields: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, Problem> {
    let mut refusal = Problem::new(ProblemKind::Unprocessable, "the form is not filled in as the gate asks");
    let mut complete = BTreeMap::new();
    for (name, field) in &spec.fields {
        match fields.remove(name).or_else(|| field.default.clone()) {
            Some(value) if field.admits(&value) => drop(complete.insert(name.clone(), value)),
            Some(_) => refusal = refusal.field(format!("fields.{name}"), takes(&field.kind)),
            None => refusal = refusal.field(format!("fields.{name}"), format!("is missing; {}", takes(&field.kind))),
        }
    }
    for name in fields.keys() {
        refusal = refusal.field(format!("fields.{name}"), "the gate has no such field");
    }
    if refusal.fields.is_empty() { Ok(complete) } else { Err(refusal) }
}

fn takes(kind: &graph::FieldKind) -> String {
    match kind {
        graph::FieldKind::String => "takes a text".to_owned(),
        graph::FieldKind::Number => "takes a number".to_owned(),
        graph::FieldKind::Boolean => "takes true or false".to_owned(),
        graph::FieldKind::Choice { options } => format!("takes one of {}", options.join(", ")),
    }
}
