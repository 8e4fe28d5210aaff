//! The tables of every database, as data: what is copied whole from one to another, and how rows are written in bulk.
//! The schemas of SQLite and PostgreSQL agree on all that stands here; tests hold them to it.

/// What a column holds. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signed number of 64 bits.
    Integer,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// A table.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// How many of the first columns are the key.
    pub key: usize,
    pub columns: &'static [(&'static str, Kind)],
}

use Kind::{Bytes, Integer, Text};

pub const COUNTERS: Table = Table { name: "counters", key: 1, columns: &[("name", Text), ("value", Integer)] };

pub const FACTS: Table = Table {
    name: "facts",
    key: 1,
    columns: &[("position", Integer), ("facts", Integer), ("body", Text), ("graph", Bytes)],
};

pub const GRAPHS: Table = Table { name: "graphs", key: 1, columns: &[("digest", Bytes), ("body", Bytes)] };

pub const BUILDS: Table = Table {
    name: "builds",
    key: 1,
    columns: &[
        ("id", Integer),
        ("pipeline", Text),
        ("kind", Text),
        ("branch", Text),
        ("event", Text),
        ("client", Text),
        ("retry_of", Integer),
        ("created_at", Integer),
        ("name", Text),
        ("started_at", Integer),
        ("finished_at", Integer),
        ("verdict", Text),
        ("verdict_word", Text),
        ("canceled_by", Text),
        ("graph", Bytes),
        ("facts", Integer),
        ("jobs", Integer),
        ("errors", Integer),
        ("warnings", Integer),
        ("passed", Integer),
        ("failed", Integer),
        ("canceled", Integer),
        ("skipped", Integer),
        ("reused", Integer),
        ("open_gates", Integer),
        ("project", Text),
        ("number", Integer),
        ("source", Bytes),
        ("commit_id", Text),
    ],
};

pub const JOBS: Table = Table {
    name: "jobs",
    key: 2,
    columns: &[
        ("build", Integer),
        ("name", Text),
        ("state", Text),
        ("outcome", Text),
        ("reused_build", Integer),
        ("reused_attempt", Integer),
        ("reused_job", Text),
        ("attempts", Integer),
        ("attempt", Integer),
        ("operation", Bytes),
        ("started_at", Integer),
        ("finished_at", Integer),
        ("retry_at", Integer),
        ("child", Integer),
    ],
};

pub const ATTEMPTS: Table = Table {
    name: "attempts",
    key: 2,
    columns: &[
        ("build", Integer),
        ("attempt", Integer),
        ("job", Text),
        ("try_number", Integer),
        ("lease", Integer),
        ("worker", Text),
        ("leased_at", Integer),
        ("outcome", Text),
        ("started_at", Integer),
        ("finished_at", Integer),
        ("tests", Integer),
        ("tests_failed", Integer),
        ("fact", Integer),
    ],
};

pub const GATES: Table = Table {
    name: "gates",
    key: 2,
    columns: &[("build", Integer), ("job", Text), ("prompt", Text), ("opened_at", Integer), ("answered", Text)],
};

pub const ARTIFACTS: Table = Table {
    name: "artifacts",
    key: 4,
    columns: &[
        ("build", Integer),
        ("job", Text),
        ("attempt", Integer),
        ("name", Text),
        ("digest", Bytes),
        ("files", Integer),
        ("bytes", Integer),
    ],
};

pub const HISTORIES: Table =
    Table { name: "job_histories", key: 2, columns: &[("project", Text), ("job", Text), ("durations", Text)] };

pub const OPERATIONS: Table = Table {
    name: "operations",
    key: 2,
    columns: &[
        ("digest", Bytes),
        ("trust", Text),
        ("build", Integer),
        ("attempt", Integer),
        ("job", Text),
        ("job_id", Text),
        ("outcome", Text),
        ("artifacts", Text),
        ("artifact_bytes", Integer),
        ("at", Integer),
        ("used_at", Integer),
        ("evicted_at", Integer),
        ("evicted_reason", Text),
        ("replaced_build", Integer),
        ("replaced_at", Integer),
        ("replaced_reason", Text),
    ],
};

pub const MANIFESTS: Table = Table { name: "manifests", key: 1, columns: &[("digest", Bytes), ("body", Bytes)] };

pub const OPERATION_BLOBS: Table =
    Table { name: "operation_blobs", key: 3, columns: &[("operation", Bytes), ("trust", Text), ("blob", Bytes)] };

pub const TRIED: Table = Table { name: "tried", key: 1, columns: &[("digest", Bytes), ("at", Integer)] };

pub const CACHES: Table = Table {
    name: "caches",
    key: 2,
    columns: &[
        ("scope", Text),
        ("key", Text),
        ("blobs", Text),
        ("bytes", Integer),
        ("build", Integer),
        ("job", Text),
        ("at", Integer),
        ("used_at", Integer),
        ("evicted_at", Integer),
        ("evicted_reason", Text),
    ],
};

pub const CACHE_READS: Table = Table {
    name: "cache_reads",
    key: 4,
    columns: &[("scope", Text), ("key", Text), ("build", Integer), ("job", Text), ("at", Integer)],
};

pub const CACHE_BLOBS: Table =
    Table { name: "cache_blobs", key: 3, columns: &[("scope", Text), ("key", Text), ("blob", Bytes)] };

pub const JOURNAL: Table = Table { name: "journal", key: 1, columns: &[("sequence", Integer), ("spans", Text)] };

pub const RECORDS: Table = Table {
    name: "records",
    key: 2,
    columns: &[("kind", Text), ("key", Text), ("version", Integer), ("body", Bytes), ("at", Integer)],
};

pub const AUDIT: Table = Table {
    name: "audit",
    key: 1,
    columns: &[
        ("number", Integer),
        ("at", Integer),
        ("who", Text),
        ("verb", Text),
        ("target", Text),
        ("project", Text),
        ("origin", Text),
        ("detail", Text),
    ],
};

pub const LOG_CHUNKS: Table =
    Table { name: "log_chunks", key: 2, columns: &[("build", Integer), ("number", Integer), ("body", Bytes)] };

/// All of them, in the order in which they are copied.
pub const TABLES: &[Table] = &[
    COUNTERS,
    GRAPHS,
    FACTS,
    BUILDS,
    JOBS,
    ATTEMPTS,
    GATES,
    ARTIFACTS,
    HISTORIES,
    MANIFESTS,
    OPERATIONS,
    OPERATION_BLOBS,
    TRIED,
    CACHES,
    CACHE_READS,
    CACHE_BLOBS,
    JOURNAL,
    RECORDS,
    AUDIT,
    LOG_CHUNKS,
];

impl Table {
    /// The names of all columns, with commas.
    pub fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The names of the key's columns, with commas.
    pub fn key_names(&self) -> String {
        self.columns[..self.key].iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// A text as every database can hold it. PostgreSQL has no zero bytes in texts; each becomes the sign that stands for one.
/// JSON has none.
pub fn clean(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}
