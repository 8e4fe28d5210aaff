//! What a job takes from others and gives to others: artifacts, caches, reports.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use graph::nix::ARTIFACT_PREFIX;
use graph::{Artifact, CacheFound, CacheReport, CacheSaved, Failure, JobName, TestCase, TestName, WorkspaceKind};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Attempt, PHASE_MS_MIN, blocking, now};
use crate::artifacts;
use crate::cache::{Cache, Found, Owner, Places, Restored, Saved};
use crate::depot;
use crate::files;
use crate::patterns::Patterns;
use crate::place::Place;
use crate::reports::{self, Tests};

/// The most reports of one attempt that are read.
pub const REPORTS_MAX: usize = 10_000;

impl Attempt<'_> {
    pub(super) async fn restore_artifacts(&mut self, place: &Place) -> Result<(), ()> {
        let needed: Vec<(String, JobName, Artifact)> = self
            .spec
            .needs
            .iter()
            .flat_map(|(job, need)| {
                need.artifacts.iter().map(move |(name, artifact)| (name.clone(), job.clone(), artifact.clone()))
            })
            .collect();
        if needed.is_empty() {
            return Ok(());
        }
        let (root, depot) = (place.files().to_owned(), Arc::clone(&self.depot));
        let restored = blocking(move || {
            for (name, job, artifact) in needed {
                artifacts::restore(&artifact, &root, &*depot).map_err(|fault| {
                    let next = match fault.is_damage() {
                        true => format!("; run the build again, not this job alone: `{job}` makes it anew"),
                        false => String::new(),
                    };
                    format!("artifact `{name}` of `{job}` was not restored: {fault}{next}")
                })?;
            }
            Ok(())
        });
        restored.await.map_err(|message: String| self.fail(Failure::Infra { message }))
    }

    pub(super) async fn restore_caches(&mut self, place: &mut Place) -> Result<(), ()> {
        let job = Arc::clone(&self.spec.job);
        for declared in &job.cache {
            let mut restore = Vec::with_capacity(declared.restore.len());
            let key = self.evaluate(&declared.key).await;
            for prefix in &declared.restore {
                restore.push(self.evaluate(prefix).await.unwrap_or_default());
            }
            let key = key.map_err(|fault| self.break_word(format!("cache key {fault}")))?;
            restore.retain(|prefix| !prefix.is_empty());
            let cache = Cache { key, restore, paths: declared.paths.clone() };
            let mut began = now();
            let restored = self.restore_cache(&cache, place).await?;
            if let Some(at) = restored.looked_up.filter(|at| at.ms_since(began) >= PHASE_MS_MIN) {
                self.note_span("cache_looked_up", cache.key.clone(), began, at);
                began = at;
            }
            self.note_phase("cache_restored", cache.key.clone(), began);
            let (found, found_key) = match &restored.found {
                Found::Exact => (CacheFound::Key, cache.key.clone()),
                Found::Prefix(key) => (CacheFound::Prefix, key.clone()),
                Found::Missed => (CacheFound::Nothing, String::new()),
                Found::Refused(_) => (CacheFound::Refused, String::new()),
            };
            self.cache_reports.push(CacheReport {
                key: self.secrets.hide(cache.key.clone()),
                found,
                found_key: self.secrets.hide(found_key),
                found_bytes: restored.bytes,
                saved: CacheSaved::Not,
                saved_bytes: 0,
                put_bytes: 0,
            });
            self.caches.push((cache, restored));
        }
        Ok(())
    }

    /// Restores one cache, as a layer where that can be.
    async fn restore_cache(&mut self, cache: &Cache, place: &mut Place) -> Result<Restored, ()> {
        let mut places = self.places(place);
        places.layers = place.cache_layers(self.worker);
        loop {
            let (work, depot, trust) = (cache.clone(), Arc::clone(&self.depot), self.spec.event.trust);
            let with = places.clone();
            let restored = match blocking(move || work.restore(trust, &with, &*depot)).await {
                Ok(restored) => restored,
                Err(fault) => {
                    self.note(format!("cache `{}` was not restored: {fault}", cache.key));
                    return Ok(Restored::refused(&fault));
                }
            };
            if restored.layers.is_empty() {
                return Ok(restored);
            }
            match place.show(&restored.layers, self.worker).await {
                Ok(()) => return Ok(restored),
                Err(fault) if place.is_lost() => {
                    let message = format!("the workspace was lost while a cache was restored: {fault}");
                    self.fail(Failure::Infra { message });
                    return Err(());
                }
                // Its files are written into the workspace instead.
                Err(_) => places.layers = None,
            }
        }
    }

    fn places(&self, place: &Place) -> Places {
        let owner = match self.spec.job.workspace {
            WorkspaceKind::Isolated => Owner::Job,
            WorkspaceKind::InPlace => Owner::User,
        };
        let home = place.home(&self.environment);
        let records = Some(self.worker.settings.data.join("cache-records"));
        let workspace = place.files().to_owned();
        let sources = Some(place.sources(self.worker));
        Places { workspace, workspace_owner: owner, home, records, layers: None, sources }
    }

    /// A job that failed hands on what there is, for people; one that passed, what it declared.
    pub(super) async fn collect_artifacts(&mut self, place: &Place) {
        let job = Arc::clone(&self.spec.job);
        for (name, globs) in &job.artifacts {
            let (root, scratch) = (place.files().to_owned(), self.worker.scratch().to_owned());
            let (globs, depot) = (globs.clone(), Arc::clone(&self.depot));
            let built = self.nix.built.clone();
            let collected = blocking(move || match globs.iter().any(|glob| glob.starts_with(ARTIFACT_PREFIX)) {
                true => artifacts::collect_built(&built, &globs, &scratch, &*depot),
                false => artifacts::collect(&root, &globs, &scratch, &*depot),
            });
            match collected.await {
                Ok(collected) => {
                    for path in collected.left_out.iter().take(3) {
                        self.note(format!("artifact `{name}`: `{}` is no file and was left out", path.display()));
                    }
                    self.artifacts.insert(name.clone(), collected.artifact);
                }
                Err(_) if self.failure.is_some() => {}
                Err(fault) if fault.is_infrastructure() => {
                    self.fail(Failure::Infra { message: format!("artifact `{name}` was not kept: {fault}") });
                }
                Err(fault) => self.break_word(format!("artifact `{name}`: {fault}")),
            }
        }
    }

    pub(super) async fn read_reports(&mut self, place: &Place) {
        if self.spec.job.reports.junit.is_empty() {
            return;
        }
        let (root, globs) = (place.files().to_owned(), self.spec.job.reports.junit.clone());
        let known = Tests::before(std::mem::take(&mut self.tests));
        let (tests, notes) = blocking(move || read_junit(known, &root, &globs)).await;
        for note in notes {
            self.note(note);
        }
        if tests.dropped > 0 {
            let failed = match tests.dropped_failed {
                0 => "none of which failed".to_owned(),
                n => format!("{n} of which failed"),
            };
            let (n, tests_max) = (tests.dropped, reports::TESTS_MAX);
            self.note(format!("{n} tests of reports were passed over, {failed}: at most {tests_max} are kept"));
        }
        self.tests_cut |= tests.is_cut;
        self.tests = tests.cases.into_iter().map(|test| self.secrets_hidden(test)).collect();
        if self.failure.is_none() {
            self.note_failed_tests();
        }
    }

    /// Says which tests failed of a job whose steps passed.
    fn note_failed_tests(&mut self) {
        let mut failed = self.tests.iter().filter(|test| test.outcome.is_failure());
        let Some(first) = failed.next().map(TestName::from) else { return };
        let n = 1 + failed.count();
        let s = if n == 1 { "" } else { "s" };
        // A retry of single tests is judged by what it was asked for.
        let passes = if self.spec.asked.is_none() { "; the job passes, since its steps decide" } else { "" };
        self.note(format!("{n} test{s} of its reports failed, `{first}` among them{passes}"));
    }

    /// A test's texts without secrets.
    pub(super) fn secrets_hidden(&self, mut test: TestCase) -> TestCase {
        if self.secrets.mask.is_some() {
            for text in [&mut test.suite, &mut test.name, &mut test.message, &mut test.output] {
                *text = self.secrets.hide(std::mem::take(text));
            }
        }
        test
    }

    pub(super) async fn save_caches(&mut self, place: &Place) {
        for (number, (cache, restored)) in std::mem::take(&mut self.caches).into_iter().enumerate() {
            if restored.found == Found::Exact {
                continue;
            }
            let mut places = self.places(place);
            places.layers = place.cache_layers(self.worker);
            let (depot, trust, secrets) = (Arc::clone(&self.depot), self.spec.event.trust, self.secrets.clone());
            let key = cache.key.clone();
            let began = now();
            let saved = blocking(move || cache.save(trust, &places, &restored, &secrets, &*depot)).await;
            self.note_phase("cache_saved", key.clone(), began);
            if let Err(fault) = &saved {
                self.note(format!("cache `{key}` was not saved: {fault}"));
            }
            if let Ok(Saved { saved: depot::CacheSaved::Saved, missing, .. }) = &saved {
                missing.iter().for_each(|path| self.note(missing_note(&key, path)));
            }
            let Some(report) = self.cache_reports.get_mut(number) else { continue };
            report.saved = match &saved {
                Ok(Saved { saved: depot::CacheSaved::Saved, .. }) => CacheSaved::Written,
                Ok(Saved { saved: depot::CacheSaved::Existed, .. }) => CacheSaved::Kept,
                Err(_) => CacheSaved::Refused,
            };
            if let Ok(saved) = saved {
                (report.saved_bytes, report.put_bytes) = (saved.bytes, saved.put_bytes);
            }
        }
    }
}

/// What is said of a path of a cache that was saved without it.
fn missing_note(key: &str, path: &str) -> String {
    let pattern = path.chars().find(|letter| "*?[{".contains(*letter));
    let pattern =
        pattern.map(|letter| format!("; paths are taken as they are written, `{letter}` is no pattern in them"));
    format!("cache `{key}` was saved without `{path}`: nothing is there{}", pattern.unwrap_or_default())
}

/// Opens a report; `None` if it is a link to one of those that are `known` by device and inode, or becomes so. A link is followed within the project's
/// folder and nowhere else.
fn open_report(root: &Path, report: &files::Found, known: &mut HashSet<(u64, u64)>) -> io::Result<Option<File>> {
    if report.metadata.is_file() {
        return File::open(&report.place).map(Some);
    }
    let nowhere = "it is a link that leads to nothing, or to no file";
    let outside = "it is a link out of the project's folder, or with an absolute path; one within it by a relative path is followed";
    let root = File::open(root)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(&root, &report.path, flags, Mode::empty(), ResolveFlags::BENEATH);
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::XDEV) => return Err(io::Error::other(outside)),
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(io::Error::other(nowhere)),
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok(known.insert((metadata.dev(), metadata.ino())).then_some(file)),
        false => Err(io::Error::other(nowhere)),
    }
}

/// Reads all reports, and says what was wrong with which.
fn read_junit(mut tests: Tests, root: &Path, globs: &[String]) -> (Tests, Vec<String>) {
    let found = Patterns::new(globs).map_err(|fault| fault.to_string()).and_then(|patterns| {
        let found = files::find_without_git(root, &patterns, REPORTS_MAX).map_err(|fault| fault.to_string())?;
        Ok((patterns, found))
    });
    let (patterns, found) = match found {
        Ok(found) => found,
        Err(fault) => {
            tests.is_cut = true;
            return (tests, vec![format!("reports: {fault}")]);
        }
    };
    let mut notes = Vec::new();
    let paths: Vec<&Path> = found.iter().map(|found| found.path.as_path()).collect();
    let unmatched = patterns.unmatched(&paths);
    if !unmatched.is_empty() {
        notes.push(format!("no report matches `{}`", unmatched.join("`, `")));
    }
    let is_read = |found: &&files::Found| found.metadata.is_file() || found.metadata.is_symlink();
    let files = found.iter().filter(|found| found.metadata.is_file());
    let mut known = files.map(|found| (found.metadata.dev(), found.metadata.ino())).collect();
    for found in found.iter().filter(is_read) {
        let read = match open_report(root, found, &mut known) {
            Ok(None) => continue,
            Ok(Some(file)) => tests.read(std::io::BufReader::new(file)).map_err(|fault| fault.to_string()),
            Err(error) => {
                tests.is_cut = true;
                Err(error.to_string())
            }
        };
        if let Err(fault) = read {
            notes.push(format!("report `{}`: {fault}", found.path.display()));
        }
    }
    (tests, notes)
}
