//! Flags of the commands that make a server, work for one, and ask one for builds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use server::settings::Slots;

use super::{EventArguments, Installation, ListForm, Output, Remote};
use crate::agent::health::Room;

/// `ropewalk serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub installation: Installation,
    /// Where the API is offered: `ADDRESS:PORT`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Whether a worker runs on this machine beside the server; `on` unless the settings say otherwise.
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub local_worker: Option<Switch>,
    /// Go on with new keys, or other ones than the records were made with: tokens and secrets that were made before are worth nothing then.
    #[arg(long)]
    pub new_keys: bool,
    /// Take over the place of blobs, which another installation had: only these records say from now on what is kept there.
    #[arg(long)]
    pub take_blobs: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// A worker runs beside it.
    On,
    /// The server alone: jobs wait for workers that join it.
    Off,
}

/// `ropewalk work`.
#[derive(Debug, Args)]
pub struct Work {
    /// The server: `http://HOST:PORT`, `https://HOST`, `unix:/PATH/OF/SOCKET`, or `file:PATH` of a file that holds one of them;
    /// given several times, they are tried in turn. `$ROPEWALK_SERVER` by default.
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,
    /// The file with the worker's token; `$ROPEWALK_TOKEN_FILE` by default.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// A pool whose jobs it runs; may be given several times. Without any, those that its token names, else the
    /// default pool, that of jobs that name none.
    #[arg(long = "pool", value_name = "POOL")]
    pub pools: Vec<String>,
    /// Labels it has, with commas between; may be given several times.
    #[arg(long, value_name = "LABELS")]
    pub labels: Vec<String>,
    /// How many jobs it runs at once; 0 is one for each processor.
    #[arg(long, value_name = "N", default_value = "0", value_parser = clap::value_parser!(u32).range(..=i64::from(Slots::MAX)))]
    pub capacity: u32,
    /// The cores that jobs may ask for, all together; all by default.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// The memory that jobs may ask for, all together, such as `8GiB`; all by default.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Room>,
    /// Its name for people; the machine's by default.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its folder, for its key, workspaces and what it has not told yet; `worker` in the data of `ropewalk` by default.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Take nothing new while this command fails; it is run every half a minute.
    #[arg(long, value_name = "COMMAND")]
    pub health_check: Option<String>,
    /// Take nothing new while the disk of its folder has less room; `$ROPEWALK_WORKER_MIN_FREE` by default, and without that a twentieth
    /// of the disk, or 1 GiB if that is less.
    #[arg(long, value_name = "SIZE")]
    pub min_free: Option<Room>,
    /// How much it keeps of files that were fetched or made, so that they are not fetched again; 20 GiB by default.
    #[arg(long, value_name = "SIZE")]
    pub keep_contents: Option<Room>,
    /// How long a job has to end once it is asked to, before it is killed: in seconds, or as `500ms`, `30s`, `2m`.
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = super::seconds)]
    pub grace: u64,
    /// How it writes its own log to standard error: lines for people, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub log: ListForm,
    /// End after so many seconds without any server.
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub orphaned_after: Option<u64>,
}

/// `ropewalk submit`.
#[derive(Debug, Args)]
pub struct Submit {
    /// The directory that is built; by default the one started in.
    #[arg(id = "submitted", value_name = "DIR")]
    pub directory: Option<PathBuf>,
    #[command(flatten)]
    pub remote: Remote,
    /// The pool of jobs that name none; by default that of the token if it is for one alone, else the default pool.
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// The project it belongs to; by default the name of the checkout's folder.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Build this commit instead of the files as they stand.
    #[arg(long, value_name = "COMMIT")]
    pub commit: Option<String>,
    /// The pipeline's file, below the directory; all that it has by default.
    #[arg(long, value_name = "PATH")]
    pub pipeline: Option<String>,
    #[command(flatten)]
    pub event: EventArguments,
    /// Run only this job and all it needs; may be given several times.
    #[arg(long = "job", value_name = "JOB")]
    pub jobs: Vec<String>,
    /// After a failure, start nothing more and cancel what runs.
    #[arg(long)]
    pub fail_fast: bool,
    /// Go before builds that are not urgent.
    #[arg(long)]
    pub urgent: bool,
    /// Make a build of its own, also if one of the same files and inputs waits already; it takes the place of no earlier build of yours, and
    /// none takes its place.
    #[arg(long)]
    pub separate: bool,
    /// How to show the build: `live` on a terminal, else `plain`, unless you say otherwise.
    #[arg(long, value_enum, default_value_t = Output::Auto, value_name = "FORM")]
    pub output: Output,
    /// Print the build's number and do not wait for its end; with `--output json` an object that also names the jobs which no worker
    /// that is there could run.
    #[arg(long)]
    pub no_wait: bool,
}
