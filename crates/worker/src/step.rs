//! One step's process, from its start to the last byte it printed.
//!
//! A step has ended when its direct child has. Then its pipes are drained: until they are closed, or nothing came for
//! [`DRAIN_QUIET`], or [`DRAIN_MAX`] is over. Processes that still hold them are read in the background until the job
//! ends, so that a server started for later steps neither blocks nor dies when it prints.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::cancel::Asked;
use crate::keeper::{Command, End, Left, Processes, Signal, SpawnFailure, StepEnd, StepError, StepId};
use crate::output::{ChannelFault, FreeChannels, Held, Pump, SharedRecorder, Turn, lock};

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
    /// Its pipes could not be read.
    Pipes(std::io::Error),
}

/// How a step is watched.
pub(crate) struct Watch<'w> {
    pub processes: &'w Processes,
    /// Where the step's pipes come from and go.
    pub channels: &'w FreeChannels,
    pub recorder: SharedRecorder,
    pub deadline: Option<Instant>,
    pub grace: Duration,
    pub cancel: &'w mut watch::Receiver<Asked>,
    /// Whether a gentle cancel stops it: not if it began after one.
    pub heeds: Heeds,
}

/// Which cancels stop a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heeds {
    All,
    AtOnceOnly,
}

impl Watch<'_> {
    /// Starts the command and comes back when it has ended and its output is in the log.
    pub async fn run(mut self, command: Command) -> Went {
        let failed = |end| Went { end: Err(end), stopped: None, held: None };
        let channels = match self.channels.take() {
            Ok(channels) => channels,
            Err(ChannelFault::None(failure)) => return failed(NoEnd::NotStarted(failure)),
            Err(ChannelFault::Unreadable(error)) => return failed(NoEnd::Pipes(error)),
        };
        let (id, mut ending) = match self.processes.spawn_into(command, channels.writing()).await {
            Ok(started) => started,
            Err(StepError::NotStarted(failure)) => return failed(NoEnd::NotStarted(failure)),
            Err(StepError::Lost) => return failed(NoEnd::KeeperLost),
        };
        let mut pump = Pump::new(channels, std::sync::Arc::clone(&self.recorder));
        let (end, stopped, open) = self.until_ended(id, &mut ending, &mut pump).await;
        let held = match (&end, open) {
            (Ok(end), Open::Yes) => self.finish(pump, end.left).await,
            _ => None,
        };
        let end = end.map_err(|error| match error {
            StepError::NotStarted(failure) => NoEnd::NotStarted(failure),
            StepError::Lost => NoEnd::KeeperLost,
        });
        Went { end, stopped, held }
    }

    async fn until_ended(
        &mut self,
        id: StepId,
        ending: &mut End,
        pump: &mut Pump,
    ) -> (Result<StepEnd, StepError>, Option<Stopped>, Open) {
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
                end = ending.ended() => return (end, stopped, open),
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
                        let _ = self.processes.signal_step(id, Signal::Kill).await;
                    }
                }
            }
            if let Some((signal, why)) = signal {
                // A keeper that is gone has killed the step; its end is told as lost.
                let _ = self.processes.signal_step(id, signal).await;
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
