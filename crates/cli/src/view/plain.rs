//! Plain lines with the job's name before each: for pipes, files and other CI systems.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use engine::fact::{Ended, What};
use graph::{JobName, Outcome, Question, Timestamp};

use super::annotation::{Annotation, Headings, Shown, Tally};
use super::growth::{Growing, Growth};
use super::lines::Lines;
use super::unwanted::Unwanted;
use super::{Awaited, Moment, Opening, Stream, View, Wants};
use crate::columns::{self, Paint};
use crate::words;

/// Whether output is shown beside how jobs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every line.
    Lines,
    /// Only how jobs end.
    Endings,
}

/// The plain view, over any writer.
pub struct Plain<W: Write> {
    writer: W,
    detail: Detail,
    paint: Paint,
    lines: Lines,
    opening: Opening,
    started: Option<Timestamp>,
    reused: u64,
    growing: Growing,
    /// What the graph grew by that is not said yet.
    held: Option<Growth>,
    unwanted: Unwanted,
    /// Of the steps that run.
    headings: BTreeMap<(JobName, u16), Headings>,
    /// Of the jobs that run and had something to say.
    tallies: BTreeMap<JobName, Tally>,
    /// Which try runs of jobs that are not at their first.
    tries: BTreeMap<JobName, u32>,
    /// Since when jobs have the builds that they asked for.
    children: BTreeMap<JobName, Timestamp>,
    /// Notes told already: what holds for all jobs is told once.
    told: BTreeSet<String>,
}

impl<W: Write> Plain<W> {
    /// A view that writes to `writer`. `paint` says whether colours of what jobs print are kept.
    pub fn new(writer: W, detail: Detail, paint: Paint, opening: Opening) -> Self {
        Self {
            writer,
            detail,
            paint,
            lines: Lines::default(),
            opening,
            started: None,
            reused: 0,
            growing: Growing::default(),
            held: None,
            unwanted: Unwanted::default(),
            headings: BTreeMap::new(),
            tallies: BTreeMap::new(),
            tries: BTreeMap::new(),
            children: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// How the graph grew. How many jobs there are is said when all is known that needs no job to end, which is in a moment.
    fn growth(&mut self, fact: &engine::Fact) -> io::Result<()> {
        let growth =
            self.growing.take(fact).or_else(|| self.held.take_if(|_| matches!(fact.what, What::Evaluated { .. })));
        let Some(growth) = growth else { return Ok(()) };
        let asks = |question: &Question| !matches!(question, Question::Outcome(_));
        let is_asking = matches!(&fact.what, What::Evaluated { questions, .. } if questions.iter().any(asks));
        if is_asking && growth.because.is_empty() {
            self.held = Some(growth);
            return Ok(());
        }
        self.held = None;
        match self.growing.graph() {
            Some(graph) => writeln!(self.writer, "{}", growth.text(graph)),
            None => Ok(()),
        }
    }

    /// `; try 1 of 3, it will be tried again`.
    fn again(&self, job: &JobName) -> String {
        let try_number = self.tries.get(job).copied().unwrap_or(1);
        format!("; {}", words::again(try_number, self.growing.job(job)))
    }

    /// ` in 3.2 s`: how long a job had the build that it asked for.
    fn waited(&mut self, job: &JobName, now: Timestamp) -> String {
        let since = self.children.remove(job);
        since.map_or_else(String::new, |since| format!(" in {}", words::duration(now.ms_since(since))))
    }

    /// The jobs that were left out since the last time.
    fn left_out(&mut self) -> io::Result<()> {
        for left_out in self.unwanted.told() {
            match left_out.job {
                Some(job) => writeln!(self.writer, "{job}: skipped: {}", left_out.text)?,
                None => writeln!(self.writer, "{}", left_out.text)?,
            }
        }
        Ok(())
    }

    fn fact(&mut self, fact: &engine::Fact) -> io::Result<()> {
        self.growth(fact)?;
        if self.unwanted.holds(fact) {
            return Ok(());
        }
        if matches!(fact.what, What::BuildEnded { .. }) {
            self.left_out()?;
        }
        if let What::AttemptLeased { job, try_number, .. } | What::ChildMade { job, try_number, .. } = &fact.what
            && *try_number > 1
        {
            self.tries.insert(job.clone(), *try_number);
        }
        match &fact.what {
            What::BuildCreated(request) => {
                self.started = Some(fact.at);
                writeln!(self.writer, "build {}: {}", self.opening.build, crate::event::describe(&request.event))
            }
            What::GateOpened { job, prompt } => {
                let asked = self.growing.asked(job, prompt);
                let asked = if asked.is_empty() { asked } else { format!(": {asked}") };
                let build = fact.build;
                writeln!(self.writer, "{job}: waits for approval{asked}")?;
                let approve = self.opening.whereabouts.command(words::approve(build, job, self.growing.job(job)));
                writeln!(self.writer, "{job}: to go on: {approve}")
            }
            What::GateAnswered { job, answer, by, reason } => {
                writeln!(self.writer, "{job}: {}", words::answered(answer.as_ref(), by, reason))
            }
            What::AttemptLeased { job, partial: Some(partial), .. } => {
                writeln!(self.writer, "{job}: is asked for {partial}")
            }
            What::AttemptFinished { job, report, retry_at, .. } => {
                let time = words::duration(report.finished.ms_since(report.started));
                for note in report.remarks().filter(|note| self.told.insert((*note).clone())) {
                    writeln!(self.writer, "{job}: note: {}", words::harmless(note))?;
                }
                let again = if retry_at.is_some() { self.again(job) } else { String::new() };
                let said = self.tallies.remove(job).map(|tally| format!(", {}", tally.text())).unwrap_or_default();
                writeln!(
                    self.writer,
                    "{job}: {} in {time}{said}{again}",
                    words::harmless(&words::report(report, self.growing.job(job)))
                )
            }
            What::JobEnded { job, how: Ended::Reused(reused), .. } => {
                self.reused += 1;
                writeln!(self.writer, "{job}: cached, from build {}", reused.build)
            }
            What::ChildMade { job, child, .. } => {
                self.children.insert(job.clone(), fact.at);
                let show = self.opening.whereabouts.command(format_args!("show {child}"));
                writeln!(self.writer, "{job}: build {child}: {show}")
            }
            What::ChildFailed { job, outcome, .. } => {
                let time = self.waited(job, fact.at);
                writeln!(self.writer, "{job}: {}{time}{}", words::harmless(&words::outcome(outcome)), self.again(job))
            }
            What::JobEnded { job, outcome, how: Ended::Child { .. } } => {
                let time = self.waited(job, fact.at);
                writeln!(self.writer, "{job}: {}{time}", words::harmless(&words::outcome(outcome)))
            }
            What::JobEnded { job, outcome, how: Ended::Decided } => match outcome {
                Outcome::Passed { .. } => Ok(()),
                outcome => writeln!(self.writer, "{job}: {}", words::harmless(&words::outcome(outcome))),
            },
            What::CancelRequested { by } => writeln!(self.writer, "canceled by {by}"),
            What::BuildEnded { verdict } => {
                let time = self
                    .started
                    .map(|started| format!(" in {}", words::duration(fact.at.ms_since(started))))
                    .unwrap_or_default();
                let reused =
                    if self.reused > 0 { format!(", {} cached", words::thousands(self.reused)) } else { String::new() };
                writeln!(self.writer, "build {} {}{time}{reused}", self.opening.build, words::verdict(verdict))
            }
            What::Evaluated { .. }
            | What::Answered { .. }
            | What::OperationKnown { .. }
            | What::AttemptLeased { partial: None, .. } => Ok(()),
            #[allow(unreachable_patterns, reason = "facts that later versions add are not shown")]
            _ => Ok(()),
        }
    }
}

/// What becomes of one line that a step prints.
struct LineWriter<'p, W: Write> {
    writer: &'p mut W,
    paint: Paint,
    job: &'p JobName,
    headings: &'p mut Headings,
    tallies: &'p mut BTreeMap<JobName, Tally>,
}

impl<W: Write> LineWriter<'_, W> {
    fn write(&mut self, stream: Stream, line: &str) -> io::Result<()> {
        let (paint, job) = (self.paint, self.job);
        let line = line.strip_suffix('\r').unwrap_or(line);
        // A progress bar overwrites itself with carriage returns: what it showed last is what counts.
        let line = line.rsplit('\r').next().unwrap_or(line);
        let (shown, said) = self.headings.next(stream, line, paint);
        if let Some(said @ (Annotation::Warning(_) | Annotation::Error(_))) = &said {
            self.tallies.entry(job.clone()).or_default().add(said);
        }
        let indent = match shown {
            Shown::Not => return Ok(()),
            Shown::Instead(text) => return writeln!(self.writer, "{job} | {text}"),
            Shown::AsWritten(spaces) => " ".repeat(spaces),
        };
        match paint {
            Paint::Plain => writeln!(self.writer, "{job} | {indent}{}", columns::colourless(line)),
            // A colour that a line leaves on must not run into what follows.
            Paint::Coloured if line.contains('\u{1b}') => {
                writeln!(self.writer, "{job} | {indent}{}\u{1b}[0m", words::harmless(line))
            }
            Paint::Coloured => writeln!(self.writer, "{job} | {indent}{}", words::harmless(line)),
        }
    }
}

impl<W: Write> Plain<W> {
    /// Writes the lines that `lines` finds.
    fn output(
        &mut self,
        job: &JobName,
        step: u16,
        lines: impl FnOnce(&mut Lines, &mut dyn FnMut(Stream, &str)),
    ) -> io::Result<()> {
        let mut result = Ok(());
        let headings = self.headings.entry((job.clone(), step)).or_default();
        let (writer, tallies) = (&mut self.writer, &mut self.tallies);
        let mut line_writer = LineWriter { writer, paint: self.paint, job, headings, tallies };
        lines(&mut self.lines, &mut |stream, line| {
            if result.is_ok() {
                result = line_writer.write(stream, line);
            }
        });
        result
    }
}

impl<W: Write> View for Plain<W> {
    fn show(&mut self, moment: Moment<'_>) -> io::Result<()> {
        match moment {
            Moment::Fact(fact) => self.fact(fact),
            Moment::Output { job, step, stream, bytes, .. } if self.detail == Detail::Lines => {
                self.output(job, step, |lines, write| lines.push(job, step, stream, bytes, |line| write(stream, line)))
            }
            Moment::StepFinished { job, step, .. } if self.detail == Detail::Lines => {
                let result = self.output(job, step, |lines, write| lines.finish(job, step, write));
                self.headings.remove(&(job.clone(), step));
                result
            }
            Moment::Waits { job, awaited: Some(awaited), .. }
                if self.detail == Detail::Lines && *awaited != Awaited::Slot =>
            {
                writeln!(self.writer, "{job}: {}", words::harmless(&words::awaited(awaited)))
            }
            Moment::Output { .. }
            | Moment::Waits { .. }
            | Moment::StepStarted { .. }
            | Moment::StepFinished { .. }
            | Moment::Tick(_) => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.left_out()?;
        self.writer.flush()
    }

    fn close(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn wants(&self) -> Wants {
        match self.detail {
            Detail::Lines => Wants::Output,
            Detail::Endings => Wants::Facts,
        }
    }
}
