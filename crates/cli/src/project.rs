//! Where things are: the repository's root, the pipeline's files, the folder in which builds are kept.

use std::path::{Path, PathBuf};

use crate::child::Inside;

/// The folder in a repository that holds its pipeline.
pub const PIPELINE_FOLDER: &str = ".ropewalk";

/// A repository on this machine and the folder that holds what is known of it.
#[derive(Clone, Debug)]
pub struct Project {
    /// The nearest folder upward with a pipeline that is not above the repository, else the repository's root, else the
    /// folder started in.
    pub root: PathBuf,
    /// Builds, logs, results and kept workspaces. Not inside the repository.
    pub data: PathBuf,
    /// The step in whose workspace this process was started, if a step did.
    pub inside: Option<Inside>,
}

impl Project {
    /// The project that `directory` lies in.
    ///
    /// # Errors
    /// A sentence, if it is no directory, it cannot be read, or there is no home to keep builds in.
    pub fn find(directory: &Path) -> Result<Self, String> {
        let directory =
            directory.canonicalize().map_err(|error| format!("cannot work in `{}`: {error}", directory.display()))?;
        if !directory.is_dir() {
            let folder = directory.parent().unwrap_or(&directory).display();
            return Err(format!("`{}` is no directory: give one, such as `{folder}`", directory.display()));
        }
        let root = root_of(&directory).to_path_buf();
        let inside = Inside::of_environment(&root);
        let data = match &inside {
            Some(inside) => inside.data.clone(),
            None => data_home()?.join(folder_name(&root)),
        };
        Ok(Self { root, data, inside })
    }

    /// Makes the folder that holds what is known of it, if there is none: closed to other accounts, who could read there what jobs left.
    ///
    /// # Errors
    /// As the system refuses.
    pub fn make_data(&self) -> std::io::Result<()> {
        store::make_private_folder(&self.data)
    }

    /// The name that it has on a server unless a flag gives another: that of the checkout's folder, as far as it can be one.
    pub fn name(&self) -> Option<String> {
        let root = worker::repository::checkout_root(&self.root).unwrap_or(&self.root);
        let name: String = root
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '-' })
            .skip_while(|letter| !letter.is_ascii_alphanumeric())
            .take(100)
            .collect();
        Some(name).filter(|name| !name.is_empty())
    }

    /// What to say of a folder in a repository without files, which has neither a pipeline nor what one works on; `None` if it is none.
    pub fn bare_repository(&self) -> Option<String> {
        let is_bare = |folder: &&Path| {
            folder.join("HEAD").is_file() && folder.join("objects").is_dir() && folder.join("refs").is_dir()
        };
        let bare = self.root.ancestors().find(is_bare)?;
        let checkout = "work in a checkout of it, as `git clone` or `git worktree add` makes one";
        Some(format!("`{}` is a repository of git without files: {checkout}", bare.display()))
    }

    /// The pipeline's files that exist, in the order in which they are read.
    pub fn pipeline_files(&self) -> Vec<PathBuf> {
        dialects::native::PIPELINE_FILES.iter().map(|name| self.root.join(name)).filter(|path| path.is_file()).collect()
    }
}

/// The project's root: another repository's pipeline above this one is not its own.
fn root_of(directory: &Path) -> &Path {
    let repository = nearest(directory, ".git");
    let with_pipeline = nearest(directory, PIPELINE_FOLDER)
        .filter(|folder| repository.is_none_or(|repository| folder.starts_with(repository)));
    with_pipeline.or(repository).unwrap_or(directory)
}

fn nearest<'a>(directory: &'a Path, name: &str) -> Option<&'a Path> {
    directory.ancestors().find(|folder| folder.join(name).exists())
}

/// `$ROPEWALK_DATA`, else `$XDG_DATA_HOME/ropewalk`, else `~/.local/share/ropewalk`.
///
/// # Errors
/// A sentence, if there is no home.
pub fn data_home() -> Result<PathBuf, String> {
    set("ROPEWALK_DATA")
        .or_else(usual_data_home)
        .filter(|path| path.is_absolute())
        .ok_or_else(|| "nowhere to keep builds: set ROPEWALK_DATA to an absolute path, or HOME".to_owned())
}

fn usual_data_home() -> Option<PathBuf> {
    set("XDG_DATA_HOME")
        .map(|home| home.join("ropewalk"))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/ropewalk")))
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What jobs in a sandbox find empty where `ropewalk` has its data, besides that data: what is kept of all projects and servers of this user, and the
/// folder of the server whose own worker it is, with the server's keys.
pub fn walled_off(data: &Path) -> Vec<PathBuf> {
    let of_server = data.parent().filter(|folder| server::parts::is_installation(folder));
    data_home().ok().into_iter().chain(usual_data_home()).chain(of_server.map(Path::to_owned)).collect()
}

/// `$ROPEWALK_CACHE`, else `$XDG_CACHE_HOME/ropewalk`, else `~/.cache/ropewalk`: what can be made again.
///
/// # Errors
/// A sentence, if there is no home.
pub fn cache_home() -> Result<PathBuf, String> {
    set("ROPEWALK_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|home| home.join("ropewalk")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ropewalk")))
        .filter(|path| path.is_absolute())
        .ok_or_else(|| "nowhere to keep built pipelines: set ROPEWALK_CACHE to an absolute path, or HOME".to_owned())
}

/// The root's own name for people, and a digest of its path so that two projects never share a folder.
fn folder_name(root: &Path) -> String {
    let name: String = root
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' })
        .take(40)
        .collect();
    let digest = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
    format!("{name}-{}", &digest[..12])
}

#[cfg(test)]
mod tests {
    use super::root_of;

    #[test]
    fn a_repository_within_another_has_not_its_pipeline() {
        let outer = tempfile::tempdir().unwrap();
        for name in ["a/.git", "a/.ropewalk", "a/b/.ropewalk", "a/inner/.git", "plain/.ropewalk", "plain/c"] {
            std::fs::create_dir_all(outer.path().join(name)).unwrap();
        }
        for (started, root) in [("a", "a"), ("a/b", "a/b"), ("a/inner", "a/inner"), ("plain/c", "plain")] {
            assert_eq!(root_of(&outer.path().join(started)), outer.path().join(root), "{started}");
        }
    }
}
