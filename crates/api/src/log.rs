//! What steps printed: how much there is, a range of it, and what a search finds.

use graph::BuildId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The most lines that one call gives where a page is asked for; a stream has no such bound.
pub const LINES_MAX: u64 = 100_000;
/// How many hits a search gives when nobody says.
pub const HITS_DEFAULT: u32 = 100;
/// The most hits of one search.
pub const HITS_MAX: u32 = 1000;
/// The most parts of a spread.
pub const PARTS_MAX: u32 = 500;
/// The longest that a search may be asked to take, in milliseconds; it is the server's own bound.
pub const WITHIN_MS_MAX: u32 = 10_000;
/// The longest regular expression in bytes.
pub const REGEX_BYTES_MAX: usize = 1000;

/// The most groups of one step that are told.
pub const GROUPS_MAX: usize = 500;
/// How many levels of groups within groups are told apart; those further in stand at the innermost of these.
pub const GROUP_LEVELS_MAX: u32 = 8;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// Ropewalk itself.
    Note,
}

/// What the steps of one attempt printed, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogSummary {
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The attempt.
    pub attempt: u32,
    /// The steps that printed something, in order.
    pub steps: Vec<StepLog>,
}

/// What one step printed, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepLog {
    /// The step's index in its job, from 0.
    pub step: u16,
    /// How many lines there are; the last may be unfinished.
    pub lines: u64,
    /// How many bytes, before compression, all streams together.
    pub bytes: u64,
    /// When the first of them came.
    #[serde(default)]
    pub first: Time,
    /// When the last of them came.
    #[serde(default)]
    pub last: Time,
    /// Whether more may come.
    pub state: LogState,
}

/// Whether more of a log may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// It may.
    Open,
    /// It is whole.
    Closed,
    /// Its end is missing, and nobody writes it any more.
    Torn,
}

/// How a log is written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines of text as they were printed, gaps told in a line of their own.
    #[default]
    Text,
    /// One [`LogLine`] or [`LogGap`] a line.
    Ndjson,
    /// Exactly the bytes, by byte range.
    Raw,
}

impl LogFormat {
    /// The word in queries.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Ndjson => "ndjson",
            Self::Raw => "raw",
        }
    }
}

/// One object of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogItem {
    /// A line, or a piece of one.
    Line(LogLine),
    /// Something is lost.
    Gap(LogGap),
}

/// A line, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// Its number within the step, from 0.
    pub number: u64,
    /// Who wrote it.
    pub stream: LogStream,
    /// When.
    pub time: Time,
    /// The text without the line's end; bytes that are not UTF-8 are replaced.
    pub line: String,
    /// The bytes of the text, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// It goes on in the next object of this stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
    /// The log that it was compared with (`against`) says the same near this place, apart from numbers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same: bool,
}

/// A part of a log that is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogGap {
    /// The number of the line before which it is.
    pub number: u64,
    /// Why, for people.
    pub text: String,
    /// How many lines, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u64>,
    /// How many bytes, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Why.
    #[serde(default)]
    pub cause: LogGapCause,
}

/// Why a part of a log is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogGapCause {
    /// It was not written, or cannot be found.
    #[default]
    Missing,
    /// It is there, and is not what was written.
    Damaged,
    /// Whoever wrote it ended before its end.
    CutShort,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogHits {
    /// The lines that match, in order.
    pub hits: Vec<LogHit>,
    /// Parts of the log that could not be searched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<LogGap>,
    /// Where to go on: the `cursor` of the next call, also if fewer lines than asked for were found. Absent if the log's end was
    /// reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where in the log all lines that match are, if `parts` was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<HitSpread>,
}

/// How the lines that match are spread over a log, for a picture of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HitSpread {
    /// How many lines the log had.
    pub lines: u64,
    /// How many of them, from the first on, were searched: all, unless the search's bounds ended it.
    pub searched: u64,
    /// How many lines match.
    pub hits: u64,
    /// The same for each part of the log, all parts having the same number of lines but for the last ones.
    pub parts: Vec<u64>,
}

/// One line that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogHit {
    /// The line's number within the step, from 0.
    pub number: u64,
    /// Who wrote it.
    pub stream: LogStream,
    /// When.
    pub time: Time,
    /// The line as it reads, without colours, or what stands around the match in a long one; bytes that are not UTF-8 are
    /// replaced.
    pub text: String,
}

/// The groups that the lines of one step make: what programs print so that people find their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogGroups {
    /// The groups in the order of their first lines, so that those within a group follow it. At most [`GROUPS_MAX`].
    pub groups: Vec<LogGroup>,
    /// There are more, or not all of the log was looked at.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A group of lines: of `::group::TITLE` to `::endgroup::` (GitHub, also `##[group]`), or from a heading `--- TITLE`, `+++ TITLE` or `~~~ TITLE` to the
/// next one (Buildkite). Groups of the first kind hold others, those of the second end where the next begins. One that is not ended ends with the
/// group around it, or with the step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogGroup {
    /// What it is called. Text from outside, one line.
    pub title: String,
    /// How it stands when its log is opened.
    pub fold: GroupFold,
    /// How many groups are around it, from 0; at most one less than [`GROUP_LEVELS_MAX`], also of one that is further in.
    pub depth: u32,
    /// The number of its first line, which names it, from 0.
    pub line: u64,
    /// The number of the line after its last.
    pub end: u64,
}

/// How a group stands when its log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupFold {
    /// Its lines are folded away.
    Closed,
    /// Its lines are seen: it asked for it (`+++`, `^^^ +++`), or it is the last and no other did.
    Open,
    /// Folded away, and of little weight (`~~~`).
    Quiet,
}

/// The schema of how many parts a spread has.
pub fn parts_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": PARTS_MAX })
}

/// The schema of how long a search may take.
pub fn within_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": WITHIN_MS_MAX })
}

/// The schema of a log that lines are compared with.
pub fn against_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "pattern": r"^[0-9]{1,19}\.[0-9]{1,9}$" })
}

/// The schema of a regular expression.
pub fn regex_shape(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": REGEX_BYTES_MAX })
}
