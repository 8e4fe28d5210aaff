//! Flags of the commands that look after the workers, pools and secrets of a server, from anywhere.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ListForm;

/// Which server, over its API.
#[derive(Clone, Debug, Default, Args)]
pub struct Remote {
    /// The server: `http://HOST:PORT`, `https://HOST`, or `unix:/PATH/OF/SOCKET`; `$ROPEWALK_SERVER` by default.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The file with a token; `$ROPEWALK_TOKEN_FILE` by default.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
}

/// Whose builds: of this machine, or of a server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Builds of a server")]
pub struct Where {
    #[command(flatten)]
    pub remote: Remote,
    /// The project there; by default the name of the checkout's folder.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// The builds of this machine, also where `$ROPEWALK_SERVER` names a server.
    #[arg(long, conflicts_with_all = ["server", "token", "project"])]
    pub local: bool,
}

/// `ropewalk workers`.
#[derive(Debug, Args)]
pub struct Workers {
    /// What to do.
    #[command(subcommand)]
    pub command: WorkersCommand,
}

/// What to do with the workers of a server.
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// List the workers, with what they run and why one takes nothing new.
    List {
        #[command(flatten)]
        remote: Remote,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
    },
    /// Give a worker nothing new until it is resumed; what runs goes on.
    Pause(WorkerStop),
    /// Have a worker finish what runs and leave.
    Drain(WorkerDrain),
    /// Have a worker finish what runs, then start the program that is on its disk now, as the same worker.
    Update(WorkerUpdate),
    /// Give a worker jobs again, also one that finishes what runs in order to leave.
    Resume(WorkerChange),
    /// Forget a worker that is away, and what was said of it.
    Forget(WorkerChange),
}

/// One worker.
#[derive(Debug, Args)]
pub struct WorkerName {
    #[command(flatten)]
    pub remote: Remote,
    /// Its id, the beginning of it, or its name if only one has it.
    pub worker: String,
}

/// One worker that is to take nothing new.
#[derive(Debug, Args)]
pub struct WorkerStop {
    #[command(flatten)]
    pub which: WorkerName,
    /// Why; shown to those who wait.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// One worker that is to take jobs again, or that is no more.
#[derive(Debug, Args)]
pub struct WorkerChange {
    #[command(flatten)]
    pub which: WorkerName,
    /// Why; kept in the audit.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// One worker that is to leave.
#[derive(Debug, Args)]
pub struct WorkerDrain {
    #[command(flatten)]
    pub stop: WorkerStop,
    /// Wait until it has left; fails if it is told to stay.
    #[arg(long)]
    pub wait: bool,
}

/// One worker whose program was replaced.
#[derive(Debug, Args)]
pub struct WorkerUpdate {
    #[command(flatten)]
    pub stop: WorkerStop,
    /// Wait until it works again; fails if it is told to stay, or is away for two minutes.
    #[arg(long)]
    pub wait: bool,
}

/// `ropewalk pools`.
#[derive(Debug, Args)]
pub struct Pools {
    /// What to do.
    #[command(subcommand)]
    pub command: PoolsCommand,
}

/// What to do with the pools of a server.
#[derive(Debug, Subcommand)]
pub enum PoolsCommand {
    /// List the pools: what waits, what runs, who serves them.
    List {
        #[command(flatten)]
        remote: Remote,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
    },
    /// List what waits in a pool, what goes first before others, and why each waits.
    Queue {
        #[command(flatten)]
        remote: Remote,
        /// The pool; `default` is the one of jobs that name none.
        #[arg(default_value = "default")]
        pool: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
    },
    /// Start nothing in a pool until it is released.
    Hold {
        #[command(flatten)]
        remote: Remote,
        /// The pool.
        pool: String,
        /// Hold it also if no worker serves it and no job names it.
        #[arg(long)]
        new: bool,
        /// Why; shown to those who wait.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Start jobs in a pool again.
    Release {
        #[command(flatten)]
        remote: Remote,
        /// The pool.
        pool: String,
        /// Why; kept in the audit.
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// `ropewalk secrets`.
#[derive(Debug, Args)]
pub struct Secrets {
    /// What to do.
    #[command(subcommand)]
    pub command: SecretsCommand,
}

/// What to do with the secrets of a project on a server. Their values can be put and never be read.
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// List the names of a project's secrets.
    List {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
    },
    /// Put a secret, its value read from standard input, in place of the one that was there.
    Put {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
        /// The secret's name, as jobs name it.
        name: String,
        /// Make the project, if the server has none of this name yet.
        #[arg(long)]
        new: bool,
    },
    /// Remove a secret.
    Remove {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
        /// The secret's name.
        name: String,
    },
}

/// `ropewalk quarantine`.
#[derive(Debug, Args)]
pub struct Quarantine {
    /// What to do.
    #[command(subcommand)]
    pub command: QuarantineCommand,
}

/// What to do with the tests in quarantine of a project on a server. They are told apart from other failures, and builds asked for from
/// then on name them to their steps in ROPEWALK_QUARANTINE. No outcome changes by it alone.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List the tests in quarantine: expired entries first, then by their end, with how each test did of late.
    List {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
    },
    /// Put a test into quarantine, or change what is said of it.
    Add {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
        /// The test's name within its suite, as its report has it.
        name: String,
        /// Its suite, as its report has it.
        #[arg(long, value_name = "SUITE", default_value = "", hide_default_value = true)]
        suite: String,
        /// Only where the job of this full name reports it.
        #[arg(long, value_name = "JOB")]
        job: Option<String>,
        /// Who looks after it.
        #[arg(long, value_name = "WHO")]
        owner: String,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Until when, at most 90 days ahead: a day such as 2026-12-01, or a time.
        #[arg(long, value_name = "DAY")]
        until: String,
    },
    /// Take a test out.
    Remove {
        #[command(flatten)]
        remote: Remote,
        /// The project.
        project: String,
        /// The test's name within its suite.
        name: String,
        /// Its suite.
        #[arg(long, value_name = "SUITE", default_value = "", hide_default_value = true)]
        suite: String,
        /// The job for which it was put there, if for one alone.
        #[arg(long, value_name = "JOB")]
        job: Option<String>,
    },
}

/// `ropewalk member`.
#[derive(Debug, Args)]
pub struct Members {
    /// What to do.
    #[command(subcommand)]
    pub command: MembersCommand,
}

/// What to do with the members of a server: people who sign in to its pages, with a role on it or on single projects.
#[derive(Debug, Subcommand)]
pub enum MembersCommand {
    /// Add a member, or give one a role on one more project; prints a link to sign in, good once.
    Add {
        #[command(flatten)]
        remote: Remote,
        /// The person's name: who stands in the audit, at gates and with builds.
        name: String,
        /// What the member may do.
        #[arg(long, value_name = "ROLE", default_value = "developer")]
        role: MemberRole,
        /// On this project alone; on every project by default.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// List the members with their roles.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Only those with a role on this project.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
        output: ListForm,
    },
    /// Give a member another role, at once wherever they are signed in.
    Role {
        #[command(flatten)]
        remote: Remote,
        /// The member's name.
        name: String,
        /// What the member may do from now on.
        role: MemberRole,
        /// On this project; on every project by default.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// Print a link by which a member signs in once more, such as on another device.
    Link {
        #[command(flatten)]
        remote: Remote,
        /// The member's name.
        name: String,
    },
    /// Remove a member; all their sessions end at once.
    Remove {
        #[command(flatten)]
        remote: Remote,
        /// The member's name.
        name: String,
        /// Only the role on this project; with the last role the member goes.
        #[arg(long, value_name = "NAME", conflicts_with = "everywhere")]
        project: Option<String>,
        /// Only the role on every project; those on single projects stay, and with the last role the member goes.
        #[arg(long)]
        everywhere: bool,
    },
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemberRole {
    /// Look, and change nothing.
    Reader,
    /// Also build, cancel, retry, answer gates, open shells.
    Developer,
    /// Do everything, also manage members, tokens and secrets.
    Administrator,
}
