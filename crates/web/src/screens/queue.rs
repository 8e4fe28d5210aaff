//! Pools with what waits in them and why, and workers with what they run.

use api::page::Page;
use api::pool::{Pool, Queued};
use api::problem::Problem;
use api::worker_view::{Worker, WorkerState};
use maud::{Markup, html};

use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many jobs that wait are listed of a pool.
const WAITING: u32 = 100;

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let pools = read::<Page<Pool>>(source, "/api/v1/pools").await?.items;
    let workers = read::<Page<Worker>>(source, "/api/v1/workers").await?.items;
    let mut shown = Vec::with_capacity(pools.len());
    for pool in &pools {
        let queue: Page<Queued> = match pool.waiting {
            0 => Page::default(),
            _ => read(source, &format!("/api/v1/pools/{}/queue?limit={WAITING}", paths::encoded(&pool.name))).await?,
        };
        shown.push(pool_of(pool, &queue, ask));
    }
    let main = html! {
        h1 { "Queue and workers" }
        div #pools data-live {
            @if shown.is_empty() { p.empty { "No pool has a worker, and nothing waits." } }
            @for pool in &shown { (pool) }
        }
        section aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" }
            div.cards #workers data-live {
                @if workers.is_empty() { (first_worker(ask)) }
                @for worker in &workers { (tile(worker, ask)) }
            }
        }
    };
    let crumbs = vec![Crumb::new("Queue", "/queue")];
    Ok(document(&Head { title: "Queue", crumbs, stream: Some("/api/v1/events".to_owned()) }, &main))
}

fn first_worker(ask: &Ask) -> Markup {
    html! {
        div {
            p { "No worker has ever joined. One is started on any machine that reaches this server:" }
            pre { code { "ropewalk token create --data DIR --worker --pool default > worker.token   # beside the server\nropewalk work --server " (ask.address) " --token worker.token --pool default" } }
        }
    }
}

fn pool_of(pool: &Pool, queue: &Page<Queued>, ask: &Ask) -> Markup {
    html! {
        section.pool #(format!("pool-{}", pool.name)) {
            h2 { "Pool " (pool.name) }
            p {
                (pool.running) " running in " (words::count(pool.slots, "place", "places")) " of "
                (words::count(pool.workers, "worker", "workers")) ", " (pool.waiting) " waiting"
            }
            (places(pool))
            @if let Some(held) = &pool.held { p.problem { "Held by " (held.by) " since " (words::ago(held.at, ask.now)) ": " (held.reason) } }
            @if !queue.items.is_empty() {
                table.list {
                    thead { tr { th.number { "Place" } th { "Job" } th { "Waits for" } th.number { "Begins in" } } }
                    tbody { @for (index, queued) in queue.items.iter().enumerate() {
                        @let waiting = &queued.waiting;
                        tr {
                            td.number { (index + 1) }
                            td { a.quiet href=(paths::build(queued.build)) { (queued.project) " " (queued.build) } " " a.name href=(paths::job(queued.build, &waiting.job)) { (waiting.job) } @if !queued.client.is_empty() { " " span.quiet { "for " (queued.client) } } }
                            td { (waiting.text) }
                            td.number { @if let Some(estimate) = waiting.estimate { (words::span(estimate.low_ms)) " to " (words::span(estimate.high_ms)) } }
                        }
                    } }
                }
                @if queue.next.is_some() { p.quiet { "The first " (WAITING) " of " (pool.waiting) " are listed." } }
            }
        }
    }
}

/// How many of a pool's places are taken, as a drawing.
fn places(pool: &Pool) -> Markup {
    let slots = pool.slots.max(1);
    let taken = pool.running.min(slots) * 1000 / slots;
    html! {
        svg.places viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(format!("{} of {} places taken", pool.running, pool.slots)) {
            rect.free x="0" y="0" width="1000" height="10" {}
            rect.running x="0" y="0" width=(taken) height="10" {}
        }
    }
}

fn tile(worker: &Worker, ask: &Ask) -> Markup {
    let (standing, word) = match worker.state {
        WorkerState::Ready if worker.running.is_empty() => (Standing::Passed, "idle"),
        WorkerState::Ready => (Standing::Running, "at work"),
        WorkerState::Paused => (Standing::Asking, "paused"),
        WorkerState::Draining => (Standing::Asking, "draining"),
        WorkerState::Away => (Standing::Skipped, "away"),
    };
    let path = format!("/workers/{}", paths::encoded(&worker.id));
    let may_resume = matches!(worker.state, WorkerState::Paused | WorkerState::Draining);
    html! {
        article.card #(format!("worker-{}", worker.id)) {
            h3 { (standing.mark()) " " (worker.name) " " span.quiet { (word) } }
            p.quiet {
                @if !worker.pools.is_empty() { (worker.pools.join(", ")) " · " } (words::count(worker.slots.into(), "place", "places")) " · version " (worker.version)
                @if let Some(seen) = worker.seen.filter(|_| worker.state == WorkerState::Away) { " · last heard of " (words::ago(seen, ask.now)) }
            }
            @if !worker.labels.is_empty() { p { @for label in &worker.labels { span.tag { (label) } " " } } }
            @if let Some(held) = &worker.held { p.problem { (held.by) ": " (held.reason) } }
            @if let Some(closed) = &worker.closed { p.problem { (closed) } }
            ul { @for running in &worker.running { li { a href=(paths::job(running.build, &running.job)) { "build " (running.build) " " (running.job) } " " span.quiet { "lease " (running.lease) } } } }
            div.actions {
                @if may_resume { form method="post" action=(format!("{path}/resume")) { button { "Resume" } } }
                @else if worker.state == WorkerState::Ready {
                    form method="post" action=(format!("{path}/pause")) { button { "Pause" } }
                    form method="post" action=(format!("{path}/drain")) { button { "Drain" } }
                }
            }
        }
    }
}
