//! `ropewalk pools`: what waits for workers, in which order and why.

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
            let page = ask(async { client.pool_queue(pool, &Default::default()).await.map_err(stop) })?;
            match output {
                ListForm::Json => format!("{:#}\n", serde_json::to_value(&page.items).unwrap_or_default()),
                ListForm::Human => queue(pool, &page.items, page.next.is_some(), paint),
            }
        }
        PoolsCommand::Hold { remote, pool, reason } => {
            let client = remote.client()?;
            let hold = Hold { reason: reason.clone() };
            let pool = ask(async { client.pool_hold(pool, &hold).await.map_err(stop) })?;
            format!(
                "nothing starts in {} until `ropewalk pools release {}`; {} wait, {} run on\n",
                pool.name,
                crate::whereabouts::quoted(&pool.name),
                pool.waiting,
                pool.running
            )
        }
        PoolsCommand::Release { remote, pool, reason } => {
            let client = remote.client()?;
            let hold = Hold { reason: reason.clone() };
            let pool = ask(async { client.pool_release(pool, &hold).await.map_err(stop) })?;
            format!("jobs start in {} again\n", pool.name)
        }
    };
    output::print(told)?;
    Ok(exit::PASSED)
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
    columns.titles(["build", "job", "project", "client", "why it waits"]);
    for row in queued {
        columns.row([
            Cell::right(row.build.to_string()),
            Cell::new(&row.waiting.job),
            Cell::new(&row.project),
            Cell::new(&row.client),
            Cell::new(&row.waiting.text),
        ]);
    }
    let rest = if has_more { format!("only the first {}\n", words::count(queued.len(), "job")) } else { String::new() };
    columns.text(paint, 0) + &rest
}
