//! Shells in what a step left: what is asked for, and the frames in which a terminal's bytes travel.
//!
//! A client asks by `POST /builds/{build}/jobs/{job}/shells`, whose answer is a stream of frames to its end; what is typed goes by
//! `POST …/shells/{shell}/input`. The worker that holds the files is told in its session, and makes two calls of its own: it reads what is
//! typed and sends what is printed. The server hands both on as they come, and holds no more than a few pieces of either.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use graph::{AttemptNumber, BuildId, Origin};

use crate::worker::LayersDocument;

/// The most bytes of a frame.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of one post of what is typed.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;
/// The most words of a command.
pub const WORDS_MAX: usize = 1000;
/// The most secrets that are given to one shell.
pub const SECRETS_MAX: usize = 100;
/// How often somebody who has nothing to say says so, in milliseconds.
pub const ALIVE_MS: u64 = 5_000;
/// After so long without a word the other side is taken for gone, in milliseconds.
pub const SILENT_MS: u64 = 30_000;

/// The shell that is wanted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpenShell {
    /// `start`, `failed`, or a step by number (from 1) or name; the job's end if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What runs there; a shell if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Secrets of the job that it is given anew, by name. Values are neither kept nor shown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The terminal before which somebody sits; pipes if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

impl std::fmt::Debug for OpenShell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values are secrets.
        let names: Vec<&String> = self.secrets.keys().collect();
        f.debug_struct("OpenShell")
            .field("at", &self.at)
            .field("command", &self.command)
            .field("secrets", &names)
            .finish()
    }
}

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terminal {
    /// Its kind, as `TERM` has it.
    pub kind: String,
    /// Its size.
    pub size: Size,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// What a worker is told of a shell that it shall open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartShell {
    /// Names it.
    pub shell: String,
    /// The build, as the worker knows it.
    pub build: BuildId,
    /// The attempt whose files are meant.
    pub attempt: AttemptNumber,
    /// What the build was made of.
    pub origin: Origin,
    /// What is wanted.
    pub open: OpenShell,
    /// By what the files can be fetched if the worker has not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersDocument>,
}

/// What a shell is, once it is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Names it.
    pub shell: String,
    /// Which files one sees: `as step 2 (make) left them`.
    pub when: String,
    /// The names of secrets that the job had and the shell has not.
    #[serde(default)]
    pub withheld: Vec<String>,
    /// What is not there without them, in words that `when` says too. A worker of an older version says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<String>,
    /// Whether what is changed there stays.
    pub is_lasting: bool,
}

/// One piece of what travels: a byte of kind, four bytes of length, little end first, and so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Nothing: whoever sends it is there.
    Alive,
    /// What is printed, or typed.
    Bytes(Vec<u8>),
    /// What is printed as errors, where there is no terminal.
    Errors(Vec<u8>),
    /// It is open. The first frame of an answer.
    Opened(Opened),
    /// It was not opened, for this reason.
    Refused(String),
    /// It has ended with this exit code. The last frame of an answer.
    Ended(i32),
    /// The terminal has another size.
    Size(Size),
    /// Nothing more is typed.
    InputEnds,
}

/// What came is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFrame;

impl std::fmt::Display for NoFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the other side said something that is not understood; are both of the same release?")
    }
}

impl std::error::Error for NoFrame {}

impl Frame {
    /// As it travels. A longer one than [`FRAME_BYTES_MAX`] is not understood: whoever has more makes several.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json;
        let number;
        let size;
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Alive => (0, &[]),
            Self::Bytes(bytes) => (1, bytes),
            Self::Errors(bytes) => (2, bytes),
            Self::Opened(opened) => {
                // Our own types serialize to JSON whatever they hold.
                json = serde_json::to_vec(opened).expect("what is told of a shell always serializes");
                (3, &json)
            }
            Self::Refused(text) => (4, text.as_bytes()),
            Self::Ended(code) => {
                number = code.to_le_bytes();
                (5, &number)
            }
            Self::Size(Size { rows, columns }) => {
                let ([r0, r1], [c0, c1]) = (rows.to_le_bytes(), columns.to_le_bytes());
                size = [r0, r1, c0, c1];
                (6, &size)
            }
            Self::InputEnds => (7, &[]),
        };
        let mut encoded = Vec::with_capacity(5 + bytes.len());
        encoded.push(kind);
        encoded.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        encoded.extend_from_slice(bytes);
        encoded
    }

    fn decode(kind: u8, bytes: &[u8]) -> Result<Self, NoFrame> {
        Ok(match kind {
            0 => Self::Alive,
            1 => Self::Bytes(bytes.to_vec()),
            2 => Self::Errors(bytes.to_vec()),
            3 => Self::Opened(serde_json::from_slice(bytes).map_err(|_| NoFrame)?),
            4 => Self::Refused(String::from_utf8_lossy(bytes).into_owned()),
            5 => Self::Ended(i32::from_le_bytes(bytes.try_into().map_err(|_| NoFrame)?)),
            6 => match *bytes {
                [r0, r1, c0, c1] => {
                    Self::Size(Size { rows: u16::from_le_bytes([r0, r1]), columns: u16::from_le_bytes([c0, c1]) })
                }
                _ => return Err(NoFrame),
            },
            7 => Self::InputEnds,
            _ => return Err(NoFrame),
        })
    }
}

/// Reads frames from pieces, however they are cut.
#[derive(Debug, Default)]
pub struct FrameReader {
    pending: Vec<u8>,
}

impl FrameReader {
    /// Takes what came.
    pub fn push(&mut self, piece: &[u8]) {
        self.pending.extend_from_slice(piece);
    }

    /// The next frame that is whole; `None` if more has to come.
    ///
    /// # Errors
    /// [`NoFrame`]; nothing can be read afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, NoFrame> {
        let Some((head, rest)) = self.pending.split_first_chunk::<5>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes([head[1], head[2], head[3], head[4]])).map_err(|_| NoFrame)?;
        if length > FRAME_BYTES_MAX {
            return Err(NoFrame);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let frame = Frame::decode(head[0], &rest[..length])?;
        self.pending.drain(..5 + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_they_are_cut() {
        let size = Size { rows: 300, columns: 2 };
        let (withheld, hidden) = (vec!["T".into()], Some("without files".into()));
        let opened = Opened { shell: "s".into(), when: "now".into(), withheld, hidden, is_lasting: false };
        let frames = [
            Frame::Alive,
            Frame::Bytes(b"out".to_vec()),
            Frame::Errors(Vec::new()),
            Frame::Opened(opened),
            Frame::Refused("no".into()),
            Frame::Ended(-1),
            Frame::Size(size),
            Frame::InputEnds,
        ];
        let encoded: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for cut in [1, 2, 7, encoded.len()] {
            let mut reader = FrameReader::default();
            let mut read = Vec::new();
            for piece in encoded.chunks(cut) {
                reader.push(piece);
                read.extend(std::iter::from_fn(|| reader.next_frame().expect("frames")));
            }
            assert_eq!(read, frames, "in pieces of {cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_told() {
        for bytes in [&[9, 0, 0, 0, 0][..], &[1, 1, 0, 1, 0], &[5, 1, 0, 0, 0, 7], &[3, 1, 0, 0, 0, b'{']] {
            let mut reader = FrameReader::default();
            reader.push(bytes);
            assert_eq!(reader.next_frame(), Err(NoFrame), "{bytes:?}");
        }
    }
}
