//! The words of Ropewalk: what happened, what is to run, how it ended.
//!
//! Everything above this crate sees pipelines only as a [`Graph`]. Nothing here does I/O, reads a clock or
//! is `async`; serde and compiled globs are all it knows of the world.

pub mod asked;
pub mod attempt;
pub mod canonical;
pub mod causes;
pub mod condition;
pub mod diagnostic;
pub mod digest;
pub mod event;
pub mod fields;
pub mod hex;
pub mod job;
pub mod known;
pub mod legs;
pub mod name;
pub mod need;
pub mod nix;
pub mod outcome;
pub mod patterns;
pub mod quarantine;
pub mod shell;
pub mod text;
pub mod time;
pub mod validate;

pub use asked::{AskedTests, NeverRun, Partial, TestName};
pub use attempt::{
    Artifact, AttemptReport, AttemptSpec, CacheFound, CacheReport, CacheSaved, NeedResult, Phase, StepReport,
    StepResult, TestCase, TestOutcome, Usage, WaitedFor,
};
pub use causes::with_causes;
pub use condition::Condition;
pub use diagnostic::{Diagnostic, Location, Severity};
pub use digest::Digest;
pub use event::{Checkout, Event, EventKind, Origin, Parent, Trust, Waits};
pub use fields::{Field, FieldKind};
pub use job::{
    CacheUse, ChildBuild, Concurrency, ConcurrencyMode, Container, ENGINE_LABEL, Environment, Gate, Graph, Health,
    Hole, Job, Network, Pull, Reports, Resources, Retry, RetryOn, Reuse, Service, Shell, Status, StatusState, Step,
    Toleration, WorkspaceKind,
};
pub use known::{Answer, Evaluation, Known, Moved, Question};
pub use name::{AttemptNumber, BuildId, JobName, LeaseId, WorkerId};
pub use need::{Accepts, Carries, Ending, Need};
pub use outcome::{FAILURE_BYTES_MAX, Failure, Outcome, SkipReason, Verdict};
pub use text::Text;
pub use time::Timestamp;
