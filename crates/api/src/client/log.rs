//! Logs as streams of lines, of objects or of bytes.

use bytes::Bytes;
use graph::BuildId;

use super::{Client, ClientError, Parcel};
use crate::log::{LogFormat, LogItem};

/// Which part of a step's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWanted {
    /// The number of the first line.
    pub from: Option<u64>,
    /// How many lines at most.
    pub count: Option<u64>,
    /// The last lines only, so many; instead of `from`.
    pub tail: Option<u64>,
    /// Go on with what is still to come, until the step has ended.
    pub follow: bool,
}

/// A log's bytes as they come. One piece is in memory at a time.
pub struct LogBytes(Parcel);

impl LogBytes {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.0.next().await
    }
}

/// A log's lines and gaps as they come.
pub struct LogItems {
    parcel: Parcel,
    pending: Vec<u8>,
    /// How much of `pending` has been given on.
    read: usize,
}

impl LogItems {
    /// The next line or gap; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`], [`ClientError::Unreadable`].
    pub async fn next(&mut self) -> Result<Option<LogItem>, ClientError> {
        loop {
            if let Some(end) = self.pending[self.read..].iter().position(|byte| *byte == b'\n') {
                let line = &self.pending[self.read..self.read + end];
                let item = serde_json::from_slice(line)
                    .map_err(|source| ClientError::Unreadable { operation: "log_read", source })?;
                self.read += end + 1;
                return Ok(Some(item));
            }
            self.pending.drain(..self.read);
            self.read = 0;
            match self.parcel.next().await? {
                Some(piece) => self.pending.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// All calls fail as [`ClientError`] says; none panics.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// What a step printed, as text with gaps told.
    pub async fn log_text(
        &self,
        build: BuildId,
        attempt: u32,
        step: u16,
        wanted: &LogWanted,
    ) -> Result<LogBytes, ClientError> {
        self.log_call(build, attempt, step, wanted, LogFormat::Text, None).await.map(LogBytes)
    }

    /// What a step printed, line by line.
    pub async fn log_items(
        &self,
        build: BuildId,
        attempt: u32,
        step: u16,
        wanted: &LogWanted,
    ) -> Result<LogItems, ClientError> {
        let parcel = self.log_call(build, attempt, step, wanted, LogFormat::Ndjson, None).await?;
        Ok(LogItems { parcel, pending: Vec::new(), read: 0 })
    }

    /// Exactly the bytes that a step printed, from byte `from` on.
    pub async fn log_raw(&self, build: BuildId, attempt: u32, step: u16, from: u64) -> Result<LogBytes, ClientError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.log_call(build, attempt, step, &LogWanted::default(), LogFormat::Raw, range).await.map(LogBytes)
    }

    async fn log_call(
        &self,
        build: BuildId,
        attempt: u32,
        step: u16,
        wanted: &LogWanted,
        format: LogFormat,
        range: Option<String>,
    ) -> Result<Parcel, ClientError> {
        let call = self
            .call("log_read", &[&build, &attempt, &step])
            .query("format", Some(format.word()))
            .query("from", wanted.from)
            .query("count", wanted.count)
            .query("tail", wanted.tail)
            .query("follow", wanted.follow.then_some("true"))
            .header("range", range);
        Ok(Parcel::new(self, call.send().await?))
    }
}
