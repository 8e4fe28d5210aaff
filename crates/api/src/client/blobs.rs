//! Contents on their way: parcels and single blobs, read and written as streams.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use graph::{BuildId, Digest};

use super::{Client, ClientError};
use crate::blob::{Digests, Stored, parcel_head};
use crate::routes::BYTES;

/// One blob to be sent.
pub struct Content {
    /// Its name.
    pub digest: Digest,
    /// Its length; what is read must have exactly this.
    pub bytes: u64,
    /// What it holds, in pieces.
    pub pieces: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

impl Content {
    /// A blob that is in memory.
    #[must_use]
    pub fn of(digest: Digest, content: Bytes) -> Self {
        let bytes = content.len() as u64;
        Self { digest, bytes, pieces: Box::pin(futures_util::stream::once(async move { Ok(content) })) }
    }
}

/// A body that comes in pieces: a blob, an artifact, or a parcel of blobs. One piece is in memory at a time.
pub struct Parcel {
    client: Client,
    response: reqwest::Response,
}

impl Parcel {
    pub(super) fn new(client: &Client, response: reqwest::Response) -> Self {
        Self { client: client.clone(), response }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`]: what came so far is not all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|error| self.client.broken(error))
    }

    /// How many bytes come, if that is known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// All of it, if it has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`ClientError::Broken`]; [`ClientError::Body`] if it is longer.
    pub async fn all(mut self, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if all.len() + piece.len() > bytes_max {
                let text = format!("the answer is longer than {bytes_max} bytes");
                return Err(ClientError::Body(io::Error::new(io::ErrorKind::FileTooLarge, text)));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// All calls fail as [`ClientError`] says; none panics.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Which of these the server has not, in the same order.
    pub async fn blob_missing(&self, digests: &Digests) -> Result<Digests, ClientError> {
        // It only looks: as safe to repeat as a GET.
        self.call("blob_missing", &[]).json(digests).repeatable().answer().await
    }

    /// Sends blobs in one parcel, read as it is sent. Not repeated by itself: a stream is read once; sending what is there
    /// already does no harm.
    pub async fn blob_put(
        &self,
        contents: impl Stream<Item = Content> + Send + 'static,
    ) -> Result<Stored, ClientError> {
        let pieces = contents.flat_map(|content| {
            let head = Bytes::copy_from_slice(&parcel_head(content.digest, content.bytes));
            futures_util::stream::once(async move { Ok(head) }).chain(content.pieces)
        });
        self.call("blob_put", &[]).stream(BYTES, reqwest::Body::wrap_stream(pieces)).await
    }

    /// Sends a parcel that is in memory.
    pub async fn blob_put_bytes(&self, parcel: Bytes) -> Result<Stored, ClientError> {
        self.call("blob_put", &[]).bytes(BYTES, parcel).repeatable().answer().await
    }

    /// A parcel of those blobs that the server has.
    pub async fn blob_fetch(&self, digests: &Digests) -> Result<Parcel, ClientError> {
        let response = self.call("blob_fetch", &[]).json(digests).repeatable().send().await?;
        Ok(Parcel::new(self, response))
    }

    /// One blob, from byte `from` on.
    pub async fn blob_get(&self, digest: Digest, from: u64) -> Result<Parcel, ClientError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.call("blob_get", &[&digest]).header("range", range).send().await?;
        Ok(Parcel::new(self, response))
    }

    /// An artifact of a build, from byte `from` on: an archive (tar).
    pub async fn artifact_get(&self, build: BuildId, digest: Digest, from: u64) -> Result<Parcel, ClientError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let response = self.call("artifact_get", &[&build, &digest]).header("range", range).send().await?;
        Ok(Parcel::new(self, response))
    }
}
