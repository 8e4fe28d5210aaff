//! A view: the user's files as one job sees them, mounted over the same path in namespaces of its own.
//!
//! An ordinary user gets a user namespace in which only the own ids are mapped, to themselves; a process with
//! `CAP_SYS_ADMIN` needs none. Everything here up to [`open`] runs between `clone` and `_exit` of a child that shares the
//! keeper's memory and its table of descriptors, or in a forked child ([`View::enter`]).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::launch;

/// Layers of an overlay mounted at one path, or one folder shown there. All paths absolute.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Where it is mounted; exists.
    pub target: PathBuf,
    /// The layers that are only read, the topmost first. May hold `target` itself. If there are none, the target shows `upper`
    /// itself, and nothing of it is apart.
    pub lower: Vec<PathBuf>,
    /// Where changes go. Not inside any of `lower`, nor they in it: the kernel refuses that.
    pub upper: PathBuf,
    /// An empty directory on the same file system as `upper`, for the kernel.
    pub work: PathBuf,
    /// What is mounted in the same namespaces, elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Box<View>>,
}

/// The system refused a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewError {
    /// At which point.
    pub stage: ViewStage,
    /// The system's error number.
    pub number: i32,
}

/// The points at which a view can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ViewStage {
    /// Making the namespaces.
    Namespace = 1,
    /// Mapping the user's ids into them.
    Mapping = 2,
    /// Cutting the mounts off from the machine's.
    Private = 3,
    /// Opening one of the layers.
    Layer = 4,
    /// Mounting the overlay.
    Mount = 5,
    /// Keeping hold of the namespaces.
    Hold = 6,
    /// The keeper is gone.
    Keeper = 7,
}

impl ViewStage {
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Namespace, Self::Mapping, Self::Private, Self::Layer, Self::Mount, Self::Hold, Self::Keeper]
            .into_iter()
            .find(|stage| *stage as u8 == number)
    }
}

impl ViewError {
    pub(super) fn lost() -> Self {
        Self { stage: ViewStage::Keeper, number: libc::EPIPE }
    }

    /// Whether the keeper is gone, so that nothing was tried.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.stage == ViewStage::Keeper
    }

    /// What a person can do about it, if it is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match (self.stage, self.number) {
            (ViewStage::Namespace, libc::EPERM | libc::EACCES) | (ViewStage::Mapping | ViewStage::Private, _) => Some(
                "this kernel refuses namespaces to ordinary users; see `sysctl kernel.unprivileged_userns_clone` and \
                 `kernel.apparmor_restrict_unprivileged_userns`, and in a container its seccomp profile",
            ),
            (ViewStage::Namespace, libc::ENOSPC | libc::EUSERS) => Some(
                "the limit of namespaces is reached; see `sysctl user.max_user_namespaces` and `user.max_mnt_namespaces`",
            ),
            (ViewStage::Mount, libc::ELOOP) => Some("the data directory lies inside the repository; place it outside"),
            (ViewStage::Mount, libc::EINVAL | libc::EPERM | libc::EOPNOTSUPP) => Some(
                "the file system of the data directory cannot carry an overlay, or this kernel (before 5.11) lets \
                 ordinary users mount none",
            ),
            (ViewStage::Mount, libc::ENODEV) => Some("this kernel has no overlayfs"),
            _ => None,
        }
    }
}

impl std::fmt::Display for ViewError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.stage {
            ViewStage::Namespace => "make namespaces for the workspace",
            ViewStage::Mapping => "map the user into the workspace's namespace",
            ViewStage::Private => "make the workspace's mounts private",
            ViewStage::Layer => "open the workspace's layers",
            ViewStage::Mount => "mount the workspace's overlay",
            ViewStage::Hold => "keep hold of the workspace's namespaces",
            ViewStage::Keeper => "reach the keeper process",
        };
        write!(formatter, "{what}: {}", io::Error::from_raw_os_error(self.number))
    }
}

impl std::error::Error for ViewError {}

/// Whose right the mounts rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// `CAP_SYS_ADMIN` of this process.
    Administrator,
    /// A user namespace of its own.
    UserNamespace,
}

impl Right {
    /// The right that this process has.
    pub(crate) fn of_this_process() -> Self {
        let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
        if effective.is_ok_and(|set| set.contains(CapabilitySet::SYS_ADMIN)) {
            Self::Administrator
        } else {
            Self::UserNamespace
        }
    }

    /// Renamed directories work for an administrator only: the kernel trusts nobody else with the attribute they need.
    fn attributes_option(self) -> &'static str {
        match self {
            Self::Administrator => "redirect_dir=on",
            Self::UserNamespace => "userxattr",
        }
    }

    /// The name of the attribute that makes an overlay's directory hide what lies below it.
    pub(crate) fn opaque_attribute(self) -> &'static str {
        match self {
            Self::Administrator => "trusted.overlay.opaque",
            Self::UserNamespace => "user.overlay.opaque",
        }
    }
}

/// The namespaces that hold a view, for as long as this lives or a process is in them.
#[derive(Debug)]
pub struct OpenView {
    /// `None` for an administrator.
    pub user: Option<OwnedFd>,
    pub mount: OwnedFd,
}

impl OpenView {
    /// Names its mount namespace, as `tree::mounts` does that of a process.
    pub(super) fn mounts(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.mount).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }
}

/// What [`open`] made.
pub struct Opened {
    pub view: OpenView,
    /// The mounted directory, through which `ropewalk` reaches the files from outside.
    pub files: OwnedFd,
}

/// A view ready to be entered: all that is allocated is allocated.
#[derive(Debug)]
struct Prepared {
    right: Right,
    uid_map: String,
    gid_map: String,
    target: CString,
    layers: Vec<CString>,
    options: String,
    beside: Option<Box<Prepared>>,
}

/// How the child tells the keeper; both share the memory.
struct Outcome {
    error: Option<ViewError>,
    held: Held,
}

/// Descriptors in the table that both share; -1 is none.
struct Held {
    user: i32,
    mount: i32,
    files: i32,
}

fn refused(stage: ViewStage) -> impl Fn(rustix::io::Errno) -> ViewError {
    move |error| ViewError { stage, number: error.raw_os_error() }
}

fn path_text(path: &Path) -> Result<CString, ViewError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ViewError { stage: ViewStage::Layer, number: libc::EINVAL })
}

impl View {
    /// The mount option by which an overlay of these layers reads and writes the attributes that this process's own mounts do.
    pub(crate) fn attributes_option() -> &'static str {
        Right::of_this_process().attributes_option()
    }

    /// Takes the calling process into these views, which share new namespaces of their own. For a child between `fork` and `exec`, or a
    /// process with one thread; everything it starts afterwards sees the views. Without views nothing happens.
    ///
    /// # Errors
    /// The stage that was refused.
    pub fn enter(views: &[Self]) -> Result<(), ViewError> {
        let mut prepared = views.iter().map(Prepared::new).collect::<Result<Vec<_>, _>>()?;
        let Some((first, others)) = prepared.split_first_mut() else { return Ok(()) };
        let flags = match first.right {
            Right::Administrator => UnshareFlags::NEWNS,
            Right::UserNamespace => UnshareFlags::NEWNS | UnshareFlags::NEWUSER,
        };
        // SAFETY: no table of descriptors is unshared, so no descriptor's owner is misled.
        unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(refused(ViewStage::Namespace))?;
        first.furnish()?;
        others.iter_mut().try_for_each(Prepared::mount)
    }
}

impl Prepared {
    fn new(view: &View) -> Result<Self, ViewError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        // Upper and work come last; see `overlay_options`.
        let layers = view.lower.iter().chain([&view.upper, &view.work]);
        Ok(Self {
            right: Right::of_this_process(),
            uid_map: format!("{uid} {uid} 1"),
            gid_map: format!("{gid} {gid} 1"),
            target: path_text(&view.target)?,
            layers: layers.map(|layer| path_text(layer)).collect::<Result<_, _>>()?,
            options: String::with_capacity(128 + 24 * (view.lower.len() + 2)),
            beside: view.beside.as_deref().map(Self::new).transpose()?.map(Box::new),
        })
    }

    /// Fills the new namespaces: ids, then mounts.
    fn furnish(&mut self) -> Result<(), ViewError> {
        if self.right == Right::UserNamespace {
            // A process without rights may map its own group only after it gave up changing groups: user_namespaces(7).
            write_file(c"/proc/self/setgroups", b"deny").map_err(refused(ViewStage::Mapping))?;
            write_file(c"/proc/self/uid_map", self.uid_map.as_bytes()).map_err(refused(ViewStage::Mapping))?;
            write_file(c"/proc/self/gid_map", self.gid_map.as_bytes()).map_err(refused(ViewStage::Mapping))?;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", private).map_err(refused(ViewStage::Private))?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), ViewError> {
        self.mount_overlay()?;
        self.beside.as_deref_mut().map_or(Ok(()), Self::mount)
    }

    /// Mounts with the layers named through /proc/self/fd, so that no name needs escaping and none is too long.
    fn mount_overlay(&mut self) -> Result<(), ViewError> {
        use std::fmt::Write;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut open = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            open.push(rustix::fs::open(layer.as_c_str(), flags, Mode::empty()).map_err(refused(ViewStage::Layer))?);
        }
        let lower_count = open.len() - 2;
        if lower_count == 0 {
            let upper = &self.layers[0];
            return rustix::mount::mount_bind_recursive(upper.as_c_str(), self.target.as_c_str())
                .map_err(refused(ViewStage::Mount));
        }
        for (index, layer) in open.iter().enumerate() {
            let key = match index {
                0 => "lowerdir=",
                _ if index < lower_count => ":",
                _ if index == lower_count => ",upperdir=",
                _ => ",workdir=",
            };
            // Writing to a string cannot fail.
            let _ = write!(self.options, "{key}/proc/self/fd/{}", layer.as_raw_fd());
        }
        self.options.push(',');
        self.options.push_str(self.right.attributes_option());
        let plain_length = self.options.len();
        // What a job wrote need not survive a power cut, and without this every end of a job waits for the disk (Linux 5.10).
        self.options.push_str(",volatile");
        match self.mount_with_options() {
            Err(ViewError { number: libc::EINVAL, .. }) => {
                self.options.truncate(plain_length);
                self.mount_with_options()
            }
            other => other,
        }
    }

    /// Descriptors of the calling process's namespaces and of the mounted directory.
    fn hold(&self) -> Result<Held, ViewError> {
        let open = |path: &std::ffi::CStr, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(refused(ViewStage::Hold))
        };
        let files = open(&self.target, OFlags::DIRECTORY)?;
        let mount = open(c"/proc/self/ns/mnt", OFlags::empty())?;
        let user = match self.right {
            Right::Administrator => -1,
            Right::UserNamespace => open(c"/proc/self/ns/user", OFlags::empty())?.into_raw_fd(),
        };
        Ok(Held { user, mount: mount.into_raw_fd(), files: files.into_raw_fd() })
    }

    fn mount_with_options(&self) -> Result<(), ViewError> {
        let no = |_| ViewError { stage: ViewStage::Mount, number: libc::EINVAL };
        let options = CString::new(self.options.as_bytes()).map_err(no)?;
        rustix::mount::mount(
            c"ropewalk",
            self.target.as_c_str(),
            c"overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .map_err(refused(ViewStage::Mount))
    }
}

fn write_file(path: &std::ffi::CStr, text: &[u8]) -> rustix::io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(|_| ())
}

/// Makes the namespaces of a view, mounts it, and keeps hold of them. Called by the keeper, which has one thread.
pub fn open(view: &View) -> Result<Opened, ViewError> {
    let mut prepared = Prepared::new(view)?;
    let flags = match prepared.right {
        Right::Administrator => libc::CLONE_NEWNS,
        Right::UserNamespace => libc::CLONE_NEWNS | libc::CLONE_NEWUSER,
    };
    let mut outcome = Outcome { error: None, held: Held { user: -1, mount: -1, files: -1 } };
    let child = || {
        let made = prepared.furnish().and_then(|()| prepared.hold());
        match made {
            Ok(held) => outcome.held = held,
            Err(error) => outcome.error = Some(error),
        }
        0
    };
    // With CLONE_FILES the namespaces' descriptors that the child opens are the keeper's as well.
    let pid = launch::suspended_child(flags | libc::CLONE_FILES, child)
        .map_err(|number| ViewError { stage: ViewStage::Namespace, number })?;
    launch::reap(pid);
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let owned = |number: i32| {
        // SAFETY: the child opened it in the table it shares with us and gave it to nobody else.
        (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
    };
    let missing = ViewError { stage: ViewStage::Hold, number: libc::EBADF };
    let user = owned(outcome.held.user);
    let mount = owned(outcome.held.mount).ok_or(missing)?;
    let files = owned(outcome.held.files).ok_or(missing)?;
    Ok(Opened { view: OpenView { user, mount }, files })
}
