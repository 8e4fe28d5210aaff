//! Contents on their way, many in one body; never held whole in memory. What a parcel calls a blob is believed only once
//! its digest was worked out.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use api::blob::{BLOB_BYTES_MAX, DIGESTS_MAX, Digests, PARCEL_HEAD_BYTES, Stored, parcel_head, read_parcel_head};
use api::problem::{Problem, ProblemKind};
use api::routes::BYTES;
use axum::body::{BodyDataStream, Bytes};
use axum::http::StatusCode;
use futures_util::StreamExt;
use graph::{Digest, with_causes};
use store::blob::{self, BlobError, Blobs};

use super::answer::{Answered, More, PIECE_BYTES, Wanted, by_pieces, exactly, json, range, ranged, with};
use super::call::Call;
use super::{App, problem};
use crate::notices;
use crate::server::Server;

/// Blobs up to this size are kept from memory, as many together as reach it; larger ones go through a file, so much at a time.
const IN_MEMORY_BYTES_MAX: usize = 1 << 20;
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
    /// It ended for a fault of ours.
    Interrupted(Problem),
}

/// Takes a parcel of contents. Its sender is waited for without a thread: one is taken only for bytes that are here.
pub async fn put(app: Arc<App>, call: Call) -> Answered {
    let mut body = Incoming { stream: call.into_stream().into_data_stream(), piece: Bytes::new() };
    let mut parcel = Parcel { app, gathered: Vec::new(), gathered_bytes: 0, stored: Stored::default() };
    let received = parcel.receive(&mut body).await;
    // What came whole is kept, also of a parcel that broke off.
    let kept = parcel.keep_gathered().await;
    match kept.and(received) {
        Ok(()) => json(&parcel.stored),
        Err(ParcelError::Wrong(what)) => Err(Problem::new(ProblemKind::Unprocessable, what)),
        Err(ParcelError::Broken) => Err(Problem::new(ProblemKind::Invalid, "the parcel is cut off")
            .help("ask what is missing, and send that: what came whole is kept")),
        Err(ParcelError::Refused(error)) => Err(problem::blob(error)),
        Err(ParcelError::Interrupted(problem)) => Err(problem),
    }
}

/// A body as it comes.
struct Incoming {
    stream: BodyDataStream,
    piece: Bytes,
}

impl Incoming {
    /// At most so many of the next bytes; none once the body has ended, broke off, or its sender was silent for too long.
    async fn next(&mut self, most: usize) -> Bytes {
        while self.piece.is_empty() {
            match tokio::time::timeout(SILENCE_MAX, self.stream.next()).await {
                Ok(Some(Ok(piece))) => self.piece = piece,
                Ok(None | Some(Err(_))) | Err(_) => return Bytes::new(),
            }
        }
        self.piece.split_to(most.min(self.piece.len()))
    }

    /// The next bytes, so many, or fewer if no more come. Room is taken as they come.
    async fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < bytes {
            let piece = self.next(bytes - taken.len()).await;
            if piece.is_empty() {
                break;
            }
            taken.extend_from_slice(&piece);
        }
        taken
    }
}

/// A parcel on its way in.
struct Parcel {
    app: Arc<App>,
    /// Contents that came whole and are not kept yet: together, because a thread for each would cost more than they do.
    gathered: Vec<(Digest, Vec<u8>)>,
    gathered_bytes: usize,
    /// What is kept of it.
    stored: Stored,
}

impl Parcel {
    async fn receive(&mut self, body: &mut Incoming) -> Result<(), ParcelError> {
        loop {
            let head = body.take(PARCEL_HEAD_BYTES).await;
            if head.is_empty() {
                return Ok(());
            }
            let head = head.try_into().map_err(|_| ParcelError::Broken)?;
            let (digest, bytes) = read_parcel_head(&head);
            if bytes > BLOB_BYTES_MAX {
                return Err(ParcelError::Wrong(format!("a content has at most {BLOB_BYTES_MAX} bytes")));
            }
            match usize::try_from(bytes) {
                Ok(length) if length <= IN_MEMORY_BYTES_MAX => self.gather(digest, length, body).await?,
                _ => self.receive_large(digest, bytes, body).await?,
            }
        }
    }

    async fn gather(&mut self, digest: Digest, length: usize, body: &mut Incoming) -> Result<(), ParcelError> {
        let content = body.take(length).await;
        if content.len() < length {
            return Err(ParcelError::Broken);
        }
        self.gathered_bytes += PARCEL_HEAD_BYTES + length;
        self.gathered.push((digest, content));
        if self.gathered_bytes >= IN_MEMORY_BYTES_MAX { self.keep_gathered().await } else { Ok(()) }
    }

    async fn keep_gathered(&mut self) -> Result<(), ParcelError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if gathered.is_empty() {
            return Ok(());
        }
        let mut stored = std::mem::take(&mut self.stored);
        self.stored = on_disk(&self.app, move |server| {
            for (digest, content) in gathered {
                check(digest, store::blob::digest(&content))?;
                server.blobs.put(&content).map_err(ParcelError::Refused)?;
                note(server, &mut stored, digest, content.len() as u64);
            }
            Ok(stored)
        })
        .await?;
        Ok(())
    }

    /// Takes a content through a file of its own.
    async fn receive_large(&mut self, digest: Digest, bytes: u64, body: &mut Incoming) -> Result<(), ParcelError> {
        self.keep_gathered().await?;
        let refused = |error: io::Error| ParcelError::Refused(error.into());
        let create = move |server: &Server| tempfile::NamedTempFile::new_in(server.scratch()).map_err(refused);
        let mut file = on_disk(&self.app, create).await?;
        let mut hasher = blake3::Hasher::new();
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(IN_MEMORY_BYTES_MAX);
            let piece = body.take(most).await;
            if piece.len() < most {
                return Err(ParcelError::Broken);
            }
            left -= piece.len() as u64;
            (file, hasher) = on_disk(&self.app, move |_| {
                hasher.update(&piece);
                file.write_all(&piece).map_err(refused)?;
                Ok((file, hasher))
            })
            .await?;
        }
        let mut stored = std::mem::take(&mut self.stored);
        self.stored = on_disk(&self.app, move |server| {
            check(digest, Digest(*hasher.finalize().as_bytes()))?;
            server.blobs.put_file(file.path()).map_err(ParcelError::Refused)?;
            note(server, &mut stored, digest, bytes);
            Ok(stored)
        })
        .await?;
        Ok(())
    }
}

/// Does what the disk has to be waited for, in its turn among all uploads.
async fn on_disk<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&Server) -> Result<T, ParcelError> + Send + 'static,
) -> Result<T, ParcelError> {
    // Nobody closes it.
    let permit = app.uploads.acquire().await;
    let server = Arc::clone(&app.server);
    let done = blocking(move || work(&server)).await;
    drop(permit);
    done.map_err(ParcelError::Interrupted)?
}

fn check(called: Digest, found: Digest) -> Result<(), ParcelError> {
    if called == found {
        return Ok(());
    }
    Err(ParcelError::Wrong(format!("a content was called {} and is {}", called.short(), found.short())))
}

fn note(server: &Server, stored: &mut Stored, digest: Digest, bytes: u64) {
    server.sources.present.note(digest, server.now());
    server.figures.blob_bytes_in.add(bytes);
    stored.blobs += 1;
    stored.bytes += bytes;
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
