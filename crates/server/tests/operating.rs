//! A server's data looked after: backups while another process writes, damage that is found, what is let go and what stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::fact::What;
use engine::{BuildRequest, Ended, Fact, Reused};
use graph::{Artifact, AttemptNumber, BuildId, Digest, Event, EventKind, Origin, Outcome, Timestamp, Trust, Verdict};
use ropewalk_server::access::{Access, RootKey, StoreLedger};
use ropewalk_server::backup::{self, BackupError, BlobsPut, LogGap};
use ropewalk_server::doctor::{Depth, Serving, examine};
use ropewalk_server::named::Mentions;
use ropewalk_server::owner;
use ropewalk_server::parts::{Storage, open_storage};
use ropewalk_server::records::{Project, ProjectSettings, Records, StoredLog};
use ropewalk_server::retention::{Collecting, Policy, Removal, Swept, evict, outdated, sweep};
use ropewalk_server::server::{Parts, RequestError};
use ropewalk_server::settings::{BlobsUrl, Bytes, Days, Settings};
use ropewalk_server::world::{NoValue, SecretSource};
use ropewalk_server::{Running, Server};
use store::audit::AuditFilter;
use store::cache::{CacheRow, CacheUser};
use store::log::{Batch, LogPlace, Selection, StepEnd, Stream, StreamKey};
use store::record::Expect;
use store::{BuildFilter, MemoryStore, Store};

/// Says to a process of this test which data folder to fill.
const VICTIM: &str = "ROPEWALK_TEST_FILL";
const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;
const KEY: StreamKey = StreamKey { attempt: 1, step: 0 };

fn settings() -> Settings {
    // Nobody pulls the plug of a test.
    Settings { store_durability: ropewalk_server::settings::Durability::Process, ..Settings::default() }
}

fn at(day: i64) -> Timestamp {
    Timestamp(day * DAY_US)
}

/// A build of a project that has ended, or has not, with an artifact.
fn facts(build: BuildId, project: &str, created: Timestamp, artifact: Artifact, end: Option<Verdict>) -> Vec<Fact> {
    let mut request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
    request.origin = Origin { project: project.to_owned(), number: build.0, ..Origin::default() };
    let reused = Reused {
        build,
        attempt: AttemptNumber(1),
        job: "a".into(),
        artifacts: BTreeMap::from([("bin".to_owned(), artifact)]),
    };
    let ended = What::JobEnded { job: "a".into(), outcome: Outcome::passed(), how: Ended::Reused(reused) };
    let mut all = vec![What::BuildCreated(Box::new(request)), ended];
    all.extend(end.map(|verdict| What::BuildEnded { verdict }));
    all.into_iter().map(|what| Fact { build, at: created, what }).collect()
}

fn passed() -> Option<Verdict> {
    Some(Verdict::Passed { note: None })
}

fn content(build: BuildId) -> String {
    format!("the artifact of build {build}\n").repeat(300)
}

fn line(build: BuildId) -> String {
    format!("build {build} says something\n")
}

/// Adds a whole build: its artifact, its log, its facts.
fn add_build(storage: &Storage) -> BuildId {
    let build = storage.store.reserve_build().unwrap();
    let digest = storage.blobs.put(content(build).as_bytes()).unwrap();
    let artifact = Artifact { digest, files: 1, bytes: content(build).len() as u64 };
    let mut batch = Batch::new(build, KEY, 0);
    assert!(batch.push(Stream::Stdout, 7, line(build).as_bytes()).is_empty());
    batch.end = Some(StepEnd::Closed);
    assert_eq!(storage.logs.append(&[batch])[0].next_byte, line(build).len() as u64);
    storage.store.append(&facts(build, "sails", at(1), artifact, passed())).unwrap();
    build
}

/// Fills a data folder until it is killed, in a process of its own; nothing else.
#[test]
fn victim() {
    let Some(data) = std::env::var_os(VICTIM) else { return };
    let storage = open_storage(&settings(), Path::new(&data)).unwrap();
    loop {
        println!("added {}", add_build(&storage));
    }
}

fn seen(storage: &Storage, build: BuildId) -> (Vec<Fact>, String) {
    let reader = storage.logs.reader(build, LogPlace::Ended).unwrap().expect("it has a log");
    let mut log = String::new();
    for part in reader.raw(KEY, Selection::All) {
        match part.unwrap() {
            store::log::RawPart::Bytes(bytes) => log.push_str(std::str::from_utf8(&bytes).unwrap()),
            store::log::RawPart::Gap(gap) => panic!("{gap:?}"),
        }
    }
    (storage.store.facts(build).unwrap(), log)
}

#[test]
fn a_backup_made_while_another_process_writes_is_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    let (data, copy, restored) = (place("data"), place("copy"), place("restored"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("root.key"), "00").unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, &data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let n_before = 60;
    let first = told.by_ref().filter(|line| line.starts_with("added ")).nth(n_before - 1);
    assert!(first.is_some(), "it ended early");
    let made = backup::make(&settings(), &data, None, &copy, at(2)).unwrap();
    // It went on all the time.
    assert!(told.by_ref().filter(|line| line.starts_with("added ")).nth(20).is_some(), "it ended early");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(made.builds >= n_before as u64, "{made:?}");
    assert_eq!((made.blobs, made.blobs_missing, made.keys.len()), (made.builds, 0, 1));
    let verified = backup::verify(&copy).unwrap();
    assert_eq!(verified.faults, Vec::<String>::new());
    backup::restore(&copy, &restored).unwrap();
    let (live, back) = (open_storage(&settings(), &data).unwrap(), open_storage(&settings(), &restored).unwrap());
    for build in (1..=made.builds).map(BuildId) {
        let facts = seen(&back, build);
        assert_eq!(facts, seen(&live, build));
        assert_eq!((facts.0.len(), facts.1), (3, line(build)));
        let artifact = back.store.artifacts(build).unwrap().remove(0).artifact.digest;
        assert_eq!(back.blobs.get(artifact, 1 << 20).unwrap(), content(build).into_bytes());
    }
    assert_eq!(back.store.builds(&BuildFilter::default(), None, 1).unwrap()[0].build, BuildId(made.builds));
    // Nothing is left that would keep either server from removing.
    for storage in [&live, &back] {
        assert!(!backup::is_under_way(&*storage.store, at(2)).unwrap());
    }
}

/// A data folder with three builds, its backup, and one blob of each.
struct Filled {
    scratch: tempfile::TempDir,
    builds: Vec<BuildId>,
}

impl Filled {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let storage = open_storage(&settings(), &data).unwrap();
        for key in backup::KEYS {
            fs::write(data.join(key), "0f".repeat(32)).unwrap();
            fs::set_permissions(data.join(key), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let builds = (0..3).map(|_| add_build(&storage)).collect();
        Self { scratch, builds }
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn backed_up(self) -> (PathBuf, Self) {
        let copy = self.scratch.path().join("copy");
        backup::make(&settings(), &self.data(), None, &copy, at(2)).unwrap();
        (copy, self)
    }

    /// The file of a build's artifact below a folder of blobs.
    fn blob(&self, root: &Path) -> PathBuf {
        let hex = store::blob::digest(content(self.builds[1]).as_bytes()).to_hex();
        root.join("blobs").join(&hex[..2]).join(format!("{hex}.zst"))
    }
}

/// Writes anew, so that a link elsewhere stays as it is.
fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_verification_finds_what_is_damaged() {
    let check = |damage: &dyn Fn(&Path, &Filled), expected: &str| {
        let (copy, filled) = Filled::new().backed_up();
        assert_eq!(backup::verify(&copy).unwrap().n_faults, 0, "before");
        damage(&copy, &filled);
        let verified = backup::verify(&copy).unwrap();
        assert_eq!(verified.n_faults, 1, "{:?}", verified.faults);
        assert!(verified.faults[0].contains(expected), "{:?}", verified.faults);
    };
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    check(&|copy, filled| overwrite(&filled.blob(copy), |bytes| bytes.truncate(40)), "blob");
    check(&|copy, filled| fs::remove_file(filled.blob(copy)).unwrap(), "there is no blob");
    check(&|copy, _| overwrite(&copy.join("logs/02/2.log"), flip), "the log 02/2.log is damaged");
    check(&|copy, _| fs::remove_file(copy.join("keys/secrets.key")).unwrap(), "`secrets.key` cannot be read");
    check(&|copy, _| overwrite(&copy.join("blobs.list"), |bytes| bytes.push(b'\n')), "`blobs.list` is not what it was");
}

#[test]
fn what_there_is_of_a_damaged_backup_is_put_back_and_the_gaps_are_named() {
    let (copy, filled) = Filled::new().backed_up();
    fs::remove_file(filled.blob(&copy)).unwrap();
    fs::remove_file(copy.join("logs/02/2.log")).unwrap();
    overwrite(&copy.join("logs/03/3.log"), |bytes| bytes.truncate(bytes.len() - 3));
    let to = filled.scratch.path().join("restored");
    let gaps = backup::restore_damaged(&copy, &to).unwrap().gaps;
    assert_eq!(gaps.blobs, 1);
    let artifacts: Vec<BuildId> = gaps.artifacts.iter().map(|(build, ..)| *build).collect();
    assert_eq!(artifacts, [filled.builds[1]]);
    assert_eq!(gaps.logs, [(BuildId(2), LogGap::Lost), (BuildId(3), LogGap::Kept)]);
    let back = open_storage(&settings(), &to).unwrap();
    assert_eq!(seen(&back, filled.builds[0]).1, line(filled.builds[0]));
    let whole = store::blob::digest(content(filled.builds[0]).as_bytes());
    assert_eq!(back.blobs.get(whole, 1 << 20).unwrap(), content(filled.builds[0]).into_bytes());
}

#[test]
fn a_backup_says_which_logs_were_damaged_on_the_server() {
    let filled = Filled::new();
    overwrite(&filled.data().join("logs/02/2.log"), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (copy, filled) = filled.backed_up();
    let verified = backup::verify(&copy).unwrap();
    assert!(!verified.description.is_whole());
    let faults = ["logs of 1 builds were damaged on the server already when the backup was made: build 2"];
    assert_eq!(verified.faults, faults);
    let gaps = backup::restore_damaged(&copy, &filled.scratch.path().join("restored")).unwrap().gaps;
    assert_eq!(gaps.logs, [(BuildId(2), LogGap::Kept)]);
}

#[test]
fn blobs_in_a_folder_of_their_own_are_backed_up_and_put_back_there() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    let (apart, copy) = (place("apart"), place("copy"));
    let own = Settings { blobs_url: BlobsUrl(format!("directory:{}", apart.display())), ..settings() };
    let storage = open_storage(&own, &place("data")).unwrap();
    let builds = [(); 3].map(|()| add_build(&storage));
    drop(storage);
    let made = backup::make(&own, &place("data"), None, &copy, at(2)).unwrap();
    assert_eq!((made.version, made.blobs, made.blobs_missing), (backup::VERSION, 3, 0));
    assert_eq!(backup::verify(&copy).unwrap().n_faults, 0);
    let check = |data: &str, settings: &Settings, put: BlobsPut| {
        assert_eq!(backup::restore(&copy, &place(data)).unwrap().blobs, put, "{data}");
        let back = open_storage(settings, &place(data)).unwrap();
        for build in builds {
            let artifact = back.store.artifacts(build).unwrap().remove(0).artifact.digest;
            assert_eq!(
                back.blobs.get(artifact, 1 << 20).unwrap(),
                content(build).into_bytes(),
                "{data}, build {build}"
            );
        }
    };
    fs::remove_dir_all(&apart).unwrap();
    check("of lost ones", &own, BlobsPut::Back);
    let file = |build| {
        let hex = store::blob::digest(content(build).as_bytes()).to_hex();
        apart.join(&hex[..2]).join(format!("{hex}.zst"))
    };
    fs::remove_file(file(builds[0])).unwrap();
    overwrite(&file(builds[1]), |bytes| bytes.truncate(40));
    check("of some", &own, BlobsPut::Back);
    fs::remove_dir_all(&apart).unwrap();
    fs::create_dir(&apart).unwrap();
    fs::write(apart.join("letters"), "dear").unwrap();
    let beside = BlobsPut::Beside { folder: apart.clone(), why: "holds something else".to_owned() };
    check("of a folder that is used", &settings(), beside);
    assert_eq!(fs::read_dir(&apart).unwrap().count(), 1);
}

#[test]
fn a_backup_takes_no_place_of_another_and_none_is_made_of_half_of_one() {
    let (copy, filled) = Filled::new().backed_up();
    let again = backup::make(&settings(), &filled.data(), None, &copy, at(2));
    assert!(matches!(again, Err(BackupError::NotEmpty(_))), "{again:?}");
    let into_data = backup::restore(&copy, &filled.data());
    assert!(matches!(into_data, Err(BackupError::NotEmpty(_))), "{into_data:?}");
    fs::remove_file(copy.join("backup.json")).unwrap();
    assert!(matches!(backup::verify(&copy), Err(BackupError::NoBackup { .. })));
}

#[test]
fn a_doctor_says_what_is_wrong() {
    let check = |damage: &dyn Fn(&Filled), expected: &[(&str, &str)]| {
        let filled = Filled::new();
        damage(&filled);
        // Any free port.
        let settings = Settings { listen: "127.0.0.1:0".parse().unwrap(), ..settings() };
        let checks = examine(&settings, &filled.data(), Serving::Maybe, Depth::All, at(30_000));
        // How much room the disk of the tests has is not ours to say.
        let findings = checks.iter().filter(|check| check.name != "room").flat_map(|check| &check.findings);
        let found: Vec<(&str, &str)> = findings.map(|finding| (finding.check, finding.what.as_str())).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((check, what), (expected_check, expected_what)) in found.iter().zip(expected) {
            assert!(check == expected_check && what.contains(expected_what), "{found:?}");
        }
    };
    check(&|_| {}, &[]);
    let damage = |filled: &Filled| overwrite(&filled.blob(&filled.data()), |bytes| bytes.truncate(40));
    check(&damage, &[("blobs", "1 of 3 blobs that were read are missing or damaged")]);
    let lose = |filled: &Filled| {
        overwrite(&filled.data().join("logs/02/2.log"), |bytes| *bytes.last_mut().unwrap() ^= 1);
    };
    check(&lose, &[("logs", "1 of 3 logs")]);
    // Of a log that stands in a blob, what is here may be any part.
    let finished_elsewhere = |filled: &Filled| {
        lose(filled);
        let storage = open_storage(&settings(), &filled.data()).unwrap();
        let digest = storage.blobs.put(b"the whole log").unwrap();
        Records::new(storage.store).write("2", &StoredLog { digest }, at(2)).unwrap();
    };
    check(&finished_elsewhere, &[]);
    let open = |filled: &Filled| {
        fs::set_permissions(filled.data().join("root.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .unwrap();
    };
    check(&open, &[("keys", "others than its owner may read")]);
    let scrawl = |filled: &Filled| fs::write(filled.data().join("secrets.key"), "no key\n").unwrap();
    check(&scrawl, &[("keys", "secrets.key cannot be used")]);
    let tear = |filled: &Filled| {
        let records = filled.data().join("records");
        fs::write(records.join("ropewalk.db"), "no database at all").unwrap();
        // What was written last stands beside it, and would mend it.
        let _ = fs::remove_file(records.join("ropewalk.db-wal"));
    };
    check(&tear, &[("database", "the database cannot be used")]);
    check(&|filled| fs::remove_file(filled.data().join("root.key")).unwrap(), &[("folder", "no server's data folder")]);
}

/// A store with a build a day, of which every third runs, each with an artifact of 1000 bytes.
fn a_build_a_day(days: i64) -> MemoryStore {
    let store = MemoryStore::new();
    for day in 1..=days {
        for project in ["sails", "ropes"] {
            let build = store.reserve_build().unwrap();
            let digest = Digest(*blake3::hash(build.to_string().as_bytes()).as_bytes());
            let artifact = Artifact { digest, files: 1, bytes: 1000 };
            let end = if day % 3 == 0 { None } else { passed() };
            store.append(&facts(build, project, at(day), artifact, end)).unwrap();
        }
    }
    store
}

/// The days of the builds of `sails` that go.
fn gone(store: &dyn Store, policy: Policy, log_bytes: u64) -> Vec<i64> {
    let row = |build: BuildId| store.build(build).unwrap().unwrap();
    let gone = outdated(store, "sails", policy, &|_| log_bytes).unwrap();
    assert!(gone.iter().all(|build| row(*build).origin.project == "sails" && row(*build).finished.is_some()));
    gone.into_iter().map(|build| row(build).created.0 / DAY_US).collect()
}

#[test]
fn builds_go_that_are_neither_new_nor_young_and_have_ended() {
    let store = a_build_a_day(12);
    let check = |builds: u64, since: Option<i64>, bytes: u64, expected: &[i64]| {
        let policy = Policy { builds, since: since.map(at), bytes };
        assert_eq!(gone(&store, policy, 0), expected, "{policy:?}");
    };
    check(5, Some(100), 0, &[1, 2, 4, 5, 7]);
    check(5, Some(5), 0, &[1, 2, 4]);
    check(5, Some(1), 0, &[]);
    check(5, None, 0, &[]);
    check(12, Some(100), 0, &[]);
    check(11, Some(100), 0, &[1]);
    check(0, Some(100), 0, &[1, 2, 4, 5, 7, 8, 10, 11]);
    // The third of the newest fills it, and still stays; the newest stays whatever it takes.
    check(12, None, 3000, &[1, 2, 4, 5, 7, 8]);
    check(12, None, 1, &[1, 2, 4, 5, 7, 8, 10, 11]);
    check(12, None, 12_000, &[]);
    check(11, Some(100), 11_000, &[1]);
    // Logs count as artifacts do: each takes as much, so half as many builds stay.
    let policy = Policy { builds: 12, since: None, bytes: 12_000 };
    assert_eq!(gone(&store, policy, 1000), [1, 2, 4, 5]);
}

#[test]
fn a_project_may_say_otherwise_than_the_server() {
    let settings = Settings { builds_keep: 7, builds_keep_for: Days(3), builds_quota: Bytes(9), ..Settings::default() };
    let check = |api: serde_json::Value, expected: Policy| {
        let other = BTreeMap::from([("api".to_owned(), api)]);
        let project =
            Project { settings: ProjectSettings { other, ..ProjectSettings::default() }, ..Project::default() };
        assert_eq!(Policy::of(&project, &settings, at(10)), expected);
    };
    check(serde_json::json!({}), Policy { builds: 7, since: Some(at(7)), bytes: 9 });
    let own = serde_json::json!({ "keep_builds": 1, "keep_days": 0, "quota_bytes": 0 });
    check(own, Policy { builds: 1, since: None, bytes: 0 });
}

#[test]
fn caches_go_that_nobody_uses_and_the_longest_unused_beyond_the_quota() {
    let check = |keep_for: u64, quota: u64, expected: &[&str]| {
        let store = MemoryStore::new();
        for day in [1, 5, 8, 9] {
            let entry = CacheRow {
                scope: "main".to_owned(),
                key: day.to_string(),
                blobs: Vec::new(),
                bytes: 10,
                written_by: CacheUser { build: BuildId(1), job: "a".into() },
                at: at(day),
                used_at: at(day),
                evicted: None,
            };
            store.save_cache(&entry).unwrap();
        }
        let settings = Settings { caches_keep_for: Days(keep_for), caches_quota: Bytes(quota), ..Settings::default() };
        let (operations, caches) = evict(&store, &settings, at(10)).unwrap();
        let mut left = store.list_caches(99).unwrap();
        left.retain(|row| row.evicted.is_none());
        left.sort_by_key(|row| row.at);
        let keys: Vec<&str> = left.iter().map(|row| row.key.as_str()).collect();
        assert_eq!((keys, operations, caches), (expected.to_vec(), 0, 4 - expected.len() as u64));
    };
    check(100, 0, &["1", "5", "8", "9"]);
    check(4, 0, &["8", "9"]);
    check(0, 0, &["1", "5", "8", "9"]);
    check(100, 40, &["1", "5", "8", "9"]);
    check(100, 39, &["5", "8", "9"]);
    check(4, 10, &["9"]);
}

#[test]
fn what_sources_name_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = open_storage(&settings(), scratch.path()).unwrap();
    let file = storage.blobs.put(b"fn main() {}").unwrap();
    let files = BTreeMap::from([("main.rs".to_owned(), api::source::File::Plain { digest: file, bytes: 12 })]);
    let pack = storage.blobs.put(b"PACK").unwrap();
    let packs = vec![api::source::Pack { digest: pack, bytes: 4 }];
    let history = api::source::History { version: 1, packs, ..api::source::History::default() };
    let history = storage.blobs.put(&serde_json::to_vec(&history).unwrap()).unwrap();
    let manifest =
        api::source::Manifest { version: 1, files, history: Some(history), ..api::source::Manifest::default() };
    let source = storage.blobs.put(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    let lost = store::blob::digest(b"lost");
    for source in [source, lost] {
        let build = storage.store.reserve_build().unwrap();
        let mut request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
        request.origin.source = Some(source);
        storage.store.append(&[Fact { build, at: at(1), what: What::BuildCreated(Box::new(request)) }]).unwrap();
    }
    let named = Mentions::of_store(&*storage.store).unwrap().resolve(&*storage.blobs).unwrap();
    assert!([file, source, history, pack].iter().all(|digest| named.has(*digest)));
    assert_eq!((named.blobs.len(), named.unreadable), (5, vec![lost]));
}

struct NoSecrets;

impl SecretSource for NoSecrets {
    fn values(&self, _: &str, _: Trust, _: &BTreeSet<String>) -> Result<BTreeMap<String, String>, NoValue> {
        Ok(BTreeMap::new())
    }
}

/// Three days from now, so that what was put just now is old.
fn in_three_days() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Timestamp(i64::try_from(since.as_micros()).expect("not so late") + 3 * DAY_US)
}

fn serve(settings: Settings, data: &Path) -> Running {
    let Storage { store, blobs, logs } = open_storage(&settings, data).unwrap();
    let parts = Parts {
        access: Arc::new(Access::new(RootKey::of(data).unwrap(), Arc::new(StoreLedger(Arc::clone(&store))))),
        store,
        blobs,
        logs: Arc::new(logs),
        secrets: Arc::new(NoSecrets),
        scratch: data.join("scratch"),
        clock: in_three_days,
        early_turns: || (),
    };
    Server::start(settings, parts).unwrap()
}

#[tokio::test]
async fn a_server_lets_go_of_what_is_old() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = open_storage(&settings(), scratch.path()).unwrap();
    let builds: Vec<BuildId> = (0..4).map(|_| add_build(&storage)).collect();
    storage.store.put_record("backup", "under way", b"{}", Expect::Absent, in_three_days()).unwrap();
    drop(storage);
    let running = serve(Settings { builds_keep: 1, builds_keep_for: Days(1), ..settings() }, scratch.path());
    let server = &running.server;
    server.project("sails").unwrap();
    // Until the server's own first one is over too.
    let mut ours = 0;
    loop {
        assert_eq!(sweep(server, Collecting::Yes).await.unwrap(), Swept::default(), "while a backup is made");
        ours += 1;
        if server.sweeps_ended().await > ours {
            break;
        }
    }
    server.store.delete_record("backup", "under way", Expect::Any).unwrap();
    let swept = sweep(server, Collecting::Yes).await.unwrap();
    assert_eq!(swept.builds, BTreeMap::from([("sails".to_owned(), 3)]));
    let there = |build: &BuildId| {
        let blob = server.blobs.contains(store::blob::digest(content(*build).as_bytes())).unwrap();
        let log = server.logs.reader(*build, LogPlace::Ended).unwrap().is_some();
        (server.store.build(*build).unwrap().is_some(), log, blob)
    };
    // Their blobs are left to a later sweep: somebody may have found them just before.
    assert_eq!(builds.iter().map(there).collect::<Vec<_>>()[..2], [(false, false, true), (false, false, true)]);
    let swept = sweep(server, Collecting::Yes).await.unwrap();
    assert_eq!((swept.collected.unwrap().deleted, swept.builds.len()), (3, 0));
    let left: Vec<_> = builds.iter().map(there).collect();
    assert_eq!(left, [(false, false, false), (false, false, false), (false, false, false), (true, true, true)]);
    let audit = server.store.audit(&AuditFilter::default(), None, 9).unwrap();
    let told: Vec<String> = audit.iter().rev().map(|row| format!("{} {}", row.entry.who, row.entry.target)).collect();
    let [builds_told, blobs_told] = &told[..] else { panic!("{told:?}") };
    assert_eq!(builds_told, "retention 3 builds");
    assert!(blobs_told.starts_with("retention removed 3 blobs ("), "{blobs_told}");
    // What the engine holds stays, what is gone cannot be taken up again.
    server.retry(builds[3], BTreeSet::new(), [].into(), ("ann", None)).await.unwrap();
    assert_eq!(server.remove_build(builds[3]).await.unwrap(), Removal::Stays);
    assert!(matches!(
        server.retry(builds[0], BTreeSet::new(), [].into(), ("ann", None)).await,
        Err(RequestError::NoBuild(_))
    ));
    running.end().await.unwrap();
}

#[tokio::test]
async fn restored_records_remove_nothing_from_the_place_of_the_server_they_are_a_copy_of() {
    let scratch = tempfile::tempdir().unwrap();
    let place = |name: &str| scratch.path().join(name);
    let (first, second, copy) = (place("first"), place("second"), place("copy"));
    let own = Settings { blobs_url: BlobsUrl(format!("directory:{}", place("apart").display())), ..settings() };
    let add = || add_build(&open_storage(&own, &first).unwrap());
    add();
    backup::make(&own, &first, None, &copy, at(2)).unwrap();
    add();
    // Whether the first server of this release has marked the place by then or not.
    for is_marked in [false, true] {
        if is_marked {
            let running = serve(own.clone(), &first);
            assert_eq!(sweep(&running.server, Collecting::Yes).await.unwrap().collected.unwrap().deleted, 0);
            running.end().await.unwrap();
        }
        assert_eq!(backup::restore(&copy, &second).unwrap().blobs, BlobsPut::Back);
        let running = serve(own.clone(), &second);
        assert_eq!(sweep(&running.server, Collecting::Yes).await.unwrap().collected, None);
        assert_eq!(running.server.blobs.list().unwrap().len(), 2);
        let checks = examine(&own, &second, Serving::Maybe, Depth::All, in_three_days());
        let findings = checks.iter().flat_map(|check| &check.findings);
        assert!(findings.into_iter().any(|finding| finding.what == "the server removes no blobs"), "{checks:?}");
        if is_marked {
            owner::take(&running.server.records, &*running.server.blobs, at(3)).unwrap();
            // The server's own sweep may have been first.
            assert!(sweep(&running.server, Collecting::Yes).await.unwrap().collected.is_some());
            assert_eq!(running.server.blobs.list().unwrap().len(), 1, "by somebody's word");
        }
        running.end().await.unwrap();
        fs::remove_dir_all(&second).unwrap();
    }
    let running = serve(own.clone(), &first);
    assert_eq!(sweep(&running.server, Collecting::Yes).await.unwrap().collected, None, "it was taken from it");
    running.end().await.unwrap();
}
