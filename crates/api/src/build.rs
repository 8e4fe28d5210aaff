//! Builds: what lists and pages show of them, and what asks for one, cancels one or tries one again.

use std::collections::{BTreeMap, BTreeSet};

use graph::{BuildId, Digest, Severity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Event, EventWanted, EventWord};
use crate::job::Waiting;
use crate::time::Time;

/// The most jobs that one call names.
pub const JOBS_NAMED_MAX: usize = 1000;
/// The longest reason in bytes.
pub const REASON_BYTES_MAX: usize = 1000;

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// Names it on this server, over all projects.
    #[schemars(with = "u64")]
    pub id: BuildId,
    /// Its project; empty if it belongs to none.
    pub project: String,
    /// Its number in the project, from 1; absent if it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The pipeline, as it was asked for.
    pub pipeline: String,
    /// The pipeline's own name; empty until it is evaluated, or if it has none.
    pub name: String,
    /// What happened.
    pub event: Event,
    /// The digest of the manifest that names every file that is built; told of one build, to whoever may submit builds of its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DigestText>")]
    pub source: Option<Digest>,
    /// Whom the queue charges.
    pub client: String,
    /// The build that it tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub retry_of: Option<BuildId>,
    /// When it was asked for.
    pub created: Time,
    /// When its first attempt was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How it ended, or that it has not.
    pub verdict: VerdictWord,
    /// The same with the reason, for people.
    pub text: String,
    /// The job because of which it failed or diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Who asked first that it be canceled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canceled_by: Option<String>,
    /// The jobs of its graph as it stands, mere barriers (`stage:NAME`, `wait:1`) aside.
    pub jobs: u64,
    /// How they ended so far.
    pub counts: Counts,
    /// How many errors the last evaluation reported.
    pub errors: u64,
    /// How many warnings the last evaluation reported.
    pub warnings: u64,
    /// The gates that wait for an answer.
    pub open_gates: u64,
    /// Why no worker asks its pipeline's program, though it is to be asked, as a sentence; told of one build. Absent if there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
}

/// A build in short: what a bar of it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildBrief {
    /// Names it on this server, over all projects.
    #[schemars(with = "u64")]
    pub id: BuildId,
    /// Its number in the project, from 1; absent if it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The branch that it is of; absent if it is of a pull request or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// When it was asked for.
    pub created: Time,
    /// When its first attempt was leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How it ended, or that it has not.
    pub verdict: VerdictWord,
    /// The same with the reason, for people.
    pub text: String,
    /// The gates that wait for an answer.
    pub open_gates: u64,
}

impl From<&Build> for BuildBrief {
    fn from(build: &Build) -> Self {
        let of_branch = build.event.pull_request.is_none() && build.event.tag.is_none();
        Self {
            id: build.id,
            number: build.number,
            branch: build.event.branch.clone().filter(|_| of_branch),
            created: build.created,
            started: build.started,
            finished: build.finished,
            verdict: build.verdict,
            text: build.text.clone(),
            open_gates: build.open_gates,
        }
    }
}

/// A digest as 64 lower-case hexadecimal digits: BLAKE3.
#[derive(JsonSchema)]
#[schemars(rename = "Digest")]
pub struct DigestText(#[schemars(regex(pattern = "^[0-9a-f]{64}$"))] pub String);

/// How a build stands, without the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// It has not ended.
    Running,
    /// Every required job passed or was skipped.
    Passed,
    /// A required job failed, or the pipeline is wrong.
    Failed,
    /// Somebody canceled it.
    Canceled,
    /// An evaluation changed or dropped a job that had begun.
    Diverged,
}

impl VerdictWord {
    /// The word, as it travels.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Diverged => "diverged",
        }
    }
}

impl From<&graph::Verdict> for VerdictWord {
    fn from(verdict: &graph::Verdict) -> Self {
        match verdict {
            graph::Verdict::Running => Self::Running,
            graph::Verdict::Passed { .. } => Self::Passed,
            graph::Verdict::Failed { .. } => Self::Failed,
            graph::Verdict::Canceled { .. } => Self::Canceled,
            graph::Verdict::Diverged { .. } => Self::Diverged,
        }
    }
}

/// How many jobs of a build ended how. A job counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Passed, those with an earlier result among them.
    pub passed: u64,
    /// Failed, other than by being canceled.
    pub failed: u64,
    /// Canceled.
    pub canceled: u64,
    /// Skipped.
    pub skipped: u64,
    /// Of all these, those that took an earlier result.
    pub reused: u64,
}

/// Which builds a list holds; what is absent lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BuildFilter {
    /// Of this project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Of events on this branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Of events with this commit, or one that begins with these 7 or more hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Of events of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventWord>,
    /// That ended so, or have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictWord>,
    /// Of the pipeline of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Whose message, branch, tag, actor, commit or number holds this text, in any case of letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// Older than this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub before: Option<BuildId>,
}

/// Asks for a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The project that it belongs to. A token that may submit to it makes it, should it not be there.
    #[schemars(regex(pattern = crate::project::NAME_PATTERN))]
    pub project: String,
    /// The digest of the manifest of all files ([`crate::source::Manifest`]); its blobs have been sent before.
    #[schemars(with = "DigestText")]
    pub source: Digest,
    /// What happened.
    #[serde(default)]
    pub event: EventWanted,
    /// The pipeline, by its path below the project's folder; found by itself if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pipeline: Option<String>,
    /// The pool of jobs that name none; if it is not said and the token is for one pool alone, that one, else the default pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub pool: Option<String>,
    /// How it is to run.
    #[serde(default)]
    pub options: SubmitOptions,
}

/// How a build is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitOptions {
    /// The ids or full names of the jobs wanted, with all they need; all if empty.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(length(max = 1000))]
    pub only: BTreeSet<String>,
    /// Whether the first failure of a required job stops the rest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
    /// Whether it goes before builds that are not urgent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// Whether a build that is there already for the same pipeline, files and inputs may stand for this one. Yes if not
    /// said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<bool>,
}

/// The build that stands for a request, durably kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// Its project.
    pub project: String,
    /// Its number in the project.
    pub number: u64,
    /// Whether it was made for this request.
    pub made: Made,
    /// Earlier builds of the same client whose place it takes: they are canceled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<u64>")]
    pub superseded: Vec<BuildId>,
    /// The jobs that no worker which is there could run, and why, the first 20. Of a pipeline that is a program, and of jobs that
    /// grow later, nothing is known yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<Waiting>,
    /// Why no worker can ask its pipeline's program for now, as a sentence. Absent if one can, or the pipeline is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
}

/// Whether a build was made for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// It was.
    New,
    /// An equal build waited already and stands for it.
    Joined,
}

/// Cancels a build, a job, or all builds of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    /// Why; kept in the audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// Puts a build before those that are not urgent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Urge {
    /// Why; kept in the audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// The builds that a call has touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Touched {
    /// The builds, in order of id.
    #[schemars(with = "Vec<u64>")]
    pub builds: Vec<BuildId>,
}

/// Which jobs of a build are tried again, within the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Retry {
    /// Those that failed. Of a build that was canceled none: its rebuild is another build.
    Failed {
        /// Why; kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
    /// Those that failed, and those that a condition, a gate or the choice of jobs kept from running.
    All {
        /// Why; kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
    /// The failing tests of those that failed and whose reports tell of any; the rest of these jobs is not run.
    FailedTests {
        /// Only of these, by full name; of every job if none is named.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        #[schemars(length(max = 1000))]
        jobs: BTreeSet<String>,
        /// Why; kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
    /// These tests; the rest of their jobs is not run.
    Tests {
        /// By the job's full name: each test as its line in `ROPEWALK_TESTS` (suite, tab, name), or as its name or its suite and
        /// name with a blank between them if that is one test's only. 1 to 1000 of each of 1 to 1000 jobs.
        #[schemars(length(min = 1, max = 1000))]
        tests: BTreeMap<String, Vec<String>>,
        /// Why; kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
    /// These.
    Jobs {
        /// Their full names.
        #[schemars(length(min = 1, max = 1000))]
        jobs: BTreeSet<String>,
        /// Why; kept in the audit.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        #[schemars(length(max = 1000))]
        reason: String,
    },
}

impl Retry {
    /// Why.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed { reason }
            | Self::All { reason }
            | Self::FailedTests { reason, .. }
            | Self::Tests { reason, .. }
            | Self::Jobs { reason, .. } => reason,
        }
    }
}

/// Runs a job again, whole or some of its tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryJob {
    /// Only these of its tests, as [`Retry::Tests`] names them: 1 to 1000. The whole job if it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000))]
    pub tests: Option<Vec<String>>,
    /// Why; kept in the audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// What a retry did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retried {
    /// The jobs that run again.
    pub jobs: Vec<String>,
    /// The build in which they do: the same, or a new one if the old is held by nobody any more.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// For people, of 20 jobs at most: which stay as they are, since the pipeline has grown by how they ended; and of jobs narrowed to
    /// tests what keeps them from passing even if those pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Builds the same files and inputs anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rebuild {
    /// Why; kept in the audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub reason: String,
}

/// One fault found in a pipeline, as `check --output json` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// A stable name in kebab case.
    pub code: String,
    /// Whether the build may go on.
    pub severity: SeverityWord,
    /// What is wrong.
    pub message: String,
    /// The cause, shown beside the place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column in characters, from 1.
    pub column: Option<u32>,
    /// The line itself, if the build's files are at hand and it has at most 400 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many characters of the line are meant, from `column` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// Further places that explain it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// What to do next.
    pub help: Option<String>,
}

/// A further place that explains a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Related {
    /// What is there.
    pub remark: String,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The line itself, if the build's files are at hand: at most [`LINE_CHARACTERS_MAX`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many characters of the line are meant, from `column` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
}

/// The most characters of a line that travel with a [`Diagnostic`].
pub const LINE_CHARACTERS_MAX: usize = 400;

/// The line of this number that holds these bytes of a file's text, and how many characters of it are meant. `None` if they lead to another
/// line, so that the text is another one than that of the fault, and of a line that is longer than [`LINE_CHARACTERS_MAX`].
fn line_of(text: &str, line: u32, start: u32, end: u32) -> Option<(String, u32)> {
    let (start, end) = (start as usize, end as usize);
    let meant = text.get(start..end.max(start))?;
    if text[..start].matches('\n').count() + 1 != line as usize {
        return None;
    }
    let begin = text[..start].rfind('\n').map_or(0, |before| before + 1);
    let line = text[begin..].lines().next().unwrap_or_default();
    let length = u32::try_from(meant.lines().next().unwrap_or_default().chars().count().max(1)).ok()?;
    (line.chars().count() <= LINE_CHARACTERS_MAX).then(|| (line.to_owned(), length))
}

impl Diagnostic {
    /// The same with its line, out of the whole text of its file; `start` and `end` are the bytes that are meant. A line that is longer than
    /// [`LINE_CHARACTERS_MAX`] does not travel.
    #[must_use]
    pub fn with_line_of(mut self, text: &str, start: u32, end: u32) -> Self {
        (self.text, self.length) = self.line.and_then(|line| line_of(text, line, start, end)).unzip();
        self
    }
}

impl Related {
    /// The same with its line, as [`Diagnostic::with_line_of`].
    #[must_use]
    pub fn with_line_of(mut self, text: &str, start: u32, end: u32) -> Self {
        (self.text, self.length) = line_of(text, self.line, start, end).unzip();
        self
    }
}

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeverityWord {
    /// Nothing may run.
    Error,
    /// The build goes on.
    Warning,
}

impl From<&graph::Diagnostic> for Diagnostic {
    fn from(found: &graph::Diagnostic) -> Self {
        let location = found.location.as_ref();
        Self {
            code: found.code.clone().into_owned(),
            severity: match found.severity {
                Severity::Error => SeverityWord::Error,
                Severity::Warning => SeverityWord::Warning,
            },
            message: found.message.clone(),
            label: found.label.clone(),
            file: location.map(|location| location.file.to_string()),
            line: location.map(|location| location.line),
            column: location.map(|location| location.column),
            text: None,
            length: None,
            related: found.related.iter().map(Into::into).collect(),
            help: Some(found.help.clone()).filter(|help| !help.is_empty()),
        }
    }
}

impl From<&(graph::Location, String)> for Related {
    fn from((place, remark): &(graph::Location, String)) -> Self {
        Self {
            remark: remark.clone(),
            file: place.file.to_string(),
            line: place.line,
            column: place.column,
            text: None,
            length: None,
        }
    }
}
