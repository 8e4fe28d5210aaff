//! The shell: the one loop that owns the engine.
