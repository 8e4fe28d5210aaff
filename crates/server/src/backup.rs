//! Copies of a whole server, made while it runs: the database as one file, the blobs that it names, the logs, the keys and the
//! settings; how they are verified, and put back.
//!
//! ```text
//! TO/backup.json         what this is; written last: a folder without it is no backup
//!    records/ropewalk.db the database, one state of it; of PostgreSQL too
//!    blobs/<2>/<64>      what the database names, as `DirectoryBlobs` keeps it, wherever its folder is; not of a bucket
//!    blobs.list          their digests, one a line, sorted
//!    logs/<2>/<build>.log
//!    logs.list           for each: file, bytes, digest of so many bytes
//!    keys/*.key          who has them has the server: mode 600
//!    settings.toml       mode 600, as it may hold passwords
//! ```
//!
//! Blobs and the logs of ended builds never change, so that they are hard links where the file system allows. A log may
//! grow behind what is counted here, and so may its link; what is behind is not part of the backup.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::{BuildId, Digest, JobName, Timestamp, with_causes};
use serde::{Deserialize, Serialize};
use store::blob::{self, BlobError, Blobs, DirectoryBlobs, Verify};
use store::log::{LogReader, Writing};
use store::record::Expect;
use store::{
    BackupFile, BuildFilter, DATABASE_FILE, PAGE_ROWS_MAX, Portable, Store, StoreError, restore_backup, verify_backup,
};

use crate::damaged_logs::damage_of;
use crate::lost_logs::{lost_logs, numbers};
use crate::named::Mentions;
use crate::owner::{self, OwnerError};
use crate::parts::{Database, PartError, Places, fresh_id, open_blobs_beside, open_database};
use crate::records::Records;
use crate::settings::Settings;

/// The newest form of backups that is understood; it is written where the first one would mislead: of blobs in a folder of their own
/// ([`Description::blobs_folder`]), which programs that know the first form only would not put back there.
pub const VERSION: u32 = 2;
/// The form that is written otherwise.
const FIRST_VERSION: u32 = 1;
/// Nothing is removed while a backup is made; one that takes longer than this has died.
pub const UNDER_WAY_MAX_MS: u64 = 24 * 60 * 60 * 1000;
/// The most faults that a verification tells one by one; it counts them all.
pub const FAULTS_TOLD_MAX: usize = 100;
/// The largest description of a backup in bytes.
const DESCRIPTION_BYTES_MAX: u64 = 1 << 20;
/// The keys of a server, as far as they are there.
pub const KEYS: [&str; 2] = [crate::access::ROOT_KEY_FILE, crate::access::SEALING_KEY_FILE];

const DESCRIPTION: &str = "backup.json";
const BLOBS_LIST: &str = "blobs.list";
const LOGS_LIST: &str = "logs.list";
const SETTINGS: &str = "settings.toml";
/// The kind of the records that say that a backup is made.
const UNDER_WAY: &str = "backup";
/// How much is copied and hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// See [`VERSION`].
    pub version: u32,
    /// The Ropewalk that made it.
    pub made_by: String,
    /// When it was begun.
    pub at: Timestamp,
    /// The digest of the database's file.
    pub database: Digest,
    /// Its size.
    pub database_bytes: u64,
    /// The version of its schema.
    pub schema: u32,
    /// Its builds.
    pub builds: u64,
    /// Their facts.
    pub facts: u64,
    /// Where the blobs are.
    pub blobs_in: BlobsIn,
    /// The folder outside of the data folder from which they are, if they are in the backup: they are put back there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs_folder: Option<PathBuf>,
    /// How many are named.
    pub blobs: u64,
    /// What they take as they are kept here.
    pub blobs_bytes: u64,
    /// How many of them were not there when this was made: the server had lost them before.
    #[serde(default)]
    pub blobs_missing: u64,
    /// The digest of the list of blobs.
    pub blobs_list: Digest,
    /// How many logs.
    pub logs: u64,
    /// Their bytes.
    pub logs_bytes: u64,
    /// The digest of the list of logs.
    pub logs_list: Digest,
    /// How many builds had no log any more when this was made though they had printed lines: the server had lost them before. Old readers pass over
    /// it; old writers did not look.
    #[serde(default)]
    pub logs_missing: u64,
    /// Which, at most [`FAULTS_TOLD_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs_missing_of: Vec<BuildId>,
    /// How many builds had a log that was damaged when this was made. Old readers pass over it; old writers did not look.
    #[serde(default)]
    pub logs_damaged: u64,
    /// Which, at most [`FAULTS_TOLD_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs_damaged_of: Vec<BuildId>,
    /// The files of keys.
    pub keys: Vec<String>,
    /// Whether there was a file of settings.
    pub settings: FileKept,
}

impl Description {
    /// Whether the server had all that it names when this was made.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.blobs_missing == 0 && self.logs_missing == 0 && self.logs_damaged == 0
    }
}

/// Where the blobs of a backup are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobsIn {
    /// In the backup.
    Backup,
    /// In the bucket that the settings name, which is to be kept by its own means.
    Bucket,
}

/// Whether a file is part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKept {
    /// It is.
    Yes,
    /// There was none.
    No,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What the backup says of itself.
    pub description: Description,
    /// What is wrong, at most [`FAULTS_TOLD_MAX`], each a sentence.
    pub faults: Vec<String>,
    /// How many are wrong.
    pub n_faults: u64,
}

/// Why a backup cannot be made, read or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The place is taken.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The folder holds no backup.
    #[error("{} holds no whole backup: {why}", folder.display())]
    NoBackup {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// A part of the server cannot be opened.
    #[error(transparent)]
    Part(#[from] PartError),
    /// The database refused.
    #[error("the database cannot be copied or read")]
    Store(#[from] StoreError),
    /// The blobs refused.
    #[error("the blobs cannot be copied or read")]
    Blobs(#[from] BlobError),
    /// It cannot be noted whose the blobs are.
    #[error("cannot note whose the blobs are")]
    Owner(#[from] OwnerError),
    /// The file system refused.
    #[error("cannot use {}", path.display())]
    File {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + '_ {
    |source| BackupError::File { path: path.to_owned(), source }
}

/// Whether a backup is being made of what this store names.
///
/// # Errors
/// As the store refuses.
pub fn is_under_way(store: &dyn Store, now: Timestamp) -> Result<bool, StoreError> {
    let records = store.records(UNDER_WAY, None, store::PAGE_ROWS_MAX)?;
    Ok(records.iter().any(|record| now.ms_since(record.at) < UNDER_WAY_MAX_MS))
}

/// Keeps a server from removing what is being copied.
struct UnderWay<'a> {
    store: &'a dyn Store,
    key: String,
}

impl<'a> UnderWay<'a> {
    fn begin(store: &'a dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        // Those that died long ago are of no more use.
        for record in store.records(UNDER_WAY, None, store::PAGE_ROWS_MAX)? {
            if now.ms_since(record.at) >= UNDER_WAY_MAX_MS {
                store.delete_record(UNDER_WAY, &record.key, Expect::Any)?;
            }
        }
        let key = fresh_id();
        store.put_record(UNDER_WAY, &key, b"{}", Expect::Absent, now)?;
        Ok(Self { store, key })
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // What stays is heeded for a day, then removed by the next backup.
        let _ = self.store.delete_record(UNDER_WAY, &self.key, Expect::Any);
    }
}

/// Copies the server with this data folder into the folder `to`, which must be empty or not there, while it runs.
/// `settings_file` is copied too, if there is one.
///
/// # Errors
/// [`BackupError`]; what was copied until then is no backup.
pub fn make(
    settings: &Settings,
    data: &Path,
    settings_file: Option<&Path>,
    to: &Path,
    now: Timestamp,
) -> Result<Description, BackupError> {
    make_empty(to)?;
    let database = open_database(settings, data)?;
    let _under_way = UnderWay::begin(&*database, now)?;
    let file = Places::of(to).records().join(DATABASE_FILE);
    make_folder(&Places::of(to).records())?;
    let copied = Portable::backup(&*database, &file)?;
    let (digest, _) = read_whole(&file, u64::MAX).map_err(at(&file))?;
    let names = BackupFile::open(&file)?;
    let named = Mentions::of_backup(&names)?.resolve(&*open_blobs_beside(settings, data)?)?;
    let blobs = copy_blobs(settings, data, to, &named.blobs)?;
    let logs = copy_logs(data, to, &names)?;
    let lost = lost_logs(&*database, &Places::of(data).logs(), u64::MAX)?;
    let damaged = damaged_logs(&*database, data, &names)?;
    let keys = copy_keys(data, &to.join("keys"))?;
    let settings_kept = match settings_file.filter(|file| file.exists()) {
        Some(file) => {
            copy_secret(file, &to.join(SETTINGS)).map_err(at(file))?;
            FileKept::Yes
        }
        None => FileKept::No,
    };
    let blobs_folder = settings.blobs_url.other_folder().map(Path::to_owned);
    let description = Description {
        version: if blobs_folder.is_some() { VERSION } else { FIRST_VERSION },
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        at: now,
        database: digest,
        database_bytes: copied.bytes,
        schema: copied.version,
        builds: copied.builds,
        facts: copied.facts,
        blobs_in: blobs.place,
        blobs_folder,
        blobs: named.blobs.len() as u64,
        blobs_bytes: blobs.bytes,
        blobs_missing: blobs.missing,
        blobs_list: blobs.list,
        logs: logs.count,
        logs_bytes: logs.bytes,
        logs_list: logs.list,
        logs_missing: lost.len() as u64,
        logs_missing_of: lost.into_iter().take(FAULTS_TOLD_MAX).collect(),
        logs_damaged: damaged.len() as u64,
        logs_damaged_of: damaged.into_iter().take(FAULTS_TOLD_MAX).collect(),
        keys,
        settings: settings_kept,
    };
    finish(to, &description)?;
    Ok(description)
}

/// Has all of it on the disk, then says that it is whole.
fn finish(to: &Path, description: &Description) -> Result<(), BackupError> {
    let folder = File::open(to).map_err(at(to))?;
    rustix::fs::syncfs(&folder).map_err(|error| at(to)(error.into()))?;
    let path = to.join(DESCRIPTION);
    // Our own types serialize to JSON whatever they hold.
    let text = serde_json::to_vec_pretty(description).expect("a description always serializes");
    let fresh = to.join("backup.json.new");
    write_new(&fresh, 0o600, &mut &text[..]).map_err(at(&fresh))?;
    fs::rename(&fresh, &path).map_err(at(&path))?;
    folder.sync_all().map_err(at(to))
}

struct CopiedBlobs {
    place: BlobsIn,
    bytes: u64,
    missing: u64,
    list: Digest,
}

fn copy_blobs(settings: &Settings, data: &Path, to: &Path, named: &[Digest]) -> Result<CopiedBlobs, BackupError> {
    let own = Places::of(data).blobs();
    let (place, from) = match settings.blobs_url.other_folder() {
        Some(folder) => (BlobsIn::Backup, folder),
        None if settings.blobs_url.0 == "directory" => (BlobsIn::Backup, own.as_path()),
        None => (BlobsIn::Bucket, own.as_path()),
    };
    let target = Places::of(to).blobs();
    let (mut bytes, mut missing, mut list) = (0, 0, String::new());
    if place == BlobsIn::Backup {
        // As a place of blobs is when it is opened, so that looking through it changes nothing.
        make_folder(&target.join("incoming"))?;
    }
    for digest in named {
        // Writing to a text cannot fail.
        let _ = writeln!(list, "{}", digest.to_hex());
        if place == BlobsIn::Backup {
            match take_blob(from, &target, *digest)? {
                Some(taken) => bytes += taken,
                None => missing += 1,
            }
        }
    }
    let path = to.join(BLOBS_LIST);
    write_new(&path, 0o600, &mut list.as_bytes()).map_err(at(&path))?;
    Ok(CopiedBlobs { place, bytes, missing, list: blob::digest(list.as_bytes()) })
}

/// Puts a blob's file under its name in another folder of blobs. `None` if it is not there.
fn take_blob(from: &Path, to: &Path, digest: Digest) -> Result<Option<u64>, BackupError> {
    for (source, target) in blob_files(from, digest).into_iter().zip(blob_files(to, digest)) {
        match fs::metadata(&source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&source)(error)),
            Ok(metadata) => {
                link_or_copy(&source, &target, 0o444)?;
                return Ok(Some(metadata.len()));
            }
        }
    }
    Ok(None)
}

/// A file that does not change, or only grows.
fn link_or_copy(from: &Path, to: &Path, mode: u32) -> Result<(), BackupError> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut file = File::open(from).map_err(at(from))?;
    write_new(to, mode, &mut file).map_err(at(to))
}

struct CopiedLogs {
    count: u64,
    bytes: u64,
    list: Digest,
}

fn copy_logs(data: &Path, to: &Path, names: &BackupFile) -> Result<CopiedLogs, BackupError> {
    let (from, target) = (Places::of(data).logs(), Places::of(to).logs());
    let (mut count, mut all_bytes, mut list) = (0, 0, String::new());
    make_folder(&target)?;
    for (build, path) in packs(&from).map_err(at(&from))? {
        // A build that came after the database was copied, or that is being removed.
        if !names.has_build(build)? {
            continue;
        }
        let Ok(relative) = path.strip_prefix(&from) else { continue };
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path)(error)),
        };
        let copy = target.join(relative);
        link_or_copy(&path, &copy, 0o600)?;
        let (digest, bytes) = read_whole(&copy, length).map_err(at(&copy))?;
        let _ = writeln!(list, "{} {bytes} {}", relative.display(), digest.to_hex());
        (count, all_bytes) = (count + 1, all_bytes + bytes);
    }
    let path = to.join(LOGS_LIST);
    write_new(&path, 0o600, &mut list.as_bytes()).map_err(at(&path))?;
    Ok(CopiedLogs { count, bytes: all_bytes, list: blob::digest(list.as_bytes()) })
}

/// The builds of a copy that have ended and whose logs are not whole.
fn damaged_logs(store: &dyn Database, data: &Path, names: &BackupFile) -> Result<Vec<BuildId>, BackupError> {
    let from = Places::of(data).logs();
    let mut damaged = Vec::new();
    for (build, path) in packs(&from).map_err(at(&from))? {
        let has_ended = store.build(build)?.is_some_and(|row| row.finished.is_some());
        if has_ended && names.has_build(build)? && damage_of(store, build, &path).is_some() {
            damaged.push(build);
        }
    }
    Ok(damaged)
}

/// The packs of logs below a folder, by build; copies of those that stand in blobs are left out.
///
/// # Errors
/// As the file system refuses; a folder that is not there has none.
pub(crate) fn packs(root: &Path) -> io::Result<Vec<(BuildId, PathBuf)>> {
    let mut packs = Vec::new();
    let folders = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(packs),
        folders => folders?,
    };
    for folder in folders {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(folder.path())? {
            let path = file?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
            packs.extend(number.map(|number| (BuildId(number), path)));
        }
    }
    packs.sort_unstable();
    Ok(packs)
}

fn copy_keys(from: &Path, to: &Path) -> Result<Vec<String>, BackupError> {
    make_folder(to)?;
    let mut keys = Vec::new();
    for key in KEYS {
        let path = from.join(key);
        match copy_secret(&path, &to.join(key)) {
            Ok(()) => keys.push(key.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
    }
    Ok(keys)
}

fn copy_secret(from: &Path, to: &Path) -> io::Result<()> {
    write_new(to, 0o600, &mut File::open(from)?)
}

/// Looks through a backup: whether each part of it is there, and is what it was. Changes nothing.
///
/// # Errors
/// [`BackupError`] if it cannot be looked through at all; what is wrong with a part is among the faults.
pub fn verify(folder: &Path) -> Result<Verified, BackupError> {
    let description = describe(folder)?;
    let mut faults = Faults::default();
    verify_database(folder, &description, &mut faults)?;
    verify_blobs(folder, &description, &mut faults)?;
    verify_logs(folder, &description, &mut faults)?;
    for key in &description.keys {
        let path = folder.join("keys").join(key);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
                faults
                    .add(format!("the key `{key}` may be read by others than its owner: chmod 600 {}", path.display()));
            }
            Ok(_) => {}
            Err(error) => faults.add(format!("the key `{key}` cannot be read: {error}")),
        }
    }
    if description.settings == FileKept::Yes && !folder.join(SETTINGS).is_file() {
        faults.add("the file of settings is missing".to_owned());
    }
    if description.blobs_missing > 0 {
        let missing = description.blobs_missing;
        faults.add(format!("{missing} blobs were missing on the server already when the backup was made"));
    }
    if description.logs_missing > 0 {
        let (missing, of) = (description.logs_missing, &description.logs_missing_of);
        faults.add(format!(
            "logs of {missing} builds were gone on the server already when the backup was made: {}",
            numbers(of, missing)
        ));
    }
    if description.logs_damaged > 0 {
        let (damaged, of) = (description.logs_damaged, &description.logs_damaged_of);
        faults.add(format!(
            "logs of {damaged} builds were damaged on the server already when the backup was made: {}",
            numbers(of, damaged)
        ));
    }
    Ok(Verified { description, n_faults: faults.count, faults: faults.told })
}

#[derive(Default)]
struct Faults {
    told: Vec<String>,
    count: u64,
}

impl Faults {
    fn add(&mut self, fault: String) {
        self.count += 1;
        if self.told.len() < FAULTS_TOLD_MAX {
            self.told.push(fault);
        }
    }
}

/// What a backup says of itself.
///
/// # Errors
/// [`BackupError::NoBackup`].
pub fn describe(folder: &Path) -> Result<Description, BackupError> {
    let no = |why: String| BackupError::NoBackup { folder: folder.to_owned(), why };
    let path = folder.join(DESCRIPTION);
    let file = File::open(&path).map_err(|error| no(format!("{DESCRIPTION}: {error}")))?;
    let mut text = Vec::new();
    file.take(DESCRIPTION_BYTES_MAX).read_to_end(&mut text).map_err(|error| no(format!("{DESCRIPTION}: {error}")))?;
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(&text).map_err(|error| no(format!("{DESCRIPTION}: {error}")))?;
    if head.version > VERSION {
        let newer = head.version;
        return Err(no(format!("it has form {newer}, and this program knows forms up to {VERSION}; update Ropewalk")));
    }
    serde_json::from_slice(&text).map_err(|error| no(format!("{DESCRIPTION}: {error}")))
}

fn verify_database(folder: &Path, description: &Description, faults: &mut Faults) -> Result<(), BackupError> {
    let file = Places::of(folder).records().join(DATABASE_FILE);
    match read_whole(&file, u64::MAX) {
        Ok((digest, _)) if digest == description.database => {}
        Ok(_) => faults.add("the database is not what it was".to_owned()),
        Err(error) => {
            faults.add(format!("the database cannot be read: {error}"));
            return Ok(());
        }
    }
    match verify_backup(&file) {
        Ok(found) if (found.builds, found.facts) == (description.builds, description.facts) => {}
        Ok(found) => faults.add(format!(
            "the database holds {} builds and {} facts, not {} and {}",
            found.builds, found.facts, description.builds, description.facts
        )),
        Err(error) => faults.add(with_causes(&error)),
    }
    Ok(())
}

fn verify_blobs(folder: &Path, description: &Description, faults: &mut Faults) -> Result<(), BackupError> {
    let listed = list(folder, BLOBS_LIST, description.blobs_list, faults);
    let listed: Vec<Digest> = listed.iter().filter_map(|line| line.parse().ok()).collect();
    if listed.len() as u64 != description.blobs {
        faults.add(format!("the list of blobs names {}, not {}", listed.len(), description.blobs));
    }
    if description.blobs_in == BlobsIn::Bucket {
        return Ok(());
    }
    let blobs = DirectoryBlobs::open(&Places::of(folder).blobs(), blob::Durability::Process, Verify::Always)?;
    for digest in &listed {
        if let Err(fault) = read_blob(&blobs, *digest) {
            faults.add(format!("{fault} ({})", digest.to_hex()));
        }
    }
    // What the database names was listed.
    let file = Places::of(folder).records().join(DATABASE_FILE);
    let names = BackupFile::open(&file).and_then(|file| Mentions::of_backup(&file));
    if let Ok(names) = names {
        let named = names.resolve(&blobs)?;
        let unlisted = named.blobs.iter().filter(|digest| listed.binary_search(digest).is_err()).count();
        if unlisted > 0 {
            faults.add(format!("the database names {unlisted} blobs that the backup does not list"));
        }
    }
    Ok(())
}

/// Reads a blob to its end; what is wrong with it.
///
/// # Errors
/// A sentence.
pub(crate) fn read_blob(blobs: &dyn Blobs, digest: Digest) -> Result<(), String> {
    let mut content = blobs.open(digest).map_err(|error| with_causes(&error))?;
    io::copy(&mut content, &mut io::sink()).map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => BlobError::Damaged(digest).to_string(),
        _ => format!("the blob {} cannot be read: {error}", digest.short()),
    })
}

fn verify_logs(folder: &Path, description: &Description, faults: &mut Faults) -> Result<(), BackupError> {
    let listed = list(folder, LOGS_LIST, description.logs_list, faults);
    if listed.len() as u64 != description.logs {
        faults.add(format!("the list of logs names {}, not {}", listed.len(), description.logs));
    }
    let root = Places::of(folder).logs();
    for line in listed {
        let Some(log) = ListedLog::parse(&line) else {
            faults.add(format!("the list of logs has a line that is none: {line}"));
            continue;
        };
        let path = root.join(&log.file);
        match read_whole(&path, log.bytes) {
            Err(error) => faults.add(format!("the log {} cannot be read: {error}", log.file)),
            Ok((digest, bytes)) if digest != log.digest || bytes != log.bytes => {
                faults.add(format!("the log {} is damaged", log.file));
            }
            Ok(_) => {
                if let Err(error) = LogReader::open(&path, Writing::Going) {
                    faults.add(format!("the log {}: {}", log.file, with_causes(&error)));
                }
            }
        }
    }
    Ok(())
}

/// A line of the list of logs.
struct ListedLog {
    /// Below the folder of logs: two digits, a number.
    file: String,
    bytes: u64,
    digest: Digest,
}

impl ListedLog {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let (file, bytes, digest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        // Nothing outside of the folder is named, whoever wrote the list.
        let (folder, name) = file.split_once('/')?;
        let is_plain = folder.chars().all(|digit| digit.is_ascii_hexdigit())
            && name.strip_suffix(".log")?.chars().all(|digit| digit.is_ascii_digit());
        is_plain.then(|| Self { file: file.to_owned(), bytes, digest })
    }

    fn build(&self) -> Option<BuildId> {
        let name = self.file.rsplit('/').next()?;
        name.strip_suffix(".log")?.parse().ok().map(BuildId)
    }

    /// What becomes of it; `None` if it is what it was.
    fn gap(&self, logs: &Path) -> Option<LogGap> {
        let path = logs.join(&self.file);
        let is_whole =
            read_whole(&path, self.bytes).is_ok_and(|(digest, bytes)| (digest, bytes) == (self.digest, self.bytes));
        match LogReader::open(&path, Writing::Going) {
            Ok(_) if is_whole => None,
            Ok(_) => Some(LogGap::Kept),
            Err(_) => Some(LogGap::Lost),
        }
    }
}

/// The lines of a list that is part of a backup.
fn list(folder: &Path, name: &str, digest: Digest, faults: &mut Faults) -> Vec<String> {
    let path = folder.join(name);
    match read_whole(&path, u64::MAX) {
        Ok((found, _)) if found == digest => {}
        Ok(_) => faults.add(format!("`{name}` is not what it was")),
        Err(error) => {
            faults.add(format!("`{name}` cannot be read: {error}"));
            return Vec::new();
        }
    }
    match File::open(&path).and_then(|file| BufReader::new(file).lines().collect()) {
        Ok(lines) => lines,
        Err(error) => {
            faults.add(format!("`{name}` cannot be read: {error}"));
            Vec::new()
        }
    }
}

/// A backup that was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it says of itself.
    pub description: Description,
    /// Where its blobs are now.
    pub blobs: BlobsPut,
    /// What could not be put back; nothing of a backup that is whole.
    pub gaps: Gaps,
}

/// Where the blobs of a backup were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobsPut {
    /// Where the server had them: its settings find them. Of a bucket nothing was put anywhere.
    Back,
    /// In the data folder, since the folder where the server had them cannot be used.
    Beside {
        /// That folder.
        folder: PathBuf,
        /// Why not, to stand after it.
        why: String,
    },
}

/// Puts a backup, which has been verified, into the data folder `data`, which must be empty or not there; its blobs where the server had
/// them, see [`Description::blobs_folder`].
///
/// # Errors
/// [`BackupError`]; `data` is as it was then. Blobs that came into a folder of their own stay there.
pub fn restore(folder: &Path, data: &Path) -> Result<Restored, BackupError> {
    let description = describe(folder)?;
    fill(data, || restore_described(folder, data, description))
}

/// Does `work` with the folder `data`, which must be empty or not there; if it fails, nothing of it stays.
fn fill<T>(data: &Path, work: impl FnOnce() -> Result<T, BackupError>) -> Result<T, BackupError> {
    let was_there = data.exists();
    make_empty(data)?;
    work().inspect_err(|_| {
        // What cannot be removed is in the way of the next one, which names it.
        let left = fs::read_dir(data).into_iter().flatten().flatten();
        left.for_each(|left| {
            let is_folder = left.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_folder { fs::remove_dir_all(left.path()) } else { fs::remove_file(left.path()) };
        });
        if !was_there {
            let _ = fs::remove_dir(data);
        }
    })
}

fn restore_described(folder: &Path, data: &Path, description: Description) -> Result<Restored, BackupError> {
    restore_records(folder, data)?;
    let (from, to) = (Places::of(folder), Places::of(data));
    let digests = blobs_in(folder, data, &description)?;
    let target = BlobsTarget::find(data, &description, &digests);
    begin_anew(data, &description, &target)?;
    for digest in digests {
        target.put(&from.blobs(), digest)?;
    }
    make_folder(&to.logs())?;
    for log in listed_logs(folder, &description) {
        restore_log(&log, &from.logs(), &to.logs())?;
    }
    for (path, copy) in secrets_of(folder, data, &description) {
        copy_secret(&path, &copy).map_err(at(&path))?;
    }
    sync(data)?;
    target.sync()?;
    Ok(Restored { description, blobs: target.put, gaps: Gaps::default() })
}

/// Where blobs are put back.
struct BlobsTarget {
    folder: PathBuf,
    /// What is there already; nothing in a new data folder.
    there: Option<DirectoryBlobs>,
    /// Whether nothing was there.
    is_fresh: bool,
    put: BlobsPut,
}

impl BlobsTarget {
    /// The folder where the server had them if it is empty, not there, or holds some of them; else one in the data folder. In a folder with blobs of
    /// another server each of both would remove what the other names.
    fn find(data: &Path, description: &Description, digests: &[Digest]) -> Self {
        let own = |put| Self { folder: Places::of(data).blobs(), there: None, is_fresh: true, put };
        let Some(folder) = description.blobs_folder.clone().filter(|_| description.blobs_in == BlobsIn::Backup) else {
            return own(BlobsPut::Back);
        };
        let beside = |why: String| own(BlobsPut::Beside { folder: folder.clone(), why });
        let is_fresh = is_unused(&folder);
        if !is_fresh && !digests.iter().any(|digest| has_blob(&folder, *digest)) {
            return beside("holds something else".to_owned());
        }
        let opened = make_folder(&folder).map_err(|error| with_causes(&error)).and_then(|()| {
            let opened = DirectoryBlobs::open(&folder, blob::Durability::Process, Verify::Always);
            opened.map_err(|error| with_causes(&error))
        });
        match opened {
            Ok(there) => Self { folder, there: Some(there), is_fresh, put: BlobsPut::Back },
            Err(why) => beside(format!("cannot be used ({why})")),
        }
    }

    /// Puts one there, unless it is there whole. `false` if the backup has it not.
    fn put(&self, from: &Path, digest: Digest) -> Result<bool, BackupError> {
        if let Some(there) = &self.there {
            if read_blob(there, digest).is_ok() {
                return Ok(true);
            }
            for file in blob_files(&self.folder, digest) {
                match fs::remove_file(&file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&file)(error)),
                    _ => {}
                }
            }
        }
        Ok(take_blob(from, &self.folder, digest)?.is_some())
    }

    fn sync(&self) -> Result<(), BackupError> {
        if self.there.is_some() { sync(&self.folder) } else { Ok(()) }
    }
}

/// The files that a blob may be in, in a folder of blobs.
fn blob_files(folder: &Path, digest: Digest) -> [PathBuf; 2] {
    let hex = digest.to_hex();
    [hex.clone(), format!("{hex}.zst")].map(|name| folder.join(&hex[..2]).join(name))
}

fn has_blob(folder: &Path, digest: Digest) -> bool {
    blob_files(folder, digest).iter().any(|file| file.exists())
}

/// Whether a folder is not there, or nothing but what a place of blobs begins with is in it. One with a mark is that of a server.
fn is_unused(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().all(|entry| entry.file_name() == "incoming"),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// What could not be put back of a damaged backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Artifacts that have lost a file or all of them: their build, job and name, sorted.
    pub artifacts: BTreeSet<(BuildId, JobName, String)>,
    /// How many blobs are missing in all; those of no artifact are of sources, caches, results and logs kept for long.
    pub blobs: u64,
    /// The builds whose logs are not what they were, with what was done with them.
    pub logs: Vec<(BuildId, LogGap)>,
    /// The files of keys and settings that are missing.
    pub files: Vec<String>,
}

/// What became of a log that is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogGap {
    /// It is put back as it is; lines of it may be wrong or missing.
    Kept,
    /// It cannot be read at all.
    Lost,
}

/// Puts back what there is of a damaged backup, into the data folder `data`, which must be empty or not there. Its database must be
/// readable.
///
/// # Errors
/// [`BackupError`]; `data` is as it was then.
pub fn restore_damaged(folder: &Path, data: &Path) -> Result<Restored, BackupError> {
    let description = describe(folder)?;
    fill(data, || restore_what_there_is(folder, data, description))
}

fn restore_what_there_is(folder: &Path, data: &Path, description: Description) -> Result<Restored, BackupError> {
    restore_records(folder, data)?;
    let (from, to) = (Places::of(folder), Places::of(data));
    let mut gaps = Gaps::default();
    let mut lost = BTreeSet::new();
    let digests = blobs_in(folder, data, &description)?;
    let target = BlobsTarget::find(data, &description, &digests);
    begin_anew(data, &description, &target)?;
    if !digests.is_empty() {
        let blobs = DirectoryBlobs::open(&from.blobs(), blob::Durability::Process, Verify::Always)?;
        for digest in digests {
            // What the backup has lost may be where the server had it.
            let is_there = || target.there.as_ref().is_some_and(|there| read_blob(there, digest).is_ok());
            let is_put = match read_blob(&blobs, digest) {
                Ok(()) => target.put(&from.blobs(), digest)?,
                Err(_) => is_there(),
            };
            if !is_put {
                lost.insert(digest);
            }
        }
    }
    (gaps.blobs, gaps.artifacts) = (lost.len() as u64, artifacts_of(data, &lost)?);
    make_folder(&to.logs())?;
    gaps.logs.extend(description.logs_missing_of.iter().map(|build| (*build, LogGap::Lost)));
    for log in listed_logs(folder, &description) {
        let was_damaged = log.build().is_some_and(|build| description.logs_damaged_of.contains(&build));
        let gap = log.gap(&from.logs()).or(was_damaged.then_some(LogGap::Kept));
        gaps.logs.extend(log.build().zip(gap));
        if gap != Some(LogGap::Lost) {
            restore_log(&log, &from.logs(), &to.logs())?;
        }
    }
    for (path, copy) in secrets_of(folder, data, &description) {
        if copy_secret(&path, &copy).is_err() {
            gaps.files.extend(copy.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    sync(data)?;
    target.sync()?;
    Ok(Restored { description, blobs: target.put, gaps })
}

fn restore_records(folder: &Path, data: &Path) -> Result<(), BackupError> {
    let (from, to) = (Places::of(folder).records(), Places::of(data).records());
    make_folder(&to)?;
    restore_backup(&from.join(DATABASE_FILE), &to)?;
    Ok(())
}

/// Makes the records those of another installation than the one that they were copied from, which may go on: its backups and its place of blobs are
/// not theirs.
fn begin_anew(data: &Path, description: &Description, target: &BlobsTarget) -> Result<(), BackupError> {
    let database = open_database(&Settings::default(), data)?;
    // A backup copies the record of itself; nothing would be removed for a day.
    for record in database.records(UNDER_WAY, None, store::PAGE_ROWS_MAX)? {
        database.delete_record(UNDER_WAY, &record.key, Expect::Any)?;
    }
    let is_ours = description.blobs_in == BlobsIn::Backup && target.is_fresh;
    let place = match is_ours {
        true => Some(DirectoryBlobs::open(&target.folder, blob::Durability::Process, Verify::Always)?),
        false => None,
    };
    let records = Records::new(database as Arc<dyn Store>);
    Ok(owner::restored(&records, place.as_ref().map(|place| place as &dyn Blobs), description.at)?)
}

/// The blobs that are to be put back, with a folder for them; none of a bucket.
fn blobs_in(folder: &Path, data: &Path, description: &Description) -> Result<Vec<Digest>, BackupError> {
    if description.blobs_in == BlobsIn::Bucket {
        return Ok(Vec::new());
    }
    make_folder(&Places::of(data).blobs())?;
    let lines = list(folder, BLOBS_LIST, description.blobs_list, &mut Faults::default());
    Ok(lines.iter().filter_map(|line| line.parse().ok()).collect())
}

fn listed_logs(folder: &Path, description: &Description) -> Vec<ListedLog> {
    let lines = list(folder, LOGS_LIST, description.logs_list, &mut Faults::default());
    lines.iter().filter_map(|line| ListedLog::parse(line)).collect()
}

/// A server appends to its logs, so that they are never links.
fn restore_log(log: &ListedLog, from: &Path, to: &Path) -> Result<(), BackupError> {
    let target = to.join(&log.file);
    if let Some(folder) = target.parent() {
        make_folder(folder)?;
    }
    let source = from.join(&log.file);
    let file = File::open(&source).map_err(at(&source))?;
    write_new(&target, 0o600, &mut file.take(log.bytes)).map_err(at(&target))
}

/// The keys and the settings: from where to where.
fn secrets_of(folder: &Path, data: &Path, description: &Description) -> Vec<(PathBuf, PathBuf)> {
    let keys = description.keys.iter().filter(|key| KEYS.contains(&key.as_str()));
    let mut files: Vec<_> = keys.map(|key| (folder.join("keys").join(key), data.join(key))).collect();
    if description.settings == FileKept::Yes {
        files.push((folder.join(SETTINGS), data.join(SETTINGS)));
    }
    files
}

fn sync(data: &Path) -> Result<(), BackupError> {
    let opened = File::open(data).map_err(at(data))?;
    rustix::fs::syncfs(&opened).map_err(|error| at(data)(error.into()))
}

/// The artifacts of the builds of a data folder that name one of these blobs.
fn artifacts_of(data: &Path, blobs: &BTreeSet<Digest>) -> Result<BTreeSet<(BuildId, JobName, String)>, BackupError> {
    let mut artifacts = BTreeSet::new();
    if blobs.is_empty() {
        return Ok(artifacts);
    }
    let store = open_database(&Settings::default(), data)?;
    let mut before = None;
    loop {
        let builds = store.builds(&BuildFilter::default(), before, PAGE_ROWS_MAX)?;
        let Some(last) = builds.last() else { return Ok(artifacts) };
        before = Some(last.build);
        for build in &builds {
            let rows = store.artifacts(build.build)?;
            let lost = rows.into_iter().filter(|row| blobs.contains(&row.artifact.digest));
            artifacts.extend(lost.map(|row| (row.build, row.job, row.name)));
        }
    }
}

/// The digest and length of the first `bytes_max` bytes of a file.
fn read_whole(path: &Path, bytes_max: u64) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?.take(bytes_max);
    let (mut hasher, mut chunk, mut bytes) = (blake3::Hasher::new(), vec![0; CHUNK_BYTES], 0);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((Digest(*hasher.finalize().as_bytes()), bytes)),
            length => {
                hasher.update(&chunk[..length]);
                bytes += length as u64;
            }
        }
    }
}

fn write_new(path: &Path, mode: u32, content: &mut impl Read) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    io::copy(content, &mut file)?;
    file.flush()
}

fn make_folder(path: &Path) -> Result<(), BackupError> {
    store::make_private_folder(path).map_err(at(path))
}

/// Makes a folder that nothing is in.
fn make_empty(path: &Path) -> Result<(), BackupError> {
    make_folder(path)?;
    if fs::read_dir(path).map_err(at(path))?.next().is_some() {
        return Err(BackupError::NotEmpty(path.to_owned()));
    }
    Ok(())
}
