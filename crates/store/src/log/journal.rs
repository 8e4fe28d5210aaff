//! What makes appends to many packs durable with one wait for the disk.
//!
//! Small appends of all builds go, once more, one behind the other into one file, which is synced for everybody who
//! waits ([`Group`]). The packs themselves are written without waiting. When a file of the journal is full, the packs
//! that it names are synced and it is deleted; after a loss of power what it holds is appended to the packs again,
//! which changes nothing where it is there already. An append too large for that ([`Wanted::Sync`]) waits for its pack.
//!
//! If the journal cannot be written, nothing is acknowledged until all packs it names have been synced, since a later
//! append may lean on one that is in its pack only.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use graph::BuildId;

use super::group::Group;
use super::pack::lock;
use super::{Batch, LogError, frame};

/// A file of the journal takes no more when it is this long.
pub const JOURNAL_BYTES_MAX: u64 = 32 * 1024 * 1024;

const DELETION_MAGIC: [u8; 4] = *b"RWd1";
const DELETION_BYTES: usize = 20;
const SUFFIX: &str = "journal";

/// What a caller wants to be durable.
pub(super) enum Wanted {
    /// These records, which change these packs.
    Records(Vec<u8>, BTreeSet<BuildId>),
    /// What is in these packs already.
    Sync(BTreeSet<BuildId>),
}

/// What the journal of a dead process tells.
pub(super) enum Record {
    Batch(Batch),
    Deletion(BuildId),
}

struct Segment {
    file: File,
    number: u64,
    length: u64,
    /// The packs that may not be on the disk though the journal names them.
    builds: BTreeSet<BuildId>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Broken,
}

/// See the head of this file. `sync` in its calls waits until a pack is on the disk; a pack that is gone is no error.
pub(super) struct Journal {
    folder: PathBuf,
    segment: Mutex<Segment>,
    group: Group<Wanted, ()>,
}

impl Journal {
    /// Tells what earlier processes left, in order, has the packs synced, and begins anew.
    pub fn open(
        folder: &Path,
        mut replay: impl FnMut(Record) -> Result<(), LogError>,
        sync: impl Fn(BuildId) -> Result<(), LogError>,
    ) -> Result<Self, LogError> {
        fs::create_dir_all(folder)?;
        let mut builds = BTreeSet::new();
        let numbers = numbers(folder)?;
        for number in &numbers {
            for record in records(&fs::read(path(folder, *number))?) {
                builds.insert(match &record {
                    Record::Batch(batch) => batch.build,
                    Record::Deletion(build) => *build,
                });
                replay(record)?;
            }
        }
        builds.into_iter().try_for_each(sync)?;
        for number in &numbers {
            fs::remove_file(path(folder, *number))?;
        }
        let segment = begin(folder, numbers.last().map_or(0, |last| last + 1))?;
        Ok(Self { folder: folder.to_owned(), segment: Mutex::new(segment), group: Group::default() })
    }

    /// Returns when it is on the disk, and with it everything that was given before.
    pub fn commit(&self, wanted: Wanted, sync: impl Fn(BuildId) -> Result<(), LogError>) -> Result<(), LogError> {
        self.group.commit(wanted, |group| {
            self.write(group, &sync)?;
            Ok(vec![(); group.len()])
        })?;
        // Whether the old file can be deleted now or later changes nothing for the caller.
        let _ = self.turn_page(&sync);
        Ok(())
    }

    fn write(&self, group: &[Wanted], sync: &impl Fn(BuildId) -> Result<(), LogError>) -> Result<(), LogError> {
        let mut segment = lock(&self.segment);
        if segment.state == State::Broken {
            segment.builds.iter().copied().try_for_each(sync)?;
            let builds = std::mem::take(&mut segment.builds);
            *segment = begin(&self.folder, segment.number + 1).inspect_err(|_| segment.builds = builds)?;
        }
        let mut bytes = Vec::new();
        let mut synced = BTreeSet::new();
        for wanted in group {
            match wanted {
                Wanted::Records(records, builds) => {
                    bytes.extend_from_slice(records);
                    segment.builds.extend(builds);
                }
                Wanted::Sync(builds) => synced.extend(builds.iter().copied()),
            }
        }
        let written = if bytes.is_empty() { Ok(()) } else { segment.append(&bytes) };
        let written = written.and_then(|()| synced.iter().copied().try_for_each(sync));
        if written.is_err() {
            segment.builds.extend(synced);
            segment.state = State::Broken;
        }
        written
    }

    /// If the file is full: begins the next, has the packs synced, and deletes all earlier ones.
    fn turn_page(&self, sync: &impl Fn(BuildId) -> Result<(), LogError>) -> Result<(), LogError> {
        let mut segment = lock(&self.segment);
        if segment.length < JOURNAL_BYTES_MAX || segment.state == State::Broken {
            return Ok(());
        }
        let next = begin(&self.folder, segment.number + 1)?;
        let full = std::mem::replace(&mut *segment, next);
        drop(segment);
        if let Err(error) = full.builds.iter().copied().try_for_each(sync) {
            lock(&self.segment).builds.extend(full.builds);
            return Err(error);
        }
        for number in numbers(&self.folder)?.into_iter().filter(|number| *number <= full.number) {
            fs::remove_file(path(&self.folder, number))?;
        }
        Ok(())
    }
}

impl Segment {
    fn append(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        self.file.write_all_at(bytes, self.length)?;
        self.file.sync_data()?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:016}.{SUFFIX}"))
}

fn begin(folder: &Path, number: u64) -> Result<Segment, LogError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path(folder, number))?;
    File::open(folder)?.sync_all()?;
    Ok(Segment { file, number, length: 0, builds: BTreeSet::new(), state: State::Whole })
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number: Option<u64> = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        numbers.extend(number.filter(|_| path.extension().is_some_and(|suffix| suffix == SUFFIX)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The record that a pack is to be deleted.
pub(super) fn deletion(build: BuildId) -> Vec<u8> {
    let mut record = DELETION_MAGIC.to_vec();
    record.extend_from_slice(&build.0.to_le_bytes());
    record.extend_from_slice(&frame::sum(&record).to_le_bytes());
    record
}

/// As far as they are whole; what comes after was never acknowledged.
fn records(bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let deletion_here = bytes[at..].first_chunk::<DELETION_BYTES>().filter(|chunk| chunk[..4] == DELETION_MAGIC);
        if let Some(chunk) = deletion_here {
            let build = chunk[4..12].iter().rev().fold(0, |build: u64, byte| build << 8 | u64::from(*byte));
            if *chunk != *deletion(BuildId(build)) {
                break;
            }
            records.push(Record::Deletion(BuildId(build)));
            at += DELETION_BYTES;
            continue;
        }
        let Ok((batch, length)) = Batch::decode(bytes, at) else { break };
        records.push(Record::Batch(batch));
        at += length;
    }
    records
}
