//! Runs attempts: workspaces, executors, steps, logs, artifacts.

pub mod archive;
pub mod artifacts;
pub mod depot;
pub mod file_commands;
pub mod git;
#[cfg(target_os = "linux")]
pub mod keeper;
pub mod layers;
pub mod patterns;
pub mod reports;
pub mod repository;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod tree;
pub mod usage;
#[cfg(target_os = "linux")]
pub mod workspace;
