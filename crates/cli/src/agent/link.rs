//! The way to whatever server this worker is joined to, for those who need it while they work: it waits out a server's
//! absence, and keeps by content what went over it, so that nothing travels twice.
//!
//! What moves bytes blocks, and is called off the thread of all attempts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use api::blob::{DIGESTS_MAX, Digests, PARCEL_HEAD_BYTES, read_parcel_head};
use api::client::{Client, ClientError, Parcel};
use api::problem::ProblemKind;
use api::source::{HISTORY_DOCUMENT_BYTES_MAX, History, MANIFEST_BYTES_MAX, Manifest};
use api::worker::{FindCache, FoundCache, SaveCache, SaveLayers, SavedCache, SavedLayers};
use graph::Digest;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::checkout::{Checkout, Checkouts, Source};
use super::content::{Contents, Incoming};
use super::evaluation::Evaluations;
use super::history::laying;
use super::holding::Held;
use super::sending::{Blocks, Body, LARGE_BYTES, Sending};
use crate::commands::Stop;

/// How long an absent server is waited for. Then the attempt that needs it fails.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The wait before a call is made again that broke although the session lives.
const AGAIN: Duration = Duration::from_millis(200);

/// How often a call is made again that the server answers with a fault of its own, each time after twice the wait. What a transfer brings before it breaks counts as
/// success.
const FAULTS_MAX: u32 = 7;

/// A single content up to this length is sent without asking whether it is there: the question takes as long.
const UNASKED_BYTES: u64 = 16 << 10;

/// How many contents are asked for in one parcel, and how many bytes.
const PARCEL_DIGESTS: usize = 2_000;
const PARCEL_BYTES: u64 = 64 << 20;

/// How many sources are laid at once, each of another project. Which turn a project has depends on its name.
const LAYING_AT_ONCE: usize = 16;

/// Why the server did not give or take something.
#[derive(Debug)]
pub enum LinkError {
    /// It has no such content.
    Absent(Digest),
    /// What it sent is not what the digest says.
    Damaged(Digest),
    /// It has no room.
    Full(String),
    /// Anything else, for people.
    Refused(String),
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(digest) => write!(f, "the server has no content {}", digest.short()),
            Self::Damaged(digest) => write!(
                f,
                "what the server sent as the content {} is damaged: `ropewalk doctor --all` there names all that is",
                digest.short()
            ),
            Self::Full(text) | Self::Refused(text) => f.write_str(text),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full(format!("no space is left on the worker's disk: {error}"))
            }
            _ => Self::Refused(format!("the worker's disk refused: {error}")),
        }
    }
}

/// Whether a link makes calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calling {
    Open,
    Closed,
}

impl Blocks for Link {
    fn block<F: Future>(&self, future: F) -> Option<F::Output> {
        self.until_closed(future)
    }
}

fn ending() -> LinkError {
    LinkError::Refused("the worker is ending".to_owned())
}

/// The way to the server.
pub struct Link {
    contents: Contents,
    checkouts: Checkouts,
    evaluations: Evaluations,
    /// A client with the token of the present session, while there is one.
    client: watch::Sender<Option<Client>>,
    runtime: Handle,
    /// Whether calls are made; each holds it while it is under way.
    calling: RwLock<Calling>,
    /// Tells calls that are under way to end.
    ends: watch::Sender<Calling>,
    /// Who lays a source; others of the project wait for it.
    laying: [Mutex<()>; LAYING_AT_ONCE],
}

impl Link {
    /// A link over a data folder, without a session yet. Must be called within the runtime.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(data: &Path, contents_bytes_max: u64) -> io::Result<Self> {
        Ok(Self {
            contents: Contents::open(data.join("contents"), contents_bytes_max)?,
            checkouts: Checkouts::open(data)?,
            evaluations: Evaluations::open(data.join("evaluate")),
            client: watch::Sender::new(None),
            runtime: Handle::current(),
            calling: RwLock::new(Calling::Open),
            ends: watch::Sender::new(Calling::Open),
            laying: Default::default(),
        })
    }

    /// What is here by content.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Says over which session calls are made from now on.
    pub fn set_client(&self, client: Option<Client>) {
        self.client.send_replace(client);
    }

    /// A client with the token of the present session, if there is one.
    pub fn client(&self) -> Option<Client> {
        self.client.borrow().clone()
    }

    /// Keeps a checkout that is there where it is; `None` if it is not.
    pub fn hold_checkout(&self, tree: &Path) -> Option<Held<PathBuf>> {
        self.checkouts.hold(tree)
    }

    /// Ends the calls that are under way; further ones are refused. Blocks until the last has returned: no thread uses
    /// the runtime after that.
    pub fn close(&self) {
        self.ends.send_replace(Calling::Closed);
        *self.calling.write().unwrap_or_else(PoisonError::into_inner) = Calling::Closed;
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        *self.ends.borrow() == Calling::Closed
    }

    /// Waits for something on the runtime, unless the link is closed, or is closed meanwhile.
    fn until_closed<T>(&self, waited: impl Future<Output = T>) -> Option<T> {
        let calling = self.calling.read().unwrap_or_else(PoisonError::into_inner);
        if *calling == Calling::Closed {
            return None;
        }
        let mut ends = self.ends.subscribe();
        self.runtime.block_on(async {
            let closed = std::pin::pin!(ends.wait_for(|calling| *calling == Calling::Closed));
            match futures_util::future::select(closed, std::pin::pin!(waited)).await {
                futures_util::future::Either::Left(_) => None,
                futures_util::future::Either::Right((value, _)) => Some(value),
            }
        })
    }

    /// Makes a call until it is answered, for better or worse.
    fn call<T>(&self, mut call: impl AsyncFnMut(Client) -> Result<T, ClientError>) -> Result<T, LinkError> {
        let began = Instant::now();
        let mut faults = 0;
        loop {
            let left = WAIT_MAX.saturating_sub(began.elapsed());
            let mut sessions = self.client.subscribe();
            let found = self.until_closed(async {
                let found = tokio::time::timeout(left, sessions.wait_for(Option::is_some)).await;
                found.ok().and_then(|found| found.ok().and_then(|client| client.clone()))
            });
            let Some(client) = found.ok_or_else(ending)? else {
                return Err(LinkError::Refused(format!("no server was there for {} s", WAIT_MAX.as_secs())));
            };
            match self.until_closed(call(client)).ok_or_else(ending)? {
                Ok(value) => return Ok(value),
                // The session may have just ended: the next one does it.
                Err(error) if error.is_passing() || is_over(&error) => {
                    self.until_closed(async { drop(tokio::time::timeout(AGAIN, sessions.changed()).await) })
                        .ok_or_else(ending)?;
                }
                Err(error) if is_fault(&error) && faults < FAULTS_MAX => {
                    self.pause(faults)?;
                    faults += 1;
                }
                Err(error) if error.problem().is_some_and(|problem| problem.status == 507) => {
                    return Err(LinkError::Full(Stop::of(&error).message));
                }
                Err(error) => return Err(LinkError::Refused(Stop::of(&error).message)),
            }
        }
    }

    /// Waits after this many faults.
    fn pause(&self, faults: u32) -> Result<(), LinkError> {
        self.until_closed(tokio::time::sleep(AGAIN * 2_u32.pow(faults))).ok_or_else(ending)
    }

    /// Fetches a content, if it is not here. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn fetch_now(&self, digest: Digest) -> Result<(), LinkError> {
        if self.contents.has(digest) {
            return Ok(());
        }
        let mut incoming = self.contents.incoming()?;
        let (mut from, mut faults) = (0, 0);
        loop {
            let parcel = self.call(async |client| match client.blob_get(digest, from).await {
                Err(error) if error.is(ProblemKind::NotFound) => Ok(None),
                other => other.map(Some),
            })?;
            let Some(mut parcel) = parcel else { return Err(LinkError::Absent(digest)) };
            loop {
                match self.until_closed(parcel.next()).ok_or_else(ending)? {
                    Ok(Some(piece)) => {
                        incoming.write(&piece)?;
                        from += piece.len() as u64;
                        faults = 0;
                    }
                    Ok(None) if incoming.digest() != digest => return Err(LinkError::Damaged(digest)),
                    Ok(None) => return Ok(incoming.keep(digest)?),
                    // Taken up where it broke off.
                    Err(_) if faults < FAULTS_MAX => break,
                    Err(error) => return Err(LinkError::Refused(Stop::of(&error).message)),
                }
            }
            self.pause(faults)?;
            faults += 1;
        }
    }

    /// Fetches many contents, in parcels.
    fn fetch_all(&self, wanted: &[(Digest, u64)]) -> Result<(), LinkError> {
        let mut rest = wanted;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = rest.iter().take(PARCEL_DIGESTS).take_while(|(_, length)| {
                let is_first = bytes == 0;
                bytes += length;
                is_first || bytes <= PARCEL_BYTES
            });
            let count = count.count().clamp(1, DIGESTS_MAX);
            let (now, later) = rest.split_at(count);
            // What a broken parcel did not bring comes by itself.
            let digests = Digests { digests: now.iter().map(|(digest, _)| *digest).collect() };
            let parcel = self.call(async |client| client.blob_fetch(&digests).await)?;
            self.unpack(parcel)?;
            for (digest, _) in now {
                self.fetch_now(*digest)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Keeps what a parcel brings, as far as it comes.
    fn unpack(&self, mut parcel: Parcel) -> Result<(), LinkError> {
        let mut head = Vec::with_capacity(PARCEL_HEAD_BYTES);
        let mut current: Option<(Digest, u64, Incoming<'_>)> = None;
        while let Some(Ok(Some(piece))) = self.until_closed(parcel.next()) {
            let mut piece = piece.as_ref();
            loop {
                if let Some((digest, left, mut incoming)) = current.take() {
                    let (now, after) = piece.split_at(piece.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                    incoming.write(now)?;
                    piece = after;
                    let left = left - now.len() as u64;
                    if left > 0 {
                        current = Some((digest, left, incoming));
                    } else if incoming.digest() == digest {
                        incoming.keep(digest)?;
                    } else {
                        return Err(LinkError::Damaged(digest));
                    }
                }
                if piece.is_empty() {
                    break;
                }
                let (now, after) = piece.split_at(piece.len().min(PARCEL_HEAD_BYTES - head.len()));
                head.extend_from_slice(now);
                piece = after;
                if let Ok(whole) = <&[u8; PARCEL_HEAD_BYTES]>::try_from(head.as_slice()) {
                    let (digest, length) = read_parcel_head(whole);
                    head.clear();
                    current = Some((digest, length, self.contents.incoming()?));
                    // One of no length is whole already.
                    if piece.is_empty() && length > 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Those of these contents that the server has not; it keeps the others for some hours. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, LinkError> {
        let mut missing = Vec::new();
        for part in digests.chunks(DIGESTS_MAX) {
            let part = Digests { digests: part.to_vec() };
            missing.extend(self.call(async |client| client.blob_missing(&part).await)?.digests);
        }
        Ok(missing)
    }

    /// Sends those of these contents, which are here, that the server has not; a small one alone in any case. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn send(&self, digests: &[Digest]) -> Result<(), LinkError> {
        if let [digest] = digests[..]
            && self.contents.file(digest).is_some_and(|file| file.metadata().is_ok_and(|it| it.len() <= UNASKED_BYTES))
        {
            return self.send_together(digests);
        }
        // What has gathered goes before the next large one, so that nothing is sent twice when the server was away.
        let (mut together, mut bytes) = (Vec::new(), 0);
        for digest in self.missing(digests)? {
            let file = self.contents.file(digest).ok_or(LinkError::Absent(digest))?;
            let length = file.metadata()?.len();
            if bytes + length > LARGE_BYTES {
                self.send_together(&std::mem::take(&mut together))?;
                bytes = 0;
            }
            together.push(digest);
            bytes += length;
        }
        self.send_together(&together)
    }

    /// Sends contents, all again if that failed and may be tried again.
    fn send_together(&self, digests: &[Digest]) -> Result<(), LinkError> {
        if digests.is_empty() {
            return Ok(());
        }
        loop {
            let client = self.call(async |client| Ok(client))?;
            let mut sending = Sending::new(client, self);
            let mut sent = Ok(());
            for &digest in digests {
                let length = self.contents.file(digest).ok_or(LinkError::Absent(digest))?.metadata()?.len();
                let body = if length >= LARGE_BYTES {
                    Body::File(self.contents.found(digest).ok_or(LinkError::Absent(digest))?, length)
                } else {
                    Body::Bytes(self.contents.bytes(digest, LARGE_BYTES).ok_or(LinkError::Absent(digest))?)
                };
                sent = sending.add(digest, body);
                if sent.is_err() {
                    break;
                }
            }
            match sent.and_then(|()| sending.flush()) {
                Ok(()) => return Ok(()),
                // Judged, and waited out, as any other call.
                Err(error) => {
                    let mut error = Some(error);
                    self.call(async |_| error_once(&mut error))?;
                }
            }
        }
    }

    /// The keyed cache that fits. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn find_cache(&self, find: &FindCache) -> Result<FoundCache, LinkError> {
        self.call(async |client| client.worker_cache_find(find).await)
    }

    /// Keeps a keyed cache whose content was sent. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn save_cache(&self, save: &SaveCache) -> Result<SavedCache, LinkError> {
        self.call(async |client| client.worker_cache_save(save).await)
    }

    /// Says what attempts left. Blocks.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn save_layers(&self, save: &SaveLayers) -> Result<SavedLayers, LinkError> {
        self.call(async |client| client.worker_layers_save(save).await)
    }

    /// The checkout of a project's source, laid if it is not there; an empty one for a build without files.
    ///
    /// # Errors
    /// A sentence.
    pub async fn checkout(self: &Arc<Self>, project: &str, source: Option<Digest>) -> Result<Checkout, String> {
        if let Some(source) = source
            && let Some(checkout) = self.checkouts.find(project, source)
        {
            return Ok(checkout);
        }
        let link = Arc::clone(self);
        let project = project.to_owned();
        let laid = tokio::task::spawn_blocking(move || link.checkout_now(&project, source));
        laid.await.map_err(|error| error.to_string())?
    }

    fn checkout_now(&self, project: &str, source: Option<Digest>) -> Result<Checkout, String> {
        let source = match source {
            Some(source) => source,
            None => {
                let empty = Manifest { version: api::source::VERSION, ..Manifest::default() };
                let text = serde_json::to_vec(&empty).map_err(|error| error.to_string())?;
                self.contents.put(&text).map_err(|error| LinkError::from(error).to_string())?
            }
        };
        let mut hasher = DefaultHasher::new();
        project.hash(&mut hasher);
        let turn = usize::try_from(hasher.finish() % LAYING_AT_ONCE as u64).unwrap_or(0);
        let _turn = self.laying[turn].lock().unwrap_or_else(PoisonError::into_inner);
        let laid = match self.checkouts.find(project, source) {
            Some(there) => Ok(there),
            None => self.lay(project, source),
        };
        laid.map_err(|error| format!("the files of the build could not be laid: {error}"))
    }

    fn lay(&self, project: &str, digest: Digest) -> Result<Checkout, String> {
        let manifest = self.manifest(digest)?;
        let history = manifest.history.map(|history| self.history(history));
        let source = Source { digest, manifest: &manifest, history };
        self.checkouts.lay(project, source, &self.contents)
    }

    /// The history of a source, with all its packs here. Blocks.
    fn history(&self, document: Digest) -> Result<History, String> {
        self.fetch_now(document).map_err(|error| error.to_string())?;
        let text = self.contents.bytes(document, HISTORY_DOCUMENT_BYTES_MAX);
        let history = laying::read(&text.ok_or("it is too long")?)?;
        for pack in &history.packs {
            self.fetch_now(pack.digest).map_err(|error| error.to_string())?;
        }
        Ok(history)
    }

    /// The manifest of a source, with all its contents here. Blocks.
    ///
    /// # Errors
    /// A sentence.
    pub fn manifest(&self, source: Digest) -> Result<Manifest, String> {
        self.fetch_now(source).map_err(|error| error.to_string())?;
        let text = self.contents.bytes(source, MANIFEST_BYTES_MAX);
        let text = text.ok_or_else(|| "the source's list of files is too long".to_owned())?;
        let wanted = self.checkouts.wanted(&text, &self.contents)?;
        self.fetch_all(&wanted.missing).map_err(|error| error.to_string())?;
        Ok(wanted.manifest)
    }

    /// The folders in which programs are built.
    pub fn evaluations(&self) -> &Evaluations {
        &self.evaluations
    }

    /// Takes away contents, those first that were not used for longest, until there is room. Blocks.
    pub fn sweep_until(&self, has_room: impl Fn() -> bool) {
        self.checkouts.sweep();
        self.contents.sweep_until(has_room);
    }

    /// Takes away what is old and not in use. Blocks.
    pub fn sweep(&self) {
        self.checkouts.sweep();
        if self.contents.is_sweep_due() {
            self.contents.sweep();
        }
    }
}

/// Whether the session that a call was made over is not there any more.
fn is_over(error: &ClientError) -> bool {
    error.is(ProblemKind::Unauthorized) || error.is(ProblemKind::Gone)
}

/// Whether the server said that something in it went wrong, which may go right the next time. A full disk is no such fault.
fn is_fault(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(problem) => problem.status == 500,
        ClientError::Foreign { status, .. } => *status == 500,
        _ => false,
    }
}

/// A failure the first time, then nothing.
fn error_once(error: &mut Option<ClientError>) -> Result<(), ClientError> {
    error.take().map_or(Ok(()), Err)
}
