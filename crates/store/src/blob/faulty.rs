//! Blobs that fail on purpose: for storms, and for tests of those who use blobs.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use graph::{Digest, Timestamp};

use super::{BlobError, Blobs, Mode, PutFile, StoredBlob};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobFault {
    /// Nothing is done: no space is left.
    Full,
    /// Nothing is done: the system refuses.
    Io,
    /// Nothing is done: the connection breaks before the call arrives.
    Lost,
    /// It is done, and the connection breaks before the answer arrives.
    AnswerLost,
    /// It is done after so long.
    Slow(Duration),
    /// Of what is read, the connection brings only so many bytes; other calls are done.
    Cut(u64),
}

/// Passes calls on to other blobs, and fails those that `plan` says. `plan` gets the name of the call.
pub struct FaultyBlobs<B, P> {
    inner: B,
    plan: P,
}

impl<B: Blobs, P: Fn(&'static str) -> Option<BlobFault> + Send + Sync> FaultyBlobs<B, P> {
    /// Wraps the blobs.
    pub const fn new(inner: B, plan: P) -> Self {
        Self { inner, plan }
    }

    fn call<T>(
        &self,
        name: &'static str,
        work: impl FnOnce(&B) -> Result<T, BlobError>,
    ) -> Result<(T, Option<u64>), BlobError> {
        let lost = |kind: ErrorKind| BlobError::Io(io::Error::new(kind, "a fault on purpose"));
        match (self.plan)(name) {
            None => {}
            Some(BlobFault::Full) => return Err(BlobError::Full(ErrorKind::StorageFull.into())),
            Some(BlobFault::Io) => return Err(lost(ErrorKind::Other)),
            Some(BlobFault::Lost) => return Err(lost(ErrorKind::ConnectionReset)),
            Some(BlobFault::AnswerLost) => {
                work(&self.inner)?;
                return Err(lost(ErrorKind::ConnectionReset));
            }
            Some(BlobFault::Slow(delay)) => std::thread::sleep(delay),
            Some(BlobFault::Cut(bytes)) => return Ok((work(&self.inner)?, Some(bytes))),
        }
        Ok((work(&self.inner)?, None))
    }
}

/// Content whose connection breaks after some bytes.
struct CutShort {
    content: Box<dyn Read + Send>,
    left: u64,
}

impl Read for CutShort {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(ErrorKind::ConnectionReset, "a fault on purpose"));
        }
        let room = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let length = self.content.read(&mut buffer[..room])?;
        self.left -= length as u64;
        Ok(length)
    }
}

fn cut((content, bytes): (Box<dyn Read + Send>, Option<u64>)) -> Box<dyn Read + Send> {
    match bytes {
        Some(left) => Box::new(CutShort { content, left }),
        None => content,
    }
}

/// Each call of the trait passed on in the same way.
macro_rules! pass_on {
    ($(fn $name:ident(&self $(, $argument:ident: $kind:ty)*) -> $answer:ty;)*) => {
        impl<B: Blobs, P: Fn(&'static str) -> Option<BlobFault> + Send + Sync> Blobs for FaultyBlobs<B, P> {
            $(fn $name(&self $(, $argument: $kind)*) -> Result<$answer, BlobError> {
                Ok(self.call(stringify!($name), |inner| inner.$name($($argument),*))?.0)
            })*

            fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError> {
                self.call("open", |inner| inner.open(digest)).map(cut)
            }

            fn open_range(&self, digest: Digest, range: Range<u64>) -> Result<Box<dyn Read + Send>, BlobError> {
                self.call("open_range", |inner| inner.open_range(digest, range)).map(cut)
            }
        }
    };
}

pass_on! {
    fn put(&self, bytes: &[u8]) -> Digest;
    fn put_file(&self, path: &Path) -> PutFile;
    fn get(&self, digest: Digest, bytes_max: u64) -> Vec<u8>;
    fn length(&self, digest: Digest) -> u64;
    fn renew(&self, digest: Digest) -> bool;
    fn delete_stale(&self, digest: Digest, since: Timestamp) -> bool;
    fn contains(&self, digest: Digest) -> bool;
    fn delete(&self, digest: Digest) -> ();
    fn page(&self, after: Option<Digest>, limit: usize) -> Vec<StoredBlob>;
    fn list(&self) -> Vec<StoredBlob>;
    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> ();
    fn marked(&self) -> Option<String>;
    fn mark(&self, owner: &str) -> ();
}
