//! Results and directories that are kept to be taken again.

use std::sync::Arc;

use api::cache::{CacheTotals, Evict, Explained, Part};
use api::page::{LIMIT_MAX, Page};
use api::problem::{Problem, ProblemKind};
use graph::JobName;
use store::cache::{CacheUse as StoredUse, cache_uses};

use super::answer::{self, Answered};
use super::call::Call;
use super::control::{audit, reason};
use super::job::cut;
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

/// Sums up the keyed directories of a project.
pub async fn totals(app: Arc<App>, call: Call) -> Answered {
    let prefix = format!("{}/", call.segment("project"));
    let totals = app.blocking(move |app| app.server.store.cache_totals_of(&prefix).map_err(problem::store)).await?;
    answer::json(&CacheTotals { caches: totals.live, bytes: totals.bytes })
}

/// What jobs of a project did with keyed directories, newest first.
pub async fn uses(app: Arc<App>, call: Call) -> Answered {
    let (limit, after) = (call.limit()?, call.cursor::<String>()?);
    let (project, key) = (call.segment("project").to_owned(), call.text("key").map(str::to_owned));
    let page = app.blocking(move |app| {
        let is_meant = |used: &StoredUse| key.as_ref().is_none_or(|key| used.key == *key);
        let (mut found, mut last) = (Vec::new(), after);
        // One more than wanted says whether there is a next page. What is kept of a project bounds this.
        while found.len() <= limit as usize {
            let uses = cache_uses::list(&*app.server.store, &project, last.as_deref(), LIMIT_MAX);
            let uses = uses.map_err(problem::store)?;
            let Some((place, _)) = uses.last() else { break };
            last = Some(place.clone());
            found.extend(uses.into_iter().filter(|(_, used)| is_meant(used)));
        }
        let Page { items, next } = cut(found.into_iter(), limit, |(place, _)| place.clone());
        Ok(Page { items: items.iter().map(|(_, used)| convert::cache_use(used)).collect(), next })
    });
    answer::json(&page.await?)
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
