//! What a job runs in, and the variables that its steps find. Of secrets there is no more than their names.

use std::collections::BTreeMap;

use graph::BuildId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most variables that are told of one job.
pub const VARIABLES_MAX: usize = 2000;
/// The most bytes of a value that are told; a longer one ends in `…`.
pub const VALUE_BYTES_MAX: usize = 2000;

/// What a job runs in: what stands in the graph of its build, before any of it is evaluated on a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobEnvironment {
    /// Its build.
    #[schemars(with = "u64")]
    pub build: BuildId,
    /// The job's full name.
    pub job: String,
    /// `host`, `sandbox`, `image`, `dockerfile`, `nix` or `kubernetes`.
    pub kind: String,
    /// The image's reference, the path of the Dockerfile or the flake's reference, as written: `${{ }}` in it is not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Whether its steps reach the network; absent where that is the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkWord>,
    /// The user in its container; absent if it is the worker's own, or if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `OS/ARCHITECTURE` of its container, if it is not the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The images of the containers beside it, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, String>,
    /// Its coordinates in the matrix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matrix: BTreeMap<String, Value>,
    /// The pool whose workers may run it; empty is the default pool.
    pub pool: String,
    /// The labels that a worker must have, sorted; those that its environment asks for by itself among them.
    pub labels: Vec<String>,
    /// Thousandths of a core that it asks for; 0 is the worker's default.
    pub cpu_milli: u64,
    /// Bytes of memory that it asks for; 0 is the worker's default.
    pub memory_bytes: u64,
    /// The longest that one attempt may run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The variables that its steps find beside what the worker's machine or the image has. Where a name stands twice, the later one counts.
    /// At most [`VARIABLES_MAX`].
    pub variables: Vec<Variable>,
    /// There are more variables.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Whether something reaches the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkWord {
    /// As the machine does.
    On,
    /// Loopback only.
    Off,
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Who sets it.
    pub from: VariableFrom,
    /// The index of the step that alone has it, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u16>,
    /// What is known of its value.
    pub value: VariableValue,
}

/// Who sets a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VariableFrom {
    /// Ropewalk itself.
    Ropewalk,
    /// `env` of the pipeline; the job says nothing else of it.
    Pipeline,
    /// `env` of the job; of builds of before, that of the pipeline too.
    Job,
    /// `secrets` of the job.
    Secret,
    /// `env` of a step.
    Step,
}

/// What is known of a variable's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VariableValue {
    /// It stands in the graph.
    Text {
        /// The value.
        text: String,
    },
    /// A text with `${{ }}`, evaluated by the worker and kept nowhere.
    Expression {
        /// It, as written.
        text: String,
    },
    /// A secret: nobody is told.
    Secret,
    /// Only the worker knows it.
    Worker,
}
