//! The live view: ended jobs scroll by above; below them, in place, each running job with its time, a bar against
//! the usual duration, and its last line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Write};

use engine::fact::{Ended, What};
use graph::{Failure, JobName, Outcome, Timestamp};

use super::annotation::{Annotation, Tally};
use super::growth::{self, Growing};
use super::lines::Lines;
use super::suspension::Suspension;
use super::unwanted::Unwanted;
use super::{Awaited, Moment, Opening, Stream, View, Wants};
use crate::columns::{self, Paint, Style, cut};
use crate::whereabouts::quoted;
use crate::words;

/// The least time between two drawings, in milliseconds.
const DRAW_MS_MIN: u64 = 80;
/// Cells of a bar.
const BAR_CELLS: u64 = 16;
/// A narrower terminal keeps its room for the last line.
const COLUMNS_WITH_BAR_MIN: usize = 60;
/// Cells of a job's name, in a terminal of at most 80 columns.
const NAME_CELLS_MAX: usize = 32;
/// Cells that stay of a job's own name beside that of the leg.
const ID_CELLS_MIN: usize = 8;
/// Warnings and errors of a job that are shown under it once it has ended.
const SAID_MAX: usize = 5;
/// The most rows that say what grows later.
const HOLES_SHOWN_MAX: usize = 4;

#[derive(Default)]
struct Running {
    started: Timestamp,
    last_line: String,
    /// What it says it waits for.
    pending: Option<String>,
    /// It has not begun, since it waits for others.
    awaited: Option<Awaited>,
    tally: Tally,
    /// Which try it is, from 1.
    try_number: u32,
    /// The first of its warnings and errors, as they are shown.
    said: Vec<String>,
}

impl Running {
    /// Takes in a line that it printed.
    fn line(&mut self, stream: Stream, line: &str, paint: Paint) {
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        match Annotation::of(stream, line) {
            None if line.trim().is_empty() => {}
            None => self.last_line = plain_text(line),
            Some(Annotation::EndGroup) => {}
            Some(Annotation::Group(title) | Annotation::Notice(title)) => self.last_line = plain_text(&title),
            Some(Annotation::Pending(reason)) => {
                self.pending = Some(plain_text(&reason)).filter(|text| !text.is_empty())
            }
            Some(said @ (Annotation::Warning(_) | Annotation::Error(_))) => {
                self.tally.add(&said);
                if self.said.len() < SAID_MAX {
                    self.said.extend(said.text(paint));
                }
            }
        }
    }
}

/// The live view, over a terminal's writer.
pub struct Live<W: Write> {
    writer: W,
    size: fn() -> (u16, u16),
    paint: Paint,
    suspension: Option<Suspension>,
    lines: Lines,
    opening: Opening,
    started: Option<Timestamp>,
    running: BTreeMap<JobName, Running>,
    waiting: BTreeMap<JobName, String>,
    growing: Growing,
    unwanted: Unwanted,
    jobs: usize,
    passed: u64,
    failed: u64,
    canceled: u64,
    failed_as_allowed: u64,
    reused: u64,
    skipped: u64,
    /// Jobs that may fail.
    tolerated: BTreeSet<JobName>,
    /// Notes told already: what holds for all jobs is told once.
    told: BTreeSet<String>,
    /// Lines that scroll by, not yet written.
    above: String,
    /// The cells of each line of the frame that stands below.
    drawn: Vec<usize>,
    drawn_at: Timestamp,
}

impl<W: Write> Live<W> {
    /// A view that writes to the terminal behind `writer`, whose columns and rows `size` tells, in these colours.
    pub fn new(writer: W, size: fn() -> (u16, u16), paint: Paint, opening: Opening) -> Self {
        Self {
            writer,
            size,
            paint,
            suspension: None,
            lines: Lines::default(),
            opening,
            started: None,
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            growing: Growing::default(),
            unwanted: Unwanted::default(),
            jobs: 0,
            passed: 0,
            failed: 0,
            canceled: 0,
            failed_as_allowed: 0,
            reused: 0,
            skipped: 0,
            tolerated: BTreeSet::new(),
            told: BTreeSet::new(),
            above: String::new(),
            drawn: Vec::new(),
            drawn_at: Timestamp::default(),
        }
    }

    /// The same view, which leaves the terminal to the shell while the process is stopped or behind.
    pub fn suspended_by(self, suspension: Option<Suspension>) -> Self {
        Self { suspension, ..self }
    }

    /// What it wrote.
    #[cfg(test)]
    pub fn into_writer(self) -> W {
        self.writer
    }

    fn fact(&mut self, fact: &engine::Fact) {
        if let Some(growth) = self.growing.take(fact).filter(|growth| !growth.because.is_empty()) {
            let cause = self.paint.text(Style::Strong, &growth.cause());
            let _ = writeln!(self.above, "… {cause}: {}", growth.change());
        }
        if self.unwanted.holds(fact) {
            self.skipped += 1;
            return;
        }
        match &fact.what {
            What::BuildCreated(request) => {
                self.started = Some(fact.at);
                let event = crate::event::describe(&request.event);
                let build = self.paint.text(Style::Strong, &format!("build {}", self.opening.build));
                let _ = writeln!(self.above, "{build}  {event}");
            }
            What::Evaluated { graph, .. } => {
                self.jobs = crate::drawing::work(graph);
                let tolerated = graph.jobs.iter().filter(|(_, job)| job.allow_failure);
                self.tolerated = tolerated.map(|(name, _)| name.clone()).collect();
            }
            What::AttemptLeased { job, try_number, .. } => {
                let running = Running { started: fact.at, try_number: *try_number, ..Running::default() };
                self.running.insert(job.clone(), running);
            }
            What::AttemptFinished { job, report, retry_at, .. } => {
                let ran = self.running.remove(job).unwrap_or_default();
                let time = words::duration(report.finished.ms_since(report.started));
                let mut again = match retry_at {
                    Some(_) => format!("  ({})", words::again(ran.try_number.max(1), self.growing.job(job))),
                    None => String::new(),
                };
                if ran.tally != Tally::default() {
                    again.insert_str(0, &format!("  {}", self.paint.text(Style::Warning, &ran.tally.text())));
                }
                if retry_at.is_none() {
                    self.count(job, &report.outcome);
                }
                let told = words::report(report, self.growing.job(job));
                self.ended(job, &report.outcome, &told, &time, &again);
                self.said(job, &ran);
                for note in report.remarks().filter(|note| self.told.insert((*note).clone())) {
                    let note = self.paint.text(Style::Dim, &format!("note: {}", words::harmless(note)));
                    let _ = writeln!(self.above, "    {note}");
                }
            }
            What::ChildMade { job, child, try_number } => {
                let running = Running { started: fact.at, try_number: *try_number, ..Running::default() };
                self.running.insert(job.clone(), running);
                let show = self.opening.whereabouts.command(format_args!("show {child}"));
                let _ = writeln!(self.above, "  {job}  build {child}: {show}");
            }
            What::ChildFailed { job, outcome, .. } => {
                let try_number = self.running.get(job).map_or(1, |running| running.try_number.max(1));
                let again = format!("  ({})", words::again(try_number, self.growing.job(job)));
                let time = self.ran(job, fact.at);
                self.ended(job, outcome, &words::outcome(outcome), &time, &again);
            }
            What::JobEnded { job, outcome, how: Ended::Child { .. } } => {
                let time = self.ran(job, fact.at);
                self.count(job, outcome);
                self.ended(job, outcome, &words::outcome(outcome), &time, "");
            }
            What::JobEnded { job, outcome, how } => {
                self.waiting.remove(job);
                self.running.remove(job);
                match how {
                    Ended::Reused(_) => self.reused += 1,
                    Ended::Decided | Ended::Child { .. } => {
                        self.count(job, outcome);
                        if !matches!(outcome, Outcome::Passed { .. }) {
                            self.ended(job, outcome, &words::outcome(outcome), "", "");
                        }
                    }
                }
            }
            What::GateOpened { job, prompt } => {
                self.waiting.insert(job.clone(), self.growing.asked(job, prompt));
            }
            What::GateAnswered { job, answer, by, reason } => {
                self.waiting.remove(job);
                let mark = self.paint.text(Style::Ask, "?");
                let _ = writeln!(self.above, "{mark} {job}  {}", words::answered(answer.as_ref(), by, reason));
            }
            What::CancelRequested { by } => {
                let hint = if by == "Ctrl-C" { "; once more kills at once" } else { "" };
                let word = self.paint.text(Style::Warning, "canceling");
                let _ = writeln!(self.above, "{word}, asked by {}{hint}", words::harmless(by));
            }
            What::BuildEnded { .. } | What::Answered { .. } | What::OperationKnown { .. } => {}
            #[allow(unreachable_patterns, reason = "facts that later versions add are not shown")]
            _ => {}
        }
    }

    /// The jobs that were left out since the last time.
    fn left_out(&mut self) {
        for left_out in self.unwanted.told() {
            let mark = self.paint.text(Style::Dim, "-");
            let _ = match left_out.job {
                Some(job) => writeln!(self.above, "{mark} {job}  {}", left_out.text),
                None => writeln!(self.above, "{mark} {}", left_out.text),
            };
        }
    }

    fn count(&mut self, job: &JobName, outcome: &Outcome) {
        if job.is_barrier() {
            return;
        }
        let count = match outcome {
            Outcome::Passed { .. } => &mut self.passed,
            Outcome::Skipped(_) => &mut self.skipped,
            Outcome::Failed(Failure::Canceled { .. }) => &mut self.canceled,
            Outcome::Failed(_) if self.tolerated.contains(job) => &mut self.failed_as_allowed,
            Outcome::Failed(_) => &mut self.failed,
        };
        *count += 1;
    }

    /// How long a job ran of which no worker had an attempt.
    fn ran(&mut self, job: &JobName, now: Timestamp) -> String {
        let running = self.running.remove(job);
        running.map_or_else(String::new, |ran| words::duration(now.ms_since(ran.started)))
    }

    fn ended(&mut self, job: &JobName, outcome: &Outcome, words_of: &str, time: &str, again: &str) {
        let ((style, mark), detail) = match outcome {
            Outcome::Passed { .. } => ((Style::Good, "✓"), String::new()),
            Outcome::Failed(Failure::Canceled { by }) => ((Style::Warning, "■"), format!("canceled by {by}")),
            Outcome::Failed(_) if self.tolerated.contains(job) => {
                ((Style::Warning, "✗"), format!("{}; may fail", words_of.trim_start_matches("failed: ")))
            }
            Outcome::Failed(_) => ((Style::Bad, "✗"), words_of.trim_start_matches("failed: ").to_owned()),
            Outcome::Skipped(reason) => ((Style::Dim, "-"), words::skip_reason(reason)),
        };
        let gap = if detail.is_empty() || time.is_empty() { "" } else { "  " };
        let (mark, time) = (self.paint.text(style, mark), self.paint.text(Style::Dim, time));
        let _ = writeln!(self.above, "{mark} {job}  {time}{gap}{}{again}", words::harmless(&detail));
    }

    /// The warnings and errors of a job that has ended.
    fn said(&mut self, job: &JobName, ran: &Running) {
        for said in &ran.said {
            let _ = writeln!(self.above, "    {said}");
        }
        let more = (ran.tally.warnings + ran.tally.errors).saturating_sub(ran.said.len());
        if more > 0 {
            let words = format_args!("logs {} {}", self.opening.build, quoted(job.as_str()));
            let logs = self.opening.whereabouts.command(words);
            let hint = format!("… and {more} more: {logs}");
            let _ = writeln!(self.above, "    {}", self.paint.text(Style::Dim, &hint));
        }
    }

    fn draw(&mut self, now: Timestamp) -> io::Result<()> {
        let (columns, rows) = (self.size)();
        let columns = usize::from(columns.max(20));
        let rows = usize::from(rows.max(4)).saturating_sub(2);
        self.heed_suspension()?;
        let is_in_front = self.suspension.as_ref().is_none_or(Suspension::is_in_front);
        let mut frame = String::from(if is_in_front { "\x1b[?25l" } else { "" });
        self.erase(&mut frame, columns);
        frame.push_str(&std::mem::take(&mut self.above));
        let lines = if is_in_front { self.frame(now, columns, rows.saturating_sub(1)) } else { Vec::new() };
        for line in &lines {
            let _ = writeln!(frame, "{line}");
        }
        self.drawn = lines.iter().map(|line| columns::cells(&columns::bare(line))).collect();
        self.drawn_at = now;
        self.writer.write_all(frame.as_bytes())?;
        self.writer.flush()
    }

    /// Stops here if Ctrl-Z asked for it. What stood on the terminal before a stop is not ours to erase after it.
    fn heed_suspension(&mut self) -> io::Result<()> {
        if self.suspension.as_mut().is_some_and(Suspension::is_asked) {
            self.put_away()?;
            self.suspension.iter_mut().for_each(Suspension::stop);
        }
        if self.suspension.as_mut().is_some_and(Suspension::has_gone_on) {
            self.drawn.clear();
        }
        Ok(())
    }

    /// Leaves the terminal as it was, but for the lines that scroll by.
    fn put_away(&mut self) -> io::Result<()> {
        let mut frame = String::new();
        let columns = usize::from((self.size)().0.max(20));
        self.erase(&mut frame, columns);
        frame.push_str(&std::mem::take(&mut self.above));
        frame.push_str("\x1b[?25h");
        self.writer.write_all(frame.as_bytes())?;
        self.writer.flush()
    }

    /// What stands below the lines that scroll by: at most `shown` jobs and holes, then the totals.
    fn frame(&self, now: Timestamp, columns: usize, shown: usize) -> Vec<String> {
        // What waits for a person is never pushed out by what runs.
        let n_gates = self.waiting.len().min(shown.div_ceil(2));
        let room = shown - n_gates;
        let is_whole = self.running.len() <= room;
        let n_running = if is_whole { self.running.len() } else { room.saturating_sub(1) };
        let running = self.running.iter().take(n_running);
        let mut lines: Vec<String> =
            running.map(|(name, running)| self.running_line(name, running, now, columns)).collect();
        if !is_whole && room > 0 {
            let more = format!("… and {} more", words::thousands((self.running.len() - n_running) as u64));
            lines.push(self.paint.text(Style::Dim, &cut(&more, columns)));
        }
        for (name, prompt) in self.waiting.iter().take(n_gates) {
            let words = words::approve(self.opening.build, name, self.growing.job(name));
            let approve = self.opening.whereabouts.command(words);
            let text = format!("? {name}  {prompt}  → {approve}");
            lines.push(self.paint.text(Style::Ask, &cut(&text, columns)));
        }
        let holes = self.growing.graph().map_or(&[][..], |graph| &graph.holes);
        for hole in holes.iter().take(HOLES_SHOWN_MAX.min(shown.saturating_sub(lines.len()))) {
            lines.push(self.paint.text(Style::Dim, &cut(&growth::hole(hole), columns)));
        }
        lines.push(self.paint.text(Style::Dim, &cut(&self.totals(now), columns)));
        lines
    }

    /// Takes away the frame. A terminal that has become narrower since has broken its lines, each into as many rows as it now needs.
    fn erase(&mut self, frame: &mut String, columns: usize) {
        let rows: usize = self.drawn.iter().map(|cells| cells.div_ceil(columns).max(1)).sum();
        if rows > 0 {
            let _ = write!(frame, "\x1b[{rows}A\r\x1b[J");
        }
        self.drawn.clear();
    }

    fn running_line(&self, name: &JobName, running: &Running, now: Timestamp, columns: usize) -> String {
        let spinner = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
        let elapsed = now.ms_since(running.started);
        let turn = spinner[usize::try_from(elapsed / 100).unwrap_or(0) % spinner.len()];
        let turn = if running.awaited.is_some() { '·' } else { turn };
        let most = name_cells_max(columns);
        let width = self.running.keys().map(|name| columns::cells(name.as_str())).max().unwrap_or(0).min(most);
        let name_text = columns::padded(&cut_name(name, most), width);
        let has_bar = columns >= COLUMNS_WITH_BAR_MIN && running.awaited.is_none();
        let usual = self.opening.usual_ms.get(name).filter(|_| has_bar);
        let bar = usual.map_or_else(String::new, |&usual| {
            let style = if elapsed > usual { Style::Warning } else { Style::Ask };
            self.paint.text(style, &bar(elapsed, usual))
        });
        // A frame of more rows than were counted would not be erased: no line may wrap.
        let head = format!("{turn} {name_text}  {:>8} {bar} ", words::duration(elapsed));
        let cells = columns::cells(&columns::bare(&head));
        if cells > columns {
            return cut(&columns::bare(&head), columns);
        }
        let room = columns - cells;
        let (style, last_line) = match (&running.pending, &running.awaited) {
            (Some(reason), _) => (Style::Ask, format!("waits: {reason}")),
            (None, Some(awaited)) => (Style::Dim, plain_text(&words::awaited(awaited))),
            (None, None) => (Style::Dim, running.last_line.clone()),
        };
        let last_line = if room == 0 { String::new() } else { cut(&last_line, room) };
        format!("{head}{}", self.paint.text(style, &last_line))
    }

    fn totals(&self, now: Timestamp) -> String {
        let time = self.started.map(|started| words::duration(now.ms_since(started))).unwrap_or_default();
        let ended = self.passed + self.failed + self.failed_as_allowed + self.canceled + self.reused + self.skipped;
        let grows = self.growing.graph().is_some_and(|graph| !graph.holes.is_empty());
        let more = if grows { "+" } else { "" };
        let mut text =
            format!("  {time}  {} of {}{more} ended", words::thousands(ended), words::thousands(self.jobs as u64));
        let counts = [
            (self.failed, "failed"),
            (self.failed_as_allowed, "failed as allowed"),
            (self.canceled, "canceled"),
            (self.reused, "cached"),
            (self.skipped, "skipped"),
        ];
        for (count, word) in counts {
            if count > 0 {
                let _ = write!(text, ", {} {word}", words::thousands(count));
            }
        }
        let waiting = self.running.values().filter_map(|running| running.awaited.as_ref());
        let (for_slot, for_turn): (Vec<_>, Vec<_>) = waiting.partition(|awaited| **awaited == Awaited::Slot);
        let _ = write!(text, "  {} running", self.running.len() - for_slot.len() - for_turn.len());
        for (n_waiting, what) in [(for_slot.len(), "a slot"), (for_turn.len(), "other builds")] {
            if n_waiting > 0 {
                let _ = write!(text, ", {n_waiting} waiting for {what}");
            }
        }
        text
    }
}

/// A bar of how much of the usual time has passed; beyond it, how far over.
fn bar(elapsed_ms: u64, usual_ms: u64) -> String {
    let usual_ms = usual_ms.max(1);
    if elapsed_ms > usual_ms {
        let over = words::duration(elapsed_ms - usual_ms);
        return format!("▕{}▏ +{over}", "█".repeat(usize::try_from(BAR_CELLS).unwrap_or(0)));
    }
    let full = usize::try_from(elapsed_ms * BAR_CELLS / usual_ms).unwrap_or(0);
    let empty = usize::try_from(BAR_CELLS).unwrap_or(0).saturating_sub(full);
    format!("▕{}{}▏", "█".repeat(full), "░".repeat(empty))
}

impl<W: Write> View for Live<W> {
    fn show(&mut self, moment: Moment<'_>) -> io::Result<()> {
        match moment {
            Moment::Fact(fact) => {
                self.fact(fact);
                if fact.at.ms_since(self.drawn_at) < DRAW_MS_MIN {
                    return Ok(());
                }
                self.draw(fact.at)
            }
            Moment::Output { job, step, stream, bytes, .. } => {
                let (running, paint) = (self.running.get_mut(job), self.paint);
                if let Some(running) = running {
                    self.lines.push(job, step, stream, bytes, |line| running.line(stream, line, paint));
                }
                Ok(())
            }
            Moment::StepFinished { job, step, .. } => {
                let (mut running, paint) = (self.running.get_mut(job), self.paint);
                self.lines.finish(job, step, |stream, line| {
                    if let Some(running) = &mut running {
                        running.line(stream, line, paint);
                    }
                });
                if let Some(running) = running {
                    // Whoever waited has ended.
                    running.pending = None;
                }
                Ok(())
            }
            Moment::Waits { job, awaited, at } => {
                // One that waits for an equal operation is not leased yet.
                let running = self.running.entry(job.clone());
                match awaited {
                    Some(awaited) => {
                        let running = running.or_insert_with(|| Running { started: at, ..Running::default() });
                        running.awaited = Some(awaited.clone());
                    }
                    None => drop(running.and_modify(|running| running.awaited = None)),
                }
                self.running.retain(|_, running| running.try_number > 0 || running.awaited.is_some());
                Ok(())
            }
            Moment::StepStarted { job, name, .. } => {
                if let Some(running) = self.running.get_mut(job) {
                    running.last_line = plain_text(name);
                }
                Ok(())
            }
            Moment::Tick(now) => self.draw(now),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.left_out();
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.left_out();
        self.put_away()
    }

    fn wants(&self) -> Wants {
        Wants::OutputAndTicks
    }
}

/// A line without colours or other control sequences, short enough to keep for each running job.
fn plain_text(line: &str) -> String {
    let clean = words::harmless(line);
    let mut text = String::new();
    let mut rest = clean.as_ref();
    while let Some(start) = rest.find("\u{1b}[") {
        text.push_str(&rest[..start]);
        rest = rest[start..].split_once('m').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.replace('\t', " ").chars().take(400).collect()
}

/// The most cells of a job's name: two fifths of a wide terminal.
fn name_cells_max(columns: usize) -> usize {
    NAME_CELLS_MAX.max(columns * 2 / 5)
}

/// A job's name in at most `cells_max` cells. Legs of a matrix differ at the end, so that stays.
fn cut_name(name: &JobName, cells_max: usize) -> String {
    let (text, id) = (name.as_str(), name.id());
    let leg = &text[id.len()..];
    let room = cells_max.saturating_sub(columns::cells(leg));
    if !leg.is_empty() && columns::cells(text) > cells_max && room >= ID_CELLS_MIN {
        return format!("{}{leg}", cut(id, room));
    }
    columns::cut_middle(text, cells_max)
}

#[cfg(test)]
mod tests {
    use graph::BuildId;

    use super::*;

    #[track_caller]
    fn check(columns: usize, elapsed_ms: i64, expected: &str) {
        check_of("test/1", "compiling a long name", columns, elapsed_ms, expected);
    }

    #[track_caller]
    fn check_of(name: &str, last_line: &str, width: usize, elapsed_ms: i64, expected: &str) {
        let name = JobName::from(name);
        let usual_ms = BTreeMap::from([(name.clone(), 4000)]);
        let opening = Opening { build: BuildId(1), usual_ms, whereabouts: Default::default(), graph: None };
        let mut live = Live::new(Vec::new(), || (80, 24), Paint::Plain, opening);
        let mut running = Running::default();
        last_line.lines().for_each(|line| running.line(Stream::Stdout, line, Paint::Plain));
        live.running.insert(name.clone(), running);
        let line = live.running_line(&name, &live.running[&name], Timestamp(elapsed_ms * 1000), width);
        assert_eq!(line, expected);
        assert!(columns::cells(&line) <= width, "a frame with a line that wraps is not erased");
    }

    #[test]
    fn a_running_job_is_one_row_of_any_terminal() {
        check(80, 1000, "⠋ test/1     1.0 s ▕████░░░░░░░░░░░░▏ compiling a long name");
        check(60, 5000, "⠋ test/1     5.0 s ▕████████████████▏ +1.0 s compiling a lo…");
        check(40, 5000, "⠋ test/1     5.0 s  compiling a long na…");
        check(12, 5000, "⠋ test/1   …");
        check_of("測試", "編譯中 🚀 まだまだ", 40, 5000, "⠋ 測試     5.0 s  編譯中 🚀 まだまだ");
        check_of("測試", "編譯中 🚀 まだまだ", 32, 5000, "⠋ 測試     5.0 s  編譯中 🚀 ま…");
    }

    #[test]
    fn legs_are_told_apart_in_any_terminal() {
        let check = |name: &str, columns: usize, expected: &str| {
            let shown = cut_name(&name.into(), name_cells_max(columns));
            assert_eq!(shown, expected);
        };
        check("integration-tests/ubuntu-22.04-py3.10", 80, "integration…/ubuntu-22.04-py3.10");
        check("integration-tests/ubuntu-22.04-py3.10", 120, "integration-tests/ubuntu-22.04-py3.10");
        check("lint/ubuntu-22.04-python3.10-release-x86_64", 80, "lint/ubunt…on3.10-release-x86_64");
        check("a-job-of-a-name-that-is-very-long-indeed", 80, "a-job-of-a…t-is-very-long-indeed");
        check("編譯編譯編譯編譯編譯編譯編譯編譯編譯/py3.10", 80, "編譯編譯編譯編譯編譯編譯…/py3.10");
    }

    #[test]
    fn a_frame_goes_whole_when_the_terminal_has_become_narrower() {
        let opening =
            Opening { build: BuildId(1), usual_ms: BTreeMap::new(), whereabouts: Default::default(), graph: None };
        let mut live = Live::new(Vec::new(), || (80, 24), Paint::Plain, opening);
        live.drawn = vec![80, 41, 40, 0];
        let mut frame = String::new();
        live.erase(&mut frame, 40);
        assert_eq!(frame, "\x1b[6A\r\x1b[J");
        live.erase(&mut frame, 40);
        assert_eq!(frame, "\x1b[6A\r\x1b[J", "nothing is left to take away");
    }

    #[test]
    fn what_has_no_row_is_counted_and_a_gate_always_has_one() {
        let opening =
            Opening { build: BuildId(1), usual_ms: BTreeMap::new(), whereabouts: Default::default(), graph: None };
        let mut live = Live::new(Vec::new(), || (80, 12), Paint::Plain, opening);
        for number in 10..36 {
            live.running.insert(JobName::from(format!("job-{number}").as_str()), Running::default());
        }
        let lines = live.frame(Timestamp(0), 80, 9);
        assert_eq!((lines.len(), lines[8].as_str()), (10, "… and 18 more"));
        live.waiting.insert("ship".into(), "Ship it?".to_owned());
        let lines = live.frame(Timestamp(0), 80, 9);
        assert_eq!((lines.len(), lines[7].as_str()), (10, "… and 19 more"));
        assert!(lines[8].starts_with("? ship  Ship it?  → "), "{}", lines[8]);
    }

    #[test]
    fn a_job_that_others_hold_up_waits_and_does_not_run() {
        let name = JobName::from("a");
        let usual_ms = BTreeMap::from([(name.clone(), 4000)]);
        let opening = Opening { build: BuildId(1), usual_ms, whereabouts: Default::default(), graph: None };
        let mut live = Live::new(Vec::new(), || (80, 24), Paint::Plain, opening);
        live.running.insert(name.clone(), Running { try_number: 1, ..Running::default() });
        let mut check = |awaited: Option<&Awaited>, row: &str, totals: &str| {
            let at = Timestamp(0);
            live.show(Moment::Waits { job: &name, awaited, at }).expect("nothing is written");
            assert_eq!(live.running_line(&name, &live.running[&name], Timestamp(1_000_000), 90), row);
            assert!(live.totals(Timestamp(1_000_000)).ends_with(totals));
        };
        check(Some(&Awaited::Slot), "· a     1.0 s  waits for a slot", "  0 running, 1 waiting for a slot");
        let group = Awaited::Group { group: "production".to_owned(), build: BuildId(7), job: "b".into(), between: 0 };
        let row = "· a     1.0 s  waits for its concurrency group `production`, held by build 7 (b)";
        check(Some(&group), row, "  0 running, 1 waiting for other builds");
        let operation = Awaited::Operation { build: BuildId(7), job: "b".into() };
        let row = "· a     1.0 s  waits for the equal operation that build 7 runs (b)";
        check(Some(&operation), row, "  0 running, 1 waiting for other builds");
        check(None, "⠋ a     1.0 s ▕████░░░░░░░░░░░░▏ ", "  1 running");
    }

    #[test]
    fn a_job_that_waits_before_it_is_leased_has_a_row_as_long_as_it_waits() {
        let opening =
            Opening { build: BuildId(1), usual_ms: BTreeMap::new(), whereabouts: Default::default(), graph: None };
        let mut live = Live::new(Vec::new(), || (80, 24), Paint::Plain, opening);
        let operation = Awaited::Operation { build: BuildId(7), job: "b".into() };
        for (awaited, n_rows) in [(Some(&operation), 1), (None, 0)] {
            live.show(Moment::Waits { job: &"a".into(), awaited, at: Timestamp(0) }).expect("nothing is written");
            assert_eq!(live.running.len(), n_rows);
        }
    }

    #[test]
    fn a_job_that_waits_says_for_what() {
        let check = |printed, expected| {
            check_of("a", printed, 60, 1000, &format!("⠋ a     1.0 s ▕████░░░░░░░░░░░░▏ {expected}"))
        };
        check("one\n::pending::a runner\ntwo", "waits: a runner");
        check("one\n::pending::a runner\ntwo\n::pending::", "two");
        check("one\n::group::Build\n::warning::old", "Build");
    }
}
