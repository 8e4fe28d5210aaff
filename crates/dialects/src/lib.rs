//! Config languages, each lowered to a graph with diagnostics.
