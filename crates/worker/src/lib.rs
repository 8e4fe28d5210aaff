//! Runs attempts: workspaces, executors, steps, logs, artifacts.
