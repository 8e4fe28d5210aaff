//! Plain lines with the job's name before each: for pipes, files and other CI systems.

use std::collections::BTreeSet;
use std::io::{self, Write};

use engine::fact::{Ended, What};
use graph::{JobName, Outcome, Timestamp};

use super::lines::Lines;
use super::{Moment, Opening, View, Wants};
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
            told: BTreeSet::new(),
        }
    }

    fn fact(&mut self, fact: &engine::Fact) -> io::Result<()> {
        match &fact.what {
            What::BuildCreated(request) => {
                self.started = Some(fact.at);
                writeln!(self.writer, "build {}: {}", self.opening.build, crate::event::describe(&request.event))
            }
            What::Evaluated { graph, .. } => {
                writeln!(self.writer, "{}", words::count(crate::drawing::work(graph), "job"))
            }
            What::GateOpened { job, prompt } => writeln!(
                self.writer,
                "{job}: waits for approval: {}\n{job}: to go on: ropewalk approve {} {job}",
                words::harmless(prompt),
                fact.build
            ),
            What::GateAnswered { job, answer, by } => {
                writeln!(self.writer, "{job}: {}", words::answered(answer.as_ref(), by))
            }
            What::AttemptFinished { job, report, retry_at, .. } => {
                let time = words::duration(report.finished.ms_since(report.started));
                for note in report.notes.iter().filter(|note| self.told.insert((*note).clone())) {
                    writeln!(self.writer, "{job}: note: {}", words::harmless(note))?;
                }
                let again = if retry_at.is_some() { "; it will be tried again" } else { "" };
                writeln!(self.writer, "{job}: {} in {time}{again}", words::harmless(&words::report(report)))
            }
            What::JobEnded { job, how: Ended::Reused(reused), .. } => {
                self.reused += 1;
                writeln!(self.writer, "{job}: cached, from build {}", reused.build)
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
            What::Answered { .. } | What::OperationKnown { .. } | What::AttemptLeased { .. } => Ok(()),
            #[allow(unreachable_patterns, reason = "facts that later versions add are not shown")]
            _ => Ok(()),
        }
    }
}

fn write_line(writer: &mut impl Write, paint: Paint, job: &JobName, line: &str) -> io::Result<()> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    // A progress bar overwrites itself with carriage returns: what it showed last is what counts.
    let line = line.rsplit('\r').next().unwrap_or(line);
    match paint {
        Paint::Plain => writeln!(writer, "{job} | {}", columns::colourless(line)),
        // A colour that a line leaves on must not run into what follows.
        Paint::Coloured if line.contains('\u{1b}') => writeln!(writer, "{job} | {}\u{1b}[0m", words::harmless(line)),
        Paint::Coloured => writeln!(writer, "{job} | {}", words::harmless(line)),
    }
}

impl<W: Write> View for Plain<W> {
    fn show(&mut self, moment: Moment<'_>) -> io::Result<()> {
        match moment {
            Moment::Fact(fact) => self.fact(fact),
            Moment::Output { job, step, stream, bytes, .. } if self.detail == Detail::Lines => {
                let mut result = Ok(());
                let (writer, paint) = (&mut self.writer, self.paint);
                self.lines.push(job, step, stream, bytes, |line| {
                    if result.is_ok() {
                        result = write_line(writer, paint, job, line);
                    }
                });
                result
            }
            Moment::StepFinished { job, step, .. } if self.detail == Detail::Lines => {
                let mut result = Ok(());
                let (writer, paint) = (&mut self.writer, self.paint);
                self.lines.finish(job, step, |_, line| {
                    if result.is_ok() {
                        result = write_line(writer, paint, job, line);
                    }
                });
                result
            }
            Moment::Output { .. } | Moment::StepStarted { .. } | Moment::StepFinished { .. } | Moment::Tick(_) => {
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn close(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn wants(&self) -> Wants {
        match self.detail {
            Detail::Lines => Wants::Output,
            Detail::Endings => Wants::Facts,
        }
    }
}
