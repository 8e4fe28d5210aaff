//! Requests to an object store: one thread does the network, callers wait.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::blob::BlobError;

/// How often a request is sent at most.
pub const REQUESTS_MAX: u32 = 6;

/// The pause after the first failure; it doubles after each.
const PAUSE: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection over which nothing comes for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The most bytes of an answer that is not content: lists of a thousand objects have less than a megabyte.
const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an error quotes of an answer.
const QUOTE_BYTES_MAX: usize = 300;
/// How much content is gathered before it is handed to the thread that waits.
const PIECE_BYTES: usize = 256 * 1024;

/// What a request carries. Cheap to clone, for it may be sent again.
pub(super) type Body = bytes::Bytes;

#[derive(Clone)]
pub(super) struct Transport {
    client: Client,
    network: Arc<Network>,
}

/// The thread; it ends when this is dropped.
struct Network {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Transport {
    pub fn start() -> Result<Self, BlobError> {
        // Whoever comes first decides; there is only this one in the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| BlobError::Io(io::Error::other(error.without_url())))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("blobs-s3".into()).spawn(move || {
            // Only its closing is waited for.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { client, network: Arc::new(Network { handle, _end: end }) })
    }

    /// Has it done by the thread of the network.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (sender, receiver) = sync_channel(1);
        self.network.handle.spawn(async move { sender.send(work.await) });
        receiver.recv().map_err(|_| io::Error::other("the thread of the object store is gone"))
    }

    /// Sends the request until it is answered with something else than "later".
    pub fn request(
        &self,
        method: &Method,
        url: &dyn Fn() -> Url,
        headers: &[(&'static str, String)],
        body: &Body,
    ) -> Result<Answer, BlobError> {
        let mut pause = PAUSE;
        for tried in 1.. {
            let mut request = self.client.request(method.clone(), url());
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            if !matches!(*method, Method::GET | Method::HEAD) {
                request = request.header("content-length", body.len()).body(body.clone());
            }
            let last = tried == REQUESTS_MAX;
            match self.wait(async move { request.send().await })? {
                Ok(response) if is_later(response.status()) && !last => {}
                Ok(response) => {
                    let status = response.status().as_u16();
                    return Ok(Answer {
                        status,
                        rest: Rest::More(response),
                        piece: Vec::new(),
                        at: 0,
                        transport: self.clone(),
                    });
                }
                Err(error) if last || error.is_builder() => return Err(refused(error)),
                Err(_) => {}
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the last try returns")
    }
}

fn is_later(status: StatusCode) -> bool {
    // 501 says that something is never going to be done.
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED) || status == StatusCode::TOO_MANY_REQUESTS
}

/// Addresses carry signatures, and are not told.
fn refused(error: reqwest::Error) -> BlobError {
    let kind = if error.is_timeout() { ErrorKind::TimedOut } else { ErrorKind::ConnectionReset };
    BlobError::Io(io::Error::new(kind, error.without_url()))
}

/// What comes after the content that is at hand.
enum Rest {
    More(reqwest::Response),
    End,
    Broken(reqwest::Error),
}

pub(super) struct Answer {
    pub status: u16,
    rest: Rest,
    piece: Vec<u8>,
    at: usize,
    transport: Transport,
}

impl Answer {
    /// The answer, if its status is one of these.
    pub fn expected(mut self, statuses: &[u16]) -> Result<Self, BlobError> {
        if statuses.contains(&self.status) {
            return Ok(self);
        }
        let mut quote = vec![0; QUOTE_BYTES_MAX];
        let length = self.read(&mut quote).unwrap_or(0);
        let quote = String::from_utf8_lossy(&quote[..length]).replace(['\r', '\n'], " ");
        let kind = match self.status {
            401 | 403 => ErrorKind::PermissionDenied,
            507 => ErrorKind::StorageFull,
            _ => ErrorKind::Other,
        };
        let text = format!("the object store answered {}: {}", self.status, quote.trim());
        Err(io::Error::new(kind, text).into())
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let Rest::More(response) = &self.rest else { return None };
        Some(response.headers().get(name)?.to_str().ok()?.to_owned())
    }

    /// The whole content, which is no blob.
    pub fn text(self) -> Result<String, BlobError> {
        let mut text = String::new();
        let mut content = self.take(TEXT_BYTES_MAX as u64);
        content.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let response = match std::mem::replace(&mut self.rest, Rest::End) {
                Rest::More(response) => response,
                Rest::End => return Ok(0),
                Rest::Broken(error) => return Err(io::Error::new(ErrorKind::ConnectionReset, error.without_url())),
            };
            (self.piece, self.rest) = self.transport.wait(piece(response))?;
            if self.piece.is_empty() {
                self.at = 0;
                return self.read(buffer);
            }
            self.at = 0;
        }
        let length = buffer.len().min(self.piece.len() - self.at);
        buffer[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// The next content, and what comes after it. Empty only if nothing does.
async fn piece(mut response: reqwest::Response) -> (Vec<u8>, Rest) {
    let mut piece = Vec::new();
    while piece.len() < PIECE_BYTES {
        match response.chunk().await {
            Ok(Some(chunk)) => piece.extend_from_slice(&chunk),
            Ok(None) => return (piece, Rest::End),
            Err(error) => return (piece, Rest::Broken(error)),
        }
    }
    (piece, Rest::More(response))
}
