//! Facts in PostgreSQL: an append is one transaction that is sent whole, in one round trip.
//!
//! The facts of one append stand as lines of JSON in rows of about 64 KiB per build, a graph apart under its digest, as in
//! SQLite. The rows follow in the same transaction, always: whoever reads, in whichever process, sees them.
//!
//! The writer keeps the rows of running builds at hand. That they are still right is checked inside the transaction: the
//! counter `journal` counts every change of builds, is raised by each, and must stand where the writer left it. If it does
//! not, what is at hand is dropped and read again. Raising it locks it until the commit, so appends become visible in the
//! order of their numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use engine::Fact;
use engine::fact::What;
use graph::{AttemptNumber, AttemptReport, BuildId, Digest, Graph, JobName};

use super::column::{Twin, arrays, clean, digest, get, insert, json, maybe_digest, number, parse, signed, unsigned};
use super::error::{broken, is_twin, is_unmet};
use super::rows;
use super::session::{Call, Session, Value};
use crate::graphs;
use crate::rows::projection::{History, HistoryKey, Source, Working};
use crate::rows::{AttemptRow, BuildRow, GateRow, JobRow};
use crate::span::{Span, spans_of};
use crate::store::{BUILD_ID_MAX, Cause, JOURNAL_FACTS_MAX, Journal, PAGE_ROWS_MAX, Sequence, StoreError};
use crate::table::{ARTIFACTS, ATTEMPTS, BUILDS, Cell, FACTS, GATES, GRAPHS, HISTORIES, JOBS, JOURNAL, Table};

/// A row of facts is full when its text is this long, so that one report is found without reading far.
const ROW_BYTES: usize = 64 * 1024;
/// The most facts of one build.
const FACTS_MAX: u64 = u32::MAX as u64;
/// How often an append is made again because somebody else changed builds meanwhile.
const TRIES_MAX: u32 = 16;
/// The most rows that the writer keeps at hand between appends; beyond it forgets them all and reads again.
const ROWS_AT_HAND_MAX: usize = 100_000;

/// What the writer knows between appends.
#[derive(Default)]
pub(super) struct Memory {
    pub working: Working,
    /// Where the counter of changes stood when `working` was right.
    pub sequence: Option<u64>,
    /// Graphs known to be stored: the last one, so that storing it again costs nothing.
    last_graph: Option<(Arc<Graph>, Digest)>,
}

impl Memory {
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Why an append was not made.
pub(super) enum Refused {
    /// Somebody else leads.
    NotLeading,
    /// As the error says. The first places of the append's facts, if it may have been stored.
    Other(StoreError, BTreeMap<BuildId, u64>),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Other(error, BTreeMap::new())
    }
}

pub(super) fn append(
    session: &Session,
    memory: &mut Memory,
    facts: &[Fact],
    epoch: Option<u64>,
    journal: Journal,
) -> Result<(), Refused> {
    for _ in 0..TRIES_MAX {
        if memory.working.rows() > ROWS_AT_HAND_MAX {
            memory.clear();
        }
        let written = Written::prepare(session, memory, facts)?;
        let Written { first, calls } = written;
        let sequence = memory.sequence.unwrap_or_default();
        let mut sent = vec![raise(sequence)];
        sent.extend(epoch.map(|epoch| {
            let sql = "with held as (select value from counters where name = 'epoch' for share) \
                       select 1 / count(*) from held where value = $1";
            Call::new(sql, [number(epoch)])
        }));
        let guards = sent.len();
        sent.extend(calls);
        if journal == Journal::Kept {
            let row = vec![Cell::from(sequence + 1), json(&spans_of(&first, facts)).into()];
            sent.push(Call::new(insert(&JOURNAL, Twin::Refused), arrays(&JOURNAL, vec![row])));
        }
        match session.transact(&sent) {
            Ok(_) => {
                memory.sequence = Some(sequence + 1);
                return Ok(());
            }
            Err((1, error)) if guards == 2 && is_unmet(&error) => {
                memory.clear();
                return Err(Refused::NotLeading);
            }
            Err((_, error)) if is_unmet(&error) || is_twin(&error) => memory.clear(),
            Err((_, error)) => {
                memory.clear();
                return Err(Refused::Other(error, first));
            }
        }
    }
    Err(StoreError::Busy(Cause::from("others change builds all the time")).into())
}

/// Raises the counter of changes from where it is believed to stand.
pub(super) fn raise(sequence: u64) -> Call {
    let sql = "with raised as (update counters set value = value + 1 where name = 'journal' and value = $1 returning 1) \
               select 1 / count(*) from raised";
    Call::new(sql, [number(sequence)])
}

/// What an append writes.
struct Written {
    first: BTreeMap<BuildId, u64>,
    calls: Vec<Call>,
}

/// The facts of one build that will become one row.
#[derive(Default)]
struct Lines {
    first: u64,
    facts: u64,
    body: String,
}

impl Lines {
    fn flush(&mut self, build: BuildId, rows: &mut Vec<Vec<Cell>>) {
        if self.facts > 0 {
            let body = std::mem::take(&mut self.body);
            rows.push(vec![position(build, self.first).into(), self.facts.into(), Cell::Text(body), Cell::Null]);
            self.facts = 0;
        }
    }
}

impl Written {
    fn prepare(session: &Session, memory: &mut Memory, facts: &[Fact]) -> Result<Self, StoreError> {
        let result = Self::project(session, memory, facts);
        if result.is_err() {
            memory.clear();
        }
        result
    }

    fn project(session: &Session, memory: &mut Memory, facts: &[Fact]) -> Result<Self, StoreError> {
        let mut found = Found::look_up(session, memory, facts)?;
        let (mut first, mut lines) = (BTreeMap::new(), BTreeMap::<BuildId, Lines>::new());
        let (mut fact_rows, mut graph_rows) = (Vec::new(), BTreeMap::new());
        for fact in facts {
            memory.working.take_up(&mut found, fact.build, Some(fact))?;
            let place = memory.working.builds[&fact.build].facts;
            if place >= FACTS_MAX || fact.build.0 > BUILD_ID_MAX {
                return Err(StoreError::Full("the build has too many facts".into()));
            }
            first.entry(fact.build).or_insert(place);
            let open = lines.entry(fact.build).or_default();
            let digest = if let What::Evaluated { graph, questions, diagnostics, program } = &fact.what {
                open.flush(fact.build, &mut fact_rows);
                let digest = memory.graph(graph, &mut graph_rows)?;
                let (questions, diagnostics) = (questions.clone(), diagnostics.clone());
                let what = What::Evaluated { graph: Arc::default(), questions, diagnostics, program: *program };
                let body = json(&Fact { build: fact.build, at: fact.at, what });
                fact_rows.push(vec![position(fact.build, place).into(), 1_u64.into(), body.into(), digest.into()]);
                Some(digest)
            } else {
                if open.facts == 0 {
                    open.first = place;
                } else {
                    open.body.push('\n');
                }
                open.facts += 1;
                open.body.push_str(&json(fact));
                if open.body.len() >= ROW_BYTES {
                    open.flush(fact.build, &mut fact_rows);
                }
                None
            };
            memory.working.apply(&mut found, fact, digest)?;
        }
        for (build, mut open) in lines {
            open.flush(build, &mut fact_rows);
        }
        let mut calls = Vec::new();
        add(&mut calls, &GRAPHS, Twin::Kept, graph_rows.into_values().collect());
        add(&mut calls, &FACTS, Twin::Refused, fact_rows);
        add_rows(&mut calls, &mut memory.working);
        Ok(Self { first, calls })
    }
}

fn add(calls: &mut Vec<Call>, table: &Table, twin: Twin, rows: Vec<Vec<Cell>>) {
    if !rows.is_empty() {
        calls.push(Call::new(insert(table, twin), arrays(table, rows)));
    }
}

/// Every row that changed, once.
fn add_rows(calls: &mut Vec<Call>, working: &mut Working) {
    let changes = working.taken();
    let work = |id: &BuildId| &working.builds[id];
    let ids: BTreeSet<_> = changes.builds.iter().chain(&changes.created).collect();
    add(calls, &BUILDS, Twin::Replaced, ids.iter().map(|id| rows::build_cells(work(id))).collect());
    let jobs = changes.jobs.iter().map(|(id, name)| rows::job_cells(&work(id).jobs[name].row));
    add(calls, &JOBS, Twin::Replaced, jobs.collect());
    let attempts = changes.attempts.iter().map(|(id, attempt)| rows::attempt_cells(&work(id).attempts[attempt].row));
    add(calls, &ATTEMPTS, Twin::Replaced, attempts.collect());
    let gates = changes.gates.iter().map(|(id, job)| rows::gate_cells(&work(id).gates[job].row));
    add(calls, &GATES, Twin::Replaced, gates.collect());
    // The same files may be handed on twice; one statement may not write a row twice.
    let artifacts: BTreeMap<_, _> = changes
        .artifacts
        .iter()
        .map(|row| ((row.build, &row.job, row.attempt, &row.name), rows::artifact_cells(row)))
        .collect();
    add(calls, &ARTIFACTS, Twin::Replaced, artifacts.into_values().collect());
    let history = |key: &HistoryKey| -> Vec<Cell> {
        vec![key.project.as_str().into(), key.job.as_str().into(), json(&working.histories[key].row.0).into()]
    };
    add(calls, &HISTORIES, Twin::Replaced, changes.histories.iter().map(history).collect());
    // What has ended is not written again; should it be, it is read again.
    for id in &changes.builds {
        if working.builds[id].build.row.finished.is_some() {
            working.forget(*id);
        }
    }
}

impl Memory {
    /// The digest of a graph, which is added to `rows` unless it is known to be stored.
    fn graph(&mut self, graph: &Arc<Graph>, rows: &mut BTreeMap<Digest, Vec<Cell>>) -> Result<Digest, StoreError> {
        if let Some((stored, digest)) = &self.last_graph
            && Arc::ptr_eq(stored, graph)
        {
            return Ok(*digest);
        }
        let (digest, json) = graphs::digest_of(graph);
        rows.insert(digest, vec![digest.into(), Cell::Bytes(graphs::pack(&json)?)]);
        // Known from now on: if the append fails, all is forgotten.
        self.last_graph = Some((Arc::clone(graph), digest));
        Ok(digest)
    }
}

/// The histories that an append needs and that are not at hand.
#[derive(Default)]
struct Found(HashMap<HistoryKey, History>);

impl Found {
    /// Brings to hand what is not, in one round trip or two, and learns where the counter of changes stands.
    fn look_up(session: &Session, memory: &mut Memory, facts: &[Fact]) -> Result<Self, StoreError> {
        let builds: BTreeSet<_> =
            facts.iter().map(|fact| fact.build).filter(|id| !memory.working.builds.contains_key(id)).collect();
        let created = facts.iter().filter_map(|fact| match &fact.what {
            What::BuildCreated(request) => Some((fact.build, request.origin.project.as_str())),
            _ => None,
        });
        // The others are read with their builds' rows.
        let mut projects: BTreeMap<_, _> = created.collect();
        let at_hand = |fact: &Fact| Some((fact.build, memory.working.builds.get(&fact.build)?));
        let known = facts.iter().filter_map(at_hand);
        projects.extend(known.map(|(id, work)| (id, work.build.row.origin.project.as_str())));
        let is_at_hand = |build: BuildId, job: &JobName| {
            let key = |project: &&str| HistoryKey { project: (*project).to_owned(), job: job.clone() };
            projects.get(&build).map(key).is_some_and(|key| memory.working.histories.contains_key(&key))
        };
        let ended = facts.iter().filter_map(|fact| match &fact.what {
            What::AttemptFinished { job, .. } if !is_at_hand(fact.build, job) => Some((fact.build, job)),
            _ => None,
        });
        let (ended_in, jobs): (BTreeSet<_>, BTreeSet<_>) = ended.unzip();
        if builds.is_empty() && jobs.is_empty() && memory.sequence.is_some() {
            return Ok(Self::default());
        }
        let ids = || Value::Integers(builds.iter().map(|id| Some(signed(id.0))).collect());
        let projects = ended_in.iter().filter_map(|build| projects.get(build)).collect::<BTreeSet<_>>();
        let projects = Value::Texts(projects.into_iter().map(|project| Some(clean(project))).collect());
        let names = Value::Texts(jobs.iter().map(|job| Some(clean(job.as_str()))).collect());
        let answers = session.read(&[
            Call::new("select value from counters where name = 'journal'", []),
            Call::new(
                "select project, job, durations from job_histories where job = any($1) and (project = any($2) \
                 or project in (select project from builds where id = any($3)))",
                [names, projects, ids()],
            ),
            Call::new(format!("select {} from builds where id = any($1)", BUILDS.names()), [ids()]),
        ])?;
        let sequence = unsigned(answers[0].rows.first().ok_or_else(|| broken("a counter is missing"))?, 0)?;
        if memory.sequence.is_some_and(|known| known != sequence) {
            // What is at hand is old: all is to be looked up again.
            memory.clear();
            return Self::look_up(session, memory, facts);
        }
        memory.sequence = Some(sequence);
        let builds = answers[2].rows.iter().map(rows::build_row).collect::<Result<Vec<_>, _>>()?;
        adopt(session, &mut memory.working, builds)?;
        answers[1].rows.iter().map(rows::history_row).collect::<Result<_, _>>().map(Self)
    }
}

/// Brings builds to hand with all their rows.
fn adopt(session: &Session, working: &mut Working, builds: Vec<(BuildRow, u64)>) -> Result<(), StoreError> {
    if builds.is_empty() {
        return Ok(());
    }
    let ids = || Value::Integers(builds.iter().map(|(row, _)| Some(signed(row.build.0))).collect());
    let of_builds = |table: &Table| {
        Call::new(format!("select {} from {} where build = any($1)", table.names(), table.name), [ids()])
    };
    let answers = session.read(&[of_builds(&JOBS), of_builds(&ATTEMPTS), of_builds(&GATES)])?;
    let jobs = answers[0].rows.iter().map(rows::job_row).collect::<Result<Vec<_>, _>>()?;
    let attempts = answers[1].rows.iter().map(rows::attempt_row).collect::<Result<Vec<_>, _>>()?;
    let gates = answers[2].rows.iter().map(rows::gate_row).collect::<Result<Vec<_>, _>>()?;
    working.adopt(builds, jobs, attempts, gates);
    Ok(())
}

/// All that a build at hand has is at hand with it.
impl Source for Found {
    fn build(&mut self, _: BuildId) -> Result<Option<(BuildRow, u64)>, StoreError> {
        Ok(None)
    }

    fn job(&mut self, _: BuildId, _: &JobName) -> Result<Option<JobRow>, StoreError> {
        Ok(None)
    }

    fn attempt(&mut self, _: BuildId, _: AttemptNumber) -> Result<Option<AttemptRow>, StoreError> {
        Ok(None)
    }

    fn gate(&mut self, _: BuildId, _: &JobName) -> Result<Option<GateRow>, StoreError> {
        Ok(None)
    }

    fn history(&mut self, key: &HistoryKey) -> Result<Option<History>, StoreError> {
        Ok(self.0.remove(key))
    }
}

pub(super) fn position(build: BuildId, place: u64) -> u64 {
    build.0 << 32 | place
}

/// The facts of a build between two places on which appends began.
pub(super) fn load(session: &Session, build: BuildId, place: u64, end: Option<u64>) -> Result<Vec<Fact>, StoreError> {
    if build.0 > BUILD_ID_MAX {
        return Ok(Vec::new());
    }
    let to = end.map_or(position(BuildId(build.0 + 1), 0), |end| (build.0 << 32) + end);
    let values = || [number(position(build, place)), number(to)];
    let answers = session.read(&[
        Call::new("select body, graph from facts where position >= $1 and position < $2 order by position", values()),
        Call::new(
            "select digest, body from graphs where digest in \
             (select graph from facts where position >= $1 and position < $2)",
            values(),
        ),
    ])?;
    let mut graphs = HashMap::new();
    for row in &answers[1].rows {
        graphs.insert(digest(row, 0)?, graphs::unpack_graph(get(row, 1)?)?);
    }
    let mut facts = Vec::new();
    for row in &answers[0].rows {
        let of_row = maybe_digest(row, 1)?;
        for line in get::<&str>(row, 0)?.lines() {
            let mut fact: Fact = parse(line)?;
            if let (What::Evaluated { graph, .. }, Some(digest)) = (&mut fact.what, of_row) {
                *graph = graphs.get(&digest).cloned().ok_or_else(|| broken("a graph is missing"))?;
            }
            facts.push(fact);
        }
    }
    Ok(facts)
}

pub(super) fn graph_of(session: &Session, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError> {
    let sql =
        "select builds.graph, graphs.body from builds left join graphs on graphs.digest = builds.graph where id = $1";
    let answer = session.call(Call::new(sql, [number(build.0)]))?;
    let Some(row) = answer.rows.first() else { return Ok(None) };
    if maybe_digest(row, 0)?.is_none() {
        return Ok(None);
    }
    let body = get::<Option<&[u8]>>(row, 1)?.ok_or_else(|| broken("a graph is missing"))?;
    graphs::unpack_graph(body).map(Some)
}

/// The attempts of a build, or of one job of it, and the reports of those that ended.
pub(super) fn reports(
    session: &Session,
    build: BuildId,
    job: Option<&JobName>,
) -> Result<Vec<(AttemptRow, Box<AttemptReport>)>, StoreError> {
    let missing = || broken("the fact with a report is missing");
    let attempts = session.call(rows::attempts(build, job))?;
    let mut ended = Vec::new();
    for row in &attempts.rows {
        let row = rows::attempt_row(row)?;
        if let Some(end) = &row.ended {
            ended.push((position(build, end.fact), row));
        }
    }
    // The rows of facts that hold them, each once.
    let sql = "select distinct on (facts.position) facts.position, facts.body from unnest($1::bigint[]) as wanted (place) \
               cross join lateral (select position, body from facts where position <= wanted.place \
               order by position desc limit 1) as facts order by facts.position";
    let places = Value::Integers(ended.iter().map(|(place, _)| Some(signed(*place))).collect());
    let answer = session.call(Call::new(sql, [places]))?;
    let mut held = BTreeMap::<u64, Vec<&str>>::new();
    for row in &answer.rows {
        held.insert(unsigned(row, 0)?, get::<&str>(row, 1)?.lines().collect());
    }
    let mut reports = Vec::new();
    for (place, row) in ended {
        let (first, lines) = held.range(..=place).next_back().ok_or_else(missing)?;
        let line = usize::try_from(place - first).ok().and_then(|index| lines.get(index)).ok_or_else(missing)?;
        match parse::<Fact>(line)?.what {
            What::AttemptFinished { report, .. } => reports.push((row, report)),
            _ => return Err(missing()),
        }
    }
    Ok(reports)
}

pub(super) fn journal(
    session: &Session,
    after: Sequence,
    limit: u32,
) -> Result<Vec<(Sequence, Vec<Fact>)>, StoreError> {
    let sql = "select sequence, spans from journal where sequence > $1 order by sequence limit $2";
    let values = [number(after.0), number(limit.min(PAGE_ROWS_MAX).into())];
    let answer = session.call(Call::new(sql, values))?;
    let (mut page, mut facts) = (Vec::new(), 0);
    for row in &answer.rows {
        let spans: Vec<Span> = parse(get::<&str>(row, 1)?)?;
        let brought = crate::span::load(&spans, |build, start, end| load(session, build, start, Some(end)))?;
        facts += brought.len();
        page.push((Sequence(unsigned(row, 0)?), brought));
        if facts >= JOURNAL_FACTS_MAX {
            break;
        }
    }
    Ok(page)
}
