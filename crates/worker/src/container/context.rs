//! What the build of a Dockerfile sees: the files of a directory as an archive, without those that `.dockerignore` names.
//!
//! Source of the rules: docs.docker.com/build/concepts/context, "Dockerignore files". The last pattern that matches a path or one of
//! the directories above it decides; `!` takes files in again; patterns begin at the context's root.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The most bytes of a context's files.
pub const CONTEXT_BYTES_MAX: u64 = 16 << 30;

/// The most files and directories of a context.
pub const CONTEXT_FILES_MAX: usize = 1_000_000;

/// The most patterns of a `.dockerignore`.
pub const PATTERNS_MAX: usize = 1000;

/// Where the Dockerfile stands in the archive: under a name that no context has.
pub const DOCKERFILE: &str = ".ropewalk.Dockerfile";

/// A context cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ContextFault {
    /// A file cannot be read, or the archive cannot be written.
    #[error("read `{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// It is not a file of the workspace.
    #[error("`{}` is not a file of the workspace", .0.display())]
    NoDockerfile(PathBuf),
    /// It is not a directory of the workspace.
    #[error("`{}` is not a directory of the workspace", .0.display())]
    NoContext(PathBuf),
    /// A link on the way to it leads elsewhere, where other things than the project's are.
    #[error("`{}` leads out of the workspace by a link: the build of an image is sent files of the workspace alone", .0.display())]
    LeadsOut(PathBuf),
    /// A pattern cannot be read, or there are too many.
    #[error(".dockerignore: {0}")]
    Ignore(String),
    /// There is too much.
    #[error(
        "the build's context has more than {CONTEXT_FILES_MAX} files or {CONTEXT_BYTES_MAX} bytes: name what it does not need in .dockerignore"
    )]
    TooMuch,
}

/// One pattern, and whether it takes files in again.
struct Pattern {
    matcher: Gitignore,
    takes_in: bool,
}

/// The patterns of a `.dockerignore`, in order.
pub struct Ignored(Vec<Pattern>);

impl Ignored {
    /// Reads the text of a `.dockerignore`.
    ///
    /// # Errors
    /// [`ContextFault::Ignore`].
    pub fn read(text: &str) -> Result<Self, ContextFault> {
        let mut patterns = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if patterns.len() == PATTERNS_MAX {
                return Err(ContextFault::Ignore(format!("it has more than {PATTERNS_MAX} patterns")));
            }
            let (takes_in, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern.trim()));
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            let mut builder = GitignoreBuilder::new("");
            let added = builder.add_line(None, &format!("/{pattern}"));
            let matcher = added.and_then(|builder| builder.build());
            let matcher = matcher.map_err(|error| ContextFault::Ignore(error.to_string()))?;
            patterns.push(Pattern { matcher, takes_in });
        }
        Ok(Self(patterns))
    }

    /// Whether a path, relative to the context, is left out.
    #[must_use]
    pub fn leaves_out(&self, path: &Path, kind: Entry) -> bool {
        let is_directory = kind == Entry::Directory;
        let matches = |pattern: &&Pattern| pattern.matcher.matched_path_or_any_parents(path, is_directory).is_ignore();
        self.0.iter().rev().find(matches).is_some_and(|pattern| !pattern.takes_in)
    }

    /// Whether something below a directory that is left out may be taken in.
    fn takes_some_in(&self) -> bool {
        self.0.iter().any(|pattern| pattern.takes_in)
    }
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

fn at(path: &Path) -> impl Fn(io::Error) -> ContextFault + use<> {
    let path = path.to_owned();
    move |source| ContextFault::File { path: path.clone(), source }
}

/// Writes the context below `root` and its Dockerfile, both relative to `root`, as an archive; links are sent as links and not
/// followed. Sorted by path, so that equal contexts are equal archives.
///
/// # Errors
/// [`ContextFault`].
pub fn write(root: &Path, context: &Path, dockerfile: &Path, to: impl Write) -> Result<(), ContextFault> {
    let is_directory = within(root, context)?.is_some_and(|found| found.metadata().is_ok_and(|found| found.is_dir()));
    if !is_directory {
        return Err(ContextFault::NoContext(context.to_owned()));
    }
    let directory = root.join(context);
    let text = read(root, dockerfile)?;
    let ignore_file = context.join(".dockerignore");
    let ignored = match within(root, &ignore_file)? {
        Some(found) if is_file(&found) => Ignored::read(&io::read_to_string(found).map_err(at(&ignore_file))?)?,
        _ => Ignored(Vec::new()),
    };
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    // No engine reads GNU's entries for files with holes.
    archive.sparse(false);
    // Times and owners do not count: equal files are equal archives.
    archive.mode(tar::HeaderMode::Deterministic);
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, DOCKERFILE, text.as_slice()).map_err(at(dockerfile))?;
    let mut left = Left { files: CONTEXT_FILES_MAX, bytes: CONTEXT_BYTES_MAX };
    append(&mut archive, &directory, Path::new(""), &ignored, &mut left)?;
    archive.into_inner().and_then(|mut to| to.flush()).map_err(at(&directory))
}

/// The text of a Dockerfile, relative to the workspace `root`.
///
/// # Errors
/// [`ContextFault::NoDockerfile`], [`ContextFault::LeadsOut`], [`ContextFault::File`].
pub fn read(root: &Path, dockerfile: &Path) -> Result<Vec<u8>, ContextFault> {
    let none = || ContextFault::NoDockerfile(dockerfile.to_owned());
    let mut file = within(root, dockerfile)?.filter(is_file).ok_or_else(none)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|_| none())?;
    Ok(text)
}

/// Opens a path of the workspace `root`, whose links lead nowhere else; `None` if nothing is there. The root may be one that another process
/// sees, under `/proc`, so that names do not tell what is below it.
///
/// # Errors
/// [`ContextFault::LeadsOut`], [`ContextFault::File`].
fn within(root: &Path, path: &Path) -> Result<Option<File>, ContextFault> {
    let root = File::open(root).map_err(at(root))?;
    // What is no file may keep whoever opens it waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let path_below = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match openat2(&root, path_below, flags, Mode::empty(), ResolveFlags::BENEATH) {
        Ok(found) => Ok(Some(found.into())),
        Err(Errno::XDEV) => Err(ContextFault::LeadsOut(path.to_owned())),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(at(path)(error.into())),
    }
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// How much more a context may hold.
struct Left {
    files: usize,
    bytes: u64,
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    directory: &Path,
    below: &Path,
    ignored: &Ignored,
    left: &mut Left,
) -> Result<(), ContextFault> {
    let place = directory.join(below);
    let entries = fs::read_dir(&place).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(at(&place))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        let metadata = entry.metadata().map_err(at(&path))?;
        let kind = if metadata.is_dir() { Entry::Directory } else { Entry::File };
        let is_left_out = ignored.leaves_out(&name, kind);
        if !is_left_out {
            left.files = left.files.checked_sub(1).ok_or(ContextFault::TooMuch)?;
            left.bytes = left.bytes.checked_sub(metadata.len()).ok_or(ContextFault::TooMuch)?;
            if metadata.is_dir() {
                archive.append_dir(&name, &path).map_err(at(&path))?;
            } else if metadata.is_file() || metadata.is_symlink() {
                archive.append_path_with_name(&path, &name).map_err(at(&path))?;
            }
        }
        if metadata.is_dir() && (!is_left_out || ignored.takes_some_in()) {
            append(archive, directory, &name, ignored, left)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patterns: &str, path: &str, is_left_out: bool) {
        let ignored = Ignored::read(patterns).expect("the patterns are right");
        assert_eq!(ignored.leaves_out(Path::new(path), Entry::File), is_left_out, "{patterns:?} {path}");
    }

    #[test]
    fn dockerignore_decides_by_its_last_match() {
        check("", "a", false);
        check("a", "a", true);
        check("a", "b/a", false);
        check("**/a", "b/a", true);
        check("*.log", "x.log", true);
        check("*.log", "d/x.log", false);
        check("d", "d/e/f", true);
        check("d\n!d/e/keep", "d/e/keep", false);
        check("d\n!d/e/keep", "d/e/other", true);
        check("!a\na", "a", true);
        check("# a\n\n./b/", "b/c", true);
        check("/a", "a", true);
    }

    #[test]
    fn a_context_is_what_is_not_ignored() {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path();
        for (path, text) in
            [("c/keep", "k"), ("c/d/x", "x"), ("c/d/y", "y"), ("c/.dockerignore", "d\n!d/y"), ("D", "FROM a")]
        {
            fs::create_dir_all(root.join(path).parent().expect("a parent")).expect("a folder");
            fs::write(root.join(path), text).expect("a file");
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("c/link")).expect("a link");
        // With a hole, of which engines read no entries of their own kind.
        File::options().write(true).open(root.join("c/keep")).and_then(|file| file.set_len(5 << 20)).expect("longer");
        let mut bytes = Vec::new();
        write(root, Path::new("c"), Path::new("D"), &mut bytes).expect("a context");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("an archive").map(|entry| {
            let entry = entry.expect("an entry");
            assert_eq!(entry.size(), if entry.path_bytes().ends_with(b"keep") { 5 << 20 } else { entry.size() });
            (entry.path().expect("a path").display().to_string(), entry.header().entry_type())
        });
        let (file, link) = (tar::EntryType::Regular, tar::EntryType::Symlink);
        let expected = [(DOCKERFILE, file), (".dockerignore", file), ("d/y", file), ("keep", file), ("link", link)];
        assert_eq!(entries.collect::<Vec<_>>(), expected.map(|(path, kind)| (path.to_owned(), kind)));
        let absent = write(root, Path::new("c"), Path::new("E"), Vec::new());
        assert!(matches!(absent, Err(ContextFault::NoDockerfile(_))));
        assert!(matches!(write(root, Path::new("D"), Path::new("D"), Vec::new()), Err(ContextFault::NoContext(_))));
    }

    #[test]
    fn nothing_is_sent_that_a_link_has_elsewhere() {
        let (scratch, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let root = scratch.path();
        fs::write(elsewhere.path().join("secret"), "FROM secret").expect("a file");
        fs::create_dir_all(root.join("c")).expect("a folder");
        fs::write(root.join("D"), "FROM a").expect("a file");
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).expect("a link");
        link(elsewhere.path(), "out");
        link(&elsewhere.path().join("secret"), "D.out");
        link(Path::new("c"), "in");
        link(Path::new("D"), "D.in");
        let check = |context: &str, dockerfile: &str, expected: Option<&str>| {
            let written = write(root, Path::new(context), Path::new(dockerfile), Vec::new());
            match (written, expected) {
                (Ok(()), None) => {}
                (Err(ContextFault::LeadsOut(path)), Some(expected)) => assert_eq!(path, Path::new(expected)),
                (other, _) => panic!("{context} {dockerfile}: {other:?}"),
            }
        };
        check("in", "D.in", None);
        check("out", "D", Some("out"));
        check("c", "D.out", Some("D.out"));
        check("c", "out/secret", Some("out/secret"));
        link(&elsewhere.path().join("secret"), "c/.dockerignore");
        check("c", "D", Some("c/.dockerignore"));
    }
}
