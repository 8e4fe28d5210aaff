//! What a container has used, as the kernel counts it in the container's control group.
//!
//! The files are those of the group's first process, found once and held open: no call of the engine, and nothing is polled.
//! Where they cannot be seen (an engine in another process namespace, a kernel without the controllers) there are no numbers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use graph::Usage;

/// The most bytes of a file of a group that are read: each is a few lines.
const FILE_BYTES_MAX: usize = 4096;

/// The control group of a container.
#[derive(Debug)]
pub struct ControlGroup {
    /// The most memory that was held since it was made, or since [`ControlGroup::forget_peak`].
    peak: Option<File>,
    time: Option<Time>,
    /// Where it stands how many of its processes the kernel killed for want of memory.
    kills: Option<File>,
}

/// Where the time on processors stands.
#[derive(Debug)]
enum Time {
    /// `cpu.stat` of version 2, in microseconds.
    Stat(File),
    /// `cpuacct.usage_user` and `cpuacct.usage_sys` of version 1, in nanoseconds.
    Accounts(File, File),
}

/// One hierarchy of groups that is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The controller; of version 2, which has all in one, nothing.
    controller: String,
    /// Which group stands at the mount.
    root: String,
    point: PathBuf,
}

impl ControlGroup {
    /// The group of the container whose first process this is. `None` if the process is none of this container's, which is so
    /// where the engine counts processes otherwise than we do.
    #[must_use]
    pub fn of(pid: i32, container: &str) -> Option<Self> {
        let memberships = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().filter(|_| pid > 0)?;
        // Both engines name the group after the container's id.
        if container.is_empty() || !memberships.contains(container) {
            return None;
        }
        let mounts = mounts(&std::fs::read_to_string("/proc/self/mountinfo").ok()?);
        let folder = |controller: &str| group_folder(&mounts, &memberships, controller);
        let (memory, cpu, unified) = (folder("memory"), folder("cpuacct"), folder(""));
        let of_version_1 = memory.as_ref().and_then(|folder| open(&folder.join("memory.max_usage_in_bytes")));
        let peak = of_version_1.or_else(|| open(&unified.as_ref()?.join("memory.peak")));
        let accounts = cpu.and_then(|folder| {
            let file = |name: &str| File::open(folder.join(name)).ok();
            Some(Time::Accounts(file("cpuacct.usage_user")?, file("cpuacct.usage_sys")?))
        });
        let stat = || Some(Time::Stat(File::open(unified.as_ref()?.join("cpu.stat")).ok()?));
        let kills = memory.and_then(|folder| File::open(folder.join("memory.oom_control")).ok());
        let kills = kills.or_else(|| File::open(unified.as_ref()?.join("memory.events")).ok());
        Some(Self { peak, time: accounts.or_else(stat), kills })
    }

    /// Begins a new peak where the kernel allows it (version 1, and version 2 since Linux 6.12, to whoever may write there). Elsewhere
    /// the peak stays that of the container so far.
    pub fn forget_peak(&self) {
        let _ = self.peak.as_ref().map(|file| file.write_at(b"0", 0));
    }

    /// The most memory, files that the kernel has cached for it included; 0 if it is not told.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> u64 {
        let number = self.peak.as_ref().and_then(|file| text(file).ok()?.trim().parse().ok());
        number.unwrap_or(0)
    }

    /// How many of its processes the kernel has killed for want of memory; 0 if it is not told.
    #[must_use]
    pub fn memory_kills(&self) -> u64 {
        let number = self.kills.as_ref().and_then(|file| number_of(&text(file).ok()?, "oom_kill"));
        number.unwrap_or(0)
    }

    /// All time on processors so far, with the peak of memory. `None` if time is not told.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let (cpu_user_us, cpu_system_us) = match self.time.as_ref()? {
            Time::Stat(file) => stat_times(&text(file).ok()?)?,
            Time::Accounts(user, system) => {
                let microseconds = |file| Some(text(file).ok()?.trim().parse::<u64>().ok()? / 1000);
                (microseconds(user)?, microseconds(system)?)
            }
        };
        Some(Usage { cpu_user_us, cpu_system_us, peak_memory_bytes: self.peak_memory_bytes() })
    }
}

/// For writing too if that is allowed, so that a peak can be forgotten.
fn open(path: &Path) -> Option<File> {
    File::options().read(true).write(true).open(path).or_else(|_| File::open(path)).ok()
}

fn text(file: &File) -> io::Result<String> {
    let mut bytes = [0; FILE_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

/// `user_usec` and `system_usec` of a `cpu.stat`. Source: the kernel's admin-guide/cgroup-v2.
fn stat_times(text: &str) -> Option<(u64, u64)> {
    Some((number_of(text, "user_usec")?, number_of(text, "system_usec")?))
}

/// The number behind a name, of a file with a name and a number in each line.
fn number_of(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
}

/// The hierarchies that `/proc/self/mountinfo` has. Source: proc(5).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ').skip(3);
        let (Some(root), Some(point)) = (before.next(), before.next()) else { continue };
        let mut after = after.split(' ');
        let controllers = match (after.next(), after.nth(1)) {
            (Some("cgroup"), Some(options)) => options,
            (Some("cgroup2"), _) => "",
            _ => continue,
        };
        for controller in controllers.split(',') {
            mounts.push(Mount { controller: controller.to_owned(), root: root.to_owned(), point: point.into() });
        }
    }
    mounts
}

/// Where the group of a controller is to be seen, by `/proc/PID/cgroup`. Source: cgroups(7).
fn group_folder(mounts: &[Mount], memberships: &str, controller: &str) -> Option<PathBuf> {
    let path = memberships.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|known| known == controller).then_some(path)
    })?;
    mounts.iter().filter(|mount| mount.controller == controller).find_map(|mount| {
        let below = Path::new(path).strip_prefix(&mount.root).ok()?;
        let folder = mount.point.join(below);
        folder.is_dir().then_some(folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
        31 24 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 24 0:28 /inner / rw shared:1 - cgroup2 cgroup2 rw\n\
        33 24 0:29 / /tmp rw - tmpfs tmpfs rw\n";

    #[test]
    fn mounts_of_both_versions_are_read() {
        let found = mounts(MOUNTS);
        let found: Vec<_> = found.iter().map(|mount| (mount.controller.as_str(), mount.root.as_str())).collect();
        assert_eq!(found, [("rw", "/"), ("memory", "/"), ("rw", "/"), ("cpu", "/"), ("cpuacct", "/"), ("", "/inner")]);
    }

    #[test]
    fn the_group_is_found_below_its_mount() {
        let check = |memberships: &str, controller: &str, expected: Option<&str>| {
            let found = group_folder(&mounts(MOUNTS), memberships, controller);
            assert_eq!(found, expected.map(PathBuf::from));
        };
        // Directories that every machine has stand for those of groups.
        check("0::/inner/proc\n", "", Some("/proc"));
        check("0::/outer/proc\n", "", None);
        check("4:memory:/nowhere\n", "memory", None);
        check("4:memory:/\n", "cpuacct", None);
        check("nonsense", "", None);
    }

    #[test]
    fn times_are_read_from_the_statistics() {
        let text = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 0\n";
        assert_eq!(stat_times(text), Some((20, 10)));
        assert_eq!(stat_times("usage_usec 30\n"), None);
    }

    #[test]
    fn a_process_of_another_container_has_no_group_of_this_one() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        assert!(ControlGroup::of(own, "0123456789abcdef0123456789abcdef").is_none());
        assert!(ControlGroup::of(own, "").is_none());
        assert!(ControlGroup::of(0, "a").is_none());
    }
}
