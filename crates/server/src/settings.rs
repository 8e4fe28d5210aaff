//! The settings of a server: one table of keys, each with its type, its default, its words, and whether a running server
//! takes a change. `ropewalk config` prints the table; the file, the environment and flags are read by it, and nothing
//! else is a setting.
//!
//! A flag wins over the file, the file over the environment (`ROPEWALK_` and the key, in capitals, `_` for `.`), that
//! over the default. The file may be TOML, YAML, JSON or EDN.

mod reading;
mod shown;
mod value;

pub use reading::{Environment, Loaded, SettingFault, SettingsFile, Source, load};
pub use value::{
    BlobsUrl, Bytes, Choice, Days, Durability, Heartbeat, LogForm, Millis, OnOff, Secret, Setting, Slots, StoreUrl,
    Texts, Told, WebAddress,
};

use std::net::SocketAddr;

/// Whether a running server takes a change of a key (SIGHUP), or only the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once.
    Live,
    /// At the next start.
    Start,
}

/// What stands before the key in the name of a variable of the environment.
const PREFIX: &str = "ROPEWALK_";

/// One row of the table.
pub struct Key {
    /// As it stands in the file: section and name.
    pub name: &'static str,
    /// What may stand there.
    pub takes: &'static str,
    /// What holds if nothing is said.
    pub default: &'static str,
    /// What it is for, for people.
    pub about: &'static str,
    /// When a change counts.
    pub reload: Reload,
    /// Whether a value that is wrong is told.
    pub told: Told,
    set: fn(&mut Settings, &str) -> Result<(), String>,
    show: fn(&Settings) -> String,
    differs: fn(&Settings, &Settings) -> bool,
}

/// The keys that differ between what a server began with and what it has read since, and that only the next start takes.
pub fn for_the_next_start(began: &Settings, fresh: &Settings) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.reload == Reload::Start && (key.differs)(began, fresh))
}

impl Key {
    /// The variable of the environment that gives it.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_uppercase().replace('.', "_"))
    }

    /// The value that `settings` has, as it would stand in a file; a secret is hidden.
    #[must_use]
    pub fn value(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }
}

macro_rules! settings {
    ($($name:literal $field:ident: $type:ty = $default:literal, $reload:ident, $about:literal;)*) => {
        /// The settings of a server. Each field is a row of [`KEYS`].
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $(#[doc = $about] pub $field: $type,)*
        }

        /// All keys, in the order in which they are shown.
        pub const KEYS: &[Key] = &[$(Key {
            name: $name,
            takes: <$type as Setting>::TAKES,
            default: $default,
            about: $about,
            reload: Reload::$reload,
            told: <$type as Setting>::TOLD,
            set: |settings, text| {
                settings.$field = <$type as Setting>::parse(text)?;
                Ok(())
            },
            show: |settings| settings.$field.show(),
            differs: |left, right| left.$field != right.$field,
        },)*];

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: <$type as Setting>::parse($default).expect("defaults are of their types"),)* }
            }
        }
    };
}

settings! {
    "server.listen" listen: SocketAddr = "127.0.0.1:7070", Start,
        "The address and port on which people, programs and workers are served";
    "server.url" url: Option<WebAddress> = "", Start,
        "How people and workers reach this server, for links and for other servers; the address of `listen` if empty";
    "server.log" log: LogForm = "human", Start,
        "How the server writes its own log to standard error";
    "server.grace" grace: Millis = "30s", Live,
        "How long a graceful stop waits for requests under way before it cuts them";
    "store.url" store_url: StoreUrl = "sqlite", Start,
        "Where builds are recorded: `sqlite`, a file in the data folder, or `postgres://USER:PASSWORD@HOST/DATABASE`";
    "store.durability" store_durability: Durability = "disk", Start,
        "What an answer promises: `disk`, it survives the machine's death; `process`, it survives the server's";
    "blobs.url" blobs_url: BlobsUrl = "directory", Start,
        "Where artifacts, caches and sources are kept: `directory`, in the data folder, `directory:/PATH`, which servers on one \
         machine may share, or `s3://BUCKET/PREFIX`";
    "blobs.endpoint" blobs_endpoint: Option<WebAddress> = "", Start,
        "The address of the S3-compatible service; that of Amazon if empty";
    "blobs.region" blobs_region: String = "us-east-1", Start,
        "The region of the bucket";
    "blobs.access_key_id" blobs_access_key_id: Option<String> = "", Start,
        "The id of the key that may read and write the bucket";
    "blobs.secret_access_key" blobs_secret_access_key: Secret = "", Start,
        "The key itself; better given by the environment than by a file";
    "blobs.cache" blobs_cache: Bytes = "10GiB", Start,
        "How much of a bucket's content is kept in the data folder as well";
    "logs.durability" logs_durability: Durability = "process", Start,
        "What the acknowledgement of a log's lines promises, as `store.durability`";
    "logs.shared" logs_shared: OnOff = "off", Start,
        "Whether logs that are being written stand in the database as well, so that another server can go on with them";
    "worker.local" local_worker: OnOff = "on", Start,
        "Whether this machine runs jobs too";
    "worker.pools" local_pools: Texts = "default", Start,
        "The pools whose jobs the local worker takes";
    "worker.slots" local_slots: Slots = "0", Start,
        "How many jobs the local worker runs at once; 0 is one for each processor";
    "worker.min_free" local_min_free: Option<Bytes> = "", Start,
        "How much room the disk of the data folder must have before the local worker takes a job; a twentieth of it, or 1GiB if that \
         is less, if empty";
    "worker.heartbeat" heartbeat: Heartbeat = "10s", Start,
        "How often a worker shows that it is there; one that is silent for three times as long is lost";
    "builds.auto_cancel" auto_cancel: OnOff = "on", Live,
        "Whether a newer build of the same branch or pull request cancels older ones that run; projects may differ";
    "builds.keep" builds_keep: u64 = "1000", Live,
        "How many of a project's newest builds are kept however old; `builds.quota` may remove them";
    "builds.keep_for" builds_keep_for: Days = "90d", Live,
        "How long builds beyond these are kept; 0d is for ever";
    "builds.quota" builds_quota: Bytes = "0B", Live,
        "How much a project's artifacts and logs may take before its oldest builds go, all but the newest; 0B is without limit";
    "caches.keep_for" caches_keep_for: Days = "14d", Live,
        "How long a cache or a result that nobody uses is kept; 0d is for ever";
    "caches.quota" caches_quota: Bytes = "20GiB", Live,
        "How much all caches may take before the longest unused go; 0B is without limit";
    "steps.keep_for" steps_keep_for: Days = "7d", Live,
        "How long the files that jobs left are kept, for shells on other workers than the one that ran the job; 0d is for ever";
    "steps.quota" steps_quota: Bytes = "20GiB", Live,
        "How much all these files may take before the oldest go; 0B is without limit";
    "telemetry.otlp" otlp: Option<WebAddress> = "", Start,
        "Where traces of builds are sent by OTLP over HTTP, such as http://localhost:4318; none if empty";
}

impl Settings {
    /// The address under which others reach this server.
    #[must_use]
    pub fn public_url(&self) -> String {
        match &self.url {
            Some(url) => url.0.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.listen),
        }
    }
}

/// The key of this name.
#[must_use]
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
