//! `ropewalk cache`: what is kept for reuse. Clearing leaves tombstones, so that `explain` can say what became of it.

use std::collections::BTreeSet;

use api::cache::CacheAct as ThereAct;
use api::client::PageWanted;
use graph::{Digest, Timestamp};
use serde_json::json;
use store::blob::StoredBlob;
use store::cache::{CacheAct, CacheRead, CacheRow, CacheUse, CacheUser, cache_uses};
use store::rows::OperationRow;
use store::{PAGE_ROWS_MAX, Store};

use super::Stop;
use crate::archive::There;
use crate::args::{Cache, CacheCommand, ListForm};
use crate::calendar::Calendar;
use crate::columns::{Cell, Columns, Paint};
use crate::places::Places;
use crate::project::Project;
use crate::retention::CacheBounds;
use crate::whereabouts::Whereabouts;
use crate::{exit, output, room, words};

/// How many readers of an entry are told, the latest.
const READS_TOLD_MAX: u32 = 100;

/// What became of an entry that was not written.
const ALREADY_THERE: &str = ", whose own was not needed: there was one of this key";

/// What to say where nothing is kept.
const NOTHING_KEPT: &str = "nothing is kept for reuse: a job is reused if it declares `inputs` or `reuse: true`\n";

/// What to do where a server's caches are meant.
const THERE: &str = "`ropewalk cache explain KEY` tells of a cache there, and the server keeps within its own settings";

/// Runs the command.
///
/// # Errors
/// If what is kept cannot be read or changed.
pub fn run(arguments: &Cache, project: &Project) -> Result<u8, Stop> {
    let calendar = Calendar::system();
    match &arguments.command {
        CacheCommand::List { at, .. } => at.only_here("cache list", THERE)?,
        CacheCommand::Clear { at, .. } => at.only_here("cache clear", THERE)?,
        CacheCommand::Explain { .. } => {}
    }
    if let CacheCommand::Explain { key, output: form, at } = &arguments.command
        && let Some(there) = at.there(project)?
    {
        output::print(explain_there(&there, key, *form, &calendar)?)?;
        return Ok(exit::PASSED);
    }
    if let CacheCommand::Clear { .. } = &arguments.command {
        room::keep(&project.data);
    }
    let text = match (Places::kept_if_any(project)?, &arguments.command) {
        (Some(places), CacheCommand::List { output, .. }) => list(&*places.store, *output, &calendar)?,
        (Some(places), CacheCommand::Explain { key, output, .. }) => explain(&*places.store, key, *output, &calendar)?,
        (Some(places), CacheCommand::Clear { job, .. }) => clear(&places, job.as_deref(), calendar.now)?,
        (None, CacheCommand::List { output: ListForm::Json, .. }) => empty_json(),
        (None, CacheCommand::Explain { key, .. }) => return Err(no_key(key)),
        (None, _) => NOTHING_KEPT.to_owned(),
    };
    output::print(text)?;
    Ok(exit::PASSED)
}

fn empty_json() -> String {
    format!("{:#}\n", json!({ "results": [], "caches": [], "totals": store::rows::OperationTotals::default() }))
}

fn no_key(key: &str) -> Stop {
    Stop::wrong(format!("no cache was ever kept under the key `{}`", crate::columns::one_line(key)))
}

/// Who wrote and who read what a key stands for.
fn explain(store: &dyn Store, key: &str, form: ListForm, calendar: &Calendar) -> Result<String, Stop> {
    let mut entries = Vec::new();
    for row in store.list_caches(PAGE_ROWS_MAX)?.into_iter().filter(|row| row.key == key) {
        let reads = store.cache_reads(&row.scope, &row.key, READS_TOLD_MAX)?;
        entries.push((row, reads));
    }
    let uses = uses_of(store, key)?;
    if entries.is_empty() && uses.is_empty() {
        return Err(no_key(key));
    }
    if form == ListForm::Json {
        let entries: Vec<_> = entries.iter().map(|(row, reads)| json!({ "entry": row, "reads": reads })).collect();
        return Ok(format!("{:#}\n", json!({ "key": key, "entries": entries, "uses": uses })));
    }
    let mut texts: Vec<String> = entries.iter().map(|(row, reads)| entry_text(row, reads, calendar)).collect();
    texts.extend(futile_text(key, &uses, calendar));
    Ok(texts.join("\n"))
}

/// Who of a project on a server read, wrote and missed a key, newest first.
fn explain_there(there: &There, key: &str, form: ListForm, calendar: &Calendar) -> Result<String, Stop> {
    let project = there.project()?;
    let wanted = PageWanted { limit: Some(READS_TOLD_MAX), ..PageWanted::default() };
    let uses = there.link.ask(there.link.client.cache_uses(project, Some(key), &wanted))?.items;
    if uses.is_empty() {
        return Err(no_key(key));
    }
    if form == ListForm::Json {
        return Ok(format!("{:#}\n", json!({ "key": key, "uses": uses })));
    }
    let totals = there.link.ask(there.link.client.cache_totals(project))?;
    let mut text = format!("{}\n", crate::columns::one_line(key));
    for used in &uses {
        let (word, rest) = match used.act {
            ThereAct::Missed => ("missed", String::new()),
            ThereAct::Read if used.found == used.key => ("read", String::new()),
            ThereAct::Read => ("read", format!(", which was given `{}`", crate::columns::one_line(&used.found))),
            ThereAct::Written => ("written", format!(", {}", words::size(used.bytes.unwrap_or(0)))),
            ThereAct::Kept => ("kept", ALREADY_THERE.to_owned()),
        };
        let trust = if used.scope.contains("/untrusted/") { ", which is not trusted" } else { "" };
        let (age, by) = (calendar.age(used.at.0), &used.by);
        text.push_str(&format!("  {word:<7}  {age}  `{}` of build {}{trust}{rest}\n", by.job, by.build));
    }
    let caches = words::count(usize::try_from(totals.caches).unwrap_or(usize::MAX), "cache");
    text.push_str(&format!("{project} has {caches}, {}\n", words::size(totals.bytes)));
    Ok(text)
}

/// What jobs did that asked for the key, newest first, misses too; at most [`READS_TOLD_MAX`].
fn uses_of(store: &dyn Store, key: &str) -> Result<Vec<CacheUse>, Stop> {
    let (mut uses, mut last) = (Vec::new(), None::<String>);
    // What is kept of a project bounds this.
    while uses.len() < READS_TOLD_MAX as usize {
        let page = cache_uses::list(store, "", last.as_deref(), PAGE_ROWS_MAX)?;
        let Some((place, _)) = page.last() else { break };
        last = Some(place.clone());
        uses.extend(page.into_iter().map(|(_, used)| used).filter(|used| used.key == key));
    }
    uses.truncate(READS_TOLD_MAX as usize);
    Ok(uses)
}

/// What no entry tells: who found none, who was given one of another key, who came too late to write one.
fn futile_text(key: &str, uses: &[CacheUse], calendar: &Calendar) -> Option<String> {
    let lines = uses.iter().filter_map(|used| {
        let (word, rest) = match &used.act {
            CacheAct::Missed => ("missed", String::new()),
            CacheAct::Read { found } if *found != used.key => {
                ("read", format!(", which was given `{}`", crate::columns::one_line(found)))
            }
            CacheAct::Kept => ("kept", ALREADY_THERE.to_owned()),
            CacheAct::Read { .. } | CacheAct::Written { .. } => return None,
        };
        let age = calendar.age(used.at);
        Some(format!("  {word:<7}  {age}  `{}` of build {}{rest}\n", used.by.job, used.by.build))
    });
    let lines: String = lines.collect();
    (!lines.is_empty()).then(|| format!("{}, asked for in vain\n{lines}", crate::columns::one_line(key)))
}

fn entry_text(row: &CacheRow, reads: &[CacheRead], calendar: &Calendar) -> String {
    let who = |user: &CacheUser| format!("`{}` of build {}", user.job, user.build);
    let (trust, paths) = row.scope.rsplit_once('/').unwrap_or((&row.scope, ""));
    let (key, size) = (crate::columns::one_line(&row.key), words::size(row.bytes));
    let readers = match trust.rsplit('/').next() {
        Some("untrusted") => "written by a build that is not trusted: only such builds read it",
        _ => "written by a trusted build: every build of the project reads it",
    };
    let blobs = words::count(row.blobs.len(), "blob");
    let mut text = format!("{key}, {size} in {blobs}, paths {}\n  {readers}\n", &paths[..paths.len().min(12)]);
    text.push_str(&format!("  written  {}  {}\n", calendar.age(row.at), who(&row.written_by)));
    for read in reads {
        text.push_str(&format!("  read     {}  {}\n", calendar.age(read.at), who(&read.reader)));
    }
    if let Some(eviction) = &row.evicted {
        text.push_str(&format!("  evicted  {}  {}\n", calendar.age(eviction.at), eviction.reason));
    }
    text
}

/// The live rows of both kinds, newest first, at most a page of each.
fn kept(store: &dyn Store) -> Result<(Vec<OperationRow>, Vec<CacheRow>), Stop> {
    let mut operations = store.list_operations(PAGE_ROWS_MAX)?;
    operations.retain(|row| row.evicted.is_none());
    let mut caches = store.list_caches(PAGE_ROWS_MAX)?;
    caches.retain(|row| row.evicted.is_none());
    Ok((operations, caches))
}

fn list(store: &dyn Store, form: ListForm, calendar: &Calendar) -> Result<String, Stop> {
    let (operations, caches) = kept(store)?;
    let totals = store.operation_totals()?;
    if form == ListForm::Json {
        return Ok(format!("{:#}\n", json!({ "results": operations, "caches": caches, "totals": totals })));
    }
    if operations.is_empty() && caches.is_empty() {
        return Ok(NOTHING_KEPT.to_owned());
    }
    let mut text = String::new();
    if !operations.is_empty() {
        text.push_str(&operations_table(&operations, calendar));
        let live = words::count(usize::try_from(totals.live).unwrap_or(usize::MAX), "result");
        text.push_str(&format!("{live}, {} of artifacts", words::size(totals.artifact_bytes)));
        let hidden = totals.live.saturating_sub(operations.len() as u64);
        if hidden > 0 {
            text.push_str(&format!("; {} older ones are not listed", words::thousands(hidden)));
        }
        text.push('\n');
    }
    if !caches.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&caches_table(&caches, calendar));
        let bytes = caches.iter().map(|row| row.bytes).sum();
        let count = words::count(caches.len(), "cache");
        text.push_str(&format!("{count}, {}; {}\n", words::size(bytes), CacheBounds::of_environment()));
    }
    Ok(text)
}

fn operations_table(operations: &[OperationRow], calendar: &Calendar) -> String {
    let mut columns = Columns::default();
    columns.titles(["job", ">build", ">size", "kept", "last used", "operation"]);
    for row in operations {
        let bytes = row.artifacts.values().map(|artifact| artifact.bytes).sum();
        columns.row([
            Cell::new(row.job.as_str()),
            Cell::right(row.build.to_string()),
            Cell::right(words::size(bytes)),
            Cell::new(calendar.age(row.at)),
            Cell::new(used(row.at, row.used_at, calendar)),
            Cell::new(row.digest.short()),
        ]);
    }
    columns.text(Paint::Plain, 0)
}

fn caches_table(caches: &[CacheRow], calendar: &Calendar) -> String {
    let mut columns = Columns::default();
    columns.titles(["cache key", "job", ">build", ">size", "saved", "last used"]);
    for row in caches {
        columns.row([
            Cell::new(&row.key),
            Cell::new(row.written_by.job.as_str()),
            Cell::right(row.written_by.build.to_string()),
            Cell::right(words::size(row.bytes)),
            Cell::new(calendar.age(row.at)),
            Cell::new(used(row.at, row.used_at, calendar)),
        ]);
    }
    columns.text(Paint::Plain, 0)
}

fn used(at: Timestamp, used_at: Timestamp, calendar: &Calendar) -> String {
    if used_at == at { "never".to_owned() } else { calendar.age(used_at) }
}

/// Forgets what is kept, of one job or of all, and removes the blobs that nothing names any more.
fn clear(places: &Places, job: Option<&str>, at: Timestamp) -> Result<String, Stop> {
    let store = &*places.store;
    let before = store.referenced_blobs()?;
    // First of all, so that no run in between takes it for what is cleared here.
    let _ = std::fs::remove_file(crate::shortcut::path(&places.data));
    let (results, caches) = match job {
        None => {
            let reason = "`ropewalk cache clear`";
            (store.clear_operations(reason, at)?, store.clear_caches(reason, at)?)
        }
        Some(job) => clear_job(store, job, at)?,
    };
    if let (0, Some(job)) = (results + caches, job) {
        return Ok(format!("nothing is kept of a job `{}`\n", crate::columns::one_line(job)));
    }
    let results = words::count(usize::try_from(results).unwrap_or(usize::MAX), "result");
    let caches = words::count(usize::try_from(caches).unwrap_or(usize::MAX), "cache");
    Ok(format!("cleared: {results}, {caches}{}\n", remove_blobs(places, &before)?))
}

/// Evicts what a job, by full name or id, has kept.
fn clear_job(store: &dyn Store, job: &str, at: Timestamp) -> Result<(u64, u64), Stop> {
    let reason = format!("`ropewalk cache clear --job {}`", crate::whereabouts::quoted(job));
    let results = store.evict_job(&job.into(), &reason, at)?;
    let is_meant = |name: &graph::JobName| name.as_str() == job || name.id() == job;
    let mut caches = 0;
    for row in store.list_caches(PAGE_ROWS_MAX)? {
        if row.evicted.is_none() && is_meant(&row.written_by.job) {
            store.evict_cache(&row.scope, &row.key, &reason, at)?;
            caches += 1;
        }
    }
    Ok((results, caches))
}

/// Removes the blobs that were named before and are not any more. Returns the end of a sentence.
///
/// A build that runs may be about to name a blob that it found or has put; while one does, none is removed.
fn remove_blobs(places: &Places, before: &BTreeSet<Digest>) -> Result<String, Stop> {
    let stored = places.blobs.list().map_err(|error| Stop::of(&error))?;
    let referenced = places.store.referenced_blobs()?;
    if let Some(build) = places.running()? {
        let again = Whereabouts::here().command("cache clear");
        return Ok(format!("; build {build} is running, so files stay until the next `{again}`"));
    }
    worker::cache::remove_layers(&places.data);
    let is_left = |blob: &&StoredBlob| !referenced.contains(&blob.digest);
    let (mut bytes, mut blobs) = (0, 0);
    for blob in stored.iter().filter(is_left) {
        places.blobs.delete(blob.digest).map_err(|error| Stop::of(&error))?;
        bytes += blob.stored_bytes;
        blobs += 1;
    }
    let shared = before.intersection(&referenced).count();
    let kept =
        if shared > 0 { format!("; {} kept, named by builds", words::count(shared, "file")) } else { String::new() };
    Ok(format!(", {} of {}{kept}", words::size(bytes), words::count(blobs, "file")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::kept::Kept;
    use graph::BuildId;

    fn kept_results() -> Kept {
        let mut kept = Kept::new();
        let mut build = kept.build(&["lib", "test/a"]);
        for (job, bytes) in [("lib", 2048), ("test/a", 100)] {
            let operation = build.operation(job, &[("src", job)]);
            build.pass(job, 10).keep(job, &operation, bytes);
        }
        build.end();
        let at = kept.calendar().now;
        let row = CacheRow {
            scope: "trusted/x".to_owned(),
            key: "cargo-1".to_owned(),
            blobs: vec![store::blob::digest(b"cache")],
            bytes: 4096,
            written_by: CacheUser { build: BuildId(1), job: "lib".into() },
            at,
            used_at: at,
            evicted: None,
        };
        kept.store().save_cache(&row).expect("the store takes it");
        kept
    }

    #[track_caller]
    fn check_list(kept: &Kept, expected: &str) {
        let text = list(kept.store(), ListForm::Human, &kept.calendar()).map_err(|stop| stop.message);
        assert_eq!(text.as_deref(), Ok(expected));
    }

    #[test]
    fn results_and_caches_are_listed() {
        let kept = kept_results();
        let short = |job| kept.store().recent_operations(job, 1).expect("rows")[0].0.digest.short();
        let (lib, test) = (short("lib"), short("test"));
        check_list(
            &kept,
            &format!(
                "\
job     build     size  kept       last used  operation
test/a      1    100 B  6 min ago  never      {test}
lib         1  2.0 KiB  6 min ago  never      {lib}
2 results, 2.0 KiB of artifacts

cache key  job  build     size  saved     last used
cargo-1    lib      1  4.0 KiB  just now  never
1 cache, 4.0 KiB; a cache goes 14 days after its last use, the longest unused first if all take more than 20.0 GiB
"
            ),
        );
    }

    #[test]
    fn a_key_is_explained() {
        let kept = kept_results();
        let (store, at) = (kept.store(), kept.calendar().now);
        let wanted = store::cache::CacheWanted { scopes: &["trusted/x"], key: "cargo-2", prefixes: &["cargo-"] };
        let reader = CacheUser { build: BuildId(1), job: "test/a".into() };
        store.restore_cache(&wanted, &reader, at).expect("the store answers").expect("it is found");
        let text = |key| explain(store, key, ListForm::Human, &kept.calendar()).map_err(|stop| stop.message);
        let expected = "\
cargo-1, 4.0 KiB in 1 blob, paths x
  written by a trusted build: every build of the project reads it
  written  just now  `lib` of build 1
  read     just now  `test/a` of build 1
";
        assert_eq!(text("cargo-1").as_deref(), Ok(expected));
        let message = "no cache was ever kept under the key `cargo-2`";
        assert_eq!(text("cargo-2"), Err(message.to_owned()));
        let acts = [
            CacheAct::Missed,
            CacheAct::Read { found: "cargo-1".to_owned() },
            CacheAct::Read { found: "cargo-2".to_owned() },
            CacheAct::Kept,
        ];
        for (second, act) in acts.into_iter().enumerate() {
            let (scope, key, by) = ("trusted/x".to_owned(), "cargo-2".to_owned(), reader.clone());
            let at = at.plus_ms(1000 * second as u64);
            cache_uses::note(store, "", &CacheUse { scope, key, act, by, at }).expect("the store takes it");
        }
        let expected = "\
cargo-2, asked for in vain
  kept     just now  `test/a` of build 1, whose own was not needed: there was one of this key
  read     just now  `test/a` of build 1, which was given `cargo-1`
  missed   just now  `test/a` of build 1
";
        assert_eq!(text("cargo-2").as_deref(), Ok(expected));
    }

    #[test]
    fn clearing_a_job_leaves_the_others_and_a_tombstone() {
        let kept = kept_results();
        let places = kept.places();
        places.blobs.put(b"cache").expect("a blob");
        let unrelated = places.blobs.put(b"of nobody").expect("a blob");
        let at = kept.calendar().now;
        let text = clear(&places, Some("lib"), at).map_err(|stop| stop.message);
        assert_eq!(text.as_deref(), Ok("cleared: 1 result, 1 cache, 14 B of 2 files; 1 file kept, named by builds\n"));
        assert!(!places.blobs.contains(unrelated).expect("it answers"));
        let (row, _) = kept.store().recent_operations("lib", 1).expect("rows").remove(0);
        let reason = row.evicted.map(|eviction| eviction.reason);
        assert_eq!(reason.as_deref(), Some("`ropewalk cache clear --job lib`"));
        assert_eq!(
            clear(&places, Some("lib"), at).map_err(|stop| stop.message).as_deref(),
            Ok("nothing is kept of a job `lib`\n")
        );
        assert_eq!(kept.store().operation_totals().expect("totals").live, 1);
    }

    #[test]
    fn while_a_build_runs_no_blob_is_removed() {
        let mut kept = kept_results();
        kept.build(&["a"]).lease("a");
        let places = kept.places();
        let blob = places.blobs.put(b"cache").expect("a blob");
        let _claim = places.store.claim(BuildId(2)).expect("the store answers").expect("it is free");
        let text = clear(&places, None, kept.calendar().now).map_err(|stop| stop.message);
        let expected =
            "cleared: 2 results, 1 cache; build 2 is running, so files stay until the next `ropewalk cache clear`\n";
        assert_eq!(text.as_deref(), Ok(expected));
        assert!(places.blobs.contains(blob).expect("it answers"));
        check_list(&kept, NOTHING_KEPT);
    }
}
