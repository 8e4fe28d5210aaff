//! When the jobs of a build waited, were made ready and ran, which of them decided how long it took, and how the build before went.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::job::{Attempt, CacheFound, CacheReport, CacheSaved, Gate, Job, JobState, Phase, Report};
use graph::Timestamp;
use maud::{Markup, html};

use super::jobs::{Choice, LEGS_MAX, OPEN_MAX, ROWS_MAX, Unit};
use super::{Shown, spans, title, tree};
use crate::words::{self, Standing};
use crate::{Ask, paths};

/// The width of a bar's drawing in its own units.
pub(super) const WIDTH: u64 = 1000;
/// The parts of the axis.
const MARKS: u64 = 4;
/// Of how many jobs it is worked out what a cached result would save: those of the decisive path that ran longest.
const SAVINGS_MAX: usize = 10;
/// How much of a wait for people is drawn, at the least, in milliseconds.
const AFTER_LAST_MS: u64 = 100;
/// What lies between two things that a worker did beside the steps, if it is shorter, counts as theirs, in milliseconds.
const GAP_MS_MIN: u64 = 10;
/// The shortest wait of which it is told what ended it, and how soon after the end of one attempt its worker takes the next, in milliseconds.
const WAIT_MS_MIN: u64 = 100;
const FREED_MS_MAX: u64 = 1_000;
/// The least that is worth a word, in milliseconds.
const SAVING_MIN_MS: u64 = 1_000;

/// The build before of the same pipeline and branch.
#[derive(Default)]
pub(crate) struct Before {
    pub build: u64,
    pub name: String,
    /// How long after the request each job began and ended, in milliseconds, by name.
    pub spans: HashMap<String, (u64, u64)>,
}

/// The span of time that all bars of a build have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    from: Timestamp,
    to: Timestamp,
}

impl Scale {
    fn whole_ms(self) -> u64 {
        self.to.ms_since(self.from).max(1)
    }

    pub(super) fn place(self, at: Timestamp) -> u64 {
        self.place_ms(at.ms_since(self.from))
    }

    fn place_ms(self, ms: u64) -> u64 {
        (u128::from(ms) * u128::from(WIDTH) / u128::from(self.whole_ms())).min(u128::from(WIDTH)) as u64
    }
}

/// What part of a job's time a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It could have begun and had no worker.
    Waiting,
    /// Its gate was open: a person was asked.
    Asking,
    /// A worker had it and had not taken it up.
    Starting,
    /// Checkout, caches, environment: all before the first step.
    Restoring,
    /// Its steps.
    Running(Standing),
    /// Artifacts and caches: all after the last step.
    Saving,
}

impl Part {
    fn class(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asking => "asking",
            Self::Starting => "starting",
            Self::Restoring => "restoring",
            Self::Running(standing) => standing.word(),
            Self::Saving => "saving",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asking => "waiting for a person",
            Self::Starting => "starting (checkout)",
            Self::Restoring => "restoring (caches, environment)",
            Self::Running(_) => "running",
            Self::Saving => "saving (artifacts, caches)",
        }
    }
}

/// One stretch of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment<'r> {
    part: Part,
    /// What the worker says that it did in it, beside steps.
    phase: Option<&'r Phase>,
    from: Timestamp,
    to: Timestamp,
}

impl Segment<'_> {
    fn class(&self) -> String {
        let is_cache = self.phase.is_some_and(|phase| phase.what.starts_with("cache_"));
        format!("{}{}", self.part.class(), if is_cache { " cache" } else { "" })
    }
}

/// When each job that has ended had.
fn ends(jobs: &[Job]) -> HashMap<&str, Timestamp> {
    jobs.iter().filter_map(|job| Some((job.name.as_str(), job.finished?.0))).collect()
}

/// When a job could begin: when the last of its needs had ended, else when the build was asked for. `None` if it cannot yet.
fn ready(job: &Job, ended: &HashMap<&str, Timestamp>, created: Timestamp) -> Option<Timestamp> {
    let mut at = created;
    for need in &job.needs {
        match ended.get(need.as_str()) {
            Some(end) => at = at.max(*end),
            // What has begun had all it needs: a need without an end was skipped, or is to come.
            None if job.started.is_some() => {}
            None => return None,
        }
    }
    Some(at)
}

/// The jobs that decided when the build ended: from the one that ended last, each the need that ended last.
fn critical(jobs: &[Job]) -> BTreeSet<&str> {
    let by_name: HashMap<&str, &Job> = jobs.iter().map(|job| (job.name.as_str(), job)).collect();
    let has_run = |job: &&Job| job.started.is_some() && job.finished.is_some();
    let mut path = BTreeSet::new();
    let mut next = jobs.iter().filter(has_run).max_by_key(|job| job.finished);
    while let Some(job) = next {
        // Needs have no circles; a document that has one ends the walk here.
        if !path.insert(job.name.as_str()) {
            break;
        }
        let needs = job.needs.iter().filter_map(|need| by_name.get(need.as_str()).copied());
        next = needs.filter(has_run).max_by_key(|job| job.finished);
    }
    path
}

/// How much sooner the build would have ended, had a job's result been there already: its wait and its run fall away, all that stands
/// behind it moves up, and every other wait stays as long as it was. What is reused is looked up after a gate's answer, so the wait for that stays too.
fn savings<'j>(
    jobs: &'j [Job],
    gates: &BTreeMap<String, Gate>,
    critical: &BTreeSet<&str>,
    created: Timestamp,
) -> BTreeMap<&'j str, u64> {
    let mut ran: Vec<&Job> = jobs.iter().filter(|job| job.started.is_some() && job.finished.is_some()).collect();
    ran.sort_by_key(|job| job.started);
    let ended = ends(jobs);
    // After all it needs: how long each job waited and ran, and how much of that it waited for a person.
    let length = |job: &&Job| {
        let ready = ready(job, &ended, created).unwrap_or(created);
        let answered = gates.get(&job.name).and_then(|gate| gate.answered.as_ref());
        let length = job.finished.map_or(0, |end| end.0.ms_since(ready));
        (length, answered.map_or(0, |answered| answered.at.0.ms_since(ready)).min(length))
    };
    let lengths: Vec<(u64, u64)> = ran.iter().map(length).collect();
    let end_without = |without: Option<&str>| {
        let mut ends: HashMap<&str, u64> = HashMap::with_capacity(ran.len());
        for (job, (length, asked)) in ran.iter().zip(&lengths) {
            let ready = job.needs.iter().filter_map(|need| ends.get(need.as_str())).max().copied().unwrap_or(0);
            let length = if without == Some(job.name.as_str()) { asked } else { length };
            ends.insert(&job.name, ready + length);
        }
        ends.into_values().max().unwrap_or(0)
    };
    let whole = end_without(None);
    let took = |job: &Job| words::took(job.started, job.finished, created).unwrap_or(0);
    let mut asked: Vec<&Job> =
        ran.iter().filter(|job| critical.contains(job.name.as_str()) && job.reused.is_none()).copied().collect();
    asked.sort_by_key(|job| std::cmp::Reverse(took(job)));
    asked.truncate(SAVINGS_MAX);
    asked
        .into_iter()
        .map(|job| (job.name.as_str(), whole - end_without(Some(&job.name)).min(whole)))
        .filter(|(_, saved)| *saved >= SAVING_MIN_MS)
        .collect()
}

/// Stretches one after another.
struct Stretches<'r> {
    segments: Vec<Segment<'r>>,
    at: Timestamp,
}

impl<'r> Stretches<'r> {
    /// From where the last one ended to `to`, if that is later.
    fn add(&mut self, part: Part, to: Timestamp) {
        self.add_phase(part, None, to);
    }

    fn add_phase(&mut self, part: Part, phase: Option<&'r Phase>, to: Timestamp) {
        if to > self.at {
            self.segments.push(Segment { part, phase, from: self.at, to });
            self.at = to;
        }
    }

    /// As [`Stretches::add`], with what the worker says of this time told apart.
    fn add_phases(&mut self, part: Part, phases: &'r [Phase], to: Timestamp) {
        let (from, to) = (self.at, to.max(self.at));
        let before = self.segments.len();
        for phase in phases.iter().filter(|phase| phase.started.0 >= from && phase.finished.0 <= to) {
            if phase.started.0.ms_since(self.at) >= GAP_MS_MIN {
                self.add(part, phase.started.0);
            }
            self.add_phase(part, Some(phase), phase.finished.0);
        }
        let has_phases = self.segments.len() > before;
        match self.segments.last_mut() {
            Some(last) if has_phases && to.ms_since(self.at) < GAP_MS_MIN => (last.to, self.at) = (to, to),
            _ => self.add(part, to),
        }
    }
}

/// The stretches of a job's time, tries after one another, in order and without overlap.
fn segments<'r>(
    job: &Job,
    gate: Option<&Gate>,
    attempts: &[&'r Attempt],
    ready: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Segment<'r>> {
    let Some(ready) = ready else { return Vec::new() };
    let mut bar = Stretches { segments: Vec::new(), at: ready };
    if let Some(gate) = gate {
        let until = gate.answered.as_ref().map(|answered| answered.at).or(job.finished);
        bar.add(Part::Waiting, gate.opened.0);
        bar.add(Part::Asking, until.map_or(now, |until| until.0.min(now)));
    }
    for attempt in attempts {
        bar.add(Part::Waiting, attempt.leased.0);
        let Some(end) = &attempt.ended else {
            bar.add(Part::Running(Standing::Running), now);
            continue;
        };
        let report = end.report.as_ref();
        let phases = report.map_or(&[][..], |report| &report.phases);
        let ran = report.and_then(|report| Some((report.steps.first()?, report.steps.last()?)));
        bar.add(Part::Starting, end.started.0);
        if let Some((first, _)) = ran {
            bar.add_phases(Part::Restoring, phases, first.started.0);
        }
        let standing = Standing::of_outcome(end.outcome);
        bar.add(Part::Running(standing), ran.map_or(end.finished.0, |(_, last)| last.finished.0.max(last.started.0)));
        bar.add_phases(Part::Saving, phases, end.finished.0);
    }
    match (attempts.is_empty(), job.started, job.finished) {
        // Attempts are not known for all of a large build: then the job's own times have to do.
        (true, Some(began), end) => {
            bar.add(Part::Waiting, began.0);
            bar.add(Part::Running(Standing::of_job(job)), end.map_or(now, |end| end.0));
        }
        _ if job.state == JobState::Waiting => bar.add(Part::Waiting, now),
        _ => {}
    }
    bar.segments
}

/// What all rows need to know.
pub(super) struct Times<'s> {
    pub(super) shown: &'s Shown,
    choice: &'s Choice,
    open: Vec<&'s Job>,
    pub(super) scale: Scale,
    ended: HashMap<&'s str, Timestamp>,
    critical: BTreeSet<&'s str>,
    savings: BTreeMap<&'s str, u64>,
    attempts: HashMap<&'s str, Vec<&'s Attempt>>,
    pub(super) now: Timestamp,
}

impl<'s> Times<'s> {
    fn new(shown: &'s Shown, choice: &'s Choice, now: Timestamp) -> Self {
        let created = shown.build.created.0;
        let now = shown.build.finished.map_or(now, |at| at.0.min(now));
        // While only people are waited for, the drawing does not shrink to nothing: it ends a little after what ran last.
        let last = shown.jobs.iter().filter_map(|job| job.finished).max();
        let is_busy = shown.jobs.iter().any(|job| job.state == JobState::Running);
        let now = match last.filter(|_| shown.build.open_gates > 0 && !is_busy) {
            Some(last) => now.min(last.0.plus_ms((last.0.ms_since(created) / 4).max(AFTER_LAST_MS))),
            None => now,
        };
        // The build before has room too, as long as this one stays legible.
        let own = now.ms_since(created).max(1);
        let before = shown.before.spans.values().map(|(_, end)| *end).max().unwrap_or(0).min(own * 2);
        let mut attempts: HashMap<&str, Vec<&Attempt>> = HashMap::new();
        for attempt in &shown.attempts {
            attempts.entry(&attempt.job).or_default().push(attempt);
        }
        let critical = critical(&shown.jobs);
        Self {
            shown,
            choice,
            open: choice.open(&shown.jobs),
            scale: Scale { from: created, to: created.plus_ms(own.max(before)) },
            ended: ends(&shown.jobs),
            savings: savings(&shown.jobs, &shown.asked, &critical, created),
            critical,
            attempts,
            now,
        }
    }

    fn segments(&self, job: &Job) -> Vec<Segment<'s>> {
        let ready = ready(job, &self.ended, self.scale.from);
        let none = Vec::new();
        let attempts = self.attempts.get(job.name.as_str()).unwrap_or(&none);
        let is_under_way = self.shown.build.finished.is_none();
        let gate = self.shown.asked.get(&job.name);
        let mut segments = segments(job, gate, attempts, ready, self.now);
        segments.retain(|segment| is_under_way || job.started.is_some() || segment.part != Part::Waiting);
        segments
    }

    /// What a segment says when it is pointed at.
    fn said(&self, job: &Job, segment: Segment) -> String {
        let took = words::duration(segment.to.ms_since(segment.from));
        if let Some(phase) = segment.phase {
            let attempts = self.attempts.get(job.name.as_str()).map_or(&[][..], Vec::as_slice);
            let reports = attempts.iter().filter_map(|attempt| attempt.ended.as_ref()?.report.as_ref());
            let took = words::duration(phase.finished.0.ms_since(phase.started.0));
            return format!("{} {took}", said_of_phase(phase, reports));
        }
        let why = self.shown.waiting.get(&job.name).filter(|_| segment.part == Part::Waiting && segment.to >= self.now);
        let caches = || {
            let attempts = self.attempts.get(job.name.as_str())?;
            let report = attempts.last()?.ended.as_ref()?.report.as_ref()?;
            // Those that are told with their times stand on their own.
            if report.phases.iter().any(|phase| phase.what == "cache_restored") {
                return None;
            }
            let found: Vec<String> = report.caches.iter().map(said_of_cache).collect();
            (segment.part == Part::Restoring && !found.is_empty()).then(|| format!(": {}", found.join(", ")))
        };
        let asked = || self.shown.asked.get(&job.name).filter(|_| segment.part == Part::Asking).map(said_of_gate);
        let over = || (segment.part == Part::Waiting).then(|| self.over(job, segment))?.map(|why| format!(": {why}"));
        let more = why.map(|why| format!(": {}", why.text));
        let more = more.or_else(asked).or_else(over).or_else(caches).unwrap_or_default();
        format!("{} {took}{more}", segment.part.words())
    }
}

impl Times<'_> {
    /// What ended a wait that is over, as the engine told it, else as far as this build's own attempts tell it; `None` of a wait of no
    /// length.
    fn over(&self, job: &Job, segment: Segment) -> Option<String> {
        if segment.to.ms_since(segment.from) < WAIT_MS_MIN {
            return None;
        }
        let own = self.attempts.get(job.name.as_str())?;
        let taken = own.iter().find(|attempt| attempt.leased.0 == segment.to)?;
        if let Some(told) = &taken.waited_for {
            let of = if told.build == job.build { String::new() } else { format!(" of build {}", told.build) };
            let what = match &told.group {
                Some(group) => format!(", which held the concurrency group {group}"),
                None => format!(" on {}", words::worker(taken)),
            };
            return Some(format!("taken up when {}{of} had ended{what}", told.job));
        }
        let ended = |attempt: &Attempt| attempt.ended.as_ref().map(|end| end.finished.0);
        let frees = |attempt: &&Attempt| {
            attempt.worker == taken.worker
                && attempt.job != job.name
                && ended(attempt).is_some_and(|at| at <= segment.to && segment.to.ms_since(at) <= FREED_MS_MAX)
        };
        let freed = self.shown.attempts.iter().filter(frees).max_by_key(|attempt| ended(attempt));
        let is_again = taken.try_number > 1;
        match freed {
            Some(freed) => Some(format!("taken up when {} had ended on {}", freed.job, words::worker(taken))),
            None if is_again => Some("for its next try".to_owned()),
            None => Some(format!("taken up by {}", words::worker(taken))),
        }
    }
}

/// What came of a question.
fn said_of_gate(gate: &Gate) -> String {
    match &gate.answered {
        Some(answered) => format!(": {} said {}", answered.by, if answered.approved { "yes" } else { "no" }),
        None => format!(": {}", gate.prompt),
    }
}

/// What a worker did beside the steps, by the reports of the job's attempts.
fn said_of_phase<'r>(phase: &Phase, mut reports: impl Iterator<Item = &'r Report>) -> String {
    let mut cache =
        || reports.find(|report| report.phases.contains(phase))?.caches.iter().find(|cache| cache.key == phase.name);
    match phase.what.as_str() {
        "workspace" => "workspace".to_owned(),
        "image" => "finding the image".to_owned(),
        "container" => "starting the container".to_owned(),
        "artifacts_taken" => "artifacts of other jobs".to_owned(),
        "artifacts_kept" => "keeping artifacts".to_owned(),
        "reports" => "reading reports of tests".to_owned(),
        "cache_restored" => cache().map_or_else(|| format!("cache {}", phase.name), said_of_cache),
        "cache_looked_up" => format!("looking for cache {}", phase.name),
        "cache_saved" => cache().map_or_else(|| format!("saving cache {}", phase.name), said_of_saving),
        other => other.replace('_', " "),
    }
}

fn said_of_saving(cache: &CacheReport) -> String {
    match cache.saved {
        CacheSaved::Written => format!("saving cache {} ({})", cache.key, words::size(cache.saved_bytes)),
        CacheSaved::Kept => format!("cache {} was saved by another job meanwhile", cache.key),
        CacheSaved::Refused => format!("cache {} could not be saved", cache.key),
        CacheSaved::Not => format!("saving cache {}", cache.key),
    }
}

fn said_of_cache(cache: &CacheReport) -> String {
    match cache.found {
        CacheFound::Key => format!("cache {} ({})", cache.key, words::size(cache.found_bytes)),
        CacheFound::Prefix => format!("cache {} ({})", cache.found_key, words::size(cache.found_bytes)),
        CacheFound::Nothing => format!("no cache {}", cache.key),
        CacheFound::Refused => format!("cache {} could not be restored", cache.key),
    }
}

/// The drawing of all rows.
pub(crate) fn show(shown: &Shown, units: &[Unit], choice: &Choice, ask: &Ask) -> Markup {
    let times = Times::new(shown, choice, ask.now);
    let has_path = times.critical.len() > 1;
    html! {
        p.legend {
            @for (class, text) in [("waiting", "waiting"), ("asking", "for a person"), ("starting", "starting"), ("restoring", "restoring"), ("restoring cache", "a cache"), ("passed", "running"), ("saving", "saving")].into_iter().filter(|(class, _)| *class != "asking" || !shown.asked.is_empty()) {
                span { svg.swatch width="14" height="10" aria-hidden="true" { rect class=(class) width="14" height="10" {} } " " (text) }
            }
            @if has_path { span { svg.swatch width="14" height="10" aria-hidden="true" { rect.path y="8" width="14" height="2" {} } " decided how long it took" } }
            @if !shown.before.spans.is_empty() { span { svg.swatch width="14" height="10" aria-hidden="true" { rect.ghost y="6" width="14" height="3" {} } " " a href=(paths::build(shown.before.build)) { (shown.before.name) } ", the build before" } }
            @if times.open.len() == OPEN_MAX { span { "steps of at most " (OPEN_MAX) " jobs are shown at once" } }
            span.quiet.keys-only { kbd { "+" } " " kbd { "−" } " zoom, " kbd { "←" } " " kbd { "→" } " move" }
        }
        ol.time {
            li.axis aria-hidden="true" { span {} div { @for mark in 0..=MARKS { span { (words::duration(times.scale.whole_ms() * mark / MARKS)) } } } }
            @if choice.is_narrowed() {
                @for job in choice.wanted(&shown.jobs).into_iter().skip(choice.from).take(ROWS_MAX) { (row(job, &times, ask)) }
            } @else {
                @for unit in units.iter().skip(choice.from).take(ROWS_MAX) {
                    @if unit.is_family() { (family(unit, &times, choice, ask)) } @else { (row(unit.jobs[0], &times, ask)) }
                }
            }
        }
        @if choice.is_narrowed() { (tree::pager(choice.wanted(&shown.jobs).len(), ROWS_MAX, choice)) } @else { (tree::pager(units.len(), ROWS_MAX, choice)) }
    }
}

fn row(job: &Job, times: &Times, ask: &Ask) -> Markup {
    let standing = Standing::of_job(job);
    let is_critical = times.critical.len() > 1 && times.critical.contains(job.name.as_str());
    let saving = times.savings.get(job.name.as_str());
    html! {
        li class=(standing.word()) {
            div.who {
                @if job.attempts > 0 { (opener(job, times)) }
                (standing.mark()) a.name href=(paths::job(job.build, &job.name)) { (title(job)) }
                span.quiet { @if job.reused.is_some() { "cached" } @else if let Some(ms) = words::took(job.started, job.finished, ask.now) { (words::against_usual(ms, job.usual_ms)) } }
                @if let Some(saved) = saving { span.saving title="how much sooner the build would have ended, had this result been taken from the cache" { "cached: −" (words::duration(*saved)) } }
            }
            (bar(job, times, is_critical))
        }
        @if let Some(tried) = times.shown.opened.get(&job.name) { (spans::rows(job, tried, times, &times.choice.text)) }
    }
}

/// Shows the steps of a job below its row, or takes them away.
fn opener(job: &Job, times: &Times) -> Markup {
    let is_open = times.open.iter().any(|open| open.name == job.name);
    html! {
        a.opener data-in-page id=(format!("steps-{}", paths::encoded(&job.name))) href=(times.choice.toggled(job, &times.open)) aria-expanded=(is_open) aria-label=(format!("Steps of {}", title(job))) { @if is_open { "▾" } @else { "▸" } }
    }
}

/// One job's bar, with all it says as text.
fn bar(job: &Job, times: &Times, is_critical: bool) -> Markup {
    let segments = times.segments(job);
    let said: Vec<String> = segments.iter().map(|segment| times.said(job, *segment)).collect();
    let before = times.shown.before.spans.get(&job.name);
    let mut text = if said.is_empty() { "not begun".to_owned() } else { said.join(", ") };
    if is_critical {
        text.push_str("; decided how long the build took");
    }
    if let Some(saved) = times.savings.get(job.name.as_str()) {
        text.push_str(&format!("; from the cache it would have saved {}", words::duration(*saved)));
    }
    if let Some((began, ended)) = before {
        text.push_str(&format!("; ran {} in the build before", words::duration(ended - began)));
    }
    let scale = times.scale;
    html! {
        svg.waterfall viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" role="img" aria-label=(text) {
            @for (segment, said) in segments.iter().zip(&said) {
                @let from = scale.place(segment.from).min(WIDTH - 2);
                @let (y, height) = if matches!(segment.part, Part::Waiting | Part::Asking) { (7, 3) } else { (3, 11) };
                rect class=(segment.class()) x=(from) y=(y) width=(scale.place(segment.to).saturating_sub(from).max(2)) height=(height) { title { (said) } }
            }
            @if let Some((began, ended)) = before {
                @let from = scale.place_ms(*began).min(WIDTH - 2);
                rect.ghost x=(from) y="16" width=(scale.place_ms(*ended).saturating_sub(from).max(2)) height="3" { title { "the build before: " (words::duration(ended - began)) } }
            }
            @if is_critical && let (Some(first), Some(last)) = (segments.first(), segments.last()) {
                @let from = scale.place(first.from).min(WIDTH - 2);
                rect.path x=(from) y="14" width=(scale.place(last.to).saturating_sub(from).max(2)) height="2" {}
            }
        }
    }
}

/// A matrix: from the first that began to the last that ended, and the legs to look at below it.
fn family(unit: &Unit, times: &Times, choice: &Choice, ask: &Ask) -> Markup {
    let standing = unit.standing();
    let began = unit.jobs.iter().filter_map(|job| job.started).min();
    let ended = unit.jobs.iter().map(|job| job.finished.map_or(times.now, |end| end.0)).max().unwrap_or(times.now);
    let text = format!("{}: {}", words::count(unit.jobs.len() as u64, "leg", "legs"), unit.tally());
    html! {
        li class=(standing.word()) {
            div.who { (standing.mark()) strong.name { (unit.name) } span.quiet { (unit.tally()) } }
            svg.waterfall viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" role="img" aria-label=(text) {
                @if let Some(began) = began {
                    @let from = times.scale.place(began.0).min(WIDTH - 2);
                    rect.span x=(from) y="8" width=(times.scale.place(ended).saturating_sub(from).max(2)) height="3" { title { (text) } }
                }
            }
        }
        @for job in unit.legs_shown() { (row(job, times, ask)) }
        @if unit.jobs.len() > LEGS_MAX { li { div.who { a.more data-in-page href=(choice.link(&[("family", unit.name)])) { "all " (unit.jobs.len()) " legs" } } } }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::job;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn the_path_that_decided_leads_from_the_end_to_the_start() {
        let jobs = [
            job("lint", &[], Some((0, 1))),
            job("build", &[], Some((0, 5))),
            job("test", &["lint", "build"], Some((5, 9))),
            job("docs", &["lint"], Some((1, 2))),
        ];
        let path = critical(&jobs);
        assert_eq!(path.iter().copied().collect::<Vec<_>>(), ["build", "test"]);
        // Without the build, the tests would wait for the linter; without the tests, the build is what is left.
        let saved: Vec<(&str, u64)> = savings(&jobs, &BTreeMap::new(), &path, at(0)).into_iter().collect();
        assert_eq!(saved, [("build", 4_000), ("test", 4_000)]);
        let circle = [job("a", &["b"], Some((0, 1))), job("b", &["a"], Some((0, 2)))];
        assert_eq!(critical(&circle).len(), 2);
        assert!(savings(&circle, &BTreeMap::new(), &critical(&circle), at(0)).len() <= 2);
    }

    #[test]
    fn from_the_cache_a_job_waits_for_its_gate_all_the_same() {
        let jobs = [job("ship", &[], Some((930, 940))), job("after", &["ship"], Some((940, 945)))];
        let gate: Gate = serde_json::from_value(json!({
            "build": 1, "job": "ship", "prompt": "Ship it?", "fields": {}, "opened": "1970-01-01T00:00:01Z",
            "answered": { "approved": true, "by": "ann", "at": "1970-01-01T00:15:30Z" },
        }))
        .expect("a gate");
        let gates = BTreeMap::from([("ship".to_owned(), gate)]);
        let saved: Vec<(&str, u64)> = savings(&jobs, &gates, &critical(&jobs), at(0)).into_iter().collect();
        assert_eq!(saved, [("after", 5_000), ("ship", 10_000)]);
    }

    #[test]
    fn the_time_of_a_job_is_taken_apart() {
        let attempt: Attempt = serde_json::from_value(json!({
            "build": 1, "attempt": 1, "job": "a", "try": 1, "worker": "w", "leased": "1970-01-01T00:00:02Z",
            "ended": {
                "outcome": "passed", "started": "1970-01-01T00:00:03Z", "finished": "1970-01-01T00:00:10Z",
                "tests": 0, "tests_failed": 0,
                "report": {
                    "outputs": {}, "usage": { "peak_memory_bytes": 0, "cpu_user_us": 0, "cpu_system_us": 0 },
                    "phases": [
                        { "what": "cache_restored", "name": "deps", "started": "1970-01-01T00:00:04Z", "finished": "1970-01-01T00:00:05Z" },
                        { "what": "cache_saved", "name": "deps", "started": "1970-01-01T00:00:09Z", "finished": "1970-01-01T00:00:10Z" },
                    ],
                    "caches": [{
                        "key": "deps", "found": "key", "found_bytes": 2048, "saved": "written", "saved_bytes": 3072, "put_bytes": 0,
                    }],
                    "steps": [{
                        "name": "make", "result": "passed", "started": "1970-01-01T00:00:05Z", "finished": "1970-01-01T00:00:09Z",
                        "lines": 0, "usage": { "peak_memory_bytes": 0, "cpu_user_us": 0, "cpu_system_us": 0 },
                    }],
                },
            },
        }))
        .expect("an attempt");
        let job = job("a", &[], Some((2, 10)));
        let told = segments(&job, None, &[&attempt], Some(at(1)), at(20));
        let parts: Vec<(Part, bool, u64)> = told
            .iter()
            .map(|segment| (segment.part, segment.phase.is_some(), segment.to.ms_since(segment.from) / 1000))
            .collect();
        let running = Part::Running(Standing::Passed);
        assert_eq!(
            parts,
            [
                (Part::Waiting, false, 1),
                (Part::Starting, false, 1),
                (Part::Restoring, false, 1),
                (Part::Restoring, true, 1),
                (running, false, 4),
                (Part::Saving, true, 1),
            ]
        );
        let reports = || attempt.ended.iter().filter_map(|end| end.report.as_ref());
        let said: Vec<String> =
            told.iter().filter_map(|segment| Some(said_of_phase(segment.phase?, reports()))).collect();
        assert_eq!(said, ["cache deps (2.0 KiB)", "saving cache deps (3.0 KiB)"]);
        assert_eq!(told[3].class(), "restoring cache");
    }

    #[test]
    fn a_job_that_cannot_begin_has_no_bar() {
        let (a, b) = (job("a", &[], None), job("b", &["a"], None));
        let jobs = [a, b];
        let ended = ends(&jobs);
        assert_eq!(ready(&jobs[0], &ended, at(1)), Some(at(1)));
        assert_eq!(ready(&jobs[1], &ended, at(1)), None);
        let parts = segments(&jobs[0], None, &[], Some(at(1)), at(3));
        assert_eq!(parts, [Segment { part: Part::Waiting, phase: None, from: at(1), to: at(3) }]);
        // While its gate is open, and after it was answered.
        let mut gate: Gate = serde_json::from_value(json!({
            "build": 1, "job": "a", "prompt": "Ship it?", "fields": {}, "opened": "1970-01-01T00:00:02Z",
        }))
        .expect("a gate");
        let told = |gate: &Gate| {
            let told = segments(&jobs[0], Some(gate), &[], Some(at(1)), at(9));
            told.iter().map(|it| (it.part, it.to.ms_since(it.from) / 1000)).collect::<Vec<_>>()
        };
        assert_eq!(
            (told(&gate), said_of_gate(&gate)),
            (vec![(Part::Waiting, 1), (Part::Asking, 7)], ": Ship it?".to_owned())
        );
        gate.answered =
            serde_json::from_value(json!({ "approved": true, "by": "ann", "at": "1970-01-01T00:00:05Z" })).ok();
        let expected = vec![(Part::Waiting, 1), (Part::Asking, 3), (Part::Waiting, 4)];
        assert_eq!((told(&gate), said_of_gate(&gate)), (expected, ": ann said yes".to_owned()));
    }

    #[test]
    fn places_lie_within_the_drawing() {
        let scale = Scale { from: at(0), to: at(10) };
        assert_eq!([at(-5), at(5), at(99)].map(|at| scale.place(at)), [0, 500, WIDTH]);
        assert_eq!(Scale { from: at(0), to: at(0) }.place(at(1)), WIDTH);
    }
}
