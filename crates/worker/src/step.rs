//! One step's process, from its start to the last byte it printed.
//!
//! A step has ended when its direct child has. Then its pipes are drained: until they are closed, or nothing came for
//! [`DRAIN_QUIET`], or [`DRAIN_MAX`] is over. Processes that still hold them are read in the background until the job
//! ends, so that a server started for later steps neither blocks nor dies when it prints.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use graph::Timestamp;

use crate::cancel::Asked;
use crate::container::job::{JobContainer, Stopper};
use crate::keeper::{Command, End, Left, Processes, Signal, SpawnFailure, StepEnd, StepError, StepId};
use crate::output::{ChannelFault, Channels, FreeChannels, Held, Pump, SharedRecorder, Turn, lock, now_us};

/// How long an ended step's pipes may be silent and open before they are left to the background.
pub const DRAIN_QUIET: Duration = Duration::from_secs(2);

/// How long an ended step's pipes are drained at most, if processes it left go on printing.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long printed bytes may wait before others can read them.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Why a step was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Its limit, or the job's, was reached.
    TimedOut,
    /// Somebody canceled the job.
    Canceled,
}

/// How a step's process went.
pub(crate) struct Went {
    pub end: Result<StepEnd, NoEnd>,
    pub stopped: Option<Stopped>,
    /// Pipes that its descendants still hold.
    pub held: Option<Held>,
}

/// Why there is no end to tell.
pub(crate) enum NoEnd {
    NotStarted(SpawnFailure),
    KeeperLost,
    /// Its container ended with it; the text says how.
    ContainerLost(String),
    /// Its pipes could not be read.
    Pipes(std::io::Error),
}

/// How a step is watched.
pub(crate) struct Watch<'w> {
    /// Where the step's pipes come from and go, unless its container has them.
    pub channels: &'w FreeChannels,
    pub recorder: SharedRecorder,
    pub deadline: Option<Instant>,
    pub grace: Duration,
    pub cancel: &'w mut watch::Receiver<Asked>,
    /// Whether a gentle cancel stops it: not if it began after one.
    pub heeds: Heeds,
}

/// What starts a step's process.
pub(crate) enum Runner<'w> {
    /// The keeper.
    Keeper(&'w Processes),
    /// The first process of the job's container.
    Container(&'w mut JobContainer),
}

/// A step's process.
enum Child<'w> {
    OfKeeper { processes: &'w Processes, id: StepId, end: End },
    InContainer { container: &'w mut JobContainer, stopper: Stopper, started: Timestamp, began: Instant },
}

impl<'w> Runner<'w> {
    fn channels(&self, free: &FreeChannels) -> Result<Channels, ChannelFault> {
        match self {
            Self::Keeper(_) => free.take(),
            Self::Container(container) => container.channels().map_err(ChannelFault::Unreadable),
        }
    }

    async fn start(self, command: Command, channels: &Channels) -> Result<Child<'w>, NoEnd> {
        match self {
            Self::Keeper(processes) => {
                let (id, end) = processes.spawn_into(command, channels.writing()).await?;
                Ok(Child::OfKeeper { processes, id, end })
            }
            Self::Container(container) => {
                let is_speakable = |(name, value): (&OsStr, &OsStr)| {
                    let (name, value) = (name.as_bytes(), value.as_bytes());
                    !name.is_empty() && memchr::memchr2(b'=', 0, name).is_none() && memchr::memchr(0, value).is_none()
                };
                if command.environment.is_doubtful() && !command.environment.iter().all(is_speakable) {
                    return Err(NoEnd::NotStarted(SpawnFailure::Unspeakable { what: "a variable" }));
                }
                let (started, began) = (now(), Instant::now());
                container.begin(&command).map_err(|error| NoEnd::ContainerLost(error.to_string()))?;
                let stopper = container.stopper();
                Ok(Child::InContainer { container, stopper, started, began })
            }
        }
    }
}

impl Child<'_> {
    /// Cancel safe.
    async fn ended(&mut self) -> Result<StepEnd, NoEnd> {
        match self {
            Self::OfKeeper { end, .. } => Ok(end.ended().await?),
            Self::InContainer { container, started, began, .. } => {
                let ended = container.ended().await.map_err(|gone| NoEnd::ContainerLost(gone.0))?;
                Ok(StepEnd {
                    pid: 0,
                    ending: ended.ending,
                    usage: ended.usage,
                    started: *started,
                    finished: now(),
                    duration: began.elapsed(),
                    // What it left runs on until the container is removed.
                    left: Left::Processes,
                })
            }
        }
    }

    async fn signal(&self, signal: Signal) {
        match self {
            // A keeper that is gone has killed the step; its end is told as lost.
            Self::OfKeeper { processes, id, .. } => drop(processes.signal_step(*id, signal).await),
            Self::InContainer { stopper, .. } => stopper.signal(signal).await,
        }
    }
}

impl From<StepError> for NoEnd {
    fn from(error: StepError) -> Self {
        match error {
            StepError::NotStarted(failure) => Self::NotStarted(failure),
            StepError::Lost => Self::KeeperLost,
        }
    }
}

fn now() -> Timestamp {
    Timestamp(i64::try_from(now_us()).unwrap_or(i64::MAX))
}

/// Which cancels stop a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heeds {
    All,
    AtOnceOnly,
}

impl Watch<'_> {
    /// Starts the command and comes back when it has ended and its output is in the log.
    pub async fn run(mut self, runner: Runner<'_>, command: Command) -> Went {
        let failed = |end| Went { end: Err(end), stopped: None, held: None };
        let channels = match runner.channels(self.channels) {
            Ok(channels) => channels,
            Err(ChannelFault::None(failure)) => return failed(NoEnd::NotStarted(failure)),
            Err(ChannelFault::Unreadable(error)) => return failed(NoEnd::Pipes(error)),
        };
        let mut child = match runner.start(command, &channels).await {
            Ok(child) => child,
            Err(no_end) => return failed(no_end),
        };
        let mut pump = Pump::new(channels, std::sync::Arc::clone(&self.recorder));
        let (end, stopped, open) = self.until_ended(&mut child, &mut pump).await;
        let held = match (&end, open) {
            (Ok(end), Open::Yes) => self.finish(pump, end.left).await,
            _ => None,
        };
        Went { end, stopped, held }
    }

    async fn until_ended(
        &mut self,
        child: &mut Child<'_>,
        pump: &mut Pump,
    ) -> (Result<StepEnd, NoEnd>, Option<Stopped>, Open) {
        let mut open = Open::Yes;
        let mut stopped = None;
        let mut kill_at = None;
        let mut flush_at = None;
        let mut deadline = self.deadline;
        loop {
            let wake = [deadline, kill_at, flush_at].into_iter().flatten().min();
            let mut signal = None;
            tokio::select! {
                biased;
                Ok(()) = self.cancel.changed() => signal = self.asked(),
                end = child.ended() => return (end, stopped, open),
                turn = pump.turn(), if open == Open::Yes => match turn {
                    Turn::End => open = Open::No,
                    Turn::Data => flush_at = flush_at.or(Some(Instant::now() + FLUSH_AFTER)),
                },
                () = until(wake), if wake.is_some() => {
                    let now = Instant::now();
                    if flush_at.take_if(|at| *at <= now).is_some() {
                        lock(&self.recorder).flush();
                    }
                    if deadline.take_if(|at| *at <= now).is_some() {
                        signal = Some((Signal::Terminate, Stopped::TimedOut));
                    } else if kill_at.take_if(|at| *at <= now).is_some() {
                        child.signal(Signal::Kill).await;
                    }
                }
            }
            if let Some((signal, why)) = signal {
                child.signal(signal).await;
                stopped.get_or_insert(why);
                deadline = None;
                kill_at = (signal == Signal::Terminate).then(|| Instant::now() + self.grace);
            }
        }
    }

    /// The signal that the latest cancel asks for.
    fn asked(&mut self) -> Option<(Signal, Stopped)> {
        match (&*self.cancel.borrow_and_update(), self.heeds) {
            (Asked::AtOnce { .. }, _) => Some((Signal::Kill, Stopped::Canceled)),
            (Asked::Gently { .. }, Heeds::All) => Some((Signal::Terminate, Stopped::Canceled)),
            (Asked::Gently { .. }, Heeds::AtOnceOnly) | (Asked::GoOn, _) => None,
        }
    }

    /// Takes what is left in the pipes, and keeps them for a later step if nobody else holds them.
    async fn finish(&mut self, mut pump: Pump, left: Left) -> Option<Held> {
        // Whoever holds them is a process that a step left, and of such there is none.
        if left == Left::Nothing {
            pump = match pump.give_back() {
                Ok(channels) => {
                    self.channels.give(channels);
                    return None;
                }
                Err(pump) => pump,
            };
        }
        pump.let_go();
        self.drain(pump).await
    }

    /// Takes what is left in the pipes until all who hold them have closed them.
    async fn drain(&mut self, mut pump: Pump) -> Option<Held> {
        if pump.take_ready() == Turn::End {
            return None;
        }
        let latest = Instant::now() + DRAIN_MAX;
        let mut quiet = Instant::now() + DRAIN_QUIET;
        loop {
            tokio::select! {
                turn = pump.turn() => match turn {
                    Turn::End => return None,
                    Turn::Data => quiet = Instant::now() + DRAIN_QUIET,
                },
                () = tokio::time::sleep_until(quiet.min(latest)) => break,
                Ok(()) = self.cancel.changed() => if self.asked().is_some() { break },
            }
        }
        pump.hold().await
    }
}

/// Whether a step's pipes may bring more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Yes,
    No,
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
