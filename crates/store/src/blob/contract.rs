//! What every store of blobs must do, run for each.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use graph::{Digest, Timestamp};

use super::{
    BlobError, BlobFault, Blobs, Collected, DirectoryBlobs, Durability, FaultyBlobs, GRACE_MIN, MemoryBlobs, Mode,
    Verify, collect, digest, remove_damaged, timestamp,
};

/// Runs the check on each store, with an empty folder for the files of the test.
fn check(test: impl Fn(&dyn Blobs, &Path)) {
    let root = tempfile::tempdir().unwrap();
    test(&MemoryBlobs::default(), &subfolder(root.path(), "memory"));
    for (name, durability, verify) in [
        ("trusting", Durability::Process, Verify::Never),
        ("verifying", Durability::Process, Verify::Always),
        ("durable", Durability::Power, Verify::Never),
    ] {
        let blobs = DirectoryBlobs::open(&root.path().join("store").join(name), durability, verify).unwrap();
        test(&blobs, &subfolder(root.path(), name));
    }
    let blobs = FaultyBlobs::new(MemoryBlobs::default(), |_| None);
    test(&blobs, &subfolder(root.path(), "faulty"));
    #[cfg(feature = "s3")]
    for (name, cache_bytes) in [("remote", None), ("copied", Some(1 << 20)), ("copied-little", Some(1000))] {
        let Some(server) = super::s3::server::S3Server::start() else { return };
        test(&server.blobs(cache_bytes), &subfolder(root.path(), name));
    }
}

fn subfolder(root: &Path, name: &str) -> std::path::PathBuf {
    let folder = root.join("files").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Empty, small, long and compressible, long and not.
fn contents() -> Vec<Vec<u8>> {
    let mut noise = vec![0; 700_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    vec![vec![], b"small".to_vec(), b"again and again ".repeat(50_000), noise]
}

#[test]
fn what_is_put_can_be_had() {
    check(|blobs, _| {
        for content in contents() {
            let name = blobs.put(&content).unwrap();
            assert_eq!(name, digest(&content));
            assert_eq!(blobs.put(&content).unwrap(), name, "twice is as once");
            assert!(blobs.contains(name).unwrap());
            assert!(blobs.get(name, content.len() as u64).unwrap() == content);
            let mut streamed = Vec::new();
            blobs.open(name).unwrap().read_to_end(&mut streamed).unwrap();
            assert!(streamed == content);
        }
    });
}

#[test]
fn a_file_has_the_name_of_its_content() {
    check(|blobs, folder| {
        for content in contents() {
            let source = folder.join("source");
            fs::write(&source, &content).unwrap();
            let put = blobs.put_file(&source).unwrap();
            assert_eq!((put.digest, put.content_bytes), (digest(&content), content.len() as u64));
            fs::write(&source, "changed").unwrap();
            assert!(blobs.get(put.digest, u64::MAX).unwrap() == content);
        }
        assert!(matches!(blobs.put_file(&folder.join("none")), Err(BlobError::Io(_))));
    });
}

#[test]
fn a_range_is_that_part_of_the_content() {
    check(|blobs, folder| {
        for content in contents() {
            let source = folder.join("source");
            fs::write(&source, &content).unwrap();
            for name in [blobs.put(&content).unwrap(), blobs.put_file(&source).unwrap().digest] {
                let length = content.len();
                assert_eq!(blobs.length(name).unwrap(), length as u64);
                for (from, to) in [(0, 0), (0, 1), (1, 3), (length / 2, length), (length, length + 9), (0, length + 1)]
                {
                    let mut part = Vec::new();
                    blobs.open_range(name, from as u64..to as u64).unwrap().read_to_end(&mut part).unwrap();
                    assert!(part == content[from.min(length)..to.min(length)], "{from}..{to} of {length}");
                }
                blobs.delete(name).unwrap();
                blobs.put_file(&source).unwrap();
            }
        }
        let absent = Digest([7; 32]);
        assert!(matches!(blobs.length(absent), Err(BlobError::Absent(_))));
        assert!(matches!(blobs.open_range(absent, 0..1), Err(BlobError::Absent(_))));
        assert!(matches!(blobs.open_range(absent, 0..0), Err(BlobError::Absent(_))));
    });
}

#[test]
fn pages_hold_each_blob_once() {
    check(|blobs, _| {
        let mut names: Vec<Digest> = (0..20u32).map(|index| blobs.put(&index.to_le_bytes()).unwrap()).collect();
        names.sort_unstable();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = blobs.page(after, 7).unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 7);
            after = Some(last.digest);
            paged.extend(page.iter().map(|blob| blob.digest));
        }
        assert_eq!(paged, names);
    });
}

fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

#[test]
fn only_stale_blobs_are_deleted() {
    check(|blobs, _| {
        let before = Timestamp(now().0 - 3_000_000);
        let name = blobs.put(b"content").unwrap();
        assert!(blobs.renew(name).unwrap());
        assert!(!blobs.delete_stale(name, before).unwrap());
        assert!(blobs.contains(name).unwrap());
        assert!(blobs.delete_stale(name, now().plus_ms(3000)).unwrap());
        assert!(!blobs.contains(name).unwrap());
        assert!(!blobs.renew(name).unwrap());
        assert!(blobs.delete_stale(name, now()).unwrap(), "what is not there is gone");
    });
}

#[test]
fn a_collection_takes_what_is_old_and_not_named() {
    check(|blobs, _| {
        let (named, other) = (blobs.put(b"named").unwrap(), blobs.put(b"other").unwrap());
        let is_named = |digest| digest == named;
        let young = collect(blobs, &is_named, Duration::ZERO, now()).unwrap();
        let kept_bytes = blobs.page(None, 10).unwrap().iter().map(|blob| blob.stored_bytes).sum();
        assert_eq!(young, Collected { young: 1, kept: 2, kept_bytes, ..Collected::default() });
        let later = now().plus_ms(GRACE_MIN.as_millis() as u64 + 3000);
        let old = collect(blobs, &is_named, Duration::ZERO, later).unwrap();
        assert_eq!((old.deleted, old.kept, old.young), (1, 1, 0));
        assert!(blobs.contains(named).unwrap() && !blobs.contains(other).unwrap());
    });
}

/// Somebody puts again, just now, what a collector is about to delete.
#[test]
fn what_is_put_again_is_not_collected_at_that_moment() {
    let root = tempfile::tempdir().unwrap();
    let directory = DirectoryBlobs::open(root.path(), Durability::Process, Verify::Never).unwrap();
    let blobs: [&dyn Blobs; 2] = [&MemoryBlobs::default(), &directory];
    for blobs in blobs {
        let (since, is_over, deleted) = (AtomicI64::new(0), AtomicBool::new(false), AtomicUsize::new(0));
        let name = digest(b"content");
        std::thread::scope(|scope| {
            let _over = Over(&is_over);
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let was_there = blobs.contains(name).unwrap();
                    let gone = blobs.delete_stale(name, Timestamp(since.load(Ordering::SeqCst))).unwrap();
                    deleted.fetch_add(usize::from(was_there && gone), Ordering::SeqCst);
                }
            });
            for round in 0.. {
                // Files know times to the tick of the system; what was put before this is stale.
                since.store(now().0 - 20_000, Ordering::SeqCst);
                blobs.put(b"content").unwrap();
                assert!(blobs.contains(name).unwrap(), "in round {round}");
                let begun = now();
                while now().0 < begun.0 + 21_000 && round % 50 == 0 {
                    std::hint::spin_loop();
                }
                if round > 1000 {
                    break;
                }
            }
        });
    }
}

/// Ends the other thread, also when this one fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn faults_happen_as_planned() {
    let next = std::sync::Mutex::new(None);
    let blobs = FaultyBlobs::new(MemoryBlobs::default(), |_| next.lock().unwrap().take());
    let plan = |fault| *next.lock().unwrap() = Some(fault);
    let name = digest(b"content");
    for fault in [BlobFault::Full, BlobFault::Io, BlobFault::Lost] {
        plan(fault);
        blobs.put(b"content").unwrap_err();
        assert!(!blobs.contains(name).unwrap(), "{fault:?}");
    }
    plan(BlobFault::AnswerLost);
    blobs.put(b"content").unwrap_err();
    assert!(blobs.contains(name).unwrap());
    plan(BlobFault::Cut(3));
    let mut read = Vec::new();
    blobs.open(name).unwrap().read_to_end(&mut read).unwrap_err();
    assert_eq!(read, b"con");
}

#[test]
fn content_over_the_callers_bound_is_refused() {
    check(|blobs, _| {
        let name = blobs.put(b"12345").unwrap();
        assert!(matches!(blobs.get(name, 4), Err(BlobError::TooLong { bytes_max: 4 })));
        assert_eq!(blobs.get(name, 5).unwrap(), b"12345");
    });
}

#[test]
fn what_is_absent_says_so() {
    check(|blobs, folder| {
        let name = Digest([7; 32]);
        assert!(!blobs.contains(name).unwrap());
        assert!(matches!(blobs.get(name, 9), Err(BlobError::Absent(absent)) if absent == name));
        assert!(matches!(blobs.materialize(name, &folder.join("file"), Mode::FILE), Err(BlobError::Absent(_))));
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        blobs.delete(name).unwrap();
    });
}

#[test]
fn list_is_sorted_and_follows_deletions() {
    check(|blobs, _| {
        assert_eq!(blobs.list().unwrap(), []);
        let mut names: Vec<Digest> = contents().iter().map(|content| blobs.put(content).unwrap()).collect();
        names.sort_unstable();
        let listed = blobs.list().unwrap();
        assert_eq!(listed.iter().map(|blob| blob.digest).collect::<Vec<_>>(), names);
        assert!(listed.iter().all(|blob| blob.stored_bytes <= 800_000));
        for name in names {
            blobs.delete(name).unwrap();
            assert!(!blobs.contains(name).unwrap());
        }
        assert_eq!(blobs.list().unwrap(), []);
    });
}

#[test]
fn a_restored_file_is_the_callers_own() {
    check(|blobs, folder| {
        for content in contents() {
            let name = blobs.put(&content).unwrap();
            let path = folder.join("restored");
            blobs.materialize(name, &path, Mode::PROGRAM).unwrap();
            assert!(fs::read(&path).unwrap() == content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
            fs::write(&path, "edited").unwrap();
            assert!(blobs.get(name, u64::MAX).unwrap() == content);
        }
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1, "nothing is left beside it");
    });
}

#[test]
fn restoring_replaces_a_link_and_does_not_follow_it() {
    check(|blobs, folder| {
        let (outside, path) = (folder.join("outside"), folder.join("link"));
        fs::write(&outside, "untouched").unwrap();
        symlink(&outside, &path).unwrap();
        blobs.materialize(blobs.put(b"content").unwrap(), &path, Mode::FILE).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"untouched");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    });
}

#[test]
fn many_threads_put_the_same() {
    check(|blobs, _| {
        std::thread::scope(|scope| {
            for thread in 0..8u32 {
                scope.spawn(move || {
                    for index in 0..20u32 {
                        blobs.put(&index.to_le_bytes()).unwrap();
                        blobs.put(&(index * 100 + thread).to_be_bytes()).unwrap();
                    }
                });
            }
        });
        assert!((0..20u32).all(|index| blobs.contains(digest(&index.to_le_bytes())).unwrap()));
    });
}

/// One directory store and the path of the only blob in it.
fn directory(content: &[u8]) -> (tempfile::TempDir, DirectoryBlobs, Digest, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let blobs = DirectoryBlobs::open(root.path(), Durability::Process, Verify::Always).unwrap();
    let name = blobs.put(content).unwrap();
    let folder = root.path().join(&name.to_hex()[..2]);
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    (root, blobs, name, path)
}

#[test]
fn damage_is_found_where_it_is_looked_for() {
    for content in contents() {
        let (root, blobs, name, path) = directory(&content);
        let mut stored = fs::read(&path).unwrap();
        match stored.last_mut() {
            Some(last) => *last ^= 1,
            None => stored.push(1),
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, stored).unwrap();
        let error = blobs.get(name, u64::MAX).unwrap_err();
        assert!(matches!(error, BlobError::Damaged(_)), "{error}");
        let target = root.path().join("target");
        assert!(blobs.materialize(name, &target, Mode::FILE).is_err());
        assert!(!target.exists());
        let trusting = DirectoryBlobs::open(root.path(), Durability::Process, Verify::Never).unwrap();
        assert!(remove_damaged(&trusting, name).unwrap(), "also by who does not look for it");
        assert!(!blobs.contains(name).unwrap() && !remove_damaged(&blobs, name).unwrap());
        blobs.put(&content).unwrap();
        assert!(!remove_damaged(&blobs, name).unwrap() && blobs.get(name, u64::MAX).unwrap() == content);
    }
}

#[test]
fn compression_is_used_where_it_pays() {
    let stored = |content: &[u8]| directory(content).1.list().unwrap()[0].stored_bytes;
    let [empty, small, text, noise] = contents().try_into().unwrap();
    assert_eq!(stored(&empty), 0);
    assert_eq!(stored(&small), 5);
    assert!(stored(&text) < text.len() as u64 / 10);
    assert_eq!(stored(&noise), noise.len() as u64);
}

#[test]
fn opening_removes_what_a_dead_process_left_and_nothing_else() {
    let (root, _, name, _) = directory(b"kept");
    let incoming = root.path().join("incoming");
    fs::write(incoming.join(".blob-1-1"), "half").unwrap();
    let live = fs::File::create(incoming.join(".blob-1-2")).unwrap();
    live.lock().unwrap();
    let blobs = DirectoryBlobs::open(root.path(), Durability::Process, Verify::Never).unwrap();
    let left: Vec<_> = fs::read_dir(incoming).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".blob-1-2"]);
    assert!(blobs.contains(name).unwrap());
}

#[test]
fn a_mark_is_no_blob_and_the_last_one_counts() {
    check(|blobs, _| {
        assert_eq!(blobs.marked().unwrap(), None);
        blobs.mark("one").unwrap();
        assert_eq!(blobs.list().unwrap(), []);
        let kept = blobs.put(b"content").unwrap();
        blobs.mark("another").unwrap();
        assert_eq!(blobs.marked().unwrap().as_deref(), Some("another"));
        let listed: Vec<Digest> = blobs.list().unwrap().iter().map(|blob| blob.digest).collect();
        assert_eq!(listed, [kept]);
    });
}
