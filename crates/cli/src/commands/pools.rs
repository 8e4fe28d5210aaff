//! `ropewalk pools`: what waits for workers, in which order and why.

use std::collections::BTreeSet;

use api::client::{Client, PageWanted};
use api::page::LIMIT_MAX;
use api::pool::{Hold, Pool, Queued};

use super::Stop;
use crate::args::{Colour, ListForm, Pools, PoolsCommand};
use crate::columns::{Cell, Columns, Paint, Style};
use crate::remote::{ask, stop};
use crate::{exit, output, words};

/// Runs the command.
///
/// # Errors
/// If the server cannot be asked or refuses.
pub fn run(arguments: &Pools, colour: Colour) -> Result<u8, Stop> {
    let paint = Paint::of(colour, &std::io::stdout());
    let told = match &arguments.command {
        PoolsCommand::List { remote, output } => {
            let client = remote.client()?;
            let pools = ask(async { client.pool_list().await.map_err(stop) })?.items;
            match output {
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&pools).unwrap_or_default()),
                ListForm::Human => table(&pools, paint),
            }
        }
        PoolsCommand::Queue { remote, pool, output } => {
            let client = remote.client()?;
            let whole = PageWanted { limit: Some(LIMIT_MAX), cursor: None };
            let page = ask(async { client.pool_queue(pool, &whole).await.map_err(stop) })?;
            match output {
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&page.items).unwrap_or_default()),
                ListForm::Human => queue(pool, &page.items, page.next.is_some(), paint),
            }
        }
        PoolsCommand::Hold { remote, pool, new, reason } => {
            let client = remote.client()?;
            let known = ask(async { Ok(Known::of(&client).await) })?;
            if let Some(fault) = known.fault(pool).filter(|_| !new) {
                return Err(Stop::wrong(format!("{fault}; `--new` holds it before anybody does")));
            }
            let hold = Hold { reason: reason.clone() };
            let pool = ask(async { client.pool_hold(pool, &hold).await.map_err(stop) })?;
            let (name, waiting, running) = (&pool.name, pool.waiting, pool.running);
            let replaced = known.held(name).map_or_else(String::new, |held| {
                format!("this takes the place of the hold by {held}: one release ends it for both\n")
            });
            let release = crate::whereabouts::quoted(name);
            format!(
                "nothing starts in {name} until `ropewalk pools release {release}`; {waiting} wait, {running} run on\n{replaced}"
            )
        }
        PoolsCommand::Release { remote, pool, reason } => {
            let client = remote.client()?;
            let known = ask(async { Ok(Known::of(&client).await) })?;
            let hold = Hold { reason: reason.clone() };
            let name = ask(async { client.pool_release(pool, &hold).await.map_err(stop) })?.name;
            match (known.held(&name), known.fault(&name)) {
                (Some(held), _) => format!("jobs start in {name} again: it was held by {held}\n"),
                (None, Some(fault)) => format!("nobody held {name}: {fault}\n"),
                (None, None) => format!("jobs start in {name}: nobody held it\n"),
            }
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
}

/// The pools that there are, as far as the token shows them.
#[derive(Default)]
struct Known {
    pools: Vec<Pool>,
    /// Those that workers serve or served, be they there or not.
    served: BTreeSet<String>,
}

impl Known {
    /// A server that does not show them to the token leaves it to the caller to know them.
    async fn of(client: &Client) -> Self {
        let pools = client.pool_list().await.map(|page| page.items).unwrap_or_default();
        let workers = client.worker_list().await.map(|page| page.items).unwrap_or_default();
        Self { pools, served: workers.into_iter().flat_map(|worker| worker.pools).collect() }
    }

    fn find(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Who holds a pool, and why.
    fn held(&self, name: &str) -> Option<String> {
        let held = self.find(name)?.held.as_ref()?;
        Some(super::workers::said(&held.by, &held.reason))
    }

    /// Why a name is that of no pool; `None` if it is, or nobody can say.
    fn fault(&self, name: &str) -> Option<String> {
        if self.pools.is_empty() || self.find(name).is_some() || self.served.contains(name) {
            return None;
        }
        let names = self.pools.iter().map(|pool| &*pool.name).chain(self.served.iter().map(String::as_str));
        let nearest = dialects::suggest::nearest(name, names);
        let hint = nearest.map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?"));
        Some(format!("no worker serves the pool `{}` and no job names it{hint}", words::harmless(name)))
    }
}

fn table(pools: &[Pool], paint: Paint) -> String {
    if pools.is_empty() {
        return "there is no pool yet: one is there as soon as a worker serves it or a job waits in it\n".to_owned();
    }
    let mut columns = Columns::default();
    columns.titles(["pool", "waiting", "running", "slots", "workers", "held"]);
    for pool in pools {
        let held = pool.held.as_ref().map(|held| format!("by {}", super::workers::said(&held.by, &held.reason)));
        columns.row([
            Cell::new(&pool.name),
            Cell::right(pool.waiting.to_string()),
            Cell::right(pool.running.to_string()),
            Cell::right(pool.slots.to_string()),
            Cell::right(pool.workers.to_string()),
            Cell::new(held.unwrap_or_default()).style(Style::Warning),
        ]);
    }
    columns.text(paint, 0)
}

fn queue(pool: &str, queued: &[Queued], has_more: bool, paint: Paint) -> String {
    if queued.is_empty() {
        return format!("nothing waits in {pool}\n");
    }
    let mut columns = Columns::default();
    columns.titles(["place", "build", "job", "project", "client", "why it waits"]);
    for row in queued {
        columns.row([
            Cell::right(row.position.map(|position| position.to_string()).unwrap_or_default()),
            Cell::right(row.build.to_string()),
            Cell::new(&row.waiting.job),
            Cell::new(&row.project),
            Cell::new(&row.client),
            Cell::new(&row.waiting.text),
        ]);
    }
    let rest = if has_more {
        format!("only {}, those of the oldest builds\n", words::count(queued.len(), "job"))
    } else {
        String::new()
    };
    columns.text(paint, 0) + &rest
}
