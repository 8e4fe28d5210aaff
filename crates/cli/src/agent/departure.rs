//! How a worker ends, and what that is for attempts in its hands: the fault of neither job nor person, so that they are tried
//! again as those of a worker that fell silent.

use std::cell::Cell;
use std::time::Duration;

use graph::{AttemptReport, Failure, Outcome};
use tokio::sync::watch;

/// A machine that goes down sends its signal to the steps and to the worker: how long the worker's own may come behind the end
/// of a step.
const SIGNALS_APART: Duration = Duration::from_millis(250);

/// The signals by which a machine that goes down ends everything, as exit codes of steps.
const SIGTERM_EXIT: i32 = 128 + 15;
const SIGKILL_EXIT: i32 = 128 + 9;

/// How people want a worker to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Not at all.
    No,
    /// When what runs has ended.
    Drain,
    /// At once.
    Now,
}

/// What attempts of one worker need to know of its end.
pub struct Departure {
    ending: watch::Receiver<Ending>,
    /// Whether attempts were ended before their time.
    is_cut_short: Cell<bool>,
}

impl Departure {
    /// Of a worker that ends as this says.
    pub fn new(ending: watch::Receiver<Ending>) -> Self {
        Self { ending, is_cut_short: Cell::new(false) }
    }

    /// Attempts are ended before their time from now on.
    pub fn cut_short(&self) {
        self.is_cut_short.set(true);
    }

    /// Says in an attempt's report what the worker's end did to it.
    pub async fn judge(&self, report: &mut AttemptReport) {
        let message = match &report.outcome {
            Outcome::Failed(Failure::Canceled { .. }) if self.is_cut_short.get() => {
                "its worker was stopped before the job had ended".to_owned()
            }
            Outcome::Failed(Failure::Step { exit: exit @ (SIGTERM_EXIT | SIGKILL_EXIT), .. }) => {
                let signal = exit - 128;
                let mut ending = self.ending.clone();
                let stopped = ending.wait_for(|ending| *ending != Ending::No);
                if !matches!(tokio::time::timeout(SIGNALS_APART, stopped).await, Ok(Ok(_))) {
                    return;
                }
                format!("signal {signal} ended its step while its worker was being stopped")
            }
            _ => return,
        };
        report.outcome = Outcome::Failed(Failure::Infra { message });
    }
}

#[cfg(test)]
mod tests {
    use graph::Timestamp;

    use super::*;

    /// How an attempt that ended so counts on a worker that ends so, once its signal has come.
    fn check(ending: Ending, is_cut_short: bool, failure: Failure, counts: &str) {
        let (sender, receiver) = watch::channel(Ending::No);
        let departure = Departure::new(receiver);
        if is_cut_short {
            departure.cut_short();
        }
        let mut report = AttemptReport::of(Outcome::Failed(failure), Timestamp(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let signal = async { sender.send_replace(ending) };
        runtime.block_on(async { tokio::join!(departure.judge(&mut report), signal) });
        let Outcome::Failed(failure) = report.outcome else { panic!("it passed") };
        let told = match failure {
            Failure::Infra { message } => message,
            Failure::Step { exit, .. } => format!("step {exit}"),
            Failure::Canceled { by } => format!("canceled by {by}"),
            other => format!("{other:?}"),
        };
        assert_eq!(told, counts);
    }

    #[test]
    fn what_a_workers_end_took_along_is_not_the_jobs_failure() {
        let step = |exit| Failure::Step { step: 0, exit, message: None };
        let canceled = || Failure::Canceled { by: "the worker".to_owned() };
        let term = "signal 15 ended its step while its worker was being stopped";
        let kill = "signal 9 ended its step while its worker was being stopped";
        check(Ending::Drain, false, step(143), term);
        check(Ending::Now, true, step(137), kill);
        check(Ending::Now, true, canceled(), "its worker was stopped before the job had ended");
        check(Ending::No, false, step(143), "step 143");
        check(Ending::Drain, false, step(1), "step 1");
        check(Ending::Drain, false, canceled(), "canceled by the worker");
    }
}
