//! A worker's side of its conversation with the server.

use bytes::Bytes;

use super::{Client, ClientError};
use crate::routes::BYTES;
use crate::worker::{
    Challenge, FindCache, FoundCache, Hello, Join, LINE_BYTES_MAX, SaveCache, SaveLayers, SavedCache, SavedLayers,
    Taken, ToWorker,
};

/// The server's side of a session, line by line. Dropped, the connection is closed; the session goes on until another
/// takes its place or the worker is silent for too long.
pub struct Session {
    client: Client,
    response: reqwest::Response,
    pending: Vec<u8>,
    /// How much of `pending` has been given on.
    read: usize,
}

impl Session {
    /// The next line; `None` if the server ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Broken`]; [`ClientError::Unreadable`] if a line is not understood or longer than
    /// [`LINE_BYTES_MAX`].
    pub async fn next(&mut self) -> Result<Option<ToWorker>, ClientError> {
        loop {
            if let Some(end) = self.pending[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = &self.pending[self.read..self.read + end];
                let said = read(line)?;
                self.read += end + 1;
                return Ok(Some(said));
            }
            self.pending.drain(..self.read);
            self.read = 0;
            if self.pending.len() > LINE_BYTES_MAX {
                return read(&self.pending).map(Some);
            }
            match self.response.chunk().await.map_err(|error| self.client.broken(error))? {
                Some(piece) => self.pending.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

fn read(line: &[u8]) -> Result<ToWorker, ClientError> {
    serde_json::from_slice(line).map_err(|source| ClientError::Unreadable { operation: "worker_session", source })
}

/// All calls fail as [`ClientError`] says; none panics. None but `worker_hello` is repeated by itself: the agent knows
/// better when.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// A challenge, under the worker's token.
    pub async fn worker_hello(&self, hello: &Hello) -> Result<Challenge, ClientError> {
        self.call("worker_hello", &[]).json(hello).answer().await
    }

    /// Opens a session, under the worker's token. Its secret, in the first line, is the token of what follows
    /// ([`Client::with_token`]).
    pub async fn worker_session(&self, join: &Join) -> Result<Session, ClientError> {
        let response = self.call("worker_session", &[]).json(join).send().await?;
        Ok(Session { client: self.clone(), response, pending: Vec::new(), read: 0 })
    }

    /// Says what waits to be said: sections, as [`Taken`] describes them.
    pub async fn worker_outbox(&self, sections: Bytes) -> Result<Taken, ClientError> {
        self.call("worker_outbox", &[]).bytes(BYTES, sections).answer().await
    }

    /// Finds a keyed directory for a job.
    pub async fn worker_cache_find(&self, find: &FindCache) -> Result<FoundCache, ClientError> {
        self.call("worker_cache_find", &[]).json(find).repeatable().answer().await
    }

    /// Keeps a keyed directory of a job.
    pub async fn worker_cache_save(&self, save: &SaveCache) -> Result<SavedCache, ClientError> {
        self.call("worker_cache_save", &[]).json(save).repeatable().answer().await
    }

    /// Keeps what attempts left.
    pub async fn worker_layers_save(&self, save: &SaveLayers) -> Result<SavedLayers, ClientError> {
        self.call("worker_layers_save", &[]).json(save).repeatable().answer().await
    }
}
