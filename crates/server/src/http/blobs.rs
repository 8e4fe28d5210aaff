//! Contents on their way, many in one body; never held whole in memory. What a parcel calls a blob is believed only once
//! its digest was worked out.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use api::blob::{BLOB_BYTES_MAX, DIGESTS_MAX, Digests, PARCEL_HEAD_BYTES, Stored, parcel_head, read_parcel_head};
use api::problem::{Problem, ProblemKind};
use api::routes::BYTES;
use axum::body::Bytes;
use axum::http::StatusCode;
use futures_util::StreamExt;
use graph::{Digest, with_causes};
use store::blob::{self, BlobError, Blobs};
use tokio::sync::mpsc;

use super::answer::{Answered, More, PIECE_BYTES, Wanted, by_pieces, exactly, json, range, ranged, with};
use super::call::Call;
use super::problem;
use crate::notices;
use crate::server::Server;

/// Blobs up to this size are kept from memory; larger ones go through a file.
const IN_MEMORY_BYTES_MAX: u64 = 1 << 20;
/// How many pieces of a body wait for the disk.
const PIECES_QUEUED_MAX: usize = 8;
/// A sender that is silent for so long has gone: its parcel is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Says which contents are not there.
pub async fn missing(server: Arc<Server>, call: Call) -> Answered {
    let asked = digests(&call)?;
    let missing = blocking(move || {
        let (mut missing, now) = (Vec::new(), server.now());
        for digest in asked.digests {
            // What is there is also kept from the collector until it is named by a build.
            if !server.sources.present.renew(digest, now)? {
                missing.push(digest);
            }
        }
        Ok(missing)
    });
    json(&Digests { digests: missing.await?.map_err(problem::blob)? })
}

fn digests(call: &Call) -> Result<Digests, Problem> {
    let asked: Digests = call.json()?;
    if asked.digests.len() > DIGESTS_MAX {
        let detail = format!("one call names at most {DIGESTS_MAX} contents");
        return Err(Problem::new(ProblemKind::Unprocessable, detail));
    }
    Ok(asked)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| problem::internal(&error))
}

/// Why a parcel is not kept, or only its first blobs.
enum ParcelError {
    /// It is not what it says.
    Wrong(String),
    /// It broke off.
    Broken,
    /// It cannot be kept.
    Refused(BlobError),
}

/// Takes a parcel of contents.
pub async fn put(server: Arc<Server>, call: Call) -> Answered {
    let body = call.into_stream();
    let (sender, receiver) = mpsc::channel::<Bytes>(PIECES_QUEUED_MAX);
    let kept = blocking(move || keep_parcel(&server, &mut Pieces { receiver, piece: Bytes::new() }));
    let sent = async move {
        let mut stream = body.into_data_stream();
        // A sender who stops holds the thread for so long and no longer.
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(SILENCE_MAX, stream.next()).await {
            if sender.send(piece).await.is_err() {
                break;
            }
        }
    };
    let (kept, ()) = tokio::join!(kept, sent);
    match kept? {
        Ok(stored) => json(&stored),
        Err(ParcelError::Wrong(what)) => Err(Problem::new(ProblemKind::Unprocessable, what)),
        Err(ParcelError::Broken) => Err(Problem::new(ProblemKind::Invalid, "the parcel is cut off")
            .help("ask what is missing, and send that: what came whole is kept")),
        Err(ParcelError::Refused(error)) => Err(problem::blob(error)),
    }
}

/// A body as a reader, on a thread that may wait.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

fn keep_parcel(server: &Server, body: &mut Pieces) -> Result<Stored, ParcelError> {
    let mut stored = Stored::default();
    loop {
        let mut head = [0; PARCEL_HEAD_BYTES];
        match read_full(body, &mut head) {
            0 => return Ok(stored),
            PARCEL_HEAD_BYTES => {}
            _ => return Err(ParcelError::Broken),
        }
        let (digest, bytes) = read_parcel_head(&head);
        if bytes > BLOB_BYTES_MAX {
            return Err(ParcelError::Wrong(format!("a content has at most {BLOB_BYTES_MAX} bytes")));
        }
        keep(server, digest, bytes, body)?;
        server.sources.present.note(digest, server.now());
        server.figures.blob_bytes_in.add(bytes);
        stored.blobs += 1;
        stored.bytes += bytes;
    }
}

/// Fills a buffer as far as there is something. Gives how far.
fn read_full(body: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match body.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(length) => filled += length,
        }
    }
    filled
}

fn keep(server: &Server, digest: Digest, bytes: u64, body: &mut impl Read) -> Result<(), ParcelError> {
    let wrong =
        |found: Digest| ParcelError::Wrong(format!("a content was called {} and is {}", digest.short(), found.short()));
    if bytes <= IN_MEMORY_BYTES_MAX {
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        if read_full(body, &mut content) < content.len() {
            return Err(ParcelError::Broken);
        }
        let found = store::blob::digest(&content);
        if found != digest {
            return Err(wrong(found));
        }
        return server.blobs.put(&content).map(drop).map_err(ParcelError::Refused);
    }
    let refused = |error: io::Error| ParcelError::Refused(error.into());
    let mut file = tempfile::NamedTempFile::new_in(server.scratch()).map_err(refused)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let length = body.read(&mut buffer[..most]).unwrap_or(0);
        if length == 0 {
            return Err(ParcelError::Broken);
        }
        hasher.update(&buffer[..length]);
        file.write_all(&buffer[..length]).map_err(refused)?;
        left -= length as u64;
    }
    let found = Digest(*hasher.finalize().as_bytes());
    if found != digest {
        return Err(wrong(found));
    }
    server.blobs.put_file(file.path()).map(drop).map_err(ParcelError::Refused)
}

/// Gives a parcel of contents: those that are there, in the order asked for.
pub async fn fetch(server: Arc<Server>, call: Call) -> Answered {
    let asked = digests(&call)?;
    let mut digests = asked.digests.into_iter();
    let mut under_way: Option<Opened> = None;
    // A reader who is slow holds no thread: the next piece is made when it is wanted.
    let body = by_pieces(move |piece| {
        while piece.len() < PIECE_BYTES * 4 {
            let Some((left, reader)) = &mut under_way else {
                let Some(digest) = digests.next() else { return Ok(More::No) };
                under_way = open(&server.blobs, digest)?;
                if let Some((bytes, _)) = &under_way {
                    piece.extend_from_slice(&parcel_head(digest, *bytes));
                }
                continue;
            };
            let most = (*left).min(PIECE_BYTES as u64);
            if reader.take(most).read_to_end(piece)? as u64 != most {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            *left -= most;
            server.figures.blob_bytes_out.add(most);
            if *left == 0 {
                under_way = None;
            }
        }
        Ok(More::Yes)
    });
    Ok(with(StatusCode::OK, BYTES, body))
}

/// What is left of a content, in bytes, and where it comes from.
type Opened = (u64, Box<dyn Read + Send>);

/// A content on its way out. If it is damaged, whoever gets it says so by its digest; here it is removed, so that what made it makes it again
/// and is not told that it is there.
struct Watched {
    content: Box<dyn Read + Send>,
    left: u64,
    digest: Digest,
    blobs: Arc<dyn Blobs>,
}

fn watched(blobs: &Arc<dyn Blobs>, digest: Digest, length: u64, content: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
    Box::new(Watched { content, left: length, digest, blobs: Arc::clone(blobs) })
}

impl Watched {
    fn look_at(&self, error: &io::Error) {
        if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
            return;
        }
        let digest = self.digest.short();
        match blob::remove_damaged(&*self.blobs, self.digest) {
            Ok(true) => notices::warning(&format!(
                "the content {digest} was damaged, and was removed: what made it makes it again; `ropewalk doctor --all` names what else is damaged"
            )),
            Ok(false) => {}
            Err(error) => notices::warning(&format!(
                "the content {digest} is damaged, and was not removed: {}",
                with_causes(&error)
            )),
        }
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer);
        match &read {
            Ok(length) => {
                self.left = self.left.saturating_sub(*length as u64);
                // Nobody reads on to the end, where the store tells.
                if self.left == 0
                    && *length > 0
                    && let Err(error) = self.content.read(&mut [0])
                {
                    self.look_at(&error);
                }
            }
            Err(error) => self.look_at(error),
        }
        read
    }
}

/// A blob and its length; `None` if it is not there.
fn open(blobs: &Arc<dyn Blobs>, digest: Digest) -> io::Result<Option<Opened>> {
    let opened = || Ok((blobs.length(digest)?, blobs.open(digest)?));
    match opened() {
        Ok((length, content)) => Ok(Some((length, watched(blobs, digest, length, content)))),
        Err(BlobError::Absent(_)) => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Gives one content, or a part of it.
pub async fn get(server: Arc<Server>, call: Call) -> Answered {
    let digest = call.digest()?;
    let blobs = Arc::clone(&server.blobs);
    let length = blocking(move || blobs.length(digest)).await?.map_err(absent)?;
    let wanted = range(&call.headers, length)?;
    let (start, end) = match wanted {
        Wanted::Whole => (0, length),
        Wanted::Part(start, end) => (start, end),
    };
    let blobs = Arc::clone(&server.blobs);
    let opened = blocking(move || match wanted {
        Wanted::Whole => blobs.open(digest).map(|content| watched(&blobs, digest, length, content)),
        Wanted::Part(start, end) => blobs.open_range(digest, start..end),
    });
    let reader = opened.await?.map_err(absent)?;
    let body = exactly(end - start, reader, &server.figures);
    Ok(ranged(wanted, length, BYTES, body))
}

fn absent(error: BlobError) -> Problem {
    match error {
        BlobError::Absent(digest) => problem::not_found(format_args!("content {}", digest.short())),
        error => problem::blob(error),
    }
}
