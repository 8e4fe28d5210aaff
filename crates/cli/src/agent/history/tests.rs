//! Packing a repository and laying it again.

use std::fs;
use std::path::{Path, PathBuf};

use super::laying::Packs;
use super::*;
use crate::agent::content::Contents;

struct Scratch {
    folder: tempfile::TempDir,
    contents: Contents,
    packs: Packs,
}

impl Scratch {
    /// An empty repository.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let contents = Contents::open(folder.path().join("contents"), 1 << 30).expect("it opens");
        let packs = Packs::open(folder.path().join("packs")).expect("it opens");
        let scratch = Self { folder, contents, packs };
        fs::create_dir(scratch.root()).expect("a folder");
        git(&scratch.root(), &["init", "-q", "-b", "main"]);
        scratch
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    fn commit(&self, message: &str) -> String {
        fs::write(self.root().join("file"), message).expect("a file");
        git(&self.root(), &["add", "-A"]);
        git(&self.root(), &["commit", "-q", "-m", message]);
        self.head()
    }

    fn head(&self) -> String {
        git(&self.root(), &["rev-parse", "HEAD"])
    }

    fn pack(&self) -> Packed {
        pack(&self.root(), &self.head(), Of::Directory, &self.kept()).expect("it is packed")
    }

    /// A checkout with the history, beside files as they are now.
    fn laid(&self, packed: &Packed) -> PathBuf {
        for file in packed.files.values() {
            self.contents.put_file(file).expect("it is kept");
        }
        let tree = self.folder.path().join(format!("tree-{}", packed.history.commit));
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir(&tree).expect("a folder");
        fs::copy(self.root().join("file"), tree.join("file")).expect("a file");
        let text = serde_json::to_vec(&packed.history).expect("JSON");
        let history = laying::read(&text).expect("it can be read");
        self.packs.lay(&history, &tree, None, &self.contents).expect("it is laid");
        tree
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut all = vec!["-c", "user.name=a", "-c", "user.email=a@b"];
    all.extend(arguments);
    String::from_utf8_lossy(&git::ask(directory, &all).expect("git answers")).trim_end().to_owned()
}

#[test]
fn what_was_packed_is_not_packed_again() {
    let scratch = Scratch::new();
    scratch.commit("one");
    let first = scratch.pack();
    assert_eq!(scratch.pack().history, first.history);
    git(&scratch.root(), &["tag", "light"]);
    let tagged = scratch.pack();
    assert_eq!(tagged.history.packs, first.history.packs);
    assert!(tagged.history.references.contains_key("refs/tags/light"));
    git(&scratch.root(), &["tag", "-a", "-m", "x", "heavy"]);
    scratch.commit("two");
    let second = scratch.pack();
    assert_eq!(second.history.packs.len(), 2);
    assert_eq!(second.history.packs[0], first.history.packs[0]);
    let tree = scratch.laid(&second);
    assert_eq!(git(&tree, &["log", "--format=%s"]), "two\none");
    assert_eq!(git(&tree, &["describe", "--tags"]), git(&scratch.root(), &["describe", "--tags"]));
    assert_eq!(git(&tree, &["status", "--porcelain"]), "");
    git(&tree, &["fsck", "--strict"]);
}

#[test]
fn another_line_of_commits_is_packed_by_itself() {
    let scratch = Scratch::new();
    scratch.commit("base");
    scratch.commit("one");
    scratch.pack();
    git(&scratch.root(), &["checkout", "-q", "-b", "other", "HEAD~1"]);
    scratch.commit("two");
    let other = scratch.pack();
    assert_eq!(other.history.packs.len(), 1, "it would hold what the commit does not reach");
    let tree = scratch.laid(&other);
    assert_eq!(git(&tree, &["for-each-ref", "--format=%(refname)"]), "refs/heads/other");
    assert!(git::ask(&tree, &["cat-file", "-e", "main"]).is_err());
}

#[test]
fn merges_are_whole() {
    let scratch = Scratch::new();
    scratch.commit("base");
    scratch.pack();
    git(&scratch.root(), &["checkout", "-q", "-b", "side"]);
    scratch.commit("side");
    git(&scratch.root(), &["checkout", "-q", "main"]);
    git(&scratch.root(), &["merge", "-q", "--no-ff", "-m", "merged", "side"]);
    let tree = scratch.laid(&scratch.pack());
    assert_eq!(git(&tree, &["rev-list", "--count", "HEAD"]), "3");
    git(&tree, &["fsck"]);
}

#[test]
fn a_long_history_is_cut_where_it_is_still_one() {
    let scratch = Scratch::new();
    for number in 0..6 {
        scratch.commit(&number.to_string());
    }
    let head = scratch.head();
    let references = References::look(&scratch.root()).expect("git answers");
    let (root, kept) = (scratch.root(), scratch.kept());
    fs::create_dir_all(&kept).expect("a folder");
    let packing = Packing { root: &root, commit: &head, kept: &kept, references };
    let walked = packing.walk(3).expect("git answers");
    assert_eq!((walked.commits.len(), walked.shallow.len()), (3, 1));
    let wanted = [head.clone()];
    let write = |bytes_max| packing.write(&wanted, &[], &walked.shallow, bytes_max).expect("git packs");
    let Made::Pack(pack) = write(1 << 20) else { panic!("there are objects") };
    assert_eq!(write(10), Made::TooLong);
    let mut packed = scratch.pack();
    packed.files = BTreeMap::from([(pack.digest, pack_file(&kept, pack.digest))]);
    (packed.history.packs, packed.history.shallow) = (vec![pack], walked.shallow);
    let tree = scratch.laid(&packed);
    assert_eq!(git(&tree, &["log", "--format=%s"]), "5\n4\n3");
    git(&tree, &["fsck"]);
}

#[test]
fn what_is_staged_is_staged() {
    let scratch = Scratch::new();
    scratch.commit("one");
    let root = scratch.root();
    fs::write(root.join("file"), "staged").expect("a file");
    fs::write(root.join("new"), "new").expect("a file");
    git(&root, &["add", "-A"]);
    fs::write(root.join("file"), "edited again").expect("a file");
    let tree = scratch.laid(&scratch.pack());
    fs::write(tree.join("new"), "new").expect("a file");
    assert_eq!(git(&tree, &["status", "--porcelain"]), "MM file\nA  new");
    assert_eq!(git(&tree, &["show", ":file"]), "staged");
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut History), part: &str) {
    let id = "0123456789012345678901234567890123456789".to_owned();
    let mut history = History { version: 1, format: "sha1".to_owned(), commit: id, ..History::default() };
    assert!(laying::read(&serde_json::to_vec(&history).expect("JSON")).is_ok());
    change(&mut history);
    let fault = laying::read(&serde_json::to_vec(&history).expect("JSON")).expect_err("it is refused");
    assert!(fault.contains(part), "{fault}");
}

#[test]
fn nothing_is_written_that_was_not_checked() {
    let reference = |id: &str| Reference { id: id.to_owned(), peeled: None };
    check_refused(|history| history.version = 9, "version 9");
    check_refused(|history| history.commit = "--upload-pack=x".to_owned(), "names no object");
    check_refused(|history| history.format = "md5".to_owned(), "md5");
    check_refused(|history| history.branch = Some("a\nb".to_owned()), "is no branch");
    check_refused(|history| history.branch = Some("../../config".to_owned()), "is no branch");
    check_refused(|history| history.shallow = vec!["x".to_owned()], "names no object");
    for name in ["HEAD", "refs/heads/", "refs/heads/a b", "refs/tags/../x", "refs/tags/x.lock", "refs/stash"] {
        check_refused(|history| drop(history.references.insert(name.to_owned(), reference("x"))), "no branch or tag");
    }
    check_refused(|history| drop(history.references.insert("refs/tags/a".to_owned(), reference("x"))), "no object");
    check_refused(|history| drop(history.staged.insert(".git/config".to_owned(), Staged::Deleted)), ".git/config");
    let digest = Digest(*blake3::hash(b"").as_bytes());
    check_refused(|history| history.packs = vec![Pack { digest, bytes: u64::MAX }], "more packs");
}
