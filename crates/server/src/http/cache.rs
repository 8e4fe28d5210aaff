//! Results and directories that are kept to be taken again.

use std::sync::Arc;

use api::cache::{Evict, Explained, Part};
use api::problem::{Problem, ProblemKind};
use graph::JobName;

use super::answer::{self, Answered};
use super::call::Call;
use super::control::{audit, reason};
use super::{App, convert, problem};

pub async fn operations(app: Arc<App>, call: Call) -> Answered {
    let limit = call.limit()?;
    let job = call.text("job").map(str::to_owned);
    let rows = app
        .blocking(move |app| match job {
            None => app.server.store.list_operations(limit).map_err(problem::store),
            Some(job) => {
                let rows = app
                    .server
                    .store
                    .recent_operations(JobName::from(job.as_str()).id(), limit)
                    .map_err(problem::store)?;
                let is_it = |name: &JobName| name.as_str() == job || name.id() == job;
                Ok(rows.into_iter().map(|(row, _)| row).filter(|row| is_it(&row.job)).collect())
            }
        })
        .await?;
    answer::page(rows.iter().map(convert::operation).collect())
}

pub async fn explain(app: Arc<App>, call: Call) -> Answered {
    let digest = call.digest()?;
    let manifest = app.blocking(move |app| app.server.store.manifest(digest).map_err(problem::store)).await?;
    let manifest = manifest.ok_or_else(|| problem::not_found(format_args!("operation {digest}")))?;
    let parts = manifest.0.into_iter().map(|(name, value)| Part { name, value }).collect();
    answer::json(&Explained { digest, parts })
}

pub async fn list(app: Arc<App>, call: Call) -> Answered {
    let limit = call.limit()?;
    let rows = app.blocking(move |app| app.server.store.list_caches(limit).map_err(problem::store)).await?;
    answer::page(rows.iter().map(convert::keyed_cache).collect())
}

pub async fn evict(app: Arc<App>, call: Call) -> Answered {
    let evict: Evict = call.json()?;
    let (target, why) = match &evict {
        Evict::Operation { digest, reason } => (format!("operation {digest}"), reason.clone()),
        Evict::Job { job, reason } => (format!("operations of {job}"), reason.clone()),
        Evict::Keyed { scope, key, reason } => (format!("cache {key} of {scope}"), reason.clone()),
    };
    let why = reason(why)?;
    if why.is_empty() {
        return Err(Problem::new(ProblemKind::Invalid, "say why; the tombstone keeps it").field("reason", "is empty"));
    }
    app.blocking(move |app| {
        let (store, at) = (&app.server.store, app.now());
        match evict {
            Evict::Operation { digest, reason } => store.evict(digest, &reason, at),
            Evict::Job { job, reason } => store.evict_job(&JobName::from(job), &reason, at).map(drop),
            Evict::Keyed { scope, key, reason } => store.evict_cache(&scope, &key, &reason, at),
        }
        .map_err(problem::store)
    })
    .await?;
    audit(&app, &call, "", target.chars().take(1000).collect(), why).await?;
    answer::nothing()
}
