//! What is found and hidden, without mounts: these are the binary's tests.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use rustix::fs::XattrFlags;

use super::*;
use crate::workspace::is_whiteout;

/// A secret that stands in texts as it is.
struct OneSecret;

impl Mask for OneSecret {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let text = String::from_utf8_lossy(bytes);
        if text.contains("s3cret") {
            Cow::Owned(text.replace("s3cret", "***").into_bytes())
        } else {
            Cow::Borrowed(bytes)
        }
    }
}

/// An attempt's directory.
struct Ground(tempfile::TempDir);

impl Ground {
    fn new() -> Self {
        let ground = Self(tempfile::tempdir().unwrap());
        begin(ground.path(), &Self::secrets()).unwrap();
        ground
    }

    fn secrets() -> Secrets {
        let values = [("A", "s3cret"), ("B", "other")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Secrets { values: values.into(), mask: Some(Arc::new(OneSecret)) }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn find(&self) {
        find(self.path(), &Self::secrets()).unwrap();
    }

    fn veil(&self, given: &[(&str, &str)]) -> Result<Veil, Shut> {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Veil::of(self.path(), None, &given)
    }

    /// The names that are hidden of a part, by a layer above it; a folder's behind a slash.
    fn hidden(&self, part: &str) -> Vec<String> {
        let layer = tempfile::tempdir().unwrap();
        assert_eq!(self.veil(&[]).unwrap().draw(self.path(), Path::new(part), layer.path()).unwrap(), Drawn::All);
        let mut hidden: Vec<String> = crate::workspace::entries(layer.path())
            .unwrap()
            .into_iter()
            .inspect(|path| assert!(is_whiteout(&fs::symlink_metadata(layer.path().join(path)).unwrap())))
            .map(|path| path.display().to_string())
            .collect();
        hidden.sort();
        hidden
    }

    fn words(&self, parts: &[&str]) -> Option<String> {
        self.veil(&[]).unwrap().words(&parts.iter().map(PathBuf::from).collect::<Vec<_>>())
    }
}

#[test]
fn what_holds_a_secret_is_hidden_by_all_of_its_names() {
    let ground = Ground::new();
    for path in ["upper/plain", "tmp/plain", "steps/0/upper/sub/held", "steps/0/upper/one"] {
        ground.write(path, if path.ends_with("held") { "a s3cret" } else { "nothing" });
    }
    ground.write("upper/sub/held", "begins with s3cret");
    ground.write("upper/named-s3cret-so", "");
    ground.write("upper/s3cret/below", "");
    ground.write("tmp/held", "s3cret");
    let upper = ground.path().join("upper");
    fs::hard_link(upper.join("sub/held"), upper.join("twin")).unwrap();
    symlink("to/s3cret", upper.join("link")).unwrap();
    symlink("to/other", upper.join("sub/link")).unwrap();
    fs::set_permissions(upper.join("sub"), fs::Permissions::from_mode(0o500)).unwrap();
    ground.find();
    assert_eq!(ground.hidden("upper"), ["link", "named-s3cret-so", "s3cret", "sub/held", "twin"]);
    assert_eq!(ground.hidden("tmp"), ["held"]);
    assert_eq!(ground.hidden("steps/0/upper"), ["sub/held"]);
    assert_eq!(ground.hidden("steps/1/upper"), [""; 0]);
    let note = fs::read_to_string(ground.path().join(NOTE)).unwrap();
    assert!(!note.contains("s3cret") && !note.contains("other"), "{note}");
    let expected = "without files that hold a secret: `***`, `/tmp/held`, `link`, `named-***-so`, `sub/held`, …";
    assert_eq!(ground.words(&["upper", "tmp"]).as_deref(), Some(expected));
    assert_eq!(ground.words(&["steps/0/upper"]).as_deref(), Some("without files that hold a secret: `sub/held`"));
    assert_eq!(ground.words(&["steps/1/upper"]), None);
}

#[test]
fn only_the_job_s_own_values_show_what_is_hidden() {
    let ground = Ground::new();
    ground.write("upper/held", "s3cret");
    ground.find();
    for (given, others) in [
        (&[][..], ""),
        (&[("A", "s3cret")], ""),
        (&[("A", "s3cret"), ("B", "guess")], " (the job had another value of B than the one that was given)"),
    ] {
        let veil = ground.veil(given).unwrap();
        let words = veil.words(&["upper".into()]);
        assert_eq!(words, Some(format!("without files that hold a secret: `held`{others}")), "{given:?}");
    }
    assert!(
        ground.veil(&[("A", "s3cret\n"), ("B", "other")]).unwrap().is_empty(),
        "white space around it does not count"
    );
}

#[test]
fn what_was_not_looked_for_is_withheld_with_all_else() {
    let all = [("A", "s3cret"), ("B", "other")];
    let ground = Ground::new();
    ground.write("upper/plain", "nothing");
    let shut = ground.veil(&[("A", "s3cret"), ("B", "guess")]).unwrap_err();
    assert_eq!(
        (shut.reason.as_str(), shut.names),
        (
            "it ended before they were looked through for its secrets (the job had another value of B than the one that was given)",
            vec!["A".to_owned(), "B".to_owned()]
        )
    );
    assert_eq!(noted_names(ground.path()), ["A".to_owned(), "B".to_owned()].into());
    assert!(ground.veil(&all).unwrap().is_empty());
    ground.find();
    assert!(ground.veil(&[]).unwrap().is_empty());
    assert_eq!(noted_names(ground.path()), BTreeSet::new(), "of which nothing is left to guess by");
    fs::write(ground.path().join(NOTE), "{").unwrap();
    assert!(ground.veil(&all).unwrap_err().reason.contains("cannot be read"));
    // What cannot be read may be readable for whoever enters; root reads all.
    let ground = Ground::new();
    ground.write("upper/shut", "nothing");
    fs::set_permissions(ground.path().join("upper/shut"), fs::Permissions::from_mode(0o000)).unwrap();
    ground.find();
    if !rustix::process::geteuid().is_root() {
        let expected = "without files that hold a secret or were not looked through for one: `shut`";
        assert_eq!(ground.words(&["upper"]).as_deref(), Some(expected));
    }
}

#[test]
fn what_is_not_where_it_was_noted_is_not_taken_for_hidden() {
    for moved in ["upper/sub/held", "upper/sub"] {
        let ground = Ground::new();
        ground.write("upper/sub/held", "s3cret");
        ground.write("upper/sub/also", "s3cret");
        ground.find();
        // As in a copy of the folder, in which all inodes are others.
        fs::rename(ground.path().join(moved), ground.path().join("elsewhere")).unwrap();
        let layer = tempfile::tempdir().unwrap();
        let drawn = ground.veil(&[]).unwrap().draw(ground.path(), Path::new("upper"), layer.path()).unwrap();
        assert_eq!(drawn, Drawn::NotThere, "{moved}");
    }
}

#[test]
fn a_directory_that_cannot_be_entered_shuts_nothing_else() {
    let look = || {
        // SAFETY: it is a call of this thread alone, which makes files as another user from now on.
        unsafe { libc::setfsuid(65534) };
        let ground = Ground::new();
        ground.write("upper/out/inner", "plain");
        ground.write("upper/held", "s3cret");
        let layer = tempfile::tempdir().unwrap();
        let of = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(ground.path().join("upper/out"), of(0o644)).unwrap();
        ground.find();
        let drawn = ground.veil(&[]).unwrap().draw(ground.path(), Path::new("upper"), layer.path()).unwrap();
        for out in [ground.path().join("upper/out"), layer.path().join("out")] {
            fs::set_permissions(out, of(0o755)).unwrap();
        }
        assert!(is_whiteout(&fs::symlink_metadata(layer.path().join("out/inner")).unwrap()));
        (drawn, ground.words(&["upper"]))
    };
    let (drawn, words) = std::thread::spawn(look).join().unwrap();
    assert_eq!(drawn, Drawn::All);
    let expected = "without files that hold a secret or were not looked through for one: `held`, `out/inner`";
    assert_eq!(words.as_deref(), Some(expected));
}

#[test]
fn what_has_a_secret_in_an_attribute_is_hidden() {
    let ground = Ground::new();
    for (path, value) in [("upper/held", "a s3cret"), ("upper/plain", "a word"), ("upper/folder/inner", "")] {
        ground.write(path, "");
        let is_set = rustix::fs::setxattr(ground.path().join(path), "user.t", value.as_bytes(), XattrFlags::empty());
        if is_set == Err(rustix::io::Errno::NOTSUP) {
            println!("skipped: no attributes on this file system");
            return;
        }
    }
    rustix::fs::setxattr(ground.path().join("upper/folder"), "user.s3cret", b"", XattrFlags::empty()).unwrap();
    ground.find();
    assert_eq!(ground.hidden("upper"), ["folder", "held"]);
    rustix::fs::setxattr(ground.path().join("upper"), "user.t", b"s3cret", XattrFlags::empty()).unwrap();
    ground.find();
    assert!(ground.veil(&[]).unwrap_err().reason.starts_with("an attribute of the tree's own folder"));
}

/// Of two lines, the second of which is an ordinary word.
struct TwoLines;

impl Mask for TwoLines {
    fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let is_there = ["s3cret", "users:"].iter().any(|line| String::from_utf8_lossy(bytes).contains(line));
        if is_there { Cow::Owned(b"***".to_vec()) } else { Cow::Borrowed(bytes) }
    }

    fn is_in_content(&self, bytes: &[u8]) -> bool {
        String::from_utf8_lossy(bytes).contains("s3cret")
    }
}

#[test]
fn content_is_looked_through_for_what_tells_a_secret() {
    let ground = Ground::new();
    ground.write("upper/held", "a s3cret");
    ground.write("upper/config", "users: []");
    ground.write("upper/users:", "plain");
    find(ground.path(), &Secrets { mask: Some(Arc::new(TwoLines)), ..Ground::secrets() }).unwrap();
    assert_eq!(ground.hidden("upper"), ["held", "users:"]);
}

#[test]
fn of_a_copy_only_what_the_job_changed_counts() {
    let ground = Ground(tempfile::tempdir().unwrap());
    ground.write("copy/of-the-user", "s3cret");
    std::thread::sleep(std::time::Duration::from_millis(50));
    begin(ground.path(), &Ground::secrets()).unwrap();
    ground.find();
    assert!(ground.veil(&[]).unwrap().is_empty());
    ground.write("copy/of-the-job", "s3cret");
    ground.find();
    assert_eq!(ground.words(&["copy"]).as_deref(), Some("without files that hold a secret: `of-the-job`"));
    // Whoever had them may have written them anywhere.
    fs::remove_file(ground.path().join("copy/of-the-job")).unwrap();
    ground.find();
    assert!(ground.veil(&[]).unwrap().is_empty());
    forget(ground.path()).unwrap();
    assert!(ground.veil(&[]).unwrap_err().reason.contains("a shell that had its secrets"));
    assert!(ground.veil(&[("A", "s3cret"), ("B", "other")]).unwrap().is_empty());
}
