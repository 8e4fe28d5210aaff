//! Room on the disk of what is kept: whether there is any, what takes most of it, and what is given up so that builds can be told again.
//!
//! Only what can be missed is given up: files that jobs left, of builds that no process runs. Facts, logs, results and caches stay.

use std::io::Write;
use std::path::{Path, PathBuf};

use graph::{AttemptNumber, BuildId};
use store::SqliteStore;

use crate::words;

/// With fewer free bytes a disk is full: the next few facts may not fit.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// How many bytes are to be free once room was made, at most; nothing more is given up then.
const FREE_BYTES_MADE: u64 = 1 << 30;
/// Of a small disk it is one part of so many.
const FREE_PART_MADE: u64 = 20;
/// The most files and folders that are counted to tell which folder takes most.
const COUNTED_MAX: usize = 1_000_000;
/// How many builds are named of those whose files were given up.
const BUILDS_TOLD_MAX: usize = 10;

/// Makes room if the disk of a project's data is full. See [`make`].
pub fn keep(data: &Path) {
    if is_full(data) {
        make(data);
    }
}

/// Makes room if the disk of a project's data is full at the end of an attempt of a build that this process runs: as [`make`] does, and if that
/// is not enough, by what the attempt itself has left. A note for its report if that was given up.
pub async fn keep_after(data: &Path, build: BuildId, attempt: AttemptNumber) -> Option<String> {
    if !is_full(data) {
        return None;
    }
    let data = data.to_owned();
    tokio::task::spawn_blocking(move || {
        make(&data);
        if !is_full(&data) {
            return None;
        }
        let workspace = worker::workspace_directory(&data, build, attempt);
        let bytes = disk_bytes(&workspace, &mut COUNTED_MAX.clone());
        worker::workspace::remove_tree(&workspace).ok()?;
        (bytes > 0).then(|| {
            format!(
                "no space was left on the disk of `{}`: what the job had left was removed ({}); `ropewalk shell` cannot open it",
                data.display(),
                words::size(bytes)
            )
        })
    })
    .await
    .ok()
    .flatten()
}

fn is_full(data: &Path) -> bool {
    disk_of(data).is_some_and(|disk| disk.free < FREE_BYTES_MIN)
}

/// Removes what killed processes left for steps, and workspaces of builds that no process runs, those of the oldest builds first, until there
/// is room: first what jobs have changed, then the states of the start. Says so, if anything was removed.
pub fn make(data: &Path) {
    worker::remove_abandoned_scratches(data);
    let disk = disk_of(data).unwrap_or(Disk { free: 0, all: u64::MAX });
    let wanted = (disk.all / FREE_PART_MADE).min(FREE_BYTES_MADE).saturating_sub(disk.free);
    let (bytes, builds) = remove_workspaces(data, wanted);
    if !builds.is_empty() {
        let _ = writeln!(std::io::stderr(), "note: {}", told(data, bytes, &builds));
    }
}

/// Removes so many bytes of workspaces, if there are as many that nobody uses; how many, and of which builds.
fn remove_workspaces(data: &Path, wanted: u64) -> (u64, Vec<u64>) {
    let folder = worker::workspaces(data);
    let names = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut builds: Vec<u64> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    builds.sort_unstable();
    let (mut removed, mut removed_of) = (0, Vec::new());
    for is_meant in [is_of_attempt, is_any] {
        for &build in &builds {
            if removed >= wanted {
                break;
            }
            // Held meanwhile, so that nobody goes on with it.
            let Ok(Some(_claim)) = SqliteStore::claim_unopened(data, BuildId(build)) else { continue };
            let bytes = remove(&folder.join(build.to_string()), is_meant);
            if bytes > 0 && !removed_of.contains(&build) {
                removed_of.push(build);
            }
            removed += bytes;
        }
    }
    (removed, removed_of)
}

fn told(data: &Path, bytes: u64, builds: &[u64]) -> String {
    let mut names: Vec<String> = builds.iter().take(BUILDS_TOLD_MAX).map(u64::to_string).collect();
    let more = builds.len() - names.len();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    let (last, first) = names.split_last().map_or((String::new(), String::new()), |(last, first)| {
        let first = first.join(", ");
        (last.clone(), if first.is_empty() { first } else { format!("{first} and ") })
    });
    let builds = if builds.len() == 1 { "build" } else { "builds" };
    format!(
        "no space was left on the disk of `{}`: the workspaces of {builds} {first}{last} were removed ({}); `ropewalk shell` cannot open them \
         any more",
        data.display(),
        words::size(bytes)
    )
}

/// What an attempt has changed, not the state of the start.
fn is_of_attempt(name: &str) -> bool {
    name.parse::<u32>().is_ok()
}

fn is_any(_: &str) -> bool {
    true
}

/// Removes what is meant of a build's workspaces; how many bytes of the disk that gave.
fn remove(workspaces: &Path, is_meant: fn(&str) -> bool) -> u64 {
    let mut removed = 0;
    for entry in std::fs::read_dir(workspaces).into_iter().flatten().flatten() {
        if is_meant(&entry.file_name().to_string_lossy()) {
            let bytes = disk_bytes(&entry.path(), &mut COUNTED_MAX.clone());
            if worker::workspace::remove_tree(&entry.path()).is_ok() {
                removed += bytes;
            }
        }
    }
    // Only if nothing is left in it.
    let _ = std::fs::remove_dir(workspaces);
    removed
}

/// A disk in bytes.
struct Disk {
    /// What this user may still write.
    free: u64,
    all: u64,
}

/// The disk of a folder; `None` if the file system does not tell.
fn disk_of(folder: &Path) -> Option<Disk> {
    let system = rustix::fs::statvfs(folder).ok().filter(|system| system.f_blocks > 0)?;
    let is_administrator = rustix::process::geteuid().is_root();
    let free = if is_administrator { system.f_bfree } else { system.f_bavail };
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    Some(Disk { free: bytes(free), all: bytes(system.f_blocks) })
}

/// The folder that takes most of the disk of all that is kept below `home`, of any project, and a hint what may become of it, in words that
/// stand in a sentence; `None` if nothing is there.
pub fn largest(home: &Path) -> Option<String> {
    let below = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut left = COUNTED_MAX;
    let parts = below(home).flat_map(|project| below(&project).collect::<Vec<PathBuf>>()).filter(|part| part.is_dir());
    let (bytes, largest) = parts.map(|part| (disk_bytes(&part, &mut left), part)).max()?;
    let hint = match largest.file_name().and_then(|name| name.to_str()) {
        Some("workspaces") => ", which may be removed while no build runs",
        Some("blobs") => ", of which `ropewalk cache clear` removes what is kept for reuse",
        _ => "",
    };
    let at_least = if left == 0 { "at least " } else { "" };
    Some(format!(
        "the largest folder of ours there is `{}` ({at_least}{}){hint}",
        largest.display(),
        words::size(bytes)
    ))
}

/// How much of the disk a file takes, or a folder with all that is in it, links not followed. `left` is how much is still counted.
fn disk_bytes(path: &Path, left: &mut usize) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        // Source: stat(2): blocks of 512 bytes, whatever the file system's own.
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_folder_is_told_and_what_may_become_of_it() {
        let home = tempfile::tempdir().expect("a folder");
        assert_eq!(largest(home.path()), None);
        for (part, kibibytes) in [("a/logs", 8), ("a/blobs/00", 64), ("b/workspaces/1/1/upper", 256)] {
            std::fs::create_dir_all(home.path().join(part)).expect("a folder");
            std::fs::write(home.path().join(part).join("file"), vec![1; kibibytes << 10]).expect("a file");
        }
        let said = largest(home.path()).expect("there is one");
        let folder = home.path().join("b/workspaces");
        assert!(said.starts_with(&format!("the largest folder of ours there is `{}` (", folder.display())), "{said}");
        assert!(said.ends_with("), which may be removed while no build runs"), "{said}");
    }

    #[test]
    fn of_builds_that_somebody_runs_nothing_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let part = |build: u64, name: &str| worker::workspaces(data).join(build.to_string()).join(name);
        for (build, name) in [(1, "snapshot"), (1, "1"), (2, "snapshot"), (2, "1")] {
            std::fs::create_dir_all(part(build, name)).expect("a folder");
            std::fs::write(part(build, name).join("file"), "text").expect("a file");
        }
        let _claim = SqliteStore::claim_unopened(data, BuildId(2)).expect("a folder").expect("it is free");
        assert_eq!(remove_workspaces(data, 1).1, [1]);
        assert!(part(1, "snapshot").exists() && !part(1, "1").exists(), "what jobs changed goes first");
        assert_eq!(remove_workspaces(data, u64::MAX).1, [1]);
        assert!(!part(1, "snapshot").exists());
        assert!(part(2, "snapshot").exists() && part(2, "1").exists());
        let text = told(Path::new("/data"), 3 << 20, &[1, 2, 7]);
        assert_eq!(
            text,
            "no space was left on the disk of `/data`: the workspaces of builds 1, 2 and 7 were removed (3.0 MiB); `ropewalk shell` cannot \
             open them any more"
        );
    }
}
