//! Contents on their way to a server: small ones many in a parcel, large ones as streams that are read as they are sent.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use api::blob::{PARCEL_HEAD_BYTES, parcel_head};
use api::client::{Client, ClientError, Content};
use bytes::Bytes;
use graph::Digest;

/// From this length on a content is a parcel of its own.
pub const LARGE_BYTES: u64 = 4 << 20;

/// How large a parcel of small contents becomes.
const PARCEL_BYTES: usize = 4 << 20;

/// How much of a file is read at once.
const PIECE_BYTES: usize = 1 << 20;

/// What can wait for a future outside of async code.
pub trait Blocks {
    /// Waits; `None` if it is told to wait no more.
    fn block<F: Future>(&self, future: F) -> Option<F::Output>;
}

impl Blocks for tokio::runtime::Runtime {
    fn block<F: Future>(&self, future: F) -> Option<F::Output> {
        Some(self.block_on(future))
    }
}

/// Waits were ended.
fn ended() -> ClientError {
    ClientError::Body(io::Error::new(io::ErrorKind::Interrupted, "the sender is ending"))
}

/// One content.
pub enum Body {
    /// In memory.
    Bytes(Vec<u8>),
    /// A file of this length.
    File(PathBuf, u64),
}

/// Sends contents one after the other.
pub struct Sending<'b, B> {
    client: Client,
    blocks: &'b B,
    parcel: Vec<u8>,
    /// What was sent.
    pub bytes: u64,
}

impl<'b, B: Blocks> Sending<'b, B> {
    /// Nothing is sent yet.
    pub fn new(client: Client, blocks: &'b B) -> Self {
        Self { client, blocks, parcel: Vec::new(), bytes: 0 }
    }

    /// Sends a content, maybe together with the next.
    ///
    /// # Errors
    /// As the client says.
    pub fn add(&mut self, digest: Digest, body: Body) -> Result<(), ClientError> {
        match body {
            Body::File(path, bytes) => {
                let file = File::open(path).map_err(ClientError::Body)?;
                let content = Content { digest, bytes, pieces: Box::pin(pieces(file, bytes)) };
                let sent = self.blocks.block(self.client.blob_put(futures_util::stream::once(async move { content })));
                sent.ok_or_else(ended)??;
                self.bytes += bytes;
                Ok(())
            }
            Body::Bytes(content) => {
                if self.parcel.len() + PARCEL_HEAD_BYTES + content.len() > PARCEL_BYTES {
                    self.flush()?;
                }
                self.parcel.extend_from_slice(&parcel_head(digest, content.len() as u64));
                self.parcel.extend_from_slice(&content);
                self.bytes += content.len() as u64;
                Ok(())
            }
        }
    }

    /// Sends what has gathered.
    ///
    /// # Errors
    /// As the client says.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        if self.parcel.is_empty() {
            return Ok(());
        }
        let parcel = Bytes::from(std::mem::take(&mut self.parcel));
        self.blocks.block(self.client.blob_put_bytes(parcel)).ok_or_else(ended)?.map(drop)
    }
}

/// The first bytes of a file in pieces, read off the thread that sends them.
fn pieces(file: File, bytes: u64) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold((file, bytes), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)];
            let length = file.read(&mut piece)?;
            piece.truncate(length);
            Ok::<_, io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, left))))
    })
}
