//! A `.git` made of a history, in a checkout that was laid: HEAD, branches, tags, the packs by links, and an index that knows the
//! files, so that `git status` shows what differed where the build was submitted.
//!
//! Nothing of a history is believed: names are checked, packs are indexed by git itself, and git never writes to the
//! checkout's files here nor runs what a setting says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use api::source::{HISTORY_BYTES_MAX, HISTORY_PACKS_MAX, HISTORY_VERSION, History, Staged};
use graph::Digest;
use worker::git;

use crate::agent::content::{Contents, Use};
use crate::agent::source::parts;

/// Packs that nothing used for so long go.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest name of a branch or tag.
const REFERENCE_BYTES_MAX: usize = 1024;

const INCOMING: &str = ".incoming";
const GIT: &str = ".git";

/// Packs with their indexes, by digest, ready to be linked into repositories.
#[derive(Debug)]
pub struct Packs {
    root: PathBuf,
}

/// Whether it is the full name of a branch or tag that can stand in a file of references.
/// Source: git-scm.com/docs/git-check-ref-format.
pub fn is_reference(name: &str) -> bool {
    let is_bad = |letter: char| letter.is_control() || " ~^:?*[\\\u{7f}".contains(letter);
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.ends_with(".lock");
    ["refs/heads/", "refs/tags/", "refs/remotes/"].iter().any(|kind| name.starts_with(kind))
        && name.len() <= REFERENCE_BYTES_MAX
        && !name.contains(is_bad)
        && !name.contains("..")
        && !name.contains("@{")
        && name.split('/').all(is_part)
}

/// Reads a document of a history, and checks all that is written from it.
///
/// # Errors
/// A sentence: it is none, or says what cannot be.
pub fn read(text: &[u8]) -> Result<History, String> {
    let history: History = serde_json::from_slice(text).map_err(|error| format!("it is damaged: {error}"))?;
    if history.version > HISTORY_VERSION {
        return Err(format!("it has version {}, this worker knows {HISTORY_VERSION}: update it", history.version));
    }
    let digits = match history.format.as_str() {
        "sha1" => 40,
        "sha256" => 64,
        other => return Err(format!("it names objects by `{}`", other.escape_debug())),
    };
    let is_id = |id: &str| id.len() == digits && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut ids: Vec<&str> = vec![&history.commit];
    ids.extend(history.shallow.iter().map(String::as_str));
    for (name, reference) in &history.references {
        if !is_reference(name) {
            return Err(format!("`{}` is no branch or tag", name.escape_debug()));
        }
        ids.push(&reference.id);
        ids.extend(reference.peeled.as_deref());
    }
    if let Some(branch) = &history.branch
        && !is_reference(&format!("refs/heads/{branch}"))
    {
        return Err(format!("`{}` is no branch", branch.escape_debug()));
    }
    for (path, staged) in &history.staged {
        parts(path)?;
        if path.contains(['\n', '\0']) {
            return Err(format!("`{}` is no path", path.escape_debug()));
        }
        if let Staged::Added { mode, id } = staged {
            if !["100644", "100755", "120000", "160000"].contains(&mode.as_str()) {
                return Err(format!("`{}` is no mode", mode.escape_debug()));
            }
            ids.push(id);
        }
    }
    if let Some(wrong) = ids.into_iter().find(|id| !is_id(id)) {
        return Err(format!("`{}` names no object", wrong.escape_debug()));
    }
    // One more for what is staged.
    let bytes = history.packs.iter().fold(0_u64, |sum, pack| sum.saturating_add(pack.bytes));
    if history.packs.len() > HISTORY_PACKS_MAX + 1 || bytes > HISTORY_BYTES_MAX {
        return Err("it has more packs than a history may have".to_owned());
    }
    Ok(history)
}

impl Packs {
    /// Opens the folder, making it if need be, and removes what was being made when a process died.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        worker::workspace::remove_tree(&root.join(INCOMING))?;
        fs::create_dir_all(root.join(INCOMING))?;
        Ok(Self { root })
    }

    /// The folder that holds the pack and its index; made of the contents, where the pack is.
    fn indexed(&self, digest: Digest, format: &str, contents: &Contents) -> Result<PathBuf, String> {
        let place = self.root.join(digest.to_hex());
        if let Ok(folder) = fs::File::open(&place) {
            let _ = folder.set_modified(SystemTime::now());
            return Ok(place);
        }
        let failed = |error: io::Error| format!("cannot index a pack: {error}");
        let fresh = tempfile::tempdir_in(self.root.join(INCOMING)).map_err(failed)?;
        let name = pack_name(digest);
        let pack = fresh.path().join(format!("{name}.pack"));
        contents.lay(digest, Use::Plain, &pack).map_err(failed)?;
        let mut command = git::command(fresh.path());
        command.args(["index-pack", &format!("--object-format={format}"), "-o"]).arg(format!("{name}.idx")).arg(&pack);
        run(command, &[])?;
        match fs::rename(fresh.path(), &place) {
            Ok(()) => drop(fresh.keep()),
            // Somebody else may have made it meanwhile.
            Err(_) if place.is_dir() => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(place)
    }

    /// Makes the `.git` of a checkout whose files are all there. `like` is the index of a checkout with much the same files and times,
    /// which saves reading them.
    ///
    /// # Errors
    /// A sentence; then there is no `.git`.
    pub fn lay(&self, history: &History, tree: &Path, like: Option<&Path>, contents: &Contents) -> Result<(), String> {
        let laid = self.try_lay(history, tree, like, contents);
        if laid.is_err() {
            let _ = worker::workspace::remove_tree(&tree.join(GIT));
        }
        laid
    }

    fn try_lay(&self, history: &History, tree: &Path, like: Option<&Path>, contents: &Contents) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot make `.git`: {error}");
        let git = tree.join(GIT);
        for folder in ["objects/pack", "objects/info", "refs/heads", "refs/tags", "info"] {
            fs::create_dir_all(git.join(folder)).map_err(failed)?;
        }
        for pack in &history.packs {
            let place = self.indexed(pack.digest, &history.format, contents)?;
            for kind in ["pack", "idx"] {
                let name = format!("{}.{kind}", pack_name(pack.digest));
                let target = git.join("objects/pack").join(&name);
                let linked = fs::hard_link(place.join(&name), &target);
                linked.or_else(|_| fs::copy(place.join(&name), &target).map(drop)).map_err(failed)?;
            }
        }
        write_files(&git, history).map_err(failed)?;
        if let Some(like) = like {
            // Without it files are read once more.
            let _ = fs::copy(like, git.join("index"));
        }
        write_index(tree, history)
    }

    /// Removes packs that nothing used for long; checkouts keep what they have by links.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT));
            if is_old && entry.file_name() != INCOMING {
                let _ = worker::workspace::remove_tree(&entry.path());
            }
        }
    }
}

/// The index of a checkout, for [`Packs::lay`] of the next one.
pub fn index_of(tree: &Path) -> PathBuf {
    tree.join(GIT).join("index")
}

/// A name as git gives packs.
fn pack_name(digest: Digest) -> String {
    format!("pack-{}", &digest.to_hex()[..40])
}

/// HEAD, references and settings. Of the settings none comes from the sender: files are known by time and length alone, since links
/// and copies have other inodes.
fn write_files(git: &Path, history: &History) -> io::Result<()> {
    let mut settings = String::from("[core]\n\trepositoryformatversion = ");
    settings.push(if history.format == "sha1" { '0' } else { '1' });
    settings.push_str("\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n");
    settings.push_str("\ttrustctime = false\n\tcheckStat = minimal\n");
    if history.format != "sha1" {
        let _ = writeln!(settings, "[extensions]\n\tobjectformat = {}", history.format);
    }
    fs::write(git.join("config"), settings)?;
    let mut references: BTreeMap<String, (&str, Option<&str>)> = BTreeMap::new();
    for (name, reference) in &history.references {
        references.insert(name.clone(), (&reference.id, reference.peeled.as_deref()));
    }
    let head = match &history.branch {
        Some(branch) => {
            let name = format!("refs/heads/{branch}");
            let head = format!("ref: {name}\n");
            references.insert(name, (&history.commit, None));
            head
        }
        None => format!("{}\n", history.commit),
    };
    fs::write(git.join("HEAD"), head)?;
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
    for (name, (id, peeled)) in references {
        let _ = writeln!(packed, "{id} {name}");
        if let Some(peeled) = peeled {
            let _ = writeln!(packed, "^{peeled}");
        }
    }
    fs::write(git.join("packed-refs"), packed)?;
    if !history.shallow.is_empty() {
        fs::write(git.join("shallow"), history.shallow.join("\n") + "\n")?;
    }
    Ok(())
}

/// Makes the index hold the commit and what was staged, and know the files that are there.
fn write_index(tree: &Path, history: &History) -> Result<(), String> {
    run(in_tree(tree, &["read-tree", "--reset", &history.commit]), &[])?;
    if !history.staged.is_empty() {
        let none = "0".repeat(history.commit.len());
        let mut lines = Vec::new();
        for (path, staged) in &history.staged {
            let about = match staged {
                Staged::Added { mode, id } => format!("{mode} {id}\t"),
                Staged::Deleted => format!("0 {none}\t"),
            };
            lines.extend_from_slice(about.as_bytes());
            lines.extend_from_slice(path.as_bytes());
            lines.push(0);
        }
        run(in_tree(tree, &["update-index", "-z", "--index-info"]), &lines)?;
    }
    // It says no if files differ, which is what they may.
    let _ = run(in_tree(tree, &["update-index", "-q", "--refresh"]), &[]);
    Ok(())
}

fn in_tree(tree: &Path, arguments: &[&str]) -> Command {
    let mut command = git::command(tree);
    command.env("GIT_DIR", tree.join(GIT)).env("GIT_WORK_TREE", tree).args(arguments);
    command
}

/// Runs git to its end, with nobody's settings but those of the repository that was made here.
fn run(mut command: Command, input: &[u8]) -> Result<(), String> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no program `git` on the worker".to_owned(),
        _ => format!("cannot run git: {error}"),
    };
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // git says why if it stopped reading.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("git: {}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("fatal: "))),
    }
}
