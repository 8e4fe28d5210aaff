//! A workspace of no job: made and shown ahead while nothing runs, so that a job to come finds it ready.
//!
//! It is for a job that wants all files of the same checkout at the same place. No process was ever in it; once taken it is that job's alone, and
//! as one that is made then: it is not given away if something lies in its layer, or if the machine's mounts are others by now. A tree that people
//! change has none. Nothing here decides when one is made, or how long it waits.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::Environment;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use tokio::sync::oneshot;

use super::snapshot::Snapshot;
use super::{Files, Manifest, OpenWorkspace, Workspace, WorkspaceError, layer};
use crate::keeper::Processes;

/// What the name of its folder begins with, beside the folders of builds.
const PREFIX: &str = ".spare-";

/// A workspace that waits for a job. To be taken or removed: the keeper holds its mount until then.
#[derive(Debug)]
pub struct Spare {
    workspace: Workspace,
    open: OpenWorkspace,
    /// The list of the machine's mounts, opened before they were copied.
    mounts: OwnedFd,
}

impl Spare {
    /// Makes one beside the workspaces of builds, with a number that no other of this process has. `None` of a tree that people change, and where it
    /// would be no overlay. `meanwhile` is done on a thread that may wait, while the keeper mounts it.
    ///
    /// # Errors
    /// The system's words, or the keeper is gone. Nothing is left of it then.
    pub async fn make(
        snapshot: Arc<Snapshot>,
        workspaces: &Path,
        number: u64,
        processes: &Processes,
        meanwhile: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, WorkspaceError> {
        if !snapshot.is_immutable() {
            return Ok(None);
        }
        let mounts = rustix::fs::open("/proc/self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let Ok(mounts) = mounts else { return Ok(None) };
        let directory = workspaces.join(format!("{PREFIX}{number}"));
        let made = directory.clone();
        let (tell, laid) = oneshot::channel();
        drop(tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone; then the next life removes it.
            let _ = tell.send(Workspace::lay(&snapshot, &made, Files::All));
            meanwhile();
        }));
        let unmade = |_| Err(WorkspaceError::at(&directory)(std::io::Error::other("it was not made to its end")));
        let opened = match laid.await.unwrap_or_else(unmade) {
            Ok(workspace) => workspace.open_overlay(processes).await.map(|open| open.map(|open| (workspace, open))),
            Err(error) => Err(error),
        };
        if let Ok(Some((workspace, open))) = opened {
            return Ok(Some(Self { workspace, open, mounts }));
        }
        let removed = tokio::task::spawn_blocking(move || layer::remove_tree(&directory));
        let _ = removed.await;
        opened.map(|_| None)
    }

    /// Makes it the workspace of a job over a snapshot, in `directory`, which is not there and whose parent is. The job's steps will run in
    /// `environment`. Blocks.
    ///
    /// # Errors
    /// It is not as one that is made now would be, or the system refused: it is given back, and is to be removed.
    pub fn take(
        mut self,
        snapshot: &Snapshot,
        directory: &Path,
        environment: &Environment,
    ) -> Result<(Workspace, OpenWorkspace), Box<Self>> {
        match self.become_of(snapshot, directory, environment) {
            Ok(()) => Ok((self.workspace, self.open)),
            Err(_) => Err(Box::new(self)),
        }
    }

    /// `Err` if it is to stay nobody's.
    fn become_of(
        &mut self,
        snapshot: &Snapshot,
        directory: &Path,
        environment: &Environment,
    ) -> Result<(), WorkspaceError> {
        let unfit = || WorkspaceError::at(directory)(std::io::ErrorKind::InvalidInput.into());
        let manifest = Manifest::new(snapshot, Files::All);
        let lower = snapshot.layers()?.0;
        self.workspace.manifest.snapshot.clone_from(&manifest.snapshot);
        let is_of_same = self.workspace.manifest == manifest && self.workspace.lower == lower;
        if !snapshot.is_immutable() || !is_of_same || !self.is_fresh() {
            return Err(unfit());
        }
        let at = WorkspaceError::at(&self.workspace.directory);
        // The times that its root has are those of the tree, and this is when they were set.
        let model = fs::symlink_metadata(snapshot.repository()).map_err(&at)?;
        layer::assume(&self.workspace.directory.join("upper"), &model).map_err(&at)?;
        self.workspace.manifest.environment = Some(environment.clone());
        self.workspace.save()?;
        let directory = match (directory.parent(), directory.file_name()) {
            (Some(parent), Some(name)) => fs::canonicalize(parent).map_err(&at)?.join(name),
            _ => return Err(unfit()),
        };
        fs::rename(&self.workspace.directory, &directory).map_err(&at)?;
        self.workspace.directory = directory;
        Ok(())
    }

    /// Whether nobody wrote into it, and the mounts that it has from the machine are those of the machine.
    fn is_fresh(&self) -> bool {
        let upper = self.workspace.directory.join("upper");
        let is_empty = fs::read_dir(upper).is_ok_and(|mut entries| entries.next().is_none());
        // The kernel tells of a change since it was opened as of an error: proc_pid_mounts(5).
        let mut changed = [PollFd::new(&self.mounts, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        is_empty && poll(&mut changed, Some(&now)) == Ok(0)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// What could not be taken away, or the keeper is gone.
    pub async fn remove(self, processes: &Processes) -> Result<(), WorkspaceError> {
        let closed = self.open.close(processes).await;
        let removed = tokio::task::spawn_blocking(move || self.workspace.remove()).await;
        removed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        closed.map_err(WorkspaceError::from)
    }
}

/// Removes those that a process left which was killed. To be called while there is none. Blocks.
///
/// # Errors
/// What could not be taken away, after everything else was.
pub fn remove_spares(workspaces: &Path) -> Result<(), WorkspaceError> {
    let mut fault = Ok(());
    for entry in fs::read_dir(workspaces).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            fault = fault.and(layer::remove_tree(&path).map_err(WorkspaceError::at(&path)));
        }
    }
    fault
}
