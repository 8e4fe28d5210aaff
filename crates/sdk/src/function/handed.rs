//! What a function hands on: files laid where other jobs find them, and outputs in the worker's file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::context::inside;
use crate::json::Json;

/// Where files that functions hand on lie, relative to the workspace.
pub(super) const DIRECTORY: &str = ".ropewalk-files";

/// The most files and directories inside one value.
const FILES_MAX: usize = 10_000;

/// The most entries of one directory that is handed on, at any depth.
const ENTRIES_MAX: usize = 200_000;

/// The most bytes that a worker reads from the file of outputs.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Removes what an earlier try of the job laid.
pub(super) fn clear(workspace: &Path, job: &str) -> Result<(), String> {
    let path = workspace.join(DIRECTORY).join(job);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove the files of an earlier try, `{}`: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Lays each of the files at `.ropewalk-files/JOB/N/NAME` and gives those paths, in the same order.
///
/// # Errors
/// If one is missing, or leads out of the workspace.
pub(super) fn lay(workspace: &Path, job: &str, files: &[String]) -> Result<Vec<String>, String> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    if files.len() > FILES_MAX {
        return Err(format!("the value holds {} files and directories; the most is {FILES_MAX}", files.len()));
    }
    let root = workspace.canonicalize().map_err(|error| format!("the workspace cannot be read: {error}"))?;
    let base = workspace.join(DIRECTORY);
    let laying = Laying { root };
    let made = fs::create_dir_all(&base).and_then(|()| fs::write(base.join(".gitignore"), "*\n"));
    made.map_err(|error| format!("cannot make `{}`: {error}", base.display()))?;
    let lay = |(number, path): (usize, &String)| {
        let path = inside(path).map_err(|failure| format!("the value cannot be handed on: {}", failure.message()))?;
        let name = path.rsplit('/').next().unwrap_or(&path);
        let place = format!("{DIRECTORY}/{job}/{number}/{name}");
        laying.one(&workspace.join(&path), &workspace.join(&place), &path)?;
        Ok(place)
    };
    files.iter().enumerate().map(lay).collect()
}

struct Laying {
    /// The workspace, without links.
    root: PathBuf,
}

impl Laying {
    /// Lays one file, or one directory with all that is in it.
    fn one(&self, from: &Path, to: &Path, shown: &str) -> Result<(), String> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => format!("the value holds `{shown}`, which is not there"),
            _ => format!("cannot hand on `{shown}`: {error}"),
        };
        let real = from.canonicalize().map_err(failed)?;
        if !real.starts_with(&self.root) || real == self.root {
            return Err(format!("the value holds `{shown}`, which leads out of the workspace"));
        }
        fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
        if real.is_dir() { self.directory(&real, to, shown) } else { link(&real, to).map_err(failed) }
    }

    /// Lays a directory; links inside it stay links, and must stay inside it.
    fn directory(&self, from: &Path, to: &Path, shown: &str) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot hand on `{shown}`: {error}");
        let mut open = vec![(from.to_owned(), to.to_owned())];
        let mut n_entries = 0;
        while let Some((source, target)) = open.pop() {
            fs::create_dir_all(&target).map_err(failed)?;
            for entry in fs::read_dir(&source).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                n_entries += 1;
                if n_entries > ENTRIES_MAX {
                    return Err(format!("the directory `{shown}` holds more than {ENTRIES_MAX} entries"));
                }
                let (path, place) = (entry.path(), target.join(entry.file_name()));
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    open.push((path, place));
                } else if kind.is_symlink() {
                    let text = fs::read_link(&path).map_err(failed)?;
                    let is_within = text.is_relative() && path.canonicalize().is_ok_and(|real| real.starts_with(from));
                    if !is_within {
                        let link = path.strip_prefix(&self.root).unwrap_or(&path).display();
                        return Err(format!("the directory `{shown}` holds the link `{link}`, which leads out of it"));
                    }
                    std::os::unix::fs::symlink(text, place).map_err(failed)?;
                } else if kind.is_file() {
                    link(&path, &place).map_err(failed)?;
                } else {
                    let name = path.strip_prefix(&self.root).unwrap_or(&path).display();
                    return Err(format!("the directory `{shown}` holds `{name}`, which is neither file nor directory"));
                }
            }
        }
        Ok(())
    }
}

/// A hard link; a copy where the file system has none, or the file lies on another.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// The output that names what the function read of the event and its job's operation does not hold, with `, ` between. No field of a
/// value has a name with a dot.
const EVENT_READ: &str = "event.read";

/// Writes `value`, and each field of it that is `declared` as an output, as the worker reads them; and the parts of the event that were `read`
/// though the payload does not tell them.
///
/// # Errors
/// If that cannot be written, is longer than a worker reads, or a text holds NUL.
pub(super) fn write_outputs(
    path: &Path,
    schema: &str,
    value: Json,
    declared: &[String],
    read: &[String],
) -> Result<(), String> {
    let mut out = String::new();
    let fields = value.entries().to_vec();
    let whole = Json::object([("schema", schema.into()), ("value", value)]);
    write_entry("value", &whole.to_string(), &mut out);
    for (name, field) in fields.into_iter().filter(|(name, _)| name != "value" && declared.contains(name)) {
        let text = if let Json::Text(text) = field { text } else { field.to_string() };
        if text.contains('\0') {
            return Err(format!("the field `{name}` of the value holds NUL, which an output cannot"));
        }
        write_entry(&name, &text, &mut out);
    }
    if !read.is_empty() {
        write_entry(EVENT_READ, &read.join(", "), &mut out);
    }
    if out.len() > OUTPUT_BYTES_MAX {
        return Err(format!(
            "the value takes {} bytes; the most is {OUTPUT_BYTES_MAX}: hand on what is large as a `File`",
            out.len()
        ));
    }
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(out.as_bytes()));
    written.map_err(|error| format!("the outputs cannot be written: {error}"))
}

/// The most bytes of a failure's words that are handed on.
const FAILURE_BYTES_MAX: usize = 4096;

/// Writes why the function failed, for those that look at its outcome.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write_failure(path: &Path, message: &str) -> io::Result<()> {
    let message = &message[..message.floor_char_boundary(FAILURE_BYTES_MAX)];
    // A command may have left its last line open.
    let mut out = String::from("\n");
    write_entry("failure", &message.replace('\0', " "), &mut out);
    fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(out.as_bytes())
}

/// `name=value`, or with a delimiter that no line of the value is.
fn write_entry(name: &str, value: &str, out: &mut String) {
    if !value.contains('\n') && !value.ends_with('\r') {
        out.push_str(&format!("{name}={value}\n"));
        return;
    }
    let mut delimiter = String::from("END_OF_VALUE");
    while value.split('\n').any(|line| line.trim_end_matches('\r') == delimiter) {
        delimiter.push('_');
    }
    out.push_str(&format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"));
}
