//! Contents that this machine has, by digest: files of sources, artifacts and caches that were fetched or made here.
//! Bounded: what was not used for longest goes first, and what was not used for long goes. Losing any of it costs time only.
//!
//! A content is a plain file `<root>/<two digits>/<all 64 digits>`, with `x` behind it if it may be executed, so that
//! checkouts can be made of hard links. It comes into sight by a rename, whole, and is never written again. Its time of
//! modification is what the checkouts need that hold links to it; the time of its last access is when it was last used.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use graph::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

/// How much may be kept if nothing else is said.
pub const BYTES_MAX: u64 = 20 << 30;

/// What was not used for so long goes, however much room there is.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long after a sweep the next is due, however little has come.
const SWEPT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// To which part of the bound a sweep goes down, in percent.
const SWEPT_TO_PERCENT: u64 = 80;

/// What was used so shortly ago is not swept: an attempt is about to read it.
const SPARED: Duration = Duration::from_secs(600);

const INCOMING: &str = "incoming";

/// How a file of a content may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Read.
    Plain,
    /// Executed too.
    Program,
}

/// The contents of this machine. Several threads may use it at once.
#[derive(Debug)]
pub struct Contents {
    root: PathBuf,
    bytes_max: u64,
    /// What has come since the last sweep.
    come: AtomicU64,
    /// When the last sweep was; `None` before the first.
    swept: Mutex<Option<Instant>>,
    /// Whose turn it is to link a content that no tree has yet.
    fresh: Mutex<()>,
}

impl Contents {
    /// Opens the folder, making it if need be, and removes what was being written when a process died.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf, bytes_max: u64) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        // The lock of the data folder is ours: whoever wrote there is dead.
        let _ = fs::remove_dir_all(&incoming);
        fs::create_dir_all(&incoming)?;
        Ok(Self { root, bytes_max, come: AtomicU64::new(0), swept: Mutex::default(), fresh: Mutex::default() })
    }

    fn path(&self, digest: Digest, wanted: Use) -> PathBuf {
        let mut name = digest.to_hex();
        let folder = self.root.join(&name[..2]);
        if wanted == Use::Program {
            name.push('x');
        }
        folder.join(name)
    }

    /// Whether it is here, in any form.
    pub fn has(&self, digest: Digest) -> bool {
        self.found(digest).is_some()
    }

    /// Where it is, in any form. It may be swept away later.
    pub fn found(&self, digest: Digest) -> Option<PathBuf> {
        let forms = [Use::Plain, Use::Program].into_iter().map(|wanted| self.path(digest, wanted));
        forms.into_iter().find(|path| path.symlink_metadata().is_ok())
    }

    /// The content's file, for reading; `None` if it is not here.
    pub fn file(&self, digest: Digest) -> Option<File> {
        let found =
            [Use::Plain, Use::Program].into_iter().find_map(|wanted| File::open(self.path(digest, wanted)).ok());
        if let Some(file) = &found {
            let _ = rustix::fs::futimens(file, &used_now());
        }
        found
    }

    /// The content, if it is here and has at most `bytes_max` bytes.
    pub fn bytes(&self, digest: Digest, bytes_max: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(digest)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= bytes_max).then_some(bytes)
    }

    /// Removes a content that is not what its digest says, so that it is fetched again.
    pub fn remove_damaged(&self, digest: Digest) {
        for wanted in [Use::Plain, Use::Program] {
            let path = self.path(digest, wanted);
            let mut hasher = blake3::Hasher::new();
            let read = File::open(&path).and_then(|file| hasher.update_reader(file).map(drop));
            if read.is_ok() && *hasher.finalize().as_bytes() != digest.0 {
                // What cannot be removed is found damaged again.
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Keeps bytes under their digest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest(*blake3::hash(bytes).as_bytes());
        // What is here already is used again now.
        if self.file(digest).is_none() {
            let mut incoming = self.incoming()?;
            incoming.write(bytes)?;
            incoming.keep(digest)?;
        }
        Ok(digest)
    }

    /// Keeps what a file holds now. Its digest, and how long it is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put_file(&self, path: &Path) -> io::Result<(Digest, u64)> {
        let mut source = File::open(path)?;
        let mut incoming = self.incoming()?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => incoming.write(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = incoming.length;
        let digest = incoming.digest();
        incoming.keep(digest)?;
        Ok((digest, bytes))
    }

    /// A content that comes piece by piece.
    ///
    /// # Errors
    /// What the file system says.
    pub fn incoming(&self) -> io::Result<Incoming<'_>> {
        let file = tempfile::NamedTempFile::new_in(self.root.join(INCOMING))?;
        Ok(Incoming { contents: self, file, hasher: blake3::Hasher::new(), length: 0 })
    }

    /// Makes a file of the content at `path`, which does not exist: a hard link where that is possible, for trees that nobody
    /// writes to.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::NotFound`] if the content is not here.
    pub fn lay(&self, digest: Digest, wanted: Use, path: &Path) -> io::Result<()> {
        let own = self.path(digest, wanted);
        let mut linked = fs::hard_link(&own, path);
        if matches!(&linked, Err(error) if error.kind() == io::ErrorKind::NotFound) {
            self.make_form(digest, wanted)?;
            linked = fs::hard_link(&own, path);
        }
        match linked {
            Ok(()) => {
                let _ = rustix::fs::utimensat(CWD, &own, &used_now(), AtFlags::SYMLINK_NOFOLLOW);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Err(error),
            // Too many links, another file system, or links are not allowed.
            Err(_) => fs::copy(&own, path).map(drop),
        }
    }

    /// Makes a file of the content at `path`, which does not exist, that was modified at `at`, for trees that nobody writes to: a hard
    /// link if no other tree has the content, since all links have one time; else a copy.
    ///
    /// # Errors
    /// As [`Contents::lay`].
    pub fn lay_fresh(&self, digest: Digest, wanted: Use, path: &Path, at: SystemTime) -> io::Result<()> {
        let own = self.path(digest, wanted);
        {
            // Two that look and link at once would give one file two times.
            let _turn = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            let metadata = match fs::metadata(&own) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_form(digest, wanted)?;
                    fs::metadata(&own)?
                }
                other => other?,
            };
            let is_this_time = metadata.modified().is_ok_and(|modified| modified == at);
            if (metadata.nlink() == 1 || is_this_time) && fs::hard_link(&own, path).is_ok() {
                let times = Timestamps { last_access: time(0, UTIME_NOW), last_modification: time_of(at) };
                return Ok(rustix::fs::utimensat(CWD, &own, &times, AtFlags::SYMLINK_NOFOLLOW)?);
            }
        }
        fs::copy(&own, path)?;
        let _ = rustix::fs::utimensat(CWD, &own, &used_now(), AtFlags::SYMLINK_NOFOLLOW);
        File::open(path)?.set_modified(at)
    }

    /// Makes the one form of a content from the other.
    fn make_form(&self, digest: Digest, wanted: Use) -> io::Result<()> {
        let other = if wanted == Use::Plain { Use::Program } else { Use::Plain };
        let mut source = File::open(self.path(digest, other))?;
        let mut file = tempfile::NamedTempFile::new_in(self.root.join(INCOMING))?;
        let length = io::copy(&mut source, &mut file)?;
        self.come.fetch_add(length, Ordering::Relaxed);
        self.place(file, digest, wanted)
    }

    fn place(&self, file: tempfile::NamedTempFile, digest: Digest, wanted: Use) -> io::Result<()> {
        let mode = if wanted == Use::Program { 0o755 } else { 0o644 };
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        let path = self.path(digest, wanted);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
            _ => Ok(()),
        }
    }

    /// Whether so much has come, or so much time has gone, that a [`Contents::sweep`] is due.
    pub fn is_sweep_due(&self) -> bool {
        let swept = *self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        self.come.load(Ordering::Relaxed) > self.bytes_max / 20 || swept.is_none_or(|at| at.elapsed() > SWEPT_EVERY)
    }

    /// Removes what was not used for long, and what was not used for longest until the bound is kept; what checkouts still hold by links takes no room of
    /// its own and stays with them.
    pub fn sweep(&self) {
        self.come.store(0, Ordering::Relaxed);
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let kept = self.longest_unused();
        let mut total: u64 = kept.iter().map(|one| one.bytes).sum();
        let down_to = if total > self.bytes_max { self.bytes_max / 100 * SWEPT_TO_PERCENT } else { u64::MAX };
        let (spared, old) = (SystemTime::now() - SPARED, SystemTime::now() - KEPT);
        for one in kept {
            if one.used > spared || (total <= down_to && one.used > old) {
                break;
            }
            if fs::remove_file(one.path).is_ok() {
                total -= one.bytes;
            }
        }
    }

    /// Removes what was not used for longest until there is room, or nothing is left that may go; what checkouts hold by links stays, since it would
    /// make no room.
    pub fn sweep_until(&self, has_room: impl Fn() -> bool) {
        let spared = SystemTime::now() - SPARED;
        for one in self.longest_unused() {
            if one.used > spared || has_room() {
                break;
            }
            if one.links == 1 {
                // What cannot be removed is tried again later.
                let _ = fs::remove_file(one.path);
            }
        }
    }

    /// All that is here, what was not used for longest first.
    fn longest_unused(&self) -> Vec<KeptContent> {
        let mut kept = Vec::new();
        for folder in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if folder.file_name() == INCOMING {
                continue;
            }
            for entry in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if let Ok(metadata) = entry.metadata() {
                    let used = metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
                    let (bytes, links) = (metadata.len(), metadata.nlink());
                    kept.push(KeptContent { used, bytes, links, path: entry.path() });
                }
            }
        }
        kept.sort();
        kept
    }
}

/// A form of a content that is here.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct KeptContent {
    used: SystemTime,
    bytes: u64,
    links: u64,
    path: PathBuf,
}

fn used_now() -> Timestamps {
    Timestamps { last_access: time(0, UTIME_NOW), last_modification: time(0, UTIME_OMIT) }
}

fn time(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

/// A time as the system takes it; one before 1970 is 1970.
pub fn time_of(at: SystemTime) -> Timespec {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    time(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()))
}

/// A content on its way in; dropped, nothing is left of it.
pub struct Incoming<'c> {
    contents: &'c Contents,
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
    length: u64,
}

impl Incoming<'_> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// The digest of what has come.
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }

    /// Keeps what has come, if it is what it was to be.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if it is something else, and what the file system says.
    pub fn keep(self, expected: Digest) -> io::Result<()> {
        if self.digest() != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} arrived damaged", expected.short())));
        }
        self.contents.come.fetch_add(self.length, Ordering::Relaxed);
        self.contents.place(self.file, expected, Use::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(bytes_max: u64) -> (tempfile::TempDir, Contents) {
        let scratch = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(scratch.path().join("contents"), bytes_max).expect("it opens");
        (scratch, contents)
    }

    #[test]
    fn both_forms_are_laid() {
        let (scratch, contents) = contents(BYTES_MAX);
        let digest = contents.put(b"#!/bin/sh\n").expect("it is kept");
        for (name, wanted, mode) in [("a", Use::Plain, 0o644), ("b", Use::Program, 0o755), ("c", Use::Plain, 0o644)] {
            let path = scratch.path().join(name);
            contents.lay(digest, wanted, &path).expect("it is laid");
            assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, mode, "{name}");
        }
        let absent = Digest(*blake3::hash(b"absent").as_bytes());
        let error = contents.lay(absent, Use::Plain, &scratch.path().join("d")).expect_err("it is not here");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_arrives_damaged_is_not_kept() {
        let (_scratch, contents) = contents(BYTES_MAX);
        let digest = Digest(*blake3::hash(b"right").as_bytes());
        let mut incoming = contents.incoming().expect("it begins");
        incoming.write(b"wrong").expect("it is written");
        assert_eq!(incoming.keep(digest).expect_err("it is refused").kind(), io::ErrorKind::InvalidData);
        assert!(!contents.has(digest));
    }

    #[test]
    fn what_was_damaged_here_goes() {
        let (_scratch, contents) = contents(BYTES_MAX);
        let digest = contents.put(b"right").expect("it is kept");
        contents.remove_damaged(digest);
        assert!(contents.has(digest));
        fs::write(contents.path(digest, Use::Plain), b"wrong").expect("it is damaged");
        contents.remove_damaged(digest);
        assert!(!contents.has(digest));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let (_scratch, contents) = contents(1000);
        let [old, used, fresh] = [b"a", b"b", b"c"].map(|bytes| contents.put(&bytes.repeat(400)).expect("it is kept"));
        let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        for (digest, seconds) in [(old, 1_000), (used, 2_000)] {
            let times = Timestamps { last_access: time(seconds), last_modification: time(1) };
            let path = contents.path(digest, Use::Plain);
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).expect("a time");
        }
        contents.file(used).expect("it is here");
        contents.sweep();
        assert_eq!([old, used, fresh].map(|digest| contents.has(digest)), [false, true, true]);
    }

    #[test]
    fn without_room_what_was_not_used_for_longest_goes_unless_that_makes_none() {
        let (scratch, contents) = contents(BYTES_MAX);
        let names = [b"a", b"b", b"c", b"d"];
        let [linked, first, second, fresh] = names.map(|bytes| contents.put(bytes).expect("it is kept"));
        contents.lay(linked, Use::Plain, &scratch.path().join("tree")).expect("it is laid");
        for (digest, tv_sec) in [(linked, 1_000), (first, 2_000), (second, 3_000)] {
            let times =
                Timestamps { last_access: Timespec { tv_sec, tv_nsec: 0 }, last_modification: time(0, UTIME_OMIT) };
            rustix::fs::utimensat(CWD, contents.path(digest, Use::Plain), &times, AtFlags::empty()).expect("a time");
        }
        let here = || [linked, first, second, fresh].map(|digest| contents.has(digest));
        contents.sweep_until(|| !contents.has(first));
        assert_eq!(here(), [true, false, true, true]);
        contents.sweep_until(|| false);
        assert_eq!(here(), [true, false, false, true]);
    }
}
