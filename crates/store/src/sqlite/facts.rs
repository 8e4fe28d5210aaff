//! Facts and graphs in SQLite.
//!
//! The facts of one append stand as lines of JSON in one row per build, since a row costs more than a line. A
//! graph stands apart, packed, under its digest: many builds have the same.
//!
//! An append commits its facts at once. The rows follow in the same transaction only if it tells something that
//! lists show (a beginning, an end, a gate) or if [`FACTS_BEHIND_MAX`] facts wait: each changed page costs more
//! than the facts themselves. On a server, whose store keeps a journal, they always follow: somebody looks all the time,
//! and a reader that had to project would wait for the disk. Every build's row says how many facts it shows, so whoever reads rows, in whichever
//! process, first projects what is missing ([`catch_up`]); a crash takes no row either.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::Fact;
use engine::fact::What;
use graph::{AttemptReport, BuildId, Digest, Graph};
use rusqlite::{Connection, OptionalExtension};

use super::ahead::{Append, LeftRecord, is_quiet, lines_of};
use super::column::{DigestColumn, corrupt, signed, unsigned};
use super::{Writer, journal, projected};
use crate::graphs;
use crate::rows::AttemptRow;
use crate::rows::projection::{TakenUp, Working};
use crate::store::{BUILD_ID_MAX, Journal, StoreError};

/// A row of facts is full when its text is this long, so that one report is found without reading far.
const ROW_BYTES: usize = 64 * 1024;
/// The most facts of one build.
const FACTS_MAX: u64 = u32::MAX as u64;

/// The most facts that wait to be projected.
const FACTS_BEHIND_MAX: usize = 256;

/// The facts of one build that will become one row.
#[derive(Default)]
struct Lines {
    first: u64,
    facts: u64,
    body: Vec<u8>,
}

impl Lines {
    /// Makes room for the line of the fact at `place`.
    fn begin(&mut self, place: u64) {
        if self.facts == 0 {
            self.first = place;
        } else {
            self.body.push(b'\n');
        }
        self.facts += 1;
    }
}

pub(super) fn append(writer: &mut Writer, facts: &[Fact]) -> Result<(), StoreError> {
    let mut lines = BTreeMap::<BuildId, Lines>::new();
    let mut first = BTreeMap::<BuildId, u64>::new();
    for fact in facts {
        let Writer { connection, working, last_graph, .. } = writer;
        take_up(connection, working, fact.build, Some(fact))?;
        let place = next_place(working, fact.build)?;
        first.entry(fact.build).or_insert(place);
        let open = lines.entry(fact.build).or_default();
        let digest = if let What::Evaluated { graph, questions, diagnostics, program } = &fact.what {
            flush(connection, fact.build, open)?;
            let digest = store_graph(connection, last_graph, graph)?;
            let what = What::Evaluated {
                graph: Arc::default(),
                questions: questions.clone(),
                diagnostics: diagnostics.clone(),
                program: *program,
            };
            let pointing = Fact { build: fact.build, at: fact.at, what };
            insert(connection, position(fact.build, place), 1, &to_json(&pointing), Some(digest))?;
            Some(digest)
        } else {
            open.begin(place);
            // Our types serialize to JSON whatever they hold.
            serde_json::to_writer(&mut open.body, fact).expect("a fact always serializes");
            if open.body.len() >= ROW_BYTES {
                flush(connection, fact.build, open)?;
            }
            None
        };
        working.apply(&mut projected::Stored(connection), fact, digest)?;
    }
    for (build, mut open) in lines {
        flush(&writer.connection, build, &mut open)?;
    }
    if writer.journal == Journal::Kept {
        journal::note(&writer.connection, &first, facts)?;
    }
    let is_shown = writer.journal == Journal::Kept
        || facts.iter().any(|fact| !is_quiet(fact) || writer.working.builds[&fact.build].build.row.finished.is_some());
    show(writer, is_shown)
}

/// Writes the rows of what was appended if somebody has to see it, or if much waits.
fn show(writer: &mut Writer, is_shown: bool) -> Result<(), StoreError> {
    let Writer { connection, working, is_shared, .. } = writer;
    if is_shown || *is_shared || working.pending() >= FACTS_BEHIND_MAX {
        projected::write(connection, working)?;
    }
    Ok(())
}

/// The place of the next fact of a build at hand.
fn next_place(working: &Working, build: BuildId) -> Result<u64, StoreError> {
    let place = working.builds[&build].facts;
    if place >= FACTS_MAX || build.0 > BUILD_ID_MAX {
        return Err(StoreError::Full("the build has too many facts".into()));
    }
    Ok(place)
}

/// Stores appends that went ahead. Facts of builds that were deleted meanwhile are left out; says which these are.
pub(super) fn append_ahead(writer: &mut Writer, appends: &[Append]) -> Result<BTreeSet<BuildId>, StoreError> {
    let mut lines = BTreeMap::<BuildId, Lines>::new();
    let mut gone = BTreeSet::new();
    let Writer { connection, working, .. } = writer;
    for append in appends {
        for (fact, line) in append.facts.iter().zip(append.lines.split(|&byte| byte == b'\n')) {
            match take_up(connection, working, fact.build, None) {
                Err(StoreError::NoBuild(build)) => {
                    gone.insert(build);
                    continue;
                }
                taken_up => taken_up?,
            }
            let open = lines.entry(fact.build).or_default();
            open.begin(next_place(working, fact.build)?);
            open.body.extend_from_slice(line);
            if open.body.len() >= ROW_BYTES {
                flush(connection, fact.build, open)?;
            }
            working.apply(&mut projected::Stored(connection), fact, None)?;
        }
    }
    for (build, mut open) in lines {
        flush(connection, build, &mut open)?;
    }
    let is_shown = writer.journal == Journal::Kept
        || appends
            .iter()
            .flat_map(|append| &append.facts)
            .any(|fact| writer.working.builds.get(&fact.build).is_some_and(|work| work.build.row.finished.is_some()));
    show(writer, is_shown)?;
    Ok(gone)
}

/// Stores what a dead process wrote ahead, as far as it is not stored yet.
pub(super) fn adopt(writer: &mut Writer, records: &[LeftRecord]) -> Result<(), StoreError> {
    let mut stored = BTreeMap::<BuildId, u64>::new();
    let mut appends = Vec::new();
    for LeftRecord { first, facts } in records {
        let mut places = first.clone();
        let mut missing = Vec::new();
        for fact in facts {
            let place = places.entry(fact.build).or_default();
            let stored = match stored.entry(fact.build) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(facts_of(writer, fact.build)?),
            };
            // Beyond a gap, which only the loss of power makes, nothing fits.
            if place == stored {
                missing.push(fact.clone());
                *stored += 1;
            }
            *place += 1;
        }
        if !missing.is_empty() {
            appends.push(Append { lines: lines_of(&missing), facts: missing });
        }
    }
    append_ahead(writer, &appends).map(drop)
}

/// How many facts of a build are stored.
fn facts_of(writer: &mut Writer, build: BuildId) -> Result<u64, StoreError> {
    let Writer { connection, working, .. } = writer;
    match take_up(connection, working, build, None) {
        Err(StoreError::NoBuild(_)) => Ok(0),
        taken_up => taken_up.map(|()| working.builds[&build].facts),
    }
}

/// Makes sure that a build is at hand with all its stored facts projected.
fn take_up(
    connection: &Connection,
    working: &mut Working,
    build: BuildId,
    fact: Option<&Fact>,
) -> Result<(), StoreError> {
    let mut source = projected::Stored(connection);
    if working.take_up(&mut source, build, fact)? == TakenUp::JustNow {
        let place = working.builds[&build].facts;
        for (fact, digest) in load_from(connection, build, place)? {
            working.apply(&mut source, &fact, digest)?;
        }
    }
    Ok(())
}

/// The builds whose rows do not show all their facts, in order of number. Only a build that has not ended can be
/// among them.
pub(super) fn behind(connection: &Connection) -> Result<Vec<BuildId>, StoreError> {
    let sql = "select id from builds where finished_at is null and facts < (select last.position \
               - builds.id * 4294967296 + last.facts from facts as last \
               where last.position < (builds.id + 1) * 4294967296 order by last.position desc limit 1) order by id";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| Ok(BuildId(unsigned(row, 0)?)))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Projects what is missing, for whichever process appended it.
pub(super) fn catch_up(writer: &mut Writer) -> Result<(), StoreError> {
    let Writer { connection, working, .. } = writer;
    for build in behind(connection)? {
        take_up(connection, working, build, None)?;
    }
    projected::write(connection, working)
}

fn to_json(fact: &Fact) -> String {
    serde_json::to_string(fact).expect("a fact always serializes")
}

fn position(build: BuildId, place: u64) -> u64 {
    build.0 << 32 | place
}

fn flush(connection: &Connection, build: BuildId, lines: &mut Lines) -> Result<(), StoreError> {
    if lines.facts > 0 {
        // JSON is UTF-8.
        let text = std::str::from_utf8(&lines.body).expect("serde_json writes UTF-8");
        insert(connection, position(build, lines.first), lines.facts, text, None)?;
        lines.facts = 0;
        lines.body.clear();
    }
    Ok(())
}

fn insert(
    connection: &Connection,
    position: u64,
    facts: u64,
    body: &str,
    graph: Option<Digest>,
) -> Result<(), StoreError> {
    let sql = "insert into facts (position, facts, body, graph) values (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute((signed(position), signed(facts), body, graph.map(DigestColumn)))?;
    Ok(())
}

fn store_graph(
    connection: &Connection,
    last: &mut Option<(Arc<Graph>, Digest)>,
    graph: &Arc<Graph>,
) -> Result<Digest, StoreError> {
    if let Some((stored, digest)) = last
        && Arc::ptr_eq(stored, graph)
    {
        return Ok(*digest);
    }
    let (digest, json) = graphs::digest_of(graph);
    let is_there =
        connection.prepare_cached("select 1 from graphs where digest = ?1")?.exists([DigestColumn(digest)])?;
    if !is_there {
        let sql = "insert into graphs (digest, body) values (?1, ?2)";
        connection.prepare_cached(sql)?.execute((DigestColumn(digest), graphs::pack(&json)?))?;
    }
    *last = Some((Arc::clone(graph), digest));
    Ok(digest)
}

pub(super) fn load(connection: &Connection, build: BuildId) -> Result<Vec<Fact>, StoreError> {
    Ok(load_from(connection, build, 0)?.into_iter().map(|(fact, _)| fact).collect())
}

/// The facts of a build from a place on at which an append began, with the digests of their graphs.
fn load_from(connection: &Connection, build: BuildId, place: u64) -> Result<Vec<(Fact, Option<Digest>)>, StoreError> {
    load_range(connection, build, place, FACTS_MAX + 1)
}

/// As [`load_from`], below a place on which a later append began.
pub(super) fn load_range(
    connection: &Connection,
    build: BuildId,
    place: u64,
    end: u64,
) -> Result<Vec<(Fact, Option<Digest>)>, StoreError> {
    if build.0 > BUILD_ID_MAX || end > FACTS_MAX + 1 {
        return Ok(Vec::new());
    }
    let sql = "select body, graph from facts where position >= ?1 and position < ?2 order by position";
    // One place past the last of a build is the first of the next build.
    let (from, to) = (signed(position(build, place)), signed((build.0 << 32) + end));
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((from, to))?;
    let mut facts = Vec::new();
    // A build that is evaluated again and again mostly has the same graph again.
    let mut graphs = BTreeMap::<DigestColumn, Arc<Graph>>::new();
    while let Some(row) = rows.next()? {
        let body = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let digest: Option<DigestColumn> = row.get(1)?;
        for line in body.lines() {
            let mut fact = from_line(line)?;
            if let (What::Evaluated { graph, .. }, Some(digest)) = (&mut fact.what, digest) {
                *graph = match graphs.get(&digest) {
                    Some(known) => Arc::clone(known),
                    None => load_graph(connection, digest)?,
                };
                graphs.insert(digest, Arc::clone(graph));
            }
            facts.push((fact, digest.map(|digest| digest.0)));
        }
    }
    Ok(facts)
}

fn from_line(line: &str) -> Result<Fact, StoreError> {
    serde_json::from_str(line).map_err(|error| StoreError::Corrupt(error.into()))
}

fn load_graph(connection: &Connection, digest: DigestColumn) -> Result<Arc<Graph>, StoreError> {
    let mut statement = connection.prepare_cached("select body from graphs where digest = ?1")?;
    let mut rows = statement.query([digest])?;
    let Some(row) = rows.next()? else { return Err(corrupt("a graph is missing")) };
    graphs::unpack_graph(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)
}

pub(super) fn graph_of(connection: &Connection, build: BuildId) -> Result<Option<Arc<Graph>>, StoreError> {
    let digest: Option<Option<DigestColumn>> = connection
        .prepare_cached("select graph from builds where id = ?1")?
        .query_row([signed(build.0)], |row| row.get(0))
        .optional()?;
    digest.flatten().map(|digest| load_graph(connection, digest)).transpose()
}

/// The reports of those of `attempts` that ended.
pub(super) fn reports<'a>(
    connection: &Connection,
    build: BuildId,
    attempts: &'a [AttemptRow],
) -> Result<Vec<(&'a AttemptRow, Box<AttemptReport>)>, StoreError> {
    let sql = "select position, facts, body from facts where position <= ?1 order by position desc limit 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut reports = Vec::new();
    // The row read last: its first place and its lines. Attempts that ended together stand in one row.
    let mut held = (0, Vec::<String>::new());
    for attempt in attempts {
        let Some(end) = &attempt.ended else { continue };
        let is_held = end.fact >= held.0 && end.fact - held.0 < held.1.len() as u64;
        if !is_held {
            held = statement.query_row([signed(position(build, end.fact))], |row| {
                let body = row.get_ref(2)?.as_str()?;
                Ok((unsigned(row, 0)?, body.lines().map(str::to_owned).collect()))
            })?;
            held.0 =
                held.0.checked_sub(position(build, 0)).ok_or_else(|| corrupt("the fact with a report is missing"))?;
        }
        let line = usize::try_from(end.fact - held.0).ok().and_then(|index| held.1.get(index));
        match line.map(|line| from_line(line)).transpose()?.map(|fact| fact.what) {
            Some(What::AttemptFinished { report, .. }) => reports.push((attempt, report)),
            _ => return Err(corrupt("the fact with a report is missing")),
        }
    }
    Ok(reports)
}
