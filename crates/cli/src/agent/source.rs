//! The files of a build as a manifest: of a directory as it stands, uncommitted changes included, or of a commit.
//!
//! A directory is listed as a local run lists it: what git tracks, and what it does not track and does not ignore;
//! repositories within it file by file; links as links. What has not changed since the last time is not read again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File as FsFile};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

use api::source::{FILES_MAX, File, MANIFEST_BYTES_MAX, Manifest, VERSION};
use graph::Digest;
use worker::git;
use worker::repository::{self, Standing, Until};
use worker::tree::{Content, Kind, StatCache, Tree};

use super::history::{self, Of, Packed};
use super::sending::{Body, LARGE_BYTES};

/// How many names that cannot be sent are told.
const NAMES_TOLD_MAX: usize = 5;

/// The most objects of git whose digests are remembered between builds; beyond it they are forgotten.
const OBJECTS_REMEMBERED_MAX: usize = 2_000_000;

/// The largest link's target or other small thing read of a commit.
const LINK_BYTES_MAX: u64 = 64 << 10;

/// How deep submodules may lie within submodules.
const NESTING_MAX: usize = 16;

/// A source that is ready to be sent.
pub struct Gathered {
    /// The manifest as it is sent.
    pub text: Vec<u8>,
    /// The name of the source: the digest of `text`.
    pub digest: Digest,
    /// What people should know; empty if nothing.
    pub notes: Vec<String>,
    /// Where each content is read.
    contents: BTreeMap<Digest, Place>,
}

/// Where what is known of files and histories is kept between builds.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// The file of files' stats, or of digests of git's objects.
    pub contents: &'k Path,
    /// The folder of packs.
    pub packs: &'k Path,
}

/// Where a content is read.
enum Place {
    File(PathBuf),
    /// Here.
    Bytes(Vec<u8>),
    /// An object of the repository whose checkout is at the path.
    Object(PathBuf, String),
}

/// Lists and looks at `project` and the checkout around it. `known.contents` has what is known of files; `base` is what `changed`
/// compares with.
///
/// # Errors
/// A sentence: something cannot be read, or a name cannot be sent.
pub fn of_directory(project: &Path, known: Known<'_>, base: &str) -> Result<Gathered, String> {
    let standing = repository::standing(project).map_err(|error| error.to_string())?;
    let is_repository = standing.is_some();
    let Standing { root, prefix } =
        standing.unwrap_or_else(|| Standing { root: project.to_owned(), prefix: PathBuf::new() });
    let folder = text_of(&prefix)?.to_owned();
    std::thread::scope(|scope| {
        // git is asked while files are looked at.
        let asked = is_repository.then(|| scope.spawn(|| about_commit(project, base)));
        let packed = is_repository.then(|| scope.spawn(|| history_of(&root, None, known.packs)));
        let looked = files_of(&root, known.contents);
        let (changed, branches) = asked.map(|asked| asked.join().unwrap_or_default()).unwrap_or_default();
        let packed = packed.and_then(|packed| packed.join().unwrap_or_default());
        let (files, contents) = looked?;
        let manifest = Manifest { version: VERSION, files, folder, changed, branches, history: None };
        Gathered::new(manifest, contents, packed)
    })
}

/// The history of a commit, or of that which is checked out; `None` if there is none. Why there is none although there should be is
/// the error: a build can go without.
fn history_of(root: &Path, commit: Option<&str>, packs: &Path) -> Option<Result<Packed, String>> {
    match commit {
        Some(commit) => Some(history::pack(root, commit, Of::Commit, packs)),
        None => {
            let commit = repository::head(root).ok()?.commit?;
            Some(history::pack(root, &commit, Of::Directory, packs))
        }
    }
}

/// What differs from `base`, and the branches that hold the commit, if git can tell.
fn about_commit(project: &Path, base: &str) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let changed = repository::changed_files(project, base, Until::Now).ok();
    let commit = repository::head(project).ok().and_then(|head| head.commit);
    let branches = commit.and_then(|commit| repository::branches_holding(project, &commit).ok());
    (changed, branches)
}

type Files = (BTreeMap<String, File>, BTreeMap<Digest, Place>);

fn files_of(root: &Path, stats: &Path) -> Result<Files, String> {
    let sentence = |error: &dyn std::error::Error| error.to_string();
    let tree = Tree::list(root).map_err(|error| sentence(&error))?;
    let mut cache = StatCache::open(stats);
    let contents = tree.contents(&mut cache).map_err(|error| sentence(&error))?;
    // Losing it costs time only.
    let _ = cache.save(stats);
    let mut lengths = cache.lengths().peekable();
    let (mut files, mut places) = (BTreeMap::new(), BTreeMap::new());
    let mut unsendable = Vec::new();
    for (path, content) in tree.paths().iter().zip(&contents) {
        let length = lengths.next_if(|(known, _)| *known == path).map(|(_, length)| length);
        let Some(content) = content else { continue };
        let Ok(name) = text_of(path) else {
            unsendable.push(escaped(path));
            continue;
        };
        match file_of(&root.join(path), *content, length)? {
            // It went away between two looks.
            None => continue,
            Some(file) => drop(files.insert(name.to_owned(), file)),
        }
        if content.kind != Kind::Link {
            places.entry(content.digest).or_insert_with(|| Place::File(root.join(path)));
        }
    }
    refuse_unsendable(&unsendable)?;
    Ok((files, places))
}

fn file_of(path: &Path, content: Content, length: Option<u64>) -> Result<Option<File>, String> {
    let cannot_read = |error: io::Error| format!("cannot read {}: {error}", path.display());
    if content.kind == Kind::Link {
        let target = fs::read_link(path).map_err(cannot_read)?;
        let target = target.into_os_string().into_string().map_err(|_| link_fault(path))?;
        return Ok(Some(File::Link { target }));
    }
    let bytes = match length {
        Some(length) => length,
        None => match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read(error)),
        },
    };
    let digest = content.digest;
    Ok(Some(if content.kind == Kind::Executable {
        File::Program { digest, bytes }
    } else {
        File::Plain { digest, bytes }
    }))
}

fn text_of(path: &Path) -> Result<&str, String> {
    let shown =
        || format!("the name `{}` is not UTF-8 and cannot be sent: rename it, or have git ignore it", escaped(path));
    path.to_str().ok_or_else(shown)
}

/// A name for people, with `\xNN` for each byte that is no text: two names never look the same.
fn escaped(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        name.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!(r"\x{byte:02x}")));
    }
    name
}

fn refuse_unsendable(names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = names.iter().take(NAMES_TOLD_MAX).map(|name| format!("`{name}`")).collect();
    let more = names.len() - told.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(format!(
        "names that are not UTF-8 cannot be sent: {}{more}; rename them, or have git ignore them",
        told.join(", ")
    ))
}

/// The files of a commit of the repository that `project` lies in, submodules included where they are checked out.
/// `kept.contents` has the digests of git's objects.
///
/// # Errors
/// A sentence: there is no such commit, git refuses, or a name cannot be sent.
pub fn of_commit(project: &Path, commit: &str, kept: Known<'_>, base: Option<&str>) -> Result<Gathered, String> {
    let standing = repository::standing(project).map_err(|error| error.to_string())?;
    let Some(Standing { root, prefix }) = standing else {
        return Err(format!("{} is in no git repository: there is no commit `{commit}`", project.display()));
    };
    let mut known = Objects::open(kept.contents);
    let mut listed = Vec::new();
    list_commit(&root, Path::new(""), commit, 0, &mut listed)?;
    known.learn(&listed)?;
    known.save();
    let (mut files, mut contents) = (BTreeMap::new(), BTreeMap::new());
    let mut unsendable = Vec::new();
    for object in listed {
        let Some(name) = object.path.to_str() else {
            unsendable.push(escaped(&object.path));
            continue;
        };
        let file = match object.kind {
            Kind::Link => File::Link { target: link_target(&object)? },
            kind => {
                let digest = known.digest(&object)?;
                let bytes = object.bytes;
                contents.entry(digest).or_insert(Place::Object(object.repository, object.id));
                if kind == Kind::Executable { File::Program { digest, bytes } } else { File::Plain { digest, bytes } }
            }
        };
        files.insert(name.to_owned(), file);
    }
    refuse_unsendable(&unsendable)?;
    let parent = format!("{commit}~1");
    let changed = repository::changed_files(project, base.unwrap_or(&parent), Until::Commit(commit)).ok();
    let branches = repository::branches_holding(project, commit).ok();
    let folder = text_of(&prefix)?.to_owned();
    let packed = history_of(&root, Some(commit), kept.packs);
    Gathered::new(Manifest { version: VERSION, files, folder, changed, branches, history: None }, contents, packed)
}

/// The full id of a commit, or of what a branch or tag points at.
///
/// # Errors
/// A sentence: there is none.
pub fn commit_id(project: &Path, name: &str) -> Result<String, String> {
    let name = git::name(name).map_err(|error| error.to_string())?;
    let wanted = format!("{name}^{{commit}}");
    let answer = git::ask(project, &["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted]);
    let answer = answer.map_err(|error| match error {
        git::GitError::Refused(_) => format!("there is no commit `{name}` here"),
        error => error.to_string(),
    })?;
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

/// A file of a commit.
struct Object {
    /// Within the source.
    path: PathBuf,
    /// The checkout of the repository that has it.
    repository: PathBuf,
    id: String,
    kind: Kind,
    bytes: u64,
}

fn list_commit(
    root: &Path,
    below: &Path,
    commit: &str,
    nesting: usize,
    listed: &mut Vec<Object>,
) -> Result<(), String> {
    let repository = root.join(below);
    let arguments = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit];
    let answer = git::ask(&repository, &arguments).map_err(|error| error.to_string())?;
    for line in answer.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
        let about = String::from_utf8_lossy(&line[..tab]).into_owned();
        let path = below.join(OsStr::from_bytes(&line[tab + 1..]));
        let mut fields = about.split_ascii_whitespace();
        let (Some(mode), Some(_), Some(id), bytes) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let kind = match mode {
            "160000" => {
                if nesting < NESTING_MAX && root.join(&path).join(".git").symlink_metadata().is_ok() {
                    list_commit(root, &path, id, nesting + 1, listed)?;
                }
                continue;
            }
            "120000" => Kind::Link,
            "100755" => Kind::Executable,
            _ => Kind::File,
        };
        if listed.len() == FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} files, the most a source may have"));
        }
        let bytes = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        listed.push(Object { path, repository: repository.clone(), id: id.to_owned(), kind, bytes });
    }
    Ok(())
}

fn link_target(object: &Object) -> Result<String, String> {
    let mut target = None;
    each_object(&object.repository, &[object.id.as_str()], &mut |_, length, content| {
        let mut bytes = Vec::new();
        content.take(LINK_BYTES_MAX.min(length)).read_to_end(&mut bytes)?;
        target = Some(bytes);
        Ok(())
    })?;
    String::from_utf8(target.unwrap_or_default()).map_err(|_| link_fault(&object.path))
}

fn link_fault(link: &Path) -> String {
    let link = escaped(link);
    format!(
        "the target of the link `{link}` is not UTF-8 and cannot be sent: link to another name, or have git ignore the link"
    )
}

/// The digests of git's objects, kept between builds; losing them costs time only.
struct Objects {
    path: PathBuf,
    digests: BTreeMap<String, Digest>,
    fresh: String,
}

impl Objects {
    fn open(path: &Path) -> Self {
        let mut digests = BTreeMap::new();
        if let Ok(file) = FsFile::open(path) {
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                if let Some((id, digest)) = line.split_once(' ')
                    && let Ok(digest) = digest.parse()
                {
                    digests.insert(id.to_owned(), digest);
                }
            }
        }
        if digests.len() > OBJECTS_REMEMBERED_MAX {
            let _ = fs::remove_file(path);
            digests.clear();
        }
        Self { path: path.to_owned(), digests, fresh: String::new() }
    }

    /// Reads the objects that are not known yet, each once.
    fn learn(&mut self, objects: &[Object]) -> Result<(), String> {
        let mut wanted: BTreeMap<&Path, BTreeSet<&str>> = BTreeMap::new();
        for object in objects.iter().filter(|object| object.kind != Kind::Link) {
            if !self.digests.contains_key(&object.id) {
                wanted.entry(&object.repository).or_default().insert(&object.id);
            }
        }
        for (repository, ids) in wanted {
            let ids: Vec<&str> = ids.into_iter().collect();
            each_object(repository, &ids, &mut |id, _, content| {
                let mut hasher = blake3::Hasher::new();
                io::copy(content, &mut hasher)?;
                let digest = Digest(*hasher.finalize().as_bytes());
                self.fresh.push_str(&format!("{id} {digest}\n"));
                self.digests.insert(id.to_owned(), digest);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn digest(&self, object: &Object) -> Result<Digest, String> {
        let digest = self.digests.get(&object.id).copied();
        digest.ok_or_else(|| format!("git has no content for `{}`", object.path.display()))
    }

    fn save(&self) {
        let file = fs::OpenOptions::new().append(true).create(true).open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(self.fresh.as_bytes()));
    }
}

/// Takes one content: its name, its length and its bytes.
type Take<'t> = dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()> + 't;

/// Hands every object to `take`, in order, as one git process prints them.
fn each_object(repository: &Path, ids: &[&str], take: &mut Take<'_>) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot read from the git repository {}: {error}", repository.display());
    let mut child = Command::new("git");
    child.args(["-c", "core.fsmonitor=false", "--no-pager", "cat-file", "--batch"]).current_dir(repository);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        child.env_remove(variable);
    }
    child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().map_err(failed)?;
    let result = read_objects(&mut child, ids, take).map_err(failed);
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn read_objects(child: &mut Child, ids: &[&str], take: &mut Take<'_>) -> io::Result<()> {
    let missing = || io::Error::other("a pipe is missing");
    let mut requests = child.stdin.take().ok_or_else(missing)?;
    let mut answers = BufReader::with_capacity(1 << 18, child.stdout.take().ok_or_else(missing)?);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // git reads on only as its answers are taken; it says at the other end if it stopped.
            let _ = ids.iter().try_for_each(|id| writeln!(requests, "{id}"));
        });
        for id in ids {
            let mut head = String::new();
            answers.read_line(&mut head)?;
            let length = head.trim_end().rsplit(' ').next().and_then(|length| length.parse::<u64>().ok());
            let length = length.ok_or_else(|| io::Error::other(format!("git says `{}`", head.trim_end())))?;
            let mut content = (&mut answers).take(length);
            take(id, length, &mut content)?;
            io::copy(&mut content, &mut io::sink())?;
            answers.read_exact(&mut [0])?;
        }
        Ok(())
    })
}

/// A content that is not what its digest says.
const CHANGED: &str = "changed while it was sent";

impl Gathered {
    fn new(
        mut manifest: Manifest,
        mut contents: BTreeMap<Digest, Place>,
        packed: Option<Result<Packed, String>>,
    ) -> Result<Self, String> {
        let mut notes = Vec::new();
        match packed {
            None => {}
            Some(Err(fault)) => notes.push(format!("jobs see no git history: {fault}")),
            Some(Ok(packed)) => {
                let text = serde_json::to_vec(&packed.history).map_err(|error| error.to_string())?;
                let digest = Digest(*blake3::hash(&text).as_bytes());
                manifest.history = Some(digest);
                contents.insert(digest, Place::Bytes(text));
                contents.extend(packed.files.into_iter().map(|(digest, file)| (digest, Place::File(file))));
                notes = packed.notes;
            }
        }
        if manifest.files.len() > FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} files, the most a source may have"));
        }
        let text = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(format!("the list of files is longer than {MANIFEST_BYTES_MAX} bytes"));
        }
        let digest = Digest(*blake3::hash(&text).as_bytes());
        Ok(Self { text, digest, notes, contents })
    }

    /// The digests of all contents; sorted, no duplicates.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.contents.keys().copied()
    }

    /// The contents of these digests, one after the other; large files are not read here.
    ///
    /// # Errors
    /// A sentence, also if a file has changed since it was listed.
    pub fn read(
        &self,
        wanted: &[Digest],
        take: &mut dyn FnMut(Digest, Body) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut objects: BTreeMap<&Path, Vec<&str>> = BTreeMap::new();
        for digest in wanted {
            match self.contents.get(digest) {
                Some(Place::File(path)) => {
                    let cannot_read = |error: io::Error| format!("cannot read {}: {error}", path.display());
                    let length = fs::metadata(path).map_err(cannot_read)?.len();
                    if length >= LARGE_BYTES {
                        take(*digest, Body::File(path.clone(), length))?;
                        continue;
                    }
                    let bytes = fs::read(path).map_err(cannot_read)?;
                    if blake3::hash(&bytes).as_bytes() != &digest.0 {
                        return Err(format!("{} {CHANGED}", path.display()));
                    }
                    take(*digest, Body::Bytes(bytes))?;
                }
                Some(Place::Bytes(bytes)) => take(*digest, Body::Bytes(bytes.clone()))?,
                Some(Place::Object(repository, id)) => objects.entry(repository).or_default().push(id),
                None => return Err(format!("the server asks for {}, which is no file of the source", digest.short())),
            }
        }
        for (repository, ids) in objects {
            let mut refused = None;
            each_object(repository, &ids, &mut |_, length, content| {
                let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
                content.read_to_end(&mut bytes)?;
                take(Digest(*blake3::hash(&bytes).as_bytes()), Body::Bytes(bytes)).map_err(|error| {
                    refused = Some(error);
                    io::Error::other("it was not taken")
                })
            })
            .map_err(|error| refused.take().unwrap_or(error))?;
        }
        Ok(())
    }

    /// Whether reading failed because somebody edits files: then the source is to be gathered again.
    pub fn is_changed(sentence: &str) -> bool {
        sentence.ends_with(CHANGED)
    }
}

/// The parts of a manifest's path, if it is one that may be laid: relative, no `.` and `..`, and nothing of a `.git`.
///
/// # Errors
/// A sentence.
pub fn parts(path: &str) -> Result<Vec<&OsStr>, String> {
    let refused = || format!("the source has a file of the name `{}`, which is not laid", path.escape_debug());
    let normal = Path::new(path).components().map(|part| match part {
        Component::Normal(name) if !name.eq_ignore_ascii_case(".git") => Some(name),
        _ => None,
    });
    let parts: Option<Vec<&OsStr>> = normal.collect();
    let is_plain = !path.is_empty() && !path.contains('\0') && !path.ends_with('/') && !path.contains("//");
    parts.filter(|_| is_plain).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(directory: &Path, arguments: &[&str]) {
        let mut all = vec!["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"];
        all.extend(arguments);
        git::ask(directory, &all).expect("git answers");
    }

    /// A repository with a committed, a changed, an untracked and an ignored file, a program and a link.
    fn repository() -> (tempfile::TempDir, PathBuf) {
        let scratch = tempfile::tempdir().expect("a folder");
        let root = scratch.path().join("root").canonicalize().unwrap_or(scratch.path().join("root"));
        fs::create_dir_all(root.join("sub")).expect("a folder");
        for (name, text) in
            [("kept", "1"), ("sub/changed", "1"), (".gitignore", "ignored\n"), ("run.sh", "#!/bin/sh\n")]
        {
            fs::write(root.join(name), text).expect("a file");
        }
        std::os::unix::fs::symlink("kept", root.join("link")).expect("a link");
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("a mode");
        git(&root, &["init", "-q"]);
        git(&root, &["add", "-A"]);
        git(&root, &["commit", "-q", "-m", "one"]);
        fs::write(root.join("sub/changed"), "2").expect("a file");
        fs::write(root.join("ignored"), "3").expect("a file");
        fs::write(root.join("new"), "4").expect("a file");
        (scratch, root)
    }

    fn known(scratch: &tempfile::TempDir) -> Known<'static> {
        let leaked = |name: &str| &*Box::leak(scratch.path().join(name).into_boxed_path());
        Known { contents: leaked("contents"), packs: leaked("packs") }
    }

    fn manifest(gathered: &Gathered) -> Manifest {
        serde_json::from_slice(&gathered.text).expect("a manifest")
    }

    fn shown(gathered: &Gathered) -> Vec<String> {
        let file = |(name, file): (&String, &File)| match file {
            File::Plain { digest, bytes } => format!("{name} {} {bytes}", content(gathered, *digest)),
            File::Program { digest, bytes } => format!("{name}* {} {bytes}", content(gathered, *digest).trim()),
            File::Link { target } => format!("{name} -> {target}"),
        };
        manifest(gathered).files.iter().map(file).collect()
    }

    fn content(gathered: &Gathered, digest: Digest) -> String {
        let mut found = None;
        gathered
            .read(&[digest], &mut |_, body| {
                let Body::Bytes(bytes) = body else { panic!("it is small") };
                found = Some(String::from_utf8_lossy(&bytes).trim().to_owned());
                Ok(())
            })
            .expect("it can be read");
        found.expect("it was read")
    }

    #[test]
    fn a_directory_is_sent_as_it_stands() {
        let (scratch, root) = repository();
        let gathered = of_directory(&root, known(&scratch), "HEAD").expect("it is listed");
        assert_eq!(
            shown(&gathered),
            [".gitignore ignored 8", "kept 1 1", "link -> kept", "new 4 1", "run.sh* #!/bin/sh 10", "sub/changed 2 1"]
        );
        assert_eq!(
            manifest(&gathered).changed.as_deref(),
            Some(["new".to_owned(), "sub/changed".to_owned()].as_slice())
        );
        assert_eq!(manifest(&gathered).branches.as_deref(), Some(["main".to_owned()].as_slice()));
        let again = of_directory(&root, known(&scratch), "HEAD").expect("it is listed");
        assert_eq!(again.digest, gathered.digest);
        fs::write(root.join("kept"), "other").expect("a file");
        let digest = Digest(*blake3::hash(b"1").as_bytes());
        let fault = gathered.read(&[digest], &mut |_, _| Ok(())).expect_err("it has changed");
        assert!(Gathered::is_changed(&fault), "{fault}");
    }

    #[test]
    fn a_folder_knows_where_it_stands() {
        let (scratch, root) = repository();
        let gathered = of_directory(&root.join("sub"), known(&scratch), "HEAD").expect("it is listed");
        assert_eq!(manifest(&gathered).folder, "sub");
        assert!(manifest(&gathered).files.contains_key("kept"));
    }

    #[test]
    fn a_commit_is_sent_as_it_was() {
        let (scratch, root) = repository();
        let id = commit_id(&root, "main").expect("a commit");
        for _ in 0..2 {
            let gathered = of_commit(&root, &id, known(&scratch), None).expect("it is listed");
            assert_eq!(
                shown(&gathered),
                [".gitignore ignored 8", "kept 1 1", "link -> kept", "run.sh* #!/bin/sh 10", "sub/changed 1 1"]
            );
        }
        assert_eq!(commit_id(&root, "nothing"), Err("there is no commit `nothing` here".to_owned()));
        assert!(commit_id(&root, "--all").is_err());
    }

    #[test]
    fn names_that_are_no_text_are_told() {
        let (scratch, root) = repository();
        let fault = || of_directory(&root, known(&scratch), "HEAD").map(|_| ()).expect_err("it is refused");
        std::os::unix::fs::symlink(OsStr::from_bytes(b"\xfe"), root.join("alias")).expect("a link");
        let said = fault();
        assert!(
            said.contains("alias` is not UTF-8 and cannot be sent: link to another name, or have git ignore"),
            "{said}"
        );
        fs::remove_file(root.join("alias")).expect("there");
        for name in [b"\xc3\xbc\xfe", b"\xc3\xbc\xff"] {
            fs::write(root.join(OsStr::from_bytes(name)), "").expect("a file");
        }
        let told = r"names that are not UTF-8 cannot be sent: `ü\xfe`, `ü\xff`; rename them, or have git ignore them";
        assert_eq!(fault(), told);
    }

    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b.c", ".github/x", "a b/ü"] {
            assert!(parts(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "../a", "a/../b", "./a", "a//b", "a/", ".git/config", "sub/.GIT/hooks/x", "a\0b"] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }
}
