//! Pools with what waits in them and why, and workers with what they run.

use std::collections::BTreeMap;

use api::job::{JobKey, WaitReason};
use api::page::Page;
use api::pool::{Pool, PoolHistory, PoolSample, Queued, SHARES_MAX, WorkerTime};
use api::problem::{Problem, ProblemKind};
use api::token::Version;
use api::worker_view::{Worker, WorkerState};
use maud::{Markup, html};

use crate::page::{Crumb, Document, Head, document};
use crate::words::{self, Standing};
use crate::{Ask, Source, paths, read};

/// How many jobs that wait are looked at of a pool, and how many of them are listed.
const WAITING: u32 = 500;
const LISTED: usize = 100;
/// How many reasons, projects and holders are told one by one.
const REASONS: usize = 8;
const HOLDERS: usize = 3;
/// The fewest samples of which there is a chart, and its size in units of the drawing.
const CHARTED_MIN: usize = 4;
/// How many looks apart two samples may be that a line joins.
const GAP_LOOKS: u64 = 4;
const CHART_WIDTH: u64 = 1000;
const CHART_HEIGHT: u64 = 100;

/// Writes the page.
pub(crate) async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let pools = read::<Page<Pool>>(source, "/api/v1/pools").await?.items;
    let version: Version = read(source, "/api/v1/version").await?;
    let workers = match read::<Page<Worker>>(source, "/api/v1/workers").await {
        Ok(page) => Some(page.items),
        // Who may see one project only sees what waits of it.
        Err(problem) if problem.status == ProblemKind::Forbidden.status() => None,
        Err(problem) => return Err(problem),
    };
    let mut shown = Vec::with_capacity(pools.len());
    for pool in &pools {
        let queue: Page<Queued> = match pool.waiting {
            0 => Page::default(),
            _ => read(source, &format!("/api/v1/pools/{}/queue?limit={WAITING}", paths::encoded(&pool.name))).await?,
        };
        let history: PoolHistory =
            read(source, &format!("/api/v1/pools/{}/history", paths::encoded(&pool.name))).await?;
        shown.push(pool_of(pool, &queue, &history, workers.as_deref().unwrap_or_default(), ask));
    }
    let worker_time: WorkerTime = read(source, "/api/v1/worker-time").await?;
    let main = html! {
        h1 { "Queue and workers" }
        div #pools data-live {
            @if shown.is_empty() { p.empty { "No pool has a worker, and nothing waits." } }
            @for pool in &shown { (pool) }
        }
        div #worker-time data-live { (busy_for(&worker_time, ask)) }
        section aria-labelledby="workers-title" {
            h2 #workers-title { "Workers" }
            div.cards #workers data-live {
                @match &workers {
                    None => p.empty { "Workers belong to all projects together: they are for those whose token grants " code { "read" } " on the whole server." },
                    Some(workers) if workers.is_empty() => (first_worker(ask)),
                    Some(workers) => @for worker in workers { (tile(worker, workers, &pools, &version, ask)) },
                }
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
            pre { code { "ropewalk token create --data DIR --worker --pool default > worker.token   # beside the server\nropewalk work --server " (words::quoted(&ask.address)) " --token worker.token --pool default" } }
        }
    }
}

fn pool_of(pool: &Pool, queue: &Page<Queued>, history: &PoolHistory, workers: &[Worker], ask: &Ask) -> Markup {
    let path = format!("/pools/{}", paths::encoded(&pool.name));
    html! {
        section.pool #(format!("pool-{}", pool.name)) {
            h2 { "Pool " (pool.name) }
            p {
                (pool.running) " running in " (words::count(pool.slots, "place", "places")) " of "
                (words::count(pool.workers, "worker", "workers")) ", " (pool.waiting) " waiting" @if pool.to_come > 0 { ", " (pool.to_come) " to come" }
                @if let Some(text) = forecast(queue) { " · " (text) }
            }
            (places(pool))
            (donut(pool, workers))
            @if is_current(history, ask) { (waits(history)) (chart(history)) }
            @if let Some(held) = &pool.held {
                p.problem { "Held by " (held.by) " since " (words::ago(held.at, ask.now)) @if !held.reason.is_empty() { ": " (held.reason) } }
                form.hold method="post" action=(format!("{path}/release")) { button.main { "Release the pool" } }
            } @else {
                details #(format!("hold-{}", pool.name)) { summary.quiet { "Hold this pool" }
                    form.hold method="post" action=(format!("{path}/hold")) {
                        input name="reason" maxlength="1000" placeholder="Why; those who wait are told" aria-label="Why";
                        button { "Hold" }
                    }
                    p.quiet { "Nothing new starts in it until it is released: " (affected(pool)) ". " (going_on(pool.running)) }
                }
            }
            @if !queue.items.is_empty() { (reasons(pool, queue)) }
            (of_projects(pool, queue, workers))
            (shares(pool))
            @if !queue.items.is_empty() { (list(pool, queue)) }
        }
    }
}

/// Whether somebody looked lately: what an earlier server saw last tells nothing of now.
fn is_current(history: &PoolHistory, ask: &Ask) -> bool {
    history.samples.last().is_some_and(|last| ask.now.ms_since(last.at.0) <= history.every_ms * GAP_LOOKS)
}

/// How long those that wait have waited, and how bad it was.
fn waits(history: &PoolHistory) -> Markup {
    let samples = &history.samples;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return html! {} };
    let (now, span) = (last.waits, last.at.0.ms_since(first.at.0).max(history.every_ms));
    let worst = samples.iter().filter_map(|sample| sample.waits).map(|waits| waits.p95_ms).max();
    let worst = worst.filter(|worst| now.is_none_or(|now| now.p95_ms < *worst));
    html! {
        @if now.is_some() || worst.is_some() {
            p.quiet {
                @match now {
                    Some(waits) if waits.p50_ms == waits.longest_ms => { "What waits longest has waited " strong { (words::duration(waits.longest_ms)) } },
                    Some(waits) => { "Half of those that wait have waited " strong { (words::duration(waits.p50_ms)) } " at most, 95 % " strong { (words::duration(waits.p95_ms)) } ", the one that waits longest " strong { (words::duration(waits.longest_ms)) } },
                    None => "Nobody waits now",
                }
                @if let Some(worst) = worst { " · at worst within the last " (words::lately(span)) ", 95 % had waited " (words::duration(worst)) }
            }
        }
    }
}

/// What workers were busy with, by project.
fn busy_for(time: &WorkerTime, ask: &Ask) -> Markup {
    let total: u64 = time.projects.iter().map(|project| project.worker_ms).sum();
    let of_hundred = |ms: u64| ms.saturating_mul(100) / total.max(1);
    let thousandths = |ms: u64| usize::try_from(ms.saturating_mul(1000) / total.max(1)).unwrap_or(0);
    html! {
        @if !time.projects.is_empty() {
            section.pool aria-labelledby="worker-time-title" {
                h2 #worker-time-title { "Time of workers" }
                p.quiet { "What attempts took that ended within seven days, counted since " (words::ago(time.since, ask.now)) ": " strong { (words::duration(total)) } " in all." }
                div.reasons {
                    @for project in time.projects.iter().take(REASONS) {
                        span.number { (of_hundred(project.worker_ms)) " %" } (share(thousandths(project.worker_ms), 1000, "running"))
                        span {
                            @if project.project.is_empty() { "builds of no project" } @else { a href=(paths::project(&project.project)) { (project.project) } } " "
                            span.quiet { (words::duration(project.worker_ms)) " in " (words::count(project.attempts, "attempt", "attempts")) }
                        }
                    }
                }
                @if time.projects.len() > REASONS { p.quiet { (time.projects.len() - REASONS) " further projects took less." } }
            }
        }
    }
}

/// What a chart shows of a sample.
type Figure = fn(&PoolSample) -> u64;

/// How the pool stood over the last hour, as far as the server has looked.
fn chart(history: &PoolHistory) -> Markup {
    let samples = &history.samples;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return html! {} };
    let span = last.at.0.ms_since(first.at.0);
    if samples.len() < CHARTED_MIN {
        return html! { p.quiet { "A chart of waiting and running jobs begins in a minute." } };
    }
    let most = samples.iter().map(|it| it.waiting.max(it.running).max(it.slots)).max().unwrap_or(0).max(1);
    let line = |samples: &[PoolSample], of: Figure| {
        let point = |it: &PoolSample| {
            let x = it.at.0.ms_since(first.at.0).saturating_mul(CHART_WIDTH) / span.max(1);
            format!("{x},{}", CHART_HEIGHT - of(it).saturating_mul(CHART_HEIGHT) / most)
        };
        samples.iter().map(point).collect::<Vec<_>>().join(" ")
    };
    // A time in which nobody looked, for want of a server, stays empty.
    let is_one = |left: &PoolSample, right: &PoolSample| right.at.0.ms_since(left.at.0) <= history.every_ms * GAP_LOOKS;
    let stretches: Vec<&[PoolSample]> = samples.chunk_by(is_one).collect();
    let busiest = |of: Figure| samples.iter().map(of).max().unwrap_or(0);
    let lines: [(&str, &str, Figure); 3] = [
        ("line-slots", "places", |it| it.slots),
        ("line-running", "running", |it| it.running),
        ("line-waiting", "waiting", |it| it.waiting),
    ];
    let told: Vec<String> = lines.iter().map(|(_, word, of)| format!("at most {} {word}", busiest(*of))).collect();
    html! {
        svg.chart viewBox=(format!("0 -2 {CHART_WIDTH} {}", CHART_HEIGHT + 4)) preserveAspectRatio="none" role="img" aria-label=(format!("The last {}: {}", words::lately(span), told.join(", "))) {
            @for (class, _, of) in lines { @for stretch in &stretches { polyline class=(class) points=(line(stretch, of)) vector-effect="non-scaling-stroke" {} } }
        }
        p.legend {
            @for (class, word, of) in lines { span { svg viewBox="0 0 12 6" aria-hidden="true" { rect class=(class) width="12" height="6" rx="1" {} } " " (word) ", at most " (busiest(of)) } }
            span { "the last " (words::lately(span)) }
        }
    }
}

/// When the last of those that wait is to begin, as far as that can be said.
fn forecast(queue: &Page<Queued>) -> Option<String> {
    let estimates: Vec<_> = queue.items.iter().filter_map(|queued| queued.waiting.estimate).collect();
    let (low, high) = (estimates.iter().map(|it| it.low_ms).max()?, estimates.iter().map(|it| it.high_ms).max()?);
    let which = if queue.next.is_some() { "the ones listed" } else { "all" };
    Some(format!("{which} have begun in {} to {}", words::duration(low), words::duration(high)))
}

/// A reason in few words, the same for all that wait for the same thing.
fn short(reason: &WaitReason) -> (String, &[JobKey]) {
    match reason {
        WaitReason::Nothing => ("nothing: they are about to begin".to_owned(), &[]),
        WaitReason::Needs { .. } => ("other jobs".to_owned(), &[]),
        WaitReason::Gate { .. } => ("a person's answer".to_owned(), &[]),
        WaitReason::Resolving => ("the next decision".to_owned(), &[]),
        WaitReason::Same { .. } => ("an equal job that is under way".to_owned(), &[]),
        WaitReason::Retry { .. } => ("the time of their next try".to_owned(), &[]),
        WaitReason::Concurrency { group, holders, .. } => (format!("the group {group}"), holders),
        WaitReason::Build { .. } => ("a build that they asked for".to_owned(), &[]),
        WaitReason::Held { .. } => ("the pool, which is held".to_owned(), &[]),
        WaitReason::NoWorker { missing, .. } => (format!("a worker: {missing}"), &[]),
        WaitReason::Queue { .. } => ("a free place".to_owned(), &[]),
        WaitReason::Affinity { worker, .. } => (format!("the worker {worker}, which has what they need"), &[]),
    }
}

/// A bar beside others, in thousandths of the longest.
fn share(n: usize, most: usize, class: &str) -> Markup {
    let width = n * 1000 / most.max(1);
    html! { svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" { rect class=(class) x="0" y="0" width=(width.max(6)) height="10" {} } }
}

/// For what jobs wait, the most frequent first.
fn reasons(pool: &Pool, queue: &Page<Queued>) -> Markup {
    let mut counts: BTreeMap<String, (usize, &[JobKey])> = BTreeMap::new();
    for queued in &queue.items {
        let (text, holders) = short(&queued.waiting.reason);
        counts.entry(text).or_insert((0, holders)).0 += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
    let most = counts.first().map_or(1, |(_, (n, _))| *n);
    html! {
        h3 { "Waiting for" @if queue.next.is_some() { " " span.quiet { "(the first " (queue.items.len()) " of " (pool.waiting) ")" } } }
        div.reasons {
            @for (text, (n, holders)) in counts.iter().take(REASONS) {
                span.number { (n) } (share(*n, most, "asking"))
                span { (words::marked(text)) @if !holders.is_empty() { ", held by " (held_by(holders)) } }
            }
        }
    }
}

fn held_by(holders: &[JobKey]) -> Markup {
    html! {
        @for (index, holder) in holders.iter().take(HOLDERS).enumerate() {
            @if index > 0 { ", " } a href=(paths::job(holder.build, &holder.job)) { (holder.job) " of build " (holder.build) }
        }
        @if holders.len() > HOLDERS { " and " (holders.len() - HOLDERS) " more" }
    }
}

/// The jobs that nothing would start if a pool had no worker that takes any.
fn affected(pool: &Pool) -> Markup {
    html! {
        @match (pool.waiting, pool.to_come) {
            (0, 0) => "no job waits in it or is to come",
            (waiting, 0) => (words::count(waiting, "job waits on", "jobs wait on")),
            (0, to_come) => (words::count(to_come, "job that is to come would wait", "jobs that are to come would wait")),
            (waiting, to_come) => { (words::count(waiting, "job waits on", "jobs wait on")) ", and so would " (to_come) " to come that wait for other jobs yet" },
        }
    }
}

fn going_on(running: u64) -> String {
    match running {
        0 => "Nothing runs in it.".to_owned(),
        1 => "The one that runs goes on.".to_owned(),
        n => format!("The {n} that run go on."),
    }
}

/// Who goes first: how far each client is beyond its share, as the queue has charged it.
fn shares(pool: &Pool) -> Markup {
    let most = pool.shares.iter().map(|share| share.ahead_ms).max().unwrap_or(0);
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(1);
    html! {
        @if pool.shares.len() > 1 {
            h3 { "Fair share" }
            p.quiet { "The queue charges each client for the time of its attempts. Who has had less goes first; who is ahead waits until the others have caught up." }
            div.reasons {
                @for (index, each) in pool.shares.iter().take(REASONS).enumerate() {
                    span.number { (index + 1) } (share(usize::try_from(each.ahead_ms).unwrap_or(usize::MAX).min(most), most, "running"))
                    span {
                        @if each.client.is_empty() { "those without a name" } @else { strong { (each.client) } } " "
                        span.quiet { @if each.ahead_ms == 0 { "goes first" } @else { (words::duration(each.ahead_ms)) " ahead" } ", " (each.waiting) " waiting" }
                    }
                }
            }
            @if pool.shares.len() > REASONS { p.quiet { (pool.shares.len() - REASONS) @if pool.shares.len() == SHARES_MAX { " or more" } " further clients wait." } }
        }
    }
}

/// Who has how much of a pool: what runs and waits of each project.
fn of_projects(pool: &Pool, queue: &Page<Queued>, workers: &[Worker]) -> Markup {
    let mut of_project: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let serving = workers.iter().filter(|worker| worker.pools.iter().any(|served| pool_name(served) == pool.name));
    for running in serving.flat_map(|worker| &worker.running) {
        of_project.entry(&running.project).or_default().0 += 1;
    }
    for queued in &queue.items {
        of_project.entry(&queued.project).or_default().1 += 1;
    }
    let mut of_project: Vec<_> = of_project.into_iter().collect();
    of_project.sort_by_key(|(_, (running, waiting))| std::cmp::Reverse(running + waiting));
    let most = of_project.iter().map(|(_, (running, waiting))| running + waiting).max().unwrap_or(1);
    html! {
        @if of_project.len() > 1 {
            h3 { "By project" }
            div.reasons {
                @for (project, (running, waiting)) in of_project.iter().take(REASONS) {
                    span.number { (running + waiting) } (share(running + waiting, most, "running"))
                    span { a href=(paths::project(project)) { (project) } " " span.quiet { (running) " running on its workers, " (waiting) " waiting" } }
                }
            }
        }
    }
}

/// Its place among those that wait for a free place, if it waits for that.
fn place(queued: &Queued) -> Option<u64> {
    match queued.waiting.reason {
        WaitReason::Queue { position, .. } => Some(position),
        _ => None,
    }
}

/// What waits, in the order in which it is to begin; last what waits for something else than a free place.
fn list(pool: &Pool, queue: &Page<Queued>) -> Markup {
    let mut items: Vec<&Queued> = queue.items.iter().collect();
    items.sort_by_key(|queued| place(queued).unwrap_or(u64::MAX));
    html! {
        table.list.queued {
            thead { tr { th.number { "Place" } th { "Job" } th { "Waits for" } th.number { "Begins in" } } }
            tbody { @for queued in items.into_iter().take(LISTED) {
                @let waiting = &queued.waiting;
                @let holders = short(&waiting.reason).1;
                tr {
                    td.number { @match place(queued) { Some(place) => (place), None => "–" } }
                    td { a.quiet href=(paths::build(queued.build)) { (queued.project) " " (queued.build) } " " a.name href=(paths::job(queued.build, &waiting.job)) { (waiting.job) } @if !queued.client.is_empty() { " " span.quiet { "for " (queued.client) } } @if queued.urgent { " " span.tag { "urgent" } } }
                    td { (words::marked(&waiting.text)) @if !holders.is_empty() { span.why { "held by " (held_by(holders)) } } }
                    td.number { @if let Some(estimate) = waiting.estimate { (words::duration(estimate.low_ms)) " to " (words::duration(estimate.high_ms)) " " } @if !queued.urgent && is_behind(queued) { (to_the_top(queued)) } }
                }
            } }
        }
        @if queue.items.len() > LISTED || queue.next.is_some() { p.quiet { "The first " (queue.items.len().min(LISTED)) " of " (pool.waiting) " are listed." } }
    }
}

/// Whether a job could begin sooner if its build went before others.
fn is_behind(queued: &Queued) -> bool {
    matches!(queued.waiting.reason, WaitReason::Queue { position: 2.., .. } | WaitReason::Held { .. })
}

/// Puts the build of a job before others.
fn to_the_top(queued: &Queued) -> Markup {
    let title = "All that waits of this build, and what is to come of it, goes before builds that are not urgent, until its client has its share of urgent places. The audit names who did it.";
    html! {
        form method="post" action=(format!("{}/urge", paths::build(queued.build))) {
            button title=(title) aria-label=(format!("Move build {} to the top", queued.build)) { "To the top" }
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

/// How the workers of a pool stand, in the order drawn: class, word and whether such a worker is meant.
type OfWorkers = (&'static str, &'static str, fn(&Worker) -> bool);
const WORKERS: [OfWorkers; 4] = [
    ("running", "at work", |worker| worker.state == WorkerState::Ready && !worker.running.is_empty()),
    ("passed", "idle", |worker| worker.state == WorkerState::Ready && worker.running.is_empty()),
    ("asking", "held", |worker| matches!(worker.state, WorkerState::Paused | WorkerState::Draining)),
    ("skipped", "away", |worker| worker.state == WorkerState::Away),
];

/// The workers of a pool as a ring: who is at work, idle, held or away.
fn donut(pool: &Pool, workers: &[Worker]) -> Markup {
    let serving: Vec<&Worker> =
        workers.iter().filter(|worker| worker.pools.iter().any(|served| pool_name(served) == pool.name)).collect();
    let counts =
        WORKERS.map(|(class, word, is_so)| (class, word, serving.iter().filter(|worker| is_so(worker)).count()));
    let told: Vec<(usize, &str, &str, usize)> = counts
        .iter()
        .scan(0, |before, (class, word, n)| {
            let from = *before;
            *before += n;
            Some((from, *class, *word, *n))
        })
        .filter(|(.., n)| *n > 0)
        .collect();
    let text: Vec<String> = told.iter().map(|(_, _, word, n)| format!("{n} {word}")).collect();
    let all = serving.len();
    html! {
        @if all > 0 {
            div.workers-ring {
                svg.donut viewBox="0 0 36 36" role="img" aria-label=(format!("{}: {}", words::count(all as u64, "worker", "workers"), text.join(", "))) {
                    @for (from, class, _, n) in &told {
                        circle class=(class) cx="18" cy="18" r="15" pathLength=(all) stroke-dasharray=(format!("{n} {}", all - n)) stroke-dashoffset=(format!("-{from}")) {}
                    }
                    text x="18" y="18" { (all) }
                }
                p.legend { @for (_, class, word, n) in &told { span { svg viewBox="0 0 12 6" aria-hidden="true" { rect class=(class) width="12" height="6" rx="1" {} } " " (n) " " (word) } } }
            }
        }
    }
}

/// What a pool is called; the default pool has no name with workers.
fn pool_name(pool: &str) -> &str {
    if pool.is_empty() { "default" } else { pool }
}

/// The pools that would have no worker left that takes anything, were this one drained.
fn left_alone<'p>(worker: &Worker, workers: &[Worker], pools: &'p [Pool]) -> Vec<&'p Pool> {
    let serves = |worker: &Worker, pool: &Pool| worker.pools.iter().any(|served| pool_name(served) == pool.name);
    let takes = |other: &Worker| other.state == WorkerState::Ready && other.closed.is_none();
    let is_left = |pool: &&Pool| {
        let others = workers.iter().filter(|other| other.id != worker.id);
        serves(worker, pool) && !others.filter(|other| takes(other)).any(|other| serves(other, pool))
    };
    pools.iter().filter(is_left).collect()
}

fn tile(worker: &Worker, workers: &[Worker], pools: &[Pool], version: &Version, ask: &Ask) -> Markup {
    let (standing, word) = match worker.state {
        WorkerState::Ready if worker.running.is_empty() => (Standing::Passed, "idle"),
        WorkerState::Ready => (Standing::Running, "at work"),
        WorkerState::Paused => (Standing::Asking, "paused"),
        WorkerState::Draining => (Standing::Asking, "draining"),
        WorkerState::Away => (Standing::Skipped, "away"),
    };
    html! {
        article.card #(format!("worker-{}", worker.id)) {
            h3 { (standing.mark()) " " (worker.name) " " span.quiet { (word) } }
            p.quiet {
                @if !worker.pools.is_empty() { (worker.pools.iter().map(|pool| pool_name(pool)).collect::<Vec<_>>().join(", ")) " · " }
                @if worker.state != WorkerState::Away { (worker.running.len()) " of " (words::count(worker.slots.into(), "place", "places")) " taken · " }
                @if worker.cpu_milli > 0 { (words::count(worker.cpu_milli.div_ceil(1000), "core", "cores")) " · " }
                @if worker.memory_bytes > 0 { (words::size(worker.memory_bytes)) " · " }
                "version " (worker.version)
                @if let Some(seen) = worker.seen { " · heard of " (words::ago(seen, ask.now)) }
            }
            @if worker.version != version.version { p { span.tag { "the server has version " (version.version) } } }
            @if !worker.labels.is_empty() { p { @for label in &worker.labels { span.tag { (label) } " " } } }
            @if let Some(held) = &worker.held { p.problem { (word) " by " (held.by) " " (words::ago(held.at, ask.now)) @if !held.reason.is_empty() { ": " (held.reason) } } }
            @if let Some(closed) = &worker.closed { p.problem { "Takes nothing new: " (closed) } }
            @if let Some(fault) = &worker.fault { p { span.quiet { "Last fault " (words::ago(fault.at, ask.now)) ": " } (words::marked(&fault.text)) " " a href=(paths::job(fault.build, &fault.job)) { (fault.job) } } }
            ul.running-list { @for running in &worker.running {
                li {
                    (Standing::Running.mark()) " " a href=(paths::job(running.build, &running.job)) { (running.job) } " "
                    span.quiet { (running.project) " build " (running.build) @if let Some(leased) = running.leased { " · for " (words::duration(ask.now.ms_since(leased.0))) } " · lease " (running.lease) }
                }
            } }
            (controls(worker, &left_alone(worker, workers, pools)))
        }
    }
}

/// What can be done about a worker. All of it stands in the audit, with the reason.
fn controls(worker: &Worker, left_alone: &[&Pool]) -> Markup {
    let path = format!("/workers/{}", paths::encoded(&worker.id));
    let n_running = worker.running.len() as u64;
    let has_button = |verb: &str, text: &str| html! { button formaction=(format!("{path}/{verb}")) { (text) } };
    html! {
        @match worker.state {
            WorkerState::Paused | WorkerState::Draining => form.hold method="post" action=(format!("{path}/resume")) { button.main { "Resume" } },
            WorkerState::Ready => details #(format!("control-{}", worker.id)) { summary.quiet { "Pause or drain" }
                form.hold method="post" action=(format!("{path}/pause")) {
                    input name="reason" maxlength="1000" placeholder="Why" aria-label="Why";
                    (has_button("pause", "Pause")) (has_button("drain", "Drain")) (has_button("update", "Update"))
                }
                p.quiet { "Paused it takes nothing new. Drained it finishes the " (words::count(n_running, "job", "jobs")) " it runs and leaves; updated it comes again as the program on its disk." }
                @for pool in left_alone { p.quiet { "No other worker takes anything of pool " (pool.name) ": without this one " (affected(pool)) "." } }
            },
            WorkerState::Away => details #(format!("control-{}", worker.id)) { summary.quiet { "Forget it" }
                form.hold method="post" action=(format!("{path}/forget")) {
                    input name="reason" maxlength="1000" placeholder="Why" aria-label="Why";
                    button.danger { "Forget this worker" }
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(name: &str, more: Value) -> Pool {
        let mut pool = json!({ "name": name, "waiting": 3, "running": 1, "workers": 1, "slots": 2, "to_come": 2 });
        pool.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
        serde_json::from_value(pool).expect("a pool")
    }

    fn worker(id: &str, pools: &[&str], state: &str) -> Worker {
        serde_json::from_value(json!({
            "id": id, "name": id, "state": state, "pools": pools, "labels": [], "slots": 1, "cpu_milli": 0, "memory_bytes": 0,
            "version": "1", "running": [],
        }))
        .expect("a worker")
    }

    #[test]
    fn whoever_drains_a_worker_is_told_what_would_wait() {
        let pools = [pool("default", json!({})), pool("gpu", json!({ "to_come": 0 })), pool("arm", json!({}))];
        let workers =
            [worker("a", &["", "gpu"], "ready"), worker("b", &[""], "ready"), worker("c", &["gpu"], "paused")];
        let left: Vec<&str> = left_alone(&workers[0], &workers, &pools).iter().map(|pool| pool.name.as_str()).collect();
        assert_eq!(left, ["gpu"]);
        assert_eq!(affected(&pools[1]).into_string(), "3 jobs wait on");
        assert_eq!(
            affected(&pools[0]).into_string(),
            "3 jobs wait on, and so would 2 to come that wait for other jobs yet"
        );
    }

    fn history(waits: &[Value]) -> PoolHistory {
        let sample = |(index, waits): (usize, &Value)| {
            let at = format!("2026-01-01T00:00:{:02}Z", index * 15);
            json!({ "at": at, "waiting": 1, "running": 0, "slots": 1, "workers": 1, "waits": waits })
        };
        let samples: Vec<Value> = waits.iter().enumerate().map(sample).collect();
        serde_json::from_value(json!({ "pool": "default", "every_ms": 15_000, "samples": samples })).expect("a history")
    }

    #[test]
    fn waits_are_told_as_they_are_and_as_they_were_at_worst() {
        let (short, long) = (
            json!({ "p50_ms": 500, "p95_ms": 2_000, "longest_ms": 3_000 }),
            json!({ "p50_ms": 1, "p95_ms": 90_000, "longest_ms": 90_000 }),
        );
        let text = waits(&history(&[long.clone(), short])).into_string();
        assert!(text.contains("<strong>500 ms</strong>") && text.contains("95 % had waited 1 m 30 s"), "{text}");
        let one = json!({ "p50_ms": 7, "p95_ms": 7, "longest_ms": 7 });
        let text = waits(&history(&[one])).into_string();
        assert_eq!(text, "<p class=\"quiet\">What waits longest has waited <strong>7 ms</strong></p>");
        assert!(waits(&history(&[long, Value::Null])).into_string().contains("Nobody waits now"));
        assert_eq!(waits(&history(&[Value::Null])).into_string(), "");
        assert_eq!(waits(&history(&[])).into_string(), "");
    }

    #[test]
    fn the_time_of_workers_is_told_in_shares() {
        let time = json!({ "since": "2026-01-01T00:00:00Z", "projects": [
            { "project": "<b>", "attempts": 1, "worker_ms": 7_200_000 }, { "project": "", "attempts": 2, "worker_ms": 2_400_000 },
        ] });
        let text = busy_for(&serde_json::from_value(time).expect("it is one"), &Ask::default()).into_string();
        assert!(text.contains("75 %") && text.contains("25 %") && text.contains("2 h 40 m"), "{text}");
        assert!(text.contains("&lt;b&gt;</a> <span class=\"quiet\">2 h 00 m in 1 attempt<"), "{text}");
    }

    #[test]
    fn shares_tell_who_goes_first() {
        let two = json!([{ "client": "ann", "waiting": 1, "ahead_ms": 0 }, { "client": "<b>", "waiting": 4, "ahead_ms": 90_000 }]);
        let text = shares(&pool("default", json!({ "shares": two }))).into_string();
        assert!(text.contains("goes first, 1 waiting"), "{text}");
        assert!(text.contains("&lt;b&gt;</strong> <span class=\"quiet\">1 m 30 s ahead, 4 waiting"), "{text}");
        // One alone shares with nobody.
        assert_eq!(
            shares(&pool("default", json!({ "shares": [{ "client": "", "waiting": 4, "ahead_ms": 9 }] })))
                .into_string(),
            ""
        );
    }
}
