//! Artifacts: files that a job hands on under a name, and that appear at the same paths in the jobs that need it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use graph::Artifact;
use graph::nix::{ARTIFACT_PREFIX, RESULTS_DIRECTORY};

use crate::archive::{self, ArchiveFault, ArchiveWriter, Bounds, Existing, Links, Times, Unpacking};
use crate::depot::{Depot, DepotError};
use crate::files::{self, Directories, FilesFault, Found};
use crate::patterns::{PatternFault, Patterns};

/// The most files of one artifact.
pub const FILES_MAX: usize = 500_000;

/// The most bytes of one artifact.
pub const BYTES_MAX: u64 = 32 << 30;

/// Why an artifact was not collected or not restored.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactFault {
    /// A glob cannot be used.
    #[error(transparent)]
    Pattern(#[from] PatternFault),
    /// A declared glob matches no file.
    #[error("`{glob}` matches no file")]
    Nothing {
        /// As written.
        glob: String,
    },
    /// The workspace cannot be read.
    #[error(transparent)]
    Files(#[from] FilesFault),
    /// The archive was refused.
    #[error(transparent)]
    Archive(#[from] ArchiveFault),
    /// What was handed on is not kept any more, or storage refused.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

impl ArtifactFault {
    /// Whether what was handed on is damaged or gone.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Archive(fault) => fault.is_damage(),
            Self::Depot(fault) => matches!(fault, DepotError::Absent(_) | DepotError::Damaged(_)),
            Self::Pattern(_) | Self::Nothing { .. } | Self::Files(_) => false,
        }
    }

    /// Whether the machine is at fault rather than the job.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::Pattern(_) | Self::Nothing { .. } => false,
            Self::Files(fault) => matches!(fault, FilesFault::Read { .. }),
            Self::Archive(fault) => matches!(
                fault,
                ArchiveFault::Full { .. }
                    | ArchiveFault::Refused { .. }
                    | ArchiveFault::Depot(_)
                    | ArchiveFault::Damaged(_)
            ),
            Self::Depot(_) => true,
        }
    }
}

/// An artifact that was collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// What is handed on.
    pub artifact: Artifact,
    /// Matching paths that are neither files nor links: sockets, pipes, devices. They were left out.
    pub left_out: Vec<PathBuf>,
}

/// Puts the files that `globs` mean into an archive: equal files, modes and paths give an equal digest. Links are kept
/// as links, and refused if they lead out of the workspace. Git's own data is no part of it, whatever the globs mean.
///
/// # Errors
/// [`ArtifactFault`]; [`ArtifactFault::Nothing`] for the first glob that means no file.
pub fn collect(root: &Path, globs: &[String], scratch: &Path, depot: &dyn Depot) -> Result<Collected, ArtifactFault> {
    let patterns = Patterns::new(globs)?;
    let found = files::find_without_git(root, &patterns, FILES_MAX)?;
    let paths: Vec<&Path> = found.iter().map(|found| found.path.as_path()).collect();
    if let Some(glob) = patterns.unmatched(&paths).first() {
        return Err(ArtifactFault::Nothing { glob: (*glob).to_owned() });
    }
    let bounds = Bounds { files_max: FILES_MAX as u64, bytes_max: BYTES_MAX };
    let mut archive = ArchiveWriter::new(scratch, Times::Dropped, Links::Inside, bounds);
    let mut left_out = Vec::new();
    for found in &found {
        if !archive.add(&found.path, found)? {
            left_out.push(found.path.clone());
        }
    }
    let (digest, _, extent) = archive.put(depot)?;
    Ok(Collected { artifact: Artifact { digest, files: extent.files, bytes: extent.bytes }, left_out })
}

/// Puts what Nix built into an archive, by the names that `globs` hold after `nix:`: files appear below `result/NAME`, one
/// that is a file itself as `result/NAME`. `built` has store paths by name.
///
/// # Errors
/// [`ArtifactFault`]; [`ArtifactFault::Nothing`] for the first glob that names nothing that was built.
pub fn collect_built(
    built: &BTreeMap<String, String>,
    globs: &[String],
    scratch: &Path,
    depot: &dyn Depot,
) -> Result<Collected, ArtifactFault> {
    let all = Patterns::new(&["**"])?;
    let bounds = Bounds { files_max: FILES_MAX as u64, bytes_max: BYTES_MAX };
    let mut archive = ArchiveWriter::new(scratch, Times::Dropped, Links::Inside, bounds);
    for glob in globs {
        let name = glob.strip_prefix(ARTIFACT_PREFIX);
        let known = name.and_then(|name| Some((name, built.get(name)?)));
        let Some((name, path)) = known else { return Err(ArtifactFault::Nothing { glob: glob.clone() }) };
        let (path, place) = (Path::new(path), Path::new(RESULTS_DIRECTORY).join(name));
        let read = |source| FilesFault::Read { path: path.to_owned(), source };
        let metadata = std::fs::symlink_metadata(path).map_err(read)?;
        if metadata.is_dir() {
            for found in files::find(path, &all, Directories::Left, FILES_MAX)? {
                archive.add(&place.join(&found.path), &found)?;
            }
        } else {
            archive.add(&place, &Found { path: place.clone(), place: path.to_owned(), metadata })?;
        }
    }
    let (digest, _, extent) = archive.put(depot)?;
    let artifact = Artifact { digest, files: extent.files, bytes: extent.bytes };
    Ok(Collected { artifact, left_out: Vec::new() })
}

/// Puts an artifact's files to their paths below `root`; files that are there are replaced. They are the artifact's only if nothing is
/// refused: its bytes are compared with its digest at their end. Git's own data, which older programs took along, is passed over.
///
/// # Errors
/// [`ArtifactFault`]; of a damaged one the depot was told.
pub fn restore(artifact: &Artifact, root: &Path, depot: &dyn Depot) -> Result<(), ArtifactFault> {
    let mut archive = Hashed { content: depot.open(artifact.digest)?, hasher: blake3::Hasher::new() };
    let bounds = Bounds { files_max: artifact.files, bytes_max: artifact.bytes };
    let unpacking = Unpacking { bounds, times: Times::Dropped, links: Links::Inside, existing: Existing::Replaced };
    let place_of = |name: &Path| (!files::is_of_git(name)).then(|| (root, name.to_owned()));
    let unpacked = archive::unpack(&mut archive, unpacking, &place_of);
    if !matches!(unpacked, Err(ArchiveFault::Full { .. } | ArchiveFault::Refused { .. })) {
        // Whatever else is wrong with it may come from damage.
        let is_read = std::io::copy(&mut archive, &mut std::io::sink()).is_ok();
        if !is_read || *archive.hasher.finalize().as_bytes() != artifact.digest.0 {
            depot.doubt(artifact.digest);
            return Err(DepotError::Damaged(artifact.digest).into());
        }
    }
    let extent = unpacked?;
    if (extent.files, extent.bytes) != (artifact.files, artifact.bytes) {
        let (files, bytes) = (extent.files, extent.bytes);
        let announced = format!("{} files of {} bytes were announced", artifact.files, artifact.bytes);
        return Err(ArchiveFault::Damaged(format!("{announced}, and it holds {files} of {bytes}")).into());
    }
    Ok(())
}

/// Hashes what is read.
struct Hashed {
    content: Box<dyn Read + Send>,
    hasher: blake3::Hasher,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{self, Read};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::sync::Mutex;

    use graph::{Artifact, Digest};

    use super::{collect, restore};
    use crate::depot::{CacheEntry, CacheSaved, CacheScope, Depot, DepotError};

    /// Blobs in memory; artifacts need no cache.
    #[derive(Default)]
    struct Blobs(Mutex<BTreeMap<Digest, Vec<u8>>>);

    impl Depot for Blobs {
        fn put(&self, bytes: &[u8]) -> Result<Digest, DepotError> {
            let digest = Digest(*blake3::hash(bytes).as_bytes());
            self.0.lock().unwrap().insert(digest, bytes.to_vec());
            Ok(digest)
        }

        fn put_file(&self, path: &Path) -> Result<Digest, DepotError> {
            self.put(&fs::read(path).map_err(|error| DepotError::Refused(error.to_string()))?)
        }

        fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, DepotError> {
            let blobs = self.0.lock().unwrap();
            let bytes = blobs.get(&digest).ok_or(DepotError::Absent(digest))?.clone();
            Ok(Box::new(io::Cursor::new(bytes)))
        }

        fn missing(&self, _: &[Digest]) -> Result<Vec<Digest>, DepotError> {
            Ok(Vec::new())
        }

        fn find_cache(&self, _: &CacheScope, _: &str, _: &[String]) -> Result<Option<CacheEntry>, DepotError> {
            Ok(None)
        }

        fn save_cache(&self, _: &CacheScope, _: &CacheEntry, _: Option<Digest>) -> Result<CacheSaved, DepotError> {
            Ok(CacheSaved::Saved)
        }
    }

    fn globs(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|glob| (*glob).to_owned()).collect()
    }

    fn collected(root: &Path, patterns: &[&str], depot: &Blobs) -> Result<Artifact, String> {
        let scratch = tempfile::tempdir().unwrap();
        collect(root, &globs(patterns), scratch.path(), depot)
            .map(|collected| collected.artifact)
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_round_trip_keeps_paths_modes_and_links() {
        let depot = Blobs::default();
        let from = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.path().join("out/deep")).unwrap();
        let long = format!("out/{}", "n".repeat(200));
        for (path, content) in [("out/a", "1"), ("out/deep/b", ""), (long.as_str(), "long")] {
            fs::write(from.path().join(path), content).unwrap();
        }
        fs::set_permissions(from.path().join("out/a"), fs::Permissions::from_mode(0o751)).unwrap();
        symlink("deep/b", from.path().join("out/link")).unwrap();
        let artifact = collected(from.path(), &["out"], &depot).unwrap();
        assert_eq!((artifact.files, artifact.bytes), (4, 5));

        let to = tempfile::tempdir().unwrap();
        fs::create_dir(to.path().join("out")).unwrap();
        fs::write(to.path().join("out/a"), "old").unwrap();
        restore(&artifact, to.path(), &depot).unwrap();
        assert_eq!(fs::read(to.path().join("out/a")).unwrap(), b"1");
        assert_eq!(fs::metadata(to.path().join("out/a")).unwrap().permissions().mode() & 0o777, 0o751);
        assert_eq!(fs::read_link(to.path().join("out/link")).unwrap(), Path::new("deep/b"));
        assert_eq!(fs::read(to.path().join(&long)).unwrap(), b"long");
        assert_eq!(collected(to.path(), &["out"], &depot).unwrap(), artifact, "equal files, equal digest");
    }

    #[test]
    fn damage_is_found_though_the_archive_can_be_read() {
        let depot = Blobs::default();
        let from = tempfile::tempdir().unwrap();
        fs::write(from.path().join("a"), "content").unwrap();
        let artifact = collected(from.path(), &["a"], &depot).unwrap();
        let whole = depot.0.lock().unwrap()[&artifact.digest].clone();
        let content = whole.windows(7).position(|bytes| bytes == b"content").unwrap();
        // In a file, in the name of one, behind the last.
        for place in [content, 0, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            depot.0.lock().unwrap().insert(artifact.digest, damaged);
            let to = tempfile::tempdir().unwrap();
            let fault = restore(&artifact, to.path(), &depot).unwrap_err();
            assert!(fault.to_string().ends_with("is damaged where it is kept"), "{fault}");
        }
    }

    #[test]
    fn large_artifacts_go_over_a_file() {
        let depot = Blobs::default();
        let from = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..6_000_000_u32).map(|number| (number % 251) as u8).collect();
        fs::write(from.path().join("big"), &content).unwrap();
        let artifact = collected(from.path(), &["big"], &depot).unwrap();
        let to = tempfile::tempdir().unwrap();
        restore(&artifact, to.path(), &depot).unwrap();
        assert!(fs::read(to.path().join("big")).unwrap() == content);
    }

    #[test]
    fn what_cannot_be_collected_is_named() {
        let depot = Blobs::default();
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        assert_eq!(collected(root.path(), &["a", "b/*"], &depot).unwrap_err(), "`b/*` matches no file");
        assert_eq!(
            collected(root.path(), &["../a"], &depot).unwrap_err(),
            "`../a` leads out of the workspace: paths are relative to it, without `..`"
        );
        symlink("/etc", root.path().join("etc")).unwrap();
        symlink("../x", root.path().join("up")).unwrap();
        assert_eq!(
            collected(root.path(), &["etc"], &depot).unwrap_err(),
            "the link `etc` leads out of the workspace (to `/etc`)"
        );
        assert_eq!(
            collected(root.path(), &["up"], &depot).unwrap_err(),
            "the link `up` leads out of the workspace (to `../x`)"
        );
        assert_eq!(
            collected(root.path(), &["etc/passwd"], &depot).unwrap_err(),
            "`etc` is a symbolic link, and is not followed out of the workspace"
        );
    }

    #[test]
    fn pipes_and_sockets_are_left_out() {
        let depot = Blobs::default();
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let collected = collect(root.path(), &globs(&["*"]), scratch.path(), &depot).unwrap();
        assert_eq!((collected.artifact.files, collected.left_out), (1, vec!["pipe".into()]));
    }

    /// An archive with one entry, made without the checks of the library.
    fn hostile(name: &[u8], kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4777);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut archive = header.as_bytes().to_vec();
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
        archive
    }

    fn check_hostile(archive: &[u8], prepare: impl Fn(&Path), expected: &str) {
        let depot = Blobs::default();
        let digest = depot.put(archive).unwrap();
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("victim"), "safe").unwrap();
        prepare(&root);
        let fault = restore(&Artifact { digest, files: 1, bytes: 4 }, &root, &depot).unwrap_err();
        assert_eq!(fault.to_string(), expected);
        assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe");
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2, "nothing appeared outside");
    }

    #[test]
    fn hostile_archives() {
        let file = tar::EntryType::Regular;
        let nothing = |_: &Path| {};
        check_hostile(
            &hostile(b"../victim", file, "", b"evil"),
            nothing,
            "the archive is hostile: it names `../victim`",
        );
        check_hostile(
            &hostile(b"a/../../victim", file, "", b"evil"),
            nothing,
            "the archive is hostile: it names `a/../../victim`",
        );
        check_hostile(
            &hostile(b"/tmp/victim", file, "", b"evil"),
            nothing,
            "the archive is hostile: it names `/tmp/victim`",
        );
        check_hostile(
            &hostile(b"l", tar::EntryType::Symlink, "../victim", b""),
            nothing,
            "the link `l` leads out of the workspace (to `../victim`)",
        );
        check_hostile(
            &hostile(b"l", tar::EntryType::Link, "../victim", b""),
            nothing,
            "the archive is hostile: `l` is neither file, link nor directory",
        );
        check_hostile(
            &hostile(b"d", tar::EntryType::Block, "", b""),
            nothing,
            "the archive is hostile: `d` is neither file, link nor directory",
        );
        check_hostile(
            &hostile(b"out/victim", file, "", b"evil"),
            |root| symlink("..", root.join("out")).unwrap(),
            "`out` cannot be restored: `out` is in the way and is no directory",
        );
        check_hostile(&hostile(b"a", file, "", b"five!"), nothing, "more than 4 bytes");
        let mut two = hostile(b"a", file, "", b"1");
        two.truncate(1024);
        two.extend(hostile(b"b", file, "", b"1"));
        check_hostile(&two, nothing, "more than 1 files");
        let mut short = hostile(b"a", file, "", b"four");
        short.truncate(514);
        check_hostile(&short, nothing, "the archive is damaged: unexpected EOF during skip");
        let fewer = hostile(b"a", file, "", b"12");
        check_hostile(
            &fewer,
            nothing,
            "the archive is damaged: 1 files of 4 bytes were announced, and it holds 1 of 2",
        );
    }

    /// Entries one after the other in one archive.
    fn joined(entries: &[Vec<u8>]) -> Vec<u8> {
        let contents = entries.iter().map(|entry| &entry[..entry.len() - 1024]);
        contents.chain([&[0; 1024][..]]).collect::<Vec<_>>().concat()
    }

    /// A file whose name stands in an entry of its own.
    fn long_named(name: &[u8], content: &[u8]) -> Vec<u8> {
        let name = hostile(b"././@LongLink", tar::EntryType::GNULongName, "", name);
        joined(&[name, hostile(b"short", tar::EntryType::Regular, "", content)])
    }

    #[test]
    fn names_have_the_lengths_that_a_system_takes() {
        let nothing = |_: &Path| {};
        for bytes in [256, 300, 5000] {
            let expected = format!("the archive is hostile: it holds a name of {bytes} bytes");
            check_hostile(&long_named(&vec![b'n'; bytes], b"four"), nothing, &expected);
        }
        let deep = "d/".repeat(2500);
        let expected = "the archive is hostile: it holds a name of 5001 bytes";
        check_hostile(&long_named(format!("{deep}f").as_bytes(), b"four"), nothing, expected);
        let depot = Blobs::default();
        for name in ["n".repeat(255), format!("{}f", "d/".repeat(1000)), format!("{0}/{0}", "x".repeat(255))] {
            let root = tempfile::tempdir().unwrap();
            let digest = depot.put(&long_named(name.as_bytes(), b"four")).unwrap();
            restore(&Artifact { digest, files: 1, bytes: 4 }, root.path(), &depot).unwrap();
            assert_eq!(fs::read(root.path().join(&name)).unwrap(), b"four");
        }
        check_hostile(&long_named(b"../victim", b"evil"), nothing, "the archive is hostile: it names `../victim`");
        check_hostile(&long_named(b"a\0b\0", b"four"), nothing, "the archive is hostile: it names `a\0b`");
    }

    #[test]
    fn what_would_fill_the_memory_is_refused_before_it_is_read() {
        let nothing = |_: &Path| {};
        let too_long = "the archive is damaged: it holds a name that is too long";
        check_hostile(&long_named(&vec![b'n'; 1 << 20], b"four"), nothing, too_long);
        let link = hostile(b"././@LongLink", tar::EntryType::GNULongLink, "", &vec![b'n'; 1 << 20]);
        check_hostile(&joined(&[link, hostile(b"l", tar::EntryType::Symlink, "", b"")]), nothing, too_long);
        let file = || hostile(b"a", tar::EntryType::Regular, "", b"four");
        for kind in [tar::EntryType::XHeader, tar::EntryType::XGlobalHeader, tar::EntryType::GNUSparse] {
            let header = hostile(b"h", kind, "", b"20 size=99999999999\n");
            let expected = "the archive is damaged: it holds an entry of a kind that is never written";
            check_hostile(&joined(&[header, file()]), nothing, expected);
        }
        // A file that says it is longer than what there is.
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(u64::MAX);
        header.set_cksum();
        check_hostile(header.as_bytes(), nothing, "the archive is damaged: it holds an entry that is too long");
        header.set_size(1 << 40);
        header.set_cksum();
        check_hostile(header.as_bytes(), nothing, "more than 4 bytes");
    }

    #[test]
    fn git_data_is_neither_taken_along_nor_put_back() {
        let depot = Blobs::default();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(".git")).unwrap();
        for path in [".git/HEAD", ".git/config", "a"] {
            fs::write(root.path().join(path), "here").unwrap();
        }
        assert_eq!(collected(root.path(), &["**"], &depot).unwrap().files, 1);
        assert_eq!(collected(root.path(), &[".git/config"], &depot).unwrap_err(), "`.git/config` matches no file");
        // As programs made it that took it along.
        let file = |name: &[u8]| hostile(name, tar::EntryType::Regular, "", b"kept");
        let old = joined(&[file(b".git/HEAD"), file(b"a"), file(b"d/.git"), file(b"e/.git/hooks/pre-commit")]);
        let digest = depot.put(&old).unwrap();
        restore(&Artifact { digest, files: 4, bytes: 16 }, root.path(), &depot).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!((read(".git/HEAD").as_str(), read("a").as_str()), ("here", "kept"));
        assert!(!root.path().join("d").exists() && !root.path().join("e").exists());
    }

    #[test]
    fn no_kind_but_files_links_and_directories_is_made() {
        for kind in [
            tar::EntryType::Link,
            tar::EntryType::Char,
            tar::EntryType::Block,
            tar::EntryType::Fifo,
            tar::EntryType::Continuous,
            tar::EntryType::new(b'?'),
        ] {
            let expected = "the archive is hostile: `x` is neither file, link nor directory";
            check_hostile(&hostile(b"x", kind, "victim", b""), |_| {}, expected);
        }
    }

    /// A link that is inside by its text may lead out over another link.
    #[test]
    fn links_do_not_lead_out_together() {
        let link = |name: &[u8], target: &str| hostile(name, tar::EntryType::Symlink, target, b"");
        let refused = |target: &str| format!("the link `l` leads out of the workspace (to `{target}`)");
        for target in ["/etc", "..", "a/../..", "d/up/../victim", "x/..", "./../victim"] {
            check_hostile(&link(b"l", target), |_| {}, &refused(target));
        }
        let pair = joined(&[link(b"d/up", ".."), link(b"l", "d/up/../victim")]);
        let depot = Blobs::default();
        let digest = depot.put(&pair).unwrap();
        let root = tempfile::tempdir().unwrap();
        let fault = restore(&Artifact { digest, files: 2, bytes: 0 }, root.path(), &depot).unwrap_err();
        assert_eq!(fault.to_string(), refused("d/up/../victim"));
        // Through a link of its own nothing is written.
        let through = joined(&[link(b"out", "."), hostile(b"out/f", tar::EntryType::Regular, "", b"four")]);
        let digest = depot.put(&through).unwrap();
        let fault = restore(&Artifact { digest, files: 2, bytes: 4 }, root.path(), &depot).unwrap_err();
        assert_eq!(fault.to_string(), "`out` cannot be restored: `out` is in the way and is no directory");
        assert!(!root.path().join("f").exists());
    }

    #[test]
    fn of_two_entries_of_a_name_the_last_stands_and_both_count() {
        let depot = Blobs::default();
        let file = |name: &[u8], content: &[u8]| hostile(name, tar::EntryType::Regular, "", content);
        let twice = depot.put(&joined(&[file(b"a", b"old"), file(b"a", b"new")])).unwrap();
        let root = tempfile::tempdir().unwrap();
        let restored = |digest, files, bytes| {
            restore(&Artifact { digest, files, bytes }, root.path(), &depot).map_err(|fault| fault.to_string())
        };
        assert_eq!(restored(twice, 1, 6), Err("more than 1 files".to_owned()));
        assert_eq!(restored(twice, 2, 5), Err("more than 5 bytes".to_owned()));
        assert_eq!(restored(twice, 2, 6), Ok(()));
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"new");
        // Names that differ in case alone are two files where the file system says so.
        let cases = depot.put(&joined(&[file(b"Name", b"1"), file(b"name", b"2")])).unwrap();
        assert_eq!(restored(cases, 2, 2), Ok(()));
        assert_eq!(fs::read(root.path().join("Name")).unwrap(), b"1");
        assert_eq!(fs::read(root.path().join("name")).unwrap(), b"2");
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_not_followed() {
        let depot = Blobs::default();
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("victim"), "safe").unwrap();
        symlink("../victim", root.join("a")).unwrap();
        let digest = depot.put(&hostile(b"a", tar::EntryType::Regular, "", b"new")).unwrap();
        restore(&Artifact { digest, files: 1, bytes: 3 }, &root, &depot).unwrap();
        assert_eq!(fs::read(outer.path().join("victim")).unwrap(), b"safe");
        assert_eq!(fs::read(root.join("a")).unwrap(), b"new");
        let mode = fs::metadata(root.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o777, "set-user-id does not travel");
    }
}
