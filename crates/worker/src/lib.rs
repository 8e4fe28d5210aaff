//! Runs attempts: workspaces, executors, steps, logs, artifacts.

pub mod attempt;
pub mod worker;

pub mod depot;
#[cfg(target_os = "linux")]
pub mod evaluator;

mod cancel;
mod contexts;
mod files;
mod inputs;
mod output;
pub mod path_text;
mod place;
mod step;
mod variables;

pub mod archive;
pub mod artifacts;
pub mod cache;
pub mod chunked;
pub mod file_commands;
pub mod reports;

#[cfg(target_os = "linux")]
pub mod container;
#[cfg(target_os = "linux")]
pub mod keeper;
#[cfg(target_os = "linux")]
pub mod memory;
#[cfg(target_os = "linux")]
pub mod nix;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod usage;
#[cfg(target_os = "linux")]
pub mod workspace;

#[cfg(target_os = "linux")]
pub mod entry;
#[cfg(target_os = "linux")]
pub mod travel;
#[cfg(target_os = "linux")]
mod withheld;

pub mod git;
pub mod repository;
pub mod tree;

// The rules by which a server finds a job's inputs in a manifest are those by which a worker finds them in a tree.
pub use graph::patterns;

pub use attempt::{Arrived, INPUT_CHANGED, LeftBehind, LeftStep, run_attempt};
pub use cancel::Cancel;
pub use place::{
    environment_file, program_file, set_aside, snapshot_directory, take_aside, workspace_directory, workspaces,
};
pub use variables::Variables;
pub use worker::{
    BINARY_VARIABLE, GRACE_VARIABLE, Made, Observer, PROJECT_DATA_VARIABLE, Scratches, Settings, Shown, Start, Worker,
    WorkerError, data_marker_prefix, files_at_end, marker_prefix, remove_abandoned_scratches,
};
