//! Restoring and saving over real directories and a depot in memory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use graph::{Digest, Trust};

use super::*;
use crate::depot::memory::Kept;

/// A workspace and a home.
struct Ground {
    depot: Kept,
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("home")).unwrap();
        Self { depot: Kept::default(), directory }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The job's own workspace of this name, and the user's home.
    fn places(&self, workspace: &str, workspace_owner: Owner) -> Places {
        let workspace = self.path(workspace);
        fs::create_dir_all(&workspace).unwrap();
        Places {
            workspace,
            workspace_owner,
            home: Home::at(&self.path("home"), "", Owner::User),
            records: Some(self.path("records")),
            layers: None,
            sources: None,
        }
    }

    fn restore(&self, cache: &Cache, places: &Places) -> Restored {
        cache.restore(Trust::Trusted, places, &self.depot).unwrap()
    }

    /// Saves, and says how many bytes were put.
    fn save(&self, cache: &Cache, places: &Places, restored: &Restored) -> usize {
        self.depot.clear();
        assert_eq!(
            cache.save(Trust::Trusted, places, restored, &Secrets::default(), &self.depot).unwrap().saved,
            CacheSaved::Saved
        );
        *self.depot.put_bytes.lock().unwrap()
    }
}

fn cache(key: &str, paths: &[&str]) -> Cache {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Cache { key: key.to_owned(), restore: vec!["k-".to_owned()], paths }
}

/// Bytes that no compressor and no accident makes equal.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_round_trip_keeps_bytes_modes_times_and_links() {
    let ground = Ground::new();
    let places = ground.places("one", Owner::Job);
    let big = noise("big", 3 << 20);
    ground.write("one/target/big", &big);
    ground.write("one/target/deep/empty", b"");
    ground.write("home/.tool/program", b"#!/bin/sh\n");
    fs::set_permissions(ground.path("home/.tool/program"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(ground.path("one/target/nothing")).unwrap();
    symlink("/etc/passwd", ground.path("one/target/link")).unwrap();
    let cache = cache("k-1", &["target", "~/.tool"]);
    ground.save(&cache, &places, &Restored::nothing());

    fs::rename(ground.path("home/.tool"), ground.path("before")).unwrap();
    let places = ground.places("two", Owner::Job);
    assert_eq!(ground.restore(&cache, &places).found, Found::Exact);
    assert!(fs::read(ground.path("two/target/big")).unwrap() == big);
    assert_eq!(fs::read(ground.path("two/target/deep/empty")).unwrap(), b"");
    assert!(ground.path("two/target/nothing").is_dir());
    assert_eq!(fs::read_link(ground.path("two/target/link")).unwrap(), Path::new("/etc/passwd"));
    let [before, after] = ["before/program", "home/.tool/program"].map(|path| fs::metadata(ground.path(path)).unwrap());
    assert_eq!(after.permissions().mode() & 0o777, 0o755);
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
}

#[test]
fn directories_keep_their_modes() {
    let ground = Ground::new();
    for number in 0..40 {
        ground.write(&format!("one/d/s/{number}"), b"1");
    }
    let change = |path: &str, mode: u32| {
        fs::set_permissions(ground.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let modes = |folder: &Path| {
        ["d", "d/s"].map(|path| fs::metadata(folder.join(path)).map_or(0, |found| found.permissions().mode() & 0o777))
    };
    let save = |number: usize| {
        let places = ground.places("one", Owner::Job);
        ground.save(&cache(&format!("k-{number}"), &["d"]), &places, &Restored::nothing());
    };
    change("one/d", 0o700);
    change("one/d/s", 0o750);
    save(0);
    ground.restore(&cache("k-0", &["d"]), &ground.places("two", Owner::Job));
    assert_eq!(modes(&ground.path("two")), [0o700, 0o750]);

    let mut places = ground.places("one", Owner::Job);
    places.layers = Some(layers(&ground, Vec::new()));
    let layers = |number: usize| ground.restore(&cache(&format!("k-{number}"), &["d"]), &places).layers;
    assert_eq!(modes(&layers(0)[0]), [0o700, 0o750]);
    // Of a thin layer the directories are seen that lead to what changed.
    ground.write("one/d/s/7", b"changed");
    save(1);
    let [above, _] = &layers(1)[..] else { panic!("two layers") };
    assert_eq!(modes(above), [0o700, 0o750]);
    change("one/d", 0o755);
    save(2);
    assert_eq!(modes(&layers(2)[0]), [0o755, 0o750]);

    // What is the user's stays as it is.
    fs::create_dir_all(ground.path("three/d")).unwrap();
    let before = modes(&ground.path("three"))[0];
    ground.restore(&cache("k-0", &["d"]), &ground.places("three", Owner::User));
    assert_eq!(modes(&ground.path("three")), [before, 0o750]);
}

#[test]
fn a_saving_puts_what_changed_and_no_more() {
    let ground = Ground::new();
    let places = ground.places("one", Owner::Job);
    for number in 0..200 {
        ground.write(&format!("one/d/{number}"), &noise(&number.to_string(), 40_000));
    }
    let first = ground.save(&cache("k-1", &["d"]), &places, &Restored::nothing());
    assert!(first > 200 * 40_000);

    let places = ground.places("two", Owner::Job);
    let next = cache("k-2", &["d"]);
    let restored = ground.restore(&next, &places);
    assert_eq!(restored.found, Found::Prefix("k-1".to_owned()));
    // Same length, same time, other bytes: only the time of change tells.
    let changed = ground.path("two/d/7");
    let modified = fs::metadata(&changed).unwrap().modified().unwrap();
    fs::write(&changed, noise("changed", 40_000)).unwrap();
    fs::File::open(&changed).unwrap().set_modified(modified).unwrap();
    fs::remove_file(ground.path("two/d/8")).unwrap();
    fs::rename(ground.path("two/d/9"), ground.path("two/d/moved")).unwrap();
    let put = ground.save(&next, &places, &restored);
    assert!((40_000..100_000).contains(&put), "{put} bytes: the changed file and the index");

    let places = ground.places("three", Owner::Job);
    ground.restore(&next, &places);
    assert!(fs::read(ground.path("three/d/7")).unwrap() == noise("changed", 40_000));
    assert!(fs::read(ground.path("three/d/moved")).unwrap() == noise("9", 40_000));
    assert!(!ground.path("three/d/8").exists() && !ground.path("three/d/9").exists());
    assert_eq!(fs::read_dir(ground.path("three/d")).unwrap().count(), 199);
}

/// Where the layers of the place `one` lie, over these.
fn layers(ground: &Ground, lower: Vec<PathBuf>) -> Layers {
    Layers {
        folder: ground.path(LAYERS),
        workspaces: ground.path("workspaces"),
        shown: ground.path("one"),
        repository: ground.path("one"),
        prefix: PathBuf::new(),
        upper: ground.path("upper"),
        lower,
    }
}

/// A job's own layer, what it is made of, and what steps see, laid by hand.
fn layered(ground: &Ground) -> (Places, Restored) {
    let mut places = ground.places("one", Owner::Job);
    for name in ["a", "b", "c/d"] {
        ground.write(&format!("one/kept/{name}"), name.as_bytes());
    }
    let cache = cache("k-1", &["kept"]);
    ground.save(&cache, &places, &Restored::nothing());
    ground.write("upper/other", b"");
    places.layers = Some(layers(ground, vec![ground.path("below")]));
    let restored = ground.restore(&cache, &places);
    places.layers.as_mut().unwrap().lower.splice(0..0, restored.layers.iter().cloned());
    (places, restored)
}

#[test]
fn a_thin_layer_holds_what_changed_and_keeps_the_whole_one() {
    let ground = Ground::new();
    for number in 0..40 {
        ground.write(&format!("one/kept/d/{number}"), &noise(&number.to_string(), 100));
    }
    ground.save(&cache("k-0", &["kept"]), &ground.places("one", Owner::Job), &Restored::nothing());
    let mut places = ground.places("one", Owner::Job);
    places.layers = Some(layers(&ground, Vec::new()));
    let restored = |number: usize| ground.restore(&cache(&format!("k-{number}"), &["kept"]), &places).layers;
    let [whole] = &restored(0)[..] else { panic!("one layer") };
    let mut thin = PathBuf::new();
    for number in 1..=6 {
        ground.write(&format!("one/kept/d/{number}"), b"changed");
        let _ = fs::remove_file(ground.path("one/kept/d/30"));
        ground.save(&cache(&format!("k-{number}"), &["kept"]), &ground.places("one", Owner::Job), &Restored::nothing());
        let [above, below] = &restored(number)[..] else { panic!("two layers") };
        assert_eq!(below, whole);
        assert_eq!(fs::read_dir(above.join("kept/d")).unwrap().count(), number + 1, "what changed, and a whiteout");
        if number > 1 {
            let inode = |tree: &Path| fs::metadata(tree.join("kept/d/1")).unwrap().ino();
            assert_eq!(inode(above), inode(&thin), "what the one before has is there once");
        }
        thin.clone_from(above);
    }
    // Of a manifest that names the thin one alone, the whole one stays.
    ground.write("workspaces/1/1/workspace.json", thin.display().to_string().as_bytes());
    remove_layers(ground.directory.path());
    assert!(whole.is_dir() && thin.is_dir());
    assert_eq!(fs::read_dir(whole.parent().unwrap().parent().unwrap()).unwrap().count(), 2);
    fs::remove_dir_all(whole).unwrap();
    fs::remove_file(whole.with_file_name("index")).unwrap();
    assert_eq!(restored(6).len(), 1, "a thin one alone is nothing");
}

#[test]
fn hard_links_stay_links_in_a_layer_alone() {
    let ground = Ground::new();
    ground.write("one/kept/deps/program", &noise("program", 100_000));
    fs::hard_link(ground.path("one/kept/deps/program"), ground.path("one/kept/program")).unwrap();
    // Of another time, so that nobody can have linked them.
    ground.write("one/kept/other", &noise("program", 100_000));
    let cache = cache("k-1", &["kept"]);
    ground.save(&cache, &ground.places("one", Owner::Job), &Restored::nothing());
    let names = |tree: &Path| {
        let inode = |name: &str| fs::metadata(tree.join("kept").join(name)).unwrap().ino();
        ["deps/program", "program", "other"].map(inode)
    };
    let mut places = ground.places("one", Owner::Job);
    places.layers = Some(layers(&ground, Vec::new()));
    let [deep, near, other] = names(&ground.restore(&cache, &places).layers[0]);
    assert!(deep == near && near != other);
    // A job may write into these.
    ground.restore(&cache, &ground.places("two", Owner::Job));
    let [deep, near, _] = names(&ground.path("two"));
    assert!(deep != near);
}

#[test]
fn what_changed_of_a_layer_is_told_by_the_jobs_own() {
    let ground = Ground::new();
    let (places, restored) = layered(&ground);
    // Only the job's own layer says that the first was changed: nobody looks at the second.
    for name in ["a", "b"] {
        ground.write(&format!("one/kept/{name}"), b"changed");
    }
    ground.write("upper/kept/a", b"what is here is not read");
    ground.save(&cache("k-2", &["kept"]), &places, &restored);
    ground.restore(&cache("k-2", &["kept"]), &ground.places("two", Owner::Job));
    let read = |name: &str| String::from_utf8(fs::read(ground.path(&format!("two/kept/{name}"))).unwrap()).unwrap();
    assert_eq!(["a", "b", "c/d"].map(read), ["changed", "b", "c/d"]);
}

#[test]
fn files_of_other_layers_are_saved_with_a_layer() {
    let ground = Ground::new();
    let (places, restored) = layered(&ground);
    ground.write("below/kept/tracked", b"tracked");
    ground.write("one/kept/tracked", b"tracked");
    ground.save(&cache("k-2", &["kept"]), &places, &restored);
    ground.restore(&cache("k-2", &["kept"]), &ground.places("two", Owner::Job));
    assert_eq!(fs::read(ground.path("two/kept/tracked")).unwrap(), b"tracked");
}

#[test]
fn equal_files_give_equal_packs_without_a_base() {
    let ground = Ground::new();
    for place in ["one", "two"] {
        ground.places(place, Owner::Job);
        for number in 0..500 {
            ground.write(&format!("{place}/d/{number}"), &noise(&number.to_string(), 40_000));
        }
    }
    ground.write("two/d/0", b"another beginning");
    ground.save(&cache("k-1", &["d"]), &ground.places("one", Owner::Job), &Restored::nothing());
    let before = ground.depot.blobs.lock().unwrap().len();
    ground.save(&cache("k-2", &["d"]), &ground.places("two", Owner::Job), &Restored::nothing());
    let after = ground.depot.blobs.lock().unwrap().len();
    assert!(before > 4, "{before} blobs");
    assert_eq!(after - before, 2, "the first pack and the index");
}

#[test]
fn a_users_directory_is_known_from_one_job_to_the_next() {
    let ground = Ground::new();
    let places = ground.places("one", Owner::User);
    for number in 0..20 {
        ground.write(&format!("one/d/{number}"), &noise(&number.to_string(), 40_000));
    }
    let (first, second) = (cache("k-1", &["d"]), cache("k-2", &["d"]));
    // What was changed in the tick of the saving itself is read again by the next one; these are older.
    let _ = chunked::next_moment_ns();
    ground.save(&first, &places, &Restored::nothing());
    let restored = ground.restore(&first, &places);
    assert_eq!(restored.found, Found::Exact);
    assert!(*ground.depot.opened.lock().unwrap() <= 1, "all is there: only the index is read");
    ground.write("one/d/3", b"the user's");
    let restored = ground.restore(&second, &places);
    assert_eq!(fs::read(ground.path("one/d/3")).unwrap(), b"the user's", "nothing of a user's is replaced");
    let put = ground.save(&second, &places, &restored);
    assert!(put < 10_000, "{put} bytes: the index and ten bytes");
    let other = ground.places("two", Owner::Job);
    ground.restore(&second, &other);
    assert_eq!(fs::read(ground.path("two/d/3")).unwrap(), b"the user's");
}

#[test]
fn a_file_that_was_there_is_never_taken_for_the_restored_one() {
    let ground = Ground::new();
    ground.write("one/d/a", b"cached");
    let modified = fs::metadata(ground.path("one/d/a")).unwrap().modified().unwrap();
    ground.save(&cache("k-1", &["d"]), &ground.places("one", Owner::Job), &Restored::nothing());
    // As long, as old, and something else.
    ground.write("two/d/a", b"differs"[..6].as_ref());
    fs::File::open(ground.path("two/d/a")).unwrap().set_modified(modified).unwrap();
    let (places, next) = (ground.places("two", Owner::User), cache("k-2", &["d"]));
    let restored = ground.restore(&next, &places);
    ground.save(&next, &places, &restored);
    ground.restore(&next, &ground.places("three", Owner::Job));
    assert_eq!(fs::read(ground.path("three/d/a")).unwrap(), b"differ");
}

#[test]
fn packs_that_are_gone_or_mostly_waste_are_packed_anew() {
    let ground = Ground::new();
    let places = ground.places("one", Owner::Job);
    for number in 0..200 {
        ground.write(&format!("one/d/{number}"), &noise(&number.to_string(), 40_000));
    }
    ground.save(&cache("k-1", &["d"]), &places, &Restored::nothing());
    let next = cache("k-2", &["d"]);
    let places = ground.places("two", Owner::Job);
    let restored = ground.restore(&next, &places);
    let packs = ground.depot.entries.lock().unwrap()[0].1.packs.clone();
    ground.depot.blobs.lock().unwrap().remove(&packs[0].digest);
    let put = ground.save(&next, &places, &restored);
    assert!(put > packs[0].bytes as usize && put < 2 * packs[0].bytes as usize, "{put} bytes");
    ground.restore(&next, &ground.places("three", Owner::Job));
    assert_eq!(fs::read_dir(ground.path("three/d")).unwrap().count(), 200);

    let last = cache("k-3", &["d"]);
    let places = ground.places("four", Owner::Job);
    let restored = ground.restore(&last, &places);
    for number in 5..200 {
        fs::remove_file(ground.path(&format!("four/d/{number}"))).unwrap();
    }
    ground.save(&last, &places, &restored);
    let entries = ground.depot.entries.lock().unwrap();
    let packs = &entries.last().unwrap().1.packs;
    assert_eq!(packs.iter().map(|pack| pack.bytes).sum::<u32>(), 5 * 40_000, "nothing old is held for five files");
}

#[test]
fn of_a_large_file_that_changed_only_what_changed_is_put() {
    let ground = Ground::new();
    let large = noise("large", 20 << 20);
    ground.write("one/d/large", &large);
    ground.save(&cache("k-1", &["d"]), &ground.places("one", Owner::Job), &Restored::nothing());
    let (next, places) = (cache("k-2", &["d"]), ground.places("two", Owner::Job));
    let restored = ground.restore(&next, &places);
    // All behind it is moved on.
    let changed = [b"a beginning", &large[..]].concat();
    ground.write("two/d/large", &changed);
    let put = ground.save(&next, &places, &restored);
    assert!(put < 600_000, "{put} bytes");
    ground.restore(&next, &ground.places("three", Owner::Job));
    assert!(fs::read(ground.path("three/d/large")).unwrap() == changed);
}

#[test]
fn an_entry_that_is_one_archive_is_restored() {
    let ground = Ground::new();
    let cache = cache("k-1", &["d"]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_size(3);
    header.set_mtime(1_000_000);
    archive.append_data(&mut header, "0/a", b"old".as_slice()).unwrap();
    let digest = ground.depot.put(&archive.into_inner().unwrap()).unwrap();
    let entry = CacheEntry { key: "k-1".to_owned(), digest, bytes: 9, packs: Vec::new() };
    ground.depot.save_cache(&cache.scope(Trust::Trusted), &entry, None).unwrap();
    let restored = ground.restore(&cache, &ground.places("one", Owner::Job));
    assert_eq!((restored.found, restored.bases.len()), (Found::Exact, 0));
    assert_eq!(fs::read(ground.path("one/d/a")).unwrap(), b"old");
    assert_eq!(fs::metadata(ground.path("one/d/a")).unwrap().mtime(), 1_000_000);
}

#[test]
fn what_is_saved_takes_the_place_of_a_damaged_entry() {
    let ground = Ground::new();
    let cache = cache("k-1", &["d"]);
    ground.write("one/d/a", &noise("a", 50_000));
    ground.save(&cache, &ground.places("one", Owner::Job), &Restored::nothing());
    let entry = ground.depot.entries.lock().unwrap()[0].1.clone();
    for digest in [entry.digest, entry.packs[0].digest] {
        ground.depot.blobs.lock().unwrap().get_mut(&digest).unwrap()[20] ^= 1;
        let places = ground.places("two", Owner::Job);
        let fault = cache.restore(Trust::Trusted, &places, &ground.depot).expect_err("it is damaged");
        assert!(!ground.depot.blobs.lock().unwrap().contains_key(&digest), "the depot was told: {fault}");
        // An entry of a prefix is not the key's own.
        let next = Cache { key: "k-2".to_owned(), ..cache.clone() };
        let of_next = next.restore(Trust::Trusted, &places, &ground.depot).expect_err("it is gone");
        assert_eq!(Restored::refused(&of_next).found, Found::Refused(None));
        let restored = Restored::refused(&fault);
        assert_eq!(restored.found, Found::Refused(Some(entry.digest)));
        ground.write("two/d/a", &noise("a", 50_000));
        for path in ["d/a", "d"] {
            let [one, two] = ["one", "two"].map(|folder| ground.path(folder).join(path));
            fs::File::open(two).unwrap().set_modified(modified(&one)).unwrap();
        }
        ground.save(&cache, &places, &restored);
        assert_eq!(ground.depot.entries.lock().unwrap().len(), 1);
        assert_eq!(ground.restore(&cache, &ground.places("three", Owner::Job)).found, Found::Exact);
    }
}

/// When a file was changed last.
fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[track_caller]
fn check_refused(change: impl FnOnce(&Ground, CacheEntry) -> Digest, prepare: impl FnOnce(&Ground), expected: &str) {
    let ground = Ground::new();
    ground.write("victim", b"safe");
    ground.write("one/d/a", b"content");
    let cache = cache("k-1", &["d"]);
    ground.save(&cache, &ground.places("one", Owner::Job), &Restored::nothing());
    let entry = ground.depot.entries.lock().unwrap().pop().unwrap().1;
    let digest = change(&ground, entry.clone());
    ground.depot.save_cache(&cache.scope(Trust::Trusted), &CacheEntry { digest, ..entry }, None).unwrap();
    let places = ground.places("two", Owner::Job);
    prepare(&ground);
    let fault = cache.restore(Trust::Trusted, &places, &ground.depot).expect_err("it is refused").to_string();
    assert!(fault.contains(expected), "{fault}");
    assert_eq!(fs::read(ground.path("victim")).unwrap(), b"safe");
}

/// Another index in the place of an entry's.
fn changed(change: impl Fn(&mut Index)) -> impl FnOnce(&Ground, CacheEntry) -> Digest {
    move |ground, entry| {
        let Ok(Loaded::Index(mut index)) = chunked::load(entry.digest, &ground.depot) else { panic!("an index") };
        change(&mut index);
        ground.depot.put(&index.encode()).unwrap()
    }
}

#[test]
fn hostile_and_damaged_entries_are_refused() {
    let nothing = |_: &Ground| {};
    check_refused(
        changed(|index| index.entries[1].path = "0/../../victim".into()),
        nothing,
        "it names `0/../../victim`",
    );
    check_refused(changed(|index| index.chunks[0].digest = Digest([1; 32])), nothing, "damaged: a chunk of pack");
    check_refused(changed(|index| index.packs[0].digest = Digest([1; 32])), nothing, "is not kept any more");
    check_refused(changed(|index| index.packs[0].bytes += 1), nothing, "it is not as long as the index says");
    let link = |ground: &Ground| symlink("..", ground.path("two/d")).unwrap();
    check_refused(|_, entry| entry.digest, link, "`d` is in the way and is no directory");
}

#[test]
fn beside_other_sources_files_are_older_than_these() {
    const SECOND: i64 = 1_000_000_000;
    let ground = Ground::new();
    let modified = |path: &str| chunked::modified_ns(&fs::symlink_metadata(ground.path(path)).unwrap());
    let set = |path: &str, seconds: u64| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::open(ground.path(path)).unwrap().set_modified(time).unwrap();
    };
    let snapshot = |name: &str, passed: Passed| {
        let (tree, shown, layers) =
            (ground.path(&format!("{name}-tree")), ground.path(name), ground.path(&format!("{name}-layers")));
        fs::create_dir_all(&shown).unwrap();
        let snapshot = crate::workspace::Snapshot::of_immutable(&tree, Path::new(""), &shown, &layers).unwrap();
        let saved_here = ground.path("cache-trees");
        Sources { saved_here, tree: shown, snapshot: Some(Arc::new(snapshot)), passed }
    };
    for (tree, seconds) in [("a", 2_000), ("b", 1_000)] {
        ground.write(&format!("{tree}-tree/deep/source"), b"text");
        set(&format!("{tree}-tree/deep/source"), seconds);
        ground.write(&format!("{tree}-tree/.git/older"), b"text");
        set(&format!("{tree}-tree/.git/older"), 1);
    }
    let places =
        |workspace: &str, sources: Sources| Places { sources: Some(sources), ..ground.places(workspace, Owner::Job) };
    ground.write("one/target/made", b"made");
    ground.write("one/target/later", b"later");
    set("one/target/made", 3_000);
    set("one/target/later", 3_007);
    set("one/target", 3_007);
    let cache = cache("k-1", &["target"]);
    ground.save(&cache, &places("one", snapshot("a", Passed::default())), &Restored::nothing());
    // Where it was saved it is as it was, in whatever state the tree is.
    let passed = Passed(Some(Arc::new(|| true)));
    ground.restore(&cache, &places("two", snapshot("a", passed.clone())));
    assert_eq!(modified("two/target/made"), 3_000 * SECOND);
    // In another tree all of it is older, by the same.
    let elsewhere = places("three", snapshot("b", Passed::default()));
    let restored = ground.restore(&cache, &elsewhere);
    assert!(modified("three/target/later") < 1_000 * SECOND, "{}", modified("three/target/later"));
    assert_eq!(modified("three/target/later") - modified("three/target/made"), 7 * SECOND);
    // What is saved then is of that tree, and nothing that stayed is put again.
    let next = super::Cache { key: "k-2".to_owned(), ..cache.clone() };
    assert!(ground.save(&next, &elsewhere, &restored) < 4 << 10);
    ground.restore(&next, &places("four", snapshot("b", Passed::default())));
    assert_eq!(modified("four/target/made"), modified("three/target/made"));
    // What was saved when a later state was there already is of no tree.
    ground.write("five/target/made", b"five");
    set("five/target/made", 3_000);
    let third = super::Cache { key: "k-3".to_owned(), ..cache.clone() };
    ground.save(&third, &places("five", snapshot("a", passed)), &Restored::nothing());
    ground.restore(&third, &places("six", snapshot("a", Passed::default())));
    assert!(modified("six/target/made") < 2_000 * SECOND);
    // Whoever works in the tree itself is not told how old its files are.
    let in_place = Sources { snapshot: None, tree: ground.path("c"), ..snapshot("b", Passed::default()) };
    ground.restore(&cache, &places("seven", in_place));
    assert!(modified("seven/target/made") < 1_000_000_000 * SECOND);
}
