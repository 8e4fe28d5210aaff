//! Finding what is kept: the store, logs and blobs of a project; the build and the job that a user names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::{BuildId, JobName, Waits};
use store::blob::{Blobs, DirectoryBlobs, Durability, Verify};
use store::log::{LogError, LogReader, LogWriter, Writing};
use store::rows::{BuildRow, VerdictWord};
use store::{BuildFilter, DATABASE_FILE, SqliteStore, Store, StoreError};

use crate::commands::{self, Stop};
use crate::project::Project;
use crate::room;

mod unchanged;

/// The folder of the logs.
const LOGS: &str = "logs";
/// How many names a hint lists.
const NAMES_LISTED_MAX: usize = 12;

/// What to say where nothing has been run yet.
pub const NO_BUILDS: &str = "no builds yet: start one with `ropewalk run`";

/// What to do where the folder for what is kept cannot be used.
const ELSEWHERE: &str = "ROPEWALK_DATA names another folder for what is kept";

/// What is kept of a project.
pub struct Places {
    /// The folder that holds it all.
    pub data: PathBuf,
    /// Facts, rows, operations, caches.
    pub store: Arc<dyn Store>,
    /// Artifacts and caches.
    pub blobs: Arc<dyn Blobs + Send + Sync>,
}

impl Places {
    /// The places of a project, for commands that write; made if there are none. On a full disk room is made first: see [`room`].
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn open(project: &Project) -> Result<Self, Stop> {
        let data = &project.data;
        let made = project.make_data().and_then(|()| std::fs::create_dir_all(data.join(LOGS)));
        made.map_err(|error| Stop::infra(format!("failed to make `{}`: {error}; {ELSEWHERE}", data.display())))?;
        room::keep(data);
        Self::with(project, SqliteStore::open)
    }

    fn with(project: &Project, open: fn(&Path) -> Result<SqliteStore, StoreError>) -> Result<Self, Stop> {
        let data = project.data.clone();
        let opened = match open(&data) {
            Err(StoreError::Full(_)) => {
                room::make(&data);
                open(&data)
            }
            opened => opened,
        };
        let store = opened.map_err(|error| {
            let mut stop = Stop::kept(&error);
            stop.message.extend(commands::next_of_damage(&error, &data));
            stop
        })?;
        let store = Arc::new(store);
        let blobs = DirectoryBlobs::open(&data.join("blobs"), Durability::Process, Verify::Never)
            .map_err(|error| Stop::kept(&error))?;
        Ok(Self { data, store, blobs: Arc::new(blobs) })
    }

    /// The places of a project in which something was kept, for commands that read: they do on a full disk, too. Nothing is made.
    ///
    /// # Errors
    /// [`NO_BUILDS`], and as the medium refuses.
    pub fn kept(project: &Project) -> Result<Self, Stop> {
        Self::kept_if_any(project)?.ok_or_else(|| Stop::wrong(NO_BUILDS))
    }

    /// As [`Places::kept`]; `None` if nothing was kept.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn kept_if_any(project: &Project) -> Result<Option<Self>, Stop> {
        let database = project.data.join(DATABASE_FILE);
        match database.symlink_metadata() {
            Ok(_) => Self::with(project, SqliteStore::open_to_read).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            // Builds may well be there.
            Err(error) => Err(Stop::infra(format!("failed to read `{}`: {error}; {ELSEWHERE}", database.display()))),
        }
    }

    /// The number of the build that `text` names, see [`find_build`].
    ///
    /// # Errors
    /// Clear words if there is no such build.
    pub fn build(&self, text: &str) -> Result<BuildId, Stop> {
        Ok(find_build(&*self.store, text)?.build)
    }

    /// Writes the log of a build.
    ///
    /// # Errors
    /// If it cannot be written, or another process writes it.
    pub fn log_writer(&self, build: BuildId) -> Result<LogWriter, Stop> {
        LogWriter::open(&log_path(&self.data, build)).map_err(|error| Stop::of(&error))
    }

    /// Reads the log of a build; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn log_reader(&self, build: BuildId, writing: Writing) -> Result<Option<LogReader>, Stop> {
        match LogReader::open(&log_path(&self.data, build), writing) {
            Ok(reader) => Ok(Some(reader)),
            Err(LogError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Stop::of(&error)),
        }
    }

    /// A build that a process runs now, if there is one.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn running(&self) -> Result<Option<BuildId>, Stop> {
        for build in self.store.unfinished()? {
            if self.is_run(build)? {
                return Ok(Some(build));
            }
        }
        Ok(None)
    }

    /// Whether a process runs `build` now.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn is_run(&self, build: BuildId) -> Result<bool, Stop> {
        Ok(self.store.claimant(build)?.is_some())
    }
}

/// Where the log of a build is.
pub fn log_path(data: &Path, build: BuildId) -> PathBuf {
    data.join(LOGS).join(format!("{build}.log"))
}

/// How many builds are looked at to find one that somebody asked for.
const LOOKED_AT_MAX: usize = 10_000;
/// How many of them at once.
const PAGE_ROWS: usize = 50;

/// The newest of the builds that `is_meant`; if none of the newest is, the newest of all. `builds` gives at most so many, newest
/// first, that are older than a build.
///
/// # Errors
/// As `builds` fails.
pub fn newest(
    builds: impl Fn(Option<BuildId>, usize) -> Result<Vec<BuildRow>, Stop>,
    is_meant: impl Fn(&BuildRow) -> bool,
) -> Result<Option<BuildRow>, Stop> {
    let (mut newest, mut before, mut n_builds) = (None, None, 0);
    while n_builds < LOOKED_AT_MAX {
        // Mostly it is the first.
        let limit = if before.is_none() { 1 } else { PAGE_ROWS };
        let page = builds(before, limit)?;
        let Some(last) = page.last() else { break };
        (before, n_builds) = (Some(last.build), n_builds + page.len());
        newest = newest.or_else(|| page.first().cloned());
        if let Some(found) = page.into_iter().find(&is_meant) {
            return Ok(Some(found));
        }
    }
    Ok(newest)
}

/// Whether somebody asked for it, and not a job of another build.
pub fn is_asked_for(build: &BuildRow) -> bool {
    build.event.parent.is_none()
}

/// Whether it failed by itself: the failure of a build that a job waits for is that of the job's build too.
pub fn is_own_failure(build: &BuildRow) -> bool {
    build.event.parent.as_ref().is_none_or(|parent| parent.waits == Waits::No)
}

/// The build that `text` names: `last` that somebody asked for, `last-failed`, `12` or `#12`.
///
/// # Errors
/// Clear words if there is no such build.
pub fn find_build(store: &dyn Store, text: &str) -> Result<BuildRow, Stop> {
    let all = BuildFilter::default();
    let of =
        |filter| move |before, limit| Ok(store.builds(filter, before, u32::try_from(limit).unwrap_or(u32::MAX))?);
    match text {
        "last" => newest(of(&all), is_asked_for)?.ok_or_else(|| Stop::wrong(NO_BUILDS)),
        "last-failed" => {
            let failed = BuildFilter { verdict: Some(VerdictWord::Failed), ..BuildFilter::default() };
            newest(of(&failed), is_own_failure)?.ok_or_else(|| Stop::wrong("no build has failed"))
        }
        text => {
            let number = text.strip_prefix('#').unwrap_or(text).parse().map(BuildId).map_err(|_| {
                Stop::wrong(format!(
                    "`{}` is no build: give its number, `last` or `last-failed`; a job comes after it",
                    crate::columns::one_line(text)
                ))
            })?;
            if let Some(build) = store.build(number)? {
                return Ok(build);
            }
            Err(Stop::wrong(match newest(of(&all), |_| true)? {
                Some(last) => {
                    format!("there is no build {number}; the newest is {} (see `ropewalk builds`)", last.build)
                }
                None => NO_BUILDS.to_owned(),
            }))
        }
    }
}

/// The job that `text` names among these, which are all of a build, in order.
///
/// # Errors
/// Clear words with the nearest name, or with the legs of a matrix.
pub fn job_among(build: BuildId, text: &str, names: &[JobName]) -> Result<JobName, Stop> {
    if let Some(name) = names.iter().find(|name| name.as_str() == text) {
        return Ok(name.clone());
    }
    let legs: Vec<&JobName> = names.iter().filter(|name| name.id() == text).collect();
    match legs.as_slice() {
        [leg] => Ok((*leg).clone()),
        [] => Err(Stop::wrong(unknown_job(build, text, names))),
        legs => {
            let listed: Vec<&str> = legs.iter().take(NAMES_LISTED_MAX).map(|leg| leg.as_str()).collect();
            let more = if legs.len() > listed.len() { ", …" } else { "" };
            Err(Stop::wrong(format!(
                "`{text}` has {} legs in build {build}: give one of {}{more}",
                legs.len(),
                listed.join(", ")
            )))
        }
    }
}

fn unknown_job(build: BuildId, text: &str, names: &[JobName]) -> String {
    let text = crate::columns::one_line(text);
    if names.is_empty() {
        return format!("build {build} has no jobs");
    }
    let ids = names.iter().map(JobName::id);
    if let Some(nearest) = dialects::suggest::nearest(&text, names.iter().map(JobName::as_str).chain(ids)) {
        return format!("build {build} has no job `{text}`: did you mean `{nearest}`?");
    }
    let mut ids: Vec<&str> = names.iter().map(JobName::id).collect();
    ids.dedup();
    let more = if ids.len() > NAMES_LISTED_MAX { ", …" } else { "" };
    ids.truncate(NAMES_LISTED_MAX);
    format!("build {build} has no job `{text}`: it has {}{more}", ids.join(", "))
}

#[cfg(test)]
pub mod kept;

#[cfg(test)]
mod tests {
    use store::MemoryStore;

    use super::*;
    use crate::places::kept::Kept;

    #[track_caller]
    fn check_build(store: &MemoryStore, text: &str, expected: Result<u64, &str>) {
        let found = find_build(store, text).map(|build| build.build.0).map_err(|stop| stop.message);
        assert_eq!(found, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn builds_are_found() {
        let mut kept = Kept::new();
        check_build(kept.store(), "last", Err(NO_BUILDS));
        kept.build(&["a"]).fail("a", 1).end();
        kept.build(&["a"]).pass("a", 10).end();
        check_build(kept.store(), "last", Ok(2));
        check_build(kept.store(), "last-failed", Ok(1));
        check_build(kept.store(), "#1", Ok(1));
        // What a job asked for is not what the user asked for last.
        kept.child(2, Waits::ForVerdict).fail("a", 1).end();
        check_build(kept.store(), "last", Ok(2));
        check_build(kept.store(), "last-failed", Ok(1));
        kept.child(2, Waits::No).fail("a", 1).end();
        check_build(kept.store(), "last", Ok(2));
        check_build(kept.store(), "last-failed", Ok(4));
        check_build(kept.store(), "3", Ok(3));
        check_build(kept.store(), "7", Err("there is no build 7; the newest is 4 (see `ropewalk builds`)"));
        check_build(
            kept.store(),
            "test",
            Err("`test` is no build: give its number, `last` or `last-failed`; a job comes after it"),
        );
    }

    #[test]
    fn jobs_are_found() {
        let mut kept = Kept::new();
        kept.build(&["build", "lint/x", "test/a", "test/b"]).pass("build", 1);
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = kept.places().job(BuildId(1), text).map_err(|stop| stop.message);
            assert_eq!(found, expected.map(JobName::from).map_err(str::to_owned), "{text}");
        };
        check("build", Ok("build"));
        check("test/b", Ok("test/b"));
        check("lint", Ok("lint/x"));
        check("test", Err("`test` has 2 legs in build 1: give one of test/a, test/b"));
        check("biuld", Err("build 1 has no job `biuld`: did you mean `build`?"));
        check("deploy", Err("build 1 has no job `deploy`: it has build, lint, test"));
    }
}
