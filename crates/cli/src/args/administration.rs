//! Flags of the commands that look after a server: tokens, settings, copies, health.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ListForm;

/// Which server, on its own machine.
#[derive(Clone, Debug, Args)]
pub struct Installation {
    /// The server's data folder; `ropewalk/server` among the user's data if none is given.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The file of settings; `settings.toml` in the data folder if there is one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `ropewalk config`.
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    pub installation: Installation,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ConfigForm::Human, value_name = "FORM")]
    pub output: ConfigForm,
}

/// How settings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigForm {
    /// Each key with its value, where that came from, and what it is for.
    Human,
    /// A file with every key, those at their defaults as comments.
    Toml,
    /// One object.
    Json,
}

/// `ropewalk backup`.
#[derive(Debug, Args)]
pub struct Backup {
    #[command(flatten)]
    pub installation: Installation,
    /// The folder to make it in, which must be empty or not there.
    pub to: PathBuf,
}

/// `ropewalk restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The folder of the backup.
    pub from: PathBuf,
    /// The data folder to restore into, which must be empty or not there; `ropewalk/server` among the user's data if none is
    /// given.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Only look whether the backup is whole: the database, every blob, every log.
    #[arg(long)]
    pub verify: bool,
    /// Restore what there is of a damaged backup whose database is readable, and tell what is missing: builds, artifacts.
    #[arg(long, conflicts_with = "verify")]
    pub damaged: bool,
}

/// `ropewalk migrate-store`.
#[derive(Debug, Args)]
pub struct MigrateStore {
    #[command(flatten)]
    pub installation: Installation,
    /// Where the records are to go: `sqlite`, in the data folder, or `postgres://USER:PASSWORD@HOST/DATABASE`.
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// Take the records from the data folder, whatever `store.url` says; after a backup was restored.
    #[arg(long)]
    pub from_sqlite: bool,
}

/// `ropewalk doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub installation: Installation,
    /// Read every blob and every log, instead of some.
    #[arg(long)]
    pub all: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
}

/// `ropewalk token`.
#[derive(Debug, Args)]
pub struct Token {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, on the server's machine, and print it alone.
    Create(TokenCreate),
    /// Make a weaker token from one, without the server, and print it alone.
    Attenuate(TokenAttenuate),
    /// Say what a token grants, without the server.
    Inspect(TokenInspect),
    /// Revoke a token by its id, or a narrowed one by its file, on the server's machine.
    Revoke(TokenRevoke),
    /// List the tokens that were made, on the server's machine.
    List(TokenList),
}

/// `ropewalk token create`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("kind").required(true).args(["worker", "submit", "admin", "verbs"])))]
pub struct TokenCreate {
    #[command(flatten)]
    pub installation: Installation,
    /// For a worker: it may take jobs of the pools given.
    #[arg(long)]
    pub worker: bool,
    /// For a client that submits builds and reads what becomes of them; make one for each client.
    #[arg(long, requires = "client")]
    pub submit: bool,
    /// For an administrator: everything.
    #[arg(long)]
    pub admin: bool,
    /// For anything else: this verb (read, submit, control, shell, work, admin); may be given several times.
    #[arg(long = "verb", value_name = "VERB")]
    pub verbs: Vec<String>,
    /// The name under which the queue charges what it submits.
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Whose token it is, for people.
    #[arg(long, value_name = "NAME", conflicts_with = "client")]
    pub name: Option<String>,
    /// Only this pool; may be given several times. All if none is given.
    #[arg(long = "pool", value_name = "POOL")]
    pub pools: Vec<String>,
    /// Only this project; may be given several times. All if none is given.
    #[arg(long = "project", value_name = "PROJECT")]
    pub projects: Vec<String>,
    /// When it ends: a duration from now (12h, 30d) or a time (2026-12-31T00:00:00Z).
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
}

/// `ropewalk token attenuate`.
#[derive(Debug, Args)]
pub struct TokenAttenuate {
    /// The file that holds the token; `-` is standard input.
    pub token: PathBuf,
    /// Only this verb of those that it grants (read, submit, control, shell, work, admin); may be given several times.
    #[arg(long = "verb", value_name = "VERB")]
    pub verbs: Vec<String>,
    /// Only requests about this project; may be given several times.
    #[arg(long = "project", value_name = "PROJECT")]
    pub projects: Vec<String>,
    /// Only this pool, where a request is about a pool; may be given several times.
    #[arg(long = "pool", value_name = "POOL")]
    pub pools: Vec<String>,
    /// Only requests about this build; may be given several times.
    #[arg(long = "build", value_name = "BUILD")]
    pub builds: Vec<u64>,
    /// When it ends: a duration from now (12h, 30d) or a time (2026-12-31T00:00:00Z).
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
}

/// `ropewalk token inspect`.
#[derive(Debug, Args)]
pub struct TokenInspect {
    /// The file that holds the token; `-` is standard input.
    pub token: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
}

/// `ropewalk token revoke`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["id", "token"])))]
pub struct TokenRevoke {
    #[command(flatten)]
    pub installation: Installation,
    /// The token's id, as `token list` and `token inspect` show it: with it goes all that was narrowed from it.
    pub id: Option<String>,
    /// The file of a narrowed token: it goes, with all that was narrowed from it; the one that it came from stays.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
}

/// `ropewalk token list`.
#[derive(Debug, Args)]
pub struct TokenList {
    #[command(flatten)]
    pub installation: Installation,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = ListForm::Human, value_name = "FORM")]
    pub output: ListForm,
}
