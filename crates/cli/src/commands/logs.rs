//! `ropewalk logs`: what jobs printed. A job's lines are its last attempt's, step after step; a build's are those of
//! all attempts, as they came. Only the frames with wanted lines are read.

mod follow;
mod grep;
mod merge;
mod page;
mod streamed;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;

use graph::{BuildId, JobName};
use regex::bytes::Regex;
use store::log::{Item, Line, LineEnd, LogError, LogReader, StreamKey, StreamState, Writing};
use store::rows::JobRow;

use self::follow::Watch;
use self::grep::{CONTEXT_LINES_MAX, Grep, TAIL_LINES_MAX};
use self::merge::{Merge, Order, Part};
use self::page::{Folds, Form, Page, Reader, Row};
use super::Stop;
use crate::archive::{Archive, Log, News, Search};
use crate::args::{Colour, Logs};
use crate::calendar::Calendar;
use crate::child;
use crate::columns::{self, Paint};
use crate::exit;
use crate::places::{self, Places};
use crate::project::Project;
use crate::whereabouts::quoted;
use crate::words;

/// The widest a job's name is padded to.
const NAME_CELLS_MAX: usize = 32;
/// How many jobs a sentence lists.
const JOBS_LISTED_MAX: usize = 12;
/// How much is written at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Runs the command.
///
/// # Errors
/// If there is no such build or job, an argument makes no sense, or the log cannot be read.
pub fn run(arguments: &Logs, project: &Project, colour: Colour) -> Result<u8, Stop> {
    let archive = arguments.at.archive(project)?.ok_or_else(|| Stop::wrong(places::NO_BUILDS))?;
    let stdout = io::stdout();
    let reader = match stdout.is_terminal() {
        true => Reader::Terminal(Paint::of(colour, &stdout)),
        false => Reader::Pipe(Paint::of(colour, &stdout)),
    };
    let writer = io::BufWriter::with_capacity(BUFFER_BYTES, stdout.lock());
    let told = tell(arguments, &*archive, &Calendar::system(), reader, writer)?;
    if !told.note.is_empty() {
        let _ = writeln!(io::stderr(), "note: {}", told.note);
    }
    Ok(match told.found {
        Found::Lines => exit::PASSED,
        Found::Nothing => exit::FAILED,
    })
}

/// Why telling ended before its end.
enum End {
    /// Nobody reads any more, which is no fault.
    Gone,
    /// It cannot be told.
    Stop(Stop),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Stop(Stop::infra(format!("failed to write the log: {error}"))),
        }
    }
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        Self::Stop(Stop::of(&error))
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Whether there was what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Yes, or nothing was looked for.
    Lines,
    /// No line matched `--grep`.
    Nothing,
}

/// What there is to say beside the log.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// For standard error; may be empty.
    note: String,
    found: Found,
}

/// Writes what `arguments` ask for.
fn tell<W: Write>(
    arguments: &Logs,
    archive: &dyn Archive,
    calendar: &Calendar,
    reader: Reader,
    writer: W,
) -> Result<Told, Stop> {
    let build = archive.find_build(&arguments.build)?.build;
    let job = job_meant(arguments, archive, build)?;
    let asked = Asked::of(arguments, job)?;
    let mut told = tell_of(arguments, &asked, archive, calendar, reader, writer, build)?;
    // Asked last: a build that was followed may have come to it meanwhile.
    let is_wrong = archive.build(build)?.is_some_and(|row| row.errors > 0);
    if is_wrong && asked.job.is_none() && told.note.is_empty() {
        let show = archive.whereabouts().command(format_args!("show {build}"));
        told.note = format!("the pipeline of build {build} is wrong: {show}");
    }
    Ok(told)
}

/// The job whose log is asked for, if it is one alone. What counts or copies the lines of one job means the only one that there is.
fn job_meant(arguments: &Logs, archive: &dyn Archive, build: BuildId) -> Result<Option<String>, Stop> {
    let flag = match (arguments.lines.is_some(), arguments.raw) {
        _ if arguments.job.is_some() => return Ok(arguments.job.clone()),
        (true, _) => "--lines",
        (_, true) => "--raw",
        _ => return Ok(None),
    };
    let jobs = archive.jobs(build)?;
    if let [only] = &jobs[..] {
        return Ok(Some(only.name.to_string()));
    }
    let listed: Vec<&str> = jobs.iter().take(JOBS_LISTED_MAX).map(|row| row.name.as_str()).collect();
    let more = if jobs.len() > listed.len() { ", …" } else { "" };
    let there = match listed.is_empty() {
        true => format!("build {build} has none"),
        false => format!("build {build} has {}{more}", listed.join(", ")),
    };
    Err(Stop::wrong(format!("{flag} is of one job: name it behind the build; {there}")))
}

/// Says at once why a job that is followed prints nothing yet.
fn tell_wait(archive: &dyn Archive, build: BuildId, job: &JobName) -> Result<(), Stop> {
    let gates = archive.open_gates(build)?;
    let why = match gates.iter().find(|gate| gate.job == *job) {
        Some(_) => {
            let graph = archive.graph(build)?;
            let approve =
                words::approve(build, job, graph.as_ref().and_then(|graph| graph.jobs.get(job)).map(|job| &**job));
            format!("it waits for approval: {}", archive.whereabouts().command(approve))
        }
        None => match awaited_needs(archive, build, job)? {
            needs if needs.is_empty() => "it waits for its turn".to_owned(),
            needs => format!("it waits for {}", needs.join(", ")),
        },
    };
    let _ = writeln!(io::stderr(), "note: {job} has not begun in build {build}: {why}");
    Ok(())
}

/// The jobs that have to end before `job` begins, with `…` in place of those after the first few.
fn awaited_needs(archive: &dyn Archive, build: BuildId, job: &JobName) -> Result<Vec<String>, Stop> {
    let Some(graph) = archive.graph(build)? else { return Ok(Vec::new()) };
    let Some(spec) = graph.jobs.get(job) else { return Ok(Vec::new()) };
    let jobs = archive.jobs(build)?;
    let has_ended = |name: &JobName| jobs.iter().any(|row| row.name == *name && row.outcome.is_some());
    let mut needs: Vec<String> =
        spec.needs.iter().filter(|need| !has_ended(&need.job)).map(|need| need.job.to_string()).collect();
    if needs.len() > JOBS_LISTED_MAX {
        needs.truncate(JOBS_LISTED_MAX);
        needs.push("…".to_owned());
    }
    Ok(needs)
}

fn tell_of<W: Write>(
    arguments: &Logs,
    asked: &Asked,
    archive: &dyn Archive,
    calendar: &Calendar,
    reader: Reader,
    writer: W,
    build: BuildId,
) -> Result<Told, Stop> {
    let nothing = if asked.regex.is_some() { Found::Nothing } else { Found::Lines };
    let follows = match arguments.follow && asked.rows.end == u64::MAX && is_going(archive, build)? {
        true => Follows::ToTheEnd,
        false => Follows::No,
    };
    let (subject, note) = Subject::find(archive, build, asked.job.as_deref(), follows)?;
    let Some(subject) = subject else { return Ok(Told { note, found: nothing }) };
    if let Some(job) = subject.job.as_ref().filter(|_| subject.from_attempt == 0) {
        tell_wait(archive, build, job)?;
    }
    let form = Form {
        times: arguments.timestamps.then(|| calendar.clone()),
        numbers: asked.regex.is_some() && subject.job.is_some() && matches!(reader, Reader::Terminal(_)),
        raw: arguments.raw,
        folds: if arguments.folded { Folds::Closed } else { Folds::Open },
    };
    let mut session = Session {
        page: Page::new(writer, reader, form, asked.regex.clone()),
        grep: asked.regex.clone().map(|regex| Grep::new(regex, arguments.context, asked.tail)),
        search: arguments.grep.clone().map(|regex| Search { regex, context: arguments.context }),
        speakers: Speakers::of(archive, &subject)?,
        subject,
        cursors: HashMap::new(),
    };
    let told = match follows {
        Follows::ToTheEnd => session.follow(archive, asked),
        Follows::No => session.once(archive, asked),
    };
    let has_found = session.grep.as_ref().is_none_or(|grep| grep.matches() > 0);
    let said = match told {
        Ok(said) => said,
        // Whoever has gone has seen what they wanted.
        Err(End::Gone) => return Ok(Told { note: String::new(), found: Found::Lines }),
        Err(End::Stop(stop)) => return Err(stop),
    };
    let note = match (said.is_empty(), note.is_empty(), has_found) {
        (false, _, _) => said,
        (true, false, _) => note,
        (true, true, true) => String::new(),
        (true, true, false) => format!("no line matches `{}`", arguments.grep.as_deref().unwrap_or_default()),
    };
    Ok(Told { note, found: if has_found { Found::Lines } else { nothing } })
}

/// Whether a process runs the build now.
fn is_going(archive: &dyn Archive, build: BuildId) -> Result<bool, Stop> {
    match archive.build(build)?.filter(|build| build.verdict == graph::Verdict::Running) {
        Some(build) => archive.is_run(&build),
        None => Ok(false),
    }
}

/// The arguments, understood.
struct Asked {
    /// As it was named, unless it is the whole build.
    job: Option<String>,
    regex: Option<Regex>,
    /// Rows of the job, from 0.
    rows: Range<u64>,
    tail: Option<u64>,
}

impl Asked {
    fn of(arguments: &Logs, job: Option<String>) -> Result<Self, Stop> {
        let regex = arguments.grep.as_deref().map(|text| {
            Regex::new(text).map_err(|error| Stop::wrong(format!("`{text}` is no regular expression: {error}")))
        });
        let regex = regex.transpose()?;
        let rows = arguments.lines.as_deref().map_or(Ok(0..u64::MAX), rows)?;
        if arguments.context > CONTEXT_LINES_MAX {
            return Err(Stop::wrong(format!("--context takes at most {}", words::thousands(CONTEXT_LINES_MAX))));
        }
        let is_held_back = regex.is_some() || job.is_none();
        if is_held_back && arguments.tail.is_some_and(|tail| tail > TAIL_LINES_MAX) {
            let most = words::thousands(TAIL_LINES_MAX);
            return Err(Stop::wrong(format!("--tail of a whole build, or with --grep, takes at most {most}")));
        }
        Ok(Self { job, regex, rows, tail: arguments.tail })
    }
}

/// The rows that `FROM-TO`, `FROM-`, `-TO` or `LINE` means.
fn rows(text: &str) -> Result<Range<u64>, Stop> {
    let wrong = || {
        Stop::wrong(format!(
            "--lines takes FROM-TO, counted from 1, such as `100-199`, not `{}`",
            words::harmless(text)
        ))
    };
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|&number| number > 0).ok_or_else(wrong);
    let (from, to) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((from, "")) => (number(from)?, u64::MAX),
        Some(("", to)) => (1, number(to)?),
        Some((from, to)) => (number(from)?, number(to)?),
    };
    if from > to { Err(wrong()) } else { Ok(from - 1..to) }
}

/// Whether what comes is told as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// Only what is there.
    No,
    /// Until the job has ended, or nobody runs the build any more.
    ToTheEnd,
}

/// Whose output is told.
struct Subject {
    build: BuildId,
    job: Option<JobName>,
    /// The first attempt of the job that counts.
    from_attempt: u32,
}

impl Subject {
    /// The subject, and a note about it. `None` if there is nothing to tell but the note.
    /// A job that has not begun is told once it has, if the build is followed.
    fn find(
        archive: &dyn Archive,
        build: BuildId,
        job: Option<&str>,
        follows: Follows,
    ) -> Result<(Option<Self>, String), Stop> {
        let Some(text) = job else {
            return Ok((Some(Self { build, job: None, from_attempt: 0 }), String::new()));
        };
        let job = archive.find_job(build, text)?;
        if let Some(attempt) = archive.attempts(build, Some(&job))?.last() {
            let from_attempt = attempt.attempt.0;
            return Ok((Some(Self { build, job: Some(job), from_attempt }), String::new()));
        }
        let row = archive.jobs(build)?.into_iter().find(|row| row.name == job);
        if let Some(child) = row.as_ref().and_then(|row| row.child) {
            let note = format!("{job} of build {build} asked for build {child}: this is its log");
            return Ok((Some(Self { build: child, job: None, from_attempt: 0 }), note));
        }
        let reused = row.as_ref().and_then(|row| row.reused.clone());
        if let Some(reused) = reused {
            let note = format!("{job} was cached in build {build}: this is its log of build {}", reused.build);
            let subject = Self { build: reused.build, job: Some(reused.job), from_attempt: reused.attempt.0 };
            return Ok((Some(subject), note));
        }
        let note = match row.and_then(|row| row.outcome) {
            Some(outcome) => format!("{job} did not run in build {build}: {}", words::outcome(&outcome)),
            None if follows == Follows::ToTheEnd => {
                return Ok((Some(Self { build, job: Some(job), from_attempt: 0 }), String::new()));
            }
            None => format!("{job} has not begun in build {build}"),
        };
        Ok((None, note))
    }
}

/// The names of attempts, as they stand before lines.
#[derive(Default)]
struct Speakers {
    names: BTreeMap<u32, String>,
}

impl Speakers {
    fn of(archive: &dyn Archive, subject: &Subject) -> Result<Self, Stop> {
        let attempts = archive.attempts(subject.build, subject.job.as_ref())?;
        if subject.job.is_some() {
            let wanted =
                attempts.iter().map(|attempt| attempt.attempt.0).filter(|&attempt| attempt >= subject.from_attempt);
            return Ok(Self { names: wanted.map(|attempt| (attempt, String::new())).collect() });
        }
        let tries: HashMap<&JobName, u32> = attempts.iter().map(|attempt| (&attempt.job, attempt.try_number)).collect();
        let mut names: BTreeMap<u32, String> = attempts
            .iter()
            .map(|attempt| {
                let is_last = tries.get(&attempt.job) == Some(&attempt.try_number);
                let label = if is_last { String::new() } else { format!(" (try {})", attempt.try_number) };
                (attempt.attempt.0, format!("{}{label}", attempt.job))
            })
            .collect();
        let width = names.values().map(|name| columns::cells(name)).max().unwrap_or(0).min(NAME_CELLS_MAX);
        for name in names.values_mut() {
            *name = columns::padded(name, width);
        }
        Ok(Self { names })
    }

    fn has(&self, key: StreamKey) -> bool {
        self.names.contains_key(&key.attempt)
    }
}

/// How far a step has been told.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// The next row.
    row: u64,
    /// Pieces of it that were told.
    pieces: u64,
    /// Their bytes.
    row_bytes: u64,
    /// The bytes the step had when it was last looked at.
    bytes: u64,
}

impl Cursor {
    fn after(self, line: &Line) -> Self {
        let length = line.bytes.len() as u64;
        match line.end {
            LineEnd::LineFeed => Self { row: line.number + 1, pieces: 0, row_bytes: 0, ..self },
            LineEnd::Open if self.row == line.number => {
                Self { pieces: self.pieces + 1, row_bytes: self.row_bytes + length, ..self }
            }
            LineEnd::Open => Self { row: line.number, pieces: 1, row_bytes: length, ..self },
        }
    }
}

/// The step whose rows are being told.
struct Telling<'n> {
    key: StreamKey,
    name: &'n str,
    lines_before: u64,
    cursor: Cursor,
}

struct Session<W: Write> {
    page: Page<W>,
    grep: Option<Grep>,
    search: Option<Search>,
    speakers: Speakers,
    subject: Subject,
    cursors: HashMap<StreamKey, Cursor>,
}

impl<W: Write> Session<W> {
    /// Tells what there is.
    fn once(&mut self, archive: &dyn Archive, asked: &Asked) -> Result<String, End> {
        let writing = if is_going(archive, self.subject.build)? { Writing::Going } else { Writing::Over };
        let Some(reader) = archive.log(self.subject.build, self.subject.job.as_ref(), writing)? else {
            return Ok(self.silence(archive)?);
        };
        if !reader.streams().any(|stream| self.speakers.has(stream.key)) {
            return Ok(self.silence(archive)?);
        }
        self.first_pass(&*reader, asked)?;
        self.end()?;
        Ok(self.beyond(&*reader, asked))
    }

    /// What to say of a range that begins behind the last line.
    fn beyond(&self, reader: &dyn Log, asked: &Asked) -> String {
        let lines: u64 =
            reader.streams().filter(|stream| self.speakers.has(stream.key)).map(|stream| stream.lines).sum();
        match &self.subject.job {
            Some(job) if asked.rows.start > 0 && asked.rows.start >= lines => {
                let (lines, build) =
                    (words::count(usize::try_from(lines).unwrap_or(usize::MAX), "line"), self.subject.build);
                format!("the log of {job} in build {build} has {lines}")
            }
            _ => String::new(),
        }
    }

    /// What to say where no log is.
    fn silence(&self, archive: &dyn Archive) -> Result<String, Stop> {
        let build = self.subject.build;
        let mut reports = archive.reports(build, self.subject.job.as_ref())?;
        reports.retain(|(attempt, _)| self.speakers.names.contains_key(&attempt.0));
        let lines: u64 = reports.iter().flat_map(|(_, report)| &report.steps).map(|step| step.lines).sum();
        let whose = match &self.subject.job {
            Some(job) => format!("the log of {job} in build {build}"),
            None => format!("the log of build {build}"),
        };
        Ok(match (&self.subject.job, lines) {
            (_, 1..) => {
                let lines = words::count(usize::try_from(lines).unwrap_or(usize::MAX), "line");
                format!("{whose} was removed or lost: its {lines} are not there")
            }
            (Some(job), 0) => format!("{job} printed nothing in build {build}, or its log was removed"),
            (None, 0) => format!("build {build} printed nothing, or its log was removed"),
        })
    }

    /// Tells what there is and what comes, until the job has ended or nobody runs the build any more.
    fn follow(&mut self, archive: &dyn Archive, asked: &Asked) -> Result<String, End> {
        match archive.news(self.subject.build) {
            News::Files(places) => self.follow_files(places, asked),
            News::Stream(stream) => self.follow_stream(archive, asked, *stream),
        }
    }

    fn follow_files(&mut self, places: &Places, asked: &Asked) -> Result<String, End> {
        let build = self.subject.build;
        let watch = Watch::new(&places.data.join("logs"));
        let mut opened: Option<LogReader> = None;
        loop {
            // Asked first, so that what came before the end is told. A job has ended once all it printed can be read.
            let is_over = !is_going(places, build)?;
            let has_ended = is_over || self.job_has_ended(places)?;
            if let Some(reader) = &mut opened {
                if is_over {
                    reader.writing_is_over()?
                } else {
                    reader.refresh().map(drop)?
                }
                self.next_pass(places, reader, is_over)?;
            } else {
                let writing = if is_over { Writing::Over } else { Writing::Going };
                opened = places.log_reader(build, writing)?;
                if let Some(reader) = &opened {
                    self.learn_speakers(places, reader)?;
                    self.first_pass(reader, asked)?;
                    if let Some(grep) = &mut self.grep {
                        grep.end_tail(&mut self.page)?;
                    }
                }
            }
            self.page.flush()?;
            if has_ended {
                break;
            }
            watch.wait();
        }
        self.end()?;
        Ok(self.ending(places)?)
    }

    /// Whether the job has ended whose lines are told, if it is one.
    fn job_has_ended(&self, archive: &dyn Archive) -> Result<bool, Stop> {
        let Some(job) = &self.subject.job else { return Ok(false) };
        // Looked up alone, and often: an attempt that goes on is enough to know.
        if archive.attempts(self.subject.build, Some(job))?.last().is_some_and(|attempt| attempt.ended.is_none()) {
            return Ok(false);
        }
        Ok(archive.jobs(self.subject.build)?.iter().any(|row| row.name == *job && row.outcome.is_some()))
    }

    /// What to say when a build that was followed is not run any more.
    fn ending(&self, archive: &dyn Archive) -> Result<String, Stop> {
        let build = self.subject.build;
        let is_running = archive.build(build)?.is_some_and(|row| row.verdict == graph::Verdict::Running);
        if self.speakers.names.is_empty()
            && let Some(job) = &self.subject.job
            && let Some(row) = archive.jobs(build)?.into_iter().find(|row| row.name == *job)
        {
            return Ok(unspoken(build, &row, archive));
        }
        if !is_running || self.job_has_ended(archive)? {
            return Ok(String::new());
        }
        Ok(match archive.open_gates(build)?.first() {
            Some(gate) => {
                let approve =
                    archive.whereabouts().command(format_args!("approve {build} {}", quoted(gate.job.as_str())));
                format!("build {build} waits at a gate: {approve}")
            }
            None => {
                let row = archive.build(build)?;
                let by = row.map_or(Ok(build), |row| child::resumed_by(&row, |build| archive.build(build)))?;
                format!("build {build} has not ended and no process runs it: ropewalk run --resume {by}")
            }
        })
    }

    /// The lines asked for, as far as they are there.
    fn first_pass(&mut self, reader: &dyn Log, asked: &Asked) -> Result<(), End> {
        let (parts, order) = match self.subject.job {
            Some(_) => (self.job_parts(reader, asked), Order::ByPart),
            None => (self.build_parts(reader, asked)?, Order::ByTime),
        };
        // Rows that are not asked for count as told.
        for stream in reader.streams().filter(|stream| self.speakers.has(stream.key)) {
            self.cursors.insert(stream.key, Cursor { row: stream.lines, bytes: stream.bytes, ..Cursor::default() });
        }
        self.pass(reader, parts, order)
    }

    /// The rows of a job's steps that are asked for.
    fn job_parts(&self, reader: &dyn Log, asked: &Asked) -> Vec<Part> {
        let streams: Vec<_> = reader.streams().filter(|stream| self.speakers.has(stream.key)).collect();
        let total: u64 = streams.iter().map(|stream| stream.lines).sum();
        let is_whole = asked.rows.end == u64::MAX;
        let end = asked.rows.end.min(total);
        let mut start = asked.rows.start;
        if let Some(tail) = asked.tail.filter(|_| asked.regex.is_none()) {
            start = start.max(end.saturating_sub(tail));
        }
        let mut parts = Vec::new();
        let mut before = 0;
        for stream in streams {
            let from = start.saturating_sub(before);
            let to = match end.saturating_sub(before) {
                // Open at its end, so that a gap there is told.
                to if to >= stream.lines && (is_whole || to > stream.lines) => u64::MAX,
                to => to,
            };
            before += stream.lines;
            if from < to && (from < stream.lines || to == u64::MAX && before >= start) {
                parts.push(Part { key: stream.key, rows: from..to, pieces_seen: 0 });
            }
        }
        parts
    }

    /// All rows of a build, or the last ones by time.
    fn build_parts(&self, reader: &dyn Log, asked: &Asked) -> Result<Vec<Part>, End> {
        let mut streams: Vec<_> = reader.streams().filter(|stream| self.speakers.has(stream.key)).collect();
        let tail = asked.tail.filter(|_| asked.regex.is_none());
        let Some(tail) = tail else {
            return Ok(streams
                .iter()
                .map(|stream| Part { key: stream.key, rows: 0..u64::MAX, pieces_seen: 0 })
                .collect());
        };
        // The earliest of the last lines is at hand, so that steps that ended before it need not be read.
        streams.sort_unstable_by_key(|stream| (Reverse(stream.last_time_us), stream.key));
        let tail = usize::try_from(tail).unwrap_or(usize::MAX);
        let mut last: BinaryHeap<Reverse<(u64, StreamKey, u64)>> = BinaryHeap::new();
        for stream in &streams {
            let is_full = last.len() >= tail;
            if is_full && last.peek().is_none_or(|Reverse(earliest)| earliest.0 > stream.last_time_us) {
                break;
            }
            for item in reader.tail(stream.key, tail as u64) {
                let Item::Line(line) = item? else { continue };
                last.push(Reverse((line.time_us, stream.key, line.number)));
                if last.len() > tail {
                    last.pop();
                }
            }
        }
        let mut first_rows: BTreeMap<StreamKey, u64> = BTreeMap::new();
        for Reverse((_, key, row)) in last {
            let first = first_rows.entry(key).or_insert(row);
            *first = row.min(*first);
        }
        Ok(first_rows.into_iter().map(|(key, row)| Part { key, rows: row..u64::MAX, pieces_seen: 0 }).collect())
    }

    /// What has come since the last pass.
    fn next_pass(&mut self, archive: &dyn Archive, reader: &dyn Log, is_over: bool) -> Result<(), End> {
        self.learn_speakers(archive, reader)?;
        let mut parts = Vec::new();
        for stream in reader.streams().filter(|stream| self.speakers.has(stream.key)) {
            let cursor = self.cursors.entry(stream.key).or_default();
            // At the end also those that were not closed, so that their gap is told.
            if stream.bytes > cursor.bytes || (is_over && stream.state == StreamState::Open) {
                cursor.bytes = stream.bytes;
                parts.push(Part { key: stream.key, rows: cursor.row..u64::MAX, pieces_seen: cursor.pieces });
            }
        }
        self.pass(reader, parts, Order::ByTime)
    }

    /// Asks who the attempts are that were not there before.
    fn learn_speakers(&mut self, archive: &dyn Archive, reader: &dyn Log) -> Result<(), Stop> {
        let newest_known = self.speakers.names.keys().next_back().copied().unwrap_or(0);
        if reader.streams().any(|stream| stream.key.attempt > newest_known) {
            self.speakers = Speakers::of(archive, &self.subject)?;
        }
        Ok(())
    }

    fn pass(&mut self, reader: &dyn Log, parts: Vec<Part>, order: Order) -> Result<(), End> {
        let before = lines_before(reader);
        let mut telling: Option<Telling<'_>> = None;
        let (names, page, grep) = (&self.speakers.names, &mut self.page, &mut self.grep);
        let search = self.search.as_ref();
        for item in Merge::new(reader, parts, order, search) {
            let (key, item) = item?;
            let step = match &mut telling {
                Some(step) if step.key == key => step,
                other => {
                    if let Some(step) = other.take() {
                        self.cursors.insert(step.key, step.cursor);
                    }
                    other.insert(Telling {
                        key,
                        name: names.get(&key.attempt).map_or("", String::as_str),
                        lines_before: before.get(&key).copied().unwrap_or(0),
                        cursor: self.cursors.get(&key).copied().unwrap_or_default(),
                    })
                }
            };
            let line = match item {
                Item::Gap(gap) => {
                    page.gap(step.name, &gap)?;
                    continue;
                }
                Item::Line(line) => line,
            };
            step.cursor = step.cursor.after(&line);
            let row = Row {
                key,
                number: step.lines_before + line.number + 1,
                time_us: line.time_us,
                stream: line.stream,
                bytes: &line.bytes,
                start: line.start,
                end: line.end,
            };
            match grep {
                Some(grep) => grep.row(page, step.name, &row)?,
                None => page.row(step.name, &row)?,
            }
        }
        if let Some(step) = telling {
            self.cursors.insert(step.key, step.cursor);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), End> {
        if let Some(grep) = &mut self.grep {
            grep.end(&mut self.page)?;
        }
        Ok(self.page.end()?)
    }
}

/// What to say of a job that was followed and ended without running here.
fn unspoken(build: BuildId, row: &JobRow, archive: &dyn Archive) -> String {
    let logs = || archive.whereabouts().command(format_args!("logs {build} {}", quoted(row.name.as_str())));
    match &row.outcome {
        Some(_) if row.reused.is_some() || row.child.is_some() => format!("{} ended elsewhere: {}", row.name, logs()),
        Some(outcome) => format!("{} did not run in build {build}: {}", row.name, words::outcome(outcome)),
        None => String::new(),
    }
}

/// How many lines the steps before each step of its attempt printed.
pub fn lines_before(reader: &dyn Log) -> BTreeMap<StreamKey, u64> {
    let mut before = BTreeMap::new();
    let mut sum = (0, 0);
    for stream in reader.streams() {
        if stream.key.attempt != sum.0 {
            sum = (stream.key.attempt, 0);
        }
        before.insert(stream.key, sum.1);
        sum.1 += stream.lines;
    }
    before
}

#[cfg(test)]
mod tests;
