//! Runs attempts: workspaces, executors, steps, logs, artifacts.

pub mod depot;
pub mod file_commands;
#[cfg(target_os = "linux")]
pub mod keeper;
pub mod reports;
pub mod usage;
