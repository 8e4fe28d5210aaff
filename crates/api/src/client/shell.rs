//! Shells in what steps left, as those call who sit before them and the workers that hold the files.

use bytes::Bytes;
use futures_util::Stream;
use graph::BuildId;

use super::{Client, ClientError};
use crate::routes::BYTES;
use crate::shell::{Frame, FrameReader, OpenShell};

/// The frames of one side.
pub struct Frames {
    client: Client,
    response: reqwest::Response,
    reader: FrameReader,
}

impl Frames {
    /// The next frame; `None` at the end. Nothing is lost if it is dropped before it is done.
    ///
    /// # Errors
    /// [`ClientError::Broken`]; [`ClientError::Body`] if what comes is no frame.
    pub async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            let frame = self.reader.next_frame().map_err(|error| ClientError::Body(std::io::Error::other(error)))?;
            if frame.is_some() {
                return Ok(frame);
            }
            match self.response.chunk().await.map_err(|error| self.client.broken(error))? {
                Some(piece) => self.reader.push(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// All calls fail as [`ClientError`] says; none panics, none is repeated by itself.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Opens a shell; its frames. Dropped, it is ended.
    pub async fn shell_open(&self, build: BuildId, job: &str, open: &OpenShell) -> Result<Frames, ClientError> {
        let response = self.call("shell_open", &[&build, &job]).json(open).untimed().send().await?;
        Ok(Frames { client: self.clone(), response, reader: FrameReader::default() })
    }

    /// Sends what was typed, as frames. Posts are numbered from 0; one that was taken already is not taken again.
    pub async fn shell_input(
        &self,
        (build, job, shell): (BuildId, &str, &str),
        sequence: u64,
        frames: Bytes,
    ) -> Result<(), ClientError> {
        let call = self.call("shell_input", &[&build, &job, &shell]).query("sequence", Some(sequence));
        call.bytes(BYTES, frames).repeatable().done().await
    }

    /// What is typed into a shell of this worker.
    pub async fn worker_shell_input(&self, shell: &str) -> Result<Frames, ClientError> {
        let response = self.call("worker_shell_input", &[&shell]).once().await?;
        Ok(Frames { client: self.clone(), response, reader: FrameReader::default() })
    }

    /// Sends what a shell of this worker prints, as it comes, to its end.
    pub async fn worker_shell_output(
        &self,
        shell: &str,
        pieces: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let call = self.call("worker_shell_output", &[&shell]);
        call.stream::<serde::de::IgnoredAny>(BYTES, reqwest::Body::wrap_stream(pieces)).await.map(drop)
    }
}
