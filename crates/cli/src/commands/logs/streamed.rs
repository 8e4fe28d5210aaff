//! Following a build on a server: what the server tells of it from its beginning, without what was told before.

use std::collections::BTreeMap;
use std::io::{self, Write};

use api::event::Moment;
use api::log::LogStream;
use graph::JobName;
use store::log::{LineEnd, LineStart, Stream, StreamKey, Writing};

use super::page::Row;
use super::{Asked, End, Session};
use crate::archive::Archive;
use crate::archive::Stream as Told;
use crate::commands::Stop;
use crate::words;

/// One step as the stream tells it.
#[derive(Default)]
struct Step {
    /// The row that was told last, and how many bytes of it came.
    row: u64,
    row_bytes: u64,
    /// How many rows have ended.
    lines: u64,
    /// By stream: whether its line has begun and not ended.
    open: [bool; 3],
}

impl<W: Write> Session<W> {
    /// Tells what the server tells, until the job or the build has ended. With `--tail` what is there is read first, and not told again.
    pub(super) fn follow_stream(
        &mut self,
        archive: &dyn Archive,
        asked: &Asked,
        mut stream: Told,
    ) -> Result<String, End> {
        let (build, job) = (self.subject.build, self.subject.job.clone());
        if asked.tail.is_some()
            && let Some(log) = archive.log(build, job.as_ref(), Writing::Going)?
        {
            self.learn_speakers(archive, &*log)?;
            self.first_pass(&*log, asked)?;
            if let Some(grep) = &mut self.grep {
                grep.end_tail(&mut self.page)?;
            }
            self.page.flush()?;
        }
        let mut steps = BTreeMap::new();
        while let Some(moment) = stream.next()? {
            self.moment(archive, asked, &moment, &mut steps)?;
            if self.is_end_of_job(&moment) {
                break;
            }
            if !stream.is_at_hand() {
                self.page.flush()?;
            }
        }
        self.end()?;
        Ok(String::new())
    }

    /// Whether the one job that is followed ends with this. The server tells that behind all it printed.
    fn is_end_of_job(&self, moment: &Moment) -> bool {
        let Moment::JobFinished { job, attempt, retried: false, .. } = moment else { return false };
        let is_subject = self.subject.job.as_ref().is_some_and(|wanted| wanted.as_str() == job);
        is_subject && attempt.unwrap_or(u32::MAX) >= self.subject.from_attempt
    }

    fn moment(
        &mut self,
        archive: &dyn Archive,
        asked: &Asked,
        moment: &Moment,
        steps: &mut BTreeMap<StreamKey, Step>,
    ) -> Result<(), End> {
        let is_subject = |job: &str| self.subject.job.as_ref().is_none_or(|wanted| wanted.as_str() == job);
        match moment {
            Moment::Log { job, attempt, step, .. } if is_subject(job) && *attempt >= self.subject.from_attempt => {
                let key = StreamKey { attempt: *attempt, step: *step };
                self.learn(archive, key)?;
                self.line(asked, moment, key, steps)?;
            }
            Moment::LogGap { job, attempt, step, text, .. } if is_subject(job) => {
                let key = StreamKey { attempt: *attempt, step: *step };
                self.learn(archive, key)?;
                let name = self.speakers.names.get(&key.attempt).map_or("", String::as_str);
                self.page.lost(name, text)?;
            }
            Moment::GateOpened { build, job, .. } if is_subject(job) => {
                self.page.flush()?;
                self.tell_gate(archive, *build, &JobName::from(job.as_str()))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// A gate that is still open: nothing comes behind it until somebody answers.
    fn tell_gate(&self, archive: &dyn Archive, build: graph::BuildId, job: &JobName) -> Result<(), Stop> {
        let gates = archive.gates(build)?;
        if gates.iter().any(|gate| gate.job == *job && gate.answered.is_none()) {
            let graph = archive.graph(build)?;
            let described = graph.as_ref().and_then(|graph| graph.jobs.get(job));
            let approve = words::approve(build, job, described.map(|job| &**job));
            let approve = archive.whereabouts().command(approve);
            let _ = writeln!(io::stderr(), "note: build {build} waits at a gate: {approve}");
        }
        Ok(())
    }

    /// Asks who an attempt is that was not there before.
    fn learn(&mut self, archive: &dyn Archive, key: StreamKey) -> Result<(), Stop> {
        if !self.speakers.has(key) {
            self.speakers = super::Speakers::of(archive, &self.subject)?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        asked: &Asked,
        moment: &Moment,
        key: StreamKey,
        steps: &mut BTreeMap<StreamKey, Step>,
    ) -> Result<(), End> {
        let Moment::Log { stream, time, number, line, open, .. } = moment else { return Ok(()) };
        let lines_before: u64 =
            steps.range(StreamKey { attempt: key.attempt, step: 0 }..key).map(|(_, step)| step.lines).sum();
        let step = steps.entry(key).or_default();
        if step.row != *number {
            (step.row, step.row_bytes) = (*number, 0);
        }
        let stream = match stream {
            LogStream::Stdout => Stream::Stdout,
            LogStream::Stderr => Stream::Stderr,
            LogStream::Note => Stream::Note,
        };
        let was_open = std::mem::replace(&mut step.open[stream.index()], *open);
        let before = step.row_bytes;
        step.row_bytes += line.len() as u64;
        step.lines = number + 1;
        let cursor = self.cursors.get(&key).copied().unwrap_or_default();
        let passed = match number.cmp(&cursor.row) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal => cursor.row_bytes.saturating_sub(before).min(line.len() as u64),
            std::cmp::Ordering::Greater => 0,
        };
        let bytes = &line.as_bytes()[usize::try_from(passed).unwrap_or(0)..];
        let number = lines_before + number + 1;
        if number <= asked.rows.start || (*open && passed > 0 && bytes.is_empty()) {
            return Ok(());
        }
        let row = Row {
            key,
            number,
            time_us: u64::try_from(time.0.0).unwrap_or(0),
            stream,
            bytes,
            start: if was_open { LineStart::Continued } else { LineStart::Fresh },
            end: if *open { LineEnd::Open } else { LineEnd::LineFeed },
        };
        let name = self.speakers.names.get(&key.attempt).map_or("", String::as_str);
        match &mut self.grep {
            Some(grep) => grep.row(&mut self.page, name, &row)?,
            None => self.page.row(name, &row)?,
        }
        Ok(())
    }
}
