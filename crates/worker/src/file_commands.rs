//! The files by which steps hand values on: `$ROPEWALK_OUTPUT`, `$ROPEWALK_ENV`, `$ROPEWALK_PATH`, `$ROPEWALK_SUMMARY`.
//!
//! Nobody creates them up front: a step's shell does, with `>>`. After each step [`CommandFiles::take`] looks whether
//! they are there, reads them and removes them. A step controls their content and may plant anything in their place,
//! so links are not followed and nothing but regular files is read.
//!
//! The grammar of OUTPUT and ENV is line by line `name=value`, or `name<<DELIMITER`, lines of text, `DELIMITER`. The
//! value of the second form is its lines joined by line feeds, without a last one. Empty lines between entries are
//! passed over; a carriage return at the end of a line is not part of it. Source: GitHub,
//! docs.github.com/actions/…/workflow-commands, "Multiline strings".

use std::cell::Cell;
use std::fs;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};

/// The most bytes read from one file after one step. A longer file fails the step.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The most entries of one file after one step. More fail the step.
pub const ENTRIES_MAX: usize = 10_000;

/// The longest name of an output or a variable, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// One `name=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line at which it begins, from 1.
    pub line: usize,
    /// Its name, never empty.
    pub name: String,
    /// Its value, any text without NUL.
    pub value: String,
}

/// What is wrong with a file, at a line where that makes sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// A line is neither `name=value` nor `name<<DELIMITER`.
    #[error("line {line}: `{text}` is neither `name=value` nor `name<<DELIMITER`")]
    Form {
        /// From 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// The name is empty, too long or has characters that names cannot have.
    #[error("line {line}: `{name}` cannot be a name")]
    Name {
        /// From 1.
        line: usize,
        /// Its beginning.
        name: String,
    },
    /// The variable is one of those that the worker sets.
    #[error("line {line}: `{name}` is set by the worker and cannot be changed")]
    Reserved {
        /// From 1.
        line: usize,
        /// The variable.
        name: String,
    },
    /// The delimiter after `<<` is empty.
    #[error("line {line}: no delimiter after `<<`")]
    EmptyDelimiter {
        /// From 1.
        line: usize,
    },
    /// The file ends before the delimiter.
    #[error("line {line}: the value of `{name}` has no end; expected a line `{delimiter}`")]
    Unclosed {
        /// Where the entry begins, from 1.
        line: usize,
        /// The entry's name.
        name: String,
        /// What was to end it.
        delimiter: String,
    },
    /// A line is not UTF-8, or holds NUL.
    #[error("line {line} is not text: values must be UTF-8 without NUL")]
    NotText {
        /// From 1.
        line: usize,
    },
    /// The file is longer than [`FILE_BYTES_MAX`].
    #[error("the file has more than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// There are more than [`ENTRIES_MAX`] entries.
    #[error("line {line}: more than {ENTRIES_MAX} entries")]
    TooMany {
        /// Where the first entry too many begins, from 1.
        line: usize,
    },
    /// In its place is a directory, a link, a device or a pipe, or it cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

/// Reads entries of OUTPUT or ENV.
///
/// # Errors
/// The first fault, in the order of the lines.
pub fn entries(text: &[u8]) -> Result<Vec<Entry>, CommandFault> {
    let mut entries = Vec::new();
    let mut lines = text_lines(text);
    while let Some(next) = lines.next() {
        let (line, text) = next?;
        if text.is_empty() {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(CommandFault::TooMany { line });
        }
        entries.push(entry(line, text, &mut lines)?);
    }
    Ok(entries)
}

fn entry<'a>(
    line: usize,
    text: &'a str,
    lines: &mut impl Iterator<Item = Result<(usize, &'a str), CommandFault>>,
) -> Result<Entry, CommandFault> {
    let equals = text.find('=').unwrap_or(usize::MAX);
    let heredoc = text.find("<<").unwrap_or(usize::MAX);
    if equals == usize::MAX && heredoc == usize::MAX {
        return Err(CommandFault::Form { line, text: beginning(text) });
    }
    if equals < heredoc {
        let name = named(line, &text[..equals])?;
        return Ok(Entry { line, name, value: text[equals + 1..].to_owned() });
    }
    let name = named(line, &text[..heredoc])?;
    let delimiter = &text[heredoc + 2..];
    if delimiter.is_empty() {
        return Err(CommandFault::EmptyDelimiter { line });
    }
    let mut value = String::new();
    let mut has_lines = false;
    for next in lines {
        let (_, text) = next?;
        if text == delimiter {
            return Ok(Entry { line, name, value });
        }
        if has_lines {
            value.push('\n');
        }
        value.push_str(text);
        has_lines = true;
    }
    Err(CommandFault::Unclosed { line, name, delimiter: beginning(delimiter) })
}

/// Letters, digits, `_`, `-` and `.`, not beginning with a digit, `-` or `.`.
fn named(line: usize, name: &str) -> Result<String, CommandFault> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if first && rest && name.len() <= NAME_BYTES_MAX {
        return Ok(name.to_owned());
    }
    Err(CommandFault::Name { line, name: beginning(name) })
}

/// Reads variables of ENV: as [`entries`], but not those that the worker itself sets.
///
/// # Errors
/// The first fault.
pub fn variables(text: &[u8]) -> Result<Vec<Entry>, CommandFault> {
    let entries = entries(text)?;
    match entries.iter().find(|entry| is_reserved(&entry.name)) {
        Some(entry) => Err(CommandFault::Reserved { line: entry.line, name: entry.name.clone() }),
        None => Ok(entries),
    }
}

/// Whether a variable is the worker's own: steps and pipelines cannot change it.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == "CI" || name == "ROPEWALK" || name.starts_with("ROPEWALK_")
}

/// Reads directories of PATH: one a line, in the order in which they were written.
///
/// # Errors
/// The first fault.
pub fn directories(text: &[u8]) -> Result<Vec<String>, CommandFault> {
    let mut directories = Vec::new();
    for next in text_lines(text) {
        let (line, text) = next?;
        if directories.len() == ENTRIES_MAX {
            return Err(CommandFault::TooMany { line });
        }
        if !text.is_empty() {
            directories.push(text.to_owned());
        }
    }
    Ok(directories)
}

/// Lines with their numbers, without their ends; a last line feed begins no line.
fn text_lines(text: &[u8]) -> impl Iterator<Item = Result<(usize, &str), CommandFault>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_text = !line.contains(&0);
        let text = std::str::from_utf8(line).ok().filter(|_| is_text);
        text.map(|text| (index + 1, text)).ok_or(CommandFault::NotText { line: index + 1 })
    })
}

fn beginning(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Which of the four files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFile {
    /// `$ROPEWALK_OUTPUT`.
    Output,
    /// `$ROPEWALK_ENV`.
    Env,
    /// `$ROPEWALK_PATH`.
    Path,
    /// `$ROPEWALK_SUMMARY`.
    Summary,
}

impl CommandFile {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Output, Self::Env, Self::Path, Self::Summary];

    /// The environment variable that names it to the step.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Output => "ROPEWALK_OUTPUT",
            Self::Env => "ROPEWALK_ENV",
            Self::Path => "ROPEWALK_PATH",
            Self::Summary => "ROPEWALK_SUMMARY",
        }
    }

    /// Its name in the slot's directory.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Env => "env",
            Self::Path => "path",
            Self::Summary => "summary",
        }
    }
}

/// The directory of one slot, in which steps of one attempt after another leave their files.
#[derive(Debug)]
pub struct CommandFiles {
    directory: PathBuf,
    /// In the order of [`CommandFile::ALL`].
    paths: [PathBuf; 4],
    handle: OwnedFd,
    /// When the directory was changed last, if it was empty then and has been so for [`SETTLED`].
    empty_since: Cell<Option<Changed>>,
}

/// Seconds and nanoseconds of a directory's last change.
type Changed = (i64, u64);

/// A directory that was not changed for so long gets another time with its next change: file systems count at least
/// hundredths of seconds.
const SETTLED: Duration = Duration::from_millis(50);

impl CommandFiles {
    /// Uses, and if need be creates, this directory; what an earlier process left in it is removed.
    ///
    /// # Errors
    /// It cannot be created or emptied.
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            remove(&entry?.path())?;
        }
        let handle = rustix::fs::open(&directory, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let paths = CommandFile::ALL.map(|file| directory.join(file.file_name()));
        Ok(Self { directory, paths, handle, empty_since: Cell::new(None) })
    }

    /// The files' places, which steps are told.
    pub fn places(&self) -> impl Iterator<Item = (CommandFile, &Path)> {
        CommandFile::ALL.into_iter().zip(self.paths.iter().map(PathBuf::as_path))
    }

    /// Whether nothing at all stands in the directory: then no file needs to be looked for. Where that cannot be told, or
    /// a step put another directory in its place, something does. Costs one `fstat` while nobody changes it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Ok(state) = rustix::fs::fstat(&self.handle) else { return false };
        let changed: Changed = (state.st_ctime, state.st_ctime_nsec);
        if self.empty_since.get() == Some(changed) {
            return true;
        }
        let is_settled = UNIX_EPOCH
            .checked_add(Duration::new(u64::try_from(changed.0).unwrap_or(0), u32::try_from(changed.1).unwrap_or(0)))
            .and_then(|changed| SystemTime::now().duration_since(changed).ok())
            .is_some_and(|age| age >= SETTLED);
        let is_empty = self.has_no_entry();
        self.empty_since.set((is_empty && is_settled).then_some(changed));
        is_empty
    }

    fn has_no_entry(&self) -> bool {
        if rustix::fs::seek(&self.handle, SeekFrom::Start(0)).is_err() {
            return false;
        }
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut entries = RawDir::new(&self.handle, &mut buffer);
        while let Some(entry) = entries.next() {
            // A directory that was removed gives an error.
            if !entry.is_ok_and(|entry| [c".", c".."].contains(&entry.file_name())) {
                return false;
            }
        }
        true
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What stands in the file, which is then removed; `None` if the step did not write it. Costs one failed `open`
    /// in that case.
    ///
    /// # Errors
    /// [`CommandFault::TooLong`] (for the summary the caller gets what fits), [`CommandFault::Unreadable`].
    pub fn take(&self, file: CommandFile) -> Result<Option<Vec<u8>>, CommandFault> {
        let path = &self.paths[file as usize];
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let content = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => Err(CommandFault::Unreadable("it is a symbolic link".to_owned())),
            Err(error) => Err(CommandFault::Unreadable(error.to_string())),
            Ok(descriptor) => read_bounded(fs::File::from(descriptor), file),
        };
        let removed = remove(path).map_err(|error| CommandFault::Unreadable(error.to_string()));
        let content = content?;
        removed?;
        Ok(Some(content))
    }

    /// Removes whatever is there, so that the next attempt in this slot starts clean.
    pub fn clear(&self) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let _ = remove(&entry.path());
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn read_bounded(file: fs::File, kind: CommandFile) -> Result<Vec<u8>, CommandFault> {
    let unreadable = |error: io::Error| CommandFault::Unreadable(error.to_string());
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(CommandFault::Unreadable("it is not a regular file".to_owned()));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() > FILE_BYTES_MAX && kind != CommandFile::Summary {
        return Err(CommandFault::TooLong);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::{CommandFile, CommandFiles, ENTRIES_MAX, FILE_BYTES_MAX, directories, entries, variables};

    fn check(text: &[u8], expected: &str) {
        let shown = match entries(text) {
            Ok(entries) => {
                let one = |entry: &super::Entry| format!("{}={:?}", entry.name, entry.value);
                entries.iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Err(fault) => fault.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn both_forms() {
        check(b"", "");
        check(b"a=1\n\nb=x=y<<z\r\nc=\n", r#"a="1" b="x=y<<z" c="""#);
        check(b"a<<END\none\n\ntwo\nEND\nb=2", r#"a="one\n\ntwo" b="2""#);
        check(b"a<<END\nEND\n", r#"a="""#);
        check(b"a<<x=y\n1\nx=y\n", r#"a="1""#);
        check("größe=1".as_bytes(), "line 1: `größe` cannot be a name");
        check("a=größe".as_bytes(), r#"a="größe""#);
    }

    #[test]
    fn faults_name_the_line() {
        check(b"a=1\noops\n", "line 2: `oops` is neither `name=value` nor `name<<DELIMITER`");
        check(b"\n=1\n", "line 2: `` cannot be a name");
        check(b"a b=1", "line 1: `a b` cannot be a name");
        check(b"a<<\n", "line 1: no delimiter after `<<`");
        check(b"b=1\na<<END\n1\nEND \n", "line 2: the value of `a` has no end; expected a line `END`");
        check(b"a=1\nb=\xff\n", "line 2 is not text: values must be UTF-8 without NUL");
        check(b"a=\0\n", "line 1 is not text: values must be UTF-8 without NUL");
        let many = "a=1\n".repeat(ENTRIES_MAX + 1);
        check(many.as_bytes(), "line 10001: more than 10000 entries");
    }

    #[test]
    fn own_variables_stay() {
        let fault = variables(b"A=1\nROPEWALK_BUILD=2\n").unwrap_err();
        assert_eq!(fault.to_string(), "line 2: `ROPEWALK_BUILD` is set by the worker and cannot be changed");
        assert_eq!(variables(b"A=1\n").unwrap().len(), 1);
    }

    #[test]
    fn directories_in_order() {
        assert_eq!(directories(b"/a\n\n/b c\r\n").unwrap(), ["/a", "/b c"]);
    }

    #[test]
    fn files_are_taken_once_and_links_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let files = CommandFiles::new(scratch.path().join("slot")).unwrap();
        let output = files.directory().join("output");
        assert_eq!((files.take(CommandFile::Output), files.is_empty()), (Ok(None), true));
        fs::write(&output, "a=1\n").unwrap();
        assert!(!files.is_empty());
        assert_eq!(files.take(CommandFile::Output), Ok(Some(b"a=1\n".to_vec())));
        assert_eq!((files.take(CommandFile::Output), files.is_empty()), (Ok(None), true));

        std::os::unix::fs::symlink("/etc/passwd", &output).unwrap();
        assert_eq!(files.take(CommandFile::Output).unwrap_err().to_string(), "cannot be read: it is a symbolic link");
        fs::create_dir(&output).unwrap();
        assert_eq!(
            files.take(CommandFile::Output).unwrap_err().to_string(),
            "cannot be read: it is not a regular file"
        );
        rustix::fs::mknodat(rustix::fs::CWD, &output, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(
            files.take(CommandFile::Output).unwrap_err().to_string(),
            "cannot be read: it is not a regular file"
        );
        fs::write(&output, vec![b'a'; FILE_BYTES_MAX + 1]).unwrap();
        assert_eq!(files.take(CommandFile::Output).unwrap_err().to_string(), "the file has more than 1048576 bytes");
        assert_eq!(files.take(CommandFile::Output), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec(("[A-Za-z_][A-Za-z0-9_.-]{0,8}", "[^\0\r]{0,40}"), 0..8)) {
            let mut text = String::new();
            for (name, value) in &values {
                if value.contains('\n') {
                    text.push_str(&format!("{name}<<a delimiter of ours\n{value}\na delimiter of ours\n"));
                } else {
                    text.push_str(&format!("{name}={value}\n"));
                }
            }
            let read = entries(text.as_bytes()).unwrap();
            let read: Vec<(String, String)> = read.into_iter().map(|entry| (entry.name, entry.value)).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_bytes_are_judged(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (entries(&text), variables(&text), directories(&text));
        }

        #[test]
        fn faults_lie_within(text in "([a-z]{0,2}(=|<<)?[a-z]{0,2}\n){0,12}") {
            if let Err(fault) = entries(text.as_bytes()) {
                let line: usize = fault.to_string().split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty()).unwrap().parse().unwrap();
                prop_assert!(line >= 1 && line <= text.lines().count());
            }
        }
    }
}
