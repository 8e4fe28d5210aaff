//! The command line: every command, flag and default. Help pages are made from here and kept golden.

use std::path::PathBuf;

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use server::settings::{Millis, Setting};

mod administration;
mod fleet;
mod headings;
mod serving;

pub use administration::{
    Backup, Config, ConfigForm, Doctor, Installation, MigrateStore, Restore, Token, TokenAttenuate, TokenCommand,
    TokenCreate, TokenInspect, TokenList, TokenRevoke,
};
pub use fleet::{
    MemberRole, Members, MembersCommand, Pools, PoolsCommand, Quarantine, QuarantineCommand, Remote, Secrets,
    SecretsCommand, Where, Workers, WorkersCommand,
};
pub use headings::command_line;
pub use serving::{Serve, Submit, Switch, Work};

/// The place in help pages of the flags that every command has: behind its own.
const EVERYWHERE: usize = 500;

/// Run CI pipelines: on this machine, or on a server with any number of workers, in isolation, with everything recorded.
#[derive(Debug, Parser)]
#[command(name = "ropewalk", version, propagate_version = true)]
pub struct Arguments {
    /// Work as if started in this directory.
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR", display_order = EVERYWHERE)]
    pub directory: Option<PathBuf>,
    /// When to use colours.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN", display_order = EVERYWHERE)]
    pub color: Colour,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Arguments {
    /// What the process was started with.
    ///
    /// # Errors
    /// Words that the command line does not know or that do not go together; and a wish for help or for the version, whose
    /// text the error holds.
    pub fn read() -> Result<Self, clap::Error> {
        let mut command = command_line();
        let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR`, `CLICOLOR=0` or `TERM=dumb` says no; anywhere with `CLICOLOR_FORCE=1`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline.
    Run(Run),
    /// Show what would run, without running it.
    Plan(Plan),
    /// Find every fault of a pipeline.
    Check(Check),
    /// Run the tests of a pipeline that is a Rust program.
    Test(Test),
    /// Write a pipeline for this repository.
    Init(Init),
    /// List builds, newest first.
    Builds(Builds),
    /// Show a build: its jobs, how they ended, their tests.
    Show(Show),
    /// Print the log of a build or of one of its jobs.
    Logs(Logs),
    /// Run a build again: whole, or only what did not pass.
    Retry(Retry),
    /// Cancel a build that is running.
    Cancel(Cancel),
    /// Move a build of a server to the top of the queue.
    Urge(Urge),
    /// Answer a gate, and go on with the build.
    Approve(Approve),
    /// Say why a job was reused, or why not.
    Explain(Explain),
    /// Look at what is kept for reuse, or clear it.
    Cache(Cache),
    /// Open the kept workspace of a job, without running it again.
    Shell(Shell),
    /// Write the pipeline as another system's configuration.
    Export(Export),
    /// Run a server for a team, with a worker beside it.
    Serve(Serve),
    /// Run jobs of a server on this machine.
    Work(Work),
    /// Have a server build a directory or a commit, and show the build.
    ///
    /// The directory is built as it stands, uncommitted changes included.
    Submit(Submit),
    /// List, pause, drain, update, resume, forget a server's workers.
    Workers(Workers),
    /// List, queue, hold and release the pools in which jobs wait.
    Pools(Pools),
    /// Put, list and remove the secrets of a project on a server.
    ///
    /// Nobody reads their values back.
    Secrets(Secrets),
    /// Put tests that come and go into quarantine, and take them out.
    ///
    /// Each has an owner, a reason and a day on which its quarantine ends.
    Quarantine(Quarantine),
    /// Add, list and remove the people who may sign in to a server.
    ///
    /// Each has a role, on every project or on one.
    Member(Members),
    /// Make, narrow, read and revoke the tokens of a server.
    Token(Token),
    /// Print every setting of a server, its value and what it is for.
    Config(Config),
    /// Say what is wrong with a server's installation, and what to do.
    Doctor(Doctor),
    /// Copy a whole server into a folder, while it runs.
    Backup(Backup),
    /// Verify a backup, and put it into an empty data folder.
    Restore(Restore),
    /// Move the records of a stopped server to PostgreSQL, or back.
    ///
    /// From SQLite to PostgreSQL, or from PostgreSQL to SQLite.
    MigrateStore(MigrateStore),
    /// Print a completion script for a shell.
    Completions(Completions),
    /// Lower replies of a pipeline's program, for its tests.
    #[command(hide = true)]
    Lower,
    /// Build and ask a pipeline's program, for a worker.
    #[command(hide = true)]
    Evaluate,
}

/// `ropewalk run`.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub event: EventArguments,
    /// Run only this job and all it needs; may be given several times.
    #[arg(long = "job", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// After a failure, go on with jobs that do not depend on it (the default).
    #[arg(long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
    /// After a failure, start nothing more and cancel what runs.
    #[arg(long)]
    pub fail_fast: bool,
    #[command(flatten)]
    pub how: RunHow,
    /// Go on with what had not ended of a build that was killed: by its number, `last`, or `last-failed`; the newest such build if none is
    /// named.
    #[arg(long, value_name = "BUILD", num_args = 0..=1, conflicts_with_all = ["jobs", "pipeline"])]
    pub resume: Option<Option<String>>,
    /// In a step of a build: only ask for the build. It begins when the build that runs the step has ended.
    #[arg(long, conflicts_with = "resume")]
    pub later: bool,
    /// In a step of a build: hand this output of a job on as an output of the step, under NAME if one is given.
    #[arg(long = "hand-on", value_name = "JOB.OUTPUT[=NAME]", conflicts_with_all = ["later", "resume"])]
    pub hand_on: Vec<String>,
}

/// How a build runs and is shown; shared by `run`, `retry` and `approve`.
#[derive(Clone, Debug, Args)]
pub struct RunHow {
    /// How many jobs run at once; one more than there are processors by default.
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: Option<u32>,
    /// How to show the build: `live` on a terminal, else `plain`, unless you say otherwise.
    #[arg(long, value_enum, default_value_t = Output::Auto, value_name = "FORM")]
    pub output: Output,
    /// Take secrets from this file of `NAME=value` lines as well as from the environment.
    #[arg(long, value_name = "FILE")]
    pub secrets: Option<PathBuf>,
    /// How long a job has to end once it is asked to, before it is killed: in seconds, or as `500ms`, `30s`, `2m`.
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = seconds)]
    pub grace: u64,
    /// Run every job, also those whose result could be reused.
    #[arg(long)]
    pub no_reuse: bool,
    /// The build that this process began with, and its exit code.
    #[arg(long, hide = true)]
    pub after: Option<crate::child::After>,
}

/// How to show a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// `live` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Running jobs in place, with their last line.
    Live,
    /// Every line, with its job's name before it.
    Plain,
    /// Only how jobs ended.
    Quiet,
    /// One JSON object a line.
    Json,
}

/// Which pipeline.
#[derive(Clone, Debug, Args)]
pub struct Source {
    /// The pipeline's file; by default all of `.ropewalk/pipeline.{yaml,yml,json,edn,toml}`, and the program `.ropewalk/Cargo.toml` or
    /// `.ropewalk/pipeline.rs`.
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<PathBuf>,
}

/// The whole seconds of a time that is written as a number of them or with a unit; a part of one counts as one.
fn seconds(text: &str) -> Result<u64, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let time = <Millis as Setting>::parse(text).map_err(|expected| format!("this is not {expected}"))?;
    Ok(time.0.div_ceil(1000))
}

/// A text that says something: what a shell makes of a variable that is not set is not meant, and would match `.*`.
fn filled(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it is empty: is a variable unset?") } else { Ok(text.to_owned()) }
}

/// What happened, as far as it is not taken from the repository.
#[derive(Clone, Debug, Default, Args)]
pub struct EventArguments {
    /// The kind of event; by default `tag` with `--tag`, `manual` with `--param`, else `push`.
    #[arg(long, value_name = "KIND", value_parser = ["push", "tag", "pull_request", "schedule", "manual", "api", "build"])]
    pub event: Option<String>,
    /// Run what the pipeline has under this command's name.
    #[arg(long, value_name = "NAME", conflicts_with = "event", value_parser = filled)]
    pub command: Option<String>,
    /// The branch; by default the one checked out.
    #[arg(long, value_name = "NAME", value_parser = filled)]
    pub branch: Option<String>,
    /// The tag; makes the event a tag event, unless another kind is said.
    #[arg(long, value_name = "NAME", value_parser = filled)]
    pub tag: Option<String>,
    /// What to compare with for `changed`: a branch or a commit; by default the commit before, and what is not committed.
    #[arg(long, value_name = "REVISION", value_parser = filled)]
    pub base: Option<String>,
    /// Who caused it; by default the account's name.
    #[arg(long, value_name = "NAME", value_parser = filled)]
    pub actor: Option<String>,
    /// A parameter of a manual start; may be given several times.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}

/// `ropewalk plan`.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub event: EventArguments,
    /// Take a job as ended: `JOB=OUTCOME[,OUTPUT=VALUE…]`, such as `build=passed,version=1.2`. What a function returns is `value`, as
    /// JSON: `plan=passed,value={"shards":[1,2]}`.
    #[arg(long, value_name = "RESULT")]
    pub given: Vec<String>,
    /// Take these files as changed instead of asking git.
    #[arg(long, value_name = "PATH")]
    pub changed: Vec<String>,
    /// How to print the graph.
    #[arg(long, value_enum, default_value_t = GraphForm::Tree, value_name = "FORM")]
    pub output: GraphForm,
}

/// The form of a printed graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphForm {
    /// For people.
    #[default]
    Tree,
    /// Canonical JSON.
    Json,
    /// Graphviz.
    Dot,
    /// A picture.
    Svg,
}

/// `ropewalk check`.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub source: Source,
    /// How to print the faults.
    #[arg(long, visible_alias = "output", value_enum, default_value_t = ReportForm::Human, value_name = "FORM")]
    pub format: ReportForm,
    /// Evaluate a program again, in the same process and in another, and compare: it must say the same.
    #[arg(long)]
    pub twice: bool,
}

/// `ropewalk test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Only tests whose name holds one of these.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The pipeline's file or manifest; by default `.ropewalk/Cargo.toml` or `.ropewalk/pipeline.rs`.
    #[arg(long, value_name = "PATH")]
    pub pipeline: Option<PathBuf>,
    /// Run them again on each change of a source.
    #[arg(long)]
    pub watch: bool,
}

/// The form of a report of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For people.
    #[default]
    Human,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0.
    Sarif,
}

/// `ropewalk init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Write a Rust program, with a test, instead of a config file.
    #[arg(long)]
    pub rust: bool,
    /// Print the pipeline instead of writing it.
    #[arg(long)]
    pub print: bool,
    /// Write over a pipeline that is there.
    #[arg(long)]
    pub force: bool,
}

/// `ropewalk builds`.
#[derive(Debug, Args)]
pub struct Builds {
    /// How many builds, at most.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Only builds older than this one.
    #[arg(long, value_name = "BUILD")]
    pub before: Option<u64>,
    /// Only builds of this branch.
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Only builds of this commit: its id, the first 7 digits or more of it, or a name that git knows here, as HEAD.
    #[arg(long, value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Only builds of this kind of event.
    #[arg(long, value_name = "KIND", value_parser = ["push", "tag", "pull_request", "schedule", "manual", "api", "build", "command"])]
    pub event: Option<String>,
    /// Only builds that ended so, or run.
    #[arg(long, value_name = "VERDICT", value_parser = ["running", "passed", "failed", "canceled", "diverged"])]
    pub verdict: Option<String>,
    /// Only builds of the pipeline of this name.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
    #[command(flatten)]
    pub at: Where,
}

/// The form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListForm {
    /// For people.
    #[default]
    Human,
    /// JSON.
    Json,
}

/// `ropewalk show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The build's number, `last`, or `last-failed`.
    #[arg(default_value = "last")]
    pub build: String,
    /// Show only this job, with its steps, outputs, tests and what it used.
    pub job: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The build's number, `last`, or `last-failed`.
    #[arg(default_value = "last")]
    pub build: String,
    /// Only this job, without its name before each line.
    pub job: Option<String>,
    /// Print lines as they come, until the job has ended, or the build if no job is named.
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines that match this regular expression; exit code 1 if there is none.
    #[arg(short, long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// Lines shown before and after each match.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "grep")]
    pub context: u64,
    /// Only these lines of the job's log, counted from 1: `FROM-TO`.
    #[arg(long, value_name = "RANGE")]
    pub lines: Option<String>,
    /// Only so many of the last lines.
    #[arg(long, value_name = "N")]
    pub tail: Option<u64>,
    /// With the time of each line.
    #[arg(short, long)]
    pub timestamps: bool,
    /// Of what stands under headings only warnings and errors.
    #[arg(long, conflicts_with_all = ["grep", "raw"])]
    pub folded: bool,
    /// Exactly the bytes that the job wrote.
    #[arg(long, conflicts_with_all = ["grep", "lines", "timestamps"])]
    pub raw: bool,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// The build's number, `last`, or `last-failed`.
    #[arg(default_value = "last")]
    pub build: String,
    /// Only this job, in the same build; on a server. With `--tests` also here.
    #[arg(conflicts_with = "failed")]
    pub job: Option<String>,
    /// Only what did not pass, and what needs it; the rest is taken from that build. On a server it runs in the same build, where what passed
    /// stays.
    #[arg(long)]
    pub failed: bool,
    /// Only the tests that failed, or these of the job: by name, or by suite and name with a blank between them. The job's
    /// steps find them in ROPEWALK_TESTS.
    #[arg(long, value_name = "NAME", num_args = 0.., conflicts_with = "failed")]
    pub tests: Option<Vec<String>>,
    /// Why; kept in a server's audit.
    #[arg(long, value_name = "TEXT", conflicts_with = "local")]
    pub reason: Option<String>,
    /// On a server, print the build's number and do not wait for its end.
    #[arg(long, conflicts_with = "local")]
    pub no_wait: bool,
    #[command(flatten)]
    pub how: RunHow,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The build's number, or `last`.
    #[arg(default_value = "last", conflicts_with = "commit")]
    pub build: String,
    /// Only this job and what needs it; on a server.
    pub job: Option<String>,
    /// All builds of this commit that have not ended; its first seven digits do, if they are those of one commit.
    #[arg(long, value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Why; kept in a server's audit.
    #[arg(long, value_name = "TEXT", conflicts_with = "local")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk urge`.
#[derive(Debug, Args)]
pub struct Urge {
    /// The build's number, or `last`.
    #[arg(default_value = "last")]
    pub build: String,
    /// Why; kept in the server's audit.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The build's number, or `last`.
    pub build: String,
    /// The gate's job.
    pub gate: String,
    /// A field of the gate; may be given several times.
    #[arg(long = "field", value_name = "NAME=VALUE")]
    pub fields: Vec<String>,
    /// Say no: the job and what needs it are skipped.
    #[arg(long)]
    pub reject: bool,
    /// Why; told with the answer, and kept in a server's audit.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub how: RunHow,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The job; all of them, one line each, if none is given.
    pub job: Option<String>,
    /// The build's number, or `last`.
    #[arg(long, default_value = "last")]
    pub build: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk cache`.
#[derive(Debug, Args)]
pub struct Cache {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// What to do with what is kept for reuse.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List kept results and caches.
    List {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
        #[command(flatten)]
        at: Where,
    },
    /// Say who wrote and who read the caches of a key, of every trust and of every set of paths.
    Explain {
        /// The key.
        key: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
        #[command(flatten)]
        at: Where,
    },
    /// Forget kept results and caches, so that jobs run again.
    Clear {
        /// Forget only what this job has kept.
        #[arg(long, value_name = "JOB")]
        job: Option<String>,
        #[command(flatten)]
        at: Where,
    },
}

/// `ropewalk shell`.
#[derive(Debug, Args)]
pub struct Shell {
    /// The build's number, `last`, or `last-failed`.
    pub build: String,
    /// The job; the first that failed if left out. With `@STEP` its files and variables are those at the end of that step, by number,
    /// id or name; with `@failed` those at the end of the step that failed, with `@start` those before the first step.
    #[arg(value_name = "JOB[@STEP]")]
    pub job: Option<String>,
    /// Give the shell this secret of the job anew, from the environment; it is recorded. May be given several times.
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,
    /// Run this there instead of an interactive shell.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    pub at: Where,
}

/// `ropewalk export`.
#[derive(Debug, Args)]
pub struct Export {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub event: EventArguments,
    /// The system whose configuration is written.
    #[arg(long, value_enum, value_name = "SYSTEM")]
    pub to: ExportSystem,
}

/// A system whose configuration `ropewalk export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportSystem {
    /// A workflow of GitHub Actions: `.github/workflows/*.yml`.
    Github,
    /// GitLab CI: `.gitlab-ci.yml`.
    Gitlab,
    /// A Buildkite pipeline: `.buildkite/pipeline.yml`.
    Buildkite,
}

/// `ropewalk completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that is to complete commands.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_time_is_a_number_of_seconds_or_has_a_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(seconds(text).ok(), expected, "{text}");
        check("2", Some(2));
        check("2s", Some(2));
        check("1m", Some(60));
        check("500ms", Some(1));
        check("soon", None);
        check("-1", None);
    }
}
