//! What ran beside what: every try of every job as a bar in time, its steps below it, packed into as few lanes as are needed.

use api::job::{Attempt, Job, Report, Step, StepResult};
use graph::Timestamp;
use maud::{Markup, html};

use super::jobs::Choice;
use super::{Shown, title};
use crate::words::{self, Standing};
use crate::{Ask, paths};

/// The most bars of tries that are drawn: the longest.
const BARS_MAX: usize = 300;
/// The most steps that are drawn below one try: the longest.
const STEPS_MAX: usize = 50;
/// The parts of the axis.
const MARKS: u64 = 4;
/// Heights in pixels: of the axis, of a bar, of the steps below it, and what a lane takes with the gap below.
const AXIS: usize = 18;
const BAR: usize = 22;
const STEPS: usize = 16;
const LANE: usize = BAR + STEPS + 6;
/// The least width of what is drawn, in thousandths of a percent.
const WIDTH_MIN: u64 = 150;

/// One try of a job, or the job where tries are not known.
struct Bar<'s> {
    job: &'s Job,
    attempt: Option<&'s Attempt>,
    standing: Standing,
    from: Timestamp,
    to: Timestamp,
}

impl Bar<'_> {
    fn ms(&self) -> u64 {
        self.to.ms_since(self.from)
    }

    fn report(&self) -> Option<&Report> {
        self.attempt?.ended.as_ref()?.report.as_ref()
    }
}

/// The tries of these jobs, the first to begin first, and how many are left out.
fn bars<'s>(shown: &'s Shown, jobs: &[&'s Job], now: Timestamp) -> (Vec<Bar<'s>>, usize) {
    let mut bars = Vec::new();
    for job in jobs {
        let before = bars.len();
        for attempt in shown.attempts.iter().filter(|attempt| attempt.job == job.name) {
            let end = attempt.ended.as_ref();
            let from = end.map_or(attempt.leased.0, |end| end.started.0);
            let standing = end.map_or(Standing::Running, |end| Standing::of_outcome(end.outcome));
            let to = end.map_or(now, |end| end.finished.0).max(from);
            bars.push(Bar { job, attempt: Some(attempt), standing, from, to });
        }
        // Tries are not known for all of a large build: then the job's own times have to do.
        if let Some(from) = job.started.filter(|_| bars.len() == before && shown.attempts.is_empty()) {
            let to = job.finished.map_or(now, |end| end.0).max(from.0);
            bars.push(Bar { job, attempt: None, standing: Standing::of_job(job), from: from.0, to });
        }
    }
    let left_out = bars.len().saturating_sub(BARS_MAX);
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.ms()));
    bars.truncate(BARS_MAX);
    bars.sort_by_key(|bar| (bar.from, bar.job.order));
    (bars, left_out)
}

/// The lane of each of these spans, which are in order of their beginnings: the first one that is free by then. And how many lanes.
fn lanes(spans: impl Iterator<Item = (Timestamp, Timestamp)>) -> (Vec<usize>, usize) {
    let mut ends: Vec<Timestamp> = Vec::new();
    let lanes = spans.map(|(from, to)| {
        let lane = ends.iter().position(|end| *end <= from).unwrap_or(ends.len());
        match ends.get_mut(lane) {
            Some(end) => *end = to,
            None => ends.push(to),
        }
        lane
    });
    let lanes: Vec<usize> = lanes.collect();
    (lanes, ends.len())
}

/// From where the drawing begins to where it ends.
#[derive(Clone, Copy)]
struct Scale {
    from: Timestamp,
    whole_ms: u64,
}

impl Scale {
    /// Thousandths of a percent of the drawing.
    fn place(self, at: Timestamp) -> u64 {
        at.ms_since(self.from).min(self.whole_ms) * 100_000 / self.whole_ms
    }

    /// Where a span begins and how wide it is, as SVG takes it.
    fn of(self, from: Timestamp, to: Timestamp) -> (String, String) {
        let percent = |n: u64| format!("{}.{:03}%", n / 1000, n % 1000);
        let began = self.place(from).min(100_000 - WIDTH_MIN);
        (percent(began), percent(self.place(to).saturating_sub(began).max(WIDTH_MIN)))
    }
}

/// The drawing.
pub(crate) fn show(shown: &Shown, choice: &Choice, ask: &Ask) -> Markup {
    let created = shown.build.created.0;
    let now = shown.build.finished.map_or(ask.now, |at| at.0.min(ask.now));
    let (bars, left_out) = bars(shown, &choice.wanted(&shown.jobs), now);
    let (Some(from), Some(to)) = (bars.iter().map(|bar| bar.from).min(), bars.iter().map(|bar| bar.to).max()) else {
        return html! { p.empty { "Nothing has run yet." } };
    };
    let from = if choice.is_narrowed() { from } else { created.min(from) };
    let scale = Scale { from, whole_ms: to.ms_since(from).max(1) };
    let (lanes, n_lanes) = lanes(bars.iter().map(|bar| (bar.from, bar.to)));
    html! {
        p.legend {
            span { "what ran beside what; the steps of a job stand below it" }
            @if left_out > 0 { span { "the longest " (BARS_MAX) " of " (BARS_MAX + left_out) } }
            span.quiet.keys-only { kbd { "+" } " " kbd { "−" } " zoom, " kbd { "←" } " " kbd { "→" } " move" }
        }
        svg.flame width="100%" height=(AXIS + n_lanes * LANE) role="group" aria-label=(format!("{} in {}, at most {} at once", words::count(bars.len() as u64, "run", "runs"), words::duration(scale.whole_ms), n_lanes)) {
            @for mark in 0..=MARKS {
                @let anchor = match mark { 0 => "start", MARKS => "end", _ => "middle" };
                text.mark-time x=(format!("{}%", 100 * mark / MARKS)) y="12" text-anchor=(anchor) aria-hidden="true" { (words::duration(scale.whole_ms * mark / MARKS)) }
            }
            @for (bar, lane) in bars.iter().zip(lanes) { (drawn(bar, AXIS + lane * LANE, scale)) }
        }
    }
}

fn drawn(bar: &Bar, y: usize, scale: Scale) -> Markup {
    let own = paths::job(bar.job.build, &bar.job.name);
    let attempt = bar.attempt.filter(|_| bar.job.attempts > 1);
    let page = attempt.map_or_else(|| own.clone(), |attempt| format!("{own}?attempt={}", attempt.attempt));
    let tried = attempt.map_or_else(String::new, |attempt| format!(" try {}", attempt.try_number));
    let text = format!("{}{tried} {}", title(bar.job), words::duration(bar.ms()));
    let (x, width) = scale.of(bar.from, bar.to);
    html! {
        a.bar.(bar.standing.word()) href=(page) aria-label=(format!("{text}, {}", bar.standing.word())) {
            svg x=(x) y=(y) width=(width) height=(BAR) {
                title { (text) ", " (bar.standing.word()) }
                rect width="100%" height="100%" {}
                text x="5" y="15" aria-hidden="true" { (bar.standing.sign()) " " (text) }
            }
        }
        @for (index, step) in steps(bar) {
            @let (x, width) = scale.of(step.started.0, step.finished.0);
            @let standing = Standing::of_step(step.result);
            @let text = format!("{} {}", words::first_line(&step.name), words::duration(step.finished.0.ms_since(step.started.0)));
            @let attempt = bar.attempt.map_or(1, |attempt| attempt.attempt);
            a.bar.of-step.(standing.word()) href=(format!("{own}?attempt={attempt}&step={index}")) aria-label=(format!("{text}, {}", standing.word())) {
                svg x=(x) y=(y + BAR) width=(width) height=(STEPS) {
                    title { (text) ", " (standing.word()) @if let Some(used) = words::used(step.usage) { "; " (used) } }
                    rect width="100%" height="100%" {}
                    text x="5" y="12" aria-hidden="true" { (text) }
                }
            }
        }
    }
}

/// The steps of a try that ran, in order, with their indices.
fn steps<'b>(bar: &'b Bar) -> Vec<(usize, &'b Step)> {
    let steps = bar.report().map_or(&[][..], |report| &report.steps);
    let mut ran: Vec<(usize, &Step)> =
        steps.iter().enumerate().filter(|(_, step)| step.result != StepResult::Skipped).collect();
    ran.sort_by_key(|(_, step)| std::cmp::Reverse(step.finished.0.ms_since(step.started.0)));
    ran.truncate(STEPS_MAX);
    ran.sort_by_key(|(index, _)| *index);
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn a_lane_is_taken_again_when_it_is_free() {
        let spans = [(0, 4), (1, 2), (1, 3), (2, 5), (4, 6), (9, 9)];
        let (places, n_lanes) = lanes(spans.into_iter().map(|(from, to)| (at(from), at(to))));
        assert_eq!((places, n_lanes), (vec![0, 1, 2, 1, 0, 0], 3));
    }

    #[test]
    fn everything_lies_within_the_drawing() {
        let scale = Scale { from: at(0), whole_ms: 10_000 };
        assert_eq!(scale.of(at(5), at(10)), ("50.000%".to_owned(), "50.000%".to_owned()));
        assert_eq!(scale.of(at(-3), at(0)), ("0.000%".to_owned(), "0.150%".to_owned()));
        assert_eq!(scale.of(at(99), at(99)), ("99.850%".to_owned(), "0.150%".to_owned()));
    }
}
