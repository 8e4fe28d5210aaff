//! Config languages, each lowered to a graph with diagnostics.
//!
//! Read in this order: the tree that every file becomes, its four readers, then what people are told.

pub mod tree;

mod edn;
mod hashing;
mod json;
mod reading;
mod scalar;
mod toml;
mod yaml;

pub mod native;

pub mod program;

pub mod export;

pub mod report;
pub mod suggest;
