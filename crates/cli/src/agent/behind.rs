//! Work of a worker behind the jobs' backs: for which none of them waits, so that it gives way to all of them.
//!
//! What a thread starts is as nice as it is, for good: nothing here may ask the runtime for anything (it might begin one of its threads here), nor
//! start a process, nor hold a lock that a job's start takes.

use std::thread;

use tokio::sync::oneshot;

/// How much a thread of that kind gives way, as nice(1) counts: it has a tenth of the weight of others, so that it comes to its end, and
/// with it to whatever it holds, also where a machine is never idle.
const NICENESS: i32 = 10;

/// Does work on a thread of its own, which gives way. `name` is that of the thread.
///
/// # Errors
/// In words: there is no further thread, or the work panicked.
pub async fn behind<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // On Linux that of the calling thread alone: setpriority(2), "C library/kernel differences". Without it the work is as urgent as any other.
        let _ = rustix::process::nice(NICENESS);
        // Nobody may be waiting any more.
        let _ = tell.send(work());
    });
    thread.map_err(|error| format!("cannot begin a thread: {error}"))?;
    told.await.map_err(|_| format!("the thread `{name}` did not come to its end"))
}
