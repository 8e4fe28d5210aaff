//! Runs attempts: workspaces, executors, steps, logs, artifacts.

pub mod depot;
pub mod file_commands;
pub mod reports;
