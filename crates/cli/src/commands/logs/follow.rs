//! Waiting for more of a log: woken by the file system where it can, and at the latest after a short while.

use std::path::Path;
use std::time::Duration;

/// The longest wait before looking again, also to learn that the build has ended.
const WAIT: Duration = Duration::from_millis(50);

/// Watches the folder of logs.
pub struct Watch {
    #[cfg(target_os = "linux")]
    events: Option<rustix::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Watch {
    /// Watches `folder`. Where that is refused, waiting only takes its time.
    pub fn new(folder: &Path) -> Self {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .and_then(|events| add_watch(&events, folder, WatchFlags::MODIFY | WatchFlags::CREATE).map(|_| events));
        Self { events: events.ok() }
    }

    /// Returns when something was written, or after [`WAIT`].
    pub fn wait(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let Some(events) = &self.events else { return std::thread::sleep(WAIT) };
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(WAIT.subsec_nanos()) };
        // Interrupted or refused: look at once.
        let _ = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&wait));
        // What happened is all the same; only that it is read, so that the next wait waits.
        let mut buffer = [0; 4096];
        while rustix::io::read(events, &mut buffer).is_ok_and(|read| read > 0) {}
    }
}

#[cfg(not(target_os = "linux"))]
impl Watch {
    /// Watches nothing.
    pub fn new(_folder: &Path) -> Self {
        Self {}
    }

    /// Returns after [`WAIT`].
    pub fn wait(&self) {
        std::thread::sleep(WAIT);
    }
}
