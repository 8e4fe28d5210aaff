//! Projects and their secrets.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::page::{LIMIT_MAX, Page};
use api::problem::{Problem, ProblemKind};
use api::project::{
    LISTED_BUILDS_MAX, LISTED_WITH_BUILDS_MAX, Project, ProjectSettings, SECRET_BYTES_MAX, Secret, SecretValue,
    TAGS_MAX, is_name, is_secret_name,
};
use serde::Serialize;

use super::answer::{self, Answered};
use super::build::Sight;
use super::call::Call;
use super::control::audit;
use super::job::cut;
use super::known_builds::Newest;
use super::log::bounded;
use super::{App, problem};
use crate::access::Verb;
use crate::records::{API_SETTINGS, Project as Stored, ProjectSettings as StoredSettings, RecordError, Superseding};
use crate::secrets::SecretError;

/// The longest description and the longest name of a pool, in characters, as the schema says.
const DESCRIPTION_MAX: usize = 1000;
const POOL_MAX: usize = 255;
/// The longest name of a branch.
const BRANCH_MAX: usize = 255;

/// A project as people see it.
pub fn shown(name: String, stored: &Stored) -> Project {
    let settings = stored.settings.of_api();
    let auto_cancel = stored.settings.superseding.map(|superseding| superseding == Superseding::CancelsEarlier);
    let settings = ProjectSettings { auto_cancel, ..settings };
    Project { name, created: stored.created.into(), settings, last: None, builds: Vec::new() }
}

fn stored(settings: &ProjectSettings, before: StoredSettings) -> StoredSettings {
    let superseding = settings.auto_cancel.map(|cancels| match cancels {
        true => Superseding::CancelsEarlier,
        false => Superseding::KeepsEarlier,
    });
    let mut other = before.other;
    let rest = ProjectSettings { auto_cancel: None, ..settings.clone() };
    // Our own types serialize to JSON whatever they hold.
    other.insert(API_SETTINGS.to_owned(), serde_json::to_value(rest).expect("settings always serialize"));
    StoredSettings { superseding, other, ..before }
}

/// Whether a project has this tag, or none is asked for.
fn is_tagged(project: &Project, tag: Option<&str>) -> bool {
    tag.is_none_or(|tag| project.settings.tags.iter().any(|own| own == tag))
}

/// A project with its newest builds, as the API's `Project` is sent.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    project: Project,
    #[serde(flatten)]
    newest: Option<Newest>,
}

/// The names in a query that projects may have.
fn named(text: &str) -> Result<BTreeSet<String>, Problem> {
    let names: BTreeSet<String> = text.split(',').filter(|name| is_name(name)).map(str::to_owned).collect();
    if names.len() > LISTED_WITH_BUILDS_MAX as usize {
        return Err(Problem::new(ProblemKind::Invalid, "these are too many names")
            .field("names", format!("at most {LISTED_WITH_BUILDS_MAX}; ask for the others by themselves")));
    }
    Ok(names)
}

/// The projects with these names behind `after`, in the order of names.
fn read(app: &App, names: &BTreeSet<String>, after: Option<&str>) -> Result<Vec<(String, Stored)>, RecordError> {
    let names = names.iter().filter(|name| after.is_none_or(|after| name.as_str() > after));
    let found = names.map(|name| Ok(app.server.records.read(name)?.map(|(project, _)| (name.clone(), project))));
    found.filter_map(Result::transpose).collect()
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let builds = bounded(&call, "builds", LISTED_BUILDS_MAX)?;
    let most = if builds.is_some() { LISTED_WITH_BUILDS_MAX } else { LIMIT_MAX };
    let (limit, after) = (call.limit()?.min(most), call.cursor::<String>()?);
    let tag = call.text("tag").filter(|tag| !tag.is_empty()).map(str::to_owned);
    let names = call.text("names").map(named).transpose()?;
    let bearer = Arc::clone(call.bearer()?);
    let page = app
        .blocking(move |app| {
            let mut sight = Sight::new(&bearer, Verb::Read, app.now());
            let mut projects = Vec::new();
            let mut last = after;
            // One more than wanted says whether there is a next page.
            while projects.len() <= limit as usize {
                let page = match &names {
                    Some(names) => read(app, names, last.as_deref()),
                    None => app.server.records.list::<Stored>(last.as_deref(), LIMIT_MAX),
                };
                let page = page.map_err(problem::record)?;
                let Some((key, _)) = page.last() else { break };
                last = Some(key.clone());
                let seen = page.into_iter().filter(|(name, _)| sight.project(name));
                let seen = seen.map(|(name, project)| shown(name, &project));
                projects.extend(seen.filter(|project| is_tagged(project, tag.as_deref())));
            }
            let page = cut(projects.into_iter(), limit, |project| project.name.clone());
            let told = |project: Project| {
                let newest = builds.map(|most| app.known_builds.newest(&*app.server.store, &project.name, most));
                Ok(Listed { newest: newest.transpose().map_err(problem::store)?, project })
            };
            let items = page.items.into_iter().map(told).collect::<Result<Vec<_>, Problem>>()?;
            Ok(Page { items, next: page.next })
        })
        .await?;
    answer::json(&page)
}

pub async fn get(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("project").to_owned();
    let builds = bounded(&call, "builds", LISTED_BUILDS_MAX)?;
    let project = app
        .blocking(move |app| {
            let found = app.server.records.read::<Stored>(&name).map_err(problem::record)?;
            let (project, _) = found.ok_or_else(|| problem::not_found(format_args!("project `{name}`")))?;
            let newest = builds.map(|most| app.known_builds.newest(&*app.server.store, &name, most));
            Ok(Listed { newest: newest.transpose().map_err(problem::store)?, project: shown(name, &project) })
        })
        .await?;
    answer::json(&project)
}

/// Refuses settings that are longer than their schema says.
fn check(settings: &ProjectSettings) -> Result<(), Problem> {
    let too_long = |name: &str, most: usize| {
        Problem::new(ProblemKind::Unprocessable, format!("`{name}` is too long, or empty"))
            .field(name, format!("at most {most} characters"))
    };
    if settings.description.chars().count() > DESCRIPTION_MAX {
        return Err(too_long("description", DESCRIPTION_MAX));
    }
    match &settings.pool {
        Some(pool) if pool.is_empty() || pool.chars().count() > POOL_MAX => Err(too_long("pool", POOL_MAX)),
        Some(pool) if !is_name(pool) => {
            Err(Problem::new(ProblemKind::Unprocessable, format!("`{pool}` cannot be a pool"))
                .field("pool", "letters, digits and `._-`, at most 100, a letter or digit first"))
        }
        _ => Ok(()),
    }?;
    match &settings.default_branch {
        Some(branch) if branch.is_empty() || branch.chars().count() > BRANCH_MAX => {
            Err(too_long("default_branch", BRANCH_MAX))
        }
        _ => Ok(()),
    }?;
    match settings.tags.iter().find(|tag| !is_name(tag)) {
        Some(tag) => Err(Problem::new(ProblemKind::Unprocessable, format!("`{tag}` cannot be a tag"))
            .field("tags", "letters, digits and `._-`, at most 100, a letter or digit first")),
        None if settings.tags.len() > TAGS_MAX => {
            Err(Problem::new(ProblemKind::Unprocessable, "these are too many tags")
                .field("tags", format!("at most {TAGS_MAX}")))
        }
        None => Ok(()),
    }
}

pub async fn put(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("project").to_owned();
    let settings: ProjectSettings = call.json()?;
    check(&settings)?;
    let key = name.clone();
    let project = app
        .blocking(move |app| {
            let at = app.now();
            let changed = app.server.records.change(&key, at, |before: Option<Stored>| {
                let before = before.unwrap_or_else(|| Stored { name: key.clone(), created: at, ..Stored::default() });
                Stored { settings: stored(&settings, before.settings.clone()), ..before }
            });
            Ok(shown(key.clone(), &changed.map_err(problem::record)?))
        })
        .await?;
    audit(&app, &call, &name, format!("project {name}"), String::new()).await?;
    answer::json(&project)
}

pub async fn delete(app: Arc<App>, call: Call) -> Answered {
    let name = call.segment("project").to_owned();
    let (key, by) = (name.clone(), call.who());
    app.blocking(move |app| {
        exists(app, &key)?;
        app.secrets.remove_all(&key).map_err(problem::record)?;
        crate::members::forget_project(&app.server.access, &app.server.records, &key, &by, app.now())
            .map_err(super::member::refused)?;
        app.server.records.remove::<crate::quarantine::Quarantine>(&key).map_err(problem::record)?;
        app.server.records.remove::<Stored>(&key).map_err(problem::record)
    })
    .await?;
    audit(&app, &call, &name, format!("project {name}"), String::new()).await?;
    answer::nothing()
}

pub fn exists(app: &App, project: &str) -> Result<(), Problem> {
    let found = app.server.records.read::<Stored>(project).map_err(problem::record)?;
    found.map(drop).ok_or_else(|| problem::not_found(format_args!("project `{project}`")))
}

pub async fn secret_list(app: Arc<App>, call: Call) -> Answered {
    let project = call.segment("project").to_owned();
    let names = app
        .blocking(move |app| {
            exists(app, &project)?;
            app.secrets.names(&project).map_err(problem::record)
        })
        .await?;
    let secret = |(name, changed): (String, graph::Timestamp)| Secret { name, changed: Some(changed.into()) };
    answer::page(names.into_iter().map(secret).collect())
}

/// The name of the path, if it can name a secret.
fn secret_name(call: &Call) -> Result<String, Problem> {
    let name = call.segment("secret");
    if is_secret_name(name) {
        return Ok(name.to_owned());
    }
    Err(Problem::new(ProblemKind::Invalid, "a secret is named as a variable of the environment")
        .field("secret", "letters, digits and `_`, at most 100, no digit first"))
}

pub async fn secret_put(app: Arc<App>, call: Call) -> Answered {
    let (project, name) = (call.segment("project").to_owned(), secret_name(&call)?);
    let value = call.json::<SecretValue>()?.value;
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        return Err(Problem::new(ProblemKind::Unprocessable, "the value is empty, or too long")
            .field("value", format!("1 to {SECRET_BYTES_MAX} bytes")));
    }
    if value.contains('\0') {
        return Err(Problem::new(
            ProblemKind::Unprocessable,
            "the value holds a NUL byte, which no variable of a job can hold",
        )
        .field("value", "text without NUL; put other bytes as Base64"));
    }
    let (key, secret) = (project.clone(), name.clone());
    app.blocking(move |app| {
        // Secrets are often put before the first build asks for them.
        app.server.project(&key).map_err(super::build::request)?;
        app.secrets.put(&key, &secret, &value, app.now()).map_err(|error| match error {
            SecretError::Full => Problem::new(ProblemKind::Unprocessable, error.to_string()),
            SecretError::Seal(error) => problem::internal(&error),
            SecretError::Record(error) => problem::record(error),
        })
    })
    .await?;
    audit(&app, &call, &project, format!("secret {name}"), String::new()).await?;
    answer::nothing()
}

pub async fn secret_delete(app: Arc<App>, call: Call) -> Answered {
    let (project, name) = (call.segment("project").to_owned(), secret_name(&call)?);
    let (key, secret) = (project.clone(), name.clone());
    app.blocking(move |app| app.secrets.remove(&key, &secret, app.now()).map_err(problem::record)).await?;
    audit(&app, &call, &project, format!("secret {name}"), String::new()).await?;
    answer::nothing()
}
