//! One follower's reading: what of a build's facts, steps and lines is new to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use api::event::Moment;
use api::log::LogStream;
use engine::Fact;
use engine::fact::What;
use graph::{AttemptNumber, AttemptReport, BuildId, JobName, StepReport, StepResult, Timestamp};
use store::log::{Item, LineEnd, LogPlace, LogReader, Stream, StreamKey};
use tokio::sync::watch;

use super::cursor::{AttemptKey, Cursor, Told};
use super::{Lines, Live, LiveError, LiveEvent};
use crate::moments::{StepPlace, Telling};
use crate::records::LogPhase;

/// The most events that one call of [`Follower::next`] gives, and the most bytes of lines among them, about.
pub const EVENTS_MAX: usize = 512;
const EVENT_BYTES_MAX: usize = 256 * 1024;
/// One reader of a build. Dropped, it leaves no trace.
pub struct Follower {
    reader: Option<Box<Reader>>,
    /// What there was to tell when it began.
    first: Vec<LiveEvent>,
    changed: watch::Receiver<u64>,
}

impl Follower {
    pub(super) fn open(live: Arc<Live>, build: BuildId, cursor: Cursor, lines: Lines) -> Result<Self, LiveError> {
        let changed = live.enter(build)?;
        let mut reader = Box::new(Reader {
            live,
            build,
            lines,
            cursor: Cursor::default(),
            telling: Telling::default(),
            running: BTreeMap::new(),
            packs: HashMap::new(),
            has_ended: Ended::No,
        });
        reader.catch_up(cursor)?;
        // What comes from here on changes what is watched.
        let first = reader.read()?;
        Ok(Self { reader: Some(reader), first, changed })
    }

    /// The next events, in order; waits until there are some. `None` once the build has ended and all is told.
    ///
    /// # Errors
    /// [`LiveError`]. The stream is over then.
    pub async fn next(&mut self) -> Result<Option<Vec<LiveEvent>>, LiveError> {
        if !self.first.is_empty() {
            return Ok(Some(std::mem::take(&mut self.first)));
        }
        loop {
            self.changed.mark_unchanged();
            let Some(mut reader) = self.reader.take() else { return Ok(None) };
            let read = tokio::task::spawn_blocking(move || {
                let events = reader.read();
                (reader, events)
            });
            let (reader, events) = read.await.map_err(|_| LiveError::Interrupted)?;
            let events = events?;
            let is_over = events.is_empty() && reader.has_ended == Ended::Yes;
            self.reader = Some(reader);
            if is_over {
                return Ok(None);
            }
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Yes,
    No,
}

/// An attempt that runs, as the followed build knows it.
#[derive(Clone)]
struct Running {
    /// The attempt's number in the followed build.
    attempt: AttemptNumber,
    job: JobName,
}

struct Reader {
    live: Arc<Live>,
    build: BuildId,
    lines: Lines,
    cursor: Cursor,
    telling: Telling,
    /// Attempts that run, by the name that their logs have.
    running: BTreeMap<AttemptKey, Running>,
    packs: HashMap<BuildId, LogReader>,
    has_ended: Ended,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.live.leave(self.build);
    }
}

/// Events on their way into one batch.
struct Batch {
    events: VecDeque<Moment>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_MAX || self.bytes >= EVENT_BYTES_MAX
    }

    /// Tells what is new of a row or of a piece of one, and the gap before it; `skip` bytes of the row were told before.
    fn tell_line(
        &mut self,
        place: &StepPlace,
        (gap, line): (Option<store::log::Gap>, &store::log::Line),
        told: &mut Told,
        skip: &mut u64,
    ) {
        let length = line.bytes.len() as u64;
        let is_open = line.end == LineEnd::Open;
        if line.number != told.line {
            (told.line, told.bytes, *skip) = (line.number, 0, 0);
        }
        let passed = length.min(*skip);
        *skip -= passed;
        if passed < length || !is_open {
            let text = String::from_utf8_lossy(&line.bytes[passed as usize..]).into_owned();
            self.bytes += text.len();
            if let Some(gap) = gap {
                self.tell_gap(place, &gap);
            }
            self.events.push_back(log_moment(place, line, text, is_open));
        }
        if is_open {
            told.bytes += length - passed;
        } else {
            (told.line, told.bytes) = (line.number + 1, 0);
        }
    }

    fn tell_gap(&mut self, place: &StepPlace, gap: &store::log::Gap) {
        let (text, StepPlace { build, attempt, job, step }) = (gap_text(gap), place.clone());
        let (job, attempt) = (job.to_string(), attempt.0);
        self.events.push_back(Moment::LogGap { build, job, attempt, step, text });
    }
}

impl Reader {
    /// Takes in what was told before, without telling it again.
    fn catch_up(&mut self, cursor: Cursor) -> Result<(), LiveError> {
        let facts = self.live.facts(self.build, 0, cursor.facts);
        if facts.len() < cursor.facts {
            return Err(LiveError::BadId(cursor.to_string()));
        }
        for fact in facts {
            self.telling.tell(&fact);
            self.pass(&fact);
        }
        self.cursor = cursor;
        let running = &self.running;
        self.cursor.keep(|key| running.contains_key(key));
        Ok(())
    }

    /// What there is to tell now, as much as one batch takes.
    fn read(&mut self) -> Result<Vec<LiveEvent>, LiveError> {
        let mut batch = Batch { events: VecDeque::new(), bytes: 0 };
        for reader in self.packs.values_mut() {
            reader.refresh()?;
        }
        self.read_facts(&mut batch)?;
        for (key, running) in self.running.clone() {
            if batch.is_full() {
                break;
            }
            let _ = self.read_attempt(&mut batch, key, &running, None)?;
        }
        let id = self.cursor.to_string();
        let last = batch.events.len();
        let with_id = |(index, moment)| LiveEvent { id: (index + 1 == last).then(|| id.clone()), moment };
        Ok(batch.events.into_iter().enumerate().map(with_id).collect())
    }

    fn read_facts(&mut self, batch: &mut Batch) -> Result<(), LiveError> {
        loop {
            let facts = self.live.facts(self.build, self.cursor.facts, EVENTS_MAX);
            if facts.is_empty() {
                return Ok(());
            }
            for fact in facts {
                if batch.is_full() {
                    return Ok(());
                }
                if let What::AttemptFinished { attempt, report, .. } = &fact.what
                    && let Some((&key, running)) = self.running.iter().find(|(_, running)| running.attempt == *attempt)
                {
                    let running = running.clone();
                    self.refresh(key.0)?;
                    if self.read_attempt(batch, key, &running, Some(report))?.is_continue() {
                        return Ok(());
                    }
                }
                batch.events.extend(self.telling.tell(&fact));
                self.pass(&fact);
                self.cursor.facts += 1;
            }
        }
    }

    /// Takes in which attempts run after a fact.
    fn pass(&mut self, fact: &Fact) {
        self.has_ended = Ended::No;
        match &fact.what {
            What::AttemptLeased { job, attempt, .. } => {
                let running = Running { attempt: *attempt, job: job.clone() };
                self.running.insert((fact.build, *attempt), running);
            }
            What::AttemptAdopted { job, attempt, from, .. } => {
                let running = Running { attempt: *attempt, job: job.clone() };
                self.running.insert((from.build, from.attempt), running);
            }
            What::AttemptFinished { attempt, .. } => {
                self.running.retain(|_, running| running.attempt != *attempt);
                let running = &self.running;
                self.cursor.keep(|key| running.contains_key(key));
            }
            // What it adds may be in another pack than what was there when the build had ended.
            What::JobRetried { .. } => drop(self.packs.remove(&self.build)),
            What::BuildEnded { .. } => self.has_ended = Ended::Yes,
            _ => {}
        }
    }

    fn refresh(&mut self, build: BuildId) -> Result<(), LiveError> {
        if let Some(reader) = self.packs.get_mut(&build) {
            reader.refresh()?;
        }
        Ok(())
    }

    /// The pack of a build; opened once there is one.
    fn pack(&mut self, build: BuildId) -> Result<Option<&LogReader>, LiveError> {
        if !self.packs.contains_key(&build) {
            let place = self.place(build)?;
            let Some(reader) = self.live.logs.reader(build, place)? else { return Ok(None) };
            self.packs.insert(build, reader);
        }
        Ok(self.packs.get(&build))
    }

    /// Where a log is read of which more may come. That of another build, whose attempt went on for this one, may grow though it has ended.
    fn place(&self, build: BuildId) -> Result<LogPlace, LiveError> {
        let row = if build == self.build { self.live.store.build(build)? } else { None };
        let phase = match row {
            Some(row) if row.finished.is_some() => LogPhase::Ended,
            _ => LogPhase::Growing,
        };
        Ok(match self.live.records.log_place(build, phase)? {
            LogPlace::Ended => LogPlace::Live,
            place => place,
        })
    }

    /// Tells what is new of an attempt. `Break` if all of it was told: then it has ended.
    fn read_attempt(
        &mut self,
        batch: &mut Batch,
        key: AttemptKey,
        running: &Running,
        report: Option<&AttemptReport>,
    ) -> Result<ControlFlow<()>, LiveError> {
        let mut told = self.cursor.attempts.get(&key).copied().unwrap_or_default();
        let n_steps =
            self.telling.job(&running.job).map_or(u16::MAX, |job| u16::try_from(job.steps.len()).unwrap_or(u16::MAX));
        let progress = loop {
            if batch.is_full() {
                break ControlFlow::Continue(());
            }
            let index = usize::from(told.step);
            if report.is_some_and(|report| index >= report.steps.len()) {
                // Of what the report does not name, such as what a worker had begun when it broke off, there may be lines.
                self.read_sections(batch, key, running, n_steps)?;
                break match batch.is_full() {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                };
            }
            if told.step >= n_steps {
                // What went on beside the steps, of which most was told while they ran.
                if self.read_section(batch, key, running, (told.step, report))?.is_continue() {
                    break ControlFlow::Continue(());
                }
                told = Told { step: told.step.saturating_add(1), ..Told::default() };
                continue;
            }
            let place =
                StepPlace { build: self.build, attempt: running.attempt, job: running.job.clone(), step: told.step };
            let live = self.live.step_live(key, told.step);
            let is_over =
                live.report.is_some() || report.is_some() || self.live.has_later_step(key, told.step, n_steps);
            if is_over {
                // Whoever says that a step is over has sent all of its log before: read on to its end.
                self.refresh(key.0)?;
            }
            let ended: Option<Arc<StepReport>> =
                live.report.or_else(|| report.map(|report| Arc::new(report.steps[index].clone())));
            let has_run = ended.as_ref().is_none_or(|report| report.result != StepResult::Skipped);
            if told.begun == 0 && has_run {
                let started = live
                    .started
                    .or_else(|| ended.as_ref().map(|report| (report.name.clone(), report.started)))
                    .map_or_else(|| self.guess_started(key, &running.job, told.step), |started| Ok(Some(started)))?;
                let Some((name, at)) = started else { break ControlFlow::Continue(()) };
                batch.events.push_back(place.started(&name, at));
                told.begun = 1;
            }
            if self.lines == Lines::Told && self.read_lines(batch, key, &place, &mut told)?.is_continue() {
                break ControlFlow::Continue(());
            }
            match ended {
                Some(report) => batch.events.push_back(place.finished(&report)),
                // Its end was said to a server that is no more; the next step's beginning says that it came.
                None if is_over => {}
                None => break ControlFlow::Continue(()),
            }
            told = Told { step: told.step.saturating_add(1), ..Told::default() };
        };
        self.cursor.attempts.insert(key, told);
        if report.is_none() {
            self.read_sections(batch, key, running, n_steps)?;
        }
        Ok(progress)
    }

    /// Tells what is new of all that goes on beside the steps of an attempt that runs.
    fn read_sections(
        &mut self,
        batch: &mut Batch,
        key: AttemptKey,
        running: &Running,
        n_steps: u16,
    ) -> Result<(), LiveError> {
        let mut sections = self.live.numbers_from(key, n_steps);
        // A server that has just started knows of none, but the one before it has told of some.
        sections.extend(self.cursor.sections.range((key, n_steps)..=(key, u16::MAX)).map(|((_, section), _)| *section));
        for section in sections {
            if batch.is_full() {
                return Ok(());
            }
            let _ = self.read_section(batch, key, running, (section, None))?;
        }
        Ok(())
    }

    /// Tells what is new of something that goes on beside the steps. `Break` if all of it was told.
    fn read_section(
        &mut self,
        batch: &mut Batch,
        key: AttemptKey,
        running: &Running,
        (section, report): (u16, Option<&AttemptReport>),
    ) -> Result<ControlFlow<()>, LiveError> {
        let mut beside = self.cursor.sections.get(&(key, section)).copied().unwrap_or_default();
        if beside.ended {
            return Ok(ControlFlow::Break(()));
        }
        let place = StepPlace { build: self.build, attempt: running.attempt, job: running.job.clone(), step: section };
        let live = self.live.step_live(key, section);
        let of_report = || report.and_then(|report| report.steps.get(usize::from(section)).cloned()).map(Arc::new);
        let ended = live.report.or_else(of_report);
        if ended.is_some() {
            self.refresh(key.0)?;
        }
        if beside.told.begun == 0 {
            let of_ended = || ended.as_ref().map(|report| (report.name.clone(), report.started));
            let Some((name, at)) = live.started.or_else(of_ended) else { return Ok(ControlFlow::Continue(())) };
            batch.events.push_back(place.started(&name, at));
            beside.told.begun = 1;
        }
        let lines = match self.lines {
            Lines::Told => self.read_lines(batch, key, &place, &mut beside.told)?,
            Lines::Left => ControlFlow::Break(()),
        };
        if let (ControlFlow::Break(()), Some(report)) = (lines, &ended) {
            batch.events.push_back(place.finished(report));
            beside.ended = true;
        }
        self.cursor.sections.insert((key, section), beside);
        Ok(match beside.ended {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    /// What is known of a step's beginning when nobody said so: it printed something.
    fn guess_started(
        &mut self,
        key: AttemptKey,
        job: &JobName,
        step: u16,
    ) -> Result<Option<(String, Timestamp)>, LiveError> {
        let step_of_job = self.telling.job(job).and_then(|job| job.steps.get(usize::from(step)));
        let name = step_of_job.and_then(|step| step.name.as_plain()).unwrap_or_default().to_owned();
        let stream = StreamKey { attempt: key.1.0, step };
        let printed = self.pack(key.0)?.and_then(|pack| pack.stream(stream));
        Ok(printed.map(|printed| (name, time(printed.first_time_us))))
    }

    /// Tells the lines of a step that are new. `Break` if there are no more for now.
    fn read_lines(
        &mut self,
        batch: &mut Batch,
        key: AttemptKey,
        place: &StepPlace,
        told: &mut Told,
    ) -> Result<ControlFlow<()>, LiveError> {
        let stream = StreamKey { attempt: key.1.0, step: place.step };
        let Some(pack) = self.pack(key.0)? else { return Ok(ControlFlow::Break(())) };
        loop {
            // As many as a batch takes: what is behind them need not be looked for.
            let end = told.line.saturating_add(EVENTS_MAX as u64);
            let mut skip = told.bytes;
            // One that no row is known to have been in: it is told with the row behind it, so that it is told once.
            let mut gap_before = None;
            for item in pack.lines(stream, told.line..end) {
                if batch.is_full() {
                    return Ok(ControlFlow::Continue(()));
                }
                match item? {
                    Item::Line(line) => batch.tell_line(place, (gap_before.take(), &line), told, &mut skip),
                    Item::Gap(gap) if gap.lines == Some(0) => gap_before = Some(gap),
                    Item::Gap(gap) => {
                        let after = gap.lines.map(|lines| gap.first_line + lines);
                        let Some(after) = after.filter(|after| *after > told.line) else { continue };
                        (told.line, told.bytes, skip) = (after, 0, 0);
                        batch.tell_gap(place, &gap);
                    }
                }
            }
            if told.line < end {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
}

fn log_moment(place: &StepPlace, line: &store::log::Line, text: String, open: bool) -> Moment {
    Moment::Log {
        build: place.build,
        job: place.job.to_string(),
        attempt: place.attempt.0,
        step: place.step,
        stream: match line.stream {
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
            Stream::Note => LogStream::Note,
        },
        time: time(line.time_us).into(),
        number: line.number,
        line: text,
        open,
    }
}

fn gap_text(gap: &store::log::Gap) -> String {
    match gap.lines {
        Some(0) => format!("{} bytes before line {} are lost", gap.bytes.unwrap_or(0), gap.first_line + 1),
        Some(lines) => format!("{lines} lines from line {} on are lost", gap.first_line + 1),
        None => format!("lines from line {} on are lost", gap.first_line + 1),
    }
}

fn time(time_us: u64) -> Timestamp {
    Timestamp(i64::try_from(time_us).unwrap_or(i64::MAX))
}
