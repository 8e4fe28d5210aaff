//! Streams that end when whoever reads them may read no more: the token is asked again as long as they last.
//!
//! A stream asks once in [`ASKED_EVERY`], however much it has to tell: a thousand readers ask the list of tokens some seventy times a second.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::problem::Problem;
use axum::body::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::call::Call;
use super::{App, problem};
use crate::access::{Ground, Pass, Target, Verb};

/// How often a stream asks for its reader's token.
pub const ASKED_EVERY: Duration = Duration::from_secs(15);

/// What a stream is made of.
type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

struct Guarded {
    app: Arc<App>,
    pass: Arc<Pass>,
    next: Instant,
    pieces: Pieces,
    end: fn(&Problem) -> io::Result<Bytes>,
}

/// The pass of whoever called, who was let in to do `verb` on all of these.
///
/// # Errors
/// `Unauthorized`, of a call without a token.
pub fn pass(app: &App, call: &Call, verb: Verb, targets: &[Target<'_>]) -> Result<Arc<Pass>, Problem> {
    let grounds = targets.iter().map(Ground::from).collect();
    Ok(Arc::new(Pass::new(Arc::clone(call.bearer()?), verb, grounds, app.now())))
}

/// The same stream, for as long as the pass is good. It ends broken off: whoever takes it up again is refused, and told why.
pub fn guarded(
    app: Arc<App>,
    pass: Arc<Pass>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    guarded_to(app, pass, pieces, |refusal| Err(problem::broken_off(refusal)))
}

/// The same, where `end` makes the last piece.
pub fn guarded_to(
    app: Arc<App>,
    pass: Arc<Pass>,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    end: fn(&Problem) -> io::Result<Bytes>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let next = Instant::now() + app.asked_every;
    let guarded = Guarded { app, pass, next, pieces: Box::pin(pieces), end };
    futures_util::stream::unfold(Some(guarded), |guarded| async move {
        let mut guarded = guarded?;
        loop {
            tokio::select! {
                // First, so that a stream that has always something to tell asks too.
                biased;
                () = sleep_until(guarded.next) => {}
                piece = guarded.pieces.next() => return piece.map(|piece| (piece, Some(guarded))),
            }
            if let Err(refusal) = guarded.ask().await {
                return Some(((guarded.end)(&refusal), None));
            }
        }
    })
}

impl Guarded {
    async fn ask(&mut self) -> Result<(), Problem> {
        let pass = Arc::clone(&self.pass);
        let ask = move |app: &App| pass.ask(&app.server.access, app.now()).map_err(problem::denied);
        let asked = self.app.blocking(ask).await;
        self.next = Instant::now() + self.app.asked_every;
        asked
    }
}
