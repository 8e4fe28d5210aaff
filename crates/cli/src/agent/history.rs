//! The history of a source: what its commit reaches, as packs of git. Packed and kept here by who sends; laid as a `.git` by
//! [`laying`] on the worker.
//!
//! What was packed of an earlier commit is not packed again: the next commit is a pack of what it adds. Nothing but objects
//! that the commit reaches, what is staged, and names of branches and tags is sent: no hook, no setting, no remote.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use api::source::{
    HISTORY_BYTES_MAX, HISTORY_COMMITS_MAX, HISTORY_PACKS_MAX, HISTORY_REFERENCES_MAX, HISTORY_STAGED_MAX,
    HISTORY_VERSION, History, Pack, Reference, Staged,
};
use graph::Digest;
use serde::{Deserialize, Serialize};
use worker::git;
use worker::repository;

pub mod laying;

/// How many commits' packs are remembered for the next one.
const CHAINS_MAX: usize = 8;

/// How many commits are tried, one after the other, until the packs are small enough.
const DEPTHS: [usize; 4] = [HISTORY_COMMITS_MAX, 1_000, 100, 1];

/// How long a pack stays that nothing names: another sender may have just made it.
const UNNAMED_KEPT: Duration = Duration::from_secs(3600);

/// The file that says what was packed.
const CHAINS: &str = "chains.json";

/// Which files a source has, for what is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Those of the folder as they stand: with what is staged, on the branch.
    Directory,
    /// Those of the commit: nothing is staged.
    Commit,
}

/// A history that is ready to be sent.
#[derive(Debug)]
pub struct Packed {
    /// The document.
    pub history: History,
    /// The file of each pack.
    pub files: BTreeMap<Digest, PathBuf>,
    /// What people should know; empty if nothing.
    pub notes: Vec<String>,
}

/// What was packed of one commit. Old fields stay; new ones have defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Chain {
    commit: String,
    format: String,
    commits: u64,
    /// The digest of all branches and tags as they were then.
    seen: Digest,
    references: BTreeMap<String, Reference>,
    shallow: Vec<String>,
    packs: Vec<Pack>,
}

/// Packs what `commit` reaches in the repository whose checkout is at `root`; `kept` is the folder in which packs are kept for
/// the next time.
///
/// # Errors
/// A sentence: git refuses. The build can go on without.
pub fn pack(root: &Path, commit: &str, of: Of, kept: &Path) -> Result<Packed, String> {
    fs::create_dir_all(kept).map_err(|error| format!("cannot make {}: {error}", kept.display()))?;
    let mut chains = read_chains(kept);
    let references = References::look(root)?;
    let place = chains.iter().position(|chain| chain.commit == commit && chain.seen == references.seen);
    let mut notes = Vec::new();
    let chain = match place {
        Some(place) => chains.remove(place),
        None => Packing { root, commit, kept, references }.chain(&mut chains, &mut notes)?,
    };
    chains.push(chain.clone());
    let too_many = chains.len().saturating_sub(CHAINS_MAX);
    chains.drain(..too_many);
    save_chains(kept, &chains);
    if !chain.shallow.is_empty() {
        notes.push(format!("the history that jobs see is shallow: {} commits", chain.commits));
    }
    let mut packed = Packed { history: History::default(), files: BTreeMap::new(), notes };
    packed.history = History {
        version: HISTORY_VERSION,
        format: chain.format,
        commit: commit.to_owned(),
        branch: repository::head(root)
            .ok()
            .filter(|head| head.commit.as_deref() == Some(commit))
            .and_then(|head| head.branch),
        commits: chain.commits,
        references: chain.references,
        shallow: chain.shallow,
        packs: chain.packs,
        staged: BTreeMap::new(),
    };
    for pack in &packed.history.packs {
        packed.files.insert(pack.digest, pack_file(kept, pack.digest));
    }
    if of == Of::Directory
        && let Err(fault) = add_staged(root, kept, &mut packed)
    {
        packed.notes.push(format!("jobs see what is staged as not staged: {fault}"));
    }
    remove_unnamed(kept, &chains, &packed.history);
    Ok(packed)
}

fn pack_file(kept: &Path, digest: Digest) -> PathBuf {
    kept.join(format!("{}.pack", digest.to_hex()))
}

/// The chains whose packs are all there, the one used last at the end. Losing them costs time only.
fn read_chains(kept: &Path) -> Vec<Chain> {
    let text = fs::read(kept.join(CHAINS)).unwrap_or_default();
    let mut chains: Vec<Chain> = serde_json::from_slice(&text).unwrap_or_default();
    let is_there =
        |pack: &Pack| fs::metadata(pack_file(kept, pack.digest)).is_ok_and(|metadata| metadata.len() == pack.bytes);
    chains.retain(|chain| chain.packs.iter().all(is_there));
    chains
}

fn save_chains(kept: &Path, chains: &[Chain]) {
    let save = || {
        let mut fresh = tempfile::NamedTempFile::new_in(kept)?;
        serde_json::to_writer(&mut fresh, chains)?;
        fresh.persist(kept.join(CHAINS)).map(drop).map_err(|error| error.error)
    };
    // What is lost is packed again.
    let _ = save();
}

/// Removes packs that neither a chain nor this history names, and that no other sender is about to send.
fn remove_unnamed(kept: &Path, chains: &[Chain], history: &History) {
    let packs = chains.iter().flat_map(|chain| &chain.packs).chain(&history.packs);
    let named: HashSet<PathBuf> = packs.map(|pack| pack_file(kept, pack.digest)).collect();
    for entry in fs::read_dir(kept).into_iter().flatten().flatten() {
        let path = entry.path();
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > UNNAMED_KEPT));
        if is_old && path.extension() == Some(OsStr::new("pack")) && !named.contains(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Branches and tags of a repository.
struct References {
    /// What git printed of all of them, hashed.
    seen: Digest,
}

impl References {
    fn look(root: &Path) -> Result<Self, String> {
        let all = asked(root, &["for-each-ref", "refs/heads", "refs/tags", "refs/remotes"])?;
        Ok(Self { seen: Digest(*blake3::hash(&all).as_bytes()) })
    }

    /// Those that `commit` reaches, the newest.
    fn reached(root: &Path, commit: &str) -> Result<BTreeMap<String, Reference>, String> {
        let merged = format!("--merged={commit}");
        let count = format!("--count={HISTORY_REFERENCES_MAX}");
        let form = "--format=%(refname) %(objectname) %(*objectname)";
        let arguments =
            ["for-each-ref", &merged, &count, "--sort=-creatordate", form, "refs/heads", "refs/tags", "refs/remotes"];
        let answer = asked(root, &arguments)?;
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&answer).lines() {
            let mut fields = line.split(' ');
            if let (Some(name), Some(id)) = (fields.next(), fields.next()) {
                let peeled = fields.next().filter(|peeled| !peeled.is_empty()).map(str::to_owned);
                if laying::is_reference(name) {
                    found.insert(name.to_owned(), Reference { id: id.to_owned(), peeled });
                }
            }
        }
        Ok(found)
    }
}

fn asked(root: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    git::ask(root, arguments).map_err(|error| error.to_string())
}

/// A commit and what it reaches.
struct Packing<'p> {
    root: &'p Path,
    commit: &'p str,
    kept: &'p Path,
    references: References,
}

/// Commits, and those among them whose parents are not.
struct Walked {
    commits: BTreeSet<String>,
    shallow: Vec<String>,
}

impl Packing<'_> {
    /// Packs of the commit: those of one that it descends from and what it adds, or all anew.
    fn chain(&self, chains: &mut Vec<Chain>, notes: &mut Vec<String>) -> Result<Chain, String> {
        let reached = References::reached(self.root, self.commit)?;
        let usable = chains.iter().rposition(|chain| {
            chain.packs.len() < HISTORY_PACKS_MAX && (chain.commit == self.commit || self.descends_from(&chain.commit))
        });
        if let Some(place) = usable {
            match self.grown(&chains[place], &reached) {
                Ok(Some(chain)) => {
                    // A commit on the same line: the earlier one is not asked for again.
                    chains.remove(place);
                    return Ok(chain);
                }
                Ok(None) => {}
                Err(fault) => notes.push(format!("the history is packed anew: {fault}")),
            }
        }
        self.anew(&reached)
    }

    fn descends_from(&self, earlier: &str) -> bool {
        git::ask(self.root, &["merge-base", "--is-ancestor", earlier, self.commit]).is_ok()
    }

    /// The chain with what the commit adds; `None` if it would be too long.
    fn grown(&self, chain: &Chain, reached: &BTreeMap<String, Reference>) -> Result<Option<Chain>, String> {
        let without = format!("^{}", chain.commit);
        let count = format!("--max-count={}", HISTORY_COMMITS_MAX + 1);
        let answer = asked(self.root, &["rev-list", &count, self.commit, &without])?;
        let text = String::from_utf8_lossy(&answer);
        let added: HashSet<&str> = text.lines().collect();
        if added.len() > HISTORY_COMMITS_MAX {
            return Ok(None);
        }
        let commit_of = |reference: &Reference| reference.peeled.clone().unwrap_or_else(|| reference.id.clone());
        let before: HashSet<String> = chain.references.values().map(&commit_of).chain([chain.commit.clone()]).collect();
        let is_there = |reference: &Reference| {
            let commit = commit_of(reference);
            chain.shallow.is_empty() || added.contains(commit.as_str()) || before.contains(&commit)
        };
        let references: BTreeMap<String, Reference> = reached
            .iter()
            .filter(|(_, reference)| is_there(reference))
            .map(|(name, reference)| (name.clone(), reference.clone()))
            .collect();
        let mut wanted = vec![self.commit.to_owned()];
        wanted.extend(tag_objects(&references));
        let mut had = vec![chain.commit.clone()];
        had.extend(tag_objects(&chain.references));
        let left: u64 = HISTORY_BYTES_MAX.saturating_sub(chain.packs.iter().map(|pack| pack.bytes).sum());
        let mut packs = chain.packs.clone();
        match self.write(&wanted, &had, &chain.shallow, left)? {
            Made::Pack(pack) => packs.push(pack),
            Made::Nothing => {}
            Made::TooLong => return Ok(None),
        }
        Ok(Some(Chain {
            commit: self.commit.to_owned(),
            format: chain.format.clone(),
            commits: chain.commits + added.len() as u64,
            seen: self.references.seen,
            references,
            shallow: chain.shallow.clone(),
            packs,
        }))
    }

    /// One pack of all, of as many commits as there is room for.
    fn anew(&self, reached: &BTreeMap<String, Reference>) -> Result<Chain, String> {
        let format = asked(self.root, &["rev-parse", "--show-object-format"])?;
        let format = String::from_utf8_lossy(&format).trim().to_owned();
        let mut tried = usize::MAX;
        for depth in DEPTHS {
            if depth >= tried {
                continue;
            }
            let walked = self.walk(depth)?;
            tried = walked.commits.len();
            let is_there = |reference: &Reference| {
                walked.shallow.is_empty()
                    || walked.commits.contains(reference.peeled.as_deref().unwrap_or(&reference.id))
            };
            let mut references = reached.clone();
            references.retain(|_, reference| is_there(reference));
            let mut wanted = vec![self.commit.to_owned()];
            wanted.extend(tag_objects(&references));
            let packs = match self.write(&wanted, &[], &walked.shallow, HISTORY_BYTES_MAX)? {
                Made::Pack(pack) => vec![pack],
                Made::Nothing => Vec::new(),
                Made::TooLong => continue,
            };
            return Ok(Chain {
                commit: self.commit.to_owned(),
                format,
                commits: walked.commits.len() as u64,
                seen: self.references.seen,
                references,
                shallow: walked.shallow,
                packs,
            });
        }
        Err(format!("its last commit alone takes more than {} MiB", HISTORY_BYTES_MAX >> 20))
    }

    /// The newest commits, at most `depth`.
    fn walk(&self, depth: usize) -> Result<Walked, String> {
        let count = format!("--max-count={}", depth + 1);
        let answer = asked(self.root, &["rev-list", "--parents", &count, self.commit])?;
        let text = String::from_utf8_lossy(&answer);
        let lines: Vec<Vec<&str>> = text.lines().take(depth).map(|line| line.split(' ').collect()).collect();
        let commits: BTreeSet<String> = lines.iter().map(|line| line[0].to_owned()).collect();
        let is_cut = |line: &&Vec<&str>| line[1..].iter().any(|parent| !commits.contains(*parent));
        let mut shallow: BTreeSet<String> = lines.iter().filter(is_cut).map(|line| line[0].to_owned()).collect();
        // A repository that is shallow itself shows those as without parents.
        let path = asked(self.root, &["rev-parse", "--git-path", "shallow"])?;
        let path = self.root.join(String::from_utf8_lossy(&path).trim_end());
        let own = fs::read_to_string(path).unwrap_or_default();
        shallow.extend(own.lines().map(str::trim).filter(|id| commits.contains(*id)).map(str::to_owned));
        Ok(Walked { shallow: shallow.into_iter().collect(), commits })
    }

    /// Packs what `wanted` reaches and `had` does not.
    fn write(&self, wanted: &[String], had: &[String], shallow: &[String], bytes_max: u64) -> Result<Made, String> {
        let mut lines = String::new();
        for (before, ids) in [("--shallow ", shallow), ("", wanted), ("^", had)] {
            for id in ids {
                lines.push_str(before);
                lines.push_str(id);
                lines.push('\n');
            }
        }
        write_pack(self.root, &["--revs"], lines.into_bytes(), self.kept, bytes_max)
    }
}

/// The objects of annotated tags, which the commit does not reach itself.
fn tag_objects(references: &BTreeMap<String, Reference>) -> Vec<String> {
    references.values().filter(|reference| reference.peeled.is_some()).map(|reference| reference.id.clone()).collect()
}

/// What came of packing.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    Pack(Pack),
    /// There is no object.
    Nothing,
    /// It would have more bytes than it may.
    TooLong,
}

/// Has git pack what `lines` say into a file of `kept`.
fn write_pack(root: &Path, flags: &[&str], lines: Vec<u8>, kept: &Path, bytes_max: u64) -> Result<Made, String> {
    let failed = |error: io::Error| format!("cannot pack the history: {error}");
    let mut command = git::command(root);
    // What a partial clone lacks is not fetched for this.
    command.env("GIT_NO_LAZY_FETCH", "1").args(["pack-objects", "--stdout", "--delta-base-offset", "-q"]).args(flags);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let written = read_pack(&mut child, lines, kept, bytes_max).map_err(failed);
    if !matches!(written, Ok(Written::Whole(..))) {
        let _ = child.kill();
    }
    let mut complaint = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(4 << 10).read_to_string(&mut complaint);
    }
    let status = child.wait().map_err(failed)?;
    let (file, digest, bytes) = match written? {
        Written::TooLong => return Ok(Made::TooLong),
        Written::Whole(file, digest, bytes) => (file, digest, bytes),
    };
    if !status.success() {
        return Err(format!("git: {}", complaint.trim().trim_start_matches("fatal: ")));
    }
    if is_empty_pack(&file).map_err(failed)? {
        return Ok(Made::Nothing);
    }
    file.persist(pack_file(kept, digest)).map_err(|error| failed(error.error))?;
    Ok(Made::Pack(Pack { digest, bytes }))
}

enum Written {
    Whole(tempfile::NamedTempFile, Digest, u64),
    TooLong,
}

fn read_pack(child: &mut Child, lines: Vec<u8>, kept: &Path, bytes_max: u64) -> io::Result<Written> {
    let missing = || io::Error::other("a pipe is missing");
    let mut requests = child.stdin.take().ok_or_else(missing)?;
    let mut answers = child.stdout.take().ok_or_else(missing)?;
    let mut file = tempfile::NamedTempFile::new_in(kept)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 18];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // git says at the other end if it stopped reading.
            let _ = requests.write_all(&lines);
        });
        loop {
            let length = match answers.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes += length as u64;
            if bytes > bytes_max {
                return Ok(Written::TooLong);
            }
            hasher.update(&buffer[..length]);
            file.write_all(&buffer[..length])?;
        }
        file.flush()?;
        Ok(Written::Whole(file, Digest(*hasher.finalize().as_bytes()), bytes))
    })
}

/// Whether a pack holds no object; its head says so. Source: git-scm.com/docs/gitformat-pack.
fn is_empty_pack(file: &tempfile::NamedTempFile) -> io::Result<bool> {
    let mut head = [0; 12];
    File::open(file.path())?.read_exact(&mut head)?;
    Ok(head[8..] == [0; 4])
}

/// What the index has otherwise than the commit, with the objects of it in a pack of their own.
fn add_staged(root: &Path, kept: &Path, packed: &mut Packed) -> Result<(), String> {
    let arguments = ["diff-index", "--cached", "--raw", "--no-renames", "--full-index", "-z", &packed.history.commit];
    let answer = asked(root, &[&arguments[..], &["--"]].concat())?;
    let mut staged = BTreeMap::new();
    let mut parts = answer.split(|byte| *byte == 0);
    while let (Some(about), Some(path)) = (parts.next(), parts.next()) {
        let about = String::from_utf8_lossy(about).into_owned();
        let fields: Vec<&str> = about.trim_start_matches(':').split(' ').collect();
        let [_, mode, _, id, kind] = fields[..] else { continue };
        let Ok(path) = std::str::from_utf8(path) else { continue };
        match kind {
            "D" => drop(staged.insert(path.to_owned(), Staged::Deleted)),
            "A" | "M" | "T" => {
                let entry = Staged::Added { mode: mode.to_owned(), id: id.to_owned() };
                staged.insert(path.to_owned(), entry);
            }
            // What is not merged has no one content.
            _ => {}
        }
    }
    if staged.is_empty() {
        return Ok(());
    }
    if staged.len() > HISTORY_STAGED_MAX {
        return Err(format!("there are more than {HISTORY_STAGED_MAX} staged files"));
    }
    let mut ids = BTreeSet::new();
    for entry in staged.values() {
        if let Staged::Added { mode, id } = entry
            && mode != "160000"
        {
            ids.insert(format!("{id}\n"));
        }
    }
    let lines: String = ids.into_iter().collect();
    let left = HISTORY_BYTES_MAX.saturating_sub(packed.history.packs.iter().map(|pack| pack.bytes).sum());
    match write_pack(root, &[], lines.into_bytes(), kept, left)? {
        Made::TooLong => return Err("it is too large".to_owned()),
        Made::Nothing => {}
        Made::Pack(pack) => {
            packed.files.insert(pack.digest, pack_file(kept, pack.digest));
            packed.history.packs.push(pack);
        }
    }
    packed.history.staged = staged;
    Ok(())
}

#[cfg(test)]
mod tests;
