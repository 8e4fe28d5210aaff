//! What is wrong with an installation, and what to do about it. Looks at the machine, the folder, the database, the blobs,
//! the logs and the server's own address; repairs nothing, and changes nothing but a blob of a few bytes that it puts and
//! takes back.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use api::words::quoted;
use graph::{BuildId, Digest, Timestamp, with_causes};
use serde::Serialize;
use store::blob::{self, BlobError, Blobs};
use store::{BuildFilter, DATABASE_FILE, Store, StoreError, verify_backup};

use crate::absences::Absences;
use crate::access::{Ledger, ROOT_KEY_FILE, RootKey, SealingKey, StoreLedger, foreign_key, lost};
use crate::backup::{KEYS, packs, read_blob};
use crate::damaged_logs::damage_of;
use crate::lost_logs::{lost_logs, numbers};
use crate::named::Mentions;
use crate::owner;
use crate::parts::{
    Database, NEXT_OF_BLOBS, PartError, Places, is_installation, next_of, open_blobs_beside, open_database,
};
use crate::records::{Intake, RecordError, Records, WorkerRecord};
use crate::settings::{OnOff, Settings};

/// How many blobs are read, and how many logs, if not all are.
pub const SAMPLE: usize = 100;
/// Of how many of the newest builds it is asked whether their log is there, if not of all.
const LOGS_SOUGHT: u64 = 1000;
/// The most things that one finding names.
const NAMED_MAX: usize = 5;
/// Below this share of a disk, in hundredths, there is little room …
const ROOM_PERCENT: u64 = 5;
/// … unless there is so much.
const ROOM_BYTES: u64 = 1 << 30;
/// A build that has not ended after so many days is told.
const BUILD_DAYS: u64 = 7;
/// A worker that was paused or drained so many days ago is told.
const PAUSED_DAYS: u64 = 1;
/// How far a clock may be behind what is stored.
const CLOCK_MS: u64 = 5 * 60 * 1000;
/// The first day of 2024, before which no clock is right.
const CLOCK_MIN: Timestamp = Timestamp(1_704_067_200_000_000);
/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// How much is read of what there may be a lot of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// A sample of [`SAMPLE`].
    Sample,
    /// Everything.
    All,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a name of [`Checked::name`].
    pub check: &'static str,
    /// What is wrong.
    pub what: String,
    /// Why that is, or what follows from it.
    pub why: String,
    /// What to do.
    pub next: String,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// A short name.
    pub name: &'static str,
    /// What was seen, for people, if all is well.
    pub seen: String,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Begins a check.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, seen: String::new(), findings: Vec::new() }
    }

    /// Adds a finding.
    pub fn add(&mut self, what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) {
        let finding = Finding { check: self.name, what: what.into(), why: why.into(), next: next.into() };
        self.findings.push(finding);
    }

    fn saw(mut self, seen: impl Into<String>) -> Self {
        self.seen = seen.into();
        self
    }
}

/// Whether a server runs with a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// One does, or it cannot be told.
    Maybe,
    /// None does.
    No,
}

/// Looks at the installation with this data folder.
#[must_use]
pub fn examine(settings: &Settings, data: &Path, serving: Serving, depth: Depth, now: Timestamp) -> Vec<Checked> {
    let mut checks = vec![folder(data)];
    if !is_installation(data) {
        return checks;
    }
    let at_keys = checks.len();
    checks.extend([keys(data), room(data), address(settings, data, serving)]);
    let (check, database) = database(settings, data);
    checks.push(check);
    let Some(database) = database else { return checks };
    let records = Records::new(std::sync::Arc::clone(&database) as std::sync::Arc<dyn Store>);
    if let Some(path) = foreign_key(data, &records) {
        checks[at_keys].add(
            format!("{} is not the key with which the records were made", path.display()),
            format!("with this one {}", lost(&path)),
            "put the right one back from a backup (`keys/`), or let `ropewalk serve --new-keys` go on with this one",
        );
    }
    checks.push(clock(&*database, now));
    checks.push(blobs(settings, data, &*database, &records, depth, now));
    checks.push(logs(data, &*database, depth));
    checks.push(builds(&*database, now));
    checks.push(workers(settings, &records, now));
    checks.push(tokens(StoreLedger(database), now));
    checks
}

fn folder(data: &Path) -> Checked {
    let mut check = Checked::new("folder");
    if let Err(error) = fs::read_dir(data)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        check.add(
            format!("{} cannot be looked into", data.display()),
            error.to_string(),
            "look as the user whom the server runs as (`sudo -u USER ropewalk doctor …`)",
        );
        return check;
    }
    if !is_installation(data) {
        check.add(
            format!("{} is no server's data folder", data.display()),
            "it holds no `root.key`",
            "give the folder by --data DIR, start a server with `ropewalk serve`, or put a backup back with `ropewalk restore`",
        );
        return check;
    }
    let metadata = match fs::metadata(data) {
        Ok(metadata) => metadata,
        Err(error) => {
            check.add(format!("{} cannot be looked at", data.display()), error.to_string(), "mend its permissions");
            return check;
        }
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        check.add(
            format!("others than its owner may write to {} (mode {mode:o})", data.display()),
            "who can write there can take the server over",
            format!("chmod go-w {}", data.display()),
        );
    }
    let places = Places::of(data);
    for folder in [places.records(), places.blobs(), places.logs(), places.local_worker().join("workspaces")] {
        let mode = fs::metadata(&folder).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            check.add(
                format!("others than its owner may look into {} (mode {mode:o})", folder.display()),
                "every account of the machine reads what projects and their jobs have left there",
                format!("chmod 700 {}", folder.display()),
            );
        }
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        check.add(
            format!("{} belongs to the user {}, and you are {us}", data.display(), metadata.uid()),
            "files that you make there may be closed to the server",
            "run this, and the server, as the folder's owner",
        );
    }
    let seen = data.display().to_string();
    check.saw(seen)
}

fn keys(data: &Path) -> Checked {
    let mut check = Checked::new("keys");
    for key in KEYS {
        let path = data.join(key);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => check.add(
                format!("others than its owner may read {}", path.display()),
                "who has read it can make any token, or read the secrets of projects",
                format!("chmod 600 {}; if others can have read it, make new tokens and secrets", path.display()),
            ),
            Ok(_) => {
                let read = if key == ROOT_KEY_FILE { RootKey::of(data).err() } else { SealingKey::of(data).err() };
                if let Some(error) = read {
                    check.add(
                        format!("{} cannot be used", path.display()),
                        with_causes(&error),
                        "put it back from a backup (`keys/`): a server does not start without it",
                    );
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => check.add(
                format!("{} is missing", path.display()),
                "the tokens or secrets that were made with it are worth nothing without it",
                "put it back from a backup (`keys/`), or let `ropewalk serve --new-keys` make a new one",
            ),
            Err(error) => {
                check.add(format!("{} cannot be looked at", path.display()), error.to_string(), "mend its permissions")
            }
        }
    }
    check.saw(format!("{} keys, each closed to others", KEYS.len()))
}

fn room(data: &Path) -> Checked {
    let mut check = Checked::new("room");
    let disk = match rustix::fs::statvfs(data) {
        Ok(disk) => disk,
        Err(error) => {
            check.add("the disk cannot be asked for its room", error.to_string(), "look at it with `df`");
            return check;
        }
    };
    let (free, all) = (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    if free < (all / 100 * ROOM_PERCENT).min(ROOM_BYTES) {
        check.add(
            format!("the disk of {} has only {} MiB left", data.display(), free >> 20),
            "a server that cannot write takes no builds",
            "make room, or lower `builds.keep`, `builds.keep_for` and `caches.quota`",
        );
    }
    if disk.f_files > 0 && disk.f_favail < disk.f_files / 100 {
        check.add(
            format!("the disk of {} has room for only {} files", data.display(), disk.f_favail),
            "every blob and every log is a file",
            "make room, or use a file system with more inodes",
        );
    }
    check.saw(format!("{} MiB free", free >> 20))
}

fn database(settings: &Settings, data: &Path) -> (Checked, Option<std::sync::Arc<dyn Database>>) {
    let mut check = Checked::new("database");
    let is_file = settings.store_url.0 == "sqlite";
    let file = Places::of(data).records().join(DATABASE_FILE);
    let mut seen = "answers".to_owned();
    if is_file {
        if !file.exists() {
            check.add(
                format!("{} is missing", file.display()),
                "it holds every build; a server would begin anew",
                "put a backup back with `ropewalk restore`, or see that `store.url` says where the records are",
            );
            return (check, None);
        }
        match verify_backup(&file) {
            Ok(found) => seen = format!("version {}, {} builds, {} facts", found.version, found.builds, found.facts),
            Err(error) => {
                refused_store(&mut check, &error);
                return (check, None);
            }
        }
    }
    match open_database(settings, data) {
        Ok(database) => (check.saw(seen), Some(database)),
        Err(PartError::Store(error)) => {
            refused_store(&mut check, &error);
            (check, None)
        }
        Err(error) => {
            check.add("the database cannot be opened", with_causes(&error), "mend the setting `store.url`");
            (check, None)
        }
    }
}

fn refused_store(check: &mut Checked, error: &StoreError) {
    check.add("the database cannot be used", with_causes(error), next_of(error));
}

fn clock(store: &dyn Store, now: Timestamp) -> Checked {
    let mut check = Checked::new("clock");
    if now < CLOCK_MIN {
        check.add("this machine's clock is wrong", "it says a day before 2024", "set it, best by NTP");
    }
    match store.builds(&BuildFilter::default(), None, 1) {
        Ok(rows) => {
            let newest = rows.first().map_or(Timestamp(0), |row| row.created);
            if newest.ms_since(now) > CLOCK_MS {
                check.add(
                    format!("the newest build was created {} s from now", newest.ms_since(now) / 1000),
                    "the clock went back, or servers with different clocks share the database",
                    "set the clock, best by NTP",
                );
            }
        }
        Err(error) => refused_store(&mut check, &error),
    }
    check.saw("in order with the records")
}

fn blobs(
    settings: &Settings,
    data: &Path,
    store: &dyn Store,
    records: &Records,
    depth: Depth,
    now: Timestamp,
) -> Checked {
    let mut check = Checked::new("blobs");
    let place = if settings.blobs_url.0 == "directory" { "the folder `blobs`" } else { "the bucket" };
    let blobs = match open_blobs_beside(settings, data) {
        Ok(blobs) => blobs,
        Err(error) => {
            check.add(format!("{place} cannot be used"), with_causes(&error), NEXT_OF_BLOBS);
            return check;
        }
    };
    if let Err(error) = is_writable(&*blobs, now) {
        let why = with_causes(&error);
        check.add(
            format!("{place} cannot be written and read"),
            why,
            "see permissions and room, and the rights of the key",
        );
    }
    let named = Mentions::of_store(store).map_err(|error| with_causes(&error));
    let named = named.and_then(|names| names.resolve(&*blobs).map_err(|error| with_causes(&error)));
    let named = match named {
        Ok(named) => named,
        Err(why) => {
            check.add("it cannot be told which blobs are needed", why, "mend what refuses, then ask again");
            return check;
        }
    };
    match owner::look(records, &*blobs, &named) {
        Ok(owner) => {
            if let Some(why) = owner.why_none_is_removed() {
                check.add("the server removes no blobs", why, owner::NEXT);
            }
        }
        Err(error) => check.add("it cannot be told whose the place of blobs is", with_causes(&error), NEXT_OF_BLOBS),
    }
    let sample = sample(&named.blobs, depth, now);
    let faults: Vec<String> = sample.iter().filter_map(|digest| read_blob(&*blobs, *digest).err()).collect();
    if !faults.is_empty() {
        check.add(
            format!("{} of {} blobs that were read are missing or damaged", faults.len(), sample.len()),
            shortened(&faults),
            "artifacts, caches or sources are lost: look at the disk, then put the folder `blobs` of a backup back beside what is there",
        );
    }
    check.saw(format!("{} needed, {} read", named.blobs.len(), sample.len()))
}

fn is_writable(blobs: &dyn Blobs, now: Timestamp) -> Result<(), BlobError> {
    // Content that nothing else has, so that taking it back takes nothing from anybody.
    let content = format!("ropewalk doctor {} {}", now.0, crate::parts::fresh_id());
    let digest = blobs.put(content.as_bytes())?;
    let read = blobs.get(digest, content.len() as u64)?;
    blobs.delete(digest)?;
    if blob::digest(&read) == digest { Ok(()) } else { Err(BlobError::Damaged(digest)) }
}

/// Some of these, evenly, others at another time; or all.
fn sample(all: &[Digest], depth: Depth, now: Timestamp) -> Vec<Digest> {
    let step = match depth {
        Depth::All => 1,
        Depth::Sample => all.len().div_ceil(SAMPLE).max(1),
    };
    let first = usize::try_from(now.0.unsigned_abs() % step as u64).unwrap_or(0);
    all.iter().skip(first).step_by(step).copied().collect()
}

/// The first of these, and how many more there are.
fn shortened(all: &[String]) -> String {
    let mut text = all[..all.len().min(NAMED_MAX)].join("; ");
    if all.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", all.len() - NAMED_MAX));
    }
    text
}

fn logs(data: &Path, store: &dyn Database, depth: Depth) -> Checked {
    let mut check = Checked::new("logs");
    let mut all = match packs(&Places::of(data).logs()) {
        Ok(all) => all,
        Err(error) => {
            check.add("the folder `logs` cannot be read", error.to_string(), "mend its permissions");
            return check;
        }
    };
    let count = all.len();
    if depth == Depth::Sample {
        all.drain(..count.saturating_sub(SAMPLE));
    }
    let (mut unreadable, mut orphans) = (Vec::new(), Vec::new());
    for (build, path) in &all {
        if let Some(why) = damage_of(store, *build, path) {
            unreadable.push(format!("build {build}: {why}"));
        }
        if matches!(store.build(*build), Ok(None)) {
            orphans.push(path.display().to_string());
        }
    }
    if !unreadable.is_empty() {
        check.add(
            format!("{} of {} logs that were read are damaged", unreadable.len(), all.len()),
            shortened(&unreadable),
            "the rest of each can be read, with the gap shown; put `logs` of a backup back for these builds while the server is stopped",
        );
    }
    if !orphans.is_empty() {
        check.add(
            format!("{} logs belong to no build", orphans.len()),
            shortened(&orphans),
            "they take room alone: remove them",
        );
    }
    let sought = if depth == Depth::Sample { LOGS_SOUGHT } else { u64::MAX };
    match lost_logs(store, &Places::of(data).logs(), sought) {
        Ok(lost) if lost.is_empty() => {}
        Ok(lost) => check.add(
            format!("logs of {} builds are gone", lost.len()),
            format!("{}: jobs of theirs printed lines, and no log of them is anywhere", numbers(&lost, lost.len() as u64)),
            "put `logs` of a backup back for these builds while the server is stopped; of several servers, see the folders of the others",
        ),
        Err(error) => refused_store(&mut check, &error),
    }
    check.saw(format!("{count} there, {} read", all.len()))
}

fn builds(store: &dyn Store, now: Timestamp) -> Checked {
    let mut check = Checked::new("builds");
    let unfinished = match store.unfinished() {
        Ok(unfinished) => unfinished,
        Err(error) => {
            refused_store(&mut check, &error);
            return check;
        }
    };
    let is_old = |build: &BuildId| {
        let row = store.build(*build).ok().flatten();
        row.is_some_and(|row| row.open_gates == 0 && now.ms_since(row.created) > BUILD_DAYS * DAY_MS)
    };
    let old: Vec<String> = unfinished.iter().filter(|build| is_old(build)).map(ToString::to_string).collect();
    if !old.is_empty() {
        check.add(
            format!("{} builds have not ended after {BUILD_DAYS} days, and no gate of theirs is open", old.len()),
            format!("builds {}: no worker takes their jobs, or an attempt hangs", shortened(&old)),
            "see why each job waits (GET /api/v1/builds/BUILD/jobs), then cancel the builds that nobody needs",
        );
    }
    check.saw(format!("{} under way", unfinished.len()))
}

fn workers(settings: &Settings, records: &Records, now: Timestamp) -> Checked {
    let mut check = Checked::new("workers");
    let workers = match records.all::<WorkerRecord>() {
        Ok(workers) => workers,
        Err(RecordError::Store(error)) => {
            refused_store(&mut check, &error);
            return check;
        }
        Err(error) => {
            check.add(
                "the workers cannot be listed",
                with_causes(&error),
                "update Ropewalk, if a newer one wrote them",
            );
            return check;
        }
    };
    if workers.is_empty() && settings.local_worker == OnOff::Off {
        check.add(
            "no worker has ever joined",
            "the server itself runs no jobs, as `worker.local` is off",
            "make a token (`ropewalk token create --worker --pool default`) and start `ropewalk work` with it on a machine",
        );
    }
    let closed: BTreeSet<String> = workers
        .iter()
        .filter_map(|(_, worker)| match &worker.intake {
            Intake::Paused(said) | Intake::Draining(said) if now.ms_since(said.at) > PAUSED_DAYS * DAY_MS => {
                Some(format!("{} ({})", worker.name, worker.intake.closed().unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    if !closed.is_empty() {
        let closed: Vec<String> = closed.into_iter().collect();
        check.add(
            format!("{} workers have taken nothing for more than {PAUSED_DAYS} day", closed.len()),
            shortened(&closed),
            "`ropewalk workers resume` lets them work again, `ropewalk workers forget` removes those that are gone",
        );
    }
    // What cannot be read here was told above.
    let absences = records.read::<Absences>(Absences::KEY).ok().flatten().map(|(absences, _)| absences);
    let absences = absences.unwrap_or_default();
    for (pool, (name, since)) in absences.deserted(&workers) {
        check.add(
            format!("no worker of the pool `{pool}` is there"),
            format!(
                "the last one, {name}, is away since {}, as the server saw it last",
                api::time::Time(since).in_seconds()
            ),
            format!(
                "start it again where it was (`ropewalk work`), or remove it by `ropewalk workers forget {}` if nobody \
                 needs the pool; `ropewalk pools queue {}` shows what waits there",
                quoted(name),
                quoted(pool),
            ),
        );
    }
    check.saw(format!("{} known, {} away", workers.len(), absences.away.len()))
}

fn tokens(ledger: StoreLedger, now: Timestamp) -> Checked {
    let mut check = Checked::new("tokens");
    let (mut count, mut over, mut after) = (0, Vec::new(), None::<String>);
    loop {
        let page = match ledger.list(after.as_deref()) {
            Ok(page) => page,
            Err(error) => {
                check.add("the tokens cannot be listed", with_causes(&error), "see the check `database`");
                return check;
            }
        };
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        count += page.len();
        let is_over =
            |row: &&crate::access::TokenRow| row.revoked.is_none() && row.grant.until.is_some_and(|until| until <= now);
        over.extend(page.iter().filter(is_over).map(|row| format!("{} ({})", row.id, row.subject().name)));
    }
    if !over.is_empty() {
        check.add(
            format!("{} tokens are over", over.len()),
            shortened(&over),
            "who still uses one is refused: make new ones (`ropewalk token create`), and revoke these to have them off this list",
        );
    }
    check.saw(format!("{count} made"))
}

/// The file in a data folder that says where its server listens, which `--listen` may have told.
pub const ADDRESS: &str = "address";

fn address(settings: &Settings, data: &Path, serving: Serving) -> Checked {
    let mut check = Checked::new("address");
    if serving == Serving::No {
        return unserved(settings.listen, check);
    }
    let told = fs::read_to_string(data.join(ADDRESS)).ok();
    let told = told.and_then(|url| url.trim().strip_prefix("http://")?.parse::<SocketAddr>().ok());
    if let Some(told) = told.filter(|told| matches!(health(local(*told)), Ok(Health::Good))) {
        return check.saw(format!("a server answers at {told}"));
    }
    let listen = settings.listen;
    match TcpListener::bind(listen) {
        Ok(_) => return check.saw(format!("{listen} is free: no server runs there")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        Err(error) => {
            check.add(format!("nobody can listen on {listen}"), error.to_string(), "change `server.listen`");
            return check;
        }
    }
    match health(local(listen)) {
        Ok(Health::Good) => check.saw(format!("a server answers at {listen}")),
        Ok(Health::Other) => {
            check.add(
                format!("{listen} is taken by another program"),
                "what answers there is no Ropewalk",
                "end that program, or change `server.listen`",
            );
            check
        }
        Err(error) => {
            check.add(
                format!("what listens on {listen} does not answer"),
                error.to_string(),
                "if it is the server: look at its log and at the load of the machine; else end it, or change `server.listen`",
            );
            check
        }
    }
}

/// The address of a folder with which no server runs.
fn unserved(listen: SocketAddr, mut check: Checked) -> Checked {
    match TcpListener::bind(listen) {
        Ok(_) => return check.saw(format!("{listen} is free: no server runs there")),
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            check.add(format!("nobody can listen on {listen}"), error.to_string(), "change `server.listen`");
        }
        Err(_) => {
            let who = match health(local(listen)) {
                Ok(Health::Good) => "a server with another data folder answers there",
                Ok(Health::Other) | Err(_) => "what listens there is no server of this folder",
            };
            check.add(
                format!("{listen} is taken by another program"),
                format!("{who}, and no server runs with this one"),
                "end that program, or change `server.listen`",
            );
        }
    }
    check
}

/// The address by which this machine reaches what listens.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

enum Health {
    Good,
    Other,
}

/// Asks for the server's health in plain HTTP.
fn health(address: SocketAddr) -> io::Result<Health> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.write_all(format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let is_ours = answer.starts_with("HTTP/1.1 200") && answer.contains("\"status\":\"ok\"");
    Ok(if is_ours { Health::Good } else { Health::Other })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::MemoryStore;

    use super::*;

    #[test]
    fn the_commands_about_a_pool_without_workers_can_be_copied() {
        let records = Records::new(Arc::new(MemoryStore::default()));
        let record =
            WorkerRecord { name: "a b".to_owned(), pools: ["c;d".to_owned()].into(), ..WorkerRecord::default() };
        records.write("1", &record, Timestamp(1)).expect("a store in memory takes it");
        let absences = Absences { away: [("1".to_owned(), Timestamp(1))].into() };
        records.write(Absences::KEY, &absences, Timestamp(1)).expect("a store in memory takes it");
        let checked = workers(&Settings::default(), &records, Timestamp(2));
        let next = &checked.findings[0].next;
        assert!(
            next.contains("`ropewalk workers forget 'a b'`") && next.contains("`ropewalk pools queue 'c;d'`"),
            "{next}"
        );
    }

    #[test]
    fn the_server_of_another_folder_is_not_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let listen = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut asked = [0; 512];
                let _ = stream.read(&mut asked);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"status\":\"ok\"}");
            }
        });
        let settings = Settings { listen, ..Settings::default() };
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(address(&settings, folder.path(), Serving::Maybe).findings, []);
        let checked = address(&settings, folder.path(), Serving::No);
        assert!(checked.findings[0].why.starts_with("a server with another data folder answers there"), "{checked:?}");
    }
}
