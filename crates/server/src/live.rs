//! What followers hear of builds: facts, steps and lines of logs, in an order that can be taken up again.
//!
//! Nothing is queued for anybody. A follower is woken and reads at its own pace: facts from memory while somebody follows
//! their build (read once from the store), lines from the log's pack. An event's id says how much was told; given
//! again, the stream goes on after it, also on a server that was restarted. What differs then is at most the order in which
//! attempts at the same time are told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use api::event::Moment;
use api::log::LogStream;
use engine::Fact;
use engine::fact::What;
use graph::{AttemptNumber, AttemptReport, AttemptSpec, BuildId, JobName, StepReport, StepResult, Timestamp};
use store::log::{Item, LineEnd, LogError, LogReader, Logs, Stream, StreamKey};
use store::{Store, StoreError};
use thiserror::Error;
use tokio::sync::watch;

use crate::lock::lock;
use crate::moments::{StepPlace, Telling};
use crate::records::{LogPhase, RecordError, Records};

/// The most events that one call of [`Follower::next`] gives, and the most bytes of lines among them, about.
pub const EVENTS_MAX: usize = 512;
const EVENT_BYTES_MAX: usize = 256 * 1024;
/// The most steps of one attempt that are remembered while it runs.
pub const STEPS_MAX: usize = graph::Job::STEPS_MAX + graph::Job::SECTIONS_MAX;
/// The longest id of an event in bytes.
pub const ID_BYTES_MAX: usize = 64 * 1024;

/// Why a build cannot be followed.
#[derive(Debug, Error)]
pub enum LiveError {
    /// There is none of this number.
    #[error("there is no build {0}")]
    NoBuild(BuildId),
    /// The id of the last event is none.
    #[error("`{0}` is not the id of an event of this stream")]
    BadId(String),
    /// The facts cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A task broke.
    #[error("reading was interrupted")]
    Interrupted,
}

/// One event and the id that stands for all up to it; only the last of a batch has one.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveEvent {
    /// Given again, the stream goes on behind this event.
    pub id: Option<String>,
    /// What happened.
    pub moment: Moment,
}

/// Whether a follower is told what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// It is: all of it, before the end of its step.
    Told,
    /// It is not, and no log is read for it: it does not wait for what it would not be told.
    Left,
}

/// Names an attempt as its worker and its log know it.
type AttemptKey = (BuildId, AttemptNumber);

/// How far an attempt was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    step: u16,
    /// Whether the step's beginning was told.
    begun: u8,
    /// The next row, and how many bytes of it were told.
    line: u64,
    bytes: u64,
}

/// Names what goes on beside the steps of an attempt, an image's build or a service, by its number behind those of the steps.
type SectionKey = (AttemptKey, u16);

/// How far what goes on beside the steps was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Beside {
    told: Told,
    /// Whether its end was told too.
    ended: bool,
}

/// How far a stream was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    facts: usize,
    attempts: BTreeMap<AttemptKey, Told>,
    /// Of attempts that run.
    sections: BTreeMap<SectionKey, Beside>,
}

impl Cursor {
    /// Forgets attempts that do not run.
    fn keep(&mut self, runs: impl Fn(&AttemptKey) -> bool) {
        self.attempts.retain(|key, _| runs(key));
        self.sections.retain(|(key, _), _| runs(key));
    }
}

/// Before the numbers of what goes on beside the steps.
const SECTION_SIGN: char = 's';

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.facts)?;
        for ((build, attempt), told) in &self.attempts {
            write!(f, "_{build}.{attempt}.{}.{}.{}.{}", told.step, told.begun, told.line, told.bytes)?;
        }
        for (((build, attempt), section), Beside { told, ended }) in &self.sections {
            let reached = told.begun + u8::from(*ended);
            write!(f, "_{SECTION_SIGN}{build}.{attempt}.{section}.{reached}.{}.{}", told.line, told.bytes)?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = LiveError;

    fn from_str(text: &str) -> Result<Self, LiveError> {
        let bad = || LiveError::BadId(text.chars().take(80).collect());
        if text.len() > ID_BYTES_MAX {
            return Err(bad());
        }
        let mut parts = text.split('_');
        let facts = parts.next().and_then(|facts| facts.parse().ok()).ok_or_else(bad)?;
        let (mut attempts, mut sections) = (BTreeMap::new(), BTreeMap::new());
        for part in parts {
            let (is_section, part) = part.strip_prefix(SECTION_SIGN).map_or((false, part), |part| (true, part));
            let numbers: Vec<u64> = part.split('.').map_while(|number| number.parse().ok()).collect();
            let [build, attempt, step, begun, line, bytes] = numbers[..] else { return Err(bad()) };
            let attempt = AttemptNumber(u32::try_from(attempt).map_err(|_| bad())?);
            let step = u16::try_from(step).map_err(|_| bad())?;
            let told = Told { step, begun: u8::from(begun > 0), line, bytes };
            let key = (BuildId(build), attempt);
            match is_section {
                true => drop(sections.insert((key, step), Beside { told, ended: begun > 1 })),
                false => drop(attempts.insert(key, told)),
            }
        }
        Ok(Self { facts, attempts, sections })
    }
}

/// A step of an attempt that runs, by its worker's word.
#[derive(Clone, Debug, Default)]
struct StepLive {
    started: Option<(String, Timestamp)>,
    report: Option<Arc<StepReport>>,
}

/// The facts of a build that is followed.
enum Facts {
    /// They are being read; these were told meanwhile.
    Coming(Vec<Arc<Fact>>),
    /// All of them.
    There {
        facts: Vec<Arc<Fact>>,
        /// What is told next may have been read already: it was stored before the reading.
        may_be_known: bool,
    },
}

impl Facts {
    /// One more was stored.
    fn told(&mut self, fact: &Fact) {
        match self {
            Self::Coming(facts) => facts.push(Arc::new(fact.clone())),
            Self::There { facts, may_be_known } => {
                *may_be_known = *may_be_known && is_among(facts, fact);
                if !*may_be_known {
                    facts.push(Arc::new(fact.clone()));
                }
            }
        }
    }

    /// Those that were `read`, and then those that were `told` meanwhile and stored too late for the reading.
    fn all(read: Vec<Fact>, told: Vec<Arc<Fact>>) -> Self {
        let mut facts: Vec<Arc<Fact>> = read.into_iter().map(Arc::new).collect();
        let first_new = told.iter().position(|fact| !is_among(&facts, fact));
        facts.extend(told.into_iter().skip(first_new.unwrap_or(usize::MAX)));
        Self::There { facts, may_be_known: first_new.is_none() }
    }
}

/// Whether a fact stands there, most likely near the end. No two facts of a build are equal: each says what was not so before it.
fn is_among(facts: &[Arc<Fact>], fact: &Fact) -> bool {
    facts.iter().rev().any(|known| **known == *fact)
}

struct Followed {
    changed: watch::Sender<u64>,
    followers: usize,
    facts: Facts,
}

#[derive(Default)]
struct State {
    followed: HashMap<BuildId, Followed>,
    attempts: HashMap<AttemptKey, BTreeMap<u16, StepLive>>,
}

/// All followers, and what runs as far as they may ask.
pub struct Live {
    store: Arc<dyn Store>,
    logs: Arc<Logs>,
    records: Records,
    state: Mutex<State>,
    stored: watch::Sender<u64>,
}

impl Live {
    /// Nobody follows yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, logs: Arc<Logs>, records: Records) -> Self {
        Self { store, logs, records, state: Mutex::default(), stored: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes whenever facts of any build were stored.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// Facts were stored.
    pub fn told(&self, facts: &[Fact]) {
        let mut state = self.state();
        for fact in facts {
            if let What::AttemptFinished { attempt, .. } = &fact.what {
                state.attempts.remove(&(fact.build, *attempt));
            }
            let Some(followed) = state.followed.get_mut(&fact.build) else { continue };
            followed.facts.told(fact);
            followed.changed.send_modify(|count| *count += 1);
        }
        drop(state);
        self.stored.send_modify(|count| *count += 1);
    }

    /// An attempt is in a worker's hands: its steps are remembered from now on.
    pub fn begin(&self, spec: &AttemptSpec) {
        self.state().attempts.entry((spec.build, spec.attempt)).or_default();
    }

    /// A step of an attempt begins. Said again it changes nothing.
    pub fn step_started(&self, key: AttemptKey, step: u16, name: &str, at: Timestamp) {
        if let Some(step) = self.step(&mut self.state(), key, step)
            && step.started.is_none()
        {
            step.started = Some((name.to_owned(), at));
        }
    }

    /// A step of an attempt has ended, and all of its log was kept. Said again it changes nothing.
    pub fn step_finished(&self, key: AttemptKey, step: u16, report: StepReport) {
        if let Some(step) = self.step(&mut self.state(), key, step)
            && step.report.is_none()
        {
            step.report = Some(Arc::new(report));
        }
    }

    fn step<'s>(&self, state: &'s mut State, key: AttemptKey, step: u16) -> Option<&'s mut StepLive> {
        let steps = state.attempts.get_mut(&key)?;
        (usize::from(step) < STEPS_MAX).then(|| steps.entry(step).or_default())
    }

    /// A log or a step of a build has gone on: its followers look.
    pub fn wake(&self, build: BuildId) {
        if let Some(followed) = self.state().followed.get(&build) {
            followed.changed.send_modify(|count| *count += 1);
        }
    }

    /// A build that has ended is no longer held.
    pub fn forget(&self, build: BuildId) {
        self.state().attempts.retain(|(of, _), _| *of != build);
    }

    /// How many streams are open.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.state().followed.values().map(|followed| followed.followers).sum()
    }

    /// Follows a build, from its beginning or behind the event of this id.
    ///
    /// # Errors
    /// [`LiveError`].
    pub async fn follow(
        self: &Arc<Self>,
        build: BuildId,
        from: Option<&str>,
        lines: Lines,
    ) -> Result<Follower, LiveError> {
        let cursor = from.map_or_else(|| Ok(Cursor::default()), str::parse)?;
        let live = Arc::clone(self);
        tokio::task::spawn_blocking(move || Follower::open(live, build, cursor, lines))
            .await
            .map_err(|_| LiveError::Interrupted)?
    }

    /// Registers a follower and sees to it that the build's facts are in memory. Blocks.
    fn enter(&self, build: BuildId) -> Result<watch::Receiver<u64>, LiveError> {
        {
            let mut state = self.state();
            let followed = state.followed.entry(build).or_insert_with(|| Followed {
                changed: watch::Sender::new(0),
                followers: 0,
                facts: Facts::Coming(Vec::new()),
            });
            followed.followers += 1;
            if matches!(followed.facts, Facts::There { .. }) {
                return Ok(followed.changed.subscribe());
            }
        }
        // Read without the lock: nobody waits for a reader. Twins are read twice, and the first that is done counts.
        let read = self.store.facts(build);
        let mut state = self.state();
        let followed = state.followed.get_mut(&build).expect("it has a follower");
        match (read, &mut followed.facts) {
            (_, Facts::There { .. }) => {}
            (Ok(read), Facts::Coming(told)) if !read.is_empty() => {
                followed.facts = Facts::all(read, std::mem::take(told));
            }
            (read, Facts::Coming(_)) => {
                drop(state);
                self.leave(build);
                read?;
                return Err(LiveError::NoBuild(build));
            }
        }
        Ok(followed.changed.subscribe())
    }

    fn leave(&self, build: BuildId) {
        let mut state = self.state();
        if let Some(followed) = state.followed.get_mut(&build) {
            followed.followers -= 1;
            if followed.followers == 0 {
                state.followed.remove(&build);
            }
        }
    }

    /// The facts of a followed build from `from` on, at most `limit`.
    fn facts(&self, build: BuildId, from: usize, limit: usize) -> Vec<Arc<Fact>> {
        match self.state().followed.get(&build).map(|followed| &followed.facts) {
            Some(Facts::There { facts, .. }) => facts.iter().skip(from).take(limit).cloned().collect(),
            Some(Facts::Coming(_)) | None => Vec::new(),
        }
    }

    fn step_live(&self, key: AttemptKey, step: u16) -> StepLive {
        self.state().attempts.get(&key).and_then(|steps| steps.get(&step)).cloned().unwrap_or_default()
    }

    /// Whether a step behind this one has begun, of the first `n_steps`: what comes after them (images, services) goes on beside them and says
    /// nothing of their ends.
    fn has_later_step(&self, key: AttemptKey, step: u16, n_steps: u16) -> bool {
        let later = step.saturating_add(1);
        let is_among =
            |steps: &BTreeMap<u16, StepLive>| later < n_steps && steps.range(later..n_steps).next().is_some();
        self.state().attempts.get(&key).is_some_and(is_among)
    }

    /// The numbers from this one on of what its worker said of an attempt.
    fn numbers_from(&self, key: AttemptKey, first: u16) -> BTreeSet<u16> {
        self.state()
            .attempts
            .get(&key)
            .into_iter()
            .flat_map(|steps| steps.range(first..))
            .map(|(step, _)| *step)
            .collect()
    }
}

/// One reader of a build. Dropped, it leaves no trace.
pub struct Follower {
    reader: Option<Box<Reader>>,
    /// What there was to tell when it began.
    first: Vec<LiveEvent>,
    changed: watch::Receiver<u64>,
}

impl Follower {
    fn open(live: Arc<Live>, build: BuildId, cursor: Cursor, lines: Lines) -> Result<Self, LiveError> {
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

    /// Tells what is new of a row or of a piece of one; `skip` bytes of the row were told before.
    fn tell_line(&mut self, place: &StepPlace, line: &store::log::Line, told: &mut Told, skip: &mut u64) {
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
            let place = self.live.records.log_place(build, LogPhase::Growing)?;
            let Some(reader) = self.live.logs.reader(build, place)? else { return Ok(None) };
            self.packs.insert(build, reader);
        }
        Ok(self.packs.get(&build))
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
            for item in pack.lines(stream, told.line..end) {
                if batch.is_full() {
                    return Ok(ControlFlow::Continue(()));
                }
                match item? {
                    Item::Line(line) => batch.tell_line(place, &line, told, &mut skip),
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
        Some(lines) => format!("{lines} lines from line {} on are lost", gap.first_line + 1),
        None => format!("lines from line {} on are lost", gap.first_line + 1),
    }
}

fn time(time_us: u64) -> Timestamp {
    Timestamp(i64::try_from(time_us).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Facts numbered from 1: so many were read, those were told while they were read, and those after.
    fn check(read: i64, meanwhile: &[i64], after: &[i64], expected: i64) {
        let fact = |number: &i64| Fact {
            build: BuildId(1),
            at: Timestamp(*number),
            what: What::CancelRequested { by: "a test".to_owned() },
        };
        let read: Vec<Fact> = (1..=read).map(|number| fact(&number)).collect();
        let mut facts = Facts::all(read, meanwhile.iter().map(fact).map(Arc::new).collect());
        after.iter().map(fact).for_each(|fact| facts.told(&fact));
        let Facts::There { facts, .. } = facts else { panic!("they were read") };
        let numbers: Vec<i64> = facts.iter().map(|fact| fact.at.0).collect();
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>());
    }

    #[test]
    fn a_fact_is_known_once_whenever_it_is_told() {
        check(3, &[], &[], 3);
        check(3, &[], &[4, 5], 5);
        check(3, &[4], &[5], 5);
        // Stored before the reading, told while it was under way, or only after it.
        check(3, &[2, 3], &[4], 4);
        check(3, &[2], &[3, 4], 4);
        check(3, &[], &[3], 3);
        check(3, &[], &[2, 3, 4, 5], 5);
        check(3, &[2, 3, 4], &[5], 5);
    }
}
