//! From one worker's folder to another's, over a depot in memory. Nothing is mounted here: that is the binary's test.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use graph::Environment;
use rustix::fs::{CWD, FileType, Mode};

use super::*;
use crate::attempt::LeftStep;
use crate::depot::memory::Kept;
use crate::entry::Entry;
use crate::files::WINDOW_BYTES;

const BUILD: BuildId = BuildId(1);
const NUMBER: AttemptNumber = AttemptNumber(1);

/// A secret that stands in texts as it is.
struct OneSecret(&'static [u8]);

impl Mask for OneSecret {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let is_there = bytes.windows(self.0.len()).any(|window| window == self.0);
        if is_there { Cow::Owned(b"***".to_vec()) } else { Cow::Borrowed(bytes) }
    }
}

fn text_of(document: &Told) -> &str {
    match document {
        Told::Text(text) => text,
        Told::Blob(digest) => panic!("{digest} is a blob"),
    }
}

/// Two workers and a depot.
struct Ground {
    folder: tempfile::TempDir,
    depot: Kept,
}

impl Ground {
    /// With an attempt of the first worker: one file after its first step, two at its end.
    fn new() -> Self {
        let ground = Self { folder: tempfile::tempdir().unwrap(), depot: Kept::default() };
        let snapshot = ground.snapshot("a");
        let directory = ground.directory("a");
        drop(Workspace::create(&snapshot, &directory, Files::All, &graph::Environment::Host).unwrap());
        ground.write("steps/0/upper/one", b"1");
        ground.write("upper/one", b"one");
        ground.write("upper/two", b"two");
        let step = |step: u16, layer| LeftStep {
            step,
            name: format!("step-{step}"),
            id: Some(format!("id-{step}")),
            layer,
            directory: ground.path("a/tree/sub"),
            differs: BTreeMap::new(),
        };
        let tree = ground.path("a/tree");
        let left = LeftBehind {
            variables: [("PLACE".to_owned(), format!("{}/sub:/else", tree.display()))].into(),
            directory: tree.clone(),
            environment: Environment::Host,
            container: None,
            programs: BTreeSet::new(),
            withheld: BTreeSet::new(),
            start: Layer::Nothing,
            steps: vec![step(0, Layer::Kept(0)), step(1, Layer::End)],
            failed: Some(1),
            arrived: None,
        };
        let file = environment_file(&ground.path("a"), BUILD, NUMBER);
        fs::write(file, serde_json::to_vec(&left).unwrap()).unwrap();
        ground
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    fn directory(&self, worker: &str) -> PathBuf {
        workspace_directory(&self.path(worker), BUILD, NUMBER)
    }

    /// A snapshot of the same tree on a worker.
    fn snapshot(&self, worker: &str) -> Snapshot {
        let tree = self.path(&format!("{worker}/tree"));
        fs::create_dir_all(&tree).unwrap();
        let directory = crate::place::snapshot_directory(&self.path(worker), BUILD);
        Snapshot::of_immutable(&tree, Path::new(""), &tree, &directory).unwrap()
    }

    /// Writes below the first worker's workspace.
    fn write(&self, path: &str, content: &[u8]) {
        let path = self.directory("a").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn send(&self, mask: Option<&dyn Mask>, bytes_max: u64) -> Result<Sent, TravelFault> {
        let data = self.path("a");
        send(Attempt { data: &data, build: BUILD, attempt: NUMBER }, mask, bytes_max, &self.depot)
    }

    fn fetch(&self, document: &Told, moment: &str) -> Result<LeftBehind, TravelFault> {
        let data = self.path("b");
        let attempt = Attempt { data: &data, build: BUILD, attempt: NUMBER };
        let moment = if moment.is_empty() { Moment::End } else { Moment::read(moment) };
        fetch(attempt, document, &self.snapshot("b"), &moment, &self.depot)?;
        assert!(!attempt.is_own());
        Ok(attempt.left().unwrap())
    }

    /// Where the files of a moment are on the second worker.
    fn arrived(&self, left: &LeftBehind, moment: &Moment) -> PathBuf {
        match layer_of(left, moment).unwrap() {
            Layer::Kept(number) => layer_directory(&self.directory("b"), number).join("upper"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_layer_has_arrives_as_it_was() {
    let ground = Ground::new();
    let upper = ground.directory("a").join("upper");
    ground.write("upper/opaque/deep/file", &vec![7; 300_000]);
    ground.write("upper/shut/file", b"x");
    ground.write("tmp/temporary", b"t");
    fs::hard_link(upper.join("one"), upper.join("twin")).unwrap();
    symlink("/nowhere", upper.join("link")).unwrap();
    rustix::fs::mknodat(CWD, upper.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    crate::workspace::make_opaque(&upper.join("opaque")).unwrap();
    fs::set_permissions(upper.join("shut"), fs::Permissions::from_mode(0o500)).unwrap();
    let sent = ground.send(None, BYTES_MAX).unwrap();
    let left = ground.fetch(&sent.document, "").unwrap();
    let arrived = ground.arrived(&left, &Moment::End);
    for (path, content) in [("one", "one"), ("two", "two"), ("twin", "one"), ("shut/file", "x")] {
        assert_eq!(fs::read_to_string(arrived.join(path)).unwrap(), content, "{path}");
    }
    assert_eq!(fs::read(arrived.join("opaque/deep/file")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read_link(arrived.join("link")).unwrap(), Path::new("/nowhere"));
    assert!(is_whiteout(&fs::symlink_metadata(arrived.join("gone")).unwrap()));
    assert!(is_opaque(&arrived.join("opaque")) && !is_opaque(&arrived.join("shut")));
    for path in ["one", "shut", "opaque"] {
        let [before, after] = [&upper, &arrived].map(|root| fs::metadata(root.join(path)).unwrap());
        assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "{path}");
        assert_eq!(before.mode(), after.mode(), "{path}");
    }
    assert_eq!(fs::read(arrived.with_file_name("tmp").join("temporary")).unwrap(), b"t");
    // The step before it comes when it is asked for.
    let first = ground.arrived(&left, &Moment::read("1"));
    for other in ["id-0", "step-0"] {
        assert_eq!(ground.arrived(&left, &Moment::read(other)), first, "{other}");
    }
    assert!(!first.exists());
    ground.fetch(&sent.document, "1").unwrap();
    assert_eq!(fs::read_to_string(first.join("one")).unwrap(), "1");
    // The tree is at another path here.
    let tree = ground.path("b/tree");
    assert_eq!(left.directory, tree);
    assert_eq!(left.variables["PLACE"], format!("{}/sub:/else", tree.display()));
    // What is there already is not put again.
    ground.depot.clear();
    assert_eq!(ground.send(None, BYTES_MAX).unwrap(), sent);
}

#[test]
fn a_restored_cache_is_named_and_not_sent() {
    let ground = Ground::new();
    ground.write("made/0/f", &vec![9; 500_000]);
    let root = ground.directory("a").join("made");
    let found = ["0", "0/f"].map(|name| {
        let place = root.join(name);
        let metadata = fs::metadata(&place).unwrap();
        (PathBuf::from(name), Found { path: name.into(), place, metadata })
    });
    let kept = chunked::keep(&found, &[], Bounds { files_max: 9, bytes_max: 1 << 20 }, &ground.depot).unwrap();
    let shown = Shown { index: kept.digest, paths: vec!["kept/here".to_owned()] };
    let mut workspace = Workspace::reopen(&ground.directory("a")).unwrap();
    let layers = cache_layers(&ground.path("a"), &workspace).unwrap();
    let trees = shown.trees(&layers, &ground.depot).unwrap();
    workspace.set_above(trees).unwrap();
    let sent = ground.send(None, 1000).unwrap();
    assert!(sent.bytes < 10_000, "{} bytes without the cache", sent.bytes);
    assert!(!sent.blobs.contains(&kept.digest), "the cache is kept for as long as its entry");
    for moment in ["", "1"] {
        ground.fetch(&sent.document, moment).unwrap();
        let outline = Workspace::outline(&ground.directory("b")).unwrap().unwrap();
        assert_eq!(outline.above.len(), 1);
        assert!(outline.above[0].starts_with(ground.path("b/cache-layers")), "shared with jobs of this worker");
        assert_eq!(fs::read(outline.above[0].join("kept/here/f")).unwrap(), vec![9; 500_000]);
    }
    workspace::remove_tree(&ground.path("b")).unwrap();
    ground.depot.blobs.lock().unwrap().remove(&kept.digest);
    let fault = ground.fetch(&sent.document, "").unwrap_err().to_string();
    assert!(fault.starts_with("a cache that it was given cannot be had any more: "), "{fault}");
}

#[test]
fn a_file_with_a_secret_stays() {
    let ground = Ground::new();
    // It begins before the first cut and ends behind it.
    let mut long = vec![b'.'; WINDOW_BYTES + 100];
    long[WINDOW_BYTES - 3..WINDOW_BYTES + 3].copy_from_slice(b"secret");
    ground.write("upper/long", &long);
    ground.write("upper/sub/short", b"a secret");
    ground.write("steps/0/upper/one", b"no secret");
    ground.write("tmp/it", b"secret");
    symlink("/the/secret", ground.directory("a").join("upper/link")).unwrap();
    let sent = ground.send(Some(&OneSecret(b"secret")), BYTES_MAX).unwrap();
    for (digest, bytes) in &*ground.depot.blobs.lock().unwrap() {
        assert!(!bytes.windows(7).any(|window| window == b" secret"), "{digest}");
    }
    let left = ground.fetch(&sent.document, "").unwrap();
    let arrived = ground.arrived(&left, &Moment::End);
    for path in ["long", "sub/short", "link"] {
        assert!(is_whiteout(&fs::symlink_metadata(arrived.join(path)).unwrap()), "{path}");
    }
    assert_eq!(fs::read(arrived.join("two")).unwrap(), b"two");
    let notes = &left.arrived.as_ref().unwrap().notes;
    assert_eq!(notes[0], "without files that hold a secret: `/tmp/it`, `link`, `long`, `one`, `sub/short`");
    assert_eq!(notes.len(), 2, "and where its tree was");
    let entry = Entry::open(&ground.path("b"), BUILD, NUMBER, &Moment::End, BTreeMap::new()).unwrap();
    assert_eq!(entry.hidden(), Some(notes.join("; ").as_str()), "a shell of one command says it, too");
}

#[test]
fn a_name_with_a_secret_stays() {
    let ground = Ground::new();
    for path in ["upper/a-hushed-name", "upper/the-hushed/below", "tmp/hush", "steps/0/upper/sub/se-hushed"] {
        ground.write(path, b"plain");
    }
    // Of the name that goes on over a slash, too.
    ground.write("upper/se/cr", b"plain");
    let sent = ground.send(Some(&OneSecret(b"hushed")), BYTES_MAX).unwrap();
    let other = ground.send(Some(&OneSecret(b"se/cr")), BYTES_MAX).unwrap();
    let note = ground.fetch(&other.document, "").unwrap().arrived.unwrap().notes.swap_remove(0);
    assert_eq!(note, "without files that hold a secret: `***`");
    for (digest, bytes) in &*ground.depot.blobs.lock().unwrap() {
        let is_sent = sent.blobs.contains(digest);
        assert!(!is_sent || !bytes.windows(6).any(|window| window == b"hushed"), "{digest}");
    }
    assert!(!text_of(&sent.document).contains("hushed"));
    let left = ground.fetch(&sent.document, "").unwrap();
    let arrived = crate::workspace::entries(&ground.arrived(&left, &Moment::End)).unwrap();
    let arrived: BTreeSet<PathBuf> = arrived.into_iter().collect();
    assert_eq!(arrived, ["one", "se/cr", "two"].map(PathBuf::from).into());
    let notes = &left.arrived.as_ref().unwrap().notes;
    assert_eq!(notes[0], "without files that hold a secret: `***`");
}

/// A secret that is in nothing, and is not looked for in so much.
struct NotIn(usize);

impl Mask for NotIn {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        assert!(bytes.len() < self.0, "{} bytes are looked through", bytes.len());
        Cow::Borrowed(bytes)
    }
}

#[test]
fn what_is_too_much_is_not_looked_through() {
    let ground = Ground::new();
    ground.write("upper/large", &[1; 3000]);
    assert!(matches!(ground.send(Some(&NotIn(2000)), 2000), Err(TravelFault::Bytes(2000))));
}

#[test]
fn a_long_document_is_a_blob() {
    let ground = Ground::new();
    let sent = ground.send(None, BYTES_MAX).unwrap();
    assert!(text_of(&sent.document).len() <= TEXT_BYTES_MAX);
    let data = ground.path("a");
    let mut left = Attempt { data: &data, build: BUILD, attempt: NUMBER }.left().unwrap();
    left.variables.insert("LONG".to_owned(), "long ".repeat(TEXT_BYTES_MAX));
    fs::write(environment_file(&data, BUILD, NUMBER), serde_json::to_vec(&left).unwrap()).unwrap();
    let longer = ground.send(None, BYTES_MAX).unwrap();
    let Told::Blob(digest) = longer.document else { panic!("{:?}", longer.document) };
    assert!(longer.blobs.contains(&digest) && longer.blobs.len() == sent.blobs.len() + 1);
    let arrived = ground.fetch(&longer.document, "").unwrap();
    assert_eq!(arrived.variables["LONG"], left.variables["LONG"]);
}

#[test]
fn what_is_too_much_stays_and_is_told() {
    let ground = Ground::new();
    ground.write("steps/0/upper/large", &[1; 3000]);
    let left = ground.fetch(&ground.send(None, 2000).unwrap().document, "").unwrap();
    let Layer::Unkept(reason) = &left.steps[0].layer else { panic!("{:?}", left.steps[0].layer) };
    assert!(reason.contains("did not leave the worker") && reason.contains("more than 0 MiB"), "{reason}");
    assert_eq!(fs::read(ground.arrived(&left, &Moment::Failed).join("two")).unwrap(), b"two");
    assert!(matches!(ground.send(None, 5), Err(TravelFault::Bytes(5))));
}

#[test]
fn what_is_damaged_or_hostile_is_refused() {
    let ground = Ground::new();
    let sent = ground.send(None, BYTES_MAX).unwrap();
    for text in ["{}", "", "[1]"] {
        for document in [Told::Text(text.to_owned()), Told::Blob(ground.depot.put(text.as_bytes()).unwrap())] {
            assert!(matches!(ground.fetch(&document, ""), Err(TravelFault::Damaged(_))), "{text:?}");
        }
    }
    let mut document: serde_json::Value = serde_json::from_str(text_of(&sent.document)).unwrap();
    document["version"] = (VERSION + 1).into();
    let fault = ground.fetch(&Told::Text(document.to_string()), "").unwrap_err();
    assert!(fault.to_string().contains("update the worker"));
    // A link in a layer, and a name below it.
    document["version"] = VERSION.into();
    let entry = |path: &str, kind| chunked::Entry { path: path.into(), mode: 0o755, modified_ns: 0, kind };
    let outside = ground.path("outside");
    fs::create_dir(&outside).unwrap();
    for inside in [Kind::Whiteout, Kind::Directory, Kind::Link { target: "x".into() }] {
        let link = entry("1/upper/d", Kind::Link { target: outside.clone() });
        let entries = vec![link, entry("1/upper/d/x", inside)];
        let index = ground.depot.put(&Index { entries, ..Index::default() }.encode()).unwrap();
        document["index"] = serde_json::to_value(index).unwrap();
        let _ = ground.fetch(&Told::Text(document.to_string()), "");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn a_path_is_moved_where_it_is_one() {
    for (text, expected) in [
        ("/a/b", "/new"),
        ("/a/b/c:/a/b", "/new/c:/new"),
        ("-I/a/b/include", "-I/new/include"),
        ("/a/bc /a/b-c /a/b.c", "/a/bc /a/b-c /a/b.c"),
        ("", ""),
    ] {
        assert_eq!(moved(text, "/a/b", "/new"), expected, "{text}");
    }
}
