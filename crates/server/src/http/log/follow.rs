//! A log that is followed while it grows.

use std::io;
use std::sync::Arc;

use api::log::LogFormat;
use api::problem::Problem;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use store::log::{Item, Line, LineEnd, Lines, LogReader, StreamState, Watch};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::super::answer::{Answered, More, PIECE_BYTES, with};
use super::super::guarded::guarded;
use super::super::likeness::Likeness;
use super::super::{App, problem};
use super::{Part, Place, media, open, open_live, write};
use crate::access::Pass;
use crate::server::Server;

/// A log that is followed: how far it was told, and what wakes it.
struct Follower {
    server: Arc<Server>,
    place: Place,
    format: LogFormat,
    /// The next row, and how many bytes of it were told.
    line: u64,
    bytes: usize,
    /// How many rows may still be told.
    left: u64,
    reader: Option<LogReader>,
    has_ended: bool,
    woken: Arc<Notify>,
    stored: tokio::sync::watch::Receiver<u64>,
    ending: tokio::sync::watch::Receiver<crate::server::Ending>,
    turns: Arc<Semaphore>,
    _watch: Watch,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn followed(
    app: &Arc<App>,
    place: Place,
    (part, format): (Part, LogFormat),
    permit: OwnedSemaphorePermit,
    pass: Arc<Pass>,
) -> Answered {
    let server = Arc::clone(&app.server);
    let woken = Arc::new(Notify::new());
    let waker = Arc::clone(&woken);
    // Registered before anything is read: then nothing is missed.
    let watch = server.logs.watch(place.build, move || waker.notify_one()).map_err(problem::log)?;
    let (stored, ending) = (server.live.stored(), server.ending());
    let mut follower = Follower {
        server,
        place,
        format,
        line: part.from,
        bytes: 0,
        left: part.count,
        reader: None,
        has_ended: false,
        woken,
        stored,
        ending,
        turns: Arc::clone(&app.turns),
        _watch: watch,
        _permit: permit,
    };
    if let Some(tail) = part.tail {
        let (build, number) = (follower.place.build, follower.place.attempt.attempt);
        let key = follower.place.key;
        let reader = app.blocking(move |app| open(app, build, number)).await?.1;
        let lines = reader.and_then(|reader| reader.stream(key)).map_or(0, |stream| stream.lines);
        follower.line = lines.saturating_sub(tail);
    }
    let stream = futures_util::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        loop {
            let turn = Arc::clone(&follower.turns).acquire_owned().await;
            let read = tokio::task::spawn_blocking(move || {
                let piece = follower.read();
                drop(turn);
                (follower, piece)
            });
            let (read, piece) = match read.await {
                Ok(done) => done,
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            };
            follower = read;
            match piece {
                Err(refusal) => return Some((Err(problem::broken_off(&refusal)), None)),
                Ok(piece) if !piece.is_empty() => return Some((Ok(Bytes::from(piece)), Some(follower))),
                Ok(_) if follower.has_ended => return None,
                Ok(_) => {}
            }
            // One of these comes with everything that could change what there is to read.
            tokio::select! {
                () = follower.woken.notified() => {}
                changed = follower.stored.changed() => if changed.is_err() { return None },
                _ = follower.ending.changed() => return None,
            }
        }
    });
    Ok(with(StatusCode::OK, media(format), Body::from_stream(guarded(Arc::clone(app), pass, stream))))
}

impl Follower {
    /// What is new, about a piece; empty if nothing is. Blocks.
    fn read(&mut self) -> Result<Vec<u8>, Problem> {
        let Place { build, key, .. } = self.place;
        // Asked first: what was printed before the end was seen is read after.
        let is_over = self.is_over()?;
        match &mut self.reader {
            Some(reader) => drop(reader.refresh().map_err(problem::log)?),
            None => self.reader = open_live(&self.server, build)?,
        }
        let mut piece = Vec::new();
        let Some(reader) = &self.reader else {
            self.has_ended = is_over;
            return Ok(piece);
        };
        let is_closed = reader.stream(key).is_some_and(|stream| stream.state == StreamState::Closed);
        let mut lines: Lines = reader.lines(key, self.line..u64::MAX);
        let mut rest = More::No;
        // How many bytes of the present row have been seen in this reading.
        let mut seen = 0;
        // They are told with what follows them, or at the end, so that each is told once.
        let mut gaps = Vec::new();
        loop {
            if piece.len() >= PIECE_BYTES * 4 || self.left == 0 {
                rest = More::Yes;
                break;
            }
            match lines.next().transpose().map_err(problem::log)? {
                None => break,
                Some(item @ Item::Gap(_)) => gaps.push(item),
                Some(Item::Line(line)) => self.tell(line, &mut seen, (std::mem::take(&mut gaps), &mut piece)),
            }
        }
        self.has_ended = self.left == 0 || (rest == More::No && (is_closed || is_over));
        if self.has_ended {
            self.write_all(&gaps, &mut piece);
        }
        Ok(piece)
    }

    fn write_all(&self, items: &[Item], piece: &mut Vec<u8>) {
        items.iter().for_each(|item| write(item, (0, Likeness::Own), self.format, piece));
    }

    /// Tells what of a piece of a row was not told yet, and with it the gaps before it.
    fn tell(&mut self, line: Line, seen: &mut usize, (gaps, piece): (Vec<Item>, &mut Vec<u8>)) {
        if line.number != self.line {
            (self.line, self.bytes, *seen) = (line.number, 0, 0);
        }
        let length = line.bytes.len();
        let known = self.bytes.saturating_sub(*seen).min(length);
        *seen += length;
        let is_whole = line.end == LineEnd::LineFeed;
        self.bytes = self.bytes.max(*seen);
        if known < length || is_whole {
            self.write_all(&gaps, piece);
            write(&Item::Line(line), (known, Likeness::Own), self.format, piece);
        }
        if is_whole {
            (self.line, self.bytes, *seen) = (self.line + 1, 0, 0);
            self.left = self.left.saturating_sub(1);
        }
    }

    /// Whether the attempt has ended, so that no more comes.
    fn is_over(&self) -> Result<bool, Problem> {
        let Place { build, attempt, .. } = &self.place;
        if attempt.ended.is_some() {
            return Ok(true);
        }
        let rows = self.server.store.attempts(*build, Some(&attempt.job)).map_err(problem::store)?;
        Ok(rows.iter().find(|row| row.attempt == attempt.attempt).is_none_or(|row| row.ended.is_some()))
    }
}
